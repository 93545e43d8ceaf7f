"""HDDM_A and HDDM_W against River's, value by value, warnings too."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import base
from river.drift import binary

from streamlearn.operators.hoeffding import HDDM_A, HDDM_W
from tests import one_number
from tests.one_number import alarms, bits, trace

PEERS: dict[Any, Any] = {  # an older River has our names
    ours: getattr(binary, name.replace("_", ""), None) or getattr(binary, name)
    for ours, name in {HDDM_A: "HDDM_A", HDDM_W: "HDDM_W"}.items()
}
KINDS = [HDDM_A, HDDM_W]


@pytest.mark.jit
@pytest.mark.parametrize("kind", KINDS)
@given(
    seed=st.integers(0, 10**6),
    drift=st.sampled_from([0.001, 0.05, 0.3]),
    warning=st.sampled_from([0.005, 0.1, 0.5]),
    two_sided=st.booleans(),
    parts=st.booleans(),
)
def test_warnings_and_alarms_are_rivers_after_every_value(
    kind: Any, seed: int, drift: float, warning: float, two_sided: bool, parts: bool
) -> None:
    """Bits, and values between 0 and 1."""
    values = bits(seed, 700)
    if parts:
        values *= np.random.default_rng(seed).random(700)
    own = kind(drift, warning, two_sided_test=two_sided)
    river = PEERS[kind](drift, warning, two_sided_test=two_sided)
    assert trace(own, values) == trace(river, values)


@pytest.mark.jit
@given(seed=st.integers(0, 10**6), lambda_val=st.sampled_from([0.01, 0.2, 0.9]))
def test_lambda_means_what_it_means_in_river(seed: int, lambda_val: float) -> None:
    values = bits(seed, 700)
    own = HDDM_W(0.05, 0.1, lambda_val, two_sided_test=True)
    river = PEERS[HDDM_W](0.05, 0.1, lambda_val, two_sided_test=True)
    assert trace(own, values) == trace(river, values)


@pytest.mark.jit
@pytest.mark.parametrize(
    ("kind", "rise", "both"),
    [(HDDM_A, [1047], [531, 1015, 1545]), (HDDM_W, [1018], [507, 1032, 1508])],
)
def test_the_documented_alarms(kind: Any, rise: list[int], both: list[int]) -> None:
    s2, s3 = one_number.documented()
    assert alarms(kind(), s2) == rise
    assert alarms(kind(two_sided_test=True), s3) == both


@pytest.mark.jit
@pytest.mark.parametrize("kind", KINDS)
def test_a_finding_says_which_way_the_mean_went(kind: Any) -> None:
    values = np.repeat([0.0, 1.0, 0.0], 300)
    found = [f for f in kind(two_sided_test=True).find(values) if f is not None]
    assert [finding["how"] for (finding,) in found] == ["rose", "fell"]
    assert all(finding["statistic"] >= finding["limit"] == 1.0 for (finding,) in found)


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
    first, second = (kind(0.05, two_sided_test=True) for _ in range(2))
    one_number.check_cuts(first, second, bits(2), cuts)


@pytest.mark.jit
@pytest.mark.parametrize("kind", KINDS)
def test_values_that_say_nothing_are_skipped(kind: Any) -> None:
    bad = np.array([np.inf, -np.inf, 1e300, -1e-9, 1.5])
    one_number.check_values_that_say_nothing(kind(), kind(), bits(5), bad)


@pytest.mark.jit
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_goes_on(kind: Any) -> None:
    first, second = (kind(0.05, two_sided_test=True) for _ in range(2))
    one_number.check_resumes(first, second, bits(2))


@pytest.mark.jit
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_raises_no_alarm(kind: Any, value: float) -> None:
    assert kind(two_sided_test=True).first_alarm(np.full(20_000, value)) == -1


@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        ({"drift_confidence": 0.0}, r"drift_confidence must be > 0, got 0\.0"),
        ({"drift_confidence": 1.0}, r"drift_confidence must be < 1, got 1\.0"),
        ({"warning_confidence": 2}, "warning_confidence must be < 1, got 2"),
        ({"two_sided_test": 1}, "two_sided_test must be true or false, got 1"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_arguments_are_checked(kind: Any, argument: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{kind.__name__}: {rule}$"):
        kind(**argument)


def test_lambda_is_checked() -> None:
    with pytest.raises(ValueError, match=r"^HDDM_W: lambda_val must be < 1, got 1\.0$"):
        HDDM_W(lambda_val=1.0)
