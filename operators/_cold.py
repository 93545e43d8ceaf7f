"""Records of a bank that were evicted: kept as they were, in memory or in files; not exported."""

from typing import NamedTuple

import numpy as np

from streamlearn.block import B1, F8, I8, Columns
from streamlearn.contracts import Shelf
from streamlearn.jit import bank
from streamlearn.operators._layout import Layout, relaid

_GONE = 1 << 62  # what a key means that came back
_ROWS = 32  # bits of the row in what a key means; the number of its segment stands above
_MAX_DEAD = 4096  # rows of which nobody knows any more, beyond which, and beyond the others, go

Located = tuple[I8, I8]  # keys, and what they meant


class Segment(NamedTuple):
    """Some evicted records, of one shape; where they lie in a file, its name."""

    keys: I8
    records: F8
    layout: Layout
    name: str | None


class Cold:
    """Evicted records by key. A key that comes back takes its record away.

    Memory: 32 to 64 bytes a key; the records too, where there is no shelf.
    """

    def __init__(self) -> None:
        self.shelf: Shelf | None = None
        self._clear()

    def _clear(self) -> None:
        self.segments: dict[int, Segment] = {}
        self._n_rows = 0
        self._next = 0
        self._n_entered = 0  # keys in the table, those that came back among them
        self.n = 0
        self._table = np.full((16, 2), -1, dtype=np.int64)

    def __len__(self) -> int:
        return self.n

    def put(self, keys: I8, records: F8, layout: Layout, whole: bool) -> Located:
        """Keep these records; what their keys meant before. whole: leave all segments as they are.

        A record is written once, and again only where most of what lies there came back.
        """
        columns: Columns = {"keys": keys, "records": records, "layout": np.array(layout[:2])}
        name = None
        if self.shelf is not None:
            name, columns = self.shelf.write(columns)
        at = self._adopt(Segment(keys, columns["records"], layout, name))
        before = self.mean(keys, at)
        if not whole and self._n_rows - self.n > max(self.n, _MAX_DEAD):
            self._tidy()
        return before

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

    def _tidy(self) -> None:
        """Let go of segments without a record, and write the rest of thin ones anew."""
        _, values = self._living()
        held = np.bincount(values >> _ROWS, minlength=self._next)
        for number, segment in list(self.segments.items()):
            if 2 * held[number] >= len(segment.keys):
                continue
            del self.segments[number]
            self._n_rows -= len(segment.keys)
            if held[number]:
                rows = values[(values >> _ROWS) == number] & ((1 << _ROWS) - 1)
                self.put(segment.keys[rows], segment.records[rows], segment.layout, True)
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

    def shelve(self, shelf: Shelf) -> None:
        """Keep records there from now on; those that lie elsewhere are written."""
        keys, values = self._living()
        old, before = list(self.segments.values()), self.shelf
        layouts = {s.layout for s in old}
        parts = [(layout, self._of(values, layout)) for layout in sorted(layouts)]
        records = [self._fetch(values[who], layout) for layout, who in parts]
        self._clear()
        self.shelf = shelf
        for (layout, who), some in zip(parts, records, strict=True):
            if who.any():
                self.put(keys[who], some, layout, True)
        for segment in old:
            if segment.name is not None and before is not None:
                before.release(segment.name)

    def _of(self, values: I8, layout: Layout) -> B1:
        """Which of these lie in segments of this layout."""
        numbers = [number for number, s in self.segments.items() if s.layout == layout]
        return np.isin(values >> _ROWS, numbers)

    def names(self) -> list[str]:
        """Of the files, in the order in which later ones count."""
        return [segment.name for segment in self.segments.values() if segment.name is not None]

    def open(self, names: list[str], variance: float) -> None:
        """What lies in these files of the shelf, later ones counting; those before are let go."""
        self.clear()
        assert self.shelf is not None  # the caller saw to it
        for name in names:
            _, columns = self.shelf.open(name)
            d, K = columns["layout"].tolist()
            keys = np.array(columns["keys"])
            at = self._adopt(Segment(keys, columns["records"], Layout(d, K, variance), name))
            self.mean(keys, at)

    def drop(self, keys: I8) -> None:
        """These keys are not here any more, if they were."""
        values = np.empty(len(keys), dtype=np.int64)
        bank.look_up(self._table, keys, values)
        here = keys[values >= 0]
        self.mean(here, np.full(len(here), _GONE))

    def clear(self) -> None:
        """Forget all."""
        for segment in self.segments.values():
            if segment.name is not None and self.shelf is not None:
                self.shelf.release(segment.name)
        self._clear()
