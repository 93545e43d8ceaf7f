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
        rename = {f"f{i}": name for i, name in enumerate(order)}
        self._record: Any = msgspec.defstruct("Record", slots, rename=rename, gc=False)
        self._typed = msgspec.json.Decoder(self._record)
        loose = [(f"f{i}", Any, None) for i in range(len(order))]
        plain: Any = msgspec.defstruct("Loose", loose, rename=rename, gc=False)
        self._loose = msgspec.json.Decoder(plain)
        self._slots = [attrgetter(f"f{i}") for i in range(len(order))]
        self._packer = msgspec.msgpack.Encoder()
        self._layout = self._packed_layout()

    def _packed_layout(self) -> np.dtype[Any]:
        """Where the numbers stand in a packed record of which all others are null."""
        k = len(self.numbers)
        packed = self._packer.encode(self._record(*(i + 0.5 for i in range(k))))
        at = [packed.index(struct.pack(">d", i + 0.5)) for i in range(k)]
        names = [f"f{i}" for i in range(k)]
        return np.dtype(
            {"names": names, "formats": [">f8"] * k, "offsets": at, "itemsize": len(packed)}
        )

    # -- many values -------------------------------------------------------------------------------

    def whole(self, values: Sequence[bytes]) -> dict[str, Column] | None:
        """All at once; None when one is no object, or has a value of another type."""
        try:
            records = list(map(self._typed.decode, values))
        except _ERRORS:
            return None
        return self._columns(records)

    def each(self, values: Sequence[bytes]) -> tuple[dict[str, Column], Misfits]:
        """The same, with what does not fit its type put in by value, and reasons by row.

        What a row gives depends on that row alone. Cost: as `whole`, and 10 us a row that is odd.
        """
        records: list[Any] = []
        odd: dict[int, list[Any]] = {}
        misfits: Misfits = {}
        for i, value in enumerate(values):
            try:
                records.append(self._typed.decode(value))
            except _ERRORS:
                records.append(self._record())
                try:
                    odd[i] = self.row(value)
                except Misfit as reason:
                    misfits[i] = str(reason)
        columns = self._columns(records)
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
        return [slot(record) for slot in self._slots]

    # -- records to columns ------------------------------------------------------------------------

    def _columns(self, records: list[Any]) -> dict[str, Column]:
        k = len(self.numbers)
        found: dict[str, Column] = {}
        for i, name in enumerate(self.others, start=k):
            found[name] = list(map(self._slots[i], records))
            deque(map(getattr(self._record, f"f{i}").__set__, records, repeat(None)), maxlen=0)
        table = self._packed(records) if k and records else None
        for i, name in enumerate(self.numbers):
            if table is not None:
                found[name] = table[f"f{i}"].astype(np.float64)
            else:
                found[name] = np.array(list(map(self._slots[i], records)), dtype=np.float64)
        return found

    def _packed(self, records: list[Any]) -> Any:
        """The records as a table of their numbers; None where one of them is null."""
        packed = self._packer.encode(records)
        start = len(packed) - len(records) * self._layout.itemsize
        n = len(records)
        if start != (1 if n < 16 else 3 if n < 65_536 else 5):
            return None
        return np.frombuffer(packed, self._layout, n, start)


def _json_type(schema: Schema, name: str) -> Any:
    kind = schema.features[name].kind if name in schema.features else None
    if kind in ("text", "words"):
        return Any
    number = schema.task == "regression" and name == schema.target
    return _NUMBER if kind == "number" or number or name == schema.weight else _SCALAR


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
