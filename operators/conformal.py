"""Adaptive conformal prediction: intervals and sets around any model that hold under drift."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, U1, Block, Columns
from streamlearn.jit import conformal as jit
from streamlearn.operators import _checks, _prequential
from streamlearn.operators._base import Classifier, Operator, Regressor, Row
from streamlearn.operators._ensemble import probabilities
from streamlearn.operators._supervised import plain, refuse_bad_weights
from streamlearn.operators._wrapper import Wrapper, with_room
from streamlearn.operators.baselines import MajorityClassifier, MeanRegressor
from streamlearn.operators.foreign import as_stage
from streamlearn.operators.kalman import KalmanClassifier, KalmanRegressor

_ISSUED = "issued"  # what is logged at scoring, besides what the model said


class _Conformal(Wrapper):
    """The scores, the level, and what is reported; the families differ in what a score is."""

    _arrays: ClassVar[tuple[str, ...]] = ("ring_", "scores_", "scalars_")

    coverage: float
    gamma: float
    memory: int
    make_up: float

    def _set_parameters(self, given: dict[str, Any], exact: bool) -> None:
        """Check and keep the parameters that both families have, and take in the model."""
        owner = type(self).__name__
        self.model = as_stage(given["model"])
        self.coverage = _checks.between(owner, "coverage", given["coverage"], 0.5, 0.999)
        self.gamma = _checks.between(owner, "gamma", given["gamma"], 0.0001, 0.2)
        self.memory = _checks.whole(owner, "memory", given["memory"], 10)
        if (self.memory + 1) * self.coverage > self.memory:
            least = math.ceil(self.coverage / (1.0 - self.coverage))
            raise ValueError(
                f"{owner}: memory must be >= {least} for coverage {self.coverage:g}, "
                f"got {self.memory}"
            )
        self.make_up = _checks.not_negative(owner, "make_up", given["make_up"])
        self._p = np.array([self.coverage, self.gamma, float(exact), self.make_up])
        self._adopt([self.model], ["model"])
        self._clear()

    def _clear(self) -> None:
        self._begin(1)

    def _begin(self, M: int) -> None:
        """Room for the scores of M targets, and levels from which to begin."""
        self.ring_: F8 = np.zeros((M, self.memory))
        self.scores_: F8 = np.zeros((M, self.memory))
        self.scalars_: F8 = np.zeros((M, jit.N_SCALARS))
        self.scalars_[:, jit.LEVEL] = 1.0 - self.coverage

    def _log(self, block: Block, outputs: Columns, issued: F8, names: tuple[str, ...]) -> Columns:
        """What goes to the log, if one is wanted."""
        if not block.log_wanted:
            return {}
        return {f"log:{_ISSUED}": issued} | self._logged(block, outputs, names)

    # -- what is reported --------------------------------------------------------------------------

    @property
    def n_samples_(self) -> int:
        """Labels judged, of all targets."""
        return int(self.scalars_[:, jit.JUDGED].sum())

    @property
    def n_rejected(self) -> int:
        """Labels refused: infinite, too far away, or no class code."""
        return int(self.scalars_[:, jit.REJECTED].sum())

    @property
    def level_(self) -> F8:
        """(M,) the level of now: scores above rank 1 - level are outside."""
        return self.scalars_[:, jit.LEVEL].copy()

    @property
    def coverage_(self) -> F8:
        """(M,) share of the judged labels that were inside; NaN before the first."""
        return self._share(jit.COVERED)

    @property
    def boundless_(self) -> F8:
        """(M,) share of the judged labels that were answered without a bound; NaN before one."""
        return self._share(jit.BOUNDLESS)

    def _share(self, what: int) -> F8:
        with np.errstate(invalid="ignore"):
            return np.asarray(self.scalars_[:, what] / self.scalars_[:, jit.JUDGED])


class ConformalRegressor(_Conformal, Regressor):
    """A regressor with intervals that hold the share asked for, whatever its model and its drift.

    Model: the interval is prediction +- r_t (times the standard deviation that the model states,
    with `scaled`), where r_t is the score of rank 1 - alpha_t among the last `memory` scores
    |y - prediction|. Each label moves the level: alpha_t+1 = alpha_t + gamma (alpha - error_t),
    where error_t is 1 for a label outside the interval that was issued, and alpha = 1 - coverage.
    So errors over any T labels are T alpha - (alpha_T - alpha_0) / gamma, whatever the data: of
    5,000 labels 90 +- 1 % are inside as long as the level moves by less than 0.75 at gamma 0.015.
    Below alpha_t = 0 the largest score is doubled for each further error, instead of an interval
    without ends (that is our own). There is no interval before the first 1 / alpha labels.
    A late label judges the interval that was issued when its event was scored, and counts against
    the level of then; intervals whose label is still to come count with the level they were issued
    at (a Smith predictor), so the loop does not swing. With k labels in between gamma is at most
    0.5 / k, the largest score is at most doubled, and at most `make_up` errors are made up for.
    Args:
        model: a regressor, a pipeline that ends in one, or a River or scikit-learn regressor.
        coverage: share of labels to be inside, in [0.5, 0.999].
        gamma: how fast the level moves, in [0.0001, 0.2]. Larger follows drift sooner, with
            intervals whose width varies more.
        memory: scores remembered, >= coverage / (1 - coverage).
        make_up: errors that late labels may ask to be made up for, >= 0. 1,000 hold the mean where
            errors change all the time within the delay; 50 where drifts are rare, whose errors
            before the first label should not make intervals too wide afterwards.
        scaled: whether a score is divided by the root of the model's `variance`; for models whose
            variance tells easy rows from hard ones.
    Outputs: those of the model, `lower` and `upper` (n,) or (n, q), NaN where there is no bound.
    State: ring_, scores_ (q, memory) float64, scores by time and in order. scalars_ (q, 9) float64,
        the level and counters, in the order of `streamlearn.jit.conformal`.
    Cost: the model's, and O(log memory + memory / 8) a label and target, no allocation in the
        kernel.
    Raises: ValueError for a parameter out of range, and a model that does another task.
    Reference: Gibbs and Candes (2021), Adaptive conformal inference under distribution shift;
    Angelopoulos, Candes and Tibshirani (2023), Conformal PID control for time series prediction,
    for ranks in a moving window and the bound on the sum of errors.
    >>> from streamlearn.operators import ConformalRegressor, MeanRegressor
    >>> model = ConformalRegressor(MeanRegressor(), coverage=0.8)
    >>> for i in range(100):
    ...     model.learn_one({"a": 1.0}, float(i % 5))
    >>> [round(end, 6) for end in model.predict_interval_one({"a": 1.0})]
    [-0.0, 4.0]
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {"model": KalmanRegressor(), "coverage": 0.7, "memory": 10, "gamma": 0.1}
        yield {"model": MeanRegressor(), "coverage": 0.6, "memory": 12}

    def __init__(
        self,
        model: Operator | Any,
        coverage: float = 0.9,
        gamma: float = 0.015,
        memory: int = 250,
        make_up: float = 1000.0,
        scaled: bool = False,
    ) -> None:
        self._set_parameters(locals(), exact=False)
        self.scaled = _checks.truth(type(self).__name__, "scaled", scaled)

    @property
    def width_(self) -> F8:
        """(M,) mean width of the bounded intervals that labels judged; NaN before one."""
        s = self.scalars_
        with np.errstate(invalid="ignore"):
            return np.asarray(s[:, jit.SIZE] / (s[:, jit.JUDGED] - s[:, jit.BOUNDLESS]))

    def predict_interval_one(self, x: Row) -> tuple[float, float]:
        """The interval for one event, given as a dict; NaN where there is no bound yet."""
        with self._aware_of(x):
            outputs = self._answer(x)
        return float(outputs["lower"][0]), float(outputs["upper"][0])

    def _run(self, block: Block) -> Columns:
        refuse_bad_weights(self, block)
        asked = self._asked(block)
        outputs, then = self._heard(asked, ("prediction", "variance"))
        M = self._n_targets(block, outputs["prediction"])
        shape = (block.n, M)
        answers = np.ascontiguousarray(then["prediction"].reshape(shape))
        given = block.y if block.y.ndim == 2 else block.y[:, None]
        y = np.ascontiguousarray(np.broadcast_to(given, shape))
        lower, upper, issued = (
            np.empty(shape),
            np.empty(shape),
            np.empty((block.n, jit.N_NUMBERS * M)),
        )
        rows = (answers, self._scales(then, shape), y, plain(block.weight), plain(block.mode))
        state = self.ring_, self.scores_, self.scalars_
        told = self._logged_then(block, _ISSUED, jit.N_NUMBERS * M)
        jit.cover_numbers(rows, told, state, self._p, (lower, upper, issued))
        wanted = outputs["prediction"].shape
        outputs = outputs | {"lower": lower.reshape(wanted), "upper": upper.reshape(wanted)}
        logs = self._log(block, outputs, issued, ("prediction", "variance"))
        return _prequential.hidden(outputs | logs, block)

    def _scales(self, said: Columns, shape: tuple[int, int]) -> F8:
        """What scores are divided by, > 0."""
        if not self.scaled:
            return np.ones(shape)
        if "variance" not in said:
            name = type(self.model).__name__
            raise ValueError(f"{type(self).__name__}: scaled needs a variance, {name} states none")
        variance = said["variance"].reshape(shape)
        good = (variance > 0.0) & (variance < math.inf)
        return np.sqrt(np.where(good, variance, 1.0))

    def _n_targets(self, block: Block, prediction: F8) -> int:
        """Number of targets; it may only change before the first label."""
        M = 1 if prediction.ndim == 1 else prediction.shape[1]
        if self.ring_.shape[0] != M:
            if self.n_samples_ + self.n_rejected > 0:
                raise ValueError(
                    f"{type(self).__name__}: y must have {self.ring_.shape[0]} columns, got {M}"
                )
            self._begin(M)
        return M


class ConformalClassifier(_Conformal, Classifier):
    """A classifier with sets of classes that hold the share asked for, under drift too.

    Model: the set holds every class whose probability is at least 1 - r_t, where r_t is the score
    of rank 1 - alpha_t among the last `memory` scores 1 - p(label); the level alpha_t moves as in
    `ConformalRegressor`, late labels as there. A class that was unknown when its event was scored
    is an error of the set. Below alpha_t = 0 the set is all known classes, and so it is before the
    first 1 / alpha labels.
    Where a model is right more often than `coverage`, sets would have to be empty now and then to
    be wrong often enough: the most probable class is shown instead, and more is covered than asked.
    Args:
        model: a classifier, a pipeline that ends in one, or a River or scikit-learn classifier.
        coverage: share of labels to be inside, in [0.5, 0.999].
        gamma: how fast the level moves, in [0.0001, 0.2].
        memory: scores remembered, >= coverage / (1 - coverage).
        make_up: errors that late labels may ask to be made up for, >= 0. 50 are 1 % of 5,000; with
            some hundreds sets are larger after a drift, and cover little more.
        exact: whether sets may be empty, so that coverage is met from above too.
    Outputs: those of the model, `set` (n, C) uint8, 1 for a class inside; 0 where not asked, and
        where there is no answer.
    State: ring_, scores_ (1, memory) float64, scores by time and in order. scalars_ (1, 9) float64,
        the level and counters, in the order of `streamlearn.jit.conformal`.
    Cost: the model's, and O(C + log memory + memory / 8) an event, no allocation in the kernel.
    Raises: ValueError for a parameter out of range, and a model that does another task.
    Reference: as `ConformalRegressor`; Sadinle, Lei and Wasserman (2019), Least ambiguous
    set-valued classifiers with bounded error levels, for the score.
    >>> from streamlearn.operators import ConformalClassifier, MajorityClassifier
    >>> model = ConformalClassifier(MajorityClassifier())
    >>> for i in range(100):
    ...     model.learn_one({"a": 1.0}, "rare" if i % 20 == 19 else "common")
    >>> model.predict_set_one({"a": 1.0})
    {'common'}
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {"model": KalmanClassifier(), "coverage": 0.7, "memory": 10, "gamma": 0.1}
        yield {"model": MajorityClassifier(), "coverage": 0.6, "memory": 12, "exact": True}

    def __init__(
        self,
        model: Operator | Any,
        coverage: float = 0.9,
        gamma: float = 0.02,
        memory: int = 250,
        make_up: float = 50.0,
        exact: bool = False,
    ) -> None:
        self.exact = _checks.truth(type(self).__name__, "exact", exact)
        self._set_parameters(locals(), self.exact)

    @property
    def size_(self) -> F8:
        """(1,) mean number of classes in the sets that labels judged; NaN before one."""
        return self._share(jit.SIZE)

    def predict_set_one(self, x: Row) -> set[Any]:
        """The classes in the set of one event, given as a dict; empty before any class is known."""
        with self._aware_of(x):
            inside = self._answer(x)["set"][0]
        return {self._label(k) for k in np.flatnonzero(inside).tolist()}

    def _run(self, block: Block) -> Columns:
        refuse_bad_weights(self, block)
        asked = self._asked(block)
        outputs, then = self._heard(asked, ("prediction", "proba"))
        P = with_room(block, probabilities([then], block.n)[:, 0], int(self.scalars_[0, jit.KNOWN]))
        P[np.isnan(then["prediction"])] = np.nan
        inside: U1 = np.empty(P.shape, dtype=np.uint8)
        issued = np.empty((block.n, jit.N_CLASSES))
        rows = (P, plain(block.y), plain(block.weight), plain(block.mode))
        state = self.ring_, self.scores_, self.scalars_
        told = self._logged_then(block, _ISSUED, jit.N_CLASSES)
        jit.cover_classes(rows, told, state, self._p, (inside, issued))
        logs = self._log(block, outputs, issued, ("prediction", "proba"))
        return _prequential.hidden(outputs | {"set": inside} | logs, block)
