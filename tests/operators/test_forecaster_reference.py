"""The forecaster against a slow one that solves for its matrices, row by row, with gaps."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from streamlearn.block import SCORED
from streamlearn.operators.forecaster import OnlineForecaster
from streamlearn.testing import block_of
from tests.naive_forecast import NaiveForecaster

NAMES = {"a": "share", "rescale": "scale_loss", "f": "forgetting"}  # in words


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"eta": 2.0, "a": 0.0, "rescale": False, "f": 0.95},
        {"leaky": False, "f": 0.9, "level": 0.5},
        {"ridge": 0.1, "eta": 5.0, "a": 0.1},
    ],
)
@pytest.mark.parametrize(("M", "H", "L", "C"), [(1, 1, 1, 0), (2, 3, 4, 2), (3, 2, 2, 3)])
def test_equal_to_the_slow_one_after_every_row(
    M: int, H: int, L: int, C: int, settings: dict[str, Any], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    Z = np.cumsum(rng.normal(size=(70, M)), axis=0) * 0.3 + np.sin(np.arange(70))[:, None]
    Z[rng.random(Z.shape) < 0.1] = np.nan
    Z[: 5 * M, M - 1] = np.nan  # a channel that begins later
    Z[0, 0] = 0.0
    if M == 1:
        Z[0, 0], Z[1:5, 0] = np.nan, 1.0
    expected = NaiveForecaster(M, H, L, C, **settings).run(Z)
    named = {NAMES.get(name, name): value for name, value in settings.items()}
    model = OnlineForecaster(H, L, C, warm_up=0, **named)
    got = model.run(block_of(Z, mode=SCORED))
    for name, column in zip(("forecast", "lower", "upper"), expected, strict=True):
        assert_allclose(got[name], column, rtol=1e-8, atol=1e-10)
