"""Events a second that drift detectors without labels watch: `python -m benchmarks.feature_speed`.

50 features, blocks of 1,000 rows, references full; processor time of one thread, the median of
several rounds.
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
    rows = took | {
        "FeatureDrift and MMDDrift": sum(took[name] for name in names[:2]),
        "all five": sum(took.values()),
    }
    print("| 50 features, one core | microseconds an event | events a second |")
    print("| --- | --- | --- |")
    for name, each in rows.items():
        print(f"| {name} | {each:.2f} | {1e6 / each:,.0f} |")


if __name__ == "__main__":
    main()
