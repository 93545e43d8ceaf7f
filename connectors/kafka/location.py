"""Where topics are, as configurations and the command line say it: `kafka:a,b?start=latest`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import parse_qsl

from streamlearn.connectors.kafka.wire import Connection
from streamlearn.errors import UserError

PREFIX = "kafka:"
FORMATS = ("json", "csv", "float32", "float64", "avro", "protobuf")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Point(NamedTuple):
    """A place in every partition of some topics.

    kind: earliest, latest (the end as it stands when the source is opened), time or offset.
    value: nanoseconds since 1970, or an offset.
    """

    kind: str
    value: int = 0


EARLIEST, LATEST = Point("earliest"), Point("latest")


@dataclass(frozen=True)
class Format:
    """How messages are written.

    name: json, csv, float32, float64 (raw little-endian arrays), avro or protobuf. columns: names
    of the columns of csv and of raw arrays. schema_file: an Avro schema (.avsc); with a registry
    that of the reader. descriptors: a file with a Protobuf descriptor set, and message: the full
    name of the message in it, where there is no registry.
    """

    name: str = "json"
    columns: tuple[str, ...] = ()
    schema_file: str | None = None
    descriptors: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class RegistryAddress:
    """Where a Confluent schema registry is. options: of its client, passed through."""

    url: str
    options: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Topics:
    """Some topics of a broker, which part of them is read, and how.

    connection: how to reach the broker. group: under which offsets are committed. start: where a
    run without a checkpoint begins. stop: None follows the topics for ever; a point ends the
    source before it. buffer_mb: MiB of fetched records that wait. registry: of schemas. partitions:
    the numbers that are read of every topic; None: all, those that are added later too.
    """

    connection: Connection
    names: tuple[str, ...]
    start: Point = EARLIEST
    stop: Point | None = None
    format: Format = Format()
    group: str | None = None
    buffer_mb: int = 64
    registry: RegistryAddress | None = None
    partitions: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return PREFIX + ",".join(self.names)


def is_topic(location: object) -> bool:
    """Whether a location is one of topics."""
    return isinstance(location, str) and location.startswith(PREFIX)


def parts(location: str) -> tuple[list[str], dict[str, str]]:
    """The topics and the options of `kafka:TOPIC[,TOPIC][?name=value&…]`.

    Raises: UserError without a topic.
    """
    names, _, query = location.removeprefix(PREFIX).partition("?")
    topics = [name.strip() for name in names.split(",") if name.strip()]
    if not topics:
        raise UserError(f"{location}: must name a topic, as in kafka:transactions")
    return topics, dict(parse_qsl(query, keep_blank_values=True))


def point(text: str | int, where: str, *, end: bool = False) -> Point:
    """A point as people write it: earliest, latest (end), an offset, or a time of ISO 8601.

    A time without a zone is UTC. end: whether it closes a range, which `earliest` cannot.
    Raises: UserError that begins with `where`.
    """
    word = str(text).strip()
    if word.isdecimal() and not isinstance(text, bool):
        return Point("offset", int(word))
    if word in ("latest", "end"):
        return LATEST
    if word == "earliest" and not end:
        return EARLIEST
    try:
        time = datetime.fromisoformat(word)
    except ValueError:
        words = "end" if end else "earliest, latest"
        raise UserError(
            f"{where}: must be {words}, an offset or a time such as 2026-11-01T00:00:00Z, "
            f"got {text!r}"
        ) from None
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return Point("time", (aware - _EPOCH) // timedelta(microseconds=1) * 1000)


_OPTIONS = ("bootstrap", "client", "from", "start", "to", "format", "group")


def topics_at(location: str, *, bounded: bool = True) -> Topics:
    """The topics of a location that says all by itself, as the command line takes it.

    `kafka:TOPIC[,TOPIC]?bootstrap=HOST:PORT[&from=POINT][&to=POINT][&client=NAME][&format=NAME]`
    bounded: whether it ends with the topics as they stand, where `to` is not given.
    Raises: UserError for an option that is unknown or absent.
    """
    names, options = parts(location)
    for name in options:
        if name not in _OPTIONS:
            raise UserError(
                f"{location}: has the unknown option {name!r}; options are {', '.join(_OPTIONS)}"
            )
    if not options.get("bootstrap"):
        raise UserError(
            f"{location}: must say where the broker is, as in kafka:TOPIC?bootstrap=localhost:9092"
        )
    form = options.get("format", "json")
    if form not in FORMATS:
        raise UserError(f"{location}: format must be one of {', '.join(FORMATS)}, got {form!r}")
    start = point(options.get("from", options.get("start", "earliest")), f"{location}: from")
    to = options.get("to", "end" if bounded else None)
    stop = None if to is None else point(to, f"{location}: to", end=True)
    connection = Connection(options["bootstrap"], options.get("client", "kafka-python"))
    return Topics(connection, tuple(names), start, stop, Format(form), options.get("group"))
