"""Heads for every output, Monte Carlo, balance and chunks, against a naive twin with them all."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8, Block, Features, Vocabulary
from streamlearn.jit._compile import kernel
from streamlearn.jit.counter import key_of
from streamlearn.jit.monte_carlo import MU, ROWS, SD, expected_softmax, normal_of, stream_of
from streamlearn.operators import KalmanClassifier, KalmanRegressor
from tests.operators.test_kalman_reference import hand_over


def rows(X: F8, y: F8, mode: Any = 7, weight: Any = 1.0, K: int | None = None) -> Block:
    n = X.shape[0]
    modes = np.broadcast_to(np.asarray(mode, dtype=np.uint8), n).copy()
    weights = np.broadcast_to(np.asarray(weight, float), n).copy()
    labels = None if K is None else Vocabulary(range(K))
    return Block(X, y, weights, modes, Features([f"x{i}" for i in range(X.shape[1])]), labels)


def lifted(x: F8) -> F8:
    """1 and x, with squared norm 10."""
    f = np.concatenate([[1.0], x])
    return np.asarray(f * math.sqrt(10.0 / (f @ f)))


# -- draws -----------------------------------------------------------------------------------------

MASK, GOLDEN = 2**64 - 1, 0x9E3779B97F4A7C15


def scrambled(z: int) -> int:
    z &= MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def draw(seed: int, n: int, s: int, k: int) -> float:
    """Draw s of class k after n labels, by whole numbers and the library's quantile."""
    start = scrambled((key_of(seed, "draws") >> 12) + GOLDEN * (n + 1))
    bits = scrambled(scrambled(start + GOLDEN * (s + 1)) + GOLDEN * (k + 1)) >> 12
    return NormalDist().inv_cdf((bits + 0.5) * 2.0**-52)


@kernel
def quantiles(u: F8, out: F8) -> None:
    for i in range(u.shape[0]):
        out[i] = normal_of(u[i])


@kernel
def expected(mu: F8, sd: F8, alpha: float, pairs: int, work: F8, prob: F8) -> None:
    work[MU], work[SD] = mu, sd
    expected_softmax(np.ones(mu.shape[0]), alpha, stream_of(7.0, 3.0), pairs, work, prob, -1)


def test_the_quantile_is_normal() -> None:
    u = np.concatenate([np.geomspace(2.0**-53, 0.5, 200), 1.0 - np.geomspace(2.0**-52, 0.5, 200)])
    out = np.empty_like(u)
    quantiles(u, out)
    assert_allclose(out, [NormalDist().inv_cdf(p) for p in u.tolist()], rtol=1e-8, atol=1e-9)


def test_probabilities_by_draws_do_not_know_the_origin_of_the_scores() -> None:
    """Acceptance 7, second half: p sums to 1 and stays where a constant is added to mu."""
    rng = np.random.default_rng(0)
    mu, sd, work = rng.normal(size=4), rng.random(4), np.empty((ROWS, 4))
    one, other = np.empty(4), np.empty(4)
    expected(mu, sd, 3.0, 50, work, one)
    expected(mu + 1024.0, sd, 3.0, 50, work, other)
    assert one.sum() == pytest.approx(1.0, abs=1e-14)
    assert_allclose(one, other, rtol=1e-9)


@pytest.mark.jit
def test_draws_agree_with_the_integral() -> None:
    """Two classes: E sigmoid of a normal difference, by quadrature."""
    mu, sd, work, prob = (
        np.array([0.7, 0.0]),
        np.array([1.1, 0.4]),
        np.empty((ROWS, 2)),
        np.empty(2),
    )
    expected(mu, sd, 2.0, 50_000, work, prob)
    x, w = np.polynomial.hermite_e.hermegauss(80)
    z = 2.0 * (0.7 + math.hypot(1.1, 0.4) * x)
    assert prob[0] == pytest.approx((w / w.sum()) @ (1.0 / (1.0 + np.exp(-z))), abs=2e-3)


# acceptance 7
@pytest.mark.jit
def test_mean_field_is_near_the_draws() -> None:
    """Acceptance 7: |dp| < 0.08 on 200 cases with v <= 2, alpha <= 4."""
    compared = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(20, 2)), np.arange(20.0) % 3
        settings: dict[str, Any] = {"alpha0": rng.uniform(0.5, 4), "sigma2": 1.0, "lr_alpha": 0.0}
        plain = KalmanClassifier(**settings)
        drawn = KalmanClassifier(evaluator="monte_carlo", samples=4000, lr_delta=0.0, **settings)
        plain.run(rows(X[:10], y[:10], K=3))
        drawn.run(rows(X[:10], y[:10], K=3))
        A = plain.covariance_
        near = [bool(f @ A @ f <= 2.0) for f in map(lifted, X[10:])]
        p, q = (m.run(rows(X[10:], y[10:], mode=1, K=3))["proba"] for m in (plain, drawn))
        assert_allclose(p[near], q[near], atol=0.08)
        compared += near.count(True)
    assert compared >= 200


# -- the twin --------------------------------------------------------------------------------------


S_W = 1.5  # prior variance of the twin's weights


class Twin:
    """Section 3 of the specification with explicit matrices; None is a class not known yet."""

    def __init__(self, d: int, each: bool, objective: str, samples: int, balance: bool) -> None:
        self.each, self.objective, self.samples, self.balance = each, objective, samples, balance
        self.A: dict[Any, F8] = {None: S_W * np.eye(d + 1)}
        self.delta: dict[Any, float] = {None: 0.01}
        self.m: dict[int, F8] = {}
        self.counts: dict[int, int] = {}
        self.log_alpha, self.gap, self.n = 0.0, 0, 0

    def group(self, k: int) -> Any:
        return k if self.each else None

    def latent(self, f: F8, group: Any, delta: float) -> tuple[float, float]:
        g = math.exp(-delta * (self.gap + 1) / 2)
        return g, float(g * g * (f @ self.A[group] @ f) + (1 - g * g) * S_W * (f @ f))

    def probabilities(self, f: F8, delta: dict[Any, float], log_alpha: float) -> dict[int, float]:
        if not self.m:
            return {}
        alpha, classes = math.exp(log_alpha), list(self.m)
        parts = [self.latent(f, self.group(k), delta[self.group(k)]) for k in classes]
        mu = np.array([g * (self.m[k] @ f) for k, (g, _) in zip(classes, parts, strict=True)])
        v = np.array([v for _, v in parts])
        if not self.samples:
            z = alpha * mu[None] / math.sqrt(1 + math.pi * alpha**2 * v.mean() / 8)
        else:
            e = np.array(
                [[draw(3, self.n, s, k) for k in classes] for s in range(self.samples // 2)]
            )
            z = alpha * (mu + np.sqrt(v) * np.vstack([e, -e]))
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p = (p / p.sum(axis=1, keepdims=True)).mean(axis=0)
        return dict(zip(classes, p.tolist(), strict=True))

    def value(self, f: F8, c: int, delta: dict[Any, float], log_alpha: float, group: Any) -> float:
        """What the delta of a group climbs."""
        if self.objective == "softmax":
            return math.log(self.probabilities(f, delta, log_alpha)[c])
        g, v = self.latent(f, group, delta[group])
        own = [k for k in self.m if self.group(k) == group]
        residuals = [float((k == c) - g * (self.m[k] @ f)) for k in own]
        if self.each and group is None:
            residuals = [0.0]
        return sum(-0.5 * (math.log(v + 0.2) + r * r / (v + 0.2)) for r in residuals)

    def slopes(self, f: F8, c: int) -> tuple[dict[Any, float], float]:
        """By central differences: of every delta, and of log alpha."""
        h, out = 1e-6, {}
        for group, value in self.delta.items():
            up, down = (
                self.value(f, c, self.delta | {group: value + e}, self.log_alpha, group)
                for e in (h, -h)
            )
            out[group] = (up - down) / (2 * h)
        up, down = (
            math.log(self.probabilities(f, self.delta, self.log_alpha + e)[c]) for e in (h, -h)
        )
        return out, (up - down) / (2 * h)

    def learn(self, x: F8, c: float, w: float, rate: float) -> None:
        if math.isnan(c) or w == 0.0:
            self.gap += 1
            return
        f, k = lifted(x), int(c)
        if k not in self.m:
            self.m[k] = np.zeros(len(f))
            self.A[self.group(k)] = self.A[None].copy()
            self.delta[self.group(k)] = self.delta[None]
        self.counts[k] = self.counts.get(k, 0) + 1
        slopes, slope_alpha = self.slopes(f, k)
        for group, slope in slopes.items():
            step = self.delta[group] + rate * float(np.clip(slope, -1, 1))
            self.delta[group] = min(max(step, 0.0), 0.2)
        self.log_alpha += 0.02 * float(np.clip(slope_alpha, -1, 1))
        if self.balance:
            w *= sum(self.counts.values()) / (len(self.counts) * self.counts[k])
        self.condition(f, k, 0.2 / w)

    def condition(self, f: F8, c: int, noise: float) -> None:
        for group, before in self.A.items():
            g = math.exp(-self.delta[group] * (self.gap + 1) / 2)
            A = g * g * before + (1 - g * g) * S_W * np.eye(len(f))
            gain = A @ f / (f @ A @ f + noise)
            self.A[group] = A - np.outer(gain, A @ f)
            for k in [k for k in self.m if self.group(k) == group]:
                m = g * self.m[k]
                self.m[k] = m + gain * (float(k == c) - m @ f)
        self.gap, self.n = 0, self.n + 1


@pytest.mark.parametrize("objective", ["softmax", "gaussian"])
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize(("samples", "balance"), [(0, False), (0, True), (6, True)])
def test_every_row_equals_the_twin(objective: str, each: bool, samples: int, balance: bool) -> None:
    """Modes, gaps, weights and late classes mixed."""
    rng = np.random.default_rng(11)
    n, d = 50, 2
    X = rng.normal(size=(n, d))
    y = rng.choice([0.0, 2.0, 3.0, np.nan], n, p=[0.5, 0.3, 0.1, 0.1])
    y[:8] = 2.0
    mode = rng.choice(np.array([7, 7, 7, 6, 5, 2, 1], dtype=np.uint8), n)
    weight = rng.choice([1.0, 0.5, 3.0, 0.0], n, p=[0.6, 0.2, 0.1, 0.1])
    model = KalmanClassifier(
        sigma_w2=S_W, sigma2=0.2, delta0=0.01, lr_delta=1e-4, delta_objective=objective, seed=3,
        groups="each" if each else "shared", balance=balance,
        evaluator="monte_carlo" if samples else "mean_field", samples=samples or 2,
    )  # fmt: skip
    twin = Twin(d, each, objective, samples, balance)
    for t in range(n):
        out = model.run(rows(X[t : t + 1], y[t : t + 1], mode[t], weight[t]))
        if mode[t] & 1:
            answer = twin.probabilities(lifted(X[t]), twin.delta, twin.log_alpha)
            got = {k: p for k, p in enumerate(out["proba"][0]) if k in answer}
            assert got == pytest.approx(answer, rel=1e-6)
        if mode[t] & 2:
            twin.learn(X[t], y[t], weight[t], 1e-4)
        assert model.alpha_ == pytest.approx(math.exp(twin.log_alpha), rel=1e-6)
        for k, m in twin.m.items():
            A = model.covariance_[k + 1] if each else model.covariance_
            assert_allclose(A, twin.A[twin.group(k)], rtol=1e-6, atol=1e-9)
            assert_allclose(model.means_[k], m, rtol=1e-6, atol=1e-8)
            assert model.deltas_[k] == pytest.approx(twin.delta[twin.group(k)], rel=1e-6)
    if each:
        assert len(set(model.deltas_[[0, 2, 3]])) == 3  # they did part


# acceptance 3
@pytest.mark.parametrize("objective", ["softmax", "gaussian"])
@pytest.mark.parametrize("delta0", [0.0, 0.01])
@pytest.mark.parametrize(("each", "samples"), [(False, 0), (True, 0), (False, 8), (True, 8)])
def test_slopes_are_those_of_the_likelihood(
    objective: str, delta0: float, each: bool, samples: int
) -> None:
    """Acceptance 3: read off one small step, compared with central differences to 1e-5."""
    rng = np.random.default_rng(5)
    X, y = rng.normal(size=(20, 2)), np.arange(20.0) % 3
    fixed: dict[str, Any] = {
        "sigma_w2": S_W, "sigma2": 0.2, "delta0": delta0, "delta_objective": objective, "seed": 3,
        "groups": "each" if each else "shared",
        "evaluator": "monte_carlo" if samples else "mean_field", "samples": samples or 2,
    }  # fmt: skip
    model = KalmanClassifier(lr_delta=0.0, lr_alpha=0.0, **fixed)
    model.run(rows(X, y))
    twin = Twin(2, each, objective, samples, False)
    twin.m = dict(enumerate(model.means_))
    twin.A = {None: model.covariance_[0] if each else model.covariance_}
    twin.delta, twin.n = {None: delta0}, 20
    if each:
        twin.A |= {k: model.covariance_[k + 1] for k in range(3)}
        twin.delta |= dict.fromkeys(range(3), delta0)
    for c in range(3):
        x, after = rng.normal(size=(1, 2)), KalmanClassifier(lr_delta=1e-9, lr_alpha=1e-7, **fixed)
        hand_over(model.state(), after)
        after.run(rows(x, np.array([float(c)])))
        slopes, slope_alpha = twin.slopes(lifted(x[0]), c)
        got = math.log(after.alpha_) / 1e-7
        assert got == pytest.approx(float(np.clip(slope_alpha, -1, 1)), rel=1e-5, abs=1e-7)
        for k in range(3):
            slope = float(np.clip(slopes[twin.group(k)], -1, 1))
            slope = max(slope, 0.0) if delta0 == 0.0 else slope
            assert (after.deltas_[k] - delta0) / 1e-9 == pytest.approx(slope, rel=1e-5, abs=1e-6)


# acceptance 4
@pytest.mark.parametrize("groups", ["shared", "each"])
def test_a_class_that_comes_late_equals_one_declared(groups: str) -> None:
    """Acceptance 4, to 1e-12: a numpy twin has all classes, each with its own delta, from row 0."""
    rng = np.random.default_rng(8)
    X, y = rng.normal(size=(60, 3)), rng.integers(0, 2, 60)
    y[30::3] = 4
    model = KalmanClassifier(delta0=1e-3, lr_delta=0.0, lr_alpha=0.0, groups=groups)
    model.run(rows(X[:30], y[:30].astype(float)))
    model.run(rows(X[30:], y[30:].astype(float)))
    m, A = np.zeros((5, 4)), np.eye(4)
    for f, c in zip(map(lifted, X), y, strict=True):
        g2 = math.exp(-1e-3)
        A, m = g2 * A + (1 - g2) * np.eye(4), math.sqrt(g2) * m
        gain = A @ f / (f @ A @ f + 0.1)
        m, A = m + np.outer(np.eye(5)[c] - m @ f, gain), A - np.outer(gain, A @ f)
    assert_allclose(model.means_, m, rtol=1e-12, atol=1e-12)
    own = model.covariance_[[1, 2, 5]] if groups == "each" else model.covariance_[None]
    for found in own:
        assert_allclose(found, A, rtol=1e-12, atol=1e-12)


def test_every_target_of_its_own_is_a_head_of_its_own() -> None:
    """Two targets with groups="each" are two regressors, to the last bit."""
    rng = np.random.default_rng(2)
    X, Y = rng.normal(size=(80, 3)), rng.normal(size=(80, 2)) * [1.0, 100.0]
    X[rng.random(X.shape) < 0.1] = np.nan
    Y[40:, 0] += 5.0
    Y[20:23] = np.nan
    weight = rng.choice([0.0, 1.0, 2.0], 80)
    both = KalmanRegressor(groups="each", delta0=1e-3, lr_delta=1e-2)
    out = both.run(rows(X, Y, weight=weight))
    for k in range(2):
        alone = KalmanRegressor(delta0=1e-3, lr_delta=1e-2)
        solo = alone.run(rows(X, Y[:, k].copy(), weight=weight))
        for name in ("prediction", "variance"):
            assert_array_equal(out[name][:, k], solo[name])
        assert_array_equal(both.covariance_[k], alone.covariance_)
        assert both.deltas_[k] == alone.delta_
    assert both.deltas_[0] != both.deltas_[1]


@pytest.mark.jit
def test_one_target_can_be_forgotten_alone() -> None:
    """One target stands, the other turns its sign every 50 rows: only its head learns to forget."""
    rng = np.random.default_rng(0)
    X, turns = rng.normal(size=(5000, 2)), np.arange(5000) // 50 % 2 * 2.0 - 1.0
    Y = np.column_stack([X[:, 0], X[:, 0] * turns]) + 0.3 * rng.normal(size=(5000, 2))
    apart, shared = KalmanRegressor(groups="each"), KalmanRegressor()
    error = [
        np.abs(m.run(rows(X, Y))["prediction"] - Y)[1000:].mean(axis=0) for m in (apart, shared)
    ]
    assert apart.deltas_[0] < 0.1 * apart.deltas_[1]
    assert error[0][0] < error[1][0]


def test_balance_lifts_the_rare_class() -> None:
    """One in twenty, overlapping: recall of the rare class, on the same rows."""
    rng = np.random.default_rng(1)
    n = 2000
    y = (rng.random(n) < 0.05).astype(float)
    X = rng.normal(size=(n, 2)) + 1.2 * y[:, None]
    recall = {}
    for balance in (False, True):
        said = KalmanClassifier(balance=balance).run(rows(X, y, K=2))["prediction"]
        recall[balance] = float((said[y == 1] == 1).mean())
    assert recall[True] > recall[False] + 0.3


# -- chunks ----------------------------------------------------------------------------------------

SHAPES: list[dict[str, Any]] = [
    {"form": "standard"}, {"form": "joseph"}, {"form": "sqrt"}, {"groups": "each"},
]  # fmt: skip


# acceptance 5, first half
@pytest.mark.parametrize("settings", SHAPES)
def test_a_chunk_of_labels_equals_its_rows(settings: dict[str, Any]) -> None:
    """Acceptance 5, first half: to 1e-10, with weights, gaps in features and late classes."""
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(300, 4)), rng.integers(0, 2, 300).astype(float)
    y[50::7], y[4::11] = 3.0, np.nan
    weight = rng.uniform(0.2, 3.0, 300)
    fixed = {"lr_delta": 0.0, "lr_alpha": 0.0} | settings
    chunk, single = KalmanClassifier(**fixed), KalmanClassifier(**fixed)
    for part in (slice(0, 40), slice(40, 300)):
        chunk.learn_chunk(rows(X[part], y[part], weight=weight[part]))
    single.run(rows(X, y, weight=weight))
    assert chunk.n_samples_ == single.n_samples_
    assert_array_equal(chunk.outputs_[0], single.outputs_[0])
    assert_allclose(chunk.means_, single.means_, rtol=1e-10, atol=1e-10)
    A, B = (
        m.covariance_.T @ m.covariance_ if m.form == "sqrt" else m.covariance_
        for m in (chunk, single)
    )
    assert_allclose(A, B, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("settings", SHAPES)
def test_a_chunk_of_targets_equals_its_rows(settings: dict[str, Any]) -> None:
    """Acceptance 5 for two targets; drift passes once, before the chunk."""
    rng = np.random.default_rng(4)
    X, Y = rng.normal(size=(90, 3)), rng.normal(size=(90, 2))
    fixed = {"lr_delta": 0.0, "centre_targets": False, "scale_targets": False} | settings
    fixed["sigma_w2"] = 1.5
    chunk, single = (KalmanRegressor(delta0=d, qr_every=1, **fixed) for d in (0.03, 0.0))
    first = KalmanRegressor(delta0=0.03, qr_every=1, **fixed)
    first.run(rows(X[:20], Y[:20]))
    first.run(rows(X[:2], np.full((2, 2), np.nan)))  # two updates are due, and one of the label
    chunk.load(first.state())
    chunk.learn_chunk(rows(X[20:], Y[20:]))
    hand_over(first.state(), single)
    single.run(rows(X[20:21], Y[20:21]))
    state = single.state()
    for name in ("scalars_", "heads_"):
        state.arrays[name][..., 3] = 0.0  # delta: no drift inside
    single.load(state)
    single.run(rows(X[21:], Y[21:]))
    assert chunk.gap_ == 0
    assert chunk.n_samples_ == 90
    assert_allclose(chunk.means_, single.means_, rtol=1e-10, atol=1e-10)
    assert_allclose(chunk.outputs_, single.outputs_, rtol=1e-10)


def test_a_chunk_estimates_the_scale_of_a_target() -> None:
    """The mean square of standardised innovations, by the joint density of the batch."""
    rng = np.random.default_rng(6)
    X = rng.normal(size=(50, 2))
    y = 1000.0 * (X[:, 0] + 0.1 * rng.normal(size=50))
    model = KalmanRegressor(delta0=0.0)
    model.learn_chunk(rows(X, y))
    Phi = np.column_stack([np.ones(50), X])
    e = y - y.mean()
    G = Phi @ Phi.T + 0.1 * np.eye(50)
    assert model.outputs_[1, 0] == pytest.approx(y.mean())
    assert model.outputs_[2, 0] == pytest.approx(e @ np.linalg.solve(G, e) / 50, rel=1e-9)
    assert np.abs(model.run(rows(X, y, mode=1))["prediction"] - y).mean() < 200.0


def test_a_chunk_without_labels_changes_nothing_but_the_inputs() -> None:
    model = KalmanClassifier()
    model.run(rows(np.ones((3, 1)), np.array([0.0, 1.0, 0.0])))
    before = model.state().arrays
    model.learn_chunk(rows(np.ones((3, 1)), np.full(3, np.nan)))
    for name in ("means_", "covariance_", "outputs_", "scalars_"):
        assert_array_equal(getattr(model, name), before[name])


# -- limits and messages ---------------------------------------------------------------------------


@pytest.mark.jit
@pytest.mark.parametrize("blocks", [4, pytest.param(400, marks=pytest.mark.soak)])
@pytest.mark.parametrize("settings", SHAPES)
def test_hostile_features_leave_every_covariance_definite(
    settings: dict[str, Any], blocks: int
) -> None:
    """Acceptance 6: collinear, constant, scales 1e-6 to 1e6; symmetric, 0 < eig <= sigma_w2."""
    rng = np.random.default_rng(8)
    model = KalmanClassifier(sigma_w2=2.0, lr_delta=1e-3, qr_every=8, **settings)
    for _ in range(blocks):
        X = rng.normal(size=(25_000, 5)) @ np.diag([1, 1e-6, 1e6, 1, 1])
        X[:, 3], X[:, 4] = X[:, 0], 7.0
        model.run(rows(X, rng.integers(0, 3, 25_000).astype(float), K=3))
        found = model.covariance_ if model.groups == "each" else model.covariance_[None]
        for A in [R.T @ R for R in found] if model.form == "sqrt" else found:
            assert_array_equal(A, A.T)
            values = np.linalg.eigvalsh(A)
            assert values.min() > 0.0
            assert values.max() <= 2.0 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": "two"}, r"groups must be one of shared, each, got 'two'$"),
        (
            {"groups": "each", "form": "sqrt"},
            r"^KalmanClassifier: form must be standard with groups='each', got 'sqrt'$",
        ),
        ({"evaluator": "laplace"}, r"evaluator must be one of mean_field, monte_carlo, got"),
        ({"samples": 7}, r"^KalmanClassifier: samples must be even, got 7$"),
        ({"balance": "yes"}, r"^KalmanClassifier: balance must be true or false, got 'yes'$"),
    ],
)
def test_a_wrong_parameter_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KalmanClassifier(**settings)
