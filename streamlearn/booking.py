"""The sums of one booking of a stream's scored rows: cumulative by bins, fading, the last rows."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from streamlearn.block import F8, I8
from streamlearn.contracts import State
from streamlearn.jit import metrics as jit
from streamlearn.metric_readers import View
from streamlearn.operators import _checks

BINS = 512  # of the curve
CURVE_CLASSES = 8  # with more classes the bins of the curve keep no class table
CONFUSED = 64  # most classes of the confusion matrix
SAMPLE = 1000  # rows booked between samples of the ranking metrics


class Layout(NamedTuple):
    """What a task keeps. terms: of each contestant; row: length of a record; scores: of a row.

    truth: column of a record that holds the label, for the ranking metrics; -1 = none.
    """

    terms: int
    row: int
    truth: int = -1
    moments: bool = False
    tables: bool = False


Window = Callable[[F8, jit.Book], None]  # adds records to a book
# (labels, scores, classes booked so far) -> ROC AUC, average precision
Rank = Callable[[F8, F8, int], tuple[float, float]]


class Booking:
    """All sums of one way to book: by the order of labels, or by the order of events.

    The curve has at most 512 bins of equal width in events; when an event is beyond the last, bins
    are merged in pairs. All bins together are the cumulative sums. `samples` (2, 2, 2) holds the
    ranking metrics at every 1,000th row, summed plainly and fading: metric, (sum, weight);
    `curve_samples` (512, 2, 2) by bin.

    Args:
        layout: what the task keeps.
        window: rows of the ring.
        fading: factor f of the fading sums.
        add: kernel that adds records to a book.
    """

    def __init__(self, layout: Layout, window: int, fading: float, add: Window) -> None:
        self.layout, self.window, self.fading, self._add = layout, window, fading, add
        # the unit stays below 1e100, whatever the factor
        renewal = 1024 if fading == 1.0 else int(-230.0 / math.log(fading))
        self._powers: F8 = np.power(1.0 / fading, np.arange(float(min(max(renewal, 1), 1024))))
        self.samples, self.curve_samples = np.zeros((2, 2, 2)), np.zeros((BINS, 2, 2))
        self.room, self.groups = 2 if layout.tables else 0, 0
        self.book = self._fresh(BINS)._replace(
            rows=np.zeros((window + 1, layout.row)),
            scores=np.zeros((window + 1, 0)),
            keys=np.zeros(window, dtype=np.int64),
            order=np.arange(window, dtype=np.int64),
        )

    def _fresh(self, bins: int) -> jit.Book:
        """A book in which nothing stands, as wide as this one, without a ring."""
        n, slots, k = 3 * self.layout.terms, 1 + 2 * self.groups, self.room
        class_bins = bins if k <= CURVE_CLASSES else min(bins, 1)
        trust_bins, trust = min(bins, 1), jit.N_BINS if self.layout.tables else 0
        return jit.Book(
            sums=np.zeros((bins + slots, n)),
            classes=np.zeros((class_bins + slots, 3, k, 3)),
            trust=np.zeros((trust_bins + slots, trust, 3)),
            confusion=np.zeros((min(k, CONFUSED),) * 2),
            rows=np.zeros((1, self.layout.row)),
            scores=np.zeros((1, 0)),
            keys=np.zeros(0, dtype=np.int64),
            order=np.zeros(0, dtype=np.int64),
            counters=np.zeros(jit.N_COUNTERS, dtype=np.int64),
            origin=np.full(1, np.nan),
            powers=self._powers,
            growth=1.0 / self.fading,
            bins=bins,
            class_bins=class_bins,
            trust_bins=trust_bins,
        )

    # -- growing -----------------------------------------------------------------------------------

    def make_room(self, classes: int = 0, groups: int = 0, scores: int = 0) -> None:
        """Widen the tables to at least so many; what is new is 0."""
        book = self.book
        if classes > self.room:
            few = (
                classes <= CURVE_CLASSES
            )  # the curve must fold at a number of classes, not of room
            self.room = CURVE_CLASSES if few else max(classes, 2 * self.room)
        if groups > self.groups:
            self.groups = max(groups, 2 * self.groups)
        k, slots = self.room, 1 + 2 * self.groups
        tables, class_bins = book.classes, book.class_bins
        if k > CURVE_CLASSES and class_bins > 1:
            together = tables[:class_bins].sum(axis=0, keepdims=True)
            tables, class_bins = np.concatenate([together, tables[class_bins:]]), 1
        held = book.scores
        if scores > held.shape[1]:
            held = _checks.padded(held, (held.shape[0], scores), 0.0 if held.shape[1] else np.nan)
        self.book = book._replace(
            sums=_checks.padded(book.sums, (book.bins + slots, book.sums.shape[1])),
            classes=_checks.padded(tables, (class_bins + slots, 3, k, 3)),
            trust=_checks.padded(book.trust, (book.trust_bins + slots, *book.trust.shape[1:])),
            confusion=_checks.padded(book.confusion, (min(k, CONFUSED),) * 2),
            scores=held,
            class_bins=class_bins,
        )

    def fold(self) -> None:
        """Merge the bins of the curve in pairs."""
        book = self.book
        curve = book.sums[:BINS].reshape(BINS, 3, -1)
        curve[:] = _paired(curve, self.layout.moments)
        if book.class_bins > 1:
            book.classes[:BINS] = _paired(book.classes[:BINS], False)
        self.curve_samples[:] = _paired(self.curve_samples, False)
        book.counters[jit.SHIFT] += 1

    def sample(self, event: int, rank: Rank) -> None:
        """Take the ranking metrics of the ring into their means; due every `SAMPLE` rows."""
        self.samples[1] *= self.fading**SAMPLE
        taken = np.zeros((2, 2))
        for metric, value in enumerate(self.ranks(rank)):
            if value == value:
                taken[metric] = value, 1.0
        self.samples += taken
        self.curve_samples[event >> int(self.book.counters[jit.SHIFT])] += taken

    def ranks(self, rank: Rank, group: int | None = None) -> tuple[float, float]:
        """ROC AUC and average precision of the records in the ring, or of those of a group."""
        if self.layout.truth < 0 or self.book.scores.shape[1] == 0:
            return math.nan, math.nan
        held, known = (int(self.book.counters[i]) for i in (jit.HELD, jit.KNOWN))
        rows, scores = self.book.rows[:held], self.book.scores[:held]
        taken = scores[:, 0] == scores[:, 0]
        if group is not None:
            taken &= rows[:, -1] == group
        if taken.all():
            return rank(rows[:, self.layout.truth], scores, known)
        return rank(rows[taken, self.layout.truth], scores[taken], known)

    # -- reading -----------------------------------------------------------------------------------

    @property
    def every(self) -> int:
        """Rows between samples of the ranking metrics; 0 where there is nothing to rank."""
        return SAMPLE if self.layout.truth >= 0 and self.book.scores.shape[1] else 0

    @property
    def booked(self) -> int:
        """Rows that were booked."""
        return int(self.book.counters[jit.BOOKED])

    def cumulative(self, rank: Rank) -> View:
        """All rows; where no sample of the ranking metrics was taken yet, they are the ring's."""
        book, ranks = self.book, _means(self.samples[0])
        sums = _summed(book.sums[:BINS].reshape(BINS, 3, -1), self.layout.moments)
        if self.booked < SAMPLE:
            ranks = np.array(self.ranks(rank))
        return View(sums, book.classes[: book.class_bins].sum(axis=0), book.trust[0], ranks)

    def fading_view(self, rank: Rank) -> View:
        """The fading sums."""
        ranks = _means(self.samples[1])
        if self.booked < SAMPLE:
            ranks = np.array(self.ranks(rank))
        return self._view(self.book, 0, ranks)

    @staticmethod
    def _view(book: jit.Book, slot: int, ranks: F8) -> View:
        """The sums of a slot: 0 fading, then unfaded and fading by group."""
        sums = book.sums[book.bins + slot].reshape(3, -1)
        trust = book.trust[book.trust_bins + slot]
        return View(sums, book.classes[book.class_bins + slot], trust, ranks)

    def windowed(self, rank: Rank | None = None) -> tuple[View, Callable[[int], View]]:
        """The records of the ring, anew: of all, and by group. Nothing that could drift.

        Without `rank` the ranking metrics are left out.
        """
        scratch, none = self._fresh(0), np.full(2, np.nan)
        records = self._ring()[0]
        if records.shape[0]:
            scratch.origin[0] = records[0, jit.Y]
        self._add(records, scratch)

        def view(slot: int, group: int | None) -> View:
            ranks = none if rank is None else np.array(self.ranks(rank, group))
            return self._view(scratch, slot, ranks)

        return view(0, None), lambda group: view(1 + 2 * group, group)

    def group(self, g: int, fading: bool) -> View:
        """The sums of a group; the ranking metrics of a group are windowed only."""
        return self._view(self.book, 1 + 2 * g + int(fading), np.full(2, np.nan))

    def bins(self, events: int) -> tuple[I8, View]:
        """The curve after so many events: the last event of each bin, and the sums of all bins."""
        n, shift = self._used(events), int(self.book.counters[jit.SHIFT])
        last = np.minimum(((np.arange(n) + 1) << shift) - 1, events - 1)
        return last, View(
            self.book.sums[:n].reshape(n, 3, self.layout.terms),
            self.book.classes[:n] if self.book.class_bins > 1 else None,
            None,
            _means(self.curve_samples[:n]),
        )

    def _used(self, events: int) -> int:
        """Bins that hold something, or may."""
        return min(BINS, ((events - 1) >> int(self.book.counters[jit.SHIFT])) + 1) if events else 0

    def _ring(self) -> tuple[F8, F8, I8]:
        """Rows, scores and keys of the ring, in the order of the keys, as copies."""
        held, head = (int(self.book.counters[i]) for i in (jit.HELD, jit.HEAD))
        at = self.book.order[(head + np.arange(held)) % self.window]
        return self.book.rows[at], self.book.scores[at], self.book.keys[at]

    def residuals(self) -> list[float]:
        """Label minus answer of the rows of the ring, the oldest first; of numbers alone."""
        records = self._ring()[0]
        left: list[float] = (records[:, jit.Y] - records[:, jit.SAID + jit.MODEL]).tolist()
        return left

    # -- state -------------------------------------------------------------------------------------

    def state(self, events: int, classes: int, groups: int) -> State:
        """Copies of all that stands in the book, as far as the stream has filled it."""
        book, bins, slots = self.book, self._used(events), 1 + 2 * groups
        rows, scores, keys = self._ring()
        counters = book.counters.copy()
        counters[jit.HEAD] = 0  # the ring is saved in order
        first, second = book.class_bins, book.trust_bins
        arrays = {
            "curve": book.sums[:bins],
            "curve_classes": book.classes[: min(bins, first), :, :classes],
            "curve_trust": book.trust[:second],
            "curve_samples": self.curve_samples[:bins],
            "samples": self.samples,
            "sums": book.sums[BINS : BINS + slots],
            "classes": book.classes[first : first + slots, :, :classes],
            "trust": book.trust[second : second + slots],
            "confusion": book.confusion[:classes, :classes],
            "rows": rows,
            "scores": scores[:, : _told(scores)],
            "keys": keys,
            "counters": counters,
            "origin": book.origin,
        }
        return State({name: array.copy() for name, array in arrays.items()}, {})

    def load(self, state: State) -> None:
        """Take over what `state` gave, into a fresh booking."""
        a = state.arrays
        if a["rows"].shape[1] != self.layout.row:
            raise ValueError(
                f"Evaluation: a record must have {self.layout.row} numbers, got "
                f"{a['rows'].shape[1]}, of another version of streamlearn; begin the run anew"
            )
        groups = (a["sums"].shape[0] - 1) // 2
        self.make_room(a["classes"].shape[2], groups, a["scores"].shape[1])
        book = self.book
        places = {
            "curve": book.sums[:BINS],
            "curve_classes": book.classes[: book.class_bins],
            "curve_trust": book.trust[: book.trust_bins],
            "sums": book.sums[BINS:],
            "classes": book.classes[book.class_bins :],
            "trust": book.trust[book.trust_bins :],
            "curve_samples": self.curve_samples,
            "samples": self.samples,
        }
        for name, array in a.items():
            own = places[name] if name in places else getattr(book, name)
            own[tuple(slice(0, n) for n in array.shape)] = array


def _told(scores: F8) -> int:
    """Columns up to the last that says something: how wide a ring is depends on the blocks."""
    columns = np.flatnonzero((scores != 0.0).any(axis=0))
    return int(columns[-1]) + 1 if columns.size else min(scores.shape[1], 1)


def _means(samples: F8) -> F8:
    """Means (…, 2) of sums and weights (…, 2, 2)."""
    with np.errstate(invalid="ignore"):
        return np.asarray(samples[..., 0] / np.where(samples[..., 1] > 0.0, samples[..., 1], 0.0))


def _summed(table: F8, moments: bool) -> F8:
    """Sums (3, T) over the bins of a table (n, 3, T); moments about the common mean (Chan 1983)."""
    with np.errstate(all="ignore"):  # of what has overflown before
        out: F8 = table.sum(axis=0)
        if moments:
            weight, mean = table[..., jit.WEIGHT], table[..., jit.MEAN]
            total = np.where(out[:, jit.WEIGHT] > 0.0, out[:, jit.WEIGHT], 1.0)
            out[:, jit.MEAN] = (weight * mean).sum(axis=0) / total
            out[:, jit.MOMENT] += (weight * (mean - out[:, jit.MEAN]) ** 2).sum(axis=0)
    return out


def _paired(table: F8, moments: bool) -> F8:
    """A table (n, …) whose first half are the sums of pairs of rows; the second half is 0."""
    n = table.shape[0] // 2
    pairs, out = table.reshape(n, 2, *table.shape[1:]), np.zeros_like(table)
    if moments:
        out[:n] = np.stack([_summed(pair, moments) for pair in pairs])
    else:
        out[:n] = pairs[:, 0] + pairs[:, 1]
    return out
