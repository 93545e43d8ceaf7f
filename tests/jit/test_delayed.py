"""Symmetric matrices in tiles, with factors that wait: against numpy on the full matrix."""

import math
from typing import Any

import numpy as np
import pytest
from numba.core.caching import NullCache
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8
from streamlearn.jit import delayed, symmetric
from streamlearn.jit._compile import kernel

SIZES = (1, 7, 8, 9, 33, 100)


@kernel
def products(tiles: F8, X: F8, U: F8, n: int) -> None:
    symmetric.products(tiles, X, U, n)


@kernel
def fused(tiles: F8, z: F8, x: F8, u: F8) -> None:
    symmetric.fused_product(tiles, z, x, u)


@kernel
def column(tiles: F8, i: int, u: F8) -> None:
    symmetric.column(tiles, i, u)


@kernel
def finish(Z: F8, s: F8, f: F8, w: F8, u: F8) -> None:
    delayed.finish_product(Z, s, f, w, u)


@kernel
def wait(tiles: F8, Z: F8, s: F8, z: F8, D: int) -> None:
    """A <- 0.9 A + 0.2 I - z z', folded where there is no room for more."""
    s[delayed.SCALE] *= 0.9
    s[delayed.SHIFT] = 0.9 * s[delayed.SHIFT] + 0.2
    delayed.join(Z, s, z, 1.0 / math.sqrt(s[delayed.SCALE]))
    if s[delayed.PENDING] == Z.shape[1]:
        delayed.fold(tiles, Z, s, D)


def every_piece(tiles: F8, Z: F8, s: F8, X: F8, U: F8, w: F8, D: int) -> None:
    symmetric.products(tiles, X, U, X.shape[0])
    symmetric.fused_product(tiles, X[0], X[1], U[0])
    delayed.finish_product(Z, s, X[0], w, U[0])
    delayed.fold(tiles, Z, s, D)


def symmetric_matrix(rng: np.random.Generator, D: int) -> F8:
    A = rng.normal(size=(D, D))
    return np.asarray(A + A.T)


def padded(rows: F8) -> F8:
    """Rows (n, D) as (n, 8 T)."""
    wide = symmetric.aligned((len(rows), 8 * symmetric.n_panels(rows.shape[1])))
    wide[:, : rows.shape[1]] = rows
    return wide


@pytest.mark.parametrize("D", SIZES)
def test_tiles_and_back(D: int) -> None:
    A = symmetric_matrix(np.random.default_rng(D), D)
    assert_array_equal(symmetric.unpacked(symmetric.packed(A), D), A)


@pytest.mark.parametrize("D", SIZES)
def test_products_of_rows_whatever_stands_beside_them(D: int) -> None:
    rng = np.random.default_rng(D)
    A, X = symmetric_matrix(rng, D), rng.normal(size=(8, D))
    tiles, wide = symmetric.packed(A), padded(X)
    U = np.full_like(wide, np.nan)
    products(tiles, wide, U, 8)
    assert_allclose(U[:, :D], X @ A, rtol=1e-12, atol=1e-12)
    assert not U[:, D:].any()
    for first, n in ((0, 1), (1, 4), (5, 3), (7, 1)):
        part = np.full((n, U.shape[1]), np.nan)
        products(tiles, wide[first : first + n].copy(), part, n)
        assert_array_equal(part, U[first : first + n])


@pytest.mark.parametrize("D", SIZES)
def test_an_update_and_the_next_product_in_one_pass(D: int) -> None:
    rng = np.random.default_rng(D)
    A, (z, x) = symmetric_matrix(rng, D), rng.normal(size=(2, D))
    tiles, wide = symmetric.packed(A), padded(np.array([z, x]))
    u, again = np.empty((2, 1, wide.shape[1]))
    fused(tiles, wide[0], wide[1], u[0])
    after = A - np.outer(z, z)
    assert_allclose(symmetric.unpacked(tiles, D), after, rtol=1e-12, atol=1e-12)
    assert_allclose(u[0, :D], after @ x, rtol=1e-12, atol=1e-12)
    products(tiles, wide[1:], again, 1)
    assert_array_equal(u, again)
    column(tiles, D - 1, u[0])
    assert_array_equal(u[0, :D], symmetric.unpacked(tiles, D)[D - 1])
    assert not u[0, D:].any()


@pytest.mark.parametrize("D", SIZES)
def test_factors_that_wait_count_as_if_they_were_folded(D: int) -> None:
    """Scaled, shifted, reduced: after every factor the product is that with the full matrix."""
    rng = np.random.default_rng(D)
    A = symmetric_matrix(rng, D)
    tiles, Z = symmetric.packed(A), delayed.no_factors(D, 8)
    s, w = np.array([0.0, 1.0, 0.0]), np.empty(8)
    for n in range(1, 20):
        z, f = padded(rng.normal(size=(2, D)))
        wait(tiles, Z, s, z, D)
        A = 0.9 * A + 0.2 * np.eye(D) - np.outer(z[:D], z[:D])
        u = np.empty((1, f.size))
        products(tiles, f[None], u, 1)
        finish(Z, s, f, w, u[0])
        assert s[delayed.PENDING] == n % 8
        assert_allclose(u[0, :D], A @ f[:D], rtol=1e-11, atol=1e-11)
        assert not u[0, D:].any()
        full = delayed.effective(tiles, Z, s, D)
        assert_allclose(full, A, rtol=1e-11, atol=1e-11)
        assert_array_equal(full, full.T)
    assert_array_equal(symmetric.packed(symmetric.unpacked(tiles, D)), tiles)  # padding stays 0


def test_machine_code_multiplies_and_adds_vectors() -> None:
    """Not left to chance: 4 or 8 lanes a fused instruction, in all pieces."""
    made: Any = kernel(every_piece)
    if made is every_piece:
        pytest.skip("kernels are plain Python here")
    made._cache = NullCache()  # of what comes from a disk, no instructions are shown
    tiles, Z = symmetric.packed(np.eye(33)), delayed.no_factors(33, 8)
    rows = np.zeros((2, 4, 40))
    made(tiles, Z, np.array([1.0, 1.0, 0.0]), *rows, np.zeros(8), 33)
    (asm,) = made.inspect_asm().values()
    fused_ = [line for line in asm.splitlines() if "vfmadd" in line or "vfnmadd" in line]
    if not fused_:
        pytest.skip("a processor without fused multiply-add on vectors")
    wide = [line for line in fused_ if "%ymm" in line or "%zmm" in line]
    assert len(wide) >= 64
    assert len(wide) >= 0.9 * len(fused_)
