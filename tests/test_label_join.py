"""A stream of labels joined to events by id: what is learnt, given up, refused, and remembered."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.block import LEARN, SCORED
from streamlearn.checkpoint import CheckpointStore
from streamlearn.connectors import as_source, open_dead_letters, open_sink
from streamlearn.contracts import Batch, Reject
from streamlearn.engine import Engine
from streamlearn.errors import UserError
from streamlearn.evaluation import Evaluation
from streamlearn.labels import JoinedLabels
from streamlearn.operators import Imputer, KalmanClassifier, Normalizer, OneHotEncoder
from streamlearn.order_log import OrderLog
from streamlearn.pipeline import Pipeline
from streamlearn.schema import LabelSchema, Schema
from streamlearn.testing import (
    ListSource,
    Mark,
    SettableClock,
    assert_same_state,
    block_of,
    through_json,
)
from tests import naive_labels
from tests.test_labels import event_schema, polled, records_of, rows_of

CASES: list[dict[str, Any]] = [
    {},
    {"timeout": "6s"},
    {"timeout": "6s", "assume": "b"},
    {"timeout": "0s"},
    {"max_pending": 4},
    {"timeout": "9s", "max_pending": 3, "assume": "z"},
]


def labels_of(records: Sequence[Any], seed: int) -> list[dict[str, Any]]:
    """Labels in the order they became known, some twice, some early, of unknown ids, without id."""
    rng = np.random.default_rng(seed)
    out = []
    for record in records:
        if record["known"] is None:
            continue
        y = record["y"] if rng.random() < 0.95 else None
        times = 2 if rng.random() < 0.15 else 1
        out += [{"id": record["id"], "y": y, "t": record["known"] + k} for k in range(times)]
        if rng.random() < 0.1:
            odd = None if rng.random() < 0.3 else f"unknown{len(out)}"
            out.append({"id": odd, "y": "a", "t": record["known"]})
    out.sort(key=lambda label: label["t"] + float(rng.integers(0, 2)))
    return out


def repeated_ids(records: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Some events have the id of an earlier one, or none."""
    rng = np.random.default_rng(seed)
    for i, record in enumerate(records):
        if i and rng.random() < 0.06:
            record["id"] = records[int(rng.integers(0, i))]["id"]
        if rng.random() < 0.04:
            record["id"] = None
    return records


def joined(events: Any, labels: Any, **options: Any) -> JoinedLabels:
    es, ls = event_schema(), LabelSchema(target="y", task="classification", id="id", time="t")
    return JoinedLabels(as_source(events, es)[0], as_source(labels, ls)[0], es, ls, **options)


def naive(events: Any, labels: Any, timeout: str | None = None, assume: Any = None,
          max_pending: int = 10**9) -> naive_labels.Join:  # fmt: skip
    """The reference, on nanoseconds as the source has them."""
    span = float("inf") if timeout is None else int(timeout[:-1])
    return naive_labels.Join(span, assume, max_pending).run(events, labels)


REASONS = {
    "duplicate": ("has a label already", "waits already"),
    "late": ("came after the time-out", "was given up"),
    "unknown": ("names no event", "there was no event", "no event"),
    "empty": ("has no value",),
}


def kinds(rejects: Sequence[Reject]) -> list[str]:
    out = []
    for reject in rejects:
        found = [kind for kind, texts in REASONS.items() if any(t in reject.reason for t in texts)]
        out.append(found[0])
    return out


def counts(source: JoinedLabels) -> dict[str, Any]:
    return {k: v for k, v in source.report().items() if isinstance(v, int)}


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    options=st.sampled_from(CASES),
)
def test_any_cut_gives_the_rows_of_the_naive_join(
    seed: int, sizes: list[int], options: dict[str, Any]
) -> None:
    events = repeated_ids(records_of(70, seed), seed)
    labels = labels_of(events, seed) or [{"id": "e0", "y": "a", "t": 0}]
    source, reference = joined(events, labels, **options), naive(events, labels, **options)
    batches = polled(source, sizes)
    assert rows_of(batches) == reference.rows
    rejects = [reject for batch in batches for reject in batch.rejects]
    assert kinds(rejects) == [why for why, _ in reference.refused]
    told, rows = source.report(), Counter(row[0] for row in reference.rows)
    assert told["events"] == len(events)
    assert told["early"] == rows["both"]
    assert told["labelled"] + told["assumed"] == rows["both"] + rows["label"]
    assert told["expired"] + told["evicted"] + told["replaced"] == rows["gone"]
    assert told["pending"] == len(reference.waiting)
    assert told["contradicted"] == reference.contradicted
    refused = Counter(why for why, _ in reference.refused)
    assert [told[k] for k in ("duplicates", "late", "unknown", "empty")] == [
        refused[k] for k in ("duplicate", "late", "unknown", "empty")
    ]


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("at", [0, 1, 60, 199, 200])
def test_a_reader_goes_on_from_state_and_positions(options: dict[str, Any], at: int) -> None:
    events = repeated_ids(records_of(200, 4), 4)
    labels = labels_of(events, 4)
    whole = joined(events, labels, **options)
    batches = polled(whole, [200])
    states = []
    for sizes in ([1], [23, 5]):
        first = joined(events, labels, **options)
        first.open({})
        head: list[Batch] = []
        while first.report()["events"] < at:
            left = at - first.report()["events"]
            batch = first.poll(min(sizes[len(head) % len(sizes)], left), 0.0)
            assert batch is not None
            head.append(batch)
        states.append(through_json(first.state()))
        again = joined(events, labels, **options)
        again.schema.load(through_json(first.schema.state()))
        again.load(states[-1])
        again.open(head[-1].positions if head else {})
        tail = []
        while not again.finished:
            if (batch := again.poll(17, 0.0)) is not None:
                tail.append(batch)
        assert rows_of([*head, *tail]) == rows_of(batches)
        rejects = [reject for batch in [*head, *tail] for reject in batch.rejects]
        assert rejects == [reject for batch in batches for reject in batch.rejects]
        assert again.report() == whole.report()
        assert_same_state(again.state(), whole.state())
    assert_same_state(states[0], states[1])


def test_what_does_not_fit_the_schemas_stands_where_it_stood_whatever_the_cut() -> None:
    events: list[Any] = records_of(60, 1, unordered=0.0)
    labels: list[Any] = labels_of(events, 1)
    for i in range(0, 60, 7):
        events[i] = dict(events[i], x="no number")
    for i in range(3, len(labels), 11):
        labels[i] = dict(labels[i], t="no time")
    found = []
    for sizes in ([1], [4, 9], [60]):
        batches = polled(joined(events, labels), sizes)
        found.append([reject for batch in batches for reject in batch.rejects])
    assert {"records"} == {r.partition for r in found[0] if "no number" in r.reason}
    assert found[1] == found[0]
    assert found[2] == found[0]


def rows_by_number(events: Any, labels: Any, **options: Any) -> tuple[Any, JoinedLabels]:
    """Streams without times."""
    es = Schema(features={"x": {"kind": "number"}}, id="id")  # type: ignore[dict-item]
    ls = LabelSchema(target="y", task="regression", id="id")
    source = JoinedLabels(as_source(events, es)[0], as_source(labels, ls)[0], es, ls, **options)
    return rows_of(polled(source, [3])), source


def test_without_times_both_streams_go_row_by_row_in_turn() -> None:
    events = [{"id": i, "x": 1.0} for i in range(5)]
    labels = [{"id": 1, "y": 10.0}, {"id": 0, "y": 20.0}, {"id": 4, "y": 30.0}]
    rows, source = rows_by_number(events, labels)
    assert rows == [
        ("event", 0, None, None), ("both", 1, 10.0, None), ("label", 0, 20.0, None),
        ("event", 2, None, None), ("event", 3, None, None), ("both", 4, 30.0, None),
    ]  # fmt: skip
    assert source.report()["early"] == 2


def test_a_timeout_in_rows_counts_events() -> None:
    events = [{"id": i, "x": 1.0} for i in range(6)]
    labels = [{"id": 5, "y": 1.0}, {"id": 77, "y": 1.0}, {"id": 2, "y": 3.0}, {"id": 0, "y": 9.0}]
    rows, source = rows_by_number(events, labels, timeout=2)
    assert rows == [
        ("event", 0, None, None), ("event", 1, None, None), ("event", 2, None, None),
        ("label", 2, 3.0, None), ("gone", 0, None, None), ("event", 3, None, None),
        ("gone", 1, None, None), ("event", 4, None, None), ("event", 5, None, None),
    ]  # fmt: skip
    assert counts(source) | {"unknown": 2, "late": 1, "expired": 2, "pending": 3} == counts(source)


def test_selective_labels_the_other_class_is_assumed() -> None:
    """Only frauds come back; the rest becomes `no` at the time-out, and a late fraud is told."""
    events = [{"id": i, "t": i * 10, "x": 0.0, "colour": "c", "group": "g"} for i in range(6)]
    labels = [{"id": 1, "t": 12, "y": "fraud"}, {"id": 2, "t": 49, "y": "fraud"},
              {"id": 0, "t": 50, "y": "no"}]  # fmt: skip
    source = joined(events, labels, timeout="15s", assume="no")
    assert rows_of(polled(source, [6])) == [
        ("event", 0, None, 0), ("event", 1, None, 10), ("label", 1, "fraud", 12),
        ("label", 0, "no", 15), ("event", 2, None, 20), ("event", 3, None, 30),
        ("label", 2, "no", 35), ("event", 4, None, 40), ("label", 3, "no", 45),
        ("event", 5, None, 50),
    ]  # fmt: skip
    told = source.report()
    assert (told["assumed"], told["contradicted"], told["late"]) == (3, 1, 2)
    assert (told["expired"], told["labelled"], told["pending"]) == (0, 1, 2)


def test_a_label_beyond_the_timeout_is_late_though_no_event_came_in_between() -> None:
    events = [{"id": i, "t": i, "x": 0.0, "colour": "c", "group": "g"} for i in range(2)]
    labels = [{"id": 0, "t": 16, "y": "a"}, {"id": 1, "t": 16, "y": "b"}]
    source = joined(events, labels, timeout="15s")
    batches = polled(source, [9])
    assert rows_of(batches) == [
        ("event", 0, None, 0), ("event", 1, None, 1), ("gone", 0, None, 15), ("label", 1, "b", 16),
    ]  # fmt: skip
    assert kinds([reject for batch in batches for reject in batch.rejects]) == ["late"]


def test_side_columns_and_weights_are_those_of_the_event() -> None:
    x: dict[str, Any] = {"x": {"kind": "number"}}
    es = Schema(features=x, id="id", time="t", key="k", group="x", weight="w")
    ls = LabelSchema(target="y", task="regression", id="id", time="t")
    events = [{"id": i, "t": i, "x": float(i), "k": f"k{i % 2}", "w": 1.0 + i} for i in range(6)]
    labels = [{"id": i, "t": i + 2, "y": 5.0 * i} for i in range(5)]
    source = JoinedLabels(as_source(events, es)[0], as_source(labels, ls)[0], es, ls)
    n = 0
    for batch in polled(source, [2]):
        block = batch.block
        for t in np.flatnonzero(block.mode == LEARN):
            assert block.events is not None
            assert block.ids is not None
            assert block.keys is not None
            assert block.groups is not None
            i = int(block.events[t])
            assert (block.ids[t], block.keys[t], block.groups[t]) == (i, f"k{i % 2}", i)
            assert (block.weight[t], block.y[t]) == (1.0 + i, 5.0 * i)
            n += 1
    assert n == 5


def test_a_label_stream_that_stops_does_not_hold_the_events_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = SettableClock()
    es, ls = event_schema(), LabelSchema(target="y", task="classification", id="id", time="t")
    labels = block_of(np.zeros((2, 0)), ["a", "b"], task="classification", ids=["e0", "e2"],
                      labels=ls.labels, names=[])  # fmt: skip
    labels.times = np.array([0, 50], dtype=np.int64)
    silent = ListSource([labels.rows(0, 1), *[Mark.PAUSE] * 30, labels.rows(1, 2)], clock)
    events = [{"id": f"e{i}", "t": i, "x": 0.0, "colour": "c", "group": "g"} for i in range(4)]
    source = JoinedLabels(as_source(events, es)[0], silent, es, ls, idle=1.0, clock=clock)
    source.open({})
    polls = (source.poll(10, 0.1) for _ in range(60))
    batches = [(clock.now, batch) for batch in polls if batch is not None]
    assert source.finished
    assert rows_of([batch for _, batch in batches]) == [
        ("event", 0, None, 0), ("label", 0, "a", 0), ("event", 1, None, 1), ("event", 2, None, 2),
        ("event", 3, None, 3), ("label", 2, "b", 0),
    ]  # fmt: skip
    assert [now for now, batch in batches if batch.block.n][1] >= 1.0
    assert source.report()["stalls"] == 1
    assert caplog.messages == ["labels: nothing for 1 s; the others go on without it (told once)"]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"timeout": "soon"}, r"^timeout: must be a number of rows \(100\), or a duration"),
    ({"max_pending": 0}, "^max_pending: must be >= 1, got 0$"),
    ({"idle": -1.0}, r"^idle: must be >= 0, got -1\.0$"),
    ({"assume": "b"}, "^assume: 'b' is for events at their time-out; give a timeout$"),
    ({"assume": "", "timeout": "5s"}, "^assume: must be a label, got ''$"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_arguments_out_of_range_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        joined([{}], [{}], **options)


def test_schemas_that_cannot_be_joined_are_refused() -> None:
    plain: dict[str, Any] = {"features": {"x": {"kind": "number"}}}
    es, ls = event_schema(), LabelSchema(target="y", task="regression", id="id", time="t")
    source = as_source([{}], es)[0]
    with pytest.raises(UserError, match=r"^events: must have an id column, to join"):
        JoinedLabels(source, source, Schema(**plain), ls)
    with pytest.raises(UserError, match=r"^labels: must have a target column; name it$"):
        JoinedLabels(source, source, es, Schema(**plain, id="id"))
    with pytest.raises(UserError, match=r"^events: must have a time column where"):
        JoinedLabels(source, source, Schema(**plain, id="id"), ls)
    none = LabelSchema(target="y", task="regression", id="id")
    with pytest.raises(UserError, match=r"^timeout: 5s is told in time, but the events"):
        JoinedLabels(source, source, Schema(**plain, id="id"), none, timeout="5s")
    with pytest.raises(UserError, match=r"^assume: .*got 'many'"):
        JoinedLabels(source, source, es, ls, timeout="5s", assume="many")


def test_the_state_of_other_settings_is_refused() -> None:
    taken = joined([{}], [{}], timeout="5s").state()
    with pytest.raises(UserError, match=r"^labels: the checkpoint was made with timeout"):
        joined([{}], [{}]).load(taken)


def test_scored_events_are_at_most_as_many_as_were_asked_for() -> None:
    events = records_of(100, 6)
    for batch in polled(joined(events, labels_of(events, 6)), [7]):
        assert np.count_nonzero(batch.block.mode & SCORED == SCORED) <= 7


# -- live, and again from the order log ------------------------------------------------------------


class Gated:
    """A source whose rows are there only from a time of the wall on, five at a time."""

    def __init__(self, source: Any, gates: Sequence[float], clock: SettableClock) -> None:
        self.source, self.gates, self.clock = source, gates, clock
        self.guarantee = source.guarantee
        self.given = 0

    def open(self, positions: Any) -> None:
        self.source.open(positions)

    def ready(self, max_wait: float) -> Any:
        if self.clock.now < self.gates[min(self.given // 5, len(self.gates) - 1)]:
            self.clock.sleep(max_wait)
            return None
        found = self.source.ready(max_wait)
        return None if found is None else found._replace(n=min(found.n, 5 - self.given % 5))

    def poll(self, max_events: int, max_wait: float) -> Batch | None:
        batch: Batch | None = self.source.poll(max_events, max_wait)
        self.given += 0 if batch is None else batch.block.n
        return batch

    @property
    def finished(self) -> bool:
        done: bool = self.source.finished
        return done

    def close(self) -> None:
        self.source.close()


def live_run(folder: Path, seed: int, order: OrderLog | None, block_rows: int, **stop: Any) -> Any:
    """An engine whose label stream comes in bursts (no seed: all is there), and what it said."""
    events = records_of(150, 9, unordered=0.0)
    labels = labels_of(events, 9)
    clock, rng = SettableClock(), np.random.default_rng(seed)
    es, ls = event_schema(), LabelSchema(target="y", task="classification", id="id", time="t")
    gates = np.cumsum(rng.exponential(2.0, 40)) if seed else np.zeros(1)
    seen = Gated(as_source(events, es)[0], list(gates / 3), clock)
    told = Gated(as_source(labels, ls)[0], list(gates), clock)
    source = JoinedLabels(seen, told, es, ls, timeout="40s", idle=1.0, order_log=order, clock=clock)
    pipe = Pipeline(Imputer(), OneHotEncoder(), Normalizer(), KalmanClassifier())
    measure = Evaluation("classification", window=50, delayed=True)
    dead = open_dead_letters(folder / "dead.jsonl")
    sink = open_sink(folder / "out.csv", source)
    store = order.store if order is not None else None
    engine = Engine(source, pipe, evaluation=measure, sink=sink, dead_letters=dead,
                    checkpoints=store, every_events=20, block_rows=block_rows, **stop)  # fmt: skip
    engine.run()
    said = [(folder / name).read_bytes() for name in ("out.csv", "dead.jsonl")]
    return said, pipe.state(), measure.state(), source.report()


def test_the_order_log_of_a_live_run_gives_its_bits_again(tmp_path: Path) -> None:
    """Answers, dead letters, what was learnt and measured; without the log they are others."""
    store = CheckpointStore(tmp_path / "c")
    log = OrderLog(tmp_path / "order.log", store)
    first = live_run(folder(tmp_path / "live"), 3, log, 7)
    assert first[3]["stalls"] > 2
    for k, rows in enumerate((1, 64)):
        again = OrderLog(tmp_path / "order.log", replay=True)
        found = live_run(folder(tmp_path / f"again{k}"), 0, again, rows)
        assert found[0] == first[0]
        assert_same_state(found[1], first[1])
        assert_same_state(found[2], first[2])
        assert {**found[3], "stalls": 0} == {**first[3], "stalls": 0}
    assert live_run(folder(tmp_path / "other"), 0, None, 7)[0] != first[0]


@pytest.mark.parametrize("limit", [20, 50, 149])
def test_a_live_run_that_stops_goes_on_as_it_would_have(tmp_path: Path, limit: int) -> None:
    """After the checkpoint the log is repeated, then it chooses by the clock again."""
    where = folder(tmp_path / "run")
    path = where / "order.log"
    live_run(where, 5, OrderLog(path, CheckpointStore(where / "c")), 9, limit=limit)
    last = live_run(where, 0, OrderLog(path, CheckpointStore(where / "c")), 4)
    again = OrderLog(path, replay=True)
    found = live_run(folder(tmp_path / "again"), 0, again, 30)
    assert found[0] == last[0]
    assert_same_state(found[1], last[1])
    assert_same_state(found[2], last[2])


def folder(path: Path) -> Path:
    path.mkdir()
    return path
