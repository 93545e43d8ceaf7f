"""Prequential error: how wrong the answer was that was given before the label was learnt."""

import math

import numpy as np

from streamlearn.jit._compile import F8, U1, kernel


@kernel
def zero_one_errors(y: F8, prediction: F8, weight: F8, mode: U1, out: F8) -> None:
    """1 where a learnt row was answered wrongly, 0 where rightly, NaN where nothing is comparable.

    y, prediction, weight (n,) | mode (n,) | out (n,) written. O(n), allocates nothing.
    """
    for t in range(y.shape[0]):
        usable = (mode[t] & 2) != 0 and weight[t] > 0.0
        if usable and not (np.isnan(y[t]) or np.isnan(prediction[t])):
            out[t] = 1.0 if y[t] != prediction[t] else 0.0
        else:
            out[t] = np.nan


@kernel
def absolute_errors(y: F8, prediction: F8, weight: F8, mode: U1, out: F8) -> None:
    """|y - prediction| on learnt rows, NaN where nothing is comparable.

    y, prediction, weight (n,) | mode (n,) | out (n,) written. O(n), allocates nothing.
    """
    for t in range(y.shape[0]):
        usable = (mode[t] & 2) != 0 and weight[t] > 0.0
        out[t] = abs(y[t] - prediction[t]) if usable else np.nan


@kernel
def log_losses(y: F8, proba: F8, weight: F8, mode: U1, out: F8) -> None:
    """-log of the probability of the label on learnt rows, at most 34.5; NaN where there is none.

    y, weight (n,) | proba (n, C), NaN where not asked | mode (n,) | out (n,) written. O(n),
    allocates nothing. A class that had no probability yet has 0; what is no class is no label.
    """
    for t in range(y.shape[0]):
        usable = (mode[t] & 2) != 0 and weight[t] > 0.0 and proba.shape[1] > 0
        if usable and 0.0 <= y[t] < math.inf and not math.isnan(proba[t, 0]):
            p = proba[t, int(y[t])] if y[t] < proba.shape[1] else 0.0
            out[t] = -math.log(max(p, 1e-15))
        else:
            out[t] = math.nan
