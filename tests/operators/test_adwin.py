"""ADWIN against River's, value by value, and against the histogram's definition."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from river import drift

from streamlearn.block import F8
from streamlearn.jit.adwin import SIZES
from streamlearn.operators.adwin import ADWIN
from streamlearn.testing import labelled

RiverADWIN: Any = drift.ADWIN  # untyped
Trace = list[tuple[bool, int, float, float, float]]


def trace(detector: Any, values: F8) -> Trace:
    """What a detector says after every value."""
    out = []
    for value in values.tolist():
        detector.update(value)
        out.append(
            (
                bool(detector.drift_detected),
                int(detector.width),
                detector.total,
                detector.variance,
                detector.estimation,
            )
        )
    return out


def stream(kind: str, n: int, seed: int) -> F8:
    """Bits, bits that change, numbers, numbers with an offset, numbers that jump, a ramp."""
    rng, t = np.random.default_rng(seed), np.arange(n)
    streams: dict[str, F8] = {
        "bits": rng.integers(0, 2, n).astype(float),
        "errors": (rng.random(n) < np.where(t < n // 2, 0.1, 0.4)).astype(float),
        "normal": rng.normal(size=n),
        "offset": rng.normal(1e6, 1.0, size=n),
        "jumps": rng.normal(3.0 * (t // 300 % 2), 1.0),
        "ramp": rng.normal(t / 300, 1.0),
    }
    return streams[kind]


KINDS = ["bits", "errors", "normal", "offset", "jumps", "ramp"]


@pytest.mark.jit
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", KINDS)
def test_every_value_leaves_the_window_that_river_has(kind: str, seed: int) -> None:
    values = stream(kind, 1500, seed)
    assert trace(ADWIN(), values) == trace(RiverADWIN(), values)


@pytest.mark.jit
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    delta=st.sampled_from([0.002, 0.05, 0.3]),
    clock=st.sampled_from([1, 5, 32]),
    max_buckets=st.sampled_from([2, 3, 5, 9]),
    min_window_length=st.sampled_from([1, 5, 30]),
    grace_period=st.sampled_from([0, 10, 100]),
)
def test_every_argument_means_what_it_means_in_river(
    kind: str,
    seed: int,
    delta: float,
    clock: int,
    max_buckets: int,
    min_window_length: int,
    grace_period: int,
) -> None:
    values = stream(kind, 700, seed)
    arguments = (delta, clock, max_buckets, min_window_length, grace_period)
    assert trace(ADWIN(*arguments), values) == trace(RiverADWIN(*arguments), values)


@pytest.mark.jit
def test_the_documented_alarm() -> None:
    rng = np.random.RandomState(12345)
    values = np.concatenate((rng.randint(2, size=1000), rng.randint(8, size=1000))).astype(float)
    assert_array_equal(np.flatnonzero(ADWIN().watch(values)), [1023])


@pytest.mark.jit
@given(cuts=st.lists(st.integers(0, 1200), max_size=6))
def test_alarms_and_state_do_not_depend_on_the_cut(cuts: list[int]) -> None:
    values = stream("jumps", 1200, 3)
    whole, parts = ADWIN(), ADWIN()
    pieces = np.split(values, sorted(cuts))
    alarms = np.concatenate([parts.watch(piece) for piece in pieces])
    assert_array_equal(whole.watch(values), alarms)
    assert_array_equal(whole.buckets_, parts.buckets_)
    assert_array_equal(whole.counts_, parts.counts_)
    assert_array_equal(whole.window_, parts.window_)
    assert whole.n_detections == parts.n_detections == alarms.sum() > 0


@pytest.mark.jit
def test_first_alarm_feeds_up_to_the_alarm_and_no_further() -> None:
    values = stream("jumps", 1200, 3)
    detector, river = ADWIN(), RiverADWIN()
    at = detector.first_alarm(values)
    assert at == [said[0] for said in trace(river, values)].index(True)
    fresh = ADWIN()
    fresh.first_alarm(values[: at + 1])
    assert_array_equal(detector.buckets_, fresh.buckets_)
    assert detector.n_detections == 1


@pytest.mark.jit
def test_the_buckets_hold_sum_and_spread_of_consecutive_values() -> None:
    """The histogram by its definition: newest values in the smallest buckets."""
    values = stream("normal", 999, 1)
    detector = ADWIN(clock=10**6)
    detector.first_alarm(values)
    end = 999
    for level in range(48):
        for slot in range(detector.counts_[SIZES + level] - 1, -1, -1):
            part = values[end - 2**level : end]
            held = detector.buckets_[:, level, slot]
            spread = ((part - part.mean()) ** 2).sum()
            assert_allclose(held, [part.sum(), spread], rtol=1e-9, atol=1e-9)
            end -= 2**level
    assert end == 0


@pytest.mark.jit
def test_one_bucket_a_level_works_where_rivers_index_runs_out() -> None:
    """At every alarm the window is what it says: the newest values, in buckets that exist."""
    values = np.random.default_rng(0).normal(np.arange(1500) // 250 % 2 * 9.0, 1.0)
    detector = ADWIN(max_buckets=1, delta=0.3)
    end = 0
    while (at := detector.first_alarm(values[end:])) >= 0:
        end += at + 1
        sizes = detector.counts_[SIZES:].tolist()
        assert min(sizes) >= 0
        assert detector.width == sum(n << level for level, n in enumerate(sizes)) > 0
        assert_allclose(detector.total, values[end - detector.width : end].sum(), atol=1e-9)
    assert detector.n_detections > 3


def test_a_drop_may_leave_levels_without_buckets() -> None:
    """352 values are buckets of 256, 64 and 32; the first two go, with an empty level between."""
    detector = ADWIN(max_buckets=1)
    assert detector.first_alarm(np.repeat([0.0, 100.0], [320, 32])) == 351
    assert (detector.width, detector.total) == (32, 3200.0)


@pytest.mark.jit
@pytest.mark.parametrize("grace_period", [21, 30, 31, 50])
def test_the_first_test_is_in_the_first_window_longer_than_the_grace_period(
    grace_period: int,
) -> None:
    values = np.repeat([0.0, 100.0], [20, 60])
    arguments: dict[str, Any] = {
        "grace_period": grace_period,
        "clock": 1,
        "min_window_length": 1,
        "delta": 0.3,
    }
    river = trace(RiverADWIN(**arguments), values)
    assert ADWIN(**arguments).first_alarm(values) == [said[0] for said in river].index(True)


@pytest.mark.jit
@pytest.mark.parametrize("ups", [True, False])
def test_which_way_it_went_is_said_by_the_newest_cut(ups: bool) -> None:
    """Its window's mean goes the other way: what was dropped begins with the highest values."""
    values = np.repeat([1.0, 0.0, 1.0] if ups else [0.0, 1.0, 0.0], [100, 90, 10])
    detector = ADWIN(delta=0.3, clock=200)
    assert detector.first_alarm(values) == 199
    assert detector.rose is ups
    assert bool(detector.estimation < values.mean()) is ups


@pytest.mark.jit
def test_values_that_say_nothing_are_skipped() -> None:
    """NaN in silence; what is infinite or would swamp the window, counted."""
    values = stream("jumps", 900, 5)
    noisy = np.insert(values, [3, 400, 400, 800], [np.nan, np.inf, -1e200, np.nan])
    plain, other = ADWIN(), ADWIN()
    plain.watch(values)
    other.watch(noisy)
    assert_array_equal(plain.buckets_, other.buckets_)
    assert (plain.n_rejected, other.n_rejected) == (0, 2)


def test_an_alarm_is_said_once_and_then_the_window_starts_again() -> None:
    detector = ADWIN(clock=1, grace_period=0)
    for value in [0.0] * 60 + [1.0] * 60:
        detector.update(value)
        if detector.drift_detected:
            break
    assert detector.drift_detected
    detector.update(np.nan)
    assert not detector.drift_detected
    detector.update(1.0)
    assert (detector.width, detector.total, detector.n_detections) == (1, 1.0, 1)


def test_state_taken_right_after_an_alarm_goes_on_like_the_original() -> None:
    detector = ADWIN(clock=1)
    values = np.repeat([0.0, 1.0], 100)
    at = detector.first_alarm(values)
    resumed = ADWIN(clock=1)
    resumed.load(detector.state())
    for each in (detector, resumed):
        each.watch(values[at + 1 :])
    assert_array_equal(detector.buckets_, resumed.buckets_)
    assert detector.width == resumed.width == 200 - at - 1


@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        ({"delta": 0.0}, r"delta must be > 0, got 0\.0"),
        ({"delta": 1.0}, r"delta must be < 1, got 1\.0"),
        ({"clock": 0}, "clock must be a whole number >= 1, got 0"),
        ({"max_buckets": 0}, "max_buckets must be a whole number >= 1, got 0"),
        ({"min_window_length": 0}, "min_window_length must be a whole number >= 1, got 0"),
        ({"grace_period": -1}, "grace_period must be a whole number >= 0, got -1"),
    ],
)
def test_arguments_are_checked(argument: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=f"^ADWIN: {rule}$"):
        ADWIN(**argument)  # type: ignore[arg-type]


def test_a_block_without_columns_holds_nothing_to_watch() -> None:
    rule = r"^ADWIN: features must be one column at least, got none$"
    with pytest.raises(ValueError, match=rule):
        ADWIN().run(labelled(np.zeros((3, 0)), np.zeros(3)))
