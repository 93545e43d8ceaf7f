"""Ensembles of Kalman heads on the device: a block of threads an expert, all in one launch.

Every expert walks the same rows with weights of its own (bagging draws them; 0 passes a row over),
row by row as `kalman.walk_standard` does, J experts at a time. Features are given once for all, or
an expert each, for gaps are filled with means that it has learnt with its own weights.

    rows  = F (1 or J, n, D) | codes (J, n) int64: EMPTY where an expert does not learn |
        y (n, 1 or K) | weight (J, n) | mode (n,) uint8
    state = W (J, K, D) | P (J, D, D) | outputs (J, 3, K) | s (J, N_SCALARS)
    fixed = settings p (J, N_SETTINGS) | work (J, WORK, K)
    scratch = u and z (J, 2, D) | step (J, 1, ERRORS + 2 K)
    out   = answer (J, n, K) | side (J, n, 1 or K)
"""

from typing import Any

import numpy as np

from streamlearn.jit import kalman, lift
from streamlearn.jit._compile import F8
from streamlearn.jit.cuda._compile import cuda, kernel, part
from streamlearn.jit.cuda.delayed import ERRORS, FLOOR, G2, ROOT, SHRINK, settle_kalman
from streamlearn.jit.cuda.products import THREADS


@part
def ask(f: F8, W: F8, P: F8, u: F8, work: F8, sums: F8) -> None:
    """u <- P f; W f in work; f'P f and f'f in sums. All threads of a block, O(D^2 + K D)."""
    D, K = f.shape[0], W.shape[0]
    for i in range(cuda.threadIdx.x, D, THREADS):
        total = 0.0
        for j in range(D):
            total = cuda.fma(P[j, i], f[j], total)
        u[i] = total
    cuda.syncthreads()
    for q in range(cuda.threadIdx.x, K + 2, THREADS):
        total = 0.0
        for i in range(D):
            if q < K:
                total = cuda.fma(W[q, i], f[i], total)
            else:
                total = cuda.fma(u[i] if q == K else f[i], f[i], total)
        if q < K:
            work[kalman.NU_ROW, q] = total
        else:
            sums[q - K] = total
    cuda.syncthreads()


@part
def condition(f: F8, step: F8, W: F8, P: F8, u: F8, z: F8) -> None:
    """The time update and the lesson of a row. All threads of a block, O(D^2 + K D)."""
    D, K = f.shape[0], W.shape[0]
    for i in range(cuda.threadIdx.x, D, THREADS):
        z[i] = step[ROOT] * cuda.fma(step[G2], u[i], step[FLOOR] * f[i])
        for k in range(K):
            W[k, i] = cuda.fma(step[ERRORS + k], z[i], step[SHRINK] * W[k, i])
    cuda.syncthreads()
    for i in range(cuda.threadIdx.x, D, THREADS):
        for j in range(D):
            P[j, i] = cuda.fma(-z[j], z[i], step[G2] * P[j, i])
        P[i, i] += step[FLOOR]
    cuda.syncthreads()


def _walker(targets: bool | None) -> Any:
    """The kernel for classes (None) or targets (True)."""

    @kernel
    def walk(rows: Any, state: Any, fixed: Any, scratch: Any, out: Any) -> None:
        F, codes, y, weight, mode = rows
        W, P, outputs, s = state
        sums = cuda.shared.array(2, np.float64)
        for e in range(cuda.blockIdx.x, W.shape[0], cuda.gridDim.x):
            u, z, step = scratch[0][e, 0], scratch[0][e, 1], scratch[1][e]
            f, p = F[e % F.shape[0]], fixed[0][e]
            own = f, codes[e], y, weight[e], mode
            mine = W[e], P[e], outputs[e], s[e]
            for t in range(f.shape[0]):
                ask(f[t], W[e], P[e], u, fixed[1][e], sums)
                if cuda.threadIdx.x == 0:
                    settle_kalman(
                        t, sums[0], sums[1], 0, own, mine, (f, f, f, step),
                        (p, fixed[1][e], p), (out[0][e], out[1][e]), targets,
                    )  # fmt: skip
                cuda.syncthreads()
                if codes[e, t] >= 0 or codes[e, t] == lift.TARGET:
                    condition(f[t], step[0], W[e], P[e], u, z)
                    if cuda.threadIdx.x == 0:
                        kalman.guard(P[e], s[e], p[kalman.S_W])
                    cuda.syncthreads()

    return walk


walk_classes = _walker(None)
walk_targets = _walker(True)
