"""confluent-kafka behind `wire.py`.

Messages become columns by comprehensions. Whether the broker answers is read off the library's
statistics, once a second; deliveries are counted by the library, which calls back for errors alone.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NoReturn

import numpy as np
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka import Consumer as LibraryConsumer
from confluent_kafka import Producer as LibraryProducer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from streamlearn.block import I8, NO_TIME
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
from streamlearn.errors import UserError

_log = logging.getLogger("streamlearn.kafka")
_library_log = heard("confluent_kafka", _log)

OURS = (  # options that the connector sets
    *("bootstrap.servers", "metadata.broker.list", "group.id", "enable.auto.commit"),
    *("enable.auto.offset.store", "auto.offset.reset", "enable.partition.eof"),
    *("isolation.level", "transactional.id", "enable.idempotence", "acks", "partitioner"),
    *("request.required.acks", "message.timeout.ms", "delivery.timeout.ms", "retries"),
    *("message.send.max.retries", "delivery.report.only.error", "dr_cb", "dr_msg_cb"),
    *("stats_cb", "error_cb", "on_delivery", "on_commit", "logger", "statistics.interval.ms"),
    *("queue.buffering.max.messages", "allow.auto.create.topics"),
)
_GONE = (
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)
_NO_RIGHT = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)
_NO_ANSWER = (
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._WAIT_COORD,
)
_FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED)
_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
_PERMANENT = (  # no new transaction changes these
    *_TOO_LARGE,
    *_NO_RIGHT,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
    KafkaError.POLICY_VIOLATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError._AUTHENTICATION,
    *_GONE,
)


def settings(connection: Connection) -> dict[str, Any]:
    """The connection's options and how to reach the broker, for a class of the library.

    Raises: UserError for an option that the library does not know, a secret that cannot be read.
    """
    return _settings(connection, Options(connection.options, OURS))


def _settings(connection: Connection, options: Options) -> dict[str, Any]:
    given = {"bootstrap.servers": connection.bootstrap} | options.values
    return {"reconnect.backoff.max.ms": 1000, "socket.keepalive.enable": True} | given


class _Heard:
    """What the library tells by the way: its statistics, and errors of the connection."""

    def __init__(self) -> None:
        self.connected = True
        self.reason = ""  # of the last error of the connection

    def callbacks(self) -> dict[str, Any]:
        return {
            "statistics.interval.ms": 1000,
            "stats_cb": self._told,
            "error_cb": self._failed,
            "logger": _library_log,
        }

    def _told(self, statistics: str) -> None:
        up = [b for b in json.loads(statistics)["brokers"].values() if b["state"] == "UP"]
        late = any(b["waitresp_cnt"] > 0 and b["rxidle"] > AWAY_SECONDS * 1e6 for b in up)
        self.connected = bool(up) and not late

    def _failed(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.connected = False
        else:
            self.reason = line(error.str())


def _made(
    kind: Any, connection: Connection, options: Options, heard: _Heard, more: Mapping[str, Any]
) -> Any:
    """An object of the library. Raises: UserError for an option; BrokerError without a broker."""
    given = _settings(connection, options) | heard.callbacks() | dict(more)
    try:
        made = kind(given)
    except KafkaException as error:
        raise _bad_option(error.args[0], options) from None
    except (ValueError, TypeError) as error:
        raise UserError(f"confluent: {options.masked(line(error))}") from None
    try:
        made.list_topics(timeout=START_SECONDS)
    except KafkaException as error:
        made.poll(0)  # brings the error's reason
        why = heard.reason or line(error.args[0].str())
        raise no_answer(f"{connection.bootstrap} ({options.masked(why)})") from None
    return made


def _bad_option(error: KafkaError, options: Options) -> UserError:
    text = options.masked(line(error.str()))
    for name in options.values:
        if f'"{name}"' in text:
            if "No such configuration property" in text:
                return UserError(
                    f"options.{name}: confluent has no such option; its names have dots, as in "
                    "security.protocol"
                )
            return UserError(f"options.{name}: {text}")
    return UserError(f"confluent: {text}")


def _refuse(error: KafkaError, what: str) -> NoReturn:
    """Raise a library's error as ours, with what it was about."""
    code = error.code()
    if code in _FENCED:
        raise fenced(what, error.name()) from None
    if code in _NO_RIGHT:
        raise no_right(what) from None
    if code in _NO_ANSWER:
        raise no_answer(what) from None
    if code in _GONE:
        raise no_topic(what) from None
    if code in _TOO_LARGE:
        raise too_large(what) from None
    raise refused(what, error.name(), error.str()) from None


def _tops(partitions: Sequence[Partition]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic, number in partitions]


def _count(handle: Any, topic: str, max_wait: float) -> int:
    """Number of partitions of a topic. All topics are asked for: asking for one may create it."""
    end = time.monotonic() + max_wait
    answered = False
    while True:
        try:
            found = handle.list_topics(timeout=max(0.01, end - time.monotonic()))
        except KafkaException as error:
            if answered:
                raise no_topic(topic) from None
            _refuse(error.args[0], topic)
        answered = True
        if topic in found.topics and found.topics[topic].partitions:
            return len(found.topics[topic].partitions)
        left = end - time.monotonic()
        if left <= 0:
            raise no_topic(topic)
        time.sleep(min(STEP_SECONDS, left))


class Consumer:
    """The library's consumer, read-committed, without a group's rebalancing.

    See `wire.Consumer`.
    """

    def __init__(
        self, connection: Connection, group: str | None, *, keys: bool, headers: bool
    ) -> None:
        self._connection = connection
        self._group, self._keys, self._headers = group, keys, headers
        self._heard = _Heard()
        self._options = Options(connection.options, OURS)
        self._positions: dict[Partition, int] = {}
        self._topics: list[str] = []
        self._paused: set[Partition] = set()
        self._at_end: set[Partition] = set()
        self._complained = -math.inf
        self._looked = time.monotonic()
        self._missing: set[str] = set()  # topics that were not there at the last look
        self._commits = 0  # under way
        self._closed = False
        self._kafka = self._made()

    def _made(self) -> Any:
        defaults = {
            "check.crcs": True,
            "fetch.wait.max.ms": 100,
            "fetch.error.backoff.ms": 100,
            "fetch.queue.backoff.ms": 5,  # the default of 1 s stalls who is slower than the broker
            "queued.max.messages.kbytes": 16384,
        }
        ours = {
            "group.id": self._group or "streamlearn",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "on_commit": self._committed,
        }
        more = {k: v for k, v in defaults.items() if k not in self._options.values} | ours
        return _made(LibraryConsumer, self._connection, self._options, self._heard, more)

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read these partitions, each from an offset; what was assigned before is let go."""
        self._positions = dict(positions)
        self._topics = list(dict.fromkeys(topic for topic, _ in positions))
        self._paused.clear()
        self._at_end.clear()
        self._assign()

    def _assign(self) -> None:
        self._kafka.assign([TopicPartition(*p, offset) for p, offset in self._positions.items()])
        self._kafka.pause(_tops(list(self._paused)))

    def fetch(self, most: int, max_wait: float) -> list[Fetched]:
        """About `most` records that have come, by partition; [] when none came in time."""
        if self._options.changed():
            self._renew()
        self._look_for_topics()
        try:
            messages = self._kafka.consume(most, 0)
            end = time.monotonic() + max_wait
            while not messages:  # consume(most, seconds) would wait until it has so many
                left = end - time.monotonic()
                if left <= 0:
                    return []
                first = self._kafka.poll(min(left, STEP_SECONDS))
                if first is not None:
                    messages = [first, *self._kafka.consume(most, 0)]
        except KafkaException as error:
            _refuse(error.args[0], named(self._positions))
        return self._sorted(messages)

    def _sorted(self, messages: list[Message]) -> list[Fetched]:
        blocks: dict[Partition, list[Message]] = {}
        failed = any(map(Message.error, messages))
        if failed:
            messages = self._without_errors(messages)
        for topic, of_topic in self._by_topic(messages):
            for number, run in groupby(of_topic, Message.partition):
                blocks.setdefault((topic, number or 0), []).extend(run)
        if not failed:
            self._at_end.difference_update(blocks)
        return [self._columns(partition, found) for partition, found in blocks.items()]

    def _by_topic(self, messages: list[Message]) -> Iterable[tuple[str, Iterable[Message]]]:
        if len(self._topics) == 1:
            return [(self._topics[0], messages)]
        return ((topic or "", run) for topic, run in groupby(messages, Message.topic))

    def _without_errors(self, messages: list[Message]) -> list[Message]:
        """The messages that are records; ends that were reached are noted."""
        good = []
        for message in messages:
            error = message.error()
            partition = message.topic() or "", message.partition() or 0
            if error is None:
                good.append(message)
                self._at_end.discard(partition)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._at_end.add(partition)
            else:
                self._heed(error, partition)
        return good

    def _heed(self, error: KafkaError, partition: Partition) -> None:
        """Raise an error that does not pass by itself."""
        code = error.code()
        if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            first, end = self.beginnings([partition], 5.0), self.ends([partition], 5.0)
            raise not_there(partition, self._positions[partition], first[partition], end[partition])
        if code in _NO_RIGHT:
            raise no_right(named([partition]))
        if not error.retriable() and code not in (*_NO_ANSWER, *_GONE):
            _refuse(error, named([partition]))

    def _look_for_topics(self) -> None:
        """The library says nothing when a topic is deleted: it is missing twice, so it is gone."""
        if time.monotonic() - self._looked < GONE_SECONDS or not self._heard.connected:
            return
        missing = set()
        for topic in self._topics:
            try:
                found = self._kafka.list_topics(topic, timeout=STEP_SECONDS)
            except KafkaException:
                continue
            if not found.topics[topic].partitions:
                missing.add(topic)
        self._looked, before, self._missing = time.monotonic(), self._missing, missing
        for topic in before & missing:
            raise gone(topic)

    def _columns(self, partition: Partition, messages: list[Message]) -> Fetched:
        n = len(messages)
        first, last = messages[0].offset() or 0, messages[-1].offset() or 0
        if last - first == n - 1:  # they rise, so none is left out
            offsets: I8 = np.arange(first, last + 1)
        else:
            offsets = np.array([message.offset() for message in messages], np.int64)
        times: I8 = np.array([stamp[1] for stamp in map(Message.timestamp, messages)], np.int64)
        self._positions[partition] = last + 1
        return Fetched(
            partition,
            offsets,
            np.where(times < 0, NO_TIME, times * 1_000_000),
            _bytes(map(Message.value, messages)),
            _bytes(map(Message.key, messages)) if self._keys else None,
            _lists(map(Message.headers, messages)) if self._headers else None,
        )

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Fetch nothing of these until they are resumed."""
        self._paused.update(partitions)
        self._kafka.pause(_tops(partitions))

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Fetch these again, from where they stood."""
        going_on = [partition for partition in partitions if partition in self._paused]
        self._paused.difference_update(going_on)
        self._at_end.difference_update(going_on)  # the library tells of an end again
        self._kafka.resume(_tops(going_on))
        try:  # up to 2.11 the library loses what had come while it was paused
            for partition in going_on:
                self._kafka.seek(TopicPartition(*partition, self._positions[partition]))
        except KafkaException:  # it was assigned a moment ago
            self._assign()

    def caught_up(self, partition: Partition) -> bool:
        """Whether `fetch` has given everything up to the last stable offset, as last heard of."""
        return partition in self._at_end

    def end(self, partition: Partition) -> int | None:
        """The high watermark last heard of; None before."""
        if partition not in self._positions:
            return None
        found = self._kafka.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return None if found is None or found[1] < 0 else int(found[1])

    @property
    def connected(self) -> bool:
        """Whether the broker answered of late."""
        return self._heard.connected

    def partitions(self, topic: str, max_wait: float) -> int:
        """Number of its partitions. Raises: BrokerError without such a topic or a broker."""
        return _count(self._kafka, topic, max_wait)

    def beginnings(self, partitions: Sequence[Partition], max_wait: float) -> dict[Partition, int]:
        """The first offset of each that is still there. Raises: BrokerError."""
        return self._offsets(partitions, OFFSET_BEGINNING, max_wait)

    def ends(self, partitions: Sequence[Partition], max_wait: float) -> dict[Partition, int]:
        """The offset after the last record of each (the last stable one). Raises: BrokerError."""
        return self._offsets(partitions, OFFSET_END, max_wait)

    def at_time(
        self, partitions: Sequence[Partition], time: int, max_wait: float
    ) -> dict[Partition, int]:
        """The first offset of each at or after a time in ns; its end where none is."""
        found = self._offsets(partitions, max(0, -(-time // 1_000_000)), max_wait)
        later = self.ends([p for p, offset in found.items() if offset < 0], max_wait)
        return found | later

    def _offsets(
        self, partitions: Sequence[Partition], time_ms: int, max_wait: float
    ) -> dict[Partition, int]:
        if not partitions:
            return {}
        wanted = [TopicPartition(*partition, time_ms) for partition in partitions]
        try:
            found = self._kafka.offsets_for_times(wanted, timeout=max_wait)
        except KafkaException as error:
            _refuse(error.args[0], named(partitions))
        for told in found:
            if told.error is not None:
                _refuse(told.error, named([(told.topic, told.partition)]))
        return {(told.topic, told.partition): told.offset for told in found}

    def committed(
        self, partitions: Sequence[Partition], max_wait: float
    ) -> dict[Partition, Committed]:
        """What the group has committed; a partition without is left out."""
        try:
            found = self._kafka.committed(_tops(partitions), timeout=max_wait)
        except KafkaException as error:
            _refuse(error.args[0], f"offsets of {named(partitions)}")
        return {
            (told.topic, told.partition): Committed(told.offset, (told.metadata or "").rstrip("\0"))
            for told in found
            if told.offset >= 0
        }

    def commit(self, offsets: Mapping[Partition, int], metadata: str) -> None:
        """Commit for lag monitors, without waiting; a failure is logged once a minute."""
        wanted = [TopicPartition(*p, offset, metadata) for p, offset in offsets.items()]
        self._commits += 1
        try:
            self._kafka.commit(offsets=wanted, asynchronous=True)
        except KafkaException as error:
            self._committed(error.args[0], [])

    def _committed(self, error: KafkaError | None, _: object) -> None:
        self._commits -= 1
        if error is not None and time.monotonic() - self._complained > 60:
            self._complained = time.monotonic()
            _log.warning("kafka: offsets were not committed: %s", line(error.str()))

    def _renew(self) -> None:
        """A client with the secrets as they are now; the old one stays where none answers."""
        before, self._options = self._options, Options(self._connection.options, OURS)
        try:
            fresh = self._made()
        except BrokerError as error:
            self._options = before
            _log.warning("kafka: the new credentials are not taken yet: %s", error)
            return
        _closed(self._kafka)
        self._kafka = fresh
        self._assign()

    def close(self) -> None:
        """Leave, after commits that are under way (some seconds at most); may be called twice."""
        if self._closed:
            return
        self._closed = True
        end = time.monotonic() + CLOSE_SECONDS
        closing = _closing(self._kafka)
        try:
            while self._commits > 0 and time.monotonic() < end:
                self._kafka.poll(0.005)
        finally:  # by ShutdownError, too: freed without it, it keeps a core busy for a minute
            closing.start()
        closing.join(CLOSE_SECONDS)


def _closed(consumer: Any) -> None:
    """Close it; where the broker is away the library waits for ever, so not here."""
    closing = _closing(consumer)
    closing.start()
    closing.join(CLOSE_SECONDS)


def _closing(consumer: Any) -> threading.Thread:
    return threading.Thread(target=consumer.close, name="kafka-close", daemon=True)


def _bytes(found: Iterable[Any]) -> list[bytes | None]:
    return list(found)  # the library's annotations allow for text, which it never gives


def _lists(found: Iterable[Any]) -> list[Headers]:
    return [headers or [] for headers in found]


class Producer:
    """The library's producer, idempotent, all replicas. See `wire.Producer`."""

    def __init__(
        self, connection: Connection, transactional_id: str | None, max_in_flight: int
    ) -> None:
        self._connection = connection
        self._id, self._most = transactional_id, max_in_flight
        self._heard = _Heard()
        self._options = Options(connection.options, OURS)
        self._failure: tuple[KafkaError, str] | None = None
        self._groups: dict[str, object] = {}  # what the library calls a group's metadata
        self._counts: dict[str, int] = {}  # partitions of the topics that were written to
        self._initialised = False
        self._open = False
        self._kafka = self._made()

    def _made(self) -> Any:
        defaults = {
            "linger.ms": 1,
            "message.max.bytes": 64 << 20,  # the broker has a limit of its own
            "queue.buffering.max.kbytes": 256 << 10,
        }
        ours: dict[str, Any] = {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": self._most + 1000,
            "delivery.report.only.error": True,
            "on_delivery": self._delivered,
        }
        if self._id is None:
            ours["message.timeout.ms"] = 0  # for as long as the broker is away
        else:
            ours["transactional.id"] = self._id
        more = {k: v for k, v in defaults.items() if k not in self._options.values} | ours
        return _made(LibraryProducer, self._connection, self._options, self._heard, more)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failure is None:
            self._failure = error, message.topic() or ""

    def send(self, records: Outgoing) -> None:
        """Take records; waits while too many are in flight, for as long as the broker is away."""
        topic, n = records.topic, len(records.values)
        if topic not in self._counts:
            self._await_topic(topic)
        if self._options.changed() and not self._open:
            self._renew()
        keys: Sequence[bytes | None] = records.keys or [None] * n
        headers: Sequence[Headers] = records.headers or [[]] * n
        partitions: Sequence[int] = [-1] * n if records.partitions is None else records.partitions
        stamps = [0] * n if records.times is None else (records.times // 1_000_000).tolist()
        start = 0
        while start < n:
            self._make_room()
            stop = min(n, start + max(1, self._most - len(self._kafka)))
            part = slice(start, stop)
            start += self._produced(
                topic, records.values[part], keys[part], headers[part], partitions[part],
                stamps[part],
            )  # fmt: skip
        self._serve(0)

    def _produced(self, topic: str, *columns: Sequence[Any]) -> int:
        """Hand records to the library; how many it took."""
        produce, done = self._kafka.produce, 0  # by position: names cost 0.5 microseconds
        try:
            for value, key, headers, partition, stamp in zip(*columns, strict=True):
                if value is None and key is None:
                    raise empty(topic)
                produce(topic, value, key, partition, None, None, stamp, headers)
                done += 1
        except BufferError:
            self._serve(STEP_SECONDS)
        except KafkaException as error:
            self._raise(error.args[0], topic, columns[3][done])
        except TypeError as error:
            raise refused(topic, "record", error) from None
        return done

    def _await_topic(self, topic: str) -> None:
        """Until the topic's partitions are known: as long as the broker is away."""
        while True:
            try:
                self._counts[topic] = self.partitions(topic, GONE_SECONDS)
            except AwayError:
                self._kafka.poll(0)
            else:
                return

    def _make_room(self) -> None:
        self._serve(0)
        while len(self._kafka) >= self._most:
            self._serve(STEP_SECONDS)

    def _serve(self, seconds: float) -> None:
        """Let the library call back. Raises: the first failure of a delivery."""
        self._kafka.poll(seconds)
        if self._failure is not None:
            (error, topic), self._failure = self._failure, None
            self._raise(error, topic)

    def _raise(self, error: KafkaError, what: str, number: int = -1) -> NoReturn:
        code = error.code()
        if code == KafkaError._UNKNOWN_PARTITION and number >= self._counts.get(what, 0):
            raise no_partition(what, number) from None
        if self._id is None or code in _FENCED or code in _PERMANENT:
            _refuse(error, what)
        raise AbortedError(f"kafka: {what}: {error.name()}: {line(error.str())}") from None

    def flush(self) -> None:
        """Wait until all are acknowledged. Raises: as `send`."""
        while self._kafka.flush(STEP_SECONDS) > 0:
            self._serve(0)
        self._serve(0)

    @property
    def in_flight(self) -> int:
        """Records that are not acknowledged yet."""
        return len(self._kafka)

    @property
    def connected(self) -> bool:
        """Whether the broker answered of late."""
        self._kafka.poll(0)  # brings the statistics, where nothing is sent
        return self._heard.connected

    def partitions(self, topic: str, max_wait: float) -> int:
        """Number of its partitions. Raises: BrokerError without such a topic or a broker."""
        return _count(self._kafka, topic, max_wait)

    def begin(self) -> None:
        """Begin a transaction; the first call fences older producers of the transactional id."""
        if self._options.changed():
            self._renew()
        if not self._initialised:
            self._patiently(self._kafka.init_transactions)
            self._initialised = True
        try:
            self._kafka.begin_transaction()
        except KafkaException as error:
            self._raise(error.args[0], f"transactional id {self._id}")
        self._open = True

    def _patiently(
        self, call: Callable[..., Any], *arguments: Any, patience: float = math.inf
    ) -> None:
        """A call of a transaction, again and again in short waits until it is through."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            try:
                call(*arguments, STEP_SECONDS)
            except KafkaException as error:
                if not error.args[0].retriable():
                    self._raise(error.args[0], f"transactional id {self._id}")
                self._kafka.poll(0)
            else:
                return

    def commit(self, offsets: Mapping[Partition, int], group: str, metadata: str) -> None:
        """Flush, add offsets of a consumer group to the transaction, and commit both."""
        self.flush()
        if offsets:
            wanted = [TopicPartition(*p, offset, metadata) for p, offset in offsets.items()]
            self._patiently(
                self._kafka.send_offsets_to_transaction, wanted, self._group_metadata(group)
            )
        self._patiently(self._kafka.commit_transaction)
        self._open = False

    def _group_metadata(self, group: str) -> object:
        """The library makes it from a consumer alone; this one never fetches."""
        if group in self._groups:
            return self._groups[group]
        consumer = LibraryConsumer(
            _settings(self._connection, self._options) | {"group.id": group, "logger": _library_log}
        )
        try:
            self._groups[group] = consumer.consumer_group_metadata()
        finally:
            _closed(consumer)
        return self._groups[group]

    def abort(self) -> None:
        """Give up the transaction that is open, if one is."""
        if not self._open:
            return
        self._open = False
        self._kafka.purge()
        try:
            self._patiently(self._kafka.abort_transaction, patience=ABORT_SECONDS)
        finally:
            self._kafka.poll(0)
            self._failure = None

    def _renew(self) -> None:
        """A client with the secrets as they are now; the old one stays where none answers."""
        self.flush()
        before, self._options = self._options, Options(self._connection.options, OURS)
        try:
            self._kafka = self._made()
        except BrokerError as error:
            self._options = before
            _log.warning("kafka: the new credentials are not taken yet: %s", error)
        else:
            self._initialised = False

    def close(self) -> None:
        """Close without waiting for what is in flight; may be called twice."""
        self._kafka.purge()
        self._kafka.flush(0)


class Admin:
    """AdminClient. See `wire.Admin`."""

    def __init__(self, connection: Connection) -> None:
        options = Options(connection.options, OURS)
        self._kafka = _made(AdminClient, connection, options, _Heard(), {})

    def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        """Make a topic; nothing happens where it is there with as many partitions."""
        new = NewTopic(topic, partitions, config=dict(config))
        try:
            self._kafka.create_topics([new])[topic].result(START_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                _refuse(error.args[0], topic)
        there = _count(self._kafka, topic, START_SECONDS)
        if there != partitions:
            raise BrokerError(f"kafka: {topic}: is there with {there} partitions, not {partitions}")

    def extend(self, topic: str, partitions: int) -> None:
        """Add partitions to a topic: so many it has then."""
        self._done(topic, self._kafka.create_partitions([NewPartitions(topic, partitions)]))

    def delete(self, topic: str) -> None:
        """Delete a topic."""
        self._done(topic, self._kafka.delete_topics([topic]))

    def delete_records(self, before: Mapping[Partition, int]) -> None:
        """Delete records before an offset of each partition."""
        wanted = [TopicPartition(*partition, offset) for partition, offset in before.items()]
        self._done(named(before), self._kafka.delete_records(wanted))

    @staticmethod
    def _done(what: str, futures: Mapping[Any, Any]) -> None:
        for future in futures.values():
            try:
                future.result(START_SECONDS)
            except KafkaException as error:
                _refuse(error.args[0], what)

    def close(self) -> None:
        """Close the connection."""


class _Confluent:
    """confluent-kafka. See `wire.Client`."""

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
        from streamlearn.connectors.kafka.member_confluent import Member

        return Member(connection, group)

    def admin(self, connection: Connection) -> wire.Admin:
        """For topics."""
        return Admin(connection)


CLIENT = _Confluent()
