"""Error memory (ReLoop2): what labels of like rows said, against what the model said of them.

Letters: z (d,) key of a row; K arrays of 2^L cells, or one ring of S rows; C outputs. A cell, and a
row of the ring, is (cnt, sy_0, sb_0, sy_1, sb_1, …): weight, sums of labels, sums of answers.
b (C,) is the model's answer, r (2 C,) = (ybar_0, bbar_0, …) what was read, NaN first: nothing.
Cells and total hold their sums divided by g = rho^writes: one product decays them all. g is folded
into them before it gets too small.
"""

import math

import numpy as np

from streamlearn.jit._compile import B1, F8, I8, U1, kernel, part
from streamlearn.jit.open_classes import balanced
from streamlearn.jit.scale import deviation, moved, z_score

F4 = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

WRITES, SCALE, TOTAL, OUTPUTS, KEYS, REJECTED, IMPUTED, SKIPPED = range(8)  # places in s
N_SCALARS = 8
RHO, N_MIN, WARM, TAU, SIGMA, ETA, ALPHA, BALANCE, CLASSES, SOFTMAX = range(10)  # places in p
N_SETTINGS = 10
COUNT, MU, V = range(3)  # rows of the scaler M (3, d)
SEEN, ERROR = range(2)  # rows of outputs (2, C): weight learnt, mean squared error of the model
EMPTY, BAD, REJECT = -1, -2, -3  # no key, an infinite one; a label that cannot be one
FIRST = 50  # keys after which they are centred and scaled, and the memory begins
CUT = 5.0  # a scaled coordinate ends here: none decides all bits alone
LARGEST = 1e100  # a target, answer or weight beyond it would overflow the sums
FADED = 1e-12  # a cell that counts less is empty
_FOLD = 1e-30  # g below it is folded into the cells
_EPS = 1e-300
_PREDICT, _LEARN, _OBSERVE = 1, 2, 4

Rows = tuple[F8, F8, F8, U1, I8]
Said = tuple[F8, F8, F8]
Gate = tuple[F8, F8, F8]
Work = tuple[F8, F8, I8, F8, F8, F8, F8, F8]
More = tuple[F8, F8, Work]
Out = tuple[F8, F8]


# -- keys ------------------------------------------------------------------------------------------


@part
def scaled(x: float, j: int, M: F8, warm: float) -> float:
    """Coordinate j of a key: standardised by the moments in M; as it is where warm = 0."""
    if warm == 0.0:
        return min(max(x, -LARGEST), LARGEST)
    if M[COUNT, j] < min(warm, FIRST):
        return 0.0
    return z_score(deviation(x, M[MU, j]), M[V, j], _EPS, CUT)


@part
def make_key(x: F8, numeric: B1, M: F8, warm: float, z: F8) -> int:
    """z <- key of the row x (d,), 0 where it is missing. Returns how many are, or EMPTY, BAD."""
    missing = seen = 0
    for j in range(x.shape[0]):
        z[j] = 0.0
        if numeric[j]:
            if x[j] != x[j]:
                missing += 1
            elif abs(x[j]) == math.inf:
                return BAD
            else:
                seen += 1
                z[j] = scaled(x[j], j, M, warm)
    return missing if seen else EMPTY


@part
def absorb_key(x: F8, numeric: B1, M: F8, warm: float) -> bool:
    """Moments of each coordinate, until `warm` values of it have been seen: then they are frozen.

    Returns whether any has changed, so that the key of x is another one now.
    """
    changed = False
    for j in range(x.shape[0]):
        if numeric[j] and x[j] == x[j] and M[COUNT, j] < warm:
            M[COUNT, j] += 1.0
            e = deviation(x[j], M[MU, j])
            M[MU, j], M[V, j] = moved(e, M[MU, j], M[V, j], 1.0 / M[COUNT, j])
            changed = True
    return changed


@part
def observe_key(found: int, x: F8, numeric: B1, M: F8, s: F8, warm: float) -> bool:
    """Count a key and what it lacks, and take it in. Returns whether it is another one now."""
    s[IMPUTED] += found
    s[KEYS] += 1.0
    return absorb_key(x, numeric, M, warm) or s[KEYS] == min(warm, FIRST)


@part
def ready(found: int, s: F8, warm: float) -> bool:
    """Whether there is a key, and keys have a scale."""
    return found >= 0 and s[KEYS] >= min(warm, FIRST)


@part
def add_products(z: F8, W: F8 | F4, h: F8) -> None:
    """h <- h + W'z: each h_i one chain over d, vectorised across i, four coordinates a pass."""
    d = z.shape[0]
    for j in range(0, d - 3, 4):
        for i in range(h.shape[0]):
            v = h[i] + W[j, i] * z[j]
            v += W[j + 1, i] * z[j + 1]
            v += W[j + 2, i] * z[j + 2]
            h[i] = v + W[j + 3, i] * z[j + 3]
    for j in range(d - d % 4, d):
        for i in range(h.shape[0]):
            h[i] += W[j, i] * z[j]


@part
def hash_key(z: F8, W: F4, h: F8, c: I8) -> None:
    """c (K,) <- the cell of z in each array: bit l of c_k is 1 where W[., l, k]'z > 0. O(K L d).

    W (d, L K) | h (L K,) scratch.
    """
    K = c.shape[0]
    for i in range(h.shape[0]):
        h[i] = 0.0
    add_products(z, W, h)
    for k in range(K):
        c[k] = 0
    for bit in range(h.shape[0] // K):
        for k in range(K):
            c[k] |= np.int64(h[bit * K + k] > 0.0) << bit


# -- the sketch ------------------------------------------------------------------------------------


@part
def weigh_cell(n: float, s: F8, p: F8) -> float:
    """What a cell of count n weighs in a mean: n, or, of its mean, exp(n / (total tau))."""
    if n * s[SCALE] < FADED:
        return 0.0
    return math.exp(n / (s[TOTAL] * p[TAU])) / n if p[SOFTMAX] else 1.0


@part
def read_sketch(cells: F8, c: I8, s: F8, p: F8, r: F8) -> None:
    """r <- means of labels and answers over the cells c (K,); NaN first: too little. O(K C)."""
    count = total = 0.0
    for i in range(r.shape[0]):
        r[i] = 0.0
    for k in range(c.shape[0]):
        n = cells[k, c[k], 0]
        a = weigh_cell(n, s, p)
        if a > 0.0:
            count += n
            total += a * n
            for i in range(r.shape[0]):
                r[i] += a * cells[k, c[k], 1 + i]
    if total == 0.0 or count * s[SCALE] < p[N_MIN]:
        r[0] = math.nan
        return
    for i in range(r.shape[0]):
        r[i] /= total


@part
def write_sketch(cells: F8, c: I8, y: F8, b: F8, w: float, s: F8, rho: float) -> None:
    """Add a label and the answer of then, weight w, to the cells c; time goes on. O(K C)."""
    share = w / s[SCALE]
    for k in range(c.shape[0]):
        cells[k, c[k], 0] += share
        for i in range(y.shape[0]):
            cells[k, c[k], 1 + 2 * i] += share * y[i]
            cells[k, c[k], 2 + 2 * i] += share * b[i]
    s[TOTAL] += share
    s[WRITES] += 1.0
    s[SCALE] *= rho
    if s[SCALE] < _FOLD:
        fold(cells, s)


@part
def fold(cells: F8, s: F8) -> None:
    """cells <- cells g, g <- 1; what has faded becomes 0. Once in ln(1e30) / (1 - rho) writes."""
    g = s[SCALE]
    for k in range(cells.shape[0]):
        for c in range(cells.shape[1]):
            factor = g if cells[k, c, 0] * g >= FADED else 0.0
            for i in range(cells.shape[2]):
                cells[k, c, i] *= factor
    s[TOTAL] *= g
    s[SCALE] = 1.0


# -- nearest neighbours ----------------------------------------------------------------------------


@part
def unit(z: F8) -> None:
    """z <- z / |z|; 0 stays 0."""
    top = total = 0.0
    for j in range(z.shape[0]):
        top = max(top, abs(z[j]))
    if top == 0.0:
        return
    for j in range(z.shape[0]):
        z[j] /= top
        total += z[j] * z[j]
    for j in range(z.shape[0]):
        z[j] /= math.sqrt(total)


@part
def nearest(z: F8, keys: F8, writes: int, h: F8, c: I8) -> int:
    """c <- slots of the rows most like z, best first, of equals the newest; h (S,) likenesses.

    Returns how many. keys (d, S), unit columns. O(d S), vectorised across slots.
    """
    S = h.shape[0]
    for i in range(S):
        h[i] = 0.0
    add_products(z, keys, h)
    found = 0
    i = writes % S  # one newer than the newest
    for _ in range(min(writes, S)):
        i = i - 1 if i > 0 else S - 1
        if found == c.shape[0] and h[i] <= h[c[found - 1]]:
            continue
        at = found if found < c.shape[0] else found - 1
        found = max(found, at + 1)
        while at > 0 and h[c[at - 1]] < h[i]:
            c[at] = c[at - 1]
            at -= 1
        c[at] = i
    return found


@part
def read_ring(ring: F8, c: I8, found: int, h: F8, s: F8, p: F8, r: F8) -> None:
    """r <- means over the slots c, with a = w rho^age exp(likeness / tau), normalised. O(K C)."""
    S, writes = ring.shape[0], int(s[WRITES])
    total = 0.0
    for i in range(r.shape[0]):
        r[i] = 0.0
    for m in range(found):
        age = (writes - 1 - c[m]) % S
        a = ring[c[m], 0] * p[RHO] ** age * math.exp((h[c[m]] - h[c[0]]) / p[TAU])
        total += a
        for i in range(r.shape[0]):
            r[i] += a * ring[c[m], 1 + i]
    if total < FADED:
        r[0] = math.nan
        return
    for i in range(r.shape[0]):
        r[i] /= total


@part
def write_ring(ring: F8, keys: F8, z: F8, y: F8, b: F8, w: float, s: F8) -> None:
    """The oldest row of the ring becomes this one. O(d + C)."""
    i = int(s[WRITES]) % ring.shape[0]
    for j in range(z.shape[0]):
        keys[j, i] = z[j]
    ring[i, 0] = w
    for k in range(y.shape[0]):
        ring[i, 1 + 2 * k] = y[k]
        ring[i, 2 + 2 * k] = b[k]
    s[WRITES] += 1.0


@part
def surprising(y: F8, b: F8, outputs: F8, p: F8) -> bool:
    """Whether the model was wrong by more than sigma: of a target, in units of its usual error."""
    for k in range(y.shape[0]):
        v = 1.0 if p[CLASSES] else outputs[ERROR, k]
        if abs(y[k] - b[k]) > p[SIGMA] * math.sqrt(v):
            return True
    return bool(p[SIGMA] == 0.0)


# -- compensation and gate -------------------------------------------------------------------------


@part
def candidate(b: F8, r: F8, gamma: float, lam: float, classes: float, P: F8) -> None:
    """P <- b + lam (gamma (ybar - b) + (1 - gamma) (ybar - bbar)); of classes, on the simplex."""
    total = 0.0
    cut = False
    for k in range(b.shape[0]):
        err = gamma * (r[2 * k] - b[k]) + (1.0 - gamma) * (r[2 * k] - r[2 * k + 1])
        P[k] = b[k] + lam * err
        if classes and P[k] < 0.0:
            P[k] = 0.0
            cut = True
        total += P[k]
    if cut:
        for k in range(b.shape[0]):
            P[k] = P[k] / total if total > 0.0 else b[k]


@part
def respond(b: F8, r: F8, gate: Gate, classes: float, P: F8, Q: F8) -> None:
    """P <- sum_g w_g P_g. Q (C,) scratch. O(G C)."""
    grid, w, _ = gate
    for k in range(P.shape[0]):
        P[k] = 0.0
    for g in range(w.shape[0]):
        candidate(b, r, grid[g, 0], grid[g, 1], classes, Q)
        for k in range(P.shape[0]):
            P[k] += w[g] * Q[k]


@part
def loss_of(Q: F8, y: F8, outputs: F8, classes: float) -> float:
    """Log loss, cut at 1e-4; of targets the squared error in units of the model's, their mean."""
    total = 0.0
    for k in range(y.shape[0]):
        if classes:
            if y[k] == 1.0:
                return -math.log(min(max(Q[k], 1e-4), 1.0 - 1e-4))
        elif outputs[ERROR, k] > 0.0:
            e = y[k] - Q[k]
            total += e * e / outputs[ERROR, k]
    return float(total / y.shape[0])


@part
def step_gate(w: F8, loss: F8, rate: float, alpha: float) -> None:
    """w_g <- w_g exp(-rate (loss_g - least)), normalised, and a share alpha for all alike.

    Without a share all may come to 0: then they begin anew.
    """
    G = w.shape[0]
    least, total = loss[0], 0.0
    for g in range(G):
        least = min(least, loss[g])
    for g in range(G):
        w[g] *= math.exp(-rate * (loss[g] - least))
        total += w[g]
    for g in range(G):
        w[g] = (1.0 - alpha) * w[g] / total + alpha / G if total > 0.0 else 1.0 / G


# -- one row ---------------------------------------------------------------------------------------


@part
def read_label(t: int, y: F8, classes: float, target: F8) -> int:
    """target (C,) <- the label of row t, a class one-hot. Returns its code, or EMPTY, REJECT."""
    for k in range(y.shape[1]):
        if y[t, k] != y[t, k]:
            return EMPTY
        if abs(y[t, k]) > LARGEST:
            return REJECT
    if not classes:
        for k in range(target.shape[0]):
            target[k] = y[t, k]
        return 0
    c = y[t, 0]
    if not (0.0 <= c < target.shape[0] and c == math.floor(c)):
        return REJECT
    for k in range(target.shape[0]):
        target[k] = 0.0
    target[int(c)] = 1.0
    return int(c)


@part
def what_was_said(source: int, said: Said, b: F8, r: F8) -> None:
    """b, r <- answer and reading of the time of scoring: of this block, or from the log."""
    B, R, T = said
    C = b.shape[0]
    for k in range(C):
        b[k] = T[-1 - source, k] if source < 0 else B[source, k]
    for i in range(2 * C):
        r[i] = T[-1 - source, C + i] if source < 0 else R[source, i]


@part
def usable(b: F8) -> bool:
    """Whether the model gave an answer that sums can hold."""
    good = True
    for k in range(b.shape[0]):
        good &= abs(b[k]) <= LARGEST
    return good


@part
def note_outputs(c: int, b: F8, target: F8, w: float, outputs: F8, s: F8, p: F8) -> float:
    """Weight learnt of each class, error of each target; how many there are. The row's weight."""
    C = b.shape[0]
    if p[CLASSES]:
        outputs[SEEN, c] += w
        s[OUTPUTS] = max(s[OUTPUTS], c + 1.0)
        for k in range(C):
            if b[k] > 0.0:
                s[OUTPUTS] = max(s[OUTPUTS], k + 1.0)
        return w * balanced(outputs[SEEN], c) if p[BALANCE] else w
    s[OUTPUTS] = float(C)
    if usable(b):
        for k in range(C):
            outputs[SEEN, k] = p[RHO] * outputs[SEEN, k] + w
            e = target[k] - b[k]
            outputs[ERROR, k] += w / outputs[SEEN, k] * (e * e - outputs[ERROR, k])
    return w


@part
def judge(t: int, rows: Rows, said: Said, gate: Gate, more: More) -> float:
    """Read the label of row t and let the gate learn. Returns its weight for the memory, or 0."""
    s, p, (_, _, _, target, Q, b, r, loss) = more
    grid, weights, outputs = gate
    c = read_label(t, rows[1], p[CLASSES], target)
    if c == REJECT:
        s[REJECTED] += 1.0
    if c < 0 or not rows[2][t] > 0.0:
        return 0.0
    w = min(rows[2][t], LARGEST)
    what_was_said(rows[4][t], said, b, r)
    w = note_outputs(c, b, target, w, outputs, s, p)
    if not usable(b):
        return 0.0
    if r[0] == r[0] and weights.shape[0] > 1:
        for g in range(weights.shape[0]):
            candidate(b, r, grid[g, 0], grid[g, 1], p[CLASSES], Q)
            loss[g] = loss_of(Q, target, outputs, p[CLASSES])
        step_gate(weights, loss, p[ETA] * w, p[ALPHA])
    return w


@part
def answer(t: int, said: Said, gate: Gate, classes: float, Q: F8, out: Out) -> None:
    """Compensate row t where something was read; side[t] is the class then, else the model's."""
    B, R, _ = said
    P, side = out
    if R[t, 0] != R[t, 0]:
        for k in range(P.shape[1]):
            P[t, k] = B[t, k]
        return
    respond(B[t], R[t], gate, classes, P[t], Q)
    if classes:
        best = 0
        for k in range(P.shape[1]):
            if P[t, k] > P[t, best]:
                best = k
        side[t] = float(best)


@part
def judge_key(t: int, found: int, rows: Rows, said: Said, gate: Gate, more: More) -> float:
    """As `judge`; a row that is infinite is refused, one without a key is counted."""
    s, p, _ = more
    if found == BAD:
        s[REJECTED] += 1.0
        return 0.0
    if found == EMPTY:
        s[SKIPPED] += 1.0
    w = judge(t, rows, said, gate, more)
    return w if ready(found, s, p[WARM]) else 0.0


# -- the walks -------------------------------------------------------------------------------------


@kernel
def walk_sketch(
    rows: Rows, said: Said, key: tuple[B1, F8, F4], cells: F8, gate: Gate, more: More, out: Out
) -> None:
    """Walk a block over the sketch: read and answer, then write, row by row. O(K L d + K C) a row.

    rows = X (n, d), y (n, q), weight (n,), mode (n,), source (n,): where what was said of the row
    is found, t itself, an earlier row of the block, or -1 - i for row i of the log
    | said = B (n, C) answers, R (n, 2 C) readings, out, T (m, 3 C) both of then, from the log
    | key = which columns are numbers (d,), M (3, d) in/out, W (d, L K)
    | cells (K, 2^L, 1 + 2 C) in/out | gate = grid (G, 2), weights (G,), outputs (2, C), in/out
    | more = s in/out, settings p, scratch | out = P (n, C), classes (n,).
    A label is noted under the key that the row has once it has been observed, as a late one is.
    """
    X, _, weight, mode, source = rows
    numeric, M, W = key
    s, p, (z, h, c, target, Q, b, _, _) = more
    for t in range(X.shape[0]):
        asks, learns = mode[t] & _PREDICT, mode[t] & _LEARN
        found = make_key(X[t], numeric, M, p[WARM], z)
        if (asks or learns) and ready(found, s, p[WARM]):
            hash_key(z, W, h, c)
        if asks or (learns and source[t] == t):
            said[1][t, 0] = math.nan
            if ready(found, s, p[WARM]) and usable(said[0][t]):
                read_sketch(cells, c, s, p, said[1][t])
        if asks:
            answer(t, said, gate, p[CLASSES], Q, out)
        moved_on = False
        if mode[t] & _OBSERVE and found >= 0 and weight[t] > 0.0:
            moved_on = observe_key(found, X[t], numeric, M, s, p[WARM])
        if learns:
            w = judge_key(t, found, rows, said, gate, more)
            if w > 0.0:
                if moved_on:
                    make_key(X[t], numeric, M, p[WARM], z)
                    hash_key(z, W, h, c)
                write_sketch(cells, c, target, b, w, s, p[RHO])


@kernel
def walk_ring(
    rows: Rows, said: Said, key: tuple[B1, F8, F8], cells: F8, gate: Gate, more: More, out: Out
) -> None:
    """As walk_sketch over the nearest of the last S rows: key holds keys (d, S) in/out for W,
    cells (1, S, 1 + 2 C); scratch h (S,), c (K,). O(d S) a row.
    """
    X, _, weight, mode, source = rows
    numeric, M, keys = key
    ring = cells[0]
    s, p, (z, h, c, target, Q, b, _, _) = more
    for t in range(X.shape[0]):
        asks, learns = mode[t] & _PREDICT, mode[t] & _LEARN
        found = make_key(X[t], numeric, M, p[WARM], z)
        unit(z)
        if asks or (learns and source[t] == t):
            said[1][t, 0] = math.nan
            any_there = s[WRITES] >= max(p[N_MIN], 1.0)
            if any_there and ready(found, s, p[WARM]) and usable(said[0][t]):
                near = nearest(z, keys, int(s[WRITES]), h, c)
                read_ring(ring, c, near, h, s, p, said[1][t])
        if asks:
            answer(t, said, gate, p[CLASSES], Q, out)
        moved_on = False
        if mode[t] & _OBSERVE and found >= 0 and weight[t] > 0.0:
            moved_on = observe_key(found, X[t], numeric, M, s, p[WARM])
        if learns:
            w = judge_key(t, found, rows, said, gate, more)
            if w > 0.0 and surprising(target, b, gate[2], p):
                if moved_on:
                    make_key(X[t], numeric, M, p[WARM], z)
                    unit(z)
                write_ring(ring, keys, z, target, b, w, s)
