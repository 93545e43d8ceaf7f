"""The merge of several inputs into one stream: by record time, then in the order of the inputs.

An input is a source, or a lane of one that has several (a partition). Of two rows the one with the
earlier time goes first (of each input the running maximum counts, so an input is never reordered
within itself); at equal times that of the source that was named first, then by topic and partition.
Without times the number of the row stands for its time. An input at its end does not hold the
others back, nor does a lane that is caught up: everything that its partition had was taken. One
that is silent for `idle` seconds does not either, until it speaks again. Who was silent or caught
up depends on when records came, so each choice is kept in an order log where there is one.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import I8, NO_TIME, Vocabulary
from streamlearn.contracts import (
    Batch,
    Json,
    Lane,
    LanedSource,
    Positions,
    Ready,
    Reject,
    Source,
    State,
)
from streamlearn.errors import UserError
from streamlearn.late_rows import no_events
from streamlearn.order_log import OrderLog
from streamlearn.schema import Schema

_log = logging.getLogger(__name__)
_SLICE = 0.005  # seconds: how long one source with lanes is waited for before others are looked at
_NEVER = int(np.iinfo(np.int64).max)


class Step(NamedTuple):
    """Some rows of a merged stream.

    order: (m,) the source that each row is of. batches: for each source its rows among them, or
    None. rejects: the records that did not fit, each with the row before which it stands (m: after
    all); those of one place in order.
    """

    order: NDArray[np.intp]
    batches: list[Batch | None]
    rejects: list[tuple[int, Reject]]


class _Input:
    """One source without lanes, or one lane, with its clock.

    index: its place among the inputs. group: of its source among the sources. local: its place
    among the lanes of that. rank: who goes first at equal times.
    """

    def __init__(self, name: str, group: "_Group", index: int, local: int) -> None:
        self.name, self.group, self.index, self.local = name, group, index, local
        topic, _, number = name.rpartition("/")
        self.rank = (group.place, topic, int(number) if number.isdigit() else 0)
        self.clock, self.rows = NO_TIME, 0
        self.silent_since: float | None = None
        self.passed = self.told = False
        self.ready: Ready | None = None

    def heard(self, ready: Ready | None) -> None:
        """What is there now."""
        self.ready = ready
        if ready is not None:
            self.silent_since, self.passed = None, False

    def clocks(self, by_time: bool, most: int) -> I8:
        """Time of each of the first rows that are ready: the running maximum, or the row number."""
        assert self.ready is not None
        n = min(self.ready.n, most)
        if not by_time or self.ready.times is None:
            return np.arange(self.rows, self.rows + n)
        clock: I8 = np.maximum.accumulate(self.ready.times[:n])
        return np.maximum(clock, self.clock, out=clock)

    def offsets(self, n: int) -> I8:
        """Of the first n rows that are ready; their numbers where there are no offsets."""
        assert self.ready is not None
        if self.ready.offsets is None:
            return np.arange(self.rows, self.rows + n)
        return self.ready.offsets[:n]

    def move(self, n: int, by_time: bool) -> None:
        """So many rows are taken."""
        if n:
            self.clock = int(self.clocks(by_time, n)[-1])
            self.rows += n

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more."""
        return self.ready is None and self.group.has_ended(self)

    @property
    def caught_up(self) -> bool:
        """Whether it has nothing, and its partition had nothing more."""
        return self.ready is None and self.group.has_caught_up(self)


class _Group:
    """A source and its inputs."""

    laned = False

    def __init__(self, name: str, place: int, source: Source) -> None:
        self.name, self.place = name, place
        self.source: Any = source if hasattr(source, "ready") else _RowByRow(source)
        self.inputs: list[_Input] = []

    def found(self, start: int) -> list[_Input]:
        """Inputs that are new; the first of them gets this index."""
        if self.inputs:
            return []
        self.inputs = [_Input(self.name, self, start, 0)]
        return self.inputs

    def look(self, max_wait: float) -> None:
        """See what is there."""
        self.inputs[0].heard(self.source.ready(max_wait))

    def has_ended(self, one: _Input) -> bool:
        return bool(self.source.finished)

    def has_caught_up(self, one: _Input) -> bool:
        return False

    def take(self, order: NDArray[np.intp]) -> Batch | None:
        """The next rows, (m,) the local input of each."""
        batch: Batch | None = self.source.poll(max(order.shape[0], 1), 0.0)
        return batch

    @property
    def ended(self) -> bool:
        """Whether no row will come any more."""
        return all(one.ready is None for one in self.inputs) and bool(self.source.finished)

    def of(self, reject: Reject) -> _Input | None:
        """The input that a reject is of."""
        return self.inputs[0]


class _Lanes(_Group):
    """A source whose lanes are inputs."""

    laned = True

    def __init__(self, name: str, place: int, source: LanedSource) -> None:
        self.name, self.place = name, place
        self.source = source
        self.inputs = []
        self._by_lane: dict[str, _Input] = {}

    def found(self, start: int) -> list[_Input]:
        known = len(self.inputs)
        lanes: Sequence[Lane] = self.source.lanes[known:]
        new = [_Input(f"{self.name}/{lane.name}", self, start + i, known + i)
               for i, lane in enumerate(lanes)]  # fmt: skip
        self.inputs += new
        self._by_lane |= {lane.name: one for lane, one in zip(lanes, new, strict=True)}
        return new

    def look(self, max_wait: float) -> None:
        self.source.wait(max_wait)
        for one, lane in zip(self.inputs, self.source.lanes, strict=False):
            one.heard(lane.ready())

    def has_ended(self, one: _Input) -> bool:
        return bool(self.source.lanes[one.local].finished)

    def has_caught_up(self, one: _Input) -> bool:
        return bool(self.source.lanes[one.local].caught_up)

    def take(self, order: NDArray[np.intp]) -> Batch | None:
        batch: Batch = self.source.take(order)
        return batch

    def of(self, reject: Reject) -> _Input | None:
        return self._by_lane.get(reject.partition)


class _RowByRow:
    """A source that cannot say what is ready, read one row at a time."""

    def __init__(self, source: Source) -> None:
        self._source, self.guarantee = source, source.guarantee
        self._held: Batch | None = None

    def open(self, positions: Positions) -> None:
        self._held = None
        self._source.open(positions)

    def ready(self, max_wait: float) -> Ready | None:
        if self._held is None:
            self._held = self._source.poll(1, max_wait)
        if self._held is None:
            return None
        block = self._held.block
        return Ready(block.n, block.times, [0] * len(self._held.rejects))

    def poll(self, max_events: int, max_wait: float) -> Batch | None:
        held, self._held = self._held, None
        return held

    @property
    def finished(self) -> bool:
        return self._held is None and self._source.finished

    def close(self) -> None:
        self._source.close()


class Merged:
    """Several inputs as one stream of rows, in an order that a replay gives again.

    Args:
        inputs: sources by name; a `LanedSource` gives each of its lanes as an input, named
            `source/lane`. The first go first at equal times. The limit of `take` is of the first.
        by_time: whether rows go by their times, or by their numbers.
        idle: seconds after which an input with nothing to give does not hold the others; 0 never
            waits, inf always does.
        order: where choices are kept; None where they need not be.
        clock: of the wall, for `idle`.
    Cost: 0.1 us a row, and some 50 us a call.
    """

    def __init__(
        self,
        inputs: Mapping[str, Source | LanedSource],
        *,
        by_time: bool = True,
        idle: float = 5.0,
        order: OrderLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._groups = [_group(name, i, source) for i, (name, source) in enumerate(inputs.items())]
        self._inputs: list[_Input] = []
        self._ranked: list[_Input] = []
        self._group_of: NDArray[np.intp] = np.zeros(0, np.intp)
        self._local_of: NDArray[np.intp] = np.zeros(0, np.intp)
        self._by_time, self._idle, self._order, self._now = by_time, idle, order, clock
        self._rows: int | None = None
        self._positions: Positions = {}
        self._known: dict[str, Json] = {}  # clocks and rows of inputs that are not there yet
        self._loaded = self._logged = False
        self.stalls = 0

    # -- opening and closing -----------------------------------------------------------------------

    def open(self, positions: Positions) -> None:
        """Go to these positions (input/partition), with the state that was loaded, if any was."""
        if not self._loaded:
            self._known, self.stalls, self._rows = {}, 0, None
        self._positions = dict(positions)
        self._inputs, self._logged = [], False
        for group in self._groups:
            start = f"{group.name}/"
            group.source.open({k[len(start) :]: p for k, p in positions.items()
                               if k.startswith(start)})  # fmt: skip
            group.inputs = []
            begin: Positions = getattr(group.source, "positions", {})  # "latest" is a number now
            self._positions |= {start + name: position for name, position in begin.items()}
        self._find()
        if self._order is not None:
            self._order.open([one.name for one in self._inputs], self._rows)
            self._logged = True
        self._rows, self._loaded = self._rows or 0, False

    def _find(self) -> None:
        """Take in the inputs that are new."""
        for group in self._groups:
            for one in group.found(len(self._inputs)):
                known = self._known.pop(one.name, None)
                if known is not None:
                    one.clock, one.rows = known["clock"], known["rows"]
                self._inputs.append(one)
                if self._order is not None and self._logged:
                    self._order.add(one.name)
        self._ranked = sorted(self._inputs, key=lambda one: one.rank)
        self._group_of = np.array([one.group.place for one in self._inputs], dtype=np.intp)
        self._local_of = np.array([one.local for one in self._inputs], dtype=np.intp)

    def close(self) -> None:
        """Close all inputs and the log; may be called twice."""
        for group in self._groups:
            group.source.close()
        if self._order is not None:
            self._order.close()

    def ended(self, name: str) -> bool:
        """Whether a source has come to its end."""
        return next(group.ended for group in self._groups if group.name == name)

    @property
    def finished(self) -> bool:
        """True when all inputs have ended, or the log that is replayed has."""
        if self._order is not None and self._order.replay and not self._order.ahead(1).order.size:
            return True
        return all(group.ended for group in self._groups)

    @property
    def positions(self) -> Positions:
        """After the rows that were taken."""
        return dict(self._positions)

    # -- state -------------------------------------------------------------------------------------

    def state(self) -> State:
        """Clocks and counts; what the log holds is made durable."""
        if self._order is not None:
            self._order.sync()
        table = {one.name: {"clock": one.clock, "rows": one.rows} for one in self._inputs}
        table = {name: table[name] for name in sorted(table)}
        return State({}, {"inputs": table, "rows": self._rows or 0, "stalls": self.stalls})

    def load(self, state: State) -> None:
        """The inverse; `open` then goes on from there, and repeats what the log holds after it."""
        self._known = dict(state.table["inputs"])
        self._rows, self.stalls, self._loaded = state.table["rows"], state.table["stalls"], True

    # -- merging -----------------------------------------------------------------------------------

    def take(self, most: int, max_wait: float) -> Step | None:
        """Rows in their order, of the first source at most `most`; ends with the last of these.

        None when nothing came within max_wait seconds, and at the end.
        """
        self._look(self._groups, 0.0)
        found = self._chosen(most)
        if found is None and not self.finished:
            found = self._awaited(most, max_wait)
        return None if found is None else self._taken(*found)

    def _look(self, groups: Sequence[_Group], max_wait: float) -> None:
        for group in groups:
            group.look(max_wait)
            if group.laned and len(group.inputs) < len(group.source.lanes):
                self._find()
                group.look(0.0)

    def _awaited(self, most: int, max_wait: float) -> tuple[NDArray[np.intp], bool] | None:
        """Wait for the sources that are silent; as soon as there is something to choose, that."""
        silent = [group for group in self._groups
                  if any(one.ready is None and not one.ended for one in group.inputs)]  # fmt: skip
        if not silent:
            return None
        if not any(group.laned for group in silent):
            self._look(silent, max_wait / len(silent))
            return self._chosen(most)
        left, turn = max_wait, 0
        held = any(one.ready is not None for one in self._inputs)
        while left > 0:
            wait = min(left, _SLICE if len(silent) > 1 else left)
            self._look([silent[turn]], wait)
            self._look([group for i, group in enumerate(silent) if i != turn], 0.0)
            if (found := self._chosen(most)) is not None:
                return found
            left -= wait
            turn = (turn + 1) % len(silent) if held else 0
        return None

    def _chosen(self, most: int) -> tuple[NDArray[np.intp], bool] | None:
        """The inputs of the next rows, and whether it is for the log to remember; None: wait.

        A record that does not fit and that no row follows is taken as soon as it is there.
        """
        if any(one.ready is not None and one.ready.n == 0 for one in self._inputs):
            return np.zeros(0, dtype=np.intp), False
        if self._order is not None:
            ahead = self._order.ahead(2 * most)
            if ahead.order.shape[0]:
                return self._repeated(most, ahead.order, ahead.first)
            if self._order.replay:
                return None
        order, held = self._merged(most)
        if held and not order.shape[0]:
            self._pass_over()
            order, _ = self._merged(most)
        order = self._limited(order, most)
        return (order, True) if order.shape[0] else None

    def _limited(self, order: NDArray[np.intp], most: int) -> NDArray[np.intp]:
        """Up to the last row of the first source that there is room for."""
        if order.shape[0] < most:
            return order
        first = np.flatnonzero(self._group_of[order] == 0)
        return order[: first[most - 1] + 1] if first.shape[0] >= most else order

    def _repeated(
        self, most: int, order: NDArray[np.intp], first: I8
    ) -> tuple[NDArray[np.intp], bool] | None:
        """The next rows of the log, as far as they are there."""
        end = order.shape[0]
        for i in np.unique(order).tolist():
            one, rows = self._inputs[i], np.flatnonzero(order == i)
            there = 0 if one.ready is None else one.ready.n
            if there < rows.shape[0]:
                end = min(end, int(rows[there]))
                if end == 0 and one.ended:
                    raise UserError(
                        f"{one.name}: ends at row {one.rows}, but the order log goes on; give the "
                        f"data that were read then"
                    )
            rows = rows[rows < end]
            self._same_offsets(one, first[rows])
        order = self._limited(order[:end], most)
        return (order, False) if order.shape[0] else None

    def _same_offsets(self, one: _Input, logged: I8) -> None:
        """Refuse other rows than those that the log is of."""
        if not logged.shape[0]:
            return
        differ = np.flatnonzero((logged >= 0) & (logged != one.offsets(logged.shape[0])))
        if differ.shape[0]:
            k = int(differ[0])
            raise UserError(
                f"{one.name}: row {one.rows + k} has the offset {one.offsets(k + 1)[k]}, but the "
                f"order log says {logged[k]}; give the data and the schema of that run"
            )

    def _merged(self, most: int) -> tuple[NDArray[np.intp], bool]:
        """Inputs of the rows that may go now, and whether a silent input holds them all back."""
        there = [one for one in self._ranked if one.ready is not None]
        if not there:
            return np.zeros(0, dtype=np.intp), False
        room = most if len(there) <= 2 else 2 * most // len(there) + 64
        clocks = [one.clocks(self._by_time, room) for one in there]
        last = {one.index: int(clock[-1]) for one, clock in zip(there, clocks, strict=True)}
        least, place = self._least(last)
        parts, inputs, held = [], [], False
        for one, clock in zip(there, clocks, strict=True):
            end = clock.shape[0]
            if one.index != place and place >= 0:
                before = one.rank < self._inputs[place].rank
                end = int(np.searchsorted(clock, least, side="right" if before else "left"))
                held = held or end < clock.shape[0]
            parts.append(clock[:end])
            inputs.append(np.full(end, one.index, dtype=np.intp))
        order = inputs[0] if len(there) == 1 else np.concatenate(inputs)
        if len(there) > 1:  # runs that are sorted already, in the order of ranks
            order = order[np.argsort(np.concatenate(parts), kind="stable")]
        return order, held and not order.shape[0]

    def _least(self, last: Mapping[int, int]) -> tuple[int, int]:
        """The least time that a row may have that is not there yet, and the input of that row.

        last: by input, the time of the last of its rows that are looked at.
        """
        least, place = _NEVER, -1
        for one in self._ranked:
            if one.ready is not None:
                bound = last[one.index]
            elif one.passed or one.ended or one.caught_up:
                continue
            else:
                bound = one.clock if self._by_time else one.rows
            if bound < least:
                least, place = bound, one.index
        return least, place

    def _pass_over(self) -> None:
        """Let go of inputs that hold the others for too long."""
        if math.isinf(self._idle):
            return
        now = self._now()
        for one in self._inputs:
            if one.ready is not None or one.passed or one.ended or one.caught_up:
                continue
            if one.silent_since is None:
                one.silent_since = now
            if now - one.silent_since >= self._idle:
                one.passed = True
                self.stalls += 1
                if self._idle > 0 and not one.told:
                    one.told = True
                    text = "%s: nothing for %g s; the others go on without it (told once)"
                    _log.warning(text, one.name, self._idle)

    # -- taking ------------------------------------------------------------------------------------

    def _taken(self, order: NDArray[np.intp], fresh: bool) -> Step:
        """Take these rows, and note the choice before anything comes of it."""
        counts = np.bincount(order, minlength=len(self._inputs)).tolist()
        if order.shape[0]:
            self._note(order, counts, fresh)
        sources = self._group_of[order]
        batches: list[Batch | None] = []
        placed: list[tuple[int, int, tuple[int, str, int], Reject]] = []
        for group in self._groups:
            n = sum(counts[one.index] for one in group.inputs)
            if not n and all(one.ready is None or one.ready.n for one in group.inputs):
                batches.append(None)
                continue
            own = order if len(self._groups) == 1 else order[sources == group.place]
            batch = self._polled(group, self._local_of[own], counts)
            batches.append(batch if n else None)
            if batch.rejects:
                placed += _placed(group, batch.rejects, order)
            for one in group.inputs:
                one.ready = None
        self._rows = (self._rows or 0) + order.shape[0]
        placed.sort(key=lambda entry: entry[:3])
        return Step(sources, batches, [(row, reject) for row, _, _, reject in placed])

    def _note(self, order: NDArray[np.intp], counts: list[int], fresh: bool) -> None:
        """Tell the log."""
        if self._order is None:
            return
        if not fresh:
            self._order.repeat(order.shape[0])
            return
        offsets = np.empty(order.shape[0], dtype=np.int64)
        for one in self._inputs:
            n = counts[one.index]
            if n == order.shape[0]:
                offsets = one.offsets(n)
            elif n:
                offsets[order == one.index] = one.offsets(n)
        self._order.append(order, offsets, sync=any(one.passed for one in self._inputs))

    def _polled(self, group: _Group, own: NDArray[np.intp], counts: list[int]) -> Batch:
        """The next rows of a source, (m,) the local input of each."""
        for one in group.inputs:
            if counts[one.index]:
                one.move(counts[one.index], self._by_time)
        batch = group.take(own)
        if batch is None or batch.block.n != own.shape[0]:
            raise UserError(f"{group.name}: gave other rows than it had ready; this is a bug in it")
        for name, position in batch.positions.items():
            self._positions[f"{group.name}/{name}"] = position
        return batch


def _group(name: str, place: int, source: Source | LanedSource) -> _Group:
    kind: Any = _Lanes if has_lanes(source) else _Group
    found: _Group = kind(name, place, source)
    return found


def has_lanes(source: object) -> bool:
    """Whether a source has lanes (partitions) for a merge to take rows from."""
    return hasattr(source, "lanes")


def _placed(
    group: _Group, rejects: Sequence[Reject], order: NDArray[np.intp]
) -> list[tuple[int, int, tuple[int, str, int], Reject]]:
    """Rejects with their place: (row, 1, input) before a row, (row, 0, input) after the one before.

    What follows the last row of a chunk stands right after it.
    """
    out = []
    given: dict[int, list[Reject]] = {}
    for reject in rejects:
        one = group.of(reject)
        given.setdefault(-1 if one is None else one.local, []).append(reject)
    for local, some in given.items():
        one = group.inputs[max(local, 0)]
        ready = one.ready
        rows = np.flatnonzero(order == one.index)
        last = int(rows[-1]) + 1 if rows.shape[0] else 0
        places = [] if ready is None else ready.rejects
        for i, reject in enumerate(some):
            before = places[i] if i < len(places) else _NEVER
            inside = before < rows.shape[0]
            row = int(rows[before]) if inside else last
            out.append((row, int(inside), one.rank, reject))
    return out


class MergedEvents:
    """Events of a source with lanes, merged into one stream: a source.

    Guarantee: that of the source. The clocks of the lanes are state (`state`, `load`); with it, the
    positions and the order log a reader goes on exactly, and in the order of before.

    Args:
        events: with lanes, and a schema. idle, order_log, clock: as of `Merged`; without a limit a
            lane that is behind holds the others until it is caught up.
    Cost: that of `Merged`.
    """

    def __init__(
        self,
        events: LanedSource,
        schema: Schema,
        *,
        idle: float = math.inf,
        order_log: OrderLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.schema, self.guarantee = schema, events.guarantee
        self.events = events
        self._merged = Merged({"events": events}, idle=idle, order=order_log, clock=clock)

    @property
    def sources(self) -> list[LanedSource]:
        """What is merged."""
        return [self.events]

    @property
    def positions(self) -> Positions:
        """After the rows that were taken, those of all lanes."""
        return self._merged.positions

    @property
    def id(self) -> str | None:
        """Name of the id column."""
        return self.schema.id

    @property
    def labels(self) -> Vocabulary | None:
        """The classes so far; None for regression."""
        return self.schema.labels

    def open(self, positions: Positions) -> None:
        """Go to these positions (events/lane), with the state that was loaded, if any was."""
        self._merged.open(positions)

    def poll(self, max_events: int, max_wait: float) -> Batch | None:
        """At most max_events rows in their order; None when nothing came in time."""
        step = self._merged.take(max_events, max_wait)
        if step is None:
            return None
        batch, rejects = step.batches[0], [reject for _, reject in step.rejects]
        if batch is None:
            none = no_events(self.schema.columns, self.schema.sparse_width)
            return Batch(none.replace(labels=self.labels), rejects, self._merged.positions)
        return batch._replace(rejects=rejects, positions=self._merged.positions)

    @property
    def finished(self) -> bool:
        """True when all lanes have ended, or the order log that is replayed has."""
        return self._merged.finished

    @property
    def ended(self) -> bool:
        """True when all lanes have."""
        return self._merged.ended("events")

    def close(self) -> None:
        """Close the source and the log; may be called twice."""
        self._merged.close()

    def state(self) -> State:
        """Clocks of the lanes; the order log is made durable."""
        return self._merged.state()

    def load(self, state: State) -> None:
        """The inverse; the next `open` goes on from there."""
        self._merged.load(state)
