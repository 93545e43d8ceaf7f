"""The sections of a configuration that are about topics of Kafka, outputs, health and logs."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from streamlearn.connectors.kafka.location import (
    Format,
    RegistryAddress,
    Topics,
    is_topic,
    parts,
    point,
)
from streamlearn.connectors.kafka.wire import Connection
from streamlearn.errors import UserError

Rows = Annotated[int, Field(ge=1)]
TAGS = ("<text>", "<topics>")  # of a union in pydantic's paths; no part of ours


class Section(BaseModel):
    """What all sections have in common: no unknown keys, no conversions, no changes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True
    )


class FormatSection(Section):
    """How messages are written; `format: json` is enough.

    name: json, csv, float32 or float64 (raw little-endian arrays), avro or protobuf. columns: names
    of the columns of csv and of raw arrays, in their order. schema: a file with an Avro schema
    (.avsc); with a registry it is that of the reader. descriptors: a file with a Protobuf
    descriptor set. message: the full name of the message in it. Both are needed where there is no
    registry.
    """

    name: Literal["json", "csv", "float32", "float64", "avro", "protobuf"] = "json"
    columns: list[str] = Field(default=[])
    schema_: str | None = Field(default=None, alias="schema")
    descriptors: str | None = None
    message: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_one(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> "FormatSection":
        flat = self.name in ("csv", "float32", "float64")
        if flat != bool(self.columns):
            rule = "must name the columns of" if flat else "is for csv and raw arrays, not for"
            raise ValueError(f"columns {rule} {self.name}")
        if self.schema_ is not None and self.name != "avro":
            raise ValueError(f"schema is for avro, not for {self.name}")
        if (self.descriptors is None) != (self.message is None):
            raise ValueError("descriptors and message must be given together")
        if self.message is not None and self.name != "protobuf":
            raise ValueError(f"message is for protobuf, not for {self.name}")
        return self

    def format(self) -> Format:
        """For the connector."""
        columns = tuple(self.columns)
        return Format(self.name, columns, self.schema_, self.descriptors, self.message)


class TopicsSection(Section):
    """Topics that are read; `source: kafka:a,b?start=latest` is enough.

    topics: their names. start: where a run without a checkpoint begins: earliest, latest, an
    offset, or a time such as 2026-11-01T00:00:00Z. to: where the run ends: end (of the topics when
    it begins), an offset or a time; it goes on for ever if absent. format: of the messages.
    """

    topics: Annotated[list[str], Field(min_length=1)]
    start: str | int = "earliest"
    to: str | int | None = None
    format: FormatSection = FormatSection()

    @field_validator("start", "to")
    @classmethod
    def _is_a_point(cls, value: str | int | None, field: ValidationInfo) -> str | int | None:
        if value is not None:
            try:
                point(value, "", end=field.field_name == "to")
            except UserError as error:
                raise ValueError(str(error).removeprefix(": ")) from None
        return value

    @field_validator("topics")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError(f"{max(value, key=value.count)!r} stands twice; name it once")
        return value

    def __str__(self) -> str:
        return "kafka:" + ",".join(self.topics)


_IN_TEXT = {"start": "start", "from": "start", "to": "to", "format": "format"}


def _opened(value: Any) -> Any:
    """A location of topics as a section."""
    if not is_topic(value):
        return value
    names, options = parts(value)
    for name in options:
        if name not in _IN_TEXT:
            raise ValueError(
                f"has the unknown option {name!r}; options are start, to, format, and how to reach "
                f"the broker stands in the section kafka"
            )
    return {"topics": names} | {_IN_TEXT[name]: text for name, text in options.items()}


def _sort(value: Any) -> str:
    return "<topics>" if isinstance(value, (Mapping, TopicsSection)) else "<text>"


Origin = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[TopicsSection, Tag("<topics>")],
    Discriminator(_sort),
    BeforeValidator(_opened),
]


class OutputSection(Section):
    """A file or a topic that something is written to; `sink: predictions.csv` is enough.

    path: the file, or - for standard output. overwrite: whether a run that begins anew empties a
    file that holds something, instead of refusing. topic: instead of a file; `kafka:NAME` is
    enough.
    """

    path: str | None = None
    overwrite: bool = False
    topic: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not is_topic(value):
            return {"path": value}
        names, options = parts(value)
        if len(names) > 1:
            raise ValueError(f"must name one topic, got {value!r}")
        return {"topic": names[0]} | options

    @model_validator(mode="after")
    def _one_place(self) -> "OutputSection":
        if (self.path is None) == (self.topic is None):
            got = "neither" if self.path is None else "both"
            raise ValueError(f"must name a path or a topic, got {got}")
        if self.topic is not None and "overwrite" in self.model_fields_set:
            raise ValueError("overwrite is for files; a topic is written on at its end")
        return self

    def __str__(self) -> str:
        return str(self.path) if self.topic is None else f"kafka:{self.topic}"


class SinkSection(OutputSection):
    """Where answers go: a file, or a topic; `sink: kafka:predictions` is enough.

    path: the file, or - for standard output. topic: instead of a file. format: csv, jsonl or
    parquet of a file, where the ending does not say it; json or avro of a topic. overwrite:
    whether a run that begins anew empties a file that holds something, instead of refusing. keyed:
    whether a message has the key of its input, and so its partition.
    """

    format: Literal["csv", "jsonl", "parquet", "json", "avro"] | None = None
    keyed: bool = True

    @model_validator(mode="after")
    def _fits(self) -> "SinkSection":
        fitting = ("csv", "jsonl", "parquet") if self.topic is None else ("json", "avro")
        if self.format is not None and self.format not in fitting:
            raise ValueError(f"format must be {' or '.join(fitting)}, got {self.format!r}")
        if self.topic is None and "keyed" in self.model_fields_set:
            raise ValueError("keyed is for topics")
        return self


class DeadLettersSection(OutputSection):
    """Where records go that do not fit; `dead_letters: kafka:dead` is enough.

    path: the file (JSON Lines). topic: instead of a file. overwrite: whether a run that begins anew
    empties a file that holds something, instead of refusing. redact: fields whose values are left
    out. payload: whether the original bytes go along.
    """

    redact: list[str] = []
    payload: bool = True

    @model_validator(mode="after")
    def _fits(self) -> "DeadLettersSection":
        for name in {"redact", "payload"} & self.model_fields_set:
            if self.topic is None:
                raise ValueError(f"{name} is for topics")
        return self


class AlertsSection(OutputSection):
    """Where alarms of drift detectors go, at least once; `alerts: kafka:alerts` is enough.

    path: the file (JSON Lines). topic: instead of a file. overwrite: whether a run that begins anew
    empties a file that holds something, instead of refusing.
    """


class RegistrySection(Section):
    """A Confluent schema registry; `registry: http://host:8081` is enough.

    url: its address. options: of its client, passed through; a text may hold ${env:NAME} or
    ${file:PATH}.
    """

    url: str
    options: dict[str, Any] = Field(default={}, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _from_one(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    def address(self) -> RegistryAddress:
        """For the connector."""
        return RegistryAddress(self.url, self.options)


class KafkaSection(Section):
    """How to reach the broker, and how to run on it.

    bootstrap: host:port[,host:port]. client: the library. options: of the client, under its own
    names, passed through; a text may hold ${env:NAME} or ${file:PATH}. mode: assign reads all
    partitions with one model; group shares them out among processes, with a model for each. group:
    id under which offsets are committed. delivery: of outputs; transactions lets readers that are
    read_committed see each once. transactional_id: `<group>-<lineage>` if absent. buffer_mb: MiB of
    fetched records that wait in a lineage, then partitions are paused. max_in_flight: records that
    wait to be acknowledged. registry: of the schemas of Avro and Protobuf.
    """

    bootstrap: str
    client: Literal["kafka-python", "confluent"] = "kafka-python"
    options: dict[str, Any] = Field(default={}, repr=False)
    mode: Literal["assign", "group"] = "assign"
    group: str = "streamlearn"
    delivery: Literal["at_least_once", "transactions"] = "at_least_once"
    transactional_id: str | None = None
    buffer_mb: Rows = 64
    max_in_flight: Rows = 100_000
    registry: RegistrySection | None = None

    @model_validator(mode="after")
    def _fits(self) -> "KafkaSection":
        if not all(address.strip() for address in self.bootstrap.split(",")):
            raise ValueError(f"bootstrap must be host:port[,host:port], got {self.bootstrap!r}")
        if self.transactional_id is not None and self.delivery != "transactions":
            raise ValueError("transactional_id is for delivery: transactions")
        return self

    def connection(self) -> Connection:
        """For the connector."""
        return Connection(self.bootstrap, self.client, self.options)

    def topics(self, section: TopicsSection) -> Topics:
        """What a source reads of this broker."""
        return Topics(
            self.connection(),
            tuple(section.topics),
            point(section.start, "start"),
            None if section.to is None else point(section.to, "to", end=True),
            section.format.format(),
            self.group,
            self.buffer_mb,
            None if self.registry is None else self.registry.address(),
        )


class HealthSection(Section):
    """The HTTP endpoints `/health/live`, `/health/ready` and `/metrics` (for Prometheus; extra
    `metrics`); `health: {port: 8080}` is enough.

    port: 0 takes a free one. host: the address to listen on. max_lag: records behind the ends of
    the topics up to which the run is ready. stalled: seconds without a turn of the loop after which
    it is not live.
    """

    port: Annotated[int, Field(ge=0, le=65535)]
    host: str = "127.0.0.1"
    max_lag: Rows | None = None
    stalled: Annotated[float, Field(gt=0)] = 60.0
