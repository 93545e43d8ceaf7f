"""From arguments or a configuration to a job: everything that one stream needs, built and checked.

Everything that can be wrong is found here, before the first event is read: names, arguments,
columns, files.
"""

import contextlib
import dataclasses
import hashlib
import json as json_text
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from streamlearn import config as configs
from streamlearn import connectors, label_sources, registry, stdin, topics
from streamlearn.checkpoint import CheckpointStore
from streamlearn.config import Config
from streamlearn.config_topics import TopicsSection
from streamlearn.connectors import takes_in
from streamlearn.connectors.kafka.location import EARLIEST, Topics
from streamlearn.connectors.kafka.tape import is_tape
from streamlearn.connectors.sinks import open_dead_letters, open_sink
from streamlearn.contracts import Delivery, Json, Positions, Sink, Source
from streamlearn.engine import DeadLetters, Summary
from streamlearn.errors import UserError
from streamlearn.evaluation import Evaluation
from streamlearn.event_log import MEMORY
from streamlearn.label_join import JoinedLabels
from streamlearn.operators._base import ANOMALY, CLASSIFICATION
from streamlearn.order_log import OrderLog, first_offsets
from streamlearn.partitions import refuse_lineages
from streamlearn.pipeline import Pipeline
from streamlearn.result import Result
from streamlearn.schema import LabelSchema, Schema
from streamlearn.specification import specification
from streamlearn.spill import Spill

_log = logging.getLogger(__name__)
_CONFIG_ENDINGS = (".yaml", ".yml")


class Job(NamedTuple):
    """Everything that one stream needs, built and checked, nothing opened.

    schema: of the events, with the target, wherever labels come from. name: of the data, for
    messages. label_schema: of a label stream of its own. labels: the source, where labels come
    late; spill: where their events wait that memory has no room for. read: the places that are
    read. webhook: takes alarms, too. outputs: what those to topics share. delivery: who is told of
    checkpoints. start: the positions of a replay along an order log. controls: the folder with
    what was done by hand, where it is to be done again; else that of the checkpoints.
    """

    source: Source
    schema: Schema
    config: Config
    name: str
    label_schema: LabelSchema | None
    read: Mapping[str, Any]
    pipeline: Pipeline
    evaluation: Evaluation
    sink: Sink | None = None
    alerts: Sink | None = None
    webhook: Any = None
    dead_letters: DeadLetters | None = None
    checkpoints: CheckpointStore | None = None
    labels: label_sources.Late | None = None
    spill: Spill | None = None
    delivery: Delivery | None = None
    outputs: Any = None
    start: Positions | None = None
    controls: Path | None = None


class Stream(NamedTuple):
    """A source with its schema, before a pipeline is there to fit them; fields as of `Job`."""

    source: Source
    schema: Schema
    config: Config
    name: str
    label_schema: LabelSchema | None = None
    read: Mapping[str, Any] = {}  # never written into

    def job(self, pipeline: Pipeline, evaluation: Evaluation) -> Job:
        """The job of a pipeline on this stream."""
        return Job(*self, pipeline, evaluation)


def settings(
    data: Any, model: str | None, given: configs.Assignments, pipe: Any, along: bool = False
) -> tuple[Config, Any, dict[str, Any]]:
    """The configuration, the data it or the caller names, and arguments for a named operator.

    along: an order is repeated, and ends with its last row; topics have no end of their own then.
    """
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
        config = config if along else topics.bounded(config)
        place = topics.place_of(config, config.source)
        return config, place, configs.pairs(given) if model else {}
    if is_tape(data):
        if not _is_config(model):
            raise UserError(
                f"{data}: is a recording; name the configuration of its run, as in --model run.yaml"
            )
        config = topics.taped(configs.load_config(str(model), given), data)
        return config, topics.place_of(config, config.source), {}
    if _is_config(model):
        place, config = topics.located(data, configs.load_config(str(model), given))
        return config if along else topics.bounded(config), place, {}
    if pipe is not None and (model is not None or given):
        raise UserError("model, set: must be left out where a pipeline is given")
    place, config = topics.located(data, Config())
    return config, place, configs.pairs(given)


def _is_config(name: Any) -> bool:
    return isinstance(name, (str, Path)) and str(name).endswith(_CONFIG_ENDINGS)


def start_of(order: OrderLog | None, read: Mapping[str, Any]) -> Positions | None:
    """Where the run began whose order is repeated, if not at the beginning of its topics."""
    late = [role for role, place in read.items() if getattr(place, "start", EARLIEST) != EARLIEST]
    if order is None or not late:
        return None
    inputs = ["events" if role == "source" else role for role in late]
    found = first_offsets(order.path)
    return {name: offset for name, offset in found.items() if name.partition("/")[0] in inputs}


def stream_for(
    data: Any,
    declared: Schema | Mapping[str, Any] | None,
    asked: Mapping[str, Any],
    config: Config,
    say: Callable[[str], None],
    lineage: topics.Lineage = topics.ALL,
) -> Stream:
    """A source and its schema, wherever the labels come from; of topics the lineage's part."""
    section = config.labels
    label_place = None if section is None else topics.place_of(config, section.source)
    apart = label_place is not None
    data, label_place = lineage.part_of(data), lineage.part_of(label_place)
    known = None if declared is None else fresh(declared)
    read, events = dict(asked), known
    if apart and known is None:
        read = label_sources.without_target(data, asked)
    elif apart and known is not None:
        events = label_sources.without_labels(known)
    source, schema = source_of(data, events, read, say, needs_target=not apart)
    labels = None
    if apart and section is not None:
        wanted = {"target": asked.get("target"), "task": asked.get("task")}
        labels = label_sources.label_schema(section, label_place, schema, known, **wanted)
        schema = label_sources.whole(schema, labels)
    read = {"source": data} | ({"labels": label_place} if apart else {})
    return Stream(source, schema, config, name_of(data), labels, read)


def source_of(
    data: Any,
    declared: Schema | Mapping[str, Any] | None,
    asked: Mapping[str, Any],
    say: Callable[[str], None],
    needs_target: bool = True,
) -> tuple[Source, Schema]:
    """The data as a source, with the schema that was declared, or that data and names suggest.

    asked: target, features, ignore, task and roles; beside a declared schema, roles alone.
    needs_target: False where labels come from elsewhere.
    """
    schema = None if declared is None else _with_roles(fresh(declared), asked)
    if isinstance(data, Topics):
        return _topics_of(data, schema, asked, say, needs_target)
    if schema is None and isinstance(data, (str, Path)) and str(data) == "-":
        sample = stdin.look_ahead(connectors.SAMPLE)
        if not sample:
            raise UserError("-: standard input must be JSON Lines; no object is in its first lines")
        schema = Schema.infer(sample, **asked)
        say(schema.describe())
    source, found = connectors.as_source(data, schema, **({} if schema else asked))
    if schema is None:
        say(found.describe())
    if needs_target:
        configs.check_target(found)
    return source, found


def _topics_of(
    data: Topics,
    schema: Schema | None,
    asked: Mapping[str, Any],
    say: Callable[[str], None],
    needs_target: bool,
) -> tuple[Any, Schema]:
    """Topics as a source with lanes, which `with_late_labels` merges."""
    if schema is None:
        schema = Schema.infer(data, **asked)
        say(schema.describe())
    schema = topics.timed(schema)
    if needs_target:
        configs.check_target(schema)
    return connectors.open_topics(data, schema), schema


def _with_roles(schema: Schema, asked: Mapping[str, Any]) -> Schema:
    """A declared schema with further roles; a column that gets one is a feature no more."""
    roles = {role: name for role, name in asked.items() if role in ROLES and name is not None}
    if not roles:
        return schema
    table = schema.to_config() | roles
    alone = [name for role, name in roles.items() if role not in ("group", "time")]
    table["features"] = {n: f for n, f in table["features"].items() if n not in alone}
    return Schema.from_config(table)


ROLES = ("id", "time", "group", "label_time")  # that a caller may name beside a declared schema


def fresh(declared: Schema | Mapping[str, Any] | None) -> Schema:
    """A schema with empty tables; one that was declared may be used for many streams."""
    table = declared.to_config() if isinstance(declared, Schema) else declared
    return Schema.from_config(table)


def pipeline_of(
    pipe: Any, config: Config, model: str | None, arguments: Mapping[str, Any], schema: Schema
) -> Pipeline:
    """The pipeline that was given, configured or named, fit for the task of the schema.

    An anomaly scorer fits classes: it does not learn them, they judge its scores.
    """
    if pipe is not None:
        found = pipe if isinstance(pipe, Pipeline) else registry.assembled([pipe], "pipe")
        schema.bind(found.features, found.labels)
    elif config.pipeline is not None and (model is None or _is_config(model)):
        found = configs.build_pipeline(config, schema.task)
    else:
        name = model or configs.DEFAULT_MODEL
        found = configs.default_pipeline(name, schema.task, arguments, schema.sparse_width > 0)
    judged = found.task == ANOMALY and schema.task == CLASSIFICATION
    if found.task != schema.task and not judged:
        does = "no model that predicts" if found.task is None else f"a model for {found.task}"
        raise UserError(
            f"pipeline: must fit the target {schema.target!r}, which makes this {schema.task}, "
            f"got {does}; choose another model or say the task"
        )
    return found


def evaluation_of(
    config: Config,
    schema: Schema,
    window: int | None = None,
    fading: float | None = None,
    task: str | None = None,
) -> Evaluation:
    """The evaluation of a stream; an argument goes before the configuration.

    task: of the pipeline, where it is not that of the schema: anomaly.
    """
    section = config.evaluation
    with user_errors("evaluation: "):
        return Evaluation(
            str(task or schema.task),
            labels=schema.labels,
            window=section.window if window is None else window,
            fading=section.fading if fading is None else fading,
            delayed=config.labels is not None,
            season=section.season,
            level=section.level,
            positive=section.positive,
            max_groups=section.max_groups,
            river=[_river_metric(path) for path in section.river],
        )


def _river_metric(path: str) -> Any:
    """A metric of River by its import path, such as river.metrics.F1."""
    import river.metrics  # brings scipy.stats along: half a second

    name = path.removeprefix("river.metrics.")
    found = getattr(river.metrics, name, None)
    if not isinstance(found, type):
        raise UserError(f"river: must name metrics such as river.metrics.F1, got {path!r}")
    return found()


def lineage(
    config: Config,
    number: int | None = None,
    commits: Any = None,
    fresh_from_beginning: bool = False,
) -> Job:
    """Everything that a configuration asks for, built and checked; no event is read.

    number: of the partitions that it reads of every topic, with checkpoints in a folder of their
    own; None: all. commits: the member of a group that commits offsets. fresh_from_beginning:
    without a checkpoint it reads from the beginning, whatever the configuration says.
    Raises: UserError with the path of what is wrong or not there.
    """
    for key in ("source", "schema_", "pipeline"):
        if getattr(config, key) is None:
            name = key.rstrip("_")
            raise UserError(f"{name}: must be there for a run; `streamlearn init DATA` writes it")
    check_outputs(config.source, output_paths(config), *config.read.values())
    own = topics.Lineage(number, commits, fresh_from_beginning)
    place = topics.place_of(config, config.source)
    asked = {"label_time": label_sources.label_time(config.labels)}
    stream = stream_for(place, config.schema_, asked, config, _log.info, own)
    pipeline = pipeline_of(None, config, None, {}, stream.schema)
    job = stream.job(pipeline, evaluation_of(config, stream.schema, task=pipeline.task))
    if config.checkpoint is not None:
        if number is None:
            refuse_lineages(Path(config.checkpoint.path))
        section = config.checkpoint.model_copy(update={"path": own.folder(config.checkpoint.path)})
        job = job._replace(checkpoints=store_of(job, section, config.allow_pickle))
    job = with_late_labels(job)
    tables, version = job.labels or job.schema, version_of(job)
    found = topics.written(config, own, tables, version, job.read)
    if config.webhook is not None and job.checkpoints is not None:
        webhook = config.webhook.opened(job.checkpoints.path, tables, version)
        job = job._replace(webhook=webhook)
    return job._replace(**found._asdict())


def version_of(job: Job) -> str:
    """What answers say of the model: a digest of its stages and of the schema, 16 letters."""
    return _digest(_stages(job), job.schema.to_config())


def _stages(job: Job) -> list[Json]:
    return [(repr(stage), specification(stage)) for stage in job.pipeline.stages]


def _digest(*what: Json) -> str:
    text = json_text.dumps(what, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def store_of(
    job: Job, section: configs.Checkpoint, allow_pickle: bool, more: Json = None
) -> CheckpointStore:
    """The checkpoint folder, which belongs to this pipeline, schema and measurement alone.

    more: whatever else must be the same when the run goes on.
    """
    measured, late = job.config.evaluation, job.config.labels
    joined = None if late is None else late.in_words()  # not where of its topics a run begins
    digest = _digest(
        _stages(job),
        job.schema.to_config(),
        job.evaluation.window,
        job.evaluation.fading,
        measured.model_dump(mode="json"),
        joined,
        more,
    )
    if (job.pipeline.needs_pickle or job.evaluation.needs_pickle) and not allow_pickle:
        raise UserError(
            "checkpoint: a River or scikit-learn stage, or a metric of River, can only be saved "
            "as a pickle; set allow_pickle: true if nobody else can write to that folder"
        )
    return CheckpointStore(
        section.path, section.keep, fingerprint=digest, allow_pickle=allow_pickle
    )


def order_log_of(store: CheckpointStore, config: Config) -> OrderLog:
    """Where the order of a merge is kept: beside the checkpoints."""
    needed = config.checkpoint is not None and config.checkpoint.keep_order == "needed"
    return OrderLog(store.path / "order.log", store, keep_all=not needed)


def with_late_labels(job: Job, order: OrderLog | None = None) -> Job:
    """The job with its source wrapped: lanes are merged, and labels come late where it says so.

    order: a log that is repeated, instead of that beside the checkpoints.
    """
    section, store = job.config.labels, job.checkpoints
    if order is None and store is not None:
        order = order_log_of(store, job.config)
    if section is None:
        job = job._replace(source=label_sources.in_one(job.source, job.schema, order))
        if store is None or not job.pipeline.takes_keys:
            return job
        kept = Spill(store.path / "spill", store.keep)  # records of banks
        job.pipeline.spill_to(kept, MEMORY)
        return job._replace(spill=kept)
    if job.label_schema is not None:
        job.label_schema.bind(None, job.pipeline.labels)
    events = getattr(job.source, "schema", job.schema)
    with user_errors("labels: "):
        told = label_sources.opened(job.read.get("labels"), job.label_schema)
        late = label_sources.late(job.source, events, job.label_schema, section, order, told)
    spill = Spill() if store is None else Spill(store.path / "spill", store.keep)
    if isinstance(late, JoinedLabels):
        late.spill_to(spill, (section.memory_mb << 20) // 4)
    job.pipeline.spill_to(spill, section.memory_mb << 20)
    job.evaluation.spill_to(spill, section.memory_mb << 20)
    return job._replace(source=late, labels=late, spill=spill)


def sink_of(path: str | Path | None, job: Job) -> Sink | None:
    """The file for the answers of a replay; what an earlier one left there is replaced."""
    if path is None:
        return None
    recoverable = job.checkpoints is not None
    return open_sink(path, job.labels or job.schema, overwrite=True, recoverable=recoverable)


def dead_letters_of(path: str | Path | None) -> DeadLetters | None:
    """The file for records that do not fit; what an earlier replay left there is replaced."""
    if path is None:
        return None
    found: DeadLetters = open_dead_letters(path, overwrite=True)
    return found


def output_paths(config: Config) -> dict[str, str | Path | None]:
    """The files and topics that a configuration writes."""
    return {name: str(section) for name, section in config.written.items()}


def check_outputs(data: Any, outputs: Mapping[str, str | Path | None], *more: Any) -> None:
    """Refuse to write over what is read, two outputs in one file, and a JSON nowhere.

    data: the events. more: what else is read.
    """
    read = (data, *more)
    taken = dict.fromkeys((one for each in read for one in _identities(each)), _READ)
    for name, path in outputs.items():
        if path is None or str(path) == "-":
            continue
        other = taken.setdefault(_identity(path), f"the file of {name} already")
        if other != f"the file of {name} already":
            raise UserError(f"{name}: {path} is {other}; name another file")
        if Path(path).suffix in (".yaml", ".yml") and Path(path).is_file():
            raise UserError(f"{name}: {path} is a configuration, by its name; name another file")
        for each in read:
            if _takes_in(each, path):
                raise UserError(f"{name}: {path} would be part of {_READ}, {each}; put it outside")
    if outputs.get("json") is None:
        return
    result = Path(str(outputs["json"]))  # opened last of all, so looked at now
    if result.is_dir():
        raise UserError(f"json: {result} is a folder; name a file, such as result.json")
    if not result.parent.is_dir():
        raise UserError(f"json: {result}: there is no such folder; make it, or correct the path")


_READ = "the data that is read"


def _takes_in(data: Any, path: str | Path) -> bool:
    """Whether what is at a path is read with the files of some data."""
    named = isinstance(data, (str, Path)) and not str(data).startswith(
        ("river:", "drift:", "kafka:")
    )
    return named and not str(path).startswith("kafka:") and takes_in(data, path)


def _identities(data: Any) -> list[object]:
    """Of the files and topics of some data."""
    if isinstance(data, (Topics, TopicsSection)):
        names = data.names if isinstance(data, Topics) else data.topics
        return [_identity(f"kafka:{name}") for name in names]
    return [_identity(data)] if isinstance(data, (str, Path)) else []


def _identity(path: str | Path) -> object:
    """What two names of one file, or of one topic, have in common."""
    with contextlib.suppress(OSError):
        found = Path(path).stat()
        return found.st_dev, found.st_ino
    return Path(path).absolute()


def name_of(data: Any) -> str:
    """What messages call some data."""
    return str(data) if isinstance(data, (str, Path, dict, Topics)) else type(data).__name__


@contextlib.contextmanager
def user_errors(where: str = "") -> Iterator[None]:
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


# -- from a finished job to a result ---------------------------------------------------------------


def result_of(job: Job, summary: Summary) -> Result:
    """What a job found, as far as its own parts know it."""
    measured = job.evaluation.result()
    own = {field.name for field in dataclasses.fields(Result)}
    return Result(
        **{name: value for name, value in measured.items() if name in own and name != "events"},
        events=summary.events,
        resumed_at=summary.resumed_at,
        target=str(job.schema.target),
        seconds=summary.seconds,
        events_per_second=summary.events_per_second,
        state_bytes=job.pipeline.state_bytes,
        model=repr(job.pipeline),
        schema=job.schema.to_config(),
        dead_letters=summary.rejects,
        name=job.name,
        labels=None if job.labels is None else job.labels.report(),
        config=_in_words(job),
        pipeline=job.pipeline,
    )


def _in_words(job: Job) -> dict[str, Json]:
    """The settings of a job, as plain values."""
    late = job.config.labels
    plain: dict[str, Json] = {"evaluation": job.config.evaluation.model_dump(mode="json")}
    plain |= {} if late is None else {"labels": late.in_words()}
    stages = [repr(stage) for stage in job.pipeline.stages]
    return {"pipeline": stages, "block_rows": job.config.engine.block_rows} | plain
