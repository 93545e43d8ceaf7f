"""Known drifts, and alarms judged against them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.connectors.generators import DriftSource, DriftStream
from streamlearn.errors import UserError
from streamlearn.known_drifts import judge_alarms, known_drifts, parse_drifts
from tests import naive_drift


def test_drifts_are_events_pairs_or_text() -> None:
    assert known_drifts([10, np.int64(20)]) == ((10, 10), (20, 20))
    assert known_drifts([(10, 15), [20, 20], 30]) == ((10, 15), (20, 20), (30, 30))
    assert known_drifts("10, 20-25,30") == ((10, 10), (20, 25), (30, 30))
    assert known_drifts([3, 100, (200, 200)], width=11) == ((0, 8), (95, 105), (200, 200))
    assert known_drifts([]) == ()


@pytest.mark.parametrize("text", ["", "a", "10,", "-5", "10-", "1-2-3", "1.5", "10;20", "²"])
def test_text_that_says_no_drifts_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--drifts: must be rows from 0, as 10000,20000 or"):
        parse_drifts(text)


@pytest.mark.parametrize("drifts", [[5, 5], [9, 3], [(1, 5), 5], [(1, 5), (3, 9)]])
def test_drifts_that_overlap_are_refused(drifts: list[Any]) -> None:
    with pytest.raises(ValueError, match="drifts must rise and not overlap, got"):
        known_drifts(drifts)


def test_alarms_by_hand() -> None:
    """Drifts at 100 and 200 to 220, tolerance 10: zones 100..110 and 200..230."""
    alarms = [99, 100, 110, 111, 199, 220, 230, 231]
    assert judge_alarms(alarms, [100, (200, 220)], tolerance=10) == {
        "n": 8,
        "false_alarms": 4,  # 99, 111, 199, 231
        "misses": 0,
        "mean_delay": 10.0,
        "drifts": [
            {"start": 100, "end": 100, "delay": 0, "alarms": 2},
            {"start": 200, "end": 220, "delay": 20, "alarms": 2},
        ],
    }


def test_an_alarm_after_the_next_start_is_about_the_next_drift() -> None:
    found = judge_alarms([160], [100, 150], tolerance=1000)
    assert [drift["delay"] for drift in found["drifts"]] == [None, 10]
    assert (found["misses"], found["false_alarms"]) == (1, 0)


def test_without_drifts_every_alarm_is_false() -> None:
    assert judge_alarms([1, 2], []) == {
        "n": 2, "false_alarms": 2, "misses": 0, "mean_delay": None, "drifts": [],
    }  # fmt: skip


@given(
    st.lists(st.integers(0, 300), max_size=30),
    st.lists(st.integers(0, 300), max_size=8, unique=True),
    st.integers(0, 60),
)
def test_alarms_equal_a_plain_loop(alarms: list[int], rows: list[int], tolerance: int) -> None:
    rows = sorted(rows)
    drifts = list(zip(rows[::2], rows[1::2], strict=False))
    assert judge_alarms(alarms, drifts, tolerance) == naive_drift.judged(alarms, drifts, tolerance)


def test_generated_streams_hand_over_their_drifts() -> None:
    abrupt = DriftStream("abrupt", n=4000)
    assert DriftSource(abrupt).known_drifts == [(1000, 1000), (2000, 2000), (3000, 3000)]
    gradual = DriftStream("gradual", n=4000, at=(100, 2000), width=500)
    assert DriftSource(gradual).known_drifts == [(0, 350), (1750, 2250)]
