"""Kalman heads with a covariance and a drift coefficient for every output, in the standard form.

Letters as in `kalman`. Head h = 0 stands for every class that is not known yet: its targets were
all 0, so a class begins as a copy of it, exactly as if it had been there from the start. Class k is
head k + 1; target k is head k. Inside a row the heads are independent given their deltas.
    state = m (K, D) | A (H, D, D) | outputs (3, K) | s | heads (H, N_SCALARS): delta is own
    fixed = settings | work, as in `kalman` | seen (H, D) scratch, A f | table (7, H) scratch
"""

import math

from streamlearn.jit import lift
from streamlearn.jit._compile import F8, kernel, part
from streamlearn.jit.kalman import (
    DECAY_MEAN,
    GAP,
    LOG_ALPHA,
    LR_ALPHA,
    NU_ROW,
    P_ROW,
    S2,
    S_W,
    SAMPLES,
    SOFTMAX,
    TEMPER,
    U_ROW,
    Y_ROW,
    Out,
    Rows,
    blank,
    condition_standard,
    count,
    drift,
    evaluate,
    know,
    latent,
    show_classes,
    step_delta,
    take_target,
)
from streamlearn.jit.monte_carlo import BY_MU, BY_SD, MU, SD
from streamlearn.jit.open_classes import LOG_ALPHA_MAX, LOG_ALPHA_MIN, step
from streamlearn.jit.products import symmetric_product

_PREDICT = 1
_TARGET, _SKIP = lift.TARGET, lift.SKIP
_G, _V, _AB, _NU_H, _MU_H, _Y_H, _SLOPE = range(7)  # rows of the table
TABLE_ROWS = 7

State = tuple[F8, F8, F8, F8, F8]
Fixed = tuple[F8, F8, F8, F8]


@part
def alive(h: int, outputs: F8, first: int) -> bool:
    """Whether head h is in use: all but those of classes that are not known yet."""
    return bool(first == 0 or h == 0 or outputs[0, h - 1] > 0.0)


@part
def tell(state: State, first: int) -> None:
    """Every head knows the gap and the number of labels, which all of them share."""
    _, A, outputs, s, heads = state
    for h in range(A.shape[0]):
        if alive(h, outputs, first):
            heads[h, GAP], heads[h, SAMPLES] = s[GAP], s[SAMPLES]


@part
def look(f: F8, state: State, fixed: Fixed, first: int) -> None:
    """gamma, v, a - b, m'f and the mean of every head. O(H D^2)."""
    m, A, outputs, _, heads = state
    p, _, seen, table = fixed
    for h in range(A.shape[0]):
        if not alive(h, outputs, first):
            continue
        symmetric_product(A[h], f, seen[h])
        g, loss = drift(heads[h], p)
        v, a_b = latent(f, seen[h], p[S_W], loss)
        nu = 0.0
        if h >= first:
            for i in range(f.shape[0]):
                nu += m[h - first, i] * f[i]
        table[_G, h], table[_V, h], table[_AB, h], table[_NU_H, h] = g, v, a_b, nu
        table[_MU_H, h] = (g if p[DECAY_MEAN] > 0.0 else 1.0) * nu


@part
def mean_of(values: F8, seen: F8) -> float:
    """Mean over the known classes, 0 where none is. O(K)."""
    total, n = 0.0, 0.0
    for k in range(seen.shape[0]):
        if seen[k] > 0.0:
            total += values[k]
            n += 1.0
    return total / n if n > 0.0 else 0.0


@part
def be_born(c: int, state: State, fixed: Fixed) -> None:
    """Head c + 1 <- head 0. O(D^2)."""
    _, A, _, _, heads = state
    _, _, seen, table = fixed
    for i in range(A.shape[1]):
        seen[c + 1, i] = seen[0, i]
        for j in range(A.shape[1]):
            A[c + 1, i, j] = A[0, i, j]
    for i in range(heads.shape[1]):
        heads[c + 1, i] = heads[0, i]
    for i in range(table.shape[0]):
        table[i, c + 1] = table[i, 0]


@part
def weigh(outputs: F8, s: F8, fixed: Fixed, c: int, draws: F8 | None) -> int:
    """Class probabilities into work; one kappa, by the mean variance, whatever the scores' origin.

    Equal variances give what one covariance gives. O(K), or O(pairs K) with draws.
    """
    p, work, _, table = fixed
    K = outputs.shape[1]
    v, mu = table[_V, 1:], table[_MU_H, 1:]
    alpha = math.exp(s[LOG_ALPHA])
    kappa = alpha / math.sqrt(1.0 + TEMPER * alpha * alpha * mean_of(v, outputs[0]))
    if draws is not None:
        for k in range(K):
            draws[MU, k] = mu[k]
            draws[SD, k] = math.sqrt(v[k]) if outputs[0, k] > 0.0 else 0.0
    known = c >= 0 and outputs[0, c] > 0.0
    return evaluate(mu, outputs[0], kappa, s, p, work[P_ROW], draws, c if known else -1)


@part
def class_slopes(c: int, outputs: F8, s: F8, fixed: Fixed, draws: F8 | None) -> float:
    """d log p_c / d gamma of every known class into the table; returns d log p_c / d log alpha."""
    p, work, _, table = fixed
    prob, nu, mu = work[P_ROW], table[_NU_H, 1:], table[_MU_H, 1:]
    alpha = math.exp(s[LOG_ALPHA])
    q = 1.0 + TEMPER * alpha * alpha * mean_of(table[_V, 1:], outputs[0])
    kappa = alpha / math.sqrt(q)
    lead, n = mu[c], 0.0
    for k in range(outputs.shape[1]):
        if outputs[0, k] > 0.0:
            lead -= prob[k] * mu[k]
            n += 1.0
    slope_alpha = 0.0 if draws is not None else kappa / q * lead
    slope_v = -(math.pi / 16.0) * alpha * alpha * kappa / q * lead / n
    for k in range(outputs.shape[1]):
        if outputs[0, k] > 0.0:
            by_mu = kappa * ((1.0 if k == c else 0.0) - prob[k])
            by_v = slope_v
            if draws is not None:
                by_mu = alpha * draws[BY_MU, k]
                by_v = 0.5 * alpha * draws[BY_SD, k] / draws[SD, k]
                slope_alpha += by_mu * mu[k] + alpha * draws[BY_SD, k] * draws[SD, k]
            slope = by_v * 2.0 * table[_G, k + 1] * table[_AB, k + 1]
            table[_SLOPE, k + 1] = slope + (by_mu * nu[k] if p[DECAY_MEAN] > 0.0 else 0.0)
    return slope_alpha


@part
def density_slope(h: int, r: float, scale: float, p: F8, table: F8) -> None:
    """d log N(y; ., scale S) / d gamma of head h into the table; r is its residual."""
    S = table[_V, h] + p[S2]
    slope_S = 2.0 * table[_G, h] * table[_AB, h]
    slope = 0.5 * (r * r / scale / S - 1.0) * slope_S / S
    if p[DECAY_MEAN] > 0.0:
        slope += r * table[_NU_H, h] / scale / S
    table[_SLOPE, h] = slope


@part
def settle_classes(
    t: int, c: int, bits: int, state: State, fixed: Fixed, out: Out, draws: F8 | None
) -> None:
    """Answer; for c >= 0 know the class and move all deltas and alpha."""
    _, A, outputs, s, heads = state
    p, work, _, table = fixed
    K = outputs.shape[1]
    best = weigh(outputs, s, fixed, c, draws)
    show_classes(t, bits, best, work[P_ROW, :K], outputs, out)
    if c < 0:
        return
    if know(c, outputs, s):
        be_born(c, state, fixed)
        weigh(outputs, s, fixed, c, draws)
    slope_alpha = class_slopes(c, outputs, s, fixed, draws)
    for h in range(A.shape[0]):
        table[_Y_H, h] = 1.0 if h == c + 1 else 0.0
        if p[SOFTMAX] == 0.0:
            density_slope(h, table[_Y_H, h] - table[_MU_H, h], 1.0, p, table)
        elif h == 0:
            table[_SLOPE, h] = 0.0
        if alive(h, outputs, 1):
            step_delta(heads[h], p, table[_G, h], table[_SLOPE, h])
    s[LOG_ALPHA] = step(s[LOG_ALPHA], slope_alpha, p[LR_ALPHA], LOG_ALPHA_MIN, LOG_ALPHA_MAX)


@part
def settle_targets(t: int, c: int, rows: Rows, state: State, fixed: Fixed, out: Out) -> None:
    """Answer; for a label move every delta by its own density, then mean and scale."""
    _, y, weight, mode = rows[1:]
    _, A, outputs, s, heads = state
    p, _, _, table = fixed
    if not mode[t] & _PREDICT:
        blank(t, outputs, False, out[0], out[1])
    for h in range(A.shape[0]):
        S = table[_V, h] + p[S2]
        if mode[t] & _PREDICT:
            out[0][t, h] = outputs[1, h] + table[_MU_H, h]
            out[1][t, h] = outputs[2, h] * S
        if c == _TARGET:
            table[_Y_H, h] = y[t, h]
            r = y[t, h] - outputs[1, h] - table[_MU_H, h]
            density_slope(h, r, outputs[2, h], p, table)
            if s[SAMPLES] >= 2.0:
                step_delta(heads[h], p, table[_G, h], table[_SLOPE, h])
            take_target(h, y[t, h], r, S, weight[t], outputs, s, p)


@part
def condition_each(f: F8, noise: float, state: State, fixed: Fixed, first: int) -> None:
    """Time and measurement update of every head. O(H D^2)."""
    m, A, outputs, _, heads = state
    p, work, seen, table = fixed
    for h in range(A.shape[0]):
        if not alive(h, outputs, first):
            continue
        k = h - first
        for i in range(f.shape[0]):
            work[U_ROW, i] = seen[h, i]
        work[NU_ROW, 0], work[Y_ROW, 0] = table[_NU_H, h], table[_Y_H, h]
        own = slice(max(k, 0), k + 1)
        condition_standard(f, noise, (m[own], A[h], outputs[:, own], heads[h]), (p, work))


@kernel
def walk_each(
    rows: Rows, state: State, fixed: Fixed, out: Out, targets: bool | None, draws: F8 | None
) -> None:
    """Walk a block row by row: predict, then learn."""
    F, codes, _, weight, mode = rows
    first = 1 if targets is None else 0
    for t in range(F.shape[0]):
        c = codes[t]
        if c == _SKIP:
            blank(t, state[2], targets is None, out[0], out[1])
            continue
        look(F[t], state, fixed, first)
        if targets is None:
            settle_classes(t, c, mode[t], state, fixed, out, draws)
        else:
            settle_targets(t, c, rows, state, fixed, out)
        noise = count(c, mode[t], weight[t], state[2], state[3], fixed[0], targets)
        tell(state, first)
        if noise > 0.0:
            condition_each(F[t], noise, state, fixed, first)
            state[3][GAP] = 0.0
