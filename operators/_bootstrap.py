"""Limits of a statistic that is tested again and again, from streams without drift."""

import math

import numpy as np

from streamlearn.block import F8

_ENOUGH = 200  # exceedances of a level from which its hazard is taken as counted
Tail = tuple[
    float, float
]  # level at which the hazard of a test is p; scale of its exponential tail


def tails(largest: F8, overlapping: int, p: float) -> tuple[Tail, Tail]:
    """The tail of the first test of a window, and that of a test before which none alarmed.

    largest: (chains, tests) the statistic without drift. overlapping: tests whose windows share
    rows with one. p: the hazard wanted.
    """
    tests = largest.shape[1]
    before = np.full((largest.shape[0], tests - overlapping), -math.inf)
    for k in range(1, overlapping + 1):
        before = np.maximum(before, largest[:, overlapping - k : tests - k])
    first = _tail(largest.ravel(), np.full(largest.size, -math.inf), p)
    return first, _tail(largest[:, overlapping:].ravel(), before.ravel(), p)


def _tail(values: F8, before: F8, p: float) -> Tail:
    """The level L at which, of those with before <= L, a share p has a value above it.

    Where that is too rare to be counted, tails are exponential from a level on where it is not.
    """
    levels = np.sort(values)[::-1]
    above = np.arange(levels.shape[0])  # values > level, but for ties
    both = _above(np.minimum(values, before), levels)
    records = above - both
    at_risk = values.shape[0] - _above(before, levels)
    hazard = records / np.maximum(at_risk, 1)
    reached = np.flatnonzero((records >= _ENOUGH) | (hazard >= 0.2))
    counted = int(reached[0]) if reached.size else levels.shape[0] - 1
    over = np.flatnonzero(hazard > p)
    solved = int(over[0]) - 1 if over.size and over[0] > counted else counted
    level = float(levels[solved])
    gaps = (values - level)[(values > level) & (before <= level)]
    scale = float(gaps.mean()) if gaps.size else 1e-12
    if solved == counted and hazard[counted] > 0.0:
        level += scale * math.log(hazard[counted] / p)
    return level, scale


def _above(values: F8, levels: F8) -> F8:
    """How many values exceed each level."""
    return np.asarray(values.shape[0] - np.searchsorted(np.sort(values), levels, side="right"))


def common_level(parts: list[Tail]) -> float:
    """The level at which the hazards of several parts, each p at its own level, add up to p."""
    if len(parts) == 1:
        return parts[0][0]
    low = max(level for level, _ in parts)
    high = low + math.log(len(parts)) * max(scale for _, scale in parts)
    for _ in range(60):
        middle = 0.5 * (low + high)
        total = sum(math.exp(-(middle - level) / scale) for level, scale in parts)
        low, high = (middle, high) if total > 1.0 else (low, middle)
    return high
