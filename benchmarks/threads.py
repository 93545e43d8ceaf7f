"""Ten members in threads against the same ten one after the other, by turns: wall clock."""

import hashlib
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

from benchmarks import streams
from benchmarks.tables import markdown
from streamlearn import KalmanClassifier
from streamlearn.block import Block
from streamlearn.operators import OnlineBaggingClassifier, _threads

TITLE = "Members in threads"
ABOUT = """\
A block through a bag of ten Kalman classifiers, members one after the other and in as many threads
as there are cores, by turns: milliseconds by the clock, medians, and the median of their ratio
round by round. The bits are the same. By the same turns two digests of SHA-256, which take as long
and share nothing, not even memory traffic, go through the same threads: what the machine gives at
best while it is asked (a virtual core is not always there)."""
MEMBERS, ROUNDS = 10, 200
CASES = ((8, 256), (8, 1024), (8, 4096), (32, 1024), (100, 1024))  # features, rows of a block


class Case(NamedTuple):
    """Milliseconds of a block, medians; medians of ratios round by round, of the digests too."""

    d: int
    rows: int
    one_thread_ms: float
    threads_ms: float
    times_faster: float
    digests_faster: float


def measure(quick: bool) -> dict[str, Any]:
    """Cores, and a row a case."""
    cases = [case(d, rows, 1 if quick else ROUNDS) for d, rows in (CASES[:1] if quick else CASES)]
    return {"cores": _threads.cores(), "cases": [one._asdict() for one in cases]}


def tables(found: dict[str, Any]) -> list[str]:
    """One table."""
    cores = f"{found['cores']} threads, ms"
    head = ("features, rows of a block", "one thread, ms", cores, "times", "digests, times")
    return [markdown(head, [
        (f"{c['d']}, {c['rows']:,}", f"{c['one_thread_ms']:.2f}", f"{c['threads_ms']:.2f}",
         f"{c['times_faster']:.2f}", f"{c['digests_faster']:.2f}") for c in found["cases"]
    ])]  # fmt: skip


def case(d: int, rows: int, rounds: int) -> Case:
    """A bag of Kalman classifiers on blocks of so many rows, and digests that take as long."""
    block = streams.block(rows, d, classes=True, category=False)
    bags = [OnlineBaggingClassifier(KalmanClassifier(), n=MEMBERS) for _ in range(2)]
    for bag, cores in zip(bags, (1, _threads.cores()), strict=True):
        for _ in range(3):  # kernels are loaded, costs are known
            alone = _run(bag, block, cores)
    data = bytes(round(alone / _digest_ms(bytes(1 << 20)) * (1 << 20)) // _threads.cores())
    taken = [
        (_run(bags[0], block, 1), _run(bags[1], block, _threads.cores()),
         _digests(data, 1), _digests(data, _threads.cores()))
        for _ in range(rounds)
    ]  # fmt: skip
    one, many, digests_one, digests_many = zip(*taken, strict=True)
    return Case(
        d, rows, median(one), median(many), _ratio(one, many), _ratio(digests_one, digests_many)
    )


def _ratio(one: Sequence[float], many: Sequence[float]) -> float:
    return median(a / b for a, b in zip(one, many, strict=True))


def _run(bag: OnlineBaggingClassifier, block: Block, cores: int) -> float:
    """Milliseconds of a block in so many threads."""
    with mock.patch.object(_threads, "cores", return_value=cores):
        return _ms(lambda: bag.run(block))


def _digests(data: bytes, cores: int) -> float:
    """Milliseconds of a digest for every core there is, in so many threads."""
    calls = [lambda: hashlib.sha256(data).digest()] * _threads.cores()
    with mock.patch.object(_threads, "cores", return_value=cores):
        return _ms(lambda: _threads.map_members(calls, _threads.LEAST_WORK))


def _digest_ms(data: bytes) -> float:
    return min(_ms(lambda: hashlib.sha256(data).digest()) for _ in range(5))


def _ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)
