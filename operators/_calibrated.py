"""Calibrated detectors: without drift, each event after warm-up alarms with chance 1/A.

A detector's statistic is compared with a limit that depends on its age (values since the last
restart) and, on a stream of zeros and ones, on the share of ones since then. Given that share, no
order of the ones is likelier than another, whatever the rate: so a limit that is right given the
share is right for every rate. Any other stream is replaced by its sequential ranks, which are
independent and uniform whatever the distribution. The limits are data (`limits/`), found and
checked by simulation (`benchmarks/calibrate_detectors.py`).
"""

import functools
import inspect
import json
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from streamlearn.block import F8, I8
from streamlearn.contracts import Finding, Json
from streamlearn.jit.counter import key_of
from streamlearn.jit.limits import (
    AGE,
    ALARM,
    BITS,
    EDGES,
    GROUP,
    NOTHING,
    ONES,
    PLACES,
    RANKS,
    REGIME,
    SAID,
    WARNING,
    first_over,
    in_zone,
    scored,
)
from streamlearn.operators import _checks
from streamlearn.operators._base import Detector

SHORTEST = 1_000  # average run length that the tables begin with
CALIBRATION = ("tally_", "edges_", "slots_", "last_")  # for the `_arrays` of a subclass
_FOLDER = Path(__file__).parent / "limits"


@functools.cache
def table(name: str) -> dict[str, Any]:
    """What is known of a detector: `warm_up`, `jitter`, and `limits` by run length."""
    found: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def longest(name: str) -> int:
    """The greatest average run length for which a detector has limits."""
    return max(int(one) for one in table(name)["limits"])


def limits_for(found: dict[str, Any], length: float) -> F8:
    """The limits (rows, rates + 1) for one average run length, along the logarithm of it."""
    lengths = sorted(int(one) for one in found["limits"])
    at = int(np.clip(np.searchsorted(lengths, length, "right") - 1, 0, len(lengths) - 2))
    low, high = (np.array(found["limits"][str(lengths[k])]) for k in (at, at + 1))
    share = math.log(length / lengths[at]) / math.log(lengths[at + 1] / lengths[at])
    between: F8 = low + share * (high - low)
    return between


class Calibrated(Detector):
    """A detector that takes `average_run_length`.

    A subclass puts CALIBRATION into its `_arrays`, ends its constructor with `_calibrate`, and has
    `_first`, as published, and `_statistics`. `_shape` names the arguments of which limits were
    measured at the defaults alone; `_bits_only` says that it takes nothing but zeros and ones;
    `_takes`, as what it takes the first value: BITS as long as there is nothing else, RANKS of
    whatever comes, or values as GIVEN. `_warns` says that it has a warning zone: of its limits for
    a tenth of the run length (1,000 at least), by the same table.
    State:
        tally_: (5,) int64, age, ones, all values ever, regime (bits, ranks), and what the last
            value raised: nothing, an alarm, a warning.
        edges_: (2, 127) float64, the first values since the restart, sorted, and their tie-breaks.
        slots_: (136,) int64, later values counted in the 128 cells between, and by 16 cells.
        last_: (2,) float64, statistic and limit of the last value that had a statistic.
    """

    average_run_length: int | None = None
    seed: int = 0
    n_detections: int
    n_rejected: int
    _shape: ClassVar[tuple[str, ...]] = ()
    _bits_only: ClassVar[bool] = False
    _takes: ClassVar[int] = BITS
    _warns: ClassVar[bool] = False

    def _calibrate(
        self, average_run_length: int | None, seed: int, found: dict[str, Any] | None = None
    ) -> None:
        """Check both arguments and get ready; the subclass has made its own state.

        found: another table than its own.
        """
        owner = type(self).__name__
        self.seed = _checks.whole(owner, "seed", seed, 0)
        self.average_run_length = average_run_length
        known = average_run_length is not None
        self.tally_: I8 = np.zeros(PLACES if known else 0, dtype=np.int64)
        self.edges_: F8 = np.zeros((2, EDGES if known else 0))
        self.slots_: I8 = np.zeros(EDGES + 1 + (EDGES + 1) // GROUP if known else 0, dtype=np.int64)
        self.last_: F8 = np.zeros(2)
        if average_run_length is None:
            return
        self.tally_[REGIME] = self._takes
        _checks.whole(owner, "average_run_length", average_run_length, SHORTEST)
        found = table(owner) if found is None else found
        if average_run_length > (most := max(int(one) for one in found["limits"])):
            raise ValueError(
                f"{owner}: average_run_length must be <= {most}, got {average_run_length!r}"
            )
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if name in self._shape and getattr(self, name) != parameter.default:
                raise ValueError(
                    f"{owner}: {name} must be {parameter.default!r} with average_run_length, "
                    f"for which its limits were measured; got {getattr(self, name)!r}"
                )
        own = [name for name in self._arrays if name not in CALIBRATION]
        self._fresh: dict[str, Any] = {name: getattr(self, name).copy() for name in own}
        self._take(found)

    def _take(self, found: dict[str, Any]) -> None:
        """Use these limits."""
        assert self.average_run_length is not None
        self._warm_up = int(found["warm_up"])
        self._limits = limits_for(found, self.average_run_length)
        self._floor = float(self._limits.min())
        self._zone = limits_for(found, max(self.average_run_length / 10.0, SHORTEST))
        key = key_of(self.seed, type(self).__name__)
        self._key = key & 0xFFFFFFFF
        self._jitter: F8 = np.array([*found["jitter"], key >> 32], dtype=np.float64)

    def first_alarm(self, values: F8) -> int:
        """Feed values (n,) in order up to and including the first that raises an alarm.

        Returns its index, or -1 when all were fed without one.
        """
        values = np.asarray(values, dtype=np.float64)
        if self.average_run_length is not None:
            return self._first_calibrated(values)
        at, refused = self._first(values)
        self.n_rejected += int(refused)  # without the JIT, kernels give numpy's integers
        self.n_detections += int(at >= 0)
        return int(at)

    def _first(self, values: F8) -> tuple[int, int]:
        """One call of the kernel: the index of the alarm or -1, how many values were refused."""
        raise NotImplementedError(f"{type(self).__name__} has no _first")

    def _statistics(self, scores: F8, out: F8) -> None:
        """Feed scores (n,), NaN is skipped; out (n,): the statistic after each, -inf for none."""
        raise NotImplementedError(f"{type(self).__name__} has no _statistics")

    def _alarm(self) -> None:
        """What else the state says of an alarm, just raised."""

    def _restart(self) -> None:
        """Begin anew: nothing but the count of values and the regime stays."""
        for name, fresh in self._fresh.items():
            getattr(self, name)[...] = fresh
        self.slots_[:] = 0
        self.tally_[[AGE, ONES, SAID]] = 0

    @property
    def alarmed(self) -> bool:
        """Whether the last value raised an alarm of a calibrated detector."""
        return self.tally_.size > 0 and bool(self.tally_[SAID] == ALARM)

    @property
    def warned(self) -> bool:
        """Whether the last value of a calibrated detector is in its warning zone, and no alarm."""
        return self.tally_.size > 0 and bool(self.tally_[SAID] == WARNING)

    def _first_calibrated(self, values: F8) -> int:
        """As `first_alarm`, with limits for the run length."""
        start = 0
        if self._bits_only:  # infinity is refused, too
            values = np.where((values == 0.0) | (values == 1.0) | np.isnan(values), values, np.inf)
        while start < values.shape[0]:
            if self.tally_[SAID] == ALARM and not np.isnan(values[start:]).all():
                self._restart()
            n, at = self._walk(values[start:])
            if at >= 0:
                self.tally_[SAID] = ALARM
                self.n_detections += 1
                self._alarm()
                return start + at
            start += n
            if start < values.shape[0]:  # the first value that is no bit: from it on, ranks
                self._restart()
                self.tally_[REGIME] = RANKS
        return -1

    def _walk(self, values: F8) -> tuple[int, int]:
        """Feed values up to an alarm or the end of the bits; how many, and where the alarm was."""
        before = {name: getattr(self, name).copy() for name in (*self._fresh, *CALIBRATION)}
        n, refused, scores, statistics = self._scored(values)
        at = int(
            first_over(
                statistics, scores, before["tally_"], self._limits, self._floor, self._jitter,
                self.last_,
            )
        )  # fmt: skip
        if 0 <= at < n - 1:  # too far: once more, up to the alarm
            for name in (*self._fresh, *CALIBRATION[:-1]):  # `last_` knows of the alarm already
                getattr(self, name)[...] = before[name]
            n, refused, scores, statistics = self._scored(values[: at + 1])
        if self._warns and at < 0:
            self._warn(scores, statistics)
        self.n_rejected += refused
        return n, at

    def _warn(self, scores: F8, statistics: F8) -> None:
        """Note whether the last value that had a statistic is in the warning zone."""
        inside = int(in_zone(statistics, scores, self.tally_, self._zone, self._jitter))
        if inside >= 0:
            self.tally_[SAID] = WARNING if inside else NOTHING

    def _scored(self, values: F8) -> tuple[int, int, F8, F8]:
        """How many values were fed and how many of them refused, scores, statistics."""
        age = int(self.tally_[AGE])
        scores = np.empty(values.shape[0])
        n, refused = scored(values, self.tally_, self.edges_, self.slots_, self._key, scores)
        scores = scores[:n]
        statistics = np.empty(n)
        self._statistics(scores, statistics)
        if age < self._warm_up:
            counted = age + np.cumsum(~np.isnan(scores))
            statistics[counted < self._warm_up] = -np.inf
        return n, int(refused), scores, statistics

    def finding(self) -> Finding:
        """Detector, what it watches; of a calibrated one also statistic, limit and run length."""
        if self.average_run_length is None:
            return super().finding()
        calibrated: Finding = {"average_run_length": self.average_run_length}
        return super().finding() | self.standing | calibrated

    @property
    def standing(self) -> dict[str, Json]:
        """Statistic and limit of the last value that had one, of a calibrated detector."""
        if self.average_run_length is None or self.last_[1] == 0.0:
            return {}
        return {"statistic": float(self.last_[0]), "limit": float(self.last_[1])}
