"""Bags of words by whole columns against the same cell by cell, and features side by side."""

import contextlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from streamlearn.block import Csr
from streamlearn.schema import Feature
from streamlearn.schema_bags import bag, bags, side_by_side

MISSING = frozenset({"", "NA"})
WORDS = st.sampled_from(["a", "b", "Ärger", "3", "-1", "", "x y", "\ud800"])
NUMBERS = st.one_of(st.integers(-3, 12), st.sampled_from([2**40, 2**63 - 1, -(2**63)]))
COLUMNS = st.one_of(
    st.lists(st.none() | st.lists(NUMBERS, max_size=6), max_size=6),
    st.lists(st.none() | st.lists(WORDS, max_size=6), max_size=6),
    st.lists(st.none() | st.lists(WORDS | NUMBERS | st.booleans() | st.none(), max_size=4)),
    st.lists(st.none() | st.dictionaries(WORDS, st.none() | st.floats(-2, 2), max_size=4)),
    st.lists(st.none() | WORDS, max_size=6),
)


def by_hand(column: list[Any], feature: Feature) -> np.ndarray:
    out = np.zeros((len(column), feature.buckets))
    for i, value in enumerate(column):
        for place, count in bag(value, feature, MISSING).items():
            out[i, place] = count
    return out


def never(row: int, reason: Exception) -> None:
    raise AssertionError(row, reason)


@given(COLUMNS, st.sampled_from(["words", "text"]), st.integers(1, 9))
def test_whole_columns_agree_with_cells(column: list[Any], kind: Any, buckets: int) -> None:
    feature = Feature(kind=kind, buckets=buckets)
    if kind == "text":
        column = [value for value in column if value is None or isinstance(value, str)]
    expected = by_hand(column, feature)
    found = [bags(column, feature, MISSING, never)]
    no_type_holds_it = (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError)
    with contextlib.suppress(*no_type_holds_it):
        found.append(bags(pa.array(column), feature, MISSING, never))
    for got in found:
        if not any(isinstance(value, dict) for value in column):  # Arrow makes structs of tables
            assert_array_equal(got.dense(), expected)
        for a, b in zip(got.indptr[:-1], got.indptr[1:], strict=True):
            assert (np.diff(got.columns[a:b]) > 0).all()
    assert_array_equal(found[0].dense(), expected)


def test_rows_of_a_sliced_arrow_column_are_its_own() -> None:
    column = pa.array([[1, 2], None, [], [3, 3]]).slice(1)
    got = bags(column, Feature(kind="words", buckets=4), MISSING, never)
    assert_array_equal(got.dense(), [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 2]])


def test_a_value_that_does_not_fit_is_told_and_empty() -> None:
    told: dict[int, str] = {}
    column = [["a"], 3.5, None]
    feature = Feature(kind="words", buckets=4)
    got = bags(column, feature, MISSING, lambda row, reason: told.update({row: str(reason)}))
    assert told == {1: "must be a list of tokens or a table of counts, got 3.5"}
    assert got.indptr.tolist() == [0, 1, 1, 1]


def test_features_lie_side_by_side() -> None:
    rng = np.random.default_rng(0)
    dense = [np.where(rng.random((5, w)) < 0.5, 1.0, 0.0) for w in (3, 1, 4)]
    got = side_by_side([_csr(part) for part in dense])
    assert_array_equal(got.dense(), np.hstack(dense))
    assert got.width == 8


@pytest.mark.parametrize("rows", [[], [0], [3, 1, 1, 4]])
def test_rows_can_be_taken_and_replaced(rows: list[int]) -> None:
    rng = np.random.default_rng(1)
    dense = np.where(rng.random((5, 6)) < 0.5, rng.normal(size=(5, 6)), 0.0)
    whole, chosen = _csr(dense), np.array(rows, dtype=np.int64)
    assert_array_equal(whole.take(chosen).dense(), dense[chosen])
    packed = whole.packed()
    some = np.unique(chosen)
    turned = whole.replaced(some, [packed[4 - t] for t in some.tolist()])
    expected = dense.copy()
    expected[some] = dense[4 - some]
    assert_array_equal(turned.dense(), expected)


def _csr(dense: np.ndarray) -> Csr:
    t, j = np.nonzero(dense)
    ends = np.concatenate([[0], np.cumsum(np.bincount(t, minlength=dense.shape[0]))])
    return Csr(dense[t, j], j.astype(np.int64), ends.astype(np.int64), dense.shape[1])
