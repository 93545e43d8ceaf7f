"""Sources and sinks, one system a file; optional dependencies are imported inside it only.

`open_source` makes the source of a location, `as_source` that of anything Python holds; both import
what they need when they are called.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

from streamlearn.connectors.sinks import open_dead_letters as open_dead_letters
from streamlearn.connectors.sinks import open_sink as open_sink
from streamlearn.contracts import Batch, LanedSource, Positions, Source
from streamlearn.errors import UserError

if TYPE_CHECKING:
    from streamlearn.connectors.kafka.location import Topics
    from streamlearn.schema import Schema

SAMPLE = 1000  # rows that a schema is inferred from
FORMATS = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "jsonl", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
PACKED = (".gz", ".zst", ".zstd")


class DataFile(NamedTuple):
    """One file of a location: the name that positions keep, its path, its format."""

    name: str
    path: Path
    format: str


def data_files(location: str | Path) -> list[DataFile]:
    """The files of a path, a folder (with all below it) or a glob, sorted by name.

    Raises: UserError where nothing is there or a format cannot be told.
    """
    text = str(location)
    path = Path(text)
    if path.is_file():
        return [DataFile(path.name, path, format_of(path))]
    root, pattern = _looked_through(path)
    if not pattern:
        if Path(text).exists():  # a named pipe or a device: its first lines would be lost
            raise UserError(f"{text}: must be a file or a folder; feed a pipe to -, standard input")
        raise UserError(f"{text}: there is no such file or folder; correct the path")
    found = (p for p in root.glob(pattern) if p.is_file() and _named_as_data(p))
    files = sorted((p.relative_to(root).as_posix(), p) for p in found)
    for _, p in files:
        if p.stat().st_size == 0:
            logging.getLogger(__name__).warning("%s: is empty; it is left out", p)
    files = [(name, p) for name, p in files if p.stat().st_size > 0]
    if not files:
        raise UserError(f"{text}: there is no CSV, JSON Lines or Parquet file; correct the path")
    return [DataFile(name, p, format_of(p)) for name, p in files]


def _looked_through(path: Path) -> tuple[Path, str]:
    """The folder under which the files of a folder or a glob lie, and their pattern; else ""."""
    if path.is_dir():
        return path, "**/*"
    parts = path.parts
    cut = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), None)
    return (path, "") if cut is None else (Path(*parts[:cut]), "/".join(parts[cut:]))


def _named_as_data(path: Path) -> bool:
    return path.name[0] not in "._" and _suffix(path) in FORMATS


def takes_in(location: str | Path, path: str | Path) -> bool:
    """Whether a folder or a glob takes in a file of this name, be it there or not."""
    root, pattern = _looked_through(Path(location))
    if not pattern or Path(location).is_file():
        return False
    try:
        name = Path(path).resolve().relative_to(root.resolve())
    except (OSError, ValueError):
        return False
    if not name.name or not _named_as_data(name):
        return False
    deep = "**" in pattern or pattern.count("/") == len(name.parts) - 1
    fits = (fnmatchcase(name.as_posix(), p) for p in (pattern, pattern.replace("**/", "")))
    return deep and any(fits)


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix in PACKED else path.suffix.lower()


def format_of(path: Path) -> str:
    """csv, jsonl or parquet, by the name of a file, or else by its first bytes."""
    if _suffix(path) in FORMATS:
        return FORMATS[_suffix(path)]
    from streamlearn.connectors.compressed import open_bytes

    stream = open_bytes(path)
    head = stream.read(4096, 0.0) or b""
    stream.close()
    if head.startswith(b"PAR1"):
        return "parquet"
    return "jsonl" if head.lstrip().startswith(b"{") else "csv"


def open_source(location: str | Path, schema: "Schema") -> Source:
    """The source of a location with a declared or inferred schema.

    location: a CSV, JSON Lines or Parquet file (text also in gzip or zstd), a folder, a glob,
    "-" (JSON Lines on standard input), `river:Name?option=value` or `drift:abrupt?option=value`.
    Raises: UserError for what is not there.
    """
    text = str(location)
    if text.startswith("kafka:"):
        raise UserError(
            f"{text}: topics are read by run, replay and init; `streamlearn record` them"
        )
    if text.startswith(("river:", "drift:")):
        return _named(text, schema)[0]
    from streamlearn.connectors._partitions import Partition, PartitionedSource

    if text == "-":
        from streamlearn.connectors.jsonl_files import open_pipe

        def opened(position: Any) -> Any:
            return open_pipe(sys.stdin.fileno(), schema, position)

        guarantee = "standard input: exactly once if fed again from its beginning after a restart"
        return PartitionedSource(schema, [Partition("-", opened)], "-", guarantee)
    files = data_files(text)
    guarantee = (
        "files: every row exactly once from any position, while files keep their names and what "
        "was read of them, and grow by whole lines; packed text is unpacked again up to the "
        "position"
    )
    partitions = [Partition(f.name, _opener(f, schema, f is files[0])) for f in files]
    return PartitionedSource(schema, partitions, text, guarantee)


def open_topics(topics: "Topics", schema: "Schema") -> LanedSource:
    """The source of some topics; nothing is connected before it is opened.

    Raises: UserError for a client that is not installed, or a format that does not fit.
    """
    from streamlearn.connectors.kafka.source import KafkaSource

    found: LanedSource = KafkaSource(topics, schema)
    return found


def _opener(file: DataFile, schema: "Schema", first: bool) -> Callable[[Any], Any]:
    """How to open a file at a position. first: whether it is the first one of its location."""
    from streamlearn.connectors._partitions import ahead

    opened = _plain_opener(file, schema, first)
    return lambda position: ahead(opened(position))


def _plain_opener(file: DataFile, schema: "Schema", first: bool) -> Callable[[Any], Any]:
    if file.format == "parquet":
        from streamlearn.connectors.parquet_files import ParquetReader

        return lambda position: ParquetReader(file.path, file.name, schema, position)
    if file.format == "jsonl":
        from streamlearn.connectors.jsonl_files import open_jsonl

        return lambda position: open_jsonl(file.path, file.name, schema, position, first)
    from streamlearn.connectors.csv_files import open_csv

    return lambda position: open_csv(file.path, file.name, schema, position)


def _options(text: str) -> tuple[str, str, dict[str, str]]:
    """`kind:Name?a=1&b=2` in its parts."""
    kind, _, rest = text.partition(":")
    name, _, query = rest.partition("?")
    return kind, name, dict(parse_qsl(query, keep_blank_values=True))


def _named(text: str, schema: "Schema | None", **asked: Any) -> tuple[Source, "Schema"]:
    """A river: or drift: stream and its schema."""
    kind, name, options = _options(text)
    if kind == "drift":
        from streamlearn.connectors.generators import DriftSource, drift_stream

        source = DriftSource(drift_stream(name, options), schema)
        return source, source.schema
    from streamlearn.connectors.records import RecordSource
    from streamlearn.connectors.river_data import river_records

    records = river_records(name, options)
    if schema is None:
        asked["target"] = asked.get("target") or records.target
        schema = _inferred(list(islice(records, SAMPLE)), **asked)
    return RecordSource(records, schema), schema


def _inferred(data: Any, **asked: Any) -> "Schema":
    from streamlearn.schema import Schema

    return Schema.infer(data, **asked)


def sample_columns(data: Any) -> Mapping[str, Sequence[Any]]:
    """The first 1,000 rows of what `as_source` takes, by column; UserError if there are none."""
    sample = _sample(data)
    if not sample or not any(len(values) for values in sample.values()):
        where = str(data) if isinstance(data, (str, Path)) else "data"
        raise UserError(f"{where}: there are no rows; give data with at least one row to read")
    return sample


def _sample(data: Any) -> Mapping[str, Sequence[Any]]:
    from streamlearn.connectors.jsonl_files import columns_of
    from streamlearn.connectors.records import as_table

    if isinstance(data, (str, Path)):
        return _sample_location(str(data))
    if type(data).__name__ == "Topics":
        from streamlearn.connectors.kafka.sample import sample_topics

        return sample_topics(data, SAMPLE)
    table = as_table(data)
    if table is not None:
        from streamlearn.connectors.parquet_files import sample_table

        return sample_table(table, SAMPLE)
    _check_iterable(data)
    rows = list(islice(data, SAMPLE))
    records = [dict(row) for row in rows if isinstance(row, Mapping)]
    if rows and not records:
        raise UserError(
            f"data: must be a path, an Arrow table, a frame or an iterable of dicts, "
            f"got an iterable of {type(rows[0]).__name__}; put each event in one dict"
        )
    return columns_of(records)


def _check_iterable(data: Any) -> None:
    if not isinstance(data, Iterable):
        raise UserError(
            f"data: must be a path, an Arrow table, a frame or an iterable of dicts, "
            f"got {type(data).__name__}"
        )


def _sample_location(text: str) -> Mapping[str, Sequence[Any]]:
    kind, name, options = _options(text)
    if kind == "kafka":
        from streamlearn.connectors.kafka.location import topics_at

        return _sample(topics_at(text))
    if kind == "river":
        from streamlearn.connectors.river_data import river_records

        return _sample(list(islice(river_records(name, options), SAMPLE)))
    if kind == "drift":
        from streamlearn.connectors.generators import drift_stream

        return _sample(next(drift_stream(name, options).batches(0)))
    if text == "-":
        raise UserError("-: standard input cannot be looked at twice; declare a schema for it")
    found: dict[str, Sequence[Any]] = {}
    for file in data_files(text):  # the first one that has rows
        found = dict(_sample_file(file))
        if any(len(values) for values in found.values()):
            break
    return found


def _sample_file(file: DataFile) -> Mapping[str, Sequence[Any]]:
    if file.format == "parquet":
        from streamlearn.connectors.parquet_files import sample_parquet

        return sample_parquet(file.path, SAMPLE)
    if file.format == "jsonl":
        from streamlearn.connectors.jsonl_files import sample_jsonl

        return sample_jsonl(file.path, SAMPLE)
    from streamlearn.connectors.csv_files import sample_csv

    return sample_csv(file.path, SAMPLE)


def as_source(
    data: Any,
    schema: "Schema | None" = None,
    *,
    target: str | None = None,
    features: Sequence[str] | None = None,
    ignore: Sequence[str] | None = None,
    task: str | None = None,
    limit: int | None = None,
    **roles: str | None,
) -> tuple[Source, "Schema"]:
    """A source over whatever Python holds, and its schema, inferred where none is given.

    data: a location as `open_source` takes it, an Arrow table, a pandas or polars frame, or an
    iterable of dicts. limit: read at most so many rows. The rest as in `Schema.infer`.
    """
    asked = {"target": target, "features": features, "ignore": ignore, "task": task} | roles
    source, schema = _source_of(data, schema, asked)
    return (source if limit is None else Limited(source, limit)), schema


def _source_of(
    data: Any, schema: "Schema | None", asked: dict[str, Any]
) -> tuple[Source, "Schema"]:
    if isinstance(data, (str, Path)):
        if str(data).startswith(("river:", "drift:")):
            return _named(str(data), schema, **asked)
        schema = schema if schema is not None else _inferred(data, **asked)
        return open_source(data, schema), schema
    from streamlearn.connectors.records import RecordSource, as_table

    table = as_table(data)
    if table is not None:
        schema = schema if schema is not None else _inferred(table, **asked)
        return _table_source(table, schema), schema
    _check_iterable(data)
    if schema is None:
        head = list(islice(data, SAMPLE))
        schema = _inferred(head, **asked)
        data = chain(head, data) if iter(data) is data else data
    return RecordSource(data, schema), schema


def _table_source(table: Any, schema: "Schema") -> Source:
    from streamlearn.connectors._partitions import Partition, PartitionedSource, ahead
    from streamlearn.connectors.parquet_files import open_table

    def opened(position: Any) -> Any:
        return ahead(open_table(table, "table", schema, position))

    partition = Partition("table", opened)
    guarantee = "in memory: exactly once within this process; after a restart give the same table"
    return PartitionedSource(schema, [partition], "table", guarantee)


class Limited:
    """The first rows of another source; rejected records do not count."""

    def __init__(self, source: Source, limit: int) -> None:
        if limit < 1:
            raise UserError(f"limit: must be >= 1, got {limit}")
        self._source, self._limit, self._left = source, limit, limit
        self.guarantee = source.guarantee

    def open(self, positions: Positions) -> None:
        """Go to these positions; the limit counts from there."""
        self._source.open(positions)
        self._left = self._limit

    def poll(self, max_events: int, max_wait: float) -> Batch | None:
        """As the source does, up to the limit."""
        if self._left == 0:
            return None
        batch = self._source.poll(min(max_events, self._left), max_wait)
        if batch is not None:
            self._left -= batch.block.n
        return batch

    @property
    def finished(self) -> bool:
        """True when the limit is reached or the source has ended."""
        return self._left == 0 or self._source.finished

    def close(self) -> None:
        """Close the source."""
        self._source.close()
