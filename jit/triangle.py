"""The lower triangle of a small symmetric matrix, row by row: products and updates by lanes.

A (D, D) is kept as its rows up to the diagonal, one after the other: element (i, j), j <= i, stands
at i (i + 1) / 2 + j. Four rows are a panel, whose columns are met by fours, too; the last may have
less. LLVM makes of the same loops one element after the other, u in memory: a step of recursive
least squares in a bank, D = 9, took 129 ns so, 82 with these, to the same bits.
"""

from streamlearn.jit._compile import F8, part
from streamlearn.jit.lanes import Lanes, Value, emitted

FOUR = 4  # rows of a panel, lanes of a vector


# -- plain loops -----------------------------------------------------------------------------------


@part
def rows_product(A: F8, first: int, last: int, f: F8, u: F8) -> None:
    """What these rows of A give of u = A f, as rows and as columns of those before."""
    at = first * (first + 1) // 2
    for j in range(first, last):
        fj, total = f[j], 0.0
        for i in range(j):
            a = A[at + i]
            total += a * f[i]
            u[i] += a * fj
        u[j] = total + A[at + j] * fj
        at += j + 1


@part
def rows_update(
    A: F8, first: int, last: int, u: F8, root: float, before: float, after: float
) -> None:  # fmt: skip
    """These rows of A <- (before A - z z') after, z = root u."""
    at = first * (first + 1) // 2
    for i in range(first, last):
        zi = u[i] * root
        for j in range(i + 1):
            A[at + j] = (before * A[at + j] - zi * (u[j] * root)) * after
        at += i + 1


# -- the instructions ------------------------------------------------------------------------------


def _rows(L: Lanes, n: int, A: Value, g: Value) -> list[Value]:
    """Where the rows of panel g begin."""
    first = L.times(g, FOUR)
    places = [L.at(A, L.over(L.times(first, L.plus(first, 1)), 2))]
    for r in range(n - 1):
        places.append(L.at(places[r], L.plus(first, 1 + r)))
    return places


def _write_product(L: Lanes, n: int, A: Value, g: Value, f: Value, u: Value) -> None:
    """Panel g: what its n rows give as rows, and as columns of the panels before."""
    own = L.times(g, FOUR)
    rows, none = _rows(L, n, A, g), [L.zero()] * (FOUR - n)
    mine = [L.spread_from(L.at(L.at(f, own), r)) for r in range(n)]
    done = L.variable()
    with L.loop(L.index(0), g) as h:
        here = L.times(h, FOUR)
        tile = [L.load(L.at(row, here)) for row in rows]
        above = L.load(L.at(u, here))
        for r in range(n):
            above = L.add(above, L.multiply(tile[r], mine[r]))
        L.store(above, L.at(u, here))
        for k, column in enumerate(L.transposed(tile + none)):
            other = L.spread_from(L.at(L.at(f, here), k))
            done.set(L.add(done.get(), L.multiply(column, other)))
    lower = [L.load_first(L.at(rows[r], own), r + 1) for r in range(n)]
    total = done.get()
    for column, other in zip(L.mirrored(lower + none), mine, strict=False):
        total = L.add(total, L.multiply(column, other))
    L.store_first(total, L.at(u, own), n)


def _twin_product(n: int, A: F8, g: int, f: F8, u: F8) -> None:
    rows_product(A, FOUR * g, FOUR * g + n, f, u)


@emitted(lambda L, *given: _write_product(L, 1, *given), FOUR)
def _product_1(A: F8, g: int, f: F8, u: F8) -> None:
    _twin_product(1, A, g, f, u)


@emitted(lambda L, *given: _write_product(L, 2, *given), FOUR)
def _product_2(A: F8, g: int, f: F8, u: F8) -> None:
    _twin_product(2, A, g, f, u)


@emitted(lambda L, *given: _write_product(L, 3, *given), FOUR)
def _product_3(A: F8, g: int, f: F8, u: F8) -> None:
    _twin_product(3, A, g, f, u)


@emitted(lambda L, *given: _write_product(L, 4, *given), FOUR)
def _product_4(A: F8, g: int, f: F8, u: F8) -> None:
    _twin_product(4, A, g, f, u)


def _write_update(
    L: Lanes, n: int, A: Value, g: Value, u: Value, root: Value, before: Value, after: Value
) -> None:  # fmt: skip
    """Panel g, n rows <- (before rows - z z') after, z = root u."""
    own = L.times(g, FOUR)
    rows = _rows(L, n, A, g)
    b, a, c = L.spread(before), L.spread(after), L.spread(root)
    mine = [L.multiply(L.spread_from(L.at(L.at(u, own), r)), c) for r in range(n)]

    def changed(old: Value, r: int, others: Value) -> Value:
        return L.multiply(L.subtract(L.multiply(b, old), L.multiply(mine[r], others)), a)

    with L.loop(L.index(0), g) as h:
        here = L.times(h, FOUR)
        others = L.multiply(L.load(L.at(u, here)), c)
        for r in range(n):
            place = L.at(rows[r], here)
            L.store(changed(L.load(place), r, others), place)
    others = L.multiply(L.load_first(L.at(u, own), n), c)
    for r in range(n):
        place = L.at(rows[r], own)
        L.store_first(changed(L.load_first(place, r + 1), r, others), place, r + 1)


def _twin_update(
    n: int, A: F8, g: int, u: F8, root: float, before: float, after: float
) -> None:  # fmt: skip
    rows_update(A, FOUR * g, FOUR * g + n, u, root, before, after)


@emitted(lambda L, *given: _write_update(L, 1, *given), FOUR)
def _update_1(A: F8, g: int, u: F8, root: float, before: float, after: float) -> None:
    _twin_update(1, A, g, u, root, before, after)


@emitted(lambda L, *given: _write_update(L, 2, *given), FOUR)
def _update_2(A: F8, g: int, u: F8, root: float, before: float, after: float) -> None:
    _twin_update(2, A, g, u, root, before, after)


@emitted(lambda L, *given: _write_update(L, 3, *given), FOUR)
def _update_3(A: F8, g: int, u: F8, root: float, before: float, after: float) -> None:
    _twin_update(3, A, g, u, root, before, after)


@emitted(lambda L, *given: _write_update(L, 4, *given), FOUR)
def _update_4(A: F8, g: int, u: F8, root: float, before: float, after: float) -> None:
    _twin_update(4, A, g, u, root, before, after)


# -- what kernels call -----------------------------------------------------------------------------


@part
def product(A: F8, f: F8, u: F8) -> None:
    """u <- A f. A (>= D (D + 1) / 2,) begins with the triangle | f, u (D,). O(D^2).

    Element i of u is one chain over the columns in their order, from 0, each product rounded.
    """
    g, left = f.shape[0] // FOUR, f.shape[0] % FOUR
    for h in range(g):
        _product_4(A, h, f, u)
    if left == 1:
        _product_1(A, g, f, u)
    elif left == 2:
        _product_2(A, g, f, u)
    elif left == 3:
        _product_3(A, g, f, u)


@part
def update(A: F8, u: F8, root: float, before: float, after: float) -> None:
    """A <- (before A - z z') after, z = root u (D,); what stands behind is untouched. O(D^2)."""
    g, left = u.shape[0] // FOUR, u.shape[0] % FOUR
    for h in range(g):
        _update_4(A, h, u, root, before, after)
    if left == 1:
        _update_1(A, g, u, root, before, after)
    elif left == 2:
        _update_2(A, g, u, root, before, after)
    elif left == 3:
        _update_3(A, g, u, root, before, after)
