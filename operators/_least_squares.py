"""What the heads by recursive least squares share: weights, inverse, answers; not exported."""

import logging
import math
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, I8, U1, Features
from streamlearn.jit import lift, rls, rls_delayed
from streamlearn.operators import _checks
from streamlearn.operators._delayed import Delayed
from streamlearn.operators._on_device import OnDevice
from streamlearn.operators._supervised import Supervised, cut

_log = logging.getLogger(__name__)
_PROBABILITIES = ("scaled", "clip")
_REFUSED = 1e12  # |f|^2 / ridge beyond it leaves no correct digit in the inverse


class LeastSquares(OnDevice, Delayed, Supervised):
    """The state of a head, its growth, and the call of the walker.

    Weights and outputs have room for classes that may come; what their properties give is cut to
    the classes known, so that it does not depend on how the stream was cut.
    """

    _arrays: ClassVar[tuple[str, ...]] = (
        "weights_", "inverse_", "outputs_", "scalars_", "inputs_",
    )  # fmt: skip
    _matrix = "inverse_"
    _inputs_rows: ClassVar[int] = 2  # rows of inputs_
    exact = True
    _refresh_every = 0  # lessons; 0 is never
    _walker: ClassVar[Any] = staticmethod(rls.walk)
    _head_names: ClassVar[tuple[str, str]] = ("_weights", "_inverse")
    _walker_names: ClassVar[tuple[str, str]] = ("walk_rls_classes", "walk_rls_targets")

    ridge: float

    # -- construction ------------------------------------------------------------------------------

    def _set_answers(self, given: dict[str, Any]) -> None:
        """Check and keep the parameters of classifiers."""
        owner = type(self).__name__
        self.probabilities = _checks.choice(
            owner, "probabilities", given["probabilities"], _PROBABILITIES
        )
        self.alpha0 = _checks.between(owner, "alpha0", given["alpha0"], 0.1, 100.0)
        self.lr_alpha = _checks.between(owner, "lr_alpha", given["lr_alpha"], 0.0, 1.0)
        self.balance = _checks.truth(owner, "balance", given["balance"])

    def _begin(self, lam: float, leaky: bool = False) -> None:
        """The settings as the vector that the kernel takes, and the empty state."""
        settings = {
            lift.LIMIT: _REFUSED * self.ridge, rls.LAM: lam, rls.RIDGE: self.ridge,
            rls.LEAK: (1.0 - lam) * self.ridge if leaky else 0.0, rls.REFRESH: self._refresh_every,
        }  # fmt: skip
        if self._classify:
            settings |= {
                rls.BALANCE: self.balance, rls.SCALED: self.probabilities == "scaled",
                rls.LR_ALPHA: self.lr_alpha,
            }  # fmt: skip
        self._settings = np.array([float(settings.get(i, 0.0)) for i in range(rls.N_SETTINGS)])
        self._clear()

    def _clear(self) -> None:
        """The state of an operator that has not even seen a feature."""
        self.scalars_ = np.zeros(rls.N_SCALARS)
        self.inputs_: F8 = np.zeros((self._inputs_rows, 0))
        self._work = np.zeros((0, 0))
        self._warned = False
        self._order = np.arange(self._n_columns(0))
        self._untaught(self._n_columns(0))

    def _untaught(self, D: int) -> None:
        """The head as before its first lesson."""
        self._stay_home()
        self.scalars_[[rls.LOG_ALPHA, rls.SAMPLES, rls.CLASSES, rls.SINCE]] = 0.0
        self.scalars_[rls.FISHER] = 1.0
        if self._classify:
            self.scalars_[rls.LOG_ALPHA] = math.log(self.alpha0)
        self.inverse_ = np.eye(D) * self._first_variance
        self._weights, self._outputs = np.zeros((0, D)), np.zeros((3, 0))
        self._widen(0 if self._classify else 1)

    @property
    def _first_variance(self) -> float:
        """The diagonal of the inverse before the first lesson."""
        return 1.0 / self.ridge

    # -- state -------------------------------------------------------------------------------------

    @property
    def _n_outputs(self) -> int:
        """Classes or targets that are state; any more are room."""
        if self._classify:
            return int(self.scalars_[rls.CLASSES])
        return self._weights.shape[0]

    @property
    def inverse_(self) -> F8:
        """(D, D) of the weighted second moments of the features with the ridge."""
        self._refresh()
        return self._whole_matrix()

    @inverse_.setter
    def inverse_(self, value: F8) -> None:
        self._keep_matrix(value)

    def _delays(self, D: int) -> bool:
        return self.device == "cpu" and super()._delays(D)

    @property
    def _plain_matrix(self) -> F8:
        return self._inverse

    @_plain_matrix.setter
    def _plain_matrix(self, value: F8) -> None:
        self._inverse = value

    weights_ = cut("_weights", 0, "(K, D) the read-out: a row a class or target.", away=True)
    outputs_ = cut("_outputs", 1, "(3, K): weight learnt, running mean, residual variance.")

    @property
    def n_samples_(self) -> int:
        """Labelled rows learnt."""
        return int(self.scalars_[rls.SAMPLES])

    @property
    def n_rejected(self) -> int:
        """Rows with LEARN that were refused: for an infinity, features too large, or no class."""
        return int(self.scalars_[lift.REJECTED] + self.scalars_[lift.REFUSED])

    @property
    def n_imputed(self) -> int:
        """Missing values in rows with OBSERVE."""
        return int(self.scalars_[lift.IMPUTED])

    @property
    def n_resets(self) -> int:
        """How often the inverse had wound up or lost its sign, and was begun anew."""
        return int(self.scalars_[rls.RESETS])

    @property
    def alpha_(self) -> float:
        """The learned scale of the scores."""
        return math.exp(self.scalars_[rls.LOG_ALPHA])

    def _n_columns(self, d: int) -> int:
        """D, the width of the head on d features."""
        return 1 + d

    def grow(self, features: Features) -> None:
        """Make room for features: weight 0, ridge as it is; exact for one that was always 0."""
        d = len(features)
        D = self._n_columns(d)
        if self._width < D:
            self._come_home()
        self.inputs_ = _checks.padded(self.inputs_, (self._inputs_rows, d))
        self._weights = _checks.padded(self._weights, (self._weights.shape[0], D))
        fresh = self._first_variance if self.n_samples_ == 0 else 1.0 / self.ridge
        self._widen_matrix(D, fresh)
        self._fit(features)

    def _fit(self, features: Features) -> None:
        """Order of the coordinates and scratch, for these features."""
        d, D = len(features), self._width
        self._order = np.arange(D)
        by_name = sorted(range(d), key=lambda j: str(features.names[j]))
        self._order[D - d :] = D - d + np.array(by_name, dtype=np.int64)
        self._work = np.zeros((0, 0))  # of the wrong width

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        super().restore(snapshot)
        self._fit(self._features)

    def reset(self) -> None:
        """Forget everything learnt; the names of features and classes stay."""
        super().reset()
        self._warned = False

    @property
    def _room(self) -> int:
        """Classes or targets that there is room for."""
        return self._weights.shape[0]

    @property
    def _width(self) -> int:
        """D, the coordinates of the head."""
        return self._weights.shape[1]

    def _widen(self, K: int) -> None:
        """Room for K classes or targets, and scratch to fit."""
        room, D = self._weights.shape
        if room >= K and self._work.shape[1] >= max(D, room):
            return
        if room < K:
            self._open_outputs(K)
            self._weights = _checks.padded(self._weights, (K, D))
            self._outputs = _checks.padded(self._outputs, (3, K))
            self._outputs[2, room:] = 1.0  # a variance
        refreshed = self._refresh_every > 0 and self._waiting is None
        self._work = np.zeros((rls.work_rows(D, refreshed), max(D, K, room)))

    # -- the walk ----------------------------------------------------------------------------------

    def _state_of_head(self) -> tuple[F8, F8, F8, F8]:
        return self._weights, self._inverse, self._outputs, self.scalars_

    def _host(self) -> tuple[F8, F8, F8, F8]:
        return self._state_of_head()

    def _health(self) -> F8:
        return np.array([rls.LARGEST_P / self.ridge, 1.0 / self.ridge, 0.0, rls.RESETS])

    def _teach_there(self, rows: Any, out: Any) -> None:
        """Walk these rows on the device; with a leak each lesson is one of a coordinate as well."""
        taught, units = (rows[1] >= 0) | (rows[1] == lift.TARGET), None
        if self._settings[rls.LEAK] > 0.0:
            lessons = self.n_samples_ + np.arange(np.count_nonzero(taught))
            units = self._order[lessons % self._order.size]
        self._walk_there(rows, taught, units, out)

    def _teach(self, F: F8, codes: I8, y: F8, weight: F8, mode: U1) -> tuple[F8, F8]:
        """Walk these rows, whose features are ready; answers (n, K) and (n, 1 or K)."""
        n, K = F.shape[0], self._weights.shape[0]
        answer, side = np.empty((n, K)), np.empty((n, 1 if self._classify else K))
        rows, fixed = (F, codes, y, weight, mode), (self._settings, self._work, self._order)
        if self._there is not None:
            self._teach_there(rows, (answer, side))
            return answer, side
        targets = None if self._classify else True
        kept = self._waiting
        if kept is None:
            self._walker(rows, self._state_of_head(), fixed, (answer, side), targets)
        else:
            W, _, outputs, s = self._state_of_head()
            state = (W, kept.tiles, outputs, s, kept.Z, kept.counters)
            rls_delayed.walk_delayed(rows, state, (*fixed, *kept.scratch), (answer, side), targets)
        return answer, side

    def _warn(self) -> None:
        """Say once that rows are refused, or that the inverse had to be begun anew."""
        if not self._warned and self.scalars_[lift.REFUSED] + self.scalars_[rls.RESETS] > 0.0:
            self._warned = True
            _log.warning(
                "%s: refused %d rows whose features are too large (put Normalizer() before it), "
                "began the inverse anew %d times",
                type(self).__name__, self.scalars_[lift.REFUSED], self.scalars_[rls.RESETS],
            )  # fmt: skip
