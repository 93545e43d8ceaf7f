"""What every operator has: the width check, state, and River's methods as blocks of one row.

A new operator subclasses one of the five families below, lists its fitted attributes in `_arrays`
and `_counters`, and writes `grow` and `_run`.
"""

import copy
import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from river import base

from streamlearn.block import (
    BOOLEAN,
    CATEGORY,
    F8,
    I8,
    NUMBER,
    PREDICT,
    U1,
    UNSCORED,
    Block,
    Columns,
    Features,
    Vocabulary,
)
from streamlearn.contracts import Finding, Json, Shelf, State
from streamlearn.operators import _checks, _findings

NO_FEATURES = Features(())
CLASSIFICATION, REGRESSION, ANOMALY = "classification", "regression", "anomaly"
Row = dict[Any, Any]  # one event: feature name -> value; a key that is not there is missing


def kind_of(value: Any) -> str:
    """The kind of column that a Python value opens when its name is seen for the first time."""
    if isinstance(value, (bool, np.bool_)):
        return BOOLEAN
    if value is None or isinstance(value, (int, float, np.integer, np.floating)):
        return NUMBER
    if isinstance(value, str):
        return CATEGORY
    raise TypeError(f"a feature must be a number, a boolean, a string or None, got {value!r}")


class Operator(base.Base):
    """The contract of design.md, section 3, and the machinery that all operators share.

    Class attributes to set: `_arrays` and `_counters` (names of the fitted attributes that are the
    whole state; counters are what JSON can hold), `needs_label` (learns from LEARN rows; otherwise
    from OBSERVE rows), `takes_nan` (NaN is missing, else it gets 0 in features that did not exist
    yet), `takes_categories`, `takes_sparse`, `cheap_snapshot` (a copy costs its arrays, no more),
    `recalls_input` (of what was logged when an event was scored, learning from a late label needs
    the features alone, which are known before the walk: as X is, or as `seen` gives them).
    `needs_pickle` is true of foreign stages alone.
    """

    _arrays: ClassVar[tuple[str, ...]] = ()
    _counters: ClassVar[tuple[str, ...]] = ()
    needs_label: bool = True
    takes_nan: bool = True
    takes_categories: bool = False
    takes_sparse: bool = False
    takes_keys: bool = False  # looks at `Block.keys`; streams of the conformance suite have some
    cheap_snapshot: bool = True
    recalls_input: bool = False  # then a block is not cut where a label meets its event
    needs_pickle: bool = False
    exact: bool = False  # what it learns twice it counts twice: nothing to gain from repetition
    task: str | None = None  # what a predictor predicts

    _features: Features = NO_FEATURES
    _labels: Vocabulary | None = None

    def __repr__(self) -> str:
        """The class and the arguments that differ from its defaults: what to type to get it."""
        shown = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = getattr(self, name)
            if repr(value) != repr(parameter.default):
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    @property
    def _names_of_state(self) -> tuple[str, ...]:
        """Names of the arrays that are state as things stand: `_arrays`, unless it depends."""
        return self._arrays

    # -- the block interface -----------------------------------------------------------------------

    def run(self, block: Block) -> Columns:
        """Walk a block row by row, answering and learning as `mode` says; NaN where not asked."""
        self._admit(block)
        return self._run(block)

    def _admit(self, block: Block) -> None:
        """Make room for what a block may show."""
        if block.features is not self._features:
            self.meet(block.features)
        if block.labels is not self._labels:
            self._meet_labels(block.labels)

    def _run(self, block: Block) -> Columns:
        """The operator's walk over a block that fits; one kernel call."""
        raise NotImplementedError(f"{type(self).__name__} has no _run")

    def grow(self, features: Features) -> None:
        """Make room for these features; those known before keep their columns."""

    def pieces(self, block: Block) -> Iterator[Block]:
        """The block, cut before each row that widens the output; a piece runs before the next."""
        yield block

    def may_widen(self, features: Features) -> bool:
        """Whether `pieces` may cut a block of these columns: never where it is not overridden."""
        return type(self).pieces is not Operator.pieces

    def seen(self, block: Block, rows: I8) -> F8:
        """What late labels of these scored rows (m,) teach on, (m, d): the `log:X` of the walk.

        Asked before the block is walked, of stages with `recalls_input`; changes nothing learnt.
        """
        seen: F8 = block.X[rows]
        return seen

    def output_features(self, features: Features) -> Features:
        """The columns of the output `X` of a transformer; the input's for all others."""
        return features

    def meet(self, features: Features) -> None:
        """Check that known columns kept their places and that the kinds are taken, then grow."""
        known = self._features.names
        if features.names[: len(known)] != known:
            raise ValueError(
                f"{type(self).__name__}: features must begin with those seen before, in their "
                f"order; got {list(features.names)!r} after {list(known)!r}"
            )
        if not self.takes_categories and features.some_category:
            name = features.names[features.kinds.index(CATEGORY)]
            raise ValueError(
                f"{type(self).__name__}: features must be numbers, got the category {name!r}; "
                f"put OneHotEncoder(), OrdinalEncoder() or HashEncoder() before it"
            )
        for name, table in self._features.categories.items():
            _check_prefix(
                type(self).__name__, f"categories of {name!r}", table, features.categories[name]
            )
        self.grow(features)
        self._features = features

    def _meet_labels(self, labels: Vocabulary | None) -> None:
        if labels is None:
            return
        if self._labels is not None:
            _check_prefix(type(self).__name__, "classes", self._labels, labels)
        self._labels = labels

    def load_kernels(self) -> None:
        """Load, on an operator to be thrown away, kernels that a walk does not reach at once."""

    # -- state -------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """A cheap copy of all that learning changes, for `restore` within this process."""
        taken: dict[str, Any] = {name: getattr(self, name).copy() for name in self._names_of_state}
        for name in self._counters:
            taken[name] = copy.copy(getattr(self, name))
        taken["_features"], taken["_labels"] = self._features, self._labels
        return taken

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        for name, value in snapshot.items():
            named = name in ("_features", "_labels")
            setattr(self, name, value if named else copy.copy(value))

    def state(self) -> State:
        """Everything needed to go on bit-identically, as copies: arrays and a JSON table.

        The parameters stand there too, so that `load` can tell whether it is the same operator;
        those of members stand in the members' states.
        """
        table: dict[str, Json] = {n: copy.deepcopy(getattr(self, n)) for n in self._counters}
        table["parameters"] = self._plain_parameters()
        table["features"] = self._features.to_json()
        table["labels"] = None if self._labels is None else list(self._labels.values)
        return State({name: getattr(self, name).copy() for name in self._names_of_state}, table)

    def load(self, state: State) -> None:
        """Take over a state that `state` gave; refused if the parameters were others."""
        _checks.unchanged(type(self).__name__, state.table["parameters"], self._plain_parameters())
        self._clear()
        self._features = Features.from_json(state.table["features"])
        labels = state.table["labels"]
        self._labels = None if labels is None else Vocabulary(labels)
        self.grow(self._features)
        for name in self._names_of_state:
            setattr(self, name, np.array(state.arrays[name]))
        for name in self._counters:
            setattr(self, name, copy.deepcopy(state.table[name]))

    def kept_state(self) -> State:
        """As `state`; a stage with a shelf may leave there what did not change since the last."""
        return self.state()

    def shelve(self, shelf: Shelf) -> None:
        """Keep there what memory has no room for; most stages have nothing such."""

    def _plain_parameters(self) -> dict[str, Json]:
        """Constructor arguments by name, but for members and whatever else JSON cannot hold."""
        given = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        as_json = {name: _as_json(value) for name, value in given.items()}
        return {name: value for name, value in as_json.items() if value is not _NO_JSON}

    def _clear(self) -> None:
        """The state before the first row, scratch and room included; nothing where none is kept."""

    def reset(self) -> None:
        """Forget everything learnt; the names of features and classes stay."""
        fresh = self.clone()
        fresh.meet(self._features)
        for name in (*self._names_of_state, *self._counters):
            setattr(self, name, getattr(fresh, name))

    @property
    def state_bytes(self) -> int:
        """Bytes of the arrays that make up the state."""
        return sum(getattr(self, name).nbytes for name in self._names_of_state)

    # -- dicts, as blocks of one row ---------------------------------------------------------------

    def _open_columns(self, x: Row) -> None:
        """Give every new name of x that has a value a column."""
        features = self._with_names_of(x)
        if features is not self._features:
            self.meet(features)

    def _with_names_of(self, x: Row) -> Features:
        """The features and, after them, the names of x that have a value and no column yet."""
        known = self._features
        fresh = [name for name, v in x.items() if known.index(name) < 0 and not _missing(v)]
        for name in fresh:
            if not isinstance(name, (str, int)):
                owner = type(self).__name__
                raise TypeError(f"{owner}: feature names must be str or int, got {name!r}")
        return known.plus(fresh, [kind_of(x[name]) for name in fresh]) if fresh else known

    def _row(self, x: Row) -> F8:
        """x as a (1, d) array: a missing key is NaN, an unknown one is left out."""
        row = np.full((1, len(self._features)), math.nan)
        for name, value in x.items():
            j = self._features.index(name)
            if j >= 0 and not _missing(value):
                row[0, j] = self._cell(j, name, value)
        return row

    def _cell(self, j: int, name: Any, value: Any) -> float:
        if self._features.kinds[j] == CATEGORY:
            return float(self._features.categories[name].code(value))
        if isinstance(value, str):
            raise ValueError(
                f"{type(self).__name__}: feature {name!r} must be a number, got {value!r}"
            )
        return float(value)

    def _block(self, x: Row, y: float, w: float, mode: int) -> Block:
        return Block(
            self._row(x), np.array([y]), np.array([w]), np.array([mode], dtype=np.uint8),
            self._features, self._labels,
        )  # fmt: skip

    def _target(self, y: Any) -> float:
        """A target as the number that stands for it in y; classifiers keep a class table."""
        if _missing(y):
            return math.nan
        if self.task != CLASSIFICATION:
            return float(y)
        if self._labels is None:
            self._labels = Vocabulary()
        return float(self._labels.code(y.item() if isinstance(y, np.generic) else y))

    def _label(self, code: int) -> Any:
        return code if self._labels is None else self._labels.values[code]

    def learn_one(self, x: Row, y: Any = None, w: float = 1.0) -> None:
        """Learn from one event, given as a dict; w is the weight of the sample, >= 0."""
        if not 0.0 <= w < math.inf:
            raise ValueError(f"{type(self).__name__}: w must be >= 0 and finite, got {w!r}")
        self._open_columns(x)
        target = self._target(y)
        self.run(self._block(x, target, w, UNSCORED))

    @contextmanager
    def _aware_of(self, x: Row) -> Iterator[None]:
        """Within, names and categories of x never learnt have a place; after, nothing is new."""
        features = self._with_names_of(x)
        unseen = {
            name: [x[name]]
            for name, table in features.categories.items()
            if not _missing(x.get(name)) and table.find(x[name]) < 0
        }
        if features is self._features and not unseen:
            yield
            return
        before = self.snapshot()
        try:
            self.meet(features.with_categories(unseen))
            yield
        finally:
            self.restore(before)

    def _answer(self, x: Row) -> Columns:
        return self.run(self._block(x, math.nan, 1.0, PREDICT))

    def _class_of(self, x: Row) -> Any:
        with self._aware_of(x):
            code = self._answer(x)["prediction"][0]
        return None if math.isnan(code) else self._label(int(code))

    def _probabilities_of(self, x: Row) -> dict[Any, float]:
        with self._aware_of(x):
            outputs = self._answer(x)
        if math.isnan(outputs["prediction"][0]):
            return {}
        return {self._label(k): float(p) for k, p in enumerate(outputs["proba"][0])}

    def _number_of(self, x: Row) -> float:
        with self._aware_of(x):
            value = float(self._answer(x)["prediction"][0])
        return 0.0 if math.isnan(value) else value

    def _features_of(self, x: Row) -> Row:
        with self._aware_of(x):
            row = self._answer(x)["X"][0]
            names = self.output_features(self._features).names
        return {name: float(v) for name, v in zip(names, row, strict=True) if not math.isnan(v)}


def _missing(value: Any) -> bool:
    """Whether a value of a dict is None or NaN, which says nothing, of a category or class too."""
    return value is None or value != value


_NO_JSON = object()


def _as_json(value: Any) -> Json:
    """The value as it comes back from JSON, or _NO_JSON."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (list, tuple)):
        members = [_as_json(member) for member in value]
        return _NO_JSON if _NO_JSON in members else members
    if isinstance(value, dict) and all(type(name) is str for name in value):
        members = [_as_json(member) for member in value.values()]
        return _NO_JSON if _NO_JSON in members else dict(zip(value, members, strict=True))
    return _NO_JSON


def _check_prefix(owner: str, what: str, old: Vocabulary, new: Vocabulary) -> None:
    """A table may only have grown since it was last seen."""
    if old is new:
        return
    shared = min(len(old), len(new))
    if old.values[:shared] != new.values[:shared]:
        raise ValueError(
            f"{owner}: {what} must keep the codes of {old.values!r}, got {new.values!r}; "
            f"read the data with the schema that the operator was trained with"
        )


class Classifier(Operator, base.Classifier):
    """A classifier: outputs `prediction` (n,), class codes, and `proba` (n, K).

    A class that was unknown at a row has probability 0 there.
    """

    task = CLASSIFICATION

    @property
    def _multiclass(self) -> bool:
        return True

    def predict_one(self, x: Row, **_: Any) -> Any:
        """The most probable class, or None before any class is known."""
        return self._class_of(x)

    def predict_proba_one(self, x: Row, **_: Any) -> dict[Any, float]:
        """Probability of each known class; empty before any class is known."""
        return self._probabilities_of(x)


class Regressor(Operator, base.Regressor):
    """A regressor: output `prediction` (n,), and `variance` (n,) where the model has one."""

    task = REGRESSION

    def predict_one(self, x: Row, **_: Any) -> float:
        """The predicted target; 0.0 before anything was learnt."""
        return self._number_of(x)


class Transformer(Operator, base.Transformer):
    """Features in, features out: output `X` (n, d_out), with statistics from before each row."""

    needs_label = False

    @property
    def _supervised(self) -> bool:
        """What River's pipelines ask: whether `learn_one` wants y."""
        return self.needs_label

    def _target(self, y: Any) -> float:
        """Numbers as they are; anything else by its code in the class table."""
        if y is None or (isinstance(y, (int, float)) and not isinstance(y, bool)):
            return super()._target(y)
        self._labels = Vocabulary() if self._labels is None else self._labels
        return float(self._labels.code(y))

    def learn_one(self, x: Row, y: Any = None, w: float = 1.0) -> None:
        """Learn from one event, given as a dict; without `needs_label`, y is not looked at."""
        super().learn_one(x, y if self.needs_label else None, w)

    def transform_one(self, x: Row) -> Row:
        """The transformed features of one event; a value that stays missing has no key."""
        return self._features_of(x)


if TYPE_CHECKING or hasattr(base, "AnomalyDetector"):
    _AnomalyDetector = base.AnomalyDetector
else:  # an older River has it in river.anomaly, which would bring all of River along at start-up
    _AnomalyDetector = base.Estimator


class Scorer(Operator, _AnomalyDetector):
    """An anomaly scorer: output `score` (n,), the higher the stranger, from before the row.

    It learns without labels; where there are some, they judge its scores.
    """

    task = ANOMALY
    needs_label = False

    def score_one(self, x: Row) -> float:
        """The anomaly score of one event."""
        return float(self._answer(x)["score"][0])


class Detector(Operator, base.DriftDetector):
    """A drift detector on one number an event: outputs `alarm` (n,) uint8, 1 where one was raised,
    and where one was, `why` (n,) object, the findings.

    As an operator it watches the first column of X on rows that LEARN or OBSERVE; a NaN is skipped.
    In a pipeline it watches what `watches` says of the predictor: its `error` (0/1, or absolute),
    its `loss` (log loss, or squared error), its `prediction` (which needs no label).
    """

    needs_label = False
    watches: str = "error"
    _drift_detected = False

    @property
    def _tags(self) -> set[str]:
        """No tags: River's checks read them, and its drift detectors have none."""
        return set()

    def first_alarm(self, values: F8) -> int:
        """Feed values in order up to and including the first that alarms; its index, or -1."""
        raise NotImplementedError(f"{type(self).__name__} has no first_alarm")

    def finding(self) -> Finding:
        """Why the last value fed raised an alarm; a subclass adds `statistic` and what it has."""
        return {"detector": type(self).__name__, "watches": self.watches}

    @property
    def standing(self) -> dict[str, Json]:
        """What it stands at now, for metrics and pages: numbers by name, `statistic` and `limit`
        among them where it has them. Read once a second; changes nothing.
        """
        return {}

    def _run(self, block: Block) -> Columns:
        if not block.d:
            owner = type(self).__name__
            raise ValueError(f"{owner}: features must be one column at least, got none")
        values = np.where(block.mode & UNSCORED != 0, block.X[:, 0], np.nan)
        return _findings.raised({}, block.n, self.alarms(values))

    def watch(self, values: F8) -> U1:
        """Feed all values (n,); 1 where an alarm was raised."""
        marks = np.zeros(values.shape[0], dtype=np.uint8)
        marks[[row for row, _ in self.alarms(values)]] = 1
        return marks

    def find(self, values: F8) -> _findings.Found:
        """Feed all values (n,); the findings, a column of n rows."""
        return _findings.column(values.shape[0], self.alarms(values))

    def alarms(self, values: F8) -> list[tuple[int, Finding]]:
        """Feed all values (n,); the rows that raised an alarm, each with its finding."""
        raised: list[tuple[int, Finding]] = []
        start = 0
        while (at := self.first_alarm(values[start:])) >= 0:
            raised.append((start + at, self.finding()))
            start += at + 1
        return raised

    def update(self, x: float) -> None:
        """Feed one value; `drift_detected` says whether this value raised an alarm."""
        self._drift_detected = self.first_alarm(np.array([x], dtype=np.float64)) >= 0
