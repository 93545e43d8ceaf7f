"""kill -9 and outages over a real broker: state, metrics and predictions as if nothing had been."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from streamlearn.archive import read_archive
from tests.kafka.broker import Broker, Got, Sent, consume, create, produce

pytestmark = pytest.mark.jit
ROOT = Path(__file__).resolve().parents[2]
EVENTS, SOAK_EVENTS = 4_000, 20_000  # of one stream, over both partitions
START = 1_700_000_000_000  # ms
CLIENTS = ["kafka-python", "confluent"]
DELIVERIES = ["at_least_once", "transactions"]
STORE = "streamlearn.checkpoint:CheckpointStore"
FAULTS = [
    f"before {STORE}.save",  # outputs are sent, the state is not durable
    f"after {STORE}.save",  # the state is durable, the offsets are not committed
    "before {producer}.commit",
    "after {producer}.commit",  # all is committed, and nobody was told
]
PRODUCERS = {
    "kafka-python": "streamlearn.connectors.kafka.kafka_python:Producer",
    "confluent": "streamlearn.connectors.kafka.confluent:Producer",
}
SCHEMA: dict[str, Any] = {
    "features": {"a": "number", "b": "number", "colour": "category"},
    "id": "id",
    "target": "label",
    "task": "classification",
}
PIPELINE: list[Any] = [
    *("Imputer", "OneHotEncoder", "Normalizer", "KalmanClassifier"),
    {"ADWIN": {"delta": 0.2}},
]


def stream(n: int) -> tuple[list[Sent], list[Sent]]:
    """Drifting events over two partitions, bad ones among them, and labels that come later.

    Some labels come twice, some for events that never were, some never.
    """
    rng = np.random.default_rng(11)
    events: list[Sent] = []
    labels: list[Sent] = []
    for t in range(n):
        a, b = rng.normal(size=2)
        label = "up" if (a > 0) != (t > n / 2) else "down"
        label = "sideways" if b > 1.2 and t > 0.7 * n else label
        value = {"id": f"e{t}", "a": float(a), "b": None if t % 9 == 0 else float(b)}
        value["colour"] = f"c{int(rng.integers(0, 2 + 3 * t // n))}"
        key, now = b"k%d" % int(rng.integers(0, 50)), START + 10 * t
        raw = json.dumps(value).encode() if t % 61 else b'{"id": "e%d", "a": "many"' % t
        events.append(Sent(raw, key, now, partition=int(rng.integers(0, 2))))
        told = json.dumps({"id": f"e{t}", "label": label}).encode()
        for _ in range(int(rng.choice([0, 1, 1, 1, 1, 1, 1, 1, 1, 2]))):
            late = now + 5 + int(rng.exponential(400.0))
            labels.append(Sent(told, key, late, partition=int(rng.integers(0, 2))))
        if t % 83 == 0:
            labels.append(Sent(b'{"id": "nobody", "label": "up"}', key, now, partition=0))
    labels.sort(key=lambda sent: sent.time or 0)
    return events, labels


class Topics(NamedTuple):
    """A stream on the broker."""

    events: str
    labels: str


def new_topic(broker: Broker, partitions: int = 2) -> str:
    return create(broker, f"crash-{uuid.uuid4().hex[:12]}", partitions)


def produced(broker: Broker, n: int) -> Topics:
    topics = Topics(new_topic(broker), new_topic(broker))
    for topic, records in zip(topics, stream(n), strict=True):
        produce(broker, topic, records)
    return topics


class Outcome(NamedTuple):
    """What a run leaves behind: records that a read-committed reader sees, checkpoints."""

    predictions: list[Got]
    dead: list[Got]
    folder: Path


class Server:
    """The process that forks and kills runs."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.folder, self.broker = folder, broker
        script = str(Path(__file__).with_name("crash_server.py"))
        self._errors = (folder / "errors.txt").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, script],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        assert self._ask({"config": self._warm()}) == {"ready": True}

    def _warm(self) -> dict[str, Any]:
        """The same pipeline over files."""
        for name, records in zip(("events", "labels"), stream(300), strict=True):
            whole = [sent for sent in records if (sent.value or b"").endswith(b"}")]
            rows = [json.dumps(json.loads(s.value or b"") | {"ms": s.time}) for s in whole]
            (self.folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        return {
            "source": str(self.folder / "events.jsonl"),
            "labels": {"source": str(self.folder / "labels.jsonl"), "timeout": "5s"},
            "schema": SCHEMA | {"time": "ms", "time_unit": "ms"},
            "pipeline": PIPELINE,
            "checkpoint": {"path": str(self.folder / "warm")},
        }

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._errors.seek(0)
            pytest.fail(f"the crash server ended:\n{self._errors.read()[-3000:]}")
        return dict(json.loads(answer))

    def run(
        self, topics: Topics, client: str, delivery: str, **job: Any
    ) -> tuple[Outcome, dict[str, Any]]:
        """A run with outputs of its own, started again until it ends by itself."""
        out, dead = new_topic(self.broker), new_topic(self.broker, 1)
        folder = self.folder / out
        kafka = {"bootstrap": self.broker.bootstrap, "client": client, "delivery": delivery}
        config = {
            "kafka": kafka | {"group": out},
            "source": f"kafka:{topics.events}?to=end",
            "labels": {"source": f"kafka:{topics.labels}?to=end", "timeout": "5s"},
            "schema": SCHEMA,
            "pipeline": PIPELINE,
            "sink": f"kafka:{out}",
            "dead_letters": f"kafka:{dead}",
            "checkpoint": {"path": str(folder), "every_events": 250},
        }
        answer = self._ask({"config": config, "seed": 0} | job)
        return Outcome(consume(self.broker, out), consume(self.broker, dead), folder), answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(timeout=60) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()


def by_position(records: Sequence[Got]) -> dict[bytes, tuple[int, bytes | None, bytes | None]]:
    """Outputs by the position that they answer; a repeat must have the same bytes."""
    found: dict[bytes, tuple[int, bytes | None, bytes | None]] = {}
    for record in records:
        position = dict(record.headers)["streamlearn-position"]
        assert position is not None
        seen = (record.partition, record.key, record.value)
        assert found.setdefault(position, seen) == seen
    return found


def last_state(folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Arrays and table of the last checkpoint, but for where the sinks stood."""
    arrays, table = read_archive(max(folder.glob("checkpoint-*")))
    del table["sinks"]
    return {name: array.tobytes() for name, array in arrays.items()}, table


def check(quiet: Outcome, other: Outcome, once: bool) -> None:
    """Nothing is lost, nothing is learnt twice; with transactions nothing is seen twice."""
    if once:
        assert len(other.predictions) == len(quiet.predictions)
        assert len(other.dead) == len(quiet.dead)
    assert by_position(other.predictions) == by_position(quiet.predictions)
    assert by_position(other.dead) == by_position(quiet.dead)
    arrays, table = last_state(other.folder)
    expected, expected_table = last_state(quiet.folder)
    assert table == expected_table
    assert arrays == expected


@pytest.fixture(scope="module")
def server(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("crash"), broker)
    yield found
    found.close()


@pytest.fixture(scope="module")
def topics(broker: Broker) -> Topics:
    return produced(broker, EVENTS)


@pytest.fixture(scope="module")
def quiet(server: Server, topics: Topics) -> Outcome:
    """The run that all are compared with: one client, no transactions, no kill."""
    found, told = server.run(topics, CLIENTS[0], DELIVERIES[0])
    assert told["killed"] == 0
    return found


def test_the_quiet_run_does_what_the_others_are_compared_with(quiet: Outcome) -> None:
    """Each event comes out once or is a dead letter; labels were learnt, and well."""
    poisoned = {f"e{t}" for t in range(0, EVENTS, 61)}
    ids = [json.loads(got.value or b"")["id"] for got in quiet.predictions]
    assert len(ids) == EVENTS - len(poisoned)
    assert set(ids) == {f"e{t}" for t in range(EVENTS)} - poisoned
    _, table = last_state(quiet.folder)
    assert table["events"] == len(ids)
    told = table["labels"]["join"]["counts"]
    assert told["labelled"] > 0.8 * EVENTS
    assert min(told["duplicates"], told["unknown"], told["expired"]) > 10
    assert len(quiet.dead) == table["counters"]["rejects"]
    assert table["about"]["metrics"]["accuracy"] > 0.6


def killed_often(
    server: Server, topics: Topics, quiet: Outcome, client: str, delivery: str, kills: int
) -> None:
    """Kill runs at random moments until there were so many kills."""
    _, told = server.run(topics, client, delivery)
    seed = done = 0
    while done < kills:
        seed += 1
        job = {"kills": min(5, kills - done), "seconds": told["seconds"], "seed": seed}
        found, answer = server.run(topics, client, delivery, **job)
        done += answer["killed"]
        check(quiet, found, once=delivery == "transactions")


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("client", CLIENTS)
def test_kill_9_at_random_moments(
    client: str, delivery: str, server: Server, topics: Topics, quiet: Outcome
) -> None:
    killed_often(server, topics, quiet, client, delivery, kills=3)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("client", CLIENTS)
def test_kill_9_inside_a_checkpoint_or_a_commit(
    client: str, fault: str, server: Server, topics: Topics, quiet: Outcome
) -> None:
    named = fault.format(producer=PRODUCERS[client])
    found, answer = server.run(topics, client, "transactions", fault=named, count=3)
    assert answer["killed"] == 1
    check(quiet, found, once=True)


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("client", CLIENTS)
def test_an_outage_of_the_broker_is_waited_for(
    client: str, delivery: str, server: Server, broker: Broker, topics: Topics, quiet: Outcome
) -> None:
    if not broker.ours:
        pytest.skip("the broker of KAFKA_BOOTSTRAP cannot be stopped from here")
    job = {"outages": 1, "seconds": 0.5, "outage_seconds": 8, "broker": broker.pid}
    found, answer = server.run(topics, client, delivery, **job)
    assert answer["killed"] == 0
    check(quiet, found, once=delivery == "transactions")


@pytest.mark.soak
@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_hundred_kills(client: str, delivery: str, server: Server, broker: Broker) -> None:
    """Seventy at random moments and thirty inside a checkpoint or a commit."""
    topics = produced(broker, SOAK_EVENTS)
    reference, _ = server.run(topics, client, "at_least_once")
    killed_often(server, topics, reference, client, delivery, kills=70)
    faults = FAULTS if delivery == "transactions" else FAULTS[:2]
    for i in range(30):
        named = faults[i % len(faults)].format(producer=PRODUCERS[client])
        found, answer = server.run(topics, client, delivery, fault=named, count=1 + i)
        assert answer["killed"] == 1
        check(reference, found, once=delivery == "transactions")
