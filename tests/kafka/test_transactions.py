"""Deliveries: what a reader sees of a run that is killed, of checkpoints that are damaged."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn import runner
from streamlearn.block import LABELLED, Block, Columns, Features
from streamlearn.checkpoint import CheckpointStore
from streamlearn.connectors import webhook
from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.delivery import offsets_of
from streamlearn.connectors.kafka.location import Topics
from streamlearn.connectors.kafka.outputs import Outputs
from streamlearn.connectors.kafka.wire import (
    AbortedError,
    Committed,
    Connection,
    FencedError,
    Partition,
)
from streamlearn.connectors.outbox import Outbox
from streamlearn.contracts import Batch, Origins, Positions, Reject, State
from streamlearn.engine import Engine
from streamlearn.errors import UserError
from tests.connectors import test_webhook
from tests.connectors.test_webhook import Receiver
from tests.kafka import doubles
from tests.kafka.broker import Broker, Got, Sent, consume, produce
from tests.kafka.doubles import MemoryBroker

N = 40
GROUP = "tests"


@pytest.fixture(scope="module", autouse=True)
def no_fsync() -> Iterator[None]:
    """Nothing here pulls the plug."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


class Crash(Exception):
    """The process is killed."""


class Records:
    """Records 0 to N of a topic of two partitions, in turn; each tenth does not fit."""

    guarantee = "the same records from any position"

    def __init__(self, topic: str) -> None:
        self.topic, self.at = topic, 0

    def open(self, positions: Positions) -> None:
        """Go on after these."""
        self.at = sum(positions.values())

    @property
    def positions(self) -> Positions:
        """Of both partitions, from the beginning on."""
        at = {f"events/{self.topic}/0": (self.at + 1) // 2}
        return at | {f"events/{self.topic}/1": self.at // 2}

    def poll(self, max_events: int, max_wait: float) -> Batch | None:
        """Some records."""
        if self.finished:
            return None
        stop = min(N, self.at + max_events)
        rows = np.arange(self.at, stop)
        rejects = [Reject(f"{self.topic}/1", t // 2, "bad", b"%d" % t) for t in rows if t % 10 == 9]
        rows = rows[rows % 10 != 9]
        self.at = stop
        x = rows.astype(np.float64)
        mode = np.full(len(rows), LABELLED, np.uint8)
        block = Block(x[:, None], x, np.ones(len(rows)), mode, Features(["x"]))
        partitions = [(self.topic, 0), (self.topic, 1)]
        origins = Origins(partitions, (rows % 2).astype(np.intp), rows // 2, rows * 1_000_000, None)
        return Batch(block, rejects, self.positions, origins)

    @property
    def finished(self) -> bool:
        """At the end."""
        return self.at >= N

    def close(self) -> None:
        """Nothing is open."""


class Sum:
    """A pipeline: predicts the sum of the targets before; alarms at each seventh row."""

    def __init__(self, fuse: int = 10**9) -> None:
        self.sum, self.n, self.fuse = 0.0, 0, fuse

    def run(self, block: Block) -> Columns:
        """Answer, then learn; crash after `fuse` rows."""
        prediction, alarm = np.zeros(block.n), np.zeros(block.n, np.uint8)
        for t in range(block.n):
            self.fuse -= 1
            if self.fuse < 0:
                raise Crash
            prediction[t] = self.sum
            self.sum, self.n = self.sum + block.y[t], self.n + 1
            alarm[t] = self.n % 7 == 0
        return {"prediction": prediction, "alarm": alarm}

    def state(self) -> State:
        """Both numbers."""
        return State({}, {"sum": self.sum, "n": self.n})

    def load(self, state: State) -> None:
        """The inverse."""
        self.sum, self.n = state.table["sum"], state.table["n"]


class Setting:
    """Topics, a folder, and engines over them."""

    def __init__(self, connection: Connection, folder: Path, topics: Sequence[str], kind: str,
                 client: Any = None) -> None:  # fmt: skip
        self.connection, self.folder, self.client = connection, folder, client
        self.source, *self.outputs = topics
        self.group = f"{GROUP}-{folder.name}-{self.source}"
        self.id = f"id-{self.group}" if kind == "transactions" else None
        self.url = ""  # of a webhook

    def engine(self, fuse: int = 10**9, every: int = 10, block_rows: int = 3) -> Engine:
        """A new process."""
        inputs = [Topics(self.connection, (self.source,))]
        outputs = Outputs(
            self.connection, group=self.group, transactional_id=self.id, inputs=inputs,
            client=self.client,
        )  # fmt: skip
        out, alerts, dead = self.outputs
        box, pauses = self.folder / "webhook", test_webhook.PAUSES
        return Engine(
            Records(self.source),
            Sum(fuse),
            sink=outputs.sink(out, model="m"),
            alerts=outputs.alerts(alerts),
            webhook=webhook.Webhook(self.url, box, pauses=pauses) if self.url else None,
            dead_letters=outputs.dead_letters(dead),
            checkpoints=CheckpointStore(self.folder, keep=3),
            delivery=outputs.delivery(),
            every_events=every,
            block_rows=block_rows,
        )

    def killed(self, fuse: int, **how: int) -> None:
        """A process that gets so far; nothing is aborted."""
        engine = self.engine(fuse, **how)
        engine.begin()
        with pytest.raises(Crash):
            stepped(engine)
        left(engine)


def stepped(engine: Engine) -> None:
    """To the end of what comes."""
    while engine.step():
        pass


def left(engine: Engine) -> None:
    """As the system leaves what a killed process held: unlocked, unconnected, nothing aborted."""
    sink: Any = engine.sink
    sink.outputs.flush()
    sink.outputs.producer.abort = lambda: None
    engine.close()


def in_memory(folder: Path, kind: str) -> tuple[MemoryBroker, Setting]:
    broker = MemoryBroker()
    topics = ["in", "out", "alerts", "dead"]
    for name in topics:
        broker.create(name, 2 if name in ("in", "out") else 1)
    connection = Connection(broker.bootstrap, "memory")
    return broker, Setting(connection, folder, topics, kind, doubles.CLIENT)


Read = Callable[[str], list[Got]]


def expected() -> tuple[list[Any], list[int], list[bytes]]:
    """What all answers, alarms and dead letters must be, from the records alone."""
    rows = [t for t in range(N) if t % 10 != 9]
    answers = [
        {"event": k, "prediction": float(sum(rows[:k])), "model": "m", "topic": "in",
         "partition": t % 2, "offset": t // 2, "time": t}
        for k, t in enumerate(rows)
    ]  # fmt: skip
    return answers, [k for k in range(len(rows)) if (k + 1) % 7 == 0], [b"9", b"19", b"29", b"39"]


def seen(setting: Setting, read: Read) -> tuple[list[Any], list[int], list[bytes | None]]:
    """What a reader has, in order of the events."""
    out, alerts, dead = setting.outputs
    answers = sorted((json.loads(got.value or b"") for got in read(out)), key=lambda r: r["event"])
    for record in answers:
        assert record["topic"] == setting.source
        record["topic"] = "in"
    alarms = [json.loads(got.value or b"")["event"] for got in read(alerts)]
    return answers, alarms, [got.value for got in read(dead)]


# -- transactions ----------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    fuses=st.lists(st.integers(0, N - 5), max_size=4),
    every=st.integers(1, 15),
    block_rows=st.integers(1, 12),
)
def test_a_reader_of_transactions_sees_each_once_whatever_is_killed(
    fuses: list[int], every: int, block_rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    broker, setting = in_memory(tmp_path_factory.mktemp("c"), "transactions")
    for fuse in fuses:
        engine = setting.engine(fuse, every, block_rows)
        engine.begin()
        try:
            stepped(engine)
        except Crash:
            left(engine)
        else:
            engine.end()
    summary = setting.engine(every=every, block_rows=block_rows).run()
    assert summary.events == N - 4
    assert seen(setting, broker.consume) == expected()


def die(monkeypatch: pytest.MonkeyPatch, when: str, number: int) -> None:
    """Be killed around a commit; the producer aborts nothing."""
    left, commit = number, doubles.MemoryProducer.commit

    def dying(producer: Any, *args: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0 and when == "before the offsets":
            raise Crash
        commit(producer, *args)
        if left == 0:
            raise Crash

    monkeypatch.setattr(doubles.MemoryProducer, "commit", dying)
    monkeypatch.setattr(doubles.MemoryProducer, "abort", lambda producer: None)


@pytest.mark.parametrize("when", ["before the offsets", "after the commit"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_kill_around_a_commit(
    when: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a durable checkpoint and its commit; the checkpoint must not count then."""
    broker, setting = in_memory(tmp_path, "transactions")
    die(monkeypatch, when, number)
    engine = setting.engine()
    with pytest.raises(Crash):
        engine.run()
    there = len(list(tmp_path.glob("checkpoint-*")))
    assert there == number
    again = setting.engine()
    again.begin()
    counts = number - 1 if when == "before the offsets" else number
    assert again.events == max(0, counts - 1) * 10
    stepped(again)
    again.end()
    assert seen(setting, broker.consume) == expected()


receiver = test_webhook.receiver


@pytest.mark.parametrize("when", ["before the offsets", "after the commit", "in a block"])
@pytest.mark.parametrize("away", [True, False])
def test_each_alarm_is_posted_whatever_is_killed(
    when: str, away: bool, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power goes, too: of the outbox there is no more than what was synced.

    While the server is away that alone keeps the alarms from before the checkpoint.
    """
    broker, setting = in_memory(tmp_path, "transactions")
    commit, synced = Outbox.commit, [0]

    def noted(box: Outbox) -> None:
        commit(box)
        synced[0] = box._path.stat().st_size

    monkeypatch.setattr(Outbox, "commit", noted)
    monkeypatch.setattr(webhook, "_GRACE", 20.0)
    setting.url = "http://127.0.0.1:9/hook" if away else receiver.url
    if when == "in a block":
        setting.killed(25)
    else:
        with monkeypatch.context() as killed:
            die(killed, when, 4)
            with pytest.raises(Crash):
                setting.engine().run()
    os.truncate(tmp_path / "webhook" / "outbox-0000000000.jsonl", synced[0])
    setting.url = receiver.url
    setting.engine().run()
    posted = {one["alert"]: one["event"] for one in receiver.taken}
    assert posted == dict(enumerate(expected()[1]))
    assert not away or receiver.numbers == list(range(5))
    assert seen(setting, broker.consume) == expected()


def test_offsets_and_metadata_tell_the_checkpoint_and_what_was_written(tmp_path: Path) -> None:
    broker, setting = in_memory(tmp_path, "transactions")
    setting.killed(25)
    told = "transaction checkpoint=3 alerts=2 dead_letters=2 predictions=20"
    assert broker.groups[setting.group].committed == {
        ("in", 0): Committed(11, told), ("in", 1): Committed(11, told)
    }  # fmt: skip
    setting.engine().run()
    told = "transaction checkpoint=5 alerts=5 dead_letters=4 predictions=36"
    assert broker.groups[setting.group].committed[("in", 1)] == Committed(20, told)


@pytest.mark.parametrize("then", [None, 3, 9])
def test_a_damaged_checkpoint_repeats_no_output(
    then: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed again on the way back, before and after the committed offsets."""
    broker, setting = in_memory(tmp_path, "transactions")
    setting.killed(33, every=5)
    before = seen(setting, broker.consume)
    assert len(before[0]) == 30
    with CheckpointStore(tmp_path) as store:
        files = sorted(tmp_path.glob("checkpoint-*"))
        files[-1].write_bytes(files[-1].read_bytes()[:-9])
        assert store.file_of(7) == files[-1]  # of 30 events
    if then is not None:
        setting.killed(then, every=2, block_rows=1)
        assert seen(setting, broker.consume)[0][:30] == before[0]
    summary = setting.engine(every=4).run()
    assert "going back to the checkpoint before it" in caplog.text
    assert summary.events == N - 4
    assert seen(setting, broker.consume) == expected()


def test_the_checkpoint_that_counts_outlives_the_others(tmp_path: Path) -> None:
    """Even when many more were written than are kept, and none of them was committed."""
    broker, setting = in_memory(tmp_path, "transactions")
    setting.killed(12)
    for _ in range(5):
        broker.fail("commit", AbortedError("given up"))
        engine = setting.engine()
        with pytest.raises(AbortedError):
            engine.run()
    setting.engine().run()
    assert seen(setting, broker.consume) == expected()


@pytest.mark.parametrize("where", ["send", "flush", "commit"])
def test_a_transaction_that_is_given_up_is_done_again(where: str, tmp_path: Path) -> None:
    """In another engine, as after a restart: nothing of it was seen."""
    broker, setting = in_memory(tmp_path, "transactions")
    setting.killed(12)
    engine = setting.engine()
    engine.begin()
    broker.fail(where, AbortedError("given up"))
    with pytest.raises(AbortedError):
        stepped(engine)
    engine.close()
    setting.engine().run()
    assert seen(setting, broker.consume) == expected()


@pytest.mark.parametrize("away", [False, True])
def test_what_cannot_be_aborted_hides_no_error(
    away: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it wait for a broker that is away: the next writer's beginning aborts it."""
    broker, setting = in_memory(tmp_path, "transactions")
    tried: list[bool] = []

    def refused(producer: Any) -> None:
        tried.append(True)
        raise FencedError("kafka: given up by the broker")

    with monkeypatch.context() as patch:
        patch.setattr(doubles.MemoryProducer, "abort", refused)
        engine = setting.engine()
        engine.begin()
        assert engine.step()
        broker.fail("send", AbortedError("given up"))
        with pytest.raises(AbortedError):
            stepped(engine)
        broker.away = away
        engine.close()
        broker.away = False
    assert tried == ([] if away else [True])
    setting.engine().run()
    assert seen(setting, broker.consume) == expected()


def test_an_older_writer_is_fenced_and_nothing_of_it_is_seen(tmp_path: Path) -> None:
    broker, setting = in_memory(tmp_path, "transactions")
    old = setting.engine()
    old.begin()
    assert old.step()
    assert old.checkpoints is not None
    old.checkpoints.close()  # a lock that does not hold
    setting.engine().run()
    with pytest.raises(FencedError, match="another writer has taken over"):
        old.step()
    assert seen(setting, broker.consume) == expected()


def test_nothing_read_means_nothing_to_commit_but_the_beginning(tmp_path: Path) -> None:
    """The first checkpoint is committed at once: a crash in the first interval goes back to it."""
    broker, setting = in_memory(tmp_path, "transactions")
    setting.killed(0)
    told = "transaction checkpoint=1 alerts=0 dead_letters=0 predictions=0"
    assert broker.groups[setting.group].committed[("in", 0)] == Committed(0, told)
    setting.engine().run()
    assert seen(setting, broker.consume) == expected()


def test_a_source_that_hides_its_offsets_is_refused(tmp_path: Path) -> None:
    _, setting = in_memory(tmp_path, "transactions")
    engine = setting.engine()
    assert engine.delivery is not None
    with pytest.raises(UserError, match=r"^transactions: the source must say its offsets from th"):
        engine.delivery.saved(1, {"file.csv": {"line": 3}})


def test_a_folder_that_was_lost_is_not_begun_anew(tmp_path: Path) -> None:
    broker, setting = in_memory(tmp_path / "a", "transactions")
    setting.killed(25)
    setting.folder = tmp_path / "b"
    with pytest.raises(UserError, match=r"checkpoint 3, which the broker's offsets name, is not"):
        setting.engine().run()
    setting.group = "another"
    setting.engine().run()
    assert len(broker.consume("out")) == 20 + N - 4


def test_from_at_least_once_to_transactions_and_back(tmp_path: Path) -> None:
    """Offsets that were committed for lag monitors alone name no checkpoint."""
    broker, setting = in_memory(tmp_path, "at_least_once")
    Engine.run(_limited(setting, 12))
    setting.id = "now with"
    Engine.run(_limited(setting, 24))
    setting.id = None
    setting.engine().run()
    assert seen(setting, broker.consume) == expected()


def _limited(setting: Setting, limit: int) -> Engine:
    engine = setting.engine()
    engine.limit = limit
    return engine


# -- at least once ---------------------------------------------------------------------------------


def test_at_least_once_repeats_carry_the_position_they_answer(tmp_path: Path) -> None:
    broker, setting = in_memory(tmp_path, "at_least_once")
    setting.killed(25)
    setting.killed(4)
    setting.engine().run()
    found = broker.consume("out")
    assert len(found) > N - 4
    first = {dict(got.headers)["streamlearn-position"]: got.value for got in reversed(found)}
    for got in found:  # a repeat is the same bytes
        assert first[dict(got.headers)["streamlearn-position"]] == got.value
    kept = sorted((json.loads(value or b"") for value in first.values()), key=lambda r: r["event"])
    assert kept == expected()[0]


def test_at_least_once_offsets_follow_each_checkpoint(tmp_path: Path) -> None:
    broker, setting = in_memory(tmp_path, "at_least_once")
    setting.killed(25)
    assert broker.groups[setting.group].committed == {
        ("in", 0): Committed(11, "checkpoint=3"), ("in", 1): Committed(11, "checkpoint=3")
    }  # fmt: skip


def test_a_member_commits_where_there_is_one(tmp_path: Path) -> None:
    broker, setting = in_memory(tmp_path, "at_least_once")
    told: list[Any] = []

    class Member:
        def commit(self, offsets: Any, metadata: str) -> None:
            told.append((dict(offsets), metadata))

    outputs = Outputs(setting.connection, group=setting.group, client=doubles.CLIENT)
    delivery = outputs.delivery(Member())
    assert delivery.begin() is None
    delivery.saved(4, {"labels/in/0": 7})
    delivery.close()
    assert told == [({("in", 0): 7}, "checkpoint=4")]
    assert broker.groups == {}


def test_offsets_are_those_of_partitions() -> None:
    positions = {"events/a/0": 3, "labels/b.c/12": 4, "d/1": 5, "x.csv": {"line": 3}, "e/f": 6}
    assert offsets_of(positions) == {("a", 0): 3, ("b.c", 12): 4, ("d", 1): 5}


# -- over the wire ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["transactions", "at_least_once"])
def test_over_the_wire(
    kind: str, broker: Broker, connection: Connection, topic: Callable[..., str], tmp_path: Path
) -> None:
    topics = [topic(2), topic(2), topic(), topic()]
    setting = Setting(connection, tmp_path, topics, kind)
    for fuse in (25, 4, 10):
        setting.killed(fuse)
    setting.engine().run()
    answers, alarms, dead = seen(setting, lambda name: consume(broker, name))
    if kind == "transactions":
        assert (answers, alarms, dead) == expected()
        assert len(seen(setting, lambda name: consume(broker, name, committed=False))[0]) > N - 4
        return
    once = {record["event"]: record for record in answers}
    assert len(answers) > len(once)
    assert list(once.values()) == expected()[0]
    assert committed(connection, setting) == {(topics[0], k): Committed(20, "") for k in (0, 1)}


def committed(connection: Connection, setting: Setting) -> dict[Partition, Committed]:
    """What the group has committed, without metadata."""
    reader = client_named(connection.client).consumer(
        connection, group=setting.group, keys=False, headers=False
    )
    try:
        found = reader.committed([(setting.source, 0), (setting.source, 1)], 10.0)
    finally:
        reader.close()
    return {partition: one._replace(metadata="") for partition, one in found.items()}


def test_over_the_wire_a_damaged_checkpoint(
    broker: Broker, connection: Connection, topic: Callable[..., str], tmp_path: Path
) -> None:
    topics = [topic(2), topic(2), topic(), topic()]
    setting = Setting(connection, tmp_path, topics, "transactions")
    setting.killed(35, every=5)
    last = max(tmp_path.glob("checkpoint-*"))
    last.write_bytes(last.read_bytes()[:-9])
    setting.engine(every=4).run()
    assert seen(setting, lambda name: consume(broker, name)) == expected()


CONFIG = """
kafka: {{bootstrap: "{broker}", client: {client}, delivery: transactions, group: {name}}}
source: {{topics: [{events}], to: end}}
labels: {{source: {{topics: [{labels}], to: end}}, timeout: 2s}}
schema: {{id: id, target: y, task: regression, features: {{x: number}}}}
pipeline: [Normalizer, KalmanRegressor]
sink: kafka:{out}
dead_letters: kafka:{dead}
checkpoint: {{path: {folder}, every_events: 20}}
"""


def parcels() -> tuple[list[Sent], list[Sent]]:
    """Events and their labels: some too late, some twice, some of nothing; some fit nothing."""
    events = [
        Sent(b"{bad" if i % 31 == 7 else b'{"id": "e%d", "x": %d}' % (i, i * i % 17),
             b"k%d" % (i % 5), T0 + 100 * i, partition=i % 2)
        for i in range(200)
    ]  # fmt: skip
    told = [(100 * i + (5000 if i % 9 == 4 else 700), i) for i in range(200)]
    told += [(100 * i + 900, i) for i in range(0, 200, 13)]
    labels = [
        Sent(b'{"id": "e%d", "y": %d}' % (i, i % 3), b"k%d" % (i % 5), T0 + ms, partition=i % 2)
        for ms, i in sorted(told)
    ]
    return events, labels


T0 = 1_700_000_000_000


def test_the_whole_loop_goes_on_from_damage_without_a_repeat(
    broker: Broker, connection: Connection, topic: Callable[..., str], tmp_path: Path
) -> None:
    """A label that is refused late has an old offset: it is told from a repeat all the same."""
    names = {"events": topic(2), "labels": topic(2)}
    for name, records in zip(names.values(), parcels(), strict=True):
        produce(broker, name, records)

    def config(name: str) -> tuple[Path, str, str]:
        out, dead = topic(2), topic(2)
        file = tmp_path / f"{name}.yaml"
        file.write_text(
            CONFIG.format(
                broker=broker.bootstrap, client=connection.client, name=f"{name}-{out}", out=out,
                dead=dead, folder=tmp_path / name, **names,
            )
        )  # fmt: skip
        return file, out, dead

    def read(*topics: str) -> list[list[tuple[Any, bytes]]]:
        return [
            sorted((got.headers[0][1], got.value or b"") for got in consume(broker, name))
            for name in topics
        ]

    whole, *expected = config("whole")
    runner.run(whole)
    mine, *seen = config("mine")
    for limit in (90, 130):
        runner.run(mine, limit=limit)
        last = max((tmp_path / "mine").glob("checkpoint-*"))
        last.write_bytes(last.read_bytes()[:-9])
    runner.run(mine)
    answers, letters = read(*expected)
    assert len(answers) > 150
    assert len({reason for reason, _ in letters}) > 20
    assert read(*seen) == [answers, letters]
