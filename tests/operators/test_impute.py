"""Imputer against plain numpy, value by value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import CATEGORY, F8, LABELLED, LEARN, NUMBER, PREDICT, Block, Features
from streamlearn.operators.impute import Imputer


def rows(X: F8, mode: int = LABELLED, weight: F8 | None = None) -> Block:
    """Rows without a target."""
    n = X.shape[0]
    names = Features([f"x{j}" for j in range(X.shape[1])])
    ones = np.ones(n) if weight is None else weight
    return Block(X, np.full(n, np.nan), ones, np.full(n, mode, dtype=np.uint8), names)


def with_gaps(n: int, seed: int) -> F8:
    """Three columns with a third of the values missing."""
    rng = np.random.default_rng(seed)
    X = rng.normal(5.0, 2.0, size=(n, 3))
    X[rng.random(X.shape) < 0.33] = np.nan
    return X


def naive(X: F8, weight: F8, strategy: str, fill: float) -> F8:
    """Each gap filled from the rows above it, by definition."""
    out = X.copy()
    for t, j in np.argwhere(np.isnan(X)):
        known = ~np.isnan(X[:t, j])
        seen, w = X[:t, j][known], weight[:t][known]
        if strategy == "constant" or not seen.size:
            out[t, j] = fill
        else:
            out[t, j] = seen[-1] if strategy == "last" else np.average(seen, weights=w)
    return out


@pytest.mark.parametrize("strategy", ["mean", "last", "constant"])
def test_gaps_are_filled_from_the_rows_before(strategy: str) -> None:
    X, weight = with_gaps(100, 1), np.random.default_rng(2).uniform(0.5, 2.0, size=100)
    out = Imputer(strategy, fill=-1.0).run(rows(X, weight=weight))["X"]
    assert_allclose(out, naive(X, weight, strategy, -1.0), rtol=1e-12)


@pytest.mark.parametrize("d", [1, 3, 4, 9])
def test_a_block_without_gaps_is_handed_on_and_still_learnt(d: int) -> None:
    """By columns, in fours where there are as many; a row of weight 0 or a question is none."""
    rng = np.random.default_rng(3)
    X, weight = rng.normal(size=(50, d)), rng.choice([0.0, 0.5, 2.0], 50)
    block, imputer = rows(X, weight=weight), Imputer()
    block.mode[::7] = PREDICT
    imputer.run(rows(X[:1]))
    assert imputer.run(block)["X"] is block.X
    weight[::7] = 0.0
    seen, w = np.concatenate([X[:1], X]), np.concatenate([[1.0], weight])
    assert_allclose(imputer.fill_, np.average(seen, axis=0, weights=w), rtol=1e-12)
    assert_array_equal(imputer.mass_, w.sum())


def test_only_rows_that_observe_with_a_weight_are_learnt() -> None:
    imputer = Imputer()
    imputer.run(rows(np.array([[1.0], [3.0]])))
    for mode in (PREDICT, LEARN, PREDICT | LEARN):
        imputer.run(rows(np.array([[9.0]]), mode))
    imputer.run(rows(np.array([[9.0]]), weight=np.zeros(1)))
    assert_array_equal(imputer.run(rows(np.array([[np.nan]])))["X"], [[2.0]])


def test_an_infinite_row_is_passed_on_not_learnt_and_counted() -> None:
    X = np.array([[1.0, 2.0], [np.inf, np.nan], [np.nan, 4.0]])
    imputer = Imputer()
    out = imputer.run(rows(X))["X"]
    assert_array_equal(out, [[1.0, 2.0], [np.inf, np.nan], [1.0, 4.0]])
    assert imputer.n_rejected == 1


@pytest.mark.parametrize(("strategy", "size"), [("mean", 2.0), ("last", 3.0), ("constant", 0.0)])
def test_a_missing_category_stays_missing(strategy: str, size: float) -> None:
    imputer = Imputer(strategy)
    imputer.learn_one({"colour": "red", "size": 1.0})
    imputer.learn_one({"colour": "blue", "size": 3.0})
    assert imputer.transform_one({}) == {"size": size}
    assert imputer.output_features(imputer._features).kinds == (CATEGORY, NUMBER)


def test_the_constant_leaves_no_trace_in_the_mean() -> None:
    imputer = Imputer(fill=1e17)
    assert_array_equal(imputer.run(rows(np.array([[1.0], [np.nan]])))["X"], 1.0)


def test_indicators_follow_their_features_also_when_features_come_later() -> None:
    imputer = Imputer(indicators=True)
    imputer.learn_one({"a": 4.0})
    assert imputer.transform_one({}) == {"a": 4.0, "a_missing": 1.0}
    imputer.learn_one({"a": 6.0, "b": 1.0})
    names = imputer.output_features(imputer._features).names
    assert names == ("a", "a_missing", "b", "b_missing")
    seen = imputer.transform_one({"b": 9.0})
    assert seen == {"a": 5.0, "a_missing": 1.0, "b": 9.0, "b_missing": 0.0}


@pytest.mark.parametrize("strategy", ["mean", "last"])
@given(X=arrays(np.float64, (20, 2), elements=st.floats(allow_nan=True, allow_infinity=False)))
def test_no_finite_input_breaks_the_state(strategy: str, X: F8) -> None:
    imputer = Imputer(strategy)
    with np.errstate(over="ignore"):  # it is cut; only numpy, with the JIT off, says so
        out = imputer.run(rows(X))["X"]
    assert np.isfinite(out).all()
    assert np.isfinite(imputer.fill_).all()


@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        ({"strategy": "median"}, "strategy must be one of mean, last, constant, got 'median'"),
        ({"fill": np.inf}, "fill must be a finite number, got inf"),
        ({"indicators": "yes"}, "indicators must be true or false, got 'yes'"),
    ],
)
def test_arguments_are_checked(argument: dict[str, str], rule: str) -> None:
    with pytest.raises(ValueError, match=f"^Imputer: {rule}$"):
        Imputer(**argument)  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", ["mean", "last"])
@given(
    seed=st.integers(0, 10**6),
    d=st.sampled_from([3, 9]),
    cuts=st.lists(st.integers(0, 18), max_size=5),
)
def test_fills_and_state_do_not_depend_on_the_cut(
    strategy: str, seed: int, d: int, cuts: list[int]
) -> None:
    """All modes and weights mixed; gaps and infinities in a few rows, so that parts have none."""
    rng = np.random.default_rng(seed)
    X = rng.normal(rng.choice([0.0, 1e8]), 1.0, size=(18, d))
    X[rng.integers(0, 18, 2), rng.integers(0, d, 2)] = rng.choice([np.nan, np.inf], 2)
    stream = rows(X, weight=rng.choice([0.0, 1.0, 2.5], 18))
    stream.mode[:] = rng.integers(0, 8, 18)
    whole, parts = Imputer(strategy, indicators=True), Imputer(strategy, indicators=True)
    expected = whole.run(stream)["X"]
    ends = [*sorted(cuts), 18]
    for a, b in zip([0, *ends[:-1]], ends, strict=True):
        assert_array_equal(parts.run(stream.rows(a, b))["X"], expected[a:b])
    assert_array_equal(whole.fill_, parts.fill_)
    assert_array_equal(whole.mass_, parts.mass_)
    assert whole.n_rejected == parts.n_rejected
