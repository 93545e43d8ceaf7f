"""Log lines: words, or one JSON object a line."""

import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from streamlearn import logs


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    """The root logger as it was."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    root.handlers[:] = before


def test_a_line_of_json_has_time_level_event_and_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.to_stderr("json")
    logs.to_stderr("json")  # replaces the first
    log = logging.getLogger("streamlearn.test")
    logs.tell(log, "checkpoint", number=7, path="a b")
    log.warning("%s: is late", "t/0")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["time"].endswith("+00:00")
    del first["time"]
    assert first == {
        "level": "info", "event": "checkpoint", "logger": "streamlearn.test",
        "number": 7, "path": "a b",
    }  # fmt: skip
    assert (second["level"], second["event"]) == ("warning", "t/0: is late")


def test_an_exception_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.to_stderr("json")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("streamlearn.test").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "two\nlines" in json.loads(line)["exception"]


def test_words_are_for_people_and_leave_others_logging_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging.getLogger().handlers.clear()
    logs.to_stderr()
    logs.tell(logging.getLogger("streamlearn.test"), "health", port=80)
    logging.getLogger("another").info("not shown")
    assert capsys.readouterr().err == "INFO: health port=80\n"
    logging.getLogger().handlers[:] = [logging.NullHandler()]
    logs.to_stderr()
    assert len(logging.getLogger().handlers) == 1


def test_progress_is_an_event_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    caplog.set_level(logging.INFO, "streamlearn")
    with logs.Progress(clock=lambda: now[0]) as progress:
        assert not progress.due
        now[0] = 10.0
        assert progress.due
        progress.show(500, "accuracy", 0.75, 2)
        assert not progress.due
    (record,) = caplog.records
    assert record.__dict__["fields"] == {"events": 500, "alarms": 2, "accuracy": 0.75}


def test_what_python_warns_of_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.to_stderr("json")
        for _ in range(2):
            warnings.warn("FeatureDrift: a short reference", stacklevel=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "FeatureDrift: a short reference"
    assert json.loads(line)["level"] == "warning"
