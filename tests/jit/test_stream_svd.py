"""Truncated decomposition of a stream of rows, against a dense one of all of them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from streamlearn.block import F8
from streamlearn.jit.stream_svd import novelties, svd_walk


def walked(A: F8, k: int, gam: float) -> tuple[F8, F8]:
    """Vectors and values after these rows."""
    V, sv = np.zeros((A.shape[1], k)), np.zeros(k)
    svd_walk(A, V, sv, gam)
    return V, sv


@pytest.mark.jit
@pytest.mark.parametrize("filled", [1.0, 0.3])
def test_of_rank_k_it_is_the_dense_one_of_the_decayed_rows(filled: float) -> None:
    rng = np.random.default_rng(0)
    A = rng.normal(size=(300, 5)) * (rng.random((300, 5)) < filled) @ rng.normal(size=(5, 12))
    V, sv = walked(A, 5, 0.99)
    decayed = A * 0.99 ** np.arange(299, -1, -1)[:, None]
    _, s, Vt = np.linalg.svd(decayed, full_matrices=False)
    assert_allclose(sv, s[:5], rtol=1e-10)
    assert_allclose(V @ V.T, Vt[:5].T @ Vt[:5], atol=1e-10)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_of_full_rank_it_is_the_dense_recursion(k: int) -> None:
    """Row by row the decomposition of the values and vectors kept, and the row."""
    rng = np.random.default_rng(k)
    A = rng.normal(size=(60, 6))
    kept = np.zeros((0, 6))
    V, sv = np.zeros((6, k)), np.zeros(k)
    for t in range(60):
        svd_walk(A[t : t + 1], V, sv, 0.9)
        _, s, Vt = np.linalg.svd(np.vstack([0.9 * kept, A[t]]), full_matrices=False)
        kept = s[:k, None] * Vt[:k]
        assert_allclose(sv[: len(kept)], s[:k], rtol=1e-9)
        assert_allclose((V * sv) @ (V * sv).T, kept.T @ kept, atol=1e-8)


@pytest.mark.jit
def test_vectors_stay_orthonormal() -> None:
    rng = np.random.default_rng(0)
    V, _ = walked(rng.normal(size=(5_000, 8)) * 10.0 ** -np.arange(8.0), 4, 0.999)
    assert_allclose(V.T @ V, np.eye(4), atol=1e-9)


@pytest.mark.jit
def test_novelty_rises_at_a_change_and_is_back_within_the_memory() -> None:
    """Of another subspace of the same rank; the memory is 1 / (1 - gam) rows."""
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(500, 3, 1)), rng.normal(size=(500, 3, 1))
    A = np.concatenate(
        [
            (before * rng.normal(size=(3, 10))).sum(axis=1),
            (after * rng.normal(size=(3, 10))).sum(axis=1),
        ]
    )
    V, sv, told = np.zeros((10, 3)), np.zeros(3), np.zeros(1000)
    for t in range(1000):
        novelties(A[t : t + 1], V, np.zeros(10), told[t : t + 1])
        svd_walk(A[t : t + 1], V, sv, 0.98)
    assert told[10:500].max() < 1e-6
    assert told[500] > 0.3
    assert told[600:].max() < 0.5 * told[500:505].mean()


def test_rows_of_zeros_and_one_repeated_are_no_news() -> None:
    V, sv = walked(np.vstack([np.zeros((5, 3)), np.tile([3.0, 0.0, 4.0], (20, 1))]), 2, 1.0)
    assert_allclose(sv, [5.0 * np.sqrt(20.0), 0.0], atol=1e-9)
    out, parts = np.zeros(2), np.zeros(3)
    novelties(np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 8.0]]), V, parts, out)
    assert_allclose(out, 0.0, atol=1e-7)
