"""The symmetric matrix of a head: plain where it is small, in tiles with factors waiting where not.

Which of the two is decided by its width alone, so the block law holds. Not exported.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8
from streamlearn.contracts import State
from streamlearn.jit import delayed, symmetric
from streamlearn.jit.lanes import WIDE
from streamlearn.operators import _checks
from streamlearn.operators._base import Operator

_WAITING = ("factors_", "tiles_", "waiting_")  # in the order in which they are put back


class Waiting:
    """A matrix in tiles, the factors that wait to be folded into it, and scratch for its walk."""

    def __init__(self, D: int) -> None:
        T = symmetric.n_panels(D)
        wide = T * WIDE
        self.D = D
        self.tiles: F8 = symmetric.aligned((T * (T + 1) // 2, WIDE, WIDE))
        self.Z: F8 = delayed.no_factors(D, delayed.FACTORS)
        self.counters: F8 = np.array([0.0, 1.0, 0.0])
        self.scratch: tuple[F8, F8, F8, F8] = (
            symmetric.aligned((delayed.GROUP, wide)), symmetric.aligned((delayed.GROUP, wide)),
            symmetric.aligned((2, wide)), np.zeros(delayed.FACTORS),
        )  # fmt: skip

    def __deepcopy__(self, memo: dict[int, Any]) -> "Waiting":
        made = Waiting(self.D)  # on cache lines, where a copy of an array need not begin
        made.tiles[:], made.Z[:], made.counters[:] = self.tiles, self.Z, self.counters
        return made

    @property
    def n_waiting(self) -> int:
        """Factors that wait."""
        return int(self.counters[delayed.PENDING])

    def whole(self) -> F8:
        """(D, D) the matrix, with what waits."""
        return delayed.effective(self.tiles, self.Z, self.counters, self.D)


class Delayed(Operator):
    """A head whose matrix is kept in one of the two ways.

    A subclass names its matrix among `_arrays`, and keeps it as an array in `_plain_matrix`.
    """

    _matrix: ClassVar[str]
    _waiting: Waiting | None = None

    def _delays(self, D: int) -> bool:
        """Whether a matrix of D rows is kept in tiles."""
        return D >= delayed.DELAYED_FROM

    @property
    def _plain_matrix(self) -> F8:
        raise NotImplementedError(f"{type(self).__name__} has no _plain_matrix")

    @_plain_matrix.setter
    def _plain_matrix(self, value: F8) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no _plain_matrix")

    def _whole_matrix(self) -> F8:
        """The matrix, whatever waits; a copy where it is in tiles."""
        return self._plain_matrix if self._waiting is None else self._waiting.whole()

    def _keep_matrix(self, A: F8) -> None:
        """Keep the matrix in the way that its width asks for; nothing waits."""
        if not self._delays(A.shape[-1]):
            self._plain_matrix, self._waiting = np.ascontiguousarray(A), None
            return
        self._plain_matrix = np.zeros((0, 0))
        self._waiting = Waiting(A.shape[0])
        self._waiting.tiles = symmetric.packed(A)

    def _widen_matrix(self, D: int, diagonal: float) -> None:
        """Room for D rows; what waits is folded where there is to be more room."""
        had = self._plain_matrix.shape[0] if self._waiting is None else self._waiting.D
        if had < D:
            self._keep_matrix(_checks.padded(self._whole_matrix(), (D, D), diagonal=diagonal))

    @contextmanager
    def _as_whole(self) -> Iterator[None]:
        """Within, the matrix is plain: for what works on all of it, and has its own place in the
        order of rows. What waits is folded.
        """
        if self._waiting is None:
            yield
            return
        self._plain_matrix, self._waiting = self._waiting.whole(), None
        try:
            yield
        finally:
            self._keep_matrix(self._plain_matrix)

    # -- state -------------------------------------------------------------------------------------

    @property
    def _names_of_state(self) -> tuple[str, ...]:
        if self._waiting is None:
            return self._arrays
        return (*(name for name in self._arrays if name != self._matrix), *_WAITING)

    def _kept(self) -> Waiting:
        if self._waiting is None:
            raise AttributeError(f"{type(self).__name__}: {self._matrix} is kept whole")
        return self._waiting

    @property
    def factors_(self) -> F8:
        """(p, D) of a wide head: the rank-one updates that wait, up to 24."""
        kept = self._kept()
        return delayed.factors(kept.Z, kept.n_waiting, kept.D)

    @factors_.setter
    def factors_(self, value: F8) -> None:
        self._plain_matrix = np.zeros((0, 0))
        self._waiting = Waiting(value.shape[1])
        delayed.put_factors(value, self._waiting.Z)

    @property
    def tiles_(self) -> F8:
        """(T (T + 1) / 2, 8, 8) of a wide head: the upper triangle of what they are folded into."""
        return self._kept().tiles

    @tiles_.setter
    def tiles_(self, value: F8) -> None:
        self._kept().tiles[:] = value

    @property
    def waiting_(self) -> F8:
        """(3,) of a wide head: factors that wait, scale and shift of the matrix since the fold."""
        return self._kept().counters

    @waiting_.setter
    def waiting_(self, value: F8) -> None:
        self._kept().counters[:] = value

    def load(self, state: State) -> None:
        """Take over a state that `state` gave; refused if the parameters were others."""
        whole = state.arrays.get(self._matrix)
        if whole is not None and self._delays(whole.shape[-1]):  # of a version that had no tiles
            kept = Waiting(whole.shape[0])
            old = {"factors_": np.zeros((0, kept.D)), "tiles_": symmetric.packed(whole)}
            state = State(state.arrays | old | {"waiting_": kept.counters}, state.table)
        super().load(state)
