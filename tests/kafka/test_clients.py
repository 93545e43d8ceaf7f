"""Both client libraries against the broker: the same behaviour, one set of tests."""

import time
from collections.abc import Callable

import numpy as np

from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.wire import Connection, Consumer, Fetched, Outgoing
from tests.kafka.broker import Broker, Got, Sent, consume, produce

Topic = Callable[..., str]


def fetched(consumer: Consumer, n: int, seconds: float = 20.0) -> list[Fetched]:
    """Blocks with n records in all."""
    blocks: list[Fetched] = []
    end = time.monotonic() + seconds
    while sum(len(block.offsets) for block in blocks) < n and time.monotonic() < end:
        blocks += consumer.fetch(4096, 0.2)
    return blocks


def opened(connection: Connection, group: str | None = None) -> Consumer:
    client = client_named(connection.client)
    return client.consumer(connection, group=group, keys=True, headers=True)


def test_columns_are_what_was_sent(broker: Broker, connection: Connection, topic: Topic) -> None:
    name = topic(2)
    start = 1_700_000_000_000
    records = [
        Sent(b"%d" % i, None if i % 4 == 0 else b"k%d" % i, start + i, [("h", b"x")], i % 2)
        for i in range(100)
    ]
    produce(broker, name, [*records, Sent(None, b"gone", start, (), 0)])
    consumer = opened(connection)
    assert not consumer.caught_up((name, 0))
    assert consumer.end((name, 0)) is None
    consumer.assign({(name, 0): 10, (name, 1): 0})
    blocks = fetched(consumer, 91)
    for number, first, n in ((0, 10, 41), (1, 0, 50)):
        mine = [block for block in blocks if block.partition == (name, number)]
        offsets = np.concatenate([block.offsets for block in mine])
        np.testing.assert_array_equal(offsets, np.arange(first, first + n))
        values = [value for block in mine for value in block.values]
        assert values[:40] == [b"%d" % (2 * i + number) for i in range(first, first + 40)]
        times = np.concatenate([block.times for block in mine])
        sent = (start + 2 * np.arange(first, first + 40) + number) * 1_000_000
        np.testing.assert_array_equal(times[:40], sent)
        assert [key for block in mine for key in block.keys or []][:4] == (
            [None if (2 * i) % 4 == 0 else b"k%d" % (2 * i) for i in range(first, first + 4)]
            if number == 0
            else [b"k%d" % (2 * i + 1) for i in range(first, first + 4)]
        )
        assert next(h for block in mine for h in block.headers or []) == [("h", b"x")]
    last = [block for block in blocks if block.partition == (name, 0)][-1]
    assert last.values[-1] is None
    assert (last.keys or [])[-1] == b"gone"
    assert consumer.fetch(100, 0.3) == []
    assert consumer.caught_up((name, 0))
    assert consumer.caught_up((name, 1))
    assert consumer.end((name, 0)) == 51
    assert consumer.connected
    consumer.close()
    consumer.close()


def test_what_is_sent_is_what_any_reader_gets(
    broker: Broker, connection: Connection, topic: Topic
) -> None:
    name = topic(2)
    producer = client_named(connection.client).producer(
        connection, transactional_id=None, max_in_flight=10
    )
    assert producer.partitions(name, 5.0) == 2
    times = np.arange(1_700_000_000_000, 1_700_000_000_100) * 1_000_000
    producer.send(
        Outgoing(
            name,
            [b"%d" % i for i in range(100)],
            [b"k"] * 100,
            [[("a", b"1"), ("a", b"2")]] * 100,
            [i % 2 for i in range(100)],
            times,
        )
    )
    producer.flush()
    assert producer.in_flight == 0
    assert producer.connected
    producer.close()
    producer.close()
    assert consume(broker, name) == [
        Got(
            p,
            i,
            b"%d" % (2 * i + p),
            b"k",
            1_700_000_000_000 + 2 * i + p,
            [("a", b"1"), ("a", b"2")],
        )
        for p in (0, 1)
        for i in range(50)
    ]
