"""Processes that run by short turns, so that each meets the machine as fast and as slow as others.

A machine whose speed swings makes figures taken one after the other incomparable, however often
they are repeated. Here all processes are under way at once and all but one are stopped; a turn is
0.1 s. What the processor's clock says that each took is then comparable. POSIX only.
"""

import json
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any

SECONDS = 0.1  # of a turn: some hundred times what a stop and filling the caches again take

WORKER = """
import json, sys, time
{code}
work(sys.argv[1])
print("null", flush=True)
for _ in sys.stdin:
    process, thread = time.process_time(), time.thread_time()
    work(sys.argv[2])
    print(json.dumps([time.process_time() - process, time.thread_time() - thread]), flush=True)
"""

Took = tuple[float, float]  # seconds of processor: of all threads, of the main thread


class Worker:
    """A process that does the same work whenever it is told to, and says what that took.

    Args:
        python: the interpreter. code: defines `work(argument)`. warm: what it works on first, once.
        argument: what it works on when told to. share: turns it has where others have one.
        env: of the process, None for this one's.
    Raises: RuntimeError where the process ends.
    """

    def __init__(
        self,
        python: str,
        code: str,
        warm: str,
        argument: str,
        share: int = 1,
        env: dict[str, str] | None = None,
    ) -> None:
        self._share = share
        command = [python, "-c", WORKER.format(code=code), warm, argument]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process, also where it is stopped."""
        self.process.kill()
        self.process.communicate()

    def answer(self) -> Any:
        """The next line that it writes; first, None: it is warm."""
        assert self.process.stdout is not None  # a pipe
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with status {self.process.wait()}")
        return json.loads(line)

    def tell(self) -> None:
        """Have it work, in its turns."""
        assert self.process.stdin is not None  # a pipe
        self._signal(signal.SIGSTOP)
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def turn(self) -> Took | None:
        """Let it run for its turn; what the work took if it was done meanwhile, else None."""
        self._signal(signal.SIGCONT)
        assert self.process.stdout is not None  # a pipe
        done, _, _ = select.select([self.process.stdout], [], [], self._share * SECONDS)
        if done:
            process, thread = self.answer()
            return process, thread
        self._signal(signal.SIGSTOP)
        return None

    def _signal(self, number: int) -> None:
        os.kill(self.process.pid, number)


def raced(workers: Sequence[Worker]) -> list[Took]:
    """What each of them takes, when all work by turns, until the last is done."""
    for worker in workers:
        worker.tell()
    took: dict[int, Took] = {}
    while len(took) < len(workers):
        for i, worker in enumerate(workers):
            done = None if i in took else worker.turn()
            if done is not None:
                took[i] = done
    return [took[i] for i in range(len(workers))]
