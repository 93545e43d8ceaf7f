"""The streams on which defaults are chosen; none of them is scored anywhere."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from benchmarks import real
from streamlearn.block import B1, F8

ROWS = 20_000  # of a stream that we make, and the most that is read of a real one


class Tuning(NamedTuple):
    """A stream as the arguments of `streamlearn.replay`, and its name."""

    name: str
    arguments: dict[str, Any]


def classes() -> Iterator[Tuning]:
    """Classification: four real streams where they are present, seven of our own."""
    yield from _real(("phishing_websites", "luxembourg", "moving_squares"), "target")
    yield from _real(("usenet1",), "Label")
    for kind in ("circle", "stripes", "board"):
        for noise in (0.0, 0.1):
            name = f"{kind}, {noise:.0%} noise"
            yield Tuning(name, {"data": curved(kind, noise, seed=7), "target": "y"})
    yield Tuning("planes, d = 8", {"data": f"drift:abrupt?n={ROWS}&d=8&seed=11", "target": "y"})


def numbers() -> Iterator[Tuning]:
    """Regression: five real streams where they are present, two of our own."""
    yield from _real(("bikeshare_hourly",), "bikers", ignore="casual,registered")
    yield from _real(("trump_approval",), "five_thirty_eight")
    yield from _real(("chick_weights",), "weight")
    yield from _real(("nyc_taxi_trips_10k",), "trip_duration", ignore="id,dropoff_datetime")
    yield from _real(("web_traffic",), "sessionsA", ignore="sessionsB")
    for kind in ("abrupt", "gradual"):
        data = f"drift:{kind}?n={ROWS}&d=8&seed=11&task=regression&noise=0.1"
        yield Tuning(f"{kind} planes", {"data": data, "target": "y"})


def _real(names: tuple[str, ...], target: str, **more: str) -> Iterator[Tuning]:
    for name in names:
        path = real.DATA / f"{name}.parquet"
        if path.exists():
            yield Tuning(name, {"data": str(path), "target": target, "limit": ROWS} | more)


def curved(kind: str, noise: float, seed: int) -> pa.Table:
    """Two features in [0, 1] and a boundary that no plane fits, another one every 5,000 rows.

    circle: inside or outside of a circle that moves. stripes: of another width and direction each
    time. board: a chessboard that turns. A label is flipped with probability noise.
    """
    rng = np.random.default_rng(seed)
    X = rng.random((ROWS, 2))
    y = np.zeros(ROWS, dtype=bool)
    for first in range(0, ROWS, 5000):
        rows = slice(first, first + 5000)
        y[rows] = _concept(kind, X[rows], rng)
    y ^= rng.random(ROWS) < noise
    return pa.table({"a": X[:, 0], "b": X[:, 1], "y": y})


def _concept(kind: str, X: F8, rng: np.random.Generator) -> B1:
    """One boundary, drawn."""
    turn, side = rng.uniform(0.0, np.pi), rng.random() < 0.5
    u = X[:, 0] * np.cos(turn) + X[:, 1] * np.sin(turn)
    v = X[:, 1] * np.cos(turn) - X[:, 0] * np.sin(turn)
    if kind == "circle":
        centre = rng.uniform(0.3, 0.7, size=2)
        inside = np.hypot(X[:, 0] - centre[0], X[:, 1] - centre[1]) < 0.35
    elif kind == "stripes":
        inside = np.sin(2.0 * np.pi * u * rng.uniform(0.8, 1.6)) > 0.0
    else:
        inside = (np.sin(2.0 * np.pi * u) > 0.0) ^ (np.sin(2.0 * np.pi * v) > 0.0)
    return np.asarray(inside ^ side)
