"""Rows of the event log as columns: what stood in a segment of puts, and which rows still pend."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import B1, I8, Columns

Held = dict[str, B1]  # by column, the rows that it means something for
HERE = "/here"  # a column p/here is 1 where the member whose columns are p/… was there to log them
_FIRST_ROOM = 16


class Segment:
    """Some logged rows, in order of scoring.

    at: (m,) int64, the number of the put that each row was. alive: (m,) bool, still pending.
    columns, held: (m, …) arrays and, by column, the rows that logged it; m may have room behind n.
    sizes: (m,) int64, bytes that each row counts for; given when the segment is closed.
    file: where the columns are a map of one, its name.
    """

    __slots__ = ("alive", "at", "columns", "file", "held", "n", "n_alive", "sizes")

    def __init__(
        self, at: I8, columns: Columns, held: Held, alive: B1 | None = None, file: str | None = None
    ) -> None:
        self.at, self.columns, self.held, self.file = at, columns, held, file
        self.alive = np.ones(at.shape[0], dtype=np.bool_) if alive is None else alive
        self.n = int(at.shape[0])
        self.n_alive = int(np.count_nonzero(self.alive))
        self.sizes: I8 | None = None

    def copy(self, writable: bool = False) -> "Segment":
        """One that dies apart; with its own arrays where rows will be appended to it."""
        new = Segment(self.at, dict(self.columns), dict(self.held), self.alive.copy(), self.file)
        new.n, new.n_alive, new.sizes = self.n, self.n_alive, self.sizes
        if writable:
            new.at = self.at.copy()
            new.columns = {name: column.copy() for name, column in self.columns.items()}
            new.held = {name: rows.copy() for name, rows in self.held.items()}
        return new

    @property
    def nbytes(self) -> int:
        """Bytes of memory; none for what lies in a file."""
        own = self.at.nbytes + self.alive.nbytes
        if self.file is not None:
            return own
        flags = sum(rows.nbytes for rows in self.held.values())
        return own + flags + sum(map(_nbytes, self.columns.values()))

    # -- appending, while it is open ---------------------------------------------------------------

    def append(self, at: I8, given: Columns, marks: Columns, rows: Any) -> None:
        """Log these rows of a block (a slice or indices) as the puts `at` (m,)."""
        m = int(at.shape[0])
        start, stop = self.n, self.n + m
        if stop > self.at.shape[0]:
            self._make_room(max(stop, 2 * start, _FIRST_ROOM))
        self.at[start:stop] = at
        self.alive[start:stop] = True
        for name, column in given.items():
            values = column[rows]
            known = self.columns.get(name)
            if known is None or known.shape[1:] != values.shape[1:]:
                known = self._widen(name, values)
            told = known[start:stop]
            told[corner(values)] = values
            if told.ndim > 1 and name.endswith("proba"):
                told[np.isnan(told)] = 0.0  # no answer, as in a class that was not there yet
            flags = self.held[name][start:stop]
            flags[:] = True
            for member, mark in marks.items():
                if name.startswith(member):
                    flags &= mark[rows] != 0
        self.n = stop
        self.n_alive += m

    def _make_room(self, room: int) -> None:
        self.at = _longer(self.at, room, 0)
        self.alive = _longer(self.alive, room, 0)
        for name, column in self.columns.items():
            self.columns[name] = _longer(column, room, fill_of(name, column))
            self.held[name] = _longer(self.held[name], room, 0)

    def _widen(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """A column as wide as the given values too; a new one was logged by none before."""
        room, known = self.at.shape[0], self.columns.get(name)
        if known is None:
            known = np.empty((room, *([0] * (values.ndim - 1))), values.dtype)
            self.held[name] = np.zeros(room, dtype=np.bool_)
        shape = tuple(map(max, known.shape[1:], values.shape[1:]))
        self.columns[name] = widened(name, known, shape)
        return self.columns[name]

    # -- looking up, and dying ---------------------------------------------------------------------

    def places(self, at: I8) -> I8:
        """The rows of these puts, all of which are here."""
        return np.searchsorted(self.at[: self.n], at)

    def kill(self, places: I8) -> int:
        """These rows pend no longer; the bytes that they counted for."""
        self.alive[places] = False
        self.n_alive -= int(places.shape[0])
        return 0 if self.sizes is None else int(self.sizes[places].sum())

    def living(self) -> "Segment":
        """Only the rows that pend, each column as wide as what they tell, and their sizes."""
        rows = np.flatnonzero(self.alive[: self.n])
        columns: Columns = {}
        held: Held = {}
        for name, column in self.columns.items():
            flags = self.held[name][rows]
            if flags.any():
                columns[name] = told(name, column[rows], flags)
                held[name] = flags
        new = Segment(self.at[rows], columns, held)
        new.sizes = new._sized()
        return new

    def _sized(self) -> I8:
        """Bytes that each row counts for: its values, whatever the width of their neighbours."""
        total = np.full(self.n, 16, dtype=np.int64)
        for name, column in self.columns.items():
            length = np.full(self.n, column[:1].size)
            if column.dtype.kind == "O":
                length = np.array([0 if row is None else row.size for row in column], np.int64)
            elif column.ndim == 2:
                length = _lengths(name, column)
            total += np.where(self.held[name], 16 + 8 * length, 0)
        return total

    def split(self, shift: int) -> "dict[int, Segment]":
        """Segments of their own for puts whose numbers agree above the lowest `shift` bits."""
        numbers = self.at[: self.n] >> shift
        found: dict[int, Segment] = {}
        for number in np.unique(numbers).tolist():
            rows = np.flatnonzero(numbers == number)
            columns = {name: column[rows] for name, column in self.columns.items()}
            held = {name: flags[rows] for name, flags in self.held.items()}
            found[number] = Segment(self.at[rows], columns, held, self.alive[rows]).living()
        return found


def joined(segments: Iterable[Segment]) -> Segment:
    """The pending rows of several segments, given in order, as one; columns at their narrowest."""
    parts = [segment.living() for segment in segments]
    n = sum(part.n for part in parts)
    at = np.concatenate([part.at for part in parts]) if parts else np.zeros(0, np.int64)
    columns: Columns = {}
    held: Held = {}
    for name in sorted({name for part in parts for name in part.columns}):
        some = [part.columns[name] for part in parts if name in part.columns]
        shape = tuple(np.max([column.shape[1:] for column in some], axis=0).astype(int).tolist())
        columns[name] = np.full((n, *shape), fill_of(name, some[0]), some[0].dtype)
        held[name] = np.zeros(n, dtype=np.bool_)
        start = 0
        for part in parts:
            rows = slice(start, start + part.n)
            if name in part.columns:
                columns[name][rows] = widened(name, part.columns[name], shape)
                held[name][rows] = part.held[name]
            start += part.n
    return Segment(at, columns, held)


def flat(name: str, column: NDArray[Any]) -> Columns:
    """A column as plain arrays: where its rows are arrays of their own, end to end, with lengths.

    The names are those under which `unflat` finds it; rows that are None count as empty.
    """
    if column.dtype.kind != "O":
        return {f"values/{name}": column}
    rows = [np.zeros(0) if row is None else row for row in column]
    lengths = np.array([row.size for row in rows], dtype=np.int64)
    return {f"values/{name}": np.concatenate([np.zeros(0), *rows]), f"lengths/{name}": lengths}


def unflat(name: str, arrays: Columns) -> NDArray[Any]:
    """The inverse of `flat`; rows of varying length are views."""
    values, lengths = arrays[f"values/{name}"], arrays.get(f"lengths/{name}")
    if lengths is None:
        return values
    ends = np.cumsum(lengths).tolist()
    bounds = zip([0, *ends], ends, strict=False)
    return np.fromiter((values[a:b] for a, b in bounds), dtype=object, count=len(ends))


def _nbytes(column: NDArray[Any]) -> int:
    if column.dtype.kind != "O":
        return column.nbytes
    rows: list[Any] = [row for row in column if row is not None]
    return int(column.nbytes) + sum(int(row.nbytes) for row in rows)


def fill_of(name: str, column: NDArray[Any]) -> float | None:
    """What a place says that nothing was logged for: probability 0, a missing number, no row."""
    if column.dtype.kind == "O":
        return None
    return 0.0 if name.endswith("proba") or column.dtype.kind != "f" else np.nan


def widened(name: str, column: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The column with rows of this shape, at least as large as its own."""
    if column.shape[1:] == shape:
        return column
    wide = np.full((column.shape[0], *shape), fill_of(name, column), column.dtype)
    wide[corner(column)] = column
    return wide


def told(name: str, column: NDArray[Any], held: B1) -> NDArray[Any]:
    """The column with nothing in rows that did not log it, as wide as what the others say.

    What a feature or class that opens later is filled with is cut off at the end: handed back, it
    means the same, and the state does not depend on where a block ended.
    """
    if not held.all():
        column = column.copy()
        column[~held] = fill_of(name, column)
    if column.ndim == 2:
        width = int(_lengths(name, column).max(initial=0))
        return np.ascontiguousarray(column[:, :width])
    return column


def corner(column: NDArray[Any], rows: Any = slice(None)) -> tuple[Any, ...]:
    """Where rows as narrow as those of a column stand in rows that are wider."""
    return (rows, *(slice(0, w) for w in column.shape[1:]))


def _lengths(name: str, column: NDArray[Any]) -> I8:
    """Of each row of a 2-d column, 1 + the place of the last value that says anything."""
    says = column != 0.0 if fill_of(name, column) == 0.0 else column == column
    width = column.shape[1]
    if not width:
        return np.zeros(column.shape[0], dtype=np.int64)
    last = width - np.argmax(says[:, ::-1], axis=1)
    return np.where(says.any(axis=1), last, 0)


def _longer(column: NDArray[Any], room: int, fill: float | None) -> NDArray[Any]:
    out = np.full((room, *column.shape[1:]), fill, column.dtype)
    out[: column.shape[0]] = column
    return out
