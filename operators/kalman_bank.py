"""Banks of Kalman heads: a grid of fixed drift rates, mixed by how well each one predicts."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, Features
from streamlearn.jit import kalman, kalman_bank, lift
from streamlearn.operators import _checks
from streamlearn.operators._base import Classifier, Regressor
from streamlearn.operators._lifted import Lifted, Out, Rows
from streamlearn.operators._supervised import cut

_DELTAS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
_ASKED = np.uint8(1)


class _KalmanBank(Lifted):
    """What both banks share: J heads in one state, and the call of the kernel.

    Arrays have room for classes that may come; their properties are cut to the classes known, so
    that they do not depend on how the stream was cut.
    """

    _arrays: ClassVar[tuple[str, ...]] = (
        "means_", "covariance_", "inputs_", "outputs_", "scalars_", "heads_", "log_weights_",
    )  # fmt: skip

    deltas: Sequence[float]
    discount: float

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {"deltas": [0.0, 0.02], "random_features": 5, "discount": 0.9}
        yield {"deltas": [1e-3], "decay_mean": False, "feature_norm2": 3.0}

    def _set_parameters(self, given: dict[str, Any]) -> None:
        """Check and keep the parameters that both banks have."""
        owner = type(self).__name__
        self.deltas = given["deltas"]
        if not isinstance(self.deltas, Sequence) or isinstance(self.deltas, str):
            raise ValueError(f"{owner}: deltas must be a list of numbers, got {self.deltas!r}")
        if not self.deltas:
            raise ValueError(f"{owner}: deltas must hold at least one, got {self.deltas!r}")
        for k, delta in enumerate(self.deltas):
            _checks.not_negative(owner, f"deltas[{k}]", delta)
        self.discount = _checks.between(owner, "discount", given["discount"], 0.0, 1.0)
        for name in ("sigma_w2", "sigma2", "random_scale"):
            setattr(self, name, _checks.positive(owner, name, given[name]))
        self.feature_norm2 = _checks.not_negative(owner, "feature_norm2", given["feature_norm2"])
        self.decay_mean = _checks.truth(owner, "decay_mean", given["decay_mean"])
        self.random_features = _checks.whole(owner, "random_features", given["random_features"], 0)
        self.seed = _checks.whole(owner, "seed", given["seed"], 0)

    def _begin(self, **more: float) -> None:
        """The settings, and the empty state."""
        self._settle(DELTA_MAX=max(self.deltas), **more)
        self._clear()

    def _clear(self) -> None:
        """The state of an operator that has not even seen a feature."""
        self._empty()
        J = len(self.deltas)
        self._means, self._outputs = np.zeros((J, 0, 0)), np.zeros((J, 3, 0))
        self.covariance_: F8 = np.zeros((J, 0, 0))
        self.heads_: F8 = np.zeros((J, kalman.N_SCALARS))
        self.heads_[:, kalman.DELTA] = self.deltas
        self.log_weights_: F8 = np.zeros(J)
        self.grow(Features(()))
        self._widen(0 if self._classify else 1)

    # -- state -------------------------------------------------------------------------------------

    @property
    def _n_outputs(self) -> int:
        return int(self.heads_[0, kalman.CLASSES]) if self._classify else self._room

    @property
    def _room(self) -> int:
        return self._means.shape[1]

    @property
    def _width(self) -> int:
        return self._means.shape[2]

    means_ = cut("_means", 1, "(J, K, D) posterior means of every head.")
    outputs_ = cut(
        "_outputs", 2, "(J, 3, K): of every head rows learnt (a target: weight), mean, scale."
    )

    @property
    def weights_(self) -> F8:
        """(J,) shares of the heads in the next answer."""
        raw = np.exp(self.log_weights_ - self.log_weights_.max())
        return np.asarray(raw / raw.sum())

    @property
    def gap_(self) -> int:
        """Time updates that are due: labels that did not come since the last update."""
        return int(self.heads_[0, kalman.GAP])

    @property
    def n_samples_(self) -> int:
        """Labelled rows learnt."""
        return int(self.heads_[0, kalman.SAMPLES])

    def grow(self, features: Features) -> None:
        """Make room for features: mean 0, variance sigma_w2; exact for one that was always 0."""
        J, had = self.covariance_.shape[:2]
        D = self._open_inputs(features)
        self._means = _checks.padded(self._means, (J, self._room, D))
        self.covariance_ = _checks.padded(self.covariance_, (J, D, D))
        self.covariance_[:, range(had, D), range(had, D)] = self.sigma_w2
        self._draw(features)

    def inflate(self, factor: float) -> None:
        """Widen all covariances after a drift, as `KalmanClassifier.inflate` does; O(J D^3)."""
        owner = type(self).__name__
        if _checks.number(owner, "factor", factor) < 1.0:
            raise ValueError(f"{owner}: factor must be >= 1, got {factor!r}")
        for A in self.covariance_:
            kalman.inflate_covariance(A, float(factor), self.sigma_w2)

    # -- the walk ----------------------------------------------------------------------------------

    def _widen(self, K: int) -> None:
        (J, room, D), had = self._means.shape, self._work.shape[1]
        if room >= K and had >= max(D, room):
            return
        if room < K:
            self._means = _checks.padded(self._means, (J, K, D))
            self._outputs = _checks.padded(self._outputs, (J, 3, K))
            self._outputs[:, 2, room:] = 1.0  # a variance scale
        self._work = np.zeros((kalman.work_rows("standard", D), max(D, K, room)))

    def _walk(self, rows: Rows, out: Out) -> None:
        J, n = len(self.deltas), rows[0].shape[0]
        kalman_bank.walk_bank(
            (*rows[:4], rows[4] | _ASKED),
            rows[4],
            (self._means, self.covariance_, self._outputs, self.heads_, self.log_weights_),
            (self._settings, self._work, np.empty((2, J))),
            (np.empty((J, *out[0].shape)), np.empty((J, n, out[1].shape[1]))),
            out,
            self.discount,
            None if self._classify else True,
        )

    def _n_troubles(self) -> float:
        refused = self.scalars_[lift.REFUSED]
        return float(refused + self.heads_[:, kalman.REPAIRED].sum())


class KalmanBankClassifier(_KalmanBank, Classifier):
    """Linear classifiers of several memories, mixed by how well each one predicted of late.

    Every member is a `KalmanClassifier` with a fixed drift rate, to the last bit, on the same
    features, with its own scale alpha. Member j weighs exp(l_j), l_j <- discount l_j + log p_j(y),
    and the probabilities are the weighted mean of the members'. Nothing climbs a gradient: it
    cannot run away, takes up a change of the rate of change within 1 / (1 - discount) labels, and
    costs J times a head.
    Args:
        deltas: drift rates of the members, each >= 0; a label later, weights keep exp(-delta / 2)
            of themselves.
        discount: of past log likelihoods a label, in [0, 1]; 1 is Bayes' rule for one best member.
        sigma_w2: prior variance of a weight, > 0; a covariance never exceeds it.
        sigma2: noise variance of a label, > 0; raise it (to 1, say) when labels are noisy.
        alpha0: scale of the logits at the start, in [0.1, 100].
        lr_alpha: step of log alpha a label, >= 0.
        feature_norm2: squared norm of f; 0 leaves f as it is.
        decay_mean: whether the means shrink with the drift; the filters are exact only if they do.
        random_features: number of tanh features, >= 0; 0 is linear.
        random_scale: standard deviation of their weights and biases, > 0.
        seed: of the random features, which are drawn by feature name.
        balance: whether classes weigh alike: a row counts N / (C n_c) times its weight, n_c of the
            N rows learnt and of the C classes known.
    State:
        means_: (J, K, D) float64. covariance_: (J, D, D) float64. outputs_: (J, 3, K) float64.
        heads_: (J, 9) float64, delta, log alpha, gap and counters of every member.
        log_weights_: (J,) float64, discounted log likelihoods.
        inputs_, scalars_: as in `KalmanClassifier`; counters of inputs only.
    Missing features, infinities and late classes are handled as there. A label sets a member back
    by at most 50 nats, so that an outlier loses none for good.
    Cost: O(J (D^2 + K D)) time an event, no allocation in the kernel, and as much memory.
    Raises: ValueError for a parameter out of range, and for a negative or infinite weight.
    Reference: Titsias et al. (2023), arXiv 2306.08448, for a member; Raftery, Karny and Ettler
    (2010), Online Prediction under Model Uncertainty via Dynamic Model Averaging, for the weights.
    >>> model = KalmanBankClassifier()
    >>> for i in range(100):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, "odd" if i % 2 else "even")
    >>> model.predict_one({"a": 0.5})
    'odd'
    """

    _classify = True

    def __init__(
        self,
        deltas: Sequence[float] = _DELTAS,
        discount: float = 0.99,
        sigma_w2: float = 1.0,
        sigma2: float = 0.1,
        alpha0: float = 1.0,
        lr_alpha: float = 0.02,
        feature_norm2: float = 10.0,
        decay_mean: bool = True,
        random_features: int = 0,
        random_scale: float = 2.0,
        seed: int = 0,
        balance: bool = False,
    ) -> None:
        self._set_parameters(locals())
        owner = type(self).__name__
        self.alpha0 = _checks.between(owner, "alpha0", alpha0, 0.1, 100.0)
        self.lr_alpha = _checks.not_negative(owner, "lr_alpha", lr_alpha)
        self.balance = _checks.truth(owner, "balance", balance)
        self._begin(LR_ALPHA=self.lr_alpha, BALANCE=self.balance)

    def _clear(self) -> None:
        super()._clear()
        self.heads_[:, kalman.LOG_ALPHA] = np.log(self.alpha0)


class KalmanBankRegressor(_KalmanBank, Regressor):
    """Linear regressions of several memories, mixed by how well each one predicted of late.

    Every member is a `KalmanRegressor` with a fixed drift rate; members are mixed as in
    `KalmanBankClassifier`, by their Gaussian densities. Outputs `prediction` and `variance`: mean
    and variance of the mixture. y is (n,) or (n, q).
    Args:
        deltas, discount, sigma_w2, decay_mean, random_features, random_scale, seed: as there.
        sigma2: noise variance of a target, > 0, in units of its scale where `scale_targets`.
        feature_norm2: squared norm of f; 0 leaves f as it is.
        centre_targets: subtract the running mean of a target, as drifting weights shrink to 0.
        scale_targets: every member estimates the scale of a target from its own residuals.
    State: as there; outputs_ (J, 3, q) holds weight learnt, running mean and variance scale.
    Cost: O(J (D^2 + q D)) time an event, no allocation in the kernel, and as much memory.
    Raises: ValueError for a parameter out of range, a bad weight, a changed number of targets.
    Reference: as there.
    >>> model = KalmanBankRegressor()
    >>> for i in range(100):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, 7.0 + i % 2)
    >>> round(model.predict_one({"a": 0.5}), 2)
    7.99
    """

    def __init__(
        self,
        deltas: Sequence[float] = _DELTAS,
        discount: float = 0.99,
        sigma_w2: float = 1.0,
        sigma2: float = 0.1,
        feature_norm2: float = 0.0,
        centre_targets: bool = True,
        scale_targets: bool = True,
        decay_mean: bool = True,
        random_features: int = 0,
        random_scale: float = 2.0,
        seed: int = 0,
    ) -> None:
        self._set_parameters(locals())
        owner = type(self).__name__
        self.centre_targets = _checks.truth(owner, "centre_targets", centre_targets)
        self.scale_targets = _checks.truth(owner, "scale_targets", scale_targets)
        self._begin(CENTRE=self.centre_targets, RESCALE=self.scale_targets)
