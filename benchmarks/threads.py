"""Ten members in threads against the same ten one after the other, by turns: wall clock.

    python -m benchmarks.threads

Needs two free cores: on a busy machine it measures the others.
"""

import time
from statistics import median
from typing import NamedTuple
from unittest import mock

from benchmarks import machine, streams
from streamlearn import KalmanClassifier
from streamlearn.operators import OnlineBaggingClassifier, _threads

MEMBERS = 10


class Case(NamedTuple):
    """Milliseconds of a block, medians, and the median of their ratio round by round."""

    d: int
    rows: int
    one_thread_ms: float
    threads_ms: float
    times_faster: float


def measure(d: int, rows: int, rounds: int) -> Case:
    """A bag of Kalman classifiers on blocks of so many rows."""
    block = streams.block(rows, d, classes=True, category=False)
    bags = [OnlineBaggingClassifier(KalmanClassifier(), n=MEMBERS) for _ in range(2)]
    taken: list[list[float]] = []
    for _ in range(rounds + 3):
        taken.append([])
        for bag, cores in zip(bags, (1, _threads.cores()), strict=True):
            with mock.patch.object(_threads, "cores", lambda cores=cores: cores):
                start = time.perf_counter()
                bag.run(block)
                taken[-1].append(1e3 * (time.perf_counter() - start))
    alone, together = zip(*taken[3:], strict=True)  # kernels are loaded, costs are known
    ratio = median(a / b for a, b in zip(alone, together, strict=True))
    return Case(d, rows, median(alone), median(together), ratio)


def main() -> None:
    """Measure and print."""
    about = machine.describe()
    print(f"{about['cpu']}, {_threads.cores()} cores, {about['date']}: {MEMBERS} members")
    for d, rows in ((8, 256), (8, 1024), (8, 4096), (32, 1024), (100, 1024)):
        case = measure(d, rows, 40)
        print(f"d = {d:3}, {rows:5} rows: {case.one_thread_ms:7.2f} ms in one thread,"
              f" {case.threads_ms:7.2f} in threads, {case.times_faster:.2f} times")  # fmt: skip


if __name__ == "__main__":
    main()
