"""Kalman heads on many features: the walker of `kalman` with rank-one updates that are delayed.

Letters and tuples as there, with A = c (B - Z'Z) + b I of `delayed` in its place: drift scales c
and shifts b, a label adds one factor to Z.
    state = m (K, D) | B tiles | outputs (3, K) | s (N_SCALARS,) | Z (T, m, 8) | its counters (3,)
    fixed = settings p | work (5, max(D, K)) | X, U (GROUP, 8 T) | pair (2, 8 T) | w (m,): scratch,
        X and pair with 0 where they are padded
"""

import math

from streamlearn.jit import lift
from streamlearn.jit._compile import F8, kernel, part, section
from streamlearn.jit.delayed import (
    PENDING,
    SCALE,
    SHIFT,
    add_to_diagonal,
    finish_product,
    fold_within,
    gather,
    join,
    out_of_bounds,
)
from streamlearn.jit.kalman import (
    DECAY_MEAN,
    GAP,
    NU_ROW,
    REPAIRED,
    S_W,
    Out,
    Rows,
    blank,
    correct,
    drift,
    settle_known,
)
from streamlearn.jit.products import lane_products
from streamlearn.jit.symmetric import products

State = tuple[F8, F8, F8, F8, F8, F8]
Fixed = tuple[F8, F8, F8, F8, F8, F8]


@section
def fold_guarded(state: State, s_w: float) -> None:
    """Fold; a diagonal that is not positive then gets 1e-10 s_w, which is counted."""
    m, B, _, s, Z, waiting = state
    D = m.shape[1]
    if not fold_within(B, Z, waiting, D, math.inf):
        s[REPAIRED] += 1.0
        add_to_diagonal(B, D, Z.shape[0], 1e-10 * s_w)


@part
def condition_delayed(noise: float, a: float, ff: float, state: State, fixed: Fixed) -> bool:
    """Time update and measurement update: f and A f stand in pair. Returns whether it folded.

    a = f'A f, ff = f'f. O(D + K D), and the fold now and then.
    """
    m, _, outputs, s, Z, waiting = state
    p, work, f, u = fixed[0], fixed[1], fixed[4][0], fixed[4][1]
    g, loss = drift(s, p)
    g2, floor = 1.0 - loss, loss * p[S_W]
    for i in range(u.shape[0]):
        u[i] = g2 * u[i] + floor * f[i]
    S = noise + g2 * a + floor * ff
    correct(m, outputs, work, u[: m.shape[1]], g if p[DECAY_MEAN] > 0.0 else 1.0, S)
    waiting[SCALE] *= g2
    waiting[SHIFT] = g2 * waiting[SHIFT] + floor
    folds = out_of_bounds(waiting)
    if folds:
        fold_guarded(state, p[S_W])
    join(Z, waiting, u, 1.0 / math.sqrt(S * waiting[SCALE]))
    s[GAP] = 0.0
    if waiting[PENDING] == Z.shape[1]:
        fold_guarded(state, p[S_W])
        folds = True
    return folds


@part
def step(
    t: int, r: int, rows: Rows, state: State, fixed: Fixed, out: Out,
    targets: bool | None, draws: F8 | None,
) -> bool:  # fmt: skip
    """Predict row t, whose f and B f are row r of the group, then learn. Whether it folded."""
    m, _, outputs, s, Z, waiting = state
    p, work, X, U, pair, w = fixed
    for j in range(pair.shape[1]):
        pair[0, j], pair[1, j] = X[r, j], U[r, j]
    finish_product(Z, waiting, pair[0], w, pair[1])
    lane_products(pair, pair[0], w)
    ff, a = w[0], max(w[1], 0.0)
    lane_products(m, pair[0], work[NU_ROW])
    g, loss = drift(s, p)
    b = p[S_W] * ff
    known = (g, (1.0 - loss) * a + loss * b, a - b)
    noise = settle_known(t, rows, (outputs, s), (p, work), out, known, targets, draws)
    return noise > 0.0 and condition_delayed(noise, a, ff, state, fixed)


@kernel
def walk_delayed(
    rows: Rows, state: State, fixed: Fixed, out: Out, targets: bool | None, draws: F8 | None
) -> None:
    """Walk a block row by row: predict, then learn; products with B by groups between folds."""
    F, codes = rows[0], rows[1]
    tiles, Z, waiting = state[1], state[4], state[5]
    X, U = fixed[2], fixed[3]
    t = 0
    while t < F.shape[0]:
        stop, n = gather(t, F, codes, Z.shape[1] - int(waiting[PENDING]), X, True)
        products(tiles, X, U, n)
        r, folded = 0, False
        while t < stop and not folded:
            if codes[t] == lift.SKIP:
                blank(t, state[2], targets is None, out[0], out[1])
            else:
                folded = step(t, r, rows, state, fixed, out, targets, draws)
                r += 1
            t += 1
