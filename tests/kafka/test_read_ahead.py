"""Decoding ahead of a topic: a thread decodes full pieces, and what is not taken was never read."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import kafka as benchmark
from benchmarks import read_ahead
from streamlearn.checkpoint import CheckpointStore
from streamlearn.connectors.kafka import lanes
from streamlearn.connectors.kafka import source as sources
from streamlearn.connectors.kafka.decode import MessageRows, Messages
from streamlearn.connectors.kafka.location import LATEST, Topics
from streamlearn.connectors.kafka.plain_formats import JsonMessages
from streamlearn.connectors.kafka.source import KafkaSource
from streamlearn.connectors.kafka.wire import Connection
from streamlearn.contracts import Batch, Reject
from streamlearn.engine import Engine
from streamlearn.errors import UserError
from streamlearn.lineages import Lineages
from streamlearn.merging import MergedEvents
from streamlearn.schema import Schema
from tests.kafka.broker import Sent
from tests.kafka.doubles import MemoryBroker
from tests.recorder import Recorder

NOW = 1_700_000_000_000  # ms
PIECE = 10
TABLE = {"features": {"x": "number", "c": "category"}, "id": "id", "time": "$timestamp",
         "target": "y", "task": "classification"}  # fmt: skip
THREAD, MAIN = "streamlearn-decode", threading.main_thread().name


@pytest.fixture(autouse=True)
def small_pieces_and_two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "PIECE", PIECE)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Decoding:
    """Who decoded which offsets; the thread waits at `gate`, and fails at the offset `bad`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, str, int, int]] = []  # thread, lane, first and last offset
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()
        self.bad = -1
        real = MessageRows.decode

        def decode(rows: MessageRows, messages: Messages) -> Any:
            name = threading.current_thread().name.partition("_")[0]
            first, last = messages.offsets[[0, -1]].tolist()
            self.seen.append((name, f"{messages.topic}/{messages.number}", first, last))
            if name == THREAD:
                self.begun.set()
                assert self.gate.wait(10.0)
            if first <= self.bad <= last:
                raise UserError(f"offset {self.bad} cannot be read")
            return real(rows, messages)

        monkeypatch.setattr(MessageRows, "decode", decode)

    def by(self, thread: str) -> list[tuple[int, int]]:
        """The offsets that a thread has decoded."""
        return [(first, last) for name, _, first, last in self.seen if name == thread]


class Prompt(ThreadPoolExecutor):
    """A thread that has begun whatever it was given; else who needs a piece may be there first."""

    def submit(self, *work: Any) -> Any:  # type: ignore[override]
        future = super().submit(*work)
        while not (future.running() or future.done()):
            time.sleep(0.0005)
        return future


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "decode_thread", lambda: Prompt(1, THREAD))


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Decoding:
    return Decoding(monkeypatch)


def sent(i: int, partition: int = 0) -> Sent:
    """A new colour every 7 records, a new class every 30; every 11th record cannot be read."""
    value = f'{{"id": {i}, "x": {i / 8}, "c": "c{i // 7}", "y": "k{i // 30}"}}'
    raw = b"{" if i % 11 == 4 else value.encode()
    return Sent(raw, b"k%d" % i, NOW + i, partition=partition)


def source_of(memory: MemoryBroker, topic: str = "t", **more: Any) -> KafkaSource:
    topics = Topics(Connection(memory.bootstrap, "memory"), (topic,), **more)
    return KafkaSource(topics, Schema.from_config(TABLE))


def opened(memory: MemoryBroker, n: int, partitions: int = 1, **more: Any) -> KafkaSource:
    """A source with n records, of which all were fetched."""
    memory.create("t", partitions)
    memory.produce("t", [sent(i, i % partitions) for i in range(n)])
    source = source_of(memory, **more)
    source.open({})
    source.wait(0.0)
    return source


def taken(source: KafkaSource, n: int, lane: int = 0) -> Batch:
    assert source.lanes[lane].ready() is not None
    return source.take(np.full(n, lane, dtype=np.intp))


def good(stop: int, start: int = 0) -> list[int]:
    return [i for i in range(start, stop) if i % 11 != 4]


# -- the same rows ---------------------------------------------------------------------------------


def told(memory: MemoryBroker, most: int) -> list[Any]:
    """Everything that a merged reading gives, in blocks of at most so many rows."""
    source = source_of(memory, stop=LATEST)
    merged = MergedEvents(source, source.schema)
    merged.open({})
    found: list[Any] = []
    while not merged.finished:
        batch = merged.poll(most, 0.0)
        if batch is None:
            continue
        block, origins = batch.block, batch.origins
        offsets = None if origins is None else origins.offset.tolist()
        found.append((block.X.tobytes(), block.y.tobytes(), block.mode.tobytes(),
                      block.ids.tolist() if block.ids is not None else [], batch.rejects,
                      batch.positions, offsets, source.schema.state().table))  # fmt: skip
    merged.close()
    return found


@pytest.mark.usefixtures("prompt")
@pytest.mark.parametrize("most", [3, 1000])
def test_blocks_are_the_same_with_and_without_the_thread(
    memory: MemoryBroker, decoding: Decoding, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Rows, tables, dead letters and positions, block by block; two partitions."""
    memory.create("t", 2)
    memory.produce("t", [sent(i, i % 2) for i in range(200)])
    ahead = told(memory, most)
    assert len(decoding.by(THREAD)) >= 6
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    decoding.seen.clear()
    assert told(memory, most) == ahead
    assert decoding.by(THREAD) == []
    assert [i for block in ahead for i in block[3]] == good(200)
    letters = [(r.partition, r.position) for block in ahead for r in block[4]]
    wanted = [(f"t/{i % 2}", i // 2) for i in range(4, 200, 11)]
    for lane in ("t/0", "t/1"):
        assert [place for place in letters if place[0] == lane] == [
            place for place in wanted if place[0] == lane
        ]
    assert len(letters) == len(wanted)


@pytest.mark.usefixtures("prompt")
def test_a_piece_that_is_not_full_is_decoded_when_its_turn_comes(
    memory: MemoryBroker, decoding: Decoding
) -> None:
    """So what comes meanwhile goes with it, and a record that comes alone is ready at once."""
    source = opened(memory, 25)
    taken(source, 1)
    assert decoding.by(MAIN) == [(0, 9)]
    taken(source, 8)
    taken(source, 9)
    memory.produce("t", [sent(i) for i in range(25, 29)])
    source.wait(0.0)
    taken(source, 8)
    assert decoding.by(THREAD) == [(10, 19)]
    assert decoding.by(MAIN) == [(0, 9), (20, 28)]
    memory.produce("t", [sent(29)])
    source.wait(0.0)
    taken(source, 1)
    assert decoding.by(MAIN)[2:] == [(29, 29)]
    source.close()


def test_what_is_decoded_ahead_and_not_taken_was_never_read(
    memory: MemoryBroker, decoding: Decoding
) -> None:
    """Neither by positions nor by tables; whoever takes the partition over reads it again."""
    source = opened(memory, 40)
    taken(source, 3)
    assert decoding.begun.wait(10.0)
    assert decoding.by(THREAD) == [(10, 19)]
    assert source.positions == {"t/0": 3}
    known = str(source.schema.state().table)
    assert "'c0'" in known
    assert "'c1'" not in known  # it begins with record 7
    lag = source.lag(NOW / 1000)["t/0"]
    assert lag.records == 37
    assert not source.lanes[0].caught_up
    positions = source.positions
    source.close()
    other = source_of(memory)
    other.open(positions)
    other.wait(0.0)
    first = taken(other, 6)
    assert first.block.ids is not None
    assert first.block.ids.tolist() == good(10, 3)
    assert [reject.position for reject in first.rejects] == [4]
    other.close()


@pytest.mark.usefixtures("prompt")
def test_dead_letters_of_a_piece_decoded_ahead_stand_where_they_stood(
    memory: MemoryBroker, decoding: Decoding
) -> None:
    source = opened(memory, 20)
    first = taken(source, 9)
    second = taken(source, 5)
    third = taken(source, 4)
    assert decoding.by(THREAD) == [(10, 19)]
    reason = "must be JSON: Expecting property name enclosed in double quotes at character 2"
    assert first.rejects == [Reject("t/0", 4, reason, b"{")]
    assert second.rejects == []
    assert third.rejects == [Reject("t/0", 15, reason, b"{")]
    assert [b.positions["t/0"] for b in (first, second, third)] == [10, 15, 20]
    source.close()


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.usefixtures("prompt")
def test_what_is_wrong_with_a_piece_is_raised_when_its_turn_comes(
    memory: MemoryBroker, decoding: Decoding
) -> None:
    decoding.bad = 12
    source = opened(memory, 40)
    assert taken(source, 9).positions == {"t/0": 10}
    with pytest.raises(UserError, match=r"^offset 12 cannot be read$"):
        source.lanes[0].ready()
    assert source.positions == {"t/0": 10}
    source.close()


class Refusing(JsonMessages):
    """A format whose registry refuses, once it is asked for the record with the id 12."""

    def ready(self, values: Any) -> int:
        if any(b'"id": 12' in value for value in values):
            raise UserError("the registry refuses")
        return len(values)


def test_a_registry_that_refuses_does_so_when_the_turn_comes(
    memory: MemoryBroker, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamlearn.connectors.kafka.source.decoder_of",
                        lambda topics, schema: Refusing(schema))  # fmt: skip
    source = opened(memory, 40)
    assert taken(source, 9).positions == {"t/0": 10}
    with pytest.raises(UserError, match=r"^the registry refuses$"):
        source.lanes[0].ready()
    assert decoding.by(THREAD) == []
    source.close()


# -- the thread ------------------------------------------------------------------------------------


def test_a_lane_does_not_wait_for_the_piece_of_another(
    memory: MemoryBroker, decoding: Decoding
) -> None:
    """What the thread has not begun is decoded by who needs it."""
    decoding.gate.clear()
    source = opened(memory, 80, partitions=2)
    taken(source, 9, lane=0)
    assert decoding.begun.wait(10.0)
    taken(source, 9, lane=1)  # its next piece waits behind that of the other lane
    assert taken(source, 9, lane=1).positions == {"t/0": 10, "t/1": 20}
    assert decoding.by(THREAD) == [(10, 19)]
    decoding.gate.set()
    assert taken(source, 9, lane=0).positions == {"t/0": 20, "t/1": 20}
    source.close()


@pytest.mark.usefixtures("prompt")
def test_what_is_decoded_ahead_counts_as_waiting_until_its_turn(
    memory: MemoryBroker, decoding: Decoding
) -> None:
    """So a partition is paused as it would be without the thread."""
    source = opened(memory, 40)
    lane = source.lanes[0]
    sizes = [lane.size]
    for _ in range(4):
        n = lane.ready()
        assert n is not None
        sizes.append(lane.size)
        taken(source, n.n)
        sizes.append(lane.size)
    assert len(decoding.by(THREAD)) == 3
    bytes_of = [sum(len(sent(i).value or b"") + lanes.OVERHEAD for i in range(at, 40))
                for at in (0, 10, 10, 20, 20, 30, 30, 40, 40)]  # fmt: skip
    assert sizes == bytes_of
    source.close()


def test_closing_waits_for_the_piece_in_work_and_leaves_no_thread(
    memory: MemoryBroker, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    monkeypatch.setattr(JsonMessages, "close", lambda decoder: closed.append(len(decoding.seen)))
    decoding.gate.clear()
    source = opened(memory, 80, partitions=2)
    taken(source, 9, lane=0)
    taken(source, 9, lane=1)
    assert decoding.begun.wait(10.0)
    closing = threading.Thread(target=source.close)
    closing.start()
    closing.join(0.05)
    assert closed == []  # the format is still in use
    decoding.gate.set()
    closing.join(10.0)
    assert closed == [3]  # the piece of the other lane was not begun
    assert not any(t.name.startswith(THREAD) for t in threading.enumerate())
    assert source.lanes == []


# -- a run that crashes ----------------------------------------------------------------------------


class Membership:
    """A member of a group that nothing happens to by itself."""

    def subscribe(self, topics: Any, callbacks: Any) -> None:
        """Join."""

    def poll(self, max_wait: float) -> None:
        """No news."""

    def commit(self, offsets: Any, metadata: str) -> None:
        """Nobody looks."""

    def close(self) -> None:
        """Leave."""


def engine(memory: MemoryBroker, folder: Path, fuse: int = 10**9) -> Engine:
    source = source_of(memory, stop=LATEST)
    merged = MergedEvents(source, source.schema)
    store = CheckpointStore(folder)
    return Engine(merged, Recorder(fuse), checkpoints=store, every_events=37, block_rows=9)


@pytest.mark.usefixtures("prompt")
def test_every_event_is_learnt_once_whatever_was_decoded_ahead(
    memory: MemoryBroker, decoding: Decoding, tmp_path: Path
) -> None:
    memory.create("t", 2)
    memory.produce("t", [sent(i, i % 2) for i in range(300)])
    with pytest.raises(ZeroDivisionError):
        engine(memory, tmp_path / "checkpoints", fuse=3 * 37 + 20).run()
    assert not any(t.name.startswith(THREAD) for t in threading.enumerate())
    resumed = engine(memory, tmp_path / "checkpoints")
    assert resumed.run().resumed_at == 3 * 37
    assert len(decoding.by(THREAD)) > 10
    wanted = [[i / 8, float(i // 7), float(i // 30)] for i in good(300)]
    assert resumed.pipeline.rows == wanted  # type: ignore[attr-defined]


@pytest.mark.usefixtures("prompt")
@pytest.mark.parametrize(("how", "learnt"), [("revoked", 18), ("lost", 0)])
def test_who_takes_a_partition_over_reads_what_the_other_had_decoded_ahead(
    memory: MemoryBroker, decoding: Decoding, tmp_path: Path, how: str, learnt: int
) -> None:
    """Revoked, it is saved where its rows were taken; lost, where the last checkpoint is."""
    memory.create("t", 2)
    memory.produce("t", [sent(i, 1) for i in range(60)])

    def make(number: int) -> Engine:
        source = source_of(memory, stop=LATEST, partitions=(number,))
        merged = MergedEvents(source, source.schema)
        return Engine(merged, Recorder(), checkpoints=CheckpointStore(tmp_path), block_rows=9)

    one, two = (Lineages(Membership(), "t", make) for _ in range(2))
    one.assigned([("t", 1)])
    for _ in range(3):  # begins; then two blocks, the two first pieces
        one.step()
    assert decoding.by(THREAD) == [(10, 19), (20, 29)]
    getattr(one, how)([("t", 1)])
    assert not any(t.name.startswith(THREAD) for t in threading.enumerate())
    two.assigned([("t", 1)])
    two.step()
    (lineage,) = two.owned.values()
    assert lineage.engine is not None
    assert lineage.engine.resumed_at == learnt
    while lineage.engine.step():
        pass
    seen: Any = lineage.engine.pipeline
    assert seen.rows == [[i / 8, float(i // 7), float(i // 30)] for i in good(60)]
    two.lost([("t", 1)])


# -- the benchmark ---------------------------------------------------------------------------------


@pytest.mark.jit
@pytest.mark.usefixtures("prompt")
@pytest.mark.parametrize("ahead", [True, False])
def test_of_a_pair_one_run_decodes_ahead_and_the_other_does_not(
    decoding: Decoding, tmp_path: Path, ahead: bool
) -> None:
    with ExitStack() as stack:
        runs = read_ahead.here(benchmark.records(100), tmp_path / "events.jsonl", stack)
        for run in runs.values():
            assert min(read_ahead.took(run, 100, ahead)) > 0.0
    assert bool(decoding.by(THREAD)) == ahead


def test_a_quotient_is_of_the_two_runs_of_a_pair() -> None:
    slow = [1.0, 2.0, 1.5, 3.0, 1.0, 2.0, 5.0]
    pairs = [
        read_ahead.Pair(read_ahead.Took(0.5 * s, 1, 1), read_ahead.Took(s, 1, 1)) for s in slow
    ]
    assert read_ahead.compared(pairs, 0) == (0.5, 0.5, 0.5)
