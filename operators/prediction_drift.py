"""Prediction drift: the answers of a model are no longer what they were; no label needed."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from river import base

from streamlearn.block import F8, Features
from streamlearn.contracts import Finding, Json, State, merged
from streamlearn.operators._base import Detector
from streamlearn.operators.adwin import ADWIN
from streamlearn.operators.feature_drift import FeatureDrift
from streamlearn.operators.foreign import as_stage

_ONE = Features(("prediction",))


class PredictionDrift(Detector, base.DriftDetector):
    """Watches what a model answers: of a classifier the probability of its answer, of a regressor
    its prediction, of an anomaly scorer its score.

    In a pipeline it stands behind the predictor and hears of every event when it is scored, with
    its label or without. A NaN is skipped.
    Args:
        detector: any detector on one number, or a `FeatureDrift`, which compares a window of
            answers with a reference; default: `FeatureDrift(test="ks")`, silent until it has its
            reference of 20,000 answers.
    State: that of the detector.
    Cost: that of the detector.
    Raises: TypeError for what is no detector.
    >>> watch = PredictionDrift(ADWIN())
    >>> watch.first_alarm(np.repeat([0.0, 1.0], 1000))
    1023
    """

    watches = "prediction"

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """What River's checks and the conformance suite build."""
        yield {"detector": ADWIN()}
        short: dict[str, Any] = {"average_run_length": None, "reference": 16, "window": 8}
        yield {"detector": FeatureDrift(**short, every=4, bins=4)}

    def __init__(self, detector: Detector | Any = None) -> None:
        super().__init__()
        self.detector = as_stage(FeatureDrift(test="ks") if detector is None else detector)
        if not isinstance(self.detector, (Detector, FeatureDrift)):
            raise TypeError(
                f"PredictionDrift: detector must be a drift detector on one number or a "
                f"FeatureDrift, got {type(detector).__name__}"
            )
        self._last: Finding = {}

    @property
    def n_detections(self) -> int:
        """Alarms so far."""
        return int(getattr(self.detector, "n_detections", 0))

    def first_alarm(self, values: F8) -> int:
        """Feed values (n,) in order up to and including the first that raises an alarm.

        Returns its index, or -1 when all were fed without one.
        """
        if isinstance(self.detector, Detector):
            return self.detector.first_alarm(values)
        assert isinstance(self.detector, FeatureDrift)  # the constructor saw to it
        if self.detector.features is None:
            self.detector.meet(_ONE)
        rows = np.flatnonzero(~np.isnan(values))
        taken, found = self.detector.first_found(values[rows, None], _ONE)
        if found is None:
            return -1
        self._last = found
        return int(rows[taken - 1])

    def finding(self) -> Finding:
        """What the detector found."""
        found = self.detector.finding() if isinstance(self.detector, Detector) else self._last
        by = type(self.detector).__name__
        return found | {"detector": type(self).__name__, "by": by, "watches": self.watches}

    @property
    def standing(self) -> dict[str, Json]:
        """Where its detector stands."""
        told: dict[str, Json] = getattr(self.detector, "standing", {})
        return told

    def load_kernels(self) -> None:
        """Those of its detector."""
        self.detector.load_kernels()

    # -- state -------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """A snapshot of the detector."""
        return super().snapshot() | {"detector": self.detector.snapshot()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, which may be restored again."""
        self.detector.restore(snapshot["detector"])
        super().restore({k: v for k, v in snapshot.items() if k != "detector"})

    def state(self) -> State:
        """The state of the detector."""
        return merged({"detector": self.detector.state()}, super().state().table)

    def load(self, state: State) -> None:
        """Take over what `state` gave; refused if the parameters were others."""
        super().load(state)
        self.detector.load(state.under("detector"))

    def reset(self) -> None:
        """Forget everything."""
        self.detector.reset()

    @property
    def state_bytes(self) -> int:
        """Bytes of the detector."""
        return self.detector.state_bytes
