"""Stages before a model: cost by features, beside numpy's row by row."""

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.families import Cost
from streamlearn.block import F8
from streamlearn.operators import Imputer, Normalizer, UnitNorm
from streamlearn.operators._base import Operator

WIDTHS = (8, 54, 128, 256, 500, 1000)


def costs() -> Iterator[Cost]:
    """By features; bytes are those of the state and of a row read and written."""
    made: tuple[tuple[str, Callable[[], Operator], Callable[[F8, F8], None], float, float], ...] = (
        ("Normalizer", Normalizer, plain_normalizer, 12.0, 64.0),
        ("UnitNorm", UnitNorm, plain_unit_norm, 3.0, 16.0),
        ("Imputer", Imputer, plain_imputer, 3.0, 48.0),
    )
    for name, make, plain, flops, each in made:
        for d in WIDTHS:
            yield Cost(
                name, f"d = {d}", make, plain, d, d, grows="width",
                flops=flops * d, bytes=each * d, spec=f"{flops:.0f} d",
            )  # fmt: skip


def plain_normalizer(X: F8, _: F8) -> None:
    """Scale by what was before, then follow mean and variance."""
    mean, variance, n = np.zeros(X.shape[1]), np.zeros(X.shape[1]), 0.0
    for x in X:
        np.divide(x - mean, np.sqrt(variance), out=np.zeros_like(x), where=variance > 0.0)
        n += 1.0
        rate = max(1.0 / n, 1e-3)
        off = x - mean
        mean += rate * off
        variance += rate * (off * (x - mean) - variance)


def plain_unit_norm(X: F8, _: F8) -> None:
    """Each row over its length."""
    for x in X:
        np.divide(x, np.sqrt(x @ x))


def plain_imputer(X: F8, _: F8) -> None:
    """Gaps get the mean so far."""
    mean, n = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for x in X:
        there = ~np.isnan(x)
        np.where(there, x, mean)
        n += there
        mean += np.where(there, (x - mean) / np.maximum(n, 1.0), 0.0)
