"""What Kalman heads and banks of them share: features from rows, counters, late labels, answers."""

import logging
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, I8, LEARN, U1, Block, Columns, Features
from streamlearn.jit import kalman, lift
from streamlearn.jit.random_features import random_weights
from streamlearn.operators import _checks
from streamlearn.operators._base import Classifier, Operator, Regressor

_log = logging.getLogger(__name__)
_REFUSED = 1e12  # sigma_w2 |f|^2 / sigma2 beyond it leaves no correct digit in the covariance
_MAX_CLASSES = 100_000  # a label beyond it is no class code
Rows = tuple[F8, I8, F8, F8, U1]
Out = tuple[F8, F8]


class Lifted(Operator):
    """A model on the features of `jit.lift`: 1, random features, x, rescaled to one length.

    A subclass gives `_room`, `_width`, `_widen` and `_walk`, and keeps the arrays named below.
    """

    _classify: ClassVar[bool] = False
    recalls_input = True

    sigma_w2: float
    sigma2: float
    feature_norm2: float
    decay_mean: bool
    random_features: int
    random_scale: float
    seed: int
    inputs_: F8  # (2, d) weight seen and running mean of each feature
    scalars_: F8  # (9,) counters, in the order of `jit.kalman`
    _settings: F8
    _random: F8
    _work: F8
    _lifted: tuple[F8, I8]
    _warned: bool

    def _settle(self, **named: float) -> None:
        """The settings as the vector that the kernels take, by their names in `jit.kalman`."""
        named |= {"S_W": self.sigma_w2, "S2": self.sigma2, "DECAY_MEAN": self.decay_mean}
        settings = {getattr(kalman, name): value for name, value in named.items()}
        settings[lift.NORM2] = self.feature_norm2
        settings[lift.LIMIT] = _REFUSED * self.sigma2 / self.sigma_w2
        self._settings = np.array([float(settings.get(i, 0.0)) for i in range(kalman.N_SETTINGS)])

    def _empty(self) -> None:
        """What every such model has before it has even seen a feature."""
        self.scalars_ = np.zeros(kalman.N_SCALARS)
        self.inputs_ = np.zeros((2, 0))
        self._random = self._work = np.zeros((0, 0))
        self._lifted = np.zeros((0, 0)), np.zeros(0, dtype=np.int64)
        self._warned = False

    def _open_inputs(self, features: Features) -> int:
        """Make room for features on the side of the inputs; the width of the head."""
        d, h = len(features), self.random_features
        self.inputs_ = _checks.padded(self.inputs_, (2, d))
        self._work = np.zeros((0, 0))  # too small for the new width
        self._random = random_weights(self.seed, features.names if h else (), h, self.random_scale)
        return 1 + h + d

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        super().restore(snapshot)
        self._work = np.zeros((0, 0))  # of another width

    @property
    def _room(self) -> int:
        """Classes or targets that there is room for."""
        raise NotImplementedError(f"{type(self).__name__} has no _room")

    @property
    def _width(self) -> int:
        """Features of the head."""
        raise NotImplementedError(f"{type(self).__name__} has no _width")

    def _widen(self, K: int) -> None:
        """Room for K classes or targets, and scratch to fit."""
        raise NotImplementedError(f"{type(self).__name__} has no _widen")

    def _walk(self, rows: Rows, out: Out) -> None:
        """Walk rows of given features."""
        raise NotImplementedError(f"{type(self).__name__} has no _walk")

    def _n_troubles(self) -> float:
        """Rows refused and covariances repaired."""
        raise NotImplementedError(f"{type(self).__name__} has no _n_troubles")

    @property
    def _n_outputs(self) -> int:
        """Columns of means and outputs that are state; any more are room."""
        if self._classify:
            return int(self.scalars_[kalman.CLASSES])
        return self._room

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

    def _walk_block(self, block: Block, K: int, wide: int) -> tuple[F8, F8]:
        """Call the kernels with room for K classes or targets: answers (n, K) and (n, wide)."""
        rows = self._lift(block, K)
        n = block.n
        answer, side = np.empty((n, self._room)), np.empty((n, wide))
        self._walk(rows, (answer, side))
        if not self._warned and self._n_troubles() > 0.0:
            self._warn()
        return answer, side

    def _lift(self, block: Block, K: int) -> Rows:
        """Features of the head and codes of labels; counts, and learns means of features."""
        self._widen(K)
        n = block.n
        y = block.y if block.y.ndim == 2 else block.y[:, None]
        rows = (_plain(block.X), _plain(y), _plain(block.weight), _plain(block.mode))
        F, codes = self._lifted
        if F.shape != (n, self._width):
            F, codes = np.empty((n, self._width)), np.empty(n, dtype=np.int64)
            if n == 1:  # kept where two allocations cost as much as the walk, not beyond
                self._lifted = F, codes
        room = self._room if self._classify else 0
        lifted = lift.lift_random if self.random_features else lift.lift_linear
        bad = lifted(
            rows, self.inputs_, self.scalars_, self._settings, self._random, F, codes, room
        )
        if bad >= 0:
            raise ValueError(
                f"{type(self).__name__}: weight must be >= 0 and finite, got {block.weight[bad]} "
                f"in row {bad} of the block"
            )
        return (F, codes, *rows[1:])

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
        F = np.empty((block.n, self._width))
        codes = np.empty(block.n, dtype=np.int64)
        y = block.y if block.y.ndim == 2 else block.y[:, None]
        rows = (X, _plain(y), _plain(block.weight), _plain(block.mode))
        room = self._room if self._classify else 0
        lifted = lift.lift_random if self.random_features else lift.lift_linear
        inputs, scalars = self.inputs_.copy(), self.scalars_.copy()
        if lifted(rows, inputs, scalars, self._settings, self._random, F, codes, room) >= 0:
            return {"log:X": X}  # a bad weight, which the walk reports
        filled = np.empty_like(X)
        lift.fill_gaps(rows, self.inputs_.copy(), codes, filled)
        kept = missing.all(axis=1) | (codes == lift.SKIP)
        return {"log:X": np.where(kept[:, None], X, filled)}

    def _warn(self) -> None:
        """Say once that rows are refused, or that the covariance had to be repaired."""
        self._warned = True
        _log.warning(
            "%s: refused %d rows whose features are too large (put Normalizer() before it, or set "
            "feature_norm2), repaired the covariance %d times",
            type(self).__name__, self.scalars_[lift.REFUSED],
            self._n_troubles() - self.scalars_[lift.REFUSED],
        )  # fmt: skip


def _plain(array: Any) -> Any:
    """The array, or a copy if it is read-only or strided: one compiled kernel serves all."""
    return array if array.flags.carray else array.copy()


class LiftedClassifier(Lifted, Classifier):
    """Outputs `prediction` and `proba` of a model on lifted features."""

    _classify = True

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


class LiftedRegressor(Lifted, Regressor):
    """Outputs `prediction` and `variance` of a model on lifted features."""

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
