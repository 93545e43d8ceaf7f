"""What the connector asks of a client library; `kafka_python.py` and `confluent.py` give it.

Records travel as columns, one call for many of them: a Python object for each record is what a
stream has no time for. No call waits longer than it is told to.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from streamlearn.block import I8
from streamlearn.errors import UserError

Partition = tuple[str, int]  # topic, number
Headers = list[tuple[str, bytes | None]]


class BrokerError(UserError):
    """What a broker refuses for good: no such topic, no right, an offset that is gone."""


class AwayError(BrokerError):
    """No broker answers in time."""


class FencedError(BrokerError):
    """A later writer of the same transactional id, or of the same partitions, has taken over."""


class AbortedError(Exception):
    """A transaction cannot be committed any more: go on from the last checkpoint that counts."""


class Fetched(NamedTuple):
    """Consecutive records of one partition, (n,) each; control records are left out.

    times: nanoseconds since 1970, NO_TIME for records without. values: None is a tombstone.
    keys, headers: None where they were not asked for.
    """

    partition: Partition
    offsets: I8
    times: I8
    values: list[bytes | None]
    keys: list[bytes | None] | None
    headers: list[Headers] | None

    def between(self, start: int, stop: int) -> "Fetched":
        """Records start to stop."""
        if start == 0 and stop == len(self.values):
            return self
        return Fetched(
            self.partition,
            self.offsets[start:stop],
            self.times[start:stop],
            self.values[start:stop],
            None if self.keys is None else self.keys[start:stop],
            None if self.headers is None else self.headers[start:stop],
        )


class Committed(NamedTuple):
    """What a group has committed of a partition. metadata: without trailing NULs."""

    offset: int
    metadata: str


class Consumer(Protocol):
    """Reads partitions that it is assigned, read-committed, without a group's rebalancing."""

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read these partitions, each from an offset; what was assigned before is let go."""

    def fetch(self, most: int, max_wait: float) -> list[Fetched]:
        """About `most` records that have come, by partition; [] when none came in time.

        A broker that is away gives []. Raises: BrokerError, which names topic and partition, for
        an offset that is not there (any more), a topic that is gone, a right that lacks.
        """

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Fetch nothing of these until they are resumed."""

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Fetch these again, from where they stood."""

    def caught_up(self, partition: Partition) -> bool:
        """Whether `fetch` has given everything up to the last stable offset, as last heard of.

        False until that was heard of once.
        """

    def end(self, partition: Partition) -> int | None:
        """The high watermark last heard of; None before."""

    @property
    def connected(self) -> bool:
        """Whether the broker answered of late."""

    def partitions(self, topic: str, max_wait: float) -> int:
        """Number of its partitions. Raises: BrokerError without such a topic or a broker."""

    def beginnings(self, partitions: Sequence[Partition], max_wait: float) -> dict[Partition, int]:
        """The first offset of each that is still there. Raises: BrokerError."""

    def ends(self, partitions: Sequence[Partition], max_wait: float) -> dict[Partition, int]:
        """The offset after the last record of each (the last stable one). Raises: BrokerError."""

    def at_time(
        self, partitions: Sequence[Partition], time: int, max_wait: float
    ) -> dict[Partition, int]:
        """The first offset of each at or after a time in ns; its end where none is."""

    def committed(
        self, partitions: Sequence[Partition], max_wait: float
    ) -> dict[Partition, Committed]:
        """What the group has committed; a partition without is left out."""

    def commit(self, offsets: Mapping[Partition, int], metadata: str) -> None:
        """Commit for lag monitors, without waiting; a failure is logged once a minute."""

    def close(self) -> None:
        """Leave, after commits that are under way (some seconds at most); may be called twice."""


class Outgoing(NamedTuple):
    """Records for one topic, (n,) each.

    partitions: None lets keys choose (murmur2, as Java's client does); records
    without one are spread.
    times: (n,) nanoseconds since 1970 that the records carry (in whole milliseconds); None lets the
    client tell the time at which it takes them.
    """

    topic: str
    values: Sequence[bytes | None]
    keys: Sequence[bytes | None] | None
    headers: Sequence[Headers] | None
    partitions: Sequence[int] | None
    times: I8 | None = None


class Producer(Protocol):
    """Writes, idempotent, all replicas; at most `max_in_flight` records wait to be acknowledged."""

    def send(self, records: Outgoing) -> None:
        """Take records; waits while too many are in flight, for as long as the broker is away.

        Raises: BrokerError for a record or topic that is refused for good; within a transaction
        AbortedError, FencedError. A failure of an earlier record is raised by the next call.
        """

    def flush(self) -> None:
        """Wait until all are acknowledged. Raises: as `send`."""

    @property
    def in_flight(self) -> int:
        """Records that are not acknowledged yet."""

    @property
    def connected(self) -> bool:
        """Whether the broker answered of late."""

    def partitions(self, topic: str, max_wait: float) -> int:
        """Number of its partitions. Raises: BrokerError without such a topic or a broker."""

    def begin(self) -> None:
        """Begin a transaction; the first call fences older producers of the transactional id.

        Raises: FencedError, BrokerError.
        """

    def commit(self, offsets: Mapping[Partition, int], group: str, metadata: str) -> None:
        """Flush, add offsets of a consumer group to the transaction, and commit both.

        Raises: AbortedError where it was given up by the broker; FencedError.
        """

    def abort(self) -> None:
        """Give up the transaction that is open, if one is; a few seconds at most.

        A broker that is away gives it up by itself when its time is over.
        """

    def close(self) -> None:
        """Close without waiting for what is in flight; may be called twice."""


class Membership(Protocol):
    """A member of a consumer group, for its rebalances alone: it fetches no record.

    `poll` must be called at least every few seconds; the callbacks run inside it.
    """

    def subscribe(self, topics: Sequence[str], callbacks: "Callbacks") -> None:
        """Join the group."""

    def poll(self, max_wait: float) -> None:
        """Let a rebalance happen."""

    def commit(self, offsets: Mapping[Partition, int], metadata: str) -> None:
        """Commit for lag monitors, as `Consumer.commit`; a group with members takes only theirs.

        Of any topic. Within `revoked` it still counts.
        """

    def close(self) -> None:
        """Leave the group (a dynamic member says so), after `revoked` for what it owns."""


class Callbacks(Protocol):
    """What a rebalance does; `revoked` returns when the partitions may go to others."""

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """These are ours from now on."""

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """These go to another member: checkpoint and let go."""

    def lost(self, partitions: Sequence[Partition]) -> None:
        """These went to another member already: let go without a word."""


class Admin(Protocol):
    """For tests, examples and `streamlearn produce`."""

    def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        """Make a topic; nothing happens where it is there with as many partitions."""

    def extend(self, topic: str, partitions: int) -> None:
        """Add partitions to a topic."""

    def delete(self, topic: str) -> None:
        """Delete a topic."""

    def delete_records(self, before: Mapping[Partition, int]) -> None:
        """Delete records before an offset of each partition."""

    def close(self) -> None:
        """Close the connection."""


class Connection(NamedTuple):
    """How to reach a broker.

    bootstrap: host:port[,host:port]. client: kafka-python or confluent. options: of the client,
    under its own names (security_protocol, sasl_plain_username, …; `security.protocol` and the
    like with confluent), passed through; a text may hold ${env:NAME} and ${file:PATH}.
    """

    bootstrap: str
    client: str = "kafka-python"
    options: Mapping[str, object] = {}  # never written into

    def __repr__(self) -> str:
        """Without the options, among which a password may be."""
        return f"Connection({self.bootstrap!r}, {self.client!r})"


class Client(Protocol):
    """A client library."""

    def consumer(
        self, connection: Connection, *, group: str | None, keys: bool, headers: bool
    ) -> Consumer:
        """A consumer; `group` only names where offsets are committed."""

    def producer(
        self, connection: Connection, *, transactional_id: str | None, max_in_flight: int
    ) -> Producer:
        """A producer."""

    def member(self, connection: Connection, group: str) -> Membership:
        """A member of a group."""

    def admin(self, connection: Connection) -> Admin:
        """For topics."""
