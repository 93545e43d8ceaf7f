"""The command: `python -m benchmarks.read_ahead [--events N] [--pairs P]`.

What it brings that the next piece is decoded in a thread while the pipeline runs: JSON with 8
features and the label, from records that are in memory as a client of Kafka gives them, through a
pipe, and from a topic of a broker on the same machine where there is one (the test broker of the
extra `dev`, or KAFKA_BOOTSTRAP). Each pair is a run that decodes ahead and one that does not, in an
order that is drawn; what one of a pair takes beside the other is a quotient, of which the median
and its 95 % interval are told. By the clock, that means something where a second core is free: on a
busy machine two threads get more of it than one. The processor time of the main thread says how
much of an event is left to it; not how long it waits for a decoding that holds the GIL.
"""

import argparse
import contextlib
import os
import random
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from benchmarks import kafka, machine
from benchmarks.live_page import Interval, interval
from benchmarks.tables import markdown
from streamlearn import ADWIN, KalmanClassifier, Normalizer, Pipeline
from streamlearn.connectors import _partitions
from streamlearn.connectors._partitions import Partition as Named
from streamlearn.connectors._partitions import PartitionedSource
from streamlearn.connectors.jsonl_files import open_pipe
from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka import source as topics
from streamlearn.connectors.kafka.location import LATEST, Topics
from streamlearn.connectors.kafka.wire import Connection, Fetched, Partition
from streamlearn.engine import Engine, frozen_objects
from streamlearn.evaluation import Evaluation
from streamlearn.merging import MergedEvents
from streamlearn.schema import Schema
from tests.kafka import broker as brokers

NAMES = ("wall", "main thread", "process")
Run = Callable[[], Engine]


class Took(NamedTuple):
    """Microseconds an event: by the clock, of the processor for the main thread, for all."""

    wall: float
    thread: float
    process: float


class Pair(NamedTuple):
    """A run that decodes ahead, and one that does not."""

    ahead: Took
    alone: Took


# -- records in memory -----------------------------------------------------------------------------


class _Held:
    """A client of one partition whose records are there; see `wire.Client`, `wire.Consumer`."""

    connected = True

    def __init__(self, sent: Sequence[brokers.Sent]) -> None:
        self._values: list[bytes | None] = [one.value for one in sent]
        self._keys = [one.key for one in sent]
        self._times = np.array([one.time for one in sent]) * 1_000_000
        self._at, self._paused = 0, False

    def consumer(self, connection: Connection, **asked: object) -> "_Held":
        return self

    def assign(self, positions: Mapping[Partition, int]) -> None:
        self._at, self._paused = next(iter(positions.values())), False

    def fetch(self, most: int, max_wait: float) -> list[Fetched]:
        start, stop = self._at, min(self._at + most, len(self._values))
        if self._paused or start == stop:
            return []
        self._at = stop
        part = slice(start, stop)
        offsets = np.arange(start, stop)
        return [
            Fetched(
                ("t", 0), offsets, self._times[part], self._values[part], self._keys[part], None
            )
        ]

    def pause(self, partitions: Sequence[Partition]) -> None:
        self._paused = self._paused or bool(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        self._paused = self._paused and not partitions

    def caught_up(self, partition: Partition) -> bool:
        return self._at == len(self._values)

    def end(self, partition: Partition) -> int:
        return len(self._values)

    def partitions(self, topic: str, max_wait: float) -> int:
        return 1

    def beginnings(self, asked: Sequence[Partition], max_wait: float) -> dict[Partition, int]:
        return dict.fromkeys(asked, 0)

    def ends(self, asked: Sequence[Partition], max_wait: float) -> dict[Partition, int]:
        return dict.fromkeys(asked, len(self._values))

    def close(self) -> None:
        """Nothing is open."""


# -- runs ------------------------------------------------------------------------------------------


def engine_of(source: Any) -> Engine:
    """A whole run over a source: prediction, learning, drift, metrics."""
    pipeline = Pipeline(Normalizer(), KalmanClassifier(), ADWIN())
    return Engine(source, pipeline, evaluation=Evaluation("classification"))


def from_topic(topic: str, connection: Connection, client: Any) -> Engine:
    """A run over what is in a topic now."""
    schema = Schema.from_config(kafka.SCHEMA)
    read = topics.KafkaSource(Topics(connection, (topic,), stop=LATEST), schema, client=client)
    return engine_of(MergedEvents(read, schema))


@contextlib.contextmanager
def piped(path: Path) -> Iterator[Callable[[], Engine]]:
    """Runs over a file that another process writes into a pipe, each time anew."""
    with ExitStack() as writers:

        def run() -> Engine:
            writer = writers.enter_context(subprocess.Popen(["cat", path], stdout=subprocess.PIPE))
            assert writer.stdout is not None
            descriptor, schema = writer.stdout.fileno(), Schema.from_config(kafka.SCHEMA)
            part = Named("-", lambda position: open_pipe(descriptor, schema, position))
            return engine_of(PartitionedSource(schema, [part], "-", "a pipe"))

        yield run


def took(run: Run, n: int, ahead: bool) -> Took:
    """What one run takes, from its first poll to its last metric."""
    with (
        mock.patch.object(_partitions, "second_core", return_value=ahead),
        mock.patch.object(topics, "second_core", return_value=ahead),
        contextlib.closing(run()) as engine,
        frozen_objects(),
    ):
        engine.begin()
        start = time.perf_counter(), time.thread_time(), time.process_time()
        while engine.step():
            pass
        stop = time.perf_counter(), time.thread_time(), time.process_time()
        assert engine.events == n, engine.events
    return Took(*((b - a) / n * 1e6 for a, b in zip(start, stop, strict=True)))


def pairs_of(run: Run, n: int, pairs: int, draw: random.Random) -> list[Pair]:
    """Pairs after one run of each kind that warms up; which of a pair goes first is drawn."""
    found = []
    for i in range(pairs + 1):
        order = draw.sample([True, False], 2)
        by_kind = {ahead: took(run, n, ahead) for ahead in order}
        if i:
            found.append(Pair(by_kind[True], by_kind[False]))
    return found


def compared(pairs: Sequence[Pair], field: int) -> Interval:
    """What decoding ahead takes of the time without it."""
    return interval([pair.ahead[field] / pair.alone[field] for pair in pairs])


# -- the command -----------------------------------------------------------------------------------


def table(found: Mapping[str, Sequence[Pair]]) -> str:
    """A row for each source: both ways, and their quotients."""
    rows = []
    for name, pairs in found.items():
        shown = [median(getattr(pair, way)[k] for pair in pairs)
                 for k in (0, 1, 2) for way in Pair._fields[::-1]]  # fmt: skip
        beside = [compared(pairs, k) for k in (0, 1)]
        quotients = [f"{i.middle:.2f} ({i.low:.2f} to {i.high:.2f})" for i in beside]
        rows.append([name, *(f"{us:.2f}" for us in shown), *quotients])
    head = [f"{name}{way}" for name in NAMES for way in ("", ", ahead")]
    return markdown(["us an event", *head, "quotient, wall", "quotient, main thread"], rows)


def here(sent: Sequence[brokers.Sent], path: Path, stack: ExitStack) -> dict[str, Run]:
    """What needs no broker. path: of a file to be written."""
    path.write_bytes(b"".join((one.value or b"") + b"\n" for one in sent))
    return {
        "records in memory": lambda: from_topic("t", Connection("nobody:1"), _Held(sent)),
        "JSON Lines through a pipe": stack.enter_context(piped(path)),
    }


def there(sent: Sequence[brokers.Sent], folder: Path, stack: ExitStack) -> dict[str, Run]:
    """Topics, by each client; nothing where there is no broker."""
    if "KAFKA_BOOTSTRAP" not in os.environ and brokers.noida_binary() is None:
        print("no broker: pip install noida-db==0.2.3, or set KAFKA_BOOTSTRAP")
        return {}
    broker, about = stack.enter_context(kafka.running(folder))
    topic = brokers.create(broker, f"bench-{uuid.uuid4().hex[:8]}")
    brokers.produce(broker, topic, sent)
    print(about)
    return {
        f"a topic, {client}": partial(
            from_topic, topic, Connection(broker.bootstrap, client), client_named(client)
        )
        for client in kafka.CLIENTS
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.read_ahead", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=20)
    given = parser.parse_args()
    draw, sent = random.Random(1), kafka.records(given.events)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        runs = here(sent, Path(folder, "events.jsonl"), stack) | there(sent, Path(folder), stack)
        found = {name: pairs_of(run, given.events, given.pairs, draw) for name, run in runs.items()}
    print(", ".join(f"{k} {v}" for k, v in machine.describe().items()))
    print(f"{given.events:,} events, {given.pairs} pairs\n\n{table(found)}")


if __name__ == "__main__":
    main()
