"""Drift evaluation: by hand, against a plain loop, under any cut, resumed, on real streams."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from river import linear_model

from streamlearn.block import LEARN, PREDICT, SCORED, Block, Columns
from streamlearn.drift_evaluation import DriftEvaluation
from streamlearn.operators import (
    ADWIN,
    AdaptiveClassifier,
    KalmanClassifier,
    KalmanRegressor,
    Normalizer,
)
from streamlearn.operators._base import Classifier, Regressor
from streamlearn.pipeline import Pipeline
from streamlearn.runner import replay
from streamlearn.testing import assert_same_state, block_of, cut, run_in_cuts, through_json
from tests import naive_drift

SMALL: dict[str, Any] = {"horizon": 40, "window": 20, "span": 5, "margin": 0.1}


class _Scripted:
    """Says x0 once it has learnt from `switch` rows, x1 before: a reset can be seen."""

    def __init__(self, switch: int = 6) -> None:
        self.switch = switch
        self.n_ = 0

    def _run(self, block: Block) -> Columns:
        learns = (block.mode & LEARN) != 0
        learnt = self.n_ + np.cumsum(learns) - learns
        self.n_ += int(learns.sum())
        said = np.where(learnt >= self.switch, block.X[:, 0], block.X[:, 1])
        return {"prediction": np.where(block.mode & PREDICT, said, np.nan)}


class ScriptedClassifier(_Scripted, Classifier):
    _counters = ("n_",)


class ScriptedRegressor(_Scripted, Regressor):
    _counters = ("n_",)


# -- by hand ---------------------------------------------------------------------------------------

HAND: dict[str, Any] = {"horizon": 100, "window": 4, "span": 2, "margin": 0.02, "tolerance": 3}


def test_twelve_events_by_hand() -> None:
    """The drift is at event 6. Before it x1 is said, after it x0; its reset reference says x1."""
    old = [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1]  # hits of x1
    new = [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1]  # hits of x0
    block = block_of(np.column_stack([new, old]), np.ones(12))
    evaluation = DriftEvaluation(ScriptedClassifier(), [6], **HAND)
    outputs = ScriptedClassifier().run(block)
    outputs["alarm"] = np.isin(np.arange(12), [2, 7, 8, 10]).astype(np.uint8)
    evaluation.update(block, outputs)
    found = evaluation.result()
    assert found["drifts"] == [
        {
            "start": 6,
            "end": 6,
            "rows": 6,
            "before": 0.75,  # events 2 to 5: 0 1 1 1
            "worst": 0.0,  # events 6 and 7
            "depth": 0.75,
            "recovery": 4,  # events 10 and 11; the reference is right there, as everywhere after 6
            "excess_errors": 2.0,  # 6, 7 and 9 against 6
            "area": 2.0,  # events 6 to 9: three errors, where the rate before makes one
            "after": 0.5,
            "reference": 5 / 6,
            "delay": 1,
            "alarms": 2,
        }
    ]
    assert found["alarms"] == {"n": 4, "false_alarms": 2, "misses": 0, "mean_delay": 1.0}
    assert found["mean"] == {"depth": 0.75, "recovery": 4.0, "recovered": 1, "excess_errors": 2.0}
    assert (found["metric"], found["events"], found["probes"]) == ("accuracy", 12, None)


def test_absolute_errors_by_hand() -> None:
    old = np.array([1, 1, 2, 1, 1, 0, 4, 1, 1, 1, 1, 1.0])  # errors of x1
    new = np.array([0, 0, 0, 0, 0, 0, 5, 3, 1, 2, 1, 1.02])
    block = block_of(np.column_stack([new, old]), np.zeros(12))
    evaluation = DriftEvaluation(ScriptedRegressor(), [6], **HAND)
    evaluation.update(block, ScriptedRegressor().run(block))
    (drift,) = evaluation.result()["drifts"]
    assert (drift["before"], drift["worst"], drift["depth"]) == (1.0, 4.0, 3.0)
    assert drift["recovery"] == 4  # 1.01 is within 2 % of 1; 1.5 is not
    assert drift["excess_errors"] == pytest.approx(13.02 - 9.0, abs=1e-12)
    assert drift["area"] == 7.0
    assert drift["after"] == pytest.approx(13.02 / 6, abs=1e-12)
    assert (drift["reference"], drift["delay"]) == (1.5, None)
    assert evaluation.result()["alarms"] is None


@pytest.mark.parametrize("cuts", [[], [22], [12, 20, 21, 22]])
def test_of_two_labels_for_one_event_the_first_counts(cuts: list[int]) -> None:
    """Event 8 is told twice in turn, as a miss and as a hit, in one block or in two."""
    about = np.array([*range(12), *range(9), 8, 9, 10, 11])
    labels = np.array([*[np.nan] * 12, *[1.0] * 8, 0.0, 1.0, 1.0, 1.0, 1.0])
    mode = np.array([SCORED] * 12 + [LEARN] * 13, dtype=np.uint8)
    late = block_of(np.ones((25, 2)), labels).replace(mode=mode, events=about)
    evaluation = DriftEvaluation(ScriptedClassifier(), [6], **HAND)
    for piece in cut(late, cuts):
        said = np.where(piece.mode == SCORED, 1.0, np.nan)
        evaluation.update(piece, {"prediction": said})
    (drift,) = evaluation.result()["drifts"]
    assert (drift["rows"], drift["after"], drift["before"]) == (6, 5 / 6, 1.0)


def test_a_row_without_an_answer_counts_for_neither() -> None:
    """The reference says nothing to event 6, the model nothing to event 8."""
    old, new = np.ones(12), np.array([0.0] * 7 + [1, np.nan, 0, 1, 1])
    old[6] = np.nan
    block = block_of(np.column_stack([new, old]), np.ones(12))
    evaluation = DriftEvaluation(ScriptedClassifier(), [6], **HAND)
    evaluation.update(block, ScriptedClassifier().run(block))
    (drift,) = evaluation.result()["drifts"]
    assert (drift["rows"], drift["after"], drift["reference"]) == (6, 0.75, 1.0)
    assert (drift["recovery"], drift["excess_errors"]) == (0, 1.0)  # event 7 alone: both are right
    assert drift["worst"] == 0.5  # of 6 7, 7 9: event 8 is no miss


def test_what_is_undefined_is_none() -> None:
    block = block_of(np.ones((3, 2)), np.ones(3))
    evaluation = DriftEvaluation(ScriptedClassifier(), [0, 3], **HAND)
    assert evaluation.result()["drifts"] == []
    evaluation.update(block.rows(0, 1), ScriptedClassifier().run(block.rows(0, 1)))
    (drift,) = evaluation.result()["drifts"]
    undefined = ("before", "worst", "depth", "recovery", "area", "delay")
    assert [drift[name] for name in undefined] == [None] * 6
    assert (drift["rows"], drift["after"]) == (1, 1.0)
    json.dumps(evaluation.result(), allow_nan=False)


# -- against a plain loop --------------------------------------------------------------------------


def stream(task: str, n: int, seed: int) -> Block:
    """A linear concept that turns round at a third and at two thirds."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    signs = np.repeat([1.0, -1.0, 1.0], -(-n // 3))[:n]
    score = signs * (X[:, 0] - 0.5 * X[:, 1]) + 0.3 * rng.normal(size=n)
    return block_of(X, score if task == "regression" else (score > 0).astype(np.float64))


def classifier() -> Pipeline:
    return Pipeline(Normalizer(), KalmanClassifier(), ADWIN(clock=4))


def regressor() -> Pipeline:
    return Pipeline(Normalizer(), KalmanRegressor(), ADWIN(clock=4))


def adaptive() -> Pipeline:
    detector = ADWIN(clock=4, delta=0.2)
    return Pipeline(Normalizer(), AdaptiveClassifier(KalmanClassifier(), detector, "reset"))


MODELS: dict[str, tuple[Callable[[], Pipeline], str]] = {
    "classifier": (classifier, "classification"),
    "regressor": (regressor, "regression"),
    "adaptive": (adaptive, "classification"),
}


def observed(
    make: Callable[[], Pipeline], blocks: Sequence[Block], drifts: Any, **settings: Any
) -> tuple[DriftEvaluation, NDArray[np.float64]]:
    """An evaluation that has seen the blocks, and the pipeline's answers."""
    pipeline, said = make(), []
    evaluation = DriftEvaluation(pipeline, drifts, **settings)
    for block in blocks:
        outputs = pipeline.run(block)
        evaluation.update(block, outputs)
        said.append(outputs["prediction"])
    return evaluation, np.concatenate(said)


def assert_close(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        for name, value in other.items():
            if value is None or name in ("start", "end", "rows", "recovery"):
                assert mine[name] == value, name
            else:
                assert mine[name] == pytest.approx(value, abs=1e-11), name


DELAYS = ("none", "rows", "mixed", "ids")


def delayed(block: Block, how: str, seed: int) -> Block:
    """The stream with its labels as they may come."""
    rng = np.random.default_rng(seed)
    if how == "none":
        return block
    if how == "rows":
        return naive_drift.late(block, [7] * block.n)
    some = [None if rng.random() < 0.2 else int(rng.integers(0, 30)) for _ in range(block.n)]
    made = naive_drift.late(block, some, expired=bool(rng.integers(2)))
    if how == "mixed":
        return made
    assert made.events is not None  # told by id alone
    names = np.array([f"e{i}" if i >= 0 else f"-{t}" for t, i in enumerate(made.events)], object)
    return made.replace(events=None, ids=names)


@pytest.mark.parametrize("how", DELAYS)
@pytest.mark.parametrize("name", MODELS)
def test_equals_a_plain_loop(name: str, how: str) -> None:
    make, task = MODELS[name]
    block = delayed(stream(task, 120, seed=3), how, seed=5)
    drifts = [(40, 40), (75, 85)]
    evaluation, said = observed(make, cut(block, [31, 77]), drifts, **SMALL)
    expected = naive_drift.drift_result(make(), block, said, drifts, task, **SMALL)
    assert_close(evaluation.result()["drifts"], expected)
    assert any(drift["recovery"] is not None for drift in expected)
    assert all(drift["depth"] is not None for drift in expected)


@pytest.mark.parametrize("how", DELAYS)
@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
def test_any_cut_gives_the_same_bits(name: str, how: str, data: st.DataObject) -> None:
    make, task = MODELS[name]
    seed = data.draw(st.integers(0, 1000), "seed")
    block = delayed(stream(task, 60, seed), how, seed)
    points = st.lists(st.integers(0, 65), min_size=1, max_size=3, unique=True)
    drifts = sorted(data.draw(points, "drifts"))
    cuts = data.draw(st.lists(st.integers(1, block.n - 1), max_size=6), "cuts")
    wide = data.draw(st.integers(0, 8), "width of the last")
    known = [(at, at) for at in drifts[:-1]] + [(drifts[-1], drifts[-1] + wide)]
    settings = {"horizon": data.draw(st.integers(3, 30), "horizon"), "window": 7, "span": 3}
    whole, said = observed(make, [block], known, **settings)
    pieces, _ = observed(make, cut(block, cuts), known, **settings)
    assert pieces.result() == whole.result()
    assert_same_state(pieces.state(), whole.state())
    expected = naive_drift.drift_result(make(), block, said, known, task, margin=0.02, **settings)
    assert_close(whole.result()["drifts"], expected)


@pytest.mark.parametrize("at", [0, 30, 41, 64, 119])
@pytest.mark.parametrize("how", DELAYS)
def test_goes_on_from_its_state(how: str, at: int) -> None:
    block = delayed(stream("classification", 120, seed=1), how, seed=2)
    before, after = block.rows(0, at), block.rows(at, block.n)
    expected, _ = observed(classifier, [block], [40, 80], **SMALL)
    pipeline = classifier()
    first = DriftEvaluation(pipeline, [40, 80], **SMALL)
    first.update(before, pipeline.run(before))
    state = through_json(first.state())
    first.update(after, pipeline.run(after))
    again = classifier()
    again.run(before)
    second = DriftEvaluation(again, [40, 80], **SMALL)
    second.load(state)
    assert_same_state(second.state(), state)
    second.update(after, again.run(after))
    assert first.result() == second.result() == expected.result()
    assert_same_state(first.state(), second.state())


@pytest.mark.parametrize("how", ["none", "rows"])
def test_the_reset_reference_is_a_replay_that_starts_at_the_drift(how: str) -> None:
    """Event by event: horizons that end one later tell whether that event was answered rightly."""
    plain = stream("classification", 90, seed=8)
    alone = plain.rows(30, 90)
    rows = delayed(alone, how, 0)
    said = classifier().run(rows)["prediction"][rows.mode & PREDICT != 0]
    answered = np.isfinite(said)  # before its first label a fresh model has nothing to say
    assert 0 < np.count_nonzero(~answered) < 10
    for horizon in (20, 21, 45, 46, 60):
        block = delayed(plain, how, 0)
        evaluation, _ = observed(classifier, cut(block, [13, 55]), [30], span=5, horizon=horizon)
        (drift,) = evaluation.result()["drifts"]
        right = (said == alone.y)[:horizon][answered[:horizon]]
        assert drift["reference"] == pytest.approx(right.mean(), abs=1e-12)


def test_labels_from_before_the_drift_do_not_teach_the_reset_reference() -> None:
    """With labels of the old concept turned into nonsense, the reference says the same."""
    block = delayed(stream("classification", 90, seed=4), "rows", 0)
    assert block.events is not None
    nonsense = block.replace(
        y=np.where((block.mode == LEARN) & (block.events < 30), 1.0 - block.y, block.y)
    )
    found = []
    for given_rows in (block, nonsense):
        pipeline = classifier()
        pipeline.run(block)  # the same answers of the model, whatever the evaluation is shown
        evaluation = DriftEvaluation(pipeline, [30], **SMALL)
        evaluation.update(given_rows, classifier().run(block))
        found.append(evaluation.result()["drifts"][0])
    assert found[0]["reference"] == found[1]["reference"]
    assert found[0]["before"] != found[1]["before"]


def test_a_river_estimator_has_a_reset_reference_too() -> None:
    """It walks row by row, and its reference's state is a pickle, which is said."""

    def river_model() -> Pipeline:
        return Pipeline(linear_model.LogisticRegression())

    block = stream("classification", 90, seed=4)
    expected, said = observed(river_model, [block], [30], **SMALL)
    drifts = [(30, 30)]
    by_hand = naive_drift.drift_result(
        river_model(), block, said, drifts, "classification", **SMALL
    )
    assert_close(expected.result()["drifts"], by_hand)
    assert expected.needs_pickle
    first, _ = observed(river_model, [block.rows(0, 40)], [30], **SMALL)
    again = river_model()
    again.run(block.rows(0, 40))
    second = DriftEvaluation(again, [30], **SMALL)
    second.load(first.state())
    second.update(block.rows(40, 90), again.run(block.rows(40, 90)))
    assert second.result() == expected.result()


def test_the_pipeline_is_not_touched() -> None:
    block = stream("classification", 90, seed=4)
    alone, watched = classifier(), classifier()
    alone.expects_labels = watched.expects_labels = False
    alone.run(block)
    evaluation = DriftEvaluation(watched, [30], **SMALL)
    evaluation.update(block, watched.run(block))
    assert_same_state(alone.state(), watched.state())


def test_nothing_grows_far_from_a_drift() -> None:
    """Rows beyond the window and the horizon leave nothing behind, nor do events never labelled."""
    pipeline = classifier()
    evaluation = DriftEvaluation(pipeline, [40], **SMALL)
    block = stream("classification", 100, seed=0)
    live = block.replace(
        mode=np.full(100, SCORED, dtype=np.uint8), ids=np.arange(100), y=np.full(100, np.nan)
    )
    pipeline.expects_labels = False
    sizes = []
    for i in range(4):
        again = live.replace(ids=np.arange(100 * i, 100 * i + 100))
        evaluation.update(again, pipeline.run(again))
        state = evaluation.state()
        sizes.append((sum(a.nbytes for a in state.arrays.values()), len(json.dumps(state.table))))
    assert sizes[1][0] == sizes[3][0]
    assert abs(sizes[1][1] - sizes[3][1]) < 10
    assert len(state.table["own"]["numbers"]["ids"]) == 60


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drifts": [20, 10]}, "must rise and not overlap, got (20, 20) before (10, 10)"),
        ({"drifts": [(5, 3)]}, "the end of the drift at 5 must be a whole number >= 5, got 3"),
        ({"drifts": [1.5]}, "must be an event number or a pair (start, end), got 1.5"),
        ({"drifts": [-1]}, "a drift must be a whole number >= 0, got -1"),
        ({"horizon": 100}, "horizon must be a whole number >= 200, got 100"),
        ({"window": 0}, "window must be a whole number >= 1, got 0"),
        ({"span": 0}, "span must be a whole number >= 1, got 0"),
        ({"margin": -1}, "margin must be >= 0, got -1"),
        ({"tolerance": -1}, "tolerance must be a whole number >= 0, got -1"),
        ({"probes": -1}, "probes must be a whole number >= 0, got -1"),
        ({"width": -1}, "width must be a whole number >= 0, got -1"),
    ],
)
def test_arguments_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        DriftEvaluation(classifier(), **({"drifts": [10]} | settings))
    assert message in str(caught.value)


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(ValueError, match="task of the pipeline must be"):
        DriftEvaluation(Pipeline(Normalizer()), [10])
    block = stream("classification", 20, seed=0)
    evaluation = DriftEvaluation(classifier(), [10], **SMALL)
    with pytest.raises(ValueError, match="must have a column 'prediction'"):
        evaluation.update(block, {"X": block.X})
    with pytest.raises(ValueError, match=r"y must have shape \(n,\), got \(20, 1\)"):
        evaluation.update(block.replace(y=block.y[:, None]), {"prediction": block.y})
    late = naive_drift.late(block, [0] * 20).rows(2, 40)
    with pytest.raises(ValueError, match="events must count the events of the stream from 0, got"):
        evaluation.update(late, {"prediction": late.y})


def test_a_state_of_other_drifts_is_refused() -> None:
    state = DriftEvaluation(classifier(), [10]).state()
    with pytest.raises(ValueError, match=r"drifts must be \[\[10, 10\]\] as in the saved state"):
        DriftEvaluation(classifier(), [11]).load(state)
    with pytest.raises(ValueError, match="window must be 1000 as in the saved state, got 9"):
        DriftEvaluation(classifier(), [10], window=9).load(state)


# -- real streams ----------------------------------------------------------------------------------


@pytest.mark.jit
@pytest.mark.parametrize("name", ["sine", "mixed", "sea", "stagger", "randomtree"])
def test_a_lobo_stream(shared_data: Path, name: str) -> None:
    """The reference is a replay of each concept alone; cuts make no difference; ADWIN hears."""
    table = pq.read_table(shared_data / f"lobo_{name}_abrupt.parquet")
    drifts = [10_000, 20_000, 30_000]
    features = [column for column in table.column_names if column != "class"]
    X = np.column_stack([table[column].to_numpy() for column in features]).astype(np.float64)
    block = block_of(X, table["class"].to_numpy().astype(np.float64))

    def make() -> Pipeline:
        return Pipeline(Normalizer(), KalmanClassifier(random_features=50), ADWIN())

    whole, _ = observed(make, cut(block, range(0, 40_000, 4096)), drifts)
    other, _ = observed(make, cut(block, [3, 9_999, 20_001, 31_000]), drifts)
    found = whole.result()
    assert other.result() == found
    for k, start in enumerate(drifts):
        alone = block.rows(start, start + 10_000)
        said = make().run(alone)["prediction"]
        answered = np.isfinite(said)
        right = (said == alone.y)[answered]
        assert found["drifts"][k]["reference"] == pytest.approx(right.mean(), abs=1e-12)
        assert found["drifts"][k]["rows"] == 10_000
        assert found["drifts"][k]["recovery"] is not None
    assert 0 <= found["alarms"]["misses"] <= 3


@pytest.mark.jit
def test_a_replay_of_a_concept_is_the_reset_reference(shared_data: Path) -> None:
    """Through files, schema and engine: the accuracy of a replay that starts at the drift."""
    table = pq.read_table(shared_data / "lobo_sine_abrupt.parquet")
    X = np.column_stack([table[c].to_numpy() for c in table.column_names if c != "class"])
    block = block_of(X.astype(np.float64), table["class"].to_numpy().astype(np.float64))
    evaluation, _ = observed(classifier, cut(block, [4096, 20_000]), [10_000, 20_000])
    alone = replay(classifier(), table.slice(10_000, 10_000), target="class")
    drift = evaluation.result()["drifts"][0]
    assert drift["reference"] == pytest.approx(alone.metrics["accuracy"], abs=1e-12)


@pytest.mark.parametrize("delay", [None, 9, "column"])
def test_a_replay_with_late_labels_equals_a_plain_loop(delay: Any) -> None:
    """Through the source that holds labels back, with probes held out on the way."""
    plain = stream("classification", 150, seed=11)
    came = 60 * np.arange(150) + np.random.default_rng(0).integers(0, 1200, 150)
    names = [f"x{j}" for j in range(3)]
    columns = {name: plain.X[:, j] for j, name in enumerate(names)}
    seconds = {name: pa.array(at, pa.timestamp("s")) for name, at in _times(came).items()}
    table = pa.table(columns | {"y": plain.y.astype(np.int64)} | seconds)
    drifts = [(50, 50), (95, 105)]
    found = replay(
        classifier(),
        table,
        schema={
            "target": "y",
            "task": "classification",
            "classes": "integer",
            "features": dict.fromkeys(names, "number"),
            "time": "t",
            "label_time": "known",
        },
        delay="known" if delay == "column" else delay,
        drifts=drifts,
        probes=2,
    )
    after = [delay] * 150
    if delay == "column":  # the last event at or before the time that stands there
        after = [min(int(at) // 60, 149) - i for i, at in enumerate(came)]
    order = came if delay == "column" else None
    block = plain if delay is None else naive_drift.late(plain, after, came=order)
    assert found.drift is not None
    said, measured = naive_drift.probe_result(
        classifier(), block, drifts, "classification", probes=2, every=1000
    )
    prediction = np.array([np.nan if value is None else value for value in said])
    settings: dict[str, Any] = {"horizon": 10_000, "window": 1000, "span": 200, "margin": 0.02}
    expected = naive_drift.drift_result(
        classifier(), block, prediction, drifts, "classification", probes=2, **settings
    )
    assert_close(found.drift["drifts"], expected)
    assert found.drift["probes"]["concepts"] == measured["concepts"]
    assert found.known_drifts == [[50, 50], [95, 105]]
    json.loads(found.to_json())


@pytest.mark.parametrize("delay", [None, 9])
@pytest.mark.parametrize("limit", [10, 55, 100])
def test_an_interrupted_replay_goes_on(tmp_path: Path, limit: int, delay: int | None) -> None:
    """From a checkpoint the reset reference and the probes go on as if nothing had been."""
    plain = stream("classification", 150, seed=11)
    columns = {f"x{j}": plain.X[:, j] for j in range(3)}
    table = pa.table(columns | {"y": plain.y.astype(np.int64)})
    settings: dict[str, Any] = {"target": "y", "delay": delay, "drifts": [50, 100], "probes": 2}
    whole = replay(classifier(), table, **settings)
    part = replay(classifier(), table, **settings, limit=limit, checkpoint=tmp_path)
    rest = replay(classifier(), table, **settings, checkpoint=tmp_path)
    assert part.events == limit
    assert rest.drift == whole.drift


def _times(came: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    return {"t": 60 * np.arange(len(came)), "known": came}


def test_run_in_cuts_and_update_agree_on_alarms() -> None:
    """Alarms are counted under the number of the last event, a late label's too."""
    block = delayed(stream("classification", 120, seed=9), "rows", 0)
    pipeline = Pipeline(Normalizer(), KalmanClassifier(), ADWIN(clock=1, delta=0.5))
    outputs = run_in_cuts(pipeline, [block])
    evaluation = DriftEvaluation(pipeline.clone(), [40, 80], tolerance=5, **SMALL)
    evaluation.update(block, outputs)
    number, alarms = -1, []
    for t in range(block.n):
        number += bool(block.mode[t] & PREDICT)
        if outputs["alarm"][t]:
            alarms.append(number)
    expected = naive_drift.judged(alarms, [(40, 40), (80, 80)], 5)
    assert alarms
    found = evaluation.result()
    drifts = expected.pop("drifts")
    assert found["alarms"] == expected
    shown = [{k: d[k] for k in ("start", "end", "delay", "alarms")} for d in found["drifts"]]
    assert shown == drifts
