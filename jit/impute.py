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
def follow_mean_even(x: F8, w: float, fill: F8, mass: F8) -> None:
    """`follow_mean` with one gain for all: no NaN in x, all masses equal and > 0. O(d)."""
    grown = mass[0] + w
    g = w / grown
    for j in range(x.shape[0]):
        fill[j] += g * deviation(x[j], fill[j])
        mass[j] = grown


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
    suspect, even = any_infinite(X.reshape(X.size)), not some and is_even(mass, frozen)
    refused = 0
    for t in range(X.shape[0]):
        learns = (mode[t] & 4) != 0 and weight[t] > 0.0
        if suspect and any_infinite(X[t]):
            refused += learns
            if some:
                for j in range(X.shape[1]):  # `out[t] = X[t]` takes 2 s to compile
                    out[t, j] = X[t, j]
            continue
        if some:
            fill_row(X[t], fill, out[t])
        if learns and strategy == MEAN and even:  # the same bits at half the cost
            follow_mean_even(X[t], weight[t], fill, mass)
        elif learns and strategy == MEAN:
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
