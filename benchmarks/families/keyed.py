"""Banks: a model for each key. By keys, the cost of an event is that of finding its record."""

from collections.abc import Callable, Iterator

from benchmarks.families import Cost, triangle
from streamlearn.operators import AnalyticRegressor, KeyedClassifier, KeyedRegressor
from streamlearn.operators._base import Operator

KEYS = (100, 1_000, 10_000, 100_000)


def costs() -> Iterator[Cost]:
    """By keys, uniform; the count is that of one head."""
    made: tuple[tuple[str, Callable[[], Operator], int], ...] = (
        ("KeyedClassifier", KeyedClassifier, 2),
        ("KeyedRegressor", KeyedRegressor, 1),
        ("KeyedRegressor, least squares", _least_squares, 1),
    )
    for name, make, K in made:
        for keys in KEYS:
            yield Cost(
                name, f"d = 8, {keys:,} keys", make, None, 8, 9, grows="keys", keys=keys,
                spec="3 D^2 + 4 K D", **triangle(9, K),
            )  # fmt: skip


def _least_squares() -> KeyedRegressor:
    return KeyedRegressor(AnalyticRegressor(window=None))
