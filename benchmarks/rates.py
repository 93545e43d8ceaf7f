"""What the machine can do at most: products of matrices and copies, on one core, in the same run.

A kernel's share of what is possible is told against these, never against another machine's.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks import clock

SIZE = 768  # of the matrices that are multiplied
KIBS = (32, 256, 2048, 16_384, 262_144)  # of what a copy touches: source and destination together


class Rates(NamedTuple):
    """Gflop/s of dgemm; GB/s of a copy, read and written, by KiB touched."""

    dgemm: float
    copy: dict[int, float]

    def bytes_a_second(self, touched: float) -> float:
        """Of the least measured size that holds so many bytes, in GB/s."""
        held = [kib for kib in self.copy if kib * 1024 >= touched]
        return self.copy[min(held) if held else max(self.copy)]

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {"dgemm_gflops": self.dgemm, "copy_gbytes": self.copy}

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> "Rates":
        """The inverse of `to_json`, also after JSON has made keys into text."""
        return cls(table["dgemm_gflops"], {int(k): v for k, v in table["copy_gbytes"].items()})


def measured(seconds: float = 0.15) -> Rates:
    """The best of what each call reached, within so many seconds for each size."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(SIZE, SIZE)), rng.normal(size=(SIZE, SIZE))
    c = np.empty((SIZE, SIZE))
    taken = _best(lambda: np.dot(a, b, out=c), seconds)
    return Rates(2.0 * SIZE**3 / taken, {kib: _copy(kib, seconds) for kib in KIBS})


def exponent(points: list[tuple[float, float]]) -> float:
    """Slope of log cost over log size, by least squares; NaN of fewer than two sizes."""
    if len({x for x, _ in points}) < 2:
        return math.nan
    x, y = np.log(np.array(points, dtype=float)).T
    x = x - x.mean()
    return float(x @ y / (x @ x))


def _copy(kib: int, seconds: float) -> float:
    n = kib * 1024 // 16
    source, target = np.ones(n), np.zeros(n)
    often = max(1, 2048 // kib)  # of small arrays several a call: a call takes 0.3 us itself

    def copies() -> None:
        for _ in range(often):
            np.copyto(target, source)

    return 16.0 * n * often / _best(copies, seconds)


def _best(call: Callable[[], object], seconds: float) -> float:
    """Least nanoseconds of a call."""
    return float(min(clock.repeated(call, seconds)))
