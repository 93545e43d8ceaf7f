"""Labels from a stream of their own, joined to the events by id.

`_Join` walks rows in their merged order and keeps what waits; `JoinedLabels` feeds it and makes
blocks of what it says.
"""

import heapq
import json
import math
import time as clocks
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from streamlearn.block import EXPIRED, LABELLED, LEARN, NO_TIME, SCORED, Block, Vocabulary
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
    Late,
    Woven,
    as_objects,
    no_events,
    packed,
    unpacked,
    weave,
)
from streamlearn.merging import Merged, Step, has_lanes
from streamlearn.order_log import OrderLog
from streamlearn.schema import Schema
from streamlearn.schema_cells import Misfit, class_of, number

_COUNTS = (
    "events", "labelled", "expired", "assumed", "contradicted", "duplicates", "unknown", "late",
    "early", "evicted", "replaced", "unlabelled", "empty",
)  # fmt: skip
_FATES = ("labelled", "expired", "assumed", "evicted", "replaced")  # of events that wait no more
_EVENTS, _LABELS = "events", "labels"


class _Waiting(NamedTuple):
    """An event whose label has not come."""

    number: int
    time: int
    deadline: int
    weight: float
    key: Any
    group: Any


class _Early(NamedTuple):
    """A label whose event has not come.

    row: its number in the label stream, or its offset in its lane.
    """

    row: int
    y: float
    time: int
    deadline: int
    lane: str | None


class _Row(NamedTuple):
    """A row that is no event: a label, or word that it will not come."""

    before: int  # events of the block that stand before it
    mode: int
    y: float
    id: Any
    event: _Waiting
    came: int
    assumed: bool = False


class _Join:
    """What waits for what. Times are nanoseconds, or numbers of events where by_rows is true."""

    def __init__(self, timeout: Delay | None, assume: Any, most: int, labels: Vocabulary | None,
                 source: Vocabulary | None) -> None:  # fmt: skip
        self.timeout = math.inf if timeout is None else timeout.n
        self.by_rows = timeout is not None and timeout.kind == "rows"
        self.assume, self.most = assume, most
        self.labels, self.source = labels, source
        self.codes: list[float] = []  # of our own table, by code of the source's
        self.counts = dict.fromkeys(_COUNTS, 0)
        self.now = NO_TIME  # the latest time of any event or label
        self.pending: dict[Any, _Waiting] = {}
        self.early: dict[Any, _Early] = {}
        self.done: dict[Any, str] = {}  # what became of the ids before: why no label fits any more
        self.heap: list[tuple[float, int, Any]] = []
        self.events_ended = False
        self.row = 0  # of the labels, those that are refused included
        self.begin_block()

    def begin_block(self) -> None:
        """Nothing was said yet."""
        self.said: list[_Row] = []
        self.modes: list[int] = []
        self.numbers: list[int] = []
        self.ys: list[float] = []
        self.refused: list[tuple[int, Any, _Early, str]] = []
        self.at = -1  # the row of the step that is looked at
        self.delays: list[tuple[int, int]] = []

    # -- rows --------------------------------------------------------------------------------------

    def event(self, id: Any, time: int, weight: float, key: Any, group: Any) -> None:
        """The next event."""
        n = self.counts["events"]
        self.now = n if self.by_rows else max(self.now, time)
        self._expire()
        if id is None:
            self.counts["unlabelled"] += 1
            self._scored(SCORED, -1, math.nan)
            return
        if id in self.pending:
            self._gone(id, self.pending.pop(id), "replaced", time)
        start = n if self.by_rows else (self.now if time == NO_TIME else time)
        deadline = _LAST if self.timeout == math.inf else start + int(self.timeout)
        event = _Waiting(n, time, deadline, weight, key, group)
        self.done.pop(id, None)
        early = self.early.pop(id, None)
        if early is not None:
            self.counts["early"] += 1
            self._scored(LABELLED, n, self._own(early.y))
            self._learnt(id, event, event.time)
            return
        self._make_room(time)
        self.pending[id] = event
        if self.timeout != math.inf:
            heapq.heappush(self.heap, (deadline, n, id))
        self._scored(SCORED, n, math.nan)

    def _scored(self, mode: int, n: int, y: float) -> None:
        self.modes.append(mode)
        self.numbers.append(n)
        self.ys.append(y)
        self.counts["events"] += 1

    def label(self, id: Any, y: float, time: int, lane: str | None, offset: int) -> None:
        """The next label; y as the source of the labels codes it; lane: None where it has none."""
        given = _Early(self.row if lane is None else offset, y, time, self.now, lane)
        self.row += 1
        if not self.by_rows and time > self.now:
            self.now = time
            self._expire()
        if id is None:
            self._refuse(id, given, "unknown", "the label names no event")
        elif y != y:
            self._refuse(id, given, "empty", f"the label of event {id!r} has no value")
        elif (event := self.pending.pop(id, None)) is not None:
            self.said.append(_Row(len(self.modes), LEARN, self._own(y), id, event, time))
            self._learnt(id, event, time)
        elif id in self.done:
            self._too_late(id, given)
        else:
            self._wait(id, given)

    def _own(self, y: float) -> float:
        """A class by the order of arrival."""
        if self.source is None or self.labels is None:
            return y
        code = int(y)
        while code >= len(self.codes):
            self.codes.append(math.nan)
        if self.codes[code] != self.codes[code]:
            self.codes[code] = float(self.labels.code(self.source.values[code]))
        return self.codes[code]

    def _learnt(self, id: Any, event: _Waiting, came: int) -> None:
        seconds = came - event.time if NO_TIME not in (came, event.time) else -1
        self.delays.append((self.counts["events"] - 1 - event.number, seconds))
        self.counts["labelled"] += 1
        self._remember(id, "labelled")

    def _remember(self, id: Any, what: str) -> None:
        self.done[id] = what
        if len(self.done) > self.most:
            del self.done[next(iter(self.done))]

    # -- events whose label does not come ----------------------------------------------------------

    def _expire(self) -> None:
        """What has waited for too long by now."""
        heap = self.heap
        while heap and heap[0][0] < self.now:
            deadline, n, id = heapq.heappop(heap)
            event = self.pending.get(id)
            if event is not None and event.number == n:
                del self.pending[id]
                came = NO_TIME if self.by_rows else int(deadline)
                self._gone(id, event, "expired" if self.assume is None else "assumed", came)
        if len(heap) > 2 * len(self.pending) + 1024:
            self.heap = [(event.deadline, event.number, id) for id, event in self.pending.items()]
            heapq.heapify(self.heap)
        while self.early and self.timeout != math.inf:
            id, early = next(iter(self.early.items()))
            if early.deadline + self.timeout >= self.now:
                break
            del self.early[id]
            self._refuse(id, early, "unknown", f"no event {id!r} came within the time-out")

    def _make_room(self, came: int) -> None:
        if len(self.pending) >= self.most:
            id = next(iter(self.pending))
            self._gone(id, self.pending.pop(id), "evicted", came)

    def _gone(self, id: Any, event: _Waiting, why: str, came: int) -> None:
        """Say that a label will not come, or which one is assumed."""
        self.counts[why] += 1
        mode, y = EXPIRED, math.nan
        if why == "assumed":
            mode = LEARN
            y = float(self.labels.code(self.assume)) if self.labels is not None else self.assume
        self.said.append(_Row(len(self.modes), mode, y, id, event, came, why == "assumed"))
        self._remember(id, why)

    # -- labels without an event -------------------------------------------------------------------

    def _too_late(self, id: Any, given: _Early) -> None:
        what = self.done[id]
        if what == "labelled":
            self._refuse(id, given, "duplicates", f"event {id!r} has a label already: that counts")
            return
        if what == "assumed":
            value = given.y if self.source is None else self.source.values[int(given.y)]
            self.counts["contradicted"] += value != self.assume
            text = f"the label of event {id!r} came after the time-out: {self.assume!r} was assumed"
        elif what == "evicted":
            text = f"event {id!r} was given up: more than max_pending waited for a label"
        else:
            text = f"the label of event {id!r} came after the time-out"
        self._refuse(id, given, "late", text)

    def _wait(self, id: Any, given: _Early) -> None:
        if id in self.early:
            self._refuse(id, given, "duplicates", f"a label of {id!r} waits already: that counts")
        elif self.events_ended:
            self._refuse(id, given, "unknown", f"there was no event {id!r}")
        else:
            self.early[id] = given._replace(deadline=self.now)
            if len(self.early) > self.most:
                first = next(iter(self.early))
                text = f"no event {first!r} came: more than max_pending labels waited"
                self._refuse(first, self.early.pop(first), "unknown", text)

    def end_of_events(self) -> None:
        """No event will come any more: what waits for one never had one."""
        self.events_ended = True
        for id, early in self.early.items():
            self._refuse(id, early, "unknown", f"there was no event {id!r}")
        self.early.clear()

    def _refuse(self, id: Any, given: _Early, count: str, text: str) -> None:
        self.counts[count] += 1
        self.refused.append((self.at, id, given, text))

    # -- state -------------------------------------------------------------------------------------

    def state(self) -> State:
        """All that waits, in order; the heap follows from it."""
        waiting, early = list(self.pending.values()), list(self.early.values())
        arrays = {
            "pending/numbers": np.array([[*w[:3]] for w in waiting], np.int64).reshape(-1, 3),
            "pending/weight": np.array([w.weight for w in waiting], np.float64),
            "early/numbers": np.array([[e.row, e.time, e.deadline] for e in early],
                                      np.int64).reshape(-1, 3),
            "early/y": np.array([e.y for e in early], np.float64),
        }  # fmt: skip
        members = {
            "pending": packed(list(self.pending)),
            "keys": packed(_some([w.key for w in waiting])),
            "groups": packed(_some([w.group for w in waiting])),
            "early": packed(list(self.early)),
            "lanes": packed(_some([e.lane for e in early])),
            "done": packed(list(self.done)),
        }
        fates = [_FATES.index(fate) for fate in self.done.values()]
        arrays["done/fates"] = np.array(fates, dtype=np.uint8)
        table = {
            "counts": dict(self.counts),
            "clocks": [self.now, self.row, self.events_ended],
            "classes": None if self.labels is None else list(self.labels.values),
        }
        packs = merged(members, table)
        return State(arrays | packs.arrays, packs.table)

    def load(self, state: State) -> None:
        """The inverse."""
        arrays, table = state
        ids = {name: unpacked(state.under(name)) or [] for name in ("pending", "early", "done")}
        n = len(ids["pending"])
        sides = [unpacked(state.under(name)) or [None] * n for name in ("keys", "groups")]
        told = zip(ids["pending"], arrays["pending/numbers"].tolist(),
                   arrays["pending/weight"].tolist(), *sides, strict=True)  # fmt: skip
        self.pending = {
            id: _Waiting(number, time, until, w, k, g)
            for id, (number, time, until), w, k, g in told
        }
        lanes = unpacked(state.under("lanes")) or [None] * len(ids["early"])
        early = zip(ids["early"], arrays["early/numbers"].tolist(), arrays["early/y"].tolist(),
                    lanes, strict=True)  # fmt: skip
        self.early = {id: _Early(row, y, t, until, lane) for id, (row, t, until), y, lane in early}
        fates = (_FATES[fate] for fate in arrays["done/fates"].tolist())
        self.done = dict(zip(ids["done"], fates, strict=True))
        self.counts = dict(table["counts"])
        self.now, self.row, self.events_ended = table["clocks"]
        self.labels = None if table["classes"] is None else Vocabulary(table["classes"])
        self.codes = [] if self.source is None or self.labels is None else [
            math.nan if (place := self.labels.find(value)) < 0 else float(place)
            for value in self.source.values
        ]  # fmt: skip
        if self.timeout != math.inf:
            self.heap = [(w.deadline, w.number, id) for id, w in self.pending.items()]
            heapq.heapify(self.heap)


_LAST = int(np.iinfo(np.int64).max)


def _some(values: list[Any]) -> list[Any] | None:
    return None if all(value is None for value in values) else values


class JoinedLabels:
    """Events from one source and their labels from another, joined by id: a source.

    Rows are merged by record time, events before labels; without times, row by row in turn. A label
    is learnt when it comes; one that comes before its event waits for it. What cannot be joined
    goes to the dead letters with its reason, and is counted: a label of an unknown id, a second
    label of an event (the first counts), one that comes after the time-out.

    Guarantee: that of both sources. What waits is state (`state`, `load`); with it, the positions
    and the order log a reader goes on exactly. What became of the last `max_pending` ids is
    remembered; a second label for an event before those counts as one of an unknown id.

    Args:
        events: blocks with ids. labels: blocks with ids and labels; their features are not looked
            at. event_schema, label_schema: of both; each must name an id.
        timeout: as `parse_span` takes it, in record time or rows (the count of events): an event
            whose label has not come when the clock, the latest time of any event or label so far,
            is beyond its time + timeout, is given up before that record. None waits forever.
        assume: the label that such an event gets, where only one kind of label ever comes
            (selective labels: only positives come back).
        max_pending: events that wait for a label, and labels that wait for an event, at most; the
            oldest is given up.
        idle: seconds after which a silent input does not hold the other; 0 takes what is there.
        order_log: where the order is kept that was chosen.
        clock: of the wall, for `idle`.
    Cost: 3 us an event with its label, and reading both; some 250 bytes an event that waits, and
        as much again in the logs of pipeline and evaluation; as much an id remembered. What
        waits when both sources end stays so.
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
        order_log: OrderLog | None = None,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        _refuse_schemas(event_schema, label_schema)
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
        inputs = {_EVENTS: events, _LABELS: labels}
        self._merged = Merged(inputs, by_time=by_time, idle=idle, order=order_log, clock=clock)
        self.sources = [events, labels]
        self.guarantee = f"{events.guarantee}; labels: {labels.guarantee}"
        self._start: list[Any] | None = None
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
            self._made = _Join(self.timeout, self._assume, self._most, labels, table)
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
            "pending": len(self._join.pending),
            "waiting": len(self._join.early),
            "stalls": self._merged.stalls,
            **self._delays.report(),
        }

    # -- a source ----------------------------------------------------------------------------------

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
            self._join.begin_block()
            if rejects:
                return Batch(self._template(), rejects, self._merged.positions)
        return None

    @property
    def positions(self) -> Positions:
        """After the rows that were taken."""
        return self._merged.positions

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
        block = step.batches[0].block if step.batches[0] is not None else self._template()
        self._last = block.rows(0, 0)
        events = iter(_listed(block))
        labels = iter([] if step.batches[1] is None else _told(step.batches[1]))
        for at, chosen in enumerate(step.order.tolist()):
            join.at = at
            if chosen == 0:
                join.event(*next(events))
            else:
                join.label(*next(labels))
        rejects = self._rejects(step.rejects)
        out = self._woven(block)
        join.begin_block()
        origins = None if step.batches[0] is None else step.batches[0].origins
        return Batch(out, rejects, self._merged.positions, origins)

    def _woven(self, block: Block) -> Block:
        """The events of a block and what was said between them."""
        join, said = self._join, self._join.said
        delays = np.array(join.delays, dtype=np.int64).reshape(-1, 2)
        self._delays.rows.add(delays[:, 0])
        self._delays.times.add(delays[delays[:, 1] >= 0, 1])
        before = np.array([row.before for row in said], dtype=np.intp)
        label_at = np.arange(len(said)) + before
        event_at = np.arange(block.n) + np.cumsum(np.bincount(before, minlength=block.n + 1))[:-1]
        mode = np.empty(block.n + len(said), dtype=np.uint8)
        mode[event_at] = join.modes
        mode[label_at] = [row.mode for row in said]
        came = np.array([row.came for row in said], dtype=np.int64)
        woven = Woven(event_at, label_at, mode, np.array(join.numbers, dtype=np.int64), came)
        block = block.replace(y=np.array(join.ys, dtype=np.float64))
        out = weave(block, self._late(), woven, self.labels)
        if self._assume is not None:  # a label that was assumed never became known
            known = np.full(out.n, NO_TIME, dtype=np.int64)
            known[label_at] = [NO_TIME if row.assumed else 0 for row in said]
            out = out.replace(label_times=known)
        return out

    def _late(self) -> Late:
        """What was said of events, as columns."""
        said = self._join.said
        events = [row.event for row in said]
        number = np.array([event.number for event in events], dtype=np.int64)
        return Late(
            number,
            number,
            np.array([row.y for row in said], dtype=np.float64),
            np.array([event.weight for event in events], dtype=np.float64),
            np.array([event.time for event in events], dtype=np.int64),
            as_objects([row.id for row in said]),
            None if self.schema.key is None else as_objects([event.key for event in events]),
            None if self.schema.group is None else as_objects([event.group for event in events]),
        )

    def _rejects(self, given: list[tuple[int, Reject]]) -> list[Reject]:
        """Records that did not fit and labels that were refused, in the order of the rows."""
        placed = [(row, 0, reject) for row, reject in given]
        placed += [(at, 1, self._dead(*rest)) for at, *rest in self._join.refused]
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


def _refuse_schemas(events: Schema, labels: Schema) -> None:
    for name, schema in (("events", events), ("labels", labels)):
        if schema.id is None:
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


def _listed(block: Block) -> list[tuple[Any, int, float, Any, Any]]:
    """Id, time, weight, key and group of each event."""
    none = [None] * block.n
    ids = none if block.ids is None else block.ids.tolist()
    times = [NO_TIME] * block.n if block.times is None else block.times.tolist()
    keys = none if block.keys is None else block.keys.tolist()
    groups = none if block.groups is None else block.groups.tolist()
    return list(zip(ids, times, block.weight.tolist(), keys, groups, strict=True))


def _told(batch: Batch) -> list[tuple[Any, float, int, str | None, int]]:
    """Id, label, time, lane and offset of each label."""
    block, origins = batch.block, batch.origins
    ids = [None] * block.n if block.ids is None else block.ids.tolist()
    times = [NO_TIME] * block.n if block.times is None else block.times.tolist()
    lanes: list[str | None] = [None] * block.n
    offsets = [-1] * block.n
    if origins is not None:
        names = [f"{topic}/{number}" for topic, number in origins.partitions]
        lanes = [names[i] for i in origins.partition.tolist()]
        offsets = origins.offset.tolist()
    return list(zip(ids, block.y.tolist(), times, lanes, offsets, strict=True))
