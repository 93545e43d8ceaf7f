"""Kalman heads: linear learners whose weights drift, and that learn how much to forget."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, I8, Block, Features
from streamlearn.jit import (
    kalman,
    kalman_chunk,
    kalman_delayed,
    kalman_each,
    lift,
    monte_carlo,
)
from streamlearn.jit.counter import key_of
from streamlearn.operators import _checks
from streamlearn.operators._base import Classifier, Regressor
from streamlearn.operators._delayed import Delayed
from streamlearn.operators._lifted import Lifted, Out, Rows
from streamlearn.operators._on_device import OnDevice
from streamlearn.operators._supervised import cut

_FORMS = {  # kernels by form of the covariance; kept here, as River measures what an operator keeps
    "standard": kalman.walk_standard,
    "joseph": kalman.walk_joseph,
    "sqrt": kalman.walk_sqrt,
}
_OBJECTIVES = ("softmax", "gaussian")
_EVALUATORS = ("mean_field", "monte_carlo")
_GROUPS = ("shared", "each")
_CHUNK = 128  # rows that are learnt at once: their matrix, B wide, is to cost less than the rows


class _KalmanHead(OnDevice, Delayed, Lifted):
    """What both heads share: the drifting Gaussian model, its state, and the call of the kernel.

    The state is six arrays. Some of them have room for classes that may come; what their properties
    give is cut to the classes known, so that it does not depend on how the stream was cut.
    """

    _arrays: ClassVar[tuple[str, ...]] = (
        "means_", "covariance_", "inputs_", "outputs_", "scalars_", "heads_",
    )  # fmt: skip
    _matrix = "covariance_"
    _draws: F8 | None = None  # scratch of the Monte Carlo evaluator
    _head_names: ClassVar[tuple[str, str]] = ("_means", "_covariance")
    _walker_names: ClassVar[tuple[str, str]] = ("walk_kalman_classes", "walk_kalman_targets")

    delta0: float
    lr_delta: float
    delta_max: float
    groups: str
    form: str
    qr_every: int

    # -- construction ------------------------------------------------------------------------------

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {"random_features": 7, "seed": 3}
        yield {"form": "joseph", "delta0": 0.01}
        yield {"form": "sqrt", "decay_mean": False}
        yield {"groups": "each", "delta0": 0.01}

    def _set_parameters(self, given: dict[str, Any]) -> None:
        """Check and keep the parameters that both heads have."""
        owner = type(self).__name__
        self._choose_device(given["device"])
        for name in ("sigma_w2", "sigma2", "random_scale"):
            setattr(self, name, _checks.positive(owner, name, given[name]))
        for name in ("delta0", "lr_delta", "delta_max", "feature_norm2"):
            setattr(self, name, _checks.not_negative(owner, name, given[name]))
        _checks.between(owner, "delta0", self.delta0, 0.0, self.delta_max)
        self.groups = _checks.choice(owner, "groups", given["groups"], _GROUPS)
        self.form = _checks.choice(owner, "form", given["form"], _FORMS)
        if self.groups == "each" and self.form != "standard":
            raise ValueError(
                f"{owner}: form must be standard with groups='each', got {self.form!r}"
            )
        if self.device == "cuda" and (self.form, self.groups) != ("standard", "shared"):
            raise ValueError(
                f"{owner}: device must be cpu unless form is standard and groups is shared, "
                f"got 'cuda' with {self.form!r} and {self.groups!r}"
            )
        self.decay_mean = _checks.truth(owner, "decay_mean", given["decay_mean"])
        self.qr_every = _checks.whole(owner, "qr_every", given["qr_every"], 1)
        self.random_features = _checks.whole(owner, "random_features", given["random_features"], 0)
        self.seed = _checks.whole(owner, "seed", given["seed"], 0)

    def _begin(self, **more: float) -> None:
        """The settings, and the empty state."""
        self._settle(
            LR_DELTA=self.lr_delta, DELTA_MAX=self.delta_max, QR_EVERY=self.qr_every, **more
        )
        self._clear()

    def _clear(self) -> None:
        """The state of an operator that has not even seen a feature."""
        self._empty()
        self.scalars_[kalman.DELTA] = self.delta0
        self._means, self._outputs = np.zeros((0, 0)), np.zeros((3, 0))
        self._heads = np.zeros((0, kalman.N_SCALARS))
        self._covariance: F8 = np.zeros((0, 0, 0) if self._apart else (0, 0))
        self._waiting = None
        self.grow(Features(()))
        self._add_heads(self._first)
        self._widen(0 if self._classify else 1)

    # -- state -------------------------------------------------------------------------------------

    @property
    def _apart(self) -> bool:
        """Whether every output has a covariance and a delta of its own."""
        return self.groups == "each"

    @property
    def _first(self) -> int:
        """The head of output 0; before it, the one that stands for classes not known yet."""
        return int(self._apart and self._classify)

    means_ = cut(
        "_means",
        0,
        "(K, D) posterior means of bias, random features, features; a row an output.",
        away=True,
    )
    outputs_ = cut(
        "_outputs",
        1,
        "(3, K): rows learnt (a target: weight), running mean, running variance scale.",
    )
    heads_ = cut(
        "_heads", 0, '(H, 9): with groups="each" the scalars of every head, delta its own.',
        to="_n_heads",
    )  # fmt: skip

    @property
    def _n_heads(self) -> int:
        """Heads that are state; any more are room."""
        return self._n_outputs + self._first

    @property
    def covariance_(self) -> F8:
        """(D, D) covariance of the weights of an output; (H, D, D) with groups="each"."""
        self._refresh()
        return self._covariance[: self._n_heads] if self._apart else self._whole_matrix()

    @covariance_.setter
    def covariance_(self, value: F8) -> None:
        self._keep_matrix(value)

    def _delays(self, D: int) -> bool:
        shared = self.form == "standard" and not self._apart and self.device == "cpu"
        return shared and super()._delays(D)

    @property
    def _plain_matrix(self) -> F8:
        return self._covariance

    @_plain_matrix.setter
    def _plain_matrix(self, value: F8) -> None:
        self._covariance = value

    @property
    def deltas_(self) -> F8:
        """(K,) learned drift rates of the outputs; all the same unless groups="each"."""
        if not self._apart:
            return np.full(self._n_outputs, self.delta_)
        own: F8 = self.heads_[self._first :, kalman.DELTA].copy()
        return own

    @property
    def delta_(self) -> float:
        """The learned drift rate: a label later, weights keep exp(-delta / 2) of themselves.

        With groups="each" see `deltas_`; this one then stays at delta0.
        """
        return float(self.scalars_[kalman.DELTA])

    def grow(self, features: Features) -> None:
        """Make room for features: mean 0, variance sigma_w2; exact for one that was always 0."""
        D = self._open_inputs(features)
        if self._width < D:
            self._come_home()
        self._means = _checks.padded(self._means, (self._means.shape[0], D))
        prior = math.sqrt(self.sigma_w2) if self.form == "sqrt" else self.sigma_w2
        if self._apart:
            new = np.zeros((self._covariance.shape[0], D, D))
            for k in self._alive():
                new[k] = _checks.padded(self._covariance[k], (D, D), diagonal=prior)
            self._covariance = new
        else:
            self._widen_matrix(D, prior)
        self._draw(features)

    @property
    def _room(self) -> int:
        return self._means.shape[0]

    @property
    def _width(self) -> int:
        return self._means.shape[1]

    def _alive(self) -> list[int]:
        """Heads with a covariance: all but those of classes not known yet, which are room."""
        n = self._covariance.shape[0]
        if not self._first:
            return list(range(n))
        return [h for h in range(n) if h == 0 or self._outputs[0, h - 1] > 0.0]

    def _widen(self, K: int) -> None:
        """Room for K classes or targets, and scratch to fit."""
        room, D = self._means.shape
        if room >= K and self._work.shape[1] >= max(D, room):
            return
        if room < K:
            self._open_outputs(K)
            self._means = _checks.padded(self._means, (K, D))
            self._outputs = _checks.padded(self._outputs, (3, K))
            self._outputs[2, room:] = 1.0  # a variance scale
        wide = max(D, K, room)
        self._work = np.zeros((kalman.work_rows(self.form, D), wide))
        if self._draws is not None:
            self._draws = np.zeros((monte_carlo.ROWS, wide))
        if self._apart:
            H = max(K, room) + self._first
            self._add_heads(H)
            self._table = np.zeros((H, D)), np.zeros((kalman_each.TABLE_ROWS, H))

    def _add_heads(self, H: int) -> None:
        """Room for H heads: of targets and of classes not known yet with the prior, else empty."""
        had, D = self._covariance.shape[0], self._means.shape[1]
        if not self._apart or had >= H:
            return
        self._covariance = _checks.padded(self._covariance, (H, D, D))
        self._heads = _checks.padded(self._heads, (H, kalman.N_SCALARS))
        if had == 0 or not self._classify:
            self._heads[had:, kalman.DELTA] = self.delta0
            self._covariance[had:] = self.sigma_w2 * np.eye(D)

    def inflate(self, factor: float) -> None:
        """Widen the covariance after a drift: what the data told counts 1 / factor as much.

        In terms of precision, A^-1 - I / sigma_w2 is divided by factor, so the prior stays an upper
        bound; a small variance is multiplied by factor. The means stay. factor >= 1; O(D^3) time.
        """
        owner = type(self).__name__
        if _checks.number(owner, "factor", factor) < 1.0:
            raise ValueError(f"{owner}: factor must be >= 1, got {factor!r}")
        self._come_home()
        widen = kalman.inflate_root if self.form == "sqrt" else kalman.inflate_covariance
        with self._as_whole():
            for A in self._covariances():
                widen(A, float(factor), self.sigma_w2)

    def hasten(self, memory: float | None) -> None:
        """From here on forget as if delta were 1 / memory at least; None: as delta says, again.

        memory: labels, >= 1. It is a setting of this object, not part of its state; delta goes on
        learning. `delta_max` does not bind it.
        """
        if memory is not None and _checks.number(type(self).__name__, "memory", memory) < 1.0:
            raise ValueError(f"{type(self).__name__}: memory must be >= 1, got {memory!r}")
        self._settings[kalman.DELTA_MIN] = 0.0 if memory is None else 1.0 / memory

    def _covariances(self) -> list[F8]:
        """The covariance matrices, or roots, that are in use."""
        return [self._covariance[h] for h in self._alive()] if self._apart else [self._covariance]

    # -- the walk ----------------------------------------------------------------------------------

    def _host(self) -> tuple[F8, F8, F8, F8]:
        return self._means, self._covariance, self._outputs, self.scalars_

    def _health(self) -> F8:
        return np.array([math.inf, 0.0, 1e-10 * self.sigma_w2, kalman.REPAIRED])

    def _walk(self, rows: Rows, out: Out) -> None:
        if self._there is not None:
            taught = (rows[1] >= 0) | (rows[1] == lift.TARGET)
            self._walk_there(rows, taught, None, out)
            return
        targets = None if self._classify else True
        if self._apart:
            kalman_each.walk_each(
                rows,
                (self._means, self._covariance, self._outputs, self.scalars_, self._heads),
                (self._settings, self._work, *self._table),
                out,
                targets,
                self._draws,
            )
            return
        if self._waiting is not None:
            kept = self._waiting
            kalman_delayed.walk_delayed(
                rows,
                (self._means, kept.tiles, self._outputs, self.scalars_, kept.Z, kept.counters),
                (self._settings, self._work, *kept.scratch),
                out,
                targets,
                self._draws,
            )
            return
        _FORMS[self.form](
            rows,
            (self._means, self._covariance, self._outputs, self.scalars_),
            (self._settings, self._work),
            out,
            targets,
            self._draws,
        )

    def learn_chunk(self, block: Block) -> None:
        """Learn the rows of a block that LEARN as one moment: a warm start from a batch.

        One time update, then all rows at once in matrix form: with delta 0 equal to learning them
        row by row, and several times faster where there are many features. delta and alpha stay.
        Unlike `run`, what is learnt depends on how the rows are grouped, as drift passes between
        chunks only. Cost: O(B D^2) for B rows; with form="sqrt" O((B + D) D^2).
        """
        self._admit(block)
        self._come_home()
        F, codes, y, weight, _ = self._lift(block, self._n_wanted(block))
        taught = (codes >= 0) | (codes == lift.TARGET)
        if not taught.any():
            return
        F = F[taught]
        Y, w = self._chunk_targets(codes[taught], y[taught], weight[taught])
        noise = self.sigma2 / np.minimum(w, kalman.HEAVIEST)
        squares = np.zeros(self._means.shape[0])
        with self._as_whole():
            self._drift_chunk()
            for at in range(0, len(Y), _CHUNK):
                piece = slice(at, at + _CHUNK)
                squares += self._condition_chunk(F[piece], Y[piece], noise[piece])
        self._count_chunk(squares, len(Y))
        for h in self._alive() if self._apart else ():
            self._heads[h, [kalman.GAP, kalman.SAMPLES]] = self.scalars_[
                [kalman.GAP, kalman.SAMPLES]
            ]

    def _chunk_targets(self, codes: I8, y: F8, weight: F8) -> tuple[F8, F8]:
        """Targets (B, K) as the means are to give them, and weights; labels are counted."""
        raise NotImplementedError(f"{type(self).__name__} has no _chunk_targets")

    def _drift_chunk(self) -> None:
        """All time updates that are due."""
        drifted = kalman_chunk.drift_root if self.form == "sqrt" else kalman_chunk.drift_covariance
        steps = self.gap_ + 1
        heads = self._alive() if self._apart else [0]
        for h, A in zip(heads, self._covariances(), strict=True):
            delta = self._heads[h, kalman.DELTA] if self._apart else self.delta_
            delta = max(delta, self._settings[kalman.DELTA_MIN])
            loss = -math.expm1(-delta * steps)
            drifted(A, loss, self.sigma_w2)
            if self.decay_mean and h >= self._first:
                own = slice(h - self._first, h - self._first + 1) if self._apart else slice(None)
                self._means[own] *= math.sqrt(1.0 - loss)
        self.scalars_[kalman.GAP] = 0.0

    def _condition_chunk(self, F: F8, Y: F8, noise: F8) -> F8:
        """Condition all heads; the sums of squared standardised innovations by output, (K,)."""
        told = (
            kalman_chunk.condition_root
            if self.form == "sqrt"
            else kalman_chunk.condition_covariance
        )
        if not self._apart:
            return told(self._means, self._covariance, F, Y, noise)
        squares = np.zeros(self._means.shape[0])
        for h in self._alive():
            own = slice(max(h - self._first, 0), h - self._first + 1)
            squares[own] = told(self._means[own], self._covariance[h], F, Y[:, own], noise)
        return squares

    def _count_chunk(self, squares: F8, B: int) -> None:
        """Count B labelled rows."""
        self.scalars_[kalman.SAMPLES] += B

    def _n_troubles(self) -> float:
        troubles = self.scalars_[lift.REFUSED] + self.scalars_[kalman.REPAIRED]
        if self._apart:
            troubles += self._heads[:, kalman.REPAIRED].sum()
        return float(troubles)


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
        delta_objective: what delta climbs: "softmax" (log probability of the label) or "gaussian",
            which is the one to take for fifty classes or more.
        delta_max: upper bound of delta, >= 0.
        alpha0: scale of the logits at the start, in [0.1, 100].
        lr_alpha: step of log alpha a label, >= 0.
        feature_norm2: squared norm of f; 0 leaves f as it is.
        form: of the covariance: "standard", "joseph" or "sqrt" (Potter; definite whatever comes).
        decay_mean: whether the means shrink by gamma too; the filter is exact only if they do.
        qr_every: with "sqrt", labels between two time updates, >= 1; 1 is exact, each costs O(D^3).
        groups: "shared", one covariance and one delta for all classes, or "each", its own for every
            class (form "standard" only): a class can be forgotten alone, at K + 1 times the cost.
        evaluator: of probabilities: "mean_field", or "monte_carlo", the mean of softmaxes of draws.
        samples: draws a row with "monte_carlo", even, >= 2; half of them mirror the others.
        balance: whether classes weigh alike: a row counts N / (C n_c) times its weight, n_c of the
            N rows learnt and of the C classes known.
        device: "cpu", or "cuda" for an NVIDIA GPU (form "standard", groups "shared", mean field):
            for a thousand features and more; an error where there is none.
        random_features: number of tanh features, >= 0; 0 is linear.
        random_scale: standard deviation of their weights and biases, > 0.
        seed: of the random features, which are drawn by feature name.
    State:
        means_: (K, D) float64, D = 1 + random_features + d; K = 1 + largest class code learnt.
        covariance_: (D, D) float64, shared by all classes; with "sqrt" the factor R of R'R; with
            groups="each" (1 + K, D, D), first that of a class not known yet.
        inputs_: (2, d) float64, weight seen and running mean of each feature, learnt on OBSERVE
            rows.
        outputs_: (3, K) float64, rows learnt of each class, then zeros and ones.
        scalars_: (9,) float64, delta, log alpha, gap and counters, in the order of
            `streamlearn.jit.kalman`.
        heads_: (1 + K, 9) float64 with groups="each", else (0, 9): delta of every head.
    A missing feature is imputed by its running mean from before the row. A LEARN row without a
    label, with weight 0 or without any feature adds a due time update (`gap_`). Rows with an
    infinity are refused (`n_rejected`). A class exists from the first row that teaches it, with a
    column of zeros, which is exact.
    Cost: O(D^2 + K D) time an event, no allocation in the kernel; O(D^2 + K D) memory. With
    groups="each" O(K D^2) of both; "monte_carlo" adds O(samples K) time.
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
        groups: str = "shared",
        evaluator: str = "mean_field",
        samples: int = 100,
        balance: bool = False,
        device: str = "cpu",
    ) -> None:
        self._set_parameters(locals())
        owner = type(self).__name__
        self.delta_objective = _checks.choice(
            owner, "delta_objective", delta_objective, _OBJECTIVES
        )
        self.alpha0 = _checks.between(owner, "alpha0", alpha0, 0.1, 100.0)
        self.lr_alpha = _checks.not_negative(owner, "lr_alpha", lr_alpha)
        self.evaluator = _checks.choice(owner, "evaluator", evaluator, _EVALUATORS)
        self.samples = _checks.whole(owner, "samples", samples, 2)
        if self.device == "cuda" and self.evaluator != "mean_field":
            raise ValueError(
                f"{owner}: evaluator must be mean_field with device='cuda', got {evaluator!r}"
            )
        if self.samples % 2:
            raise ValueError(f"{owner}: samples must be even, got {samples!r}")
        self.balance = _checks.truth(owner, "balance", balance)
        if self.evaluator == "monte_carlo":
            self._draws = np.zeros((monte_carlo.ROWS, 0))
        self._begin(
            LR_ALPHA=self.lr_alpha, SOFTMAX=self.delta_objective == "softmax", BALANCE=self.balance,
            PAIRS=self.samples // 2, KEY=key_of(self.seed, "draws") >> 12,
        )  # fmt: skip

    def _clear(self) -> None:
        super()._clear()
        self.scalars_[kalman.LOG_ALPHA] = math.log(self.alpha0)

    @property
    def alpha_(self) -> float:
        """The learned scale of the logits."""
        return math.exp(self.scalars_[kalman.LOG_ALPHA])

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield from super()._unit_test_params()
        yield {"evaluator": "monte_carlo", "samples": 10, "balance": True}
        yield {"groups": "each", "evaluator": "monte_carlo", "samples": 4}
        yield {"groups": "each", "delta_objective": "gaussian", "delta0": 0.01}

    def _chunk_targets(self, codes: I8, y: F8, weight: F8) -> tuple[F8, F8]:
        n, K = codes.size, self._means.shape[0]
        for c in np.unique(codes[self._outputs[0, codes] == 0.0]).tolist() if self._apart else ():
            self._covariance[c + 1], self._heads[c + 1] = self._covariance[0], self._heads[0]
        self._outputs[0] += np.bincount(codes, minlength=K)
        known = max(float(self._n_outputs), 1.0 + codes.max())
        self.scalars_[kalman.CLASSES] = known
        if self.balance:
            seen = self._outputs[0]
            weight = weight * seen.sum() / (np.count_nonzero(seen) * seen[codes])
        Y = np.zeros((n, K))
        Y[np.arange(n), codes] = 1.0
        return Y, weight


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
        groups: "shared", one covariance and one delta for all targets, or "each", its own for every
            target (form "standard" only), at q times the cost.
    State: outputs_ (3, q) holds weight learnt, running mean and variance scale of each target; with
    groups="each" covariance_ is (q, D, D) and heads_ (q, 9).
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
        groups: str = "shared",
        device: str = "cpu",
    ) -> None:
        self._set_parameters(locals())
        owner = type(self).__name__
        self.centre_targets = _checks.truth(owner, "centre_targets", centre_targets)
        self.scale_targets = _checks.truth(owner, "scale_targets", scale_targets)
        self._begin(CENTRE=self.centre_targets, RESCALE=self.scale_targets)

    def _chunk_targets(self, codes: I8, y: F8, weight: F8) -> tuple[F8, F8]:
        total = self._outputs[0] + weight.sum()
        if self.centre_targets:
            centred = y - self._outputs[1]
            self._outputs[1] += (weight / total[0]) @ centred
        self._outputs[0] = total
        return y - self._outputs[1], weight

    def _count_chunk(self, squares: F8, B: int) -> None:
        if self.scale_targets:
            n = min(self.scalars_[kalman.SAMPLES], kalman.MEMORY)
            ratio = np.minimum(squares, lift.LARGEST)
            self._outputs[2] = (n * self._outputs[2] + ratio) / (n + B)
        super()._count_chunk(squares, B)
