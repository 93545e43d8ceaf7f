"""FHDDM and STEPD: the errors of the newest window against the best one, and against all before.

Values are bits, 1 = wrong. `ring` holds the newest ones; a place counts from the last restart on.
"""

import math

from streamlearn.jit._compile import F8, I8, U1, kernel, part

FED, ALARMED, ALL, NEWEST, LEAST, SHORT, SHORT_LEAST, SIZES = 0, 1, 2, 3, 4, 5, 6, 7
# places in `counts`: values fed, alarmed (ROSE, FELL), errors among all and in the window, the
# least of it so far; the same of FHDDM's short window
ROSE, FELL = 1, 2


@part
def roll(value: float, ring: U1, counts: I8) -> None:
    """Take a bit into the ring and the counts."""
    at = counts[FED] % ring.shape[0]
    wrong = int(value)
    gone = int(ring[at]) if counts[FED] >= ring.shape[0] else 0
    counts[NEWEST] += wrong - gone
    counts[ALL] += wrong
    ring[at] = wrong
    counts[FED] += 1


@part
def bit_at(k: int, ring: U1, counts: I8) -> int:
    """The bit that came k values before the newest, k < min(fed, ring's length)."""
    return int(ring[(counts[FED] - 1 - k) % ring.shape[0]])


@part
def fall(now: int, least: int, m: int, eps: float) -> float:
    """How far the share of right answers in m values lies below its best, in units of eps."""
    return ((m - least) / m - (m - now) / m) / eps


@part
def fhddm_push(
    value: float, ring: U1, counts: I8, short: int, eps: float, eps_short: float
) -> float:
    """Take one bit; the fall of the accuracy over its bound, -inf before a full window.

    ring (n,), counts (7,) in/out | short = 0: no second, shorter window. O(1).
    """
    n = ring.shape[0]
    if short > 0:
        gone = bit_at(short - 1, ring, counts) if counts[FED] >= short else 0
        counts[SHORT] += int(value) - gone
    roll(value, ring, counts)
    if counts[FED] < n:
        return -math.inf
    first = counts[FED] == n
    counts[LEAST] = counts[NEWEST] if first else min(counts[LEAST], counts[NEWEST])
    said = fall(counts[NEWEST], counts[LEAST], n, eps)
    if short > 0:
        counts[SHORT_LEAST] = counts[SHORT] if first else min(counts[SHORT_LEAST], counts[SHORT])
        said = max(said, fall(counts[SHORT], counts[SHORT_LEAST], short, eps_short))
    return said


@kernel
def fhddm_first_alarm(
    values: F8, ring: U1, counts: I8, said: F8, short: int, eps: float, eps_short: float
) -> tuple[int, int]:
    """Feed bits up to and including the first that raises an alarm: the fall > its bound.

    values (n,), NaN is skipped | ring (window,), counts (7,), said (1,) the last statistic, in/out.
    The value after an alarm starts an empty window. Returns the index of the alarm or -1, and how
    many values were refused as no bits. O(1) a value, allocates nothing.
    """
    refused = 0
    for t in range(values.shape[0]):
        if values[t] != 0.0 and values[t] != 1.0:
            refused += values[t] == values[t]
            continue
        if counts[ALARMED] != 0:
            counts[:] = 0
        said[0] = fhddm_push(values[t], ring, counts, short, eps, eps_short)
        if said[0] > 1.0:
            counts[ALARMED] = ROSE
            return t, refused
    return -1, refused


@part
def stepd_push(value: float, ring: U1, counts: I8) -> tuple[float, float]:
    """Take one bit; how far the share of ones of the window is from that of all before it.

    Returns |k0/n0 - k1/n1| - (1/n0 + 1/n1)/2, the gap less the continuity correction, and its
    variance p (1 - p) (1/n0 + 1/n1), p = the share over both; -inf and 1 before 2 windows were fed
    and where all are equal. O(1).
    """
    roll(value, ring, counts)
    n1: int = ring.shape[0]
    n0 = int(counts[FED]) - n1
    k = int(counts[ALL])
    if n0 < n1 or k == 0 or k == n0 + n1:
        return -math.inf, 1.0
    p = k / (n0 + n1)
    r = 1.0 / n0 + 1.0 / n1
    newest = int(counts[NEWEST])
    return abs((k - newest) / n0 - newest / n1) - 0.5 * r, p * (1.0 - p) * r


@kernel
def stepd_first_alarm(values: F8, ring: U1, counts: I8, said: F8, limit: float) -> tuple[int, int]:
    """Feed bits up to and including the first that raises an alarm: z = gap / deviation > limit.

    values (n,), NaN is skipped | ring (window,), counts (7,), said (1,) the last z, in/out. The
    value after an alarm starts anew. Returns the index of the alarm or -1, and how many values
    were refused as no bits. O(1) a value, allocates nothing.
    """
    refused = 0
    for t in range(values.shape[0]):
        if values[t] != 0.0 and values[t] != 1.0:
            refused += values[t] == values[t]
            continue
        if counts[ALARMED] != 0:
            counts[:] = 0
        gap, variance = stepd_push(values[t], ring, counts)
        said[0] = gap / math.sqrt(variance)
        if said[0] > limit:
            n0, n1 = counts[FED] - ring.shape[0], ring.shape[0]
            more = counts[NEWEST] * n0 > (counts[ALL] - counts[NEWEST]) * n1
            counts[ALARMED] = ROSE if more else FELL
            return t, refused
    return -1, refused


@kernel
def fhddm_statistics(values: F8, ring: U1, counts: I8, short: int, eps: float, out: F8) -> None:
    """Feed all values (n,), NaN is skipped; out (n,): the statistic after each, no alarm."""
    for t in range(values.shape[0]):
        out[t] = (
            -math.inf
            if values[t] != values[t]
            else fhddm_push(values[t], ring, counts, short, eps, 1.0)
        )


@kernel
def stepd_statistics(values: F8, ring: U1, counts: I8, out: F8) -> None:
    """As `fhddm_statistics`: the gap in ones of the window.

    One more one in the window moves it by 1, whatever the rate: so one jitter mixes two neighbours
    of its few values evenly at all rates, which it does not for z.
    """
    for t in range(values.shape[0]):
        out[t] = -math.inf
        if values[t] == values[t]:
            out[t] = ring.shape[0] * stepd_push(values[t], ring, counts)[0]
