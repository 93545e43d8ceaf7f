"""The protocol and the command `streamlearn forecast`: what is scored, against plain numpy."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from streamlearn import cli
from streamlearn.block import SCORED
from streamlearn.errors import UserError
from streamlearn.forecasting import (
    LAST,
    MODEL,
    SEASONAL,
    Forecast,
    Series,
    evaluate,
    find_season,
    forecast,
    read_series,
)
from streamlearn.operators.forecaster import OnlineForecaster
from streamlearn.testing import block_of

F8 = NDArray[np.float64]
SMALL: dict[str, Any] = {"lags": 6, "cross_lags": 2, "warm_up": 50}
SPEC: dict[str, Any] = {"warm_up": 0, "share": 0.0, "scale_loss": False, "leaky": False}


def waves(n: int = 400, M: int = 2, seed: int = 0) -> F8:
    rng = np.random.default_rng(seed)
    t = np.arange(n)[:, None]
    wave: F8 = 5.0 * np.sin(2.0 * np.pi * t / 12.0 + np.arange(M)) + rng.normal(size=(n, M)) + 50.0
    return wave


def frame(X: F8) -> pd.DataFrame:
    times = pd.date_range("2024-01-01", periods=len(X), freq="h")
    return pd.DataFrame({"time": times} | {f"load{j}": X[:, j] for j in range(X.shape[1])})


# -- the spec's acceptance tests on real data ------------------------------------------------------


def etth2(folder: Path, model: OnlineForecaster, standardised: bool = False) -> Forecast:
    series, targets = read_series(str(folder / "ETTh2.parquet"), limit=14_400)
    if standardised:
        first = series.values[:2880]
        series = series._replace(values=(series.values - first.mean(axis=0)) / first.std(axis=0))
    return evaluate(series, targets, model, season=24, train=2880, start=3600)


@pytest.mark.jit
@pytest.mark.parametrize(
    ("H", "mse", "windows"), [(1, 0.4043, 10_800), (24, 1.8178, 10_777), (48, 2.8522, 10_753)]
)
def test_persistence_on_etth2(shared_data: Path, H: int, mse: float, windows: int) -> None:
    """acceptance 8: split, scaling and metric are those of the papers."""
    found = etth2(shared_data, OnlineForecaster(H, experts=("last_value",)))
    assert found.windows == windows
    assert found.scores[LAST]["mse"] == pytest.approx(mse, abs=1e-4)
    assert found.scores[MODEL]["mse"] == pytest.approx(found.scores[LAST]["mse"], rel=1e-12)


TABLE = {  # section 9, P2: MSE / MAE of f1, f2, EGD
    1: {"f1": (0.353, 0.332), "f2": (0.362, 0.340), "egd": (0.347, 0.326)},
    24: {"f1": (1.663, 0.572), "f2": (1.963, 0.628), "egd": (1.664, 0.573)},
    48: {"f1": (2.774, 0.676), "f2": (3.421, 0.781), "egd": (2.867, 0.690)},
}
EXPERTS = {
    "f1": ("cross_time",),
    "f2": ("cross_variable",),
    "egd": ("cross_time", "cross_variable"),
}


@pytest.mark.jit
@pytest.mark.parametrize("H", TABLE)
@pytest.mark.parametrize("who", EXPERTS)
def test_table_of_the_specification(shared_data: Path, H: int, who: str) -> None:
    """acceptance 9: within 2 %, with its settings: no fixed share, no scaling of losses."""
    found = etth2(shared_data, OnlineForecaster(H, experts=EXPERTS[who], **SPEC), True)
    mse, mae = TABLE[H][who]
    assert found.scores[MODEL]["mse"] == pytest.approx(mse, rel=0.02)
    assert found.scores[MODEL]["mae"] == pytest.approx(mae, rel=0.02)


@pytest.mark.jit
@pytest.mark.parametrize(("H", "most"), [(1, 0.350), (24, 1.68)])
def test_marks_on_etth2_with_defaults(shared_data: Path, H: int, most: float) -> None:
    found = etth2(shared_data, OnlineForecaster(H))
    assert found.scores[MODEL]["mse"] <= most
    assert found.coverage == pytest.approx(0.9, abs=0.01)


# -- the protocol ----------------------------------------------------------------------------------


@pytest.mark.parametrize("H", [1, 5, 13])
def test_scores_are_those_of_plain_numpy(H: int) -> None:
    """Every window whose first target is row `start` or later, all targets in the data."""
    X = waves()
    X[200:203, 1] = np.nan
    names = ["a", "b"]
    found = evaluate(
        Series(X, names, None), names, OnlineForecaster(H, **SMALL), season=12, train=80, start=100
    )
    told = OnlineForecaster(H, **SMALL).run(block_of(X, mode=SCORED, names=names))
    carried = pd.DataFrame(X).ffill().to_numpy()
    sd = np.nanstd(X[:80], axis=0)
    errors: dict[str, list[F8]] = {MODEL: [], LAST: [], SEASONAL: []}
    inside = []
    for s in range(99, 400 - H):
        for h in range(H):
            truth = X[s + 1 + h]
            back = s + 1 + h - 12 * (1 + h // 12)
            errors[MODEL].append((told["forecast"][s, h] - truth) / sd)
            errors[LAST].append((carried[s] - truth) / sd)
            errors[SEASONAL].append((carried[back] - truth) / sd)
            ok = ~np.isnan(truth)
            inside += list(((told["lower"][s, h] <= truth) & (truth <= told["upper"][s, h]))[ok])
    assert found.windows == 400 - H - 99
    for who, e in errors.items():
        assert found.scores[who]["mse"] == pytest.approx(np.nanmean(np.square(e)), rel=1e-10)
        assert found.scores[who]["mae"] == pytest.approx(np.nanmean(np.abs(e)), rel=1e-10)
        per = np.nanmean(np.abs(e), axis=0) * sd
        assert found.channels["b"]["mae_raw"][who] == pytest.approx(per[1], rel=1e-10)
    assert found.coverage == pytest.approx(np.mean(inside), abs=1e-12)
    assert len(found.steps[MODEL]["mse"]) == H


def test_what_comes_next_is_what_the_operator_says() -> None:
    found = forecast(frame(waves()), "load0", 4, set=SMALL)
    assert found.forecaster is not None
    assert [step["load0"]["forecast"] for step in found.next] == [
        step["load0"] for step in found.forecaster.forecast()
    ]
    assert [step["step"] for step in found.next] == [1, 2, 3, 4]


def test_columns_that_inform_are_not_scored() -> None:
    found = forecast(frame(waves(M=3)), "load1", 2, features="load0,load2", set=SMALL)
    assert list(found.channels) == ["load1"] == found.targets
    assert found.forecaster is not None
    assert found.forecaster.weights_.shape[0] == 3


@pytest.mark.parametrize("period", [7, 12, 24])
def test_a_season_is_found(period: int) -> None:
    rng = np.random.default_rng(period)
    t = np.arange(600)
    wave = np.sin(2.0 * np.pi * t / period) + 0.4 * rng.normal(size=600) + 0.01 * t
    assert find_season(np.column_stack([wave, 1e6 * wave])) == period
    assert find_season(rng.normal(size=(600, 2))) == 0
    assert find_season(np.ones((600, 1))) == 0


def test_moments_that_are_missing_become_gaps() -> None:
    table = frame(waves())
    holes = table.drop(index=[50, 51, 200])
    found = forecast(holes, "load0", 2, set=SMALL)
    assert (found.rows, found.filled) == (400, 3)
    assert found.forecaster is not None
    assert found.forecaster.n_imputed == 3
    whole = forecast(table, "load0", 2, set=SMALL)
    assert (whole.rows, whole.filled) == (400, 0)


def test_irregular_times_are_left_alone() -> None:
    table = frame(waves()).iloc[::1]
    table = table[(table.index % 3 != 0)]  # a third is missing: that is how this series is
    assert forecast(table, "load0", 1, set=SMALL).filled == 0


# -- the command line ------------------------------------------------------------------------------


def call(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["forecast", *arguments])
    assert ended.value.code == 0


@pytest.fixture
def table(tmp_path: Path) -> Path:
    frame(waves()).to_csv(tmp_path / "power.csv", index=False)
    return tmp_path / "power.csv"


def test_the_command(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: table.with_name(name) for name in ("r.html", "f.csv", "r.json")}
    call(
        str(table), "--target", "load0,load1", "--horizon", "3", "--set", "lags=6",
        "--report", str(files["r.html"]), "--output", str(files["f.csv"]), "--json",
        str(files["r.json"]),
    )  # fmt: skip
    shown = capsys.readouterr().out
    for text in ("model", "last value", "12 rows ago", "load1", "intervals:", "in 3 rows"):
        assert text in shown
    result = json.loads(files["r.json"].read_text("utf-8"))
    assert result["scores"][MODEL]["mse"] < result["scores"][LAST]["mse"]
    assert result["season"] == 12
    page = files["r.html"].read_text("utf-8")
    for text in ("What comes next", "By step ahead", "By series", "12 rows ago"):
        assert text in page
    written = pd.read_csv(files["f.csv"])
    assert list(written.columns[:5]) == ["row", "step", "load0", "load0_lower", "load0_upper"]
    assert written["row"].tolist() == np.repeat(np.arange(99, 400), 3).tolist()
    last = [step["load1"]["forecast"] for step in result["next"]]
    assert_allclose(written["load1"].tail(3), last, rtol=1e-12)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_other_files_hold_the_same(table: Path, ending: str) -> None:
    path = table.with_name(f"f.{ending}")
    found = forecast(table, "load0", 2, set=SMALL, output=path)
    read = pd.read_parquet(path) if ending == "parquet" else pd.read_json(path, lines=True)
    assert len(read) == 2 * (found.windows + 2)
    assert_allclose(read["load0"].iloc[-1], found.next[-1]["load0"]["forecast"], rtol=1e-9)


def test_two_reports_are_the_same_text(table: Path) -> None:
    from streamlearn.report_forecast import report_html

    found = forecast(table, "all", 2, set=SMALL)
    one = report_html(found)
    assert one == report_html(found)
    assert "<script>alert" not in report_html(found, "<script>alert(1)</script>")
    assert "Forecast: load0, load1, 2 ahead" in repr(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "lod0"}, r"there is no column 'lod0'"),
        ({"target": "time"}, r"'time' must be a column of numbers"),
        ({"target": "load0", "features": "load0"}, r"'load0' must be named once"),
        ({"horizon": 400}, r"start: there must be 2 <= train <= start <= rows - horizon"),
        ({"train": 0.5, "start": 0.2}, r"got train 200, start 80"),
        ({"train": -1.0}, r"^train: must be a share of the rows or a number of rows, got -1\.0$"),
        ({"set": {"horizon": 2}}, r"^set: horizon is an argument of its own"),
        ({"set": {"lag": 2}}, r"has no argument 'lag'.*did you mean"),
        ({"output": "f.txt"}, r"^output: f\.txt must end in \.csv, \.jsonl or \.parquet$"),
        ({"model": OnlineForecaster(3)}, r"^horizon: must be 3 as of the model, got 1$"),
    ],
)
def test_mistakes_are_told(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        forecast(frame(waves()), **arguments)


def test_what_is_no_data_is_told() -> None:
    with pytest.raises(UserError, match=r"^data: must be a path, .* an iterable of dicts, got int"):
        forecast(7, "load0")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", [1e200, 1e-200])
def test_values_without_a_square_are_refused(factor: float) -> None:
    """Their errors were 0, and so was the score of whatever was said."""
    table = pd.DataFrame({"a": waves()[:, 0] * factor})
    with pytest.raises(UserError, match=r"^target: 'a' must have values between 1e-150 and 1e150"):
        forecast(table, "all", 1, set=SMALL)


def test_newest_first_is_told(caplog: pytest.LogCaptureFixture) -> None:
    table = frame(waves())
    forecast(table, "load0", 1, set=SMALL)
    assert not caplog.records
    forecast(table.iloc[::-1], "load0", 1, set=SMALL)
    assert "time: 'time' does not rise from row to row: rows are taken as they" in caplog.text


def test_times_that_step_back_are_told_where_they_are_named() -> None:
    table = frame(waves())
    table["time"] = table["time"].iloc[[0, 1, 2, 3, 4, 2, *range(6, len(table))]].to_numpy()
    assert forecast(table, "load0", 1, set=SMALL).filled == 0
    with pytest.raises(UserError, match=r"^time: must be there and rise from row to row"):
        forecast(table, "load0", 1, set=SMALL, time="time")


def test_values_of_none_are_null_in_the_json() -> None:
    X = np.full((60, 1), 3.0)
    found = forecast(pd.DataFrame({"a": X[:, 0]}), "all", 1, set=SMALL)
    read = json.loads(found.to_json())
    assert read["scores"][MODEL]["mse"] == 0.0
    assert read["channels"]["a"]["skill"] is None
    assert not any(isinstance(v, float) and math.isnan(v) for v in read["scores"][MODEL].values())
