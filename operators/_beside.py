"""Kalman heads that are members of one ensemble, side by side: a block is one call a thread.

Not exported. Heads that walk on their own take the GIL three times a block each, and what two of
them write may lie on one cache line: with blocks of 1,024 rows two threads ran ten heads of 8
features at 1.0 to 1.6 times the speed of one, switching 11 to 24 times a block instead of 2. Alone
in one thread, ten heads side by side take an event in 0.07 ms instead of 0.14.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from streamlearn.block import F8, I8, Block, Columns
from streamlearn.jit import kalman, kalman_beside
from streamlearn.jit.ensemble import bag_weights
from streamlearn.operators._base import Operator
from streamlearn.operators._supervised import bad_weight, rows_of
from streamlearn.operators._threads import Crew
from streamlearn.operators.kalman import KalmanClassifier, KalmanRegressor

_LINES = 16  # float64 in two cache lines, as they are fetched
_HELD = ("_means", "_covariance", "_outputs", "scalars_", "inputs_", "_settings")  # in a record
_PLAIN = {"form": "standard", "groups": "shared", "random_features": 0, "device": "cpu"}


class Draws(NamedTuple):
    """What weighs the rows of a block anew for each member, as `jit.ensemble.bag_weights` takes it:
    keys (J,) of the members, events (n,) or -1, cumulative (m,) probabilities of the draws.
    """

    keys: Any
    events: I8
    cumulative: F8


def weighted(block: Block, draws: Draws | None, j: int) -> Block:
    """The block with the weights of member j."""
    if draws is None:
        return block
    weight = np.empty(block.n)
    bag_weights(draws.keys[j], draws.events, draws.cumulative, block.weight, weight)
    return block.replace(weight=weight)


class Beside:
    """The states of an ensemble's heads in records side by side, for as long as nothing else comes.

    The arrays of a head are views of its record. Whatever gives it others (growth, a snapshot that
    is restored, a state) need not know: they are taken into the records again before the next walk.
    Cost: some 1 us a member and block beside the walk; a copy of the states where they are taken.
    """

    def __init__(self) -> None:
        self._crew = Crew(free=True)
        self._members: list[Operator] = []  # that were looked at last
        self._fit = False  # whether they can stand here
        self._records: F8 = np.zeros((0, 0))
        self._views: list[tuple[F8, ...]] = []  # of each member, in the order of _HELD
        self._scratch: Any = None  # for one row

    def __reduce__(self) -> tuple[type["Beside"], tuple[()]]:
        """A copy begins anew: its members' arrays are copies, not views."""
        return Beside, ()

    def takes(self, members: Sequence[Operator]) -> bool:
        """Whether these are several linear heads of one kind, small enough for a plain matrix."""
        if self._members != members:
            self._members = list(members)
            apart = len(set(map(id, members))) == len(members) > 1
            self._fit = apart and len(set(map(type, members))) == 1 and all(map(_linear, members))
        return self._fit and all(head._waiting is None for head in members)  # type: ignore[attr-defined]

    def run(
        self, members: Sequence[Any], blocks: Sequence[Block], draws: Draws | None
    ) -> list[Columns]:
        """What each member answers to its block; blocks differ in X, sparse features and log alone.

        draws: of each member's weights, None: those of the block.
        Raises: ValueError for a bad weight; who has one has learnt nothing, the others all.
        """
        pairs = list(zip(members, blocks, strict=True))
        K = _admitted(pairs)
        seen = [
            head._seen(weighted(block, draws, j), K) if block.log_wanted else {}
            for j, (head, block) in enumerate(pairs)
        ]
        self._gather(members, K)
        J, n = len(members), blocks[0].n
        out = np.empty((J, n, K)), np.empty((J, n, 1 if members[0]._classify else K))
        bad = self._walk(blocks, members[0]._classify, draws, out)
        for j in np.flatnonzero(bad >= 0).tolist():
            raise bad_weight(members[j], weighted(blocks[j], draws, j), int(bad[j]))
        return [
            head._answered(block, (out[0][j], out[1][j]), seen[j])
            for j, (head, block) in enumerate(pairs)
        ]

    # -- records -----------------------------------------------------------------------------------

    def _gather(self, members: Sequence[Any], K: int) -> None:
        """Have all members stand in their records, with room for K outputs."""
        for head in members:
            if head._room < K:
                head._widen(K)
        if len(self._views) == len(members) and all(map(_stands, members, self._views)):
            return
        K, D = members[0]._means.shape
        self._records = _lines_apart(len(members), kalman_beside.record_size(K, D))
        self._views, self._scratch = [], None
        for head, record in zip(members, self._records, strict=True):
            views = kalman_beside.parts_of_body(record, K, D)
            for name, view in zip(_HELD, views, strict=True):
                view[...] = getattr(head, name)
                setattr(head, name, view)
            self._views.append(views)

    # -- the walk ----------------------------------------------------------------------------------

    def _walk(
        self, blocks: Sequence[Block], classify: bool, draws: Draws | None, out: tuple[F8, F8]
    ) -> I8:
        """Walk all heads, in threads where it pays; of each the row of a bad weight, or -1."""
        n, J = blocks[0].n, len(blocks)
        X, *rest = rows_of(blocks[0])
        alike = all(block.X is blocks[0].X for block in blocks)
        rows = (X[None] if alike else np.stack([block.X for block in blocks]), *rest)
        if draws is None:
            draws = Draws(np.zeros(J, np.uint64), np.full(n, -1, np.int64), np.zeros(0))
        marks = np.zeros(J, np.int64), np.zeros(J, np.int64), np.full(J, -1, np.int64)
        targets = None if classify else True
        shared = rows, (*draws, np.empty((J, n))), self._records, marks, out, targets
        shares = min(self._crew.shares(n), J, n)
        self._crew.map([functools.partial(self._share, *shared)] * shares, n)
        return marks[2]

    def _share(
        self, rows: Any, draws: Any, R: F8, marks: Any, out: Any, targets: bool | None
    ) -> None:
        """Walk heads until there are none left."""
        n, d = rows[0].shape[1:]
        scratch = self._scratch if n == 1 else None
        if scratch is None:
            scratch = _scratch(min(n, kalman_beside.ROWS), out[0].shape[2], 1 + d)
            if n == 1:  # kept where to make it costs as much as the walk, not beyond
                self._scratch = scratch
        kalman_beside.walk_beside(rows, draws, R, scratch, marks, out, targets)


def _admitted(pairs: Sequence[tuple[Any, Block]]) -> int:
    """Have heads make room for what their blocks show; outputs that all must have room for."""
    first, K = pairs[0][0], 0
    for head, block in pairs:
        head._admit(block)
        alike = head is not first and head._classify and head._n_outputs == first._n_outputs
        K = max(K, head._room, 0 if alike else head._n_wanted(block))  # labels are the same
    return K


def _linear(member: Operator) -> bool:
    """Whether this is a head that the walker knows."""
    if type(member) not in (KalmanClassifier, KalmanRegressor):
        return False
    plain = all(getattr(member, name) == value for name, value in _PLAIN.items())
    return plain and getattr(member, "evaluator", "mean_field") == "mean_field"


def _stands(head: Any, views: tuple[F8, ...]) -> bool:
    """Whether the arrays of a head are still these views."""
    m, A, outputs, s, inputs, p = views
    return (
        head._means is m and head._covariance is A and head._outputs is outputs
        and head.scalars_ is s and head.inputs_ is inputs and head._settings is p
    )  # fmt: skip


def _lines_apart(n: int, size: int) -> F8:
    """(n, size or more) zeros, each row on cache lines that no other has a share of."""
    wide = -(-size // _LINES) * _LINES
    flat = np.zeros(n * wide + 2 * _LINES)
    start = -(flat.ctypes.data // flat.itemsize) % _LINES
    return flat[start : start + n * wide].reshape(n, wide)


def _scratch(rows: int, K: int, D: int) -> tuple[I8, F8, F8, F8]:
    """What a thread needs for itself; see `jit.kalman_beside`."""
    wide, of_rows = max(D, K), rows * D
    height = kalman.work_rows("standard", D)
    flat = _lines_apart(1, of_rows + height * wide)[0]
    work = flat[of_rows : of_rows + height * wide].reshape(height, wide)
    codes = _lines_apart(1, rows)[0].view(np.int64)
    return codes, flat[:of_rows].reshape(rows, D), work, np.zeros((0, 0))
