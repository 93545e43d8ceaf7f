"""Confidence sequences and e-values: the published numbers, and that they hold at all times."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from numpy.testing import assert_allclose

from streamlearn import confidence
from streamlearn.block import F8
from streamlearn.confidence import (
    asymptotic_interval,
    bernstein_interval,
    exponential_bound,
    log_e_value,
    log_mixture,
    mixture_bound,
)

ALPHA = 0.05
STREAMS, ROWS = 2000, 3000


# -- published numbers -----------------------------------------------------------------------------


def test_exponential_bound_equals_the_authors_values() -> None:
    """From the unit tests of the authors' package confseq: tightest at 100, c = 2."""
    rho = 100.0 / (2 * math.log(10) + math.log(1 + 2 * math.log(10)))
    assert_allclose(log_mixture(10.0, 100.0, rho, 2.0), -0.2490165, atol=1e-7)
    assert_allclose(exponential_bound(100.0, 0.05, c=2.0), 33.02017, atol=1e-5)


@pytest.mark.parametrize("c", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("v", [0.3, 40.0, 900.0])
def test_log_mixture_is_the_mixture(v: float, c: float) -> None:
    """By quadrature over lam, with the density of the paper's truncated gamma law."""
    rho, s = 12.0, 1.3 * math.sqrt(v)
    k = rho / c**2
    grid = (np.arange(2_000_000) + 0.5) / 2_000_000 / c
    log_prior = k * math.log(k) - scipy.special.gammaln(k) - k * (1 - c * grid) + math.log(c)
    log_prior += (k - 1) * np.log(1 - c * grid) - math.log(scipy.special.gammainc(k, k))
    psi = (-np.log(1 - c * grid) - c * grid) / c**2
    mixed = np.sum(np.exp(log_prior + grid * s - psi * v)) / 2_000_000 / c
    assert_allclose(log_mixture(s, v, rho, c), math.log(mixed), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.025, 1e-4])
def test_exponential_bound_is_where_the_mixture_passes_its_threshold(alpha: float) -> None:
    v = np.logspace(-2, 7, 50)
    rho = 100 / (2 * math.log(0.5 / alpha) + math.log(1 + 2 * math.log(0.5 / alpha)))
    bound = exponential_bound(v, alpha, c=2.0)
    assert_allclose(log_mixture(bound, v, rho, 2.0), math.log(1 / alpha), rtol=1e-6)
    assert np.all(np.diff(bound) > 0)
    assert np.all(bound > 2.5 * np.sqrt(v))  # `covers` below leans on it


def test_mixture_bound_equals_the_authors_values() -> None:
    """From the same: two-sided normal mixture, tightest at 100."""
    assert_allclose(mixture_bound(100.0, 0.05, 100.0), 30.35209, atol=1e-5)


def test_mixture_bound_is_where_the_mixed_likelihood_ratio_passes_its_threshold() -> None:
    """Robbins' argument by quadrature: the ratio mixed over N(0, 1/r) is 1/alpha at the bound."""
    v, v_best = 250.0, 40.0
    sharp = 2 * math.log(1 / ALPHA)
    r = v_best / (sharp + math.log(1 + sharp))
    x = float(mixture_bound(v, ALPHA, v_best))
    grid, step = np.linspace(-3, 3, 400_001, retstep=True)
    mixed = np.exp(grid * x - grid**2 * v / 2) * scipy.stats.norm.pdf(grid, scale=r**-0.5)
    assert_allclose(np.sum(mixed) * step, 1 / ALPHA, rtol=1e-6)


def test_asymptotic_interval_is_the_papers_formula() -> None:
    n, mean, v, scale = 5000.0, 0.3, 812.0, 21.0
    rho2 = (2 * math.log(1 / ALPHA) + math.log(1 + 2 * math.log(1 / ALPHA))) / (10 * scale)
    radius = math.sqrt(
        2 * (v * rho2 + 1) / (n * n * rho2) * math.log(math.sqrt(v * rho2 + 1) / ALPHA)
    )
    low, high = asymptotic_interval(n, mean, v, ALPHA, scale)
    assert_allclose([low, high], [mean - radius, mean + radius], rtol=1e-12)


def test_without_rows_an_interval_is_everything() -> None:
    low, high = bernstein_interval(0.0, 0.0, 0.0, ALPHA)
    assert (float(low), float(high)) == (-math.inf, math.inf)
    low, high = asymptotic_interval(50.0, 0.1, 3.0, ALPHA, 0.0)
    assert (float(low), float(high)) == (-math.inf, math.inf)


# -- validity: the share of streams on which an interval is ever wrong -----------------------------


def walked(D: F8) -> tuple[F8, F8, F8, F8]:
    """n, mean, variation and scale after every row of many streams (streams, rows), in numpy."""
    n = np.arange(1.0, D.shape[1] + 1)
    mean = np.cumsum(D, axis=1) / n
    before = np.hstack([np.zeros((len(D), 1)), mean[:, :-1]])
    v = np.cumsum((D - before) ** 2, axis=1)
    differing = np.cumsum(D != 0, axis=1)
    reached = differing >= confidence.START
    first = np.argmax(reached, axis=1)
    scale = np.where(reached, v[np.arange(len(D)), first][:, None], 0.0)
    return n, mean, v, scale


def ever_wrong(low: F8, high: F8, truth: F8) -> float:
    """Share of streams whose interval misses the truth at any time."""
    return float(np.mean(np.any((truth < low) | (truth > high), axis=1)))


def bernstein_wrong(n: F8, mean: F8, v: F8, truth: F8) -> float:
    """As `ever_wrong`, of Bernstein intervals; only what is 2.5 errors off can be outside."""
    off = np.abs(mean - truth) * n >= 2.5 * np.sqrt(v)
    counts, centres = np.broadcast_to(n, mean.shape)[off], mean[off]
    low, high = bernstein_interval(counts, centres, v[off], ALPHA)
    right = np.broadcast_to(truth, mean.shape)[off]
    wrong = np.zeros(mean.shape, dtype=np.bool_)
    wrong[off] = (right < low) | (right > high)
    return float(np.mean(wrong.any(axis=1)))


def null_differences(rng: np.random.Generator, share: float) -> F8:
    """Differences of two classifiers with equal error, which differ on a share of the rows."""
    sign = np.where(rng.random((STREAMS, ROWS)) < 0.5, -1.0, 1.0)
    return np.where(rng.random((STREAMS, ROWS)) < share, sign, 0.0)


@pytest.mark.parametrize("share", [1.0, 0.2, 0.02])
def test_bernstein_interval_holds_zero_at_all_times_on_null_streams(share: float) -> None:
    """At most 5 % of 2,000 streams ever miss; and it is no empty promise: it becomes narrow."""
    n, mean, v, _ = walked(null_differences(np.random.default_rng(1), share))
    assert bernstein_wrong(n, mean, v, np.zeros(1)) <= ALPHA
    low, high = bernstein_interval(n[-1], mean[:, -1], v[:, -1], ALPHA)
    normal = 1.96 * math.sqrt(share / ROWS)
    assert np.median(high - low) / 2 < (2.2 if share < 0.1 else 1.9) * normal


def test_bernstein_interval_holds_the_drifting_mean_so_far() -> None:
    """Conditional means that wander, and depend on the past: the average of them is covered."""
    rng = np.random.default_rng(2)
    D = np.zeros((500, 2000))
    means = np.zeros_like(D)
    for t in range(D.shape[1]):
        drift = 0.4 * math.sin(t / 200)
        means[:, t] = np.clip(drift + 0.3 * (D[:, t - 1] if t else 0.0), -1, 1)
        D[:, t] = np.where(rng.random(500) < (1 + means[:, t]) / 2, 1.0, -1.0)
    n, mean, v, _ = walked(D)
    truth = np.cumsum(means, axis=1) / n
    assert bernstein_wrong(n, mean, v, truth) <= ALPHA


def test_an_ordinary_interval_would_be_wrong_in_most_streams() -> None:
    """The test's own check: looking at every row, 1.96 standard errors miss far more often."""
    n, mean, v, _ = walked(null_differences(np.random.default_rng(1), 1.0))
    error = 1.96 * np.sqrt(v) / n
    late = slice(50, None)
    wrong = ever_wrong((mean - error)[:, late], (mean + error)[:, late], np.zeros(1))
    assert wrong > 0.3


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("law", ["normal", "laplace", "skewed", "heavy"])
def test_asymptotic_interval_holds_the_mean_at_all_times(law: str, unit: float) -> None:
    """Normal and Laplace differences, skewed ones and Student's t with 5 degrees; any unit."""
    rng = np.random.default_rng(3)
    shape = (STREAMS, ROWS)
    draws = {
        "normal": lambda: rng.normal(size=shape),
        "laplace": lambda: rng.laplace(size=shape),
        "skewed": lambda: rng.exponential(size=shape) - 1.0,
        "heavy": lambda: rng.standard_t(5, size=shape),
    }
    n, mean, v, scale = walked(unit * draws[law]())
    low, high = asymptotic_interval(n, mean, v, ALPHA, scale)
    assert ever_wrong(low, high, np.zeros(1)) <= ALPHA
    assert np.all(np.isfinite(high[:, confidence.START :]))
    assert np.median(high[:, -1]) < 2.2 * 1.96 * np.median(np.sqrt(v[:, -1])) / ROWS


def test_asymptotic_interval_holds_under_growing_variance_and_identical_beginnings() -> None:
    """Two learners that agree at first and then err ever more: anchored to rows that differ."""
    rng = np.random.default_rng(4)
    D = rng.normal(size=(STREAMS, ROWS)) * np.linspace(0.1, 3.0, ROWS)
    D[:, :500] = 0.0
    n, mean, v, scale = walked(D)
    low, high = asymptotic_interval(n, mean, v, ALPHA, scale)
    assert np.all(np.isinf(high[:, :599]))
    assert ever_wrong(low, high, np.zeros(1)) <= ALPHA


# -- evidence --------------------------------------------------------------------------------------


def test_null_streams_hardly_ever_gather_evidence() -> None:
    """2,000 null streams of 1,000 flips: an e-value of 20 is reached in at most 5 % (+ 1 %)."""
    flips = np.random.default_rng(5).random((2000, 1000)) < 0.5
    wins = np.cumsum(flips, axis=1).astype(np.float64)
    evidence = log_e_value(wins, np.arange(1.0, 1001.0) - wins)
    assert np.mean(np.any(evidence >= math.log(1 / ALPHA), axis=1)) <= ALPHA + 0.01


def test_a_better_learner_is_found_soon() -> None:
    """60 : 40 flips: the median stream reaches 20 in fewer than 200 flips."""
    flips = np.random.default_rng(6).random((2000, 1000)) < 0.6
    wins = np.cumsum(flips, axis=1).astype(np.float64)
    reached = log_e_value(wins, np.arange(1.0, 1001.0) - wins) >= math.log(1 / ALPHA)
    first = np.where(reached.any(axis=1), np.argmax(reached, axis=1) + 1, 10_000)
    assert np.median(first) < 200


def test_e_value_is_the_product_of_the_bets() -> None:
    expected = sum(math.log(1 + 0.2 * s) for s in (1, 1, -1, 1, -1))
    assert_allclose(log_e_value(3, 2), expected, rtol=1e-14)
