"""What a live page remembers: the last minutes finely, the last day coarsely, never more.

Every number is kept by the second for ten minutes, by ten seconds for two hours and by two minutes
for a day, whatever the length of the run.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from streamlearn.block import F8


class Tier(NamedTuple):
    """How finely, and for how long: one point each `step` seconds, the last `points` of them."""

    step: float
    points: int


_EARLY = 0.5  # seconds that a point may come before its step has passed
TIERS = (Tier(1.0, 600), Tier(10.0, 720), Tier(120.0, 720))


class History:
    """Columns of numbers over time, in rings of fixed size.

    Args:
        columns: their names; the first of each point is always `t`, seconds since 1970.
        tiers: from fine to coarse.
    Cost: `add` O(columns) a tier; memory 8 bytes a number, 180 kB with ten columns.
    """

    def __init__(self, columns: Sequence[str], tiers: Sequence[Tier] = TIERS) -> None:
        self.columns = ("t", *columns)
        self.tiers = tuple(tiers)
        self._rings = [np.full((tier.points, len(self.columns)), math.nan) for tier in self.tiers]
        self._taken = [0] * len(self.tiers)
        self._last = [-math.inf] * len(self.tiers)

    def add(self, t: float, values: Sequence[float | None]) -> None:
        """A point; None is unknown. A tier takes it if its step has passed since its last one."""
        point = [t, *(math.nan if value is None else value for value in values)]
        for k, tier in enumerate(self.tiers):
            if self._last[k] <= t < self._last[k] + tier.step - _EARLY:  # a clock may go back
                continue
            self._rings[k][self._taken[k] % tier.points] = point
            self._taken[k] += 1
            self._last[k] = t

    def points(self, tier: int) -> F8:
        """(n, columns) of a tier, oldest first; NaN is unknown."""
        ring, taken = self._rings[tier], self._taken[tier]
        if taken <= len(ring):
            return ring[:taken].copy()
        return np.roll(ring, -(taken % len(ring)), axis=0)

    def column(self, name: str, tier: int, most: int) -> list[float | None]:
        """The last values of a column, at most so many."""
        found = self.points(tier)[-most:, self.columns.index(name)].tolist()
        return [None if math.isnan(value) else value for value in found]

    def plain(self) -> list[dict[str, list[float | None]]]:
        """All tiers as columns of plain numbers."""
        return [
            {name: self.column(name, k, tier.points) for name in self.columns}
            for k, tier in enumerate(self.tiers)
        ]
