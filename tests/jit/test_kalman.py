"""The pieces of the Kalman kernels that the operators' tests do not see from outside."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from streamlearn.jit._compile import F8, kernel
from streamlearn.jit.kalman import root_condition, root_drift, root_product
from streamlearn.jit.products import row_products

F4 = NDArray[np.float32]


@kernel
def drifted(R: F8, M: F8, keep: float, fresh: float) -> None:
    root_drift(R, M, keep, fresh)


@kernel
def multiplied(M: F8, x: F8, out: F8) -> None:
    row_products(M, x, out)


@kernel
def conditioned(R: F4, X: F4, v: F4, u: F4, noise: np.float32) -> None:
    for t in range(X.shape[0]):
        root_product(R, X[t], v, u)  # type: ignore[arg-type]  # kernels take any precision
        root_condition(R, X[t], v, u, noise)  # type: ignore[arg-type]


@pytest.mark.parametrize("D", [1, 2, 7])
def test_root_drift_is_the_factor_of_the_drifted_covariance(D: int) -> None:
    R = np.random.default_rng(D).normal(size=(D, D))
    expected = 0.81 * R.T @ R + 0.3**2 * np.eye(D)
    drifted(R, np.empty((2 * D, D)), 0.9, 0.3)
    assert_allclose(R.T @ R, expected, rtol=1e-13, atol=1e-14)
    assert not np.tril(R, -1).any()


@pytest.mark.parametrize("D", [1, 3, 4, 9])
def test_row_products_are_products(D: int) -> None:
    rng = np.random.default_rng(D)
    M, x, out = rng.normal(size=(D, D)), rng.normal(size=D), np.empty(D)
    multiplied(M, x, out)
    assert_allclose(out, M @ x, rtol=1e-12, atol=1e-13)


# acceptance 6, in float32
@pytest.mark.jit
def test_potter_in_float32_stays_definite_where_the_plain_form_does_not() -> None:
    """10,000 ill-conditioned steps at feature scale 1000, as in section 5 of the specification."""
    rng = np.random.default_rng(0)
    D, n, noise = 16, 10_000, np.float32(0.1)
    mix = rng.normal(size=(D, D)) @ np.diag(10.0 ** np.linspace(0, -4, D))
    X = (1000.0 * rng.normal(size=(n, D)) @ mix.T).astype(np.float32)
    R, A = np.eye(D, dtype=np.float32), np.eye(D, dtype=np.float32)
    conditioned(R, X, np.zeros(D, np.float32), np.zeros(D, np.float32), noise)
    for x in X:
        Ax = A @ x
        A -= np.outer(Ax, Ax) / (x @ Ax + noise)
    root = R.astype(np.float64)
    exact = np.linalg.inv(np.eye(D) + X.astype(np.float64).T @ X.astype(np.float64) / 0.1)
    assert np.linalg.svd(root, compute_uv=False).min() > 0.0
    assert_allclose(np.trace(root.T @ root), np.trace(exact), rtol=0.05)
    assert np.linalg.eigvalsh(A.astype(np.float64)).min() <= 0.0
