"""Files that are whole or not there, and the one line a user reads when the disk refuses."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from streamlearn.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[int]:
    """A file descriptor whose file takes the place of `path`, durably, when the body ends well."""
    with disk_errors(path):
        descriptor, beside = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
        )
    try:
        with disk_errors(path):
            try:
                yield descriptor
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(beside, path)
            sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte; one call of the system may take fewer."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; systems that cannot open folders do without."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path | str, text: str) -> None:
    """Write a file for people to read, in the place of what is there."""
    with disk_errors(path):
        Path(path).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Errors of the system while writing `path`, as one line for the user."""
    try:
        yield
    except BrokenPipeError:  # whoever read has enough
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(
                f"{path}: no space left on the disk ({error.strerror}); "
                f"make room and start again: a run with checkpoints goes on from the last one"
            ) from error
        raise UserError(
            f"{path}: cannot be written: {error.strerror or error}; check the path and its rights"
        ) from error
