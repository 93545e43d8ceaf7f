"""What label-learning stages saw and said when an event was scored, kept until its label comes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import B1, LEARN, OBSERVE, SCORED, Block, Columns, Logged
from streamlearn.contracts import State

Row = dict[str, NDArray[Any]]  # one event: column name -> its value, 0-d or 1-d
HERE = "/here"  # a column p/here is 1 where the member whose columns are p/… was there to log them


def to_log(block: Block) -> B1:
    """Rows to be logged: scored live events that carry an id. A PREDICT-only row logs nothing."""
    if block.ids is None:
        return np.zeros(block.n, dtype=np.bool_)
    rows: B1 = np.equal(block.mode, SCORED)
    return rows


def to_recall(block: Block) -> B1:
    """Rows that bring the label of an event that was scored before."""
    rows: B1 = np.equal(block.mode & (LEARN | OBSERVE), LEARN)
    return rows


class EventLog:
    """Pending events by id, in order of scoring. An id that is scored again replaces its entry.

    Cost: one dict entry and a copy of the logged row an event; grows with the labels outstanding.
    """

    def __init__(self) -> None:
        self._rows: dict[Any, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, event_id: Any) -> bool:
        return event_id in self._rows

    def put(self, ids: NDArray[Any], rows: B1, columns: Columns) -> None:
        """Log these rows of a block under their ids."""
        marks = {n[: 1 - len(HERE)]: mark for n, mark in columns.items() if n.endswith(HERE)}
        told = {name: column for name, column in columns.items() if not name.endswith(HERE)}
        for t in np.flatnonzero(rows):
            key = _plain(ids[t])
            self._rows.pop(key, None)  # a new place in the order, too
            absent = tuple(member for member, mark in marks.items() if not mark[t])
            self._rows[key] = {
                name: _narrowed(name, column[t])
                for name, column in told.items()
                if not name.startswith(absent)
            }

    def take(self, ids: NDArray[Any] | None, rows: B1) -> Logged:
        """Hand back, and forget, what was logged for these rows; unknown ids stay unmarked."""
        found: dict[int, Row] = {}
        if ids is not None:
            for t in np.flatnonzero(rows):
                row = self._rows.pop(_plain(ids[t]), None)
                if row is not None:
                    found[int(t)] = row
        return _stacked(found, rows.shape[0])

    def snapshot(self) -> dict[Any, Row]:
        """The pending events, for `restore` within this process. Cost: a pointer an event."""
        return dict(self._rows)

    def restore(self, snapshot: dict[Any, Row]) -> None:
        """Go back to a snapshot, which may be restored again."""
        self._rows = dict(snapshot)

    def state(self) -> State:
        """All pending events: per column one flat array and the length of every event's share."""
        names = sorted({name for row in self._rows.values() for name in row})
        arrays: dict[str, NDArray[Any]] = {}
        for name in names:
            shares = [row.get(name) for row in self._rows.values()]
            arrays[f"length/{name}"] = np.array([_length(share) for share in shares], np.int64)
            flat = [np.atleast_1d(share) for share in shares if share is not None]
            arrays[f"values/{name}"] = np.concatenate(flat)
        return State(arrays, {"ids": list(self._rows), "names": names})

    def load(self, state: State) -> None:
        """Take over what `state` gave."""
        self._rows = {key: {} for key in state.table["ids"]}
        for name in state.table["names"]:
            values, at = state.arrays[f"values/{name}"], 0
            for row, n in zip(self._rows.values(), state.arrays[f"length/{name}"], strict=True):
                if n == _SCALAR:
                    row[name] = np.array(values[at])
                elif n >= 0:
                    row[name] = np.array(values[at : at + n])
                at += 1 if n == _SCALAR else max(int(n), 0)


_ABSENT, _SCALAR = -2, -1


def _plain(event_id: Any) -> Any:
    return event_id.item() if isinstance(event_id, np.generic) else event_id


def _narrowed(name: str, value: Any) -> NDArray[Any]:
    """A copy of a logged value, as wide as what it says, not as its block became after it.

    What a column that opens later is filled with (NaN, or 0 for a class) is cut off at the end:
    handed back, it means the same, and the state does not depend on where a block ended.
    """
    share = np.array(value)
    if share.ndim != 1 or share.dtype.kind != "f":
        return share
    told = ~np.isnan(share)
    if name.endswith("proba"):
        told &= share != 0.0
    last = np.flatnonzero(told)[-1:]
    return share[: int(last[0]) + 1 if len(last) else 0].copy()


def _length(share: NDArray[Any] | None) -> int:
    if share is None:
        return _ABSENT
    return _SCALAR if share.ndim == 0 else int(share.shape[0])


def _stacked(found: dict[int, Row], n: int) -> Logged:
    """Rows of unlike widths as columns: a class unknown then has probability 0, the rest is NaN."""
    columns: Columns = {}
    held: dict[str, B1] = {}
    names = dict.fromkeys(name for row in found.values() for name in row)
    for name in names:
        shares = {t: row[name] for t, row in found.items() if name in row}
        width = max(share.shape for share in shares.values())
        fill = 0.0 if name.endswith("proba") else np.nan
        column = columns[name] = np.full((n, *width), fill)
        for t, share in shares.items():
            column[t, ...][tuple(slice(0, w) for w in share.shape)] = share
        rows = held[name] = np.zeros(n, dtype=np.bool_)
        rows[list(shares)] = True
    return Logged(columns, held)


def cuts(block: Block) -> list[int]:
    """Rows where a block must be cut so that a label finds its event logged: ends of the pieces."""
    recalled = to_recall(block)
    if block.ids is None or not recalled.any():
        return [block.n]
    logged = to_log(block)
    scored: set[Any] = set()
    ends = []
    for t, event_id in enumerate(block.ids.tolist()):
        if recalled[t] and event_id in scored:
            ends.append(t)
            scored.clear()
        if logged[t]:
            scored.add(event_id)
    return [*ends, block.n]
