"""Implicit online learning of linear models: the gradient is taken at the point that it leads to.

The dual vector th of a column (a class or a target) is minus the sum of its steps a x, its weights
are w = th / L, and a new step solves a = loss'(z - q a), z = w.x, q = sum x_i^2 / L_i. L follows
the squared steps, L = alpha sqrt(beta + G). Letters: p probabilities, iw importance weight,
n rows, d dense features, m sparse columns, K columns of the model; ln(p) etc. are natural.

`walk` takes five tuples and vectors, float64 and C-contiguous unless said:
    rows  = X (n, d) | values, columns, indptr of sparse rows | y (n, 1 or K) | weight (n,)
            | mode (n,)
    state = dense (1 + d, 2, K) | sparse (m, 2, K): th and G side by side, row 0 of dense the
            intercept | outputs (4, K) | s (N_SCALARS,)
    p     = settings (N_SETTINGS,) | work (WORK_ROWS, K) scratch
    out   = answer (n, classes or targets) | side (n, 1)
outputs: weight learnt, running mean, running variance (of targets), G where it is one a column.
th and G are stored before the common factor scale and scale^2, so forgetting costs nothing.
"""

import math

from streamlearn.jit import lift
from streamlearn.jit._compile import F8, I8, U1, kernel, part
from streamlearn.jit.open_classes import balanced, calibrate, softmax

# places in the scalars s, after the counters of `lift`
LOG_ALPHA, FISHER, SAMPLES, CLASSES, WIDTH, SCALE = range(3, 9)
N_SCALARS = 9
# places in the settings p
LOSS, ALPHA, BETA, RATE, KEEP, L1, LEVEL, STEP, INTERCEPT, LR_ALPHA, BALANCE, RESCALE, MEMORY = (
    range(13)
)
N_SETTINGS = 13
SOFTMAX, LOGISTIC, HINGE, SQUARED, QUANTILE, ABSOLUTE, HUBER, POISSON = range(8)  # p[LOSS]
CONSTANT, SCALAR, COORDINATE = range(3)  # p[RATE]: what G is summed over
IMPLICIT, TRUNCATED = range(2)  # p[STEP]
WORK_ROWS = 5
_Z, _Q, _A, _P, _U = range(WORK_ROWS)

LARGEST = 1e150  # a target beyond it has no variance in float64
_PREDICT, _LEARN, _OBSERVE = 1, 2, 4
_REJECT, _EMPTY, _TARGET = lift.REJECT, lift.EMPTY, lift.TARGET
_FLAT = 1e-12  # a q below it is none: the explicit gradient
_LEAST = 1e-200  # a Q below it has no logarithm to speak of
_TINY = 1e-100  # a scale below it is multiplied in
_EXP = 700.0  # the largest score that is exponentiated
_HEAVIEST = 1e12  # a weight beyond it counts as this

Rows = tuple[F8, F8, I8, I8, F8, F8, U1]
State = tuple[F8, F8, F8, F8]
Out = tuple[F8, F8]


# -- the step of one column ----------------------------------------------------------------------


@part
def clip(value: float, low: float, high: float) -> float:
    """value in [low, high]."""
    return min(max(value, low), high)


@part
def sigmoid(z: float) -> float:
    """1 / (1 + exp(-z)), which overflows for no z."""
    if z >= 0.0:
        return 1.0 / (1.0 + math.exp(-z))
    e = math.exp(z)
    return e / (1.0 + e)


@part
def log1p_exp(z: float) -> float:
    """ln(1 + exp(z)), which overflows for no z."""
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


@kernel
def wright(r: float) -> float:
    """The omega with omega + ln(omega) = r, to the last digits, by the iteration of Fritsch et al.

    (1973): of fourth order, so three rounds are enough. Below -700 it is 0, beyond 1e20 r to the
    last digit.
    """
    if r < -_EXP:
        return 0.0
    if r > 1e20:  # where the squares of the iteration might overflow
        return r
    if r < -1.0:
        v = math.exp(r)
        v = v / (1.0 + v)
    else:
        v = r - math.log(r) if r > 3.0 else 0.5671432904097838 + 0.36 * r + 0.035 * r * abs(r)
    for _ in range(3):
        e = r - v - math.log(v)
        u = 2.0 * (1.0 + v) * (1.0 + v + 2.0 * e / 3.0)
        v *= 1.0 + e / (1.0 + v) * (u - e) / (u - 2.0 * e)
    return v


@kernel
def logistic_root(m: float, q: float, iw: float) -> float:
    """The root b in (0, iw) of b = iw sigmoid(m - q b): Newton steps that stay in their bracket.

    They begin at an upper bound: the explicit step, or the root with exp in place of sigmoid.
    """
    low = 0.0
    high = min(iw * sigmoid(m), wright(m + math.log(q * iw)) / q)
    b = high
    for _ in range(100):
        p = sigmoid(m - q * b)
        f = b - iw * p
        if f > 0.0:
            high = b
        else:
            low = b
        new = b - f / (1.0 + iw * q * p * (1.0 - p))
        if not low <= new <= high:
            new = 0.5 * (low + high)
        if abs(new - b) <= 1e-15 * new:
            return new
        b = new
    return b


@kernel
def poisson_step(z: float, q: float, y: float, iw: float) -> float:
    """The root a of a = iw (exp(z - q a) - y): q iw exp(new score) is Wright's omega."""
    c = q * iw
    r = z + c * y + math.log(c)
    if r == math.inf:
        return (z - math.log(y)) / q
    v = wright(r)
    return float(iw * ((v / c if r > 0.0 else math.exp(z + c * y - v)) - y))


@part
def gradient(z: float, y: float, iw: float, loss: float, level: float) -> float:
    """iw loss'(z), the explicit step; y is +-1 for classes."""
    if loss == LOGISTIC:
        return -y * iw * sigmoid(-y * z)
    if loss == HINGE:
        return -y * iw if y * z < 1.0 else 0.0
    if loss == SQUARED:
        return iw * (z - y)
    if loss == HUBER:
        return iw * clip(z - y, -level, level)
    if loss == POISSON:
        return float(iw * (math.exp(min(z, _EXP)) - y))
    if z == y:
        return 0.0
    if loss == QUANTILE:
        return iw * (1.0 - level) if z > y else -iw * level
    return iw if z > y else -iw


@part
def excess(z: float, y: float, loss: float, level: float) -> float:
    """loss(z) minus the least that the loss can be; y is +-1 for classes."""
    if loss == LOGISTIC:
        return log1p_exp(-y * z)
    if loss == HINGE:
        return max(0.0, 1.0 - y * z)
    e = z - y
    if loss == SQUARED:
        return 0.5 * e * e
    if loss == HUBER:
        top = min(abs(e), level)
        return top * (abs(e) - 0.5 * top)
    if loss == POISSON:
        least = y - y * math.log(y) if y > 0.0 else 0.0
        return float(math.exp(min(z, _EXP)) - y * z - least)
    if loss == QUANTILE:
        return e * (1.0 - level) if e > 0.0 else -e * level
    return abs(e)


@part
def truncated(z: float, q: float, y: float, iw: float, loss: float, level: float) -> float:
    """The explicit step, cut where the linear model of the loss would fall below its infimum."""
    g = gradient(z, y, iw, loss, level)
    if g == 0.0 or g * g * q == math.inf:
        return 0.0
    return float(g * min(1.0, iw * excess(z, y, loss, level) / (g * g * q)))


@part
def implicit(z: float, q: float, y: float, iw: float, loss: float, level: float) -> float:
    """The step a = iw loss'(z - q a), in closed form or as a bracketed root; q > 0."""
    if loss == LOGISTIC:
        return -y * logistic_root(-y * z, q, iw)
    if loss == HINGE:
        return -y * clip((1.0 - y * z) / q, 0.0, iw)
    if loss == SQUARED:
        return iw * (z - y) / (1.0 + iw * q)
    if loss == HUBER:
        return clip(iw * (z - y) / (1.0 + iw * q), -iw * level, iw * level)
    if loss == POISSON:
        return poisson_step(z, q, y, iw)
    if loss == QUANTILE:
        return clip((z - y) / q, -iw * level, iw * (1.0 - level))
    return clip((z - y) / q, -iw, iw)


@kernel
def dual_step(
    z: float, q: float, y: float, iw: float, loss: float, level: float, step: float
) -> float:
    """The step of one column whose score is z. Not inlined: it is called from several places."""
    if step == TRUNCATED:
        return truncated(z, q, y, iw, loss, level)
    if q * iw < _FLAT:
        return gradient(z, y, iw, loss, level)
    return implicit(z, q, y, iw, loss, level)


# -- the step of all classes together ------------------------------------------------------------


@part
def softmax_step(c: int, seen: F8, iw: float, implicit: bool, work: F8) -> None:
    """a <- iw (p - e_c) over the known classes, p at the scores after the step, or before it."""
    z, q, a, prob = work[_Z], work[_Q], work[_A], work[_P]
    softmax(z, seen, 1.0, prob)
    most, norm = 0.0, 0.0
    for k in range(seen.shape[0]):
        if seen[k] > 0.0:
            most = max(most, q[k] * iw)
            e = prob[k] - (1.0 if k == c else 0.0)
            norm += iw * iw * e * e * q[k]
    factor = iw
    if implicit and most >= _FLAT:
        softmax_after(c, seen, iw, work)
    elif not implicit and norm > 0.0:  # cut where the linear model of the loss would fall below 0
        factor *= min(1.0, -iw * math.log(max(prob[c], _LEAST)) / norm)
    for k in range(seen.shape[0]):
        a[k] = factor * (prob[k] - (1.0 if k == c else 0.0)) if seen[k] > 0.0 else 0.0


@part
def softmax_after(c: int, seen: F8, iw: float, work: F8) -> None:
    """prob <- p = softmax(z - q iw (p - e_c)).

    That is ln p_k + Q_k p_k = u_k - C with Q_k = q_k iw, u = z + Q e_c, so Q_k p_k is Wright's
    omega of u_k - C + ln Q_k, and C is where the p sum to 1: Newton from the left, where it is
    monotone.
    """
    z, q, prob, Q, r = work[_Z], work[_Q], work[_P], work[_A], work[_U]
    K = seen.shape[0]
    C, near = -math.inf, 1e-14
    for k in range(K):
        if seen[k] > 0.0:
            near += 1e-15  # by the classes there are: how much room there is must not tell
            Q[k] = max(q[k] * iw, _LEAST)
            u = z[k] + (Q[k] if k == c else 0.0)
            r[k] = u + math.log(Q[k])
            C = max(C, u - Q[k])
    for _ in range(60):
        total = 0.0
        slope = 0.0
        for k in range(K):
            if seen[k] > 0.0:
                v = wright(r[k] - C)
                prob[k] = v / Q[k]
                total += prob[k]
                slope += prob[k] / (1.0 + v)
        C += (total - 1.0) / slope
        if total - 1.0 <= near:
            return


# -- one row -------------------------------------------------------------------------------------


@part
def add_scores(x: float, cell: F8, state: State, p: F8, work: F8, K: int) -> None:
    """z += w x and q += x^2 / L for one feature; cell (2, room) is its th and G. O(K)."""
    z, q, outputs, scale = work[_Z], work[_Q], state[2], state[3][SCALE]
    xx = x * x
    for k in range(K):
        th = scale * cell[0, k]
        G = cell[1, k] if p[RATE] == COORDINATE else outputs[3, k]
        part_of_L = p[BETA] + (scale * scale * G if p[RATE] != CONSTANT else 0.0)
        inv = 1.0 / (p[ALPHA] * math.sqrt(part_of_L))
        if p[L1] > 0.0:
            th = math.copysign(max(abs(th) - p[L1], 0.0), th)
        z[k] += th * inv * x
        q[k] += xx * inv


@part
def score(t: int, rows: Rows, state: State, p: F8, work: F8, K: int) -> bool:
    """z and q of row t for the first K columns; False where they are not finite. O(K non-zeros)."""
    X, values, columns, indptr = rows[0], rows[1], rows[2], rows[3]
    dense, sparse = state[0], state[1]
    for k in range(K):
        work[_Z, k] = 0.0
        work[_Q, k] = 0.0
    if p[INTERCEPT] > 0.0:
        add_scores(1.0, dense[0], state, p, work, K)
    for i in range(X.shape[1]):
        if X[t, i] != 0.0 and X[t, i] == X[t, i]:
            add_scores(X[t, i], dense[1 + i], state, p, work, K)
    for j in range(indptr[t], indptr[t + 1]):
        if values[j] != 0.0 and values[j] == values[j] and columns[j] < sparse.shape[0]:
            add_scores(values[j], sparse[columns[j]], state, p, work, K)
    finite = True
    for k in range(K):
        finite = finite and abs(work[_Z, k]) < math.inf and work[_Q, k] < math.inf
    return finite


@part
def subtract(x: float, cell: F8, state: State, p: F8, a: F8, K: int) -> None:
    """th -= a x and G += a^2 x^2 for one feature."""
    scale = state[3][SCALE]
    for k in range(K):
        g = a[k] * x / scale
        cell[0, k] -= g
        if p[RATE] == COORDINATE:
            cell[1, k] += g * g


@part
def move(t: int, rows: Rows, state: State, p: F8, work: F8, K: int) -> None:
    """th -= a x, and G with it, for every feature of row t; then all forget. O(K non-zeros)."""
    X, values, columns, indptr = rows[0], rows[1], rows[2], rows[3]
    dense, sparse, outputs, s = state
    a = work[_A]
    total = 1.0 if p[INTERCEPT] > 0.0 else 0.0
    if p[INTERCEPT] > 0.0:
        subtract(1.0, dense[0], state, p, a, K)
    for i in range(X.shape[1]):
        if X[t, i] != 0.0 and X[t, i] == X[t, i]:
            total += X[t, i] * X[t, i]
            subtract(X[t, i], dense[1 + i], state, p, a, K)
    for j in range(indptr[t], indptr[t + 1]):
        if values[j] != 0.0 and values[j] == values[j]:
            total += values[j] * values[j]
            s[WIDTH] = max(s[WIDTH], columns[j] + 1.0)
            subtract(values[j], sparse[columns[j]], state, p, a, K)
    if p[RATE] == SCALAR:
        for k in range(K):
            step = a[k] / s[SCALE]
            outputs[3, k] += step * step * total
    s[SCALE] *= p[KEEP]
    if s[SCALE] < _TINY:  # O(K (d + m)), every 230 / rho labels
        multiply_in(dense, s[SCALE])
        multiply_in(sparse, s[SCALE])
        for k in range(K):
            outputs[3, k] *= s[SCALE] * s[SCALE]
        s[SCALE] = 1.0


@kernel
def multiply_in(cells: F8, factor: float) -> None:
    """th <- factor th, G <- factor^2 G."""
    for i in range(cells.shape[0]):
        for k in range(cells.shape[2]):
            cells[i, 0, k] *= factor
            cells[i, 1, k] *= factor * factor


@part
def holds_infinity(t: int, rows: Rows) -> bool:
    """Whether a feature of row t is infinite."""
    X, values, indptr = rows[0], rows[1], rows[3]
    found = False
    for i in range(X.shape[1]):
        found = found or abs(X[t, i]) == math.inf
    for j in range(indptr[t], indptr[t + 1]):
        found = found or abs(values[j]) == math.inf
    return found


@part
def missing(t: int, X: F8) -> float:
    """How many dense features row t lacks; each counts as 0."""
    count = 0.0
    for i in range(X.shape[1]):
        if X[t, i] != X[t, i]:
            count += 1.0
    return count


# -- classes -------------------------------------------------------------------------------------


@kernel
def copy_column(dense: F8, sparse: F8, outputs: F8, c: int) -> None:
    """Column c <- column 0, which has taken every row so far for one of another class. O(d + m)."""
    for i in range(dense.shape[0]):
        dense[i, 0, c] = dense[i, 0, 0]
        dense[i, 1, c] = dense[i, 1, 0]
    for i in range(sparse.shape[0]):
        sparse[i, 0, c] = sparse[i, 0, 0]
        sparse[i, 1, c] = sparse[i, 1, 0]
    outputs[3, c] = outputs[3, 0]


@part
def answer_class(t: int, usable: bool, bits: int, state: State, work: F8, out: Out) -> None:
    """Probabilities, softmax of alpha z over the known classes; NaN where not asked."""
    answer, side = out
    K = answer.shape[1]
    first = state[2].shape[1] - K
    seen, prob = state[2][0, first:], work[_P]
    best = -1
    if usable and bits & (_PREDICT | _LEARN):
        best = softmax(work[_Z, first:], seen, math.exp(state[3][LOG_ALPHA]), prob)
    asked = usable and bits & _PREDICT
    side[t, 0] = float(best) if asked and best >= 0 else math.nan
    for k in range(K):
        answer[t, k] = prob[k] if asked else (math.nan if seen[k] > 0.0 else 0.0)


@part
def class_steps(c: int, weight: float, first: int, state: State, p: F8, work: F8) -> None:
    """Calibrate, know class c, and leave the steps a of all columns."""
    outputs, s = state[2], state[3]
    seen, z = outputs[0, first:], work[_Z, first:]
    if seen[c] > 0.0:
        s[LOG_ALPHA], s[FISHER] = calibrate(s[LOG_ALPHA], s[FISHER], z, work[_P], c, p[LR_ALPHA])
    elif first > 0:
        copy_column(state[0], state[1], outputs, first + c)
        work[_Z, first + c] = work[_Z, 0]
        work[_Q, first + c] = work[_Q, 0]
    seen[c] += weight
    s[CLASSES] = max(s[CLASSES], c + 1.0)
    iw = weight * balanced(seen, c) if p[BALANCE] > 0.0 else weight
    if first == 0:
        softmax_step(c, seen, iw, p[STEP] == IMPLICIT, work)
    else:
        versus_rest(first + c, iw, outputs, p, work)


@part
def versus_rest(c: int, iw: float, outputs: F8, p: F8, work: F8) -> None:
    """Steps of the known columns, each for itself: +1 for column c, -1 for the others."""
    for k in range(outputs.shape[1]):
        y = 1.0 if k == c else -1.0
        work[_A, k] = 0.0
        if k == 0 or outputs[0, k] > 0.0:
            work[_A, k] = dual_step(work[_Z, k], work[_Q, k], y, iw, p[LOSS], p[LEVEL], p[STEP])


# -- targets -------------------------------------------------------------------------------------


@part
def link(z: float, mean: float, variance: float, p: F8) -> float:
    """The prediction of a score: in units of the target, or for counts its exponential."""
    if p[LOSS] == POISSON:
        base = math.log(mean) if p[RESCALE] > 0.0 and mean > 0.0 else 0.0
        return math.exp(min(z + base, _EXP))
    return mean + unit(variance) * z if p[RESCALE] > 0.0 else z


@part
def answer_target(t: int, bits: int, outputs: F8, p: F8, work: F8, answer: F8) -> None:
    """Predictions; NaN where not asked."""
    for k in range(answer.shape[1]):
        answer[t, k] = math.nan
        if bits & _PREDICT:
            answer[t, k] = link(work[_Z, k], outputs[1, k], outputs[2, k], p)


@part
def follow(y: float, weight: float, outputs: F8, k: int, memory: float) -> None:
    """Running mean and variance of target k, this one among them.

    Over all rows, or, with a memory > 0, with a gain of at least weight / (weight + memory).
    """
    outputs[0, k] += weight
    share = weight / outputs[0, k]
    if memory > 0.0:
        share = max(share, weight / (weight + memory))
    e = y - outputs[1, k]
    outputs[1, k] += share * e
    outputs[2, k] = (1.0 - share) * (outputs[2, k] + share * e * e)


@part
def unit(variance: float) -> float:
    """Standard deviation of a target; 1 as long as it did not vary."""
    return math.sqrt(variance) if variance > 0.0 else 1.0


@part
def target_steps(t: int, weight: float, rows: Rows, outputs: F8, p: F8, work: F8) -> None:
    """Follow the targets of row t and leave the steps a of all columns, in standard units."""
    K = outputs.shape[1]
    for k in range(K):
        y = rows[4][t, k]
        follow(y, weight, outputs, k, p[MEMORY])
        z = work[_Z, k]
        if p[RESCALE] > 0.0 and p[LOSS] == POISSON:
            z += math.log(outputs[1, k]) if outputs[1, k] > 0.0 else 0.0
        elif p[RESCALE] > 0.0:
            y = (y - outputs[1, k]) / unit(outputs[2, k])
        work[_A, k] = dual_step(z, work[_Q, k], y, weight, p[LOSS], p[LEVEL], p[STEP])


@part
def target_of(t: int, rows: Rows, p: F8) -> int:
    """Whether row t has targets that can be learnt (codes of `lift`)."""
    c = lift.read_label(t, rows[4], 0)
    if c == _TARGET:
        for k in range(rows[4].shape[1]):
            bad = abs(rows[4][t, k]) > LARGEST or (p[LOSS] == POISSON and rows[4][t, k] < 0.0)
            c = _REJECT if bad else c
    return c


# -- the walk ------------------------------------------------------------------------------------


@part
def ready(t: int, rows: Rows, state: State, p: F8, work: F8) -> bool:
    """Score row t if anything is asked; False where it has an infinity, or its score overflows."""
    X, mode = rows[0], rows[6]
    if mode[t] & _OBSERVE:
        state[3][lift.IMPUTED] += missing(t, X)
    if holds_infinity(t, rows):
        return False
    if mode[t] & (_PREDICT | _LEARN) == 0:
        return True
    return score(t, rows, state, p, work, state[2].shape[1])


@part
def taken(t: int, c: int, usable: bool, rows: Rows, s: F8) -> bool:
    """Whether row t teaches; what is refused is counted."""
    if not rows[6][t] & _LEARN:
        return False
    if c == _REJECT or not usable:
        s[lift.REJECTED] += 1.0
        return False
    if c == _EMPTY or rows[5][t] == 0.0:
        return False
    s[SAMPLES] += 1.0
    return True


@kernel
def walk_classes(rows: Rows, state: State, p: F8, work: F8, out: Out) -> int:
    """Walk a block row by row: predict, then learn.

    Returns -1, or the row whose weight is bad: then nothing was changed.
    """
    bad = lift.bad_weight(rows[5])
    if bad >= 0:
        return bad
    first = 0 if p[LOSS] == SOFTMAX else 1
    columns = state[2].shape[1]
    for t in range(rows[6].shape[0]):
        usable = ready(t, rows, state, p, work)
        answer_class(t, usable, rows[6][t], state, work, out)
        c = lift.read_label(t, rows[4], columns - first)
        if taken(t, c, usable, rows, state[3]):
            class_steps(c, min(rows[5][t], _HEAVIEST), first, state, p, work)
            move(t, rows, state, p, work, columns)
    return -1


@kernel
def walk_targets(rows: Rows, state: State, p: F8, work: F8, out: Out) -> int:
    """As walk_classes, for targets."""
    bad = lift.bad_weight(rows[5])
    if bad >= 0:
        return bad
    for t in range(rows[6].shape[0]):
        usable = ready(t, rows, state, p, work)
        answer_target(t, rows[6][t] if usable else 0, state[2], p, work, out[0])
        c = target_of(t, rows, p)
        if taken(t, c, usable, rows, state[3]):
            target_steps(t, min(rows[5][t], _HEAVIEST), rows, state[2], p, work)
            move(t, rows, state, p, work, state[2].shape[1])
    return -1
