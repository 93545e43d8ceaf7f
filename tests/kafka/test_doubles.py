"""The broker in memory: what the libraries' tests cannot ask of it."""

from collections.abc import Sequence

import pytest

from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.wire import BrokerError, Connection, Outgoing, Partition
from tests.kafka.doubles import MemoryBroker, MemoryMember


def connection(memory: MemoryBroker) -> Connection:
    return Connection(memory.bootstrap, "memory")


def test_it_is_a_client_by_name(memory: MemoryBroker) -> None:
    memory.create("t", 2)
    producer = client_named("memory").producer(
        connection(memory), transactional_id=None, max_in_flight=2
    )
    producer.send(Outgoing("t", [b"a", b"b"], None, None, [0, 1]))
    assert [(got.partition, got.value) for got in memory.consume("t")] == [(0, b"a"), (1, b"b")]


def test_in_flight_is_bounded_while_it_is_away(memory: MemoryBroker) -> None:
    memory.create("t")
    producer = client_named("memory").producer(
        connection(memory), transactional_id=None, max_in_flight=2
    )
    memory.away = True
    producer.send(Outgoing("t", [b"a", b"b"], None, None, [0, 0]))
    assert producer.in_flight == 2
    assert not producer.connected
    with pytest.raises(AssertionError, match="wait for ever"):
        producer.send(Outgoing("t", [b"c"], None, None, [0]))

    def back() -> None:
        memory.away = False

    memory.waits = back
    producer.send(Outgoing("t", [b"c"], None, None, [0]))
    assert [got.value for got in memory.consume("t")] == [b"a", b"b", b"c"]


def test_an_error_is_raised_once(memory: MemoryBroker) -> None:
    memory.create("t")
    consumer = client_named("memory").consumer(
        connection(memory), group=None, keys=False, headers=False
    )
    consumer.assign({("t", 0): 0})
    memory.fail("fetch", BrokerError("no right"))
    with pytest.raises(BrokerError, match="no right"):
        consumer.fetch(1, 0.0)
    assert consumer.fetch(1, 0.0) == []


class Calls(list[tuple[str, list[Partition]]]):
    def assigned(self, partitions: Sequence[Partition]) -> None:
        self.append(("assigned", list(partitions)))

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self.append(("revoked", list(partitions)))

    def lost(self, partitions: Sequence[Partition]) -> None:
        self.append(("lost", list(partitions)))


def test_members_share_partitions_and_hand_them_on(memory: MemoryBroker) -> None:
    memory.create("t", 2)
    first, second = (MemoryMember(memory, "g") for _ in range(2))
    calls, others = Calls(), Calls()
    first.subscribe(["t"], calls)
    first.poll(0.0)
    assert calls == [("assigned", [("t", 0), ("t", 1)])]
    second.subscribe(["t"], others)
    second.poll(0.0)
    assert others == []
    first.poll(0.0)
    second.poll(0.0)
    assert calls[1:] == [("revoked", [("t", 1)])]
    assert others == [("assigned", [("t", 1)])]
    first.evict()
    second.poll(0.0)
    first.poll(0.0)
    assert calls[2] == ("lost", [("t", 0)])
    second.close()
    assert others[-1][0] == "revoked"
