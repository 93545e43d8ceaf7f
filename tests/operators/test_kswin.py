"""KSWIN against SciPy's exact test, after every value."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from streamlearn.block import F8
from streamlearn.operators.kswin import KSWIN

ks_2samp: Any = stats.ks_2samp


def stream(kind: str, n: int, seed: int) -> F8:
    """Bits, few values that change, numbers, numbers that jump or spread, a constant."""
    rng, t = np.random.default_rng(seed), np.arange(n)
    streams: dict[str, F8] = {
        "bits": (rng.random(n) < np.where(t < n // 2, 0.2, 0.7)).astype(float),
        "few": rng.integers(0, np.where(t < n // 2, 3, 6)).astype(float),
        "normal": rng.normal(size=n),
        "jumps": rng.normal(2.0 * (t // 90 % 2), 1.0),
        "spread": rng.normal(0.0, np.where(t // 120 % 2, 5.0, 1.0)),
        "constant": np.zeros(n),
    }
    return streams[kind]


def by_definition(
    values: F8, alpha: float, window: int, newest: int
) -> list[tuple[bool, float, float]]:
    """Alarm, distance and p-value after each value, by SciPy on the window as it stands."""
    held: list[float] = []
    said = []
    for value in values.tolist():
        held = [*held, value][-window:]
        distance, p = 0.0, 1.0
        if len(held) == window:
            with warnings.catch_warnings():  # SciPy gives up where rounding makes p > 1
                warnings.simplefilter("ignore", RuntimeWarning)
                distance, p = ks_2samp(held[:-newest], held[-newest:], method="exact")
        alarm = bool(p <= alpha and distance > 0.1 + 1e-12)
        said.append((alarm, distance, p))
        held = [] if alarm else held
    return said


@pytest.mark.jit
@pytest.mark.parametrize(
    ("alpha", "window", "newest"), [(0.005, 100, 30), (0.01, 60, 30), (0.05, 35, 10), (0.2, 9, 8)]
)
@pytest.mark.parametrize("kind", ["bits", "few", "normal", "jumps", "spread", "constant"])
def test_every_value_gives_the_distance_and_the_p_value_of_scipy(
    kind: str, alpha: float, window: int, newest: int
) -> None:
    values = stream(kind, 260, 5)
    detector = KSWIN(alpha, window, newest)
    for value, (alarm, distance, p) in zip(
        values.tolist(), by_definition(values, alpha, window, newest), strict=True
    ):
        detector.update(value)
        assert detector.drift_detected == alarm
        assert_allclose(detector.distance, distance, atol=1e-12)
        assert_allclose(detector.p_value, p, rtol=1e-7 if p < 0.99 else 0.01)


@pytest.mark.jit
@given(
    values=st.lists(st.sampled_from([-1.0, 0.0, -0.0, 0.5, 2.0, 1e99]), min_size=20, max_size=80),
    window=st.integers(3, 20),
    data=st.data(),
)
def test_ties_in_any_window(values: list[float], window: int, data: st.DataObject) -> None:
    newest = data.draw(st.integers(1, window - 1))
    detector = KSWIN(0.05, window, newest)
    said = by_definition(np.array(values), 0.05, window, newest)
    for value, (alarm, distance, _) in zip(values, said, strict=True):
        detector.update(value)
        assert detector.drift_detected == alarm
        assert_allclose(detector.distance, distance, atol=1e-12)


@pytest.mark.jit
def test_the_documented_alarm() -> None:
    rng = np.random.RandomState(12345)
    values = np.concatenate((rng.randint(2, size=1000), rng.randint(8, size=1000))).astype(float)
    detector = KSWIN(alpha=1e-4, window_size=200, stat_size=100)
    assert detector.first_alarm(values) == 1042
    assert detector.rose
    found = detector.finding()
    assert found["how"] == "rose"
    assert found["statistic"] >= found["limit"] > 0.1
    assert found["p_value"] <= 1e-4
    assert detector.first_alarm(values[1043:]) == -1
    assert not detector.rose


@pytest.mark.jit
def test_small_p_values_keep_their_digits() -> None:
    """P(D = 1) is one path of each kind among all: 2 / binomial(200, 100)."""
    detector = KSWIN(alpha=1e-58, window_size=200, stat_size=100)
    detector.first_alarm(np.repeat([0.0, 1.0], 100))
    assert_allclose(detector.p_value, 2.0 * stats.binom.pmf(100, 200, 0.5) ** -1 / 2.0**200)
    assert detector.n_detections == 1
    stricter = KSWIN(alpha=1e-61, window_size=200, stat_size=100)
    assert stricter.first_alarm(np.repeat([0.0, 1.0], 100)) == -1


@pytest.mark.jit
@given(cuts=st.lists(st.integers(0, 900), max_size=6))
def test_alarms_and_state_do_not_depend_on_the_cut(cuts: list[int]) -> None:
    values = stream("jumps", 900, 3)
    whole, parts = KSWIN(), KSWIN()
    alarms = np.concatenate([parts.watch(piece) for piece in np.split(values, sorted(cuts))])
    assert_array_equal(whole.watch(values), alarms)
    for name in KSWIN._arrays:
        assert_array_equal(getattr(whole, name), getattr(parts, name))
    assert whole.n_detections == parts.n_detections == alarms.sum() > 3


@pytest.mark.jit
def test_bad_values_are_skipped_and_counted() -> None:
    values = stream("jumps", 600, 3)
    bad = np.insert(values, [0, 50, 130, 131, 400], [np.nan, np.inf, -1e300, np.nan, -np.inf])
    clean, dirty = KSWIN(), KSWIN()
    kept = np.isfinite(bad) & (np.abs(bad) < 1e100)
    assert_array_equal(dirty.watch(bad)[kept], clean.watch(values))
    assert (clean.n_rejected, dirty.n_rejected) == (0, 3)
    assert_array_equal(clean.ordered_, dirty.ordered_)
    assert KSWIN().first_alarm(np.full(1000, 7.0)) == -1


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"alpha": 0.0}, "alpha must be > 0"),
        ({"alpha": 1.0}, "alpha must be < 1"),
        ({"stat_size": 0}, "stat_size must be a whole number >= 1"),
        ({"window_size": 30}, "window_size must be a whole number >= 31"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=f"KSWIN: {what}"):
        KSWIN(**arguments)
