"""ADWIN: a drift detector whose window is as long as the mean stands still."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from river import base

from streamlearn.block import F8, I8
from streamlearn.contracts import Finding, Json
from streamlearn.jit.adwin import (
    ALARMED,
    PLACE,
    ROSE,
    SIZES,
    SPREAD,
    TOLD,
    TOTAL,
    WIDTH,
    adwin_calibrated,
    adwin_first_alarm,
)
from streamlearn.operators import _checks
from streamlearn.operators._calibrated import CALIBRATION, Calibrated

_LEVELS = 48  # room for max_buckets * 2 ** 48 values: more than any stream has
_AT_ONCE = 64  # alarms of one walk: nothing is walked twice, and few walks tell of many


class ADWIN(Calibrated, base.DriftDetector):
    """Adaptive windowing: an alarm when two parts of the newest window differ in their means.

    Arguments, constants and alarms are those of River 0.26, index by index. After an alarm the
    next value starts an empty window; `n_detections` goes on counting (River's starts again). A
    NaN is skipped. A value that is infinite or beyond 1e100 in size is skipped and counted in
    `n_rejected`.
    Args:
        delta: significance of one test, in (0, 1); smaller means fewer false alarms, later.
        clock: a test every so many values, >= 1.
        max_buckets: buckets of one size before the two oldest merge, >= 1.
        min_window_length: the least number of values on either side of a cut, >= 1.
        grace_period: no test before the window is longer than this, >= 0.
        average_run_length: events between false alarms, 1,000 to 100,000, whatever the stream's
            distribution and the detector's age (`Calibrated`); then delta is not used, and the
            others stay at their defaults. None: `delta` as published, which claims nothing.
        seed: of the tie-breaks of calibrated alarms.
    State:
        buckets_: (2, 48, max_buckets + 1) float64, sum and spread of each bucket, by level.
        counts_: (52,) int64, levels in use, values fed, width, alarmed, buckets of each level.
        window_: (2,) float64, sum and spread of the whole window.
    Cost: amortised O(1 + log(width) / clock) an event; memory fixed, whatever the width.
    Raises: ValueError for a parameter out of range.
    Reference: Bifet and Gavaldà (2007), Learning from time-changing data with adaptive windowing.
    >>> detector = ADWIN()
    >>> detector.first_alarm(np.repeat([0.0, 1.0], 1000))
    1023
    >>> detector.n_detections
    1
    """

    _arrays = ("buckets_", "counts_", "window_", *CALIBRATION)
    _counters = ("n_detections", "n_rejected")
    _shape = ("clock", "max_buckets", "min_window_length", "grace_period")

    def __init__(
        self,
        delta: float = 0.002,
        clock: int = 32,
        max_buckets: int = 5,
        min_window_length: int = 5,
        grace_period: int = 10,
        average_run_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.delta = _checks.positive("ADWIN", "delta", delta)
        if self.delta >= 1.0:
            raise ValueError(f"ADWIN: delta must be < 1, got {delta!r}")
        self.clock = _checks.whole("ADWIN", "clock", clock, 1)
        self.max_buckets = _checks.whole("ADWIN", "max_buckets", max_buckets, 1)
        self.min_window_length = _checks.whole("ADWIN", "min_window_length", min_window_length, 1)
        self.grace_period = _checks.whole("ADWIN", "grace_period", grace_period, 0)
        self.buckets_: F8 = np.zeros((2, _LEVELS, self.max_buckets + 1))
        self.counts_: I8 = np.zeros(SIZES + _LEVELS, dtype=np.int64)
        self.window_: F8 = np.zeros(2)
        self.n_detections = 0
        self.n_rejected = 0
        self._one, self._many = np.empty((1, TOLD)), np.empty((_AT_ONCE, TOLD))
        self._calibrate(average_run_length, seed)

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """As published, and calibrated."""
        yield {}
        yield {"average_run_length": 1000}

    def _first(self, values: F8) -> tuple[int, int]:
        return adwin_first_alarm(
            values, self.buckets_, self.counts_, self.window_,
            self.delta, self.clock, float(self.min_window_length), self.grace_period,
        )  # fmt: skip

    def _first_calibrated(self, values: F8) -> int:
        alarms = self._walk_calibrated(values, self._one)[1]
        return int(self._one[0, PLACE]) if alarms else -1

    def alarms(self, values: F8) -> list[tuple[int, Finding]]:
        """Feed all values (n,); the rows that raised an alarm, each with its finding."""
        if self.average_run_length is None:
            return super().alarms(values)
        values = np.asarray(values, dtype=np.float64)
        raised: list[tuple[int, Finding]] = []
        start, n = 0, values.shape[0]
        while start < n:
            fed, alarms = self._walk_calibrated(values[start:], self._many)
            if alarms == 0:
                break
            for at, way, mean, window, said, limit in self._many[:alarms].tolist():
                told = self._told(way == ROSE, mean, int(window), said, limit)
                raised.append((start + int(at), told))
            start += fed
        return raised

    def _take(self, found: dict[str, Any]) -> None:
        super()._take(found)
        least = float(self.min_window_length)
        self._fixed = self.clock, least, self.grace_period, self._warm_up, self._key

    def _walk_calibrated(self, values: F8, told: F8) -> tuple[int, int]:
        """Feed values up to the alarm that fills told; how many, and how many alarms there were."""
        fed, alarms, refused = adwin_calibrated(
            values,
            (self.buckets_, self.counts_, self.window_),
            (self.tally_, self.edges_, self.slots_, self.last_),
            self._fixed,
            (self._limits, self._jitter),
            told,
        )
        self.n_rejected += int(refused)  # without the JIT, kernels give numpy's integers
        self.n_detections += int(alarms)
        return int(fed), int(alarms)

    def finding(self) -> Finding:
        """What the mean of the window did, and its length once the older part was dropped."""
        if self.average_run_length is not None:
            return self._told(self.rose, self.estimation, self.width, *self.last_.tolist())
        how = "rose" if self.rose else "fell"
        return super().finding() | {"how": how, "mean": self.estimation, "window": self.width}

    def _told(self, rose: bool, mean: float, window: int, said: float, limit: float) -> Finding:
        """The finding of a calibrated alarm, from what is told of it."""
        return {
            "detector": type(self).__name__,
            "watches": self.watches,
            "mean": mean,
            "window": window,
            "statistic": said,
            "limit": limit,
            "average_run_length": self.average_run_length,
            "how": "rose" if rose else "fell",
        }

    @property
    def standing(self) -> dict[str, Json]:
        """The mean of the window and its length."""
        return {"mean": self.estimation, "window": self.width} | super().standing

    @property
    def rose(self) -> bool:
        """Whether the mean rose at the alarm of the last value; False when that raised none."""
        return int(self.counts_[ALARMED]) == ROSE

    @property
    def width(self) -> int:
        """Number of values in the window."""
        return int(self.counts_[WIDTH])

    @property
    def total(self) -> float:
        """Sum of the values in the window."""
        return float(self.window_[TOTAL])

    @property
    def variance(self) -> float:
        """Sum of squared deviations from the window's mean, which River calls its variance."""
        return float(self.window_[SPREAD])

    @property
    def estimation(self) -> float:
        """Mean of the values in the window; 0.0 when it is empty."""
        return self.total / self.width if self.width else 0.0
