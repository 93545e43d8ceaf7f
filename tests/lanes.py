"""A source with lanes, in memory: records come when the schedule says so."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import LABELLED, SCORED, Block, Features, Vocabulary
from streamlearn.contracts import Batch, Origins, Positions, Ready, Reject


class Record(NamedTuple):
    """One record of a lane. value: of x; None does not fit. y: a label, or nothing."""

    offset: int
    time: int
    value: float | None
    id: Any = None
    y: float = np.nan


class MemoryLane:
    """Records of which some have come (`there`) and some are known to be in the partition."""

    def __init__(self, name: str, records: Sequence[Record], bounded: bool) -> None:
        self.name, self.records, self.bounded = name, list(records), bounded
        self.at = self.there = 0
        self.heard = True  # whether the end of the partition is known

    def ready(self) -> Ready | None:
        waiting = self.records[self.at : self.there]
        if not waiting:
            return None
        rows = [record for record in waiting if record.value is not None]
        before, rejects = 0, []
        for record in waiting:
            if record.value is None:
                rejects.append(before)
            else:
                before += 1
        times = np.array([record.time for record in rows], dtype=np.int64)
        offsets = np.array([record.offset for record in rows], dtype=np.int64)
        return Ready(len(rows), times, rejects, offsets)

    @property
    def caught_up(self) -> bool:
        return self.heard and self.at == self.there

    @property
    def finished(self) -> bool:
        return self.bounded and self.at == len(self.records)


class MemoryLanes:
    """A `LanedSource`. arrive: called in every `wait` with the lanes; says what has come by then.

    Rows that are taken are blocks of one feature x, with ids, times, labels and origins.
    """

    guarantee = "exactly once from any position"

    def __init__(
        self,
        records: Mapping[str, Sequence[Record]],
        arrive: Callable[["MemoryLanes"], None] | None = None,
        *,
        bounded: bool = True,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        self.records, self.arrive, self.bounded = records, arrive, bounded
        self.vocabulary = vocabulary
        self.lanes: list[MemoryLane] = []
        self.waits: list[float] = []
        self.closed = False

    def open(self, positions: Positions) -> None:
        self.lanes = [MemoryLane(name, some, self.bounded) for name, some in self.records.items()]
        for lane in self.lanes:
            start = positions.get(lane.name, 0)
            lane.at = lane.there = sum(record.offset < start for record in lane.records)

    def add(self, name: str, records: Sequence[Record]) -> None:
        """A partition that is new."""
        self.lanes.append(MemoryLane(name, records, self.bounded))

    def wait(self, max_wait: float) -> None:
        self.waits.append(max_wait)
        if self.arrive is None:
            for lane in self.lanes:
                lane.there = len(lane.records)
        else:
            self.arrive(self)

    def take(self, order: NDArray[np.intp]) -> Batch:
        counts = np.bincount(order, minlength=len(self.lanes)).tolist()
        rows: list[list[Record]] = []
        rejects: list[Reject] = []
        for lane, n in zip(self.lanes, counts, strict=True):
            rows.append(self._taken(lane, n, rejects, not order.shape[0]))
        places = [iter(some) for some in rows]
        taken = [(int(i), next(places[i])) for i in order]
        positions = {lane.name: self._position(lane) for lane in self.lanes}
        return Batch(self._block([r for _, r in taken]), rejects, positions, self._origins(taken))

    def _taken(self, lane: MemoryLane, n: int, rejects: list[Reject], empty: bool) -> list[Record]:
        ready = lane.ready()
        if not n and not (empty and ready is not None and ready.n == 0):
            return []
        last = ready is not None and ready.n == n
        out: list[Record] = []
        while lane.at < lane.there and (len(out) < n or last):
            record = lane.records[lane.at]
            lane.at += 1
            if record.value is None:
                rejects.append(Reject(lane.name, record.offset, "does not fit", b"?"))
            else:
                out.append(record)
        return out

    def _position(self, lane: MemoryLane) -> int:
        if lane.at < len(lane.records):
            return lane.records[lane.at].offset
        return lane.records[-1].offset + 1 if lane.records else 0

    def _block(self, rows: Sequence[Record]) -> Block:
        y = np.array([record.y for record in rows], dtype=np.float64)
        X = np.array([record.value for record in rows], dtype=np.float64)[:, None]
        ids = np.empty(len(rows), dtype=object)
        ids[:] = [record.id for record in rows]
        times = np.array([record.time for record in rows], dtype=np.int64)
        mode = np.where(np.isnan(y), SCORED, LABELLED).astype(np.uint8)
        return Block(X, y, np.ones(len(rows)), mode, Features(["x"]), self.vocabulary, ids, times)

    def _origins(self, taken: Sequence[tuple[int, Record]]) -> Origins:
        names = [lane.name.rpartition("/") for lane in self.lanes]
        return Origins(
            [(topic, int(number)) for topic, _, number in names],
            np.array([i for i, _ in taken], dtype=np.intp),
            np.array([record.offset for _, record in taken], dtype=np.int64),
            np.array([record.time for _, record in taken], dtype=np.int64),
            None,
        )

    @property
    def finished(self) -> bool:
        return all(lane.finished for lane in self.lanes)

    def close(self) -> None:
        self.closed = True
