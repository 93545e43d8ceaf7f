"""The scale of a target, as a gradient learner uses it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from streamlearn.jit.scale import target_scale, target_scale_learn


def test_target_scale_is_one_until_ten_targets_and_their_deviation_after() -> None:
    y = np.random.default_rng(0).normal(50.0, 3.0, size=40)
    s = np.zeros(4)
    for n in range(1, 41):
        assert target_scale(s) == (1.0 if n <= 10 else pytest.approx(y[: n - 1].std(), rel=1e-12))
        target_scale_learn(s, y[n - 1], 1.0, 1.0)


def test_target_scale_has_a_floor_and_skips_nan() -> None:
    s = np.zeros(4)
    for _ in range(20):
        target_scale_learn(s, 4.0, 1.0, 0.999)
    target_scale_learn(s, np.nan, 1.0, 0.999)
    assert target_scale(s) == 1e-2
    assert_allclose(s[[0, 1, 3]], [4.0, 0.0, 20.0])
