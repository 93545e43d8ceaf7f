"""HedgeMLP: the same network in plain numpy, and the drift of the specification by depth."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.families import Cost, Table
from streamlearn.block import F8
from streamlearn.operators import HedgeMLPClassifier
from streamlearn.testing import labelled

CANDIDATES: dict[str, dict[str, list[Any]]] = {
    "HedgeMLPClassifier": {
        "eta": [0.003, 0.01, 0.03, 0.1],
        "layers": [2, 3, 6],
        "hidden": [16, 32, 64],
        "beta": [0.9, 0.99, 0.999],
    },
    "HedgeMLPRegressor": {"eta": [0.003, 0.01, 0.03, 0.1], "layers": [2, 3, 6]},
}
SIZES = [  # features, layers, units, what grows
    (8, 1, 8, ""), (8, 6, 8, ""), (8, 6, 32, ""), (54, 6, 32, ""), (500, 6, 32, ""),
    *((54, 6, h, "units") for h in (50, 100, 200, 400)),
]  # fmt: skip
CLASSES = (3, 10, 50)


def costs() -> Iterator[Cost]:
    """By features, layers and units, and by classes."""
    for d, layers, hidden, grows in SIZES:
        yield Cost(
            operator="HedgeMLPClassifier",
            size=f"d = {d}, {layers} x {hidden}",
            make=partial(HedgeMLPClassifier, layers=layers, hidden=hidden),
            plain=partial(plain, layers=layers, hidden=hidden),
            d=d,
            wide=hidden,
            grows=grows,
            many=hidden,
            **_counts(d, layers, hidden, 2),
        )
    for K in CLASSES:
        yield Cost(
            operator="HedgeMLPClassifier",
            size=f"d = 54, 6 x 32, {K} classes",
            make=partial(HedgeMLPClassifier, layers=6, hidden=32),
            plain=partial(plain, layers=6, hidden=32, K=K),
            d=54,
            wide=32,
            classes=K,
            grows="classes",
            **_counts(54, 6, 32, K),
        )


def _counts(d: int, layers: int, h: int, K: int) -> dict[str, Any]:
    """Of each weight: forwards 2, backwards 2, its step 2. A read-out stands on every layer."""
    weights = (d + 1.0) * h + (layers - 1) * (h + 1.0) * h + K * (d + 1.0 + layers * (h + 1.0))
    return {
        "flops": 6.0 * weights,
        "bytes": 16.0 * weights,
        "spec": "6 (d h + (L - 1) h^2 + K L h)",
    }


def plain(X: F8, y: F8, layers: int, hidden: int, K: int = 2) -> None:
    """Predict and learn K classes row by row, in numpy."""
    rng, d = np.random.default_rng(0), X.shape[1]
    W = [rng.normal(size=(hidden, n)) * np.sqrt(2.0 / n) for n in [d] + [hidden] * (layers - 1)]
    b = [np.zeros(hidden) for _ in W]
    T = [np.zeros((K, 1 + n)) for n in [d] + [hidden] * layers]
    alpha = np.full(layers + 1, 1.0 / (layers + 1))
    for x, c in zip(X, y.astype(int), strict=True):
        alpha = _step(x, c, W, b, T, alpha)


def _step(x: F8, c: int, W: list[F8], b: list[F8], T: list[F8], alpha: F8) -> F8:
    """One row; the weights are changed in place, alpha is returned."""
    h = [x]
    for w, bias in zip(W, b, strict=True):
        h.append(np.maximum(w @ h[-1] + bias, 0.0))
    z = np.array([t[:, 0] + t[:, 1:] @ a for t, a in zip(T, h, strict=True)])
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    losses = np.minimum(-np.log(p[:, c]) / (2.0 * np.log(p.shape[1])), 1.0)
    e = p * alpha[:, None]
    e[:, c] -= alpha
    dz: list[F8] = [np.zeros(0)] * len(W)
    for k in range(len(W) - 1, -1, -1):
        delta = T[k + 1][:, 1:].T @ e[k + 1]
        if k < len(W) - 1:
            delta += W[k + 1].T @ dz[k + 1]
        dz[k] = delta * (h[k + 1] > 0)
    norm2 = float(sum((e[k] @ e[k]) * (1.0 + h[k] @ h[k]) for k in range(len(T))))
    norm2 += float(sum((dz[k] @ dz[k]) * (1.0 + h[k] @ h[k]) for k in range(len(W))))
    rate = 0.01 * min(1.0, 10.0 / np.sqrt(norm2)) if norm2 > 0 else 0.01
    for k, t in enumerate(T):
        t[:, 0] -= rate * e[k]
        t[:, 1:] -= np.outer(rate * e[k], h[k])
    for k in range(len(W)):
        W[k] -= np.outer(rate * dz[k], h[k])
        b[k] -= rate * dz[k]
    alpha = alpha * 0.99**losses
    alpha = np.maximum(alpha / alpha.sum(), 0.2 / len(alpha))
    return np.asarray(alpha / alpha.sum())


def tables(data: Path) -> Iterator[Table]:
    """XOR of two projections, a plane, another XOR: hedging beside fixed depths."""
    published = {"hedge": ("0.842", "0.764")}
    fixed = {"0": "0.503", "1": "0.895", "3": "0.548", "6": "0.548"}
    published |= {f"depth {k}": ("", third) for k, third in fixed.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in published}
    for seed in range(5):
        X, y = three_concepts(seed)
        for name in found:
            model = HedgeMLPClassifier(layers=6, eta=0.05, seed=seed)
            if name != "hedge":
                model = HedgeMLPClassifier(layers=6, eta=0.05, beta=1.0, floor=0.0, seed=seed)
                model.alpha_[:] = np.eye(7)[int(name[-1])]
            hits = model.run(labelled(X, y, task="classification"))["prediction"] == _codes(y)
            found[name].append((float(hits.mean()), float(hits[8000:].mean())))
    rows: list[tuple[str, ...]] = []
    for name, pairs in found.items():
        whole, third = np.median(pairs, axis=0)
        rows.append((name, published[name][0], f"{whole:.3f}", published[name][1], f"{third:.3f}"))
    head = ("network", "specified: all", "ours: all", "specified: third", "ours: third concept")
    note = "Accuracy, median of 5 seeds; 3 concepts of 4,000 rows, d = 6, 6 layers of 32, eta 0.05."
    yield Table("HedgeMLP: drift by depth", head, rows, note)


def _codes(y: F8) -> F8:
    """Class codes in the order of first appearance, as the block has them."""
    return np.asarray(y != y[0], dtype=np.float64)


def three_concepts(seed: int, n: int = 4000, d: int = 6) -> tuple[F8, F8]:
    """XOR of two orthogonal projections, a plane, another XOR."""
    rng = np.random.default_rng(seed)
    X, parts = rng.normal(size=(3 * n, d)), []
    for k in range(3):
        a, b = np.linalg.qr(rng.normal(size=(d, 2)))[0].T
        rows = X[k * n : (k + 1) * n]
        parts.append(rows @ a > 0 if k == 1 else (rows @ a > 0) ^ (rows @ b > 0))
    return X, np.concatenate(parts).astype(np.float64)
