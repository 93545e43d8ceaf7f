"""Calibrated alarms: ranks by their definition, limits, what is refused, and the chance itself."""

import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from benchmarks import calibrate_detectors
from streamlearn import operators
from streamlearn.block import F8
from streamlearn.jit.adwin import SIZES, adwin_statistics
from streamlearn.jit.error_rate import SIZE, ddm_statistics, eddm_statistics, rddm_statistics
from streamlearn.jit.error_windows import SIZES as WINDOW_SIZES
from streamlearn.jit.error_windows import stepd_statistics
from streamlearn.jit.limits import (
    AGE,
    BITS,
    EDGES,
    GIVEN,
    GROUP,
    PLACES,
    RANKS,
    RATES,
    REGIME,
    TICK,
    first_over,
    in_zone,
    scored,
)
from streamlearn.operators import _calibrated
from streamlearn.operators._calibrated import Calibrated
from tests.one_number import trace

CALIBRATED = sorted(
    name for name, kind in operators.exported().items() if issubclass(kind, Calibrated)
)
WARNING = sorted(
    name for name in CALIBRATED if hasattr(getattr(operators, name), "warning_detected")
)
KEY = 12345


def ranks(values: F8) -> F8:
    """The sequential ranks of a stream, as a detector without bits gets them."""
    tally = np.zeros(PLACES, dtype=np.int64)
    tally[REGIME] = RANKS
    slots = np.zeros(EDGES + 1 + (EDGES + 1) // GROUP, dtype=np.int64)
    out = np.empty(values.shape[0])
    scored(values, tally, np.zeros((2, EDGES)), slots, KEY, out)
    return out


def detector(name: str, length: int = 1000, **arguments: Any) -> Any:
    return getattr(operators, name)(average_run_length=length, **arguments)


@pytest.mark.jit
def test_a_rank_is_the_place_among_all_values_so_far_or_within_its_cell() -> None:
    """The first 127 exactly; later ones to within the two of the first 127 around them."""
    values = np.random.default_rng(0).normal(size=1500)
    got = ranks(values)
    for t in range(1500):
        below = (values[:t] < values[t]).sum()
        low, high = below, below
        if t > EDGES:
            edges = np.sort(np.append(values[:EDGES], (-np.inf, np.inf)))
            at = np.searchsorted(edges, values[t])
            low = (values[:t] <= edges[at - 1]).sum()
            high = (values[:t] < edges[at]).sum()
        assert low <= got[t] * (t + 1) <= high + 1


@pytest.mark.jit
@pytest.mark.parametrize("kind", ["normal", "lognormal", "bits", "dice", "constant"])
def test_ranks_are_uniform_and_independent_whatever_the_distribution(kind: str) -> None:
    """At single ages over many streams: before and after the first 127, with ties, too."""
    rng = np.random.default_rng(1)
    draws: dict[str, Any] = {
        "normal": lambda: rng.normal(size=400),
        "lognormal": lambda: rng.lognormal(size=400),
        "bits": lambda: (rng.random(400) < 0.1) * 1.0,
        "dice": lambda: rng.integers(0, 6, 400) * 1.0,
        "constant": lambda: np.ones(400),
    }
    seen = np.empty((1500, 400))
    for k in range(1500):
        tally = np.zeros(PLACES, dtype=np.int64)
        tally[REGIME] = RANKS
        slots = np.zeros(EDGES + 1 + (EDGES + 1) // GROUP, dtype=np.int64)
        scored(draws[kind](), tally, np.zeros((2, EDGES)), slots, k, seen[k])
    for t in (0, 1, 30, 126, 127, 128, 200, 399):
        assert stats.kstest(seen[:, t], "uniform").pvalue > 1e-4
    for a, b in ((0, 1), (50, 51), (126, 127), (127, 128), (300, 301), (20, 399)):
        assert abs(np.corrcoef(seen[:, a], seen[:, b])[0, 1]) < 4.5 / np.sqrt(1500)


@pytest.mark.jit
def test_monotone_changes_of_scale_change_no_alarm() -> None:
    values = np.random.default_rng(2).normal(np.arange(3000) // 1000, 1.0)
    for name in CALIBRATED:
        kind = getattr(operators, name)
        if not kind._bits_only and kind._takes != GIVEN:
            one, other = detector(name), detector(name)
            assert_array_equal(one.watch(values), other.watch(np.exp(values)))
            assert one.n_detections >= 2


@pytest.mark.jit
@pytest.mark.parametrize("name", CALIBRATED)
@given(cuts=st.lists(st.integers(0, 1500), max_size=6), kind=st.sampled_from(["bits", "numbers"]))
def test_alarms_and_state_do_not_depend_on_the_cut(name: str, cuts: list[int], kind: str) -> None:
    rng = np.random.default_rng(3)
    values = (rng.random(1500) < np.repeat([0.1, 0.7, 0.1], 500)).astype(np.float64)
    if kind == "numbers":
        values[700:] = rng.normal(np.repeat([0.0, 2.0], 400), 1.0)
    values[[5, 400, 900]] = np.nan, 1e300, np.inf
    whole, parts = detector(name), detector(name)
    alarms = np.concatenate([parts.watch(piece) for piece in np.split(values, sorted(cuts))])
    assert_array_equal(whole.watch(values), alarms)
    assert whole.n_detections == parts.n_detections == alarms.sum() > 0
    assert whole.n_rejected == parts.n_rejected >= 2
    for array in whole._arrays:
        assert_array_equal(getattr(whole, array), getattr(parts, array))


@pytest.mark.jit
@pytest.mark.parametrize("name", CALIBRATED)
def test_values_that_say_nothing_leave_no_trace(name: str) -> None:
    """NaN, infinite and huge ones; a constant, zeros and ones never alarm and never fail."""
    rng = np.random.default_rng(4)
    values = (rng.random(1200) < np.repeat([0.1, 0.5], 600)).astype(np.float64)
    noisy = np.insert(values, [3, 400, 400, 800], [np.nan, np.inf, -1e300, np.nan])
    plain, other = detector(name), detector(name)
    alarms = np.flatnonzero(plain.watch(values))
    kept = np.delete(other.watch(noisy), [3, 401, 402, 803])
    assert_array_equal(alarms, np.flatnonzero(kept))
    assert (plain.n_rejected, other.n_rejected) == (0, 2)
    for constant in (0.0, 1.0, 7.5):
        detector(name, 10_000).watch(np.full(2000, constant))


@pytest.mark.jit
@pytest.mark.parametrize("name", CALIBRATED)
def test_a_finding_says_statistic_and_limit(name: str) -> None:
    rng = np.random.default_rng(5)
    values = (rng.random(3000) < np.repeat([0.1, 0.7], 1500)).astype(np.float64)
    one = detector(name, 10_000)
    found = [entry[0] for entry in one.find(values) if entry is not None]
    assert found
    for finding in found:
        assert finding["detector"] == name
        assert finding["statistic"] > finding["limit"]
        assert finding["average_run_length"] == 10_000


@pytest.mark.jit
@pytest.mark.parametrize("source", ["bits", "lognormal"])
@pytest.mark.parametrize("name", CALIBRATED)
def test_the_chance_of_an_alarm_is_one_in_a(name: str, source: str) -> None:
    """A = 1,000, ages up to 3 A; the whole check is benchmarks/calibrate_detectors.py.

    Lives are independent and a life's alarms are at most one, so the count of alarms is within the
    20 % that are claimed, and four standard deviations of what is drawn here.
    """
    kind = getattr(operators, name)
    if source != "bits" and (kind._bits_only or kind._takes == GIVEN):
        return
    one = detector(name)
    rng = np.random.default_rng(6)
    alarms = events = 0
    while events < 120_000:
        values: Any = rng.lognormal(size=3000)
        if kind._takes == GIVEN:
            values = rng.normal(rng.normal(), 1.0, size=3000)
        elif source == "bits":
            values = (rng.random(3000) < 0.2) * 1.0
        one.reset()
        at = one.first_alarm(values)
        alarms += at >= 0
        events += (at + 1 if at >= 0 else 3000) - one._warm_up
    expected = events / 1000
    assert abs(alarms - expected) < 0.2 * expected + 4.0 * np.sqrt(expected)


@pytest.mark.jit
@pytest.mark.parametrize("name", WARNING)
def test_the_first_warning_comes_where_an_alarm_of_a_tenth_would(name: str) -> None:
    """One in A / 10 until then: counted as above, of A = 10,000, ages up to 0.3 A."""
    one, nervous = detector(name, 10_000), detector(name, 1000)
    rng = np.random.default_rng(6)
    warnings = events = 0
    while events < 120_000:
        values: Any = (rng.random(3000) < 0.2) * 1.0
        one.reset()
        nervous.reset()
        at = nervous.first_alarm(values)
        before = values if at < 0 else values[:at]
        assert one.first_alarm(before) == -1
        assert not one.warning_detected
        assert at < 0 or one.first_alarm(values[at : at + 1]) == 0 or one.warning_detected
        warnings += at >= 0
        events += before.shape[0] + (at >= 0) - one._warm_up
    expected = events / 1000
    assert abs(warnings - expected) < 0.2 * expected + 4.0 * np.sqrt(expected)


@pytest.mark.jit
@pytest.mark.parametrize("name", WARNING)
def test_a_warning_is_that_of_the_last_value_however_the_values_came(name: str) -> None:
    """The zone is left again; an alarm is no warning, nothing changes where there is no value."""
    values: Any = (np.random.default_rng(9).random(1500) < np.repeat([0.1, 0.3], 750)) * 1.0
    said = trace(detector(name, 10_000), values)
    warned: Any = np.array([warning for _, warning in said], dtype=int)
    assert 0 < warned.sum() < 1000
    assert np.diff(warned).min() == -1
    assert any(drift for drift, _ in said)
    assert not any(drift and warning for drift, warning in said)
    turns = np.flatnonzero(np.diff(warned))
    for end in [*turns + 1, *turns + 2]:
        one = detector(name, 10_000)
        one.watch(np.append(values[:end], np.nan))
        assert one.warning_detected == warned[end - 1]


def test_the_warning_zone_begins_at_the_shortest_run_length() -> None:
    """Which has none: there every warning is an alarm."""
    for name in WARNING:
        one, other = detector(name), detector(name, 10_000)
        assert_array_equal(one._zone, one._limits)
        assert_array_equal(other._zone, one._limits)


def test_kswin_is_fed_ranks_of_bits_too() -> None:
    """So one limit holds for every error rate; after an alarm it goes on with ranks."""
    values: Any = (np.random.default_rng(8).random(3000) < np.repeat([0.1, 0.7], 1500)) * 1.0
    one = operators.KSWIN(average_run_length=1000)
    assert 1500 < one.first_alarm(values[1000:]) + 1000 < 1600
    assert one.tally_[REGIME] == RANKS
    assert one.edges_.any()
    assert one.distance > one.last_[1] > 0.1


def fed(kernel: Any, size: int, values: Any, *rest: Any) -> F8:
    """The statistic after each value, from empty state of so many numbers."""
    out = np.empty(values.shape[0])
    kernel(values, np.zeros(size), *rest, out)
    return out


@pytest.mark.jit
def test_eddm_measures_from_where_the_reach_was_surely_long() -> None:
    """From the list of all distances, anew after every error."""
    bits = (np.random.default_rng(9).random(900) < np.repeat([0.1, 0.4], [600, 300])) * 1.0
    got = fed(eddm_statistics, SIZE, bits, np.array([5.0]))
    errors = np.flatnonzero(bits)
    best = best_reach = 0.0
    for k in range(1, errors.shape[0] + 1):
        distances = np.diff(np.append(-1, errors[:k]))
        if k <= 5:
            assert got[errors[k - 1]] == -np.inf
            continue
        reach = distances.mean() + 2.0 * distances.std(ddof=1)
        if reach * (1.0 - k**-0.5) >= best:
            best, best_reach = reach * (1.0 - k**-0.5), reach
        assert_allclose(got[errors[k - 1]], 1.0 - reach / best_reach, rtol=0.0, atol=1e-9)
    assert (got[bits == 0.0] == -np.inf).all()


@pytest.mark.jit
def test_stepd_measures_its_gap_in_ones_of_the_window() -> None:
    """Between the means of the newest 30 and of all before them, less the correction."""
    bits: F8 = (np.random.default_rng(13).random(400) < 0.3).astype(np.float64)
    counts, got = np.zeros(WINDOW_SIZES, dtype=np.int64), np.empty(400)
    stepd_statistics(bits, np.zeros(30, dtype=np.uint8), counts, got)
    assert (got[:59] == -np.inf).all()
    for t in range(60, 401):
        gap = abs(bits[: t - 30].mean() - bits[t - 30 : t].mean())
        assert_allclose(got[t - 1], 30.0 * gap - 0.5 * (30.0 / (t - 30) + 1.0), atol=1e-12)


@pytest.mark.jit
@pytest.mark.parametrize("ratio", [2.0, 6.0])
def test_a_jitter_with_a_ratio_makes_a_tail_of_steps_fall_evenly(ratio: float) -> None:
    """Of a whole number K with P(K >= k) = ratio^-k the sum exceeds any x with chance ratio^-x."""
    jitter, after = np.array([0.0, 1.0, ratio, 77.0]), np.zeros(PLACES, dtype=np.int64)
    after[AGE], after[REGIME] = 1000, RANKS

    def exceeds(k: float, x: float) -> float:
        limits, hits = np.full((32, RATES.shape[0] + 1), x - 0.5), 0
        for tick in range(4000):
            after[TICK] = tick
            hits += in_zone(np.array([k]), np.array([0.5]), after, limits, jitter)
        return hits / 4000

    for x in (0.25, 0.5, 1.75):
        k = float(int(x))  # all larger are beyond x, all smaller are not
        assert (exceeds(k - 1.0, x), exceeds(k + 1.0, x)) == (0.0, 1.0)
        chance = ratio**-k * (1.0 - 1.0 / ratio) * exceeds(k, x) + ratio ** -(k + 1.0)
        assert_allclose(chance, ratio**-x, rtol=0.05)


@pytest.mark.jit
def test_rddm_is_a_ddm_that_begins_again_with_the_newest_bits() -> None:
    """A concept of 400 bits is cut down to its newest 100."""
    bits = (np.random.default_rng(10).random(1000) < 0.2) * 1.0
    settings = np.array([30.0, 0.0, 0.0, 0.0, 400.0, 0.0])
    got = fed(rddm_statistics, SIZE, bits, np.zeros(100, dtype=np.uint8), settings)
    assert_array_equal(got[:400], fed(ddm_statistics, SIZE, bits[:400], settings))
    assert_array_equal(got[400:700], fed(ddm_statistics, SIZE, bits[300:700], settings)[100:])
    assert_array_equal(got[700:1000], fed(ddm_statistics, SIZE, bits[600:], settings)[100:])


@pytest.mark.jit
@pytest.mark.parametrize("source", ["bits", "numbers"])
def test_adwin_in_one_walk_is_its_parts_one_after_the_other(source: str) -> None:
    """Scores of all values, the strongest cut at each, the first beyond its limit."""
    one, rng = operators.ADWIN(average_run_length=1000), np.random.default_rng(11)
    p = np.repeat([0.1, 0.6], [1500, 500])
    values: Any = (rng.random(2000) < p) * 1.0 if source == "bits" else rng.normal(5.0 * p)
    tally = np.zeros(PLACES, dtype=np.int64)
    tally[REGIME] = RANKS if source == "numbers" else BITS
    slots = np.zeros(EDGES + 1 + (EDGES + 1) // GROUP, dtype=np.int64)
    scores, statistics, last = np.empty(2000), np.empty(2000), np.zeros(2)
    before = tally.copy()
    scored(values, tally, np.zeros((2, EDGES)), slots, one._key, scores)
    counts = np.zeros(SIZES + 48, dtype=np.int64)
    adwin_statistics(scores, np.zeros((2, 48, 6)), counts, np.zeros(2), (32, 5.0, 10), statistics)
    statistics[: one._warm_up - 1] = -np.inf
    at = first_over(statistics, scores, before, one._limits, 0.0, one._jitter, last)
    assert one.first_alarm(values) == at > 0
    assert_array_equal(one.last_, last)


@pytest.mark.jit
def test_adwin_tells_of_all_alarms_of_a_walk_what_each_alone_tells() -> None:
    """More alarms than one walk has room for, bits first, then numbers."""
    rng, at = np.random.default_rng(12), 0
    values: Any = (rng.random(40_000) < np.arange(40_000) // 200 % 2) * 1.0
    values[30_000:] += rng.normal(size=10_000)
    one, other = (operators.ADWIN(average_run_length=1000) for _ in range(2))
    told = one.alarms(values)
    assert len(told) > 2 * 64
    for row, finding in told:
        at += other.first_alarm(values[at:]) + 1
        assert (row, finding) == (at - 1, other.finding())
    assert other.first_alarm(values[at:]) == -1


@pytest.mark.jit
def test_bits_that_are_all_alike_raise_no_alarm_however_low_the_limit() -> None:
    statistics, scores = np.full(50, 9.0), np.zeros(50)
    limits, last = np.zeros((4, 15)), np.zeros(2)
    before = np.zeros(PLACES, dtype=np.int64)
    for value in (0.0, 1.0):
        scores[:] = value
        assert first_over(statistics, scores, before, limits, 0.0, np.zeros(3), last) == -1
    scores[20] = 0.0
    assert first_over(statistics, scores, before, limits, 0.0, np.zeros(3), last) == 20


@pytest.mark.parametrize("name", CALIBRATED)
def test_limits_lie_between_those_of_the_run_lengths_around(name: str) -> None:
    found = _calibrated.table(name)
    low, high = (np.array(found["limits"][n]) for n in ("3000", "10000"))
    between = _calibrated.limits_for(found, 5477.2255750516615)  # the geometric mean
    assert_allclose(between, (low + high) / 2.0)
    most = max(found["limits"], key=int)
    assert_allclose(_calibrated.limits_for(found, int(most)), found["limits"][most])


@pytest.mark.parametrize("name", CALIBRATED)
@pytest.mark.parametrize(
    ("length", "rule"),
    [
        (999, "average_run_length must be a whole number >= 1000, got 999"),
        (100_001, "average_run_length must be <= [13]0+, got 100001"),
        (1e4, r"average_run_length must be a whole number >= 1000, got 10000\.0"),
    ],
)
def test_run_lengths_that_were_not_measured_are_refused(name: str, length: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: {rule}$"):
        detector(name, length)


@pytest.mark.parametrize("name", CALIBRATED)
def test_the_longest_run_length_that_is_taken_is_the_one_that_is_claimed_and_measured(
    name: str,
) -> None:
    """With 400 alarms a cell, beyond the warm-up; in all but one of ten within 20 %."""
    most = _calibrated.longest(name)
    said = inspect.getdoc(getattr(operators, name)) or ""
    assert f" 1,000 to {most:,}, " in said.replace("\n", " ")
    sources = calibrate_detectors.kept()[name][most]
    if name == "EDDM":  # claims nothing for so low an error rate
        del sources["bits 0.05"]
    cells = [cell for bands in sources.values() for cell in bands]
    assert min(alarms for alarms, _ in cells) >= 400
    assert np.mean([abs(ratio - 1.0) > 0.2 for _, ratio in cells]) <= 0.1


def test_limits_are_those_of_the_defaults_alone() -> None:
    rule = "ADWIN: clock must be 32 with average_run_length, for which its limits were measured"
    with pytest.raises(ValueError, match=f"^{rule}; got 8$"):
        operators.ADWIN(clock=8, average_run_length=1000)
