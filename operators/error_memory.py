"""Error memory (ReLoop2): a slow model, and a fast memory of how it has been wrong of late."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import CATEGORY, F8, I8, Block, Columns, Features
from streamlearn.contracts import State, merged
from streamlearn.jit import error_memory as jit
from streamlearn.jit.counter import key_of, normals
from streamlearn.operators import _checks, _prequential
from streamlearn.operators._base import CLASSIFICATION, Classifier, Operator, Regressor
from streamlearn.operators._members import Holder, ask
from streamlearn.operators._supervised import MAX_CLASSES, cut, rows_of
from streamlearn.operators.baselines import MajorityClassifier, MeanRegressor
from streamlearn.operators.foreign import as_stage
from streamlearn.operators.kalman import KalmanClassifier, KalmanRegressor

SKETCH, NEIGHBOURS = BACKENDS = ("sketch", "neighbours")
COUNT, SOFTMAX = WEIGHTINGS = ("count", "softmax")
CANDIDATES = ((0.0, 0.0), (1.0, 0.4), (1.0, 0.9), (0.0, 0.5), (0.0, 1.0))  # (gamma, lam)
_MAX_BITS = 24  # 2^24 cells an array
_KEPT = ("scaler_", "gate_", "keys_", "cells_", "outputs_", "scalars_")


class _ErrorMemory(Holder):
    """What both families share: the model runs over the block, then the memory walks its rows."""

    model: Operator
    _default: ClassVar[type[Operator]]

    # -- construction ------------------------------------------------------------------------------

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build; all but the first read at once."""
        small = {"warm_up": 5, "n_min": 1.0}
        baseline = MajorityClassifier if cls.task == CLASSIFICATION else MeanRegressor
        yield {"arrays": 4, "bits": 3}
        yield {"model": baseline(), "arrays": 3, "bits": 2, "rho": 1e-5, **small}
        yield {"backend": NEIGHBOURS, "neighbours": 3, "capacity": 10, **small}
        softmax = {"weighting": SOFTMAX, "gamma": 0.0, "lam": 0.5}
        yield {"arrays": 2, "bits": 2, **softmax, **small}

    def _set_parameters(self, given: dict[str, Any]) -> None:
        """Check and keep the parameters that both families have."""
        owner = type(self).__name__
        model = given["model"]
        self.model = self._default() if model is None else as_stage(model)
        if self.model.task != self.task:
            raise ValueError(f"{owner}: model must do {self.task}, got {type(self.model).__name__}")
        self.backend = _checks.choice(owner, "backend", given["backend"], BACKENDS)
        self.weighting = _checks.choice(owner, "weighting", given["weighting"], WEIGHTINGS)
        for name in ("arrays", "bits", "neighbours", "capacity"):
            setattr(self, name, _checks.whole(owner, name, given[name], 1))
        for name in ("warm_up", "seed"):
            setattr(self, name, _checks.whole(owner, name, given[name], 0))
        _checks.between(owner, "bits", given["bits"], 1, _MAX_BITS)
        lam = given["lam"]
        self.lam = None if lam is None else _checks.between(owner, "lam", lam, 0.0, 1.0)
        for name in ("gamma", "alpha"):
            setattr(self, name, _checks.between(owner, name, given[name], 0.0, 1.0))
        for name in ("tau", "rho"):
            setattr(self, name, _checks.positive(owner, name, given[name]))
        _checks.between(owner, "rho", given["rho"], 0.0, 1.0)
        for name in ("n_min", "sigma", "eta"):
            setattr(self, name, _checks.not_negative(owner, name, given[name]))
        if given["sigma"] > 0 and self.backend == SKETCH:
            raise ValueError(
                f"{owner}: sigma must be 0 with the sketch, whose means it would bend, "
                f"got {given['sigma']!r}"
            )
        self._adopt()
        self._clear()

    def _adopt(self) -> None:
        """Take what the model takes."""
        model = self.model
        self.takes_categories, self.takes_sparse = model.takes_categories, model.takes_sparse
        self.takes_nan, self.cheap_snapshot = model.takes_nan, model.cheap_snapshot
        self.recalls_input, self.needs_pickle = model.recalls_input, model.needs_pickle
        self.takes_keys = model.takes_keys

    # -- state -------------------------------------------------------------------------------------

    arrays: int
    bits: int
    neighbours: int
    capacity: int
    gamma: float
    lam: float | None
    tau: float
    rho: float
    n_min: float
    sigma: float
    warm_up: int
    eta: float
    alpha: float
    seed: int
    balance: bool = False

    def _clear(self) -> None:
        """The state of a memory that has not even seen a feature."""
        self._grid = np.array(CANDIDATES if self.lam is None else [(self.gamma, self.lam)])
        self._settings = np.zeros(jit.N_SETTINGS)
        self._settings[[jit.RHO, jit.WARM, jit.TAU]] = self.rho, self.warm_up, self.tau
        self._settings[[jit.SIGMA, jit.ETA, jit.ALPHA]] = self.sigma, self.eta, self.alpha
        self._settings[[jit.BALANCE, jit.CLASSES]] = self.balance, self.task == CLASSIFICATION
        self._settings[jit.SOFTMAX] = self.weighting == SOFTMAX
        self._settings[jit.N_MIN] = math.inf if self.lam == 0.0 else self.n_min
        self.scaler_ = np.zeros((3, 0))
        self.keys_ = np.zeros((0, self.capacity if self.backend == NEIGHBOURS else 0))
        self._outputs = np.zeros((2, 0))
        self._projections = np.zeros((0, 0), dtype=np.float32)
        self._projected: tuple[str, ...] = ()
        self._columns: tuple[Features, NDArray[np.bool_]] | None = None
        self._work: Any = None
        self.scalars_ = np.zeros(jit.N_SCALARS)
        self.forget()

    def forget(self) -> None:
        """Empty the memory and begin the gate anew; the model and the scale of the keys stay.

        To be called when the model has been exchanged: what was noted of the old one is stale.
        """
        ring = self.backend == NEIGHBOURS
        shape = (1, self.capacity) if ring else (self.arrays, 1 << self.bits)
        self._cells = np.zeros((*shape, 1 + 2 * self._outputs.shape[1]))
        self.keys_ = np.zeros(self.keys_.shape)
        self.gate_ = np.full(len(self._grid), 1.0 / len(self._grid))
        self.scalars_[[jit.WRITES, jit.SCALE, jit.TOTAL]] = 0.0, 1.0, 0.0

    @property
    def _n_outputs(self) -> int:
        return int(self.scalars_[jit.OUTPUTS])

    @property
    def cells_(self) -> F8:
        """(K, 2^L, 1 + 2 C), or (1, S, 1 + 2 C): weight, and of each output sums of y and of b.

        Of the sketch they are to be multiplied by `rho` to the power of the writes since `scale`
        was 1; of the ring they are the rows themselves.
        """
        return self._cells[:, :, : 1 + 2 * self._n_outputs]

    @cells_.setter
    def cells_(self, value: F8) -> None:
        self._cells = np.ascontiguousarray(value)

    outputs_ = cut(
        "_outputs", 1, "(2, C): weight learnt, and mean squared error of the model (targets)."
    )

    @property
    def n_writes_(self) -> int:
        """Labelled rows that the memory has taken in."""
        return int(self.scalars_[jit.WRITES])

    @property
    def n_rejected(self) -> int:
        """Rows with LEARN refused for an infinite feature, or a label that cannot be one."""
        return int(self.scalars_[jit.REJECTED])

    @property
    def n_skipped(self) -> int:
        """Rows with LEARN whose features were all missing: they have no key."""
        return int(self.scalars_[jit.SKIPPED])

    @property
    def n_imputed(self) -> int:
        """Missing values in rows with OBSERVE; in a key they stand at their mean."""
        return int(self.scalars_[jit.IMPUTED])

    def grow(self, features: Features) -> None:
        """The model and the keys make room; what is new is at its mean in all keys before."""
        self.model.meet(features)
        d = len(features)
        self.scaler_ = _checks.padded(self.scaler_, (3, d))
        if self.backend == NEIGHBOURS:
            self.keys_ = _checks.padded(self.keys_, (d, self.capacity))

    def snapshot(self) -> dict[str, Any]:
        """Copies of the memory and a snapshot of the model."""
        own = {name: getattr(self, name).copy() for name in _KEPT}
        named = {"_features": self._features, "_labels": self._labels}
        return own | named | {"model": self.model.snapshot()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        for name, value in snapshot.items():
            if name == "model":
                self.model.restore(value)
            else:
                setattr(self, name, value if name in ("_features", "_labels") else value.copy())

    def _members(self) -> dict[str, Operator]:
        return {"model": self.model}

    def _state(self, kept: bool) -> State:
        arrays = {name: getattr(self, name).copy() for name in _KEPT}
        whole = merged(self._states(kept), Operator.state(self).table)
        return State(whole.arrays | arrays, whole.table)

    def load(self, state: State) -> None:
        """Take over what `state` gave; refused if the parameters were others."""
        super().load(state)
        for name in _KEPT:
            setattr(self, name, np.array(state.arrays[name]))
        self.model.load(state.under("model"))

    def reset(self) -> None:
        """Forget everything learnt, the model included; names of features and classes stay."""
        self.model.reset()
        self._clear()
        self.grow(self._features)

    @property
    def state_bytes(self) -> int:
        """Bytes of the memory and of the model."""
        own: int = sum(getattr(self, name).nbytes for name in _KEPT)
        return own + self.model.state_bytes

    def load_kernels(self) -> None:
        """Load what the model reaches only later."""
        self.model.load_kernels()

    def merge(self, other: "_ErrorMemory") -> None:
        """Add what another sketch has noted, as if this one had walked both streams.

        Needs rho = 1, equal parameters, and keys on one scale: warm_up = 0, or memories that went
        on from copies of one warmed up (`forget` empties the copy). The models are not touched.
        Raises: ValueError for memories that do not fit together.
        """
        owner = type(self).__name__
        sketches = type(other) is type(self) and self.backend == other.backend == SKETCH
        if not sketches or self.rho != 1.0:
            raise ValueError(f"{owner}: to merge takes two sketches with rho=1, got {other!r}")
        for name in ("arrays", "bits", "rho", "gamma", "lam", "warm_up", "seed"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                raise ValueError(f"{owner}: {name} must be {mine!r} in both to merge, got {its!r}")
        if self._features.names != other._features.names or not np.array_equal(
            self.scaler_, other.scaler_
        ):
            raise ValueError(f"{owner}: the keys of both must be on one scale to merge")
        C = max(self._n_outputs, other._n_outputs)
        self._widen(C)
        its_cells = _checks.padded(other.cells_, (*other.cells_.shape[:2], 1 + 2 * C))
        self._cells[:, :, : 1 + 2 * C] += its_cells
        seen = _checks.padded(other.outputs_, (2, C))
        if self.task == CLASSIFICATION:
            self._outputs[:, :C] += seen
        else:
            self._merge_errors(seen)
        self.scalars_ += other.scalars_
        self.scalars_[[jit.SCALE, jit.OUTPUTS]] = 1.0, C
        both = self.gate_ * other.gate_
        self.gate_ = (1.0 - self.alpha) * both / both.sum() + self.alpha / both.shape[0]

    def _merge_errors(self, its: F8) -> None:
        """Mean squared errors of the model over both streams."""
        total = self._outputs[jit.SEEN] + its[jit.SEEN]
        share = its[jit.SEEN] / np.where(total > 0.0, total, 1.0)
        self._outputs[jit.ERROR] += share * (its[jit.ERROR] - self._outputs[jit.ERROR])
        self._outputs[jit.SEEN] = total

    # -- the walk ----------------------------------------------------------------------------------

    def _run(self, block: Block) -> Columns:
        asked = _prequential.asked(block)
        outputs = ask(self.model, 0, _prequential.met(asked, self.model))
        said = self._said(outputs)
        late = _logged_rows(block)
        wide = max(said.shape[1], _width_of_then(block) if late.size else 0)
        C = max(1, self._n_wanted(block, wide))  # the kernels look at a first output
        self._widen(C)
        n = block.n
        B = _wide(said, C)
        R, P = np.full((n, 2 * C), np.nan), np.full((n, C), np.nan)
        side = outputs["prediction"]
        side = side.copy() if side.ndim == 1 else side[:, 0].copy()
        source, T = _of_then(block, late, C)
        rows = (*rows_of(block), source)
        walk = jit.walk_sketch if self.backend == SKETCH else jit.walk_ring
        walk(
            rows, (B, R, T), self._key(), self._cells, (self._grid, self.gate_, self._outputs),
            (self.scalars_, self._settings, self._scratch(C)), (P, side),
        )  # fmt: skip
        answers = outputs | self._answers(said, P, side)
        if block.log_wanted:
            answers |= {"log:said": _to_log(B), "log:read": _to_log(R)}
        return _prequential.hidden(answers, block)

    def _said(self, outputs: Columns) -> F8:
        """The answers of the model, (n, C), NaN where it gave none."""
        raise NotImplementedError(f"{type(self).__name__} has no _said")

    def _answers(self, said: F8, P: F8, side: F8) -> Columns:
        """The compensated outputs."""
        raise NotImplementedError(f"{type(self).__name__} has no _answers")

    def _n_wanted(self, block: Block, wide: int) -> int:
        """Outputs that there must be room for to walk this block."""
        raise NotImplementedError(f"{type(self).__name__} has no _n_wanted")

    def _widen(self, C: int) -> None:
        """Room for C outputs."""
        room = self._outputs.shape[1]
        if room < C:
            self._outputs = _checks.padded(self._outputs, (2, C))
            self._cells = _checks.padded(self._cells, (*self._cells.shape[:2], 1 + 2 * C))

    def _key(self) -> tuple[NDArray[np.bool_], F8, Any]:
        """Which columns are numbers, their moments, and the projections, or the keys of the ring.

        A feature's projections depend on the seed and its name alone.
        """
        features = self._features
        if self._columns is None or self._columns[0] is not features:
            numeric = np.array([kind != CATEGORY for kind in features.kinds], dtype=np.bool_)
            self._columns = features, numeric
            if self.backend == SKETCH:
                self._project(features.names)
        numeric = self._columns[1]
        return numeric, self.scaler_, self._projections if self.backend == SKETCH else self.keys_

    def _project(self, names: tuple[str, ...]) -> None:
        """Draw the projections of features that are new; (d, L K) float32, standard normal."""
        wide = self.bits * self.arrays
        known = dict(zip(self._projected, self._projections, strict=True))
        drawn = np.empty((len(names), wide), dtype=np.float32)
        for j, name in enumerate(names):
            row = known.get(name)
            drawn[j] = normals(key_of(self.seed, f"feature {name}"), wide) if row is None else row
        self._projections, self._projected = drawn, names

    def _scratch(self, C: int) -> Any:
        """Work space of the kernels, made anew where a width has changed."""
        d = len(self._features)
        if self._work is None or self._work[0].shape[0] != d or self._work[3].shape[0] != C:
            ring = self.backend == NEIGHBOURS
            h = self.capacity if ring else self.bits * self.arrays
            c = min(self.neighbours, self.capacity) if ring else self.arrays
            sizes = C, C, C, 2 * C, len(self._grid)
            self._work = (
                np.zeros(d), np.zeros(h), np.zeros(c, dtype=np.int64), *map(np.zeros, sizes),
            )  # fmt: skip
        return self._work


def _wide(said: F8, C: int) -> F8:
    """Answers over C outputs: a class that the model does not know has probability 0."""
    if said.shape[1] == C:
        return said
    wide = np.zeros((said.shape[0], C))
    wide[:, : said.shape[1]] = said
    if C:
        silent = np.isnan(said[:, 0]) if said.shape[1] else np.ones(said.shape[0], dtype=np.bool_)
        wide[silent, 0] = np.nan
    return wide


def _to_log(said: F8) -> F8:
    """Without the 0 of a class, which the log of a shorter block may not have known; the first
    output tells whether anything was said."""
    told = said.copy()
    told[:, 1:][told[:, 1:] == 0.0] = np.nan
    return told


def _logged_rows(block: Block) -> I8:
    """The rows for which the log has what was said of them."""
    if block.logged is None or "said" not in block.logged.columns:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(block.logged.held["said"])


def _width_of_then(block: Block) -> int:
    """Outputs that the log tells of; since a reset there may be fewer."""
    assert block.logged is not None
    columns = block.logged.columns
    return max(int(columns["said"].shape[1]), (int(columns["read"].shape[1]) + 1) // 2)


def _of_then(block: Block, late: I8, C: int) -> tuple[I8, F8]:
    """Where what was said of each row is found, and what the log has of the late ones (m, 3 C)."""
    source, T = np.arange(block.n), np.empty((late.size, 3 * C))
    if block.logged is None:
        return source, T
    columns, _, met = block.logged
    if met is not None:
        source[met.rows] = met.scored
    if late.size:
        source[late] = -1 - np.arange(late.size)
        T[:, :C] = _wide(columns["said"][late], C)
        T[:, C:] = _wide(columns["read"][late], 2 * C)
        T[:, 1:C] = np.nan_to_num(T[:, 1:C])  # classes of which there were none
        T[:, C + 1 :] = np.nan_to_num(T[:, C + 1 :])
    return source, T


class ErrorMemoryClassifier(_ErrorMemory, Classifier):
    """A classifier whose answers are compensated by what labels of like rows have said of late.

    Model: with b = the model's probabilities, and over a memory of the last labelled rows near to x
    the means ybar of their labels and bbar of what the model had said of them, the answer is
    p = b + lam (gamma (ybar - b) + (1 - gamma) (ybar - bbar)), cut at 0 and normalised. The memory
    is read and written in O(1), so it answers to a drift at once, while the model learns slowly.
    A gate weighs five pairs (gamma, lam), none at all among them, by their log loss so far, which
    makes it nearly harmless where nothing drifts. Near means: the same cells of `arrays` signed
    random projections of the features, or the nearest of the last `capacity` rows by angle.
    Keys are the features that are numbers, standardised by the moments of their first `warm_up`
    values, frozen then. Categories and sparse columns go to the model alone.
    Args:
        model: any classifier: an operator, a pipeline, an estimator of River; default Kalman.
        backend: "sketch" (constant cost and size), or "neighbours" (exact search in a ring).
        arrays: of the sketch, K >= 1; more make the mean smoother and cost in proportion.
        bits: L in [1, 24], an array has 2^L cells; more make neighbourhoods smaller.
        weighting: of the cells: "count", the mean over all rows in them, or "softmax", the mean of
            their means with weights exp(share of all writes / tau), nearly equal (sketch).
        neighbours: rows that are read, >= 1 (neighbours).
        capacity: rows that are kept, >= 1 (neighbours).
        gamma: with lam: 1 pulls to labels of neighbours, 0 corrects their mean error; in [0, 1].
        lam: strength of the compensation in [0, 1]; None lets the gate learn gamma and lam.
        tau: of the weights exp(cosine / tau) of neighbours, and of the softmax of cells, > 0.
        rho: a write later, what is noted counts rho of itself; in (0, 1], 1 never forgets. Longer
            than 0.995 was worse on streams that drift every 5,000 rows (accuracy 0.67 to 0.70).
        n_min: weight found in all arrays, or rows in the ring, below which the model's answer
            stands, >= 0.
        sigma: a row is kept only if some probability was wrong by more, >= 0; 0 keeps all
            (neighbours; it bends the means, see the guide).
        warm_up: values of a feature that fix its scale, >= 0; the memory begins after 50 of them,
            or as many if fewer. 0 takes features as they are.
        eta: rate of the gate, >= 0.
        alpha: share of its weight that the gate gives to all alike, in [0, 1].
        balance: whether all classes weigh alike in the memory, each row N / (C n_c).
        seed: of the projections, which are drawn by feature name.
    State:
        cells_: (K, 2^L, 1 + 2 C) or (1, S, 1 + 2 C) float64, weight, sums of labels and answers.
        keys_: (d, S) float64, unit keys of the ring; of the sketch (d, 0) or (0, 0).
        scaler_: (3, d) float64, values seen, mean, variance of each feature.
        gate_: (G,) float64, weights of the pairs. outputs_: (2, C) float64, weight learnt of each.
        scalars_: (8,) float64, in the order of `streamlearn.jit.error_memory`.
        model: the state of the model.
    A late label is noted with the features, the answer and the reading of the time of scoring.
    A missing feature is at its mean (`n_imputed`); a row without any has no key (`n_skipped`); an
    infinite one is refused (`n_rejected`). A row nothing is read for has the model's answer,
    bit for bit.
    Cost: the model's, and O(K L d + K C) an event (neighbours O(S d)), whatever was seen before.
    Raises: ValueError for a parameter out of range or a model of another task.
    Reference: Zhu et al. (2023), ReLoop2, KDD, arXiv 2306.08808; Coleman and Shrivastava (2020).
    >>> model = ErrorMemoryClassifier(MajorityClassifier(), warm_up=0)
    >>> for i in range(40):
    ...     model.learn_one({"a": i % 2 - 0.5}, "odd" if i % 2 else "even")
    >>> model.predict_one({"a": 0.5}), model.predict_one({"a": -0.5})
    ('odd', 'even')
    """

    _default = KalmanClassifier

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """As both, and with balance."""
        yield from super()._unit_test_params()
        yield {"arrays": 3, "bits": 2, "balance": True, "warm_up": 0, "rho": 1.0}

    def __init__(
        self,
        model: Operator | Any = None,
        backend: str = "sketch",
        arrays: int = 70,
        bits: int = 8,
        weighting: str = "count",
        neighbours: int = 20,
        capacity: int = 1000,
        gamma: float = 1.0,
        lam: float | None = None,
        tau: float = 0.1,
        rho: float = 0.995,
        n_min: float = 5.0,
        sigma: float = 0.0,
        warm_up: int = 1000,
        eta: float = 1.0,
        alpha: float = 1e-3,
        balance: bool = False,
        seed: int = 0,
    ) -> None:
        self.balance = _checks.truth(type(self).__name__, "balance", balance)
        self._set_parameters(locals())

    def _said(self, outputs: Columns) -> F8:
        said: F8 = outputs["proba"]
        silent = np.isnan(outputs["prediction"])
        if silent.any() and said.shape[1]:
            said = said.copy()
            said[silent] = np.nan
        return np.ascontiguousarray(said)

    def _n_wanted(self, block: Block, wide: int) -> int:
        """Classes that may be known after this block."""
        codes = block.y[block.y < MAX_CLASSES]
        return max(int(self._outputs.shape[1]), wide, 1 + int(codes.max(initial=-1.0)))

    def _answers(self, said: F8, P: F8, side: F8) -> Columns:
        return {"prediction": side, "proba": P}


class ErrorMemoryRegressor(_ErrorMemory, Regressor):
    """A regressor whose answers are compensated by what targets of like rows have been of late.

    Model, arguments, state and cost as `ErrorMemoryClassifier`, with b = the prediction of the
    model, one or several targets, and nothing cut. The gate goes by squared errors in units of the
    model's own mean squared error (memory 1 / (1 - rho) rows); sigma is in units of its root.
    `variance`, where the model gives one, is the model's, from before the compensation.
    >>> from streamlearn.operators import MeanRegressor
    >>> model = ErrorMemoryRegressor(MeanRegressor(), warm_up=0)
    >>> for i in range(40):
    ...     model.learn_one({"a": i % 2 - 0.5}, 10.0 * (i % 2))
    >>> round(model.predict_one({"a": 0.5})), round(model.predict_one({"a": -0.5}))
    (10, 0)
    """

    _default = KalmanRegressor

    def __init__(
        self,
        model: Operator | Any = None,
        backend: str = "sketch",
        arrays: int = 70,
        bits: int = 8,
        weighting: str = "count",
        neighbours: int = 20,
        capacity: int = 1000,
        gamma: float = 1.0,
        lam: float | None = None,
        tau: float = 0.1,
        rho: float = 0.995,
        n_min: float = 5.0,
        sigma: float = 0.0,
        warm_up: int = 1000,
        eta: float = 1.0,
        alpha: float = 1e-3,
        seed: int = 0,
    ) -> None:
        self._set_parameters(locals())

    def _said(self, outputs: Columns) -> F8:
        said: F8 = outputs["prediction"]
        return np.ascontiguousarray(said if said.ndim == 2 else said[:, None])

    def _n_wanted(self, block: Block, wide: int) -> int:
        """Targets, as many as the model answers."""
        return wide

    def _answers(self, said: F8, P: F8, side: F8) -> Columns:
        return {"prediction": P if P.shape[1] > 1 else P[:, 0]}


def ErrorMemory(model: Operator | Any, **arguments: Any) -> _ErrorMemory:
    """`ErrorMemoryClassifier` or `ErrorMemoryRegressor`, as the task of the model says."""
    stage = as_stage(model)
    family = ErrorMemoryRegressor if stage.task == "regression" else ErrorMemoryClassifier
    return family(stage, **arguments)
