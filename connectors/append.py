"""A file that only grows, plain or compressed, and can go back to where a commit left it.

Compressed files hold one frame (a gzip member, a zstd frame) for each commit that wrote something.
Both formats read as one text: `gzip -d`, `zstd -d`, Python's gzip and Arrow read all frames.
"""

import io
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from streamlearn.contracts import Json
from streamlearn.durable import disk_errors, replacing, sync_folder, write_all
from streamlearn.errors import UserError

_CHUNK = 1 << 20
_GZIP_LEVEL = 1  # of 1 to 9: 5 times as fast as the usual 6, at 8 % more bytes
_FLAGS = os.O_RDWR | getattr(os, "O_BINARY", 0)

Data = bytes | memoryview


class AppendFile:
    """One growing file. Its position is `{"length": bytes on disk, "text": bytes decompressed}`.

    Args:
        path: the file; its folder must exist. Pipes and devices are written to, but cannot go back.
        compression: None, "gzip" or "zstd".
        overwrite: whether a run that begins anew may empty a file that holds something.

    Raises: UserError where the file cannot be written, the disk is full, the file holds something
        at the beginning of a run, or is not what a position says.
    """

    def __init__(
        self, path: str | os.PathLike[str], compression: str | None, overwrite: bool
    ) -> None:
        self.path = Path(path)
        self.compression, self.overwrite = compression, overwrite
        self.length = self.text = 0
        self._descriptor = -1
        self._regular = True
        self._waiting: list[Data] = []
        self._waiting_bytes = 0
        self._frame: _Frame | None = None

    def open(self, position: Json) -> None:
        """Go back to a position that `commit` gave; None empties the file."""
        with disk_errors(self.path):
            new = not self.path.exists()
            self._descriptor = os.open(self.path, _FLAGS | os.O_CREAT, 0o666)
            self._regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
            if new:
                sync_folder(self.path.parent)
            if not self._regular:
                return
            if position is None:
                self._refuse_content()
                self._cut(0, 0)
            else:
                self._go_back(position["length"], position["text"])

    def write(self, data: Data) -> None:
        """Take text; it reaches the disk in large pieces, and durably with `commit`."""
        self.text += len(data)
        if self._frame is None:
            self._frame = _FRAMES[self.compression]()
        self._put(self._frame.write(data))

    def commit(self) -> dict[str, Json]:
        """End the frame and make everything durable; the position to come back to here."""
        self.flush()
        if self._regular:
            with disk_errors(self.path):
                os.fsync(self._descriptor)
        return {"length": self.length, "text": self.text}

    def close(self) -> None:
        """Release the file; what was not committed may be lost."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._waiting, self._waiting_bytes, self._frame = [], 0, None

    def replace(self, pieces: Iterable[bytes]) -> None:
        """Put this text in the place of the file, durably, whole or not at all, as one frame.

        pieces: may come from `chunks` of the file as it is.
        """
        fresh = AppendFile(self.path, self.compression, overwrite=True)
        with replacing(self.path) as fresh._descriptor:
            if hasattr(os, "fchmod"):
                os.fchmod(fresh._descriptor, stat.S_IMODE(self.path.stat().st_mode))
            for piece in pieces:
                fresh.write(piece)
            fresh.flush()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = os.open(self.path, _FLAGS)
            self._cut(fresh.length, fresh.text)

    def flush(self) -> None:
        """End the frame and hand everything to the system."""
        if self._frame is not None:
            self._put(self._frame.finish())
            self._frame = None
        self._drain()

    def chunks(self, text: int, length: int | None = None, piece: int = _CHUNK) -> Iterator[bytes]:
        """The first `text` bytes of the text, decompressed from the first `length` bytes on disk.

        At most `piece` bytes at a time. Raises UserError where they cannot be.
        """
        try:
            with self.path.open("rb") as file:
                stream: Any = _LimitedFile(file, length) if length is not None else file
                if self.compression is not None:
                    import pyarrow as pa

                    stream = pa.CompressedInputStream(pa.PythonFile(stream, "r"), self.compression)
                while text > 0 and (chunk := bytes(stream.read(min(text, piece)))):
                    text -= len(chunk)
                    yield chunk
        except OSError as error:
            raise changed(self.path, f"cannot be read back ({error})") from error

    def _refuse_content(self) -> None:
        if os.fstat(self._descriptor).st_size and not self.overwrite:
            raise UserError(
                f"{self.path}: holds something, and there is no checkpoint to go on from; "
                f"move it away, or say overwrite: true"
            )

    def _go_back(self, length: int, text: int) -> None:
        """Keep what was committed and nothing more."""
        size = os.fstat(self._descriptor).st_size
        whole = size >= length
        if self.compression is not None and not (whole and self._fits(length, text)):
            self.replace(self.chunks(text))  # a rewritten file: the same text in other frames
            if self.text != text:
                raise changed(self.path, f"holds {self.text} bytes of text, {text} were written")
        elif not whole:
            raise changed(self.path, f"has {size} bytes, {length} were written")
        else:
            self._cut(length, text)

    def _fits(self, length: int, text: int) -> bool:
        """Whether the first `length` bytes on disk hold just this much text."""
        try:
            return sum(len(chunk) for chunk in self.chunks(text + 1, length)) == text
        except UserError:
            return False

    def _cut(self, length: int, text: int) -> None:
        os.ftruncate(self._descriptor, length)
        os.lseek(self._descriptor, length, os.SEEK_SET)
        self.length, self.text = length, text

    def _put(self, data: Data) -> None:
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= _CHUNK:
            self._drain()

    def _drain(self) -> None:
        data, self._waiting = b"".join(self._waiting), []
        with disk_errors(self.path):
            write_all(self._descriptor, data)
        self.length += self._waiting_bytes
        self._waiting_bytes = 0


def changed(path: Path, what: str) -> UserError:
    """The error for an output that is not as it was left."""
    return UserError(
        f"{path}: {what}: it was changed since the checkpoint; "
        f"put it back, or delete it and the checkpoints to begin anew"
    )


# -- frames ----------------------------------------------------------------------------------------


class _Frame(Protocol):
    """One frame of a file: what to write for this text, and at its end."""

    def write(self, data: Data) -> Data:
        """Bytes for the file, for more text."""

    def finish(self) -> Data:
        """Bytes for the file, for the end."""


class _Plain:
    """Text as it is."""

    def write(self, data: Data) -> Data:
        return data

    def finish(self) -> Data:
        return b""


class _Gzip:
    """A gzip member, without a time stamp."""

    def __init__(self) -> None:
        self._compress = zlib.compressobj(_GZIP_LEVEL, wbits=31)

    def write(self, data: Data) -> Data:
        return self._compress.compress(data)

    def finish(self) -> Data:
        return self._compress.flush()


class _Zstd:
    """A zstd frame, by Arrow."""

    def __init__(self) -> None:
        import pyarrow as pa

        self._made = _Collector()
        self._stream: Any = pa.CompressedOutputStream(pa.PythonFile(self._made, "w"), "zstd")

    def write(self, data: Data) -> Data:
        self._stream.write(data)
        return self._made.taken()

    def finish(self) -> Data:
        self._stream.close()
        return self._made.taken()


_FRAMES: dict[str | None, type[_Frame]] = {None: _Plain, "gzip": _Gzip, "zstd": _Zstd}


class _Collector(io.RawIOBase):
    """Keeps what Arrow writes until it is taken; may be closed before."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def taken(self) -> bytes:
        data, self._pieces = b"".join(self._pieces), []
        return data


class _LimitedFile(io.RawIOBase):
    """The first bytes of a file."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._left = file, length

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data
