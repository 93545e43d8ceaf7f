"""Kernels by several blocks of threads at once, in Python.

Numba's simulator runs one block after the other, so that blocks never wait for each other there,
and none sees what another has not written yet. Here every thread of every block is a thread of
Python, which hands over after a few instructions; `syncthreads` is a barrier of a block, a grid's
`sync` one of all. Shared and local memory begins as NaN, or -1, and one line of a kernel has one
piece of shared memory a block, however often it comes by.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from streamlearn.jit.cuda import _compile, bank, delayed, experts, mixture, products

PATIENCE = 60.0  # seconds for which a thread waits at a barrier that another never reaches
_here: Any = threading.local()  # tid, block, launch


class Launch:
    """What all threads of a launch share."""

    def __init__(self, blocks: int, threads: int) -> None:
        self.blocks, self.threads = blocks, threads
        self.barrier = threading.Barrier(blocks * threads, timeout=PATIENCE)
        self.lock, self.failed = threading.Lock(), list[BaseException]()
        self.each = [Block(threads) for _ in range(blocks)]


class Block:
    """What all threads of a block share."""

    def __init__(self, threads: int) -> None:
        self.barrier = threading.Barrier(threads, timeout=PATIENCE)
        self.lock, self.arrays = threading.Lock(), dict[tuple[str, int], Any]()


class _Index:
    """A place in the grid, or the grid's size; its x."""

    def __init__(self, of: Any) -> None:
        self._of = of

    @property
    def x(self) -> int:
        return int(self._of())


def blank(shape: Any, dtype: Any) -> Any:
    """Memory in which nothing has been written."""
    return np.full(shape, np.nan if np.issubdtype(dtype, np.floating) else -1, dtype)


class _Shared:
    def array(self, shape: Any, dtype: Any) -> Any:
        frame = sys._getframe(1)
        block: Block = _here.launch.each[_here.block]
        with block.lock:
            line = frame.f_code.co_filename, frame.f_lineno
            if line not in block.arrays:
                block.arrays[line] = blank(shape, dtype)
            return block.arrays[line]


class _Local:
    def array(self, shape: Any, dtype: Any) -> Any:
        return blank(shape, dtype)


class _Grid:
    def this_grid(self) -> "_Grid":
        return self

    def sync(self) -> None:
        _here.launch.barrier.wait()


class _Atomic:
    def add(self, array: Any, at: Any, value: Any) -> Any:
        with _here.launch.lock:
            before = array[at]
            array[at] += value
        return before

    def max(self, array: Any, at: Any, value: Any) -> Any:
        with _here.launch.lock:
            before = array[at]
            array[at] = max(before, value)
        return before

    def cas(self, array: Any, at: Any, old: Any, value: Any) -> Any:
        with _here.launch.lock:
            before = array[at]
            if before == old:
                array[at] = value
        return before


class Cuda:
    """What kernels call `cuda`."""

    threadIdx = _Index(lambda: _here.tid)
    blockIdx = _Index(lambda: _here.block)
    gridDim = _Index(lambda: _here.launch.blocks)
    blockDim = _Index(lambda: _here.launch.threads)
    shared, local, cg, atomic = _Shared(), _Local(), _Grid(), _Atomic()

    def grid(self, dimensions: int) -> int:
        return int(_here.block * _here.launch.threads + _here.tid)

    def gridsize(self, dimensions: int) -> int:
        return int(_here.launch.blocks * _here.launch.threads)

    def syncthreads(self) -> None:
        _here.launch.each[_here.block].barrier.wait()

    def fma(self, a: float, b: float, c: float) -> float:
        return a * b + c


class Kernel:
    """A kernel of the simulator, launched here."""

    def __init__(self, simulated: Any) -> None:
        self._function = simulated.fn

    def __getitem__(self, configured: tuple[int, ...]) -> Any:
        def start(*arguments: Any) -> None:
            launch = Launch(*configured[:2])
            threads = [
                threading.Thread(target=self._run, args=(launch, block, tid, arguments))
                for block in range(launch.blocks)
                for tid in range(launch.threads)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if launch.failed:
                raise launch.failed[0]

        return start

    def _run(self, launch: Launch, block: int, tid: int, arguments: Any) -> None:
        _here.launch, _here.block, _here.tid = launch, block, tid
        try:
            self._function(*arguments)
        except BaseException as failure:  # noqa: BLE001  # raised by who launched
            launch.failed.append(failure)  # first; who waited for this one fails behind it
            for barrier in (launch.barrier, *(each.barrier for each in launch.each)):
                barrier.abort()


@contextmanager
def several_blocks(blocks: int) -> Iterator[None]:
    """Launches that ask for as many blocks as fit get so many, all at once."""

    def sized(kernel: Any, threads: int, arguments: Any) -> tuple[Any, int]:
        return Kernel(kernel), blocks

    interval = sys.getswitchinterval()
    with pytest.MonkeyPatch.context() as patched:
        for module in (bank, delayed, experts, mixture, products):
            patched.setattr(module, "cuda", Cuda())
        patched.setattr(_compile, "sized", sized)
        sys.setswitchinterval(1e-6)
        try:
            yield
        finally:
            sys.setswitchinterval(interval)
