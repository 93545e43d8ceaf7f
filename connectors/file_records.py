"""The records of a file as JSON messages, with the key and the time that two columns name.

A line of JSON Lines is handed on as it stands, so that what is odd in it stays odd. A CSV record
becomes an object: the cells of a column whose first 1,000 are numbers, or missing, are numbers, all
others text. A row of Parquet becomes an object too, with times as ISO text.
"""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamlearn.block import I8
from streamlearn.connectors import SAMPLE, DataFile, data_files
from streamlearn.connectors._decode_lines import BOM, PIECE, lines_of
from streamlearn.connectors.compressed import Bytes, open_bytes
from streamlearn.connectors.csv_files import CsvDecoder, read_header, sample_csv
from streamlearn.connectors.jsonl_files import loose_object
from streamlearn.connectors.parquet_files import open_parquet_file
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_cells import MISSING, Misfit
from streamlearn.schema_cells import time as cell_time

_log = logging.getLogger(__name__)
_ROWS = 4096  # of Parquet at a time
_SHOWN = 10  # lines that are left out and told of
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)  # as JSON has it


class Records(NamedTuple):
    """Some records of a file, (n,) each.

    values: JSON. keys: None where no column was named. times: nanoseconds since 1970, likewise.
    """

    values: list[bytes]
    keys: list[bytes | None] | None
    times: I8 | None


class _Piece(NamedTuple):
    """Some records: JSON, the columns that were asked for, and the number of each."""

    values: list[bytes]
    columns: dict[str, list[Any]]
    numbers: Sequence[int]


def json_records(
    location: str | Path, *, key: str | None = None, time: str | None = None, unit: str = "s"
) -> Iterator[Records]:
    """The records of a file, a folder or a glob, in order, a piece at a time.

    Args:
        location: CSV, JSON Lines (both also in gzip or zstd) or Parquet.
        key: the column whose text is the key; a record without it has none. time: the column with
            the time. unit: of times that are numbers: s, ms, us or ns.

    Raises: UserError for a file or column that is not there, and for a record without a readable
        time where one is asked for. A line that is no CSV record is left out, with a warning.
    Cost: per record, 0.1 us as JSON Lines (1 us more with key or time), some 10 us as CSV, some
        5 us as Parquet.
    """
    wanted = list(dict.fromkeys(name for name in (key, time) if name is not None))
    for file in data_files(location):
        for piece in _READERS[file.format](file, wanted):
            if piece.values:
                keys = None if key is None else [_key(value) for value in piece.columns[key]]
                times = None if time is None else _times(piece, file.path, time, unit)
                yield Records(piece.values, keys, times)


def _key(value: Any) -> bytes | None:
    if value is None or isinstance(value, str):
        return None if value is None else value.encode("utf-8", "surrogateescape")
    return msgspec.json.encode(value)


def _times(piece: _Piece, path: Path, name: str, unit: str) -> I8:
    out = np.empty(len(piece.values), dtype=np.int64)
    for i, value in enumerate(piece.columns[name]):
        try:
            found = cell_time(value, MISSING, unit)
        except Misfit as reason:
            raise UserError(f"{path}: record {piece.numbers[i]}: time {name!r} {reason}") from None
        if found is None:
            raise UserError(
                f"{path}: record {piece.numbers[i]}: time {name!r} must be there, got no value; "
                f"leave such records out, or leave out --time"
            )
        out[i] = found
    return out


# -- JSON Lines ------------------------------------------------------------------------------------


def _jsonl(file: DataFile, wanted: list[str]) -> Iterator[_Piece]:
    """Lines as they stand."""
    line = 1
    for data, _ in _pieces(open_bytes(file.path), 0):
        body = data.removeprefix(BOM) if line == 1 else data
        places = lines_of(body, line)
        values = [body[place.start : place.stop].rstrip(b"\r\n") for place in places]
        numbers = [place.line for place in places]
        objects = [_object(value, file.path, n) for value, n in zip(values, numbers, strict=True)
                   ] if wanted else []  # fmt: skip
        columns = {name: [found.get(name) for found in objects] for name in wanted}
        yield _Piece(values, columns, numbers)
        line += data.count(b"\n")


def _object(value: bytes, path: Path, line: int) -> dict[str, Any]:
    try:
        return loose_object(value)
    except Misfit as reason:
        raise UserError(
            f"{path}: line {line} {reason}; correct it, or leave out --time and --key"
        ) from None


def _pieces(stream: Bytes, start: int) -> Iterator[tuple[bytes, bool]]:
    """Whole lines, and whether they are the last; closes the stream."""
    try:
        stream.seek(start)
        rest, final = b"", False
        while not final:
            more = stream.read(PIECE, 3600.0) or b""
            final = not more
            data = rest + more
            cut = len(data) if final else data.rfind(b"\n") + 1
            rest = data[cut:]
            if cut:
                yield data[:cut], final
    finally:
        stream.close()


# -- CSV -------------------------------------------------------------------------------------------


def _csv(file: DataFile, wanted: list[str]) -> Iterator[_Piece]:
    """Records as objects; a record that spans pieces is put together."""
    names, delimiter, start = _header(file.path)
    _check(wanted, names, file.path)
    numeric = {name for name, cells in sample_csv(file.path, SAMPLE).items() if _numeric(cells)}
    schema = Schema.from_config({"features": dict.fromkeys(names, "category")})
    decoder = CsvDecoder(schema, names, delimiter)
    line, rest, told = 2, b"", 0
    for data, final in _pieces(open_bytes(file.path), start):
        split = decoder.split(rest + data, line, final)
        rest, line = (rest + data)[split.consumed :], split.next_line
        for place, reason in split.refused[: max(0, _SHOWN - told)]:
            _log.warning("%s: line %d: %s; left out", file.path, place.line, reason)
        told += len(split.refused)
        shown = {n: _cells(cells) if n in numeric else cells for n, cells in split.columns.items()}
        rows = zip(*(shown[name] for name in names), strict=True)
        values = [msgspec.json.encode(dict(zip(names, row, strict=True))) for row in rows]
        yield _Piece(
            values,
            {name: split.columns[name] for name in wanted},
            [place.line for place in split.places],
        )


def _header(path: Path) -> tuple[list[str], str, int]:
    stream = open_bytes(path)
    try:
        names, delimiter, start, _ = read_header(stream, str(path))
    finally:
        stream.close()
    return names, delimiter, start


def _numeric(cells: Sequence[str]) -> bool:
    """Whether a column is sent as numbers."""
    there = [cell for cell in cells if cell not in MISSING]
    return bool(there) and all(_NUMBER.fullmatch(cell) for cell in there)


def _cells(cells: Sequence[str]) -> list[Any]:
    """Cells of a column of numbers: their digits as they stand, null for missing, or else text."""
    return [
        msgspec.Raw(cell.encode())
        if _NUMBER.fullmatch(cell)
        else (None if cell in MISSING else cell)
        for cell in cells
    ]


def _check(wanted: Sequence[str], names: Sequence[str], path: Path) -> None:
    for name in wanted:
        if name not in names:
            listed = ", ".join(names[:30])
            raise UserError(f"{path}: there is no column {name!r}; the columns are {listed}")


# -- Parquet ---------------------------------------------------------------------------------------


def _parquet(file: DataFile, wanted: list[str]) -> Iterator[_Piece]:
    """Rows as objects."""
    opened = open_parquet_file(file.path)
    first = 1
    try:
        _check(wanted, opened.schema_arrow.names, file.path)
        for batch in opened.iter_batches(_ROWS, use_threads=False):
            names = batch.schema.names
            rows = pa.RecordBatch.from_arrays([_plain(c) for c in batch.columns], names).to_pylist()
            columns = {name: [row[name] for row in rows] for name in wanted}
            numbers = range(first, first + len(rows))
            yield _Piece([msgspec.json.encode(row) for row in rows], columns, numbers)
            first += len(rows)
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        text = str(error).splitlines()[0]
        raise UserError(f"{file.path}: is damaged: {text}; get a whole copy") from None
    finally:
        opened.close()


def _plain(column: Any) -> Any:
    """Times as ISO text, to their last digit."""
    if pa.types.is_timestamp(column.type):
        zone = "Z" if column.type.tz is not None else ""
        return pc.strftime(column.cast(pa.timestamp(column.type.unit)), f"%Y-%m-%dT%H:%M:%S{zone}")
    return column.cast(pa.string()) if pa.types.is_date(column.type) else column


_READERS: dict[str, Callable[[DataFile, list[str]], Iterator[_Piece]]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "parquet": _parquet,
}
