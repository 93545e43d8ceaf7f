"""Files for columns that memory has no room for: written once, checked by digest, read as maps."""

import contextlib
import hashlib
import json
import os
import re
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.archive import DamagedError
from streamlearn.block import Columns
from streamlearn.durable import disk_errors, replacing, write_all
from streamlearn.errors import UserError

_NAME = re.compile(r"[0-9a-f]{32}\.columns")
_ALIGNED = 64  # bytes, of the start of every array
_CHUNK = 1 << 20
_CLAIMS = threading.RLock()  # members of an ensemble spill in threads


class Spilled(NamedTuple):
    """One file: its name, which is the digest of its bytes, and its columns as read-only maps."""

    name: str
    columns: Columns


class Spill:
    """A folder of immutable files of columns.

    A file is named by the BLAKE2b digest of its bytes, so the same columns make the same file, and
    one that was named by a state can be told from any other. A file that nobody claims any more is
    unlinked only after `keep` further checkpoints, for those before may still name it.

    Args:
        folder: is made where it is not there, readable by its owner only. None: a temporary folder
            of this process, removed with it; nothing in it outlives a crash, so states must hold
            the columns themselves (`private` is true).
        keep: how many checkpoints the checkpoint store keeps, >= 1.
    Cost: one write, and one read to take the digest, a byte; reading back pages in what is used.
    Raises: UserError where the folder cannot be written, DamagedError for a file that is not there
        or whose bytes are not those that its name was made of.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, keep: int = 3) -> None:
        if keep < 1:
            raise UserError(f"Spill: keep must be >= 1, got {keep!r}")
        self.keep = keep
        self.private = folder is None
        self._folder = None if folder is None else Path(folder)
        self._claims: dict[str, int] = {}  # file -> how many hold it
        self._free: dict[str, int] = {}  # file nobody holds -> checkpoints saved since
        if self._folder is not None and self._folder.is_dir():
            self._free = {name: 0 for name in os.listdir(self._folder) if _NAME.fullmatch(name)}

    @property
    def folder(self) -> Path:
        """Where the files lie; made at the first use."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="streamlearn-"))
            weakref.finalize(self, _removed, self._folder)
        with disk_errors(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._folder

    def __deepcopy__(self, memo: dict[int, Any]) -> "Spill":
        return self  # a folder is one, whoever has it

    def write(self, columns: Columns) -> Spilled:
        """Write columns of any shapes, durably, and hand them back as maps, claimed once."""
        pieces = _laid_out(columns)
        seen = hashlib.blake2b(digest_size=16)
        for piece in pieces:
            seen.update(piece)
        name = f"{seen.hexdigest()}.columns"
        path = self.folder / name
        if not _whole(path, name):  # after a crash the same file comes again
            with replacing(path) as descriptor:
                for piece in pieces:
                    write_all(descriptor, piece)
        self.claim(name)
        return Spilled(name, _mapped(path))

    def open(self, name: str) -> Spilled:
        """The columns of a file, every byte checked, as maps; claimed once."""
        path = self._path(name)
        if not _whole(path, name):
            raise DamagedError(
                f"{path}: records or pending labels are missing or damaged; "
                "the checkpoint before is used"
            )
        self.claim(name)
        return Spilled(name, _mapped(path))

    def claim(self, name: str) -> None:
        """One more that holds this file."""
        with _CLAIMS:
            self._claims[name] = self._claims.get(name, 0) + 1
            self._free.pop(name, None)

    def release(self, name: str) -> None:
        """One less that holds this file; the last lets it go, after `keep` checkpoints."""
        with _CLAIMS:
            self._claims[name] -= 1
            if not self._claims[name]:
                del self._claims[name]
                self._free[name] = 0
                if self.private:
                    self._unlink(name)

    def saved(self) -> None:
        """To be called after each checkpoint: files that no kept checkpoint names are unlinked."""
        for name in list(self._free):
            self._free[name] += 1
            if self._free[name] >= self.keep:
                self._unlink(name)

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(OSError):  # in use, on systems that mind: next time
            (self.folder / name).unlink(missing_ok=True)
            self._free.pop(name, None)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise DamagedError(f"{self.folder}: a file must be named by its digest, got {name!r}")
        return self.folder / name


def _removed(folder: Path) -> None:
    for path in folder.glob("*"):
        path.unlink(missing_ok=True)
    folder.rmdir()


def _laid_out(columns: Columns) -> list[bytes]:
    """The pieces of the file: its head, then each array with the padding before the next."""
    about: list[Any] = []
    pieces = [b""]
    at = 0
    for name, column in sorted(columns.items()):
        if column.dtype.hasobject:
            raise TypeError(f"Spill: column {name!r} must hold plain values, got {column.dtype}")
        about.append([name, column.dtype.str, list(column.shape), at])
        data = column.tobytes()
        pieces.append(data + b"\0" * (-len(data) % _ALIGNED))
        at += len(pieces[-1])
    text = json.dumps(about).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNED)
    pieces[0] = len(text).to_bytes(8, "little") + text
    return pieces


def _whole(path: Path, name: str) -> bool:
    """Whether the file is there and its bytes have the digest that it is named by."""
    seen = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while piece := file.read(_CHUNK):
                seen.update(piece)
    except OSError:
        return False
    return name == f"{seen.hexdigest()}.columns"


def _mapped(path: Path) -> Columns:
    """The columns of a whole file; one map, views of it."""
    data: NDArray[np.uint8] = np.asarray(np.memmap(path, np.uint8, mode="r"))
    start = 8 + int.from_bytes(bytes(data[:8]), "little")
    columns: Columns = {}
    for name, dtype, shape, at in json.loads(bytes(data[8:start])):
        kind = np.dtype(dtype)
        size = kind.itemsize * int(np.prod(shape, dtype=np.int64))
        columns[name] = data[start + at : start + at + size].view(kind).reshape(shape)
    return columns
