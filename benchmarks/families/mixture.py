"""The Gaussian mixture: cost beside plain numpy, and the tables of its specification."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.families import Cost, Table, triangle
from streamlearn.block import F8
from streamlearn.jit.mixture_delayed import MEAN0
from streamlearn.operators import GaussianMixtureClassifier, GaussianMixtureRegressor
from streamlearn.testing import labelled

CANDIDATES: dict[str, dict[str, list[Any]]] = {
    "GaussianMixtureClassifier": {
        "delta": [0.0, 0.3, 1.0, 2.0],
        "beta": [0.001, 0.01, 0.1],
        "rho": [0.99, 0.995, 0.998],
        "sp_min": [1.0, 3.0],
        "eps": [0.001, 0.005, 0.02, 0.05, 0.1],
        "components": ["joint", "by_class"],
        "lr_alpha": [0.005, 0.02, 0.1],
    },
    "GaussianMixtureRegressor": {
        "delta": [0.0, 0.3, 1.0, 2.0],
        "beta": [0.001, 0.01, 0.1],
        "rho": [0.99, 0.995, 0.998],
        "sp_min": [1.0, 3.0],
        "eps": [0.001, 0.005, 0.02, 0.05, 0.1],
    },
}
SIZES = (  # features, components, what grows
    *((d, 10, "width") for d in (7, 15, 53, 127, 255, 499)),
    *((53, K, "components") for K in (10, 20, 50, 100)),
)
STREAMS = (
    ("sine_0123_abrupto", "lobo_sine_abrupt", (0.559, 0.942, 0.965, 0.964)),
    ("mixed_0101_abrupto", "lobo_mixed_abrupt", (0.536, 0.793, 0.871, 0.874)),
    ("sea_0123_abrupto_noise_0.2", "lobo_sea_abrupt", (0.776, 0.781, 0.773, 0.757)),
)
RHOS = (1.0, 0.999, 0.995, 0.99)


class Plain:
    """The same equations in numpy, all components at once: K components that only move."""

    def __init__(self, K: int, D: int, rho: float) -> None:
        self.mu, self.rho = np.zeros((K, D)), rho
        self.Lam = np.broadcast_to(np.eye(D), (K, D, D)).copy()
        self.logdet, self.sp = np.zeros(K), np.ones(K)

    def predict(self, x: F8) -> float:
        """The last coordinate from the others."""
        e = x - self.mu[:, :-1]
        s = np.matmul(self.Lam[:, :, :-1], e[:, :, None])[:, :, 0]
        T = self.Lam[:, -1, -1]
        means = self.mu[:, -1] - s[:, -1] / T
        d2 = np.einsum("jd,jd->j", e, s[:, :-1]) - s[:, -1] ** 2 / T
        p = _softmax(np.log(self.sp) - 0.5 * (self.logdet + np.log(T) + d2))
        return float(p @ means)

    def learn(self, z: F8) -> None:
        """Move all components by their share."""
        e = z - self.mu
        s = np.matmul(self.Lam, e[:, :, None])[:, :, 0]
        d2 = np.einsum("jd,jd->j", e, s)
        p = _softmax(np.log(self.sp) - 0.5 * (self.logdet + d2))
        self.sp = self.rho * self.sp + p
        w = p / self.sp
        self.mu += w[:, None] * e
        q = 1.0 + w * d2
        z = s * np.sqrt(w / q)[:, None]
        self.Lam -= z[:, :, None] * z[:, None, :]
        self.Lam /= (1.0 - w)[:, None, None]
        self.logdet += z.shape[1] * np.log1p(-w) + np.log(q)


def _softmax(log: F8) -> F8:
    p = np.exp(log - log.max())
    return np.asarray(p / p.sum())


def made(K: int, d: int) -> GaussianMixtureRegressor:
    """A regressor with K components, and no more, that all learn from every row of `costs`."""
    model = GaussianMixtureRegressor(beta=1e-9, delta=1.0, std=1.0, rho=0.9999, k_max=K, v_min=1e12)
    X = 1e3 * np.arange(1.0, K + 1.0)[:, None] * np.ones(d)
    model.run(labelled(X, np.zeros(K)))
    state = model.state()
    state.arrays["mu_"][:] = 0.1 * np.random.default_rng(K).normal(size=model.mu_.shape)
    if "anchor_" in state.arrays:  # wide enough that updates wait
        state.arrays["anchor_"][:, MEAN0, : d + 1] = state.arrays["mu_"]
    model.load(state)
    return model


def costs() -> Iterator[Cost]:
    """Regressors of K components, each of which learns from every row: nothing is skipped.

    By count, an answer and what is learnt share the product with what both see of x.
    """
    for d, K, grows in SIZES:

        def plain(X: F8, y: F8, K: int = K) -> None:
            twin = Plain(K, X.shape[1] + 1, 0.9999)
            twin.mu[:] = 0.1 * np.random.default_rng(K).normal(size=twin.mu.shape)
            for x, target in zip(X, y, strict=True):
                twin.predict(x)
                twin.learn(np.append(x, target))

        def make(K: int = K, d: int = d) -> GaussianMixtureRegressor:
            return made(K, d)

        yield Cost(
            operator="GaussianMixtureRegressor",
            size=f"d = {d}, K = {K}",
            make=make,
            plain=plain,
            d=d,
            wide=d + 1,
            grows=grows,
            many=K,
            spec="K (3 D^2 + 4 D)",
            **triangle(d + 1, 1, heads=K),
        )


def tables(data: Path) -> Iterator[Table]:
    """The drift streams of section 10: the published algorithm fails, forgetting does not."""
    rows = []
    for title, name, published in STREAMS:
        path = data / f"{name}.parquet"
        if path.exists():
            found = [_accuracy(path, rho) for rho in RHOS]
            pairs = zip(published, found, strict=True)
            rows.append((title, *(f"{a:.3f} / {b:.3f}" for a, b in pairs)))
    yield Table(
        "FIGMN: prequential accuracy under drift, first 20,000 rows, from row 200",
        ("stream", *(f"rho = {rho:g}" for rho in RHOS)),
        rows,
        "Specification / ours; beta 0.1, delta 0.3, v_min 100, sp_min 3. The streams are not all "
        "of the same draw as those of the specification.",
    )


def _accuracy(path: Path, rho: float) -> float:
    table = pq.read_table(path).slice(0, 20_000)
    names = [name for name in table.column_names if name != "class"]
    X = np.column_stack([np.asarray(table[name], dtype=np.float64) for name in names])
    block = labelled(X, np.asarray(table["class"]), task="classification")
    out = GaussianMixtureClassifier(delta=0.3, sp_min=3.0, rho=rho).run(block)["prediction"]
    right = (out == block.y)[200:]
    return float(right.mean()) if right.size else math.nan
