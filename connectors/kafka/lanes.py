"""One partition of a topic: what was fetched of it, and what of that is decoded.

Records are decoded when they may be taken next, at most 4,096 at a time, so that what waits is the
bytes that came, which are counted and bounded. Where a full piece waits behind the one in hand, a
thread decodes it while the pipeline works: fewer records are decoded in a millisecond when their
turn comes, so nothing waits for company. Pieces are the same with and without the thread, and what
it decoded was not read until its rows are taken.
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from itertools import chain, islice
from typing import NamedTuple, cast

import numpy as np

from streamlearn.block import I8
from streamlearn.connectors.kafka.decode import MessageRows, Messages
from streamlearn.connectors.kafka.wire import Consumer, Fetched, Partition
from streamlearn.contracts import Ready, Reject
from streamlearn.errors import UserError
from streamlearn.schema_columns import Decoded, Misfits, Part

PIECE = 4096  # records decoded at a time
OVERHEAD = 150  # bytes that a record takes beside its value: objects, key, entries of lists


class _Raw(NamedTuple):
    """Records that were fetched, at most PIECE, none a tombstone, and how many bytes they take."""

    records: Fetched
    size: int


class _Piece(NamedTuple):
    """Decoded records: offsets, times and keys of the rows; end: the offset after all records."""

    decoded: Decoded
    offsets: I8
    times: I8
    keys: Sequence[bytes | None] | None
    rejects: list[tuple[int, Reject]]
    end: int


class _Coming(NamedTuple):
    """A piece that a thread decodes: of how many entries, which wait until its turn comes."""

    messages: Messages
    entries: int
    piece: Future[_Piece]


class Taken(NamedTuple):
    """Rows of a lane that go into a block, and the records before and behind that did not fit."""

    part: Part
    offsets: I8
    times: I8
    keys: Sequence[bytes | None] | None
    rejects: list[Reject]


class KafkaLane:
    """A `Lane` over one partition.

    Args:
        partition: topic and number. start: the first offset that is read. stop: the first one that
            is not, or None. rows: how messages are decoded. thread: decodes ahead; None: nothing
            does.
    """

    def __init__(
        self,
        partition: Partition,
        start: int,
        stop: int | None,
        rows: MessageRows,
        consumer: Consumer,
        thread: Executor | None = None,
    ) -> None:
        self.partition, self.stop = partition, stop
        self.name = f"{partition[0]}/{partition[1]}"
        self.position = start  # of the next record that is not taken yet
        self.fetched = start  # of the next record to fetch
        self.size = 0  # bytes that were fetched, of records whose turn has not come
        self.paused = False
        self.tombstones = 0
        self.last_time: int | None = None  # of the last row that was taken
        self._rows, self._consumer, self._thread = rows, consumer, thread
        self._raw: deque[_Raw] = deque()
        self._piece: _Piece | None = None
        self._taken = 0  # rows of the piece
        self._coming: _Coming | None = None

    # -- what comes --------------------------------------------------------------------------------

    def admit(self, fetched: Fetched) -> None:
        """Keep records that were fetched; tombstones are counted and left out."""
        offsets = fetched.offsets
        n = offsets.shape[0]
        if not n:
            return
        first = int(np.searchsorted(offsets, self.fetched))
        last = n if self.stop is None else int(np.searchsorted(offsets, self.stop))
        self.fetched = max(self.fetched, int(offsets[-1]) + 1)
        for start in range(first, last, PIECE):
            self._keep(fetched.between(start, min(start + PIECE, last)))

    def _keep(self, records: Fetched) -> None:
        try:
            size = sum(map(len, cast("list[bytes]", records.values)))
        except TypeError:
            kept = [i for i, value in enumerate(records.values) if value is not None]
            self.tombstones += len(records.values) - len(kept)
            records = _chosen(records, kept)
            size = sum(map(len, cast("list[bytes]", records.values)))
        if records.values:
            size += OVERHEAD * len(records.values)
            self._raw.append(_Raw(records, size))
            self.size += size

    def ready(self) -> Ready | None:
        """As `Lane.ready`; decodes the next records where none are decoded.

        Where the thread is at them, this takes what is left of that.
        """
        piece, start = self._waiting(), self._taken
        if piece is None:
            return None
        rejects = [before - start for before, _ in piece.rejects if before >= start]
        n = piece.decoded.n - start
        return Ready(n, piece.times[start:], rejects, piece.offsets[start:])

    @property
    def empty(self) -> bool:
        """Whether nothing that was fetched waits."""
        return self._piece is None and not self._raw

    @property
    def caught_up(self) -> bool:
        """As `Lane.caught_up`; never while the partition is paused."""
        return self.empty and not self.paused and self._consumer.caught_up(self.partition)

    @property
    def read(self) -> bool:
        """Whether everything of the range that was asked for was fetched."""
        if self.stop is None:
            return False
        return self.fetched >= self.stop or self._consumer.caught_up(self.partition)

    @property
    def finished(self) -> bool:
        """As `Lane.finished`."""
        return self.empty and self.read

    @property
    def lag(self) -> int | None:
        """Records up to the high watermark that were not taken; None before it was heard of."""
        end = self._consumer.end(self.partition)
        if end is None:
            return None
        return 0 if self.caught_up else max(0, end - self.position)

    # -- decoding ----------------------------------------------------------------------------------

    def _waiting(self) -> _Piece | None:
        """The piece in hand, or the next one."""
        if self._piece is None and self._raw:
            self._piece, self._taken = self._decoded(), 0
        return self._piece

    def begin_next(self) -> None:
        """Have the next piece decoded by the thread, where it is full; call it after `take`."""
        if self._thread is None or self._coming is not None:
            return
        entries, full = self._next()
        if not full:
            return
        records = self._records(entries)
        with suppress(UserError):  # what is wrong is raised when the turn of these records comes
            if self._ready(records) == len(records.values):
                messages = self._messages(records)
                piece = self._thread.submit(self._piece_of, messages)
                self._coming = _Coming(messages, entries, piece)

    def _decoded(self) -> _Piece | None:
        """The next records; None while what they need to be decoded is away."""
        coming, self._coming = self._coming, None
        if coming is not None:
            self._drop(coming.entries)
            if coming.piece.cancel():  # the thread is busy with other lanes
                return self._piece_of(coming.messages)
            return coming.piece.result()
        entries, _ = self._next()
        records = self._records(entries)
        n, k = len(records.values), self._ready(records)
        if k == 0:
            return None
        self._drop(entries)
        if k < n:
            self._put_back(records.between(k, n))
            records = records.between(0, k)
        return self._piece_of(self._messages(records))

    def _next(self) -> tuple[int, bool]:
        """How many entries the next piece takes, and whether more would not fit into it."""
        n = 0
        for entries, raw in enumerate(self._raw):
            n += len(raw.records.values)
            if entries and n > PIECE:
                return entries, True
        return len(self._raw), n >= PIECE

    def _records(self, entries: int) -> Fetched:
        """Those of the first entries."""
        parts = [raw.records for raw in islice(self._raw, entries)]
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _ready(self, records: Fetched) -> int:
        """How many of them can be decoded now."""
        return self._rows.decoder.ready(cast("list[bytes]", records.values))

    def _drop(self, entries: int) -> None:
        for _ in range(entries):
            self.size -= self._raw.popleft().size

    def _put_back(self, rest: Fetched) -> None:
        """Records of an entry that was taken in part."""
        values = cast("list[bytes]", rest.values)
        size = sum(map(len, values)) + OVERHEAD * len(values)
        self._raw.appendleft(_Raw(rest, size))
        self.size += size

    def _messages(self, records: Fetched) -> Messages:
        values = cast("list[bytes]", records.values)
        return Messages(*self.partition, *records[1:3], values, *records[4:])

    def _piece_of(self, messages: Messages) -> _Piece:
        decoded, misfits = self._rows.decode(messages)
        end = int(messages.offsets[-1]) + 1
        offsets, times, keys = messages.offsets, messages.times, messages.keys
        if not misfits:
            return _Piece(decoded, offsets, times, keys, [], end)
        kept = [i for i in range(len(messages.values)) if i not in misfits]
        keys = None if keys is None else [keys[i] for i in kept]
        rejects = self._rejects(messages, misfits)
        return _Piece(decoded, offsets[kept], times[kept], keys, rejects, end)

    def _rejects(self, messages: Messages, misfits: Misfits) -> list[tuple[int, Reject]]:
        """The records that did not fit, each with the number of rows before it."""
        return [
            (i - j, Reject(self.name, int(messages.offsets[i]), misfits[i], messages.values[i]))
            for j, i in enumerate(sorted(misfits))
        ]

    # -- taking ------------------------------------------------------------------------------------

    def take(self, n: int) -> Taken:
        """The next n of the rows that are ready, 0 only where it has rejects alone."""
        piece, start = self._waiting(), self._taken
        assert piece is not None
        stop = start + n
        last = stop == piece.decoded.n
        rejects = [r for before, r in piece.rejects if start <= before and (last or before < stop)]
        self.position = piece.end if last else int(piece.offsets[stop - 1]) + 1
        if n:
            self.last_time = int(piece.times[stop - 1])
        self._piece, self._taken = (None, 0) if last else (piece, stop)
        keys = None if piece.keys is None else piece.keys[start:stop]
        part = Part(piece.decoded, start, stop)
        return Taken(part, piece.offsets[start:stop], piece.times[start:stop], keys, rejects)


def _chosen(records: Fetched, rows: list[int]) -> Fetched:
    """Some records, by number."""
    keys, headers = records.keys, records.headers
    return Fetched(
        records.partition,
        records.offsets[rows],
        records.times[rows],
        [records.values[i] for i in rows],
        None if keys is None else [keys[i] for i in rows],
        None if headers is None else [headers[i] for i in rows],
    )


def _joined(parts: Sequence[Fetched]) -> Fetched:
    """Consecutive records as one."""
    first = parts[0]
    return Fetched(
        first.partition,
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.times for part in parts]),
        list(chain.from_iterable(part.values for part in parts)),
        None if first.keys is None else list(chain.from_iterable(p.keys or () for p in parts)),
        None
        if first.headers is None
        else list(chain.from_iterable(part.headers or () for part in parts)),
    )
