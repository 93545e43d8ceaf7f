"""HTTP to ask and to learn by id: over real sockets, and through kill -9."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from streamlearn import cli, http_learning, serve
from streamlearn.checkpoint import describe
from streamlearn.config import check
from streamlearn.errors import UserError
from streamlearn.request_checks import Checks, RefusedError, openapi
from streamlearn.schema import LabelSchema, Schema

TOKEN = "0123456789abcdef-streamlearn"
ROOT = Path(__file__).resolve().parent.parent


def config(folder: Path, sink: bool = False, **served: Any) -> dict[str, Any]:
    more = {"sink": str(folder / "answers.jsonl")} if sink else {}
    return more | {
        "schema": {"id": "id", "target": "y", "task": "classification",
                   "features": {"a": "number", "b": "number", "c": "category"}},
        "pipeline": ["Imputer", "OneHotEncoder", "Normalizer", "KalmanClassifier"],
        "checkpoint": {"path": str(folder / "checkpoints"), "every_events": 50},
        "dead_letters": str(folder / "dead.jsonl"),
        "serve": {"port": 0} | served,
    }  # fmt: skip


class Client:
    """Asks over one connection."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self.headers: dict[str, str] = {}

    def __call__(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON; a body that is no bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        method = "GET" if body is None else "POST"
        self._connection.request(method, path, data, self._headers)
        response = self._connection.getresponse()
        text = response.read()
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, json.loads(text) if text.startswith((b"{", b"[")) else text

    def close(self) -> None:
        self._connection.close()


class Running(NamedTuple):
    ask: Client
    port: int
    plan: serve.Served
    folder: Path
    engine: Any
    stop: Any


@contextlib.contextmanager
def running(
    folder: Path, shown: str | None = None, ends: str = "", **served: Any
) -> Iterator[Running]:
    """A server whose engine runs in a thread. ends: what its run ends with."""
    plan = serve.planned(check(config(folder, **served)))
    with serve.opened(plan) as (engine, app, server):
        begun, wrong = threading.Event(), []

        def run() -> None:
            try:
                serve.run(engine, app, server.address, lambda _: begun.set())
            except UserError as error:
                wrong.append(str(error))

        loop = threading.Thread(target=run)
        loop.start()
        assert begun.wait(20)
        client = Client(server.port, shown)
        try:
            yield Running(client, server.port, plan, folder, engine, app.stop)
        finally:
            client.close()
            app.stop()
            loop.join(20)
            assert not loop.is_alive()
            assert wrong == [ends] * bool(ends)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("serve"), max_body=2000, max_batch=20) as found:
        yield found


def event(id: Any, **features: Any) -> dict[str, Any]:
    return {"id": id, "features": features}


def test_it_answers_and_learns(server: Running) -> None:
    ask = server.ask
    for i in range(30):
        status, answer = ask("/predict", event(f"e{i}", a=i % 2, b=1.0, c="xy"[i % 2]))
        assert (status, answer["id"]) == (200, f"e{i}")
        label = {"id": f"e{i}", "label": "no" if i % 2 else "yes"}
        assert ask("/learn", label) == (200, {"id": f"e{i}", "status": "accepted"})
    status, answer = ask("/predict", event("e-last", a=1, b=1.0, c="y"))
    assert answer["prediction"] == "no"
    assert set(answer["probabilities"]) == {"yes", "no"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_batches_are_answered_in_order(server: Running) -> None:
    batch = [event(f"batch{i}", a=i) for i in range(20)]
    status, answers = server.ask("/predict", batch)
    assert status == 200
    assert [answer["id"] for answer in answers] == [one["id"] for one in batch]
    numbers = [answer["event"] for answer in answers]
    assert numbers == list(range(numbers[0], numbers[0] + 20))
    labels = [{"id": f"batch{i}", "label": "no"} for i in range(20)]
    status, told = server.ask("/learn", labels)
    assert [one["status"] for one in told] == ["accepted"] * 20


def test_an_id_is_asked_once(server: Running) -> None:
    ask = server.ask
    first = ask("/predict", event(77, a=1.5, c="x"))
    assert first[0] == 200
    records = server.plan.journal.next
    assert ask("/predict", event(77, c="x", a=1.5)) == first
    assert ask("/predict", event("77", a=1.5, c="x")) == first
    assert ask("/predict", [event(77, a=1.5, c="x")] * 2) == (200, [first[1]] * 2)
    status, told = ask("/predict", event(77, a=2.5, c="x"))
    assert (status, told["error"]) == (409, "id 77: was asked with other features; take another id")
    assert server.plan.journal.next == records


def test_a_label_is_learnt_once(server: Running) -> None:
    ask = server.ask
    assert ask("/predict", event(78))[0] == 200
    assert ask("/learn", {"id": 78, "label": "yes"})[1]["status"] == "accepted"
    records = server.plan.journal.next
    assert ask("/learn", {"id": "78", "label": "yes"})[1]["status"] == "repeated"
    status, told = ask("/learn", {"id": 78, "label": "no"})
    assert (status, told["error"]) == (409, "id 78: has the label 'yes' already; that counts")
    assert server.plan.journal.next == records


@pytest.mark.parametrize(("path", "body", "reason"), [
    ("/predict", b"{", "body: must be JSON"),
    ("/predict", b"\xff", "body: must be JSON"),
    ("/predict", b"[" * 1500, "body: must be JSON"),
    ("/predict", b'{"id": 1, "features": {"a": NaN}}', "body: must be JSON"),
    ("/predict", [], "body: must have from 1 to 20 items, got 0"),
    ("/predict", [event(i) for i in range(21)], "body: must have from 1 to 20 items, got 21"),
    ("/predict", 7, "body: must be an object, got 7"),
    ("/predict", {"features": {}}, "id: must be there"),
    ("/predict", {"id": 1}, "features: must be there"),
    ("/predict", {"id": 1, "features": {}, "x": 1}, "x: is an unknown field; there are id, feat"),
    ("/predict", event(None), "id: must be a text or a whole number, got None"),
    ("/predict", event(True), "id: must be a text or a whole number, got True"),
    ("/predict", event(""), "id: must name the event, got ''"),
    ("/predict", {"id": 1, "features": [1]}, "features: must be an object, got [1]"),
    ("/predict", event(1, z=1), "features.z: is an unknown field; there are a, b, c"),
    ("/predict", event(1, y="yes"), "features.y: is an unknown field; there are a, b, c"),
    ("/predict", event(1, a="many"), "event: feature 'a' must be a number, got 'many'"),
    ("/predict", event(1, a=[1]), "event: feature 'a' must be a number, got [1]"),
    ("/predict", [event(1), event(2, a="many")], "[1].event: feature 'a' must be a number"),
    ("/learn", {"id": 1}, "label: must be there"),
    ("/learn", {"id": 1, "label": None}, "label: must have a value"),
    ("/learn", {"id": 1, "label": [1]}, "label: target 'y' must be"),
    ("/learn", {"id": 1, "label": "a", "time": 1}, "time: is an unknown field"),
    ("/learn", {"id": [], "label": "a"}, "id: must be a text or a whole number"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_whole(
    server: Running, path: str, body: Any, reason: str
) -> None:
    records = server.plan.journal.next
    status, told = server.ask(path, body)
    assert status == 422
    assert told["error"].startswith(reason)
    assert server.plan.journal.next == records


def test_a_body_is_bounded(server: Running) -> None:
    many = b'{"id": 1, "features": {"c": "' + b"x" * 2000 + b'"}}'
    client = Client(server.port)
    status, told = client("/predict", many)
    assert (status, told["error"]) == (
        413,
        "body: must have at most 2000 bytes; send smaller batches",
    )
    client.close()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    chunks = iter([many[:1500], many[1500:]])  # of a length that is not told
    connection.request("POST", "/predict", chunks, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_who_sends_far_too_much_is_told_and_may_go_on(server: Running) -> None:
    """More than the buffers of a connection hold: to close it would break the sending."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", "/predict", bytes(30_000_000))
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]) == (
        413,
        "body: must have at most 2000 bytes; send smaller batches",
    )
    connection.request("GET", "/health/live")
    assert connection.getresponse().status == 200
    connection.close()


def test_a_body_too_large_that_waits_to_be_asked_for_is_not_asked_for(server: Running) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head + b"Expect: 100-continue\r\n\r\n")
        with connection.makefile("rb") as answer:  # to the end: it is closed
            assert answer.read().startswith(b"HTTP/1.1 413 ")


def test_other_paths_and_methods(server: Running) -> None:
    assert server.ask("/predict")[0] == 405
    assert server.ask("/nothing")[0] == 404
    assert server.ask("/metrics", {})[0] == 404


def test_it_describes_itself(server: Running) -> None:
    status, told = server.ask("/openapi.json")
    assert (status, told["openapi"]) == (200, "3.1.0")
    assert {"/predict", "/learn", "/metrics", "/health/live"} <= set(told["paths"])
    features = told["components"]["schemas"]["Event"]["properties"]["features"]
    assert set(features["properties"]) == {"a", "b", "c"}
    assert features["additionalProperties"] is False
    names = set(told["components"]["schemas"])
    refs = json.dumps(told).split("#/components/schemas/")[1:]
    assert {ref.partition('"')[0] for ref in refs} <= names


def test_health_and_metrics(server: Running) -> None:
    for path in ("/health/live", "/health/ready"):
        status, told = server.ask(path)
        assert status in (200, 503)
        assert "last_alarms" not in json.dumps(told)
    pytest.importorskip("prometheus_client")
    status, text = server.ask("/metrics")
    assert status == 200
    assert b"streamlearn_live 1.0" in text


def test_without_the_token_nothing_is_told(tmp_path: Path) -> None:
    with running(tmp_path, TOKEN, token=TOKEN) as found:
        stranger = Client(found.port, "wrong" * 5)
        for path in ("/predict", "/learn"):
            assert stranger(path, event(1))[0] == 401
        for path in ("/metrics", "/openapi.json", "/health/live"):
            assert stranger(path)[0] == 401
        stranger.close()
        assert found.plan.journal.next == 0
        assert found.ask("/predict", event(1))[0] == 200


def test_a_full_backlog_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, reached = threading.Event(), threading.Event()
    with running(tmp_path, backlog=4, max_batch=4) as found:
        real = found.engine.pipeline.run

        def held(block: Any) -> Any:
            reached.set()
            assert gate.wait(20)
            return real(block)

        monkeypatch.setattr(found.engine.pipeline, "run", held)
        others = [Client(found.port) for _ in range(2)]
        told: list[Any] = []

        def ask(client: Client, first: int) -> None:
            told.append(client("/predict", [event(first + i) for i in range(4)]))

        threads = [threading.Thread(target=ask, args=(one, 10 * i))
                   for i, one in enumerate(others)]  # fmt: skip
        threads[0].start()
        assert reached.wait(20)  # the first four are with the engine
        threads[1].start()
        while found.plan.requests.waiting < 4:
            pass
        status, answer = found.ask("/predict", event(99))
        assert (status, answer["error"]) == (503, "too many requests wait; ask again")
        assert found.ask.headers["retry-after"] == "1"
        gate.set()
        for thread in threads:
            thread.join(20)
        assert [status for status, _ in told] == [200, 200]
        assert found.ask("/predict", event(99))[0] == 200
        for one in others:
            one.close()


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with running(tmp_path) as found:
        first = found.ask("/predict", event(1, a=1.0, c="x"))
        found.stop()
    with running(tmp_path) as found:
        assert found.ask("/predict", event(1, a=1.0, c="x")) == first
        assert found.ask("/predict", event(1, a=2.0))[0] == 409
        assert found.ask("/learn", {"id": 1, "label": "yes"})[0] == 200
        assert found.ask("/predict", event(2))[1]["prediction"] == "yes"
    assert describe(tmp_path / "checkpoints")["events"] == 2


def test_a_file_of_answers_may_come_and_go_between_two_starts(tmp_path: Path) -> None:
    for id, sink in enumerate((False, True, False)):
        with running(tmp_path, sink=sink) as found:
            assert found.ask("/predict", event(id))[1]["event"] == id
            assert found.ask("/predict", event(0))[1]["event"] == 0
    (line,) = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == 1


def test_a_clock_that_is_set_back_costs_no_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = iter(range(20_000, 0, -1))  # each look at the clock a day before the one before
    monkeypatch.setattr(http_learning, "_now", lambda: 86_400_000 * next(days))
    for start in range(2):  # the second time nothing but the journal knows how late it was
        with running(tmp_path, timeout="1h") as server:
            for i in range(3):
                assert server.ask("/predict", event(f"{start}-{i}", a=1))[0] == 200
                assert server.ask("/learn", {"id": f"{start}-{i}", "label": "yes"})[0] == 200
        labels: Any = server.plan.job.labels
        report = labels.report()
        assert (report["labelled"], report["expired"], report["late"]) == (3 * start + 3, 0, 0)


def test_checkpoints_of_a_run_that_did_not_serve_are_refused(tmp_path: Path) -> None:
    plan = serve.planned(check(config(tmp_path)))
    assert plan.job.sink is not None
    for position in ({"bytes": 7}, [{"bytes": 7}, None], 7):
        with pytest.raises(UserError, match="is of a run that did not serve"):
            plan.job.sink.open(position)


def test_what_nobody_needs_any_more_goes(tmp_path: Path) -> None:
    """Segments before the kept checkpoints, and answers beyond those that are remembered."""
    small: dict[str, Any] = {"backlog": 20, "max_batch": 20, "remember": 20}
    with running(tmp_path, **small) as found:
        found.plan.journal._segment_bytes = found.plan.book._journal._segment_bytes = 400
        answers = [found.ask("/predict", event(i, a=1.0))[1] for i in range(400)]
        assert found.plan.journal.first > 100
        assert found.plan.book._journal.first >= 100
        assert len(found.plan.book._known) == 20
        assert found.ask("/predict", event(399, a=1.0))[1] == answers[399]
    with running(tmp_path, **small) as found:
        assert len(found.plan.book._known) == 20
        for i in range(380, 400):
            assert found.ask("/predict", event(i, a=1.0))[1] == answers[i]
        assert found.ask("/predict", event(0, a=1.0))[1]["event"] == 400  # forgotten: a new one


def test_a_disk_that_refuses_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk = "requests: no space left on the disk"
    with running(tmp_path, ends=full_disk) as found:
        assert found.ask("/predict", event(1))[0] == 200

        def full(records: Any) -> int:
            raise UserError(full_disk)

        monkeypatch.setattr(found.plan.journal, "append", full)
        status, told = found.ask("/predict", event(2))
        assert (status, told["error"]) == (503, "the request could not be kept; ask again")
        assert found.ask("/predict", event(3))[0] == 503
    with running(tmp_path) as again:
        assert again.ask("/predict", event(2))[1]["event"] == 1


def test_a_label_that_comes_again_is_not_told_to_be_kept_before_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk, label = "requests: no space left on the disk", {"id": 1, "label": "yes"}
    writing, failing, again = (threading.Event() for _ in range(3))
    with running(tmp_path, ends=full_disk) as found:
        assert found.ask("/predict", event(1))[0] == 200
        real = found.plan.checks.learn

        def full(records: Any) -> int:
            writing.set()
            assert failing.wait(20)
            raise UserError(full_disk)

        def checked(body: bytes) -> Any:
            if writing.is_set():  # the loop goes on with this request before it hears of the disk
                again.set()
            return real(body)

        monkeypatch.setattr(found.plan.journal, "append", full)
        monkeypatch.setattr(found.plan.checks, "learn", checked)
        told: list[int] = []
        others = [Client(found.port) for _ in range(2)]
        threads = [
            threading.Thread(target=lambda c=client: told.append(c("/learn", label)[0]))
            for client in others
        ]
        for thread, heard in zip(threads, (writing, again), strict=True):
            thread.start()
            assert heard.wait(20)
        failing.set()
        for thread, client in zip(threads, others, strict=True):
            thread.join(20)
            client.close()
        assert told == [503, 503]


# -- kill -9 ---------------------------------------------------------------------------------------


class Killed:
    """Serves in processes that may be killed."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.crash_http"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def start(self, config: dict[str, Any]) -> tuple[int, Client]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(config) + "\n")
        self._process.stdin.flush()
        pid, address = self.said()
        return pid, Client(int(address.rstrip("/").rpartition(":")[2]))

    def said(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def end(self, pid: int, how: signal.Signals) -> int:
        os.kill(pid, how)
        return int(self.said())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def killed() -> Iterator[Killed]:
    found = Killed()
    yield found
    found.close()


def steps(n: int) -> Iterator[tuple[str, Any]]:
    """Requests: batches of events, and the labels of those before."""
    for k in range(n):
        ids = range(7 * k, 7 * k + 7)
        yield "/predict", [event(i, a=i % 5 - 2.0, b=i % 3, c="xyz"[i % 3]) for i in ids]
        if k >= 3:
            yield "/learn", [{"id": i - 21, "label": str((i - 21) % 5 > 2)} for i in ids]


def persistent(ask: Client, path: str, body: Any) -> tuple[int, Any]:
    """As a client does that was told to ask again."""
    while True:
        status, told = ask(path, body)
        if status != 503:
            return status, told


def test_kill_9_in_the_middle_changes_nothing(tmp_path: Path, killed: Killed) -> None:
    told: list[Any] = []
    pid, ask = killed.start(config(tmp_path))
    for k, (path, body) in enumerate(steps(40)):
        if k in (20, 41):  # sent, and killed before the answer is read
            ask._connection.request("POST", path, json.dumps(body))
            assert killed.end(pid, signal.SIGKILL) == -signal.SIGKILL
            ask.close()
            pid, ask = killed.start(config(tmp_path))
        status, answer = persistent(ask, path, body)
        assert status == 200
        told += [answer] if path == "/predict" else []
    for answer, (_, body) in zip(
        told[:3], [s for s in steps(40) if s[0] == "/predict"], strict=False
    ):
        assert ask("/predict", body) == (200, answer)  # from before both kills
    ask.close()
    assert killed.end(pid, signal.SIGTERM) == 0
    # the same requests, from the journal alone
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "checkpoints" / "requests", other / "checkpoints" / "requests")
    pid, ask = killed.start(config(other))
    assert persistent(ask, *next(steps(1)))[1] == told[0]
    ask.close()
    assert killed.end(pid, signal.SIGTERM) == 0
    for part in ("answers", "requests"):
        assert contents(tmp_path, part) == contents(other, part)
    assert last(tmp_path) == last(other)
    assert describe(other / "checkpoints")["events"] == 280
    assert len({one["event"] for batch in told for one in batch}) == 280
    assert (tmp_path / "dead.jsonl").read_bytes() == (other / "dead.jsonl").read_bytes()


def contents(folder: Path, part: str) -> bytes:
    paths = sorted((folder / "checkpoints" / part).iterdir())
    return b"".join(path.read_bytes() for path in paths)


def last(folder: Path) -> bytes:
    return sorted((folder / "checkpoints").glob("*.safetensors"))[-1].read_bytes()


def test_validate_knows_what_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(json.dumps(config(tmp_path)), encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        cli.main(["validate", str(path)])
    assert end.value.code == 0
    assert "is valid" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [path]


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "taken", "refused", "rule"),
    [
        ("boolean", [True, False, "true", 0], ["x", 2, "yes please"], "true or false"),
        ("integer", [3, "4", 5.0], ["x", 2.5], "a whole number"),
        ("text", ["x", 2, True], [], ""),
    ],
)
def test_a_label_is_what_the_description_says(
    classes: str, taken: list[Any], refused: list[Any], rule: str
) -> None:
    table = {"target": "y", "task": "classification", "classes": classes, "id": "i"}
    schema = Schema.from_config({**table, "features": {"a": "number"}})
    checks = Checks(schema, LabelSchema.from_config(table), 10)
    for label in taken:
        items, _ = checks.learn(json.dumps({"id": 1, "label": label}).encode())
        assert len(items) == 1
    for label in refused:
        body = json.dumps([{"id": 1, "label": taken[0]}, {"id": 2, "label": label}]).encode()
        with pytest.raises(RefusedError, match=rf"^\[1\]\.label: must be {rule}, .* got "):
            checks.learn(body)


def test_a_time_that_must_be_there_is_described_so() -> None:
    table = {"target": "y", "task": "regression", "id": "i", "time": "t"}
    schema = Schema.from_config({**table, "features": {"a": "number"}})
    checks = Checks(schema, LabelSchema.from_config(table), 10)
    moment = {"type": ["string", "number"]}
    schemas: Any = openapi(checks, 100, False)["components"]["schemas"]
    features = schemas["Event"]["properties"]["features"]
    assert (features["required"], features["properties"]["t"]) == (["t"], moment)
    assert schemas["Label"]["required"] == ["id", "label", "time"]
    assert schemas["Label"]["properties"]["time"] == moment
    for features in ({"a": 1.0}, {"a": 1.0, "t": None}):
        with pytest.raises(RefusedError, match="time 't' must be there"):
            checks.predict(json.dumps({"id": 1, "features": features}).encode())
    with pytest.raises(RefusedError, match="time 't' must be there"):
        checks.learn(b'{"id": 1, "label": 2.5, "time": null}')


@pytest.mark.parametrize(("change", "reason"), [
    ({"schema": None}, "schema: must be there to serve"),
    ({"checkpoint": None}, "checkpoint: must be there to serve"),
    ({"labels": {"delay": 5}}, "labels: come by POST /learn"),
    ({"kafka": {"bootstrap": "x:1"}}, "kafka: is for `streamlearn run`"),
    ({"serve": {"port": 0, "timeout": "soon"}}, "serve.timeout: must be a number of rows"),
    ({"serve": {"max_batch": 30_000}}, "serve: max_batch must be <= backlog"),
    ({"serve": {"host": "0.0.0.0"}}, "serve: token must be there with host 0.0.0.0"),
])  # fmt: skip
def test_mistakes_are_told(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    table = config(tmp_path) | change
    with pytest.raises(UserError, match=reason):
        serve.planned(check({k: v for k, v in table.items() if v is not None}))
