"""Kalman heads: linear learners whose weights drift, and that learn how much to forget."""

import logging
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, I8, LEARN, Block, Columns, Features
from streamlearn.contracts import State
from streamlearn.jit import kalman, lift
from streamlearn.jit.random_features import random_weights
from streamlearn.operators import _checks
from streamlearn.operators._base import Classifier, Operator, Regressor

_log = logging.getLogger(__name__)
_FORMS = {  # kernels by form of the covariance; kept here, as River measures what an operator keeps
    "standard": kalman.walk_standard,
    "joseph": kalman.walk_joseph,
    "sqrt": kalman.walk_sqrt,
}
_OBJECTIVES = ("softmax", "gaussian")
_REFUSED = 1e12  # sigma_w2 |f|^2 / sigma2 beyond it leaves no correct digit in the covariance
_MAX_CLASSES = 100_000  # a label beyond it is no class code


class _KalmanHead(Operator):
    """What both heads share: the drifting Gaussian model, its state, and the call of the kernel.

    The state is five arrays. Two of them have room for classes that may come; what their properties
    give is cut to the classes known, so that it does not depend on how the stream was cut.
    """

    _arrays: ClassVar[tuple[str, ...]] = (
        "means_", "covariance_", "inputs_", "outputs_", "scalars_",
    )  # fmt: skip
    _classify: ClassVar[bool] = False
    recalls_input = True

    sigma_w2: float
    sigma2: float
    delta0: float
    lr_delta: float
    delta_max: float
    feature_norm2: float
    form: str
    decay_mean: bool
    qr_every: int
    random_features: int
    random_scale: float
    seed: int

    # -- construction ------------------------------------------------------------------------------

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {"random_features": 7, "seed": 3}
        yield {"form": "joseph", "delta0": 0.01}
        yield {"form": "sqrt", "decay_mean": False}

    def _set_parameters(self, given: dict[str, Any]) -> None:
        """Check and keep the parameters that both heads have."""
        owner = type(self).__name__
        for name in ("sigma_w2", "sigma2", "random_scale"):
            setattr(self, name, _checks.positive(owner, name, given[name]))
        for name in ("delta0", "lr_delta", "delta_max", "feature_norm2"):
            setattr(self, name, _checks.not_negative(owner, name, given[name]))
        _checks.between(owner, "delta0", self.delta0, 0.0, self.delta_max)
        self.form = _checks.choice(owner, "form", given["form"], _FORMS)
        self.decay_mean = _checks.truth(owner, "decay_mean", given["decay_mean"])
        self.qr_every = _checks.whole(owner, "qr_every", given["qr_every"], 1)
        self.random_features = _checks.whole(owner, "random_features", given["random_features"], 0)
        self.seed = _checks.whole(owner, "seed", given["seed"], 0)

    def _begin(self, **more: float) -> None:
        """The settings as the vector that the kernel takes, and the empty state."""
        settings = {
            kalman.S_W: self.sigma_w2, kalman.S2: self.sigma2, kalman.LR_DELTA: self.lr_delta,
            kalman.DELTA_MAX: self.delta_max, lift.NORM2: self.feature_norm2,
            lift.LIMIT: _REFUSED * self.sigma2 / self.sigma_w2,
            kalman.DECAY_MEAN: self.decay_mean, kalman.QR_EVERY: self.qr_every,
        } | {getattr(kalman, name): value for name, value in more.items()}  # fmt: skip
        self._settings = np.array([float(settings.get(i, 0.0)) for i in range(kalman.N_SETTINGS)])
        self._clear()

    def _clear(self) -> None:
        """The state of an operator that has not even seen a feature."""
        self.scalars_ = np.zeros(kalman.N_SCALARS)
        self.scalars_[kalman.DELTA] = self.delta0
        self.inputs_ = np.zeros((2, 0))
        self.covariance_ = np.zeros((0, 0))
        self._means, self._outputs = np.zeros((0, 0)), np.zeros((3, 0))
        self._random = self._work = np.zeros((0, 0))
        self._lifted = np.zeros((0, 0)), np.zeros(0, dtype=np.int64)
        self._warned = False
        self.grow(Features(()))
        self._widen(0 if self._classify else 1)

    # -- state -------------------------------------------------------------------------------------

    @property
    def _n_outputs(self) -> int:
        """Columns of means and outputs that are state; any more are room."""
        if self._classify:
            return int(self.scalars_[kalman.CLASSES])
        return self._means.shape[0]

    @property
    def means_(self) -> F8:
        """(K, D) posterior means of bias, random features, features; a row a class or target."""
        return self._means[: self._n_outputs]

    @means_.setter
    def means_(self, value: F8) -> None:
        self._means = np.ascontiguousarray(value)

    @property
    def outputs_(self) -> F8:
        """(3, K): rows learnt (a target: weight), running mean, running variance scale."""
        return self._outputs[:, : self._n_outputs]

    @outputs_.setter
    def outputs_(self, value: F8) -> None:
        self._outputs = np.ascontiguousarray(value)

    @property
    def delta_(self) -> float:
        """The learned drift rate: a label later, weights keep exp(-delta / 2) of themselves."""
        return float(self.scalars_[kalman.DELTA])

    @property
    def gap_(self) -> int:
        """Time updates that are due: labels that did not come since the last update."""
        return int(self.scalars_[kalman.GAP])

    @property
    def n_samples_(self) -> int:
        """Labelled rows learnt."""
        return int(self.scalars_[kalman.SAMPLES])

    @property
    def n_rejected(self) -> int:
        """Rows with LEARN that were refused.

        For an infinite feature or target, a label that is no class code, or, with
        `feature_norm2=0`, features too large for the covariance to keep a correct digit.
        """
        return int(self.scalars_[lift.REJECTED] + self.scalars_[lift.REFUSED])

    @property
    def n_imputed(self) -> int:
        """Missing values in rows with OBSERVE, filled with the running mean of their feature."""
        return int(self.scalars_[lift.IMPUTED])

    def grow(self, features: Features) -> None:
        """Make room for features: mean 0, variance sigma_w2; exact for one that was always 0."""
        d, h = len(features), self.random_features
        self.inputs_ = _checks.padded(self.inputs_, (2, d))
        self._means = _checks.padded(self._means, (self._means.shape[0], 1 + h + d))
        prior = math.sqrt(self.sigma_w2) if self.form == "sqrt" else self.sigma_w2
        self.covariance_ = _checks.padded(self.covariance_, (1 + h + d, 1 + h + d), diagonal=prior)
        self._work = np.zeros((0, 0))  # too small for the new width
        self._random = random_weights(self.seed, features.names if h else (), h, self.random_scale)

    def load(self, state: State) -> None:
        """Take over a state that `state` gave; the operator must have the same parameters."""
        self._clear()
        super().load(state)

    def _widen(self, K: int) -> None:
        """Room for K classes or targets, and scratch to fit."""
        D, room = self.covariance_.shape[0], self._means.shape[0]
        if room >= K and self._work.shape[1] >= max(D, room):
            return
        if room < K:
            self._means = _checks.padded(self._means, (K, D))
            self._outputs = _checks.padded(self._outputs, (3, K))
            self._outputs[2, room:] = 1.0  # a variance scale
        self._work = np.zeros((kalman.work_rows(self.form, D), max(D, K, room)))

    def inflate(self, factor: float) -> None:
        """Widen the covariance after a drift: what the data told counts 1 / factor as much.

        In terms of precision, A^-1 - I / sigma_w2 is divided by factor, so the prior stays an upper
        bound; a small variance is multiplied by factor. The means stay. factor >= 1; O(D^3) time.
        """
        owner = type(self).__name__
        if _checks.number(owner, "factor", factor) < 1.0:
            raise ValueError(f"{owner}: factor must be >= 1, got {factor!r}")
        widen = kalman.inflate_root if self.form == "sqrt" else kalman.inflate_covariance
        widen(self.covariance_, float(factor), self.sigma_w2)

    # -- the walk ----------------------------------------------------------------------------------

    def _walk_block(self, block: Block, K: int, wide: int) -> tuple[F8, F8]:
        """Call the kernels with room for K classes or targets: answers (n, K) and (n, wide)."""
        self._widen(K)
        n = block.n
        y = block.y if block.y.ndim == 2 else block.y[:, None]
        rows = (_plain(block.X), _plain(y), _plain(block.weight), _plain(block.mode))
        F, codes = self._lifted
        if F.shape != (n, self.covariance_.shape[0]):
            F, codes = np.empty((n, self.covariance_.shape[0])), np.empty(n, dtype=np.int64)
            if n == 1:  # kept where two allocations cost as much as the walk, not beyond
                self._lifted = F, codes
        room = self._means.shape[0] if self._classify else 0
        lifted = lift.lift_random if self.random_features else lift.lift_linear
        bad = lifted(
            rows, self.inputs_, self.scalars_, self._settings, self._random, F, codes, room
        )
        if bad >= 0:
            raise ValueError(
                f"{type(self).__name__}: weight must be >= 0 and finite, got {block.weight[bad]} "
                f"in row {bad} of the block"
            )
        answer, side = np.empty((n, self._means.shape[0])), np.empty((n, wide))
        _FORMS[self.form](
            (F, codes, *rows[1:]),
            (self._means, self.covariance_, self._outputs, self.scalars_),
            (self._settings, self._work),
            (answer, side),
            None if self._classify else True,
        )
        if not self._warned and self._n_troubles() > 0.0:
            self._warn()
        return answer, side

    def seen(self, block: Block, rows: I8) -> F8:
        """The features of these rows with their gaps filled."""
        X: F8 = block.X[rows]
        if not np.isnan(X).any():
            return X
        self._admit(block)
        seen: F8 = self._seen(block, self._n_wanted(block))["log:X"][rows]
        return seen

    def _n_wanted(self, block: Block) -> int:
        """Classes or targets that there must be room for to walk this block."""
        raise NotImplementedError(f"{type(self).__name__} has no _n_wanted")

    def _seen(self, block: Block, K: int) -> Columns:
        """The features with every gap filled as it is at scoring: a late label teaches on these.

        Rows that are empty or not taken stay as they are, to be passed over again.
        """
        X, missing = _plain(block.X), np.isnan(block.X)
        if not missing.any():
            return {"log:X": X}
        self._widen(K)
        F = np.empty((block.n, self.covariance_.shape[0]))
        codes = np.empty(block.n, dtype=np.int64)
        y = block.y if block.y.ndim == 2 else block.y[:, None]
        rows = (X, _plain(y), _plain(block.weight), _plain(block.mode))
        room = self._means.shape[0] if self._classify else 0
        lifted = lift.lift_random if self.random_features else lift.lift_linear
        inputs, scalars = self.inputs_.copy(), self.scalars_.copy()
        if lifted(rows, inputs, scalars, self._settings, self._random, F, codes, room) >= 0:
            return {"log:X": X}  # a bad weight, which the walk reports
        filled = np.empty_like(X)
        lift.fill_gaps(rows, self.inputs_.copy(), codes, filled)
        kept = missing.all(axis=1) | (codes == lift.SKIP)
        return {"log:X": np.where(kept[:, None], X, filled)}

    def _n_troubles(self) -> float:
        return float(self.scalars_[lift.REFUSED] + self.scalars_[kalman.REPAIRED])

    def _warn(self) -> None:
        """Say once that rows are refused, or that the covariance had to be repaired."""
        self._warned = True
        _log.warning(
            "%s: refused %d rows whose features are too large (put Normalizer() before it, or set "
            "feature_norm2), repaired the covariance %d times",
            type(self).__name__, self.scalars_[lift.REFUSED], self.scalars_[kalman.REPAIRED],
        )  # fmt: skip


def _plain(array: Any) -> Any:
    """The array, or a copy if it is read-only or strided: one compiled kernel serves all."""
    return array if array.flags.carray else array.copy()


class KalmanClassifier(_KalmanHead, Classifier):
    """Linear classifier whose weights drift, with calibrated probabilities and learned forgetting.

    Model: one-hot label y_n = W_n' f_n + noise, noise ~ N(0, sigma2 I). Each column of W drifts as
    w_n = gamma w_(n-1) + N(0, (1 - gamma^2) sigma_w2 I), gamma = exp(-delta / 2). Given delta the
    Kalman filter is exact; delta climbs the predictive likelihood by one clipped gradient step a
    label. Probabilities are a softmax of the means, tempered by the latent variance (mean field)
    and a learned scale alpha. Features: f = (1, random tanh features, x), rescaled to squared norm
    `feature_norm2`; inputs should be of similar scale, so put `Normalizer()` before it.
    Args:
        sigma_w2: prior variance of a weight, > 0; the covariance never exceeds it.
        sigma2: noise variance of a label, > 0; raise it (to 1, say) when labels are noisy.
        delta0: drift rate at the start, in [0, delta_max].
        lr_delta: step of delta a label, >= 0; 0 keeps delta0.
        delta_objective: what delta climbs: "softmax" (log probability of the label) or "gaussian".
        delta_max: upper bound of delta, >= 0.
        alpha0: scale of the logits at the start, in [0.1, 100].
        lr_alpha: step of log alpha a label, >= 0.
        feature_norm2: squared norm of f; 0 leaves f as it is.
        form: of the covariance: "standard", "joseph" or "sqrt" (Potter; definite whatever comes).
        decay_mean: whether the means shrink by gamma too; the filter is exact only if they do.
        qr_every: with "sqrt", labels between two time updates, >= 1; 1 is exact, each costs O(D^3).
        random_features: number of tanh features, >= 0; 0 is linear.
        random_scale: standard deviation of their weights and biases, > 0.
        seed: of the random features, which are drawn by feature name.
    State:
        means_: (K, D) float64, D = 1 + random_features + d; K = 1 + largest class code learnt.
        covariance_: (D, D) float64, shared by all classes; with "sqrt" the factor R of R'R.
        inputs_: (2, d) float64, weight seen and running mean of each feature, learnt on OBSERVE
            rows.
        outputs_: (3, K) float64, rows learnt of each class, then zeros and ones.
        scalars_: (9,) float64, delta, log alpha, gap and counters, in the order of
            `streamlearn.jit.kalman`.
    A missing feature is imputed by its running mean from before the row. A LEARN row without a
    label, with weight 0 or without any feature adds a due time update (`gap_`). Rows with an
    infinity are refused (`n_rejected`). A class exists from the first row that teaches it, with a
    column of zeros, which is exact.
    Cost: O(D^2 + K D) time an event, no allocation in the kernel; O(D^2 + K D) memory.
    Raises: ValueError for a parameter out of range, and for a negative or infinite weight.
    Reference: Titsias, Galashov, Rannen-Triki, Pascanu, Teh and Bornschein (2023), Kalman Filter
    for Online Classification of Non-Stationary Data, arXiv 2306.08448.
    >>> model = KalmanClassifier()
    >>> for i in range(100):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, "odd" if i % 2 else "even")
    >>> model.predict_one({"a": 0.5})
    'odd'
    """

    _classify = True

    def __init__(
        self,
        sigma_w2: float = 1.0,
        sigma2: float = 0.1,
        delta0: float = 0.0,
        lr_delta: float = 1e-4,
        delta_objective: str = "softmax",
        delta_max: float = 0.2,
        alpha0: float = 1.0,
        lr_alpha: float = 0.02,
        feature_norm2: float = 10.0,
        form: str = "standard",
        decay_mean: bool = True,
        qr_every: int = 32,
        random_features: int = 0,
        random_scale: float = 2.0,
        seed: int = 0,
    ) -> None:
        self._set_parameters(locals())
        owner = type(self).__name__
        self.delta_objective = _checks.choice(
            owner, "delta_objective", delta_objective, _OBJECTIVES
        )
        self.alpha0 = _checks.between(owner, "alpha0", alpha0, 0.1, 100.0)
        self.lr_alpha = _checks.not_negative(owner, "lr_alpha", lr_alpha)
        self._begin(LR_ALPHA=self.lr_alpha, SOFTMAX=self.delta_objective == "softmax")

    def _clear(self) -> None:
        super()._clear()
        self.scalars_[kalman.LOG_ALPHA] = math.log(self.alpha0)

    @property
    def alpha_(self) -> float:
        """The learned scale of the logits."""
        return math.exp(self.scalars_[kalman.LOG_ALPHA])

    def _run(self, block: Block) -> Columns:
        K = self._n_wanted(block)
        seen = self._seen(block, K) if block.log_wanted else {}
        answer, side = self._walk_block(block, K, 1)
        known = self._n_outputs
        if known < answer.shape[1]:
            answer = np.ascontiguousarray(answer[:, :known])
        return {"prediction": side[:, 0], "proba": answer} | seen

    def _n_wanted(self, block: Block) -> int:
        """Classes that may be known after this block."""
        if block.y.ndim != 1:
            raise ValueError(
                f"{type(self).__name__}: y must be one target a row, (n,), "
                f"got shape {block.y.shape}"
            )
        known = self._n_outputs
        if block.labels is not None and len(block.labels) <= known:
            return known
        codes = block.y[block.y < _MAX_CLASSES]
        return max(known, 1 + int(codes.max(initial=-1.0)))


class KalmanRegressor(_KalmanHead, Regressor):
    """Linear regression whose weights drift, with predictive variances and learned forgetting.

    Model, state and arguments as `KalmanClassifier`, without the softmax; y is (n,) or (n, q).
    delta climbs the Gaussian log predictive density. Outputs `prediction` and `variance`.
    Args:
        feature_norm2: squared norm of f; 0 (as it is), where the classifier has 10, because
            rescaling row by row bends a linear target (hourly bike rentals: mean absolute error
            16.2 against 1.2). With random features 10 is better.
        centre_targets: subtract the running mean of a target, as drifting weights shrink to 0.
        scale_targets: estimate the scale of a target from its standardised residuals (memory 1000
            labels), so that delta and `variance` do not depend on its unit; the means never do.
    State: outputs_ (3, q) holds weight learnt, running mean and variance scale of each target.
    A row with any target missing counts as unlabelled; a target beyond 1e300 as infinite.
    Cost: O(D^2 + q D) time an event, no allocation in the kernel; O(D^2 + q D) memory.
    Raises: ValueError for a parameter out of range, a bad weight, a changed number of targets.
    Reference: Titsias et al. (2023), arXiv 2306.08448.
    >>> model = KalmanRegressor()
    >>> for i in range(100):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, 7.0 + i % 2)
    >>> round(model.predict_one({"a": 0.5}), 2)
    8.0
    """

    def __init__(
        self,
        sigma_w2: float = 1.0,
        sigma2: float = 0.1,
        delta0: float = 0.0,
        lr_delta: float = 1e-4,
        delta_max: float = 0.2,
        feature_norm2: float = 0.0,
        centre_targets: bool = True,
        scale_targets: bool = True,
        form: str = "standard",
        decay_mean: bool = True,
        qr_every: int = 32,
        random_features: int = 0,
        random_scale: float = 2.0,
        seed: int = 0,
    ) -> None:
        self._set_parameters(locals())
        owner = type(self).__name__
        self.centre_targets = _checks.truth(owner, "centre_targets", centre_targets)
        self.scale_targets = _checks.truth(owner, "scale_targets", scale_targets)
        self._begin(CENTRE=self.centre_targets, RESCALE=self.scale_targets)

    def _run(self, block: Block) -> Columns:
        q = self._n_wanted(block)
        seen = self._seen(block, q) if block.log_wanted else {}
        answer, side = self._walk_block(block, q, q)
        if block.y.ndim == 1 and q == 1:
            return {"prediction": answer[:, 0], "variance": side[:, 0]} | seen
        return {"prediction": answer, "variance": side} | seen

    def _n_wanted(self, block: Block) -> int:
        """Number of targets: given by the first block with more than one column, and fixed by the
        first label.
        """
        known = self._n_outputs
        q = 1 if block.y.ndim == 1 else block.y.shape[1]
        if q == known or (q > known and self.n_samples_ == 0):
            return q
        if block.y.ndim == 1 and not (block.mode & LEARN).any():
            return known  # asked only: y says nothing
        raise ValueError(f"{type(self).__name__}: y must have {known} columns, got {q}")
