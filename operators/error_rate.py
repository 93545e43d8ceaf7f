"""DDM, EDDM, RDDM, ECDD: an alarm when errors come more often than they did at their best."""

import numpy as np
from river import base

from streamlearn.block import F8, U1
from streamlearn.contracts import Finding
from streamlearn.jit.error_rate import (
    SINCE,
    SIZE,
    ddm_first_alarm,
    ddm_statistics,
    ecdd_first_alarm,
    ecdd_statistics,
    eddm_first_alarm,
    eddm_statistics,
    rddm_first_alarm,
    rddm_statistics,
)
from streamlearn.operators import _checks
from streamlearn.operators._calibrated import CALIBRATION
from streamlearn.operators._one_number import WarningDetector

_SOON: F8 = np.array([5.0])  # calibrated EDDM speaks from the sixth error on


class DDM(WarningDetector, base.BinaryDriftAndWarningDetector):
    """Drift detection method: the error rate against the best it has been.

    With p the error rate since the restart and s its standard deviation: an alarm when p + s is
    more than `drift_threshold` times s_min above p_min, both from where p + s was least. For bits,
    1 = wrong. Arguments, constants, warnings and alarms are those of River 0.26, index by index.
    After an alarm the next value starts anew. A NaN is skipped. A value other than 0 and 1 is
    skipped and counted in `n_rejected`.
    Args:
        warm_start: no alarm within so many values, >= 0.
        warning_threshold: standard deviations above the best that make a warning, > 0.
        drift_threshold: standard deviations above the best that make an alarm, > 0.
        average_run_length: events between false alarms without drift, 1,000 to 100,000, whatever
            the error rate and the age; then both thresholds are not used, and the others stay at
            their defaults. None: as published, which claims nothing.
        seed: of the generator behind calibrated alarms.
    State:
        state_: (12,) float64, the last statistic and limit, count, p, s and their best.
    Cost: O(1) an event, some nanoseconds; memory fixed.
    Raises: ValueError for a parameter out of range.
    Reference: Gama, Medas, Castillo and Rodrigues (2004), Learning with drift detection.
    >>> detector = DDM()
    >>> detector.first_alarm(np.tile([0.0, 0.0, 0.0, 1.0], 100))
    -1
    >>> detector.first_alarm(np.ones(100))
    23
    """

    _size = SIZE

    _shape = ("warm_start",)
    _bits_only = True

    def __init__(
        self,
        warm_start: int = 30,
        warning_threshold: float = 2.0,
        drift_threshold: float = 3.0,
        average_run_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.warm_start = _checks.whole("DDM", "warm_start", warm_start, 0)
        self.warning_threshold = _checks.positive("DDM", "warning_threshold", warning_threshold)
        self.drift_threshold = _checks.positive("DDM", "drift_threshold", drift_threshold)
        self._start(self.warm_start, self.warning_threshold, self.drift_threshold)
        self._calibrate(average_run_length, seed)

    def _statistics(self, scores: F8, out: F8) -> None:
        ddm_statistics(scores, self.state_, self._settings, out)

    def _first(self, values: F8) -> tuple[int, int]:
        return ddm_first_alarm(values, self.state_, self._settings)


class EDDM(WarningDetector, base.BinaryDriftAndWarningDetector):
    """Early drift detection method: the distance between errors against the longest it has been.

    With p the mean distance, in events, and s its standard deviation: an alarm when p + 2 s is
    less than `beta` times its greatest. For bits, 1 = wrong. Arguments, constants, warnings and
    alarms are those of River 0.26, index by index. After an alarm the next value starts anew. A NaN
    is skipped. A value other than 0 and 1 is skipped and counted in `n_rejected`.
    Args:
        warm_start: no alarm within so many values, nor within so many errors, >= 0.
        alpha: the ratio below which there is a warning, in (0, 1], >= beta.
        beta: the ratio below which there is an alarm, in (0, 1].
        average_run_length: events between false alarms without drift, 1,000 to 30,000, whatever
            the age, for error rates from 0.1 on; then `alpha` and `beta` are not used, and the
            others stay at their defaults. None: as published, which claims nothing.
        seed: of the generator behind calibrated alarms.
    State:
        state_: (12,) float64, the last statistic and limit, counts, mean and spread of distances.
    Cost: O(1) an event, some nanoseconds; memory fixed.
    Raises: ValueError for a parameter out of range.
    Reference: Baena-García, del Campo-Ávila, Fidalgo, Bifet, Gavaldà and Morales-Bueno (2006),
        Early drift detection method.
    >>> rng = np.random.RandomState(12345)
    >>> errors = np.concatenate((rng.binomial(1, 0.2, 1000), rng.binomial(1, 0.8, 1000)))
    >>> EDDM(alpha=0.9, beta=0.8).first_alarm(errors.astype(float))
    1059
    """

    _size = SIZE

    _shape = ("warm_start",)
    _bits_only = True

    def __init__(
        self,
        warm_start: int = 30,
        alpha: float = 0.95,
        beta: float = 0.9,
        average_run_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.warm_start = _checks.whole("EDDM", "warm_start", warm_start, 0)
        self.beta = _checks.positive("EDDM", "beta", beta)
        self.alpha = _checks.between("EDDM", "alpha", alpha, self.beta, 1.0)
        self._start(self.warm_start, self.alpha, self.beta)
        self._calibrate(average_run_length, seed)

    def _statistics(self, scores: F8, out: F8) -> None:
        eddm_statistics(scores, self.state_, _SOON, out)

    def _first(self, values: F8) -> tuple[int, int]:
        return eddm_first_alarm(values, self.state_, self._settings)


class RDDM(WarningDetector, base.BinaryDriftAndWarningDetector):
    """Reactive drift detection method: DDM that cuts long concepts down and ends long warnings.

    The test is DDM's. After an alarm the bits since the warning before it are learnt again as the
    beginning of the new concept. A concept of `max_concept_size` bits outside a warning keeps its
    newest `min_stable_size` alone, which keeps the error rate quick. A warning of more than
    `warn_limit` bits is an alarm. For bits, 1 = wrong. A NaN is skipped. A value other than 0 and 1
    is skipped and counted in `n_rejected`.
    Args:
        min_instances: no alarm before so many values, >= 1.
        warning_level: standard deviations above the best that make a warning, > 0.
        drift_level: standard deviations above the best that make an alarm, > 0.
        max_concept_size: bits after which a concept is cut down.
        min_stable_size: bits that are kept, >= 1, < max_concept_size.
        warn_limit: bits that a warning may last, >= 1.
        average_run_length: events between false alarms without drift, 1,000 to 100,000, whatever
            the error rate and the age; then both levels and `warn_limit` are not used, and the
            others stay at their defaults. None: as published, which claims nothing.
        seed: of the generator behind calibrated alarms.
    State:
        state_: (12,) float64, the last statistic and limit, count, p, s, their best, bits kept.
        bits_: (min_stable_size,) uint8, the newest bits, in a ring.
    Cost: amortised O(1) an event, some nanoseconds; memory min_stable_size bytes.
    Raises: ValueError for a parameter out of range.
    Reference: Barros, Cabral, Gonçalves and Santos (2017), RDDM: reactive drift detection method,
        Expert Systems with Applications 90.
    >>> detector = RDDM()
    >>> detector.first_alarm(np.tile([0.0, 0.0, 0.0, 1.0], 100))
    -1
    >>> detector.first_alarm(np.ones(100))
    13
    """

    _size = SIZE
    _arrays = ("state_", "bits_", *CALIBRATION)

    _shape = ("min_instances", "max_concept_size", "min_stable_size")
    _bits_only = True

    def __init__(
        self,
        min_instances: int = 129,
        warning_level: float = 1.773,
        drift_level: float = 2.258,
        max_concept_size: int = 40_000,
        min_stable_size: int = 7_000,
        warn_limit: int = 1_400,
        average_run_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.min_instances = _checks.whole("RDDM", "min_instances", min_instances, 1)
        self.warning_level = _checks.positive("RDDM", "warning_level", warning_level)
        self.drift_level = _checks.positive("RDDM", "drift_level", drift_level)
        self.min_stable_size = _checks.whole("RDDM", "min_stable_size", min_stable_size, 1)
        least = self.min_stable_size + 1
        self.max_concept_size = _checks.whole("RDDM", "max_concept_size", max_concept_size, least)
        self.warn_limit = _checks.whole("RDDM", "warn_limit", warn_limit, 1)
        self._start(
            self.min_instances, self.warning_level, self.drift_level, 0.0,
            self.max_concept_size, self.warn_limit,
        )  # fmt: skip
        self.bits_: U1 = np.zeros(self.min_stable_size, dtype=np.uint8)
        self._calibrate(average_run_length, seed)

    def _statistics(self, scores: F8, out: F8) -> None:
        rddm_statistics(scores, self.state_, self.bits_, self._settings, out)

    def _first(self, values: F8) -> tuple[int, int]:
        return rddm_first_alarm(values, self.state_, self.bits_, self._settings)

    def finding(self) -> Finding:
        """As all, and for how many values there had been a warning."""
        return super().finding() | {"warned": int(self.state_[SINCE])}


class ECDD(WarningDetector, base.BinaryDriftAndWarningDetector):
    """EWMA for concept drift detection: a control chart of the weighted error rate.

    With p the error rate since the restart and z the exponentially weighted one: an alarm when z is
    more than L standard deviations of z above p, a warning at half of it. L is the published
    polynomial in p for lambda 0.2, one false alarm in about 400 bits. For bits, 1 = wrong. After an
    alarm the next value starts anew. A NaN is skipped. A value other than 0 and 1 is skipped and
    counted in `n_rejected`.
    Args:
        min_instances: no alarm before so many values, >= 1.
        lambda_val: weight of the newest bit, in (0, 1); L was made for 0.2.
        average_run_length: events between false alarms without drift, 1,000 to 100,000, whatever
            the error rate and the age; then the published L is not used, and the others stay at
            their defaults. None: as published, which claims nothing.
        seed: of the generator behind calibrated alarms.
    State:
        state_: (12,) float64, the last statistic and limit, count, both rates, the deviation.
    Cost: O(1) an event, some nanoseconds; memory fixed.
    Raises: ValueError for a parameter out of range.
    Reference: Ross, Adams, Tasoulis and Hand (2012), Exponentially weighted moving average charts
        for detecting concept drift, Pattern Recognition Letters 33(2).
    >>> detector = ECDD()
    >>> detector.first_alarm(np.tile([0.0, 0.0, 0.0, 1.0], 100))
    -1
    >>> detector.first_alarm(np.ones(100))
    3
    """

    _size = SIZE

    _shape = ("min_instances", "lambda_val")
    _bits_only = True

    def __init__(
        self,
        min_instances: int = 30,
        lambda_val: float = 0.2,
        average_run_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.min_instances = _checks.whole("ECDD", "min_instances", min_instances, 1)
        self.lambda_val = _checks.positive("ECDD", "lambda_val", lambda_val)
        if self.lambda_val >= 1.0:
            raise ValueError(f"ECDD: lambda_val must be < 1, got {lambda_val!r}")
        self._start(self.min_instances, 0.5, 0.0, self.lambda_val)
        self._calibrate(average_run_length, seed)

    def _statistics(self, scores: F8, out: F8) -> None:
        ecdd_statistics(scores, self.state_, self._settings, out)

    def _first(self, values: F8) -> tuple[int, int]:
        return ecdd_first_alarm(values, self.state_, self._settings)
