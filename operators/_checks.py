"""Checks of constructor arguments: owner, rule, value, in one wording for all operators."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from streamlearn.block import F8


def _fail(owner: str, name: str, rule: str, value: Any) -> ValueError:
    return ValueError(f"{owner}: {name} must be {rule}, got {value!r}")


def number(owner: str, name: str, value: Any) -> float:
    """A finite number, as float."""
    good = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not good or not math.isfinite(value):
        raise _fail(owner, name, "a finite number", value)
    return float(value)


def positive(owner: str, name: str, value: Any) -> float:
    """A finite number > 0."""
    if number(owner, name, value) <= 0:
        raise _fail(owner, name, "> 0", value)
    return float(value)


def not_negative(owner: str, name: str, value: Any) -> float:
    """A finite number >= 0."""
    if number(owner, name, value) < 0:
        raise _fail(owner, name, ">= 0", value)
    return float(value)


def between(owner: str, name: str, value: Any, low: float, high: float) -> float:
    """A number in [low, high]."""
    if not low <= number(owner, name, value) <= high:
        raise _fail(owner, name, f"in [{low:g}, {high:g}]", value)
    return float(value)


def whole(owner: str, name: str, value: Any, least: int) -> int:
    """A whole number >= least."""
    good = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not good or value < least:
        raise _fail(owner, name, f"a whole number >= {least}", value)
    return int(value)


def truth(owner: str, name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise _fail(owner, name, "true or false", value)
    return bool(value)


def choice(owner: str, name: str, value: Any, options: Collection[str]) -> str:
    """One of a few words."""
    if value not in options:
        raise _fail(owner, name, f"one of {', '.join(options)}", value)
    return str(value)


def one_target(owner: str, y: F8) -> None:
    """Targets (n,): refuse several a row, (n, q)."""
    if y.ndim != 1:
        raise ValueError(f"{owner}: y must be one target a row, (n,), got shape {y.shape}")


def unchanged(owner: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a saved state that was made with other settings than those of now."""
    for name, value in now.items():
        if saved.get(name) != value:
            raise ValueError(
                f"{owner}: {name} must be {saved.get(name)!r} as in the saved state, got {value!r}"
            )


def padded(
    array: F8, shape: tuple[int, ...], fill: float = 0.0, diagonal: float | None = None
) -> F8:
    """The array in the corner of a larger one; new diagonal elements of a square one may differ."""
    if array.shape == shape:
        return array
    out = np.full(shape, fill)
    out[tuple(slice(0, n) for n in array.shape)] = array
    if diagonal is not None:
        new = np.arange(array.shape[0], shape[0])
        out[new, new] = diagonal
    return out
