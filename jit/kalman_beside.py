"""Kalman heads side by side: the members of an ensemble walk a block in one call a thread.

Letters as in `jit.kalman`. J heads on the same rows, each with its state in a record of its own, a
row of R (J, size):
    m (K, D) | A (D, D) | outputs (3, K) | s (N_SCALARS,) | inputs (2, d) | settings (N_SETTINGS,)
one behind the other, d = D - 1. Records begin on cache lines of their own, for what two threads
write on one line costs each of them as much again as an event.

A walker takes, C-contiguous and float64 unless said:
    rows    = X (1 or J, n, d) | y (n, 1 or K) | weight (n,) | mode (n,) uint8
    draws   = keys (J,) uint64 | events (n,) int64 | cumulative (m,), as `ensemble.bag_weights`
              | drawn (J, n), written: the weights of each head
    scratch = of this thread: codes (ROWS,) int64 | F (ROWS, D) | work (5, max(D, K)) | W (0, 0)
    marks   = taken (J,) int64, 1 while a thread has the head | done (J,) int64, its rows walked
              | bad (J,) int64, written: the row of a bad weight, where the head then has learnt
              nothing, or -1; the first two 0 at the start, all shared by threads
    out     = answer (J, n, K) | side (J, n, 1 or K)
"""

from streamlearn.jit._compile import F8, I8, U1, kernel, part
from streamlearn.jit.claim import exchange
from streamlearn.jit.ensemble import bag_weights
from streamlearn.jit.kalman import N_SCALARS, N_SETTINGS, walk_standard
from streamlearn.jit.lift import bad_weight, lift_linear

# that are lifted and walked at a time: their features stay in the cache, and threads end together
ROWS = 128

Rows = tuple[F8, F8, F8, U1]
Draws = tuple[I8, I8, F8, F8]
Scratch = tuple[I8, F8, F8, F8]
Marks = tuple[I8, I8, I8]
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
    rows: Rows, a: int, b: int, record: F8, scratch: Scratch, out: tuple[F8, F8],
    targets: bool | None,
) -> None:  # fmt: skip
    """Lift and walk rows a to b by one head. X (n, d), out of this head."""
    X, y, weight, mode = rows
    codes, F, work, W = scratch
    answer, side = out
    K, D = answer.shape[1], F.shape[1]
    m, A, outputs, s, inputs, p = parts_of(record, K, D)
    f, c, of = F[: b - a], codes[: b - a], (y[a:b], weight[a:b], mode[a:b])
    lift_linear((X[a:b], *of), inputs, s, p, W, f, c, K if targets is None else 0)
    given = answer[a:b], side[a:b]
    walk_standard((f, c, *of), (m, A, outputs, s), (p, work), given, targets, None)


@part
def next_head(taken: I8, done: I8, n: int) -> int:
    """Take the head that is furthest behind of those that no thread has; -1 where none is left.

    None waits for another: a head that is taken goes on with who has it. O(J).
    """
    while True:
        best, least = -1, n
        for j in range(done.shape[0]):
            if taken[j] == 0 and done[j] < least:
                best, least = j, done[j]
        if best < 0:
            return -1
        if exchange(taken, best, 1) == 0:
            if done[best] < n:
                return best
            exchange(taken, best, 0)  # another has ended it meanwhile


@kernel
def walk_beside(
    rows: Rows, draws: Draws, R: F8, scratch: Scratch, marks: Marks,
    out: tuple[F8, F8], targets: bool | None,
) -> None:  # fmt: skip
    """Walk a block by all heads, some rows of one after some of another, with other threads.

    The weights of each are the block's times its draws. O(J n (D^2 + K D)) for all threads
    together, allocates nothing.
    """
    X, y, weight, mode = rows
    keys, events, cumulative, drawn = draws
    taken, done, bad = marks
    n = mode.shape[0]
    j = next_head(taken, done, n)
    while j >= 0:
        a = done[j]
        if a == 0:
            bag_weights(keys[j], events, cumulative, weight, drawn[j])
            bad[j] = bad_weight(drawn[j])
        if bad[j] < 0:
            b = min(a + ROWS, n)
            own = X[min(j, X.shape[0] - 1)], y, drawn[j], mode
            walk_head(own, a, b, R[j], scratch, (out[0][j], out[1][j]), targets)
            done[j] = b
        else:
            done[j] = n
        exchange(taken, j, 0)
        j = next_head(taken, done, n)
