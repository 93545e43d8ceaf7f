"""One partition of a topic: what was fetched of it, and what of that is decoded.

Records are decoded when they may be taken next, at most 4,096 at a time, so that what waits is the
bytes that came, which are counted and bounded.
"""

from collections import deque
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple, cast

import numpy as np

from streamlearn.block import I8
from streamlearn.connectors.kafka.decode import MessageRows, Messages
from streamlearn.connectors.kafka.wire import Consumer, Fetched, Partition
from streamlearn.contracts import Ready, Reject
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
            is not, or None. rows: how messages are decoded.
    """

    def __init__(
        self,
        partition: Partition,
        start: int,
        stop: int | None,
        rows: MessageRows,
        consumer: Consumer,
    ) -> None:
        self.partition, self.stop = partition, stop
        self.name = f"{partition[0]}/{partition[1]}"
        self.position = start  # of the next record that is not taken yet
        self.fetched = start  # of the next record to fetch
        self.size = 0  # bytes that were fetched and not decoded
        self.paused = False
        self.tombstones = 0
        self.last_time: int | None = None  # of the last row that was taken
        self._rows, self._consumer = rows, consumer
        self._raw: deque[_Raw] = deque()
        self._piece: _Piece | None = None
        self._taken = 0  # rows of the piece

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
        """As `Lane.ready`; decodes the next records where none are decoded."""
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

    def _decoded(self) -> _Piece | None:
        """The next records; None while what they need to be decoded is away."""
        records, used = self._next()
        n = len(records.values)
        values = cast("list[bytes]", records.values)
        k = self._rows.decoder.ready(values)
        if k == 0:
            return None
        for _ in range(used):
            self.size -= self._raw.popleft().size
        if k < n:
            rest = records.between(k, n)
            size = sum(map(len, values[k:])) + OVERHEAD * (n - k)
            self._raw.appendleft(_Raw(rest, size))
            self.size += size
            records = records.between(0, k)
        messages = Messages(*self.partition, *records[1:3], values[:k], *records[4:])
        return self._piece_of(messages)

    def _next(self) -> tuple[Fetched, int]:
        """The next records, up to PIECE of them, and how many entries they are."""
        parts: list[Fetched] = []
        n = 0
        for raw in self._raw:
            n += len(raw.records.values)
            if parts and n > PIECE:
                break
            parts.append(raw.records)
        return (parts[0] if len(parts) == 1 else _joined(parts)), len(parts)

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
