"""Requests as a stream: events and labels in one order, that of the journal they stand in.

A position is the number of a record in the journal. A record is a letter (`E` event, `L` label),
eight bytes (when it came, in milliseconds since 1970, little-endian) and a JSON object with the
columns of the schema: read again, it gives the same rows, whatever the clock says then.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import I8
from streamlearn.config_serve import REQUESTS
from streamlearn.connectors._json_columns import JsonColumns
from streamlearn.contracts import Batch, Json, Origins, Positions, Reject, State
from streamlearn.errors import UserError
from streamlearn.journal import Journal
from streamlearn.merging import Step
from streamlearn.schema import Schema
from streamlearn.schema_columns import decode_columns
from streamlearn.topics import TIMESTAMP

EVENT, LABEL = b"E", b"L"
_HEAD = 9  # bytes before the JSON
_MOST_LABELS = 8192  # of a step, beside its events


class Askers(Protocol):
    """Who waits for answers."""

    def known(self, number: int, id: Any, text: bytes) -> None:
        """An event of an earlier process, by its number and JSON, before its answer is there."""

    def refused(self, number: int, reason: str) -> None:
        """A record does not fit any more: there will be no answer."""


class Taken(NamedTuple):
    """Records of a kind. row: of the step, (m,). number: in the journal. came: ms since 1970."""

    row: list[int]
    number: list[int]
    came: list[int]
    values: list[bytes]


def record(kind: bytes, came: int, text: bytes) -> bytes:
    """One record of the journal."""
    return kind + came.to_bytes(8, "little", signed=True) + text


def _came(text: bytes) -> int:
    """When a record came; 0 of none."""
    return int.from_bytes(text[1:_HEAD], "little", signed=True)


class _Decoder:
    """Records of one kind to a batch."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._columns = JsonColumns(schema, [n for n in schema.wanted() if n != TIMESTAMP])

    def decode(self, taken: Taken, positions: Positions) -> tuple[Batch | None, dict[int, str]]:
        """The rows that fit, and why others, by their place, do not."""
        n = len(taken.values)
        if n == 0:
            return None, {}
        columns, misfits = self._columns.each(taken.values)
        if self.schema.time == TIMESTAMP:
            columns[TIMESTAMP] = list(taken.came)
        decoded, misfits = decode_columns(self.schema, columns, n, misfits)
        fits = np.array([i not in misfits for i in range(n)])
        origins = _origins(taken, fits)
        return Batch(decoded.take(0, decoded.n), [], positions, origins), misfits


def _origins(taken: Taken, fits: NDArray[np.bool_]) -> Origins:
    offset = np.array(taken.number, dtype=np.int64)[fits]
    times: I8 = np.array(taken.came, dtype=np.int64)[fits] * 1_000_000
    return Origins([(REQUESTS, 0)], np.zeros(offset.shape[0], np.intp), offset, times, None)


class Requests:
    """What `JoinedLabels` walks where events and labels come by requests; both its sources.

    The engine's thread calls everything but `put`, `fail` and `finish`.

    Args:
        journal: where the requests stand. events, labels: how they are read. askers: told of the
            events that stood in the journal when it was opened, and of what does not fit.
    Raises: UserError where the journal does not go as far as a position.
    """

    guarantee = "requests: each is durable before its answer, and read again after a crash"
    stalls = 0

    def __init__(
        self,
        journal: Journal,
        events: Schema,
        labels: Schema,
        askers: Askers,
    ) -> None:
        self.schema = events
        self._journal, self._askers = journal, askers
        self._decoders = (_Decoder(events), _Decoder(labels))
        self._arrived = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._old: Iterator[tuple[int, bytes]] = iter(())
        self._failed: UserError | None = None
        self._next = self._replayed = 0
        self._finishing = self.opened = False
        self.came = 0  # of the last record of an earlier process, in milliseconds since 1970

    # -- the thread of the server ------------------------------------------------------------------

    def put(self, records: Sequence[bytes]) -> None:
        """Records that are durable, in the order of the journal."""
        with self._arrived:
            self._waiting.extend(records)
            self._arrived.notify()

    def fail(self, error: UserError) -> None:
        """The journal can take no more: the run ends with this."""
        with self._arrived:
            self._failed = error
            self._arrived.notify()

    def finish(self) -> None:
        """No request will come; what is there is worked off. Takes no lock: signals may call it."""
        self._finishing = True

    @property
    def waiting(self) -> int:
        """Records that are durable and not taken yet."""
        return len(self._waiting)

    @property
    def recovered(self) -> bool:
        """Whether all that stood in the journal at the start was taken."""
        return self.opened and self._next >= self._replayed

    # -- steps, as of `Merged` ---------------------------------------------------------------------

    def open(self, positions: Positions) -> None:
        """Go to this record; an empty dict is the first one there is."""
        self._journal.open()
        self.came = _came(self._journal.last())
        self._next = int(positions.get(REQUESTS, 0))
        self._replayed = self._journal.next
        self._old = self._journal.read(self._next)
        self._waiting.clear()
        self.opened = True

    def close(self) -> None:
        """Release the journal; may be called twice."""
        self.opened = False
        self._journal.close()

    def ended(self, name: str) -> bool:
        """Never: after the next start requests come again."""
        return False

    @property
    def finished(self) -> bool:
        """Whether everything was worked off after `finish`."""
        return self._finishing and self.recovered and not self._waiting

    @property
    def positions(self) -> Positions:
        """After the records that were taken."""
        return {REQUESTS: self._next}

    def state(self) -> State:
        """Nothing: the order is that of the journal."""
        return State({}, {})

    def load(self, state: State) -> None:
        """The inverse."""

    def take(self, most: int, max_wait: float) -> Step | None:
        """The next records, at most so many events; None when nothing came in time."""
        first = self._next
        records = self._records(most, max_wait)
        if not records:
            return None
        kinds = np.array([r[:1] == LABEL for r in records], dtype=np.intp)
        found = [_taken(records, kinds, first, kind) for kind in (0, 1)]
        told = [d.decode(t, self.positions) for d, t in zip(self._decoders, found, strict=True)]
        if first < self._replayed:
            self._remember(told[0][0], found[0], told[0][1])
        for i, why in told[0][1].items():
            self._askers.refused(found[0].number[i], why)
        return _step(kinds, found, told)

    def _called(self) -> bool:
        """Whether there is something to do."""
        return bool(self._waiting) or self._finishing or self._failed is not None

    def _records(self, most: int, max_wait: float) -> list[bytes]:
        """At most so many events and the labels between them; they count as taken."""
        with self._arrived:
            if self.recovered and not self._waiting and not self._finishing:
                self._arrived.wait_for(self._called, max_wait)
            if self._failed is not None:
                raise self._failed
        if not self.recovered:
            found = [r for _, r in islice(self._old, most)]
        else:
            found = []
            while self._waiting and most > 0 and len(found) < _MOST_LABELS:
                found.append(self._waiting.popleft())
                most -= found[-1][:1] == EVENT
        self._next += len(found)
        return found

    def _remember(self, batch: Batch | None, taken: Taken, misfits: dict[int, str]) -> None:
        """Tell of the events of an earlier process."""
        if batch is None or batch.block.ids is None:
            return
        fit = [(k, v) for i, (k, v) in enumerate(zip(taken.number, taken.values, strict=True))
               if i not in misfits]  # fmt: skip
        for (number, text), id in zip(fit, batch.block.ids.tolist(), strict=True):
            self._askers.known(number, id, text)


def _taken(records: list[bytes], kinds: NDArray[np.intp], first: int, kind: int) -> Taken:
    rows = np.flatnonzero(kinds == kind).tolist()
    came = [_came(records[i]) for i in rows]
    return Taken(rows, [first + i for i in rows], came, [records[i][_HEAD:] for i in rows])


def _step(
    kinds: NDArray[np.intp], found: list[Taken], told: list[tuple[Batch | None, dict[int, str]]]
) -> Step:
    """What was decoded, in its order; what did not fit any more stands between."""
    misfits = {taken.row[i]: (taken, i, why)
               for taken, (_, reasons) in zip(found, told, strict=True)
               for i, why in reasons.items()}  # fmt: skip
    keep = np.array([i not in misfits for i in range(kinds.shape[0])], dtype=np.bool_)
    before: I8 = np.cumsum(keep) - keep
    rejects: list[tuple[int, Reject]] = []
    for row in sorted(misfits):
        taken, i, why = misfits[row]
        position: Json = taken.number[i]
        rejects.append((int(before[row]), Reject(f"{REQUESTS}/0", position, why, taken.values[i])))
    batches = [batch if batch is not None and batch.block.n else None for batch, _ in told]
    return Step(kinds[keep], batches, rejects)
