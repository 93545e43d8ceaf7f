"""Analytic heads against the normal equations, tracked by explicit matrices."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8, Vocabulary
from streamlearn.operators import AnalyticClassifier, AnalyticRegressor
from streamlearn.testing import block_of, labelled


def with_one(X: F8) -> F8:
    return np.column_stack([np.ones(len(X)), X])


def ridge_solution(H: F8, Y: F8, w: F8, ridge: float) -> tuple[F8, F8]:
    """Weights (K, D) and inverse of the weighted normal equations."""
    P = np.asarray(np.linalg.inv(H.T @ (H * w[:, None]) + ridge * np.eye(H.shape[1])), np.float64)
    return (P @ H.T @ (Y * w[:, None])).T, P


def late_classes(n: int, d: int, seed: int = 0) -> tuple[F8, F8]:
    """Five classes, three of which come after row 700."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    y = rng.integers(0, 5, n).astype(float)
    y[:700] = np.minimum(y[:700], 1.0)
    X[:, 0] += y
    return X, y


def run(model: Any, X: F8, y: F8, **more: Any) -> Any:
    """Codes as they are; the class table grows with the blocks."""
    return model.run(block_of(X, y, task="", labels=Vocabulary(range(1 + int(y.max()))), **more))


@pytest.mark.jit
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_late_classes_in_any_order_give_the_ridge_solution(seed: int | None) -> None:
    """Acceptance 1 of M1."""
    X, y = late_classes(2000, 12)
    order = np.arange(2000) if seed is None else np.random.default_rng(seed).permutation(2000)
    model = AnalyticClassifier(lam=1.0)
    for start in range(0, 2000, 100):
        at = order[start : start + 100]
        run(model, X[at], y[at])
    W, P = ridge_solution(with_one(X), np.eye(5)[y.astype(int)], np.ones(2000), 0.1)
    assert_allclose(model.weights_, W, rtol=0.0, atol=1e-9)
    assert_allclose(model.inverse_, P, rtol=0.0, atol=1e-9)


@pytest.mark.jit
def test_forgotten_samples_leave_no_trace() -> None:
    """Acceptance 2 of M1: 200 random samples; in one block and in many it is the same."""
    X, y = late_classes(2000, 12)
    gone = np.random.default_rng(0).permutation(2000)[:200]
    models = [AnalyticClassifier(lam=1.0) for _ in range(2)]
    for model in models:
        run(model, X, y)
    models[0].forget(block_of(X[gone], y[gone], task=""))
    for t in gone:
        models[1].forget(block_of(X[t : t + 1], y[t : t + 1], task=""))
    rest = np.setdiff1d(np.arange(2000), gone)
    W, P = ridge_solution(with_one(X[rest]), np.eye(5)[y[rest].astype(int)], np.ones(1800), 0.1)
    assert_allclose(models[0].weights_, W, rtol=0.0, atol=1e-8)
    assert_allclose(models[0].inverse_, P, rtol=0.0, atol=1e-8)
    assert_array_equal(models[0].weights_, models[1].weights_)
    assert_array_equal(models[0].outputs_[0], np.bincount(y[rest].astype(int)))


@pytest.mark.jit
def test_forgetting_with_weights_gives_the_weighted_normal_equations() -> None:
    """Acceptance 3 of M1; the ridge fades between two refreshes, every 50 labels."""
    X, y = late_classes(1030, 6)
    w = np.random.default_rng(1).uniform(0.1, 3.0, 1030)
    model = AnalyticClassifier(lam=0.98)
    out = run(model, X, y, weight=w)
    fade = 0.98 ** np.arange(1029.0, -1.0, -1.0)
    ridge = 0.1 * 0.98 ** (1030 % 50)
    W, P = ridge_solution(with_one(X), np.eye(5)[y.astype(int)], w * fade, ridge)
    assert_allclose(model.weights_, W, rtol=0.0, atol=1e-8)
    assert_allclose(model.inverse_, P, rtol=0.0, atol=1e-8)
    assert np.isfinite(out["proba"]).all()


@pytest.mark.jit
def test_a_memory_shorter_than_the_state_is_wide_gives_the_ridge_back_every_d_labels() -> None:
    """Memory of 5 labels, 7 columns: the ridge is whole again after 7, 14, ... labels."""
    X, y = late_classes(200, 6)
    model = AnalyticClassifier(lam=0.8)
    for n in range(1, 201):
        run(model, X[n - 1 : n], y[n - 1 : n])
        fade = 0.8 ** np.arange(n - 1.0, -1.0, -1.0)
        K = int(y[:n].max()) + 1
        Y, ridge = np.eye(K)[y[:n].astype(int)], 0.1 * 0.8 ** (n % 7)
        W, P = ridge_solution(with_one(X[:n]), Y, fade, ridge)
        assert_allclose(model.inverse_, P, rtol=1e-8, atol=1e-8)
        assert_allclose(model.weights_, W, rtol=0.0, atol=1e-7)


@pytest.mark.jit
def test_what_is_never_excited_stays_at_its_ridge() -> None:
    """Acceptance 4 of M1."""
    X = np.random.default_rng(0).normal(size=(5000, 12))
    X[:, ::2] = 0.0
    y = (X[:, 1] > 0).astype(float)
    model = AnalyticClassifier(lam=0.98)
    run(model, X, y)
    assert np.abs(model.inverse_).max() <= 1.01 / 0.1
    assert_allclose(model.inverse_[1, 1], 10.0, rtol=1e-9)
    assert_array_equal(model.inverse_, model.inverse_.T)
    fade = 0.98 ** np.arange(4999.0, -1.0, -1.0)
    W, P = ridge_solution(with_one(X), np.eye(2)[y.astype(int)], fade, 0.1)
    assert_allclose(model.inverse_, P, rtol=0.0, atol=1e-11)
    assert_allclose(model.weights_, W, rtol=0.0, atol=1e-9)


@pytest.mark.jit
@pytest.mark.parametrize("lam", [1.0, 0.97])
def test_a_window_knows_its_rows_alone(lam: float) -> None:
    """After every row; classes come and go, and the ring is learnt anew on the way."""
    X, y = late_classes(800, 4)
    model, size = AnalyticClassifier(lam=lam, window=60), 60
    H, Y = with_one(X), np.eye(5)[y.astype(int)]
    run(model, X[:640], y[:640])
    for t in range(640, 800):
        run(model, X[t : t + 1], y[t : t + 1])
        rows = slice(t + 1 - size, t + 1)
        fade = lam ** np.arange(size - 1.0, -1.0, -1.0)
        since = int(model.scalars_[7])
        W, P = ridge_solution(H[rows], Y[rows], fade, 0.1 * lam**since)
        assert_allclose(model.weights_, W[: len(model.weights_)], rtol=0.0, atol=1e-8)
        assert_allclose(model.inverse_, P, rtol=0.0, atol=1e-8)


@pytest.mark.jit
def test_a_window_survives_rows_that_alone_hold_a_direction() -> None:
    """Removing them leaves no digit; the rows are learnt anew then, and nothing is lost."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 4)) * rng.choice([1e-6, 1.0, 1e5], (3000, 4))
    y = 3.0 + X[:, 1]
    model = AnalyticRegressor(lam=1.0, window=7)
    model.run(labelled(X, y))
    H, m = with_one(X[-7:]), model.outputs_[1, 0]
    W, _ = ridge_solution(H, (y[-7:] - m)[:, None], np.ones(7), 0.1)
    values = np.linalg.eigvalsh(model.inverse_)
    assert values[0] >= -1e-12
    assert values[-1] <= 10.0 * (1.0 + 1e-3)
    assert_allclose(H @ model.weights_[0], H @ W[0], rtol=1e-3, atol=1e-2)


def test_regression_is_ridge_about_the_first_target() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    Y = X @ rng.normal(size=(3, 2)) + np.array([1e6, -3.0])
    w = rng.uniform(0.5, 2.0, 200)
    model = AnalyticRegressor(lam=1.0, ridge=0.7)
    model.run(block_of(X, Y, task="", weight=w))
    W, P = ridge_solution(with_one(X), Y - Y[0], w, 0.7)
    asked = model.run(block_of(X, np.full(Y.shape, np.nan), task="", mode=1))
    assert_allclose(asked["prediction"], with_one(X) @ W.T + Y[0], rtol=1e-10, atol=1e-6)
    assert_allclose(model.inverse_, P, rtol=1e-9, atol=1e-12)
    model.forget(block_of(X[:50], Y[:50], task="", weight=w[:50]))
    W, P = ridge_solution(with_one(X[50:]), Y[50:] - Y[0], w[50:], 0.7)
    asked = model.run(block_of(X, np.full(Y.shape, np.nan), task="", mode=1))
    assert_allclose(asked["prediction"], with_one(X) @ W.T + Y[0], rtol=1e-9, atol=1e-6)


def test_balance_is_weight_by_class_share() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, 3)), (np.arange(90) % 10 == 0).astype(float)
    model, plain = AnalyticClassifier(lam=1.0, balance=True), AnalyticClassifier(lam=1.0)
    run(model, X, y)
    counts, w = np.zeros(2), np.zeros(90)
    for t, c in enumerate(y.astype(int)):
        counts[c] += 1.0
        w[t] = counts.sum() / ((counts > 0).sum() * counts[c])
    run(plain, X, y, weight=w)
    assert_allclose(model.weights_, plain.weights_, rtol=1e-12, atol=1e-12)


def test_scores_are_calibrated_by_one_scale() -> None:
    """log alpha climbs the log probability of each label, by the derivative of its formula."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    y = (X[:, 0] + 0.5 * rng.normal(size=60) > 0).astype(float)
    model = AnalyticClassifier(lam=1.0, alpha0=2.0, lr_alpha=0.1)
    log_alpha, information, H = np.log(2.0), 1.0, with_one(X)
    out = run(model, X, y)
    for t in range(60):
        known = np.unique(y[:t]).astype(int)
        if t and y[t] in known:
            W, _ = ridge_solution(H[:t], np.eye(2)[y[:t].astype(int)], np.ones(t), 0.1)
            score = W[known] @ H[t]
            c = int(np.flatnonzero(known == y[t])[0])

            def log_p(a: float, score: F8 = score, c: int = c) -> float:
                z = np.exp(a) * score
                return float(z[c] - np.log(np.exp(z).sum()))

            assert out["proba"][t, int(y[t])] == pytest.approx(np.exp(log_p(log_alpha)), rel=1e-6)
            slope = (log_p(log_alpha + 1e-6) - log_p(log_alpha - 1e-6)) / 2e-6
            # the slope over its running Fisher information, E[slope^2] under the answer
            p = np.exp([log_p(log_alpha, c=k) for k in range(known.size)])
            z = np.exp(log_alpha) * score
            information += 0.1 * (p @ (z - p @ z) ** 2 - information)
            log_alpha += np.clip(0.1 * slope / (information + 0.01), -1.0, 1.0)
    assert np.log(model.alpha_) == pytest.approx(log_alpha, rel=1e-6)
