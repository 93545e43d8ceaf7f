"""Several pipelines over one stream in one pass: each block goes to each of them in turn."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streamlearn.block import OBSERVE, PREDICT, Block, Columns
from streamlearn.contracts import State, merged
from streamlearn.errors import UserError
from streamlearn.evaluation import Evaluation
from streamlearn.paired import PairedDifferences
from streamlearn.pipeline import Pipeline

_log = logging.getLogger(__name__)
_EVENT = PREDICT | OBSERVE


@dataclass
class Contestant:
    """A pipeline with all that is measured of it alone.

    seconds: in its `run`. events, alarms: so far. error: why it was dropped, "" while it runs, at
    the event number failed_at (the first of the block in hand).
    """

    name: str
    pipeline: Pipeline
    evaluation: Evaluation
    recorder: Any = None
    seconds: float = 0.0
    events: int = 0
    alarms: int = 0
    error: str = ""
    failed_at: int = 0

    def run(self, block: Block) -> Columns:
        """Answer and learn, measured."""
        started = time.perf_counter()
        outputs = self.pipeline.run(block)
        seconds = time.perf_counter() - started
        self.evaluation.update(block, outputs)
        if self.recorder is not None:
            self.recorder.update(block, outputs, seconds)
        self.seconds += seconds
        self.events += int(np.count_nonzero(block.mode & _EVENT))
        if "alarm" in outputs:
            self.alarms += int(np.count_nonzero(outputs["alarm"]))
        return outputs

    def measure_anew(self, evaluation: Evaluation) -> None:
        """Forget what was measured; what was learnt stays."""
        self.evaluation, self.seconds, self.events, self.alarms = evaluation, 0.0, 0, 0


@dataclass
class Contest:
    """What the engine runs in place of one pipeline.

    A pipeline that raises is dropped with its error, and the others go on. Answers are the same
    bits as those of separate replays: no pipeline sees another. Only the moment of a failure, and
    so what was measured of the pipeline that failed, depends on the blocks.

    Raises: UserError when the last one has failed.
    """

    contestants: Sequence[Contestant]
    paired: PairedDifferences | None = None
    events: int = 0
    label_rows: int = field(default=0)

    @property
    def alive(self) -> list[Contestant]:
        """Those that have not failed."""
        return [c for c in self.contestants if not c.error]

    def run(self, block: Block) -> Columns:
        """Give the block to everyone; answers nothing itself."""
        answers = [None if c.error else self._answered(c, block) for c in self.contestants]
        if self.paired is not None:
            self.paired.update(block, answers)
        self.events += int(np.count_nonzero(block.mode & _EVENT))
        if not self.alive:
            raise UserError(all_failed(self.contestants))
        return {}

    def _answered(self, c: Contestant, block: Block) -> Any:
        try:
            return c.run(block)["prediction"]
        except Exception as error:  # noqa: BLE001  # whatever it raises, the others go on
            c.error, c.failed_at = described(error), self.events
            _log.warning("%s: failed after %d events: %s", c.name, self.events, c.error)
            _log.debug("%s", c.name, exc_info=error)
            return None

    def state(self) -> State:
        """The states of all pipelines and measures."""
        members = {f"{i}.pipeline": c.pipeline.state() for i, c in enumerate(self.contestants)}
        members |= {f"{i}.measure": c.evaluation.state() for i, c in enumerate(self.contestants)}
        if self.paired is not None:
            members["paired"] = self.paired.state()
        return merged(members, {"events": self.events})

    def load(self, state: State) -> None:
        """Take over what `state` gave; the contestants must be the same."""
        for i, c in enumerate(self.contestants):
            c.pipeline.load(state.under(f"{i}.pipeline"))
            c.evaluation.load(state.under(f"{i}.measure"))
        if self.paired is not None:
            self.paired.load(state.under("paired"))
        self.events = state.table["events"]


def all_failed(contestants: Sequence[Contestant]) -> str:
    """A line for each."""
    lines = [f"{c.name}: failed after {c.failed_at} events: {c.error}" for c in contestants]
    return "\n".join(["every pipeline failed:", *lines])


def described(error: Exception) -> str:
    """An error as one line; what is not ours says of what kind it is."""
    text = " ".join(str(error).split())
    ours = isinstance(error, ValueError | MemoryError) and text
    return text if ours else f"{type(error).__name__}: {text}".removesuffix(": ")
