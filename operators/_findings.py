"""Findings: why alarms rose, row by row, on their way from detectors to alerts.

A column of findings is (n,) object: None, or a tuple of `contracts.Finding`s. Outputs carry it as
`why` beside `alarm` (n,) uint8.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import U1, Columns
from streamlearn.contracts import Finding

Found = NDArray[Any]
RAISED = ("alarm", "warning", "why")  # outputs that tell of a row what it raised, not of its event


def column(n: int, found: Iterable[tuple[int, Finding]]) -> Found:
    """A column of n rows with a finding on each of these."""
    made = np.full(n, None, dtype=object)
    for row, finding in found:
        made[row] = (finding,)
    return made


def at(n: int, row: int, *found: Finding) -> Found:
    """A column of n rows with findings on one of them."""
    made = np.full(n, None, dtype=object)
    made[row] = found
    return made


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


def open_to(outputs: Columns, n: int) -> Columns:
    """Outputs of n rows that have `alarm`, whether any was raised or not."""
    return outputs if "alarm" in outputs else outputs | {"alarm": np.zeros(n, dtype=np.uint8)}


def added(outputs: Columns, found: Found | None) -> Columns:
    """Outputs with `alarm`, 1 on every row with findings, and those as `why` if there are any."""
    if found is None:
        return outputs
    return _with(outputs, np.asarray(found != None, dtype=np.uint8), found)  # noqa: E711  # elementwise


def raised(outputs: Columns, n: int, found: list[tuple[int, Finding]]) -> Columns:
    """As `added`, of findings by row; most blocks have none, and then no column of them is made.

    Comparing 4,096 findings with None would take 40 us and more, a twentieth of a block.
    """
    if not found:
        return open_to(outputs, n)
    alarm = np.zeros(n, dtype=np.uint8)
    alarm[[row for row, _ in found]] = 1
    return _with(outputs, alarm, column(n, found))


def _with(outputs: Columns, alarm: U1, found: Found) -> Columns:
    """Outputs with more alarms and their findings."""
    before = outputs.get("alarm")
    out = outputs | {"alarm": alarm if before is None else before | alarm}
    if alarm.any():
        why = joined(outputs.get("why"), found)
        assert why is not None
        out["why"] = why
    return out
