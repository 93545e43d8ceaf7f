"""The first messages of topics, from which a schema is inferred."""

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.location import Topics
from streamlearn.connectors.kafka.wire import Consumer, Fetched, Partition
from streamlearn.errors import UserError

WAIT = 10.0  # seconds for a broker that does not answer


def sample_topics(topics: Topics, rows: int) -> dict[str, list[Any]]:
    """About the first rows of all partitions by column, None where a key is absent.

    Beside those of the values stand `$key`, `$timestamp` and the like. What is no JSON object is
    left out. Raises: UserError without a broker, a topic or a message, or for another format.
    """
    if topics.format.name != "json":
        raise UserError(
            f"{topics}: a schema can be inferred from JSON alone, got {topics.format.name}; "
            f"declare the schema"
        )
    client = client_named(topics.connection.client)
    consumer = client.consumer(topics.connection, group=None, keys=True, headers=True)
    try:
        found = list(_records(consumer, topics, rows))
    finally:
        consumer.close()
    if not found:
        raise UserError(f"{topics}: there is no message yet; produce some, or declare the schema")
    found.sort(key=lambda record: record[0])
    names = dict.fromkeys(name for _, record in found[:rows] for name in record)
    return {name: [record.get(name) for _, record in found[:rows]] for name in names}


def _records(consumer: Consumer, topics: Topics, rows: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Some messages at the beginning of every partition, each with its time."""
    partitions = [
        (name, number)
        for name in topics.names
        for number in topics.partitions or range(consumer.partitions(name, WAIT))
    ]
    first, ends = consumer.beginnings(partitions, WAIT), consumer.ends(partitions, WAIT)
    left = {p: min(rows, ends[p] - first[p]) for p in partitions if ends[p] > first[p]}
    consumer.assign({partition: first[partition] for partition in left})
    until = time.monotonic() + WAIT
    while left and time.monotonic() < until:
        for fetched in consumer.fetch(rows, 0.5):
            yield from _objects(fetched)
            if fetched.partition in left:
                left[fetched.partition] -= len(fetched.values)
        left = {p: n for p, n in left.items() if n > 0 and not consumer.caught_up(p)}


def _objects(fetched: Fetched) -> Iterator[tuple[int, dict[str, Any]]]:
    for i, value in enumerate(fetched.values):
        try:
            record = msgspec.json.decode(value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(record, dict):
            yield int(fetched.times[i]), record | _own(fetched, fetched.partition, i)


def _own(fetched: Fetched, partition: Partition, i: int) -> dict[str, Any]:
    """The columns of a record itself."""
    key = None if fetched.keys is None else fetched.keys[i]
    own: dict[str, Any] = {
        "$key": None if key is None else key.decode("utf-8", "replace"),
        "$timestamp": int(fetched.times[i]) // 1_000_000,
        "$topic": partition[0],
        "$partition": partition[1],
        "$offset": int(fetched.offsets[i]),
    }
    headers = [] if fetched.headers is None else fetched.headers[i]
    texts = {f"$header.{name}": (raw or b"").decode("utf-8", "replace") for name, raw in headers}
    return own | texts
