"""What client libraries log: each kind of message once a minute, however often it is repeated.

While a broker is away librdkafka and kafka-python log every attempt to reach it, ten a second.
"""

import logging
import re
import time
from collections.abc import Callable

EVERY = 60.0  # seconds
KINDS = 1_000  # that are remembered
_NUMBER = re.compile(r"\d+")


class Chatter(logging.Handler):
    """Hands a library's records on to a log of ours, without repeats (but for numbers).

    Args:
        log: where they go. clock: seconds that never go back.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._log, self._clock = log, clock
        self._told: dict[str, tuple[float, int]] = {}  # kind -> when it was told, repeats since

    def emit(self, record: logging.LogRecord) -> None:
        """Tell a record, or count it."""
        text, now = " ".join(record.getMessage().split()), self._clock()
        kind = _NUMBER.sub("#", text)
        last, repeats = self._told.get(kind, (now - EVERY, 0))
        if now - last < EVERY:
            self._told[kind] = last, repeats + 1
            return
        if len(self._told) >= KINDS:
            self._told.clear()
        self._told[kind] = now, 0
        more = f" ({repeats} times since it was last told)" if repeats else ""
        self._log.log(record.levelno, "%s%s", text, more)


def heard(library: str, log: logging.Logger) -> logging.Logger:
    """The log of a library; its records go to a log of ours from now on, without repeats."""
    found = logging.getLogger(library)
    if not any(isinstance(handler, Chatter) for handler in found.handlers):
        found.addHandler(Chatter(log))
    found.propagate = False
    return found
