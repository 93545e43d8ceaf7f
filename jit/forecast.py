"""Online forecasting: two recursive ridges, their mixture, the queue of what is not yet known.

Letters as in Zhang et al. (2023), arXiv 2309.12659: L lags, H steps, M channels, K experts, u their
weights, eta and a of the exponentiated gradient and the fixed share, b the short-term correction.
W = rows of the ring. A row t ends with its forecast; its lesson is the window whose last
target it is, made H rows before: nothing is learnt from a target that has not come.

A walker takes tuples of arrays, float64 and C-contiguous unless said:
    rows    = X (n, M) | weight (n,) | mode (n,) | given (n, K, M, H), what experts outside this
              file forecast from each row, as increments in deviations; empty where there are none
    series  = ring (W, M), gaps carried on | there (W, M) uint8 | moments (5, M)
    ridges  = P1 (L + 1, L + 1) | B1 (L + 1, H) | P2 (D2, D2) | B2 (D2, M H); D2 = 1 + M (C + 1);
              no rows where there is no such expert
    mixture = logu (M, K) | lscale (M,) | bias (M,)
    net     = (3, n_net), weights and Adam's moments, or None
    queue   = answers (H, K, M, H) | issued (3, H, M, H) | spread (4, M, H)
    fixed   = settings p | kinds (K,) int64 | turns (D2,) int64, the order in which the diagonal of
              P2's inverse gets its ridge back | work (WORK, max(D1, D2, M H, net)) scratch
    out     = forecast, lower, upper (n, H, M)
The queue's slot of row t is t % H.
"""

import math

from streamlearn.jit._compile import F8, I8, U1, kernel, part
from streamlearn.jit.random_features import tanh_inplace

CROSS_TIME, CROSS_VARIABLE, LAST_VALUE, SEASONAL = range(4)  # kinds of experts
GIVEN = 4  # and beyond: their forecasts are given
# places in the state vector s
ROWS, LESSONS, REJECTED, MISSING, REPAIRED, ADAM = range(6)
N_SCALARS = 6
# places in the settings p
(RIDGE, FORGET, ETA, SHARE, RESCALE, WARM_UP, SEASON, CROSS_LAGS, LAGS, MISS, START_Q,
 LR_NET, LEAKY) = range(13)  # fmt: skip
N_SETTINGS = 13
COUNT, MEAN, SQUARES, SD, AGE = range(5)  # rows of moments
SEEN, SIZE, BELOW, ABOVE = range(4)  # rows of spread: residuals, mean |residual|, quantiles of both
MIXED, LOWER, UPPER = range(3)  # of issued

HIDDEN = 32  # nodes of each layer of the net
WORK = 8
_X, _G, TARGETS, _E, _O = range(5)  # rows of work
_R, _GRAD, _ACT = 5, 6, 7  # of the net: input, gradient, activations

_PREDICT, _OBSERVE = 1, 4
TAKE_IN, GO_ON = 8, 16  # the two halves of OBSERVE: up to the lesson that is due, and from it on
_LARGEST = 1e300  # a value beyond it is refused, as an infinity is
_FAR = 1e150  # deviations beyond it would overflow a square
_CLIP = 50.0  # standard deviations: what a lesson or a forecast may differ from the last value
_NET_CLIP = 10.0
_LOSS_CAP = 10.0
_LOSS_RATE = 0.01
_LEAST = 1e-4  # weight of an expert in a forecast
_P_MAX = 1e12
_MEMORY = 200.0  # residuals that the width of an interval remembers
_STEP = 0.02  # of the quantiles, a residual

Rows = tuple[F8, F8, U1, F8]
Series = tuple[F8, U1, F8]
Ridges = tuple[F8, F8, F8, F8]
Mixture = tuple[F8, F8, F8]
Queue = tuple[F8, F8, F8]
Fixed = tuple[F8, I8, I8, F8]
Out = tuple[F8, F8, F8]


# -- a recursive ridge ---------------------------------------------------------------------------


@part
def learn_ridge(P: F8, B: F8, x: F8, y: F8, f: float, w: float, g: F8, e: F8) -> None:
    """R <- f R + w x x', B <- R^-1 Q, P = R^-1; a NaN in y teaches its column of B nothing.

    P (D, D) | B (D, q) | x (D,) | y (q,) | g (D,), e (q,) scratch. O(D^2 + D q).
    """
    D, q = B.shape
    for i in range(D):
        g[i] = 0.0
    for j in range(D):  # row j of a symmetric P is its column j: vectorises across i
        xj = x[j]
        for i in range(D):
            g[i] += P[j, i] * xj
    den = f / w
    for i in range(D):
        den += x[i] * g[i]
    for h in range(q):
        e[h] = y[h]
    for i in range(D):
        xi = x[i]
        for h in range(q):
            e[h] -= B[i, h] * xi
    for h in range(q):
        e[h] = e[h] / den if e[h] == e[h] else 0.0
    root = 1.0 / math.sqrt(den)
    for i in range(D):
        gi = g[i]
        for h in range(q):
            B[i, h] += gi * e[h]
        g[i] = gi * root
    grow = 1.0 / f
    for i in range(D):
        gi = g[i]
        for j in range(D):
            P[i, j] = (P[i, j] - gi * g[j]) * grow


@part
def leak_ridge(P: F8, B: F8, f: float, ridge: float, turn: int, g: F8) -> None:
    """One diagonal element of R gets back what D rows of forgetting took from the ridge.

    R_ii <- R_ii + (1 - f) ridge D, i = turn mod D, so that P never winds up. O(D^2 + D q).
    """
    D, q = B.shape
    i = turn % D
    c = (1.0 - f) * ridge * D
    if c == 0.0:
        return
    c /= 1.0 + c * P[i, i]
    for j in range(D):
        g[j] = P[i, j]
    for j in range(D):
        gj = c * g[j]
        if j != i:
            for h in range(q):
                B[j, h] -= gj * B[i, h]
    for h in range(q):
        B[i, h] -= c * g[i] * B[i, h]
    root = math.sqrt(c)
    for j in range(D):
        g[j] *= root
    for j in range(D):
        gj = g[j]
        for k in range(D):
            P[j, k] -= gj * g[k]


@part
def guard(P: F8, ridge: float, s: F8) -> None:
    """A diagonal that is not positive, or far beyond its bound, starts P anew; counted."""
    for i in range(P.shape[0]):
        if not 0.0 < P[i, i] < _P_MAX / ridge:
            s[REPAIRED] += 1.0
            for j in range(P.shape[0]):
                for k in range(P.shape[0]):
                    P[j, k] = 1.0 / ridge if j == k else 0.0
            return


@part
def predict_ridge(B: F8, x: F8, o: F8) -> None:
    """o <- B'x, (q,): each one chain over x in order."""
    for h in range(B.shape[1]):
        o[h] = 0.0
    for i in range(B.shape[0]):
        xi = x[i]
        for h in range(B.shape[1]):
            o[h] += B[i, h] * xi


# -- the series ----------------------------------------------------------------------------------


@part
def clipped(value: float, sd: float, most: float) -> float:
    """value / sd, cut at +-most; 0 for a channel that has not moved yet."""
    if sd == 0.0:
        return 0.0
    return min(max(value / sd, -most), most)


@part
def measure(value: float, j: int, m: F8, warm_up: float) -> None:
    """Mean and deviation of channel j, frozen after `warm_up` values.

    A channel's first run of one value counts as a single one: a series that stands still in the
    beginning would get a deviation of almost nothing.
    """
    still = m[COUNT, j] >= 1.0 and m[SQUARES, j] == 0.0 and value == m[MEAN, j]
    if still or m[COUNT, j] >= warm_up:
        return
    m[COUNT, j] += 1.0
    if m[COUNT, j] == 1.0:
        m[MEAN, j] = value
        return
    d = min(max(value - m[MEAN, j], -_FAR), _FAR)
    m[MEAN, j] += d / m[COUNT, j]
    m[SQUARES, j] += d * d * (1.0 - 1.0 / m[COUNT, j])
    m[SD, j] = math.sqrt(m[SQUARES, j] / m[COUNT, j])


@part
def push(t: int, X: F8, series: Series, s: F8, warm_up: float) -> None:
    """Take row t into the ring; what is missing is carried on, what is infinite is missing."""
    ring, there, m = series
    W, M = ring.shape
    r = int(s[ROWS])
    at, before = r % W, (r + W - 1) % W
    refused = False
    for j in range(M):
        value = X[t, j]
        known = abs(value) <= _LARGEST
        refused = refused or (value == value and not known)
        there[at, j] = 1 if known else 0
        if known:
            if m[AGE, j] == 0.0:
                for i in range(W):
                    ring[i, j] = value
            ring[at, j] = value
            m[AGE, j] += 1.0
            if warm_up > 0.0:
                measure(value, j, m, warm_up)
        else:
            s[MISSING] += 1.0
            ring[at, j] = ring[before, j]
            m[AGE, j] += 1.0 if m[AGE, j] > 0.0 else 0.0
    s[ROWS] += 1.0
    s[REJECTED] += 1.0 if refused else 0.0


@part
def lags(ring: F8, r: int, j: int, L: int, sd: float, x: F8) -> None:
    """x <- 1, then the last L values of channel j up to row r, less the last, in deviations."""
    W = ring.shape[0]
    last = ring[r % W, j]
    x[0] = 1.0
    for i in range(L):
        x[1 + i] = clipped(ring[(r - i) % W, j] - last, sd, _CLIP)


@part
def state_of_all(ring: F8, r: int, m: F8, ago: int, C: int, x: F8) -> None:
    """x <- 1, then of each channel its level and its last C steps up to row r; 0 before it began.

    ago: rows from r to the last row.
    """
    W, M = ring.shape
    x[0] = 1.0
    for j in range(M):
        at = 1 + j * (C + 1)
        young = m[AGE, j] - ago <= 0.0
        sd = m[SD, j]
        x[at] = 0.0 if young else clipped(ring[r % W, j] - m[MEAN, j], sd, _CLIP)
        for i in range(C):
            step = ring[(r - i) % W, j] - ring[(r - i - 1) % W, j]
            x[at + 1 + i] = 0.0 if young else clipped(step, sd, _CLIP)


@part
def read_targets(series: Series, r: int, j: int, H: int, y: F8) -> int:
    """y <- what followed row r in channel j, less its value there, in deviations; NaN for a gap.

    Returns how many there are.
    """
    ring, there, m = series
    W = ring.shape[0]
    known = 0
    for h in range(H):
        at = (r + 1 + h) % W
        y[h] = math.nan
        if there[at, j]:
            y[h] = clipped(ring[at, j] - ring[r % W, j], m[SD, j], _CLIP)
            known += 1
    return known


@part
def is_ready(m: F8, j: int, ago: int, L: float) -> bool:
    """Whether channel j had L rows, `ago` rows before the last, and moves at all."""
    return bool(m[AGE, j] - ago >= L and m[SD, j] > 0.0)


# -- learning ------------------------------------------------------------------------------------


@part
def read_lessons(r: int, series: Series, p: F8, H: int, y: F8) -> int:
    """y (M H) <- targets of the windows that ended at row r, NaN for a channel without a lesson.

    Returns how many channels have one.
    """
    found = 0
    for j in range(series[0].shape[1]):
        own = y[j * H : (j + 1) * H]
        if is_ready(series[2], j, H, p[LAGS]) and read_targets(series, r, j, H, own) > 0:
            found += 1
        else:
            for h in range(H):
                own[h] = math.nan
    return found


@part
def has_lesson(y: F8, j: int, H: int) -> bool:
    """Whether any target of channel j is there."""
    found = False
    for h in range(j * H, (j + 1) * H):
        found = found or y[h] == y[h]
    return found


@part
def learn_experts(r: int, w: float, series: Series, ridges: Ridges, fixed: Fixed, s: F8) -> None:
    """The lessons of the window that ended at row r: one a channel, then one of all channels.

    They stand in work. One loop over both ridges, so that their code is compiled once.
    """
    ring, _, m = series
    p, _, turns, work = fixed
    H, M = ridges[1].shape[1], ring.shape[1]
    x, g, y, e = work[_X], work[_G], work[TARGETS], work[_E]
    for k in range(2):
        P, B = ridges[2 * k], ridges[2 * k + 1]
        D, q = B.shape
        if D == 0:
            continue
        f = p[FORGET]
        for j in range(M if k == 0 else 1):
            if k == 0 and not has_lesson(y, j, H):
                continue
            if k == 0:
                lags(ring, r, j, int(p[LAGS]), m[SD, j], x)
            else:
                state_of_all(ring, r, m, H, int(p[CROSS_LAGS]), x)
            learn_ridge(P, B, x[:D], y[j * q : (j + 1) * q], f, w, g, e)
            f = 1.0
        turn = int(s[LESSONS])
        turn = turn % D if k == 0 else turns[turn % D]
        leak_ridge(P, B, p[FORGET], p[RIDGE] * p[LEAKY], turn, g)
        guard(P, p[RIDGE], s)


@kernel
def egd_step(logu: F8, loss: F8, eta: float, a: float) -> None:
    """u <- u exp(-eta loss), normalised, then (1 - a) u + a / K. In logarithms; logu, loss (K,)."""
    K = logu.shape[0]
    least = loss[0]
    for k in range(1, K):
        least = min(least, loss[k])
    top = -math.inf
    for k in range(K):
        logu[k] -= eta * (loss[k] - least)
        top = max(top, logu[k])
    total = 0.0
    for k in range(K):
        total += math.exp(logu[k] - top)
    total = top + math.log(total)
    for k in range(K):
        logu[k] -= total
        if a > 0.0:
            logu[k] = math.log((1.0 - a) * math.exp(logu[k]) + a / K)


@part
def weigh(logu: F8, b: float, u: F8) -> None:
    """u <- weights of a forecast: the long-term ones, the first's logit moved by b; least 1e-4.

    For two experts u_1 = sigmoid(logit u_1 + b). u (K,).
    """
    K = logu.shape[0]
    top = logu[0] + b
    for k in range(1, K):
        top = max(top, logu[k])
    total = 0.0
    for k in range(K):
        u[k] = math.exp(logu[k] + (b if k == 0 else 0.0) - top)
        total += u[k]
    best, others = 0, 0.0
    for k in range(K):
        u[k] = max(u[k] / total, _LEAST)
        best = k if u[k] > u[best] else best
    for k in range(K):
        others += u[k] if k != best else 0.0
    u[best] = 1.0 - others


@part
def losses(r: int, j: int, series: Series, answers: F8, loss: F8) -> None:
    """loss (K,) <- mean squared error of each expert's forecast from row r, of what is known."""
    ring, there, m = series
    W, H = ring.shape[0], answers.shape[3]
    for k in range(loss.shape[0]):
        total, known = 0.0, 0.0
        for h in range(H):
            at = (r + 1 + h) % W
            if there[at, j]:
                e = clipped(answers[r % H, k, j, h] - ring[at, j], m[SD, j], _CLIP)
                total += e * e
                known += 1.0
        loss[k] = total / known


@part
def learn_mixture(r: int, series: Series, mixture: Mixture, queue: Queue, fixed: Fixed) -> None:
    """Long-term weights of each channel, from the forecasts that were made at row r."""
    logu, lscale = mixture[0], mixture[1]
    p, kinds, _, work = fixed
    M, K, H = logu.shape[0], kinds.shape[0], queue[0].shape[3]
    loss = work[_O, :K]
    for j in range(M):
        if not has_lesson(work[TARGETS], j, H):
            continue
        losses(r, j, series, queue[0], loss)
        if p[RESCALE] > 0.0:
            mean = 0.0
            for k in range(K):
                mean += loss[k] / K
            lscale[j] = max((1.0 - _LOSS_RATE) * lscale[j] + _LOSS_RATE * mean, 1e-12)
            for k in range(K):
                loss[k] = min(loss[k] / lscale[j], _LOSS_CAP)
        egd_step(logu[j], loss, p[ETA], p[SHARE])


# -- the short-term correction -------------------------------------------------------------------


@kernel
def net_run(net: F8, x: F8, act: F8) -> float:
    """The net's output: tanh layers of HIDDEN nodes, then a linear one.

    net (n_net,) | x (n_in,) | act (4 HIDDEN,): both layers' outputs, then scratch.
    """
    n = x.shape[0]
    start = 0
    for layer in range(2):
        z = act[layer * HIDDEN : (layer + 1) * HIDDEN]
        for i in range(HIDDEN):
            total = net[start + n * HIDDEN + i]
            for k in range(n):
                total += net[start + i * n + k] * (x[k] if layer == 0 else act[k])
            z[i] = total
        tanh_inplace(z, act[2 * HIDDEN : 3 * HIDDEN])
        start += (n + 1) * HIDDEN
        n = HIDDEN
    out = net[start + HIDDEN]
    for i in range(HIDDEN):
        out += net[start + i] * act[HIDDEN + i]
    return float(out)


@kernel
def net_gradient(net: F8, x: F8, act: F8, slope: float, grad: F8) -> None:
    """grad (n_net,) += slope times the gradient of `net_run`, whose `act` this takes."""
    n = x.shape[0]
    second = (n + 1) * HIDDEN
    third = second + (HIDDEN + 1) * HIDDEN
    grad[third + HIDDEN] += slope
    d1, d2 = act[2 * HIDDEN : 3 * HIDDEN], act[3 * HIDDEN : 4 * HIDDEN]
    for i in range(HIDDEN):
        h = act[HIDDEN + i]
        grad[third + i] += slope * h
        d2[i] = slope * net[third + i] * (1.0 - h * h)
        d1[i] = 0.0
    for i in range(HIDDEN):
        grad[second + HIDDEN * HIDDEN + i] += d2[i]
        for k in range(HIDDEN):
            grad[second + i * HIDDEN + k] += d2[i] * act[k]
            d1[k] += d2[i] * net[second + i * HIDDEN + k]
    for i in range(HIDDEN):
        d = d1[i] * (1.0 - act[i] * act[i])
        grad[n * HIDDEN + i] += d
        for k in range(n):
            grad[i * n + k] += d * x[k]


@part
def adam(net: F8, grad: F8, lr: float, step: float) -> None:
    """One step of Adam; net (3, n): weights, first and second moments."""
    c1, c2 = 1.0 - 0.9**step, 1.0 - 0.999**step
    for i in range(grad.shape[0]):
        net[1, i] = 0.9 * net[1, i] + 0.1 * grad[i]
        net[2, i] = 0.999 * net[2, i] + 0.001 * grad[i] * grad[i]
        net[0, i] -= lr * (net[1, i] / c1) / (math.sqrt(net[2, i] / c2) + 1e-8)


@part
def net_input(r: int, j: int, series: Series, answers: F8, u: F8, x: F8, steps: F8) -> None:
    """x <- u_k y_k of each expert, then y, all in deviations from the mean, within +-10.

    steps <- y as it is, (H,). The window of row r must be known as a whole.
    """
    ring, _, m = series
    W, K, H = ring.shape[0], answers.shape[1], answers.shape[3]
    mean, sd = m[MEAN, j], m[SD, j]
    for h in range(H):
        for k in range(K):
            z = u[k] * clipped(answers[r % H, k, j, h] - mean, sd, _CLIP)
            x[k * H + h] = min(max(z, -_NET_CLIP), _NET_CLIP)
        steps[h] = clipped(ring[(r + 1 + h) % W, j] - mean, sd, _CLIP)
        x[K * H + h] = min(max(steps[h], -_NET_CLIP), _NET_CLIP)


@part
def bias_slope(r: int, j: int, m: F8, answers: F8, u: F8, y: F8) -> float:
    """d mean (o - y)^2 / d b for o = sum u_k y_k, where b moves the logit of the first expert."""
    K, H = answers.shape[1], answers.shape[3]
    slope = 0.0
    for h in range(H):
        o = 0.0
        first = 0.0
        for k in range(K):
            z = clipped(answers[r % H, k, j, h] - m[MEAN, j], m[SD, j], _CLIP)
            o += u[k] * z
            first = z if k == 0 else first
        slope += 2.0 * (o - y[h]) * u[0] * (first - o) / H
    return slope


@part
def learn_net(
    r: int, series: Series, mixture: Mixture, net: F8, queue: Queue, fixed: Fixed, s: F8
) -> None:
    """New biases from the window of row r and its outcome; one step of the net they share."""
    logu, _, bias = mixture
    p, kinds, _, work = fixed
    answers, m = queue[0], series[2]
    M, K, H, n = logu.shape[0], kinds.shape[0], queue[0].shape[3], net.shape[1]
    u, y = work[_O, :K], work[_E, :H]
    x, grad, act = work[_R, : (K + 1) * H], work[_GRAD, :n], work[_ACT, : 4 * HIDDEN]
    for i in range(n):
        grad[i] = 0.0
    any_ready = False
    for j in range(M):
        if not has_lesson(work[TARGETS], j, H) or read_targets(series, r, j, H, y) < H:
            continue
        weigh(logu[j], 0.0, u)
        net_input(r, j, series, answers, u, x, y)
        bias[j] = net_run(net[0], x, act)
        weigh(logu[j], bias[j], u)
        slope = bias_slope(r, j, m, answers, u, y) / M
        net_gradient(net[0], x, act, min(max(slope, -1.0), 1.0), grad)
        any_ready = True
    if any_ready:
        s[ADAM] += 1.0
        adam(net, grad, p[LR_NET], s[ADAM])


# -- forecasts and their intervals ---------------------------------------------------------------


@part
def track(series: Series, queue: Queue, fixed: Fixed, r: int) -> None:
    """Row r has come: for each forecast of it, whether it was within, and how far it was off.

    The quantiles of both sides are followed by online gradient steps on what was issued, so that
    their share of misses tends to the nominal one whatever the stream does.
    """
    ring, there, _ = series
    _, issued, spread = queue
    W, M = ring.shape
    H, miss = spread.shape[2], fixed[0][MISS]
    for h in range(min(H, r)):
        slot = (r - 1 - h) % H
        for j in range(M):
            f = issued[MIXED, slot, j, h]
            if not there[r % W, j] or f != f:
                continue
            y = ring[r % W, j]
            low, high = issued[LOWER, slot, j, h], issued[UPPER, slot, j, h]
            if low == low:
                spread[BELOW, j, h] += _STEP * ((1.0 if y < low else 0.0) - miss)
                spread[ABOVE, j, h] += _STEP * ((1.0 if y > high else 0.0) - miss)
            spread[SEEN, j, h] = min(spread[SEEN, j, h] + 1.0, _MEMORY)
            size = abs(y - f)
            spread[SIZE, j, h] += (size - spread[SIZE, j, h]) / spread[SEEN, j, h]


@part
def answer_experts(
    series: Series, ridges: Ridges, queue: Queue, fixed: Fixed, r: int, given: F8
) -> None:
    """Each expert's forecast from row r, the last one, into the queue. given (K, M, H)."""
    ring, _, m = series
    p, kinds, _, work = fixed
    answers = queue[0]
    M, H, slot = ring.shape[1], answers.shape[3], r % answers.shape[0]
    D2 = ridges[3].shape[0]
    for k in range(kinds.shape[0]):
        if kinds[k] == CROSS_VARIABLE:
            state_of_all(ring, r, m, 0, int(p[CROSS_LAGS]), work[_X])
            predict_ridge(ridges[3], work[_X, :D2], work[_O, : M * H])
        for j in range(M):
            at = 0
            if kinds[k] == CROSS_TIME:
                lags(ring, r, j, int(p[LAGS]), m[SD, j], work[_X])
                predict_ridge(ridges[1], work[_X, : int(p[LAGS]) + 1], work[_O, :H])
            elif kinds[k] == CROSS_VARIABLE:
                at = j * H
            elif kinds[k] >= GIVEN:
                for h in range(H):
                    work[_O, h] = given[k, j, h]
            put_answer(kinds[k], j, r, series, p, work[_O, at : at + H], answers[slot, k, j])


@part
def put_answer(kind: int, j: int, r: int, series: Series, p: F8, o: F8, answer: F8) -> None:
    """answer (H,) <- an expert's forecast; the last value where it cannot say more."""
    ring, _, m = series
    W = ring.shape[0]
    last = ring[r % W, j] if m[AGE, j] > 0.0 else math.nan
    S = int(p[SEASON])
    learnt = kind != LAST_VALUE and kind != SEASONAL and is_ready(m, j, 0, p[LAGS])
    for h in range(answer.shape[0]):
        answer[h] = last
        if learnt:
            answer[h] = last + min(max(o[h], -_CLIP), _CLIP) * m[SD, j]
        elif kind == SEASONAL and m[AGE, j] >= S:
            answer[h] = ring[(r + 1 + h - S * (h // S + 1)) % W, j]


@part
def issue(mixture: Mixture, queue: Queue, fixed: Fixed, r: int) -> None:
    """The mixture of the experts' forecasts from row r, and its interval, into the queue."""
    logu, _, bias = mixture
    answers, issued, spread = queue
    p, kinds, _, work = fixed
    M, K, H, slot = logu.shape[0], kinds.shape[0], spread.shape[2], r % answers.shape[0]
    u = work[_O, :K]
    for j in range(M):
        weigh(logu[j], bias[j], u)
        for h in range(H):
            f = 0.0
            for k in range(K):
                f += u[k] * answers[slot, k, j, h]
            size = spread[SIZE, j, h] if spread[SEEN, j, h] > 0.0 else math.nan
            issued[MIXED, slot, j, h] = f
            issued[LOWER, slot, j, h] = f - max(spread[BELOW, j, h] + p[START_Q], 0.0) * size
            issued[UPPER, slot, j, h] = f + max(spread[ABOVE, j, h] + p[START_Q], 0.0) * size


@part
def tell(t: int, queue: Queue, s: F8, out: Out) -> None:
    """What was forecast from the last row that was observed; NaN before the first."""
    issued = queue[1]
    H, M = issued.shape[1], issued.shape[2]
    slot = (int(s[ROWS]) - 1) % H
    for h in range(H):
        for j in range(M):
            nothing = s[ROWS] == 0.0
            out[0][t, h, j] = math.nan if nothing else issued[MIXED, slot, j, h]
            out[1][t, h, j] = math.nan if nothing else issued[LOWER, slot, j, h]
            out[2][t, h, j] = math.nan if nothing else issued[UPPER, slot, j, h]


# -- the walk ------------------------------------------------------------------------------------


@kernel
def walk(
    rows: Rows, series: Series, model: tuple[Ridges, Mixture], net: F8 | None, queue: Queue,
    fixed: Fixed, s: F8, out: Out,
) -> None:  # fmt: skip
    """Walk a block row by row: take it in; learn the lesson that it completes; forecast from it.

    Between TAKE_IN and GO_ON the targets of the lesson stand in `work`, for the experts outside.
    Without a net its code is not compiled. Weights are >= 0 and finite.
    """
    X, weight, mode, given = rows
    ridges, mixture = model
    H = queue[0].shape[0]
    for t in range(X.shape[0]):
        if mode[t] & (_OBSERVE | TAKE_IN):
            push(t, X, series, s, fixed[0][WARM_UP])
            track(series, queue, fixed, int(s[ROWS]) - 1)
        r = int(s[ROWS]) - 1
        lessons = 0
        if r >= H and weight[t] > 0.0 and mode[t] & (_OBSERVE | TAKE_IN | GO_ON):
            lessons = read_lessons(r - H, series, fixed[0], H, fixed[3][TARGETS])
        if mode[t] & (_OBSERVE | GO_ON):
            if lessons > 0:
                learn_experts(r - H, weight[t], series, ridges, fixed, s)
                s[LESSONS] += 1.0
                learn_mixture(r - H, series, mixture, queue, fixed)
                if net is not None:
                    learn_net(r - H, series, mixture, net, queue, fixed, s)
            answer_experts(series, ridges, queue, fixed, r, given[t])
            issue(mixture, queue, fixed, r)
        if mode[t] & _PREDICT:
            tell(t, queue, s, out)
