"""Products of a matrix and a vector: each entry one chain of additions in a fixed order.

No BLAS: the bits of an entry depend on neither the size nor the place of what stands around it.
"""

from streamlearn.jit._compile import F8, part
from streamlearn.jit.lanes import WIDE, Lanes, Value, emitted

_CHAINS = 4  # vectors of partial sums in `lane_products`: what hides an addition's latency


@part
def symmetric_product(A: F8, f: F8, u: F8) -> None:
    """u <- A f. Row j of a symmetric A is its column j: vectorises across i, each u one chain."""
    D = f.shape[0]
    for i in range(D):
        u[i] = A[0, i] * f[0]
    j = 1
    while j + 3 < D:
        f0, f1, f2, f3 = f[j], f[j + 1], f[j + 2], f[j + 3]
        for i in range(D):
            total = u[i] + A[j, i] * f0
            total += A[j + 1, i] * f1
            total += A[j + 2, i] * f2
            u[i] = total + A[j + 3, i] * f3
        j += 4
    while j < D:
        for i in range(D):
            u[i] += A[j, i] * f[j]
        j += 1


@part
def row_products(M: F8, x: F8, out: F8) -> None:
    """out <- M x, four rows at a time; each entry is one chain in order of the columns."""
    n = M.shape[0]
    i = 0
    while i + 3 < n:
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        for j in range(x.shape[0]):
            s0 += M[i, j] * x[j]
            s1 += M[i + 1, j] * x[j]
            s2 += M[i + 2, j] * x[j]
            s3 += M[i + 3, j] * x[j]
        out[i], out[i + 1], out[i + 2], out[i + 3] = s0, s1, s2, s3
        i += 4
    while i < n:
        total = 0.0
        for j in range(x.shape[0]):
            total += M[i, j] * x[j]
        out[i] = total
        i += 1


def _write_row(L: Lanes, M: Value, start: Value, x: Value, n: Value, out: Value, i: Value) -> None:
    """Entry i of out <- the first n chunks of 8 of the row that starts there, times x."""
    total = [L.variable() for _ in range(_CHAINS)]
    row = L.at(M, start)
    with L.loop(L.index(0), L.over(n, _CHAINS)) as chunk:
        here = L.times(chunk, _CHAINS * WIDE)
        for c in range(_CHAINS):
            m = L.load(L.at(L.at(row, here), c * WIDE))
            total[c].set(L.fma(m, L.load(L.at(L.at(x, here), c * WIDE)), total[c].get()))
    with L.loop(L.times(L.over(n, _CHAINS), _CHAINS), n) as chunk:
        here = L.times(chunk, WIDE)
        total[0].set(L.fma(L.load(L.at(row, here)), L.load(L.at(x, here)), total[0].get()))
    pairs = [L.add(total[c].get(), total[c + 1].get()) for c in range(0, _CHAINS, 2)]
    L.store_total(L.add(*pairs), L.at(out, i))


@emitted(_write_row)
def _row(M: F8, start: int, x: F8, n: int, out: F8, i: int) -> None:
    out[i] = float((M.reshape(-1)[start : start + WIDE * n] * x[: WIDE * n]).sum())


@part
def lane_products(M: F8, x: F8, out: F8) -> None:
    """out <- M x by 32 chains an entry, added by pairs: for long rows. M (K, D), x (>= D,)."""
    D = M.shape[1]
    n = D // WIDE
    for i in range(M.shape[0]):
        _row(M, i * D, x, n, out, i)
        for j in range(n * WIDE, D):
            out[i] += M[i, j] * x[j]
