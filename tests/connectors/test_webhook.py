"""Webhook: each alarm at least once and in order, whatever the server or a crash does."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamlearn
from streamlearn.block import OBSERVE, PREDICT, Block, Features
from streamlearn.connectors.outbox import Outbox
from streamlearn.connectors.webhook import Webhook
from streamlearn.contracts import Answers
from streamlearn.errors import UserError

PAUSES = (0.005, 0.01)
ROOT = Path(__file__).resolve().parent.parent.parent


class Receiver:
    """A server that answers as it is told and keeps what it took."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.asked: list[dict[str, str]] = []
        self.statuses: list[int] = []  # of the next answers; 200 when there is none left
        self.hangs = threading.Event()  # until it is set, when `hanging`
        self.hanging = False
        self.changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.take(self, json.loads(body))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def take(self, request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if self.hanging:
            self.hangs.wait(20)
            return
        with self.changed:
            status = self.statuses.pop(0) if self.statuses else 200
            self.asked.append(dict(request.headers.items()))
            if status == 200:
                self.taken.append(body)
            self.changed.notify_all()
        request.send_response(status)
        request.send_header("Location", "/elsewhere")
        request.send_header("Content-Length", "0")
        request.end_headers()

    def wait_for(self, asked: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= asked, timeout=20)

    @property
    def numbers(self) -> list[int]:
        return [one["alert"] for one in self.taken]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.hangs.set()
    found.server.shutdown()
    found.server.server_close()


def alarms(first: int, n: int = 1) -> Answers:
    """A block of n rows with an alarm on each."""
    mode = np.full(n, PREDICT | OBSERVE, dtype=np.uint8)
    block = Block(np.zeros((n, 1)), np.zeros(n), np.ones(n), mode, Features(("x",)))
    why = np.full(n, None, dtype=object)
    why[:] = [({"detector": "ADWIN", "statistic": 0.5},)] * n
    return Answers(block, {"alarm": np.ones(n, dtype=np.uint8), "why": why}, first)


def hook(receiver: Receiver, folder: Path, **options: Any) -> Webhook:
    return Webhook(receiver.url, folder / "webhook", pauses=PAUSES, **options)


def test_each_alarm_is_one_post_of_its_record(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    sink = hook(receiver, tmp_path, headers={"Authorization": "Bearer ${env:TOKEN}"}, model="m")
    sink.open(None)
    sink.write(alarms(7, 2))
    receiver.wait_for(2)
    assert sink.commit() == {"alerts": 2}
    sink.close()
    sink.close()
    assert receiver.taken[1] == {
        "alert": 1, "kind": "drift", "event": 8, "raised_by": "event", "model": "m",
        "findings": [{"detector": "ADWIN", "statistic": 0.5}],
    }  # fmt: skip
    told = receiver.asked[0]
    assert (told["Authorization"], told["Content-Type"]) == ("Bearer secret", "application/json")
    assert receiver.asked[0]["Idempotency-Key"] != receiver.asked[1]["Idempotency-Key"]
    assert sink.told()["sent"] == 2


@pytest.mark.parametrize("status", [302, 401, 404, 429, 500, 503])
def test_what_is_not_taken_is_sent_again_before_the_next(
    status: int, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.statuses = [status, status]
    sink = hook(receiver, tmp_path)
    sink.open(None)
    sink.write(alarms(0, 3))
    receiver.wait_for(5)
    sink.close()
    assert receiver.numbers == [0, 1, 2]
    keys = [one["Idempotency-Key"] for one in receiver.asked]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert sink.told() == {
        "waiting": 0, "sent": 3, "failed": 2, "refused": 0, "dropped": 0, "trouble": "",
    }  # fmt: skip


def test_an_alarm_that_the_server_blames_keeps_no_other_waiting(
    receiver: Receiver, tmp_path: Path
) -> None:
    receiver.statuses = [422]
    sink = hook(receiver, tmp_path)
    sink.open(None)
    sink.write(alarms(0, 2))
    receiver.wait_for(2)
    sink.close()
    assert receiver.numbers == [1]
    assert (sink.told()["refused"], sink.told()["waiting"]) == (1, 0)


def test_a_server_that_is_away_holds_nothing_up_and_gets_all_after_a_restart(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    down = Webhook("http://127.0.0.1:9/hook", tmp_path / "webhook", pauses=(30.0, 60.0))
    down.open(None)
    down.write(alarms(0, 3))
    position = down.commit()
    down.close()
    assert "webhook: Connection refused; trying again in 30 s" in caplog.text
    assert "3 alerts wait for the next start" in caplog.text
    up = hook(receiver, tmp_path)
    up.open(position)
    up.write(alarms(3))
    receiver.wait_for(4)
    up.close()
    assert receiver.numbers == [0, 1, 2, 3]


def test_a_server_that_hangs_holds_up_neither_the_stream_nor_its_end(
    receiver: Receiver, tmp_path: Path
) -> None:
    receiver.hanging = True
    sink = hook(receiver, tmp_path, timeout=0.05)
    sink.open(None)
    for k in range(50):
        sink.write(alarms(k))
    sink.commit()
    sink.close()
    assert sink.told()["waiting"] == 50
    assert sink.told()["sent"] == 0


def test_what_comes_again_after_a_crash_is_sent_once_where_it_is_the_same(
    receiver: Receiver, tmp_path: Path
) -> None:
    first = hook(receiver, tmp_path)
    first.open(None)
    first.write(alarms(0, 2))
    position = first.commit()
    first.write(alarms(2, 2))  # after the checkpoint: these come again
    receiver.wait_for(4)
    first.close()
    again = hook(receiver, tmp_path)
    again.open(position)
    again.write(alarms(2))
    again.write(alarms(30))  # not what it was
    receiver.wait_for(5)
    again.close()
    assert [(one["alert"], one["event"]) for one in receiver.taken] == [
        (0, 0), (1, 1), (2, 2), (3, 3), (3, 30),
    ]  # fmt: skip


def test_a_full_outbox_keeps_the_oldest_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    down = Webhook(
        "http://127.0.0.1:9/hook", tmp_path / "webhook", pauses=(30.0, 60.0), max_bytes=1000
    )
    down.open(None)
    for k in range(50):
        down.write(alarms(k))
    told = down.told()
    assert told["waiting"] + told["dropped"] == 50
    assert 0 < told["waiting"] * 100 < 1000
    assert caplog.text.count("the outbox is full") == 1
    down.close()


@pytest.mark.parametrize(("url", "text"), [
    ("ftp://host", r"^webhook\.url: must begin with https:// or http://$"),
    ("${env:NO_SUCH}", r"^webhook\.url: the environment variable NO_SUCH is not set$"),
    *((url, r"^webhook\.url: must have a host, and no blanks or letters beyond ASCII")
      for url in ("https://", "http://:80/x", "http://host:0", "http://host:65536", "http://[::1",
                  "http://host/a b", "http://host/é", "http://host/x\r\nHost: other")),
])  # fmt: skip
def test_a_url_that_is_none_is_refused_without_being_shown(
    url: str, text: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=text):
        Webhook(url, tmp_path)


@pytest.mark.parametrize("headers", [
    {"X-Token": "secret-€"}, {"X-Token": "secret\r\nX: y"}, {"X Token": "secret"}, {"": "secret"},
])  # fmt: skip
def test_a_header_that_could_not_be_sent_is_refused_without_being_shown(
    headers: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^webhook\.headers\.[^:]*: must be") as refused:
        Webhook("http://host", tmp_path, headers=headers)
    assert "secret" not in str(refused.value)


def test_the_sender_outlives_a_name_that_is_none_and_a_disk_that_refuses(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent is sent again, if at all; what comes after it is sent."""
    odd = Webhook("http://a..b/", tmp_path / "odd", pauses=PAUSES)
    odd.open(None)
    odd.write(alarms(0))
    until = time.monotonic() + 10.0
    while odd.n_failed < 2 and time.monotonic() < until:
        time.sleep(0.005)
    assert odd.n_failed >= 2
    odd.close()
    sink, real, refused = hook(receiver, tmp_path / "disk"), os.pwrite, threading.Event()

    def once(*given: Any) -> int:
        if not refused.is_set():
            refused.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*given)

    monkeypatch.setattr(os, "pwrite", once)
    sink.open(None)
    sink.write(alarms(0, 3))
    receiver.wait_for(3)
    sink.close()
    assert refused.is_set()
    assert receiver.numbers == [0, 1, 2]


def test_what_is_no_http_is_quoted_on_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server of something else, whose words are no lines of our log."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            taken, _ = server.accept()
            with taken:
                taken.recv(1 << 16)
                taken.sendall(b"\x1b[2J forged\nERROR: all is lost\r\n")

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        sink = Webhook(url, tmp_path / "webhook", pauses=(30.0, 60.0))
        sink.open(None)
        sink.write(alarms(0))
        until = time.monotonic() + 10.0
        while not sink.n_failed and time.monotonic() < until:
            time.sleep(0.005)
        sink.close()
    assert sink.told()["trouble"] == r"the answer is no HTTP: BadStatusLine('\x1b[2J forged\n')"
    assert all("\n" not in message for message in caplog.messages)


# -- the outbox ------------------------------------------------------------------------------------


def lines(start: int, stop: int, width: int = 0) -> list[tuple[int, bytes]]:
    return [(k, json.dumps({"alert": k, "text": "x" * width}).encode()) for k in range(start, stop)]


def drained(box: Outbox) -> list[int]:
    found = []
    while (line := box.first()) is not None:
        found.append(json.loads(line)["alert"])
        box.taken(line)
    return found


@pytest.mark.parametrize("cut", [0, 1, 5, 17])
def test_half_a_line_of_a_crash_is_put_again(cut: int, tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.open(0)
    box.put(lines(0, 3))
    box.close()
    path = tmp_path / "outbox-0000000000.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - cut])
    box = Outbox(tmp_path)
    box.open(0)
    box.put(lines(0, 4))
    assert drained(box) == [0, 1, 2, 3]
    box.close()


def test_the_file_is_renewed_and_what_waits_stays(tmp_path: Path) -> None:
    """Bounded: lines of 100 kB, ten of which may wait, for a server that is always five behind."""
    box, found = Outbox(tmp_path, max_bytes=1_000_000), list[int]()
    box.open(0)
    for k in range(60):
        box.put(lines(k, k + 1, 100_000))
        if k >= 5:
            line = box.first()
            assert line is not None
            found.append(json.loads(line)["alert"])
            box.taken(line)
        box.commit()
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3_000_000
    box.close()
    box = Outbox(tmp_path)
    box.open(60)
    assert box.n_waiting == 5
    assert found + drained(box) == list(range(60))
    box.close()


def test_a_file_that_somebody_cut_off_is_an_error_and_holds_no_lock(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.open(0)
    box.put(lines(0, 3))
    os.truncate(tmp_path / "outbox-0000000000.jsonl", 4)
    with pytest.raises(OSError, match="is shorter"):
        box.first()
    box.close()


@pytest.mark.parametrize("mark", [b"", b"junk", b"0000000000 00000000000000000007\n"])
def test_a_mark_that_is_none_sends_all_again(mark: bytes, tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.open(0)
    box.put(lines(0, 2))
    drained(box)
    box.close()
    (tmp_path / "sent").write_bytes(mark)
    box = Outbox(tmp_path)
    box.open(2)
    assert drained(box) == [0, 1]
    box.close()


def test_a_damaged_line_is_one_line_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "outbox-0000000000.jsonl").write_bytes(b"not JSON\n")
    with pytest.raises(UserError, match=r"is damaged; delete it to go on$"):
        Outbox(tmp_path).open(0)


# -- from the configuration ------------------------------------------------------------------------


CONFIG = """
source: {folder}/data.csv
schema: {{target: y, features: {{x: number}}, task: classification, classes: integer}}
pipeline: [Normalizer, {{AdaptiveClassifier: {{model: Kalman, detector: ADWIN}}}}]
webhook: {{url: "${{env:HOOK}}", timeout: 5}}
alerts: {folder}/alerts.jsonl
checkpoint: {{path: {folder}/state, every_events: 1000}}
"""


@pytest.fixture
def config(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOOK", receiver.url)
    rows = [f"{k % 7},{int((k % 7 > 3) ^ (k // 1500 % 2))}" for k in range(6000)]
    (tmp_path / "data.csv").write_text("x,y\n" + "\n".join(rows) + "\n")
    (tmp_path / "run.yaml").write_text(CONFIG.format(folder=tmp_path))
    return tmp_path / "run.yaml"


def test_a_run_that_was_stopped_sends_what_one_run_would_and_a_replay_nothing(
    config: Path, receiver: Receiver
) -> None:
    streamlearn.run(config, limit=4700)
    streamlearn.run(config)
    text = (config.parent / "alerts.jsonl").read_text()
    alerts = [json.loads(line) for line in text.splitlines()]
    assert len(alerts) >= 3
    receiver.wait_for(len(alerts))
    assert receiver.taken == alerts
    streamlearn.replay(config)
    assert len(receiver.taken) == len(alerts)


def test_a_webhook_needs_checkpoints(config: Path) -> None:
    text = config.read_text()
    config.write_text("\n".join(line for line in text.splitlines() if "checkpoint" not in line))
    with pytest.raises(UserError, match=r"checkpoint: must be there for a webhook"):
        streamlearn.load_config(config)


# -- kill -9 ---------------------------------------------------------------------------------------

KILLED = """
import json, os, signal, sys
from pathlib import Path
from tests.connectors.test_webhook import Webhook, alarms
sink = Webhook("http://127.0.0.1:9/hook", Path(sys.argv[1]) / "webhook", pauses=(30.0, 60.0))
sink.open(None)
sink.write(alarms(0, 3))
print(json.dumps(sink.commit()), flush=True)
sink.write(alarms(3, 2))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_no_alarm(receiver: Receiver, tmp_path: Path) -> None:
    """Killed with three alarms before its checkpoint and two behind it, while nobody answered."""
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, check=False, cwd=ROOT
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    again = hook(receiver, tmp_path)
    again.open(json.loads(ran.stdout))
    again.write(alarms(3, 2))  # what came after the checkpoint is raised again
    receiver.wait_for(5)
    again.write(alarms(5))
    receiver.wait_for(6)
    again.close()
    assert receiver.numbers == [0, 1, 2, 3, 4, 5]
