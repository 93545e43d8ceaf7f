"""Keys of events as the 64-bit numbers that a bank knows them by; not exported."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import I8
from streamlearn.jit.bank import NO_KEY

_LEAST, _TOP = NO_KEY + 1, 2**63 - 1  # integers that are numbers of their own
_MOST = 1 << 20  # texts whose numbers are remembered


class Codes:
    """A number for each key: an integer is its own, text has 64 bits of its BLAKE2b digest.

    An integer that 64 bits do not hold, or that is `NO_KEY`, counts as its digits. Two texts share
    a number with probability 2^-64 a pair: 3e-8 for a million keys. None, NaN and an empty text are
    no key. So nothing has to be remembered, and no two processes differ.
    """

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}

    def of(self, keys: NDArray[Any] | None, n: int) -> I8:
        """The numbers of a column of keys, (n,). Raises: TypeError for what is no key."""
        if keys is None:
            return np.full(n, NO_KEY)
        if keys.dtype.kind in "iu" and _LEAST <= keys.min(initial=0) <= keys.max(initial=0) <= _TOP:
            return np.ascontiguousarray(keys, dtype=np.int64)
        listed = keys.tolist()
        if {*map(type, listed)} == {str} and "" not in listed:
            known = self._texts.get
            told = [known(key) for key in listed]
            if None not in told:
                return np.array(told, dtype=np.int64)
        return np.array([self.one(key) for key in listed], dtype=np.int64)

    def one(self, key: Any) -> int:
        """The number of one key."""
        key = key.item() if isinstance(key, np.generic) else key
        if key is None or key == "" or key != key:
            return NO_KEY
        if isinstance(key, int) and not isinstance(key, bool):
            if _LEAST <= key <= _TOP:
                return key
            key = str(key)
        if not isinstance(key, str):
            raise TypeError(f"a key must be an integer, text or None, got {key!r}")
        found = self._texts.get(key)
        if found is None:
            if len(self._texts) >= _MOST:
                self._texts.clear()
            digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            found = self._texts[key] = int.from_bytes(digest, "little", signed=True)
        return found
