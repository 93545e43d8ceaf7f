"""The time-varying propensity of rows: logistic regression of which of two times a row came from.

g(x, tau) = sum_j z_j (a_j tau + b_j tau^2) + a_d tau + b_d tau^2, z the standardised row, tau the
age of a row in windows, negative: from -1 to 0. theta (d + 1, 2) holds a and b.
"""

import math

import numpy as np

from streamlearn.jit._compile import F8, kernel, part
from streamlearn.jit.monte_carlo import scrambled, stream_of

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # as in `counter`
_FAR = 8.0  # a standardised value is cut there
_LEAST = 1e-8  # of the root of a sum of squares


@part
def standardised(v: float, centre: float, scale: float) -> float:
    """0 where v is missing."""
    z = (v - centre) / scale
    return min(max(z, -_FAR), _FAR) if z == z else 0.0


@part
def age_drawn(start: np.uint64, draw: int, n: int) -> int:
    """An age in 0..n-1."""
    word = scrambled(start + _GOLDEN * np.uint64(draw + 1))
    return int(np.int64((word >> np.uint64(1)) % np.uint64(n)))


@part
def pair_step(
    row: F8, tau: tuple[float, float], moments: F8, theta: F8, sums: F8, rates: tuple[float, float]
) -> float:
    """log 2 - loss of (time of the row, other time), then one AdaGrad step. O(d).

    theta, sums (d + 1, 2) | rates = learning rate, decay of sums. d may be below that of the row.
    """
    d = theta.shape[0] - 1
    by_a = tau[0] - tau[1]
    by_b = tau[0] * tau[0] - tau[1] * tau[1]
    margin = theta[d, 0] * by_a + theta[d, 1] * by_b
    for j in range(d):
        z = standardised(row[j], moments[0, j], moments[1, j])
        margin += z * (theta[j, 0] * by_a + theta[j, 1] * by_b)
    tail = math.exp(-abs(margin))
    loss = math.log1p(tail) + max(-margin, 0.0)
    wrong = (tail if margin > 0.0 else 1.0) / (1.0 + tail)
    for j in range(d + 1):
        z = standardised(row[j], moments[0, j], moments[1, j]) if j < d else 1.0
        for k in range(2):
            slope = wrong * z * (by_b if k else by_a)
            sums[j, k] = rates[1] * sums[j, k] + slope * slope
            theta[j, k] += rates[0] * slope / (math.sqrt(sums[j, k]) + _LEAST)
    return float(math.log(2.0) - loss)


@kernel
def propensity_walk(
    X: F8, ring: F8, moments: F8, theta: F8, sums: F8, stand: F8, key: float,
    sizes: tuple[int, int, int], rates: tuple[float, float, float],
) -> int:  # fmt: skip
    """Take rows X (n, d) up to and including the first that alarms; how many. O(pairs d) a row.

    ring (w, d), row number i at i % w | stand = rows so far, statistic, rows it has been above the
    limit | key below 2^53 | sizes = pairs a row, rows before the first pair, rows above the limit
    that make an alarm | rates = learning rate, decay of sums, limit.
    """
    pairs, begin, patience = sizes
    rows, w = int(X.shape[0]), ring.shape[0]
    for t in range(rows):
        n = int(stand[0])
        ring[n % w] = X[t]
        stand[0] += 1.0
        stored = min(n + 1, w)
        if stored < begin or moments.shape[1] + 1 != theta.shape[0]:
            continue
        start = stream_of(key, float(n))
        gain = 0.0
        for k in range(pairs):
            one = age_drawn(start, 2 * k, stored)
            two = age_drawn(start, 2 * k + 1, stored)
            tau = (-one / w, -two / w)
            gain += pair_step(ring[(n - one) % w], tau, moments, theta, sums, (rates[0], rates[1]))
        stand[1] += (gain / pairs - stand[1]) / patience
        stand[2] = stand[2] + 1.0 if stand[1] > rates[2] else 0.0
        if stand[2] == patience:
            return t + 1
    return rows
