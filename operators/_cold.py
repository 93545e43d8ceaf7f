"""Records of a bank that were evicted: kept as they were, in memory or in files; not exported."""

import weakref
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from streamlearn.block import B1, F8, I8, Columns
from streamlearn.contracts import Shelf
from streamlearn.jit import bank
from streamlearn.operators._layout import Layout, relaid

_GONE = 1 << 62  # what a key means that came back
_ROWS = 32  # bits of the row in what a key means; the number of its segment stands above
_MAX_DEAD = 4096  # rows of which nobody knows any more, beyond which, and beyond the others, go
_SMALL = 8192  # rows of a segment that is written anew with others like it
_MANY = 256  # segments between two looks for small ones: a process may map 65,530 files

Located = tuple[I8, I8]  # keys, and what they meant


class Segment(NamedTuple):
    """Some evicted records, of one shape; where they lie in a file, its name."""

    keys: I8
    records: F8
    layout: Layout
    name: str | None


class Cold:
    """Evicted records by key. A key that comes back takes its record away.

    Memory: 32 to 128 bytes a key; the records too, where there is no shelf.
    """

    def __init__(self, shelf: Shelf | None = None) -> None:
        self.shelf = shelf
        self.segments: dict[int, Segment] = {}
        if shelf is not None:  # nobody may go back to it any more: so the files are let go
            weakref.finalize(self, _released, shelf, self.segments).atexit = False
        self._n_rows = 0
        self._next = 0
        self._crowded = _MANY  # segments at which to look for small ones
        self._n_entered = 0  # keys in the table, those that came back among them
        self.n = 0
        self._table = np.full((16, 2), -1, dtype=np.int64)

    def __len__(self) -> int:
        return self.n

    def put(self, keys: I8, records: F8, layout: Layout) -> Located:
        """Keep these records; what their keys meant before.

        A record is written once, and again only by `tidy`.
        """
        columns: Columns = {"keys": keys, "records": records, "layout": np.array(layout[:2])}
        name = None
        if self.shelf is not None:
            name, columns = self.shelf.write(columns)
        return self.mean(keys, self._adopt(Segment(keys, columns["records"], layout, name)))

    def _adopt(self, segment: Segment) -> I8:
        """A further segment; what its keys are to mean."""
        number, self._next = self._next, self._next + 1
        self.segments[number] = segment
        self._n_rows += len(segment.keys)
        return (number << _ROWS) + np.arange(len(segment.keys))

    def mean(self, keys: I8, values: I8) -> Located:
        """Let these keys mean these values; what they meant before."""
        self._make_room(len(keys))
        before = np.empty(len(keys), dtype=np.int64)
        bank.look_up(self._table, keys, before)
        before[before < 0] = _GONE
        self._n_entered += bank.enter(self._table, keys, values)
        self.n += int(np.count_nonzero(values != _GONE) - np.count_nonzero(before != _GONE))
        return keys, before

    def _make_room(self, more: int) -> None:
        """A larger table, without keys that came back, where it would be more than half full."""
        if 2 * (self._n_entered + more) <= self._table.shape[0]:
            return
        keys, values = self._living()
        size = self._table.shape[0]
        while size < 4 * (len(keys) + more):
            size *= 2
        self._table = np.full((size, 2), -1, dtype=np.int64)
        self._n_entered = int(bank.enter(self._table, keys, values))

    def _living(self) -> Located:
        """Keys of all records, ascending, and where these are."""
        known = self._table[(self._table[:, 1] >= 0) & (self._table[:, 1] != _GONE)]
        known = known[np.argsort(known[:, 0])]
        return np.ascontiguousarray(known[:, 0]), np.ascontiguousarray(known[:, 1])

    def find(self, keys: I8, layout: Layout) -> tuple[B1, F8]:
        """Which of these keys (m,) are here, and their records, in this layout."""
        values = np.empty(len(keys), dtype=np.int64)
        bank.look_up(self._table, keys, values)
        here = (values >= 0) & (values != _GONE)
        return here, self._fetch(values[here], layout)

    def take(self, keys: I8, layout: Layout) -> tuple[B1, F8, Located]:
        """As `find`; they are here no longer. Also what they meant before."""
        here, records = self.find(keys, layout)
        gone = np.full(int(np.count_nonzero(here)), _GONE)
        return here, records, self.mean(keys[here], gone)

    def _fetch(self, values: I8, layout: Layout) -> F8:
        """The records at these places."""
        out = np.empty((len(values), layout.stride))
        numbers, rows = values >> _ROWS, values & ((1 << _ROWS) - 1)
        for number in np.unique(numbers).tolist():
            who, segment = numbers == number, self.segments[number]
            out[who] = relaid(segment.records[rows[who]], segment.layout, layout)
        return out

    def tidy(self) -> None:
        """Where it pays, write anew what is left of thin segments, and small ones as one.

        To be called while nobody can go back: what keys meant before lies in the old ones.
        """
        dead = self._n_rows - self.n
        if dead <= max(self.n, _MAX_DEAD) and len(self.segments) < self._crowded:
            return
        keys, values = self._living()
        order = np.argsort(values)  # by segment
        held, keys, values = self._held(), keys[order], values[order]
        ends = np.cumsum(held)
        for group in list(self._groups(held)):
            who = np.concatenate([np.arange(ends[i] - held[i], ends[i]) for i in group])
            self._write_anew(group, keys[who], values[who])
        self._crowded = len(self.segments) + _MANY

    def _held(self) -> I8:
        """How many records each segment holds, by its number. O(keys)."""
        values = self._table[:, 1]
        values = values[(values >= 0) & (values != _GONE)]
        return np.bincount(values >> _ROWS, minlength=self._next)

    def _groups(self, held: I8) -> Iterator[list[int]]:
        """Segments that are thin or small, as many at a time as make a large one."""
        group: list[int] = []
        for number, segment in self.segments.items():
            if held[number] >= _SMALL and 2 * held[number] >= len(segment.keys):
                continue
            group.append(number)
            if held[group].sum() >= _SMALL:
                yield group
                group = []
        if group:
            yield group

    def _write_anew(self, numbers: list[int], keys: I8, values: I8) -> None:
        """All that these segments hold as one, in a layout that has room for it."""
        if len(keys):
            old = [self.segments[number].layout for number in numbers]
            layout = old[0]._replace(d=max(x.d for x in old), K=max(x.K for x in old))
            self.put(keys, self._fetch(values, layout), layout)
        for number in numbers:
            self._let_go(number)

    def _let_go(self, number: int) -> None:
        segment = self.segments.pop(number)
        self._n_rows -= len(segment.keys)
        if segment.name is not None and self.shelf is not None:
            self.shelf.release(segment.name)

    def whole(self, layout: Layout) -> tuple[I8, F8]:
        """All keys, ascending, and their records in this layout."""
        keys, values = self._living()
        return keys, self._fetch(values, layout)

    @property
    def nbytes(self) -> int:
        """Bytes in memory: of the table, and of records that lie in no file."""
        held = (s.keys.nbytes + s.records.nbytes for s in self.segments.values() if s.name is None)
        return 16 * self.n + sum(held)

    # -- files -------------------------------------------------------------------------------------

    def names(self, settled: bool) -> list[str]:
        """Of the files that hold a record, in the order in which later ones count.

        One that holds none may be of a moment that was gone back from, where its records would
        count. settled: nobody can go there any more, so it is let go.
        """
        held = self._held()
        if settled:
            for number in [number for number in self.segments if not held[number]]:
                self._let_go(number)
        return [s.name for i, s in self.segments.items() if s.name is not None and held[i]]

    def open(self, names: list[str], like: Layout) -> None:
        """What lies in these files of the shelf, of other widths, later ones counting."""
        assert self.shelf is not None  # the caller saw to it
        for name in names:
            _, columns = self.shelf.open(name)
            d, K = columns["layout"].tolist()
            keys = np.array(columns["keys"])
            at = self._adopt(Segment(keys, columns["records"], like._replace(d=d, K=K), name))
            self.mean(keys, at)

    def drop(self, keys: I8) -> None:
        """These keys are not here any more, if they were."""
        values = np.empty(len(keys), dtype=np.int64)
        bank.look_up(self._table, keys, values)
        here = keys[values >= 0]
        self.mean(here, np.full(len(here), _GONE))


def _released(shelf: Shelf, segments: dict[int, Segment]) -> None:
    for segment in segments.values():
        if segment.name is not None:
            shelf.release(segment.name)
