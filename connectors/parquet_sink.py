"""Predictions as Parquet: a folder with one part for each checkpoint, or one file at the end."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamlearn.block import Vocabulary
from streamlearn.connectors.predictions import PredictionRows, Rows, class_columns, id_column
from streamlearn.contracts import Answers, Json
from streamlearn.durable import disk_errors, replacing, sync_folder
from streamlearn.errors import UserError

_GROUP = 1 << 16  # rows of a row group
_NAME = re.compile(r"part-(\d{6,})\.parquet")


class ParquetSink:
    """Predictions as a folder of Parquet parts: every checkpoint that has new rows adds one.

    Arrow, pandas, polars, DuckDB and Spark read such a folder as one table. A class that is first
    seen later gets a further column, also in the parts written before (0.0), so all parts have the
    same columns. A part appears with its checkpoint; rows wait in memory a row group at most.

    Args:
        path: the folder; made if it is not there.
        id_name: the column of ids, where events have ids. labels: classes known from the start.
        overwrite: delete the parts that are there, instead of refusing to begin.
    """

    guarantee = "each answer once, in order, row for row; parts of no checkpoint go"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        id_name: str | None = None,
        labels: Vocabulary | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path, self.overwrite = Path(path), overwrite
        self._id_name, self._table = id_column(id_name), labels
        self._part: _Part | None = None

    def open(self, position: Json) -> None:
        """Begin after what `commit` once returned; None means an empty output."""
        self._rows = PredictionRows(self._table)
        self._n_parts = 0
        with disk_errors(self.path):
            self._make_room(position is None)
        if position is not None:
            self._rows.classes, self._n_parts = position["classes"], position["parts"]
        found = self._parts()
        if list(found)[: self._n_parts] != list(range(self._n_parts)):
            raise UserError(
                f"{self.path}: parts of the last checkpoint are not there; put them back, "
                f"or delete the folder and the checkpoints to begin anew"
            )
        for number, part in found.items():
            if number >= self._n_parts:
                part.unlink()

    def write(self, answers: Answers) -> None:
        """Take one block of outputs; not durable before `commit`."""
        rows = self._rows.take(answers)
        if not len(rows.row):
            return
        if self._part is None:
            self._part = _Part(self.path / f".part-{self._n_parts:06d}.parquet.tmp")
        self._part.write(_table(rows, self._id_name))

    def commit(self) -> Json:
        """Make all that was written durable, and say how to come back to here."""
        if self._part is not None:
            for older in self._parts().values():
                _widen(older, self._part.schema)
            self._part.finish(self.path / f"part-{self._n_parts:06d}.parquet")
            self._part = None
            self._n_parts += 1
        return {"parts": self._n_parts, "classes": self._rows.classes}

    def close(self) -> None:
        """Release files without committing; may be called twice."""
        if self._part is not None:
            self._part.drop()
            self._part = None

    def _make_room(self, anew: bool) -> None:
        """The folder, without what a killed run left half written."""
        if self.path.is_file():
            raise UserError(
                f"{self.path}: is a file; parts need a folder: delete it or choose another"
            )
        self.path.mkdir(exist_ok=True)
        for stale in self.path.glob(".part-*.tmp"):
            stale.unlink()
        if anew and not self.overwrite and any(self.path.iterdir()):
            raise UserError(
                f"{self.path}: holds something, and there is no checkpoint to go on from; "
                f"move it away, or allow to overwrite it"
            )

    def _parts(self) -> dict[int, Path]:
        """The parts by their numbers, in order."""
        found = ((_NAME.fullmatch(path.name), path) for path in self.path.iterdir())
        return dict(sorted((int(match[1]), path) for match, path in found if match))


class ParquetFileSink:
    """Predictions as one Parquet file, for a run without checkpoints: it appears with the commit.

    Args: as for ParquetSink; overwrite replaces a file that is there.
    """

    guarantee = "the whole file at the end, or none"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        id_name: str | None = None,
        labels: Vocabulary | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path, self.overwrite = Path(path), overwrite
        self._id_name, self._table = id_column(id_name), labels
        self._part: _Part | None = None

    def open(self, position: Json) -> None:
        """Begin; there is no position to go on from."""
        if position is not None:
            raise UserError(f"{self.path}: one Parquet file cannot be gone on with; write parts")
        if self.path.exists() and not self.overwrite:
            raise UserError(
                f"{self.path}: is there already; move it away, or allow to overwrite it"
            )
        self._rows = PredictionRows(self._table)
        self._part = _Part(self.path.with_name(f".{self.path.name}.tmp"))

    def write(self, answers: Answers) -> None:
        """Take one block of outputs."""
        rows = self._rows.take(answers)
        if self._part is None:
            raise RuntimeError("ParquetFileSink: nothing can be written after a commit")
        if len(rows.row):
            self._part.write(_table(rows, self._id_name))

    def commit(self) -> Json:
        """Write the end of the file and put it in its place; nothing can be written after it."""
        if self._part is not None:
            self._part.finish(self.path)
            self._part = None
        return None

    def close(self) -> None:
        """Drop what was not committed; may be called twice."""
        if self._part is not None:
            self._part.drop()
            self._part = None


class _Part:
    """One Parquet file while it is written; it becomes wider when a class is born."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.schema: Any = None
        self._writer: Any = None
        self._waiting: list[Any] = []

    def write(self, table: Any) -> None:
        """Take rows; they go to the file a row group at a time."""
        self._waiting.append(table)
        if sum(len(waiting) for waiting in self._waiting) >= _GROUP:
            self._drain()

    def finish(self, place: Path) -> None:
        """Make the file durable and give it its name."""
        self._drain()
        with disk_errors(place):
            if self._writer is None:  # no row at all
                self._open(pa.schema([("row", pa.int64()), ("prediction", pa.float64())]))
            self._writer.close()
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(self.path, place)
            sync_folder(place.parent)

    def drop(self) -> None:
        """Leave nothing behind."""
        if self._writer is not None:
            self._writer.close()
        self.path.unlink(missing_ok=True)

    def _drain(self) -> None:
        if not self._waiting:
            return
        schema = self._waiting[-1].schema  # the widest
        tables = [_as(table, schema) for table in self._waiting]
        self._waiting = []
        with disk_errors(self.path):
            if schema != self.schema:
                self._widen(schema)
            self._writer.write_table(pa.concat_tables(tables), row_group_size=_GROUP)

    def _widen(self, schema: Any) -> None:
        """Go on with more columns; what is in the file already is written again with them."""
        if self._writer is None:
            self._open(schema)
            return
        self._writer.close()
        old = self.path.with_suffix(".old.tmp")
        os.replace(self.path, old)
        self._open(schema)
        with pq.ParquetFile(old) as file:
            for k in range(file.num_row_groups):
                self._writer.write_table(_as(file.read_row_group(k), schema))
        old.unlink()

    def _open(self, schema: Any) -> None:
        self.schema = schema
        self._writer = pq.ParquetWriter(self.path, schema)


def _table(rows: Rows, id_name: str) -> Any:
    """Rows as an Arrow table."""
    columns: dict[str, Any] = {"row": pa.array(rows.row)}
    if rows.ids is not None:
        columns[id_name] = _values(rows.ids.tolist())
    columns["prediction"] = _predictions(rows)
    for k, name in enumerate(class_columns(rows.labels or (), rows.proba.shape[1])):
        columns[name] = pa.array(np.ascontiguousarray(rows.proba[:, k]), from_pandas=True)
    return pa.table(columns)


def _predictions(rows: Rows) -> Any:
    if rows.labels is None:
        return pa.array(rows.prediction, from_pandas=True)
    missing = np.isnan(rows.prediction)
    codes = np.where(missing, 0, rows.prediction).astype(np.int64)
    return _values(rows.labels).take(pa.array(codes, mask=missing))


def _values(values: Sequence[Any]) -> Any:
    """Values of one kind as they are, of several kinds as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])


def _as(table: Any, schema: Any) -> Any:
    """A table with the columns of a wider schema: 0.0 for a class that was unknown."""
    if table.schema == schema:
        return table
    zeros = pa.array(np.zeros(len(table)))
    names = set(table.column_names)
    columns = [
        table[field.name].cast(field.type) if field.name in names else zeros for field in schema
    ]
    return pa.table(columns, schema=schema)


def _widen(part: Path, schema: Any) -> None:
    """Give a finished part the columns that came after it; whole or not at all."""
    if pq.read_schema(part).equals(schema):
        return
    with pq.ParquetFile(part) as old, replacing(part) as descriptor:
        file = os.fdopen(os.dup(descriptor), "wb")
        with file, pq.ParquetWriter(file, schema) as new:
            for k in range(old.num_row_groups):
                new.write_table(_as(old.read_row_group(k), schema))
