"""MMD drift: the joint distribution of the features is not what it was; no label needed."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from river import base

from streamlearn.block import F8, Block, Columns, Features
from streamlearn.contracts import Finding, Json
from streamlearn.jit import counter, feature_maps
from streamlearn.operators import _bootstrap, _checks, _findings
from streamlearn.operators._windowed import Windowed, moments_of, moved_means, observed

_CHAINS, _CHAIN = 400, 60  # streams of the bootstrap, tests of each
_LEAST = 1e-9  # a gap of rounding is none


class MMDDrift(Windowed, base.Transformer):
    """Watches all features at once: the maximum mean discrepancy of a window and a reference.

    The first `reference` rows are the reference. They give each feature its centre and scale, and
    rows become random Fourier features of a Gaussian kernel as wide as the typical distance of two
    rows. Every so many rows the squared distance of the mean feature of the newest `window` rows
    and that of the reference, times the window's size, is compared with a limit. So it sees what no
    single feature shows, such as a correlation that turns. A missing value counts as the centre. X
    is handed on unchanged; outputs `alarm` (n,) uint8 and, where there is one, `why`, with the
    features whose mean moved most. Features that come after the reference are not in it.
    The chance of an alarm, given none yet, is 1 / A a row while the rows are like the reference:
    the limit comes from streams drawn from it in blocks of rows.
    Args:
        reference: rows of the reference, >= window; under 100 windows the calibration warns.
        window: rows compared with it, a multiple of `every`.
        every: rows from one test to the next, >= 1.
        components: random projections, each a cosine and a sine, >= 1.
        sliding: the reference is renewed every `reference` rows and after an alarm.
        average_run_length: A, >= 10 `every`; None: the bound of Gretton et al. for independent
            rows at `alpha`, which is wide.
        alpha: without A, the significance of a test, in (0, 1).
        block: rows of a block of the bootstrap; 0: the cube root of the reference.
        seed: of the projections, drawn per (seed, feature name), and of the bootstrap.
    State (q = 2 components):
        pool_: (reference, d) float64 while a reference is collected, else (0, d).
        ring_: (window, d), newest rows. lifted_: (window, q), their Fourier features.
        moments_: (2, d), centre and scale. mean_: (q,) of the reference.
    Cost: O(d components) a row, O(window q) a test; 8 (d + q) window bytes and, while collecting,
    8 d `reference`. The bootstrap takes a tenth of a second, once a reference.
    Raises: ValueError for a parameter out of range. Warns of a reference that is too short.
    Reference: Gretton et al. (2012), A kernel two-sample test; Rahimi and Recht (2007), Random
    features for large-scale kernel machines.
    >>> watch = MMDDrift(reference=100, window=20, every=10, average_run_length=None)
    >>> for i in range(200):
    ...     watch.learn_one({"a": i % 7 + (50.0 if i >= 150 else 0.0)})
    >>> watch.n_detections
    1
    """

    _arrays = ("pool_", "ring_", "lifted_", "moments_", "mean_")
    _counters = ("n_rows", "n_seen", "n_filled", "n_tests", "n_detections", "tails_", "armed_")

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build: quick to be full."""
        short = {"average_run_length": None, "reference": 16, "window": 8, "every": 4}
        yield short | {"components": 8}
        yield short | {"sliding": True, "components": 3, "window": 4, "every": 2, "alpha": 0.5}

    def __init__(
        self,
        reference: int = 20_000,
        window: int = 200,
        every: int = 50,
        components: int = 32,
        sliding: bool = False,
        average_run_length: int | None = 10_000,
        alpha: float = 0.001,
        block: int = 0,
        seed: int = 0,
    ) -> None:
        self._set_window(locals())
        self.components = _checks.whole("MMDDrift", "components", components, 1)
        self._warn_of(reference)
        self._clear()

    def _clear(self) -> None:
        self.pool_: F8 = np.zeros((self.reference, 0))
        self.ring_: F8 = np.zeros((self.window, 0))
        self.lifted_: F8 = np.zeros((self.window, 2 * self.components))
        self.moments_: F8 = np.zeros((2, 0))
        self.mean_: F8 = np.zeros(2 * self.components)
        self.n_rows = self.n_seen = self.n_filled = self.n_tests = self.n_detections = 0
        self.tails_: list[list[float]] = []
        self.armed_ = True
        self._weights: tuple[Any, F8] | None = None

    def grow(self, features: Features) -> None:
        """New features enter the reference that is being collected, if one is."""
        d = len(features)
        self.pool_ = _checks.padded(self.pool_, (self.pool_.shape[0], d), math.nan)
        self.ring_ = _checks.padded(self.ring_, (self.window, d), math.nan)

    # -- the walk ----------------------------------------------------------------------------------

    def _run(self, block: Block) -> Columns:
        rows, X = observed(block)
        out: Columns = {"X": block.X, "alarm": np.zeros(block.n, np.uint8)}
        at = 0
        while at < X.shape[0]:
            stop = at + min(X.shape[0] - at, self._rows_ahead())
            self._take(X[at:stop])
            at = stop
            ready = self.n_seen >= self.window and self.n_rows % self.every == 0
            found = self._tested() if ready else None
            if found is not None:
                out = _findings.added(out, _findings.at(block.n, int(rows[at - 1]), found))
        return out

    def _rows_ahead(self) -> int:
        """Rows until something is to be done."""
        ahead = self.every - self.n_rows % self.every
        collecting = self.pool_.shape[0] > 0
        return min(ahead, self.reference - self.n_filled) if collecting else ahead

    def _take(self, X: F8) -> None:
        n = X.shape[0]
        if self.moments_.shape[1]:
            lifted = np.empty((n, 2 * self.components))
            self._lift(X, lifted)
            places = (self.n_rows + np.arange(n)) % self.window
            self.ring_[places[-self.window :]] = X[-self.window :]
            self.lifted_[places[-self.window :]] = lifted[-self.window :]
            self.n_seen += n
        self.n_rows += n
        if self.pool_.shape[0]:
            self.pool_[self.n_filled : self.n_filled + n] = X
            self.n_filled += n
            if self.n_filled == self.reference:
                self._refer()

    def _lift(self, X: F8, out: F8) -> None:
        """The Fourier features of rows."""
        d = self.moments_.shape[1]
        names = self._features.names[:d]
        if self._weights is None or self._weights[0] != names:
            width = 1.0 / math.sqrt(max(d, 1))
            keys = [counter.key_of(self.seed, f"feature {name}") for name in names]
            draws = [width * counter.normals(key, self.components) for key in keys]
            self._weights = (names, np.array(draws).reshape(d, self.components))
        centre, scale = self.moments_
        feature_maps.fourier_features(X, centre, scale, self._weights[1], out)

    # -- the reference -----------------------------------------------------------------------------

    def _refer(self) -> None:
        """The pool becomes the reference, and gives the limit."""
        rows = self.pool_
        self.moments_ = moments_of(rows)
        lifted = np.empty((rows.shape[0], 2 * self.components))
        self._lift(rows, lifted)
        self.mean_ = np.asarray(lifted.sum(axis=0) / rows.shape[0])
        self.n_seen = self.n_tests = 0
        if self.average_run_length is not None:
            self._calibrate(lifted, self.average_run_length)
        more = self.reference if self.sliding else 0
        self.pool_ = np.full((more, rows.shape[1]), math.nan)
        self.n_filled = 0

    def _calibrate(self, lifted: F8, average_run_length: int) -> None:
        overlapping = self.window // self.every
        largest = np.empty((_CHAINS, _CHAIN + overlapping))
        length = self.block or round(self.reference ** (1.0 / 3.0))
        key = np.uint64(counter.key_of(self.seed, f"bootstrap {self.n_rows}"))
        feature_maps.gap_bootstrap(
            lifted, self.mean_, (self.window, self.every, length), key, largest
        )
        tails = _bootstrap.tails(largest, overlapping, self.every / average_run_length)
        self.tails_ = [[*tail] for tail in tails]

    # -- the test ----------------------------------------------------------------------------------

    def _statistic(self) -> float:
        stands_for = self.window * self.reference / (self.window + self.reference)
        return stands_for * feature_maps.squared_gap(self.lifted_, self.mean_)

    def _limit(self) -> float:
        if self.average_run_length is None:  # by McDiarmid, kernel <= 1
            return (1.0 + math.sqrt(-2.0 * math.log(self.alpha))) ** 2
        (first, _), (later, _) = self.tails_
        late = min(self.n_tests * self.every / self.window, 1.0)
        return max(first + late * (later - first), _LEAST)

    def _tested(self) -> Finding | None:
        """Compare the window with the reference; what was found, if anything."""
        statistic, limit = self._statistic(), self._limit()
        self.n_tests += 1
        armed, self.armed_ = self.armed_, statistic <= limit
        if statistic <= limit or not armed:
            return None
        self.n_detections += 1
        found: Finding = {
            "detector": type(self).__name__,
            "watches": "features",
            "statistic": statistic,
            "limit": limit,
            "features": moved_means(self._features, self.ring_, self.moments_),
        }
        if self.sliding:
            self.moments_, self.n_seen, self.n_filled = np.zeros((2, 0)), 0, 0
            self.pool_ = np.full((self.reference, self.ring_.shape[1]), math.nan)
            self.armed_ = True
        return found

    @property
    def standing(self) -> dict[str, Json]:
        """The statistic and its limit; nothing before the window is full."""
        if self.n_seen < self.window:
            return {}
        return {"statistic": self._statistic(), "limit": self._limit()}
