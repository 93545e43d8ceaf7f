"""Kalman heads against routes that share nothing with the kernels: a naive twin, ridge, GPs."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from streamlearn.block import F8, Block, Features, Vocabulary
from streamlearn.contracts import State
from streamlearn.jit import kalman
from streamlearn.operators._base import Operator
from streamlearn.operators.kalman import KalmanClassifier, KalmanRegressor

FORMS = ("standard", "joseph", "sqrt")


def rows(X: F8, y: F8, mode: Any = 7, weight: Any = 1.0, K: int | None = None) -> Block:
    """A block of the given arrays; K declares classes."""
    n = X.shape[0]
    labels = None if K is None else Vocabulary(range(K))
    names = Features([f"x{i}" for i in range(X.shape[1])])
    modes = np.broadcast_to(np.asarray(mode, dtype=np.uint8), n).copy()
    return Block(X, y, np.broadcast_to(np.asarray(weight, float), n).copy(), modes, names, labels)


def hand_over(state: State, model: Operator) -> None:
    """Load a state that an operator of other parameters gave, which `load` by itself refuses."""
    parameters = model.state().table["parameters"]
    model.load(State(state.arrays, state.table | {"parameters": parameters}))


def covariance(model: KalmanClassifier | KalmanRegressor) -> F8:
    A = model.covariance_
    return A.T @ A if model.form == "sqrt" else A


def lifted(X: F8, norm2: float) -> F8:
    """1 and x, each row rescaled to one squared norm."""
    Phi = np.column_stack([np.ones(len(X)), X])
    return Phi * np.sqrt(norm2 / (Phi**2).sum(axis=1, keepdims=True)) if norm2 else Phi


class Naive:
    """The specification, section 3, with explicit matrices and one dense update a label."""

    def __init__(self, d: int, objective: str, decay: bool, **p: float) -> None:
        self.objective, self.decay, self.p = objective, decay, p
        self.A = np.eye(d + 1) * p["s_w"]
        self.m: dict[int, F8] = {}
        self.delta, self.log_alpha, self.gap = p["delta0"], 0.0, 0
        self.seen, self.total = np.zeros(d), np.zeros(d)

    def lift(self, x: F8) -> F8:
        means = np.divide(self.total, self.seen, out=np.zeros_like(x), where=self.seen > 0)
        return np.asarray(lifted(np.where(np.isnan(x), means, x)[None, :], self.p["norm2"])[0])

    def parts(self, f: F8, delta: float) -> tuple[float, float, dict[int, float], dict[int, float]]:
        """g, v, mu, p(class) under a given delta."""
        g = math.exp(-delta * (self.gap + 1) / 2)
        v = float(g * g * (f @ self.A @ f) + (1 - g * g) * self.p["s_w"] * (f @ f))
        mu = {k: (g if self.decay else 1.0) * float(w @ f) for k, w in self.m.items()}
        return g, v, mu, self.probabilities(mu, v, self.log_alpha)

    @staticmethod
    def probabilities(mu: dict[int, float], v: float, log_alpha: float) -> dict[int, float]:
        alpha = math.exp(log_alpha)
        kappa = alpha / math.sqrt(1 + math.pi * alpha**2 * v / 8)
        top = max(mu.values(), default=0.0)
        e = {k: math.exp(kappa * (u - top)) for k, u in mu.items()}
        return {k: value / sum(e.values()) for k, value in e.items()}

    def objective_at(self, f: F8, c: int, delta: float, log_alpha: float) -> float:
        """What delta climbs; its gradient is taken by central differences."""
        _, v, mu, _ = self.parts(f, delta)
        if self.objective == "softmax":
            return math.log(self.probabilities(mu, v, log_alpha)[c])
        S = v + self.p["s2"]
        return -0.5 * sum(
            math.log(2 * math.pi * S) + ((k == c) - u) ** 2 / S for k, u in mu.items()
        )

    def learn(self, x: F8, c: float, w: float) -> None:
        if math.isnan(c) or w == 0 or np.isnan(x).all():
            self.gap += 1
            return
        f, k = self.lift(x), int(c)
        self.m.setdefault(k, np.zeros(len(f)))
        h = 1e-6
        slope = self.objective_at(f, k, self.delta + h, self.log_alpha)
        slope = (slope - self.objective_at(f, k, self.delta - h, self.log_alpha)) / (2 * h)
        _, v, mu, _ = self.parts(f, self.delta)
        up, down = (
            math.log(self.probabilities(mu, v, self.log_alpha + e)[k]) for e in (1e-6, -1e-6)
        )
        self.delta = float(
            np.clip(self.delta + self.p["lr"] * np.clip(slope, -1, 1), 0.0, self.p["delta_max"])
        )
        step = self.p["lr_alpha"] * np.clip((up - down) / 2e-6, -1, 1)
        self.log_alpha = float(np.clip(self.log_alpha + step, math.log(0.1), math.log(100)))
        self.update(f, k, w)

    def update(self, f: F8, c: int, w: float) -> None:
        g = math.exp(-self.delta * (self.gap + 1) / 2)
        self.A = g * g * self.A + (1 - g * g) * self.p["s_w"] * np.eye(len(f))
        Af = self.A @ f
        gain = Af / (f @ Af + self.p["s2"] / w)
        for k, old in self.m.items():
            m = (g if self.decay else 1.0) * old
            self.m[k] = m + gain * ((k == c) - m @ f)
        self.A = self.A - np.outer(gain, Af)
        self.A, self.gap = (self.A + self.A.T) / 2, 0

    def observe(self, x: F8, w: float) -> None:
        there = ~np.isnan(x)
        self.seen[there] += w
        self.total[there] += w * x[there]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("objective", ["softmax", "gaussian"])
@pytest.mark.parametrize(("decay", "norm2"), [(True, 10.0), (False, 0.0)])
def test_every_row_equals_the_naive_twin(
    form: str, objective: str, decay: bool, norm2: float
) -> None:
    """All modes, missing features and labels, weights and late classes mixed, one row at a time."""
    rng = np.random.default_rng(7)
    n, d = 60, 3
    X = rng.normal(size=(n, d))
    X[rng.random((n, d)) < 0.2] = np.nan
    X[17] = np.nan
    y = rng.choice([0.0, 2.0, 3.0, np.nan], n, p=[0.4, 0.4, 0.15, 0.05])
    y[:10] = 2.0
    mode = rng.choice(np.array([7, 7, 7, 7, 6, 5, 2, 1], dtype=np.uint8), n)
    weight = rng.choice([1.0, 1.0, 0.5, 3.0, 0.0], n)
    model = KalmanClassifier(
        sigma_w2=1.5, sigma2=0.2, delta0=1e-3, lr_delta=1e-3, delta_objective=objective,
        feature_norm2=norm2, form=form, decay_mean=decay, qr_every=1,
    )  # fmt: skip
    twin = Naive(
        d, objective, decay, s_w=1.5, s2=0.2, delta0=1e-3, lr=1e-3, delta_max=0.2, lr_alpha=0.02,
        norm2=norm2,
    )  # fmt: skip
    for t in range(n):
        out = model.run(rows(X[t : t + 1], y[t : t + 1], mode[t], weight[t]))
        if mode[t] & 1:
            expected = twin.parts(twin.lift(X[t]), twin.delta)[3]
            got = {k: p for k, p in enumerate(out["proba"][0]) if k in expected}
            assert got == pytest.approx(expected, rel=1e-6)
        if mode[t] & 2:
            twin.learn(X[t], y[t], weight[t])
        if mode[t] & 4:
            twin.observe(X[t], weight[t])
        assert model.delta_ == pytest.approx(twin.delta, rel=1e-6, abs=1e-10)
        assert model.alpha_ == pytest.approx(math.exp(twin.log_alpha), rel=1e-6)
        assert model.gap_ == twin.gap
        assert_allclose(covariance(model), twin.A, rtol=1e-6, atol=1e-9)
        for k, m in twin.m.items():
            assert_allclose(model.means_[k], m, rtol=1e-6, atol=1e-8)


# acceptance 1
@pytest.mark.parametrize("form", FORMS)
def test_without_drift_it_is_batch_ridge(form: str) -> None:
    rng = np.random.default_rng(0)
    X, c = rng.normal(size=(80, 4)), rng.integers(0, 3, 80)
    w = rng.uniform(0.5, 2.0, 80)
    model = KalmanClassifier(sigma_w2=2.0, sigma2=0.3, lr_delta=0.0, form=form)
    model.run(rows(X, c.astype(float), weight=w))
    Phi = lifted(X, 10.0)
    A = np.linalg.inv(Phi.T @ (Phi * w[:, None]) / 0.3 + np.eye(5) / 2.0)
    assert_allclose(covariance(model), A, rtol=1e-8, atol=1e-10)
    assert_allclose(
        model.means_.T, A @ Phi.T @ (w[:, None] * np.eye(3)[c]) / 0.3, rtol=1e-8, atol=1e-10
    )


def gp_kernel(Phi: F8, s_w: float, gammas: F8) -> F8:
    """Prior covariance of the latent values: s_w f_i'f_j times the drift between i and j."""
    logs = np.cumsum(np.log(gammas))
    return np.asarray(s_w * np.exp(-np.abs(logs[:, None] - logs[None, :])) * (Phi @ Phi.T))


# acceptance 2
@pytest.mark.parametrize("form", FORMS)
def test_with_drift_it_is_the_gaussian_process_posterior_and_evidence(form: str) -> None:
    """Gaps make gamma vary in time: an unlabelled row in between squares it."""
    rng = np.random.default_rng(1)
    n, d, delta, s_w, s2 = 50, 3, 0.02, 1.3, 0.2
    X, y = rng.normal(size=(n, d)), rng.normal(size=n)
    y[rng.random(n) < 0.2] = np.nan
    model = KalmanRegressor(
        sigma_w2=s_w, sigma2=s2, delta0=delta, lr_delta=0.0, feature_norm2=0.0, form=form,
        centre_targets=False, scale_targets=False, qr_every=1,
    )  # fmt: skip
    out = model.run(rows(X, y))
    Phi, there = lifted(X, 0.0), ~np.isnan(y)
    K = gp_kernel(Phi, s_w, np.full(n, math.exp(-delta / 2)))
    G = K[np.ix_(there, there)] + s2 * np.eye(int(there.sum()))
    last = int(np.flatnonzero(there)[-1])
    cross = s_w * np.exp(-delta / 2 * (last - np.flatnonzero(there)))[:, None] * Phi[there]
    mean = cross.T @ np.linalg.solve(G, y[there])
    assert_allclose(model.means_[0], mean, rtol=1e-8, atol=1e-10)
    A = s_w * np.eye(d + 1) - cross.T @ np.linalg.solve(G, cross)
    assert_allclose(covariance(model), A, rtol=1e-8, atol=1e-10)
    r, S = (y - out["prediction"])[there], out["variance"][there]
    density = -0.5 * (np.log(2 * np.pi * S) + r**2 / S).sum()
    _, logdet = np.linalg.slogdet(2 * np.pi * G)
    evidence = -0.5 * (logdet + y[there] @ np.linalg.solve(G, y[there]))
    assert density == pytest.approx(evidence, rel=1e-8)


# acceptance 3, Gaussian objective of targets
@pytest.mark.parametrize("delta0", [0.0, 0.01])
@pytest.mark.parametrize("gap", [0, 2])
def test_regression_slope_of_delta_is_that_of_the_log_density(delta0: float, gap: int) -> None:
    """Two targets; the slope is read off one small step and compared with central differences."""
    rng = np.random.default_rng(3)
    X, Y = rng.normal(size=(30, 2)), rng.normal(size=(30, 2))
    Y[20 : 20 + gap] = np.nan
    X, Y = np.roll(X[:29], 9 - gap, axis=0), np.roll(Y[:29], 9 - gap, axis=0)  # the gap comes last
    fixed: dict[str, Any] = {
        "delta0": delta0,
        "centre_targets": False,
        "scale_targets": False,
        "sigma2": 20.0,
    }
    rate, x, y = 1e-9, rng.normal(size=(1, 2)), rng.normal(size=(1, 2))
    model = KalmanRegressor(lr_delta=0.0, **fixed)
    model.run(rows(X, Y))
    assert model.gap_ == gap

    def density(delta: float) -> float:
        """Log density of y: weights learnt under delta0, due updates under delta."""
        m, A, f = model.means_, model.covariance_, lifted(x, 0.0)[0]
        g = math.exp(-delta * (gap + 1) / 2)
        S = g * g * f @ A @ f + (1 - g * g) * f @ f + 20.0
        return float(-0.5 * sum(np.log(2 * np.pi * S) + (y[0] - g * m @ f) ** 2 / S))

    after = KalmanRegressor(lr_delta=rate, **fixed)
    hand_over(model.state(), after)
    expected = (density(delta0 + 1e-6) - density(delta0 - 1e-6)) / 2e-6
    assert abs(expected) < 1.0  # not clipped
    after.run(rows(x, y))
    step = (after.delta_ - delta0) / rate
    assert step == pytest.approx(max(expected, 0.0) if delta0 == 0.0 else expected, rel=1e-5)


# acceptance 5, second half
@pytest.mark.parametrize("form", FORMS)
def test_one_drift_over_a_gap_equals_many(form: str) -> None:
    """q unlabelled rows and one label: one time update with gamma to the power q + 1."""
    X = np.random.default_rng(5).normal(size=(9, 2))
    lazy = KalmanClassifier(delta0=0.01, lr_delta=0.0, lr_alpha=0.0, form=form, qr_every=1)
    lazy.run(rows(X, np.array([0.0, 1.0, 0.0, 1.0, *[np.nan] * 4, 1.0])))
    eager = KalmanClassifier(delta0=0.01, lr_delta=0.0, lr_alpha=0.0, form=form, qr_every=1)
    eager.run(rows(X[:4], np.array([0.0, 1.0, 0.0, 1.0])))
    jump = KalmanClassifier(delta0=0.05, lr_delta=0.0, lr_alpha=0.0, form=form, qr_every=1)
    hand_over(eager.state(), jump)
    jump.scalars_[kalman.DELTA] = 0.05  # five updates of 0.01 in one
    jump.run(rows(X[8:], np.array([1.0])))
    assert_allclose(covariance(lazy), covariance(jump), rtol=1e-12, atol=1e-14)
    assert_allclose(lazy.means_, jump.means_, rtol=1e-12, atol=1e-14)


def test_the_lazy_root_applies_what_is_due_at_every_qr() -> None:
    """With qr_every = B, rows in between see no drift, and row B sees all of it at once."""
    rng = np.random.default_rng(6)
    X, y = rng.normal(size=(20, 3)), rng.integers(0, 2, 20).astype(float)
    model = KalmanClassifier(delta0=0.01, lr_delta=0.0, form="sqrt", qr_every=5)
    twin_A, twin_m, Phi = np.eye(4), np.zeros((2, 4)), lifted(X, 10.0)
    for t in range(20):
        model.run(rows(X[t : t + 1], y[t : t + 1], K=2))
        if (t + 1) % 5 == 0:
            g2 = math.exp(-0.05)
            twin_A = g2 * twin_A + (1 - g2) * np.eye(4)
            twin_m = math.sqrt(g2) * twin_m
        gain = twin_A @ Phi[t] / (Phi[t] @ twin_A @ Phi[t] + 0.1)
        twin_m = twin_m + np.outer(np.eye(2)[int(y[t])] - twin_m @ Phi[t], gain)
        twin_A = twin_A - np.outer(gain, twin_A @ Phi[t])
        assert model.gap_ == (t + 1) % 5
    assert_allclose(covariance(model), twin_A, rtol=1e-9, atol=1e-12)
    assert_allclose(model.means_, twin_m, rtol=1e-9, atol=1e-12)


# acceptance 4
def test_a_class_that_comes_late_equals_one_declared_from_the_start() -> None:
    """Exact, because all its earlier targets were 0; fixed rates, as the objectives depend on K."""
    rng = np.random.default_rng(8)
    X, y = rng.normal(size=(60, 3)), rng.integers(0, 2, 60).astype(float)
    y[30::3] = 4.0
    model = KalmanClassifier(delta0=1e-3, lr_delta=0.0, lr_alpha=0.0)
    model.run(rows(X, y))
    Phi, m, A = lifted(X, 10.0), np.zeros((5, 4)), np.eye(4)
    for f, c in zip(Phi, y.astype(int), strict=True):
        g2 = math.exp(-1e-3)
        A, m = g2 * A + (1 - g2) * np.eye(4), math.sqrt(g2) * m
        gain = A @ f / (f @ A @ f + 0.1)
        m, A = m + np.outer(np.eye(5)[c] - m @ f, gain), A - np.outer(gain, A @ f)
    assert_allclose(model.means_, m, rtol=1e-12, atol=1e-12)
    assert not model.means_[2:4].any()


# acceptance 7
def test_mean_field_is_near_monte_carlo() -> None:
    """Antithetic draws of softmax(alpha (mu + sqrt(v) e)) over the model's own mu and v."""
    rng = np.random.default_rng(9)
    noise = rng.normal(size=(10_000, 3))
    noise, compared = np.concatenate([noise, -noise]), 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(20, 2)), np.arange(20.0) % 3
        model = KalmanClassifier(alpha0=float(rng.uniform(0.5, 4)), sigma2=1.0, lr_alpha=0.0)
        model.run(rows(X[:10], y[:10], K=3))
        out = model.run(rows(X[10:], y[10:], mode=1, K=3))["proba"]
        g2 = math.exp(-model.delta_)
        for f, p in zip(lifted(X[10:], 10.0), out, strict=True):
            v = g2 * f @ model.covariance_ @ f + (1 - g2) * f @ f
            mu = math.sqrt(g2) * model.means_ @ f
            z = np.exp(model.alpha_ * (mu + math.sqrt(v) * noise))
            exact = (z / z.sum(axis=1, keepdims=True)).mean(axis=0)
            assert p.sum() == pytest.approx(1.0, abs=1e-15)
            if v <= 2.0:
                compared += 1
                assert_allclose(p, exact, atol=0.08)
    assert compared > 100


@pytest.mark.parametrize("form", FORMS)
def test_inflate_divides_what_the_data_told(form: str) -> None:
    rng = np.random.default_rng(10)
    X, y = rng.normal(size=(40, 3)), rng.integers(0, 2, 40).astype(float)
    model = KalmanClassifier(sigma_w2=0.7, form=form)
    model.run(rows(X, y))
    A, means = covariance(model).copy(), model.means_.copy()
    model.inflate(9.0)
    told = (np.linalg.inv(A) - np.eye(4) / 0.7) / 9.0
    assert_allclose(covariance(model), np.linalg.inv(told + np.eye(4) / 0.7), rtol=1e-8)
    assert np.linalg.eigvalsh(covariance(model)).max() <= 0.7 * (1 + 1e-9)
    assert (model.means_ == means).all()
    model.inflate(1e12)
    assert_allclose(covariance(model), 0.7 * np.eye(4), atol=1e-6)


@pytest.mark.jit
def test_targets_are_centred_and_their_variance_scaled() -> None:
    """Whatever the unit and offset of y, the answers follow it."""
    rng = np.random.default_rng(11)
    X = rng.normal(size=(3000, 2))
    y = X @ np.array([1.0, -2.0]) + 0.3 * rng.normal(size=3000)
    plain = KalmanRegressor().run(rows(X, y))
    moved = KalmanRegressor().run(rows(X, 1e3 * y + 1e6))
    assert_allclose(moved["prediction"][1:], 1e3 * plain["prediction"][1:] + 1e6, rtol=1e-9)
    assert_allclose(moved["variance"][2:], 1e6 * plain["variance"][2:], rtol=1e-5)
    z2 = (y - plain["prediction"]) ** 2 / plain["variance"]
    assert 0.9 < z2[1500:].mean() < 1.1


def test_several_targets_equal_one_head_each_when_delta_is_fixed() -> None:
    rng = np.random.default_rng(12)
    X, Y = rng.normal(size=(50, 3)), rng.normal(size=(50, 2))
    both = KalmanRegressor(delta0=1e-3, lr_delta=0.0)
    out = both.run(rows(X, Y))
    for k in range(2):
        one = KalmanRegressor(delta0=1e-3, lr_delta=0.0).run(rows(X, Y[:, k].copy()))
        assert_allclose(out["prediction"][:, k], one["prediction"], rtol=1e-12)
        assert_allclose(out["variance"][:, k], one["variance"], rtol=1e-12)
