"""Lite-RVFL and analytic heads: hard input, messages, late labels, what a user relies on."""

import logging
import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn import KalmanClassifier, Pipeline
from streamlearn.block import F8, LEARN, SCORED
from streamlearn.errors import UserError
from streamlearn.operators import (
    AnalyticClassifier,
    AnalyticRegressor,
    LiteRVFLClassifier,
    LiteRVFLRegressor,
    RVFLFeatures,
)
from streamlearn.testing import Stream, block_of, labelled, run_in_cuts

HEADS: list[Any] = [LiteRVFLClassifier, AnalyticClassifier]
NUMBERS: list[Any] = [LiteRVFLRegressor, AnalyticRegressor]


def curved(n: int, seed: int = 0) -> tuple[F8, F8]:
    """Inside or outside of a circle; the labels turn over in the middle."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1.0, 1.0, (n, 2))
    return X, ((np.hypot(X[:, 0], X[:, 1]) < 0.75) ^ (np.arange(n) >= n // 2)).astype(float)


def hostile(n: int, seed: int = 0) -> F8:
    """Collinear, constant, of scales 1e-6 to 1e6, repeated, with gaps; changing on the way."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(n, 2))
    base[n // 3 : 2 * n // 3, 0] = 1.0
    X = np.column_stack(
        [base[:, 0], base[:, 0] * 1e6, base[:, 1] * 1e-6, np.full(n, 7.0), base[:, 1]]
    )
    X[n // 2 :, 4] *= 1e3
    X[::7] = X[0]
    X[rng.random(X.shape) < 0.02] = np.nan
    return X


def assert_definite(P: F8, largest: float) -> None:
    assert_array_equal(P, P.T)
    values = np.linalg.eigvalsh(P)
    assert values[0] > -1e-9 * values[-1]
    assert (np.diag(P) > 0.0).all()
    assert values[-1] <= largest


def soak(model: Any, n: int, largest: float) -> None:
    block = 20_000
    X = hostile(block)
    y = (np.nan_to_num(X[:, 0]) > 0).astype(float)
    scale = np.ones(5) if isinstance(model, (LiteRVFLClassifier, LiteRVFLRegressor)) else 1e-3
    for k in range(n // block):
        model.run(block_of(np.roll(X, k, axis=0) * scale, np.roll(y, k), task=""))
        assert_definite(model.inverse_, largest)
        assert np.isfinite(model.weights_).all()
    assert model.n_resets == 0


SOAKED = [
    pytest.param(LiteRVFLClassifier(hidden=10), 2.0, id="rvfl"),
    pytest.param(
        LiteRVFLRegressor(hidden=10, memory=50.0, ridge=0.1), 20.0, id="rvfl, short memory"
    ),
    pytest.param(AnalyticClassifier(), 30.0, id="analytic"),
    pytest.param(AnalyticRegressor(lam=0.9), 30.0, id="analytic, short"),
    pytest.param(AnalyticClassifier(lam=1.0, window=50), 10.01, id="window"),
]


@pytest.mark.jit
@pytest.mark.parametrize(("model", "largest"), SOAKED)
def test_inverse_stays_definite_on_hostile_input(model: Any, largest: float) -> None:
    soak(model.clone(), 100_000, largest)


@pytest.mark.soak
@pytest.mark.jit
@pytest.mark.parametrize(("model", "largest"), SOAKED)
def test_inverse_stays_definite_for_ten_million_events(model: Any, largest: float) -> None:
    soak(model.clone(), 10_000_000, largest)


@pytest.mark.jit
def test_plain_forgetting_winds_up_and_is_begun_anew(caplog: pytest.LogCaptureFixture) -> None:
    """What the leak is for; the guard keeps the weights."""
    X = np.random.default_rng(0).normal(size=(5000, 4))
    X[200:, 1:] = 0.3
    y = (X[:, 0] > 0).astype(float)
    model = LiteRVFLClassifier(hidden=0, memory=20.0, leaky=False)
    with caplog.at_level(logging.WARNING):
        out = model.run(labelled(X, y, task="classification"))
    assert model.n_resets > 0
    assert "began the inverse anew" in caplog.text
    assert np.isfinite(out["proba"]).all()


@pytest.mark.jit
def test_curved_boundary_and_drift() -> None:
    X, y = curved(4000)
    out = LiteRVFLClassifier().run(labelled(X, y, task="classification"))
    right = out["prediction"] == (y != y[0])
    assert right[500:2000].mean() > 0.93
    assert right[3000:].mean() > 0.93


@pytest.mark.jit
def test_features_before_a_linear_head_make_it_curved() -> None:
    X, y = curved(4000)
    block = labelled(X, y, task="classification")
    for head in (KalmanClassifier, AnalyticClassifier):
        plain = Pipeline(head()).run(block)["prediction"]
        lifted = Pipeline(RVFLFeatures(), head()).run(block)["prediction"]
        truth = (y != y[0]).astype(float)
        assert np.mean(lifted == truth) > 0.85 > 0.75 > np.mean(plain == truth)


def test_answers_before_an_eighth_of_the_warm_up_are_class_shares() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 2)), (np.arange(20) % 4 == 0).astype(float)
    model = LiteRVFLClassifier(probabilities="clip")
    model.run(block_of(X, y, task=""))
    out = model.run(block_of(X, mode=1))
    assert_allclose(out["proba"], np.broadcast_to([0.75, 0.25], (20, 2)), atol=0.05)
    assert (out["prediction"] == 0.0).all()


@pytest.mark.parametrize("make", NUMBERS)
@pytest.mark.jit
def test_adding_to_targets_adds_to_answers(make: Any) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    y = X[:, 0] + rng.normal(size=300)
    low, high = make().run(labelled(X, y)), make().run(labelled(X, y + 1e6))
    assert_allclose(high["prediction"][1:] - 1e6, low["prediction"][1:], atol=1e-6)
    assert_allclose(high["variance"][2:], low["variance"][2:], rtol=1e-5)


@pytest.mark.parametrize("make", HEADS)
@pytest.mark.jit
def test_clip_is_positive_parts_normalised(make: Any) -> None:
    X, y = curved(200)
    model = make(probabilities="clip")
    model.run(labelled(X, y, task="classification"))
    out = model.run(block_of(X, mode=1))["proba"]
    assert_allclose(out.sum(axis=1), 1.0)
    assert (out >= 0.0).all()


@pytest.mark.parametrize("make", HEADS)
@pytest.mark.jit
def test_balance_raises_the_recall_of_a_rare_class(make: Any) -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(1500) < 0.05).astype(float)
    X = rng.normal(size=(1500, 2)) + 1.2 * y[:, None]
    recall = []
    for balance in (False, True):
        out = make(balance=balance).run(block_of(X, y, task=""))["prediction"]
        recall.append(np.mean(out[300:][y[300:] == 1.0] == 1.0))
    assert recall[1] > recall[0] + 0.2


@pytest.mark.parametrize("make", [LiteRVFLClassifier, AnalyticClassifier, AnalyticRegressor])
def test_late_labels_of_a_day_equal_labels_at_once_in_their_order(make: Any) -> None:
    """All labels right after the last event: features and gaps are those of then."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    y = (X[:, 0] > 0).astype(float)
    n, late = 60, Pipeline(make(**{"hidden": 4, "warm_up": 8} if "RVFL" in make.__name__ else {}))
    rows = np.concatenate([X, np.full((n, 2), np.nan)])
    modes = np.repeat(np.array([SCORED, LEARN], dtype=np.uint8), n)
    labels = np.concatenate([np.full(n, np.nan), y])
    late.run(block_of(rows, labels, task="", mode=modes, ids=np.tile(np.arange(n), 2)))
    now = late.stages[0].clone()
    now.run(block_of(X, y, task=""))
    assert_array_equal(late.stages[0].weights_, now.weights_)  # type: ignore[attr-defined]


def test_any_cut_within_the_warm_up_gives_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    X, kinds = rng.normal(size=(70, 3)), ("number",) * 3
    y = (X[:, 0] > 0).astype(float)
    stream = Stream(
        X, y, np.ones(70), np.full(70, 7, dtype=np.uint8), kinds, np.array([0, 0, 30]),
        "classification",
    )  # fmt: skip
    whole = LiteRVFLClassifier(hidden=5, warm_up=40)
    expected = run_in_cuts(whole, stream.blocks())["proba"]
    for cuts in ([7], [39, 40, 41], range(70)):
        parts = LiteRVFLClassifier(hidden=5, warm_up=40)
        assert_array_equal(run_in_cuts(parts, stream.blocks(cuts))["proba"], expected)


def test_forget_is_refused_where_it_cannot_be() -> None:
    X, y = curved(50)
    model = AnalyticClassifier(lam=1.0)
    model.run(labelled(X, y, task="classification"))
    before = model.state()
    strange = labelled(np.array([[0.1, 0.1], [1e3, 0.0]]), np.array([1.0, 0.0]), "classification")
    with pytest.raises(ValueError, match=r"must be given learnt rows, got row 1 never"):
        model.forget(strange)
    for name, array in model.state().arrays.items():
        assert_array_equal(array, before.arrays[name])
    with pytest.raises(ValueError, match=r"window must be null for forget, got 9"):
        AnalyticClassifier(window=9).forget(strange)


def test_forget_one_undoes_learn_one() -> None:
    model = AnalyticClassifier(lam=1.0)
    for i in range(20):
        model.learn_one({"a": float(i % 5), "b": float(i % 3)}, "xy"[i % 2])
    before = model.weights_.copy()
    model.learn_one({"a": 9.0, "b": -4.0}, "x", w=2.5)
    model.forget_one({"a": 9.0, "b": -4.0}, "x", w=2.5)
    assert_allclose(model.weights_, before, rtol=0.0, atol=1e-10)


def test_too_wide_or_too_many_classes_is_a_clear_error() -> None:
    with pytest.raises(UserError, match=r"max_d must be at least the features .* 3 so far, got 2"):
        AnalyticClassifier(max_d=2).run(labelled(np.zeros((1, 3)), np.zeros(1)))
    with pytest.raises(UserError, match=r"max_classes must be at least .* 5 so far, got 4"):
        AnalyticClassifier(max_classes=4).run(block_of(np.zeros((1, 1)), [4.0], task=""))


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (LiteRVFLClassifier, {"memory": 1.0}, r"memory must be > 1 or null, got 1\.0"),
        (LiteRVFLRegressor, {"warm_up": 1}, r"warm_up must be a whole number >= 2, got 1"),
        (LiteRVFLClassifier, {"activation": "step"}, r"activation must be one of sigmoid, tanh"),
        (RVFLFeatures, {"hidden": -1}, r"hidden must be a whole number >= 0, got -1"),
        (AnalyticClassifier, {"lam": 0.0}, r"lam must be in \(0, 1\], got 0\.0"),
        (AnalyticRegressor, {"window": 0}, r"window must be a whole number >= 1, got 0"),
        (AnalyticClassifier, {"probabilities": "x"}, r"probabilities must be one of scaled, clip"),
    ],
)
def test_messages(make: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{make.__name__}: {message}"):
        make(**arguments)


@pytest.mark.parametrize("make", [*HEADS, *NUMBERS])
def test_a_bad_weight_changes_nothing(make: Any) -> None:
    model = make()
    model.run(block_of(np.zeros((3, 1)), [0.0, 1.0, 0.0], task=""))
    before = model.state()
    with pytest.raises(ValueError, match=r"weight must be >= 0 and finite, got -1\.0 in row 1"):
        model.run(block_of(np.ones((2, 1)), [0.0, 1.0], task="", weight=[1.0, -1.0]))
    for name, array in model.state().arrays.items():
        assert_array_equal(array, before.arrays[name])


@pytest.mark.parametrize("make", [*HEADS, *NUMBERS])
@pytest.mark.jit
def test_infinities_are_refused_and_huge_values_do_no_harm(make: Any) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    y = (X[:, 0] > 0).astype(float)
    X[50, 0], X[60, 1], X[70, 0], X[71, 0] = math.inf, -math.inf, 1e300, -1.7e308
    model = make()
    out = model.run(block_of(X, y, task=""))
    assert np.isnan(out["prediction"][[50, 60]]).all()
    assert model.n_rejected == (2 if "RVFL" in make.__name__ else 4)
    assert np.isfinite(out["prediction"][300:]).all()
    assert np.mean(np.abs(out["prediction"][300:] - y[300:])) < 0.35
