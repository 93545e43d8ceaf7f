"""Estimators of River and scikit-learn as stages: they run row by row, in Python.

`as_stage` wraps what stands in a pipeline. A row costs what the estimator itself takes,
microseconds to milliseconds, and not the nanoseconds of a compiled operator; the block law holds
all the same, for the estimator never sees more than one row at a time. Its state is a pickle: it is
saved and read back only where pickles are allowed (`needs_pickle`).
"""

import copy
import importlib
import inspect
import math
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from river import base

from streamlearn.block import (
    BOOLEAN,
    CATEGORY,
    F8,
    LEARN,
    OBSERVE,
    PREDICT,
    SCORED,
    Block,
    Columns,
    Features,
    Vocabulary,
)
from streamlearn.contracts import State
from streamlearn.operators._base import (
    NO_FEATURES,
    Classifier,
    Detector,
    Operator,
    Regressor,
    Row,
    Scorer,
    Transformer,
    kind_of,
)


def as_stage(estimator: Any) -> Operator:
    """The estimator as a stage of a pipeline; operators are returned as they are.

    Args:
        estimator: an operator, a River classifier, regressor, transformer, anomaly detector or
            drift detector (River pipelines too), or a scikit-learn estimator with `partial_fit`.
    Raises: TypeError for anything else; ValueError for a scikit-learn classifier that was not told
        its classes: `SklearnClassifier(estimator, classes=[…])`.
    """
    if isinstance(estimator, Operator):
        return estimator
    if isinstance(estimator, type):
        name = estimator.__name__
        raise TypeError(f"a stage must be an object, got the class {name}; write {name}()")
    final = getattr(estimator, "_last_step", estimator)  # a River pipeline is what its end is
    found = _river_stage(final) if isinstance(final, base.Base) else _sklearn_stage(final)
    if found is None:
        raise TypeError(
            "a stage must be an operator, a River classifier, regressor, transformer, anomaly or "
            "drift detector, or a scikit-learn estimator with partial_fit; "
            f"got {type(estimator).__name__}"
        )
    stage: Operator = found(estimator)
    return stage


def _river_stage(final: base.Base) -> type[Any] | None:
    if isinstance(final, base.Classifier):
        return RiverClassifier
    if isinstance(final, base.Regressor):
        return RiverRegressor
    if hasattr(final, "score_one"):
        return RiverScorer
    if hasattr(final, "transform_one"):
        return RiverTransformer
    return RiverDetector if hasattr(final, "drift_detected") else None


def _sklearn_stage(final: Any) -> type[Any] | None:
    if not hasattr(final, "partial_fit"):
        return None
    sklearn = importlib.import_module("sklearn.base")
    if sklearn.is_classifier(final):
        return SklearnClassifier
    if sklearn.is_regressor(final):
        return SklearnRegressor
    return SklearnTransformer if hasattr(final, "transform") else None


class _Foreign(Operator):
    """What all share: the walk row by row, and the estimator's state as a pickle.

    `estimator` stays as it was given; `model_` is the copy of it that learns.
    """

    _counters: ClassVar[tuple[str, ...]] = ("n_rejected",)
    cheap_snapshot = False
    needs_pickle = True

    estimator: Any
    _deep: ClassVar[tuple[str, ...]] = ("model_",)  # what learning changes inside, at any depth

    def _begin(self) -> None:
        """Nothing learnt yet."""
        self.model_ = copy.deepcopy(self.estimator)
        self.n_rejected = 0
        self._look()

    def _look(self) -> None:
        """Note what the estimator's methods take."""
        final = getattr(self.model_, "_last_step", self.model_)
        learn = getattr(final, "learn_one", None) or getattr(final, "partial_fit", None)
        self._learn_takes = frozenset(inspect.signature(learn).parameters if learn else ())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({' '.join(repr(self.estimator).split())}, row by row)"

    def run(self, block: Block) -> Columns:
        """As every operator's; what the estimator itself raises comes as a ValueError."""
        try:
            return super().run(block)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError) as error:
            owner = type(self).__name__
            raise ValueError(
                f"{owner}: the estimator must take every row, got {error!r}"
            ) from error

    def _event(self, block: Block, t: int) -> Any:
        """Row t as the estimator takes it; None for a row that it must not see."""
        raise NotImplementedError

    def _label_of(self, block: Block, t: int) -> Any:
        """The target of row t as the estimator takes it."""
        return float(block.y[t])

    def _teach(self, x: Any, y: Any, weight: float) -> None:
        """One learning step of the estimator."""
        raise NotImplementedError

    def _learn_row(self, block: Block, t: int, x: Any) -> bool:
        """Let row t teach, if it does; one that would but holds an infinity is counted instead."""
        if not block.mode[t] & (LEARN if self.needs_label else OBSERVE) or block.weight[t] <= 0:
            return False
        if self.needs_label and math.isnan(block.y[t]):
            return False
        if x is None or (self.needs_label and math.isinf(block.y[t])):
            self.n_rejected += 1
            return False
        if not self.needs_label and not len(x):
            return False  # a row without features tells nothing; HalfSpaceTrees breaks on it
        y = self._label_of(block, t) if self.needs_label else None
        self._teach(x, y, float(block.weight[t]))
        return True

    # -- state -------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """A deep copy of the estimator; not cheap."""
        return super().snapshot() | {
            name: copy.deepcopy(getattr(self, name)) for name in self._deep
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        super().restore({k: v for k, v in snapshot.items() if k not in self._deep})
        for name in self._deep:
            setattr(self, name, copy.deepcopy(snapshot[name]))

    def state(self) -> State:
        """The estimator as given and as it has learnt, as one pickle in the array `pickle`."""
        plain = super().state()
        data = pickle.dumps((self._constructor_arguments(), self.model_), protocol=5)
        arrays = {"pickle": np.frombuffer(data, dtype=np.uint8).copy()}
        return State(arrays, plain.table | {"needs_pickle": True})

    def load(self, state: State) -> None:
        """Take over a state. This runs what the pickle says: load only what you trust."""
        arguments, self.model_ = pickle.loads(state.arrays["pickle"].tobytes())
        for name, value in arguments.items():
            setattr(self, name, value)
        super().load(state)
        self._look()

    @classmethod
    def blank(cls) -> "_Foreign":
        """A stage without an estimator, for `load` alone: the estimator comes out of the pickle."""
        return cls.__new__(cls)

    def clone(
        self, new_params: dict[str, Any] | None = None, include_attributes: bool = False
    ) -> Any:
        """An untrained stage of the same estimator; of a blank one another blank one."""
        if not hasattr(self, "estimator"):
            return self.blank()
        return super().clone(new_params, include_attributes)

    def _constructor_arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def reset(self) -> None:
        """Forget everything learnt; the names of features and classes stay."""
        self._begin()

    @property
    def state_bytes(self) -> int:
        """Bytes of the pickled estimator."""
        return len(pickle.dumps(self.model_, protocol=5))


# -- one walk for each kind of answer --------------------------------------------------------------


class _RowClassifier(_Foreign, Classifier):
    """Asks for a class and the probabilities of all; classes never learnt have none."""

    _counters = (*_Foreign._counters, "n_classes_")

    def _begin(self) -> None:
        super()._begin()
        self.n_classes_ = 0  # 1 + the largest code learnt

    def _ask(self, x: Any, table: Vocabulary | None) -> tuple[int, dict[int, float]]:
        """The class that the estimator answers, or -1, and its probabilities; by code."""
        raise NotImplementedError

    def _run(self, block: Block) -> Columns:
        prediction = np.full(block.n, np.nan)
        rows: list[dict[int, float]] = [{} for _ in range(block.n)]
        for t in range(block.n):
            x = self._event(block, t)
            if block.mode[t] & PREDICT and x is not None:
                prediction[t], rows[t] = self._of_known(*self._ask(x, block.labels))
            if self._learn_row(block, t, x):
                self.n_classes_ = max(self.n_classes_, int(block.y[t]) + 1)
        proba = np.zeros((block.n, self.n_classes_))
        for t, row in enumerate(rows):
            proba[t, list(row)] = list(row.values())
        proba[np.isnan(prediction)] = np.nan
        return {"prediction": prediction, "proba": proba}

    def _of_known(
        self, answer: int, probabilities: dict[int, float]
    ) -> tuple[float, dict[int, float]]:
        """An answer among the classes learnt so far; their probabilities then add up to 1."""
        known = {k: p for k, p in probabilities.items() if 0 <= k < self.n_classes_}
        total = sum(known.values())
        if len(known) < len(probabilities) and total > 0.0:
            known = {k: p / total for k, p in known.items()}
        if not 0 <= answer < self.n_classes_:
            answer = max(known, key=lambda k: known[k], default=-1)
        if not known and answer >= 0:
            known = {answer: 1.0}
        return (float(answer) if answer >= 0 else math.nan), known


class _RowRegressor(_Foreign, Regressor):
    """Asks for a number."""

    def _ask(self, x: Any) -> float:
        raise NotImplementedError

    def _run(self, block: Block) -> Columns:
        prediction = np.full(block.n, np.nan)
        for t in range(block.n):
            x = self._event(block, t)
            if block.mode[t] & PREDICT and x is not None:
                prediction[t] = self._ask(x)
            self._learn_row(block, t, x)
        return {"prediction": prediction}


class _RowTransformer(_Foreign, Transformer):
    """Asks for features under names; a block is cut where a row brings a new one."""

    _deep = ("model_", "_made")

    _made = NO_FEATURES  # the columns that go out; a reset keeps them, as names are kept
    _walked: tuple[Block, F8] | None = None  # a piece that `pieces` has walked already

    def _ask(self, x: Any) -> Row:
        raise NotImplementedError

    def output_features(self, features: Features) -> Features:
        """Every feature that the estimator has made, in order of first appearance."""
        return self._made

    def pieces(self, block: Block) -> Iterator[Block]:
        """The block, cut before each row that makes a new feature; a piece is walked only once."""
        if block.features is not self._features:
            self.meet(block.features)
        start = 0
        done: list[list[float]] = []
        for t in range(block.n):
            x = self._event(block, t)
            unasked = x is None or self._only_tells(block, t)
            made = {} if unasked else {k: v for k, v in self._ask(x).items() if v is not None}
            teaches = bool(block.mode[t] & (LEARN if self.needs_label else OBSERVE))
            fresh = [k for k in made if self._made.index(k) < 0] if teaches else []
            if fresh and t > start:
                yield self._piece(block, start, t, done)
                start, done = t, []
            if fresh:
                self._made = self._made.plus(fresh, [kind_of(made[k]) for k in fresh])
            done.append(self._cells(made, teaches))
            self._learn_row(block, t, x)
        yield self._piece(block, start, block.n, done)

    def _only_tells(self, block: Block, t: int) -> bool:
        """Whether row t has no features, for it tells of the label of an event before it."""
        return not block.mode[t] & SCORED and bool(np.isnan(block.X[t]).all())

    def _piece(self, block: Block, start: int, stop: int, rows: list[list[float]]) -> Block:
        piece = block.rows(start, stop)
        X = np.array(rows, dtype=np.float64).reshape(piece.n, len(self._made))
        self._walked = piece, X
        return piece

    def _cells(self, made: Row, teaches: bool) -> list[float]:
        """The features of one row in their columns; a new category gets a code where it teaches."""
        row = [math.nan] * len(self._made)
        for name, value in made.items():
            j = self._made.index(name)
            if j >= 0 and self._made.kinds[j] == CATEGORY:
                table = self._made.categories[name]
                code = table.code(value) if teaches else table.find(value)
                row[j] = float(code) if code >= 0 else math.nan
            elif j >= 0:
                row[j] = float(value)
        return row

    def _run(self, block: Block) -> Columns:
        if self._walked is not None and self._walked[0] is block:
            X, self._walked = self._walked[1], None
            return {"X": X}
        parts = [self._run(piece)["X"] for piece in self.pieces(block)]
        out = np.full((block.n, len(self._made)), np.nan)
        at = 0
        for part in parts:
            out[at : at + part.shape[0], : part.shape[1]] = part
            at += part.shape[0]
        return {"X": out}

    def state(self) -> State:
        """The estimator's pickle, and the features it has made."""
        arrays, table = super().state()
        return State(arrays, table | {"made": self._made.to_json()})

    def load(self, state: State) -> None:
        """Take over a state. This runs what the pickle says: load only what you trust."""
        super().load(state)
        self._made, self._walked = Features.from_json(state.table["made"]), None


def _river(name: str) -> Any:
    """A module of River, imported when it is wanted."""
    return importlib.import_module(f"river.{name}")


# -- River -----------------------------------------------------------------------------------------


class _River(_Foreign):
    """Events as dicts: missing features left out, categories and labels as they were."""

    takes_categories = True

    def __init__(self, estimator: base.Base) -> None:
        self.estimator = estimator
        self._begin()

    def _event(self, block: Block, t: int) -> Row | None:
        x: Row = {}
        names, kinds = block.features.names, block.features.kinds
        for name, kind, value in zip(names, kinds, block.X[t].tolist(), strict=True):
            if math.isinf(value):
                return None
            if kind == CATEGORY and value == value:
                x[name] = block.features.categories[name].values[int(value)]
            elif value == value:
                x[name] = bool(value) if kind == BOOLEAN else value
        return x

    def _teach(self, x: Row, y: Any, weight: float) -> None:
        extra = {"w": weight} if "w" in self._learn_takes and weight != 1.0 else {}
        if self.needs_label:
            self.model_.learn_one(x, y, **extra)
        else:
            self.model_.learn_one(x, **extra)


class RiverClassifier(_River, _RowClassifier):
    """A River classifier as a stage; it runs row by row, in Python.

    The estimator sees labels as they are in the data; one that is binary (not `_multiclass`) sees
    False and True instead, for the first and the second class unless they are 0 and 1. Without
    `predict_proba_one`, the answer has probability 1. The weight of a row reaches an estimator
    whose `learn_one` takes `w`; a row of weight 0 is never learnt.

    Args:
        estimator: any river.base.Classifier, or a River pipeline that ends in one; it is copied.
    State:
        model_: the copy that learns.
    Cost: the estimator's own, a row.
    Raises: ValueError for a third class in a binary estimator.
    >>> from river import naive_bayes
    >>> stage = RiverClassifier(naive_bayes.GaussianNB())
    >>> stage.learn_one({"a": 1.0}, "yes")
    >>> stage.predict_one({"a": 1.0})
    'yes'
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """Members for River's checks and the conformance suite."""
        yield {"estimator": _river("naive_bayes").GaussianNB()}
        many = _river("multiclass").OneVsRestClassifier(_river("linear_model").LogisticRegression())
        yield {"estimator": _river("preprocessing").StandardScaler() | many}

    def _label_of(self, block: Block, t: int) -> Any:
        code = int(block.y[t])
        return self._taught(code, code if block.labels is None else block.labels.values[code])

    def _taught(self, code: int, value: Any) -> Any:
        """The class of this code and label as the estimator is told."""
        if self.model_._multiclass:
            return value
        if value not in (0, 1) and code > 1:
            raise ValueError(
                f"RiverClassifier: {type(self.estimator).__name__} must have two classes, got the "
                f"third, {value!r}; wrap it in river.multiclass.OneVsRestClassifier"
            )
        return bool(value if value in (0, 1) else code)

    def _code(self, label: Any, table: Vocabulary | None) -> int:
        """The code of a class that the estimator speaks of, or -1."""
        if table is None:
            return int(label)
        if self.model_._multiclass:
            return table.find(label)
        told = [self._taught(code, value) for code, value in enumerate(table.values[:2])]
        return told.index(label) if label in told else -1

    def _ask(self, x: Row, table: Vocabulary | None) -> tuple[int, dict[int, float]]:
        try:
            by_label = self.model_.predict_proba_one(x)
        except NotImplementedError:
            by_label = {}
        plain = type(self.model_).predict_one is base.Classifier.predict_one and bool(by_label)
        answer = max(by_label, key=by_label.get) if plain else self.model_.predict_one(x)
        code = -1 if answer is None else self._code(answer, table)
        return code, {self._code(label, table): p for label, p in by_label.items()}


class RiverRegressor(_River, _RowRegressor):
    """A River regressor as a stage; it runs row by row, in Python.

    Args:
        estimator: any river.base.Regressor, or a River pipeline that ends in one; it is copied.
    State:
        model_: the copy that learns.
    Cost: the estimator's own, a row. Weights as in `RiverClassifier`.
    >>> from river import dummy, stats
    >>> stage = RiverRegressor(dummy.StatisticRegressor(stats.Mean()))
    >>> stage.learn_one({"a": 1.0}, 3.0)
    >>> stage.predict_one({"a": 1.0})
    3.0
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """Members for River's checks and the conformance suite."""
        scaler = _river("preprocessing").StandardScaler()
        yield {"estimator": scaler | _river("linear_model").LinearRegression()}

    def _ask(self, x: Row) -> float:
        value = self.model_.predict_one(x)
        return math.nan if value is None else float(value)


class RiverTransformer(_River, _RowTransformer):
    """A River transformer as a stage; it runs row by row, in Python.

    A feature that it makes exists from its row on, and the block is cut there; strings become
    categories. Supervised ones learn from rows with a label.

    Args:
        estimator: any river.base.Transformer or SupervisedTransformer, unions and pipelines of
            them included; it is copied.
    State:
        model_: the copy that learns.
    Cost: the estimator's own, a row.
    Raises: TypeError for a value that is no number, boolean or string.
    >>> from river import preprocessing
    >>> stage = RiverTransformer(preprocessing.OneHotEncoder())
    >>> stage.learn_one({"colour": "red"})
    >>> stage.transform_one({"colour": "red"})
    {'colour_red': 1.0}
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """Members for River's checks and the conformance suite."""
        yield {"estimator": _river("preprocessing").StandardScaler()}
        yield {"estimator": _river("preprocessing").OneHotEncoder()}

    def _begin(self) -> None:
        super()._begin()
        self.needs_label = bool(self.model_._supervised)

    def _ask(self, x: Row) -> Row:
        return dict(self.model_.transform_one(x))

    def _label_of(self, block: Block, t: int) -> Any:
        return float(block.y[t]) if block.labels is None else block.labels.values[int(block.y[t])]


class RiverScorer(_River, Scorer):
    """A River anomaly detector as a stage; it runs row by row, in Python. Output `score` (n,).

    It scores with what it knew before the row, then learns the row.

    Args:
        estimator: any River estimator with `score_one`: an anomaly detector, a filter, or a
            pipeline that ends in one; a supervised one scores (x, y), NaN without y. It is copied.
    State:
        model_: the copy that learns.
    Cost: the estimator's own, a row.
    >>> from river import anomaly
    >>> stage = RiverScorer(anomaly.HalfSpaceTrees(n_trees=1, height=1, seed=1))
    >>> stage.learn_one({"a": 0.5})
    >>> stage.score_one({"a": 0.5})
    0.0
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """Members for River's checks and the conformance suite."""
        yield {"estimator": _river("anomaly").HalfSpaceTrees(n_trees=3, height=3, seed=1)}

    def _begin(self) -> None:
        super()._begin()
        self.needs_label = bool(self.model_._supervised)

    def _run(self, block: Block) -> Columns:
        score = np.full(block.n, np.nan)
        for t in range(block.n):
            x = self._event(block, t)
            if block.mode[t] & PREDICT and x is not None:
                score[t] = self._ask(block, t, x)
            self._learn_row(block, t, x)
        return {"score": score}

    def _ask(self, block: Block, t: int, x: Row) -> float:
        if not self.needs_label:
            return float(self.model_.score_one(x))
        y = self._label_of(block, t)
        return math.nan if math.isnan(y) else float(self.model_.score_one(x, y))


class RiverDetector(_River, Detector):
    """A River drift detector as a stage; it runs value by value, in Python.

    Args:
        estimator: any river.base.DriftDetector, or a binary one, which is fed value != 0; copied.
    State:
        model_: the copy that watches.
    Cost: the detector's own, a value.
    >>> from river import drift
    >>> stage = RiverDetector(drift.PageHinkley())
    >>> stage.update(0.0)
    >>> stage.drift_detected
    False
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """Members for River's checks and the conformance suite."""
        yield {"estimator": _river("drift").ADWIN()}

    def first_alarm(self, values: F8) -> int:
        """Feed values in order up to and including the first that alarms; its index, or -1."""
        binary = isinstance(self.model_, base.BinaryDriftDetector)
        for t, value in enumerate(values.tolist()):
            if math.isnan(value):
                continue
            self.model_.update(value != 0.0 if binary else value)
            if self.model_.drift_detected:
                return t
        return -1


# -- scikit-learn ----------------------------------------------------------------------------------


class _Sklearn(_Foreign):
    """Events as arrays of one row; the features are those of the first row, for good."""

    _counters: ClassVar[tuple[str, ...]] = ("n_rejected", "n_learnt")
    n_learnt = 0

    def _begin(self) -> None:
        super()._begin()
        self.n_learnt = 0

    def _look(self) -> None:
        super()._look()
        tags = getattr(self.model_, "__sklearn_tags__", None)
        self._allows_nan = bool(tags().input_tags.allow_nan) if tags else False

    def grow(self, features: Features) -> None:
        """Refuse a width that the estimator was not trained with."""
        if self.n_learnt and len(features) != len(self._features):
            new = features.names[len(self._features) :]
            raise ValueError(
                f"{type(self).__name__}: features must be those of the first row, got the new "
                f"{list(new)!r}; declare all features in the schema"
            )

    def _event(self, block: Block, t: int) -> F8 | None:
        row = block.X[t : t + 1]
        bad = np.isinf(row) if self._allows_nan else ~np.isfinite(row)
        return None if bad.any() else row

    def _teach(self, x: F8, y: Any, weight: float) -> None:
        extra = {"sample_weight": [weight]} if "sample_weight" in self._learn_takes else {}
        self.n_learnt += 1
        if self.needs_label:
            self.model_.partial_fit(x, [y], **extra, **self._declared())
        else:
            self.model_.partial_fit(x, **extra)

    def _declared(self) -> dict[str, Any]:
        return {}


class SklearnClassifier(_Sklearn, _RowClassifier):
    """A scikit-learn classifier with `partial_fit` as a stage; it learns and answers row by row.

    A row with a missing value is not answered and not learnt (put `Imputer()` before), and
    counted in `n_rejected`. Without `predict_proba`, the answer has probability 1.

    Args:
        estimator: the classifier; it is copied.
        classes: all labels there will ever be, as they are in the data.
    State:
        model_: the copy that learns.
    Cost: the estimator's own, some 100 microseconds a row.
    Raises: ValueError without classes, for a class that was not declared, and for new features.
    """

    _counters = (*_Sklearn._counters, "n_classes_")

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """Members for River's checks and the conformance suite."""
        model = importlib.import_module("sklearn.linear_model").SGDClassifier(loss="log_loss")
        yield {"estimator": model.set_params(random_state=1), "classes": [*range(12)]}

    def __init__(self, estimator: Any, classes: Sequence[Any] | None = None) -> None:
        self.estimator = estimator
        if classes is None or not len(classes):
            raise ValueError(
                "SklearnClassifier: classes must be declared, for partial_fit wants them all at "
                f"once; write SklearnClassifier({type(estimator).__name__}(), classes=[…])"
            )
        self.classes = list(classes)
        self._begin()

    def _declared(self) -> dict[str, Any]:
        return {"classes": np.array(self.classes)}

    def _label_of(self, block: Block, t: int) -> Any:
        code = int(block.y[t])
        label = code if block.labels is None else block.labels.values[code]
        if label not in self.classes:
            raise ValueError(
                f"SklearnClassifier: classes must hold every label, got {label!r}, which is not "
                f"in {self.classes!r}"
            )
        return label

    def _ask(self, x: F8, table: Vocabulary | None) -> tuple[int, dict[int, float]]:
        if not self.n_classes_:  # scikit-learn refuses what was never taught, River does not
            return -1, {}
        codes = [k if table is None else table.find(k) for k in self.model_.classes_.tolist()]
        answer = self.model_.classes_.tolist().index(self.model_.predict(x)[0].item())
        if not hasattr(self.model_, "predict_proba"):
            return codes[answer], {}
        return codes[answer], dict(
            zip(codes, self.model_.predict_proba(x)[0].tolist(), strict=True)
        )


class SklearnRegressor(_Sklearn, _RowRegressor):
    """A scikit-learn regressor with `partial_fit` as a stage; it learns and answers row by row.

    Missing values as in `SklearnClassifier`.

    Args:
        estimator: the regressor; it is copied.
    State:
        model_: the copy that learns.
    Cost: the estimator's own, some 100 microseconds a row.
    Raises: ValueError for new features.
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """Members for River's checks and the conformance suite."""
        yield {"estimator": importlib.import_module("sklearn.linear_model").SGDRegressor()}

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator
        self._begin()

    def _ask(self, x: F8) -> float:
        return float(self.model_.predict(x)[0]) if self.n_learnt else math.nan


class SklearnTransformer(_Sklearn, _RowTransformer):
    """A scikit-learn transformer with `partial_fit` as a stage; it learns and answers row by row.

    Before the first row is learnt nothing comes out. Missing values as in `SklearnClassifier`,
    unless the transformer takes NaN itself.

    Args:
        estimator: the transformer; it is copied.
    State:
        model_: the copy that learns.
    Cost: the estimator's own, some 100 microseconds a row.
    Raises: ValueError for new features.
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """Members for River's checks and the conformance suite."""
        yield {"estimator": importlib.import_module("sklearn.preprocessing").StandardScaler()}

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator
        self._begin()

    def _ask(self, x: F8) -> Row:
        if not self.n_learnt:
            return {}
        out = self.model_.transform(x)
        row = np.asarray(out.toarray() if hasattr(out, "toarray") else out)[0]
        kept = row.shape[0] == len(self._features)
        names = self._features.names if kept else range(row.shape[0])
        prefix = type(self.estimator).__name__.lower()
        return {k if kept else f"{prefix}{k}": float(v) for k, v in zip(names, row, strict=True)}
