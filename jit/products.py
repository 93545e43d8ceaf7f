"""Products of a matrix and a vector: each entry one chain of additions in a fixed order.

No BLAS: the bits of an entry depend on neither the size nor the place of what stands around it.
"""

from streamlearn.jit._compile import F8, part


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
