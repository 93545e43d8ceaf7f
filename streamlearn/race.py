"""Several pipelines over one stream in one pass: each block goes to each of them in turn."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streamlearn import config as configs
from streamlearn import display
from streamlearn.block import OBSERVE, PREDICT, Block, Columns
from streamlearn.connectors.alerts import of_drift
from streamlearn.contracts import State, merged
from streamlearn.engine import Engine, Summary
from streamlearn.errors import UserError
from streamlearn.evaluation import Evaluation
from streamlearn.job import (
    Job,
    Stream,
    evaluation_of,
    result_of,
    settings,
    stream_for,
    user_errors,
    with_late_labels,
)
from streamlearn.label_sources import label_time, section_of
from streamlearn.observers import Observers, observers_of
from streamlearn.paired import PairedDifferences
from streamlearn.pipeline import Pipeline
from streamlearn.rehearsal import rehearse
from streamlearn.result import Result
from streamlearn.schema import Schema
from streamlearn.spill import Spill

_log = logging.getLogger(__name__)
_EVENT = PREDICT | OBSERVE


@dataclass
class Entrant:
    """A pipeline with all that is measured of it alone.

    seconds: in its `run`. events, alarms: so far. error: why it was dropped, "" while it runs, at
    the event number failed_at (the first of the block in hand).
    """

    name: str
    job: Job
    observers: Observers
    seconds: float = 0.0
    events: int = 0
    alarms: int = 0
    error: str = ""
    failed_at: int = 0

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that learns."""
        return self.job.pipeline

    def run(self, block: Block) -> Columns:
        """Answer and learn, measured."""
        started = time.perf_counter()
        outputs = self.observers.pipeline.run(block)
        seconds = time.perf_counter() - started
        self.observers.measure.update(block, outputs)
        if self.observers.recorder is not None:
            self.observers.recorder.update(block, outputs, seconds)
        self.seconds += seconds
        self.events += int(np.count_nonzero(block.mode & _EVENT))
        if "alarm" in outputs:
            self.alarms += int(np.count_nonzero(of_drift(outputs)))
        return outputs

    def result(self, rejects: int) -> Result:
        """How it went; seconds are its own, without reading."""
        summary = Summary(self.events, 0, rejects, self.alarms, self.seconds, 0, "")
        found = self.observers.completed(result_of(self.job, summary))
        return replace(found, name=self.name)

    def measured_anew(self, window: int | None = None, fading: float | None = None) -> "Entrant":
        """The same pipeline, which goes on with what it learnt, and nothing measured yet."""
        evaluation = evaluation_of(self.job.config, self.job.schema, window, fading)
        _spill(self.job, evaluation)
        job = self.job._replace(evaluation=evaluation)
        return Entrant(self.name, job, observers_of(job, None))


@dataclass
class Race:
    """What the engine runs in place of one pipeline.

    A pipeline that raises is dropped with its error, and the others go on. Answers are the same
    bits as those of separate replays: no pipeline sees another. Only the moment of a failure, and
    so what was measured of the pipeline that failed, depends on the blocks.

    Raises: UserError when the last one has failed.
    """

    entrants: Sequence[Entrant]
    paired: PairedDifferences | None = None
    events: int = 0
    seconds: float = 0.0  # in everyone's run and in all measures

    @property
    def alive(self) -> list[Entrant]:
        """Those that have not failed."""
        return [c for c in self.entrants if not c.error]

    def run(self, block: Block) -> Columns:
        """Give the block to everyone; answers nothing itself."""
        started = time.perf_counter()
        answers = [None if c.error else self._answered(c, block) for c in self.entrants]
        if self.paired is not None:
            self.paired.update(block, answers)
        self.events += int(np.count_nonzero(block.mode & _EVENT))
        self.seconds += time.perf_counter() - started
        if not self.alive:
            raise UserError(all_failed(self.entrants))
        return {}

    def _answered(self, c: Entrant, block: Block) -> Any:
        try:
            return c.run(block)["prediction"]
        except Exception as error:  # noqa: BLE001  # whatever it raises, the others go on
            c.error, c.failed_at = described(error), self.events
            _log.warning("%s: failed after %d events: %s", c.name, self.events, c.error)
            _log.debug("%s", c.name, exc_info=error)
            return None

    def state(self) -> State:
        """The states of all pipelines and measures."""
        members: dict[str, State] = {}
        for i, c in enumerate(self.entrants):
            members[f"{i}.pipeline"] = c.observers.pipeline.state()
            members[f"{i}.measure"] = c.observers.measure.state()
        if self.paired is not None:
            members["paired"] = self.paired.state()
        return merged(members, {"events": self.events})

    def load(self, state: State) -> None:
        """Take over what `state` gave; the entrants must be the same."""
        for i, c in enumerate(self.entrants):
            c.observers.pipeline.load(state.under(f"{i}.pipeline"))
            c.observers.measure.load(state.under(f"{i}.measure"))
        if self.paired is not None:
            self.paired.load(state.under("paired"))
        self.events = state.table["events"]


def all_failed(entrants: Sequence[Entrant]) -> str:
    """A line for each."""
    lines = [f"{c.name}: failed after {c.failed_at} events: {c.error}" for c in entrants]
    return "\n".join(["every pipeline failed:", *lines])


def described(error: Exception) -> str:
    """An error as one line; what is not ours says of what kind it is."""
    text = " ".join(str(error).split())
    ours = isinstance(error, ValueError | MemoryError) and text
    return text if ours else f"{type(error).__name__}: {text}".removesuffix(": ")


# -- one stream ------------------------------------------------------------------------------------


def stream_of(
    data: Any,
    schema: Schema | Mapping[str, Any] | None,
    asked: Mapping[str, Any],
    delay: int | str | None,
    progress: bool,
) -> Stream:
    """A stream as it is asked for.

    Args:
        data: as for `replay`. schema: declared. asked: target, features, ignore, task, time, group.
        delay: as for `replay`. progress: whether an inferred schema is said, or logged.
    Raises: UserError for data or names that are not there.
    """
    if data is None:
        raise UserError("data: must be given: a path, a frame, an Arrow table or an iterable")
    config, data, _ = settings(data, None, None, None)
    late = section_of(config, delay=delay)
    config = config.model_copy(update={"labels": late})
    names = {name: asked.get(name) for name in ("target", "features", "ignore", "task")}
    names |= {name: configs.listed(names[name]) for name in ("features", "ignore")}
    declared = config.schema_ if schema is None and not any(names.values()) else schema
    roles = {"time": asked.get("time"), "group": asked.get("group"), "label_time": label_time(late)}
    return stream_for(data, declared, names | roles, config, display.say if progress else _log.info)


def entrants_of(
    stream: Stream,
    pipelines: Mapping[str, Pipeline],
    window: int | None = None,
    fading: float | None = None,
    report: Any = None,
    drifts: Any = None,
) -> list[Entrant]:
    """Everyone with measures of its own, rehearsed; all read the first one's source.

    Raises: UserError with the label of a pipeline that does not fit the schema.
    """
    found: list[Entrant] = []
    for label, pipeline in pipelines.items():
        evaluation = evaluation_of(stream.config, stream.schema, window, fading)
        job = stream.job(pipeline, evaluation)
        try:
            rehearse(job)
        except UserError as error:
            raise UserError(f"{label}: {error}") from None
        if found:
            job = job._replace(source=found[0].job.source, labels=found[0].job.labels)
            _spill(job, pipeline, evaluation)
        else:
            job = with_late_labels(job)
        found.append(Entrant(label, job, observers_of(job, report, drifts)))
    return found


def paired_of(
    entrants: Sequence[Entrant], alpha: float, family: int | None = None
) -> PairedDifferences:
    """The differences of these; family: as of `PairedDifferences`."""
    job = entrants[0].job
    paired = PairedDifferences(str(job.schema.task), len(entrants), alpha, family)
    _spill(job, paired)
    return paired


def _spill(job: Job, *parts: Pipeline | Evaluation | PairedDifferences) -> None:
    """Where labels come late, what waits for them goes to disk above the limit of memory."""
    if job.config.labels is not None:
        for part in parts:
            part.spill_to(Spill(), job.config.labels.memory_mb << 20)


def raced(job: Job, race: Race, limit: int | None, progress: bool) -> Summary:
    """Run the race over the stream, once.

    Raises: UserError for a stream without rows, or when everyone has failed.
    """
    rows = job.config.engine.block_rows
    engine = Engine(job.source, race, block_rows=rows, limit=limit)
    before = [(c.pipeline, c.pipeline.expects_labels) for c in race.entrants]
    for pipeline, _ in before:  # where labels come with their events, a log would fill the memory
        pipeline.expects_labels = job.labels is not None
    try:
        with user_errors():
            summary = _shown(engine, race) if progress else engine.run()
    finally:
        for pipeline, expected in before:
            pipeline.expects_labels = expected
    if summary.stopped:
        _log.warning("stopped by %s after %d events", summary.stopped, summary.events)
    elif summary.events == 0:
        raise UserError(
            f"{job.name}: none of its {summary.rejects} rows fits the schema; "
            "look at the reasons, or declare it"
        )
    return summary


def _shown(engine: Engine, race: Race) -> Summary:
    """Run with the progress line of the first one that is alive."""
    with display.Progress() as line:

        def show(engine: Engine) -> None:
            if line.due and race.alive:
                first = race.alive[0]
                metric, value = first.job.evaluation.rolling
                line.show(engine.events, f"{first.name} {metric}", value, first.alarms)

        engine.progress = show
        return engine.run()
