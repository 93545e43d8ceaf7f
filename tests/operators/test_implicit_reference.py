"""Implicit linear learners against minimisers that share nothing with the kernel."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import brentq, minimize

from streamlearn.block import F8
from streamlearn.jit import implicit
from streamlearn.operators import ImplicitLinearClassifier, ImplicitLinearRegressor
from tests.operators.test_implicit import dense_rows, sparse_rows

CLASS_LOSSES = ("softmax", "logistic", "hinge")
TARGET_LOSSES = ("squared", "absolute", "quantile", "huber", "poisson")
Model = ImplicitLinearClassifier | ImplicitLinearRegressor


def loss_of(name: str, y: float, z: Any) -> Any:
    """The losses by their definitions; y is +-1 for logistic and hinge."""
    e = z - y
    if name == "logistic":
        return np.logaddexp(0.0, -y * z)
    if name == "hinge":
        return np.maximum(0.0, 1.0 - y * z)
    if name == "squared":
        return 0.5 * e**2
    if name == "absolute":
        return np.abs(e)
    if name == "quantile":
        return np.maximum(-0.3 * e, 0.7 * e)
    if name == "huber":
        return np.where(np.abs(e) <= 0.5, 0.5 * e**2, 0.5 * (np.abs(e) - 0.25))
    return np.exp(np.minimum(z, 700.0)) - y * z


def made(loss: str, **more: Any) -> Model:
    if loss in CLASS_LOSSES:
        return ImplicitLinearClassifier(
            loss=loss, intercept=False, lr_alpha=0.0, **{"rho": 0.0} | more
        )
    level: dict[str, Any] = {"quantile": 0.3, "huber": 0.5}
    return ImplicitLinearRegressor(
        loss=loss, scale_targets=False, intercept=False, rho=0.0,
        **({loss: level[loss]} if loss in level else {}), **more,
    )  # fmt: skip


def problem(rng: np.random.Generator, loss: str, d: int = 4) -> tuple[F8, F8]:
    """Rows of very different lengths, and targets that fit the loss."""
    X = rng.normal(size=(6, d)) * 10.0 ** rng.uniform(-2, 1.5, size=(6, 1))
    y = rng.normal(size=6) * 3.0
    if loss in CLASS_LOSSES:
        y = np.array([0.0, 1.0, *rng.integers(0, 2, 4)])
    return X, rng.poisson(3.0, 6).astype(float) if loss == "poisson" else y


def column(model: Model, k: int) -> tuple[F8, F8]:
    """Dual vector and L of one column, as the definition has them."""
    scale = model.scalars_[implicit.SCALE]
    th, G = scale * model.dense_[1:, 0, k], scale**2 * model.dense_[1:, 1, k]
    if model.rate == "scalar":
        G = np.full(th.shape, scale**2 * model.outputs_[3, k])
    return th, model.alpha * np.sqrt(model.beta + (0.0 * G if model.rate == "constant" else G))


@pytest.mark.parametrize("rate", ["coordinate", "scalar", "constant"])
@pytest.mark.parametrize("loss", [*CLASS_LOSSES[1:], *TARGET_LOSSES])
def test_a_step_minimises_its_objective(loss: str, rate: str) -> None:
    """Acceptance 1: L/2 |w|^2 - th.w + loss(w.x) against 4,001 points of the line, to 1e-9.

    30 problems of each loss, before the last of six rows; any minimiser is th - a x over L.
    """
    for seed in range(30):
        rng = np.random.default_rng(seed)
        X, y = problem(rng, loss)
        weight = np.array([1.0, 1.0, 1.0, 1.0, 1.0, rng.choice([0.3, 1.0, 5.0])])
        model = made(loss, alpha=float(10.0 ** rng.uniform(-2, 1)), rate=rate)
        model.run(dense_rows(X[:5], y[:5]))
        k = 1 + int(y[5]) if loss in CLASS_LOSSES else 0
        th, L = column(model, k)
        model.run(dense_rows(X[5:], y[5:], weight[5:]))
        moved, _ = column(model, k)
        x, target, iw = X[5], 1.0 if loss in CLASS_LOSSES else y[5], weight[5]
        a = float((th - moved) @ x / (x @ x))
        assert_allclose(moved, th - a * x, rtol=1e-9, atol=1e-9)

        def objective(a: Any) -> Any:
            w = (th[:, None] - np.atleast_1d(a) * x[:, None]) / L[:, None]  # noqa: B023
            fit = iw * loss_of(loss, target, x @ w)  # noqa: B023
            return (0.5 * L[:, None] * w * w - th[:, None] * w).sum(axis=0) + fit  # noqa: B023

        span = np.linspace(-1.0, 1.0, 4001) * (2.0 * abs(a) + 1.0)
        best = min(objective(span).min(), objective(a + span * 1e-3).min())
        assert objective(a)[0] <= best + 1e-9 * max(1.0, abs(best))


@pytest.mark.parametrize("K", [2, 3, 7])
def test_a_step_of_softmax_minimises_its_objective(K: int) -> None:
    """Acceptance 1, for all classes together: p after the step solves the fixed point."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(3 * K, 4)) * 10.0 ** rng.uniform(-1, 1.5)
        y = np.concatenate([np.arange(K), rng.integers(0, K, 2 * K)]).astype(float)
        model = made("softmax", alpha=float(10.0 ** rng.uniform(-2, 1)))
        model.run(dense_rows(X[:-1], y[:-1]))
        th, L = (np.stack(c) for c in zip(*(column(model, k) for k in range(K)), strict=True))
        model.run(dense_rows(X[-1:], y[-1:]))
        moved = np.stack([column(model, k)[0] for k in range(K)])
        x, c = X[-1], int(y[-1])
        a = (th - moved) @ x / (x @ x)
        z = (moved / L) @ x
        p = np.exp(z - z.max())
        p /= p.sum()
        assert_allclose(a, p - np.eye(K)[c], atol=1e-10)

        def objective(a: F8) -> float:
            w = (th - np.outer(a, x)) / L  # noqa: B023
            z = w @ x  # noqa: B023
            fit = z.max() + math.log(np.exp(z - z.max()).sum()) - z[c]  # noqa: B023
            return float((0.5 * L * w * w - th * w).sum() + fit)  # noqa: B023

        found = minimize(objective, a, method="Nelder-Mead", options={"xatol": 1e-8})
        assert objective(a) <= found.fun + 1e-9 * max(1.0, abs(found.fun))


def test_squared_loss_with_constant_rate_is_normalised_lms() -> None:
    """Acceptance 2, with forgetting: w <- (1 - rho) w, then mu (y - w.x) x / (1 + mu |x|^2)."""
    rng = np.random.default_rng(0)
    X, y, w = rng.normal(size=(400, 5)), rng.normal(size=400), np.zeros(5)
    for alpha, rho in [(0.5, 0.0), (2.0, 0.01)]:
        model = ImplicitLinearRegressor(
            alpha=alpha, rate="constant", rho=rho, intercept=False, scale_targets=False
        )
        w = np.zeros(5)
        for t in range(400):
            answer = model.run(dense_rows(X[t : t + 1], y[t : t + 1]))["prediction"]
            w *= 1.0 - rho  # at the end of the step before: answers know it
            assert_allclose(answer, [w @ X[t]], rtol=1e-12, atol=1e-13)
            w += (y[t] - w @ X[t]) * X[t] / (alpha + X[t] @ X[t])
        assert_allclose(model.weights()[0][1:, 0], (1.0 - rho) * w, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("loss", [*CLASS_LOSSES, *TARGET_LOSSES])
def test_no_step_overshoots(loss: str) -> None:
    """Acceptance 3: a learning rate 1,000 times as large never raises the loss just learned."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        X, y = problem(rng, loss)
        for alpha in (1.0, 1e-3, 1e-6):
            model = made(loss, alpha=alpha)
            for t in range(6):
                row = dense_rows(X[t : t + 1], y[t : t + 1])
                before, after = (_loss_now(model, loss, X[t], y[t], run, row) for run in (0, 1))
                assert after <= before + 1e-9 * max(1.0, abs(before)), (seed, alpha, t)


def _loss_now(model: Model, loss: str, x: F8, y: float, learn: int, row: Any) -> float:
    """The loss of a row by the weights after it is learnt, or with L of then, before."""
    model.meet(row.features)
    columns = model.dense_.shape[2]
    pairs = [column(model, k) for k in range(columns)]
    th = [pair[0] for pair in pairs]
    if learn:
        model.run(row)
        while len(pairs) < model.dense_.shape[2]:  # a class that was born
            first = pairs[0] if loss != "softmax" else (np.zeros(x.size), model.alpha + 0 * x)
            pairs.append(first)
        th = [column(model, k)[0] for k in range(model.dense_.shape[2])]
    z = np.array([w @ x for w in (t / L for t, (_, L) in zip(th, pairs, strict=True))])
    if loss == "softmax":
        known = np.append(z, [0.0] * (int(y) + 1 - z.size))
        return float(np.logaddexp.reduce(known) - known[int(y)])
    if loss in CLASS_LOSSES:
        k = 1 + int(y)
        return float(loss_of(loss, 1.0, z[k] if k < z.size else z[0] if z.size else 0.0))
    return float(loss_of(loss, y, z[0]))


@pytest.mark.parametrize("loss", ["logistic", "hinge", *TARGET_LOSSES])
def test_a_weight_of_two_lies_between_one_and_two_repeats(loss: str) -> None:
    """Acceptance 4: with constant L, where repeats are steps of one objective."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        X, y = problem(rng, loss)
        moved = []
        for rows, weight in (([5], [1.0]), ([5], [2.0]), ([5, 5], [1.0, 1.0])):
            model = made(loss, rate="constant")
            model.run(dense_rows(X[:5], y[:5]))
            k = 1 + int(y[5]) if loss in CLASS_LOSSES else 0
            start = column(model, k)[0]
            model.run(dense_rows(X[rows], y[rows], np.array(weight)))
            moved.append(float((column(model, k)[0] - start) @ X[5]))
        one, two, twice = (move * math.copysign(1.0, moved[0]) for move in moved)
        slack = 1e-9 * (1.0 + abs(twice))
        assert one - slack <= two <= max(2.0 * one, twice) + slack
        assert twice >= one - slack


def test_wright_omega_solves_its_equation() -> None:
    for r in np.concatenate([np.linspace(-40, 40, 2001), np.geomspace(50, 1e12, 60)]).tolist():
        v = implicit.wright(r)
        top = max(2.0, abs(r)) + 1.0
        exact = brentq(lambda v, r=r: v + math.log(v) - r, 1e-300, top, xtol=1e-300, rtol=1e-15)
        if r > -30:
            assert v == pytest.approx(exact, rel=1e-12)
        assert v + math.log(v) == pytest.approx(r, rel=4e-15, abs=4e-15)


def naive_logistic(X: F8, y: F8, rho: float) -> F8:
    """One class against the rest, K = 3 known from the start, by bisection: probabilities' order.

    Returns the scores before each row, (n, 3).
    """
    n, d = X.shape
    th, G, out = np.zeros((3, d)), np.zeros((3, d)), np.zeros((n, 3))
    for t, x in enumerate(X):
        L = np.sqrt(1.0 + G)
        z, q = (th / L) @ x, (x * x / L).sum(axis=1)
        out[t] = z
        for k in range(3):
            sign = 1.0 if y[t] == k else -1.0

            def gap(b: float, sign: float = sign, k: int = k) -> float:
                return b - 1.0 / (1.0 + math.exp(min(700.0, sign * z[k] + q[k] * b)))  # noqa: B023

            a = -sign * brentq(gap, 0.0, 1.0, xtol=1e-15, rtol=1e-14)
            th[k] -= a * x
            G[k] += a * a * x * x
        th *= 1.0 - rho
        G *= (1.0 - rho) ** 2
    return out


@pytest.mark.parametrize("rho", [0.0, 0.02, 0.5])
def test_one_against_the_rest_after_every_sample(rho: float) -> None:
    """A class that comes late is exact: it starts as one that was known, and absent, all along."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(400, 4))
    y = (X[:, 0] > 0).astype(float)
    y[150:][X[150:, 1] > 0.5] = 2.0
    model = ImplicitLinearClassifier(loss="logistic", rho=rho, intercept=False, lr_alpha=0.0)
    z = naive_logistic(X, y, rho)
    for t in range(400):
        proba = model.run(dense_rows(X[t : t + 1], y[t : t + 1]))["proba"][0]
        known = [k for k in range(3) if (y[:t] == k).any()]
        expected = np.exp(z[t, known] - z[t, known].max()) if known else np.zeros(0)
        assert_allclose(proba[known], expected / expected.sum(), rtol=1e-7, atol=1e-12)


def test_a_dense_and_a_sparse_feature_are_the_same_feature() -> None:
    rng = np.random.default_rng(4)
    X = np.where(rng.random((300, 12)) < 0.3, rng.normal(size=(300, 12)), 0.0)
    y = (X[:, 0] + X[:, 1] > 0).astype(float)
    dense, sparse = ImplicitLinearClassifier(), ImplicitLinearClassifier()
    one = dense.run(dense_rows(X, y))
    other = sparse.run(sparse_rows(X, y))
    assert_array_equal(one["proba"], other["proba"])
    assert_array_equal(dense.dense_[1:], sparse.sparse_)


def test_l1_reads_weights_through_a_threshold() -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(2000, 10))
    y = (X[:, 0] - X[:, 1] > 0).astype(float)
    found = {}
    for l1 in (0.0, 20.0):
        model = ImplicitLinearClassifier(l1=l1, rho=0.0)
        model.run(dense_rows(X, y))
        found[l1] = model.weights()[0]
    assert (found[0.0] != 0.0).all()
    assert (found[20.0][3:] == 0.0).mean() > 0.9
    assert (np.abs(found[20.0][1:3]) > 0.1).all()
