"""Windows of values against a reference: slots, counts, distances of distributions, bootstrap.

d features, w rows in the window, r rows in the reference, B quantiles (edges) of the reference.
A value falls into one of S = 2 B + 2 slots: 2 k + 1 if it equals edge k, 2 k if it lies between
edges k - 1 and k; a category's code is its slot, 2 B are all further ones; S - 1 is missing. Where
the reference has at most B different values, no slot hides anything, and the Kolmogorov-Smirnov
distance is exact. Slots make up groups for sums over cells: 0 what the reference never held, 1
missing, then quantile groups, or categories.
"""

import math

import numpy as np

from streamlearn.jit._compile import F8, I8, kernel, part
from streamlearn.jit.monte_carlo import scrambled

SHAPE, CELLS = 0, 1  # columns of distances and scores: KS or chi-square; PSI
OUTSIDE, MISSING = 0, 1  # groups
CATEGORY = -1  # in place of the number of edges
_GOLDEN, _S12 = np.uint64(0x9E3779B97F4A7C15), np.uint64(12)  # as in `counter`: SplitMix64


@part
def slot_of(v: float, edges: F8, n_edges: int, last: int) -> int:
    """The slot of a value. edges (B,) ascending, infinite from n_edges on | last = S - 1."""
    if v != v:
        return last
    if n_edges < 0:
        return int(v) if v < last - 1 else last - 1
    low, n = 0, edges.shape[0]
    while n > 1:  # without a branch that nobody can foretell
        half = n >> 1
        low += half * (edges[low + half - 1] < v)
        n -= half
    low += edges[low] < v
    if low < n_edges and edges[low] == v:
        return int(2 * low + 1)
    return int(2 * min(low, n_edges))


@kernel
def slots_of(X: F8, edges: F8, n_edges: I8, last: int, out: I8) -> None:
    """The slots of all values. X (n, d) | edges (d, B), n_edges (d,) | out (d, n)."""
    for j in range(X.shape[1]):
        for t in range(X.shape[0]):
            out[j, t] = slot_of(X[t, j], edges[j], n_edges[j], last)


@kernel
def slide(X: F8, ring: F8, at: int, edges: F8, n_edges: I8, seen: I8, counts: I8) -> None:
    """Move the window over rows X (n, d); a feature with seen < 0 is not watched yet.

    ring (w, d) in/out, `at` the place of its oldest row | seen (d,), counts (d, S) in/out: values
    counted, by slot. O(n d log B), feature by feature, allocates nothing.
    """
    w, last = ring.shape[0], counts.shape[1] - 1
    for j in range(X.shape[1]):
        place = at
        for t in range(X.shape[0]):
            if seen[j] == w:
                counts[j, slot_of(ring[place, j], edges[j], n_edges[j], last)] -= 1
            elif seen[j] >= 0:
                seen[j] += 1
            if seen[j] >= 0:
                counts[j, slot_of(X[t, j], edges[j], n_edges[j], last)] += 1
            ring[place, j] = X[t, j]
            place = place + 1 if place + 1 < w else 0


@part
def surprise(z: float) -> float:
    """-log P(N(0, 1) > z)."""
    if z < 5.0:
        return -math.log(0.5 * math.erfc(z * 0.7071067811865476))
    return 0.5 * z * z + math.log(z * 2.5066282746310002) - math.log(1.0 - 1.0 / (z * z))


@part
def cell_surprise(x: float, k: float) -> float:
    """-log P(chi-square with k degrees of freedom > x), after Wilson and Hilferty (1931)."""
    if k == 1.0:
        return surprise(math.sqrt(max(x, 0.0))) - math.log(2.0)
    spread = 2.0 / (9.0 * k)
    return surprise(((max(x, 0.0) / k) ** (1.0 / 3.0) - (1.0 - spread)) / math.sqrt(spread))


@part
def ks_distance(counts: I8, reference: I8, n: int, r: int) -> float:
    """The largest gap of two distribution functions. counts, reference (S,) | n, r their sums.

    A missing value counts as greater than all others.
    """
    gap, largest = 0, 0
    for s in range(counts.shape[0] - 1):
        gap += counts[s] * r - reference[s] * n
        largest = max(largest, abs(gap))
    return largest / (float(n) * float(r))


@part
def cell_distances(
    counts: I8, groups: I8, shares: F8, n: float, cells: F8
) -> tuple[float, float, float]:
    """Chi-square, population stability index, and degrees of freedom, over groups.

    counts, groups (S,) | shares (G,) of the reference, -1 beyond its groups | cells (G,) scratch.
    An expected count below 1 counts as 1 in chi-square; in the index each cell of either side has
    one row of the window more, so that an empty cell is no infinity.
    """
    filled, n_groups = 0.0, 0
    for g in range(shares.shape[0]):
        cells[g] = 0.0
        n_groups += shares[g] >= 0.0
        filled += shares[g] > 0.0
    for s in range(counts.shape[0]):
        if counts[s] != 0:
            cells[groups[s]] += counts[s]
    chi, psi = 0.0, 0.0
    for g in range(n_groups):
        expected = n * shares[g]
        gap = cells[g] - expected
        chi += gap * gap / max(expected, 1.0)
        psi += gap * math.log((cells[g] + 1.0) / (expected + 1.0))
    return chi, psi / (n + n_groups), max(filled - 1.0, 1.0)


@part
def compare(
    counts: I8, reference: tuple[I8, I8, F8], sizes: tuple[int, int, float], kind: int,
    jitter: float, cells: F8, both: tuple[F8, F8],
) -> None:  # fmt: skip
    """Distances of a window and the reference, and -log of their chances: `both`, (2,) each.

    reference = counts (S,) | groups (S,) | shares (G,) | sizes = rows n in the window, r in the
    reference, and m, those of the window that stand for both, n r / (n + r).
    jitter: in [0, 1), that part of the step by which a distance of counts can change is added.
    """
    n, r, m = sizes
    distance, score = both
    chi, psi, k = cell_distances(counts, reference[1], reference[2], float(n), cells)
    step = 2.0 * jitter / math.sqrt(n)
    x = math.sqrt(max(psi * m, 0.0)) + step
    distance[CELLS], score[CELLS] = psi, cell_surprise(x * x, k)
    if kind < 0:
        x = math.sqrt(chi * m / n) + step
        distance[SHAPE], score[SHAPE] = chi, cell_surprise(x * x, k)
        return
    distance[SHAPE] = ks_distance(counts, reference[0], n, r)
    z = distance[SHAPE] * math.sqrt(m) + 0.5 * step
    score[SHAPE] = max(2.0 * z * z - math.log(2.0), 0.0)


@kernel
def compare_all(
    counts: I8,
    seen: I8,
    references: tuple[I8, I8, F8],
    n_edges: I8,
    w: int,
    jitter: float,
    distances: F8,
    scores: F8,
) -> None:
    """Distances and scores (d, 2) of all features whose window is full; NaN for the others.

    counts (d, S), seen (d,) | references = counts (d, S), groups (d, S), shares (d, G). O(d S).
    """
    cells = np.empty(references[2].shape[1])
    for j in range(counts.shape[0]):
        distances[j] = np.nan
        scores[j] = np.nan
        if seen[j] == w:
            r = references[0][j].sum()
            sizes = (w, r, w * r / float(w + r))
            ours = (references[0][j], references[1][j], references[2][j])
            compare(
                counts[j], ours, sizes, n_edges[j], jitter, cells,
                (distances[j], scores[j]),
            )  # fmt: skip


@part
def unit_draw(start: np.uint64, k: int) -> float:
    """Draw k of a stream, in (0, 1)."""
    return (float(scrambled(start + _GOLDEN * np.uint64(k + 1)) >> _S12) + 0.5) * 2.0**-52


@kernel
def block_rows(start: np.uint64, r: int, length: int, out: I8) -> None:
    """Rows of a reference of r, drawn in blocks of `length`, circularly; the first is cut short.

    out (n,) rows. Reference: Politis and Romano (1992), A circular block-resampling procedure.
    """
    left, row = int(unit_draw(start, 0) * length) + 1, int(unit_draw(start, 1) * r)
    draws = 2
    for i in range(out.shape[0]):
        if left == 0:
            left, row = length, int(unit_draw(start, draws) * r)
            draws += 1
        out[i] = row
        row = row + 1 if row + 1 < r else 0
        left -= 1


@part
def cell_terms(shares: F8, w: int, terms: F8) -> int:
    """What a group with c rows adds to chi-square and to the index, for each c: fewer logarithms.

    shares (G,) | terms (2, G, w + 1) out, as in `cell_distances`. Returns the number of groups.
    """
    n_groups = 0
    for g in range(shares.shape[0]):
        n_groups += shares[g] >= 0.0
    for g in range(n_groups):
        expected = float(w) * shares[g]
        for c in range(w + 1):
            gap = c - expected
            terms[0, g, c] = gap * gap / max(expected, 1.0)
            terms[1, g, c] = gap * math.log((c + 1.0) / (expected + 1.0))
    return n_groups


@part
def take_row(slot: int, by: int, groups: I8, counts: I8, cells: I8) -> None:
    """Count a row of a window in (by = 1) or out (-1)."""
    counts[slot] += by
    cells[groups[slot]] += by


@part
def raise_largest(x: float, k: float, top: F8) -> None:
    """top = largest score so far | x, k: those of the last chi-square that was looked up.

    A chance falls as x rises, so most of them need not be looked up.
    """
    if k != top[2] or x > top[1]:
        score = cell_surprise(x * x, k)
        top[0] = max(top[0], score)
        top[1], top[2] = x, k


@part
def bootstrap_feature(
    slots: I8, ours: tuple[I8, I8, F8], sizes: tuple[int, int], shape: tuple[bool, int],
    used: tuple[bool, bool], drawn: tuple[I8, F8], scratch: tuple[I8, I8, F8], top: F8,
) -> None:  # fmt: skip
    """Raise the largest scores so far, top (chains, K, 3), to those of one feature.

    slots (r,) | ours, as in `compare` | sizes = w, rows between tests | shape = whether it is a
    category, edges that it has | drawn = rows of each chain (chains, ...), jitters (chains, K)
    | scratch = counts (S,), cells (G,), terms (2, G, w + 1).
    """
    (w, every), (category, n_edges) = sizes, shape
    (reference, groups, shares), (counts, cells, terms) = ours, scratch
    rows, jitters = drawn
    r, m = slots.shape[0], float(w)  # the reference is what is drawn from, not a sample
    last = counts.shape[0] - 1 if category else min(2 * n_edges + 1, counts.shape[0] - 1)
    n_groups = cell_terms(shares, w, terms)
    filled = 0.0
    for g in range(shares.shape[0]):
        filled += shares[g] > 0.0
    free = max(filled - 1.0, 1.0)
    for c in range(rows.shape[0]):
        counts[:] = 0
        cells[:] = 0
        for t in range(w - every):
            take_row(slots[rows[c, t]], 1, groups, counts, cells)
        for k in range(top.shape[1]):
            for t in range(w + (k - 1) * every, w + k * every):
                take_row(slots[rows[c, t]], 1, groups, counts, cells)
                if k > 0:
                    take_row(slots[rows[c, t - w]], -1, groups, counts, cells)
            step = 2.0 * jitters[c, k] / math.sqrt(float(w))
            chi, psi = 0.0, 0.0
            if used[CELLS]:
                for g in range(n_groups):
                    psi += terms[1, g, cells[g]]
                x = math.sqrt(max(psi / (w + n_groups) * m, 0.0)) + step
                raise_largest(x, free, top[c, k])
            if used[SHAPE] and category:
                for g in range(n_groups):
                    chi += terms[0, g, cells[g]]
                raise_largest(math.sqrt(chi * m / w) + step, free, top[c, k])
            elif used[SHAPE]:
                gap, largest = 0, 0
                for s in range(last):  # as `ks_distance`; further slots are empty
                    gap += counts[s] * r - reference[s] * w
                    largest = max(largest, abs(gap))
                z = largest / (float(w) * float(r)) * math.sqrt(m) + 0.5 * step
                top[c, k, 0] = max(top[c, k, 0], 2.0 * z * z - math.log(2.0))


@kernel
def bootstrap(
    slots: I8,
    references: tuple[I8, I8, F8],
    n_edges: I8,
    sizes: tuple[int, int, int],
    used: tuple[bool, bool],
    start: np.uint64,
    largest: F8,
) -> None:
    """Largest score over features at each test of streams drawn from the reference itself.

    slots (d, r) of its rows | sizes = w, rows between tests, rows of a block | used: columns of
    scores | largest (chains, tests) out; the first test of a chain sees the first full window.
    """
    w, every, length = sizes
    chains, K = largest.shape
    rows = np.empty((chains, w + (K - 1) * every), dtype=np.int64)
    jitters, top = np.empty((chains, K)), np.zeros((chains, K, 3))
    G = references[2].shape[1]
    counts = np.empty(references[0].shape[1], dtype=np.int64)
    scratch = counts, np.empty(G, dtype=np.int64), np.empty((2, G, w + 1))
    for c in range(chains):
        key = scrambled(start + _GOLDEN * np.uint64(c + 1))
        block_rows(key, slots.shape[1], length, rows[c])
        for k in range(K):
            jitters[c, k] = unit_draw(~key, k)
    for j in range(slots.shape[0]):
        ours = (references[0][j], references[1][j], references[2][j])
        shape = (n_edges[j] < 0, n_edges[j])
        bootstrap_feature(slots[j], ours, (w, every), shape, used, (rows, jitters), scratch, top)
    for c in range(chains):
        for k in range(K):
            largest[c, k] = top[c, k, 0]
