"""Hedge backpropagation: a network whose layers all answer, weighted by how well they did.

Letters as in Sahoo et al. (2018), arXiv 1711.03705: W and b of hidden layers, Theta of heads, alpha
weights of the heads, beta discount. L hidden layers of h units, d inputs, K classes or targets, n
rows; head l reads hidden layer l, head 0 the input.

A walker takes four tuples of arrays, float64 and C-contiguous unless said:
    rows  = X (n, d) | y (n, 1 or K) | weight (n,) | mode (n,) uint8
    net   = W1 (d, h) | W (L - 1, h, h), from rows to columns | b (L, h) | T0 (K, 1 + d) |
            T (L, K, 1 + h), biases first | alpha (L + 1,) | outputs (4, K) | s (N_SCALARS,)
    fixed = settings p (N_SETTINGS,) | scratch: H (L + 1, max(d, h)) activations | Z (L, h)
            gradients | G (L + 1, K) errors of heads | V (L + 1, K) their outputs | r (L + 1,)
            losses | u (2, K) | units (L + 1, max(d, h)) int64, those not 0 |
            counts (L + 1,) int64, of units | facts (2, L + 1): squared lengths, whether finite
    out   = answer (n, K) | side (n, 1): probabilities and class, or the prediction and nothing
outputs: rows learnt of a class in row 0; of a target mean, variance, mass, count (`target_scale`).
K is a capacity for classes: those known have outputs[0] > 0.
"""

import math

from streamlearn.jit._compile import F8, I8, U1, kernel, part
from streamlearn.jit.lift import EMPTY, REJECT, SKIP, TARGET, bad_weight, read_label
from streamlearn.jit.open_classes import balanced, softmax
from streamlearn.jit.scale import any_infinite, target_scale, target_scale_learn

SAMPLES, REJECTED, IMPUTED, RESETS, CLASSES = range(5)
N_SCALARS = 5
ETA, LOG_BETA, FLOOR, MINMAX, BALANCE, Q = range(6)
N_SETTINGS = 6

_PREDICT, _LEARN, _OBSERVE = 1, 2, 4
_LARGEST = 1e50  # an activation beyond is cut: products of two stay finite
_CLIP = 10.0  # norm of a gradient, of all parameters together

Rows = tuple[F8, F8, F8, U1]
Net = tuple[F8, F8, F8, F8, F8, F8, F8, F8]
Fixed = tuple[F8, F8, F8, F8, F8, F8, F8, I8, I8, F8]
Out = tuple[F8, F8]


# -- forward -------------------------------------------------------------------------------------


@part
def bounded(value: float) -> float:
    """The value within +-1e50; NaN is 0."""
    value = _LARGEST if value > _LARGEST else value
    value = -_LARGEST if value < -_LARGEST else value
    return value if value == value else 0.0


@part
def take(t: int, rows: Rows, s: F8, x: F8) -> int:
    """x <- row t, where what is missing is 0. Returns SKIP for an infinity, EMPTY, or 0. O(d)."""
    X, mode = rows[0], rows[3]
    if any_infinite(X[t]):
        s[REJECTED] += 1.0 if mode[t] & _LEARN else 0.0
        return SKIP
    missing = 0
    for j in range(X.shape[1]):
        value = X[t, j]
        missing += value != value
        x[j] = bounded(value)
    s[IMPUTED] += float(missing) if mode[t] & _OBSERVE else 0.0
    return EMPTY if missing == X.shape[1] and missing > 0 else 0


@part
def dot(a: F8, x: F8, n: int) -> float:
    """a'x over the first n, in four chains by place modulo 4: zeros after the end change no bit."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    j = 0
    while j + 3 < n:
        s0 += a[j] * x[j]
        s1 += a[j + 1] * x[j + 1]
        s2 += a[j + 2] * x[j + 2]
        s3 += a[j + 3] * x[j + 3]
        j += 4
    s0 += a[j] * x[j] if j < n else 0.0
    s1 += a[j + 1] * x[j + 1] if j + 1 < n else 0.0
    s2 += a[j + 2] * x[j + 2] if j + 2 < n else 0.0
    return (s0 + s1) + (s2 + s3)


@part
def awake(x: F8, n: int, units: I8) -> int:
    """units <- the places of what is not 0 in the first n of x. Returns how many there are."""
    found = 0
    for i in range(n):
        units[found] = i
        found += x[i] != 0.0
    return found


@part
def rectify(W: F8, b: F8, x: F8, units: I8, out: F8) -> None:
    """out <- relu(W'x + b), x 0 but for some units: each output one chain over these in order."""
    h, n = b.shape[0], units.shape[0]
    for i in range(h):
        out[i] = b[i]
    a = 0
    while a + 3 < n:
        j0, j1, j2, j3 = units[a], units[a + 1], units[a + 2], units[a + 3]
        x0, x1, x2, x3 = x[j0], x[j1], x[j2], x[j3]
        for i in range(h):
            total = out[i] + x0 * W[j0, i]
            total += x1 * W[j1, i]
            total += x2 * W[j2, i]
            out[i] = total + x3 * W[j3, i]
        a += 4
    while a < n:
        for i in range(h):
            out[i] += x[units[a]] * W[units[a], i]
        a += 1
    for i in range(h):
        out[i] = bounded(max(out[i], 0.0))


@part
def read_out(T: F8, x: F8, n_in: int, out: F8) -> bool:
    """out <- T [1; x], 0 where that is not finite. Returns whether all of it is. O(K n_in)."""
    fine = True
    for k in range(T.shape[0]):
        total = T[k, 0] + dot(T[k, 1:], x, n_in)
        fine &= abs(total) < math.inf
        out[k] = total if abs(total) < math.inf else 0.0
    return fine


@part
def forward(net: Net, fixed: Fixed) -> bool:
    """Activations into H, outputs of all heads into V. Returns whether all heads are finite.

    A head that is not says 0.
    """
    W1, W, b, T0, T, _, _, _ = net
    H, V, units, counts, facts = fixed[1], fixed[4], fixed[7], fixed[8], fixed[9]
    n = W1.shape[0]
    fine = True
    for head in range(b.shape[0] + 1):  # one loop, so that what it inlines is compiled once
        if head > 0:
            below = W1 if head == 1 else W[head - 2]
            rectify(below, b[head - 1], H[head - 1], units[head - 1, : counts[head - 1]], H[head])
            n = b.shape[1]
        counts[head] = awake(H[head], n, units[head])
        facts[0, head] = dot(H[head], H[head], n)
        there = read_out(T0 if head == 0 else T[head - 1], H[head], n, V[head])
        facts[1, head] = 1.0 if there else 0.0
        fine &= there
    return fine


@part
def mend(net: Net, fixed: Fixed) -> None:
    """Every head whose outputs were not finite starts anew, with the least weight. O(L K h)."""
    T0, T, alpha, s = net[3], net[4], net[5], net[7]
    for head in range(alpha.shape[0]):
        if fixed[9][1, head] == 0.0:
            Theta = T0 if head == 0 else T[head - 1]
            for k in range(Theta.shape[0]):
                for j in range(Theta.shape[1]):
                    Theta[k, j] = 0.0
            alpha[head] = fixed[0][FLOOR] / alpha.shape[0]
            normalise(alpha)
            s[RESETS] += 1.0


@part
def normalise(alpha: F8) -> None:
    """alpha <- alpha / sum alpha, or uniform where all is lost."""
    total = 0.0
    for head in range(alpha.shape[0]):
        total += alpha[head]
    for head in range(alpha.shape[0]):
        alpha[head] = alpha[head] / total if total > 0.0 else 1.0 / alpha.shape[0]


# -- backward ------------------------------------------------------------------------------------


@part
def descend(net: Net, fixed: Fixed, w: float) -> None:
    """One step down sum_l alpha_l loss_l: errors of the heads stand in G. O(L h^2 + L K h).

    All gradients are those of the weights before the step, so Z is complete before it is used.
    """
    alpha = net[5]
    G = fixed[3]
    for head in range(G.shape[0]):
        for k in range(G.shape[1]):
            G[head, k] *= alpha[head] * w
    norm2 = backward(net, fixed)
    rate = fixed[0][ETA]
    if norm2 > _CLIP * _CLIP:
        rate *= _CLIP / math.sqrt(norm2)
    update(net, fixed, rate)


@part
def backward(net: Net, fixed: Fixed) -> float:
    """Z <- gradients in the inputs of the units. Returns the squared norm of the whole gradient."""
    W, b, T = net[1], net[2], net[4]
    Z, G, units, counts, facts = fixed[2], fixed[3], fixed[7], fixed[8], fixed[9]
    K = G.shape[1]
    L, h = b.shape
    norm2 = 0.0
    for head in range(L + 1):
        norm2 += dot(G[head], G[head], K) * (1.0 + facts[0, head])
    for layer in range(L - 1, -1, -1):
        z, there = Z[layer], units[layer + 1, : counts[layer + 1]]
        for i in range(h):
            z[i] = 0.0
        for i in there:
            for k in range(K):
                z[i] += T[layer, k, 1 + i] * G[layer + 1, k]
        if layer < L - 1:
            pull(W[layer], Z[layer + 1], units[layer + 2, : counts[layer + 2]], there, z)
        for i in there:
            z[i] = bounded(z[i])
        norm2 += dot(z, z, h) * (1.0 + facts[0, layer])
    return norm2


@part
def pull(W: F8, z: F8, above: I8, units: I8, out: F8) -> None:
    """out[units] += W[units, above] z[above]; four units at a time, each one chain.

    Half of the units rest: their gradient is 0, and so is what they pass on.
    """
    n = units.shape[0]
    a = 0
    while a + 3 < n:
        i0, i1, i2, i3 = units[a], units[a + 1], units[a + 2], units[a + 3]
        s0, s1, s2, s3 = out[i0], out[i1], out[i2], out[i3]
        for j in above:
            zj = z[j]
            s0 += W[i0, j] * zj
            s1 += W[i1, j] * zj
            s2 += W[i2, j] * zj
            s3 += W[i3, j] * zj
        out[i0], out[i1], out[i2], out[i3] = s0, s1, s2, s3
        a += 4
    while a < n:
        total = out[units[a]]
        for j in above:
            total += W[units[a], j] * z[j]
        out[units[a]] = total
        a += 1


@part
def update(net: Net, fixed: Fixed, rate: float) -> None:
    """Every parameter goes down its gradient."""
    W1, W, b, T0, T, _, _, _ = net
    H, Z, G, units, counts = fixed[1], fixed[2], fixed[3], fixed[7], fixed[8]
    for head in range(b.shape[0] + 1):
        x, there = H[head], units[head, : counts[head]]
        lower(T0 if head == 0 else T[head - 1], G[head], x, there, rate)
        if head < b.shape[0]:
            lower_layer(W1 if head == 0 else W[head - 1], b[head], Z[head], x, there, rate)


@part
def lower(T: F8, g: F8, x: F8, units: I8, rate: float) -> None:
    """T <- T - rate g [1; x]', x 0 but for some units."""
    for k in range(T.shape[0]):
        step = rate * g[k]
        T[k, 0] -= step
        for j in units:
            T[k, 1 + j] -= step * x[j]


@part
def lower_layer(W: F8, b: F8, z: F8, x: F8, units: I8, rate: float) -> None:
    """W <- W - rate x z', b <- b - rate z; rows of units that rest stay as they are."""
    h = b.shape[0]
    for i in range(h):
        b[i] -= rate * z[i]
    for j in units:
        step = rate * x[j]
        for i in range(h):
            W[j, i] -= step * z[i]


@part
def hedge(alpha: F8, loss: F8, p: F8, w: float) -> None:
    """alpha_l <- alpha_l beta^(w r_l), floored at s / (L + 1); r is the loss, at most 1."""
    heads = alpha.shape[0]
    low, high = loss[0], loss[0]
    for head in range(1, heads):
        low, high = min(low, loss[head]), max(high, loss[head])
    for head in range(heads):
        r = min(1.0, loss[head])
        if p[MINMAX] > 0.0:
            r = (loss[head] - low) / (high - low) if high > low else 0.0
        alpha[head] *= math.exp(p[LOG_BETA] * (w * r))
    normalise(alpha)
    for head in range(heads):
        alpha[head] = max(alpha[head], p[FLOOR] / heads)
    normalise(alpha)


# -- rows ----------------------------------------------------------------------------------------


@part
def blank(t: int, outputs: F8, classify: bool, out: Out) -> None:
    """No answer: NaN, but 0 for a class that is not known, as in a column that is not there yet."""
    for k in range(outputs.shape[1]):
        out[0][t, k] = 0.0 if classify and outputs[0, k] == 0.0 else math.nan
    out[1][t, 0] = math.nan


@part
def mix(net: Net, fixed: Fixed) -> int:
    """G <- softmax of each head's outputs V; u[0] <- their mixture. Returns its class, or -1."""
    alpha, outputs = net[5], net[6]
    G, V, prob = fixed[3], fixed[4], fixed[6][0]
    best = -1
    for k in range(prob.shape[0]):
        prob[k] = 0.0
    for head in range(alpha.shape[0]):
        best = softmax(V[head], outputs[0], 1.0, G[head])
        for k in range(prob.shape[0]):
            prob[k] += alpha[head] * G[head, k]
    for k in range(prob.shape[0]):
        if best >= 0 and prob[k] > prob[best]:
            best = k
    return best


@part
def settle_class(t: int, c: int, rows: Rows, net: Net, fixed: Fixed, out: Out) -> float:
    """Answer with the mixture of the heads; for c >= 0 know the class, leave errors and losses.

    Returns the weight of the step, 0 without a lesson; as long as there is one class there is
    nothing to learn but that it is there.
    """
    outputs, s = net[6], net[7]
    p, _, _, G, _, r, u, _, _, _ = fixed
    for turn in range(2):  # with a new class once more; one loop, so that it is compiled once
        best = mix(net, fixed)
        if turn == 0:
            answer_class(t, best, rows, outputs, u[0], out)
            if c >= 0:
                outputs[0, c] += 1.0
        if c < 0 or outputs[0, c] > 1.0:
            break
    if c < 0:
        return 0.0
    s[SAMPLES] += 1.0
    s[CLASSES] = max(s[CLASSES], c + 1.0)
    known = 0
    for k in range(outputs.shape[1]):
        known += outputs[0, k] > 0.0
    if known < 2:
        return 0.0
    for head in range(G.shape[0]):
        r[head] = -math.log(max(G[head, c], 1e-300)) / (2.0 * math.log(known))
        G[head, c] -= 1.0
    w = rows[2][t]
    return float(w * balanced(outputs[0], c) if p[BALANCE] > 0.0 else w)


@part
def answer_class(t: int, best: int, rows: Rows, outputs: F8, prob: F8, out: Out) -> None:
    """Probabilities and the class of row t, where it asks."""
    if rows[3][t] & _PREDICT:
        out[1][t, 0] = math.nan if best < 0 else float(best)
        for k in range(prob.shape[0]):
            out[0][t, k] = prob[k]
    else:
        blank(t, outputs, True, out)


@part
def settle_target(t: int, c: int, rows: Rows, net: Net, fixed: Fixed, out: Out) -> float:
    """Answer with mean + sigma times the weighted outputs of the heads; leave errors and losses.

    All in units of sigma, from before the target joins. Returns the weight, 0 without a lesson.
    """
    alpha, outputs, s = net[5], net[6], net[7]
    p, _, _, G, V, r, u, _, _, _ = fixed
    K = G.shape[1]
    for k in range(K):
        u[0, k] = target_scale(outputs[:, k])
        total = 0.0
        for head in range(alpha.shape[0]):
            total += alpha[head] * V[head, k]
        asked = rows[3][t] & _PREDICT
        out[0][t, k] = outputs[0, k] + u[0, k] * total if asked else math.nan
        u[1, k] = (rows[1][t, k] - outputs[0, k]) / u[0, k]
    if c != TARGET:
        return 0.0
    s[SAMPLES] += 1.0
    for head in range(G.shape[0]):
        r[head] = 0.0
        for k in range(K):
            G[head, k] = bounded(V[head, k] - u[1, k])
            r[head] += G[head, k] * G[head, k] / K
    for k in range(K):
        target_scale_learn(outputs[:, k], rows[1][t, k], rows[2][t], p[Q])
    return float(rows[2][t])


@kernel
def walk(rows: Rows, net: Net, fixed: Fixed, out: Out, targets: bool | None) -> int:
    """Walk a block row by row: predict, then learn. targets is None for classes.

    Returns -1, or the row whose weight is bad: then nothing was changed.
    """
    bad = bad_weight(rows[2])
    if bad >= 0:
        return bad
    K = 0 if targets is not None else net[6].shape[1]
    for t in range(rows[0].shape[0]):
        found = take(t, rows, net[7], fixed[1][0])
        if found == SKIP:
            blank(t, net[6], targets is None, out)
            continue
        c = read_label(t, rows[1], K) if rows[3][t] & _LEARN else EMPTY
        net[7][REJECTED] += c == REJECT
        if found == EMPTY or rows[2][t] == 0.0:
            c = EMPTY
        fine = forward(net, fixed)
        if targets is None:
            w = settle_class(t, c, rows, net, fixed, out)
        else:
            w = settle_target(t, c, rows, net, fixed, out)
        if w > 0.0:
            if not fine:
                mend(net, fixed)
            descend(net, fixed, w)
            hedge(net[5], fixed[5], fixed[0], w)
    return -1
