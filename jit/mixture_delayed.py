"""The Gaussian mixture where D is large: updates wait as factors, rows are multiplied ahead.

A component stands on an anchor, the precision B and the mean mu0 of its last fold, and on what has
come since (`delayed`): Lam = c (B - Z'Z). So

    Lam e = c (b - Z'Z e),   b = B e = B (z - mu0) - moved,   moved = B (mu - mu0).

B (z - mu0) is centred on a mean that stays, so it is made for many rows of the block at once, in
one pass over B, to the bits that each row alone would give (`symmetric`). A component folds when
there is no room for two more factors, or a coordinate enters: counts of its own, no block's end.

Half the numbers of a full matrix are kept and read. W = 8 T is D rounded up; what is padded is 0.
"""

import math

import numpy as np

from streamlearn.jit import delayed as factors
from streamlearn.jit._compile import F8, part, section
from streamlearn.jit.lanes import WIDE, Lanes, Value, emitted
from streamlearn.jit.symmetric import aligned, column, n_panels, packed, panel_at, products

ROOM = 24  # factors of a component: from 16 to 32 the time is flat
AHEAD = 24  # rows multiplied at once
SINCE = factors.N_COUNTERS  # place in the counters: updates since the last health check
N_COUNTERS = 4
MEAN0, MOVED, DIAGONAL = range(3)  # rows of anchor; DIAGONAL: of B - Z'Z
_START, _STOP, _BUSY = range(3)  # of windows; BUSY: it has learnt since

# State: tiles of B (K, T (T + 1) / 2, 8, 8), factors Z (K, T, ROOM, 8), counters (K, 4), anchor
# (K, 3, W). Scratch: base b (K, W), products ahead (K, AHEAD, W), windows of the block's rows that
# they are for (K, 3), vectors in rows (AHEAD + 1, W), w (ROOM,).
Delayed = tuple[F8, F8, F8, F8, F8, F8, F8, F8, F8]
Row = tuple[F8, F8, F8, F8]  # X (n, d) | z, known (>= D,) of this row | used (D,)


def none_delayed(K: int, D: int) -> tuple[F8, F8, F8, F8]:
    """The state for K components of D coordinates, each with the unit matrix; D = 0: no room."""
    T = n_panels(D)
    tiles = aligned((K, T * (T + 1) // 2, WIDE, WIDE))
    tiles[:] = packed(np.eye(D))
    counters, anchor = np.zeros((K, N_COUNTERS)), np.zeros((K, 3, WIDE * T))
    counters[:, factors.SCALE] = 1.0
    anchor[:, DIAGONAL, :D] = 1.0
    return tiles, aligned((K, T, ROOM if T > 0 else 0, WIDE)), counters, anchor


def scratch(K: int, D: int) -> tuple[F8, F8, F8, F8, F8]:
    """Base, ahead, windows, rows, w; D = 0: none."""
    W, n = WIDE * n_panels(D), AHEAD if D > 0 else 0
    base, ahead, windows = np.zeros((K, W)), np.zeros((K, n, W)), np.zeros((K, 3))
    return base, ahead, windows, aligned((AHEAD + 1, W)), np.zeros(ROOM)


def joined(a: F8, b: F8) -> F8:
    """One array after the other, on cache lines."""
    both = aligned((len(a) + len(b), *a.shape[1:]))
    both[: len(a)], both[len(a) :] = a, b
    return both


# -- products --------------------------------------------------------------------------------------


@part
def forget_ahead(delayed: Delayed) -> None:
    """No product made ahead holds any longer."""
    windows = delayed[6]
    for j in range(windows.shape[0]):
        windows[j, _STOP] = windows[j, _START]


@section
def _look_ahead(j: int, t: int, row: Row, delayed: Delayed) -> None:
    """ahead[j] <- B (x - mu0) for row t and those after it in the block; t < 0: for z alone."""
    X, z, known, used = row
    tiles, Z, counters, anchor, _, ahead, windows, rows, _ = delayed
    n = 1
    if t >= 0:
        n = min(AHEAD, X.shape[0] - t)
        if windows[j, _BUSY] > 0.0:  # it will fold before long
            n = min(n, max(3, Z.shape[2] - int(counters[j, factors.PENDING])))
        for r in range(n):
            for i in range(X.shape[1]):
                e = X[t + r, i] - anchor[j, MEAN0, i]
                rows[r, i] = e if e == e and used[i] > 0.0 else 0.0
            for i in range(X.shape[1], used.shape[0]):
                rows[r, i] = 0.0
    for i in range(used.shape[0] if t < 0 else 0):
        rows[0, i] = z[i] - anchor[j, MEAN0, i] if known[i] > 0.0 else 0.0
    products(tiles[j], rows, ahead[j], n)
    windows[j, _START], windows[j, _STOP], windows[j, _BUSY] = float(t), float(t + n), 0.0


@section
def project_far(j: int, t: int, row: Row, mu: F8, e: F8, delayed: Delayed) -> None:
    """e <- z - mu where z is known, else 0; base <- B e. t: its row of X, or -1. O(D) to O(D^2)."""
    _, z, known, used = row
    tiles, _, counters, anchor, base, ahead, windows, rows, _ = delayed
    if t < 0 or not windows[j, _START] <= t < windows[j, _STOP]:
        _look_ahead(j, t, row, delayed)
    made = ahead[j, t - int(windows[j, _START])]
    for i in range(base.shape[1]):
        base[j, i] = made[i] - anchor[j, MOVED, i]
    for i in range(mu.shape[1]):
        e[i] = z[i] - mu[j, i] if known[i] > 0.0 else 0.0
    if counters[j, factors.PENDING] == 0.0:
        return
    for i in range(mu.shape[1]):  # moved is that of all coordinates, e is of those that are known
        if known[i] == 0.0 and used[i] > 0.0:
            column(tiles[j], i, rows[AHEAD])
            for k in range(base.shape[1]):
                base[j, k] += rows[AHEAD, k] * (mu[j, i] - anchor[j, MEAN0, i])


@section
def reveal_far(j: int, i: int, e: float, delayed: Delayed) -> None:
    """Coordinate i becomes known: base follows. O(D)."""
    tiles, base, rows = delayed[0], delayed[4], delayed[7]
    column(tiles[j], i, rows[AHEAD])
    for k in range(base.shape[1]):
        base[j, k] += rows[AHEAD, k] * e


@section
def finish(j: int, f: F8, u: F8, delayed: Delayed) -> None:
    """u <- Lam f, where u = B f. O(ROOM D)."""
    Z, counters, w = delayed[1], delayed[2], delayed[8]
    factors.finish_product(Z[j], counters[j], f, w, u)


@part
def gradient(j: int, e: F8, s: F8, delayed: Delayed) -> None:
    """s <- Lam e, from base."""
    base = delayed[4]
    for i in range(base.shape[1]):
        s[i] = base[j, i]
    finish(j, e, s, delayed)


def _write_dot(L: Lanes, a: Value, b: Value, T: Value, out: Value) -> None:
    """out[0] <- a b: 8 lanes, each one chain, added by pairs."""
    total = L.variable()
    with L.loop(L.index(0), T) as i:
        here = L.times(i, WIDE)
        total.set(L.fma(L.load(L.at(a, here)), L.load(L.at(b, here)), total.get()))
    L.store_total(total.get(), out)


@emitted(_write_dot)
def _dot(a: F8, b: F8, T: int, out: F8) -> None:
    out[0] = (a[: WIDE * T] * b[: WIDE * T]).reshape(T, WIDE).sum(axis=0).sum()


@section
def distance_far(e: F8, s: F8, delayed: Delayed) -> float:
    """E' s. O(D)."""
    out = delayed[7][AHEAD]
    _dot(e, s, e.shape[0] // WIDE, out)
    return float(out[0])


@section
def element_far(j: int, i: int, k: int, delayed: Delayed) -> float:
    """Lam_ik. O(ROOM)."""
    tiles, Z, counters, _, _, _, _, _, _ = delayed
    low, high = min(i, k), max(i, k)
    J, I = low // WIDE, high // WIDE  # noqa: E741  # the letters of `symmetric`
    value = tiles[j, panel_at(J, Z.shape[1]) + I - J, low % WIDE, high % WIDE]
    for p in range(int(counters[j, factors.PENDING])):
        value -= Z[j, J, p, low % WIDE] * Z[j, I, p, high % WIDE]
    return float(value * counters[j, factors.SCALE])


# -- what changes a component ----------------------------------------------------------------------


@part
def is_full(j: int, delayed: Delayed) -> bool:
    """Whether two more factors, what an update may need, find no room."""
    return bool(delayed[2][j, factors.PENDING] + 2.0 > delayed[1].shape[2])


@part
def append(j: int, f: F8, size: float, delayed: Delayed) -> None:
    """Lam <- Lam - f f' size^2, which waits. O(D)."""
    _, Z, counters, anchor, _, _, windows, _, _ = delayed
    size /= math.sqrt(counters[j, factors.SCALE])
    factors.join(Z[j], counters[j], f, size)
    for i in range(f.shape[0]):
        value = f[i] * size
        anchor[j, DIAGONAL, i] -= value * value
    windows[j, _BUSY] = 1.0


@section
def row_far(j: int, i: int, out: F8, delayed: Delayed) -> None:
    """out <- row i of Lam. O(ROOM D)."""
    rows = delayed[7]
    for k in range(out.shape[0]):
        rows[0, k] = 0.0
    rows[0, i] = 1.0
    column(delayed[0][j], i, out)
    finish(j, rows[0], out, delayed)


@section
def anchor_here(j: int, mu: F8, delayed: Delayed) -> None:
    """Component j stands on its mean of now; there are no factors. O(ROOM D)."""
    tiles, Z, counters, anchor, _, _, windows, _, _ = delayed
    T = Z.shape[1]
    for i in range(mu.shape[1]):
        anchor[j, MEAN0, i], anchor[j, MOVED, i] = mu[j, i], 0.0
        anchor[j, DIAGONAL, i] = tiles[j, panel_at(i // WIDE, T), i % WIDE, i % WIDE]
    for i in range(T):
        for k in range(Z.shape[2]):
            for c in range(WIDE):
                Z[j, i, k, c] = 0.0
    counters[j, factors.PENDING], counters[j, factors.SCALE] = 0.0, 1.0
    windows[j, _STOP] = windows[j, _START]


@section
def fold(j: int, mu: F8, used: F8, delayed: Delayed) -> None:
    """B <- Lam, mu0 <- mu. O(ROOM D^2)."""
    tiles, Z, counters, _, _, _, _, _, _ = delayed
    T, D = Z.shape[1], used.shape[0]
    factors.fold(tiles[j], Z[j], counters[j], D)
    for i in range(D):
        if used[i] == 0.0:
            tiles[j, panel_at(i // WIDE, T), i % WIDE, i % WIDE] = 1.0
    anchor_here(j, mu, delayed)


@section
def set_diagonal(j: int, diagonal: F8, mu: F8, delayed: Delayed) -> None:
    """B <- a diagonal matrix (D,), mu0 <- mu. O(D^2)."""
    tiles, _, counters, _, _, _, _, _, _ = delayed
    for k in range(tiles.shape[1]):
        for r in range(WIDE):
            for c in range(WIDE):
                tiles[j, k, r, c] = 0.0
    for i in range(mu.shape[1]):
        set_element(j, i, diagonal[i], delayed)
    counters[j, SINCE] = 0.0
    anchor_here(j, mu, delayed)


@part
def set_element(j: int, i: int, value: float, delayed: Delayed) -> None:
    """B_ii <- value, of a component that has no factors."""
    delayed[0][j, panel_at(i // WIDE, delayed[1].shape[1]), i % WIDE, i % WIDE] = value
    delayed[3][j, DIAGONAL, i] = value


@section
def move(source: int, to: int, delayed: Delayed) -> None:
    """Component `to` becomes what `source` is. O(D^2)."""
    tiles, Z, counters, anchor, _, _, windows, _, _ = delayed
    for k in range(tiles.shape[1]):
        for r in range(WIDE):
            for c in range(WIDE):
                tiles[to, k, r, c] = tiles[source, k, r, c]
    for i in range(Z.shape[1]):
        for k in range(Z.shape[2]):
            for c in range(WIDE):
                Z[to, i, k, c] = Z[source, i, k, c]
    for k in range(anchor.shape[1]):
        for i in range(anchor.shape[2]):
            anchor[to, k, i] = anchor[source, k, i]
    for k in range(counters.shape[1]):
        counters[to, k] = counters[source, k]
    windows[to, _STOP] = windows[to, _START]


@section
def definite(j: int, G: F8, delayed: Delayed) -> float:
    """The log-determinant of B, NaN if it is not positive definite; G (D, D) scratch. O(D^3).

    Each row of the upper factor is subtracted from those below it: vectorises along them.
    """
    D, total = G.shape[0], 0.0
    for i in range(D):
        column(delayed[0][j], i, delayed[7][AHEAD])
        for k in range(i, D):
            G[i, k] = delayed[7][AHEAD, k]
    for k in range(D):
        value = G[k, k]
        if not 0.0 < value < math.inf:
            return math.nan
        total += math.log(value)
        for i in range(k + 1, D):
            share = G[k, i] / value
            for c in range(i, D):
                G[i, c] -= share * G[k, c]
    return total
