"""Answers as Avro messages, all of one schema, whatever the pipeline answers.

With a registry a message begins with byte 0 and the number of the schema there; without one it is
the bare record, and a reader needs `PREDICTION`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from streamlearn.connectors.kafka.encode import Probabilities, Shared, Table
from streamlearn.connectors.kafka.location import RegistryAddress

_NAMESPACE = "streamlearn"
_TIME = {"type": "long", "logicalType": "timestamp-millis"}
_ENDS = {
    "type": "record",
    "name": "Interval",
    "fields": [{"name": "low", "type": "double"}, {"name": "high", "type": "double"}],
}


def _field(name: str, *kinds: Any) -> dict[str, Any]:
    return {"name": name, "type": ["null", *kinds], "default": None}


PREDICTION: Mapping[str, Any] = {
    "type": "record",
    "namespace": _NAMESPACE,
    "name": "Prediction",
    "fields": [
        {"name": "event", "type": "long"},
        _field("id", "long", "string"),
        _field("prediction", "double", "string", "long", "boolean"),
        _field("probabilities", {"type": "map", "values": "double"}),
        _field("set", {"type": "array", "items": "string"}),
        _field("interval", _ENDS),
        _field("score", "double"),
        _field("model", "string"),
        _field("topic", "string"),
        _field("partition", "long"),
        _field("offset", "long"),
        _field("time", _TIME),
    ],
}
_ABSENT = b"\0"  # branch 0, null
_LONGS = -(2**63), 2**63 - 1
Pieces = Sequence[bytes]


class AvroRows:
    """Each row as a record of `PREDICTION`; what has no answer is null.

    prefix: bytes before each record. Cost: 3 us a row.
    """

    def __init__(self, prefix: bytes = b"") -> None:
        self._prefix = prefix

    def encode(self, table: Table) -> list[bytes]:
        """One message a row."""
        pieces: list[Any] = [repeat(self._prefix, table.n)]
        for field in PREDICTION["fields"]:
            name = field["name"]
            column = table.columns.get(name)
            if column is None:
                pieces.append(repeat(_ABSENT, table.n))
            elif isinstance(column, Shared):
                pieces.append(repeat(_WAYS[name]([column.value])[0], table.n))
            elif isinstance(column, Probabilities) and not column.columns:
                pieces.append(repeat(b"\x02\0", table.n))  # a map without entries
            else:
                pieces.append(_WAYS[name](column))
        return list(map(b"".join, zip(*pieces, strict=True)))


def registered_rows(registry: RegistryAddress | None, topic: str) -> AvroRows:
    """An encoder for a topic, whose schema is registered under `<topic>-value`.

    Raises: UserError where the registry refuses it, or does not answer within 10 s.
    """
    if registry is None:
        return AvroRows()
    from streamlearn.connectors.kafka.registry import Registry

    asked = Registry(registry.url, registry.options)
    try:
        number = asked.register(f"{topic}-value", json.dumps(PREDICTION))
    finally:
        asked.close()
    return AvroRows(b"\0" + number.to_bytes(4, "big"))


# -- pieces of columns -----------------------------------------------------------------------------


def _varints(values: Sequence[int]) -> list[bytes]:
    """Whole numbers of 64 bits as Avro writes them: zigzag, seven bits a byte, the least first."""
    plain = np.array(values, np.int64)
    rest = (plain.astype(np.uint64) << np.uint64(1)) ^ (plain >> np.int64(63)).astype(np.uint64)
    table = np.zeros((len(plain), 10), np.uint8)
    sizes = np.ones(len(plain), np.int64)
    for k in range(10):
        table[:, k] = (rest & np.uint64(127)).astype(np.uint8)
        rest >>= np.uint64(7)
        more = rest > 0
        if not more.any():
            break
        table[more, k] |= 128
        sizes[more] += 1
    data = table.tobytes()
    return [data[10 * i : 10 * i + size] for i, size in enumerate(sizes.tolist())]


def _longs(values: Sequence[int | None]) -> Pieces:
    """Branch 1, or null."""
    if None in values:
        found = iter(_varints([value for value in values if value is not None]))
        return [_ABSENT if value is None else b"\x02" + next(found) for value in values]
    return [b"\x02" + piece for piece in _varints(values)]  # type: ignore[arg-type]


def _doubles(values: Sequence[float | None]) -> Pieces:
    """Branch 1, or null for NaN."""
    plain = np.array(values, "<f8")
    data = plain.tobytes()
    pieces = [b"\x02" + data[i : i + 8] for i in range(0, len(data), 8)]
    for row in np.flatnonzero(np.isnan(plain)):
        pieces[row] = _ABSENT
    return pieces


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    return _varints([len(data)])[0] + data


def _texts(values: Sequence[str | None]) -> Pieces:
    """Branch 1, or null."""
    pieces = {v: _ABSENT if v is None else b"\x02" + _text(v) for v in set(values)}
    return list(map(pieces.__getitem__, values))


def _ids(values: Sequence[Any]) -> Pieces:
    """Branch 1 for integers, 2 for text; an integer of more than 64 bits is text."""
    kinds = set(map(type, values))
    if kinds == {int} and _LONGS[0] <= min(values) and max(values) <= _LONGS[1]:
        return _longs(values)
    return [_id(value) for value in values]


def _id(value: Any) -> bytes:
    if value is None:
        return _ABSENT
    if isinstance(value, int) and _LONGS[0] <= value <= _LONGS[1]:
        return b"\x02" + _varints([value])[0]
    return b"\x04" + _text(str(value))


def _predictions(values: Sequence[Any]) -> Pieces:
    """Branch 1 for numbers, 2 for text, 3 for integer classes, 4 for booleans."""
    if set(map(type, values)) == {float}:
        return _doubles(values)
    pieces = {(type(v), v): _prediction(v) for v in set(values)}
    return [pieces[type(value), value] for value in values]


def _prediction(value: Any) -> bytes:
    if value is None or value != value:
        return _ABSENT
    if isinstance(value, bool):
        return b"\x08\x01" if value else b"\x08\0"
    if isinstance(value, int) and _LONGS[0] <= value <= _LONGS[1]:
        return b"\x06" + _varints([value])[0]
    if isinstance(value, float):
        return _doubles([value])[0]
    return b"\x04" + _text(str(value))


def _probabilities(given: Probabilities) -> Pieces:
    """A map, null where no answer was given."""
    names = [_text(str(label)) for label in given.labels]
    table = np.column_stack([np.array(column, "<f8") for column in given.columns])
    data, width = np.ascontiguousarray(table, "<f8").tobytes(), 8 * len(names)
    head, absent = b"\x02" + _varints([len(names)])[0], np.isnan(table).all(axis=1).tolist()
    out = []
    for row, missing in enumerate(absent):
        start = row * width
        parts = [name + data[start + 8 * k : start + 8 * k + 8] for k, name in enumerate(names)]
        out.append(_ABSENT if missing else head + b"".join(parts) + b"\0")
    return out


def _sets(values: Sequence[list[Any] | None]) -> Pieces:
    """Labels as text, null where no answer was given."""
    pieces: dict[tuple[Any, ...] | None, bytes] = {None: _ABSENT, (): b"\x02\0"}
    keys = [None if labels is None else tuple(map(str, labels)) for labels in values]
    for key in set(keys) - pieces.keys():
        pieces[key] = b"\x02" + _varints([len(key)])[0] + b"".join(map(_text, key)) + b"\0"  # type: ignore[arg-type]  # None is there
    return list(map(pieces.__getitem__, keys))


def _intervals(values: Sequence[tuple[float, float]]) -> Pieces:
    """Two doubles, null for NaN."""
    plain = np.array(values, "<f8").reshape(-1, 2)
    data, missing = plain.tobytes(), np.isnan(plain).any(axis=1).tolist()
    return [
        _ABSENT if absent else b"\x02" + data[16 * i : 16 * i + 16]
        for i, absent in enumerate(missing)
    ]


_WAYS: Mapping[str, Callable[[Any], Pieces]] = {
    "event": _varints,
    "id": _ids,
    "prediction": _predictions,
    "probabilities": _probabilities,
    "set": _sets,
    "interval": _intervals,
    "score": _doubles,
    "model": _texts,
    "topic": _texts,
    "partition": _longs,
    "offset": _longs,
    "time": _longs,
}
