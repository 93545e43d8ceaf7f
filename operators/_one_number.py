"""What detectors on one number share: one array of state, one kernel call, what a finding says."""

import math
from typing import ClassVar

import numpy as np

from streamlearn.block import F8
from streamlearn.contracts import Finding, Json
from streamlearn.jit.one_number import ALARMED, FELL, LIMIT, ROSE, STATISTIC, WARNED, N
from streamlearn.operators._calibrated import CALIBRATION, Calibrated


class OneNumberDetector(Calibrated):
    """A detector whose state is `state_`, laid out as `jit/one_number.py` says.

    A subclass calls its kernel, names the size of its state, and hands over its settings.
    """

    _size: ClassVar[int]
    _arrays: ClassVar[tuple[str, ...]] = ("state_", *CALIBRATION)
    _counters = ("n_detections", "n_rejected")

    def _start(self, *settings: float) -> None:
        """Empty state; the settings as the kernel reads them, in its order."""
        self._settings: F8 = np.array(settings, dtype=np.float64)
        self.state_: F8 = np.zeros(self._size)
        self.n_detections = 0
        self.n_rejected = 0
        self._calibrate(None, 0)  # a subclass with limits calls it again

    def _alarm(self) -> None:
        self.state_[STATISTIC], self.state_[LIMIT] = self.last_
        self.state_[ALARMED] = ROSE if self._rises() else FELL

    def _rises(self) -> bool:
        """Of a calibrated alarm, just raised: whether the mean rose."""
        return True

    def finding(self) -> Finding:
        """What was compared with what, what the mean did, and after how many values."""
        said: Finding = {"how": "rose" if self.rose else "fell", "values": int(self.state_[N])}
        return super().finding() | said | self.standing

    @property
    def standing(self) -> dict[str, Json]:
        """Statistic and limit of the last value; one that is not finite is left out."""
        at = {"statistic": float(self.state_[STATISTIC]), "limit": float(self.state_[LIMIT])}
        said: dict[str, Json] = {name: value for name, value in at.items() if math.isfinite(value)}
        return said | super().standing

    @property
    def rose(self) -> bool:
        """Whether the mean rose at the alarm of the last value; False when that raised none."""
        return float(self.state_[ALARMED]) == ROSE


class WarningDetector(OneNumberDetector):
    """A detector that has a warning zone before the alarm."""

    _warns = True

    @property
    def warning_detected(self) -> bool:
        """Whether the last value is in the warning zone.

        Calibrated: whether it is beyond the limit for a tenth of the run length, and no alarm.
        """
        return self.warned or bool(self.state_[WARNED])
