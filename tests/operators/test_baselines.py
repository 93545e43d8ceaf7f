"""The baselines against loops in plain Python."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn.block import F8, LABELLED, LEARN, OBSERVE, PREDICT, Block, Features
from streamlearn.operators.baselines import (
    MajorityClassifier,
    MeanRegressor,
    NoChangeClassifier,
    NoChangeRegressor,
)

CLASSIFIERS: list[Any] = [NoChangeClassifier, MajorityClassifier]
REGRESSORS: list[Any] = [NoChangeRegressor, MeanRegressor]


def block(y: F8, weight: F8 | None = None, mode: Any = LABELLED, X: F8 | None = None) -> Block:
    """Rows of two features that no baseline looks at."""
    n = y.shape[0]
    return Block(
        np.zeros((n, 2)) if X is None else X,
        y,
        np.ones(n) if weight is None else weight,
        np.broadcast_to(np.asarray(mode, dtype=np.uint8), (n,)).copy(),
        Features(["a", "b"]),
    )


def mixed(seed: int, n: int, classes: bool) -> Block:
    """Missing targets, zero weights, and every mode."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n).astype(float) if classes else rng.normal(10.0, 5.0, n)
    y[rng.random(n) < 0.2] = np.nan
    weight = rng.choice([0.0, 0.5, 1.0, 3.0], n)
    return block(y, weight, rng.integers(0, 8, n))


def walk(rows: Block, answer: Any) -> list[Any]:
    """What `answer` makes of the (target, weight) pairs learnt before each row; None unasked."""
    learnt: list[tuple[float, float]] = []
    out = []
    for y, w, mode in zip(rows.y, rows.weight, rows.mode, strict=True):
        out.append(answer(learnt) if mode & PREDICT else None)
        if mode & LEARN and w > 0 and not math.isnan(y):
            learnt.append((float(y), float(w)))
    return out


def last(learnt: list[tuple[float, float]]) -> float:
    return learnt[-1][0] if learnt else math.nan


def mean(learnt: list[tuple[float, float]]) -> float:
    return sum(y * w for y, w in learnt) / sum(w for _, w in learnt) if learnt else math.nan


def shares(learnt: list[tuple[float, float]]) -> list[float]:
    total = Counter[int]()
    for y, w in learnt:
        total[int(y)] += w  # type: ignore[assignment]  # weights are no whole numbers
    mass = sum(total.values())
    return [total[k] / mass for k in range(4)] if learnt else [0.0] * 4


def commonest(learnt: list[tuple[float, float]]) -> float:
    return float(np.argmax(shares(learnt))) if learnt else math.nan


def filled(values: list[Any]) -> F8:
    return np.array([math.nan if v is None else v for v in values])


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (NoChangeClassifier, last),
        (MajorityClassifier, commonest),
        (NoChangeRegressor, last),
        (MeanRegressor, mean),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_predictions_equal_the_definition_at_every_row(make: Any, answer: Any, seed: int) -> None:
    rows = mixed(seed, 100, make in CLASSIFIERS)
    expected = filled(walk(rows, answer))
    assert_allclose(make().run(rows)["prediction"], expected, rtol=1e-12)


@pytest.mark.parametrize("make", CLASSIFIERS)
def test_probabilities_equal_the_definition_at_every_row(make: Any) -> None:
    rows = mixed(9, 100, classes=True)
    proba = make().run(rows)["proba"]
    answers = walk(rows, shares if make is MajorityClassifier else last)
    for row, answer in zip(proba, answers, strict=True):
        if answer is None:
            assert np.isnan(row[row != 0.0]).all()
        elif make is MajorityClassifier:
            assert_allclose(row, answer, rtol=1e-12)
        else:
            assert_array_equal(row, [k == answer for k in range(4)])


@pytest.mark.parametrize("make", CLASSIFIERS + REGRESSORS)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(1, 18), max_size=5))
def test_answers_and_state_do_not_depend_on_the_cut(make: Any, seed: int, cuts: list[int]) -> None:
    """Rows that got no answer included: NaN for the classes known then, 0 for later ones."""
    rows = mixed(seed, 19, make in CLASSIFIERS)
    whole, parts = make(), make()
    expected = whole.run(rows)
    for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 19], strict=True):
        for name, column in parts.run(rows.rows(a, b)).items():
            width = column.shape[1:]
            assert_array_equal(expected[name][(slice(a, b), *map(slice, width))], column)
            assert not expected[name][a:b][..., column.shape[-1] :].any() or not width
    for name in make._arrays:
        assert_array_equal(getattr(whole, name), getattr(parts, name))


@pytest.mark.parametrize("make", CLASSIFIERS + REGRESSORS)
def test_infinite_rows_are_refused_and_counted(make: Any) -> None:
    """An infinite feature: no answer and no learning; an infinite target: no learning."""
    X = np.array([[0.0, 0.0], [np.inf, 0.0], [0.0, 0.0], [0.0, 0.0]])
    y = np.array([1.0, 0.0, -np.inf, 0.0])
    model = make()
    out = model.run(block(y, X=X))["prediction"]
    assert_array_equal(out, [np.nan, np.nan, 1.0, 1.0])
    assert model.n_rejected == 2
    model.run(block(y, X=X, mode=PREDICT | OBSERVE))
    assert model.n_rejected == 2


def test_of_equal_counts_the_earliest_class_wins() -> None:
    out = MajorityClassifier().run(block(np.array([1.0, 0.0, 2.0, 2.0, 0.0, 0.0])))
    assert_array_equal(out["prediction"], [np.nan, 1.0, 0.0, 0.0, 2.0, 0.0])


def test_the_largest_targets_leave_the_mean_finite() -> None:
    model = MeanRegressor()
    with np.errstate(over="ignore"):  # it is cut; only numpy, with the JIT off, says so
        model.run(block(np.array([1.7e308, -1.7e308, 1.7e308])))
    assert np.isfinite(model.stats_).all()


@pytest.mark.parametrize("make", CLASSIFIERS + REGRESSORS)
def test_several_targets_are_refused(make: Any) -> None:
    rows = block(np.zeros(3)).replace(y=np.zeros((3, 2)))
    rule = f"^{make.__name__}: y must be one target a row, \\(n,\\), got shape \\(3, 2\\)$"
    with pytest.raises(ValueError, match=rule):
        make().run(rows)


def test_before_the_first_label_nothing_is_said() -> None:
    assert NoChangeClassifier().predict_one({"a": 1.0}) is None
    assert MajorityClassifier().predict_proba_one({"a": 1.0}) == {}
    assert MeanRegressor().predict_one({"a": 1.0}) == 0.0
