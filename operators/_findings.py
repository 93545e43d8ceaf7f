"""Findings: why alarms rose, row by row, on their way from detectors to alerts.

A column of findings is (n,) object: None, or a tuple of `contracts.Finding`s. Outputs carry it as
`why` beside `alarm` (n,) uint8.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import Columns
from streamlearn.contracts import Finding

Found = NDArray[Any]


def at(n: int, row: int, *found: Finding) -> Found:
    """A column of n rows with findings on one of them."""
    column = np.full(n, None, dtype=object)
    column[row] = found
    return column


def joined(first: Found | None, second: Found | None) -> Found | None:
    """The findings of both columns, those of the first first."""
    if first is None or second is None:
        return second if first is None else first
    both = first.copy()
    for row in rows(second):
        both[row] = second[row] if first[row] is None else (*first[row], *second[row])
    return both


def rows(found: Found) -> list[int]:
    """The rows that have findings."""
    return [row for row, entry in enumerate(found) if entry is not None]


def added(outputs: Columns, found: Found | None) -> Columns:
    """Outputs with `alarm`, 1 on every row with findings, and those as `why` if there are any."""
    before = outputs.get("alarm")
    if found is None:
        return outputs
    alarm = np.asarray(found != None, dtype=np.uint8)  # noqa: E711  # elementwise
    out = outputs | {"alarm": alarm if before is None else before | alarm}
    if alarm.any():
        why = joined(outputs.get("why"), found)
        assert why is not None
        out["why"] = why
    return out
