"""Recursive least squares with forgetting and a ridge that stays, for classes and for numbers.

W weights, f features of a row, lam forgetting factor, w sample weight, t row. Minimised after n
rows: sum_t lam^(n-t) w_t |y_t - W f_t|^2 + ridge |W|^2. P = R^-1, R = sum_t lam^(n-t) w_t f_t f_t'
+ ridge I; u = P f, h = f'u the leverage, S = lam / w + h. D features, K classes or targets, n rows.

The ridge of plain forgetting fades as lam^n, and P then grows without bound where the inputs do not
go. It is given back one coordinate a row (`leak`, O(D^2)), or all of it now and then (`refresh` of
`analytic`, O(D^3), exact).

A walker takes four tuples of arrays, float64 and C-contiguous unless said:
    rows  = F (n, D) and codes (n,) int64 from a lift | y (n, 1 or K) | weight (n,) | mode (n,)
    state = W (K, D) | P (D, D) | outputs (3, K) | s (N_SCALARS,)
    fixed = settings p (N_SETTINGS,) | work (work_rows, max(D, K)) scratch | order (D,) int64, in
        which the coordinates get their leak: by name, as the order of features must not matter
    out   = answer (n, K) | side (n, 1 or K): probabilities and class, or mean and variance
outputs: weight learnt (faded, for targets), running mean, residual variance; the last two of
targets alone. K is a capacity for classes: those known have outputs[0] > 0. f[0] is 1 in every row.
"""

import math

from streamlearn.jit import lift
from streamlearn.jit._compile import F8, I8, U1, kernel, part
from streamlearn.jit.kalman import blank
from streamlearn.jit.open_classes import balanced, calibrate, softmax
from streamlearn.jit.products import row_products, symmetric_product

# places in the state vector s, after the counters of `lift`
LOG_ALPHA, SAMPLES, CLASSES, RESETS, SINCE, FISHER = range(3, 9)
N_SCALARS = 9
# places in the settings p, after those of `lift`
LAM, RIDGE, LEAK, REFRESH, BALANCE, SCALED, LR_ALPHA = range(2, 9)
N_SETTINGS = 9

_PREDICT, _LEARN = 1, 2
HEAVIEST = 1e12  # a weight beyond it counts as this: it would leave no digit in P
LARGEST_P = 1e12  # times 1 / ridge: a diagonal of P beyond it has wound up
# rows of work: u = P f, W f, probabilities, targets, z = u / sqrt(S), column of the leak, scratch
U, NU, PROB, Y, Z, Q, MORE = range(7)

Rows = tuple[F8, I8, F8, F8, U1]
State = tuple[F8, F8, F8, F8]
Fixed = tuple[F8, F8, I8]
Out = tuple[F8, F8]


def work_rows(D: int, refreshed: bool) -> int:
    """Rows of scratch that a walker needs."""
    return MORE + (D if refreshed else 0)


# -- answers and what stands beside the weights ----------------------------------------------------


@part
def clip(score: F8, seen: F8, prob: F8) -> int:
    """prob <- max(score, 0) over the known classes, normalised; uniform if all are <= 0. O(K).

    Returns argmax score, or -1.
    """
    best = -1
    total = 0.0
    known = 0.0
    for k in range(seen.shape[0]):
        prob[k] = 0.0
        if seen[k] > 0.0:
            prob[k] = max(score[k], 0.0)
            total += prob[k]
            known += 1.0
            if best < 0 or score[k] > score[best]:
                best = k
    for k in range(seen.shape[0]):
        if seen[k] > 0.0:
            prob[k] = prob[k] / total if total > 0.0 else 1.0 / known
    return best


@part
def weigh(score: F8, seen: F8, s: F8, p: F8, prob: F8) -> int:
    """Probabilities of the known classes, by the rule of the settings. Returns the class, or -1."""
    if p[SCALED] > 0.0:
        return softmax(score, seen, math.exp(s[LOG_ALPHA]), prob)
    return clip(score, seen, prob)


@part
def settle_class(
    t: int, c: int, bits: int, w: float, outputs: F8, s: F8, p: F8, work: F8, out: Out
) -> float:  # fmt: skip
    """Answer with probabilities; know class c >= 0, whose column of zeros is exact, and calibrate.

    Leaves the one-hot target in work. Returns the weight of the row, with the balance of classes.
    """
    K, answer, side = outputs.shape[1], out[0], out[1]
    nu, prob, y = work[NU, :K], work[PROB, :K], work[Y, :K]
    best = weigh(nu, outputs[0], s, p, prob)
    if bits & _PREDICT:
        side[t, 0] = math.nan if best < 0 else float(best)
        for k in range(K):
            answer[t, k] = prob[k]
    else:
        blank(t, outputs, True, answer, side)
    if c < 0:
        return 0.0
    known = outputs[0, c] > 0.0
    outputs[0, c] += w
    s[CLASSES] = max(s[CLASSES], c + 1.0)
    for k in range(K):
        y[k] = 1.0 if k == c else 0.0
    if p[SCALED] > 0.0 and known:
        s[LOG_ALPHA], s[FISHER] = calibrate(s[LOG_ALPHA], s[FISHER], nu, prob, c, p[LR_ALPHA])
    return w * balanced(outputs[0], c) if p[BALANCE] > 0.0 else w


@part
def settle_target(
    t: int, lesson: bool, bits: int, h: float, outputs: F8, s: F8, work: F8, out: Out
) -> None:
    """Answer with mean and variance; the first lesson sets the means. Errors are left in work."""
    K, answer, side = outputs.shape[1], out[0], out[1]
    if bits & _PREDICT:
        for k in range(K):
            answer[t, k] = outputs[1, k] + work[NU, k]
            side[t, k] = outputs[2, k] * (1.0 + h)
    else:
        blank(t, outputs, False, answer, side)
    for k in range(K):
        if lesson and s[SAMPLES] == 0.0:
            outputs[1, k] = work[Y, k]
        work[Y, k] -= outputs[1, k]


@part
def follow_targets(W: F8, outputs: F8, s: F8, lam: float, w: float, h: float, work: F8) -> None:
    """After a lesson: running means and residual variances, with the memory of the weights.

    The constant gives back what a mean takes, so no answer changes: the ridge pulls to the mean,
    not to 0. The variance is that of e / sqrt(1 + h), e the errors before the lesson.
    """
    for k in range(W.shape[0]):
        e = work[Y, k] - work[NU, k]
        outputs[0, k] = lam * outputs[0, k] + w
        share = w / outputs[0, k]
        move = work[Y, k] * share
        outputs[1, k] += move
        W[k, 0] -= move
        ratio = min(e * e / (1.0 + h), lift.LARGEST)  # what overflows would stay for ever
        if s[SAMPLES] == 1.0:
            outputs[2, k] = ratio
        elif s[SAMPLES] > 1.0:
            outputs[2, k] += (ratio - outputs[2, k]) * share


# -- the weights -----------------------------------------------------------------------------------


@part
def correct(W: F8, work: F8, u: F8, S: float) -> None:
    """W <- W + e u' / S, e the errors: targets and W f stand in work. O(K D)."""
    for k in range(W.shape[0]):
        e = (work[Y, k] - work[NU, k]) / S
        for i in range(u.shape[0]):
            W[k, i] += u[i] * e


@part
def leak(W: F8, P: F8, i: int, c: float, lam: float, z: F8, q: F8) -> None:
    """R_ii <- R_ii + c, in W now, in P once q q' is taken off: q is left to `condense`. O(K D).

    P stands before the row, which z brings in: its column i after the row is (P_i - z z_i) / lam.
    """
    D = P.shape[0]
    for j in range(D):
        q[j] = (P[i, j] - z[j] * z[i]) / lam
    s = 1.0 + c * q[i]
    for k in range(W.shape[0]):
        e = W[k, i] * (c / s)
        for j in range(D):
            W[k, j] -= q[j] * e
    root = math.sqrt(c / s)
    for j in range(D):
        q[j] *= root


@part
def condense(P: F8, lam: float, z: F8, q: F8, leaky: bool, largest: float) -> bool:
    """P <- (P - z z') / lam - q q': symmetric to the last bit. One pass, O(D^2).

    Returns whether every element of the diagonal is still in (0, largest].
    """
    inverse = 1.0 / lam
    good = True
    for i in range(P.shape[0]):
        zi, qi = z[i], q[i]
        if leaky:
            for j in range(P.shape[0]):
                P[i, j] = (P[i, j] - zi * z[j]) * inverse - qi * q[j]
        else:
            for j in range(P.shape[0]):
                P[i, j] = (P[i, j] - zi * z[j]) * inverse
        good = good and 0.0 < P[i, i] <= largest
    return good


@part
def restart(P: F8, ridge: float) -> None:
    """P <- I / ridge."""
    for i in range(P.shape[0]):
        for j in range(P.shape[0]):
            P[i, j] = 0.0
        P[i, i] = 1.0 / ridge


@part
def teach(w: float, h: float, lam: float, state: State, fixed: Fixed) -> None:
    """One lesson, its features' u = P f and W f, and its targets, being in work. O(D^2 + K D)."""
    W, P, _, s = state
    p, work, order = fixed
    D = P.shape[0]
    u, z, q = work[U, :D], work[Z, :D], work[Q, :D]
    S = lam / w + h
    correct(W, work, u, S)
    root = 1.0 / math.sqrt(S)
    for i in range(D):
        z[i] = u[i] * root
    leaky = p[LEAK] > 0.0
    if leaky:
        leak(W, P, order[int(s[SAMPLES]) % D], p[LEAK] * D, lam, z, q)
    if not condense(P, lam, z, q, leaky, LARGEST_P / p[RIDGE]):
        restart(P, p[RIDGE])
        s[RESETS] += 1.0
        s[SINCE] = 0.0


# -- one row ---------------------------------------------------------------------------------------


@part
def leverage(f: F8, u: F8) -> float:
    """h = f'u, which rounding must not make negative."""
    h = 0.0
    for i in range(f.shape[0]):
        h += f[i] * u[i]
    return max(h, 0.0)


@part
def take(
    t: int, rows: Rows, state: State, fixed: Fixed, out: Out, targets: bool | None
) -> float:  # fmt: skip
    """Answer row t, then learn from it. Returns the weight of the lesson, 0 if there is none.

    targets is None for classes: what is not needed is not compiled.
    """
    F, codes = rows[0], rows[1]
    W, P, outputs, s = state
    p, work, _ = fixed
    c = codes[t]
    if c == lift.SKIP:
        blank(t, outputs, targets is None, out[0], out[1])
        return 0.0
    lesson = c >= 0 or c == lift.TARGET
    f, u, h = F[t], work[U, : F.shape[1]], 0.0
    if lesson or targets is not None:
        symmetric_product(P, f, u)
        h = leverage(f, u)
    row_products(W, f, work[NU])
    w = settle(t, h, rows, (outputs, s), (p, work), out, targets)
    if not lesson:
        return 0.0
    teach(w, h, p[LAM], state, fixed)
    if targets is not None:
        follow_targets(W, outputs, s, p[LAM], w, h, work)
    s[SAMPLES] += 1.0
    return float(w)


@part
def settle(
    t: int, h: float, rows: Rows, heads: tuple[F8, F8], fixed: tuple[F8, F8], out: Out,
    targets: bool | None,
) -> float:  # fmt: skip
    """Answer row t, W f being in work and h its leverage; returns the weight of a lesson.

    heads = outputs, s | fixed = p, work.
    """
    _, codes, y, weight, mode = rows
    outputs, s = heads
    p, work = fixed
    c = codes[t]
    w = min(weight[t], HEAVIEST)
    if targets is None:
        return float(min(settle_class(t, c, mode[t], w, outputs, s, p, work, out), HEAVIEST))
    lesson = c == lift.TARGET
    for k in range(outputs.shape[1]):
        work[Y, k] = y[t, k] if lesson else 0.0
    settle_target(t, lesson, mode[t], h, outputs, s, work, out)
    return float(w)


@kernel
def walk(rows: Rows, state: State, fixed: Fixed, out: Out, targets: bool | None) -> None:
    """Walk a block row by row: predict, then learn."""
    for t in range(rows[0].shape[0]):
        take(t, rows, state, fixed, out, targets)
