"""HDDM: the mean since a restart against the mean of its best past, by Hoeffding's bound.

Letters: c = confidence; eps = bound at it. A: z = mean of all values, x = mean up to the cut. W:
means weighted exponentially, b = their bound's condition, the sum of squared weights.
"""

import math

from streamlearn.jit._compile import F8, kernel, part
from streamlearn.jit.one_number import (
    ALARMED,
    FELL,
    LIMIT,
    OWN,
    ROSE,
    SILENT,
    STATISTIC,
    WARNED,
    N,
    grown_mean,
)

# places in `settings`: logarithms of 1 / c (cuts) and of what the test has, at drift and warning;
# a statistic below GATE is far from a warning
CUT_LOG, DRIFT_LOG, WARNING_LOG, TWO_SIDED, LAMBDA, GATE = range(6)

Z, X_RISE, N_RISE, X_FALL, N_FALL = range(OWN, OWN + 5)  # places in `state`, A
TOTAL, RISE_BEFORE, RISE_SINCE, FALL_BEFORE, FALL_SINCE = range(OWN, OWN + 15, 3)  # W: triples
MEAN, CONDITION, FED = 0, 1, 2  # of a triple
RISE_CUT, FALL_CUT = OWN + 15, OWN + 16
SIZE_A, SIZE_W = OWN + 5, OWN + 17


@part
def a_ratio(gap: float, n: float, before: float, log: float) -> float:
    """The gap between the mean of n values and that of the `before` first, over its eps."""
    if before == n:
        return SILENT
    m = (n - before) / before * (1.0 / n)
    return gap / math.sqrt(m / 2.0 * log)


@part
def hddm_a_push(value: float, state: F8, settings: F8) -> float:
    """Take one value; the larger gap of those that are watched, over its eps at the drift's c."""
    state[N] += 1.0
    n, log = state[N], settings[CUT_LOG]
    z = grown_mean(state[Z], value, n)
    state[Z] = z
    eps = math.sqrt(1.0 / (2.0 * n) * log)
    if n == 1.0 or state[X_RISE] + math.sqrt(1.0 / (2.0 * state[N_RISE]) * log) >= z + eps:
        state[X_RISE], state[N_RISE] = z, n
    if n == 1.0 or state[X_FALL] - math.sqrt(1.0 / (2.0 * state[N_FALL]) * log) <= z - eps:
        state[X_FALL], state[N_FALL] = z, n
    log = settings[DRIFT_LOG]
    rise = a_ratio(z - state[X_RISE], n, state[N_RISE], log)
    if settings[TWO_SIDED] == 0.0:
        return rise
    return max(rise, a_ratio(state[X_FALL] - z, n, state[N_FALL], log))


@part
def a_ratios(state: F8, log: float) -> tuple[float, float]:
    """The ratios of a rise and of a fall at a confidence."""
    rise = a_ratio(state[Z] - state[X_RISE], state[N], state[N_RISE], log)
    return rise, a_ratio(state[X_FALL] - state[Z], state[N], state[N_FALL], log)


@kernel
def hddm_a_first_alarm(values: F8, state: F8, settings: F8) -> tuple[int, int]:
    """Feed values up to and including the first that raises an alarm.

    values (n,) in [0, 1], NaN is skipped | state (SIZE_A,) in/out | settings (6,), by the places
    above. Returns the index of the alarm or -1, and how many values were refused.
    O(1) a value, allocates nothing.
    """
    refused = 0
    for t in range(values.shape[0]):
        if not 0.0 <= values[t] <= 1.0:
            refused += values[t] == values[t]
            continue
        if state[ALARMED] != 0.0:
            state[:] = 0.0
        state[STATISTIC] = hddm_a_push(values[t], state, settings)
        state[LIMIT] = 1.0
        state[WARNED] = 0.0
        if state[STATISTIC] < settings[GATE]:
            continue
        rise, fall = a_ratios(state, settings[DRIFT_LOG])
        near_rise, near_fall = a_ratios(state, settings[WARNING_LOG])
        two_sided = settings[TWO_SIDED] != 0.0
        warned = rise < 1.0 <= near_rise or (two_sided and fall < 1.0 <= near_fall)
        state[WARNED] = 1.0 if warned else 0.0
        if state[STATISTIC] >= 1.0:
            state[ALARMED] = ROSE if rise >= 1.0 else FELL
            return t, refused
    return -1, refused


@part
def feed(value: float, lam: float, state: F8, at: int) -> None:
    """One value into the weighted mean at a place of `state`."""
    if state[at + FED] == 0.0:
        state[at + MEAN], state[at + CONDITION], state[at + FED] = value, 1.0, 1.0
    else:
        state[at + MEAN] = lam * value + (1.0 - lam) * state[at + MEAN]
    state[at + CONDITION] = lam * lam + (1.0 - lam) * (1.0 - lam) * state[at + CONDITION]


@part
def w_ratio(gap: float, state: F8, before: int, since: int, log: float) -> float:
    """The gap between two weighted means over its eps; nothing while one of them is empty."""
    if state[before + FED] == 0.0 or state[since + FED] == 0.0:
        return SILENT
    return gap / math.sqrt((state[before + CONDITION] + state[since + CONDITION]) * log / 2.0)


@part
def w_ratios(state: F8, log: float) -> tuple[float, float]:
    """The ratios of a rise and of a fall at a confidence."""
    rise = state[RISE_SINCE] - state[RISE_BEFORE]
    fall = state[FALL_BEFORE] - state[FALL_SINCE]
    up = w_ratio(rise, state, RISE_BEFORE, RISE_SINCE, log)
    return up, w_ratio(fall, state, FALL_BEFORE, FALL_SINCE, log)


@part
def move_cut(state: F8, before: int, since: int) -> None:
    """All so far becomes the past; nothing has come since."""
    for i in range(3):
        state[before + i] = state[TOTAL + i]
        state[since + i] = 0.0


@part
def hddm_w_push(value: float, state: F8, settings: F8) -> float:
    """Take one value; the larger gap of those that are watched, over its eps at the drift's c."""
    lam = settings[LAMBDA]
    if state[N] == 0.0:
        state[RISE_CUT], state[FALL_CUT] = math.inf, -math.inf
    state[N] += 1.0
    feed(value, lam, state, TOTAL)
    mean = state[TOTAL]
    eps = math.sqrt(state[TOTAL + CONDITION] * settings[CUT_LOG] / 2.0)
    if mean + eps < state[RISE_CUT]:
        state[RISE_CUT] = mean + eps
        move_cut(state, RISE_BEFORE, RISE_SINCE)
    else:
        feed(value, lam, state, RISE_SINCE)
    if settings[TWO_SIDED] == 0.0:
        return w_ratios(state, settings[DRIFT_LOG])[0]
    if mean - eps > state[FALL_CUT]:
        state[FALL_CUT] = mean - eps
        move_cut(state, FALL_BEFORE, FALL_SINCE)
    else:
        feed(value, lam, state, FALL_SINCE)
    rise, fall = w_ratios(state, settings[DRIFT_LOG])
    return max(rise, fall)


@kernel
def hddm_w_first_alarm(values: F8, state: F8, settings: F8) -> tuple[int, int]:
    """As `hddm_a_first_alarm`, state (SIZE_W,); here a gap has to be over eps, not reach it."""
    refused = 0
    for t in range(values.shape[0]):
        if not 0.0 <= values[t] <= 1.0:
            refused += values[t] == values[t]
            continue
        if state[ALARMED] != 0.0:
            state[:] = 0.0
        state[STATISTIC] = hddm_w_push(values[t], state, settings)
        state[LIMIT] = 1.0
        state[WARNED] = 0.0
        if state[STATISTIC] < settings[GATE]:
            continue
        rise, fall = w_ratios(state, settings[DRIFT_LOG])
        near_rise, near_fall = w_ratios(state, settings[WARNING_LOG])
        two_sided = settings[TWO_SIDED] != 0.0
        warned = rise <= 1.0 < near_rise or (two_sided and fall <= 1.0 < near_fall)
        state[WARNED] = 1.0 if warned else 0.0
        if state[STATISTIC] > 1.0:
            state[ALARMED] = ROSE if rise > 1.0 else FELL
            return t, refused
    return -1, refused


@kernel
def hddm_w_statistics(values: F8, state: F8, settings: F8, out: F8) -> None:
    """Feed all values (n,), NaN is skipped; out (n,): the statistic after each, no alarm."""
    for t in range(values.shape[0]):
        out[t] = SILENT if values[t] != values[t] else hddm_w_push(values[t], state, settings)


@kernel
def hddm_a_statistics(values: F8, state: F8, settings: F8, out: F8) -> None:
    """As `hddm_w_statistics`."""
    for t in range(values.shape[0]):
        out[t] = SILENT if values[t] != values[t] else hddm_a_push(values[t], state, settings)
