"""A Gaussian mixture on images, by every route: `python -m benchmarks.image_mixture`."""

import math
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from benchmarks import clock, rates
from benchmarks.tables import markdown
from streamlearn.block import F8
from streamlearn.operators import GaussianMixtureAnomalyScorer
from streamlearn.testing import block_of

TITLE = "Gaussian mixture on images"
ABOUT = """\
A stream of synthetic digits, drawn strokes with noise, of 10 by 10 to 28 by 28 pixels, and an
incremental mixture with a component for each way in which a digit is written: every image is scored
by all components, then learnt. "Covariance form" is the mixture before Pinto and Engel's paper,
each component's covariance factored for every image by LAPACK (D^3 a component); "at once" is the
paper's rank-one update of precisions, in compiled loops (D^2); "delayed" is what mixtures of 64
coordinates or more do: half a matrix is read once for 24 images, updates wait. One thread, the
least of several turns, as other load only adds; processor time. dgemm is OpenBLAS's on one thread
in the same turns; a share of it counts the 2 D^2 flops of each component's product. "Difference" is
the largest between the scores of the covariance form and of the delayed one, in nats."""
SIDES = (10, 14, 20, 28)
STYLES = 1, 5  # ways of writing each digit: 10 and 50 components
NOISE = 0.3
ROUTES = "covariance form", "at once", "delayed", "delayed, one image a block"


def images(n: int, side: int, styles: int) -> F8:
    """(n, side^2) images; the first 10 styles of them show each way of writing once."""
    rng = np.random.default_rng(28)
    across = np.linspace(0.0, 1.0, side)
    drawn = []
    for _ in range(10 * styles):
        knots = rng.random((4, 2))
        path = np.concatenate([np.linspace(a, b, 12) for a, b in pairwise(knots)])
        near = (across[:, None, None] - path[:, 0]) ** 2 + (across[None, :, None] - path[:, 1]) ** 2
        drawn.append(np.exp(-near.min(axis=2) / 0.004).ravel())
    kind = np.concatenate([np.arange(10 * styles), rng.integers(0, 10 * styles, n)])[:n]
    return np.stack(drawn)[kind] + NOISE * rng.normal(size=(n, side * side))


class CovarianceForm:
    """The same mixture with covariances, each factored for every image."""

    def __init__(self, Z: F8) -> None:
        K, D = Z.shape
        self.mu, self.sp = Z.copy(), np.ones(K)
        self.C = np.broadcast_to(NOISE**2 * np.eye(D), (K, D, D)).copy()

    def run(self, Z: F8) -> F8:
        """Minus the log density of each image, which is then learnt by the nearest components."""
        return np.array([self._step(z) for z in Z])

    def _step(self, z: F8) -> float:
        K, D = self.mu.shape
        log, e = np.empty(K), z - self.mu
        for j in range(K):
            factor = cho_factor(self.C[j], lower=True, check_finite=False)
            logdet = 2.0 * np.log(np.diag(factor[0])).sum()
            d2 = e[j] @ cho_solve(factor, e[j], check_finite=False)
            log[j] = math.log(self.sp[j]) - 0.5 * (logdet + d2)
        top = log.max()
        p = np.exp(log - top)
        score = 0.5 * D * math.log(2.0 * math.pi) - top - math.log(p.sum() / self.sp.sum())
        p /= p.sum()
        for j in np.flatnonzero(p >= 1e-12):
            self.sp[j] += p[j]
            w = p[j] / self.sp[j]
            self.mu[j] += w * e[j]
            self.C[j] *= 1.0 - w
            self.C[j] += w * (1.0 - w) * np.outer(e[j], e[j])
        return score


class _AtOnce(GaussianMixtureAnomalyScorer):
    """Updates never wait."""

    _large = 10**9


class _Delayed(GaussianMixtureAnomalyScorer):
    """Updates wait at every size."""

    _large = 2


def made(kind: type[GaussianMixtureAnomalyScorer], Z: F8) -> GaussianMixtureAnomalyScorer:
    """A mixture with these images for components, and no more."""
    given: dict[str, Any] = {"std": NOISE, "delta": 1.0, "beta": 0.1, "eps": 0.0, "rho": 1.0}
    model = kind(k_max=len(Z), v_min=1e12, **given)
    model.run(block_of(Z))
    return model


def routes(side: int, styles: int, n: int, few: int) -> dict[str, tuple[int, Callable[[], Any]]]:
    """How many images each takes, and a call that walks them; covariances take `few`."""
    K = 10 * styles
    Z = images(K + n, side, styles)
    first, rest = Z[:K], Z[K:]
    block, rows = block_of(rest), [block_of(rest[t : t + 1]) for t in range(few)]
    one, at_once, delayed = made(_Delayed, first), made(_AtOnce, first), made(_Delayed, first)
    covariances = CovarianceForm(first)
    short = block_of(rest[: 4 * few])
    M = np.random.default_rng(0).normal(size=(512, 512))
    return {
        "dgemm": (1, lambda: M @ M),
        ROUTES[0]: (few, lambda: covariances.run(rest[:few])),
        ROUTES[1]: (4 * few, lambda: at_once.run(short)),
        ROUTES[2]: (n, lambda: delayed.run(block)),
        ROUTES[3]: (few, lambda: [one.run(row) for row in rows]),
    }


def measure(quick: bool) -> dict[str, Any]:
    """Images a second by side, components and route, and what dgemm reaches."""
    found: dict[str, Any] = {"rows": []}
    for styles in STYLES[: 1 if quick else 2]:
        for side in (6,) if quick else SIDES if styles == 1 else SIDES[-1:]:
            calls = routes(side, styles, 24 if quick else 96, 2)
            for name, (_, call) in calls.items():
                if name in ROUTES[1:]:
                    call()  # compiled
            contestants = {name: _seconds(n, call) for name, (n, call) in calls.items()}
            taken = clock.by_turns(contestants, 1 if quick else 5)
            rate = {name: 1.0 / least for name, (_, least, _) in taken.items()}
            gflops = 2e-9 * 512**3 * rate.pop("dgemm")
            row = {"D": side * side, "K": 10 * styles, "images_a_second": rate}
            row |= {"dgemm_gflops": gflops, "difference": _difference(side, styles)}
            found["rows"].append(row)
    return found


def _difference(side: int, styles: int) -> float:
    """Of the scores of the first images: of the covariance form less the delayed one."""
    Z = images(10 * styles + 3, side, styles)
    first, rest = Z[:-3], Z[-3:]
    delayed = made(_Delayed, first).run(block_of(rest))["score"]
    return float(np.abs(CovarianceForm(first).run(rest) - delayed).max())


def _seconds(n: int, call: Callable[[], Any]) -> Callable[[], float]:
    def run() -> float:
        start = time.thread_time()
        call()
        return (time.thread_time() - start) / n

    return run


def tables(measured: dict[str, Any]) -> list[str]:
    """Images a second; what each step gains; how the cost grows with D."""
    head = ["images a second", *(f"D = {row['D']}, K = {row['K']}" for row in measured["rows"])]
    rates_of = [row["images_a_second"] for row in measured["rows"]]
    body = [[name, *(f"{rate[name]:,.3g}" for rate in rates_of)] for name in ROUTES]
    for name, other in zip(ROUTES[1:3], ROUTES[:2], strict=True):
        gains = [f"{rate[name] / rate[other]:.1f}" for rate in rates_of]
        body.append([f"{name} / {other}", *gains])
    body.append(["delayed, of dgemm", *(f"{share:.2f}" for share in _shares(measured))])
    body.append(["dgemm, Gflop/s", *(f"{row['dgemm_gflops']:.0f}" for row in measured["rows"])])
    body.append(["difference, nats", *(f"{row['difference']:.1e}" for row in measured["rows"])])
    grown = [[name, f"{_exponent(measured, name):.2f}"] for name in ROUTES]
    return [markdown(head, body), markdown(["time an image by D > 128, K = 10", "exponent"], grown)]


def _shares(measured: dict[str, Any]) -> list[float]:
    """Of the rate of dgemm, counting a product for each component."""
    return [
        2e-9 * row["D"] ** 2 * row["K"] * row["images_a_second"]["delayed"] / row["dgemm_gflops"]
        for row in measured["rows"]
    ]


def _exponent(measured: dict[str, Any], name: str) -> float:
    rows = [row for row in measured["rows"] if row["K"] == 10 and row["D"] > 128]
    return rates.exponent([(row["D"], 1.0 / row["images_a_second"][name]) for row in rows])


def main() -> None:
    """Print the tables."""
    print("\n\n".join(tables(measure(quick=False))))


if __name__ == "__main__":
    main()
