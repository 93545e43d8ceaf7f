"""Kernels of the prequential metrics, each alone."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8
from streamlearn.jit import metrics as jit

NAN = math.nan


def recent_of(y: list[float], said: list[float], loss: list[float]) -> F8:
    """Rows of the ring in which the baselines say nothing."""
    rows = np.full((len(y), jit.ROW), NAN)
    rows[:, 0], rows[:, 1], rows[:, 2] = y, said, loss
    return rows


@pytest.mark.parametrize(
    ("p", "loss"),
    [
        (0.25, math.log(4)),
        (1.0, 0.0),
        (1.0 + 1e-15, 0.0),
        (0.0, 15 * math.log(10)),
        (-1.0, 15 * math.log(10)),
    ],
)
def test_log_loss_is_clipped_at_both_ends(p: float, loss: float) -> None:
    assert jit.log_loss_of(p) == pytest.approx(loss, rel=1e-14)


def test_log_loss_of_a_missing_probability_is_missing() -> None:
    assert math.isnan(jit.log_loss_of(NAN))


def test_classification_add_counts_by_hand() -> None:
    """Rows (0 said 0), (1 said 0), (2 said 2, no probability) with units 1, 2, 4."""
    recent = recent_of([0, 1, 2], [0, 0, 2], [0.5, 3.0, NAN])
    sums, classes = np.zeros((1, 3, jit.N_TERMS)), np.zeros((1, 3, 3, 3))
    for i in range(3):
        for who in range(3):
            jit.classification_add(sums, classes, 0, who, 2.0**i, recent, i)
    expected = np.zeros(jit.N_TERMS)
    expected[[jit.WEIGHT, jit.MISSES, jit.CHANGES, jit.LOSS, jit.LOSS_WEIGHT]] = [7, 2, 7, 6.5, 3]
    assert_array_equal(sums[0, jit.MODEL], expected)
    assert_array_equal(classes[0, jit.MODEL, :, jit.TRUE], [1, 2, 4])
    assert_array_equal(classes[0, jit.MODEL, :, jit.PREDICTED], [3, 0, 4])
    assert_array_equal(classes[0, jit.MODEL, :, jit.HIT], [1, 0, 4])
    assert not sums[0, 1:].any()


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_regression_add_keeps_centred_weighted_moments(offset: float) -> None:
    """Growing units; weighted mean and squared deviations by numpy, to the last digits."""
    rng = np.random.default_rng(0)
    y, units = offset + rng.normal(size=50), 1.1 ** np.arange(50)
    recent = recent_of(list(y), list(y + 1.0), [NAN] * 50)
    sums = np.zeros((1, 3, jit.N_TERMS))
    for i in range(50):
        jit.regression_add(sums, 0, jit.MODEL, units[i], recent, i, y[0])
    shifted = y - y[0]
    mean = np.average(shifted, weights=units)
    assert_allclose(sums[0, jit.MODEL, jit.MEAN], mean, rtol=1e-12)
    assert_allclose(sums[0, jit.MODEL, jit.MOMENT], units @ (shifted - mean) ** 2, rtol=1e-12)
    assert_allclose(sums[0, jit.MODEL, jit.ABSOLUTE], units.sum(), rtol=1e-8)


def test_the_window_reads_only_the_rows_that_are_filled() -> None:
    recent = recent_of([0, 1, 1, 1], [0, 0, 1, 1], [1.0, 2.0, 4.0, 8.0])
    sums, classes = np.zeros((1, 3, jit.N_TERMS)), np.zeros((1, 3, 2, 3))
    jit.classification_window(recent, 3, sums, classes)
    assert sums[0, jit.MODEL, jit.WEIGHT] == 3.0
    assert sums[0, jit.MODEL, jit.LOSS] == 7.0
    sums[:] = 0.0
    jit.regression_window(recent, 2, sums)
    assert sums[0, jit.MODEL, jit.SQUARES] == 1.0


def test_the_walk_stops_at_a_code_that_does_not_fit() -> None:
    """It says the row, has counted the rows before it only, and goes on from there."""
    book = jit.Book(
        np.zeros((2, 3, jit.N_TERMS)), np.zeros((2, 3, 2, 3)), np.zeros(2), np.full((8, jit.ROW),
        NAN), np.zeros(4, dtype=np.int64), np.zeros(jit.N_COUNTERS, dtype=np.int64), np.array([NAN,
        NAN, 0.0, 0.0, 1.0]), 1.0, 1024,
    )  # fmt: skip
    y, mode = np.array([0.0, 1.0, 5.0, 1.0]), np.full(4, 7, dtype=np.uint8)
    no_proba, no_alarm = np.zeros((4, 0)), np.zeros(0, dtype=np.uint8)
    assert jit.classification_run(y, mode, np.zeros(4), no_proba, no_alarm, 0, book) == 2
    assert book.counters[jit.SCORED] == 2
    wide = book._replace(
        classes=np.zeros((2, 3, 6, 3)), label_counts=np.array([1.0, 1, 0, 0, 0, 0])
    )
    assert jit.classification_run(y, mode, np.zeros(4), no_proba, no_alarm, 2, wide) == 4
    assert (book.counters[jit.SCORED], book.counters[jit.EVENTS]) == (4, 4)
