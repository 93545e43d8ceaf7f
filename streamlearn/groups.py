"""Groups of rows by the value of a column, with a cap on how many are told apart."""

from typing import Any

import numpy as np

from streamlearn.block import I8
from streamlearn.contracts import Json

MISSING, OTHER = "(missing)", "(other)"


class Groups:
    """Codes of the values of a column in order of first appearance; beyond the cap all are one.

    Args:
        cap: values that get a group of their own; a missing value is one of them.
    """

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.names: list[Any] = []
        self._codes = _Codes(self)

    def __len__(self) -> int:
        return len(self.names)

    def codes(self, values: Any) -> I8:
        """The codes (n,) of values (n,). Some 50 ns a row."""
        rows = values.tolist()
        return np.fromiter(map(self._codes.__getitem__, rows), dtype=np.int64, count=len(rows))

    def shown(self) -> list[str]:
        """The names as text."""
        return [str(name) for name in self.names]

    def open(self, name: Any) -> int:
        """The code of a name, which is appended unless there are too many."""
        if name in self._codes:
            return self._codes[name]
        if len(self.names) >= self.cap and name != OTHER:
            return self.open(OTHER)
        self.names.append(name)
        self._codes[name] = len(self.names) - 1
        return len(self.names) - 1

    def state(self) -> list[Json]:
        """The names, for `load`."""
        return list(self.names)

    def load(self, names: list[Json]) -> None:
        """Take over what `state` gave."""
        self.names = list(names)
        self._codes = _Codes(self)
        self._codes.update({name: code for code, name in enumerate(names)})


class _Codes(dict[Any, int]):
    """Looks up in C; only what is new, missing or of a strange type comes here."""

    def __init__(self, groups: Groups) -> None:
        super().__init__()
        self._groups = groups

    def __missing__(self, value: Any) -> int:
        if value is None or value != value:
            return self._groups.open(MISSING)
        if isinstance(value, np.generic):
            return self[value.item()]
        known = isinstance(value, (str, int, float))
        return self._groups.open(value if known else str(value))
