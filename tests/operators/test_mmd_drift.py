"""MMD drift against the kernel's definition, and against drift that no single feature shows."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from streamlearn.block import F8, LABELLED, Block, Features
from streamlearn.operators import MMDDrift

QUICK: dict[str, Any] = {
    "average_run_length": None, "reference": 200, "window": 40, "every": 20,
}  # fmt: skip


def block(X: F8, names: str = "abcdefgh") -> Block:
    """Rows of numbers."""
    n, d = X.shape
    modes = np.full(n, LABELLED, np.uint8)
    return Block(X, np.zeros(n), np.ones(n), modes, Features(tuple(names[:d])))


def kernel_mmd(X: F8, Y: F8) -> float:
    """The squared discrepancy from its definition, for exp(-|x - y|^2 / (2 d))."""

    def mean(A: F8, B: F8) -> float:
        gaps = ((A[:, None] - B[None]) ** 2).sum(axis=2)
        return float(np.exp(-0.5 * gaps / A.shape[1]).mean())

    return mean(X, X) - 2.0 * mean(X, Y) + mean(Y, Y)


@pytest.mark.parametrize("seed", range(3))
def test_the_statistic_comes_near_the_kernels(seed: int) -> None:
    """Random features leave an error of 1 / sqrt(components) of the kernel's value."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(240, 3))
    X[200:] *= 3.0
    watch = MMDDrift(**QUICK, components=4000, seed=seed)
    watch.run(block(X))
    low, middle, high = np.sort(X[:200], axis=0)[[20, 100, 179]]
    Z = np.clip((X - middle) / ((high - low) / 2.563), -8.0, 8.0)
    stands_for = 40 * 200 / 240
    exact = stands_for * kernel_mmd(Z[200:], Z[:200])
    assert watch.standing["statistic"] == pytest.approx(exact, rel=0.1)


def calibrated(X: F8, seed: int) -> MMDDrift:
    """A watch after its reference."""
    watch = MMDDrift(
        reference=2_000, window=20, every=10, average_run_length=1_000, components=16, seed=seed
    )
    watch.run(block(X))
    return watch


@pytest.mark.jit
def test_a_correlation_that_turns_is_found_though_no_feature_moves() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2_400, 2))
    X[:, 1] = 0.9 * X[:, 0] + math.sqrt(1.0 - 0.81) * X[:, 1]
    X[2_300:, 1] *= -1.0
    watch = calibrated(X[:2_000], 0)
    alarm = watch.run(block(X[2_000:]))["alarm"]
    assert 300 <= int(np.argmax(alarm[300:])) + 300 < 340
    assert alarm[300:].any()


@pytest.mark.jit
def test_false_alarms_come_at_the_rate_asked_for() -> None:
    """A quick look, 1 in 1,000 rows asked for; rows that depend on each other in their features."""
    rng = np.random.default_rng(1)
    alarms = at_risk = 0
    for s in range(30):
        X = rng.normal(size=(3_500, 3)) + rng.exponential(size=(3_500, 1))
        watch = calibrated(X[:2_000], s)
        alarm = watch.run(block(X[2_000:]))["alarm"]
        alarms += bool(alarm.any())
        at_risk += (int(np.argmax(alarm)) if alarm.any() else 1_500) - 10
    low, high = stats.poisson.interval(0.9999, at_risk / 1_000)
    assert 0.75 * low <= alarms <= 1.25 * high


def test_the_features_that_moved_stand_first() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    X[300:, 2] += 8.0
    X[300:, 0] -= 30.0
    out = MMDDrift(**QUICK).run(block(X))
    (at,) = np.flatnonzero(out["alarm"])
    (found,) = out["why"][at]
    first, second = found["features"][:2]
    assert (int(at), first["name"], second["name"]) == (339, "a", "c")
    assert second["to"] > second["from"]


@pytest.mark.parametrize("value", [0.0, 7.0, 1e300, math.nan, -math.inf])
def test_bad_values_are_calm_and_what_follows_is_found(value: float) -> None:
    X = np.full((400, 2), value)
    X[:, 1] = 1.0
    X[320:] = 3.0
    watch = MMDDrift(**QUICK)
    alarm = watch.run(block(X))["alarm"]
    assert alarm[:320].sum() == 0
    assert alarm.sum() == 1
    assert all(np.isfinite(array[~np.isnan(array)]).all() for array in (watch.moments_,))


def test_rows_without_features_are_calm() -> None:
    watch = MMDDrift(**QUICK, sliding=True)
    assert watch.run(block(np.zeros((400, 0))))["alarm"].sum() == 0


def test_a_sliding_reference_is_that_of_the_new_rows() -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(900, 1))
    X[300:] += 9.0
    X[700:] -= 9.0
    alarms = np.flatnonzero(MMDDrift(**QUICK, sliding=True).run(block(X))["alarm"])
    assert [int(at) // 100 for at in alarms] == [3, 7]


def test_bad_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="window must be a multiple of every=50, got 120"):
        MMDDrift(window=120)
    with pytest.warns(UserWarning, match="MMDDrift: a reference of 100 rows has fewer"):
        MMDDrift(reference=100, window=20, every=10)
