"""Independent work in threads: members of an ensemble within a block.

Kernels let go of the GIL, so members of compiled operators run at the same time. Which thread does
what changes no bit: each piece of work has its own state, and results come in the order of the
calls. There is one pool for the process. No kernel of numba's `parallel` is used anywhere: its
workqueue layer must not be called from two threads.
"""

import contextvars
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

# nanoseconds of work below which threads cost more than they save. Ten Kalman classifiers of 8
# features on two cores: 0.4 ms became 0.45, 0.6 ms 0.52, 2 ms 1.2, 7.5 ms 4.2
LEAST_WORK = 600_000.0
# the same where each thread makes one call that lets go of the GIL until all is done. Ten linear
# heads of 8 features side by side on two busy cores: 0.29 ms became 0.32, 0.54 ms 0.42
LEAST_FREE = 300_000.0

Result = TypeVar("Result")
_pools: list[ThreadPoolExecutor] = []  # the one of this process, once it is needed
_lock = threading.Lock()
_inside = threading.local()  # .busy: this thread does a share of somebody's work


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_members(
    calls: Sequence[Callable[[], Result]], work: float, least: float | None = None
) -> list[Result]:
    """The results of these calls, in their order.

    In threads where there are several calls, several cores and enough to do; one after the other
    else, and where this is itself such a call. The first call that raises has its exception raised
    here, after all that were begun have ended.

    Args:
        calls: what shares nothing that any of them writes. work: an estimate of what all of them
        take together, in nanoseconds. least: of it, for threads; None: LEAST_WORK.
    Cost: some 30 us beside the work, none where they run one after the other.
    """
    helpers = min(cores(), len(calls)) - 1
    least = LEAST_WORK if least is None else least
    if work < least or helpers < 1 or getattr(_inside, "busy", False):
        return [call() for call in calls]
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException | None] = [None] * len(calls)
    left = iter(range(len(calls)))  # next() of it is one step under the GIL

    def share() -> None:
        _inside.busy = True
        try:
            for j in left:
                try:
                    results[j] = calls[j]()
                except BaseException as error:  # noqa: BLE001  # raised where it was asked for
                    errors[j] = error
                    return
        finally:
            _inside.busy = False

    pool = _helpers()
    begun = [pool.submit(contextvars.copy_context().run, share) for _ in range(helpers)]
    share()
    _finish(begun)
    for error in errors:
        if error is not None:
            raise error
    return results


def _finish(begun: Sequence[Future[None]]) -> None:
    """Wait for those at work; who has not come yet is not needed any more."""
    for future in begun:
        if not future.cancel():
            future.result()


def _helpers() -> ThreadPoolExecutor:
    with _lock:
        if not _pools:
            _pools.append(ThreadPoolExecutor(max(cores() - 1, 1), "streamlearn-members"))
        return _pools[0]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a child has none of its threads


class Crew:
    """Members that run over the same blocks, by `map_members`; it knows what a row costs them.

    What a row costs decides on threads alone, never on a value: it is measured as processor time of
    the thread, of the last block, and is no state.
    free: whether a call is one kernel, so that threads never wait for the GIL: they then pay for
    less work.
    """

    def __init__(self, free: bool = False) -> None:
        self._free = free
        self._row_ns = 0.0  # of all members together: the first block runs in one thread
        self._rows = 0  # of the block that said so

    def map(self, calls: Sequence[Callable[[], Result]], rows: int) -> list[Result]:
        """The results of the members' calls over so many rows, in their order."""
        taken = [0] * len(calls)

        def timed(j: int) -> Result:
            start = time.thread_time_ns()
            result = calls[j]()
            taken[j] = time.thread_time_ns() - start
            return result

        parts = [lambda j=j: timed(j) for j in range(len(calls))]
        results = map_members(parts, self._work(rows), self._least)
        self._row_ns, self._rows = sum(taken) / max(rows, 1), rows
        return results

    def _work(self, rows: int) -> float:
        """Nanoseconds that so many rows take. A short block tells of one eight times as long."""
        return self._row_ns * min(rows, 8 * self._rows)

    def shares(self, rows: int) -> int:
        """Into how many calls to cut so many rows: as many as pay, 1 where threads do not."""
        work, least = self._work(rows), self._least
        if work < least or getattr(_inside, "busy", False):
            return 1
        return max(1, min(cores(), int(2.0 * work / max(least, 1.0))))

    @property
    def _least(self) -> float:
        return LEAST_FREE if self._free else LEAST_WORK
