"""Columns of text and bags of words as sparse rows: whole where their type allows, else by cell.

The fast ways must agree with `bag` on every value; what they do not know goes there.
"""

import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamlearn import schema_cells as cells
from streamlearn.block import F8, I8, Csr
from streamlearn.schema_cells import Misfit

if TYPE_CHECKING:
    from streamlearn.schema import Feature

_WORD = re.compile(r"\w+")
_Tokens = tuple[I8, I8]  # lengths of the rows (n,), and the buckets of all their tokens in order


# -- one cell --------------------------------------------------------------------------------------


def bag(value: Any, feature: "Feature", missing: frozenset[str]) -> dict[int, float]:
    """One value as counts per bucket; a count that is missing is 0."""
    counts: dict[int, float] = {}
    for token, count in _counted(value, feature.kind, missing):
        if not math.isnan(count):
            column = _bucket(token, feature.buckets)
            counts[column] = counts.get(column, 0.0) + count
    return counts


def _counted(value: Any, kind: str, missing: frozenset[str]) -> Iterator[tuple[Any, float]]:
    """Tokens and their counts."""
    if cells.is_missing(value):
        return
    if kind == "text":
        yield from ((word, 1.0) for word in _words(value, missing))
    elif isinstance(value, Mapping):
        yield from ((token, cells.number(count, missing)) for token, count in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((token, 1.0) for token in value)
    elif isinstance(value, str):
        yield from ((token, 1.0) for token in value.split() if value not in missing)
    else:
        raise Misfit(f"must be a list of tokens or a table of counts, got {cells.shown(value)}")


def _words(value: Any, missing: frozenset[str]) -> list[str]:
    """The words of a text, lower case."""
    return _WORD.findall((cells.category(value, missing) or "").lower())


def _bucket(token: Any, buckets: int) -> int:
    if isinstance(token, int) and 0 <= token < buckets:
        return int(token)
    return zlib.crc32(str(token).encode("utf-8", "surrogatepass")) % buckets


# -- a column --------------------------------------------------------------------------------------


def bags(column: Any, feature: "Feature", missing: frozenset[str], note: Callable[..., Any]) -> Csr:
    """A column as sorted sparse rows. Cost: about 0.1 us a token of whole lists.

    note(row, reason): told of each value that does not fit; its row is empty.
    """
    found = None
    if feature.kind == "words":
        listed = isinstance(column, list)
        found = _listed(column, feature.buckets) if listed else _arrow(column, feature.buckets)
    if found is not None:
        return _counts(*found, feature.buckets)
    values = column.to_pylist() if isinstance(column, pa.Array) else column
    if feature.kind == "text":
        words = _each(values, lambda value: _words(value, missing), [], note)
        lengths = np.array([len(row) for row in words], dtype=np.int64)
        return _counts(lengths, _hashed(list(chain(*words)), feature.buckets), feature.buckets)
    return _laid_out(_each(values, lambda v: bag(v, feature, missing), {}, note), feature.buckets)


def _each(
    values: list[Any], cell: Callable[[Any], Any], empty: Any, note: Callable[..., Any]
) -> list[Any]:
    out = []
    for i, value in enumerate(values):
        try:
            out.append(empty if cells.is_missing(value) else cell(value))
        except Misfit as reason:
            note(i, reason)
            out.append(empty)
    return out


def _arrow(column: pa.Array, buckets: int) -> _Tokens | None:
    """An Arrow column of lists of integers or text without gaps; None for others."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return None
    tokens = column.flatten()
    if tokens.null_count:
        return None
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    if pa.types.is_integer(tokens.type) and not tokens.type.equals(pa.uint64()):
        return lengths.astype(np.int64), _places(tokens.cast(pa.int64()).to_numpy(), buckets)
    if pa.types.is_string(tokens.type) or pa.types.is_large_string(tokens.type):
        coded = tokens.dictionary_encode()
        of_each = [_bucket(token, buckets) for token in coded.dictionary.to_pylist()]
        codes = coded.indices.to_numpy(zero_copy_only=False)
        return lengths.astype(np.int64), np.array(of_each, dtype=np.int64)[codes]
    return None


def _listed(column: list[Any], buckets: int) -> _Tokens | None:
    """A column of nothing but lists of Python's integers, or of text, and None; else None."""
    if not set(map(type, column)) <= {list, type(None)}:
        return None
    tokens = list(chain.from_iterable(row for row in column if row is not None))
    kinds = set(map(type, tokens))
    lengths = np.array([0 if row is None else len(row) for row in column], dtype=np.int64)
    if kinds <= {str}:
        return lengths, _hashed(tokens, buckets)
    if kinds == {int}:
        try:
            return lengths, _places(np.array(tokens, dtype=np.int64), buckets)
        except OverflowError:  # such a number is hashed by its digits
            return None
    return None


def _hashed(tokens: list[str], buckets: int) -> I8:
    """The buckets of words; each distinct one is hashed once."""
    table = {token: _bucket(token, buckets) for token in set(tokens)}
    return np.fromiter(map(table.__getitem__, tokens), np.int64, len(tokens))


def _places(tokens: I8, buckets: int) -> I8:
    """The buckets of whole numbers: their own, or hashed where there is none."""
    strange = (tokens < 0) | (tokens >= buckets)
    if not strange.any():
        return tokens
    distinct, where = np.unique(tokens[strange], return_inverse=True)
    out = tokens.copy()
    out[strange] = np.array([_bucket(token, buckets) for token in distinct.tolist()])[where]
    return out


# -- sparse rows -----------------------------------------------------------------------------------


def _counts(lengths: I8, tokens: I8, buckets: int) -> Csr:
    """How often each bucket occurs in each row."""
    n = lengths.shape[0]
    keys = np.repeat(np.arange(n) * buckets, lengths) + tokens
    if (keys[1:] <= keys[:-1]).any():
        keys.sort(kind="stable")
    first = np.flatnonzero(np.concatenate([keys[:1] >= 0, keys[1:] != keys[:-1]]))
    counts: F8 = np.diff(first, append=keys.shape[0]).astype(np.float64)
    rows, columns = np.divmod(keys[first], buckets)
    ends = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n), dtype=np.int64)])
    return Csr(counts, columns, ends, buckets)


def _laid_out(rows: list[dict[int, float]], buckets: int) -> Csr:
    """Counts by bucket as sorted sparse rows."""
    pairs = [(column, row[column]) for row in rows for column in sorted(row)]
    columns = np.array([column for column, _ in pairs], dtype=np.int64)
    values = np.array([value for _, value in pairs], dtype=np.float64)
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Csr(values, columns, ends, buckets)


def side_by_side(parts: list[Csr]) -> Csr:
    """Several features as one, each behind the one before it."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0, *(part.width for part in parts)]).tolist()
    n = parts[0].indptr.shape[0] - 1
    rows = np.concatenate([np.repeat(np.arange(n), np.diff(part.indptr)) for part in parts])
    order = np.argsort(rows, kind="stable")
    shifted = [part.columns + offset for part, offset in zip(parts, offsets, strict=False)]
    columns, values = np.concatenate(shifted), np.concatenate([part.values for part in parts])
    ends: I8 = np.array([part.indptr for part in parts]).sum(axis=0)
    return Csr(values[order], columns[order], ends, offsets[-1])
