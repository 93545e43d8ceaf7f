"""ADWIN: a window over the newest values, kept as an exponential histogram.

A bucket of level l summarises 2 ** l consecutive values. The oldest values are in the highest
level, and within a level in the lowest slot. Letters: n0, n1, u0, u1 = lengths and sums of the
older and newer part at a cut; a bucket's spread is the sum of squared deviations from its mean.
"""

import math

import numpy as np

from streamlearn.jit import limits
from streamlearn.jit._compile import F8, I8, kernel, part, section

TOTAL, SPREAD = 0, 1  # planes of `buckets`, and places in `window`
LEVELS, TICK, WIDTH, ALARMED, SIZES = 0, 1, 2, 3, 4  # places in `counts`
ROSE, FELL = 1, 2  # ALARMED: what the mean did at the newest cut; 0: no alarm
CALM = 1e100  # a value beyond is refused: its square would swamp the window for ever
PLACE, WAY, MEAN, WINDOW, SAID, BOUND, TOLD = range(7)  # what is told of an alarm, a column each


@part
def drop_first(buckets: F8, counts: I8, level: int, k: int) -> None:
    """Remove the k oldest buckets of a level; those after them move down."""
    left = counts[SIZES + level] - k
    for i in range(left):
        buckets[TOTAL, level, i] = buckets[TOTAL, level, i + k]
        buckets[SPREAD, level, i] = buckets[SPREAD, level, i + k]
    for i in range(left, left + k):
        buckets[TOTAL, level, i] = 0.0
        buckets[SPREAD, level, i] = 0.0
    counts[SIZES + level] = left


@part
def push(buckets: F8, counts: I8, level: int, total: float, spread: float) -> None:
    """Put a bucket behind the others of its level."""
    at = counts[SIZES + level]
    buckets[TOTAL, level, at] = total
    buckets[SPREAD, level, at] = spread
    counts[SIZES + level] = at + 1
    counts[LEVELS] = max(counts[LEVELS], level + 1)


@part
def merge_full(buckets: F8, counts: I8) -> None:
    """Where a level is over its capacity, its two oldest buckets become one of the next level."""
    capacity = buckets.shape[2] - 1
    n, level = 1.0, 0
    while counts[SIZES + level] > capacity and level + 1 < buckets.shape[1]:
        a, b = buckets[TOTAL, level, 0], buckets[TOTAL, level, 1]
        gap = a / n - b / n
        spread = buckets[SPREAD, level, 0] + buckets[SPREAD, level, 1]
        push(buckets, counts, level + 1, a + b, spread + n * 0.5 * gap * gap)
        drop_first(buckets, counts, level, 2)
        n, level = n * 2.0, level + 1


@part
def insert(value: float, buckets: F8, counts: I8, window: F8) -> None:
    """Put one value into the window."""
    before = float(counts[WIDTH])
    if before > 0.0:
        e = value - window[TOTAL] / before
        window[SPREAD] += before * e * e / (before + 1.0)
    window[TOTAL] += value
    counts[WIDTH] += 1
    push(buckets, counts, 0, value, 0.0)
    merge_full(buckets, counts)


@part
def drop_oldest(buckets: F8, counts: I8, window: F8) -> None:
    """Take the oldest bucket out of the window."""
    level = counts[LEVELS] - 1
    n = float(1 << level)
    counts[WIDTH] -= 1 << level
    left = float(counts[WIDTH])
    window[TOTAL] -= buckets[TOTAL, level, 0]
    gap = buckets[TOTAL, level, 0] / n - window[TOTAL] / left
    window[SPREAD] -= buckets[SPREAD, level, 0] + n * left * gap * gap / (n + left)
    drop_first(buckets, counts, level, 1)
    while counts[LEVELS] > 0 and counts[SIZES + counts[LEVELS] - 1] == 0:
        counts[LEVELS] -= 1


@part
def cut(buckets: F8, counts: I8, window: F8, delta: float, least: float) -> int:
    """Whether the means of the two sides of some cut between buckets differ significantly.

    Both sides hold at least `least` values. ROSE or FELL, by the first such cut; 0 for none.
    O(number of buckets) = O(log width).
    """
    width = float(counts[WIDTH])
    if width < 2.0 * least:
        return 0
    dp = math.log(2.0 * math.log(width) / delta)
    variance = window[SPREAD] / width
    n0, n1, u0, u1 = 0.0, width, 0.0, window[TOTAL]
    for level in range(counts[LEVELS] - 1, -1, -1):
        n = float(1 << level)
        for i in range(counts[SIZES + level]):
            u = buckets[TOTAL, level, i]
            n0, n1, u0, u1 = n0 + n, n1 - n, u0 + u, u1 - u
            if n1 < least:
                return 0
            if n0 >= least:
                r = 1.0 / (n0 - least + 1.0) + 1.0 / (n1 - least + 1.0)
                eps = math.sqrt(2.0 * r * variance * dp) + 2.0 / 3.0 * dp * r
                if abs(u0 / n0 - u1 / n1) > eps:
                    return ROSE if u1 / n1 > u0 / n0 else FELL
    return 0


@section
def strongest_cut(buckets: F8, counts: I8, window: F8, least: float) -> tuple[float, int]:
    """The largest dp at which some cut between buckets is one (`cut`), and ROSE or FELL there.

    A gap g is a cut up to the dp of g = sqrt(2 r variance dp) + 2/3 r dp. 0.0 where there is none.
    """
    width = float(counts[WIDTH])
    variance = window[SPREAD] / width
    n0, n1, u0, u1 = 0.0, width, 0.0, window[TOTAL]
    root, way = 0.0, FELL  # of the largest dp so far
    for level in range(counts[LEVELS] - 1, -1, -1):
        n = float(1 << level)
        for i in range(counts[SIZES + level]):
            u = buckets[TOTAL, level, i]
            n0, n1, u0, u1 = n0 + n, n1 - n, u0 + u, u1 - u
            if n1 < least:
                return root * root, way
            if n0 >= least:
                r = 1.0 / (n0 - least + 1.0) + 1.0 / (n1 - least + 1.0)
                b = math.sqrt(2.0 * r * variance)
                gap = abs(u0 / n0 - u1 / n1)
                if gap > (b + 2.0 / 3.0 * r * root) * root:
                    root = (math.sqrt(b * b + 8.0 / 3.0 * r * gap) - b) / (4.0 / 3.0 * r)
                    way = ROSE if u1 / n1 > u0 / n0 else FELL
    return root * root, way


@kernel
def adwin_statistics(
    values: F8, buckets: F8, counts: I8, window: F8, shape: tuple[int, float, int], out: F8
) -> None:
    """Feed all values (n,), NaN is skipped; out (n,): the strongest cut where one was sought.

    Arrays as in `adwin_first_alarm` | shape: clock, least, grace. -inf where no test was due.
    """
    clock, least, grace = shape
    for t in range(values.shape[0]):
        out[t] = -np.inf
        if values[t] != values[t]:
            continue
        insert(values[t], buckets, counts, window)
        counts[TICK] += 1
        width = counts[WIDTH]
        if counts[TICK] % clock == 0 and width > grace and float(width) >= 2.0 * least:
            out[t] = strongest_cut(buckets, counts, window, least)[0]


@part
def drop_older(buckets: F8, counts: I8, window: F8, way: int, limit: float, least: float) -> None:
    """After an alarm: drop the oldest buckets for as long as some cut is beyond the limit."""
    said = math.inf
    while said > limit:
        counts[ALARMED] = way
        drop_oldest(buckets, counts, window)
        if counts[WIDTH] < 2.0 * least:
            break
        said, way = strongest_cut(buckets, counts, window, least)


@part
def forget(own: tuple[F8, I8, F8], tally: I8, slots: I8) -> None:
    """Begin anew: nothing but the count of values and the regime stays."""
    own[0][:] = 0.0
    own[1][:] = 0
    own[2][:] = 0.0
    slots[:] = 0
    tally[limits.AGE] = tally[limits.ONES] = 0
    tally[limits.SAID] = limits.NOTHING


@part
def tell(t: int, own: tuple[F8, I8, F8], last: F8, told: F8) -> None:
    """What there is to say of an alarm at value t. told (TOLD,) out."""
    _, counts, window = own
    width = float(counts[WIDTH])
    told[PLACE] = t
    told[WAY] = counts[ALARMED]
    told[MEAN] = window[TOTAL] / width if width > 0.0 else 0.0
    told[WINDOW] = width
    told[SAID] = last[0]
    told[BOUND] = last[1]


@kernel
def adwin_calibrated(
    values: F8,
    own: tuple[F8, I8, F8],
    held: tuple[I8, F8, I8, F8],
    shape: tuple[int, float, int, int, int],
    table: tuple[F8, F8],
    told: F8,
) -> tuple[int, int, int]:
    """Feed values up to the alarm that fills told (m, TOLD) out, a row an alarm.

    values (n,), NaN is skipped | own: buckets, counts, window as in `adwin_first_alarm` | held:
    tally, edges, slots, last as in `limits` | shape: clock, least, grace, warm-up, key | table:
    limits (rows, 15), jitter (4,). The value after an alarm starts an empty window, and so does the
    first that is neither 0 nor 1, from which on it is fed ranks.
    Returns how many values were fed, how many alarms were raised and values refused. Amortised
    O(1 + log(width) / clock) a value, allocates nothing.
    """
    buckets, counts, window = own
    tally, edges, slots, last = held
    clock, least, grace, warm_up, key = shape
    refused = alarms = 0
    for t in range(values.shape[0]):
        value = values[t]
        if value != value:
            continue
        if tally[limits.SAID] == limits.ALARM:
            forget(own, tally, slots)
        if not abs(value) <= CALM:
            refused += 1
            continue
        if tally[limits.REGIME] == limits.BITS and value != 0.0 and value != 1.0:
            forget(own, tally, slots)
            tally[limits.REGIME] = limits.RANKS
        insert(limits.score(value, tally, edges, slots, key), buckets, counts, window)
        counts[TICK] += 1
        width, age = counts[WIDTH], tally[limits.AGE]
        if counts[TICK] % clock != 0 or width <= grace or float(width) < 2.0 * least:
            continue
        if age < warm_up:
            continue
        ones, regime = tally[limits.ONES], tally[limits.REGIME]
        last[0], way = strongest_cut(buckets, counts, window, least)
        last[1] = limits.limit(table[0], age, ones, regime)
        if regime == limits.BITS and (ones == 0 or ones == age):  # all alike: they say nothing
            continue
        said = limits.jittered(last[0], regime, tally[limits.TICK], table[1])
        if said > last[1]:
            last[0] = said
            tally[limits.SAID] = limits.ALARM
            drop_older(buckets, counts, window, way, last[1], least)
            tell(t, own, last, told[alarms])
            alarms += 1
            if alarms == told.shape[0]:
                return t + 1, alarms, refused
    return values.shape[0], alarms, refused


@kernel
def adwin_first_alarm(
    values: F8,
    buckets: F8,
    counts: I8,
    window: F8,
    delta: float,
    clock: int,
    least: float,
    grace: int,
) -> tuple[int, int]:
    """Feed values up to and including the first that raises an alarm.

    values (n,), NaN is skipped | buckets (2, levels, max_buckets + 1), counts (4 + levels,),
    window (2,) in/out. Every `clock` values, in windows longer than `grace`, the oldest bucket is
    dropped for as long as a cut is found. The value after an alarm starts an empty window.
    Returns the index of the alarm or -1, and how many values were refused for their size.
    Amortised O(1 + log(width) / clock) a value, allocates nothing.
    """
    refused = 0
    for t in range(values.shape[0]):
        if not abs(values[t]) <= CALM:
            refused += values[t] == values[t]
            continue
        if counts[ALARMED] != 0:
            buckets[:] = 0.0
            counts[:] = 0
            window[:] = 0.0
        insert(values[t], buckets, counts, window)
        counts[TICK] += 1
        if counts[TICK] % clock == 0 and counts[WIDTH] > grace:
            way = cut(buckets, counts, window, delta, least)
            while way != 0:
                counts[ALARMED] = way
                drop_oldest(buckets, counts, window)
                way = cut(buckets, counts, window, delta, least)
            if counts[ALARMED] != 0:
                return t, refused
    return -1, refused
