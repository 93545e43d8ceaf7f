"""Columns of records to the columns of blocks: whole where their type allows, else cell by cell.

A column is a list of Python values, an Arrow array, a float64 array (numbers only), or `Tokens`;
None stands for a column that is not there. The fast ways must agree with `streamlearn.schema_cells`
on every value; what they do not know goes there.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from streamlearn import schema_cells as cells
from streamlearn.block import F8, I8, LABELLED, NO_TIME, SCORED, Block, Csr, Vocabulary
from streamlearn.schema_bags import bags, side_by_side
from streamlearn.schema_cells import Misfit

if TYPE_CHECKING:
    from streamlearn.schema import Feature, Schema

Column = Any  # list of values, pyarrow.Array, Tokens, or None
Misfits = dict[int, str]  # row of the columns -> the first reason against it
_PLAIN = {float, int, bool, type(None)}
_FLOAT64 = pa.float64()
_FEW = 8  # values of a dictionary that are looked for one by one


class Tokens(NamedTuple):
    """A column of categories or classes by codes (n,), -1: missing, and what they stand for."""

    codes: I8
    values: list[Any]


def raw_record(record: Mapping[str, Any]) -> bytes:
    """A record as JSON text, for the dead-letter sink."""
    text = json.dumps(dict(record), default=str, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")  # half a surrogate pair as JSON spells it


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
    values: F8 = plain_values(column, math.nan)
    return values


def plain_values(column: pa.Array, missing: float) -> NDArray[Any]:
    """Numbers as numpy has them. Arrow's `to_numpy` and `fill_null` would load all of pandas."""
    dtype, (marks, data) = np.dtype(column.type.to_pandas_dtype()), column.buffers()
    if data is None:
        return np.full(len(column), missing, dtype)
    rows = slice(column.offset, column.offset + len(column))
    values = np.frombuffer(data, dtype)[rows]
    if column.null_count:
        there = np.unpackbits(np.frombuffer(marks, np.uint8), bitorder="little")[rows]
        values = np.where(there == 1, values, np.array(missing, dtype))
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
    fast = _listed_times(column, unit) if isinstance(column, list) else _arrow_times(column)
    if fast is not None:
        return fast
    cell = partial(cells.time, missing=missing, unit=unit)
    listed = _by_cell(column, cell, None, misfits, owner)
    return np.array([NO_TIME if t is None else t for t in listed], dtype=np.int64)


def _listed_times(column: list[Any], unit: str) -> I8 | None:
    """A list of nothing but integers within the range of times; else None."""
    if set(map(type, column)) != {int}:
        return None
    scale = cells.NANOSECONDS[unit]
    try:
        counted = np.array(column, dtype=np.int64)
    except OverflowError:
        return None
    most = (2**63 - 1) // scale
    return counted * scale if -most <= counted.min() and counted.max() <= most else None


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
            cast = column.cast(target).cast(pa.int64())
        except pa.ArrowInvalid:
            continue
        return plain_values(cast, NO_TIME)
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
            for code in range(self._known, int(local.max(initial=-1)) + 1):
                self.learn(code, vocabulary)
        return self._table.take(local)

    def fresh(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The values that rows start to stop are the first to show: (row after start, code)."""
        if self._known == len(self.values):
            return []
        local = self.codes[start:stop]
        rows = np.flatnonzero(local >= self._known)
        codes, first = np.unique(local[rows], return_index=True)
        return list(zip(rows[first].tolist(), codes.tolist(), strict=True))

    def learn(self, code: int, vocabulary: Vocabulary) -> None:
        """Tell the vocabulary of the next value that it may not know yet."""
        self._table[code] = vocabulary.code(self.values[code])
        self._known = code + 1


def _arrow_codes(column: pa.Array) -> tuple[I8, list[Any]]:
    """Codes in order of first appearance (-1 is null) and the values they stand for."""
    dictionary = None
    if pa.types.is_dictionary(column.type):
        if len(column.dictionary) <= _FEW and not column.indices.null_count:
            return _few_codes(plain_values(column.indices, -1), column.dictionary)
        column, dictionary = column.indices, column.dictionary
    try:
        encoded = column.dictionary_encode()
    except pa.ArrowNotImplementedError:  # lists and tables: their rows are refused one by one
        return _listed_codes(column.to_pylist())
    codes = plain_values(encoded.indices, -1)
    values = encoded.dictionary
    return codes, (values if dictionary is None else dictionary.take(values)).to_pylist()


def _few_codes(indices: NDArray[Any], dictionary: pa.Array) -> tuple[I8, list[Any]]:
    """The same of a dictionary with few values, none missing: 1 ns a row instead of 3 to 7."""
    found = (indices == code for code in range(len(dictionary)))
    first = {code: int(hits.argmax()) for code, hits in enumerate(found) if hits.any()}
    order = sorted(first, key=first.__getitem__)
    renumber = np.full(len(dictionary), -1, dtype=np.int64)
    renumber[order] = np.arange(len(order))
    values = dictionary.to_pylist()  # an array of places to `take` by would load all of pandas
    return renumber.take(indices), [values[code] for code in order]


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
    if isinstance(column, Tokens):
        codes, raw = column
    else:
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
    return Coded(renumber.take(codes), vocabulary.values)


def identities(
    column: Column, missing: frozenset[str], misfits: Misfits, owner: str
) -> NDArray[Any]:
    """A column of ids or keys: an object array of integers, text and None."""
    out = np.empty(len(column), dtype=object)
    kinds = set(map(type, column)) if isinstance(column, list) else None
    if kinds == {int}:
        out[:] = column
    elif kinds is not None and kinds <= {int, str} and _is_ascii(column):
        out[:] = [cells.text_identity(v, missing) if type(v) is str else v for v in column]
    else:
        cell = partial(cells.identity, missing=missing)
        out[:] = _by_cell(column, cell, None, misfits, owner)
    return out


def _is_ascii(column: list[Any]) -> bool:
    """Whether all text among these is such that nothing in it need be looked at."""
    return "".join([value for value in column if type(value) is str]).isascii()


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


class Part(NamedTuple):
    """Rows start to stop of what was decoded."""

    decoded: Decoded
    start: int
    stop: int


def interleaved(parts: Sequence[Part], order: NDArray[np.intp]) -> Block:
    """Rows of several parts of one schema as a block; order (m,): the part that each row is of.

    As if the rows had been decoded in this order: the tables of the schema grow in it. Take each
    part's rows once and in order. Cost: 0.1 us a row beyond a part's `take`.
    """
    if len(parts) == 1:
        return parts[0].decoded.take(parts[0].start, parts[0].stop)
    return _Weave(parts, order).block()


class _Weave:
    """Where the rows of each part stand among all of them."""

    def __init__(self, parts: Sequence[Part], order: NDArray[np.intp]) -> None:
        self.parts, self.m = parts, order.shape[0]
        at = np.argsort(order.astype(np.uint16), kind="stable")  # 16 bits are sorted by radix
        ends = np.cumsum([part.stop - part.start for part in parts])
        self.at = np.split(at, ends[:-1])

    def block(self) -> Block:
        """All of them as a block."""
        first = self.parts[0].decoded
        features, labels = first.features, first.schema.labels
        X = self._placed([part.decoded.X for part in self.parts])
        for name in first.categories:
            coded = [part.decoded.categories[name] for part in self.parts]
            X[:, features.index(name)] = self._codes(coded, features.categories[name])
        targets: list[Any] = [part.decoded.y for part in self.parts]
        if isinstance(first.y, Coded):
            y = self._codes(targets, labels if labels is not None else Vocabulary())
        else:
            y = self._placed(targets)
        weight = self._placed([part.decoded.weight for part in self.parts])
        mode = self._placed([part.decoded.mode for part in self.parts])
        block = Block(X, y, weight, mode, features, labels, sparse=self._sparse())
        for name in _SIDE:
            if getattr(first, name) is not None:
                setattr(block, name, self._placed([getattr(p.decoded, name) for p in self.parts]))
        return block

    def _placed(self, columns: Sequence[Any]) -> Any:
        """A column of each part in its place."""
        out = np.empty((self.m, *columns[0].shape[1:]), dtype=columns[0].dtype)
        for column, (_, start, stop), at in zip(columns, self.parts, self.at, strict=True):
            out[at] = column[start:stop]
        return out

    def _codes(self, columns: Sequence[Coded], vocabulary: Vocabulary) -> F8:
        """A column of codes; what is new enters the vocabulary in the order of the rows."""
        new = []
        for i, (column, (_, start, stop)) in enumerate(zip(columns, self.parts, strict=True)):
            new += [(int(self.at[i][row]), i, code) for row, code in column.fresh(start, stop)]
        for _, i, code in sorted(new):
            columns[i].learn(code, vocabulary)
        out = np.empty(self.m)
        for column, (_, start, stop), at in zip(columns, self.parts, self.at, strict=True):
            out[at] = column.take(start, stop, vocabulary)
        return out

    def _sparse(self) -> Csr | None:
        rows = [p.decoded.sparse.rows(p.start, p.stop) for p in self.parts
                if p.decoded.sparse is not None]  # fmt: skip
        if not rows:
            return None
        lengths = np.concatenate([np.diff(part.indptr) for part in rows])
        pointers = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        values = np.concatenate([part.values for part in rows])
        columns = np.concatenate([part.columns for part in rows])
        places = np.argsort(np.concatenate(self.at))
        return Csr(values, columns, pointers, rows[0].width).take(places)


def decode_columns(
    schema: "Schema", columns: Mapping[str, Column], n: int, known: Misfits | None = None
) -> tuple[Decoded, Misfits]:
    """Columns of n records to the rows that fit and, by row, the reasons against those that do not.

    An absent column is missing in every row. Reasons are looked for feature by feature, then in
    target, weight, id, key, time, group, label time: the first one counts. known: reasons that were
    found before, which count first.
    Cost: 3 to 6 ns a number from Arrow.
    """
    decoded = Decoded(schema, n)
    misfits: Misfits = dict(known or {})
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
        named = _values_of(decoded, name, column) if role == "group" else column
        setattr(decoded, f"{role}s", identities(named, missing, misfits, owner))


def _values_of(decoded: Decoded, name: str, column: Column) -> Column:
    """A column that names groups: of a number or boolean among the features its value.

    However it is written, 1.50 or 15e-1: where a piece has nothing odd, only the value is kept.
    """
    feature = decoded.schema.features.get(name)
    if feature is None or feature.kind not in ("number", "boolean"):
        return column
    values = decoded.X[:, decoded.features.index(name)].tolist()
    if feature.kind == "boolean":
        return [None if math.isnan(value) else value == 1.0 for value in values]
    return values


def _weights(column: Column, missing: frozenset[str], misfits: Misfits, owner: str) -> F8:
    values = numbers(column, missing, misfits, owner)
    for row in np.flatnonzero((values < 0) | np.isinf(values)):
        rule = ">= 0" if values[row] < 0 else "finite"
        misfits.setdefault(int(row), f"{owner} must be {rule}, got {float(values[row])!r}")
    return np.where(np.isnan(values), 1.0, values)
