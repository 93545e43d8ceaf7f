"""Several processes on one machine, each with whole lineages: `streamlearn run --workers n`.

Each worker owns the partitions whose number leaves its own as the remainder (or, in a consumer
group, is a member of it). The parent processes nothing: it watches the workers, answers for their
health as one, and sums up. A worker that dies takes all down, with its reason: what it has done is
in its checkpoints, and whoever supervises the command starts it again. No worker outlives the
parent.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from streamlearn.config import Config
from streamlearn.engine import stopped_by_signals
from streamlearn.errors import UserError
from streamlearn.group import GroupRun, LineagesResult, Part, checked, shown
from streamlearn.health import Status, together, told_of
from streamlearn.logs import to_stderr

if TYPE_CHECKING:
    from streamlearn.runner import Shown

_log = logging.getLogger(__name__)
_TELL = 0.5  # seconds between two statuses of a worker
_GRACE = 2.0  # seconds beyond the workers' own time-out in which they must have stopped
_PARENT_GONE = "the end of the parent process"


def run_workers(
    config: Config, workers: int, *, progress: "Shown | None" = None, log: str = "text"
) -> LineagesResult:
    """Run a configuration in so many processes, a model for each partition, until all have ended.

    SIGINT and SIGTERM stop all workers gracefully, within `engine.shutdown_timeout`.
    progress: shows events, the mean rolling metric and alarms of all. log: form of the log lines.

    Raises: UserError for what does not fit lineages, or the reason of a worker that ended.
    """
    if workers < 1:
        raise UserError(f"workers: must be >= 1, got {workers}")
    checked(config)
    with contextlib.ExitStack() as stack:
        team = _Team(config, workers, log)
        stack.callback(team.kill)
        stop = stopped_by_signals(team.stop, lambda: bool(team.stopped))
        stack.enter_context(stop)
        stack.enter_context(told_of(config, team.status))
        if progress is not None:
            stack.enter_context(progress)
        team.start()
        while team.working:
            team.look(_TELL)
            if progress is not None:
                shown(progress, team.status()["lineages"])
        return team.result()


class _Worker:
    """One process, and what it has told."""

    def __init__(self, number: int, process: Any, pipe: Connection) -> None:
        self.number, self.process, self.pipe = number, process, pipe
        self.status: Status | None = None
        self.told = time.monotonic()
        self.result: LineagesResult | None = None
        self.reason = ""  # of its end, where that was none

    def look(self) -> None:
        """Take what it has sent."""
        with contextlib.suppress(EOFError, OSError):
            while self.pipe.poll():
                what, value = self.pipe.recv()
                setattr(self, what, value)
                self.told = time.monotonic()

    @property
    def ended(self) -> str:
        """Why it ended, where it should not have; "" otherwise."""
        code = self.process.exitcode
        if code is None or (code == 0 and self.result is not None):
            return ""
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return self.reason or f"ended with status {code}; see its messages above"


class _Team:
    """All workers of a command."""

    def __init__(self, config: Config, workers: int, log: str) -> None:
        self.config, self.workers, self.log = config, workers, log
        self.stopped = ""
        self.started = time.perf_counter()
        self.all: list[_Worker] = []
        self._deadline = float("inf")
        self._failed = ""

    def start(self) -> None:
        """Start the processes, afresh: nothing of this one is shared."""
        context = multiprocessing.get_context("spawn")
        for number in range(self.workers):
            ours, theirs = context.Pipe()
            arguments = (self.config, number, self.workers, self.log, theirs)
            process = context.Process(target=_work, args=arguments, name=f"worker-{number}")
            process.start()
            theirs.close()  # so that the end of either is seen
            self.all.append(_Worker(number, process, ours))

    @property
    def working(self) -> bool:
        """Whether one of them is alive."""
        return any(one.process.exitcode is None for one in self.all)

    def look(self, max_wait: float) -> None:
        """Hear what they tell; where one has died, stop the others."""
        alive = [one for one in self.all if one.process.exitcode is None]
        wait([one.process.sentinel for one in alive], max_wait)
        for one in self.all:
            one.look()
            asked = self.stopped and one.process.exitcode == -signal.SIGTERM  # before it began
            if one.ended and not asked and not self._failed:
                self._failed = f"worker {one.number} of {self.workers}: {one.ended}"
                self.stop("the end of a worker")
        if time.monotonic() > self._deadline:
            self.kill()

    def stop(self, reason: str) -> None:
        """Have all stop gracefully."""
        self.stopped = self.stopped or reason
        timeout = self.config.engine.shutdown_timeout
        self._deadline = time.monotonic() + timeout + _GRACE
        for one in self.all:
            if one.process.exitcode is None:
                one.process.terminate()

    def kill(self) -> None:
        """End what is still there: each stays at its last checkpoints."""
        for one in self.all:
            if one.process.exitcode is None:
                one.process.kill()
            one.process.join()

    def status(self) -> Status:
        """The health of all, as JSON; one that says nothing for long does not live."""
        section = self.config.health
        stalled = 60.0 if section is None else section.stalled
        told = {f"worker-{one.number}": _heard(one, stalled) for one in self.all}
        return together(told)

    def result(self) -> LineagesResult:
        """What all came to. Raises: UserError with the reason of one that died."""
        if self._failed:
            raise UserError(f"{self._failed}; the others have been stopped")
        found = [one.result for one in self.all if one.result is not None]
        lineages = {number: one for result in found for number, one in result.lineages.items()}
        if self.stopped:
            _log.warning("stopped by %s", self.stopped)
        return LineagesResult(lineages, time.perf_counter() - self.started, self.stopped)


def _heard(worker: _Worker, stalled: float) -> Status:
    """What a worker told last."""
    if worker.status is None:
        return {
            "live": True,
            "ready": False,
            "why": ["has not begun yet"],
            "connected": True,
            "lineages": {},
        }
    silent = time.monotonic() - worker.told
    if silent <= stalled or worker.result is not None:
        return worker.status
    why = [f"has said nothing for {silent:.0f} s"]
    return worker.status | {"live": False, "ready": False, "why": why}


# -- within a worker -------------------------------------------------------------------------------


def _work(config: Config, worker: int, workers: int, log: str, pipe: Connection) -> None:
    """The life of a worker; ends with status 0 after its result was sent, else with 2."""
    os.setsid()  # Ctrl-C on the terminal reaches the parent alone, which has us stop
    to_stderr(log)
    try:
        pipe.send(("result", _result(config, worker, workers, pipe)))
    except UserError as error:
        pipe.send(("reason", str(error)))
        sys.exit(2)


def _result(config: Config, worker: int, workers: int, pipe: Connection) -> LineagesResult:
    assert config.kafka is not None
    part = None if config.kafka.mode == "group" else Part(worker, workers)
    run = GroupRun(config, part)
    run.told = _teller(run, pipe)
    return run.run()


def _teller(run: GroupRun, pipe: Connection) -> Callable[[], None]:
    """Tells the parent now and then how it goes; stops the run when there is no parent any more."""
    due = time.monotonic()

    def tell() -> None:
        nonlocal due
        if time.monotonic() < due:
            return
        due = time.monotonic() + _TELL
        try:
            pipe.send(("status", run.status()))
        except (BrokenPipeError, ConnectionResetError):
            run.stop(_PARENT_GONE)

    return tell
