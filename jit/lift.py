"""From rows of X to the features of a linear head: 1, random features, x, rescaled to one length.

d inputs, h random features, D = 1 + h + d, n rows. A label becomes a code here: a
class >= 0, or one of the words below.
"""

import math

import numpy as np

from streamlearn.jit._compile import F8, I8, U1, kernel, part
from streamlearn.jit.random_features import hidden_features

REJECT, EMPTY, TARGET, SKIP = -1, -2, -3, -4  # bad label, nothing to learn, targets, bad features
REJECTED, REFUSED, IMPUTED = range(3)  # places of the counters in s
NORM2, LIMIT = range(2)  # places in the settings p
LARGEST = 1e300  # a target beyond it would overflow the weights
_LEARN, _OBSERVE = 2, 4

Rows = tuple[F8, F8, F8, U1]


@part
def rescale(f: F8, norm2: float) -> None:
    """f <- f sqrt(norm2 / f'f); a row whose square overflows is first divided by its largest."""
    total = 0.0
    for i in range(f.shape[0]):
        total += f[i] * f[i]
    if total == math.inf:
        top = 0.0
        for i in range(f.shape[0]):
            top = max(top, abs(f[i]))
        total = 0.0
        for i in range(f.shape[0]):
            f[i] /= top
            total += f[i] * f[i]
    factor = math.sqrt(norm2 / total)
    for i in range(f.shape[0]):
        f[i] *= factor


@part
def fill(t: int, X: F8, inputs: F8, F: F8) -> int:
    """f <- 1, (random), x, where what is missing has its running mean. O(d).

    Returns how many were missing, EMPTY if all, SKIP for an infinity.
    """
    d = X.shape[1]
    start = F.shape[1] - d
    F[t, 0] = 1.0
    missing = 0
    for i in range(d):
        value = X[t, i]
        if value != value:
            value = inputs[1, i]
            missing += 1
        if abs(value) == math.inf:
            return SKIP
        F[t, start + i] = value
    return EMPTY if missing == d else missing


@part
def observe(t: int, X: F8, w: float, inputs: F8) -> None:
    """Running mean of every feature that row t has; the form of the step cannot overflow. O(d)."""
    for i in range(X.shape[1]):
        value = X[t, i]
        if value == value:
            inputs[0, i] += w
            share = w / inputs[0, i]
            inputs[1, i] += value * share - inputs[1, i] * share


@part
def read_label(t: int, y: F8, K: int) -> int:
    """Code of the label of row t: a class < K, or TARGET (K = 0), or EMPTY, or REJECT."""
    for k in range(y.shape[1]):
        if y[t, k] != y[t, k]:
            return EMPTY
        if abs(y[t, k]) > LARGEST:
            return REJECT
    if K == 0:
        return TARGET
    c = y[t, 0]
    return int(c) if 0.0 <= c < K and c == math.floor(c) else REJECT


@part
def bounded(f: F8, p: F8) -> bool:
    """Rescale f, or, where that is off, say whether f'f is small enough for a covariance."""
    if p[NORM2] > 0.0:
        rescale(f, p[NORM2])
        return True
    total = 0.0
    for i in range(f.shape[0]):
        total += f[i] * f[i]
    return bool(total <= p[LIMIT])


@part
def judge(t: int, found: int, rows: Rows, inputs: F8, s: F8, p: F8, f: F8, K: int) -> int:
    """Finish row t: rescale, count what is bad, read the label, observe. Returns its code."""
    X, y, weight, mode = rows
    learn = mode[t] & _LEARN
    if found == SKIP or not bounded(f, p):
        if learn:
            s[REJECTED if found == SKIP else REFUSED] += 1.0
        for i in range(f.shape[0]):
            f[i] = 0.0
        return SKIP
    c = read_label(t, y, K) if learn else EMPTY
    if c == REJECT:
        s[REJECTED] += 1.0
        return REJECT
    if mode[t] & _OBSERVE:  # once an event: a late label finds its gaps filled
        s[IMPUTED] += float(X.shape[1] if found == EMPTY else found)
    if mode[t] & _OBSERVE and weight[t] > 0.0:
        observe(t, X, weight[t], inputs)
    return EMPTY if found == EMPTY or weight[t] == 0.0 else c


@part
def bad_weight(weight: F8) -> int:
    """The first row whose weight is negative or not finite, or -1."""
    for t in range(weight.shape[0]):
        if not 0.0 <= weight[t] < math.inf:
            return t
    return -1


@kernel
def lift_linear(rows: Rows, inputs: F8, s: F8, p: F8, W: F8, F: F8, codes: I8, K: int) -> int:
    """Features and label codes of a block, row by row; running means from before each row.

    rows = X (n, d), y (n, q), weight (n,), mode (n,) | inputs (2, d) in/out: weight seen, running
    mean |
    s counters, in/out | p settings | W unused | F (n, D) out | codes (n,) out | K classes there is
    room for, 0 for targets. Returns -1, or the row whose weight is bad: then nothing was changed.
    """
    bad = bad_weight(rows[2])
    if bad < 0:
        for t in range(F.shape[0]):
            found = fill(t, rows[0], inputs, F)
            codes[t] = judge(t, found, rows, inputs, s, p, F[t], K)
    return bad


@kernel
def lift_random(rows: Rows, inputs: F8, s: F8, p: F8, W: F8, F: F8, codes: I8, K: int) -> int:
    """As lift_linear, with h = tanh(W x + b) in columns 1 to h; W (1 + d, h), biases first."""
    bad = bad_weight(rows[2])
    h = W.shape[1]
    scratch = np.empty(h)
    if bad < 0:
        for t in range(F.shape[0]):
            found = fill(t, rows[0], inputs, F)
            if found != SKIP:
                hidden_features(F[t, 1 + h :], W, F[t, 1 : 1 + h], scratch)
            codes[t] = judge(t, found, rows, inputs, s, p, F[t], K)
    return bad


@kernel
def fill_gaps(rows: Rows, inputs: F8, codes: I8, out: F8) -> None:
    """X with every gap filled by the running mean from before its row, as `lift_...` fills it.

    rows as there | inputs (2, d) before the block, in/out | codes (n,) that it gave | out (n, d).
    """
    X, _, weight, mode = rows
    for t in range(X.shape[0]):
        for i in range(X.shape[1]):
            out[t, i] = X[t, i] if X[t, i] == X[t, i] else inputs[1, i]
        taken = codes[t] != SKIP and codes[t] != REJECT
        if taken and mode[t] & _OBSERVE and weight[t] > 0.0:
            observe(t, X, weight[t], inputs)
