"""Members of a group as processes, over the wire: one joins, hangs, comes back, and is killed.

Rebalances by one broker (Tansu: session time-outs, cooperative moves), the data by another. All
records are produced beforehand, so that what comes out must be that of an undisturbed run, byte for
byte. What is waited for are lines of the processes' logs.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from streamlearn.config import load_config
from streamlearn.connectors.kafka import client_named
from streamlearn.group import GroupRun, Part
from tests.kafka.broker import MORTAL, Broker, Got, Sent, consume, create, produce
from tests.kafka.conftest import CLIENTS
from tests.kafka.test_group import Left, each_once, state
from tests.kafka.test_members import SESSION

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS, EVENTS = 4, 600  # of each
PATIENCE = 150.0


class Worker:
    """A process and its log."""

    def __init__(self, folder: Path, name: str, mesh: Broker, client: str) -> None:
        self.log = folder / f"{name}.log"
        script = str(ROOT / "tests" / "kafka" / "group_worker.py")
        arguments = [str(folder / "config.yaml"), mesh.bootstrap, json.dumps(SESSION[client])]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", MORTAL, sys.executable, script, *arguments],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def kill(self) -> None:
        """kill -9, if it is there."""
        self.process.kill()
        self.process.communicate()

    def said(self, pattern: str) -> list[str]:
        """Numbers of the partitions that it has said this of."""
        return re.findall(rf"partition (\d+): {pattern}", self.log.read_text())

    def until(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until it has said this so often."""
        end = time.monotonic() + PATIENCE
        while len(found := self.said(pattern)) < times:
            alive = self.process.poll() is None and time.monotonic() < end
            assert alive, f"{pattern!r} {len(found)} of {times} times in: {self.log.read_text()}"
            time.sleep(0.05)
        return found


def write_config(folder: Path, data: Broker, client: str, topic: str, sink: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(
        f"""
kafka: {{bootstrap: "{data.bootstrap}", client: {client}, mode: group, group: "g-{topic}"}}
source: kafka:{topic}
labels: {{source: kafka:{topic}-labels, timeout: 60s}}
schema: {{features: {{x: number}}, target: y, task: regression, id: id}}
pipeline: [KalmanHead]
sink: kafka:{sink}
checkpoint: {{path: "{folder / "checkpoints"}", every_seconds: 1.0}}
engine: {{block_rows: 4}}
"""
    )
    return path


def fill(data: Broker, topic: str) -> list[object]:
    """Events, and labels that come five seconds later in event time; some never.

    Returns the positions of each partition after all of them.
    """
    for name in (topic, f"{topic}-labels", f"{topic}-out", f"{topic}-calm"):
        create(data, name, PARTITIONS)
    rng = np.random.default_rng(3)
    events, labels = [], []
    for i in range(PARTITIONS * EVENTS):
        x, number = float(rng.normal()), i % PARTITIONS
        moment = 1_700_000_000_000 + 1000 * (i // PARTITIONS)
        event = json.dumps({"id": f"e{i}", "x": x}).encode()
        events.append(Sent(event, b"%d" % i, moment, (), number))
        if rng.random() < 0.95:
            label = json.dumps({"id": f"e{i}", "y": 2 * x + number}).encode()
            labels.append(Sent(label, None, moment + 5500, (), number))
    produce(data, topic, events)
    produce(data, f"{topic}-labels", labels)
    told = [sum(label.partition == number for label in labels) for number in range(PARTITIONS)]
    return [
        {f"events/{topic}/{number}": EVENTS, f"labels/{topic}-labels/{number}": told[number]}
        for number in range(PARTITIONS)
    ]


def undisturbed(folder: Path, data: Broker, client: str, topic: str, ends: list[object]) -> Left:
    """One process that owns all from beginning to end, in blocks of another length."""
    folder.mkdir()
    path = write_config(folder, data, client, topic, f"{topic}-calm")
    changed: dict[str, object] = {
        "kafka.group": f"calm-{topic}",
        "kafka.mode": "assign",
        "engine.block_rows": 256,
    }
    config = load_config(path, changed)
    run = GroupRun(config, Part(0, 1))

    def stop_at_the_end() -> None:
        assert run.lineages is not None
        engines = [one.engine for one in run.lineages.owned.values()]
        if [engine and engine.positions for engine in engines] == ends:
            run.stop("the end")

    run.told = stop_at_the_end
    run.run()
    return left(folder, consume(data, f"{topic}-calm"))


def left(folder: Path, records: list[Got]) -> Left:
    folders = [folder / "checkpoints" / f"partition-{number}" for number in range(PARTITIONS)]
    return Left([state(place) for place in folders], each_once(records))


def read(folder: Path) -> list[object]:
    """Positions in the last checkpoints: all labels are read later than all events."""
    places = sorted((folder / "checkpoints").glob("partition-*"))
    return [state(place)[2] for place in places]


def story(folder: Path, data: Broker, mesh: Broker, client: str) -> tuple[Left, Left]:
    """What came out of a group with troubles, and what an undisturbed run gives."""
    topic = f"t-{uuid.uuid4().hex[:8]}"
    ends = fill(data, topic)
    for name in (topic, f"{topic}-labels"):
        create(mesh, name, PARTITIONS)  # offsets of both are committed there
    folder.mkdir()
    calm = undisturbed(folder / "calm", data, client, topic, ends)
    write_config(folder, data, client, topic, f"{topic}-out")
    (folder / "slow").touch()
    one, two = Worker(folder, "one", mesh, client), None
    try:
        one.until("goes on after", PARTITIONS)
        two = Worker(folder, "two", mesh, client)
        trouble(folder, one, two)
        end = time.monotonic() + PATIENCE
        while read(folder) != ends:
            assert time.monotonic() < end, one.log.read_text()
            time.sleep(0.2)
        one.process.terminate()
        told, _ = one.process.communicate(timeout=30)
        assert one.process.returncode == 0, one.log.read_text()
        assert json.loads(told) == {str(number): EVENTS for number in range(PARTITIONS)}
    finally:
        for worker in (one, two):
            if worker is not None and worker.process.returncode is None:
                worker.kill()
    return left(folder, consume(data, f"{topic}-out")), calm


def trouble(folder: Path, one: Worker, two: Worker) -> None:
    """The second joins, hangs, is lost, comes back, and is killed; then all may go fast."""
    moved = two.until("goes on after [1-9]", 2)  # from where the other had come to
    assert sorted(one.said("is saved, another may have it")) == sorted(moved)
    two.process.send_signal(signal.SIGSTOP)  # it hangs: the session ends, its locks are held
    assert sorted(one.until("waits: .* another run is using", 2)) == sorted(moved)
    two.process.send_signal(signal.SIGCONT)
    assert sorted(two.until("was lost to another member", 2)) == sorted(moved)
    one.until("goes on after", PARTITIONS + 2)
    again = two.until("goes on after", 4)[2:]  # a member again, by another move
    two.kill()
    one.until("goes on after", PARTITIONS + 2 + len(again))
    (folder / "slow").unlink()


@pytest.fixture(scope="module")
def stories(
    broker: Broker, mesh: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[tuple[Left, Left]]]]:
    """Of both clients, at the same time: it is mostly waiting for session time-outs."""
    place = tmp_path_factory.mktemp("groups")
    for client in CLIENTS:
        client_named(client)  # not imported by two threads at a time
    with ThreadPoolExecutor() as threads:
        yield {c: threads.submit(story, place / c, broker, mesh, c) for c in CLIENTS}


def test_nothing_is_lost_and_nothing_learnt_twice(
    stories: dict[str, Future[tuple[Left, Left]]], client: str
) -> None:
    """1 -> 2 -> 1 members with a hanging and a killed one: state and answers, byte for byte."""
    found, calm = stories[client].result()
    assert len(found.answers) == PARTITIONS * EVENTS
    assert found == calm
