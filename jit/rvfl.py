"""Random vector functional link: inputs standardised by their first values, and random nodes.

d inputs, m nodes, D = 1 + m + d, n0 rows of warm-up, n rows. The features of a row are
f = (1, g(W z + b), z): z the inputs standardised by moments that are frozen once n0 values of a
feature are known, g the activation.
"""

import math

from streamlearn.jit import lift
from streamlearn.jit._compile import F8, I8, U1, kernel, part
from streamlearn.jit.lift import bad_weight, read_label
from streamlearn.jit.random_features import activate, mix_inputs
from streamlearn.jit.rls import SAMPLES
from streamlearn.jit.scale import deviation

COUNT, MEAN, M2, CENTRE, FACTOR = range(5)  # rows of inputs: running moments, and what is applied
CLIP, EPS, WARM_UP, ACTIVATION = range(4)  # places in the settings q
SEEN, REFUSED = range(2)  # places in the counters of `expand_run`
_LEARN, _OBSERVE = 2, 4
_ABSURD = 1e6
_LARGEST = 1e300  # a sum of squares beyond it counts as this

Rows = tuple[F8, F8, F8, U1]
Nodes = tuple[F8, F8, F8]


# -- inputs ----------------------------------------------------------------------------------------


@part
def least_values(q: F8) -> float:
    """Values of a feature before it counts for anything: an eighth of the warm-up."""
    return float(max(math.floor(q[WARM_UP] / 8.0), 2.0))


@part
def fix(inputs: F8, j: int, q: F8) -> None:
    """Apply the running moments of feature j from now on: z = (x - mean) / (sd + eps).

    The factor stays 0, and z with it, before there are enough values, or where sd + eps is 0.
    """
    if inputs[COUNT, j] < least_values(q):
        return
    width = math.sqrt(inputs[M2, j] / inputs[COUNT, j]) + q[EPS]
    inputs[CENTRE, j] = inputs[MEAN, j]
    inputs[FACTOR, j] = 1.0 / width if width > 0.0 else 0.0


@part
def follow(t: int, X: F8, inputs: F8, q: F8, apply: bool) -> None:
    """Running mean and sum of squares of each feature that has fewer than n0 values. O(d).

    A value beyond a million standard deviations is left out: it would stay in them for ever.
    """
    for j in range(X.shape[1]):
        value = X[t, j]
        if value == value and inputs[COUNT, j] < q[WARM_UP]:
            e = deviation(value, inputs[MEAN, j])
            if inputs[COUNT, j] >= least_values(q):
                width = math.sqrt(inputs[M2, j] / inputs[COUNT, j]) + q[EPS]
                if abs(e) > _ABSURD * width > 0.0:
                    continue
            inputs[COUNT, j] += 1.0
            inputs[MEAN, j] += e / inputs[COUNT, j]
            grown = inputs[M2, j] + e * deviation(value, inputs[MEAN, j])
            inputs[M2, j] = min(grown, _LARGEST)
            if apply:
                fix(inputs, j, q)


@part
def standardise(t: int, X: F8, inputs: F8, clip: float, z: F8) -> int:
    """z <- (x - centre) factor, cut at +-clip; a missing value is at its centre, 0. O(d).

    Returns how many were missing, lift.EMPTY if all, lift.SKIP for an infinity.
    """
    missing = 0
    for j in range(X.shape[1]):
        value = X[t, j]
        z[j] = 0.0
        if abs(value) == math.inf:
            return lift.SKIP
        if value != value:
            missing += 1
        elif inputs[FACTOR, j] > 0.0:
            e = deviation(value, inputs[CENTRE, j]) * inputs[FACTOR, j]
            z[j] = min(max(e, -clip), clip)
    return lift.EMPTY if missing == X.shape[1] else missing


@part
def expand(t: int, X: F8, nodes: Nodes, q: F8, h: F8, z: F8) -> int:
    """z <- standardised inputs, h <- nodes of row t. Returns as `standardise`. O(d m)."""
    inputs, W, scratch = nodes
    found = standardise(t, X, inputs, q[CLIP], z)
    if found != lift.SKIP:
        mix_inputs(z, W, h)
        activate(h, q[ACTIVATION], scratch[0])
    return found


# -- rows for the head -----------------------------------------------------------------------------


@part
def is_due(n: float, q: F8) -> bool:
    """Whether the n-th lesson completes an eighth, a quarter, a half or all of the warm-up."""
    if n > q[WARM_UP]:
        return False
    quarter, half = math.floor(q[WARM_UP] / 4.0), math.floor(q[WARM_UP] / 2.0)
    first = n == least_values(q) or (n == quarter and n > least_values(q))
    return bool(first or (n == half and n > least_values(q)) or n == q[WARM_UP])


@part
def judge(t: int, found: int, rows: Rows, s: F8, K: int) -> int:
    """Count what is bad in row t and read its label. Returns its code, as `lift` has them."""
    X, y, weight, mode = rows
    learn = mode[t] & _LEARN
    if found == lift.SKIP:
        s[lift.REJECTED] += 1.0 if learn else 0.0
        return lift.SKIP
    c = read_label(t, y, K) if learn else lift.EMPTY
    if c == lift.REJECT:
        s[lift.REJECTED] += 1.0
        return lift.REJECT
    if mode[t] & _OBSERVE:  # once an event
        s[lift.IMPUTED] += float(X.shape[1] if found == lift.EMPTY else found)
    return lift.EMPTY if found == lift.EMPTY or weight[t] == 0.0 else c


@part
def remember(t: int, n: int, rows: Rows, kept: tuple[F8, F8]) -> None:
    """Keep row t, as it came, as the n-th lesson of the warm-up."""
    X, y, weight, _ = rows
    for j in range(X.shape[1]):
        kept[0][n, j] = X[t, j]
    kept[1][n, 0] = weight[t]
    for k in range(y.shape[1]):
        kept[1][n, 1 + k] = y[t, k]


@kernel
def lift_nodes(
    start: int, rows: Rows, nodes: Nodes, kept: tuple[F8, F8], s: F8, q: F8,
    lifted: tuple[F8, I8], K: int,
) -> int:  # fmt: skip
    """Features and label codes of a block from row start on; moments follow the lessons.

    rows = X (n, d), y (n, k), weight (n,), mode (n,) | nodes = inputs (5, d) in/out, W (1 + d, m),
    scratch (1, m) | kept = X (n0, d), weight and y (n0, 1 + k) of the warm-up, in/out | s as of
    `rls` | q settings | lifted = F (n, D), codes (n,), out | K classes there is room for, 0 for
    targets. Returns the row to go on at, after a lesson that completes a part of the warm-up, or n;
    or, at once, -1 - t for a weight in row t that is bad: then nothing was changed.
    """
    F, codes = lifted
    m = nodes[1].shape[1]
    n = s[SAMPLES]
    bad = bad_weight(rows[2]) if start == 0 else -1
    if bad >= 0:
        return -1 - bad
    for t in range(start, F.shape[0]):
        F[t, 0] = 1.0
        found = expand(t, rows[0], nodes, q, F[t, 1 : 1 + m], F[t, 1 + m :])
        c = codes[t] = judge(t, found, rows, s, K)
        if c >= 0 or c == lift.TARGET:
            warm = n >= q[WARM_UP]
            if not warm:
                remember(t, int(n), rows, kept)
            follow(t, rows[0], nodes[0], q, warm)
            n += 1.0
            if not warm and is_due(n, q):
                return t + 1
    return int(F.shape[0])


@kernel
def completes(n: float, q: F8) -> bool:
    """`is_due`, for Python."""
    return is_due(n, q)


@kernel
def lift_again(X: F8, nodes: Nodes, q: F8, F: F8) -> None:
    """The lessons of the warm-up (n, d) by the moments of now: applies these, then fills F."""
    m = nodes[1].shape[1]
    for j in range(X.shape[1]):
        fix(nodes[0], j, q)
    for t in range(X.shape[0]):
        F[t, 0] = 1.0
        expand(t, X, nodes, q, F[t, 1 : 1 + m], F[t, 1 + m :])


# -- the transformer -------------------------------------------------------------------------------


@kernel
def expand_run(
    X: F8, weight: F8, mode: U1, nodes: Nodes, q: F8, counters: F8, out: F8
) -> None:  # fmt: skip
    """out (n, m + d) <- nodes and standardised inputs, by the moments from before each row.

    A row without any feature is NaN; one with an infinity is passed on as it is, to be refused.
    """
    m = nodes[1].shape[1]
    for t in range(X.shape[0]):
        found = expand(t, X, nodes, q, out[t, :m], out[t, m:])
        if found == lift.EMPTY:
            for j in range(out.shape[1]):
                out[t, j] = math.nan
        if found == lift.SKIP:
            for j in range(m):
                out[t, j] = 0.0
            for j in range(X.shape[1]):
                out[t, m + j] = X[t, j]
        if not mode[t] & _OBSERVE or weight[t] == 0.0:
            continue
        if found == lift.SKIP:
            counters[REFUSED] += 1.0
        elif found != lift.EMPTY:
            counters[SEEN] += 1.0
            follow(t, X, nodes[0], q, True)
