"""Drift by a score of whole rows: how strange a model of the first rows finds the newest."""

import math
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from river import base

from streamlearn.block import F8, OBSERVE, PREDICT, Block, Columns, Features
from streamlearn.contracts import Finding, Json, State, merged
from streamlearn.jit.stream_svd import novelties, svd_walk
from streamlearn.operators import _checks, _findings
from streamlearn.operators._base import Operator
from streamlearn.operators._windowed import Windowed, moments_of, moved_means, observed
from streamlearn.operators.feature_drift import FeatureDrift
from streamlearn.operators.mixture import GaussianMixtureAnomalyScorer

_FAR = 8.0  # a standardised value is cut there
_SHOWN = 5  # features of a finding
_FOREVER = 1 << 62


class _ScoreDrift(Windowed):
    """Rows teach a model of X; its scores of later rows are compared.

    The model stays as it is, or is taught on in groups of rows anchored to its own count. A
    subclass gives `_learn`, `_learn_on` and `_score`, of standardised rows without gaps.
    """

    _arrays: ClassVar[tuple[str, ...]] = ("pool_", "ring_", "moments_")
    _counters = ("n_rows", "n_filled", "n_detections", "n_since_")
    _SCORE: ClassVar[str]

    def _set(self, given: dict[str, Any]) -> None:
        """The parameters that all have."""
        self._set_window(given)
        owner, refresh = type(self).__name__, given["refresh"]
        self.train = _checks.whole(owner, "train", given["train"], 10)
        self.refresh = _checks.whole(owner, "refresh", refresh, 0)
        least = self.train + self.reference + self.window
        if 0 < refresh < least:
            raise ValueError(
                f"{owner}: refresh must be 0 or >= train + reference + window = {least}, or no "
                f"window would be compared, got {refresh}"
            )
        self._warn_of(self.reference)
        names = ("reference", "window", "every", "average_run_length", "alpha", "block", "seed")
        with warnings.catch_warnings(action="ignore"):  # it would say the same
            self._test = FeatureDrift(test="ks", **{name: given[name] for name in names})
        self._clear()

    def _clear(self) -> None:
        self.pool_: F8 = np.zeros((self.train, 0))
        self.ring_: F8 = np.zeros((self._test.window, 0))
        self.moments_: F8 = np.zeros((2, 0))
        self.n_rows = self.n_filled = self.n_detections = 0
        self.n_since_ = -1  # rows since the model has learnt; -1 before it has
        self._test.reset()

    def grow(self, features: Features) -> None:
        """New features enter the model that is being taught, if one is."""
        d = len(features)
        self.pool_ = _checks.padded(self.pool_, (self.pool_.shape[0], d), math.nan)
        self.ring_ = _checks.padded(self.ring_, (self.ring_.shape[0], d), math.nan)

    # -- the walk ----------------------------------------------------------------------------------

    def _run(self, block: Block) -> Columns:
        rows, X = observed(block)
        out: Columns = {"X": block.X, "alarm": np.zeros(block.n, np.uint8)}
        at = 0
        while at < X.shape[0]:
            if self.n_since_ < 0:
                at += self._collect(X[at:])
                continue
            taken, found = self._compare(X[at : at + self._rows_ahead()])
            at += taken
            if found is not None:
                out = _findings.added(out, _findings.at(block.n, int(rows[at - 1]), found))
        return out

    def _collect(self, X: F8) -> int:
        """Rows that teach the model, which learns when there are enough; how many were taken."""
        n: int = min(X.shape[0], self.train - self.n_filled)
        self._keep(X[:n])
        if self.n_filled == self.train:
            self.moments_ = moments_of(self.pool_)
            self._learn(self._standardised(self.pool_))
            self._learnt()
        return n

    def _keep(self, X: F8) -> None:
        """Rows for the next lesson."""
        self.pool_[self.n_filled : self.n_filled + X.shape[0]] = X
        self.n_filled += X.shape[0]

    def _learnt(self) -> None:
        """The model is another: its scores are compared with a new reference."""
        self.pool_ = np.zeros((0, self.pool_.shape[1]))
        self.n_since_ = 0
        self._test.reset()

    def _rows_ahead(self) -> int:
        """Rows until they are kept for the next lesson, or until that."""
        if self.refresh == 0:
            return _FOREVER
        kept_from = self.refresh - self.train
        return (kept_from if self.n_since_ < kept_from else self.refresh) - self.n_since_

    def _count(self, X: F8) -> None:
        """Rows were compared; after enough of them the last ones teach."""
        self.n_since_ += X.shape[0]
        if self.pool_.shape[0]:
            self._keep(X)
        if self.refresh and self.n_since_ == self.refresh:
            self._learn_on(self._standardised(self.pool_))
            self._learnt()
        elif self.refresh and self.n_since_ == self.refresh - self.train:
            self._empty_pool()

    def _empty_pool(self) -> None:
        self.pool_ = np.full((self.train, self.ring_.shape[1]), math.nan)
        self.n_filled = 0

    def _compare(self, X: F8) -> tuple[int, Finding | None]:
        """Score rows up to the first alarm: how many, and what was found."""
        scores = np.ascontiguousarray(self._score(self._standardised(X))[:, None])
        features = Features((self._SCORE,))
        if self._test.features is None:
            self._test.meet(features)
        taken, found = self._test.first_found(scores, features)
        last = min(taken, self.ring_.shape[0])
        places = (self.n_rows + np.arange(taken - last, taken)) % self.ring_.shape[0]
        self.ring_[places] = X[taken - last : taken]
        self.n_rows += taken
        if found is None:
            self._count(X[:taken])
            return taken, None
        self.n_detections += 1
        (score,) = found["features"]
        told: Finding = {
            "detector": type(self).__name__,
            "watches": "features",
            "statistic": found["statistic"],
            "limit": found["limit"],
            "score": score,
            "features": self._moved(),
        }
        if self.sliding:
            self._empty_pool()
            self.n_since_ = -1
        else:
            self._count(X[:taken])
        return taken, told

    def _standardised(self, X: F8) -> F8:
        centre, scale = self.moments_
        Z = (X[:, : centre.shape[0]] - centre) / scale
        return np.ascontiguousarray(np.nan_to_num(np.clip(Z, -_FAR, _FAR)))

    def _learn(self, Z: F8) -> None:
        """Make the model of these rows (train, d)."""
        raise NotImplementedError(f"{type(self).__name__} has no _learn")

    def _learn_on(self, Z: F8) -> None:
        """Teach the model these rows (train, d), too."""
        raise NotImplementedError(f"{type(self).__name__} has no _learn_on")

    def _score(self, Z: F8) -> F8:
        """How strange each of these rows is, (n,); changes nothing."""
        raise NotImplementedError(f"{type(self).__name__} has no _score")

    def _moved(self) -> list[dict[str, Json]]:
        """The features to blame."""
        return moved_means(self._features, self.ring_, self.moments_)

    @property
    def standing(self) -> dict[str, Json]:
        """The statistic of the scores and its limit; nothing before their window is full."""
        told = self._test.standing
        return {name: told[name] for name in ("statistic", "limit") if name in told}

    # -- state -------------------------------------------------------------------------------------

    def _parts(self) -> dict[str, Operator]:
        """Operators that are part of it."""
        return {"test": self._test}

    def snapshot(self) -> dict[str, Any]:
        """A cheap copy, those of its parts included."""
        return super().snapshot() | {
            f"part {name}": part.snapshot() for name, part in self._parts().items()
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        own = {name: value for name, value in snapshot.items() if not name.startswith("part ")}
        super().restore(own)
        for name, part in self._parts().items():
            part.restore(snapshot[f"part {name}"])

    def state(self) -> State:
        """Its own state and those of its parts."""
        own = super().state()
        inner = merged({name: part.state() for name, part in self._parts().items()}, own.table)
        return State(own.arrays | inner.arrays, inner.table)

    def load(self, state: State) -> None:
        """Take over what `state` gave; refused if the parameters were others."""
        super().load(state)
        for name, part in self._parts().items():
            part.load(state.under(name))

    def reset(self) -> None:
        """Forget everything learnt; the names of features stay."""
        super().reset()
        for part in self._parts().values():
            part.reset()

    @property
    def state_bytes(self) -> int:
        """Bytes of its own arrays and of its parts."""
        return super().state_bytes + sum(part.state_bytes for part in self._parts().values())


class NoveltyDrift(_ScoreDrift, base.Transformer):
    """Watches how much of a row lies outside the subspace of the first rows.

    The first `train` rows, standardised by their medians and spreads, give their `components` right
    singular vectors, by a truncated decomposition that takes one row at a time. The novelty of a
    later row is the length of what they do not hold of it, over its own length. The novelties of
    the next `reference` rows are the reference, with which those of the newest `window` rows are
    compared by the Kolmogorov-Smirnov distance, as in `FeatureDrift`. So it sees relations between
    features that break, though each stays as it was. X is handed on unchanged; outputs `alarm` and,
    where there is one, `why`, with the features that lie outside more than they did. Features that
    come after the first `train` rows are not in it. A missing value counts as the median.
    Args:
        components: singular vectors, >= 1; no more than features are taken.
        train: rows that give the subspace, >= 10.
        sliding: after an alarm a new subspace and a new reference are taken; else both stay.
        refresh: every so many rows the last `train` of them teach the model what it lacks, and a
            new reference is taken; 0: never. Not less than train, reference and window together.
        reference, window, every, average_run_length, alpha, block, seed: as in `FeatureDrift`.
    State:
        V_: (d, k) float64, right singular vectors. sv_: (k,) singular values.
        parts_: (d,) float64, mean square of what was outside, by feature, in the first rows.
        moments_: (2, d), centre and scale. pool_: (train, d) while they come, else (0, d).
        ring_: (window, d), newest rows. test: that of a `FeatureDrift` of one column.
    Cost: O(d k) a row, and once O(train (d k^2 + k^3)); the memory of `pool_` and `ring_`.
    Raises: ValueError for a parameter out of range. Warns of a reference that is too short.
    Reference: Deng et al. (2024), Fast updating truncated SVD for representation learning with
    sparse matrices; Jacobi's one-sided method for the small matrix.
    >>> watch = NoveltyDrift(1, train=50, reference=100, window=20, every=10,
    ...                      average_run_length=None)
    >>> for i in range(300):
    ...     a = float(i * 7 % 11)
    ...     watch.learn_one({"a": a, "b": a if i < 250 else 10.0 - a})
    >>> watch.n_detections
    1
    """

    _arrays = (*_ScoreDrift._arrays, "V_", "sv_", "parts_")
    _SCORE = "novelty"

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build: quick to be full."""
        short = {"average_run_length": None, "reference": 12, "window": 8, "every": 4}
        yield short | {"train": 12, "components": 2, "refresh": 40}
        yield short | {"train": 10, "components": 1, "sliding": True, "alpha": 0.5}

    def __init__(
        self,
        components: int = 8,
        train: int = 2_000,
        reference: int = 20_000,
        window: int = 200,
        every: int = 50,
        sliding: bool = False,
        refresh: int = 0,
        average_run_length: int | None = 10_000,
        alpha: float = 0.001,
        block: int = 0,
        seed: int = 0,
    ) -> None:
        self.components = _checks.whole("NoveltyDrift", "components", components, 1)
        self._set(locals())

    def _clear(self) -> None:
        super()._clear()
        self.V_: F8 = np.zeros((0, 0))
        self.sv_: F8 = np.zeros(0)
        self.parts_: F8 = np.zeros(0)

    def _learn(self, Z: F8) -> None:
        k = min(self.components, Z.shape[1])
        self.V_, self.sv_ = np.zeros((Z.shape[1], k)), np.zeros(k)
        self._follow(Z, 1.0)

    def _learn_on(self, Z: F8) -> None:
        self._follow(Z, 0.5 ** (1.0 / self.train))

    def _follow(self, Z: F8, gam: float) -> None:
        """Take rows into the subspace; an older row fades by gam a row."""
        svd_walk(Z, self.V_, self.sv_, gam)
        self.parts_ = np.zeros(Z.shape[1])
        novelties(Z, self.V_, self.parts_, np.empty(Z.shape[0]))
        self.parts_ /= Z.shape[0]

    def _score(self, Z: F8) -> F8:
        out = np.empty(Z.shape[0])
        novelties(Z, self.V_, np.zeros(self.parts_.shape[0]), out)
        return out

    def _moved(self) -> list[dict[str, Json]]:
        Z = self._standardised(self.ring_)
        now = np.zeros(self.parts_.shape[0])
        novelties(Z, self.V_, now, np.empty(Z.shape[0]))
        was, now = np.sqrt(self.parts_), np.sqrt(now / Z.shape[0])
        names = [str(name) for name in self._features.names[: was.shape[0]]]
        return [
            {
                "name": names[j],
                "statistic": float(now[j] - was[j]),
                "from": float(was[j]),
                "to": float(now[j]),
            }
            for j in np.lexsort((names, was - now))[:_SHOWN].tolist()
        ]


class DensityDrift(_ScoreDrift, base.Transformer):
    """Watches how likely a row is under a Gaussian mixture of the first rows.

    The first `train` rows, standardised by their medians and spreads, teach the mixture of
    `GaussianMixtureAnomalyScorer`. The score of a later row is minus its log density. The scores of
    the next `reference` rows are the reference, with which those of the newest `window` rows are
    compared by the Kolmogorov-Smirnov distance, as in `FeatureDrift`: up, rows are where none were;
    down, they crowd together. X is handed on unchanged; outputs `alarm` and, where there is one,
    `why`, with the features whose means moved most. Features that come after the first `train` rows
    are not in it. A missing value counts as the median.
    Args:
        k_max: components of the mixture at most, >= 1.
        beta: chance that a row of a component is taken for new, in [0, 1).
        train: rows that teach the mixture, >= 10.
        sliding: after an alarm a new mixture and a new reference are taken; else both stay.
        refresh: every so many rows the last `train` of them teach the model what it lacks, and a
            new reference is taken; 0: never. Not less than train, reference and window together.
        reference, window, every, average_run_length, alpha, block, seed: as in `FeatureDrift`.
    State:
        moments_: (2, d), centre and scale. pool_: (train, d) while they come, else (0, d).
        ring_: (window, d), newest rows. scorer: that of the mixture. test: that of a
        `FeatureDrift` of one column.
    Cost: O(k_max d^2) a row; the memory of the mixture, `pool_` and `ring_`.
    Raises: ValueError for a parameter out of range. Warns of a reference that is too short.
    Reference: Pinto and Engel (2015), A Fast Incremental Gaussian Mixture Model, PLOS ONE 10(10).
    >>> watch = DensityDrift(train=50, reference=100, window=20, every=10, average_run_length=None)
    >>> for i in range(300):
    ...     watch.learn_one({"a": i * 7 % 11 + (50.0 if i >= 250 else 0.0)})
    >>> watch.n_detections
    1
    """

    _SCORE = "log density"

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build: quick to be full."""
        short = {"average_run_length": None, "reference": 12, "window": 8, "every": 4}
        yield short | {"train": 12, "refresh": 40}
        yield short | {"train": 10, "k_max": 2, "sliding": True, "alpha": 0.5}

    def __init__(
        self,
        k_max: int = 4,
        beta: float = 0.1,
        train: int = 2_000,
        reference: int = 20_000,
        window: int = 200,
        every: int = 50,
        sliding: bool = False,
        refresh: int = 0,
        average_run_length: int | None = 10_000,
        alpha: float = 0.001,
        block: int = 0,
        seed: int = 0,
    ) -> None:
        self.k_max, self.beta = k_max, beta
        warm_start = max(1, min(100, train // 2))
        self._scorer = GaussianMixtureAnomalyScorer(
            beta=beta, k_max=k_max, warm_start=warm_start, rho=1.0, sp_min=3.0
        )
        self._set(locals())

    def _clear(self) -> None:
        super()._clear()
        self._scorer = self._scorer.clone()

    def _parts(self) -> dict[str, Operator]:
        return super()._parts() | {"scorer": self._scorer}

    def _learn(self, Z: F8) -> None:
        self._scorer.reset()
        self._learn_on(Z)

    def _learn_on(self, Z: F8) -> None:
        self._scorer.run(self._rows(Z, OBSERVE))

    def _score(self, Z: F8) -> F8:
        score: F8 = self._scorer.run(self._rows(Z, PREDICT))["score"]
        return score

    def _rows(self, Z: F8, mode: int) -> Block:
        n, d = Z.shape
        modes = np.full(n, mode, np.uint8)
        return Block(Z, np.zeros(n), np.ones(n), modes, Features(self._features.names[:d]))
