"""Events that wait for their label, as columns by number; the oldest may wait in files.

What is kept of an event is all that its label's row must say, but for its features. Rows stand in
segments of 4,096 events by their number, so what is spilled does not depend on how the stream was
cut.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import B1, F8, I8
from streamlearn.contracts import State, merged
from streamlearn.late_rows import as_objects, packed, unpacked
from streamlearn.spill import Spill

_NEVER = int(np.iinfo(np.int64).max)
SEGMENT = 4096  # events
_SHIFT = 12
_BYTES = 200  # that an event counts for: its columns, its id and the entry that finds it
_PLAIN = ("time", "deadline", "weight")
_SIDES = ("ids", "keys", "groups")


class Rows(NamedTuple):
    """Some events.

    number, time, deadline: (n,) int64. weight: (n,). ids, keys, groups: (n,) objects, or None.
    """

    number: I8
    time: I8
    deadline: I8
    weight: F8
    ids: NDArray[Any] | None
    keys: NDArray[Any] | None
    groups: NDArray[Any] | None

    @property
    def n(self) -> int:
        """Number of events."""
        return int(self.number.shape[0])

    def some(self, rows: NDArray[Any] | slice) -> "Rows":
        """Some of them."""
        return Rows(*(None if column is None else column[rows] for column in self))  # type: ignore[arg-type]


class _Segment:
    """Rows of one stretch of numbers, of which some still wait.

    file: where they lie in one, its name; then the columns are maps, and what is asked for is read.
    hashes, places: of those in a file the hashes of what they are found by, ascending, and the row
    of each.
    """

    __slots__ = ("alive", "file", "first", "hashes", "n_alive", "places", "room", "rows")

    def __init__(self, rows: Any, alive: B1, file: str | None = None) -> None:
        self.rows, self.alive, self.file = rows, alive, file
        self.n_alive = int(np.count_nonzero(alive))
        self.first = int(rows.deadline.min(initial=_NEVER))  # no deadline is before it
        self.room: Any = None  # while it grows: columns of a whole segment, and what is alive
        self.hashes: I8 = np.zeros(0, np.int64)
        self.places: NDArray[np.intp] = np.zeros(0, np.intp)

    def append(self, rows: Rows) -> None:
        """More rows behind those that there are."""
        n = self.rows.n
        if self.room is None or n + rows.n > self.room[0].n:
            kinds = [np.int64] * 3 + [np.float64] + [np.dtype(object)] * 3
            room = Rows(*(None if column is None else np.empty(2 * SEGMENT, kind)
                          for kind, column in zip(kinds, self.rows, strict=True)))  # type: ignore[arg-type]  # fmt: skip
            self.room = room, np.ones(2 * SEGMENT, dtype=np.bool_)
            for whole, column in zip(room, self.rows, strict=True):
                if whole is not None:
                    whole[:n] = column
            self.room[1][:n] = self.alive
        end = n + rows.n
        for whole, column in zip(self.room[0], rows, strict=True):
            if whole is not None:
                whole[n:end] = column
        self.rows, self.alive = self.room[0].some(slice(0, end)), self.room[1][:end]
        self.n_alive += rows.n
        self.first = min(self.first, int(rows.deadline.min(initial=_NEVER)))

    def some(self, rows: Any) -> Rows:
        """Some of its rows."""
        found: Rows = self.rows.some(rows)
        return found

    def living(self) -> Rows:
        """Those that wait."""
        return self.some(np.flatnonzero(self.alive))


class _Text:
    """Ids, keys or groups of a file: like an array of objects, each made when it is asked for."""

    def __init__(self, state: State) -> None:
        self._state, self._kind = state, state.table["kind"]
        if self._kind == "text":
            self._ends = np.cumsum(state.arrays["lengths"])
        elif self._kind == "json":
            self._values = as_objects(unpacked(state))

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        if self._kind == "json":
            values: Any = self._values
            return np.asarray(values[rows])
        if self._kind == "integers":
            return np.asarray(self._state.arrays["integers"][rows].astype(object))
        ends, lengths = self._ends[rows].tolist(), self._state.arrays["lengths"][rows].tolist()
        text = self._state.arrays["text"]
        parts = [bytes(text[end - n : end]) for end, n in zip(ends, lengths, strict=True)]
        found = as_objects([part.decode("utf-8", "surrogatepass") for part in parts])
        assert found is not None
        return found


class Backlog:
    """Events that wait, found by number; those in files also by id.

    Args:
        by_key: whether they are looked for by key, not by id.
        memory: bytes beside which the oldest are written to files, at 200 an event. None: never.
        spill: where files go; None for a temporary folder, made when it is needed.
    Cost: 50 bytes an event in memory, 1 us an event that goes to a file and comes back.
    """

    def __init__(self, by_key: bool = False, memory: int | None = None,
                 spill: Spill | None = None) -> None:  # fmt: skip
        self.by_key, self.memory, self._spill = by_key, memory, spill
        self._segments: dict[int, _Segment] = {}
        self._files: dict[str, _Segment] = {}
        self._in_memory = 0
        self._soonest = _NEVER  # no deadline is before it
        self._thin = False  # whether `let_go` has something to do

    def spill_to(self, spill: Spill, memory: int) -> None:
        """Where files go, and from how many bytes on; before the first event."""
        self._spill, self.memory = spill, memory

    @property
    def spilled(self) -> int:
        """Events that wait in files."""
        return sum(segment.n_alive for segment in self._files.values())

    # -- events ------------------------------------------------------------------------------------

    def append(self, rows: Rows) -> None:
        """Events with the next numbers, of one segment."""
        if not rows.n:
            return
        which = int(rows.number[0]) >> _SHIFT
        segment = self._segments.get(which)
        if segment is None or segment.file is not None:
            segment = self._segments[which] = _Segment(rows.some(slice(0, 0)), _all(0))
        segment.append(rows)
        self._soonest = min(self._soonest, segment.first)
        self._in_memory += rows.n

    def gather(self, numbers: I8) -> Rows:
        """These events, in this order; all of them are there."""
        parts, where = [], []
        for segment, who in self._groups(numbers):
            parts.append(segment.some(self._places(segment, numbers[who])))
            where.append(who)
        if len(parts) == 1:
            return parts[0]
        if not parts:
            none = np.zeros(0, dtype=np.int64)
            return Rows(none, none, none, np.zeros(0), none.astype(object), None, None)
        order = np.argsort(np.concatenate(where), kind="stable")
        return joined(parts).some(order)

    def kill(self, numbers: I8) -> None:
        """These wait no longer."""
        for segment, who in self._groups(numbers):
            places = self._places(segment, numbers[who])
            segment.alive[places] = False
            segment.n_alive -= places.shape[0]
            if segment.file is None:
                self._in_memory -= places.shape[0]
            self._thin = self._thin or 2 * segment.n_alive < segment.rows.n

    def let_go(self, end: int) -> None:
        """Segments before this number, in which nothing waits any more, go; thin ones shrink."""
        if not self._thin:
            return
        self._thin = False
        for which, segment in list(self._segments.items()):
            full = (which + 1) << _SHIFT <= end
            if not segment.n_alive and (full or segment.file is not None):
                del self._segments[which]
            elif full and segment.file is None and 2 * segment.n_alive < segment.rows.n:
                self._segments[which] = _Segment(segment.living(), _all(segment.n_alive))
        for name in [name for name, segment in self._files.items() if not segment.n_alive]:
            del self._files[name]
            assert self._spill is not None
            self._spill.release(name)

    def _groups(self, numbers: I8) -> Iterator[tuple[_Segment, NDArray[np.intp]]]:
        """Segments with those of these numbers that are theirs."""
        if not numbers.shape[0]:
            return
        which = numbers >> _SHIFT
        if (which == which[0]).all():
            yield self._segments[int(which[0])], np.arange(numbers.shape[0])
            return
        order = np.argsort(which, kind="stable")
        starts = np.flatnonzero(np.diff(which[order], prepend=-1))
        for who in np.split(order, starts[1:]):
            yield self._segments[int(which[who[0]])], who

    @staticmethod
    def _places(segment: _Segment, numbers: I8) -> NDArray[np.intp]:
        return np.searchsorted(segment.rows.number, numbers)

    def due(self, before: int) -> Rows | None:
        """Those whose deadline is before a time, by deadline and number; None if there are none."""
        if before <= self._soonest:
            return None
        parts = []
        for segment in self._each():
            if segment.first < before:
                deadline = segment.rows.deadline
                late = segment.alive & (deadline < before)
                if late.any():
                    parts.append(segment.some(np.flatnonzero(late)))
                segment.first = int(deadline[segment.alive].min(initial=_NEVER))
        self._soonest = min((s.first for s in self._segments.values()), default=_NEVER)
        if not parts:
            return None
        whole = joined(parts)
        return whole.some(np.lexsort((whole.number, whole.deadline)))

    def oldest(self) -> Iterator[tuple[int, Any]]:
        """Number of each that waits, in order, and what it is found by."""
        for segment in self._each():
            rows = segment.living()
            yield from zip(rows.number.tolist(), self.names_of(rows).tolist(), strict=True)

    def _each(self) -> list[_Segment]:
        """Each segment once, in order."""
        return list({id(s): s for _, s in sorted(self._segments.items())}.values())

    def names_of(self, rows: Rows) -> NDArray[Any]:
        """What events are found by."""
        names = rows.keys if self.by_key else rows.ids
        assert names is not None
        return names

    # -- files -------------------------------------------------------------------------------------

    def shrink(self) -> list[tuple[int, Any]]:
        """Write the oldest to a file where there are too many: their numbers, and what finds them.

        To be called when a segment is full.
        """
        gone: list[tuple[int, Any]] = []
        while self.memory is not None and self._in_memory * _BYTES > self.memory:
            chosen, n = [], 0
            for which in sorted(w for w, s in self._segments.items() if s.file is None):
                chosen.append(which)
                n += self._segments[which].n_alive
                if n * _BYTES > self.memory // 8:
                    break
            rows = joined([self._segments[which].living() for which in chosen])
            self._in_memory -= rows.n
            segment = self._written(rows)
            for which in chosen:
                del self._segments[which]
            self._adopt(segment)
            gone += zip(rows.number.tolist(), self.names_of(rows).tolist(), strict=True)
        return gone

    def _written(self, rows: Rows) -> _Segment:
        if self._spill is None:
            self._spill = Spill()
        state = _state_of(rows)
        table = np.frombuffer(json.dumps(state.table).encode(), dtype=np.uint8)
        name, columns = self._spill.write(state.arrays | {"table": table})
        return self._from_file(name, columns)

    def _from_file(self, name: str, columns: dict[str, NDArray[Any]]) -> _Segment:
        state = State(columns, json.loads(columns["table"].tobytes()))
        sides: list[Any] = [
            None if state.under(side).table.get("values", 0) is None else _Text(state.under(side))
            for side in _SIDES
        ]
        plain: list[Any] = [columns["number"], *(columns[key] for key in _PLAIN)]
        segment = _Segment(Rows(*plain, *sides), _all(columns["number"].shape[0]), name)
        names: Any = segment.rows.keys if self.by_key else segment.rows.ids
        hashes = _hashes(names[:].tolist())
        segment.places = np.argsort(hashes, kind="stable")
        segment.hashes = hashes[segment.places]
        return segment

    def _adopt(self, segment: _Segment) -> None:
        assert segment.file is not None
        self._files[segment.file] = segment
        for which in np.unique(segment.rows.number >> _SHIFT).tolist():
            self._segments[which] = segment

    def find(self, names: Sequence[Any]) -> list[tuple[Any, int]]:
        """Those of these ids (or keys) that wait in files, and their numbers."""
        found: list[tuple[Any, int]] = []
        if not self._files or not names:
            return found
        hashes = _hashes(names)
        for segment in self._files.values():
            start = np.searchsorted(segment.hashes, hashes)
            last = segment.hashes.shape[0] - 1
            hits = np.flatnonzero(segment.hashes[np.minimum(start, last)] == hashes)
            for i in hits.tolist():
                at = int(start[i])
                while at <= last and segment.hashes[at] == hashes[i]:
                    place = segment.places[at : at + 1]
                    row = segment.some(place)
                    if segment.alive[place[0]] and self.names_of(row)[0] == names[i]:
                        found.append((names[i], int(row.number[0])))
                    at += 1
        return found

    # -- state -------------------------------------------------------------------------------------

    def state(self) -> State:
        """All that wait: those in memory as columns, those in files by the names of these.

        Where the files are temporary, or there are none, all as columns.
        """
        files = {} if self._spill is None or self._spill.private else self._files
        own = [s.living() for s in self._each() if s.file not in files]
        state = _state_of(joined(own) if own else self.gather(np.zeros(0, np.int64)))
        named = sorted(files.values(), key=lambda s: int(s.rows.number[0]))
        bits = {f"alive/{i}": np.packbits(s.alive) for i, s in enumerate(named)}
        return State(state.arrays | bits, dict(state.table) | {"files": [s.file for s in named]})

    def load(self, state: State) -> None:
        """The inverse of `state`. Raises: DamagedError for a file that is not there, or damaged."""
        for name in self._files:
            assert self._spill is not None
            self._spill.release(name)
        self._segments, self._files = {}, {}
        sides = [as_objects(unpacked(state.under(side))) for side in _SIDES]
        rows = Rows(state.arrays["number"], *(state.arrays[key] for key in _PLAIN), *sides)
        self._in_memory = rows.n
        self._soonest, self._thin = int(rows.deadline.min(initial=_NEVER)), False
        which = rows.number >> _SHIFT
        for number in np.unique(which).tolist():
            part = rows.some(np.flatnonzero(which == number))
            self._segments[number] = _Segment(part, _all(part.n))
        for i, name in enumerate(state.table["files"]):
            assert self._spill is not None
            segment = self._from_file(*self._spill.open(name))
            n = segment.rows.number.shape[0]
            segment.alive = np.unpackbits(state.arrays[f"alive/{i}"], count=n).astype(np.bool_)
            segment.n_alive = int(np.count_nonzero(segment.alive))
            self._soonest = min(self._soonest, segment.first)
            self._adopt(segment)

    def in_memory(self) -> Iterator[tuple[int, Any]]:
        """As `oldest`, of those that are not in files."""
        for segment in self._each():
            if segment.file is None:
                rows = segment.living()
                yield from zip(rows.number.tolist(), self.names_of(rows).tolist(), strict=True)


def joined(parts: Sequence[Rows]) -> Rows:
    """Several as one, in this order."""
    if len(parts) == 1:
        return parts[0]
    columns: list[Any] = [
        None if pieces[0] is None else np.concatenate(pieces) for pieces in zip(*parts, strict=True)
    ]
    return Rows(*columns)


def _state_of(rows: Rows) -> State:
    arrays = {"number": rows.number} | {key: getattr(rows, key) for key in _PLAIN}
    sides = {}
    for side in _SIDES:
        column = getattr(rows, side)
        sides[side] = packed(None if column is None else column.tolist())
    packs = merged(sides, {})
    return State(arrays | packs.arrays, packs.table)


def _all(n: int) -> B1:
    return np.ones(n, dtype=np.bool_)


def _hashes(names: Sequence[Any]) -> I8:
    return np.fromiter(map(hash, names), np.int64, len(names))
