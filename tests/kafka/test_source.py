"""Topics as a source, on a broker in memory; what needs a real one is in test_source_broker.py."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from streamlearn.connectors.kafka.location import Topics
from streamlearn.connectors.kafka.source import KafkaSource
from streamlearn.connectors.kafka.wire import Connection
from streamlearn.contracts import Batch, Reject
from streamlearn.schema import Schema
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
