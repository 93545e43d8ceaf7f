"""Both client libraries against the broker, and the double in memory: one behaviour, one test."""

import time
import uuid
from collections.abc import Callable

import numpy as np
import pytest

from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.wire import (
    BrokerError,
    Committed,
    Consumer,
    Fetched,
    Headers,
    Outgoing,
)
from tests.kafka.broker import Got, Sent
from tests.kafka.conftest import World

START = 1_700_000_000_000  # ms


def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns when it is done; a test fails that waits too long."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not done after {seconds} s"


def fetched(consumer: Consumer, n: int) -> list[Fetched]:
    """Blocks with n records in all."""
    blocks: list[Fetched] = []

    def enough() -> bool:
        blocks.extend(consumer.fetch(4096, 0.1))
        return sum(len(block.offsets) for block in blocks) >= n

    until(enough)
    return blocks


def to_the_end(consumer: Consumer, *partitions: tuple[str, int]) -> list[bytes | None]:
    """Values up to where the consumer says that it has caught up."""
    values: list[bytes | None] = []

    def caught_up() -> bool:
        values.extend(value for block in consumer.fetch(4096, 0.1) for value in block.values)
        return all(map(consumer.caught_up, partitions))

    until(caught_up)
    return values


def out(topic: str, values: list[bytes | None], number: int | None = 0) -> Outgoing:
    numbers = None if number is None else [number] * len(values)
    return Outgoing(topic, values, None, None, numbers)


def test_columns_are_what_was_sent(world: World) -> None:
    name = world.topic(2)
    keys = [None if i % 3 == 0 else b"k%d" % i for i in range(100)]
    headers: list[Headers] = [[("h", b"%d" % i), ("n", None)] if i % 2 else [] for i in range(100)]
    world.produce(
        name,
        [Sent(b"%d" % i, keys[i], START + i, headers[i], i // 60) for i in range(100)],
    )
    world.produce(name, [Sent(None, b"gone", START, (), 1)])
    consumer = world.consumer()
    assert not consumer.caught_up((name, 0))
    assert consumer.end((name, 0)) is None
    consumer.assign({(name, 0): 10, (name, 1): 0})
    blocks = fetched(consumer, 91)
    for number, first, start, n in ((0, 10, 10, 50), (1, 0, 60, 40)):
        mine = [block for block in blocks if block.partition == (name, number)]
        offsets = np.concatenate([block.offsets for block in mine])
        np.testing.assert_array_equal(offsets, np.arange(first, first + n + number))
        times = np.concatenate([block.times for block in mine])[:n]
        np.testing.assert_array_equal(times, (START + np.arange(start, start + n)) * 1_000_000)
        assert [value for block in mine for value in block.values][:n] == [
            b"%d" % i for i in range(start, start + n)
        ]
        assert [key for block in mine for key in block.keys or []][:n] == keys[start : start + n]
        found = [found for block in mine for found in block.headers or []][:n]
        assert found == headers[start : start + n]
    last = [block for block in blocks if block.partition == (name, 1)][-1]
    assert last.values[-1] is None
    assert (last.keys or [])[-1] == b"gone"
    assert to_the_end(consumer, (name, 0), (name, 1)) == []
    assert (consumer.end((name, 0)), consumer.end((name, 1))) == (60, 41)
    assert consumer.connected


def test_records_come_after_the_end_was_reached(world: World) -> None:
    name = world.topic()
    consumer = world.consumer()
    consumer.assign({(name, 0): 0})
    assert to_the_end(consumer, (name, 0)) == []
    for i in range(3):
        world.produce(name, [Sent(b"%d" % i, time=START)])
        assert [block.values for block in fetched(consumer, 1)] == [[b"%d" % i]]
        assert to_the_end(consumer, (name, 0)) == []
    assert consumer.end((name, 0)) == 3


def test_caught_up_is_not_said_while_more_is_there(world: World) -> None:
    """In the middle of what came after an end, and when a partition goes on after a pause."""
    name = world.topic()
    consumer = world.consumer()
    consumer.assign({(name, 0): 0})
    assert to_the_end(consumer, (name, 0)) == []
    world.produce(name, [Sent(b"%d" % i, time=START) for i in range(500)])
    seen = 0
    while seen < 400:
        seen += sum(len(block.offsets) for block in consumer.fetch(10, 0.1))
        assert seen == 0 or not consumer.caught_up((name, 0))
    assert len(to_the_end(consumer, (name, 0))) == 500 - seen
    consumer.pause([(name, 0)])
    world.produce(name, [Sent(b"later", time=START)])
    consumer.resume([(name, 0)])
    assert b"later" in [value for block in fetched(consumer, 1) for value in block.values]
    assert to_the_end(consumer, (name, 0)) == []


def test_assigning_again_goes_to_the_new_positions(world: World) -> None:
    name = world.topic(2)
    world.produce(name, [Sent(b"%d" % i, time=START, partition=i % 2) for i in range(20)])
    consumer = world.consumer()
    consumer.assign({(name, 0): 0, (name, 1): 0})
    assert len(to_the_end(consumer, (name, 0), (name, 1))) == 20
    consumer.assign({(name, 0): 8})
    assert [list(block.offsets) for block in fetched(consumer, 2)] == [[8, 9]]
    consumer.assign({(name, 0): 8})
    assert [list(block.offsets) for block in fetched(consumer, 2)] == [[8, 9]]
    assert to_the_end(consumer, (name, 0)) == []
    assert consumer.end((name, 0)) == 10


def test_a_paused_partition_gives_nothing_until_it_is_resumed(world: World) -> None:
    name = world.topic(2)
    world.produce(name, [Sent(b"%d" % i, time=START, partition=i % 2) for i in range(20)])
    consumer = world.consumer()
    consumer.assign({(name, 0): 0, (name, 1): 0})
    consumer.pause([(name, 0)])
    blocks = fetched(consumer, 10)
    assert {block.partition for block in blocks} == {(name, 1)}
    assert consumer.fetch(100, 0.3) == []
    consumer.resume([(name, 0)])
    again = fetched(consumer, 10)
    assert [(b.partition, o) for b in again for o in b.offsets] == [
        ((name, 0), i) for i in range(10)
    ]


def test_pausing_in_the_middle_loses_and_repeats_nothing(world: World) -> None:
    name = world.topic(2)
    world.produce(name, [Sent(b"%d" % i, time=START, partition=i % 2) for i in range(2000)])
    consumer = world.consumer()
    consumer.assign({(name, 0): 0, (name, 1): 0})
    seen: dict[tuple[str, int], list[int]] = {(name, 0): [], (name, 1): []}

    def step() -> bool:
        for block in consumer.fetch(70, 0.1):
            seen[block.partition].extend(block.offsets.tolist())
            number = block.partition[1]
            consumer.pause([(name, number)])
            consumer.resume([(name, 1 - number)])
        consumer.resume([(name, 0), (name, 1)])
        return all(map(consumer.caught_up, seen))

    until(step)
    assert seen == {(name, 0): list(range(1000)), (name, 1): list(range(1000))}


def test_offsets_by_time_beginnings_ends_and_counts(world: World) -> None:
    name = world.topic(2)
    world.produce(name, [Sent(b"x", time=START + 10 * i, partition=0) for i in range(5)])
    consumer = world.consumer()
    both = [(name, 0), (name, 1)]
    assert consumer.partitions(name, 5.0) == 2
    assert consumer.beginnings(both, 5.0) == {(name, 0): 0, (name, 1): 0}
    assert consumer.ends(both, 5.0) == {(name, 0): 5, (name, 1): 0}
    for time_ns, offset in (
        (0, 0),
        (START * 1_000_000, 0),
        (START * 1_000_000 + 1, 1),
        ((START + 25) * 1_000_000, 3),
        ((START + 40) * 1_000_000, 4),
        ((START + 41) * 1_000_000, 5),
    ):
        assert consumer.at_time(both, time_ns, 5.0) == {(name, 0): offset, (name, 1): 0}


def test_deleted_records_and_positions_past_the_end(world: World) -> None:
    name = world.topic()
    world.produce(name, [Sent(b"x", time=START) for _ in range(10)])
    admin = client_named(world.name).admin(world.connection)
    admin.delete_records({(name, 0): 4})
    admin.close()
    consumer = world.consumer()
    assert consumer.beginnings([(name, 0)], 5.0) == {(name, 0): 4}
    for offset in (2, 11):
        consumer.assign({(name, 0): offset})
        with pytest.raises(BrokerError) as raised:
            fetched(consumer, 1)
        assert str(raised.value) == (
            f"kafka: {name}/0: offset {offset} is not there; it holds 4 to 10"
        )
    consumer.assign({(name, 0): 4})
    assert len(to_the_end(consumer, (name, 0))) == 6


def test_topics_are_made_extended_and_deleted(world: World) -> None:
    name = f"t-{uuid.uuid4().hex[:12]}"
    admin = client_named(world.name).admin(world.connection)
    admin.create(name, 2, {"retention.ms": "-1"})
    admin.create(name, 2, {"retention.ms": "-1"})
    with pytest.raises(BrokerError, match=f"^kafka: {name}: is there with 2 partitions, not 3$"):
        admin.create(name, 3, {})
    consumer = world.consumer()
    assert consumer.partitions(name, 5.0) == 2
    admin.extend(name, 3)
    until(lambda: consumer.partitions(name, 5.0) == 3)
    world.produce(name, [Sent(b"x", time=START, partition=2)])
    consumer.assign({(name, 2): 0})
    assert to_the_end(consumer, (name, 2)) == [b"x"]
    admin.delete(name)
    admin.close()
    with pytest.raises(BrokerError, match=f"^kafka: {name}: the topic is gone from the broker$"):
        until(lambda: bool(consumer.fetch(1, 0.1)))


def test_a_topic_that_is_not_there(world: World) -> None:
    for asked in (world.consumer(), world.producer()):
        with pytest.raises(BrokerError, match=r"^kafka: nowhere: there is no such topic$"):
            asked.partitions("nowhere", 0.3)
    with pytest.raises(BrokerError, match=r"^kafka: nowhere: there is no such topic$"):
        world.producer().send(out("nowhere", [b"x"]))


def test_what_is_sent_is_what_any_reader_gets(world: World) -> None:
    name = world.topic(2)
    producer = world.producer(most=10)
    assert producer.partitions(name, 5.0) == 2
    headers: Headers = [("a", b"1"), ("a", b"2")]
    times = np.arange(START, START + 100) * 1_000_000
    producer.send(
        Outgoing(
            name,
            [b"%d" % i if i else None for i in range(100)],
            [b"k"] * 100,
            [headers] * 100,
            [i % 2 for i in range(100)],
            times,
        )
    )
    assert producer.in_flight <= 10
    producer.flush()
    assert producer.in_flight == 0
    assert producer.connected
    assert world.consume(name) == [
        Got(p, i, b"%d" % n if (n := 2 * i + p) else None, b"k", START + n, headers)
        for p in (0, 1)
        for i in range(50)
    ]


def test_a_time_that_is_not_given_is_the_clients(world: World) -> None:
    name = world.topic()
    producer = world.producer()
    producer.send(out(name, [b"x"]))
    producer.flush()
    assert world.consume(name)[0].time >= START


def test_a_record_that_cannot_go(world: World) -> None:
    name = world.topic(2)
    producer = world.producer()
    with pytest.raises(BrokerError, match=f"^kafka: {name}: a record needs a value or a key$"):
        producer.send(out(name, [None]))
    with pytest.raises(BrokerError, match=f"^kafka: {name}: there is no partition 2$"):
        producer.send(out(name, [b"x"], 2))
    producer.send(out(name, [b"y"], 1))
    producer.flush()
    assert [(got.partition, got.value) for got in world.consume(name)] == [(1, b"y")]


def test_commits_for_lag_monitors(world: World) -> None:
    name, group = world.topic(2), f"g-{uuid.uuid4().hex[:8]}"
    consumer = world.consumer(group)
    assert consumer.committed([(name, 0)], 5.0) == {}
    consumer.commit({(name, 0): 3}, "checkpoint=7")
    both = [(name, 0), (name, 1)]

    def there() -> bool:
        consumer.fetch(1, 0.05)
        return consumer.committed(both, 5.0) != {}

    until(there)
    assert consumer.committed(both, 5.0) == {(name, 0): Committed(3, "checkpoint=7")}
    other = world.consumer(group)
    assert other.committed(both, 5.0) == {(name, 0): Committed(3, "checkpoint=7")}


def test_a_commit_before_closing_counts(world: World) -> None:
    name, group = world.topic(), f"g-{uuid.uuid4().hex[:8]}"
    consumer = world.consumer(group)
    consumer.commit({(name, 0): 3}, "")
    consumer.close()
    assert world.consumer(group).committed([(name, 0)], 5.0) == {(name, 0): Committed(3, "")}


def test_a_transaction_is_seen_when_it_is_committed(world: World) -> None:
    name, group = world.topic(2), f"g-{uuid.uuid4().hex[:8]}"
    producer, consumer = world.producer(f"tx-{group}"), world.consumer(group)
    consumer.assign({(name, 0): 0, (name, 1): 0})
    both = [(name, 0), (name, 1)]
    for turn in range(2):
        producer.begin()
        producer.send(out(name, [b"%d" % turn], turn))
        producer.flush()
        assert to_the_end(consumer, *both) == []
        producer.commit({("input", 0): 10 * turn, ("input", 1): 5}, group, f"checkpoint={turn}")
        assert [block.values for block in fetched(consumer, 1)] == [[b"%d" % turn]]
        assert to_the_end(consumer, *both) == []  # a control record is the last one
        assert consumer.committed([("input", 0), ("input", 1)], 5.0) == {
            ("input", 0): Committed(10 * turn, f"checkpoint={turn}"),
            ("input", 1): Committed(5, f"checkpoint={turn}"),
        }
    assert consumer.ends(both, 5.0) == {(name, 0): 2, (name, 1): 2}
    assert (consumer.end((name, 0)), consumer.end((name, 1))) == (2, 2)


def test_what_is_aborted_is_never_seen(world: World) -> None:
    name = world.topic()
    producer, consumer = world.producer(f"tx-{name}"), world.consumer()
    producer.begin()
    producer.send(out(name, [b"no"] * 3))
    producer.flush()
    producer.abort()
    producer.abort()
    consumer.assign({(name, 0): 0})
    assert to_the_end(consumer, (name, 0)) == []
    assert consumer.end((name, 0)) == 4
    producer.begin()
    producer.send(out(name, [b"yes"]))
    producer.commit({}, "g", "")
    # noida-db tells of aborted transactions that lie before the position: read from the beginning
    consumer.assign({(name, 0): 0})
    assert to_the_end(consumer, (name, 0)) == [b"yes"]
    assert [got.value for got in world.consume(name)] == [b"yes"]
    assert len(world.consume(name, committed=False)) == 4


def test_the_next_writer_aborts_what_was_left_open(world: World) -> None:
    name = world.topic()
    first = world.producer(f"tx-{name}")
    first.begin()
    first.send(out(name, [b"left"]))
    first.flush()
    second = world.producer(f"tx-{name}")
    second.begin()
    second.send(out(name, [b"kept"]))
    second.commit({}, "g", "")
    assert [got.value for got in world.consume(name)] == [b"kept"]


def test_an_open_transaction_of_another_holds_the_end(world: World) -> None:
    """Caught up is up to the last stable offset; what lies behind it may still be aborted."""
    name = world.topic()
    producer, consumer = world.producer(f"tx-{name}"), world.consumer()
    world.produce(name, [Sent(b"before", time=START)])
    producer.begin()
    producer.send(out(name, [b"open"]))
    producer.flush()
    world.produce(name, [Sent(b"behind", time=START)])
    consumer.assign({(name, 0): 0})
    assert to_the_end(consumer, (name, 0)) == [b"before"]
    assert consumer.ends([(name, 0)], 5.0) == {(name, 0): 1}
    producer.commit({}, "g", "")
    found = [value for block in fetched(consumer, 2) for value in block.values]
    assert found == [b"open", b"behind"]


def test_a_record_of_three_megabytes(world: World) -> None:
    name, value = f"t-{uuid.uuid4().hex[:12]}", bytes(range(256)) * 12_288
    admin = client_named(world.name).admin(world.connection)
    admin.create(name, 1, {"max.message.bytes": "4000000"})
    admin.close()
    producer, consumer = world.producer(), world.consumer()
    producer.send(out(name, [b"before", value, b"after"]))
    producer.flush()
    consumer.assign({(name, 0): 0})
    assert to_the_end(consumer, (name, 0)) == [b"before", value, b"after"]


def test_records_without_a_key_are_spread(world: World) -> None:
    name = world.topic(2)
    producer = world.producer()
    for _ in range(200):
        producer.send(out(name, [b"x"], None))
        producer.flush()
    assert {got.partition for got in world.consume(name)} == {0, 1}
