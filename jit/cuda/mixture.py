"""Gaussian mixtures on the device, for wide vectors: every component learns from every row.

Letters and steps as in `jit.mixture`, mode "exact"; features x are known in full. K components;
`walk_delayed` takes at most MAX_K, neither creates nor deletes any, and is of a density alone. A
row is answered, and then learnt: with
e = z - mu, s = Lam e, d2 = e's, posterior p, sp <- rho sp + p, w = p / sp, mu <- mu + w e,
Lam <- a Lam - z z', a = 1 / (1 - w), z = s sqrt(a w / (1 + w d2)). A row that is new to all
(d2 >= chi) teaches the nearest alone. All of a block in one launch, in two ways:

`walk_rows` takes row by row: one pass over all Lam applies the update of the row before and
multiplies by the e of this one, so that an element is read and written once a row. It is all of
mode "exact": components are created and deleted, a variance has its floor, running moments follow.
In place of the health check, a diagonal that is not positive makes its component begin anew. The q
targets, or columns of classes, are recalled from the product with e = 0 for them; if the row is
learnt, their rows of Lam then bring it up to the whole e.

`walk_delayed` leaves Lam and mu as they were at an anchor for SLOTS rows. With y_r = x_r - mu of
the anchor, e of row t is sum_s b_s y_s, and all that is needed of Lam is x_sr = y_s' Lam y_r, which
begins as a product of all rows with the anchor's Lam and goes along as x_sr <- a x_sr - (z'y_s)
(z'y_r). Full slots are folded. What is pending at the end of a launch are its rows: the next launch
begins with them again, from the anchor, and so comes to the same bits however a stream is cut.

All float64, C-contiguous:
walk_rows, with room for R components; names as in `jit.mixture`:
    rows    = Z (n, D) features, then targets | weight (n,), 0 where nothing is learnt | mode (n,)
        uint8 | class (n,) int64
    state   = mu (R, D) | Lam (R, D, D) | comp (4, R) | moments (4, D) | classes (2, C) | the same
        again, for the buffer that is not there | s
    fixed   = p | chi (D + 1,) | vec (N_VEC, max(R, q, C)), scratch but for the unknown | means,
        variances (2, R, q) and A (R, 2 q + 1, q), scratch
    scratch = e (R, D) | s (2, R, D) | h (R, D), of the floor | d2, share (2, R) | step (R, 3) |
        sig2 (D,) | word (4 + R,)
    out     = answer (n, *) | side (n, *)
walk_delayed:
    rows    = X (n, D) | weight (n,)
    state   = mu (K, D) | Lam (K, D, D) | comp (2, K): log |C|, sp | p (N_SETTINGS,)
    scratch = V, Z (K, SLOTS, D) | x, B, C (K, SLOTS, SLOTS) | mean (K, SLOTS + 2) |
        steps (K, SLOTS, 2) | d2 (2, K) | now (2, K)
    score (n,), -log p(x)
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
_MEANS, _VARIANCES = range(2)  # layers of what components say of targets
_END, _NEW, _WEAK, _WEIGHT, _MOVED = range(5)  # places in word
_PREDICT = 1
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
def say(t: int, total: float, D: int, state: Any, out: Any) -> None:
    """-log p(x), from the log of the density times the mass. One thread, O(K)."""
    comp, mass = state[2], 0.0
    for j in range(int(state[6][mixture.COMPONENTS])):
        mass += comp[SP, j]
    out[1][t, 0] = math.log(mass) - total + 0.5 * _LOG_2PI * D


@part
def speak(t: int, asked: bool, state: Any, fixed: Any, out: Any) -> None:
    """Answer row t by its task, as `mixture.answer`, from what every component says of it; scores
    of classes are made for learning as well. One block of threads, O(K q).
    """
    p, _, vec, said, _ = fixed
    K, task, total = int(state[6][mixture.COMPONENTS]), p[mixture.TASK], 0.0
    q, D = said.shape[2], state[0].shape[1]
    if cuda.threadIdx.x == 0:
        total = mixture.normalise(vec[mixture.LOGP], K)
    cuda.syncthreads()
    wide = task == mixture.TARGETS
    for r in range(cuda.threadIdx.x, q, THREADS):
        hat, var = mixture.blend(r, K, vec[mixture.LOGP], said[_MEANS], said[_VARIANCES], wide)
        vec[mixture.HAT, r], vec[mixture.HAT_VAR, r] = hat, var
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        if task >= mixture.RECALL:
            mixture.score_classes(D - q, state, fixed)
            mixture.answer_classes(t, asked, state, fixed, out)
        elif asked and wide:
            mixture.answer_targets(t, q, D - q, state[3], vec, out)
        elif asked:
            say(t, total, D, state, out)


@part
def owner(c: int, p: F8) -> int:
    """The class of which a component is that learns a row of class c; -1 for all."""
    return c if p[mixture.TASK] == mixture.CONDITIONAL else -1


@part
def needs_host(c: int, state: Any, p: F8) -> bool:
    """Whether a row to be learnt waits for the host: for room, or for one to make room. O(K)."""
    comp, K = state[2], int(state[6][mixture.COMPONENTS])
    full = p[mixture.K_MAX] <= K
    if not full or p[mixture.TASK] != mixture.CONDITIONAL:
        return not full and state[0].shape[0] == K
    first = True
    for j in range(K):
        first = first and comp[mixture.OWN, j] != c
    return first


@part
def decide(weight: float, own: int, state: Any, fixed: Any, scratch: Any) -> None:
    """What a row teaches, as `mixture.learn`: a new component, or the gains of those there are, in
    now. One thread, O(K + D).
    """
    comp, s = state[2], state[6]
    p, chi = fixed[0], fixed[1]
    now, sig2, word = scratch[3], scratch[5], scratch[6]
    K, D, best, least = int(s[mixture.COMPONENTS]), sig2.shape[0], -1, math.inf
    word[_NEW], word[_WEAK] = 0.0, 0.0
    for j in range(K):
        now[_SHARE, j] = 0.0
    if not weight > 0.0:  # of a balanced row, rounded off
        return
    s[mixture.STEPS] += 1.0
    for j in range(K):
        if comp[mixture.OWN, j] == own and now[_D2, j] < least:
            best, least = j, now[_D2, j]
    forced = least >= chi[D]
    word[_NEW] = 1.0 if best < 0 or (forced and p[mixture.K_MAX] > K) else 0.0
    if word[_NEW] > 0.0:
        comp[SP, K], comp[mixture.AGE, K], comp[mixture.OWN, K] = weight, 1.0, float(own)
        comp[LOGDET, K] = spread(sig2)
        s[mixture.COMPONENTS] = K + 1.0
    elif least >= mixture.FAR:
        s[mixture.REJECTED] += 1.0
    else:
        s[mixture.FORCED] += 1.0 if forced else 0.0
        for j in range(K):
            near = now[_D2, j] < mixture.FAR and (not forced or j == best)
            near = near and comp[mixture.OWN, j] == own
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
def alone(j: int, K: int, comp: F8) -> bool:
    """Whether component j is the last of its kind. O(K)."""
    last = True
    for k in range(K):
        last = last and (k == j or comp[mixture.OWN, k] != comp[mixture.OWN, j])
    return last


@part
def weed(comp: F8, p: F8, s: F8, word: F8) -> None:
    """Delete what is weak, but for the last of its kind; word[_MOVED + j] <- the place where j was
    before. One thread, O(K), of what is weak O(K) each.
    """
    K, j = int(s[mixture.COMPONENTS]), 0
    for k in range(K):
        word[_MOVED + k] = float(k)
    while j < K:
        if is_weak(j, comp, p, s) and not alone(j, K, comp):
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
    mu, Lam, comp, s = state[0], state[1], state[2], state[6]
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
    for j in range(int(state[6][mixture.COMPONENTS])):
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
def along(e: F8, g: F8, sums: F8, lanes: F8) -> float:
    """e'g. One block of threads, O(D)."""
    sums[0] = 0.0
    for k in range(cuda.threadIdx.x, e.shape[0], THREADS):
        sums[0] = cuda.fma(e[k], g[k], sums[0])
    add_up(sums, lanes, 1)
    return float(sums[0])


@part
def clipped(d2: float) -> float:
    """A squared distance between 0 and as far as can be."""
    return max(d2, 0.0) if d2 < mixture.FAR else mixture.FAR


@part
def eliminate(A: F8) -> float:
    """A (2 q + 1, q), T over a row b' over the unit matrix, <- the same times G'^-1, T = G G', but
    for the diagonal of T. One block of threads, O(q^3). Returns log |T|, NaN if not definite.
    """
    total = 0.0
    for k in range(A.shape[1]):
        cuda.syncthreads()
        for r in range(k + cuda.threadIdx.x, A.shape[0], THREADS):
            value = A[r, k]
            for c in range(k):
                value = cuda.fma(-A[r, c], A[k, c], value)
            A[r, k] = value
        cuda.syncthreads()
        pivot = A[k, k]
        if not 0.0 < pivot < math.inf:
            return math.nan
        total += math.log(pivot)
        root = math.sqrt(pivot)
        for r in range(k + 1 + cuda.threadIdx.x, A.shape[0], THREADS):
            A[r, k] /= root
    cuda.syncthreads()
    return total


@part
def recall(j: int, d2: float, g: F8, state: Any, fixed: Any) -> float:
    """R1 to R3 of component j, as `mixture.condition`: means and variances of its q targets.

    g, d2: Lam e and e'Lam e for features alone. One block of threads, O(q^3).
    Returns log sp - (log |C_features| + d2) / 2.
    """
    mu, L, comp = state[0], state[1][j], state[2]
    said, A = fixed[3], fixed[4][j]
    q, D = A.shape[1], mu.shape[1]
    d = D - q
    for at in range(cuda.threadIdx.x, A.shape[0] * q, THREADS):
        r, k = at // q, at % q
        A[r, k] = 1.0 if r == q + 1 + k else 0.0
        if r < q:
            A[r, k] = L[d + r, d + k]
        elif r == q:
            A[r, k] = g[d + k]
    log_T = eliminate(A)
    sound = log_T == log_T
    for r in range(cuda.threadIdx.x, q, THREADS):
        mean, var = mu[j, d + r], 0.0
        for k in range(r, q if sound else r):
            mean = cuda.fma(-A[q + 1 + r, k], A[q, k], mean)
            var = cuda.fma(A[q + 1 + r, k], A[q + 1 + r, k], var)
        if not sound:
            var = mixture.initial_variance(d + r, d, state[3], fixed[0])
        said[_MEANS, j, r], said[_VARIANCES, j, r] = mean, var
    if not sound:
        return math.log(comp[SP, j]) - mixture.FAR
    for k in range(q):
        d2 = cuda.fma(-A[q, k], A[q, k], d2)
    return float(math.log(comp[SP, j]) - 0.5 * (comp[LOGDET, j] + log_T + clipped(d2)))


@part
def reveal(z: F8, mu: F8, L: F8, e: F8, g: F8, q: int) -> None:
    """The q targets of z become known: e and g = Lam e follow. One block of threads, O(q D)."""
    D = z.shape[0]
    for i in range(D - q + cuda.threadIdx.x, D, THREADS):
        e[i] = z[i] - mu[i]
    cuda.syncthreads()
    for i in range(cuda.threadIdx.x, D, THREADS):
        for k in range(D - q, D):
            g[i] = cuda.fma(L[k, i], e[k], g[i])
    cuda.syncthreads()


@part
def measure(j: int, z: F8, learns: bool, state: Any, fixed: Any, scratch: Any, g: F8) -> None:
    """What component j says of a row into vec, `fixed`, and how far it is into now; nothing of its
    step waits. One block of threads, O(D + q^3), and O(q D) if the row is to be learnt.
    """
    lanes = cuda.shared.array((1, THREADS), np.float64)
    sums = cuda.local.array(1, np.float64)
    e, now, step, q = scratch[0][j], scratch[3], scratch[4], fixed[3].shape[2]
    d2 = along(e, g, sums, lanes)
    told = recall(j, d2, g, state, fixed)
    if learns and q > 0:
        reveal(z, state[0][j], state[1][j], e, g, q)
        d2 = along(e, g, sums, lanes)
    if cuda.threadIdx.x == 0:
        fixed[2][mixture.LOGP, j], now[_D2, j] = told, clipped(d2)
        step[j, _GAIN], step[j, _MULTIPLE], step[j, _ROOT] = 0.0, 1.0, 0.0


@part
def absorb(z: F8, weight: float, d: int, moments: F8, p: F8, sig2: F8) -> None:
    """Running moments, and the initial variances that follow. One block of threads, O(D)."""
    keep = 1.0 - 0.1 * (1.0 - p[mixture.RHO])
    for i in range(cuda.threadIdx.x, z.shape[0], THREADS):
        mixture.absorb_value(i, z[i], weight, keep, moments)
        sig2[i] = mixture.initial_variance(i, d, moments, p)
    cuda.syncthreads()


@part
def teach(z: F8, weight: float, c: int, state: Any, fixed: Any, scratch: Any) -> None:
    """Take a row in, as `mixture.take`, and decide what it changes. One block of threads."""
    p, sig2, word = fixed[0], scratch[5], scratch[6]
    if cuda.threadIdx.x == 0:
        classes = p[mixture.TASK] >= mixture.RECALL
        word[_WEIGHT] = mixture.know(c, weight, state, fixed) if classes else weight
        state[6][mixture.SAMPLES] += 1.0
    cuda.syncthreads()
    absorb(z, word[_WEIGHT], z.shape[0] - fixed[3].shape[2], state[3], p, sig2)
    if cuda.threadIdx.x == 0:
        decide(word[_WEIGHT], owner(c, p), state, fixed, scratch)


@part
def change(z: F8, state: Any, p: F8, scratch: Any, now_at: int) -> None:
    """All components take what was decided; one may begin, and some end. All blocks."""
    mu, Lam, comp, s = state[0], state[1], state[2], state[6]
    _, g, h, now, step, sig2, word = scratch
    grid, D, begins = cuda.cg.this_grid(), mu.shape[1], word[_NEW] > 0.0
    K = int(s[mixture.COMPONENTS]) - (1 if begins else 0)
    for j in range(cuda.blockIdx.x, K, cuda.gridDim.x):
        if now[_SHARE, j] > 0.0:
            take(j, state, p, scratch, g[now_at])
    if begins:
        start(Lam[K], sig2, cuda.grid(1), cuda.gridsize(1))
        for i in range(cuda.grid(1), D, cuda.gridsize(1)):
            mu[K, i], g[now_at, K, i], h[K, i] = z[i], 0.0, 0.0
        if cuda.grid(1) == 0:  # what one that stood here before has left
            step[K, _GAIN], step[K, _MULTIPLE], step[K, _ROOT] = 0.0, 1.0, 0.0
    grid.sync()
    if word[_WEAK] > 0.0:
        if cuda.grid(1) == 0:
            weed(comp, p, s, word)
        grid.sync()
        move(word[_MOVED:], state, scratch, now_at)
        grid.sync()


@kernel
def walk_rows(rows: Any, state: Any, fixed: Any, scratch: Any, out: Any) -> None:
    """Row by row: the update that waits and the next product in one pass over all Lam.

    Ends, with word[_END] the row, where the host is to make room.
    """
    Z, weight, mode, code = rows
    mu, Lam, s, p = state[0], state[1], state[6], fixed[0]
    e, g, h, _, step, _, word = scratch
    (R, D), n, grid, turn = mu.shape, Z.shape[0], cuda.cg.this_grid(), 0
    panels, d = (D + ROWS - 1) // ROWS, D - fixed[3].shape[2]
    for j in range(cuda.grid(1), R, cuda.gridsize(1)):
        step[j, _GAIN], step[j, _MULTIPLE], step[j, _ROOT] = 0.0, 1.0, 0.0
    grid.sync()
    for t in range(n + 1):  # the last sweep applies what waits
        learns, asked = t < n and weight[t] > 0.0, t < n and (mode[t] & _PREDICT) != 0
        if t < n and cuda.grid(1) == 0:
            mixture.blank(t, p[mixture.TASK], Z, state[4], out)
        if t < n and not learns and not asked:
            continue
        K = int(s[mixture.COMPONENTS])
        ends = t == n or (learns and needs_host(code[t], state, p))
        for i in range(cuda.grid(1), K * D, cuda.gridsize(1)):
            known = not ends and i % D < d
            e[i // D, i % D] = Z[t, i % D] - mu[i // D, i % D] if known else 0.0
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
            measure(j, Z[t], learns, state, fixed, scratch, g[turn, j])
        grid.sync()
        if cuda.blockIdx.x == 0:
            speak(t, asked, state, fixed, out)
            if learns:
                teach(Z[t], weight[t], code[t], state, fixed, scratch)
        grid.sync()
        if learns:
            change(Z[t], state, p, scratch, turn)


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
