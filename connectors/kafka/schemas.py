"""Messages of Avro and Protobuf: of one schema, or of those that a registry knows by number.

A registry's messages begin with byte 0 and the number of their schema, four bytes, big-endian.
"""

import importlib
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from streamlearn.connectors.kafka.location import Format, RegistryAddress
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_columns import Column, Misfits

if TYPE_CHECKING:
    from streamlearn.connectors.kafka.registry import Registry

Columns = dict[str, Column]
K = TypeVar("K", bound=Hashable)
HEAD = 5  # bytes before the body of a registry's message
_LEAST, _MOST = -(2**63) + 1, 2**63 - 1


class Registered(NamedTuple):
    """A schema as a registry has it.

    kind: AVRO, PROTOBUF or JSON. references: (name, text), each after those that it needs itself.
    """

    kind: str
    text: str
    references: tuple[tuple[str, str], ...] = ()


class BadSchema(ValueError):
    """A schema that cannot be read; the text continues its name."""


class Reading(Protocol):
    """Reads the messages of one schema."""

    def columns(self, bodies: Sequence[bytes]) -> tuple[Columns, Misfits]:
        """As `MessageDecoder.columns`."""


class OneSchema:
    """Messages that all have one schema."""

    connected = True

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def ready(self, values: Sequence[bytes]) -> int:
        """All: nothing has to be asked for."""
        return len(values)

    def columns(self, values: Sequence[bytes]) -> tuple[Columns, Misfits]:
        """As `MessageDecoder` says; of a value that cannot be read, a hint at a registry."""
        columns, misfits = self._reading.columns(values)
        for row, reason in misfits.items():
            if len(values[row]) > HEAD and values[row][0] == 0:
                number = _number(values[row])
                misfits[row] = f"{reason} (or it is of a registry, where its schema is {number})"
        return columns, misfits

    def close(self) -> None:
        """Nothing is open."""


class RegistryMessages:
    """Messages that begin with the number of their schema.

    compiled: the reader of a schema, or BadSchema.
    """

    def __init__(self, registry: "Registry", compiled: Callable[[Registered], Reading]) -> None:
        self._registry, self._compiled = registry, compiled
        self._readings: dict[bytes, Reading | str] = {}

    def ready(self, values: Sequence[bytes]) -> int:
        """How many leading values have schemas that are known, or known to be unknown."""
        absent = {value[:HEAD] for value in values} - self._readings.keys()
        waiting = {head for head in absent if not self._settled(head)}
        if not waiting:
            return len(values)
        return next(i for i, value in enumerate(values) if value[:HEAD] in waiting)

    def _settled(self, head: bytes) -> bool:
        """Ask for the schema of one head; whether there is a verdict."""
        if len(head) < HEAD or head[0] != 0:
            reason = f"must begin with byte 0 and the number of a schema, got {head!r}"
            self._readings[head] = reason
            return True
        number = _number(head)
        found = self._registry.known(number)
        if found is None:
            return False
        if not isinstance(found, str):
            try:
                self._readings[head] = self._compiled(found)
                return True
            except BadSchema as reason:
                found = f"schema {number} of the registry {reason}"
        self._readings[head] = found
        return True

    def columns(self, values: Sequence[bytes]) -> tuple[Columns, Misfits]:
        """As `MessageDecoder` says."""
        heads = [value[:HEAD] for value in values]
        bodies = [value[HEAD:] for value in values]
        return grouped(heads, bodies, self._read)

    def _read(self, head: bytes, bodies: Sequence[bytes]) -> tuple[Columns, Misfits]:
        reading = self._readings[head]
        if isinstance(reading, str):
            return {}, dict.fromkeys(range(len(bodies)), reading)
        return reading.columns(bodies)

    @property
    def connected(self) -> bool:
        """Whether the registry answered of late."""
        return self._registry.connected

    def close(self) -> None:
        """Ask no more."""
        self._registry.close()


def _number(head: bytes) -> int:
    return int.from_bytes(head[1:HEAD], "big")


def grouped(
    keys: Sequence[K],
    bodies: Sequence[bytes],
    read: Callable[[K, Sequence[bytes]], tuple[Columns, Misfits]],
) -> tuple[Columns, Misfits]:
    """What `read` gives for the bodies of each key, in the order of all bodies."""
    distinct = dict.fromkeys(keys)
    if len(distinct) == 1:
        return read(keys[0], bodies)
    n = len(keys)
    columns: dict[str, list[Any]] = {}
    misfits: Misfits = {}
    for key in distinct:
        rows = [i for i, other in enumerate(keys) if other == key]
        found, reasons = read(key, [bodies[i] for i in rows])
        misfits.update((rows[i], reason) for i, reason in reasons.items())
        for name, column in found.items():
            whole = columns.setdefault(name, [None] * n)
            for row, value in zip(rows, _listed(column), strict=True):
                whole[row] = value
    return dict(columns), misfits


def _listed(column: Column) -> list[Any]:
    """A column as Python values; times keep their nanoseconds."""
    if isinstance(column, pa.Array):
        return list(column.to_numpy(zero_copy_only=False).astype("datetime64[ns]"))
    return list(column) if isinstance(column, np.ndarray) else column


def timed(schema: Schema) -> set[str]:
    """The columns that a schema reads as times."""
    names = {name for name, feature in schema.features.items() if feature.kind == "time"}
    roles = schema.roles()
    return names | {roles[role] for role in ("time", "label_time") if role in roles}


def stamps(values: Sequence[int | None], factor: int, name: str, misfits: Misfits) -> pa.Array:
    """Whole numbers of `factor` ns since 1970 as a column of times; what does not fit is noted."""
    scaled = [None if value is None else value * factor for value in values]
    try:
        return pa.array(scaled, pa.timestamp("ns"))
    except (OverflowError, pa.ArrowInvalid):
        for row, value in enumerate(scaled):
            if value is not None and not _LEAST <= value <= _MOST:
                rule = "must lie between the years 1678 and 2261"
                misfits.setdefault(row, f"{name!r} {rule}, got {values[row]}")
                scaled[row] = None
        return pa.array(scaled, pa.timestamp("ns"))


def schema_decoder(
    form: Format, schema: Schema, registry: RegistryAddress | None = None
) -> "OneSchema | RegistryMessages":
    """The decoder of a format avro or protobuf.

    A Protobuf message of a descriptor set needs no registry, whether there is one or not.
    Raises: UserError for a schema that is not there or cannot be read, and without the packages.
    """
    if form.descriptors is not None:
        registry = None
    try:
        return _decoder(form, schema, registry)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("streamlearn"):
            raise
        raise UserError(
            f"format: {form.name} needs the package {error.name!r}; "
            f"pip install 'streamlearn[{'formats' if registry is None else 'registry'}]'"
        ) from None


def _decoder(
    form: Format, schema: Schema, address: RegistryAddress | None
) -> "OneSchema | RegistryMessages":
    module = importlib.import_module(f"streamlearn.connectors.kafka.{form.name}")
    if address is None:
        return OneSchema(module.declared(form, schema))
    from streamlearn.connectors.kafka.registry import Registry

    compiled = module.registered(form, schema)
    registry = Registry(address.url, address.options, serialized=form.name == "protobuf")
    return RegistryMessages(registry, compiled)
