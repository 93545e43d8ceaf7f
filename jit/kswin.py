"""KSWIN: two-sample Kolmogorov-Smirnov between the newest values and those before them.

The window of n0 + n1 values is kept sorted; beside each rank stands the gap of the two counts up to
it, g = (n1 * #older - n0 * #newest) / gcd, so that D = max |g| * gcd / (n0 n1) over the last ranks
of equal values, in whole numbers. Of equal values only the last rank's gap has a meaning.
"""

import math

from streamlearn.jit._compile import F8, I8, kernel, part
from streamlearn.jit.adwin import CALM

FED, ALARMED, WHERE, SIZES = 0, 1, 2, 3  # places in `counts`; WHERE: the signed gap that D is of


@part
def first_not_below(value: float, ordered: F8, m: int) -> int:
    """First rank among m whose value is >= value."""
    low, high = 0, m
    while low < high:
        middle = (low + high) >> 1
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@part
def first_above(value: float, ordered: F8, m: int) -> int:
    """First rank among m whose value is > value."""
    low, high = 0, m
    while low < high:
        middle = (low + high) >> 1
        if ordered[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@part
def take_out(value: float, ordered: F8, gaps: I8, m: int, weight: int) -> None:
    """Remove one of the values that equal `value` from the m in order; it counted `weight`."""
    for i in range(first_not_below(value, ordered, m), m - 1):
        ordered[i] = ordered[i + 1]
        gaps[i] = gaps[i + 1] - weight


@part
def put_in(value: float, ordered: F8, gaps: I8, m: int, weight: int) -> None:
    """Add a value behind its equals to the m in order; it counts `weight`."""
    at = first_above(value, ordered, m)
    for i in range(m, at, -1):
        ordered[i] = ordered[i - 1]
        gaps[i] = gaps[i - 1] + weight
    ordered[at] = value
    gaps[at] = weight + (gaps[at - 1] if at > 0 else 0)


@part
def grow_old(value: float, ordered: F8, gaps: I8, m: int, weight: int) -> None:
    """One of the newest values becomes one of the older: `weight` more from its rank on."""
    for i in range(first_not_below(value, ordered, m), m):
        gaps[i] += weight


@part
def widest(ordered: F8, gaps: I8) -> int:
    """The gap of the greatest size, with its sign: > 0 where the newest values are larger."""
    low, high = 0, 0
    for i in range(ordered.shape[0] - 1):
        gap = gaps[i] if ordered[i] != ordered[i + 1] else 0
        low, high = min(low, gap), max(high, gap)
    return high if high >= -low else low


@part
def kswin_push(value: float, ordered: F8, gaps: I8, ring: F8, counts: I8, n1: int) -> float:
    """Take one value; the KS distance of the n1 newest to the others, -inf before a full window.

    ordered, gaps, ring (n,), counts (3,) in/out. O(log n) comparisons and O(n) moves.
    """
    n: int = ring.shape[0]
    n0 = n - n1
    common = math.gcd(n0, n1)
    older, newest = n1 // common, -(n0 // common)  # what a value counts
    fed = counts[FED]
    at = fed % n
    m = min(fed, n)
    if m == n:
        take_out(ring[at], ordered, gaps, n, older)
        m = n - 1
        grow_old(ring[(at + n0) % n], ordered, gaps, m, older - newest)
    put_in(value, ordered, gaps, m, older if fed < n0 else newest)
    ring[at] = value
    counts[FED] = fed + 1
    if fed + 1 < n:
        return -math.inf
    counts[WHERE] = widest(ordered, gaps)
    return abs(int(counts[WHERE])) / (older * n0)


@kernel
def kswin_first_alarm(
    values: F8, ordered: F8, gaps: I8, ring: F8, counts: I8, n1: int, limit: float
) -> tuple[int, int]:
    """Feed values up to and including the first that raises an alarm: distance >= limit.

    values (n,), NaN is skipped | ordered, gaps, ring (window,), counts (3,) in/out. The value after
    an alarm starts an empty window. Returns the index of the alarm or -1, and how many values were
    refused for their size. O(window) moves a value, allocates nothing.
    """
    refused = 0
    for t in range(values.shape[0]):
        if not abs(values[t]) <= CALM:
            refused += values[t] == values[t]
            continue
        if counts[ALARMED] != 0:
            counts[:] = 0
        if kswin_push(values[t], ordered, gaps, ring, counts, n1) >= limit:
            counts[ALARMED] = 1
            return t, refused
    return -1, refused


@kernel
def share_outside(n0: int, n1: int, gap: int, row: F8) -> float:
    """P(D >= gap * gcd / (n0 n1)) of two samples of one continuous law: the exact p-value.

    The share of the lattice paths from (0, 0) to (n0, n1) that touch a point with |gap| or more.
    Hodges' recursion in shares instead of counts: the last step to (i, j) came from (i - 1, j) in
    i of i + j paths. Sums of positive terms: small values are as exact as large ones. row
    (n1 + 1,) scratch. O(n0 n1).
    """
    common = math.gcd(n0, n1)
    a, b = n1 // common, n0 // common
    for i in range(n0 + 1):
        for j in range(n1 + 1):
            if abs(a * i - b * j) >= gap:
                row[j] = 1.0
            elif i + j == 0:
                row[j] = 0.0
            else:
                above = i * row[j] if i > 0 else 0.0
                left = j * row[j - 1] if j > 0 else 0.0
                row[j] = (above + left) / (i + j)
    return float(row[n1])


@kernel
def kswin_statistics(
    values: F8, ordered: F8, gaps: I8, ring: F8, counts: I8, n1: int, out: F8
) -> None:
    """Feed all values (n,), NaN is skipped; out (n,): the distance after each, no alarm."""
    for t in range(values.shape[0]):
        said = -math.inf
        if values[t] == values[t]:
            said = kswin_push(values[t], ordered, gaps, ring, counts, n1)
        out[t] = said
