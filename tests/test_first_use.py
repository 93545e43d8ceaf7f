"""What a first user runs into: too little data, a wrong path, a wrong unit, things left out."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from streamlearn import UserError, cli, display, replay, wording
from streamlearn.comparison import compare, signed
from streamlearn.job import check_outputs
from streamlearn.report import check_path, report_html
from streamlearn.report_comparison import _settled
from tests.report_results import classified
from tests.test_display import RESULT, console
from tests.test_late_replay import events_and_labels, records, write
from tests.test_report import words


def small(folder: Path, n: int) -> Path:
    return write(folder / "small.csv", records()[:n], "a", "b", "y")


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Warnings, without what is said of the columns."""
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


# -- nothing was scored ----------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "delay"), [(1, None), (2, 1), (12, 100)])
def test_a_report_of_nothing_scored_says_so(tmp_path: Path, n: int, delay: int | None) -> None:
    path = tmp_path / "r.html"
    found = replay(small(tmp_path, n), target="y", delay=delay, report=path)
    assert found.metrics["accuracy"] is None
    assert "Nothing was scored, so there is nothing to draw." in path.read_text()


def test_a_comparison_of_nothing_scored_says_so(tmp_path: Path) -> None:
    path, models = tmp_path / "r.html", ("KalmanHead", "MajorityClassifier")
    found = compare(small(tmp_path, 12), *models, target="y", delay=100, report=path)
    assert "Nothing was scored, so there is nothing to draw." in path.read_text()
    assert "MajorityClassifier  no rows in common" in repr(found)
    assert "intervals" not in repr(found)


def test_huge_residuals_are_drawn_without_a_warning(tmp_path: Path) -> None:
    rows = [{"a": float(t), "y": (-1.0) ** t * 1e200} for t in range(30)]
    replay(rows, target="y", task="regression", report=tmp_path / "r.html")
    assert signed(-1e200) == "-1.0000e+200"
    assert signed(0.25) == "+0.2500"


# -- what would be found too late ------------------------------------------------------------------


def test_a_report_is_tried_before_the_stream(tmp_path: Path) -> None:
    """Rights do not tell of all file systems; what is there stays, what is not is not left."""
    with pytest.raises(UserError, match=r"^report: /proc/r\.html: cannot be written: "):
        check_path("/proc/r.html")
    there, new = tmp_path / "there.html", tmp_path / "new.html"
    there.write_text("before")
    check_path(there)
    check_path(new)
    assert there.read_text() == "before"
    assert not new.exists()


def test_a_json_that_is_a_folder_is_refused_before_the_stream(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^json: .* is a folder; name a file, such as result\.js"):
        check_outputs(None, {"json": tmp_path})


@pytest.mark.parametrize(("name", "part"), [("there.yaml", "is there"), ("no/t.yaml", "no such")])
def test_a_search_is_not_made_for_a_file_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    name: str, part: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("streamlearn.tuning.tune", lambda **_: pytest.fail("searched"))
    (tmp_path / "there.yaml").touch()
    given = ["tune", "d.csv", "--range", "sigma2=1..2", "-o", str(tmp_path / name)]
    with pytest.raises(SystemExit, match="2"):
        cli.main(given)
    assert part in capsys.readouterr().err


# -- what would be overlooked ----------------------------------------------------------------------


def test_drifts_beyond_the_stream_are_told(caplog: pytest.LogCaptureFixture) -> None:
    found = replay(records(), target="y", ignore="id,t,known", drifts="100,9000-9100,20000")
    assert logged(caplog) == [
        "known drifts: the stream has 240 events, so it does not reach those at 9,000, 20,000"
    ]
    assert found.known_drifts == [[100, 100]]


def test_labels_in_another_unit_of_time_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Thousands of seconds where the events have seconds: every label is before its event."""
    events, _ = events_and_labels(tmp_path)
    rows = [{"id": row["id"], "t": row["t"] // 1000, "y": row["y"]} for row in records()]
    labels = write(tmp_path / "k.csv", rows)
    replay(events, target="y", id="id", time="t", labels=str(labels))
    assert logged(caplog) == [
        (
            "labels: 240 of 240 came before their event, by their times; compare the times of "
            "both: one unit, one time zone"
        )
    ]


def test_labels_of_other_events_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    events, _ = events_and_labels(tmp_path)
    rows = [{"id": f"x{t}", "t": row["t"], "y": row["y"]} for t, row in enumerate(records())]
    labels = write(tmp_path / "x.csv", rows)
    replay(events, target="y", id="id", time="t", labels=str(labels))
    assert logged(caplog)[-1] == (
        "labels: none of 240 labels met its event (240 unknown, 0 late); compare the ids and the "
        "times of both"
    )


def test_labels_are_not_doubted_where_all_is_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events, labels = events_and_labels(tmp_path)
    replay(events, target="y", id="id", time="t", labels=str(labels))
    assert logged(caplog) == []


def test_labels_beside_those_of_the_events_are_used_instead(tmp_path: Path) -> None:
    """A recorded stream still has its labels; the model must not see them as a feature."""
    events, labels = events_and_labels(tmp_path)
    whole = write(tmp_path / "whole.csv", records(), "id", "t", "a", "b", "y")
    asked: dict[str, Any] = {"target": "y", "id": "id", "time": "t", "labels": str(labels)}
    found, expected = replay(whole, **asked), replay(events, **asked)
    assert found.metrics == expected.metrics
    assert found.labels == expected.labels


@pytest.mark.parametrize("option", ["timeout", "assume"])
def test_options_of_a_label_stream_need_one(option: str) -> None:
    with pytest.raises(
        UserError, match=rf"^{option}: is for labels with a source of their own; name"
    ):
        replay(records(), target="y", **{option: "7"})  # type: ignore[arg-type]


def test_a_source_and_a_delay_are_named_in_the_message() -> None:
    with pytest.raises(UserError, match=r"got source 'l\.csv' and delay '4'$"):
        replay(records(), target="y", labels="l.csv", delay="4")


# -- what is shown ---------------------------------------------------------------------------------


def printed(**changes: Any) -> str:
    screen, out = console(terminal=False)
    display.print_result(RESULT | changes, screen)
    return out.getvalue()


def test_groups_beyond_the_cap_come_last_and_are_explained() -> None:
    groups = {f"g{i}": {"scored": 1, "mae": 0.5} for i in range(30)}
    text = printed(by_group=groups | {"(other)": {"scored": 900, "mae": 0.25}})
    assert text.index("g0 ") < text.index("g19 ") < text.index("(other)")
    assert ["(other)", "900", "0.2500", "-"] in [line.split() for line in text.splitlines()]
    assert "and 10 more (--json)" in text
    assert "groups: the first 30 values are told apart, others are (other)" in text


def test_one_event_is_one_event() -> None:
    assert "1 event in 2.00 s" in printed(events=1)
    assert "1 record did not fit" in printed(dead_letters=1)


def test_delays_are_told_in_units_that_people_read() -> None:
    labels = {
        "events": 10, "labelled": 10, "pending": 0,
        "rows": {"mean": 98.25, "p50": 97.0, "p99": 198.0, "max": 1199.0},
        "seconds": {"mean": 5400.0, "p50": 90.0, "p99": 172800.0, "max": 259200.0},
    }  # fmt: skip
    fates: dict[str, Any] = {"estimated_accuracy": None}
    text = printed(labels=labels, delayed={"fates": fates})
    assert "label delay in rows: mean 98.2, p50 97, p99 198, max 1,199" in text
    assert "label delay in time: mean 1.5 h, p50 1.5 min, p99 2.0 d, max 3.0 d" in text


def test_what_probes_measured_is_shown() -> None:
    found = {"average_anytime": 0.75, "worst_case": 0.5, "points": 3,
             "concepts": [{"probes": 100}, {"probes": 40}]}  # fmt: skip
    text = printed(drift={"drifts": [], "probes": found})
    assert "probes (100 + 40 rows held out, asked 3 times): average 0.7500, worst 0.5000" in text


def test_brackets_in_a_name_are_shown_as_they_are() -> None:
    assert "by River, row by row: [red]F1 0.5000" in printed(river={"[red]F1": 0.5})


# -- what a report draws ---------------------------------------------------------------------------


def test_names_with_numbers_are_sorted_as_people_do() -> None:
    names = ["k10", "k2", "b", "k1", "10", "9"]
    assert sorted(names, key=wording.by_number) == ["9", "10", "b", "k1", "k2", "k10"]


def test_classes_of_a_report_are_in_that_order_with_their_counts() -> None:
    labels = ["k10", "k2"]
    confusion = {"labels": labels, "counts": [[90, 4], [7, 80]]}  # rows are true classes
    per_class = {name: {"scored": 90, "recall": 0.5} for name in labels}
    changed = dataclasses.replace(classified(), confusion=confusion, per_class=per_class)
    text = words(report_html(changed))
    assert "The commonest mistake: k10 for k2, 7 times." in text
    assert "true / answered k2 k10 k2 80 7 k10 4 90" in text
    assert text.index("k2 90 50.0 %") < text.index("k10 90 50.0 %")


def test_settings_that_are_not_set_are_not_shown() -> None:
    settings = {"labels": {"delay": 5, "timeout": None}, "river": []}
    text = words(report_html(dataclasses.replace(classified(), config=settings)))
    assert 'Settings { "labels": { "delay": 5 } }' in text


def test_few_looks_are_told_and_not_drawn(tmp_path: Path) -> None:
    """One block is one look at the state and the detector: a point is no course."""
    path = tmp_path / "r.html"
    replay(records(), target="y", ignore="id,t,known", report=path)
    text = words(path.read_text())
    assert "read 1 time (dots)" in text
    assert "Speed of the pipeline alone" in text
    assert "Events in the detector's window" not in text
    assert "when last looked at" not in text


def test_a_course_begins_where_its_interval_says_something() -> None:
    course = {
        "row": [1, 2, 3, 4], "difference": [0.0, 0.1, 0.2, 0.2],
        "low": [None, -1.0, 0.1, 0.15], "high": [None, 1.0, 0.3, 0.25],
    }  # fmt: skip
    assert _settled(course)["row"] == [3, 4]  # 2.0 is 20 times as wide as 0.1, 0.2 twice
    assert _settled(course | {"low": [None] * 4})["row"] == [1, 2, 3, 4]


def test_a_named_pipe_is_no_missing_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(UserError, match=r"labels\.csv: must be a file or a folder; feed a pipe to"):
        replay(tmp_path / "labels.csv", target="y")
