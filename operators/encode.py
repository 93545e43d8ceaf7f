"""Encoding: categories and hashed text as numbers, for operators that take no others."""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from river import base

from streamlearn.block import BOOLEAN, CATEGORY, F8, I8, NUMBER, Block, Columns, Features
from streamlearn.block import concatenate as concatenated
from streamlearn.contracts import State
from streamlearn.jit.encode import PASSED, hash_run, next_opening, one_hot_run
from streamlearn.operators import _checks
from streamlearn.operators._base import Transformer

_SHARED = -2  # in `layout_`: the column of the values that found no room


class OneHotEncoder(Transformer, base.Transformer):
    """One column `name=value`, 0 or 1, for each value of a category; numbers are passed on.

    A column exists from the first OBSERVE row on that shows its value. Values beyond the first
    `cap` of a category share one column `name=other`. A missing value, and one that has no column
    (yet), is 0 in all of them. Without a category the block is passed on untouched. A row with an
    infinite number is passed on and opens no column.
    Args:
        cap: columns of one category, without the shared one, >= 1.
    State:
        layout_: (m, 2) int64, for each output column its input column and code; -1 for a number
            that is passed on, -2 for the shared column.
    Cost: O(m) time an event for m output columns; 8 (m + c v) bytes for c categories of v values.
    Raises: ValueError for a parameter out of range.
    >>> encoder = OneHotEncoder()
    >>> for colour in ("red", "blue"):
    ...     encoder.learn_one({"colour": colour, "size": 3.0})
    >>> encoder.transform_one({"colour": "blue", "size": 4.0})
    {'size': 4.0, 'colour=red': 0.0, 'colour=blue': 1.0}
    """

    _arrays = ("layout_",)
    takes_categories = True

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {}
        yield {"cap": 2}

    def __init__(self, cap: int = 32) -> None:
        self.cap = _checks.whole("OneHotEncoder", "cap", cap, 1)
        self.layout_: I8 = np.zeros((0, 2), dtype=np.int64)
        self._built: tuple[I8, Features] | None = None  # what the four tables below are made of
        self._cats: I8 = np.zeros(0, dtype=np.int64)
        self._slots: I8 = np.zeros((0, 0), dtype=np.int64)
        self._room: I8 = np.zeros(0, dtype=np.int64)
        self._shared: I8 = np.zeros(0, dtype=np.int64)
        self._named: tuple[I8, Features, Features] | None = None

    def grow(self, features: Features) -> None:
        """New numbers are passed on behind the columns that there are."""
        known = len(self._features)
        kinds = enumerate(features.kinds[known:], start=known)
        self._append([(j, PASSED) for j, kind in kinds if kind != CATEGORY])

    def reset(self) -> None:
        """Nothing: the columns that there are are names, and names stay."""

    def pieces(self, block: Block) -> Iterator[Block]:
        """The block, cut before each row that opens a column; each piece is run before the next."""
        if not block.features.some_category or block.n == 0:
            yield block
            return
        start = 0
        while start < block.n:
            self._look_up(block.features)
            _, stop = self._next_opening(block, start)
            yield block.rows(start, stop)
            start = stop

    def may_widen(self, features: Features) -> bool:
        """Where there is a category to open columns for."""
        return features.some_category

    def output_features(self, features: Features) -> Features:
        """The names of the columns of the output, as of the last row run."""
        if not features.some_category:
            return features
        known = self._named
        if known is None or known[0] is not self.layout_ or known[1] is not features:
            self._named = (self.layout_, features, self._names(features))
            return self._named[2]
        return known[2]

    def _run(self, block: Block) -> Columns:
        if not block.features.some_category:
            return {"X": block.X}
        self._look_up(block.features)
        parts: list[Columns] = []
        lengths: list[int] = []
        start, stop = 0, -1
        while stop < block.n:
            fresh, stop = self._next_opening(block, start)
            if fresh:
                self._open(block.X[start], block.features)
            out = np.empty((stop - start, self.layout_.shape[0]))
            one_hot_run(
                block.X[start:stop], self.layout_, self._cats, self._slots, self._shared, out
            )
            parts.append({"X": out})
            lengths.append(stop - start)
            start = stop
        return concatenated(parts, lengths)

    def _next_opening(self, block: Block, start: int) -> tuple[bool, int]:
        return next_opening(
            block.X, block.weight, block.mode, self._cats, self._slots, self._room, self._shared,
            start,
        )  # fmt: skip

    def _open(self, x: F8, features: Features) -> None:
        """Open the columns that the row x (d,) is the first to need."""
        new = []
        for c, j in enumerate(self._cats.tolist()):
            if x[j] != x[j]:
                continue
            code, table = int(x[j]), features.categories[features.names[j]]
            if not 0 <= code < len(table):
                raise ValueError(
                    f"OneHotEncoder: the code of category {features.names[j]!r} must be one of its "
                    f"{len(table)} known values, got {x[j]}; give the table as `categories`"
                )
            if code < self._slots.shape[1] and self._slots[c, code] >= 0:
                continue
            if self._room[c] > 0:
                new.append((j, code))
            elif self._shared[c] < 0:
                new.append((j, _SHARED))
        self._append(new)
        self._look_up(features)

    def _append(self, columns: list[tuple[int, int]]) -> None:
        if columns:
            self.layout_ = np.concatenate([self.layout_, np.array(columns, dtype=np.int64)])

    def _look_up(self, features: Features) -> None:
        """Bring the tables that the kernels read up to date with the layout."""
        built = self._built
        if built is not None and built[0] is self.layout_ and built[1] is features:
            return
        cats = [j for j, kind in enumerate(features.kinds) if kind == CATEGORY]
        place = {j: c for c, j in enumerate(cats)}
        self._cats = np.array(cats, dtype=np.int64)
        self._room = np.full(len(cats), self.cap, dtype=np.int64)
        self._shared = np.full(len(cats), -1, dtype=np.int64)
        widest = int(self.layout_[:, 1].max(initial=0)) + 1
        self._slots = np.full((len(cats), widest), -1, dtype=np.int64)
        for k, (j, code) in enumerate(self.layout_.tolist()):
            if code == _SHARED:
                self._shared[place[j]] = k
            elif code != PASSED:
                self._slots[place[j], code] = k
                self._room[place[j]] -= 1
        self._share_with_other(features)
        self._built = (self.layout_, features)

    def _share_with_other(self, features: Features) -> None:
        """A category that has a value "other" of its own lets it take the values without room."""
        for c, j in enumerate(self._cats.tolist()):
            code = features.categories[features.names[j]].find("other")
            if self._room[c] == 0 and self._shared[c] < 0 and 0 <= code < self._slots.shape[1]:
                self._shared[c] = self._slots[c, code]

    def _names(self, features: Features) -> Features:
        names: dict[Any, str] = {}
        for j, code in self.layout_.tolist():
            name = features.names[j]
            column, kind = name, features.kinds[j]
            if code != PASSED:
                value = "other" if code == _SHARED else features.categories[name].values[code]
                column, kind = f"{name}={value}", BOOLEAN
            while column in names:  # a number may have the very name of a value's column
                column = f"{column}_"
            names[column] = kind
        return Features(list(names), list(names.values()))


class OrdinalEncoder(Transformer, base.Transformer):
    """Each category as one number: the code of its value, 0, 1, 2, … in order of first appearance.

    For trees and other operators to which the order of codes means nothing. A missing value stays
    NaN. Nothing is learnt; the block's values are passed on untouched.
    Cost: O(1) a block.
    >>> encoder = OrdinalEncoder()
    >>> for colour in ("red", "blue"):
    ...     encoder.learn_one({"colour": colour, "size": 3.0})
    >>> encoder.transform_one({"colour": "blue", "size": 4.0})
    {'colour': 1.0, 'size': 4.0}
    """

    takes_categories = True

    def __init__(self) -> None:
        self._named: tuple[Features, Features] | None = None

    def output_features(self, features: Features) -> Features:
        """The same names, all of them numbers."""
        if not features.some_category:
            return features
        if self._named is None or self._named[0] is not features:
            kinds = [NUMBER if kind == CATEGORY else kind for kind in features.kinds]
            self._named = (features, Features(features.names, kinds))
        return self._named[1]

    def _run(self, block: Block) -> Columns:
        return {"X": block.X}


class _Places(NamedTuple):
    """Where HashEncoder puts things: output columns; (d,) the output column of each number, or
    -1 - c for the c-th category; the column of bucket 0; names of the categories.
    """

    named: Features
    targets: I8
    first: int
    categories: list[Any]


class HashEncoder(Transformer, base.Transformer):
    """All categories hashed into a fixed number of columns; numbers are passed on.

    The value of a category adds +1 or -1 to one of the columns `hash_0`, `hash_1`, …: bucket and
    sign are the low 63 bits, modulo `buckets`, and the top bit of the first 8 bytes, little-endian,
    of BLAKE2b of "name=value", with digest_size=8 and the seed, 16 bytes little-endian, as salt. So
    the width never grows, and no value needs to have been seen. A missing value adds nothing.
    Without a category the block is passed on untouched.
    Args:
        buckets: number of columns, >= 1.
        seed: chooses the hash function, >= 0.
    Cost: O(d + buckets) time an event; a hash for each value at its first appearance.
    Raises: ValueError for a parameter out of range.
    Reference: Weinberger et al. (2009), Feature hashing for large scale multitask learning.
    >>> encoder = HashEncoder(buckets=3)
    >>> encoder.learn_one({"colour": "red", "size": 3.0})
    >>> encoder.transform_one({"colour": "blue", "size": 4.0})
    {'hash_0': 0.0, 'hash_1': 0.0, 'hash_2': -1.0, 'size': 4.0}
    """

    takes_categories = True

    def __init__(self, buckets: int = 16, seed: int = 0) -> None:
        self.buckets = _checks.whole("HashEncoder", "buckets", buckets, 1)
        self.seed = _checks.whole("HashEncoder", "seed", seed, 0)
        self._table: I8 = np.zeros((0, 0), dtype=np.int64)
        self._signs: F8 = np.zeros((0, 0))
        self._hashed: list[list[Any]] = []  # of each category the values that the tables hold
        self._placed: tuple[Features, _Places] | None = None

    def output_features(self, features: Features) -> Features:
        """The numbers, and the hash columns in the place of the first category."""
        return self._place(features).named if features.some_category else features

    def _run(self, block: Block) -> Columns:
        features = block.features
        if not features.some_category:
            return {"X": block.X}
        to = self._place(features)
        self._hash_new(features, to.categories)
        out = np.empty((block.n, len(to.named)))
        hash_run(block.X, to.targets, self._table, self._signs, to.first, out)
        return {"X": out}

    def load(self, state: State) -> None:
        """Take over the names of the features; nothing else is learnt."""
        super().load(state)
        self._hashed = []

    def _hash_new(self, features: Features, names: list[Any]) -> None:
        """Bring the tables up to date with the values of all categories."""
        self._hashed += [[] for _ in names[len(self._hashed) :]]
        for c, name in enumerate(names):
            values, done = features.categories[name].values, self._hashed[c]
            same = min(len(done), len(values))
            while same and done[same - 1] != values[same - 1]:  # a value that came only to ask
                same -= 1
            if same < len(values):
                self._widen(len(names), len(values))
                for code in range(same, len(values)):
                    self._table[c, code], self._signs[c, code] = self._hash(name, values[code])
            done[same:] = values[same:]

    def _widen(self, categories: int, codes: int) -> None:
        """Room for so many categories and codes, doubling."""
        rows, width = self._table.shape
        if categories > rows or codes > width:
            shape = (max(rows, categories), max(width, 1 << (codes - 1).bit_length()))
            table = np.zeros(shape, dtype=np.int64)
            table[:rows, :width] = self._table
            self._table, self._signs = table, _checks.padded(self._signs, shape)

    def _hash(self, name: Any, value: Any) -> tuple[int, float]:
        """Bucket and sign of a value."""
        salt = (self.seed % 2**128).to_bytes(16, "little")
        digest = hashlib.blake2b(f"{name}={value}".encode(), digest_size=8, salt=salt).digest()
        number = int.from_bytes(digest, "little")
        return (number & (2**63 - 1)) % self.buckets, -1.0 if number >> 63 else 1.0

    def _place(self, features: Features) -> _Places:
        """Where the columns go; worked out once for each table of features."""
        if self._placed is not None and self._placed[0] is features:
            return self._placed[1]
        cats = [j for j, kind in enumerate(features.kinds) if kind == CATEGORY]
        rest = [j for j, kind in enumerate(features.kinds) if kind != CATEGORY]
        first = cats[0]  # so many numbers stand before
        targets = np.zeros(len(features), dtype=np.int64)
        targets[cats] = -1 - np.arange(len(cats))
        targets[rest] = [at if at < first else at + self.buckets for at in range(len(rest))]
        names = [features.names[j] for j in rest]
        kinds = [features.kinds[j] for j in rest]
        names[first:first] = [f"hash_{b}" for b in range(self.buckets)]
        kinds[first:first] = [NUMBER] * self.buckets
        places = _Places(Features(names, kinds), targets, first, [features.names[j] for j in cats])
        self._placed = (features, places)
        return places


class Densifier(Transformer, base.Transformer):
    """The block's sparse columns (hashed text, bags of words) as dense ones: `text_0`, `text_1`, …

    For operators that take no sparse input. The columns come behind those that the block had when
    sparse ones first came, and stay there; a block without them has zeros. Without any the block
    is passed on untouched. Where there are more than `max_width`, column j is added to column
    j modulo max_width: what is hashed is then hashed into fewer buckets.
    Args:
        max_width: the widest that it becomes, >= 1: 8 bytes a column and event.
    State:
        width: number of its columns, 0 before the first; at: where they stand.
    Cost: O(d + width) time an event.
    Raises: ValueError for a parameter out of range, for sparse columns that change in number.
    >>> encoder = Densifier()
    >>> encoder.learn_one({"size": 3.0})
    >>> encoder.transform_one({"size": 4.0})
    {'size': 4.0}
    """

    _counters = ("width", "at")
    takes_sparse = True

    def __init__(self, max_width: int = 1024) -> None:
        self.max_width = _checks.whole("Densifier", "max_width", max_width, 1)
        self.width = 0
        self.at = 0
        self._named: tuple[Features, int, Features] | None = None

    def reset(self) -> None:
        """Nothing: the places of the columns are names, and names stay."""

    def output_features(self, features: Features) -> Features:
        """The names of all columns."""
        if self.width == 0:
            return features
        if self._named is None or self._named[:2] != (features, self.width):
            names, kinds = list(features.names), list(features.kinds)
            names[self.at : self.at] = [f"text_{i}" for i in range(self.width)]
            kinds[self.at : self.at] = [NUMBER] * self.width
            self._named = (features, self.width, Features(names, kinds))
        return self._named[2]

    def _run(self, block: Block) -> Columns:
        if block.sparse is not None:
            self._meet_sparse(block.sparse.width, block.d)
        if self.width == 0:
            return {"X": block.X}
        text = np.zeros((block.n, self.width))
        if block.sparse is not None:
            sparse = block.sparse
            text = sparse._replace(columns=sparse.columns % self.width, width=self.width).dense()
        return {"X": np.hstack([block.X[:, : self.at], text, block.X[:, self.at :]])}

    def _meet_sparse(self, width: int, d: int) -> None:
        width = min(width, self.max_width)
        if width == self.width:
            return
        if self.width:
            raise ValueError(
                f"Densifier: the number of sparse columns must stay {self.width}, got {width}"
            )
        self.width, self.at = width, d
