"""Serves over HTTP in forked processes that may be killed; driven by test_serve.py.

A script of its own: it imports and loads the kernels once. Each line on standard input is a
configuration as JSON: a process serves it, whose number and port are the answer; the next line
waits until it has ended.
"""

import json
import os
import sys
from typing import Any

from streamlearn import serve
from streamlearn.config import check


def serving(config: dict[str, Any]) -> int:
    """A forked server; its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            serve.serve(check(config), started=lambda address: say([os.getpid(), address]))
            status = 0
        finally:
            os._exit(status)
    return child


def say(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    for line in sys.stdin:
        if line.strip():
            child = serving(json.loads(line))
            say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
