"""KSWIN: a drift detector that compares the newest values with those before, in distribution."""

import math

import numpy as np
from river import base

from streamlearn.block import F8, I8
from streamlearn.contracts import Finding, Json
from streamlearn.jit.kswin import (
    ALARMED,
    FED,
    SIZES,
    WHERE,
    kswin_first_alarm,
    kswin_statistics,
    share_outside,
)
from streamlearn.jit.limits import RANKS
from streamlearn.operators import _checks
from streamlearn.operators._calibrated import CALIBRATION, Calibrated

_LEAST_DISTANCE = 0.1  # an alarm needs more, however small the p-value: KSWIN's own rule


class KSWIN(Calibrated, base.DriftDetector):
    """Kolmogorov-Smirnov windowing: an alarm when the newest values have another distribution.

    Compares the `stat_size` newest of `window_size` values with all the others by the two-sample
    KS test, after every value once the window is full: an alarm where the exact p-value is <= alpha
    and the distance > 0.1. River's KSWIN draws `stat_size` of the older values at random; here all
    of them are used, which needs no generator and finds more. After an alarm the next value starts
    an empty window. A NaN is skipped. A value that is infinite or beyond 1e100 in size is skipped
    and counted in `n_rejected`.
    Args:
        alpha: significance of one test, in (0, 1).
        window_size: values in the window, > stat_size.
        stat_size: newest values that are tested against the others, >= 1.
        average_run_length: events between false alarms without drift, 1,000 to 100,000, whatever
            the distribution and the age; then `alpha` is not used, and the others
            stay at their defaults. None: as published, which claims nothing.
        seed: of the generator behind calibrated alarms.
    State:
        ordered_: (window_size,) float64, the window's values in ascending order.
        gaps_: (window_size,) int64, by rank: counts of older less newest values, weighted.
        ring_: (window_size,) float64, the window's values in the order of arrival, a ring.
        counts_: (3,) int64, values fed, alarmed, the signed gap of the last test.
    Cost: O(log(window_size)) comparisons and moves of O(window_size) contiguous numbers an event;
    nothing is sorted. Making one costs O(window_size^2 log(window_size)) once, for the exact bound.
    Raises: ValueError for a parameter out of range.
    Reference: Raab, Heusinger and Schleif (2020), Reactive soft prototype computing for concept
    drift streams; Hodges (1958), The significance probability of the Smirnov two-sample test.
    >>> detector = KSWIN()
    >>> detector.first_alarm(np.concatenate((np.arange(500) % 2, np.arange(500) % 4))) > 500
    True
    """

    _arrays = ("ordered_", "gaps_", "ring_", "counts_", *CALIBRATION)
    _counters = ("n_detections", "n_rejected")

    _shape = ("window_size", "stat_size")
    _takes = RANKS  # bits, too: no limits by rate are needed

    def __init__(
        self,
        alpha: float = 0.005,
        window_size: int = 100,
        stat_size: int = 30,
        average_run_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.alpha = _checks.positive("KSWIN", "alpha", alpha)
        if self.alpha >= 1.0:
            raise ValueError(f"KSWIN: alpha must be < 1, got {alpha!r}")
        self.stat_size = _checks.whole("KSWIN", "stat_size", stat_size, 1)
        self.window_size = _checks.whole("KSWIN", "window_size", window_size, self.stat_size + 1)
        self.ordered_: F8 = np.zeros(self.window_size)
        self.gaps_: I8 = np.zeros(self.window_size, dtype=np.int64)
        self.ring_: F8 = np.zeros(self.window_size)
        self.counts_: I8 = np.zeros(SIZES, dtype=np.int64)
        self.n_detections = 0
        self.n_rejected = 0
        self._limit = self._critical()
        self._calibrate(average_run_length, seed)

    def _statistics(self, scores: F8, out: F8) -> None:
        kswin_statistics(
            scores, self.ordered_, self.gaps_, self.ring_, self.counts_, self.stat_size, out
        )

    def _alarm(self) -> None:
        self.counts_[ALARMED] = 1

    @property
    def _steps(self) -> int:
        """Distances are multiples of one part in so many."""
        return math.lcm(self.window_size - self.stat_size, self.stat_size)

    def _exact(self, gap: int) -> float:
        n0 = self.window_size - self.stat_size
        return share_outside(n0, self.stat_size, gap, np.zeros(self.stat_size + 1))

    def _critical(self) -> float:
        """Halfway below the least distance whose p-value is <= alpha; inf where there is none.

        Halfway: a distance is a quotient, and its last bit must not matter.
        """
        low, high = int(_LEAST_DISTANCE * self._steps + 1e-9) + 1, self._steps + 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._exact(middle) <= self.alpha else (middle + 1, high)
        return math.inf if low > self._steps else (low - 0.5) / self._steps

    def _first(self, values: F8) -> tuple[int, int]:
        return kswin_first_alarm(
            values, self.ordered_, self.gaps_, self.ring_, self.counts_, self.stat_size, self._limit
        )

    def finding(self) -> Finding:
        """The KS distance, its p-value, and whether the newest values are larger or smaller."""
        how: Finding = {"how": "rose" if self.rose else "fell", "p_value": self.p_value}
        return super().finding() | how | self.standing

    @property
    def standing(self) -> dict[str, Json]:
        """The distance of the last test and the one that raises an alarm, where one can."""
        said: dict[str, Json] = {"statistic": self.distance, "window": self.window_size}
        said |= {"limit": self._limit} if math.isfinite(self._limit) else {}
        return said | super().standing

    @property
    def rose(self) -> bool:
        """Whether the newest values were larger at the alarm of the last value; else False."""
        return bool(self.counts_[ALARMED]) and int(self.counts_[WHERE]) > 0

    @property
    def distance(self) -> float:
        """KS distance of the last test, in [0, 1]; 0.0 before the window is full."""
        return abs(int(self.counts_[WHERE])) / self._steps

    @property
    def p_value(self) -> float:
        """Exact p-value of the last test, for values without ties; 1.0 before a full window."""
        full = int(self.counts_[FED]) >= self.window_size
        return self._exact(abs(int(self.counts_[WHERE]))) if full else 1.0
