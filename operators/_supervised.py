"""What learners from labels share: rows for their kernels, and outputs that come with the stream.

The classes of a classifier come with the stream, the targets of a regressor with its first labels.
Arrays have room for some that may come; what is state is cut to those that have come, for it must
not depend on how the stream was cut into blocks. Not exported.
"""

import math
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, I8, LEARN, U1, Block, Columns
from streamlearn.operators import _checks
from streamlearn.operators._base import Operator

MAX_CLASSES = 100_000  # a label beyond it is no class code


def plain(array: Any) -> Any:
    """The array, or a copy if it is read-only or strided: one compiled kernel serves all."""
    return array if array.flags.carray else array.copy()


def rows_of(block: Block) -> tuple[F8, F8, F8, U1]:
    """X, y (n, q), weight and mode of a block as the kernels take them."""
    X, y, weight, mode = block.X, block.y, block.weight, block.mode
    y = y if y.ndim == 2 else y[:, None]
    if X.flags.carray and y.flags.carray and weight.flags.carray and mode.flags.carray:
        return X, y, weight, mode
    return plain(X), plain(y), plain(weight), plain(mode)


def bad_weight(operator: Operator, block: Block, row: int) -> ValueError:
    """The error for a row whose weight is none."""
    return ValueError(
        f"{type(operator).__name__}: weight must be >= 0 and finite, got {block.weight[row]} "
        f"in row {row} of the block"
    )


def refuse_bad_weights(operator: Operator, block: Block) -> None:
    """For kernels that do not look at weights: raise for the first row whose weight is none."""
    weight = block.weight
    if weight.min(initial=0.0) >= 0.0 and weight.max(initial=0.0) < math.inf:  # no NaN either
        return
    good = (weight >= 0.0) & (weight < math.inf)
    raise bad_weight(operator, block, int(good.argmin()))


def targets_of(operator: Operator, block: Block, known: int, fixed: bool) -> int:
    """Targets: given by the first block with more than one column, and fixed by the first label."""
    q = 1 if block.y.ndim == 1 else block.y.shape[1]
    if q == known or (q > known and not fixed):
        return q
    if block.y.ndim == 1 and not (block.mode & LEARN).any():
        return known  # asked only: y says nothing
    raise ValueError(f"{type(operator).__name__}: y must have {known} columns, got {q}")


def cut(array: str, axis: int, doc: str, to: str = "_n_outputs", away: bool = False) -> Any:
    """The property for an array with room: what is state of it, the first `to` along an axis.

    away: it may stand on a device, and `_refresh` brings it home.
    """

    def get(self: Any) -> F8:
        if away:
            self._refresh()
        part: F8 = getattr(self, array)[(slice(None),) * axis + (slice(getattr(self, to)),)]
        return part

    def put(self: Operator, value: F8) -> None:
        setattr(self, array, np.ascontiguousarray(value))

    return property(get, put, doc=doc)


class Supervised(Operator):
    """An operator that learns classes or targets.

    A subclass gives `_n_outputs`, `n_samples_` and `_clear`. Its `_run` makes room for
    `_n_wanted(block)` outputs, calls a kernel on `rows_of(block)` and returns `_named(...)`.
    """

    _classify: ClassVar[bool] = False
    recalls_input = True
    _lifted: tuple[F8, I8] = np.zeros((0, 0)), np.zeros(0, dtype=np.int64)

    @property
    def _n_outputs(self) -> int:
        """Classes or targets that are state; any more are room."""
        raise NotImplementedError(f"{type(self).__name__} has no _n_outputs")

    @property
    def n_samples_(self) -> int:
        """Labelled rows learnt."""
        raise NotImplementedError(f"{type(self).__name__} has no n_samples_")

    # -- before the walk ---------------------------------------------------------------------------

    def _n_wanted(self, block: Block) -> int:
        """Classes or targets that there must be room for to walk this block."""
        if self._classify:
            return self._n_classes(block)
        return targets_of(self, block, self._n_outputs, self.n_samples_ > 0)

    def _n_classes(self, block: Block) -> int:
        """Classes that may be known after this block; 1 at least: no class at all means targets."""
        _checks.one_target(type(self).__name__, block.y)
        known = max(1, self._n_outputs)
        if block.labels is not None and len(block.labels) <= known:
            return known
        codes = block.y[block.y < MAX_CLASSES]
        return max(known, 1 + int(codes.max(initial=-1.0)))

    def _buffers(self, n: int, D: int) -> tuple[F8, I8]:
        """Scratch for the features of n rows, (n, D), and for codes of their labels."""
        F, codes = self._lifted
        if F.shape != (n, D):
            F, codes = np.empty((n, D)), np.empty(n, dtype=np.int64)
            if n == 1:  # kept where two allocations cost as much as the walk, not beyond
                self._lifted = F, codes
        return F, codes

    # -- after it ----------------------------------------------------------------------------------

    def _named(self, block: Block, answer: F8, side: F8 | None) -> Columns:
        """Answers of a kernel under their names.

        Of classes answer (n, room) holds probabilities and side (n, 1) the class; of targets answer
        (n, q) holds means and side, if there is one, variances.
        """
        if self._classify:
            assert side is not None, "a classifier says its class"
            known = self._n_outputs
            if known < answer.shape[1]:
                answer = np.ascontiguousarray(answer[:, :known])
            return {"prediction": side[:, 0], "proba": answer}
        if block.y.ndim == 1 and answer.shape[1] == 1:
            answer, side = answer[:, 0], side if side is None else side[:, 0]
        return {"prediction": answer} if side is None else {"prediction": answer, "variance": side}
