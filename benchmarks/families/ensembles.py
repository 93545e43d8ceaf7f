"""Ensembles: the mixture's kernel in plain numpy, bagging beside River's, the switch of OneNet."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from river import ensemble as river
from river import tree

from benchmarks.families import Cost, Table
from streamlearn.block import F8, Block, Columns
from streamlearn.operators import (
    ADWINBaggingClassifier,
    ExpertMixtureClassifier,
    ExpertMixtureRegressor,
    OnlineBaggingClassifier,
)
from streamlearn.operators._base import Classifier, Regressor
from streamlearn.testing import labelled

CANDIDATES: dict[str, dict[str, list[Any]]] = {
    "ExpertMixtureClassifier": {
        "mixing": ["eg", "log_score"],
        "eta": [0.1, 0.25, 0.5, 1.0, 2.0],
        "share": [0.001, 0.003, 0.01, 0.03],
        "lr_alpha": [0.0, 0.005, 0.02, 0.05],
    },
    "ExpertMixtureRegressor": {
        "mixing": ["eg", "log_score"],
        "eta": [0.1, 0.25, 0.5, 1.0, 2.0],
        "share": [0.001, 0.01, 0.03],
    },
    "OnlineBaggingClassifier": {"lam": [1.0, 6.0], "n": [5, 10, 20]},
}


class Believes(Classifier):
    """An expert whose probabilities of two classes come from one feature, at no cost."""

    def __init__(self, j: int) -> None:
        self.j = j

    def _run(self, block: Block) -> Columns:
        p = 1.0 / (1.0 + np.exp(-np.clip(block.X[:, self.j], -30.0, 30.0)))
        return {"prediction": (p > 0.5).astype(np.float64), "proba": np.column_stack([1.0 - p, p])}


class Says(Regressor):
    """An expert that says a feature."""

    def __init__(self, j: int) -> None:
        self.j = j

    def _run(self, block: Block) -> Columns:
        return {"prediction": block.X[:, self.j].copy()}


def costs() -> Iterator[Cost]:
    """The mixing alone, by experts: members that cost next to nothing."""
    for J in (2, 8, 32, 128):
        yield Cost(
            operator="ExpertMixtureClassifier",
            size=f"{J} free experts",
            make=partial(_mixture, J),
            plain=partial(plain, J=J),
            d=J,
            wide=J,
            grows="experts",
            many=J,
            flops=14.0 * J,  # of two classes: mixing 4, losses 3, weights 7
            bytes=64.0 * J,
            spec="14 J",
        )


def _mixture(J: int) -> ExpertMixtureClassifier:
    return ExpertMixtureClassifier([Believes(j) for j in range(J)])


def plain(X: F8, y: F8, J: int) -> None:
    """Mix and learn row by row, in numpy: the same equations."""
    u, running, log_alpha = np.full(J, 1.0 / J), np.zeros(J), 0.0
    for t, (x, c) in enumerate(zip(X, y.astype(int), strict=True)):
        p = 1.0 / (1.0 + np.exp(-np.clip(x[:J], -30.0, 30.0)))
        P = np.column_stack([1.0 - p, p])
        mixed = u @ P
        mixed = mixed ** np.exp(log_alpha)
        mixed /= mixed.sum()
        logs = np.log(mixed)
        log_alpha += 0.02 * max(logs[c] - mixed @ logs, -20.0)
        losses = -np.log(np.maximum(P[:, c], 1e-3))
        running += max(0.01, 1.0 / (t + 1)) * (losses - running)
        scaled = np.minimum(losses / max(running.mean(), 0.01), 10.0)
        u = u * np.exp(-0.5 * (scaled - scaled.min()))
        u = 0.999 * u / u.sum() + 0.001 / J


def tables(data: Path) -> Iterator[Table]:
    """The slow switch of OneNet's specification; bagging beside River's on a turning plane."""
    yield _switch()
    yield _bags()


def _switch() -> Table:
    swapped = (np.arange(2000) // 50) % 2 == 1
    losses = np.where(swapped[:, None], [0.9, 0.1], [0.1, 0.9])
    rows: list[tuple[str, ...]] = []
    for eta, share, published in ((0.05, 0.0, "0.502"), (5.0, 0.01, "0.132")):
        experts: list[Any] = [Says(0), Says(1)]
        model = ExpertMixtureRegressor(experts, eta=eta, share=share, scale_losses=False)
        block, paid = labelled(np.sqrt(losses), np.zeros(2000)), []
        for t in range(2000):
            paid.append(float(model.weights_[0] @ losses[t]))
            model.run(block.rows(t, t + 1))
        rows.append((f"{eta:g}", f"{share:g}", published, f"{np.mean(paid):.3f}"))
    note = "Mean weighted loss; losses 0.1 / 0.9 swap every 50 of 2,000 labels."
    return Table("OneNet: a slow switch", ("eta", "fixed share", "specified", "ours"), rows, note)


def _bags() -> Table:
    rng = np.random.default_rng(0)
    n = 4000
    X = rng.normal(size=(n, 4))
    y = np.asarray((X[:, 0] + X[:, 1] * X[:, 2] > 0) ^ (np.arange(n) // 1000 % 2 == 1))
    block = labelled(X, y.astype(int).tolist(), task="classification")
    leaf = tree.HoeffdingTreeClassifier
    rows: list[tuple[str, ...]] = []
    for name, model in (
        ("River BaggingClassifier", river.BaggingClassifier(leaf(), n_models=10, seed=0)),
        ("River ADWINBaggingClassifier", river.ADWINBaggingClassifier(leaf(), 10, seed=0)),
        ("OnlineBagging of trees", OnlineBaggingClassifier(leaf(), lam=1.0)),
        ("ADWINBagging of trees", ADWINBaggingClassifier(leaf(), lam=1.0)),
        ("OnlineBagging of Kalman heads", OnlineBaggingClassifier()),
        ("ADWINBagging of Kalman heads", ADWINBaggingClassifier()),
    ):
        start = time.perf_counter()
        right = _of_river(model, X, y) if hasattr(model, "models") else _of_ours(model, block)
        spent = (time.perf_counter() - start) / n * 1e6
        rows.append((name, f"{right:.3f}", f"{spent:.0f}"))
    note = (
        "A curved boundary that turns round every 1,000 of 4,000 rows; ten members, lam 1 of trees."
    )
    return Table("Bagging beside River's", ("ensemble", "accuracy", "us an event"), rows, note)


def _of_river(model: Any, X: F8, y: Any) -> float:
    right = 0
    for x, label in zip(X.tolist(), y.tolist(), strict=True):
        row = dict(zip("abcd", x, strict=True))
        right += model.predict_one(row) == label
        model.learn_one(row, label)
    return right / len(y)


def _of_ours(model: Any, block: Block) -> float:
    return float(np.mean(model.run(block)["prediction"] == block.y))
