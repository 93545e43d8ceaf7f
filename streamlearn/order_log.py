"""The order log: which input each row of a merged stream came from, so that a choice is made once.

The merge may pass over an input that is silent or has no more to give for now; which one that was
depends on when records came, not on what they say. So every choice is appended here before any
output of its rows leaves. A run that recovers repeats what was chosen after its checkpoint; a
replay repeats all of it.

Files: `order.log` is the one that is written; when it has grown to 4 MB it is set aside under its
name and the number of its first row (`order.log.00000000000000000000`). Each is a header line, its
magic and JSON (first: number of its first row, names: of the inputs known by then), then frames:
number of the first row (u64), number of runs (u32), bytes of names (u32), CRC-32 of these three and
of the body (u32), and the body: runs of input (u16), offset of its first row in that input (i64;
without offsets its number there) and rows (u32), then as JSON the names of inputs that came new
with this frame. All little-endian.
"""

import json
import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import I8
from streamlearn.checkpoint import CheckpointStore
from streamlearn.durable import disk_errors, sync_folder, write_all
from streamlearn.errors import UserError

_log = logging.getLogger(__name__)
_MAGIC = b"streamlearn order log 2 "
_FRAME = struct.Struct("<QIII")
RUN = np.dtype([("input", "<u2"), ("first", "<i8"), ("rows", "<u4")])
Runs = NDArray[Any]  # of RUN
FULL = 4 << 20  # bytes of a file that is set aside


class Ahead(NamedTuple):
    """Rows that are to be repeated.

    order: (m,) the input of each. first: (m,) the offset that the row has where a run begins with
    it, -1 elsewhere.
    """

    order: NDArray[np.intp]
    first: I8


class Frame(NamedTuple):
    """One append, as it was read: number of its first row, runs, names of inputs that are new."""

    row: int
    runs: Runs
    names: list[str]

    @property
    def end(self) -> int:
        """The row after its last one."""
        return self.row + int(self.runs["rows"].sum(dtype=np.int64))


class OrderLog:
    """Choices of a merge, appended to files; those after a checkpoint are repeated after a crash.

    Args:
        path: the file that is written; `order.log` beside the checkpoints.
        store: the checkpoints of the same run. Before each append its lock and epoch are looked at:
            a writer that lost the folder to a later one is refused.
        replay: read only; the merge repeats the whole log and ends with it.
        keep_all: whether the order of the whole stream is kept, from which a replay of the topics
            gives the same bits. Without it a file goes when no checkpoint of the store needs it.
    Cost: 20 bytes an append and 14 a run. What is appended survives the end of the process at once,
        and that of the machine after `sync`, which every checkpoint calls; `append` syncs by itself
        where it is told to. Opening reads one file of 4 MB, and what is repeated.
    Raises: UserError for a file that is no order log, is of other inputs, is damaged, or ends
        before the checkpoint; a last frame that is torn is cut off.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        store: CheckpointStore | None = None,
        *,
        replay: bool = False,
        keep_all: bool = True,
    ) -> None:
        self.path, self.store, self.replay, self.keep_all = Path(path), store, replay, keep_all
        self._descriptor = -1
        self._size = 0
        self._first = self._rows = self._end = 0  # of the file, that the merge took, that it tells
        self._names: list[str] = []  # by number in the log
        self._new: list[str] = []  # those of them that no frame has told yet
        self._number: NDArray[np.uint16] = np.zeros(0, np.uint16)  # in the log, by input
        self._index: NDArray[np.intp] = np.zeros(0, np.intp)  # the inverse
        self._frames: Iterator[Frame] = iter(())
        self._waiting: list[Runs] = []  # to be repeated
        self._saved: deque[int] = deque()

    # -- opening -----------------------------------------------------------------------------------

    def open(self, names: list[str], rows: int | None) -> None:
        """Go to a row: what stands after it is repeated. None begins anew (a replay at row 0).

        names: of the inputs, in their order; those that the log does not know have come since.
        """
        self.close()
        if self.replay and not self.path.is_file():
            raise UserError(f"{self.path}: there is no such order log; correct the path")
        self._saved.clear()
        with disk_errors(self.path):
            if not self.replay and (rows is None or not self._there()):
                self._begin(names, rows or 0)
            elif not self.replay and not self.path.is_file():  # killed while a file was set aside
                self._set_up(*self._told_aside())
            flags = os.O_RDONLY if self.replay else os.O_RDWR
            self._descriptor = os.open(self.path, flags)
        self._rows = rows or 0
        self._look()
        self._fit(names)
        if self._end < self._rows:
            raise UserError(
                f"{self.path}: ends at row {self._end}, before the checkpoint (row {self._rows}); "
                f"put back the file of that run, or begin with a new checkpoint folder"
            )
        self._frames = self._after(self._rows, self._files(self._rows))
        self._waiting = []

    def _there(self) -> bool:
        return bool(self._aside()) or (self.path.is_file() and self.path.stat().st_size > 0)

    def _begin(self, names: list[str], row: int) -> None:
        """An empty log in the place of what is there."""
        self._check()
        if row:
            raise UserError(
                f"{self.path}: there is no order log, and the checkpoint is at row {row}; put back "
                f"the file of that run, or begin with a new checkpoint folder"
            )
        for path in self._aside():
            path.unlink()
        self._set_up(row, names)

    def _set_up(self, row: int, names: list[str]) -> None:
        """A file without frames."""
        self._check()
        beside = self.path.with_name(f".{self.path.name}.tmp")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            head = json.dumps({"first": row, "names": names}, ensure_ascii=False)
            write_all(descriptor, _MAGIC + head.encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(beside, self.path)
        sync_folder(self.path.parent)

    def _check(self) -> None:
        if self.store is not None:
            self.store.check()

    def _fit(self, names: list[str]) -> None:
        """Inputs and their numbers in the log."""
        lost = [name for name in self._names if name not in names]
        if lost:
            raise UserError(
                f"{self.path}: is of the inputs {', '.join(self._names)}, got {', '.join(names)}; "
                f"give the same inputs, or begin with a new checkpoint folder"
            )
        self._new = []
        self._number = np.zeros(0, np.uint16)
        self._index = np.zeros(0, np.intp)
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """One more input, after those that there are."""
        if name not in self._names:
            self._names.append(name)
            self._new.append(name)
        number, index = self._names.index(name), self._number.shape[0]
        self._number = np.append(self._number, np.uint16(number))
        if number >= self._index.shape[0]:
            more = np.zeros(number + 1 - self._index.shape[0], np.intp)
            self._index = np.concatenate([self._index, more])
        self._index[number] = index

    # -- reading -----------------------------------------------------------------------------------

    def _aside(self) -> list[Path]:
        """The files that were set aside, in order."""
        start = f"{self.path.name}."
        found = [path for path in self.path.parent.glob(f"{start}*")
                 if path.name[len(start) :].isdigit()]  # fmt: skip
        return sorted(found)

    def _told_aside(self) -> tuple[int, list[str]]:
        """Rows and names that the files that were set aside tell of."""
        path = self._aside()[-1]
        row, names, frames = _whole(path)
        for frame in frames:
            row, names = frame.end, names + frame.names
        return row, names

    def _look(self) -> None:
        """What the file that is written tells; what is torn at its end is cut off."""
        data = self.path.read_bytes()
        self._first, self._names, at = _head(self.path, data)
        self._end = self._first
        while (frame := _frame(data, at)) is not None:
            if frame.row != self._end:
                raise UserError(f"{self.path}: row {self._end} is absent; get a whole copy")
            self._end, self._names = frame.end, self._names + frame.names
            at += _bytes(data, at)
        self._refuse_damage(data, at)
        self._size = at
        if not self.replay:
            with disk_errors(self.path):
                os.ftruncate(self._descriptor, at)
                os.lseek(self._descriptor, at, os.SEEK_SET)

    def _refuse_damage(self, data: bytes, end: int) -> None:
        """Tell a torn end, which is cut off, from damage before frames that are whole."""
        size, row = len(data), self._end
        if any(_frame(data, at, row + 1) for at in range(end + 1, size - _FRAME.size)):
            raise UserError(
                f"{self.path}: is damaged after row {row}, and goes on behind that; put back a "
                f"whole copy, or begin with a new checkpoint folder"
            )
        if end < size:
            text = "%s: the last %d bytes, after row %d, were not written to their end; left out"
            _log.warning(text, self.path, size - end, row)

    def _files(self, row: int) -> list[Path]:
        """The files that tell of a row and of those after it."""
        aside = self._aside()
        firsts = [int(path.name.rpartition(".")[2]) for path in aside] + [self._first]
        if row < firsts[0]:
            raise UserError(
                f"{self.path}: begins at row {firsts[0]}, row {row} is not kept; keep the whole "
                f"order (keep_order: all), or begin at a later checkpoint"
            )
        start = max(i for i, first in enumerate(firsts) if first <= row)
        return [*aside, self.path][start:]

    def _after(self, row: int, files: list[Path]) -> Iterator[Frame]:
        """The frames after so many rows, the first of them without what stands before that."""
        for path in files:
            for frame in _whole(path, self._size if path == self.path else None)[2]:
                if frame.end > row:
                    yield frame._replace(runs=_cut(frame.runs, max(0, row - frame.row)))

    def ahead(self, most: int) -> Ahead:
        """What must come next, at most so many rows; none where one may choose, or at the end."""
        rows = sum(int(runs["rows"].sum(dtype=np.int64)) for runs in self._waiting)
        while rows < most and (frame := next(self._frames, None)) is not None:
            self._waiting.append(frame.runs)
            rows += int(frame.runs["rows"].sum(dtype=np.int64))
        if not self._waiting:
            return Ahead(np.zeros(0, np.intp), np.zeros(0, np.int64))
        runs = np.concatenate(self._waiting)
        self._waiting = [runs]
        starts = np.cumsum(runs["rows"], dtype=np.int64) - runs["rows"]
        runs, starts = runs[starts < most], starts[starts < most]
        order = np.repeat(self._index[runs["input"]], runs["rows"])
        first = np.full(order.shape[0], -1, dtype=np.int64)
        first[starts] = runs["first"]
        return Ahead(order[:most], first[:most])

    def repeat(self, rows: int) -> None:
        """So many of these rows were taken."""
        self._rows += rows
        runs = _cut(self._waiting[0], rows)
        self._waiting = [runs] if runs.shape[0] else []

    # -- writing -----------------------------------------------------------------------------------

    def append(self, order: NDArray[np.intp], offsets: I8, sync: bool = False) -> None:
        """Tell from which input each of the next rows comes, before their outputs leave.

        order, offsets: (m,), of each row its input and its offset there.
        """
        self._check()
        starts = np.flatnonzero(np.diff(order, prepend=-1))
        runs = np.empty(starts.shape[0], dtype=RUN)
        runs["input"] = self._number[order[starts]]
        runs["first"] = offsets[starts]
        runs["rows"] = np.diff(starts, append=order.shape[0])
        data = frame_of(self._rows, runs, self._new)
        with disk_errors(self.path):
            if self._size + len(data) > FULL and self._rows > self._first:
                self._set_aside()
                data = frame_of(self._rows, runs, self._new)
            write_all(self._descriptor, data)
            if sync:
                os.fsync(self._descriptor)
        self._size += len(data)
        self._new = []
        self._rows += order.shape[0]
        self._end = self._rows

    def _set_aside(self) -> None:
        """The file is full: the next one begins."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        os.replace(self.path, self.path.with_name(f"{self.path.name}.{self._first:020d}"))
        self._set_up(self._rows, self._names)
        self._descriptor = os.open(self.path, os.O_RDWR)
        self._size = os.lseek(self._descriptor, 0, os.SEEK_END)
        self._first, self._new = self._rows, []

    def sync(self) -> None:
        """Make everything appended durable: a checkpoint is made at this row."""
        if self._descriptor < 0 or self.replay:
            return
        with disk_errors(self.path):
            os.fsync(self._descriptor)
            if not self.keep_all and self.store is not None:
                self._let_go(self.store.keep)

    def _let_go(self, keep: int) -> None:
        """Files go that lie before the last checkpoints: those kept, one more, and this one."""
        self._saved.append(self._rows)
        if len(self._saved) > keep + 2:
            self._saved.popleft()
            aside = self._aside()
            ends = [int(path.name.rpartition(".")[2]) for path in aside[1:]] + [self._first]
            for path, end in zip(aside, ends, strict=True):
                if end <= self._saved[0]:
                    path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._waiting, self._frames = -1, [], iter(())


def first_offsets(path: str | os.PathLike[str]) -> dict[str, int]:
    """By input, the offset of its first row that the log, as far as it is kept, tells of."""
    log = OrderLog(path, replay=True)
    found: dict[str, int] = {}
    for file in [*log._aside(), log.path]:
        _, names, frames = _whole(file, _end_of(file) if file == log.path else None)
        for frame in frames:
            names = names + frame.names
            inputs, at = np.unique(frame.runs["input"], return_index=True)
            for number, first in zip(
                inputs.tolist(), frame.runs["first"][at].tolist(), strict=True
            ):
                found.setdefault(names[number], first)
    return found


def _end_of(path: Path) -> int:
    """Where the last whole frame ends."""
    data = path.read_bytes()
    at = _head(path, data)[2]
    while _frame(data, at) is not None:
        at += _bytes(data, at)
    return at


def frame_of(row: int, runs: Runs, names: list[str]) -> bytes:
    """One frame: runs (m,) of RUN, the first of which begins with this row, and new names."""
    told = json.dumps(names, ensure_ascii=False).encode() if names else b""
    body = runs.tobytes() + told
    head = struct.pack("<QII", row, runs.shape[0], len(told))
    return head + struct.pack("<I", zlib.crc32(head + body)) + body


def _head(path: Path, data: bytes) -> tuple[int, list[str], int]:
    """First row and names of a file, and where its frames begin."""
    end = data.find(b"\n")
    if not data.startswith(_MAGIC) or end < 0:
        raise UserError(f"{path}: is no order log of this version; name another file")
    table = json.loads(data[len(_MAGIC) : end])
    return table["first"], table["names"], end + 1


def _bytes(data: bytes, at: int) -> int:
    """Length of the frame that begins there."""
    _, n, told, _ = _FRAME.unpack_from(data, at)
    return int(_FRAME.size + n * RUN.itemsize + told)


def _frame(data: bytes, at: int, least: int = 0) -> Frame | None:
    """The frame at a place, of a row from `least` on, if a whole one is there."""
    if at + _FRAME.size > len(data):
        return None
    row, n, told, digest = _FRAME.unpack_from(data, at)
    start = at + _FRAME.size
    middle, end = start + n * RUN.itemsize, start + n * RUN.itemsize + told
    if row < least or end > len(data):
        return None
    if zlib.crc32(data[start:end], zlib.crc32(data[at : at + 16])) != digest:
        return None
    names = json.loads(data[middle:end]) if told else []
    return Frame(row, np.frombuffer(data, RUN, n, start), names)


def _whole(path: Path, size: int | None = None) -> tuple[int, list[str], Iterator[Frame]]:
    """First row, names and frames of a file, up to a size: all of it for one that is set aside."""
    data = path.read_bytes()[:size]
    row, names, at = _head(path, data)

    def frames() -> Iterator[Frame]:
        place, next_row = at, row
        while place < len(data):
            frame = _frame(data, place)
            if frame is None or frame.row != next_row:
                raise UserError(f"{path}: is damaged after row {next_row}; put back a whole copy")
            yield frame
            place, next_row = place + _bytes(data, place), frame.end

    return row, names, frames()


def _cut(runs: Runs, rows: int) -> Runs:
    """What is left of runs after so many rows; the rest of a run has no first offset (-1)."""
    if not rows:
        return runs
    ends = np.cumsum(runs["rows"], dtype=np.int64)
    start = int(np.searchsorted(ends, rows, side="right"))
    left = runs[start:].copy()
    if left.shape[0]:
        inside = rows - int(ends[start] - runs["rows"][start])
        if inside:
            left["rows"][0] -= inside
            left["first"][0] = -1
    return left
