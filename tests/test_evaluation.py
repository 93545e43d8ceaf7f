"""Evaluation against numbers worked by hand, scikit-learn, River, slow twins, and the law."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from river import dummy
from river import metrics as _river_metrics
from sklearn import metrics as sk

from streamlearn.block import (
    EXPIRED,
    F8,
    LABELLED,
    LEARN,
    PREDICT,
    SCORED,
    UNSCORED,
    Block,
    Columns,
    Features,
    Vocabulary,
)
from streamlearn.evaluation import MAX_ALARMS, METRICS, Evaluation
from streamlearn.operators._base import Operator, Regressor
from streamlearn.operators.baselines import (
    MajorityClassifier,
    MeanRegressor,
    NoChangeClassifier,
    NoChangeRegressor,
)

river_metrics: Any = _river_metrics  # untyped

NAN = math.nan
NO_FEATURES = Features(())
CLIP = 1e-15


def block_of(y: Any, mode: Any = LABELLED, labels: Vocabulary | None = None) -> Block:
    """Rows with labels and no features: evaluation looks at nothing else."""
    targets = np.array(y, dtype=np.float64)
    n = targets.shape[0]
    modes = np.array(np.broadcast_to(mode, n), dtype=np.uint8)
    return Block(np.zeros((n, 0)), targets, np.ones(n), modes, NO_FEATURES, labels)


def answers(prediction: Any, proba: Any = None, alarm: Any = None) -> Columns:
    columns: Columns = {"prediction": np.array(prediction, dtype=np.float64)}
    if proba is not None:
        columns["proba"] = np.array(proba, dtype=np.float64)
    if alarm is not None:
        columns["alarm"] = np.array(alarm, dtype=np.uint8)
    return columns


def part(columns: Columns, start: int, stop: int) -> Columns:
    return {name: column[start:stop] for name, column in columns.items()}


def assert_holds(found: dict[str, Any], expected: dict[str, Any], **tolerance: Any) -> None:
    """The metrics that are expected; others may stand beside them."""
    assert {name: found[name] for name in expected} == pytest.approx(expected, **tolerance)


def stream(seed: int, n: int, k: int = 3, offset: float = 0.0) -> tuple[F8, F8, F8]:
    """Codes, predictions that are often right, and probabilities."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n).astype(np.float64)
    prediction = np.where(rng.random(n) < 0.6, y, rng.integers(0, k, n))
    return y, prediction, rng.dirichlet(np.ones(k), n)


# -- by hand ---------------------------------------------------------------------------------------

# twelve events: the first finds a model that knows nothing
Y12 = [0, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 1]
SAID12 = [NAN, 0, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1]
TRUE12 = [
    NAN,
    0.8,
    0.25,
    0.5,
    0.5,
    0.2,
    0.8,
    0.4,
    1.0,
    0.5,
    0.25,
    0.8,
]  # probability of the true class


def twelve_events(**settings: Any) -> Evaluation:
    proba = [[p, 1 - p] if y == 0 else [1 - p, p] for y, p in zip(Y12, TRUE12, strict=True)]
    measured = Evaluation("classification", Vocabulary(["A", "B"]), **settings)
    measured.update(block_of(Y12), answers(SAID12, proba))
    return measured


def test_twelve_events_by_hand_cumulative() -> None:
    """11 scored, 7 right; A is true 6 times and said 6 times; no-change is right 4 times."""
    found = twelve_events().result()
    assert (found["events"], found["scored"], found["unanswered"]) == (12, 11, 1)
    expected = {
        "accuracy": 7 / 11,
        "balanced_accuracy": (4 / 6 + 3 / 5) / 2,
        "kappa": 16 / 60,  # (77 - 61) / (121 - 61)
        "kappa_t": 3 / 7,
        "kappa_m": 1 / 5,  # the majority errs 5 times, the model 4 times
        "log_loss": -math.log(0.00032) / 11,
        "brier": 2.995 / 11,  # (1 - p)**2: .04 .5625 .25 .25 .64 .04 .36 0 .25 .5625 .04
        "macro_f1": (8 / 12 + 6 / 10) / 2,
    }
    assert_holds(found["metrics"], expected, rel=1e-14)
    assert list(found["metrics"]) == list(METRICS["classification"])
    per_class = {
        name: [row[key] for key in ("scored", "recall", "precision", "f1")]
        for name, row in found["per_class"].items()
    }
    assert per_class == {
        "A": pytest.approx([6, 4 / 6, 4 / 6, 8 / 12]),
        "B": pytest.approx([5, 3 / 5, 3 / 5, 6 / 10]),
    }
    assert found["confusion"] == {"labels": ["A", "B"], "counts": [[4, 2], [2, 3]]}


def test_twelve_events_by_hand_baselines() -> None:
    """The majority is A throughout (ties: the lower code); its probabilities are frequencies."""
    found = twelve_events().result()["baselines"]
    assert list(found) == ["no_change", "majority"]
    assert found["no_change"]["accuracy"] == pytest.approx(4 / 11, rel=1e-14)
    assert found["no_change"]["log_loss"] == pytest.approx(-math.log(CLIP) * 7 / 11, rel=1e-14)
    frequencies = [CLIP, 1 / 3, 1 / 2, 2 / 5, 1 / 2, 4 / 7, 3 / 8, 5 / 9, 6 / 10, 4 / 11]
    assert found["majority"]["accuracy"] == pytest.approx(6 / 11, rel=1e-14)
    assert found["majority"]["kappa"] == pytest.approx(0.0, abs=1e-15)
    assert found["majority"]["kappa_t"] == pytest.approx(2 / 7, rel=1e-14)
    expected = -sum(math.log(p) for p in frequencies) / 11
    assert found["majority"]["log_loss"] == pytest.approx(expected, rel=1e-14)


def test_twelve_events_by_hand_windowed_and_fading() -> None:
    """Window of 4: events 9 to 12. Fading by a half: event t weighs 2**(t-12)."""
    found = twelve_events(window=4, fading=0.5).result()
    expected = {"accuracy": 3 / 4, "kappa": 1 / 2, "kappa_t": 2 / 3, "log_loss": -math.log(0.1) / 4}
    assert_holds(found["windowed"], expected, rel=1e-14)
    assert found["fading"]["accuracy"] == pytest.approx(1453 / 2047, rel=1e-14)
    assert found["per_class"]["A"]["windowed_recall"] == pytest.approx(1 / 2)
    assert found["per_class"]["B"]["windowed_recall"] == pytest.approx(1.0)
    assert found["per_class"]["B"]["fading_recall"] == pytest.approx(1156 / 1174, rel=1e-14)


def test_four_targets_by_hand() -> None:
    """Errors 1, 0, 2 on the targets 3, 2, 6; no-change errs by 2, 1, 4 and the mean by 2, 0, 4."""
    measured = Evaluation("regression")
    measured.update(block_of([1, 3, 2, 6]), answers([NAN, 2, 2, 4]))
    found = measured.result()
    expected = {"mae": 1.0, "rmse": math.sqrt(5 / 3), "r2": 11 / 26, "mase": 3 / 7}
    assert_holds(found["metrics"], expected, rel=1e-14)
    assert found["metrics"]["smape"] == pytest.approx(100 * (2 / 5 + 4 / 10) / 3, rel=1e-14)
    assert found["baselines"]["no_change"]["mae"] == pytest.approx(7 / 3, rel=1e-14)
    assert found["baselines"]["mean"]["rmse"] == pytest.approx(math.sqrt(20 / 3), rel=1e-14)
    assert found["baselines"]["mean"]["windowed"]["mae"] == pytest.approx(2.0, rel=1e-14)
    assert "per_class" not in found


# -- against scikit-learn and River ----------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 5])
def test_every_prefix_equals_scikit_learn(k: int) -> None:
    """Accuracy, kappa, log loss and recall of each class, after every row."""
    y, prediction, proba = stream(k, 120, k)
    measured = Evaluation("classification", Vocabulary(range(k)))
    for n in range(1, 121):
        measured.update(block_of(y[n - 1 : n]), answers(prediction[n - 1 : n], proba[n - 1 : n]))
        if n < 30:  # every class must have come for scikit-learn
            continue
        found, seen = measured.result(), slice(0, n)
        expected = {
            "accuracy": sk.accuracy_score(y[seen], prediction[seen]),
            "kappa": sk.cohen_kappa_score(y[seen], prediction[seen]),
            "kappa_t": found["metrics"]["kappa_t"],  # by the twin below
            "log_loss": sk.log_loss(y[seen], proba[seen]),
        }
        assert_holds(found["metrics"], expected, rel=1e-12)
        recalls = [row["recall"] for row in found["per_class"].values()]
        assert_allclose(
            recalls, sk.recall_score(y[seen], prediction[seen], average=None), rtol=1e-12
        )


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_regression_equals_scikit_learn(offset: float) -> None:
    """After every row, cumulative and windowed; an offset of 1e8 costs no digits of R2."""
    rng = np.random.default_rng(3)
    y = offset + np.cumsum(rng.normal(size=150))
    prediction = y + rng.normal(size=150)
    measured = Evaluation("regression", window=40)
    for n in range(1, 151):
        measured.update(block_of(y[n - 1 : n]), answers(prediction[n - 1 : n]))
        if n < 2:
            continue
        found = measured.result()
        for name, seen in (("metrics", slice(0, n)), ("windowed", slice(max(0, n - 40), n))):
            mse = sk.mean_squared_error(y[seen], prediction[seen])
            expected = {
                "mae": sk.mean_absolute_error(y[seen], prediction[seen]),
                "rmse": math.sqrt(mse),
                "r2": sk.r2_score(y[seen] - offset, prediction[seen] - offset),
            }
            assert_holds(found[name], expected, rel=1e-12, abs=1e-12)


def test_baselines_equal_rivers_dummies() -> None:
    """River's own no-change and prior models, measured by River's own metrics."""
    y, prediction, _ = stream(8, 200)
    y[:3] = [0, 1, 2]  # River breaks ties by order of arrival, which is then ours
    measured = Evaluation("classification", Vocabulary(range(3)))
    models = {"no_change": dummy.NoChangeClassifier(), "majority": dummy.PriorClassifier()}
    book = {name: (river_metrics.Accuracy(), river_metrics.CohenKappa()) for name in models}
    for t, label in enumerate(y):
        measured.update(block_of([label]), answers([prediction[t]]))
        for name, model in models.items():
            said = model.predict_one({})
            if said is not None:
                for metric in book[name]:
                    metric.update(label, said)
            model.learn_one({}, label)
    found = measured.result()["baselines"]
    assert found["no_change"]["accuracy"] == pytest.approx(book["no_change"][0].get(), rel=1e-12)
    assert found["no_change"]["kappa"] == pytest.approx(book["no_change"][1].get(), rel=1e-12)
    assert found["majority"]["accuracy"] == pytest.approx(book["majority"][0].get(), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("no_change", NoChangeClassifier),
        ("majority", MajorityClassifier),
        ("no_change", NoChangeRegressor),
        ("mean", MeanRegressor),
    ],
)
def test_baselines_are_the_operators_of_that_name(name: str, operator: type[Operator]) -> None:
    """Measured as a model, the operator gets the numbers of the baseline beside it, to the bit."""
    task = "regression" if issubclass(operator, Regressor) else "classification"
    labels = None if task == "regression" else Vocabulary(range(4))
    block, measured = block_of(stream(9, 150, 4)[0], labels=labels), Evaluation(task, labels)
    measured.update(block, operator().run(block))
    found = measured.result()
    beside = found["baselines"][name]
    assert found["unanswered"] == 1
    for view in ("metrics", "windowed", "fading"):
        own = beside if view == "metrics" else beside[view]
        names = [name for name in found[view] if own[name] is not None]
        assert {name: found[view][name] for name in names} == {name: own[name] for name in names}
        assert {name for name in found[view] if found[view][name] is not None} <= {
            *names,
            *("ece", "roc_auc", "average_precision"),  # the model's alone
        }


# -- slow twins ------------------------------------------------------------------------------------


def naive_classification(y: F8, said: F8, p: F8, weights: F8, k: int) -> dict[str, float]:
    """Weighted metrics from a whole confusion matrix; y[0] is only the label before the others."""
    confusion = np.zeros((k, k))
    no_change = loss = 0.0
    for t in range(1, len(y)):
        w = weights[t]
        confusion[int(y[t]), int(said[t])] += w
        no_change += w * (y[t] == y[t - 1])
        loss += w * -math.log(max(p[t], CLIP))
    total = confusion.sum()
    agreed = np.trace(confusion) / total
    chance = float(confusion.sum(0) @ confusion.sum(1)) / total**2
    return {
        "accuracy": agreed,
        "kappa": (agreed - chance) / (1 - chance),
        "kappa_t": (agreed - no_change / total) / (1 - no_change / total),
        "log_loss": loss / total,
    }


@pytest.mark.parametrize(("window", "fading"), [(7, 0.9), (50, 0.99), (1000, 1.0), (25, 0.03)])
def test_three_views_equal_slow_twins_after_every_row(window: int, fading: float) -> None:
    """Weights of 1, of 1 in the window, of fading**age; through renewals of the fading unit."""
    y, said, proba = stream(11, 160)
    said[0] = NAN
    p = proba[np.arange(160), y.astype(int)]
    measured = Evaluation("classification", Vocabulary("abc"), window, fading)
    for n in range(1, 161):
        measured.update(block_of(y[n - 1 : n]), answers(said[n - 1 : n], proba[n - 1 : n]))
        if n < 12:
            continue
        age = np.arange(n - 1.0, -1.0, -1.0)
        found = measured.result()
        views: dict[str, F8] = {
            "metrics": np.ones(n),
            "windowed": (age < window).astype(float),
            "fading": fading**age,
        }
        for name, weights in views.items():
            if weights[weights > 1e-9].sum() < 1.5:  # one row alone: kappa is 0/0 but for rounding
                continue
            expected = naive_classification(y[:n], said[:n], p[:n], weights, 3)
            assert_holds(found[name], expected, rel=1e-10, abs=1e-10)


@pytest.mark.jit
def test_fading_regression_equals_weighted_moments_over_many_renewals() -> None:
    """5,000 rows, 1e8 offset: the recursion with a growing unit is the plain weighted sum."""
    rng = np.random.default_rng(5)
    y = 1e8 + np.cumsum(rng.normal(size=5000))
    said = y + rng.normal(size=5000)
    measured = Evaluation("regression", fading=0.99)
    measured.update(block_of(y), answers(said))
    weights = 0.99 ** np.arange(4999, -1, -1.0)
    e, share = y - said, weights / weights.sum()
    shifted = y - 1e8
    spread = share @ (shifted - share @ shifted) ** 2
    expected = {"mae": share @ abs(e), "rmse": math.sqrt(share @ e**2)}
    expected["r2"] = 1 - share @ e**2 / spread
    assert_holds(measured.result()["fading"], expected, rel=1e-11)


# -- what the numbers mean -------------------------------------------------------------------------


def test_a_state_with_other_records_is_refused() -> None:
    """As of a version that did not measure sets."""
    y, _, _ = stream(2, 60)
    measured = Evaluation("classification")
    measured.update(block_of(y), answers(y))
    state = measured.state()
    (name,) = [name for name in state.arrays if name.endswith("rows")]
    state.arrays[name] = state.arrays[name][:, 2:]
    with pytest.raises(ValueError, match=r"^Evaluation: a record must have 14 numbers, got 12, of"):
        Evaluation("classification").load(state)


def test_oracle_gets_one_and_no_change_gets_zero() -> None:
    y, _, _ = stream(2, 60)
    oracle, lazy = Evaluation("classification"), Evaluation("classification")
    sets = np.eye(3, dtype=np.uint8)[y.astype(int)]
    oracle.update(block_of(y), answers(y, np.eye(3)[y.astype(int)]) | {"set": sets})
    lazy.update(block_of(y), answers(np.append(NAN, y[:-1])))
    losses = ("log_loss", "brier", "ece")
    best = {name: 0.0 if name in losses else 1.0 for name in METRICS["classification"]}
    for view in ("metrics", "windowed", "fading"):
        assert oracle.result()[view] == best
    for view in ("metrics", "windowed", "fading"):
        assert lazy.result()[view]["kappa_t"] == 0.0
    assert lazy.result()["metrics"]["log_loss"] is None  # it gave no probabilities


def test_nothing_seen_is_null_and_plain_json() -> None:
    for task in METRICS:
        found = Evaluation(task).result()
        json.dumps(found, allow_nan=False)
        assert set(found["metrics"].values()) == {None}
        assert set(found["fading"].values()) == {None}
        assert (found["events"], found["scored"], found["alarms"]) == (0, 0, [])


def test_undefined_is_null() -> None:
    """0/0 of one class or a constant target, and the square of 1e300."""
    one = Evaluation("classification")
    one.update(block_of([0, 0, 0]), answers([NAN, 0, 0]))
    defined = {name: v for name, v in one.result()["metrics"].items() if v is not None}
    assert defined == {"accuracy": 1.0, "balanced_accuracy": 1.0, "macro_f1": 1.0}
    flat = Evaluation("regression")
    with np.errstate(over="ignore"):  # numpy warns where the JIT is off
        flat.update(block_of([2, 2, 2]), answers([1, 1, 1e300]))
        found = flat.result()
    assert (found["metrics"]["rmse"], found["metrics"]["r2"]) == (None, None)
    json.dumps(found, allow_nan=False)


def test_a_class_unknown_at_its_row_costs_the_clip() -> None:
    """Once as a zero in a column that the end of the block knows, once as no column."""
    measured = Evaluation("classification")
    measured.update(block_of([0, 1]), answers([0, 0], [[1.0, 0.0], [1.0, 0.0]]))
    measured.update(block_of([2]), answers([0], [[0.5, 0.5]]))
    assert measured.result()["metrics"]["log_loss"] == pytest.approx(-2 * math.log(CLIP) / 3)


def test_only_rows_that_were_asked_answered_and_labelled_count() -> None:
    """Live without label, late label, never scored, frozen; answers missing or infinite."""
    measured = Evaluation("classification")
    measured.update(
        block_of(
            [NAN, 1, 1, 0, 1, 0, math.inf],
            [SCORED, LEARN, UNSCORED, PREDICT, LABELLED, LABELLED, LABELLED],
        ),
        answers([0, NAN, NAN, 1, NAN, math.inf, 1]),
    )
    found = measured.result()
    assert (found["events"], found["scored"], found["unanswered"]) == (6, 1, 2)
    assert found["metrics"]["accuracy"] == 0.0
    assert found["baselines"]["no_change"]["accuracy"] == 0.0  # it said 1: the labels before count


def test_infinite_targets_and_predictions_are_left_out() -> None:
    measured = Evaluation("regression")
    measured.update(block_of([1, math.inf, 2]), answers([2, 0, -math.inf]))
    found = measured.result()
    assert (found["scored"], found["unanswered"], found["metrics"]["mae"]) == (1, 1, 1.0)


def test_events_in_any_order_are_settled_row_by_row() -> None:
    """Numbers that fall, an expiry before the label it forbids, a number used again."""
    rows = [
        (5, SCORED), (4, SCORED), (3, SCORED), (4, EXPIRED), (4, LEARN), (5, LEARN), (4, SCORED),
        (3, LEARN), (4, LEARN), (9, EXPIRED),
    ]  # fmt: skip
    events, mode = (np.array(column) for column in zip(*rows, strict=True))
    y = np.where(mode == LEARN, 1.0, NAN)
    block = block_of(y, mode.astype(np.uint8)).replace(events=events)
    said = answers(np.where(mode == SCORED, events % 2 * 1.0, NAN), np.full((len(rows), 2), 0.5))
    found = []
    for size in (1, len(rows)):
        evaluation = Evaluation("classification", window=3, delayed=True)
        for at in range(0, len(rows), size):
            part = {name: column[at : at + size] for name, column in said.items()}
            evaluation.update(block.rows(at, at + size), part)
        found.append(evaluation.result())
    assert json.dumps(found[0]) == json.dumps(found[1])
    assert found[1]["scored"] == 3
    assert found[1]["metrics"]["accuracy"] == 1 - 1 / 3
    told = found[1]["delayed"]
    assert (told["expired"], told["unmatched"], told["pending"]) == (1, 1, 0)


@pytest.mark.parametrize("late", [False, True])
def test_how_wide_a_block_is_shows_in_no_bit(late: bool) -> None:
    """A block in which a later row knows more classes has zeros in the rows before it."""
    rng = np.random.default_rng(1)
    n = 60
    y, said = rng.integers(0, 6, n) * 1.0, rng.integers(0, 4, n) * 1.0
    narrow = rng.dirichlet(np.ones(3), n)
    found = []
    for proba in (narrow, np.pad(narrow, ((0, 0), (0, 3)))):
        evaluation = Evaluation("classification", window=7, delayed=late)
        for t in range(n):
            block = block_of([y[t]]).replace(events=np.array([t]))
            evaluation.update(block, answers([said[t]], proba[t : t + 1]))
        found.append(json.dumps(evaluation.result()))
    assert found[0] == found[1]


def test_labels_name_the_classes_and_may_come_with_the_blocks() -> None:
    measured = Evaluation("classification")
    measured.update(block_of([0, 1], labels=Vocabulary([True, "up"])), answers([0, 1]))
    assert list(measured.result()["per_class"]) == ["True", "up"]
    bare = Evaluation("classification")
    bare.update(block_of([3]), answers([0]))
    assert list(bare.result()["per_class"]) == ["0", "1", "2", "3"]
    assert bare.result()["per_class"]["1"]["recall"] is None


def test_labels_that_were_saved_name_the_classes_of_a_stream_that_brings_no_more() -> None:
    measured = Evaluation("classification")
    measured.update(block_of([0, 1], labels=Vocabulary(["no", "yes"])), answers([0, 1]))
    resumed = Evaluation("classification", labels=Vocabulary())  # of a schema without values yet
    resumed.load(measured.state())
    assert resumed.result() == measured.result()


@pytest.mark.jit
def test_alarms_are_numbered_by_event_and_the_list_is_bounded() -> None:
    measured = Evaluation("regression")
    measured.update(block_of([1, 2, 3]), answers([1, 2, 3], alarm=[0, 1, 0]))
    measured.update(block_of([1, 2], LEARN), answers([NAN, NAN]))
    measured.update(block_of([1, 2]), answers([1, 2], alarm=[1, 1]))
    assert (measured.result()["alarms"], measured.result()["n_alarms"]) == ([1, 3, 4], 3)
    n = MAX_ALARMS + 5
    measured.update(block_of(np.zeros(n)), answers(np.zeros(n), alarm=np.ones(n)))
    assert measured.result()["alarms"] == list(range(5 + 5, 5 + n))
    assert measured.result()["n_alarms"] == n + 3


def test_a_model_that_was_swapped_is_no_drift_alarm() -> None:
    """A row on which a detector fired, too, is one; the count goes on after a restart."""
    why = np.full(4, None, dtype=object)
    why[1], why[2] = ({"action": "promote"},), ({"action": "rollback"},)
    why[3] = {"action": "restart"}, {"action": "promote"}
    measured = Evaluation("regression")
    measured.update(block_of(range(4)), answers(range(4), alarm=[1, 1, 1, 1]) | {"why": why})
    resumed = Evaluation("regression")
    resumed.load(measured.state())
    for found in (measured.result(), resumed.result()):
        assert (found["alarms"], found["n_alarms"], found["n_swaps"]) == ([0, 3], 2, 2)


def test_rolling_is_the_first_windowed_metric() -> None:
    assert Evaluation("regression").rolling == ("mae", None)
    name, value = twelve_events(window=4).rolling
    assert name == "accuracy"
    assert value == pytest.approx(3 / 4)


# -- the law, and state ----------------------------------------------------------------------------


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, Block, Columns, list[int]]:
    """A stream with everything that happens, and where to cut it."""
    task = draw(st.sampled_from(["classification", "regression"]))
    n, seed = draw(st.integers(1, 60)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    y = (
        rng.integers(0, 1 + rng.integers(0, 9, n))
        if task == "classification"
        else rng.normal(size=n)
    )
    said = np.where(rng.random(n) < 0.5, y, rng.permutation(y)).astype(np.float64)
    said[rng.random(n) < 0.1] = NAN
    target = np.where(rng.random(n) < 0.1, NAN, y + (1e8 if task == "regression" else 0.0))
    mode = rng.choice([LABELLED, LABELLED, SCORED, LEARN, UNSCORED, PREDICT], n)
    columns = answers(said, rng.dirichlet(np.ones(9), n), rng.random(n) < 0.1)
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=6)))
    return task, block_of(target, mode), columns, [0, *cuts, n]


def assert_same(one: Evaluation, two: Evaluation) -> None:
    """Same bits in everything that is saved and everything that is said."""
    a, b = one.state(), two.state()
    assert a.table == b.table
    assert a.arrays.keys() == b.arrays.keys()
    for name in a.arrays:
        assert_array_equal(a.arrays[name], b.arrays[name], err_msg=name)
    assert one.result() == two.result()


@given(streams(), st.sampled_from([1, 5, 1000]), st.sampled_from([0.02, 0.9, 1.0]))
@pytest.mark.jit
def test_any_cut_gives_the_same_bits(
    made: tuple[str, Block, Columns, list[int]], window: int, fading: float
) -> None:
    task, block, columns, cuts = made
    whole = Evaluation(task, None, window, fading)
    whole.update(block, columns)
    pieces = Evaluation(task, None, window, fading)
    for start, stop in itertools.pairwise(cuts):
        pieces.update(block.rows(start, stop), part(columns, start, stop))
    assert_same(whole, pieces)


@given(streams(), st.floats(0.0, 1.0))
@pytest.mark.jit
def test_save_and_load_in_mid_stream_goes_on_with_the_same_bits(
    made: tuple[str, Block, Columns, list[int]], share: float
) -> None:
    task, block, columns, _ = made
    cut = int(share * block.n)
    through, first, second = (Evaluation(task, None, 7, 0.9) for _ in range(3))
    through.update(block, columns)
    first.update(block.rows(0, cut), part(columns, 0, cut))
    second.update(block, columns)  # loading forgets what was there
    saved = first.state()
    json.dumps(saved.table)
    second.load(saved)
    first.update(block.rows(cut, block.n), part(columns, cut, block.n))  # the state was a copy
    second.update(block.rows(cut, block.n), part(columns, cut, block.n))
    assert_same(through, first)
    assert_same(through, second)


def test_loading_brings_the_class_table_and_reset_forgets_the_rest() -> None:
    fresh = Evaluation("classification")
    fresh.load(twelve_events().state())
    assert fresh.result() == twelve_events().result()
    fresh.reset()
    assert fresh.result() == Evaluation("classification").result()


def test_arrays_of_other_kinds_are_taken() -> None:
    """Read-only, strided, Fortran order and integers: the same numbers."""
    y, said, proba = stream(1, 40)
    plain, odd = Evaluation("classification"), Evaluation("classification")
    plain.update(block_of(y), answers(said, proba))
    block = block_of(y)
    block.y = np.repeat(y, 2)[::2]
    block.y.flags.writeable = False
    odd.update(block, {"prediction": said.astype(np.int64), "proba": np.asfortranarray(proba)})
    assert_same(plain, odd)


# -- messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"task": "ranking"},
            r"^Evaluation: task must be one of classification, .*, anomaly, got 'ranking'$",
        ),
        (
            {"task": "regression", "window": 0},
            r"^Evaluation: window must be a whole number >= 1, got 0$",
        ),
        (
            {"task": "regression", "fading": 1.5},
            r"^Evaluation: fading must be in \[0, 1\], got 1\.5$",
        ),
        ({"task": "regression", "fading": 0.0}, r"^Evaluation: fading must be > 0, got 0\.0$"),
    ],
)
def test_arguments_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluation(**settings)


def test_blocks_that_do_not_fit() -> None:
    measured = Evaluation("classification")
    with pytest.raises(
        ValueError, match=r"^Evaluation: outputs must have a column 'prediction', got \['X'\]"
    ):
        measured.update(block_of([0]), {"X": np.zeros((1, 1))})
    with pytest.raises(
        ValueError, match=r"^Evaluation: y must be class codes below 1048576, got 1e\+12"
    ):
        measured.update(block_of([1e12]), answers([0]))
    with pytest.raises(ValueError, match=r"^Evaluation: y must have shape \(n,\), got \(1, 2\)$"):
        measured.update(block_of([[0, 1]]), answers([0]))


def test_a_state_with_other_settings_is_refused() -> None:
    saved = Evaluation("regression", window=5).state()
    with pytest.raises(
        ValueError, match=r"^Evaluation: window must be 5 as in the saved state, got 6$"
    ):
        Evaluation("regression", window=6).load(saved)
    with pytest.raises(ValueError, match="positive must be 'a' as in the saved state, got None"):
        Evaluation("anomaly").load(Evaluation("anomaly", positive="a").state())
    saved = Evaluation("regression").state()
    with pytest.raises(ValueError, match=r"river_metrics must be \[\] as in the saved state"):
        Evaluation("regression", river=[river_metrics.MAE()]).load(saved)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": 1.0}, r"^Evaluation: level must be in \(0, 1\), got 1\.0$"),
        ({"season": 0}, r"^Evaluation: season must be a whole number >= 1, got 0$"),
        ({"max_groups": 0}, r"^Evaluation: max_groups must be a whole number >= 1, got 0$"),
        ({"delayed": 1}, r"^Evaluation: delayed must be true or false, got 1$"),
    ],
)
def test_settings_of_late_labels_groups_and_intervals(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluation("regression", **settings)


def test_several_labels_and_anomalies_that_do_not_fit() -> None:
    several = Evaluation("multilabel")
    with pytest.raises(ValueError, match=r"^Evaluation: y must have shape \(n, q\), got \(1,\)$"):
        several.update(block_of([0]), answers([0]))
    several.update(block_of([[0, 1]]), answers([[0, 1]]))
    with pytest.raises(ValueError, match=r"^Evaluation: y must have 2 labels as before, got 3$"):
        several.update(block_of([[0, 1, 1]]), answers([[0, 1, 1]]))
    with pytest.raises(
        ValueError, match=r"^Evaluation: proba must have shape \(1, 2\), got \(1, 1"
    ):
        several.update(block_of([[0, 1]]), answers([[0, 1]], [[0.5]]))
    strange = Evaluation("anomaly")
    with pytest.raises(ValueError, match=r"^Evaluation: outputs must have a column 'score'"):
        strange.update(block_of([0]), answers([0]))
    with pytest.raises(ValueError, match=r"^Evaluation: positive must be the label of an anomaly"):
        strange.update(block_of([0], labels=Vocabulary(["ok"])), {"score": np.zeros(1)})


def test_groups_that_are_missing_or_beyond_the_cap_are_told() -> None:
    block = block_of([0, 1, 0, 1, 1])
    block.groups = np.array(["a", None, math.nan, "b", "c"], dtype=object)
    measured = Evaluation("classification", max_groups=2)
    measured.update(block, answers([0, 0, 0, 1, 0]))
    found = measured.result()["by_group"]
    shown = {name: (row["scored"], row["accuracy"]) for name, row in found.items()}
    assert shown == {"a": (1, 1.0), "(missing)": (2, 0.5), "(other)": (2, 0.5)}


def test_a_label_without_its_event_is_counted_and_not_scored() -> None:
    block = block_of([1.0], LEARN)
    block.events = np.array([7])
    measured = Evaluation("classification", delayed=True)
    measured.update(block, answers([NAN]))
    found = measured.result()
    assert (found["scored"], found["delayed"]["unmatched"], found["events"]) == (0, 1, 0)
