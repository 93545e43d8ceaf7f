"""What watches a run beside its evaluation: known drifts, probes, and what the report draws."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from streamlearn.block import Block, Columns
from streamlearn.contracts import Json, State, merged
from streamlearn.drift_evaluation import DriftEvaluation
from streamlearn.engine import Measure, Runnable
from streamlearn.errors import UserError
from streamlearn.evaluation import Evaluation
from streamlearn.job import Job, user_errors
from streamlearn.known_drifts import Drift
from streamlearn.probes import ProbedPipeline
from streamlearn.result import Result

if TYPE_CHECKING:
    from streamlearn.recording import Recorder

_log = logging.getLogger(__name__)


class Both:
    """An evaluation and a drift evaluation as one measure, in one checkpoint."""

    def __init__(self, evaluation: Evaluation, drift: DriftEvaluation) -> None:
        self.evaluation, self.drift = evaluation, drift

    def update(self, block: Block, outputs: Columns) -> None:
        """Let both look at a block and its outputs."""
        self.evaluation.update(block, outputs)
        self.drift.update(block, outputs)

    def result(self) -> dict[str, Json]:
        """What the evaluation measured."""
        return self.evaluation.result()

    def state(self) -> State:
        """Both states."""
        members = {"evaluation": self.evaluation.state(), "drift": self.drift.state()}
        return merged(members, {})

    def load(self, state: State) -> None:
        """Take over both states."""
        self.evaluation.load(state.under("evaluation"))
        self.drift.load(state.under("drift"))


class Observers(NamedTuple):
    """What the engine runs and tells of; `completed` adds what it found to a result."""

    pipeline: Runnable
    measure: Measure
    drift: DriftEvaluation | None = None
    probed: ProbedPipeline | None = None
    recorder: "Recorder | None" = None

    def completed(self, result: Result) -> Result:
        """The result with known drifts judged, and with what the report draws."""
        more: dict[str, Any] = {}
        if self.drift is not None:
            more["known_drifts"] = self._reached(self.drift.drifts, result.events)
            more["drift"] = self.drift.result(self.probed)
        if self.recorder is not None:
            more["recording"] = self.recorder.result()
        return dataclasses.replace(result, **more) if more else result

    def _reached(self, drifts: Sequence[Drift], events: int) -> list[list[int]]:
        """The drifts that the stream came to; the others are told in a warning."""
        beyond = ", ".join(f"{start:,}" for start, _ in drifts if start >= events)
        if beyond:
            text = "known drifts: the stream has %s events, so it does not reach those at %s"
            _log.warning(text, f"{events:,}", beyond)
        return [list(pair) for pair in drifts if pair[0] < events]


def observers_of(
    job: Job, report: str | Path | None, drifts: Any = None, probes: int = 0
) -> Observers:
    """What is to watch a job.

    Args:
        job: a whole one. report: file of a report, looked at now so that hours are not lost.
        drifts: what `known_drifts` takes. probes: held out of every concept; needs drifts.
    Raises: UserError for drifts that are none, probes without drifts, a report nowhere.
    """
    recorder = None
    if report is not None:
        from streamlearn.recording import Recorder
        from streamlearn.report import check_path

        check_path(report)
        recorder = Recorder(job.pipeline)
    if drifts is None:
        if probes:
            raise UserError("probes: need known drifts (--drifts), which say what the concepts are")
        return Observers(job.pipeline, job.evaluation, recorder=recorder)
    with user_errors():
        drift = DriftEvaluation(job.pipeline, drifts, probes=probes)
        probed = ProbedPipeline(job.pipeline, drifts, probes=probes) if probes else None
    runs: Runnable = job.pipeline if probed is None else probed
    return Observers(runs, Both(job.evaluation, drift), drift, probed, recorder)
