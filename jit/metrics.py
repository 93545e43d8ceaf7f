"""Prequential metrics: what a scored row adds, and where the sums are kept.

A scored row becomes a *record*: the terms that metrics are ratios of sums of, for the model and for
both baselines, and what tables are indexed by. What a record holds is decided in `_classified`,
`_measured` and `_mark`, one for each task; so a further metric is a term there and a
reader in streamlearn/metric_readers.py. A record is added to the sums of its bin of the curve (all
bins together are the cumulative sums), to the fading sums, and to both again for its group; the
last records stay in a ring, ordered by key, and the window is read by adding them again.

Fading, S = f S + loss, is kept without touching what the row does not concern: a record is added
with the unit (1/f)**(key - base), and when the key passes base + renewal all fading sums are
divided by (1/f)**renewal. Metrics are ratios of sums, so the unit cancels. The unit is a function
of the key alone, so that a late label finds the weight of its event, whatever came between.
"""

import math
from typing import Any, NamedTuple

from streamlearn.jit._compile import F8, I8, U1, kernel, part
from streamlearn.jit.baselines import mean_learn

PREDICT = 1  # bit of mode
LEAST_PROBABILITY = 1e-15  # log loss clips probabilities here, as River does

# who is measured; COMMON is the majority class, or the mean
MODEL, NO_CHANGE, COMMON = 0, 1, 2

# terms: term j of contestant who stands at T who + j of a row of sums
WEIGHT = 0
MISSES, LOSS, LOSS_WEIGHT, BRIER = 1, 2, 3, 4  # classification
SETS, IN_SET, SET_SIZE = 5, 6, 7  # of the model's sets: rows with one, labels inside, classes
ABSOLUTE, SQUARES, SMAPE, SEASONAL, PAIRED = 1, 2, 3, 4, 5  # regression
INTERVALS, COVERED, WIDTH, PINBALL = 6, 7, 8, 9
MOMENT, MEAN = 10, 11  # of the targets, centred; MEAN is no sum and stands last
INEXACT, HAMMING, JACCARD = 1, 5, 6  # several labels; LOSS … BRIER as above
PER_LABEL = 7  # from here three terms a label: TRUE, PREDICTED, HIT
POSITIVE = 1  # anomalies
N_CLASSIFICATION, N_REGRESSION, N_ANOMALY = 8, 12, 2

# records; the last element of every one is its group, -1 for none. Several labels, anomalies: the
# terms themselves, of all three contestants, then for anomalies whether it was one
Y, SAID = 0, 1  # label or target; what the three said
LOSSES, BRIERS, TRUST = 4, 7, 10  # losses of three; confidence of the model
INSIDE, SIZE, CLASSIFICATION_ROW = 11, 12, 14  # whether its set holds the label, and its classes
BEFORE, LOW, HIGH, REGRESSION_ROW = 4, 5, 6, 8  # target one season before; interval
TRUTH, ANOMALY_ROW = 6, 8

TRUE, PREDICTED, HIT = 0, 1, 2  # columns of the class table
N_BINS = 15  # of the calibration table, over confidence; columns: weight, confidence, hits

# counters of a book: rows booked; log2 of the width of a bin; key at which the unit is 1; records
# in the ring, and where the one with the least key stands in `order`; rows without an answer;
# classes booked, as label or as prediction
BOOKED, SHIFT, BASE, HELD, HEAD, UNANSWERED, KNOWN = 0, 1, 2, 3, 4, 5, 6
N_COUNTERS = 7

# memory of the baselines: last label; majority class or mean; labels seen; classification: sum of
# squared label counts, count of the majority, classes met; regression: place in the season
LAST, USUAL, LABELS, SQUARED, TOP, WIDEST = 0, 1, 2, 3, 4, 5
PLACE = 3
N_MEMORY = 6
COUNT = 5  # column of `said`: earlier labels of the class of y


class Book(NamedTuple):
    """All arrays that a booking writes; C-contiguous. T terms, K classes, G groups, w window.

    sums (bins + 1 + 2 G, 3 T): the bins of the curve, unfaded; fading; then unfaded and fading by
    group. classes (class_bins + 1 + 2 G, 3, K, 3) and trust (trust_bins + 1 + 2 G, N_BINS, 3)
    likewise, where class_bins is bins or 1 and trust_bins is 1: all bins in one. Where bins,
    class_bins and trust_bins are 0 there is no curve. confusion (C, C). rows (w + 1, row), scores
    (w + 1, S): the ring, and one more for what is too old for it. keys, order (w,). counters
    (N_COUNTERS,). origin (1,): the first target. powers (renewal,): (1/f)**i. growth: 1/f.
    """

    sums: F8
    classes: F8
    trust: F8
    confusion: F8
    rows: F8
    scores: F8
    keys: I8
    order: I8
    counters: I8
    origin: F8
    powers: F8
    growth: float
    bins: int
    class_bins: int
    trust_bins: int


Parts = tuple[Any, ...]  # of a Book: a call with the plain tuple takes 1 us less than with a Book


@part
def _log_loss(p: float) -> float:
    """Minus the log of the probability of what happened, clipped to [LEAST_PROBABILITY, 1]."""
    if p < LEAST_PROBABILITY:
        p = LEAST_PROBABILITY
    return -math.log(p) if p < 1.0 else p - p  # a missing probability stays missing


# -- places ----------------------------------------------------------------------------------------


@part
def _enter(key: int, keys: I8, order: I8, counters: I8) -> int:
    """The slot of the ring for a new record; the one past the end if all others have later keys.

    Keys mostly come in order: then the loop does not turn.
    """
    w: int = keys.shape[0]
    held, head = counters[HELD], counters[HEAD]
    slot: int = held
    if held == w:
        slot = order[head]
        if key < keys[slot]:
            return w
        head, held = head + 1 if head + 1 < w else 0, held - 1
    at = head + held if head + held < w else head + held - w
    for _ in range(held):
        before = at - 1 if at > 0 else w - 1
        if keys[order[before]] <= key:
            break
        order[at] = order[before]
        at = before
    order[at], keys[slot] = slot, key
    counters[HELD], counters[HEAD] = held + 1, head
    return slot


@part
def _unit(key: int, period: int, book: Book) -> float:
    """The unit of a key; where a renewal is due, the fading sums (every second slot) first.

    The last of each `period` columns is a mean and not touched; 0: there are none.
    """
    renewal = book.powers.shape[0]
    age = key - book.counters[BASE]
    if age >= renewal:
        base = key - key % renewal
        unit = math.pow(book.growth, float(base - book.counters[BASE]))
        for s in range(0, book.sums.shape[0] - book.bins, 2):
            for j in range(book.sums.shape[1]):
                if period == 0 or j % period != period - 1:
                    book.sums[book.bins + s, j] /= unit
            for who in range(3):
                for k in range(book.classes.shape[2]):
                    for column in range(3):
                        book.classes[book.class_bins + s, who, k, column] /= unit
            for b in range(book.trust.shape[1]):
                for column in range(3):
                    book.trust[book.trust_bins + s, b, column] /= unit
        book.counters[BASE] = base
        age = key - base
    return book.powers[age] if age >= 0 else math.pow(book.growth, float(age))


# -- adding a record -------------------------------------------------------------------------------


@part
def _slot(i: int, bin_: int, first: int, group: int) -> int:
    """The slots of a record: its bin (i = 0), fading (1), unfaded and fading of its group."""
    return min(bin_, first - 1) if i == 0 else first + i - 1 + (2 * group if i > 1 else 0)


@part
def _add_said(
    s: int, c: int, u: float, who: int, k: int, told: int, terms: tuple[float, ...], book: Book
) -> None:
    """What contestant who said of a row of class k, with weight u, to slot s, of classes to c."""
    at, (miss, loss, given, brier) = who * N_CLASSIFICATION, terms
    book.sums[s, at + WEIGHT] += u
    book.sums[s, at + MISSES] += u * miss
    book.sums[s, at + LOSS] += u * loss
    book.sums[s, at + LOSS_WEIGHT] += u * given
    book.sums[s, at + BRIER] += u * brier
    book.classes[c, who, k, TRUE] += u
    book.classes[c, who, k, HIT] += u - u * miss
    book.classes[c, who, told, PREDICTED] += u


@part
def _add_model(record: F8, s: int, b: int, u: float, book: Book) -> None:
    """The model's set to slot s, and its confidence to slot b."""
    if not math.isnan(record[SIZE]):
        book.sums[s, SETS] += u
        book.sums[s, IN_SET] += u * record[INSIDE]
        book.sums[s, SET_SIZE] += u * record[SIZE]
    sure = record[TRUST]
    if not math.isnan(sure):
        own = min(max(math.ceil(sure * N_BINS) - 1, 0), N_BINS - 1)
        book.trust[b, own, 0] += u
        book.trust[b, own, 1] += u * sure
        book.trust[b, own, 2] += u if record[SAID] == record[Y] else 0.0


@part
def _add_classified(record: F8, bin_: int, unit: float, book: Book) -> None:
    """A record of a classifier to everything that it concerns: bin, fading, both of its group.

    Terms are made here, slot by slot: written into the record and read again as vectors they cost
    twice the time (the processor waits for the stores). A loop over the slots cost a third more.
    """
    y, k, group = record[Y], int(record[Y]), int(record[CLASSIFICATION_ROW - 1])
    sums, classes, trust = book.bins, book.class_bins, book.trust_bins  # where fading stands
    bin_, class_bin = min(bin_, sums - 1), min(bin_, classes - 1)
    own = 1 + 2 * group
    for who in range(3):
        said = record[SAID + who]
        if math.isnan(said):
            continue
        told, given = int(said), 0.0 if math.isnan(record[LOSSES + who]) else 1.0
        loss = record[LOSSES + who] if given > 0.0 else 0.0
        brier = record[BRIERS + who] if given > 0.0 else 0.0
        terms = (0.0 if said == y else 1.0, loss, given, brier)
        if sums > 0:
            _add_said(bin_, class_bin, 1.0, who, k, told, terms, book)
        _add_said(sums, classes, unit, who, k, told, terms, book)
        if group >= 0:
            _add_said(sums + own, classes + own, 1.0, who, k, told, terms, book)
            _add_said(sums + own + 1, classes + own + 1, unit, who, k, told, terms, book)
    if sums > 0:
        _add_model(record, bin_, 0, 1.0, book)
    _add_model(record, sums, trust, unit, book)
    if group >= 0:
        _add_model(record, sums + own, trust + own, 1.0, book)
        _add_model(record, sums + own + 1, trust + own + 1, unit, book)


@part
def _pinball(y: float, q: float, tau: float) -> float:
    """Koenker and Bassett (1978): the loss that the tau-quantile makes least."""
    return tau * (y - q) if y >= q else (tau - 1.0) * (y - q)


@part
def _add_measured(record: F8, bin_: int, unit: float, tau: float, book: Book) -> None:
    """A record of a regressor to everything that it concerns; moments by West (1979)."""
    y, before, group = record[Y], record[BEFORE], int(record[REGRESSION_ROW - 1])
    low, high, shifted = record[LOW], record[HIGH], record[Y] - book.origin[0]
    paired = 0.0 if math.isnan(before) else 1.0
    bounded = 0.0 if math.isnan(low) or math.isnan(high) else 1.0
    first, last, sums = 0 if book.bins > 0 else 1, 2 if group < 0 else 4, book.sums
    for who in range(3):
        said, at = record[SAID + who], who * N_REGRESSION
        if math.isnan(said):
            continue
        e, size = y - said, abs(y) + abs(said)
        for i in range(first, last):
            s, u = _slot(i, bin_, book.bins, group), unit if i & 1 else 1.0
            sums[s, at + WEIGHT] += u
            sums[s, at + ABSOLUTE] += u * abs(e)
            sums[s, at + SQUARES] += u * e * e
            sums[s, at + SMAPE] += u * (2.0 * abs(e) / size) if size > 0.0 else 0.0
            if paired > 0.0:
                sums[s, at + SEASONAL] += u * abs(y - before)
                sums[s, at + PAIRED] += u * abs(e)
            if who == MODEL and bounded > 0.0:
                loss = 0.5 * (_pinball(y, low, tau) + _pinball(y, high, 1.0 - tau))
                sums[s, at + INTERVALS] += u
                sums[s, at + COVERED] += u if low <= y <= high else 0.0
                sums[s, at + WIDTH] += u * (high - low)
                sums[s, at + PINBALL] += u * loss
            delta = shifted - sums[s, at + MEAN]
            sums[s, at + MEAN] += delta * (u / sums[s, at + WEIGHT])
            sums[s, at + MOMENT] += u * delta * (shifted - sums[s, at + MEAN])


@part
def _add_plain(record: F8, bin_: int, unit: float, book: Book) -> None:
    """A record that is terms to everything that it concerns."""
    group = int(record[record.shape[0] - 1])
    for i in range(0 if book.bins > 0 else 1, 2 if group < 0 else 4):
        s, u = _slot(i, bin_, book.bins, group), unit if i & 1 else 1.0
        for j in range(book.sums.shape[1]):
            book.sums[s, j] += u * record[j]


# -- records ---------------------------------------------------------------------------------------


@part
def _classified(record: F8, y: float, prediction: float, proba: F8, sets: F8, said: F8) -> None:
    """Write down a row of a classification. proba, sets (K,) or (0,); said (COUNT + 1,).

    A loss that is not known is NaN in LOSSES, the size of a set that there is not in SIZE.
    """
    k, wide = int(y), proba.shape[0]
    record[Y], record[SAID], record[TRUST] = y, prediction, math.nan
    record[INSIDE] = 1.0 if k < sets.shape[0] and sets[k] > 0.0 else 0.0
    record[SIZE] = 0.0 if sets.shape[0] > 0 else math.nan
    for j in range(sets.shape[0]):
        record[SIZE] += 1.0 if sets[j] > 0.0 else 0.0
    p, brier = math.nan, 0.0
    if wide > 0:
        p = proba[k] if k < wide else 0.0
        for j in range(wide):
            brier += proba[j] * proba[j] if j != k else 0.0
        brier += (p - 1.0) * (p - 1.0)  # last, whether the block is as wide as this class or not
        record[TRUST] = proba[int(prediction)] if prediction < wide else 0.0
    record[LOSSES] = _log_loss(p) if not math.isnan(brier) else math.nan
    record[BRIERS] = 0.5 * brier
    n = said[LABELS]
    if n == 0.0:
        record[SAID + NO_CHANGE], record[SAID + COMMON] = math.nan, math.nan
        return
    record[SAID + NO_CHANGE], record[SAID + COMMON] = said[LAST], said[USUAL]
    missed = 0.0 if said[LAST] == y else 1.0
    record[LOSSES + NO_CHANGE] = missed * -math.log(LEAST_PROBABILITY)
    record[BRIERS + NO_CHANGE] = missed
    p = said[COUNT] / n
    record[LOSSES + COMMON] = _log_loss(p)
    record[BRIERS + COMMON] = max(0.5 * (said[SQUARED] / n / n - 2.0 * p + 1.0), 0.0)


@part
def _mark(record: F8, who: int, y: F8, said: F8, proba: F8) -> None:
    """Terms of one contestant about several labels; proba (q,), of 1, or (0,)."""
    q = y.shape[0]
    first = who * (PER_LABEL + 3 * q)
    wrong, both, either, loss, brier = 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(q):
        true, told = 1.0 if y[j] > 0.5 else 0.0, 1.0 if said[j] > 0.5 else 0.0
        wrong += abs(true - told)
        both += true * told
        either += max(true, told)
        at = first + PER_LABEL + 3 * j
        record[at + TRUE], record[at + PREDICTED], record[at + HIT] = true, told, true * told
        if proba.shape[0] > 0:
            loss += _log_loss(proba[j] if true > 0.0 else 1.0 - proba[j])
            brier += (proba[j] - true) * (proba[j] - true)
    given = proba.shape[0] > 0 and not math.isnan(loss)
    record[first + WEIGHT] = 1.0
    record[first + INEXACT] = 1.0 if wrong > 0.0 else 0.0
    record[first + HAMMING] = wrong / q
    record[first + JACCARD] = both / either if either > 0.0 else 1.0
    record[first + LOSS] = loss / q if given else 0.0
    record[first + LOSS_WEIGHT] = 1.0 if given else 0.0
    record[first + BRIER] = brier / q if given else 0.0


# -- the baselines ---------------------------------------------------------------------------------


@kernel
def classification_say(
    y: F8, prediction: F8, counts: F8, memory: F8, said: F8, shares: F8
) -> float:
    """What the baselines know at each row, before they learn its label.

    y, prediction (n,) codes, NaN = none. counts (K,): labels by class, in/out. memory (N_MEMORY,).
    said (n, COUNT + 1) out: LAST … TOP, and COUNT. shares (n, K) or (n, 0) out: the counts.
    Returns the largest code, -1 for none; where counts are too narrow for it, nothing else happens.
    """
    top = -1.0
    for t in range(y.shape[0]):
        top = y[t] if top < y[t] < math.inf else top
        top = prediction[t] if top < prediction[t] < math.inf else top
    if top >= counts.shape[0]:
        return top
    memory[WIDEST] = max(memory[WIDEST], top + 1.0)
    for t in range(y.shape[0]):
        labelled = 0.0 <= y[t] < math.inf
        for j in range(COUNT):
            said[t, j] = memory[j]
        said[t, COUNT] = counts[int(y[t])] if labelled else math.nan
        for k in range(shares.shape[1]):
            shares[t, k] = counts[k]
        if labelled:
            k = int(y[t])
            memory[LAST] = y[t]
            memory[LABELS] += 1.0
            memory[SQUARED] += 2.0 * counts[k] + 1.0
            counts[k] += 1.0
            more = counts[k] > memory[TOP]  # of equally frequent classes the lowest code
            if more or (counts[k] == memory[TOP] and y[t] < memory[USUAL]):
                memory[USUAL], memory[TOP] = y[t], counts[k]
    return top


@kernel
def regression_say(y: F8, season: F8, memory: F8, said: F8) -> None:
    """What the baselines say at each row, before they learn its target.

    y (n,), NaN or infinite = none. season (m,): ring of the last m targets. said (n, 3) out: last
    target, mean, target m before; NaN = none.
    """
    for t in range(y.shape[0]):
        said[t, 0] = memory[LAST]
        said[t, 1] = memory[USUAL] if memory[LABELS] > 0.0 else math.nan
        said[t, 2] = season[int(memory[PLACE])]
        if math.isfinite(y[t]):
            memory[LAST] = y[t]
            season[int(memory[PLACE])] = y[t]
            memory[PLACE] = memory[PLACE] + 1.0 if memory[PLACE] + 1.0 < season.shape[0] else 0.0
            mean_learn(memory[USUAL : LABELS + 1], y[t], 1.0, False)


# -- booking ---------------------------------------------------------------------------------------
# All four walk the rows of a block from `start`. asked (n,) uint8: bit PREDICT where the row is to
# be scored now, if it has a label. group (n,) codes, -1 = none, or (0,). key (n,), by which ring
# and fading go, or (0,): rows are counted. event (n,): by which the curve goes. They return n; or
# the row to go on from after the curve was folded (its event is beyond the last bin), or after a
# sample of the ranking metrics (due after each `every` rows booked; 0 = never). Where `ready`
# (m, row) has records, only these are added, as they are: so the window is read, into a fresh book
# without a curve, by the same code, which is compiled once.
# Each is one piece in a thin kernel: within a piece no references are counted.


@part
def _place(event: int, by: int, key: I8, t: int, book: Book) -> tuple[int, int, int]:
    """Bin, key and slot of the ring of a row that is booked; slot -1: the curve must be folded."""
    bin_ = event >> book.counters[SHIFT]
    if bin_ >= book.bins:
        return bin_, by, -1
    by = key[t] if key.shape[0] > 0 else by
    return bin_, by, _enter(by, book.keys, book.order, book.counters)


@part
def _due(every: int, counters: I8) -> bool:
    """Count a row that was booked."""
    counters[BOOKED] += 1
    return every > 0 and counters[BOOKED] % every == 0


@part
def _classification_book(
    y: F8, asked: U1, prediction: F8, proba: F8, sets: F8, said: F8, group: I8, key: I8, event: I8,
    start: int, every: int, book: Book, ready: F8,
) -> int:  # fmt: skip
    counters, rows, scores, confusion = book.counters, book.rows, book.scores, book.confusion
    fresh = ready.shape[0] == 0
    absent = 0.0 if proba.shape[1] > 0 else math.nan
    n: int = y.shape[0] if fresh else ready.shape[0]
    for t in range(start, n):
        bin_, unit, record = 0, 1.0, rows[0] if fresh else ready[t]
        if fresh:
            if not (0.0 <= y[t] < math.inf and asked[t] & PREDICT != 0):
                continue
            if not 0.0 <= prediction[t] < math.inf:
                counters[UNANSWERED] += 1
                continue
            bin_, by, slot = _place(event[t], counters[BOOKED], key, t, book)
            if slot < 0:
                return t
            unit, record = _unit(by, 0, book), rows[slot]
            _classified(record, y[t], prediction[t], proba[t], sets[t], said[t])
            record[CLASSIFICATION_ROW - 1] = group[t] if group.shape[0] > 0 else -1.0
            for k in range(scores.shape[1]):
                scores[slot, k] = proba[t, k] if k < proba.shape[1] else absent
            counters[KNOWN] = max(counters[KNOWN], int(max(y[t], prediction[t])) + 1)
            if y[t] < confusion.shape[0] and prediction[t] < confusion.shape[0]:
                confusion[int(y[t]), int(prediction[t])] += 1.0
        _add_classified(record, bin_, unit, book)
        if fresh and _due(every, counters):
            return t + 1
    return n


@kernel
def classification_book(
    y: F8, asked: U1, prediction: F8, proba: F8, sets: F8, said: F8, group: I8, key: I8, event: I8,
    start: int, every: int, book: Parts, ready: F8,
) -> int:  # fmt: skip
    """y, prediction (n,) codes, NaN = none. said (n, COUNT + 1).

    proba (n, K') or (n, 0). sets (n, K''), > 0 for a class inside, or (n, 0): none is stated.
    """
    return _classification_book(
        y, asked, prediction, proba, sets, said, group, key, event, start, every, Book(*book), ready
    )


@part
def _regression_book(
    y: F8, asked: U1, prediction: F8, low: F8, high: F8, tau: float, said: F8, group: I8, key: I8,
    event: I8, start: int, book: Book, ready: F8,
) -> int:  # fmt: skip
    counters, rows = book.counters, book.rows
    fresh = ready.shape[0] == 0
    n: int = y.shape[0] if fresh else ready.shape[0]
    for t in range(start, n):
        bin_, unit, record = 0, 1.0, rows[0] if fresh else ready[t]
        if fresh:
            if not (math.isfinite(y[t]) and asked[t] & PREDICT != 0):
                continue
            if not math.isfinite(prediction[t]):
                counters[UNANSWERED] += 1
                continue
            bin_, by, slot = _place(event[t], counters[BOOKED], key, t, book)
            if slot < 0:
                return t
            if counters[BOOKED] == 0:
                book.origin[0] = y[t]
            unit, record = _unit(by, N_REGRESSION, book), rows[slot]
            record[Y], record[SAID] = y[t], prediction[t]
            record[SAID + NO_CHANGE], record[SAID + COMMON] = said[t, 0], said[t, 1]
            record[BEFORE], record[LOW], record[HIGH] = said[t, 2], low[t], high[t]
            record[REGRESSION_ROW - 1] = group[t] if group.shape[0] > 0 else -1.0
            counters[BOOKED] += 1
        _add_measured(record, bin_, unit, tau, book)
    return n


@kernel
def regression_book(
    y: F8, asked: U1, prediction: F8, low: F8, high: F8, tau: float, said: F8, group: I8, key: I8,
    event: I8, start: int, book: Parts, ready: F8,
) -> int:  # fmt: skip
    """y, prediction, low, high (n,), NaN = none; an infinite y or prediction counts as none."""
    return _regression_book(
        y, asked, prediction, low, high, tau, said, group, key, event, start, Book(*book), ready
    )


@part
def _multilabel_book(
    y: F8, asked: U1, prediction: F8, proba: F8, last: F8, frequency: F8, group: I8, key: I8,
    event: I8, start: int, book: Book, ready: F8,
) -> int:  # fmt: skip
    counters, rows = book.counters, book.rows
    fresh = ready.shape[0] == 0
    n: int = y.shape[0] if fresh else ready.shape[0]
    for t in range(start, n):
        bin_, unit, record = 0, 1.0, rows[0] if fresh else ready[t]
        if fresh:
            if asked[t] & PREDICT == 0 or not _all_finite(y[t]):
                continue
            if not _all_finite(prediction[t]):
                counters[UNANSWERED] += 1
                continue
            bin_, by, slot = _place(event[t], counters[BOOKED], key, t, book)
            if slot < 0:
                return t
            unit, record = _unit(by, 0, book), rows[slot]
            record[:] = 0.0
            _mark(record, MODEL, y[t], prediction[t], proba[t])
            if not math.isnan(last[t, 0]):
                _mark(record, NO_CHANGE, y[t], last[t], last[t])
                _mark(record, COMMON, y[t], frequency[t], frequency[t])
            record[rows.shape[1] - 1] = group[t] if group.shape[0] > 0 else -1.0
            counters[BOOKED] += 1
        _add_plain(record, bin_, unit, book)
    return n


@kernel
def multilabel_book(
    y: F8, asked: U1, prediction: F8, proba: F8, last: F8, frequency: F8, group: I8, key: I8,
    event: I8, start: int, book: Parts, ready: F8,
) -> int:  # fmt: skip
    """y, prediction, last, frequency (n, q), NaN = none. proba (n, q) or (n, 0), of 1."""
    return _multilabel_book(
        y, asked, prediction, proba, last, frequency, group, key, event, start, Book(*book), ready
    )


@part
def _all_finite(x: F8) -> bool:
    found = True
    for j in range(x.shape[0]):
        found = found and math.isfinite(x[j])
    return found


@part
def _anomaly_book(
    y: F8, asked: U1, score: F8, group: I8, key: I8, event: I8, start: int, every: int, book: Book,
    ready: F8,
) -> int:  # fmt: skip
    counters, rows = book.counters, book.rows
    fresh = ready.shape[0] == 0
    n: int = y.shape[0] if fresh else ready.shape[0]
    for t in range(start, n):
        bin_, unit, record = 0, 1.0, rows[0] if fresh else ready[t]
        if fresh:
            if math.isnan(y[t]) or asked[t] & PREDICT == 0:
                continue
            if math.isnan(score[t]):
                counters[UNANSWERED] += 1
                continue
            bin_, by, slot = _place(event[t], counters[BOOKED], key, t, book)
            if slot < 0:
                return t
            unit, record = _unit(by, 0, book), rows[slot]
            record[:] = 0.0
            for who in range(3):
                record[N_ANOMALY * who + WEIGHT], record[N_ANOMALY * who + POSITIVE] = 1.0, y[t]
            record[TRUTH] = y[t]
            record[ANOMALY_ROW - 1] = group[t] if group.shape[0] > 0 else -1.0
            book.scores[slot, 0] = score[t]
        _add_plain(record, bin_, unit, book)
        if fresh and _due(every, counters):
            return t + 1
    return n


@kernel
def anomaly_book(
    y: F8, asked: U1, score: F8, group: I8, key: I8, event: I8, start: int, every: int, book: Parts,
    ready: F8,
) -> int:  # fmt: skip
    """y (n,): 1 for an anomaly, 0, NaN = none. score (n,), NaN = none."""
    return _anomaly_book(y, asked, score, group, key, event, start, every, Book(*book), ready)


# -- ranking ---------------------------------------------------------------------------------------


@kernel
def ranked(up: F8, down: F8) -> tuple[float, float]:
    """ROC AUC (ties count a half) and average precision.

    up, down: scores of the positives and of the negatives, ascending, none empty.
    """
    p, n = up.shape[0], down.shape[0]
    pairs, precisions = 0.0, 0.0
    below, upto, first = 0, 0, 0
    for i in range(p):
        if i == 0 or up[i] != up[i - 1]:
            first = i
            below = upto
            while below < n and down[below] < up[i]:
                below += 1
            upto = below
            while upto < n and down[upto] == up[i]:
                upto += 1
        pairs += 0.5 * (below + upto)
        precisions += (p - first) / (p - first + n - below)
    return pairs / p / n, precisions / p
