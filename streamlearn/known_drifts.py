"""Known drifts of a stream: where they are, which events rows are about, how alarms fit them."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import B1, I8, LEARN, OBSERVE, PREDICT, SCORED, Block
from streamlearn.contracts import Json
from streamlearn.errors import UserError
from streamlearn.operators import _checks

Drift = tuple[int, int]  # first and last event of a change of concept; abrupt: twice the same
UNKNOWN = -1  # a row about an event that cannot be told


def known_drifts(drifts: str | Iterable[Any], width: int = 0) -> tuple[Drift, ...]:
    """Drifts as pairs (start, end) of event numbers, counted from 0, both included.

    Args:
        drifts: events with which another concept holds, or pairs (start, end) for a gradual drift;
            or both as text: "10000,20000-21000".
        width: of the drifts given as one number: from width // 2 before it to width // 2 after it.
    Raises: ValueError unless they rise and do not overlap.
    """
    if isinstance(drifts, str):
        drifts = parse_drifts(drifts)
    half = _checks.whole("known_drifts", "width", width, least=0) // 2
    found = tuple(_pair(given, half) for given in drifts)
    for before, after in pairwise(found):
        if after[0] <= before[1]:
            raise ValueError(
                f"known_drifts: drifts must rise and not overlap, got {before} before {after}"
            )
    return found


def _pair(given: Any, half: int) -> Drift:
    whole = _checks.whole
    if isinstance(given, (int, np.integer)):
        at = whole("known_drifts", "a drift", given, least=0)
        return max(0, at - half), at + half
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ValueError(
            f"known_drifts: a drift must be an event number or a pair (start, end), got {given!r}"
        )
    start = whole("known_drifts", "the start of a drift", given[0], least=0)
    return start, whole("known_drifts", f"the end of the drift at {start}", given[1], least=start)


def parse_drifts(text: str) -> list[Any]:
    """The drifts of a command line: "10000,20000" or "9000-10500,19000-21500".

    Raises: UserError for anything else.
    """
    found: list[Any] = []
    for part in text.replace(" ", "").split(","):
        numbers = part.split("-")
        if not 1 <= len(numbers) <= 2 or not all(n.isascii() and n.isdigit() for n in numbers):
            raise UserError(
                f"--drifts: must be rows from 0, as 10000,20000 or 9000-10500, got {text!r}"
            )
        found.append(int(part) if len(numbers) == 1 else tuple(map(int, numbers)))
    return found


class EventNumbers:
    """The number of the event that each row is about: its place among the events of the stream.

    A row that answers or observes is an event of its own. A row that only brings a label is told
    by `block.events`; without that by its id, which is remembered from scoring on for the events
    that are wanted. State: `events`, how many have come, and the ids remembered.
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.events = 0
        self._ids: dict[Any, int] = {}

    def of(self, block: Block, wanted: Callable[[I8], B1]) -> I8:
        """(n,) int64 for the rows of the next block; UNKNOWN where it cannot be told.

        wanted: of event numbers (m,), whose ids are remembered until their label comes.
        Raises: ValueError where `block.events` is not the count of the stream's events.
        """
        own = events_of(block)
        about = np.full(block.n, UNKNOWN, dtype=np.int64)
        n = int(np.count_nonzero(own))
        about[own] = np.arange(self.events, self.events + n)
        if block.events is not None:
            self._check(block.events[own], about[own])
            about[~own] = block.events[~own]
        elif block.ids is not None and not block.plain:
            self._tell(block.ids, block.mode, about, own, wanted)
        self.events += n
        return about

    def _check(self, given: I8, counted: I8) -> None:
        wrong = np.flatnonzero((given >= 0) & (given != counted))
        if len(wrong):
            t = wrong[0]
            raise ValueError(
                f"{self.owner}: events must count the events of the stream from 0, "
                f"got {given[t]} for number {counted[t]}; show it every block from the first on"
            )

    def _tell(
        self, ids: NDArray[Any], mode: NDArray[np.uint8], about: I8, own: B1,
        wanted: Callable[[I8], B1],
    ) -> None:  # fmt: skip
        """Remember the ids of the wanted events scored here, and recall those of label rows."""
        kept = (mode == SCORED) & wanted(about)
        for t in np.flatnonzero(kept | ~own).tolist():
            key = ids[t].item() if isinstance(ids[t], np.generic) else ids[t]
            if kept[t]:
                self._ids[key] = int(about[t])
            else:
                about[t] = self._ids.pop(key, UNKNOWN)

    def table(self) -> dict[str, Json]:
        """What `load` needs, as JSON."""
        return {
            "events": self.events,
            "ids": list(self._ids),
            "numbers": list(self._ids.values()),
        }

    def load(self, table: dict[str, Json]) -> None:
        """Take over what `table` gave."""
        self.events = table["events"]
        self._ids = dict(zip(table["ids"], table["numbers"], strict=True))


def events_of(block: Block) -> B1:
    """Rows that are events: all but those that only bring a label, or tell that none will come."""
    rows: B1 = (block.mode & (PREDICT | OBSERVE)) != 0
    return rows


def strangers(block: Block, about: I8, start: int) -> B1:
    """Rows that bring the label of an event before `start`, or of one that cannot be told."""
    keyed = block.events is not None or block.ids is not None
    rows: B1 = ((block.mode & (PREDICT | OBSERVE)) == 0) & (about < start)
    return rows if keyed else rows & (block.mode & LEARN == 0)


class AlarmTally:
    """Alarms against known drifts, counted as they come: how late, how many false, which missed.

    An alarm belongs to a drift from its start to its end + tolerance, both included, and not beyond
    the start of the next drift. Every other alarm is false. State: O(drifts).
    """

    def __init__(self, drifts: Sequence[Drift], tolerance: int = 2000) -> None:
        self.drifts = tuple(drifts)
        self.tolerance = _checks.whole("judge_alarms", "tolerance", tolerance, least=0)
        self._starts = np.array([start for start, _ in self.drifts], dtype=np.int64)
        self._ends = np.array([end for _, end in self.drifts], dtype=np.int64) + self.tolerance
        self.first = np.full(len(self.drifts), UNKNOWN, dtype=np.int64)
        self.counts = np.zeros(len(self.drifts), dtype=np.int64)
        self.false_alarms = 0

    def add(self, alarms: I8) -> None:
        """Count alarms (m,), events in rising order."""
        if not len(alarms):
            return
        which = np.searchsorted(self._starts, alarms, side="right") - 1
        good = which >= 0
        good[good] = alarms[good] <= self._ends[which[good]]
        self.false_alarms += int(np.count_nonzero(~good))
        for k in np.unique(which[good]):
            own = alarms[good & (which == k)]
            self.counts[k] += len(own)
            if self.first[k] < 0:
                self.first[k] = own[0]

    def of(self, k: int) -> dict[str, Json]:
        """The k-th drift: `delay` of its first alarm (None: missed), `alarms` in its zone."""
        start, first = self.drifts[k][0], int(self.first[k])
        return {"delay": first - start if first >= 0 else None, "alarms": int(self.counts[k])}

    def result(self, reached: int) -> dict[str, Json]:
        """`n` alarms, `false_alarms`, `misses`, `mean_delay` over the first `reached` drifts."""
        found = [k for k in range(reached) if self.first[k] >= 0]
        delays = [int(self.first[k] - self._starts[k]) for k in found]
        return {
            "n": self.false_alarms + int(self.counts.sum()),
            "false_alarms": self.false_alarms,
            "misses": reached - len(found),
            "mean_delay": sum(delays) / len(delays) if delays else None,
        }


def judge_alarms(
    alarms: Iterable[int], drifts: str | Iterable[Any], tolerance: int = 2000
) -> dict[str, Json]:
    """Alarms of a detector against known drifts.

    An alarm within start .. end + tolerance of a drift, both included, and before the next drift
    starts belongs to it; every other is false. The delay of a drift is its first alarm - start.

    Args:
        alarms: numbers of the events on which the detector fired, from 0, in any order.
        drifts: what `known_drifts` takes.
        tolerance: events after the end of a drift in which an alarm is still about it, >= 0.
    Returns: plain JSON: `n`, `false_alarms`, `misses`, `mean_delay` (None without any), `drifts`:
        for each `start`, `end`, `delay` (None: missed) and `alarms`, how many belong to it.
    >>> judge_alarms([150, 1030, 1500, 9000], [1000, 5000])["drifts"][0]["delay"]
    30
    """
    tally = AlarmTally(known_drifts(drifts), tolerance)
    tally.add(np.sort(np.fromiter(alarms, dtype=np.int64)))
    told = [
        {"start": start, "end": end} | tally.of(k) for k, (start, end) in enumerate(tally.drifts)
    ]
    return tally.result(len(told)) | {"drifts": told}
