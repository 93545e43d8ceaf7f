"""FHDDM and STEPD: drift detectors on error bits that look at a window of the newest ones."""

import math
from statistics import NormalDist

import numpy as np
from river import base

from streamlearn.block import F8, I8, U1
from streamlearn.contracts import Finding, Json
from streamlearn.jit.error_windows import (
    ALARMED,
    ALL,
    FED,
    FELL,
    NEWEST,
    ROSE,
    SIZES,
    fhddm_first_alarm,
    fhddm_statistics,
    stepd_first_alarm,
    stepd_statistics,
)
from streamlearn.operators import _checks
from streamlearn.operators._calibrated import CALIBRATION, Calibrated


class _ErrorWindow(Calibrated, base.DriftDetector):
    """What both share: a ring of the newest bits, counts, and the last statistic."""

    _arrays = ("ring_", "counts_", "said_", *CALIBRATION)
    _counters = ("n_detections", "n_rejected")

    def _begin(self, window: int) -> None:
        self.ring_: U1 = np.zeros(window, dtype=np.uint8)
        self.counts_: I8 = np.zeros(SIZES, dtype=np.int64)
        self.said_: F8 = np.full(1, -math.inf)
        self.n_detections = 0
        self.n_rejected = 0

    def _alarm(self) -> None:
        self.said_[0] = self.last_[0]
        self.counts_[ALARMED] = ROSE if self._rises() else FELL

    def _rises(self) -> bool:
        """Of a calibrated alarm, just raised: whether errors rose."""
        return True

    def finding(self) -> Finding:
        """What the errors did, and what the detector stands at."""
        return super().finding() | {"how": "rose" if self.rose else "fell"} | self.standing

    @property
    def standing(self) -> dict[str, Json]:
        """The last statistic where there is one, its limit, and the error rate in the window."""
        said: dict[str, Json] = {"limit": self._limit, "mean": self.estimation}
        said["window"] = self.ring_.shape[0]
        if math.isfinite(self.statistic):
            said["statistic"] = self.statistic
        return said | super().standing

    @property
    def _limit(self) -> float:
        """An alarm is raised where the statistic is greater."""
        return 1.0

    @property
    def statistic(self) -> float:
        """The statistic after the last value; -inf as long as there is nothing to say."""
        return float(self.said_[0])

    @property
    def rose(self) -> bool:
        """Whether errors rose at the alarm of the last value; False when that raised none."""
        return int(self.counts_[ALARMED]) == ROSE

    @property
    def estimation(self) -> float:
        """Error rate in the window; 0.0 when it is empty."""
        held = min(int(self.counts_[FED]), self.ring_.shape[0])
        return int(self.counts_[NEWEST]) / held if held else 0.0


class FHDDM(_ErrorWindow):
    """Fast Hoeffding drift detection: an alarm when the newest window is worse than the best one.

    The share of right answers in the newest `sliding_window_size` values is compared with the
    greatest such share since the restart: an alarm where it lies more than
    eps = sqrt(ln(1 / confidence_level) / (2 sliding_window_size)) below it; with a
    `short_window_size`, also where the newest so many do by an eps of their own (the stacking
    variant). Takes 1 = wrong, as all error detectors here; River's FHDDM takes 1 = right, and its
    alarms are those of this one fed with the complement, index by index. After an alarm the next
    value starts an empty window. A NaN is skipped; a value that is neither 0 nor 1 is skipped and
    counted in `n_rejected`.
    Args:
        sliding_window_size: values in the window, and before the first alarm, >= 1.
        confidence_level: chance of error in Hoeffding's bound, in (0, 1).
        short_window_size: values in a second window, in [1, sliding_window_size]; None: no such.
        average_run_length: events between false alarms without drift, 1,000 to 100,000, whatever
            the error rate and the age; then the others stay at their defaults. None: as
            published, which claims nothing.
        seed: of the generator behind calibrated alarms.
    State:
        ring_: (sliding_window_size,) uint8, the newest bits, a ring.
        counts_: (7,) int64, values fed, alarmed, errors in all, in the window and the short one,
            and the least of the last two so far.
        said_: (1,) float64, the fall over its bound after the last value.
    Cost: O(1) an event.
    Raises: ValueError for a parameter out of range.
    Reference: Pesaranghader and Viktor (2016), Fast Hoeffding drift detection method for evolving
    data streams; Pesaranghader et al. (2018), Reservoir of diverse adaptive learners.
    >>> FHDDM().first_alarm(np.repeat([0.0, 1.0], 500))
    526
    """

    _shape = ("sliding_window_size", "confidence_level", "short_window_size")
    _bits_only = True

    def __init__(
        self,
        sliding_window_size: int = 100,
        confidence_level: float = 1e-6,
        short_window_size: int | None = None,
        average_run_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.sliding_window_size = _checks.whole(
            "FHDDM", "sliding_window_size", sliding_window_size, 1
        )
        self.confidence_level = _checks.positive("FHDDM", "confidence_level", confidence_level)
        if self.confidence_level >= 1.0:
            raise ValueError(f"FHDDM: confidence_level must be < 1, got {confidence_level!r}")
        self.short_window_size = short_window_size
        if short_window_size is not None:
            _checks.whole("FHDDM", "short_window_size", short_window_size, 1)
            if short_window_size > sliding_window_size:
                rule = f"short_window_size must be <= sliding_window_size ({sliding_window_size})"
                raise ValueError(f"FHDDM: {rule}, got {short_window_size!r}")
        self._begin(self.sliding_window_size)
        self._calibrate(average_run_length, seed)

    def _eps(self, window: int) -> float:
        return math.sqrt(math.log(1.0 / self.confidence_level) / (2.0 * window))

    def _statistics(self, scores: F8, out: F8) -> None:
        eps = self._eps(self.sliding_window_size)
        fhddm_statistics(scores, self.ring_, self.counts_, 0, eps, out)

    def _first(self, values: F8) -> tuple[int, int]:
        short = self.short_window_size or 0
        return fhddm_first_alarm(
            values, self.ring_, self.counts_, self.said_,
            short, self._eps(self.sliding_window_size), self._eps(short) if short else 1.0,
        )  # fmt: skip


class STEPD(_ErrorWindow):
    """Test of equal proportions: an alarm when the newest errors differ from all before them.

    The error rate of the `window_size` newest values is compared with that of all others since the
    restart, once these are as many: z with the continuity correction, and an alarm where its upper
    tail is < alpha_drift, a warning where it is < alpha_warning. Two-sided as published: fewer
    errors are a drift, too; `rose` tells which. Where all values were the same there is no test.
    After an alarm the next value starts anew. A NaN is skipped; a value that is neither 0 nor 1 is
    skipped and counted in `n_rejected`.
    Args:
        window_size: newest values that are tested against the others, >= 1.
        alpha_drift: significance of an alarm, in (0, 1).
        alpha_warning: significance of a warning, in (0, 1), >= alpha_drift.
        average_run_length: events between false alarms without drift, 1,000 to 100,000, whatever
            the error rate and the age; then both alphas are not used, and the others stay at
            their defaults. None: as published, which claims nothing.
        seed: of the generator behind calibrated alarms.
    State:
        ring_: (window_size,) uint8, the newest bits, a ring.
        counts_: (7,) int64, values fed, alarmed, errors in all and in the window.
        said_: (1,) float64, z after the last value.
    Cost: O(1) an event.
    Raises: ValueError for a parameter out of range.
    Reference: Nishida and Yamauchi (2007), Detecting concept drift using statistical testing.
    >>> STEPD().first_alarm(np.repeat([0.0, 1.0], 500))
    501
    """

    _shape = ("window_size",)
    _bits_only = True
    _warns = True

    def __init__(
        self,
        window_size: int = 30,
        alpha_drift: float = 0.003,
        alpha_warning: float = 0.05,
        average_run_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.window_size = _checks.whole("STEPD", "window_size", window_size, 1)
        self.alpha_drift = _checks.positive("STEPD", "alpha_drift", alpha_drift)
        self.alpha_warning = _checks.positive("STEPD", "alpha_warning", alpha_warning)
        if not self.alpha_drift <= self.alpha_warning < 1.0:
            got = f"got alpha_drift {alpha_drift!r} and alpha_warning {alpha_warning!r}"
            raise ValueError(f"STEPD: alpha_drift <= alpha_warning < 1 must hold, {got}")
        self._begin(self.window_size)
        self._calibrate(average_run_length, seed)

    def _statistics(self, scores: F8, out: F8) -> None:
        stepd_statistics(scores, self.ring_, self.counts_, out)

    def _rises(self) -> bool:
        n1, newest = self.window_size, int(self.counts_[NEWEST])
        n0, before = int(self.counts_[FED]) - n1, int(self.counts_[ALL]) - newest
        return newest * n0 >= before * n1

    def _first(self, values: F8) -> tuple[int, int]:
        return stepd_first_alarm(values, self.ring_, self.counts_, self.said_, self._limit)

    def finding(self) -> Finding:
        """What the error rate of the window did against the one before it, and z."""
        newest = int(self.counts_[NEWEST])
        before = (int(self.counts_[ALL]) - newest) / (int(self.counts_[FED]) - self.window_size)
        return super().finding() | {"before": before}

    @property
    def _limit(self) -> float:
        return _upper(self.alpha_drift)

    @property
    def warning_detected(self) -> bool:
        """Whether the last value is in the warning zone and raised no alarm.

        Calibrated: whether it is beyond the limit for a tenth of the run length.
        """
        if self.average_run_length is not None:
            return self.warned
        return not self.counts_[ALARMED] and self.statistic > _upper(self.alpha_warning)


def _upper(alpha: float) -> float:
    """The value that a standard normal exceeds with probability alpha."""
    return -NormalDist().inv_cdf(alpha)
