"""Blocks: columns of events in stream order, the only thing that flows between stages.

A block is a batch for the machine, never for the mathematics: whatever the cut, the same bits.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
U1 = NDArray[np.uint8]
B1 = NDArray[np.bool_]
Columns = dict[str, NDArray[Any]]

NO_TIME = int(np.iinfo(np.int64).min)  # a time that is missing

PREDICT = 1  # answer; changes nothing
LEARN = 2  # stages that need a label learn from (x, y)
OBSERVE = 4  # stages that need no label learn from x
SCORED = PREDICT | OBSERVE  # a live event; its label comes later as LEARN
LABELLED = PREDICT | LEARN | OBSERVE  # an event that comes with its label
UNSCORED = LEARN | OBSERVE  # an event that was never scored; River's learn_one
_LABELLED = bytes([LABELLED])
EXPIRED = 0  # the label of an event scored before will not come: what was logged is dropped

NUMBER, CATEGORY, BOOLEAN, TIME = "number", "category", "boolean", "time"


class Vocabulary:
    """An append-only table of values and their codes 0, 1, 2, … in order of first appearance."""

    __slots__ = ("_codes", "values")

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self.values: list[Any] = list(values)
        self._codes: dict[Any, int] = {value: i for i, value in enumerate(self.values)}

    def code(self, value: Any) -> int:
        """The code of a value, which is appended when it is new."""
        found = self._codes.get(value)
        if found is None:
            found = self._codes[value] = len(self.values)
            self.values.append(value)
        return found

    def find(self, value: Any) -> int:
        """The code of a value, or -1 when it is unknown; never appends."""
        return self._codes.get(value, -1)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Vocabulary({self.values!r})"


class Features:
    """The named columns of X: immutable, but for the vocabularies of categories, which grow."""

    __slots__ = ("_index", "categories", "kinds", "names", "some_category")

    def __init__(
        self,
        names: Sequence[str],
        kinds: Sequence[str] | None = None,
        categories: Mapping[str, Vocabulary] | None = None,
    ) -> None:
        self.names = tuple(names)
        self.kinds = tuple(kinds) if kinds is not None else (NUMBER,) * len(self.names)
        self.some_category = CATEGORY in self.kinds
        given = dict(categories or {})
        for name, kind in zip(self.names, self.kinds, strict=True):
            if kind == CATEGORY and name not in given:
                given[name] = Vocabulary()
        self.categories = given
        self._index = {name: i for i, name in enumerate(self.names)}
        if len(self._index) != len(self.names):
            raise ValueError(f"Features: names must be unique, got {self.names!r}")

    def index(self, name: str) -> int:
        """Column of a name, or -1."""
        return self._index.get(name, -1)

    def plus(self, names: Sequence[str], kinds: Sequence[str]) -> "Features":
        """These features and more after them; the vocabularies stay shared."""
        return Features(self.names + tuple(names), self.kinds + tuple(kinds), self.categories)

    def with_categories(self, more: Mapping[str, Sequence[Any]]) -> "Features":
        """The same columns with copies of some vocabularies, longer by the given values."""
        longer = {name: Vocabulary(self.categories[name].values) for name in more}
        for name, values in more.items():
            for value in values:
                longer[name].code(value)
        return Features(self.names, self.kinds, self.categories | longer)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` needs to make the same columns again."""
        named = zip(self.names, self.kinds, strict=True)
        tables = [list(self.categories[name].values) for name, kind in named if kind == CATEGORY]
        return {"names": list(self.names), "kinds": list(self.kinds), "categories": tables}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Features":
        """The inverse of `to_json`."""
        names, kinds, tables = table["names"], table["kinds"], table["categories"]
        of_kind = [name for name, kind in zip(names, kinds, strict=True) if kind == CATEGORY]
        known = zip(of_kind, map(Vocabulary, tables), strict=True)
        return cls(names, kinds, dict(known))

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Features({list(self.names)!r})"


class Csr(NamedTuple):
    """Sparse rows: row t has values[i] in columns[i] for indptr[t] <= i < indptr[t + 1]."""

    values: F8
    columns: I8
    indptr: I8
    width: int

    def rows(self, start: int, stop: int) -> "Csr":
        """Rows start to stop; the values are views."""
        first, last = self.indptr[start], self.indptr[stop]
        pointers = self.indptr[start : stop + 1] - first
        return Csr(self.values[first:last], self.columns[first:last], pointers, self.width)

    def take(self, rows: I8) -> "Csr":
        """These rows, in this order."""
        lengths = np.diff(self.indptr)[rows]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(ends[-1]) + np.repeat(self.indptr[rows] - ends[:-1], lengths)
        return Csr(self.values[at], self.columns[at], ends.astype(np.int64), self.width)

    def packed(self) -> NDArray[Any]:
        """Each row as one array, its columns and then their values: (n,) objects, for the log."""
        bounds = zip(self.indptr[:-1].tolist(), self.indptr[1:].tolist(), strict=True)
        pairs = ((self.columns[a:b], self.values[a:b]) for a, b in bounds)
        whole = (np.concatenate(pair, dtype=np.float64) for pair in pairs)
        return np.fromiter(whole, dtype=object, count=self.indptr.shape[0] - 1)

    def replaced(self, rows: I8, packed: Sequence[F8]) -> "Csr":
        """With others, as `packed` gives them, in place of these rows (m,)."""
        halves = [np.split(row, 2) for row in packed]
        lengths = [values.shape[0] for _, values in halves]
        values = np.concatenate([self.values, *(values for _, values in halves)])
        told = np.concatenate([np.zeros(0), *(columns for columns, _ in halves)])
        columns = np.concatenate([self.columns, told.astype(np.int64)])
        ends = np.concatenate([self.indptr, self.indptr[-1] + np.cumsum(lengths, dtype=np.int64)])
        n = self.indptr.shape[0] - 1
        order = np.arange(n)
        order[rows] = n + np.arange(rows.shape[0])
        width = max(self.width, int(told.max(initial=-1.0)) + 1)
        return Csr(values, columns, ends, width).take(order)

    def dense(self) -> F8:
        """The same rows as a dense (n, width) array."""
        n = self.indptr.shape[0] - 1
        out = np.zeros((n, self.width))
        np.add.at(out, (np.repeat(np.arange(n), np.diff(self.indptr)), self.columns), self.values)
        return out


class Met(NamedTuple):
    """Labels that came in the block of their event: rows (m,) int64, and scored (m,), its rows."""

    rows: I8
    scored: I8


class Logged(NamedTuple):
    """What was logged when events were scored, handed back to the rows that bring their labels.

    columns: (n, …) arrays. held: by column, (n,) bool, true where it was logged; a column means
    nothing elsewhere: a member of a wrapper that was born later has logged nothing. met: rows whose
    event stands in this block, so that nothing was logged: only for stages with `recalls_input`.
    """

    columns: Columns
    held: dict[str, B1]
    met: Met | None = None

    def part(self, start: int, stop: int) -> "Logged":
        """Rows start to stop."""
        assert self.met is None  # a stage that cuts has no `recalls_input`
        columns = {name: column[start:stop] for name, column in self.columns.items()}
        return Logged(columns, {name: rows[start:stop] for name, rows in self.held.items()})

    def under(self, prefix: str) -> "Logged":
        """The columns whose names start with prefix, without it: one stage's share."""
        cut = len(prefix)
        own = {k[cut:]: v for k, v in self.columns.items() if k.startswith(prefix)}
        return Logged(own, {name: self.held[prefix + name] for name in own}, self.met)


class Block:
    """Events in stream order, as columns. Arrays may be views; stages never write into them.

    X: (n, d) float64, C-contiguous; NaN is missing; a category column holds codes.
    y: (n,) or (n, q) float64; a class code (of `labels`) or a target; NaN is missing.
    weight: (n,) float64, >= 0. mode: (n,) uint8, bits PREDICT, LEARN, OBSERVE.
    features: the names of the columns of X. labels: the class table of y, None for regression.
    ids, keys, groups: (n,) object or integer. times, label_times: (n,) int64, nanoseconds since
    1970, UTC: of the event, and when its label became known (NO_TIME: never).
    events: (n,) int64, the number of the event that a row is about, from 0, where labels come late;
    -1 for an event whose label will not come. Without it the ids tell which label is whose.
    sparse: further columns of X as CSR, for stages that take them.
    logged: logged outputs for LEARN-only rows. log_wanted: ask stages for `log:` columns.
    raised: (n,) object, by row None or a tuple of findings, of stages that the block came through:
    what a stage without labels saw on the way (see `contracts.Finding`).
    """

    __slots__ = (
        "X",
        "_plain",
        "events",
        "features",
        "groups",
        "ids",
        "keys",
        "label_times",
        "labels",
        "log_wanted",
        "logged",
        "mode",
        "raised",
        "sparse",
        "times",
        "weight",
        "y",
    )  # fmt: skip

    def __init__(
        self,
        X: F8,
        y: F8,
        weight: F8,
        mode: U1,
        features: Features,
        labels: Vocabulary | None = None,
        ids: NDArray[Any] | None = None,
        times: I8 | None = None,
        keys: NDArray[Any] | None = None,
        sparse: Csr | None = None,
        logged: Logged | None = None,
        log_wanted: bool = False,
        events: I8 | None = None,
        groups: NDArray[Any] | None = None,
        label_times: I8 | None = None,
        raised: NDArray[Any] | None = None,
    ) -> None:
        self.X, self.y, self.weight, self.mode = X, y, weight, mode
        self._plain: bool | None = None
        self.features, self.labels = features, labels
        self.ids, self.times, self.keys = ids, times, keys
        self.sparse, self.logged, self.log_wanted = sparse, logged, log_wanted
        self.events, self.groups, self.label_times = events, groups, label_times
        self.raised = raised

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.mode.shape[0])

    @property
    def plain(self) -> bool:
        """Whether every row is LABELLED: nothing to log, to recall, to ask or to hide."""
        if self._plain is None:
            self._plain = self.mode.tobytes() == _LABELLED * self.n
        return self._plain

    @property
    def d(self) -> int:
        """Number of dense columns."""
        return int(self.X.shape[1])

    def rows(self, start: int, stop: int) -> "Block":
        """Rows start to stop as a block of views; the whole block is returned as it is."""
        if start == 0 and stop >= self.n:
            return self
        return Block(
            self.X[start:stop], self.y[start:stop], self.weight[start:stop], self.mode[start:stop],
            self.features, self.labels,
            None if self.ids is None else self.ids[start:stop],
            None if self.times is None else self.times[start:stop],
            None if self.keys is None else self.keys[start:stop],
            None if self.sparse is None else self.sparse.rows(start, stop),
            None if self.logged is None else self.logged.part(start, stop),
            self.log_wanted,
            None if self.events is None else self.events[start:stop],
            None if self.groups is None else self.groups[start:stop],
            None if self.label_times is None else self.label_times[start:stop],
            None if self.raised is None else self.raised[start:stop],
        )  # fmt: skip

    def with_X(self, X: F8, features: Features, keep_sparse: bool = True) -> "Block":
        """This block with other features; itself where they are its own."""
        sparse = self.sparse is None or keep_sparse
        if X is self.X and features is self.features and sparse:
            return self
        out = self._copied()
        out.X, out.features = X, features
        if not keep_sparse:
            out.sparse = None
        return out

    def replace(self, **changes: Any) -> "Block":
        """This block with some of its columns exchanged."""
        out = self._copied()
        for name, value in changes.items():
            setattr(out, name, value)
        if "mode" in changes:
            out._plain = None
        return out

    def _copied(self) -> "Block":
        """A block of the same columns; asked for often, so without a loop over their names."""
        out: Block = object.__new__(Block)
        out.X, out.features, out._plain = self.X, self.features, self._plain
        out.y, out.weight, out.mode, out.labels = self.y, self.weight, self.mode, self.labels
        out.ids, out.times, out.keys, out.sparse = self.ids, self.times, self.keys, self.sparse
        out.logged, out.log_wanted = self.logged, self.log_wanted
        out.events, out.groups, out.label_times = self.events, self.groups, self.label_times
        out.raised = self.raised
        return out


def concatenate(parts: Sequence[Columns], lengths: Sequence[int]) -> Columns:
    """Outputs of consecutive blocks as those of one.

    A class that did not exist yet has probability 0; a column absent from a part is NaN there, or
    None where it holds objects.
    """
    if len(parts) == 1:
        return dict(parts[0])
    names = list(dict.fromkeys(name for part in parts for name in part))
    return {name: _joined([part.get(name) for part in parts], lengths, name) for name in names}


def _joined(
    arrays: Sequence[NDArray[Any] | None], lengths: Sequence[int], name: str
) -> NDArray[Any]:
    """One column over several parts, as wide as the widest."""
    present = [a for a in arrays if a is not None]
    shape = max((a.shape[1:] for a in present), default=())
    kind = present[0].dtype.kind
    inexact = kind == "f" and not name.endswith("proba")
    fill = np.nan if inexact else None if kind == "O" else 0.0
    out = np.full((sum(lengths), *shape), fill, dtype=present[0].dtype)
    at = 0
    for array, n in zip(arrays, lengths, strict=True):
        if array is not None:
            out[(slice(at, at + n), *(slice(0, w) for w in array.shape[1:]))] = array
        at += n
    return out
