"""How kernels are compiled: the only place that knows a Numba option or the cache folder.

Numba's disk cache looks at one file's time stamp and does not notice an edit in a helper of another
file, so the cache folder of a kernel carries a hash of its file and of all in this room that this
one imports: warm starts are fast, stale code is impossible, and an edit makes its users anew alone.
"""

import functools
import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
U1 = NDArray[np.uint8]
B1 = NDArray[np.bool_]

Function = TypeVar("Function", bound=Callable[..., Any])


_ROOM = Path(__file__).resolve().parent
_IMPORT = re.compile(r"^from streamlearn\.jit(?:\.([\w.]+))? import (\([^)]*|.+)", re.MULTILINE)


@functools.cache
def _imported(path: Path) -> set[Path]:
    """The files of this room that a file imports."""
    found = set()
    for module, names in _IMPORT.findall(path.read_text(encoding="utf-8")):
        for name in [module] if module else re.findall(r"\w+", names):
            found.add(_ROOM.joinpath(*name.split(".")).with_suffix(".py"))
    return {path for path in found if path.is_file()}


def sources(path: Path) -> list[Path]:
    """A kernel's file and all files of this room that it imports, directly or not, in order."""
    found: set[Path] = set()
    ahead = {path, _ROOM / "_compile.py"}
    while ahead:
        found |= ahead
        ahead = {more for one in ahead for more in _imported(one)} - found
    return sorted(found)


@functools.cache
def _cache_folder(path: Path) -> str:
    """A writable folder: under NUMBA_CACHE_DIR, the user's cache, or else a temporary one."""
    digest = hashlib.blake2b(numba.__version__.encode(), digest_size=8)
    for source in sources(path if path.is_file() else _ROOM / "_compile.py"):  # a notebook's cell
        digest.update(source.name.encode())
        digest.update(source.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    base = os.environ.get("NUMBA_CACHE_DIR") or os.path.join(home, "streamlearn")
    folder = os.path.join(base, f"kernels-{path.stem}-{digest.hexdigest()}")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError:
        folder = tempfile.mkdtemp(prefix="streamlearn-kernels-")
    return folder


def kernel(function: Function) -> Function:
    """Compile for the CPU: no fastmath (the block law), GIL released, disk cache of our own.

    Division by zero gives inf or NaN as in numpy, which also keeps exceptions out of the loops.
    """
    config: Any = numba.config
    before = config.CACHE_DIR  # the user's own kernels keep their folder
    config.CACHE_DIR = _cache_folder(Path(cast(Any, function).__code__.co_filename).resolve())
    try:
        compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = before
    return cast(Function, compiled)


def part(function: Function) -> Function:
    """Compile a piece of a kernel: inlined where it is called, no reference counts, no wrappers.

    To call it from Python kills the process, so what tests call alone stays a kernel; and it must
    not allocate. Measured on the 25 pieces of the Kalman walker as kernels: counting references
    took 60 % of an event, wrappers half of the compile time.
    """
    options: dict[str, Any] = {
        "forceinline": True,
        "no_cpython_wrapper": True,
        "no_cfunc_wrapper": True,
        "_nrt": False,
    }
    compiled: Any = numba.njit(nogil=True, error_model="numpy", **options)(function)
    return cast(Function, compiled)
