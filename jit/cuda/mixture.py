"""Gaussian mixtures on the device, for wide vectors: every component learns from every row.

Letters and steps as in `jit.mixture`, mode "exact", of a density: x is known in full. K
components; `walk_delayed` takes at most MAX_K, and neither creates nor deletes any. A row is
scored, -log p(x), and then learnt: with
e = x - mu, s = Lam e, d2 = e's, posterior p, sp <- rho sp + p, w = p / sp, mu <- mu + w e,
Lam <- a Lam - z z', a = 1 / (1 - w), z = s sqrt(a w / (1 + w d2)). A row that is new to all
(d2 >= chi) teaches the nearest alone. All of a block in one launch, in two ways:

`walk_rows` takes row by row: one pass over all Lam applies the update of the row before and
multiplies by the e of this one, so that an element is read and written once a row. It is all of
mode "exact": components are created and deleted, a variance has its floor, running moments follow.
In place of the health check, a diagonal that is not positive makes its component begin anew.

`walk_delayed` leaves Lam and mu as they were at an anchor for SLOTS rows. With y_r = x_r - mu of
the anchor, e of row t is sum_s b_s y_s, and all that is needed of Lam is x_sr = y_s' Lam y_r, which
begins as a product of all rows with the anchor's Lam and goes along as x_sr <- a x_sr - (z'y_s)
(z'y_r). Full slots are folded. What is pending at the end of a launch are its rows: the next launch
begins with them again, from the anchor, and so comes to the same bits however a stream is cut.

All float64, C-contiguous:
walk_rows, with room for R components:
    rows    = X (n, D) | weight (n,) | mode (n,) uint8
    state   = mu (R, D) | Lam (R, D, D) | comp (4, R) | moments (4, D) | s, as in `jit.mixture`
    fixed   = p | chi (D + 1,), as there
    scratch = e (R, D) | s (2, R, D) | h (R, D), of the floor | d2, share (2, R) | step (R, 3) |
        sig2 (D,) | word (3 + R,)
walk_delayed:
    rows    = X (n, D) | weight (n,)
    state   = mu (K, D) | Lam (K, D, D) | comp (2, K): log |C|, sp | p (N_SETTINGS,)
    scratch = V, Z (K, SLOTS, D) | x, B, C (K, SLOTS, SLOTS) | mean (K, SLOTS + 2) |
        steps (K, SLOTS, 2) | d2 (2, K) | now (2, K)
    score (n,)
"""

import math
from typing import Any

import numpy as np

from streamlearn.jit import mixture
from streamlearn.jit._compile import F8
from streamlearn.jit.cuda._compile import SIMULATED, cuda, kernel, part
from streamlearn.jit.cuda.delayed import condense
from streamlearn.jit.cuda.products import THREADS, product, tiles

SLOTS = 3 if SIMULATED else 64
MAX_K = 4 if SIMULATED else 256
ROWS = 2 if SIMULATED else 8  # of a Lam that a block of walk_rows takes at once
CHI, RHO, N_SETTINGS = range(3)  # places in p
LOGDET, SP = range(2)  # rows of comp
_GAIN, _MULTIPLE, _ROOT = range(3)  # columns of a step; gain: whether there is one
_D2, _SHARE = range(2)  # rows of now
_END, _NEW, _WEAK, _MOVED = range(4)  # places in word
_PREDICT, _OBSERVE = 1, 4
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
def sweep(j: int, first: int, L: F8, e: F8, before: F8, h: F8, after: F8, step: F8) -> None:
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
                if step[_GAIN] > 0.0:
                    value = cuda.fma(-(root * before[first + r]), z, a * value)
                    value = cuda.fma(-h[first + r], h[k], value)
                    L[first + r, k] = value
                sums[r] = cuda.fma(value, x, sums[r])
    add_up(sums, lanes, count)
    if cuda.threadIdx.x == 0:
        for r in range(ROWS):
            if r < count:
                after[first + r] = sums[r]


@part
def say(D: int, comp: F8, s: F8, now: F8) -> float:
    """-log p(x), from the distances of all components. One thread, O(K)."""
    K, mass = int(s[mixture.COMPONENTS]), 0.0
    for j in range(K):
        mass += comp[SP, j]
        now[_SHARE, j] = math.log(comp[SP, j]) - 0.5 * (comp[LOGDET, j] + now[_D2, j])
    total = mixture.normalise(now[_SHARE], K)
    return math.log(mass) - total + 0.5 * _LOG_2PI * D


@part
def decide(weight: float, comp: F8, fixed: Any, s: F8, now: F8, sig2: F8, word: F8) -> None:
    """What a row teaches, as `mixture.learn`: a new component, or the gains of those there are, in
    now. One thread, O(K + D).
    """
    p, chi = fixed
    K, D, best = int(s[mixture.COMPONENTS]), sig2.shape[0], 0
    s[mixture.STEPS] += 1.0
    s[mixture.SAMPLES] += 1.0
    for j in range(K):
        best = j if now[_D2, j] < now[_D2, best] else best
    least = now[_D2, best]
    forced = least >= chi[D]
    word[_NEW] = 1.0 if forced and p[mixture.K_MAX] > K else 0.0
    if word[_NEW] > 0.0:
        comp[SP, K], comp[mixture.AGE, K], comp[mixture.OWN, K] = weight, 1.0, -1.0
        comp[LOGDET, K] = spread(sig2)
        s[mixture.COMPONENTS] = K + 1.0
    elif least >= mixture.FAR:
        s[mixture.REJECTED] += 1.0
    else:
        s[mixture.FORCED] += 1.0 if forced else 0.0
        for j in range(K):
            near = now[_D2, j] < mixture.FAR and (not forced or j == best)
            part_of = math.log(comp[SP, j]) - 0.5 * (comp[LOGDET, j] + now[_D2, j])
            now[_SHARE, j] = part_of if near else -math.inf
        mixture.normalise(now[_SHARE], K)
    for j in range(K):
        share = now[_SHARE, j] if word[_NEW] == 0.0 and least < mixture.FAR else -1.0
        if share >= 0.0:
            comp[SP, j] *= p[mixture.RHO]
            comp[mixture.AGE, j] += 1.0
        now[_SHARE, j] = 0.0
        if share >= _LEAST:
            comp[SP, j] += weight * share
            now[_SHARE, j] = weight * share / comp[SP, j]
    word[_WEAK] = 0.0
    for j in range(int(s[mixture.COMPONENTS])):
        word[_WEAK] += 1.0 if is_weak(j, comp, p, s) else 0.0


@part
def spread(sig2: F8) -> float:
    """log |C| of a component with the initial variances. O(D)."""
    total = 0.0
    for i in range(sig2.shape[0]):
        total += math.log(sig2[i])
    return total


@part
def is_weak(j: int, comp: F8, p: F8, s: F8) -> bool:
    """Whether a component is forgotten, or, where that is due, old and weak: `mixture.prune`."""
    gone = p[mixture.RHO] < 1.0 and comp[SP, j] < mixture.GONE
    due = s[mixture.STEPS] % mixture.PRUNE_EVERY == 0.0
    old = comp[mixture.AGE, j] > p[mixture.V_MIN] and comp[SP, j] < p[mixture.SP_MIN]
    return bool(gone or (due and old))


@part
def weed(comp: F8, p: F8, s: F8, word: F8) -> None:
    """Delete what is weak, but for the last; word[_MOVED + j] <- the place where j was before.

    One thread, O(K).
    """
    K, j = int(s[mixture.COMPONENTS]), 0
    for k in range(K):
        word[_MOVED + k] = float(k)
    while j < K:
        if is_weak(j, comp, p, s) and K > 1:
            K -= 1
            word[_MOVED + j] = word[_MOVED + K]
            for k in range(comp.shape[0]):
                comp[k, j] = comp[k, K]
            continue
        if is_weak(j, comp, p, s):
            comp[SP, j] = max(comp[SP, j], mixture.GONE)
        j += 1
    s[mixture.COMPONENTS] = float(K)


@part
def start(L: F8, sig2: F8, first: int, by: int) -> None:
    """L <- the diagonal matrix of a component that begins; a thread each `by` elements."""
    D = sig2.shape[0]
    for i in range(first, D * D, by):
        L[i // D, i % D] = 1.0 / sig2[i // D] if i // D == i % D else 0.0


@part
def take(j: int, state: Any, p: F8, scratch: Any, g: F8) -> None:
    """Component j moves by its gain: mean, log |C|, and what its Lam waits for, the floor of a
    variance (equation 10) among that: `mixture.update`. One block of threads, O(D).
    """
    mu, Lam, comp, _, s = state
    e, _, h, now, step, sig2, _ = scratch
    ranks = cuda.shared.array((3, THREADS), np.float64)
    L, D, own = Lam[j], mu.shape[1], cuda.threadIdx.x
    gain, d2 = now[_SHARE, j], now[_D2, j]
    keep, q = 1.0 - gain, 1.0 + gain * d2
    a, root = 1.0 / keep, math.sqrt(gain / (q * keep))
    at, worst, first, bad = 0, 0.0, 0.0, 0.0
    for i in range(own, D, THREADS):
        mu[j, i] += gain * e[j, i]
        z = root * g[j, i]
        tight = (a * L[i, i] - z * z) * sig2[i]
        bad = bad if 0.0 < tight < math.inf else 1.0
        rank = mixture.ranked(tight, mu[j, i] + 0.6 * e[j, i])
        if rank > first:
            at, worst, first = i, tight, rank
    ranks[0, own], ranks[1, own], ranks[2, own] = first, float(at), bad
    cuda.syncthreads()
    for k in range(THREADS):  # of equal ranks the first coordinate, whoever looked at it
        before = ranks[0, k] == first and ranks[1, k] < at
        if ranks[0, k] > first or before:
            first, at = ranks[0, k], int(ranks[1, k])
        bad = max(bad, ranks[2, k])
    z_at = root * g[j, at]
    worst = (a * L[at, at] - z_at * z_at) * sig2[at] if first > 0.0 else 0.0
    least = p[mixture.EPS] * worst
    floored = bad == 0.0 and least > 1.0
    size = math.sqrt((p[mixture.EPS] - 1.0 / worst) * sig2[at] / least) if floored else 0.0
    for i in range(own, D, THREADS):
        h[j, i] = (a * L[at, i] - z_at * root * g[j, i]) * size if floored else 0.0
    cuda.syncthreads()
    if bad > 0.0:
        start(L, sig2, own, THREADS)
    if own == 0:
        step[j, _GAIN], step[j, _MULTIPLE], step[j, _ROOT] = 1.0, a, root
        comp[LOGDET, j] += D * math.log1p(-gain) + math.log(q)
        comp[LOGDET, j] += math.log(least) if floored else 0.0
        if bad > 0.0:
            step[j, _GAIN], step[j, _MULTIPLE], step[j, _ROOT] = 0.0, 1.0, 0.0
            comp[LOGDET, j] = spread(sig2)
            cuda.atomic.add(s, mixture.REPAIRED, 1.0)
    cuda.syncthreads()


@part
def move(moved: F8, state: Any, scratch: Any, now_at: int) -> None:
    """Components stand where `weed` has put them, with all that waits. All blocks."""
    mu, Lam = state[0], state[1]
    _, g, h, _, step, _, _ = scratch
    D = mu.shape[1]
    for j in range(int(state[4][mixture.COMPONENTS])):
        source = int(moved[j])
        for i in range(cuda.grid(1), D * D if source != j else 0, cuda.gridsize(1)):
            Lam[j, i // D, i % D] = Lam[source, i // D, i % D]
        for i in range(cuda.grid(1), D if source != j else 0, cuda.gridsize(1)):
            mu[j, i], h[j, i] = mu[source, i], h[source, i]
            g[now_at, j, i] = g[now_at, source, i]
        if source != j and cuda.grid(1) == 0:
            for k in range(step.shape[1]):
                step[j, k] = step[source, k]


@part
def measure(j: int, e: F8, g: F8, now: F8, step: F8, sums: F8, lanes: F8) -> None:
    """d2 = e'g of a component into now; nothing of its step waits. One block of threads, O(D)."""
    sums[0] = 0.0
    for k in range(cuda.threadIdx.x, e.shape[0], THREADS):
        sums[0] = cuda.fma(e[k], g[k], sums[0])
    add_up(sums, lanes, 1)
    if cuda.threadIdx.x == 0:
        now[_D2, j] = max(sums[0], 0.0) if sums[0] < mixture.FAR else mixture.FAR
        step[j, _GAIN], step[j, _MULTIPLE], step[j, _ROOT] = 0.0, 1.0, 0.0


@part
def absorb(x: F8, weight: float, moments: F8, p: F8, sig2: F8) -> None:
    """Running moments, and the initial variances that follow. One block of threads, O(D)."""
    keep = 1.0 - 0.1 * (1.0 - p[mixture.RHO])
    for i in range(cuda.threadIdx.x, x.shape[0], THREADS):
        mixture.absorb_value(i, x[i], weight, keep, moments)
        sig2[i] = mixture.initial_variance(i, x.shape[0], moments, p)
    cuda.syncthreads()


@kernel
def walk_rows(rows: Any, state: Any, fixed: Any, scratch: Any, score: F8) -> None:
    """Row by row: the update that waits and the next product in one pass over all Lam.

    Ends, with word[_END] the row, where there is to be room for one more component.
    """
    X, weight, mode = rows
    mu, Lam, comp, moments, s = state
    p = fixed[0]
    e, g, h, now, step, sig2, word = scratch
    lanes = cuda.shared.array((1, THREADS), np.float64)
    sums = cuda.local.array(1, np.float64)
    (R, D), n, grid, turn = mu.shape, X.shape[0], cuda.cg.this_grid(), 0
    panels = (D + ROWS - 1) // ROWS
    for j in range(cuda.grid(1), R, cuda.gridsize(1)):
        step[j, _GAIN], step[j, _MULTIPLE], step[j, _ROOT] = 0.0, 1.0, 0.0
    grid.sync()
    for t in range(n + 1):  # the last sweep applies what waits
        bits = mode[t] if t < n else 0
        w = min(weight[t], mixture.HEAVIEST) if bits & _OBSERVE else 0.0
        if t < n and cuda.grid(1) == 0:
            score[t] = math.nan
        if t < n and not w > 0.0 and not bits & _PREDICT:
            continue
        K = int(s[mixture.COMPONENTS])
        ends = t == n or (w > 0.0 and K == R and p[mixture.K_MAX] > K)
        for i in range(cuda.grid(1), K * D, cuda.gridsize(1)):
            e[i // D, i % D] = 0.0 if ends else X[t, i % D] - mu[i // D, i % D]
        turn = 1 - turn
        grid.sync()
        for panel in range(cuda.blockIdx.x, K * panels, cuda.gridDim.x):
            j = panel // panels
            sweep(j, panel % panels * ROWS, Lam[j], e[j], g[1 - turn, j], h[j], g[turn, j], step[j])
        grid.sync()
        if ends:
            if cuda.grid(1) == 0:
                word[_END] = float(t)
            break
        for j in range(cuda.blockIdx.x, K, cuda.gridDim.x):
            measure(j, e[j], g[turn, j], now, step, sums, lanes)
        grid.sync()
        if cuda.blockIdx.x == 0:
            if w > 0.0:
                absorb(X[t], w, moments, p, sig2)
            if cuda.threadIdx.x == 0:
                if bits & _PREDICT:
                    score[t] = say(D, comp, s, now)
                if w > 0.0:
                    decide(w, comp, fixed, s, now, sig2, word)
        grid.sync()
        if not w > 0.0:
            continue
        for j in range(cuda.blockIdx.x, K, cuda.gridDim.x):
            if now[_SHARE, j] > 0.0:
                take(j, state, p, scratch, g[turn])
        if word[_NEW] > 0.0:
            start(Lam[K], sig2, cuda.grid(1), cuda.gridsize(1))
            for i in range(cuda.grid(1), D, cuda.gridsize(1)):
                mu[K, i], g[turn, K, i], h[K, i] = X[t, i], 0.0, 0.0
        grid.sync()
        if word[_WEAK] > 0.0:
            if cuda.grid(1) == 0:
                weed(comp, p, s, word)
            grid.sync()
            move(word[_MOVED:], state, scratch, turn)
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
