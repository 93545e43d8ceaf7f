"""ScaleControl: moments of each input with one knob from cumulative to exponential memory.

Letters: M (3, d) = mean mu, variance v, memory mass W of each coordinate; q = (1 - m) ** kappa is
what a value's weight is multiplied by when the next one comes; g = w / W is the gain of the newest.
"""

import math

import numpy as np

from streamlearn.jit._compile import F8, U1, kernel, part

MU, V, MASS = 0, 1, 2
HUGE = 1e308  # a deviation beyond is cut: the mean stays finite
SQUARABLE = 1e150  # a deviation beyond counts as this in the variance: its square stays finite


@part
def any_infinite(x: F8) -> bool:
    """True when a coordinate of x (d,) is +inf or -inf. O(d)."""
    found = False
    for j in range(x.shape[0]):
        found |= abs(x[j]) == np.inf
    return found


@part
def any_missing(x: F8) -> bool:
    """True when a coordinate of x (d,) is NaN. O(d)."""
    found = False
    for j in range(x.shape[0]):
        found |= x[j] != x[j]
    return found


@part
def deviation(x: float, mu: float) -> float:
    """x - mu, cut where it would overflow; NaN stays NaN."""
    e = x - mu
    e = HUGE if e > HUGE else e
    return -HUGE if e < -HUGE else e


@part
def z_score(e: float, v: float, eps: float, c: float) -> float:
    """e / sqrt(v + eps), cut at +-c; 0 where v = 0; NaN stays NaN."""
    z = e / math.sqrt(v + eps)
    z = c if z > c else z
    z = -c if z < -c else z
    flat = 0.0 if e == e else e
    return z if v > 0.0 else flat


@part
def moved(e: float, mu: float, v: float, g: float) -> tuple[float, float]:
    """Mean and variance after a value of gain g whose deviation from mu is e; NaN moves nothing.

    Both stay the weighted mean and variance of all values so far.
    """
    s = SQUARABLE if e > SQUARABLE else e
    s = -SQUARABLE if s < -SQUARABLE else s
    near, wide = mu + g * e, (1.0 - g) * (v + g * s * s)
    return near if e == e else mu, wide if e == e else v


@part
def absorb(M: F8, x: F8, w: float, q: float) -> None:
    """Take the row x (d,) of weight w into M (3, d), in place. O(d)."""
    for j in range(x.shape[0]):
        mu, v, mass = M[MU, j], M[V, j], M[MASS, j]
        e, grown = deviation(x[j], mu), q * mass + w
        M[MU, j], M[V, j] = moved(e, mu, v, w / grown)
        M[MASS, j] = grown if e == e else mass


@part
def standardise(M: F8, x: F8, eps: float, c: float, z: F8) -> None:
    """Write the scores z (d,) of the row x (d,) by the moments M (3, d). O(d)."""
    for j in range(x.shape[0]):
        z[j] = z_score(deviation(x[j], M[MU, j]), M[V, j], eps, c)


@part
def standardise_then_absorb_even(
    M: F8, x: F8, w: float, q: float, eps: float, c: float, z: F8
) -> None:
    """The common row in one pass, with one gain for all: no NaN in x, all masses equal. O(d)."""
    grown = q * M[MASS, 0] + w
    g = w / grown
    for j in range(x.shape[0]):
        e = deviation(x[j], M[MU, j])
        z[j] = z_score(e, M[V, j], eps, c)
        M[MU, j], M[V, j] = moved(e, M[MU, j], M[V, j], g)
        M[MASS, j] = grown


@part
def is_even(M: F8, X: F8) -> bool:
    """Whether all masses in M (3, d) are equal and no value of X (n, d) is missing. O(n d)."""
    even = X.size > 0
    for j in range(M.shape[1]):
        even &= M[MASS, j] == M[MASS, 0]
    return even and not any_missing(X.reshape(X.size))


@kernel
def normaliser_run(
    X: F8, weight: F8, mode: U1, M: F8, q: float, shape: tuple[float, float, bool], out: F8
) -> int:
    """Walk a block: each row standardised with the moments before it, then taken into them.

    X (n, d) | weight (n,) | mode (n,) | M (3, d) in/out | shape = eps, c, whether a row is taken in
    before it is standardised | out (n, d) written. An infinite row is passed on and not learnt.
    Returns the number of rows refused. O(n d), allocates nothing.
    """
    eps, c, first = shape
    suspect, even = any_infinite(X.reshape(X.size)), is_even(M, X)
    refused = 0
    for t in range(X.shape[0]):
        learns = (mode[t] & 4) != 0 and weight[t] > 0.0
        if suspect and any_infinite(X[t]):
            refused += learns
            for j in range(X.shape[1]):  # `out[t] = X[t]` takes 2 s to compile
                out[t, j] = X[t, j]
        elif learns and even and not first:  # the same bits at half the cost
            standardise_then_absorb_even(M, X[t], weight[t], q, eps, c, out[t])
        else:
            if learns and first:
                absorb(M, X[t], weight[t], q)
            standardise(M, X[t], eps, c, out[t])
            if learns and not first:
                absorb(M, X[t], weight[t], q)
    return refused


@kernel
def unit_norm_run(X: F8, weight: F8, mode: U1, out: F8) -> int:
    """Each row divided by its length + 1e-8; NaN is left out of the length and stays NaN.

    X (n, d) | weight (n,) | mode (n,) | out (n, d) written. An infinite row is passed on.
    Returns the number of rows refused that were to be learnt. O(n d), allocates nothing.
    """
    refused = 0
    for t in range(X.shape[0]):
        top = 0.0  # the largest |x|: taken out first, so no square overflows
        for j in range(X.shape[1]):
            top = abs(X[t, j]) if abs(X[t, j]) > top else top
        if top == np.inf:
            refused += (mode[t] & 4) != 0 and weight[t] > 0.0
            for j in range(X.shape[1]):
                out[t, j] = X[t, j]
            continue
        total = 0.0
        for j in range(X.shape[1]):
            part = X[t, j] / top if X[t, j] == X[t, j] and top > 0.0 else 0.0
            total += part * part
        for j in range(X.shape[1]):
            out[t, j] = X[t, j] / (top * math.sqrt(total) + 1e-8)
    return refused


@kernel
def target_scale_learn(s: F8, y: float, w: float, q: float) -> None:
    """Take one target into its moments, for `target_scale`; a NaN changes nothing.

    s (4,) in/out = mean, variance, memory mass, number of targets | w > 0 | q in (0, 1]. O(1).
    """
    e, grown = deviation(y, s[MU]), q * s[MASS] + w
    s[MU], s[V] = moved(e, s[MU], s[V], w / grown)
    s[MASS] = grown if e == e else s[MASS]
    s[3] += y == y


@kernel
def target_scale(s: F8) -> float:
    """What to divide a prediction error by before a gradient: 1 before 10 targets were seen,
    then their standard deviation, at least 1e-2. s (4,) as in `target_scale_learn`. O(1).
    """
    return max(math.sqrt(s[1]), 1e-2) if s[3] >= 10.0 else 1.0
