"""Parquet files and Arrow tables: columns in, columns out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streamlearn.connectors._partitions import Chunk
from streamlearn.contracts import Json, Reject
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_columns import Column, decode_columns, raw_record

_CELLS = 1 << 20  # decoded at a time, within these rows; 4,096 cost 30 ns a row more at 8 features
_LEAST_ROWS, _MOST_ROWS = 8_192, 65_536


def rows_at_once(columns: int) -> int:
    """Rows that are decoded at a time of so many columns."""
    return min(max(_CELLS // max(columns, 1), _LEAST_ROWS), _MOST_ROWS)


def open_parquet_file(path: Path) -> pq.ParquetFile:
    """An open file; UserError where it is no Parquet or is cut off."""
    try:
        # a buffer, no memory map: as fast (2.65 M events/s), and 4 M rows take 16 MB, not 250
        file = pq.ParquetFile(
            path, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True
        )
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except pa.ArrowInvalid:
        raise UserError(
            f"{path}: is not a whole Parquet file (its footer is absent or damaged); "
            f"write it again or get a complete copy"
        ) from None
    names = file.schema_arrow.names
    if len(set(names)) < len(names):
        file.close()
        twice = max(names, key=names.count)
        raise UserError(f"{path}: two columns are named {twice!r}; give every column its own name")
    return file


class BatchReader:
    """Record batches from a row on; positions are row numbers from 0."""

    def __init__(
        self, batches: Iterator[pa.RecordBatch], schema: Schema, partition: str, row: int
    ) -> None:
        self._batches, self._schema = batches, schema
        self._partition, self._row = partition, row
        self.finished = False

    def read(self, max_wait: float) -> Chunk | None:
        """The next batch of rows, decoded."""
        for batch in self._batches:
            if batch.num_rows:
                return self._chunk(batch)
        self.finished = True
        return None

    def _chunk(self, batch: pa.RecordBatch) -> Chunk:
        n, row = batch.num_rows, self._row
        columns = {name: _plain(batch.column(name)) for name in self._schema.wanted()}
        decoded, misfits = decode_columns(self._schema, columns, n)
        self._row += n
        accepted = [i for i in range(n) if i not in misfits] if misfits else range(n)
        rejects = [
            (i - k, Reject(self._partition, row + i, misfits[i], _raw(batch, i)))
            for k, i in enumerate(sorted(misfits))
        ]
        return Chunk(
            decoded, rejects, lambda b: {"row": row + accepted[b - 1] + 1}, {"row": self._row}
        )

    def close(self) -> None:
        """Let go of the batches."""
        self._batches = iter(())


def _plain(column: pa.Array) -> Column:
    """A column in a type that decoding knows; where text in it is no UTF-8, its values."""
    if pa.types.is_primitive(column.type):
        return column
    column = column.cast(pa.string()) if str(column.type) == "string_view" else column
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return _values(column)
    return column


def _values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values of a column; text that is no UTF-8 as bytes, which fit no kind."""
    try:
        found: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]
    return found


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        text = getattr(scalar, "value", scalar)  # of a dictionary
        return text.as_buffer().to_pybytes() if hasattr(text, "as_buffer") else b""


def _raw(batch: pa.RecordBatch, i: int) -> bytes:
    row = batch.slice(i, 1)
    return raw_record({name: _values(row.column(name))[0] for name in row.schema.names})


class ParquetReader(BatchReader):
    """One Parquet file from a row on."""

    def __init__(self, path: Path, partition: str, schema: Schema, position: Json) -> None:
        self._path, self._file = path, open_parquet_file(path)
        try:
            schema.check_present(self._file.schema_arrow.names, str(path))
        except UserError:
            self._file.close()
            raise
        row = 0 if position is None else int(position["row"])
        if row > self._file.metadata.num_rows:
            self._file.close()
            raise UserError(
                f"{path}: ends before the position of the checkpoint; "
                f"give the file that was read then"
            )
        super().__init__(self._from(row, schema.wanted()), schema, partition, row)

    def _from(self, row: int, wanted: list[str]) -> Iterator[pa.RecordBatch]:
        """Batches from a row on; row groups before it are not read."""
        skip = row
        groups: list[int] = []
        for group in range(self._file.metadata.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if skip >= rows and not groups:
                skip -= rows
            else:
                groups.append(group)
        names = [name for name in self._file.schema_arrow.names if name in wanted]
        rows = rows_at_once(len(names))
        batches = self._file.iter_batches(rows, groups, names, use_threads=False)
        for batch in batches:
            yield batch.slice(min(skip, batch.num_rows))
            skip -= min(skip, batch.num_rows)

    def read(self, max_wait: float) -> Chunk | None:
        """The next rows; UserError where the file is damaged inside."""
        try:
            return super().read(max_wait)
        except (OSError, pa.ArrowInvalid) as error:
            first = str(error).splitlines()[0]
            raise UserError(
                f"{self._path}: is damaged after row {self._row}: {first}; get a whole copy"
            ) from None

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._file.close()


def sample_parquet(path: Path, rows: int) -> dict[str, list[Any]]:
    """The first rows by column."""
    file = open_parquet_file(path)
    try:
        batches = file.iter_batches(rows, use_threads=False)
        table = pa.Table.from_batches([b for _, b in zip(range(1), batches, strict=False)],
                                      file.schema_arrow)  # fmt: skip
        return sample_table(table, rows)
    except (OSError, pa.ArrowInvalid) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"{path}: is damaged at its first rows: {first}; get a whole copy"
        ) from None
    finally:
        file.close()


def sample_table(table: pa.Table, rows: int) -> dict[str, list[Any]]:
    """The first rows of an Arrow table by column."""
    return {name: _values(table.column(name).slice(0, rows)) for name in table.column_names}


def open_table(table: pa.Table, partition: str, schema: Schema, position: Json) -> BatchReader:
    """A reader of an Arrow table from a row on."""
    schema.check_present(table.column_names, partition)
    row = 0 if position is None else int(position["row"])
    wanted = [name for name in table.column_names if name in schema.wanted()]
    batches = iter(table.select(wanted).slice(row).to_batches(rows_at_once(len(wanted))))
    return BatchReader(batches, schema, partition, row)
