"""Recursive least squares with an exact ridge, and exact removal of rows, by which a window slides.

Letters and tuples as in `rls`. Every REFRESH lessons the ridge that has faded is given back. A row
that was learnt with weight w, now faded to v, leaves by P <- P + u u' / (1 / v - h),
W <- W - u e' / (1 / v - h), e its errors by the weights of now.
"""

import math

from streamlearn.jit import lift
from streamlearn.jit._compile import F8, I8, kernel, part
from streamlearn.jit.products import row_products, symmetric_product
from streamlearn.jit.rls import (
    HEAVIEST,
    LAM,
    MORE,
    NU,
    REFRESH,
    RIDGE,
    SAMPLES,
    SINCE,
    Fixed,
    Out,
    Rows,
    State,
    U,
    Y,
    correct,
    leverage,
    restart,
    take,
)

_PANEL = 64
_NEVER_LEARNT = 1e-8  # of 1 - v h, below which a removal leaves no digit

Ring = tuple[F8, F8, F8]


# -- the ridge -------------------------------------------------------------------------------------


@part
def upper_factor(B: F8) -> None:
    """The upper triangle of B <- U, B = U'U, B positive definite. Row by row, O(D^3)."""
    D = B.shape[0]
    for k in range(D):
        root = math.sqrt(B[k, k])
        for j in range(k, D):
            B[k, j] /= root
        for i in range(k + 1, D):
            for j in range(i, D):
                B[i, j] -= B[k, i] * B[k, j]


@part
def solve_columns(U: F8, X: F8, first: int, last: int) -> None:
    """X <- (U'U)^-1 X in these columns of X (D, m): all of them at once, row by row."""
    D = U.shape[0]
    for k in range(D):
        for j in range(first, last):
            X[k, j] /= U[k, k]
        for i in range(k + 1, D):
            for j in range(first, last):
                X[i, j] -= U[k, i] * X[k, j]
    for i in range(D - 1, -1, -1):
        for k in range(i + 1, D):
            for j in range(first, last):
                X[i, j] -= U[i, k] * X[k, j]
        for j in range(first, last):
            X[i, j] /= U[i, i]


@part
def solve_row(U: F8, x: F8) -> None:
    """x <- (U'U)^-1 x, x (D,). O(D^2)."""
    D = U.shape[0]
    for k in range(D):
        x[k] /= U[k, k]
        for i in range(k + 1, D):
            x[i] -= U[k, i] * x[k]
    for i in range(D - 1, -1, -1):
        for k in range(i + 1, D):
            x[i] -= U[i, k] * x[k]
        x[i] /= U[i, i]


@kernel
def refresh(W: F8, P: F8, B: F8, extra: float) -> None:
    """R <- R + extra I, while R W stays: P <- (I + extra P)^-1 P, W likewise. B (D, D) scratch.

    Nothing is inverted that may be singular: the eigenvalues of I + extra P are at least 1. O(D^3).
    """
    D = P.shape[0]
    for i in range(D):
        for j in range(D):
            B[i, j] = extra * P[i, j]
        B[i, i] += 1.0
    upper_factor(B)
    for first in range(0, D, _PANEL):  # as many columns as stay in the cache
        solve_columns(B, P, first, min(first + _PANEL, D))
    for i in range(D):
        for j in range(i):
            P[i, j] = P[j, i] = 0.5 * (P[i, j] + P[j, i])
    for k in range(W.shape[0]):
        solve_row(B, W[k])


@part
def renew(state: State, fixed: Fixed) -> None:
    """Count a lesson of the refresh; when it is due, give the ridge back what has faded.

    Not more often than every D lessons, so that a lesson costs O(D^2) on the average.
    """
    W, P, _, s = state
    p, work, _ = fixed
    D = P.shape[0]
    s[SINCE] += 1.0
    if p[REFRESH] > 0.0 and s[SINCE] >= max(p[REFRESH], D):
        extra = p[RIDGE] * (1.0 - p[LAM] ** s[SINCE])
        refresh(W, P, work[MORE : MORE + D, :D], extra)
        s[SINCE] = 0.0


@kernel
def walk_refreshed(rows: Rows, state: State, fixed: Fixed, out: Out, targets: bool | None) -> None:
    """As `rls.walk`, with the ridge refreshed."""
    for t in range(rows[0].shape[0]):
        if take(t, rows, state, fixed, out, targets) > 0.0:
            renew(state, fixed)


# -- removal ---------------------------------------------------------------------------------------


@part
def errors_of(f: F8, label: F8, state: State, work: F8, classify: bool) -> None:
    """Targets of a row, and W f, into work. label (1,) a class, or (K,) targets. O(K D)."""
    W, _, outputs, _ = state
    row_products(W, f, work[NU])
    for k in range(W.shape[0]):
        if classify:
            work[Y, k] = 1.0 if k == int(label[0]) else 0.0
        else:
            work[Y, k] = label[k] - outputs[1, k]


@part
def remove(f: F8, v: float, state: State, work: F8) -> bool:
    """Take a row of weight v out again; errors_of has been asked. O(D^2 + K D).

    False, and nothing is changed, if it cannot have been learnt.
    """
    W, P, _, _ = state
    D = P.shape[0]
    u = work[U, :D]
    symmetric_product(P, f, u)
    h = leverage(f, u)
    if not 1.0 - v * h >= _NEVER_LEARNT:
        return False
    S = 1.0 / v - h
    correct(W, work, u, -S)
    for i in range(D):
        ui = u[i]
        for j in range(D):
            P[i, j] += ui * u[j] / S
    return True


@part
def put(f: F8, v: float, state: State, fixed: Fixed) -> None:
    """Learn a row of weight v without forgetting; errors_of has been asked. O(D^2 + K D)."""
    W, P, _, _ = state
    work = fixed[1]
    D = P.shape[0]
    u = work[U, :D]
    symmetric_product(P, f, u)
    S = 1.0 / v + leverage(f, u)
    correct(W, work, u, S)
    for i in range(D):
        ui = u[i]
        for j in range(D):
            P[i, j] -= ui * u[j] / S


@kernel
def forget_rows(
    F: F8, codes: I8, y: F8, weight: F8, state: State, fixed: Fixed, classify: bool
) -> int:
    """Take rows out in turn. Returns -1, or the row that cannot have been learnt, with the rest."""
    _, _, outputs, s = state
    for t in range(F.shape[0]):
        v = min(weight[t], HEAVIEST)
        if not v > 0.0:
            continue
        c = codes[t]
        if c < 0 and c != lift.TARGET:
            return t
        errors_of(F[t], y[t], state, fixed[1], classify)
        if not remove(F[t], v, state, fixed[1]):
            return t
        k = c if classify else 0
        last = k + 1 if classify else outputs.shape[1]
        for j in range(k, last):
            outputs[0, j] = max(outputs[0, j] - v, 0.0)
        s[SAMPLES] -= 1.0
    return -1


@part
def relearn(ring: Ring, state: State, fixed: Fixed, classify: bool) -> None:
    """W and P from the rows of the ring alone, with the weights of now: no rounding is left over.

    O(D^2) for each of them, which are as many as the lessons between two times.
    """
    W, P, _, s = state
    p, work, _ = fixed
    size = ring[0].shape[0]
    restart(P, p[RIDGE])
    for k in range(W.shape[0]):
        for i in range(W.shape[1]):
            W[k, i] = 0.0
    last = int(s[SAMPLES]) - 1
    fade = 1.0
    for age in range(min(size, last + 1)):
        at = (last - age) % size
        v = ring[2][at, 0] * fade
        fade *= p[LAM]
        if v > 0.0:
            errors_of(ring[0][at], ring[1][at], state, work, classify)
            put(ring[0][at], v, state, fixed)
    s[SINCE] = 0.0


@part
def slide(t: int, w: float, rows: Rows, ring: Ring, state: State, fixed: Fixed,
          classify: bool) -> None:  # fmt: skip
    """After lesson t: the oldest row of the ring leaves, this one comes. O(D^2) a lesson."""
    s, p = state[3], fixed[0]
    size = ring[0].shape[0]
    at = int(s[SAMPLES] - 1.0) % size
    clean = s[SAMPLES] % size != 0.0
    if s[SAMPLES] > size and clean:
        v = ring[2][at, 0] * p[LAM] ** size
        errors_of(ring[0][at], ring[1][at], state, fixed[1], classify)
        clean = v == 0.0 or remove(ring[0][at], v, state, fixed[1])
    for i in range(ring[0].shape[1]):
        ring[0][at, i] = rows[0][t, i]
    for k in range(ring[1].shape[1]):
        ring[1][at, k] = rows[2][t, k]
    ring[2][at, 0] = w
    if not clean:
        relearn(ring, state, fixed, classify)


@kernel
def walk_window(
    rows: Rows, state: State, fixed: Fixed, out: Out, targets: bool | None, ring: Ring
) -> None:
    """As `rls.walk`, with the last rows alone. ring = F (size, D), y (size, q), weights (size, 1).

    After every `size` lessons all is learnt anew from the ring, which ends the rounding errors of
    removals; so it is where a removal would leave no digit.
    """
    for t in range(rows[0].shape[0]):
        w = take(t, rows, state, fixed, out, targets)
        if w > 0.0:
            renew(state, fixed)
            slide(t, w, rows, ring, state, fixed, targets is None)
