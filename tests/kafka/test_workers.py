"""Workers: processes with whole lineages each, over the wire: what they do, how they end."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamlearn.config import load_config
from streamlearn.errors import UserError
from streamlearn.group import GroupRun, Part
from streamlearn.partitions import Share
from streamlearn.testing import SettableClock
from streamlearn.workers import run_workers
from tests.kafka.broker import MORTAL, Broker, Sent, consume, create, free_port, produce
from tests.kafka.test_group import each_once, state

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS, EVENTS = 3, 200
PATIENCE = 120.0


@pytest.fixture(scope="module")
def topic(broker: Broker) -> str:
    """Events, whose labels come with them."""
    name = create(broker, f"t-{uuid.uuid4().hex[:8]}", PARTITIONS)
    rng = np.random.default_rng(0)
    records = []
    for i in range(PARTITIONS * EVENTS):
        x, number = float(rng.normal()), i % PARTITIONS
        value = json.dumps({"x": x, "y": 3 * x + number}).encode()
        records.append(Sent(value, None, 1_700_000_000_000 + i, (), number))
    produce(broker, name, records)
    return name


def write(folder: Path, broker: Broker, topic: str, to: str = "?to=end", more: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "config.yaml"
    create(broker, f"out-{topic}-{folder.name}", PARTITIONS)
    path.write_text(
        f"""
kafka: {{bootstrap: "{broker.bootstrap}", client: confluent, group: "{folder}"}}
source: "kafka:{topic}{to}"
schema: {{features: {{x: number}}, target: y, task: regression}}
pipeline: [KalmanHead]
sink: "kafka:out-{topic}-{folder.name}"
checkpoint: {{path: "{folder / "checkpoints"}"}}
{more}
"""
    )
    return path


def start(path: Path, workers: int) -> subprocess.Popen[str]:
    command = ["-m", "streamlearn", "run", str(path), "--workers", str(workers), "--log", "json"]
    return subprocess.Popen(
        [sys.executable, "-c", MORTAL, sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def asked(port: int) -> dict[str, Any]:
    """What /health/ready says; {} before anybody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5) as answer:
            return dict(json.loads(answer.read()))
    except urllib.error.HTTPError as error:
        return dict(json.loads(error.read()))
    except OSError:
        return {}


def until(done: Callable[[dict[str, Any]], bool], port: int) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE
    while not done(told := asked(port)):
        assert time.monotonic() < end, told
        time.sleep(0.1)
    return told


def test_workers_come_to_what_one_process_comes_to(
    broker: Broker, topic: str, tmp_path: Path
) -> None:
    """Each partition, byte for byte; health of all as one; SIGTERM ends all in good order."""
    alone = GroupRun(load_config(write(tmp_path / "alone", broker, topic)), Part(0, 1)).run()
    port = free_port()
    path = write(tmp_path / "two", broker, topic, "", f"health: {{port: {port}, max_lag: 1}}")
    process = start(path, 2)
    told = until(lambda told: bool(told.get("ready")), port)
    assert sorted(told["lineages"]) == [f"partition-{number}" for number in range(PARTITIONS)]
    assert [one["events"] for one in told["lineages"].values()] == [EVENTS] * PARTITIONS
    assert all("mae" in one["rolling"] for one in told["lineages"].values())
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert f"{PARTITIONS * EVENTS} events of {PARTITIONS} partitions" in out
    assert alone.events == PARTITIONS * EVENTS
    for number in range(PARTITIONS):
        place = f"checkpoints/partition-{number}"
        assert state(tmp_path / "alone" / place) == state(tmp_path / "two" / place)
    answers = [each_once(consume(broker, f"out-{topic}-{name}")) for name in ("alone", "two")]
    assert answers[0] == answers[1]
    assert len(answers[0]) == PARTITIONS * EVENTS


def test_a_worker_that_is_killed_takes_all_down(broker: Broker, topic: str, tmp_path: Path) -> None:
    port = free_port()
    process = start(write(tmp_path / "a", broker, topic, "", f"health: {{port: {port}}}"), 2)
    until(lambda told: len(told.get("lineages", {})) == PARTITIONS, port)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(c) for c in children if "spawn_main" in Path(f"/proc/{c}/cmdline").read_text()]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    last = json.loads(errors.splitlines()[-1])
    reason = "worker 0 of 2: was killed by SIGKILL; the others have been stopped"
    assert (last["level"], last["event"]) == ("error", reason)
    assert not any(Path(f"/proc/{number}").exists() for number in workers)


def test_no_worker_outlives_its_parent(broker: Broker, topic: str, tmp_path: Path) -> None:
    port = free_port()
    process = start(write(tmp_path / "b", broker, topic, "", f"health: {{port: {port}}}"), 1)
    until(lambda told: len(told.get("lineages", {})) == PARTITIONS, port)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate(timeout=60)
    end = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{number}").exists() for number in children):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_reason_of_a_worker_is_told(broker: Broker, tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "c", broker, "no-such-topic"))
    with pytest.raises(UserError, match=r"^worker \d of 2: kafka: no-such-topic: .*no such topic"):
        run_workers(config, 2)


def test_a_share_is_every_so_manieth_partition_those_that_come_later_too() -> None:
    clock, counts, told = SettableClock(), [5], []

    class Told:
        def assigned(self, partitions: Any) -> None:
            told.append(list(partitions))

        def revoked(self, partitions: Any) -> None:
            raise AssertionError

        lost = revoked

    share = Share(lambda: counts[0], "t", 1, 2, clock, clock.sleep)
    share.subscribe(["t"], Told())
    share.poll(0.0)
    assert told == [[("t", 1), ("t", 3)]]
    counts[0] = 8
    share.poll(1.0)
    assert len(told) == 1  # counted once a minute
    clock.sleep(60.0)
    share.poll(0.0)
    assert told[1:] == [[("t", 5), ("t", 7)]]


def test_a_share_without_a_partition_says_so() -> None:
    told: list[Any] = []

    class Told:
        assigned = revoked = lost = told.append

    share = Share(lambda: 1, "t", 1, 2)
    share.subscribe(["t"], Told())
    share.poll(0.0)
    share.poll(0.0)
    assert told == [[]]
