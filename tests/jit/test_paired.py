"""The kernel of paired differences against a plain loop over every pair."""

import math
from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8
from streamlearn.jit import paired as jit


def arrays(count: int, points: int = 8) -> tuple[F8, F8, np.ndarray]:
    pairs = count * (count - 1) // 2
    counters = np.array([0, 0, 1], dtype=np.int64)
    return np.zeros((pairs, jit.N_TERMS)), np.zeros((points, pairs, 3)), counters


def naive(losses: F8, i: int, j: int, start: int) -> list[float]:
    """Rows, mean, variation, wins, defeats, scale of one pair, from the differences themselves."""
    D = [a - b for a, b in zip(losses[:, i], losses[:, j], strict=True)]
    D = [x for x in D if math.isfinite(x)]
    centres = [0.0, *(sum(D[:t]) / t for t in range(1, len(D)))]
    parts = [(x - c) ** 2 for x, c in zip(D, centres, strict=False)]
    differing = [t for t, x in enumerate(D) if x != 0]
    scale = sum(parts[: differing[start - 1] + 1]) if len(differing) >= start else 0.0
    wins, defeats = sum(x > 0 for x in D), sum(x < 0 for x in D)
    return [len(D), sum(D) / len(D) if D else 0.0, sum(parts), wins, defeats, scale]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [2, 3, 5])
def test_sums_equal_a_plain_loop(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    losses = np.round(rng.exponential(size=(90, count)), 1)
    losses[rng.random(losses.shape) < 0.1] = math.nan
    losses[3, 0] = math.inf
    sums, course, counters = arrays(count)
    jit.paired_run(losses, sums, course, counters, 10)
    for p, (i, j) in enumerate(combinations(range(count), 2)):
        assert_allclose(sums[p], naive(losses, i, j, 10), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 16, 17, 40, 100])
def test_the_course_keeps_every_stride_th_row(n: int) -> None:
    """At most 8 points, at whole multiples of a stride that is a power of two."""
    losses = np.random.default_rng(n).random((n, 2))
    sums, course, counters = arrays(2)
    jit.paired_run(losses, sums, course, counters, 10)
    stride = 1
    while n // stride > 8:
        stride *= 2
    assert counters[jit.STRIDE] == stride
    assert counters[jit.POINTS] == n // stride
    for k in range(n // stride):
        assert_allclose(course[k, 0], naive(losses[: stride * (k + 1)], 0, 1, 10)[:3], rtol=1e-12)


@pytest.mark.parametrize("cut", [1, 7, 33, 99])
def test_any_cut_gives_the_same_bits(cut: int) -> None:
    losses = np.random.default_rng(0).random((100, 3))
    whole, parts = arrays(3), arrays(3)
    jit.paired_run(losses, *whole, 5)
    for at in range(0, 100, cut):
        jit.paired_run(losses[at : at + cut], *parts, 5)
    for one, other in zip(whole, parts, strict=True):
        assert_array_equal(one, other)
