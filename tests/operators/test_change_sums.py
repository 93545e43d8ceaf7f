"""Page-Hinkley against River's, CUSUM against its textbook loop, value by value."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import drift

from streamlearn.block import F8
from streamlearn.operators.change_sums import CUSUM, PageHinkley
from tests import one_number
from tests.one_number import alarms, numbers, trace

River: Any = drift.PageHinkley  # untyped


def naive_cusum(values: F8, least: int, delta: float, threshold: float, mode: str) -> list[int]:
    """The sums of everything since the last alarm, by their definition, after every value."""
    found, seen = [], []
    up = down = 0.0
    for t, value in enumerate(values.tolist()):
        seen.append(value)
        deviation = value - float(np.mean(seen))
        up, down = max(0.0, up + deviation - delta), max(0.0, down - deviation - delta)
        worst = {"up": up, "down": down, "both": max(up, down)}[mode]
        if len(seen) >= least and worst > threshold:
            found.append(t)
            seen, up, down = [], 0.0, 0.0
    return found


@pytest.mark.jit
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from([numbers, one_number.bits]),
    min_instances=st.sampled_from([1, 30, 100]),
    delta=st.sampled_from([0.0, 0.005, 0.5]),
    threshold=st.sampled_from([3.0, 50.0]),
    alpha=st.sampled_from([0.9, 0.9999, 1.0]),
    mode=st.sampled_from(["up", "down", "both"]),
)
def test_page_hinkley_says_after_every_value_what_rivers_says(
    seed: int,
    kind: Any,
    min_instances: int,
    delta: float,
    threshold: float,
    alpha: float,
    mode: str,
) -> None:
    arguments = (min_instances, delta, threshold, alpha, mode)
    values = kind(seed, 700)
    assert trace(PageHinkley(*arguments), values) == trace(River(*arguments), values)


@pytest.mark.jit
@given(
    seed=st.integers(0, 10**6),
    min_instances=st.sampled_from([1, 30]),
    delta=st.sampled_from([0.0, 0.005, 0.5]),
    threshold=st.sampled_from([3.0, 50.0]),
    mode=st.sampled_from(["up", "down", "both"]),
)
def test_cusum_alarms_where_the_textbook_does(
    seed: int, min_instances: int, delta: float, threshold: float, mode: str
) -> None:
    arguments = (min_instances, delta, threshold, mode)
    values = numbers(seed, 500)
    assert alarms(CUSUM(*arguments), values) == naive_cusum(values, *arguments)


@pytest.mark.jit
@pytest.mark.parametrize(
    ("mode", "expected"), [("up", [588, 1681]), ("down", [1172]), ("both", [588, 1097, 1585])]
)
def test_the_documented_alarms_of_page_hinkley(mode: str, expected: list[int]) -> None:
    _, s3 = one_number.documented()
    assert alarms(PageHinkley(mode=mode), s3) == expected


def test_the_documented_alarms_of_cusum() -> None:
    """frouros 0.9: three hundred numbers, at least one instance."""
    rng = np.random.RandomState(31)
    parts = [rng.normal(mean, sd, 100) for mean, sd in ((0.0, 0.5), (4.0, 0.2), (6.0, 0.5))]
    assert alarms(CUSUM(1, 0.005, 50.0), np.concatenate(parts)) == [113, 226]


@pytest.mark.parametrize("kind", [PageHinkley, CUSUM])
@pytest.mark.parametrize(("step", "how"), [(2.0, "rose"), (-2.0, "fell")])
def test_a_finding_says_which_way_the_mean_went(kind: Any, step: float, how: str) -> None:
    detector = kind(mode="both")
    at = detector.first_alarm(np.repeat([1.0, 1.0 + step], [100, 200]))
    finding = detector.finding()
    assert (finding["detector"], finding["how"]) == (kind.__name__, how)
    assert detector.rose == (how == "rose")
    assert (finding["values"], finding["limit"]) == (at + 1, 50.0)
    assert finding["statistic"] > 50.0
    assert json.loads(json.dumps(finding)) == finding
    detector.update(1.0)
    assert not detector.rose


@pytest.mark.jit
@pytest.mark.parametrize("kind", [PageHinkley, CUSUM])
@given(cuts=st.lists(st.integers(0, 1500), max_size=6))
def test_alarms_and_state_do_not_depend_on_the_cut(kind: Any, cuts: list[int]) -> None:
    one_number.check_cuts(kind(threshold=9.0), kind(threshold=9.0), numbers(2), cuts)


@pytest.mark.jit
@pytest.mark.parametrize("kind", [PageHinkley, CUSUM])
def test_values_that_say_nothing_are_skipped(kind: Any) -> None:
    bad = np.array([np.inf, -np.inf, 1e300, -1e200])
    one_number.check_values_that_say_nothing(kind(), kind(), numbers(5), bad)


@pytest.mark.jit
@pytest.mark.parametrize("kind", [PageHinkley, CUSUM])
def test_a_state_goes_on(kind: Any) -> None:
    one_number.check_resumes(kind(threshold=9.0), kind(threshold=9.0), numbers(2))


@pytest.mark.jit
@pytest.mark.parametrize("kind", [PageHinkley, CUSUM])
@pytest.mark.parametrize("value", [0.0, 1.0, -1e9, 1e99])
def test_a_constant_raises_no_alarm(kind: Any, value: float) -> None:
    assert kind(mode="both", delta=0.005).first_alarm(np.full(20_000, value)) == -1


@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        ({"min_instances": -1}, "min_instances must be a whole number >= 0, got -1"),
        ({"delta": np.nan}, "delta must be a finite number, got nan"),
        ({"threshold": 0.0}, r"threshold must be > 0, got 0\.0"),
        ({"mode": "sideways"}, "mode must be one of up, down, both, got 'sideways'"),
    ],
)
@pytest.mark.parametrize("kind", [PageHinkley, CUSUM])
def test_arguments_are_checked(kind: Any, argument: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{kind.__name__}: {rule}$"):
        kind(**argument)


@pytest.mark.parametrize(("alpha", "rule"), [(0.0, "> 0, got 0.0"), (1.5, "<= 1, got 1.5")])
def test_page_hinkleys_alpha_is_checked(alpha: float, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^PageHinkley: alpha must be {rule}$"):
        PageHinkley(alpha=alpha)
