"""Analytic heads: recursive least squares with open classes, forgetting and exact removal."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from streamlearn.block import F8, LEARN, UNSCORED, Block, Columns, Features
from streamlearn.errors import UserError
from streamlearn.jit import analytic
from streamlearn.operators import _checks
from streamlearn.operators._base import Classifier, Regressor, Row
from streamlearn.operators._least_squares import LeastSquares
from streamlearn.operators._lifted import Lifting, Rows


class _Analytic(LeastSquares, Lifting):
    """What classifier and regressor share: the linear features, the window, the removal."""

    _arrays = (*LeastSquares._arrays, "ring_", "ring_labels_", "ring_weights_")
    _walker = staticmethod(analytic.walk_refreshed)
    window: int | None

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {"lam": 0.8, "ridge": 1.0}
        yield {"lam": 1.0, "window": 20, "ridge": 2.0}

    def _set_head(self, given: dict[str, Any]) -> None:
        owner = type(self).__name__
        self.ridge = _checks.positive(owner, "ridge", given["ridge"])
        self.lam = _checks.number(owner, "lam", given["lam"])
        if not 0.0 < self.lam <= 1.0:
            raise ValueError(f"{owner}: lam must be in (0, 1], got {given['lam']!r}")
        window = given["window"]
        self.window = None if window is None else _checks.whole(owner, "window", window, 1)
        self.max_d = _checks.whole(owner, "max_d", given["max_d"], 1)
        if self.lam < 1.0:
            self._refresh_every = math.ceil(1.0 / (1.0 - self.lam) - 1e-9)
        self._begin(self.lam)

    def _clear(self) -> None:
        size = self.window or 0
        self.ring_, self.ring_labels_ = np.zeros((size, 1)), np.zeros((size, 1))
        self.ring_weights_: F8 = np.zeros((size, 1))
        super()._clear()

    # -- state -------------------------------------------------------------------------------------

    def grow(self, features: Features) -> None:
        """Make room for features: weight 0, ridge as it is; exact for one that was always 0."""
        if len(features) > self.max_d:
            raise UserError(
                f"{type(self).__name__}: max_d must be at least the features of the stream, "
                f"{len(features)} so far, got {self.max_d}"
            )
        super().grow(features)
        self.ring_ = _checks.padded(self.ring_, (self.ring_.shape[0], 1 + len(features)))

    def _delays(self, D: int) -> bool:
        return self.window is None and super()._delays(D)

    def _widen(self, K: int) -> None:
        super()._widen(K)
        if not self._classify and self.window and self.ring_labels_.shape[1] != K:
            self.ring_labels_ = np.zeros((self.window, K))

    # -- the walk ----------------------------------------------------------------------------------

    def _run(self, block: Block) -> Columns:
        K = self._n_wanted(block)
        seen = self._seen(block, K) if block.log_wanted else {}
        rows = self._lift(block, K)
        answer, side = self._walk_window(rows) if self.window else self._teach(*rows)
        self._warn()
        return self._named(block, answer, side) | seen

    def _walk_window(self, rows: Rows) -> tuple[F8, F8]:
        n, K = rows[0].shape[0], self._room
        answer, side = np.empty((n, K)), np.empty((n, 1 if self._classify else K))
        fixed = (self._settings, self._work, self._order)
        ring = (self.ring_, self.ring_labels_, self.ring_weights_)
        analytic.walk_window(
            rows, self._state_of_head(), fixed, (answer, side),
            None if self._classify else True, ring,
        )  # fmt: skip
        return answer, side

    # -- removal -----------------------------------------------------------------------------------

    def forget(self, block: Block) -> None:
        """Take the labelled rows of a block out again, as if they had never been learnt.

        Exact with lam=1. With forgetting, `weight` must be what is left of a row's weight: its
        weight times lam ** (lessons since). Give the features as they were learnt: a missing one is
        filled by the mean of today. Means, variances and the learned scale of scores stay.
        Raises: ValueError with a window, which forgets by itself, and for a row that cannot have
            been learnt; then nothing is changed.
        Cost: O(D^2 + K D) a row.
        """
        owner = type(self).__name__
        if self.window:
            raise ValueError(f"{owner}: window must be null for forget, got {self.window}")
        before = self.snapshot()
        self._admit(block)
        block = block.replace(mode=np.full(block.n, LEARN, dtype=np.uint8))
        F, codes, y, weight, _ = self._lift(block, self._n_wanted(block))
        fixed = (self._settings, self._work, self._order)
        with self._as_whole():
            bad = analytic.forget_rows(
                F, codes, y, weight, self._state_of_head(), fixed, self._classify
            )
        if bad >= 0:
            self.restore(before)
            raise ValueError(
                f"{owner}: forget must be given learnt rows, got row {bad} never learnt"
            )

    def forget_one(self, x: Row, y: Any, w: float = 1.0) -> None:
        """Take one event out again, given as a dict; w is what is left of its weight."""
        self._open_columns(x)
        self.forget(self._block(x, self._target(y), w, UNSCORED))


class AnalyticClassifier(_Analytic, Classifier):
    """Linear classifier by recursive least squares; single samples can be taken out again.

    Model: the weights W of one-hot labels minimise sum lam^age w |y - W f|^2 + ridge |W|^2 over the
    labelled rows so far, f = (1, x), exactly. What of the ridge fades with the rows is given back
    every 1 / (1 - lam) labels. `forget` removes samples as if they had never been learnt; with
    `window` the model knows the newest labelled rows alone. Inputs should be of similar scale: put
    `Normalizer()` before it, and `RVFLFeatures()` where a boundary is curved.
    Args:
        ridge: pull of the weights to 0, in units of x squared, > 0.
        lam: weight of a row, relative to the next, in (0, 1]; 0.995 remembers 200, 1 all.
        window: labelled rows known, >= 1, with their weights lam ** age; None is all.
        probabilities: "scaled", a softmax of the scores with a learned scale, or "clip", positive
            parts of the scores, normalised.
        alpha0: the scale at the start, in [0.1, 100].
        lr_alpha: rate of its logarithm, in [0, 1]: it is learnt over about 1 / lr_alpha labels by
            natural gradients; 0 keeps alpha0.
        balance: weigh a row by N / (C n_c), so that all C classes count alike.
        max_d: features beyond it are an error, >= 1; at 2,048 the inverse has 32 MB.
        max_classes: classes beyond it are an error, >= 1.
    State:
        weights_: (K, D) float64, D = 1 + d; K = 1 + largest class code learnt.
        inverse_: (D, D) float64, of the weighted second moments of f with the ridge.
        outputs_: (3, K) float64, weight learnt of each class, then zeros and ones.
        scalars_: (9,) float64, counters, log alpha, in the order of `streamlearn.jit.rls`.
        inputs_: (2, d) float64, weight seen and running mean of each feature (OBSERVE rows).
        ring_, ring_labels_, ring_weights_: (window, D), (window, 1), (window, 1) float64, the rows
            of the window.
    A missing feature is imputed by its running mean from before the row. A row without a label, any
    feature or weight teaches nothing, and nothing is forgotten for it. Rows with an infinity, or
    with |f|^2 beyond 1e12 ridge, are refused (`n_rejected`). A class exists from the first row that
    teaches it, with a column of zeros, which is exact.
    Cost: O(D^2 + K D) time an event, thrice that with a window; giving the ridge back O(D^3) each
    max(1 / (1 - lam), D) labels. No allocation in the kernel; O(D^2 + K D + window D) memory.
    Raises: ValueError for a parameter out of range, and for a negative or infinite weight.
    Reference: Zhuang et al. (2024), G-ACIL: Analytic Learning for Exemplar-Free Generalized Class
    Incremental Learning, arXiv 2403.15706; Haykin, Adaptive Filter Theory, recursive least squares.
    >>> model = AnalyticClassifier(lam=1.0)
    >>> for i in range(100):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, "odd" if i % 2 else "even")
    >>> model.learn_one({"a": 0.5}, "even")  # a mistake
    >>> model.forget_one({"a": 0.5}, "even")
    >>> model.predict_one({"a": 0.5})
    'odd'
    """

    _classify = True

    def __init__(
        self,
        ridge: float = 0.1,
        lam: float = 0.995,
        window: int | None = None,
        probabilities: str = "scaled",
        alpha0: float = 2.0,
        lr_alpha: float = 0.01,
        balance: bool = False,
        max_d: int = 2048,
        max_classes: int = 10_000,
    ) -> None:
        given = locals()
        self._set_answers(given)
        self.max_classes = _checks.whole(type(self).__name__, "max_classes", max_classes, 1)
        self._set_head(given)

    def _n_classes(self, block: Block) -> int:
        wanted = super()._n_classes(block)
        if wanted > self.max_classes:
            raise UserError(
                f"{type(self).__name__}: max_classes must be at least the classes of the stream, "
                f"{wanted} so far, got {self.max_classes}"
            )
        return wanted


class AnalyticRegressor(_Analytic, Regressor):
    """Linear regression by recursive least squares; single samples can be taken out again.

    Model, state and arguments as `AnalyticClassifier`; y is (n,) or (n, q). The ridge pulls the
    constant to the running mean of a target, not to 0 (without forgetting, to its first value).
    Outputs `prediction` and `variance`: s2 (1 + f' P f), s2 the running variance of residuals over
    the root of that factor, P the inverse.
    State: outputs_ (3, q) holds faded weight, running mean and residual variance of each target;
    ring_labels_ is (window, q).
    A row with any target missing counts as unlabelled; a target beyond 1e300 as infinite.
    Cost: as `AnalyticClassifier`, with q for K.
    Raises: ValueError for a parameter out of range, a bad weight, a changed number of targets.
    Reference: Haykin, Adaptive Filter Theory, recursive least squares.
    >>> model = AnalyticRegressor()
    >>> for i in range(100):
    ...     model.learn_one({"a": float(i % 2) - 0.5}, 7.0 + i % 2)
    >>> round(model.predict_one({"a": 0.5}), 2)
    8.0
    """

    def __init__(
        self,
        ridge: float = 0.1,
        lam: float = 0.995,
        window: int | None = None,
        max_d: int = 2048,
    ) -> None:
        self._set_head(locals())
