"""How kernels are compiled: the only place that knows a Numba option or the cache folder.

Numba's disk cache looks at one file's time stamp and does not notice an edit in a helper of another
file, so the cache folder of a kernel carries a hash of its file and of all in this room that this
one imports: warm starts are fast, stale code is impossible, and an edit makes its users anew alone.
"""

import functools
import gc
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numpy.typing import NDArray

if sys.platform != "win32":
    import fcntl

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
U1 = NDArray[np.uint8]
B1 = NDArray[np.bool_]

Function = TypeVar("Function", bound=Callable[..., Any])

_COMMON: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
_PART: dict[str, Any] = {"no_cpython_wrapper": True, "_nrt": False}

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


class _KernelCompiler(Compiler):
    """As numba's own, without a look for garbage meanwhile: there is none, yet it took 12 %."""

    def compile_extra(self, function: Callable[..., Any]) -> Any:
        collects = gc.isenabled()
        gc.disable()
        try:
            return cast(Any, super()).compile_extra(function)
        finally:
            if collects:
                gc.enable()


class _PartLibrary(JITCodeLibrary):
    """A piece as its callers link it: each function simplified, and nothing more.

    Numba would optimise it as a whole with all that it calls and write machine code, which nobody
    runs, for the kernel does the same once more: 1.6 of 6.8 s for a Kalman classifier.
    """

    def _optimize_final_module(self) -> None:
        """The kernel does."""

    def _finalize_final_module(self) -> None:
        self._finalized = True

    @property
    def codegen(self) -> "_PartLibrary":
        """Whoever would set the environment in memory, where a piece is not."""
        return self

    def set_env(self, name: str, env: object) -> None:
        """No kernel reads the environment of a piece."""


class _SectionLibrary(_PartLibrary):
    """A piece that LLVM must not inline."""

    def add_ir_module(self, module: Any) -> None:
        """Mark what is defined there."""
        for function in module.functions:
            if not function.is_declaration and "alwaysinline" not in function.attributes:
                function.attributes.add("noinline")
        cast(Any, super()).add_ir_module(module)


class _PartCompiler(_KernelCompiler):
    """Compile into a library that is linked, not run."""

    library: Any = _PartLibrary

    def compile_extra(self, function: Callable[..., Any]) -> Any:
        self.state.library = self.library(self.state.targetctx.codegen(), function.__qualname__)
        return super().compile_extra(function)


class _SectionCompiler(_PartCompiler):
    """Compile into a library whose functions stay functions."""

    library = _SectionLibrary


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """While no other process is in here with this path; where there are no locks, at once."""
    with ExitStack() as stack:
        if sys.platform != "win32":
            with suppress(OSError):
                fcntl.flock(stack.enter_context(open(path, "ab")), fcntl.LOCK_EX)
        yield


def _once(compiled: Any, folder: str) -> None:
    """Have processes that need the same kernel at the same time compile it once.

    Who comes second waits, and finds it on disk: four workers that began with an empty cache
    compiled three times as much as one. Numba's own lock comes first, as compiling a kernel may
    compile another.
    """
    compile_anew = compiled.compile
    path = os.path.join(folder, f"{compiled.py_func.__qualname__}.lock")

    def compile_once(signature: Any) -> Any:
        with global_compiler_lock, _alone(path):
            return compile_anew(signature)

    compiled.compile = compile_once


def kernel(function: Function) -> Function:
    """Compile for the CPU: no fastmath (the block law), GIL released, disk cache of our own.

    Division by zero gives inf or NaN as in numpy, which also keeps exceptions out of the loops.
    """
    config: Any = numba.config
    before = config.CACHE_DIR  # the user's own kernels keep their folder
    folder = _cache_folder(Path(cast(Any, function).__code__.co_filename).resolve())
    config.CACHE_DIR = folder
    try:
        compiled: Any = numba.njit(cache=True, **_COMMON, pipeline_class=_KernelCompiler)(function)
    finally:
        config.CACHE_DIR = before
    if compiled is not function:  # as it is with the JIT off
        _once(compiled, folder)
    return cast(Function, compiled)


def part(function: Function) -> Function:
    """Compile a piece of a kernel: inlined where it is called, no reference counts, no wrappers.

    To call it from Python kills the process, so what tests call alone stays a kernel; and it must
    not allocate. Measured on the 25 pieces of the Kalman walker as kernels: counting references
    took 60 % of an event, wrappers half of the compile time.
    """
    options: dict[str, Any] = {"forceinline": True, "pipeline_class": _PartCompiler}
    compiled: Any = numba.njit(**_COMMON, **_PART, **options)(function)
    return cast(Function, compiled)


def section(function: Function) -> Function:
    """Compile as `part`, but into a function that is called: what is long, or used in many places.

    With its products inlined wherever they are used, the walker of a mixture took 21 s to compile
    instead of 14.
    """
    # said, for what is not said is taken over from the caller
    options: dict[str, Any] = {"forceinline": False, "pipeline_class": _SectionCompiler}
    compiled: Any = numba.njit(**_COMMON, **_PART, **options)(function)
    return cast(Function, compiled)
