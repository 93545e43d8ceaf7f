"""Rows of an output as messages: the same bytes for a row however the stream is cut into blocks."""

import functools
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
import numpy as np

if TYPE_CHECKING:
    from streamlearn.connectors.kafka.outputs import Outputs

Column = Sequence[Any]  # plain Python values; what is missing is None or NaN


class Probabilities(NamedTuple):
    """The probability of each class. labels: the classes; columns: of each, (n,) floats."""

    labels: tuple[Any, ...]
    columns: list[list[float]]


class Table(NamedTuple):
    """Rows of an output, by column, in the order in which a message shows them.

    columns: a column of n values, one value that all rows share, or `Probabilities`.
    """

    n: int
    columns: Mapping[str, Any]


class Shared(NamedTuple):
    """One value that all rows have."""

    value: Any


class Encoder(Protocol):
    """Makes messages of rows."""

    def encode(self, table: Table) -> list[bytes]:
        """One message a row."""


class JsonRows:
    """Each row as a JSON object. NaN and infinity are null; a class is named as text.

    Cost: 0.1 us a row and column, by msgspec structs that are made for the columns at hand.
    """

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder(enc_hook=str)

    def encode(self, table: Table) -> list[bytes]:
        """One message a row."""
        row = _struct(tuple(table.columns))
        columns = [_column(column) for column in table.columns.values()]
        encode = self._encoder.encode
        if not columns:
            return [b"{}"] * table.n
        try:
            return [encode(made) for made in _rows(row, columns, table.n)]
        except UnicodeEncodeError:  # half a surrogate pair in a text
            columns = [_whole_text(column) for column in columns]
            return [encode(made) for made in _rows(row, columns, table.n)]


def encoder_of(format: str, outputs: "Outputs", topic: str) -> Encoder:
    """The encoder of a format of an output's topic. Raises: UserError of a registry."""
    if format == "avro":
        from streamlearn.connectors.kafka.encode_avro import registered_rows

        return registered_rows(outputs.registry, topic)
    return JsonRows()


def _rows(row: type[Any], columns: list[Any], n: int) -> Any:
    shared = all(isinstance(column, repeat) for column in columns)
    return [row(*map(next, columns)) for _ in range(n)] if shared else map(row, *columns)


def _column(column: Any) -> Any:
    """A column as something to go through: msgspec writes NaN as null by itself."""
    if isinstance(column, Shared):
        return repeat(column.value)
    if isinstance(column, Probabilities):
        return _probabilities(column) if column.columns else repeat({})
    return column


def _probabilities(given: Probabilities) -> list[Any]:
    names = tuple(map(str, given.labels))
    try:
        return list(map(_struct(names), *given.columns))
    except (ValueError, UnicodeEncodeError):  # a name that needs escapes, or is there twice
        names = tuple(_plain(name) for name in names)
        return [dict(zip(names, row, strict=True)) for row in zip(*given.columns, strict=True)]


def _whole_text(column: Any) -> Any:
    if isinstance(column, repeat):
        return column
    return [_plain(value) for value in column]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "backslashreplace").decode()


@functools.lru_cache(maxsize=256)
def _struct(names: tuple[str, ...]) -> type[Any]:
    """A struct whose JSON has these keys, in this order."""
    fields = [f"f{k}" for k in range(len(names))]
    keys = dict(zip(fields, names, strict=True))
    return msgspec.defstruct("Row", fields, rename=keys, gc=False)


def floats(values: Any) -> list[Any]:
    """A column of floats as plain values, infinities as NaN."""
    if np.isinf(values).any():
        values = np.where(np.isinf(values), np.nan, values)
    listed: list[Any] = values.tolist()
    return listed
