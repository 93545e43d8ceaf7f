"""Delayed rank-one updates: the last factors are kept, and folded into the matrix as one product.

A = c (B - Z'Z) + b I. B (D, D) stands in the tiles of `symmetric`; Z holds p <= m factors, each
(D,); c and b are what forgetting and drift have made of it since the last fold. A new factor z,
A <- A - z z', joins Z as z / sqrt(c). A product costs one with B, which a whole group of rows
shares, and two with Z. Only a count of factors folds, so where a block ends is nowhere to be seen.

Z is kept as (T, m, 8): of each 8 columns all factors, one after the other, D = 8 T at most.
"""

import numpy as np

from streamlearn.jit import lift
from streamlearn.jit._compile import F8, I8, part, section
from streamlearn.jit.lanes import WIDE, Lanes, Value, emitted
from streamlearn.jit.symmetric import aligned, n_panels, panel_at, unpacked

_TILE = WIDE * WIDE
_STRIP = 3  # tiles that are folded at once: 24 registers of sums

DELAYED_FROM = 64  # rows of a matrix from which heads delay; below, `symmetric_product` is as fast
FACTORS = 24  # m; with 16 as fast, with 64 the products with Z cost more than the folds save
GROUP = 24  # rows whose products share a panel of B, by three
LOWEST, HIGHEST = 1e-6, 1e6  # a scale beyond them is folded: z / sqrt(c) is to stay a number

# places in the counters of what is pending
PENDING, SCALE, SHIFT = range(3)
N_COUNTERS = 3


def no_factors(D: int, m: int) -> F8:
    """Room for m factors of D rows; m a multiple of 8."""
    return aligned((n_panels(D), m, WIDE))


# -- the instructions ------------------------------------------------------------------------------


def _write_fold(
    L: Lanes, n: int, tiles: Value, Z: Value, m: Value, J: Value, i: Value, p: Value, c: Value
) -> None:
    """n tiles (J, i), ... <- c (tile - Z'Z): each element one chain over the p factors."""
    every = L.times(m, WIDE)
    rows = L.at(Z, L.times(J, every))
    columns = [L.at(Z, L.times(L.plus(i, q), every)) for q in range(n)]
    tile = L.at(tiles, L.times(L.minus_index(i, J), _TILE))
    total = [
        [L.variable(L.load(L.at(tile, q * _TILE + j * WIDE))) for q in range(n)]
        for j in range(WIDE)
    ]
    with L.loop(L.index(0), p) as k:
        here = L.times(k, WIDE)
        z = [L.minus(L.load(L.at(column, here))) for column in columns]
        for j in range(WIDE):
            s = L.spread_from(L.at(L.at(rows, here), j))
            for q in range(n):
                total[j][q].set(L.fma(s, z[q], total[j][q].get()))
    scale = L.spread(c)
    for j in range(WIDE):
        for q in range(n):
            done = L.multiply(scale, total[j][q].get())
            L.store(done, L.at(tile, q * _TILE + j * WIDE))


def _twin_fold(n: int, tiles: F8, Z: F8, J: int, i: int, p: int, c: float) -> None:
    for q in range(i, i + n):
        for k in range(p):
            tiles[q - J] -= np.outer(Z[J, k], Z[q, k])
        tiles[q - J] *= c


@emitted(lambda L, *given: _write_fold(L, 1, *given))
def _fold_1(tiles: F8, Z: F8, m: int, J: int, i: int, p: int, c: float) -> None:
    _twin_fold(1, tiles, Z, J, i, p, c)


@emitted(lambda L, *given: _write_fold(L, _STRIP, *given))
def _fold_3(tiles: F8, Z: F8, m: int, J: int, i: int, p: int, c: float) -> None:
    _twin_fold(_STRIP, tiles, Z, J, i, p, c)


def _write_dots(L: Lanes, Z: Value, m: Value, T: Value, f: Value, w: Value, k: Value) -> None:
    """Entries k to k + 7 of w <- Z f: 8 lanes, each one chain, added by pairs."""
    total = [L.variable() for _ in range(WIDE)]
    with L.loop(L.index(0), T) as i:
        x = L.load(L.at(f, L.times(i, WIDE)))
        z = L.at(Z, L.times(L.plus(L.times(i, m), k), WIDE))
        for j in range(WIDE):
            total[j].set(L.fma(L.load(L.at(z, j * WIDE)), x, total[j].get()))
    L.store(L.totals([v.get() for v in total]), L.at(w, k))


@emitted(_write_dots)
def _dots(Z: F8, m: int, T: int, f: F8, w: F8, k: int) -> None:
    x = f.reshape(T, 1, WIDE)
    w[k : k + WIDE] = (Z[:, k : k + WIDE] * x).sum(axis=(0, 2))


def _write_combine(
    L: Lanes, n: int, Z: Value, m: Value, i: Value, p: Value,
    f: Value, w: Value, u: Value, c: Value, b: Value,
) -> None:  # fmt: skip
    """n times 8 entries of u <- c (u - Z'w) + b f: each one chain over the factors."""
    column = L.at(Z, L.times(L.times(i, m), WIDE))
    here = [L.times(L.plus(i, q), WIDE) for q in range(n)]
    total = [L.variable(L.load(L.at(u, at))) for at in here]
    with L.loop(L.index(0), p) as k:
        s = L.minus(L.spread_from(L.at(w, k)))
        z = L.at(column, L.times(k, WIDE))
        for q in range(n):
            next_ = L.at(z, L.times(L.times(m, WIDE), q))
            total[q].set(L.fma(s, L.load(next_), total[q].get()))
    scale, shift = L.spread(c), L.spread(b)
    for q in range(n):
        done = L.multiply(scale, total[q].get())
        L.store(L.fma(shift, L.load(L.at(f, here[q])), done), L.at(u, here[q]))


def _twin_combine(
    n: int, Z: F8, m: int, i: int, p: int, f: F8, w: F8, u: F8, c: float, b: float
) -> None:
    for q in range(i, i + n):
        here = slice(WIDE * q, WIDE * (q + 1))
        for k in range(p):
            u[here] -= w[k] * Z[q, k]
        u[here] = c * u[here] + b * f[here]


@emitted(lambda L, *given: _write_combine(L, 1, *given))
def _combine_1(Z: F8, m: int, i: int, p: int, f: F8, w: F8, u: F8, c: float, b: float) -> None:
    _twin_combine(1, Z, m, i, p, f, w, u, c, b)


@emitted(lambda L, *given: _write_combine(L, 8, *given))
def _combine_8(Z: F8, m: int, i: int, p: int, f: F8, w: F8, u: F8, c: float, b: float) -> None:
    _twin_combine(8, Z, m, i, p, f, w, u, c, b)


# -- what kernels call -----------------------------------------------------------------------------


@section
def finish_product(Z: F8, s: F8, f: F8, w: F8, u: F8) -> None:
    """u <- A f, where u = B f. O(p D).

    Z (T, m, 8) | s counters | f, u (8 T,) | w (m,) scratch.
    """
    for k in range(0, int(s[PENDING]), WIDE):
        _dots(Z, Z.shape[1], Z.shape[0], f, w, k)
    finish_with(Z, s, f, w, u)


@section
def finish_with(Z: F8, s: F8, f: F8, w: F8, u: F8) -> None:
    """`finish_product` where w = Z f is known."""
    T, m = Z.shape[0], Z.shape[1]
    p = int(s[PENDING])
    i = 0
    while i + 7 < T:
        _combine_8(Z, m, i, p, f, w, u, s[SCALE], s[SHIFT])
        i += 8
    while i < T:
        _combine_1(Z, m, i, p, f, w, u, s[SCALE], s[SHIFT])
        i += 1


@part
def join(Z: F8, s: F8, z: F8, size: float) -> None:
    """A <- A - z z' size^2, which waits. O(D)."""
    T, k = Z.shape[0], int(s[PENDING])
    for i in range(T):
        for j in range(WIDE):
            Z[i, k, j] = z[WIDE * i + j] * size
    s[PENDING] += 1.0


@section
def fold(tiles: F8, Z: F8, s: F8, D: int) -> None:
    """B <- A; nothing waits then. O(p D^2).

    b reaches the first D elements of the diagonal: what is padded stays 0.
    """
    T, m, p = Z.shape[0], Z.shape[1], int(s[PENDING])
    for J in range(T):
        panel = tiles[panel_at(J, T) :]
        i = J
        while i + _STRIP - 1 < T:
            _fold_3(panel, Z, m, J, i, p, s[SCALE])
            i += _STRIP
        while i < T:
            _fold_1(panel, Z, m, J, i, p, s[SCALE])
            i += 1
        for j in range(min(WIDE, D - WIDE * J)):
            panel[0, j, j] += s[SHIFT]
    s[PENDING], s[SCALE], s[SHIFT] = 0.0, 1.0, 0.0


@part
def fold_within(tiles: F8, Z: F8, s: F8, D: int, largest: float) -> bool:
    """`fold`; whether every element of the diagonal is in (0, largest] then."""
    fold(tiles, Z, s, D)
    for i in range(D):
        if not 0.0 < tiles[panel_at(i // WIDE, Z.shape[0]), i % WIDE, i % WIDE] <= largest:
            return False
    return True


@part
def out_of_bounds(s: F8) -> bool:
    """Whether the scale has left the range in which factors are well kept."""
    return not LOWEST <= s[SCALE] <= HIGHEST


@part
def is_lesson(c: int) -> bool:
    """Whether a row of this code teaches something."""
    return c >= 0 or c == lift.TARGET


@part
def gather(t: int, F: F8, codes: I8, lessons: int, X: F8, asks: bool) -> tuple[int, int]:
    """X <- the rows from t on that need a product, until so many lessons or no room.

    These are the lessons and, if each row asks, all but those that are skipped. Returns the row to
    stop before, and how many were taken.
    """
    n = 0
    while t < F.shape[0] and n < X.shape[0] and lessons > 0:
        lesson = is_lesson(codes[t])
        if lesson or (asks and codes[t] != lift.SKIP):
            for j in range(F.shape[1]):
                X[n, j] = F[t, j]
            n += 1
        lessons -= int(lesson)
        t += 1
    return t, n


@part
def add_to_diagonal(tiles: F8, D: int, T: int, value: float) -> None:
    """B <- B + value I."""
    for i in range(D):
        tiles[panel_at(i // WIDE, T), i % WIDE, i % WIDE] += value


def factors(Z: F8, p: int, D: int) -> F8:
    """The first p factors as rows (p, D)."""
    rows = Z[:, :p].transpose(1, 0, 2).reshape(p, WIDE * Z.shape[0])
    return np.ascontiguousarray(rows[:, :D])


def put_factors(rows: F8, Z: F8) -> None:
    """Z <- these factors, rows (p, D)."""
    p, D = rows.shape
    wide = np.zeros((p, WIDE * Z.shape[0]))
    wide[:, :D] = rows
    Z[:, :p] = wide.reshape(p, Z.shape[0], WIDE).transpose(1, 0, 2)


def effective(tiles: F8, Z: F8, s: F8, D: int) -> F8:
    """A (D, D) in full, symmetric to the last bit; nothing changes. O(p D^2), without BLAS."""
    A = unpacked(tiles, D)
    for z in factors(Z, int(s[PENDING]), D):
        A -= np.outer(z, z)
    A *= s[SCALE]
    A[np.diag_indices(D)] += s[SHIFT]
    return A
