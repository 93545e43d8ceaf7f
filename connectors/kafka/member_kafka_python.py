"""A member of a consumer group, by kafka-python.

The library gets on with a rebalance only while its `poll` is waiting (called with 0 now and then a
join takes half a minute): so it is polled by a thread of its own. What a rebalance has to say is
carried over to whoever polls the member, and the rebalance waits for him; heartbeats go on.
"""

import logging
import math
import queue
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import OffsetAndMetadata

from streamlearn.connectors.kafka.kafka_python import _made, _options, _refuse
from streamlearn.connectors.kafka.trouble import line
from streamlearn.connectors.kafka.wire import Callbacks, Connection, Partition

_log = logging.getLogger("streamlearn.kafka")
_POLL_MS = 250
_LEAVE_MS = 2000  # for the broker to hear that we leave
_LOOK_SECONDS = 0.01  # between two looks whether a callback is done


class _Call:
    """What a rebalance has to say, and whether it was heard."""

    def __init__(self, name: str, partitions: Iterable[Any]) -> None:
        self.name = name
        self.partitions: list[Partition] = sorted((p.topic, p.partition) for p in partitions)
        self.done = threading.Event()


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """Hands on to the member what the library's own thread is told."""

    def __init__(self, consumer: Any, calls: "queue.SimpleQueue[_Call]") -> None:
        self._consumer, self._calls = consumer, calls

    async def _say(self, name: str, partitions: Iterable[Any]) -> None:
        call = _Call(name, partitions)
        self._calls.put(call)
        while not call.done.is_set():
            await self._consumer._net.sleep(_LOOK_SECONDS)

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Ours from now on; no record of them is fetched here."""
        self._consumer.pause(*assigned)
        await self._say("assigned", assigned)

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """Another's from now on."""
        await self._say("revoked", revoked)

    async def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        """Another's already."""
        await self._say("lost", lost)


class Member:
    """A member that shares partitions out cooperatively. See `wire.Membership`."""

    def __init__(self, connection: Connection, group: str) -> None:
        self._options = _options(connection)
        self._connection, self._group = connection, group
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._leaving = threading.Event()
        self._failure: Exception | None = None
        self._polled, self._complained = 0.0, -math.inf

    def subscribe(self, topics: Sequence[str], callbacks: Callbacks) -> None:
        """Join the group. Raises: BrokerError where no broker answers in time."""
        given = {
            "group_id": self._group,
            "enable_auto_commit": False,
            "auto_offset_reset": "latest",  # looked at by the library alone: nothing is fetched
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
            "partition_assignment_strategy": [CooperativeStickyAssignor],
        }
        self._callbacks = callbacks
        self._kafka = _made(KafkaConsumer, self._connection, self._options, given)
        self._patience = self._kafka._coordinator.config["max_poll_interval_ms"] / 1000
        self._kafka.subscribe(list(topics), listener=_Listener(self._kafka, self._calls))
        self._polled = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="kafka-member", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        """Poll until we leave; not while nobody polls the member: then the group goes on alone."""
        try:
            while not self._leaving.is_set():
                if time.monotonic() - self._polled > self._patience:
                    self._leaving.wait(_POLL_MS / 1000)
                else:
                    self._poll_once()
        except kafka_errors.KafkaError as error:
            self._failure = error
        finally:
            self._kafka.close(autocommit=False, timeout_ms=_LEAVE_MS)

    def _poll_once(self) -> None:
        try:
            self._kafka.poll(timeout_ms=_POLL_MS)
        except kafka_errors.RetriableError as error:
            _log.debug("kafka: group %s: %s", self._group, line(error))
            self._leaving.wait(_POLL_MS / 1000)

    def poll(self, max_wait: float) -> None:
        """Let a rebalance happen. Raises: BrokerError where the group refuses this member."""
        self._polled = time.monotonic()
        if not self._thread.is_alive() and self._calls.empty():
            _refuse(self._failure or RuntimeError("the member ended"), f"group {self._group}")
        self._run_calls(max_wait)

    def _run_calls(self, max_wait: float) -> None:
        """Run the callbacks that are waited for."""
        try:
            while True:
                call = self._calls.get(timeout=max_wait) if max_wait else self._calls.get_nowait()
                try:
                    getattr(self._callbacks, call.name)(call.partitions)
                finally:
                    call.done.set()
                max_wait = 0.0
        except queue.Empty:
            return

    def commit(self, offsets: Mapping[Partition, int], metadata: str) -> None:
        """Commit for lag monitors, without waiting; a failure is logged once a minute."""
        wanted = {TopicPartition(*p): OffsetAndMetadata(n, metadata) for p, n in offsets.items()}
        try:
            self._kafka.commit_async(wanted, callback=self._committed)
        except kafka_errors.KafkaError as error:
            _refuse(error, f"group {self._group}")

    def _committed(self, _: object, answer: object) -> None:
        if isinstance(answer, Exception) and time.monotonic() - self._complained > 60:
            self._complained = time.monotonic()
            _log.warning("kafka: offsets were not committed: %s", line(answer))

    def close(self) -> None:
        """Leave the group (a dynamic member says so), after `revoked` for what it owns."""
        if not hasattr(self, "_thread"):
            return
        self._leaving.set()
        while self._thread.is_alive() or not self._calls.empty():
            self._run_calls(_LOOK_SECONDS)
