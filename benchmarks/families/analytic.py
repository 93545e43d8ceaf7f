"""Analytic heads: cost by width beside numpy."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.families import Cost, triangle
from streamlearn.block import F8
from streamlearn.operators import AnalyticClassifier

CANDIDATES: dict[str, dict[str, list[Any]]] = {
    "AnalyticClassifier": {
        "ridge": [0.01, 1.0],
        "lam": [0.99, 0.998, 0.999],
        "alpha0": [2.0, 4.0, 8.0],
        "lr_alpha": [0.005, 0.01, 0.02],
    },
    "AnalyticRegressor": {"ridge": [0.01, 1.0], "lam": [0.99, 0.998, 0.999]},
}


class Plain:
    """The same equations in numpy, a row at a time, the ridge given back in time."""

    def __init__(self, d: int, K: int = 2, lam: float = 0.995, ridge: float = 0.1) -> None:
        self.D, self.lam, self.ridge, self.n = 1 + d, lam, ridge, 0
        self.P, self.W = np.eye(self.D) / ridge, np.zeros((K, self.D))
        self.f = np.ones(self.D)
        self.every = max(round(1.0 / (1.0 - lam)), self.D)

    def walk(self, X: F8, y: F8) -> None:
        """Predict and learn every row."""
        f, lam = self.f, self.lam
        for x, c in zip(X, y.astype(int).tolist(), strict=True):
            f[1:] = x
            o = self.W @ f
            e = np.exp(4.0 * (o - o.max()))
            e /= e.sum()
            u = self.P @ f
            o *= -1.0
            o[c] += 1.0
            S = lam + f @ u
            self.W += np.outer(o, u / S)
            z = u / np.sqrt(S)
            self.P -= np.outer(z, z)  # symmetric to the last bit, or the inverse below is lost
            self.P /= lam
            self.n += 1
            if self.n % self.every == 0:
                A = np.linalg.inv(self.P)
                b = self.W @ A
                A[np.diag_indices(self.D)] += self.ridge * (1.0 - lam**self.every)
                P = np.linalg.inv(A)
                self.P = 0.5 * (P + P.T)  # what is not symmetric grows by 1 / lam a row
                self.W = b @ self.P


def costs() -> Iterator[Cost]:
    """Widths of the issue, and many classes.

    By count, the ridge is given back by two inverses, D^3 each, every `period` rows.
    """
    widths = [(d, 2, "width") for d in (8, 54, 128, 256, 500, 1000)]
    for d, K, grows in (*widths, (54, 10, "classes"), (54, 50, "classes"), (54, 200, "classes")):
        size = f"d = {d}" + (f", {K} classes" if K > 2 else "")
        D, twin = 1 + d, Plain(d, K).walk
        period, counts = max(200, D), triangle(D, K)
        counts["flops"] += 2.0 * D**3 / period
        yield Cost(
            "AnalyticClassifier", size, AnalyticClassifier, twin, d, D, K, grows,
            spec="3 D^2 + 2 D^3 / max(200, D) + 4 K D", period=period, **counts,
        )  # fmt: skip
