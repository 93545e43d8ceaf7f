"""Softmax of normal scores by antithetic draws: counter-based, so equal counts give equal bits.

score_k = mu_k + sd e_k, e ~ N(0, I). K is a capacity: a class is known where seen[k] > 0.
"""

import math

import numpy as np

from streamlearn.jit._compile import F8, part

MU, SD, BY_MU, BY_SD, _E, _P = range(6)  # rows of scratch
ROWS = 6

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # as in `counter`: SplitMix64
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S12, _S27, _S30, _S31 = np.uint64(12), np.uint64(27), np.uint64(30), np.uint64(31)


@part
def scrambled(z: np.uint64) -> np.uint64:
    """The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@part
def stream_of(key: float, n: float) -> np.uint64:
    """Where the draws of count n begin; key and n are whole numbers below 2^53."""
    return scrambled(np.uint64(key) + _GOLDEN * np.uint64(n + 1.0))


@part
def polynomial(x: float, c: tuple[float, ...]) -> float:
    """c[0] x^5 + ... + c[5]."""
    return ((((c[0] * x + c[1]) * x + c[2]) * x + c[3]) * x + c[4]) * x + c[5]


_CENTRE = (-39.69683028665376, 220.9460984245205, -275.9285104469687, 138.3577518672690,
           -30.66479806614716, 2.506628277459239)  # fmt: skip
_CENTRE_BELOW = (-54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972,
                 -13.28068155288572, 1.0)  # fmt: skip
_TAIL = (-0.007784894002430293, -0.3223964580411365, -2.400758277161838, -2.549732539343734,
         4.374664141464968, 2.938163982698783)  # fmt: skip
_TAIL_BELOW = (0.0, 0.007784695709041462, 0.3224671290700398, 2.445134137142996,
               3.754408661907416, 1.0)  # fmt: skip
_EDGE = 0.02425  # the share of a tail


@part
def normal_of(u: float) -> float:
    """The normal quantile of u in (0, 1), relative error below 1.2e-9 (Acklam, 2003)."""
    tail = min(u, 1.0 - u)
    if tail < _EDGE:
        q = math.sqrt(-2.0 * math.log(tail))
        lower = polynomial(q, _TAIL) / polynomial(q, _TAIL_BELOW)
        return lower if u < 0.5 else -lower
    q = u - 0.5
    r = q * q
    return q * polynomial(r, _CENTRE) / polynomial(r, _CENTRE_BELOW)


@part
def draw(start: np.uint64, s: int, k: int) -> float:
    """Draw s of class k of the stream that begins at start."""
    z = scrambled(start + _GOLDEN * np.uint64(s + 1)) + _GOLDEN * np.uint64(k + 1)
    return normal_of((float(scrambled(z) >> _S12) + 0.5) * 2.0**-52)


@part
def softmax_at(seen: F8, alpha: float, work: F8) -> None:
    """p <- softmax(alpha (mu + sd e)) over the known classes, 0 elsewhere. O(K)."""
    mu, sd, e, p = work[MU], work[SD], work[_E], work[_P]
    top = -math.inf
    for k in range(seen.shape[0]):
        if seen[k] > 0.0:
            top = max(top, mu[k] + sd[k] * e[k])
    total = 0.0
    for k in range(seen.shape[0]):
        p[k] = 0.0
        if seen[k] > 0.0:
            p[k] = math.exp(alpha * (mu[k] + sd[k] * e[k] - top))
            total += p[k]
    for k in range(seen.shape[0]):
        p[k] /= total


@part
def expected_softmax(
    seen: F8, alpha: float, start: np.uint64, pairs: int, work: F8, prob: F8, c: int
) -> None:
    """prob <- E softmax(alpha (mu + sd e)) by pairs of draws e and -e; some class is known.

    work (ROWS, >= K): mu and sd are read; for a class c >= 0 rows BY_MU and BY_SD get the slopes of
    log prob_c in alpha mu_k and in alpha sd_k. O(pairs K).
    """
    K = seen.shape[0]
    e, p, by_mu, by_sd = work[_E], work[_P], work[BY_MU], work[BY_SD]
    for k in range(K):
        prob[k] = by_mu[k] = by_sd[k] = 0.0
    for s in range(2 * pairs):
        for k in range(K):
            if seen[k] > 0.0:
                e[k] = -e[k] if s % 2 else draw(start, s // 2, k)
        softmax_at(seen, alpha, work)
        for k in range(K):
            prob[k] += p[k]
            if c >= 0 and seen[k] > 0.0:
                slope = p[c] * ((1.0 if k == c else 0.0) - p[k])
                by_mu[k] += slope
                by_sd[k] += slope * e[k]
    for k in range(K):
        if c >= 0:
            by_mu[k] /= prob[c]
            by_sd[k] /= prob[c]
    for k in range(K):
        prob[k] /= 2.0 * pairs
