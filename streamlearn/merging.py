"""The merge of several inputs into one stream: by record time, then in the order of the inputs.

Of two rows the one with the earlier time goes first (of each input the running maximum counts, so
an input is never reordered within itself); at equal times the input that was named first. Without
times the number of the row stands for its time. An input at its end does not hold the others back;
one that is silent for `idle` seconds does not either, until it speaks again: that choice depends on
the clock of the wall, so it is kept in an order log where there is one.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import I8, NO_TIME
from streamlearn.contracts import Batch, Positions, Ready, Reject, Source, State
from streamlearn.errors import UserError
from streamlearn.order_log import OrderLog

_log = logging.getLogger(__name__)


class Step(NamedTuple):
    """Some rows of a merged stream.

    order: (m,) the input that each row is of. batches: for each input its rows among them, or None.
    rejects: the records that did not fit, each with the row before which it stands (m: after all);
    those of one place in order.
    """

    order: NDArray[np.intp]
    batches: list[Batch | None]
    rejects: list[tuple[int, Reject]]


class _Input:
    """One source with its clock."""

    def __init__(self, name: str, source: Source) -> None:
        self.name = name
        self.source = source if hasattr(source, "ready") else _RowByRow(source)
        self.begin()

    def begin(self) -> None:
        """As before the first row."""
        self.clock, self.rows = NO_TIME, 0
        self.silent_since: float | None = None
        self.passed = self.told = False
        self.ready: Ready | None = None

    def look(self, max_wait: float) -> None:
        """See what is there."""
        self.ready = self.source.ready(max_wait)
        if self.ready is not None:
            self.silent_since, self.passed = None, False

    def clocks(self, by_time: bool, most: int) -> I8:
        """Time of each of the first rows that are ready: the running maximum, or the row number."""
        assert self.ready is not None
        n = min(self.ready.n, most)
        if not by_time or self.ready.times is None:
            return np.arange(self.rows, self.rows + n)
        clock: I8 = np.maximum(np.maximum.accumulate(self.ready.times[:n]), self.clock)
        return clock

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more."""
        return self.ready is None and self.source.finished


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
        inputs: by name; the first go first at equal times. The limit of `take` is of the first.
        by_time: whether rows go by their times, or by their numbers.
        idle: seconds after which an input with nothing to give does not hold the others; 0 never
            waits.
        order: where choices are kept; None where they need not be.
        clock: of the wall, for `idle`.
    Cost: 0.1 us a row, and some 50 us a call.
    """

    def __init__(
        self,
        inputs: Mapping[str, Source],
        *,
        by_time: bool = True,
        idle: float = 5.0,
        order: OrderLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inputs = [_Input(name, source) for name, source in inputs.items()]
        self._by_time, self._idle, self._order, self._now = by_time, idle, order, clock
        self._rows: int | None = None
        self._positions: Positions = {}
        self._loaded = False
        self.stalls = 0

    # -- opening and closing -----------------------------------------------------------------------

    def open(self, positions: Positions) -> None:
        """Go to these positions (input/partition), with the state that was loaded, if any was."""
        if not self._loaded:
            for one in self._inputs:
                one.begin()
            self.stalls, self._rows = 0, None
        self._positions = dict(positions)
        for one in self._inputs:
            start = f"{one.name}/"
            one.source.open({k[len(start) :]: p for k, p in positions.items()
                             if k.startswith(start)})  # fmt: skip
            one.ready, one.silent_since, one.passed = None, None, False
        if self._order is not None:
            self._order.open([one.name for one in self._inputs], self._rows)
        self._rows, self._loaded = self._rows or 0, False

    def close(self) -> None:
        """Close all inputs and the log; may be called twice."""
        for one in self._inputs:
            one.source.close()
        if self._order is not None:
            self._order.close()

    def ended(self, name: str) -> bool:
        """Whether an input has come to its end."""
        return next(one.ended for one in self._inputs if one.name == name)

    @property
    def finished(self) -> bool:
        """True when all inputs have ended, or the log that is replayed has."""
        replayed = self._order is not None and self._order.replay
        if replayed and self._order is not None and self._order.next_run is None:
            return True
        return all(one.ended for one in self._inputs)

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
        return State({}, {"inputs": table, "rows": self._rows or 0, "stalls": self.stalls})

    def load(self, state: State) -> None:
        """The inverse; `open` then goes on from there, and repeats what the log holds after it."""
        for one in self._inputs:
            one.begin()
            one.clock, one.rows = (state.table["inputs"][one.name][k] for k in ("clock", "rows"))
        self._rows, self.stalls, self._loaded = state.table["rows"], state.table["stalls"], True

    # -- merging -----------------------------------------------------------------------------------

    def take(self, most: int, max_wait: float) -> Step | None:
        """Rows in their order, of the first input at most `most`; ends with the last of these.

        None when nothing came within max_wait seconds, and at the end.
        """
        for one in self._inputs:
            one.look(0.0)
        found = self._chosen(most)
        if found is None and not self.finished:
            silent = [one for one in self._inputs if one.ready is None and not one.ended]
            for one in silent:
                one.look(max_wait / len(silent))
            found = self._chosen(most)
        return None if found is None else self._taken(*found)

    def _chosen(self, most: int) -> tuple[NDArray[np.intp], bool] | None:
        """The inputs of the next rows, and whether it is for the log to remember; None: wait.

        A record that does not fit and that no row follows is taken as soon as it is there.
        """
        if any(one.ready is not None and one.ready.n == 0 for one in self._inputs):
            return np.zeros(0, dtype=np.intp), False
        if self._order is not None and self._order.next_run is not None:
            return self._repeated(most, *self._order.next_run)
        if self._order is not None and self._order.replay:
            return None
        order, held = self._merged(2 * most + 1)
        if held and not order.shape[0]:
            self._pass_over()
            order, _ = self._merged(2 * most + 1)
        first = np.flatnonzero(order == 0)
        if first.shape[0] >= most:
            order = order[: first[most - 1] + 1]
        return (order, True) if order.shape[0] else None

    def _repeated(self, most: int, chosen: int, rows: int) -> tuple[NDArray[np.intp], bool] | None:
        """The next run of the log, as far as it is there."""
        one = self._inputs[chosen]
        if one.ready is None:
            if one.ended:
                raise UserError(
                    f"{one.name}: ends at row {one.rows}, but the order log goes on; give the data "
                    f"that were read then"
                )
            return None
        n = min(rows, one.ready.n, most if chosen == 0 else rows)
        return np.full(n, chosen, dtype=np.intp), False

    def _merged(self, most: int) -> tuple[NDArray[np.intp], bool]:
        """Inputs of the rows that may go now, and whether a silent input holds some back."""
        there = [i for i, one in enumerate(self._inputs) if one.ready is not None]
        clocks = {i: self._inputs[i].clocks(self._by_time, most) for i in there}
        ends = [clocks[i].shape[0] for i in there]
        held = False
        for j, one in enumerate(self._inputs):
            if one.ended or (one.ready is None and one.passed):
                continue
            bound = self._bound(one) if one.ready is None else int(clocks[j][-1])
            for at, i in enumerate(there):
                if i != j:
                    side: Any = "right" if i < j else "left"
                    end = int(np.searchsorted(clocks[i], bound, side=side))
                    held = held or (one.ready is None and end < ends[at])
                    ends[at] = min(ends[at], end)
        if not there:
            return np.zeros(0, dtype=np.intp), held
        inputs = np.repeat(there, ends)
        times = np.concatenate([clocks[i][:end] for i, end in zip(there, ends, strict=True)])
        return inputs[np.lexsort((inputs, times))].astype(np.intp), held

    def _bound(self, one: _Input) -> int:
        """The least time that the next row of a silent input may have."""
        return one.clock if self._by_time else one.rows

    def _pass_over(self) -> None:
        """Let go of inputs that hold the others for too long."""
        now = self._now()
        for one in self._inputs:
            if one.ready is not None or one.ended or one.passed:
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

    def _taken(self, order: NDArray[np.intp], fresh: bool) -> Step:
        """Take these rows, and note the choice before anything comes of it."""
        counts = np.bincount(order, minlength=len(self._inputs)).tolist()
        if self._order is not None and order.shape[0]:
            if fresh:
                self._order.append(order, sync=any(one.passed for one in self._inputs))
            else:
                self._order.repeat(order.shape[0])
        batches: list[Batch | None] = []
        placed: list[tuple[int, int, int, Reject]] = []
        for i, (one, n) in enumerate(zip(self._inputs, counts, strict=True)):
            empty = one.ready is not None and one.ready.n == 0
            if not n and not empty:
                batches.append(None)
                continue
            batch = self._polled(one, n)
            rows = np.flatnonzero(order == i)
            batches.append(batch if n else None)
            placed += _placed(i, one.ready, batch, rows)
            one.ready = None
        self._rows = (self._rows or 0) + order.shape[0]
        placed.sort(key=lambda entry: entry[:3])
        return Step(order, batches, [(row, reject) for row, _, _, reject in placed])

    def _polled(self, one: _Input, n: int) -> Batch:
        """The next n rows of an input."""
        clock = int(one.clocks(self._by_time, n)[-1]) if n else one.clock
        batch = one.source.poll(max(n, 1), 0.0)
        if batch is None or batch.block.n != n:
            raise UserError(f"{one.name}: gave other rows than it had ready; this is a bug in it")
        one.rows, one.clock = one.rows + n, clock
        self._positions |= {f"{one.name}/{name}": p for name, p in batch.positions.items()}
        return batch


def _placed(
    i: int, ready: Ready | None, batch: Batch, rows: NDArray[np.intp]
) -> list[tuple[int, int, int, Reject]]:
    """Rejects with their place: (row, 1, input) before a row, (row, 0, input) after the one before.

    What follows the last row of a chunk stands right after it.
    """
    assert ready is not None
    out = []
    for before, reject in zip(ready.rejects, batch.rejects, strict=False):
        if before < rows.shape[0]:
            out.append((int(rows[before]), 1, i, reject))
        else:
            last = int(rows[-1]) + 1 if rows.shape[0] else 0
            out.append((last, 0, i, reject))
    return out
