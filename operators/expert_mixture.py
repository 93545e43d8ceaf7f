"""Mixtures of experts: any models side by side, and weights that follow who is right of late."""

import math
from collections.abc import Iterator
from types import NoneType
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, LEARN, Block, Columns
from streamlearn.jit import ensemble
from streamlearn.jit.counter import key_of, uniforms
from streamlearn.operators import _checks
from streamlearn.operators._base import Classifier, Operator, Regressor
from streamlearn.operators._ensemble import Ensemble, numbers, probabilities
from streamlearn.operators._experts_on_device import experts_on_device
from streamlearn.operators._on_device import without_cpu
from streamlearn.operators.baselines import (
    MajorityClassifier,
    MeanRegressor,
    NoChangeClassifier,
    NoChangeRegressor,
)
from streamlearn.operators.foreign import as_stage
from streamlearn.operators.implicit import ImplicitLinearClassifier, ImplicitLinearRegressor
from streamlearn.operators.kalman import KalmanClassifier, KalmanRegressor
from streamlearn.operators.rvfl import LiteRVFLClassifier, LiteRVFLRegressor

_MIXING = ("eg", "log_score")


class _ExpertMixture(Ensemble):
    """Members run over the block, then one kernel mixes their answers row by row."""

    _arrays: ClassVar[tuple[str, ...]] = (
        "log_weights_", "running_", "biases_", "targets_", "network_", "scalars_",
    )  # fmt: skip

    experts: list[Operator] | None
    mixing: str
    eta: float
    share: float
    discount: float
    scale_losses: bool
    correction: bool
    seed: int
    device: str

    # -- construction ------------------------------------------------------------------------------

    def _set_parameters(self, given: dict[str, Any]) -> None:
        """Check and keep the parameters that both families have, and take in the experts."""
        owner = type(self).__name__
        experts = given["experts"]
        if not isinstance(experts, (list, tuple, NoneType)):
            raise ValueError(f"{owner}: experts must be a list of models, got {experts!r}")
        self.experts = None if experts is None else [as_stage(expert) for expert in experts]
        self.mixing = _checks.choice(owner, "mixing", given["mixing"], _MIXING)
        self.eta = _checks.not_negative(owner, "eta", given["eta"])
        self.share = _checks.between(owner, "share", given["share"], 0.0, 1.0)
        self.discount = _checks.between(owner, "discount", given["discount"], 0.0, 1.0)
        self.scale_losses = _checks.truth(owner, "scale_losses", given["scale_losses"])
        self.correction = _checks.truth(owner, "correction", given["correction"])
        self.seed = _checks.whole(owner, "seed", given["seed"], 0)
        self.device = given["device"]
        if self.experts is not None and not self.experts:
            raise ValueError(f"{owner}: experts must be at least one model, got none")

    def _defaults(self) -> list[Operator]:
        """The experts of one that was not given any."""
        raise NotImplementedError(f"{type(self).__name__} has no _defaults")

    def _begin(self, lr_alpha: float = 0.0) -> None:
        """Take in the experts, given or by default; settings as the kernel takes them."""
        experts = self._defaults() if self.experts is None else self.experts
        members, self._there = experts_on_device(type(self).__name__, self.device, experts)
        self._adopt(members, [f"experts[{j}]" for j in range(len(members))])
        settings = {
            ensemble.ETA: self.eta, ensemble.SHARE: self.share, ensemble.DISCOUNT: self.discount,
            ensemble.LOG_SCORE: self.mixing == "log_score", ensemble.SCALE: self.scale_losses,
            ensemble.CORRECT: self.correction, ensemble.LR_ALPHA: lr_alpha,
        }  # fmt: skip
        p = np.array([float(settings[i]) for i in range(ensemble.N_SETTINGS)])
        shape = ensemble.work_shape(len(self.members_), self.correction)
        self._fixed = p, np.zeros(shape)
        self._clear()

    def _clear(self) -> None:
        self.scalars_: F8 = np.zeros(ensemble.N_SCALARS)
        self.network_: F8 = _network(self.seed, len(self.members_) if self.correction else 0)
        self._begin_targets(1)

    def _begin_targets(self, M: int) -> None:
        """Equal weights for M targets."""
        J = len(self.members_)
        self.log_weights_: F8 = np.full((M, J), -math.log(J))
        self.running_: F8 = np.zeros((3, M, J))
        self.biases_: F8 = np.zeros((M, J))
        self.targets_: F8 = np.zeros((3, M))

    def _get_params(self) -> dict[str, Any]:
        """Arguments as `clone` takes them, of a wrapper too: with untrained experts."""
        given = super()._get_params()
        return given | {"experts": self.experts and [expert.clone() for expert in self.experts]}

    def _plain_parameters(self) -> dict[str, Any]:
        """Without `device` where it is the CPU: states from before it are still read."""
        return without_cpu(super()._plain_parameters())

    # -- state -------------------------------------------------------------------------------------

    @property
    def weights_(self) -> F8:
        """(M, J) long-term weights of the experts for each target; a row adds up to 1."""
        return np.exp(self.log_weights_)

    @property
    def losses_(self) -> F8:
        """(M, J) running losses of the experts: log loss, or squared error; memory 100 labels."""
        losses: F8 = self.running_[0]
        return losses

    @property
    def n_samples_(self) -> int:
        """Labelled rows learnt."""
        return int(self.scalars_[ensemble.LEARNT])

    @property
    def n_rejected(self) -> int:
        """Labels refused: infinite, or no class code."""
        return int(self.scalars_[ensemble.REJECTED])

    @property
    def n_silent_(self) -> F8:
        """(M, J) labels learnt while this expert had no answer and another had one."""
        silent: F8 = self.running_[2]
        return silent

    def _state_arrays(self) -> tuple[F8, F8, F8, F8, F8, F8]:
        return (
            self.log_weights_, self.running_, self.biases_, self.targets_, self.network_,
            self.scalars_,
        )  # fmt: skip


def _network(seed: int, J: int) -> F8:
    """(3, N): weights of the short-term network, uniform in +-1/sqrt(inputs), and Adam's moments.

    Each layer draws from a key of its own; biases come first.
    """
    if J == 0:
        return np.zeros((3, 0))
    h = ensemble.HIDDEN
    layers = [(J + 1, h), (h, h), (h, J)]
    drawn = [
        (2.0 * uniforms(key_of(seed, f"layer {i}"), (rows + 1) * columns) - 1.0) / math.sqrt(rows)
        for i, (rows, columns) in enumerate(layers)
    ]
    out = np.zeros((3, ensemble.network_size(J)))
    out[0] = np.concatenate(drawn)
    return out


class ExpertMixtureClassifier(_ExpertMixture, Classifier):
    """A mixture of classifiers of any kind, whose weights follow who was right of late.

    Model: p = sum_j w_j p_j over the experts that answer. A label gives expert j the loss
    l_j = -log p_j(label), probabilities below 0.001 counting as that. Weights learn by
    "eg": exponentiated gradient, u_j ~ u_j exp(-eta l_j / scale), with the running mean of all
        experts' losses as scale, so that eta has no unit; or by
    "log_score": u_j ~ u_j^discount p_j(label), the discounted log score (dynamic model averaging).
    Then fixed share, u_j <- (1 - share) u_j + share / J, brings back who was out. An expert that
    does not answer a row keeps its weight. The mixture is sharpened or flattened by a learned
    exponent, p^alpha: a mean of calibrated probabilities is too flat.
    Args:
        experts: classifiers, pipelines that end in one, River or scikit-learn classifiers. Default:
            Kalman heads of several memories, on linear and random features, and other families.
        mixing: "eg" or "log_score".
        eta: rate of "eg", >= 0.
        share: of fixed share, in [0, 1]; 0 can leave an expert for good. OneNet's setting for two
            experts is 0.01, the regressor's default; for probabilities 0.001 had the smaller log
            loss on eight of eleven tuning streams, at accuracies that differ by less than 0.006.
        discount: of "log_score", in [0, 1]: weights remember some 1 / (1 - discount) labels.
        scale_losses: whether "eg" measures losses by their running mean.
        correction: whether a small network moves the weights at short term (OneNet), from the
            experts' last probabilities of the true class; it costs some 5 us a label.
        lr_alpha: step of log alpha a label, >= 0; 0 leaves the mixture as it is.
        balance: whether a label counts N / (C n_c) in the weights, and in the default experts.
        seed: of the default experts and the network.
        device: "cpu", or "cuda": untrained copies of the Kalman heads among the experts (standard,
            shared, mean field) stand on an NVIDIA GPU, and those with as many random features are
            walked by one launch a block; other experts run where they do. An error where there is
            no GPU, and where there is no such head.
    State:
        log_weights_: (1, J) float64, log u. running_: (3, 1, J) float64: running losses, weight
            seen, rows without an answer. biases_: (1, J) and network_: (3, N) float64, of the
            correction. targets_: (3, 1) float64, unused. scalars_: (4,) float64, log alpha and
            counters, in the order of `streamlearn.jit.ensemble`. seen_: (K,) float64, weight learnt
            of each class, with `balance`.
        The states of the experts, under their numbers.
    A late label judges the answers that were given when its event was scored.
    Cost: the experts', and O(J K) time an event, no allocation in the kernel.
    Raises: ValueError for a parameter out of range, and an expert that does another task;
        MemoryError where a device has no room, nothing changed.
    Reference: Herbster and Warmuth (1998), Tracking the best expert; Zhang et al. (2023), OneNet,
    arXiv 2309.12659; Raftery, Karny and Ettler (2010), for the discounted log score.
    >>> from streamlearn.operators import ExpertMixtureClassifier, KalmanClassifier
    >>> model = ExpertMixtureClassifier([KalmanClassifier(), KalmanClassifier(delta0=0.1)])
    >>> for i in range(100):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, "odd" if i % 2 else "even")
    >>> model.predict_one({"a": 0.5})
    'odd'
    """

    _arrays = (*_ExpertMixture._arrays, "seen_")

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {
            "experts": [KalmanClassifier(), NoChangeClassifier(), MajorityClassifier()],
            "mixing": "log_score",
            "balance": True,
        }
        yield {"experts": [KalmanClassifier(), NoChangeClassifier()], "correction": True}

    def __init__(
        self,
        experts: list[Operator | Any] | None = None,
        mixing: str = "eg",
        eta: float = 0.5,
        share: float = 0.001,
        discount: float = 0.99,
        scale_losses: bool = True,
        correction: bool = False,
        lr_alpha: float = 0.02,
        balance: bool = False,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self._set_parameters(locals())
        owner = type(self).__name__
        self.lr_alpha = _checks.not_negative(owner, "lr_alpha", lr_alpha)
        self.balance = _checks.truth(owner, "balance", balance)
        self._begin(self.lr_alpha)

    def _defaults(self) -> list[Operator]:
        return _default_classifiers(self.balance, self.seed)

    def _clear(self) -> None:
        super()._clear()
        self.seen_: F8 = np.zeros(0)

    @property
    def alpha_(self) -> float:
        """The learned exponent of the mixture."""
        return math.exp(self.scalars_[ensemble.LOG_ALPHA])

    def _run(self, block: Block) -> Columns:
        said, logs = self._answers(block)
        P = probabilities(said, block.n)
        weight = self._balanced(block) if self.balance else block.weight
        proba, side = np.empty((block.n, P.shape[2])), np.empty((block.n, 1))
        rows = (P, block.y, weight, block.mode)
        ensemble.mix_classes(rows, self._state_arrays(), self._fixed, (proba, side))
        return {"prediction": side[:, 0], "proba": proba} | logs

    def _balanced(self, block: Block) -> F8:
        """Weights by which all classes count alike."""
        learnt = block.y[(block.mode & LEARN != 0) & (block.y < ensemble.CODES)]
        top = int(learnt.max(initial=-1.0)) + 1
        seen = _checks.padded(self.seen_, (max(top, self.seen_.shape[0]),))
        weight = np.empty(block.n)
        known = ensemble.balanced_weights(block.y, block.weight, block.mode, seen, weight)
        self.seen_ = seen[: max(known, self.seen_.shape[0])]
        return weight


class ExpertMixtureRegressor(_ExpertMixture, Regressor):
    """A mixture of regressors of any kind, whose weights follow who was right of late.

    Model, arguments and state as `ExpertMixtureClassifier`, without alpha and balance. The loss of
    an expert is its squared error, with "log_score" the negative log density N(y; answer, its
    variance). An expert that would pull the answer more than ten root mean squared errors of the
    leading one away from that one's is left out of it: else one that diverges would take the
    mixture along. y is (n,) or (n, q), and every target has weights of its own. Outputs
    `prediction` and `variance`, the mixture's: sum_j w_j (v_j + (f_j - f)^2). An expert without a
    variance has its running squared error.
    State: targets_ (3, q) float64: weight seen, running mean and variance of each target; a loss
        below a millionth of the variance is as good as none. M = q in the other shapes.
    A missing target teaches nothing, one beyond 1e150 is refused (`n_rejected`).
    Cost: the experts', and O(J q) time an event, no allocation in the kernel.
    Raises: ValueError for a parameter out of range, an expert that does another task, a changed
        number of targets; MemoryError where a device has no room, nothing changed.
    Reference: as `ExpertMixtureClassifier`.
    >>> from streamlearn.operators import ExpertMixtureRegressor, KalmanRegressor, MeanRegressor
    >>> model = ExpertMixtureRegressor([KalmanRegressor(), MeanRegressor()])
    >>> for i in range(100):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, 7.0 + i % 2)
    >>> round(model.predict_one({"a": 0.5}), 1)
    8.0
    """

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {"experts": [KalmanRegressor(), MeanRegressor()], "mixing": "log_score"}
        yield {"experts": [KalmanRegressor(), MeanRegressor()], "correction": True}

    def __init__(
        self,
        experts: list[Operator | Any] | None = None,
        mixing: str = "eg",
        eta: float = 0.5,
        share: float = 0.01,
        discount: float = 0.99,
        scale_losses: bool = True,
        correction: bool = False,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self._set_parameters(locals())
        self._begin()

    def _defaults(self) -> list[Operator]:
        return _default_regressors(self.seed)

    def _run(self, block: Block) -> Columns:
        M = self._n_targets(block)
        if self.log_weights_.shape[0] != M:
            self._begin_targets(M)
        said, logs = self._answers(block)
        F, V = numbers(said, (block.n, M))
        answer, side = np.empty((block.n, M)), np.empty((block.n, M))
        y = np.ascontiguousarray(block.y.reshape(block.n, M))
        rows = (F, V, y, block.weight, block.mode)
        ensemble.mix_regressions(rows, self._state_arrays(), self._fixed, (answer, side))
        if block.y.ndim == 1:
            return {"prediction": answer[:, 0], "variance": side[:, 0]} | logs
        return {"prediction": answer, "variance": side} | logs

    def _n_targets(self, block: Block) -> int:
        """Number of targets; it may only change before the first label."""
        known = self.log_weights_.shape[0]
        M = 1 if block.y.ndim == 1 else block.y.shape[1]
        if known != M and self.n_samples_ > 0:
            raise ValueError(f"{type(self).__name__}: y must have {known} columns, got {M}")
        return M


# -- default experts -------------------------------------------------------------------------------


def _default_classifiers(balance: bool, seed: int) -> list[Operator]:
    """Heads of several memories, linear and on random features, and other families.

    Chosen on the tuning streams: heads that learn their memory are best alone, those of a fixed one
    beside them gain some 1 % where the boundary is curved and moves.
    """
    kind: Any = KalmanClassifier
    more = {"balance": True} if balance else {}
    curved = more | {"random_features": 100, "seed": seed}
    return [
        kind(**more),
        kind(lr_delta=0.0, **more),
        kind(**curved),
        kind(delta0=1e-4, lr_delta=0.0, **curved),
        kind(delta0=1e-3, lr_delta=0.0, **curved),
        LiteRVFLClassifier(balance=balance, seed=seed),
        ImplicitLinearClassifier(balance=balance),
    ]


def _default_regressors(seed: int) -> list[Operator]:
    """Heads of several memories, linear and on random features, other families, the last target.

    The last target alone explains most of a series that moves slowly (hourly bike rentals: R2 0.68
    with it, 0.55 without).
    """
    kind: Any = KalmanRegressor
    curved = {"random_features": 100, "feature_norm2": 10.0, "seed": seed}
    return [
        kind(),
        kind(lr_delta=0.0),
        kind(delta0=1e-2, lr_delta=0.0),
        kind(**curved),
        kind(delta0=1e-4, lr_delta=0.0, **curved),
        kind(delta0=1e-3, lr_delta=0.0, **curved),
        NoChangeRegressor(),
        LiteRVFLRegressor(seed=seed),
        ImplicitLinearRegressor(),
    ]
