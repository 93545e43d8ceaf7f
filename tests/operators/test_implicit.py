"""Implicit linear learners: sparse input, late labels of it, hard input, real streams, messages."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from streamlearn import replay
from streamlearn.block import EXPIRED, F8, LABELLED, LEARN, SCORED, Block, Csr, Features
from streamlearn.operators import (
    ADWIN,
    AdaptiveClassifier,
    ImplicitLinearClassifier,
    ImplicitLinearRegressor,
)
from streamlearn.pipeline import Pipeline
from streamlearn.spill import Spill
from streamlearn.testing import assert_same_bits, assert_same_state, labelled, through_json

NONE = Features(())


def csr(dense: F8) -> Csr:
    t, j = np.nonzero(dense)
    ends = np.concatenate([[0], np.cumsum(np.bincount(t, minlength=dense.shape[0]))])
    return Csr(dense[t, j], j.astype(np.int64), ends.astype(np.int64), dense.shape[1])


def sparse_rows(X: F8, y: F8, mode: Any = LABELLED, events: Any = None) -> Block:
    """X as sparse columns alone."""
    n = X.shape[0]
    modes = np.broadcast_to(np.asarray(mode, dtype=np.uint8), n).copy()
    return Block(
        np.zeros((n, 0)), y.astype(float), np.ones(n), modes, NONE, sparse=csr(X), events=events
    )


def dense_rows(X: F8, y: F8, weight: Any = None) -> Block:
    """Labelled rows of X alone, without a class table."""
    n = X.shape[0]
    names = Features([f"x{j}" for j in range(X.shape[1])])
    weights = np.ones(n) if weight is None else weight
    return Block(X, y, weights, np.full(n, LABELLED, dtype=np.uint8), names)


def bag_stream(seed: int, n: int = 60, m: int = 20, K: int = 3) -> tuple[F8, F8]:
    rng = np.random.default_rng(seed)
    X = np.where(rng.random((n, m)) < 0.2, rng.integers(1, 4, (n, m)), 0).astype(float)
    y = np.argmax(X @ rng.normal(size=(m, K)), axis=1).astype(float)
    return X, y


@given(seed=st.integers(0, 50), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_sparse_state_does_not_know_the_cut(seed: int, cuts: list[int]) -> None:
    """Room for columns and classes is made by the block; what is state goes by the row."""
    X, y = bag_stream(seed)
    mode = np.random.default_rng(seed).integers(0, 8, 60)
    block = sparse_rows(X, y, mode)
    whole, parts = ImplicitLinearClassifier(loss="hinge"), ImplicitLinearClassifier(loss="hinge")
    expected = whole.run(block)
    for a, b in itertools.pairwise([0, *sorted(cuts), 60]):
        out = parts.run(block.rows(a, b))
        assert_array_equal(out["prediction"], expected["prediction"][a:b])
    assert_same_state(whole.state(), parts.state())


def test_columns_never_learnt_take_no_room() -> None:
    """A million buckets cost nothing before a row shows them; asking opens none."""
    model = ImplicitLinearClassifier()
    wide = Csr(np.ones(2), np.array([3, 900_000]), np.array([0, 1, 2]), 2**31)
    rows = sparse_rows(np.zeros((2, 1)), np.array([0.0, 1.0]), [7, 1]).replace(sparse=wide)
    model.run(rows)
    assert model.sparse_.shape == (4, 2, 1)
    assert model.state_bytes < 1000
    model.run(rows.replace(mode=np.array([7, 7], dtype=np.uint8)))
    assert model.sparse_.shape == (900_001, 2, 2)


def late_stream(n: int = 3000) -> tuple[Block, Block]:
    """A click stream: the label of row i after row i + 40, some never; and the same at once."""
    X, y = bag_stream(1, n, 50, 2)
    events, labels = np.arange(n), np.arange(n)
    due = np.concatenate([events, labels + 40.5])
    order = np.argsort(due, kind="stable")
    who = np.concatenate([events, labels])[order]
    brings = np.concatenate([np.zeros(n, bool), np.ones(n, bool)])[order]
    mode = np.where(brings, np.where(who % 7 == 0, EXPIRED, LEARN), SCORED)
    told = np.where(brings & (mode == LEARN), y[who], np.nan)
    rows = sparse_rows(np.where(brings[:, None], 0.0, X[who]), told, mode, who)
    taught = labels[labels % 7 != 0]
    return rows, sparse_rows(X[taught], y[taught])


@pytest.mark.jit
@pytest.mark.parametrize("memory", [None, 0, 100_000])
def test_late_labels_teach_on_the_sparse_features_of_then(
    memory: int | None, tmp_path: Path
) -> None:
    """The state is that of the same rows learnt in the order of their labels; spilled or not."""
    rows, plain = late_stream()
    expected = ImplicitLinearClassifier(lr_alpha=0.0)
    expected.run(plain)
    for size in (7, 1000, rows.n):
        pipe = Pipeline(ImplicitLinearClassifier(lr_alpha=0.0))
        if memory is not None:
            folder = tmp_path / f"{size}"
            pipe.spill_to(Spill(folder, 2), memory)
        for start in range(0, rows.n, size):
            pipe.run(rows.rows(start, min(start + size, rows.n)))
        assert pipe.pending == 0
        model = pipe.stages[0]
        assert isinstance(model, ImplicitLinearClassifier)
        assert_array_equal(model.sparse_, expected.sparse_)
        assert_array_equal(model.dense_, expected.dense_)


@pytest.mark.jit
@pytest.mark.parametrize("family", [ImplicitLinearClassifier, ImplicitLinearRegressor])
def test_sparse_columns_before_the_first_are_refused(family: Any) -> None:
    """The weights there would have been read and written outside the table."""
    block = labelled(np.ones((2, 1)), np.array([0.0, 1.0]))
    before = Csr(np.ones(2), np.array([4, -7]), np.array([0, 1, 2]), 8)
    with pytest.raises(
        ValueError, match=rf"^{family.__name__}: sparse columns must be >= 0, got -7$"
    ):
        family().run(block.replace(sparse=before))


def test_pending_sparse_rows_are_state() -> None:
    """Save and load while labels are out: bits as if nothing had happened."""
    rows, _ = late_stream()
    whole, going, resumed = (Pipeline(ImplicitLinearClassifier(), ADWIN()) for _ in range(3))
    expected = whole.run(rows)
    for start in range(0, 2050, 41):
        going.run(rows.rows(start, start + 41))
    resumed.load(through_json(going.state()))
    assert resumed.pending == going.pending > 0
    rest = resumed.run(rows.rows(2050, rows.n))
    assert_same_bits({name: column[2050:] for name, column in expected.items()}, rest)
    assert_same_state(whole.state(), resumed.state())


@pytest.mark.jit
def test_wrappers_hand_sparse_columns_on() -> None:
    X, y = bag_stream(2, 2000, 50, 2)
    y[1000:] = 1.0 - y[1000:]
    plain = ImplicitLinearClassifier().run(sparse_rows(X, y))["prediction"]
    wrapped = Pipeline(AdaptiveClassifier(ImplicitLinearClassifier(), ADWIN()))
    out = wrapped.run(sparse_rows(X, y))
    assert out["alarm"].any()
    assert (out["prediction"] == y)[1000:].mean() > (plain == y)[1000:].mean()


COUNT_LINES = """
import sys
import numpy as np
from streamlearn.block import LABELLED, Block, Csr, Features
from streamlearn.operators import ImplicitLinearClassifier

def lines(width, filled):
    rng, n = np.random.default_rng(0), 20
    columns = np.sort(rng.integers(0, width, (n, filled)), axis=1).ravel()
    sparse = Csr(np.ones(n * filled), columns, np.arange(n + 1) * filled, width)
    y, mode = np.arange(n) % 2.0, np.full(n, LABELLED, np.uint8)
    block = Block(np.zeros((n, 0)), y, np.ones(n), mode, Features(()), sparse=sparse)
    model, count = ImplicitLinearClassifier(), 0
    model.run(block)

    def trace(frame, event, _):
        nonlocal count
        if not frame.f_code.co_filename.endswith("jit/implicit.py"):
            return None
        count += event == "line"
        return trace

    sys.settrace(trace)
    model.run(block)
    sys.settrace(None)
    return count

print(lines(2000, 30), lines(20_000, 30), lines(20_000, 300))
"""


def test_cost_goes_by_non_zeros_and_not_by_columns() -> None:
    """Steps of ten times the columns, and of ten times the non-zeros.

    The steps are lines of the kernels run as plain Python; what they take is in the benchmarks.
    """
    plain = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-c", COUNT_LINES]
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=True)
    narrow, wide, full = map(int, done.stdout.split())
    assert narrow > 20 * 30 * 2
    assert abs(wide / narrow - 1.0) < 0.2
    assert 5.0 < full / wide < 11.0


@pytest.mark.parametrize("loss", ["softmax", "logistic", "hinge"])
@pytest.mark.parametrize("step", ["implicit", "truncated"])
@pytest.mark.jit
def test_hostile_classes_leave_finite_weights(loss: str, step: str) -> None:
    model = ImplicitLinearClassifier(loss=loss, step=step, alpha=1e-3)
    out = model.run(dense_rows(*hostile(20_000, classes=True)))
    assert np.isfinite(model.dense_).all()
    assert np.isfinite(model.weights()[0]).all()
    known = ~np.isnan(out["prediction"])
    assert known.mean() > 0.99
    assert_allclose(out["proba"][known].sum(axis=1), 1.0)


@pytest.mark.parametrize("loss", ["squared", "absolute", "quantile", "huber", "poisson"])
@pytest.mark.parametrize("step", ["implicit", "truncated"])
@pytest.mark.jit
def test_hostile_targets_leave_finite_weights(loss: str, step: str) -> None:
    model = ImplicitLinearRegressor(loss=loss, step=step, alpha=1e-3)
    out = model.run(labelled(*hostile(20_000, classes=False)))
    assert np.isfinite(model.dense_).all()
    assert not np.isinf(out["prediction"]).any()


def hostile(n: int, classes: bool) -> tuple[F8, F8]:
    """Collinear, constant, scales 1e-6 to 1e6, rare rows of 1e200."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 6)) * 10.0 ** np.array([-6, -3, 0, 3, 6, 0])
    X[:, 1] = X[:, 0] * 2.0
    X[:, 5] = 7.0
    y = (X[:, 2] > 0).astype(float) if classes else np.abs(X[:, 2] + 1e-6 * X[:, 4])
    X[:: n // 20] *= 1e200
    return X, y


@pytest.mark.jit
def test_one_huge_feature_does_not_blow_up_the_stream() -> None:
    """What explicit gradients do at the first outlier: accuracy before and after it is the same."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(4000, 3))
    y = (X[:, 0] > 0).astype(float)
    X[2000] *= 1e6
    out = ImplicitLinearClassifier().run(dense_rows(X, y))
    right = out["prediction"] == y
    assert right[1500:2000].mean() > 0.97
    assert right[2001:2500].mean() > 0.97


@pytest.mark.jit
def test_quantiles_cover_what_they_say() -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(20_000, 2))
    y = 1000.0 + 50.0 * X[:, 0] + 20.0 * rng.normal(size=20_000)
    for level in (0.1, 0.5, 0.9):
        model = ImplicitLinearRegressor(loss="quantile", quantile=level, rho=0.0)
        out = model.run(labelled(X, y))["prediction"]
        assert (y < out)[2000:].mean() == pytest.approx(level, abs=0.03)


@pytest.mark.jit
def test_counts_are_learnt_through_the_exponential() -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(20_000, 2))
    rate = np.exp(3.0 + 0.5 * X[:, 0])
    model = ImplicitLinearRegressor(loss="poisson", rho=0.0)
    out = model.run(labelled(X, rng.poisson(rate).astype(float)))["prediction"]
    assert np.median(np.abs(out / rate - 1.0)[10_000:]) < 0.05
    before = model.n_rejected
    model.run(labelled(X[:1], np.array([-1.0])))
    assert model.n_rejected == before + 1


@pytest.mark.jit
def test_units_of_the_target_do_not_matter() -> None:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(500, 3))
    y = X @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=500)
    for loss in ("squared", "absolute", "huber", "quantile"):
        plain = ImplicitLinearRegressor(loss=loss).run(labelled(X, y))["prediction"]
        other = ImplicitLinearRegressor(loss=loss).run(labelled(X, 1e6 * y + 5e6))["prediction"]
        assert_allclose(other[5:], 1e6 * plain[5:] + 5e6, rtol=1e-6, atol=1.0)


@pytest.mark.jit
def test_balance_raises_the_recall_of_a_rare_class() -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(20_000, 2))
    y = (X[:, 0] + rng.normal(size=20_000) > 2.6).astype(float)
    recall = {}
    for balance in (False, True):
        model = ImplicitLinearClassifier(balance=balance)
        out = model.run(dense_rows(X, y))["prediction"]
        recall[balance] = (out[y == 1.0] == 1.0).mean()
    assert recall[True] > recall[False] + 0.2


@pytest.mark.jit
def test_forgetting_follows_a_change_and_never_underflows() -> None:
    """rho 0.5 multiplies its factor in every 333 rows; 0.003 keeps up with a plane that turns."""
    rng = np.random.default_rng(6)
    X, turn = rng.normal(size=(20_000, 2)), np.arange(20_000) / 1500.0
    y = (X[:, 0] * np.cos(turn) + X[:, 1] * np.sin(turn) > 0).astype(float)
    right = {}
    for rho in (0.0, 0.003, 0.5):
        model = ImplicitLinearClassifier(rho=rho)
        out = model.run(dense_rows(X, y))
        right[rho] = (out["prediction"] == y)[5000:].mean()
        assert np.isfinite(model.weights()[0]).all()
    assert right[0.003] > right[0.0] + 0.005


def test_several_targets_each_have_their_weights() -> None:
    rng = np.random.default_rng(7)
    X, Y = rng.normal(size=(50, 2)), rng.normal(size=(50, 3))
    together = ImplicitLinearRegressor().run(labelled(X, Y))["prediction"]
    for k in range(3):
        alone = ImplicitLinearRegressor().run(labelled(X, Y[:, k]))["prediction"]
        assert_array_equal(alone, together[:, k])


def test_infinite_sparse_values_are_refused() -> None:
    X = np.array([[1.0, np.inf], [1.0, 0.0]])
    model = ImplicitLinearClassifier()
    out = model.run(sparse_rows(X, np.array([0.0, 1.0])))
    assert model.n_rejected == 1
    assert np.isnan(out["prediction"][0])
    assert model.n_samples_ == 1


@pytest.mark.jit
def test_spam_from_the_command_line_default(shared_data: Path) -> None:
    """39,916 sparse columns without a Densifier."""
    data = shared_data / "spam_assassin_sparse.parquet"
    result = replay(data, target="spam", model="ImplicitLinear", limit=3000)
    assert "Densifier" not in result.model
    accuracy, log_loss = result.metrics["accuracy"], result.metrics["log_loss"]
    assert accuracy is not None and accuracy > 0.95  # noqa: PT018
    assert log_loss is not None and log_loss < 0.15  # noqa: PT018


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"loss": "squared"}, "loss must be one of softmax, logistic, hinge, got 'squared'"),
        ({"alpha": 0.0}, r"alpha must be > 0, got 0\.0"),
        ({"beta": -1.0}, r"beta must be > 0, got -1\.0"),
        ({"rho": 0.6}, r"rho must be in \[0, 0\.5\], got 0\.6"),
        ({"l1": -1.0}, r"l1 must be >= 0, got -1\.0"),
        ({"rate": "fast"}, "rate must be one of coordinate, scalar, constant, got 'fast'"),
        ({"step": "explicit"}, "step must be one of implicit, truncated, got 'explicit'"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rf"^ImplicitLinearClassifier: {rule}$"):
        ImplicitLinearClassifier(**arguments)


def test_quantile_must_be_inside() -> None:
    with pytest.raises(
        ValueError, match=r"^ImplicitLinearRegressor: quantile must be in \(0, 1\), got 1\.0$"
    ):
        ImplicitLinearRegressor(quantile=1.0)


def test_a_bad_weight_is_refused_before_anything_is_learnt() -> None:
    model = ImplicitLinearRegressor()
    rows = labelled(np.ones((2, 1)), np.ones(2), weight=np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"weight must be >= 0 and finite, got -1\.0 in row 1"):
        model.run(rows)
    assert model.n_samples_ == 0


def test_what_a_row_lacks_is_counted_once_an_event() -> None:
    model = ImplicitLinearRegressor()
    rows = labelled(np.array([[1.0, np.nan], [np.nan, np.nan], [1.0, 2.0]]), np.ones(3))
    model.run(rows)
    assert model.n_imputed == 3
    model.run(rows.replace(mode=np.full(3, 2, np.uint8)))  # the labels alone
    assert model.n_imputed == 3
