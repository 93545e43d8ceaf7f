"""A broker in memory, and a client of it: `wire.py` without a process, a thread or a clock.

`tests/kafka/test_clients.py` runs on it too, so that it behaves as the libraries do. The fixture
`memory` makes it known to `client_named` as `memory`: Connection(broker.bootstrap, "memory").
"""

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NoReturn

import numpy as np

from streamlearn.connectors.kafka import wire
from streamlearn.connectors.kafka.trouble import (
    empty,
    fenced,
    gone,
    named,
    no_answer,
    no_partition,
    no_topic,
    not_there,
)
from streamlearn.connectors.kafka.wire import (
    BrokerError,
    Callbacks,
    Committed,
    Connection,
    Fetched,
    Headers,
    Outgoing,
    Partition,
)
from tests.kafka.broker import Got, Sent


def _stuck() -> NoReturn:
    raise AssertionError("the broker is away: this would wait for ever; set broker.waits")


@dataclass
class Transaction:
    """What was written under one begin: `committed` is None while it is open."""

    committed: bool | None = None
    touched: set[Partition] = field(default_factory=set)


@dataclass(frozen=True)
class Record:
    """A record in a log; control: the end of a transaction."""

    value: bytes | None
    key: bytes | None
    time: int
    headers: Headers
    transaction: Transaction | None = None
    control: bool = False

    @property
    def is_read(self) -> bool:
        """Whether a read-committed reader gets it."""
        return not self.control and (self.transaction is None or self.transaction.committed is True)


@dataclass
class Log:
    """One partition: records[i] has offset i; those before `begin` are deleted."""

    records: list[Record] = field(default_factory=list)
    begin: int = 0
    transactions: list[tuple[Transaction, int]] = field(default_factory=list)  # and first offsets

    @property
    def stable(self) -> int:
        """The last stable offset."""
        self.transactions = [entry for entry in self.transactions if entry[0].committed is None]
        return min((first for _, first in self.transactions), default=len(self.records))


@dataclass
class Group:
    """Offsets and members of a consumer group."""

    committed: dict[Partition, Committed] = field(default_factory=dict)
    members: list["MemoryMember"] = field(default_factory=list)


class MemoryBroker:
    """Topics as lists. Set away, held, waits or fail from a test.

    away: nothing is answered. held: partitions whose records do not come yet. waits: is called in
    the place of a wait for a broker that is away. fail(where, error): the next call of the method
    of that name raises it.
    """

    _brokers: ClassVar[dict[str, "MemoryBroker"]] = {}
    _numbers = itertools.count()

    def __init__(self) -> None:
        self.bootstrap = f"memory:{next(self._numbers)}"
        self._brokers[self.bootstrap] = self
        self.topics: dict[str, list[Log]] = {}
        self.groups: dict[str, Group] = {}
        self.epochs: Counter[str] = Counter()
        self.opened: dict[str, Transaction] = {}  # by transactional id
        self.away = False
        self.held: set[Partition] = set()
        self.waits: Callable[[], None] = _stuck
        self.time = 1_700_000_000_000_000_000  # ns, of records that come without one
        self._failures: dict[str, deque[Exception]] = {}

    @classmethod
    def at(cls, bootstrap: str) -> "MemoryBroker":
        return cls._brokers[bootstrap]

    def fail(self, where: str, error: Exception) -> None:
        self._failures.setdefault(where, deque()).append(error)

    def forgive(self) -> None:
        """Nothing fails any more."""
        self._failures.clear()

    def may_fail(self, where: str) -> None:
        if self._failures.get(where):
            raise self._failures[where].popleft()

    def create(self, topic: str, partitions: int = 1) -> str:
        self.topics[topic] = [Log() for _ in range(partitions)]
        return topic

    def log(self, partition: Partition) -> Log:
        topic, number = partition
        if topic not in self.topics or number >= len(self.topics[topic]):
            raise no_partition(topic, number)
        return self.topics[topic][number]

    def group(self, name: str) -> Group:
        return self.groups.setdefault(name, Group())

    def append(self, partition: Partition, record: Record) -> None:
        log, transaction = self.log(partition), record.transaction
        if transaction is not None and partition not in transaction.touched:
            transaction.touched.add(partition)
            log.transactions.append((transaction, len(log.records)))
        log.records.append(record)

    def produce(self, topic: str, records: Sequence[Sent]) -> None:
        """Records in their order; without a partition they go to the first, without a time now."""
        for sent in records:
            time = self.time if sent.time is None else sent.time * 1_000_000
            record = Record(sent.value, sent.key, time, list(sent.headers))
            self.append((topic, sent.partition or 0), record)

    def consume(self, topic: str, *, committed: bool = True) -> list[Got]:
        """All records, by partition; by default those of a read-committed reader."""
        return [
            Got(number, i, r.value, r.key, r.time // 1_000_000, r.headers)
            for number, log in enumerate(self.topics[topic])
            for i, r in enumerate(log.records[: log.stable] if committed else log.records)
            if (r.is_read if committed else not r.control)
        ]

    def end(self, transaction: Transaction, *, committed: bool) -> None:
        """Close a transaction: a control record in every partition it wrote to."""
        transaction.committed = committed
        for partition in sorted(transaction.touched):
            self.log(partition).records.append(
                Record(None, None, self.time, [], transaction, control=True)
            )


class MemoryConsumer:
    """See `wire.Consumer`."""

    def __init__(self, broker: MemoryBroker, group: str | None, keys: bool, headers: bool) -> None:
        self._broker, self._group = broker, group
        self._keys, self._headers = keys, headers
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._heard: dict[Partition, tuple[int, int]] = {}  # high watermark, last stable offset

    def assign(self, positions: Mapping[Partition, int]) -> None:
        self._positions = dict(positions)
        self._paused.clear()

    def fetch(self, most: int, max_wait: float) -> list[Fetched]:
        if self._broker.away:
            return []
        self._broker.may_fail("fetch")
        blocks = []
        for partition in list(self._positions):
            if partition in self._paused or partition in self._broker.held or most <= 0:
                continue
            block = self._fetched(partition, most)
            if len(block.offsets):
                blocks.append(block)
                most -= len(block.offsets)
        for block in blocks:  # the next fetch begins with another one
            self._positions[block.partition] = self._positions.pop(block.partition)
        return blocks

    def _fetched(self, partition: Partition, most: int) -> Fetched:
        if partition[0] not in self._broker.topics:
            raise gone(partition[0])
        log, start = self._broker.log(partition), self._positions[partition]
        self._heard[partition] = len(log.records), log.stable
        if not log.begin <= start <= len(log.records):
            raise not_there(partition, start, log.begin, log.stable)
        offsets: list[int] = []
        position = start
        while position < log.stable and len(offsets) < most:
            if log.records[position].is_read:
                offsets.append(position)
            position += 1
        while position < log.stable and not log.records[position].is_read:
            position += 1
        self._positions[partition] = position
        records = [log.records[i] for i in offsets]
        return Fetched(
            partition,
            np.array(offsets, np.int64),
            np.array([r.time for r in records], np.int64),
            [r.value for r in records],
            [r.key for r in records] if self._keys else None,
            [r.headers for r in records] if self._headers else None,
        )

    def pause(self, partitions: Sequence[Partition]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        self._paused.difference_update(partitions)

    def caught_up(self, partition: Partition) -> bool:
        if partition not in self._heard or partition not in self._positions:
            return False
        return self._positions[partition] >= self._heard[partition][1]

    def end(self, partition: Partition) -> int | None:
        return self._heard[partition][0] if partition in self._heard else None

    @property
    def connected(self) -> bool:
        return not self._broker.away

    def partitions(self, topic: str, max_wait: float) -> int:
        return _count(self._broker, topic)

    def beginnings(self, partitions: Sequence[Partition], max_wait: float) -> dict[Partition, int]:
        return {partition: self._asked(partition).begin for partition in partitions}

    def ends(self, partitions: Sequence[Partition], max_wait: float) -> dict[Partition, int]:
        return {partition: self._asked(partition).stable for partition in partitions}

    def _asked(self, partition: Partition) -> Log:
        if self._broker.away:
            raise no_answer(named([partition]))
        return self._broker.log(partition)

    def at_time(
        self, partitions: Sequence[Partition], time: int, max_wait: float
    ) -> dict[Partition, int]:
        found = {}
        for partition in partitions:
            log = self._asked(partition)
            later = (i for i, r in enumerate(log.records) if i >= log.begin and r.time >= time)
            found[partition] = next(later, log.stable)
        return found

    def committed(
        self, partitions: Sequence[Partition], max_wait: float
    ) -> dict[Partition, Committed]:
        assert self._group is not None
        there = self._broker.group(self._group).committed
        return {partition: there[partition] for partition in partitions if partition in there}

    def commit(self, offsets: Mapping[Partition, int], metadata: str) -> None:
        assert self._group is not None
        group = self._broker.group(self._group)
        group.committed.update({p: Committed(n, metadata) for p, n in offsets.items()})

    def close(self) -> None:
        self._positions = {}


def _count(broker: MemoryBroker, topic: str) -> int:
    if broker.away:
        raise no_answer(topic)
    if topic not in broker.topics:
        raise no_topic(topic)
    return len(broker.topics[topic])


class MemoryProducer:
    """See `wire.Producer`. Without a partition, records with a key go where their bytes' sum says,
    those without one in turn."""

    def __init__(self, broker: MemoryBroker, transactional_id: str | None, most: int) -> None:
        self._broker, self._id, self._most = broker, transactional_id, most
        self._epoch: int | None = None
        self._flying: deque[tuple[Partition, Record]] = deque()
        self._turn = itertools.count()
        self._transaction: Transaction | None = None

    def send(self, records: Outgoing) -> None:
        self._broker.may_fail("send")
        self._check()
        if records.topic not in self._broker.topics:
            raise no_topic(records.topic)
        for i, value in enumerate(records.values):
            self._deliver()
            while len(self._flying) >= self._most:
                self._broker.waits()
                self._deliver()
            key = records.keys[i] if records.keys else None
            if value is None and key is None:
                raise empty(records.topic)
            time = self._broker.time if records.times is None else int(records.times[i])
            headers = list(records.headers[i]) if records.headers else []
            time = time // 1_000_000 * 1_000_000
            record = Record(value, key, time, headers, self._transaction)
            self._flying.append(((records.topic, self._place(records, i, key)), record))
        self._deliver()

    def _place(self, records: Outgoing, i: int, key: bytes | None) -> int:
        n = len(self._broker.topics[records.topic])
        if records.partitions is not None:
            if not 0 <= records.partitions[i] < n:
                raise no_partition(records.topic, records.partitions[i])
            return int(records.partitions[i])
        return (next(self._turn) if key is None else sum(key)) % n

    def _check(self) -> None:
        """Raise where another producer has taken over."""
        if self._epoch is None or self._id is None:
            return
        if self._epoch != self._broker.epochs[self._id]:
            raise fenced(f"transactional id {self._id}", "ProducerFencedError")

    def _deliver(self) -> None:
        while self._flying and not self._broker.away:
            self._broker.append(*self._flying.popleft())

    def flush(self) -> None:
        self._broker.may_fail("flush")
        self._check()
        self._deliver()
        while self._flying:
            self._broker.waits()
            self._deliver()

    @property
    def in_flight(self) -> int:
        self._deliver()
        return len(self._flying)

    @property
    def connected(self) -> bool:
        return not self._broker.away

    def partitions(self, topic: str, max_wait: float) -> int:
        return _count(self._broker, topic)

    def begin(self) -> None:
        self._broker.may_fail("begin")
        assert self._id is not None
        assert self._transaction is None, "a transaction is open already"
        while self._broker.away:
            self._broker.waits()
        if self._epoch is None:
            self._broker.epochs[self._id] += 1
            self._epoch = self._broker.epochs[self._id]
            left = self._broker.opened.pop(self._id, None)
            if left is not None:
                self._broker.end(left, committed=False)
        self._check()
        self._transaction = self._broker.opened[self._id] = Transaction()

    def commit(self, offsets: Mapping[Partition, int], group: str, metadata: str) -> None:
        self.flush()
        self._broker.may_fail("commit")
        assert self._transaction is not None
        committed = self._broker.group(group).committed
        committed.update({p: Committed(n, metadata) for p, n in offsets.items()})
        self._ended(committed=True)

    def abort(self) -> None:
        if self._transaction is not None:
            self._flying.clear()
            self._ended(committed=False)

    def _ended(self, *, committed: bool) -> None:
        assert self._transaction is not None
        assert self._id is not None
        if self._broker.opened.get(self._id) is self._transaction:
            del self._broker.opened[self._id]
            self._broker.end(self._transaction, committed=committed)
        self._transaction = None

    def close(self) -> None:
        self._flying.clear()


class MemoryMember:
    """See `wire.Membership`: cooperative, partitions in turn by the order of joining."""

    def __init__(self, broker: MemoryBroker, group: str) -> None:
        self._broker, self._name = broker, group
        self._group = broker.group(group)
        self._topics: list[str] = []
        self._callbacks: Callbacks | None = None
        self.owned: set[Partition] = set()
        self._evicted = False

    def subscribe(self, topics: Sequence[str], callbacks: Callbacks) -> None:
        self._topics, self._callbacks = list(topics), callbacks
        self._group.members.append(self)

    def evict(self) -> None:
        """What a broker does to a member that has been silent for too long."""
        if self in self._group.members:
            self._group.members.remove(self)
            self._evicted = True

    def poll(self, max_wait: float) -> None:
        assert self._callbacks is not None
        if self._broker.away:
            return
        if self._evicted:
            self._evicted = False
            lost, self.owned = sorted(self.owned), set()
            self._group.members.append(self)
            self._callbacks.lost(lost)
        wanted = set(self._share())
        given_up = sorted(self.owned - wanted)
        if given_up:
            self._callbacks.revoked(given_up)
            self.owned -= set(given_up)
        taken = {p for member in self._group.members if member is not self for p in member.owned}
        new = sorted(wanted - self.owned - taken)
        if new:
            self.owned |= set(new)
            self._callbacks.assigned(new)

    def _share(self) -> Iterator[Partition]:
        members = self._group.members
        for topic in self._topics:
            for number in range(len(self._broker.topics[topic])):
                if members[number % len(members)] is self:
                    yield topic, number

    def commit(self, offsets: Mapping[Partition, int], metadata: str) -> None:
        self._group.committed.update({p: Committed(n, metadata) for p, n in offsets.items()})

    def close(self) -> None:
        if self not in self._group.members:
            return
        if self.owned and self._callbacks is not None:
            self._callbacks.revoked(sorted(self.owned))
        self.owned = set()
        self._group.members.remove(self)


class MemoryAdmin:
    """See `wire.Admin`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        there = len(self._broker.topics.get(topic, []))
        if there not in (0, partitions):
            raise BrokerError(f"kafka: {topic}: is there with {there} partitions, not {partitions}")
        if there == 0:
            self._broker.create(topic, partitions)

    def extend(self, topic: str, partitions: int) -> None:
        logs = self._broker.topics[topic]
        logs.extend(Log() for _ in range(partitions - len(logs)))

    def delete(self, topic: str) -> None:
        del self._broker.topics[topic]

    def delete_records(self, before: Mapping[Partition, int]) -> None:
        for partition, offset in before.items():
            self._broker.log(partition).begin = offset

    def close(self) -> None:
        pass


class _Memory:
    """See `wire.Client`."""

    def consumer(
        self, connection: Connection, *, group: str | None, keys: bool, headers: bool
    ) -> wire.Consumer:
        return MemoryConsumer(MemoryBroker.at(connection.bootstrap), group, keys, headers)

    def producer(
        self, connection: Connection, *, transactional_id: str | None, max_in_flight: int
    ) -> wire.Producer:
        broker = MemoryBroker.at(connection.bootstrap)
        return MemoryProducer(broker, transactional_id, max_in_flight)

    def member(self, connection: Connection, group: str) -> wire.Membership:
        return MemoryMember(MemoryBroker.at(connection.bootstrap), group)

    def admin(self, connection: Connection) -> wire.Admin:
        return MemoryAdmin(MemoryBroker.at(connection.bootstrap))


CLIENT = _Memory()
