"""What the specifications ask beside their lists of acceptance tests: traps and edge cases."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import PREDICT, Block, Vocabulary
from streamlearn.operators import (
    AnalyticClassifier,
    AnalyticRegressor,
    ErrorMemoryRegressor,
    KalmanClassifier,
    MeanRegressor,
)
from streamlearn.testing import block_of


def coded(X: Any, y: Any, mode: int = 7) -> Block:
    """Three classes, known from the start, codes as they are."""
    return block_of(X, y, task="", labels=Vocabulary(range(3)), mode=mode)


@pytest.mark.jit
def test_an_inverse_of_short_memory_keeps_its_symmetry_and_its_digits() -> None:
    """Section 0, rule 1: lam = 0.98, d = 12, 20,000 samples; a full outer product is lost by then.

    Expected: normal equations over the rows that still count, with what is left of the ridge.
    """
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 12))
    y = np.argmax(X[:, :3] + rng.normal(size=(20_000, 3)), axis=1)
    model = AnalyticClassifier(lam=0.98)
    for start in range(0, 20_000, 1000):
        model.run(coded(X[start : start + 1000], y[start : start + 1000]))
        assert_array_equal(model.inverse_, model.inverse_.T)
    H, Y = np.column_stack([np.ones(3000), X[-3000:]]), np.eye(3)[y[-3000:]]
    fade = 0.98 ** np.arange(2999.0, -1.0, -1.0)  # rows before count less than 1e-26
    R = H.T @ (H * fade[:, None]) + 0.1 * np.eye(13)  # refreshed every 50 labels, the last just now
    assert_allclose(model.inverse_, np.linalg.inv(R), rtol=0.0, atol=1e-11)
    expected = np.linalg.solve(R, H.T @ (Y * fade[:, None])).T
    assert_allclose(model.weights_, expected, rtol=0.0, atol=1e-9)


def test_a_sample_can_be_forgotten_once() -> None:
    """M1: 1 / w - x.u < 1e-8 says that it was never learned; the state stays."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(4, 6)), np.array([0, 1, 2, 0])
    X[3] *= 10.0
    model = AnalyticClassifier(lam=1.0)
    model.run(coded(X, y))
    model.forget(coded(X[3:], y[3:]))
    before = model.state()
    with pytest.raises(ValueError, match="never learnt"):
        model.forget(coded(X[3:], y[3:]))
    for name, array in before.arrays.items():
        assert_array_equal(array, model.state().arrays[name])


@pytest.mark.parametrize("lam", [1.0, 0.9])
def test_a_row_of_zeros_moves_the_constant_alone(lam: float) -> None:
    """M1, x = 0: of the inverse and the weights of the inputs it is decay and nothing else."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(30, 3))
    model = AnalyticRegressor(lam=lam, ridge=0.1)
    model.run(block_of(X, X[:, 0]))
    R = np.linalg.inv(model.inverse_)
    model.run(block_of(np.zeros((1, 3)), [0.0]))
    expected = lam * R
    expected[0, 0] += 1.0
    assert_allclose(np.linalg.inv(model.inverse_), expected, rtol=1e-8, atol=1e-10)


def test_mean_field_probabilities_do_not_know_the_origin_of_the_scores() -> None:
    """Kalman, acceptance 7: a constant added to mu changes no probability."""
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(60, 2)), rng.integers(0, 3, 60)
    model, moved = KalmanClassifier(), KalmanClassifier()
    model.run(coded(X, y))
    state = model.state()
    state.arrays["means_"] = state.arrays["means_"] + [2.0, -1.0, 0.5]  # the same for every class
    moved.load(state)
    asked = coded(rng.normal(size=(50, 2)), np.zeros(50), mode=PREDICT)
    one, other = model.run(asked)["proba"], moved.run(asked)["proba"]
    assert_allclose(other, one, rtol=1e-12, atol=1e-14)
    assert_allclose(one.sum(axis=1), 1.0, rtol=1e-15, atol=1e-15)


def test_keys_that_are_all_alike_make_the_memory_correct_every_row_alike() -> None:
    """Error memory, section 8: z = 0 is one cell of each array; the mean error is added."""
    rng = np.random.default_rng(4)
    X, y = np.full((200, 3), 7.0), 5.0 + rng.normal(size=200)
    memory = ErrorMemoryRegressor(
        MeanRegressor(), arrays=6, bits=4, rho=1.0, gamma=0.0, lam=1.0, warm_up=60, n_min=1.0
    )
    said = memory.run(block_of(X, y))["prediction"]
    assert np.count_nonzero(memory.cells_[:, :, 0]) == 6
    means = np.append(np.nan, np.cumsum(y)[:-1] / np.arange(1, 200))
    written = range(49, 200)  # the memory begins with the 50th key
    for t in range(60, 200):
        errors = [y[i] - means[i] for i in written if i < t]
        assert said[t] == pytest.approx(means[t] + np.mean(errors), rel=1e-10)
