"""JSON Lines: one object a line; kernels read plain pieces, msgspec others, Python's json the rest.

An absent key and null are missing; NaN and Infinity, which are no JSON, are read all the same.
Blank lines are skipped; of a key named twice the last counts. A line that is no object is rejected
with its number.
"""

from pathlib import Path
from typing import Any

from streamlearn.connectors._decode_lines import (
    BOM,
    PIECE,
    LineReader,
    Place,
    Split,
    head_of,
    lines_of,
)
from streamlearn.connectors._json_columns import JsonColumns
from streamlearn.connectors._json_columns import loose_object as loose_object
from streamlearn.connectors._partitions import Reader, ahead
from streamlearn.connectors.compressed import Bytes, PipeBytes, open_bytes
from streamlearn.contracts import Json
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_cells import Misfit
from streamlearn.schema_columns import Decoded, decode_columns
from streamlearn.schema_text import TextColumns


class JsonDecoder:
    """The records of one schema: `whole` by typed structs, `split` line by line."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._columns = JsonColumns(schema, schema.wanted())
        self.names = self._columns.numbers + self._columns.others
        self._kernels = TextColumns(schema, schema.wanted())

    def whole(self, data: bytes) -> Decoded | None:
        """All records at once; None when a line is no object or a value has another type."""
        plain = self._kernels.json(data)
        if plain is not None:
            return plain
        lines = [line for line in data.split(b"\n") if line and line != b"\r"]
        columns = self._columns.whole(lines)
        if columns is None:
            return None
        decoded, misfits = decode_columns(self.schema, columns, len(lines))
        return None if misfits else decoded

    def split(self, data: bytes, line: int, final: bool) -> Split:
        """The same records, each line by itself."""
        rows: list[list[Any]] = []
        places: list[Place] = []
        refused: list[tuple[Place, str]] = []
        for place in lines_of(data, line):
            try:
                rows.append(self._columns.row(data[place.start : place.stop]))
                places.append(place)
            except Misfit as reason:
                refused.append((place, str(reason)))
        columns = {name: [row[i] for row in rows] for i, name in enumerate(self.names)}
        return Split(columns, places, refused, len(data), line + data.count(b"\n"))


def open_jsonl(
    path: Path, partition: str, schema: Schema, position: Json, first: bool
) -> LineReader:
    """A reader of one JSON Lines file from a position on.

    first: of its location; its keys are looked at before the first event, as a mistake in the
        schema shows there. In later files a key may well be missing everywhere.
    """
    if position is None and first:
        check_fields(path, schema)
    return _reader(open_bytes(path), partition, schema, position)


def open_pipe(descriptor: int, schema: Schema, position: Json) -> Reader:
    """A reader of JSON Lines from a pipe; a position is reached by dropping what precedes it.

    A thread decodes ahead only what is there as a whole piece: a line that comes alone is read as
    soon as it comes.
    """
    stream = PipeBytes(descriptor)
    reader = _reader(stream, "-", schema, position)
    return ahead(reader, worth=lambda: stream.holds(PIECE))


def _reader(stream: Bytes, partition: str, schema: Schema, position: Json) -> LineReader:
    """A reader from a position on; the stream is closed where it has no such place."""
    at = position or {"offset": 0, "line": 1}
    try:
        return LineReader(stream, JsonDecoder(schema), partition, at["offset"], at["line"])
    except UserError:
        stream.close()
        raise


def check_fields(path: Path, schema: Schema) -> None:
    """Refuse a file whose first 1,000 objects never have the target, or none of the features."""
    present = list(sample_jsonl(path, 1000))
    if not present:
        return
    if schema.target is not None and schema.target not in present:
        schema.check_present(present, str(path))
    if not any(name in present for name in schema.features):
        schema.check_present(present, str(path))


def sample_jsonl(path: Path, rows: int) -> dict[str, list[Any]]:
    """The first rows by column, None where a key is absent; what is no object is left out."""
    stream = open_bytes(path)
    try:
        data = stream.read(PIECE, 3600.0) or b""
        if data.removeprefix(BOM).lstrip(b" \t\r\n").startswith(b"["):
            rule = "must hold one JSON object a line, got an array; unpack it first"
            raise UserError(f"{path}: {rule}")
        data, final = head_of(stream, rows, data)
    finally:
        stream.close()
    lines = data.removeprefix(BOM).split(b"\n")
    found = _objects(lines if final else lines[:-1], rows)
    if data.strip() and not found:
        raise UserError(f"{path}: must hold one JSON object a line; no line at its start is one")
    return columns_of(found)


def _objects(lines: list[bytes], rows: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in lines:
        if len(found) == rows:
            break
        if line.strip():
            try:
                found.append(loose_object(line))
            except Misfit:
                continue
    return found


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Dicts as columns, named in order of first appearance."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {str(name): [row.get(name) for row in rows] for name in names}
