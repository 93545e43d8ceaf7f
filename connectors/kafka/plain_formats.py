"""Formats without a schema of their own: JSON objects, CSV records, raw arrays of numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from streamlearn.block import F8
from streamlearn.connectors._json_columns import JsonColumns
from streamlearn.connectors.csv_files import CsvDecoder
from streamlearn.connectors.kafka.decode import value_names
from streamlearn.errors import UserError
from streamlearn.schema import Schema, among
from streamlearn.schema_cells import Misfit
from streamlearn.schema_columns import Column, Misfits
from streamlearn.schema_text import TextColumns


class _AtOnce:
    """A format that needs nothing but the message."""

    connected = True

    def ready(self, values: Sequence[bytes]) -> int:
        """All of them."""
        return len(values)

    def close(self) -> None:
        """Nothing is open."""


class JsonMessages(_AtOnce):
    """One JSON object a message; keys that the schema does not name are not read.

    An absent key and null are missing. Cost: 0.4 us for eight numbers in 200 bytes by the kernels,
    which take numbers, categories and classes where hundreds of messages wait; else 0.6.
    """

    def __init__(self, schema: Schema) -> None:
        names = value_names(schema.wanted())
        self._columns = JsonColumns(schema, names)
        self._kernels = TextColumns(schema, names)

    def columns(self, values: Sequence[bytes]) -> tuple[dict[str, Column], Misfits]:
        """As `MessageDecoder.columns`."""
        plain = self._plain(values) if self._kernels.able else None
        if plain is not None:
            return plain, {}
        found = self._columns.whole(values)
        return (found, {}) if found is not None else self._columns.each(values)

    def _plain(self, values: Sequence[bytes]) -> dict[str, Column] | None:
        """All at once by the kernels, where each is an object on a line of its own."""
        data = b"\n".join(values) + b"\n"
        if data.count(b"\n") != len(values):
            return None
        table = self._kernels.json_table(data)
        return table.columns if table is not None and table.n == len(values) else None


class CsvMessages(_AtOnce):
    """One record a message, RFC 4180 with commas; a line end behind it is no part of it.

    Args:
        columns: the name of each field, in order.
    Raises: UserError where columns are not named, or one that the schema wants is not among them.
    Cost: 0.3 us a record by the kernels, as of JSON, else 0.5; 10 us where a message of the same
        fetch is unusual.
    """

    def __init__(self, schema: Schema, columns: Sequence[str]) -> None:
        _check_columns(schema, columns, "csv")
        self._names = value_names(schema.wanted())
        self._decoder = CsvDecoder(schema, columns, ",", self._names)

    def columns(self, values: Sequence[bytes]) -> tuple[dict[str, Column], Misfits]:
        """As `MessageDecoder.columns`."""
        found = self._whole(values)
        return (found, {}) if found is not None else self._each(values)

    def _whole(self, values: Sequence[bytes]) -> dict[str, Column] | None:
        data = b"\n".join(values) + b"\n"
        if data.count(b"\n") != len(values) or b"\r" in data:
            return None
        plain = self._decoder.plain(data)
        if plain is not None and plain.n == len(values):
            return plain.columns
        table = self._decoder.table(data)
        if table is None or table.num_rows != len(values):
            return None
        found = {name: table.column(name).combine_chunks() for name in self._names}
        for column in found.values():  # the words of its refusal show the text, which is gone here
            if pa.types.is_float64(column.type) and np.isinf(column.to_numpy(False)).any():
                return None
        return found

    def _each(self, values: Sequence[bytes]) -> tuple[dict[str, Column], Misfits]:
        misfits: Misfits = {}
        records: list[dict[str, str]] = []
        for i, value in enumerate(values):
            try:
                records.append(self._decoder.record(value))
            except Misfit as reason:
                misfits[i] = str(reason)
                records.append({})
        return {name: [record.get(name) for record in records] for name in self._names}, misfits


class FloatMessages(_AtOnce):
    """One row of numbers a message: float32 or float64, little-endian; NaN is missing.

    Args:
        kind: float32 or float64. columns: the name of each number, in order; none are the columns
            that the schema wants, as it names them.
    Cost: 0.1 us a message of eight numbers.
    """

    def __init__(self, schema: Schema, kind: str, columns: Sequence[str] = ()) -> None:
        wanted = value_names(schema.wanted())
        self._columns = list(columns) or wanted
        _check_columns(schema, self._columns, kind)
        self._type = np.dtype(kind).newbyteorder("<")
        self._numbers = {name for name in wanted if schema.is_number(name)}

    def columns(self, values: Sequence[bytes]) -> tuple[dict[str, Column], Misfits]:
        """As `MessageDecoder.columns`."""
        width = len(self._columns) * self._type.itemsize
        misfits = {
            i: f"must be {width} bytes ({len(self._columns)} numbers), got {len(value)}"
            for i, value in enumerate(values)
            if len(value) != width
        }
        if misfits:
            blank = np.full(len(self._columns), np.nan, self._type).tobytes()
            values = [blank if i in misfits else value for i, value in enumerate(values)]
        table = np.frombuffer(b"".join(values), self._type).reshape(len(values), -1)
        table = table.astype(np.float64)
        found = {name: self._column(name, table[:, i]) for i, name in enumerate(self._columns)}
        return found, misfits

    def _column(self, name: str, numbers: F8) -> Any:
        return numbers if name in self._numbers else numbers.tolist()


def _check_columns(schema: Schema, columns: Sequence[str], kind: str) -> None:
    """Refuse a format that does not say what its fields are."""
    if not columns:
        raise UserError(f"format: {kind} needs the names of its fields; give columns: [a, b, …]")
    if len(set(columns)) < len(columns):
        raise UserError(f"format: columns must differ from each other, got {', '.join(columns)}")
    for name in value_names(schema.wanted()):
        if name not in columns:
            raise UserError(f"format: columns must hold {name!r} of the schema; {among(columns)}")
