"""Tuning: a search on the first part of a stream, settings frozen, a score from the rest."""

import json as json_text
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streamlearn import config as configs
from streamlearn import connectors, registry, yaml12
from streamlearn.block import OBSERVE, PREDICT, Block, Columns
from streamlearn.comparison import (
    Comparison,
    check_alpha,
    concluded,
    microseconds,
    number,
    signed,
    write,
)
from streamlearn.config import Config
from streamlearn.contracts import Json
from streamlearn.errors import UserError
from streamlearn.evaluation import METRICS
from streamlearn.job import Stream, check_outputs, fresh, pipeline_of
from streamlearn.lineup import without_options
from streamlearn.pipeline import Pipeline
from streamlearn.race import Entrant, Race, entrants_of, paired_of, raced, stream_of
from streamlearn.ranges import Range, drawn, parse_ranges
from streamlearn.schema import Schema
from streamlearn.text_table import plain

LEAST = 100  # scored rows to choose by
TUNED, DEFAULT = "tuned", "default"
_SHOWN_TRIALS = 10


class Trial(NamedTuple):
    """One setting on the first part: its metric there (None: undefined) and cost, or its error."""

    settings: dict[str, Any]
    metric: float | None
    microseconds: float
    error: str


@dataclass(frozen=True, repr=False)
class Tuning:
    """What a search found, and what it is worth on events that it never saw.

    model: what was tuned; ranges: as texts. metric: the one that decided, the first of the task.
    first: events searched on; rest: events scored afterwards. seed: of the search. trials: in the
    order tried; the first one is the default. settings: the best of them, {} for the default.
    comparison: "tuned" against "default" on the rest; both go on with what they learnt on the first
    part. Only "tuned" is there where the default was best, or failed. seconds: for everything.
    """

    data: str
    model: str
    ranges: dict[str, str]
    metric: str
    first: int
    rest: int
    seed: int
    trials: list[Trial]
    settings: dict[str, Any]
    comparison: Comparison
    seconds: float
    document: dict[str, Json]

    def to_dict(self) -> dict[str, Json]:
        """Everything but the pipelines, as plain values that JSON can hold."""
        own = {k: v for k, v in vars(self).items() if k not in ("trials", "comparison")}
        trials = [trial._asdict() for trial in self.trials]
        return own | {"trials": trials, "comparison": self.comparison.to_dict()}

    def to_json(self) -> str:
        """`to_dict` as JSON text, indented; None stands for what is undefined, never NaN."""
        return json_text.dumps(self.to_dict(), indent=2, allow_nan=False, default=str)

    def to_yaml(self, path: str | Path | None = None) -> str:
        """The pipeline with the best settings as a configuration; also into a new file.

        Raises: UserError for a file that is there already, or cannot be written.
        """
        text = yaml12.dump(self.document)
        if path is not None:
            try:
                with Path(path).open("x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError:
                raise UserError(f"{path}: is there already; choose another name") from None
            except OSError as error:
                raise UserError(f"{path}: {error.strerror}; check the path") from None
        return text

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """The best trials and the default as text: column names, and a row for each."""
        names = list(self.ranges)
        worst = [-_merit(t, self.comparison.task) for t in self.trials]
        order = np.argsort(worst, kind="stable").tolist()
        order = order[:_SHOWN_TRIALS] + [0] * (0 not in order[:_SHOWN_TRIALS])
        header = ["", *names, self.metric, "us/event", ""]
        body = []
        for i in order:
            trial = self.trials[i]
            shown = [str(trial.settings.get(name, "")) for name in names]
            words = trial.error or ("chosen" if trial.settings == self.settings else "")
            cells = [number(trial.metric), f"{trial.microseconds:.2f}"]
            body.append([DEFAULT if i == 0 else f"trial {i}", *shown, *cells, words])
        return header, body

    def facts(self) -> list[str]:
        """What was chosen and what it is worth, a line each."""
        chosen = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        lines = [
            (
                f"searched {len(self.trials)} settings on the first {self.first:,} events in one "
                f"pass; scored on the other {self.rest:,} ({self.seconds:.2f} s)"
            ),
            f"chosen: {chosen or 'the default settings'}",
        ]
        if len(self.comparison.results) < 2:
            only = self.comparison.results[TUNED].metrics.get(self.metric)
            return [*lines, f"on the rest: {self.metric} {number(only)}", *self._errors()]
        pair = self.comparison.difference(TUNED, DEFAULT)
        scores = [self.comparison.results[n].metrics.get(self.metric) for n in (TUNED, DEFAULT)]
        said = f"on the rest: {self.metric} {number(scores[0])}, default {number(scores[1])}"
        if pair.difference is None or pair.low is None or pair.high is None:
            return [*lines, f"{said}: too few rows to tell", *self._errors()]
        interval = f"{signed(pair.difference)} [{signed(pair.low)}, {signed(pair.high)}]"
        return [*lines, f"{said}: {interval} {pair.verdict}", *self._errors()]

    def _errors(self) -> list[str]:
        return [f"{name}: {error}" for name, error in self.comparison.errors.items()]

    def __repr__(self) -> str:
        title = f"Tuning: {self.model} in {self.data}, the first {self.first:,} events"
        return "\n".join([title, *plain(*self.rows()), *self.facts()])


def tune(
    data: Any = None,
    model: str | Path | None = None,
    ranges: Mapping[str, Any] | Iterable[str] | str = (),
    *,
    target: str | None = None,
    features: Any = None,
    ignore: Any = None,
    task: str | None = None,
    schema: Schema | Mapping[str, Any] | None = None,
    set: configs.Assignments = None,
    first: float = 0.15,
    trials: int = 30,
    seed: int = 0,
    limit: int | None = None,
    delay: int | str | None = None,
    time: str | None = None,
    window: int | None = None,
    fading: float | None = None,
    alpha: float = 0.05,
    json: str | Path | None = None,
    progress: bool = False,
) -> Tuning:
    """Search arguments on the first part of a stream; freeze them; score them on the rest.

    `tune("data.csv", "KalmanHead", ["r=0.01..10:log"], target="y")`. All settings and the default
    walk through the first part at once. The best by the task's first metric and the default then go
    on; only what comes after is scored, with a paired interval, and nothing of it was looked at
    before (where `first` is a share, the rows were counted).

    Args:
        data, target, features, ignore, task, schema, limit, delay, time, window, fading: as for
            `replay`.
        model: operator, family, import path, or a YAML file with a `pipeline`; KalmanHead if None.
        ranges: `r=0.01..10:log`, `n=1..100`, `a=x,y,z`, or a mapping; names are arguments of the
            operator, or paths in the YAML file (`pipeline[2].r`).
        set: further arguments, as for `replay`, that the default has too.
        first: share of the stream in (0, 1), or a number of events.
        trials: settings at most; all of them are tried where there are no more. seed: of the draws.
        alpha: chance that the interval is ever wrong.
        json: file for the result. progress: show a line with events a second on stderr.
    Cost: on the first part (trials + 1) times one pipeline, on the rest twice.
    Raises: UserError for whatever is wrong with an argument, a range, a file or the data, for a
        first part with fewer than 100 scored rows, and when nothing is left to score.
    """
    check_alpha("tune", alpha)
    if not isinstance(trials, int) or trials < 1:
        raise UserError(f"tune: trials must be a whole number >= 1, got {trials!r}")
    check_outputs(data, {"json": json})
    declared = parse_ranges(ranges)
    asked = {"target": target, "features": features, "ignore": ignore, "task": task, "time": time}
    stream = stream_of(data, schema, asked, delay, progress)
    given = configs.pairs(set)
    name = str(model or configs.DEFAULT_MODEL)
    settings = [{}, *drawn(declared, trials, seed)]
    built = _built(name, declared, given, settings, stream.schema)
    events = _first_events(first, data, stream, limit)
    racing = entrants_of(stream, built, window, fading)
    search = Search(racing, first=events, alpha=alpha, window=window, fading=fading)
    job = racing[0].job
    summary = raced(job, search, limit, progress)
    if search.winner is None:
        raise UserError(
            f"first: must leave events to score, got {events:,} of {search.events:,}; take less"
        )
    found = replace(concluded(job, search, summary), events=search.events - events)
    chosen = settings[search.winner]
    tuning = Tuning(
        data=stream.name,
        model=name,
        ranges={name: str(r) for name, r in declared.items()},
        metric=found.metric,
        first=events,
        rest=found.events,
        seed=seed,
        trials=[t._replace(settings=s) for t, s in zip(search.trials, settings, strict=True)],
        settings=chosen,
        comparison=found,
        seconds=summary.seconds,
        document=_document(name, data, stream.schema, given | chosen),
    )
    write(tuning, json, None)
    return tuning


@dataclass
class Search(Race):
    """A race on the first events, after which only the best and the default go on."""

    first: int = 0
    alpha: float = 0.05
    window: int | None = None
    fading: float | None = None
    winner: int | None = None
    trials: list[Trial] = field(default_factory=list)

    def run(self, block: Block) -> Columns:
        """Give the block to everyone who is still in."""
        if self.winner is not None:
            return super().run(block)
        events = np.flatnonzero(block.mode & (PREDICT | OBSERVE))
        here = self.first - self.events
        if here >= events.size:
            return super().run(block)
        cut = int(events[here])  # labels that come before the next event are of the first part
        if cut:
            super().run(block.rows(0, cut))
        self._choose()
        return super().run(block.rows(cut, block.n))

    def _choose(self) -> None:
        """Freeze the settings: the best goes on, and the default to compare it with."""
        everyone = list(self.entrants)
        task = str(everyone[0].job.schema.task)
        self.trials = [_trial(c, task) for c in everyone]
        merits = [_merit(trial, task) for trial in self.trials]
        best = int(np.argmax(merits))
        scored = everyone[best].job.evaluation.scored
        if scored < LEAST:
            raise UserError(
                f"first: must hold at least {LEAST} scored rows to choose by, got {scored} in "
                f"{self.first:,} events; take a larger part"
            )
        going_on = {TUNED: everyone[best]}
        if best != 0 and not everyone[0].error:
            going_on[DEFAULT] = everyone[0]
        self.entrants = [
            replace(c.measured_anew(self.window, self.fading), name=name)
            for name, c in going_on.items()
        ]
        self.paired = paired_of(self.entrants, self.alpha)
        self.winner = best


def _trial(c: Entrant, task: str) -> Trial:
    """How one did on the first part."""
    if c.error:
        return Trial({}, None, 0.0, c.error)
    result = c.result(0)
    metric = result.metrics.get(next(iter(METRICS[task])))
    return Trial({}, metric, microseconds(result), "")


def _merit(trial: Trial, task: str) -> float:
    """The metric so that more is better."""
    if trial.metric is None:
        return -np.inf
    return -trial.metric if task == "regression" else trial.metric


# -- what is searched ------------------------------------------------------------------------------


def _built(
    model: str,
    ranges: Mapping[str, Range],
    given: Mapping[str, Any],
    settings: list[dict[str, Any]],
    schema: Schema,
) -> dict[str, Pipeline]:
    """A pipeline for each setting, before any event is read. Raises: UserError with it."""
    if not _is_file(model):
        _check_arguments(model, schema.task, ranges)
    built = {}
    for i, chosen in enumerate(settings):
        shown = ", ".join(f"{name}={value}" for name, value in chosen.items()) or "default"
        try:
            built[f"{i}: {shown}"] = _pipeline(model, {**given, **chosen}, schema)
        except UserError as error:
            raise UserError(f"ranges: {shown}: {without_options(error)}") from None
    return built


def _pipeline(model: str, arguments: Mapping[str, Any], schema: Schema) -> Pipeline:
    if _is_file(model):
        return pipeline_of(None, configs.load_config(model, arguments), None, {}, schema)
    return pipeline_of(None, Config(), model, arguments, schema)


def _is_file(model: str) -> bool:
    return model.endswith((".yaml", ".yml"))


def _check_arguments(model: str, task: str | None, ranges: Mapping[str, Range]) -> None:
    """Every range must be of an argument that is there."""
    found = registry.find(model, task)
    known = registry.parameters_of(found)
    for name in ranges:
        if known is not None and name not in known:
            raise UserError(
                f"ranges: {found.__name__} has no argument {name!r}{registry.near(name, known)}"
            )


def _document(
    model: str, data: Any, schema: Schema, arguments: Mapping[str, Any]
) -> dict[str, Json]:
    """A configuration of the pipeline with these arguments, ready for `replay` and `run`."""
    if _is_file(model):
        table: dict[str, Json] = yaml12.parse(Path(model).read_text("utf-8"), model).value
        for name, value in arguments.items():
            configs.assign(table, name, value)
        return table
    predictor = configs.named(model, schema.task, arguments)
    found = model if "." in model else type(predictor).__name__
    *before, after = configs.around(predictor, schema.sparse_width > 0)
    stage = {found: dict(arguments)} if arguments else found
    table = {"schema": schema.to_config(), "pipeline": [*before, stage, after]}
    return {"source": str(data)} | table if isinstance(data, (str, Path)) else table


# -- how much is first -----------------------------------------------------------------------------


def _first_events(first: float, data: Any, stream: Stream, limit: int | None) -> int:
    """Events of the first part. Raises: UserError for a share of what can be read only once."""
    number_like = isinstance(first, (int, float)) and not isinstance(first, bool)
    if not number_like or not (0.0 < first < 1.0 or (first >= 1 and float(first).is_integer())):
        raise UserError(f"first: must be a share in (0, 1) or a number of events, got {first!r}")
    if first >= 1:
        return int(first)
    total = _rows(data, stream)
    if limit is not None:
        total = min(total, limit)
    return max(int(first * total), 1)


def _rows(data: Any, stream: Stream) -> int:
    """Rows of the data: looked up where that can be, else counted by decoding them once more."""
    if not isinstance(data, (str, Path)) and hasattr(data, "__len__"):
        return len(data)
    if str(data) == "-" or (not isinstance(data, (str, Path)) and iter(data) is data):
        raise UserError("first: must be a number of events for data that can be read only once")
    location = stream.name
    if not location.startswith(("river:", "drift:")):
        files = connectors.data_files(location)
        if all(file.format == "parquet" for file in files):
            import pyarrow.parquet as pq

            return sum(pq.read_metadata(file.path).num_rows for file in files)
    source, _ = connectors.as_source(
        data if location == str(data) else location, fresh(stream.schema)
    )
    source.open({})
    try:
        total = 0
        while not source.finished:
            batch = source.poll(4096, 0.1)
            total += 0 if batch is None else batch.block.n
    finally:
        source.close()
    return total
