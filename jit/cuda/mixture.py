"""Gaussian mixtures on the device, for wide vectors: every component learns from every row.

Letters and steps as in `jit.mixture`, mode "exact": K components, at most MAX_K, none of which is
created or deleted here; x is known in full. A row is scored, -log p(x), and then learnt: with
e = x - mu, s = Lam e, d2 = e's, posterior p, sp <- rho sp + p, w = p / sp, mu <- mu + w e,
Lam <- a Lam - z z', a = 1 / (1 - w), z = s sqrt(a w / (1 + w d2)). A row that is new to all
(d2 >= chi) teaches the nearest alone. All of a block in one launch, in two ways:

`walk_rows` takes row by row: one pass over all Lam applies the update of the row before and
multiplies by the e of this one, so that an element is read and written once a row.

`walk_delayed` leaves Lam and mu as they were at an anchor for SLOTS rows. With y_r = x_r - mu of
the anchor, e of row t is sum_s b_s y_s, and all that is needed of Lam is x_sr = y_s' Lam y_r, which
begins as a product of all rows with the anchor's Lam and goes along as x_sr <- a x_sr - (z'y_s)
(z'y_r). Full slots are folded. What is pending at the end of a launch are its rows: the next launch
begins with them again, from the anchor, and so comes to the same bits however a stream is cut.

All float64, C-contiguous:
    rows    = X (n, D) | weight (n,)
    state   = mu (K, D) | Lam (K, D, D) | comp (2, K): log |C|, sp | p (N_SETTINGS,)
    scratch of walk_rows = e (K, D) | s (2, K, D) | d2 (2, K) | step (K, 3)
    scratch of walk_delayed = V, Z (K, SLOTS, D) | x, B, C (K, SLOTS, SLOTS) | mean (K, SLOTS + 2) |
        steps (K, SLOTS, 2) | d2 (2, K) | now (2, K)
    score (n,)
"""

import math
from typing import Any

import numpy as np

from streamlearn.jit._compile import F8
from streamlearn.jit.cuda._compile import SIMULATED, cuda, kernel, part
from streamlearn.jit.cuda.delayed import condense
from streamlearn.jit.cuda.products import THREADS, product, tiles

SLOTS = 3 if SIMULATED else 64
MAX_K = 4 if SIMULATED else 256
ROWS = 2 if SIMULATED else 8  # of a Lam that a block of walk_rows takes at once
CHI, RHO, N_SETTINGS = range(3)  # places in p
LOGDET, SP = range(2)  # rows of comp
_GAIN, _MULTIPLE, _ROOT = range(3)  # columns of a step
_LEAST = 1e-12  # a posterior below it teaches nothing
_LOG_2PI = math.log(2.0 * math.pi)


@part
def posterior(d2: F8, comp: F8, p: F8, D: int, into: F8) -> Any:
    """into[:K] <- posteriors of the components; -log p(x). All threads of a block. O(K)."""
    total = cuda.shared.array(2, np.float64)
    K = d2.shape[0]
    cuda.syncthreads()
    for j in range(cuda.threadIdx.x, K, THREADS):
        into[j] = math.log(comp[SP, j]) - 0.5 * (comp[LOGDET, j] + d2[j])
    cuda.syncthreads()
    top, best, mass = into[0], 0, 0.0
    for j in range(K):
        top = max(top, into[j])
        best = j if d2[j] < d2[best] else best
        mass += comp[SP, j]
    cuda.syncthreads()
    for j in range(cuda.threadIdx.x, K, THREADS):
        into[j] = math.exp(into[j] - top)
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        total[0] = 0.0
        for j in range(K):
            total[0] += into[j]
    cuda.syncthreads()
    forced = d2[best] >= p[CHI]
    for j in range(cuda.threadIdx.x, K, THREADS):
        into[j] = (1.0 if j == best else 0.0) if forced else into[j] / total[0]
    cuda.syncthreads()
    return math.log(mass) + 0.5 * _LOG_2PI * D - top - math.log(total[0])


@part
def settle(j: int, D: int, d2: float, share: float, comp: F8, p: F8) -> tuple[float, float, float]:
    """sp and log |C| of component j after a row of which it has this share; w, a and root."""
    comp[SP, j] *= p[RHO]
    if share < _LEAST:
        return 0.0, 1.0, 0.0
    comp[SP, j] += share
    w = share / comp[SP, j]
    q = 1.0 + w * d2
    comp[LOGDET, j] += D * math.log1p(-w) + math.log(q)
    return w, 1.0 / (1.0 - w), math.sqrt(w / (q * (1.0 - w)))


# -- row by row ------------------------------------------------------------------------------------


@part
def add_up(sums: F8, lanes: F8, count: int) -> None:
    """sums[:count] <- over all threads of a block, in a fixed tree; lanes in shared memory."""
    own = cuda.threadIdx.x
    for r in range(sums.shape[0]):  # of constant length, so that sums stay in registers
        if r < count:
            lanes[r, own] = sums[r]
    half = THREADS // 2
    while half > 0:
        cuda.syncthreads()
        if own < half:
            for r in range(count):
                lanes[r, own] += lanes[r, own + half]
        half //= 2
    cuda.syncthreads()
    for r in range(sums.shape[0]):
        if r < count:
            sums[r] = lanes[r, 0]
    cuda.syncthreads()


@part
def sweep(j: int, first: int, L: F8, e: F8, before: F8, after: F8, step: F8) -> None:
    """ROWS rows of one Lam: the update that waits, and s = Lam e. One block of threads."""
    lanes = cuda.shared.array((ROWS, THREADS), np.float64)
    sums = cuda.local.array(ROWS, np.float64)
    D, a, root = e.shape[0], step[_MULTIPLE], step[_ROOT]
    count = min(ROWS, D - first)
    for r in range(ROWS):
        sums[r] = 0.0
    for k in range(cuda.threadIdx.x, D, THREADS):
        z, x = root * before[k], e[k]
        for r in range(ROWS):
            if r < count:
                value = L[first + r, k]
                if root != 0.0:
                    value = cuda.fma(-(root * before[first + r]), z, a * value)
                    L[first + r, k] = value
                sums[r] = cuda.fma(value, x, sums[r])
    add_up(sums, lanes, count)
    if cuda.threadIdx.x == 0:
        for r in range(ROWS):
            if r < count:
                after[first + r] = sums[r]


@kernel
def walk_rows(rows: Any, state: Any, scratch: Any, score: F8) -> None:
    """Row by row: the update that waits and the next product in one pass over all Lam."""
    X, weight = rows
    mu, Lam, comp, p = state
    e, s, d2, step = scratch
    lanes = cuda.shared.array((1, THREADS), np.float64)
    shares = cuda.shared.array(MAX_K, np.float64)
    sums = cuda.local.array(1, np.float64)
    (K, D), n, grid = mu.shape, X.shape[0], cuda.cg.this_grid()
    panels = (D + ROWS - 1) // ROWS
    for t in range(n + 1):  # the last sweep applies what waits
        for i in range(cuda.grid(1), K * D, cuda.gridsize(1)):
            j, k = i // D, i % D
            if t > 0:
                mu[j, k] += step[j, _GAIN] * e[j, k]
            e[j, k] = X[t, k] - mu[j, k] if t < n else 0.0
        grid.sync()
        now, old = t % 2, 1 - t % 2
        for panel in range(cuda.blockIdx.x, K * panels, cuda.gridDim.x):
            j = panel // panels
            sweep(j, panel % panels * ROWS, Lam[j], e[j], s[old, j], s[now, j], step[j])
        grid.sync()
        for j in range(cuda.blockIdx.x, K if t < n else 0, cuda.gridDim.x):
            sums[0] = 0.0
            for k in range(cuda.threadIdx.x, D, THREADS):
                sums[0] = cuda.fma(e[j, k], s[now, j, k], sums[0])
            add_up(sums, lanes, 1)
            if cuda.threadIdx.x == 0:
                d2[0, j] = max(sums[0], 0.0)
        grid.sync()
        if cuda.blockIdx.x == 0 and t < n:
            said = posterior(d2[0], comp, p, D, shares)
            for j in range(cuda.threadIdx.x, K, THREADS):
                w, a, root = settle(j, D, d2[0, j], weight[t] * shares[j], comp, p)
                step[j, _GAIN], step[j, _MULTIPLE], step[j, _ROOT] = w, a, root
            if cuda.threadIdx.x == 0:
                score[t] = said
        grid.sync()


# -- delayed ---------------------------------------------------------------------------------------


@part
def distance(t: int, n: int, x: F8, mean: F8, B: F8, C: F8) -> float:
    """b of row t into B[t], z'y_r / root into C[t]; d2 = b'(x b). One block of threads, O(n)."""
    for r in range(cuda.threadIdx.x, n, THREADS):
        B[t, r] = (1.0 if r == t else 0.0) - mean[r]
    cuda.syncthreads()
    for r in range(cuda.threadIdx.x, n, THREADS):
        total = 0.0
        for s in range(n):
            total = cuda.fma(B[t, s], x[s, r], total)
        C[t, r] = total
    cuda.syncthreads()
    d2 = 0.0
    for r in range(n):
        d2 = cuda.fma(B[t, r], C[t, r], d2)
    return max(d2, 0.0)


@part
def learn(t: int, n: int, w: float, a: float, root: float, x: F8, mean: F8, B: F8, C: F8) -> None:
    """A component takes row t: x_sr, the mean, and z in terms of y and of Lam y. O(n) a thread."""
    for r in range(cuda.threadIdx.x, n, THREADS):
        C[t, r] *= root
    cuda.syncthreads()
    for r in range(cuda.threadIdx.x, n, THREADS):
        mean[r] += w * B[t, r]
        for s in range(n):
            x[s, r] = cuda.fma(-C[t, s], C[t, r], a * x[s, r])
    cuda.syncthreads()
    for r in range(cuda.threadIdx.x, n, THREADS):
        B[t, r] *= root
    cuda.syncthreads()


@part
def unfold(i: int, n: int, X: F8, mu: F8, V: F8, Z: F8, mean: F8, B: F8, C: F8, steps: F8) -> None:
    """Coordinate i of all z, from that of Lam y, and of mu. One thread, O(n^2)."""
    for t in range(n):
        z = 0.0
        for s in range(n):
            z = cuda.fma(B[t, s], V[s, i], z)
        for s in range(n):
            V[s, i] = cuda.fma(-z, C[t, s], steps[t, 0] * V[s, i])
        Z[t, i] = z
    m = mu[i]
    for s in range(n):
        mu[i] = cuda.fma(mean[s], X[s, i] - m, mu[i])


@part
def fold(n: int, X: F8, state: Any, scratch: Any) -> None:
    """Lam, mu, log |C| and sp of the anchor take in n rows. All blocks."""
    mu, Lam, comp, _ = state
    V, Z, _, B, C, mean, steps, _, now = scratch
    (K, D), grid = mu.shape, cuda.cg.this_grid()
    for i in range(cuda.grid(1), K * D, cuda.gridsize(1)):
        j = i // D
        unfold(i % D, n, X, mu[j], V[j], Z[j], mean[j], B[j], C[j], steps[j])
    grid.sync()
    per = tiles(D, D)
    for tile in range(cuda.blockIdx.x, K * per, cuda.gridDim.x):
        j = tile // per
        condense(n, tile % per, Lam[j], Z[j], steps[j])
    for j in range(cuda.grid(1), K, cuda.gridsize(1)):
        comp[LOGDET, j], comp[SP, j] = now[LOGDET, j], now[SP, j]
    grid.sync()


@part
def meet(n: int, X: F8, state: Any, scratch: Any) -> None:
    """All rows of a group meet the anchor: Lam y, then y'Lam y. All blocks."""
    mu, Lam, comp, _ = state
    V, _, x, _, _, mean, _, _, now = scratch
    (K, D), grid = mu.shape, cuda.cg.this_grid()
    for j in range(cuda.grid(1), K, cuda.gridsize(1)):
        now[LOGDET, j], now[SP, j] = comp[LOGDET, j], comp[SP, j]
        for r in range(SLOTS):
            mean[j, r] = 0.0
    per = tiles(n, D)
    for tile in range(cuda.blockIdx.x, K * per, cuda.gridDim.x):
        j = tile // per
        product(X, mu[j], n, Lam[j], D, False, tile % per, V[j])
    grid.sync()
    per = tiles(n, n)
    for tile in range(cuda.blockIdx.x, K * per, cuda.gridDim.x):
        j = tile // per
        product(X, mu[j], n, V[j], n, True, tile % per, x[j])
    grid.sync()


@kernel
def walk_delayed(rows: Any, state: Any, scratch: Any, score: F8) -> None:
    """SLOTS rows at a time, the first of them those that were pending."""
    X, weight = rows
    mu, p = state[0], state[3]
    _, _, x, B, C, mean, steps, d2, now = scratch
    shares = cuda.shared.array(MAX_K, np.float64)
    (K, D), grid = mu.shape, cuda.cg.this_grid()
    for first in range(0, X.shape[0], SLOTS):
        n = min(SLOTS, X.shape[0] - first)
        group = X[first : first + n]
        meet(n, group, state, scratch)
        for t in range(n):
            at = t % 2
            for j in range(cuda.blockIdx.x, K, cuda.gridDim.x):
                found = distance(t, n, x[j], mean[j], B[j], C[j])
                if cuda.threadIdx.x == 0:
                    d2[at, j] = found
            grid.sync()
            said = posterior(d2[at], now, p, D, shares)
            if cuda.grid(1) == 0:
                score[first + t] = said
            grid.sync()  # now is read by all before it is written to
            for j in range(cuda.blockIdx.x, K, cuda.gridDim.x):
                w, a, root = 0.0, 1.0, 0.0
                if cuda.threadIdx.x == 0:
                    w, a, root = settle(j, D, d2[at, j], weight[first + t] * shares[j], now, p)
                    steps[j, t, 0], steps[j, t, 1], mean[j, SLOTS] = a, 0.0, w
                    mean[j, SLOTS + 1] = root
                cuda.syncthreads()
                w, root = mean[j, SLOTS], mean[j, SLOTS + 1]
                learn(t, n, w, steps[j, t, 0], root, x[j], mean[j], B[j], C[j])
        grid.sync()
        if n == SLOTS:
            fold(n, group, state, scratch)
