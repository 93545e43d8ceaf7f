"""Late labels, groups, known drifts and wrong inputs, as a user asks for them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamlearn import UserError, replay, run
from streamlearn.cli import main
from streamlearn.config import check
from streamlearn.engine import Engine
from streamlearn.job import evaluation_of, store_of, stream_for, with_late_labels
from streamlearn.operators import NoChangeClassifier
from streamlearn.pipeline import Pipeline
from streamlearn.result import Result
from streamlearn.runner import plan

N = 240
START = 1_700_000_000


def records() -> list[dict[str, Any]]:
    """Events a minute apart, in two groups, with the time at which each label became known."""
    rng = np.random.default_rng(3)
    rows = []
    for t in range(N):
        a, b = rng.normal(size=2).round(4)
        known = START + 60 * (t + int(rng.integers(0, 30)))
        label = "yes" if a + b > 0 else "no"
        rows.append(
            {"id": f"e{t}", "t": START + 60 * t, "a": a, "b": b, "place": "xyz"[t % 3],
             "known": "" if t % 20 == 7 else known, "y": label}
        )  # fmt: skip
    return rows


def write(path: Path, rows: list[dict[str, Any]], *names: str) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names or list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def events_and_labels(folder: Path) -> tuple[Path, Path]:
    """The events without labels, and the labels in the order in which they became known."""
    rows = records()
    known = [row for row in rows if row["known"] != ""]
    known.sort(key=lambda row: row["known"])
    labels = [{"id": row["id"], "t": row["known"], "y": row["y"]} for row in known]
    return write(folder / "events.csv", rows, "id", "t", "a", "b"), write(
        folder / "labels.csv", labels
    )


def learnt(result: Result) -> dict[str, Any]:
    """What a run measured, without clocks, names and what is said of the labels."""
    left_out = {"name", "seconds", "events_per_second", "labels", "schema", "config", "versions"}
    left_out |= {"resumed_at"}
    return {k: v for k, v in result.to_dict().items() if k not in left_out}


COLUMNS: dict[str, Any] = {"target": "y", "features": ["a", "b"]}


def test_a_delay_of_no_rows_is_no_delay() -> None:
    plain, delayed = (replay(data=records(), delay=delay, **COLUMNS) for delay in (None, 0))
    assert learnt(delayed) == learnt(plain)
    assert delayed.labels is None


def test_late_labels_teach_late() -> None:
    """With a delay beyond the stream nothing is ever learnt before the last event is answered."""
    soon, late = (replay(data=records(), delay=delay, **COLUMNS) for delay in (1, N))
    assert soon.scored > 0.9 * N
    assert late.scored == 0
    assert late.unanswered == N
    assert late.labels is not None
    assert late.labels["labelled"] == N


def test_a_column_says_when_a_label_became_known(tmp_path: Path) -> None:
    """The same stream, once with a column in the data and once with a stream of labels."""
    data = write(tmp_path / "all.csv", records())
    by_column = replay(data=data, delay="known", time="t", id="id", **COLUMNS)
    events, labels = events_and_labels(tmp_path)
    joined = replay(data=events, labels=labels, id="id", time="t", **COLUMNS)
    found, expected = learnt(joined), learnt(by_column)
    assert found["delayed"].pop("pending") == N // 20  # the column tells that they never come
    assert expected["delayed"].pop("pending") == 0
    assert found == expected
    assert joined.labels is not None
    assert by_column.labels is not None
    assert joined.labels["labelled"] == by_column.labels["labelled"] == N - N // 20
    assert by_column.labels["unlabelled"] == N // 20
    assert joined.labels["pending"] == N // 20


def test_what_the_evaluation_remembers_is_spilled_as_well(tmp_path: Path) -> None:
    """Above the limit of memory, with a model that logs next to nothing itself."""
    rows = [{"a": float(i % 7), "y": "no" if i % 3 else "yes"} for i in range(20_000)]
    config = check(
        {"labels": {"delay": 100_000, "memory_mb": 1}, "checkpoint": {"path": str(tmp_path)}}
    )
    stream = stream_for(rows, None, {"target": "y"}, config, print)
    job = stream.job(Pipeline(NoChangeClassifier()), evaluation_of(config, stream.schema))
    assert config.checkpoint is not None
    late = with_late_labels(job._replace(checkpoints=store_of(job, config.checkpoint, False)))
    engine = Engine(late.source, late.pipeline, evaluation=late.evaluation, limit=20_000)
    engine.run()
    named = late.evaluation.state().under("log").table["files"]
    assert named
    assert {path.name for path in (tmp_path / "spill").iterdir()} >= set(named)


def test_a_label_of_nothing_and_a_second_label_are_dead_letters(tmp_path: Path) -> None:
    events, labels = events_and_labels(tmp_path)
    with labels.open("a") as file:
        last = START + 60 * (N - 1)
        file.write(f"nobody,{last},yes\ne3,{last},yes\n")
    dead = tmp_path / "dead.jsonl"
    result = replay(data=events, labels=labels, id="id", time="t", dead_letters=dead, **COLUMNS)
    found = [json.loads(line)["reason"] for line in dead.read_text().splitlines()]
    assert len(found) == result.dead_letters == 2
    assert result.labels is not None
    assert result.labels["unknown"] == result.labels["duplicates"] == 1


def test_only_positives_come_back(tmp_path: Path) -> None:
    """Selective labels: what has none at its time-out is taken for the other class."""
    events, labels = events_and_labels(tmp_path)
    with labels.open(newline="") as file:
        positives = [row for row in csv.DictReader(file) if row["y"] == "yes"]
    write(labels, [*positives, {"id": "none", "t": START, "y": "no"}])  # a sample of both classes
    result = replay(
        data=events, labels=labels, id="id", time="t", timeout="40min", assume="no", **COLUMNS
    )
    told = result.labels
    assert told is not None
    assert told["labelled"] == len(positives)
    assert told["assumed"] > 0.3 * N
    assert set(result.per_class) == {"yes", "no"}


def test_metrics_by_group_add_up() -> None:
    result = replay(data=records(), by="place", ignore=["known", "id", "t"], target="y")
    assert set(result.by_group) == {"x", "y", "z"}
    scored = {name: found["scored"] for name, found in result.by_group.items()}
    assert sum(scored.values()) == result.scored
    right = sum(found["scored"] * found["accuracy"] for found in result.by_group.values())
    assert result.metrics["accuracy"] == pytest.approx(right / result.scored, abs=1e-12)


def test_known_drifts_are_judged() -> None:
    result = replay(data=records(), drifts="120", **COLUMNS)
    assert result.known_drifts == [[120, 120]]
    assert [found["start"] for found in result.drift["drifts"]] == [120]


def test_a_config_names_the_labels(tmp_path: Path) -> None:
    events, labels = events_and_labels(tmp_path)
    config = {
        "source": str(events),
        "schema": {
            "target": "y", "task": "classification", "id": "id", "time": "t",
            "features": {"a": "number", "b": "number"},
        },
        "labels": {"source": str(labels), "timeout": "2h"},
        "pipeline": ["Normalizer", "KalmanHead"],
        "sink": str(tmp_path / "out.csv"),
        "checkpoint": {"path": str(tmp_path / "kept"), "every_events": 50},
    }  # fmt: skip
    first = run(check(config), limit=100)
    assert first.events == 100
    whole = run(check(config))
    assert whole.events == N
    alone = dict(config, sink=str(tmp_path / "alone.csv"))
    alone["checkpoint"] = {"path": str(tmp_path / "other")}
    assert learnt(run(check(alone))) == learnt(whole)
    assert (tmp_path / "alone.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()
    assert (tmp_path / "kept" / "order.log").exists()


def test_labels_of_a_declared_schema_may_come_on_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of them is looked at before: a config says what they are."""
    events, labels = events_and_labels(tmp_path)
    with labels.open(newline="") as file:
        rows = [row | {"t": int(row["t"])} for row in csv.DictReader(file)]
    told = tmp_path / "labels.jsonl"
    told.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "source": str(events),
        "schema": {
            "target": "y", "task": "classification", "id": "id", "time": "t",
            "features": {"a": "number", "b": "number"},
        },
        "pipeline": ["Normalizer", "KalmanHead"],
    }  # fmt: skip
    from_file = run(check(config | {"labels": str(told)}))
    with told.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        from_pipe = run(check(config | {"labels": "-"}))
    assert learnt(from_pipe) == learnt(from_file)
    assert from_pipe.labels is not None
    assert from_pipe.labels["labelled"] == len(rows)


def test_validate_says_how_labels_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events, labels = events_and_labels(tmp_path)
    config = tmp_path / "live.yaml"
    config.write_text(
        f"source: {events}\n"
        "schema: {target: y, task: classification, id: id, time: t, features: {a: number}}\n"
        f"labels: {{source: {labels}, timeout: 2h}}\npipeline: [KalmanHead]\n"
        f"checkpoint: {{path: {tmp_path / 'kept'}}}\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(config)])
    assert not ended.value.code
    assert f"labels: source {labels}, timeout 2h" in capsys.readouterr().out
    assert not (tmp_path / "kept").exists()


def test_what_is_wrong_with_the_labels_of_a_configuration_is_told_with_its_path(
    tmp_path: Path,
) -> None:
    (tmp_path / "events.csv").write_text("id,x\n1,2\n")
    (tmp_path / "labels.csv").write_text("id,y\n1,a\n")
    schema = {"id": "id", "target": "y", "task": "classification", "features": {"x": "number"}}
    job = {"source": str(tmp_path / "events.csv"), "schema": schema, "pipeline": ["KalmanHead"]}
    for wrong, message in (
        ({"timeout": "soon"}, r"^labels\.timeout: must be a number of rows"),
        ({"timeout": "2d"}, r"^labels\.timeout: 2d is told in time, but the events have no time"),
        ({"assume": "a"}, r"^labels\.assume: 'a' is for events at their time-out"),
    ):
        labels = {"source": str(tmp_path / "labels.csv")} | wrong
        with pytest.raises(UserError, match=message):
            plan(check(job | {"labels": labels}))


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"delay": -1}, "delay"),
    ({"delay": "1.5 fortnights"}, "fortnights"),
    ({"delay": "30min"}, "time"),
    ({"delay": "nowhere", "time": "t"}, "nowhere"),
    ({"timeout": "7d"}, "source"),
    ({"labels": "nothing.csv", "id": "id"}, "nothing.csv"),
    ({"by": "nowhere"}, "nowhere"),
    ({"drifts": "soon"}, "drifts"),
    ({"drifts": "20,10"}, "rise"),
    ({"probes": 10}, "drifts"),
    ({"report": "/nowhere/at/all/report.html"}, "/nowhere/at/all"),
]


@pytest.mark.parametrize(("options", "part"), MISTAKES)
def test_mistakes_are_one_line(options: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError) as caught:
        replay(data=records(), **COLUMNS, **options)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
