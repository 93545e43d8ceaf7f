"""Memory of a run over millions of events, and while no label comes; long, so `make soak` alone."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.wire import Connection
from tests.kafka.broker import Broker, Sent, create, produce

pytestmark = [pytest.mark.soak, pytest.mark.jit]
ROOT = Path(__file__).resolve().parents[2]
ROUND, ROUNDS = 250_000, 20
START = 1_700_000_000_000  # ms
SCHEMA = {
    "features": {f"f{i}": "number" for i in range(8)},
    "id": "id",
    "target": "y",
    "task": "classification",
}


def events(first: int, n: int, ms: float, labelled: bool) -> Iterator[Sent]:
    """Events `ms` milliseconds apart."""
    rng = np.random.default_rng(first)
    for i, row in enumerate(rng.normal(size=(n, 8)).tolist(), start=first):
        value: dict[str, Any] = {f"f{j}": round(v, 5) for j, v in enumerate(row)}
        value |= {"id": f"e{i}"} | ({"y": int(row[0] > 0)} if labelled else {})
        when = START + int(i * ms)
        yield Sent(json.dumps(value).encode(), b"%d" % (i % 100), when, partition=i % 2)


@contextmanager
def running(folder: Path, config: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """A run as a process, ended by SIGTERM."""
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    with (folder / "out.txt").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlearn", "run", str(folder / "run.yaml")],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=out,
            stderr=out,
        )
        yield process
        process.terminate()
        assert process.wait(60) == 0, (folder / "out.txt").read_text()[-2000:]


def resident(process: subprocess.Popen[bytes]) -> float:
    """MiB of memory that a process has now."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def until_committed(
    broker: Broker, group: str, topic: str, offset: int, process: subprocess.Popen[bytes]
) -> None:
    """Wait until a run has a checkpoint behind an offset of both partitions."""
    client = client_named("confluent")
    consumer = client.consumer(
        Connection(broker.bootstrap, "confluent"), group=group, keys=False, headers=False
    )
    places = [(topic, 0), (topic, 1)]
    while True:
        assert process.poll() is None, "the run has ended"
        found = consumer.committed(places, 20.0)
        if len(found) == 2 and min(one.offset for one in found.values()) >= offset:
            break
        time.sleep(0.2)
    consumer.close()


def config(broker: Broker, client: str, topic: str, folder: Path) -> dict[str, Any]:
    return {
        "kafka": {"bootstrap": broker.bootstrap, "client": client, "group": f"g-{topic}"},
        "source": f"kafka:{topic}",
        "schema": SCHEMA,
        "pipeline": ["Normalizer", "KalmanClassifier", "ADWIN"],
        "checkpoint": {"path": str(folder / "checkpoints"), "every_seconds": 1.0},
    }


def test_memory_is_flat_over_five_million_events(
    broker: Broker, client: str, tmp_path: Path
) -> None:
    """Rounds of 250,000 events; what was read is deleted from the broker."""
    topic = create(broker, f"m-{uuid.uuid4().hex[:8]}", 2)
    admin = client_named("confluent").admin(Connection(broker.bootstrap, "confluent"))
    sizes = []
    with running(tmp_path, config(broker, client, topic, tmp_path)) as process:
        for k in range(ROUNDS):
            produce(broker, topic, list(events(k * ROUND, ROUND, 1.0, labelled=True)))
            end = (k + 1) * ROUND // 2
            until_committed(broker, f"g-{topic}", topic, end, process)
            sizes.append(resident(process))
            admin.delete_records({(topic, 0): end, (topic, 1): end})
    admin.close()
    assert max(sizes[2:]) < 1.1 * sizes[1], sizes


def test_memory_is_bounded_while_no_label_comes_for_ten_minutes(
    broker: Broker, client: str, tmp_path: Path
) -> None:
    """600,000 events of ten minutes wait for their labels; what memory has no room for is on disk.

    The clock is that of the records.
    """
    topic = create(broker, f"m-{uuid.uuid4().hex[:8]}", 2)
    labels = create(broker, f"l-{uuid.uuid4().hex[:8]}", 2)
    late = {"source": f"kafka:{labels}", "timeout": "1h", "memory_mb": 16}
    table = config(broker, client, topic, tmp_path) | {"labels": late}
    sizes = []
    with running(tmp_path, table) as process:
        for k in range(6):
            produce(broker, topic, list(events(k * 100_000, 100_000, 1.0, labelled=False)))
            until_committed(broker, f"g-{topic}", topic, (k + 1) * 50_000, process)
            sizes.append(resident(process))
    # what may stay in memory for each event that waits: a place in the logs, a slot in the join
    assert sizes[-1] - sizes[1] < 400_000 * 200 / 2**20, sizes
