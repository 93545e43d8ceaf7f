"""What client libraries repeat is told once a minute."""

import logging

import pytest

from streamlearn.connectors.kafka.chatter import EVERY, Chatter, heard

LOG = logging.getLogger("streamlearn.tests.chatter")


def say(chatter: Chatter, text: str, level: int = logging.ERROR) -> None:
    chatter.handle(logging.LogRecord("library", level, "", 0, text, (), None))


def test_repeats_that_differ_in_numbers_are_told_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [100.0]
    chatter = Chatter(LOG, clock=lambda: now[0])
    with caplog.at_level(logging.INFO, LOG.name):
        for milliseconds in range(5):
            say(chatter, f"refused after {milliseconds} ms")
        say(chatter, "no right\nto it", logging.WARNING)
        now[0] += EVERY
        say(chatter, "refused after 9 ms")
        now[0] += EVERY
        say(chatter, "refused after 9 ms")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("ERROR", "refused after 0 ms"),
        ("WARNING", "no right to it"),
        ("ERROR", "refused after 9 ms (4 times since it was last told)"),
        ("ERROR", "refused after 9 ms"),
    ]


def test_a_library_is_heard_once_and_not_by_the_root(caplog: pytest.LogCaptureFixture) -> None:
    library = logging.getLogger("library.of.chatter")
    for _ in range(2):
        assert heard(library.name, LOG) is library
    library.error("away")
    assert [(r.name, r.getMessage()) for r in caplog.records] == [(LOG.name, "away")]
