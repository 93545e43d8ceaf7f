"""Filling of missing values with what was seen before them. d = number of features."""

import numpy as np

from streamlearn.jit._compile import F8, U1, kernel, part
from streamlearn.jit.scale import any_infinite, any_missing, deviation

CONSTANT, LAST, MEAN = 0, 1, 2


@part
def fill_row(x: F8, fill: F8, out: F8) -> None:
    """out = x with NaN replaced by fill, all (d,); a NaN in fill leaves the value missing."""
    for j in range(x.shape[0]):
        out[j] = x[j] if x[j] == x[j] else fill[j]


@part
def follow_mean(x: F8, w: float, fill: F8, mass: F8, frozen: U1) -> None:
    """Move fill to the weighted mean of all values so far; mass (d,) is the sum of their weights.

    frozen (d,) is 1 in columns that are never filled. O(d), no branch.
    """
    for j in range(x.shape[0]):
        grown = mass[j] + w
        e = deviation(x[j], fill[j])
        first = mass[j] == 0.0  # fill still holds the constant
        moved = x[j] if first else fill[j] + w / grown * e
        seen = x[j] == x[j] and frozen[j] == 0
        fill[j] = moved if seen else fill[j]
        mass[j] = grown if seen else mass[j]


@part
def taught(t: int, weight: F8, mode: U1) -> bool:
    """Whether row t is learnt."""
    return bool((mode[t] & 4) != 0 and weight[t] > 0.0)


@part
def follow_four(X: F8, weight: F8, mode: U1, mass: float, j: int, fill: F8) -> float:
    """The means of four columns over a block, in registers; the mass after it. O(n)."""
    a, b, c, d = fill[j], fill[j + 1], fill[j + 2], fill[j + 3]
    for t in range(X.shape[0]):
        if taught(t, weight, mode):
            mass += weight[t]
            g = weight[t] / mass
            a += g * deviation(X[t, j], a)
            b += g * deviation(X[t, j + 1], b)
            c += g * deviation(X[t, j + 2], c)
            d += g * deviation(X[t, j + 3], d)
    fill[j], fill[j + 1], fill[j + 2], fill[j + 3] = a, b, c, d
    return mass


@part
def follow_one(X: F8, weight: F8, mode: U1, mass: float, j: int, fill: F8) -> float:
    """The mean of one column over a block; the mass after it. O(n)."""
    a = fill[j]
    for t in range(X.shape[0]):
        if taught(t, weight, mode):
            mass += weight[t]
            a += weight[t] / mass * deviation(X[t, j], a)
    fill[j] = a
    return mass


@part
def follow_even(X: F8, weight: F8, mode: U1, fill: F8, mass: F8) -> None:
    """`follow_mean` over a block column by column, where `is_even` and no value is missing or inf.

    The same bits at half the cost: row by row, the means wait for the memory. O(n d).
    """
    d, before, after = X.shape[1], mass[0], mass[0]
    for j in range(0, d - 3, 4):
        after = follow_four(X, weight, mode, before, j, fill)
    for j in range(d // 4 * 4, d):
        after = follow_one(X, weight, mode, before, j, fill)
    for j in range(d):
        mass[j] = after


@part
def is_even(mass: F8, frozen: U1) -> bool:
    """Whether all masses (d,) are equal and > 0, and no column is frozen. O(d)."""
    even: bool = mass.shape[0] > 0
    for j in range(mass.shape[0]):
        even = even and mass[j] == mass[0] > 0.0 and frozen[j] == 0
    return even


@part
def follow_last(x: F8, fill: F8, frozen: U1) -> None:
    """Move fill to the newest value of each column, all (d,)."""
    for j in range(x.shape[0]):
        fill[j] = x[j] if x[j] == x[j] and frozen[j] == 0 else fill[j]


@kernel
def impute_run(
    X: F8, weight: F8, mode: U1, strategy: int, fill: F8, mass: F8, frozen: U1, out: F8
) -> tuple[int, bool]:
    """Walk a block: each row filled with what was known before it, then learnt.

    X (n, d) | weight, mode (n,) | fill, mass (d,) in/out | frozen (d,) | out (n, d) written where
    something in X is missing. An infinite row is passed on and not learnt.
    Returns the number of rows refused, and whether something is missing. O(n d), allocates nothing.
    """
    some = any_missing(X.reshape(X.size))
    suspect, refused = any_infinite(X.reshape(X.size)), 0
    if strategy == MEAN and not some and not suspect and is_even(mass, frozen):
        follow_even(X, weight, mode, fill, mass)
        return refused, some
    for t in range(X.shape[0]):
        learns = taught(t, weight, mode)
        if suspect and any_infinite(X[t]):
            refused += learns
            if some:
                for j in range(X.shape[1]):  # `out[t] = X[t]` takes 2 s to compile
                    out[t, j] = X[t, j]
            continue
        if some:
            fill_row(X[t], fill, out[t])
        if learns and strategy == MEAN:
            follow_mean(X[t], weight[t], fill, mass, frozen)
        elif learns and strategy == LAST:
            follow_last(X[t], fill, frozen)
    return refused, some


@kernel
def mark_missing(X: F8, filled: F8, out: F8) -> None:
    """Interleave: out[:, 2j] = filled[:, j], out[:, 2j + 1] = 1 where X[:, j] was NaN, else 0.

    X, filled (n, d) | out (n, 2 d) written. O(n d).
    """
    for t in range(X.shape[0]):
        for j in range(X.shape[1]):
            out[t, 2 * j] = filled[t, j]
            out[t, 2 * j + 1] = 1.0 if np.isnan(X[t, j]) else 0.0
