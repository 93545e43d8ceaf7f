"""Columns of records to the columns of blocks: whole where their type allows, else cell by cell.

A column is a list of Python values, an Arrow array, or a float64 array (numbers only); None stands
for a column that is not there. The fast ways must agree with `streamlearn.schema_cells` on every
value; what they do not know goes there.
"""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamlearn import schema_cells as cells
from streamlearn.block import F8, I8, LABELLED, NO_TIME, SCORED, Block, Csr, Vocabulary
from streamlearn.schema_bags import bags, side_by_side
from streamlearn.schema_cells import Misfit

if TYPE_CHECKING:
    from streamlearn.schema import Feature, Schema

Column = Any  # list of values, pyarrow.Array, or None
Misfits = dict[int, str]  # row of the columns -> the first reason against it
_PLAIN = {float, int, bool, type(None)}
_FLOAT64 = pa.float64()


def raw_record(record: Mapping[str, Any]) -> bytes:
    """A record as JSON text, for the dead-letter sink."""
    return json.dumps(dict(record), default=str, ensure_ascii=False).encode()


# -- numbers ---------------------------------------------------------------------------------------


def _by_cell(
    column: Column, cell: Callable[[Any], Any], empty: Any, misfits: Misfits, owner: str
) -> list[Any]:
    """Every value by its cell function; a misfit is noted under its row."""
    values = column.to_pylist() if isinstance(column, pa.Array) else column
    out = []
    for i, value in enumerate(values):
        try:
            out.append(cell(value))
        except Misfit as reason:
            misfits.setdefault(i, f"{owner} {reason}")
            out.append(empty)
    return out


def _arrow_numbers(column: pa.Array) -> F8 | None:
    """An Arrow column of numbers or booleans as float64; None for other types."""
    kind = column.type
    if kind.equals(_FLOAT64):
        pass
    elif pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        return None
    if not column.type.equals(_FLOAT64):
        column = column.cast(_FLOAT64, safe=False)
    values: F8 = column.to_numpy(zero_copy_only=False)
    return values


def _listed_numbers(column: list[Any]) -> F8 | None:
    """A list of nothing but Python's numbers, booleans and None as float64; else None."""
    if not set(map(type, column)) <= _PLAIN:
        return None
    try:
        return np.array(column, dtype=np.float64)
    except OverflowError:  # an integer beyond 1e308: its row is refused cell by cell
        return None


def numbers(column: Column, missing: frozenset[str], misfits: Misfits, owner: str) -> F8:
    """A column of numbers, NaN for missing; infinite values and what is no number are misfits."""
    if isinstance(column, np.ndarray):
        fast: F8 | None = column
    else:
        fast = _listed_numbers(column) if isinstance(column, list) else _arrow_numbers(column)
    if fast is not None and not np.isinf(fast).any():
        return fast
    cell = partial(cells.number, missing=missing)
    return np.array(_by_cell(column, cell, math.nan, misfits, owner), dtype=np.float64)


def booleans(column: Column, missing: frozenset[str], misfits: Misfits, owner: str) -> F8:
    """A column of booleans as 1, 0 and NaN."""
    if not isinstance(column, list) and pa.types.is_boolean(column.type):
        fast = _arrow_numbers(column)
        if fast is not None:
            return fast
    cell = partial(cells.boolean, missing=missing)
    return np.array(_by_cell(column, cell, math.nan, misfits, owner), dtype=np.float64)


# -- times -----------------------------------------------------------------------------------------


def times(column: Column, missing: frozenset[str], unit: str, misfits: Misfits, owner: str) -> I8:
    """A column of times as nanoseconds since 1970, NO_TIME for missing."""
    fast = None if isinstance(column, list) else _arrow_times(column)
    if fast is not None:
        return fast
    cell = partial(cells.time, missing=missing, unit=unit)
    listed = _by_cell(column, cell, None, misfits, owner)
    return np.array([NO_TIME if t is None else t for t in listed], dtype=np.int64)


def _arrow_times(column: pa.Array) -> I8 | None:
    """Arrow's timestamps and ISO text, if every value fits; else None."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        tries = [pa.timestamp("ns"), pa.timestamp("ns", "UTC")]
    elif pa.types.is_timestamp(kind):
        tries = [pa.timestamp("ns", kind.tz)]
    elif pa.types.is_date(kind):
        tries = [pa.timestamp("ns")]
    else:
        return None
    for target in tries:
        try:
            cast = column.cast(target).cast(pa.int64()).fill_null(NO_TIME)
        except pa.ArrowInvalid:
            continue
        values: I8 = cast.to_numpy(zero_copy_only=False)
        return values
    return None


def _cycle(period: int) -> F8:
    """Sine and cosine of k / period of a turn: a table, so that bits never vary."""
    turns = [2.0 * math.pi * k / period for k in range(period)]
    return np.array([[math.sin(t) for t in turns], [math.cos(t) for t in turns]])


_CYCLES = {
    "hour_cyclic": _cycle(1440), "weekday_cyclic": _cycle(7), "month_cyclic": _cycle(12)
}  # fmt: skip


def time_part(stamps: I8, part: str) -> list[F8]:
    """The one or two columns that a part of a time fills, NaN for missing."""
    index = _part_index(stamps, part)
    if part in _CYCLES:
        columns = [table[index] for table in _CYCLES[part]]
    else:
        columns = [index / 1e9 if part == "epoch" else index.astype(np.float64)]
    return [np.where(stamps == NO_TIME, np.nan, column) for column in columns]


def _part_index(stamps: I8, part: str) -> I8:
    """A part as a whole number, for the cyclic ones counted from 0."""
    seconds = stamps // 10**9
    if part == "epoch":
        return stamps
    if part.startswith("hour"):
        return seconds // 60 % 1440 if part == "hour_cyclic" else seconds // 3600 % 24
    if part.startswith("weekday"):
        return (seconds // 86_400 + 3) % 7  # 1970 began on a Thursday
    months = stamps.astype("datetime64[ns]").astype("datetime64[M]")
    if part == "day":
        first = months.astype("datetime64[D]").astype(np.int64)
        return seconds // 86_400 - first + 1
    return months.astype(np.int64) % 12 + (part == "month")


# -- categories and classes ------------------------------------------------------------------------


class Coded:
    """A column of categories or classes by codes in order of first appearance; -1 is missing.

    A value enters its vocabulary when the first row that shows it is taken, never before.
    """

    def __init__(self, codes: I8, values: list[Any]) -> None:
        self.codes, self.values = codes, values
        self._known = 0
        self._table = np.full(len(values) + 1, np.nan)  # [-1] is missing

    def keep(self, rows: NDArray[np.intp]) -> "Coded":
        """The codes of some rows alone, numbered anew."""
        codes = self.codes[rows]
        present, first = np.unique(codes, return_index=True)
        order = [c for c in present[np.argsort(first)] if c >= 0]
        renumber = np.full(len(self.values) + 1, -1, dtype=np.int64)
        renumber[order] = np.arange(len(order))
        return Coded(renumber[codes], [self.values[c] for c in order])

    def take(self, start: int, stop: int, vocabulary: Vocabulary) -> F8:
        """Rows start to stop by the codes of a vocabulary, which learns the values new in them."""
        local = self.codes[start:stop]
        if self._known < len(self.values):
            top = int(local.max(initial=-1)) + 1
            for i in range(self._known, top):
                self._table[i] = vocabulary.code(self.values[i])
            self._known = max(self._known, top)
        return self._table[local]


def _arrow_codes(column: pa.Array) -> tuple[I8, list[Any]]:
    """Codes in order of first appearance (-1 is null) and the values they stand for."""
    dictionary = None
    if pa.types.is_dictionary(column.type):
        column, dictionary = column.indices, column.dictionary
    try:
        encoded = column.dictionary_encode()
    except pa.ArrowNotImplementedError:  # lists and tables: their rows are refused one by one
        return _listed_codes(column.to_pylist())
    indices = encoded.indices.fill_null(-1) if encoded.null_count else encoded.indices
    codes = indices.to_numpy(zero_copy_only=False)
    values = encoded.dictionary
    return codes, (values if dictionary is None else dictionary.take(values)).to_pylist()


def _listed_codes(column: list[Any]) -> tuple[I8, list[Any]]:
    """The same for a list; 1, 1.0 and True are told apart, what cannot be hashed stands alone."""
    if set(map(type, column)) - {type(None)} in ({str}, {int}, {bool}):
        order = dict.fromkeys(column)
        places = {value: i for i, value in enumerate(order)}
        return np.fromiter(map(places.__getitem__, column), np.int64, len(column)), list(order)
    return _mixed_codes(column)


def _mixed_codes(column: list[Any]) -> tuple[I8, list[Any]]:
    table: dict[Any, int] = {}
    values: list[Any] = []
    codes = np.empty(len(column), dtype=np.int64)
    for i, value in enumerate(column):
        key = (type(value), value) if not isinstance(value, (list, dict, set)) else (list, i)
        code = table.setdefault(key, len(values))
        if code == len(values):
            values.append(value)
        codes[i] = code
    return codes, values


def coded(column: Column, convert: Callable[[Any], Any], misfits: Misfits, owner: str) -> Coded:
    """A column by codes; each distinct value is converted once."""
    codes, raw = _listed_codes(column) if isinstance(column, list) else _arrow_codes(column)
    vocabulary = Vocabulary()
    renumber = np.full(len(raw) + 1, -1, dtype=np.int64)  # [-1] is missing
    for i, value in enumerate(raw):
        try:
            final = convert(value)
        except Misfit as reason:
            for row in np.flatnonzero(codes == i):
                misfits.setdefault(int(row), f"{owner} {reason}")
            continue
        if final is not None:
            renumber[i] = vocabulary.code(final)
    return Coded(renumber[codes], vocabulary.values)


def identities(
    column: Column, missing: frozenset[str], misfits: Misfits, owner: str
) -> NDArray[Any]:
    """A column of ids or keys: an object array of integers, text and None."""
    cell = partial(cells.identity, missing=missing)
    out = np.empty(len(column), dtype=object)
    out[:] = _by_cell(column, cell, None, misfits, owner)
    return out


# -- a chunk of columns ----------------------------------------------------------------------------


_SIDE = ("ids", "keys", "groups", "times", "label_times")  # columns that stages do not learn from


class Decoded:
    """The accepted rows of one chunk, still to be handed out in blocks of any size."""

    def __init__(self, schema: "Schema", n: int) -> None:
        self.schema, self.n, self.features = schema, n, schema.columns
        self.missing = frozenset(schema.missing)
        self.X: F8 = np.empty((n, len(self.features)))
        self.y: F8 | Coded = np.full(n, np.nan)
        self.weight: F8 = np.ones(n)
        self.mode = np.full(n, SCORED, dtype=np.uint8)
        self.categories: dict[str, Coded] = {}
        self.bags: list[Csr] = []
        self.sparse: Csr | None = None
        self.ids: NDArray[Any] | None = None
        self.keys: NDArray[Any] | None = None
        self.groups: NDArray[Any] | None = None
        self.times: I8 | None = None
        self.label_times: I8 | None = None

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Go on with these rows alone."""
        self.n = int(rows.shape[0])
        self.X, self.weight = self.X[rows], self.weight[rows]
        self.y = self.y.keep(rows) if isinstance(self.y, Coded) else self.y[rows]
        self.categories = {name: c.keep(rows) for name, c in self.categories.items()}
        self.bags = [found.take(rows) for found in self.bags]
        for name in _SIDE:
            column = getattr(self, name)
            setattr(self, name, None if column is None else column[rows])

    def finish(self) -> None:
        """Set the modes and lay out the sparse part, once the rows are settled."""
        known = self.y.codes >= 0 if isinstance(self.y, Coded) else ~np.isnan(self.y)
        self.mode = np.where(known, np.uint8(LABELLED), np.uint8(SCORED))
        if self.bags:
            self.sparse = side_by_side(self.bags)

    def take(self, start: int, stop: int) -> Block:
        """Rows start to stop as a block; take rows once and in order: vocabularies grow here."""
        features, labels = self.features, self.schema.labels
        X = self.X[start:stop]
        for name, column in self.categories.items():
            X[:, features.index(name)] = column.take(start, stop, features.categories[name])
        if isinstance(self.y, Coded):
            y = self.y.take(start, stop, labels if labels is not None else Vocabulary())
        else:
            y = self.y[start:stop]
        block = Block(
            X, y, self.weight[start:stop], self.mode[start:stop], features, labels,
            sparse=None if self.sparse is None else self.sparse.rows(start, stop),
        )  # fmt: skip
        for name in _SIDE:
            column = getattr(self, name)
            setattr(block, name, None if column is None else column[start:stop])
        return block


def decode_columns(
    schema: "Schema", columns: Mapping[str, Column], n: int
) -> tuple[Decoded, Misfits]:
    """Columns of n records to the rows that fit and, by row, the reasons against those that do not.

    An absent column is missing in every row. Reasons are looked for feature by feature, then in
    target, weight, id, key, time, group, label time: the first one counts.
    Cost: 3 to 6 ns a number from Arrow.
    """
    decoded = Decoded(schema, n)
    misfits: Misfits = {}
    absent: dict[str, Column] = {}
    for name in schema.wanted():
        if columns.get(name) is None:
            absent[name] = [None] * n
    columns = {**columns, **absent} if absent else columns
    for name, feature in schema.features.items():
        _feature(decoded, name, feature, columns[name], misfits)
    for role, name in schema.roles().items():
        _role(decoded, role, name, columns[name], misfits)
    if misfits:
        decoded.keep(np.array([i for i in range(n) if i not in misfits], dtype=np.intp))
    decoded.finish()
    return decoded, misfits


def _feature(
    decoded: Decoded, name: str, feature: "Feature", column: Column, misfits: Misfits
) -> None:
    """Fill the columns of one feature."""
    missing, X, at = decoded.missing, decoded.X, decoded.features.index
    owner = f"feature {name!r}"
    if feature.kind == "number":
        X[:, at(name)] = numbers(column, missing, misfits, owner)
    elif feature.kind == "boolean":
        X[:, at(name)] = booleans(column, missing, misfits, owner)
    elif feature.kind == "category":
        convert = partial(cells.category, missing=missing)
        decoded.categories[name] = coded(column, convert, misfits, owner)
    elif feature.kind == "time":
        stamps = times(column, missing, feature.unit, misfits, owner)
        parts = [values for part in feature.parts for values in time_part(stamps, part)]
        for (target, _), values in zip(feature.columns(name), parts, strict=True):
            X[:, at(target)] = values
    else:

        def note(row: int, reason: Misfit) -> None:
            misfits.setdefault(row, f"{owner} {reason}")

        decoded.bags.append(bags(column, feature, missing, note))


def _role(decoded: Decoded, role: str, name: str, column: Column, misfits: Misfits) -> None:
    """Fill the column of one role."""
    schema, missing = decoded.schema, decoded.missing
    owner = f"{role} {name!r}"
    if role == "target" and schema.task == "classification":
        convert = partial(cells.class_of, missing=missing, classes=schema.classes)
        decoded.y = coded(column, convert, misfits, owner)
    elif role == "target":
        decoded.y = numbers(column, missing, misfits, owner)
    elif role == "weight":
        decoded.weight = _weights(column, missing, misfits, owner)
    elif role == "time":
        decoded.times = times(column, missing, schema.time_unit, misfits, owner)
        for row in np.flatnonzero(decoded.times == NO_TIME):
            misfits.setdefault(int(row), f"{owner} must be there, got no value")
    elif role == "label_time":
        decoded.label_times = times(column, missing, schema.time_unit, misfits, owner)
    else:
        setattr(decoded, f"{role}s", identities(column, missing, misfits, owner))


def _weights(column: Column, missing: frozenset[str], misfits: Misfits, owner: str) -> F8:
    values = numbers(column, missing, misfits, owner)
    for row in np.flatnonzero((values < 0) | np.isinf(values)):
        rule = ">= 0" if values[row] < 0 else "finite"
        misfits.setdefault(int(row), f"{owner} must be {rule}, got {float(values[row])!r}")
    return np.where(np.isnan(values), 1.0, values)
