"""The rows of a predictions file: `row`, the id, `prediction`, and `p_<class>` for classifiers.

Regressors that state intervals have `lower` and `upper` in place of the classes. Classifiers that
state sets have `set` after `prediction`: the classes inside, in the order of their columns.

Which classes have a column must not depend on how the stream was cut into blocks. So a class counts
as known from the row after the one that taught it, or from the first row that gives it a
probability; the classes that were known before the stream began count from the start.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import F8, I8, LEARN, OBSERVE, PREDICT, U1, Block, Columns, Vocabulary
from streamlearn.contracts import Answers

_EVENT = PREDICT | OBSERVE
_ENDS = ["lower", "upper"]
_ENOUGH = 1024  # rows that are written together


class Rows(NamedTuple):
    """Answered events. row: (n,) int64, the number of the event in the stream, from 0.

    ids: (n,) or None. prediction: (n,) float64, class codes or values; NaN: no answer was given.
    labels: what codes stand for; None for regression. proba: (n, K), 0 for a class unknown at that
    row, NaN where no answer was given; of a regressor with intervals (n, 2), both ends. known: (n,)
    int64, classes known at each row, at most K; None where all K are known at every row. sets:
    (n, C) uint8, 1 for a class inside the row's set, in which C differs by block; None where the
    model states no sets.
    """

    row: I8
    ids: NDArray[Any] | None
    prediction: F8
    labels: Sequence[Any] | None
    proba: F8
    known: I8 | None
    sets: U1 | None = None


class PredictionRows:
    """Turns answers into rows; counts the classes that have a column.

    labels: classes that are known before the first event.
    """

    def __init__(self, labels: Vocabulary | None) -> None:
        self.classes = 0 if labels is None else len(labels)

    def take(self, answers: Answers) -> Rows:
        """The rows of a block that were to be answered."""
        block, outputs, first = answers.block, answers.outputs, answers.first_row
        asked = (block.mode & PREDICT) != 0
        row = first + np.arange(block.n)
        if not asked.all():
            row = first + np.cumsum((block.mode & _EVENT) != 0) - 1
        scores = "prediction" not in outputs  # of anomalies: numbers, whatever the labels are
        labels = None if block.labels is None or scores else block.labels.values
        prediction = np.asarray(outputs["score" if scores else "prediction"], dtype=np.float64)
        proba, known = np.zeros((block.n, 0)), None
        if not scores:
            proba, known = self._probabilities(block, outputs, prediction)
        sets = None if labels is None else _sets(outputs)
        whole = Rows(row, block.ids, prediction, labels, proba, known, sets)
        return whole if asked.all() else _selected(whole, asked)

    def _probabilities(
        self, block: Block, outputs: Columns, prediction: F8
    ) -> tuple[F8, I8 | None]:
        """Probabilities of all classes known after this block, and how many each row knew."""
        if block.labels is None:
            return _ends(outputs, block.n), None
        given: F8 = outputs.get("proba", np.zeros((block.n, 0)))
        known = self._known(block, given)
        missing = np.isnan(prediction)
        if given.shape[1] == self.classes and known is None and not missing.any():
            return given, None
        proba = np.zeros((block.n, self.classes))
        shared = min(self.classes, given.shape[1])
        proba[:, :shared] = given[:, :shared]
        proba[missing] = np.nan  # whatever the operator left there: a row without an answer
        if known is not None:
            proba[np.arange(self.classes) >= known[:, None]] = 0.0
        return proba, known

    def _known(self, block: Block, proba: F8) -> I8 | None:
        """Classes known at each row; None if no class becomes known within the block."""
        before = self.classes
        taught = ((block.mode & LEARN) != 0) & (block.y >= before)
        beyond = np.nan_to_num(proba[:, before:]) != 0
        if not taught.any() and not beyond.any():
            return None
        known = np.full(block.n + 1, before, dtype=np.int64)
        known[1:][taught] = block.y[taught].astype(np.int64) + 1
        columns = np.arange(before + 1, before + 1 + beyond.shape[1])
        shown = np.max(beyond * columns, axis=1, initial=0)
        known[:-1] = np.maximum(known[:-1], shown)
        known = np.maximum.accumulate(known)
        self.classes = int(known[-1])
        return known[:-1]


def _ends(outputs: Columns, n: int) -> F8:
    """Both ends of the interval of each row, (n, 2); no column where the model states none."""
    if not all(name in outputs and outputs[name].ndim == 1 for name in _ENDS):
        return np.zeros((n, 0))
    ends: F8 = np.stack([outputs[name] for name in _ENDS], axis=1)
    return ends


def _sets(outputs: Columns) -> U1 | None:
    """The sets of a classifier, (n, C); None where it states none."""
    given = outputs.get("set")
    return None if given is None or given.ndim != 2 else (given != 0).astype(np.uint8)


def distinct_sets(rows: Rows) -> tuple[list[list[int]], I8]:
    """The sets that occur, as class codes, and which of them each row has; -1: no answer, no set.

    O(n C + n log n).
    """
    assert rows.sets is not None
    n = len(rows.row)
    packed = np.packbits(rows.sets, axis=1)
    if not packed.shape[1]:
        packed = np.zeros((n, 1), np.uint8)
    keys = np.ascontiguousarray(packed).view(f"V{packed.shape[1]}")[:, 0]
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    codes = [np.flatnonzero(rows.sets[at]).tolist() for at in first.tolist()]
    return codes, np.where(np.isnan(rows.prediction), -1, which.reshape(n))


def listed_sets(rows: Rows) -> list[list[Any] | None]:
    """The labels in the set of each row; None where there is no answer."""
    assert rows.labels is not None
    codes, which = distinct_sets(rows)
    named = [[rows.labels[k] for k in inside] for inside in codes]
    return [None if k < 0 else named[k] for k in which.tolist()]


class RowBuffer:
    """Puts the rows of small blocks together: Arrow costs as much for one row as for a hundred."""

    def __init__(self) -> None:
        self._held: list[Rows] = []
        self._n = 0

    def add(self, rows: Rows) -> Iterator[Rows]:
        """Take rows; give those that are to be written now, all of one width."""
        if not len(rows.row):
            return
        if self._held and self._held[0].proba.shape[1] != rows.proba.shape[1]:
            yield from self.rest()
        self._held.append(rows)
        self._n += len(rows.row)
        if self._n >= _ENOUGH:
            yield from self.rest()

    def rest(self) -> Iterator[Rows]:
        """All rows that wait."""
        held, self._held, self._n = self._held, [], 0
        if len(held) == 1:
            yield held[0]
        elif held:
            yield _together(held)


def _together(held: list[Rows]) -> Rows:
    """Consecutive rows of one width as one."""
    width = held[0].proba.shape[1]
    known = [np.full(len(r.row), width) if r.known is None else r.known for r in held]
    ids = [r.ids for r in held if r.ids is not None]
    return Rows(
        np.concatenate([r.row for r in held]),
        np.concatenate(ids) if ids else None,
        np.concatenate([r.prediction for r in held]),
        held[-1].labels,
        np.concatenate([r.proba for r in held]),
        None if all(r.known is None for r in held) else np.concatenate(known),
        _sets_together([r.sets for r in held if r.sets is not None]),
    )


def _sets_together(held: list[U1]) -> U1 | None:
    """Sets one after the other, as wide as the widest."""
    if not held:
        return None
    width = max(sets.shape[1] for sets in held)
    return np.concatenate([np.pad(s, ((0, 0), (0, width - s.shape[1]))) for s in held])


def _selected(rows: Rows, asked: NDArray[np.bool_]) -> Rows:
    return Rows(
        rows.row[asked],
        None if rows.ids is None else rows.ids[asked],
        rows.prediction[asked],
        rows.labels,
        rows.proba[asked],
        None if rows.known is None else rows.known[asked],
        None if rows.sets is None else rows.sets[asked],
    )


def class_runs(rows: Rows) -> Iterator[tuple[int, int, int]]:
    """Runs of rows that know the same number of classes: start, stop, classes."""
    n = len(rows.row)
    if rows.known is None:
        if n:
            yield 0, n, rows.proba.shape[1]
        return
    cuts = [0, *(np.flatnonzero(np.diff(rows.known)) + 1).tolist(), n]
    for start, stop in itertools.pairwise(cuts):
        if stop > start:
            yield start, stop, int(rows.known[start])


def class_columns(labels: Sequence[Any], stop: int, start: int = 0) -> list[str]:
    """Names of the probability columns of classes start to stop; without classes of the ends."""
    return [f"p_{label}" for label in labels[start:stop]] if labels else _ENDS[start:stop]


def id_column(name: str | None) -> str:
    """The column of ids; a name that another column has, or could have, is not used for it."""
    taken = name is None or name in ("row", "prediction", "set", *_ENDS) or name.startswith("p_")
    return "id" if taken else str(name)
