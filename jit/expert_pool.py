"""Losses of an expert: how large they usually are, and which are too large to be its own.

One row of `stats` an expert: lessons n_e, losses counted, their mean and their sum of squared
deviations (Welford), and when it was last active.
"""

import math

from streamlearn.jit._compile import F8, kernel, part

LESSONS, COUNTED, MEAN, SPREAD, USED, N_STATS = 0, 1, 2, 3, 4, 5
_YOUNG = 15.0  # own lessons before losses count: those of a beginner are no measure
_HUGE = 1e150  # a loss beyond it says nothing of those to come, and its square would be infinite


@part
def count(loss: float, own: F8) -> None:
    """One more lesson, and its loss if there is one and the expert is no beginner."""
    own[LESSONS] += 1.0
    if own[LESSONS] > _YOUNG and loss < _HUGE:  # and no NaN
        own[COUNTED] += 1.0
        gap = loss - own[MEAN]
        own[MEAN] += gap / own[COUNTED]
        own[SPREAD] += gap * (loss - own[MEAN])


@kernel
def count_losses(losses: F8, taught: F8, own: F8) -> None:
    """Count lessons and their losses. losses (n,), NaN for none | taught (n,) 1 or 0 | own (5,)."""
    for t in range(losses.shape[0]):
        if taught[t] > 0.0:
            count(losses[t], own)


@kernel
def walk_losses(losses: F8, taught: F8, own: F8, suspicion: F8, z: float, warm: float) -> int:
    """Count lessons up to the first whose loss is too large, which is left out; its row, or -1.

    Too large: more than z standard deviations above the mean, after `warm` lessons. suspicion (1,)
    in/out: one less for each lesson that is not. O(n), allocates nothing.
    """
    for t in range(losses.shape[0]):
        if taught[t] == 0.0:
            continue
        if own[LESSONS] > warm and own[COUNTED] > 1.0:
            sd = math.sqrt(own[SPREAD] / (own[COUNTED] - 1.0))
            if losses[t] > own[MEAN] + z * sd:
                return t
        suspicion[0] = max(suspicion[0] - 1.0, 0.0)
        count(losses[t], own)
    return -1
