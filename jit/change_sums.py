"""Page-Hinkley and CUSUM: sums of deviations from the running mean.

Letters: m = mean so far; up, down = the sums that watch for a rise and a fall.
"""

from streamlearn.jit._compile import F8, kernel, part
from streamlearn.jit.one_number import (
    ALARMED,
    CALM,
    FELL,
    LIMIT,
    OWN,
    ROSE,
    SILENT,
    STATISTIC,
    N,
    grown_mean,
)

MEAN, UP, DOWN, LOW, HIGH = range(OWN, OWN + 5)  # places in `state`
SIZE = OWN + 5
LEAST, DELTA, THRESHOLD, ALPHA, WATCH_UP, WATCH_DOWN = range(6)  # places in `settings`


@part
def _distance(up: float, down: float, state: F8, settings: F8) -> float:
    """The larger distance of those that are watched; nothing before enough values."""
    if state[N] < settings[LEAST]:
        return SILENT
    if settings[WATCH_UP] == 0.0:
        return down
    if settings[WATCH_DOWN] == 0.0:
        return up
    return max(up, down)


@part
def page_hinkley_push(value: float, state: F8, settings: F8) -> float:
    """Take one value; how far a sum is from its extreme. Both sums forget by alpha."""
    if state[N] == 0.0:
        state[LOW], state[HIGH] = -SILENT, -1.0
    state[N] += 1.0
    state[MEAN] = grown_mean(state[MEAN], value, state[N])
    e = value - state[MEAN]
    state[UP] = settings[ALPHA] * state[UP] + e - settings[DELTA]
    state[DOWN] = settings[ALPHA] * state[DOWN] + e + settings[DELTA]
    state[LOW] = min(state[LOW], state[UP])
    state[HIGH] = max(state[HIGH], state[DOWN])
    return _distance(state[UP] - state[LOW], state[HIGH] - state[DOWN], state, settings)


@part
def page_hinkley_rose(state: F8, settings: F8) -> bool:
    """Whether the sum that watches for a rise is the farther from its extreme."""
    rise, fall = state[UP] - state[LOW], state[HIGH] - state[DOWN]
    return bool(settings[WATCH_UP] != 0.0 and (settings[WATCH_DOWN] == 0.0 or rise >= fall))


@part
def cusum_push(value: float, state: F8, settings: F8) -> float:
    """Take one value; the larger of the two sums, which are never below 0."""
    state[N] += 1.0
    state[MEAN] += (value - state[MEAN]) / state[N]
    e = value - state[MEAN]
    state[UP] = max(0.0, state[UP] + e - settings[DELTA])
    state[DOWN] = max(0.0, state[DOWN] - e - settings[DELTA])
    return _distance(state[UP], state[DOWN], state, settings)


@part
def cusum_rose(state: F8, settings: F8) -> bool:
    """Whether the sum that watches for a rise is the larger."""
    rises = settings[WATCH_DOWN] == 0.0 or state[UP] >= state[DOWN]
    return bool(settings[WATCH_UP] != 0.0 and rises)


@kernel
def page_hinkley_first_alarm(values: F8, state: F8, settings: F8) -> tuple[int, int]:
    """Feed values up to and including the first that raises an alarm.

    values (n,), NaN is skipped | state (SIZE,) in/out | settings (6,), by the places above.
    Returns the index of the alarm or -1, and how many values were refused for their size.
    O(1) a value, allocates nothing.
    """
    refused = 0
    for t in range(values.shape[0]):
        if not abs(values[t]) <= CALM:
            refused += values[t] == values[t]
            continue
        if state[ALARMED] != 0.0:
            state[:] = 0.0
        state[STATISTIC] = page_hinkley_push(values[t], state, settings)
        state[LIMIT] = settings[THRESHOLD]
        if state[STATISTIC] > state[LIMIT]:
            state[ALARMED] = ROSE if page_hinkley_rose(state, settings) else FELL
            return t, refused
    return -1, refused


@kernel
def cusum_first_alarm(values: F8, state: F8, settings: F8) -> tuple[int, int]:
    """As `page_hinkley_first_alarm`; ALPHA is not read."""
    refused = 0
    for t in range(values.shape[0]):
        if not abs(values[t]) <= CALM:
            refused += values[t] == values[t]
            continue
        if state[ALARMED] != 0.0:
            state[:] = 0.0
        state[STATISTIC] = cusum_push(values[t], state, settings)
        state[LIMIT] = settings[THRESHOLD]
        if state[STATISTIC] > state[LIMIT]:
            state[ALARMED] = ROSE if cusum_rose(state, settings) else FELL
            return t, refused
    return -1, refused


@kernel
def page_hinkley_statistics(values: F8, state: F8, settings: F8, out: F8) -> None:
    """Feed all values (n,), NaN is skipped; out (n,): the statistic after each, no alarm."""
    for t in range(values.shape[0]):
        out[t] = SILENT if values[t] != values[t] else page_hinkley_push(values[t], state, settings)


@kernel
def cusum_statistics(values: F8, state: F8, settings: F8, out: F8) -> None:
    """As `page_hinkley_statistics`."""
    for t in range(values.shape[0]):
        out[t] = SILENT if values[t] != values[t] else cusum_push(values[t], state, settings)
