"""Labels that come in the same block as their event, found so that the block need not be cut.

A stage with `recalls_input` learns from a late label on the features that it saw at scoring. Where
these stand in the block itself, they are fetched from there; only what outlasts a block is logged.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import B1, I8, Block, Met
from streamlearn.event_log import keys_of, to_drop, to_log, to_recall


class Meetings(NamedTuple):
    """Rows of a block that settle an event of this block, and the rows of these events.

    settling, settled: (n,) bool. met: of the settling rows those that bring a label. once: whether
    every event was scored once and settled once; else they must be taken in turn.
    """

    settling: B1
    settled: B1
    met: Met
    once: bool


def meetings(block: Block) -> Meetings | None:
    """Labels, and words that none will come, that meet their own event; None without any."""
    keys, logged, brings = keys_of(block), to_log(block), to_recall(block)
    scored, late = np.flatnonzero(logged), np.flatnonzero(brings | to_drop(block))
    if keys is None or not scored.size or not late.size:
        return None
    numbers = _numbered(keys)
    order = np.argsort(numbers[scored], kind="stable")
    known = numbers[scored][order]
    place = np.minimum(np.searchsorted(known, numbers[late]), known.size - 1)
    of = scored[order[place]]
    meets = (known[place] == numbers[late]) & (of < late)
    if not meets.any():  # nor with a later row of an event that was scored again
        return None
    twice = bool((known[1:] == known[:-1]).any())
    late, of = late[meets], of[meets]
    settling, settled = _marked(block.n, late), _marked(block.n, of)
    taught = brings[late]
    once = not twice and np.count_nonzero(settled) == of.size
    return Meetings(settling, settled, Met(late[taught], of[taught]), once)


def _marked(n: int, rows: I8) -> B1:
    out = np.zeros(n, dtype=np.bool_)
    out[rows] = True
    return out


def _numbered(keys: NDArray[Any]) -> NDArray[Any]:
    """Integer keys as they are, others by the order of their first appearance."""
    if keys.dtype.kind in "iu":
        return keys
    table: dict[Any, int] = {}
    return np.array([table.setdefault(key, len(table)) for key in keys.tolist()], dtype=np.int64)
