"""Symmetric matrices by one triangle, in tiles: products and rank-one updates row by row.

A (D, D) is kept as the tiles of its upper triangle, T (T + 1) / 2 of them, T = ceil(D / 8): tile
(J, I), J <= I, holds rows 8 J to 8 J + 7 and columns 8 I to 8 I + 7 as (8, 8), and a panel, the
tiles of one J, follows the next. Tiles on the diagonal hold both halves; what is padded is 0 and
stays 0. Each tile that is loaded serves as rows and as columns.

u = A x, element i of panel I: from 0, one fused multiply-add for every row j of the panels before
and of its own, in their order; then the sum over the tiles to the right: 8 lanes, each one chain
over these, added by pairs. So its bits depend on neither the rows beside it nor their number.
"""

import numpy as np

from streamlearn.jit._compile import F8, part, section
from streamlearn.jit.lanes import WIDE, Lanes, Value, emitted

_TILE = WIDE * WIDE


# -- storage ---------------------------------------------------------------------------------------


def aligned(shape: tuple[int, ...]) -> F8:
    """Zeros that begin where a cache line does: no vector then lies across two."""
    size = int(np.prod(shape))
    raw = np.zeros(size + WIDE)
    start = (-raw.ctypes.data // 8) % WIDE
    return raw[start : start + size].reshape(shape)


def n_panels(D: int) -> int:
    """T, the panels of a matrix of D rows."""
    return -(-D // WIDE)


def packed(A: F8) -> F8:
    """The tiles (T (T + 1) / 2, 8, 8) of a symmetric matrix (D, D), of whose lower half nothing is
    read outside the diagonal tiles.
    """
    D, T = A.shape[0], n_panels(A.shape[0])
    square = np.zeros((T * WIDE, T * WIDE))
    square[:D, :D] = A
    J, I = np.triu_indices(T)  # noqa: E741  # the letters of the docstring
    tiles = aligned((J.size, WIDE, WIDE))
    tiles[:] = square.reshape(T, WIDE, T, WIDE).transpose(0, 2, 1, 3)[J, I]
    return tiles


def unpacked(tiles: F8, D: int) -> F8:
    """The symmetric matrix (D, D) that these are the tiles of."""
    T = n_panels(D)
    J, I = np.triu_indices(T)  # noqa: E741
    square = np.empty((T, T, WIDE, WIDE))
    square[I, J] = tiles.transpose(0, 2, 1)
    square[J, I] = tiles
    A = square.transpose(0, 2, 1, 3).reshape(T * WIDE, T * WIDE)
    return np.ascontiguousarray(A[:D, :D])


@part
def panel_at(J: int, T: int) -> int:
    """The tile that panel J begins with, (J, J)."""
    return J * T - J * (J - 1) // 2


# -- the instructions ------------------------------------------------------------------------------


def _write_panel(
    L: Lanes, n: int, tiles: Value, J: Value, T: Value, X: Value, U: Value, row: Value
) -> None:
    """Panel J for n rows at once: the tile on the diagonal, then those to the right."""
    own = L.times(J, WIDE)
    x = [L.at(X, L.times(L.times(L.plus(row, r), T), WIDE)) for r in range(n)]
    u = [L.at(U, L.times(L.times(L.plus(row, r), T), WIDE)) for r in range(n)]
    spread = [[L.spread_from(L.at(L.at(x[r], own), j)) for j in range(WIDE)] for r in range(n)]
    done = [L.load(L.at(u[r], own)) for r in range(n)]
    for j in range(WIDE):
        p = L.load(L.at(tiles, j * WIDE))
        done = [L.fma(p, spread[r][j], done[r]) for r in range(n)]
    total = [[L.variable() for _ in range(WIDE)] for _ in range(n)]
    with L.loop(L.plus(J, 1), T) as i:
        tile = L.at(tiles, L.times(L.minus_index(i, J), _TILE))
        here = L.times(i, WIDE)
        xs, us = [L.load(L.at(v, here)) for v in x], [L.load(L.at(v, here)) for v in u]
        for j in range(WIDE):
            p = L.load(L.at(tile, j * WIDE))
            for r in range(n):  # spread anew: what was spread above would not stay in registers
                total[r][j].set(L.fma(p, xs[r], total[r][j].get()))
                again = L.spread_from(L.at(L.at(x[r], own), j)) if n > 1 else spread[r][j]
                us[r] = L.fma(p, again, us[r])
        for r in range(n):
            L.store(us[r], L.at(u[r], here))
    for r in range(n):
        L.store(L.add(done[r], L.totals([v.get() for v in total[r]])), L.at(u[r], own))


def _twin_panel(n: int, tiles: F8, J: int, T: int, X: F8, U: F8, row: int) -> None:
    for r in range(row, row + n):
        x, u = X[r].reshape(T, WIDE), U[r].reshape(T, WIDE)
        right = tiles[1 : T - J]
        totals = (right * x[J + 1 :, None]).sum(axis=(0, 2))
        for j in range(WIDE):
            u[J] += tiles[0, j] * x[J, j]
            u[J + 1 :] += right[:, j] * x[J, j]
        u[J] += totals


@emitted(lambda L, *given: _write_panel(L, 1, *given))
def _panel_1(tiles: F8, J: int, T: int, X: F8, U: F8, row: int) -> None:
    _twin_panel(1, tiles, J, T, X, U, row)


@emitted(lambda L, *given: _write_panel(L, 3, *given))
def _panel_3(tiles: F8, J: int, T: int, X: F8, U: F8, row: int) -> None:
    _twin_panel(3, tiles, J, T, X, U, row)


def _write_fused(L: Lanes, tiles: Value, J: Value, T: Value, z: Value, x: Value, u: Value) -> None:
    """Panel J: tiles <- tiles - z z', and what they then give of the product."""
    own = L.times(J, WIDE)
    sx = [L.spread_from(L.at(L.at(x, own), j)) for j in range(WIDE)]
    sz = [L.minus(L.spread_from(L.at(L.at(z, own), j))) for j in range(WIDE)]
    done, zs = L.load(L.at(u, own)), L.load(L.at(z, own))
    for j in range(WIDE):
        p = L.fma(sz[j], zs, L.load(L.at(tiles, j * WIDE)))
        L.store(p, L.at(tiles, j * WIDE))
        done = L.fma(p, sx[j], done)
    total = [L.variable() for _ in range(WIDE)]
    with L.loop(L.plus(J, 1), T) as i:
        tile = L.at(tiles, L.times(L.minus_index(i, J), _TILE))
        here = L.times(i, WIDE)
        xs, us, zs = L.load(L.at(x, here)), L.load(L.at(u, here)), L.load(L.at(z, here))
        for j in range(WIDE):
            p = L.fma(sz[j], zs, L.load(L.at(tile, j * WIDE)))
            L.store(p, L.at(tile, j * WIDE))
            total[j].set(L.fma(p, xs, total[j].get()))
            us = L.fma(p, sx[j], us)
        L.store(us, L.at(u, here))
    L.store(L.add(done, L.totals([v.get() for v in total])), L.at(u, own))


@emitted(_write_fused)
def _panel_fused(tiles: F8, J: int, T: int, z: F8, x: F8, u: F8) -> None:
    for i in range(J, T):
        tiles[i - J] -= np.outer(z[WIDE * J : WIDE * (J + 1)], z[WIDE * i : WIDE * (i + 1)])
    _twin_panel(1, tiles, J, T, x.reshape(1, -1), u.reshape(1, -1), 0)


# -- what kernels call -----------------------------------------------------------------------------


@section
def products(tiles: F8, X: F8, U: F8, n: int) -> None:
    """U[r] <- A X[r] for the first n rows, which share each panel while it is near. O(n D^2).

    tiles (T (T + 1) / 2, 8, 8) | X, U (>= n, 8 T), X with 0 where it is padded.
    """
    T = X.shape[1] // WIDE
    for r in range(n):
        for i in range(X.shape[1]):
            U[r, i] = 0.0
    for J in range(T):
        panel = tiles[panel_at(J, T) :]
        r = 0
        while r + 2 < n:
            _panel_3(panel, J, T, X, U, r)
            r += 3
        while r < n:
            _panel_1(panel, J, T, X, U, r)
            r += 1


@part
def fused_product(tiles: F8, z: F8, x: F8, u: F8) -> None:
    """A <- A - z z', then u <- A x, in one pass. O(D^2).

    z, x, u (8 T,), padded with 0. The bits of u are those of `products`.
    """
    T = x.shape[0] // WIDE
    for i in range(x.shape[0]):
        u[i] = 0.0
    for J in range(T):
        _panel_fused(tiles[panel_at(J, T) :], J, T, z, x, u)


@section
def column(tiles: F8, i: int, u: F8) -> None:
    """u (8 T,) <- column i of A. O(D)."""
    T = u.shape[0] // WIDE
    J, j = i // WIDE, i % WIDE
    for I in range(T):  # noqa: E741  # the letter of the docstring
        tile = tiles[panel_at(min(I, J), T) + abs(I - J)]
        for k in range(WIDE):
            u[WIDE * I + k] = tile[k, j] if I < J else tile[j, k]
