"""The command: `python -m benchmarks.kafka [--events N] [--rounds R] [--page FILE]`.

CPU time per event of a whole process (all its threads), for topics of 200-byte JSON with 8 features
and the label: the bare client with decoding by the same typed structs, and beside it, by turns, a
run with the Kalman pipeline, with and without predictions to a topic. Each figure is the difference
between a long and a short range over the events between, so start-up cancels. And how long one
event takes from its topic to its prediction on another.

Needs the test broker of the extra `dev`, or KAFKA_BOOTSTRAP.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks import clock, machine
from tests.kafka import broker as brokers

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = ("kafka-python", "confluent")
BARE_CLIENT = "bare client and decoding"
SHORT = 20_000  # events of the short range
FEATURES = [f"f{i}" for i in range(8)]
PIPELINE = ["Normalizer", "KalmanClassifier", "ADWIN"]
SCHEMA = {"features": dict.fromkeys(FEATURES, "number"), "target": "y", "task": "classification"}
MARKS = {  # events a second that are asked for
    ("confluent", "learn"): 400_000,
    ("confluent", "predictions"): 200_000,
    ("kafka-python", "learn"): 130_000,
}

BARE = """
import os, sys, time
from msgspec import defstruct, json
names, bootstrap, topic, n = sys.argv[1].split(","), sys.argv[2], sys.argv[3], int(sys.argv[4])
fields = [(name, float | None, None) for name in names] + [("y", str | int | None, None)]
decode = json.Decoder(defstruct("Event", fields, gc=False)).decode
seen = 0
"""
CONFLUENT = (
    BARE
    + """
from confluent_kafka import Consumer, TopicPartition
reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "bare", "enable.auto.commit": False,
                   "isolation.level": "read_committed", "fetch.queue.backoff.ms": 5})
reader.assign([TopicPartition(topic, 0, 0)])
import gc; gc.freeze()
while seen < n:
    found = [decode(m.value()) for m in reader.consume(4096, 0.1)]
    seen += len(found)
print(sum(os.times()[:2]))
"""
)
KAFKA_PYTHON = (
    BARE
    + """
from kafka import KafkaConsumer, TopicPartition
reader = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, max_poll_records=4096,
                       isolation_level="read_committed", auto_offset_reset="none")
place = TopicPartition(topic, 0)
reader.assign([place]); reader.seek(place, 0)
import gc; gc.freeze()
while seen < n:
    for records in reader.poll(100).values():
        found = [decode(record.value) for record in records]
        seen += len(found)
print(sum(os.times()[:2]))
"""
)
OURS = """
import json, os, sys
from streamlearn import config, runner
result = runner.run(config.check(json.loads(sys.argv[1])))
assert result.events == int(sys.argv[2]), result.events
print(sum(os.times()[:2]))
"""
LIVE = """
import json, sys
from streamlearn import config, runner
runner.run(config.check(json.loads(sys.argv[1])))
"""


class Figure(NamedTuple):
    """Processor microseconds an event: median, least, most; events a second and a core from it."""

    client: str
    what: str
    microseconds: float
    least: float
    most: float

    @property
    def rate(self) -> float:
        """Events a second that one core can do."""
        return 1e6 / self.microseconds


class Latency(NamedTuple):
    """Milliseconds from an event in its topic to its prediction in another."""

    client: str
    p50: float
    p99: float


def records(n: int) -> list[brokers.Sent]:
    """n events of 200 bytes."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, len(FEATURES)))
    y = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(int)
    found = []
    for i in range(n):
        event: dict[str, Any] = {
            f: round(v, 6) for f, v in zip(FEATURES, X[i].tolist(), strict=True)
        }
        event |= {"y": int(y[i]), "id": f"e{i}"}
        raw = json.dumps(event, separators=(",", ":"))
        raw = f'{raw[:-1]},"pad":"{"x" * max(0, 200 - len(raw) - 9)}"}}'
        found.append(brokers.Sent(raw.encode(), b"%d" % i, 1_700_000_000_000 + i, partition=0))
    return found


def config(
    bootstrap: str, client: str, source: str, sink: str | None, folder: str
) -> dict[str, Any]:
    """A run as a user has it: checkpoints every second."""
    table = {
        "kafka": {
            "bootstrap": bootstrap,
            "client": client,
            "group": f"bench-{uuid.uuid4().hex[:8]}",
        },
        "source": source,
        "schema": SCHEMA,
        "pipeline": PIPELINE,
        "checkpoint": {"path": folder, "every_seconds": 1.0},
    }
    return table if sink is None else table | {"sink": f"kafka:{sink}"}


def seconds_of(script: str, *arguments: str) -> float:
    """Processor seconds that a fresh process says it took."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def bare(broker: brokers.Broker, client: str, topic: str, n: int) -> float:
    """Processor seconds of the client and the decoding alone."""
    script = CONFLUENT if client == "confluent" else KAFKA_PYTHON
    return seconds_of(script, ",".join(FEATURES), broker.bootstrap, topic, str(n))


def ours(broker: brokers.Broker, client: str, topic: str, n: int, sink: bool) -> float:
    """Processor seconds of a run over the first n events."""
    out = brokers.create(broker, f"out-{uuid.uuid4().hex[:8]}") if sink else None
    with tempfile.TemporaryDirectory() as folder:
        table = config(broker.bootstrap, client, f"kafka:{topic}?to={n}", out, f"{folder}/c")
        return seconds_of(OURS, json.dumps(table), str(n))


def _pairs() -> list[tuple[str, str]]:
    """Every client with everything that is measured of it."""
    return [(client, what) for client in CLIENTS for what in (BARE_CLIENT, "learn", "predictions")]


def _once(broker: brokers.Broker, client: str, what: str, topic: str, n: int) -> float:
    """Processor seconds of one contestant over the first n events."""
    if what == BARE_CLIENT:
        return bare(broker, client, topic, n)
    return ours(broker, client, topic, n, sink=what == "predictions")


def _between(run: Callable[[int], float], n: int) -> float:
    """Microseconds an event, start-up aside."""
    return (run(n) - run(SHORT)) / (n - SHORT) * 1e6


def throughput(broker: brokers.Broker, n: int, rounds: int) -> list[Figure]:
    """All contestants, by turns."""
    topic = brokers.create(broker, f"bench-{uuid.uuid4().hex[:8]}")
    brokers.produce(broker, topic, records(n))
    runs = {
        f"{client}/{what}": partial(_once, broker, client, what, topic) for client, what in _pairs()
    }
    for run in runs.values():
        run(SHORT)  # kernels into the cache
    contestants: dict[str, Callable[[], float]] = {
        name: partial(_between, run, n) for name, run in runs.items()
    }
    found = clock.by_turns(contestants, rounds)
    return [Figure(*pair, *found["/".join(pair)]) for pair in _pairs()]


def latency(broker: brokers.Broker, client: str, events: int) -> Latency:
    """One event at a time: sent, scored, its prediction read, then the next one."""
    topic = brokers.create(broker, f"in-{uuid.uuid4().hex[:8]}")
    out = brokers.create(broker, f"out-{uuid.uuid4().hex[:8]}")
    with tempfile.TemporaryDirectory() as folder:
        table = config(broker.bootstrap, client, f"kafka:{topic}", out, f"{folder}/c")
        process = subprocess.Popen(
            [sys.executable, "-c", LIVE, json.dumps(table)], cwd=ROOT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ),
        )  # fmt: skip
        try:
            taken = list(_round_trips(broker, topic, out, events))
        finally:
            process.terminate()
            process.wait(60)
    rest = taken[len(taken) // 10 :]  # the first ones wait for the process to start
    return Latency(client, median(rest) / 1e6, clock.percentile(rest, 0.99) / 1e6)


def _round_trips(broker: brokers.Broker, topic: str, out: str, events: int) -> Any:
    """Nanoseconds of each event, there and back."""
    from confluent_kafka import Consumer, Producer, TopicPartition

    fast = {"bootstrap.servers": broker.bootstrap, "log_level": 0}
    writer = Producer(fast | {"linger.ms": 0})
    reader = Consumer(
        fast | {"group.id": "latency", "enable.auto.commit": False, "fetch.wait.max.ms": 100}
    )
    reader.assign([TopicPartition(out, 0, 0)])
    for sent in records(events):
        start = time.perf_counter_ns()
        writer.produce(topic, sent.value, sent.key, 0)
        writer.poll(0)
        while not reader.consume(1, 60.0):
            pass
        yield time.perf_counter_ns() - start
    reader.close()


def page(figures: list[Figure], latencies: list[Latency], n: int, rounds: int, broker: str) -> str:
    """The measurements as Markdown."""
    where = ", ".join(f"{k} {v}" for k, v in machine.describe().items())
    bare_of = {f.client: f.microseconds for f in figures if f.what == BARE_CLIENT}
    lines = [
        "# What an event from a topic costs",
        "",
        f"{where}; {broker}. {n:,} events of 200 bytes of JSON, 8 features;",
        f"{', '.join(PIPELINE)}. Medians of {rounds} rounds by turns, processor time.",
        "",
        "| client | what | us an event | least to most | added | events/s a core | mark |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for f in figures:
        added = f.microseconds - bare_of[f.client]
        mark = MARKS.get((f.client, f.what))
        lines.append(
            f"| {f.client} | {f.what} | {f.microseconds:.2f} | {f.least:.2f} to {f.most:.2f} | "
            f"{added:+.2f} | {f.rate:,.0f} | {'' if mark is None else f'{mark:,}'} |"
        )
    lines += ["", "| client | p50, one event in, prediction out | p99 |", "|---|---:|---:|"]
    lines += [f"| {one.client} | {one.p50:.1f} ms | {one.p99:.1f} ms |" for one in latencies]
    return "\n".join(lines) + "\n"


@contextmanager
def running(folder: Path) -> Iterator[tuple[brokers.Broker, str]]:
    """The broker of KAFKA_BOOTSTRAP, or one of our own for as long; and what it is."""
    if "KAFKA_BOOTSTRAP" in os.environ:
        yield brokers.Broker(os.environ["KAFKA_BOOTSTRAP"]), "broker of KAFKA_BOOTSTRAP"
        return
    binary = brokers.noida_binary()
    if binary is None:
        raise SystemExit("no broker: pip install noida-db==0.2.3, or set KAFKA_BOOTSTRAP")
    broker = brokers.started(folder, binary)
    yield broker, f"broker noida-db {version('noida-db')} on the same machine"
    broker.stop()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kafka", description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--page", type=Path, help="write the tables here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as (broker, about):
        figures = throughput(broker, given.events, given.rounds)
        latencies = [latency(broker, client, 500) for client in CLIENTS]
    text = page(figures, latencies, given.events, given.rounds, about)
    print(text)
    if given.page is not None:
        given.page.write_text(text)


if __name__ == "__main__":
    main()
