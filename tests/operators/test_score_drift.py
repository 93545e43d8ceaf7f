"""Drift of novelties and of log densities: what each is made for, and what leaves it calm."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from streamlearn.block import F8, LABELLED, OBSERVE, PREDICT, Block, Features
from streamlearn.jit.stream_svd import svd_walk
from streamlearn.operators import (
    DensityDrift,
    FeatureDrift,
    GaussianMixtureAnomalyScorer,
    NoveltyDrift,
)

QUICK: dict[str, Any] = {
    "average_run_length": None, "train": 300, "reference": 300, "window": 60, "every": 20,
}  # fmt: skip


def block(X: F8, names: str = "abcdefgh") -> Block:
    """Rows of numbers."""
    n, d = X.shape
    modes = np.full(n, LABELLED, np.uint8)
    return Block(X, np.zeros(n), np.ones(n), modes, Features(tuple(names[:d])))


def bound(rng: np.random.Generator, n: int) -> F8:
    """Four features that two numbers make."""
    U = rng.normal(size=(n, 2))
    made: F8 = U @ np.array([[1.0, 0.0, 1.0, 0.5], [0.0, 1.0, -1.0, 0.5]])
    return made + 0.05 * rng.normal(size=(n, 4))


@pytest.mark.jit
@pytest.mark.parametrize("seed", range(3))
def test_a_relation_that_breaks_is_novel_though_no_feature_moves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = bound(rng, 1_200)
    X[1_000:, 2] = rng.permutation(X[1_000:, 2])
    out = NoveltyDrift(components=2, **QUICK).run(block(X))
    (at,) = np.flatnonzero(out["alarm"])
    assert 1_000 <= at < 1_060
    moved = out["why"][at][0]["features"]
    assert moved[0]["to"] > 3.0 * moved[0]["from"]
    calm = FeatureDrift(**{k: v for k, v in QUICK.items() if k != "train"}, test="ks")
    assert not calm.run(block(X))["alarm"].any()


def test_novelties_are_those_of_a_dense_decomposition() -> None:
    rng = np.random.default_rng(0)
    X = bound(rng, 400)
    watch = NoveltyDrift(components=2, **QUICK)
    watch.run(block(X))
    Z = np.clip((X - watch.moments_[0]) / watch.moments_[1], -8.0, 8.0)
    _, _, Vt = np.linalg.svd(Z[:300], full_matrices=False)
    rest = Z[300:] - Z[300:] @ Vt[:2].T @ Vt[:2]
    expected = np.linalg.norm(rest, axis=1) / np.linalg.norm(Z[300:], axis=1)
    assert_allclose(watch._test.pool_[:100, 0], expected, rtol=0.02)


@pytest.mark.jit
@pytest.mark.parametrize("seed", range(3))
def test_rows_between_the_regions_are_unlikely(seed: int) -> None:
    """Two clusters, then rows in the middle of both: no row is far from the mean."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(1_200, 2)) * 0.3 + np.where(rng.random((1_200, 1)) < 0.5, 3.0, -3.0)
    X[1_000:] = rng.normal(size=(200, 2)) * 0.3
    out = DensityDrift(**QUICK).run(block(X))
    (at,) = np.flatnonzero(out["alarm"])
    assert 1_000 <= at < 1_060
    score = out["why"][at][0]["score"]
    assert score["to"] > score["from"]


@pytest.mark.jit
def test_scores_are_those_of_the_mixture_after_its_last_lesson() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    watch = DensityDrift(**QUICK)
    watch.run(block(X))
    Z = np.clip((X - watch.moments_[0]) / watch.moments_[1], -8.0, 8.0)
    scorer = GaussianMixtureAnomalyScorer(k_max=4, warm_start=100, rho=1.0, sp_min=3.0)
    scorer.run(block(Z[:300]))
    frozen = block(Z[300:]).replace(mode=np.ones(100, np.uint8))
    assert_allclose(watch._test.pool_[:100, 0], scorer.run(frozen)["score"])


@pytest.mark.jit
@pytest.mark.parametrize("kind", [NoveltyDrift, DensityDrift])
@pytest.mark.parametrize("value", [0.0, 1e300, math.nan, math.inf])
def test_bad_values_are_calm(kind: Any, value: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 2))
    X[:, 1] = value
    watch = kind(**QUICK)
    assert not watch.run(block(X))["alarm"].any()
    for array in watch.state().arrays.values():
        assert array.dtype.kind != "f" or not np.isinf(array[np.abs(array) < 1e299]).any()


@pytest.mark.jit
@pytest.mark.parametrize("kind", [NoveltyDrift, DensityDrift])
def test_a_sliding_one_begins_anew_after_an_alarm(kind: Any) -> None:
    rng = np.random.default_rng(0)
    X = bound(rng, 2_500) * np.where(np.arange(2_500) < 1_000, 1.0, 4.0)[:, None]
    X[1_000:, 2] *= -1.0
    watch = kind(**QUICK, sliding=True)
    alarm = watch.run(block(X))["alarm"]
    (at,) = np.flatnonzero(alarm)
    assert 1_000 <= at < 1_060
    assert watch.standing["statistic"] < watch.standing["limit"]


@pytest.mark.jit
@pytest.mark.parametrize("cut", [1700, 211])
def test_a_model_is_taught_on_by_the_last_rows_of_its_own_count(cut: int) -> None:
    """Rows 700 to 1,000, whatever the blocks; then the reference is that of the new scores."""
    rng = np.random.default_rng(4)
    X = bound(rng, 1_700)
    X[400:, 3] *= -1.0
    watches = NoveltyDrift(2, **QUICK, refresh=700), DensityDrift(**QUICK, refresh=700)
    for watch in watches:
        for start in range(0, 1_700, cut):
            watch.run(block(X[start : start + cut]))
        assert (watch.n_rows, watch.n_since_) == (1_400, 0)
    novelty, density = watches
    Z = np.clip((X - novelty.moments_[0]) / novelty.moments_[1], -8.0, 8.0)
    V, sv = np.zeros((4, 2)), np.zeros(2)
    svd_walk(Z[:300], V, sv, 1.0)
    svd_walk(Z[700:1000], V, sv, 0.5 ** (1 / 300))
    svd_walk(Z[1400:], V, sv, 0.5 ** (1 / 300))
    assert_allclose(novelty.V_, V, atol=1e-12)
    scorer = GaussianMixtureAnomalyScorer(beta=0.1, k_max=4, warm_start=100, rho=1.0, sp_min=3.0)
    for rows in (slice(0, 300), slice(700, 1000), slice(1400, 1700)):
        scorer.run(density._rows(Z[rows], OBSERVE))
    assert_allclose(
        density._score(Z[:50]), scorer.run(density._rows(Z[:50], PREDICT))["score"], rtol=1e-9
    )


def test_what_a_model_was_taught_on_is_drift_no_longer() -> None:
    rng = np.random.default_rng(5)
    X = bound(rng, 3_000)
    X[900:, 3] *= -1.0
    X[2_600:, 2] *= -1.0
    watch = NoveltyDrift(2, **QUICK, refresh=1_200)
    first, second = np.flatnonzero(watch.run(block(X))["alarm"])
    assert 900 <= first < 960
    assert 2_600 <= second < 2_660


def test_a_refresh_that_leaves_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^NoveltyDrift: refresh must be 0 or >= .* = 660, or no"):
        NoveltyDrift(**QUICK, refresh=659)


@pytest.mark.parametrize("kind", [NoveltyDrift, DensityDrift])
def test_a_message_names_its_owner(kind: Any) -> None:
    rule = "reference must be a whole number >= 200, got 3"
    with pytest.raises(ValueError, match=f"^{kind.__name__}: {rule}$"):
        kind(reference=3)
