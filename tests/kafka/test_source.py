"""Topics as a source, on a broker in memory; what needs a real one is in test_source_broker.py."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from streamlearn.connectors.kafka.location import LATEST, Point, Topics
from streamlearn.connectors.kafka.plain_formats import JsonMessages
from streamlearn.connectors.kafka.source import FETCH, LOOK, KafkaSource, Lag
from streamlearn.connectors.kafka.wire import BrokerError, Connection, Outgoing
from streamlearn.contracts import Batch, Reject
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from tests.kafka import doubles
from tests.kafka.broker import Sent
from tests.kafka.doubles import MemoryBroker

SECOND = 1000  # ms
NOW = 1_700_000_000_000  # ms


def schema(**more: Any) -> Schema:
    table = {"features": {"x": "number"}, "target": "y", "task": "regression", "id": "id"}
    return Schema.from_config(table | more)


def sent(i: int, partition: int = 0, **more: Any) -> Sent:
    value = json.dumps({"id": i, "x": i / 2, "y": -i} | more).encode()
    return Sent(value, b"k%d" % i, NOW + i * SECOND, partition=partition)


def topics(memory: MemoryBroker, *names: str, **more: Any) -> Topics:
    return Topics(Connection(memory.bootstrap, "memory"), names, **more)


def opened(
    memory: MemoryBroker, *names: str, declared: Schema | None = None, **more: Any
) -> KafkaSource:
    source = KafkaSource(topics(memory, *names, **more), declared or schema())
    source.open({})
    return source


def waited(source: KafkaSource, times: int = 3) -> KafkaSource:
    for _ in range(times):
        source.wait(0.0)
    return source


def all_of(source: KafkaSource) -> list[Batch]:
    """Lane after lane, everything that is there."""
    batches = []
    for _ in range(100):
        waited(source)
        for i, lane in enumerate(source.lanes):
            ready = lane.ready()
            if ready is not None:
                batches.append(source.take(np.full(ready.n, i, dtype=np.intp)))
    return batches


def ids(batches: Sequence[Batch]) -> list[Any]:
    return [
        i for batch in batches for i in (batch.block.ids if batch.block.ids is not None else ())
    ]


def rejects(batches: Sequence[Batch]) -> list[Reject]:
    return [reject for batch in batches for reject in batch.rejects]


# -- lanes -----------------------------------------------------------------------------------------


def test_a_lane_for_each_partition_in_the_order_of_topic_and_number(memory: MemoryBroker) -> None:
    memory.create("b", 1)
    memory.create("a", 11)
    source = opened(memory, "b", "a")
    assert [lane.name for lane in source.lanes] == [f"a/{i}" for i in range(11)] + ["b/0"]
    assert source.positions == {lane.name: 0 for lane in source.lanes}


def test_rows_of_lanes_are_taken_in_the_order_that_is_asked_for(memory: MemoryBroker) -> None:
    memory.create("t", 3)
    memory.produce("t", [sent(i, i % 3) for i in range(9)])
    source = waited(opened(memory, "t"))
    assert [lane.ready().n for lane in source.lanes] == [3, 3, 3]  # type: ignore[union-attr]
    batch = source.take(np.array([2, 0, 0, 2], dtype=np.intp))
    assert batch.block.ids is not None
    assert batch.block.ids.tolist() == [2, 0, 3, 5]
    assert batch.block.X.ravel().tolist() == [1.0, 0.0, 1.5, 2.5]
    assert batch.block.y.tolist() == [-2.0, 0.0, -3.0, -5.0]
    assert batch.positions == {"t/0": 2, "t/1": 0, "t/2": 2}
    origins = batch.origins
    assert origins is not None
    assert origins.keys is not None
    assert list(origins.partitions) == [("t", 0), ("t", 1), ("t", 2)]
    assert origins.partition.tolist() == [2, 0, 0, 2]
    assert origins.offset.tolist() == [0, 0, 1, 1]
    assert origins.times.tolist() == [(NOW + i * SECOND) * 10**6 for i in (2, 0, 3, 5)]
    assert list(origins.keys) == [b"k2", b"k0", b"k3", b"k5"]
    assert source.positions == batch.positions


def test_a_source_goes_on_at_its_positions(memory: MemoryBroker) -> None:
    memory.create("t", 2)
    memory.produce("t", [sent(i, i % 2) for i in range(6)])
    source = opened(memory, "t")
    source.open({"t/0": 2, "t/1": 3})
    assert ids(all_of(source)) == [4]


def test_offsets_and_times_are_told_of_what_is_ready(memory: MemoryBroker) -> None:
    memory.create("t")
    memory.produce("t", [sent(0), Sent(b"{", time=NOW), sent(2), Sent(None, b"k", NOW), sent(4)])
    source = waited(opened(memory, "t"))
    ready = source.lanes[0].ready()
    assert ready is not None
    assert ready.times is not None
    assert ready.offsets is not None
    assert (ready.n, ready.rejects, ready.offsets.tolist()) == (3, [1], [0, 2, 4])
    assert ready.times.tolist() == [(NOW + i * SECOND) * 10**6 for i in (0, 2, 4)]
    assert source.tombstones == 1


# -- where it begins and ends ----------------------------------------------------------------------


def at(seconds: float) -> Point:
    return Point("time", NOW * 10**6 + int(seconds * 10**9))


@pytest.mark.parametrize(
    ("start", "stop", "wanted"),
    [
        (Point("earliest"), LATEST, [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]),
        (at(4), LATEST, [4, 6, 8, 5, 7, 9]),
        (at(3.5), at(6.5), [4, 6, 5]),
        (Point("offset", 1), Point("offset", 3), [2, 4, 3, 5]),
        (Point("offset", 3), Point("offset", 99), [6, 8, 7, 9]),
        (LATEST, LATEST, []),
        (at(99), None, []),
    ],
)
def test_a_range_of_a_topic(
    memory: MemoryBroker, start: Point, stop: Point | None, wanted: list[int]
) -> None:
    memory.create("t", 2)
    memory.produce("t", [sent(i, i % 2) for i in range(10)])
    source = opened(memory, "t", start=start, stop=stop)
    assert ids(all_of(source)) == wanted
    memory.produce("t", [sent(i, i % 2) for i in range(10, 14)])
    more = [] if stop is not None else [10, 12, 11, 13]
    assert ids(all_of(source)) == more
    assert source.finished == (stop is not None)


def test_a_range_without_records_has_ended_at_once(memory: MemoryBroker) -> None:
    memory.create("t", 2)
    assert opened(memory, "t", stop=LATEST).finished


def test_a_range_ends_where_its_last_offsets_hold_no_records(memory: MemoryBroker) -> None:
    """The offsets of an aborted transaction, and of the marks that end transactions."""
    memory.create("t")
    memory.produce("t", [sent(0)])
    producer = doubles.CLIENT.producer(
        Connection(memory.bootstrap, "memory"), transactional_id="a", max_in_flight=9
    )
    producer.begin()
    producer.send(Outgoing("t", [sent(1).value], None, None, [0]))
    producer.flush()
    producer.abort()
    source = opened(memory, "t", stop=LATEST)
    assert ids(all_of(source)) == [0]
    assert source.finished


def test_only_the_partitions_of_a_lineage_are_read(memory: MemoryBroker) -> None:
    memory.create("t", 3)
    memory.produce("t", [sent(i, i % 3) for i in range(6)])
    source = opened(memory, "t", partitions=(1,))
    assert ids(all_of(source)) == [1, 4]
    with pytest.raises(UserError, match=r"^t: has 3 partitions, from 0; there is no number 3$"):
        opened(memory, "t", partitions=(3,))


def test_latest_is_the_place_where_it_was_opened(memory: MemoryBroker) -> None:
    """So that the first checkpoint can tell it, and a restart does not begin later."""
    memory.create("t", 2)
    memory.produce("t", [sent(i, i % 2) for i in range(5)])
    assert opened(memory, "t", start=LATEST).positions == {"t/0": 3, "t/1": 2}


# -- places that are not there ---------------------------------------------------------------------


def test_positions_that_are_not_there_are_refused(memory: MemoryBroker) -> None:
    memory.create("t", 2)
    memory.produce("t", [sent(i) for i in range(9)])
    doubles.CLIENT.admin(Connection(memory.bootstrap)).delete_records({("t", 0): 4})
    source = KafkaSource(topics(memory, "t"), schema())
    with pytest.raises(
        BrokerError,
        match=r"^t/0: offset 1 is gone, the first one that is there is 4: the topic has deleted 3 "
        r"records that were not read; begin with a new checkpoint folder, and give the topic a lon",
    ):
        source.open({"t/0": 1, "t/1": 0})
    with pytest.raises(
        UserError,
        match=r"^t/0: the checkpoint goes on at offset 10, but the partition ends at 9; the topic "
        r"was made anew or has lost records: correct the address, or start with a new checkpoint",
    ):
        source.open({"t/0": 10})
    with pytest.raises(UserError, match=r"^kafka:t: the checkpoint has read 'u/0', which is not t"):
        source.open({"u/0": 10})
    beyond = KafkaSource(topics(memory, "t", start=Point("offset", 5)), schema())
    with pytest.raises(UserError, match=r"^t/1: the source is to start at offset 5, but the parti"):
        beyond.open({})
    assert not source.assigned


def test_records_deleted_before_they_were_read_are_named(memory: MemoryBroker) -> None:
    memory.create("t")
    memory.produce("t", [sent(i) for i in range(9)])
    source = opened(memory, "t")
    doubles.CLIENT.admin(Connection(memory.bootstrap)).delete_records({("t", 0): 4})
    with pytest.raises(BrokerError, match=r"^t/0: offset 0 is gone, the first one that is there "):
        source.wait(0.0)


def test_no_broker_no_topic_and_a_topic_that_is_deleted(memory: MemoryBroker) -> None:
    source = KafkaSource(topics(memory, "t"), schema())
    with pytest.raises(BrokerError, match=r"^kafka: t: there is no such topic$"):
        source.open({})
    memory.create("t")
    memory.away = True
    with pytest.raises(BrokerError, match=r"^kafka: t: no broker answers in time"):
        source.open({})
    memory.away = False
    source.open({})
    del memory.topics["t"]
    with pytest.raises(BrokerError, match=r"^kafka: t: the topic is gone from the broker$"):
        source.wait(0.0)
    source.close()
    source.close()


def test_a_broker_that_is_away_later_is_waited_for(memory: MemoryBroker) -> None:
    memory.create("t")
    memory.produce("t", [sent(0), sent(1)])
    source = opened(memory, "t")
    memory.away = True
    assert ids(all_of(source)) == []
    assert (source.connected, source.finished) == (False, False)
    memory.away = False
    assert ids(all_of(source)) == [0, 1]
    assert source.connected


# -- partitions that are added ---------------------------------------------------------------------


def test_a_partition_that_is_added_is_read_from_its_beginning(
    memory: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """At the end of the lanes, whatever its name, and without a gap in the others."""
    memory.create("t", 1)
    memory.create("u", 1)
    memory.produce("t", [sent(0)])
    now = [0.0]
    source = KafkaSource(topics(memory, "t", "u", start=LATEST), schema(), clock=lambda: now[0])
    source.open({})
    doubles.CLIENT.admin(Connection(memory.bootstrap)).extend("t", 2)
    memory.produce("t", [sent(1), sent(2, 1), sent(3, 1)])
    assert ids(all_of(source)) == [1]
    now[0] = LOOK
    assert ids(all_of(source)) == [2, 3]
    assert [lane.name for lane in source.lanes] == ["t/0", "u/0", "t/1"]
    assert caplog.messages == ["t/1: was added to the topic; it is read from its beginning on"]
    memory.produce("t", [sent(4)])
    assert ids(all_of(source)) == [4]
    assert source.positions == {"t/0": 3, "u/0": 0, "t/1": 2}


def test_a_partition_added_between_runs_is_read_from_its_beginning(
    memory: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    memory.create("t", 2)
    memory.produce("t", [sent(0), sent(1, 1)])
    source = KafkaSource(topics(memory, "t", start=LATEST), schema())
    source.open({"t/0": 1})
    assert ids(all_of(source)) == [1]
    assert caplog.messages == ["t/1: is not in the checkpoint; it is read from its beginning on"]


# -- back-pressure ---------------------------------------------------------------------------------


def test_a_lane_that_is_held_back_is_paused_and_not_caught_up(memory: MemoryBroker) -> None:
    """Its share of the memory is never exceeded by more than a fetch; the other lane goes on."""
    memory.create("t", 2)
    memory.produce("t", [sent(i, 0, pad="x" * 1000) for i in range(30_000)])
    source = opened(memory, "t", buffer_mb=8)
    most = other_rows = 0
    for i in range(12):
        memory.produce("t", [sent(100_000 + i, 1)])
        source.wait(0.0)
        most = max(most, source.lanes[0].size)
        ready = source.lanes[1].ready()
        if ready is not None:
            other_rows += source.take(np.ones(ready.n, dtype=np.intp)).block.n
    assert other_rows >= 11
    held, other = source.lanes
    assert 4 << 20 < most < (4 << 20) + FETCH * 1300
    assert (held.paused, held.caught_up, other.caught_up) == (True, False, True)
    found = []
    while not held.caught_up:
        source.wait(0.0)
        ready = held.ready()
        if ready is not None:
            found += ids([source.take(np.zeros(ready.n, dtype=np.intp))])
            assert not held.caught_up or held.position == 30_000
    assert found == list(range(30_000))


def test_a_lane_is_not_caught_up_before_it_is_resumed(memory: MemoryBroker) -> None:
    """What came while it was paused was not heard of."""
    memory.create("t")
    memory.produce("t", [sent(i, pad="x" * 1000) for i in range(2000)])
    source = waited(opened(memory, "t", buffer_mb=1), 2)
    lane = source.lanes[0]
    ready = lane.ready()
    assert ready is not None
    source.take(np.zeros(ready.n, dtype=np.intp))
    assert (lane.empty, lane.paused, lane.caught_up) == (True, True, False)
    memory.produce("t", [sent(2000)])
    source.wait(0.0)
    assert (lane.empty, lane.paused) == (False, False)


def test_lag_in_records_and_in_event_time(memory: MemoryBroker) -> None:
    memory.create("t")
    memory.produce("t", [sent(i) for i in range(10)])
    source = opened(memory, "t")
    now = NOW / 1000 + 60
    assert source.lag(now) == {"t/0": Lag(None, None)}
    waited(source)
    assert source.lag(now) == {"t/0": Lag(10, None)}
    source.lanes[0].ready()
    source.take(np.zeros(4, dtype=np.intp))
    assert source.lag(now) == {"t/0": Lag(6, 57.0)}
    source.take(np.zeros(6, dtype=np.intp))
    assert source.lag(now) == {"t/0": Lag(0, 0.0)}


# -- what does not fit -----------------------------------------------------------------------------


def test_poisoned_messages_are_rejected_with_their_place_and_bytes(memory: MemoryBroker) -> None:
    memory.create("t", 2)
    big = b'{"x": "' + b"y" * 3_000_000 + b'"}'
    odd = [Sent(b"\xff"), sent(1), Sent(big), sent(2), Sent(b"[]"), Sent(b"{", partition=1)]
    memory.produce("t", odd)
    source = waited(opened(memory, "t"))
    ready = source.lanes[0].ready()
    assert ready is not None
    assert (ready.n, ready.rejects) == (2, [0, 1, 2])
    first = source.take(np.zeros(1, dtype=np.intp))
    assert first.rejects == [Reject("t/0", 0, "must be UTF-8", b"\xff")]
    assert first.positions == {"t/0": 2, "t/1": 0}
    second = source.take(np.zeros(1, dtype=np.intp))
    assert [(r.position, r.raw) for r in second.rejects] == [(2, big), (4, b"[]")]
    assert len(second.rejects[0].reason) < 120
    assert second.positions == {"t/0": 5, "t/1": 0}
    alone = source.lanes[1].ready()
    assert alone is not None
    assert (alone.n, alone.rejects) == (0, [0])
    third = source.take(np.zeros(0, dtype=np.intp))
    assert third.block.n == 0
    assert [r.partition for r in third.rejects] == ["t/1"]
    assert third.positions == {"t/0": 5, "t/1": 1}
    assert source.lanes[1].ready() is None


def test_tombstones_alone_move_nothing(memory: MemoryBroker) -> None:
    memory.create("t")
    memory.produce("t", [Sent(None, b"k"), Sent(None, b"k")])
    source = waited(opened(memory, "t"))
    assert (source.lanes[0].ready(), source.lanes[0].caught_up) == (None, True)
    assert (source.positions, source.tombstones) == ({"t/0": 0}, 2)


def test_the_cut_of_fetches_changes_nothing(memory: MemoryBroker) -> None:
    """More records than a piece, some poisoned, in fetches of any size."""
    memory.create("t")
    records = [Sent(b"?") if i % 97 == 5 else Sent(None) if i % 89 == 1 else sent(i)
               for i in range(9000)]  # fmt: skip
    wanted = [i for i in range(9000) if i % 97 != 5 and i % 89 != 1]
    for start in range(0, 9000, 700):
        memory.produce("t", records[start : start + 700])
    source = opened(memory, "t", stop=LATEST)
    found = all_of(source)
    assert ids(found) == wanted
    assert [r.position for r in rejects(found)] == list(range(5, 9000, 97))
    assert source.tombstones == sum(i % 97 != 5 and i % 89 == 1 for i in range(9000))


# -- formats that must wait ------------------------------------------------------------------------


class Waiting(JsonMessages):
    """A format whose schemas are away: `known` values can be read."""

    known = 0
    connected = False

    def ready(self, values: Sequence[bytes]) -> int:
        return min(self.known, len(values))


def test_a_lane_waits_for_what_its_format_needs(
    memory: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.create("t")
    memory.produce("t", [sent(i) for i in range(5)])
    monkeypatch.setattr("streamlearn.connectors.kafka.source.decoder_of",
                        lambda topics, schema: Waiting(schema))  # fmt: skip
    source = waited(opened(memory, "t"))
    lane = source.lanes[0]
    assert (lane.ready(), lane.caught_up, source.connected) == (None, False, False)
    monkeypatch.setattr(Waiting, "known", 3)
    assert ids(all_of(source)) == [0, 1, 2, 3, 4]
    assert (lane.caught_up, lane.size) == (True, 0)
