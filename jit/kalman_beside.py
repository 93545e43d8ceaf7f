"""Kalman heads side by side: the members of an ensemble walk a block in one call a thread.

Letters as in `jit.kalman`. J heads on the same rows, each with its state in a record of its own, a
row of R (J, size):
    m (K, D) | A (D, D) | outputs (3, K) | s (N_SCALARS,) | inputs (2, d) | settings (N_SETTINGS,)
one behind the other, d = D - 1. Records begin on cache lines of their own, for what two threads
write on one line costs each of them as much again as an event.

A walker takes, C-contiguous and float64 unless said:
    rows    = X (1 or J, n, d) | y (n, 1 or K) | weight (n,) | mode (n,) uint8
    draws   = keys (J,) uint64 | events (n,) int64 | cumulative (m,), as `ensemble.bag_weights`
    scratch = of this thread: weights (n,) | codes (n,) int64 | F (ROWS, D) | work (5, max(D, K))
              | W (0, 0)
    marks   = taken (1,) int64, 0 | bad (J,) int64, written: of each head the row with a bad weight,
              where it then has learnt nothing, or -1; both shared by threads
    out     = answer (J, n, K) | side (J, n, 1 or K)
"""

from streamlearn.jit._compile import F8, I8, U1, kernel, part
from streamlearn.jit.claim import claim
from streamlearn.jit.ensemble import bag_weights
from streamlearn.jit.kalman import N_SCALARS, N_SETTINGS, walk_standard
from streamlearn.jit.lift import bad_weight, lift_linear

ROWS = 256  # that are lifted at a time: their features stay in the cache until they are walked

Rows = tuple[F8, F8, F8, U1]
Draws = tuple[I8, I8, F8]
Scratch = tuple[F8, I8, F8, F8, F8]
Parts = tuple[F8, F8, F8, F8, F8, F8]


def record_size(K: int, D: int) -> int:
    """Numbers in the record of a head with K outputs on D features."""
    return K * D + D * D + 3 * K + N_SCALARS + 2 * (D - 1) + N_SETTINGS


def parts_of_body(record: F8, K: int, D: int) -> Parts:
    """The arrays that a record holds, as views, in its order; see the top of this file."""
    A = K * D
    outputs = A + D * D
    s = outputs + 3 * K
    inputs = s + N_SCALARS
    p = inputs + 2 * (D - 1)
    return (
        record[:A].reshape(K, D),
        record[A:outputs].reshape(D, D),
        record[outputs:s].reshape(3, K),
        record[s:inputs],
        record[inputs:p].reshape(2, D - 1),
        record[p : p + N_SETTINGS],
    )


parts_of = part(parts_of_body)


@part
def walk_head(
    rows: Rows, record: F8, scratch: Scratch, out: tuple[F8, F8], targets: bool | None
) -> None:
    """Lift and walk the rows of a block by one head, some at a time. X (n, d), out of this head."""
    X, y, weight, mode = rows
    _, codes, F, work, W = scratch
    answer, side = out
    K, D = answer.shape[1], F.shape[1]
    m, A, outputs, s, inputs, p = parts_of(record, K, D)
    for a in range(0, mode.shape[0], ROWS):
        b = min(a + ROWS, mode.shape[0])
        f, c, of = F[: b - a], codes[: b - a], (y[a:b], weight[a:b], mode[a:b])
        lift_linear((X[a:b], *of), inputs, s, p, W, f, c, K if targets is None else 0)
        given = answer[a:b], side[a:b]
        walk_standard((f, c, *of), (m, A, outputs, s), (p, work), given, targets, None)


@kernel
def walk_beside(
    rows: Rows, draws: Draws, R: F8, scratch: Scratch, marks: tuple[I8, I8],
    out: tuple[F8, F8], targets: bool | None,
) -> None:  # fmt: skip
    """Walk a block by one head after the other, those that no other thread has taken.

    The weights of each are the block's times its draws. O(J n (D^2 + K D)) for all threads
    together, allocates nothing.
    """
    X, y, weight, mode = rows
    keys, events, cumulative = draws
    taken, bad = marks
    own = scratch[0]
    j = claim(taken)
    while j < R.shape[0]:
        bag_weights(keys[j], events, cumulative, weight, own)
        bad[j] = bad_weight(own)
        if bad[j] < 0:
            seen = X[min(j, X.shape[0] - 1)], y, own, mode
            walk_head(seen, R[j], scratch, (out[0][j], out[1][j]), targets)
        j = claim(taken)
