"""Lite-RVFL against routes that share nothing with the kernels: closed forms, the author's form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8, Vocabulary
from streamlearn.jit.counter import key_of, normals
from streamlearn.operators import LiteRVFLClassifier, LiteRVFLRegressor, RVFLFeatures
from streamlearn.testing import CLASSIFICATION, block_of, labelled

ACTIVATIONS: dict[str, Callable[[F8], F8]] = {
    "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-np.clip(z, -40.0, 40.0))),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0.0),
    "identity": lambda z: z,
}


def memory_of(theta: float) -> float | None:
    """The memory whose rows weigh theta ** (2 t)."""
    return None if theta == 1.0 else 1.0 / (1.0 - theta**-2)


def hidden_layer(Z: F8, model: Any) -> F8:
    """1, nodes and inputs of standardised rows; names are x0, x1, …"""
    d = Z.shape[1]
    draws = [normals(key_of(model.seed, "bias"), model.hidden)]
    draws += [normals(key_of(model.seed, f"feature x{j}"), model.hidden) for j in range(d)]
    W = np.array(draws) * model.node_scale / np.sqrt(d)
    h = ACTIVATIONS[model.activation](Z @ W[1:] + W[0])
    return np.column_stack([np.ones(len(Z)), h, Z])


def lifted(X: F8, model: Any) -> F8:
    """Features of all rows by the moments of the first `warm_up`; a gap is at the mean."""
    first = X[: model.warm_up]
    mean, sd = np.nanmean(first, axis=0), np.nanstd(first, axis=0)
    Z = np.clip((X - mean) / (sd + model.eps_std), -model.clip, model.clip)
    return hidden_layer(np.where(np.isnan(Z), 0.0, Z), model)


def weighted_ridge(H: F8, Y: F8, w: F8, ridge: float) -> tuple[F8, F8]:
    """Weights (K, D) and inverse of the weighted normal equations."""
    P = np.asarray(np.linalg.inv(H.T @ (H * w[:, None]) + ridge * np.eye(H.shape[1])), np.float64)
    return (P @ H.T @ (Y * w[:, None])).T, P


def classes(n: int, d: int, K: int, seed: int = 0) -> tuple[F8, F8]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * rng.uniform(0.5, 3.0, d) + rng.normal(size=d)
    y = np.argmax(X @ rng.normal(size=(d, K)) + np.sin(2.0 * X[:, :1]), axis=1).astype(float)
    return X, y


def run(model: Any, X: F8, y: F8, **more: Any) -> Any:
    """Codes as they are."""
    labels = Vocabulary(range(1 + int(y.max())))
    return model.run(block_of(X, y, task="", labels=labels, **more))


@pytest.mark.parametrize("theta", [1.0, 1.002, 1.01])
@pytest.mark.parametrize("ridge", [0.1, 1.0])
def test_read_out_is_the_weighted_ridge_solution(  # acceptance 1
    theta: float, ridge: float
) -> None:
    X, y = classes(400, 3, 3)
    model = LiteRVFLClassifier(hidden=30, memory=memory_of(theta), ridge=ridge, leaky=False)
    run(model, X, y)
    H, n = lifted(X, model), 400
    w: F8 = np.power(theta, 2.0 * np.arange(n))
    B, P = weighted_ridge(H, np.eye(3)[y.astype(int)], w, ridge)
    assert_allclose(model.weights_, B, rtol=1e-8, atol=1e-8)
    P *= theta ** (2.0 * (n - 1))
    assert_allclose(model.inverse_, P, rtol=1e-8, atol=1e-8 * np.abs(P).max())


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_every_row_equals_a_naive_twin(activation: str) -> None:
    """Gaps, weights, asked and unlabelled rows; forgetting and the leak row by row, by matrices."""
    rng = np.random.default_rng(1)
    X, y = classes(120, 3, 3, seed=1)
    X[40:][rng.random((80, 3)) < 0.15] = np.nan  # the warm-up has all its values
    X[50] = np.nan
    w = rng.choice([0.0, 0.5, 1.0, 3.0], 120)
    mode = rng.choice(np.array([7, 7, 7, 6, 5, 1], dtype=np.uint8), 120)
    model = LiteRVFLClassifier(
        hidden=5, memory=20.0, warm_up=16, activation=activation, ridge=0.3, probabilities="clip"
    )
    out = run(model, X, y, weight=w, mode=mode)
    teaches = (mode & 2 > 0) & (w > 0) & ~np.isnan(X).all(axis=1)
    H = lifted(np.concatenate([X[teaches], X]), model)[teaches.sum() :]
    lam, D, n = 1.0 - 1.0 / 20.0, H.shape[1], 0
    R, Q = 0.3 / lam * np.eye(D), np.zeros((D, 3))
    for t in range(120):
        if n >= 16 and mode[t] & 1:
            score = np.maximum(np.linalg.solve(R, Q).T @ H[t], 0.0)
            assert_allclose(out["proba"][t], score / score.sum(), rtol=1e-7, atol=1e-9)
        if teaches[t]:
            R = lam * R + w[t] * np.outer(H[t], H[t])
            Q = lam * Q + w[t] * np.outer(H[t], np.eye(3)[int(y[t])])
            R[n % D, n % D] += (1.0 - lam) * D * 0.3  # names are in order
            n += 1
    assert n == model.n_samples_ > 60
    assert model.n_imputed == int(np.isnan(X)[mode & 4 > 0].sum())
    assert_allclose(model.inverse_, np.linalg.inv(R), rtol=1e-7, atol=1e-9)


@pytest.mark.jit
def test_author_form_gives_the_same_scores() -> None:  # acceptance 2
    X, y = classes(10_000, 2, 2)
    model = LiteRVFLClassifier(hidden=8, memory=memory_of(1.002), ridge=0.1, leaky=False)
    out = run(model, X, y)
    H, Y = lifted(X, model), np.eye(2)[y.astype(int)]
    P, Q, answers = np.eye(11) / 0.1, np.zeros((11, 2)), np.zeros(10_000)
    for t, h in enumerate(H):
        answers[t] = np.argmax((P @ Q).T @ h)
        s = 1.002 ** (2.0 * t)
        g = P @ h
        P = P - s * np.outer(g, g) / (1.0 + s * h @ g)
        Q = Q + s * np.outer(h, Y[t])
    assert_array_equal(out["prediction"][200:], answers[200:])
    assert_allclose(model.weights_.T, P @ Q, rtol=1e-6, atol=1e-6)


@pytest.mark.jit
def test_three_hundred_thousand_rows_stay_finite() -> None:  # acceptance 2
    X, y = classes(10_000, 2, 2)
    model = LiteRVFLClassifier(hidden=8, memory=memory_of(1.01), ridge=0.1)
    for _ in range(30):
        out = run(model, X, y)
    assert model.n_samples_ == 300_000
    assert np.isfinite(model.inverse_).all()
    assert np.isfinite(model.weights_).all()
    assert np.mean(out["prediction"] == y) > 0.9
    assert model.n_resets == 0


@pytest.mark.jit
@pytest.mark.parametrize("leaky", [True, False])
def test_leaky_inverse_does_not_wind_up(leaky: bool) -> None:  # acceptance 3
    """5 dimensions in D = 20; without the leak the same rows wind up, and the guard catches it."""
    rng = np.random.default_rng(0)
    n, d, theta, ridge = 20_000, 19, 1.003, 0.1
    X = rng.normal(size=(n, 5)) @ rng.normal(size=(5, d))
    y = (X[:, 0] > 0).astype(float)
    model = LiteRVFLClassifier(hidden=0, memory=memory_of(theta), ridge=ridge, leaky=leaky)
    H, lam, D = lifted(X, model), theta**-2, d + 1
    order = np.concatenate([[0], 1 + np.argsort([f"x{j}" for j in range(d)])])
    R, worst = ridge / lam * np.eye(D), 0.0
    for start in range(0, n, 1000):
        run(model, X[start : start + 1000], y[start : start + 1000])
        for t in range(start, start + 1000):
            R = lam * R + np.outer(H[t], H[t])
            R[order[t % D], order[t % D]] += (1.0 - lam) * D * ridge
        if leaky:
            assert_allclose(model.inverse_, np.linalg.inv(R), rtol=1e-8, atol=1e-8)
        values = np.linalg.eigvalsh(model.inverse_)
        worst = max(worst, values[-1])
        assert np.isfinite(values).all()
    assert (worst < 2.0 / ridge) == leaky
    assert (model.n_resets == 0) == leaky


def test_without_forgetting_it_is_ridge_in_any_order() -> None:  # acceptance 4
    X, y = classes(300, 3, 3)
    model = LiteRVFLClassifier(hidden=12, memory=None, warm_up=50)
    other = LiteRVFLClassifier(hidden=12, memory=None, warm_up=50)
    run(model, X, y)
    order = np.concatenate([np.arange(50), 50 + np.random.default_rng(0).permutation(250)])
    run(other, X[order], y[order])
    B, P = weighted_ridge(lifted(X, model), np.eye(3)[y.astype(int)], np.ones(300), 1.0)
    for one in (model, other):
        assert_allclose(one.weights_, B, rtol=1e-8, atol=1e-8)
        assert_allclose(one.inverse_, P, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("memory", [None, 30.0])
def test_a_weight_is_a_number_of_repeats_without_forgetting_alone(  # acceptance 5
    memory: float | None,
) -> None:
    X, y = classes(80, 2, 2)
    w = np.where(np.arange(80) == 60, 3.0, 1.0)
    model = LiteRVFLClassifier(hidden=4, memory=memory, warm_up=40, leaky=False)
    run(model, X, y, weight=w)
    repeats = np.repeat(np.arange(80), w.astype(int))
    twice = LiteRVFLClassifier(hidden=4, memory=memory, warm_up=40, leaky=False)
    run(twice, X[repeats], y[repeats])
    same = np.allclose(model.weights_, twice.weights_, rtol=1e-8, atol=1e-8)
    assert same == (memory is None)
    lam = 1.0 if memory is None else 1.0 - 1.0 / memory
    fade = lam ** np.arange(79.0, -1.0, -1.0)
    B, _ = weighted_ridge(lifted(X, model), np.eye(2)[y.astype(int)], w * fade, lam**79)
    assert_allclose(model.weights_, B, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("leaky", [True, False])
def test_a_class_that_comes_late_equals_one_declared_first(leaky: bool) -> None:  # acceptance 6
    X, y = classes(400, 3, 3)
    y[:250] = np.minimum(y[:250], 1.0)
    late = LiteRVFLClassifier(hidden=10, leaky=leaky)
    for start in range(0, 400, 50):  # its table grows with the stream
        late.run(block_of(X[start : start + 50], y[start : start + 50], task=""))
    early = LiteRVFLClassifier(hidden=10, leaky=leaky)
    run(early, X, y)
    assert_allclose(late.weights_, early.weights_, rtol=0.0, atol=1e-12)
    D = early.inverse_.shape[0]
    lam, H, Y = 1.0 - 1.0 / 250.0, lifted(X, early), np.eye(3)[y.astype(int)]
    R, Q = np.eye(D) / lam, np.zeros((D, 3))
    for t in range(400):
        R, Q = lam * R + np.outer(H[t], H[t]), lam * Q + np.outer(H[t], Y[t])
        R[t % D, t % D] += (1.0 - lam) * D if leaky else 0.0
    assert_allclose(early.weights_, np.linalg.solve(R, Q).T, rtol=0.0, atol=1e-9)


def test_nodes_are_drawn_by_seed_and_name() -> None:  # acceptance 7
    X, y = classes(60, 3, 2)
    one, same, other = (LiteRVFLClassifier(hidden=6, warm_up=20, seed=seed) for seed in (4, 4, 5))
    outs = [run(model, X, y)["proba"] for model in (one, same, other)]
    assert_array_equal(outs[0], outs[1])
    assert not np.array_equal(outs[0], outs[2])
    resumed = LiteRVFLClassifier(hidden=6, warm_up=20, seed=4)
    half = LiteRVFLClassifier(hidden=6, warm_up=20, seed=4)
    run(half, X[:13], y[:13])  # within the warm-up
    resumed.load(half.state())
    assert_array_equal(run(resumed, X[13:], y[13:])["proba"], outs[0][13:])


def test_a_row_without_features_teaches_and_forgets_nothing() -> None:  # acceptance 7
    X, y = classes(60, 3, 2)
    model = LiteRVFLClassifier(hidden=6, warm_up=20)
    run(model, X, y)
    before = model.state()
    run(model, np.full((5, 3), np.nan), np.ones(5))
    for name in ("weights_", "inverse_", "outputs_", "inputs_"):
        assert_array_equal(model.state().arrays[name], before.arrays[name])
    assert model.n_imputed == 15


@pytest.mark.jit
@pytest.mark.parametrize("seed", range(4))
def test_half_life(seed: int) -> None:  # acceptance 8
    rng = np.random.default_rng(seed)
    X, w = rng.normal(size=(2200, 10)), rng.normal(size=10)
    y = ((X @ w > 0) ^ (np.arange(2200) >= 2000)).astype(float)
    model = LiteRVFLClassifier(hidden=0, memory=memory_of(1.003), ridge=0.1, leaky=False)
    run(model, X[:2000], y[:2000])
    probes = rng.normal(size=(2000, 10))
    truth = (probes @ w <= 0).astype(float)
    for k in range(200):
        run(model, X[2000 + k : 2001 + k], y[2000 + k : 2001 + k])
        answers = model.run(block_of(probes, mode=1))["prediction"]
        if np.mean(answers == truth) > 0.5:
            break
    assert 95 <= k + 1 <= 150


@pytest.mark.jit
def test_sine_drift_is_followed_and_not_without_forgetting(  # acceptance 9
    shared_data: Path,
) -> None:
    table = pq.read_table(shared_data / "lobo_sine_abrupt.parquet")
    X = np.column_stack([table[name].to_numpy() for name in table.column_names if name != "class"])
    y = np.unique(table["class"].to_numpy(), return_inverse=True)[1].astype(float)
    settings: dict[str, Any] = {
        "activation": "tanh",
        "ridge": 0.1,
        "node_scale": 2.0 * np.sqrt(X.shape[1]),
    }
    forgets = LiteRVFLClassifier(memory=memory_of(1.003), **settings)
    never = LiteRVFLClassifier(memory=None, **settings)
    assert np.mean(run(forgets, X, y)["prediction"] == y) >= 0.95
    assert np.mean(run(never, X, y)["prediction"] == y) <= 0.55


def test_the_scale_of_a_feature_does_not_matter() -> None:  # acceptance 11
    X, y = classes(400, 3, 2)
    scaled = X * np.array([1.0, 1e6, 1.0])
    model, other = (LiteRVFLClassifier(hidden=20, eps_std=0.0) for _ in range(2))
    one, two = run(model, X, y)["proba"], run(other, scaled, y)["proba"]
    assert_allclose(two, one, rtol=1e-6, atol=1e-6)


# -- regression and the transformer ----------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e7])
def test_regression_is_ridge_about_the_first_target(offset: float) -> None:
    """Without forgetting the anchor of the constant never moves."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    Y = np.column_stack([np.sin(X[:, 0]), 5.0 * X[:, 1]]) + offset
    model = LiteRVFLRegressor(hidden=10, memory=None, ridge=0.5, warm_up=50)
    out = model.run(block_of(X, Y, task=""))
    B, P = weighted_ridge(lifted(X, model), Y - Y[0], np.ones(300), 0.5)
    H = lifted(X, model)
    asked = model.run(block_of(X, np.full(Y.shape, np.nan), task="", mode=1))
    assert_allclose(asked["prediction"], H @ B.T + Y[0], rtol=1e-9, atol=1e-6)
    leverage = np.einsum("td,de,te->t", H, P, H)
    spread = asked["variance"] / (1.0 + leverage)[:, None]
    assert_allclose(spread, np.broadcast_to(spread[0], spread.shape), rtol=1e-6)
    assert out["variance"].shape == (300, 2)


@pytest.mark.jit
def test_variance_covers_the_residuals() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5000, 3))
    y = 100.0 + 20.0 * X[:, 0] + rng.normal(size=5000)
    out = LiteRVFLRegressor(hidden=20).run(labelled(X, y))
    inside = np.abs(out["prediction"] - y) < 1.645 * np.sqrt(out["variance"])
    assert 0.87 <= inside[1000:].mean() <= 0.93


def test_features_are_the_nodes_of_the_head() -> None:
    """Once the moments are frozen; before an eighth of the warm-up inputs are 0."""
    X, _ = classes(100, 3, 2)
    model = RVFLFeatures(hidden=7, warm_up=40)
    out = model.run(labelled(X, X[:, 0]))["X"]
    assert_allclose(out[40:], lifted(X, model)[40:, 1:], rtol=1e-12, atol=1e-12)
    assert not out[:5, 7:].any()
    names = model.output_features(model._features).names
    assert names == (*(f"node{k}" for k in range(7)), "x0", "x1", "x2")


@pytest.mark.parametrize("task", [CLASSIFICATION, ""])
def test_late_features_count_once_they_have_values(task: str) -> None:
    """A feature that begins after the warm-up is scaled by its own first values."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    X[:, 1] = np.where(np.arange(300) < 100, np.nan, 1e4 + 50.0 * X[:, 1])
    make = LiteRVFLClassifier if task else LiteRVFLRegressor
    model = make(hidden=3, warm_up=40)
    model.run(block_of(X, (X[:, 0] > 0).astype(float), task=""))
    values = X[100:140, 1]
    assert_allclose(model.inputs_[3, 1], values.mean(), rtol=1e-12)
    assert_allclose(1.0 / model.inputs_[4, 1], values.std() + 0.01, rtol=1e-9)
