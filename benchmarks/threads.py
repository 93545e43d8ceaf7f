"""Ten members in threads against the same ten one after the other, by turns: wall clock."""

import time
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

from benchmarks import streams
from benchmarks.tables import markdown
from streamlearn import KalmanClassifier
from streamlearn.operators import OnlineBaggingClassifier, _threads

TITLE = "Members in threads"
ABOUT = """\
A block through a bag of ten Kalman classifiers, members one after the other and in as many threads
as there are cores, by turns: milliseconds by the clock, medians, and the median of their ratio
round by round. The bits are the same. On a busy machine it measures the others."""
MEMBERS = 10
CASES = ((8, 256), (8, 1024), (8, 4096), (32, 1024), (100, 1024))  # features, rows of a block


class Case(NamedTuple):
    """Milliseconds of a block, medians, and the median of their ratio round by round."""

    d: int
    rows: int
    one_thread_ms: float
    threads_ms: float
    times_faster: float


def measure(quick: bool) -> dict[str, Any]:
    """Cores, and a row a case."""
    cases = [case(d, rows, 1 if quick else 40) for d, rows in (CASES[:1] if quick else CASES)]
    return {"cores": _threads.cores(), "cases": [one._asdict() for one in cases]}


def tables(found: dict[str, Any]) -> list[str]:
    """One table."""
    head = ("features, rows of a block", "one thread, ms", f"{found['cores']} threads, ms", "times")
    return [markdown(head, [
        (f"{c['d']}, {c['rows']:,}", f"{c['one_thread_ms']:.2f}", f"{c['threads_ms']:.2f}",
         f"{c['times_faster']:.2f}") for c in found["cases"]
    ])]  # fmt: skip


def case(d: int, rows: int, rounds: int) -> Case:
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
