"""The helpers of these tests: what is sent is what is read back."""

from collections.abc import Callable

from tests.kafka.broker import Broker, Got, Sent, consume, produce


def test_what_is_produced_is_consumed(broker: Broker, topic: Callable[..., str]) -> None:
    name = topic(2)
    records = [Sent(b"%d" % i, b"k", 1_700_000_000_000 + i, [("h", b"x")], i % 2) for i in range(6)]
    produce(broker, name, records)
    assert consume(broker, name) == [
        Got(p, i, b"%d" % (2 * i + p), b"k", 1_700_000_000_000 + 2 * i + p, [("h", b"x")])
        for p in (0, 1)
        for i in range(3)
    ]
