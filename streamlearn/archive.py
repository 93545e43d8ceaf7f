"""One file for arrays and one JSON table: what a saved pipeline and a checkpoint are on disk.

The file is a valid safetensors file, so other tools can read its arrays, and opening one never runs
code. One metadata entry holds the manifest: the format version and a digest over every byte of the
file, taken with zeros in the digest's own place. This envelope stays the same in every future
format, so damage can be told from a newer format.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from streamlearn.contracts import Json
from streamlearn.durable import replacing, write_all
from streamlearn.errors import UserError

FORMAT = 1
Arrays = Mapping[str, NDArray[Any]]

_MANIFEST = "streamlearn"
_ARRAY, _TABLE = "array/", "table"
_DIGEST_BYTES = 32
_NO_DIGEST = "0" * (2 * _DIGEST_BYTES)
_NATIVE = frozenset("?bhilqBHILQefd")  # what every safetensors release stores as it is


class DamagedError(UserError):
    """A file is cut off or some of its bytes changed."""


class NewerFormatError(UserError):
    """A file is whole, but written by a newer streamlearn."""


class Archive(NamedTuple):
    """What `read_archive` gives: writable arrays by name, and the JSON table."""

    arrays: dict[str, NDArray[Any]]
    table: dict[str, Json]


# -- writing ---------------------------------------------------------------------------------------


def write_archive(path: str | os.PathLike[str], arrays: Arrays, table: Mapping[str, Json]) -> None:
    """Write arrays and a table as one file, whole or not at all.

    The file is written beside its place, made durable and renamed, with mode 0600; what stood there
    before stays until then. The same content gives the same bytes. Cost: one copy of the arrays.

    Args:
        path: the file; its folder must exist.
        arrays: by name, of any shape; any dtype but object and records.
        table: what json.dumps takes (NaN and infinities too); the order of keys is kept.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
        TypeError: an array of objects or records, or a table that JSON cannot hold.
    """
    packed = _packed(arrays, table)
    digest = hashlib.blake2b(packed, digest_size=_DIGEST_BYTES).hexdigest()
    at = packed.index(_NO_DIGEST.encode())
    with replacing(Path(path)) as descriptor:
        view = memoryview(packed)
        for piece in (view[:at], digest.encode(), view[at + len(digest) :]):
            write_all(descriptor, piece)


def _packed(arrays: Arrays, table: Mapping[str, Json]) -> bytes:
    """The bytes of the file, with zeros for its digest."""
    tensors: dict[str, NDArray[Any]] = {}
    foreign: dict[str, list[Json]] = {}
    for name, array in sorted(arrays.items()):
        tensors[_ARRAY + name] = _tensor(name, np.asarray(array), foreign)
    text = json.dumps(table, separators=(",", ":"), default=_plain).encode()
    tensors[_TABLE] = np.frombuffer(text, np.uint8)
    manifest = {"digest": _NO_DIGEST, "format": FORMAT, "dtypes": foreign}
    return safetensors.numpy.save(tensors, metadata={_MANIFEST: json.dumps(manifest)})


def _tensor(name: str, array: NDArray[Any], foreign: dict[str, list[Json]]) -> NDArray[Any]:
    """A contiguous array of a dtype that safetensors knows; others as bytes, noted in `foreign`.

    safetensors writes the memory of a Fortran-ordered array under its C shape: wrong values return.
    """
    if array.dtype.hasobject or array.dtype.names:
        raise TypeError(
            f"write_archive: array {name!r} must hold plain values, got dtype {array.dtype}"
        )
    array = np.asarray(array, order="C")
    if array.dtype.char in _NATIVE and array.dtype.isnative:
        return array
    foreign[name] = [array.dtype.str, list(array.shape)]
    return np.frombuffer(array.tobytes(), np.uint8)


def _plain(value: Any) -> Json:
    """A numpy scalar in a table as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"write_archive: table must hold what JSON can, got {type(value).__name__}")


# -- reading ---------------------------------------------------------------------------------------


def read_archive(path: str | os.PathLike[str]) -> Archive:
    """Read what `write_archive` wrote, after checking every byte of it. Runs no code from the file.

    Raises:
        DamagedError: the file is cut off, was changed, or is no streamlearn file.
        NewerFormatError: the file is whole, but of a format this version does not know.
        UserError: the file is not there or cannot be read.
    """
    data = _bytes(Path(path))
    manifest = _checked(Path(path), data)
    tensors = safetensors.numpy.load(data)
    foreign = manifest["dtypes"]
    names = (name for name in tensors if name.startswith(_ARRAY))
    arrays = {
        name.removeprefix(_ARRAY): _array(tensors[name], foreign.get(name.removeprefix(_ARRAY)))
        for name in sorted(names)
    }
    return Archive(arrays, json.loads(tensors[_TABLE].tobytes()))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; check the path") from error


def _checked(path: Path, data: bytes) -> dict[str, Json]:
    """The manifest of a file whose digest is right and whose format is known."""
    manifest = _manifest(data)
    if manifest is None:
        raise DamagedError(
            f"{path}: is cut off, damaged, or no file that streamlearn saved; use another copy"
        )
    if manifest["format"] > FORMAT:
        raise NewerFormatError(
            f"{path}: has format {manifest['format']}, this version reads up to {FORMAT}; "
            f"install the newer streamlearn that wrote it"
        )
    return manifest


def _manifest(data: bytes) -> dict[str, Json] | None:
    """The manifest, or None where it cannot be found or the digest does not fit the bytes."""
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        manifest: dict[str, Json] = json.loads(header["__metadata__"][_MANIFEST])
        digest = manifest["digest"]
        at = data.index(digest.encode(), 8, 8 + size)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    view, seen = memoryview(data), hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for piece in (view[:at], _NO_DIGEST.encode(), view[at + len(_NO_DIGEST) :]):
        seen.update(piece)
    return manifest if seen.hexdigest() == digest else None


def _array(tensor: NDArray[Any], foreign: list[Json] | None) -> NDArray[Any]:
    """A stored tensor as the array that was given."""
    if foreign is None:
        return tensor
    dtype, shape = np.dtype(foreign[0]), tuple(foreign[1])
    if dtype.hasobject:
        raise UserError(
            f"read_archive: dtype must be of plain values, got {dtype}; do not trust it"
        )
    return np.frombuffer(bytearray(tensor), dtype).reshape(shape)
