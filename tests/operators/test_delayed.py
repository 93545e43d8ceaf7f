"""Heads on many features: rank-one updates that wait, against numpy and against all laws.

The width from which they wait is lowered here, and 8 of them wait instead of 24: short streams of
few features then fold often, and grow across the bound.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from benchmarks import many_rows
from streamlearn import operators
from streamlearn.block import F8
from streamlearn.contracts import State
from streamlearn.jit import delayed
from streamlearn.operators._base import Operator
from streamlearn.testing import assert_same_state, check_operator, labelled

HEADS: dict[str, Callable[[], Operator]] = {
    "KalmanClassifier": lambda: operators.KalmanClassifier(delta0=0.01),
    "KalmanRegressor": lambda: operators.KalmanRegressor(delta0=0.01, lr_delta=0.1),
    "AnalyticClassifier": lambda: operators.AnalyticClassifier(lam=0.8, ridge=1.0),
    "AnalyticRegressor": lambda: operators.AnalyticRegressor(lam=0.9, ridge=1.0),
    "LiteRVFLClassifier": lambda: operators.LiteRVFLClassifier(hidden=2, warm_up=8, memory=20.0),
}


@pytest.fixture(autouse=True)
def _few_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delayed, "DELAYED_FROM", 4)
    monkeypatch.setattr(delayed, "FACTORS", 8)


def stream(d: int, n: int, classes: bool, seed: int = 0) -> tuple[F8, F8]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    y = X @ rng.normal(size=d) + rng.normal(size=n)
    return X, (y > 0.0).astype(float) if classes else y


@pytest.mark.jit
@pytest.mark.parametrize("name", ["KalmanRegressor", "KalmanClassifier", "AnalyticRegressor"])
def test_laws_hold_with_factors_that_wait(name: str) -> None:
    """Of Lite-RVFL, whose random features make it wide, the conformance suite says so."""
    check_operator(HEADS[name], streams=2, seed=5)


def test_kalman_after_every_sample() -> None:
    """Drift, weights and labels that do not come, against the equations in full."""
    X, y = stream(19, 60, classes=False)
    weight = np.random.default_rng(1).uniform(0.5, 2.0, 60)
    y[[7, 8, 30]] = np.nan
    model = operators.KalmanRegressor(
        sigma_w2=1.5, sigma2=0.5, delta0=0.05, lr_delta=0.0,
        centre_targets=False, scale_targets=False,
    )  # fmt: skip
    A, m, due = 1.5 * np.eye(20), np.zeros(20), 1
    for t in range(60):
        got = model.run(labelled(X[t : t + 1], y[t : t + 1], weight=weight[t : t + 1]))
        f = np.append(1.0, X[t])
        g2 = np.exp(-0.05 * due)
        C = g2 * A + (1.0 - g2) * 1.5 * np.eye(20)
        assert_allclose(got["prediction"], np.sqrt(g2) * (m @ f), rtol=1e-9, atol=1e-12)
        assert_allclose(got["variance"], f @ C @ f + 0.5, rtol=1e-9)
        due += 1
        if y[t] == y[t]:
            S, due = f @ C @ f + 0.5 / weight[t], 1
            m = np.sqrt(g2) * m + C @ f * (y[t] - np.sqrt(g2) * (m @ f)) / S
            A = C - np.outer(C @ f, C @ f) / S
        assert_allclose(model.means_[0], m, rtol=1e-9, atol=1e-12)
        assert_allclose(model.covariance_, A, rtol=1e-9, atol=1e-12)
        assert_array_equal(model.covariance_, model.covariance_.T)


def test_least_squares_after_every_sample() -> None:
    """Normal equations, solved anew: forgetting, and the ridge refreshed every 20 lessons."""
    X, y = stream(19, 70, classes=True)
    model = operators.AnalyticClassifier(lam=0.9, ridge=2.0)
    R, b = 2.0 * np.eye(20), np.zeros((20, 2))
    for t in range(70):
        model.run(labelled(X[t : t + 1], y[t : t + 1]))
        f = np.append(1.0, X[t])
        R = 0.9 * R + np.outer(f, f)
        b = 0.9 * b + np.outer(f, np.eye(2)[int(y[t])])
        if t % 20 == 19:
            R += 2.0 * (1.0 - 0.9**20) * np.eye(20)
        assert_allclose(model.inverse_, np.linalg.inv(R), rtol=1e-8, atol=1e-11)
        K = len(model.weights_)
        assert_allclose(model.weights_, np.linalg.solve(R, b).T[:K], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in HEADS if "Classifier" in name])
def test_few_features_and_many_learn_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels of below and above the bound; inflated, hastened, learnt in chunks, forgotten."""
    X, y = stream(12, 90, classes=True)
    answers = []
    for bound in (4, 10**6):
        monkeypatch.setattr(delayed, "DELAYED_FROM", bound)
        model: Any = HEADS[name]()
        columns = [model.run(labelled(X[:40], y[:40]))]
        if "Kalman" in name:
            model.inflate(2.0)
            model.learn_chunk(labelled(X[40:50], y[40:50]))
        if "Analytic" in name:
            model.forget(labelled(X[37:38], y[37:38], weight=np.array([model.lam**2])))
        if "Analytic" not in name:
            model.hasten(10.0)
        columns.append(model.run(labelled(X[50:], y[50:])))
        matrix = model.covariance_ if "Kalman" in name else model.inverse_
        answers.append((columns, matrix, model.scalars_))
        assert (model._waiting is None) == (bound > 4)
    for few, many in zip(answers[0][0], answers[1][0], strict=True):
        for column in many:
            assert_allclose(few[column], many[column], rtol=1e-6, atol=1e-8)
    assert_allclose(answers[0][1], answers[1][1], rtol=1e-6, atol=1e-9)
    assert_allclose(answers[0][2], answers[1][2], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["KalmanRegressor", "AnalyticRegressor"])
def test_a_state_of_before_there_were_tiles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = stream(6, 30, classes=False)
    old, new = HEADS[name](), HEADS[name]()
    with monkeypatch.context() as patch:
        patch.setattr(delayed, "DELAYED_FROM", 10**6)
        old.run(labelled(X[:20], y[:20]))
        state = old.state()
    assert {"covariance_", "inverse_"} & set(state.arrays)
    new.load(state)
    again = new.state()
    assert {"factors_", "tiles_", "waiting_"} < set(again.arrays)
    new.run(labelled(X[20:], y[20:]))
    with monkeypatch.context() as patch:
        patch.setattr(delayed, "DELAYED_FROM", 10**6)
        old.run(labelled(X[20:], y[20:]))
    for array in ("covariance_", "inverse_", "weights_", "means_"):
        if hasattr(old, array):
            assert_allclose(getattr(new, array), getattr(old, array), rtol=1e-8, atol=1e-11)


def test_factors_that_wait_are_state() -> None:
    """A state saved in the middle goes on to the same bits, and nothing but the count folds."""
    X, y = stream(9, 60, classes=False)
    whole, first, second = (HEADS["KalmanRegressor"]() for _ in range(3))
    whole.run(labelled(X, y))
    first.run(labelled(X[:21], y[:21]))
    assert first.factors_.shape == (21 % 8, 10)  # type: ignore[attr-defined]
    state = first.state()
    second.load(State({name: array.copy() for name, array in state.arrays.items()}, state.table))
    second.run(labelled(X[21:], y[21:]))
    assert_same_state(whole.state(), second.state())
    assert whole.factors_.shape == (60 % 8, 10)  # type: ignore[attr-defined]


def test_a_leak_that_begins_late_folds_at_a_lesson_alone() -> None:
    """Seven factors wait and a lesson is to leave two: rows that only ask do not fold."""
    X, y = stream(5, 40, classes=True)
    y[15:25] = np.nan  # 8 lessons of the warm-up are one fold, and seven wait
    whole = operators.LiteRVFLClassifier(hidden=2, warm_up=8, memory=None)
    by_row = copy.deepcopy(whole)
    for model in (whole, by_row):
        model.run(labelled(X[:15], y[:15]))
        assert len(model.factors_) == 7
        model.hasten(10.0)
    for t in range(15, 40):
        by_row.run(labelled(X[t : t + 1], y[t : t + 1]))
        assert (len(by_row.factors_) == 7) == (t < 25)
    whole.run(labelled(X[15:], y[15:]))
    assert_same_state(whole.state(), by_row.state())


@pytest.mark.parametrize("name", ["KalmanRegressor", "AnalyticRegressor"])
def test_a_diagonal_that_is_not_positive_is_mended_by_the_fold(name: str) -> None:
    X, y = stream(9, 8, classes=False)
    model: Any = HEADS[name]()
    model.run(labelled(X[:3], y[:3]))
    model.tiles_[0, 2, 2] = -1.0
    model.run(labelled(X[3:7], y[3:7]))
    before = model.tiles_.copy()
    assert not (model._n_troubles() if "Kalman" in name else model.n_resets)
    model.run(labelled(X[7:], y[7:]))
    assert model.factors_.shape == (0, 10)
    if "Kalman" in name:
        assert model._n_troubles() == 1.0
        assert model.tiles_[0, 2, 2] != before[0, 2, 2]
    else:
        assert model.n_resets == 1
        assert_array_equal(model.inverse_, np.eye(10))


@pytest.mark.jit
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_a_wound_up_inverse_does_not_take_the_weights_with_it(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a leak P loses its sign between two folds; the weights stay what 0 and 1 need."""
    monkeypatch.setattr(delayed, "FACTORS", 24)
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(3000, 6))
    X[300:] *= 1e5  # inputs at their clip, +10 or -10: 64 points of 107 dimensions
    stream = labelled(X, X[:, 0] > 0.0, task="classification")
    model = operators.LiteRVFLClassifier(memory=50.0, leaky=False)
    out = model.run(stream)
    assert model.n_resets > 0
    assert np.abs(model.weights_).max() < 100.0
    assert np.isfinite(out["proba"]).all()
    assert np.mean(out["prediction"][1000:] == stream.y[1000:]) > 0.99


@pytest.mark.jit
@pytest.mark.parametrize("name", ["KalmanRegressor", "AnalyticRegressor"])
def test_many_rows_with_forgetting(name: str) -> None:
    """As `benchmarks.many_rows`: symmetric, positive definite, at the closed form."""
    assert many_rows.check(name, 48, 3000) < 1e-11
