"""Predictors that look at no feature: what every model must beat. K = classes learnt so far."""

import numpy as np

from streamlearn.jit._compile import F8, U1, kernel
from streamlearn.jit.scale import any_infinite, deviation

LEARNS, MUTE = 1, 2  # bits of `plan`


@kernel
def plan_rows(X: F8, y: F8, weight: F8, mode: U1, most: float, plan: U1) -> tuple[float, int]:
    """Which rows are learnt from (LEARNS), and which get no answer for an infinite feature (MUTE).

    X (n, d) | y, weight (n,) | mode (n,) | most: classes there may be, 0 for targets | plan (n,)
    written. Returns the largest y among the rows learnt, -1 without any, and how many were refused:
    an infinite feature or target, or what is no code of a class. O(n d).
    """
    suspect = any_infinite(X.reshape(X.size))
    top, refused = -1.0, 0
    for t in range(y.shape[0]):
        mute = suspect and any_infinite(X[t])
        plan[t] = MUTE if mute else 0
        if (mode[t] & 2) != 0 and weight[t] > 0.0 and not np.isnan(y[t]):
            is_code = 0.0 <= y[t] < most and y[t] == np.floor(y[t])
            if mute or abs(y[t]) == np.inf or (most > 0.0 and not is_code):
                refused += 1
            else:
                plan[t] = LEARNS
                top = max(top, y[t])
    return top, refused


@kernel
def silence(K: int, proba: F8) -> None:
    """The probabilities of a row that got no answer: NaN for the K classes known then, else 0."""
    proba[:K] = np.nan
    proba[K:] = 0.0


@kernel
def no_change_run(y: F8, mode: U1, plan: U1, last: F8, K: int, prediction: F8, proba: F8) -> None:
    """Answer each row with the last label learnt before it.

    y (n,) | mode, plan (n,) | last (1,) in/out, NaN before the first | K before the block |
    prediction (n,), proba (n, K after the block) written. O(n K).
    """
    for t in range(y.shape[0]):
        if (mode[t] & 1) != 0 and plan[t] != MUTE:
            prediction[t] = last[0]
            proba[t] = 0.0
            if last[0] == last[0]:
                proba[t, int(last[0])] = 1.0
        else:
            prediction[t] = np.nan
            silence(K, proba[t])
        if plan[t] == LEARNS:
            last[0] = y[t]
            K = max(K, int(y[t]) + 1)


@kernel
def share_out(counts: F8, proba: F8) -> float:
    """Write the share (K,) of each count (K,); the first of the largest, NaN if all are 0. O(K)."""
    total, best = 0.0, 0
    for k in range(counts.shape[0]):
        total += counts[k]
        if counts[k] > counts[best]:
            best = k
    for k in range(counts.shape[0]):
        proba[k] = counts[k] / total if total > 0.0 else 0.0
    return float(best) if total > 0.0 else np.nan


@kernel
def majority_run(
    y: F8, weight: F8, mode: U1, plan: U1, counts: F8, K: int, prediction: F8, proba: F8
) -> None:
    """Answer each row with the shares of the labels learnt before it.

    y, weight (n,) | mode, plan (n,) | counts (K after the block,) in/out | K before the block |
    prediction (n,), proba (n, K after the block) written. O(n K).
    """
    for t in range(y.shape[0]):
        if (mode[t] & 1) != 0 and plan[t] != MUTE:
            prediction[t] = share_out(counts, proba[t])
        else:
            prediction[t] = np.nan
            silence(K, proba[t])
        if plan[t] == LEARNS:
            counts[int(y[t])] += weight[t]
            K = max(K, int(y[t]) + 1)


@kernel
def mean_learn(stats: F8, y: float, weight: float, follows: bool) -> None:
    """Take one target into the weighted mean, or take it as the last (follows).

    stats (2,) in/out: mean, sum of weights. O(1).
    """
    stats[1] += weight
    gain = 1.0 if follows else weight / stats[1]
    moved = stats[0] + gain * deviation(y, stats[0])
    stats[0] = y if follows else moved


@kernel
def mean_run(
    y: F8, weight: F8, mode: U1, plan: U1, follows: bool, stats: F8, prediction: F8
) -> None:
    """Answer each row with the weighted mean of the targets before it, or with the last (follows).

    y, weight (n,) | mode, plan (n,) | stats (2,) in/out: mean, sum of weights | prediction (n,)
    written, NaN before the first target. O(n).
    """
    for t in range(y.shape[0]):
        answers = (mode[t] & 1) != 0 and plan[t] != MUTE and stats[1] > 0.0
        prediction[t] = stats[0] if answers else np.nan
        if plan[t] == LEARNS:
            mean_learn(stats, y[t], weight[t], follows)
