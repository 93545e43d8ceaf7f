"""Secrets of a connection: read where a client is made, shown nowhere, read again when changed."""

import logging
import os
import uuid
from pathlib import Path

import pytest

from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.options import Options
from streamlearn.connectors.kafka.secrets import Secrets
from streamlearn.connectors.kafka.wire import Connection, Outgoing
from streamlearn.errors import UserError
from tests.kafka.broker import Broker, Sent, consume, create, produce


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, text: str, mtime: int) -> None:
    path.write_text(text, "utf-8")
    os.utime(path, ns=(mtime, mtime))


def test_variables_and_files_are_put_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KAFKA_USER", "ada")
    (tmp_path / "password").write_text("s3cret\n", "utf-8")
    secrets = Secrets(
        {
            "user": "${env:KAFKA_USER}",
            "login": f"u=${{env:KAFKA_USER}};p=${{file:{tmp_path}/password}}",
            "port": 9092,
            "plain": "x$y",
        }
    )
    assert secrets.options == {
        "user": "ada",
        "login": "u=ada;p=s3cret",
        "port": 9092,
        "plain": "x$y",
    }
    assert repr(secrets.options) == "{'user': '***', 'login': '***', 'port': 9092, 'plain': 'x$y'}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${env:NOT_SET_HERE}", r"^options\.p: the environment variable NOT_SET_HERE is not set$"),
        ("${file:/no/where}", r"^options\.p: cannot read /no/where: No such file or directory$"),
    ],
)
def test_what_cannot_be_read_is_named(value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Secrets({"p": value})


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"^options\.p: cannot read .*/p: is not UTF-8 text$"):
        Secrets({"p": f"${{file:{tmp_path}/p}}"})


def test_a_file_is_looked_at_every_ten_seconds(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "password"
    write(path, "one", 1_000)
    secrets = Secrets({"p": f"${{file:{path}}}"}, clock)
    write(path, "two", 2_000)
    clock.now = 9.9
    assert not secrets.changed()
    clock.now = 10.0
    assert secrets.changed()
    path.unlink()
    clock.now = 20.0
    assert not secrets.changed()
    write(path, "one", 1_000)
    clock.now = 30.0
    assert not secrets.changed()


def test_without_a_file_nothing_changes() -> None:
    clock = Clock()
    secrets = Secrets({"p": "x"}, clock)
    clock.now = 1e9
    assert not secrets.changed()


def test_messages_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P", "s3cret")
    options = Options({"p": "${env:P}"}, ours=(), known=("p",))
    assert options.masked("login with s3cret refused") == "login with *** refused"


LOGIN: dict[str, dict[str, object]] = {
    "kafka-python": {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "ada",
        "sasl_plain_password": "${env:KAFKA_PASSWORD}",
    },
    "confluent": {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "ada",
        "sasl.password": "${env:KAFKA_PASSWORD}",
        "debug": "security,conf",
    },
}


def test_no_secret_is_logged_or_shown(
    broker: Broker,
    client: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Everything is logged that can be. The tests' broker lets any login in."""
    monkeypatch.setenv("KAFKA_PASSWORD", "very-s3cret")
    caplog.set_level(logging.DEBUG)
    found, connection = client_named(client), Connection(broker.bootstrap, client, LOGIN[client])
    for made in (
        found.consumer(connection, group=None, keys=False, headers=False),
        found.producer(connection, transactional_id=None, max_in_flight=1),
        found.admin(connection),
    ):
        made.close()
    assert "very-s3cret" not in repr(connection)
    assert "very-s3cret" not in caplog.text
    captured = capfd.readouterr()
    assert "very-s3cret" not in captured.out + captured.err


OPTION = {"kafka-python": "client_id", "confluent": "client.id"}


def test_clients_are_made_again_when_a_file_changes(
    broker: Broker, client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer goes on from where it stood, paused where it was; a producer loses nothing."""
    path = tmp_path / "id"
    write(path, "one", 1_000)
    connection = Connection(broker.bootstrap, client, {OPTION[client]: f"${{file:{path}}}"})
    name = create(broker, f"t-{uuid.uuid4().hex[:12]}", 2)
    produce(broker, name, [Sent(b"%d" % i, partition=i % 2) for i in range(10)])
    found = client_named(client)
    consumer = found.consumer(connection, group=None, keys=False, headers=False)
    producer = found.producer(connection, transactional_id=None, max_in_flight=10)
    consumer.assign({(name, 0): 0, (name, 1): 2})
    consumer.pause([(name, 1)])
    values: list[bytes | None] = []
    while len(values) < 3:
        values += [value for block in consumer.fetch(3, 0.1) for value in block.values]
    producer.send(Outgoing(name, [b"10"], None, None, [0]))
    write(path, "two", 2_000)
    monkeypatch.setattr("streamlearn.connectors.kafka.secrets.LOOK_SECONDS", 0.0)
    before = consumer._kafka, producer._kafka  # type: ignore[attr-defined]
    producer.send(Outgoing(name, [b"12"], None, None, [0]))
    producer.flush()
    while len(values) < 7:
        values += [value for block in consumer.fetch(100, 0.1) for value in block.values]
    assert consumer._kafka is not before[0]  # type: ignore[attr-defined]
    assert producer._kafka is not before[1]  # type: ignore[attr-defined]
    assert values == [b"0", b"2", b"4", b"6", b"8", b"10", b"12"]
    consumer.resume([(name, 1)])
    while len(values) < 10:
        values += [value for block in consumer.fetch(100, 0.1) for value in block.values]
    assert values[7:] == [b"5", b"7", b"9"]
    consumer.close()
    producer.close()
    assert len(consume(broker, name)) == 12
