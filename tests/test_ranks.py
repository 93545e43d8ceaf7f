"""Ranks over data sets: the worked example of Demsar (2006), scipy, and the drawing."""

import math

import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose

from streamlearn.ranks import critical_difference, diagram, rank_test, ranked

# Demsar (2006), table 6: AUC of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on 14 data sets
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_demsars_example() -> None:
    """Average ranks 3.143, 2.000, 2.893, 1.964; F_F = 3.69; CD = 1.25 (q = 2.569)."""
    test = rank_test(DEMSAR)
    assert_allclose(test.average, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    assert_allclose(test.critical_difference, 1.25, atol=5e-3)
    untied = 12 * 14 / (4 * 5) * (np.sum(test.average**2) - 4 * 25 / 4)
    assert_allclose(untied, 9.28, atol=5e-3)  # the paper's, which does not correct for ties
    assert_allclose(13 * untied / (14 * 3 - untied), 3.69, atol=5e-3)
    assert test.chi_square > untied
    assert test.p < 0.05


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_difference_has_the_published_quantiles(k: int, q: float) -> None:
    """Demsar's table 5(a), alpha = 0.05."""
    assert_allclose(critical_difference(k, 20), q * math.sqrt(k * (k + 1) / 120), atol=5e-4)


@pytest.mark.parametrize("seed", range(5))
def test_friedman_equals_scipy_with_ties(seed: int) -> None:
    scores = np.round(np.random.default_rng(seed).random((12, 5)), 1)
    test = rank_test(scores)
    found = scipy.stats.friedmanchisquare(*(-scores).T)
    assert_allclose(test.chi_square, float(found.statistic), rtol=1e-10)
    assert_allclose(test.p_chi_square, float(found.pvalue), rtol=1e-10)


def test_a_learner_that_failed_comes_last_and_errors_rank_upwards() -> None:
    scores = np.array([[0.9, math.nan, 0.9], [3.0, 1.0, 2.0]])
    expected = [[1.5, 3.0, 1.5], [3.0, 1.0, 2.0]]
    assert ranked(scores, [True, False]).tolist() == expected


def test_equal_learners_cannot_be_told_apart() -> None:
    test = rank_test(np.ones((4, 3)))
    assert (test.chi_square, test.p_chi_square) == (0.0, 1.0)
    assert test.groups == [[0, 1, 2]]


def test_data_sets_that_all_agree_are_evidence() -> None:
    scores = np.tile([0.5, 0.9, 0.7], (10, 1))
    test = rank_test(scores)
    assert test.average.tolist() == [3.0, 1.0, 2.0]
    assert test.f == math.inf
    assert_allclose(test.p, 6.0**-9)  # the first data set ranks somehow, nine follow it by chance
    assert test.groups == [[1, 2], [2, 0]]  # critical difference 1.05


def test_the_drawing_shows_everyone_once_and_bars_over_the_alike() -> None:
    text = diagram(["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"], rank_test(DEMSAR))
    lines = text.splitlines()
    assert [line.split()[:2] for line in lines[2:6]] == [
        ["C4.5+m+cf", "1.96"],
        ["C4.5+m", "2.00"],
        ["C4.5+cf", "2.89"],
        ["C4.5", "3.14"],
    ]
    assert sum("=" in line for line in lines) == 1  # 3.143 - 1.964 < 1.25: all over one bar
    assert "critical difference 1.25" in lines[-1]


@pytest.mark.parametrize("shape", [(1, 3), (3, 1)])
def test_one_data_set_or_one_learner_has_no_ranks_to_compare(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"^rank_test: there must be at least 2 learners and 2"):
        rank_test(np.zeros(shape))
