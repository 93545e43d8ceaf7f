"""Health: what is live, what is ready, and that HTTP says it."""

import json
import socket
import urllib.error
import urllib.request
from typing import Any, NamedTuple

import pytest

from streamlearn.connectors.kafka.source import Lag
from streamlearn.errors import UserError
from streamlearn.health import HealthServer, Watch, brief, together
from streamlearn.operators import (
    ADWIN,
    ChampionClassifier,
    ConformalClassifier,
    KalmanClassifier,
    Normalizer,
)
from streamlearn.pipeline import Pipeline
from streamlearn.vitals import Vitals


class Source:
    """What health wants of a source of topics."""

    def __init__(self) -> None:
        self.connected = self.assigned = True
        self.lags: dict[str, Lag] = {"t/0": Lag(3, 0.5), "t/1": Lag(0, 0.0)}

    def lag(self) -> dict[str, Lag]:
        return self.lags


class Read(NamedTuple):
    sources: list[Source]


class Measured:
    """What health wants of an evaluation."""

    rolling = ("accuracy", 0.5)

    def standing(self) -> dict[str, Any]:
        return {"scored": 9, "windowed": {"accuracy": 0.5}}


class Running:
    """What health wants of an engine."""

    def __init__(self) -> None:
        self.at = Source()
        self.source = Read([self.at])
        self.events, self.rejects, self.alarms = 10, 1, 0
        self.resumed_at = 4
        self.evaluation, self.webhook = Measured(), None
        self.pipeline = Pipeline(KalmanClassifier(), ADWIN())
        self.vitals = Vitals(model="m", about={"task": "classification"}, clock=lambda: 5.0)


class Outputs(NamedTuple):
    in_flight: int = 7
    connected: bool = True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def watching(engine: Any, **options: Any) -> tuple[Watch, Clock]:
    clock = Clock()
    watch = Watch(clock=clock, **options)
    watch.add("all", engine, Outputs())
    return watch, clock


def test_a_run_is_ready_once_its_loop_turns_and_tells_its_numbers() -> None:
    watch, _ = watching(Running())
    assert watch.status()["why"] == ["the checkpoint is not loaded yet"]
    watch.beat()
    told = watch.status()
    assert told["live"]
    assert told["ready"]
    assert brief(told)["lineages"]["all"] == {
        "assigned": True, "events": 10, "dead_letters": 1, "alarms": 0, "in_flight": 7,
        "rolling": {"accuracy": 0.5},
        "lag": {"t/0": {"records": 3, "seconds": 0.5}, "t/1": {"records": 0, "seconds": 0.0}},
    }  # fmt: skip


def test_a_snapshot_holds_what_metrics_and_the_live_page_show_as_plain_values() -> None:
    watch, clock = watching(engine := Running())
    watch.beat()
    engine.events, clock.now = 30, 102.0
    engine.vitals.ran(0.002, None)
    watch.beat()
    told = watch.lineages["all"]
    assert json.loads(json.dumps(told)) == told
    assert told["events_per_second"] == 10.0
    assert told["since_start"] == {"events": 26, "alarms": 0, "dead_letters": 0}
    assert told["about"] == {"task": "classification"}
    assert told["standing"] == {"scored": 9, "windowed": {"accuracy": 0.5}}
    assert told["drift"] == [
        {"stage": "ADWIN", "detector": "ADWIN", "watches": "error", "mean": 0.0, "window": 0}
    ]
    assert told["state_bytes"] == engine.pipeline.state_bytes
    assert (told["blocks"]["n"], told["blocks"]["sum"]) == (1, 0.002)
    assert told["labels"] is told["checkpoint"] is told["version"] is None


def test_what_stands_within_a_wrapper_and_a_pipeline_in_it_is_told_too() -> None:
    engine = Running()
    inner = Pipeline(Normalizer(), ChampionClassifier(KalmanClassifier()))
    engine.pipeline = Pipeline(ConformalClassifier(inner))
    watch, _ = watching(engine)
    watch.beat()
    told = watch.lineages["all"]
    assert told["version"] == 1
    assert [(found["stage"], found["detector"]) for found in told["drift"]] == [
        ("ConformalClassifier", "ADWIN")
    ]


@pytest.mark.parametrize(
    ("lags", "ready", "why"),
    [
        ({"t/0": Lag(5, 1.0), "t/1": Lag(5, 1.0)}, True, []),
        ({"t/0": Lag(5, 1.0), "t/1": Lag(6, 1.0)}, False, ["11 records behind, more than 10"]),
        ({"t/0": Lag(None, None)}, False, ["how far it is behind is not known yet"]),
    ],
)
def test_a_run_that_is_behind_by_more_than_its_limit_is_not_ready(
    lags: dict[str, Lag], ready: bool, why: list[str]
) -> None:
    engine = Running()
    engine.at.lags = lags
    watch, _ = watching(engine, max_lag=10)
    watch.beat()
    assert (watch.status()["ready"], watch.status()["why"]) == (ready, why)


def test_a_loop_that_waits_for_its_broker_lives_and_one_that_hangs_does_not() -> None:
    engine = Running()
    watch, clock = watching(engine, stalled=60.0)
    watch.beat()
    clock.now += 61
    hung = watch.status()
    assert (hung["live"], hung["ready"]) == (False, False)
    assert hung["why"] == ["the loop has not moved for 61 s"]
    engine.at.connected = False
    away = watch.status()
    assert (away["live"], away["ready"]) == (True, False)
    assert "the broker does not answer" in away["why"]


def test_lags_are_looked_at_once_a_second_whatever_the_beats() -> None:
    engine = Running()
    watch, clock = watching(engine)
    watch.beat()
    engine.events = 20
    clock.now += 0.9
    watch.beat()
    assert watch.status()["lineages"]["all"]["events"] == 10
    clock.now += 0.1
    watch.beat()
    assert watch.status()["lineages"]["all"]["events"] == 20
    watch.remove("all")
    assert watch.status()["lineages"] == {}


def test_looks_that_take_long_twice_in_a_row_are_taken_less_often() -> None:
    """Of 50 ms each, as over a window of a million rows: 5 s from one to the next."""
    engine, looks = Running(), list[float]()
    watch, clock = watching(engine)

    def standing() -> dict[str, Any]:
        clock.now += 0.05
        looks.append(clock.now)
        return {}

    engine.evaluation.standing = standing  # type: ignore[method-assign]
    watch.beat()
    for seconds, n in ((0.9, 1), (0.1, 2), (4.8, 2), (0.2, 3)):
        clock.now += seconds
        watch.beat()
        assert len(looks) == n


def test_several_processes_are_live_and_ready_together() -> None:
    watch, _ = watching(Running())
    watch.beat()
    good = watch.status()
    late = good | {"ready": False, "why": ["late"], "lineages": {"b": {}}}
    assert together({"0": good, "1": late})["why"] == ["1: late"]
    assert not together({"0": good, "1": late})["ready"]
    assert set(together({"0": good, "1": late})["lineages"]) == {"all", "b"}
    assert together({"0": good})["ready"]
    assert not together({})["ready"]


def get(port: int, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        body = error.read()
        return error.code, json.loads(body) if body.startswith(b"{") else None


def test_http_answers_200_or_503_with_the_same_json() -> None:
    status = {"live": True, "ready": False, "why": ["late"]}
    with HealthServer("127.0.0.1", 0, lambda: status) as server:
        assert get(server.port, "/health/live") == (200, status)
        assert get(server.port, "/health/ready?verbose=1") == (503, status)
        assert get(server.port, "/health/other")[0] == 404
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as asking:
            asking.sendall(b"HEAD /health/live HTTP/1.0\r\n\r\n")  # as load balancers may
            answer = asking.makefile("rb").read()
        assert b" 200 OK\r\n" in answer
        assert answer.endswith(b"\r\n\r\n")  # and no body
        with (
            pytest.raises(UserError, match=r"^health: cannot listen on .*; choose another port$"),
            HealthServer("127.0.0.1", server.port, lambda: status),
        ):
            pass
