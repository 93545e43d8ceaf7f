"""Calibrated alarms: sequential ranks, and limits that hold the chance of an alarm at 1/A.

Limits are a table over age and rate (`operators/_calibrated.py`): row k belongs to the age
16 * 2 ** (k / 2), a column to each of RATES, and the last column to ranks.
"""

import math

import numpy as np

from streamlearn.jit._compile import F8, I8, kernel, part

AGE, ONES, TICK, REGIME, SAID, PLACES = 0, 1, 2, 3, 4, 5  # places in `tally`
NOTHING, ALARM, WARNING = 0, 1, 2  # SAID: what the last value raised
BITS, RANKS, GIVEN = 0, 1, 2  # REGIME: only 0 and 1 so far; by rank; values as they are
CALM = 1e100  # a value beyond is refused
EDGES, GROUP = 127, 16  # sorted values that part the line into 128 cells; cells of one group
RATES = np.array([0.01, 0.02, 0.035, 0.05, 0.07, 0.1, 0.14, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5])
_RATES = np.log(RATES)
_MASK = 0xFFFFFFFF


@part
def mixed(x: int) -> int:
    """A 32-bit word hashed (Wellons' triple-free mixer 16-15-15), within signed 64-bit numbers."""
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _MASK
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _MASK
    return x ^ (x >> 15)


@part
def draw(key: int, place: int) -> float:
    """The uniform draw of a key (below 2 ** 32) at a place, in the open interval (0, 1)."""
    word = mixed(mixed((place & _MASK) ^ key) ^ ((place >> 32) + 0x9E3779B9 & _MASK))
    return (word + 0.5) / 4294967296.0


@part
def position(value: float, tie: float, edges: F8, n: int) -> int:
    """How many of n sorted pairs (edges[0], edges[1]) come before (value, tie)."""
    low, high = 0, n
    while low < high:
        middle = (low + high) >> 1
        edge = edges[0, middle]
        if edge < value or (edge == value and edges[1, middle] < tie):
            low = middle + 1
        else:
            high = middle
    return low


@part
def ranked(value: float, tie: float, within: float, age: int, edges: F8, slots: I8) -> float:
    """The sequential rank of the value number `age` (from 1), in (0, 1), and count the value.

    Equal values are told apart by `tie`. The first 127 values are kept, sorted; later ones are
    counted in the cells between them, and `within` picks one of a cell's places. Of any stream of
    independent draws the ranks are independent and uniform, exactly, whatever its distribution.
    """
    kept = min(age - 1, EDGES)
    at = position(value, tie, edges, kept)
    if kept < EDGES:
        for i in range(kept, at, -1):
            edges[0, i] = edges[0, i - 1]
            edges[1, i] = edges[1, i - 1]
        edges[0, at] = value
        edges[1, at] = tie
        return float((at + within) / age)
    below = at
    groups = at // GROUP
    for g in range(groups):
        below += slots[EDGES + 1 + g]
    for i in range(groups * GROUP, at):
        below += slots[i]
    here = slots[at]
    slots[at] += 1
    slots[EDGES + 1 + groups] += 1
    return float((below + within * (here + 1.0)) / age)


@part
def score(value: float, tally: I8, edges: F8, slots: I8, key: int) -> float:
    """Count a value; what the detector is fed for it: the bit, the sequential rank, or itself."""
    tally[AGE] += 1
    tally[TICK] += 1
    if tally[REGIME] == BITS:
        tally[ONES] += value == 1.0
    elif tally[REGIME] == RANKS:
        tie, within = draw(key, 2 * tally[TICK]), draw(key, 2 * tally[TICK] + 1)
        return ranked(value, tie, within, tally[AGE], edges, slots)
    return value


@kernel
def scored(values: F8, tally: I8, edges: F8, slots: I8, key: int, scores: F8) -> tuple[int, int]:
    """What the detector is fed for each value, up to the first that ends a stream of bits.

    values (n,), NaN is skipped | tally (5,), edges (2, 127), slots (136,) in/out | scores (n,) out:
    the bit, or the sequential rank; NaN where there is nothing.
    Returns how many values were scored, and how many were refused. O(log 127) a value.
    """
    refused = 0
    for t in range(values.shape[0]):
        value = values[t]
        scores[t] = np.nan
        if not abs(value) <= CALM:
            refused += value == value
            continue
        if tally[REGIME] == BITS and value != 0.0 and value != 1.0:
            return t, refused
        scores[t] = score(value, tally, edges, slots, key)
    return values.shape[0], refused


@part
def limit(limits: F8, age: int, ones: int, regime: int) -> float:
    """The limit at an age, after so many ones; beyond the last row along the last two."""
    x = 2.0 * math.log(age / 16.0) * 1.4426950408889634
    row = min(max(int(x), 0), limits.shape[0] - 2)
    x = max(x - row, 0.0)
    last = limits.shape[1] - 1
    if regime != BITS:
        return float(limits[row, last] + x * (limits[row + 1, last] - limits[row, last]))
    rate = math.log((ones + 0.5) / (age + 1.0))
    k = 0
    while k < last - 2 and rate > _RATES[k + 1]:
        k += 1
    y = min(max((rate - _RATES[k]) / (_RATES[k + 1] - _RATES[k]), 0.0), 1.0)
    low = limits[row, k] + y * (limits[row, k + 1] - limits[row, k])
    high = limits[row + 1, k] + y * (limits[row + 1, k + 1] - limits[row + 1, k])
    return float(low + x * (high - low))


@part
def spread(u: float, ratio: float) -> float:
    """A uniform draw (0, 1), made to exceed f with the chance (ratio^-f - 1/ratio)/(1 - 1/ratio).

    Added to a statistic of whole numbers, each exceeded `ratio` times as often as the next, it
    leaves a tail that falls by the same factor everywhere; with ratio 1 it is u.
    """
    return u if ratio == 1.0 else -math.log(1.0 - u * (1.0 - 1.0 / ratio)) / math.log(ratio)


@part
def jittered(said: float, regime: int, tick: int, jitter: F8) -> float:
    """A statistic and its tie-break.

    jitter (4,): its width on bits, its width on anything else, the ratio of `spread`, its key.
    """
    width = jitter[0] if regime == BITS else jitter[1]
    if width <= 0.0:
        return said
    return float(said + width * (spread(draw(int(jitter[3]), tick), jitter[2]) - 0.5))


@kernel
def first_over(
    statistics: F8, scores: F8, before: I8, limits: F8, floor: float, jitter: F8, last: F8
) -> int:
    """Index of the first statistic beyond its limit, or -1; bits that are all alike say nothing.

    statistics, scores (n,); a NaN score had no value | before (5,), the tally before them | limits
    (rows, 15) | floor: no limit is lower | jitter as in `jittered` | last (2,) out, statistic and
    limit of the last value that had a statistic.
    """
    age, ones, tick, regime = before[AGE], before[ONES], before[TICK], before[REGIME]
    width = jitter[0] if regime == BITS else jitter[1]
    at, age_at, ones_at = -1, 0, 0
    for t in range(scores.shape[0]):
        if scores[t] != scores[t]:
            continue
        age += 1
        tick += 1
        ones += scores[t] == 1.0
        said = statistics[t]
        if said == -math.inf:
            continue
        at, age_at, ones_at = t, age, ones
        if not said + width > floor:
            continue
        if regime == BITS and (ones == 0 or ones == age):
            continue
        said = jittered(said, regime, tick, jitter)
        bound = limit(limits, age, ones, regime)
        if said > bound:
            last[0] = said
            last[1] = bound
            return t
    if at >= 0:
        last[0] = statistics[at]
        last[1] = limit(limits, age_at, ones_at, regime)
    return -1


@kernel
def in_zone(statistics: F8, scores: F8, after: I8, zone: F8, jitter: F8) -> int:
    """Whether the last statistic is beyond its limit in `zone`: 1, 0, or -1 where there is none.

    statistics, scores, jitter as in `first_over` | after (5,), the tally after the last score |
    zone (rows, 15), limits as there. O(1), but for scores at the end that have no statistic.
    """
    age, ones, tick, regime = after[AGE], after[ONES], after[TICK], after[REGIME]
    for t in range(scores.shape[0] - 1, -1, -1):
        if scores[t] != scores[t]:
            continue
        if statistics[t] != -math.inf:
            if regime == BITS and (ones == 0 or ones == age):
                return 0
            said = jittered(statistics[t], regime, tick, jitter)
            return 1 if said > limit(zone, age, ones, regime) else 0
        age -= 1
        tick -= 1
        ones -= scores[t] == 1.0
    return -1
