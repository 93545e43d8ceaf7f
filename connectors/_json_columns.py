"""JSON objects to columns: typed structs for what fits its type, Python's json for the rest.

Numbers leave the structs as MessagePack, in which a struct of numbers has a fixed width, so that
numpy reads them in place: 0.07 us for nine numbers, where a list of each takes 0.5 us.
"""

import json
import math
import struct
from collections import deque
from collections.abc import Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from streamlearn.schema import Schema
from streamlearn.schema_cells import Misfit
from streamlearn.schema_columns import Column, Misfits
from streamlearn.schema_text import ESCAPED

NEAR = 256  # records decoded at a time: 4,096 leave the cache before they are read again
_NUMBER = float | None
_SCALAR = str | int | float | bool | None
_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class JsonColumns:
    """How objects become columns of these names; what is absent or null is missing.

    Args:
        schema: gives the type of each column. names: the columns, of those it wants.
    """

    def __init__(self, schema: Schema, names: Sequence[str]) -> None:
        types = {name: _json_type(schema, name) for name in names}
        self.numbers = [name for name in names if types[name] is _NUMBER]
        self.others = [name for name in names if types[name] is not _NUMBER]
        order = self.numbers + self.others
        slots = [(f"f{i}", types[n], math.nan if types[n] is _NUMBER else None)
                 for i, n in enumerate(order)]  # fmt: skip
        rename = {f"f{i}": name for i, name in enumerate(order) if not set(name) & ESCAPED}
        self.record: Any = msgspec.defstruct("Record", slots, rename=rename, gc=False)
        self._typed: Any = msgspec.json.Decoder(self.record)
        loose = [(f"f{i}", Any, None) for i in range(len(order))]
        plain: Any = msgspec.defstruct("Loose", loose, rename=rename, gc=False)
        self._loose: Any = msgspec.json.Decoder(plain)
        if len(rename) < len(order):  # a struct cannot have such a name: Python's json reads all
            self._typed = self._loose = _Refusing()
        self.slots = [attrgetter(f"f{i}") for i in range(len(order))]
        self.packer = msgspec.msgpack.Encoder()
        self.layout = self._packed_layout()

    def _packed_layout(self) -> np.dtype[Any]:
        """Where the numbers stand in a packed record of which all others are null."""
        k = len(self.numbers)
        packed = self.packer.encode(self.record(*(i + 0.5 for i in range(k))))
        at = [packed.index(struct.pack(">d", i + 0.5)) for i in range(k)]
        names = [f"f{i}" for i in range(k)]
        return np.dtype(
            {"names": names, "formats": [">f8"] * k, "offsets": at, "itemsize": len(packed)}
        )

    # -- many values -------------------------------------------------------------------------------

    def whole(self, values: Sequence[bytes]) -> dict[str, Column] | None:
        """All at once; None when one is no object, or has a value of another type."""
        table = _Table(self)
        decode = self._typed.decode
        try:
            for start in range(0, len(values), NEAR):
                table.add(list(map(decode, values[start : start + NEAR])))
        except _ERRORS:
            return None
        return table.columns()

    def each(self, values: Sequence[bytes]) -> tuple[dict[str, Column], Misfits]:
        """The same, with what does not fit its type put in by value, and reasons by row.

        What a row gives depends on that row alone. Cost: as `whole`, and 10 us a row that is odd.
        """
        table = _Table(self)
        odd: dict[int, list[Any]] = {}
        misfits: Misfits = {}
        for start in range(0, len(values), NEAR):
            records = []
            for i, value in enumerate(values[start : start + NEAR], start=start):
                try:
                    records.append(self._typed.decode(value))
                except _ERRORS:
                    records.append(self.record())
                    try:
                        odd[i] = self.row(value)
                    except Misfit as reason:
                        misfits[i] = str(reason)
            table.add(records)
        columns = table.columns()
        for j, name in enumerate(self.numbers + self.others):
            columns[name] = _patched(columns[name], {i: row[j] for i, row in odd.items()})
        return columns, misfits

    def row(self, value: bytes) -> list[Any]:
        """The values of one object, numbers first; NaN and Infinity, which are no JSON, are read.

        Raises: Misfit for what is no object.
        """
        try:
            record = self._loose.decode(value)
        except _ERRORS:
            table = loose_object(value)
            return [table.get(name) for name in self.numbers + self.others]
        return [slot(record) for slot in self.slots]


class _Refusing:
    """A decoder that takes no object."""

    def decode(self, value: bytes) -> Any:
        """Leave it to others."""
        raise msgspec.ValidationError


class _Table:
    """Columns in the making. Records come a few at a time, while they are still in the cache."""

    def __init__(self, of: JsonColumns) -> None:
        self._of, k = of, len(of.numbers)
        self._others: list[list[Any]] = [[] for _ in of.others]
        self._readers = of.slots[k:]
        self._writers = [getattr(of.record, f"f{k + j}").__set__ for j in range(len(of.others))]
        self._packed: list[Any] = []  # records of numbers alone, all of one width

    def add(self, records: list[Any]) -> None:
        """Take the values of these records; they are of no use any more."""
        for values, read, write in zip(self._others, self._readers, self._writers, strict=True):
            values.extend(map(read, records))
            deque(map(write, records, repeat(None)), maxlen=0)
        if self._of.numbers:
            self._packed.append(self._numbers(records))

    def _numbers(self, records: list[Any]) -> Any:
        """Their numbers as MessagePack has them, the header of the list left out."""
        layout, n = self._of.layout, len(records)
        packed = self._of.packer.encode(records)
        start = len(packed) - n * layout.itemsize
        if start == (1 if n < 16 else 3):
            return memoryview(packed)[start:]
        table = np.zeros(n, layout)  # one of them is null, and so shorter
        for name, read in zip(layout.names or (), self._of.slots, strict=False):
            table[name] = np.array(list(map(read, records)), dtype=np.float64)
        return table.tobytes()

    def columns(self) -> dict[str, Column]:
        """All that were added."""
        found: dict[str, Column] = dict(zip(self._of.others, self._others, strict=True))
        table = np.frombuffer(b"".join(self._packed), self._of.layout)
        for i, name in enumerate(self._of.numbers):
            found[name] = table[f"f{i}"].astype(np.float64)
        return found


def _json_type(schema: Schema, name: str) -> Any:
    kind = schema.features[name].kind if name in schema.features else None
    if kind in ("text", "words"):
        return Any
    return _NUMBER if schema.is_number(name) else _SCALAR


def _patched(column: Column, values: dict[int, Any]) -> Column:
    """A column with values put in; numbers stay an array where all of these are numbers."""
    given = {i: value for i, value in values.items() if value is not None}
    if isinstance(column, np.ndarray) and not all(type(v) is float for v in given.values()):
        column = column.tolist()
    for i, value in given.items():
        column[i] = value
    return column


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
