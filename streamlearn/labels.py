"""Sources whose labels come late: from the same rows after a delay, or from a stream of their own.

A block of such a source holds events without their labels (mode SCORED), labels of earlier events
(LEARN, features missing) and labels that will not come (EXPIRED), in the order of arrival;
`Block.events` says which event a row is about. Pipeline and Evaluation remember what was said when
an event was scored, until its label comes.
"""

from typing import Any

import numpy as np

from streamlearn.block import B1, I8, LABELLED, NO_TIME, Block, Vocabulary
from streamlearn.contracts import Batch, Json, Positions, Source, State, merged
from streamlearn.errors import UserError
from streamlearn.label_delay import Delay, Delays, parse_delay
from streamlearn.label_join import JoinedLabels as JoinedLabels
from streamlearn.late_rows import Arrivals, Late, Queue, Woven, modes_of, no_events, together, weave
from streamlearn.schema import Schema

_LAST = np.iinfo(np.int64).max


class DelayedLabels:
    """Recorded rows as a stream whose labels come late: a source around a source.

    With a delay of n rows, the label of event i comes right after event i + n and before event
    i + n + 1. With a duration it is due so long after the time of its event; with a column, at the
    time that stands there. What is due at T comes before the first event at which the clock (the
    latest time of any event so far) is beyond T; so events go before labels of the same time. After
    the last event all labels that are outstanding follow, by the time they are due. An event
    without a label, or without a time in that column, never gets one (`Block.events` is -1).

    Guarantee: that of the source. The labels outstanding are state (`state`, `load`); with them and
    the positions a reader goes on exactly.

    Args:
        source: blocks of events with their labels.
        schema: of the source; must have `time` for a duration, and `label_time` for a column too.
        delay: as `parse_delay` takes it.
    Cost: 0.1 to 0.3 us an event; 40 bytes a label outstanding, and its id, key and group.
    Raises: UserError for a delay that the schema cannot tell.
    """

    def __init__(self, source: Source, schema: Schema, delay: Any) -> None:
        self.source, self.schema = source, schema
        self.delay = _fitting(parse_delay(delay), schema)
        self.guarantee = source.guarantee
        self._start: list[Any] | None = None
        self._loaded = False
        self._begin()

    def _begin(self) -> None:
        """As before the first event."""
        self._queue = Queue()
        self._arrivals: Arrivals | None = None
        self._events, self._clock = 0, NO_TIME
        self._labelled = self._unlabelled = 0
        self._delays = Delays()
        self._positions: Positions = {}
        self._last: Block | None = None

    # -- what it is --------------------------------------------------------------------------------

    @property
    def id(self) -> str | None:
        """Name of the id column."""
        return self.schema.id

    @property
    def labels(self) -> Vocabulary | None:
        """The classes that have arrived, in that order; None for regression."""
        return self._coder.labels

    @property
    def _coder(self) -> Arrivals:
        """Made when first wanted: the schema may be bound to a trained pipeline until then."""
        table = self.schema.labels
        if self._start is None:
            self._start = [] if table is None else list(table.values)
        if self._arrivals is None:
            self._arrivals = Arrivals(table, self._start)
        return self._arrivals

    def report(self) -> dict[str, Json]:
        """What was counted so far.

        delay: as given. events; labelled: labels that came; pending: that will come; unlabelled:
        events that never get one. rows, seconds: mean, p50, p99 and max of the delay from the event
        to its label, to 3 %; histogram: lower bounds of bins of 6 % in rows, and their counts.
        """
        return {
            "delay": self.delay.text,
            "events": self._events,
            "labelled": self._labelled,
            "pending": len(self._queue),
            "unlabelled": self._unlabelled,
            **self._delays.report(),
        }

    # -- a source ----------------------------------------------------------------------------------

    @property
    def sources(self) -> list[Any]:
        """What the events come from."""
        return list(getattr(self.source, "sources", [self.source]))

    @property
    def positions(self) -> Positions:
        """After the events that were handed out."""
        return dict(self._positions)

    def open(self, positions: Positions) -> None:
        """Go to these positions, with the state that was loaded; an empty dict is the beginning."""
        if not self._loaded:
            self._begin()
        self._loaded = False
        _ = self._coder  # the classes known now are those known before the first event
        self.source.open(positions)
        self._positions = dict(positions) | getattr(self.source, "positions", {})

    def poll(self, max_events: int, max_wait: float) -> Batch | None:
        """At most max_events events and the labels that come with them; at the end only labels."""
        batch = self.source.poll(max_events, max_wait)
        if batch is not None:
            self._positions = batch.positions
            return batch._replace(block=self._late(batch.block))
        late = self._queue.pop(None, max_events) if self._ended else None
        return None if late is None else Batch(self._rest(late), [], dict(self._positions))

    @property
    def finished(self) -> bool:
        """True when the source has ended and no label is outstanding.

        An order that is repeated may end before the events do: then labels stay outstanding.
        """
        return self.source.finished and not (self._ended and len(self._queue))

    @property
    def _ended(self) -> bool:
        """Whether no event will ever come."""
        return self.source.finished and bool(getattr(self.source, "ended", True))

    def close(self) -> None:
        """Close the source."""
        self.source.close()

    # -- blocks ------------------------------------------------------------------------------------

    def _late(self, block: Block) -> Block:
        """Events with their labels as events without, and the labels that have come by then."""
        n, first = block.n, self._events
        if n == 0:
            return block.replace(labels=self.labels, events=np.zeros(0, np.int64))
        number = np.arange(first, first + n)
        clock = self._clocks(block)
        due, known = self._due(block, number, clock)
        by_rows = self.delay.kind == "rows"
        at_once = known & (due <= number if by_rows else due < clock)
        fresh = _late_of(block, due, number, known & ~at_once)
        late = self._come(fresh, first + n if by_rows else int(clock[-1]))
        self._events, self._clock, self._last = first + n, int(clock[-1]), block.rows(0, 0)
        self._unlabelled += n - int(np.count_nonzero(known))
        woven = _places(late, number, clock, known, at_once, by_rows)
        self._measure(late, woven, clock, number, at_once)
        out = weave(block, late, woven, self.labels)
        return out if self.labels is None else out.replace(y=self._coder.code(out.y))

    def _clocks(self, block: Block) -> I8:
        """The latest time of any event up to each one, (n,); NO_TIME where none had one."""
        if block.times is None:
            return np.full(block.n, self._clock, dtype=np.int64)
        clock: I8 = np.maximum(np.maximum.accumulate(block.times), self._clock)
        return clock

    def _due(self, block: Block, number: I8, clock: I8) -> tuple[I8, B1]:
        """When the label of each event is due, and whether there is one at all."""
        missing = np.isnan(block.y)
        known: B1 = np.logical_not(missing if missing.ndim == 1 else missing.all(axis=1))
        if self.delay.kind == "rows":
            return number + self.delay.n, known
        if self.delay.kind == "column":
            due = block.label_times
            if due is None:
                return clock, np.zeros(block.n, dtype=np.bool_)
            return due, known & (due != NO_TIME)
        times = clock if block.times is None else block.times
        times = np.where(times == NO_TIME, clock, times)
        late = np.minimum(times, _LAST - self.delay.n) + self.delay.n
        return np.where(times == NO_TIME, NO_TIME, late), known

    def _come(self, fresh: Late, end: int) -> Late:
        """Those due before the end, of the ones that waited and the fresh ones; the rest waits."""
        now = fresh.due < end
        waited = self._queue.pop(end)
        if now.all():
            ready = fresh
        else:
            self._queue.push(fresh.rows(np.flatnonzero(~now)))
            ready = fresh.rows(np.flatnonzero(now))
        return ready.ordered() if waited is None else together([waited, ready]).ordered()

    def _measure(self, late: Late, woven: Woven, clock: I8, number: I8, at_once: B1) -> None:
        """Count the labels of a block and how late they are."""
        before = woven.label_at - np.arange(late.n)  # events of this block before each label
        rows = number[0] + before - 1 - late.number
        none = np.zeros(int(np.count_nonzero(at_once)), dtype=np.int64)
        self._labelled += late.n + none.shape[0]
        for values in (none, rows):
            self._delays.rows.add(values)
        timed = (late.time != NO_TIME) & (woven.came != NO_TIME)
        self._delays.times.add(woven.came[timed] - late.time[timed])
        self._delays.times.add(none[clock[at_once] != NO_TIME])

    def _rest(self, late: Late) -> Block:
        """Labels after the last event as a block of their own."""
        schema = self.schema
        block = no_events(schema.columns, schema.sparse_width, self._last)
        came = np.maximum(late.due, late.time)
        if self.delay.kind == "rows":
            came = np.full(late.n, self._clock, dtype=np.int64)
        at = np.arange(late.n)
        none = at[:0]
        mode = modes_of(none, at)
        woven = Woven(none, at, mode, none.astype(np.int64), came)
        self._labelled += late.n
        self._delays.rows.add(self._events - 1 - late.number)
        timed = (late.time != NO_TIME) & (came != NO_TIME)
        self._delays.times.add(came[timed] - late.time[timed])
        out = weave(block, late, woven, self.labels)
        return out if self.labels is None else out.replace(y=self._coder.code(out.y))

    # -- state -------------------------------------------------------------------------------------

    def state(self) -> State:
        """Labels outstanding, classes that have arrived, and what was counted."""
        members = {
            "queue": self._queue.state(),
            "delays": self._delays.state(),
        }
        source: Any = self.source
        if hasattr(source, "state"):  # lanes that are merged
            members["source"] = source.state()
        table = {
            "delay": list(self.delay),
            "events": self._events,
            "clock": self._clock,
            "labelled": self._labelled,
            "unlabelled": self._unlabelled,
            "classes": None if self.labels is None else list(self.labels.values),
        }
        return merged(members, table)

    def load(self, state: State) -> None:
        """Take over what `state` gave; the next `open` goes on from there.

        Raises: UserError where the state is of another delay.
        """
        table = state.table
        if Delay(*table["delay"]) != self.delay:
            raise UserError(
                f"delay: the checkpoint was made with {Delay(*table['delay']).text}, got "
                f"{self.delay.text}; give the same, or begin with a new checkpoint folder"
            )
        self._begin()
        self._events, self._clock = table["events"], table["clock"]
        self._labelled, self._unlabelled = table["labelled"], table["unlabelled"]
        self._arrivals = Arrivals(self.schema.labels, table["classes"] or [])
        self._queue.load(state.under("queue"))
        self._delays.load(state.under("delays"))
        source: Any = self.source
        if hasattr(source, "load") and "source" in table:
            source.load(state.under("source"))
        self._loaded = True


def _fitting(delay: Delay, schema: Schema) -> Delay:
    """A delay that a schema can tell."""
    if delay.kind != "rows" and schema.time is None:
        raise UserError(
            f"delay: {delay.text} is told in time, but the schema names no time column; "
            f"name one (time: ...), or give a number of rows"
        )
    if delay.kind == "column" and schema.label_time != delay.column:
        raise UserError(
            f"delay: must be rows, a duration or the schema's label_time column "
            f"{schema.label_time!r}, got {delay.column!r}"
        )
    return delay


def _late_of(block: Block, due: I8, number: I8, rows: B1) -> Late:
    """The labels of some rows of a block, without the features."""
    times = np.full(block.n, NO_TIME, dtype=np.int64) if block.times is None else block.times
    whole = Late(due, number, block.y, block.weight, times, block.ids, block.keys, block.groups)
    return whole if rows.all() else whole.rows(np.flatnonzero(rows))


def _places(late: Late, number: I8, clock: I8, known: B1, at_once: B1, by_rows: bool) -> Woven:
    """Where labels go between events: after all events that must be before them."""
    n = number.shape[0]
    if by_rows:
        before = late.due - number[0] + 1
        came = clock[before - 1]
    else:
        before = np.searchsorted(clock, late.due, side="right")
        came = np.maximum(late.due, late.time)
    label_at = np.arange(late.n) + before
    event_at = np.arange(n) + np.cumsum(np.bincount(before, minlength=n + 1))[:n]
    mode = modes_of(event_at, label_at)
    mode[event_at[at_once]] = LABELLED
    return Woven(event_at, label_at, mode, np.where(known, number, -1), came)
