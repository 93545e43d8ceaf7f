"""Messages to rows: what a format must give, and the columns that every message has.

A format reads the values alone. The record itself gives the columns `$key`, `$timestamp`,
`$header.NAME`, `$topic`, `$partition` and `$offset`, which a schema names as any other.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from streamlearn.block import I8
from streamlearn.connectors.kafka.wire import Headers
from streamlearn.schema_columns import Column, Misfits

Options = dict[str, Any]  # of a format, as the configuration has them


class MessageDecoder(Protocol):
    """One format of message values."""

    def ready(self, values: Sequence[bytes]) -> int:
        """How many leading values can be decoded now, without waiting.

        Fewer than all only while a schema is asked for elsewhere: ask again later. Raises:
        UserError where it is refused for good.
        """

    def columns(self, values: Sequence[bytes]) -> tuple[dict[str, Column], Misfits]:
        """Values (n,) that are ready, none of them a tombstone, as columns of n entries each.

        Columns by name: a list of Python values (None is missing), a float64 array (NaN is missing)
        or an Arrow array; a name may be absent. Misfits: by row, why a value could not be read; its
        entries are missing. A reason continues a sentence, as in "must be JSON: …". What a value
        gives may depend on nothing but itself. Cost: once for every message, so columns are made by
        comprehensions.
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
