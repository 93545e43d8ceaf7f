"""Labels that come late: rows, learning, metrics and state are those of an event-by-event loop."""

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.block import EXPIRED, LABELLED, LEARN, NO_TIME, SCORED, Block
from streamlearn.connectors import as_source
from streamlearn.contracts import Batch
from streamlearn.engine import Engine
from streamlearn.errors import UserError
from streamlearn.evaluation import Evaluation
from streamlearn.label_delay import Delay, DelayHistogram, parse_delay, parse_span
from streamlearn.labels import DelayedLabels
from streamlearn.late_rows import packed, unpacked
from streamlearn.operators import Imputer, KalmanClassifier, Normalizer, OneHotEncoder
from streamlearn.pipeline import Pipeline
from streamlearn.schema import Schema
from streamlearn.testing import assert_same_state, through_json
from tests import naive_labels

SECOND = 10**9
WHAT = {SCORED: "event", LABELLED: "both", LEARN: "label", EXPIRED: "gone"}


def records_of(n: int, seed: int, unordered: float = 0.2) -> list[dict[str, Any]]:
    """Events with times that jump back, ties, no label, labels known early, late or never."""
    rng = np.random.default_rng(seed)
    t, out = 0, []
    for i in range(n):
        t += int(rng.integers(0, 3))
        time = max(0, t - int(rng.integers(0, 6))) if rng.random() < unordered else t
        known = time + int(rng.integers(-3, 12))
        y = ["a", "b", "c", "d"][min(3, int(rng.geometric(0.5)) - 1)]
        out.append(
            {
                "id": f"e{i}",
                "t": time,
                "known": None if rng.random() < 0.1 else max(0, known),
                "x": float(rng.normal() + (y == "a")),
                "colour": f"c{int(rng.integers(0, 2 + i // 40))}",
                "y": None if rng.random() < 0.1 else y,
                "group": "even" if i % 2 == 0 else "odd",
            }
        )
    return out


def event_schema(**more: Any) -> Schema:
    features = {"x": {"kind": "number"}, "colour": {"kind": "category"}}
    return Schema(features=features, id="id", time="t", group="group", **more)  # type: ignore[arg-type]


def delayed_source(records: Sequence[Any], delay: Any) -> DelayedLabels:
    schema = event_schema(target="y", task="classification", label_time="known")
    return DelayedLabels(as_source(list(records), schema)[0], schema, delay)


def polled(source: Any, sizes: Sequence[int]) -> list[Batch]:
    """All batches of a source, asked for so many events in turn."""
    source.open({})
    out: list[Batch] = []
    while not source.finished:
        batch = source.poll(sizes[len(out) % len(sizes)], 0.0)
        if batch is not None:
            out.append(batch)
    return out


def rows_of(batches: Sequence[Batch]) -> list[naive_labels.Row]:
    """Blocks as the rows of the naive reference; what X, weight and ids must be is checked here."""
    out: list[naive_labels.Row] = []
    for block in (batch.block for batch in batches):
        assert block.events is not None
        for t in range(block.n):
            what = WHAT[int(block.mode[t])]
            assert np.isnan(block.X[t]).all() == (what in ("label", "gone"))
            y = block.y[t]
            assert np.isnan(y) == (what in ("event", "gone"))
            value = None
            if not np.isnan(y):
                value = float(y) if block.labels is None else block.labels.values[int(y)]
            time = None if block.times is None else int(block.times[t]) // SECOND
            out.append((what, int(block.events[t]), value, time))
    return out


# -- delays ----------------------------------------------------------------------------------------

DELAYS = [("0", "rows", 0), (1, "rows", 1), ("7", "rows", 7), (100, "rows", 100),
          (5000, "rows", 5000), ("4s", "duration", 4), ("0s", "duration", 0),
          ("known", "column", 0)]  # fmt: skip


@pytest.mark.parametrize(("delay", "kind", "n"), DELAYS)
@pytest.mark.parametrize("sizes", [[1], [7], [3, 1, 50], [4096]])
def test_rows_come_in_the_order_of_the_naive_loop(
    delay: Any, kind: str, n: int, sizes: list[int]
) -> None:
    records = records_of(260, seed=len(sizes))
    source = delayed_source(records, delay)
    assert rows_of(polled(source, sizes)) == naive_labels.delayed(records, kind, n)


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    delay=st.sampled_from(DELAYS),
)
def test_any_cut_gives_the_rows_of_the_naive_loop(seed: int, sizes: list[int], delay: Any) -> None:
    records = records_of(90, seed)
    given, kind, n = delay
    source = delayed_source(records, given)
    assert rows_of(polled(source, sizes)) == naive_labels.delayed(records, kind, n)
    told = source.report()
    expected = naive_labels.delayed(records, kind, n)
    assert told["labelled"] == sum(row[0] in ("both", "label") for row in expected)
    assert told["unlabelled"] == sum(row[:2] == ("event", -1) for row in expected)
    assert (told["events"], told["pending"]) == (90, 0)


def test_no_poll_gives_more_events_than_were_asked_for() -> None:
    for batch in polled(delayed_source(records_of(200, 3), 9), [5]):
        assert np.count_nonzero(batch.block.mode & SCORED == SCORED) <= 5


def test_a_label_row_has_the_side_columns_of_its_event_and_nothing_of_the_future() -> None:
    records = records_of(120, 5)
    for batch in polled(delayed_source(records, "known"), [16]):
        block = batch.block
        assert block.label_times is None
        assert block.ids is not None
        assert block.groups is not None
        assert block.events is not None
        for t in np.flatnonzero(block.mode == LEARN):
            record = records[int(block.events[t])]
            assert (block.ids[t], block.groups[t]) == (record["id"], record["group"])


def test_classes_get_their_codes_as_their_labels_arrive() -> None:
    records = [
        {"x": 0.0, "y": y, "known": k, "t": t, "id": t, "colour": "c", "group": "g"}
        for t, (y, k) in enumerate([("late", 9), ("soon", 2), ("now", 1), ("soon", 4)])
    ]
    source = delayed_source(records, "known")
    polled(source, [1])
    assert source.labels is not None
    assert source.labels.values == ["now", "soon", "late"]


@pytest.mark.parametrize("delay", [0, 1, 7, 100, "4s", "known"])
def test_an_altered_future_label_changes_nothing_before_it_comes(delay: Any) -> None:
    """Blocks up to the label that was altered are the same, codes included."""
    records = records_of(150, 8)
    altered = [dict(r, y="zebra" if i >= 60 and r["y"] else r["y"]) for i, r in enumerate(records)]
    blocks = [polled(delayed_source(rows, delay), [1]) for rows in (records, altered)]
    for one, other in zip(*blocks, strict=True):
        block, twin = one.block, other.block
        changed = (block.mode & LEARN != 0) & (np.asarray(block.events) >= 60)
        end = int(np.argmax(changed)) if changed.any() else block.n
        assert block.y[:end].tobytes() == twin.y[:end].tobytes()
        assert block.mode[:end].tolist() == twin.mode[:end].tolist()
        if changed.any():
            return
    raise AssertionError("no label from row 60 on has come")


@pytest.mark.parametrize("delay", [400, "400s", "known"])
def test_a_label_that_waits_takes_some_bytes_and_none_of_its_features(delay: Any) -> None:
    """Numbers are 40 bytes, id and group a pointer each; no block is kept alive by them."""
    n, d = 2000, 50
    rng = np.random.default_rng(0)
    features: dict[str, Any] = {f"x{j}": {"kind": "number"} for j in range(d)}
    schema = Schema(features=features, target="y", task="regression", id="t", time="t",
                    label_time="known", group="x0")  # fmt: skip
    rows = [dict.fromkeys(features, 1.0) | {"y": 1.0, "t": t, "known": t + int(rng.integers(800))}
            for t in range(n)]  # fmt: skip
    source = DelayedLabels(as_source(rows, schema)[0], schema, delay)
    source.open({})
    for _ in range(150):
        source.poll(13, 0.0)
    held = {id(a): a for run in source._queue._runs for c in run if c is not None
            for a in (c, c.base) if a is not None}  # fmt: skip
    waiting = source.report()["pending"]
    assert waiting > 300
    # views of runs whose first labels were taken hold at most as much again, twice merged
    assert sum(a.nbytes for a in held.values()) < 4 * 56 * waiting + 56 * 13


def test_words_of_an_event_are_not_those_of_its_label() -> None:
    schema = Schema(features={"w": {"kind": "words", "buckets": 8}}, target="y", task="regression")  # type: ignore[dict-item]
    rows = [{"w": ["a", "b"][: i % 3], "y": float(i)} for i in range(9)]
    source = DelayedLabels(as_source(rows, schema)[0], schema, 2)
    plain = as_source(rows, Schema(**schema.to_config()))[0]
    expected = [row for batch in polled(plain, [9]) for row in batch.block.sparse.dense()]  # type: ignore[union-attr]
    seen = []
    for batch in polled(source, [2]):
        block = batch.block
        assert block.sparse is not None
        for row, mode in zip(block.sparse.dense(), block.mode, strict=True):
            if mode == LEARN:
                assert not row.any()
            else:
                seen.append(row)
    assert np.array_equal(seen, expected)


def test_an_event_without_a_time_stands_at_the_clock() -> None:
    """A source of one's own may leave out times; the label is due by the latest time before it."""
    schema = Schema(features={"x": {"kind": "number"}}, target="y", task="regression", time="t")  # type: ignore[dict-item]
    source = DelayedLabels(as_source([{"x": 0.0, "y": 0.0, "t": 0}], schema)[0], schema, "10s")
    times = np.array([NO_TIME, 5, NO_TIME, 14, 16]) * 1
    times[times != NO_TIME] *= SECOND
    block = Block(
        np.zeros((5, 1)), np.arange(5.0), np.ones(5), np.full(5, LABELLED, np.uint8),
        schema.columns, times=times,
    )  # fmt: skip
    out = source._late(block)
    assert out.events is not None
    # events 0 and 2 are due at no time (before any clock) and at 15; event 1 at 15 too
    assert list(zip(out.mode.tolist(), out.events.tolist(), strict=True)) == [
        (SCORED, 0), (LEARN, 0), (SCORED, 1), (SCORED, 2), (SCORED, 3), (LEARN, 1), (LEARN, 2),
        (SCORED, 4),
    ]  # fmt: skip


# -- learning --------------------------------------------------------------------------------------


def one_row(block: Block, t: int, **changes: Any) -> Block:
    return block.rows(t, t + 1).replace(events=None, groups=None, ids=None, times=None, **changes)


class PerEvent:
    """Normaliser and head run one row at a time, with what was scored in a dict of our own."""

    def __init__(self) -> None:
        self.stages = [Imputer(), OneHotEncoder(), Normalizer()]
        self.head = KalmanClassifier()
        self.all_stages: Any = [*self.stages, self.head]
        self.logged: dict[int, Any] = {}
        self.said: list[tuple[Any, dict[Any, float]]] = []
        self.metrics = naive_labels.Prequential(window=50)

    def run(self, source: DelayedLabels) -> "PerEvent":
        for batch in polled(source, [1]):
            block = batch.block
            assert block.events is not None
            for t, number in enumerate(block.events.tolist()):
                if block.mode[t] != LEARN:
                    self.event(one_row(block, t, mode=np.array([SCORED], np.uint8)), number)
                if block.mode[t] & LEARN:
                    assert block.labels is not None
                    self.label(one_row(block, t), number, block.labels.values[int(block.y[t])])
        return self

    def event(self, row: Block, number: int) -> None:
        row = row.replace(y=np.array([np.nan]))
        for stage in self.stages:
            X = stage.run(row)["X"]
            row = row.with_X(X, stage.output_features(row.features))
        self.width = row.features
        out = self.head.run(row)
        names = [] if row.labels is None else list(row.labels.values)
        proba = dict(zip(names, out["proba"][0].tolist(), strict=False))
        code = float(out["prediction"][0])
        said = None if math.isnan(code) else names[int(code)]
        self.said.append((said, proba))
        self.logged[number] = row
        self.metrics.scored(number, said, proba)

    def label(self, row: Block, number: int, y: Any) -> None:
        then = self.logged.pop(number)
        new = len(self.width) - then.d  # a column that did not exist then is missing
        X = np.concatenate([then.X, np.full((1, new), np.nan)], axis=1)
        then = then.with_X(X, self.width)
        self.head.run(then.replace(y=row.y, mode=np.array([LEARN], np.uint8), labels=row.labels))
        self.metrics.labelled(number, y)


def pipeline() -> Pipeline:
    return Pipeline(Imputer(), OneHotEncoder(), Normalizer(), KalmanClassifier())


class Said:
    """A sink that keeps what was said."""

    guarantee = "kept in memory"

    def __init__(self) -> None:
        self.rows: list[tuple[Any, dict[Any, float]]] = []

    def open(self, position: Any) -> None:
        self.rows.clear()

    def write(self, answers: Any) -> None:
        block, outputs = answers.block, answers.outputs
        names = list(block.labels.values)
        for t in np.flatnonzero(block.mode & SCORED == SCORED):
            code, proba = outputs["prediction"][t], outputs["proba"][t].tolist()
            said = None if np.isnan(code) else names[int(code)]
            self.rows.append((said, dict(zip(names, proba, strict=False))))

    def commit(self) -> Any:
        return None

    def close(self) -> None:
        """Nothing is open."""


def known(said: tuple[Any, dict[Any, float]]) -> tuple[Any, dict[Any, float]]:
    """What was said, without classes of probability 0 (unknown then); nothing where no answer."""
    return said[0], {k: p for k, p in said[1].items() if p} if said[0] is not None else {}


@pytest.mark.jit
@pytest.mark.parametrize("delay", [0, 1, 100, 5000, "known", "5s"])
def test_predictions_metrics_and_state_are_those_of_the_per_event_loop(delay: Any) -> None:
    n = 5600 if delay == 5000 else 700
    records = records_of(n, 11)
    reference = PerEvent().run(delayed_source(records, delay))
    states = []
    for rows in (1, 37, 4096) if n < 1000 else (1000, 4096):
        source, pipe, sink = delayed_source(records, delay), pipeline(), Said()
        evaluation = Evaluation("classification", window=50, delayed=True)
        Engine(source, pipe, evaluation=evaluation, sink=sink, block_rows=rows).run()
        assert list(map(known, sink.rows)) == list(map(known, reference.said))
        told, loop = evaluation.result(), reference.metrics
        assert told["metrics"]["accuracy"] == pytest.approx(loop.accuracy(), abs=1e-12)
        assert told["metrics"]["log_loss"] == pytest.approx(loop.log_loss(), rel=1e-12)
        assert told["windowed"]["accuracy"] == pytest.approx(loop.accuracy(50), abs=1e-12)
        stages: Any = pipe.stages
        for stage, twin in zip(stages, reference.all_stages, strict=True):
            assert_same_state(stage.state(), twin.state(), type(stage).__name__)
        states.append((pipe.state(), evaluation.state(), source.state()))
    for parts in states[1:]:
        for one, other in zip(states[0], parts, strict=True):
            assert_same_state(one, other)


# -- state -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0, 1, 9, 500, "4s", "known"])
@pytest.mark.parametrize("at", [0, 1, 77, 119, 120])
def test_a_reader_goes_on_from_state_and_positions(delay: Any, at: int) -> None:
    """Its rows are those that were left, and so is its state; wherever it stood, whatever cut."""
    records = records_of(120, 21)
    whole = delayed_source(records, delay)
    expected = rows_of(polled(whole, [1]))
    states = []
    for sizes in ([1], [13, 4]):
        first = delayed_source(records, delay)
        first.open({})
        head: list[Batch] = []
        done = 0
        while done < at:
            batch = first.poll(min(sizes[len(head) % len(sizes)], at - done), 0.0)
            assert batch is not None
            head.append(batch)
            done += int(np.count_nonzero(batch.block.mode & SCORED == SCORED))
        taken, schema = through_json(first.state()), through_json(first.schema.state())
        states.append(taken)
        again = delayed_source(records, delay)
        again.schema.load(schema)
        again.load(taken)
        again.open(head[-1].positions if head else {})
        tail = []
        while not again.finished:
            if (batch := again.poll(17, 0.0)) is not None:
                tail.append(batch)
        assert rows_of([*head, *tail]) == expected
        assert again.report() == whole.report()
        assert_same_state(again.state(), whole.state())
    assert_same_state(states[0], states[1])


def test_the_state_of_another_delay_is_refused() -> None:
    taken = delayed_source(records_of(3, 1), 5).state()
    with pytest.raises(UserError, match=r"^delay: the checkpoint was made with 5, got 4s; give"):
        delayed_source(records_of(3, 1), "4s").load(taken)


def test_opened_again_it_begins_anew() -> None:
    records = records_of(50, 2)
    source = delayed_source(records, 7)
    assert rows_of(polled(source, [9])) == rows_of(polled(source, [50]))
    assert source.report()["events"] == 50


# -- what a user gives -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected", "text"),
    [
        ("100", Delay("rows", 100), "100"),
        (0, Delay("rows", 0), "0"),
        ("30min", Delay("duration", 1800 * SECOND), "30min"),
        (" 1.5 h ", Delay("duration", 5400 * SECOND), "90min"),
        ("7d", Delay("duration", 7 * 86_400 * SECOND), "1w"),
        ("250us", Delay("duration", 250_000), "250us"),
        ("0.1ns", Delay("duration", 0), "0w"),
        (timedelta(milliseconds=3), Delay("duration", 3_000_000), "3ms"),
        ("known_at", Delay("column", 0, "known_at"), "known_at"),
        ("5 elephants", Delay("column", 0, "5 elephants"), "5 elephants"),
    ],
)
def test_delays_as_people_write_them(value: Any, expected: Delay, text: str) -> None:
    assert parse_delay(value) == expected
    assert parse_delay(value).text == text
    assert parse_delay(parse_delay(value)) == expected


@pytest.mark.parametrize("value", ["", "-3", -3, 1.5, True, None, "40000d", timedelta(days=-1)])
def test_what_is_no_delay_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"^delay: must be .*, got "):
        parse_delay(value)


@pytest.mark.parametrize("value", ["known", "", "3 weeks"])
def test_a_timeout_is_no_column(value: Any) -> None:
    with pytest.raises(UserError, match=r"^timeout: must be a number of rows \(100\), or a dur"):
        parse_span(value)


def test_a_delay_that_the_schema_cannot_tell_is_refused() -> None:
    plain = Schema(features={"x": {"kind": "number"}}, target="y", task="regression")  # type: ignore[dict-item]
    source = as_source([{"x": 1.0, "y": 1.0}], plain)[0]
    with pytest.raises(UserError, match=r"^delay: 5s is told in time, but the schema names no"):
        DelayedLabels(source, plain, "5s")
    with pytest.raises(UserError, match=r"^delay: must be rows, a duration or the schema's label"):
        delayed_source(records_of(2, 1), "t")


# -- how late --------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**18), min_size=1, max_size=60), st.integers(1, 60))
def test_quantiles_are_exact_to_three_percent(values: list[int], cut: int) -> None:
    whole, parts = DelayHistogram(), DelayHistogram()
    whole.add(np.array(values, dtype=np.int64))
    for start in range(0, len(values), cut):
        parts.add(np.array(values[start : start + cut], dtype=np.int64))
    assert_same_state(whole.state(), parts.state())
    told = whole.summary()
    assert told["mean"] == sum(values) / len(values)
    assert told["max"] == max(values) / 1
    for q, name in ((0.5, "p50"), (0.99, "p99")):
        exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
        assert told[name] == pytest.approx(exact, rel=0.0301)
    again = DelayHistogram()
    again.load(through_json(whole.state()))
    assert again.summary() == told
    assert int(whole.bars()[1].sum()) == len(values)


def test_a_delay_of_up_to_a_thousand_rows_is_told_exactly() -> None:
    histogram = DelayHistogram()
    histogram.add(np.array([100] * 98 + [99, 0]))
    told = {"mean": 98.99, "p50": 100.0, "p99": 100.0, "max": 100.0}
    assert histogram.summary() == told
    low, counts = histogram.bars()
    assert counts.tolist() == [1, 99]
    assert low[0] == 0
    assert 94 < low[1] <= 99


def test_without_labels_there_is_no_delay() -> None:
    assert DelayHistogram().summary() == {}
    assert math.isnan(DelayHistogram().quantile(0.5))


# -- ids in a state --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, -5, 2**62], "integers"),
        (["a", "", "häuser", "\ud800x", "b\0c"], "text"),
        ([1, "1", None], "json"),
        ([True, False], "json"),
        ([2**70, 1], "json"),
        ([], "json"),
        (None, "json"),
    ],
)
def test_ids_come_back_from_a_state_as_they_were(values: Any, kind: str) -> None:
    state = packed(values)
    assert state.table["kind"] == kind
    found = unpacked(through_json(state))
    assert found == values
    assert found is None or list(map(type, found)) == list(map(type, values))
