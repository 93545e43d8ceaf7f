"""Generated streams: blocks for single operators, files for whole replays."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from streamlearn.block import (
    CATEGORY,
    F8,
    LABELLED,
    NUMBER,
    Block,
    Features,
    Vocabulary,
)

N_FEATURES = 8
N_CATEGORIES = 10


def numbers(n: int, d: int, seed: int) -> tuple[F8, F8]:
    """Gaussian features, and a noisy linear score that changes sign after half of the rows."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    score = X @ rng.normal(size=d) / np.sqrt(d) + 0.5 * rng.normal(size=n)
    score[n // 2 :] *= -1.0
    return X, score


def block(n: int, d: int, *, classes: bool, category: bool, K: int = 2) -> Block:
    """Labelled rows of one concept; the last column holds category codes where asked.

    Of more than two classes, each is an interval of the score, all equally frequent.
    """
    X, score = numbers(2 * n, d, seed=d)
    X, score = X[:n], score[:n]
    kinds, names = [NUMBER] * d, [f"x{j}" for j in range(d)]
    tables = {}
    if category:
        X[:, -1] = np.arange(n) % N_CATEGORIES
        kinds[-1], tables = CATEGORY, {names[-1]: Vocabulary(map(str, range(N_CATEGORIES)))}
    y = np.where(score > 0, 1.0, 0.0) if classes else score
    labels = Vocabulary([False, True]) if classes else None
    if classes and K > 2:
        y = np.floor(np.argsort(np.argsort(score)) * K / n)
        labels = Vocabulary(range(K))
    modes = np.full(n, LABELLED, dtype=np.uint8)
    return Block(X, y, np.ones(n), modes, Features(names, kinds, tables), labels)


def table(n: int) -> pa.Table:
    """N_FEATURES numbers and a boolean target, with a drift in the middle."""
    X, score = numbers(n, N_FEATURES, seed=1)
    columns = {f"x{j}": X[:, j] for j in range(N_FEATURES)}
    return pa.table(columns | {"y": score > 0})


def write(data: pa.Table, folder: Path, n_text: int) -> dict[str, Path]:
    """The table as Parquet, and its first n_text rows as CSV and JSON Lines."""
    paths = {
        "Parquet": folder / "stream.parquet",
        "CSV": folder / "stream.csv",
        "JSON Lines": folder / "stream.jsonl",
    }
    parquet.write_table(data, paths["Parquet"])
    head = data.slice(0, n_text)
    csv.write_csv(head, paths["CSV"])
    head.to_pandas().to_json(paths["JSON Lines"], orient="records", lines=True)
    return paths
