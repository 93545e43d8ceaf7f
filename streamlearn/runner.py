"""Replay and run: from data, or a configuration, to a pipeline that has learnt and a result.

Everything that can be wrong is found before the first event is read: names, arguments, columns,
files. Then kernels are loaded on invented rows, the clock starts, and the engine takes over.
"""

import contextlib
import hashlib
import json as json_text
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from streamlearn import config as configs
from streamlearn import connectors, display, stdin
from streamlearn.checkpoint import CheckpointStore
from streamlearn.config import Config
from streamlearn.connectors.sinks import open_dead_letters, open_sink
from streamlearn.contracts import Sink, Source
from streamlearn.durable import disk_errors
from streamlearn.engine import DeadLetters, Engine, Summary
from streamlearn.errors import UserError
from streamlearn.evaluation import Evaluation
from streamlearn.pipeline import Pipeline
from streamlearn.result import Result
from streamlearn.schema import Schema
from streamlearn.specification import specification

_log = logging.getLogger(__name__)
_CONFIG_ENDINGS = (".yaml", ".yml")


class Job(NamedTuple):
    """Everything that one stream needs, built and checked, nothing opened."""

    source: Source
    schema: Schema
    pipeline: Pipeline
    evaluation: Evaluation
    sink: Sink | None
    dead_letters: DeadLetters | None
    checkpoints: CheckpointStore | None
    config: Config
    name: str  # of the data, for messages


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
    progress: bool = False,
) -> Result:
    """Score every event of recorded data, then learn from it, in order; as the command line does.

    `replay(pipe, "data.csv", target="y")`, or without a pipeline of one's own
    `replay(data="data.csv", target="y", model="KalmanHead", set={"random_features": 100})`.

    Args:
        pipe: a Pipeline, or one operator or River estimator; it goes on learning, with the tables
            of features and classes it was trained with. None builds what `model` names.
        data: a path (CSV, JSON Lines, Parquet, compressed or not, a folder), `-` for JSON Lines on
            stdin, `river:Name`, an Arrow table, a pandas or polars frame, an iterable of dicts, or
            a configuration (.yaml), whose source is replayed; its sinks and checkpoints are never
            touched.
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
        progress: show a line with events a second, rolling metric and alarms on stderr.

    Raises: UserError of one line for whatever is wrong with an argument, a file or the data.
    """
    if data is None:
        pipe, data = None, pipe
    if data is None:
        raise UserError("data: must be given: a path, a frame, an Arrow table or an iterable")
    config, data, arguments = _settings(data, model, set, pipe)
    outputs = {"predictions": predictions, "dead_letters": dead_letters, "json": json}
    _check_outputs(data, outputs)
    names = {
        "target": target,
        "features": configs.listed(features),
        "ignore": configs.listed(ignore),
    }
    asked = names | {"task": task}
    declared = config.schema_ if schema is None and not any(asked.values()) else schema
    source, found = _source(data, declared, asked, display.say if progress else _log.info)
    job = Job(
        source=source,
        schema=found,
        pipeline=_pipeline(pipe, config, model, arguments, found),
        evaluation=_evaluation(config, found, window, fading),
        sink=_sink(predictions, found, checkpoint is not None),
        dead_letters=_dead_letters(dead_letters),
        checkpoints=None,
        config=config,
        name=_name(data),
    )
    if checkpoint is not None:
        section = configs.Checkpoint(path=str(checkpoint))
        often = config.model_copy(update={"checkpoint": section})
        job = job._replace(checkpoints=_store(job, section, allow_pickle), config=often)
    return _written(_executed(job, limit, pace, progress), json)


def run(
    config: Config | str | Path,
    *,
    limit: int | None = None,
    json: str | Path | None = None,
    progress: bool = False,
) -> Result:
    """Run a configuration live: from its last checkpoint, until the source ends or a signal comes.

    Args:
        config: a Config, or the path of its YAML file; needs `source`, `schema` and `pipeline`.
        limit: events of the stream at most, those before a restart included.
        json: file for the result.
        progress: show a line with events a second, rolling metric and alarms on stderr.

    Raises: UserError of one line for whatever is wrong with the configuration or the data.
    """
    loaded = config if isinstance(config, Config) else configs.load_config(config)
    _check_outputs(loaded.source, _paths(loaded) | {"json": json})
    return _written(_executed(plan(loaded), limit, loaded.engine.pace, progress), json)


def plan(config: Config) -> Job:
    """Everything that a configuration asks for, built and checked; no event is read.

    Raises: UserError with the path of what is wrong or not there.
    """
    for key in ("source", "schema_", "pipeline"):
        if getattr(config, key) is None:
            name = key.rstrip("_")
            raise UserError(f"{name}: must be there for a run; `streamlearn init DATA` writes it")
    _check_outputs(config.source, _paths(config))
    schema = _fresh(config.schema_)
    sink = config.sink and config.sink.model_dump(exclude_none=True)
    dead = config.dead_letters and config.dead_letters.model_dump(exclude_none=True)
    job = Job(
        source=connectors.open_source(str(config.source), schema),
        schema=schema,
        pipeline=_pipeline(None, config, None, {}, schema),
        evaluation=_evaluation(config, schema, None, None),
        sink=open_sink(sink, schema, recoverable=config.checkpoint is not None) if sink else None,
        dead_letters=open_dead_letters(dead) if dead else None,
        checkpoints=None,
        config=config,
        name=_name(config.source),
    )
    if config.checkpoint is None:
        return job
    return job._replace(checkpoints=_store(job, config.checkpoint, config.allow_pickle))


def validated(config: Config) -> Job:
    """`plan`, and what can be found without an event: columns of the source, what stages take.

    Raises: UserError for the first mistake.
    """
    job = plan(config)
    try:
        job.source.open({})
    finally:
        job.source.close()
    rehearse(job)
    return job


# -- from arguments to a job -----------------------------------------------------------------------


def _settings(
    data: Any, model: str | None, given: configs.Assignments, pipe: Any
) -> tuple[Config, Any, dict[str, Any]]:
    """The configuration, the data it or the caller names, and arguments for a named operator."""
    if not isinstance(model, (str, Path, type(None))):
        raise UserError(
            f"model: must be a name or a YAML file, got {model!r}; give an operator as the pipeline"
        )
    if _is_config(data):
        config = configs.load_config(data, None if model else given)
        if config.source is None:
            raise UserError(
                f"source: must be there to replay {data}; or give DATA and --model {data}"
            )
        return config, config.source, configs.pairs(given) if model else {}
    if _is_config(model):
        return configs.load_config(str(model), given), data, {}
    if pipe is not None and (model is not None or given):
        raise UserError("model, set: must be left out where a pipeline is given")
    return Config(), data, configs.pairs(given)


def _is_config(name: Any) -> bool:
    return isinstance(name, (str, Path)) and str(name).endswith(_CONFIG_ENDINGS)


def _source(
    data: Any,
    declared: Schema | Mapping[str, Any] | None,
    asked: Mapping[str, Any],
    say: Callable[[str], None],
) -> tuple[Source, Schema]:
    """The data as a source, with the schema that was declared, or that data and names suggest."""
    schema = None if declared is None else _fresh(declared)
    if schema is None and str(data) == "-":
        sample = stdin.look_ahead(connectors.SAMPLE)
        if not sample:
            raise UserError("-: standard input must be JSON Lines; no object is in its first lines")
        schema = Schema.infer(sample, **asked)
        say(schema.describe())
    source, found = connectors.as_source(data, schema, **({} if schema else asked))
    if schema is None:
        say(found.describe())
    configs.check_target(found)
    return source, found


def _fresh(declared: Schema | Mapping[str, Any] | None) -> Schema:
    """A schema with empty tables; one that was declared may be used for many streams."""
    table = declared.to_config() if isinstance(declared, Schema) else declared
    return Schema.from_config(table)


def _pipeline(
    pipe: Any, config: Config, model: str | None, arguments: Mapping[str, Any], schema: Schema
) -> Pipeline:
    """The pipeline that was given, configured or named, fit for the task of the schema."""
    if pipe is not None:
        found = pipe if isinstance(pipe, Pipeline) else configs.assembled([pipe], "pipe")
        schema.bind(found.features, found.labels)
    elif config.pipeline is not None and (model is None or _is_config(model)):
        found = configs.build_pipeline(config, schema.task)
    else:
        name = model or configs.DEFAULT_MODEL
        found = configs.default_pipeline(name, schema.task, arguments, schema.sparse_width > 0)
    if found.task != schema.task:
        does = "no model that predicts" if found.task is None else f"a model for {found.task}"
        raise UserError(
            f"pipeline: must fit the target {schema.target!r}, which makes this {schema.task}, "
            f"got {does}; choose another model or say the task"
        )
    return found


def _evaluation(
    config: Config, schema: Schema, window: int | None, fading: float | None
) -> Evaluation:
    section = config.evaluation
    with _user_errors():
        return Evaluation(
            str(schema.task),
            labels=schema.labels,
            window=section.window if window is None else window,
            fading=section.fading if fading is None else fading,
        )


def _store(job: Job, section: configs.Checkpoint, allow_pickle: bool) -> CheckpointStore:
    """The checkpoint folder, which belongs to this pipeline, schema and evaluation alone."""
    stages = [(repr(stage), specification(stage)) for stage in job.pipeline.stages]
    what = [stages, job.schema.to_config(), job.evaluation.window, job.evaluation.fading]
    digest = hashlib.blake2b(json_text.dumps(what, default=str).encode(), digest_size=8).hexdigest()
    if job.pipeline.needs_pickle and not allow_pickle:
        raise UserError(
            "checkpoint: a River or scikit-learn stage can only be saved as a pickle; "
            "set allow_pickle: true if nobody else can write to that folder"
        )
    return CheckpointStore(
        section.path, section.keep, fingerprint=digest, allow_pickle=allow_pickle
    )


def _sink(predictions: str | Path | None, schema: Schema, recoverable: bool) -> Sink | None:
    """The file for the answers of a replay; what an earlier one left there is replaced."""
    if predictions is None:
        return None
    return open_sink(predictions, schema, overwrite=True, recoverable=recoverable)


def _dead_letters(path: str | Path | None) -> DeadLetters | None:
    if path is None:
        return None
    found: DeadLetters = open_dead_letters(path, overwrite=True)
    return found


def _paths(config: Config) -> dict[str, str | Path | None]:
    """The files that a configuration writes."""
    given = {"sink": config.sink, "dead_letters": config.dead_letters}
    return {name: None if section is None else section.path for name, section in given.items()}


def _check_outputs(data: Any, outputs: Mapping[str, str | Path | None]) -> None:
    """Refuse to write over the data that is read, two outputs in one file, and a JSON nowhere."""
    taken = {_identity(data): "the data that is read"} if isinstance(data, (str, Path)) else {}
    for name, path in outputs.items():
        if path is None or str(path) == "-":
            continue
        other = taken.setdefault(_identity(path), f"the file of {name} already")
        if other != f"the file of {name} already":
            raise UserError(f"{name}: {path} is {other}; name another file")
    result = Path(outputs.get("json") or ".")  # opened last of all, so looked at now
    if not result.parent.is_dir():
        raise UserError(f"json: {result}: there is no such folder; make it, or correct the path")


def _identity(path: str | Path) -> object:
    """What two names of one file have in common."""
    with contextlib.suppress(OSError):
        found = Path(path).stat()
        return found.st_dev, found.st_ino
    return Path(path).absolute()


def _written(result: Result, json: str | Path | None) -> Result:
    """The result, also written to a file where one is named."""
    if json is not None:
        with disk_errors(json):
            Path(json).write_text(result.to_json() + "\n", encoding="utf-8")
    return result


def _name(data: Any) -> str:
    return str(data) if isinstance(data, (str, Path, dict)) else type(data).__name__


# -- from a job to a result ------------------------------------------------------------------------


def _executed(job: Job, limit: int | None, pace: float | None, progress: bool) -> Result:
    """Load the kernels, run the engine, sum up."""
    rehearse(job)
    section = job.config.checkpoint
    every = (None, None) if section is None else (section.every_events, section.every_seconds)
    engine = Engine(
        job.source,
        job.pipeline,
        evaluation=job.evaluation,
        sink=job.sink,
        dead_letters=job.dead_letters,
        checkpoints=job.checkpoints,
        every_events=every[0],
        every_seconds=every[1],
        block_rows=job.config.engine.block_rows,
        pace=pace,
        limit=limit,
    )
    expected, job.pipeline.expects_labels = job.pipeline.expects_labels, False
    try:  # labels come with their events here: to log those without would fill the memory
        with _user_errors("pipeline: "):
            summary = _shown(engine, job.evaluation) if progress else engine.run()
    finally:
        job.pipeline.expects_labels = expected
    if summary.stopped:
        _log.warning("stopped by %s after %d events", summary.stopped, summary.events)
    elif summary.events == 0:
        raise UserError(_nothing(job.name, summary.rejects))
    return _result(job, summary)


def _nothing(name: str, rejects: int) -> str:
    if rejects == 0:
        return f"{name}: has no rows; there must be at least one to learn from"
    return f"{name}: none of its {rejects} rows fits the schema; look at the reasons, or declare it"


def _shown(engine: Engine, evaluation: Evaluation) -> Summary:
    """Run with the progress line."""
    with display.Progress() as line:

        def show(engine: Engine) -> None:
            if line.due:
                line.show(engine.events, *evaluation.rolling, engine.alarms)

        engine.progress = show
        return engine.run()


def _result(job: Job, summary: Summary) -> Result:
    measured = job.evaluation.result()
    return Result(
        **{name: value for name, value in measured.items() if name != "events"},
        events=summary.events,
        target=str(job.schema.target),
        seconds=summary.seconds,
        events_per_second=summary.events_per_second,
        state_bytes=job.pipeline.state_bytes,
        model=repr(job.pipeline),
        schema=job.schema.to_config(),
        dead_letters=summary.rejects,
        pipeline=job.pipeline,
    )


def rehearse(job: Job) -> None:
    """Walk some invented rows through clones: loads or compiles every kernel that will be needed.

    What a stage does not take, such as a category without an encoder, shows before the stream does.
    Cost: what compiling costs, the first time on a machine; some milliseconds afterwards.

    Raises: UserError for stages that do not fit the schema.
    """
    twin, decoder, real = job.pipeline.clone(), _fresh(job.schema), job.evaluation
    measure = Evaluation(real.task, window=real.window, fading=real.fading)
    source, _ = connectors.as_source(_invented(job.schema, 4), decoder)
    source.open({})
    with _user_errors("pipeline: "):
        while (batch := source.poll(3, 0.0)) is not None:  # blocks of three rows and of one
            measure.update(batch.block, twin.run(batch.block))
        twin.load_kernels()
    source.close()
    _ = measure.rolling


@contextlib.contextmanager
def _user_errors(where: str = "") -> Iterator[None]:
    """What our own checks refuse, as the user's mistake that it is."""
    try:
        yield
    except UserError:
        raise
    except (TypeError, MemoryError) as error:  # of estimators that are not ours, or too large
        text = f"{where}{' '.join(str(error).split())}; check the stages against the schema"
        raise UserError(text) from error
    except ValueError as error:
        raise UserError(f"{where}{error}") from error


def _invented(schema: Schema, n: int) -> Any:
    """An Arrow table of records that fit a schema; Arrow has much to load on its first use."""
    import pyarrow as pa

    return pa.Table.from_pylist([_invented_record(schema, i) for i in range(n)])


def _invented_record(schema: Schema, i: int) -> dict[str, Any]:
    """A record that fits a schema."""
    values: dict[str, Any] = {"number": float(i), "boolean": i % 2 == 0, "time": i, "words": ["a"]}
    record = {name: values.get(f.kind, "a") for name, f in schema.features.items()}
    roles = {role: name for role, name in schema.roles().items() if role not in ("target", "group")}
    record |= dict.fromkeys(roles.values(), i)
    record |= {} if schema.group is None else {schema.group: record.get(schema.group, "a")}
    classes = {"text": "ab"[i % 2], "integer": i % 2, "boolean": i % 2 == 0}
    label = classes[schema.classes] if schema.task == "classification" else float(i)
    return record | ({} if schema.target is None else {schema.target: label})
