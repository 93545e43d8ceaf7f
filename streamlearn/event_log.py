"""What label-learning stages saw and said when an event was scored, kept until its label comes."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import B1, EXPIRED, I8, LEARN, OBSERVE, SCORED, Block, Columns, Logged
from streamlearn.contracts import State
from streamlearn.errors import UserError
from streamlearn.event_places import Places
from streamlearn.event_segments import (
    HERE,
    Held,
    Segment,
    corner,
    fill_of,
    flat,
    joined,
    unflat,
    widened,
)
from streamlearn.spill import Spill

MEMORY = 256 << 20  # bytes of pending events, where nobody says
_SHIFT = 10
SEGMENT = 1 << _SHIFT  # puts to a segment
_OVERHEAD = 2048  # bytes that a segment in memory counts for beside its rows
_RARE = 4  # a file of which less than one row in so many still pends comes back into memory


# -- which rows ------------------------------------------------------------------------------------


def keys_of(block: Block) -> NDArray[Any] | None:
    """What tells which label is whose: the numbers of the events, else the ids."""
    return block.ids if block.events is None else block.events


def to_log(block: Block) -> B1:
    """Rows to be logged: scored events that have a key. A PREDICT-only row logs nothing."""
    if block.events is not None:
        return np.equal(block.mode, SCORED) & np.greater_equal(block.events, 0)
    if block.ids is None:
        return np.zeros(block.n, dtype=np.bool_)
    rows: B1 = np.equal(block.mode, SCORED)
    return rows


def to_recall(block: Block) -> B1:
    """Rows that bring the label of an event that was scored before."""
    rows: B1 = np.equal(block.mode & (LEARN | OBSERVE), LEARN)
    return rows


def to_drop(block: Block) -> B1:
    """Rows that say that the label of an event will not come."""
    if block.events is None:
        return np.zeros(block.n, dtype=np.bool_)
    return np.equal(block.mode, EXPIRED) & np.greater_equal(block.events, 0)


def cuts(block: Block, room: int | None = None) -> list[int]:
    """Ends of the pieces of a block in which every label finds its event logged before the piece.

    room: puts until the log closes a segment (`EventLog.room`): pieces end there too, so that what
    is spilled does not depend on how the stream was cut.
    """
    keys, logged = keys_of(block), to_log(block)
    settled = to_recall(block) | to_drop(block)
    ends = [] if room is None else closings(logged, room)
    if keys is None or not settled.any() or not logged.any():
        return _with_last(ends, block.n)
    if block.events is None:
        meetings = _meetings_by_id(keys, settled, logged)
    else:
        meetings = _meetings_by_number(block.events, settled, logged)
    found: list[int] = []
    start = 0
    for t, scored in sorted([*meetings, *((end, end) for end in ends)]):
        if scored >= start and (not found or found[-1] < t):
            found.append(t)
            start = t
    return _with_last(found, block.n)


def _with_last(ends: list[int], n: int) -> list[int]:
    return ends if ends and ends[-1] == n else [*ends, n]


def closings(logged: B1, room: int) -> list[int]:
    """The row after each put that closes a segment (room: `EventLog.room`)."""
    if np.count_nonzero(logged) < room:
        return []
    places: list[int] = np.flatnonzero(logged)[room - 1 :: SEGMENT].tolist()
    return [t + 1 for t in places]


def _meetings_by_number(events: I8, settled: B1, logged: B1) -> list[tuple[int, int]]:
    """Rows that settle an event of this block, each with the row where that one was scored."""
    rows = np.flatnonzero(logged)
    numbers = events[rows]
    late = np.flatnonzero(settled)
    late = late[events[late] >= numbers.min()]
    if not late.size:
        return []
    order = np.argsort(numbers, kind="stable")
    known = numbers[order]
    if (known[1:] == known[:-1]).any():  # a number that is used again
        return _meetings_by_id(events, settled, logged)
    at = np.minimum(np.searchsorted(known, events[late]), rows.size - 1)
    scored = rows[order[at]]
    meets = (known[at] == events[late]) & (scored < late)
    return list(zip(late[meets].tolist(), scored[meets].tolist(), strict=True))


def _meetings_by_id(ids: NDArray[Any], settled: B1, logged: B1) -> list[tuple[int, int]]:
    """As by number; of an id that is scored again the last one counts."""
    scored: dict[Any, int] = {}
    found = []
    for t, key in enumerate(ids.tolist()):
        if settled[t] and key in scored:
            found.append((t, scored[key]))
        if logged[t]:
            scored[key] = t
    return found


# -- the log ---------------------------------------------------------------------------------------


class EventLog:
    """Pending events by key, in order of scoring. A key that is put again replaces its entry.

    Rows are kept as columns, in segments of 1,024 puts by the log's own count. Where the pending
    rows of closed segments count for more than `memory` bytes, the oldest are written to a file of
    `spill` and read back as maps when their labels come.

    Args:
        memory: bytes that may be held, >= 0, beside the open segment and the keys.
        spill: where files go; None for a temporary folder, made when it is needed. The state names
            files in a lasting folder and holds what lies in a temporary one.
    Cost: at d = 8, in blocks, about 0.3 microseconds to put an event and 0.2 to take it (1.5 and
        0.4 where it is spilled); some 20 microseconds in blocks of one row. A dict entry (17
        bytes for the number of an event) and the logged columns an event, until its label comes.
    Raises: UserError where a file cannot be written; DamagedError, on load, for one that is missing
        or damaged.
    """

    def __init__(self, memory: int = MEMORY, spill: Spill | None = None) -> None:
        if memory < 0:
            raise UserError(f"EventLog: memory must be >= 0, got {memory!r}")
        self.memory = memory
        self._spill = spill
        self._clear()

    def _clear(self) -> None:
        self._at = Places()  # number of the put of each key
        self._puts = 0
        self._bytes = 0  # that closed segments in memory count for
        self._open = Segment(np.zeros(0, np.int64), {}, {})
        self._closed: dict[int, Segment] = {}  # number of 1,024 puts -> where its rows are
        self._files: dict[str, Segment] = {}

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, key: Any) -> bool:
        return key in self._at

    def __deepcopy__(self, memo: dict[int, Any]) -> "EventLog":
        new = EventLog(self.memory, self._spill)
        new.restore(self.snapshot())
        return new

    @property
    def nbytes(self) -> int:
        """Bytes of the columns in memory; the keys are not counted."""
        segments = {id(segment): segment for segment in (self._open, *self._closed.values())}
        return sum(segment.nbytes for segment in segments.values())

    @property
    def room(self) -> int:
        """Puts until a segment is closed."""
        return SEGMENT - self._puts % SEGMENT

    def knows_any(self, keys: NDArray[Any]) -> bool:
        """Whether some of these keys pend."""
        return self._at.knows_any(keys)

    def spill_to(self, spill: Spill, memory: int) -> None:
        """Spill to this folder from now on, above so many bytes; what was spilled comes back."""
        for name, segment in list(self._files.items()):
            self._bring_back(name, segment)
        self._spill, self.memory = spill, memory
        self._shrink()

    def put(
        self, keys: NDArray[Any], rows: B1, columns: Columns, settled: B1 | None = None
    ) -> None:
        """Log these rows of a block under their keys.

        keys, rows: (n,). columns: (n, …); where one is named p/here, columns p/… are logged only
        for rows that it marks. settled: (n,), those of them that count as put and are not kept, for
        their label has come: the state is as if they had been put, and taken before their segment
        was closed.
        """
        marks = {n[: 1 - len(HERE)]: mark for n, mark in columns.items() if n.endswith(HERE)}
        given = {name: column for name, column in columns.items() if not name.endswith(HERE)}
        places = np.flatnonzero(rows)
        end = self._puts + places.shape[0]
        at = np.arange(self._puts, end)
        if settled is not None:
            kept = ~settled[places]
            places, at = places[kept], at[kept]
        everywhere = places.shape[0] == rows.shape[0]
        dead = self._at.enter(keys if everywhere else keys[places], at)
        done, closes = 0, False
        while self._puts < end:
            self._puts = min(end, self._puts + self.room)
            stop = int(np.searchsorted(at, self._puts))
            if done < stop:
                chosen = slice(done, stop) if everywhere else places[done:stop]
                self._open.append(at[done:stop], given, marks, chosen)
                done = stop
            if self._puts % SEGMENT == 0:
                self._close()
                closes = True
        if dead:
            self._kill(np.array(dead, dtype=np.int64))
        if closes:
            self._shrink()

    def take(self, keys: NDArray[Any] | None, rows: B1) -> Logged:
        """Hand back, and forget, what was logged for these rows; unknown keys stay unmarked."""
        found, at = self._found(keys, rows)
        columns: Columns = {}
        held: Held = {}
        for segment, who in self._groups(at):
            places, t = segment.places(at[who]), found[who]
            for name, column in segment.columns.items():
                _hand_back(name, column[places], segment.held[name][places], t, rows, columns, held)
            self._lose(segment, places)
        return Logged(columns, held)

    def drop(self, keys: NDArray[Any] | None, rows: B1) -> None:
        """Forget what was logged for these rows."""
        self._kill(self._found(keys, rows)[1])

    # -- keys and places ---------------------------------------------------------------------------

    def _found(self, keys: NDArray[Any] | None, rows: B1) -> tuple[I8, I8]:
        """Rows whose keys were known, and their puts; the keys are known no more."""
        places = np.flatnonzero(rows)
        if keys is None or not len(self._at) or not places.size:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        at = self._at.pop(keys[places])
        known = at >= 0
        return places[known], at[known]

    def _groups(self, at: I8) -> list[tuple[Segment, NDArray[Any]]]:
        """The segments that hold these puts, and which of the puts each holds."""
        if not at.size:
            return []
        numbers = at >> _SHIFT
        if numbers[0] == numbers[-1] and (numbers == numbers[0]).all():
            return [(self._segment(int(numbers[0])), np.arange(at.size))]
        order = np.argsort(numbers, kind="stable")
        ends = np.flatnonzero(np.diff(numbers[order])) + 1
        groups: dict[int, tuple[Segment, list[NDArray[Any]]]] = {}
        for who in np.split(order, ends):
            segment = self._segment(int(numbers[who[0]]))
            groups.setdefault(id(segment), (segment, []))[1].append(who)
        return [(segment, np.concatenate(parts)) for segment, parts in groups.values()]

    def _segment(self, number: int) -> Segment:
        return self._closed.get(number, self._open)

    def _kill(self, at: I8) -> None:
        for segment, who in self._groups(at):
            self._lose(segment, segment.places(at[who]))

    def _lose(self, segment: Segment, places: I8) -> None:
        """Rows pend no longer; a closed segment without any is let go."""
        size = segment.kill(places)
        if segment.file is None:
            self._bytes -= size
        if segment.n_alive or segment is self._open:
            return
        if segment.file is not None:
            self._forget(segment.file)
            return
        self._bytes -= _OVERHEAD
        del self._closed[int(segment.at[0]) >> _SHIFT]

    # -- segments and files ------------------------------------------------------------------------

    def _close(self) -> None:
        """The open segment is full: only what pends is kept of it."""
        if self._open.n_alive:
            self._keep((self._puts >> _SHIFT) - 1, self._open.living())
        self._open = Segment(np.zeros(0, np.int64), {}, {})

    def _keep(self, number: int, segment: Segment) -> None:
        assert segment.sizes is not None  # `living` gave them
        self._closed[number] = segment
        self._bytes += int(segment.sizes.sum()) + _OVERHEAD

    def _shrink(self) -> None:
        """A segment was closed: give back what labels have freed, spill what is too much."""
        for name, segment in list(self._files.items()):
            if segment.n_alive * _RARE < segment.n:
                self._bring_back(name, segment)
        for number, segment in self._closed.items():
            if segment.file is None and 2 * segment.n_alive < segment.n:
                self._closed[number] = segment.living()
        while self._bytes > self.memory:
            self._spill_oldest()

    def _spill_oldest(self) -> None:
        """Write the oldest segments that are in memory, an eighth of what may be there, as one."""
        if self._spill is None:
            self._spill = Spill()
        numbers, size = [], 0
        for number in sorted(n for n, segment in self._closed.items() if segment.file is None):
            sizes = self._closed[number].sizes
            assert sizes is not None  # closed
            numbers.append(number)
            size += int(sizes[self._closed[number].alive].sum()) + _OVERHEAD
            if size > self.memory // 8:
                break
        whole = joined(self._closed[number] for number in numbers)
        columns = {f"held/{name}": rows for name, rows in whole.held.items()}
        for name, column in whole.columns.items():
            columns |= flat(name, column)
        name, mapped = self._spill.write(columns | {"at": whole.at})
        self._bytes -= size
        self._adopt(_from_file(name, mapped), numbers)

    def _adopt(self, segment: Segment, numbers: Iterable[int]) -> None:
        assert segment.file is not None
        self._files[segment.file] = segment
        self._closed |= dict.fromkeys(numbers, segment)

    def _bring_back(self, name: str, segment: Segment) -> None:
        """What still pends in a file goes to memory, from where the next file is made."""
        self._forget(name)
        for number, own in segment.living().split(_SHIFT).items():
            self._keep(number, own)

    def _forget(self, name: str) -> None:
        segment = self._files.pop(name)
        for number in np.unique(segment.at >> _SHIFT).tolist():
            del self._closed[number]
        assert self._spill is not None
        self._spill.release(name)

    # -- state -------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """The pending events, for `restore` within this process. Cost: 10 bytes and a dict entry
        an event, and a copy of the open segment.
        """
        copies = {id(s): s.copy() for s in self._closed.values()}
        return {
            "at": self._at.copy(),
            "open": self._open.copy(writable=True),
            "closed": {number: copies[id(s)] for number, s in self._closed.items()},
            "counts": (self._puts, self._bytes),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        copies = {id(s): s.copy() for s in snapshot["closed"].values()}
        self._at, self._open = snapshot["at"].copy(), snapshot["open"].copy(writable=True)
        self._closed = {number: copies[id(s)] for number, s in snapshot["closed"].items()}
        self._puts, self._bytes = snapshot["counts"]
        before = self._files
        self._files = {s.file: s for s in self._closed.values() if s.file is not None}
        for name in self._files.keys() - before.keys():
            assert self._spill is not None
            self._spill.claim(name)
        for name in before.keys() - self._files.keys():
            assert self._spill is not None
            self._spill.release(name)

    def state(self, whole: bool = False) -> State:
        """All pending events, in order of scoring; the same bits however the stream was cut.

        at: (n,) int64, numbers of the puts. keys: (n,) int64, or `ids` in the table where a key is
        no integer. held/… (m,) and values/… (k, …): of the m events that are in memory, which
        logged a column, and what these k did (end to end, with lengths/… (k,), where rows vary in
        length). files: names of those that hold the others; none where whole is true, or the folder
        is a temporary one.
        """
        keys, puts = self._at.items()
        files = {} if whole or self._spill is None or self._spill.private else self._files
        segments = [s for _, s in sorted(self._closed.items()) if s.file not in files]
        own = joined([*dict.fromkeys(segments), self._open])
        arrays: Columns = {"at": puts}
        table: dict[str, Any] = {"puts": self._puts, "names": sorted(own.columns)}
        table["files"] = [s.file for s in sorted(files.values(), key=lambda s: int(s.at[0]))]
        if all(type(key) is int and -(2**63) <= key < 2**63 for key in keys):
            arrays["keys"] = np.array(keys, dtype=np.int64)
        else:
            table["ids"] = keys
        for name, column in own.columns.items():
            arrays[f"held/{name}"] = own.held[name]
            arrays |= flat(name, column[own.held[name]])
        return State(arrays, table)

    def load(self, state: State) -> None:
        """Take over what `state` gave.

        Raises: DamagedError for a file that is missing or damaged, UserError for a state with files
            where no folder was given, and for pending events of an older version.
        """
        table = state.table
        if "puts" not in table and table.get("ids"):
            raise UserError(
                "EventLog: pending labels must be those of this version, got a state of an older "
                "one; let them arrive there first, or begin anew"
            )
        if "puts" not in table:  # of an older version, with nothing pending
            state = EventLog().state()
            table = state.table
        at = state.arrays["at"]
        if table["files"] and (self._spill is None or self._spill.private):
            raise UserError(
                "EventLog: a state with spilled labels must be loaded with the folder of its "
                f"files, got none for {table['files'][0]}; call spill_to before load"
            )
        for name in list(self._files):
            self._forget(name)
        self._clear()
        self._puts = table["puts"]
        self._at = Places()
        self._at.enter(_as_keys(table["ids"]) if "ids" in table else state.arrays["keys"], at)
        spilled = np.zeros(at.shape[0], dtype=np.bool_)
        for name in table["files"]:
            assert self._spill is not None
            segment = _from_file(*self._spill.open(name))
            segment.alive = np.isin(segment.at, at)
            segment.n_alive = int(np.count_nonzero(segment.alive))
            self._adopt(segment, np.unique(segment.at >> _SHIFT).tolist())
            spilled |= np.isin(at, segment.at)
        self._load_own(at[~spilled], state)

    def _load_own(self, at: I8, state: State) -> None:
        """The events that the state itself holds, into their segments."""
        columns: Columns = {}
        held: Held = {}
        for name in state.table["names"]:
            values, flags = unflat(name, state.arrays), state.arrays[f"held/{name}"] != 0
            column = np.full((at.size, *values.shape[1:]), fill_of(name, values), values.dtype)
            column[flags] = values
            columns[name], held[name] = column, flags
        for number, segment in Segment(at, columns, held).split(_SHIFT).items():
            if number == self._puts >> _SHIFT:
                self._open = segment.copy(writable=True)
                self._open.sizes = None
            else:
                self._keep(number, segment)


def _as_keys(values: list[Any]) -> NDArray[Any]:
    keys = np.empty(len(values), dtype=object)
    keys[:] = values
    return keys


def _hand_back(
    name: str, values: NDArray[Any], flags: B1, t: I8, rows: B1, columns: Columns, held: Held
) -> None:
    """Put the values logged for rows t of a block into its columns."""
    n = rows.shape[0]
    known = columns.get(name)
    if known is None:
        known = np.full((n, *values.shape[1:]), fill_of(name, values), values.dtype)
        held[name] = np.zeros(n, dtype=np.bool_)
    elif known.shape[1:] != values.shape[1:]:
        known = _wide_enough(name, known, values.shape[1:])
    columns[name] = known
    known[corner(values, t)] = values
    held[name][t] = flags


def _wide_enough(name: str, known: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return widened(name, known, tuple(map(max, known.shape[1:], shape)))


def _from_file(name: str, mapped: Columns) -> Segment:
    """A spilled file as a segment whose columns are maps."""
    columns = {k[7:]: unflat(k[7:], mapped) for k in mapped if k.startswith("values/")}
    held = {k[5:]: rows for k, rows in mapped.items() if k.startswith("held/")}
    return Segment(np.array(mapped["at"]), columns, held, None, name)
