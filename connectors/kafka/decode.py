"""Messages to rows: what a format must give, and the columns that every message has.

A format reads the values alone. The record itself gives the columns `$key`, `$timestamp`,
`$header.NAME`, `$topic`, `$partition` and `$offset`, which a schema names as any other.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from streamlearn.block import I8
from streamlearn.connectors.kafka.wire import Headers
from streamlearn.schema_columns import Column, Misfits


class NotYet(Exception):
    """What is needed to read these values is away (a schema registry): ask again later."""


class Read(NamedTuple):
    """Values that were read, as columns.

    columns: by name, for the values without a misfit alone, in their order: a list of Python values
    (None is missing), a float64 array (NaN is missing) or an Arrow array. A name may be absent.
    misfits: by place among the values that were given, the reason why one could not be read.
    """

    columns: dict[str, Column]
    misfits: Misfits


class MessageDecoder(Protocol):
    """One format of message values."""

    def read(self, values: Sequence[bytes]) -> Read:
        """Values (n,), none of them a tombstone, as columns. A poisoned value is a misfit.

        A reason continues a sentence, as in "must be JSON: …". The answer may depend on the value
        alone, never on its neighbours. Raises: NotYet where all must be asked for again later.
        """


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


Options = dict[str, Any]  # of a format, as the configuration has them
