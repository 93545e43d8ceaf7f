"""Kalman heads: many labelled rows of one moment at once, in plain numpy on LAPACK.

Letters as in `kalman`; B rows Phi, no drift between them. Equal to B single steps with gamma = 1.
"""

import numpy as np

from streamlearn.jit._compile import F8


def drift_covariance(A: F8, loss: float, s_w: float) -> None:
    """A <- (1 - loss) A + loss s_w I, where 1 - loss = gamma^2. O(D^2)."""
    A *= 1.0 - loss
    A[np.diag_indices_from(A)] += loss * s_w


def drift_root(R: F8, loss: float, s_w: float) -> None:
    """The same for A = R'R, R triangular. O(D^3)."""
    fresh = np.sqrt(loss * s_w) * np.eye(R.shape[0])
    R[:] = np.linalg.qr(np.vstack([np.sqrt(1.0 - loss) * R, fresh]), mode="r")


def condition_covariance(m: F8, A: F8, Phi: F8, Y: F8, noise: F8) -> F8:
    """Condition on B rows, in place: A <- A - V'V, m <- m + V'E. O(B D^2 + B^2 D + B^3 + B K D).

    m (K, D) | A (D, D) | Phi (B, D) | Y (B, K) | noise (B,) variances. L L' = Phi A Phi' + noise,
    V = L^-1 Phi A, E = L^-1 (Y - Phi m). Returns (K,) sums of squares of E, the standardised
    innovations.
    """
    U = Phi @ A
    L = np.linalg.cholesky(U @ Phi.T + np.diag(noise))
    both = np.linalg.solve(L, np.hstack([U, Y - Phi @ m.T]))
    V, E = both[:, : A.shape[0]], both[:, A.shape[0] :]
    A -= V.T @ V
    A[:] = 0.5 * (A + A.T)
    m += E.T @ V
    return np.asarray((E * E).sum(axis=0))


def condition_root(m: F8, R: F8, Phi: F8, Y: F8, noise: F8) -> F8:
    """The same for A = R'R: one QR holds L', V and the new R. O((B + D)^3)."""
    B, D = Phi.shape
    M = np.zeros((B + D, B + D))
    M[:B, :B] = np.diag(np.sqrt(noise))
    M[B:, :B], M[B:, B:] = R @ Phi.T, R
    T: F8 = np.asarray(np.linalg.qr(M, mode="r"))
    E = np.linalg.solve(T[:B, :B].T, Y - Phi @ m.T)
    R[:] = T[B:, B:]
    m += E.T @ T[:B, B:]
    return np.asarray((E * E).sum(axis=0))
