"""The outputs of a lineage that are topics: one producer, shared by all of them and their delivery.

How often a message is there for a reader follows from the delivery. At least once: a run that was
killed writes again what came after its last checkpoint, and each message says which record it
answers, so that a reader can drop repeats. Transactions: everything since a checkpoint appears at
once, together with the offsets, or not at all.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.location import RegistryAddress, Topics
from streamlearn.connectors.kafka.wire import (
    AbortedError,
    BrokerError,
    Client,
    Connection,
    Outgoing,
    Partition,
    Producer,
)
from streamlearn.contracts import Delivery, Json

if TYPE_CHECKING:
    from streamlearn.connectors.kafka.alerts import AlertSink
    from streamlearn.connectors.kafka.dead_letters import DeadLetterSink
    from streamlearn.connectors.kafka.delivery import Commits
    from streamlearn.connectors.kafka.sinks import PredictionSink
    from streamlearn.connectors.sinks import Tables

_log = logging.getLogger("streamlearn.kafka")
WAIT = 15.0  # seconds for an answer about topics and offsets


class Outputs:
    """What a lineage writes to topics. Nothing is connected before an output is opened.

    Args:
        connection: how to reach the broker. lineage: its name, in messages. group: consumer group
            that offsets are committed for. transactional_id: writes go in transactions under it.
        max_in_flight: records that wait to be acknowledged; then writing waits.
        inputs: what the lineage reads: events, then labels, as far as they are topics.
        registry: of schemas, for outputs in Avro. client: of doubles, in tests.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        lineage: str = "",
        group: str = "streamlearn",
        transactional_id: str | None = None,
        max_in_flight: int = 100_000,
        inputs: Sequence[Topics] = (),
        registry: RegistryAddress | None = None,
        client: Client | None = None,
    ) -> None:
        self.connection, self.lineage, self.group = connection, lineage, group
        self.transactional_id, self.max_in_flight = transactional_id, max_in_flight
        self.inputs, self.registry = tuple(inputs), registry
        self._client = client
        self._producer: Producer | None = None
        self._begun = False
        self.written: dict[str, int] = {}  # output -> its records that a committed one may be
        self.sent: dict[str, int] = {}  # output -> its records so far, those left out included

    # -- the parts ---------------------------------------------------------------------------------

    def sink(
        self,
        topic: str,
        *,
        format: str = "json",
        keyed: bool = True,
        tables: "Tables | None" = None,
        model: str = "",
        level: float = 0.9,
    ) -> "PredictionSink":
        """The sink of answers; see `PredictionSink`."""
        from streamlearn.connectors.kafka.sinks import PredictionSink

        return PredictionSink(
            self, topic, format=format, keyed=keyed, tables=tables, model=model, level=level
        )

    def alerts(self, topic: str, *, tables: "Tables | None" = None, model: str = "") -> "AlertSink":
        """The sink of alarms."""
        from streamlearn.connectors.kafka.alerts import AlertSink

        return AlertSink(self, topic, tables=tables, model=model)

    def dead_letters(
        self, topic: str, *, redact: Sequence[str] = (), payload: bool = True
    ) -> "DeadLetterSink":
        """The sink of records that did not fit."""
        from streamlearn.connectors.kafka.dead_letters import DeadLetterSink

        return DeadLetterSink(self, topic, redact=redact, payload=payload)

    def delivery(self, commits: "Commits | None" = None) -> Delivery:
        """What is told to the broker about checkpoints.

        commits: who commits offsets, where that is a group's member.
        """
        from streamlearn.connectors.kafka.delivery import OffsetCommits, Transactions

        if self.transactional_id is not None:
            return Transactions(self)
        return OffsetCommits(self, commits)

    # -- the producer ------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The client library."""
        if self._client is None:
            self._client = client_named(self.connection.client)
        return self._client

    @property
    def producer(self) -> Producer:
        """Made at the first use."""
        if self._producer is None:
            self._producer = self.client.producer(
                self.connection,
                transactional_id=self.transactional_id,
                max_in_flight=self.max_in_flight,
            )
        return self._producer

    def begin(self) -> None:
        """With transactions: begin one, where none is open. The first fences older writers."""
        if self.transactional_id is not None and not self._begun:
            self.producer.begin()
            self._begun = True

    def send(self, records: Outgoing) -> None:
        """Take records; waits while too many are in flight."""
        if len(records.values):
            self.begin()
            self.producer.send(records)

    def flush(self) -> None:
        """Wait until everything is acknowledged."""
        if self._producer is not None:
            self._producer.flush()

    def commit(self, offsets: Mapping[Partition, int], metadata: str) -> None:
        """Commit the transaction that is open, with these offsets; begin one for them alone."""
        self.begin()
        self.producer.commit(offsets, self.group, metadata)
        self._begun = False

    def close(self) -> None:
        """Abort what is open, and let go; may be called twice.

        What cannot be aborted, because the broker is away or has given it up, the broker aborts by
        itself: after its time-out, or when a later writer begins.
        """
        producer, self._producer = self._producer, None
        begun, self._begun = self._begun, False
        if producer is None:
            return
        try:
            if begun and producer.connected:
                producer.abort()
        except (BrokerError, AbortedError) as error:
            _log.info("a transaction was not aborted: %s", error)
        finally:
            producer.close()

    @property
    def in_flight(self) -> int:
        """Records that are not acknowledged yet."""
        return 0 if self._producer is None else self._producer.in_flight

    @property
    def connected(self) -> bool:
        """Whether the broker answered of late; true before anything was asked of it."""
        return self._producer is None or self._producer.connected

    # -- what is read ------------------------------------------------------------------------------

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic. Raises: BrokerError without such a topic or a broker."""
        return self.producer.partitions(topic, WAIT)

    def read(self) -> list[Partition]:
        """All partitions that the lineage reads."""
        return [
            (name, number)
            for topics in self.inputs
            for name in topics.names
            for number in topics.partitions or range(self.partitions(name))
        ]


class Output:
    """One of the outputs: counts its records, and leaves out those that are there already.

    After a checkpoint that was damaged, a run goes on from the one before and comes again through
    records that were committed; in the same order, so their count tells which.
    """

    def __init__(self, outputs: Outputs, name: str, topic: str) -> None:
        self.outputs, self.name, self.topic = outputs, name, topic

    def open(self, position: Json) -> int:
        """Begin after what `commit` once returned; gives the number of partitions."""
        self.outputs.sent[self.name] = 0 if position is None else position["records"]
        return self.outputs.partitions(self.topic)

    def there_already(self, n: int) -> int:
        """How many of the next n records, which are counted, must not be sent again."""
        before = self.outputs.sent[self.name]
        self.outputs.sent[self.name] = before + n
        return min(n, max(0, self.outputs.written.get(self.name, 0) - before))

    @property
    def records(self) -> int:
        """Records so far, those left out included."""
        return self.outputs.sent[self.name]

    def commit(self) -> dict[str, Json]:
        """Wait until all is acknowledged; how to come back to here."""
        self.outputs.flush()
        return {"records": self.records}
