"""JSON Lines: one object a line; msgspec reads declared fields, Python's json what it refuses.

An absent key and null are missing; NaN and Infinity, which are no JSON, are read all the same.
Blank lines are skipped; of a key named twice the last counts. A line that is no object is rejected
with its number.
"""

import json
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streamlearn.connectors._decode_lines import PIECE, LineReader, Place, Split, lines_of
from streamlearn.connectors.compressed import Bytes, PipeBytes, open_bytes
from streamlearn.contracts import Json
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_cells import Misfit
from streamlearn.schema_columns import Decoded, decode_columns

BOM = b"\xef\xbb\xbf"
_NUMBER = float | None
_SCALAR = str | int | float | bool | None


def _record_type(names: list[str], types: list[Any]) -> Any:
    """A struct with fields f0, f1, … under the names of the columns; absent and null are None."""
    slots = [(f"f{i}", kind, None) for i, kind in enumerate(types)]
    rename = {f"f{i}": name for i, name in enumerate(names)}
    return msgspec.defstruct("Record", slots, rename=rename, gc=False)


class JsonDecoder:
    """The records of one schema: `whole` by typed structs, `split` line by line."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.names = schema.wanted()
        types = [_json_type(schema, name) for name in self.names]
        self._typed = msgspec.json.Decoder(_record_type(self.names, types))
        self._loose = msgspec.json.Decoder(_record_type(self.names, [Any] * len(self.names)))
        self._floats = {n for n, kind in zip(self.names, types, strict=True) if kind == _NUMBER}
        self._slots = {name: attrgetter(f"f{i}") for i, name in enumerate(self.names)}

    def whole(self, data: bytes) -> Decoded | None:
        """All records at once; None when a line is no object or a value has another type."""
        lines = [line for line in data.split(b"\n") if line and line != b"\r"]
        try:
            records = list(map(self._typed.decode, lines))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        columns: dict[str, Any] = {}
        for name, slot in self._slots.items():
            listed = list(map(slot, records))
            columns[name] = np.array(listed, np.float64) if name in self._floats else listed
        decoded, misfits = decode_columns(self.schema, columns, len(records))
        return None if misfits else decoded

    def split(self, data: bytes, line: int, final: bool) -> Split:
        """The same records, each line by itself."""
        rows: list[list[Any]] = []
        places: list[Place] = []
        refused: list[tuple[Place, str]] = []
        for place in lines_of(data, line):
            try:
                rows.append(self._record(data[place.start : place.stop]))
                places.append(place)
            except Misfit as reason:
                refused.append((place, str(reason)))
        columns = {name: [row[i] for row in rows] for i, name in enumerate(self.names)}
        return Split(columns, places, refused, len(data), line + data.count(b"\n"))

    def _record(self, text: bytes) -> list[Any]:
        """The wanted values of one line; NaN and Infinity, which are no JSON, are read as well."""
        try:
            record = self._loose.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            table = loose_object(text)
            return [table.get(name) for name in self.names]
        return [slot(record) for slot in self._slots.values()]


def _json_type(schema: Schema, name: str) -> Any:
    kind = schema.features[name].kind if name in schema.features else None
    if kind in ("text", "words"):
        return Any
    number = schema.task == "regression" and name == schema.target
    return _NUMBER if kind == "number" or number or name == schema.weight else _SCALAR


def loose_object(text: bytes) -> dict[str, Any]:
    """A line as Python's json reads it; Misfit says why it is no object."""
    try:
        value = json.loads(text.decode("utf-8"))
    except UnicodeDecodeError:
        raise Misfit("must be UTF-8") from None
    except json.JSONDecodeError as error:
        raise Misfit(f"must be JSON: {error.msg} at character {error.pos + 1}") from None
    except (RecursionError, ValueError):
        raise Misfit("must be JSON: nested too deeply, or a number too long") from None
    if not isinstance(value, dict):
        raise Misfit(f"must be a JSON object, got {type(value).__name__}")
    return value


def _skip_bom(stream: Bytes) -> int:
    head = stream.read(3, 3600.0)
    start = 3 if head == BOM else 0
    stream.seek(start)
    return start


def open_jsonl(path: Path, partition: str, schema: Schema, position: Json) -> LineReader:
    """A reader of one JSON Lines file from a position on."""
    if position is None:
        check_fields(path, schema)
    stream = open_bytes(path)
    try:
        position = position or {"offset": _skip_bom(stream), "line": 1}
        stream.seek(position["offset"])
    except UserError:
        stream.close()
        raise
    return LineReader(stream, JsonDecoder(schema), partition, position["offset"], position["line"])


def open_pipe(descriptor: int, schema: Schema, position: Json) -> LineReader:
    """A reader of JSON Lines from a pipe; a position is reached by dropping what precedes it."""
    stream = PipeBytes(descriptor)
    position = position or {"offset": 0, "line": 1}
    stream.seek(position["offset"])
    return LineReader(stream, JsonDecoder(schema), "-", position["offset"], position["line"])


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
        data, final = stream.read(PIECE, 3600.0) or b"", False
        while data.count(b"\n") < rows and not final:
            more = stream.read(PIECE, 3600.0)
            data, final = data + (more or b""), not more
    finally:
        stream.close()
    if data.lstrip(b" \t\r\n").startswith(b"["):
        raise UserError(f"{path}: must hold one JSON object a line, got an array; unpack it first")
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
