"""Prequential metrics: sums that grow row by row, cumulative and fading, and the last rows.

Everything a row adds to a metric is in `classification_add` or `regression_add`; the walkers only
decide which rows count, and the window is read by adding its rows again. So a further metric is a
line in an `…_add` and a reader of the sums in streamlearn/evaluation.py.

Fading, S = f S + loss, is kept without touching what the row does not concern: rows are added with
a unit that grows by 1/f a row, and every `renewal` rows (anchored to the count) all sums are
divided by it. Metrics are ratios of sums, so the unit cancels. Cumulative sums are the same with a
unit of 1.
"""

import math
from typing import NamedTuple

from streamlearn.jit._compile import F8, I8, U1, kernel, part
from streamlearn.jit.baselines import mean_learn

PREDICT, LEARN_ONLY = (
    1,
    2,
)  # bits of mode; a row that is LEARN alone brings the label of an earlier event
LEAST_PROBABILITY = 1e-15  # log loss clips probabilities here, as River does

# who is measured: axis 1 of sums and classes; COMMON is the majority class, or the mean
MODEL, NO_CHANGE, COMMON = 0, 1, 2
CUMULATIVE, FADING = 0, 1  # axis 0 of sums and classes

# terms of a classifier's sums, and columns of the class table
WEIGHT, MISSES, CHANGES, LOSS, LOSS_WEIGHT = 0, 1, 2, 3, 4
TRUE, PREDICTED, HIT = 0, 1, 2
# terms of a regressor's sums (WEIGHT = 0 as well); MEAN is no sum, so renewal leaves it alone
ABSOLUTE, SQUARES, MOMENT, MEAN = 1, 2, 3, 4
N_TERMS = 5

# counters
ROWS, EVENTS, SCORED, UNANSWERED, ALARMS, CLASSES = 0, 1, 2, 3, 4, 5
N_COUNTERS = 6

# memory: last label, majority class or mean, number of labels, first scored target, fading unit
LAST, USUAL, LABELS, ANCHOR, UNIT = 0, 1, 2, 3, 4
N_MEMORY = 5

# a row of `recent`: y, then prediction and log loss (classification) of each of the three
ROW = 7


class Book(NamedTuple):
    """All arrays that the walkers write; C-contiguous.

    sums (2, 3, N_TERMS) and classes (2, 3, K, 3): by view, contestant, term or class. label_counts
    (K,): labels seen. recent (window, ROW): ring of the scored rows. alarms (m,): ring of row
    numbers. counters (N_COUNTERS,), memory (N_MEMORY,). growth: 1/f. renewal: scored rows between
    renewals of the unit.
    """

    sums: F8
    classes: F8
    label_counts: F8
    recent: F8
    alarms: I8
    counters: I8
    memory: F8
    growth: float
    renewal: int


@kernel
def log_loss_of(p: float) -> float:
    """Minus the log of the probability of what happened, clipped to [LEAST_PROBABILITY, 1]."""
    if p < LEAST_PROBABILITY:
        p = LEAST_PROBABILITY
    return -math.log(p) if p < 1.0 else p - p  # a missing probability stays missing


@kernel
def classification_add(
    sums: F8, classes: F8, view: int, who: int, unit: float, recent: F8, i: int
) -> None:
    """What scored row i adds for one contestant; branches on the outcome would be mispredicted."""
    y, prediction, loss = recent[i, 0], recent[i, 1 + 2 * who], recent[i, 2 + 2 * who]
    if math.isnan(prediction):
        return
    k = int(y)
    hit = unit if prediction == y else 0.0
    given = 0.0 if math.isnan(loss) else unit
    sums[view, who, WEIGHT] += unit
    sums[view, who, MISSES] += unit - hit
    sums[view, who, CHANGES] += 0.0 if recent[i, 1 + 2 * NO_CHANGE] == y else unit
    sums[view, who, LOSS] += given * loss if given > 0.0 else 0.0
    sums[view, who, LOSS_WEIGHT] += given
    classes[view, who, k, TRUE] += unit
    classes[view, who, k, HIT] += hit
    classes[view, who, int(prediction), PREDICTED] += unit


@kernel
def regression_add(
    sums: F8, view: int, who: int, unit: float, recent: F8, i: int, anchor: float
) -> None:
    """What scored row i adds for one contestant; moments of y - anchor are centred (West 1979)."""
    y, prediction = recent[i, 0], recent[i, 1 + 2 * who]
    if math.isnan(prediction):
        return
    e, shifted = y - prediction, y - anchor
    sums[view, who, WEIGHT] += unit
    sums[view, who, ABSOLUTE] += unit * abs(e)
    sums[view, who, SQUARES] += unit * e * e
    delta = shifted - sums[view, who, MEAN]
    sums[view, who, MEAN] += delta * (unit / sums[view, who, WEIGHT])
    sums[view, who, MOMENT] += unit * delta * (shifted - sums[view, who, MEAN])


@kernel
def classification_window(recent: F8, n: int, sums: F8, classes: F8) -> None:
    """Sums over the first n rows of the ring, from zero: nothing that could drift."""
    for i in range(n):
        for who in range(3):
            classification_add(sums, classes, 0, who, 1.0, recent, i)


@kernel
def regression_window(recent: F8, n: int, sums: F8) -> None:
    """Sums over the first n rows of the ring, from zero: nothing that could drift."""
    for i in range(n):
        for who in range(3):
            regression_add(sums, 0, who, 1.0, recent, i, recent[0, 0])


@part
def _count_rows(mode: U1, alarm: U1, alarms: I8, counters: I8) -> None:
    """Number the rows, note the alarms; `alarm` is empty where the pipeline has no detector.

    A loop of its own, because these counters in the scoring loop cost 13 ns a row.
    """
    for t in range(alarm.shape[0]):
        if alarm[t] != 0:
            alarms[counters[ALARMS] % alarms.shape[0]] = counters[ROWS] + t
            counters[ALARMS] += 1
    n_events = 0
    for t in range(mode.shape[0]):
        n_events += mode[t] != LEARN_ONLY
    counters[EVENTS] += n_events
    counters[ROWS] += mode.shape[0]


@part
def _renewed(unit: float, sums: F8, classes: F8, n_sums: int) -> float:
    """Divide the fading sums by their unit, which is 1 again."""
    for who in range(3):
        for term in range(n_sums):
            sums[FADING, who, term] /= unit
        for k in range(classes.shape[2]):
            for column in range(3):
                classes[FADING, who, k, column] /= unit
    return 1.0


@part
def _write_classified(
    recent: F8, i: int, y: float, prediction: float, p: float, label_counts: F8, memory: F8
) -> None:
    """Write down a row: y, what each contestant said and lost; p of the true class, NaN = none."""
    recent[i, 0], recent[i, 1], recent[i, 2] = y, prediction, log_loss_of(p)
    if memory[LABELS] > 0.0:
        recent[i, 3] = memory[LAST]
        recent[i, 4] = 0.0 if memory[LAST] == y else -math.log(LEAST_PROBABILITY)
        recent[i, 5] = memory[USUAL]
        recent[i, 6] = log_loss_of(label_counts[int(y)] / memory[LABELS])
    else:
        for j in range(3, ROW):
            recent[i, j] = math.nan


@part
def _remember_class(y: float, label_counts: F8, memory: F8) -> None:
    """The baselines learn a label; of equally frequent classes the lowest code is the majority."""
    k = int(y)
    label_counts[k] += 1.0
    memory[LAST] = y
    memory[LABELS] += 1.0
    usual = y if memory[LABELS] == 1.0 else memory[USUAL]
    count, most = label_counts[k], label_counts[int(usual)]
    memory[USUAL] = y if count > most or (count == most and y < usual) else usual


@part
def _note_code(code: float, counters: I8) -> None:
    """Widest code met so far; it says how much of the tables is state."""
    if code >= counters[CLASSES]:
        counters[CLASSES] = int(code) + 1


@part
def _place(n_scored: int, window: int, renewal: int) -> tuple[int, int]:
    """Next slot of the ring, rows until the next renewal: divisions once a block, not each row."""
    return n_scored % window, renewal - n_scored % renewal


@part
def _said(proba: F8, t: int, k: int) -> float:
    """Probability that row t gave to class k: 0 if unknown then, NaN without probabilities."""
    if proba.shape[1] == 0:
        return math.nan
    return proba[t, k] if k < proba.shape[1] else 0.0


@kernel
def classification_run(
    y: F8, mode: U1, prediction: F8, proba: F8, alarm: U1, start: int, book: Book
) -> int:
    """Walk rows from `start`: score what was answered and labelled; then the baselines learn.

    y, prediction (n,) codes, NaN = none. mode (n,). proba (n, K') or (n, 0) = none. alarm (n,) or
    (0,). Returns n, or the row at which the tables of `book` are too narrow for a code: widen, go
    on from there.
    """
    sums, classes, recent, memory = book.sums, book.classes, book.recent, book.memory
    counts, counters, alarms = book.label_counts, book.counters, book.alarms
    i, due = _place(counters[SCORED], recent.shape[0], book.renewal)
    n: int = y.shape[0]
    for t in range(start, n):
        labelled = 0.0 <= y[t] < math.inf
        asked = labelled and mode[t] & PREDICT != 0
        scored = asked and 0.0 <= prediction[t] < math.inf
        if (labelled and y[t] >= counts.shape[0]) or (scored and prediction[t] >= counts.shape[0]):
            return t
        if scored:
            p = _said(proba, t, int(y[t]))
            _write_classified(recent, i, y[t], prediction[t], p, counts, memory)
            for who in range(3):
                classification_add(sums, classes, CUMULATIVE, who, 1.0, recent, i)
                classification_add(sums, classes, FADING, who, memory[UNIT], recent, i)
            _note_code(prediction[t], counters)
            counters[SCORED] += 1
            memory[UNIT] *= book.growth
            i, due = i + 1 if i + 1 < recent.shape[0] else 0, due - 1
            if due == 0:
                memory[UNIT], due = _renewed(memory[UNIT], sums, classes, N_TERMS), book.renewal
        elif asked:
            counters[UNANSWERED] += 1
        if labelled:
            _note_code(y[t], counters)
            _remember_class(y[t], counts, memory)
    _count_rows(mode, alarm, alarms, counters)  # last: only the walk that reaches the end counts
    return n


@kernel
def regression_run(y: F8, mode: U1, prediction: F8, alarm: U1, book: Book) -> None:
    """Walk the rows: score what was answered and has a target; then the baselines learn.

    y, prediction (n,), NaN = none; an infinite one counts as none. mode (n,). alarm (n,) or (0,).
    """
    sums, recent, memory, counters = book.sums, book.recent, book.memory, book.counters
    classes, alarms = book.classes, book.alarms
    i, due = _place(counters[SCORED], recent.shape[0], book.renewal)
    _count_rows(mode, alarm, alarms, counters)
    for t in range(y.shape[0]):
        if not math.isfinite(y[t]):
            continue
        asked = mode[t] & PREDICT != 0
        if asked and math.isfinite(prediction[t]):
            if counters[SCORED] == 0:
                memory[ANCHOR] = y[t]
            recent[i, 0], recent[i, 1] = y[t], prediction[t]
            recent[i, 3] = memory[LAST]
            recent[i, 5] = memory[USUAL] if memory[LABELS] > 0.0 else math.nan
            for who in range(3):
                regression_add(sums, CUMULATIVE, who, 1.0, recent, i, memory[ANCHOR])
                regression_add(sums, FADING, who, memory[UNIT], recent, i, memory[ANCHOR])
            counters[SCORED] += 1
            memory[UNIT] *= book.growth
            i, due = i + 1 if i + 1 < recent.shape[0] else 0, due - 1
            if due == 0:
                memory[UNIT], due = _renewed(memory[UNIT], sums, classes, MEAN), book.renewal
        elif asked:
            counters[UNANSWERED] += 1
        memory[LAST] = y[t]
        mean_learn(memory[USUAL : LABELS + 1], y[t], 1.0, False)
