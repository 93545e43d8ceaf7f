"""ScaleControl: moments of each input with one knob from cumulative to exponential memory.

Letters: M (3, d) = mean mu, variance v, memory mass W of each coordinate; q = (1 - m) ** kappa is
what a value's weight is multiplied by when the next one comes; g = w / W is the gain of the newest.
Balanced: M (K, 3, d) = the same of each of K groups; a group counts r = W ** p, p = 1 - b.
"""

import math

import numpy as np

from streamlearn.jit._compile import F8, I8, U1, kernel, part

MU, V, MASS = 0, 1, 2
COUNTED = 3  # of a mixture: what each group counts
HUGE = 1e308  # a deviation beyond is cut: the mean stays finite
FORGOTTEN = 1e-290  # a mass that fades below is 0: arithmetic near 1e-308 is slow
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
def enrol(
    X: F8, who: F8, weight: F8, mode: U1, bit: int, names: F8, K: int, slots: I8
) -> tuple[int, int]:
    """Find the group that each row teaches; the first rows of a group open it.

    X (n, d) | who (n,) the number of a row's group, NaN for none | weight (n,) | mode (n,), with
    `bit` where a row is to be learnt | names (G,) in/out, the numbers of the K groups known, of
    which the last is shared once K = G | slots (n,) written, -1 for a row that teaches nothing.
    Returns the groups known now and the number of rows refused, for an infinite feature or number.
    O(n (d + K)), allocates nothing.
    """
    refused = 0
    for t in range(X.shape[0]):
        slots[t] = -1
        if (mode[t] & bit) == 0 or not weight[t] > 0.0 or who[t] != who[t]:
            continue
        if abs(who[t]) == np.inf or any_infinite(X[t]):
            refused += 1
            continue
        g = 0
        while g < K and names[g] != who[t]:
            g += 1
        g = min(g, names.shape[0] - 1)
        if g == K:
            names[K] = who[t]
            K += 1
        slots[t] = g
    return K, refused


@part
def counted(W: F8, p: float, r: F8) -> None:
    """r (d,) <- W ** p, with 0 where a group has no value yet. O(d), a power where W changes."""
    for j in range(W.shape[0]):
        if p == 1.0:
            r[j] = W[j]
        elif p == 0.0:
            r[j] = 1.0 if W[j] > 0.0 else 0.0
        else:
            r[j] = r[j - 1] if j > 0 and W[j] == W[j - 1] else W[j] ** p


@part
def mix(M: F8, p: float, A: F8) -> None:
    """A (4, d) <- moments of the mixture of all groups in M (K, 3, d), its mass, scratch. O(K d).

    One group is merged after the other, so that nothing overflows and equal means stay equal.
    """
    for j in range(A.shape[1]):
        A[MU, j], A[V, j], A[MASS, j] = 0.0, 0.0, 0.0
    for h in range(M.shape[0]):
        counted(M[h, MASS], p, A[COUNTED])
        for j in range(A.shape[1]):
            r = A[COUNTED, j]
            grown = A[MASS, j] + r
            g = r / grown if r > 0.0 else 0.0
            mu, v = moved(deviation(M[h, MU, j], A[MU, j]), A[MU, j], A[V, j], g)
            A[MU, j], A[V, j], A[MASS, j] = mu, v + g * M[h, V, j], grown


@part
def fade_others(M: F8, x: F8, group: int, f: float) -> None:
    """Multiply the masses of all other groups by f where x (d,) has a value. O(K d)."""
    for h in range(M.shape[0]):
        if h != group:
            for j in range(x.shape[0]):
                left = M[h, MASS, j] * (f if x[j] == x[j] else 1.0)
                M[h, MASS, j] = left if left > FORGOTTEN else 0.0


@kernel
def balanced_run(
    X: F8,
    slots: I8,
    weight: F8,
    M: F8,
    rates: tuple[float, float],
    shape: tuple[float, float],
    A: F8,
    out: F8,
) -> None:
    """Walk a block: each row standardised by the mixture before it, then taken into its group.

    X (n, d) | slots (n,) the group a row teaches, -1 for none | weight (n,) | M (K, 3, d) in/out |
    rates = q, p | shape = eps, c | A (4, d) scratch | out (n, d) written. An infinite row is passed
    on.
    O(n K d), allocates nothing.
    """
    (q, p), (eps, c) = rates, shape
    f = q**p
    suspect, stale = any_infinite(X.reshape(X.size)), True
    for t in range(X.shape[0]):
        if suspect and any_infinite(X[t]):
            for j in range(X.shape[1]):
                out[t, j] = X[t, j]
            continue
        if stale:
            mix(M, p, A)
        standardise(A, X[t], eps, c, out[t])
        stale = slots[t] >= 0
        if stale:
            if f < 1.0:
                fade_others(M, X[t], slots[t], f)
            absorb(M[slots[t]], X[t], weight[t], q)


@kernel
def mixed_moments(M: F8, p: float, A: F8) -> None:
    """A (4, d) <- moments of the mixture of all groups in M (K, 3, d), as `balanced_run` uses."""
    mix(M, p, A)


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
