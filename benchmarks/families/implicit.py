"""Implicit linear learners: plain numpy beside, sparse rows by non-zeros, River on the same."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from river import linear_model

from benchmarks.families import Cost, Table
from streamlearn.block import F8, LABELLED, Block, Csr, Features
from streamlearn.connectors import as_source
from streamlearn.operators import ImplicitLinearClassifier, ImplicitLinearRegressor

CANDIDATES: dict[str, dict[str, list[Any]]] = {
    "ImplicitLinearClassifier": {
        "loss": ["softmax", "logistic", "hinge"],
        "alpha": [0.1, 0.3, 1.0, 3.0],
        "rho": [0.0, 1e-4, 3e-4, 1e-3, 3e-3],
        "lr_alpha": [0.0, 0.002, 0.005, 0.01, 0.02, 0.05],
    },
    "ImplicitLinearRegressor": {
        "loss": ["squared", "absolute", "huber"],
        "alpha": [0.1, 0.3, 1.0, 3.0],
        "rho": [0.0, 1e-4, 3e-4, 1e-3, 3e-3],
        "memory": [0.0, 100.0, 1000.0],
    },
}
WIDTHS = (8, 16, 54, 128, 256, 500, 1000)
D_CLASSES, CLASSES = 54, (3, 10, 50, 200)  # features where classes grow


def costs() -> Iterator[Cost]:
    """By features and classes; there is no matrix, so the width is that of the weights."""
    classes = partial(ImplicitLinearClassifier, loss="logistic", lr_alpha=0.0, rho=0.0)
    for K in CLASSES:
        yield Cost(
            operator="ImplicitLinearClassifier",
            size=f"d = {D_CLASSES}, {K} classes",
            make=classes,
            plain=partial(plain_logistic, K=K),
            d=D_CLASSES,
            wide=D_CLASSES,
            classes=K,
            grows="classes",
            **_counts(D_CLASSES, K + 1),
        )
    numbers = partial(ImplicitLinearRegressor, scale_targets=False, rho=0.0)
    for d in WIDTHS:
        by_d: dict[str, Any] = {"grows": "width", **_counts(d, 3)}
        yield Cost("ImplicitLinearClassifier", f"d = {d}", classes, plain_logistic, d, d, **by_d)
    for d in WIDTHS:
        by_d = {"grows": "width", **_counts(d, 1), "spec": "12 d"}
        yield Cost("ImplicitLinearRegressor", f"d = {d}", numbers, plain_squared, d, d, **by_d)


def _counts(d: int, columns: int) -> dict[str, Any]:
    """Of each weight: 1 / sqrt(1 + G) (3), z and q (5), the step and both sums (4).

    K classes have K + 1 columns: each against the rest, and the one that did not come."""
    weights = (1.0 + d) * columns
    return {"flops": 12.0 * weights, "bytes": 32.0 * weights, "spec": "12 (K + 1) d"}


def plain_squared(X: F8, y: F8) -> None:
    """Predict and learn row by row, in numpy."""
    th, G = np.zeros(1 + X.shape[1]), np.zeros(1 + X.shape[1])
    rows = np.column_stack([np.ones(X.shape[0]), X])
    for x, target in zip(rows, y, strict=True):
        scaled = x / np.sqrt(1.0 + G)
        a = (th @ scaled - target) / (1.0 + x @ scaled)
        step = a * x
        th -= step
        G += step * step


def plain_logistic(X: F8, y: F8, K: int = 2) -> None:
    """K classes, each against the rest, and the class that did not come: K + 1 columns."""
    th, G = np.zeros((K + 1, 1 + X.shape[1])), np.zeros((K + 1, 1 + X.shape[1]))
    signs = 2.0 * np.eye(K + 1)[1:] - 1.0
    rows = np.column_stack([np.ones(X.shape[0]), X])
    for x, c in zip(rows, y.astype(int), strict=True):
        inverse = 1.0 / np.sqrt(1.0 + G)
        z, q = (th * inverse) @ x, inverse @ (x * x)
        sign = signs[c]
        b = np.full(K + 1, 0.5)
        for _ in range(6):
            p = 1.0 / (1.0 + np.exp(sign * z + q * b))
            b -= (b - p) / (1.0 + q * p * (1.0 - p))
        step = np.outer(-sign * b, x)
        th -= step
        G += step * step


def tables(data: Path) -> Iterator[Table]:
    """The cost by non-zeros, and the spam stream beside River's logistic regression."""
    yield _by_non_zeros()
    path = data / "spam_assassin_sparse.parquet"
    if path.exists():
        yield _spam(path)


def _by_non_zeros() -> Table:
    rng = np.random.default_rng(0)
    rows: list[tuple[str, ...]] = []
    for width in (10_000, 1_000_000):
        for filled in (10, 100, 1000):
            n = 2000
            columns = np.sort(rng.integers(0, width, (n, filled)), axis=1).ravel()
            sparse = Csr(np.ones(n * filled), columns, np.arange(n + 1) * filled, width)
            block = _block(sparse, rng.integers(0, 2, n).astype(float))
            model = ImplicitLinearClassifier()
            model.run(block)
            taken = min(_seconds(model, block) for _ in range(3))
            rows.append((f"{width:,}", f"{filled:,}", f"{taken / n * 1e6:.1f}"))
    note = "Two classes, softmax; predict and learn."
    return Table("ImplicitLinear: cost by non-zeros", ("columns", "non-zeros", "us"), rows, note)


def _block(sparse: Csr, y: F8) -> Block:
    n, modes = y.shape[0], np.full(y.shape[0], LABELLED, dtype=np.uint8)
    return Block(np.zeros((n, 0)), y, np.ones(n), modes, Features(()), sparse=sparse)


def _seconds(model: ImplicitLinearClassifier, block: Block) -> float:
    start = time.process_time()
    model.run(block)
    return time.process_time() - start


def _spam(path: Path) -> Table:
    """The whole stream, and River's logistic regression on dicts of the same tokens."""
    source, _ = as_source(path, None, target="spam")
    source.open({})
    model, logistic = ImplicitLinearClassifier(), linear_model.LogisticRegression()
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    seconds = [0.0, 0.0]
    model.run(_block(Csr(np.ones(1), np.zeros(1, np.int64), np.array([0, 1]), 1), np.zeros(1)))
    model.reset()
    while not source.finished:
        batch = source.poll(1000, 0.1)
        if batch is None:
            continue
        block = batch.block
        start = time.process_time()
        out = model.run(block)
        seconds[0] += time.process_time() - start
        proba = np.column_stack([out["proba"], np.zeros(block.n)])
        chosen = proba[np.arange(block.n), block.y.astype(int)]
        ours += zip(out["prediction"] == block.y, -np.log(np.maximum(chosen, 1e-15)), strict=True)
        assert block.sparse is not None
        for t in range(block.n):
            row = block.sparse.rows(t, t + 1)
            x = dict(zip(row.columns.tolist(), row.values.tolist(), strict=True))
            start, label = time.process_time(), bool(block.y[t])
            p = logistic.predict_proba_one(x)[label]
            logistic.learn_one(x, label)
            seconds[1] += time.process_time() - start
            theirs.append((p > 0.5, -np.log(max(p, 1e-15))))
    rows: list[tuple[str, ...]] = [
        (name, f"{found[0]:.4f}", f"{found[1]:.4f}", f"{spent / len(ours) * 1e6:.1f}")
        for name, found, spent in (
            ("ImplicitLinear", np.mean(ours, axis=0), seconds[0]),
            ("River's LogisticRegression", np.mean(theirs, axis=0), seconds[1]),
        )
    ]
    note = "9,324 messages, 39,916 tokens, 156 a message; decoding not counted."
    return Table(
        "ImplicitLinear: spam_assassin_sparse", ("model", "accuracy", "log loss", "us"), rows, note
    )
