"""The command line, end to end: what it prints, what it writes, and one line for every mistake."""

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from streamlearn import cli, operators, registry

N = 120
DETECTOR = "- ADWIN:\n      average_run_length: 10000"  # as `init` writes it
FAMILIES = sorted(
    {
        entry.family[0]
        for entry in registry.entries()
        if entry.family and not entry.parameters.startswith(("model, ", "champion, "))  # members
    }
)
ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}  # the code under test, from any folder


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command line in this process."""

    def run(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return run


def refused(outcome: Outcome, *parts: str) -> None:
    """Status 2, one line that says `parts`, nothing of a traceback."""
    assert outcome.status == 2, outcome
    lines = outcome.err.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, outcome.err
    assert lines[-1] == errors[0]
    assert "Traceback" not in outcome.err
    for part in parts:
        assert part in errors[0]


def records(n: int = N, seed: int = 0) -> list[dict[str, Any]]:
    """Two numbers, a colour, and a class that the first number tells."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        a, b = (round(float(v), 6) for v in rng.normal(size=2))
        colour = ("red", "green", "blue")[int(rng.integers(3))]
        rows.append({"a": a, "b": b, "colour": colour, "y": "up" if a > 0 else "down"})
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "data.csv", records())


# -- replay ----------------------------------------------------------------------------------------


def test_replay_prints_the_metrics_beside_the_baselines(call: Call, data: Path) -> None:
    outcome = call("replay", data, "--target", "y")
    assert outcome.status == 0
    for word in ("accuracy", "kappa_t", "no_change", "majority", f"{N} events", "KalmanClassifier"):
        assert word in outcome.out
    assert "target: classification" in outcome.err  # the guess is said
    assert "guessed" in outcome.err


def test_json_holds_all_that_is_promised(call: Call, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    assert call("replay", data, "--target", "y", "--json", out).status == 0
    found = json.loads(out.read_text())
    assert {
        *("events", "task", "metrics", "windowed", "fading", "baselines", "alarms", "seconds"),
        *("events_per_second", "state_bytes", "model", "schema"),
    } <= set(found)
    assert {"accuracy", "kappa", "kappa_t", "kappa_m", "log_loss", "roc_auc"} <= set(
        found["metrics"]
    )
    assert found["events"] == N
    assert found["task"] == "classification"
    assert found["schema"]["target"] == "y"
    assert found["state_bytes"] > 0
    assert found["events_per_second"] == pytest.approx(N / found["seconds"])


def test_predictions_have_a_probability_for_each_class(
    call: Call, data: Path, tmp_path: Path
) -> None:
    out, result = tmp_path / "p.csv", tmp_path / "r.json"
    outcome = call("replay", data, "--target", "y", "--predictions", out, "--json", result)
    assert outcome.status == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    first = records()[0]["y"]
    other = "down" if first == "up" else "up"
    assert list(rows[0]) == ["row", "prediction", f"p_{first}", f"p_{other}"]
    assert [int(row["row"]) for row in rows] == list(range(N))
    for row in rows[5:]:
        assert float(row["p_up"]) + float(row["p_down"]) == pytest.approx(1.0)
    answered = [(r["prediction"], t["y"]) for r, t in zip(rows, records(), strict=True)]
    right = [p == y for p, y in answered if p]
    metrics = json.loads(result.read_text())["metrics"]
    assert metrics["accuracy"] == pytest.approx(np.mean(right), abs=1e-12)


def test_regression_is_guessed_from_a_continuous_target(
    call: Call, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    assert call("replay", data, "--target", "b", "--json", out).status == 0
    found = json.loads(out.read_text())
    assert found["task"] == "regression"
    assert list(found["metrics"])[:4] == ["mae", "rmse", "r2", "smape"]
    assert list(found["baselines"]) == ["no_change", "mean"]


@pytest.mark.parametrize(
    ("options", "features"),
    [
        (["--features", "a,colour"], {"a": "number", "colour": "category"}),
        (["--ignore", "b"], {"a": "number", "colour": "category"}),
        (["--ignore", "b, colour"], {"a": "number"}),
    ],
)
def test_columns_can_be_chosen(
    call: Call, data: Path, tmp_path: Path, options: list[str], features: dict[str, str]
) -> None:
    out = tmp_path / "r.json"
    assert call("replay", data, "--target", "y", "--json", out, *options).status == 0
    assert json.loads(out.read_text())["schema"]["features"] == features


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--model", "NoChange"], "NoChangeClassifier()"),
        (["--model", "Kalman"], "KalmanClassifier("),
        (["--model", "KalmanHead", "--set", "random_features=7"], "random_features=7"),
        (["--set", "sigma2=1e-2", "--set", "seed=3"], "sigma2=0.01"),
        (["--model", "river.naive_bayes.GaussianNB"], "GaussianNB"),
    ],
)
def test_the_model_can_be_named(
    call: Call, data: Path, tmp_path: Path, options: list[str], text: str
) -> None:
    out = tmp_path / "r.json"
    assert call("replay", data, "--target", "y", "--json", out, *options).status == 0
    model = json.loads(out.read_text())["model"].replace("\n", "").replace(" ", "")
    assert text in model
    for stage in ("Imputer", "OneHotEncoder", "Normalizer", "ADWIN"):
        assert stage in model


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("target", "task"), [("y", "Classifier"), ("b", "Regressor")])
def test_every_family_is_a_model_by_its_name_alone(
    call: Call, data: Path, tmp_path: Path, name: str, target: str, task: str
) -> None:
    if name == "TorchKalman":
        pytest.importorskip("torch", reason="needs torch")
    out = tmp_path / "r.json"
    outcome = call(
        *("replay", data, "--target", target, "--model", name, "--limit", 30, "--json", out)
    )
    if name + task not in operators.exported():
        refused(outcome, f"{name!r} cannot do")
        return
    assert outcome.status == 0, outcome.err
    assert f"{name}{task}(" in outcome.out
    found = json.loads(out.read_text())
    assert (found["events"], found["scored"] > 25) == (30, True)


def test_models_within_models_are_written_as_in_yaml(call: Call, data: Path) -> None:
    experts = "experts=[Kalman, {Kalman: {sigma2: 2}}, [Normalizer, Majority]]"
    outcome = call(
        *("replay", data, "--target", "y", "--model", "ExpertMixture", "--set", experts),
        *("--set", "mixing=log_score"),
    )
    assert outcome.status == 0, outcome.err
    shown = outcome.out.replace("\n", "").replace(" ", "")
    assert (
        "experts=[KalmanClassifier(),KalmanClassifier(sigma2=2.0),Pipeline(Normalizer()," in shown
    )


def test_a_scorer_is_judged_by_the_labels(call: Call, data: Path) -> None:
    options = ("--features", "a,b", "--limit", 60)
    rows = [r | {"y": r["y"] == "up"} for r in records()]
    write_csv(data, rows)
    outcome = call(
        *("replay", data, "--target", "y", "--model", "GaussianMixtureAnomalyScorer"), *options
    )
    assert outcome.status == 0, outcome.err
    assert "roc_auc" in outcome.out


def test_a_pipeline_file_is_a_model_and_its_values_can_be_set(
    call: Call, data: Path, tmp_path: Path
) -> None:
    pipe, out = tmp_path / "pipe.yaml", tmp_path / "r.json"
    pipe.write_text("pipeline:\n- OneHotEncoder\n- Normalizer\n- KalmanHead: {seed: 1}\n")
    outcome = call(
        *("replay", data, "--target", "y", "--model", pipe, "--json", out),
        *("--set", "pipeline[2].random_features=9", "--set", "evaluation.window=10"),
    )
    assert outcome.status == 0
    model = json.loads(out.read_text())["model"]
    assert "random_features=9" in model.replace(" ", "")
    assert "ADWIN" not in model


def test_limit_ends_early(call: Call, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    assert call("replay", data, "--target", "y", "--limit", 50, "--json", out).status == 0
    assert json.loads(out.read_text())["events"] == 50


def test_pace_takes_its_time(call: Call, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    outcome = call(*("replay", data, "--target", "y", "--pace", 200, "--limit", 40, "--json", out))
    assert outcome.status == 0
    assert json.loads(out.read_text())["seconds"] >= 0.15


def test_answers_on_stdout_stand_there_alone(call: Call, data: Path) -> None:
    outcome = call("replay", data, "--target", "y", "--predictions", "-")
    assert outcome.status == 0
    answers = [json.loads(line) for line in outcome.out.splitlines()]
    assert [answer["row"] for answer in answers] == list(range(N))
    assert "accuracy" in outcome.err


def test_a_river_data_set_is_there_without_a_file(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    assert call("replay", "river:Phishing", "--limit", 200, "--json", out).status == 0
    assert json.loads(out.read_text())["task"] == "classification"


def run_process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamlearn", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT, **options
    )


def test_json_lines_come_from_stdin(tmp_path: Path) -> None:
    lines = "".join(json.dumps(record) + "\n" for record in records())
    out = tmp_path / "r.json"
    done = run_process("replay", "-", "--target", "y", "--json", out, input=lines)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["events"] == N


@pytest.mark.parametrize("text", ["", "a,y\n1,up\n"])
def test_standard_input_must_hold_json_lines(text: str) -> None:
    done = run_process("replay", "-", "--target", "y", input=text)
    outcome = Outcome(done.returncode, done.stdout, done.stderr)
    refused(outcome, "-: standard input must be JSON Lines")


@pytest.mark.jit
def test_text_is_learnt_by_the_pipeline_of_a_name_alone(call: Call, tmp_path: Path) -> None:
    words = {"up": "good fine great", "down": "bad awful poor"}
    rows: list[dict[str, Any]] = [
        {"text": f"that is {words[row['y']]} number {i}", "y": row["y"]}
        for i, row in enumerate(records(60))
    ]
    data = write_lines(tmp_path / "t.jsonl", rows)
    out = tmp_path / "r.json"
    assert call("replay", data, "--target", "y", "--json", out).status == 0
    assert json.loads(out.read_text())["metrics"]["accuracy"] > 0.9
    config = tmp_path / "t.yaml"
    assert call("init", data, "--target", "y", "-o", config).status == 0
    assert "Densifier()" in call("validate", config).out


# -- bad input: refused with one line --------------------------------------------------------------


def truncated(path: Path, share: float = 0.5) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def test_files_that_are_not_there_or_hold_nothing(call: Call, tmp_path: Path) -> None:
    refused(call("replay", tmp_path / "no.csv", "--target", "y"), "no.csv")
    for name in ("e.csv", "e.jsonl", "e.parquet"):
        (tmp_path / name).touch()
        refused(call("replay", tmp_path / name, "--target", "y"), name)
    (tmp_path / "h.csv").write_text("a,b,y\n")
    refused(call("replay", tmp_path / "h.csv", "--target", "y"), "h.csv", "row")
    pa.parquet.write_table(pa.table({"a": pa.array([], pa.float64())}), tmp_path / "h.parquet")
    refused(call("replay", tmp_path / "h.parquet", "--target", "a"), "h.parquet", "row")


@pytest.mark.jit
def test_files_that_are_cut_off(call: Call, tmp_path: Path) -> None:
    rows = records(2000)
    (tmp_path / "t.csv.gz").write_bytes(
        gzip.compress(write_csv(tmp_path / "t.csv", rows).read_bytes())
    )
    refused(call("replay", truncated(tmp_path / "t.csv.gz"), "--target", "y"), "t.csv.gz")
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    refused(call("replay", truncated(tmp_path / "t.parquet"), "--target", "y"), "t.parquet")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--target", "colur"], ["target: there is no column 'colur'", "did you mean 'colour'"]),
        ([], ["target: must name the column to predict", "--target"]),
        (["--target", "y", "--features", "a,bb"], ["features: there is no column 'bb'"]),
        (["--target", "y", "--ignore", "zz"], ["ignore: there is no column 'zz'"]),
        (["--target", "y", "--task", "sorting"], ["task: must be classification or regression"]),
        (["--target", "y", "--task", "regression"], ["task: regression needs numbers"]),
        (["--target", "y", "--model", "KalmanHed"], ["did you mean", "KalmanHead"]),
        (
            ["--target", "y", "--model", "ADWIN"],
            ["'ADWIN' must be a classifier, a regressor", "detector"],
        ),
        (["--target", "y", "--model", "RVFLFeatures"], ["got a transformer; name it as a stage"]),
        (["--target", "y", "--model", "OnlineForecaster"], ["must be a classifier, a regressor"]),
        (["--target", "b", "--model", "GaussianMixtureAnomalyScorer"], ["a model for anomaly"]),
        (["--target", "y", "--model", "KalmanRegressor"], ["regression"]),
        (["--target", "y", "--model", "river.tree.Oak"], ["river.tree has no class 'Oak'"]),
        (["--target", "y", "--model", "absent.yaml"], ["absent.yaml: cannot be read"]),
        (["--target", "y", "--set", "sede=1"], ["--set sede: ", "did you mean seed"]),
        (["--target", "y", "--set", "sigma2=-1"], ["--set sigma2: must be > 0, got -1"]),
        (["--target", "y", "--set", "sigma2"], ["--set: must be name=value"]),
        (
            ["--target", "y", "--model", "ErrorMemory", "--set", "model={Kalman: {sigma2: 0}}"],
            ["--set model.sigma2: must be > 0, got 0"],
        ),
        (
            ["--target", "y", "--model", "ExpertMixture", "--set", "experts=[Kalman, Kalmn]"],
            ["--set experts[1]: 'Kalmn' is not the name of an operator; did you mean Kalman"],
        ),
        (["--target", "y", "--limit", "0"], ["--limit"]),
        (["--target", "y", "--limit", "many"], ["--limit"]),
        (["--target", "y", "--pace", "-1"], ["pace"]),
        (["--targe", "y"], ["No such option: --targe"]),
        (["--target", "y", "--predictions", "no/such/p.csv"], ["no/such/p.csv"]),
        (["--target", "y", "--predictions", "p.xyz"], ["p.xyz"]),
        (["--target", "y", "--json", "no/such/r.json"], ["no/such/r.json"]),
    ],
)
def test_wrong_arguments_of_replay(
    call: Call, data: Path, options: list[str], parts: list[str]
) -> None:
    refused(call("replay", data, *options), *parts)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without room")
@pytest.mark.parametrize("option", ["--predictions", "--dead-letters", "--json"])
def test_a_full_disk(call: Call, tmp_path: Path, option: str) -> None:
    path = write_lines(tmp_path / "d.jsonl", ["{", *records(30)])
    full = tmp_path / "full.csv"
    full.symlink_to("/dev/full")
    refused(call("replay", path, "--target", "y", option, full), "full.csv", "o space left", "room")


@pytest.mark.jit
@pytest.mark.parametrize("place", [0.3, 0.6])
def test_a_parquet_file_that_is_damaged_inside(call: Call, tmp_path: Path, place: float) -> None:
    path = tmp_path / "t.parquet"
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.normal(size=3000), "y": rng.integers(2, size=3000)})
    pa.parquet.write_table(table, path, compression="zstd", row_group_size=1000)
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    content[at : at + 400] = bytes(400)
    path.write_bytes(content)
    refused(call("replay", path, "--target", "y"), "t.parquet")


def test_every_row_misfits(call: Call, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "d.jsonl", ["{", "[1", "nonsense"])
    refused(call("replay", path, "--target", "y"), "d.jsonl")


# -- bad input: to the dead letters, the stream goes on --------------------------------------------


def replayed(call: Call, path: Path, *options: object) -> tuple[dict[str, Any], list[Any], str]:
    """Result, dead letters and stdout of a replay that must end well."""
    out, dead = path.parent / "r.json", path.parent / "dead.jsonl"
    outcome = call(
        *("replay", path, "--target", "y", "--json", out, "--dead-letters", dead), *options
    )
    assert outcome.status == 0, outcome.err
    letters = [json.loads(line) for line in dead.read_text().splitlines()]
    return json.loads(out.read_text()), letters, outcome.out


def test_broken_lines_are_named_by_their_number(call: Call, tmp_path: Path) -> None:
    rows: list[Any] = [*records(30)]
    rows[9] = '{"a": 1, "b": '
    rows[19] = "[1, 2]"
    result, letters, shown = replayed(call, write_lines(tmp_path / "d.jsonl", rows))
    assert result["events"] == 28
    assert result["dead_letters"] == 2
    assert "2 records did not fit" in shown
    assert [letter["position"] for letter in letters] == [10, 20]
    assert all(letter["reason"] for letter in letters)


def test_rows_with_too_few_fields(call: Call, data: Path) -> None:
    lines = data.read_text().splitlines()
    lines[4] = "1.0,2.0"
    data.write_text("\n".join(lines) + "\n")
    result, letters, _ = replayed(call, data)
    assert result["events"] == N - 1
    assert [letter["position"] for letter in letters] == [5]
    assert "fields" in letters[0]["reason"]


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "1e400"])
def test_a_feature_that_is_no_finite_number(call: Call, tmp_path: Path, value: str) -> None:
    rows: list[Any] = [*records(30)]
    rows[9] = f'{{"a": {value}, "b": 1.0, "colour": "red", "y": "up"}}'
    result, letters, _ = replayed(call, write_lines(tmp_path / "d.jsonl", rows))
    assert (result["events"], result["dead_letters"]) == (29, 1)
    assert "a" in letters[0]["reason"]


@pytest.mark.jit
def test_a_word_where_the_first_thousand_rows_had_numbers(call: Call, tmp_path: Path) -> None:
    rows = records(1100)
    rows[1050]["a"] = "tall"
    result, letters, _ = replayed(call, write_csv(tmp_path / "d.csv", rows))
    assert (result["events"], result["dead_letters"]) == (1099, 1)
    assert letters[0]["position"] == 1052
    assert "tall" in letters[0]["reason"]


@pytest.mark.parametrize("value", ["NaN", "null"])
def test_a_missing_feature_is_imputed(call: Call, tmp_path: Path, value: str) -> None:
    rows: list[Any] = [*records(30)]
    rows[9] = f'{{"a": {value}, "b": 1.0, "colour": null, "y": "up"}}'
    result, letters, _ = replayed(call, write_lines(tmp_path / "d.jsonl", rows))
    assert (result["events"], letters) == (30, [])
    assert result["scored"] == 29  # the first row has a label, but no class was known


def test_a_missing_target_is_scored_and_not_learnt(call: Call, tmp_path: Path) -> None:
    rows = records(30)
    rows[9]["y"] = None
    del rows[10]["y"]
    predictions = tmp_path / "p.csv"
    result, letters, _ = replayed(
        call, write_lines(tmp_path / "d.jsonl", rows), "--predictions", predictions
    )
    assert (result["events"], result["scored"], letters) == (30, 27, [])
    answers = list(csv.DictReader(predictions.read_text().splitlines()))
    assert answers[9]["prediction"] in ("up", "down")


def test_an_infinite_target_is_a_dead_letter(call: Call, tmp_path: Path) -> None:
    rows: list[Any] = [{"a": i / 7, "y": i / 3} for i in range(30)]
    rows[9] = '{"a": 1.0, "y": Infinity}'
    result, letters, _ = replayed(call, write_lines(tmp_path / "d.jsonl", rows))
    assert (result["task"], result["events"]) == ("regression", 29)
    assert letters[0]["position"] == 10


def test_oddities_that_are_no_mistakes(call: Call, tmp_path: Path) -> None:
    """A late class, a new category, a constant feature, 1e300."""
    rows = [row | {"same": 1.0} for row in records(60)]
    rows[20]["a"] = 1e300
    rows[30]["colour"] = "violet"
    rows[40]["y"] = "sideways"
    result, letters, _ = replayed(call, write_lines(tmp_path / "d.jsonl", rows))
    assert (result["events"], letters) == (60, [])
    assert set(result["per_class"]) == {"up", "down", "sideways"}
    assert all(v is None or np.isfinite(v) for v in result["metrics"].values())
    assert result["metrics"]["log_loss"] is not None


def test_equal_ids_and_time_going_back(call: Call, tmp_path: Path) -> None:
    rows = [row | {"id": i // 2, "at": 1_700_000_000 - 60 * i} for i, row in enumerate(records(60))]
    write_lines(tmp_path / "d.jsonl", rows)
    config = tmp_path / "c.yaml"
    config.write_text(
        f"source: {tmp_path / 'd.jsonl'}\n"
        "schema: {target: y, task: classification, id: id, time: at, features: {a: number}}\n"
        "pipeline: [Normalizer, KalmanHead]\n"
        f"sink: {tmp_path / 'p.csv'}\n"
    )
    outcome = call("run", config)
    assert outcome.status == 0, outcome.err
    answers = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [int(answer["id"]) for answer in answers] == [i // 2 for i in range(60)]


# -- configs ---------------------------------------------------------------------------------------


@pytest.fixture
def config(call: Call, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config that `init` wrote, with everything in one folder."""
    monkeypatch.chdir(tmp_path)
    outcome = call("init", "data.csv", "--target", "y", "--output", "c.yaml")
    assert outcome.status == 0, outcome.err
    return tmp_path / "c.yaml"


def test_init_writes_a_config_that_validates_and_runs(call: Call, config: Path) -> None:
    assert call("validate", config).status == 0
    outcome = call("run", config, "--json", "run.json")
    assert outcome.status == 0, outcome.err
    assert call("replay", config, "--json", "replay.json").status == 0
    ran, replayed = (json.loads(Path(name).read_text()) for name in ("run.json", "replay.json"))
    assert ran["metrics"] == replayed["metrics"]
    assert ran["events"] == N
    assert len(Path("predictions.csv").read_text().splitlines()) == N + 1


def test_init_never_overwrites(call: Call, config: Path) -> None:
    before = config.read_text()
    refused(call("init", "data.csv", "--target", "a", "--output", config), "c.yaml", "is there")
    assert config.read_text() == before


def test_replay_of_a_config_leaves_its_outputs_alone(call: Call, config: Path) -> None:
    assert call("run", config).status == 0
    before = {p: p.stat().st_mtime_ns for p in config.parent.rglob("*")}
    assert call("replay", config).status == 0
    assert {p: p.stat().st_mtime_ns for p in config.parent.rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            ("source: data.csv", "sorce: data.csv"),
            ["sorce: is an unknown key; did you mean source?"],
        ),
        (("target: y", "tarket: y"), ["schema.tarket: is an unknown key"]),
        (("a: number", "a: nummer"), ["schema.features.a.kind: must be 'number', 'category'"]),
        (("a: number", "a: number\n    c: number"), ["there is no feature column 'c'"]),
        (("target: y", "target: z"), ["there is no target column 'z'"]),
        (("- ADWIN", "- ADWIM"), ["pipeline[4]: 'ADWIM' is not the name of an operator"]),
        ((DETECTOR, "- ADWIN: {delta: 7}"), ["pipeline[4].delta: must be ", "(", "line "]),
        ((DETECTOR, "- ADWIN: {delta: 7"), ["c.yaml, line "]),
        (("path: checkpoints", "path: 3"), ["checkpoint.path: must be a text, got 3"]),
        (("source: data.csv", "source: data.csv\nsource: b.csv"), ["'source' stands twice"]),
        (("source: data.csv\n", ""), ["source: must be there"]),
        (("source: data.csv", "source: absent.csv"), ["absent.csv"]),
    ],
)
def test_mistakes_in_a_config(
    call: Call, config: Path, change: tuple[str, str], parts: list[str]
) -> None:
    text = config.read_text()
    assert change[0] in text
    config.write_text(text.replace(*change))
    refused(call("run", config), *parts)


def test_validate_lists_every_mistake(call: Call, config: Path) -> None:
    config.write_text(config.read_text().replace("source:", "sorce:") + "enginee: {}\n")
    outcome = call("validate", config)
    assert outcome.status == 2
    assert len(outcome.err.splitlines()) == 2


# -- checkpoints -----------------------------------------------------------------------------------


def test_run_goes_on_where_it_ended(call: Call, config: Path) -> None:
    assert call("run", config, "--limit", 50).status == 0
    assert call("run", config, "--json", "r.json").status == 0
    resumed, answers = json.loads(Path("r.json").read_text()), Path("predictions.csv").read_bytes()
    for path in [*Path("checkpoints").iterdir()]:
        path.unlink()
    Path("predictions.csv").unlink()
    Path("dead_letters.jsonl").unlink(missing_ok=True)
    assert call("run", config, "--json", "r.json").status == 0
    whole = json.loads(Path("r.json").read_text())
    assert resumed["events"] == whole["events"] == N
    assert resumed["metrics"] == whole["metrics"]
    assert answers == Path("predictions.csv").read_bytes()


def test_inspect_shows_a_checkpoint(call: Call, config: Path) -> None:
    assert call("run", config).status == 0
    outcome = call("inspect", "checkpoints")
    assert outcome.status == 0
    for word in ("events: ", str(N), "KalmanClassifier", "accuracy", "float64"):
        assert word in outcome.out


def test_checkpoints_that_cannot_be_used(call: Call, config: Path) -> None:
    assert call("run", config).status == 0
    changed = config.read_text().replace(DETECTOR, "- ADWIN: {delta: 0.01}")
    other = config.with_name("other.yaml")
    other.write_text(changed)
    refused(call("run", other), "belongs to another pipeline")
    files = sorted(Path("checkpoints").glob("*.safetensors"))
    for path in files:
        truncated(path)
    refused(call("run", config), "checkpoints are damaged")
    refused(call("inspect", "checkpoints"), "cut off, damaged")
    refused(call("inspect", "nowhere"), "nowhere")
    refused(call("inspect", config), "c.yaml")


def test_a_checkpoint_of_a_newer_version(
    call: Call, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr("streamlearn.archive.FORMAT", 99)
        assert call("run", config).status == 0
    refused(call("run", config), "has format 99", "install the newer streamlearn")
    refused(call("inspect", "checkpoints"), "has format 99")


def test_the_last_good_checkpoint_is_used_loudly(
    call: Call, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert call("run", config, "--set", "checkpoint.every_events=30").status == 0
    truncated(sorted(Path("checkpoints").glob("*.safetensors"))[-1])
    outcome = call("run", config, "--json", "r.json")
    assert outcome.status == 0
    assert "cut off" in caplog.text
    assert json.loads(Path("r.json").read_text())["events"] == N
    assert len(Path("predictions.csv").read_text().splitlines()) == N + 1


# -- the process -----------------------------------------------------------------------------------


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from streamlearn import cli\n"
        "try: cli.main(['--help'])\n"
        "finally: print(sorted({'numpy', 'numba', 'pyarrow', 'river', 'pydantic', 'yaml'} "
        "& set(sys.modules)), file=sys.stderr)"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    seconds = time.perf_counter() - start
    assert done.stderr.strip() == "[]"
    for command in ("run", "replay", "operators", "init", "validate", "inspect"):
        assert f"\n  {command} " in done.stdout
    assert seconds < 3.0  # 0.1 s when nothing else runs


def test_no_arguments_show_the_help(call: Call) -> None:
    outcome = call()
    assert outcome.status == 0
    assert "Usage: streamlearn" in outcome.out


def test_operators_are_listed_and_shown(call: Call) -> None:
    listed = call("operators").out
    for word in ("KalmanClassifier", "detector", "random_features=0", "AdaptiveRegressor"):
        assert word in listed
    shown = call("operators", "KalmanHead").out
    assert "KalmanClassifier(" in shown
    assert "KalmanRegressor(" in shown
    assert "river" in call("operators", "river.tree.HoeffdingTreeClassifier").out.lower()
    refused(call("operators", "Kalmn"), "did you mean Kalman")


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m streamlearn operators | head -n 1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_sigterm_ends_a_run_gracefully_with_a_checkpoint(config: Path) -> None:
    command = [sys.executable, "-m", "streamlearn", "run", str(config), "--set", "engine.pace=20"]
    with subprocess.Popen(command, cwd=config.parent, env=ENVIRONMENT) as child:
        deadline = time.monotonic() + 30
        while not (config.parent / "checkpoints").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(child.pid, signal.SIGTERM)
        assert child.wait(20) == 0
    done = run_process("run", config, cwd=config.parent)
    assert done.returncode == 0, done.stderr
    assert f"{N} events" in done.stdout
