"""A run as a process: what it says over HTTP and in its log, how it stops, what it waits for."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from streamlearn import yaml12
from streamlearn.checkpoint import describe
from streamlearn.config import Config
from streamlearn.engine import CUT_OFF
from tests.kafka.broker import Broker, Sent, consume, produce
from tests.kafka.test_run import T0, Setting, events

Topic = Callable[..., str]
WAIT = 60.0
STOP_SECONDS = 30.0  # the time-out of a shutdown, what may follow it, and a busy machine


@pytest.fixture
def setting(broker: Broker, topic: Topic, client: str, tmp_path: Path) -> Setting:
    return Setting(broker, topic, client, tmp_path)


class Process:
    """`streamlearn run` on a configuration, with its log lines."""

    def __init__(self, config: Config, folder: Path) -> None:
        path = folder / "c.yaml"
        path.write_text(
            yaml12.dump(config.model_dump(mode="json", by_alias=True, exclude_unset=True))
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "streamlearn", "run", str(path), "--log", "json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        (health,) = [line for line in self._until("health") if line["event"] == "health"]
        self.port = health["port"]

    def _until(self, event: str) -> Iterator[dict[str, Any]]:
        stream: IO[str] | None = self._process.stderr
        assert stream is not None
        for text in stream:
            self.lines.append(json.loads(text))
            yield self.lines[-1]
            if self.lines[-1]["event"] == event:
                return

    def health(self, what: str) -> tuple[int, dict[str, Any]]:
        address = f"http://127.0.0.1:{self.port}/health/{what}"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def until(self, wanted: Callable[[int, dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask until readiness is as wanted."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            code, told = self.health("ready")
            if wanted(code, told):
                return told
            time.sleep(0.05)
        raise AssertionError(f"{told}\n{self.lines}")

    def stop(self) -> int:
        """End it by SIGTERM, in time; its exit status."""
        begin = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        list(self._until(""))
        status = self._process.wait(WAIT)
        assert time.monotonic() - begin < STOP_SECONDS
        return status

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()


@contextmanager
def running(config: Config, folder: Path) -> Iterator[Process]:
    process = Process(config, folder)
    try:
        yield process
    finally:
        process.kill()


def read(told: dict[str, Any]) -> int:
    return sum(lineage["events"] for lineage in told["lineages"].values())


def waiting(told: dict[str, Any]) -> int:
    return sum(lineage["in_flight"] for lineage in told["lineages"].values())


def following(setting: Setting, **changed: Any) -> Config:
    return setting.config(
        source=f"kafka:{setting.events}",
        labels={"source": f"kafka:{setting.labels}"},
        health={"port": 0, "max_lag": 10_000},
        **changed,
    )


def test_a_run_is_ready_tells_its_lag_and_is_drained_by_sigterm(setting: Setting) -> None:
    sent, labels = events(300, 2)
    produce(setting.broker, setting.events, sent)
    produce(setting.broker, setting.labels, labels)
    with running(following(setting), setting.folder) as process:
        told = process.until(lambda code, told: code == 200 and read(told) == 300)
        (lineage,) = told["lineages"].values()
        assert lineage["assigned"]
        names = {f"{topic}/{n}" for topic in (setting.events, setting.labels) for n in (0, 1)}
        assert set(lineage["lag"]) == names
        assert process.health("live")[0] == 200
        produce(setting.broker, setting.events, [Sent(b"{", b"k", T0 + 400, (), 0)])
        process.until(lambda code, told: any(
            one["dead_letters"] for one in told["lineages"].values()))  # fmt: skip
        assert process.stop() == 0
    assert [line["event"] for line in process.lines if "stopped by" in line["event"]] == [
        "stopped by SIGTERM after 300 events"
    ]
    assert describe(setting.folder / "checkpoints")["events"] == 300
    assert len(consume(setting.broker, setting.predictions)) == 300


def test_a_run_whose_broker_is_away_lives_is_not_ready_and_goes_on_and_can_be_stopped(
    setting: Setting, our_broker: Broker
) -> None:
    sent, labels = events(200, 2)
    produce(setting.broker, setting.events, sent[:100])
    config = following(setting, engine={"shutdown_timeout": 2.0})
    with running(config, setting.folder) as process:
        process.until(lambda code, told: code == 200 and read(told) == 100)
        with our_broker.away():
            told = process.until(lambda code, told: not told["connected"])
            assert not told["ready"]
            assert process.health("live")[0] == 200
        produce(setting.broker, setting.events, sent[100:])
        produce(setting.broker, setting.labels, labels)
        process.until(lambda code, told: code == 200 and read(told) == 200 and not waiting(told))
        with our_broker.away():  # whatever it waits for then is cut off
            assert process.stop() in (0, 2, CUT_OFF)
    assert sorted(answer["id"] for answer in setting.answers()) == list(range(200))
    ours = [line for line in process.lines if line["logger"].startswith("streamlearn")]
    failed = [line["event"] for line in ours if line["level"] == "error"]
    assert all(event.startswith("engine.shutdown_timeout: ") for event in failed)
