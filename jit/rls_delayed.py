"""Recursive least squares on many features: `rls` with rank-one updates that are delayed.

Letters and tuples as there, with P = c (B - Z'Z) of `delayed`: a lesson adds a factor to Z, with
the leak one more, and forgetting scales c. The diagonal of P is looked at, as after every row
there, at every fold; between two, a leverage tells whether P has lost its sign.
    state = W (K, D) | B tiles | outputs (3, K) | s (N_SCALARS,) | Z (T, m, 8) | its counters (3,)
    fixed = settings p | work (work_rows, max(D, K)) | order (D,) int64 | X, U (GROUP, 8 T) |
        pair (2, 8 T) | w (m,): scratch, X and pair with 0 where they are padded
"""

import math

from streamlearn.jit import lift
from streamlearn.jit._compile import F8, I8, kernel, part, section
from streamlearn.jit.delayed import (
    PENDING,
    SCALE,
    add_to_diagonal,
    finish_product,
    finish_with,
    fold_within,
    gather,
    is_lesson,
    join,
    out_of_bounds,
)
from streamlearn.jit.kalman import blank
from streamlearn.jit.products import lane_products
from streamlearn.jit.rls import (
    LAM,
    LARGEST_P,
    LEAK,
    NU,
    REFRESH,
    RESETS,
    RIDGE,
    SAMPLES,
    SINCE,
    Out,
    Rows,
    correct,
    follow_targets,
    settle,
)
from streamlearn.jit.symmetric import column, products

State = tuple[F8, F8, F8, F8, F8, F8]
Fixed = tuple[F8, F8, I8, F8, F8, F8, F8]


@part
def per_lesson(p: F8) -> int:
    """Factors that a lesson adds."""
    return 2 if p[LEAK] > 0.0 else 1


@section
def leak(i: int, c: float, state: State, fixed: Fixed) -> None:
    """R_ii <- R_ii + c. O(p D + K D)."""
    W, B, _, _, Z, waiting = state
    pair, w = fixed[5], fixed[6]
    e, q = pair[0], pair[1]
    for j in range(e.shape[0]):
        e[j] = 0.0
    e[i] = 1.0
    column(B, i, q)
    for k in range(int(waiting[PENDING])):
        w[k] = Z[i // 8, k, i % 8]
    finish_with(Z, waiting, e, w, q)
    s = 1.0 + c * max(q[i], 0.0)
    for k in range(W.shape[0]):
        share = W[k, i] * (c / s)
        for j in range(W.shape[1]):
            W[k, j] -= q[j] * share
    join(Z, waiting, q, math.sqrt(c / s / waiting[SCALE]))


@part
def begin_anew(state: State, p: F8) -> None:
    """P <- I / ridge; nothing waits then."""
    W, B, _, s, Z, waiting = state
    B[:] = 0.0
    add_to_diagonal(B, W.shape[1], Z.shape[0], 1.0 / p[RIDGE])
    waiting[PENDING], waiting[SCALE] = 0.0, 1.0
    s[RESETS] += 1.0
    s[SINCE] = 0.0


@section
def fold_checked(state: State, p: F8) -> None:
    """Fold; where the diagonal has wound up or lost its sign, begin anew."""
    W, B, _, _, Z, waiting = state
    if not fold_within(B, Z, waiting, W.shape[1], LARGEST_P / p[RIDGE]):
        begin_anew(state, p)


@part
def begin_anew_at(state: State, p: F8, pair: F8) -> float:
    """Begin anew before the lesson in pair: P f to its side. Returns its leverage."""
    begin_anew(state, p)
    h = 0.0
    for j in range(pair.shape[1]):
        pair[1, j] = pair[0, j] / p[RIDGE]
        h += pair[0, j] * pair[1, j]
    return h


@part
def renew(state: State, fixed: Fixed) -> bool:
    """As `renew` of `analytic`: whether the ridge was refreshed, one coordinate after the other.

    D leaks at once cost 1.5 D^3 flops in folds, and nothing is factored.
    """
    W, _, _, s, Z, waiting = state
    p, order = fixed[0], fixed[2]
    s[SINCE] += 1.0
    if s[SINCE] < max(p[REFRESH], W.shape[1]):
        return False
    extra = p[RIDGE] * (1.0 - p[LAM] ** s[SINCE])
    s[SINCE] = 0.0
    for i in range(W.shape[1]):
        leak(order[i], extra, state, fixed)
        if waiting[PENDING] == Z.shape[1]:
            fold_checked(state, p)
    return True


@part
def teach(w: float, h: float, state: State, fixed: Fixed) -> bool:
    """One lesson: f and P f stand in pair, W f and targets in work. Returns whether P was written.

    h = f'P f as it came out. Far below 0 it tells that P has wound up and lost its sign: each
    lesson would then blow up the weights by the square of the one before, long before the fold.
    """
    W, _, _, s, Z, waiting = state
    p, work, order, pair = fixed[0], fixed[1], fixed[2], fixed[5]
    D, u = W.shape[1], pair[1]
    lost = h < -0.1 * p[LAM] / w
    if lost:
        h = begin_anew_at(state, p, pair)
    S = p[LAM] / w + max(h, 0.0)
    correct(W, work, u[:D], S)
    join(Z, waiting, u, 1.0 / math.sqrt(S * waiting[SCALE]))
    waiting[SCALE] /= p[LAM]
    if p[LEAK] > 0.0:
        leak(order[int(s[SAMPLES]) % D], p[LEAK] * D, state, fixed)
    folds = waiting[PENDING] + per_lesson(p) > Z.shape[1] or out_of_bounds(waiting)
    if folds:
        fold_checked(state, p)
    return folds or lost


@part
def step(
    t: int, r: int, rows: Rows, state: State, fixed: Fixed, out: Out, targets: bool | None
) -> bool:  # fmt: skip
    """Predict row t, then learn. Whether B was written: products with it are void then.

    Its B f, where that is needed, is row r of the group; else r is -1.
    """
    W, _, outputs, s, Z, waiting = state
    p, work, U, pair, scratch = fixed[0], fixed[1], fixed[4], fixed[5], fixed[6]
    for j in range(rows[0].shape[1]):
        pair[0, j] = rows[0][t, j]
    h = 0.0
    if r >= 0:
        for j in range(pair.shape[1]):
            pair[1, j] = U[r, j]
        finish_product(Z, waiting, pair[0], scratch, pair[1])
        lane_products(pair[1:], pair[0], scratch)
        h = scratch[0]
    lane_products(W, pair[0], work[NU])
    w = settle(t, max(h, 0.0), rows, (outputs, s), (p, work), out, targets)
    if not is_lesson(rows[1][t]):
        return False
    folded = teach(w, h, state, fixed)
    if targets is not None:
        follow_targets(W, outputs, s, p[LAM], w, max(h, 0.0), work)
    s[SAMPLES] += 1.0
    if p[REFRESH] > 0.0:
        folded = renew(state, fixed) or folded
    return folded


@kernel
def walk_delayed(rows: Rows, state: State, fixed: Fixed, out: Out, targets: bool | None) -> None:
    """Walk a block row by row: predict, then learn; products with B by groups between folds."""
    F, codes = rows[0], rows[1]
    tiles, Z, waiting = state[1], state[4], state[5]
    p, X, U = fixed[0], fixed[3], fixed[4]
    asks = targets is not None
    t = 0
    while t < F.shape[0]:
        room = (Z.shape[1] - int(waiting[PENDING])) // per_lesson(p)
        ahead = F.shape[0]
        if room == 0:  # a leak that was not there before: row by row to the lesson that folds
            if is_lesson(codes[t]):
                fold_checked(state, p)
            room, ahead = 1, t + 1
        stop, n = gather(t, F[:ahead], codes, room, X, asks)
        products(tiles, X, U, n)
        r, folded = 0, False
        while t < stop and not folded:
            if codes[t] == lift.SKIP:
                blank(t, state[2], targets is None, out[0], out[1])
            else:
                known = asks or is_lesson(codes[t])
                folded = step(t, r if known else -1, rows, state, fixed, out, targets)
                r += int(known)
            t += 1
