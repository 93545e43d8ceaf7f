"""What is shown: the progress line on a terminal and in a log, numbers undefined or huge."""

import io
from typing import Any

import pytest
from rich.console import Console

from streamlearn import display


def console(terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=200, color_system=None), out


def test_the_progress_line_says_events_speed_metric_and_alarms() -> None:
    line = display.progress_line(1_234_567, 2_100_000.4, "accuracy", 0.88123, 3)
    assert line == "1,234,567 events  2,100,000/s  accuracy 0.8812 (last rows)  3 alarms"
    assert display.progress_line(0, 0.0, "mae", None, 1).endswith("mae - (last rows)  1 alarm")


def test_on_a_terminal_the_line_is_redrawn_and_then_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_REFRESH_SECONDS", 0.0)
    screen, out = console(terminal=True)
    with display.Progress(screen) as progress:
        assert progress.due
        progress.show(10, "accuracy", 0.5, 0)
        progress.show(20, "accuracy", 0.75, 1)
    text = out.getvalue()
    assert "20 events" in text
    assert text.index("10 events") < text.index("\x1b[2K") < text.index("20 events")
    assert text.rindex("\x1b[2K") > text.rindex("20 events")


def test_elsewhere_a_line_is_printed_now_and_then() -> None:
    screen, out = console(terminal=False)
    with display.Progress(screen) as progress:
        assert not progress.due  # five seconds have not passed
        progress.show(10, "accuracy", 0.5, 0)
        assert not progress.due
    assert out.getvalue().startswith("10 events  ")
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()


RESULT: dict[str, Any] = {
    "model": "Pipeline(KalmanRegressor())",
    "metrics": {"mae": 0.25, "rmse": 12_345_678.0, "r2": None},
    "windowed": {"mae": 0.5, "rmse": 1.0, "r2": -0.125},
    "fading": {"mae": 0.5, "rmse": 1.0, "r2": None},
    "baselines": {"no_change": {"mae": 1.0}, "mean": {"mae": 2.0}},
    "events": 12_345,
    "seconds": 2.0,
    "events_per_second": 6172.5,
    "state_bytes": 2048,
    "alarms": [7, 1200],
    "n_alarms": 2,
    "unanswered": 1,
    "dead_letters": 3,
}


def printed(**changes: Any) -> str:
    screen, out = console(terminal=False)
    display.print_result(RESULT | changes, screen)
    return out.getvalue()


def test_the_table_has_the_baselines_beside_and_a_dash_for_what_is_undefined() -> None:
    rows = [line.split() for line in printed().splitlines()]
    assert ["metric", "cumulative", "windowed", "fading", "no_change", "mean"] in rows
    assert ["mae", "0.2500", "0.5000", "0.5000", "1.0000", "2.0000"] in rows
    assert ["rmse", "1.2346e+07", "1.0000", "1.0000", "-", "-"] in rows
    assert ["r2", "-", "-0.1250", "-", "-", "-"] in rows


def test_what_must_not_be_overlooked_is_below_the_table() -> None:
    text = printed()
    assert "12,345 events in 2.00 s: 6,172 events/s, state 2.0 KiB" in text
    assert "2 drift alarms, at row 7, 1,200" in text
    assert "1 with a label but no answer yet, not measured" in text
    assert "3 records did not fit: dead letters" in text
    later = "12,345 events, 345 since the last start, in 2.00 s: 172 events/s"
    assert later in printed(resumed_at=12_000, events_per_second=172.5)
    quiet = printed(alarms=[], n_alarms=0, unanswered=0, dead_letters=0)
    assert "no drift alarms" in quiet
    assert "did not fit" not in quiet
    assert "of the model" not in quiet
    assert (
        "no drift alarms\n1 change of the model that serves: promoted or rolled back\n"
        in printed(alarms=[], n_alarms=0, n_swaps=1)
    )


def test_only_the_last_alarms_are_listed() -> None:
    text = printed(alarms=list(range(100)), n_alarms=4000)
    assert "4,000 drift alarms, the last at row 92, 93, 94, 95, 96, 97, 98, 99" in text


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (3 << 20, "3.0 MiB"), (5 << 30, "5.0 GiB")],
)
def test_bytes_are_shown_in_units_that_people_read(count: int, shown: str) -> None:
    assert f"state {shown}" in printed(state_bytes=count)
