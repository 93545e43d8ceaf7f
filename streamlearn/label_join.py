"""Labels from a stream of their own, joined to the events by id.

`_Join` keeps what waits, `_Walk` goes through rows in their merged order; `JoinedLabels` feeds it
and makes blocks of what it says.
"""

import json
import math
import time as clocks
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.backlog import SEGMENT, Backlog, Rows, joined
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
    Columns,
    Vocabulary,
)
from streamlearn.contracts import (
    Batch,
    Json,
    LanedSource,
    Positions,
    Reject,
    Source,
    State,
    merged,
)
from streamlearn.errors import UserError
from streamlearn.label_delay import Delay, Delays, parse_span
from streamlearn.late_rows import (
    Arrivals,
    Late,
    Woven,
    no_events,
    packed,
    unpacked,
    weave,
)
from streamlearn.merging import Merged, Step, has_lanes
from streamlearn.order_log import OrderLog
from streamlearn.schema import Schema
from streamlearn.schema_cells import Misfit, class_of, number
from streamlearn.spill import Spill

_COUNTS = (
    "events", "labelled", "expired", "assumed", "contradicted", "duplicates", "unknown", "late",
    "early", "evicted", "replaced", "unlabelled", "empty",
)  # fmt: skip
_FATES = ("labelled", "expired", "assumed", "evicted", "replaced")  # of events that wait no more
_EVENTS, _LABELS = "events", "labels"
_LAST = int(np.iinfo(np.int64).max)
REMEMBERED = 65_536  # ids of which it is known what became of them


class _Early(NamedTuple):
    """A label whose event has not come.

    row: its number in the label stream, or its offset in its lane.
    """

    row: int
    y: float
    time: int
    deadline: int
    lane: str | None


class _Said(NamedTuple):
    """What a walk says of the events of a step, and of those before: rows between them.

    mode, number, y: (k,) of the k events, y where they come with their label. at: (m,) row of the
    step at which each of m rows is said. rows: (m,) the events that they are about. learn: (m,)
    whether there is a label. label, came: (m,). assumed: (m,).
    """

    mode: U1
    number: I8
    y: F8
    at: NDArray[np.intp]
    rows: Rows
    learn: B1
    label: F8
    came: I8
    assumed: B1


class _Labels(NamedTuple):
    """The labels of a step; y as their source codes them, lane None where they have none."""

    ids: list[Any]
    y: F8
    times: I8
    lanes: list[str] | None
    lane: list[int]
    offsets: list[int]

    def some(self, rows: slice) -> "_Labels":
        """Some of them."""
        return _Labels(self.ids[rows], self.y[rows], self.times[rows], self.lanes,
                       self.lane[rows], self.offsets[rows])  # fmt: skip


_ABSENT = object()  # stands for a label that cannot be learnt


class _Join:
    """What waits for what. Times are nanoseconds, or numbers of events where by_rows is true."""

    def __init__(self, timeout: Delay | None, assume: Any, most: int, labels: Vocabulary | None,
                 source: Vocabulary | None, backlog: Backlog) -> None:  # fmt: skip
        self.timeout = math.inf if timeout is None else timeout.n
        self.by_rows = timeout is not None and timeout.kind == "rows"
        self.assume, self.most, self.remembered = assume, most, min(most, REMEMBERED)
        self.labels, self.source, self.backlog = labels, source, backlog
        self.coder = Arrivals(source, [] if labels is None else labels.values)
        self.coder.labels = labels
        self.counts = dict.fromkeys(_COUNTS, 0)
        self.now = NO_TIME  # the latest time of any event or label
        self.n_pending = 0
        self.pending: dict[Any, int] = {}  # id -> number, of those that are not in files
        self.early: OrderedDict[Any, _Early] = OrderedDict()
        self.done: OrderedDict[Any, int] = OrderedDict()  # id -> why no label fits any more
        self.events_ended = False
        self.row = 0  # of the labels, those that are refused included
        self.refused: list[tuple[int, Any, _Early, str]] = []

    @property
    def early_limit(self) -> float:
        """The clock beyond which the first label that waits for its event is given up."""
        if not self.early or self.timeout == math.inf:
            return math.inf
        return next(iter(self.early.values())).deadline + self.timeout

    def remember(self, id: Any, fate: int) -> None:
        """What became of an event."""
        self.done[id] = fate
        if len(self.done) > self.remembered:
            self.done.popitem(last=False)

    def refuse(self, at: int, id: Any, given: _Early, count: str, text: str) -> None:
        """A label is not learnt."""
        self.counts[count] += 1
        self.refused.append((at, id, given, text))

    # -- labels without an event -------------------------------------------------------------------

    def label_alone(self, at: int, id: Any, given: _Early) -> None:
        """A label for which no event waits."""
        if id is None:
            self.refuse(at, id, given, "unknown", "the label names no event")
        elif given.y != given.y:
            self.refuse(at, id, given, "empty", f"the label of event {id!r} has no value")
        elif id in self.done:
            self._too_late(at, id, given)
        elif id in self.early:
            text = f"a label of {id!r} waits already: that counts"
            self.refuse(at, id, given, "duplicates", text)
        elif self.events_ended:
            self.refuse(at, id, given, "unknown", f"there was no event {id!r}")
        else:
            self.early[id] = given
            if len(self.early) > self.most:
                first, early = self.early.popitem(last=False)
                text = f"no event {first!r} came: more than max_pending labels waited"
                self.refuse(at, first, early, "unknown", text)

    def _too_late(self, at: int, id: Any, given: _Early) -> None:
        what = _FATES[self.done[id]]
        if what == "labelled":
            text = f"event {id!r} has a label already: that counts"
            self.refuse(at, id, given, "duplicates", text)
            return
        if what == "assumed":
            value = given.y if self.source is None else self.source.values[int(given.y)]
            self.counts["contradicted"] += value != self.assume
            text = f"the label of event {id!r} came after the time-out: {self.assume!r} was assumed"
        elif what == "evicted":
            text = f"event {id!r} was given up: more than max_pending waited for a label"
        else:
            text = f"the label of event {id!r} came after the time-out"
        self.refuse(at, id, given, "late", text)

    def early_expire(self, at: int, now: int) -> None:
        """Labels that have waited for their event for too long by now."""
        while self.early_limit < now:
            id, early = self.early.popitem(last=False)
            text = f"no event {id!r} came within the time-out"
            self.refuse(at, id, early, "unknown", text)

    def end_of_events(self) -> None:
        """No event will come any more: what waits for one never had one."""
        self.events_ended = True
        for id, early in self.early.items():
            self.refuse(-1, id, early, "unknown", f"there was no event {id!r}")
        self.early.clear()

    # -- state -------------------------------------------------------------------------------------

    def state(self) -> State:
        """All that waits, in order."""
        early = list(self.early.values())
        arrays: Columns = {
            "early/numbers": np.array([[e.row, e.time, e.deadline] for e in early],
                                      np.int64).reshape(-1, 3),
            "early/y": np.array([e.y for e in early], np.float64),
            "done/fates": np.array(list(self.done.values()), dtype=np.uint8),
        }  # fmt: skip
        lanes = [e.lane for e in early]
        members = {
            "backlog": self.backlog.state(),
            "early": packed(list(self.early)),
            "lanes": packed(None if all(lane is None for lane in lanes) else lanes),
            "done": packed(list(self.done)),
        }
        table = {
            "counts": dict(self.counts),
            "clocks": [self.now, self.row, self.n_pending, self.events_ended],
            "classes": None if self.labels is None else list(self.labels.values),
        }
        packs = merged(members, table)
        return State(arrays | packs.arrays, packs.table)

    def load(self, state: State) -> None:
        """The inverse."""
        arrays, table = state
        self.backlog.load(state.under("backlog"))
        self.pending = {id: number for number, id in self.backlog.in_memory()}
        ids = unpacked(state.under("early")) or []
        lanes = unpacked(state.under("lanes")) or [None] * len(ids)
        early = zip(ids, arrays["early/numbers"].tolist(), arrays["early/y"].tolist(), lanes,
                    strict=True)  # fmt: skip
        self.early = OrderedDict(
            (id, _Early(row, y, t, until, lane)) for id, (row, t, until), y, lane in early
        )
        done = unpacked(state.under("done")) or []
        self.done = OrderedDict(zip(done, arrays["done/fates"].tolist(), strict=True))
        self.counts = dict(table["counts"])
        self.now, self.row, self.n_pending, self.events_ended = table["clocks"]
        self.labels = None if table["classes"] is None else Vocabulary(table["classes"])
        self.coder = Arrivals(self.source, table["classes"] or [])
        self.coder.labels = self.labels


class _Walk:
    """One walk over some rows of a step: what it says, in lists, until it is done.

    at: number of the first row in the step. order: (m,) 0 for events. events, labels: theirs.
    """

    def __init__(self, join: _Join, at: int, order: NDArray[np.intp], events: Rows,
                 names: list[Any], labels: _Labels) -> None:  # fmt: skip
        self.join, self.at, self.events, self.names, self.labels = join, at, events, names, labels
        self.order = order
        self.base = join.counts["events"]
        self.before = np.cumsum(order == 0) - (order == 0)  # events before each row
        self.now = self._clock()
        self.rows: list[int] = []  # of what is said, and the numbers that it is about
        self.numbers: list[int] = []
        self.odd: dict[int, tuple[str, int]] = {}  # of these, why no label came, and when
        self.unlabelled: list[int] = []  # events, by place
        self.labelled: list[tuple[int, int, float]] = []  # events with a label: place, row, y
        self.tight = join.n_pending + events.n > join.most
        self.oldest: Iterator[tuple[int, Any]] | None = None
        self.settled: set[int] = set()
        self.n_settled = 0

    def _clock(self) -> I8:
        """The clock at each row, (m,)."""
        join, is_event = self.join, self.order == 0
        if join.by_rows:
            seen = self.base + self.before - (~is_event)
            return np.where(self.before + is_event > 0, seen, join.now)
        times = np.empty(self.order.shape[0], dtype=np.int64)
        times[is_event], times[~is_event] = self.events.time, self.labels.times
        clock: I8 = np.maximum(np.maximum.accumulate(times), join.now) if times.size else times
        return clock

    def run(self) -> _Said:
        """Walk, and say it."""
        join = self.join
        self.events = self.events._replace(deadline=self._deadlines())
        join.backlog.append(self.events)
        last = int(self.now[-1]) if self.now.size else join.now
        told = zip(self.labels.ids, self.labels.y.tolist(), strict=True)
        names = [id if y == y and id is not None else _ABSENT for id, y in told]
        join.pending.update(join.backlog.find([*self.names, *names]))
        self.due = self._due(last)
        if last > self._limit() or not self._at_once(names):
            self._loop(names)
        join.now, join.row = last, join.row + len(names)
        join.counts["events"] += self.events.n
        return self._said()

    def _deadlines(self) -> I8:
        join, time = self.join, self.events.time
        if join.timeout == math.inf:
            return np.full(time.shape[0], _LAST, dtype=np.int64)
        if join.by_rows:
            return self.events.number + int(join.timeout)
        now = self.now[self.order == 0]
        start = np.where(time == NO_TIME, now, time)
        return np.minimum(start, _LAST - int(join.timeout)) + int(join.timeout)

    def _due(self, last: int) -> list[tuple[int, int, Any]]:
        """Deadline, number and name of what may be given up by the last row; the first one last.

        What is overdue when it comes is given up at the next row: it is set apart until it comes.
        """
        self.overdue: dict[int, int] = {}
        rows = None if self.join.timeout == math.inf else self.join.backlog.due(last)
        if rows is None:
            return []
        names = self.join.backlog.names_of(rows).tolist()
        numbers = rows.number.tolist()
        for name, k in zip(names, numbers, strict=True):
            if k < self.base:  # those in files are found now
                self.join.pending.setdefault(name, k)
        deadlines = rows.deadline.tolist()
        late = self.events.deadline < self.now[self.order == 0]
        if late.any():
            places = np.flatnonzero(late)
            ends = self.events.deadline[places].tolist()
            self.overdue = dict(zip((self.base + places).tolist(), ends, strict=True))
        due = zip(deadlines, numbers, names, strict=True)
        return [entry for entry in due if entry[1] not in self.overdue][::-1]

    def _at_once(self, names: list[Any]) -> bool:
        """All rows in one go, as `_loop` would; False, and nothing done, where one is not ordinary.

        Ordinary: events with ids that are new, and labels of events that wait.
        """
        join, n = self.join, self.events.n
        pending, done = join.pending, join.done
        fresh = dict(zip(self.names, range(self.base, self.base + n), strict=True))
        if self.tight or self.overdue or join.early or len(fresh) < n or None in fresh:
            return False
        if not (pending.keys().isdisjoint(fresh.keys()) and done.keys().isdisjoint(fresh.keys())):
            return False
        pending.update(fresh)
        rows = np.flatnonzero(self.order != 0)
        found = np.fromiter(map(pending.get, names, repeat(-1)), np.int64, len(names))
        there = (found >= 0) & (found < self.base + self.before[rows])
        if not there.all() or len(set(names)) < len(names):
            deque(map(pending.__delitem__, fresh), maxlen=0)
            return False
        deque(map(pending.__delitem__, names), maxlen=0)
        done.update(dict.fromkeys(names, 0))
        for _ in range(len(done) - join.remembered):
            done.popitem(last=False)
        self.rows, self.numbers = rows.tolist(), found.tolist()
        return True

    def _loop(self, names: list[Any]) -> None:
        """Row by row: the ordinary ones here, the others in methods of their own."""
        join, careful = self.join, self.tight or bool(self.overdue)
        pending, done, early, most = join.pending, join.done, join.early, join.remembered
        take, say, about = join.pending.pop, self.rows.append, self.numbers.append
        next_event, next_label = iter(self.names).__next__, iter(names).__next__
        at, limit = self.base, self._limit()
        rows = zip(self.order.tolist(), self.now.tolist(), strict=True)
        for row, (chosen, now) in enumerate(rows):
            if now > limit:
                self._expire(row, now)
                limit = self._limit()
            if chosen == 0:
                id = next_event()
                if id is None or id in pending or id in done or id in early or careful:
                    self._odd_event(row, at, id)
                    limit = self._limit()
                else:
                    pending[id] = at
                at += 1
                continue
            id = next_label()
            found = take(id, -1)
            if found < 0:
                self._odd_label(row, at)
                limit = self._limit()
                continue
            say(row)
            about(found)
            done[id] = 0
            if len(done) > most:
                done.popitem(last=False)

    def _limit(self) -> float:
        """The clock beyond which something is given up."""
        return min(self.due[-1][0] if self.due else math.inf, self.join.early_limit)

    def _expire(self, row: int, now: int) -> None:
        """What has waited for too long by now."""
        join = self.join
        while self.due and self.due[-1][0] < now:
            deadline, number, id = self.due.pop()
            if join.pending.get(id, -1) == number:
                del join.pending[id]
                came = NO_TIME if join.by_rows else deadline
                self._gone(row, id, number, "expired" if join.assume is None else "assumed", came)
        join.early_expire(self.at + row, now)

    def _odd_event(self, row: int, number: int, id: Any) -> None:
        """An event without an id, with one that is known, or one more than may wait."""
        join, place = self.join, number - self.base
        time = int(self.events.time[place])
        if id is None:
            join.counts["unlabelled"] += 1
            self.unlabelled.append(place)
            return
        if id in join.pending:
            self._gone(row, id, join.pending.pop(id), "replaced", time)
        join.done.pop(id, None)
        early = join.early.pop(id, None)
        if early is not None:
            join.counts["early"] += 1
            self.labelled.append((place, row, early.y))
            join.remember(id, 0)
            return
        if self.tight:
            self._make_room(row, number, time)
        join.pending[id] = number
        if number in self.overdue:
            self.due.append((self.overdue[number], number, id))
            self.due.sort(reverse=True)

    def _make_room(self, row: int, number: int, time: int) -> None:
        """The oldest event that waits goes, where as many as may wait do."""
        join = self.join
        seen = number - self.base - len(self.unlabelled) - len(self.labelled)
        if join.n_pending + seen - len(self.numbers) < join.most:
            return
        if self.oldest is None:
            self.oldest = join.backlog.oldest()
        self.settled.update(self.numbers[self.n_settled :])
        self.n_settled = len(self.numbers)
        for old, id in self.oldest:
            if old >= number or old in self.settled:
                continue
            if join.pending.get(id, old) == old and not self._is_no_wait(old):
                join.pending.pop(id, None)
                self._gone(row, id, old, "evicted", time)
                return

    def _is_no_wait(self, number: int) -> bool:
        """Whether an event of this walk never waited."""
        place = number - self.base
        if place < 0:
            return False
        return place in self.unlabelled or any(place == at for at, _, _ in self.labelled)

    def _gone(self, row: int, id: Any, number: int, why: str, came: int) -> None:
        """Say that a label will not come, or which one is assumed."""
        self.join.counts[why] += 1
        self.odd[len(self.rows)] = why, came
        self.rows.append(row)
        self.numbers.append(number)
        self.join.remember(id, _FATES.index(why))

    def _odd_label(self, row: int, number: int) -> None:
        labels, k = self.labels, row - (number - self.base)
        lane = None if labels.lanes is None else labels.lanes[labels.lane[k]]
        where = self.join.row + k if lane is None else labels.offsets[k]
        given = _Early(where, float(labels.y[k]), int(labels.times[k]), int(self.now[row]), lane)
        self.join.label_alone(self.at + row, labels.ids[k], given)

    # -- what was said -----------------------------------------------------------------------------

    def _said(self) -> _Said:
        """The lists as columns; what was settled waits no longer."""
        join, n = self.join, self.events.n
        at, numbers = np.array(self.rows, dtype=np.intp), np.array(self.numbers, dtype=np.int64)
        rows = join.backlog.gather(numbers)
        places = np.array(self.unlabelled, dtype=np.intp)
        once = np.array([place for place, _, _ in self.labelled], dtype=np.intp)
        join.backlog.kill(np.concatenate([numbers, self.base + places, self.base + once]))
        join.n_pending += n - numbers.shape[0] - places.shape[0] - once.shape[0]
        join.backlog.let_go(self.base + n)
        learn, assumed = np.ones(at.shape[0], np.bool_), np.zeros(at.shape[0], np.bool_)
        came, y = np.full(at.shape[0], NO_TIME, np.int64), np.full(at.shape[0], np.nan)
        for i, (why, when) in self.odd.items():
            learn[i], assumed[i], came[i] = why == "assumed", why == "assumed", when
        told = learn & ~assumed
        k = at[told] - self.before[at[told]]  # the labels before each row are those of the others
        y[told], came[told] = self.labels.y[k], self.labels.times[k]
        join.counts["labelled"] += int(np.count_nonzero(told)) + once.shape[0]
        number = np.arange(self.base, self.base + n)
        number[places] = -1
        mode = np.full(n, SCORED, dtype=np.uint8)
        mode[once] = LABELLED
        both = np.full(n, np.nan)
        y, both[once] = self._coded(at, y, learn, assumed)
        return _Said(mode, number, both, at + self.at, rows, learn, y, came, assumed)

    def _coded(self, at: NDArray[np.intp], y: F8, learn: B1, assumed: B1) -> tuple[F8, F8]:
        """Labels by the order of arrival: of the rows that are said, and of events with one."""
        join, m = self.join, at.shape[0]
        rows = np.array([row for _, row, _ in self.labelled], dtype=np.intp)
        whole = np.concatenate([y, np.array([y for _, _, y in self.labelled], dtype=np.float64)])
        if join.labels is None:
            whole[:m][assumed] = np.nan if join.assume is None else join.assume
            return whole[:m], whole[m:]
        order = np.argsort(np.concatenate([at, rows]), kind="stable")
        told = whole[order]
        supposed = np.concatenate([assumed, np.zeros(rows.shape[0], np.bool_)])
        if supposed.any() and join.labels.find(join.assume) < 0:
            join.coder.code(told[: int(np.argmax(supposed[order]))])  # what came before it
            join.labels.code(join.assume)
        whole[order] = join.coder.code(told)
        whole[supposed] = join.labels.find(join.assume)
        return whole[:m], whole[m:]


class JoinedLabels:
    """Events from one source and their labels from another, joined by id: a source.

    Rows are merged by record time, events before labels; without times, row by row in turn. A label
    is learnt when it comes; one that comes before its event waits for it. What cannot be joined
    goes to the dead letters with its reason, and is counted: a label of an unknown id, a second
    label of an event (the first counts), one that comes after the time-out.

    Guarantee: that of both sources. What waits is state (`state`, `load`); with it, the positions
    and the order log a reader goes on exactly. What became of the last 65,536 ids (max_pending, if
    that is less) is remembered; a second label for an event before those counts as one of an
    unknown id. Whichever it is, an event is learnt at most once.

    Args:
        events: blocks with ids. labels: blocks with ids and labels; their features are not looked
            at. Each may have lanes. One source that has both in one order, in steps as `Merged`
            gives them, stands for both. event_schema, label_schema: of both; each must name an id.
        timeout: as `parse_span` takes it, in record time or rows (the count of events): an event
            whose label has not come when the clock, the latest time of any event or label so far,
            is beyond its time + timeout, is given up before that record. None waits forever.
        assume: the label that such an event gets, where only one kind of label ever comes
            (selective labels: only positives come back).
        max_pending: events that wait for a label, and labels that wait for an event, at most; the
            oldest is given up.
        idle: seconds after which a silent input does not hold the other; 0 takes what is there, inf
            waits until it is caught up (lanes) or speaks.
        by: "id", or "key": the id of a label is the key of its event, the latest one with that key
            (those before it are given up as `replaced`).
        order_log: where the order is kept that was chosen.
        clock: of the wall, for `idle`.
    Cost: 1 us an event with its label, and reading both. Some 250 bytes an event that waits, up to
        the memory that `spill_to` allows: those beyond it lie in files, and cost 16 bytes each. As
        much again in the logs of pipeline and evaluation. What waits when both sources end stays
        so.
    Raises: UserError for schemas that do not fit and arguments out of range.
    """

    def __init__(
        self,
        events: Source | LanedSource,
        labels: Source | LanedSource,
        event_schema: Schema,
        label_schema: Schema,
        *,
        timeout: Any = None,
        assume: Any = None,
        max_pending: int = 1_000_000,
        idle: float = 5.0,
        by: str = "id",
        order_log: OrderLog | None = None,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        _refuse_schemas(event_schema, label_schema, by)
        self.schema, self._label_schema = event_schema, label_schema
        self.timeout = None if timeout is None else parse_span(timeout)
        by_time = event_schema.time is not None or any(map(has_lanes, (events, labels)))
        if self.timeout is not None and self.timeout.kind == "duration" and not by_time:
            raise UserError(
                f"timeout: {self.timeout.text} is told in time, but the events have no time "
                f"column; name one (time: ...), or give a number of rows"
            )
        if max_pending < 1 or not idle >= 0:
            name, rule = ("max_pending", 1) if max_pending < 1 else ("idle", 0)
            got = max_pending if max_pending < 1 else idle
            raise UserError(f"{name}: must be >= {rule}, got {got!r}")
        if assume is not None and self.timeout is None:
            raise UserError(f"assume: {assume!r} is for events at their time-out; give a timeout")
        self._assume, self._most = _assumed(assume, label_schema), max_pending
        self._merged: Any = events
        if events is not labels:
            inputs = {_EVENTS: events, _LABELS: labels}
            self._merged = Merged(inputs, by_time=by_time, idle=idle, order=order_log, clock=clock)
        self.sources = [events, labels]
        self.guarantee = f"{events.guarantee}; labels: {labels.guarantee}"
        self._start: list[Any] | None = None
        self._by = by
        self._memory: int | None = None
        self._spill: Spill | None = None
        self._made: _Join | None = None
        self._begin()

    def _begin(self) -> None:
        self._made = None
        self._delays = Delays()
        self._last: Block | None = None
        self._loaded = False

    # -- what it is --------------------------------------------------------------------------------

    @property
    def id(self) -> str | None:
        """Name of the id column of the events."""
        return self.schema.id

    @property
    def labels(self) -> Vocabulary | None:
        """The classes that have arrived, in that order; None for regression."""
        return self._join.labels

    @property
    def _join(self) -> _Join:
        """Made when first wanted: the schema may be bound to a trained pipeline until then."""
        if self._made is None:
            table = self._label_schema.labels
            if self._start is None:
                trained = self.schema.labels if self.schema.labels is not None else table
                self._start = [] if trained is None else list(trained.values)
            labels = None if table is None else Vocabulary(self._start)
            backlog = Backlog(self._by == "key", self._memory, self._spill)
            self._made = _Join(self.timeout, self._assume, self._most, labels, table, backlog)
        return self._made

    def report(self) -> dict[str, Json]:
        """What was counted so far.

        events; labelled: labels learnt, `early` of them at once because they waited for their
        event; pending: events that wait; waiting: labels that wait; expired, evicted, replaced:
        events given up at the time-out, beyond max_pending, because of a second event of that id;
        assumed: events that got the assumed label, contradicted: of which another came later;
        duplicates, unknown, late, empty: labels refused; unlabelled: events without an id; stalls:
        how often a silent input was passed over. rows, seconds, histogram: as of `DelayedLabels`.
        """
        return {
            "timeout": None if self.timeout is None else self.timeout.text,
            "assume": self._assume,
            **self._join.counts,
            "pending": self._join.n_pending,
            "spilled": self._join.backlog.spilled,
            "waiting": len(self._join.early),
            "stalls": self._merged.stalls,
            **self._delays.report(),
        }

    # -- a source ----------------------------------------------------------------------------------

    def spill_to(self, spill: Spill, memory: int) -> None:
        """Beside so many bytes, events that wait go to files; before the first event."""
        self._spill, self._memory, self._made = spill, memory, None

    def open(self, positions: Positions) -> None:
        """Go to these positions, with the state that was loaded; an empty dict is the beginning."""
        if not self._loaded:
            self._begin()
        self._loaded = False
        _ = self._join  # the classes known now are those known before the first event
        self._merged.open(positions)

    def poll(self, max_events: int, max_wait: float) -> Batch | None:
        """At most max_events events, their origins, and the labels that come between them."""
        step = self._merged.take(max_events, max_wait)
        if step is not None:
            return self._batch(step)
        if not self._join.events_ended and self._merged.ended(_EVENTS):
            self._join.end_of_events()
            rejects = self._rejects([])
            if rejects:
                return Batch(self._template(), rejects, self._merged.positions)
        return None

    @property
    def positions(self) -> Positions:
        """After the rows that were taken."""
        found: Positions = self._merged.positions
        return found

    @property
    def finished(self) -> bool:
        """True when both sources have ended, or the order log that is replayed has."""
        return self._merged.finished and not (
            self._merged.ended(_EVENTS) and not self._join.events_ended
        )

    def close(self) -> None:
        """Close both sources and the log."""
        self._merged.close()

    # -- blocks ------------------------------------------------------------------------------------

    def _template(self) -> Block:
        schema = self.schema
        return no_events(schema.columns, schema.sparse_width, self._last).replace(
            labels=self.labels, events=np.zeros(0, np.int64)
        )

    def _batch(self, step: Step) -> Batch:
        """Walk the rows of a step, and make a block of what the join says."""
        join = self._join
        if not join.events_ended and step.batches[0] is None and self._merged.ended(_EVENTS):
            join.end_of_events()
        first, second = step.batches
        block = self._template() if first is None else first.block
        self._last = block.rows(0, 0)
        events, labels = _rows_of(block), _labels_of(second)
        names = events.keys if self._by == "key" else events.ids
        listed = [None] * block.n if names is None else names.tolist()
        parts = []
        seen = np.concatenate([[0], np.cumsum(step.order == 0)])
        for start, stop in _pieces(seen, join.counts["events"]):
            e = slice(int(seen[start]), int(seen[stop]))
            order = step.order[start:stop]
            k = slice(start - e.start, stop - e.stop)
            numbers = np.arange(join.counts["events"], join.counts["events"] + e.stop - e.start)
            rows = events.some(e)._replace(number=numbers)
            walk = _Walk(join, start, order, rows, listed[e], labels.some(k))
            parts.append(walk.run())
            if join.counts["events"] % SEGMENT == 0:
                for number, id in join.backlog.shrink():
                    if join.pending.get(id, -1) == number:
                        del join.pending[id]
        rejects = self._rejects(step.rejects)
        out = self._woven(block, step.order, _together(parts))
        origins = None if first is None else first.origins
        return Batch(out, rejects, self._merged.positions, origins)

    def _woven(self, block: Block, order: NDArray[np.intp], said: _Said) -> Block:
        """The events of a block and what was said between them."""
        before = np.cumsum(order == 0) - (order == 0)
        before = before[said.at]
        label_at = np.arange(said.at.shape[0]) + before
        event_at = np.arange(block.n) + np.cumsum(np.bincount(before, minlength=block.n + 1))[:-1]
        mode = np.empty(block.n + said.at.shape[0], dtype=np.uint8)
        mode[event_at] = said.mode
        mode[label_at] = np.where(said.learn, LEARN, EXPIRED)
        self._measure(said, block, before)
        rows = said.rows
        late = Late(rows.number, rows.number, said.label, rows.weight, rows.time, rows.ids,
                    None if self.schema.key is None else rows.keys,
                    None if self.schema.group is None else rows.groups)  # fmt: skip
        woven = Woven(event_at, label_at, mode, said.number, said.came)
        out = weave(block.replace(y=said.y), late, woven, self.labels)
        if self._assume is not None:  # a label that was assumed never became known
            known = np.full(out.n, NO_TIME, dtype=np.int64)
            known[label_at] = np.where(said.assumed, NO_TIME, 0)
            out = out.replace(label_times=known)
        return out

    def _measure(self, said: _Said, block: Block, before: NDArray[np.intp]) -> None:
        """How late the labels of a block were."""
        told = said.learn & ~said.assumed
        start = self._join.counts["events"] - block.n
        late = start + before[told] - 1 - said.rows.number[told]
        once = np.flatnonzero(said.mode == LABELLED)
        none = np.zeros(once.shape[0], dtype=np.int64)
        for values in (late, none):
            self._delays.rows.add(values)
        came, time = said.came[told], said.rows.time[told]
        timed = (came != NO_TIME) & (time != NO_TIME)
        seconds = came[timed] - time[timed]
        self._delays.times.add(seconds[seconds >= 0])
        if block.times is not None:
            self._delays.times.add(none[block.times[once] != NO_TIME])

    def _rejects(self, given: list[tuple[int, Reject]]) -> list[Reject]:
        """Records that did not fit and labels that were refused, in the order of the rows."""
        placed = [(row, 0, reject) for row, reject in given]
        placed += [(at, 1, self._dead(*rest)) for at, *rest in self._join.refused]
        self._join.refused = []
        return [reject for _, _, reject in sorted(placed, key=lambda entry: entry[:2])]

    def _dead(self, id: Any, given: _Early, reason: str) -> Reject:
        """A label that was refused, as a dead letter.

        Its position is its lane and offset, or counts labels from 0.
        """
        schema, value = self._label_schema, given.y
        label = None if value != value else value
        if schema.labels is not None and label is not None:
            label = schema.labels.values[int(label)]
        record = {str(schema.id): id, str(schema.target): label}
        if schema.time is not None:
            record[schema.time] = str(np.datetime64(given.time, "ns"))
        raw = json.dumps(record, ensure_ascii=False).encode()
        return Reject(given.lane or _LABELS, given.row, reason, raw)

    # -- state -------------------------------------------------------------------------------------

    def state(self) -> State:
        """What waits, what was counted, and where the merge stands; the order log made durable."""
        members = {
            "merged": self._merged.state(),
            "join": self._join.state(),
            "delays": self._delays.state(),
            "schema": self._label_schema.state(),
        }
        return merged(members, {"settings": self._settings()})

    def _settings(self) -> list[Json]:
        return [None if self.timeout is None else self.timeout.text, self._assume, self._most]

    def load(self, state: State) -> None:
        """Take over what `state` gave; the next `open` goes on from there.

        Raises: UserError where the state is of other settings.
        """
        if state.table["settings"] != self._settings():
            raise UserError(
                f"labels: the checkpoint was made with timeout, assume and max_pending "
                f"{state.table['settings']}, got {self._settings()}; give the same, or begin with "
                f"a new checkpoint folder"
            )
        self._begin()
        self._label_schema.load(state.under("schema"))
        self._join.load(state.under("join"))
        self._delays.load(state.under("delays"))
        self._merged.load(state.under("merged"))
        self._loaded = True


def _refuse_schemas(events: Schema, labels: Schema, by: str) -> None:
    if by not in ("id", "key"):
        raise UserError(f"by: must be id or key, got {by!r}")
    if by == "key" and events.key is None:
        raise UserError("by: key is for events with a key column; name it (key: ...)")
    for name, schema in (("events", events), ("labels", labels)):
        if schema.id is None and (by == "id" or schema is labels):
            raise UserError(f"{name}: must have an id column, to join labels to events; name it")
    if labels.target is None:
        raise UserError("labels: must have a target column; name it")
    if (events.time is None) != (labels.time is None):
        has, lacks = ("labels", "events") if events.time is None else ("events", "labels")
        raise UserError(
            f"{lacks}: must have a time column where the {has} have one ({has}: "
            f"{(labels if events.time is None else events).time!r}); name it, or leave out both"
        )


def _assumed(value: Any, schema: Schema) -> Any:
    """An assumed label as the labels' schema reads it."""
    if value is None:
        return None
    try:
        if schema.task == "classification":
            read = class_of(value, schema.missing, schema.classes)
        else:
            read = number(value, schema.missing)
    except Misfit as reason:
        raise UserError(f"assume: {reason}") from None
    if read is None or read != read:
        raise UserError(f"assume: must be a label, got {value!r}")
    return read


def _pieces(seen: NDArray[np.intp], start: int) -> list[tuple[int, int]]:
    """Rows of a step in pieces that end with the last event of a segment.

    seen: (m + 1,) events before each row, and in all. start: events before the step.
    """
    m, n = seen.shape[0] - 1, int(seen[-1])
    full = np.arange(SEGMENT - start % SEGMENT, n + 1, SEGMENT)
    ends = sorted({*np.searchsorted(seen, full).tolist(), m})
    return [(a, b) for a, b in zip([0, *ends], ends, strict=False) if a < b or m == 0]


def _rows_of(block: Block) -> Rows:
    """What is to be known of events, but for their numbers."""
    none = np.full(block.n, NO_TIME, dtype=np.int64)
    times = none if block.times is None else block.times
    return Rows(none, times, none, block.weight, block.ids, block.keys, block.groups)


def _labels_of(batch: Batch | None) -> _Labels:
    """The labels of a batch."""
    if batch is None:
        return _Labels([], np.zeros(0), np.zeros(0, np.int64), None, [], [])
    block, origins = batch.block, batch.origins
    ids = [None] * block.n if block.ids is None else block.ids.tolist()
    none = np.full(block.n, NO_TIME, dtype=np.int64)
    times = none if block.times is None else block.times
    if origins is None:
        return _Labels(ids, block.y, times, None, [], [])
    names = [f"{topic}/{number}" for topic, number in origins.partitions]
    return _Labels(ids, block.y, times, names, origins.partition.tolist(), origins.offset.tolist())


def _together(parts: list[_Said]) -> _Said:
    """What was said in the pieces of a step, as one."""
    if len(parts) == 1:
        return parts[0]
    told = ([part.mode, part.number, part.y, part.at, part.number, *part[5:]] for part in parts)
    columns: list[Any] = [np.concatenate(pieces) for pieces in zip(*told, strict=True)]
    whole = joined([part.rows for part in parts if part.rows.n] or [parts[0].rows])
    return _Said(*columns)._replace(rows=whole)
