"""Both client libraries when things go wrong: outages, signals, refusals, wrong options."""

import signal
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.wire import (
    AbortedError,
    AwayError,
    BrokerError,
    Connection,
    FencedError,
    Outgoing,
)
from streamlearn.errors import UserError
from tests.kafka.broker import Broker, consume, create, free_port
from tests.kafka.test_clients import fetched, out, until


def test_an_outage_is_waited_for(our_broker: Broker, connection: Connection) -> None:
    """Nothing is lost, in flight stays bounded, and both clients know that the broker is away."""
    name = create(our_broker, f"t-{uuid.uuid4().hex[:12]}")
    client = client_named(connection.client)
    producer = client.producer(connection, transactional_id=None, max_in_flight=50)
    consumer = client.consumer(connection, group=None, keys=False, headers=False)
    consumer.assign({(name, 0): 0})
    producer.send(out(name, [b"before"]))
    producer.flush()
    assert [block.values for block in fetched(consumer, 1)] == [[b"before"]]
    values: list[bytes | None] = [b"%d" % i for i in range(200)]
    sending = threading.Thread(target=lambda: producer.send(out(name, values)))
    with our_broker.away():
        sending.start()
        until(lambda: producer.in_flight == 50)
        until(lambda: consumer.fetch(100, 0.1) == [] and not consumer.connected)
        assert sending.is_alive()
        assert producer.in_flight == 50
        with pytest.raises(BrokerError, match="no broker answers in time"):
            consumer.ends([(name, 0)], 0.2)
    sending.join(30)
    assert not sending.is_alive()
    producer.flush()
    assert [value for block in fetched(consumer, 200) for value in block.values] == values
    until(lambda: consumer.fetch(1, 0.1) == [] and consumer.connected and producer.connected)
    producer.close()
    consumer.close()


def test_a_broker_that_was_away_is_asked_again(
    our_broker: Broker, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look for a topic has no answer, though the broker is back right after."""
    name = create(our_broker, f"t-{uuid.uuid4().hex[:12]}")
    producer = client_named(connection.client).producer(
        connection, transactional_id=None, max_in_flight=50
    )
    answer, silences = producer.partitions, [AwayError("silent")]

    def partitions(topic: str, max_wait: float) -> int:
        if silences:
            raise silences.pop()
        return answer(topic, max_wait)

    monkeypatch.setattr(producer, "partitions", partitions)
    producer.send(out(name, [b"x"]))
    producer.flush()
    assert [got.value for got in consume(our_broker, name)] == [b"x"]
    with pytest.raises(BrokerError, match="no such topic"):
        producer.send(out("nowhere", [b"x"]))
    producer.close()


def test_a_signal_ends_a_wait(our_broker: Broker, connection: Connection) -> None:
    """A handler raises within a wait for a broker that is away: send, flush, fetch."""
    name = create(our_broker, f"t-{uuid.uuid4().hex[:12]}")
    client = client_named(connection.client)
    producer = client.producer(connection, transactional_id=None, max_in_flight=5)
    producer.send(out(name, [b"x"]))
    producer.flush()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:  # again and again: an exception that hits a destructor is swallowed
        with our_broker.away():
            waits: list[Callable[[], None]] = [
                lambda: producer.send(out(name, [b"x"] * 20)),
                producer.flush,
            ]
            for wait in waits:
                signal.setitimer(signal.ITIMER_REAL, 0.3, 0.3)
                with pytest.raises(KeyboardInterrupt):
                    wait()
                signal.setitimer(signal.ITIMER_REAL, 0)
            began = time.monotonic()
            producer.close()
            assert time.monotonic() - began < 10
    finally:
        signal.signal(signal.SIGALRM, before)


def test_closing_does_not_wait_for_a_broker_that_is_away(
    our_broker: Broker, connection: Connection
) -> None:
    name, client = create(our_broker, f"t-{uuid.uuid4().hex[:12]}"), client_named(connection.client)
    producer = client.producer(connection, transactional_id=None, max_in_flight=50)
    consumer = client.consumer(connection, group="g", keys=False, headers=False)
    consumer.assign({(name, 0): 0})
    producer.send(out(name, [b"x"]))
    fetched(consumer, 1)
    with our_broker.away():
        producer.send(out(name, [b"x"]))
        consumer.commit({(name, 0): 1}, "")
        consumer.fetch(1, 0.0)
        began = time.monotonic()
        consumer.close()
        producer.close()
        assert time.monotonic() - began < 15


def test_an_abort_does_not_wait_for_a_broker_that_is_away(
    our_broker: Broker, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = create(our_broker, f"t-{uuid.uuid4().hex[:12]}")
    client = client_named(connection.client)
    module = client.__module__
    monkeypatch.setattr(f"{module}.ABORT_SECONDS", 0.5)
    producer = client.producer(connection, transactional_id=f"tx-{name}", max_in_flight=50)
    producer.begin()
    producer.send(out(name, [b"x"]))
    producer.flush()
    with our_broker.away():
        began = time.monotonic()
        producer.abort()
        producer.close()
        assert time.monotonic() - began < 10
    second = client.producer(connection, transactional_id=f"tx-{name}", max_in_flight=50)
    second.begin()
    second.send(out(name, [b"y"]))
    second.commit({}, "g", "")
    second.close()
    assert [got.value for got in consume(our_broker, name)] == [b"y"]


def test_a_broker_that_is_restarted(our_broker: Broker, connection: Connection) -> None:
    name = create(our_broker, f"t-{uuid.uuid4().hex[:12]}")
    client = client_named(connection.client)
    producer = client.producer(connection, transactional_id=None, max_in_flight=50)
    consumer = client.consumer(connection, group=None, keys=False, headers=False)
    consumer.assign({(name, 0): 0})
    producer.send(out(name, [b"before"]))
    producer.flush()
    assert [block.values for block in fetched(consumer, 1)] == [[b"before"]]
    our_broker.stop()
    our_broker.start()
    producer.send(out(name, [b"after"]))
    producer.flush()
    assert [block.values for block in fetched(consumer, 1)] == [[b"after"]]
    producer.close()
    consumer.close()


START_OPTIONS: dict[str, dict[str, object]] = {
    "kafka-python": {"bootstrap_timeout_ms": 300},
    "confluent": {},
}


def test_no_broker_at_the_start(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Connection(f"127.0.0.1:{free_port()}", client, START_OPTIONS[client])
    found = client_named(client)
    if client == "confluent":
        from streamlearn.connectors.kafka import confluent

        monkeypatch.setattr(confluent, "START_SECONDS", 0.3)
    for make in (
        lambda: found.consumer(nowhere, group=None, keys=False, headers=False),
        lambda: found.producer(nowhere, transactional_id=None, max_in_flight=1),
        lambda: found.admin(nowhere),
    ):
        with pytest.raises(BrokerError) as raised:
            make()
        assert str(raised.value).startswith(f"kafka: {nowhere.bootstrap} (")
        assert "no broker answers in time; is it up" in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nonsense": 1}, r"^options\.nonsense: .* has no such option"),
        ({"enable_auto_commit": True, "enable.auto.commit": True}, "is set by streamlearn"),
        ({"sasl_plain_password": "${env:NOT_SET_ANYWHERE}"}, "variable NOT_SET_ANYWHERE is not"),
    ],
)
def test_options_are_checked(client: str, options: dict[str, object], message: str) -> None:
    """Before any broker is asked: nothing listens there."""
    nowhere = Connection("127.0.0.1:1", client, options)
    found = client_named(client)
    for make in (
        lambda: found.consumer(nowhere, group=None, keys=False, headers=False),
        lambda: found.producer(nowhere, transactional_id=None, max_in_flight=1),
        lambda: found.admin(nowhere),
    ):
        with pytest.raises(UserError, match=message):
            make()


def test_a_misspelt_option_is_named_with_the_right_one() -> None:
    with pytest.raises(
        UserError, match=r"^options\.security_protocoll: .* mean security_protocol\?"
    ):
        client_named("kafka-python").admin(
            Connection("127.0.0.1:1", options={"security_protocoll": "SSL"})
        )


def test_a_record_that_is_too_large_is_refused(our_broker: Broker, connection: Connection) -> None:
    name = create(our_broker, f"t-{uuid.uuid4().hex[:12]}")
    producer = client_named(connection.client).producer(
        connection, transactional_id=None, max_in_flight=10
    )
    producer.send(out(name, [b"x" * 3_000_000]))
    with pytest.raises(BrokerError, match=f"^kafka: {name}: a record is larger than the broker"):
        producer.flush()
    producer.close()


@pytest.mark.parametrize("key", [b"", b"a", b"ab", b"abc", b"abcd", b"key-17", b"\xff" * 9])
def test_keys_choose_as_javas_client_does(
    our_broker: Broker, connection: Connection, key: bytes
) -> None:
    name = create(our_broker, f"t-{uuid.uuid4().hex[:12]}", 7)
    producer = client_named(connection.client).producer(
        connection, transactional_id=None, max_in_flight=10
    )
    producer.send(Outgoing(name, [b"x", b"y"], [key, key], None, None))
    producer.flush()
    producer.close()
    assert [got.partition for got in consume(our_broker, name)] == [murmur2(key) % 7] * 2


def murmur2(data: bytes) -> int:
    """MurmurHash2 with Kafka's seed and mask, after the reference by Austin Appleby."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


# Permission errors, fencing and aborted transactions: errors injected where the library raises.


class Refusing:
    """The library's object, but one of its methods raises."""

    def __init__(self, library: object, method: str, error: Exception) -> None:
        self._library = library
        setattr(self, method, self._raise)
        self._error = error

    def _raise(self, *_: object, **__: object) -> NoReturn:
        raise self._error

    def __getattr__(self, name: str) -> object:
        return getattr(self._library, name)

    def __len__(self) -> int:
        return len(self._library)  # type: ignore[arg-type]


def injected(client: str, name: str, *, fatal: bool = False, abort: bool = False) -> Exception:
    """A library's error by the name that the protocol gives it."""
    if client == "kafka-python":
        client_named(client)  # imports the library without its deprecations
        from kafka import errors as kafka_errors

        return {  # type: ignore[no-any-return]
            "TOPIC_AUTHORIZATION_FAILED": kafka_errors.TopicAuthorizationFailedError({"t"}),
            "GROUP_AUTHORIZATION_FAILED": kafka_errors.GroupAuthorizationFailedError("g"),
            "PRODUCER_FENCED": kafka_errors.ProducerFencedError(),
            "INVALID_PRODUCER_EPOCH": kafka_errors.InvalidProducerEpochError(),
            "INVALID_TXN_STATE": kafka_errors.InvalidTxnStateError(),
        }[name]
    code = KafkaError._FENCED if name == "PRODUCER_FENCED" else getattr(KafkaError, name)
    return KafkaException(KafkaError(code, name, fatal, False, abort))


METHODS = {
    "kafka-python": {"fetch": "poll", "ends": "end_offsets"},
    "confluent": {"fetch": "consume", "ends": "offsets_for_times"},
}


@pytest.mark.parametrize("method", ["fetch", "ends"])
def test_a_right_that_lacks(
    broker: Broker, topic: Callable[..., str], connection: Connection, method: str
) -> None:
    name, client = topic(), connection.client
    consumer: Any = client_named(client).consumer(connection, group=None, keys=False, headers=False)
    consumer.assign({(name, 0): 0})
    error = injected(client, "TOPIC_AUTHORIZATION_FAILED")
    library, consumer._kafka = (
        consumer._kafka,
        Refusing(consumer._kafka, METHODS[client][method], error),
    )
    with pytest.raises(BrokerError, match=f"^kafka: {name}/0: the broker gives no right to it"):
        consumer.fetch(1, 0.0) if method == "fetch" else consumer.ends([(name, 0)], 1.0)
    consumer._kafka = library
    consumer.close()


@pytest.mark.parametrize("method", ["send_offsets_to_transaction", "commit_transaction"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("PRODUCER_FENCED", FencedError),
        ("GROUP_AUTHORIZATION_FAILED", BrokerError),
        ("INVALID_PRODUCER_EPOCH", AbortedError),
        ("INVALID_TXN_STATE", AbortedError),
    ],
)
def test_a_commit_that_fails(
    broker: Broker,
    topic: Callable[..., str],
    connection: Connection,
    method: str,
    name: str,
    kind: type[Exception],
) -> None:
    where, client = topic(), connection.client
    producer: Any = client_named(client).producer(
        connection, transactional_id=f"tx-{where}", max_in_flight=10
    )
    producer.begin()
    producer.send(out(where, [b"x"]))
    error = injected(client, name, fatal=kind is FencedError, abort=kind is AbortedError)
    library, producer._kafka = producer._kafka, Refusing(producer._kafka, method, error)
    with pytest.raises(kind, match=rf"^kafka: transactional id tx-{where}: ") as raised:
        producer.commit({(where, 0): 1}, "g", "")
    assert type(raised.value) is kind
    producer._kafka = library
    producer.abort()
    producer.close()
    assert consume(broker, where) == []
