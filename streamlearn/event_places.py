"""Which put of a log each pending key is: numbers that ascend as arrays, other keys as a dict."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import B1, I8

_RUN = 4096  # keys


class _Run:
    """Ascending keys with their puts, of which some still pend."""

    __slots__ = ("alive", "keys", "n", "n_alive", "puts")

    def __init__(self, keys: I8, puts: I8, alive: B1, n: int) -> None:
        self.keys, self.puts, self.alive, self.n = keys, puts, alive, n
        self.n_alive = int(np.count_nonzero(alive[:n]))

    def room(self) -> int:
        """How many more there is room for."""
        return int(self.keys.shape[0]) - self.n

    def append(self, keys: I8, puts: I8) -> None:
        end = self.n + keys.shape[0]
        self.keys[self.n : end], self.puts[self.n : end] = keys, puts
        self.alive[self.n : end] = True
        self.n_alive += end - self.n
        self.n = end

    def find(self, keys: I8) -> tuple[NDArray[np.intp], B1]:
        """Places of these keys, and which of them pend here."""
        at = np.minimum(np.searchsorted(self.keys[: self.n], keys), self.n - 1)
        return at, (self.keys[at] == keys) & self.alive[at]

    def copy(self) -> "_Run":
        return _Run(self.keys.copy(), self.puts.copy(), self.alive.copy(), self.n)

    def living(self) -> "_Run":
        """Those that pend, without room for more."""
        rows = np.flatnonzero(self.alive[: self.n])
        return _Run(self.keys[rows], self.puts[rows], self.alive[rows], rows.shape[0])


class Places:
    """The put of each key that pends.

    Integer keys that come in ascending order (the numbers of events) cost 17 bytes each; with any
    other key all are kept in a dict, until it is empty.
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._dict: dict[Any, int] = {}
        self._n = 0  # in runs

    def __len__(self) -> int:
        return self._n + len(self._dict)

    def __contains__(self, key: Any) -> bool:
        if self._dict or not isinstance(key, (int, np.integer)):
            return key in self._dict
        return self.knows_any(np.array([key], dtype=np.int64))

    def knows_any(self, keys: NDArray[Any]) -> bool:
        """Whether some of these keys pend."""
        if self._n and keys.dtype == np.int64:
            return any(bool(run.find(keys[who])[1].any()) for run, who in self._groups(keys))
        self._to_dict()
        return bool(self._dict) and not self._dict.keys().isdisjoint(plain(keys))

    def enter(self, keys: NDArray[Any], puts: I8) -> list[int]:
        """Note the puts (ascending) of these keys; the puts of those that are replaced."""
        if not keys.shape[0]:
            return []
        if self._dict or not self._ascends(keys):
            return self._enter_dict(keys, puts)
        self._n += keys.shape[0]
        start = 0
        while start < keys.shape[0]:
            if not self._runs or not self._runs[-1].room():
                none = np.zeros(_RUN, dtype=np.int64)
                self._runs.append(_Run(none, none.copy(), none.astype(np.bool_), 0))
            stop = start + self._runs[-1].room()
            self._runs[-1].append(keys[start:stop], puts[start:stop])
            start = stop
        return []

    def _ascends(self, keys: NDArray[Any]) -> bool:
        if keys.dtype != np.int64 or not (keys[1:] > keys[:-1]).all():
            return False
        return not self._runs or bool(keys[0] > self._runs[-1].keys[self._runs[-1].n - 1])

    def _enter_dict(self, keys: NDArray[Any], puts: I8) -> list[int]:
        self._to_dict()
        told = plain(keys)
        new = dict(zip(told, puts.tolist(), strict=True))
        if len(new) == len(told) and self._dict.keys().isdisjoint(new):
            self._dict.update(new)
            return []
        replaced = []
        for at, key in zip(puts.tolist(), told, strict=True):
            if key in self._dict:
                replaced.append(self._dict[key])
            self._dict[key] = at
        return replaced

    def _to_dict(self) -> None:
        """Other keys come: the runs go into the dict."""
        if self._n:
            keys, puts = self.items()
            self._dict = dict(zip(keys, puts.tolist(), strict=True))
        self._runs, self._n = [], 0

    def pop(self, keys: NDArray[Any]) -> I8:
        """The puts of these keys, -1 for those that do not pend; they pend no longer."""
        if not self._n or keys.dtype != np.int64:
            self._to_dict()
            pop = self._dict.pop
            return np.array([pop(key, -1) for key in plain(keys)], dtype=np.int64)
        out = np.full(keys.shape[0], -1, dtype=np.int64)
        first = np.unique(keys, return_index=True)[1]  # of a key that stands twice
        keys = keys[first]
        for run, who in self._groups(keys):
            at, there = run.find(keys[who])
            out[first[who[there]]] = run.puts[at[there]]
            run.alive[at[there]] = False
            found = int(np.count_nonzero(there))
            run.n_alive -= found
            self._n -= found
        self._tidy()
        return out

    def _groups(self, keys: I8) -> list[tuple[_Run, NDArray[np.intp]]]:
        """Runs with the places of those of these keys that may be theirs."""
        if len(self._runs) == 1:
            return [(self._runs[0], np.arange(keys.shape[0]))]
        starts = np.array([run.keys[0] for run in self._runs], dtype=np.int64)
        which = np.maximum(np.searchsorted(starts, keys, side="right") - 1, 0)
        return [(self._runs[i], np.flatnonzero(which == i)) for i in np.unique(which).tolist()]

    def _tidy(self) -> None:
        """Runs in which nothing pends go, thin ones shrink; the last one is still growing."""
        if any(2 * run.n_alive < run.n for run in self._runs):
            old, last = self._runs[:-1], self._runs[-1]
            old = [run.living() if 2 * run.n_alive < run.n else run for run in old if run.n_alive]
            self._runs = [*old, last] if last.n_alive or last.room() else old

    def copy(self) -> "Places":
        """One that goes its own way."""
        new = Places()
        new._runs, new._dict = [run.copy() for run in self._runs], self._dict.copy()
        new._n = self._n
        return new

    def items(self) -> tuple[list[Any], I8]:
        """Keys and puts, by put."""
        if self._dict:
            order = sorted(self._dict.items(), key=lambda pair: pair[1])
            return [k for k, _ in order], np.array([at for _, at in order], dtype=np.int64)
        parts = [run.living() for run in self._runs]
        none = np.zeros(0, dtype=np.int64)
        keys = np.concatenate([none, *(part.keys for part in parts)])
        return keys.tolist(), np.concatenate([none, *(part.puts for part in parts)])


def plain(keys: NDArray[Any]) -> list[Any]:
    """Keys as Python's own values."""
    if keys.dtype.kind != "O":
        return list(keys.tolist())
    return [key.item() if isinstance(key, np.generic) else key for key in keys.tolist()]
