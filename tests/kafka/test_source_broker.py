"""Topics as a source, over the wire, with both clients: what the double in memory cannot show."""

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.location import LATEST, Point, Topics
from streamlearn.connectors.kafka.source import LOOK, KafkaSource
from streamlearn.connectors.kafka.wire import BrokerError, Connection
from streamlearn.schema import Schema
from tests.kafka.broker import Broker, Sent, produce

Topic = Callable[..., str]
NOW = 1_700_000_000_000  # ms
SECONDS = 30.0  # that a test waits at most


def sent(i: int, partition: int = 0, pad: str = "") -> Sent:
    value = json.dumps({"id": i, "x": i / 2, "pad": pad}).encode()
    return Sent(value, b"k%d" % i, NOW + i * 1000, [("h", b"%d" % (i % 3))], partition)


def source_of(connection: Connection, name: str, **more: Any) -> KafkaSource:
    table = {"features": {"x": "number", "$header.h": "category"}, "id": "id", "key": "$key",
             "time": "$timestamp"}  # fmt: skip
    return KafkaSource(Topics(connection, (name,), **more), Schema.from_config(table))


class Rows:
    """What a source gives, lane after lane."""

    def __init__(self, source: KafkaSource) -> None:
        self.source = source
        self.ids: dict[str, list[Any]] = {lane.name: [] for lane in source.lanes}
        self.keys: list[Any] = []
        self.times: list[int] = []
        self.rejects: list[Any] = []

    def until(self, done: Callable[[], bool], only: int | None = None) -> "Rows":
        """Take rows until it is done; only: of one lane."""
        end = time.monotonic() + SECONDS
        while not done():
            assert time.monotonic() < end, "not done in time"
            self.source.wait(0.05)
            for i, lane in enumerate(self.source.lanes):
                ready = lane.ready() if only in (None, i) else None
                if ready is not None:
                    self._take(i, lane.name, ready.n)
        return self

    def _take(self, i: int, name: str, n: int) -> None:
        batch = self.source.take(np.full(n, i, dtype=np.intp))
        assert batch.block.ids is not None
        assert batch.block.times is not None
        assert batch.origins is not None
        assert batch.origins.keys is not None
        self.ids.setdefault(name, []).extend(batch.block.ids)
        self.keys += batch.origins.keys
        self.times += batch.block.times.tolist()
        self.rejects += batch.rejects

    def n(self) -> int:
        return sum(map(len, self.ids.values()))


def test_a_range_then_on_from_its_positions(
    broker: Broker, connection: Connection, topic: Topic
) -> None:
    name = topic(2)
    records = [sent(i, i % 2) for i in range(4000)]
    records[7] = Sent(b"?", time=NOW, partition=1)
    records[9] = Sent(None, b"k", NOW, partition=1)
    produce(broker, name, records)
    source = source_of(connection, name, start=Point("time", (NOW + 2000) * 10**6), stop=LATEST)
    source.open({})
    rows = Rows(source).until(lambda: source.finished)
    assert rows.ids[f"{name}/0"] == list(range(2, 4000, 2))
    assert rows.ids[f"{name}/1"] == [i for i in range(3, 4000, 2) if i not in (7, 9)]
    assert sorted(rows.times) == sorted((NOW + i * 1000) * 10**6 for i in range(2, 4000)
                                        if i not in (7, 9))  # fmt: skip
    assert sorted(rows.keys) == sorted(b"k%d" % i for i in range(2, 4000) if i not in (7, 9))
    (reject,) = rows.rejects
    assert reject[:2] == (f"{name}/1", 3)
    headers = source.schema.columns.categories["$header.h"].values  # in the order of arrival
    assert sorted(headers) == ["0", "1", "2"]
    positions = source.positions
    assert positions == {f"{name}/0": 2000, f"{name}/1": 2000}
    produce(broker, name, [sent(4000), sent(4001, 1)])
    follower = source_of(connection, name)
    follower.open(positions)
    more = Rows(follower).until(lambda: all(lane.position == 2001 for lane in follower.lanes))
    assert more.ids == {f"{name}/0": [4000], f"{name}/1": [4001]}
    assert all(lag.records == 0 for lag in follower.lag().values())
    source.close()
    follower.close()


def test_large_messages_and_little_memory(broker: Broker, connection: Connection) -> None:
    """A lane is held until the other is at its end; nothing is lost, memory stays bounded."""
    name = f"large-{uuid.uuid4().hex[:12]}"
    admin = client_named(connection.client).admin(connection)
    admin.create(name, 2, {"retention.ms": "-1", "max.message.bytes": "8000000"})
    admin.close()
    records = [sent(i, i % 2, "x" * 20_000) for i in range(1200)]
    produce(broker, name, [*records, sent(1200, 0, "y" * 3_000_000)])
    source = source_of(connection, name, buffer_mb=2, stop=LATEST)
    source.open({})
    rows = Rows(source)
    held, other = source.lanes
    rows.until(lambda: other.finished and held.paused, only=1)
    assert not held.caught_up
    rows.until(lambda: source.finished)
    assert rows.ids == {f"{name}/0": list(range(0, 1201, 2)), f"{name}/1": list(range(1, 1200, 2))}
    source.close()


def test_an_outage_is_waited_for(our_broker: Broker, connection: Connection, topic: Topic) -> None:
    name = topic()
    produce(our_broker, name, [sent(i) for i in range(10)])
    source = source_of(connection, name)
    source.open({})
    rows = Rows(source).until(lambda: source.lanes[0].position == 10)
    with our_broker.away():
        rows.until(lambda: not source.connected)
        assert rows.n() == 10
    produce(our_broker, name, [sent(i) for i in range(10, 20)])
    rows.until(lambda: source.lanes[0].position == 20)
    assert rows.ids[f"{name}/0"] == list(range(20))
    source.close()


def test_offsets_that_are_gone_or_not_there(
    broker: Broker, connection: Connection, topic: Topic
) -> None:
    name = topic()
    produce(broker, name, [sent(i) for i in range(10)])
    admin = client_named(connection.client).admin(connection)
    admin.delete_records({(name, 0): 4})
    admin.close()
    source = source_of(connection, name)
    with pytest.raises(BrokerError, match=rf"^{name}/0: offset 2 is gone, the first one that is "):
        source.open({f"{name}/0": 2})
    with pytest.raises(Exception, match=rf"^{name}/0: the checkpoint goes on at offset 11, but th"):
        source.open({f"{name}/0": 11})
    source.open({f"{name}/0": 10})
    assert source.positions == {f"{name}/0": 10}
    source.close()


def test_a_partition_that_is_added_while_it_runs(
    broker: Broker, connection: Connection, topic: Topic
) -> None:
    name = topic()
    produce(broker, name, [sent(i) for i in range(10)])
    now = [0.0]
    source = KafkaSource(
        Topics(connection, (name,), start=LATEST),
        Schema.from_config({"features": {"x": "number"}, "id": "id", "time": "$timestamp"}),
        clock=lambda: now[0],
    )
    source.open({})
    rows = Rows(source)
    admin = client_named(connection.client).admin(connection)
    admin.extend(name, 2)
    admin.close()
    produce(broker, name, [sent(10), sent(11, 1), sent(12, 1)])
    rows.until(lambda: source.lanes[0].position == 11)

    def both() -> bool:
        now[0] += LOOK
        return source.positions == {f"{name}/0": 12, f"{name}/1": 2}

    produce(broker, name, [sent(13)])
    rows.until(both)
    assert rows.ids == {f"{name}/0": [10, 13], f"{name}/1": [11, 12]}
    source.close()
