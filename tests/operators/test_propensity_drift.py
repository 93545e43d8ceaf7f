"""Propensity drift against its definition, the analytic log ratio, and slow drift."""

import math
from typing import Any

import numpy as np
import pytest

from streamlearn.block import F8, LABELLED, Block, Features
from streamlearn.jit import counter
from streamlearn.jit.propensity import propensity_walk
from streamlearn.operators import PropensityDrift

QUICK: dict[str, Any] = {"window": 1_000, "patience": 200}


def block(X: F8, names: str = "abcdefgh") -> Block:
    """Rows of numbers."""
    n, d = X.shape
    modes = np.full(n, LABELLED, np.uint8)
    return Block(X, np.zeros(n), np.ones(n), modes, Features(tuple(names[:d])))


def by_definition(X: F8, moments: F8, w: int, seed: int) -> tuple[F8, list[float]]:
    """theta as (4 pairs of terms) and the statistics, from row 8 on, term by term in Python."""
    d = X.shape[1]
    theta, sums, D, said = np.zeros(2 * d + 2), np.zeros(2 * d + 2), 0.0, [0.0] * 8
    key = np.uint64(counter.key_of(seed, "pairs") >> 11)
    for n in range(8, X.shape[0]):
        stored = min(n + 1, w)
        (start,) = counter.bits_at(key, np.array([n], np.uint64))
        words = counter.bits_at(start, np.arange(8, dtype=np.uint64)) >> np.uint64(1)
        ages = (words % np.uint64(stored)).astype(int)
        gains = []
        for one, two in ages.reshape(4, 2):
            z = np.nan_to_num(np.clip((X[n - one] - moments[0]) / moments[1], -8.0, 8.0))
            z = np.append(z, 1.0)
            t1, t2 = -one / w, -two / w
            f = np.stack([z * t1, z * t1**2], 1).ravel() - np.stack([z * t2, z * t2**2], 1).ravel()
            gains.append(math.log(2.0) - math.log(1.0 + math.exp(-float(theta @ f))))
            slope = f / (1.0 + math.exp(float(theta @ f)))
            sums = 0.999 * sums + slope**2
            theta = theta + 0.1 * slope / (np.sqrt(sums) + 1e-8)
        D += (sum(gains) / 4 - D) / 50
        said.append(D)
    return theta.reshape(-1, 2), said


@pytest.mark.jit
@pytest.mark.parametrize("seed", range(2))
def test_steps_and_statistic_are_those_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(300, 2)) + np.arange(300)[:, None] / 100
    X[rng.random(X.shape) < 0.1] = np.nan
    watch = PropensityDrift(window=400, begin=8, patience=50, seed=seed)
    out = watch.run(block(X))
    theta, D = by_definition(X, watch.moments_, 400, seed)
    np.testing.assert_allclose(watch.theta_, theta, rtol=1e-9, atol=1e-12)
    assert watch.standing == {"statistic": pytest.approx(D[-1], rel=1e-9), "limit": 0.02}
    above = np.array(D) > 0.02
    (alarm,) = [n for n in range(50, 300) if above[n - 49 : n + 1].all() and not above[n - 50]]
    assert np.flatnonzero(out["alarm"]).tolist() == [alarm]


def fitted(seed: int) -> F8:
    """theta after 60,000 pairs of 5,000 rows x ~ N(2 tau, 1), terms x tau and tau^2 alone free."""
    H = 5_000
    tau = (np.arange(H) + 1.0 - H) / H
    ring = (np.random.default_rng(seed).normal(size=H) + 2.0 * tau)[:, None]
    theta, sums = np.zeros((2, 2)), np.array([[0.0, np.inf], [np.inf, 0.0]])  # inf: stays as it is
    stand = np.array([H - 1.0, 0.0, 0.0])
    moments = np.array([[0.0], [1.0]])
    sizes, rates = (60_000, 2, 10), (0.1, 0.999, 1.0)
    key = float(seed)
    assert propensity_walk(ring[-1:], ring, moments, theta, sums, stand, key, sizes, rates) == 1
    return theta


@pytest.mark.jit
def test_the_fit_is_the_analytic_log_ratio() -> None:
    """g = 2 x tau - 2 tau^2; one fit is off by 0.1 (standard deviation), their mean by 0.02."""
    thetas = np.array([fitted(seed) for seed in range(20)])
    assert np.all(thetas[:, [0, 1], [1, 0]] == 0.0)
    found = thetas[:, [0, 1], [0, 1]]
    assert found.mean(axis=0) == pytest.approx([2.0, -2.0], abs=0.1)
    assert np.abs(found - [2.0, -2.0]).max() < 0.5


@pytest.mark.jit
def test_without_drift_the_statistic_stays_at_zero() -> None:
    rng = np.random.default_rng(2)
    watch = PropensityDrift()
    for i in range(80):
        assert not watch.run(block(rng.normal(size=(500, 1)) * 9.0 + 50.0))["alarm"].any()
        if i >= 40:
            assert abs(float(watch.stand_[1])) < 0.005


@pytest.mark.jit
def test_slow_drift_is_found_once_and_the_feature_named() -> None:
    """Two spreads a window, after calm; then calm again; then drift of another feature, back."""
    rng = np.random.default_rng(4)
    ramp = np.clip(np.arange(16_000) - 4_000, 0, 3_000) / 500
    X = rng.normal(size=(16_000, 3)) * np.array([1.0, 100.0, 0.01])
    X[:, 1] += 100.0 * ramp
    X[11_000:, 2] -= 0.01 * ramp[4_000:9_000]
    out = PropensityDrift(**QUICK).run(block(X))
    first, second = np.flatnonzero(out["alarm"])
    assert 4_200 < first < 5_500
    assert 11_000 < second < 12_500
    (found,) = out["why"][first]
    assert found["statistic"] > found["limit"] == 0.02
    assert found["features"][0]["name"] == "b"
    assert 0.0 < found["features"][0]["from"] < found["features"][0]["to"]
    (found,) = out["why"][second]
    assert found["features"][0]["name"] == "c"
    assert found["features"][0]["to"] < found["features"][0]["from"]


def test_the_propensity_is_the_same_function_on_another_scale() -> None:
    watch = PropensityDrift(window=50, begin=20, patience=10)
    rng = np.random.default_rng(0)
    watch.run(block(rng.normal(size=(49, 2))))
    watch.theta_[:] = rng.normal(size=(3, 2))

    def log_odds(X: F8, tau: float) -> F8:
        Z = np.column_stack([(X - watch.moments_[0]) / watch.moments_[1], np.ones(len(X))])
        return np.asarray(Z @ watch.theta_ @ np.array([tau, tau * tau]))

    X = rng.normal(size=(9, 2))
    before = log_odds(X, -0.3), watch.moments_
    watch._rescale(3.0 + 5.0 * rng.normal(size=(50, 2)))
    assert np.abs(watch.moments_ - before[1]).min() > 1.0
    np.testing.assert_allclose(log_odds(X, -0.3), before[0], rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 7.0, 1e300, math.nan, -math.inf])
def test_bad_values_are_calm_and_what_follows_is_found(value: float) -> None:
    X = np.random.default_rng(1).normal(size=(9_000, 2))
    X[:3_000, 0] = value
    X[6_000:, 0] += np.arange(3_000) / 300
    watch = PropensityDrift(**QUICK)
    alarms = np.flatnonzero(watch.run(block(X))["alarm"])
    assert not (alarms < 3_000).any()
    assert ((alarms > 6_000) & (alarms < 7_500)).sum() == 1
    for array in (watch.moments_, watch.theta_, watch.sums_, watch.stand_):
        assert np.isfinite(array).all()


def test_a_value_that_goes_far_away_leaves_numbers_finite() -> None:
    X = np.full((3_000, 2), 1e-300)
    X[1_500:] = [1e300, math.inf]
    watch = PropensityDrift(**QUICK)
    out = watch.run(block(X))
    (at,) = np.flatnonzero(out["alarm"])
    told = out["why"][at][0]["features"]
    assert all(math.isfinite(one[key]) for one in told for key in ("statistic", "from", "to"))
    assert all(np.isfinite(a).all() for a in (watch.moments_, watch.theta_, watch.sums_))


def test_a_feature_that_comes_later_is_watched() -> None:
    X = np.random.default_rng(1).normal(size=(6_000, 2))
    X[3_500:, 1] += np.arange(2_500) / 300
    watch = PropensityDrift(**QUICK)
    assert not watch.run(block(X[:1_500, :1]))["alarm"].any()
    out = watch.run(block(X[1_500:]))
    (at,) = np.flatnonzero(out["alarm"])
    assert 2_000 < at < 3_500
    assert out["why"][at][0]["features"][0]["name"] == "b"


def test_bad_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="begin must be at most window=100, got 200"):
        PropensityDrift(window=100)
    with pytest.raises(ValueError, match="limit must be"):
        PropensityDrift(limit=0.0)
