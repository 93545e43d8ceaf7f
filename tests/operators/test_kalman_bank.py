"""Banks of Kalman heads: the heads are Kalman heads, the mixture is redone in numpy from them."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8, Block, Features, Vocabulary
from streamlearn.operators import (
    KalmanBankClassifier,
    KalmanBankRegressor,
    KalmanClassifier,
    KalmanRegressor,
)

DELTAS = [0.0, 1e-3, 0.05]


def rows(X: F8, y: F8, mode: Any = 7, weight: Any = 1.0, K: int | None = None) -> Block:
    n = X.shape[0]
    modes = np.broadcast_to(np.asarray(mode, dtype=np.uint8), n).copy()
    weights = np.broadcast_to(np.asarray(weight, float), n).copy()
    labels = None if K is None else Vocabulary(range(K))
    return Block(X, y, weights, modes, Features([f"x{i}" for i in range(X.shape[1])]), labels)


def hard_stream(seed: int, n: int = 60) -> Block:
    """All modes, missing and infinite values, weights, labels that are no class, late classes."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    X[rng.random((n, 3)) < 0.2] = np.nan
    X[rng.random((n, 3)) < 0.02] = np.inf
    y = rng.choice([0.0, 1.0, np.nan, np.inf, 0.5], n, p=[0.4, 0.4, 0.1, 0.05, 0.05])
    y[n // 2 :: 5] = 4.0
    return rows(X, y, rng.integers(0, 8, n), rng.choice([0.0, 0.5, 1.0, 2.0], n))


def padded(p: F8, K: int) -> F8:
    return np.concatenate([p, np.zeros(K - p.shape[0])])


def mixed(logw: F8) -> F8:
    w = np.exp(logw - logw.max())
    return np.asarray(w / w.sum())


def test_the_mixture_is_that_of_heads_that_walk_alone() -> None:
    """Every row: probabilities, weights and state of the bank, from heads with fixed drift."""
    rng = np.random.default_rng(0)
    n, K = 120, 3
    X = rng.normal(size=(n, 2))
    y = np.where(X[:, 0] > 0, 1.0, 0.0)
    y[60:] = 1.0 - y[60:]
    y[::9], y[5::17] = 2.0, np.nan
    weight = rng.choice([0.5, 1.0, 2.0], n)
    bank = KalmanBankClassifier(deltas=DELTAS, discount=0.9, balance=True)
    heads = [KalmanClassifier(delta0=d, lr_delta=0.0, balance=True) for d in DELTAS]
    logw, counts = np.zeros(3), np.zeros(K)
    for t in range(n):
        known = bool(counts.all())
        one = rows(X[t : t + 1], y[t : t + 1], weight=weight[t], K=K)
        said = np.array([padded(head.run(one)["proba"][0], K) for head in heads])
        out = bank.run(one)
        assert_allclose(padded(out["proba"][0], K), mixed(logw) @ said, rtol=1e-12, atol=1e-15)
        if counts.any():
            assert out["prediction"][0] == np.argmax(mixed(logw) @ said)
        if not np.isnan(y[t]):
            c = int(y[t])
            counts[c] += 1
            factor = weight[t] * counts.sum() / (np.count_nonzero(counts) * counts[c])
            told = np.log(said[:, c]) if known else np.zeros(3)
            logw = 0.9 * logw + np.maximum(factor * (told - told.max()), -50.0)
        if not known:  # of a class that comes, the heads know a mean of 0 first
            logw = bank.log_weights_.copy()
        assert_allclose(bank.log_weights_, logw, rtol=1e-9, atol=1e-12)
        for j, head in enumerate(heads):
            assert_array_equal(bank.means_[j], head.means_)
            assert_array_equal(bank.covariance_[j], head.covariance_)
    assert np.ptp(bank.log_weights_) > 0.1


def test_the_mixture_of_targets_has_the_moments_of_its_parts() -> None:
    """Mean and variance of a mixture of Gaussians, and weights by their densities."""
    rng = np.random.default_rng(1)
    n = 100
    X, Y = rng.normal(size=(n, 2)), rng.normal(size=(n, 2)) * [1.0, 30.0]
    Y[:, 0] += 3.0 * X[:, 0] * np.where(np.arange(n) < 50, 1, -1)
    Y[7] = np.nan
    bank = KalmanBankRegressor(deltas=DELTAS, discount=0.8)
    heads = [KalmanRegressor(delta0=d, lr_delta=0.0) for d in DELTAS]
    logw = np.zeros(3)
    for t in range(n):
        one = rows(X[t : t + 1], Y[t : t + 1])
        parts = [head.run(one) for head in heads]
        mean = np.array([p["prediction"][0] for p in parts])
        variance = np.array([p["variance"][0] for p in parts])
        out, w = bank.run(one), mixed(logw)
        assert_allclose(out["prediction"][0], w @ mean, rtol=1e-10)
        second = w @ (variance + mean**2) - (w @ mean) ** 2
        assert_allclose(out["variance"][0], second, rtol=1e-8)
        if not np.isnan(Y[t]).any():
            told = -0.5 * (np.log(variance) + (Y[t] - mean) ** 2 / variance).sum(axis=1)
            logw = 0.8 * logw + np.maximum(told - told.max(), -50.0)
        assert_allclose(bank.log_weights_, logw, rtol=1e-8, atol=1e-12)


def test_a_bank_of_one_is_a_head() -> None:
    stream = hard_stream(3)
    bank = KalmanBankClassifier(deltas=[0.01], random_features=4)
    head = KalmanClassifier(delta0=0.01, lr_delta=0.0, random_features=4)
    assert_array_equal(bank.run(stream)["proba"], head.run(stream)["proba"])
    assert bank.n_rejected == head.n_rejected
    assert (bank.gap_, bank.n_samples_) == (head.gap_, head.n_samples_)
    bank.inflate(4.0)
    head.inflate(4.0)
    assert_array_equal(bank.covariance_[0], head.covariance_)


@pytest.mark.jit
@given(seed=st.integers(0, 3), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_any_cut_gives_the_same_bits(seed: int, cuts: list[int]) -> None:
    whole, parts = KalmanBankClassifier(deltas=DELTAS), KalmanBankClassifier(deltas=DELTAS)
    stream = hard_stream(seed)
    expected = whole.run(stream)
    K = expected["proba"].shape[1]
    for a, b in itertools.pairwise([0, *sorted(cuts), stream.n]):
        out = parts.run(stream.rows(a, b))
        assert_array_equal(out["prediction"], expected["prediction"][a:b])
        assert_array_equal([padded(p, K) for p in out["proba"]], list(expected["proba"][a:b]))
    one, other = whole.state(), parts.state()
    for name, array in one.arrays.items():
        assert_array_equal(array, other.arrays[name])


@pytest.mark.jit
def test_the_bank_leans_on_the_memory_that_the_stream_wants() -> None:
    """A concept that stands wants the longest memory, one that turns every 50 rows a short one."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(6000, 3))
    y = X[:, 0] + 0.5 * rng.normal(size=6000) > 0
    turned = y ^ (np.arange(6000) // 50 % 2 == 1)
    short = {}
    for name, target in (("stands", y), ("turns", turned)):
        model = KalmanBankClassifier(discount=0.99)
        model.run(rows(X, target.astype(float), K=2))
        short[name] = model.weights_ @ np.array(model.deltas)
    assert short["stands"] < 2e-4
    assert short["turns"] > 2e-3


@pytest.mark.jit
def test_an_outlier_loses_no_member_for_good() -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(400, 1))
    y = X[:, 0] + 0.1 * rng.normal(size=400)
    y[200] = 1e250
    model = KalmanBankRegressor()
    out = model.run(rows(X, y))
    assert np.isfinite(out["prediction"]).all()
    assert np.isfinite(model.log_weights_).all()
    assert model.log_weights_.min() >= -50.0 / (1.0 - model.discount)


@pytest.mark.jit
@pytest.mark.parametrize("blocks", [4, pytest.param(400, marks=pytest.mark.soak)])
def test_hostile_features_leave_every_covariance_definite(blocks: int) -> None:
    """Acceptance 6: collinear, constant, scales 1e-6 to 1e6; symmetric, 0 < eig <= sigma_w2."""
    rng = np.random.default_rng(8)
    model = KalmanBankClassifier(sigma_w2=2.0)
    for _ in range(blocks):
        X = rng.normal(size=(25_000, 5)) @ np.diag([1, 1e-6, 1e6, 1, 1])
        X[:, 3], X[:, 4] = X[:, 0], 7.0
        model.run(rows(X, rng.integers(0, 3, 25_000).astype(float), K=3))
        for A in model.covariance_:
            assert_array_equal(A, A.T)
            values = np.linalg.eigvalsh(A)
            assert values.min() > 0.0
            assert values.max() <= 2.0 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deltas": 0.1}, r"^KalmanBankClassifier: deltas must be a list of numbers, got 0\.1$"),
        ({"deltas": []}, r"^KalmanBankClassifier: deltas must hold at least one, got \[\]$"),
        ({"deltas": [0.0, -1.0]}, r"^KalmanBankClassifier: deltas\[1\] must be >= 0, got -1\.0$"),
        ({"discount": 1.5}, r"^KalmanBankClassifier: discount must be in \[0, 1\], got 1\.5$"),
    ],
)
def test_a_wrong_parameter_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KalmanBankClassifier(**settings)
