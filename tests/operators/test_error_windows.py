"""FHDDM against River's, STEPD against its formula with SciPy's tail, after every bit."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from river import drift
from scipy import stats

from streamlearn.block import F8
from streamlearn.operators.error_windows import FHDDM, STEPD

RiverFHDDM: Any = drift.binary.FHDDM  # untyped
normal: Any = stats.norm


def stream(n: int, seed: int) -> F8:
    """Error bits whose rate changes every 300."""
    rng = np.random.default_rng(seed)
    rates = rng.choice([0.0, 0.02, 0.2, 0.5, 0.9, 1.0], n // 300 + 1)
    return (rng.random(n) < np.repeat(rates, 300)[:n]).astype(float)


def alarms(detector: Any, values: list[int]) -> list[int]:
    """Indices at which a detector of River's interface says drift."""
    found = []
    for i, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected:
            found.append(i)
    return found


@pytest.mark.jit
@given(
    seed=st.integers(0, 10**6),
    window=st.integers(1, 120),
    confidence=st.sampled_from([1e-6, 1e-3, 0.1, 0.6]),
    data=st.data(),
)
def test_fhddm_alarms_where_river_does_on_the_complement(
    seed: int, window: int, confidence: float, data: st.DataObject
) -> None:
    short = data.draw(st.none() | st.integers(1, window))
    values = stream(1200, seed)
    river = alarms(RiverFHDDM(window, confidence, short), (1 - values).astype(int).tolist())
    assert_array_equal(np.flatnonzero(FHDDM(window, confidence, short).watch(values)), river)


@pytest.mark.jit
def test_fhddm_says_how_far_the_accuracy_fell() -> None:
    values = np.concatenate((stream(0, 0), np.tile([0.0, 0.0, 0.0, 1.0], 100), np.ones(100)))
    detector = FHDDM()
    assert detector.first_alarm(values[:99]) == -1
    assert detector.statistic == -math.inf
    at = 99 + detector.first_alarm(values[99:])
    eps = math.sqrt(math.log(1e6) / 200)
    shares = np.convolve(1.0 - values, np.ones(100) / 100, "valid")
    falls = (np.maximum.accumulate(shares) - shares) / eps
    assert at == 99 + np.flatnonzero(falls > 1.0)[0]
    assert_allclose(detector.statistic, falls[at - 99])
    found = detector.finding()
    assert (found["how"], found["limit"], found["window"]) == ("rose", 1.0, 100)
    assert detector.rose
    assert found["mean"] == values[at - 99 : at + 1].mean()


def stepd_by_definition(values: F8, window: int, drift: float, warning: float) -> list[str]:
    """The paper's test after each bit: "drift", "warning" or ""."""
    said, seen = [], np.zeros(0)
    for value in values:
        seen = np.append(seen, value)
        p_value = 1.0
        if len(seen) >= 2 * window and 0 < seen.sum() < len(seen):
            old, new = seen[:-window], seen[-window:]
            inverse = 1 / len(old) + 1 / len(new)
            share = seen.mean()
            gap = abs(old.mean() - new.mean()) - 0.5 * inverse
            p_value = normal.sf(gap / np.sqrt(share * (1 - share) * inverse))
        said.append("drift" if p_value < drift else "warning" if p_value < warning else "")
        seen = np.zeros(0) if said[-1] == "drift" else seen
    return said


@pytest.mark.jit
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("window", "drift", "warning"), [(30, 0.003, 0.05), (7, 0.01, 0.01), (50, 1e-6, 0.3)]
)
def test_stepd_is_its_formula(seed: int, window: int, drift: float, warning: float) -> None:
    values = stream(600, seed)
    detector = STEPD(window, drift, warning)
    said = []
    for value in values.tolist():
        detector.update(value)
        assert not (detector.drift_detected and detector.warning_detected)
        said.append(
            "drift" if detector.drift_detected else "warning" if detector.warning_detected else ""
        )
    assert said == stepd_by_definition(values, window, drift, warning)


@pytest.mark.jit
def test_stepd_where_frouros_has_it() -> None:
    """The example in the documentation of frouros 0.9, whose bits are the complement."""
    rng = np.random.RandomState(31)
    right = np.concatenate((rng.binomial(1, 0.8, 1000), rng.binomial(1, 0.5, 1000)))
    detector = STEPD(30, 0.001, 0.005)
    warned = []
    for i, value in enumerate((1.0 - right).tolist()):
        detector.update(value)
        if detector.warning_detected:
            warned.append(i)
        if detector.drift_detected:
            break
    assert (i, warned) == (1024, [640, 641, 1023])
    found = detector.finding()
    assert found["how"] == "rose"
    assert detector.rose
    assert found["mean"] == 1 - right[i - 29 : i + 1].mean()
    assert_allclose(found["before"], 1 - right[: i - 29].mean())


@pytest.mark.jit
def test_stepd_notices_fewer_errors_too() -> None:
    detector = STEPD()
    assert detector.first_alarm(np.repeat([1.0, 0.0], 200)) >= 200
    assert detector.finding()["how"] == "fell"
    assert not detector.rose


@pytest.mark.jit
@pytest.mark.parametrize("make", [FHDDM, lambda: FHDDM(60, 0.01, 20), STEPD])
@given(cuts=st.lists(st.integers(0, 3000), max_size=6))
def test_alarms_and_state_do_not_depend_on_the_cut(make: Any, cuts: list[int]) -> None:
    values = stream(3000, 8)
    whole, parts = make(), make()
    found = np.concatenate([parts.watch(piece) for piece in np.split(values, sorted(cuts))])
    assert_array_equal(whole.watch(values), found)
    for name in whole._arrays:
        assert_array_equal(getattr(whole, name), getattr(parts, name))
    assert whole.n_detections == parts.n_detections == found.sum() > 0


@pytest.mark.jit
@pytest.mark.parametrize("make", [FHDDM, STEPD])
def test_what_is_no_bit_is_skipped_and_counted(make: Any) -> None:
    values = stream(2000, 1)
    places = [0, 50, 130, 131, 400, 401, 700]
    bad = np.insert(values, places, [np.nan, np.inf, -1e300, 0.5, 2.0, -1.0, np.nan])
    kept = (bad == 0.0) | (bad == 1.0)
    clean, dirty = make(), make()
    assert_array_equal(dirty.watch(bad)[kept], clean.watch(values))
    assert (clean.n_rejected, dirty.n_rejected) == (0, 5)
    for constant in (0.0, 1.0):
        assert make().first_alarm(np.full(1000, constant)) == -1


@pytest.mark.parametrize("make", [FHDDM, STEPD])
def test_what_it_stands_at_is_json(make: Any) -> None:
    detector = make()
    assert set(json.loads(json.dumps(detector.standing, allow_nan=False))) == {
        "limit", "mean", "window",
    }  # fmt: skip
    detector.first_alarm(np.tile([0.0, 1.0], 60))
    assert detector.standing["statistic"] == detector.statistic
    assert detector.standing["mean"] == 0.5


@pytest.mark.parametrize(
    ("make", "arguments", "what"),
    [
        (FHDDM, {"sliding_window_size": 0}, "sliding_window_size must be a whole number >= 1"),
        (FHDDM, {"confidence_level": 1.0}, "confidence_level must be < 1"),
        (FHDDM, {"short_window_size": 0}, "short_window_size must be a whole number >= 1"),
        (FHDDM, {"short_window_size": 101}, "short_window_size must be <= sliding_window_size"),
        (STEPD, {"window_size": 0}, "window_size must be a whole number >= 1"),
        (STEPD, {"alpha_drift": 0.1}, "alpha_drift <= alpha_warning < 1 must hold"),
        (STEPD, {"alpha_warning": 1.0}, "alpha_drift <= alpha_warning < 1 must hold"),
    ],
)
def test_arguments_out_of_range_are_refused(
    make: Any, arguments: dict[str, Any], what: str
) -> None:
    with pytest.raises(ValueError, match=f"{make.__name__}: {what}"):
        make(**arguments)
