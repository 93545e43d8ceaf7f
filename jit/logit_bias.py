"""Streaming calibration: a temperature and a bias a class on a classifier's logits, and priors.

C = classes, z = logits (log probabilities of the model), T = temperature, b = biases.
"""

import math

from streamlearn.jit._compile import F8, U1, kernel, part

PREDICT, LEARN, OBSERVE = 1, 2, 4
LOG_T, GRADIENTS, KNOWN, LEARNT, REJECTED = range(5)
N_SCALARS = 5
BIAS, BIAS_GRADIENTS, TRAIN, NOW = range(4)  # rows of the table by class
N_ROWS = 4
LR, PSEUDO, FADING, PRIOR, SHRINK = range(5)
OFF, LABELS, PREDICTIONS = range(3)
WEIGHT, CONFIDENCE, HITS = range(3)
N_BINS = 15
LEAST = 1e-15  # a probability below it counts as that
LONGEST = math.log(20.0)  # of |log T|
CODES = 100_000.0  # a label beyond it is no class code


@part
def correct(z: F8, s: F8, table: F8, p: F8, known: int, out: F8) -> int:
    """Probabilities of one row, and the most probable class.

    z (C,) | s, table (N_ROWS, C) | known classes | out (C,) written: softmax of
    z / T + b + log(n_now + a) - log(n_train + a), the last two where a prior is corrected. O(C).
    """
    T = math.exp(s[LOG_T])
    labelled = int(s[KNOWN])
    mean = 0.0
    for k in range(labelled):
        mean += table[BIAS, k] / labelled
    top, best = -math.inf, 0
    for k in range(known):
        out[k] = z[k] / T + (table[BIAS, k] if k < labelled else mean)
        if p[PRIOR] != OFF:
            out[k] += math.log((table[NOW, k] + p[PSEUDO]) / (table[TRAIN, k] + p[PSEUDO]))
        if out[k] > top:
            top, best = out[k], k
    total = 0.0
    for k in range(known):
        out[k] = math.exp(out[k] - top)
        total += out[k]
    for k in range(out.shape[0]):
        out[k] = out[k] / total if k < known else 0.0
    return best


@part
def descend(z: F8, proba: F8, label: int, w: float, s: F8, table: F8, p: F8) -> None:
    """One step of AdaGrad on the log loss in log T and the biases: z, proba (C,). O(C)."""
    C = int(s[KNOWN])
    slope = z[label]
    for k in range(C):
        slope -= proba[k] * z[k]
    slope *= w / math.exp(s[LOG_T])
    s[GRADIENTS] += slope * slope
    if s[GRADIENTS] > 0.0:
        moved = s[LOG_T] - p[LR] * slope / math.sqrt(s[GRADIENTS])
        s[LOG_T] = min(max(moved, -LONGEST), LONGEST)
    for k in range(1 if C == 2 else 0, C):  # two classes have one bias
        g = w * (proba[k] - (1.0 if k == label else 0.0))
        table[BIAS_GRADIENTS, k] += g * g
        if table[BIAS_GRADIENTS, k] > 0.0:
            table[BIAS, k] -= p[LR] * g / math.sqrt(table[BIAS_GRADIENTS, k])
        table[BIAS, k] *= p[SHRINK]


@part
def meet(label: int, s: F8, table: F8) -> None:
    """Know the classes up to this one: the bias of a new one is the mean of those known."""
    known = int(s[KNOWN])
    if label < known:
        return
    mean = 0.0
    for k in range(known):
        mean += table[BIAS, k] / known
    for k in range(known, label + 1):
        table[BIAS, k] = mean
    s[KNOWN] = label + 1.0


@part
def count(bins: F8, said: F8, label: int, w: float, fading: float) -> None:
    """Put one answer into its bin of the table (3, N_BINS): said (2,), confidence and class."""
    for i in range(bins.shape[0]):
        for j in range(N_BINS):
            bins[i, j] *= fading
    j = min(max(math.ceil(said[0] * N_BINS) - 1, 0), N_BINS - 1)
    bins[WEIGHT, j] += w
    bins[CONFIDENCE, j] += w * said[0]
    bins[HITS, j] += w if said[1] == label else 0.0


@part
def blend(table: F8, what: int, known: int, shares: F8, w: float, fading: float) -> None:
    """Fade a row of the table and add shares (C,)."""
    for k in range(known):
        table[what, k] = fading * table[what, k] + w * shares[k]


@kernel
def calibrate(
    rows: tuple[F8, F8, F8, U1], then: F8, state: tuple[F8, F8, F8], p: F8,
    out: tuple[F8, F8, F8, F8],
) -> None:  # fmt: skip
    """Correct rows in order, and learn from their labels.

    rows: the model's probabilities (n, C), NaN where there was no answer; written over with logits;
    y, weight, mode (n,) | then (n, 2): confidence and class said at scoring, NaN where it is now |
    state: s (N_SCALARS,), table (N_ROWS, C), bins (3, N_BINS), in/out | p | out: probabilities
    (n, C), class (n,), said (n, 2), written, and (C,) scratch. O(C) a row, allocates nothing.
    """
    Z, y, weight, mode = rows
    s, table, bins = state
    proba, best, said, now = out
    n, C = Z.shape
    for t in range(n):
        answered = C > 0 and not math.isnan(Z[t, 0])
        known = int(s[KNOWN])
        for k in range(C):
            if Z[t, k] > 0.0 and k >= known:
                known = k + 1
            Z[t, k] = math.log(max(Z[t, k], LEAST))
        best[t] = said[t, 0] = said[t, 1] = math.nan
        proba[t, :] = math.nan
        answered = answered and known > 0
        if answered:
            j = correct(Z[t], s, table, p, known, proba[t])
            best[t] = said[t, 1] = float(j)
            said[t, 0] = proba[t, j]
            if p[PRIOR] == PREDICTIONS and (mode[t] & OBSERVE) != 0:
                blend(table, NOW, int(s[KNOWN]), proba[t], weight[t], p[FADING])
        if (mode[t] & LEARN) == 0 or not weight[t] > 0.0 or math.isnan(y[t]):
            continue
        if not 0.0 <= y[t] < CODES:
            s[REJECTED] += 1.0
            continue
        label = int(y[t])
        if answered:
            correct(Z[t], s, table, p, known, now)  # what was observed may have moved the prior
        meet(max(label, known - 1), s, table)
        if answered:
            count(bins, said[t] if math.isnan(then[t, 0]) else then[t], label, weight[t], p[FADING])
            descend(Z[t], now, label, weight[t], s, table, p)
            s[LEARNT] += 1.0
        table[TRAIN, label] += weight[t]
        if p[PRIOR] == LABELS:
            for k in range(int(s[KNOWN])):
                table[NOW, k] *= p[FADING]
            table[NOW, label] += weight[t]
