"""The Gaussian mixture: drift, pruning, hard input, weights, open classes, messages, cost."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chi2

from streamlearn.block import F8, Vocabulary
from streamlearn.jit import mixture as jit
from streamlearn.operators import (
    GaussianMixtureAnomalyScorer,
    GaussianMixtureClassifier,
    GaussianMixtureImputer,
    GaussianMixtureRegressor,
)
from streamlearn.testing import block_of, labelled

ALL = [
    GaussianMixtureAnomalyScorer,
    GaussianMixtureClassifier,
    GaussianMixtureImputer,
    GaussianMixtureRegressor,
]


def sound(model: Any) -> None:
    """Finite state; precisions symmetric to the last bit and positive definite, after scaling."""
    assert all(
        np.isfinite(a).all() for name, a in model.state().arrays.items() if name != "buffer_"
    )
    for L in model.Lam_:
        assert_array_equal(L, L.T)
        root = np.sqrt(np.diag(L))
        np.linalg.cholesky(L / root / root[:, None])


# acceptance 9
def test_an_outlier_is_pruned_once_it_is_old_and_the_last_component_never() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    X[200] = [50.0, -50.0]
    settings: dict[str, Any] = {
        "beta": 1e-6, "rho": 1.0, "delta": 1.0, "std": 1.0, "sp_min": 3.0
    }  # fmt: skip
    model = GaussianMixtureAnomalyScorer(**settings)
    model.run(block_of(X[:201]))
    assert model.n_components_ == 2
    model.run(block_of(X[201:299]))
    assert model.n_components_ == 2  # not older than v_min = 100 updates
    model.run(block_of(X[299:]))
    assert model.n_components_ == 1
    assert np.abs(model.mu_).max() < 1.0
    last = GaussianMixtureAnomalyScorer(**settings | {"v_min": 1.0, "sp_min": 1e6, "k_max": 1})
    last.run(block_of(X))
    assert last.n_components_ == 1


COUNT_LINES = """
import sys
import numpy as np
from streamlearn.operators import GaussianMixtureAnomalyScorer
from streamlearn.testing import block_of

def lines(D):
    model = GaussianMixtureAnomalyScorer(beta=0.0, std=1.0, delta=1.0)
    block = block_of(np.random.default_rng(D).normal(size=(20, D)))
    model.run(block)
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if "/jit/" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    sys.settrace(trace)
    model.run(block)
    sys.settrace(None)
    return count

print(*map(lines, map(int, sys.argv[1:])))
"""


# acceptance 10
def test_learning_is_quadratic_in_the_width() -> None:
    """Four times the width is less than 25 times the steps: 16 if quadratic, 64 if cubic.

    The steps are lines of the kernels run as plain Python; what they take is in the benchmarks.
    """
    plain = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-c", COUNT_LINES, "20", "80"]
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=True)
    narrow, wide = map(int, done.stdout.split())
    assert narrow > 20 * 20**2  # 20 rows, each at least a step for every pair of coordinates
    assert wide < 25 * narrow


# acceptance 11
@pytest.mark.jit
@pytest.mark.parametrize("rho", [0.995, 1.0])
def test_forgetting_decides_under_drift(rho: float, shared_data: Path) -> None:
    table = pq.read_table(shared_data / "lobo_sine_abrupt.parquet").slice(0, 20_000)
    columns = [
        np.asarray(table[name], dtype=float) for name in table.column_names if name != "class"
    ]
    y = np.asarray(table["class"])
    model = GaussianMixtureClassifier(beta=0.1, delta=0.3, v_min=100.0, sp_min=3.0, rho=rho)
    block = labelled(np.column_stack(columns), y, task="classification")
    right = model.run(block)["prediction"] == block.y
    if rho < 1.0:
        assert right[200:].mean() >= 0.95
    else:
        assert right[200:].mean() < 0.65


# acceptance 12
@pytest.mark.parametrize("kind", ALL)
def test_save_and_load_in_mid_stream_changes_no_bit(kind: Any) -> None:
    rng = np.random.default_rng(12)
    X, y = rng.normal(size=(160, 3)), rng.integers(0, 3, 160)
    X[rng.random(X.shape) < 0.1] = np.nan
    task = "classification" if kind is GaussianMixtureClassifier else "regression"
    block = labelled(X, y, task=task)
    for cut in (5, 40, 130):  # before a component, in the warm-up, after it
        whole, resumed = kind(), kind()
        whole.run(block.rows(0, cut))
        resumed.load(whole.state())
        a, b = whole.run(block.rows(cut, 160)), resumed.run(block.rows(cut, 160))
        for name, column in a.items():
            assert_array_equal(column, b[name])
        for name, array in whole.state().arrays.items():
            assert_array_equal(array, resumed.state().arrays[name])


# acceptance 12
@pytest.mark.parametrize("kind", ALL)
def test_a_row_of_nan_changes_nothing(kind: Any) -> None:
    rng = np.random.default_rng(13)
    model = kind()
    task = "classification" if kind is GaussianMixtureClassifier else "regression"
    model.run(labelled(rng.normal(size=(150, 2)), rng.integers(0, 2, 150), task=task))
    before = model.state()
    model.run(labelled(np.full((3, 2), np.nan), np.zeros(3)))
    for name, array in before.arrays.items():
        assert_array_equal(array, model.state().arrays[name])


@pytest.mark.parametrize("kind", [GaussianMixtureClassifier, GaussianMixtureRegressor])
def test_a_row_without_a_label_teaches_nothing(kind: Any) -> None:
    model = kind()
    model.run(block_of(np.ones((5, 2))))
    assert model.n_samples_ == 0


@pytest.mark.jit
def test_the_published_recursion_goes_wrong_where_the_exact_one_does_not() -> None:
    """Ten dimensions, samples that match the initial covariance: most first updates (94 %)."""
    rng = np.random.default_rng(14)
    guarded = 0
    for _ in range(200):
        Z = np.stack([np.zeros(10), rng.normal(size=10)])
        if (Z[1] ** 2).sum() >= chi2.ppf(0.9, 10):
            continue
        model = GaussianMixtureAnomalyScorer(mode="paper", delta=1.0, std=1.0, eps=0.0)
        model.run(block_of(Z))
        guarded += model.n_guarded
    assert guarded > 150


def hostile(rng: np.random.Generator, n: int) -> F8:
    """Collinear, constant, of scales 1e-6 to 1e6, with outliers and repeats."""
    a, b = rng.normal(size=n), rng.normal(size=n)
    X = np.column_stack([a, a, a + 1e-9 * b, np.full(n, 3.7), 1e-6 * b, 1e6 * b, a > 0])
    X[rng.random(n) < 1e-3] *= 1e4
    X[1::50] = X[::50][: X[1::50].shape[0]]
    return X


@pytest.mark.jit
@pytest.mark.parametrize("rho", [0.995, 1.0])
def test_hostile_input_leaves_the_state_sound(rho: float) -> None:
    rng = np.random.default_rng(15)
    model = GaussianMixtureRegressor(rho=rho, k_max=20)
    for _ in range(10):
        X = hostile(rng, 10_000)
        out = model.run(labelled(X, X[:, 0] + 2.0 * X[:, 4]))
        assert np.isfinite(out["prediction"]).all()
        assert (out["variance"] >= 0.0).all()
        sound(model)
    assert model.n_repaired == 0


@pytest.mark.soak
@pytest.mark.jit
def test_ten_million_hostile_events() -> None:
    rng = np.random.default_rng(16)
    model = GaussianMixtureRegressor(k_max=10)
    for _ in range(100):
        X = hostile(rng, 100_000)
        model.run(labelled(X, X[:, 0] + 2.0 * X[:, 4]))
        sound(model)
    assert model.n_repaired == 0


@pytest.mark.jit
@pytest.mark.parametrize("kind", ALL)
def test_heavy_weights_huge_values_and_infinities(kind: Any) -> None:
    rng = np.random.default_rng(17)
    X = rng.normal(size=(600, 3)) * rng.choice([1.0, 1e-90, 1e90], (600, 3), p=[0.96, 0.02, 0.02])
    X[::50, 1], X[7::50, 2] = np.inf, 1e300
    task = "classification" if kind is GaussianMixtureClassifier else "regression"
    weight = rng.choice([1.0, 1e-12, 1e18], 600, p=[0.9, 0.05, 0.05])
    model = kind()
    model.run(labelled(X, rng.integers(0, 2, 600), task=task, weight=weight))
    assert model.n_rejected >= 24
    assert all(np.isfinite(a).all() for a in model.state().arrays.values())


@pytest.mark.jit
def test_a_feature_that_comes_late_is_used() -> None:
    """With an offset of a million: it enters at its running mean and spread."""
    rng = np.random.default_rng(18)
    X = rng.normal(size=(1500, 2))
    y = X[:, 0] + 3.0 * X[:, 1]
    X[:, 1] += 1e6
    model = GaussianMixtureRegressor()
    model.run(block_of(X[:500, :1], y[:500], names=["a"]))
    out = model.run(block_of(X[500:], y[500:], names=["a", "b"]))
    assert np.abs(out["prediction"] - y[500:])[500:].mean() < 0.2


@pytest.mark.jit
def test_classes_that_come_late_are_recalled() -> None:
    rng = np.random.default_rng(19)
    y = np.repeat([0, 1, 2, 3], 300)
    X = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]])[y] + rng.normal(size=(1200, 2))
    for components in ("joint", "by_class"):
        model = GaussianMixtureClassifier(components=components, rho=0.999)
        model.run(labelled(X, y, task="classification"))
        order = rng.permutation(1200)
        labels = Vocabulary(range(4))
        again = block_of(X[order], y[order], task="classification", labels=labels)
        out = model.run(again)
        assert out["proba"].shape == (1200, 4)
        assert_allclose(out["proba"].sum(axis=1), 1.0, rtol=1e-12)
        assert (out["prediction"] == y[order]).mean() > 0.9


@pytest.mark.jit
def test_balance_raises_the_recall_of_a_rare_class() -> None:
    rng = np.random.default_rng(20)
    y = (rng.random(4000) < 0.03).astype(int)
    y[0] = 0
    X = rng.normal(size=(4000, 2)) + 1.5 * y[:, None]
    found = []
    for balance in (False, True):
        model = GaussianMixtureClassifier(balance=balance, beta=0.0, rho=1.0)
        out = model.run(labelled(X, y, task="classification"))
        found.append((out["prediction"] == 1)[y == 1].mean())
    assert found[1] > found[0] + 0.3


@pytest.mark.jit
def test_one_state_answers_in_both_directions() -> None:
    rng = np.random.default_rng(21)
    x = rng.normal(size=2000)
    model = GaussianMixtureRegressor(beta=0.0, rho=1.0)
    model.run(labelled(x[:, None], 2.0 * x + 1.0 + 0.01 * rng.normal(size=2000)))
    forth, _ = model.recall(np.array([[1.5]]))
    back, _ = model.recall(np.array([[np.nan]]), np.array([[4.0]]))
    assert forth[0, 1] == pytest.approx(4.0, abs=0.02)
    assert back[0, 0] == pytest.approx(1.5, abs=0.02)


def test_recall_of_dicts() -> None:
    model = GaussianMixtureImputer(warm_start=8)
    for i in range(40):
        model.learn_one({"a": float(i % 5), "b": 10.0 * (i % 5)})
    assert model.recall_one({"b": 30.0}) == pytest.approx({"a": 3.0, "b": 30.0}, abs=0.1)


@pytest.mark.jit
def test_outliers_score_higher_than_the_rest() -> None:
    rng = np.random.default_rng(22)
    X = rng.normal(size=(3000, 4))
    strange = rng.random(3000) < 0.02
    X[strange] += 6.0 * np.sign(rng.normal(size=(strange.sum(), 4)))
    score = GaussianMixtureAnomalyScorer().run(block_of(X))["score"]
    late, strange = score[500:], strange[500:]
    assert (late[strange][:, None] > late[~strange]).mean() > 0.95


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("beta", 1.0, r"beta must be in \[0, 0.999\], got 1.0"),
        ("delta", -1.0, r"delta must be in \[0, 1e\+06\], got -1.0"),
        ("rho", 1.1, r"rho must be in \[0.5, 1\], got 1.1"),
        ("k_max", 0, r"k_max must be a whole number >= 1, got 0"),
        ("mode", "fast", r"mode must be one of exact, paper, got 'fast'"),
        ("eps", -1.0, r"eps must be in \[0, 1\], got -1.0"),
        ("warm_start", 0, r"warm_start must be a whole number >= 1, got 0"),
        ("std", -1.0, r"std must be >= 0, got -1.0"),
    ],
)
def test_arguments_out_of_range(argument: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^GaussianMixtureRegressor: {message}$"):
        GaussianMixtureRegressor(**{argument: value})


def test_messages() -> None:
    with pytest.raises(ValueError, match="components must be one of joint, by_class, got 'x'"):
        GaussianMixtureClassifier(components="x")
    with pytest.raises(ValueError, match=r"^GaussianMixtureRegressor: weight must be >= 0 and fin"):
        GaussianMixtureRegressor().run(labelled(np.ones((1, 1)), [1.0], weight=[-1.0]))
    model = GaussianMixtureRegressor()
    model.run(labelled(np.ones((3, 2)), np.ones((3, 2))))
    with pytest.raises(
        ValueError, match=r"^GaussianMixtureRegressor: y must have 2 columns, got 3"
    ):
        model.run(labelled(np.ones((3, 2)), np.ones((3, 3))))
    with pytest.raises(ValueError, match=r"recall takes 2 features and 2 targets a row, got X of"):
        model.recall(np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"^GaussianMixtureClassifier: y must be one target a row"):
        GaussianMixtureClassifier().run(labelled(np.ones((1, 1)), np.ones((1, 2))))


def test_a_full_mixture_gives_what_is_new_to_the_nearest() -> None:
    model = GaussianMixtureAnomalyScorer(std=1.0, k_max=2, rho=1.0)
    model.run(block_of(np.array([[0.0], [100.0], [50.0 - 1e-3], [1e3]])))
    assert (model.n_components_, model.n_forced) == (2, 2)
    assert model.components_[jit.SP].tolist() == [3.0, 1.0]  # the first has become the widest


def test_room_that_is_made_while_the_warm_up_is_replayed_changes_nothing() -> None:
    """The mixture begins anew from 40 rows far apart: there is no room for 40 components at once.

    A twin that had room from the start does the same.
    """
    rng = np.random.default_rng(23)
    X = 1e3 * rng.permutation(60)[:, None] + rng.normal(size=(60, 2))
    model, roomy = (GaussianMixtureRegressor(warm_start=40, delta=1e-3) for _ in range(2))
    while roomy._mu.shape[0] < 60:
        roomy._make_room()
    for one in (model, roomy):
        one.run(labelled(X, X[:, 0]))
    assert model.n_components_ > 50
    for name, array in roomy.state().arrays.items():
        assert_array_equal(array, model.state().arrays[name])


def test_reset_forgets_how_many_targets_there_were() -> None:
    rng = np.random.default_rng(24)
    X = rng.normal(size=(150, 2))
    model, fresh = GaussianMixtureRegressor(), GaussianMixtureRegressor()
    model.run(labelled(X, X @ rng.normal(size=(2, 3))))
    model.reset()
    for Y in (X[:, 0], X):
        a, b = model.run(labelled(X, Y)), fresh.run(labelled(X, Y))
        assert_array_equal(a["prediction"], b["prediction"])
        model.reset()
        fresh = GaussianMixtureRegressor()


def test_a_loaded_regressor_keeps_its_targets() -> None:
    rng = np.random.default_rng(25)
    X = rng.normal(size=(150, 2))
    model, twin = GaussianMixtureRegressor(), GaussianMixtureRegressor()
    model.run(labelled(X[:120], X[:120, ::-1]))
    twin.load(model.state())
    a, b = (one.run(labelled(X[120:], X[120:, ::-1])) for one in (model, twin))
    assert_array_equal(a["prediction"], b["prediction"])


@pytest.mark.jit
def test_the_floor_of_the_variances_keeps_up_with_circles_that_move() -> None:
    rng = np.random.default_rng(26)
    X = rng.random((16_000, 2))
    centre = np.repeat(rng.uniform(0.3, 0.7, size=(4, 2)), 4000, axis=0)
    inside = np.hypot(*(X - centre).T) < 0.35
    block = labelled(X, inside.astype(int), task="classification")
    with_floor, without = (
        (GaussianMixtureClassifier(eps=eps).run(block)["prediction"] == block.y).mean()
        for eps in (0.02, 0.0)
    )
    assert with_floor > max(0.94, without + 0.02)
