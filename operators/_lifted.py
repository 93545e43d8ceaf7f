"""Features of rows by `jit.lift`, for heads linear in them; and what Kalman heads share."""

import logging
from typing import Any

import numpy as np

from streamlearn.block import F8, I8, U1, Block, Columns, Features
from streamlearn.jit import kalman, lift
from streamlearn.jit.random_features import random_weights
from streamlearn.operators import _checks
from streamlearn.operators._supervised import Supervised, bad_weight, plain, rows_of

_log = logging.getLogger(__name__)
_REFUSED = 1e12  # sigma_w2 |f|^2 / sigma2 beyond it leaves no correct digit in the covariance
Rows = tuple[F8, I8, F8, F8, U1]
Out = tuple[F8, F8]


class Lifting(Supervised):
    """A model on 1, random features and x, with gaps filled by running means from before the row.

    A subclass gives `_room`, `_width` and `_widen`, and keeps the arrays named below.
    """

    inputs_: F8  # (2, d) weight seen and running mean of each feature
    scalars_: F8  # counters, those of `jit.lift` first
    _settings: F8  # those of `jit.lift` first
    _random: F8 = np.zeros((0, 0))  # (1 + d, h) weights of random features, biases first

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

    def _lift(self, block: Block, K: int) -> Rows:
        """Features of the head and codes of labels; counts, and learns means of features."""
        self._widen(K)
        rows = rows_of(block)
        F, codes = self._buffers(block.n, self._width)
        bad = self._lift_rows(rows, self.inputs_, self.scalars_, F, codes)
        if bad >= 0:
            raise bad_weight(self, block, bad)
        return (F, codes, *rows[1:])

    def _lift_rows(
        self, rows: tuple[F8, F8, F8, U1], inputs: F8, scalars: F8, F: F8, codes: I8
    ) -> int:
        room = self._room if self._classify else 0
        lifted = lift.lift_random if self._random.shape[1] else lift.lift_linear
        return int(lifted(rows, inputs, scalars, self._settings, self._random, F, codes, room))

    def seen(self, block: Block, rows: I8) -> F8:
        """The features of these rows with their gaps filled."""
        X: F8 = block.X[rows]
        if not np.isnan(X).any():
            return X
        self._admit(block)
        seen: F8 = self._seen(block, self._n_wanted(block))["log:X"][rows]
        return seen

    def _seen(self, block: Block, K: int) -> Columns:
        """The features with every gap filled as it is at scoring: a late label teaches on these.

        Rows that are empty or not taken stay as they are, to be passed over again.
        """
        X, missing = plain(block.X), np.isnan(block.X)
        if not missing.any():
            return {"log:X": X}
        self._widen(K)
        rows = rows_of(block)
        F, codes = np.empty((block.n, self._width)), np.empty(block.n, dtype=np.int64)
        if self._lift_rows(rows, self.inputs_.copy(), self.scalars_.copy(), F, codes) >= 0:
            return {"log:X": X}  # a bad weight, which the walk reports
        filled = np.empty_like(X)
        lift.fill_gaps(rows, self.inputs_.copy(), codes, filled)
        kept = missing.all(axis=1) | (codes == lift.SKIP)
        return {"log:X": np.where(kept[:, None], X, filled)}


class Lifted(Lifting):
    """A Kalman head or a bank of them, on features rescaled to one length.

    A subclass gives `_walk` and `_n_troubles` too.
    """

    exact = True
    sigma_w2: float
    sigma2: float
    feature_norm2: float
    decay_mean: bool
    random_features: int
    random_scale: float
    seed: int
    _work: F8
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
        self._warned = False

    def _open_inputs(self, features: Features) -> int:
        """Make room for features on the side of the inputs; the width of the head."""
        d = len(features)
        self.inputs_ = _checks.padded(self.inputs_, (2, d))
        self._work = np.zeros((0, 0))  # too small for the new width
        return 1 + self.random_features + d

    def _draw(self, features: Features) -> None:
        """Weights of the random features; last, for a size beyond all memory is refused before."""
        h = self.random_features
        self._random = random_weights(self.seed, features.names if h else (), h, self.random_scale)

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        super().restore(snapshot)
        self._work = np.zeros((0, 0))  # of another width

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

    def _run(self, block: Block) -> Columns:
        K = self._n_wanted(block)
        seen = self._seen(block, K) if block.log_wanted else {}
        rows = self._lift(block, K)
        n, room = block.n, self._room
        answer, side = np.empty((n, room)), np.empty((n, 1 if self._classify else room))
        self._walk(rows, (answer, side))
        return self._answered(block, (answer, side), seen)

    def _answered(self, block: Block, out: Out, seen: Columns) -> Columns:
        """The outputs of a walk, beside what it has seen; a warning at the first trouble."""
        if not self._warned and self._n_troubles() > 0.0:
            self._warn()
        named = self._named(block, *out)
        return named | seen if seen else named

    def _warn(self) -> None:
        """Say once that rows are refused, or that the covariance had to be repaired."""
        self._warned = True
        _log.warning(
            "%s: refused %d rows whose features are too large (put Normalizer() before it, or set "
            "feature_norm2), repaired the covariance %d times",
            type(self).__name__, self.scalars_[lift.REFUSED],
            self._n_troubles() - self.scalars_[lift.REFUSED],
        )  # fmt: skip
