"""How long feature detectors run between false alarms: `python -m benchmarks.feature_alarms`.

Rows like the reference, until the first alarm or 3 A rows after the first full window; each
reference is used for several streams. Printed: rows at risk over alarms, in units of A, by age.
"""

import argparse
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from streamlearn.block import CATEGORY, F8, LABELLED, NUMBER, Block, Features, Vocabulary
from streamlearn.operators import FeatureDrift

Make = Callable[[np.random.Generator, int], F8]
STREAMS: dict[str, Make] = {
    "bits, 0.05": lambda rng, n: (rng.random((n, 1)) < 0.05).astype(float),
    "bits, 0.4": lambda rng, n: (rng.random((n, 1)) < 0.4).astype(float),
    "a category of 6": lambda rng, n: rng.choice(6, (n, 1), p=_SHARES).astype(float),
    "normal": lambda rng, n: rng.normal(size=(n, 1)),
    "lognormal": lambda rng, n: rng.lognormal(size=(n, 1)),
    "4 normal, correlated": lambda rng, n: rng.normal(size=(n, 4)) + rng.normal(size=(n, 1)),
}
_SHARES = [0.4, 0.3, 0.15, 0.1, 0.04, 0.01]
_BANDS = (0.0, 0.1, 1.0, 3.0)  # ages, in units of A


def block(X: F8, category: bool) -> Block:
    """Rows of numbers or of one category."""
    n, d = X.shape
    names = tuple(f"x{j}" for j in range(d))
    tables = {"x0": Vocabulary("abcdef")} if category else {}
    features = Features(names, (CATEGORY if category else NUMBER,) * d, tables)
    return Block(X, np.zeros(n), np.ones(n), np.full(n, LABELLED, np.uint8), features)


def ages(
    make: Make, category: bool, A: int, window: int, references: int, each: int, seed: int
) -> tuple[F8, F8]:
    """Age at the first alarm of each stream, or at its end; and whether it was an alarm."""
    rng = np.random.default_rng(seed)
    age, alarmed = [], []
    features = None
    for r in range(references):
        watch = FeatureDrift(
            reference=100 * window, window=window, every=max(window // 4, 1),
            average_run_length=A, seed=seed + r,
        )  # fmt: skip
        first = block(make(rng, 100 * window), category)
        features = features or first.features
        watch.run(first.replace(features=features))
        taken = watch.snapshot()
        for _ in range(each):
            watch.restore(taken)
            rows = block(make(rng, window + 3 * A), category).replace(features=features)
            alarm = watch.run(rows)["alarm"]
            alarmed.append(float(alarm.any()))
            age.append(float(np.argmax(alarm) if alarm.any() else rows.n) - window)
    return np.array(age), np.array(alarmed)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--a", type=int, default=1_000, help="the run length asked for")
    parser.add_argument("--window", type=int, default=20)
    parser.add_argument("--references", type=int, default=400)
    parser.add_argument("--each", type=int, default=10, help="streams of each reference")
    parser.add_argument("--only", default="", help="streams whose name holds this")
    told = parser.parse_args()
    print(
        "| stream | below A/10 | A/10 to A | A to 3 A | alarms |\n| --- | --- | --- | --- | --- |"
    )
    for name, make in STREAMS.items():
        if told.only not in name:
            continue
        age, alarmed = ages(
            make, "category" in name, told.a, told.window, told.references, told.each, 7
        )
        cells, counts = [], []
        for low, high in pairwise(_BANDS):
            at_risk = np.clip(age, low * told.a, high * told.a) - low * told.a
            n = int((alarmed * (age >= low * told.a) * (age < high * told.a)).sum())
            cells.append(f"{at_risk.sum() / max(n, 1) / told.a:.2f}")
            counts.append(n)
        print(f"| {name} | {' | '.join(cells)} | {', '.join(map(str, counts))} |", flush=True)


if __name__ == "__main__":
    main()
