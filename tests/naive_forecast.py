"""A slow forecaster in plain numpy, from the equations: matrices are solved, not updated.

`overlap` is the protocol that leaks: a window teaches right after it was made, with targets that
are still to come. It exists to show that the tests see a leak.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

F8 = NDArray[np.float64]


class NaiveRidge:
    """R and B of a ridge that forgets and gets its diagonal back one element at a time."""

    def __init__(self, D: int, q: int, ridge: float, f: float, leaky: bool) -> None:
        self.R: F8 = ridge * np.eye(D)
        self.B: F8 = np.zeros((D, q))
        self.ridge, self.f, self.leaky, self.turn = ridge, f, leaky, 0

    def learn(self, x: F8, y: F8, f: float) -> None:
        old = f * self.R
        self.R = old + np.outer(x, x)
        y = np.where(np.isnan(y), x @ self.B, y)  # what is answered by itself teaches nothing
        self.B = np.asarray(np.linalg.solve(self.R, old @ self.B + np.outer(x, y)), np.float64)

    def leak(self) -> None:
        D = self.R.shape[0]
        new = self.R.copy()
        if self.leaky:
            i = self.turn % D
            new[i, i] += (1.0 - self.f) * self.ridge * D
        self.turn += 1
        self.B = np.asarray(np.linalg.solve(new, self.R @ self.B), np.float64)
        self.R = new


class NaiveForecaster:
    """The model of `OnlineForecaster`, without the correction; channels in order of their names."""

    def __init__(
        self, M: int, H: int, L: int, C: int, *, ridge: float = 10.0, f: float = 0.9995,
        leaky: bool = True, eta: float = 0.5, a: float = 0.01, rescale: bool = True,
        level: float = 0.9, overlap: bool = False,
    ) -> None:  # fmt: skip
        self.M, self.H, self.L, self.C = M, H, L, C
        self.eta, self.a, self.rescale, self.overlap = eta, a, rescale, overlap
        self.one = NaiveRidge(L + 1, H, ridge, f, leaky)
        self.all = NaiveRidge(1 + M * (C + 1), M * H, ridge, f, leaky)
        self.f, self.miss = f, 0.5 * (1.0 - level)
        self.u, self.lscale = np.full((M, 2), 0.5), np.ones(M)
        self.made: dict[int, Any] = {}
        self.size: dict[tuple[int, int], tuple[float, float]] = {}
        from scipy.stats import norm

        start = norm.ppf(0.5 + 0.5 * level) * math.sqrt(math.pi / 2.0)
        self.q = np.full((2, M, H), start)

    def run(self, Z: F8) -> tuple[F8, F8, F8]:
        """Forecasts and bounds (n, H, M) of a standardised series; NaN is a gap."""
        n = Z.shape[0]
        V = Z.copy()  # gaps carried on, and backwards before the first value
        for j in range(self.M):
            known = np.flatnonzero(~np.isnan(Z[:, j]))
            V[: known[0], j] = Z[known[0], j]
            for t in range(known[0], n):
                V[t, j] = V[t - 1, j] if math.isnan(Z[t, j]) else Z[t, j]
        out = np.full((3, n, self.H, self.M), np.nan)
        for t in range(n):
            self._track(t, Z, out)
            if not self.overlap and t >= self.H:
                self._learn(t - self.H, Z, V)
            self._answer(t, Z, V, out)
            if self.overlap and t + self.H < n:
                self._learn(t, Z, V)
        return out[0], out[1], out[2]

    def _age(self, t: int, j: int, Z: F8) -> int:
        return t + 1 - int(np.flatnonzero(~np.isnan(Z[:, j]))[0])

    def _lags(self, t: int, j: int, V: F8) -> F8:
        before = [V[max(t - i, 0), j] - V[t, j] for i in range(self.L)]
        return np.array([1.0, *before])

    def _state(self, t: int, Z: F8, V: F8) -> F8:
        x = [1.0]
        for j in range(self.M):
            steps = [V[max(t - i, 0), j] - V[max(t - i - 1, 0), j] for i in range(self.C)]
            born = self._age(t, j, Z) > 0
            x += [V[t, j], *steps] if born else [0.0] * (self.C + 1)
        return np.array(x)

    def _learn(self, s: int, Z: F8, V: F8) -> None:
        targets = np.full((self.M, self.H), np.nan)
        f = self.f
        for j in range(self.M):
            y = Z[s + 1 : s + 1 + self.H, j] - V[s, j]
            if self._age(s, j, Z) < self.L or np.isnan(y).all():
                continue
            targets[j] = y
            self.one.learn(self._lags(s, j, V), y, f)
            f = 1.0
        if np.isnan(targets).all():
            return
        self.one.leak()
        self.all.learn(self._state(s, Z, V), targets.ravel(), self.f)
        self.all.leak()
        for j in np.flatnonzero(~np.isnan(targets).all(axis=1)).tolist():
            self._weigh(s, j, Z)

    def _weigh(self, s: int, j: int, Z: F8) -> None:
        y1, y2 = self.made[s][0][j], self.made[s][1][j]
        truth = Z[s + 1 : s + 1 + self.H, j]
        loss = np.array([np.nanmean((y1 - truth) ** 2), np.nanmean((y2 - truth) ** 2)])
        if self.rescale:
            self.lscale[j] = 0.99 * self.lscale[j] + 0.01 * loss.mean()
            loss = np.minimum(loss / self.lscale[j], 10.0)
        u = self.u[j] * np.exp(-self.eta * loss)
        self.u[j] = (1.0 - self.a) * u / u.sum() + self.a / 2.0

    def _answer(self, t: int, Z: F8, V: F8, out: F8) -> None:
        both = self._state(t, Z, V) @ self.all.B
        y1, y2 = np.empty((self.M, self.H)), np.empty((self.M, self.H))
        for j in range(self.M):
            ready = self._age(t, j, Z) >= self.L
            y1[j] = V[t, j] + (self._lags(t, j, V) @ self.one.B if ready else 0.0)
            y2[j] = V[t, j] + (both[j * self.H : (j + 1) * self.H] if ready else 0.0)
        self.made[t] = y1, y2
        for j in range(self.M):
            if self._age(t, j, Z) < 1:
                self.made[t][0][j] = np.nan
                continue
            w = min(max(self.u[j, 0], 1e-4), 1.0 - 1e-4)
            out[0, t, :, j] = w * y1[j] + (1.0 - w) * y2[j]
            for h in range(self.H):
                if (j, h) in self.size:
                    size = self.size[j, h][1]
                    out[1, t, h, j] = out[0, t, h, j] - max(self.q[0, j, h], 0.0) * size
                    out[2, t, h, j] = out[0, t, h, j] + max(self.q[1, j, h], 0.0) * size

    def _track(self, t: int, Z: F8, out: F8) -> None:
        for h in range(self.H):
            s = t - 1 - h
            for j in range(self.M):
                if s < 0 or np.isnan(Z[t, j]) or np.isnan(out[0, s, h, j]):
                    continue
                if not np.isnan(out[1, s, h, j]):
                    self.q[0, j, h] += 0.02 * ((Z[t, j] < out[1, s, h, j]) - self.miss)
                    self.q[1, j, h] += 0.02 * ((Z[t, j] > out[2, s, h, j]) - self.miss)
                count, size = self.size.get((j, h), (0.0, 0.0))
                count = min(count + 1.0, 200.0)
                off = abs(Z[t, j] - out[0, s, h, j])
                self.size[j, h] = count, size + (off - size) / count
