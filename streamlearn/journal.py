"""A journal: numbered records on disk, in segments that only grow, durable before they count.

A segment is a file named by the number of its first record. A record is eight bytes (length and
CRC-32 of what follows, little-endian) and its bytes. What a crash left half written at the end of
the last segment was never told to anybody: it is cut off.
"""

import logging
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from streamlearn.durable import disk_errors, sync_folder, write_all
from streamlearn.errors import UserError

_log = logging.getLogger(__name__)
_HEADER = struct.Struct("<II")
_NAME = re.compile(r"(\d{19})\.log")
SEGMENT_BYTES = 16 << 20
MOST_BYTES = 1 << 30  # of one record; a header that says more is none


class Journal:
    """A folder of segments; one writer, which holds a lock of its own.

    Args:
        folder: made when it is not there. segment_bytes: a segment that has as many is followed by
            a new one.
    Raises: UserError where the disk refuses, or a segment is damaged before its end.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder, self._segment_bytes = folder, segment_bytes
        self._firsts: list[int] = []  # of the segments, in order
        self._descriptor = -1
        self._length = 0
        self._torn = False
        self.next = 0

    def open(self) -> None:
        """Find the segments, and the end of the last record that is whole."""
        self.close()
        self._torn = False
        with disk_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = [_NAME.fullmatch(path.name) for path in self.folder.iterdir()]
            self._firsts = sorted(int(name[1]) for name in found if name)
            if not self._firsts:
                self._begin(0)
                return
            first = self._firsts[-1]
            data = self._file(first).read_bytes()
            ends = [end for end, _ in _records(data)]
            self._length, self.next = ends[-1] if ends else 0, first + len(ends)
            self._descriptor = os.open(self._file(first), os.O_RDWR)
            os.lseek(self._descriptor, self._length, os.SEEK_SET)
            if self._length < len(data):
                text = "%s: the last %d bytes are no whole record; they are cut off"
                _log.warning(text, self._file(first), len(data) - self._length)
                self._shorten(self._length)

    @property
    def first(self) -> int:
        """The first record that is still there."""
        return self._firsts[0] if self._firsts else 0

    def append(self, records: Sequence[bytes]) -> int:
        """Write these durably, all with one sync; the number of the first one.

        After one that failed nobody knows what the file holds: none is taken before it is opened
        again, as what stands behind half a record would be lost, and a sync that failed may go well
        when it is asked for again, though nothing was written.
        """
        if self._torn:
            raise UserError(f"{self.folder}: a write failed before; start again to find its end")
        self._torn = True
        with disk_errors(self.folder):
            if self._length >= self._segment_bytes:
                self._begin(self.next)
            data = b"".join(_HEADER.pack(len(r), zlib.crc32(r)) + r for r in records)
            write_all(self._descriptor, data)
            os.fsync(self._descriptor)
        self._torn = False
        self._length += len(data)
        first, self.next = self.next, self.next + len(records)
        return first

    def read(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of each record from this one on, up to what is the last one now."""
        end = self.next
        if start > end or (self._firsts and start < self._firsts[0]):
            raise UserError(
                f"{self.folder}: record {start} is wanted, there are {self._firsts[0]} to {end}; "
                f"put back the files, or begin with a new checkpoint folder"
            )
        for i, first in enumerate(list(self._firsts)):
            stop = self._firsts[i + 1] if i + 1 < len(self._firsts) else end
            if stop > start:
                yield from self._segment(first, stop, start)

    def _segment(self, first: int, stop: int, start: int) -> Iterator[tuple[int, bytes]]:
        with disk_errors(self.folder):
            data = self._file(first).read_bytes()
        number = first
        for _, record in _records(data):
            if number >= stop:
                return
            if number >= start:
                yield number, record
            number += 1
        if number < stop:
            raise UserError(
                f"{self._file(first)}: is damaged at record {number}; put back the file, or begin "
                f"with a new checkpoint folder"
            )

    def last(self) -> bytes:
        """The last record; b"" where there is none."""
        start = max(self.first, self.next - 1)
        return next((record for _, record in self.read(start)), b"")

    def cut(self, number: int) -> None:
        """Forget the records from this one on; they are written again."""
        if number >= self.next:
            return
        with disk_errors(self.folder):
            if number <= self.first:  # all of them
                self.close()
                for first in self._firsts:
                    self._file(first).unlink()
                self._firsts = []
                self._begin(number)
                return
            while len(self._firsts) > 1 and self._firsts[-1] > number:
                os.close(self._descriptor)
                self._file(self._firsts.pop()).unlink()
                self._descriptor = os.open(self._file(self._firsts[-1]), os.O_RDWR)
            first = self._firsts[-1]
            ends = [end for end, _ in _records(self._file(first).read_bytes())]
            self._shorten(ends[number - first - 1] if number > first else 0)
            sync_folder(self.folder)
        self.next = number

    def drop(self, before: int) -> None:
        """Delete the segments whose records are all before this one."""
        while len(self._firsts) > 1 and self._firsts[1] <= before:
            with disk_errors(self.folder):
                self._file(self._firsts[0]).unlink(missing_ok=True)
            del self._firsts[0]

    def close(self) -> None:
        """Release the file; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin(self, first: int) -> None:
        """A new segment."""
        self.close()
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        self._descriptor = os.open(self._file(first), flags, 0o600)
        sync_folder(self.folder)
        self._firsts.append(first)
        self._length, self.next = 0, first

    def _shorten(self, length: int) -> None:
        os.ftruncate(self._descriptor, length)
        os.fsync(self._descriptor)
        os.lseek(self._descriptor, length, os.SEEK_SET)
        self._length = length

    def _file(self, first: int) -> Path:
        return self.folder / f"{first:019d}.log"


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """End and bytes of each record, up to the first that is not whole."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, crc = _HEADER.unpack_from(data, at)
        start, at = at + _HEADER.size, at + _HEADER.size + length
        record = data[start:at]
        if length > MOST_BYTES or len(record) < length or zlib.crc32(record) != crc:
            return
        yield at, record
