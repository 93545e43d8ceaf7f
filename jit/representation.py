"""How the predictive loss of a Kalman head pulls at its features: the slope of log p(y | past).

Letters as in `streamlearn.jit.kalman`: m, A of the head, both held; f = c (1, phi), rescaled to
squared norm p[NORM2] or, where that is 0, as it is; u = A f, nu = m f, v = latent variance.
h features phi, D = 1 + h, K classes or targets known, n rows.
"""

import math

from streamlearn.jit import kalman, lift
from streamlearn.jit._compile import F8, I8, kernel, part
from streamlearn.jit.products import symmetric_product

# rows of work: f, A f, scratch of A f, slope in f; m f, probabilities
_F, _U, _V, _D, _NU, _P = range(6)
WORK_ROWS = 6

State = tuple[F8, F8, F8, F8]


@part
def pull(m: F8, k: int, factor: float, slope: F8) -> None:
    """slope <- slope + factor m_k."""
    for i in range(slope.shape[0]):
        slope[i] += factor * m[k, i]


@part
def pull_variance(f: F8, u: F8, loss: float, s_w: float, factor: float, slope: F8) -> None:
    """slope <- slope + factor dv/df, v = g^2 f'A f + (1 - g^2) s_w f'f."""
    for i in range(f.shape[0]):
        slope[i] += 2.0 * factor * ((1.0 - loss) * u[i] + loss * s_w * f[i])


@part
def class_slope(c: int, state: State, p: F8, work: F8, D: int) -> None:
    """Slope of log p_c in f, p = softmax(kappa mu); a class that is new counts, with means 0."""
    m, _, outputs, s = state
    K = m.shape[0]
    f, u, slope, nu, prob = work[_F, :D], work[_U, :D], work[_D, :D], work[_NU, :K], work[_P, :K]
    g, loss = kalman.drift(s, p)
    v, _ = kalman.latent(f, u, p[kalman.S_W], loss)
    shrink = g if p[kalman.DECAY_MEAN] > 0.0 else 1.0
    alpha = math.exp(s[kalman.LOG_ALPHA])
    q = 1.0 + math.pi * alpha * alpha * v / 8.0
    kappa = alpha / math.sqrt(q) * shrink
    new = c >= K or outputs[0, c] == 0.0
    top = 0.0 if new else nu[c]
    for k in range(K):
        if outputs[0, k] > 0.0:
            top = max(top, nu[k])
    total = math.exp(-kappa * top) if new else 0.0
    for k in range(K):
        prob[k] = math.exp(kappa * (nu[k] - top)) if outputs[0, k] > 0.0 else 0.0
        total += prob[k]
    lead = 0.0 if new else nu[c]
    for k in range(K):
        lead -= prob[k] / total * nu[k]
        pull(m, k, kappa * ((1.0 if k == c and not new else 0.0) - prob[k] / total), slope)
    bend = -(math.pi / 16.0) * alpha * alpha * kappa / q * lead  # kappa falls as v grows
    pull_variance(f, u, loss, p[kalman.S_W], bend, slope)


@part
def target_slope(t: int, y: F8, state: State, p: F8, work: F8, D: int) -> None:
    """Slope of the Gaussian log density of all targets in f; 0 for the first two labels.

    Before them a residual has no unit.
    """
    m, _, outputs, s = state
    if s[kalman.SAMPLES] < 2.0:
        return
    f, u, slope, nu = work[_F, :D], work[_U, :D], work[_D, :D], work[_NU, : m.shape[0]]
    g, loss = kalman.drift(s, p)
    v, _ = kalman.latent(f, u, p[kalman.S_W], loss)
    shrink = g if p[kalman.DECAY_MEAN] > 0.0 else 1.0
    S = v + p[kalman.S2]
    widen = 0.0
    for k in range(m.shape[0]):
        r = (y[t, k] - outputs[1, k] - shrink * nu[k]) / outputs[2, k]
        pull(m, k, shrink * r / S, slope)
        widen += 0.5 * (r * (y[t, k] - outputs[1, k] - shrink * nu[k]) / S - 1.0) / S
    pull_variance(f, u, loss, p[kalman.S_W], widen, slope)


@part
def through_rescaling(w: float, norm2: float, work: F8, D: int, out: F8) -> None:
    """From the slope in f = c (1, phi) to that in phi, times the weight; 0 if it is not finite."""
    f, slope = work[_F, :D], work[_D, :D]
    scale, along = 1.0, 0.0
    if norm2 > 0.0:
        scale = f[0]
        for i in range(D):
            along += f[i] * slope[i] / norm2
    finite = True
    for j in range(D - 1):
        out[j] = w * scale * (slope[j + 1] - f[j + 1] * along)
        finite = finite and abs(out[j]) < math.inf
    for j in range(D - 1):
        out[j] = out[j] if finite else 0.0


@kernel
def density_slopes(
    phi: F8, labels: tuple[I8, F8, F8], state: State, p: F8, root: bool, work: F8, out: F8
) -> None:
    """d log p(y | past) / d phi for each row, times its weight, with the head as it stands.

    phi (n, h) | labels = codes (n,): a class, or lift.TARGET | y (n, q) | weight (n,) |
    state = m (K, D) | A (D, D), or its root R | outputs (3, K) | s, all read |
    p settings of the head | work (WORK_ROWS, max(D, K)) scratch | out (n, h). O(n (D^2 + K D)).
    """
    codes, y, weight = labels
    m, A = state[:2]
    D = phi.shape[1] + 1
    f, u = work[_F, :D], work[_U, :D]
    for t in range(phi.shape[0]):
        f[0] = 1.0
        for j in range(D - 1):
            f[j + 1] = phi[t, j]
            out[t, j] = 0.0
        if not lift.bounded(f, p):
            continue
        if root:
            kalman.root_product(A, f, work[_V, :D], u)
        else:
            symmetric_product(A, f, u)
        kalman.project(m, f, work[_NU])
        for i in range(D):
            work[_D, i] = 0.0
        if codes[t] == lift.TARGET:
            target_slope(t, y, state, p, work, D)
        else:
            class_slope(codes[t], state, p, work, D)
        through_rescaling(weight[t], p[lift.NORM2], work, D, out[t])
