"""How CUDA kernels are compiled, launched and given memory: the one place that knows numba.cuda.

Device functions call the pieces of the CPU's kernels as they are (numba compiles a `part` anew for
the device), so the mathematics is written once. With NUMBA_ENABLE_CUDASIM=1 all of it runs in
numba's simulator, where every thread of a block is a thread of Python, one block after the other;
NUMBA_DISABLE_JIT=1 belongs to it, for a `part` is not to be called from Python.

No warp intrinsics, for the simulator has none: threads of a block meet in shared memory at
`syncthreads`, blocks at `grid_sync`. Kernels are not kept on disk, which numba cannot do where
blocks wait for each other: a first launch compiles for some seconds.
"""

import functools
import importlib
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba import cuda as numba_cuda

Function = TypeVar("Function", bound=Callable[..., Any])
_cuda: Any = numba_cuda
Array = Any  # of the device; of numpy in the simulator

SIMULATED = bool(cast(Any, numba.config).ENABLE_CUDASIM)
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY


class NoDevice(RuntimeError, ValueError):
    """`device="cuda"` where there is none."""


class _InKernel:
    """What the simulator's threads call `cuda`, in whatever module; by itself it knows but one."""

    def __getattr__(self, name: str) -> Any:
        simulator: Any = importlib.import_module("numba.cuda.simulator.kernel")
        return getattr(simulator._get_kernel_context(), name)


cuda: Any = _InKernel() if SIMULATED else _cuda


def kernel(function: Function) -> Any:
    """Compile what is launched."""
    return _cuda.jit(function)


def part(function: Function) -> Function:
    """Compile what kernels call."""
    return function if SIMULATED else cast(Function, _cuda.jit(device=True)(function))


# -- the device ------------------------------------------------------------------------------------


def require(owner: str) -> None:
    """Raise where kernels cannot run: ImportError without numba-cuda, NoDevice without a GPU."""
    if SIMULATED:
        return
    if importlib.util.find_spec("numba_cuda") is None:
        raise ImportError(
            f'{owner}: device="cuda" needs numba-cuda: pip install "streamlearn[cuda]", or, for a '
            'driver of CUDA 12, pip install "numba-cuda[cu12]"'
        )
    if not _cuda.is_available():
        raise NoDevice(
            f"{owner}: device must be there, got 'cuda', and numba finds no NVIDIA GPU with a "
            "driver; nvidia-smi says what the driver sees; device='cpu' gives the same answers"
        )


def reserve(owner: str, like: Sequence[tuple[tuple[int, ...], Any]]) -> list[Array]:
    """Arrays on the device of these shapes and types, not filled: all of them or none.

    Raises: MemoryError with the bytes that were needed.
    """
    if SIMULATED:
        return [np.zeros(shape, dtype) for shape, dtype in like]
    made: list[Array] = []
    try:
        for shape, dtype in like:
            made.append(_cuda.device_array(shape, dtype))
    except Exception as error:
        if not _full(error):
            raise
        made.clear()
        raise no_room(owner, like) from None
    return made


def _full(error: Exception) -> bool:
    """Whether the driver says that the device has no memory left."""
    code: Any = getattr(error, "code", None)
    return isinstance(code, int) and int(code) == _OUT_OF_MEMORY


def no_room(owner: str, like: Sequence[tuple[tuple[int, ...], Any]]) -> MemoryError:
    """The error for arrays that do not fit on the device."""
    return too_large(
        owner, sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in like)
    )


def too_large(owner: str, needed: int) -> MemoryError:
    """The error for so many bytes that the device does not have."""
    free, total = _cuda.current_context().get_memory_info()
    return MemoryError(
        f"{owner}: the device must have {needed:,} bytes free for this, got {free:,} of {total:,}; "
        "nothing was changed"
    )


def send(owner: str, *arrays: Any) -> tuple[Array, ...]:
    """Copies on the device: all or none, as `reserve`."""
    made = reserve(owner, [(array.shape, array.dtype) for array in arrays])
    for target, array in zip(made, arrays, strict=True):
        overwrite(target, array)
    return tuple(made)


def overwrite(target: Array, array: Any, stream: Any = 0) -> None:
    """target <- array, both of one shape and on either side; on a stream, behind other work."""
    if SIMULATED:
        target[...] = array
    elif array.size:
        target.copy_to_device(np.ascontiguousarray(array), stream=stream)


def move(target: Array, source: Array) -> None:
    """target <- source, an array of the device or of the host."""
    if SIMULATED:
        target[...] = source
    else:
        target.copy_to_device(source)


def fetch(array: Array) -> Any:
    """A copy on the host."""
    if SIMULATED:
        return array.copy()
    return array.copy_to_host() if array.size else np.empty(array.shape, array.dtype)


def pinned(shape: tuple[int, ...], dtype: Any = np.float64) -> Any:
    """An array of the host that is copied to and from the device without the processor."""
    if SIMULATED or 0 in shape:  # the driver pins no empty array
        return np.empty(shape, dtype)
    return _cuda.pinned_array(shape, dtype)


def sized(kernel: Any, threads: int, arguments: tuple[Any, ...]) -> tuple[Any, int]:
    """The kernel for these arguments, and how many blocks fit on the device at once."""
    if SIMULATED:
        return kernel, 1
    kernel = kernel.specialize(*arguments)
    (overload,) = kernel.overloads.values()
    return kernel, overload.max_cooperative_grid_blocks(threads)


@functools.lru_cache(maxsize=256)
def configured(kernel: Any, blocks: int, threads: int, stream: Any = 0) -> Any:
    """The kernel for so many blocks. Few are meant so, and numba is not to warn of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Grid size")
        return kernel[blocks, threads, stream]


@contextmanager
def _room_to_run(owner: str, kernel: Any) -> Iterator[None]:
    """Turn the driver's word for a launch without memory into a MemoryError with the bytes."""
    try:
        yield
    except Exception as error:
        if not _full(error):
            raise
        raise too_large(owner, local_bytes(kernel)) from None


def local_bytes(kernel: Any) -> int:
    """Bytes that a launch itself takes: the local memory of all threads that the device can hold.

    The driver takes it for the whole device, however few threads are launched.
    """
    if SIMULATED:
        return 0
    device = _cuda.get_current_device()
    each = max(one.local_mem_per_thread for one in kernel.overloads.values())
    resident = device.MULTIPROCESSOR_COUNT * device.MAX_THREADS_PER_MULTIPROCESSOR
    return int(each * resident)


def launch(
    owner: str, kernel: Any, threads: int, arguments: tuple[Any, ...], blocks: int = 0
) -> None:
    """Launch and wait. blocks=0: as many as fit on the device at once, which may wait for each
    other; in the simulator always one.

    Raises: MemoryError with the bytes that a launch needs where the device has not even those.
    """
    with _room_to_run(owner, kernel):
        if blocks == 0 or SIMULATED:
            kernel, blocks = sized(kernel, threads, arguments)
        if SIMULATED:
            kernel[blocks, threads](*arguments)
            return
        configured(kernel, blocks, threads)(*arguments)
        _cuda.synchronize()


class Queue:
    """Copies and launches that happen one after the other, beside those of another queue."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._stream = None if SIMULATED else _cuda.stream()

    def send(self, target: Array, array: Any) -> None:
        """target <- array of the host."""
        overwrite(target, array, self._stream)

    def fetch(self, array: Array, target: Any) -> None:
        """target of the host <- array; there after `finish`."""
        if SIMULATED:
            target[...] = array
        elif array.size:
            array.copy_to_host(target, stream=self._stream)

    def launch(self, kernel: Any, threads: int, arguments: tuple[Any, ...]) -> None:
        """Launch as many blocks as fit on the device at once. Raises MemoryError as `launch`."""
        with _room_to_run(self._owner, kernel):
            kernel, blocks = sized(kernel, threads, arguments)
            if SIMULATED:
                kernel[blocks, threads](*arguments)
                return
            configured(kernel, blocks, threads, self._stream)(*arguments)

    def mark(self) -> Any:
        """This moment, for another queue to wait for."""
        if SIMULATED:
            return None
        event = _cuda.event(timing=False)
        event.record(self._stream)
        return event

    def wait(self, moment: Any) -> None:
        """Go on after a moment of another queue; None is past."""
        if moment is not None:
            moment.wait(self._stream)

    def finish(self) -> None:
        """Wait until all is done."""
        if self._stream is not None:
            self._stream.synchronize()
