"""What each task measures the model against, and how its rows become records.

A contest hears what the model and both baselines say at each row, before its label is learnt. What
it has heard is a set of columns that can wait in a log until the label comes.
"""

from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import B1, F8, I8, U1, Block, Columns, Vocabulary
from streamlearn.booking import Booking, Layout
from streamlearn.contracts import State
from streamlearn.jit import metrics as jit
from streamlearn.metric_readers import MAX_RANKED, class_ranking, ranking
from streamlearn.operators import _checks

MAX_CLASSES = 1 << 20
SCORES = MAX_RANKED  # columns of probabilities in the ring

_NO_GROUPS: I8 = np.zeros(0, dtype=np.int64)
_NO_ASKED: U1 = np.zeros(0, dtype=np.uint8)
_NO_RECORDS: F8 = np.zeros((0, 1))


class Rows:
    """Rows to be booked. y: labels. asked (n,) uint8. group, key (n,) or (0,). event (n,)."""

    __slots__ = ("asked", "event", "group", "heard", "key", "y")

    def __init__(self, y: F8, asked: U1, heard: Columns, event: I8, group: I8, key: I8) -> None:
        self.y, self.asked, self.heard = y, asked, heard
        self.event, self.group, self.key = event, group, key


class Contest:
    """What all tasks share. `labels`: the class table, kept up to date by the evaluation."""

    layout: Layout
    ranked: ClassVar[bool] = False
    _arrays: ClassVar[tuple[str, ...]] = ()
    _nothing: ClassVar[Columns] = {"prediction": np.zeros(0), "score": np.zeros(0)}

    def __init__(self, season: int, level: float, positive: Any) -> None:
        self.season, self.level, self.positive = season, level, positive
        self.labels: Vocabulary | None = None

    def targets(self, block: Block) -> F8:
        """The labels (n,) of a block."""
        if block.y.ndim != 1:
            raise ValueError(f"Evaluation: y must have shape (n,), got {block.y.shape!r}")
        return plain_array(block.y)

    def hear(self, y: F8, outputs: Columns, logging: bool) -> Columns:
        """What the model says, and the baselines, at each row; these learn the labels."""
        raise NotImplementedError

    def recalled(self, y: F8, heard: Columns, rows: B1) -> None:
        """Complete what was logged by what only the label tells."""

    def make_room(self, booking: Booking, heard: Columns) -> None:
        """Widen a booking for what was heard."""

    def book(self, rows: Rows, start: int, booking: Booking) -> int:
        """Book rows from start; see jit/metrics.py."""
        return self._book(rows, start, booking.every, booking.book, _NO_RECORDS)

    def add(self, records: F8, book: jit.Book) -> None:
        """Add records that are there already to a book."""
        if records.shape[0]:
            heard = self.hear(self._no_y, self._nothing, False)
            rows = Rows(self._no_y, _NO_ASKED, heard, _NO_GROUPS, _NO_GROUPS, _NO_GROUPS)
            self._book(rows, 0, 0, book, records)

    def _book(self, rows: Rows, start: int, every: int, book: jit.Book, ready: F8) -> int:
        """The kernel of the task."""
        raise NotImplementedError

    @property
    def _no_y(self) -> F8:
        """Labels of no rows."""
        return np.zeros(0)

    def rank(self, truth: F8, scores: F8, known: int) -> tuple[float, float]:
        """ROC AUC and average precision of records, when so many classes were booked."""
        raise NotImplementedError

    @property
    def known(self) -> int:
        """Classes met so far."""
        return 0

    def state(self) -> State:
        """What the baselines have learnt, as copies."""
        return State({name: getattr(self, name).copy() for name in self._arrays}, {})

    def load(self, state: State) -> None:
        """Take over what `state` gave."""
        for name in self._arrays:
            setattr(self, name, np.array(state.arrays[name]))


class Classification(Contest):
    """Classes; no-change says the last label, majority the most frequent one so far."""

    layout = Layout(jit.N_CLASSIFICATION, jit.CLASSIFICATION_ROW, jit.Y, tables=True)
    ranked = True
    _arrays = ("counts", "memory")

    def __init__(self, season: int, level: float, positive: Any) -> None:
        super().__init__(season, level, positive)
        self.counts: F8 = np.zeros(2)
        self.memory: F8 = np.zeros(jit.N_MEMORY)
        self.memory[jit.LAST] = np.nan

    def hear(self, y: F8, outputs: Columns, logging: bool) -> Columns:
        """What the model says, and what the baselines know, at each row."""
        prediction = plain_array(outputs["prediction"])
        n = y.shape[0]
        proba = plain_array(outputs["proba"]) if "proba" in outputs else np.empty((n, 0))
        said, shares = np.empty((n, jit.COUNT + 1)), np.empty((n, 0))
        if logging:
            shares = np.empty((n, self.counts.shape[0]))
        top = jit.classification_say(y, prediction, self.counts, self.memory, said, shares)
        if top >= self.counts.shape[0]:
            self._widen(top)
            return self.hear(y, outputs, logging)
        sets = plain_array(outputs["set"]) if "set" in outputs else np.empty((n, 0))
        heard: Columns = {"prediction": prediction, "proba": proba, "said": said}
        heard["set_proba"] = sets  # waits as probabilities do: 0 for what came later
        return heard | {"shares_proba": shares} if logging else heard

    def _widen(self, top: float) -> None:
        """Make room for a class code; the table doubles."""
        if top >= MAX_CLASSES:
            raise ValueError(
                f"Evaluation: y must be class codes below {MAX_CLASSES}, got {top:g}; "
                f'use task="regression" for a number'
            )
        room = max(int(top) + 1, 2 * self.counts.shape[0])
        self.counts = _checks.padded(self.counts, (room,))

    def recalled(self, y: F8, heard: Columns, rows: B1) -> None:
        """The count of the class that the label turned out to be."""
        at = np.flatnonzero(rows & (y >= 0.0) & (y < heard["shares_proba"].shape[1]))
        heard["said"][rows, jit.COUNT] = 0.0
        heard["said"][at, jit.COUNT] = heard["shares_proba"][at, y[at].astype(np.int64)]

    def make_room(self, booking: Booking, heard: Columns) -> None:
        """Room for the classes and the scores."""
        if self.known > booking.room:
            booking.make_room(classes=self.known)
        wide = min(heard["proba"].shape[1], SCORES)
        if wide > booking.book.scores.shape[1]:
            booking.make_room(scores=wide)

    def _book(self, rows: Rows, start: int, every: int, book: jit.Book, ready: F8) -> int:
        heard = rows.heard
        return jit.classification_book(
            rows.y, rows.asked, heard["prediction"], heard["proba"], heard["set_proba"],
            heard["said"], rows.group, rows.key, rows.event, start, every, tuple(book), ready,
        )  # fmt: skip

    def rank(self, truth: F8, scores: F8, known: int) -> tuple[float, float]:
        """Of the positive class where there are two, else the macro average.

        Classes count from the row at which one was booked, as label or as prediction: the baselines
        have seen the whole block already.
        """
        if known < 2 or known > SCORES:
            return np.nan, np.nan
        if scores.shape[1] < known:  # how wide a ring is depends on the blocks
            scores = _checks.padded(scores, (scores.shape[0], known))
        return class_ranking(truth, scores[:, :known], self._positive(known))

    def _positive(self, known: int) -> int | None:
        """Code of the positive class; the later of two in sort order, None for more."""
        names = list(range(known)) if self.labels is None else list(self.labels.values)
        if self.positive is not None:
            return names.index(self.positive) if self.positive in names else SCORES
        if known > 2:
            return None
        try:
            return int(names[0] < names[1])
        except (TypeError, IndexError):
            return int(str(names[0]) < str(names[-1]))

    @property
    def known(self) -> int:
        """Classes met so far."""
        return int(self.memory[jit.WIDEST])

    def state(self) -> State:
        """The counts of the classes met so far; beyond them there is only room."""
        whole = super().state()
        return State(whole.arrays | {"counts": whole.arrays["counts"][: self.known]}, {})

    def load(self, state: State) -> None:
        """Take over what `state` gave."""
        super().load(state)
        if self.counts.shape[0] < 2:
            self.counts = _checks.padded(self.counts, (2,))


class Regression(Contest):
    """Targets; no-change says the last one, mean the mean so far, and the season one before."""

    layout = Layout(jit.N_REGRESSION, jit.REGRESSION_ROW, moments=True)
    _arrays = ("seasons", "memory")

    def __init__(self, season: int, level: float, positive: Any) -> None:
        super().__init__(season, level, positive)
        self.seasons: F8 = np.full(season, np.nan)
        self.memory: F8 = np.zeros(jit.N_MEMORY)
        self.memory[jit.LAST] = np.nan
        self._tau = (1.0 - level) / 2.0
        self._z = NormalDist().inv_cdf(1.0 - self._tau)

    def hear(self, y: F8, outputs: Columns, logging: bool) -> Columns:
        """What the model says, and what the baselines know, at each row."""
        prediction = plain_array(outputs["prediction"])
        low, high = self._interval(prediction, outputs)
        said = np.empty((y.shape[0], 3))
        jit.regression_say(y, self.seasons, self.memory, said)
        return {"prediction": prediction, "low": low, "high": high, "said": said}

    def _interval(self, prediction: F8, outputs: Columns) -> tuple[F8, F8]:
        """Ends of the interval: given, or of a normal distribution with the variance given."""
        if "lower" in outputs and "upper" in outputs:
            return plain_array(outputs["lower"]), plain_array(outputs["upper"])
        if "variance" in outputs:
            with np.errstate(invalid="ignore"):
                off = self._z * np.sqrt(plain_array(outputs["variance"]))
            return prediction - off, prediction + off
        none = np.full(prediction.shape[0], np.nan)
        return none, none

    def _book(self, rows: Rows, start: int, every: int, book: jit.Book, ready: F8) -> int:
        heard = rows.heard
        return jit.regression_book(
            rows.y, rows.asked, heard["prediction"], heard["low"], heard["high"], self._tau,
            heard["said"], rows.group, rows.key, rows.event, start, tuple(book), ready,
        )  # fmt: skip


class Multilabel(Contest):
    """Several labels of 0 or 1 a row; no-change says the last row's, majority each label's own."""

    _arrays = ("last", "ones", "seen")

    def __init__(self, season: int, level: float, positive: Any) -> None:
        super().__init__(season, level, positive)
        self.last: F8 = np.zeros(0)
        self.ones: F8 = np.zeros(0)
        self.seen: F8 = np.zeros(1)

    @property
    def layout(self) -> Layout:  # type: ignore[override]
        """Terms by label."""
        terms = jit.PER_LABEL + 3 * self.last.shape[0]
        return Layout(terms, 3 * terms + 1)

    @property
    def _no_y(self) -> F8:
        return np.zeros((0, self.last.shape[0]))

    @property
    def _nothing(self) -> Columns:  # type: ignore[override]
        return {"prediction": self._no_y}

    def targets(self, block: Block) -> F8:
        """The labels, checked."""
        if block.y.ndim != 2:
            raise ValueError(f"Evaluation: y must have shape (n, q), got {block.y.shape!r}")
        q = block.y.shape[1]
        if not self.last.shape[0]:
            self.last, self.ones = np.full(q, np.nan), np.zeros(q)
        elif self.last.shape[0] != q:
            raise ValueError(
                f"Evaluation: y must have {self.last.shape[0]} labels as before, got {q}"
            )
        return plain_array(block.y)

    def hear(self, y: F8, outputs: Columns, logging: bool) -> Columns:
        """What the model says, and what the baselines know, at each row."""
        n = y.shape[0]
        labelled: B1 = np.asarray(np.isfinite(y).all(axis=1))
        marks = np.where(labelled[:, None], y > 0.5, 0.0)
        total, times = self.ones + marks.cumsum(axis=0), self.seen + labelled.cumsum()
        with np.errstate(invalid="ignore"):
            frequency = (total - marks) / (times - labelled)[:, None]
        rows = np.maximum.accumulate(np.where(labelled, np.arange(n), -1))
        known = np.concatenate([self.last[None], marks])  # row t is known as t + 1
        last = known[np.concatenate([[0], rows[:-1] + 1])] if n else known[:0]
        if n:
            self.last, self.ones, self.seen = (
                known[rows[-1] + 1],
                total[-1].copy(),
                times[-1:] * 1.0,
            )
        prediction = plain_array(outputs["prediction"])
        if prediction.shape != y.shape:
            raise ValueError(
                f"Evaluation: prediction must have shape {y.shape!r}, got {prediction.shape!r}"
            )
        proba = plain_array(outputs["proba"]) if "proba" in outputs else np.zeros((n, 0))
        if "proba" in outputs and proba.shape != y.shape:
            raise ValueError(f"Evaluation: proba must have shape {y.shape!r}, got {proba.shape!r}")
        return {"prediction": prediction, "proba": proba, "last": last, "frequency": frequency}

    def _book(self, rows: Rows, start: int, every: int, book: jit.Book, ready: F8) -> int:
        heard = rows.heard
        return jit.multilabel_book(
            rows.y, rows.asked, heard["prediction"], heard["proba"], heard["last"],
            heard["frequency"], rows.group, rows.key, rows.event, start, tuple(book), ready,
        )  # fmt: skip


class Anomaly(Contest):
    """Anomaly or not; a score, larger for what is stranger."""

    layout = Layout(jit.N_ANOMALY, jit.ANOMALY_ROW, jit.TRUTH)
    ranked = True

    def targets(self, block: Block) -> F8:
        """The labels, checked."""
        y = super().targets(block)
        if block.labels is None:
            return np.where(np.isfinite(y), (y > 0.0) * 1.0, np.nan)
        table = np.array([self._is_anomaly(value) for value in block.labels.values] or [0.0])
        there = np.isfinite(y)
        return np.where(there, table[np.where(there, y, 0.0).astype(np.int64)], np.nan)

    def _is_anomaly(self, value: Any) -> float:
        if self.positive is not None:
            return float(value == self.positive)
        if isinstance(value, str):
            raise ValueError(
                f"Evaluation: positive must be the label of an anomaly where labels are text, "
                f"got the label {value!r}; say positive"
            )
        return float(bool(value))

    def hear(self, y: F8, outputs: Columns, logging: bool) -> Columns:
        """What the model says, and what the baselines know, at each row."""
        return {"score": plain_array(outputs["score"])}

    def make_room(self, booking: Booking, heard: Columns) -> None:
        """Room for the classes and the scores."""
        booking.make_room(scores=1)

    def _book(self, rows: Rows, start: int, every: int, book: jit.Book, ready: F8) -> int:
        return jit.anomaly_book(
            rows.y, rows.asked, rows.heard["score"], rows.group, rows.key, rows.event, start,
            every, tuple(book), ready,
        )  # fmt: skip

    def rank(self, truth: F8, scores: F8, known: int) -> tuple[float, float]:
        """ROC AUC and average precision."""
        return ranking(scores[truth > 0.0, 0], scores[truth == 0.0, 0])


CONTESTS: dict[str, type[Contest]] = {
    "classification": Classification,
    "regression": Regression,
    "multilabel": Multilabel,
    "anomaly": Anomaly,
}


def plain_array(array: Any) -> F8:
    """The array as the kernels take it: float64, contiguous, writeable; copied if it is not so."""
    if array.dtype == np.float64 and array.flags.carray:
        return array  # type: ignore[no-any-return]
    return np.array(array, dtype=np.float64, order="C")
