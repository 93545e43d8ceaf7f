"""How time is taken: medians over blocks and rounds, on one core."""

import os
import statistics
import time
from collections.abc import Callable, Sequence

MOST_CALLS = 20_000


def pin() -> int | None:
    """Stay on one core, the last that is allowed; its number, or None where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def nanoseconds(call: Callable[[], object]) -> int:
    """Time of one call."""
    start = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start


def repeated(call: Callable[[], object], seconds: float, at_least: int = 3) -> list[int]:
    """Nanoseconds of each call, for so many seconds, and at most MOST_CALLS."""
    end = time.perf_counter() + seconds
    taken = [nanoseconds(call) for _ in range(at_least)]
    while time.perf_counter() < end and len(taken) < MOST_CALLS:
        taken.append(nanoseconds(call))
    return taken


def by_turns(
    contestants: dict[str, Callable[[], float]], rounds: int
) -> dict[str, tuple[float, float, float]]:
    """Median, least and most of what each gives; one round runs each once, so load falls on all."""
    given: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            given[name].append(run())
    return {name: (statistics.median(v), min(v), max(v)) for name, v in given.items()}


def percentile(values: Sequence[int], share: float) -> float:
    """The value that this share of the others does not exceed."""
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])
