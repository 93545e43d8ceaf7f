"""Answers, alarms and dead letters as messages: what they hold, their keys, headers, partitions."""

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamlearn.block import (
    LABELLED,
    LEARN,
    NO_TIME,
    OBSERVE,
    PREDICT,
    SCORED,
    UNSCORED,
    Block,
    Columns,
    Features,
    Vocabulary,
)
from streamlearn.connectors.kafka.location import Topics
from streamlearn.connectors.kafka.outputs import Outputs
from streamlearn.connectors.kafka.wire import BrokerError, Connection
from streamlearn.connectors.sinks import open_alerts
from streamlearn.contracts import Answers, Origins, Reject
from tests.kafka.broker import Broker, Got, consume
from tests.kafka.doubles import MemoryBroker

T0 = 1_700_000_000_123  # ms


class Tables:
    """Of a schema: events have ids; classes, where there are any."""

    def __init__(self, labels: Vocabulary | None = None, id: str | None = "id") -> None:
        self.labels, self.id = labels, id


def origins(event: NDArray[np.int64]) -> Origins:
    """Event i is record 100 + i of partition i % 2 of topic in, with a key in every third."""
    keys = [b"k%d" % i if i % 3 == 0 else None for i in event.tolist()]
    return Origins(
        [("in", 0), ("in", 1)],
        (event % 2).astype(np.intp),
        100 + event,
        (T0 + event) * 1_000_000,
        keys,
    )


def answered(
    n: int, modes: list[int], outputs: Columns, labels: Vocabulary | None = None, **more: Any
) -> Callable[[int, int], Answers]:
    """A stream of n rows, of which any part can be had as a block."""
    mode = np.array([modes[i % len(modes)] for i in range(n)], np.uint8)
    y = np.array([i % 3 for i in range(n)], np.float64)
    ids = np.array([f"id{i}" for i in range(n)], object)
    is_event = (mode & (PREDICT | OBSERVE)) != 0
    number = np.cumsum(is_event) - is_event

    def part(start: int, stop: int) -> Answers:
        rows = slice(start, stop)
        block = Block(
            np.zeros((stop - start, 1)), y[rows], np.ones(stop - start), mode[rows],
            Features(["x"]), labels, ids=more.get("ids", ids)[rows],
        )  # fmt: skip
        first = int(number[start]) if start < n else int(is_event.sum())
        own = np.flatnonzero(is_event[rows])
        given = origins(number[rows][own]) if more.get("placed", True) else None
        return Answers(block, {k: v[rows] for k, v in outputs.items()}, first, given)

    return part


def outputs_to(memory: MemoryBroker, inputs: int = 2, out: int = 2) -> Outputs:
    memory.create("in", inputs)
    memory.create("out", out)
    connection = Connection(memory.bootstrap, "memory")
    return Outputs(connection, inputs=[Topics(connection, ("in",))])


def written(memory: MemoryBroker) -> list[Got]:
    return memory.consume("out")


def values(memory: MemoryBroker) -> dict[int, Any]:
    """The messages by number of their event."""
    found = [json.loads(got.value or b"") for got in written(memory)]
    assert len({record["event"] for record in found}) == len(found)
    return {record["event"]: record for record in sorted(found, key=lambda r: r["event"])}


def test_a_classifier_s_answers(memory: MemoryBroker) -> None:
    """Events that were to be answered, their number among all events, and what was known then."""
    prediction = np.array([np.nan, 0, 0, 0, 1, 9, 0], np.float64)
    proba = np.tile([0.25, 0.75, 0.0], (7, 1))
    modes = [LABELLED, LEARN, SCORED, UNSCORED, LABELLED, LEARN, SCORED]
    labels = Vocabulary(["yes", "no", "may be"])
    part = answered(7, modes, {"prediction": prediction, "proba": proba}, labels)
    # rows 0 2 3 4 6 are events 0 1 2 3 4; row 3 is not to be answered; the labels of the rows that
    # learn are 0 1 _ 0 1 2: row 0 teaches "yes", row 1 "no", row 5 "may be"
    sink = outputs_to(memory).sink("out", tables=Tables(Vocabulary([])), model="abc")
    sink.open(None)
    sink.write(part(0, 7))
    position = sink.commit()
    common = {"model": "abc", "topic": "in"}

    def place(event: int) -> dict[str, Any]:
        return common | {"partition": event % 2, "offset": 100 + event, "time": T0 + event}

    assert values(memory) == {
        0: {"event": 0, "id": "id0", "prediction": None,
            "probabilities": {"yes": None, "no": None}} | place(0),
        1: {"event": 1, "id": "id2", "prediction": "yes",
            "probabilities": {"yes": 0.25, "no": 0.75}} | place(1),
        3: {"event": 3, "id": "id4", "prediction": "no",
            "probabilities": {"yes": 0.25, "no": 0.75}} | place(3),
        4: {"event": 4, "id": "id6", "prediction": "yes",
            "probabilities": {"yes": 0.25, "no": 0.75, "may be": 0.0}} | place(4),
    }  # fmt: skip
    assert position == {"records": 4, "classes": 3}
    assert list(json.loads(written(memory)[0].value or b"")) == [
        *("event", "id", "prediction", "probabilities", "model"),
        *("topic", "partition", "offset", "time"),
    ]


def test_keys_headers_and_partitions_are_those_of_the_input(memory: MemoryBroker) -> None:
    part = answered(6, [LABELLED], {"prediction": np.arange(6.0)})
    sink = outputs_to(memory).sink("out")
    sink.open(None)
    before = time.time_ns() // 1000
    sink.write(part(0, 6))
    after = time.time_ns() // 1000
    for got in written(memory):
        record = json.loads(got.value or b"")
        event = record["event"]
        assert got.partition == event % 2
        assert got.key == (b"k%d" % event if event % 3 == 0 else None)
        (place_name, place), (late_name, late) = got.headers
        assert (place_name, place) == (
            "streamlearn-position",
            b"in/%d/%d" % (event % 2, 100 + event),
        )
        assert late_name == "streamlearn-latency-us"
        sent = (T0 + event) * 1000 + int(late or b"")
        assert before <= sent <= after


@pytest.mark.parametrize(("out", "keyed"), [(3, True), (2, False)])
def test_other_counts_of_partitions_leave_it_to_the_key(
    out: int, keyed: bool, memory: MemoryBroker
) -> None:
    part = answered(30, [LABELLED], {"prediction": np.arange(30.0)})
    sink = outputs_to(memory, out=out).sink("out", keyed=keyed)
    sink.open(None)
    sink.write(part(0, 30))
    for got in written(memory):
        event = json.loads(got.value or b"")["event"]
        assert got.key == (b"k%d" % event if keyed and event % 3 == 0 else None)
        if keyed and event % 3 == 0:
            assert got.partition == sum(b"k%d" % event) % out  # as the double's keys choose
        if not keyed:
            assert got.partition == event % 2


def test_a_partition_that_the_output_lacks_leaves_it_to_the_key(memory: MemoryBroker) -> None:
    """Added to the input in mid-stream."""
    part = answered(8, [LABELLED], {"prediction": np.arange(8.0)})
    outputs = outputs_to(memory)
    sink = outputs.sink("out")
    sink.open(None)
    answers = part(0, 8)
    assert answers.origins is not None
    known = [("in", 0), ("in", 2)]
    sink.write(answers._replace(origins=answers.origins._replace(partitions=known)))
    assert {record["partition"] for record in values(memory).values()} == {0, 2}


def test_a_regressor_s_interval(memory: MemoryBroker) -> None:
    """Normal, of the model's variance: 1.6448536269514722 standard deviations at 90 %."""
    outputs: Columns = {
        "prediction": np.array([1.0, np.nan, np.inf]),
        "variance": np.array([4.0, np.nan, 1.0]),
    }
    sink = outputs_to(memory).sink("out", level=0.9)
    sink.open(None)
    sink.write(answered(3, [LABELLED], outputs, placed=False)(0, 3))
    found = values(memory)
    assert found[0]["prediction"] == 1.0
    assert found[0]["interval"] == pytest.approx(
        [1 - 2 * 1.6448536269514722, 1 + 2 * 1.6448536269514722]
    )
    assert found[1] == {"event": 1, "id": "id1", "prediction": None, "interval": [None, None]}
    assert found[2]["prediction"] is None
    given: Columns = {
        "prediction": np.zeros(1), "lower": np.array([-3.0]), "upper": np.array([5.0])
    }  # fmt: skip
    sink.open({"records": 0, "classes": 0})
    sink.write(answered(1, [LABELLED], given)(0, 1)._replace(first_row=7))
    assert values(memory)[7]["interval"] == [-3.0, 5.0]


def test_a_set_is_a_list_of_classes(memory: MemoryBroker) -> None:
    """Null where nothing was answered, whatever the operator left there."""
    labels = Vocabulary(["no", 'half \udfff "y"', 3])
    outputs: Columns = {
        "prediction": np.array([0.0, 2, np.nan]), "proba": np.full((3, 3), 0.25),
        "set": np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0]], np.uint8),
    }  # fmt: skip
    sink = outputs_to(memory).sink("out", tables=Tables(labels))
    sink.open(None)
    sink.write(answered(3, [SCORED], outputs, labels, placed=False)(0, 3))
    found = values(memory)
    assert [found[t]["set"] for t in range(3)] == [["no", 'half \\udfff "y"', 3], [], None]
    assert list(found[0]) == ["event", "id", "prediction", "probabilities", "set"]


def test_scores_of_anomalies_are_called_so(memory: MemoryBroker) -> None:
    part = answered(
        2, [SCORED], {"score": np.array([0.5, np.nan])}, Vocabulary(["a"]), placed=False
    )
    sink = outputs_to(memory).sink("out")
    sink.open(None)
    sink.write(part(0, 2))
    assert values(memory) == {
        0: {"event": 0, "id": "id0", "score": 0.5}, 1: {"event": 1, "id": "id1", "score": None}
    }  # fmt: skip
    assert [got.headers for got in written(memory)] == [
        [("streamlearn-position", b"event/0")], [("streamlearn-position", b"event/1")]
    ]  # fmt: skip


def test_names_and_ids_of_any_kind_are_json(memory: MemoryBroker) -> None:
    ids = np.array(['say "hi"\n', "half \ud800", None, 7, 1.5, True], object)
    labels = Vocabulary(['"quoted"', "half \udfff", 3])
    outputs: Columns = {"prediction": np.array([0.0, 1, 2, 0, 1, 2]), "proba": np.full((6, 3), 0.5)}
    sink = outputs_to(memory).sink("out", tables=Tables(labels))
    sink.open(None)
    sink.write(answered(6, [SCORED], outputs, labels, ids=ids, placed=False)(0, 6))
    found = values(memory)
    assert [found[t]["id"] for t in range(6)] == ['say "hi"\n', "half \\ud800", None, 7, 1.5, True]
    assert [found[t]["prediction"] for t in range(3)] == ['"quoted"', "half \\udfff", 3]
    assert found[0]["probabilities"] == {'"quoted"': 0.5, "half \\udfff": 0.5, "3": 0.5}


def test_a_record_without_a_time_has_none(memory: MemoryBroker) -> None:
    answers = answered(2, [SCORED], {"prediction": np.zeros(2)})(0, 2)
    assert answers.origins is not None
    answers.origins.times[1] = NO_TIME
    sink = outputs_to(memory).sink("out")
    sink.open(None)
    sink.write(answers)
    assert [record["time"] for record in values(memory).values()] == [T0, None]
    assert dict(written(memory)[1].headers)["streamlearn-latency-us"] == b"0"


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, 40), max_size=6), skip=st.integers(0, 45))
def test_the_same_bytes_whatever_the_blocks(cuts: list[int], skip: int) -> None:
    """And whatever is there already: the first `skip` messages are not sent again."""
    rng = np.random.default_rng(7)
    labels = Vocabulary(["a", "b", "c"])
    outputs: Columns = {
        "prediction": np.where(rng.random(40) < 0.2, np.nan, rng.integers(0, 2, 40)),
        "proba": rng.random((40, 3)) * (np.arange(40)[:, None] > 10 * np.arange(3)),
        "set": (rng.random((40, 3)) < 0.5).astype(np.uint8),
        "alarm": (rng.random(40) < 0.3).astype(np.uint8),
    }
    part = answered(40, [LABELLED, LEARN, SCORED, LABELLED], outputs, labels)

    def sent(bounds: list[int], written: int) -> list[tuple[bytes, Any, bytes]]:
        broker = MemoryBroker()
        broker.create("in", 2)
        outputs = Outputs(Connection(broker.bootstrap, "memory"), client=_client())
        outputs.written = {"predictions": written, "alerts": written // 4}
        sinks = outputs.sink("out", tables=Tables(Vocabulary([])), model="m"), outputs.alerts("out")
        broker.create("out")
        for sink in sinks:
            sink.open(None)
        for start, stop in itertools.pairwise(bounds):
            for sink in sinks:
                sink.write(part(start, stop))
        return sorted(
            (got.value or b"", got.headers[0], got.key or b"") for got in broker.consume("out")
        )

    whole = sent([0, 40], 0)
    assert sent([0, *sorted(cuts), 40], 0) == whole
    left = sent([0, *sorted(cuts), 40], skip)
    answers = [one for one in whole if b'"prediction"' in one[0]]
    alarms = [one for one in whole if b'"alert"' in one[0]]

    def number(one: Any) -> int:
        return int(json.loads(one[0])["event"])

    kept = sorted(answers, key=number)[skip:]
    kept += sorted(alarms, key=lambda one: int(json.loads(one[0])["alert"]))[skip // 4 :]
    assert left == sorted(kept)


def _client() -> Any:
    from tests.kafka import doubles

    return doubles.CLIENT


def test_a_topic_that_is_not_there_is_one_line_before_anything_is_read(
    memory: MemoryBroker,
) -> None:
    sink = outputs_to(memory).sink("other")
    with pytest.raises(BrokerError, match=r"^kafka: other: there is no such topic"):
        sink.open(None)


# -- alarms ----------------------------------------------------------------------------------------


def alarms() -> Answers:
    """Rows: event, label, event, label, event; alarms at the first label and the last event."""
    alarm = np.array([0, 1, 0, 0, 1], np.uint8)
    why = np.array([None, None, None, None, None], dtype=object)
    why[4] = ({"detector": "ADWIN", "how": "rose"},)
    columns: Columns = {"prediction": np.zeros(5), "alarm": alarm, "why": why}
    part = answered(5, [SCORED, LEARN], columns)
    return part(0, 5)._replace(first_row=10)


ALARMS = [
    {"alert": 0, "kind": "drift", "event": 10, "raised_by": "label", "id": "id1", "model": "m",
     "findings": []},
    {"alert": 1, "kind": "drift", "event": 12, "raised_by": "event", "id": "id4", "model": "m",
     "topic": "in", "partition": 0, "offset": 102, "time": T0 + 2,
     "findings": [{"detector": "ADWIN", "how": "rose"}]},
]  # fmt: skip


def test_alarms_in_a_topic(memory: MemoryBroker) -> None:
    sink = outputs_to(memory, out=1).alerts("out", tables=Tables(), model="m")
    sink.open(None)
    sink.write(alarms())
    first, second = written(memory)
    assert [json.loads(got.value or b"") for got in (first, second)] == ALARMS
    assert first.headers == [("streamlearn-alert", b"0")]
    assert second.headers == [("streamlearn-alert", b"1"), ("streamlearn-position", b"in/0/102")]
    assert sink.commit() == {"records": 2}
    sink.open({"records": 1})
    sink.write(alarms())
    assert [json.loads(got.value or b"")["alert"] for got in written(memory)] == [0, 1, 1, 2]


def test_alarms_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"
    sink = open_alerts(file, Tables(), model="m")
    sink.open(None)
    sink.write(alarms())
    position = sink.commit()
    sink.write(alarms())
    sink.close()
    sink = open_alerts(file, Tables(), model="m")
    sink.open(position)
    sink.commit()
    sink.close()
    assert [json.loads(line) for line in file.read_text().splitlines()] == ALARMS
    assert position["alerts"] == 2


# -- dead letters ----------------------------------------------------------------------------------


def dead(memory: MemoryBroker, rejects: list[Reject], **settings: Any) -> list[Got]:
    sink = outputs_to(memory, out=1).dead_letters("out", **settings)
    sink.open(None)
    sink.write(rejects)
    assert sink.commit() == {"records": len(rejects)}
    return written(memory)


def test_a_dead_letter_has_its_bytes_its_reason_and_its_place(memory: MemoryBroker) -> None:
    raw = b'{"x": "\xff'
    (got,) = dead(memory, [Reject("in/1", 42, "x: must be UTF-8", raw)])
    assert got.value == raw
    assert got.headers == [
        ("streamlearn-reason", b"x: must be UTF-8"), ("streamlearn-position", b"in/1/42")
    ]  # fmt: skip


def test_fields_that_are_redacted_are_nowhere(memory: MemoryBroker) -> None:
    raw = b'{"card": "4111", "deep": [{"card": {"n": 1}, "x": 2}], "amount": "many"}'
    rejects = [
        Reject("in/0", 1, "amount: must be a number, got 'many'", raw),
        Reject("in/0", 2, "event '4111' has a label already", raw),
        Reject("in/0", 3, "must be JSON: no object", b'{"card": 4111'),
        Reject("in/0", 4, "must be a JSON object, got list", b'[{"card": 4111}]'),
    ]
    one, two, three, four = dead(memory, rejects, redact=["card"])
    shown = {
        "card": "[redacted]", "deep": [{"card": "[redacted]", "x": 2}], "amount": "many"
    }  # fmt: skip
    assert json.loads(one.value or b"") == shown
    assert dict(one.headers)["streamlearn-reason"] == b"amount: must be a number"
    assert dict(one.headers)["streamlearn-payload"] == b"redacted"
    assert dict(two.headers)["streamlearn-reason"] == b"event '[redacted]' has a label already"
    for got in (three, four):
        assert (got.value, dict(got.headers)["streamlearn-payload"]) == (b"", b"left out")


def test_without_payload_there_is_the_place_alone(memory: MemoryBroker) -> None:
    (got,) = dead(memory, [Reject("in/0", 1, "x: must be a number, got 'a'", b"a")], payload=False)
    assert got.value == b""
    assert dict(got.headers) == {
        "streamlearn-reason": b"x: must be a number",
        "streamlearn-position": b"in/0/1",
        "streamlearn-payload": b"left out",
    }


def test_a_payload_that_no_broker_takes_is_cut(memory: MemoryBroker) -> None:
    raw = bytes(range(256)) * 12_000  # 3 MB
    (got,) = dead(memory, [Reject("in/0", 1, "is too large", raw)])
    assert got.value == raw[:900_000]
    assert dict(got.headers)["streamlearn-payload"] == b"cut, 3072000 bytes"


# -- over the wire ---------------------------------------------------------------------------------


def test_all_three_over_the_wire(
    broker: Broker, connection: Connection, topic: Callable[..., str]
) -> None:
    source, out, bad, raised = topic(2), topic(2), topic(1), topic(1)
    outputs = Outputs(connection, inputs=[Topics(connection, (source,))])
    sinks = outputs.sink(out, model="m"), outputs.alerts(raised), outputs.dead_letters(bad)
    for one in sinks:
        one.open(None)
    part = answered(
        9, [SCORED], {"prediction": np.arange(9.0), "alarm": (np.arange(9) == 4).astype(np.uint8)}
    )
    for start in range(0, 9, 3):
        sinks[0].write(part(start, start + 3))
        sinks[1].write(part(start, start + 3))
    sinks[2].write([Reject(f"{source}/0", 5, "must be JSON", b"\x00" * 3_000_000)])
    for one in sinks:
        one.commit()
    assert outputs.in_flight == 0
    for one in sinks:
        one.close()
    found = consume(broker, out)
    assert sorted(json.loads(got.value or b"")["prediction"] for got in found) == list(range(9))
    for got in found:
        event = json.loads(got.value or b"")["event"]
        assert got.partition == event % 2
        assert got.key == (b"k%d" % event if event % 3 == 0 else None)
        assert dict(got.headers)["streamlearn-position"] == b"in/%d/%d" % (event % 2, 100 + event)
    (alarm,) = consume(broker, raised)
    assert json.loads(alarm.value or b"")["event"] == 4
    (letter,) = consume(broker, bad)
    assert letter.value == b"\x00" * 900_000
