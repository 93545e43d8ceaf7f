"""Feature drift: distances against SciPy and the definition, limits against their hazard."""

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from streamlearn.block import CATEGORY, F8, LABELLED, PREDICT, Block, Features, Vocabulary
from streamlearn.jit import counter
from streamlearn.jit import feature_drift as kernels
from streamlearn.jit._compile import kernel
from streamlearn.operators import FeatureDrift, KalmanRegressor, _bootstrap
from streamlearn.pipeline import Pipeline

QUICK: dict[str, Any] = {
    "average_run_length": None, "reference": 60, "window": 20, "every": 10, "psi": 2.0,
}  # fmt: skip


def block(X: F8, names: str = "abcdefgh", mode: int = LABELLED, **changes: Any) -> Block:
    """Rows of numbers."""
    n, d = X.shape
    modes = np.full(n, mode, np.uint8)
    made = Block(X, np.zeros(n), np.ones(n), modes, Features(tuple(names[:d])))
    return made.replace(**changes)


def categories(codes: F8, values: list[str]) -> Block:
    """Rows of one category."""
    n = codes.shape[0]
    features = Features(("kind",), (CATEGORY,), {"kind": Vocabulary(values)})
    modes = np.full(n, LABELLED, np.uint8)
    return Block(codes[:, None], np.zeros(n), np.ones(n), modes, features)


def findings(operator: FeatureDrift, rows: Block) -> list[tuple[int, dict[str, Any]]]:
    """Rows and findings of a walk."""
    out = operator.run(rows)
    assert out["X"] is rows.X
    assert_array_equal(out["alarm"] != 0, out.get("why", np.full(rows.n, None)) != None)  # noqa: E711
    return [(int(t), out["why"][t][0]) for t in np.flatnonzero(out["alarm"])]


def naive_psi(now: F8, then: F8) -> float:
    """The index from its definition, ten groups of the reference, a row more in each cell."""
    cells = np.minimum(stats.rankdata(then, "max") - 1, len(then) - 1) * 10 // len(then)
    bounds = [then[cells == c].max() for c in np.unique(cells)]
    outside = (now < then.min()) | (now > then.max())
    group = np.where(outside, len(bounds), np.searchsorted(bounds, now))
    counts = np.bincount(group, minlength=len(bounds) + 1).astype(float)
    expected = np.append(np.bincount(np.searchsorted(bounds, then)), 0.0) / len(then) * len(now)
    n = len(now) + len(bounds) + 2.0  # missing is a cell too
    p, q = (counts + 1.0) / n, (expected + 1.0) / n
    return float(np.sum((p - q) * np.log(p / q)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["normal", "ties", "offset", "huge"])
def test_distances_are_those_of_the_definition(kind: str, seed: int) -> None:
    """At every test; with as many quantiles as rows the distance of KS is SciPy's exactly."""
    rng = np.random.default_rng(seed)
    makers: dict[str, Callable[[int], F8]] = {
        "normal": lambda n: rng.normal(size=n),
        "ties": lambda n: rng.integers(0, 5, n).astype(float),
        "offset": lambda n: rng.normal(1e8, 1.0, n),
        "huge": lambda n: rng.choice([-1e300, 0.0, 1e300, math.inf], n),
    }
    made = makers[kind]
    values = np.concatenate([made(60), made(60) * 1.5])
    operator = FeatureDrift(**QUICK, bins=60)
    for t in range(0, 120, 10):
        operator.run(block(values[t : t + 10, None]))
        if t >= 70:
            now, then = values[t - 10 : t + 10], values[:60]
            ks, psi = operator.distances_[0]
            assert ks == pytest.approx(stats.ks_2samp(now, then).statistic, abs=1e-15)
            if kind in ("normal", "offset"):
                assert psi == pytest.approx(naive_psi(now, then), rel=1e-12)


def test_few_quantiles_lose_less_than_one_of_them() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(400, 1))
    operator = FeatureDrift(**QUICK | {"reference": 200, "window": 100}, bins=16)
    operator.run(block(values[:300]))
    exact = stats.ks_2samp(values[200:300, 0], values[:200, 0]).statistic
    assert exact - 1.0 / 15.0 <= operator.distances_[0, 0] <= exact


def test_chi_square_of_categories_is_the_definition() -> None:
    """Categories expected less than 5 times share a cell, with those that are new and missing."""
    rng = np.random.default_rng(0)
    codes = rng.choice(5, 500, p=[0.5, 0.3, 0.15, 0.04, 0.01]).astype(float)
    operator = FeatureDrift(**QUICK | {"reference": 400, "window": 100})
    operator.run(categories(codes, list("vwxyz")))
    held, now = np.bincount(codes[:400].astype(int)), np.bincount(codes[400:].astype(int))
    often = held / 4.0 >= 5.0
    expected = np.append(held[often], held[~often].sum()) / 4.0
    seen = np.append(now[often], now[~often].sum())
    assert operator.distances_[0, 0] == pytest.approx(stats.chisquare(seen, expected).statistic)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_counts_are_those_of_the_window(seed: int) -> None:
    """Whatever comes, the slots add up to the newest rows, and only those."""
    rng = np.random.default_rng(seed)
    hard = np.array([0.0, -0.0, 1.0, 1e300, -1e300, math.inf, -math.inf, math.nan, 5e-324])
    X = np.where(rng.random((100, 2)) < 0.5, rng.choice(hard, (100, 2)), rng.normal(size=(100, 2)))
    operator = FeatureDrift(**QUICK, bins=5)
    at = 0
    while at < 100:
        stop = min(100, at + int(rng.integers(1, 30)))
        operator.run(block(X[at:stop]))
        at = stop
        if at < 80:
            continue
        for j in range(2):
            window, edges = X[at - 20 : at, j], operator.edges_[j, : operator.n_edges_[j]]
            assert operator.counts_[j].sum() == 20
            assert operator.counts_[j, -1] == np.isnan(window).sum()
            for k, edge in enumerate(edges):
                assert operator.counts_[j, 2 * k + 1] == (window == edge).sum()
                assert operator.counts_[j, : 2 * k + 2].sum() == (window <= edge).sum()


def test_scores_are_logarithms_of_chances() -> None:
    z = np.array([-3.0, 0.0, 1.0, 4.9, 5.1, 12.0, 30.0])
    assert_allclose([_surprise(v) for v in z], -stats.norm.logsf(z), rtol=2e-3)
    for k in (1.0, 9.0):
        x = np.asarray(stats.chi2.isf([0.1, 1e-3, 1e-6], k))
        assert_allclose([_cell_surprise(v, k) for v in x], -stats.chi2.logsf(x, k), rtol=0.05)


@kernel
def _surprise(z: float) -> float:
    return kernels.surprise(z)


@kernel
def _cell_surprise(x: float, k: float) -> float:
    return kernels.cell_surprise(x, k)


@pytest.mark.jit
def test_the_bootstrap_draws_blocks_of_neighbours() -> None:
    rows = np.empty(30_000, np.int64)
    kernels.block_rows(np.uint64(5), 100, 10, rows)
    jumps = np.flatnonzero(np.diff(rows) % 100 != 1)
    assert_array_equal(np.diff(jumps[:200])[np.diff(jumps[:200]) % 10 != 0], [])
    assert np.bincount(rows, minlength=100).min() > 200


@pytest.mark.jit
def test_the_bootstrap_scores_each_window_by_its_distances() -> None:
    """Of numbers, few and many different ones, and of a category; windows counted anew."""
    rng = np.random.default_rng(8)
    r, w, every, chains, tests, start = 300, 20, 5, 3, 4, 11
    X = np.column_stack([rng.normal(size=r), rng.integers(0, 3, r), rng.integers(0, 30, r)])
    X[rng.random(X.shape) < 0.05] = np.nan
    watch = FeatureDrift(**QUICK | {"reference": r}, bins=8)
    kinds = ("number", "number", CATEGORY)
    values = Vocabulary([f"v{k}" for k in range(30)])
    watch.run(block(X, features=Features(("a", "b", "c"), kinds, {"c": values})))
    last = watch.counts_.shape[1] - 1
    slots = np.empty((3, r), np.int64)
    kernels.slots_of(X, watch.edges_, watch.n_edges_, last, slots)
    references = watch.held_, watch.groups_, watch.shares_
    free = np.maximum((watch.shares_ > 0.0).sum(axis=1) - 1.0, 1.0)
    keys = counter.bits_at(np.uint64(start), np.arange(chains, dtype=np.uint64))
    scores, seen = np.empty((chains, tests, 3, 2)), np.full(3, w)
    for c, key in enumerate(keys):
        drawn = np.empty(w + (tests - 1) * every, np.int64)
        kernels.block_rows(key, r, 7, drawn)
        jitters = counter.unit(counter.bits_at(~key, np.arange(tests, dtype=np.uint64)))
        for k, jitter in enumerate(jitters):
            window = slots[:, drawn[k * every : k * every + w]]
            counts = np.array([np.bincount(row, minlength=last + 1) for row in window])
            far, step = np.empty((3, 2)), 2.0 * jitter / math.sqrt(w)
            kernels.compare_all(counts, seen, references, watch.n_edges_, w, 0.0, far, far.copy())
            scores[c, k, :2, 0] = (far[:2, 0] * math.sqrt(w) + 0.5 * step) ** 2 * 2 - math.log(2.0)
            scores[c, k, 2, 0] = _cell_surprise((math.sqrt(far[2, 0]) + step) ** 2, free[2])
            for j in range(3):
                x = math.sqrt(max(far[j, 1] * w, 0.0)) + step
                scores[c, k, j, 1] = _cell_surprise(x * x, free[j])
    for used in ((True, True), (True, False), (False, True)):
        found = np.empty((chains, tests))
        kernels.bootstrap(
            slots, references, watch.n_edges_, (w, every, 7), used, np.uint64(start), found
        )
        expected = scores[..., np.flatnonzero(used)].max(axis=(2, 3))
        assert_allclose(found, np.maximum(expected, 0.0), rtol=1e-12)


@pytest.mark.jit
def test_tails_have_the_hazard_asked_for() -> None:
    """Of independent exponentials the level is known; of moving sums, what simulation counts."""
    rng = np.random.default_rng(0)
    largest = rng.exponential(size=(2000, 40))
    for p in (0.01, 1e-4):
        for level, _ in _bootstrap.tails(largest, 1, p):
            assert math.exp(-level) == pytest.approx(p, rel=0.25)
    sums = np.lib.stride_tricks.sliding_window_view(rng.exponential(size=(4000, 63)), 4, axis=1)
    (first, _), (later, _) = _bootstrap.tails(sums.sum(axis=2), 4, 0.02)
    assert first > later
    fresh = np.lib.stride_tricks.sliding_window_view(rng.exponential(size=(4000, 63)), 4, axis=1)
    over = fresh.sum(axis=2) > later
    alive = np.cumsum(over, axis=1) - over == 0
    assert over[alive][:].mean() == pytest.approx(0.02, rel=0.2)


def test_hazards_of_parts_add_up() -> None:
    level = _bootstrap.common_level([(5.0, 1.0), (5.0, 1.0)])
    assert level == pytest.approx(5.0 + math.log(2.0))
    assert _bootstrap.common_level([(5.0, 2.0)]) == 5.0


def test_an_alarm_names_the_features_that_moved_and_how() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 4))
    X[60:, 1] += 2.0
    X[60:, 3] = np.nan
    ((at, found),) = findings(FeatureDrift(**QUICK), block(X))
    assert at == 79
    assert [f["name"] for f in found["features"]] == ["d", "b"]
    gone, up = found["features"]
    assert gone["missing"] == [0.0, 1.0]
    assert up["from"] == pytest.approx(np.median(X[:60, 1]), abs=0.1)
    assert up["to"] == pytest.approx(np.median(X[60:80, 1]), abs=0.3)
    assert found["statistic"] > found["limit"]
    assert found["watches"] == "features"


def test_a_category_that_moves_is_told_by_its_shares() -> None:
    codes = np.repeat([0.0, 1.0, 0.0, 2.0], [30, 30, 10, 30])
    operator = FeatureDrift(**QUICK)
    ((_, found),) = findings(operator, categories(codes, ["red", "blue", "green"]))
    (moved,) = found["features"]
    assert moved["test"] in ("chi-square", "PSI")
    assert moved["from"]["green"] == 0.0
    assert moved["to"]["green"] > 0.4
    assert set(moved["to"]) == {"blue", "green"}  # red is as often as before


def test_a_fixed_reference_alarms_once_a_sliding_one_again() -> None:
    """The fixed one is armed again when the rows have been as before."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(400, 1))
    X[100:200] += 5.0
    X[300:] += 5.0
    fixed, sliding = FeatureDrift(**QUICK), FeatureDrift(**QUICK, sliding=True)
    assert [at // 100 for at, _ in findings(fixed, block(X))] == [1, 3]
    assert [at // 100 for at, _ in findings(sliding, block(X))] == [1, 2, 3]
    assert sliding.n_detections == 3


@pytest.mark.parametrize("value", [0.0, 7.0, 1e300, math.nan, math.inf])
def test_a_constant_is_calm_until_it_is_another(value: float) -> None:
    X = np.full((200, 1), value)
    X[120:] = 3.0
    ((at, found),) = findings(FeatureDrift(**QUICK), block(X))
    assert at <= 139
    (moved,) = found["features"]
    assert moved["from"] == np.nan_to_num(value)
    assert moved["to"] in (3.0, moved["from"])


def test_a_single_category_is_calm_until_another_comes() -> None:
    codes = np.repeat([0.0, 1.0], [120, 80])
    ((at, _),) = findings(FeatureDrift(**QUICK), categories(codes, ["a", "b"]))
    assert at == 129
    assert not findings(FeatureDrift(**QUICK), categories(np.zeros(200), ["a"]))


def test_a_feature_that_comes_later_has_a_reference_of_its_own() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    operator = FeatureDrift(**QUICK)
    assert not findings(operator, block(X[:100, :1]))
    assert not findings(operator, block(X[100:250]))
    assert operator.pool_.shape[0] == 0
    X[250:, 1] += 4.0
    ((_, found),) = findings(operator, block(X[250:]))
    assert [f["name"] for f in found["features"]] == ["b"]


def test_a_given_reference_is_compared_with_at_once() -> None:
    rng = np.random.default_rng(1)
    then = {"b": rng.normal(size=500).tolist(), "a": rng.normal(3.0, 1.0, 500).tolist()}
    X = np.column_stack([rng.normal(3.0, 1.0, 60), rng.normal(size=60)])
    assert not findings(FeatureDrift(**QUICK, given=then), block(X))
    ((at, found),) = findings(FeatureDrift(**QUICK, given=then), block(X[:, ::-1].copy()))
    assert (at, found["n_features"]) == (19, 2)


def test_rows_that_only_ask_or_weigh_nothing_do_not_count() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 1))
    operator = FeatureDrift(**QUICK)
    operator.run(block(X, mode=PREDICT))
    operator.run(block(X, weight=np.zeros(100)))
    assert operator.n_rows == 0


@pytest.mark.jit
def test_findings_reach_the_outputs_of_a_pipeline() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2))
    X[100:, 0] += 4.0
    out = Pipeline(FeatureDrift(**QUICK), KalmanRegressor()).run(block(X))
    (at,) = np.flatnonzero(out["alarm"])
    assert out["why"][at][0]["detector"] == "FeatureDrift"
    assert out["why"][at][0]["features"][0]["name"] == "a"


def test_standing_tells_the_features_most_first() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 3))
    X[60:, 2] += 3.0
    operator = FeatureDrift(**QUICK)
    operator.run(block(X[:60]))
    assert operator.standing == {}
    operator.run(block(X[60:]))
    told = operator.standing
    assert told["features"][0]["name"] == "c"
    assert told["statistic"] > told["limit"] == 1.0
    assert told["features"][1]["statistic"] < 1.0


def test_a_snapshot_holds_the_reference_as_far_as_it_was_collected() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    one, other = FeatureDrift(**QUICK, sliding=True), FeatureDrift(**QUICK, sliding=True)
    one.run(block(X[:30]))
    taken = one.snapshot()
    for _ in range(2):
        one.run(block(X[100:250] * 9.0))
        one.restore(taken)
    one.run(block(X[30:]))
    other.run(block(X))
    for name, array in one.state().arrays.items():
        assert_array_equal(array, other.state().arrays[name])


def calm_alarms(streams: int, rows: int, make: Any, seed: int) -> tuple[int, int]:
    """Alarms, each the first of its stream, and rows at risk, of streams without drift."""
    rng = np.random.default_rng(seed)
    alarms = at_risk = 0
    for s in range(streams):
        operator = FeatureDrift(
            reference=2_000, window=20, every=10, average_run_length=1_000, bins=16, seed=s
        )
        operator.run(block(make(rng, 2_000)))
        alarm = operator.run(block(make(rng, rows)))["alarm"]
        first = int(np.argmax(alarm)) if alarm.any() else rows
        alarms += bool(alarm.any())
        at_risk += first + 1 - 10
    return alarms, at_risk


@pytest.mark.jit
@pytest.mark.parametrize("kind", ["numbers", "bits"])
def test_false_alarms_come_at_the_rate_asked_for(kind: str) -> None:
    """A quick look, 1 in 1,000 rows asked for; `benchmarks.feature_alarms` counts more."""

    def make(rng: np.random.Generator, n: int) -> F8:
        if kind == "bits":
            return (rng.random((n, 1)) < 0.3).astype(float)
        return np.column_stack([rng.normal(size=n), rng.exponential(size=n)])

    alarms, at_risk = calm_alarms(30, 1_500, make, 1)
    expected = at_risk / 1_000
    low, high = stats.poisson.interval(0.9999, expected)
    assert 0.75 * low <= alarms <= 1.25 * high


@pytest.mark.jit
def test_dependent_rows_do_not_alarm_more_often_with_blocks_that_hold_them() -> None:
    """Rows that come in runs of 32 equal values, which independence would take for drift."""

    rng = np.random.default_rng(0)
    at_once = {1: 0, 100: 0}
    for s in range(6):
        X = np.repeat(rng.normal(size=(330, 1)), 32, axis=0)
        for length in at_once:
            operator = FeatureDrift(
                reference=10_000, window=100, every=50, average_run_length=10_000, bins=16,
                block=length, seed=s,
            )  # fmt: skip
            operator.run(block(X))
            at_once[length] += operator.n_detections > 0
    assert at_once[1] == 6
    assert at_once[100] <= 2


def test_bad_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="window must be a multiple of every=50, got 120"):
        FeatureDrift(window=120)
    with pytest.raises(ValueError, match="average_run_length must be a whole number >= 500"):
        FeatureDrift(average_run_length=100)
    with pytest.raises(ValueError, match="given must hold a list of at least 20 numbers"):
        FeatureDrift(**QUICK, given={"a": [1.0], "b": [1.0, 2.0]})
    with pytest.warns(UserWarning, match="a reference of 100 rows has fewer than 100 windows"):
        FeatureDrift(reference=100, window=20, every=10)
    with pytest.raises(ValueError, match="given must hold numbers, got the category 'kind'"):
        FeatureDrift(**QUICK, given={"kind": [1.0] * 20}).run(categories(np.zeros(3), ["a"]))


# -- kernels ---------------------------------------------------------------------------------------

_WATCHED = """
import gc, sys, warnings
import numpy as np
from numba.core.dispatcher import Dispatcher
from streamlearn import operators
from streamlearn.block import LABELLED, Block, Features

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X = rng.normal(size=(1500, 3))
X[1000:] += 5.0
short = {"reference": 400, "window": 100, "every": 50}

def compiled():
    found = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
    return {(one.py_func.__module__, one.py_func.__name__): len(one.overloads) for one in found}

def block(rows):
    n = rows.shape[0]
    modes = np.full(n, LABELLED, np.uint8)
    return Block(rows, np.zeros(n), np.ones(n), modes, Features(("p", "q", "r")))

for name in sys.argv[1:]:
    kind = getattr(operators, name)
    scored = {"train": 200} if name in ("NoveltyDrift", "DensityDrift") else {}
    watcher = kind(**short, **scored)
    if name == "FeatureDrift":
        predictions = operators.PredictionDrift(watcher.clone())
        predictions.load_kernels()
        before = compiled()
        assert predictions.first_alarm(X[:, 0].copy()) > 1000
        assert compiled() == before, "PredictionDrift"
    twin = watcher.clone()
    twin.run(block(X[:3]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is short on purpose is nobody's fault
        twin.load_kernels()
    before = compiled()
    assert watcher.run(block(X))["alarm"].any(), name
    late = {k for k, n in compiled().items() if n != before.get(k, 0)}
    assert not late, (name, late)
"""


def test_no_kernel_of_a_watcher_of_rows_compiles_within_a_run() -> None:
    """In a process of its own, as other tests have them all."""
    names = ("FeatureDrift", "MMDDrift", "NoveltyDrift", "DensityDrift")
    told = subprocess.run(
        [sys.executable, "-c", _WATCHED, *names], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
