"""The Gaussian mixture where D is large: factors that wait, rows multiplied ahead, same answers."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8, PREDICT, Block
from streamlearn.jit.delayed import PENDING
from streamlearn.jit.mixture import LOGDET
from streamlearn.jit.mixture_delayed import ROOM, SINCE
from streamlearn.operators import (
    GaussianMixtureAnomalyScorer,
    GaussianMixtureClassifier,
    GaussianMixtureImputer,
    GaussianMixtureRegressor,
)
from streamlearn.operators.mixture import _Mixture
from streamlearn.testing import (
    Plan,
    Stream,
    block_of,
    check_block_law,
    check_reset,
    check_resume,
    check_snapshot,
    labelled,
)
from tests.operators.test_mixture import hostile, sound

pytestmark = pytest.mark.jit

KINDS: list[tuple[type[_Mixture], dict[str, Any]]] = [
    (GaussianMixtureClassifier, {"warm_start": 20}),
    (GaussianMixtureClassifier, {"components": "by_class", "warm_start": 20, "balance": True}),
    (GaussianMixtureRegressor, {"warm_start": 20, "rho": 0.99}),
    (GaussianMixtureImputer, {"warm_start": 10, "k_max": 3, "rho": 0.9, "v_min": 5.0}),
    (GaussianMixtureAnomalyScorer, {"std": 1.0, "delta": 1.0, "beta": 0.0}),
]
EACH = pytest.mark.parametrize(("kind", "given"), KINDS)


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four coordinates are large."""
    monkeypatch.setattr(_Mixture, "_large", 4)


def events(n: int, d: int, kind: type[_Mixture]) -> Block:
    """Three clouds, some values missing; classes or a target."""
    rng = np.random.default_rng(d)
    cloud = rng.integers(0, 3, n)
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / d + 2.0 * rng.normal(size=(3, d))[cloud]
    y: F8 = (
        cloud.astype(np.float64) if kind is GaussianMixtureClassifier else X @ rng.normal(size=d)
    )
    X[rng.random(X.shape) < 0.01] = np.nan
    if kind is GaussianMixtureClassifier:
        return labelled(X, cloud, task="classification")
    return labelled(X, y)


def in_cuts(model: _Mixture, block: Block, cuts: list[int]) -> dict[str, F8]:
    """What the model answers when the block comes in pieces."""
    edges = [0, *np.cumsum(cuts).tolist(), block.n]
    found = [model.run(block.rows(a, b)) for a, b in pairwise(edges) if a < b]
    return {name: np.concatenate([out[name] for out in found]) for name in found[-1]}


@EACH
def test_it_equals_the_mixture_that_updates_at_once(
    kind: Any, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row by row the same answers, and the same mixture in the end."""
    block = events(300, 13, kind)
    plain = kind(**given)
    expected = plain.run(block)
    monkeypatch.setattr(_Mixture, "_large", 4)
    model = kind(**given)
    found = model.run(block)
    for name, column in expected.items():
        assert_allclose(found[name], column, rtol=1e-7, atol=1e-9, err_msg=name)
    assert model._is_far
    assert not plain._is_far
    assert_allclose(model.mu_, plain.mu_, rtol=1e-8, atol=1e-9)
    assert_allclose(model.components_, plain.components_, rtol=1e-7, atol=1e-9)
    size = np.abs(plain.Lam_).max()
    assert_allclose(model.Lam_, plain.Lam_, rtol=1e-7, atol=1e-9 * size)
    recalled, by_plain = model.recall(block.X[:20])[0], plain.recall(block.X[:20])[0]
    assert_allclose(recalled, by_plain, rtol=1e-7, atol=1e-9)


def batch(Z: F8) -> tuple[F8, F8]:
    """Mean and covariance of all rows, with one more of variance 1 at the first row: section 6."""
    mean = Z.mean(axis=0)
    return mean, ((Z - mean).T @ (Z - mean) + np.eye(Z.shape[1])) / len(Z)


@pytest.mark.parametrize("n", [2, ROOM - 1, ROOM, 2 * ROOM + 5, 3000])
def test_one_component_is_the_batch_covariance(n: int) -> None:
    """At the width from which it is so in earnest, with factors that wait and without."""
    D = _Mixture._large + 3
    Z = np.random.default_rng(n).normal(size=(n, D)) * np.linspace(0.5, 2.0, D)
    model = GaussianMixtureAnomalyScorer(beta=0.0, std=1.0, delta=1.0, eps=0.0, rho=1.0)
    model.run(block_of(Z))
    mean, C = batch(Z)
    assert model._is_far
    assert_allclose(model.mu_[0], mean, rtol=1e-10, atol=1e-12)
    assert_allclose(model.Lam_[0] @ C, np.eye(D), atol=1e-10)
    assert_array_equal(model.Lam_[0], model.Lam_[0].T)
    assert_allclose(model.components_[LOGDET, 0], np.linalg.slogdet(C)[1], rtol=1e-10)


def test_only_the_count_of_a_component_folds(low: None) -> None:
    """Whatever the blocks, and whoever asks or copies meanwhile."""
    Z = np.random.default_rng(3).normal(size=(60, 5))
    model = GaussianMixtureAnomalyScorer(beta=0.0, std=1.0, delta=1.0, eps=0.0, rho=1.0)
    waiting = []
    for t in range(60):
        model.run(block_of(Z[t : t + 1]))
        model.run(block_of(Z[:7], mode=1))
        model.state()
        waiting.append(model.waiting_[0, PENDING])
    assert waiting == [0.0, *([*range(1, ROOM)] * 3)[:59]]


def plans(kind: type[_Mixture]) -> Iterator[Stream]:
    """Features that come late, so that D becomes large in mid-stream; late labels, gaps."""
    task = "classification" if kind is GaussianMixtureClassifier else "regression"
    narrow, wide = ("normal", "missing"), ("offset", "normal", "normal")
    yield Stream.from_plan(Plan(task, (40, 80), (narrow, wide), "mixed", seed=6))
    yield Stream.from_plan(Plan(task, (70, 50), (narrow + wide, narrow), "late", seed=7))


@EACH
def test_the_laws_hold(kind: Any, given: dict[str, Any], low: None) -> None:
    def make() -> _Mixture:
        made: _Mixture = kind(**given)
        return made

    for stream in plans(kind):
        check_block_law(make, stream, [1, 2, 3, 33, 80])
        check_resume(make, stream, 75)
        check_snapshot(make, stream, 12)
    steady = Plan(make().task or "regression", (80,), (("normal",) * 5,), seed=8)
    check_reset(make, Stream.from_plan(steady))


@EACH
def test_rows_ahead_are_answered_to_the_bits_of_each_alone(
    kind: Any, given: dict[str, Any], low: None
) -> None:
    """Blocks of one row, of many, of fewer than are multiplied ahead; in strips and in tiles."""
    block = events(120, 37, kind)
    whole, pieces = kind(**given), kind(**given)
    expected = in_cuts(whole, block, [])
    found = in_cuts(pieces, block, [50, *[1] * 20, 2, 5, 31])
    for name, column in expected.items():
        assert_array_equal(found[name], column, err_msg=name)
    for name, array in whole.state().arrays.items():
        assert_array_equal(pieces.state().arrays[name], array, err_msg=name)


def test_the_health_check_comes_with_a_fold_and_mends(low: None) -> None:
    rng = np.random.default_rng(5)
    model = GaussianMixtureAnomalyScorer(beta=0.0, std=1.0, delta=1.0, rho=0.99)
    model.run(block_of(rng.normal(size=(990, 6))))
    assert model.waiting_[0, SINCE] == 989.0
    model._tiles[0, 0, 2, 2] = -1.0
    model.run(block_of(rng.normal(size=(60, 6))))
    assert model.n_repaired == 1
    assert model.waiting_[0, SINCE] < 60.0
    np.linalg.cholesky(model.Lam_[0])


@pytest.mark.parametrize("rho", [0.995, 1.0])
def test_hostile_input_leaves_the_state_sound(rho: float, low: None) -> None:
    rng = np.random.default_rng(15)
    model = GaussianMixtureRegressor(rho=rho, k_max=20)
    for _ in range(3):
        X = hostile(rng, 5_000)
        out = model.run(labelled(X, X[:, 0] + 2.0 * X[:, 4]))
        assert np.isfinite(out["prediction"]).all()
        assert (out["variance"] >= 0.0).all()
        sound(model)
    assert model._is_far
    assert model.n_repaired == 0


def test_a_state_of_before_goes_on_with_updates_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    block = events(80, 9, GaussianMixtureRegressor)
    old = GaussianMixtureRegressor(warm_start=20)
    old.run(block.rows(0, 50))
    state = old.state()
    monkeypatch.setattr(_Mixture, "_large", 4)
    model = GaussianMixtureRegressor(warm_start=20)
    model.load(state)
    assert model._is_far
    assert_array_equal(model.Lam_, old.Lam_)
    found, expected = model.run(block.rows(50, 80)), old.run(block.rows(50, 80))
    assert_allclose(found["prediction"], expected["prediction"], rtol=1e-9)


def test_targets_and_features_come_to_a_large_mixture_without_components(low: None) -> None:
    """A second target with the first labels, a feature before them: nothing is there to widen."""
    rng = np.random.default_rng(8)
    X, Y = rng.normal(size=(40, 6)), rng.normal(size=(40, 2))
    late, whole = (GaussianMixtureRegressor(warm_start=9) for _ in range(2))
    late.run(block_of(X[:1, :5], mode=PREDICT))
    expected = whole.run(labelled(X, Y))["prediction"]
    assert_array_equal(late.run(labelled(X, Y))["prediction"], expected)
    assert np.isfinite(expected[20:]).all()


def test_the_published_update_is_never_delayed(low: None) -> None:
    model = GaussianMixtureAnomalyScorer(mode="paper", std=1.0)
    model.run(block_of(np.ones((3, 9))))
    assert not model._is_far
