"""Avro messages, by fastavro.

The fields of the record are columns under their own names. Times are read by their logical type
where the stream's schema wants a time, and are plain numbers elsewhere; decimals are exact; enums
and UUIDs are text. A schema that holds itself is refused: a message of it that is nested 5,000 deep
ends the process inside fastavro's compiled code, and no message may do that.
"""

import json
import struct
from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import Any

from fastavro import parse_schema, schemaless_reader
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException, UnknownType

from streamlearn.connectors.kafka.decode import value_names
from streamlearn.connectors.kafka.location import Format
from streamlearn.connectors.kafka.schemas import BadSchema, Columns, Registered, stamps, timed
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_columns import Misfits

_DAY = 86_400 * 10**9
_FACTORS = {  # logical type -> nanoseconds
    "timestamp-millis": 10**6, "timestamp-micros": 10**3, "timestamp-nanos": 1, "date": _DAY,
    "local-timestamp-millis": 10**6, "local-timestamp-micros": 10**3, "local-timestamp-nanos": 1,
}  # fmt: skip
_UNREADABLE = (  # what fastavro raises for bytes that are no record of the schema
    EOFError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError, struct.error,
    SchemaResolutionError,
)  # fmt: skip


class AvroReading:
    """Reads the messages of one record schema.

    text: the schema as JSON. references: named types that it needs, in order. reader: another
    schema, with the fields that are wanted; those that a message lacks get their default, and a
    field may be found by its aliases.
    Raises: BadSchema. Cost: 5 to 8 us a message of 10 fields, nearly all of it fastavro's.
    """

    def __init__(
        self,
        text: str,
        schema: Schema,
        references: Sequence[tuple[str, str]] = (),
        reader: str | None = None,
    ) -> None:
        parsed, self._schema = _plain(text, references)
        self._reader = None
        fields = _types(parsed)
        if reader is not None:
            wanted, self._reader = _plain(reader, ())
            fields, written = _types(wanted), fields
            _check_units(written, fields)
        self._names = [name for name in value_names(schema.wanted()) if name in fields]
        factors = {name: _factor(fields[name]) for name in timed(schema) if name in fields}
        self._factors = {name: factor for name, factor in factors.items() if factor is not None}
        self._nothing: dict[str, Any] = dict.fromkeys(fields)
        self._owner = "its schema" if reader is None else "its schema, read by another"

    def columns(self, bodies: Sequence[bytes]) -> tuple[Columns, Misfits]:
        """As `MessageDecoder.columns`."""
        misfits: Misfits = {}
        records = self._whole(bodies)
        if records is None:
            records = [self._record(body, row, misfits) for row, body in enumerate(bodies)]
        columns: Columns = {}
        for name in self._names:
            values = list(map(itemgetter(name), records))
            if name in self._factors:
                columns[name] = stamps(values, self._factors[name], name, misfits)
            else:
                columns[name] = values
        return columns, misfits

    def _whole(self, bodies: Sequence[bytes]) -> list[dict[str, Any]] | None:
        """All records by one buffer; None when one does not end where its message does."""
        data, schema, reader = BytesIO(b"".join(bodies)), self._schema, self._reader
        tell = data.tell
        try:
            read = [(schemaless_reader(data, schema, reader), tell()) for _ in bodies]
        except _UNREADABLE:
            return None
        ends = accumulate(map(len, bodies))
        if any(end != stop for (_, end), stop in zip(read, ends, strict=True)):
            return None
        return [record for record, _ in read]  # type: ignore[misc]

    def _record(self, body: bytes, row: int, misfits: Misfits) -> dict[str, Any]:
        data = BytesIO(body)
        try:
            record: Any = schemaless_reader(data, self._schema, self._reader)
        except _UNREADABLE as error:
            misfits[row] = f"must be Avro of {self._owner}: {_why(error)}"
            return self._nothing
        left = len(body) - data.tell()
        if left:
            misfits[row] = f"must be Avro of {self._owner}: {left} bytes are left over"
            return self._nothing
        return record  # type: ignore[no-any-return]


def _why(error: Exception) -> str:
    if isinstance(error, (EOFError, struct.error)):
        return "it ends too early"
    if isinstance(error, UnicodeDecodeError):
        return "text must be UTF-8"
    if isinstance(error, SchemaResolutionError):
        return f"{error}"
    if isinstance(error, LookupError):
        return "it has a branch or a symbol that is not there"
    return "it has a value out of range"


def _parsed(
    text: str, references: Sequence[tuple[str, str]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A record schema and all named types of it."""
    named: dict[str, Any] = {}
    try:
        for _, needed in references:
            parse_schema(json.loads(needed), named_schemas=named)
        parsed: Any = parse_schema(json.loads(text), named_schemas=named)
    except json.JSONDecodeError as error:
        raise BadSchema(f"must be JSON: {error}") from None
    except UnknownType as error:
        raise BadSchema(f"must define the type {error.name!r} that it uses") from None
    except (SchemaParseException, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadSchema(f"must be an Avro schema: {error}") from None
    if isinstance(parsed, str):
        parsed = named.get(parsed, parsed)
    if not isinstance(parsed, dict) or parsed.get("type") != "record":
        raise BadSchema("must be a record with the columns as its fields")
    return parsed, named


def _plain(text: str, references: Sequence[tuple[str, str]]) -> tuple[dict[str, Any], Any]:
    """A record schema as it stands, and as messages are read by it."""
    parsed, named = _parsed(text, references)
    try:
        return parsed, parse_schema(_Plain(named).record(parsed))
    except RecursionError:
        raise BadSchema("must not be nested so deeply") from None


def _types(record: dict[str, Any]) -> dict[str, Any]:
    return {field["name"]: field["type"] for field in record["fields"]}


def _check_units(written: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Resolution takes a time's number as it is, so both sides must count the same."""
    for name in written.keys() & wanted.keys():
        sides = {_factor(written[name]), _factor(wanted[name])} - {None}
        if len(sides) > 1:
            raise BadSchema(f"must count {name!r} in the units of the reader's schema")


def _factor(kind: Any) -> int | None:
    """Nanoseconds of one unit of a time, alone or beside null; None for what is none."""
    if isinstance(kind, list):
        others = [branch for branch in kind if branch != "null"]
        return _factor(others[0]) if len(others) == 1 else None
    return _FACTORS.get(kind.get("logicalType", "")) if isinstance(kind, dict) else None


class _Plain:
    """A schema without logical types but decimals, and with every name defined where it is first
    used; BadSchema for what must not be read."""

    def __init__(self, named: dict[str, Any]) -> None:
        self._named = named
        self._open: list[str] = []
        self._done: set[str] = set()
        self._empty: set[str] = set()  # names of types that take no bytes

    def record(self, schema: Any) -> Any:
        """A record with its fields."""
        name = schema["name"]
        if name in self._done:
            return name
        self._open.append(name)
        fields = [
            {key: f[key] for key in ("name", "aliases", "default") if key in f}
            | {"type": self.of(f["type"])}
            for f in schema["fields"]
        ]
        self._open.pop()
        self._done.add(name)
        if all(self._takes_nothing(field["type"]) for field in fields):
            self._empty.add(name)
        kept = {"type": "record", "name": name, "fields": fields}
        return kept | ({"aliases": schema["aliases"]} if "aliases" in schema else {})

    def of(self, schema: Any) -> Any:
        """Any schema."""
        if isinstance(schema, list):
            lone = len([branch for branch in schema if branch != "null"]) == 1
            return [self.of(branch) if lone else self._branch(branch) for branch in schema]
        if isinstance(schema, str):
            return self._name(schema)
        kind = schema["type"]
        if kind in ("record", "error"):
            return self._once(schema["name"]) or self.record(schema)
        if kind in ("enum", "fixed"):
            return self._leaf(schema)
        if kind == "array":
            return {"type": "array", "items": self._items(schema["items"])}
        if kind == "map":
            return {"type": "map", "values": self.of(schema["values"])}
        if schema.get("logicalType") == "decimal":
            return schema
        return self.of(kind)

    def _branch(self, schema: Any) -> Any:
        """One of several types: a time there cannot be told by the column, so it stays a time."""
        logical = schema.get("logicalType") if isinstance(schema, dict) else None
        return schema if logical in _FACTORS else self.of(schema)

    def _name(self, name: str) -> Any:
        if name not in self._named:
            return name
        return self._once(name) or self.of(self._named[name])

    def _once(self, name: str) -> str | None:
        """The name of a type that was defined before."""
        if name in self._open:
            raise BadSchema(f"must not hold itself, as its type {name!r} does")
        return name if name in self._done else None

    def _leaf(self, schema: dict[str, Any]) -> Any:
        name = schema["name"]
        if name in self._done:
            return name
        self._done.add(name)
        if schema.get("size") == 0:
            self._empty.add(name)
        kept = ["type", "name", "symbols", "size", "aliases", "default"]
        if schema.get("logicalType") == "decimal":
            kept += ["logicalType", "precision", "scale"]
        return {key: schema[key] for key in kept if key in schema}

    def _items(self, schema: Any) -> Any:
        items = self.of(schema)
        if self._takes_nothing(items):
            raise BadSchema("must not have an array of what takes no bytes: it has any length")
        return items

    def _takes_nothing(self, schema: Any) -> bool:
        name = schema.get("name") if isinstance(schema, dict) else schema
        return name == "null" or name in self._empty if isinstance(name, str) else False


def declared(form: Format, schema: Schema) -> AvroReading:
    """The reading of a schema file. Raises: UserError."""
    if form.schema_file is None:
        raise UserError("format: avro needs schema, an .avsc file, or kafka.registry")
    try:
        return AvroReading(_text(form.schema_file), schema)
    except BadSchema as reason:
        raise UserError(f"{form.schema_file}: {reason}") from None


def registered(form: Format, schema: Schema) -> Callable[[Registered], AvroReading]:
    """What makes a registry's schema a reading, or raises BadSchema. Raises: UserError."""
    reader = None
    if form.schema_file is not None:
        declared(form, schema)  # it must be right by itself
        reader = _text(form.schema_file)

    def compiled(found: Registered) -> AvroReading:
        if found.kind != "AVRO":
            raise BadSchema(f"must be AVRO, is {found.kind}")
        return AvroReading(found.text, schema, found.references, reader)

    return compiled


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: must be UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
