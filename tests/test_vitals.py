"""Vital signs of an engine: histograms, alarms and rejects that are kept, what is a log line."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamlearn
from streamlearn import engine as engines
from streamlearn import health, logs
from streamlearn.block import NO_TIME, OBSERVE, PREDICT, Block, Features
from streamlearn.contracts import Answers, Origins, Reject
from streamlearn.vitals import MAX_ALARMS, MAX_KINDS, Histogram, Vitals, reason_class


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def rows(n: int) -> Block:
    mode = np.full(n, PREDICT | OBSERVE, dtype=np.uint8)
    return Block(np.zeros((n, 1)), np.zeros(n), np.ones(n), mode, Features(("x",)))


def answers(alarm: list[int], *findings: dict[str, Any]) -> Answers:
    """A block of rows, on some of which there was an alarm, each with the same findings."""
    n = len(alarm)
    why = np.full(n, None, dtype=object)
    for row in np.flatnonzero(alarm):
        why[row] = findings
    outputs = {"alarm": np.array(alarm, dtype=np.uint8), "why": why}
    return Answers(rows(n), outputs, first_row=10)


@pytest.mark.parametrize("many", [False, True])
def test_a_histogram_counts_as_numpys_under_upper_bounds(many: bool) -> None:
    bounds = (0.1, 1.0, 10.0)
    values = np.array([0.05, 0.1, 0.1001, 1.0, 9.0, 11.0, 1e9])
    histogram = Histogram(bounds)
    if many:
        histogram.add_all(values)
    else:
        for value in values.tolist():
            histogram.add(value)
    told = histogram.told()
    below = [int(np.sum(values <= bound)) for bound in bounds]  # of the definition of a bucket
    assert np.cumsum(told["counts"]).tolist() == [*below, 7]
    assert told["n"] == 7
    assert told["sum"] == pytest.approx(values.sum())


def test_the_latency_of_records_is_from_their_time_to_now_and_never_below_zero() -> None:
    vitals = Vitals(wall=lambda: 1000.0)
    times = np.array([999.5, 990.0, 1001.0]) * 1e9
    lane = np.array([0, 0, 1])
    origins = Origins([("t", 0), ("t", 1)], lane, lane, times.astype(np.int64), None)
    vitals.ran(0.01, origins)
    told = vitals.told()
    assert told["latency"]["sum"] == pytest.approx(10.5)
    assert told["events_by_partition"] == {"t/0": 2, "t/1": 1}


def test_a_record_without_a_time_has_no_latency_and_its_alarm_no_time() -> None:
    vitals, lane = Vitals(wall=lambda: 1000.0), np.zeros(2, np.intp)
    times = np.array([NO_TIME, 999 * 10**9])
    origins = Origins([("t", 0)], lane, np.arange(2), times, None)
    vitals.ran(0.01, origins)
    assert vitals.told()["latency"]["sum"] == pytest.approx(1.0)
    assert vitals.told()["events_by_partition"] == {"t/0": 2}
    vitals.alarmed(answers([1, 1], {"detector": "ADWIN"})._replace(origins=origins), 0)
    assert [one.get("time") for one in vitals.told()["last_alarms"]] == [None, 999_000]


def test_alarms_are_kept_with_their_findings_as_json_and_only_the_last() -> None:
    vitals = Vitals(model="m")
    vitals.alarmed(answers([0, 1], {"detector": "KSWIN", "statistic": np.float64("nan")}), 7)
    assert vitals.told()["last_alarms"] == [
        {"alert": 7, "kind": "drift", "event": 11, "raised_by": "event", "model": "m",
         "findings": [{"detector": "KSWIN", "statistic": None}]}
    ]  # fmt: skip
    for k in range(100):
        vitals.alarmed(answers([1], {"detector": f"D{k}"}), 8 + k)
    told = vitals.told()
    assert [one["alert"] for one in told["last_alarms"]] == list(range(108 - MAX_ALARMS, 108))
    assert sum(told["alarms_by_detector"].values()) == 101
    assert len(told["alarms_by_detector"]) == MAX_KINDS + 1


@pytest.mark.parametrize(("action", "kind"), [
    ("reset", "drift"), ("promote", "promotion"), ("rollback", "rollback"),
])  # fmt: skip
def test_what_was_done_says_what_kind_of_alert_it_is(action: str, kind: str) -> None:
    vitals = Vitals()
    vitals.alarmed(answers([1], {"detector": "D", "action": action}), 0)
    assert vitals.told()["last_alarms"][0]["kind"] == kind


def test_alarms_are_structured_lines_of_the_log_ten_a_second_at_most(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    vitals = Vitals(log=True, clock=clock)
    with caplog.at_level(logging.INFO, "streamlearn"):
        vitals.alarmed(answers([1] * 25, {"detector": "ADWIN"}), 0)
        assert len(caplog.records) == 10
        clock.now += 1.0
        vitals.alarmed(answers([1], {"detector": "ADWIN"}), 25)
    line = logs.JsonLines().format(caplog.records[-1])
    told = json.loads(line)
    assert (told["event"], told["alert"], told["event_number"]) == ("alarm", 25, 10)
    assert told["findings"] == [{"detector": "ADWIN"}]


@pytest.mark.parametrize(("reason", "found"), [
    ("feature 'amount' must be a number, got 'abc'", "feature 'amount' must be a number"),
    ("target 'y' must be there, got no value", "target 'y' must be there"),
    ("event 'id-7' has a label already: that counts", "event … has a label already: that counts"),
    ("there was no event 12345", "there was no event …"),
    ("must be JSON: error at character 17", "must be JSON: error at character …"),
])  # fmt: skip
def test_the_class_of_a_reason_holds_nothing_of_a_record(reason: str, found: str) -> None:
    assert reason_class(reason) == found


def test_the_last_rejects_are_kept_and_all_are_counted_by_class() -> None:
    vitals = Vitals()
    vitals.rejected([Reject("f", k, f"there was no event {k}", b"raw") for k in range(50)])
    vitals.rejected([Reject("f", 50, "x" * 1000, b"raw")])
    told = vitals.told()
    assert told["dead_letters_by_reason"] == {"there was no event …": 50, "x" * 200: 1}
    assert [one["position"] for one in told["last_dead_letters"]] == list(range(31, 51))
    assert len(told["last_dead_letters"][-1]["reason"]) == 200


def test_a_run_notes_its_blocks_alarms_and_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the configuration and the engine: one look at the end sees everything."""
    lines = [f"{k % 7},{int((k % 7 > 3) ^ (k > 2000))}" for k in range(4000)]
    (tmp_path / "data.csv").write_text("x,y\n" + "\n".join(lines) + "\nbad,1\n")
    (tmp_path / "run.yaml").write_text(f"""
source: {tmp_path}/data.csv
schema: {{target: y, features: {{x: number}}, task: classification, classes: integer}}
pipeline: [Normalizer, {{AdaptiveClassifier: {{model: Kalman, detector: ADWIN}}}}]
checkpoint: {{path: {tmp_path}/state, every_events: 1000}}
engine: {{block_rows: 500}}
""")
    seen: list[Any] = []
    ended = engines.Engine.end

    def end(engine: Any) -> Any:
        summary = ended(engine)
        engine.vitals._measure_at = 0.0  # the state is counted anew, however long it took last
        seen.append(health.snapshot(engine))
        return summary

    monkeypatch.setattr(engines.Engine, "end", end)
    result = streamlearn.run(tmp_path / "run.yaml")
    told = seen[0]
    assert told["events"] == result.events == 4000
    assert told["blocks"]["n"] == 8
    assert told["alarms"] == len(told["last_alarms"]) >= 1
    assert told["last_alarms"][0]["findings"][0]["detector"] == "ADWIN"
    assert told["standing"]["windowed"] == result.windowed
    assert told["checkpoint"]["number"] == len(range(0, 4001, 1000))
    assert told["checkpoint"]["bytes"] > 1000
    assert told["dead_letters_by_reason"] == {"feature 'x' must be a number": 1}
    assert told["state_bytes"] == result.state_bytes
    baselines = {name: one["windowed"] for name, one in result.baselines.items()}
    assert told["standing"]["baselines"] == baselines
