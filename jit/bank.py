"""A bank of linear models, one a key: packed records, one step of one record, and the walk.

A record is a row of `records` (slots, stride), float64: all that one model knows, so that an event
touches one stretch of memory. d features, D = 1 + d coordinates of f = (1, x), K outputs:

    head (8)      outputs (3 K) weight (rows, for classes) learnt | running mean | variance scale
    inputs (2 d)  weight seen | running mean of each feature
    weights (K D) a row an output
    lower triangle of the covariance, or inverse, row by row: D (D + 1) / 2
    moments (3 d) mean | variance | memory mass of each feature, if each key scales its features;
    then zeros to `stride`

The bodies below take one record and one event, call nothing but `math`, and are exported as plain
Python: `part` compiles them for the walkers here, `cuda.jit(device=True)` for a GPU. Their values
are those of `lift`, `kalman`, `rls` and `analytic`, for the order of every sum is the same: u = A f
by a triangle adds row j's share before that of row j + 1, as `symmetric_product` does. The triangle
itself is met between them, by lanes here (`triangle.product`, `update`), by plain loops there.

work (2 D + 3 K) scratch: u = A f | free | W f | targets | probabilities. p: settings of `kalman`
or, for least squares, of `rls`. Letters as there.
"""

import math

import numpy as np

from streamlearn.jit import lift, rls, triangle
from streamlearn.jit._compile import B1, F8, I8, U1, kernel, part
from streamlearn.jit.kalman import (
    BALANCE,
    CENTRE,
    DECAY_MEAN,
    DELTA_MAX,
    DELTA_MIN,
    HEAVIEST,
    LR_ALPHA,
    LR_DELTA,
    MEMORY,
    RESCALE,
    S2,
    S_W,
    SOFTMAX,
    TEMPER,
)
from streamlearn.jit.lift import EMPTY, LARGEST, REJECT, SKIP, TARGET, read_label
from streamlearn.jit.open_classes import LEAST_INFORMATION, LOG_ALPHA_MAX, LOG_ALPHA_MIN
from streamlearn.jit.prefetch import prefetch_row
from streamlearn.jit.scale import absorb, any_infinite, standardise

# places in a record
SEEN, SAMPLES, GAP, DELTA, LOG_ALPHA, TROUBLES, ERROR, SQUARE = range(8)
FISHER = DELTA  # of least squares, which have no drift
HEAD = 8
MOMENTS = 3  # of a feature that is scaled
NO_KEY = int(np.iinfo(np.int64).min)  # of rows without a key: they share one model

_PREDICT, _LEARN, _OBSERVE = 1, 2, 4
ACTIVE = _LEARN | _OBSERVE  # what changes a record
_CHECK_EVERY = 1000  # lessons between two looks at the diagonal of A
_WOUND_UP = 1e12  # times 1 / ridge: a diagonal of the inverse beyond it
_AHEAD = 8  # rows from the prefetch of a record to its use
_KEYS_AHEAD = 32  # from that of a place in the table: 8 took a third longer


def inputs_at(K: int) -> int:
    """Where the statistics of the features stand in a record."""
    return HEAD + 3 * K


def weights_at(D: int, K: int) -> int:
    """Where the weights stand in a record."""
    return HEAD + 3 * K + 2 * (D - 1)


def triangle_at(D: int, K: int) -> int:
    """Where the triangle stands in a record."""
    return weights_at(D, K) + K * D


def moments_at(D: int, K: int) -> int:
    """Where the moments stand in a record that has some."""
    return triangle_at(D, K) + D * (D + 1) // 2


def stride_of(D: int, K: int, moments: int = 0) -> int:
    """Length of a record with so many moments of a feature, whole cache lines."""
    size = moments_at(D, K) + moments * (D - 1)
    return -(-size // 8) * 8


def work_size(D: int, K: int) -> int:
    """Scratch of one step."""
    return 2 * D + 3 * K


# -- one record, one event -----------------------------------------------------------------------


def lift_body(
    record: F8, x: F8, f: F8, label: int, weight: float, bits: int, K: int, p: F8
) -> int:  # fmt: skip
    """f <- 1, x with gaps filled by this model's running means, rescaled; then the means learn.

    label: as `lift.read_label` gives it for a row that learns, else EMPTY. Returns the code of the
    lesson: a class >= 0, TARGET, EMPTY, REJECT or SKIP. O(d).
    """
    d = x.shape[0]
    at = HEAD + 3 * K
    f[0] = 1.0
    missing, bad = 0, False
    for i in range(d):
        value = x[i]
        if value != value:
            value = record[at + d + i]
            missing += 1
        bad = bad or abs(value) == math.inf
        f[1 + i] = value
    total = 0.0
    for i in range(d + 1):
        total += f[i] * f[i]
    if not bad and p[lift.NORM2] > 0.0:
        if total == math.inf:
            top = 0.0
            for i in range(d + 1):
                top = max(top, abs(f[i]))
            total = 0.0
            for i in range(d + 1):
                f[i] /= top
                total += f[i] * f[i]
        factor = math.sqrt(p[lift.NORM2] / total)
        for i in range(d + 1):
            f[i] *= factor
    elif bad or not total <= p[lift.LIMIT]:
        for i in range(d + 1):
            f[i] = 0.0
        return SKIP
    if label == REJECT:
        return REJECT
    if bits & _OBSERVE and weight > 0.0:
        for i in range(d):
            here, mass, mean = x[i] == x[i], record[at + i], record[at + d + i]
            share = weight / (mass + weight)
            moved = mean + (x[i] * share - mean * share)
            record[at + i] = mass + weight if here else mass
            record[at + d + i] = moved if here else mean
    return EMPTY if missing == d or weight == 0.0 else label


def weigh_body(record: F8, f: F8, K: int, work: F8) -> None:
    """W f, in work. O(K D)."""
    D = f.shape[0]
    at = HEAD + 3 * K + 2 * (D - 1)
    for k in range(K):
        total = 0.0
        for i in range(D):
            total += record[at + i] * f[i]
        work[2 * D + k] = total
        at += D


def kalman_target_body(
    record: F8, f: F8, y: float, weight: float, bits: int, code: int, p: F8, work: F8
) -> tuple[float, float, float]:
    """Answer with mean and variance, then adapt to a TARGET: `kalman.settle_target` and `count`.

    Returns both, and the noise variance of the lesson, 0 for a row that teaches nothing. O(D).
    """
    D = f.shape[0]
    delta, g, loss = max(record[DELTA], p[DELTA_MIN]), 1.0, 0.0
    if delta != 0.0:
        loss = -math.expm1(-delta * (record[GAP] + 1.0))
        g = math.sqrt(1.0 - loss)
    a, b = 0.0, 0.0
    for i in range(D):
        a += f[i] * work[i]
        b += f[i] * f[i]
    a, b = max(a, 0.0), b * p[S_W]
    decay, nu = p[DECAY_MEAN] > 0.0, work[2 * D]
    shrink = g if decay else 1.0
    S = (1.0 - loss) * a + loss * b + p[S2]
    mean, variance = record[HEAD + 1] + shrink * nu, record[HEAD + 2] * S
    if code == EMPTY and bits & _LEARN:
        record[GAP] += 1.0
    if code != TARGET:
        return mean, variance, 0.0
    r = y - record[HEAD + 1] - shrink * nu
    if record[SAMPLES] >= 2.0 and record[HEAD] > 0.0:
        slope_S = 2.0 * g * (a - b)
        slope = 0.5 * (r * r / record[HEAD + 2] / S - 1.0) * slope_S / S
        if decay:
            slope += r * nu / record[HEAD + 2] / S
        slope = -0.5 * (record[GAP] + 1.0) * g * slope
        if slope == slope:
            slope = min(max(slope, -1.0), 1.0)
            record[DELTA] = min(max(record[DELTA] + p[LR_DELTA] * slope, 0.0), p[DELTA_MAX])
    if p[RESCALE] > 0.0 and record[SAMPLES] >= 1.0:
        ratio = min(r * r / S, LARGEST)
        record[HEAD + 2] += (ratio - record[HEAD + 2]) / min(record[SAMPLES], MEMORY)
    record[HEAD] += weight
    if p[CENTRE] > 0.0:
        share = weight / record[HEAD]
        record[HEAD + 1] += y * share - record[HEAD + 1] * share
    work[2 * D + 1] = y
    record[SAMPLES] += 1.0
    record[ERROR] = min(record[ERROR] + abs(r), LARGEST)
    record[SQUARE] = min(record[SQUARE] + r * r, LARGEST)
    return mean, variance, p[S2] / min(weight, HEAVIEST)


def kalman_answer_body(record: F8, f: F8, K: int, p: F8, work: F8) -> int:
    """Probabilities of the known classes, in work: `kalman.settle_class`, its mean field. O(D + K).

    Returns the class, -1 where none is known. A lesson counts its class first and, where that was
    new, asks again: its column of zeros is exact.
    """
    D = f.shape[0]
    NU, Q = 2 * D, 2 * D + 2 * K
    delta, g, loss = max(record[DELTA], p[DELTA_MIN]), 1.0, 0.0
    if delta != 0.0:
        loss = -math.expm1(-delta * (record[GAP] + 1.0))
        g = math.sqrt(1.0 - loss)
    a, b = 0.0, 0.0
    for i in range(D):
        a += f[i] * work[i]
        b += f[i] * f[i]
    v = (1.0 - loss) * max(a, 0.0) + loss * (b * p[S_W])
    alpha = math.exp(record[LOG_ALPHA])
    kappa = alpha / math.sqrt(1.0 + TEMPER * alpha * alpha * v)
    factor = kappa * (g if p[DECAY_MEAN] > 0.0 else 1.0)
    best, total = -1, 0.0
    for k in range(K):
        if record[HEAD + k] > 0.0 and (best < 0 or work[NU + k] > work[NU + best]):
            best = k
    for k in range(K):
        work[Q + k] = 0.0
        if record[HEAD + k] > 0.0:
            work[Q + k] = math.exp(factor * (work[NU + k] - work[NU + best]))
            total += work[Q + k]
    for k in range(K):
        if best >= 0:
            work[Q + k] /= total
    return best


def kalman_class_body(record: F8, f: F8, c: int, weight: float, K: int, p: F8, work: F8) -> float:
    """Adapt to class c, which `kalman_answer_body` knows: `kalman.settle_class` and `count`.

    Returns the noise variance of the lesson. O(D + K).
    """
    D = f.shape[0]
    NU, Y, Q = 2 * D, 2 * D + K, 2 * D + 2 * K
    delta, g, loss = max(record[DELTA], p[DELTA_MIN]), 1.0, 0.0
    if delta != 0.0:
        loss = -math.expm1(-delta * (record[GAP] + 1.0))
        g = math.sqrt(1.0 - loss)
    a, b = 0.0, 0.0
    for i in range(D):
        a += f[i] * work[i]
        b += f[i] * f[i]
    a, b, decay = max(a, 0.0), b * p[S_W], p[DECAY_MEAN] > 0.0
    v, shrink = (1.0 - loss) * a + loss * b, g if decay else 1.0
    alpha, slope_S = math.exp(record[LOG_ALPHA]), 2.0 * g * (a - b)
    q = 1.0 + TEMPER * alpha * alpha * v
    kappa, lead = alpha / math.sqrt(q), work[NU + c]
    rows, classes = 0.0, 0.0
    slope, S = 0.0, v + p[S2]
    for k in range(K):
        lead -= work[Q + k] * work[NU + k]
        work[Y + k] = 1.0 if k == c else 0.0
        if record[HEAD + k] > 0.0:
            rows, classes = rows + record[HEAD + k], classes + 1.0
            r = work[Y + k] - record[HEAD + K + k] - shrink * work[NU + k]
            scale = record[HEAD + 2 * K + k]
            slope += 0.5 * (r * r / scale / S - 1.0) * slope_S / S
            if decay:
                slope += r * work[NU + k] / scale / S
    if p[SOFTMAX] > 0.0:
        slope = -(math.pi / 16.0) * alpha * alpha * kappa / q * shrink * lead * slope_S
        slope += kappa * lead if decay else 0.0
    slope = -0.5 * (record[GAP] + 1.0) * g * slope
    if slope == slope:
        slope = min(max(slope, -1.0), 1.0)
        record[DELTA] = min(max(record[DELTA] + p[LR_DELTA] * slope, 0.0), p[DELTA_MAX])
    slope = kappa / q * shrink * lead
    if slope == slope:
        sized = record[LOG_ALPHA] + p[LR_ALPHA] * min(max(slope, -1.0), 1.0)
        record[LOG_ALPHA] = min(max(sized, LOG_ALPHA_MIN), LOG_ALPHA_MAX)
    record[SAMPLES] += 1.0
    weight = min(weight, HEAVIEST)
    if p[BALANCE] > 0.0:
        weight *= rows / (classes * record[HEAD + c])
    return float(p[S2] / weight)


def kalman_correct_body(
    record: F8, f: F8, noise: float, K: int, p: F8, work: F8
) -> tuple[float, float, float]:  # fmt: skip
    """Time update with the new delta and measurement update: `kalman.condition_standard`.

    u, W f and targets stand in work. This much is of the weights, and u is made that of the new
    delta; the triangle follows: A <- g2 A - root^2 u u', then `kalman_floor_body`. Returns root,
    g2 and what the diagonal is raised by. O(K D).
    """
    D = f.shape[0]
    W = HEAD + 3 * K + 2 * (D - 1)
    delta, g, loss = max(record[DELTA], p[DELTA_MIN]), 1.0, 0.0
    if delta != 0.0:
        loss = -math.expm1(-delta * (record[GAP] + 1.0))
        g = math.sqrt(1.0 - loss)
    g2, floor, S = 1.0 - loss, loss * p[S_W], noise
    for i in range(D):
        work[i] = g2 * work[i] + floor * f[i]
        S += f[i] * work[i]
    shrink = g if p[DECAY_MEAN] > 0.0 else 1.0
    for k in range(K):
        if record[HEAD + k] > 0.0:
            e = work[2 * D + K + k] - record[HEAD + K + k] - shrink * work[2 * D + k]
            e /= S
            for i in range(D):
                record[W + k * D + i] = shrink * record[W + k * D + i] + work[i] * e
    return 1.0 / math.sqrt(S), g2, floor


def kalman_floor_body(record: F8, D: int, K: int, floor: float, p: F8) -> None:
    """Raise the diagonal, and look at it now and then. O(D)."""
    first = HEAD + 3 * K + 2 * (D - 1) + K * D
    at = first
    for i in range(D):
        record[at + i] += floor
        at += i + 1
    record[GAP] = 0.0
    if int(record[SAMPLES]) % _CHECK_EVERY != 0:
        return
    at, sound = first, True
    for i in range(D):
        sound = sound and record[at + i] > 0.0
        at += i + 1
    if not sound:
        record[TROUBLES] += 1.0
        at = first
        for i in range(D):
            record[at + i] += 1e-10 * p[S_W]
            at += i + 1


def rls_target_body(
    record: F8, f: F8, y: float, weight: float, bits: int, code: int, p: F8, work: F8
) -> tuple[float, float, float]:
    """Answer with mean and variance, then learn a TARGET: `rls.take` and `rls.teach`, no leak.

    u and W f stand in work. This much is of the weights and means; the triangle follows:
    A <- (A - root^2 u u') / lam, then `rls_keep_body`. Returns both, and root, 0 for a row that
    teaches nothing. O(D).
    """
    D = f.shape[0]
    W, h, nu = HEAD + 3 + 2 * (D - 1), 0.0, work[2 * D]
    for i in range(D):
        h += f[i] * work[i]
    h = max(h, 0.0)
    mean, variance = record[HEAD + 1] + nu, record[HEAD + 2] * (1.0 + h)
    if code != TARGET:
        return mean, variance, 0.0
    if record[SAMPLES] == 0.0:
        record[HEAD + 1] = y
    lam, w, r = p[rls.LAM], min(weight, HEAVIEST), y - record[HEAD + 1]
    e, S = r - nu, lam / w + h
    for i in range(D):
        record[W + i] += work[i] * (e / S)
    record[HEAD] = lam * record[HEAD] + w
    share = w / record[HEAD]
    record[HEAD + 1] += r * share
    record[W] -= r * share
    ratio = min(e * e / (1.0 + h), LARGEST)
    if record[SAMPLES] == 1.0:
        record[HEAD + 2] = ratio
    elif record[SAMPLES] > 1.0:
        record[HEAD + 2] += (ratio - record[HEAD + 2]) * share
    record[SAMPLES] += 1.0
    record[ERROR] = min(record[ERROR] + abs(e), LARGEST)
    record[SQUARE] = min(record[SQUARE] + e * e, LARGEST)
    return mean, variance, 1.0 / math.sqrt(S)


def rls_answer_body(record: F8, D: int, K: int, p: F8, work: F8) -> int:
    """Probabilities of the known classes, in work, where W f stands: `rls.weigh`. O(K).

    Returns the class, -1 where none is known.
    """
    NU, Q = 2 * D, 2 * D + 2 * K
    scaled, factor = p[rls.SCALED] > 0.0, math.exp(record[LOG_ALPHA])
    best, total, known = -1, 0.0, 0.0
    for k in range(K):
        if record[HEAD + k] > 0.0 and (best < 0 or work[NU + k] > work[NU + best]):
            best = k
    for k in range(K):
        work[Q + k] = 0.0
        if record[HEAD + k] > 0.0:
            known += 1.0
            if scaled:
                work[Q + k] = math.exp(factor * (work[NU + k] - work[NU + best]))
            else:
                work[Q + k] = max(work[NU + k], 0.0)
            total += work[Q + k]
    for k in range(K):
        if total > 0.0:
            work[Q + k] /= total
        elif record[HEAD + k] > 0.0:
            work[Q + k] = 1.0 / known
    return best


def rls_class_body(record: F8, f: F8, c: int, weight: float, K: int, p: F8, work: F8) -> float:
    """Learn class c, the answer standing in work: `rls.settle_class` and `rls.teach`, no leak.

    This much is of the weights and the calibration; the triangle follows as for a target. Returns
    root. O(K D).
    """
    D = f.shape[0]
    NU, Q, W = 2 * D, 2 * D + 2 * K, HEAD + 3 * K + 2 * (D - 1)
    w, fresh = min(weight, HEAVIEST), record[HEAD + c] == 0.0
    record[HEAD + c] += w
    mean, square, total, classes, h = 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(K):
        if work[Q + k] > 0.0:
            mean += work[Q + k] * work[NU + k]
            square += work[Q + k] * work[NU + k] * work[NU + k]
        if record[HEAD + k] > 0.0:
            total, classes = total + record[HEAD + k], classes + 1.0
    if p[rls.SCALED] > 0.0 and not fresh:
        alpha, rate = math.exp(record[LOG_ALPHA]), p[rls.LR_ALPHA]
        variance = alpha * alpha * max(square - mean * mean, 0.0)
        record[FISHER] += rate * (variance - record[FISHER])
        slope = alpha * (work[NU + c] - mean)
        move = rate * (slope / (record[FISHER] + LEAST_INFORMATION))
        if move == move:
            sized = record[LOG_ALPHA] + min(max(move, -1.0), 1.0)
            record[LOG_ALPHA] = min(max(sized, LOG_ALPHA_MIN), LOG_ALPHA_MAX)
    if p[rls.BALANCE] > 0.0:
        w = min(w * (total / (classes * record[HEAD + c])), HEAVIEST)
    for i in range(D):
        h += f[i] * work[i]
    S = p[rls.LAM] / w + max(h, 0.0)
    for k in range(K):
        e = ((1.0 if k == c else 0.0) - work[NU + k]) / S
        for i in range(D):
            record[W + k * D + i] += work[i] * e
    record[SAMPLES] += 1.0
    return 1.0 / math.sqrt(S)


def rls_keep_body(record: F8, D: int, K: int, p: F8, work: F8) -> None:
    """After a lesson: begin anew where the triangle has wound up; when due, give back the ridge.

    What of it has faded, a coordinate after the other: R <- R + c I by D rank-one updates, R W as
    it was, which `analytic.renew` does with a factorisation. Due every max(REFRESH, D) lessons.
    O(D), O(D^3 + K D^2) then.
    """
    W = HEAD + 3 * K + 2 * (D - 1)
    at, sound, largest = W + K * D, True, _WOUND_UP / p[rls.RIDGE]
    for i in range(D):
        sound = sound and 0.0 < record[at + i] <= largest
        at += i + 1
    if not sound:
        at = W + K * D
        for i in range(D):
            for j in range(i + 1):
                record[at + j] = 1.0 / p[rls.RIDGE] if i == j else 0.0
            at += i + 1
        record[TROUBLES] += 1.0
        record[GAP] = 0.0
    record[GAP] += 1.0
    if not p[rls.REFRESH] > 0.0 or record[GAP] < max(p[rls.REFRESH], D):
        return
    c = p[rls.RIDGE] * (1.0 - p[rls.LAM] ** record[GAP])
    for k in range(D):
        at = W + K * D
        for i in range(D):
            row, column = max(i, k), min(i, k)
            work[i] = record[at + row * (row + 1) // 2 + column]
        share = c / (1.0 + c * work[k])
        for own in range(W, W + K * D, D):
            e = record[own + k] * share
            for i in range(D):
                record[own + i] -= work[i] * e
        for i in range(D):
            for j in range(i + 1):
                record[at + j] -= (work[i] * work[j]) * share
            at += i + 1
    record[GAP] = 0.0


lift_row = part(lift_body)
weigh = part(weigh_body)
kalman_target = part(kalman_target_body)
kalman_answer = part(kalman_answer_body)
kalman_class = part(kalman_class_body)
kalman_correct = part(kalman_correct_body)
kalman_floor = part(kalman_floor_body)
rls_target = part(rls_target_body)
rls_answer = part(rls_answer_body)
rls_class = part(rls_class_body)
rls_keep = part(rls_keep_body)


# -- the table of keys ---------------------------------------------------------------------------

N_SLOTS, N_FREE, N_KEYS = range(3)  # places in the counts of a table
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


@part
def home(key: int, size: int) -> int:
    """Where the search for a key begins in a table of 2^i places: SplitMix64's last step."""
    z = np.uint64(key)
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    return int(np.int64((z ^ (z >> _31)) & np.uint64(size - 1)))


@part
def place_of(table: I8, key: int) -> int:
    """Where a key stands in the table, or the free place where it would."""
    size = table.shape[0]
    at = home(key, size)
    while table[at, 1] >= 0 and table[at, 0] != key:
        at = (at + 1) & (size - 1)
    return at


@kernel
def enter(table: I8, keys: I8, values: I8) -> int:
    """Let these keys (m,) mean these values >= 0; there must be room. Returns how many were new."""
    new = 0
    for t in range(keys.shape[0]):
        at = place_of(table, keys[t])
        new += table[at, 1] < 0
        table[at, 0], table[at, 1] = keys[t], values[t]
    return new


@kernel
def look_up(table: I8, keys: I8, values: I8) -> int:
    """values (m,) <- what these keys mean, -1 for one that is unknown. Returns how many are known.

    table (2^i, 2): key and value, the value -1 where the place is free. Linear probing.
    """
    known = 0
    for t in range(keys.shape[0]):
        values[t] = table[place_of(table, keys[t]), 1]
        known += values[t] >= 0
    return known


@kernel
def assign(table: I8, keys: I8, mode: U1, free: I8, counts: I8, slots: I8, fresh: I8) -> int:
    """slots (n,) <- the slot of each row's key; a new key that learns gets one, from `free` first.

    Row by row, so that it is the same however the stream is cut. A key that is new and only asks
    has -1. free: a stack, counts[N_FREE] high. Returns how many rows brought a new key: these rows
    stand in fresh (n,). There must be room in the table.
    """
    n, m, size = keys.shape[0], 0, table.shape[0]
    for t in range(n):
        prefetch_row(table, home(keys[min(t + _KEYS_AHEAD, n - 1)], size))
        at = place_of(table, keys[t])
        slots[t] = table[at, 1]
        if slots[t] >= 0 or not mode[t] & ACTIVE:
            continue
        if counts[N_FREE] > 0:
            counts[N_FREE] -= 1
            slots[t] = free[counts[N_FREE]]
        else:
            slots[t] = counts[N_SLOTS]
            counts[N_SLOTS] += 1
        counts[N_KEYS] += 1
        table[at, 0], table[at, 1] = keys[t], slots[t]
        fresh[m] = t
        m += 1
    return m


# -- the walk ------------------------------------------------------------------------------------

# places in the counters s of a bank, or of one shard's walk of a block: events, rows refused,
# lessons, classes; for the undo log the count when it was begun (-1: there is none), and the
# records in it
COUNT, REFUSED, LESSONS, CLASSES, MARK, UNDONE = range(6)
N_COUNTERS = 6

Rows = tuple[F8, F8, F8, U1, I8, F8]
Fixed = tuple[F8, F8, F8]
Out = tuple[F8, F8, F8]
Undo = tuple[I8, F8]


@kernel
def deal(slots: I8, mode: U1, s: F8, events: F8, order: I8, ends: I8) -> None:
    """Deal the rows of a block to shards by slot: each may be walked in a thread of its own.

    events (n,) <- the bank's count of events with each row: a late label counts as none, so that it
    does what one that comes with its event does. order (n,) <- the rows of the first shard as they
    come, then those of the next; ends (shards,) <- where they end in it. O(n), counts the events.
    """
    n, shards = slots.shape[0], ends.shape[0]
    for t in range(n):
        s[COUNT] += 1.0 if mode[t] & _OBSERVE else 0.0
        events[t] = s[COUNT]
    if shards == 1:  # a remainder costs more than all else
        for t in range(n):
            order[t] = t
        ends[0] = n
        return
    ends[:] = 0
    for t in range(n):
        ends[slots[t] % shards] += 1
    first = 0
    for k in range(shards):
        ends[k], first = first, first + ends[k]
    for t in range(n):
        k = slots[t] % shards
        order[ends[k]] = t
        ends[k] += 1


@part
def touch(record: F8, slot: int, event: float, s: F8, undo: Undo) -> None:
    """Note the event; of a record that was not seen since the mark keep a copy: it will change.

    Where late labels come before the next event a record may be kept twice: the first copy counts.
    """
    if record[SEEN] <= s[MARK]:
        k = int(s[UNDONE])
        undo[0][k] = slot
        for i in range(record.shape[0]):
            undo[1][k, i] = record[i]
        s[UNDONE] += 1.0
    record[SEEN] = event


@part
def show_seen(t: int, X: F8, record: F8, K: int, seen: F8) -> None:
    """What the row teaches on when its label comes late: gaps filled, if not all is missing."""
    if seen.shape[0] == 0:
        return
    d = X.shape[1]
    missing = 0
    for i in range(d):
        seen[t, i] = X[t, i]
        missing += X[t, i] != X[t, i]
    for i in range(d):
        if missing < d and X[t, i] != X[t, i]:
            seen[t, i] = record[HEAD + 3 * K + d + i]


@part
def begin(
    t: int, rows: Rows, records: F8, K: int, fixed: Fixed, s: F8, seen: F8, undo: Undo
) -> int:  # fmt: skip
    """What walks share of row t, up to its features: returns the code of its lesson."""
    X, y, weight, mode, slots, events = rows
    p, _, f = fixed
    record, bits = records[slots[t]], mode[t]
    label = read_label(t, y, K) if bits & _LEARN else EMPTY
    if bits & ACTIVE:
        touch(record, slots[t], events[t], s, undo)
    show_seen(t, X, record, max(K, 1), seen)
    code = lift_row(record, X[t], f, label, weight[t], bits, max(K, 1), p)
    if bits & _LEARN:
        s[REFUSED] += code in (SKIP, REJECT)
        s[LESSONS] += code >= 0 or code == TARGET
    return code


@part
def next_row(i: int, order: I8, slots: I8, records: F8) -> int:
    """The i-th row of a shard; the record of one further on is fetched meanwhile."""
    prefetch_row(records, slots[order[min(i + _AHEAD, order.shape[0] - 1)]])
    return int(order[i])


@part
def project(record: F8, f: F8, K: int, work: F8) -> None:
    """u = A f and W f, in work. O(D^2 + K D)."""
    D = f.shape[0]
    weigh(record, f, K, work)
    triangle.product(record[HEAD + 3 * K + 2 * (D - 1) + K * D :], f, work[:D])


@part
def kalman_learn(record: F8, f: F8, noise: float, K: int, p: F8, work: F8) -> None:
    """A lesson to which the record has adapted. O(D^2 + K D)."""
    D = f.shape[0]
    root, g2, floor = kalman_correct(record, f, noise, K, p, work)
    triangle.update(record[HEAD + 3 * K + 2 * (D - 1) + K * D :], work[:D], root, g2, 1.0)
    kalman_floor(record, D, K, floor, p)


@part
def rls_learn(record: F8, D: int, K: int, root: float, p: F8, work: F8) -> None:
    """What is left of a lesson when `rls_target` or `rls_class` has had it. O(D^2)."""
    at = HEAD + 3 * K + 2 * (D - 1) + K * D
    triangle.update(record[at:], work[:D], root, 1.0, 1.0 / p[rls.LAM])
    rls_keep(record, D, K, p, work)


@kernel
def scale_rows(
    rows: Rows, given: B1, order: I8, records: F8, at: int,
    shape: tuple[float, float, float, bool], Z: F8, s: F8, undo: Undo,
) -> None:  # fmt: skip
    """Z (n, d) <- each row standardised by its key's moments before it, which then take it in.

    rows, order, s, undo: as for `walk_targets`, which is to follow, with Z for X. given (n,): rows
    that come back from a log and are passed on. at: of the moments in a record. shape = q, eps, c,
    whether a row is taken in first, as in `scale.normaliser_run`. An infinite row is passed on and
    not learnt. O(n d), allocates nothing.
    """
    X, _, weight, mode, slots, events = rows
    q, eps, c, first = shape
    d = X.shape[1]
    for i in range(order.shape[0]):
        t = next_row(i, order, slots, records)
        if given[t] or any_infinite(X[t]):
            for j in range(d):
                Z[t, j] = X[t, j]
            continue
        record = records[slots[t]]
        M = record[at : at + MOMENTS * d].reshape(MOMENTS, d)
        learns = (mode[t] & _OBSERVE) != 0 and weight[t] > 0.0
        if learns:
            touch(record, slots[t], events[t], s, undo)
        if learns and first:
            absorb(M, X[t], weight[t], q)
        standardise(M, X[t], eps, c, Z[t])
        if learns and not first:
            absorb(M, X[t], weight[t], q)


@kernel
def walk_targets(
    rows: Rows, order: I8, records: F8, fixed: Fixed, s: F8, out: Out, undo: Undo,
    least: bool | None,
) -> None:  # fmt: skip
    """Walk rows of a block that belong to the records at `slots`: predict, then learn.

    rows = X (n, d) | y (n, 1) | weight (n,) | mode (n,) | slots (n,) | events (n,). order (m,): the
    rows of a shard, as `deal` gives them; another shard's records are not looked at, so shards may
    be walked at the same time, each with s, fixed and undo of its own. fixed = p | work | f (D,)
    scratch. out = mean (n, 1) | variance (n, 1) | seen (n, d), or (0, d) where it is not wanted.
    undo = slots (n,) | records (n, stride), or (0, stride) where s[MARK] is -1. least: None for
    Kalman, True for least squares: what is not needed is not compiled.
    """
    _, y, weight, mode, slots, _ = rows
    p, work, f = fixed
    for i in range(order.shape[0]):
        t = next_row(i, order, slots, records)
        code = begin(t, rows, records, 0, fixed, s, out[2], undo)
        record, bits = records[slots[t]], mode[t]
        mean, variance = math.nan, math.nan
        if code != SKIP:
            project(record, f, 1, work)
            if least is None:
                mean, variance, noise = kalman_target(
                    record, f, y[t, 0], weight[t], bits, code, p, work
                )
                if noise > 0.0:
                    kalman_learn(record, f, noise, 1, p, work)
            else:
                mean, variance, root = rls_target(
                    record, f, y[t, 0], weight[t], bits, code, p, work
                )
                if code == TARGET:
                    rls_learn(record, f.shape[0], 1, root, p, work)
        asked = bits & _PREDICT
        out[0][t, 0] = mean if asked else math.nan
        out[1][t, 0] = variance if asked else math.nan


@part
def judge_class(record: F8, f: F8, c: int, K: int, work: F8, best: int) -> None:
    """Count how wrong the answer in work, `best`, was of class c."""
    prob = work[2 * f.shape[0] + 2 * K + c]
    record[ERROR] += best != c
    record[SQUARE] -= math.log(max(prob, 1e-15))


@part
def meet_class(
    record: F8, f: F8, c: int, weight: float, K: int, p: F8, work: F8, best: int
) -> float:
    """A lesson: count its error and its class, and adapt. Returns its noise variance."""
    judge_class(record, f, c, K, work, best)
    record[HEAD + c] += 1.0
    if record[HEAD + c] == 1.0:
        kalman_answer(record, f, K, p, work)
    return kalman_class(record, f, c, weight, K, p, work)


@kernel
def walk_classes(
    rows: Rows, order: I8, records: F8, fixed: Fixed, s: F8, out: Out, undo: Undo,
    least: bool | None,
) -> None:  # fmt: skip
    """As `walk_targets`, for classes. out = prob (n, K) | class (n, 1) | seen."""
    _, _, weight, mode, slots, _ = rows
    p, work, f = fixed
    K, D = out[0].shape[1], f.shape[0]
    for i in range(order.shape[0]):
        t = next_row(i, order, slots, records)
        code = begin(t, rows, records, K, fixed, s, out[2], undo)
        record, bits, best = records[slots[t]], mode[t], -1
        if code != SKIP:
            project(record, f, K, work)
            if least is None:
                best = kalman_answer(record, f, K, p, work)
            else:
                best = rls_answer(record, D, K, p, work)
        shown = bits & _PREDICT and code != SKIP
        for k in range(K):
            out[0][t, k] = math.nan
            if shown or record[HEAD + k] == 0.0:
                out[0][t, k] = work[2 * D + 2 * K + k] if shown else 0.0
        out[1][t, 0] = float(best) if shown and best >= 0 else math.nan
        if least is None and code == EMPTY and bits & _LEARN:
            record[GAP] += 1.0
        if code < 0:
            continue
        s[CLASSES] = max(s[CLASSES], code + 1.0)
        if least is None:
            noise = meet_class(record, f, code, weight[t], K, p, work, best)
            kalman_learn(record, f, noise, K, p, work)
        else:
            judge_class(record, f, code, K, work, best)
            root = rls_class(record, f, code, weight[t], K, p, work)
            rls_learn(record, D, K, root, p, work)
