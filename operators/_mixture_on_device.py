"""The precisions of a Gaussian mixture on an NVIDIA GPU, not in memory; not exported.

All else that a mixture is, at most K D numbers, goes along with each launch.
"""

from typing import Any, NamedTuple

import numpy as np

from streamlearn.block import B1, F8, I8, LEARN, OBSERVE, U1
from streamlearn.jit import mixture

Rows = tuple[F8, F8, F8, U1]


class Lessons(NamedTuple):
    """What rows teach whose features are all there: a column a row."""

    weight: F8  # 0 where nothing is learnt
    codes: I8  # classes; 0 for targets, and where no class is learnt
    refused: B1  # whether the label is none

    def of(self, part: slice) -> "Lessons":
        """Those of some of the rows."""
        return Lessons(self.weight[part], self.codes[part], self.refused[part])


def cut_rows(rows: Rows, part: slice) -> Rows:
    """Some of the rows; nothing is copied."""
    X, y, weight, mode = rows
    return X[part], y[part], weight[part], mode[part]


def lessons(rows: Rows, task: float, C: int) -> Lessons:
    """Read the labels of rows as `jit.mixture.judge` does; C: classes there is room for. O(n q)."""
    _, y, weight, mode = rows
    learns = (mode & (OBSERVE if task == mixture.DENSITY else LEARN)) > 0
    bad = ~(np.abs(y) <= mixture.LARGEST)
    first = y[np.arange(len(y)), bad.argmax(axis=1)]  # of two the first decides
    missing: B1 = np.isnan(first)
    refused: B1 = np.logical_or.reduce(bad, axis=1)
    codes = np.zeros(len(y), dtype=np.int64)
    if task == mixture.DENSITY:
        missing[:] = refused[:] = False
    elif task >= mixture.RECALL:
        code = np.where(refused, -1.0, y[:, 0])
        refused |= (code < 0.0) | (code >= C) | (code != np.floor(code))
        codes[~refused] = code[~refused].astype(np.int64)
    refused &= learns & ~missing
    teaches = learns & ~missing & ~refused
    taught = np.where(teaches, np.minimum(weight, mixture.HEAVIEST), 0.0)
    return Lessons(taught, codes, refused)


def joint(rows: Rows, task: float, codes: I8, classes: F8, D: int) -> F8:
    """Z (n, D): features, then the targets, or a one in the column of the class. O(n D)."""
    X, y = rows[0], rows[1]
    d, Z = X.shape[1], np.zeros((len(X), D))
    if d == D:
        return X
    Z[:, :d] = X
    if task == mixture.TARGETS:
        Z[:, d:] = y
    elif task == mixture.RECALL and classes.shape[1] > 0:
        column = classes[mixture.COLUMN, codes].astype(np.int64)
        at = np.flatnonzero(column > 0)
        Z[at, d + column[at] - 1] = 1.0
    return Z


class DevicePrecisions:
    """Lam (R, D, D) of a mixture with room for R components, row by row: `jit.cuda.mixture`."""

    def __init__(self, owner: str) -> None:
        from streamlearn.jit.cuda import _compile
        from streamlearn.jit.cuda import mixture as kernels
        from streamlearn.jit.cuda.products import THREADS

        _compile.require(owner)
        self._owner, self._device, self._threads = owner, _compile, THREADS
        self._kernel: Any = kernels.walk_rows
        self._Lam: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "DevicePrecisions":
        copied = DevicePrecisions(self._owner)
        if self.holds:
            (copied._Lam,) = self._device.send(self._owner, self._device.fetch(self._Lam))
        return copied

    @property
    def holds(self) -> bool:
        """Whether they stand here, and not with the host."""
        return self._Lam is not None

    def clear(self) -> None:
        """Nothing here: the host's count."""
        self._Lam = None

    def fetched(self, K: int) -> F8:
        """(K, D, D) copies of the first K."""
        D = self._Lam.shape[1]
        return np.array([self._device.fetch(self._Lam[j]) for j in range(K)]).reshape(K, D, D)

    def _place(self, Lam: F8, R: int, D: int, K: int) -> None:
        """Room for R; those of the host, or what stood here in less room. MemoryError."""
        if self.holds and self._Lam.shape[0] >= R:
            return
        source = self._Lam if self.holds else Lam
        (made,) = self._device.reserve(self._owner, [((R, D, D), np.float64)])
        for j in range(K):
            self._device.move(made[j], source[j])
        self._Lam = made

    def walk(self, rows: Any, q: int, Lam: F8, state: Any, fixed: Any, out: Any) -> int:
        """Walk rows, as `jit.cuda.mixture` takes them. Returns how many; fewer where the host is
        to make room.

        q: targets. state without Lam, and without a buffer; fixed: settings and gate. State and out
        are written to. Raises: MemoryError before anything is changed.
        """
        (R, D), own = state[0].shape, self._device
        vec = np.zeros((mixture.N_VEC, max(R, q, state[3].shape[1])))
        vec[mixture.UNKNOWN, :q] = np.arange(D - q, D)
        sent = own.send(self._owner, *rows, *state, *fixed, vec, *out)
        scratch = own.reserve(
            self._owner,
            [(shape, np.float64) for shape in
             ((2, R, q), (R, 2 * q + 1, q),
              (R, D), (2, R, D), (R, D), (2, R), (R, 3), (D,), (4 + R,))],
        )  # fmt: skip
        self._place(Lam, R, D, int(state[4][mixture.COMPONENTS]))
        for array in scratch:
            own.overwrite(array, np.zeros(array.shape))
        mu_, comp_, moments_, classes_, s_, *fixed_ = sent[4:12]
        there = mu_, self._Lam, comp_, moments_, classes_, classes_, s_
        arguments = (
            sent[:4], there, (*fixed_, *scratch[:2]), tuple(scratch[2:]), sent[12:],
        )  # fmt: skip
        own.launch(self._owner, self._kernel, self._threads, arguments)
        for host, array in zip(state, sent[4:9], strict=True):
            host[...] = own.fetch(array)
        walked = int(own.fetch(scratch[8])[0])
        for host, array in zip(out, sent[12:], strict=True):
            host[:walked] = own.fetch(array)[:walked]
        return walked
