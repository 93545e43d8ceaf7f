"""Replay and run: from data, or a configuration, to a pipeline that has learnt and a result.

Everything that can be wrong is found before the first event is read: names, arguments, columns,
files. Then kernels are loaded on invented rows, the clock starts, and the engine takes over.
"""

import contextlib
import logging
import time as clocks
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from streamlearn import config as configs
from streamlearn import display, label_sources, logs, topics
from streamlearn.config import Config
from streamlearn.connectors.kafka.formats import decoder_of
from streamlearn.connectors.kafka.wire import AbortedError
from streamlearn.contracts import Json
from streamlearn.controls import Controlled, along
from streamlearn.durable import write_text
from streamlearn.engine import Engine, Summary
from streamlearn.errors import UserError
from streamlearn.evaluation import Evaluation
from streamlearn.health import Watch, told_of
from streamlearn.job import (
    Job,
    check_outputs,
    dead_letters_of,
    evaluation_of,
    lineage,
    output_paths,
    pipeline_of,
    result_of,
    settings,
    sink_of,
    start_of,
    store_of,
    stream_for,
    user_errors,
    version_of,
    with_late_labels,
)
from streamlearn.label_sources import label_time, section_of
from streamlearn.merging import has_lanes
from streamlearn.observers import Observers, observers_of
from streamlearn.rehearsal import rehearse
from streamlearn.result import Result
from streamlearn.schema import Schema
from streamlearn.tape import order_of
from streamlearn.vitals import MAX_NAMED, Vitals

_log = logging.getLogger(__name__)
_PAUSE, _LONGEST_PAUSE, _QUIET = 1.0, 30.0, 600.0  # seconds, of beginning anew


class Shown(Protocol):
    """Where progress is shown: a line on a terminal, or the log."""

    def __enter__(self) -> Any:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """End."""

    @property
    def due(self) -> bool:
        """Whether it is time to show something."""

    def show(self, events: int, metric: str, value: float | None, alarms: int) -> None:
        """Show it."""


def replay(
    pipe: Any = None,
    data: Any = None,
    *,
    target: str | None = None,
    features: configs.Names = None,
    ignore: configs.Names = None,
    task: str | None = None,
    model: str | None = None,
    set: configs.Assignments = None,
    limit: int | None = None,
    predictions: str | Path | None = None,
    json: str | Path | None = None,
    dead_letters: str | Path | None = None,
    schema: Schema | Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    pace: float | None = None,
    window: int | None = None,
    fading: float | None = None,
    allow_pickle: bool = False,
    delay: int | str | None = None,
    labels: str | Path | None = None,
    timeout: int | str | None = None,
    assume: Any = None,
    id: str | None = None,
    time: str | None = None,
    by: str | None = None,
    order: str | Path | None = None,
    drifts: Any = None,
    probes: int = 0,
    report: str | Path | None = None,
    progress: bool = False,
) -> Result:
    """Score every event of recorded data, then learn from it, in order; as the command line does.

    `replay(pipe, "data.csv", target="y")`, or without a pipeline of one's own
    `replay(data="data.csv", target="y", model="KalmanHead", set={"random_features": 100})`.

    Args:
        pipe: a Pipeline, or one operator or River estimator; it goes on learning, with the tables
            of features and classes it was trained with. None builds what `model` names.
        data: a path (CSV, JSON Lines, Parquet, compressed or not, a folder), `-` for JSON Lines on
            stdin, `river:Name`, an Arrow table, a pandas or polars frame, an iterable of dicts,
            `kafka:TOPIC?bootstrap=HOST:PORT` (with from=, to= an offset or a time, else up to its
            end), a configuration (.yaml), whose source is replayed; its sinks and checkpoints are
            never touched; or a recording, with the configuration of its run as `model`.
        target: column to predict. features, ignore: columns to learn from, to leave out; a list, or
            names with commas between. task: classification or regression; guessed if None.
        model: operator, family, import path, or a YAML file with a `pipeline`.
        set: arguments of the operator, as a dict or as "name=value" texts; with a YAML file, paths
            (`pipeline[2].r`).
        limit: events at most. pace: events a second; None for as fast as it goes.
        predictions: file for the answers. json: file for the result. dead_letters: file for records
            that do not fit; without it the first ten are logged.
        schema: declared instead of inferred.
        checkpoint: folder from which an interrupted replay goes on; saved every 10 seconds.
        window, fading: of the windowed and fading metrics; 1000 and 0.999 if None.
        allow_pickle: needed for a checkpoint of a River or scikit-learn stage.
        delay: labels come later, by so many rows (100), a duration ("30min") or as the column of
            that name says; each is learnt on the features and the answer of then.
        labels: a source of the labels, joined by `id`; what comes twice, too late or for an event
            that is not there is a dead letter. timeout: rows or a duration in event time after
            which a label is not waited for. assume: the label that the event has then.
        id, time: columns that name an event and say when it was. by: a column by whose values
            metrics are also shown.
        order: an order log (or its checkpoint folder), along which several inputs are merged, as
            far as it goes. A recording has its own.
        drifts: known drifts as rows, (start, end) pairs or text ("9000-10500, 20000"), by which
            dips, recoveries and alarms are judged. probes: rows of each concept that are held out
            to measure what is remembered.
        report: file for a report in HTML.
        progress: show a line with events a second, rolling metric and alarms on stderr.

    Raises: UserError of one line for whatever is wrong with an argument, a file or the data.
    """
    if data is None:
        pipe, data = None, pipe
    if data is None:
        raise UserError("data: must be given: a path, a frame, an Arrow table or an iterable")
    followed, part = order_of(data, order), topics.recorded(data)
    config, data, arguments = settings(data, model, set, pipe, along=followed is not None)
    outputs = {"predictions": predictions, "dead_letters": dead_letters, "json": json}
    more = [one for name, one in config.read.items() if name == "source" or labels is None]
    check_outputs(data, outputs | {"report": report, "labels": labels}, *more)
    late = section_of(
        config,
        delay=delay,
        source=None if labels is None else str(labels),
        timeout=timeout,
        assume=assume,
    )
    config = config.model_copy(update={"labels": late})
    asked = {
        "target": target,
        "features": configs.listed(features),
        "ignore": configs.listed(ignore),
        "task": task,
    }
    declared = config.schema_ if schema is None and not any(asked.values()) else schema
    asked |= {"id": id, "time": time, "group": by, "label_time": label_time(late)}
    say = display.say if progress else _log.info
    stream = stream_for(data, declared, asked, config, say, part)
    if followed is not None and stream.label_schema is None and not has_lanes(stream.source):
        raise UserError("order: is that of several inputs: topics, or labels with their own source")
    pipeline = pipeline_of(pipe, config, model, arguments, stream.schema)
    evaluation = evaluation_of(config, stream.schema, window, fading, pipeline.task)
    job = stream.job(pipeline, evaluation)
    if checkpoint is not None:
        section = configs.Checkpoint(path=str(checkpoint))
        often = config.model_copy(update={"checkpoint": section})
        job = job._replace(
            checkpoints=store_of(job, section, allow_pickle, [drifts, probes]), config=often
        )
    job = with_late_labels(job, followed)._replace(start=start_of(followed, job.read))
    job = job._replace(controls=along(order))
    job = job._replace(sink=sink_of(predictions, job), dead_letters=dead_letters_of(dead_letters))
    observers = observers_of(job, report, drifts, probes)
    shown = display.Progress() if progress else None
    return written(_executed(job, observers, limit, pace, shown), json, report)


def run(
    config: Config | str | Path,
    *,
    limit: int | None = None,
    json: str | Path | None = None,
    report: str | Path | None = None,
    progress: bool = False,
    log: str = "text",
) -> Result:
    """Run a configuration live: from its last checkpoint, until the source ends or a signal comes.

    A transaction that the broker gives up is no end: the run goes on from the last checkpoint that
    counts, after a pause that doubles from one second up to half a minute.

    Args:
        config: a Config, or the path of its YAML file; needs `source`, `schema` and `pipeline`.
        limit: events of the stream at most, those before a restart included.
        json: file for the result. report: file for a report in HTML; what was drawn before a
            restart is not in it, but for the metrics.
        progress: show a line with events a second, rolling metric and alarms on stderr. log: text,
            or json where the progress goes to the log.

    Raises: UserError of one line for whatever is wrong with the configuration or the data.
    """
    loaded = config if isinstance(config, Config) else configs.load_config(config)
    outputs = output_paths(loaded) | {"json": json, "report": report}
    check_outputs(loaded.source, outputs, *loaded.read.values())
    if loaded.kafka is not None and loaded.kafka.mode == "group":
        raise UserError("kafka.mode: group has many models; run it by streamlearn.run_lineages")
    shown = None if not progress else logs.Progress() if log == "json" else display.Progress()
    with watched(loaded) as watch:
        pauses = _pauses()
        while True:
            job = plan(loaded)
            observers = observers_of(job, report)
            try:
                found = _executed(job, observers, limit, loaded.engine.pace, shown, watch)
                return written(found, json, report)
            except AbortedError as error:
                pause = next(pauses)
                text = "%s; going on from the last checkpoint that counts, in %g s"
                _log.warning(text, error, pause)
                watch.remove(job.name)
            clocks.sleep(pause)


def _pauses() -> Iterator[float]:
    """Seconds to wait before each new beginning; they begin anew after ten quiet minutes."""
    pause, last = _PAUSE, clocks.monotonic()
    while True:
        yield pause
        now = clocks.monotonic()
        pause = _PAUSE if now - last > _QUIET else min(2 * pause, _LONGEST_PAUSE)
        last = now


@contextlib.contextmanager
def watched(config: Config) -> Iterator[Watch]:
    """What looks at the engines of a run, and answers over HTTP where the configuration says so."""
    section = config.health
    watch = Watch() if section is None else Watch(section.max_lag, section.stalled)
    with told_of(config, watch.status):
        yield watch


def plan(config: Config) -> Job:
    """Everything that a configuration asks for, built and checked; no event is read.

    Raises: UserError with the path of what is wrong or not there.
    """
    return lineage(config)


def validated(config: Config, *, connect: bool = False) -> Job:
    """`plan`, and what can be found without an event: columns of the source, what stages take.

    connect: ask the broker for the topics that are read and written, too; without it nothing is
    connected.
    Raises: UserError for the first mistake.
    """
    config.check_secrets("dashboard")
    job = plan(config)
    opened = plan(config.model_copy(update={"checkpoint": None}))  # no folder is made, no log begun
    read = [source for source in getattr(job.source, "sources", ()) if has_lanes(source)]
    try:
        for source in read:
            decoder_of(source.topics, source.schema).close()
        if connect or not read:
            opened.source.open({})
        for section in config.written.values() if connect else ():
            if section.topic is not None:
                opened.outputs.partitions(section.topic)  # refused where it is not there
    finally:
        opened.source.close()
        if opened.outputs is not None:
            opened.outputs.close()
    rehearse(job)
    return job


def written(result: Result, json: str | Path | None, report: str | Path | None) -> Result:
    """The result, also written to files where they are named."""
    if json is not None:
        write_text(json, result.to_json() + "\n")
    if report is not None:
        from streamlearn.report import write_report

        write_report(report, result)
    return result


# -- from a job to a result ------------------------------------------------------------------------


def engine_of(
    job: Job,
    observers: Observers | None = None,
    *,
    limit: int | None = None,
    pace: float | None = None,
    beat: Callable[[], None] | None = None,
    vitals: Vitals | None = None,
) -> Engine:
    """The engine of a job, not begun. beat: called in its loop; vitals: as of `Engine`."""
    section, watched = job.config.checkpoint, observers or observers_of(job, None)
    every = (None, None) if section is None else how_often(job.config, section)
    # where labels come with their events, to log those without would fill the memory
    job.pipeline.expects_labels = job.labels is not None
    return Engine(
        job.source,
        _controlled(job, watched.pipeline),
        evaluation=watched.measure,
        sink=job.sink,
        alerts=job.alerts,
        webhook=job.webhook,
        dead_letters=job.dead_letters,
        checkpoints=job.checkpoints,
        delivery=job.delivery,
        every_events=every[0],
        every_seconds=every[1],
        block_rows=job.config.engine.block_rows,
        pace=pace,
        limit=limit,
        recorder=watched.recorder,
        beat=beat,
        vitals=vitals,
        shutdown_timeout=job.config.engine.shutdown_timeout,
        spill=job.spill,
        start=job.start,
    )


def _controlled(job: Job, pipeline: Any) -> Any:
    """The pipeline, with what is done to it by hand where a folder says so."""
    store = job.checkpoints
    folder = job.controls or (None if store is None else store.path)
    return pipeline if folder is None else Controlled(pipeline, job.pipeline, folder)


def vitals_of(job: Job) -> Vitals:
    """What notes the vital signs of a job's engine; alarms are lines of the log."""
    version = version_of(job)
    about: dict[str, Json] = {
        "model": version,
        "task": str(job.evaluation.task),
        "target": str(job.schema.target),
        "window": job.evaluation.window,
        "features": list(job.schema.features)[:MAX_NAMED],
        "stages": [type(stage).__name__ for stage in job.pipeline.stages],
    }
    return Vitals(job.labels or job.schema, version, about, log=True)


def how_often(config: Config, section: configs.Checkpoint) -> tuple[int | None, float | None]:
    """Events and seconds between checkpoints: with transactions a second, if nothing is said."""
    said = {"every_events", "every_seconds"} & section.model_fields_set
    if config.kafka is not None and config.kafka.delivery == "transactions" and not said:
        return None, 1.0
    return section.every_events, section.every_seconds


def _executed(
    job: Job,
    observers: Observers,
    limit: int | None,
    pace: float | None,
    progress: Shown | None,
    watch: Watch | None = None,
) -> Result:
    """Load the kernels, run the engine, sum up."""
    rehearse(job)
    expected = job.pipeline.expects_labels
    beat = None if watch is None else watch.beat
    vitals = None if watch is None else vitals_of(job)
    engine = engine_of(job, observers, limit=limit, pace=pace, beat=beat, vitals=vitals)
    if watch is not None:
        watch.add(job.name, engine, job.outputs)
    try:
        with user_errors("pipeline: "):
            summary = engine.run() if progress is None else _shown(engine, job.evaluation, progress)
    finally:
        job.pipeline.expects_labels = expected
    if summary.stopped:
        _log.warning("stopped by %s after %d events", summary.stopped, summary.events)
    elif summary.events == 0:
        raise UserError(_nothing(job.name, summary.rejects))
    result = observers.completed(result_of(job, summary))
    doubt = label_sources.doubt(result.labels, job.schema.time is not None)
    if doubt is not None:
        _log.warning("labels: %s", doubt)
    return result


def _nothing(name: str, rejects: int) -> str:
    if rejects == 0:
        return f"{name}: has no rows; there must be at least one to learn from"
    return f"{name}: none of its {rejects} rows fits the schema; look at the reasons, or declare it"


def _shown(engine: Engine, evaluation: Evaluation, progress: Shown) -> Summary:
    """Run with the progress line."""
    with progress:

        def show(engine: Engine) -> None:
            if progress.due:
                progress.show(engine.events, *evaluation.rolling, engine.alarms)

        engine.progress = show
        return engine.run()
