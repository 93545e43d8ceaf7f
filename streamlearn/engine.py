"""The engine: one loop that polls, runs, measures, writes and checkpoints; a crash changes nothing.

Whatever a checkpoint does not hold is done again after a restart: the sinks go back to where they
stood at the checkpoint, the source hands out the same events, and by the block law the same answers
come out. So every event is learnt once, and file outputs are the same bytes as without the crash.
"""

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from types import FrameType
from typing import Any, NamedTuple, Protocol

import numpy as np

from streamlearn.block import OBSERVE, PREDICT, Block, Columns
from streamlearn.checkpoint import Checkpoint, CheckpointStore
from streamlearn.contracts import (
    Answers,
    Batch,
    Delivery,
    Json,
    Positions,
    Reject,
    Sink,
    Source,
    State,
)
from streamlearn.errors import UserError
from streamlearn.vitals import Vitals

_log = logging.getLogger(__name__)
_SLICE = 0.05  # seconds: a paced run sleeps and hands out events in slices this long
_LAST_SECONDS = 2.0  # from what is raised to the end of the process
CUT_OFF = 75  # exit status of a process that did not stop in time: try again (EX_TEMPFAIL)
_SHOWN_REJECTS = 10
_ROWS = 4096  # most rows of a block where events take their time: a signal is not kept waiting
_BRISK = 5e-6  # seconds of an event, below which a block may have all `block_rows`
_FRESH_OBJECTS = 100_000  # that are not gone again, before the cyclic collector looks at them
_EVENT = PREDICT | OBSERVE  # a LEARN-only row brings the label of an earlier event


class ShutdownError(UserError):
    """A run that was told to stop did not do so in time; its last checkpoint stays as it is."""


class Stateful(Protocol):
    """What can be saved and go on."""

    def state(self) -> State:
        """Everything needed to go on bit-identically."""

    def load(self, state: State) -> None:
        """Take over a state that `state` gave."""


class Runnable(Stateful, Protocol):
    """A pipeline, or any operator that stands for one."""

    def run(self, block: Block) -> Columns:
        """Answer and learn, row by row."""


class Measure(Stateful, Protocol):
    """What looks at every answer: an Evaluation."""

    def update(self, block: Block, outputs: Columns) -> None:
        """Take one block and its outputs."""

    def result(self) -> dict[str, Json]:
        """Everything measured."""


class DeadLetters(Protocol):
    """Where records go that did not fit the schema; a Sink of rejects."""

    def open(self, position: Json) -> None:
        """Begin after what `commit` once returned; None means an empty output."""

    def write(self, rejects: list[Reject]) -> None:
        """Take some rejects; not durable before `commit`."""

    def commit(self) -> Json:
        """Make all that was written durable, and say how to come back to here."""

    def close(self) -> None:
        """Release files without committing; may be called twice."""


class Observer(Protocol):
    """What draws a picture of a run: a Recorder."""

    def update(self, block: Block, outputs: Columns, seconds: float) -> None:
        """Take one block, its outputs, and how long the pipeline took for them."""


class Spilling(Protocol):
    """What keeps files that checkpoints name: a Spill."""

    def saved(self) -> None:
        """A checkpoint was saved; what none of those that are kept names may go."""


class Summary(NamedTuple):
    """How a run ended.

    events: of the stream so far, those before a restart included; LEARN-only rows are no events.
    resumed_at: events in the checkpoint it went on from, 0 without one. rejects, alarms: so far.
    seconds: of this process, from opening the source to the last output. checkpoints: saved by it.
    stopped: the signal that stopped it, or "stop"; "" when the source or the limit ended it.
    """

    events: int
    resumed_at: int
    rejects: int
    alarms: int
    seconds: float
    checkpoints: int
    stopped: str

    @property
    def events_per_second(self) -> float:
        """Events of this process over its seconds."""
        return (self.events - self.resumed_at) / self.seconds if self.seconds > 0 else 0.0


class Engine:
    """One pipeline with its source, its sinks and its checkpoints: one lineage.

    Args:
        source: where events come from. Where it has a `schema` with `state` and `load`, the tables
            of that schema are part of every checkpoint; where it has both itself (a source whose
            labels come late), so is what waits in it.
        pipeline: run(block), state(), load(state). A frozen one just scores.
        evaluation: sees every block with its outputs. recorder: sees them too, and the seconds that
            the pipeline took; it is no part of a checkpoint.
        sink: takes the answers. alerts, webhook: take those of the blocks in which an alarm rose.
            dead_letters: takes the rejects; without it the first ten are logged.
        checkpoints: the store; without one a crash means starting anew. spill: what keeps the files
            of the pipeline's log; told of every checkpoint. delivery: asked which checkpoint
            counts, and told of every one, after it was saved. start: positions to begin at where
            there is no checkpoint; the source's own beginning if absent.
        every_events: a checkpoint at each multiple of so many events of the stream, whatever the
            blocks. every_seconds: and after so many seconds. One before the first event and one at
            the end are always made.
        block_rows: most rows of a block; 4,096 at most while the pipeline takes 5 us or more for an
            event. pace: events a second, None for as fast as it goes.
        limit: end after so many events of the stream (a restart counts those before it).
        progress: called with the engine after every block; reads events, alarms, rejects.
        vitals: notes what the engine does, for health, metrics and a live page.
        beat: called before every poll, also where nothing comes: a sign that the loop is moving.
        shutdown_timeout: seconds after SIGINT or SIGTERM in which `run` must end, or it is cut off;
            None for as long as it takes.
        max_wait: seconds that one poll may wait for events, so the reaction time to a signal.
        clock, sleep: exchangeable in tests; they never touch a value or the state.

    `run` is `begin`, `step` while it says true, and `end`; who steps several engines in one loop
    calls these, and `close` for one that must not save.

    Raises: UserError for an argument out of range, or a delivery without checkpoints.
    """

    def __init__(
        self,
        source: Source,
        pipeline: Runnable,
        *,
        evaluation: Measure | None = None,
        sink: Sink | None = None,
        alerts: Sink | None = None,
        webhook: Any = None,
        dead_letters: DeadLetters | None = None,
        checkpoints: CheckpointStore | None = None,
        delivery: Delivery | None = None,
        spill: Spilling | None = None,
        start: Positions | None = None,
        recorder: Observer | None = None,
        every_events: int | None = None,
        every_seconds: float | None = None,
        block_rows: int = 16_384,
        pace: float | None = None,
        limit: int | None = None,
        progress: "Callable[[Engine], None] | None" = None,
        vitals: Vitals | None = None,
        beat: Callable[[], None] | None = None,
        shutdown_timeout: float | None = None,
        max_wait: float = 0.1,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.source, self.pipeline, self.evaluation = source, pipeline, evaluation
        self.sink, self.dead_letters = sink, dead_letters
        self.alerts, self.webhook = alerts, webhook
        self.checkpoints, self.delivery = checkpoints, delivery
        self.spill, self.recorder, self.beat, self.vitals = spill, recorder, beat, vitals
        self.shutdown_timeout = shutdown_timeout
        self.every_events, self.every_seconds = every_events, every_seconds
        self.block_rows, self.pace, self.limit = block_rows, pace, limit
        self.progress, self.max_wait, self.clock, self.sleep = progress, max_wait, clock, sleep
        self._check("a whole number", Integral, "every_events", "block_rows", "limit")
        self._check("a number", Real, "every_seconds", "pace")
        if delivery is not None and checkpoints is None:
            raise UserError("Engine: delivery must have checkpoints to tell of; name a folder")
        self.events = self.resumed_at = self.rejects = self.alarms = 0
        self._positions: Positions = dict(start or {})
        self._saved, self._saved_at = 0, 0
        self._unsaved = True
        self._stopped, self.idle = "", False
        self._rows = min(block_rows, _ROWS)
        self._held = contextlib.ExitStack()

    def _check(self, words: str, kind: Any, *names: str) -> None:
        """Every argument of these names must be of this kind and > 0, or None."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise UserError(f"Engine: {name} must be {words} > 0, got {value!r}")
            if value is not None and not value > 0:
                raise UserError(f"Engine: {name} must be > 0, got {value!r}")

    # -- one run -----------------------------------------------------------------------------------

    def run(self) -> Summary:
        """Go on from the last checkpoint, or begin; end with the source, at the limit or by `stop`.

        SIGINT and SIGTERM finish the block, save and return (main thread only); a second one raises
        KeyboardInterrupt. Any exception leaves the last checkpoint as it is.
        """
        stopped = lambda: bool(self._stopped)  # noqa: E731
        signals = stopped_by_signals(self.stop, stopped, self.shutdown_timeout)
        with signals, frozen_objects(), contextlib.closing(self):
            self.begin()
            while self.step():
                pass
            return self.end()

    def begin(self) -> None:
        """Lock the checkpoints, open everything, and go back to the last checkpoint that counts."""
        self._started = self.clock()
        with contextlib.ExitStack() as stack:
            if self.checkpoints is not None:
                stack.enter_context(self.checkpoints)
            for part in (self.source, *self._outputs().values(), self.delivery):
                if part is not None:
                    stack.callback(part.close)
            self._recover()
            self._held = stack.pop_all()
        self._origin = self._last_save = self.clock()
        self._first = self.events

    def step(self, max_wait: float | None = None) -> bool:
        """One block, if one comes in time, and a checkpoint if one is due; False: it is over.

        max_wait: seconds, instead of the engine's. `idle` then says whether nothing came.
        """
        if self.beat is not None:
            self.beat()
        if self._stopped or self._room() <= 0:
            return False
        batch = self.source.poll(self._room(), self.max_wait if max_wait is None else max_wait)
        self.idle = batch is None
        if batch is not None:
            self._take(batch)
        elif self.source.finished:
            return False
        if self._due():
            self._checkpoint()
        self._keep_pace()
        return True

    def end(self) -> Summary:
        """Save what is not saved yet, and let go of everything."""
        if self._unsaved:
            self._checkpoint()
        seconds = self.clock() - self._started
        self.close()
        return Summary(
            self.events,
            self.resumed_at,
            self.rejects,
            self.alarms,
            seconds,
            self._saved,
            self._stopped,
        )

    def close(self) -> None:
        """Let go of everything without saving; may be called twice."""
        self._held.close()

    def stop(self, reason: str = "stop") -> None:
        """End the run after the block in hand, as a signal does; from any thread."""
        self._stopped = self._stopped or reason

    @property
    def stopped(self) -> str:
        """The signal that stopped it, or what `stop` was told; "" while nothing has."""
        return self._stopped

    @property
    def positions(self) -> Positions:
        """What is read next, by partition, after the last block."""
        return self._positions

    def _take(self, batch: Batch) -> None:
        """Run, measure and write one block; nothing of it is durable yet."""
        block, began = batch.block, self.clock()
        if block.n:
            outputs = self.pipeline.run(block)
            took = self.clock() - began
            self._rows = min(self.block_rows, self.block_rows if took < _BRISK * block.n else _ROWS)
            if self.recorder is not None:
                self.recorder.update(block, outputs, took)
            if self.evaluation is not None:
                self.evaluation.update(block, outputs)
            self._put(Answers(block, outputs, self.events, batch.origins))
            self.events += int(np.count_nonzero(block.mode & _EVENT))
        if batch.rejects:
            self._reject(batch.rejects)
        self._positions, self._unsaved = batch.positions, True
        if self.vitals is not None:
            self.vitals.ran(self.clock() - began, batch.origins)
        if self.progress is not None:
            self.progress(self)

    def _put(self, answers: Answers) -> None:
        if self.sink is not None:
            self.sink.write(answers)
        alarm = answers.outputs.get("alarm")
        if alarm is not None and (rose := int(np.count_nonzero(alarm))):
            if self.vitals is not None:
                self.vitals.alarmed(answers, self.alarms)
            self.alarms += rose
            for sink in (self.alerts, self.webhook):
                if sink is not None:
                    sink.write(answers)

    def _reject(self, rejects: list[Reject]) -> None:
        if self.dead_letters is not None:
            self.dead_letters.write(rejects)
        else:
            for reject in rejects[: max(0, _SHOWN_REJECTS - self.rejects)]:
                where = f"{reject.partition}, record {reject.position}"
                _log.warning("%s: %s; left out (no dead-letter sink)", where, reject.reason)
        self.rejects += len(rejects)
        if self.vitals is not None:
            self.vitals.rejected(rejects)

    # -- when --------------------------------------------------------------------------------------

    def _room(self) -> int:
        """Most events that the next block may have: up to the next checkpoint, limit or slice."""
        room = self._rows
        if self.every_events is not None:
            room = min(room, self.every_events - self.events % self.every_events)
        if self.limit is not None:
            room = min(room, self.limit - self.events)
        if self.pace is not None:
            room = min(room, max(1, int(self.pace * _SLICE)))
        return room

    def _due(self) -> bool:
        """Whether a checkpoint is due now."""
        if self.checkpoints is None or not self._unsaved:
            return False
        moved = self.events != self._saved_at
        if self.every_events and moved and self.events % self.every_events == 0:
            return True
        seconds = self.every_seconds
        return seconds is not None and self.clock() - self._last_save >= seconds

    def _keep_pace(self) -> None:
        """Sleep until so many events may have passed, in slices that notice a signal."""
        if self.pace is None:
            return
        until = self._origin + (self.events - self._first) / self.pace
        while not self._stopped and (left := until - self.clock()) > 0:
            self.sleep(min(left, _SLICE))

    # -- checkpoints -------------------------------------------------------------------------------

    def _outputs(self) -> dict[str, Sink | DeadLetters]:
        given: dict[str, Any] = {
            "predictions": self.sink, "alerts": self.alerts, "webhook": self.webhook,
            "dead_letters": self.dead_letters,
        }  # fmt: skip
        return {name: sink for name, sink in given.items() if sink is not None}

    def _schema(self) -> Stateful | None:
        """The schema of the source, where it has tables that grow."""
        schema = getattr(self.source, "schema", None)
        return schema if hasattr(schema, "load") and hasattr(schema, "state") else None

    def _recover(self) -> None:
        """Bring every part to the last checkpoint that counts; without one begin, and save that."""
        number = None if self.delivery is None else self.delivery.begin()
        last = None
        if self.checkpoints is not None:
            last = self.checkpoints.last(self._load, at=number)
        if last is not None:
            _log.info("going on after %d events", self.events)
        positions = last.sinks if last is not None else {}
        for name, sink in self._outputs().items():
            sink.open(positions.get(name))
        self.source.open(self._positions)
        self._positions = getattr(self.source, "positions", self._positions)
        if last is None and self.checkpoints is not None:
            self._checkpoint()
            self._unsaved = True

    def _late(self) -> Stateful | None:
        """The source, where it holds labels that come late."""
        source: Any = self.source
        return source if hasattr(source, "load") and hasattr(source, "state") else None

    def _load(self, last: Checkpoint) -> None:
        parts = (self.pipeline, last.pipeline), (self.evaluation, last.evaluation)
        late = self._late()
        if (late is None) != (last.labels is None):
            was, now = ("with", "without") if late is None else ("without", "with")
            raise UserError(
                f"Engine: the checkpoint is of a run {was} late labels, this one is {now}; "
                f"give the same labels, or begin with a new checkpoint folder"
            )
        for part, state in (*parts, (self._schema(), last.schema), (late, last.labels)):
            if part is not None and state is not None:
                part.load(state)
        self.events = self.resumed_at = self._saved_at = last.events
        self.rejects, self.alarms = last.counters["rejects"], last.counters["alarms"]
        self._positions, self._unsaved = last.sources, False

    def _checkpoint(self) -> None:
        """Make everything so far durable, in the order that loses nothing and repeats nothing."""
        # 1. sinks: what they hold beyond a checkpoint is cut off when the run starts again
        sinks = {name: sink.commit() for name, sink in self._outputs().items()}
        # 2. state: one file with the state and all positions, the source's too; from here it counts
        if self.checkpoints is not None:
            began = self.clock()
            number = self.checkpoints.save(self._unit(sinks))
            self._saved += 1
            if self.vitals is not None:
                seconds = self.clock() - began
                self.vitals.saved(number, seconds, self.checkpoints.file_of(number))
            # 3. offsets: what is told to a broker may be told only now
            if self.delivery is not None:
                self.delivery.saved(number, self._positions)
            self.checkpoints.pin(number)
            if self.spill is not None:
                self.spill.saved()
        self._unsaved, self._saved_at, self._last_save = False, self.events, self.clock()

    def _unit(self, sinks: dict[str, Json]) -> Checkpoint:
        schema, late = self._schema(), self._late()
        about: dict[str, Json] = {"pipeline": repr(self.pipeline)}
        if self.evaluation is not None:
            about["metrics"] = self.evaluation.result()["metrics"]
        return Checkpoint(
            self.events,
            self.pipeline.state(),
            self._positions,
            sinks,
            None if self.evaluation is None else self.evaluation.state(),
            None if schema is None else schema.state(),
            None if late is None else late.state(),
            {"rejects": self.rejects, "alarms": self.alarms},
            about,
        )


@contextlib.contextmanager
def stopped_by_signals(
    stop: Callable[[str], None], stopped: Callable[[], bool], timeout: float | None = None
) -> Iterator[None]:
    """While it lasts, SIGINT and SIGTERM call `stop` (main thread only).

    One that comes when it is `stopped` already raises KeyboardInterrupt. timeout: seconds after the
    first one in which this must be left; then ShutdownError is raised, wherever the thread is.
    Where that does not help either, as within a library that waits for a broker, the process ends
    two seconds later: what is on the disk is whole at any moment.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    alarm: Any = getattr(signal, "SIGALRM", None)
    text = (
        f"engine.shutdown_timeout: it took more than {timeout} s to stop; the run goes on from its "
        f"last checkpoint when it is started again"
    )
    last = threading.Timer((timeout or 0.0) + _LAST_SECONDS, _cut_off, [text])
    last.daemon = True

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stopped():
            raise KeyboardInterrupt
        stop(signal.Signals(number).name)
        if timeout is not None and alarm is not None:
            signal.setitimer(signal.ITIMER_REAL, timeout)
            last.start()

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise ShutdownError(text)

    caught: dict[int, Any] = {signal.SIGINT: on_signal, signal.SIGTERM: on_signal}
    if timeout is not None and alarm is not None:
        caught[alarm] = on_alarm
    before = {number: signal.signal(number, handler) for number, handler in caught.items()}
    arrow: Any = sys.modules.get("pyarrow")  # which would end its own reading by a signal
    if arrow is not None:
        arrow.enable_signal_handlers(False)
    try:
        yield
    finally:
        last.cancel()
        if arrow is not None:
            arrow.enable_signal_handlers(True)
        if alarm in before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _cut_off(text: str) -> None:
    """End the process at once."""
    _log.error("%s", text)
    os._exit(CUT_OFF)


@contextlib.contextmanager
def frozen_objects() -> Iterator[None]:
    """While it lasts, the cyclic collector looks seldom, and not at what was there before.

    A block of messages is 10,000 tuples and lists, which are gone with it: looked through every 700
    objects, as Python would, they cost 2 us each; so do the objects of everything imported.
    """
    often = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_FRESH_OBJECTS, *often[1:])
    try:
        yield
    finally:
        gc.set_threshold(*often)
        gc.unfreeze()
