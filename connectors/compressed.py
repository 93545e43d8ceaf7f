"""Bytes of files, plain or packed with gzip or zstd (told by their first bytes), and of pipes."""

import os
import select
import sys
import zlib
from array import array
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa

from streamlearn.errors import UserError

if sys.platform == "linux":
    import fcntl
    import termios

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
OTHERS = {b"PK\x03\x04": "zip, as Excel's files are", b"\xfd7zXZ\0": "xz", b"1AY&SY": "bzip2"}
PIECE = 1 << 18  # compressed bytes read at a time
PIPE = 1 << 20  # bytes that a pipe is made to hold; of itself it holds 65,536


class Bytes(Protocol):
    """A stream of bytes; offsets count unpacked bytes."""

    def read(self, size: int, max_wait: float) -> bytes | None:
        """Up to size bytes; b"" at the end, None when a pipe gave nothing in max_wait seconds."""

    def seek(self, offset: int) -> None:
        """Go to an offset from the beginning."""

    def close(self) -> None:
        """Release the file."""


class PlainBytes:
    """A file as it is; seeking costs nothing."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = open(path, "rb")  # noqa: SIM115  # closed by close()

    def read(self, size: int, max_wait: float) -> bytes | None:
        """Up to size bytes."""
        return self._file.read(size)

    def seek(self, offset: int) -> None:
        """Go to an offset; UserError beyond the end."""
        if offset > self._file.seek(0, os.SEEK_END):
            raise _too_short(self._file.name)
        self._file.seek(offset)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _too_short(path: Path | str) -> UserError:
    return UserError(
        f"{path}: ends before the position of the checkpoint; give the file that was read then"
    )


class PackedBytes:
    """An unpacked view of a packed file; seeking unpacks and drops everything before the offset."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._restart()

    def _restart(self) -> None:
        """Begin to unpack at the first byte of the file."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""
        raise NotImplementedError

    def _unpack(self, size: int) -> bytes:
        """Up to size unpacked bytes; b"" at the end; UserError where the data break off."""
        raise NotImplementedError

    def read(self, size: int, max_wait: float) -> bytes | None:
        """Up to size unpacked bytes."""
        return self._unpack(size)

    def seek(self, offset: int) -> None:
        """Unpack and drop offset bytes from the beginning."""
        self._restart()
        while offset > 0:
            dropped = len(self._unpack(min(offset, PIECE)))
            if dropped == 0:
                raise _too_short(self._path)
            offset -= dropped

    def _broken(self, what: str) -> UserError:
        return UserError(
            f"{self._path}: the {what}; the rows before were read, get the whole file for the rest"
        )


class GzipBytes(PackedBytes):
    """A gzip file of one or more members."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = open(path, "rb")  # noqa: SIM115  # closed by close()
        super().__init__(path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _restart(self) -> None:
        self._file.seek(0)
        self._member = zlib.decompressobj(31)
        self._begun = False  # this member has had input
        self._left = b""

    def _unpack(self, size: int) -> bytes:
        while True:
            packed = self._left or self._file.read(PIECE)
            if not packed:
                if self._begun:
                    raise self._broken("gzip data end too early")
                return b""
            try:
                out = self._member.decompress(packed, size)
            except zlib.error:
                raise self._broken("gzip data are damaged") from None
            self._begun, self._left = True, self._member.unconsumed_tail
            if self._member.eof:
                self._left = self._member.unused_data.lstrip(b"\0")  # gzip allows zero padding
                self._member, self._begun = zlib.decompressobj(31), False
            if out:
                return out


class ZstdBytes(PackedBytes):
    """A zstd file of one or more frames; where it is cut off, up to 16 KiB before may be lost."""

    def _restart(self) -> None:
        self._stream = pa.CompressedInputStream(pa.OSFile(str(self._path)), "zstd")

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _unpack(self, size: int) -> bytes:
        try:
            out: bytes = self._stream.read(min(size, 1 << 14))
        except OSError:
            raise self._broken("zstd data end too early or are damaged") from None
        return out


class PipeBytes:
    """Standard input or another descriptor: seeking reads and drops, so it must be fed anew.

    On Linux a pipe is widened, so that its writer goes on while what came before is worked on.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._at = 0
        if sys.platform == "linux":
            with suppress(OSError):  # no pipe, or the user has too many of this size
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE)

    def holds(self, size: int) -> bool:
        """Whether so many bytes can be read at once, as far as the system says it."""
        waiting = array("i", [0])
        if sys.platform == "linux":
            with suppress(OSError):  # a device that cannot say it
                fcntl.ioctl(self._descriptor, termios.FIONREAD, waiting)
        return waiting[0] >= size

    def read(self, size: int, max_wait: float) -> bytes | None:
        """What is there, after at most max_wait seconds."""
        ready, _, _ = select.select([self._descriptor], [], [], max_wait)
        if not ready:
            return None
        data = os.read(self._descriptor, size)
        self._at += len(data)
        return data

    def seek(self, offset: int) -> None:
        """Read and drop up to the offset."""
        while self._at < offset:
            if self.read(min(offset - self._at, PIECE), 3600.0) == b"":
                raise UserError(
                    "-: the input ends before the position of the checkpoint; "
                    "feed the same input from its beginning"
                )

    def close(self) -> None:
        """Leave the descriptor to its owner."""


def open_bytes(path: Path) -> Bytes:
    """The unpacked bytes of a file; how it is packed is told by its first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(10)
        _refuse_others(path, head)
        if head.startswith(GZIP):
            return GzipBytes(path)
        return ZstdBytes(path) if head.startswith(ZSTD) else PlainBytes(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _refuse_others(path: Path, head: bytes) -> None:
    """Refuse what is packed in a way that is not read."""
    begin = head[4:] if head.startswith(b"BZh") else head
    for mark, name in OTHERS.items():
        if begin.startswith(mark):
            raise UserError(f"{path}: is packed by {name}; unpack it, or use gzip or zstd")
