"""Kalman heads: weights that drift, one covariance for all outputs, a learned drift coefficient.

Letters as in Titsias et al. (2023), arXiv 2306.08448: m means of the weights, A their shared
covariance, g = gamma, s_w = prior variance, s2 = noise variance, f = features, a = f'Af,
b = s_w f'f, v = latent variance. D features of the head, K classes or targets, n rows.

A walker takes four tuples of arrays, float64 and C-contiguous unless said (a plain tuple costs less
a call than a record), and two arguments whose type says what is compiled (without what is not
needed, a cold start is a second shorter): targets, None for classes and True for numbers; draws,
None for mean-field probabilities, or scratch (monte_carlo.ROWS, >= K) for Monte Carlo.
    rows  = F (n, D) and codes (n,) int64 from `lift` | y (n, 1 or K) | weight (n,) | mode (n,)
    state = m (K, D) | A (D, D) | outputs (3, K) | s (N_SCALARS,)
    fixed = settings p (N_SETTINGS,) | work (work_rows, max(D, K)) scratch
    out   = answer (n, K) | side (n, 1 or K): probabilities and class, or mean and variance
outputs: rows (classes) or weight (targets) learnt, running mean, running variance scale.
K is a capacity for classes: those known have outputs[0] > 0.
"""

import math

import numpy as np

from streamlearn.jit import lift
from streamlearn.jit._compile import F8, I8, U1, kernel, part
from streamlearn.jit.monte_carlo import BY_MU, BY_SD, MU, SD, expected_softmax, stream_of
from streamlearn.jit.open_classes import LOG_ALPHA_MAX, LOG_ALPHA_MIN, balanced, softmax, step
from streamlearn.jit.products import row_products, symmetric_product

# places in the state vector s, after the counters of `lift`
DELTA, LOG_ALPHA, GAP, SAMPLES, CLASSES, REPAIRED = range(3, 9)
N_SCALARS = 9
# places in the settings p, after those of `lift`
(S_W, S2, LR_DELTA, DELTA_MAX, LR_ALPHA, DECAY_MEAN, SOFTMAX, CENTRE, RESCALE,
 QR_EVERY, BALANCE, PAIRS, KEY, DELTA_MIN) = range(2, 16)  # fmt: skip
N_SETTINGS = 16

_PREDICT, _LEARN = 1, 2
_REJECT, _EMPTY, _TARGET, _SKIP = lift.REJECT, lift.EMPTY, lift.TARGET, lift.SKIP
_CHECK_EVERY = 1000  # updates between two looks at the diagonal of A
HEAVIEST = 1e12  # a weight beyond it counts as this: it would leave no digit in the covariance
TEMPER = math.pi / 8.0  # of the mean field: kappa = alpha / sqrt(1 + pi alpha^2 v / 8)
MEMORY = 1000.0  # rows over which the variance scale of a target is remembered
# rows of work: A f, m'f, probabilities, targets, scratch
U_ROW, NU_ROW, P_ROW, Y_ROW, Z_ROW, EXTRA_ROW = range(6)

Rows = tuple[F8, I8, F8, F8, U1]
State = tuple[F8, F8, F8, F8]
Fixed = tuple[F8, F8]
Out = tuple[F8, F8]


def work_rows(form: str, D: int) -> int:
    """Rows of scratch that a form needs."""
    return {"standard": 5, "joseph": 6, "sqrt": 6 + 2 * D}[form]


# -- answers -------------------------------------------------------------------------------------


@part
def drift(s: F8, p: F8) -> tuple[float, float]:
    """gamma and 1 - gamma^2 of all time updates that are due: gamma^2 = exp(-delta (gap + 1)).

    delta counts as p[DELTA_MIN] at least.
    """
    delta = max(s[DELTA], p[DELTA_MIN])
    if delta == 0.0:
        return 1.0, 0.0
    loss = -math.expm1(-delta * (s[GAP] + 1.0))
    return math.sqrt(1.0 - loss), loss


@part
def latent(f: F8, u: F8, s_w: float, loss: float) -> tuple[float, float]:
    """Latent variance v = g^2 a + (1 - g^2) b, and a - b; u = A f (for either form of A)."""
    a = 0.0
    b = 0.0
    for i in range(f.shape[0]):
        a += f[i] * u[i]
        b += f[i] * f[i]
    a = max(a, 0.0)
    b *= s_w
    return (1.0 - loss) * a + loss * b, a - b


@part
def project(m: F8, f: F8, nu: F8) -> None:
    """nu <- m f, (K,): the means before the time update that is due. O(K D)."""
    for k in range(m.shape[0]):
        total = 0.0
        for i in range(f.shape[0]):
            total += m[k, i] * f[i]
        nu[k] = total


@part
def blank(t: int, outputs: F8, classify: bool, answer: F8, side: F8) -> None:
    """No answer: NaN, but 0 for a class that is not known, as in a column that is not there yet."""
    for k in range(answer.shape[1]):
        answer[t, k] = 0.0 if classify and outputs[0, k] == 0.0 else math.nan
    for k in range(side.shape[1]):
        side[t, k] = math.nan


# -- the drift coefficient and the calibration ---------------------------------------------------


@part
def gaussian_slope(
    y: F8, nu: F8, outputs: F8, S: float, g: float, slope_S: float, decay: bool
) -> float:
    """dL/dg of the Gaussian log predictive density, over the known outputs. O(K)."""
    shrink = g if decay else 1.0
    slope = 0.0
    for k in range(outputs.shape[1]):
        if outputs[0, k] > 0.0:
            r = y[k] - outputs[1, k] - shrink * nu[k]
            slope += 0.5 * (r * r / outputs[2, k] / S - 1.0) * slope_S / S
            if decay:
                slope += r * nu[k] / outputs[2, k] / S
    return slope


@part
def step_delta(s: F8, p: F8, g: float, slope_g: float) -> None:
    """One step of delta, given the slope in g; dg/ddelta = -(gap + 1) g / 2."""
    slope = -0.5 * (s[GAP] + 1.0) * g * slope_g
    s[DELTA] = step(s[DELTA], slope, p[LR_DELTA], 0.0, p[DELTA_MAX])


# -- one row: what all forms share ---------------------------------------------------------------


@part
def settle(
    t: int, rows: Rows, state: State, fixed: Fixed, out: Out,
    targets: bool | None, draws: F8 | None,
) -> float:  # fmt: skip
    """Answer row t and adapt. Returns the noise variance of its label, 0 if it teaches nothing."""
    F, codes = rows[0], rows[1]
    m, _, outputs, s = state
    p, work = fixed
    if codes[t] == _SKIP:
        blank(t, outputs, targets is None, out[0], out[1])
        return 0.0
    g, loss = drift(s, p)
    v, a_b = latent(F[t], work[U_ROW], p[S_W], loss)
    project(m, F[t], work[NU_ROW])
    return settle_known(t, rows, (outputs, s), fixed, out, (g, v, a_b), targets, draws)


@part
def settle_known(
    t: int, rows: Rows, heads: tuple[F8, F8], fixed: Fixed, out: Out,
    known: tuple[float, float, float], targets: bool | None, draws: F8 | None,
) -> float:  # fmt: skip
    """`settle` where g, v and a - b are known, and m f stands in work. heads = outputs, s."""
    _, codes, y, weight, mode = rows
    outputs, s = heads
    p, work = fixed
    g, v, a_b = known
    c = codes[t]
    if targets is None:
        settle_class(t, c, mode[t], outputs, s, p, work, out, g, v, a_b, draws)
    else:
        for k in range(outputs.shape[1]):
            work[Y_ROW, k] = y[t, k] if c == _TARGET else 0.0
        settle_target(t, c, mode[t], weight[t], outputs, s, p, work, out, g, v, a_b)
    return count(c, mode[t], weight[t], outputs, s, p, targets)


@part
def count(
    c: int, bits: int, weight: float, outputs: F8, s: F8, p: F8, targets: bool | None
) -> float:
    """Count the row's label, or the time update that is due for want of it; its noise variance."""
    if c == _EMPTY:
        s[GAP] += 1.0 if bits & _LEARN else 0.0
    if c < 0 and c != _TARGET:
        return 0.0
    s[SAMPLES] += 1.0
    w = min(weight, HEAVIEST)
    if targets is None:
        w *= balanced(outputs[0], c) if p[BALANCE] > 0.0 else 1.0
    return float(p[S2] / w)


@part
def evaluate(
    mu: F8, seen: F8, factor: float, s: F8, p: F8, prob: F8, draws: F8 | None, c: int
) -> int:
    """prob <- class probabilities; returns the class, or -1 where none is known.

    Mean field: softmax(factor mu). Monte Carlo: of the means and deviations in draws, where the
    slopes of log prob_c are left.
    """
    if draws is None:
        return softmax(mu, seen, factor, prob)
    best = -1
    for k in range(seen.shape[0]):
        prob[k] = 0.0
        best = k if seen[k] > 0.0 else best
    if best < 0:
        return best
    start = stream_of(p[KEY], s[SAMPLES])
    expected_softmax(seen, math.exp(s[LOG_ALPHA]), start, int(p[PAIRS]), draws, prob, c)
    for k in range(best, -1, -1):
        best = k if seen[k] > 0.0 and prob[k] >= prob[best] else best
    return best


@part
def show_classes(t: int, bits: int, best: int, prob: F8, outputs: F8, out: Out) -> None:
    """The answer of a row that asks, blank elsewhere. O(K)."""
    if not bits & _PREDICT:
        blank(t, outputs, True, out[0], out[1])
        return
    out[1][t, 0] = math.nan if best < 0 else float(best)
    for k in range(prob.shape[0]):
        out[0][t, k] = prob[k]


@part
def know(c: int, outputs: F8, s: F8) -> bool:
    """Count a row of class c; whether it is the first."""
    outputs[0, c] += 1.0
    s[CLASSES] = max(s[CLASSES], c + 1.0)
    return bool(outputs[0, c] == 1.0)


@part
def settle_class(
    t: int, c: int, bits: int, outputs: F8, s: F8, p: F8, work: F8, out: Out,
    g: float, v: float, a_b: float, draws: F8 | None,
) -> None:  # fmt: skip
    """Answer with probabilities; for c >= 0 know the class (its zero column is exact) and adapt.

    Mean field: p = softmax(kappa mu), kappa = alpha / sqrt(q), q = 1 + pi alpha^2 v / 8. Leaves the
    one-hot targets in work.
    """
    K = outputs.shape[1]
    nu, prob, y = work[NU_ROW, :K], work[P_ROW, :K], work[Y_ROW, :K]
    shrink = g if p[DECAY_MEAN] > 0.0 else 1.0
    alpha = math.exp(s[LOG_ALPHA])
    q = 1.0 + TEMPER * alpha * alpha * v
    kappa = alpha / math.sqrt(q)
    if draws is not None:
        for k in range(K):
            draws[MU, k], draws[SD, k] = shrink * nu[k], math.sqrt(v)
    known = c >= 0 and outputs[0, c] > 0.0
    best = evaluate(nu, outputs[0], kappa * shrink, s, p, prob, draws, c if known else -1)
    show_classes(t, bits, best, prob, outputs, out)
    if c < 0:
        return
    if know(c, outputs, s):
        evaluate(nu, outputs[0], kappa * shrink, s, p, prob, draws, c)
    for k in range(K):
        y[k] = 1.0 if k == c else 0.0
    slope_S = 2.0 * g * a_b
    slope_alpha, slope_g, slope_v = 0.0, 0.0, 0.0
    if draws is None:
        lead = nu[c]
        for k in range(K):
            lead -= prob[k] * nu[k]
        slope_alpha = kappa / q * shrink * lead
        slope_g = kappa * lead
        slope_v = -(math.pi / 16.0) * alpha * alpha * kappa / q * shrink * lead
    else:
        for k in range(K):
            slope_g += alpha * draws[BY_MU, k] * nu[k]
            slope_alpha += alpha * draws[BY_SD, k] * draws[SD, k]
        slope_v = 0.5 * slope_alpha / v
        slope_alpha += shrink * slope_g
    if p[SOFTMAX] > 0.0:
        slope = slope_v * slope_S + (slope_g if p[DECAY_MEAN] > 0.0 else 0.0)
    else:
        slope = gaussian_slope(y, nu, outputs, v + p[S2], g, slope_S, p[DECAY_MEAN] > 0.0)
    step_delta(s, p, g, slope)
    s[LOG_ALPHA] = step(s[LOG_ALPHA], slope_alpha, p[LR_ALPHA], LOG_ALPHA_MIN, LOG_ALPHA_MAX)


@part
def settle_target(
    t: int, c: int, bits: int, w: float, outputs: F8, s: F8, p: F8, work: F8, out: Out,
    g: float, v: float, a_b: float,
) -> None:  # fmt: skip
    """Answer with mean and variance; for a label adapt, then let running mean and scale take it in.

    The first two labels only set mean and scale: before them a residual has no unit.
    """
    K, answer, side = outputs.shape[1], out[0], out[1]
    nu, y, S = work[NU_ROW, :K], work[Y_ROW, :K], v + p[S2]
    shrink = g if p[DECAY_MEAN] > 0.0 else 1.0
    if bits & _PREDICT:
        for k in range(K):
            answer[t, k] = outputs[1, k] + shrink * nu[k]
            side[t, k] = outputs[2, k] * S
    else:
        blank(t, outputs, False, answer, side)
    if c != _TARGET:
        return
    if s[SAMPLES] >= 2.0:
        slope = gaussian_slope(y, nu, outputs, S, g, 2.0 * g * a_b, p[DECAY_MEAN] > 0.0)
        step_delta(s, p, g, slope)
    for k in range(K):
        r = y[k] - outputs[1, k] - shrink * nu[k]
        take_target(k, y[k], r, S, w, outputs, s, p)


@part
def take_target(k: int, y: float, r: float, S: float, w: float, outputs: F8, s: F8, p: F8) -> None:
    """Take target k into its running mean and scale; r is its residual."""
    if p[RESCALE] > 0.0 and s[SAMPLES] >= 1.0:
        ratio = min(r * r / S, lift.LARGEST)  # a square that overflows would stay for ever
        outputs[2, k] += (ratio - outputs[2, k]) / min(s[SAMPLES], MEMORY)
    outputs[0, k] += w
    if p[CENTRE] > 0.0:
        share = w / outputs[0, k]
        outputs[1, k] += y * share - outputs[1, k] * share


@part
def correct(m: F8, outputs: F8, work: F8, u: F8, shrink: float, S: float) -> None:
    """m <- shrink m + (A f / S) e', e the innovations; targets and m'f stand in work. O(K D)."""
    for k in range(m.shape[0]):
        if outputs[0, k] > 0.0:
            e = (work[Y_ROW, k] - outputs[1, k] - shrink * work[NU_ROW, k]) / S
            for i in range(u.shape[0]):
                m[k, i] = shrink * m[k, i] + u[i] * e


@part
def guard(A: F8, s: F8, s_w: float) -> None:
    """Every 1000 updates: a diagonal that is not positive gets 1e-10 s_w, which is counted."""
    if int(s[SAMPLES]) % _CHECK_EVERY != 0:  # of numbers with a fraction: 7 ns of an update
        return
    for i in range(A.shape[0]):
        if not A[i, i] > 0.0:
            s[REPAIRED] += 1.0
            for j in range(A.shape[0]):
                A[j, j] += 1e-10 * s_w
            return


# -- standard form -------------------------------------------------------------------------------


@part
def condition_standard(f: F8, noise: float, state: State, fixed: Fixed) -> None:
    """Time update with the new delta and measurement update, fused: A <- g^2 A + (1 - g^2) s_w I -
    z z'.

    z = A f / sqrt(S), so that A stays symmetric to the last bit. One pass over A, O(D^2 + K D).
    """
    m, A, outputs, s = state
    p, work = fixed
    D = A.shape[0]
    u, z = work[U_ROW, :D], work[Z_ROW, :D]
    g, loss = drift(s, p)
    g2, floor = 1.0 - loss, loss * p[S_W]
    S = noise
    for i in range(D):
        u[i] = g2 * u[i] + floor * f[i]
        S += f[i] * u[i]
    correct(m, outputs, work, u, g if p[DECAY_MEAN] > 0.0 else 1.0, S)
    root = 1.0 / math.sqrt(S)
    for i in range(D):
        z[i] = u[i] * root
    for i in range(D):
        zi = z[i]
        for j in range(D):
            A[i, j] = g2 * A[i, j] - zi * z[j]
        A[i, i] += floor
    s[GAP] = 0.0
    guard(A, s, p[S_W])


@kernel
def walk_standard(
    rows: Rows, state: State, fixed: Fixed, out: Out, targets: bool | None, draws: F8 | None
) -> None:
    """Walk a block row by row: predict, then learn."""
    for t in range(rows[0].shape[0]):
        symmetric_product(state[1], rows[0][t], fixed[1][U_ROW])
        noise = settle(t, rows, state, fixed, out, targets, draws)
        if noise > 0.0:
            condition_standard(rows[0][t], noise, state, fixed)


# -- Joseph form ---------------------------------------------------------------------------------


@part
def condition_joseph(f: F8, noise: float, state: State, fixed: Fixed) -> None:
    """As condition_standard, with A <- (I - k f') A (I - k f')' + noise k k', symmetrised."""
    m, A, outputs, s = state
    p, work = fixed
    D = A.shape[0]
    u, k, b = work[U_ROW, :D], work[Z_ROW, :D], work[EXTRA_ROW, :D]
    g, loss = drift(s, p)
    g2, floor = 1.0 - loss, loss * p[S_W]
    S = noise
    for i in range(D):
        u[i] = g2 * u[i] + floor * f[i]
        S += f[i] * u[i]
    correct(m, outputs, work, u, g if p[DECAY_MEAN] > 0.0 else 1.0, S)
    for i in range(D):
        k[i] = u[i] / S
    for i in range(D):
        for j in range(D):
            A[i, j] = g2 * A[i, j] - k[i] * u[j]
        A[i, i] += floor
    row_products(A, f, b)
    for i in range(D):
        for j in range(D):
            A[i, j] = (A[i, j] - b[i] * k[j]) + noise * k[i] * k[j]
    for i in range(D):
        for j in range(i):
            A[i, j] = A[j, i] = 0.5 * (A[i, j] + A[j, i])
    s[GAP] = 0.0
    guard(A, s, p[S_W])


@kernel
def walk_joseph(
    rows: Rows, state: State, fixed: Fixed, out: Out, targets: bool | None, draws: F8 | None
) -> None:
    """As walk_standard, in Joseph's form."""
    for t in range(rows[0].shape[0]):
        symmetric_product(state[1], rows[0][t], fixed[1][U_ROW])
        noise = settle(t, rows, state, fixed, out, targets, draws)
        if noise > 0.0:
            condition_joseph(rows[0][t], noise, state, fixed)


# -- square root: A = R'R ------------------------------------------------------------------------
# R is the transpose of the specification's S: rows of R are then what both updates walk along.


@part
def root_drift(R: F8, M: F8, keep: float, fresh: float) -> None:
    """R <- the triangular factor of the stack of keep R and fresh I: A <- keep^2 A + fresh^2 I.

    By Householder reflections, O(D^3). M (2D, D) scratch. Column c of the
    lower half is 0 below its row c, which is left out.
    """
    D = R.shape[0]
    for i in range(D):
        for j in range(D):
            M[i, j] = keep * R[i, j]
            M[D + i, j] = 0.0
        M[D + i, i] = fresh
    for c in range(D):
        _reflect(M, c, D + c + 1)
    for i in range(D):
        for j in range(D):
            R[i, j] = M[i, j] if j >= i else 0.0


@part
def _reflect(M: F8, c: int, stop: int) -> None:
    """One Householder step: column c, rows c to stop, becomes (-+norm, 0, ...); others follow."""
    D = M.shape[1]
    total = 0.0
    for i in range(c, stop):
        total += M[i, c] * M[i, c]
    top = -math.copysign(math.sqrt(total), M[c, c])
    if top == 0.0:
        return
    M[c, c] -= top  # column c now holds the vector v of I - 2 v v' / v'v
    scale = -1.0 / (top * M[c, c])
    for j in range(c + 1, D):
        dot = 0.0
        for i in range(c, stop):
            dot += M[i, c] * M[i, j]
        dot *= scale
        for i in range(c, stop):
            M[i, j] -= dot * M[i, c]
    M[c, c] = top


@part
def root_condition(R: F8, f: F8, v: F8, u: F8, noise: float) -> float:
    """Potter's update: R <- R - v u' / (s + sqrt(s noise)), v = R f, u = R'v = A f. Returns s."""
    s = noise
    for i in range(f.shape[0]):
        s += v[i] * v[i]
    gain = 1.0 / (s + math.sqrt(s * noise))
    for i in range(f.shape[0]):
        vi = v[i] * gain
        for j in range(f.shape[0]):
            R[i, j] -= vi * u[j]
    return s


@part
def root_product(R: F8, f: F8, v: F8, u: F8) -> None:
    """v <- R f, u <- R'v = A f."""
    row_products(R, f, v)
    for j in range(f.shape[0]):
        u[j] = R[0, j] * v[0]
    for i in range(1, f.shape[0]):
        for j in range(f.shape[0]):
            u[j] += R[i, j] * v[i]


@part
def condition_sqrt(f: F8, noise: float, state: State, fixed: Fixed) -> None:
    """As condition_standard, on the root; time updates wait in `gap` for p[QR_EVERY] labels."""
    m, R, outputs, s = state
    p, work = fixed
    D = R.shape[0]
    u, v = work[U_ROW, :D], work[EXTRA_ROW, :D]
    shrink = 1.0
    s[GAP] += 1.0
    if s[SAMPLES] % p[QR_EVERY] == 0.0:
        loss = -math.expm1(-max(s[DELTA], p[DELTA_MIN]) * s[GAP])
        if loss > 0.0:
            g = math.sqrt(1.0 - loss)
            root_drift(R, work[EXTRA_ROW + 1 :, :D], g, math.sqrt(loss * p[S_W]))
            root_product(R, f, v, u)
            shrink = g if p[DECAY_MEAN] > 0.0 else 1.0
        s[GAP] = 0.0
    S = root_condition(R, f, v, u, noise)
    correct(m, outputs, work, u, shrink, S)


@kernel
def walk_sqrt(
    rows: Rows, state: State, fixed: Fixed, out: Out, targets: bool | None, draws: F8 | None
) -> None:
    """As walk_standard, with the square root of A in its place."""
    for t in range(rows[0].shape[0]):
        root_product(state[1], rows[0][t], fixed[1][EXTRA_ROW], fixed[1][U_ROW])
        noise = settle(t, rows, state, fixed, out, targets, draws)
        if noise > 0.0:
            condition_sqrt(rows[0][t], noise, state, fixed)


# -- widening ------------------------------------------------------------------------------------


@part
def cholesky(B: F8, L: F8) -> None:
    """L <- the lower factor of B = L L', symmetric positive definite. O(D^3)."""
    D = B.shape[0]
    for i in range(D):
        for j in range(i + 1):
            total = B[i, j]
            for k in range(j):
                total -= L[i, k] * L[j, k]
            L[i, j] = math.sqrt(total) if i == j else total / L[j, j]


@kernel
def inflate_covariance(A: F8, factor: float, s_w: float) -> None:
    """A <- ((A^-1 - I / s_w) / factor + I / s_w)^-1, which is at least A and at most s_w I.

    Equal to factor A (I + (factor - 1) A / s_w)^-1. O(D^3).
    """
    D = A.shape[0]
    B, L = np.empty((D, D)), np.zeros((D, D))
    for i in range(D):
        for j in range(D):
            B[i, j] = (factor - 1.0) * A[i, j] / s_w
        B[i, i] += 1.0
    cholesky(B, L)
    for i in range(D):  # rows of B <- rows of A, then B <- L^-1 B and B <- L'^-1 B
        B[i, :] = factor * A[i, :]
    for i in range(D):
        for k in range(i):
            B[i, :] -= L[i, k] * B[k, :]
        B[i, :] /= L[i, i]
    for i in range(D - 1, -1, -1):
        for k in range(i + 1, D):
            B[i, :] -= L[k, i] * B[k, :]
        B[i, :] /= L[i, i]
    for i in range(D):
        for j in range(D):
            A[i, j] = 0.5 * (B[i, j] + B[j, i])


@kernel
def inflate_root(R: F8, factor: float, s_w: float) -> None:
    """As inflate_covariance, for A = R'R: R <- sqrt(factor) L^-1 R. O(D^3).

    L L' = I + (factor - 1) R R' / s_w.
    """
    D = R.shape[0]
    B, L = np.empty((D, D)), np.zeros((D, D))
    for i in range(D):
        for j in range(D):
            total = 0.0
            for k in range(D):
                total += R[i, k] * R[j, k]
            B[i, j] = (factor - 1.0) * total / s_w
        B[i, i] += 1.0
    cholesky(B, L)
    for i in range(D):
        R[i, :] *= math.sqrt(factor)
    for i in range(D):
        for k in range(i):
            R[i, :] -= L[i, k] * R[k, :]
        R[i, :] /= L[i, i]
