"""A member of a consumer group, by confluent-kafka, which keeps it alive in the background."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streamlearn.connectors.kafka.confluent import (
    _GONE,
    _NO_RIGHT,
    OURS,
    _Heard,
    _made,
    _refuse,
)
from streamlearn.connectors.kafka.options import Options
from streamlearn.connectors.kafka.trouble import line
from streamlearn.connectors.kafka.wire import Callbacks, Connection, Partition

_log = logging.getLogger("streamlearn.kafka")
_REFUSED = (
    *_GONE,
    *_NO_RIGHT,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.INVALID_SESSION_TIMEOUT,
    KafkaError._AUTHENTICATION,
)


class Member:
    """A member that shares partitions out cooperatively. See `wire.Membership`."""

    def __init__(self, connection: Connection, group: str) -> None:
        self._options = Options(connection.options, OURS)
        self._connection, self._group, self._complained = connection, group, -math.inf
        self._kafka: Any = None

    def subscribe(self, topics: Sequence[str], callbacks: Callbacks) -> None:
        """Join the group. Raises: BrokerError where no broker answers in time."""
        given = {
            "group.id": self._group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "latest",  # looked at by the library alone: nothing is fetched
            "allow.auto.create.topics": False,
            "partition.assignment.strategy": "cooperative-sticky",
            "on_commit": self._committed,
        }
        self._kafka = _made(Consumer, self._connection, self._options, _Heard(), given)
        self._kafka.subscribe(
            list(topics),
            on_assign=self._assigned(callbacks),
            on_revoke=_told(callbacks.revoked),
            on_lost=_told(callbacks.lost),
        )

    def _assigned(self, callbacks: Callbacks) -> Callable[[Consumer, list[TopicPartition]], None]:
        def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            consumer.incremental_assign(partitions)
            consumer.pause(partitions)  # no record is fetched here
            if partitions:
                callbacks.assigned(_numbered(partitions))

        return assigned

    def poll(self, max_wait: float) -> None:
        """Let a rebalance happen. Raises: BrokerError where the group refuses this member."""
        message = self._kafka.poll(max_wait)
        error = None if message is None else message.error()
        if error is not None and (error.fatal() or error.code() in _REFUSED):
            _refuse(error, f"group {self._group}")

    def commit(self, offsets: Mapping[Partition, int], metadata: str) -> None:
        """Commit for lag monitors, without waiting; a failure is logged once a minute."""
        wanted = [TopicPartition(*p, offset=n, metadata=metadata) for p, n in offsets.items()]
        try:
            self._kafka.commit(offsets=wanted, asynchronous=True)
        except KafkaException as error:
            self._complain(error.args[0])

    def _committed(self, error: KafkaError | None, _: list[TopicPartition]) -> None:
        if error is not None:
            self._complain(error)

    def _complain(self, error: KafkaError) -> None:
        if time.monotonic() - self._complained > 60:
            self._complained = time.monotonic()
            _log.warning("kafka: offsets were not committed: %s", line(error.str()))

    def close(self) -> None:
        """Leave the group (a dynamic member says so), after `revoked` for what it owns."""
        if self._kafka is not None:
            self._kafka.close()
            self._kafka = None


def _told(
    callback: Callable[[Sequence[Partition]], None],
) -> Callable[[Consumer, list[TopicPartition]], None]:
    """A callback as the library calls it."""
    return lambda _, partitions: callback(_numbered(partitions))


def _numbered(partitions: list[TopicPartition]) -> list[Partition]:
    return sorted((partition.topic, partition.partition) for partition in partitions)
