"""Forecasts judged on recorded series, without a leak: every target is learnt after it has come.

The protocol ("rolling delayed"): a forecast of the next H rows is made after every row; windows
that begin from row `start` on are scored; a window teaches when its last row is there. Errors are
in standard deviations of the first `train` rows, so that channels can be averaged, and in units of
their own by channel; beside the model stand the last value and the value of one season ago.
"""

import json as json_text
import logging
import math
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streamlearn import config as configs
from streamlearn import connectors
from streamlearn.block import B1, BOOLEAN, F8, I8, NO_TIME, NUMBER, SCORED, TIME, Block, Features
from streamlearn.contracts import Json
from streamlearn.durable import disk_errors, write_text
from streamlearn.errors import UserError
from streamlearn.job import check_outputs, name_of, user_errors
from streamlearn.operators.forecaster import OnlineForecaster
from streamlearn.result import versions
from streamlearn.schema import Schema, among

_log = logging.getLogger(__name__)
ALL = "all"
MODEL, LAST, SEASONAL = "model", "last value", "seasonal"
_CHUNK = 1024  # rows that are walked and scored together
_KEPT = 400  # rows that the plots show
_LARGEST = 1e150  # whose square is a number
_LONGEST = 1000  # rows of a season that is looked for
_PEAK = 0.2  # autocorrelation that a season must have
_MOST_GAPS = 0.1  # of the rows: where more are missing, the series is not meant to be regular


@dataclass(frozen=True, repr=False)
class Forecast:
    """How well several series were forecast, and what comes next.

    targets: the series that were scored. horizon: rows ahead. season: rows of a period, 0 where
    none was given or found; season_guessed: whether it was found. rows: of the data, filled gaps
    (`filled`) included; train: those that scale the errors; start: the first target row.
    windows: forecasts that were scored. level: nominal coverage.
    scores: by who (model, last value, seasonal): mse and mae in deviations of the train rows.
    steps: the same by step ahead, lists of length horizon, and coverage of the model.
    channels: by series: mse and mae in deviations by who, mae_raw in its own unit by who, skill
    (1 - mse / mse of the last value), coverage and width (in its own unit) of the intervals.
    coverage, width: of the intervals, over all; width in deviations.
    next: what follows the last row: step, and by series forecast, lower, upper.
    recording: what the report draws. forecaster: the operator, which has learnt. Neither of these
    two is in the JSON.
    """

    name: str
    targets: list[str]
    horizon: int
    season: int
    season_guessed: bool
    rows: int
    train: int
    start: int
    windows: int
    level: float
    scores: dict[str, dict[str, Json]]
    steps: dict[str, dict[str, Json]]
    channels: dict[str, dict[str, Json]]
    coverage: float | None
    width: float | None
    next: list[dict[str, Json]]
    filled: int
    seconds: float
    rows_per_second: float
    state_bytes: int
    model: str
    versions: dict[str, str] = field(default_factory=versions)
    recording: dict[str, Json] | None = None
    forecaster: OnlineForecaster | None = None

    def to_dict(self) -> dict[str, Json]:
        """Everything but the operator and the recording, as plain values that JSON can hold."""
        left_out = ("forecaster", "recording")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def to_json(self) -> str:
        """`to_dict` as JSON text, indented; None stands for what is undefined."""
        return json_text.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __repr__(self) -> str:
        lines = [
            f"Forecast: {', '.join(self.targets)}, {self.horizon} ahead, {self.windows:,} windows"
        ]
        for who, found in self.scores.items():
            shown = ", ".join(f"{k} {v:.4f}" for k, v in found.items() if v is not None)
            lines.append(f"  {who:<11} {shown}")
        return "\n".join(lines)


class Series(NamedTuple):
    """Several series at the same moments: values (n, M), NaN is missing; names; times or None."""

    values: F8
    names: list[str]
    times: I8 | None
    filled: int = 0


class _Plan(NamedTuple):
    """What is scored: targets (columns), H, season, train and start as rows, scale (M,)."""

    columns: I8
    horizon: int
    season: int
    train: int
    start: int
    mean: F8
    scale: F8


# -- the call --------------------------------------------------------------------------------------


def forecast(
    data: Any,
    target: configs.Names = ALL,
    horizon: int = 1,
    *,
    season: int | None = None,
    features: configs.Names = None,
    set: configs.Assignments = None,
    model: OnlineForecaster | None = None,
    train: float = 0.2,
    start: float = 0.25,
    time: str | None = None,
    limit: int | None = None,
    output: str | Path | None = None,
    json: str | Path | None = None,
    report: str | Path | None = None,
) -> Forecast:
    """Forecast recorded series after every row, learn as the targets come, and say how good it was.

    `forecast("power.csv", "load,price", horizon=24)` as the command line does it.

    Args:
        data: as for `replay`: a path, an Arrow table, a pandas or polars frame, a list of dicts.
        target: columns to forecast, a list or names with commas between; "all": every number.
        horizon: rows ahead, >= 1.
        season: rows of a period, for the seasonal baseline; 0 for none; looked for if None.
        features: further columns that inform the forecasts and are not scored.
        set: arguments of `OnlineForecaster`, as a dict or as "name=value" texts.
        model: a forecaster of one's own settings, which goes on learning; instead of `set`.
        train: rows (if whole and > 1) or share of the rows whose deviations scale the errors.
        start: row or share of the rows from which on targets count; >= train.
        time: column with the time of a row: rows that are missing between two are filled in as
            gaps. A single column of times is found without being named.
        limit: rows at most.
        output: file for the forecasts (.csv, .jsonl, .parquet): a line for each row they were made
            after and each step, and the interval's bounds. json: file for the result. report: file
            for a report in HTML.

    Raises: UserError of one line for whatever is wrong with an argument, a file or the data.
    """
    check_outputs(data, {"predictions": output, "json": json, "report": report})
    if output is not None:
        _format_of(output)
    if report is not None:
        from streamlearn.report import check_path

        check_path(report)
    series, targets = read_series(data, target, features, time, limit)
    operator = _operator(model, horizon, set)
    found = evaluate(
        series, targets, operator, season=season, train=train, start=start, output=output
    )
    result = Forecast(**{**vars(found), "name": name_of(data)})
    if json is not None:
        write_text(json, result.to_json() + "\n")
    if report is not None:
        from streamlearn.report_forecast import write_report

        write_report(report, result)
    return result


def _operator(
    model: OnlineForecaster | None, horizon: int, given: configs.Assignments
) -> OnlineForecaster:
    from streamlearn import registry

    arguments = configs.pairs(given)
    if model is not None:
        if arguments:
            raise UserError("set: must be left out where a model is given")
        if model.horizon != horizon:
            raise UserError(f"horizon: must be {model.horizon} as of the model, got {horizon}")
        return model
    if "horizon" in arguments:
        raise UserError("set: horizon is an argument of its own; write --horizon")
    try:
        found: OnlineForecaster = registry.build(
            "OnlineForecaster", {"horizon": horizon} | arguments, path="--set"
        )
    except UserError as error:
        raise UserError(str(error).replace("--set.", "--set ")) from None
    return found


# -- reading ---------------------------------------------------------------------------------------


def read_series(
    data: Any,
    target: configs.Names = ALL,
    features: configs.Names = None,
    time: str | None = None,
    limit: int | None = None,
) -> tuple[Series, list[str]]:
    """The series of some data, targets first, and the names of the targets.

    Raises: UserError for columns that are not there or no numbers, and for times that step back.
    """
    if hasattr(data, "__next__") or (isinstance(data, str) and data == "-"):
        raise UserError("data: must be something that can be read twice: a file, a frame, a list")
    present = list(connectors.sample_columns(data))
    guessed = Schema.infer(data, ignore=None if time is None else [time])
    named = configs.listed(target) or [ALL]
    more = configs.listed(features) or []
    numbers = [name for name, f in guessed.features.items() if f.kind in (NUMBER, BOOLEAN)]
    targets = [n for n in numbers if n not in more] if named == [ALL] else list(named)
    _check_columns(targets, more, present, numbers)
    times = [name for name, f in guessed.features.items() if f.kind == TIME]
    when = time if time is not None else times[0] if len(times) == 1 else None
    source, schema = connectors.as_source(data, features=[*targets, *more], time=when, limit=limit)
    series = _gathered(source, schema)
    return _regular(series, when, named_by_user=time is not None), targets


def _check_columns(
    targets: Sequence[str], more: Sequence[str], present: Sequence[str], numbers: Sequence[str]
) -> None:
    if not targets:
        raise UserError(f"target: there is no column of numbers; {among(present)}")
    doubled = [name for name in [*targets, *more] if [*targets, *more].count(name) > 1]
    if doubled:
        raise UserError(f"target, features: {doubled[0]!r} must be named once")
    for option, names in (("target", targets), ("features", more)):
        for name in names:
            if name not in present:
                raise UserError(f"{option}: there is no column {name!r}; {among(present)}")
            if name not in numbers:
                raise UserError(f"{option}: {name!r} must be a column of numbers; {among(numbers)}")


def _gathered(source: Any, schema: Schema) -> Series:
    """All rows of a source, in memory."""
    parts: list[F8] = []
    times: list[I8] = []
    source.open({})
    try:
        while not source.finished:
            batch = source.poll(4096, 1.0)
            if batch is None:
                continue
            if batch.rejects:
                reject = batch.rejects[0]
                raise UserError(f"{reject.partition}: row {reject.position}: {reject.reason}")
            parts.append(batch.block.X)
            if batch.block.times is not None:
                times.append(batch.block.times)
    finally:
        source.close()
    names = list(schema.columns.names)
    values = np.concatenate(parts) if parts else np.zeros((0, len(names)))
    whole = np.concatenate(times) if times and schema.time is not None else None
    return Series(values, names, whole)


def _regular(series: Series, time: str | None, named_by_user: bool) -> Series:
    """The series with rows of gaps where moments are missing, if its times allow for it."""
    times = series.times
    if times is None or times.shape[0] < 3:
        return series
    steps = np.diff(times)
    if (times == NO_TIME).any() or (steps <= 0).any():
        if named_by_user:
            raise UserError("time: must be there and rise from row to row; sort the rows, or split "
                            "the data if they hold several series one under the other")  # fmt: skip
        _log.warning("time: %r does not rise from row to row: rows are taken as they stand; sort "
                     "them, or split the data if they hold several series", time)  # fmt: skip
        return series
    rows = np.maximum(np.rint(steps / np.median(steps)).astype(np.int64), 1)
    missing = int((rows - 1).sum())
    if missing == 0 or missing > _MOST_GAPS * times.shape[0]:
        return series
    at = np.concatenate([[0], np.cumsum(rows)])
    values = np.full((int(at[-1]) + 1, len(series.names)), math.nan)
    values[at] = series.values
    return series._replace(values=values, times=None, filled=missing)


# -- the protocol ----------------------------------------------------------------------------------


def evaluate(
    series: Series,
    targets: Sequence[str],
    operator: OnlineForecaster,
    *,
    season: int | None = None,
    train: float = 0.2,
    start: float = 0.25,
    output: str | Path | None = None,
) -> Forecast:
    """Walk a series and score the forecasts; `forecast` says what the arguments mean."""
    n, H = series.values.shape[0], operator.horizon
    rows, first = _as_rows("train", train, n), _as_rows("start", start, n)
    if not 2 <= rows <= first or first + H > n:
        raise UserError(
            f"start: there must be 2 <= train <= start <= rows - horizon, got train {rows}, "
            f"start {first}, horizon {H} and {n} rows"
        )
    period = find_season(series.values[:rows, : len(targets)]) if season is None else season
    columns = np.array([series.names.index(name) for name in targets], dtype=np.int64)
    mean, scale = _scale(_squarable(series, columns)[:rows, columns])
    plan = _Plan(columns, H, period, rows, first, mean, scale)
    operator.load_kernels()
    began = clock.perf_counter()
    with user_errors("data: "), _Output(output, targets) as write:
        tally, last = _walk(series, operator, plan, write)
    seconds = clock.perf_counter() - began
    return Forecast(
        name="", targets=list(targets), horizon=H, season=period,
        season_guessed=season is None and period > 0, rows=n, train=rows, start=first,
        windows=n - H - first + 1, level=operator.level,
        **tally.result(targets, plan), next=last, filled=series.filled, seconds=seconds,
        rows_per_second=n / max(seconds, 1e-9), state_bytes=operator.state_bytes,
        model=repr(operator), recording=tally.recording, forecaster=operator,
    )  # fmt: skip


def _as_rows(name: str, given: float, n: int) -> int:
    """A share of the rows, or rows as they are."""
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not given > 0:
        raise UserError(f"{name}: must be a share of the rows or a number of rows, got {given!r}")
    if given < 1:
        return round(given * n)
    if given != int(given):
        raise UserError(f"{name}: must be a share below 1 or a whole number of rows, got {given!r}")
    return int(given)


def _scale(values: F8) -> tuple[F8, F8]:
    """Mean and deviation of what is there in each column; 1 for one that does not move."""
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0.0).sum(axis=0) / count
    square = (np.where(known, values - mean, 0.0) ** 2).sum(axis=0) / count
    return mean, np.where(square > 0.0, np.sqrt(square), 1.0)


def _squarable(series: Series, columns: I8) -> F8:
    """The values, where those of the targets have squares; else all errors would be 0."""
    for column in columns.tolist():
        most = float(np.nanmax(np.abs(series.values[:, column]), initial=0.0))
        if most > _LARGEST or 0.0 < most < 1.0 / _LARGEST:
            raise UserError(
                f"target: {series.names[column]!r} must have values between 1e-150 and 1e150 to be "
                f"squared, got {most!r}; scale it"
            )
    return series.values


def find_season(values: F8) -> int:
    """Rows of a period, by the autocorrelation of the channels without their trend; 0 for none.

    The shortest of those peaks that reach nine tenths of the highest one.
    """
    n = values.shape[0]
    most = min(n // 3, _LONGEST)
    if most < 3:
        return 0
    total = np.zeros(most + 1)
    moments = np.arange(n) - (n - 1) / 2.0
    for column in values.T:
        known = ~np.isnan(column)
        if known.sum() < n // 2 or np.ptp(column[known]) == 0.0:
            continue
        z = np.where(known, column - column[known].mean(), 0.0)
        z = z / np.abs(z).max()
        z = np.where(known, z - moments * (z @ moments) / (moments @ moments), 0.0)
        power = np.abs(np.fft.rfft(z, 2 * n)) ** 2
        r = np.fft.irfft(power)[: most + 1]
        total += r / r[0] * n / (n - np.arange(most + 1)) if r[0] > 0.0 else 0.0
    total /= max(values.shape[1], 1)
    inner = total[1:-1]
    peaks = 1 + np.flatnonzero((inner > total[:-2]) & (inner >= total[2:]) & (inner > _PEAK))
    if peaks.size == 0:
        return 0
    return int(peaks[total[peaks] >= 0.9 * total[peaks].max()][0])


def _walk(
    series: Series, operator: OnlineForecaster, plan: _Plan, write: Any
) -> tuple["Tally", list[dict[str, Json]]]:
    """Run the operator over all rows, and score each window once its targets are there."""
    n, H = series.values.shape[0], plan.horizon
    tally = Tally(plan, n)
    features = Features(series.names)
    carried = _carried(series.values[:, plan.columns])
    told: dict[str, F8] = {}
    for at in range(0, n, _CHUNK):
        stop = min(at + _CHUNK, n)
        block = Block(
            np.ascontiguousarray(series.values[at:stop]), np.full(stop - at, math.nan),
            np.ones(stop - at), np.full(stop - at, SCORED, dtype=np.uint8), features,
        )  # fmt: skip
        outputs = operator.run(block)
        told = {name: column[:, :, plan.columns] for name, column in outputs.items()}
        first = max(plan.start - 1 - at, 0)  # the first row whose next one counts
        if first < stop - at:
            made = np.arange(at + first, stop)
            mine = {name: column[first:] for name, column in told.items()}
            write(made, mine)
            whole = made + H < n
            scored = {name: column[whole] for name, column in mine.items()}
            tally.add(made[whole], scored, series.values[:, plan.columns], carried)
    names = [series.names[j] for j in plan.columns]
    ends = range(n - H + 1, n)  # rows after the last that was scored one step ahead
    tally.recording["tail"] = [[row, float(series.values[row, plan.columns[0]])] for row in ends]
    return tally, _next(names, told)


def _carried(values: F8) -> F8:
    """Each gap filled by the value before it."""
    at = np.where(np.isnan(values), -1, np.arange(values.shape[0])[:, None])
    at = np.maximum.accumulate(at, axis=0)
    filled = np.take_along_axis(values, np.maximum(at, 0), axis=0)
    return np.where(at < 0, math.nan, filled)


def _next(names: Sequence[str], told: Mapping[str, F8]) -> list[dict[str, Json]]:
    """The forecast from the last row, step by step."""
    ahead = {name: column[-1] for name, column in told.items()}
    return [
        {"step": h + 1}
        | {
            name: {what: _value(column[h, j]) for what, column in ahead.items()}
            for j, name in enumerate(names)
        }
        for h in range(ahead["forecast"].shape[0])
    ]


class Tally:
    """Sums of errors over windows: by who, step and channel, in deviations of the train rows."""

    def __init__(self, plan: _Plan, n: int) -> None:
        self._plan, self._n = plan, n
        shape = (plan.horizon, plan.columns.shape[0])
        self._who = [MODEL, LAST] + ([SEASONAL] if plan.season > 0 else [])
        self._squared = {who: np.zeros(shape) for who in self._who}
        self._absolute = {who: np.zeros(shape) for who in self._who}
        self._count = np.zeros(shape)
        self._within, self._wide, self._judged = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.recording: dict[str, Json] = {"row": [], "actual": [], "near": [], "far": []}
        self.recording |= {"low": [], "high": [], "bins": []}

    def add(self, made: I8, told: Mapping[str, F8], values: F8, carried: F8) -> None:
        """Windows made after these rows, all of whose targets are in `values` (n, M)."""
        if made.shape[0] == 0:
            return
        plan, H = self._plan, self._plan.horizon
        ahead = made[:, None] + np.arange(1, H + 1)
        truth = values[ahead]
        answers = {MODEL: told["forecast"], LAST: np.repeat(carried[made][:, None, :], H, axis=1)}
        if plan.season > 0:
            back = ahead - plan.season * (np.arange(H) // plan.season + 1)
            answers[SEASONAL] = np.where(back[:, :, None] >= 0, carried[back], answers[LAST])
        known = ~np.isnan(truth)
        for answer in answers.values():
            known &= ~np.isnan(answer)  # all are judged by the same values
        self._count += known.sum(axis=0)
        for who, answer in answers.items():
            e = np.where(known, (answer - truth) / plan.scale, 0.0)
            self._squared[who] += (e * e).sum(axis=0)
            self._absolute[who] += np.abs(e).sum(axis=0)
            if who == MODEL:
                self._record(made, e, known, told, truth)
        judged = known & ~np.isnan(told["lower"])
        inside = judged & (told["lower"] <= truth) & (truth <= told["upper"])
        self._judged += judged.sum(axis=0)
        self._within += inside.sum(axis=0)
        width = (told["upper"] - told["lower"]) / plan.scale
        self._wide += np.where(judged, width, 0.0).sum(axis=0)

    def _record(self, made: I8, e: F8, known: B1, told: Mapping[str, F8], truth: F8) -> None:
        """What is drawn: mean errors by chunk, and the last rows with their forecasts."""
        count = max(int(known.sum()), 1)
        inside = (told["lower"] <= truth) & (truth <= told["upper"])
        judged = known & ~np.isnan(told["lower"])
        share = float((inside & judged).sum() / judged.sum()) if judged.any() else None
        self.recording["bins"].append([int(made[-1]) + 1, float((e * e).sum() / count), share])
        kept = made >= self._n - self._plan.horizon - _KEPT
        rows = self.recording
        rows["row"] += (made[kept] + 1).tolist()
        rows["actual"] += truth[kept, 0, 0].tolist()
        rows["near"] += told["forecast"][kept, 0, 0].tolist()
        rows["far"] += told["forecast"][kept, -1, 0].tolist()
        rows["low"] += told["lower"][kept, 0, 0].tolist()
        rows["high"] += told["upper"][kept, 0, 0].tolist()

    def result(self, targets: Sequence[str], plan: _Plan) -> dict[str, Any]:
        """Means of the errors, over all, by step and by channel."""
        count, judged = self._count, self._judged
        scores = {
            who: {
                "mse": _ratio(self._squared[who], count),
                "mae": _ratio(self._absolute[who], count),
            }
            for who in self._who
        }
        steps: dict[str, dict[str, Json]] = {
            who: {
                "mse": _ratios(self._squared[who], count, 1),
                "mae": _ratios(self._absolute[who], count, 1),
            }
            for who in self._who
        }
        steps[MODEL]["coverage"] = _ratios(self._within, judged, 1)
        channels = {name: self._channel(j, float(plan.scale[j])) for j, name in enumerate(targets)}
        return {
            "scores": scores,
            "steps": steps,
            "channels": channels,
            "coverage": _ratio(self._within, judged),
            "width": _ratio(self._wide, judged),
        }

    def _channel(self, j: int, scale: float) -> dict[str, Json]:
        count, judged = self._count[:, j], self._judged[:, j]
        mse = {who: _ratio(self._squared[who][:, j], count) for who in self._who}
        mae = {who: _ratio(self._absolute[who][:, j], count) for who in self._who}
        own, last = mse[MODEL], mse[LAST]
        wide = _ratio(self._wide[:, j], judged)
        return {
            "mse": mse,
            "mae": mae,
            "mae_raw": {who: None if v is None else v * scale for who, v in mae.items()},
            "skill": None if own is None or not last else 1.0 - own / last,
            "coverage": _ratio(self._within[:, j], judged),
            "width": None if wide is None else wide * scale,
        }


def _ratio(total: F8, count: F8) -> float | None:
    return float(total.sum() / count.sum()) if count.sum() > 0 else None


def _ratios(total: F8, count: F8, axis: int) -> list[float | None]:
    pairs = zip(total.sum(axis=axis).tolist(), count.sum(axis=axis).tolist(), strict=True)
    return [a / b if b > 0 else None for a, b in pairs]


def _value(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


# -- the file of forecasts -------------------------------------------------------------------------


def _format_of(path: str | Path) -> str:
    suffix = Path(path).suffix.lower()
    formats = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
    if suffix not in formats:
        raise UserError(f"output: {path} must end in .csv, .jsonl or .parquet")
    return formats[suffix]


class _Output:
    """Writes forecasts as they are made; without a path, nowhere."""

    def __init__(self, path: str | Path | None, targets: Sequence[str]) -> None:
        self._path, self._targets = path, list(targets)
        self._file: Any = None

    def __enter__(self) -> "_Output":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __call__(self, made: I8, told: Mapping[str, F8]) -> None:
        """The forecasts made after these rows: a line a step."""
        if self._path is None:
            return
        import pyarrow as pa

        n, H, _ = told["forecast"].shape
        columns = {"row": np.repeat(made, H), "step": np.tile(np.arange(1, H + 1), n)}
        for j, name in enumerate(self._targets):
            columns |= {
                f"{name}{ending}": told[what][:, :, j].ravel()
                for what, ending in (("forecast", ""), ("lower", "_lower"), ("upper", "_upper"))
            }
        table = pa.table({k: pa.array(v, from_pandas=True) for k, v in columns.items()})
        with disk_errors(self._path):
            if self._file is None:
                self._file = _opened(self._path, table.schema)
            self._file.write_table(table)


class _JsonLines:
    """JSON Lines, with the interface of Arrow's writers."""

    def __init__(self, path: str | Path) -> None:
        self._file = Path(path).open("w", encoding="utf-8")  # noqa: SIM115  # closed by close

    def write_table(self, table: Any) -> None:
        """A line a row."""
        self._file.writelines(json_text.dumps(row) + "\n" for row in table.to_pylist())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _opened(path: str | Path, schema: Any) -> Any:
    kind = _format_of(path)
    if kind == "jsonl":
        return _JsonLines(path)
    if kind == "csv":
        import pyarrow.csv

        return pyarrow.csv.CSVWriter(str(path), schema)
    import pyarrow.parquet

    return pyarrow.parquet.ParquetWriter(str(path), schema)
