"""Predictions as Parquet: a folder with one part for each checkpoint, or one file at the end."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from streamlearn.block import Vocabulary
from streamlearn.connectors.predictions import (
    PredictionRows,
    RowBuffer,
    Rows,
    class_columns,
    distinct_sets,
    id_column,
)
from streamlearn.contracts import Answers, Json
from streamlearn.durable import disk_errors, replacing, sync_folder
from streamlearn.errors import UserError

_GROUP = 1 << 16  # rows of a row group
_NAME = re.compile(r"part-(\d{6,})\.parquet")


class ParquetSink:
    """Predictions as a folder of Parquet parts: every checkpoint that has new rows adds one.

    Arrow, pandas, polars, DuckDB and Spark read such a folder as one table. A class that is first
    seen later gets a further column, also in the parts written before (0.0), so all parts have the
    same columns. A set of classes is a list of text. A part appears with its checkpoint; rows wait
    in memory a row group at most.

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
        self._rows, self._buffer = PredictionRows(self._table), RowBuffer()
        self._wide: _Wide | None = None
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
        self._wide = _Wide.of(rows)
        for ready in self._buffer.add(rows):
            self._put(ready)

    def _put(self, rows: Rows) -> None:
        if self._part is None:
            self._part = _Part(self.path / f".part-{self._n_parts:06d}.parquet.tmp")
        self._part.write(_table(rows, self._id_name, _Wide.of(rows)))

    def commit(self) -> Json:
        """Make all that was written durable, and say how to come back to here."""
        for ready in self._buffer.rest():
            self._put(ready)
        if self._wide is not None:
            for older in self._parts().values():
                _widen(older, self._wide)
        if self._part is not None and self._wide is not None:
            self._part.finish(self.path / f"part-{self._n_parts:06d}.parquet", self._wide)
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
                f"move it away, or say overwrite: true"
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
            raise UserError(f"{self.path}: is there already; move it away, or say overwrite: true")
        self._rows, self._buffer = PredictionRows(self._table), RowBuffer()
        self._wide = _Wide((), pa.float64())
        self._part = _Part(self.path.with_name(f".{self.path.name}.tmp"))

    def write(self, answers: Answers) -> None:
        """Take one block of outputs."""
        rows = self._rows.take(answers)
        if self._part is None:
            raise RuntimeError("ParquetFileSink: nothing can be written after a commit")
        self._wide = _Wide.of(rows)
        for ready in self._buffer.add(rows):
            self._part.write(_table(ready, self._id_name, _Wide.of(ready)))

    def commit(self) -> Json:
        """Write the end of the file and put it in its place; nothing can be written after it."""
        if self._part is not None:
            for ready in self._buffer.rest():
                self._part.write(_table(ready, self._id_name, _Wide.of(ready)))
            self._part.finish(self.path, self._wide)
            self._part = None
        return None

    def close(self) -> None:
        """Drop what was not committed; may be called twice."""
        if self._part is not None:
            self._part.drop()
            self._part = None


class _Wide(NamedTuple):
    """What grows in the columns: the names for the classes, the type of the prediction."""

    names: Sequence[str]
    prediction: Any

    @classmethod
    def of(cls, rows: Rows) -> "_Wide":
        """As it is after these rows."""
        if rows.labels is None:
            return cls(class_columns((), rows.proba.shape[1]), pa.float64())
        return cls(class_columns(rows.labels, rows.proba.shape[1]), _values(rows.labels).type)

    def schema(self, narrow: Any) -> Any:
        """An Arrow schema with these columns."""
        at = narrow.get_field_index("prediction")
        sets = [field for field in narrow if field.name == "set"]
        fields = [*list(narrow)[:at], pa.field("prediction", self.prediction), *sets]
        return pa.schema([*fields, *(pa.field(name, pa.float64()) for name in self.names)])


class _Part:
    """One Parquet file while it is written; it becomes wider when a class is born."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._schema: Any = None
        self._writer: Any = None
        self._waiting: list[Any] = []

    def write(self, table: Any) -> None:
        """Take rows; they go to the file a row group at a time."""
        self._waiting.append(table)
        if sum(len(waiting) for waiting in self._waiting) >= _GROUP:
            with disk_errors(self.path):
                self._drain(table.schema)

    def finish(self, place: Path, wide: _Wide) -> None:
        """Make the file durable and give it its name."""
        with disk_errors(place):
            narrow = self._waiting[-1].schema if self._waiting else self._schema or _EMPTY
            self._drain(wide.schema(narrow))
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

    def _drain(self, schema: Any) -> None:
        """Write what waits, with the columns of a schema."""
        if schema != self._schema:
            self._widen(schema)
        tables, self._waiting = [_as(table, schema) for table in self._waiting], []
        if tables:
            self._writer.write_table(pa.concat_tables(tables), row_group_size=_GROUP)

    def _widen(self, schema: Any) -> None:
        """Go on with more columns; what is in the file already is written again with them."""
        narrow, self._schema = self._writer, schema
        old = self.path.with_suffix(".old.tmp")
        if narrow is not None:
            narrow.close()
            os.replace(self.path, old)
        self._writer = pq.ParquetWriter(self.path, schema)
        if narrow is not None:
            _copy(old, self._writer, schema)
            old.unlink()


_EMPTY = pa.schema([("row", pa.int64()), ("prediction", pa.float64())])


def _table(rows: Rows, id_name: str, wide: _Wide) -> Any:
    """Rows as an Arrow table."""
    columns: dict[str, Any] = {"row": pa.array(rows.row)}
    if rows.ids is not None:
        columns[id_name] = _ids(rows.ids)
    columns["prediction"] = _predictions(rows)
    if rows.sets is not None:
        columns["set"] = _sets(rows)
    for k, name in enumerate(wide.names):
        columns[name] = pa.array(np.ascontiguousarray(rows.proba[:, k]), from_pandas=True)
    return pa.table(columns)


def _ids(ids: NDArray[Any]) -> Any:
    """Ids as whole numbers where their array is one of them, else as text."""
    if ids.dtype.kind in "iu":
        return pa.array(ids)
    return _texts(ids.tolist())


def _predictions(rows: Rows) -> Any:
    if rows.labels is None:
        return pa.array(rows.prediction, from_pandas=True)
    missing = np.isnan(rows.prediction)
    codes = np.where(missing, 0, rows.prediction).astype(np.int64)
    return _values(rows.labels).take(pa.array(codes, mask=missing))


def _sets(rows: Rows) -> Any:
    """The labels in the set of each row as lists of text; null where no answer was given."""
    codes, which = distinct_sets(rows)
    labels = rows.labels or ()
    named = pa.array([[str(labels[k]) for k in row] for row in codes], pa.list_(pa.string()))
    return named.take(pa.array(np.maximum(which, 0), mask=which < 0))


def _values(labels: Sequence[Any]) -> Any:
    """Labels of one kind as they are, of several kinds as text."""
    try:
        return pa.array(labels)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return _texts(labels)


def _texts(values: Sequence[Any]) -> Any:
    return pa.array([None if value is None else str(value) for value in values], pa.string())


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


def _copy(path: Path, writer: Any, schema: Any) -> None:
    """All row groups of a file, with the columns of a wider schema."""
    with pq.ParquetFile(path) as file:
        for k in range(file.num_row_groups):
            writer.write_table(_as(file.read_row_group(k), schema))


def _widen(part: Path, wide: _Wide) -> None:
    """Give a finished part the columns that came after it; whole or not at all."""
    with disk_errors(part):
        narrow = pq.read_schema(part)
    schema = wide.schema(narrow)
    if schema == narrow:
        return
    with (
        replacing(part) as descriptor,
        os.fdopen(os.dup(descriptor), "wb") as file,
        pq.ParquetWriter(file, schema) as writer,
    ):
        _copy(part, writer, schema)
