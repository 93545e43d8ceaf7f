"""Messages to rows: what a format must give, and the columns that every message has.

A format reads the values alone. The record itself gives the columns `$key`, `$timestamp`,
`$header.NAME`, `$topic`, `$partition` and `$offset`, which a schema names as any other.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from streamlearn.block import I8, NO_TIME
from streamlearn.connectors.kafka.wire import Headers
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_columns import Column, Decoded, Misfits, decode_columns

HEADER = "$header."
RECORD_COLUMNS = ("$key", "$timestamp", "$topic", "$partition", "$offset")


class MessageDecoder(Protocol):
    """One format of message values."""

    def ready(self, values: Sequence[bytes]) -> int:
        """How many leading values can be decoded now, without waiting.

        Fewer than all only while a schema is asked for elsewhere: ask again later. Raises:
        UserError where it is refused for good.
        """

    def columns(self, values: Sequence[bytes]) -> tuple[dict[str, Column], Misfits]:
        """Values (n,) that are ready, none of them a tombstone, as columns of n entries each.

        Columns by name: a list of Python values (None is missing), an Arrow array or, of numbers
        alone, a float64 array (NaN is missing); a name may be absent. Misfits: by row, why a value
        could not be read; its entries are missing. A reason continues a sentence, as in "must be
        JSON: …". What a value gives may depend on nothing but itself. Cost: once for every message,
        so columns are made by comprehensions.
        """

    @property
    def connected(self) -> bool:
        """Whether the registry answered of late; True for a format without."""

    def close(self) -> None:
        """Release what is open; may be called twice."""


class Messages(NamedTuple):
    """Consecutive records of one partition, (n,) each, without tombstones; as in `wire.Fetched`."""

    topic: str
    number: int
    offsets: I8
    times: I8
    values: Sequence[bytes]
    keys: Sequence[bytes | None] | None
    headers: Sequence[Headers] | None


def value_names(wanted: Sequence[str]) -> list[str]:
    """The columns that values must give, of those that a schema wants."""
    return [name for name in wanted if not name.startswith("$")]


class MessageRows:
    """Messages to the rows of a schema, with the columns of the records themselves.

    `$key` and `$header.NAME` (the last of that name) are text in UTF-8, `$timestamp` is a time (as
    a feature of kind number: milliseconds since 1970), `$topic` is text, `$partition` and `$offset`
    are whole numbers.
    Raises: UserError for another name with a dollar.
    """

    def __init__(self, schema: Schema, decoder: MessageDecoder) -> None:
        self.schema, self.decoder = schema, decoder
        self._names = [name for name in schema.wanted() if name.startswith("$")]
        for name in self._names:
            if name not in RECORD_COLUMNS and not name.startswith(HEADER):
                raise UserError(
                    f"schema: there is no column {name!r} of a record; there are "
                    f"{', '.join(RECORD_COLUMNS)} and {HEADER}NAME"
                )
        self.keys = "$key" in self._names
        self.headers = any(name.startswith(HEADER) for name in self._names)
        self._check_time()

    def _check_time(self) -> None:
        schema, feature = self.schema, self.schema.features.get("$timestamp")
        self._milliseconds = feature is not None and feature.kind == "number"
        if self._milliseconds and "$timestamp" in (schema.time, schema.label_time):
            raise UserError(
                "schema: feature '$timestamp' is the time as well, so it must be of kind time; "
                "its part epoch is a number"
            )

    def decode(self, messages: Messages) -> tuple[Decoded, Misfits]:
        """The rows that fit and, by message, the reasons against those that do not."""
        columns, misfits = self.decoder.columns(messages.values)
        for name in self._names:
            columns[name], odd = self._column(name, messages)
            misfits = odd | misfits
        return decode_columns(self.schema, columns, len(messages.values), misfits)

    def _column(self, name: str, messages: Messages) -> tuple[Column, Misfits]:
        n = len(messages.values)
        if name == "$key":
            return _text(messages.keys or [None] * n, "key")
        if name.startswith(HEADER):
            wanted = name.removeprefix(HEADER)
            found = [dict(headers).get(wanted) for headers in messages.headers or [[]] * n]
            return _text(found, f"header {wanted!r}")
        if name == "$timestamp":
            return self._times(messages.times), {}
        if name == "$offset":
            return messages.offsets.tolist(), {}
        return [messages.topic if name == "$topic" else messages.number] * n, {}

    def _times(self, times: I8) -> Column:
        missing = times == NO_TIME
        if self._milliseconds:
            return np.where(missing, np.nan, times / 1e6)
        return pa.array(times, mask=missing).cast(pa.timestamp("ns"))


def _text(values: Sequence[bytes | None], what: str) -> tuple[list[str | None], Misfits]:
    """Bytes as text; by row, that they are none."""
    try:
        return [None if value is None else value.decode() for value in values], {}
    except UnicodeDecodeError:
        pass
    out: list[str | None] = []
    misfits: Misfits = {}
    for i, value in enumerate(values):
        try:
            out.append(None if value is None else value.decode())
        except UnicodeDecodeError:
            out.append(None)
            misfits[i] = f"{what} must be UTF-8"
    return out, misfits
