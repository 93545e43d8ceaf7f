"""Normalizer and UnitNorm against plain numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8, LABELLED, LEARN, PREDICT, Block, Features
from streamlearn.operators.scale import Normalizer, UnitNorm


def rows(X: F8, mode: int = LABELLED, weight: F8 | None = None) -> Block:
    """Rows without a target."""
    n = X.shape[0]
    names = Features([f"x{j}" for j in range(X.shape[1])])
    ones = np.ones(n) if weight is None else weight
    return Block(X, np.full(n, np.nan), ones, np.full(n, mode, dtype=np.uint8), names)


def naive_moments(x: F8, w: F8, q: float) -> tuple[float, float, float]:
    """Weighted mean, variance and mass of the values that are not NaN, by their definitions."""
    w, x = w[~np.isnan(x)], x[~np.isnan(x)]
    if not x.size:
        return 0.0, 0.0, 0.0
    weights = w * q ** np.arange(x.size - 1, -1, -1)
    mean = np.average(x, weights=weights)
    return mean, np.average((x - mean) ** 2, weights=weights), weights.sum()


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
def test_moments_equal_the_weighted_batch_after_every_prefix(kappa: float, offset: float) -> None:
    """M3's first acceptance test, with NaN and sample weights besides."""
    rng = np.random.default_rng(7)
    X = rng.normal(offset, 1.0, size=(120, 3))
    X[rng.random(X.shape) < 0.2] = np.nan
    weight = rng.uniform(0.5, 2.0, size=120)
    scaler = Normalizer(m=0.05, kappa=kappa)
    for n in range(1, 121):
        scaler.run(rows(X[n - 1 : n], weight=weight[n - 1 : n]))
        expected = [naive_moments(X[:n, j], weight[:n], 0.95**kappa) for j in range(3)]
        assert_allclose(scaler.moments_.T, expected, rtol=1e-10, atol=1e-10)


def test_scores_use_the_statistics_from_before_the_row() -> None:
    X = np.random.default_rng(0).normal(5.0, 3.0, size=(60, 2))
    out = Normalizer(m=0.1, clip=2.0).run(rows(X))["X"]
    assert_array_equal(out[:2], 0.0)  # no value seen, then one: no variance yet
    for t in range(2, 60):
        for j in range(2):
            mean, variance, _ = naive_moments(X[:t, j], np.ones(t), 0.9)
            score = np.clip((X[t, j] - mean) / np.sqrt(variance + 1e-8), -2.0, 2.0)
            assert_allclose(out[t, j], score, rtol=1e-9)


def test_update_first_takes_the_row_in_before_it_is_scored() -> None:
    X = np.random.default_rng(1).normal(size=(30, 1))
    out = Normalizer(kappa=0.0, update_first=True).run(rows(X))["X"]
    for t in range(1, 30):
        mean, deviation = X[: t + 1].mean(), np.sqrt(X[: t + 1].var() + 1e-8)
        assert_allclose(out[t, 0], (X[t, 0] - mean) / deviation, rtol=1e-9)


def test_only_rows_that_observe_with_a_weight_are_learnt() -> None:
    scaler = Normalizer()
    scaler.run(rows(np.array([[1.0], [3.0]])))
    before = scaler.moments_.copy()
    for mode in (PREDICT, LEARN, PREDICT | LEARN):
        scaler.run(rows(np.array([[9.0]]), mode))
    scaler.run(rows(np.array([[9.0]]), weight=np.zeros(1)))
    assert_array_equal(scaler.moments_, before)


def test_a_feature_that_never_moved_gives_zero_and_nan_stays_nan() -> None:
    X = np.array([[0.1, 1.0], [0.1, np.nan], [0.1, 2.0], [0.1, np.nan], [7.0, 3.0]])
    out = Normalizer().run(rows(X))["X"]
    assert_array_equal(out[:, 0], 0.0)
    assert_array_equal(np.isnan(out[:, 1]), np.isnan(X[:, 1]))


def test_an_infinite_row_is_passed_on_not_learnt_and_counted() -> None:
    X = np.array([[1.0, 2.0], [2.0, 3.0], [np.inf, 5.0], [1.0, -np.inf]])
    scaler, other = Normalizer(), Normalizer()
    out = scaler.run(rows(X))["X"]
    other.run(rows(X[:2]))
    assert_array_equal(out[2:], X[2:])
    assert_array_equal(scaler.moments_, other.moments_)
    assert scaler.n_rejected == 2
    scaler.run(rows(X[2:], PREDICT))
    assert scaler.n_rejected == 2


@pytest.mark.parametrize("kappa", [0.0, 1.0])
@given(X=arrays(np.float64, (20, 2), elements=st.floats(allow_nan=True, allow_infinity=False)))
def test_no_finite_input_breaks_the_state(kappa: float, X: F8) -> None:
    """Up to the largest float: 1.8e308 next to -1.8e308."""
    scaler = Normalizer(kappa=kappa)
    with np.errstate(over="ignore"):  # it is cut; only numpy, with the JIT off, says so
        out = scaler.run(rows(X))["X"]
    assert np.isfinite(scaler.moments_).all()
    assert_array_equal(np.isnan(out), np.isnan(X))
    assert np.nanmax(np.abs(out), initial=0.0) <= 8.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_floats_of_both_signs_leave_the_state_finite(sign: float) -> None:
    """Their difference is no float; every one of them still counts."""
    scaler = Normalizer(kappa=0.0)
    with np.errstate(over="ignore"):  # it is cut; only numpy, with the JIT off, says so
        scaler.run(rows(sign * np.array([[1.7e308], [-1.7e308], [1.7e308]])))
    assert np.isfinite(scaler.moments_).all()
    assert scaler.moments_[2, 0] == 3.0


def test_an_offset_of_1e8_costs_no_precision_that_the_input_had() -> None:
    noise = np.random.default_rng(3).normal(size=(400, 1))
    scaler = Normalizer(kappa=0.0)
    scaler.run(rows(noise + 1e8))
    assert_allclose(scaler.variance_, (noise + 1e8).var(), rtol=1e-6)


@pytest.mark.jit
def test_the_scale_of_the_inputs_does_not_reach_a_downstream_learner() -> None:
    """M3's third acceptance test: a linear learner by gradient descent."""
    rng = np.random.default_rng(5)
    X, w = rng.normal(2.0, 3.0, size=(500, 4)), rng.normal(size=4)

    def predictions(scale: float) -> F8:
        Z, weights, out = Normalizer().run(rows(X * scale))["X"], np.zeros(4), np.zeros(500)
        for t in range(500):
            out[t] = weights @ Z[t]
            weights += 0.01 * (X[t] @ w - out[t]) * Z[t]
        return out

    assert_allclose(predictions(1e6), predictions(1.0), rtol=1e-6, atol=1e-6)


def test_reset_keeps_a_share_of_the_memory() -> None:
    """Old values count half of what they did; with keep=0 they are gone."""
    X = np.random.default_rng(2).normal(size=(50, 1))
    scaler = Normalizer(kappa=0.0)
    scaler.run(rows(X[:30]))
    scaler.reset(keep=0.5)
    scaler.run(rows(X[30:]))
    w = np.where(np.arange(50) < 30, 0.5, 1.0)
    assert_allclose(scaler.moments_.T, [naive_moments(X[:, 0], w, 1.0)], rtol=1e-12)
    scaler.reset()
    assert_array_equal(scaler.moments_, np.zeros((3, 1)))


def test_a_new_feature_starts_afresh() -> None:
    scaler = Normalizer()
    for value in (1.0, 3.0):
        scaler.learn_one({"a": value})
    scaler.learn_one({"a": 2.0, "b": 5.0})
    assert_array_equal(scaler.mean_[1], 5.0)
    assert_allclose(scaler.mean_[0], 2.0, atol=1e-3)


@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        ({"m": 0.0}, r"m must be > 0 and < 1, got 0\.0"),
        ({"m": 2.0}, r"m must be in \[0, 1\], got 2\.0"),
        ({"kappa": -0.1}, r"kappa must be in \[0, 1\], got -0\.1"),
        ({"eps": -1.0}, r"eps must be >= 0, got -1\.0"),
        ({"clip": 0.0}, r"clip must be > 0, got 0\.0"),
        ({"update_first": 1}, r"update_first must be true or false, got 1"),
    ],
)
def test_arguments_are_checked(argument: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=f"^Normalizer: {rule}$"):
        Normalizer(**argument)  # type: ignore[arg-type]


def test_keep_is_checked() -> None:
    with pytest.raises(ValueError, match=r"^Normalizer: keep must be in \[0, 1\], got 2\.0$"):
        Normalizer().reset(keep=2.0)


def test_unit_norm_divides_by_the_length() -> None:
    X = np.random.default_rng(4).normal(size=(20, 5))
    expected = X / (np.linalg.norm(X, axis=1, keepdims=True) + 1e-8)
    assert_allclose(UnitNorm().run(rows(X))["X"], expected, rtol=1e-12)


def test_unit_norm_on_hard_rows() -> None:
    """No overflow at 1e300, zeros stay zeros, NaN is left out, infinity is passed on."""
    X = np.array([[3e300, 4e300], [0.0, 0.0], [np.nan, 2.0], [np.inf, 1.0]])
    norm = UnitNorm()
    expected = [[0.6, 0.8], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]]
    assert_allclose(norm.run(rows(X))["X"], expected, rtol=1e-7)
    assert norm.n_rejected == 1


@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 18), max_size=5))
def test_scores_and_state_do_not_depend_on_the_cut(seed: int, cuts: list[int]) -> None:
    """All modes and weights mixed; gaps and infinities in a few rows, so that parts have none."""
    rng = np.random.default_rng(seed)
    X = rng.normal(rng.choice([0.0, 1e8]), 1.0, size=(18, 3))
    X[rng.integers(0, 18, 2), rng.integers(0, 3, 2)] = rng.choice([np.nan, np.inf], 2)
    stream = rows(X, weight=rng.choice([0.0, 1.0, 2.5], 18))
    stream.mode[:] = rng.integers(0, 8, 18)
    whole, parts = Normalizer(m=0.1), Normalizer(m=0.1)
    expected = whole.run(stream)["X"]
    ends = [*sorted(cuts), 18]
    for a, b in zip([0, *ends[:-1]], ends, strict=True):
        assert_array_equal(parts.run(stream.rows(a, b))["X"], expected[a:b])
    assert_array_equal(whole.moments_, parts.moments_)
    assert whole.n_rejected == parts.n_rejected
