"""Which sink a location means, and the sink in memory."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from streamlearn.block import Vocabulary
from streamlearn.connectors.predictions import (
    PredictionRows,
    class_columns,
    id_column,
    listed_sets,
)
from streamlearn.contracts import Answers, Json, Sink
from streamlearn.errors import UserError

if TYPE_CHECKING:
    from streamlearn.connectors.alerts import AlertFile
    from streamlearn.connectors.text_sinks import DeadLetterSink

_FORMATS = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_KEYS = ("path", "format", "overwrite")

Location = str | os.PathLike[str] | Mapping[str, Any]


class Tables(Protocol):
    """What a sink wants to know of a schema: the name of the id column and the classes known."""

    @property
    def id(self) -> str | None:
        """Name of the id column."""

    @property
    def labels(self) -> Vocabulary | None:
        """The class table."""


class MemorySink:
    """Predictions in a list of dicts, `rows`: the double of the file sinks.

    A class has its key from the first event after the one that taught it.
    """

    guarantee = "each answer once, in order, as long as the process lives"

    def __init__(self, *, id_name: str | None = None, labels: Vocabulary | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        self._id_name, self._table = id_column(id_name), labels

    def open(self, position: Json) -> None:
        """Begin after what `commit` once returned; None means an empty output."""
        self._taken = PredictionRows(self._table)
        if position is not None:
            self._taken.classes = position["classes"]
        del self.rows[0 if position is None else position["rows"] :]

    def write(self, answers: Answers) -> None:
        """Take one block of outputs."""
        taken = self._taken.take(answers)
        labels = taken.labels
        sets = None if taken.sets is None else listed_sets(taken)
        for t, number in enumerate(taken.row.tolist()):
            row: dict[str, Any] = {"row": number}
            if taken.ids is not None:
                row[self._id_name] = taken.ids[t]
            value = float(taken.prediction[t])
            row["prediction"] = None if value != value else labels[int(value)] if labels else value
            if sets is not None:
                row["set"] = sets[t]
            width = taken.proba.shape[1] if taken.known is None else int(taken.known[t])
            names = class_columns(labels or (), width)
            self.rows.append(row | dict(zip(names, taken.proba[t].tolist(), strict=False)))

    def commit(self) -> Json:
        """How to come back to here."""
        return {"rows": len(self.rows), "classes": self._taken.classes}

    def close(self) -> None:
        """The rows stay."""


def open_sink(
    location: Location,
    schema: Tables | None = None,
    *,
    overwrite: bool = False,
    recoverable: bool = True,
) -> Sink:
    """The sink for a location; nothing is opened or written yet.

    Args:
        location: a path that ends in .csv, .jsonl (.ndjson, .json) or .parquet (.pq), text also
            with .gz or .zst after it; `-` for JSON Lines on stdout; or a mapping with `path` and,
            where the ending does not say it, `format` (csv, jsonl, parquet), and `overwrite`.
        schema: names the id column, and the classes known before the first event.
        overwrite: empty what is there at the beginning, instead of refusing.
        recoverable: the run has checkpoints; without them Parquet is one file, not a folder.

    Raises: UserError for a location that names no format, or a key that is unknown.
    """
    options = _options(location)
    overwrite = bool(options.get("overwrite", overwrite))
    path = str(options["path"])
    names: dict[str, Any] = {}
    if schema is not None:
        names = {"id_name": schema.id, "labels": schema.labels}
    from streamlearn.connectors import text_sinks  # Arrow, which `--help` must not wait for

    if path == "-":
        return text_sinks.StreamSink(**names)
    form, compression = _format(path, options.get("format"))
    if form == "parquet":
        from streamlearn.connectors import parquet_sink

        kind = parquet_sink.ParquetSink if recoverable else parquet_sink.ParquetFileSink
        return kind(path, overwrite=overwrite, **names)
    text = text_sinks.CsvSink if form == "csv" else text_sinks.JsonLinesSink
    return text(path, compression, overwrite=overwrite, **names)


def open_dead_letters(location: Location, *, overwrite: bool = False) -> "DeadLetterSink":
    """The sink for records that do not fit: JSON Lines, whatever the ending; also .gz and .zst.

    Args: as for open_sink.
    """
    from streamlearn.connectors import text_sinks

    options = _options(location)
    path = str(options["path"])
    compression = _COMPRESSIONS.get(Path(path).suffix.lower())
    overwrite = bool(options.get("overwrite", overwrite))
    return text_sinks.DeadLetterSink(path, compression, overwrite=overwrite)


def open_alerts(
    location: Location,
    schema: Tables | None = None,
    *,
    model: str = "",
    overwrite: bool = False,
) -> "AlertFile":
    """The sink for alarms: JSON Lines, whatever the ending; also .gz and .zst.

    Args: as for open_sink. model: fingerprint of the pipeline.
    """
    from streamlearn.connectors.alerts import AlertFile

    options = _options(location)
    path = str(options["path"])
    compression = _COMPRESSIONS.get(Path(path).suffix.lower())
    overwrite = bool(options.get("overwrite", overwrite))
    return AlertFile(path, compression, tables=schema, model=model, overwrite=overwrite)


def _options(location: Location) -> Mapping[str, Any]:
    """A location as a mapping."""
    if not isinstance(location, Mapping):
        return {"path": os.fspath(location)}
    unknown = [key for key in location if key not in _KEYS]
    if unknown or "path" not in location:
        what = f"has the unknown key {unknown[0]!r}" if unknown else "has no path"
        raise UserError(f"sink: {what}; keys are: {', '.join(_KEYS)}")
    return location


def _format(path: str, given: str | None) -> tuple[str, str | None]:
    """Format and compression that a path means."""
    endings = [ending.lower() for ending in Path(path).suffixes]
    compression = _COMPRESSIONS.get(endings[-1]) if endings else None
    ending = endings[-2 if compression else -1] if len(endings) > bool(compression) else ""
    form = given or _FORMATS.get(ending, "")
    if form not in _FORMATS.values():
        raise UserError(
            f"{path}: must end in .csv, .jsonl or .parquet (text also .gz or .zst), "
            f"or have a format of csv, jsonl or parquet"
        )
    if form == "parquet" and compression:
        raise UserError(f"{path}: Parquet is compressed inside; leave out {endings[-1]}")
    return form, compression
