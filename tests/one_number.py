"""Detectors on one number, for their tests: what one says value by value, and streams for it."""

from typing import Any

import numpy as np

from streamlearn.block import F8
from streamlearn.operators._base import Detector

Said = list[tuple[bool, bool]]  # after each value: drift, warning


def trace(detector: Any, values: F8) -> Said:
    """What a detector says after every value; of one without warnings, that there is none."""
    out = []
    for value in values.tolist():
        detector.update(value)
        warned = getattr(detector, "warning_detected", False)
        out.append((bool(detector.drift_detected), bool(warned)))
    return out


def alarms(detector: Detector, values: F8) -> list[int]:
    """The indices of the alarms when all values come at once."""
    return [int(row) for row in np.flatnonzero(detector.watch(values))]


def bits(seed: int, n: int = 1500) -> F8:
    """Bits whose rate is drawn anew at random times; now and then none or nothing but errors."""
    rng = np.random.default_rng(seed)
    starts = np.sort(rng.integers(0, n, 4))
    shares = [0.1, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1]
    rates = rng.choice([0.0, 0.02, 0.1, 0.2, 0.4, 0.7, 1.0], 5, p=shares)
    rate = rates[np.searchsorted(starts, np.arange(n), side="right")]
    return (rng.random(n) < rate).astype(np.float64)


def numbers(seed: int, n: int = 1500) -> F8:
    """Numbers whose mean jumps at random times, or drifts, far from 0 or not."""
    rng = np.random.default_rng(seed)
    starts = np.sort(rng.integers(0, n, 3))
    mean = rng.normal(0.0, 3.0, 4)[np.searchsorted(starts, np.arange(n), side="right")]
    slope = rng.choice([0.0, 0.0, 2e-3]) * np.arange(n)
    offset = float(rng.choice([0.0, 1e6]))
    out: F8 = offset + mean + slope + rng.normal(0.0, rng.choice([0.1, 1.0]), n)
    return out


def documented() -> tuple[F8, F8]:
    """Streams S2 (bits, 0.2 then 0.8) and S3 (bits, four blocks of 500) of the known alarms."""
    second = np.random.RandomState(12345)  # each stream has its own
    s2 = np.concatenate((second.binomial(1, 0.2, 1000), second.binomial(1, 0.8, 1000)))
    third = np.random.RandomState(12345)
    s3 = np.concatenate([third.normal(mean, 0.1, 500) for mean in (0.0, 0.25, 0.0, 0.25)]) > 0
    return s2.astype(np.float64), s3.astype(np.float64)


def check_cuts(whole: Detector, parts: Detector, values: F8, cuts: list[int]) -> None:
    """However the values come, alarms and state are the same bits."""
    at_once = whole.watch(values)
    pieces = [parts.watch(piece) for piece in np.split(values, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate(pieces), at_once)
    for name in whole._arrays:
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    assert parts.n_detections == whole.n_detections == at_once.sum() > 0  # type: ignore[attr-defined]


def check_values_that_say_nothing(plain: Detector, other: Detector, values: F8, bad: F8) -> None:
    """NaN is skipped in silence, what is bad is skipped and counted; nothing else changes."""
    where = np.linspace(0, values.shape[0], bad.shape[0] + 2).astype(int)
    noisy = np.insert(values, where, np.concatenate(([np.nan], bad, [np.nan])))
    assert plain.watch(values).sum() == other.watch(noisy).sum()
    for name in plain._arrays:
        np.testing.assert_array_equal(getattr(other, name), getattr(plain, name))
    assert (plain.n_rejected, other.n_rejected) == (0, bad.shape[0])  # type: ignore[attr-defined]


def check_resumes(detector: Detector, resumed: Detector, values: F8) -> None:
    """State taken right after an alarm goes on like the original."""
    at = detector.first_alarm(values)
    assert at >= 0
    resumed.load(detector.state())
    rest = values[at + 1 :]
    np.testing.assert_array_equal(resumed.watch(rest), detector.watch(rest))
    for name in detector._arrays:
        np.testing.assert_array_equal(getattr(resumed, name), getattr(detector, name))
