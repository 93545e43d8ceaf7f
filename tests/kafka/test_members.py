"""Members of a consumer group over the wire: who has what, in which order it changes hands."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import pytest

from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.wire import Connection, Membership, Partition
from tests.kafka.broker import Broker, create
from tests.kafka.conftest import CLIENTS

SESSION = {  # the shortest that brokers take by default
    "kafka-python": {"session_timeout_ms": 6000, "heartbeat_interval_ms": 500},
    "confluent": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500},
}


class Said(NamedTuple):
    """What a member was told."""

    member: str
    what: str
    numbers: list[int]


class Told:
    """Callbacks that note what they are told, in one list for all members."""

    def __init__(self, name: str, log: list[Said]) -> None:
        self.name, self.log = name, log

    def _note(self, what: str, partitions: Sequence[Partition]) -> None:
        self.log.append(Said(self.name, what, [number for _, number in partitions]))

    def assigned(self, partitions: Sequence[Partition]) -> None:
        self._note("assigned", partitions)

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self._note("revoked", partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        self._note("lost", partitions)


def owners(log: Sequence[Said]) -> dict[int, str]:
    """Who has each partition after all that was said; fails where two have one at a time."""
    owner: dict[int, str] = {}
    for member, what, numbers in log:
        for number in numbers:
            if what == "assigned":
                assert number not in owner, f"{number} is {owner[number]}'s still: {log}"
                owner[number] = member
            else:
                assert owner.pop(number) == member, f"{number} was not {member}'s: {log}"
    return owner


def poll_until(
    members: Sequence[Membership], done: Callable[[], bool], seconds: float = 40
) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not within {seconds:.0f} s"
        for member in members:
            member.poll(0.02)


class Story(NamedTuple):
    """What was said until each of these moments."""

    alone: list[Said]
    shared: list[Said]
    left: list[Said]
    alone_again: list[Said]
    closed: list[Said]


def story(mesh: Broker, client: str) -> Story:
    """One joins, another joins, the other leaves, the one leaves."""
    connection = Connection(mesh.bootstrap, client, SESSION[client])
    topic = create(mesh, f"t-{uuid.uuid4().hex[:8]}", 4)
    group, log = f"g-{topic}", list[Said]()
    one, two = (client_named(client).member(connection, group) for _ in "12")
    one.subscribe([topic], Told("one", log))
    poll_until([one], lambda: len(owners(log)) == 4)
    alone = list(log)
    two.subscribe([topic], Told("two", log))
    poll_until([one, two], lambda: sorted(owners(log).values()) == ["one", "one", "two", "two"])
    shared = list(log)
    two.close()
    left = list(log)
    two.close()  # twice is nothing
    poll_until([one], lambda: len(owners(log)) == 4)
    again = list(log)
    one.close()
    return Story(alone, shared, left, again, log)


@pytest.fixture(scope="module")
def stories(mesh: Broker) -> Iterator[dict[str, Future[Story]]]:
    """The story of each client: both at the same time, the broker lets joins wait for seconds."""
    for client in CLIENTS:
        client_named(client)  # not imported by two threads at a time
    with ThreadPoolExecutor() as threads:
        yield {client: threads.submit(story, mesh, client) for client in CLIENTS}


def test_partitions_are_shared_and_taken_back(
    stories: dict[str, Future[Story]], client: str
) -> None:
    """What stays is not touched; what goes is revoked before another has it (`owners` looks)."""
    told = stories[client].result()
    assert owners(told.alone) == dict.fromkeys(range(4), "one")
    moved = [said.numbers for said in told.shared if said.what == "revoked"]
    assert [len(numbers) for numbers in moved] == [2]  # no more than has to
    assert told.left[len(told.shared) :] == [Said("two", "revoked", sorted(moved[0]))]
    assert owners(told.alone_again) == dict.fromkeys(range(4), "one")
    assert told.closed[len(told.alone_again) :] == [Said("one", "revoked", [0, 1, 2, 3])]
    assert not [said for said in told.closed if said.what == "lost"]
