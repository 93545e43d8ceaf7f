"""What was said about events whose labels are to come, put into a log and taken out again."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import B1, LEARN, Block, Columns, Logged
from streamlearn.event_log import SEGMENT, EventLog, cuts, keys_of, to_drop, to_log


def pieces(block: Block, room: int) -> list[tuple[int, int, bool]]:
    """Start and end of pieces of a block, and whether all may be logged before labels are met.

    That is so where events are numbered in order and each label comes after its event; then a piece
    ends only where the log closes a segment (`room` puts from here), so that what is spilled does
    not depend on how the stream was cut. Otherwise pieces are so short that no label in them is
    about an event in them.
    """
    waits = to_log(block)
    come, gone = np.equal(block.mode, LEARN), to_drop(block)
    settled = come | gone
    if not settled.any() or not waits.any() or _is_orderly(block, waits, come, gone):
        ends = (np.flatnonzero(waits)[room - 1 :: SEGMENT] + 1).tolist()
        ends = ends if ends and ends[-1] == block.n else [*ends, block.n]
        return [(a, b, True) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    ends = cuts(block, room)
    if gone.any():
        ends = list(range(1, block.n + 1))
    return [(a, b, False) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _is_orderly(block: Block, waits: B1, come: B1, gone: B1) -> bool:
    """Whether events are numbered upwards, labels come after them, and none is settled twice."""
    number = block.events
    if number is None:
        return False
    own = number[waits]
    if (np.diff(own) <= 0).any():
        return False
    top = np.maximum.accumulate(np.where(waits, number, own[0] - 1))
    if ((come | gone) & (number > top) & (number <= own[-1])).any():
        return False
    return not (gone.any() and np.isin(number[gone], number[come]).any())


def exchange(
    log: EventLog, block: Block, waits: B1, come: B1, columns: Columns, orderly: bool
) -> tuple[Logged, Logged]:
    """Log the rows that wait; take those whose label comes, and those to which none will come."""
    keys, gone = keys_of(block), to_drop(block)
    last = waits.copy()
    if orderly:  # the put that closes a segment comes after the labels before it
        last[:-1] = False
        first = waits & ~last
        if keys is not None and first.any():
            log.put(keys, first, columns)
    taken, lost = log.take(keys, come), log.take(keys, gone)
    if keys is not None and last.any():
        log.put(keys, last, columns)
    return taken, lost


def filled(name: str, column: NDArray[Any], found: Logged, rows: B1) -> NDArray[Any]:
    """A column with what was logged at these rows; one that was not logged is missing there."""
    logged = found.columns.get(name, column)
    fill = 0.0 if name.endswith("proba") else np.nan
    wide = (max(pair) for pair in zip(column.shape[1:], logged.shape[1:], strict=True))
    out = np.full((column.shape[0], *wide), fill)
    out[tuple(slice(0, w) for w in column.shape)] = column
    out[rows] = fill
    if logged is not column:
        corner: Any = (rows, *(slice(0, w) for w in logged.shape[1:]))
        out[corner] = logged[rows]
    return out
