"""Small triangles by lanes: the sums of plain loops, to the bit, for every size."""

import numpy as np
import pytest

from streamlearn.block import F8
from streamlearn.jit import triangle
from streamlearn.jit._compile import kernel


@kernel
def _product(A: F8, f: F8, u: F8) -> None:
    triangle.product(A, f, u)


@kernel
def _update(A: F8, u: F8, root: float, before: float, after: float) -> None:
    triangle.update(A, u, root, before, after)


def _given(D: int) -> tuple[F8, F8, F8]:
    """A symmetric matrix; its triangle, with something that is another's behind it; a vector."""
    rng = np.random.default_rng(D)
    square = rng.normal(size=(D, D))
    square += square.T
    return square, np.append(square[np.tril_indices(D)], [7.0] * 3), rng.normal(size=D)


@pytest.mark.parametrize("D", range(1, 18))
def test_a_product_adds_column_by_column(D: int) -> None:
    square, A, f = _given(D)
    expected = np.zeros(D)
    for j in range(D):
        expected += square[:, j] * f[j]
    u = np.full(D + 3, -1.0)
    _product(A, f, u[:D])
    assert u.tolist() == [*expected, -1.0, -1.0, -1.0]


@pytest.mark.parametrize("D", range(1, 18))
def test_an_update_changes_the_triangle_and_nothing_behind_it(D: int) -> None:
    square, A, u = _given(D)
    z = u * 0.3
    expected = (0.9 * square - np.outer(z, z)) * 1.7
    _update(A, u, 0.3, 0.9, 1.7)
    assert A.tolist() == [*expected[np.tril_indices(D)], 7.0, 7.0, 7.0]
