"""HDDM: an alarm when a mean has left its best past by more than Hoeffding's bound allows."""

import math

from river import base

from streamlearn.block import F8
from streamlearn.jit.hoeffding import (
    SIZE_A,
    SIZE_W,
    hddm_a_first_alarm,
    hddm_a_statistics,
    hddm_w_first_alarm,
    hddm_w_statistics,
)
from streamlearn.operators import _checks
from streamlearn.operators._one_number import WarningDetector

_NEAR = 0.99  # below this share of the nearer limit no rounding makes a warning


def _confidence(owner: str, name: str, value: float) -> float:
    """A number in (0, 1)."""
    if _checks.positive(owner, name, value) >= 1.0:
        raise ValueError(f"{owner}: {name} must be < 1, got {value!r}")
    return float(value)


def _gate(drift_log: float, warning_log: float) -> float:
    """The statistic, in units of the drift's limit, from which on the warning is looked at."""
    return _NEAR * min(1.0, math.sqrt(warning_log / drift_log))


class HDDM_A(WarningDetector, base.BinaryDriftAndWarningDetector):  # River's name
    """Hoeffding's drift detection with averages: the mean of all against that of its best prefix.

    An alarm when the mean of all values since the restart is above that of the prefix with the
    least upper bound by more than Hoeffding's bound for the difference. For values in [0, 1], not
    bits alone; 1 = wrong. Arguments, constants, warnings and alarms are those of River 0.26 (its
    `HDDMA`), index by index. After an alarm the next value starts anew. A NaN is skipped. A value
    outside [0, 1] is skipped and counted in `n_rejected`.
    Args:
        drift_confidence: significance of the test for an alarm, in (0, 1).
        warning_confidence: significance of the test for a warning, in (0, 1).
        two_sided_test: falls of the mean count, too.
        average_run_length: events between false alarms without drift, 1,000 to 100,000, whatever
            the distribution and the age; then `warning_confidence` is not used, and the others
            stay at their defaults. None: as published, which claims nothing.
        seed: of the generator behind calibrated alarms.
    State:
        state_: (10,) float64, the last statistic and limit, count, mean, prefixes and their means.
    Cost: O(1) an event, some ten nanoseconds; memory fixed.
    Raises: ValueError for a parameter out of range.
    Reference: Frías-Blanco, del Campo-Ávila, Ramos-Jiménez, Morales-Bueno, Ortiz-Díaz and
        Caballero-Mota (2015), Online and non-parametric drift detection methods based on
        Hoeffding's bounds, IEEE TKDE 27(3).
    >>> import numpy as np
    >>> detector = HDDM_A()
    >>> detector.first_alarm(np.repeat([0.0, 1.0], 500))
    503
    """

    _size = SIZE_A

    _shape = ("drift_confidence", "two_sided_test")

    def __init__(
        self,
        drift_confidence: float = 0.001,
        warning_confidence: float = 0.005,
        two_sided_test: bool = False,
        average_run_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        owner = "HDDM_A"
        self.drift_confidence = _confidence(owner, "drift_confidence", drift_confidence)
        self.warning_confidence = _confidence(owner, "warning_confidence", warning_confidence)
        self.two_sided_test = _checks.truth(owner, "two_sided_test", two_sided_test)
        cut = math.log(1.0 / self.drift_confidence)
        drift, warning = (
            math.log(2.0 / c) for c in (self.drift_confidence, self.warning_confidence)
        )
        gate = _gate(drift, warning)
        self._start(cut, drift, warning, self.two_sided_test, 0.0, gate)
        self._calibrate(average_run_length, seed)

    def _statistics(self, scores: F8, out: F8) -> None:
        hddm_a_statistics(scores, self.state_, self._settings, out)

    def _first(self, values: F8) -> tuple[int, int]:
        return hddm_a_first_alarm(values, self.state_, self._settings)


class HDDM_W(WarningDetector, base.BinaryDriftAndWarningDetector):  # River's name
    """Hoeffding's drift detection with weighted averages: the mean since the best past against it.

    Means are weighted exponentially, their bound is McDiarmid's. An alarm when the mean since the
    cut, the point with the least upper bound, is above the mean up to it by more than the bound for
    the difference. For values in [0, 1], not bits alone; 1 = wrong. Arguments, constants, warnings
    and alarms are those of River 0.26 (its `HDDMW`), index by index. After an alarm the next value
    starts anew. A NaN is skipped. A value outside [0, 1] is skipped and counted in `n_rejected`.
    Args:
        drift_confidence: significance of the test for an alarm, in (0, 1).
        warning_confidence: significance of the test for a warning, in (0, 1).
        lambda_val: weight of the newest value in a mean, in (0, 1).
        two_sided_test: falls of the mean count, too.
        average_run_length: events between false alarms without drift, 1,000 to 100,000, whatever
            the distribution and the age; then `warning_confidence` is not used, and the others
            stay at their defaults. None: as published, which claims nothing.
        seed: of the generator behind calibrated alarms.
    State:
        state_: (22,) float64, the last statistic and limit, count, five means and two cuts.
    Cost: O(1) an event, some ten nanoseconds; memory fixed.
    Raises: ValueError for a parameter out of range.
    Reference: Frías-Blanco, del Campo-Ávila, Ramos-Jiménez, Morales-Bueno, Ortiz-Díaz and
        Caballero-Mota (2015), Online and non-parametric drift detection methods based on
        Hoeffding's bounds, IEEE TKDE 27(3).
    >>> import numpy as np
    >>> detector = HDDM_W()
    >>> detector.first_alarm(np.repeat([0.0, 1.0], 500))
    510
    """

    _size = SIZE_W

    _shape = ("drift_confidence", "lambda_val", "two_sided_test")

    def __init__(
        self,
        drift_confidence: float = 0.001,
        warning_confidence: float = 0.005,
        lambda_val: float = 0.05,
        two_sided_test: bool = False,
        average_run_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        owner = "HDDM_W"
        self.drift_confidence = _confidence(owner, "drift_confidence", drift_confidence)
        self.warning_confidence = _confidence(owner, "warning_confidence", warning_confidence)
        self.lambda_val = _confidence(owner, "lambda_val", lambda_val)
        self.two_sided_test = _checks.truth(owner, "two_sided_test", two_sided_test)
        drift, warning = (
            math.log(1.0 / c) for c in (self.drift_confidence, self.warning_confidence)
        )
        gate = _gate(drift, warning)
        self._start(drift, drift, warning, self.two_sided_test, self.lambda_val, gate)
        self._calibrate(average_run_length, seed)

    def _statistics(self, scores: F8, out: F8) -> None:
        hddm_w_statistics(scores, self.state_, self._settings, out)

    def _first(self, values: F8) -> tuple[int, int]:
        return hddm_w_first_alarm(values, self.state_, self._settings)
