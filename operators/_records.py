"""Records of a bank by key: a table of keys, room that grows, versions to go back to; not exported.

What learning changes is kept for a version that somebody holds, and for nobody else: a copy of each
record before its first change since, never of the bank.
"""

import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from streamlearn.block import F8, I8, U1
from streamlearn.contracts import Shelf
from streamlearn.jit import bank
from streamlearn.operators._cold import Cold
from streamlearn.operators._layout import Layout, relaid

EVERY = 4096  # events of a bank between two looks at what is to be evicted
_ROOM = 4096  # records, of which the room is a multiple
_NONE: I8 = np.zeros(0, dtype=np.int64)

Entry = tuple[str, tuple[Any, ...]]  # what was changed, and how it was


class Shard(NamedTuple):
    """Rows of a block whose records no other shard has; what their walk counts, and keeps."""

    order: I8
    counters: F8
    undo: tuple[I8, F8]  # slots, and their records as they were


class _Held(NamedTuple):
    """The arrays of a bank: records (room, stride), and by slot the key, and whether it is one."""

    layout: Layout
    blank: F8
    rows: F8
    keys: I8
    used: U1
    cold: Cold


class Version:
    """A moment of a bank, for as long as somebody holds it; `Records.restore` goes back to it.

    entries lead from the moment of `next`, or from now, back to this one.
    """

    __slots__ = ("__weakref__", "counters", "counts", "entries", "history", "left", "next")

    def __init__(self, counts: I8, counters: F8, history: int, left: list[I8] | None) -> None:
        self.counts, self.counters = counts, counters
        self.history, self.left = history, left
        self.entries: list[Entry] = []
        self.next: Version | None = None


class Records:
    """The records of all keys. Slot 0 holds the one of a key that is not known."""

    def __init__(self, layout: Layout, blank: Callable[[Layout], F8]) -> None:
        self._make_blank = blank
        self._version: weakref.ref[Version] | None = None
        self.history = 0  # another number: `left`, and SEEN, do not tell what changed since
        self.idle = False  # whether nothing changed since files were told all
        self._moved = False  # whether the table is not that of the records any more
        self.counters = np.zeros(bank.N_COUNTERS)
        self._begin(layout, Cold())

    def _begin(self, layout: Layout, cold: Cold) -> None:
        record = self._make_blank(layout)
        self._held = _Held(
            layout, record, record[None].copy(), np.zeros(1, np.int64), np.zeros(1, np.uint8), cold
        )
        self.counts = np.array([1, 0, 0], dtype=np.int64)
        self._free = _NONE.copy()
        self._table = np.full((16, 2), -1, dtype=np.int64)
        self.counters[:] = 0.0
        self.counters[bank.MARK] = -1.0
        self.left: list[I8] | None = None  # keys evicted since files were told all, if any were

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_version": None}  # versions are of this object alone

    def __deepcopy__(self, memo: dict[int, Any]) -> "Records":
        new = Records(self.layout, self._make_blank)
        keys, rows = self.whole(self.layout)
        cold_keys, cold_rows = self.cold.whole(self.layout)
        new.fill(self.layout, keys, rows, self.counters.copy())
        new.cold.put(cold_keys, cold_rows, self.layout)
        return new

    @property
    def layout(self) -> Layout:
        """The width of the records."""
        return self._held.layout

    @property
    def rows(self) -> F8:
        """(room, stride) the records by slot."""
        return self._held.rows

    @property
    def cold(self) -> Cold:
        """The records that were evicted."""
        return self._held.cold

    @property
    def n_keys(self) -> int:
        """Keys with a record here."""
        return int(self.counts[bank.N_KEYS])

    @property
    def nbytes(self) -> int:
        """Bytes of records and keys, without room for more, and of what was evicted to memory."""
        return self.n_keys * (8 * self.layout.stride + 32) + self.cold.nbytes

    # -- versions ----------------------------------------------------------------------------------

    def _last(self) -> Version | None:
        """The last version taken, where it, or one before it, is still held."""
        return None if self._version is None else self._version()

    def _note(self, what: str, *before: Any) -> None:
        """What is about to be changed, for the version that is held."""
        last = self._last()
        if last is not None:
            last.entries.append((what, before))

    def snapshot(self) -> Version:
        """This moment. Costs nothing but what is changed while it is held."""
        last = self._last()
        left = None if self.left is None else [*self.left]
        new = Version(self.counts.copy(), self.counters.copy(), self.history, left)
        if last is None:
            self.cold.tidy()
        else:
            last.next = new
        self._mark(new)
        return new

    def _mark(self, version: Version) -> None:
        self._version = weakref.ref(version)
        self.counters[bank.MARK] = self.counters[bank.COUNT]

    def restore(self, version: Version) -> None:
        """Go back, or forth, to a moment of this bank; those held stay what they are."""
        path, self.idle = [version], False
        while path[-1].next is not None:
            path.append(path[-1].next)
        assert path[-1] is self._last(), "a version of this bank"
        later: Version | None = None
        for node in reversed(path):
            redo = [self._undone(what, before) for what, before in reversed(node.entries)]
            if later is not None:
                later.entries, later.next = redo, node
            node.entries, node.next = [], None
            self.counts, self.counters = node.counts.copy(), node.counters.copy()
            later = node
        if version.history != self.history:
            self._end_history()
        elif version.left is not None:
            self.left = [*version.left]
        if self._moved:
            self._index()
        self._mark(version)

    def _undone(self, what: str, before: tuple[Any, ...]) -> Entry:
        """Make it as it was; how to make it as it is."""
        held = self._held
        self._moved = self._moved or what in ("all", "keys")
        if what == "all":
            self._held = before[0]
            return what, (held,)
        if what == "cold":
            return what, self.cold.mean(*before)
        slots = before[0]
        if what == "rows":
            now: tuple[Any, ...] = (slots, held.rows[slots])
            held.rows[slots[::-1]] = before[1][::-1]  # of a slot that stands twice the first counts
        else:
            now = (slots, held.keys[slots], held.used[slots])
            held.keys[slots], held.used[slots] = before[1:]
        return what, now

    def _index(self) -> None:
        """The table and the stack of free slots, anew. O(keys)."""
        self._moved = False
        used = self._held.used[: self.counts[bank.N_SLOTS]]
        slots, self._free = np.flatnonzero(used), np.flatnonzero(used == 0)[1:]
        self.counts[1:] = self._free.shape[0], slots.shape[0]
        size = 16
        while size < 4 * slots.shape[0]:
            size *= 2
        self._table = np.full((size, 2), -1, dtype=np.int64)
        bank.enter(self._table, self._held.keys[slots], slots)

    def load_kernels(self) -> None:
        """Those of the table that `slots_of` does not call at once."""
        self._index()
        self.record(bank.NO_KEY)

    def begin_history(self) -> None:
        """Files hold all: from here on `idle`, `left` and SEEN tell what changed."""
        self.history += 1
        self.left, self.idle = [], True

    def _end_history(self) -> None:
        """No files hold this: nothing is to be noted for them."""
        self.history += 1
        self.left = None

    # -- room --------------------------------------------------------------------------------------

    def widen(self, layout: Layout) -> None:
        """All records in another layout, those that were evicted when they come back."""
        if layout == self.layout:
            return
        held = self._held
        self._note("all", held)
        there = held.rows[: self.counts[bank.N_SLOTS]]
        rows = relaid(there, held.layout, layout)
        if rows is there:  # as wide: the arrays are another's from here on
            rows = rows.copy()
        n = rows.shape[0]
        blank = self._make_blank(layout)
        rows[0] = blank
        self._held = _Held(
            layout, blank, rows, held.keys[:n].copy(), held.used[:n].copy(), held.cold
        )

    def _make_room(self, slots: int) -> None:
        """Room for so many slots, or half as much again as there is."""
        room = self.rows.shape[0]
        if slots > room:
            self._resize(-(-max(slots, room + room // 2) // _ROOM) * _ROOM)

    def _resize(self, room: int) -> None:
        """Arrays anew: what numpy makes lies in large pages, what it grows in place does not.

        In large pages a walk over 100,000 keys took 84 % of the time, over a million 67 %. What
        nobody has written to takes no memory.
        """
        held = self._held
        rows, keys, used = (_wider(old, room) for old in (held.rows, held.keys, held.used))
        self._held = held._replace(rows=rows, keys=keys, used=used)

    def slots_of(self, keys: I8, mode: U1) -> I8:
        """The slots of the keys of a block, (n,); a new key that learns gets one.

        One that only asks has that of the unknown key, or of a copy of its evicted record, beyond
        all others.
        """
        n, counts = keys.shape[0], self.counts
        self.idle = self.idle and not (mode & bank.ACTIVE).any()
        if 2 * (counts[bank.N_KEYS] + n) > self._table.shape[0]:
            self._enlarge(n)
        slots, fresh = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        new = bank.assign(self._table, keys, mode, self._free, counts, slots, fresh)
        unknown = np.flatnonzero(slots < 0)
        if unknown.shape[0]:
            slots[unknown] = 0
            if len(self.cold):  # those that learn further down are not back yet
                self._lend(unknown, keys, slots)
        if new:
            self._make_room(int(counts[bank.N_SLOTS]))
            self._open(slots[fresh[:new]], keys[fresh[:new]])
        return slots

    def _enlarge(self, more: int) -> None:
        known = self._table[self._table[:, 1] >= 0]
        size = self._table.shape[0]
        while size < 4 * (self.n_keys + more):
            size *= 2
        self._table = np.full((size, 2), -1, dtype=np.int64)
        bank.enter(self._table, known[:, 0].copy(), known[:, 1].copy())

    def _open(self, slots: I8, keys: I8) -> None:
        """Records for new keys: blank, or as they were when they were evicted."""
        held = self._held
        self._note("keys", slots, held.keys[slots], held.used[slots])
        held.rows[slots], held.keys[slots], held.used[slots] = held.blank, keys, 1
        if len(self.cold):
            here, records, before = self.cold.take(keys, held.layout)
            held.rows[slots[here]] = records
            self._note("cold", *before)

    def _lend(self, unknown: I8, keys: I8, slots: I8) -> None:
        """Rows that only ask evicted records are shown copies of them."""
        here, records = self.cold.find(keys[unknown], self.layout)
        first = int(self.counts[bank.N_SLOTS])
        self._make_room(first + records.shape[0])
        slots[unknown[here]] = np.arange(first, first + records.shape[0])
        self.rows[first : first + records.shape[0]] = records

    def deal(self, slots: I8, mode: U1, shares: int) -> tuple[F8, list[Shard]]:
        """The count of events with each row of a block, and its rows by shards of the records."""
        events, order, ends = np.empty(slots.size), np.empty_like(slots), np.empty(shares, np.int64)
        if self._last() is None:
            self.counters[bank.MARK] = -1.0
        bank.deal(slots, mode, self.counters, events, order, ends)
        return events, [self._shard(order[a:b]) for a, b in pairwise([0, *ends.tolist()])]

    def _shard(self, order: I8) -> Shard:
        s, n = np.zeros(bank.N_COUNTERS), order.size
        s[bank.MARK] = self.counters[bank.MARK]
        if s[bank.MARK] < 0.0:  # nobody can go back
            n = 0
        return Shard(order, s, (np.empty(n, np.int64), np.empty((n, self.layout.stride))))

    def walked(self, shards: list[Shard]) -> None:
        """A block has been walked: what was counted, and what is kept of records that changed."""
        total = self.counters
        for _, s, (slots, records) in shards:
            total[bank.REFUSED] += s[bank.REFUSED]
            total[bank.LESSONS] += s[bank.LESSONS]
            total[bank.CLASSES] = max(total[bank.CLASSES], s[bank.CLASSES])
            n = int(s[bank.UNDONE])
            if n:
                self._note("rows", slots[:n], records[:n].copy())

    # -- eviction ----------------------------------------------------------------------------------

    def evict(self, most: int | None, age: int | None, keep: bool) -> None:
        """Evict keys not seen for `age` events, and the longest unseen of more than `most`.

        Then an eighth of `most` more, so that it is done once in as many new keys.
        """
        if age is None and (most is None or self.n_keys <= most):
            return  # a look at all records costs more than a block
        held, shared = self._held, bank.NO_KEY
        live = np.flatnonzero(held.used[: self.counts[bank.N_SLOTS]])
        live = live[held.keys[live] != shared]
        seen = held.rows[live, bank.SEEN]
        old = 0 if age is None else int(np.count_nonzero(seen + age < self.counters[bank.COUNT]))
        if most is not None and live.shape[0] - old > most:
            old = live.shape[0] - most + most // 8
        if old:
            order = np.lexsort((held.keys[live], seen))  # not by slot: that is no state
            self._evict(live[order[:old]], keep)
            if self._last() is None:
                self.cold.tidy()

    def _evict(self, slots: I8, keep: bool) -> None:
        held = self._held
        rows, keys = held.rows[slots], held.keys[slots]
        self._note("rows", slots, rows)
        self._note("keys", slots, keys, held.used[slots])
        if keep:
            self._note("cold", *self.cold.put(keys, rows, held.layout))
        held.rows[slots], held.used[slots] = held.blank, 0
        if self.left is not None:
            self.left.append(keys)
        self._index()

    def shelve(self, shelf: Shelf) -> None:
        """Keep evicted records there from now on, those of before too."""
        held = self._held
        self._note("all", held)
        if self._last() is not None:  # the arrays are the version's from here on
            self._held = held._replace(
                rows=held.rows.copy(), keys=held.keys.copy(), used=held.used.copy()
            )
        cold = Cold(shelf)
        if len(self.cold):
            keys, records = self.cold.whole(self.layout)
            cold.put(keys, records, self.layout)
        self._held = self._held._replace(cold=cold)

    def cold_names(self) -> list[str]:
        """Of the files that hold evicted records, in the order in which later ones count."""
        return self.cold.names(self._last() is None)

    # -- whole -------------------------------------------------------------------------------------

    def whole(self, layout: Layout) -> tuple[I8, F8]:
        """All keys, ascending, and their records in this layout."""
        slots = np.flatnonzero(self._held.used[: self.counts[bank.N_SLOTS]])
        slots = slots[np.argsort(self._held.keys[slots])]
        return self._held.keys[slots], relaid(self.rows[slots], self.layout, layout)

    def changed(self, since: float) -> tuple[I8, F8]:
        """Keys seen since then, or just before, and their records."""
        slots = np.flatnonzero(self._held.used[: self.counts[bank.N_SLOTS]])
        slots = slots[self.rows[slots, bank.SEEN] >= since]
        return self._held.keys[slots], self.rows[slots]

    def fill(self, layout: Layout, keys: I8, rows: F8, counters: F8) -> None:
        """Forget all, take these records over, in this layout."""
        self._note("all", self._held)
        self._begin(layout, Cold(self.cold.shelf))
        n = keys.shape[0]
        self._resize(1 + n)
        held = self._held
        held.rows[1 : 1 + n], held.keys[1 : 1 + n], held.used[1 : 1 + n] = rows, keys, 1
        self.counts[bank.N_SLOTS] = 1 + n
        self.counters[: bank.MARK] = counters[: bank.MARK]
        self._end_history()
        self._index()

    def only(self, key: int) -> "Records":
        """A copy of what is here of one key; the same counters."""
        new, found = Records(self.layout, self._make_blank), self.record(key)
        rows = np.zeros((0, self.layout.stride)) if found is None else found[None]
        new.fill(self.layout, np.full(len(rows), key), rows, self.counters)
        return new

    def record(self, key: int) -> F8 | None:
        """A copy of the record of a key, evicted or not."""
        one, slot = np.array([key]), np.empty(1, dtype=np.int64)
        if bank.look_up(self._table, one, slot):
            found: F8 = self.rows[slot[0]].copy()
            return found
        here, records = self.cold.find(one, self.layout)
        return records[0] if here[0] else None


def _wider(old: Any, room: int) -> Any:
    """A copy with room for so many rows."""
    new = np.empty((room, *old.shape[1:]), old.dtype)
    new[: old.shape[0]] = old
    return new
