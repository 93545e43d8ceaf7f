"""DDM, EDDM, RDDM, ECDD: the rate of errors, or the distance between them, against its best.

Letters: p = error rate, s = its standard deviation, i = 1 at an error, else 0.
"""

import math

from streamlearn.jit._compile import F8, U1, kernel, part
from streamlearn.jit.one_number import (
    ALARMED,
    LIMIT,
    OWN,
    ROSE,
    SILENT,
    STATISTIC,
    WARNED,
    N,
    grown_mean,
)

LEAST, WARNING, DRIFT, LAMBDA, LONGEST, PATIENCE = range(6)  # places in `settings`

P, S, P_MIN, S_MIN = range(OWN, OWN + 4)  # places in `state`: DDM, RDDM
KEPT, END, SINCE = range(OWN + 4, OWN + 7)  # RDDM: bits kept, where the next goes, warning's length
ERRORS, LAST, DISTANCE, SPREAD, HIGHEST, LEVEL = range(OWN, OWN + 6)  # EDDM
RATE, Z, FADED, SIGMA = range(OWN, OWN + 4)  # ECDD
SIZE = OWN + 7


@part
def over_best(state: F8) -> float:
    """How far p + s is above the best p, in units of the best s."""
    gap: float = state[P] + state[S] - state[P_MIN]
    best: float = state[S_MIN]
    if best > 0.0:
        return gap / best
    return math.inf if gap > 0.0 else SILENT


@part
def beyond(state: F8, level: float) -> bool:
    """Whether p + s is so many of the best s above the best p; rounded as River rounds it."""
    return bool(state[P] + state[S] > state[P_MIN] + level * state[S_MIN])


@part
def count_bit(i: float, state: F8) -> None:
    """One bit into the error rate and its deviation."""
    state[N] += 1.0
    state[P] = grown_mean(state[P], i, state[N])
    state[S] = math.sqrt(state[P] * (1.0 - state[P]) / state[N])


@part
def ddm_push(i: float, state: F8, settings: F8) -> float:
    """Take one bit; how far the rate is above its best."""
    if state[N] == 0.0:
        state[P_MIN] = state[S_MIN] = math.inf
    count_bit(i, state)
    if state[N] <= settings[LEAST]:
        return SILENT
    if state[P] + state[S] <= state[P_MIN] + state[S_MIN]:
        state[P_MIN], state[S_MIN] = state[P], state[S]
    return over_best(state)


@kernel
def ddm_first_alarm(values: F8, state: F8, settings: F8) -> tuple[int, int]:
    """Feed bits up to and including the first that raises an alarm.

    values (n,), 0 or 1, NaN is skipped | state (SIZE,) in/out | settings (6,), by the places above.
    Returns the index of the alarm or -1, and how many values were refused, being no bits.
    O(1) a value, allocates nothing.
    """
    refused = 0
    for t in range(values.shape[0]):
        if values[t] != 0.0 and values[t] != 1.0:
            refused += values[t] == values[t]
            continue
        if state[ALARMED] != 0.0:
            state[:] = 0.0
        state[STATISTIC] = ddm_push(values[t], state, settings)
        state[LIMIT] = settings[DRIFT]
        if state[N] <= settings[LEAST]:
            continue
        if beyond(state, settings[DRIFT]):
            state[ALARMED], state[WARNED] = ROSE, 0.0
            return t, refused
        state[WARNED] = 1.0 if beyond(state, settings[WARNING]) else 0.0
    return -1, refused


@part
def eddm_push(i: float, state: F8, settings: F8) -> float:
    """Take one bit; at an error, how much shorter than ever the distances are (1 - ratio)."""
    if state[N] == 0.0:
        state[HIGHEST] = -1.0
    state[N] += 1.0
    if i == 0.0:
        return SILENT
    state[ERRORS] += 1.0
    distance, before = state[N] - state[LAST], state[DISTANCE]
    state[LAST] = state[N]
    state[DISTANCE] = grown_mean(before, distance, state[ERRORS])
    state[SPREAD] += (distance - before) * (distance - state[DISTANCE])
    if state[N] <= settings[LEAST]:
        return SILENT
    variance = state[SPREAD] / (state[ERRORS] - 1.0) if state[ERRORS] > 1.0 else 0.0
    reach = state[DISTANCE] + 2.0 * math.sqrt(variance)
    if reach > state[HIGHEST]:
        state[HIGHEST] = reach
        return SILENT
    if state[ERRORS] <= settings[LEAST]:
        return SILENT
    level: float = reach / state[HIGHEST]
    state[LEVEL] = level
    return 1.0 - level


@kernel
def eddm_first_alarm(values: F8, state: F8, settings: F8) -> tuple[int, int]:
    """As `ddm_first_alarm`; a warning stays until an error says otherwise."""
    refused = 0
    for t in range(values.shape[0]):
        if values[t] != 0.0 and values[t] != 1.0:
            refused += values[t] == values[t]
            continue
        if state[ALARMED] != 0.0:
            state[:] = 0.0
        state[STATISTIC] = eddm_push(values[t], state, settings)
        state[LIMIT] = 1.0 - settings[DRIFT]
        if state[STATISTIC] == SILENT:
            continue
        if state[LEVEL] < settings[DRIFT]:
            state[ALARMED] = ROSE
            return t, refused
        state[WARNED] = 1.0 if state[LEVEL] < settings[WARNING] else 0.0
    return -1, refused


@part
def learn_kept(state: F8, bits: U1, settings: F8, anew: bool) -> None:
    """The rate from the bits that are kept alone; anew: its best from them, too."""
    state[N] = state[P] = state[S] = 0.0
    if anew:
        state[P_MIN] = state[S_MIN] = math.inf
    kept, capacity = int(state[KEPT]), bits.shape[0]
    at = (int(state[END]) - kept) % capacity
    for k in range(kept):
        count_bit(float(bits[(at + k) % capacity]), state)
        best = state[P] + state[S] < state[P_MIN] + state[S_MIN]
        if anew and best and state[N] > settings[LEAST]:
            state[P_MIN], state[S_MIN] = state[P], state[S]


@part
def rddm_push(i: float, state: F8, bits: U1, settings: F8) -> float:
    """Take one bit; how far the rate is above its best. After an alarm the bits kept come first."""
    if state[ALARMED] != 0.0:
        learn_kept(state, bits, settings, True)
        state[ALARMED] = state[SINCE] = 0.0
    elif state[N] == 0.0:
        state[P_MIN] = state[S_MIN] = math.inf
    elif state[N] >= settings[LONGEST] and state[WARNED] == 0.0:
        learn_kept(state, bits, settings, False)
    bits[int(state[END])] = 1 if i == 1.0 else 0
    state[END] = (state[END] + 1.0) % bits.shape[0]
    state[KEPT] = min(state[KEPT] + 1.0, float(bits.shape[0]))
    count_bit(i, state)
    if state[N] < settings[LEAST]:
        return SILENT
    if state[P] + state[S] < state[P_MIN] + state[S_MIN]:
        state[P_MIN], state[S_MIN] = state[P], state[S]
    return over_best(state)


@kernel
def rddm_first_alarm(values: F8, state: F8, bits: U1, settings: F8) -> tuple[int, int]:
    """As `ddm_first_alarm`; bits (size of a stable concept,) in/out are the newest values.

    Amortised O(1) a value: where a concept is cut down, the bits kept are learnt again.
    """
    refused = 0
    for t in range(values.shape[0]):
        if values[t] != 0.0 and values[t] != 1.0:
            refused += values[t] == values[t]
            continue
        state[STATISTIC] = rddm_push(values[t], state, bits, settings)
        state[LIMIT], state[WARNED] = settings[DRIFT], 0.0
        if state[N] < settings[LEAST]:
            continue
        if beyond(state, settings[DRIFT]):
            state[ALARMED] = ROSE
            state[KEPT] = min(state[KEPT], state[SINCE] + 1.0)  # those since the warning, and this
            return t, refused
        if not beyond(state, settings[WARNING]):
            state[SINCE] = 0.0
        elif state[SINCE] >= settings[PATIENCE]:
            state[ALARMED], state[KEPT] = ROSE, 1.0
            return t, refused
        else:
            state[SINCE] += 1.0
            state[WARNED] = 1.0
    return -1, refused


@part
def chart_limit(p: float) -> float:
    """The control limit of Ross et al. for lambda 0.2, a false alarm in about 400, by the rate."""
    q = p * p
    return 3.97 + p * (-6.56 + q * (48.73 + q * (-330.13 + q * 848.18)))


@part
def ecdd_push(i: float, state: F8, settings: F8) -> float:
    """Take one bit; how far the weighted rate is above the rate, in its standard deviations."""
    lam = settings[LAMBDA]
    if state[N] == 0.0:
        state[FADED] = 1.0
    state[N] += 1.0
    state[RATE] = grown_mean(state[RATE], i, state[N])
    state[Z] += lam * (i - state[Z])
    state[FADED] *= (1.0 - lam) * (1.0 - lam)
    p = state[RATE]
    state[SIGMA] = math.sqrt(p * (1.0 - p) * lam * (1.0 - state[FADED]) / (2.0 - lam))
    if state[N] < settings[LEAST] or state[SIGMA] == 0.0:
        return SILENT
    return float((state[Z] - p) / state[SIGMA])


@kernel
def ecdd_first_alarm(values: F8, state: F8, settings: F8) -> tuple[int, int]:
    """As `ddm_first_alarm`."""
    refused = 0
    for t in range(values.shape[0]):
        if values[t] != 0.0 and values[t] != 1.0:
            refused += values[t] == values[t]
            continue
        if state[ALARMED] != 0.0:
            state[:] = 0.0
        state[STATISTIC] = ecdd_push(values[t], state, settings)
        state[LIMIT] = chart_limit(state[RATE])
        state[WARNED] = 0.0
        if state[STATISTIC] > state[LIMIT]:
            state[ALARMED] = ROSE
            return t, refused
        if state[STATISTIC] > settings[WARNING] * state[LIMIT]:
            state[WARNED] = 1.0
    return -1, refused


@part
def ddm_smooth_push(i: float, state: F8, settings: F8) -> float:
    """As `ddm_push`, from one more right and one more wrong answer: no deviation is ever 0."""
    if state[N] == 0.0:
        state[P_MIN] = state[S_MIN] = math.inf
    count_bit(i, state)
    n = state[N]
    if n <= settings[LEAST]:
        return SILENT
    p = (state[P] * n + 1.0) / (n + 2.0)
    s = math.sqrt(p * (1.0 - p) / n)
    if p + s <= state[P_MIN] + state[S_MIN]:
        state[P_MIN], state[S_MIN] = p, s
    return float((p + s - state[P_MIN]) / state[S_MIN])


@part
def eddm_steady_push(i: float, state: F8, settings: F8) -> float:
    """As `eddm_push`, with the best where the reach less a standard error of it was greatest.

    The longest reach of all is one of the first, of a few distances; it stays for ever, and says
    more about that beginning than about what came since.
    """
    state[N] += 1.0
    if i == 0.0:
        return SILENT
    state[ERRORS] += 1.0
    k, distance, before = state[ERRORS], state[N] - state[LAST], state[DISTANCE]
    state[LAST] = state[N]
    state[DISTANCE] = grown_mean(before, distance, k)
    state[SPREAD] += (distance - before) * (distance - state[DISTANCE])
    if k <= settings[LEAST]:
        return SILENT
    reach = state[DISTANCE] + 2.0 * math.sqrt(state[SPREAD] / (k - 1.0))
    if reach * (1.0 - 1.0 / math.sqrt(k)) >= state[LEVEL]:
        state[LEVEL], state[HIGHEST] = reach * (1.0 - 1.0 / math.sqrt(k)), reach
    return float(1.0 - reach / state[HIGHEST])


@part
def rddm_smooth_push(i: float, state: F8, bits: U1, settings: F8) -> float:
    """As `ddm_smooth_push`; a concept that is too long begins again with the bits that are kept."""
    kept, capacity = int(state[KEPT]), bits.shape[0]
    end = int(state[END])
    if state[N] >= settings[LONGEST]:
        state[N] = state[P] = state[S] = 0.0
        for k in range(kept):
            ddm_smooth_push(float(bits[(end - kept + k) % capacity]), state, settings)
    bits[end] = 1 if i == 1.0 else 0
    state[END] = float((end + 1) % capacity)
    state[KEPT] = float(min(kept + 1, capacity))
    return ddm_smooth_push(i, state, settings)


@kernel
def ddm_statistics(values: F8, state: F8, settings: F8, out: F8) -> None:
    """Feed all values (n,), NaN is skipped; out (n,): the statistic after each, no alarm."""
    for t in range(values.shape[0]):
        out[t] = SILENT if values[t] != values[t] else ddm_smooth_push(values[t], state, settings)


@kernel
def ecdd_statistics(values: F8, state: F8, settings: F8, out: F8) -> None:
    """As `ddm_statistics`."""
    for t in range(values.shape[0]):
        out[t] = SILENT if values[t] != values[t] else ecdd_push(values[t], state, settings)


@kernel
def eddm_statistics(values: F8, state: F8, settings: F8, out: F8) -> None:
    """As `ddm_statistics`."""
    for t in range(values.shape[0]):
        out[t] = SILENT if values[t] != values[t] else eddm_steady_push(values[t], state, settings)


@kernel
def rddm_statistics(values: F8, state: F8, bits: U1, settings: F8, out: F8) -> None:
    """As `ddm_statistics`; bits as in `rddm_first_alarm`."""
    for t in range(values.shape[0]):
        said = SILENT
        if values[t] == values[t]:
            said = rddm_smooth_push(values[t], state, bits, settings)
        out[t] = said
