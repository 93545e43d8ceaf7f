"""The records of a bank on an NVIDIA GPU, in place of those in memory; not exported."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from streamlearn.block import F8, I8
from streamlearn.errors import UserError
from streamlearn.jit import bank
from streamlearn.operators._cold import Cold
from streamlearn.operators._layout import Layout, relaid

_PIECE = 1 << 17  # rows that are copied to the device while those before are walked
_FULL = 0.6  # share of the table that may be taken


class Moment(NamedTuple):
    """All of a bank: its keys, their records, the counters."""

    keys: I8
    records: F8
    counters: F8


class DeviceBank:
    """Keys and records of one width; grows by doubling, evicts nothing.

    walker: of `jit.cuda.bank`, "walk_kalman", "walk_rls", "walk_classes" or "walk_rls_classes" |
    blank: the record of a key that is new | settings: as the kernels on the CPU take them.
    """

    def __init__(self, owner: str, walker: str, blank: F8, settings: F8, room: int = 1024) -> None:
        from streamlearn.jit.cuda import _compile
        from streamlearn.jit.cuda import bank as kernels

        _compile.require(owner)
        self._owner, self._device = owner, _compile
        self._kernels: Any = kernels
        self._walk = getattr(kernels, walker)
        self._blank, self._settings = blank, settings
        self.counters = np.zeros(bank.N_COUNTERS + 2)
        self._keys, self._records = self._empty(room)
        self._queues = [_compile.Queue(owner), _compile.Queue(owner)]

    @property
    def n_keys(self) -> int:
        """Keys with a record."""
        return int(self.counters[self._kernels.ENTERED])

    # -- the table ---------------------------------------------------------------------------------

    def _empty(self, room: int) -> tuple[Any, Any]:
        """An empty table for so many keys. Raises MemoryError."""
        size = 16
        while size * _FULL < room:
            size *= 2
        stride = self._blank.shape[0]
        keys, records = self._device.reserve(
            self._owner, [((size,), np.int64), ((size + 1, stride), np.float64)]
        )
        (blank,) = self._device.send(self._owner, self._blank)
        self._device.launch(
            self._owner, self._kernels.clear, self._kernels.THREADS, (keys, records, blank), 1024
        )
        return keys, records

    def _enter(self, keys: Any, rows: Any, room: int) -> None:
        """A table with these records and no others."""
        table, records = self._empty(room)
        (s,) = self._device.send(self._owner, np.zeros(self.counters.shape))
        arguments = (keys, rows, table, records, s)
        if keys.shape[0]:
            self._device.launch(
                self._owner, self._kernels.enter, self._kernels.THREADS, arguments, 1024
            )
        self._keys, self._records = table, records
        self.counters[self._kernels.ENTERED] = self._device.fetch(s)[self._kernels.ENTERED]

    def _make_room(self, more: int) -> None:
        """Room for so many keys beside those there are; both tables stand there for a moment."""
        wanted = self.n_keys + more
        if wanted > _FULL * self._keys.shape[0]:
            self._enter(self._keys, self._records, wanted)  # at least twice the places

    # -- the walk ----------------------------------------------------------------------------------

    def walk(self, rows: Any, keys: I8, out: Any) -> None:
        """Walk a block: rows = X | y (n, 1) | weight | mode; out as `jit.cuda.bank` says.

        In pieces: one is copied while the one before is walked; without the processor where arrays
        are pinned (see `jit.cuda._compile.pinned`).
        Raises: MemoryError before anything is changed.
        """
        if (keys == self._kernels.FREE).any():
            raise ValueError(f"{self._owner}: key must not be {self._kernels.FREE}")
        n = keys.shape[0]
        self._make_room(int(np.count_nonzero(rows[3] & np.uint8(6))))
        settings, s = self._device.send(self._owner, self._settings, self.counters)
        parts = [slice(at, min(at + _PIECE, n)) for at in range(0, n, _PIECE)]
        there = [self._room(rows, keys, out, part) for part in parts[: len(self._queues)]]
        cut = [self._cut(there[i % 2], part) for i, part in enumerate(parts)]
        before = None
        for i, part in enumerate(parts):
            queue, arrays = self._queues[i % 2], cut[i]
            for array, given in zip(arrays[:5], (*rows, keys), strict=True):
                queue.send(array, given[part])
            queue.wait(before)
            arguments = (
                tuple(arrays[:5]), (self._keys, self._records), tuple(arrays[5:10]), (settings, s),
                tuple(arrays[10:]),
            )  # fmt: skip
            queue.launch(self._walk, self._kernels.THREADS, arguments)
            before = queue.mark()
            if i > 0:  # not before: a copy to what is not pinned waits for the walk
                self._bring(i - 1, cut, parts, out)
        if parts:
            self._bring(len(parts) - 1, cut, parts, out)
        for queue in self._queues:
            queue.finish()
        self.counters[:] = self._device.fetch(s)

    def _bring(self, i: int, cut: list[list[Any]], parts: list[slice], out: Any) -> None:
        """The answers of piece i, to the host."""
        for array, given in zip(cut[i][10:], out, strict=True):
            self._queues[i % 2].fetch(array, given[parts[i]])

    def _room(self, rows: Any, keys: I8, out: Any, part: slice) -> list[Any]:
        """Arrays on the device for one piece: rows, keys, what sorts them, answers."""
        m, k = part.stop - part.start, self._kernels
        like = [((m, *a.shape[1:]), a.dtype) for a in (*rows, keys)]
        like += [((m,), np.int64)] * 4 + [((k.BINS * (-(-m // k.TILE) + 1),), np.int64)]
        like += [((min(m, a.shape[0]), *a.shape[1:]), np.float64) for a in out]
        return self._device.reserve(self._owner, like)

    def _cut(self, arrays: list[Any], part: slice) -> list[Any]:
        """The arrays of a piece that may be shorter than its room."""
        m = part.stop - part.start
        return [a if i == 9 or a.shape[0] <= m else a[:m] for i, a in enumerate(arrays)]

    # -- state -------------------------------------------------------------------------------------

    def whole(self) -> Moment:
        """All records, in order of their keys: where they stand on the device is left to chance."""
        keys = self._device.fetch(self._keys)
        places = np.flatnonzero(keys != self._kernels.FREE)
        places = places[np.argsort(keys[places])]
        return Moment(keys[places], self._device.fetch(self._records)[places], self.counters.copy())

    def fill(self, moment: Moment) -> None:
        """Hold these records and no others."""
        keys, records = self._device.send(self._owner, moment.keys, moment.records)
        self._enter(keys, records, moment.keys.shape[0])
        entered = self.n_keys
        self.counters[:] = moment.counters
        self.counters[self._kernels.ENTERED] = entered

    def record(self, key: int) -> F8 | None:
        """A copy of a key's record, None without one; reads the table of keys."""
        places = np.flatnonzero(self._device.fetch(self._keys) == key)
        if not places.size or key == self._kernels.FREE:
            return None
        return np.asarray(self._device.fetch(self._records[int(places[0])]))


class DeviceRecords:
    """In the place of `_records.Records` in a bank: evicts nothing, a snapshot is a copy."""

    def __init__(
        self, owner: str, walker: str, layout: Layout, blank: Callable[[Layout], F8], settings: F8
    ) -> None:
        self._given = owner, walker, blank, settings
        self.cold = Cold()
        self.layout, self._bank = layout, self._empty(layout)

    def _empty(self, layout: Layout) -> DeviceBank:
        """A bank of this width. Raises UserError beyond what a thread has room for."""
        from streamlearn.jit.cuda.bank import MAX_D, MAX_K

        owner, walker, blank, settings = self._given
        if layout.d >= MAX_D or layout.K > MAX_K:
            raise UserError(
                f"{owner}: device must be cpu beyond {MAX_D - 1} features or {MAX_K} classes, "
                f"got 'cuda' with {layout.d} and {layout.K}"
            )
        return DeviceBank(owner, walker, blank(layout), settings)

    def __deepcopy__(self, memo: dict[int, Any]) -> "DeviceRecords":
        owner, walker, blank, settings = self._given
        new = DeviceRecords(owner, walker, self.layout, blank, settings)
        new.restore(self.snapshot())
        return new

    @property
    def counters(self) -> F8:
        """As of `_records.Records`, but for COUNT, which is of rows."""
        counters = self._bank.counters[: bank.N_COUNTERS]
        counters[bank.CLASSES] = max(counters[bank.CLASSES], self._bank.counters[-1])
        return counters

    @property
    def n_keys(self) -> int:
        """Keys with a record."""
        return self._bank.n_keys

    @property
    def nbytes(self) -> int:
        """Bytes of records and keys, without room for more."""
        return self.n_keys * (8 * self.layout.stride + 8)

    def walk(self, rows: Any, keys: I8, out: Any) -> None:
        """Walk a block on the device."""
        self._bank.walk(rows, keys, out)

    def record(self, key: int) -> F8 | None:
        """A copy of a key's record, None without one."""
        return self._bank.record(key)

    def widen(self, layout: Layout) -> None:
        """Another width for every record: through the host."""
        if layout[:2] != self.layout[:2]:
            keys, records, counters = self._bank.whole()
            self.fill(layout, keys, relaid(records, self.layout, layout), counters)

    def whole(self, layout: Layout) -> tuple[I8, F8]:
        """Keys, ascending, and their records in this layout."""
        keys, records, _ = self._bank.whole()
        return keys, relaid(records, self.layout, layout)

    def fill(self, layout: Layout, keys: I8, rows: F8, counters: F8) -> None:
        """Hold these records and no others."""
        new = self._empty(layout)
        all_counters = np.zeros(new.counters.shape)
        all_counters[: counters.shape[0]] = counters
        new.fill(Moment(keys, rows, all_counters))
        self.layout, self._bank = layout, new

    def snapshot(self) -> tuple[Layout, Moment]:
        """This moment: a copy of all records, on the host."""
        return self.layout, self._bank.whole()

    def restore(self, snapshot: tuple[Layout, Moment]) -> None:
        """Go back to a moment."""
        layout, (keys, records, counters) = snapshot
        self.fill(layout, keys, records, counters)
