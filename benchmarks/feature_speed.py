"""Events a second that drift detectors without labels watch: `python -m benchmarks.feature_speed`.

50 features, blocks of 1,000 rows, references full; processor time of one thread, the median of
several rounds. Models that are taught on: the mean over whole rounds of 25,000 rows, with their
lessons, the bootstrap of the new reference, and the rows in which that is collected.
"""

import statistics
import time

import numpy as np

from streamlearn.block import LABELLED, Block, Features
from streamlearn.operators import (
    DensityDrift,
    FeatureDrift,
    MMDDrift,
    NoveltyDrift,
    PropensityDrift,
)
from streamlearn.operators._base import Operator

D, ROWS, ROUNDS = 50, 1_000, 60
REFRESH = 25_000
FEATURES = Features(tuple(f"x{j}" for j in range(D)))


def block(rng: np.random.Generator, n: int) -> Block:
    """Rows of standard normal features."""
    modes = np.full(n, LABELLED, np.uint8)
    return Block(rng.normal(size=(n, D)), np.zeros(n), np.ones(n), modes, FEATURES)


def microseconds(operator: Operator) -> float:
    """Of an event."""
    rng = np.random.default_rng(0)
    for _ in range(24):
        operator.run(block(rng, ROWS))
    took = []
    for _ in range(ROUNDS):
        rows = block(rng, ROWS)
        start = time.thread_time()
        operator.run(rows)
        took.append((time.thread_time() - start) / ROWS * 1e6)
    return statistics.median(took)


def mean_microseconds(operator: Operator) -> float:
    """Of an event, over two rounds from one lesson to the next."""
    rng = np.random.default_rng(0)
    took, n = 0.0, 2 * REFRESH // ROWS
    for k in range(n + 4):
        rows = block(rng, ROWS)
        start = time.thread_time()
        operator.run(rows)
        took += time.thread_time() - start if k >= 4 else 0.0
    return took / (n * ROWS) * 1e6


def main() -> None:
    """Print a table."""
    made = {
        "FeatureDrift (KS and PSI)": FeatureDrift(),
        "MMDDrift": MMDDrift(),
        "NoveltyDrift": NoveltyDrift(),
        "DensityDrift": DensityDrift(),
        "PropensityDrift": PropensityDrift(),
    }
    took = {name: microseconds(operator) for name, operator in made.items()}
    names = list(took)
    taught = {
        "NoveltyDrift, taught on": mean_microseconds(NoveltyDrift(refresh=REFRESH)),
        "DensityDrift, taught on": mean_microseconds(DensityDrift(refresh=REFRESH)),
    }
    others = sum(took[name] for name in names if name not in ("NoveltyDrift", "DensityDrift"))
    rows = took | {
        "FeatureDrift and MMDDrift": sum(took[name] for name in names[:2]),
        "all five": sum(took.values()),
        **taught,
        f"all five, models taught on every {REFRESH:,} rows": others + sum(taught.values()),
    }
    print("| 50 features, one core | microseconds an event | events a second |")
    print("| --- | --- | --- |")
    for name, each in rows.items():
        print(f"| {name} | {each:.2f} | {1e6 / each:,.0f} |")


if __name__ == "__main__":
    main()
