"""From a configuration to topics: what a lineage reads of them, and what it writes to them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from streamlearn.config import Config, check
from streamlearn.config_topics import (
    AlertsSection,
    DeadLettersSection,
    KafkaSection,
    OutputSection,
    SinkSection,
    TopicsSection,
)
from streamlearn.connectors.kafka import TAPE
from streamlearn.connectors.kafka.location import EARLIEST, LATEST, Topics, is_topic, topics_at
from streamlearn.connectors.kafka.tape import is_tape, manifest_of
from streamlearn.connectors.sinks import open_dead_letters, open_sink
from streamlearn.contracts import Delivery, Sink
from streamlearn.engine import DeadLetters
from streamlearn.errors import UserError
from streamlearn.schema import Schema

TIMESTAMP = "$timestamp"  # of the record, in milliseconds
WHOLE = "all"


class Lineage(NamedTuple):
    """Which partitions have one model.

    number: of the partitions that are read of each topic; None: all of them. commits: who commits
    offsets, where it is a member of a group. fresh: whether the partitions came in mid-stream, so
    that they are read from their beginning.
    """

    number: int | None = None
    commits: Any = None
    fresh: bool = False

    @property
    def name(self) -> str:
        """Of its folder and its transactions."""
        return WHOLE if self.number is None else f"partition-{self.number}"

    def part_of(self, place: Any) -> Any:
        """What it reads of some topics; any other place as it is."""
        if not isinstance(place, Topics):
            return place
        part = place
        if self.number is not None:
            part = dataclasses.replace(part, partitions=(self.number,))
        return dataclasses.replace(part, start=EARLIEST) if self.fresh else part

    def folder(self, path: str) -> str:
        """Of its checkpoints."""
        return path if self.number is None else str(Path(path) / self.name)


ALL = Lineage()


class Written(NamedTuple):
    """The outputs of a job; `outputs` is what those to topics share, for health."""

    sink: Sink | None = None
    alerts: Sink | None = None
    dead_letters: DeadLetters | None = None
    delivery: Delivery | None = None
    outputs: Any = None


def place_of(config: Config, origin: str | TopicsSection | None) -> Any:
    """A source of a configuration as its connector takes it: a path, or topics of a broker."""
    if isinstance(origin, TopicsSection):
        assert config.kafka is not None  # a configuration with topics has it
        return config.kafka.topics(origin)
    return origin


def located(data: Any, config: Config) -> tuple[Any, Config]:
    """Data that may be named `kafka:TOPIC?bootstrap=…`, as topics, and the configuration with them.

    Raises: UserError for a location that does not say where its broker is.
    """
    if not is_topic(data):
        return data, config
    if config.kafka is not None and "bootstrap=" not in str(data):
        section = until_now(check({"source": data, "kafka": config.kafka}).source)
        return config.kafka.topics(section), config
    topics = topics_at(str(data))
    kafka = KafkaSection.model_validate(
        {"bootstrap": topics.connection.bootstrap, "client": topics.connection.client}
    )
    return topics, config.model_copy(update={"kafka": kafka})


def until_now(origin: Any) -> Any:
    """Topics that are read as far as they reach now, where no end is named."""
    if isinstance(origin, TopicsSection) and origin.to is None:
        return origin.model_copy(update={"to": "end"})
    if isinstance(origin, Topics):
        return dataclasses.replace(origin, stop=origin.stop or LATEST)
    return origin


def bounded(config: Config) -> Config:
    """A configuration whose topics are read as far as they reach now."""
    update: dict[str, Any] = {"source": until_now(config.source)}
    if config.labels is not None:
        late = config.labels.model_copy(update={"source": until_now(config.labels.source)})
        update["labels"] = late
    return config.model_copy(update=update)


def taped(config: Config, folder: str | Path) -> Config:
    """A configuration that reads a recording in the place of its topics, all of it.

    Topics that were followed without an end are so still: the order ends the replay, and labels
    whose event did not come are not told that none will.
    Raises: UserError for a source that is no topic.
    """
    if config.kafka is None or not isinstance(config.source, TopicsSection):
        raise UserError(
            f"source: must be the topics that {folder} is a recording of, got {config.source}"
        )
    there = {"client": TAPE, "bootstrap": str(folder), "options": {}}
    alone = {"mode": "assign", "delivery": "at_least_once", "transactional_id": None}
    update: dict[str, Any] = {
        "kafka": config.kafka.model_copy(update=there | alone),
        "source": _whole(config.source),
    }
    if config.labels is not None and isinstance(config.labels.source, TopicsSection):
        labels = _whole(config.labels.source)
        update["labels"] = config.labels.model_copy(update={"source": labels})
    return config.model_copy(update=update)


def recorded(data: Any) -> Lineage:
    """Which partitions a recording is of, where data are one: those of one number, or all."""
    numbers = {extent.number for extent in manifest_of(data).extents} if is_tape(data) else set()
    return Lineage(numbers.pop()) if len(numbers) == 1 else ALL


def _whole(section: TopicsSection) -> TopicsSection:
    to = None if section.to is None else "end"
    return section.model_copy(update={"start": "earliest", "to": to})


def timed(schema: Schema) -> Schema:
    """A schema of topics: the time is that of the record, where no column is named."""
    table = schema.to_config()
    if table.get("time", TIMESTAMP) != TIMESTAMP:
        return schema
    table = {"time_unit": "ms"} | table | {"time": TIMESTAMP}
    return Schema.from_config(table)


def written(
    config: Config, lineage: Lineage, tables: Any, model: str, read: Mapping[str, Any]
) -> Written:
    """The outputs of a lineage, nothing opened.

    tables: ids and classes, as `open_sink` takes them. model: the version that answers name. read:
    the places that the lineage reads.
    Raises: UserError for a file that several lineages would write.
    """
    for path, section in config.written.items():
        if section.path is not None and lineage.number is not None:
            raise UserError(
                f"{path}: must be a topic where every partition has its own model, "
                f"got the file {section.path}"
            )
    outputs = _outputs(config, lineage, read)
    sink, alerts, dead = config.sink, config.alerts, config.dead_letters
    return Written(
        None if sink is None else _sink(config, sink, outputs, tables, model),
        None if alerts is None else _alerts(alerts, outputs, tables, model),
        None if dead is None else _dead_letters(dead, outputs),
        None if outputs is None or config.checkpoint is None else outputs.delivery(lineage.commits),
        outputs,
    )


def _outputs(config: Config, lineage: Lineage, read: Mapping[str, Any]) -> Any:
    """What is shared by all that is told to a broker; None where there is none."""
    kafka = config.kafka
    if kafka is None:
        return None
    from streamlearn.connectors.kafka.outputs import Outputs

    name = None
    if kafka.delivery == "transactions":
        name = f"{kafka.transactional_id or kafka.group}-{lineage.name}"
    return Outputs(
        kafka.connection(),
        lineage=lineage.name,
        group=kafka.group,
        transactional_id=name,
        max_in_flight=kafka.max_in_flight,
        inputs=[place for place in read.values() if isinstance(place, Topics)],
        registry=None if kafka.registry is None else kafka.registry.address(),
    )


def _file(section: OutputSection) -> dict[str, Any]:
    """A section as `open_sink` takes it."""
    return section.model_dump(include={"path", "format", "overwrite"}, exclude_none=True)


def _sink(config: Config, section: SinkSection, outputs: Any, tables: Any, model: str) -> Sink:
    if section.topic is None:
        return open_sink(_file(section), tables, recoverable=config.checkpoint is not None)
    found: Sink = outputs.sink(
        section.topic,
        format=section.format or "json",
        keyed=section.keyed,
        tables=tables,
        model=model,
        level=config.evaluation.level,
    )
    return found


def _alerts(section: AlertsSection, outputs: Any, tables: Any, model: str) -> Sink:
    found: Sink
    if section.topic is None:
        from streamlearn.connectors.sinks import open_alerts

        found = open_alerts(_file(section), tables, model=model)
    else:
        found = outputs.alerts(section.topic, tables=tables, model=model)
    return found


def _dead_letters(section: DeadLettersSection, outputs: Any) -> DeadLetters:
    found: DeadLetters
    if section.topic is None:
        found = open_dead_letters(_file(section))
    else:
        found = outputs.dead_letters(section.topic, redact=section.redact, payload=section.payload)
    return found
