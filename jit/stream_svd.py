"""Truncated singular value decomposition of a stream of rows, right side only.

Letters of Deng et al. (2024), Fast updating truncated SVD for representation learning with sparse
matrices: V (d, k) right singular vectors, sv (k,) singular values, of the rows so far, an older row
fading by gam a row. V is kept as it is, not as a product of two factors: for dense rows the product
costs d k^2 either way.
"""

import math

import numpy as np

from streamlearn.jit._compile import F8, kernel, part

_SWEEPS = 30
_SMALL = 1e-7  # a residual below this share of a row is none: its direction would be rounding


@part
def jacobi(Q: F8, G: F8) -> None:
    """One-sided Jacobi: Q G has orthogonal columns, G orthogonal, columns by falling length.

    Q (n, n) in/out, columns become left vectors times singular values | G (n, n) out.
    """
    n = Q.shape[0]
    for i in range(n):
        for j in range(n):
            G[i, j] = 1.0 if i == j else 0.0
    for _ in range(_SWEEPS):
        turned = 0
        for p in range(n - 1):
            for q in range(p + 1, n):
                a, b, c = 0.0, 0.0, 0.0
                for i in range(n):
                    a += Q[i, p] * Q[i, p]
                    b += Q[i, q] * Q[i, q]
                    c += Q[i, p] * Q[i, q]
                if a < b or abs(c) > 1e-15 * math.sqrt(a * b):
                    turned += 1
                    t = 0.5 * math.atan2(2.0 * c, a - b)
                    cs, sn = math.cos(t), math.sin(t)
                    for i in range(n):
                        x, y = Q[i, p], Q[i, q]
                        Q[i, p], Q[i, q] = cs * x + sn * y, cs * y - sn * x
                        x, y = G[i, p], G[i, q]
                        G[i, p], G[i, q] = cs * x + sn * y, cs * y - sn * x
        if turned == 0:
            break


@part
def project(x: F8, V: F8, c: F8) -> float:
    """c <- V^T x; the squared length of what V does not hold of x. x (d,) | V (d, k) | c (k,)."""
    total = 0.0
    c[:] = 0.0
    for i in range(x.shape[0]):
        total += x[i] * x[i]
        for j in range(c.shape[0]):
            c[j] += V[i, j] * x[i]
    rest = 0.0
    for i in range(x.shape[0]):
        e = x[i]
        for j in range(c.shape[0]):
            e -= V[i, j] * c[j]
        rest += e * e
    return min(rest, total)


@part
def svd_learn(x: F8, V: F8, sv: F8, gam: float, work: tuple[F8, F8, F8, F8]) -> None:
    """Take one row in. x (d,) | V (d, k), sv (k,) in/out.

    work = c (k,), Q, G (k + 1, k + 1), v (k + 1,) scratch. Of [[diag(gam sv), 0], [c, rho]] =
    U S G^T the k first columns of [V, e] G are the new V, where e is the direction of the residual,
    of length rho.
    """
    c, Q, G, v = work
    d, k = V.shape
    rho = math.sqrt(project(x, V, c))
    total = 0.0
    for i in range(d):
        total += x[i] * x[i]
    new = rho > _SMALL * math.sqrt(total)
    Q[:] = 0.0
    for j in range(k):
        Q[j, j] = gam * sv[j]
        Q[k, j] = c[j]
    Q[k, k] = rho if new else 0.0
    jacobi(Q, G)
    for j in range(k):
        a = 0.0
        for i in range(k + 1):
            a += Q[i, j] * Q[i, j]
        sv[j] = math.sqrt(a)
    for i in range(d):
        e = x[i]
        for j in range(k):
            e -= V[i, j] * c[j]
        v[k] = e / rho if new else 0.0
        for j in range(k):
            v[j] = V[i, j]
        for j in range(k):
            a = 0.0
            for m in range(k + 1):
                a += v[m] * G[m, j]
            V[i, j] = a


@kernel
def svd_walk(X: F8, V: F8, sv: F8, gam: float) -> None:
    """Take rows X (n, d) in. V (d, k), sv (k,) in/out, zeros at the start. O(d k^2 + k^3) a row."""
    k = sv.shape[0]
    work = (np.empty(k), np.empty((k + 1, k + 1)), np.empty((k + 1, k + 1)), np.empty(k + 1))
    for t in range(X.shape[0]):
        svd_learn(X[t], V, sv, gam, work)


@kernel
def novelties(X: F8, V: F8, parts: F8, out: F8) -> None:
    """Share of each row X (n, d) that the subspace V (d, k) does not hold: out (n,) in [0, 1].

    parts (d,) in/out: squared residuals by feature are added. O(n d k).
    """
    c = np.empty(V.shape[1])
    for t in range(X.shape[0]):
        rest = project(X[t], V, c)
        total = 0.0
        for i in range(X.shape[1]):
            total += X[t, i] * X[t, i]
            e = X[t, i]
            for j in range(c.shape[0]):
                e -= V[i, j] * c[j]
            parts[i] += e * e
        out[t] = math.sqrt(rest / total) if total > 0.0 else 0.0
