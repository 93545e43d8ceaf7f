"""What sources share: partitions read in turn, chunks handed out in blocks of any size."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

from streamlearn.contracts import Batch, Json, Positions, Ready, Reject
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_columns import Decoded


class Chunk:
    """Decoded rows, and the records between them that did not fit.

    rejects: (number of accepted rows of the chunk before it, the reject), in order.
    after: position after the first b rows, for 0 < b < n. end: position after the whole chunk.
    """

    __slots__ = ("after", "decoded", "end", "rejects")

    def __init__(
        self,
        decoded: Decoded,
        rejects: list[tuple[int, Reject]],
        after: Callable[[int], Json],
        end: Json,
    ) -> None:
        self.decoded, self.rejects, self.after, self.end = decoded, rejects, after, end

    def rejects_between(self, start: int, stop: int) -> list[Reject]:
        """Those between the rows start - 1 and stop - 1; the last part takes what follows too."""
        last = stop == self.decoded.n
        return [r for before, r in self.rejects if start <= before and (last or before < stop)]


class Reader(Protocol):
    """One partition, read from a position on."""

    finished: bool

    def read(self, max_wait: float) -> Chunk | None:
        """The next chunk; None when none came within max_wait seconds, and at the end."""

    def close(self) -> None:
        """Release what is open."""


class _Read(NamedTuple):
    """What one read gave, and whether it was the last."""

    chunk: Chunk | None
    last: bool


def _always() -> bool:
    return True


class Ahead:
    """A reader whose next chunk is decoded in a thread, while this one is worked on.

    Args:
        reader: of a partition. worth: whether the next chunk may be begun now: of a file always, of
            a pipe where all of it is there.

    No chunk knows anything of the state: a position is computed, and a table of the schema grows,
    where rows are taken. So what is read ahead and not taken was never read, and what is wrong with
    a chunk is raised when its turn comes. The first chunk is read without a thread.
    """

    def __init__(self, reader: Reader, worth: Callable[[], bool] = _always) -> None:
        self._reader, self._worth = reader, worth
        self._pool: ThreadPoolExecutor | None = None
        self._coming: Future[_Read] | None = None
        self.finished = False

    def _next(self, max_wait: float) -> _Read:
        chunk = self._reader.read(max_wait)
        return _Read(chunk, self._reader.finished)

    def read(self, max_wait: float) -> Chunk | None:
        """The next chunk; what comes after it is begun."""
        coming, self._coming = self._coming, None
        found = self._next(max_wait) if coming is None else coming.result()
        self.finished = found.last
        if not found.last and self._worth():
            self._pool = self._pool or decode_thread()
            self._coming = self._pool.submit(self._next, 0.0)
        return found.chunk

    def close(self) -> None:
        """Close the reader, after the chunk that is being decoded."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._reader.close()


def second_core() -> bool:
    """Whether there is a core on which to decode ahead."""
    cores = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    return len(cores) > 1


def decode_thread() -> ThreadPoolExecutor:
    """A thread that decodes ahead; it starts with the first work that it is given."""
    return ThreadPoolExecutor(1, "streamlearn-decode")


def ahead(reader: Reader, worth: Callable[[], bool] = _always) -> Reader:
    """The reader, one chunk ahead where there is a second core to do it and it is worth it."""
    return Ahead(reader, worth) if second_core() else reader


class Partition(NamedTuple):
    """A name that positions keep, and how to open a reader at a position (None: the beginning)."""

    name: str
    open: Callable[[Json], Reader]


class PartitionedSource:
    """A `Source` over partitions, in order, one after the other."""

    def __init__(
        self, schema: Schema, partitions: Sequence[Partition], where: str, guarantee: str
    ) -> None:
        self.schema, self.guarantee = schema, guarantee
        self._partitions, self._where = list(partitions), where
        self._reader: Reader | None = None
        self._positions: Positions = {}
        self._next = 0  # partition to open next
        self._chunk: Chunk | None = None
        self._taken = 0  # rows of the chunk that were handed out
        self._fresh, self._seen = True, False

    def open(self, positions: Positions) -> None:
        """Go to these positions; an empty dict means the beginning."""
        self.close()
        known = [partition.name for partition in self._partitions]
        for name in positions:
            if name not in known:
                raise UserError(
                    f"{self._where}: the checkpoint has read {name!r}, which is not there now; "
                    f"put it back or start with a new checkpoint folder"
                )
        self._positions = dict(positions)
        self._next, self._chunk, self._taken = 0, None, 0
        self._fresh, self._seen = not positions, False
        self._advance()

    def _advance(self) -> None:
        """Open the next partition, if there is one."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None
        if self._next < len(self._partitions):
            partition = self._partitions[self._next]
            self._reader = partition.open(self._positions.get(partition.name))
            self._next += 1

    def poll(self, max_events: int, max_wait: float) -> Batch | None:
        """At most max_events rows that are ready; None when nothing came within max_wait seconds.

        Raises: UserError where the data break off, and at the end of data without a single row.
        """
        chunk = self._waiting(max_wait)
        return None if chunk is None else self._part(chunk, max_events)

    def ready(self, max_wait: float) -> Ready | None:
        """What the next polls will give without waiting; no table of the schema grows by it."""
        chunk = self._waiting(max_wait)
        if chunk is None:
            return None
        start, times = self._taken, chunk.decoded.times
        rejects = [before - start for before, _ in chunk.rejects if before >= start]
        return Ready(chunk.decoded.n - start, None if times is None else times[start:], rejects)

    def _waiting(self, max_wait: float) -> Chunk | None:
        """The chunk in hand, or the next one."""
        while self._chunk is None:
            if self._reader is None:
                self._refuse_nothing()
                return None
            self._chunk, self._taken = self._read(self._reader, max_wait), 0
            if self._chunk is None:
                if not self._reader.finished:
                    return None
                self._advance()
        return self._chunk

    def _read(self, reader: Reader, max_wait: float) -> Chunk | None:
        """The next chunk; where the data break off, nothing stays open."""
        try:
            return reader.read(max_wait)
        except UserError:
            self.close()
            raise

    def _refuse_nothing(self) -> None:
        if self._fresh and not self._seen:
            self._fresh = False
            raise UserError(f"{self._where}: there are no rows; give data with at least one row")

    def _part(self, chunk: Chunk, max_events: int) -> Batch:
        start, n = self._taken, chunk.decoded.n
        stop = min(n, start + max(1, max_events))
        name = self._partitions[self._next - 1].name
        self._positions[name] = chunk.end if stop == n else chunk.after(stop)
        rejects = chunk.rejects_between(start, stop)
        self._seen = self._seen or stop > start or bool(rejects)
        self._taken = stop
        if stop == n:
            self._chunk = None
        return Batch(chunk.decoded.take(start, stop), rejects, dict(self._positions))

    @property
    def finished(self) -> bool:
        """True when every partition was read to its end (and it was told if all were empty)."""
        done = self._chunk is None and self._reader is None and self._next > 0
        return done and (self._seen or not self._fresh)

    def close(self) -> None:
        """Release the open file; may be called twice."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None
