"""Log lines: as words for people, or as JSON with one object a line for machines.

A line of JSON has `time` (ISO 8601, UTC), `level`, `event` (what happened), `logger`, and further
fields of the event. The clock of the wall is in logs alone, never in a value or the state.
"""

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Self, TextIO

_log = logging.getLogger(__name__)
FORMS = ("text", "json")
_told: set[str] = set()  # texts of warnings
_FIELDS = "fields"  # of a log record: what stands beside the event


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        line |= getattr(record, _FIELDS, {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class Words(logging.Formatter):
    """`LEVEL: event`, and the fields behind it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line of words."""
        text = f"{record.levelname}: {record.getMessage()}"
        fields = getattr(record, _FIELDS, {})
        told = " ".join(f"{name}={value}" for name, value in fields.items())
        return f"{text} {told}".rstrip()


class _Stderr(logging.StreamHandler[TextIO]):
    """What stderr is when a line is written."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute there
        """The stream of now."""
        return sys.stderr


def to_stderr(form: str = "text") -> None:
    """Write log lines to stderr from now on: ours from INFO upwards, of others the warnings; what
    Python warns of is such a line, too.

    form: text, unless somebody has set up logging already; or json. Replaces what an earlier call
    set up.
    """
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _Stderr)]:
        root.removeHandler(old)
    if form == "json" or not root.handlers:
        handler = _Stderr()
        handler.setFormatter(JsonLines() if form == "json" else Words())
        root.addHandler(handler)
    logging.getLogger("streamlearn").setLevel(logging.INFO)
    _told.clear()
    warnings.showwarning = _as_line


def _as_line(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning of Python as a line of the log, once: copies of an operator warn again."""
    if (text := str(message)) not in _told:
        _told.add(text)
        _log.warning("%s", text)


def fail(message: str) -> None:
    """A run ends for this reason: an error in the log if that is JSON, else a line on stderr."""
    handlers = logging.getLogger().handlers
    if any(isinstance(handler.formatter, JsonLines) for handler in handlers):
        _log.error("%s", message)
    else:
        sys.stderr.write(f"error: {message}\n")


def tell(log: logging.Logger, event: str, **fields: Any) -> None:
    """Log at INFO that something happened, with its fields."""
    log.info("%s", event, extra={_FIELDS: fields})


class Progress:
    """Events so far, rolling metric and alarms as an event of the log, every ten seconds."""

    def __init__(self, period: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._period, self._clock = period, clock
        self._next = clock() + period

    def __enter__(self) -> Self:
        self._next = self._clock() + self._period
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def due(self) -> bool:
        """Whether it is time for the next line."""
        return self._clock() >= self._next

    def show(self, events: int, metric: str, value: float | None, alarms: int) -> None:
        """Log it."""
        self._next = self._clock() + self._period
        tell(_log, "progress", events=events, alarms=alarms, **{metric: value})
