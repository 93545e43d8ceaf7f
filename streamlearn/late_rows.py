"""Labels that wait for their time, in slim columns, and blocks with such labels woven in."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import (
    B1,
    EXPIRED,
    F8,
    I8,
    LABELLED,
    LEARN,
    NO_TIME,
    SCORED,
    U1,
    Block,
    Csr,
    Features,
    Vocabulary,
)
from streamlearn.contracts import State, merged

Rows = NDArray[np.intp] | slice


class Late(NamedTuple):
    """Labels and what must be known of their events: everything but the features.

    due: (n,) when the label comes. number: (n,) of its event. y: (n,) or (n, q). weight: (n,).
    time: (n,) of the event, NO_TIME without one. ids, keys, groups: (n,), or None.
    """

    due: I8
    number: I8
    y: F8
    weight: F8
    time: I8
    ids: NDArray[Any] | None
    keys: NDArray[Any] | None
    groups: NDArray[Any] | None

    @property
    def n(self) -> int:
        """Number of labels."""
        return int(self.due.shape[0])

    def rows(self, rows: Rows) -> "Late":
        """Some of them: views for a slice, copies for places."""
        return Late(*(None if column is None else column[rows] for column in self))  # type: ignore[arg-type]

    def ordered(self) -> "Late":
        """By the time they are due, then by number; those of one time must stand by number already.

        Runs that are sorted are merged, not sorted again: numpy's stable sort is a timsort.
        """
        if (self.due[1:] >= self.due[:-1]).all():
            return self
        return self.rows(np.argsort(self.due, kind="stable"))


def together(parts: Sequence[Late]) -> Late:
    """Several as one, in this order; a column that some do not have is None in their rows."""
    if len(parts) == 1:
        return parts[0]
    columns: list[Any] = []
    for pieces in zip(*parts, strict=True):
        there = [piece for piece in pieces if piece is not None]
        if not there:
            columns.append(None)
        elif len(there) == len(pieces):
            columns.append(np.concatenate(pieces))
        else:
            filled = [_nones(part.n) if piece is None else piece.astype(object)
                      for part, piece in zip(parts, pieces, strict=True)]  # fmt: skip
            columns.append(np.concatenate(filled))
    return Late(*columns)


def _nones(n: int) -> NDArray[Any]:
    return np.full(n, None, dtype=object)


class Queue:
    """Labels by the time they are due, then by number.

    It holds sorted runs, each more than twice as long as the next: taking what is due costs a
    binary search a run, and a label is moved O(log n) times in all; not at all where labels come in
    the order in which they are due. Memory: 40 bytes a label, and a pointer for each of id, key and
    group that the events have.
    """

    def __init__(self) -> None:
        self._runs: list[Late] = []
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def push(self, late: Late) -> None:
        """Take some in."""
        if not late.n:
            return
        self._n += late.n
        runs = self._runs
        runs.append(Late(*(None if c is None else c.copy() for c in late.ordered())))  # type: ignore[arg-type]
        while len(runs) > 1 and runs[-2].n <= 2 * runs[-1].n:
            last = runs.pop()
            runs[-1] = together([runs[-1], last]).ordered()

    def pop(self, before: int | None, most: int | None = None) -> Late | None:
        """All that are due before a time (None: all), or the first `most` of them; None if none."""
        if not self._n:
            return None
        ends = [run.n if before is None else int(np.searchsorted(run.due, before))
                for run in self._runs]  # fmt: skip
        heads = [run.rows(slice(0, end)) for run, end in zip(self._runs, ends, strict=True) if end]
        if not heads:
            return None
        self._runs = [run.rows(slice(end, run.n)) for run, end in zip(self._runs, ends, strict=True)
                      if end < run.n]  # fmt: skip
        found = together(heads).ordered()
        self._n -= found.n
        if most is not None and found.n > most:
            self.push(found.rows(slice(most, found.n)))
            found = found.rows(slice(0, most))
        return found

    def state(self) -> State:
        """All labels in their order, whatever the runs."""
        if not self._runs:
            return State({}, {"n": 0})
        whole = together(self._runs).ordered()
        arrays = {name: getattr(whole, name) for name in ("due", "number", "y", "weight", "time")}
        members = {}
        for name in ("ids", "keys", "groups"):
            column = getattr(whole, name)
            members[name] = packed(None if column is None else column.tolist())
        packs = merged(members, {"n": whole.n})
        return State(arrays | packs.arrays, packs.table)

    def load(self, state: State) -> None:
        """The inverse of `state`."""
        self._runs, self._n = [], state.table["n"]
        if self._n:
            names = ("due", "number", "y", "weight", "time")
            sides = (as_objects(unpacked(state.under(name))) for name in ("ids", "keys", "groups"))
            self._runs = [Late(*(state.arrays[name] for name in names), *sides)]


def as_objects(values: list[Any] | None) -> NDArray[Any] | None:
    """A list as an array of objects, (n,); None stays None."""
    if values is None:
        return None
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def packed(values: list[Any] | None) -> State:
    """Ids, keys or groups for a state: arrays where all are integers or all are text, else JSON.

    Cost: 0.1 us a value; JSON alone took 0.3 and ten times the bytes.
    """
    kinds = set(map(type, values or ()))
    if values and kinds == {int} and max(map(abs, values)) < 2**63:
        return State({"integers": np.array(values, dtype=np.int64)}, {"kind": "integers"})
    if values and kinds == {str}:
        parts = [value.encode("utf-8", "surrogatepass") for value in values]
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        text = np.frombuffer(b"".join(parts), dtype=np.uint8)
        return State({"lengths": lengths, "text": text}, {"kind": "text"})
    return State({}, {"kind": "json", "values": values})


def unpacked(state: State) -> list[Any] | None:
    """The inverse of `packed`."""
    kind = state.table["kind"]
    if kind == "integers":
        return list(state.arrays["integers"].tolist())
    if kind == "json":
        values: list[Any] | None = state.table["values"]
        return values
    text, out, at = state.arrays["text"].tobytes(), [], 0
    for n in state.arrays["lengths"].tolist():
        out.append(text[at : at + n].decode("utf-8", "surrogatepass"))
        at += n
    return out


# -- blocks ----------------------------------------------------------------------------------------


class Woven(NamedTuple):
    """Where the rows of a block and the labels between them stand, and what the labels say.

    event_at: (k,) places of the block's rows. label_at: (m,) places of the labels, ascending.
    mode: (k + m,). number: (k,) numbers of the events, -1 where no label will come.
    came: (m,) times of the label rows, NO_TIME where there is none.
    """

    event_at: NDArray[np.intp]
    label_at: NDArray[np.intp]
    mode: U1
    number: I8
    came: I8


def modes_of(
    event_at: NDArray[np.intp], label_at: NDArray[np.intp], expired: B1 | None = None
) -> U1:
    """SCORED where events stand, LEARN where labels do, EXPIRED where those do not come."""
    mode = np.full(event_at.shape[0] + label_at.shape[0], SCORED, dtype=np.uint8)
    mode[label_at] = LEARN if expired is None else np.where(expired, EXPIRED, LEARN)
    return mode


def weave(block: Block, late: Late | None, woven: Woven, labels: Vocabulary | None) -> Block:
    """The rows of a block, without their labels, and labels between them.

    The features of a label's row are missing: what was logged at scoring says them. Rows of the
    block whose mode is LABELLED keep their y. Cost: one copy of the block, 60 ns an event at d = 8.
    """
    if late is None or late.n == 0:
        y = np.where(_column(woven.mode == LABELLED, block.y), block.y, np.nan)
        return block.replace(y=y, mode=woven.mode, labels=labels, events=woven.number,
                             label_times=None)  # fmt: skip
    n, at, there = woven.mode.shape[0], woven.event_at, woven.label_at
    X = np.full((n, block.d), np.nan)
    X[at] = block.X
    y = np.full((n, *late.y.shape[1:]), np.nan)
    y[there] = late.y
    whole = at[woven.mode[at] == LABELLED]
    if whole.shape[0]:
        y[whole] = block.y[woven.mode[at] == LABELLED]
    times = None if block.times is None and (woven.came == NO_TIME).all() else NO_TIME
    return Block(
        X, y, _mixed(n, at, block.weight, there, late.weight), woven.mode, block.features, labels,
        _sides(n, at, block.ids, there, late.ids),
        None if times is None else _mixed(n, at, _times(block), there, woven.came),
        _sides(n, at, block.keys, there, late.keys),
        None if block.sparse is None else _spread(block.sparse, at, n),
        events=_mixed(n, at, woven.number, there, late.number),
        groups=_sides(n, at, block.groups, there, late.groups),
    )  # fmt: skip


def _column(rows: B1, like: NDArray[Any]) -> B1:
    """A mask of rows in the shape of a column."""
    return rows if like.ndim == 1 else rows[:, None]


def _times(block: Block) -> I8:
    return np.full(block.n, NO_TIME, dtype=np.int64) if block.times is None else block.times


def _mixed(
    n: int, at: NDArray[np.intp], one: NDArray[Any], there: NDArray[np.intp], other: NDArray[Any]
) -> NDArray[Any]:
    """One column from two, at their places."""
    out = np.empty(n, dtype=one.dtype)
    out[at], out[there] = one, other
    return out


def _sides(
    n: int,
    at: NDArray[np.intp],
    one: NDArray[Any] | None,
    there: NDArray[np.intp],
    other: NDArray[Any] | None,
) -> NDArray[Any] | None:
    """The same for ids, keys and groups, which may be absent."""
    if one is None and other is None:
        return None
    alike = one is not None and other is not None and one.dtype == other.dtype
    out = np.empty(n, dtype=one.dtype) if alike and one is not None else _nones(n)
    if one is not None:
        out[at] = one
    if other is not None:
        out[there] = other
    return out


def _spread(sparse: Csr, at: NDArray[np.intp], n: int) -> Csr:
    """The sparse rows at their places, and empty ones elsewhere."""
    lengths = np.zeros(n + 1, dtype=np.int64)
    lengths[at + 1] = np.diff(sparse.indptr)
    return Csr(sparse.values, sparse.columns, np.cumsum(lengths), sparse.width)


def no_events(features: Features, sparse_width: int, like: Block | None = None) -> Block:
    """A block without a row, for labels that come after the last event."""
    if like is not None:
        return like.rows(0, 0)
    empty = np.zeros(0)
    sparse = Csr(empty, empty.astype(np.int64), np.zeros(1, np.int64), sparse_width)
    return Block(np.zeros((0, len(features))), empty, empty, empty.astype(np.uint8), features,
                 sparse=sparse if sparse_width else None)  # fmt: skip


class Arrivals:
    """Class codes in the order in which labels arrive, from codes in the order of their events.

    A later label, altered, must not change a code that was handed out before it.
    """

    def __init__(self, source: Vocabulary | None, start: Sequence[Any] = ()) -> None:
        self.source = source
        self.labels = None if source is None else Vocabulary(start)
        self._table: F8 = np.full(0 if source is None else len(source), np.nan)
        for code, value in enumerate(start if source is not None else ()):
            if (place := source.find(value)) >= 0:  # type: ignore[union-attr]
                self._table[place] = code

    def code(self, y: F8) -> F8:
        """Codes of the source, NaN where there is none, as our own, (n,); new ones in this order.

        Cost: 3 ns a code where all are known.
        """
        if self.source is None or self.labels is None:
            return y
        known = ~np.isnan(y)
        local = y[known].astype(np.int64)
        if local.shape[0] and int(local.max()) >= self._table.shape[0]:
            more = np.full(len(self.source) - self._table.shape[0], np.nan)
            self._table = np.concatenate([self._table, more])
        coded = self._table[local]
        if np.isnan(coded).any():
            for code in dict.fromkeys(local[np.isnan(coded)].tolist()):
                self._table[code] = self.labels.code(self.source.values[code])
            coded = self._table[local]
        out = np.full(y.shape, np.nan)
        out[known] = coded
        return out
