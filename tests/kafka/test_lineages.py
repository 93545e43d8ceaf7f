"""Lineages in one loop, without a broker: what moves where, and what a lineage has learnt then."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.block import LABELLED, Block, Columns, Features
from streamlearn.checkpoint import CheckpointStore
from streamlearn.connectors.kafka.wire import AbortedError, Callbacks, FencedError, Partition
from streamlearn.contracts import Batch, Positions, State
from streamlearn.engine import Engine
from streamlearn.errors import UserError
from streamlearn.lineages import Lineages, NotYetError
from streamlearn.testing import SettableClock

TOPIC = "events"


@pytest.fixture(scope="module", autouse=True)
def no_fsync() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


class World:
    """Partitions as counts of their events, and what is to go wrong."""

    def __init__(self, *counts: int, ends: bool = True) -> None:
        self.counts, self.ends = list(counts), ends
        self.errors: dict[int, list[Exception]] = {}  # of a partition: raised by its next polls
        self.order: list[int] = []  # partitions of the blocks, as they were processed


class Numbers:
    """The events 0, 1, 2, … of one partition."""

    guarantee = "the same numbers from any position"

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number, self.at = world, number, -1
        self.waited: list[float] = []

    def open(self, positions: Positions) -> None:
        self.at = positions.get("at", 0)

    def poll(self, max_events: int, max_wait: float) -> Batch | None:
        self.waited.append(max_wait)
        if self.world.errors.get(self.number):
            raise self.world.errors[self.number].pop(0)
        stop = min(self.world.counts[self.number], self.at + max_events)
        if stop == self.at:
            return None
        x = np.arange(self.at, stop, dtype=np.float64)
        block = Block(x[:, None], x, np.ones(len(x)), np.full(len(x), LABELLED, np.uint8), FEATURES)
        self.at = stop
        self.world.order.append(self.number)
        return Batch(block, [], {"at": stop})

    @property
    def finished(self) -> bool:
        return self.world.ends and self.at >= self.world.counts[self.number]

    def close(self) -> None:
        pass


FEATURES = Features(["x"])


class Digest:
    """A pipeline that depends on every event, and on their order."""

    def __init__(self) -> None:
        self.digest = 0

    def run(self, block: Block) -> Columns:
        for value in block.y:
            self.digest = (self.digest * 1_000_003 + int(value) + 1) % 2**61
        return {"prediction": np.zeros(block.n)}

    def state(self) -> State:
        return State({}, {"digest": self.digest})

    def load(self, state: State) -> None:
        self.digest = state.table["digest"]


def digest(n: int) -> int:
    """What a pipeline has after the events 0 to n - 1, each learnt once."""
    found = 0
    for value in range(n):
        found = (found * 1_000_003 + value + 1) % 2**61
    return found


class Member:
    """One member's end of a group that the test moves by hand."""

    def __init__(self) -> None:
        self.callbacks: Callbacks | None = None
        self.news: list[tuple[str, list[Partition]]] = []
        self.closed = 0

    def subscribe(self, topics: Sequence[str], callbacks: Callbacks) -> None:
        assert topics == [TOPIC]
        self.callbacks = callbacks

    def tell(self, what: str, *numbers: int) -> None:
        self.news.append((what, [(TOPIC, number) for number in numbers]))

    def poll(self, max_wait: float) -> None:
        while self.news:
            what, partitions = self.news.pop(0)
            getattr(self.callbacks, what)(partitions)

    def commit(self, offsets: Mapping[Partition, int], metadata: str) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


class Worker:
    """A process: its membership and its lineages, on a store that all share."""

    def __init__(self, world: World, folder: Path, block_rows: int = 3) -> None:
        self.world, self.folder, self.block_rows = world, folder, block_rows
        self.member, self.clock = Member(), SettableClock()
        self.refuse: dict[int, str] = {}
        self.made: list[Engine] = []
        self.lineages = Lineages(self.member, TOPIC, self.make, clock=self.clock)
        self.member.callbacks = self.lineages

    def make(self, number: int) -> Engine:
        if number in self.refuse:
            raise NotYetError(self.refuse[number])
        store = CheckpointStore(self.folder / f"partition-{number}")
        source = Numbers(self.world, number)
        engine = Engine(
            source, Digest(), checkpoints=store, block_rows=self.block_rows, every_events=7
        )
        self.made.append(engine)
        return engine

    def rounds(self, n: int) -> None:
        for _ in range(n):
            self.clock.sleep(1.0)
            self.lineages.step()


def saved(folder: Path, number: int) -> tuple[int, int]:
    """Events and digest of the last checkpoint of a partition."""
    with CheckpointStore(folder / f"partition-{number}") as store:
        last = store.latest()
    assert last is not None
    return last.events, last.pipeline.table["digest"]


def test_a_run_steps_all_that_is_ours_in_turn_and_ends_with_it(tmp_path: Path) -> None:
    world = World(10, 10, 4)
    worker = Worker(world, tmp_path)
    worker.member.tell("assigned", 0, 2)
    ended = worker.lineages.run()
    assert [(one.number, one.summary.events) for one in ended] == [(0, 10), (2, 4)]
    assert world.order == [0, 2, 0, 2, 0, 0]  # blocks of 3, 3, 1 (the checkpoint), 3 and 3, 1
    assert saved(tmp_path, 0) == (10, digest(10))
    assert saved(tmp_path, 2) == (4, digest(4))
    assert not (tmp_path / "partition-1").exists()
    assert worker.member.closed == 1


def test_a_revoked_partition_is_saved_before_the_next_owner_has_it(tmp_path: Path) -> None:
    world = World(100)
    one, two = Worker(world, tmp_path), Worker(world, tmp_path)
    one.member.tell("assigned", 0)
    one.rounds(6)  # begins, then blocks of 3, 3, 1, a checkpoint, 3 and 3
    one.member.tell("revoked", 0)
    one.rounds(1)
    assert saved(tmp_path, 0) == (13, digest(13))
    two.member.tell("assigned", 0)
    two.rounds(2)
    assert two.made[0].resumed_at == 13
    assert two.made[0].events == 14  # up to the next checkpoint
    assert one.lineages.owned == {}


def test_what_was_lost_is_not_saved_and_is_done_again_by_the_next_owner(tmp_path: Path) -> None:
    world = World(100)
    one, two = Worker(world, tmp_path), Worker(world, tmp_path)
    one.member.tell("assigned", 0)
    one.rounds(6)  # 3, 3, 1, checkpoint, 3, 3
    assert one.made[0].events == 13
    two.member.tell("assigned", 0)
    two.rounds(3)
    assert two.made[0].events == 0  # the lock is still held: nothing was read
    assert two.lineages.owned[0].engine is None
    assert "another run is using these checkpoints" in two.lineages.owned[0].waits_for
    one.member.tell("lost", 0)
    one.rounds(1)
    assert saved(tmp_path, 0)[0] == 7
    two.rounds(1)
    assert two.made[-1].resumed_at == 7


def test_one_that_must_wait_does_not_hold_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(5, 5)
    worker = Worker(world, tmp_path)
    worker.refuse[1] = "labels has 1 partition"
    worker.member.tell("assigned", 0, 1)
    worker.rounds(5)
    assert saved(tmp_path, 0) == (5, digest(5))
    assert worker.lineages.owned[1].waits_for == "labels has 1 partition"
    said = [r for r in caplog.records if "waits: labels has 1 partition" in r.getMessage()]
    assert len(said) == 1  # in five seconds once
    worker.refuse.clear()
    worker.rounds(4)
    assert saved(tmp_path, 1) == (5, digest(5))


def test_an_aborted_transaction_begins_again_later_and_later(tmp_path: Path) -> None:
    world = World(20)
    worker = Worker(world, tmp_path)
    world.errors[0] = [AbortedError("broker gave up"), AbortedError("again")]
    worker.member.tell("assigned", 0)
    worker.lineages.step()  # begins
    worker.lineages.step()  # falls
    assert worker.lineages.owned[0].engine is None
    worker.clock.sleep(0.9)
    worker.lineages.step()
    assert len(worker.made) == 1
    worker.clock.sleep(0.2)
    worker.lineages.step()
    worker.lineages.step()  # falls again
    assert len(worker.made) == 2
    worker.clock.sleep(1.1)
    worker.lineages.step()
    assert len(worker.made) == 2
    worker.clock.sleep(1.0)
    worker.rounds(12)
    assert saved(tmp_path, 0) == (20, digest(20))


def test_what_cannot_go_on_ends_the_run_and_leaves_all_at_their_checkpoints(tmp_path: Path) -> None:
    world = World(100, 100)
    worker = Worker(world, tmp_path)
    worker.member.tell("assigned", 0, 1)
    worker.rounds(6)
    assert worker.made[1].events == 13
    world.errors[0] = [FencedError("another writer has taken over")]
    with pytest.raises(FencedError, match="another writer"):
        worker.lineages.run()
    assert saved(tmp_path, 1) == (7, digest(7))
    assert worker.member.closed == 1


def test_a_stop_saves_all(tmp_path: Path) -> None:
    world = World(100, 100, ends=False)
    worker = Worker(world, tmp_path)
    worker.member.tell("assigned", 0, 1)
    worker.lineages.beat = lambda: worker.lineages.stop("SIGTERM") if len(world.order) > 8 else None
    ended = worker.lineages.run()
    assert [one.summary.stopped for one in ended] == ["SIGTERM", "SIGTERM"]
    for one in ended:
        assert saved(tmp_path, one.number) == (one.summary.events, digest(one.summary.events))
        assert one.summary.events > 7


def test_who_has_no_share_yet_waits_for_one(tmp_path: Path) -> None:
    worker = Worker(World(3), tmp_path)
    beats = iter(range(100))

    def beat() -> None:
        if next(beats) == 20:
            worker.member.tell("assigned", 0)

    worker.lineages.beat = beat
    assert [one.summary.events for one in worker.lineages.run()] == [3]


def test_a_lineage_alone_waits_in_its_poll_several_in_turn(tmp_path: Path) -> None:
    world = World(1, 1, ends=False)
    alone, both = Worker(world, tmp_path / "a"), Worker(world, tmp_path / "b")
    alone.member.tell("assigned", 0)
    both.member.tell("assigned", 0, 1)
    for worker in (alone, both):
        worker.rounds(4)
    waits = [[source.waited[-1] for source in map(source_of, w.made)] for w in (alone, both)]
    assert waits == [[0.1], [0.002, 0.002]]


def source_of(engine: Engine) -> Numbers:
    assert isinstance(engine.source, Numbers)
    return engine.source


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.integers(0, 2), st.integers(1, 4)),
        st.tuples(st.just("move"), st.integers(0, 3), st.integers(0, 2)),
        st.tuples(st.just("lose"), st.integers(0, 3), st.integers(0, 2)),
        st.tuples(st.just("crash"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("produce"), st.integers(0, 3), st.integers(1, 20)),
        st.tuples(st.just("abort"), st.integers(0, 3), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(moves=MOVES, block_rows=st.integers(1, 9))
def test_every_event_is_learnt_once_in_order_whatever_happens(
    moves: list[tuple[str, int, int]], block_rows: int
) -> None:
    """Moves, losses, crashes and aborted transactions; then all goes on to the end."""
    with TemporaryDirectory() as place:
        group = Group(Path(place), block_rows)
        for move in moves:
            group.do(*move)
        group.settle()
        for number, count in enumerate(group.world.counts):
            assert saved(Path(place), number) == (count, digest(count))


class Group:
    """Three workers and four partitions, each of which is one worker's."""

    def __init__(self, folder: Path, block_rows: int) -> None:
        self.world = World(5, 0, 12, 7, ends=False)
        self.folder, self.block_rows = folder, block_rows
        self.workers = [Worker(self.world, folder, block_rows) for _ in range(3)]
        self.owner = {number: number % 3 for number in range(4)}
        for number, owner in self.owner.items():
            self.workers[owner].member.tell("assigned", number)

    def do(self, what: str, which: int, how: int) -> None:
        if what == "step":
            self.workers[which].rounds(how)
        elif what == "produce":
            self.world.counts[which] += how
        elif what == "abort":
            self.world.errors.setdefault(which, []).append(AbortedError("gave up"))
        elif what == "crash":
            self.crash(which)
        elif self.owner[which] != how:
            self.move(what, which, how)

    def move(self, what: str, number: int, to: int) -> None:
        """A partition that is lost is another's before its owner hears of it."""
        before, self.owner[number] = self.workers[self.owner[number]], to
        if what == "move":
            before.member.tell("revoked", number)
            before.rounds(1)
        self.workers[to].member.tell("assigned", number)
        if what == "lose":
            self.workers[to].rounds(2)
            before.member.tell("lost", number)

    def crash(self, which: int) -> None:
        """Nothing is saved; the system lets go of the locks; the same comes back."""
        for engine in self.workers[which].made:
            engine.close()
        self.workers[which] = Worker(self.world, self.folder, self.block_rows)
        mine = [number for number, owner in self.owner.items() if owner == which]
        self.workers[which].member.tell("assigned", *mine)

    def settle(self) -> None:
        """Everybody goes on until all is learnt and saved."""
        self.world.errors.clear()
        for worker in self.workers:
            worker.rounds(1)
        for worker in self.workers:
            worker.clock.sleep(60.0)
            worker.rounds(80)
            worker.member.tell("revoked", *range(4))
            worker.rounds(1)


def test_a_topic_that_is_not_the_one_of_the_lineages_does_not_matter(tmp_path: Path) -> None:
    worker = Worker(World(3), tmp_path)
    worker.lineages.assigned([("labels", 0)])
    assert worker.lineages.owned == {}


def test_a_checkpoint_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    world = World(100, ends=False)
    worker = Worker(world, tmp_path)
    worker.member.tell("assigned", 0)
    worker.rounds(3)
    (tmp_path / "partition-0" / "lock").write_text("9\n")  # a later owner, its lock not seen here
    worker.member.tell("revoked", 0)
    with pytest.raises(UserError, match="another run took these checkpoints"):
        worker.rounds(1)
