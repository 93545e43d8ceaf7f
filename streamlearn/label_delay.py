"""How late labels are: what a user declares, and what was measured.

A delay is told as rows (`100`), as a duration (`30min`) or as the column that says when a label
became known. What is measured is a histogram with bounds of whole numbers, so that its bits do not
depend on how the stream was cut.
"""

import math
import re
from datetime import timedelta
from typing import Any, Literal, NamedTuple

import numpy as np

from streamlearn.block import F8, I8
from streamlearn.contracts import Json, State, merged
from streamlearn.errors import UserError

_UNITS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86_400 * 10**9,
    "w": 7 * 86_400 * 10**9,
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")
_LONGEST = 10**18  # nanoseconds, 31 years: time and delay together stay an int64
_MOST_ROWS = 10**12


class Delay(NamedTuple):
    """When a label becomes known: n rows or n nanoseconds after its event, or as a column says."""

    kind: Literal["rows", "duration", "column"]
    n: int = 0
    column: str = ""

    @property
    def text(self) -> str:
        """As a user would write it."""
        if self.kind == "column":
            return self.column
        if self.kind == "rows":
            return str(self.n)
        unit = next(u for u in reversed(_UNITS) if self.n % _UNITS[u] == 0)
        return f"{self.n // _UNITS[unit]}{unit}"


def parse_delay(value: Any, owner: str = "delay") -> Delay:
    """A delay from what a user gives.

    value: a whole number of rows (100 or "100"), a duration ("30min", "1.5h", a timedelta; units
    ns, us, ms, s, min, h, d, w), a `Delay`, or else the name of a column with the time at which
    the label became known.
    Raises: UserError for what is none of these, for less than 0 and for more than 31 years.
    """
    if isinstance(value, str) and not _is_measure(value.strip()):
        name = value.strip()
        if not name or name[0] in "+-":
            raise UserError(f"{owner}: {_RULE}, or the name of a column, got {value!r}")
        return Delay("column", column=name)
    return parse_span(value, owner)


def parse_span(value: Any, owner: str = "timeout") -> Delay:
    """A number of rows or a duration; as `parse_delay`, without columns."""
    if isinstance(value, Delay) and (value.kind == "column" or 0 <= value.n <= _LONGEST):
        return value
    if isinstance(value, timedelta):
        return _checked("duration", value // timedelta(microseconds=1) * 1000, value, owner)
    text = str(value).strip()
    if isinstance(value, bool) or not isinstance(value, (int, str, np.integer)):
        raise UserError(f"{owner}: {_RULE}, got {value!r}")
    if text.isascii() and text.isdigit():
        return _checked("rows", int(text), value, owner)
    found = _DURATION.fullmatch(text)
    if found is None or found[2] not in _UNITS:
        raise UserError(f"{owner}: {_RULE}, got {value!r}")
    return _checked("duration", _nanoseconds(found[1], _UNITS[found[2]]), value, owner)


_RULE = f"must be a number of rows (100), or a duration (30min; units {', '.join(_UNITS)})"


def _is_measure(text: str) -> bool:
    """Whether a text is a number, or a number with a unit."""
    found = _DURATION.fullmatch(text)
    return (text.isascii() and text.isdigit()) or (found is not None and found[2] in _UNITS)


def _nanoseconds(digits: str, unit: int) -> int:
    """A decimal number of units, exactly; what is below a nanosecond is cut off."""
    whole, _, part = digits.partition(".")
    return int(whole) * unit + (int(part) * unit // 10 ** len(part) if part else 0)


def _checked(kind: Literal["rows", "duration"], n: int, value: Any, owner: str) -> Delay:
    most = _MOST_ROWS if kind == "rows" else _LONGEST
    if not 0 <= n <= most:
        rule = "at most 31 years" if kind == "duration" else f"at most {_MOST_ROWS} rows"
        raise UserError(f"{owner}: must be >= 0 and {rule}, got {value!r}")
    return Delay(kind, n)


def _bounds(exact: int) -> I8:
    """Whole numbers: all up to `exact`, then each at most 6 % above the one before, up to 9e18."""
    bounds, value = [0], 1
    while value < 9 * 10**18:
        bounds.append(value)
        value += 1 if value < exact else max(1, value * 3 // 50)
    return np.array(bounds, dtype=np.int64)


_BOUNDS, _COARSE = _bounds(1024), _bounds(1)


class DelayHistogram:
    """Whole numbers >= 0 counted in bins of 6 %: quantiles are exact to 3 %, up to 1,024 fully.

    Cost: 13 KiB; 10 to 40 ns a value.
    """

    def __init__(self) -> None:
        self.counts: I8 = np.zeros(_BOUNDS.shape[0], dtype=np.int64)
        self.n, self.total, self.least, self.most = 0, 0, 0, 0

    def add(self, values: I8) -> None:
        """Count some values, (n,) int64; those below 0 count as 0."""
        if not values.shape[0]:
            return
        least, most = max(int(values.min()), 0), max(int(values.max()), 0)
        if least == most:
            self.counts[int(np.searchsorted(_BOUNDS, least, side="right")) - 1] += values.shape[0]
            self.total += least * values.shape[0]
        else:
            values = np.maximum(values, 0)
            bins = np.searchsorted(_BOUNDS, values, side="right") - 1
            self.counts += np.bincount(bins, minlength=_BOUNDS.shape[0])
            small = most < 2**62 // values.shape[0]
            self.total += int(values.sum()) if small else sum(values.tolist())
        self.least = least if self.n == 0 else min(self.least, least)
        self.most = max(self.most, most)
        self.n += values.shape[0]

    def quantile(self, q: float) -> float:
        """The smallest value that a share q of all does not exceed, to 3 %; NaN without values."""
        if self.n == 0:
            return math.nan
        rank = max(1, math.ceil(q * self.n))
        at = int(np.searchsorted(np.cumsum(self.counts), rank))
        low = int(_BOUNDS[at])
        high = int(_BOUNDS[at + 1]) - 1 if at + 1 < _BOUNDS.shape[0] else self.most
        low, high = max(low, self.least), min(high, self.most)
        return float(low) if low == high else (low + high) / 2

    def summary(self, unit: int = 1) -> dict[str, Json]:
        """Mean, p50, p99 and max in units; {} without values."""
        if self.n == 0:
            return {}
        return {
            "mean": self.total / self.n / unit,
            "p50": self.quantile(0.5) / unit,
            "p99": self.quantile(0.99) / unit,
            "max": self.most / unit,
        }

    def bars(self, unit: int = 1) -> tuple[F8, I8]:
        """Lower bounds of bins of 6 % that hold something, and how many each holds; for a plot."""
        bins = np.searchsorted(_COARSE, _BOUNDS, side="right") - 1
        counts = np.zeros(_COARSE.shape[0], dtype=np.int64)
        np.add.at(counts, bins, self.counts)
        held = np.flatnonzero(counts)
        return _COARSE[held] / unit, counts[held]

    def state(self) -> State:
        """The bins that hold something, and the exact sums."""
        held = np.flatnonzero(self.counts)
        arrays = {"bins": held.astype(np.int64), "counts": self.counts[held]}
        return State(arrays, {"total": self.total, "least": self.least, "most": self.most})

    def load(self, state: State) -> None:
        """The inverse of `state`."""
        self.counts[:] = 0
        self.counts[state.arrays["bins"]] = state.arrays["counts"]
        self.n = int(self.counts.sum())
        self.total, self.least, self.most = (state.table[k] for k in ("total", "least", "most"))


class Delays:
    """How late the labels of a stream were, in rows and, where there are times, in time."""

    def __init__(self) -> None:
        self.rows, self.times = DelayHistogram(), DelayHistogram()

    def report(self) -> dict[str, Json]:
        """`rows`, `seconds`: mean, p50, p99 and max. `histogram`: of the rows, for a plot."""
        low, counts = self.rows.bars()
        return {
            "rows": self.rows.summary(),
            "seconds": self.times.summary(10**9),
            "histogram": {"rows": low.tolist(), "labels": counts.tolist()},
        }

    def state(self) -> State:
        """Both histograms."""
        return merged({"rows": self.rows.state(), "times": self.times.state()}, {})

    def load(self, state: State) -> None:
        """The inverse of `state`."""
        self.rows.load(state.under("rows"))
        self.times.load(state.under("times"))
