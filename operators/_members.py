"""What wrappers and ensembles do with members: ask them, keep apart their logs, hear alarms."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from streamlearn.block import F8, Block, Columns, concatenate
from streamlearn.contracts import Shelf, State
from streamlearn.operators import _prequential
from streamlearn.operators._base import Detector, Operator

_SHORT, _LONG = 16, 4096  # rows of the first piece after a change; where doubling ends


def ask(member: Operator, number: int, block: Block) -> Columns:
    """Run one member over the block, with its own share of the log, which goes by its number.

    A number belongs to one model for ever: what a model logged before it came to serve is still its
    own, and what its predecessor logged is not. Each member logs `here` where it has been asked.
    """
    return told(number, block, member.run(own_block(member, number, block)))


def own_block(member: Operator, number: int, block: Block) -> Block:
    """The block with what this member, and no other, has logged of its rows."""
    if block.logged is None:
        return block
    logged = block.logged.under(f"{number}/")
    return _prequential.recalled(block, logged, member.takes_nan)


def told(number: int, block: Block, outputs: Columns) -> Columns:
    """What a member answered to a block, its logs under its number."""
    if not block.log_wanted:
        return dict(outputs)
    prefix, cut = f"{number}/", len("log:")
    there = {f"log:{prefix}here": np.ones(block.n, dtype=np.uint8)}
    return there | {
        f"log:{prefix}{name[cut:]}" if name.startswith("log:") else name: column
        for name, column in outputs.items()
    }


def first_rise(detector: Detector, errors: F8) -> int:
    """Feed errors up to and including the first that alarms by rising; its index, or -1."""
    start = 0
    while (at := detector.first_alarm(errors[start:])) >= 0:
        if getattr(detector, "rose", True):
            return start + at
        start += at + 1
    return -1


def within(operator: Any) -> Iterable[Any]:
    """What an operator consists of: members of a wrapper, stages of a pipeline."""
    members = getattr(operator, "_members", None)
    return members().values() if callable(members) else getattr(operator, "stages", ())


def keepers(operator: Any) -> Iterator[Any]:
    """Who keeps versions of a model: the operator, or else those within it, at any depth."""
    if hasattr(operator, "versions_"):
        yield operator
        return
    for member in within(operator):
        yield from keepers(member)


class Holder(Operator):
    """An operator with members, whose states stand in its own.

    A subclass gives `_members` and `_state`, and has members that are born later `_shelved`.
    """

    _shelf: Shelf | None = None

    def _members(self) -> dict[str, Operator]:
        """Everything with a state of its own, under its name in the state of the whole."""
        raise NotImplementedError(f"{type(self).__name__} has no _members")

    def _state(self, kept: bool) -> State:
        """The state, with those of the members as `_states` gives them."""
        raise NotImplementedError(f"{type(self).__name__} has no _state")

    def _states(self, kept: bool) -> dict[str, State]:
        """Of each member its state, or what of it has to stand in a checkpoint."""
        members = self._members().items()
        return {name: m.kept_state() if kept else m.state() for name, m in members}

    def state(self) -> State:
        """What it knows itself, and the states of the members."""
        return self._state(kept=False)

    def kept_state(self) -> State:
        """As `state`, but for what members leave on their shelf."""
        return self._state(kept=True)

    def shelve(self, shelf: Shelf) -> None:
        """All members keep there what memory has no room for, those to be born too."""
        self._shelf = shelf
        for member in self._members().values():
            member.shelve(shelf)

    def _shelved(self, member: Operator) -> Operator:
        """A member that is new, with the shelf of the others."""
        if self._shelf is not None:
            member.shelve(self._shelf)
        return member


class Listener(Operator):
    """An operator that changes where something is heard, walking its block in pieces.

    A piece runs and listens to its errors. Where something is heard in the middle, it goes back,
    runs up to that row, changes, and the walk goes on with short pieces. A subclass gives `_piece`
    and calls `_shorten` at a change.
    """

    _stride = 0  # rows of the next piece, 0 for all there are; speed alone, no state

    def _piece(self, block: Block) -> tuple[Columns, int]:
        """Run rows up to and including the first that calls for a change; outputs, and how many."""
        raise NotImplementedError(f"{type(self).__name__} has no _piece")

    def _in_pieces(self, block: Block) -> Columns:
        """Outputs of a block, all of whose rows ask."""
        parts: list[Columns] = []
        lengths, at = [], 0
        while at < block.n or not parts:
            outputs, length = self._piece(block.rows(at, self._piece_end(at, block.n)))
            parts.append(outputs)
            lengths.append(length)
            at += length
        return concatenate(parts, lengths)

    def _piece_end(self, at: int, n: int) -> int:
        """Where the next piece ends: short after a change, then doubling; row by row if need be."""
        if not self.cheap_snapshot:
            return at + 1
        if self._stride == 0:
            return n
        stop = min(at + self._stride, n)
        self._stride = 0 if self._stride >= _LONG else 2 * self._stride
        return stop

    def _shorten(self) -> None:
        """Go on with short pieces: where one change was, the next may be near."""
        self._stride = _SHORT
