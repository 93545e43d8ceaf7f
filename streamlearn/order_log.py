"""The order log: which input each row of a merged stream came from, so that a choice is made once.

The merge may pass over an input that is silent; whether it was depends on the clock of the wall,
not on the data. So every choice is appended here before any output of its rows leaves. A run that
recovers repeats what was chosen after its checkpoint; a replay repeats all of it.

File: a header line, then frames: number of the first row (u64), number of runs (u32), CRC-32 of
both and of the runs (u32), and the runs: input (u8), rows (u32). All little-endian.
"""

import json
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.checkpoint import CheckpointStore
from streamlearn.durable import disk_errors, sync_folder, write_all
from streamlearn.errors import UserError

_log = logging.getLogger(__name__)
_MAGIC = b"streamlearn order log 1 "
_FRAME = struct.Struct("<QII")
_RUN = np.dtype([("input", "u1"), ("rows", "<u4")])
Run = tuple[int, int]  # input, rows


class OrderLog:
    """Choices of a merge, appended to a file; those after a checkpoint are repeated after a crash.

    Args:
        path: the file; `order.log` beside the checkpoints.
        store: the checkpoints of the same run. Before each append its lock and epoch are looked at:
            a writer that lost the folder to a later one is refused.
        replay: read only; the merge repeats the whole log and ends with it.
    Cost: 16 bytes an append and 5 a run. What is appended survives the end of the process at once,
        and that of the machine after `sync`; `append` syncs by itself where the choice is not a
        function of the data.
    Raises: UserError for a file that is no order log, is of other inputs, is damaged, or ends
        before the checkpoint; a last frame that is torn is cut off.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        store: CheckpointStore | None = None,
        *,
        replay: bool = False,
    ) -> None:
        self.path, self.store, self.replay = Path(path), store, replay
        self._descriptor = -1
        self._rows = 0  # that the merge has taken
        self._ahead: Iterator[Run] = iter(())
        self._run: Run | None = None

    def open(self, names: list[str], rows: int | None) -> None:
        """Go to a row: what stands after it is repeated. None begins anew (a replay at row 0)."""
        self.close()
        if self.replay:
            rows = rows or 0
            if not self.path.is_file():
                raise UserError(f"{self.path}: there is no such order log; correct the path")
        self._rows = rows or 0
        with disk_errors(self.path):
            if self.replay:
                self._descriptor = os.open(self.path, os.O_RDONLY)
            else:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        if rows is None or (rows == 0 and not os.fstat(self._descriptor).st_size):
            self._begin(names)
        start, end, there = self._look(names)
        if there < self._rows:
            raise UserError(
                f"{self.path}: ends at row {there}, before the checkpoint (row {self._rows}); put "
                f"back the file of that run, or begin with a new checkpoint folder"
            )
        if not self.replay:
            os.ftruncate(self._descriptor, end)
            os.lseek(self._descriptor, end, os.SEEK_SET)
        self._ahead = self._runs(start, end, self._rows)
        self._run = next(self._ahead, None)

    def _begin(self, names: list[str]) -> None:
        self._check()
        with disk_errors(self.path):
            os.ftruncate(self._descriptor, 0)
            write_all(self._descriptor, _MAGIC + json.dumps(names).encode() + b"\n")
            os.fsync(self._descriptor)
            sync_folder(self.path.parent)

    def _check(self) -> None:
        if self.store is not None:
            self.store.check()

    # -- reading -----------------------------------------------------------------------------------

    def _look(self, names: list[str]) -> tuple[int, int, int]:
        """Where the frames begin and end, and how many rows they tell of."""
        head = os.pread(self._descriptor, 65536, 0)
        line, newline, _ = head.partition(b"\n")
        if not line.startswith(_MAGIC) or not newline:
            raise UserError(f"{self.path}: is no order log of this version; name another file")
        written = json.loads(line[len(_MAGIC) :])
        if written != names:
            raise UserError(
                f"{self.path}: is of the inputs {', '.join(written)}, got {', '.join(names)}; "
                f"give the same inputs, or begin with a new checkpoint folder"
            )
        start = end = len(line) + 1
        rows = 0
        for first, runs, at in self._frames(start):
            if first != rows:
                raise UserError(f"{self.path}: row {rows} is absent; get a whole copy")
            rows, end = first + int(runs["rows"].sum(dtype=np.int64)), at
        self._refuse_damage(rows, end)
        return start, end, rows

    def _refuse_damage(self, rows: int, end: int) -> None:
        """Tell a torn end, which is cut off, from damage before frames that are whole."""
        size = os.fstat(self._descriptor).st_size
        if any(self._frame(at, size, rows + 1) for at in range(end + 1, size - _FRAME.size)):
            raise UserError(
                f"{self.path}: is damaged after row {rows}, and goes on behind that; put back a "
                f"whole copy, or begin with a new checkpoint folder"
            )
        if end < size:
            text = "%s: the last %d bytes, after row %d, were not written to their end; left out"
            _log.warning(text, self.path, size - end, rows)

    def _frames(self, at: int) -> Iterator[tuple[int, NDArray[Any], int]]:
        """First row, runs and end of each frame that is whole, up to the first that is not."""
        size = os.fstat(self._descriptor).st_size
        while (frame := self._frame(at, size)) is not None:
            at += _FRAME.size + frame[1].nbytes
            yield *frame, at

    def _frame(self, at: int, size: int, least: int = 0) -> tuple[int, NDArray[Any]] | None:
        """First row, from `least` on, and runs of the frame at a place, if a whole one is there."""
        head = os.pread(self._descriptor, _FRAME.size, at)
        if len(head) < _FRAME.size:
            return None
        first, n, digest = _FRAME.unpack(head)
        if first < least or n * _RUN.itemsize > size - at - _FRAME.size:
            return None
        body = os.pread(self._descriptor, n * _RUN.itemsize, at + _FRAME.size)
        return (
            (first, np.frombuffer(body, _RUN)) if zlib.crc32(head[:12] + body) == digest else None
        )

    def _runs(self, start: int, end: int, after: int) -> Iterator[Run]:
        """The runs after so many rows."""
        for first, runs, at in self._frames(start):
            row = first
            for chosen, rows in runs.tolist():
                row += rows
                if row > after:
                    yield chosen, min(rows, row - after)
            if at >= end:
                return

    @property
    def next_run(self) -> Run | None:
        """What must come next: an input, and for how many rows; None where one may choose."""
        return self._run

    def repeat(self, rows: int) -> None:
        """So many rows of the next run were taken."""
        assert self._run is not None
        chosen, left = self._run
        self._rows += rows
        self._run = (chosen, left - rows) if rows < left else next(self._ahead, None)

    # -- writing -----------------------------------------------------------------------------------

    def append(self, order: NDArray[np.intp], sync: bool = False) -> None:
        """Tell from which input each of the next rows comes, (m,); before their outputs leave."""
        self._check()
        starts = np.flatnonzero(np.diff(order, prepend=-1))
        runs = np.empty(starts.shape[0], dtype=_RUN)
        runs["input"] = order[starts]
        runs["rows"] = np.diff(starts, append=order.shape[0])
        body = runs.tobytes()
        head = struct.pack("<QI", self._rows, runs.shape[0])
        digest = struct.pack("<I", zlib.crc32(head + body))
        with disk_errors(self.path):
            write_all(self._descriptor, head + digest + body)
            if sync:
                os.fsync(self._descriptor)
        self._rows += order.shape[0]

    def sync(self) -> None:
        """Make everything appended durable."""
        if self._descriptor >= 0 and not self.replay:
            with disk_errors(self.path):
                os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._run = -1, None
