"""Feature drift: which columns of X are not what they were, and how; no label needed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from river import base

from streamlearn.block import CATEGORY, F8, I8, Block, Columns, Features
from streamlearn.contracts import Finding, Json
from streamlearn.jit import counter
from streamlearn.jit import feature_drift as kernels
from streamlearn.jit.feature_drift import CELLS, MISSING, OUTSIDE
from streamlearn.operators import _bootstrap, _checks, _findings
from streamlearn.operators._windowed import Windowed, observed

TESTS = ("both", "ks", "psi")
_GROUPS = 64  # cells of a feature at most
_QUANTILE_GROUPS = 10  # cells of a number, as is usual for the population stability index
_RARE = 5.0  # a category expected less often than this in a window shares a cell
_SHOWN = 5  # features of a finding, categories of a feature
_CHAINS, _CHAIN = 400, 60  # streams of the bootstrap, tests of each


class FeatureDrift(Windowed, base.Transformer):
    """Watches the distribution of each feature against a reference; hands X on unchanged.

    The first `reference` rows of a feature are its reference. Then a window slides over the newest
    `window` rows, and every so many rows each feature in it is compared with its reference: numbers
    by the Kolmogorov-Smirnov distance over quantiles of the reference, categories by chi-square,
    both by the population stability index (PSI) over ten quantile groups or the categories. A
    missing value is one of its own. An alarm (outputs `alarm` (n,) uint8 and, where there is one,
    `why`) names the features that moved, most first, with test, statistic, and from where to where.
    Rows that OBSERVE with a weight > 0 count, whatever their weight.
    With `average_run_length` A the chance of an alarm, over all features together, given none yet,
    is 1 / A a row while the rows are like the reference: limits come from streams drawn from the
    reference in blocks of rows (a bootstrap), for the first full window and for those after it, in
    -log of the chance that a distance has for independent rows. An alarm of a fixed reference is
    not repeated before all statistics have been below their limit.
    Args:
        reference: rows of the reference, >= window; under 100 windows the calibration warns.
        window: rows compared with it, a multiple of `every`.
        every: rows from one test to the next, >= 1.
        test: "ks" (categories: chi-square), "psi", or "both".
        sliding: the reference is renewed every `reference` rows and after an alarm.
        average_run_length: A, >= 10 `every`; None: published limits, which claim nothing.
        alpha: without A, the significance of KS and chi-square over all features, in (0, 1).
        psi: without A, the limit of PSI, > 0; 0.25 is the usual "large shift".
        given: name of a number -> its reference values, all of one length; instead of first rows.
        bins: quantiles of the reference that values are compared with, >= 2.
        block: rows of a block of the bootstrap; 0: the cube root of the reference. Rows that depend
            on each other for longer need longer blocks.
        seed: of the bootstrap.
    State (w = window, S = 2 bins + 2 slots):
        ring_: (w, d) float64, newest rows; NaN is missing.
        counts_: (d, S) int64, values of the window by slot. seen_: (d,) values counted, -1 before.
        edges_: (d, bins) float64 quantiles; n_edges_: (d,), -1 for a category.
        held_, groups_: (d, S) int64, the reference's values by slot, and the group of each slot.
        shares_: (d, 64) float64, the reference's share of each group, -1 beyond the last.
        summary_: (d, 4) float64, 10 %, 50 %, 90 % quantile and missing share of the reference.
        pool_: (reference, d) float64 while a reference is collected, else (0, d); fill_: (d,) rows.
        age_: (d,) int64, tests of a full window so far.
    Cost: O(d log bins) a row and O(d S) a test; 16 d S bytes, and 8 d `reference` while collecting.
    The bootstrap takes half a second for 50 features, once a reference.
    Raises: ValueError for a parameter out of range. Warns of a reference that is too short.
    Reference: Dos Reis et al. (2016), Fast unsupervised online drift detection using incremental
    Kolmogorov-Smirnov test; Siddiqi (2006), Credit risk scorecards, for PSI; Kuensch (1989), The
    jackknife and the bootstrap for general stationary observations.
    >>> watch = FeatureDrift(reference=100, window=20, every=10, average_run_length=None)
    >>> for i in range(200):
    ...     watch.learn_one({"a": i % 7 + (50.0 if i >= 150 else 0.0)})
    >>> watch.n_detections
    1
    """

    _arrays = (
        "ring_", "counts_", "seen_", "edges_", "n_edges_", "held_", "groups_", "shares_",
        "summary_", "pool_", "fill_", "age_",
    )  # fmt: skip
    _counters = ("n_rows", "n_detections", "tails_", "armed_")
    takes_categories = True
    _watches = "features"

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build: quick to be full."""
        short = {"average_run_length": None, "reference": 16, "window": 8, "every": 4, "bins": 4}
        yield short
        yield short | {"sliding": True, "test": "psi", "window": 4, "every": 2, "psi": 0.1}

    def __init__(
        self,
        reference: int = 20_000,
        window: int = 200,
        every: int = 50,
        test: str = "both",
        sliding: bool = False,
        average_run_length: int | None = 10_000,
        alpha: float = 0.001,
        psi: float = 0.25,
        given: Mapping[str, Sequence[float]] | None = None,
        bins: int = 64,
        block: int = 0,
        seed: int = 0,
    ) -> None:
        owner = type(self).__name__
        self._set_window(locals())
        self.test = _checks.choice(owner, "test", test, TESTS)
        self.psi = _checks.positive(owner, "psi", psi)
        self.bins = _checks.whole(owner, "bins", bins, 2)
        self.given = given
        self._given = _given(owner, given, self.window)
        self._warn_of(min([self.reference, *map(len, self._given.values())]))
        self._clear()

    def _clear(self) -> None:
        slots = 2 * self.bins + 2
        self.ring_: F8 = np.zeros((self.window, 0))
        self.counts_: I8 = np.zeros((0, slots), dtype=np.int64)
        self.held_, self.groups_ = self.counts_.copy(), self.counts_.copy()
        self.edges_: F8 = np.zeros((0, self.bins))
        self.shares_: F8 = np.zeros((0, _GROUPS))
        self.summary_: F8 = np.zeros((0, 4))
        self.pool_: F8 = np.zeros((0, 0))
        self.seen_: I8 = np.zeros(0, dtype=np.int64)
        self.n_edges_, self.fill_, self.age_ = (self.seen_.copy() for _ in range(3))
        self.n_rows = self.n_detections = 0
        self.tails_: list[list[Any]] = []  # of features that began together: their tails
        self.armed_ = True

    # -- room --------------------------------------------------------------------------------------

    def grow(self, features: Features) -> None:
        """New features begin to collect their reference, or take the one given."""
        known, d = self.seen_.shape[0], len(features)
        if known == d:
            return
        for name in ("counts_", "held_", "groups_", "edges_", "shares_", "summary_"):
            array = getattr(self, name)
            more = np.zeros((d - known, array.shape[1]), array.dtype)
            setattr(self, name, np.concatenate([array, more]))
        for name, fill in (("seen_", -1), ("n_edges_", 0), ("fill_", 0), ("age_", 0)):
            more = np.full(d - known, fill, dtype=np.int64)
            setattr(self, name, np.concatenate([getattr(self, name), more]))
        self.shares_[known:] = -1.0
        for j in range(known, d):
            self.n_edges_[j] = kernels.CATEGORY if features.kinds[j] == CATEGORY else 0
        self.ring_ = _checks.padded(self.ring_, (self.window, d), math.nan)
        self._collect(np.arange(known, d))
        self._take_given(features, known)

    def _collect(self, columns: I8) -> None:
        """Begin a reference of these features; a new array, as snapshots hold the old one."""
        pool = np.full((self.reference, self.seen_.shape[0]), math.nan)
        if self.pool_.shape[0]:
            pool[:, : self.pool_.shape[1]] = self.pool_
        pool[:, columns] = math.nan
        self.pool_ = pool
        self.fill_[columns] = 0

    def _take_given(self, features: Features, known: int) -> None:
        named = [j for j in range(known, len(features)) if str(features.names[j]) in self._given]
        for j in named:
            if features.kinds[j] == CATEGORY:
                raise ValueError(
                    f"{type(self).__name__}: given must hold numbers, got the category "
                    f"{features.names[j]!r}"
                )
        if named:
            columns = np.array(named)
            self._refer(
                columns,
                np.column_stack([self._given[str(features.names[j])] for j in named]),
            )

    # -- the walk ----------------------------------------------------------------------------------

    def _run(self, block: Block) -> Columns:
        rows, X = observed(block)
        out: Columns = {"X": block.X}
        found = self._found(X, block.features)
        if not found:
            return out | {"alarm": np.zeros(block.n, np.uint8)}
        column = np.full(block.n, None, dtype=object)
        for at, finding in found:
            column[rows[at]] = (finding,)
        return _findings.added(out, column)

    def _found(self, X: F8, features: Features) -> list[tuple[int, Finding]]:
        """Walk rows (n, d); rows and findings."""
        found: list[tuple[int, Finding]] = []
        at = 0
        while at < X.shape[0]:
            taken, finding = self.first_found(X[at:], features)
            at += taken
            if finding is not None:
                found.append((at - 1, finding))
        return found

    def first_found(self, X: F8, features: Features) -> tuple[int, Finding | None]:
        """Take rows (n, d) up to and including the first that alarms: how many, and the finding."""
        at = 0
        while at < X.shape[0]:
            stop = at + min(X.shape[0] - at, self._rows_ahead())
            self._take(X[at:stop])
            at = stop
            if self.n_rows % self.every == 0:
                finding = self._tested(features)
                if finding is not None:
                    return at, finding
        return at, None

    def _rows_ahead(self) -> int:
        """Rows until something is to be done."""
        ahead = self.every - self.n_rows % self.every
        if self.pool_.shape[0]:
            open_ = self.fill_[self.fill_ < self.reference]
            ahead = min(ahead, self.reference - int(open_.max(initial=0)))
        return ahead

    def _take(self, X: F8) -> None:
        """Rows without a test or a full reference before the last of them."""
        kernels.slide(
            X, self.ring_, self.n_rows % self.window, self.edges_, self.n_edges_, self.seen_,
            self.counts_,
        )  # fmt: skip
        self.n_rows += X.shape[0]
        if self.pool_.shape[0]:
            self._pool(X)

    def _pool(self, X: F8) -> None:
        n = X.shape[0]
        for fill in set(self.fill_[self.fill_ < self.reference].tolist()):
            columns = np.flatnonzero(self.fill_ == fill)
            self.pool_[fill : fill + n, columns] = X[:, columns]
        collecting = self.fill_ < self.reference
        self.fill_[collecting] += n
        full = np.flatnonzero(collecting & (self.fill_ >= self.reference))
        if full.shape[0]:
            self._refer(full, self.pool_[:, full])

    # -- the reference -----------------------------------------------------------------------------

    def _refer(self, columns: I8, values: F8) -> None:
        """Make values (r, m) the reference of these features (m,), and take limits from it."""
        for k, j in enumerate(columns.tolist()):
            if self.n_edges_[j] != kernels.CATEGORY:
                self._lay_edges(j, values[:, k])
        slots = np.empty((columns.shape[0], values.shape[0]), dtype=np.int64)
        last = self.counts_.shape[1] - 1
        kernels.slots_of(
            np.ascontiguousarray(values), self.edges_[columns], self.n_edges_[columns], last, slots
        )
        for k, j in enumerate(columns.tolist()):
            self.held_[j] = np.bincount(slots[k], minlength=last + 1)
            self._group(j)
        self.seen_[columns], self.counts_[columns], self.age_[columns] = 0, 0, 0
        self.fill_[columns] = self.reference
        if self.average_run_length is not None:
            self._calibrate(columns, slots)
        if self.sliding:
            self._collect(columns)
        elif (self.fill_ >= self.reference).all():
            self.pool_ = np.zeros((0, self.fill_.shape[0]))

    def _lay_edges(self, j: int, values: F8) -> None:
        """Quantiles of a number, or all its values where they are few; the ends are among them."""
        there = np.sort(values[~np.isnan(values)])
        edges = np.unique(there)
        if edges.shape[0] > self.bins:
            places = np.linspace(0.0, there.shape[0] - 1.0, self.bins).round().astype(np.int64)
            edges = np.unique(there[places])
        self.n_edges_[j] = edges.shape[0]
        self.edges_[j] = math.inf
        self.edges_[j, : edges.shape[0]] = edges
        self.summary_[j, :3] = _quantiles(there)
        self.summary_[j, 3] = 1.0 - there.shape[0] / values.shape[0]

    def _group(self, j: int) -> None:
        """The cells of a feature: ten quantile groups, or its categories but for the rare ones."""
        held, last = self.held_[j], self.counts_.shape[1] - 1
        r = float(held.sum())
        groups = np.full(last + 1, OUTSIDE)
        groups[last] = MISSING
        there = np.flatnonzero(held[:last])
        if self.n_edges_[j] == kernels.CATEGORY:
            order = there[np.argsort(-held[there], kind="stable")]
            often = held[order] * (self.window / r) >= _RARE
            groups[order] = np.where(often, 2 + np.arange(order.shape[0]), OUTSIDE)
            groups[groups >= _GROUPS] = OUTSIDE
        else:
            total = np.cumsum(held[there])
            cell = (total - 1) * _QUANTILE_GROUPS // max(int(total[-1]) if total.size else 1, 1)
            within = np.arange(there[0], there[-1] + 1) if there.size else there
            groups[within] = (
                2 + np.unique(cell, return_inverse=True)[1][np.searchsorted(there, within)]
            )
        shares = np.bincount(groups, weights=held, minlength=2) / r
        self.groups_[j] = groups
        self.shares_[j] = -1.0
        self.shares_[j, : shares.shape[0]] = shares

    def _references(self, columns: I8) -> tuple[I8, I8, F8]:
        return self.held_[columns], self.groups_[columns], self.shares_[columns]

    def _calibrate(self, columns: I8, slots: I8) -> None:
        """The tails of the largest score of these features, which began together."""
        assert self.average_run_length is not None
        overlapping = self.window // self.every
        largest = np.empty((_CHAINS, _CHAIN + overlapping))
        length = self.block or round(slots.shape[1] ** (1.0 / 3.0))
        key = counter.key_of(self.seed, f"bootstrap {self.n_rows}")
        kernels.bootstrap(
            slots, self._references(columns), self.n_edges_[columns],
            (self.window, self.every, length), self._used, np.uint64(key), largest,
        )  # fmt: skip
        p = self.every / self.average_run_length
        first, later = _bootstrap.tails(largest, overlapping, p)
        others = [part for part in self.tails_ if part[0] not in columns]
        self.tails_ = [*others, [int(columns[0]), [*first], [*later]]]

    @property
    def _used(self) -> tuple[bool, bool]:
        return self.test != "psi", self.test != "ks"

    # -- the test ----------------------------------------------------------------------------------

    def _tested(self, features: Features) -> Finding | None:
        """Compare the full windows with their references; what was found, if anything."""
        ready = self.seen_ == self.window
        if not ready.any():
            return None
        distances, scores = self._compared()
        limits = self._limits()
        self.age_[ready] += 1
        worst = np.where(self._used, scores, -math.inf)
        moved = np.nan_to_num(worst, nan=-math.inf) > limits
        armed, self.armed_ = self.armed_, not moved.any()
        if not moved.any() or not armed:
            return None
        self.n_detections += 1
        finding = self._finding(features, distances, worst, limits, moved)
        if self.sliding:
            self._renew()
        return finding

    def _compared(self) -> tuple[F8, F8]:
        """Distances and scores of each feature (d, 2); without A, PSI is its own score."""
        d = self.seen_.shape[0]
        distances, scores = np.empty((d, 2)), np.empty((d, 2))
        jitter = 0.0
        if self.average_run_length is not None:
            key = np.array([counter.key_of(self.seed, "tests")], dtype=np.uint64)
            place = np.array([self.n_rows // self.every], dtype=np.uint64)
            jitter = float(counter.unit(counter.bits_at(key, place))[0])
        kernels.compare_all(
            self.counts_, self.seen_, (self.held_, self.groups_, self.shares_), self.n_edges_,
            self.window, jitter, distances, scores,
        )  # fmt: skip
        if self.average_run_length is None:
            scores[:, CELLS] = distances[:, CELLS]
        return distances, scores

    def _limits(self) -> F8:
        """Of both columns of scores (2,)."""
        if self.average_run_length is None:
            ready = int((self.seen_ == self.window).sum())
            return np.array([math.log(ready / self.alpha), self.psi])
        overlapping = self.window // self.every
        parts: list[_bootstrap.Tail] = []
        for j, first, later in self.tails_:
            if self.seen_[j] == self.window:
                late = min(int(self.age_[j]) / overlapping, 1.0)
                level, scale = (a + late * (b - a) for a, b in zip(first, later, strict=True))
                parts.append((level, scale))
        return np.full(2, _bootstrap.common_level(parts))

    def _renew(self) -> None:
        """All features collect a new reference."""
        self.seen_[:], self.counts_[:] = -1, 0
        self.armed_ = True
        self._collect(np.arange(self.seen_.shape[0]))

    @property
    def features(self) -> Features | None:
        """The columns that it watches; None before the first row."""
        return self._features if len(self._features) else None

    @property
    def distances_(self) -> F8:
        """(d, 2) KS (or chi-square) and PSI of each feature's window now; NaN before it is full."""
        return self._compared()[0]

    @property
    def standing(self) -> dict[str, Json]:
        """Each feature's largest score and its limit, most first; nothing before a window is full.

        Without A each test has a limit of its own: the score is in units of it, the limit is 1.
        """
        ready = np.flatnonzero(self.seen_ == self.window)
        if not ready.shape[0]:
            return {}
        limits = self._limits()
        units = limits if self.average_run_length is None else np.ones(2)
        scores = np.where(self._used, self._compared()[1], -math.inf) / units
        limit = float((limits / units)[0])
        most = scores.max(axis=1)
        order = ready[np.argsort(-most[ready], kind="stable")]
        told = [(str(self._features.names[j]), float(most[j])) for j in order.tolist()]
        features = [{"name": name, "statistic": most, "limit": limit} for name, most in told]
        return {"statistic": told[0][1], "limit": limit, "features": features}

    # -- what is told ------------------------------------------------------------------------------

    def _finding(
        self, features: Features, distances: F8, scores: F8, limits: F8, moved: Any
    ) -> Finding:
        over = np.where(moved, scores / limits, -math.inf)
        names = [str(name) for name in features.names]
        order = np.lexsort((names, -over.max(axis=1)))
        ahead = int(order[0])
        which = int(np.argmax(over[ahead]))
        shown = order[: min(int(moved.any(axis=1).sum()), _SHOWN)]
        return {
            "detector": type(self).__name__,
            "watches": self._watches,
            "statistic": float(scores[ahead, which]),
            "limit": float(limits[which]),
            "n_features": int(moved.any(axis=1).sum()),
            "features": [
                self._told(features, j, int(np.argmax(over[j])), distances) for j in shown.tolist()
            ],
        }

    def _told(self, features: Features, j: int, which: int, distances: F8) -> dict[str, Any]:
        """One feature that moved: by which test, how far, from where to where."""
        category = self.n_edges_[j] == kernels.CATEGORY
        name = "PSI" if which == CELLS else "chi-square" if category else "Kolmogorov-Smirnov"
        told = {
            "name": str(features.names[j]),
            "test": name,
            "statistic": float(distances[j, which]),
        }
        return told | (self._shares(features, j) if category else self._moved(j))

    def _moved(self, j: int) -> dict[str, Any]:
        """Medians, and outer deciles, of a number."""
        there = np.sort(self.ring_[~np.isnan(self.ring_[:, j]), j])
        now = _quantiles(there)
        missing = 1.0 - there.shape[0] / self.window
        return {
            "from": float(self.summary_[j, 1]),
            "to": float(now[1]),
            "deciles": [[float(v) for v in at[::2]] for at in (self.summary_[j, :3], now)],
            "missing": [float(self.summary_[j, 3]), missing],
        }

    def _shares(self, features: Features, j: int) -> dict[str, Any]:
        """Shares of the categories that moved most."""
        was = self.held_[j] / max(float(self.held_[j].sum()), 1.0)
        now = self.counts_[j] / self.window
        order = np.argsort(-np.abs(now - was), kind="stable")[:_SHOWN]
        names = [str(value) for value in features.categories[features.names[j]].values]
        last = was.shape[0] - 1
        title = {last: "missing", last - 1: "other"}
        told = [(title.get(s) or names[s], s) for s in order.tolist() if was[s] != now[s]]
        return {
            "from": {name: float(was[s]) for name, s in told},
            "to": {name: float(now[s]) for name, s in told},
        }

    # -- state -------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """As of all operators, but for the pool, which is only written behind what is there."""
        pool, self.pool_ = self.pool_, np.zeros((0, 0))
        try:
            taken = super().snapshot()
        finally:
            self.pool_ = pool
        return taken | {"pool_": [pool]}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        super().restore(snapshot)
        (self.pool_,) = snapshot["pool_"]
        if self.pool_.shape[0]:
            for j, fill in enumerate(self.fill_.tolist()):
                self.pool_[fill:, j] = math.nan


def _quantiles(there: F8) -> F8:
    """10 %, 50 % and 90 % of sorted values, finite; 0 where there are none."""
    if there.shape[0] == 0:
        return np.zeros(3)
    places = np.round(np.array([0.1, 0.5, 0.9]) * (there.shape[0] - 1)).astype(np.int64)
    return np.asarray(np.nan_to_num(there[places]))


def _given(owner: str, given: Any, window: int) -> dict[str, F8]:
    """The reference that a user gave, as arrays."""
    if given is None:
        return {}
    values = {str(name): np.array(column, dtype=np.float64) for name, column in given.items()}
    lengths = {column.shape for column in values.values()}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1 or next(iter(lengths))[0] < window:
        raise ValueError(
            f"{owner}: given must hold a list of at least {window} numbers for each name, all of "
            f"one length, got {sorted(lengths)!r}"
        )
    return values
