"""Kernels of the prequential metrics, each alone."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import metrics as sk

from streamlearn.booking import Booking, Layout
from streamlearn.jit import metrics as jit


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_ranking_equals_scikit_learn(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    truth, scores = rng.random(80) < 0.3, rng.random(80)
    scores = np.round(scores, 1) if ties else scores
    auc, precision = jit.ranked(np.sort(scores[truth]), np.sort(scores[~truth]))
    assert auc == pytest.approx(sk.roc_auc_score(truth, scores), rel=1e-13)
    assert precision == pytest.approx(sk.average_precision_score(truth, scores), rel=1e-13)


def test_what_the_majority_knows_by_hand() -> None:
    """Labels 1, 0, 0, missing, 2: before each row the last, the majority, counts and squares."""
    memory, counts = np.zeros(jit.N_MEMORY), np.zeros(3)
    memory[jit.LAST] = np.nan
    said, shares = np.zeros((5, jit.COUNT + 1)), np.zeros((5, 3))
    y, none = np.array([1.0, 0, 0, np.nan, 2]), np.full(5, np.nan)
    assert jit.classification_say(y, none, np.zeros(2), memory, said, shares) == 2.0  # too narrow
    assert jit.classification_say(y, none, counts, memory, said, shares) == 2.0
    # last label, majority (the lower of equals), labels, squares, count of majority, of this class
    expected = [
        [np.nan, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [0, 0, 2, 2, 1, 1],
        [0, 0, 3, 5, 2, np.nan],
        [0, 0, 3, 5, 2, 0],
    ]
    assert_array_equal(said, expected)
    assert_array_equal(shares, [[0, 0, 0], [0, 1, 0], [1, 1, 0], [2, 1, 0], [2, 1, 0]])
    assert_array_equal(counts, [2, 1, 1])


def test_the_season_before_by_hand() -> None:
    """Season 2: targets 1, 2, missing, 4, 8; the mean of those before."""
    memory, season = np.zeros(jit.N_MEMORY), np.full(2, np.nan)
    memory[jit.LAST] = np.nan
    said = np.zeros((5, 3))
    jit.regression_say(np.array([1.0, 2, np.nan, 4, 8]), season, memory, said)
    nan = np.nan
    assert_array_equal(said[:, 0], [nan, 1, 2, 2, 4])
    assert_allclose(said[:, 1], [nan, 1, 1.5, 1.5, 7 / 3], rtol=1e-15)
    assert_array_equal(said[:, 2], [nan, nan, 1, 1, 2])


def ring_of(keys: list[int], window: int) -> list[int]:
    """The keys that a ring keeps when rows are booked with these keys, in its order."""
    n = len(keys)
    y, scores = np.zeros(n), np.arange(float(n))
    booking = Booking(
        Layout(jit.N_ANOMALY, jit.ANOMALY_ROW, jit.TRUTH), window, 0.9, lambda *_: None
    )
    booking.make_room(scores=1)
    none, by = np.zeros(0, dtype=np.int64), np.array(keys, dtype=np.int64)
    asked = np.ones(n, dtype=np.uint8)
    book, ready = booking.book, np.zeros((0, 1))
    jit.anomaly_book(y, asked, scores, none, by, np.zeros(n, dtype=np.int64), 0, 0, book, ready)
    held, kept = booking.state(1, 0, 0).arrays["scores"], booking.state(1, 0, 0).arrays["keys"]
    assert [keys[int(i)] for i in held[:, 0]] == kept.tolist()  # rows came with their keys
    return [int(key) for key in kept]


@pytest.mark.parametrize("window", [1, 3, 7, 50])
def test_the_ring_keeps_the_largest_keys_in_order(window: int) -> None:
    """In order, backwards, and in any order: as sorting does, after every row."""
    rng = np.random.default_rng(window)
    for keys in (list(range(20)), list(range(20))[::-1], rng.permutation(40).tolist()):
        for n in range(1, len(keys) + 1):
            assert ring_of(keys[:n], window) == sorted(keys[:n])[-window:]


def test_the_unit_of_a_late_key_is_that_of_its_place() -> None:
    """Keys 5, 3, 9, 4: fading sums are those of f**(9 - key), whatever came between."""
    keys = np.array([5, 3, 9, 4], dtype=np.int64)
    booking = Booking(Layout(jit.N_ANOMALY, jit.ANOMALY_ROW, jit.TRUTH), 4, 0.02, lambda *_: None)
    booking.make_room(scores=1)
    y, none = np.array([1.0, 0, 0, 1]), np.zeros(0, dtype=np.int64)
    asked, event = np.ones(4, dtype=np.uint8), np.zeros(4, dtype=np.int64)
    jit.anomaly_book(y, asked, y, none, keys, event, 0, 0, booking.book, np.zeros((0, 1)))
    sums = booking.book.sums[booking.book.bins]
    weights = 0.02 ** (9.0 - keys)
    assert sums[jit.POSITIVE] / sums[jit.WEIGHT] == pytest.approx(
        weights @ y / weights.sum(), rel=1e-12
    )


def test_a_row_beyond_the_last_bin_asks_to_fold() -> None:
    """The walk says the row, and has counted the rows before it only."""
    booking = Booking(Layout(jit.N_ANOMALY, jit.ANOMALY_ROW, jit.TRUTH), 4, 0.9, lambda *_: None)
    booking.make_room(scores=1)
    y, none = np.zeros(3), np.zeros(0, dtype=np.int64)
    asked, event = np.ones(3, dtype=np.uint8), np.array([510, 511, 512], dtype=np.int64)
    rest = (none, none, event)
    ready = np.zeros((0, 1))
    assert jit.anomaly_book(y, asked, y, *rest, 0, 0, booking.book, ready) == 2
    assert booking.booked == 2
    booking.fold()
    assert jit.anomaly_book(y, asked, y, *rest, 2, 0, booking.book, ready) == 3
    weights = booking.book.sums[:512, jit.WEIGHT]
    assert_array_equal(np.flatnonzero(weights), [255, 256])
    assert_array_equal(weights[[255, 256]], [2.0, 1.0])
