"""Kafka from end to end: a stream that drifts, labels that come late, a crash, each answer once.

20,000 payments go to a topic of two partitions, and a minute later, by their own time, whether each
was fraud to another one. After half of them what makes a fraud changes. `streamlearn run` is killed
in the middle, started again, and what came out is counted by readers of their own.

Run it: python examples/kafka_end_to_end.py
It starts the broker of the tests, noida-db; KAFKA_BOOTSTRAP=host:port takes a broker that is there.
"""

import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.wire import Client, Connection, Headers, Outgoing

EVENTS = 20_000
DRIFT = EVENTS // 2
GAP, DELAY = 50_000_000, 60_000_000_000  # ns between events; until a label is known
START = 1_767_225_600_000_000_000  # 2026, in ns
ROLES = ("payments", "labels", "predictions", "alerts", "dead")
CONFIG = """
kafka:
  bootstrap: {bootstrap}
  group: {group}
  delivery: transactions # readers that are read_committed see each answer once
source: kafka:{payments}?to=end # without to=end it follows the topic for ever
labels:
  source: kafka:{labels}?to=end
  timeout: 10min
schema:
  target: fraud
  task: classification
  classes: boolean
  id: id
  features: {{amount: number, hour: number, distance: number, merchant: category}}
pipeline:
  - Imputer
  - OneHotEncoder
  - Normalizer
  - AdaptiveClassifier:
      model: KalmanHead
      detector: {{ADWIN: {{delta: 0.002}}}}
sink: kafka:{predictions}
alerts: kafka:{alerts}
dead_letters: kafka:{dead}
checkpoint: {{path: checkpoints, every_seconds: 1}}
"""


@contextmanager
def broker() -> Iterator[str]:
    """The address of a broker: the one that is named, or one that lives as long as the example."""
    if "KAFKA_BOOTSTRAP" in os.environ:
        yield os.environ["KAFKA_BOOTSTRAP"]
        return
    found = importlib.util.find_spec("noida_db")
    if found is None or found.origin is None:
        sys.exit("needs a broker: set KAFKA_BOOTSTRAP, or pip install noida-db==0.2.3 (Linux)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    binary = Path(found.origin).parent / "noida-db"
    with tempfile.TemporaryDirectory() as home:
        options = ["--data-dir", f"{home}/data", "--only", "kafka", "--kafka-port", str(address[1])]
        process = subprocess.Popen(
            [binary, "start", *options],
            env=os.environ | {"HOME": home},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(address)
            yield f"127.0.0.1:{address[1]}"
        finally:
            process.terminate()
            process.wait()


def wait_for(address: tuple[str, int]) -> None:
    """Return when something listens there, or after 20 s."""
    for _ in range(400):
        with socket.socket() as probe:
            if probe.connect_ex(address) == 0:
                return
        time.sleep(0.05)
    sys.exit("the broker does not answer")


def payment(number: int, rng: random.Random) -> tuple[dict[str, object], bool]:
    """One payment and whether it is fraud: first the amount tells, then the distance does."""
    event = {
        "id": f"p{number}",
        "amount": round(rng.lognormvariate(3, 1), 2),
        "hour": rng.randrange(24),
        "distance": round(rng.expovariate(0.1), 1),
        "merchant": rng.choice(["food", "travel", "games"]),
    }
    amount, distance = float(str(event["amount"])), float(str(event["distance"]))
    fraud = amount > 20 if number < DRIFT else distance > 7
    return event, fraud != (rng.random() < 0.05)


def produce(client: Client, connection: Connection, topics: dict[str, str]) -> None:
    """All payments, with a message that is none among them, and all labels."""
    rng = random.Random(7)  # nothing secret
    made = [payment(number, rng) for number in range(EVENTS)]
    keys = [b"card-%d" % rng.randrange(500) for _ in made]
    times = START + GAP * np.arange(EVENTS)
    values = [json.dumps(event).encode() for event, _ in made]
    known = [json.dumps({"id": e["id"], "fraud": fraud}).encode() for e, fraud in made]
    producer = client.producer(connection, transactional_id=None, max_in_flight=100_000)
    producer.send(Outgoing(topics["payments"], values[:100], keys[:100], None, None, times[:100]))
    producer.send(Outgoing(topics["payments"], [b"{not json"], None, None, [0], times[99:100]))
    producer.send(Outgoing(topics["payments"], values[100:], keys[100:], None, None, times[100:]))
    producer.send(Outgoing(topics["labels"], known, keys, None, None, times + DELAY))
    producer.flush()
    producer.close()


def read(client: Client, connection: Connection, topic: str) -> list[tuple[bytes, Headers]]:
    """All messages of a topic with their headers, as a reader that is read_committed sees them."""
    consumer = client.consumer(connection, group=None, keys=False, headers=True)
    partitions = [(topic, number) for number in range(consumer.partitions(topic, 10.0))]
    consumer.assign(dict.fromkeys(partitions, 0))
    found: list[tuple[bytes, Headers]] = []
    while not all(map(consumer.caught_up, partitions)):
        for part in consumer.fetch(4096, 1.0):
            pairs = zip(part.values, part.headers or [], strict=True)
            found += [(value, headers) for value, headers in pairs if value is not None]
    consumer.close()
    return found


def killed_once(folder: Path, client: Client, connection: Connection, topic: str) -> None:
    """Run, kill -9 when a part of the answers is there, and run again to the end."""
    command = [sys.executable, "-m", "streamlearn", "run", "payments.yaml"]
    slowly = subprocess.Popen([*command, "--set", "engine.pace=4000"], cwd=folder)
    while slowly.poll() is None and len(read(client, connection, topic)) < EVENTS // 10:
        time.sleep(0.2)
    slowly.kill()
    slowly.wait()
    print(f"killed with {len(read(client, connection, topic)):,} answers out; starting again")
    subprocess.run(command, cwd=folder, check=True)


def report(topics: dict[str, str], client: Client, connection: Connection) -> int:
    """Show what came out; how many events came out exactly once."""
    answers = [json.loads(value) for value, _ in read(client, connection, topics["predictions"])]
    rng = random.Random(7)
    truth = {f"p{number}": payment(number, rng)[1] for number in range(EVENTS)}
    for name, span in (("before", range(DRIFT)), ("after", range(DRIFT, EVENTS))):
        ids = {f"p{number}" for number in span}
        right = sum(a["prediction"] == truth[a["id"]] for a in answers if a["id"] in ids)
        print(f"{name} the change {right / len(span):.1%} of the answers are right")
    for value, _ in read(client, connection, topics["alerts"]):
        print("alarm:", value.decode())
    for value, headers in read(client, connection, topics["dead"]):
        print("dead letter:", value.decode(), dict(headers))
    places = Counter((a["topic"], a["partition"], a["offset"]) for a in answers)
    ids_seen = Counter(a["id"] for a in answers)
    if max(places.values(), default=0) > 1:
        return 0
    return sum(ids_seen[f"p{number}"] == 1 for number in range(EVENTS))


def main() -> int:
    """Produce, run with a crash, count."""
    client = client_named("kafka-python")
    with broker() as bootstrap, tempfile.TemporaryDirectory() as name:
        folder, connection = Path(name), Connection(bootstrap)
        tag = uuid.uuid4().hex[:6]
        topics = {
            role: f"{role}-{tag}"
            for role in ("payments", "labels", "predictions", "alerts", "dead")
        }
        admin = client.admin(connection)
        for topic in topics.values():
            admin.create(topic, 2, {"retention.ms": "-1"})  # records have the time of the payment
        admin.close()
        produce(client, connection, topics)
        text = CONFIG.format(bootstrap=bootstrap, group=f"fraud-{tag}", **topics)
        (folder / "payments.yaml").write_text(text, encoding="utf-8")
        killed_once(folder, client, connection, topics["predictions"])
        once = report(topics, client, connection)
    print(f"of {EVENTS:,} events these came out exactly once: {once}")
    return 0 if once == EVENTS else 1


if __name__ == "__main__":
    sys.exit(main())
