"""The Gaussian mixture against its covariance form: slow, in numpy, sharing nothing with it."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import chi2, multivariate_normal

from streamlearn.block import F8
from streamlearn.jit import mixture as jit
from streamlearn.operators import (
    GaussianMixtureAnomalyScorer,
    GaussianMixtureClassifier,
    GaussianMixtureImputer,
    GaussianMixtureRegressor,
)
from streamlearn.testing import block_of, labelled

EXACT: dict[str, Any] = {"std": 1.0, "eps": 0.0, "sp_min": 3.0}  # initial variances given, no floor


class Naive:
    """Covariances, inverses, determinants: the specification's section 4 and 5, word by word."""

    def __init__(
        self, beta: float = 0.1, delta: float = 1.0, rho: float = 0.995, v_min: float = 100.0,
        sp_min: float = 3.0, k_max: int = 200, mode: str = "exact", std: float = 1.0,
        eps: float = 0.0,
    ) -> None:  # fmt: skip
        assert eps == 0.0
        self.beta, self.sig2, self.rho, self.paper = beta, (delta * std) ** 2, rho, mode == "paper"
        self.v_min, self.sp_min, self.k_max = v_min, sp_min, k_max
        self.mu: list[F8] = []
        self.C: list[F8] = []
        self.sp: list[float] = []
        self.v: list[float] = []
        self.steps = self.forced = self.guarded = self.most = 0

    def joint(self, z: F8, known: F8) -> F8:
        """sp_j N(z_known | j), normalised."""
        log = [
            math.log(sp) + multivariate_normal.logpdf(z[known], m[known], C[np.ix_(known, known)])
            for m, C, sp in zip(self.mu, self.C, self.sp, strict=True)
        ]
        p = np.exp(np.array(log) - max(log))
        return np.asarray(p / p.sum())

    def recall(self, z: F8) -> tuple[F8, F8]:
        """Mean and covariance of the coordinates that are NaN, given the others."""
        known, asked = ~np.isnan(z), np.isnan(z)
        p = self.joint(z, known)
        means, covariances = [], []
        for m, C in zip(self.mu, self.C, strict=True):
            gain = C[np.ix_(asked, known)] @ np.linalg.inv(C[np.ix_(known, known)])
            means.append(m[asked] + gain @ (z[known] - m[known]))
            covariances.append(C[np.ix_(asked, asked)] - gain @ C[np.ix_(known, asked)])
        mean = p @ np.array(means)
        spread = [V + np.outer(m - mean, m - mean) for m, V in zip(means, covariances, strict=True)]
        return mean, np.einsum("j,jab->ab", p, np.array(spread))

    def learn(self, z: F8, weight: float = 1.0) -> None:
        z, known = z.copy(), ~np.isnan(z)
        if self.mu and not known.all():
            z[~known] = self.recall(z)[0]
        d2 = np.array(
            [(z - m) @ np.linalg.solve(C, z - m) for m, C in zip(self.mu, self.C, strict=True)]
        )
        gate = chi2.ppf(1.0 - self.beta, known.sum()) if self.beta > 0 else math.inf
        new = len(d2) == 0 or d2.min() >= gate
        if new and len(d2) < self.k_max:
            self.mu.append(z)
            self.C.append(self.sig2 * np.eye(z.size))
            self.sp.append(weight)
            self.v.append(1.0)
        else:
            self.forced += new
            p = np.eye(len(d2))[d2.argmin()] if new else self.joint(z, np.isfinite(z))
            for j in range(len(d2)):
                self.move(j, z, float(p[j]), weight)
        self.steps, self.most = self.steps + 1, max(self.most, len(self.mu))
        self.prune()

    def move(self, j: int, z: F8, p: float, weight: float) -> None:
        self.v[j] += 1
        self.sp[j] *= self.rho
        if p < 1e-12:
            return
        self.sp[j] += weight * p
        w = weight * p / self.sp[j]
        e = z - self.mu[j]
        self.mu[j] = self.mu[j] + w * e
        after = z - self.mu[j]
        if self.paper:
            C = (1 - w) * self.C[j] + w * np.outer(after, after) - np.outer(w * e, w * e)
            if np.linalg.eigvalsh(C).min() <= 0:
                self.guarded += 1
                C = (1 - w) * self.C[j]
        else:
            C = (1 - w) * self.C[j] + w * (1 - w) * np.outer(e, e)
        self.C[j] = C

    def prune(self) -> None:
        for j in reversed(range(len(self.mu))):
            weak = self.rho < 1 and self.sp[j] < 1e-3
            old = self.v[j] > self.v_min and self.sp[j] < self.sp_min
            if (weak or (old and self.steps % 50 == 0)) and len(self.mu) > 1:
                for parts in (self.mu, self.C, self.sp, self.v):
                    del parts[j]


def assert_alike(model: Any, naive: Naive, tol: float) -> None:
    """The same components, in whatever order."""
    assert model.n_components_ == len(naive.mu)
    mine, theirs = np.lexsort(model.mu_.T), np.lexsort(np.array(naive.mu).T)
    for a, b in zip(mine, theirs, strict=True):
        C = naive.C[b]
        root = np.sqrt(np.diag(C))
        assert_allclose(model.mu_[a], naive.mu[b], rtol=tol, atol=tol)
        scaled = (model.Lam_[a] * root[:, None] * root) @ (C / root[:, None] / root)
        assert_allclose(scaled, np.eye(len(root)), atol=tol)
        assert model.components_[jit.LOGDET, a] == pytest.approx(np.linalg.slogdet(C)[1], abs=tol)
        assert model.components_[jit.SP, a] == pytest.approx(naive.sp[b], rel=tol)
        assert model.components_[jit.AGE, a] == naive.v[b]


SETTINGS: list[dict[str, Any]] = [
    {},
    {"rho": 1.0, "beta": 0.01, "delta": 1.0},
    {"rho": 0.9, "v_min": 10.0},
    {"k_max": 2, "beta": 0.5},
    {"mode": "paper", "delta": 2.0, "beta": 0.01},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("d", [1, 4])
def test_prediction_and_state_after_every_sample(settings: dict[str, Any], d: int) -> None:
    rng = np.random.default_rng(d)
    X = rng.normal(size=(150, d)) + 3.0 * rng.integers(0, 2, (150, 1))
    y = np.sin(X[:, 0]) + 0.1 * rng.normal(size=150)
    weight = rng.choice([0.5, 1.0, 3.0], 150)
    settings = {"delta": 1.0} | settings
    model, naive = GaussianMixtureRegressor(**EXACT, **settings), Naive(**settings)
    for t in range(150):
        out = model.run(labelled(X[t : t + 1], y[t : t + 1], weight=weight[t : t + 1]))
        z = np.append(X[t], y[t])
        if t:
            mean, cov = naive.recall(np.append(X[t], np.nan))
            assert_allclose(out["prediction"], mean, rtol=1e-8, atol=1e-8)
            assert_allclose(out["variance"], cov[0], rtol=1e-7, atol=1e-10)
        naive.learn(z, float(weight[t]))
        if t % 10 == 9:
            assert_alike(model, naive, 1e-8)
    assert (model.n_forced, model.n_guarded) == (naive.forced, naive.guarded)
    assert naive.most > 1


# acceptance 1
@pytest.mark.jit
@pytest.mark.parametrize("mode", ["exact", "paper"])
@pytest.mark.parametrize("D", [2, 5, 20])
def test_2000_updates_equal_the_covariance_recursion(D: int, mode: str) -> None:
    """With heavy first rows w stays below 0.38, where the paper's form is definite."""
    rng = np.random.default_rng(D)
    Z = rng.normal(size=(2000, D)) @ rng.normal(size=(D, D)) + rng.normal(size=D)
    settings: dict[str, Any] = {"beta": 0.0, "rho": 1.0, "mode": mode, "delta": 1.0}
    weight = np.ones(2000)
    weight[0] = 3.0
    model, naive = GaussianMixtureAnomalyScorer(**EXACT, **settings), Naive(**settings)
    for t, z in enumerate(Z):
        naive.learn(z, float(weight[t]))
        if t in (0, 1, 2):
            model.run(block_of(Z[t : t + 1], weight=weight[t : t + 1]))
            assert_alike(model, naive, 1e-12)
    model.run(block_of(Z[3:]))
    assert naive.guarded == 0
    assert_alike(model, naive, 1e-8)


# acceptance 2
@pytest.mark.jit
def test_exact_mode_is_the_batch_covariance_with_one_pseudo_observation() -> None:
    rng = np.random.default_rng(2)
    Z, weight = rng.normal(size=(1000, 4)) @ rng.normal(size=(4, 4)), rng.uniform(0.2, 2.0, 1000)
    weight[0] = 1.0
    model = GaussianMixtureAnomalyScorer(beta=0.0, rho=1.0, delta=0.7, **EXACT)
    model.run(block_of(Z, weight=weight))
    mean = weight @ Z / weight.sum()
    C = ((Z - mean).T * weight) @ (Z - mean) + 0.49 * np.eye(4)
    assert_allclose(model.mu_[0], mean, rtol=1e-8, atol=1e-11)
    assert_allclose(np.linalg.inv(model.Lam_[0]), C / weight.sum(), rtol=1e-8, atol=1e-10)
    found = model.components_[jit.LOGDET, 0]
    assert found == pytest.approx(np.linalg.slogdet(C / weight.sum())[1], abs=1e-9)


def test_the_floor_gives_the_tightest_coordinate_what_it_lacks() -> None:
    """Section 4 (10): of Lam_ii sig2_i beyond 1 / eps the largest is brought back to it, alone."""
    Z = np.random.default_rng(5).normal(size=(60, 4)) * np.array([1.0, 0.01, 3.0, 0.0])
    model = GaussianMixtureAnomalyScorer(beta=0.0, rho=1.0, delta=1.0, std=1.0, eps=0.05)
    model.run(block_of(Z[:1]))
    mean, C, given = Z[0], np.eye(4), set()
    for n in range(1, 60):
        model.run(block_of(Z[n : n + 1]))
        e, w = Z[n] - mean, 1.0 / (n + 1.0)
        mean, C = mean + w * e, (1.0 - w) * (C + w * np.outer(e, e))
        tight = np.diag(np.linalg.inv(C))
        i = int(tight.argmax())
        if tight[i] > 20.0:
            C[i, i] += 0.05 - 1.0 / tight[i]
            given.add(i)
        assert_allclose(model.mu_[0], mean, rtol=1e-10, atol=1e-12)
        assert_allclose(np.linalg.inv(model.Lam_[0]), C, rtol=1e-9, atol=1e-11)
        found = model.components_[jit.LOGDET, 0]
        assert found == pytest.approx(np.linalg.slogdet(C)[1], abs=1e-9)
    assert given == {1, 3}


# acceptance 3
def test_paper_mode_is_the_published_two_step_form() -> None:
    rng = np.random.default_rng(3)
    Z, D = rng.normal(size=(40, 5)), 5
    model = GaussianMixtureAnomalyScorer(mode="paper", beta=0.0, rho=1.0, delta=1.0, **EXACT)
    weight = np.where(np.arange(40) == 0, 4.0, 1.0)
    model.run(block_of(Z[:1], weight=weight[:1]))
    Lam, mu, logdet, sp = np.eye(D), Z[0].copy(), 0.0, 4.0
    for z in Z[1:]:
        sp += 1.0
        w, e = 1.0 / sp, z - mu
        dmu = w * e
        mu = mu + dmu
        after, L = z - mu, Lam / (1 - w)
        t = L @ (math.sqrt(w) * after)
        a = 1 + math.sqrt(w) * after @ t
        Lb = L - np.outer(t, t) / a
        u = Lb @ dmu
        b = 1 - dmu @ u
        Lam = Lb + np.outer(u, u) / b
        logdet += D * math.log(1 - w) + math.log(a * b)
    model.run(block_of(Z[1:]))
    assert model.n_guarded == 0
    assert_allclose(model.Lam_[0], Lam, rtol=1e-10, atol=1e-10)
    assert model.components_[jit.LOGDET, 0] == pytest.approx(logdet, abs=1e-10)


# acceptance 4
@pytest.mark.parametrize(("d2", "guarded"), [(3.9, 0), (4.1, 1)])
def test_the_published_recursion_turns_indefinite_beyond_distance_4(
    d2: float, guarded: int
) -> None:
    """w = 0.5, C = I: the smallest eigenvalue is 0.5 - 0.125 d2, so +0.0125 or -0.0125."""
    z = np.zeros((2, 4))
    z[1, 0] = math.sqrt(d2)
    models = [
        GaussianMixtureAnomalyScorer(mode=mode, beta=0.0, rho=1.0, delta=1.0, **EXACT)
        for mode in ("paper", "exact")
    ]
    for model in models:
        model.run(block_of(z))
    assert models[0].n_guarded == guarded
    if not guarded:
        least = np.linalg.eigvalsh(np.linalg.inv(models[0].Lam_[0])).min()
        assert least == pytest.approx(0.0125, abs=1e-12)
    C = np.linalg.inv(models[1].Lam_[0])
    assert_allclose(C, 0.5 * np.eye(4) + 0.25 * np.outer(z[1], z[1]), atol=1e-12)


# acceptance 4
@pytest.mark.jit
def test_exact_mode_stays_definite_in_100_000_random_updates() -> None:
    rng = np.random.default_rng(4)
    Z = rng.normal(size=(100_000, 4)) * rng.choice([0.1, 1.0, 10.0], (100_000, 1))
    model = GaussianMixtureAnomalyScorer(delta=1.0, k_max=3, **EXACT)
    model.run(block_of(Z))
    assert model.n_repaired == 0
    for L in model.Lam_:
        assert np.linalg.eigvalsh(L).min() > 0


# acceptance 5
@pytest.mark.jit
@pytest.mark.parametrize("seed", range(8))
def test_recall_equals_the_covariance_formulas(seed: int) -> None:
    """For random splits of six coordinates, with one state for all directions."""
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6)) + 4.0 * rng.integers(0, 2, (400, 1))
    settings: dict[str, Any] = {"delta": 1.0, "beta": 0.01}
    model, naive = GaussianMixtureRegressor(**EXACT, **settings), Naive(**settings)
    model.run(labelled(Z[:, :5], Z[:, 5]))
    order = [int(np.abs(naive_mu - model.mu_).sum(axis=1).argmin()) for naive_mu in model.mu_]
    naive.mu, naive.sp = list(model.mu_[order]), list(model.components_[jit.SP][order])
    naive.C = [np.linalg.inv(L) for L in model.Lam_]
    for _ in range(10):
        z = Z[rng.integers(400)].copy()
        hidden = rng.permutation(6)[: rng.integers(1, 6)]
        z[hidden] = np.nan
        mean, cov = naive.recall(z)
        filled, variance = model.recall(z[None, :5], z[None, 5:])
        missing = np.isnan(z)
        assert_allclose(filled[0, missing], mean, rtol=1e-10, atol=1e-10)
        assert_allclose(variance[0, missing], np.diag(cov), rtol=1e-10, atol=1e-10)
        assert (filled[0, ~missing] == z[~missing]).all()
        assert not variance[0, ~missing].any()


# acceptance 6
@pytest.mark.parametrize("seed", range(3))
def test_permuted_and_rescaled_coordinates_give_the_same_model(seed: int) -> None:
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5))
    order, scale = rng.permutation(5), 10.0 ** rng.integers(-3, 4, 5)
    shift = scale * rng.normal(size=5)
    models = [GaussianMixtureImputer(delta=1.0) for _ in range(2)]
    gaps = Z[200:].copy()
    gaps[rng.random(gaps.shape) < 0.4] = np.nan
    out = []
    for model, a, b, perm in zip(
        models, (np.ones(5), scale), (np.zeros(5), shift), (np.arange(5), order), strict=True
    ):
        model.run(block_of((Z[:200] * a + b)[:, perm]))
        filled = model.run(block_of((gaps * a + b)[:, perm], mode=1))["X"]
        out.append((filled - b[perm]) / a[perm])
    assert_allclose(models[1].weights_, models[0].weights_, rtol=1e-9)
    assert_allclose(out[1], out[0][:, order], rtol=1e-9, atol=1e-9)


# acceptance 7
@pytest.mark.jit
def test_one_component_is_ridge_regression() -> None:
    rng = np.random.default_rng(7)
    X = rng.normal(size=(600, 4)) + 2.0
    y = X @ rng.normal(size=4) + rng.normal(size=600)
    model = GaussianMixtureRegressor(beta=0.0, rho=1.0, delta=0.5, **EXACT)
    model.run(labelled(X, y))
    mean = X.mean(axis=0)
    w = np.linalg.solve((X - mean).T @ (X - mean) + 0.25 * np.eye(4), (X - mean).T @ (y - y.mean()))
    new = rng.normal(size=(20, 4))
    out = model.run(block_of(new, mode=1))["prediction"]
    assert model.n_components_ == 1
    assert_allclose(out, y.mean() + (new - mean) @ w, rtol=1e-8, atol=1e-8)


# acceptance 8
@pytest.mark.jit
@pytest.mark.parametrize("beta", [0.01, 0.1])
def test_the_gate_opens_with_probability_beta(beta: float) -> None:
    """A single component, that has converged, counts what it would have made a component of."""
    rng = np.random.default_rng(8)
    Z = rng.normal(size=(15_000, 3)) @ rng.normal(size=(3, 3))
    model = GaussianMixtureAnomalyScorer(beta=beta, rho=1.0, delta=1.0, k_max=1, **EXACT)
    model.run(block_of(Z[:10_000]))
    before = model.n_forced
    model.run(block_of(Z[10_000:]))
    opened = model.n_forced - before
    assert abs(opened - 5000 * beta) < 4.0 * math.sqrt(5000 * beta * (1.0 - beta))


@pytest.mark.jit
@pytest.mark.parametrize("tail", [1e-6, 0.1, 0.5, 0.99])
def test_the_table_of_the_gate_equals_scipy(tail: float) -> None:
    table = np.empty(601)
    jit.chi2_quantiles(tail, table)
    assert_allclose(table[1:], chi2.isf(tail, np.arange(1, 601)), rtol=1e-10)


def test_missing_features_are_recalled_from_features_and_target_before_learning() -> None:
    rng = np.random.default_rng(9)
    X = rng.normal(size=(120, 3))
    y = X.sum(axis=1)
    model, naive = GaussianMixtureRegressor(delta=1.0, **EXACT), Naive()
    X[rng.random(X.shape) < 0.3] = np.nan
    X[0] = 0.5
    X[np.isnan(X).all(axis=1), 0] = 1.0
    for t in range(120):
        out = model.run(labelled(X[t : t + 1], y[t : t + 1]))
        if t:
            assert_allclose(out["prediction"], naive.recall(np.append(X[t], np.nan))[0][-1:], 1e-7)
        naive.learn(np.append(X[t], y[t]))
    assert_alike(model, naive, 1e-8)
    assert model.n_imputed == np.isnan(X).sum()


def test_the_anomaly_score_is_minus_the_log_density() -> None:
    rng = np.random.default_rng(10)
    Z = rng.normal(size=(80, 3))
    model, naive = GaussianMixtureAnomalyScorer(delta=1.0, **EXACT), Naive()
    for z in Z:
        score = model.run(block_of(z[None, :]))["score"][0]
        if naive.mu:
            p = np.array(naive.sp) / sum(naive.sp)
            density = [
                multivariate_normal.pdf(z, m, C) for m, C in zip(naive.mu, naive.C, strict=True)
            ]
            assert score == pytest.approx(-math.log(p @ density), rel=1e-8)
        naive.learn(z)


def test_classes_are_recalled_from_their_columns_but_the_first() -> None:
    """Shares by the naive recall; three classes, so two columns, opened when they first came."""
    rng = np.random.default_rng(11)
    X, y = rng.normal(size=(90, 2)), rng.integers(0, 3, 90)
    y[:3] = [0, 1, 2]
    model = GaussianMixtureClassifier(std=1.0, eps=0.0, probabilities="clipped", beta=0.0)
    model.run(labelled(X, y, task="classification"))
    naive = Naive(beta=0.0)
    naive.mu, naive.sp = list(model.mu_), list(model.components_[jit.SP])
    naive.C = [np.linalg.inv(L) for L in model.Lam_]
    new = rng.normal(size=(10, 2))
    out = model.run(block_of(new, mode=1, task="classification"))
    for x, p, k in zip(new, out["proba"], out["prediction"], strict=True):
        share, _ = naive.recall(np.append(x, [np.nan, np.nan]))
        shares = np.clip([1.0 - share.sum(), *share], 0.0, 1.0)
        assert_allclose(p, shares / shares.sum(), rtol=1e-8, atol=1e-9)
        assert k == np.argmax([1.0 - share.sum(), *share])
