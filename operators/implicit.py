"""Implicit online linear models: any convex loss, cost by non-zeros, for clicks and hashed text."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, LEARN, Block, Columns, Csr, Features
from streamlearn.jit import implicit, lift
from streamlearn.operators import _checks
from streamlearn.operators._base import Classifier, Regressor
from streamlearn.operators._supervised import Supervised, bad_weight, cut, plain, rows_of

_CLASS_LOSSES = {
    "softmax": implicit.SOFTMAX, "logistic": implicit.LOGISTIC, "hinge": implicit.HINGE
}  # fmt: skip
_TARGET_LOSSES = {
    "squared": implicit.SQUARED, "absolute": implicit.ABSOLUTE, "quantile": implicit.QUANTILE,
    "huber": implicit.HUBER, "poisson": implicit.POISSON,
}  # fmt: skip
_RATES = {
    "coordinate": implicit.COORDINATE, "scalar": implicit.SCALAR, "constant": implicit.CONSTANT
}  # fmt: skip
_STEPS = {"implicit": implicit.IMPLICIT, "truncated": implicit.TRUNCATED}


class _Implicit(Supervised):
    """What both share: the dual vectors, dense and sparse, and the call of the kernel.

    Three arrays have room for classes, and one for sparse columns, that may come; what their
    properties give is cut to what was learnt, so that it does not depend on how the stream was cut.
    """

    _arrays: ClassVar[tuple[str, ...]] = ("dense_", "sparse_", "outputs_", "scalars_")
    takes_sparse = True

    alpha: float
    beta: float
    rate: str
    rho: float
    l1: float
    step: str
    intercept: bool

    # -- construction ------------------------------------------------------------------------------

    def _set_parameters(self, given: dict[str, Any]) -> None:
        """Check and keep the parameters that both have."""
        owner = type(self).__name__
        self.alpha = _checks.positive(owner, "alpha", given["alpha"])
        self.beta = _checks.positive(owner, "beta", given["beta"])
        self.rate = _checks.choice(owner, "rate", given["rate"], _RATES)
        self.rho = _checks.between(owner, "rho", given["rho"], 0.0, 0.5)
        self.l1 = _checks.not_negative(owner, "l1", given["l1"])
        self.step = _checks.choice(owner, "step", given["step"], _STEPS)
        self.intercept = _checks.truth(owner, "intercept", given["intercept"])

    def _begin(self, **more: float) -> None:
        """The settings as the vector that the kernel takes, and the empty state."""
        settings = {
            implicit.ALPHA: self.alpha, implicit.BETA: self.beta,
            implicit.RATE: _RATES[self.rate], implicit.KEEP: 1.0 - self.rho,
            implicit.L1: self.l1, implicit.STEP: _STEPS[self.step],
            implicit.INTERCEPT: self.intercept,
        } | {getattr(implicit, name): value for name, value in more.items()}  # fmt: skip
        self._settings = np.array([float(settings.get(i, 0.0)) for i in range(implicit.N_SETTINGS)])
        self._clear()

    def _clear(self) -> None:
        """The state of an operator that has not even seen a feature."""
        self.scalars_ = np.zeros(implicit.N_SCALARS)
        self.scalars_[implicit.SCALE] = 1.0
        self._dense, self._sparse = np.zeros((1, 2, 0)), np.zeros((0, 2, 0))
        self._outputs = np.zeros((4, 0))
        self._work = np.zeros((implicit.WORK_ROWS, 0))
        self._widen(0 if self._classify else 1, 0)

    # -- state -------------------------------------------------------------------------------------

    @property
    def _first(self) -> int:
        """Columns before the first class: one, of a class that did not come, for one-vs-rest."""
        return 0

    @property
    def _n_outputs(self) -> int:
        """Classes or targets that are state; any more are room."""
        if self._classify:
            return int(self.scalars_[implicit.CLASSES])
        return self._outputs.shape[1]

    @property
    def _n_columns(self) -> int:
        return self._first + self._n_outputs

    dense_ = cut(
        "_dense", 2, "(1 + d, 2, K): dual vector, sum of squared steps; intercept, then features.",
        to="_n_columns",
    )  # fmt: skip
    outputs_ = cut(
        "_outputs", 1, "(4, K): weight learnt, running mean, running variance, squared steps.",
        to="_n_columns",
    )  # fmt: skip

    @property
    def sparse_(self) -> F8:
        """(m, 2, K): the same for the sparse columns up to the last that was learnt."""
        return self._sparse[: int(self.scalars_[implicit.WIDTH]), :, : self._n_columns]

    @sparse_.setter
    def sparse_(self, value: F8) -> None:
        self._sparse = np.ascontiguousarray(value)

    @property
    def n_samples_(self) -> int:
        """Labelled rows learnt."""
        return int(self.scalars_[implicit.SAMPLES])

    @property
    def n_rejected(self) -> int:
        """Rows with LEARN that were refused.

        For an infinite feature or target, a score that overflows, a label that is no class code, a
        target beyond 1e150, or a negative count.
        """
        return int(self.scalars_[lift.REJECTED])

    @property
    def n_imputed(self) -> int:
        """Missing dense features in rows with OBSERVE; each counts as 0."""
        return int(self.scalars_[lift.IMPUTED])

    def weights(self) -> tuple[F8, F8]:
        """The weights w = th / L: (1 + d, K), intercept first, and of the sparse columns (m, K)."""
        scale = self.scalars_[implicit.SCALE]
        found = []
        for cells in (self.dense_, self.sparse_):
            G = cells[:, 1] if self.rate == "coordinate" else self.outputs_[3]
            G = 0.0 if self.rate == "constant" else scale * scale * G
            th = scale * cells[:, 0]
            th = np.sign(th) * np.maximum(np.abs(th) - self.l1, 0.0)
            found.append((th / (self.alpha * np.sqrt(self.beta + G)))[:, self._first :])
        return found[0], found[1]

    def grow(self, features: Features) -> None:
        """Make room for dense features, with weight 0: exact for one that was always 0."""
        self._dense = _checks.padded(self._dense, (1 + len(features), *self._dense.shape[1:]))

    def _widen(self, K: int, width: int) -> None:
        """Room for K classes or targets, and for sparse columns below width; both may have more."""
        columns, (m, _, room) = self._first + K, self._sparse.shape
        if columns > self._outputs.shape[1]:
            columns = max(columns, room + room // 2 if self._classify else 0)
            self._outputs = _checks.padded(self._outputs, (4, columns))
            self._dense = _checks.padded(self._dense, (self._dense.shape[0], 2, columns))
            self._sparse = _checks.padded(self._sparse, (m, 2, columns))
        if width > m:
            room = self._sparse.shape[2]
            self._sparse = _checks.padded(self._sparse, (max(width, 2 * m), 2, room))
        if self._work.shape[1] != self._outputs.shape[1]:
            self._work = np.zeros((implicit.WORK_ROWS, self._outputs.shape[1]))

    # -- the walk ----------------------------------------------------------------------------------

    def _run(self, block: Block) -> Columns:
        K = self._n_wanted(block)
        sparse = block.sparse
        if sparse is None:
            sparse = Csr(np.zeros(0), np.zeros(0, np.int64), np.zeros(block.n + 1, np.int64), 0)
        elif (least := sparse.columns.min(initial=0)) < 0:
            raise ValueError(f"{type(self).__name__}: sparse columns must be >= 0, got {least}")
        learns = bool((block.mode & LEARN).any())
        self._widen(K, int(sparse.columns.max(initial=-1)) + 1 if learns else 0)
        X, *others = rows_of(block)
        rows = (X, *map(plain, (sparse.values, sparse.columns, sparse.indptr)), *others)
        room = self._outputs.shape[1] - self._first
        answer, side = np.empty((block.n, room)), np.empty((block.n, 1))
        walk = implicit.walk_classes if self._classify else implicit.walk_targets
        state = (self._dense, self._sparse, self._outputs, self.scalars_)
        bad = walk(rows, state, self._settings, self._work, (answer, side))
        if bad >= 0:
            raise bad_weight(self, block, bad)
        return self._named(block, answer, side if self._classify else None)


class ImplicitLinearClassifier(_Implicit, Classifier):
    """Linear classifier that cannot overshoot, at a cost that grows with the non-zeros of a row.

    Model: scores z_k = w_k . x, with w_k = th_k / L_k. A label moves th_k by -a_k x, where a is the
    gradient of the loss in the scores *after* the step, so a step never jumps over its own minimum,
    whatever the features and the learning rate. Probabilities are a softmax of z times a
    learned scale. Takes sparse columns (`Block.sparse`: hashed text, bags of words) beside
    dense ones; a feature that is missing counts as 0.
    Args:
        loss: "softmax", "logistic" or "hinge" (the last two one class against the rest).
        alpha: regulariser weight, L = alpha sqrt(beta + G), > 0: half of it doubles the rate.
        beta: start of G, > 0.
        rate: what G sums the squared steps of: "coordinate" (each weight for itself), "scalar"
            (all weights of a class), "constant" (none).
        rho: what is forgotten a label, in [0, 0.5]: th shrinks by 1 - rho, G by its square: about
            1 / rho labels are remembered; 0 for a stream that does not drift.
        l1: weights are 0 where |th| <= l1 (FTRL), >= 0.
        step: "implicit", or "truncated" (the explicit step, cut at the loss's infimum).
        intercept: whether there is a constant feature.
        lr_alpha: rate of the scale of the scores, in [0, 1]: it is learnt over about 1 / lr_alpha
            labels by natural gradients; 0 keeps it at 1.
        balance: weigh rows by N / (K n_c), so that all classes count alike.
    State:
        dense_: (1 + d, 2, K) float64, th and G of intercept and dense features; with one-vs-rest
            one column more, before the classes: of a class that did not come yet, so that a new
            class starts as if it had been known, and absent, from the first row on.
        sparse_: (m, 2, K) float64, the same of the sparse columns up to the last learnt.
        outputs_: (4, K) float64, weight learnt of each class, unused, unused, G of "scalar".
        scalars_: (9,) float64, counters, log of the scale of the scores, its information, and the
            common factor of th, in the order of `streamlearn.jit.implicit`.
    Rows with an infinity, or whose score overflows, are refused and get no answer (`n_rejected`).
    Cost: O(K (d + non-zeros)) time an event, no allocation in the kernel; 16 K (d + m) bytes.
    Raises: ValueError for a parameter out of range, and for a negative or infinite weight.
    Reference: Chen and Orabona (2023), Generalized Implicit Follow-The-Regularized-Leader; Kulis
    and Bartlett (2010), Implicit online learning; McMahan et al. (2013), Ad click prediction.
    >>> model = ImplicitLinearClassifier()
    >>> for i in range(20):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, "odd" if i % 2 else "even")
    >>> model.predict_one({"a": 0.5})
    'odd'
    """

    _classify = True

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {"loss": "logistic", "balance": True, "rho": 0.01}
        yield {"loss": "hinge", "step": "truncated", "rate": "scalar", "l1": 0.01}
        yield {"rho": 0.5, "rate": "constant", "intercept": False}

    def __init__(
        self,
        loss: str = "softmax",
        alpha: float = 1.0,
        beta: float = 1.0,
        rate: str = "coordinate",
        rho: float = 3e-4,
        l1: float = 0.0,
        step: str = "implicit",
        intercept: bool = True,
        lr_alpha: float = 0.01,
        balance: bool = False,
    ) -> None:
        self._set_parameters(locals())
        owner = type(self).__name__
        self.loss = _checks.choice(owner, "loss", loss, _CLASS_LOSSES)
        self.lr_alpha = _checks.between(owner, "lr_alpha", lr_alpha, 0.0, 1.0)
        self.balance = _checks.truth(owner, "balance", balance)
        self._begin(LOSS=_CLASS_LOSSES[loss], LR_ALPHA=self.lr_alpha, BALANCE=self.balance)

    def _clear(self) -> None:
        super()._clear()
        self.scalars_[implicit.FISHER] = 1.0

    @property
    def _first(self) -> int:
        return 0 if self.loss == "softmax" else 1

    @property
    def alpha_(self) -> float:
        """The learned scale of the scores."""
        return math.exp(self.scalars_[implicit.LOG_ALPHA])


class ImplicitLinearRegressor(_Implicit, Regressor):
    """Linear regression for any convex loss, by steps that cannot overshoot; sparse input too.

    Model, state and arguments as `ImplicitLinearClassifier`; y is (n,) or (n, q), each target with
    weights of its own.
    Args:
        loss: "squared", "absolute", "quantile", "huber" or "poisson" (counts >= 0, through exp).
        quantile: level of "quantile", in (0, 1). A step that stops at the target counts less than a
            gradient would: for exact coverage keep steps small (rho 0, or a larger alpha).
        huber: where "huber" becomes linear, > 0, in deviations of the target if it is scaled.
        scale_targets: learn (y - mean) / deviation, both running over about `memory` rows; with
            "poisson" log(mean) is added to the score. Else the size of a step hangs on the unit.
        memory: labels that mean and deviation reach back, >= 0; 0 is all.
    State: outputs_ (4, q) holds weight learnt, running mean and variance of each target, and G of
        "scalar".
    A row with any target missing teaches nothing; a target beyond 1e150 is refused.
    Cost: O(q (d + non-zeros)) time an event, no allocation in the kernel; 16 q (d + m) bytes.
    Raises: ValueError for a parameter out of range, a bad weight, a changed number of targets.
    >>> model = ImplicitLinearRegressor()
    >>> for i in range(200):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, 7.0 + i % 2)
    >>> round(model.predict_one({"a": 0.5}), 1)
    8.0
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {"loss": "quantile", "quantile": 0.9, "rate": "scalar", "rho": 0.01}
        yield {"loss": "huber", "step": "truncated", "memory": 50.0, "l1": 0.1}
        yield {"loss": "poisson", "intercept": False}
        yield {"loss": "absolute", "rate": "constant", "rho": 0.5, "scale_targets": False}

    def __init__(
        self,
        loss: str = "squared",
        quantile: float = 0.5,
        huber: float = 1.0,
        alpha: float = 1.0,
        beta: float = 1.0,
        rate: str = "coordinate",
        rho: float = 3e-4,
        l1: float = 0.0,
        step: str = "implicit",
        intercept: bool = True,
        scale_targets: bool = True,
        memory: float = 0.0,
    ) -> None:
        self._set_parameters(locals())
        owner = type(self).__name__
        self.loss = _checks.choice(owner, "loss", loss, _TARGET_LOSSES)
        self.quantile = _checks.between(owner, "quantile", quantile, 0.0, 1.0)
        if self.quantile in (0.0, 1.0):
            raise ValueError(f"{owner}: quantile must be in (0, 1), got {quantile!r}")
        self.huber = _checks.positive(owner, "huber", huber)
        self.scale_targets = _checks.truth(owner, "scale_targets", scale_targets)
        self.memory = _checks.not_negative(owner, "memory", memory)
        self._begin(
            LOSS=_TARGET_LOSSES[loss],
            LEVEL=self.huber if loss == "huber" else self.quantile,
            RESCALE=self.scale_targets,
            MEMORY=self.memory,
        )
