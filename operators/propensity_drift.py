"""Propensity drift: the time of a row can be told from it; finds slow drift, needs no label."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from river import base

from streamlearn.block import F8, Block, Columns, Features
from streamlearn.contracts import Finding, Json
from streamlearn.jit import counter
from streamlearn.jit.propensity import propensity_walk
from streamlearn.operators import _checks, _findings
from streamlearn.operators._base import Transformer
from streamlearn.operators._windowed import moments_of, observed

_FAR = 8.0  # a standardised value is cut there
_SHOWN = 5  # features of a finding
_LEAST = 1e-6  # of a new scale in units of the old one, for terms to be worth keeping


class PropensityDrift(Transformer, base.Transformer):
    """Watches whether the age of a row can be told from it: drift too slow for a step detector.

    The newest `window` rows are kept with their ages tau, from -1 to 0 windows. A logistic model
    tells which of two ages a row has: its log odds are g(x, tau_1) - g(x, tau_2), g linear in x and
    quadratic in tau, x standardised by medians and spreads. It takes `pairs` AdaGrad steps a row,
    each on a stored row and two stored ages drawn by the seeded generator. The statistic is a
    fading mean, over `patience` rows, of log 2 - loss, in nats, each loss from before its step:
    about 0 where the age cannot be told, less 0.0003 for each feature (measured), the price of a
    fit that keeps moving. An alarm is raised when it has been above `limit` for `patience` rows in
    a row, once until it falls below. X is handed on unchanged; outputs `alarm` (n,) uint8 and,
    where there is one, `why`, with the features whose terms moved most.
    The limit is a published rule: no run length between false alarms is claimed. Seasons longer
    than a part of the window are drift to it. A change of spreads alone is not seen. A missing
    value counts as the median. A new feature enters when medians and spreads are taken again, every
    `window` rows. Rows that OBSERVE with a weight > 0 count, whatever their weight.
    Args:
        window: rows kept, >= 2.
        pairs: steps a row, >= 1.
        learning_rate: of AdaGrad, > 0.
        decay: of AdaGrad's sums, each step, in [0, 1].
        limit: of the statistic, in nats, > 0; log 2 = 0.69 is the most there is.
        patience: rows that the statistic must stay above it, >= 1.
        begin: rows before the first step, from 2 to `window`.
        seed: of the draws.
    State:
        ring_: (window, d) float64, row number i at i % window; NaN is missing.
        moments_: (2, d), centre and scale. theta_, sums_: (d + 1, 2), the terms in tau and tau^2 of
        each feature and, last, of age alone; AdaGrad's sums.
        stand_: (3,), rows so far, the statistic, rows that it has been above its limit.
    Cost: O(pairs d) a row, O(window log(window) d) every `window` rows; 8 d `window` bytes.
    Raises: ValueError for a parameter out of range.
    Reference: Fakoor et al. (2024), Time-Varying Propensity Score to Bridge the Gap between the
    Past and Present, ICLR, for the score; the estimator from a stream is this package's own.
    >>> watch = PropensityDrift(window=400, patience=100)
    >>> for i in range(2_000):
    ...     watch.learn_one({"a": i * 7 % 11 + 0.02 * max(i - 1_000, 0)})
    >>> watch.n_detections
    1
    """

    _arrays = ("ring_", "moments_", "theta_", "sums_", "stand_")
    _counters = ("n_detections",)

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build: quick to be full."""
        yield {"window": 16, "begin": 8, "patience": 4}
        yield {"window": 12, "begin": 3, "patience": 2, "pairs": 1, "limit": 1e-4, "seed": 3}

    def __init__(
        self,
        window: int = 5_000,
        pairs: int = 4,
        learning_rate: float = 0.1,
        decay: float = 0.999,
        limit: float = 0.02,
        patience: int = 500,
        begin: int = 200,
        seed: int = 0,
    ) -> None:
        owner = type(self).__name__
        self.window = _checks.whole(owner, "window", window, 2)
        self.pairs = _checks.whole(owner, "pairs", pairs, 1)
        self.learning_rate = _checks.positive(owner, "learning_rate", learning_rate)
        self.decay = _checks.between(owner, "decay", decay, 0.0, 1.0)
        self.limit = _checks.positive(owner, "limit", limit)
        self.patience = _checks.whole(owner, "patience", patience, 1)
        self.begin = _checks.whole(owner, "begin", begin, 2)
        if begin > window:
            raise ValueError(f"{owner}: begin must be at most window={window}, got {begin}")
        self.seed = _checks.whole(owner, "seed", seed, 0)
        self._key = float(counter.key_of(seed, "pairs") >> 11)
        self._clear()

    def _clear(self) -> None:
        self.ring_: F8 = np.zeros((self.window, 0))
        self.moments_: F8 = np.zeros((2, 0))
        self.theta_: F8 = np.zeros((1, 2))
        self.sums_: F8 = np.zeros((1, 2))
        self.stand_: F8 = np.zeros(3)
        self.n_detections = 0

    def grow(self, features: Features) -> None:
        """New features are kept from now on; terms they get with the next medians and spreads."""
        self.ring_ = _checks.padded(self.ring_, (self.window, len(features)), np.nan)

    # -- the walk ----------------------------------------------------------------------------------

    def _run(self, block: Block) -> Columns:
        rows, X = observed(block)
        out: Columns = {"X": block.X, "alarm": np.zeros(block.n, np.uint8)}
        at = 0
        while at < X.shape[0]:
            at += self._take(X[at : at + self._rows_ahead()])
            if self.stand_[2] == self.patience:
                self.n_detections += 1
                found = _findings.at(block.n, int(rows[at - 1]), self._finding())
                out = _findings.added(out, found)
        return out

    def _rows_ahead(self) -> int:
        """Rows until medians and spreads are to be taken."""
        n = int(self.stand_[0])
        return self.begin - n if n < self.begin else self.window - n % self.window

    def _take(self, X: F8) -> int:
        """Rows up to and including the first that alarms; how many."""
        taken = propensity_walk(
            X, self.ring_, self.moments_, self.theta_, self.sums_, self.stand_, self._key,
            (self.pairs, self.begin + 1, self.patience),
            (self.learning_rate, self.decay, self.limit),
        )  # fmt: skip
        n = int(self.stand_[0])
        if n == self.begin or n % self.window == 0:
            self._rescale(self.ring_[: min(n, self.window)])
        return taken

    def _rescale(self, rows: F8) -> None:
        """Take medians and spreads of the rows kept (n, d).

        g stays the function that it is; of a feature that has left the old scale, its value there.
        """
        d, known = rows.shape[1], self.moments_.shape[1]
        moments = moments_of(rows)
        with np.errstate(over="ignore"):
            ratio = np.minimum(moments[1, :known] / self.moments_[1], _FAR)
            shift = np.clip((moments[0, :known] - self.moments_[0]) / self.moments_[1], -_FAR, _FAR)
        theta, sums = np.zeros((d + 1, 2)), np.zeros((d + 1, 2))
        theta[d], sums[d] = self.theta_[known], self.sums_[known]
        for j in range(known):
            theta[d] += self.theta_[j] * shift[j]
            if abs(shift[j]) < _FAR and ratio[j] > _LEAST:
                theta[j] = self.theta_[j] * ratio[j]
                sums[j] = self.sums_[j] / (ratio[j] * ratio[j])
        self.moments_, self.theta_, self.sums_ = moments, theta, sums

    # -- what is told ------------------------------------------------------------------------------

    def _finding(self) -> Finding:
        return {
            "detector": type(self).__name__,
            "watches": "features",
            "statistic": float(self.stand_[1]),
            "limit": self.limit,
            "features": self._moved(),
        }

    def _moved(self) -> list[dict[str, Json]]:
        """The features whose terms say most about age; `from` and `to`: means of both halves.

        statistic: how much the log odds of the present against half a window ago, or a whole one,
        change with one scale of the feature, whichever is more.
        """
        d = self.moments_.shape[1]
        ahead, curve = self.theta_[:d].T
        whole, half = ahead - curve, 0.5 * ahead - 0.25 * curve
        moved = np.where(np.abs(whole) >= np.abs(half), whole, half)
        n = int(self.stand_[0])
        by_age = np.roll(self.ring_, -(n % self.window), axis=0)[-min(n, self.window) :]
        middle = by_age.shape[0] // 2
        before, after = self._means(by_age[:middle]), self._means(by_age[middle:])
        names = [str(name) for name in self._features.names[:d]]
        return [
            {
                "name": names[j],
                "statistic": float(moved[j]),
                "from": float(before[j]),
                "to": float(after[j]),
            }
            for j in np.lexsort((names, -np.abs(moved)))[:_SHOWN].tolist()
        ]

    def _means(self, rows: F8) -> F8:
        """Means of the features in these rows, far values cut; the centre where all are missing."""
        centre, scale = self.moments_
        with np.errstate(over="ignore"):
            Z = np.clip((rows[:, : centre.shape[0]] - centre) / scale, -_FAR, _FAR)
        n_known = np.maximum((~np.isnan(Z)).sum(axis=0), 1)
        return np.asarray(centre + scale * np.nan_to_num(Z).sum(axis=0) / n_known)

    @property
    def standing(self) -> dict[str, Json]:
        """The statistic and its limit; nothing before the first step."""
        if self.stand_[0] <= self.begin:
            return {}
        return {"statistic": float(self.stand_[1]), "limit": self.limit}
