"""Wide heads: a rank-one update a label, by every route: `python -m benchmarks.wide`.

All routes do the same for each event, P x and then P <- P - P x (P x)' / s, 3 D^2 flops by count
(of the symmetric half), and run by turns on one core with one thread.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import blas

from benchmarks import clock
from benchmarks.tables import markdown
from streamlearn.block import F8, Block
from streamlearn.jit import delayed, symmetric
from streamlearn.jit._compile import kernel
from streamlearn.jit.products import lane_products
from streamlearn.operators import KalmanRegressor
from streamlearn.testing import labelled

TITLE = "Wide heads"
ABOUT = """\
An event of a head on D coordinates: the product of its covariance with the features, and a rank-one
update. "Plain loop" is that of `style.md` on the full matrix; "BLAS" is scipy's dsymv and dsyr;
"row by row" keeps half of the matrix in tiles and does the last update in the pass of the next
product; "delayed" is what heads do from 64 coordinates on: 24 updates wait and are folded in at
once, and the products of a block's rows share what is loaded. Shares of dgemm count 3 D^2 flops an
event; dgemm is OpenBLAS's on one thread in the same turns. The operator is `KalmanRegressor.run`,
features, answers and the learnt drift included. Processor time of the thread."""
SIZES = (128, 500, 1000)
EVENTS, ROUNDS = 96, 60
NOISE = 1.0
RATIOS = (
    ("plain loop", "row by row"),
    ("BLAS", "row by row"),
    ("row by row", "delayed"),
    ("delayed, one event a block", "delayed"),
)


# -- the routes ------------------------------------------------------------------------------------


@kernel
def plain_loop(w: F8, P: F8, X: F8, y: F8, Px: F8) -> None:
    """`kalman_update` of style.md for every row of X (n, D)."""
    D = X.shape[1]
    for t in range(X.shape[0]):
        x = X[t]
        Px[:] = 0.0
        for j in range(D):
            for i in range(D):
                Px[i] += P[j, i] * x[j]
        e, s = y[t], NOISE
        for i in range(D):
            e -= w[i] * x[i]
            s += Px[i] * x[i]
        inv_s = 1.0 / s
        for i in range(D):
            w[i] += Px[i] * inv_s * e
            for j in range(D):
                P[i, j] -= Px[i] * Px[j] * inv_s


def with_blas(w: F8, P: F8, X: F8, y: F8) -> F8:
    """The same by dsymv and dsyr on one triangle; P in Fortran's order, which is returned."""
    for t in range(len(X)):
        x = X[t]
        Px = blas.dsymv(1.0, P, x)
        s = NOISE + Px @ x
        w += Px * ((y[t] - w @ x) / s)
        P = blas.dsyr(-1.0 / s, Px, a=P, overwrite_a=1)
    return P


@kernel
def row_by_row(wu: F8, tiles: F8, X: F8, y: F8, z: F8, dots: F8) -> None:
    """The same in tiles; z the update that waits. X (n, 8 T); w and P x are rows of wu."""
    for t in range(X.shape[0]):
        symmetric.fused_product(tiles, z, X[t], wu[1])
        lane_products(wu, X[t], dots)
        s = NOISE + dots[1]
        share, root = (y[t] - dots[0]) / s, 1.0 / np.sqrt(s)
        for i in range(z.shape[0]):
            wu[0, i] += wu[1, i] * share
            z[i] = wu[1, i] * root


@kernel
def wait_and_fold(
    wu: F8, kept: tuple[F8, F8, F8], X: F8, y: F8, U: F8, scratch: F8, block: int
) -> None:
    """The same with updates that wait, in blocks of so many rows. kept = tiles, Z, counters."""
    tiles, Z, s = kept
    t = 0
    while t < X.shape[0]:
        n = min(X.shape[0] - t, block, Z.shape[1] - int(s[delayed.PENDING]))
        symmetric.products(tiles, X[t : t + n], U, n)
        for r in range(n):
            wu[1] = U[r]
            delayed.finish_product(Z, s, X[t + r], scratch, wu[1])
            lane_products(wu, X[t + r], scratch)
            S = NOISE + scratch[1]
            share = (y[t + r] - scratch[0]) / S
            for i in range(wu.shape[1]):
                wu[0, i] += wu[1, i] * share
            delayed.join(Z, s, wu[1], 1.0 / np.sqrt(S * s[delayed.SCALE]))
            if s[delayed.PENDING] == Z.shape[1]:
                delayed.fold(tiles, Z, s, wu.shape[1])
        t += n


# -- the measurement -------------------------------------------------------------------------------


def routes(D: int, n: int) -> dict[str, Callable[[], Any]]:
    """What runs by turns: n events each, and one dgemm."""
    rng = np.random.default_rng(D)
    X, y = rng.normal(size=(n, D)), rng.normal(size=n)
    wide = symmetric.aligned((n, symmetric.n_panels(D) * 8))
    wide[:, :D] = X
    full, half, tiles = np.eye(D), np.asfortranarray(np.eye(D)), symmetric.packed(np.eye(D))
    w, own = np.zeros(D), symmetric.aligned((2, wide.shape[1]))
    z = symmetric.aligned((wide.shape[1],))
    Px, U = np.empty(D), symmetric.aligned((delayed.GROUP, wide.shape[1]))
    scratch = np.empty(delayed.FACTORS)

    def waiting() -> tuple[F8, F8, F8]:
        tiles = symmetric.packed(np.eye(D))
        return tiles, delayed.no_factors(D, delayed.FACTORS), np.array([0.0, 1.0, 0.0])

    block, single, M = waiting(), waiting(), rng.normal(size=(D, D))
    heads = KalmanRegressor(delta0=0.001), KalmanRegressor(delta0=0.001)
    blocks = [labelled(X[:, 1:], y)]
    rows = [_row(blocks[0], t) for t in range(n)]
    return {
        "dgemm": lambda: M @ M,
        "plain loop": lambda: plain_loop(w, full, X, y, Px),
        "BLAS": lambda: with_blas(w, half, X, y),
        "row by row": lambda: row_by_row(own, tiles, wide, y, z, scratch),
        "delayed": lambda: wait_and_fold(own, block, wide, y, U, scratch, delayed.GROUP),
        "delayed, one event a block": lambda: wait_and_fold(own, single, wide, y, U, scratch, 1),
        "operator": lambda: [heads[0].run(block) for block in blocks],
        "operator, one event a block": lambda: [heads[1].run(row) for row in rows],
    }


def _row(block: Block, t: int) -> Block:
    """One row of a block, with its features and tables."""
    part = slice(t, t + 1)
    return block.replace(
        X=block.X[part], y=block.y[part], weight=block.weight[part], mode=block.mode[part]
    )


def measure(quick: bool) -> list[dict[str, Any]]:
    """Microseconds of an event by route: the median, and the least."""
    found = []
    for D in (65,) if quick else SIZES:
        n = 24 if quick else EVENTS
        made = routes(D, n)
        for call in made.values():
            call()  # compiled
        taken = clock.by_turns(
            {name: _timed(call) for name, call in made.items()}, 1 if quick else ROUNDS
        )
        rates = {"median": 0, "least": 1}
        row: dict[str, Any] = {"D": D}
        for which, place in rates.items():
            seconds = {name: values[place] for name, values in taken.items()}
            row[which] = {name: 1e6 * s / n for name, s in seconds.items() if name != "dgemm"}
            row[f"{which}_dgemm"] = 2e-9 * D**3 / seconds["dgemm"]
        found.append(row)
    return found


def _timed(call: Callable[[], Any]) -> Callable[[], float]:
    def run() -> float:
        start = time.thread_time()
        call()
        return time.thread_time() - start

    return run


def tables(measured: list[dict[str, Any]]) -> list[str]:
    """Microseconds, and what they are of each other; of the least, as other load only adds."""
    head = ["microseconds an event", *(f"D = {row['D']}" for row in measured)]
    names = list(measured[0]["least"])
    body = [[name, *(f"{row['least'][name]:.3g}" for row in measured)] for name in names]
    shares = [
        [
            f"{one} / {other}",
            *(f"{row['least'][one] / row['least'][other]:.2f}" for row in measured),
        ]
        for one, other in RATIOS
    ]
    shares += [
        [f"{name}, of dgemm", *(f"{_share(row, name):.2f}" for row in measured)]
        for name in ("delayed", "operator")
    ]
    dgemm = ["dgemm, Gflop/s", *(f"{row['least_dgemm']:.0f}" for row in measured)]
    return [markdown(head, body), markdown(["ratio", *head[1:]], [*shares, dgemm])]


def _share(row: dict[str, Any], name: str) -> float:
    """Of the rate of dgemm, counting 3 D^2 flops an event."""
    return float(3e-3 * row["D"] ** 2 / row["least"][name] / row["least_dgemm"])


def main() -> None:
    """Print the tables."""
    print("\n\n".join(tables(measure(quick=False))))


if __name__ == "__main__":
    main()
