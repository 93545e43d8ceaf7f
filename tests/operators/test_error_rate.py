"""DDM and EDDM against River's, RDDM and ECDD against textbook loops, value by value."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import base
from river.drift import binary

from streamlearn.block import F8
from streamlearn.operators.error_rate import DDM, ECDD, EDDM, RDDM
from tests import one_number
from tests.one_number import Said, alarms, bits, trace

RiverDDM: Any = binary.DDM  # untyped
RiverEDDM: Any = binary.EDDM
KINDS = [DDM, EDDM, RDDM, ECDD]


class NaiveRDDM:
    """Reactive DDM with lists: what the concept holds, and when the warning began."""

    def __init__(
        self, least: int, warning: float, drift: float, longest: int, kept: int, patience: int
    ) -> None:
        self.least, self.warning, self.drift = least, warning, drift
        self.longest, self.kept, self.patience = longest, kept, patience
        self.window: list[float] = []  # at most `kept`
        self.concept: list[float] = []  # what the rate is made of
        self.best = (math.inf, math.inf)
        self.since = 0  # values that the warning has lasted
        self.drift_detected = self.warning_detected = False

    def rate(self) -> tuple[float, float]:
        p = 0.0
        for n, bit in enumerate(self.concept, 1):
            p += (1.0 / n) * (bit - p)
        return p, math.sqrt(p * (1 - p) / len(self.concept))

    def begin_again(self) -> None:
        """After an alarm the best comes from the values kept, too, once they are enough."""
        kept, self.concept, self.best = self.window, [], (math.inf, math.inf)
        for bit in kept:
            self.concept.append(bit)
            p, s = self.rate()
            if len(self.concept) > self.least and p + s < sum(self.best):
                self.best = p, s
        self.since = 0

    def update(self, bit: float) -> None:
        if self.drift_detected:
            self.begin_again()
        elif len(self.concept) >= self.longest and not self.warning_detected:
            self.concept = list(self.window)
        self.drift_detected = self.warning_detected = False
        self.window = [*self.window, bit][-self.kept :]
        self.concept.append(bit)
        if len(self.concept) < self.least:
            return
        p, s = self.rate()
        if p + s < sum(self.best):
            self.best = p, s
        p_min, s_min = self.best
        if p + s > p_min + self.drift * s_min:
            self.drift_detected = True
            self.window = self.window[-(self.since + 1) :]
        elif p + s <= p_min + self.warning * s_min:
            self.since = 0
        elif self.since >= self.patience:
            self.drift_detected = True
            self.window = [bit]
        else:
            self.since += 1
            self.warning_detected = True


def naive_ecdd(values: F8, least: int, lam: float) -> Said:
    """The chart from its sums over everything since the last alarm."""
    said: Said = []
    seen: list[float] = []
    for bit in values.tolist():
        seen.append(bit)
        n, p = len(seen), sum(seen) / len(seen)
        z = sum(lam * (1 - lam) ** (n - 1 - k) * x for k, x in enumerate(seen))
        sigma = math.sqrt(p * (1 - p) * lam / (2 - lam) * (1 - (1 - lam) ** (2 * n)))
        limit = 3.97 - 6.56 * p + 48.73 * p**3 - 330.13 * p**5 + 848.18 * p**7
        tested = n >= least and sigma > 0
        drift = tested and z > p + limit * sigma
        said.append((drift, tested and not drift and z > p + 0.5 * limit * sigma))
        if drift:
            seen = []
    return said


@pytest.mark.jit
@given(
    seed=st.integers(0, 10**6),
    warm_start=st.sampled_from([0, 1, 30, 100]),
    warning=st.sampled_from([1.0, 2.0]),
    drift=st.sampled_from([1.5, 3.0]),
)
def test_ddm_says_after_every_value_what_rivers_says(
    seed: int, warm_start: int, warning: float, drift: float
) -> None:
    values = bits(seed)
    arguments = (warm_start, warning, drift)
    assert trace(DDM(*arguments), values) == trace(RiverDDM(*arguments), values)


@pytest.mark.jit
@given(
    seed=st.integers(0, 10**6),
    warm_start=st.sampled_from([0, 1, 30, 100]),
    alpha=st.sampled_from([0.95, 0.99]),
    beta=st.sampled_from([0.8, 0.9, 0.95]),
)
def test_eddm_says_after_every_value_what_rivers_says(
    seed: int, warm_start: int, alpha: float, beta: float
) -> None:
    values = bits(seed)
    arguments = (warm_start, alpha, beta)
    assert trace(EDDM(*arguments), values) == trace(RiverEDDM(*arguments), values)


@pytest.mark.jit
@given(
    seed=st.integers(0, 10**6),
    least=st.sampled_from([1, 30, 129]),
    warning=st.sampled_from([0.5, 1.773]),
    sizes=st.sampled_from([(20, 5), (150, 40), (400, 399), (40_000, 7_000)]),
    patience=st.sampled_from([1, 20, 1_400]),
)
def test_rddm_says_after_every_value_what_the_textbook_says(
    seed: int, least: int, warning: float, sizes: tuple[int, int], patience: int
) -> None:
    arguments = (least, warning, 2.258, *sizes, patience)
    values = bits(seed, 500)
    assert trace(RDDM(*arguments), values) == trace(NaiveRDDM(*arguments), values)


@pytest.mark.jit
@given(
    seed=st.integers(0, 10**6),
    least=st.sampled_from([1, 30]),
    lam=st.sampled_from([0.05, 0.2]),
)
def test_ecdd_says_after_every_value_what_the_textbook_says(
    seed: int, least: int, lam: float
) -> None:
    values = bits(seed, 400)
    assert trace(ECDD(least, lam), values) == naive_ecdd(values, least, lam)


@pytest.mark.jit
def test_the_documented_alarms() -> None:
    s2, _ = one_number.documented()
    assert alarms(DDM(), s2) == [1049]
    assert alarms(EDDM(alpha=0.9, beta=0.8), s2) == [1059]


def test_the_first_error_after_none_is_an_alarm_of_ddm() -> None:
    """The best deviation is 0, so the statistic has no bound; the finding leaves it out."""
    detector = DDM()
    assert detector.first_alarm(np.repeat([0.0, 1.0], [50, 1])) == 50
    finding = detector.finding()
    assert "statistic" not in finding
    assert json.loads(json.dumps(finding, allow_nan=False)) == finding


def test_where_a_detector_stands_is_plain_json() -> None:
    detector = DDM()
    assert detector.standing == {"statistic": 0.0, "limit": 0.0}
    detector.watch(np.tile([0.0, 1.0], 50))
    assert 0.0 < detector.standing["statistic"] < detector.standing["limit"] == 3.0


@pytest.mark.jit
def test_a_long_warning_is_an_alarm_of_rddm() -> None:
    values = np.random.default_rng(1).random(3000) < np.repeat([0.2, 0.23], [1000, 2000])
    patient, hasty = (RDDM(drift_level=9.0, warn_limit=limit) for limit in (5000, 50))
    assert patient.first_alarm(values.astype(float)) == -1
    assert hasty.first_alarm(values.astype(float)) > 0
    finding = hasty.finding()
    assert finding["warned"] == 50
    assert finding["statistic"] < finding["limit"] == 9.0


@pytest.mark.parametrize("kind", KINDS)
def test_river_takes_it_for_a_detector_of_errors(kind: Any) -> None:
    assert isinstance(kind(), base.BinaryDriftAndWarningDetector)
    detector = kind()
    detector.update(True)
    assert (detector.drift_detected, detector.warning_detected) == (False, False)
    assert detector.n_rejected == 0


@pytest.mark.jit
@pytest.mark.parametrize("kind", KINDS)
@given(cuts=st.lists(st.integers(0, 1500), max_size=6))
def test_alarms_and_state_do_not_depend_on_the_cut(kind: Any, cuts: list[int]) -> None:
    one_number.check_cuts(kind(), kind(), bits(2), cuts)


@pytest.mark.jit
@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_no_bits_are_skipped(kind: Any) -> None:
    bad = np.array([np.inf, -np.inf, 1e300, -1.0, 0.5, 2.0])
    one_number.check_values_that_say_nothing(kind(), kind(), bits(5), bad)


@pytest.mark.jit
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_goes_on(kind: Any) -> None:
    one_number.check_resumes(kind(), kind(), bits(2))


@pytest.mark.jit
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_raises_no_alarm(kind: Any, value: float) -> None:
    assert kind().first_alarm(np.full(50_000, value)) == -1


@pytest.mark.parametrize(
    ("kind", "argument", "rule"),
    [
        (DDM, {"warm_start": -1}, "warm_start must be a whole number >= 0, got -1"),
        (DDM, {"warning_threshold": 0}, "warning_threshold must be > 0, got 0"),
        (DDM, {"drift_threshold": -1.0}, r"drift_threshold must be > 0, got -1\.0"),
        (EDDM, {"alpha": 0.8}, r"alpha must be in \[0\.9, 1\], got 0\.8"),
        (EDDM, {"beta": 0.0}, r"beta must be > 0, got 0\.0"),
        (RDDM, {"min_instances": 0}, "min_instances must be a whole number >= 1, got 0"),
        (
            RDDM,
            {"max_concept_size": 7000},
            "max_concept_size must be a whole number >= 7001, got 7000",
        ),
        (RDDM, {"warn_limit": 0}, "warn_limit must be a whole number >= 1, got 0"),
        (ECDD, {"lambda_val": 1.0}, r"lambda_val must be < 1, got 1\.0"),
        (ECDD, {"min_instances": 0}, "min_instances must be a whole number >= 1, got 0"),
    ],
)
def test_arguments_are_checked(kind: Any, argument: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{kind.__name__}: {rule}$"):
        kind(**argument)
