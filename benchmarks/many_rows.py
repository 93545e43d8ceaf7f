"""Wide heads after a million rows, against the closed form: `python -m benchmarks.many_rows [n]`.

Rank-one updates that wait must not let rounding grow. With forgetting and with drift, at 64 and 500
coordinates: the matrix is symmetric to the last bit, positive definite (by Cholesky), and this far
from its closed form, relative to its largest entry. What is older than the newest rows has no digit
left in the closed form:

least squares: the inverse of sum lam^age f f' + ridge lam^(lessons since the refresh) I;
Kalman: the last 5,000 steps of A <- (g^2 A + (1 - g^2) I), less u u' / S, from the prior.
"""

import sys
import time

import numpy as np

from streamlearn.block import F8
from streamlearn.jit import rls
from streamlearn.operators import AnalyticRegressor, KalmanRegressor
from streamlearn.testing import labelled

LAM, DELTA, NOISE = 0.99, 0.01, 0.5
BLOCK = 1_000
NEWEST = 5_000  # rows of the closed form: exp(-0.01 * 5000) is 2e-22


def rows(d: int, b: int) -> tuple[F8, F8]:
    """Block b of a stream of d features, the same at each call; features of many scales."""
    rng = np.random.default_rng([7, b])
    X = rng.normal(size=(BLOCK, d)) * np.linspace(0.1, 2.0, d)
    return X, X[:, 0] - X[:, d // 2] + rng.normal(size=BLOCK)


def newest(d: int, n: int) -> F8:
    """The last features of the stream with the constant, (NEWEST or n, 1 + d)."""
    first = max(0, n - NEWEST) // BLOCK
    X = np.concatenate([rows(d, b)[0] for b in range(first, n // BLOCK)])
    return np.hstack([np.ones((len(X), 1)), X])


def least_squares(F: F8, lam: float, ridge: float) -> F8:
    """The inverse in closed form, `ridge` being what is left of it."""
    weight = lam ** np.arange(len(F))[::-1]
    return np.asarray(np.linalg.inv((F * weight[:, None]).T @ F + ridge * np.eye(F.shape[1])))


def filtered(F: F8, delta: float, noise: float) -> F8:
    """The covariance by its equations, in full, from the prior on."""
    A, keep = np.eye(F.shape[1]), np.exp(-delta)
    for f in F:
        A *= keep
        A[np.diag_indices_from(A)] += -np.expm1(-delta)
        u = A @ f
        A -= np.outer(u, u / (noise + f @ u))
    return A


def check(name: str, D: int, n: int) -> float:
    """Walk n rows; the distance from the closed form. Raises AssertionError for a bad matrix."""
    kalman = name == "KalmanRegressor"
    model = (
        KalmanRegressor(sigma2=NOISE, delta0=DELTA, lr_delta=0.0)
        if kalman
        else AnalyticRegressor(lam=LAM, ridge=1.0, max_d=D)
    )
    for b in range(n // BLOCK):
        model.run(labelled(*rows(D - 1, b)))
    assert model.factors_.shape[1] == D, "the head is not wide enough to delay"
    A = model.covariance_ if isinstance(model, KalmanRegressor) else model.inverse_
    assert np.array_equal(A, A.T), f"{name}: not symmetric"
    np.linalg.cholesky(A)
    F = newest(D - 1, n)
    left = LAM ** model.scalars_[rls.SINCE]
    exact = filtered(F, DELTA, NOISE) if kalman else least_squares(F, LAM, left)
    return float(np.abs(A - exact).max() / np.abs(exact).max())


def main() -> None:
    """Print a line for each head and width."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    for D in (64, 500):
        for name in ("KalmanRegressor", "AnalyticRegressor"):
            start = time.perf_counter()
            far = check(name, D, n)
            took = time.perf_counter() - start
            print(f"{name:18} D = {D:4}: {n:,} rows, {far:.1e} from the closed form, {took:.0f} s")


if __name__ == "__main__":
    main()
