"""Page-Hinkley and CUSUM: an alarm when deviations from the running mean add up."""

from river import base

from streamlearn.block import F8
from streamlearn.jit.change_sums import (
    DOWN,
    HIGH,
    LOW,
    SIZE,
    UP,
    cusum_first_alarm,
    cusum_statistics,
    page_hinkley_first_alarm,
    page_hinkley_statistics,
)
from streamlearn.operators import _checks
from streamlearn.operators._one_number import OneNumberDetector

MODES = ("up", "down", "both")


def _watched(owner: str, mode: str) -> tuple[float, float]:
    """Whether rises and falls are watched, as the kernel reads it."""
    _checks.choice(owner, "mode", mode, MODES)
    return float(mode != "down"), float(mode != "up")


class PageHinkley(OneNumberDetector, base.DriftDetector):
    """Page-Hinkley test: an alarm when a faded sum of deviations is far from its extreme.

    After each value, with m the running mean: up = alpha up + (x - m) - delta, down = alpha down +
    (x - m) + delta. An alarm when up is more than `threshold` above its least, or down as much
    below its greatest. Arguments, constants and alarms are those of River 0.26, index by index.
    After an alarm the next value starts anew. A NaN is skipped. A value that is infinite or beyond
    1e100 in size is skipped and counted in `n_rejected`.
    Args:
        min_instances: no alarm before so many values, >= 0.
        delta: the deviation that is tolerated, in units of the values.
        threshold: how far from the extreme is too far, in units of the values, > 0.
        alpha: what a sum keeps at each value, in (0, 1].
        mode: which changes of the mean count, "up", "down" or "both".
        average_run_length: events between false alarms without drift, 1,000 to 100,000, whatever
            the distribution and the age; then `threshold` is not used, and the others stay at
            their defaults. None: as published, which claims nothing.
        seed: of the generator behind calibrated alarms.
    State:
        state_: (10,) float64, the last statistic and limit, count, mean, sums and extremes.
    Cost: O(1) an event, some nanoseconds; memory fixed.
    Raises: ValueError for a parameter out of range.
    Reference: Page (1954), Continuous inspection schemes; Mouss, Mouss, Mouss and Sefouhi (2004),
        Test of Page-Hinkley, an approach for fault detection.
    >>> import numpy as np
    >>> detector = PageHinkley()
    >>> detector.first_alarm(np.repeat([0.0, 1.0], 500))
    553
    >>> detector.rose
    True
    """

    _size = SIZE

    _shape = ("min_instances", "delta", "alpha", "mode")

    def __init__(
        self,
        min_instances: int = 30,
        delta: float = 0.005,
        threshold: float = 50.0,
        alpha: float = 1 - 0.0001,
        mode: str = "both",
        average_run_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.min_instances = _checks.whole("PageHinkley", "min_instances", min_instances, 0)
        self.delta = _checks.number("PageHinkley", "delta", delta)
        self.threshold = _checks.positive("PageHinkley", "threshold", threshold)
        self.alpha = _checks.positive("PageHinkley", "alpha", alpha)
        if self.alpha > 1.0:
            raise ValueError(f"PageHinkley: alpha must be <= 1, got {alpha!r}")
        self.mode = mode
        up, down = _watched("PageHinkley", mode)
        self._start(self.min_instances, self.delta, self.threshold, self.alpha, up, down)
        self._calibrate(average_run_length, seed)

    def _statistics(self, scores: F8, out: F8) -> None:
        page_hinkley_statistics(scores, self.state_, self._settings, out)

    def _rises(self) -> bool:
        up, low, high, down = (float(self.state_[place]) for place in (UP, LOW, HIGH, DOWN))
        return up - low >= high - down

    def _first(self, values: F8) -> tuple[int, int]:
        return page_hinkley_first_alarm(values, self.state_, self._settings)


class CUSUM(OneNumberDetector, base.DriftDetector):
    """Cumulative sum test: an alarm when a sum of deviations, never below 0, passes a threshold.

    After each value, with m the running mean: up = max(0, up + (x - m) - delta), down = max(0,
    down - (x - m) - delta). Constants and alarms are those of frouros 0.9, which watches rises.
    After an alarm the next value starts anew. A NaN is skipped. A value that is infinite or beyond
    1e100 in size is skipped and counted in `n_rejected`.
    Args:
        min_instances: no alarm before so many values, >= 0.
        delta: the deviation that is tolerated, in units of the values.
        threshold: the sum that is too large, in units of the values, > 0.
        mode: which changes of the mean count, "up", "down" or "both".
        average_run_length: events between false alarms without drift, 1,000 to 100,000, whatever
            the distribution and the age; then `threshold` is not used, and the others
            stay at their defaults. None: as published, which claims nothing.
        seed: of the generator behind calibrated alarms.
    State:
        state_: (10,) float64, the last statistic and limit, count, mean and sums.
    Cost: O(1) an event, some nanoseconds; memory fixed.
    Raises: ValueError for a parameter out of range.
    Reference: Page (1954), Continuous inspection schemes.
    >>> import numpy as np
    >>> detector = CUSUM()
    >>> detector.first_alarm(np.repeat([0.0, 1.0], 500))
    552
    """

    _size = SIZE

    _shape = ("min_instances", "delta", "mode")

    def __init__(
        self,
        min_instances: int = 30,
        delta: float = 0.005,
        threshold: float = 50.0,
        mode: str = "up",
        average_run_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.min_instances = _checks.whole("CUSUM", "min_instances", min_instances, 0)
        self.delta = _checks.number("CUSUM", "delta", delta)
        self.threshold = _checks.positive("CUSUM", "threshold", threshold)
        self.mode = mode
        up, down = _watched("CUSUM", mode)
        self._start(self.min_instances, self.delta, self.threshold, 1.0, up, down)
        self._calibrate(average_run_length, seed)

    def _statistics(self, scores: F8, out: F8) -> None:
        cusum_statistics(scores, self.state_, self._settings, out)

    def _rises(self) -> bool:
        return float(self.state_[UP]) >= float(self.state_[DOWN])

    def _first(self, values: F8) -> tuple[int, int]:
        return cusum_first_alarm(values, self.state_, self._settings)
