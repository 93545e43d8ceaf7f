"""Replay from Python: every kind of data, whatever is given as a pipeline, and what comes out."""

import csv
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
import river.anomaly
import river.linear_model
import river.preprocessing
import river.tree
import sklearn.linear_model
import sklearn.metrics

import streamlearn
from streamlearn import (
    ADWIN,
    Config,
    Imputer,
    KalmanClassifier,
    KalmanRegressor,
    NoChangeClassifier,
    Normalizer,
    OneHotEncoder,
    Pipeline,
    Result,
    Schema,
    UserError,
    compare,
    load,
    replay,
    run,
)
from streamlearn.connectors import as_source
from streamlearn.display import print_result
from streamlearn.engine import Engine
from streamlearn.job import check_outputs
from streamlearn.rehearsal import _invented, rehearse
from streamlearn.runner import plan

N = 150
ROOT = Path(__file__).resolve().parent.parent


def records(n: int = N, seed: int = 1) -> list[dict[str, Any]]:
    """Two numbers, a colour, and a class that the numbers tell with some noise."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    y = np.where(a + b + rng.normal(scale=0.5, size=n) > 0, "up", "down")
    colours = np.array(["red", "green", "blue"])[rng.integers(3, size=n)]
    return [
        {"a": float(a[i]), "b": float(b[i]), "colour": str(colours[i]), "y": str(y[i])}
        for i in range(n)
    ]


def classified() -> Pipeline:
    return Pipeline(Imputer(), OneHotEncoder(), Normalizer(), KalmanClassifier(), ADWIN())


def measured(result: Result) -> dict[str, Any]:
    """All but the clock."""
    table = result.to_dict()
    left_out = ("name", "seconds", "events_per_second", "resumed_at")
    return {k: v for k, v in table.items() if k not in left_out}


class Unspeakable(list[dict[str, Any]]):
    """Rows that would take longer to write out than to learn from."""

    def __repr__(self) -> str:
        raise AssertionError


# -- data of every kind ----------------------------------------------------------------------------


def as_csv(rows: list[dict[str, Any]], folder: Path) -> Path:
    pd.DataFrame(rows).to_csv(folder / "d.csv", index=False)
    return folder / "d.csv"


def as_parquet(rows: list[dict[str, Any]], folder: Path) -> str:
    pa.parquet.write_table(pa.Table.from_pylist(rows), folder / "d.parquet")
    return str(folder / "d.parquet")


def as_lines(rows: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "made",
    [
        as_csv,
        as_parquet,
        as_lines,
        lambda rows, _: pa.Table.from_pylist(rows),
        lambda rows, _: pd.DataFrame(rows),
        lambda rows, _: pl.DataFrame(rows),
        lambda rows, _: rows,
        lambda rows, _: iter(rows),
        lambda rows, _: (row for row in rows),
    ],
    ids=["csv", "parquet", "jsonl", "arrow", "pandas", "polars", "list", "iterator", "generator"],
)
def test_the_same_records_give_the_same_result_however_they_come(
    made: Callable[[Any, Path], Any], tmp_path: Path
) -> None:
    expected = measured(replay(classified(), records(), target="y"))
    assert expected["events"] == N
    assert measured(replay(classified(), made(records(), tmp_path), target="y")) == expected


def test_data_may_stand_first_when_there_is_no_pipeline() -> None:
    assert measured(replay(records(), target="y")) == measured(replay(data=records(), target="y"))


# -- what it computes ------------------------------------------------------------------------------


def loop(model: Any, rows: list[dict[str, Any]]) -> list[Any]:
    """The prequential loop in plain Python: ask, then teach."""
    answers = []
    for row in rows:
        x = {name: row[name] for name in ("a", "b")}
        answers.append(model.predict_one(x))
        model.learn_one(x, row["y"])
    return answers


def test_every_event_is_scored_before_it_is_learnt() -> None:
    """Against River's own loop on River's own tree, measured by scikit-learn."""
    answers = loop(river.tree.HoeffdingTreeClassifier(grace_period=20), records())
    truth = [row["y"] for row in records()]
    pairs = [(y, p) for y, p in zip(truth, answers, strict=True) if p is not None]
    tree = river.tree.HoeffdingTreeClassifier(grace_period=20)
    result = replay(tree, records(), target="y", features=["a", "b"])
    assert result.scored == len(pairs)
    accuracy = np.mean([y == p for y, p in pairs])
    assert result.metrics["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    kappa = sklearn.metrics.cohen_kappa_score(*zip(*pairs, strict=True))
    assert result.metrics["kappa"] == pytest.approx(kappa, abs=1e-12)


def test_regression_equals_the_plain_loop() -> None:
    rows = [row | {"y": 2.0 * row["a"] - row["b"]} for row in records()]
    pipe = Pipeline(Normalizer(), KalmanRegressor())
    answers = loop(pipe, rows)
    errors = [abs(row["y"] - p) for row, p in zip(rows, answers, strict=True)]
    result = replay(Pipeline(Normalizer(), KalmanRegressor()), rows, target="y", ignore="colour")
    assert result.task == "regression"
    answered = errors[N - result.scored :]  # before the first label there is no answer to measure
    assert result.metrics["mae"] == pytest.approx(np.mean(answered), rel=1e-9)


def test_the_baseline_beside_is_the_model_of_that_name() -> None:
    result = replay(NoChangeClassifier(), records(), target="y", ignore=["colour"])
    assert result.metrics["accuracy"] == result.baselines["no_change"]["accuracy"]
    assert result.metrics["kappa_t"] == 0.0


def test_a_pipeline_goes_on_learning_with_its_own_tables() -> None:
    """The second part shows its classes and categories in another order than the first."""
    rows = records()
    cut = next(
        k
        for k in range(70, N)
        if rows[k]["y"] != rows[0]["y"] and rows[k]["colour"] != rows[0]["colour"]
    )
    whole = replay(classified(), rows, target="y").pipeline
    pipe = classified()
    replay(pipe, rows[:cut], target="y")
    second = replay(pipe, rows[cut:], target="y")
    assert second.pipeline is pipe
    assert whole is not None
    assert pipe.labels is not None
    assert whole.labels is not None
    assert pipe.labels.values == whole.labels.values
    for name, array in whole.state().arrays.items():
        np.testing.assert_array_equal(array, pipe.state().arrays[name], err_msg=name)


def test_a_frozen_pipeline_scores_and_learns_nothing() -> None:
    pipe = classified()
    replay(pipe, records(), target="y")
    before = pipe.state().arrays
    result = replay(pipe.freeze(), records(seed=2), target="y")
    assert (result.metrics["accuracy"] or 0.0) > 0.6
    for name, array in pipe.state().arrays.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_a_saved_pipeline_goes_on_in_another_replay(tmp_path: Path) -> None:
    pipe = classified()
    replay(pipe, records(), target="y")
    pipe.save(tmp_path / "pipe")
    more = records(seed=3)
    again = replay(load(tmp_path / "pipe"), more, target="y")
    assert measured(again) == measured(replay(pipe, more, target="y"))


@pytest.mark.parametrize(
    "given",
    [
        KalmanClassifier(),
        river.tree.HoeffdingTreeClassifier(),
        Pipeline(river.preprocessing.StandardScaler(), KalmanClassifier()),
    ],
    ids=["operator", "river", "river stage"],
)
def test_one_operator_or_estimator_will_do_as_a_pipeline(given: Any) -> None:
    result = replay(given, records(), target="y", features="a, b")
    assert (result.metrics["accuracy"] or 0.0) > 0.7


def test_arguments_of_the_named_model_may_be_a_dict() -> None:
    result = replay(records(), target="y", model="Kalman", set={"random_features": 5, "seed": 2})
    assert result.pipeline is not None
    predictor = result.pipeline.predictor
    assert isinstance(predictor, KalmanClassifier)
    assert (predictor.random_features, predictor.seed) == (5, 2)


def test_window_and_fading_can_be_chosen() -> None:
    result = replay(records(), target="y", window=N, fading=1.0)
    assert result.windowed["accuracy"] == result.metrics["accuracy"]
    assert result.fading["accuracy"] == pytest.approx(result.metrics["accuracy"], abs=1e-12)


def test_a_replay_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    path, out, store = as_csv(records(), tmp_path), tmp_path / "p.csv", tmp_path / "store"
    options: dict[str, Any] = {"target": "y", "predictions": out}
    whole = replay(path, **options)
    expected = out.read_bytes()
    replay(path, limit=60, checkpoint=store, **options)
    resumed = replay(path, checkpoint=store, **options)
    assert resumed.events == N
    assert resumed.metrics == whole.metrics
    assert out.read_bytes() == expected


# -- results ---------------------------------------------------------------------------------------


def test_a_result_reads_well_and_is_plain_json(tmp_path: Path) -> None:
    rows = [row | {"y": "only"} for row in records()]  # kappa is undefined
    result = replay(rows, target="y", json=tmp_path / "r.json")
    shown = repr(result)
    assert "classification of 'y', 150 events" in shown
    assert "accuracy" in shown
    assert "no_change" in shown
    table = json.loads(result.to_json())
    assert table == json.loads((tmp_path / "r.json").read_text())
    assert table["metrics"]["kappa"] is None
    assert "pipeline" not in table
    assert "NaN" not in result.to_json()
    assert not any(isinstance(v, float) and math.isnan(v) for v in table["metrics"].values())


def test_speed_is_events_over_seconds() -> None:
    result = replay(records(), target="y")
    assert result.events_per_second == pytest.approx(N / result.seconds)
    assert result.state_bytes == classified().state_bytes or result.state_bytes > 0


def test_warming_up_leaves_no_trace(tmp_path: Path) -> None:
    schema = Schema.infer(records(), target="y")
    source = str(as_csv(records(), tmp_path))
    job = plan(Config(source=source, schema=schema, pipeline=["OneHotEncoder", "KalmanHead"]))
    before = job.pipeline.state(), job.evaluation.result()
    rehearse(job)
    assert job.pipeline.state().table == before[0].table
    assert job.pipeline.labels is None
    assert job.schema.labels is not None
    assert len(job.schema.labels) == 0
    assert job.evaluation.result() == before[1]


@pytest.mark.parametrize("kind", ["number", "category", "boolean", "time", "text", "words"])
@pytest.mark.parametrize("classes", ["text", "integer", "boolean", None])
def test_every_kind_of_column_can_be_warmed_up(kind: str, classes: str | None) -> None:
    """The invented rows fit every schema; a stage that takes no sparse columns says so itself."""
    task = "regression" if classes is None else "classification"
    table: dict[str, Any] = {"features": {"f": kind}, "target": "y", "task": task}
    table |= {"id": "i", "key": "k", "time": "t", "weight": "w"}
    schema = Schema.from_config(table | ({} if classes is None else {"classes": classes}))
    source, _ = as_source(_invented(schema, 4), schema)
    source.open({})
    batch = source.poll(10, 0.0)
    assert batch is not None
    assert batch.rejects == []
    assert batch.block.n == 4


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"^data: must be given: a path, a frame"),
        ({"data": 7, "target": "y"}, r"^data: must be a path, an Arrow table, a frame or an iter"),
        ({"data": [], "target": "y"}, r"^data: there are no rows"),
        ({"data": records()}, r"^target: must name the column to predict"),
        ({"data": records(), "target": "z"}, r"^target: there is no column 'z'"),
        (
            {"pipe": KalmanRegressor(), "data": records(), "target": "y"},
            r"^pipeline: must fit the target 'y', which makes this classification, got a model for",
        ),
        ({"pipe": Normalizer(), "data": records(), "target": "y"}, r"got no model that predicts"),
        (
            {
                "pipe": Pipeline(KalmanClassifier()),
                "data": records(),
                "target": "y",
                "model": "Mean",
            },
            r"^model, set: must be left out where a pipeline is given$",
        ),
        (
            {"pipe": KalmanClassifier(), "data": records(), "target": "y"},
            r"^pipeline: KalmanClassifier: features must be numbers, got the category 'colour'",
        ),
        ({"pipe": "nonsense", "data": records(), "target": "y"}, r"^pipe: "),
        ({"data": records(), "target": "y", "limit": 0}, r"limit must be > 0"),
        ({"data": records(), "target": "y", "limit": 2.5}, r"limit must be a whole number > 0"),
        ({"data": records(), "target": "y", "pace": "fast"}, r"pace must be a number > 0"),
        ({"data": records(), "target": 3}, r"^target: must be a name as text, got 3; the columns"),
        (
            {"data": records(), "target": "y", "model": KalmanClassifier},
            r"^model: must be a name or a YAML file, got .* give an operator as the pipeline$",
        ),
        (
            {"data": [({"a": 1.0}, 0), ({"a": 2.0}, 1)], "target": "y"},
            r"^data: must be .* dicts, got an iterable of tuple; put each event in one dict$",
        ),
        (
            {"data": pa.table([[1, 2], [3, 4], [0, 1]], names=["a", "a", "y"]), "target": "y"},
            r"^data: two columns are named 'a'; rename one of them$",
        ),
        (
            {"data": pd.DataFrame([[1, 2, 0]], columns=["a", "a", "y"]), "target": "y"},
            r"^data: two columns are named 'a'; rename one of them$",
        ),
        (
            {"pipe": river.linear_model.LogisticRegression(), "data": records(), "target": "y"},
            r"^pipeline: .*; check the stages against the schema$",
        ),
        ({"data": records(), "target": "y", "window": 0}, r"window must be a whole number >= 1"),
        (
            {"pipe": river.tree.HoeffdingTreeClassifier(), "data": records(), "checkpoint": "store"}
            | {"target": "y", "ignore": "colour"},
            r"^checkpoint: a River or scikit-learn stage.* allow_pickle",
        ),
    ],
)
def test_mistakes_are_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        replay(**arguments)
    assert "\n" not in str(caught.value)


def test_rows_are_never_written_out_to_see_whether_they_are_a_name() -> None:
    assert replay(Unspeakable(records()), target="y").events == N


def test_the_data_is_never_written_over(tmp_path: Path) -> None:
    path = as_csv(records(), tmp_path)
    before = path.read_bytes()
    for name in ("predictions", "dead_letters"):
        arguments: dict[str, Any] = {name: path}
        with pytest.raises(UserError, match=f"^{name}: .* is the data that is read"):
            replay(path, target="y", **arguments)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("data", "written"),
    [
        ("d", "d/a.csv"), ("d", "d/new.jsonl"), ("d", "d/deep/new.csv"), ("d", "link/a.csv"),
        ("d/*.csv", "d/a.csv"), ("d/*.csv", "d/new.csv"), ("d/**/*.csv", "d/deep/new.csv"),
        ("d/**/*.csv", "d/new.csv"),
    ],
)  # fmt: skip
def test_a_folder_that_is_read_is_never_written_into(
    data: str, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there would be lost, what is new would be read as events the next time."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "d")
    path = as_csv(records(), tmp_path).rename(tmp_path / "d" / "a.csv")
    before = path.read_bytes()
    rule = rf"{written} would be part of the data that is read, {re.escape(data)}; put it outside"
    for name in ("predictions", "dead_letters", "json"):
        arguments: dict[str, Any] = {name: written}
        with pytest.raises(UserError, match=f"^{name}: {rule}$"):
            replay(data, target="y", **arguments)
    config = {"source": data, "schema": {"features": {"a": "number"}}, "pipeline": ["Normalizer"]}
    with pytest.raises(UserError, match=f"^sink: {rule}$"):
        run(Config.model_validate(config | {"sink": written}))
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.csv", "deep"]


@pytest.mark.parametrize("written", ["d/a.html", "new.csv", "other/new.csv"])
def test_beside_a_folder_that_is_read_files_are_written(written: str, tmp_path: Path) -> None:
    for folder in ("d", "other"):
        (tmp_path / folder).mkdir()
    for data in (tmp_path / "d", tmp_path / "d" / "*.csv"):
        check_outputs(data, {"report": tmp_path / written})
    check_outputs(tmp_path / "d" / "*.csv", {"json": tmp_path / "d" / "r.json"})
    check_outputs(tmp_path / "d" / "*.csv", {"sink": tmp_path / "d" / "deep" / "new.csv"})


def test_a_configuration_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("source: river:Phishing\npipeline: [KalmanHead]\n")
    for name in ("json", "report"):
        arguments: dict[str, Any] = {name: path}
        with pytest.raises(UserError, match=f"^{name}: .* is a configuration, by its name; name "):
            replay("river:Phishing", target="target", model=str(path), **arguments)
        with pytest.raises(UserError, match=f"^{name}: .* is a configuration, by its name; name "):
            compare("river:Phishing", str(path), target="target", **arguments)


@pytest.mark.parametrize("path", ["same.jsonl", "link.jsonl"])
def test_outputs_never_share_a_file(tmp_path: Path, path: str) -> None:
    same = tmp_path / "same.jsonl"
    same.touch()
    (tmp_path / "link.jsonl").symlink_to(same)
    for name in ("dead_letters", "json"):
        arguments: dict[str, Any] = {name: tmp_path / path}
        with pytest.raises(UserError, match=f"^{name}: .* is the file of predictions already"):
            replay(records(), target="y", predictions=same, **arguments)
    assert same.read_bytes() == b""


def test_the_folder_of_the_result_is_looked_for_first(tmp_path: Path) -> None:
    read = iter(records())
    with pytest.raises(UserError, match=r"^json: .*r\.json: there is no such folder"):
        replay(read, target="y", json=tmp_path / "no" / "r.json")
    assert len(list(read)) == N


def test_what_a_stage_refuses_in_mid_stream_is_one_line() -> None:
    rows = [{"a": float(i), "c": "new" if i == 1200 else "old", "y": float(i)} for i in range(1300)]
    schema = {"target": "y", "task": "regression", "features": {"a": "number", "c": "category"}}
    pipe = Pipeline(OneHotEncoder(), sklearn.linear_model.SGDRegressor())
    with pytest.raises(UserError, match=r"^pipeline: SklearnRegressor: .* got the new \['c=new'\]"):
        replay(pipe, rows, schema=schema)


def test_one_assignment_may_be_a_text() -> None:
    found = replay(records(), target="y", set="random_features=5")
    assert "random_features=5" in found.model


def test_classes_in_text_keep_their_leading_zeros() -> None:
    rows = [row | {"y": "007" if row["y"] == "up" else "7"} for row in records()]
    assert set(replay(rows, target="y").per_class or {}) == {"007", "7"}


def test_columns_of_a_trained_pipeline_must_be_there() -> None:
    pipe = classified()
    replay(pipe, records(), target="y")
    less = [{k: v for k, v in row.items() if k != "b"} for row in records()]
    with pytest.raises(UserError, match="was trained with the column 'b'"):
        replay(pipe, less, target="y")


# -- the package -----------------------------------------------------------------------------------


def test_importing_the_package_brings_nothing_heavy() -> None:
    code = "import streamlearn, sys; print({'numpy', 'numba', 'pydantic'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "set()"


def test_public_names_resolve_and_unknown_ones_do_not() -> None:
    for name in ("Pipeline", "replay", "run", "load", "Schema", "Config", "Adaptive", "Normalizer"):
        assert getattr(streamlearn, name) is not None
        assert name in dir(streamlearn) or name == "Adaptive"
    for name in ("nothing", "Nothing", "_hidden"):
        with pytest.raises(AttributeError, match=f"module 'streamlearn' has no attribute '{name}'"):
            getattr(streamlearn, name)


def test_events_without_a_label_are_not_kept_waiting_for_one() -> None:
    """A file brings its labels along: what has none there gets none, and costs no memory."""
    pipe = streamlearn.Pipeline(streamlearn.KalmanClassifier())
    rows = [{"id": i, "a": float(i % 3), "y": None if i % 2 else "yes"} for i in range(60)]
    schema = {"target": "y", "task": "classification", "id": "id", "features": {"a": "number"}}
    assert replay(pipe, rows, schema=schema).scored == 29
    assert pipe.pending == 0
    assert pipe.expects_labels


def test_what_an_alarm_needs_is_loaded_before_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A twin adapts in the rehearsal; the pipeline itself does so only at an alarm."""
    adapted: list[streamlearn.AdaptiveClassifier] = []
    once = streamlearn.AdaptiveClassifier._adapt

    def noted(self: streamlearn.AdaptiveClassifier) -> None:
        adapted.append(self)
        once(self)

    monkeypatch.setattr(streamlearn.AdaptiveClassifier, "_adapt", noted)
    model = streamlearn.AdaptiveClassifier(
        streamlearn.KalmanClassifier(), streamlearn.ADWIN(), "inflate"
    )
    replay(streamlearn.Pipeline(model), [{"a": 1.0, "y": "yes"}] * 5, target="y")
    assert len(adapted) == 1
    assert adapted[0] is not model


def test_a_replay_with_checkpoints_saves_while_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is killed in the middle of a long replay goes on from ten seconds before, at most."""
    seen: list[float | None] = []

    class Noted(Engine):
        def __init__(self, *parts: Any, **options: Any) -> None:
            seen.append(options["every_seconds"])
            super().__init__(*parts, **options)

    monkeypatch.setattr("streamlearn.runner.Engine", Noted)
    rows = [{"a": 1.0, "y": "yes"}] * 5
    replay(None, rows, target="y", checkpoint=tmp_path / "checkpoints")
    replay(None, rows, target="y")
    assert seen == [10.0, None]


def test_an_anomaly_scorer_is_judged_by_the_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They rank its scores and teach it nothing; the written scores give the same area."""
    rng = np.random.default_rng(8)
    odd = rng.random(400) < 0.1
    rows = [
        {"a": float(a), "odd": bool(far)}
        for a, far in zip(np.where(odd, 4.0, 0.0) + rng.normal(size=400), odd, strict=True)
    ]
    out = tmp_path / "scores.csv"
    forest = river.anomaly.HalfSpaceTrees(n_trees=3, height=4, window_size=50, seed=1)
    result = replay(
        Pipeline(river.preprocessing.MinMaxScaler(), forest), rows, target="odd", predictions=out
    )
    assert result.task == "anomaly"
    assert result.scored == 400
    scores = [float(row["prediction"]) for row in csv.DictReader(out.read_text().splitlines())]
    expected = sklearn.metrics.roc_auc_score(odd, scores)
    assert expected > 0.6
    assert result.windowed["roc_auc"] == pytest.approx(expected, abs=1e-12)
    late = replay(Pipeline(river.preprocessing.MinMaxScaler(), forest), rows, target="odd", delay=5)
    print_result(late.to_dict())
    assert "roc_auc" in capsys.readouterr().out


def test_a_metric_of_river_in_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("evaluation: {river: [river.metrics.F1]}\npipeline: [KalmanHead]\n")
    rows = [{"a": float(i % 3), "y": i % 2 == 0} for i in range(20)]
    result = replay(data=rows, target="y", model=str(config))
    assert set(result.river) == {"F1"}
    with pytest.raises(UserError, match="metric of River"):
        replay(data=rows, target="y", model=str(config), checkpoint=tmp_path / "kept")
