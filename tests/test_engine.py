"""The engine loop, with doubles in plain Python: what it does, when, and after a crash."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.archive import DamagedError
from streamlearn.block import (
    LABELLED,
    LEARN,
    OBSERVE,
    PREDICT,
    Block,
    Columns,
    Features,
    Vocabulary,
)
from streamlearn.checkpoint import Checkpoint, CheckpointStore
from streamlearn.connectors import as_source
from streamlearn.connectors.sinks import MemorySink, open_dead_letters, open_sink
from streamlearn.contracts import Answers, Batch, Json, Origins, Positions, Reject, State
from streamlearn.engine import Engine
from streamlearn.errors import UserError
from streamlearn.labels import DelayedLabels
from streamlearn.schema import Schema


@pytest.fixture(scope="module", autouse=True)
def no_fsync() -> Iterator[None]:
    """Nothing here pulls the plug; kill -9 is tested in test_crash.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


class Crash(Exception):
    """The plug is pulled."""


class Numbers:
    """A source of 0.5, 1.5, 2.5, …; with the values that end in 7.5 comes a reject."""

    guarantee = "the same numbers from any position"

    def __init__(self, n: int, modes: Callable[[int], int] = lambda t: LABELLED) -> None:
        self.n, self.modes = n, modes
        self.schema = Tables()
        self.at = -1
        self.asked: list[int] = []
        self.on_poll: Callable[[int], None] = lambda at: None
        self.idle_every = 0
        self.closed = 0

    def open(self, positions: Positions) -> None:
        """Go to a row."""
        self.at = positions.get("numbers", 0)

    def poll(self, max_events: int, max_wait: float) -> Batch | None:
        """Some rows."""
        self.on_poll(self.at)
        self.asked.append(max_events)
        if self.finished or (self.idle_every and len(self.asked) % self.idle_every == 0):
            return None
        stop = min(self.n, self.at + max_events)
        x = np.arange(self.at, stop, dtype=np.float64) + np.float64(0.5)
        self.schema.seen += [int(v) for v in x if v % 5 == 0.5]
        mode = np.array([self.modes(t) for t in range(self.at, stop)], dtype=np.uint8)
        block = Block(x[:, None], 3 * x, np.ones(len(x)), mode, Features(["x"]))
        rejects = [
            Reject("numbers", t, "bad", b"%d" % t) for t in range(self.at, stop) if t % 10 == 7
        ]
        self.at = stop
        return Batch(block, rejects, {"numbers": stop})

    @property
    def finished(self) -> bool:
        """At the end."""
        return self.at >= self.n

    def close(self) -> None:
        """Count."""
        self.closed += 1


class Tables:
    """A schema with a table that grows."""

    id = None
    labels: Vocabulary | None = None

    def __init__(self) -> None:
        self.seen: list[int] = []

    def state(self) -> State:
        """The table."""
        return State({}, {"seen": list(self.seen)})

    def load(self, state: State) -> None:
        """The inverse."""
        self.seen = list(state.table["seen"])


class RunningMean:
    """A pipeline in plain Python; `fuse` rows are run before it crashes."""

    def __init__(self, fuse: int = 10**9) -> None:
        self.sum, self.n, self.fuse = 0.0, 0, fuse

    def run(self, block: Block) -> Columns:
        """Predict the mean of the targets so far, then learn."""
        prediction = np.full(block.n, np.nan)
        for t in range(block.n):
            self.fuse -= 1
            if self.fuse < 0:
                raise Crash
            if block.mode[t] & PREDICT and self.n:
                prediction[t] = self.sum / self.n
            if block.mode[t] & LEARN:
                self.sum += block.y[t] / 7
                self.n += 1
        return {"prediction": prediction, "alarm": (block.y % 6 == 1.5).astype(np.uint8)}

    def state(self) -> State:
        """Both numbers."""
        return State({"sum": np.array(self.sum)}, {"n": self.n})

    def load(self, state: State) -> None:
        """The inverse."""
        self.sum, self.n = float(state.arrays["sum"]), state.table["n"]


class Sum(RunningMean):
    """An evaluation: the sum of all answers."""

    def update(self, block: Block, outputs: Columns) -> None:
        """Add."""
        for value in outputs["prediction"]:
            self.sum += 0.0 if value != value else float(value)

    def result(self) -> dict[str, Json]:
        """For people."""
        return {"metrics": {"sum": self.sum}}


def expected(n: int) -> list[dict[str, Any]]:
    """What the memory sink must hold after n labelled numbers."""
    out, total = [], 0.0
    for t in range(n):
        out.append({"row": t, "prediction": total / t if t else None})
        total += 3 * (t + 0.5) / 7
    return out


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Pass the time."""
        self.slept.append(seconds)
        self.now += seconds


@pytest.mark.parametrize("block_rows", [1, 3, 4096])
def test_every_event_is_run_measured_and_written_once(block_rows: int) -> None:
    sink, pipeline, evaluation = MemorySink(), RunningMean(), Sum()
    source = Numbers(20)
    seen = []
    engine = Engine(
        source,
        pipeline,
        evaluation=evaluation,
        sink=sink,
        block_rows=block_rows,
        progress=lambda running: seen.append(running.events),
    )
    summary = engine.run()
    assert sink.rows == expected(20)
    assert (pipeline.n, summary.events, summary.rejects, summary.alarms) == (20, 20, 2, 10)
    total = 0.0
    for row in expected(20)[1:]:
        total += row["prediction"]
    assert evaluation.sum == total
    assert seen == [*range(block_rows, 20, block_rows), 20]
    assert (summary.stopped, summary.checkpoints, summary.resumed_at) == ("", 0, 0)
    assert source.closed == 1


def test_a_row_that_only_learns_is_no_event() -> None:
    modes = [LABELLED, LEARN, PREDICT | OBSERVE, LEARN | OBSERVE]
    sink = MemorySink()
    summary = Engine(
        Numbers(20, lambda t: modes[t % 4]), RunningMean(), sink=sink, block_rows=3
    ).run()
    assert summary.events == 15
    assert [row["row"] for row in sink.rows] == [r for t in range(5) for r in (3 * t, 3 * t + 1)]


@pytest.mark.parametrize("block_rows", [1, 4, 100])
def test_checkpoints_stand_at_multiples_of_events_whatever_the_blocks(
    block_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []

    def noted(store: CheckpointStore, unit: Checkpoint) -> int:
        saved.append(unit.events)
        return len(saved)

    with CheckpointStore(tmp_path) as store:
        monkeypatch.setattr(CheckpointStore, "save", noted)
    summary = Engine(
        Numbers(25), RunningMean(), checkpoints=store, every_events=10, block_rows=block_rows
    ).run()
    assert saved == [0, 10, 20, 25]
    assert summary.checkpoints == 4


def test_labels_that_come_after_the_event_make_no_second_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []

    def noted(store: CheckpointStore, unit: Checkpoint) -> int:
        saved.append(unit.events)
        return len(saved)

    monkeypatch.setattr(CheckpointStore, "save", noted)
    source = Numbers(20, lambda t: LEARN if 5 <= t < 10 else LABELLED)
    store = CheckpointStore(tmp_path)
    Engine(source, RunningMean(), checkpoints=store, every_events=5, block_rows=2).run()
    assert saved == [0, 5, 10, 15]


def test_checkpoints_by_the_clock_also_while_nothing_comes(tmp_path: Path) -> None:
    clock, saved = Clock(), []
    source = Numbers(12)
    source.idle_every = 3

    def tick(at: int) -> None:
        clock.now += 1.0

    class Store(CheckpointStore):
        def save(self, checkpoint: Any) -> int:
            saved.append((clock.now, checkpoint.events))
            return super().save(checkpoint)

    source.on_poll = tick
    Engine(
        source,
        RunningMean(),
        checkpoints=Store(tmp_path),
        every_seconds=3,
        block_rows=2,
        clock=clock,
    ).run()
    assert saved == [(0.0, 0), (3.0, 4), (6.0, 8), (9.0, 12)]


def test_sinks_are_durable_before_the_state_that_counts_on_them(tmp_path: Path) -> None:
    order = []

    class Sink(MemorySink):
        def commit(self) -> Json:
            order.append("sink")
            return super().commit()

    class Store(CheckpointStore):
        def save(self, checkpoint: Any) -> int:
            order.append("state")
            assert checkpoint.sinks["predictions"]["rows"] == checkpoint.events
            assert checkpoint.sources.get("numbers", 0) == checkpoint.events
            return super().save(checkpoint)

    Engine(
        Numbers(9), RunningMean(), sink=Sink(), checkpoints=Store(tmp_path), every_events=5
    ).run()
    assert order == ["sink", "state"] * 3


@given(
    fuses=st.lists(st.integers(0, 40), max_size=4),
    blocks=st.lists(st.integers(1, 12), min_size=5, max_size=5),
    every=st.integers(1, 15),
)
def test_a_crash_anywhere_changes_nothing(
    fuses: list[int],
    blocks: list[int],
    every: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("run")

    def engine(fuse: int, block_rows: int) -> Engine:
        source = Numbers(40)
        return Engine(
            source,
            RunningMean(fuse),
            evaluation=Sum(),
            sink=open_sink(folder / "out.csv", source.schema),
            dead_letters=open_dead_letters(folder / "dead.jsonl"),
            checkpoints=CheckpointStore(folder / "c"),
            every_events=every,
            block_rows=block_rows,
        )

    for fuse, block_rows in zip(fuses, blocks, strict=False):
        if fuse < 40:
            try:
                engine(fuse, block_rows).run()
            except Crash:
                continue
    last = engine(10**9, blocks[-1])
    summary = last.run()
    assert (summary.events, summary.rejects, summary.alarms) == (40, 4, 20)
    lines = (folder / "out.csv").read_text().splitlines()
    texts = [
        f"{r['row']},{'' if r['prediction'] is None else r['prediction']}" for r in expected(40)
    ]
    assert lines == ["row,prediction", *texts]
    assert len((folder / "dead.jsonl").read_text().splitlines()) == 4
    reference, measured = RunningMean(), Sum()
    Engine(Numbers(40), reference, evaluation=measured).run()
    assert isinstance(last.pipeline, RunningMean)
    assert (last.pipeline.sum, last.pipeline.n) == (reference.sum, 40)
    assert isinstance(last.evaluation, Sum)
    assert last.evaluation.sum == measured.sum
    assert isinstance(last.source, Numbers)
    assert last.source.schema.seen == list(range(0, 40, 5))


def test_a_finished_run_that_starts_again_has_nothing_to_do(tmp_path: Path) -> None:
    for attempt in range(2):
        summary = Engine(
            Numbers(9),
            RunningMean(),
            sink=open_sink(tmp_path / "out.csv"),
            checkpoints=CheckpointStore(tmp_path / "c"),
        ).run()
        assert (summary.events, summary.resumed_at) == (9, 9 * attempt)
        assert summary.checkpoints == 2 - 2 * attempt
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 10


def test_a_limit_counts_the_events_before_a_restart(tmp_path: Path) -> None:
    for limit, seen in ((7, 7), (11, 11), (5, 11)):
        pipeline = RunningMean()
        store = CheckpointStore(tmp_path)
        summary = Engine(Numbers(40), pipeline, checkpoints=store, limit=limit, block_rows=3).run()
        assert (summary.events, pipeline.n) == (seen, seen)


def test_pace_lets_so_many_events_a_second_pass() -> None:
    clock, source = Clock(), Numbers(100)
    summary = Engine(source, RunningMean(), pace=40, clock=clock, sleep=clock.sleep).run()
    assert summary.seconds == pytest.approx(100 / 40)
    assert summary.events_per_second == pytest.approx(40)
    assert set(source.asked) == {2}
    assert max(clock.slept) <= 0.05 + 1e-12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_block_saves_and_returns(number: int, tmp_path: Path) -> None:
    source = Numbers(40)

    def kill(at: int) -> None:
        if at == 20:
            os.kill(os.getpid(), number)

    source.on_poll = kill
    before = signal.getsignal(number)
    store = CheckpointStore(tmp_path / "c")
    sink = open_sink(tmp_path / "out.csv")
    engine = Engine(source, RunningMean(), sink=sink, checkpoints=store, block_rows=10)
    summary = engine.run()
    assert (summary.stopped, summary.events) == (signal.Signals(number).name, 30)
    assert engine.stopped == summary.stopped
    assert signal.getsignal(number) is before
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 31
    with CheckpointStore(tmp_path / "c") as again:
        last = again.latest()
    assert last is not None
    assert last.events == 30


def test_a_second_signal_does_not_wait() -> None:
    source = Numbers(40)

    def kill(at: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    source.on_poll = kill
    with pytest.raises(KeyboardInterrupt):
        Engine(source, RunningMean()).run()
    assert source.closed == 1


def test_another_thread_may_run_and_stop_it() -> None:
    source, sink = Numbers(40), MemorySink()
    engine = Engine(source, RunningMean(), sink=sink, block_rows=10)
    source.on_poll = lambda at: engine.stop("enough") if at == 20 else None
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(engine.run()))
    thread.start()
    thread.join()
    assert (got[0].stopped, got[0].events) == ("enough", 30)
    assert sink.rows == expected(30)


def test_an_error_closes_everything_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    source = Numbers(40)
    store = CheckpointStore(tmp_path / "c")
    sink = open_sink(tmp_path / "out.csv")
    engine = Engine(
        source, RunningMean(15), sink=sink, checkpoints=store, every_events=10, block_rows=4
    )
    with pytest.raises(Crash):
        engine.run()
    assert source.closed == 1
    with CheckpointStore(tmp_path / "c") as again:  # the lock is free
        last = again.latest()
    assert last is not None
    assert last.events == 10


def test_rejects_go_to_the_dead_letters(tmp_path: Path) -> None:
    dead = open_dead_letters(tmp_path / "dead.jsonl")
    summary = Engine(Numbers(20), RunningMean(), dead_letters=dead, block_rows=6).run()
    assert summary.rejects == 2
    lines = (tmp_path / "dead.jsonl").read_text().splitlines()
    assert lines[0] == '{"partition": "numbers", "position": 7, "reason": "bad", "raw": "7"}'
    assert len(lines) == 2


def test_without_a_dead_letter_sink_the_first_ten_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        summary = Engine(Numbers(150), RunningMean(), block_rows=40).run()
    assert summary.rejects == 15
    assert len(caplog.records) == 10
    assert caplog.messages[0] == "numbers, record 7: bad; left out (no dead-letter sink)"


def test_an_output_that_is_not_ours_stops_the_run_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("precious\n")
    source = Numbers(9)
    with pytest.raises(
        UserError, match="holds something, and there is no checkpoint to go on from"
    ):
        Engine(source, RunningMean(), sink=open_sink(tmp_path / "out.csv")).run()
    assert source.asked == []
    assert (tmp_path / "out.csv").read_text() == "precious\n"


@pytest.mark.parametrize("name", ["every_events", "every_seconds", "block_rows", "pace", "limit"])
def test_arguments_out_of_range_are_one_line(name: str) -> None:
    with pytest.raises(UserError, match=rf"^Engine: {name} must be > 0, got 0$"):
        Engine(Numbers(1), RunningMean(), **{name: 0})  # type: ignore[arg-type]


class Late(Numbers):
    """Numbers whose labels come one row late: it has a state of its own."""

    def __init__(self, n: int) -> None:
        super().__init__(n, lambda t: LABELLED if t % 2 else LEARN)
        self.waiting = 0
        self.loaded: list[int] = []

    def poll(self, max_events: int, max_wait: float) -> Batch | None:
        """Count what was handed out."""
        batch = super().poll(max_events, max_wait)
        self.waiting += 0 if batch is None else batch.block.n
        return batch

    def state(self) -> State:
        """What waits."""
        return State({}, {"waiting": self.waiting})

    def load(self, state: State) -> None:
        """The inverse."""
        self.waiting = state.table["waiting"]
        self.loaded.append(self.waiting)


def test_what_waits_in_a_source_is_part_of_the_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    engine = Engine(Late(40), RunningMean(15), checkpoints=store, every_events=5, block_rows=1)
    with pytest.raises(Crash):
        engine.run()
    source = Late(40)
    pipeline = RunningMean()
    summary = Engine(source, pipeline, checkpoints=CheckpointStore(tmp_path)).run()
    assert source.loaded == [10]
    assert (summary.resumed_at, summary.events, pipeline.n, source.waiting) == (5, 20, 40, 40)


def test_a_checkpoint_with_late_labels_is_not_taken_without_them(tmp_path: Path) -> None:
    Engine(Late(4), RunningMean(), checkpoints=CheckpointStore(tmp_path)).run()
    plain = Engine(Numbers(4), RunningMean(), checkpoints=CheckpointStore(tmp_path))
    with pytest.raises(UserError, match=r"is of a run with late labels, this one is without"):
        plain.run()
    Engine(Numbers(4), RunningMean(), checkpoints=CheckpointStore(tmp_path / "b")).run()
    late = Engine(Late(4), RunningMean(), checkpoints=CheckpointStore(tmp_path / "b"))
    with pytest.raises(UserError, match=r"is of a run without late labels, this one is with;"):
        late.run()


def test_files_that_checkpoints_name_are_told_of_every_save(tmp_path: Path) -> None:
    class Files:
        saved_at: ClassVar[list[int]] = []

        def saved(self) -> None:
            self.saved_at.append(len(list((tmp_path / "c").glob("checkpoint-*"))))

    store = CheckpointStore(tmp_path / "c", keep=9)
    Engine(Numbers(12), RunningMean(), checkpoints=store, spill=Files(), every_events=5).run()
    assert Files.saved_at == [1, 2, 3, 4]  # each after the file was written


def test_a_damaged_file_of_pending_events_sends_the_run_back_one_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Picky(RunningMean):
        def load(self, state: State) -> None:
            if state.table["n"] == 10:
                raise DamagedError("pending/abc: is missing")
            super().load(state)

    store = CheckpointStore(tmp_path, keep=9)
    Engine(Numbers(20), RunningMean(), checkpoints=store, every_events=5, limit=10).run()
    pipeline = Picky()
    summary = Engine(Numbers(20), pipeline, checkpoints=CheckpointStore(tmp_path, keep=9)).run()
    assert (summary.resumed_at, summary.events, pipeline.n) == (5, 20, 20)
    expected = "pending/abc: is missing; going back to the checkpoint before it"
    assert expected in caplog.messages


def test_a_recorder_sees_every_block_and_how_long_it_took() -> None:
    clock, seen = Clock(), []

    class Slow(RunningMean):
        def run(self, block: Block) -> Columns:
            clock.now += 0.25 * block.n
            return super().run(block)

    class Recorder:
        def update(self, block: Block, outputs: Columns, seconds: float) -> None:
            assert outputs["prediction"].shape == (block.n,)
            seen.append((block.n, seconds))

    engine = Engine(Numbers(10), Slow(), recorder=Recorder(), block_rows=4, clock=clock)
    engine.run()
    assert seen == [(4, 1.0), (4, 1.0), (2, 0.5)]


def test_blocks_are_long_only_while_events_are_quick() -> None:
    """From 5 us an event on, a signal would wait: 4,096 rows at most, from the next block on."""
    clock, source = Clock(), Numbers(60_000)
    each = iter([1e-6, 6e-6, 4e-6, 1e-3, 1e-3, 1e-6])

    class Timed(RunningMean):
        def run(self, block: Block) -> Columns:
            clock.now += next(each, 1e-6) * block.n
            return super().run(block)

    Engine(source, Timed(), clock=clock).run()
    assert source.asked[:7] == [4096, 16_384, 4096, 16_384, 4096, 4096, 16_384]
    Engine(source := Numbers(100), RunningMean(), block_rows=40, clock=clock).run()
    assert set(source.asked) == {40}


@pytest.mark.parametrize("block_rows", [1, 3, 100])
def test_with_late_labels_events_alone_are_counted(block_rows: int, tmp_path: Path) -> None:
    """Checkpoints, limits and rows of the output do not see the rows that bring labels."""
    schema = Schema(features={"x": {"kind": "number"}}, target="y", task="regression")  # type: ignore[dict-item]
    rows = [{"x": float(t), "y": 3.0 * t} for t in range(25)]
    saved: list[int] = []

    class Store(CheckpointStore):
        def save(self, checkpoint: Any) -> int:
            saved.append(checkpoint.events)
            return super().save(checkpoint)

    for limit, events, learnt in ((17, 17, 13), (None, 25, 25)):
        source = DelayedLabels(as_source(rows, schema)[0], schema, 4)
        pipeline, sink = RunningMean(), MemorySink()
        summary = Engine(source, pipeline, sink=sink, checkpoints=Store(tmp_path), every_events=10,
                         block_rows=block_rows, limit=limit).run()  # fmt: skip
        assert (summary.events, pipeline.n) == (events, learnt)
        assert source.report()["pending"] == events - learnt
    assert saved == [0, 10, 17, 20, 25]
    assert [row["row"] for row in sink.rows] == list(range(17, 25))


class Told:
    """A delivery that writes down what it is told; `counts`: the checkpoint that counts."""

    def __init__(self, folder: Path, counts: int | None = None) -> None:
        self.folder, self.counts, self.told = folder, counts, list[Any]()

    def begin(self) -> int | None:
        """Note whether the lock is held."""
        self.told.append(("begin", (self.folder / "lock").exists()))
        return self.counts

    def saved(self, number: int, positions: Positions) -> None:
        """Note the number, where the source stands, and whether the file is there."""
        there = (self.folder / f"checkpoint-{number:010d}.safetensors").exists()
        self.told.append((number, positions.get("numbers"), there))

    def close(self) -> None:
        """Note it."""
        self.told.append("close")


def test_a_delivery_is_told_of_every_checkpoint_after_it_was_saved(tmp_path: Path) -> None:
    told = Told(tmp_path)
    store = CheckpointStore(tmp_path, keep=9)
    Engine(Numbers(12), RunningMean(), checkpoints=store, delivery=told, every_events=5).run()
    saves = [(1, None, True), (2, 5, True), (3, 10, True), (4, 12, True)]
    assert told.told == [("begin", True), *saves, "close"]


def test_the_checkpoint_that_a_delivery_names_is_gone_back_to(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=9)
    Engine(Numbers(12), RunningMean(), checkpoints=store, every_events=5, limit=10).run()
    sink, pipeline, told = MemorySink(), RunningMean(), Told(tmp_path, counts=2)
    summary = Engine(
        Numbers(12), pipeline, sink=sink, checkpoints=CheckpointStore(tmp_path), delivery=told
    ).run()
    assert (summary.resumed_at, summary.events, pipeline.n) == (5, 12, 12)
    assert sink.rows == expected(12)[5:]
    assert told.told == [("begin", True), (3, 12, True), "close"]


def test_a_delivery_needs_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^Engine: delivery must have checkpoints to tell of; nam"):
        Engine(Numbers(1), RunningMean(), delivery=Told(tmp_path))


def test_begin_step_and_end_are_a_run_that_others_may_step_between(tmp_path: Path) -> None:
    sinks = [MemorySink(), MemorySink()]
    beats: list[int] = []
    engines = [
        Engine(
            Numbers(7 + 5 * i),
            RunningMean(),
            sink=sink,
            checkpoints=CheckpointStore(tmp_path / str(i)),
            block_rows=2,
            beat=lambda: beats.append(1),
        )
        for i, sink in enumerate(sinks)
    ]
    for engine in engines:
        engine.begin()
    going = engines
    while going:
        going = [engine for engine in going if engine.step(0.0)]
    assert [engine.end().events for engine in engines] == [7, 12]
    assert [sink.rows for sink in sinks] == [expected(7), expected(12)]
    assert len(beats) == 4 + 1 + 6 + 1
    for i in range(2):  # both locks are free
        with CheckpointStore(tmp_path / str(i)) as store:
            last = store.latest()
        assert last is not None
        assert last.events == 7 + 5 * i


def test_an_engine_that_is_closed_saves_nothing(tmp_path: Path) -> None:
    source = Numbers(9)
    engine = Engine(source, RunningMean(), checkpoints=CheckpointStore(tmp_path), block_rows=4)
    engine.begin()
    assert engine.step()
    assert (engine.positions, engine.idle) == ({"numbers": 4}, False)
    engine.close()
    engine.close()
    assert source.closed == 1
    with CheckpointStore(tmp_path) as store:
        last = store.latest()
    assert last is not None
    assert last.events == 0


def test_a_source_that_says_where_it_begins_is_held_to_it(tmp_path: Path) -> None:
    """What `latest` meant at the first start must not mean something later after a crash."""

    class Beginning(Numbers):
        @property
        def positions(self) -> Positions:
            return {"numbers": self.at}

        def open(self, positions: Positions) -> None:
            self.at = positions.get("numbers", 3)

    store = CheckpointStore(tmp_path)
    engine = Engine(Beginning(9), RunningMean(2), checkpoints=store, block_rows=4)
    with pytest.raises(Crash):
        engine.run()
    with CheckpointStore(tmp_path) as store:
        last = store.latest()
    assert last is not None
    assert last.sources == {"numbers": 3}


def test_sinks_see_where_events_came_from_and_alerts_only_blocks_with_alarms() -> None:
    class Told(MemorySink):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Any] = []

        def write(self, answers: Answers) -> None:
            assert answers.origins is not None
            self.seen.append((answers.first_row, answers.origins.offset.tolist()))

    class Placed(Numbers):
        def poll(self, max_events: int, max_wait: float) -> Batch | None:
            batch = super().poll(max_events, max_wait)
            if batch is None:
                return None
            n = batch.block.n
            offset = 100 + np.arange(self.at - n, self.at)
            zeros = np.zeros(n, np.int64)
            return batch._replace(
                origins=Origins([("t", 0)], zeros.astype(np.intp), offset, zeros, None)
            )

    sink, alerts = Told(), Told()
    Engine(Placed(8), RunningMean(), sink=sink, alerts=alerts, block_rows=1).run()
    assert sink.seen == [(t, [100 + t]) for t in range(8)]
    assert alerts.seen == [(t, [100 + t]) for t in range(8) if t % 2 == 0]  # 3 (t + 0.5) % 6 == 1.5
