"""An outbox: numbered lines that wait on the disk until somebody has taken them, in order.

A folder holds `outbox-<generation>.jsonl`, which only grows, and `sent`: how far of which
generation was taken. Now and then what still waits begins the file of the next generation.
"""

import contextlib
import errno
import os
import re
import threading
from pathlib import Path

import msgspec

from streamlearn.durable import disk_errors, replacing, sync_folder, write_all
from streamlearn.errors import UserError

_FILE = re.compile(r"outbox-(\d{10})\.jsonl")
_CHUNK = 1 << 16
_RENEWED = 1 << 20  # bytes of a file that is done with, before an empty one takes its place
_MARK = re.compile(rb"(\d{10}) (\d{20})\n")
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)


class Outbox:
    """Lines of JSON, objects with the number `alert`. One thread puts, another takes.

    Args:
        folder: made when it is not there. max_bytes: of lines that wait; the oldest stay, and those
            that find no room are counted in `n_dropped`.
    Cost: one write for all lines of a `put`; memory for one line, and 16 bytes for each line since
    the last commit of the run before.
    Raises: UserError where the disk refuses, or a line is damaged.
    """

    def __init__(self, folder: Path, max_bytes: int = 64 << 20) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.n_waiting = self.n_dropped = 0
        self._lock = threading.Lock()
        self._file = self._mark = -1
        self._generation = self._size = self._sent = 0
        self._known: dict[int, int] = {}  # number -> hash of a line that is there already

    def open(self, number: int) -> None:
        """Begin; lines from this number on come again, and are put once where they are the same."""
        with disk_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            files = sorted(p for p in self.folder.iterdir() if _FILE.fullmatch(p.name))
            self._generation = int(files[-1].name[7:17]) if files else 0
            for old in files[:-1]:
                old.unlink(missing_ok=True)
            self._file = os.open(self._path, _FLAGS, 0o600)
            self._mark = os.open(self.folder / "sent", _FLAGS, 0o600)
            sync_folder(self.folder)
            self._load(number)

    @property
    def _path(self) -> Path:
        return self.folder / f"outbox-{self._generation:010d}.jsonl"

    def _load(self, number: int) -> None:
        """Cut off half a line of a crash; find what is known, and what waits."""
        data = self._path.read_bytes()
        self._size = data.rfind(b"\n") + 1
        os.ftruncate(self._file, self._size)
        self._sent = min(self._marked(), self._size)
        if self._sent and data[self._sent - 1 : self._sent] != b"\n":
            self._sent = 0  # sent again rather than lost
        self.n_waiting = data.count(b"\n", self._sent, self._size)
        for line in data[: self._size].splitlines():
            try:
                found = int(msgspec.json.decode(line)["alert"])
            except (msgspec.DecodeError, TypeError, KeyError):
                raise UserError(f"{self._path}: is damaged; delete it to go on") from None
            if found >= number:
                self._known[found] = hash(line)

    def _marked(self) -> int:
        """How far this generation was taken."""
        found = _MARK.fullmatch(os.pread(self._mark, 64, 0))
        return int(found[2]) if found and int(found[1]) == self._generation else 0

    def put(self, lines: list[tuple[int, bytes]]) -> None:
        """Lines with their numbers, at the end; durable with the next commit."""
        fresh = [line for n, line in lines if self._known.pop(n, None) != hash(line)]
        with self._lock:
            room = self.max_bytes - (self._size - self._sent)
            data, n = bytearray(), 0
            for line in fresh:
                if len(data) + len(line) + 1 > room:
                    break  # nothing that is younger goes before it
                data += line + b"\n"
                n += 1
            with disk_errors(self._path):
                os.lseek(self._file, self._size, os.SEEK_SET)
                write_all(self._file, bytes(data))
            self._size += len(data)
            self.n_waiting += n
            self.n_dropped += len(fresh) - n

    def commit(self) -> None:
        """Make the lines durable."""
        with disk_errors(self._path):
            os.fsync(self._file)
            with self._lock:
                done = self._sent == self._size
                if self._sent >= (_RENEWED if done else self.max_bytes):
                    self._renew()

    def _renew(self) -> None:
        """What waits begins a new file; from when that is there, the highest generation counts."""
        old, path = self._file, self._path
        self._generation += 1
        with replacing(self._path) as descriptor:
            for start in range(self._sent, self._size, _CHUNK):
                write_all(descriptor, os.pread(old, min(_CHUNK, self._size - start), start))
        self._file = os.open(self._path, _FLAGS, 0o600)
        self._size, self._sent = self._size - self._sent, 0
        os.close(old)
        path.unlink(missing_ok=True)

    def first(self) -> bytes | None:
        """The oldest line that waits; None when none does, or the outbox is closed."""
        with self._lock:
            if self._file < 0 or self._sent >= self._size:
                return None
            line = b""
            while b"\n" not in line:
                piece = os.pread(self._file, _CHUNK, self._sent + len(line))
                if not piece:  # somebody cut the file off; the stream must not wait for this lock
                    raise OSError(errno.EIO, "is shorter than what was written to it")
                line += piece
            return line[: line.index(b"\n")]

    def taken(self, line: bytes) -> None:
        """The line that `first` gave is done with."""
        with self._lock:
            if self._file < 0:
                return
            self._sent += len(line) + 1
            self.n_waiting -= 1
            os.pwrite(self._mark, b"%010d %020d\n" % (self._generation, self._sent), 0)

    def close(self) -> None:
        """Let go of the files; may be called twice."""
        with self._lock:
            for descriptor in (self._file, self._mark):
                if descriptor >= 0:
                    with contextlib.suppress(OSError):
                        os.close(descriptor)
            self._file = self._mark = -1
