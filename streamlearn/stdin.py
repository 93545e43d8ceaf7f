"""Looking at the first lines of standard input and leaving them there."""

import contextlib
import json
import os
import sys
import threading
from typing import Any

from streamlearn.durable import write_all

_CHUNK = 1 << 16


def look_ahead(lines: int) -> list[dict[str, Any]]:
    """The records of the first JSON lines of standard input, which can then be read from its start.

    Waits for so many lines, or for the end. A line that is no JSON table is left for the reader to
    refuse. Standard input becomes a pipe that a thread fills with what was read and what follows.
    """
    descriptor = sys.stdin.fileno()
    ahead = bytearray()
    while ahead.count(b"\n") < lines and (chunk := os.read(descriptor, _CHUNK)):
        ahead += chunk
    rest = os.dup(descriptor)
    readable, writable = os.pipe()
    os.dup2(readable, descriptor)
    os.close(readable)
    threading.Thread(target=_pump, args=(bytes(ahead), rest, writable), daemon=True).start()
    found = (_record(line) for line in bytes(ahead).splitlines()[:lines])
    return [record for record in found if record is not None]


def _pump(ahead: bytes, rest: int, writable: int) -> None:
    """Hand on what was read, then the rest, until its end or until nobody reads any more."""
    with contextlib.suppress(BrokenPipeError):
        chunk = ahead
        while chunk:
            write_all(writable, chunk)
            chunk = os.read(rest, _CHUNK)
    os.close(writable)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
