"""kafka-python behind `wire.py`. Its own decoder costs 4 microseconds a record.

The library's network client is given to it by us (its option `kafka_client`), so that it can be
seen when the broker answers and which last stable offset it tells: the library keeps neither.
"""

import importlib.util
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import itemgetter
from typing import Any, NoReturn

import numpy as np
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.protocol.consumer import FetchResponse
from kafka.structs import OffsetAndMetadata

from streamlearn.block import NO_TIME
from streamlearn.connectors.kafka import wire
from streamlearn.connectors.kafka.chatter import heard
from streamlearn.connectors.kafka.options import Options
from streamlearn.connectors.kafka.trouble import (
    ABORT_SECONDS,
    AWAY_SECONDS,
    CLOSE_SECONDS,
    GONE_SECONDS,
    START_SECONDS,
    STEP_SECONDS,
    empty,
    fenced,
    gone,
    line,
    named,
    no_answer,
    no_partition,
    no_right,
    no_topic,
    not_there,
    refused,
    too_large,
)
from streamlearn.connectors.kafka.wire import (
    AbortedError,
    AwayError,
    BrokerError,
    Committed,
    Connection,
    Fetched,
    Headers,
    Outgoing,
    Partition,
)

FOREVER_MS = 2**31 - 1
MAX_BYTES = 64 << 20  # of a request to write; the broker has a limit of its own

_log = logging.getLogger("streamlearn.kafka")
# At DEBUG they log what goes over the wire: passwords, payloads.
for _name in ("kafka.protocol.parser", "kafka.net.connection"):
    logging.getLogger(_name).addFilter(lambda record: record.levelno > logging.DEBUG)
heard("kafka", _log)
_POSITION, _TIME, _KEY, _VALUE, _HEADERS = map(itemgetter, (3, 4, 6, 7, 8))

OURS = (  # options that the connector sets
    *("bootstrap_servers", "group_id", "enable_auto_commit", "auto_offset_reset"),
    *("isolation_level", "key_deserializer", "value_deserializer", "key_serializer"),
    *("value_serializer", "transactional_id", "enable_idempotence", "acks", "retries"),
    *("partitioner", "delivery_timeout_ms", "kafka_client", "allow_auto_create_topics"),
    *("max_block_ms", "consumer_timeout_ms", "selector"),
)
_FENCED = (
    kafka_errors.ProducerFencedError,
    kafka_errors.TransactionCoordinatorFencedError,
    kafka_errors.FencedInstanceIdError,
)
_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)
_PERMANENT = (  # no new transaction changes these
    *_FENCED,
    *_TOO_LARGE,
    kafka_errors.AuthorizationError,
    kafka_errors.InvalidConfigurationError,
    kafka_errors.InvalidRecordError,
    kafka_errors.InvalidTopicError,
    kafka_errors.InvalidTransactionTimeoutError,
    kafka_errors.PolicyViolationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.UnsupportedVersionError,
)


class _Heard:
    """What answers of the broker tell; written by the library's thread."""

    def __init__(self) -> None:
        self._waiting = 0
        self._since = 0.0
        self._answered = False
        self.net: KafkaNetClient | None = None
        self.ends: dict[Partition, int] = {}  # high watermarks
        self.stable: dict[Partition, int] = {}  # last stable offsets

    def leave(self) -> None:
        """Close what the library leaves open where it was not made."""
        if self.net is not None:
            self.net.close()

    def asked(self) -> None:
        if self._waiting == 0:
            self._since = time.monotonic()
        self._waiting += 1

    def answered(self, response: Any) -> None:
        self._waiting -= 1
        self._since = time.monotonic()
        self._answered = True
        if isinstance(response, FetchResponse):
            self._note_ends(response)

    def failed(self, _: object) -> None:
        self._waiting -= 1
        self._since = time.monotonic()
        self._answered = False

    def _note_ends(self, response: Any) -> None:
        for topic in response.responses:
            for told in topic.partitions:
                if told.error_code == 0:
                    partition = topic.topic, told.partition_index
                    self.ends[partition] = told.high_watermark
                    self.stable[partition] = told.last_stable_offset

    @property
    def connected(self) -> bool:
        late = self._waiting > 0 and time.monotonic() - self._since > AWAY_SECONDS
        return self._answered and not late


class _Net(KafkaNetClient):  # type: ignore[misc]  # the library has no types
    """The library's network client; every request and its answer are noted."""

    def __init__(self, heard: _Heard, **configs: Any) -> None:
        super().__init__(**configs)
        self._heard = heard
        heard.net = self
        # 3.0.12 does not hand its own option on: a topic that is deleted would be made again
        self._manager.cluster.config["allow_auto_create_topics"] = False
        self._net.config["slow_task_threshold_secs"] = 0  # no warnings when a machine is busy
        self._send_unnoted = self._manager.send
        self._manager.send = self._send_noted

    def _send_noted(self, *args: Any, **kwargs: Any) -> Any:
        self._heard.asked()
        future = self._send_unnoted(*args, **kwargs)
        future.add_callback(self._heard.answered)
        future.add_errback(self._heard.failed)
        return future


def _options(connection: Connection) -> Options:
    kinds = (KafkaConsumer, KafkaProducer, KafkaAdminClient)
    return Options(connection.options, OURS, {o for kind in kinds for o in kind.DEFAULT_CONFIG})


def settings(connection: Connection) -> dict[str, Any]:
    """The connection's options that a consumer takes, and how to reach the broker.

    Raises: UserError for an option that the library does not know, a secret that cannot be read.
    """
    return _settings(connection, _options(connection), KafkaConsumer)


def _settings(connection: Connection, options: Options, kind: Any) -> dict[str, Any]:
    given = {
        "bootstrap_timeout_ms": int(START_SECONDS * 1000),
        "reconnect_backoff_max_ms": 1000,
    } | {name: value for name, value in options.values.items() if name in kind.DEFAULT_CONFIG}
    given["bootstrap_servers"] = connection.bootstrap.split(",")
    return given


def _made(
    kind: Any,
    connection: Connection,
    options: Options,
    given: dict[str, Any],
    heard: _Heard | None = None,
) -> Any:
    """An object of the library. Raises: BrokerError where no broker answers in time."""
    heard = heard or _Heard()
    given = given | {"kafka_client": partial(_Net, heard)}
    try:
        return kind(**_settings(connection, options, kind) | given)
    except (kafka_errors.KafkaTimeoutError, kafka_errors.KafkaConnectionError) as error:
        heard.leave()
        raise no_answer(f"{connection.bootstrap} ({options.masked(line(error))})") from None
    except (kafka_errors.KafkaError, ValueError, TypeError, AssertionError, OSError) as error:
        heard.leave()
        raise BrokerError(f"kafka-python: {options.masked(line(error))}") from None


def _refuse(error: BaseException, what: str) -> NoReturn:
    """Raise a library's error as ours, with what it was about."""
    if isinstance(error, _FENCED):
        raise fenced(what, type(error).__name__) from None
    if isinstance(error, kafka_errors.AuthorizationError):
        raise no_right(what) from None
    if isinstance(error, (kafka_errors.KafkaTimeoutError, kafka_errors.KafkaConnectionError)):
        raise no_answer(what) from None
    if isinstance(error, kafka_errors.UnknownTopicOrPartitionError):
        raise no_topic(what) from None
    if isinstance(error, _TOO_LARGE):
        raise too_large(what) from None
    raise refused(what, type(error).__name__, error) from None


def _ms(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))


class Consumer:
    """KafkaConsumer, read-committed, without a group's rebalancing. See `wire.Consumer`."""

    def __init__(
        self, connection: Connection, group: str | None, *, keys: bool, headers: bool
    ) -> None:
        self._connection = connection
        self._group, self._keys, self._headers = group, keys, headers
        self._heard = _Heard()
        self._options = _options(connection)
        self._missing: dict[str, float] = {}  # topic -> since when the broker does not know it
        self._complained = -math.inf
        self._under_way: dict[Any, Any] = {}  # offsets whose commit was not answered
        self._kafka = self._made()
        if importlib.util.find_spec("crc32c") is None:
            _log.warning("kafka-python checks records slowly without: pip install crc32c")

    def _made(self) -> Any:
        defaults = {
            "fetch_max_wait_ms": 100,
            "max_partition_fetch_bytes": 4 << 20,
            "metrics_enabled": False,
        }
        given = {k: v for k, v in defaults.items() if k not in self._options.values} | {
            "group_id": self._group,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "isolation_level": "read_committed",
            "allow_auto_create_topics": False,
        }
        return _made(KafkaConsumer, self._connection, self._options, given, self._heard)

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read these partitions, each from an offset; what was assigned before is let go."""
        partitions = [TopicPartition(*partition) for partition in positions]
        self._kafka.assign(partitions)
        for partition, offset in zip(partitions, positions.values(), strict=True):
            self._kafka.seek(partition, offset)

    def fetch(self, most: int, max_wait: float) -> list[Fetched]:
        """About `most` records that have come, by partition; [] when none came in time."""
        if self._options.changed():
            self._renew()
        try:
            polled = self._kafka.poll(timeout_ms=int(max_wait * 1000), max_records=most)
        except kafka_errors.OffsetOutOfRangeError as error:
            self._refuse_offsets(error)
        except kafka_errors.RetriableError:
            return []
        except kafka_errors.KafkaError as error:
            _refuse(error, named(self._kafka.assignment()))
        if not polled:
            self._look_for_topics()
        return [self._columns(partition, records) for partition, records in polled.items()]

    def _columns(self, partition: Any, records: list[Any]) -> Fetched:
        n = len(records)
        times = np.fromiter(map(_TIME, records), np.int64, n)
        return Fetched(
            (partition.topic, partition.partition),
            np.fromiter(map(_POSITION, records), np.int64, n),
            np.where(times < 0, NO_TIME, times * 1_000_000),
            list(map(_VALUE, records)),
            list(map(_KEY, records)) if self._keys else None,
            list(map(_HEADERS, records)) if self._headers else None,
        )

    def _refuse_offsets(self, error: Any) -> NoReturn:
        partition, offset = next(iter(error.args[0].items()))
        partition = partition.topic, partition.partition
        first, end = self.beginnings([partition], 5.0), self.ends([partition], 5.0)
        raise not_there(partition, offset, first[partition], end[partition]) from None

    def _look_for_topics(self) -> None:
        """A topic that the broker does not know for some seconds is gone."""
        cluster = self._kafka._cluster
        for topic in {partition.topic for partition in self._kafka.assignment()}:
            if cluster.partitions_for_topic(topic) is not None or not self._heard.connected:
                self._missing.pop(topic, None)
                continue
            since = self._missing.setdefault(topic, time.monotonic())
            if time.monotonic() - since > GONE_SECONDS:
                raise gone(topic)

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Fetch nothing of these until they are resumed."""
        self._kafka.pause(*(TopicPartition(*partition) for partition in partitions))

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Fetch these again, from where they stood."""
        self._kafka.resume(*(TopicPartition(*partition) for partition in partitions))

    def caught_up(self, partition: Partition) -> bool:
        """Whether `fetch` has given everything up to the last stable offset, as last heard of."""
        stable = self._heard.stable.get(partition)
        state = self._kafka._subscription.assignment.get(TopicPartition(*partition))
        if stable is None or state is None or state.position is None:
            return False
        return bool(state.position.offset >= stable)

    def end(self, partition: Partition) -> int | None:
        """The high watermark last heard of; None before."""
        return self._heard.ends.get(partition)

    @property
    def connected(self) -> bool:
        """Whether the broker answered of late."""
        return self._heard.connected

    def partitions(self, topic: str, max_wait: float) -> int:
        """Number of its partitions. Raises: BrokerError without such a topic or a broker."""
        return _count(self._kafka._cluster, topic, max_wait)

    def beginnings(self, partitions: Sequence[Partition], max_wait: float) -> dict[Partition, int]:
        """The first offset of each that is still there. Raises: BrokerError."""
        return self._asked(self._kafka.beginning_offsets, partitions, max_wait)

    def ends(self, partitions: Sequence[Partition], max_wait: float) -> dict[Partition, int]:
        """The offset after the last record of each (the last stable one). Raises: BrokerError."""
        return self._asked(self._kafka.end_offsets, partitions, max_wait)

    def _asked(
        self, method: Any, partitions: Sequence[Partition], max_wait: float
    ) -> dict[Partition, int]:
        try:
            found = method([TopicPartition(*p) for p in partitions], timeout_ms=_ms(max_wait))
        except kafka_errors.KafkaError as error:
            _refuse(error, named(partitions))
        return {(partition.topic, partition.partition): n for partition, n in found.items()}

    def at_time(
        self, partitions: Sequence[Partition], time: int, max_wait: float
    ) -> dict[Partition, int]:
        """The first offset of each at or after a time in ns; its end where none is."""
        millisecond = max(0, -(-time // 1_000_000))
        wanted = {TopicPartition(*partition): millisecond for partition in partitions}
        try:
            found = self._kafka.offsets_for_times(wanted, timeout_ms=_ms(max_wait))
        except kafka_errors.KafkaError as error:
            _refuse(error, named(partitions))
        later = self.ends([p for p in partitions if found[TopicPartition(*p)] is None], max_wait)
        there = {tuple(tp): at.offset for tp, at in found.items() if at is not None}
        return {p: there[p] if p in there else later[p] for p in partitions}

    def committed(
        self, partitions: Sequence[Partition], max_wait: float
    ) -> dict[Partition, Committed]:
        """What the group has committed; a partition without is left out."""
        found = {}
        for partition in partitions:
            try:
                told = self._kafka.committed(
                    TopicPartition(*partition), metadata=True, timeout_ms=_ms(max_wait)
                )
            except kafka_errors.KafkaError as error:
                _refuse(error, f"offsets of {named([partition])}")
            if told is not None and told.offset >= 0:
                found[partition] = Committed(told.offset, (told.metadata or "").rstrip("\0"))
        return found

    def commit(self, offsets: Mapping[Partition, int], metadata: str) -> None:
        """Commit for lag monitors, without waiting; a failure is logged once a minute."""
        wanted = {TopicPartition(*p): OffsetAndMetadata(n, metadata) for p, n in offsets.items()}
        self._under_way |= wanted
        self._kafka.commit_async(wanted, callback=self._committed)

    def _committed(self, offsets: Mapping[Any, Any], answer: object) -> None:
        for partition, offset in offsets.items():
            if self._under_way.get(partition) == offset:
                del self._under_way[partition]
        if isinstance(answer, Exception) and time.monotonic() - self._complained > 60:
            self._complained = time.monotonic()
            _log.warning("kafka: offsets were not committed: %s", line(answer))

    def _renew(self) -> None:
        """A client with the secrets as they are now; the old one stays where none answers."""
        before, self._options = self._options, _options(self._connection)
        try:
            fresh = self._made()
        except BrokerError as error:
            self._options = before
            _log.warning("kafka: the new credentials are not taken yet: %s", error)
            return
        old, self._kafka = self._kafka, fresh
        assignment = old.assignment()
        self.assign({(p.topic, p.partition): old.position(p) for p in assignment})
        fresh.pause(*old.paused())
        old.close(autocommit=False, timeout_ms=int(CLOSE_SECONDS * 1000))

    def close(self) -> None:
        """Leave, after commits that are under way (some seconds at most); may be called twice."""
        if self._under_way:
            with suppress(kafka_errors.KafkaError):
                self._kafka.commit(self._under_way, timeout_ms=int(CLOSE_SECONDS * 1000))
            self._under_way = {}
        self._kafka.close(autocommit=False, timeout_ms=int(CLOSE_SECONDS * 1000))


def _count(cluster: Any, topic: str, max_wait: float) -> int:
    """Number of partitions of a topic, asked of the broker; the topic is not created."""
    end = time.monotonic() + max_wait
    cluster.add_topic(topic)
    answered = False
    while True:
        told = threading.Event()
        cluster.request_update().add_both(lambda *_, told=told: told.set())
        answered |= told.wait(max(0.0, end - time.monotonic()))
        if topic in cluster.unauthorized_topics:
            _refuse(kafka_errors.TopicAuthorizationFailedError(), topic)
        numbers = cluster.partitions_for_topic(topic)
        if answered and numbers:
            return len(numbers)
        left = end - time.monotonic()
        if left <= 0:
            raise no_topic(topic) if answered else no_answer(topic)
        time.sleep(min(STEP_SECONDS, left))


class Producer:
    """KafkaProducer, idempotent, all replicas. See `wire.Producer`.

    What is in flight is kept as the library's futures in their order: those at the front that are
    done are let go, so what waits behind a slow partition counts as in flight.
    """

    def __init__(
        self, connection: Connection, transactional_id: str | None, max_in_flight: int
    ) -> None:
        self._connection = connection
        self._id, self._most = transactional_id, max_in_flight
        self._heard = _Heard()
        self._options = _options(connection)
        self._flying: deque[Any] = deque()
        self._initialised = False
        self._open = False
        self._kafka = self._made()

    def _made(self) -> Any:
        defaults = {
            "batch_size": 128 << 10,
            "max_request_size": MAX_BYTES,
            "metrics_enabled": False,
        }
        given = {k: v for k, v in defaults.items() if k not in self._options.values} | {
            "enable_idempotence": True,
            "acks": "all",
            "delivery_timeout_ms": FOREVER_MS,
            "allow_auto_create_topics": False,
            "transactional_id": self._id,
            "max_block_ms": int(STEP_SECONDS * 1000),
        }
        return _made(KafkaProducer, self._connection, self._options, given, self._heard)

    def send(self, records: Outgoing) -> None:
        """Take records; waits while too many are in flight, for as long as the broker is away."""
        if self._options.changed() and not self._open:
            self._renew()
        nothing = [None] * len(records.values)
        times = nothing if records.times is None else (records.times // 1_000_000).tolist()
        columns = zip(
            records.values,
            records.keys or nothing,
            records.headers or nothing,
            nothing if records.partitions is None else records.partitions,
            times,
            strict=True,
        )
        topic = records.topic
        if self._kafka._metadata.partitions_for_topic(topic) is None:
            self._await_topic(topic)
        for value, key, headers, partition, time_ms in columns:
            if len(self._flying) >= self._most:
                self._make_room()
            self._flying.append(self._sent(topic, value, key, headers, partition, time_ms))
        self._let_go()

    def _sent(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers | None,
        partition: int | None,
        time_ms: int | None,
    ) -> Any:
        """The library's future of a record."""
        if value is None and key is None:
            raise empty(topic)
        try:
            return self._kafka.send(topic, value, key, _filled(headers), partition, time_ms)
        except kafka_errors.KafkaError as error:
            self._raise(error, topic)
        except (ValueError, TypeError, AssertionError) as error:
            numbers = self._kafka._metadata.partitions_for_topic(topic) or ()
            if partition is not None and partition not in numbers:
                raise no_partition(topic, partition) from None
            raise refused(topic, "record", error) from None

    def _await_topic(self, topic: str) -> None:
        """Until the topic's partitions are known: as long as the broker is away."""
        while True:
            try:
                self.partitions(topic, GONE_SECONDS)
            except AwayError:
                continue
            else:
                return

    def _make_room(self) -> None:
        self._let_go()
        while len(self._flying) >= self._most:
            self._wait(self._flying[0])
            self._let_go()

    @staticmethod
    def _wait(future: Any) -> None:
        with suppress(kafka_errors.KafkaError):  # if it failed, `_let_go` sees it
            future.get(STEP_SECONDS)

    def _let_go(self) -> None:
        """Forget what is acknowledged. Raises: the first failure."""
        flying = self._flying
        while flying and flying[0].is_done:
            future = flying.popleft()
            if future.exception is not None:
                self._raise(future.exception, future._produce_future.topic_partition.topic)

    def _raise(self, error: BaseException, what: str) -> NoReturn:
        if self._id is None:
            _refuse(error, what)
        last = self._kafka._transaction_manager._last_error  # what brought it into an error state
        cause = last if last is not None and not isinstance(error, _PERMANENT) else error
        if isinstance(cause, _PERMANENT):
            _refuse(cause, what)
        raise AbortedError(f"kafka: {what}: {type(cause).__name__}: {line(cause)}") from None

    def flush(self) -> None:
        """Wait until all are acknowledged. Raises: as `send`."""
        done = False
        while not done:
            try:
                self._kafka.flush(STEP_SECONDS)
                done = True
            except kafka_errors.KafkaTimeoutError:
                self._let_go()
        while self._flying:
            self._wait(self._flying[0])
            self._let_go()

    @property
    def in_flight(self) -> int:
        """Records that are not acknowledged yet."""
        while self._flying and self._flying[0].is_done and self._flying[0].exception is None:
            self._flying.popleft()
        return len(self._flying)

    @property
    def connected(self) -> bool:
        """Whether the broker answered of late."""
        return self._heard.connected

    def partitions(self, topic: str, max_wait: float) -> int:
        """Number of its partitions. Raises: BrokerError without such a topic or a broker."""
        return _count(self._kafka._metadata, topic, max_wait)

    def begin(self) -> None:
        """Begin a transaction; the first call fences older producers of the transactional id."""
        if self._options.changed():
            self._renew()
        try:
            while not self._initialised:
                self._initialise()
            self._kafka.begin_transaction()
        except kafka_errors.KafkaError as error:
            self._raise(error, f"transactional id {self._id}")
        self._open = True

    def _initialise(self) -> None:
        with suppress(kafka_errors.KafkaTimeoutError):  # waits for 0.1 s, and goes on when called
            self._kafka.init_transactions()
            self._initialised = True

    def commit(self, offsets: Mapping[Partition, int], group: str, metadata: str) -> None:
        """Flush, add offsets of a consumer group to the transaction, and commit both."""
        self.flush()
        wanted = {TopicPartition(*p): OffsetAndMetadata(n, metadata) for p, n in offsets.items()}
        try:
            if wanted:
                self._kafka.send_offsets_to_transaction(wanted, group)
            self._kafka.commit_transaction()
        except kafka_errors.KafkaError as error:
            self._raise(error, f"transactional id {self._id}")
        self._open = False

    def abort(self) -> None:
        """Give up the transaction that is open, if one is."""
        if not self._open:
            return
        self._open = False
        try:
            result = self._kafka._transaction_manager.begin_abort()
            self._kafka._sender.wakeup()
            result.wait(timeout_ms=int(ABORT_SECONDS * 1000))  # the library's own waits for ever
        except kafka_errors.KafkaError as error:
            _refuse(error, f"transactional id {self._id}")
        finally:
            self._flying.clear()

    def _renew(self) -> None:
        """A client with the secrets as they are now; the old one stays where none answers."""
        self.flush()
        before, self._options = self._options, _options(self._connection)
        try:
            fresh = self._made()
        except BrokerError as error:
            self._options = before
            _log.warning("kafka: the new credentials are not taken yet: %s", error)
            return
        old, self._kafka = self._kafka, fresh
        self._initialised = False
        old.close(timeout=0)

    def close(self) -> None:
        """Close without waiting for what is in flight; may be called twice."""
        with suppress(kafka_errors.KafkaTimeoutError):  # what could not be flushed is left
            self._kafka.close(timeout=0)


def _filled(headers: list[tuple[str, bytes | None]] | None) -> list[tuple[str, bytes]] | None:
    """The library cannot send a header without a value; it goes out empty."""
    if headers is None:
        return None
    if all(value is not None for _, value in headers):
        return headers  # type: ignore[return-value]
    return [(name, b"" if value is None else value) for name, value in headers]


class Admin:
    """KafkaAdminClient. See `wire.Admin`."""

    def __init__(self, connection: Connection) -> None:
        self._kafka = _made(KafkaAdminClient, connection, _options(connection), {})

    def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        """Make a topic; nothing happens where it is there with as many partitions."""
        wanted = {topic: {"num_partitions": partitions, "configs": dict(config)}}
        try:
            self._kafka.create_topics(wanted, wait_for_metadata=True)
        except kafka_errors.TopicAlreadyExistsError:
            there = len(self._kafka.describe_topics([topic])[0]["partitions"])
            if there != partitions:
                raise BrokerError(
                    f"kafka: {topic}: is there with {there} partitions, not {partitions}"
                ) from None
        except kafka_errors.KafkaError as error:
            _refuse(error, topic)

    def extend(self, topic: str, partitions: int) -> None:
        """Add partitions to a topic: so many it has then."""
        self._done(topic, self._kafka.create_partitions, {topic: partitions})

    def delete(self, topic: str) -> None:
        """Delete a topic."""
        self._done(topic, self._kafka.delete_topics, [topic])

    def delete_records(self, before: Mapping[Partition, int]) -> None:
        """Delete records before an offset of each partition."""
        wanted = {TopicPartition(*partition): offset for partition, offset in before.items()}
        self._done(named(before), self._kafka.delete_records, wanted)

    @staticmethod
    def _done(what: str, method: Any, wanted: Any) -> None:
        try:
            method(wanted)
        except kafka_errors.KafkaError as error:
            _refuse(error, what)

    def close(self) -> None:
        """Close the connection."""
        self._kafka.close()


class _KafkaPython:
    """kafka-python. See `wire.Client`."""

    def consumer(
        self, connection: Connection, *, group: str | None, keys: bool, headers: bool
    ) -> wire.Consumer:
        """A consumer; `group` only names where offsets are committed."""
        return Consumer(connection, group, keys=keys, headers=headers)

    def producer(
        self, connection: Connection, *, transactional_id: str | None, max_in_flight: int
    ) -> wire.Producer:
        """A producer."""
        return Producer(connection, transactional_id, max_in_flight)

    def member(self, connection: Connection, group: str) -> wire.Membership:
        """A member of a group."""
        from streamlearn.connectors.kafka.member_kafka_python import Member

        return Member(connection, group)

    def admin(self, connection: Connection) -> wire.Admin:
        """For topics."""
        return Admin(connection)


CLIENT = _KafkaPython()
