"""Paired differences of several learners' losses on the same rows, pair by pair, in row order.

The pairs of K learners are (0, 1), (0, 2), …, (1, 2), …; a difference is the loss of the first less
that of the second, so it is positive where the second one did better.
"""

import math

from streamlearn.jit._compile import F8, I8, kernel

# columns of sums, one row a pair; SCALE is the variation when `start` rows had differed, 0 before
ROWS, MEAN, VARIATION, WINS, DEFEATS, SCALE = 0, 1, 2, 3, 4, 5
N_TERMS = 6

# counters of the course: labels seen, points kept, labels between two points
SEEN, POINTS, STRIDE = 0, 1, 2


@kernel
def paired_run(losses: F8, sums: F8, course: F8, counters: I8, start: int) -> None:
    """Take n rows of losses; the course keeps the sums at every STRIDE labels.

    losses (n, K), NaN where a learner was not scored | sums (pairs, N_TERMS) in/out | course
    (points, pairs, 3) in/out: rows, mean, variation | counters (3,) in/out | start >= 1.
    The variation is the sum of (D - mean before D)^2, with mean 0 before the first: its centre is
    known before the row, as an empirical-Bernstein bound wants it. When the course is full, every
    second point goes and the stride doubles. O(n pairs), allocates nothing.
    """
    for t in range(losses.shape[0]):
        _add_row(losses[t], sums, start)
        counters[SEEN] += 1
        if counters[SEEN] % counters[STRIDE] == 0:
            _keep(sums, course, counters)


@kernel
def _add_row(losses: F8, sums: F8, start: int) -> None:
    """One row: every pair of which both were scored."""
    p = 0
    for i in range(losses.shape[0]):
        for j in range(i + 1, losses.shape[0]):
            difference = losses[i] - losses[j]
            if math.isfinite(difference):
                _add(sums[p], difference, start)
            p += 1


@kernel
def _add(sums: F8, difference: float, start: int) -> None:
    """One difference of one pair."""
    off = difference - sums[MEAN]
    sums[ROWS] += 1.0
    sums[MEAN] += off / sums[ROWS]
    sums[VARIATION] += off * off
    if difference == 0.0:
        return
    sums[WINS if difference > 0.0 else DEFEATS] += 1.0
    if sums[SCALE] == 0.0 and sums[WINS] + sums[DEFEATS] >= start:
        sums[SCALE] = sums[VARIATION]


@kernel
def _keep(sums: F8, course: F8, counters: I8) -> None:
    """Add a point to the course; a full one is thinned first."""
    if counters[POINTS] == course.shape[0]:
        half = course.shape[0] // 2
        for k in range(half):  # points at 2, 4, 6, … strides stay
            course[k] = course[2 * k + 1]
        counters[POINTS] = half
        counters[STRIDE] *= 2
        if counters[SEEN] % counters[STRIDE] != 0:
            return
    for p in range(sums.shape[0]):
        for c in range(3):
            course[counters[POINTS], p, c] = sums[p, c]
    counters[POINTS] += 1
