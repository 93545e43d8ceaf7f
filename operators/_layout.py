"""How wide the records of a bank are, and the same records in another width; not exported."""

from typing import NamedTuple

import numpy as np

from streamlearn.block import F8
from streamlearn.jit import bank


class Layout(NamedTuple):
    """d features and K outputs; variance: of a weight of which nothing is known.

    moments: of each feature, where keys scale theirs themselves, else 0.
    """

    d: int
    K: int
    variance: float
    moments: int = 0

    @property
    def stride(self) -> int:
        """Length of a record."""
        return bank.stride_of(1 + self.d, self.K, self.moments)

    def blank(self, delta: float = 0.0, log_alpha: float = 0.0) -> F8:
        """The record of a model that knows nothing."""
        record = np.zeros(self.stride)
        record[bank.DELTA], record[bank.LOG_ALPHA] = delta, log_alpha
        record[bank.HEAD + 2 * self.K : bank.HEAD + 3 * self.K] = 1.0  # variance scales
        record[self.diagonal()] = self.variance
        return record

    def diagonal(self) -> list[int]:
        """Places of the diagonal of the triangle."""
        start = bank.triangle_at(1 + self.d, self.K)
        return [start + i * (i + 3) // 2 for i in range(1 + self.d)]


def relaid(records: F8, old: Layout, new: Layout) -> F8:
    """Records (n, stride) in another layout: what is new knows nothing, what is not there is cut.

    Exact for a feature that was always 0 and for an output that never came.
    """
    if old[:2] == new[:2]:
        return records
    n, d, K = records.shape[0], min(old.d, new.d), min(old.K, new.K)
    out = np.empty((n, new.stride))
    out[:] = new.blank()
    out[:, : bank.HEAD] = records[:, : bank.HEAD]
    for i in range(3):
        _copy(out, records, K, [bank.HEAD + i * layout.K for layout in (new, old)])
    for i in range(2):
        _copy(out, records, d, [bank.inputs_at(x.K) + i * x.d for x in (new, old)])
    for k in range(K):
        places = [bank.weights_at(1 + x.d, x.K) + k * (1 + x.d) for x in (new, old)]
        _copy(out, records, 1 + d, places)
    places = [bank.triangle_at(1 + x.d, x.K) for x in (new, old)]
    _copy(out, records, (1 + d) * (2 + d) // 2, places)
    for i in range(new.moments):
        _copy(out, records, d, [bank.moments_at(1 + x.d, x.K) + i * x.d for x in (new, old)])
    return out


def _copy(out: F8, records: F8, width: int, places: list[int]) -> None:
    """Columns of records that begin at the second place into those of out at the first."""
    into, came = places
    out[:, into : into + width] = records[:, came : came + width]
