"""The precisions of a Gaussian mixture on an NVIDIA GPU, not in memory; not exported.

All else that a mixture is, at most K D numbers, goes along with each launch.
"""

from typing import Any

import numpy as np

from streamlearn.block import F8
from streamlearn.jit import mixture


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

    def walk(self, rows: Any, Lam: F8, state: Any, fixed: Any, score: F8) -> int:
        """Walk rows of which every value is known. Returns how many; fewer where room is short.

        rows, state without Lam, fixed, score: as `jit.cuda.mixture` says; state and score are
        written to. Raises: MemoryError before anything is changed.
        """
        mu, comp, moments, s = state
        (R, D), own = mu.shape, self._device
        sent = own.send(self._owner, *rows, *state, *fixed)
        scratch = own.reserve(
            self._owner,
            [(shape, np.float64) for shape in
             ((R, D), (2, R, D), (R, D), (2, R), (R, 3), (D,), (3 + R,), (len(score),))],
        )  # fmt: skip
        self._place(Lam, R, D, int(s[mixture.COMPONENTS]))
        for array in scratch:
            own.overwrite(array, np.zeros(array.shape))
        there = (sent[3], self._Lam, *sent[4:7])
        arguments = sent[:3], there, sent[7:], tuple(scratch[:7]), scratch[7]
        own.launch(self._owner, self._kernel, self._threads, arguments)
        for host, array in zip((mu, comp, moments, s), sent[3:7], strict=True):
            host[...] = own.fetch(array)
        walked = int(own.fetch(scratch[6])[0])
        score[:walked] = own.fetch(scratch[7])[:walked]
        return walked
