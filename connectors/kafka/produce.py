"""Plays a file into a topic: at the pace of its own times, a multiple of it, or at once."""

import time as clocks
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streamlearn.block import NO_TIME
from streamlearn.connectors.file_records import Records, json_records
from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.wire import Client, Connection, Outgoing
from streamlearn.errors import UserError

_SLICE = 0.05  # seconds: a paced run sleeps no longer at once, so that a signal is heard
_MOST = 4096  # records handed to the client at once
_PATIENCE = 10.0  # seconds for a broker to answer at the start


class Played(NamedTuple):
    """What was sent, and acknowledged by the broker."""

    records: int
    partitions: int
    seconds: float


def pace_of(text: str) -> float:
    """How much faster than the file's own times: realtime is 1, max is infinite.

    >>> [pace_of(text) for text in ("realtime", "60", "max")]
    [1.0, 60.0, inf]
    """
    named = {"realtime": 1.0, "max": float("inf")}
    try:
        factor = named[text] if text in named else float(text)
    except ValueError:
        factor = 0.0
    if not factor > 0:
        raise UserError(f"pace: must be realtime, max or a factor > 0, got {text!r}")
    return factor


def produce(
    location: str | Path,
    topic: str,
    connection: Connection,
    *,
    pace: str = "max",
    time: str | None = None,
    key: str | None = None,
    unit: str = "s",
    partitions: int | None = None,
    limit: int | None = None,
    client: Client | None = None,
    clock: Callable[[], float] = clocks.monotonic,
    sleep: Callable[[float], None] = clocks.sleep,
) -> Played:
    """Send the records of a file to a topic, as JSON, in their order; returns when all are there.

    Args:
        location, key, time, unit: as of `json_records`. The key chooses the partition; records
            without one go round. Records carry the time in whole milliseconds, or that of sending.
        pace: `realtime`, a factor by which it is faster (60: a minute in a second), or `max`. All
            but max need `time`; a record whose time lies before that of another goes with it.
        partitions: make the topic with so many where it is not there; with `time` its records are
            kept for ever (retention.ms=-1), or a broker would delete those that look old.
        limit: records at most. client: instead of the one that `connection` names.
        clock, sleep: exchangeable in tests.

    Raises: UserError for what is wrong with the file or an argument; BrokerError for a topic that
        is not there, and what the broker refuses.
    """
    factor = pace_of(pace)
    if factor != float("inf") and time is None:
        raise UserError(f"pace: {pace} goes by the times of the records; name their column (time)")
    used = client_named(connection.client) if client is None else client
    pieces = json_records(location, key=key, time=time, unit=unit)
    if limit is not None:
        pieces = _first(pieces, limit)
    if partitions is not None:
        _make(used, connection, topic, partitions, lasting=time is not None)
    started = clock()
    producer = used.producer(connection, transactional_id=None, max_in_flight=10_000)
    try:
        n_partitions = producer.partitions(topic, _PATIENCE)
        n = 0
        try:
            for part in _paced(_sliced(pieces), factor, clock, sleep):
                producer.send(_outgoing(topic, part))
                n += len(part.values)
        finally:
            producer.flush()
    finally:
        producer.close()
    return Played(n, n_partitions, clock() - started)


def _make(client: Client, connection: Connection, topic: str, n: int, lasting: bool) -> None:
    if n < 1:
        raise UserError(f"partitions: must be >= 1, got {n}")
    admin = client.admin(connection)
    try:
        admin.create(topic, n, {"retention.ms": "-1"} if lasting else {})
    finally:
        admin.close()


def _outgoing(topic: str, part: Records) -> Outgoing:
    return Outgoing(topic, part.values, part.keys, None, None, part.times)


def _part(piece: Records, start: int, stop: int) -> Records:
    keys = None if piece.keys is None else piece.keys[start:stop]
    times = None if piece.times is None else piece.times[start:stop]
    return Records(piece.values[start:stop], keys, times)


def _sliced(pieces: Iterable[Records]) -> Iterator[Records]:
    for piece in pieces:
        for start in range(0, len(piece.values), _MOST):
            yield _part(piece, start, start + _MOST)


def _first(pieces: Iterable[Records], limit: int) -> Iterator[Records]:
    for piece in pieces:
        yield _part(piece, 0, limit)
        limit -= len(piece.values)
        if limit <= 0:
            return


def _paced(
    pieces: Iterable[Records],
    factor: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Records]:
    """The pieces, each record when its time has come."""
    if factor == float("inf"):
        yield from pieces
        return
    began = clock()
    first: int | None = None
    latest = NO_TIME
    for piece in pieces:
        assert piece.times is not None
        first = int(piece.times[0]) if first is None else first
        latest_so_far = np.maximum(np.maximum.accumulate(piece.times), latest)
        latest = int(latest_so_far[-1])
        due = (latest_so_far - first) / 1e9 / factor
        at = 0
        while at < len(piece.values):
            there = int(np.searchsorted(due, clock() - began, side="right"))
            if there > at:
                yield _part(piece, at, there)
                at = there
            else:
                sleep(min(float(due[at]) - (clock() - began), _SLICE))
