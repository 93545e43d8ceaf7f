"""A bank of Kalman heads, each with its own fixed drift, mixed by discounted likelihood.

Letters as in `kalman`; J heads. Each of them is what `walk_standard` walks, to the last bit.
    state = m (J, K, D) | A (J, D, D) | outputs (J, 3, K) | heads (J, N_SCALARS) | logw (J,)
    fixed = settings | work, as in `kalman` | share (2, J) scratch
    heard = answer (J, n, K) | side (J, n, 1 or K): what each head says, asked of every row
    mode (n,): what the rows ask of the bank; that in `rows` asks every row
"""

import math

from streamlearn.jit import lift
from streamlearn.jit._compile import F8, U1, kernel, part
from streamlearn.jit.kalman import (
    P_ROW,
    S2,
    U_ROW,
    Out,
    Rows,
    blank,
    condition_standard,
    settle,
)
from streamlearn.jit.products import symmetric_product

_PREDICT = 1
_FARTHEST = 50.0  # by which a label can set a head back: none is lost for ever to one outlier

State = tuple[F8, F8, F8, F8, F8]
Fixed = tuple[F8, F8, F8]


@part
def shares(logw: F8, share: F8) -> None:
    """share <- softmax(logw). O(J)."""
    top = logw[0]
    for j in range(logw.shape[0]):
        top = max(top, logw[j])
    total = 0.0
    for j in range(logw.shape[0]):
        share[j] = math.exp(logw[j] - top)
        total += share[j]
    for j in range(logw.shape[0]):
        share[j] /= total


@part
def judge(logw: F8, likelihood: F8, weight: float, discount: float) -> None:
    """logw <- discount logw + weight (log likelihood - that of the best), not below a floor."""
    top = likelihood[0]
    for j in range(logw.shape[0]):
        top = max(top, likelihood[j])
    for j in range(logw.shape[0]):
        behind = max(weight * (likelihood[j] - top), -_FARTHEST)
        logw[j] = discount * logw[j] + (behind if behind == behind else 0.0)


@part
def log_density(y: F8, mean: F8, variance: F8) -> float:
    """Of a row of targets. O(K)."""
    total = 0.0
    for k in range(mean.shape[0]):
        r = y[k] - mean[k]
        total -= 0.5 * (math.log(variance[k]) + min(r * r / variance[k], lift.LARGEST))
    return total


@part
def blend_classes(t: int, share: F8, heard: Out, out: Out) -> None:
    """The mixture of the heads' probabilities, and its most probable class. O(J K)."""
    answer, side = out
    best = -1
    for k in range(answer.shape[1]):
        total = 0.0
        for j in range(share.shape[0]):
            total += share[j] * heard[0][j, t, k]
        answer[t, k] = total
        if total > 0.0 and (best < 0 or total > answer[t, best]):
            best = k
    side[t, 0] = math.nan if best < 0 else float(best)


@part
def blend_targets(t: int, share: F8, heard: Out, out: Out) -> None:
    """Mean and variance of the mixture of the heads' Gaussians. O(J K)."""
    for k in range(out[0].shape[1]):
        mean, variance = 0.0, 0.0
        for j in range(share.shape[0]):
            mean += share[j] * heard[0][j, t, k]
        for j in range(share.shape[0]):
            r = heard[0][j, t, k] - mean
            variance += share[j] * (heard[1][j, t, k] + r * r)
        out[0][t, k], out[1][t, k] = mean, variance


@part
def blend(t: int, share: F8, heard: Out, out: Out, targets: bool | None) -> None:
    """The answer of the bank to a row."""
    if targets is None:
        blend_classes(t, share, heard, out)
    else:
        blend_targets(t, share, heard, out)


@kernel
def walk_bank(
    rows: Rows, mode: U1, state: State, fixed: Fixed, heard: Out, out: Out, discount: float,
    targets: bool | None,
) -> None:  # fmt: skip
    """Walk a block row by row: every head predicts, then learns, then the mixture. O(J D^2)."""
    F, codes, y, _, _ = rows
    m, A, outputs, heads, logw = state
    p, work, share = fixed
    for t in range(F.shape[0]):
        shares(logw, share[0])
        blank(t, outputs[0], targets is None, out[0], out[1])
        noise = 0.0
        for j in range(A.shape[0]):
            head = (m[j], A[j], outputs[j], heads[j])
            symmetric_product(A[j], F[t], work[U_ROW])
            noise = settle(t, rows, head, (p, work), (heard[0][j], heard[1][j]), targets, None)
            if noise > 0.0:
                if targets is None:
                    share[1, j] = math.log(work[P_ROW, codes[t]])
                else:
                    share[1, j] = log_density(y[t], heard[0][j, t], heard[1][j, t])
                condition_standard(F[t], noise, head, (p, work))
        if mode[t] & _PREDICT:
            blend(t, share[0], heard, out, targets)
        if noise > 0.0:
            judge(logw, share[1], p[S2] / noise, discount)
