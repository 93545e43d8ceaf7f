"""The configuration: one YAML file or Python object, wholly checked before the first event is read.

Every error begins with the path of the value (`pipeline[2].r: must be > 0, got -1.0`) and, where it
comes from a file, ends with the line. Unknown keys are errors. Words are read by YAML 1.2: `NO` and
`on` stay words, only `true` and `false` are booleans.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from streamlearn import registry, yaml12
from streamlearn.config_serve import ServeSection
from streamlearn.config_serving import DashboardSection
from streamlearn.config_telemetry import TelemetrySection
from streamlearn.config_topics import (
    TAGS,
    AlertsSection,
    DeadLettersSection,
    FormatSection,
    HealthSection,
    KafkaSection,
    Origin,
    OutputSection,
    RegistrySection,
    Rows,
    Section,
    SinkSection,
    TopicsSection,
)
from streamlearn.config_webhook import WebhookSection
from streamlearn.connectors.kafka.location import is_topic, topics_at
from streamlearn.errors import UserError
from streamlearn.schema import Feature, Schema, among

if TYPE_CHECKING:
    from streamlearn.pipeline import Pipeline

Names = str | Sequence[str] | None
Assignments = Mapping[str, Any] | Iterable[str] | None

DEFAULT_MODEL = "KalmanHead"
Stage = str | dict[str, dict[str, Any]]  # a stage of a configuration: a name, or with arguments
DETECTOR: Stage = {"ADWIN": {"average_run_length": 10_000}}
# the model stands before the last
AROUND: tuple[Stage, ...] = ("Imputer", "OneHotEncoder", "Normalizer", DETECTOR)
# with text and bags of words, around a model that takes no sparse columns
AROUND_SPARSE: tuple[Stage, ...] = (*AROUND[:2], "Densifier", *AROUND[2:])

Seconds = Annotated[float, Field(gt=0)]


class ConfigError(UserError):
    """All that is wrong with a configuration; its text is the first mistake and how many follow."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        more = len(self.problems) - 1
        hint = f" (and {more} more; `streamlearn validate` lists them)" if more else ""
        super().__init__(self.problems[0] + hint)


class Checkpoint(Section):
    """Where and how often state is saved.

    path: the folder. every_events, every_seconds: how often it is saved; every second with
    transactions, where neither is given. keep: how many stay. keep_order: of the order in which
    inputs were merged, all, so that it can be replayed, or what the checkpoints need.
    """

    path: str
    every_events: Rows | None = None
    every_seconds: Seconds | None = 10.0
    keep: Rows = 3
    keep_order: Literal["all", "needed"] = "all"


class EvaluationSection(Section):
    """How the stream is measured; the names are the arguments of `Evaluation`.

    window: rows of the windowed metrics. fading: factor of the fading ones. season: rows of a
    season, for the no-change baseline of a number. level: of the intervals. positive: the class
    that ranking metrics are about. max_groups: groups kept apart. river: further metrics, as
    import paths (river.metrics.F1).
    """

    window: Rows = 1000
    fading: Annotated[float, Field(gt=0, le=1)] = 0.999
    season: Rows = 1
    level: Annotated[float, Field(gt=0, lt=1)] = 0.9
    positive: str | int | bool | None = None
    max_groups: Rows = 100
    river: list[str] = Field(default=[])


class LabelsSection(Section):
    """Where labels come from when they come late; `labels: 100` or `labels: labels.csv` is enough.

    delay: of labels that stand in the data: so many rows, a duration (30min), or the column with
        the time at which each label became known.
    source: a stream of labels of its own, joined by id: a file, or topics. id, target, time: its
        columns, named as those of the events if absent.
    by: what `id` of the labels is compared with: the id of the events, or their key; a label by key
        is for the latest event of that key.
    timeout: rows or a duration (in event time) after which a label is not waited for any more.
    assume: the label that an event gets at its time-out (only positives come back).
    max_pending: events that wait for their label at most; the oldest is given up.
    memory_mb: MiB of logged events in memory; the rest waits on disk.
    idle: seconds after which a label stream that says nothing does not hold the events any more.
    """

    source: Origin | None = None
    delay: int | str | None = None
    id: str | None = None
    by: Literal["id", "key"] = "id"
    target: str | None = None
    time: str | None = None
    timeout: int | str | None = None
    assume: str | int | float | bool | None = None
    max_pending: Rows = 1_000_000
    memory_mb: Rows = 256
    idle: Annotated[float, Field(gt=0)] = 5.0

    @model_validator(mode="before")
    @classmethod
    def _from_one(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"delay": value}
        return {"source": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> "LabelsSection":
        if self.source is None and self.delay is None:
            raise ValueError("must name a source or a delay, got neither")
        if self.source is not None and self.delay is not None:
            got = f"source {str(self.source)!r} and delay {self.delay!r}"
            raise ValueError(f"must name a source or a delay, and not both, got {got}")
        alone = {"id", "by", "target", "time", "timeout", "assume"} & self.model_fields_set
        if self.source is None and alone:
            raise ValueError(f"{min(alone)} is for labels with a source of their own")
        return self

    def in_words(self, unset: bool = True) -> dict[str, Any]:
        """Its settings as plain values, topics by their names; unset: those of defaults, too."""
        words = self.model_dump(mode="json", exclude_unset=not unset)
        return words | ({} if self.source is None else {"source": str(self.source)})


class EngineSection(Section):
    """How the loop runs.

    block_rows: most rows of a block; 4,096 at most while the pipeline takes 5 us or more for an
    event. pace: events a second; as fast as it goes if absent.
    shutdown_timeout: seconds that SIGTERM leaves for the last checkpoint; what takes longer is cut
    off, and done again after the next start.
    """

    block_rows: Rows = 16_384
    pace: Annotated[float, Field(gt=0)] | None = None
    shutdown_timeout: Annotated[float, Field(gt=0, lt=30)] = 25.0


class Config(Section):
    """One pipeline with its source and sinks.

    `run` needs `source`, `schema` and `pipeline`; `replay DATA --model FILE` takes the first two
    from the command line.

    source: where events come from: a file, or topics of Kafka. kafka: how to reach the broker of
    topics. schema: their columns. pipeline: names, `{name: {arguments}}`, or operators, in the
    order of the data flow. sink: where answers go. alerts: where alarms go. webhook: where
    each alarm is sent to, too. dead_letters: where records go that do not fit. checkpoint: where
    state is saved. labels: where labels come from when they come late. evaluation: how the stream
    is measured. engine: how the loop runs. health: where others may ask how the run is. telemetry:
    where its metrics are exported to. dashboard: where people may look at it. serve: where
    `streamlearn serve` takes events and labels. allow_pickle: whether the state of a River or
    scikit-learn stage may be saved and loaded.
    """

    source: Origin | None = None
    kafka: KafkaSection | None = None
    schema_: Schema | None = Field(default=None, alias="schema")
    pipeline: Annotated[list[Any], Field(min_length=1)] | None = None
    sink: SinkSection | None = None
    alerts: AlertsSection | None = None
    webhook: WebhookSection | None = None
    dead_letters: DeadLettersSection | None = None
    checkpoint: Checkpoint | None = None
    labels: LabelsSection | None = None
    evaluation: EvaluationSection = EvaluationSection()
    engine: EngineSection = EngineSection()
    health: HealthSection | None = None
    telemetry: TelemetrySection | None = None
    dashboard: DashboardSection | None = None
    serve: ServeSection | None = None
    allow_pickle: bool = False

    _document: yaml12.Document | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        problem = _of_topics(self)
        if problem is None and self.webhook is not None and self.checkpoint is None:
            problem = "checkpoint: must be there for a webhook; what is to be sent waits beside it"
        if problem is not None:
            raise ValueError(problem)
        return self

    @property
    def read(self) -> dict[str, str | TopicsSection]:
        """The data that are read, by the path that names them."""
        labels = None if self.labels is None else self.labels.source
        given = {"source": self.source, "labels.source": labels}
        return {path: place for path, place in given.items() if place is not None}

    @property
    def written(self) -> dict[str, OutputSection]:
        """The outputs, by the path that names them."""
        given = {"sink": self.sink, "alerts": self.alerts, "dead_letters": self.dead_letters}
        return {path: place for path, place in given.items() if place is not None}

    def check_secrets(self, *served: str) -> None:
        """Read the secrets of these servers, and of what is sent elsewhere, as a run would.

        Raises: UserError for one that is not there, or too short.
        """
        for owner in served:
            if (section := getattr(self, owner)) is not None:
                section.secret(owner)
        if self.telemetry is not None:
            self.telemetry.secrets()


def _of_topics(config: Config) -> str | None:
    """What does not fit together among topics, the broker and the checkpoints."""
    read = {path for path, place in config.read.items() if isinstance(place, TopicsSection)}
    written = {path for path, place in config.written.items() if place.topic is not None}
    kafka = config.kafka
    if kafka is None:
        topics = min(read | written, default=None)
        return topics and f"kafka: must be there for {topics}; say bootstrap: host:port under it"
    if kafka.mode == "group":
        if "source" not in read or set(config.read) > read:
            return "kafka.mode: group is for a source of topics, and labels of topics or none"
        if config.checkpoint is None:
            return "checkpoint: must be there for kafka.mode group; all workers share its folder"
    if kafka.delivery == "transactions":
        if "source" not in read or not written:
            return "kafka.delivery: transactions are for a source and outputs that are topics"
        if config.checkpoint is None:
            return "checkpoint: must be there for kafka.delivery transactions"
    return None


_SECTIONS: dict[str, type[BaseModel]] = {
    "checkpoint": Checkpoint,
    "labels": LabelsSection,
    "evaluation": EvaluationSection,
    "engine": EngineSection,
    "schema": Schema,
    "kafka": KafkaSection,
    "source": TopicsSection,
    "sink": SinkSection,
    "alerts": AlertsSection,
    "webhook": WebhookSection,
    "dead_letters": DeadLettersSection,
    "health": HealthSection,
    "telemetry": TelemetrySection,
    "dashboard": DashboardSection,
    "serve": ServeSection,
}

_RULES = {  # pydantic's kind of error -> our rule, where its own words would not do
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "dict_type": "must be `key: value` pairs",
    "model_type": "must be `key: value` pairs",
    "too_short": "must not be empty",
}


def load_config(
    path: str | Path,
    assignments: Assignments = None,
    options: Mapping[str, Assignments] | None = None,
) -> Config:
    """A configuration from a YAML file.

    Args:
        path: the file.
        assignments: values that replace those of the file, by path, or as `path=value` texts.
        options: further ones by the option of the command line that gave them, for messages.

    Raises: UserError for a file that cannot be read or is no YAML; ConfigError for its content.
    """
    document = yaml12.parse(_text(path), str(path))
    data = document.value
    if not isinstance(data, dict):
        keys = ", ".join(_keys_of(Config))
        raise UserError(f"{path}: must be `key: value` pairs, got {_brief(data)}; keys are: {keys}")
    assigned: dict[str, str] = {}
    for option, texts in {"--set": assignments, **(options or {})}.items():
        for place, value in pairs(texts).items():
            assign(data, place, value)
            assigned[place] = f"--set {place}" if option == "--set" else option
    return check(data, document._replace(assigned=tuple(assigned.items())))


def check(data: Mapping[str, Any], document: yaml12.Document | None = None) -> Config:
    """A configuration from a plain mapping; all sections are checked.

    Args:
        data: keys as in a YAML file.
        document: the file that `data` came from, for line numbers in messages.

    Raises: ConfigError naming every mistake with its path.
    """
    try:
        config = Config.model_validate(dict(data))
        config._document = document
        return config
    except ValidationError as error:
        problems = [_problem(details) for details in error.errors()]
        raise ConfigError([_with_line(problem, document) for problem in problems]) from None


def build_pipeline(config: Config, task: str | None) -> "Pipeline":
    """The pipeline of a configuration.

    Args:
        config: with a `pipeline`.
        task: "classification" or "regression", which picks the members of families.

    Raises: UserError with the path of the stage or argument that is wrong.
    """
    if config.pipeline is None:
        raise UserError("pipeline: must be there; list operators under it, as in `- KalmanHead`")
    try:
        stages = [registry.stage(s, task, f"pipeline[{i}]") for i, s in enumerate(config.pipeline)]
        return registry.assembled(stages, "pipeline")
    except UserError as error:
        raise ConfigError([_with_line(str(error), config._document)]) from None


def around(model: Any, sparse: bool) -> tuple[Stage, ...]:
    """The stages around a model; sparse: whether there are text or bags of words."""
    return AROUND_SPARSE if sparse and not getattr(model, "takes_sparse", False) else AROUND


def default_pipeline(
    model: str = DEFAULT_MODEL,
    task: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    sparse: bool = False,
) -> "Pipeline":
    """What a user wants around one operator: imputation, encoding, scaling, and ADWIN on its error,
    calibrated to one false alarm in 10,000 labels.

    Args:
        model: any name that `registry.find` takes.
        task: picks the member of a family.
        arguments: of the operator.
        sparse: whether the data have text or bags of words, made dense for a model that takes none.

    Raises: UserError for an unknown name, an unknown argument or a value that is refused.
    """
    predictor = named(model, task, arguments)
    *before, after = [registry.stage(each) for each in around(predictor, sparse)]
    return registry.assembled([*before, predictor, after], "--model")


def named(model: str, task: str | None, arguments: Mapping[str, Any] | None = None) -> Any:
    """The operator that `--model` and `--set` name; it must be one that answers.

    Raises: UserError as `default_pipeline`.
    """
    try:
        predictor = registry.build(model, arguments or {}, task, "--set")
    except UserError as error:
        raise UserError(
            str(error).replace("--set.", "--set ").replace("--set:", "--model:")
        ) from None
    if registry.task_of(predictor) is None:
        found = f"a {registry.kind_of(type(predictor))}; name it as a stage of a YAML file"
        if getattr(predictor, "task", None) == "forecasting":
            found = "a forecaster; `streamlearn forecast` runs it"
        raise UserError(
            f"--model: {model!r} must be a classifier, a regressor or an anomaly scorer, "
            f"got {found}"
        )
    return predictor


def starter(
    data: str,
    target: str | None,
    features: Names = None,
    ignore: Names = None,
    task: str | None = None,
    model: str = DEFAULT_MODEL,
) -> str:
    """A whole configuration for some data, as YAML: the inferred schema, declared, and a pipeline.

    Args: as for `Schema.infer`; data: a path, or `kafka:TOPIC?bootstrap=HOST:PORT`. model: the
    operator of the pipeline.
    Raises: UserError for data or names that are not there.
    """
    schema = Schema.infer(data, target, listed(features), listed(ignore), task)
    check_target(schema)
    source, more = _found(data)
    predictor = named(model, schema.task)
    found = model if "." in model else type(predictor).__name__
    *before, after = around(predictor, schema.sparse_width > 0)
    table = {
        **source,
        "schema": schema.to_config(),
        "pipeline": [*before, found, after],
        "sink": "predictions.csv",
        "dead_letters": "dead_letters.jsonl",
        "checkpoint": {"path": "checkpoints"},
    }
    table["schema"] |= more
    return yaml12.dump(table)


def _found(data: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sections that say where some data are, and what topics add to their schema."""
    if not is_topic(data):
        return {"source": data}, {}
    topics = topics_at(data)
    broker = {"bootstrap": topics.connection.bootstrap, "client": topics.connection.client}
    return {"source": str(topics), "kafka": broker}, {"time": "$timestamp", "time_unit": "ms"}


def listed(names: Names) -> list[str] | None:
    """Names as a list, from a list or from a text with commas."""
    if names is None:
        return None
    split = names.split(",") if isinstance(names, str) else names
    return [name.strip() for name in split]


def check_target(schema: Schema) -> None:
    """Refuse a schema that names nothing to predict: UserError with the columns there are."""
    if schema.target is None:
        columns = among(list(schema.features))
        raise UserError(f"target: must name the column to predict (--target NAME); {columns}")


def pairs(given: Assignments) -> dict[str, Any]:
    """Assignments as a dict, from a dict or from `name=value` texts; the last one counts."""
    if given is None or isinstance(given, Mapping):
        return dict(given or {})
    return dict(split_assignment(text) for text in ([given] if isinstance(given, str) else given))


def split_assignment(text: str) -> tuple[str, Any]:
    """`name=value` as the name and the value, typed as YAML does.

    Raises: UserError for a text without `=` or a value that is no YAML.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UserError(f"--set: must be name=value, got {text!r}")
    return name.strip(), yaml12.parse(value, f"--set {name.strip()}").value


def assign(data: dict[str, Any], path: str, value: Any) -> None:
    """Set one value in a configuration's plain mapping, by its path (`pipeline[2].r`).

    Raises: UserError for a path that leads nowhere.
    """
    *steps, last = _steps(path)
    target: Any = data
    for step in steps:
        target = _down(target, step, path)
    if isinstance(last, int) or not isinstance(target, dict):
        _lost(path, last)
    target[last] = value


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: must be UTF-8 text, got other bytes at {error.start}") from None


def _steps(path: str) -> list[str | int]:
    """`pipeline[2].r` as ["pipeline", 2, "r"]."""
    words = path.replace("[", ".").replace("]", "").split(".")
    return [int(word) if word.isdecimal() else word for word in words]


def _down(target: Any, step: str | int, path: str) -> Any:
    """One step down a path; under an operator stand its arguments."""
    if isinstance(target, list) and isinstance(step, int) and step < len(target):
        return _opened(target, step)
    if isinstance(target, dict) and isinstance(step, str):
        target.setdefault(step, {})
        return _opened(target, step)
    return _lost(path, step)


def _opened(parent: Any, key: Any) -> Any:
    """The value at a key; an operator, `Name` or `{Name: arguments}`, as its arguments."""
    if isinstance(parent[key], str) and _names_operator(parent[key]):
        parent[key] = {parent[key]: {}}
    value = parent[key]
    if isinstance(value, dict) and len(value) == 1 and _names_operator(next(iter(value))):
        name = next(iter(value))
        value[name] = value[name] or {}
        return value[name]
    return value


def _names_operator(word: object) -> bool:
    """Operators are named in CamelCase or by an import path, keys and choices in small letters."""
    return isinstance(word, str) and word.rpartition(".")[2][:1].isupper()


def _lost(path: str, step: str | int) -> NoReturn:
    raise UserError(
        f"--set {path}: there is no {step!r}; paths look like pipeline[3].r or engine.pace"
    )


def _problem(details: ErrorDetails) -> str:
    """One mistake that pydantic found, in our wording: path, rule, value."""
    loc = [step for step in details["loc"] if step not in TAGS]
    if not loc:  # of several sections together
        return str(details["ctx"]["error"])
    *parents, last = loc
    path = _path(loc)
    if details["type"] == "extra_forbidden":
        return f"{path}: is an unknown key{registry.near(str(last), _keys_at(parents))}"
    if details["type"] == "missing":
        return f"{path}: must be there"
    if details["type"] == "value_error":
        return f"{path}: {details['ctx']['error']}"
    rule = _RULES.get(details["type"], details["msg"].replace("Input should be", "must be"))
    return f"{path}: {rule}, got {_brief(details['input'])}"


def _path(loc: Sequence[str | int]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    return text.removeprefix(".")


def _keys_at(parents: Sequence[str | int]) -> list[str]:
    """The keys that a section may have."""
    if parents[:2] == ["schema", "features"]:
        return _keys_of(Feature)
    nested: dict[Any, type[BaseModel]]
    nested = {"format": FormatSection, "registry": RegistrySection, "source": TopicsSection}
    if parents and parents[-1] in nested:
        return _keys_of(nested[parents[-1]])
    return _keys_of(_SECTIONS[str(parents[0])] if parents else Config)


def _keys_of(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def _with_line(problem: str, document: yaml12.Document | None) -> str:
    """A message with the place that its path stands in."""
    if document is None:
        return problem
    return f"{problem} ({document.place(problem.partition(':')[0])})"


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
