"""Linear heads with a wide covariance: delayed rank-one updates, a block of rows in one launch.

D features, K classes or targets. Between two folds of P stand up to SLOTS lessons. Lesson s takes
P to g2 P + floor I - z z' and W to shrink W + e z', z = u root, u = g2 P f + floor f (for recursive
least squares g2 = 1 / lam, floor = 0). A row does not need the P of its time, only what P makes of
its own f and of the pending ones: x_ij = f_i' P f_j starts as a product with the P of the last fold
and goes along with each lesson as x_ij <- g2 x_ij + floor f_i'f_j - c_i c_j, c_i = z'f_i; so do f'P
f and W f. All rows of a chunk meet P in one product, one block of threads walks them in order, and
once the slots are full all z are folded into P. Rows of a later launch are taken through
the pending lessons in the same order, so a row's bits do not depend on how the stream was cut.
Reads and writes P once in SLOTS lessons; 2 D^2 fused additions a lesson.

A walker takes seven tuples of arrays on the device, float64 and C-contiguous unless said:
    rows    = F (n, D) | codes (n,) int64 | y (n, 1 or K) | weight (n,) | mode (n,) uint8
    plan    = `plan`'s five, int64
    state   = W (K, D) | P (D, D), both of the last fold | outputs (3, K) | s scalars
    held    = F and u0 = P f of the pending lessons, then of the chunk (2 SLOTS, D) | c of lesson q
        at row s (SLOTS, 2 SLOTS) | steps (SLOTS, ERRORS + 2 K): what lessons were, see below
    scratch = Z (SLOTS, D) | x (2 SLOTS, SLOTS) | f_i'f_j likewise | W f (K, SLOTS) | f'P f, f'f, c
        (3, SLOTS) | a mark (1,), 0
    fixed   = settings p | work (WORK, K) | health (HEALTH,)
    out     = answer (n, K) | side (n, 1 or K), as the walkers of `kalman` and `rls`
"""

import math
from typing import Any

import numpy as np

from streamlearn.jit import kalman, lift, rls
from streamlearn.jit._compile import F8, I8
from streamlearn.jit.cuda._compile import SIMULATED, cuda, kernel, part
from streamlearn.jit.cuda.products import DEEP, EDGE, MICRO, THREADS, TILE, load, product, tiles

SLOTS = 4 if SIMULATED else 64  # even: a lesson with a leak takes two
G2, FLOOR, ROOT, SHRINK, ERRORS = range(5)  # columns of steps; K errors, then K moves of W[:, 0]
LARGEST, ANEW, ADDED, COUNTER, HEALTH = range(5)  # places in health
MOVES = 6  # row of work, after those of `kalman` and `rls`
WORK = 7

Plan = tuple[I8, I8, I8, I8, I8]


def plan(lesson: np.ndarray[Any, Any], units: I8 | None, pending: int) -> tuple[Plan, int]:
    """How a block is cut into chunks: each ends where the slots are full, or after SLOTS rows.

    lesson (n,) bool: rows that teach | units: the coordinate to which each lesson leaks, None for
    no leak | pending lessons. Returns source (N,) row, or -1 - the coordinate of a leak | place
    (N,) in F of held: lessons first | first (C + 1,) of each chunk | (2 C,) pending before it and
    its lessons | (C,) whether it folds; and the lessons pending afterwards.
    """
    source, slot = np.arange(lesson.size), lesson
    if units is not None:
        source = np.repeat(source, 1 + lesson)
        second = np.append(False, source[1:] == source[:-1])
        slot = lesson[source]
        source[second] = -1 - units
    place = np.empty(source.size, dtype=np.int64)
    first, counts, folds = [0], [], []
    while first[-1] < source.size:
        at, end = first[-1], first[-1] + SLOTS
        taken = np.cumsum(slot[at:end])
        end = min(at + 1 + int(np.searchsorted(taken, SLOTS - pending)), at + taken.size)
        part = slot[at:end]
        n = int(part.sum())
        place[at:end][part] = pending + np.arange(n)
        place[at:end][~part] = pending + n + np.arange(part.size - n)
        counts += [pending, n]
        folds.append(pending + n == SLOTS)
        pending = 0 if folds[-1] else pending + n
        first.append(end)
    arrays = (np.array(numbers, dtype=np.int64) for numbers in (first, counts, folds))
    return (source, place, *arrays), pending  # type: ignore[return-value]


def fold_only(pending: int) -> Plan:
    """The plan of no rows that folds what is pending."""
    none = np.zeros(0, dtype=np.int64)
    return none, none, np.zeros(2, np.int64), np.array([pending, 0]), np.ones(1, np.int64)


# -- one lesson in the space of rows ---------------------------------------------------------------


@part
def carry(s: int, cols: int, before: int, end: int, held: Any, scratch: Any) -> None:
    """Take the rows of the chunk through lesson s. All threads of a block; O(SLOTS + K) a thread.

    cols rows, those up to `end` lessons, behind `before` pending ones.
    """
    F, _, C, steps = held
    _, x, ff, Wf, own, _ = scratch
    K = Wf.shape[0]
    g2, floor, root, shrink = steps[s, G2], steps[s, FLOOR], steps[s, ROOT], steps[s, SHRINK]
    for j in range(cuda.threadIdx.x, cols, THREADS):
        c = root * cuda.fma(g2, x[s, j], floor * ff[s, j])
        own[2, j] = c
        if before + j < end:
            C[s, before + j] = c
    cuda.syncthreads()
    for j in range(cuda.threadIdx.x, cols, THREADS):
        c = own[2, j]
        own[0, j] = cuda.fma(-c, c, cuda.fma(g2, own[0, j], floor * own[1, j]))
        for k in range(K):
            moved = cuda.fma(steps[s, ERRORS + k], c, shrink * Wf[k, j])
            Wf[k, j] = cuda.fma(-steps[s, ERRORS + K + k], F[before + j, 0], moved)
        for i in range(s + 1, end):
            x[i, j] = cuda.fma(-C[s, i], c, cuda.fma(g2, x[i, j], floor * ff[i, j]))
    cuda.syncthreads()


@part
def set_step(steps: F8, s: int, g2: float, floor: float, shrink: float, S: float) -> None:
    """What lesson s is, but for its errors and moves."""
    steps[s, G2], steps[s, FLOOR] = g2, floor
    steps[s, ROOT], steps[s, SHRINK] = 1.0 / math.sqrt(S), shrink


# -- what a row says and teaches -------------------------------------------------------------------


@part
def settle_kalman(
    t: int, h: float, ff: float, s_at: int, rows: Any, state: Any, held: Any, fixed: Any, out: Any,
    targets: bool | None,
) -> None:  # fmt: skip
    """Answer row t and say what its lesson is, as `kalman.settle` and `condition_standard` do.

    h = f'A f before the time update that is due, ff = f'f. One thread.
    """
    _, codes, y, weight, mode = rows
    outputs, s = state[2], state[3]
    p, work, _ = fixed
    K, c, steps = outputs.shape[1], codes[t], held[3]
    if c == lift.SKIP:
        kalman.blank(t, outputs, targets is None, out[0], out[1])
        return
    g, loss = kalman.drift(s, p)
    a, b = max(h, 0.0), ff * p[kalman.S_W]
    v = (1.0 - loss) * a + loss * b
    if targets is None:
        kalman.settle_class(t, c, mode[t], outputs, s, p, work, out, g, v, a - b, None)
    else:
        for k in range(K):
            work[kalman.Y_ROW, k] = y[t, k] if c == lift.TARGET else 0.0
        kalman.settle_target(t, c, mode[t], weight[t], outputs, s, p, work, out, g, v, a - b)
    noise = kalman.count(c, mode[t], weight[t], outputs, s, p, targets)
    if not noise > 0.0:
        return
    g, loss = kalman.drift(s, p)
    s[kalman.GAP] = 0.0
    g2, floor = 1.0 - loss, loss * p[kalman.S_W]
    shrink = g if p[kalman.DECAY_MEAN] > 0.0 else 1.0
    set_step(steps, s_at, g2, floor, shrink, noise + g2 * h + floor * ff)
    for k in range(K):
        e = work[kalman.Y_ROW, k] - outputs[1, k] - shrink * work[kalman.NU_ROW, k]
        steps[s_at, ERRORS + k] = e * steps[s_at, ROOT] if outputs[0, k] > 0.0 else 0.0
        steps[s_at, ERRORS + K + k] = 0.0


@part
def leak(D: int, h: float, s_at: int, held: Any, fixed: Any) -> None:
    """The lesson of one coordinate that it be 0, by which the ridge stays: see `rls.leak`."""
    p, work, _ = fixed
    K, steps = work.shape[1], held[3]
    set_step(steps, s_at, 1.0, 0.0, 1.0, 1.0 / (p[rls.LEAK] * D) + h)
    for k in range(K):
        steps[s_at, ERRORS + k] = -work[rls.NU, k] * steps[s_at, ROOT]
        steps[s_at, ERRORS + K + k] = work[MOVES, k]


@part
def settle_rls(
    t: int, h: float, ff: float, s_at: int, rows: Any, state: Any, held: Any, fixed: Any, out: Any,
    targets: bool | None,
) -> None:  # fmt: skip
    """Answer row t and say what its lesson is, as `rls.take` does; t < 0 is a leak. One thread."""
    _, codes, y, weight, mode = rows
    W, _, outputs, s = state
    p, work, _ = fixed
    K, steps, h = outputs.shape[1], held[3], max(h, 0.0)
    if t < 0:
        leak(W.shape[1], h, s_at, held, fixed)
        return
    c = codes[t]
    if c == lift.SKIP:
        kalman.blank(t, outputs, targets is None, out[0], out[1])
        return
    lesson = c >= 0 or c == lift.TARGET
    w = min(weight[t], rls.HEAVIEST)
    if targets is None:
        w = min(rls.settle_class(t, c, mode[t], w, outputs, s, p, work, out), rls.HEAVIEST)
    else:
        for k in range(K):
            work[rls.Y, k] = y[t, k] if lesson else 0.0
        rls.settle_target(t, lesson, mode[t], h, outputs, s, work, out)
    if not lesson:
        return
    set_step(steps, s_at, 1.0 / p[rls.LAM], 0.0, 1.0, 1.0 / w + h / p[rls.LAM])
    for k in range(K):
        steps[s_at, ERRORS + k] = (work[rls.Y, k] - work[rls.NU, k]) * steps[s_at, ROOT]
        work[MOVES, k] = 0.0
    if targets is not None:  # W[:, 0] of it alone, from 0: what the means move it by
        rls.follow_targets(
            work[MOVES].reshape(work.shape[1], 1), outputs, s, p[rls.LAM], w, h, work
        )
    s[rls.SAMPLES] += 1.0
    for k in range(K):
        work[MOVES, k] = -work[MOVES, k]
        steps[s_at, ERRORS + K + k] = 0.0 if p[rls.LEAK] > 0.0 else work[MOVES, k]


# -- the fold --------------------------------------------------------------------------------------


@part
def gains(n: int, W: F8, held: Any, Z: F8) -> None:
    """Z <- the z of the n pending lessons, and W with them; a thread a column. O(n^2 + K n)."""
    F, U, C, steps = held
    K = W.shape[0]
    start, step = cuda.grid(1), cuda.gridsize(1)
    for i in range(start, F.shape[1], step):
        for s in range(n):
            u, f = U[s, i], F[s, i]
            for q in range(s):
                u = cuda.fma(steps[q, G2], u, steps[q, FLOOR] * f)
                u = cuda.fma(-C[q, s], Z[q, i], u)
            Z[s, i] = steps[s, ROOT] * cuda.fma(steps[s, G2], u, steps[s, FLOOR] * f)
        for k in range(K):
            w = W[k, i]
            for s in range(n):
                w = cuda.fma(steps[s, ERRORS + k], Z[s, i], steps[s, SHRINK] * w)
                w -= steps[s, ERRORS + K + k] if i == 0 else 0.0
            W[k, i] = w


@part
def condense(n: int, tile: int, P: F8, Z: F8, steps: F8) -> None:
    """One tile of P through the n pending lessons: symmetric to the last bit. O(n) an element."""
    left = cuda.shared.array((DEEP, TILE), np.float64)
    right = cuda.shared.array((DEEP, TILE), np.float64)
    sums = cuda.local.array((MICRO, MICRO), np.float64)
    D = P.shape[0]
    across = (D + TILE - 1) // TILE
    row, col = tile // across * TILE, tile % across * TILE
    r, c = row + cuda.threadIdx.x // EDGE, col + cuda.threadIdx.x % EDGE
    for a in range(MICRO):
        for b in range(MICRO):
            i, j = r + a * EDGE, c + b * EDGE
            sums[a, b] = P[i, j] if i < D and j < D else 0.0
    for s in range(0, n, DEEP):
        load(Z, None, s, n, row, D, False, left)
        load(Z, None, s, n, col, D, False, right)
        cuda.syncthreads()
        for term in range(min(DEEP, n - s)):
            g2, floor = steps[s + term, G2], steps[s + term, FLOOR]
            for a in range(MICRO):
                z = left[term, r - row + a * EDGE]
                for b in range(MICRO):
                    more = floor if r + a * EDGE == c + b * EDGE else 0.0
                    kept = cuda.fma(-z, right[term, c - col + b * EDGE], g2 * sums[a, b])
                    sums[a, b] = kept + more
        cuda.syncthreads()
    for a in range(MICRO):
        for b in range(MICRO):
            i, j = r + a * EDGE, c + b * EDGE
            if i < D and j < D:
                P[i, j] = sums[a, b]


@part
def fold(n: int, state: Any, held: Any, scratch: Any, health: F8) -> None:
    """P and W take in the n pending lessons; a diagonal that is not sound is mended. All blocks."""
    W, P, _, s = state
    Z, mark = scratch[0], scratch[5]
    grid, D = cuda.cg.this_grid(), P.shape[0]
    gains(n, W, held, Z)
    grid.sync()
    for tile in range(cuda.blockIdx.x, tiles(D, D), cuda.gridDim.x):
        condense(n, tile, P, Z, held[3])
    grid.sync()
    start, step = cuda.grid(1), cuda.gridsize(1)
    for i in range(start, D, step):
        if not 0.0 < P[i, i] <= health[LARGEST]:
            mark[0] = 1.0
    grid.sync()
    bad = mark[0] > 0.0
    grid.sync()
    for i in range(start, D if bad else 0, step):
        for j in range(D if health[ANEW] > 0.0 else 0):
            P[i, j] = 0.0
        P[i, i] = health[ANEW] if health[ANEW] > 0.0 else P[i, i] + health[ADDED]
    if start == 0 and bad:
        s[int(health[COUNTER])] += 1.0
        mark[0] = 0.0
    grid.sync()


# -- a block ---------------------------------------------------------------------------------------


@part
def meet(
    at: int, cols: int, before: int, rows: Any, plan: Any, state: Any, held: Any, scratch: Any
) -> None:
    """The rows of a chunk, cols of them from `at` on: their f, P f, W f, and products of pairs."""
    X, W, P = rows[0], state[0], state[1]
    source, place = plan[0], plan[1]
    F, U = held[0], held[1]
    _, x, ff, Wf, _, _ = scratch
    grid, D = cuda.cg.this_grid(), P.shape[0]
    for r in range(cuda.blockIdx.x, cols, cuda.gridDim.x):
        t, to = source[at + r], place[at + r]
        for i in range(cuda.threadIdx.x, D, THREADS):
            F[to, i] = X[t, i] if t >= 0 else (1.0 if i == -1 - t else 0.0)
    grid.sync()
    new = F[before : before + cols]
    for tile in range(cuda.blockIdx.x, tiles(cols, D), cuda.gridDim.x):
        product(new, None, cols, P, D, False, tile, U[before:])
    grid.sync()
    pairs, means = tiles(before + cols, cols), tiles(W.shape[0], cols)
    for tile in range(cuda.blockIdx.x, 2 * pairs + means, cuda.gridDim.x):
        if tile < pairs:
            product(U, None, before + cols, new, cols, True, tile, x)
        elif tile < 2 * pairs:
            product(F, None, before + cols, new, cols, True, tile - pairs, ff)
        else:
            product(W, None, W.shape[0], new, cols, True, tile - 2 * pairs, Wf)
    grid.sync()


def _walker(settle: Any, targets: bool | None) -> Any:
    """The kernel of one kind of head."""

    @part
    def teach(at: int, cols: int, before: int, lessons: int, rows: Any, plan: Any, state: Any,
              held: Any, scratch: Any, fixed: Any, out: Any) -> None:  # fmt: skip
        """Walk the rows of a chunk in order. One block of threads."""
        source, place = plan[0], plan[1]
        _, x, ff, Wf, own, _ = scratch
        work, end = fixed[1], before + lessons
        for j in range(cuda.threadIdx.x, cols, THREADS):
            own[0, j], own[1, j] = x[before + j, j], ff[before + j, j]
        cuda.syncthreads()
        for s in range(before):
            carry(s, cols, before, end, held, scratch)
        for r in range(at, at + cols):
            j = place[r] - before
            if cuda.threadIdx.x == 0:
                for k in range(Wf.shape[0]):
                    work[kalman.NU_ROW, k] = Wf[k, j]
                h, b = own[0, j], own[1, j]
                settle(source[r], h, b, place[r], rows, state, held, fixed, out, targets)
            cuda.syncthreads()
            if place[r] < end:
                carry(place[r], cols, before, end, held, scratch)

    @kernel
    def walk(
        rows: Any, plan: Any, state: Any, held: Any, scratch: Any, fixed: Any, out: Any
    ) -> None:
        grid, first, counts, folds = cuda.cg.this_grid(), plan[2], plan[3], plan[4]
        for chunk in range(folds.shape[0]):
            at, cols = first[chunk], first[chunk + 1] - first[chunk]
            before, lessons = counts[2 * chunk], counts[2 * chunk + 1]
            meet(at, cols, before, rows, plan, state, held, scratch)
            if cuda.blockIdx.x == 0:
                teach(at, cols, before, lessons, rows, plan, state, held, scratch, fixed, out)
            grid.sync()
            if folds[chunk] > 0:
                fold(before + lessons, state, held, scratch, fixed[2])

    return walk


walk_kalman_classes = _walker(settle_kalman, None)
walk_kalman_targets = _walker(settle_kalman, True)
walk_rls_classes = _walker(settle_rls, None)
walk_rls_targets = _walker(settle_rls, True)
