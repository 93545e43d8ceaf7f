"""Incremental Gaussian mixture: precisions and log-determinants by rank-one updates, recall.

Letters as in Pinto and Engel (2015), PLOS ONE 10(10) e0139931: mu means, Lam precisions, sp
accumulated posteriors, v ages. The joint vector z has D coordinates: d features, then the targets,
or a column for every class but the first that came. K components, of Kmax there is room for.

The walker takes tuples of arrays, float64 and C-contiguous unless said:
    rows  = X (n, d) | y (n, q) | weight (n,) | mode (n,) uint8
    state = mu (Kmax, D) | Lam (Kmax, D, D) | comp (4, Kmax) | moments (4, D) | classes (2, C) |
            buffer (w, D + 2) rows of the warm-up, their weight and class | s (N_SCALARS,) |
            delayed, arrays of `mixture_delayed`
    fixed = settings p (N_SETTINGS,) | chi (D + 1,) the gate by degrees of freedom |
            vec (N_VEC, max(D, C, Kmax)) | per (N_PER, Kmax, D) | G (D, D), the last three scratch
    out   = answer (n, *) | side (n, *)
comp: log |C_j|, sp, v, owner (its class where components are of one class, else -1). moments: mass,
running mean and variance, whether a coordinate is in use. classes: rows learnt, column (0 is the
one without). A coordinate that is not in use has a unit row in Lam and takes part in nothing. Where
D is large, Lam is empty and `delayed` holds the precisions; where it is not, `delayed` is empty.
"""

import math

from streamlearn.jit._compile import F8, U1, kernel, part, section
from streamlearn.jit.delayed import PENDING, SCALE
from streamlearn.jit.mixture_delayed import (
    DIAGONAL,
    MEAN0,
    MOVED,
    SINCE,
    Delayed,
    append,
    definite,
    distance_far,
    element_far,
    fold,
    forget_ahead,
    gradient,
    is_full,
    move,
    project_far,
    reveal_far,
    row_far,
    set_diagonal,
    set_element,
)
from streamlearn.jit.open_classes import balanced, softmax, step_log_alpha
from streamlearn.jit.products import symmetric_product

LOGDET, SP, AGE, OWN = range(4)  # rows of comp
MASS, MEAN, VAR, USED = range(4)  # rows of moments
SEEN, COLUMN = range(2)  # rows of classes
(COMPONENTS, STEPS, SAMPLES, BUFFERED, CLASSES, LOG_ALPHA, REJECTED, IMPUTED, REPAIRED, FORCED,
 GUARDED, REPLAY, REPLAYS) = range(13)  # places in s  # fmt: skip
N_SCALARS = 13
(TASK, PAPER, RHO, V_MIN, SP_MIN, K_MAX, EPS, DELTA, STD, WARM, LR_ALPHA, BALANCE,
 CLIP) = range(13)  # places in p  # fmt: skip
N_SETTINGS = 13
DENSITY, TARGETS, RECALL, CONDITIONAL = range(4)  # tasks
DONE, ROOM, CLASS = range(3)  # why a walk has ended
LARGEST = 1e100  # a value beyond it is refused: its fourth power would overflow

_Z, _KNOWN, LOGP, HAT, HAT_VAR, _SCORE, _PROB, _SIG2, UNKNOWN, _B, _F, _H, _SHARE = range(13)
N_VEC = 13  # rows of vec
_E, _S, _M, _V = range(4)  # layers of per
N_PER = 4
_PREDICT, _LEARN, _OBSERVE = 1, 2, 4
# what a row is good for; a class is >= 0
_OK, _EMPTY, _SKIP, _BAD, _BAD_LEARNT = 0, -1, -2, -3, -4
FAR = 1e250  # a squared distance beyond it is as far as can be
GONE = 1e-3  # with forgetting, a component below it is deleted
PRUNE_EVERY, _CHECK_EVERY = 50, 1000
HEAVIEST = 1e6  # a weight beyond it counts as this
_ENTRY = 10.0  # values after which a feature that comes late enters
_CLASS_STD = 0.1  # the least spread of a class column
_TIE = 1e-6  # a relative difference of two variances below it is none
_LEAST_SHARE, _LEAST_DENSITY = 1e-2, 1e-300  # of a class, before its log is taken
_LOG_2PI = math.log(2.0 * math.pi)

Rows = tuple[F8, F8, F8, U1]
State = tuple[F8, F8, F8, F8, F8, F8, F8, Delayed]
Fixed = tuple[F8, F8, F8, F8, F8]
Out = tuple[F8, F8]


# -- linear algebra --------------------------------------------------------------------------------


@part
def far(state: State) -> bool:
    """Whether D is large: updates are kept as factors, rows multiplied ahead."""
    return bool(state[7][0].shape[1] > 0)


@part
def gather(j: int, u: F8, m: int, state: State, G: F8) -> None:
    """G <- rows and columns u[:m] of the precision of component j, its lower half. O(m^2)."""
    Lam = state[1]
    for r in range(m):
        for c in range(r + 1):
            i, k = int(u[r]), int(u[c])
            G[r, c] = element_far(j, i, k, state[7]) if far(state) else Lam[j, i, k]


@part
def distance(j: int, state: State, per: F8) -> float:
    """d2 of component j, from e and s. O(D)."""
    if far(state):
        return distance_far(per[_E, j], per[_S, j], state[7])
    d2 = 0.0
    for i in range(per.shape[2]):
        d2 += per[_E, j, i] * per[_S, j, i]
    return d2


@section
def factor(m: int, G: F8) -> float:
    """The lower half of G (m, m) <- its lower factor. O(m^3).

    Returns its log-determinant, NaN if it is not positive definite.
    """
    total = 0.0
    for r in range(m):
        for c in range(r + 1):
            value = G[r, c]
            for k in range(c):
                value -= G[r, k] * G[c, k]
            if r > c:
                G[r, c] = value / G[c, c]
                continue
            if not 0.0 < value < math.inf:
                return math.nan
            G[r, r] = math.sqrt(value)
            total += math.log(value)
    return total


@part
def condition(j: int, u: F8, m: int, state: State, fixed: Fixed, wide: bool) -> float:
    """R1 to R3: means of the unknown coordinates u[:m] of component j, given those that are known.

    e (0 where unknown) and s = Lam e stand in per. With T = Lam_uu = G G', b = G^-1 s_u:
    mean_u = mu_u - G'^-1 b, d2 = e's - b'b. Variances, the diagonal of T^-1, if wide. O(D + m^3).
    Returns log sp - (log |C_known| + d2) / 2.
    """
    mu, comp = state[0], state[2]
    _, _, vec, per, G = fixed
    s, b = per[_S, j], vec[_B]
    d2 = distance(j, state, per)
    gather(j, u, m, state, G)
    log_T = factor(m, G)
    if log_T != log_T:  # repaired at the next check; till then it answers with its mean
        for r in range(m):
            per[_M, j, r], per[_V, j, r] = mu[j, int(u[r])], vec[_SIG2, int(u[r])]
        return math.log(comp[SP, j]) - FAR
    for r in range(m):
        total = s[int(u[r])]
        for k in range(r):
            total -= G[r, k] * b[k]
        b[r] = total / G[r, r]
        d2 -= b[r] * b[r]
    for back in range(m):
        r = m - 1 - back
        for k in range(r + 1, m):
            b[r] -= G[k, r] * b[k]
        b[r] /= G[r, r]
        per[_M, j, r] = mu[j, int(u[r])] - b[r]
    if wide:
        spread(G, m, b, per[_V, j])
    d2 = max(d2, 0.0) if d2 < FAR else FAR
    return float(math.log(comp[SP, j]) - 0.5 * (comp[LOGDET, j] + log_T + d2))


@part
def spread(G: F8, m: int, b: F8, out: F8) -> None:
    """out[:m] <- the diagonal of (G G')^-1. O(m^3)."""
    for r in range(m):
        out[r] = 0.0
        for k in range(r, m):
            total = 1.0 if k == r else 0.0
            for i in range(r, k):
                total -= G[k, i] * b[i]
            b[k] = total / G[k, k]
            out[r] += b[k] * b[k]


@section
def project(t: int, X: F8, state: State, fixed: Fixed) -> None:
    """e <- z - mu where z is known, else 0; s <- Lam e, for every component. O(K D^2).

    t: the row of X that z is, or -1.
    """
    mu, Lam, moments, s = state[0], state[1], state[3], state[6]
    vec, per = fixed[2], fixed[3]
    for j in range(int(s[COMPONENTS])):
        if far(state):
            row = (X, vec[_Z], vec[_KNOWN], moments[USED])
            project_far(j, t, row, mu, per[_E, j], state[7])
            gradient(j, per[_E, j], per[_S, j], state[7])
            continue
        for i in range(mu.shape[1]):
            per[_E, j, i] = vec[_Z, i] - mu[j, i] if vec[_KNOWN, i] > 0.0 else 0.0
        symmetric_product(Lam[j], per[_E, j], per[_S, j])


@section
def reveal(i: int, state: State, fixed: Fixed) -> None:
    """Coordinate i of z becomes known: e_i and s follow, for every component. O(K D).

    Where D is large, s waits for `settle`.
    """
    mu, Lam, s = state[0], state[1], state[6]
    vec, per = fixed[2], fixed[3]
    vec[_KNOWN, i] = 1.0
    for j in range(int(s[COMPONENTS])):
        e = vec[_Z, i] - mu[j, i]
        per[_E, j, i] = e
        if far(state):
            reveal_far(j, i, e, state[7])
            continue
        for k in range(mu.shape[1]):
            per[_S, j, k] += Lam[j, i, k] * e


@part
def settle(state: State, per: F8) -> None:
    """s <- Lam e, after coordinates were revealed, where it did not follow at once. O(K D)."""
    for j in range(int(state[6][COMPONENTS]) if far(state) else 0):
        gradient(j, per[_E, j], per[_S, j], state[7])


# -- recall ----------------------------------------------------------------------------------------


@part
def unknown(first: int, d: int, moments: F8, vec: F8) -> int:
    """u <- the coordinates in use that are not known: from `first` on, then those before d."""
    m = 0
    for i in range(first, moments.shape[1]):
        if vec[_KNOWN, i] == 0.0 and moments[USED, i] > 0.0:
            vec[UNKNOWN, m] = float(i)
            m += 1
    for i in range(d):
        if vec[_KNOWN, i] == 0.0 and moments[USED, i] > 0.0:
            vec[UNKNOWN, m] = float(i)
            m += 1
    return m


@part
def normalise(logp: F8, K: int) -> float:
    """logp[:K] <- its softmax. Returns the log of the sum of its exponentials. O(K)."""
    top = -math.inf
    for j in range(K):
        top = max(top, logp[j])
    total = 0.0
    for j in range(K):
        logp[j] = math.exp(logp[j] - top)
        total += logp[j]
    for j in range(K):
        logp[j] /= total
    return top + math.log(total)


@part
def recall(m: int, c: int, state: State, fixed: Fixed, wide: bool) -> float:
    """R4, R5: hat, and var if wide, <- mean and variance of the unknown coordinates u[:m].

    Only components of class c answer, all if c < 0. Returns log sum_j sp_j N(known | j), but for
    the factor (2 pi)^-dim/2. O(K (D + m^3)).
    """
    comp, s = state[2], state[6]
    vec, per = fixed[2], fixed[3]
    K = int(s[COMPONENTS])
    logp = vec[LOGP]
    for j in range(K):
        logp[j] = -math.inf
        if c < 0 or comp[OWN, j] == c:
            logp[j] = condition(j, vec[UNKNOWN], m, state, fixed, wide)
    total = normalise(logp, K)
    for r in range(m):
        vec[HAT, r], vec[HAT_VAR, r] = blend(r, K, logp, per[_M], per[_V], wide)
    return total


@part
def blend(r: int, K: int, shares: F8, means: F8, variances: F8, wide: bool) -> tuple[float, float]:
    """R4, R5 of unknown r: mean and variance, 0 if not wide, of what K components say. O(K)."""
    hat, var = 0.0, 0.0
    for j in range(K):
        hat += shares[j] * means[j, r] if shares[j] > 0.0 else 0.0
    for j in range(K if wide else 0):
        e = means[j, r] - hat
        var += shares[j] * (variances[j, r] + e * e) if shares[j] > 0.0 else 0.0
    return hat, var


# -- answers ---------------------------------------------------------------------------------------


@part
def blank(t: int, task: float, X: F8, classes: F8, out: Out) -> None:
    """No answer: NaN, but 0 for a class that is not known; a row of X is passed on as it is."""
    answer, side = out
    for k in range(answer.shape[1]):
        answer[t, k] = math.nan
        if task == DENSITY:
            answer[t, k] = X[t, k]
        elif task >= RECALL and classes[SEEN, k] == 0.0:
            answer[t, k] = 0.0
    for k in range(side.shape[1]):
        side[t, k] = math.nan


@part
def answer_density(t: int, m: int, total: float, X: F8, state: State, vec: F8, out: Out) -> None:
    """answer <- x with its gaps filled, where asked for; side <- -log p(x), 0 before a component.

    m coordinates were recalled; total is the log of the density times the mass.
    """
    comp, moments, s = state[2], state[3], state[6]
    answer, side = out
    mass, known = 0.0, 0.0
    for j in range(int(s[COMPONENTS])):
        mass += comp[SP, j]
    for i in range(X.shape[1]):
        known += vec[_KNOWN, i]
    for k in range(side.shape[1]):
        side[t, k] = math.log(mass) - total + 0.5 * _LOG_2PI * known if mass > 0.0 else 0.0
    for i in range(answer.shape[1]):
        answer[t, i] = X[t, i] if X[t, i] == X[t, i] else moments[MEAN, i]
    for r in range(m if answer.shape[1] > 0 else 0):
        if abs(vec[HAT, r]) < LARGEST:
            answer[t, int(vec[UNKNOWN, r])] = vec[HAT, r]


@part
def answer_targets(t: int, m: int, d: int, moments: F8, vec: F8, out: Out) -> None:
    """answer, side <- mean and variance of the targets; before any component the running ones."""
    answer, side = out
    for k in range(answer.shape[1]):
        answer[t, k], side[t, k] = moments[MEAN, d + k], moments[VAR, d + k]
    for r in range(m):
        k = int(vec[UNKNOWN, r]) - d
        if k >= 0 and abs(vec[HAT, r]) < LARGEST:
            answer[t, k], side[t, k] = vec[HAT, r], vec[HAT_VAR, r]


@part
def score_classes(d: int, state: State, fixed: Fixed) -> None:
    """score <- log of the recalled share of a class, or of its part in the density."""
    comp, moments, classes, s = state[2], state[3], state[4], state[6]
    p, _, vec, _, _ = fixed
    q, rest = 0, 1.0
    for i in range(d, moments.shape[1]):
        if moments[USED, i] > 0.0:  # the last may have been opened for this very row
            rest -= vec[HAT, q]
            q += 1
    for c in range(classes.shape[1]):
        at = int(classes[COLUMN, c])
        share = vec[HAT, at - 1] if 0 < at <= q else (rest if at == 0 else 0.0)
        if p[TASK] == CONDITIONAL:
            share = 0.0
            for j in range(int(s[COMPONENTS])):
                share += vec[LOGP, j] if comp[OWN, j] == c else 0.0
        elif s[COMPONENTS] == 0.0:
            share = classes[SEEN, c]
        vec[_SHARE, c] = share
        least = _LEAST_DENSITY if p[TASK] == CONDITIONAL else _LEAST_SHARE
        vec[_SCORE, c] = math.log(max(share, least)) if share < LARGEST else 0.0


@part
def answer_classes(t: int, asked: bool, state: State, fixed: Fixed, out: Out) -> None:
    """answer, side <- probabilities and class. Scores and probabilities stand in vec."""
    classes, s = state[4], state[6]
    p, _, vec, _, _ = fixed
    C = classes.shape[1]
    prob, scale = vec[_PROB, :C], math.exp(s[LOG_ALPHA]) if s[COMPONENTS] > 0.0 else 1.0
    best = softmax(vec[_SCORE, :C], classes[SEEN], scale, prob)
    total = 0.0
    for c in range(C if p[TASK] == RECALL else 0):
        known = classes[SEEN, c] > 0.0
        if known and (best < 0 or vec[_SHARE, c] > vec[_SHARE, best]):
            best = c
        total += min(max(vec[_SHARE, c], 0.0), 1.0) if known else 0.0
    for c in range(C if p[CLIP] > 0.0 and p[TASK] == RECALL and total > 0.0 else 0):
        share = min(max(vec[_SHARE, c], 0.0), 1.0)
        prob[c] = share / total if classes[SEEN, c] > 0.0 else 0.0
    if asked:
        out[1][t, 0] = math.nan if best < 0 else float(best)
        for c in range(C):
            out[0][t, c] = prob[c]


# -- learning --------------------------------------------------------------------------------------


@part
def absorb(weight: float, state: State, fixed: Fixed) -> None:
    """Running mean and variance of every coordinate that z has, NaN where it has none. O(D)."""
    moments = state[3]
    p, _, vec, _, _ = fixed
    keep = 1.0 - 0.1 * (1.0 - p[RHO])  # a memory ten times that of the mixture
    for i in range(moments.shape[1]):
        if vec[_Z, i] == vec[_Z, i]:
            absorb_value(i, vec[_Z, i], weight, keep, moments)


@part
def absorb_value(i: int, value: float, weight: float, keep: float, moments: F8) -> None:
    """Running mean and variance of coordinate i, which keep so much of what was."""
    moments[MASS, i] = keep * moments[MASS, i] + weight
    gain = weight / moments[MASS, i]
    e = value - moments[MEAN, i]
    moments[MEAN, i] += gain * e
    moments[VAR, i] = (1.0 - gain) * (moments[VAR, i] + gain * e * e)


@part
def initial_variances(d: int, moments: F8, fixed: Fixed) -> None:
    """sig2 <- (delta std)^2; where there is no spread, of a thousandth of the size. O(D)."""
    p, _, vec, _, _ = fixed
    for i in range(moments.shape[1]):
        vec[_SIG2, i] = initial_variance(i, d, moments, p)


@part
def initial_variance(i: int, d: int, moments: F8, p: F8) -> float:
    """sig2 of coordinate i."""
    var, size = moments[VAR, i], abs(moments[MEAN, i])
    if p[STD] > 0.0:
        var = p[STD] * p[STD]
    elif i >= d and p[TASK] == RECALL:
        var = max(var, _CLASS_STD * _CLASS_STD)
    if var > 1e-60 and var > 1e-16 * size * size:
        return float(p[DELTA] * p[DELTA] * var)
    return float((1e-3 * max(1.0, size)) ** 2)


@section
def enter(i: int, d: int, state: State, fixed: Fixed) -> None:
    """Coordinate i is in use from now on: its running mean and variance in every component."""
    mu, Lam, comp, moments, _, _, s, delayed = state
    p, vec = fixed[0], fixed[2]
    var = vec[_SIG2, i] / (p[DELTA] * p[DELTA])
    if far(state):
        stand(state, fixed[3])
    moments[USED, i] = 1.0
    for j in range(int(s[COMPONENTS])):
        mu[j, i] = moments[MEAN, i] if i < d or p[TASK] == TARGETS else 0.0  # no row was of it
        comp[LOGDET, j] += math.log(var)
        if far(state):
            delayed[3][j, MEAN0, i] = mu[j, i]
            set_element(j, i, 1.0 / var, delayed)
        else:
            Lam[j, i, i] = 1.0 / var


@part
def stand(state: State, per: F8) -> None:
    """Every component folds what waits, before a coordinate enters: no product ahead holds then."""
    mu, moments, s, delayed = state[0], state[3], state[6], state[7]
    for j in range(int(s[COMPONENTS])):
        if delayed[2][j, PENDING] > 0.0:
            fold(j, mu, moments[USED], delayed)
            for i in range(per.shape[2]):
                delayed[4][j, i] = per[_S, j, i]
    forget_ahead(delayed)


@part
def admit(d: int, need: float, state: State, fixed: Fixed) -> None:
    """Features that have had values enough enter, and all targets. O(D)."""
    moments = state[3]
    for i in range(moments.shape[1]):
        if moments[USED, i] == 0.0 and (i >= d or moments[MASS, i] >= need):
            enter(i, d, state, fixed)


@part
def create(c: int, weight: float, state: State, fixed: Fixed) -> None:
    """A component at z, with the initial variances. O(D^2)."""
    mu, comp, moments, s = state[0], state[2], state[3], state[6]
    vec = fixed[2]
    j = int(s[COMPONENTS])
    comp[SP, j], comp[AGE, j], comp[OWN, j] = weight, 1.0, float(c)
    for i in range(mu.shape[1]):
        mu[j, i] = vec[_Z, i] if moments[USED, i] > 0.0 else 0.0
    start_precision(j, state, vec)
    s[COMPONENTS] += 1.0


@section
def start_precision(j: int, state: State, vec: F8) -> None:
    """Component j has the initial variances. O(D^2)."""
    mu, Lam, comp, moments = state[:4]
    comp[LOGDET, j] = 0.0
    for i in range(mu.shape[1]):
        used = moments[USED, i] > 0.0
        for k in range(Lam.shape[2]):
            Lam[j, i, k] = 0.0
        vec[_H, i] = 1.0 / vec[_SIG2, i] if used else 1.0
        if not far(state):
            Lam[j, i, i] = vec[_H, i]
        comp[LOGDET, j] += math.log(vec[_SIG2, i]) if used else 0.0
    if far(state):
        set_diagonal(j, vec[_H], mu, state[7])


@section
def delete(j: int, state: State) -> None:
    """The last component takes the place of component j. O(D^2)."""
    mu, Lam, comp, _, _, _, s, delayed = state
    s[COMPONENTS] -= 1.0
    last = int(s[COMPONENTS])
    if j == last:
        return
    for k in range(comp.shape[0]):
        comp[k, j] = comp[k, last]
    for i in range(mu.shape[1]):
        mu[j, i] = mu[last, i]
        for k in range(Lam.shape[2]):
            Lam[j, i, k] = Lam[last, i, k]
    if far(state):
        move(last, j, delayed)


@part
def prune(due: bool, state: State, p: F8) -> None:
    """Delete what is forgotten, and, if due, what is old and weak; never the last of its kind."""
    comp, s = state[2], state[6]
    j = 0
    while j < int(s[COMPONENTS]):
        weak = p[RHO] < 1.0 and comp[SP, j] < GONE
        weak |= due and comp[AGE, j] > p[V_MIN] and comp[SP, j] < p[SP_MIN]
        alone = True
        for k in range(int(s[COMPONENTS]) if weak else 0):
            alone = alone and (k == j or comp[OWN, k] != comp[OWN, j])
        if weak and not alone:
            delete(j, state)
        else:
            if weak:  # it stays, and its weight must stay a number
                comp[SP, j] = max(comp[SP, j], GONE)
            j += 1


@part
def ranked(tight: float, apart: float) -> float:
    """How tight a coordinate counts: where two are tied, the values of the row decide."""
    return tight * (1.0 + _TIE * apart / (1.0 + abs(apart)))


@section
def update(j: int, d2: float, gain: float, state: State, fixed: Fixed) -> None:
    """(5) to (8) and (10) of component j by w = gain, in one pass over Lam. O(D^2).

    (10): the coordinate of least conditional variance 1 / Lam_ii, measured by sig2_i, is kept at
    eps sig2_i. The spec's ridge goes around the coordinates: then their order would matter. So it
    would where two are tied, as yes/no features are: then the values of the row decide.
    """
    mu, Lam, comp, moments, _, _, s, _ = state
    p, _, vec, per, _ = fixed
    L, e, z, h = Lam[j], per[_E, j], per[_S, j], vec[_H]
    D = mu.shape[1]
    keep = 1.0 - gain
    c = gain * (1.0 - 3.0 * gain + gain * gain) / keep if p[PAPER] > 0.0 else gain
    q = 1.0 + c * d2
    if q <= 1e-12:
        c, q = 0.0, 1.0
        s[GUARDED] += 1.0
    sign = -1.0 if c > 0.0 else 1.0
    root, a, dims = math.sqrt(abs(c) / (q * keep)), 1.0 / keep, 0.0
    at, worst, first = 0, 0.0, 0.0
    for i in range(D):
        mu[j, i] += gain * e[i]
        z[i] *= root
        dims += moments[USED, i]
        tight = (a * L[i, i] + sign * z[i] * z[i]) * vec[_SIG2, i] * moments[USED, i]
        rank = ranked(tight, mu[j, i] + 0.6 * e[i])
        at, worst, first = (i, tight, rank) if rank > first else (at, worst, first)
    comp[LOGDET, j] += dims * math.log1p(-gain) + math.log(q)
    if p[EPS] * worst > 1.0:
        more = p[EPS] - 1.0 / worst  # of sig2, added to the variance: 1 + r Lam_ii = eps worst
        shrink = math.sqrt(more * vec[_SIG2, at] / (p[EPS] * worst))
        comp[LOGDET, j] += math.log(p[EPS] * worst)
        for i in range(D):
            h[i] = (a * L[at, i] + sign * z[at] * z[i]) * shrink
        for i in range(D):
            zi, hi = sign * z[i], h[i]
            for k in range(D):
                L[i, k] = (a * L[i, k] + zi * z[k]) - hi * h[k]
    else:
        for i in range(D):
            zi = sign * z[i]
            for k in range(D):
                L[i, k] = a * L[i, k] + zi * z[k]
    for i in range(D if dims < D else 0):
        if moments[USED, i] == 0.0:
            L[i, i] = 1.0


@section
def update_far(j: int, d2: float, gain: float, state: State, fixed: Fixed) -> None:
    """`update` where D is large: (8) and (10) wait as factors. O(D), and a fold when room is short.

    Every thousand updates a fold is followed by the health check.
    """
    mu, comp, moments, delayed = state[0], state[2], state[3], state[7]
    p, _, vec, per, _ = fixed
    e, z, counters, anchor = per[_E, j], per[_S, j], delayed[2], delayed[3]
    base = delayed[4][j]
    if is_full(j, delayed):
        fold(j, mu, moments[USED], delayed)
        if counters[j, SINCE] >= _CHECK_EVERY and not sound(j, state, fixed):
            return
        for i in range(z.shape[0]):
            base[i] = z[i]
    for i in range(z.shape[0]):
        anchor[j, MOVED, i] += gain * base[i]
    keep, dims = 1.0 - gain, 0.0
    q = 1.0 + gain * d2
    counters[j, SCALE] /= keep
    counters[j, SINCE] += 1.0
    append(j, z, math.sqrt(gain / (q * keep)), delayed)
    at, worst, first = 0, 0.0, 0.0
    for i in range(mu.shape[1]):
        mu[j, i] += gain * e[i]
        dims += moments[USED, i]
        tight = counters[j, SCALE] * anchor[j, DIAGONAL, i] * vec[_SIG2, i] * moments[USED, i]
        rank = ranked(tight, mu[j, i] + 0.6 * e[i])
        at, worst, first = (i, tight, rank) if rank > first else (at, worst, first)
    comp[LOGDET, j] += dims * math.log1p(-gain) + math.log(q)
    if p[EPS] * worst > 1.0:
        more = p[EPS] - 1.0 / worst  # of sig2, added to the variance: 1 + r Lam_ii = eps worst
        comp[LOGDET, j] += math.log(p[EPS] * worst)
        row_far(j, at, z, delayed)
        append(j, z, math.sqrt(more * vec[_SIG2, at] / (p[EPS] * worst)), delayed)


@section
def sound(j: int, state: State, fixed: Fixed) -> bool:
    """The health check of a component: its log-determinant anew; begins again if not definite.

    Where D is large, nothing may wait. Returns whether it was definite. O(D^3).
    """
    comp, s, delayed = state[2], state[6], state[7]
    vec, G = fixed[2], fixed[4]
    if far(state):
        delayed[2][j, SINCE] = 0.0
        found = definite(j, G, delayed)
    else:
        gather(j, vec[UNKNOWN], G.shape[0], state, G)
        found = factor(G.shape[0], G)
    comp[LOGDET, j] = -found
    if found == found:
        return True
    s[REPAIRED] += 1.0
    start_precision(j, state, vec)
    return False


@part
def check(state: State, fixed: Fixed) -> None:
    """The health check of all components. O(K D^3)."""
    vec = fixed[2]
    for i in range(state[0].shape[1]):
        vec[UNKNOWN, i] = float(i)
    for j in range(int(state[6][COMPONENTS])):
        sound(j, state, fixed)


@part
def nearest(c: int, state: State, fixed: Fixed) -> tuple[int, float]:
    """d2 of every component that may learn, in hat, infinite for others; the nearest and its d2."""
    comp, s = state[2], state[6]
    vec, per = fixed[2], fixed[3]
    best, least = -1, math.inf
    for j in range(int(s[COMPONENTS])):
        d2 = math.inf
        if comp[OWN, j] == c:
            d2 = distance(j, state, per)
            d2 = max(d2, 0.0) if d2 < FAR else FAR
        vec[_F, j] = d2
        if d2 < least:
            best, least = j, d2
    return best, least


@part
def learn(c: int, known: int, weight: float, state: State, fixed: Fixed) -> None:
    """Learn z, of which e and s are known in full: create a component, or move those there are.

    c: the class whose components learn, -1 for all. known: coordinates observed. O(K D^2).
    """
    comp, s = state[2], state[6]
    p, chi, vec, _, _ = fixed
    best, least = nearest(c, state, fixed)
    K = int(s[COMPONENTS])
    s[STEPS] += 1.0
    if best < 0 and K > 0 and p[K_MAX] <= K:  # the first of its class: the weakest makes room
        weakest = K - 1
        for j in range(K):
            weakest = j if comp[SP, j] < comp[SP, weakest] else weakest
        delete(weakest, state)
    if best < 0 or (least >= chi[known] and p[K_MAX] > K):
        create(c, weight, state, fixed)
        return
    if least >= FAR:
        s[REJECTED] += 1.0
        return
    forced = least >= chi[known]
    s[FORCED] += 1.0 if forced else 0.0
    logp, d2 = vec[LOGP], vec[_F]
    for j in range(K):
        logp[j] = -math.inf
        if d2[j] < FAR and (not forced or j == best):
            logp[j] = math.log(comp[SP, j]) - 0.5 * (comp[LOGDET, j] + d2[j])
    normalise(logp, K)
    for j in range(K):
        comp[SP, j] *= p[RHO]
        comp[AGE, j] += 1.0
        if logp[j] >= 1e-12:
            comp[SP, j] += weight * logp[j]
            gain = weight * logp[j] / comp[SP, j]
            if far(state):
                update_far(j, d2[j], gain, state, fixed)
            else:
                update(j, d2[j], gain, state, fixed)


# -- one row ---------------------------------------------------------------------------------------


@part
def read_features(t: int, X: F8, state: State, vec: F8) -> int:
    """z <- the features of row t, NaN for targets; known where in use. _EMPTY, _SKIP or _OK."""
    moments = state[3]
    d = X.shape[1]
    found = _EMPTY
    for i in range(moments.shape[1]):
        value = X[t, i] if i < d else math.nan
        vec[_Z, i] = value
        vec[_KNOWN, i] = 1.0 if value == value and moments[USED, i] > 0.0 else 0.0
        if abs(value) > LARGEST:
            return _SKIP
        found = _OK if value == value else found
    return found


@part
def read_label(t: int, y: F8, task: float, C: int) -> int:
    """The class of row t, or _OK for targets; _EMPTY without a label, _SKIP for a bad one."""
    if task == DENSITY:
        return _OK
    for k in range(y.shape[1]):
        if y[t, k] != y[t, k]:
            return _EMPTY
        if abs(y[t, k]) > LARGEST:
            return _SKIP
    if task == TARGETS:
        return _OK
    c = y[t, 0]
    return int(c) if 0.0 <= c < C and c == math.floor(c) else _SKIP


@part
def write_targets(t: int, d: int, c: int, y: F8, state: State, fixed: Fixed) -> None:
    """z <- the targets of row t, or the column of its class."""
    task, vec = fixed[0][TASK], fixed[2]
    for i in range(d, state[3].shape[1]):
        if task == TARGETS:
            vec[_Z, i] = y[t, i - d]
        else:
            vec[_Z, i] = 1.0 if state[4][COLUMN, c] == i - d + 1.0 else 0.0


@part
def load_row(r: int, d: int, state: State, vec: F8) -> int:
    """z <- row r of the buffer, its targets not yet known. Returns its class."""
    moments, classes, buffer = state[3], state[4], state[5]
    D = moments.shape[1]
    c = int(buffer[r, D + 1])
    for i in range(D):
        value = buffer[r, i]
        if i >= d and c >= 0:
            value = 1.0 if classes[COLUMN, c] == i - d + 1.0 else 0.0
        vec[_Z, i] = value
        used = value == value and moments[USED, i] > 0.0
        vec[_KNOWN, i] = 1.0 if used and i < d else 0.0
    return c


@part
def keep_row(c: int, weight: float, state: State, fixed: Fixed) -> bool:
    """Keep z in the buffer of the warm-up. Returns whether the mixture begins anew from it.

    It does at an eighth, a quarter, a half of the warm-up, and at its end.
    """
    buffer, s = state[5], state[6]
    p, vec = fixed[0], fixed[2]
    D = state[3].shape[1]
    r, W = int(s[BUFFERED]), int(p[WARM])
    c = c if p[TASK] >= RECALL else -1
    for i in range(D):
        buffer[r, i] = vec[_Z, i]
    buffer[r, D], buffer[r, D + 1] = weight, float(c)
    s[BUFFERED] += 1.0
    r += 1
    return r == W or r == W // 2 or r == W // 4 or r == W // 8


@part
def begin(d: int, c: int, weight: float, state: State, fixed: Fixed) -> int:
    """What comes before learning z: counts, moments, coordinates that enter.

    Returns rows of the buffer to be learnt instead, 0 for z itself, -1 for none.
    """
    moments, s = state[3], state[6]
    p, _, vec, _, _ = fixed
    for i in range(d):
        s[IMPUTED] += 0.0 if vec[_Z, i] == vec[_Z, i] else 1.0
    absorb(weight, state, fixed)
    initial_variances(d, moments, fixed)
    s[SAMPLES] += 1.0
    warm = s[SAMPLES] <= p[WARM]
    anew = warm and keep_row(c, weight, state, fixed)
    if anew:
        s[COMPONENTS] = 0.0
    need = 1e-300 if anew or p[WARM] == 0.0 else (math.inf if warm else _ENTRY)
    if not warm or anew or s[COMPONENTS] > 0.0:
        admit(d, need, state, fixed)
    if not anew:
        return 0 if s[COMPONENTS] > 0.0 or not warm else -1
    rows = int(s[BUFFERED])
    s[BUFFERED] = 0.0 if rows == p[WARM] else s[BUFFERED]
    return rows


@part
def judge(t: int, rows: Rows, state: State, fixed: Fixed) -> tuple[int, float]:
    """What row t is good for: its class, or a word; and the weight with which it teaches."""
    X, y, weight, mode = rows
    p, vec = fixed[0], fixed[2]
    learns = mode[t] & (_OBSERVE if p[TASK] == DENSITY else _LEARN)
    found = read_features(t, X, state, vec)
    if found == _SKIP:
        return _BAD_LEARNT if learns else _BAD, 0.0
    c = read_label(t, y, p[TASK], state[4].shape[1]) if learns else _EMPTY
    return c, min(weight[t], HEAVIEST) if c >= 0 and found == _OK else 0.0


@part
def lacks(c: int, state: State, p: F8) -> int:
    """Whether the row needs what there is no room for: the column of a class, or a component."""
    mu, classes, s = state[0], state[4], state[6]
    if p[TASK] >= RECALL and classes[COLUMN, c] < 0.0:
        return CLASS
    K = int(s[COMPONENTS])
    return ROOM if mu.shape[0] == K and p[K_MAX] > K else DONE


@part
def know(c: int, weight: float, state: State, fixed: Fixed) -> float:
    """Count a row of class c and step the scale of the scores. Returns its weight, balanced."""
    classes, s = state[4], state[6]
    p, vec = fixed[0], fixed[2]
    C = classes.shape[1]
    classes[SEEN, c] += 1.0
    s[CLASSES] = max(s[CLASSES], c + 1.0)
    if s[COMPONENTS] > 0.0 and classes[SEEN, c] > 1.0 and p[LR_ALPHA] > 0.0:
        s[LOG_ALPHA] = step_log_alpha(s[LOG_ALPHA], vec[_SCORE, :C], vec[_PROB, :C], c, p[LR_ALPHA])
    return weight * balanced(classes[SEEN], c) if p[BALANCE] > 0.0 else weight


@part
def expose(state: State, fixed: Fixed) -> int:
    """Targets, and features that have just entered, become known. Returns how many are known."""
    moments, vec = state[3], fixed[2]
    known = 0
    for i in range(moments.shape[1]):
        if vec[_KNOWN, i] == 0.0 and moments[USED, i] > 0.0 and vec[_Z, i] == vec[_Z, i]:
            reveal(i, state, fixed)
        known += 1 if vec[_KNOWN, i] > 0.0 else 0
    settle(state, fixed[3])
    return known


@part
def complete(m: int, state: State, fixed: Fixed) -> None:
    """Fill the m gaps of z with what was recalled, or, before any component, running means."""
    moments, s = state[3], state[6]
    vec = fixed[2]
    for r in range(m):
        i = int(vec[UNKNOWN, r])
        good = s[COMPONENTS] > 0.0 and abs(vec[HAT, r]) < LARGEST
        vec[_Z, i] = vec[HAT, r] if good else moments[MEAN, i]
    for r in range(m):
        reveal(int(vec[UNKNOWN, r]), state, fixed)
    if m > 0:
        settle(state, fixed[3])


@part
def answer(
    t: int, m: int, total: float, asked: bool, X: F8, state: State, fixed: Fixed, out: Out
) -> None:
    """Answer row t by its task from what was recalled; probabilities are learnt from as well."""
    task, d = fixed[0][TASK], X.shape[1]
    if task >= RECALL:
        score_classes(d, state, fixed)
        answer_classes(t, asked, state, fixed, out)
    elif asked and task == TARGETS:
        answer_targets(t, m, d, state[3], fixed[2], out)
    elif asked:
        answer_density(t, m, total, X, state, fixed[2], out)


@part
def tend(state: State, fixed: Fixed) -> None:
    """What is due after a row was learnt: pruning, the health check."""
    s = state[6]
    prune(s[STEPS] % PRUNE_EVERY == 0.0, state, fixed[0])
    if s[STEPS] % _CHECK_EVERY == 0.0 and not far(state):
        check(state, fixed)


@part
def take(
    t: int, d: int, c: int, weight: float, y: F8, state: State, fixed: Fixed
) -> tuple[int, float]:
    """Take row t in: what `begin` returns, and the weight, balanced."""
    if fixed[0][TASK] >= RECALL:
        weight = know(c, weight, state, fixed)
    write_targets(t, d, c, y, state, fixed)
    return begin(d, c, weight, state, fixed), weight


@part
def owner(c: int, phase: int, p: F8) -> int:
    """The class whose components take part in a phase, -1 for all."""
    return c if phase == 1 and p[TASK] == CONDITIONAL else -1


@part
def step(t: int, r: int, c: int, w: float, rows: Rows, state: State, fixed: Fixed, out: Out) -> int:
    """Answer row t (r < 0) and learn it, or learn row r of the buffer.

    One place recalls for both, what is unknown without the targets, then with them: compiling is
    what takes long. Returns rows of the buffer that are to be learnt after it.
    """
    X, y, _, mode = rows
    d, D = X.shape[1], state[0].shape[1]
    asked, last = (mode[t] & _PREDICT) != 0, 0
    if r >= 0 or asked or w > 0.0:
        project(-1 if r >= 0 else t, X, state, fixed)
    for phase in range(2):
        if phase == 0 and (r >= 0 or not (asked or w > 0.0)):
            continue
        if phase == 1:
            if r < 0 and w > 0.0:
                last, w = take(t, d, c, w, y, state, fixed)
            if last != 0 or not w > 0.0:
                break
            known = expose(state, fixed)
        own = owner(c, phase, fixed[0])
        m, total = unknown(d if phase == 0 else D, d, state[3], fixed[2]), 0.0
        if state[6][COMPONENTS] > 0.0 and (phase == 0 or m > 0):
            total = recall(m, own, state, fixed, fixed[0][TASK] == TARGETS)
        if phase == 0:
            answer(t, m, total, asked, X, state, fixed, out)
        else:
            complete(m, state, fixed)
            if known > 0:
                learn(own, known, w, state, fixed)
                tend(state, fixed)
    return last


@kernel
def walk(rows: Rows, state: State, fixed: Fixed, out: Out, start: int) -> tuple[int, int]:
    """Walk a block row by row from `start`: predict, then learn.

    Returns the row at which it stopped and why: DONE; or CLASS or ROOM, when it is to be called
    again from that row, after its class was given a column or one more component room.
    """
    X, s, p = rows[0], state[6], fixed[0]
    forget_ahead(state[7])
    for t in range(start, X.shape[0]):
        r, last, c, w = int(s[REPLAY]), int(s[REPLAYS]), _EMPTY, 0.0
        if last == 0:
            r = -1
            c, w = judge(t, rows, state, fixed)
            lack = lacks(c, state, p) if w > 0.0 else DONE
            if lack != DONE:
                return t, lack
            s[REJECTED] += 1.0 if c in (_SKIP, _BAD_LEARNT) else 0.0
            blank(t, p[TASK], X, state[4], out)
            if c <= _BAD:
                continue
        while r < last:
            if r >= 0:
                if int(s[COMPONENTS]) == state[0].shape[0] and p[K_MAX] > s[COMPONENTS]:
                    s[REPLAY], s[REPLAYS] = float(r), float(last)
                    return t, ROOM
                c, w = load_row(r, X.shape[1], state, fixed[2]), state[5][r, state[0].shape[1]]
            more = step(t, r, c, w, rows, state, fixed, out)
            last = more if r < 0 else last
            r += 1
        s[REPLAY], s[REPLAYS] = 0.0, 0.0
    return X.shape[0], DONE


@kernel
def fill(Z: F8, state: State, fixed: Fixed, variance: F8) -> None:
    """Every row of Z (n, D), features then targets, filled by recall where it is NaN.

    variance (n, D) <- that of what was filled, 0 elsewhere. Before any component running moments.
    """
    moments, s = state[3], state[6]
    vec = fixed[2]
    D = Z.shape[1]
    for t in range(Z.shape[0]):
        for i in range(D):
            known = Z[t, i] == Z[t, i]
            vec[_Z, i] = Z[t, i]
            vec[_KNOWN, i] = 1.0 if known and moments[USED, i] > 0.0 else 0.0
            Z[t, i] = Z[t, i] if known else moments[MEAN, i]
            variance[t, i] = 0.0 if known else moments[VAR, i]
        if s[COMPONENTS] == 0.0:
            continue
        m = unknown(D, D, moments, vec)
        project(-1, Z, state, fixed)
        recall(m, -1, state, fixed, True)
        for r in range(m):
            i = int(vec[UNKNOWN, r])
            Z[t, i], variance[t, i] = vec[HAT, r], vec[HAT_VAR, r]


# -- the gate --------------------------------------------------------------------------------------


@part
def chi2_tail(k: int, x: float) -> float:
    """P(chi-square with k degrees of freedom > x), a sum of positive terms. O(k)."""
    h = 0.5 * x
    a = 0.5 * (k % 2)
    total = math.erfc(math.sqrt(h)) if k % 2 == 1 else 0.0
    while a < 0.5 * k:
        total += math.exp(a * math.log(h) - h - math.lgamma(a + 1.0))
        a += 1.0
    return total


@kernel
def chi2_quantiles(tail: float, out: F8) -> None:
    """out[k] <- what a chi-square variable with k >= 1 degrees of freedom exceeds with this chance.

    Newton steps kept in a bracket, to the last digits; out[0] <- 0. tail in (0, 1). O(D^2).
    """
    out[0] = 0.0
    for k in range(1, out.shape[0]):
        low, high, x = 0.0, math.inf, float(k)
        for _ in range(200):
            excess = chi2_tail(k, x) - tail
            low, high = (x, high) if excess > 0.0 else (low, x)
            slope = 0.5 * math.exp(
                (0.5 * k - 1.0) * math.log(0.5 * x) - 0.5 * x - math.lgamma(0.5 * k)
            )
            step = excess / slope if slope > 0.0 else math.inf
            new = x + step
            if not low < new < high:
                new = 2.0 * x if high == math.inf else 0.5 * (low + high)
            if abs(new - x) <= 1e-15 * x:
                break
            x = new
        out[k] = x
