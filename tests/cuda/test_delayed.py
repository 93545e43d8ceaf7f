"""Heads on the device: equal to the CPU's, whatever the cut and whatever happens between."""

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8, Block, Features
from streamlearn.contracts import State
from streamlearn.jit.cuda import _compile
from streamlearn.jit.cuda.delayed import SLOTS, plan
from streamlearn.operators import (
    KalmanClassifier,
    KalmanRegressor,
    LiteRVFLClassifier,
    LiteRVFLRegressor,
)

CLOSE: dict[str, Any] = (
    {"rtol": 1e-12, "atol": 1e-13} if _compile.SIMULATED else {"rtol": 1e-8, "atol": 1e-9}
)


def stream(seed: int, n: int, d: int = 3, numbers: bool = False) -> Block:
    """All modes, gaps, an infinity, weights, rows without a label, a class that comes late."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    X[rng.random((n, d)) < 0.1] = np.nan
    X[n // 2, 0] = np.inf
    y: F8 = rng.integers(0, 2, n).astype(np.float64)
    y[n // 2 + 1 :: 4] = 2.0
    if numbers:
        y = X @ np.ones(d) + rng.normal(size=n)
    y[rng.random(n) < 0.2] = np.nan
    mode = rng.choice([7, 7, 5, 6, 2, 1], n).astype(np.uint8)
    weight: F8 = rng.choice([0.5, 1.0, 2.0], n).astype(np.float64)
    return Block(X, y, weight, mode, Features([f"x{i}" for i in range(d)]))


def widened(block: Block) -> Block:
    """The block with a feature more, of the values of the first."""
    X, features = np.column_stack([block.X, block.X[:, :1]]), block.features
    return Block(X, block.y, block.weight, block.mode, features.plus(["new"], ["number"]))


def agree(host: Any, there: Any, said: dict[str, F8], same: dict[str, F8]) -> None:
    for name, column in said.items():
        assert_allclose(same[name], column, **CLOSE, err_msg=name)
    assert_allclose(there.means_, host.means_, **CLOSE)
    assert_allclose(there.covariance_, host.covariance_, **CLOSE)
    assert_array_equal(there.covariance_, there.covariance_.T)
    assert_allclose(there.outputs_, host.outputs_, **CLOSE)
    assert_allclose(there.scalars_, host.scalars_, **CLOSE)


@pytest.mark.parametrize("kind", [KalmanClassifier, KalmanRegressor])
def test_the_device_says_what_the_cpu_says(kind: Any) -> None:
    """Through a fold and more, with drift, from one event a block to many."""
    host, there = (kind(delta0=0.01, random_features=2, device=at) for at in ("cpu", "cuda"))
    n = 4 * SLOTS
    block = stream(0, n, numbers=kind is KalmanRegressor)
    for start, stop in ((0, 1), (1, 2), (2, n // 2 + 1), (n // 2 + 1, n)):
        part = block.rows(start, stop)
        agree(host, there, host.run(part), there.run(part))
    assert host.n_samples_ > SLOTS


@pytest.mark.parametrize("kind", [LiteRVFLClassifier, LiteRVFLRegressor])
def test_a_ridge_that_stays_costs_a_lesson_of_its_own(kind: Any) -> None:
    """Recursive least squares: through the warm-up, then folds with leaks."""
    settings = {"hidden": 1, "warm_up": 3, "memory": 10.0, "lr_alpha": 0.1}
    if kind is LiteRVFLRegressor:
        del settings["lr_alpha"]
    host, there = (kind(**settings, device=at) for at in ("cpu", "cuda"))
    n = 4 * SLOTS - 2
    block = stream(2, n, d=2, numbers=kind is LiteRVFLRegressor)
    for start, stop in ((0, n - 5), (n - 5, n - 4), (n - 4, n)):
        part = block.rows(start, stop)
        said, same = host.run(part), there.run(part)
        for name, column in said.items():
            assert_allclose(same[name], column, **CLOSE, err_msg=name)
    assert host.n_samples_ > SLOTS
    assert_allclose(there.weights_, host.weights_, **CLOSE)
    assert_allclose(there.inverse_, host.inverse_, **CLOSE)
    assert_allclose(there.scalars_, host.scalars_, **CLOSE)


def same_state(one: State, other: State) -> None:
    assert one.table == other.table
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        assert_array_equal(other.arrays[name], array, err_msg=name)


def returned(three: Iterable[Any], block: Block, cuts: tuple[int, int]) -> Any:
    """The second of three fresh operators, of one kind, that has seen what the first has.

    By a state saved and loaded at the first cut, a snapshot gone back to from the second, a copy;
    answers with probabilities and the state are compared to the bit.
    """
    whole, parts, again = three
    first, second = cuts
    expected = whole.run(block)["proba"]
    parts.run(block.rows(0, first))
    again.load(parts.state())
    before = again.snapshot()
    again.run(block.rows(first, second))
    again.restore(before)
    again.run(block.rows(first, second))
    again = copy.deepcopy(again)
    assert_array_equal(again.run(block.rows(second, block.n))["proba"], expected[second:])
    same_state(again.state(), whole.state())
    return again


def test_any_cut_gives_the_same_bits() -> None:
    """Blocks of one, a state that is saved and loaded half-way, features that come at a row."""
    n = 3 * SLOTS
    block = stream(3, n)
    wider = widened(block.rows(n - 4, n))
    whole, parts = (KalmanClassifier(delta0=0.01, device="cuda") for _ in range(2))
    expected = [whole.run(block.rows(0, n - 4))["proba"], whole.run(wider)["proba"]]
    said = [parts.run(block.rows(t, t + 1))["proba"] for t in range(5)]
    again = KalmanClassifier(delta0=0.01, device="cuda")
    again.load(parts.state())
    before = again.snapshot()
    again.run(block.rows(5, n - 4))
    again.restore(before)
    again = copy.deepcopy(again)
    said += [again.run(block.rows(5, n - 4))["proba"], again.run(wider)["proba"]]
    for row, probabilities in zip(
        np.concatenate([np.pad(p, ((0, 0), (0, 3 - p.shape[1]))) for p in said]),
        np.concatenate([np.pad(p, ((0, 0), (0, 3 - p.shape[1]))) for p in expected]),
        strict=True,
    ):
        assert_array_equal(row, probabilities)
    same_state(again.state(), whole.state())


def test_a_load_folds_nothing_and_state_is_of_the_classes_that_are_known() -> None:
    """After a load the names are other objects; a class that was but asked about had room."""
    n = SLOTS + 2
    block = stream(7, n, d=1)
    block.mode[:], block.y[:] = 7, np.arange(n) // 2 % 2
    block.mode[1], block.y[1] = 1, 4.0
    whole, parts, again = (KalmanClassifier(delta0=0.01, device="cuda") for _ in range(3))
    whole.run(block)
    parts.run(block.rows(0, 3))
    again.load(parts.state())
    parts.restore(parts.snapshot())
    for model in (again, parts):
        model.run(block.rows(3, n))
        same_state(model.state(), whole.state())
        assert model.state_bytes == sum(array.nbytes for array in model.state().arrays.values())


def test_a_snapshot_of_a_head_that_is_with_the_host_is_a_copy() -> None:
    block = stream(1, 9, numbers=True)
    model = KalmanRegressor(device="cuda")
    model.learn_chunk(block.rows(0, 4))
    taken, before = model.snapshot(), model.covariance_.copy()
    model.learn_chunk(block.rows(4, 9))
    model.restore(taken)
    assert_array_equal(model.covariance_, before)


def test_what_is_done_at_a_row_is_done_to_what_is_pending() -> None:
    host, there = (KalmanRegressor(delta0=0.01, device=at) for at in ("cpu", "cuda"))
    block = stream(1, 9, numbers=True)
    for model in (host, there):
        model.run(block.rows(0, 5))
        model.inflate(4.0)
        model.run(block.rows(5, 7))
        model.learn_chunk(block.rows(7, 8))
    agree(host, there, host.run(block.rows(8, 9)), there.run(block.rows(8, 9)))
    there.reset()
    assert_array_equal(there.covariance_, np.eye(4))


def test_a_plan_puts_lessons_first_and_folds_when_the_slots_are_full() -> None:
    lesson = np.array([False, True, True, False, True, True, True])
    (source, place, first, counts, folds), pending = plan(lesson, None, SLOTS - 2)
    assert_array_equal(source, range(7))
    at = SLOTS - 2
    assert_array_equal(place[:3], [SLOTS, at, at + 1])
    assert_array_equal(first, [0, 3, 7])
    assert_array_equal(counts, [at, 2, 0, 3])
    assert_array_equal(folds, [1, 0])
    assert pending == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "gpu"}, "device must be one of cpu, cuda, got 'gpu'"),
        ({"device": "cuda", "form": "sqrt"}, "device must be cpu unless form is standard"),
        ({"device": "cuda", "groups": "each"}, "device must be cpu unless form is standard"),
        ({"device": "cuda", "evaluator": "monte_carlo"}, "evaluator must be mean_field with"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^KalmanClassifier: {message}"):
        KalmanClassifier(**settings)


@pytest.mark.parametrize("kind", [LiteRVFLClassifier, LiteRVFLRegressor])
def test_least_squares_that_could_wind_up_are_refused(kind: Any) -> None:
    message = f"^{kind.__name__}: leaky must be true with device='cuda', got False"
    with pytest.raises(ValueError, match=message):
        kind(leaky=False, device="cuda")
    assert not kind(leaky=False).leaky


def test_without_room_on_the_device_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = KalmanRegressor(device="cuda")
    model.run(stream(1, 3, numbers=True))
    before = model.state()

    def full(owner: str, like: Any) -> Any:
        raise _compile.no_room(owner, like)

    monkeypatch.setattr(_compile, "reserve", full)
    with pytest.raises(MemoryError, match=r"^KalmanRegressor: the device must have [0-9,]+ bytes"):
        model.run(stream(1, 3, numbers=True))
    for name in ("anchor_", "anchor_weights_", "held_", "steps_", "outputs_"):
        assert_array_equal(model.state().arrays[name], before.arrays[name])
