"""Runs a configuration in forked processes and kills them; driven by test_crash.py.

A script of its own: it imports and loads the kernels once, so that a hundred kills cost minutes.
Each line on standard input is a job as JSON; the answer is a line with the number of kills it took
and the seconds. Clients are made in the forked process alone.
"""

import importlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from streamlearn import config as configs
from streamlearn import runner
from tests.crash_server import kill, say, serve


def arm(fault: str, count: int) -> None:
    """Die before or after the count-th call of `module:Class.method` (`before …`, `after …`)."""
    when, _, place = fault.partition(" ")
    module, _, path = place.partition(":")
    kind, _, name = path.partition(".")
    owner: Any = getattr(importlib.import_module(module), kind)
    real: Callable[..., Any] = getattr(owner, name)
    left = [count]

    def passing(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and when == "before":
            kill()
        result = real(*args, **options)
        if left[0] == 0:
            kill()
        return result

    setattr(owner, name, passing)


def child(job: dict[str, Any], attempt: int, block_rows: int) -> int:
    """One run, in this process; its exit status."""
    if attempt == 0 and job.get("fault"):
        arm(job["fault"], job["count"])
    try:
        runner.run(configs.check(job["config"] | {"engine": {"block_rows": block_rows}}))
    except Exception:  # noqa: BLE001  # a fork must not go on in the parent's code
        traceback.print_exc()
        return 1
    return 0


def run(job: dict[str, Any], attempt: int, rng: random.Random) -> int:
    """One forked run; its exit status, negative where it was killed."""
    block_rows = rng.choice([61, 500, 4096])
    forked = os.fork()
    if forked == 0:
        status = child(job, attempt, block_rows)
        sys.stderr.flush()
        os._exit(status)
    if attempt < job.get("kills", 0):
        time.sleep(rng.uniform(0.0, job["seconds"]))
        os.kill(forked, signal.SIGKILL)
    if attempt < job.get("outages", 0):
        time.sleep(rng.uniform(0.0, job["seconds"]))
        os.kill(job["broker"], signal.SIGSTOP)
        time.sleep(job["outage_seconds"])
        os.kill(job["broker"], signal.SIGCONT)
    return os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])


def main() -> None:
    warm = json.loads(sys.stdin.readline())
    runner.run(configs.check(warm["config"]))  # over files: kernels that a fork need not load again
    say({"ready": True})
    for line in sys.stdin:
        say(serve(json.loads(line), run))


if __name__ == "__main__":
    main()
