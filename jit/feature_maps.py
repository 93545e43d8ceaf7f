"""Fourier features of a Gaussian kernel, and the distance of two means of them (MMD).

q = 2 m features: cosines and sines of m random projections, divided by sqrt(m), so that the squared
distance of two means is the squared maximum mean discrepancy for the kernel exp(-|x - y|^2 / 2).
"""

import math

import numpy as np

from streamlearn.jit._compile import F8, kernel
from streamlearn.jit.feature_drift import block_rows
from streamlearn.jit.monte_carlo import scrambled

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # as in `counter`
_FAR = 8.0  # a standardised value is cut there: further away is just as far


@kernel
def fourier_features(X: F8, centre: F8, scale: F8, W: F8, out: F8) -> None:
    """out (n, 2 m) of rows X (n, >= d) | centre, scale (d,) | W (d, m). A missing value is 0.

    O(n d m), allocates m numbers.
    """
    d, m = W.shape
    z = np.empty(m)
    size = 1.0 / math.sqrt(float(m))
    for t in range(X.shape[0]):
        z[:] = 0.0
        for i in range(d):
            v = (X[t, i] - centre[i]) / scale[i]
            if v == v:
                v = min(max(v, -_FAR), _FAR)
                for k in range(m):
                    z[k] += W[i, k] * v
        for k in range(m):
            out[t, k] = size * math.cos(z[k])
            out[t, m + k] = size * math.sin(z[k])


@kernel
def squared_gap(rows: F8, mean: F8) -> float:
    """|mean of rows - mean|^2. rows (n, q) | mean (q,). O(n q)."""
    total = np.zeros(mean.shape[0])
    for t in range(rows.shape[0]):
        for k in range(total.shape[0]):
            total[k] += rows[t, k]
    gap = 0.0
    for k in range(total.shape[0]):
        e = total[k] / rows.shape[0] - mean[k]
        gap += e * e
    return gap


@kernel
def gap_bootstrap(
    phi: F8, mean: F8, sizes: tuple[int, int, int], start: np.uint64, out: F8
) -> None:
    """w |gap|^2 at each test of streams drawn from the reference itself, in blocks of rows.

    phi (r, q) of its rows, mean (q,) | sizes = w, rows between tests, rows of a block | out
    (chains, tests).
    """
    w, every, length = sizes
    chains, K = out.shape
    rows = np.empty(w + (K - 1) * every, dtype=np.int64)
    total = np.empty(mean.shape[0])
    for c in range(chains):
        block_rows(scrambled(start + _GOLDEN * np.uint64(c + 1)), phi.shape[0], length, rows)
        total[:] = 0.0
        for t in range(w - every):
            for i in range(total.shape[0]):
                total[i] += phi[rows[t], i]
        for k in range(K):
            for t in range(w + (k - 1) * every, w + k * every):
                for i in range(total.shape[0]):
                    total[i] += phi[rows[t], i]
                if k > 0:
                    for i in range(total.shape[0]):
                        total[i] -= phi[rows[t - w], i]
            gap = 0.0
            for i in range(total.shape[0]):
                e = total[i] / w - mean[i]
                gap += e * e
            out[c, k] = w * gap
