"""Detectors on one number: the places of `state` that all of them share.

A walker feeds values to its push, which gives the statistic, and compares. The value after an alarm
finds `state` all zeros: n = 0 says to a push that it starts.
"""

import math

from streamlearn.jit._compile import part

ALARMED, WARNED, STATISTIC, LIMIT, N, OWN = (
    0,
    1,
    2,
    3,
    4,
    5,
)  # in `state`; from OWN: theirs
ROSE, FELL = 1.0, -1.0  # ALARMED: what the mean did at the alarm; 0 before one
CALM = 1e100  # a value beyond is refused: its square would swamp every sum for ever
SILENT = -math.inf  # the statistic that says nothing yet


@part
def grown_mean(mean: float, value: float, n: float) -> float:
    """The mean of n values from that of all but the last, rounded as River rounds it."""
    return mean + (1.0 / n) * (value - mean)
