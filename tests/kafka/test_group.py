"""Runs with a model for each partition, in memory: nothing lost, nothing learnt twice."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.archive import read_archive
from streamlearn.config import Config, check
from streamlearn.connectors import kafka
from streamlearn.connectors.kafka.wire import AbortedError, BrokerError
from streamlearn.errors import UserError
from streamlearn.group import GroupRun, Part
from streamlearn.lineages import Lineages
from streamlearn.partitions import refuse_lineages
from streamlearn.testing import SettableClock
from tests.kafka import doubles
from tests.kafka.broker import Got, Sent
from tests.kafka.doubles import MemoryBroker, MemoryMember

PARTITIONS, EVENTS = 3, 30  # of each
KEPT = ("pipeline", "evaluation", "schema", "labels", "events", "counters")


@pytest.fixture(scope="module", autouse=True)
def in_memory() -> Iterator[None]:
    """Nothing here pulls the plug; the client `memory` is known in all of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setitem(kafka._CLIENTS, "memory", ("memory", "dev"))
        patch.setitem(sys.modules, "streamlearn.connectors.kafka.memory", doubles)
        yield


def fill(memory: MemoryBroker, events: range, numbers: range = range(PARTITIONS)) -> None:
    """Events, and their labels, which come five events later; one label never comes."""
    for number in numbers:
        rng = np.random.default_rng(number)
        for i in range(events.stop):
            x, seconds = float(rng.normal()), 1000 * i
            name = f"e{number}-{i}"
            if i in events:
                event = json.dumps({"id": name, "x": x}).encode()
                label = json.dumps({"id": name, "y": 2 * x + number}).encode()
                memory.produce("events", [Sent(event, b"%d" % number, seconds, (), number)])
                if i != 7:
                    memory.produce("labels", [Sent(label, None, seconds + 5500, (), number)])


def topics(memory: MemoryBroker, partitions: int = PARTITIONS) -> MemoryBroker:
    for name in ("events", "labels", "predictions"):
        memory.create(name, partitions)
    return memory


def config_of(memory: MemoryBroker, folder: Path, **kafka: Any) -> Config:
    """A member of the group `fraud`; checkpoints are frequent, blocks are small."""
    section = {"bootstrap": memory.bootstrap, "mode": "group", "group": "fraud"} | kafka
    config = check(
        {
            "kafka": section,
            "source": "kafka:events",
            "labels": {"source": "kafka:labels", "timeout": "20s"},
            "schema": {
                "features": {"x": "number"},
                "target": "y",
                "task": "regression",
                "id": "id",
            },
            "pipeline": ["KalmanHead"],
            "sink": "kafka:predictions",
            "checkpoint": {"path": str(folder), "every_events": 11},
            "engine": {"block_rows": 4},
        }
    )
    assert config.kafka is not None
    return config.model_copy(update={"kafka": config.kafka.model_copy(update={"client": "memory"})})


class Process:
    """A member of the group that the test steps by hand."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.start()

    def start(self) -> None:
        self.run = GroupRun(self.config)
        self.lineages: Lineages = self.run.open()
        self.lineages.clock = self.clock = SettableClock()
        self.lineages.membership.subscribe(["events"], self.lineages)

    @property
    def member(self) -> MemoryMember:
        assert isinstance(self.lineages.membership, MemoryMember)
        return self.lineages.membership

    def rounds(self, n: int = 1) -> None:
        for _ in range(n):
            self.clock.sleep(1.0)
            self.lineages.step()

    def until_idle(self) -> None:
        """Until nothing was ready for two rounds; back-offs end."""
        self.clock.sleep(60.0)
        self.rounds(3)
        while any(one.engine and not one.engine.idle for one in self.lineages.owned.values()):
            self.rounds()

    def leave(self) -> None:
        """In good order."""
        self.lineages._finished()
        self.member.close()
        self.run.close()

    def crash(self) -> None:
        """kill -9: the system lets go of locks, the broker of the member."""
        self.lineages._drop_all()
        self.member.owned = set()
        if self.member in self.member._group.members:
            self.member._group.members.remove(self.member)


class Left(NamedTuple):
    """What runs left behind: of each partition state and metrics, and the answers, each once."""

    states: list[Any]
    answers: dict[bytes, bytes | None]

    def __repr__(self) -> str:
        return f"{len(self.answers)} answers"


def left(memory: MemoryBroker, folder: Path, partitions: int = PARTITIONS) -> Left:
    states = [state(folder / f"partition-{number}") for number in range(partitions)]
    return Left(states, each_once(memory.consume("predictions")))


def state(folder: Path) -> Any:
    """Of the last checkpoint, in plain values that can be compared."""
    arrays, table = read_archive(sorted(folder.glob("checkpoint-*.safetensors"))[-1])
    kept = {name: table[name] for name in KEPT if name in table}
    plain = {name: (a.shape, a.dtype.str, a.tobytes()) for name, a in arrays.items()}
    return plain, kept, table["sources"]


def each_once(records: list[Got]) -> dict[bytes, bytes | None]:
    """Answers by the position they are about; a repeat must be the same."""
    found: dict[bytes, bytes | None] = {}
    for record in records:
        position = dict(record.headers)["streamlearn-position"] or b""
        assert found.setdefault(position, record.value) == record.value
    return found


def quiet(folder: Path) -> Left:
    """One member from beginning to end."""
    memory = topics(MemoryBroker())
    fill(memory, range(EVENTS))
    alone = Process(config_of(memory, folder))
    alone.until_idle()
    alone.leave()
    return left(memory, folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Left:
    return quiet(tmp_path_factory.mktemp("quiet"))


def test_each_partition_has_its_own_model(memory: MemoryBroker, tmp_path: Path) -> None:
    """Its answers are those of a topic with that partition alone."""
    topics(memory)
    fill(memory, range(EVENTS))
    alone = Process(config_of(memory, tmp_path / "all"))
    alone.until_idle()
    alone.leave()
    for number in range(PARTITIONS):
        single = topics(MemoryBroker(), PARTITIONS)
        fill(single, range(EVENTS), range(number, number + 1))
        one = Process(config_of(single, tmp_path / str(number)))
        one.until_idle()
        one.leave()
        name = f"partition-{number}"
        assert state(tmp_path / str(number) / name) == state(tmp_path / "all" / name)
        mine = {r.value for r in memory.consume("predictions") if r.partition == number}
        assert mine == {r.value for r in single.consume("predictions") if r.partition == number}
        assert len(mine) == EVENTS


def test_a_member_joins_and_leaves_in_mid_stream(
    memory: MemoryBroker, tmp_path: Path, undisturbed: Left
) -> None:
    topics(memory)
    fill(memory, range(EVENTS))
    one = Process(config_of(memory, tmp_path))
    one.rounds(4)
    two = Process(config_of(memory, tmp_path))
    for _ in range(3):
        one.rounds()
        two.rounds()
    assert sorted(one.lineages.owned) == [0, 2]
    assert sorted(two.lineages.owned) == [1]
    assert two.lineages.owned[1].engine is not None
    assert two.lineages.owned[1].engine.resumed_at > 0
    two.leave()
    one.until_idle()
    one.leave()
    assert left(memory, tmp_path) == undisturbed


STEPS = st.lists(
    st.tuples(st.sampled_from(["step", "step", "join", "leave", "evict", "crash", "abort"]),
              st.integers(0, 2)),
    max_size=25,
)  # fmt: skip


@pytest.mark.parametrize("delivery", ["at_least_once", "transactions"])
@settings(max_examples=10)
@given(steps=STEPS)
def test_whatever_a_group_goes_through_state_and_answers_are_the_same(
    undisturbed: Left, delivery: str, steps: list[tuple[str, int]]
) -> None:
    """With transactions a read-committed reader sees each answer once."""
    broker = topics(MemoryBroker())
    fill(broker, range(EVENTS))
    with TemporaryDirectory() as place:
        config = config_of(broker, Path(place), delivery=delivery)
        group = [Process(config)]
        for step, which in steps:
            go_through(broker, group, config, step, which)
        broker.forgive()
        while len(group) > 1:
            group.pop().leave()
        if not group:
            group.append(Process(config))
        group[0].until_idle()
        group[0].leave()
        assert left(broker, Path(place)) == undisturbed
        if delivery == "transactions":
            assert len(broker.consume("predictions")) == PARTITIONS * EVENTS


def go_through(
    broker: MemoryBroker, group: list[Process], config: Config, step: str, which: int
) -> None:
    if step == "join" and len(group) < 3:
        group.append(Process(config))
    elif step == "abort" and config.kafka and config.kafka.delivery == "transactions":
        broker.fail("commit", AbortedError("the broker gave up"))
    if not group or step in ("join", "abort"):
        return
    one = group[which % len(group)]
    if step == "step":
        one.rounds(2)
    elif step == "evict":
        one.member.evict()
    else:
        group.remove(one)
        one.leave() if step == "leave" else one.crash()


def test_partitions_that_are_added_begin_anew_when_their_labels_can_come(
    memory: MemoryBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topics(memory, 2)
    fill(memory, range(10), range(2))
    config = config_of(memory, tmp_path)
    assert not isinstance(config.source, str | None)
    late = config.source.model_copy(update={"start": "latest"})
    one = Process(config.model_copy(update={"source": late}))
    one.rounds(3)
    MemoryBroker.at(memory.bootstrap)
    memory.topics["events"].append(type(memory.topics["events"][0])())
    memory.topics["predictions"].append(type(memory.topics["events"][0])())
    memory.produce("events", [Sent(b'{"id": "new", "x": 1.0}', None, 1000, (), 2)])
    one.rounds(3)
    assert "labels has 2 partitions, none for it" in one.lineages.owned[2].waits_for
    memory.topics["labels"].append(type(memory.topics["events"][0])())
    one.until_idle()
    assert one.lineages.owned[2].engine is not None
    assert one.lineages.owned[2].engine.events == 1  # from its beginning
    assert one.lineages.owned[0].engine is not None
    assert one.lineages.owned[0].engine.events == 0  # from the end, as the configuration says
    assert "partition 2: was added; begins with a fresh model" in caplog.text
    one.leave()
    again = Process(one.config)
    again.until_idle()
    assert again.lineages.owned[2].engine is not None
    assert again.lineages.owned[2].engine.resumed_at == 1
    again.leave()


def test_topics_must_have_as_many_partitions(memory: MemoryBroker, tmp_path: Path) -> None:
    memory.create("events", 3)
    memory.create("labels", 2)
    with pytest.raises(UserError, match=r"events has 3, labels has 2; .* mode: assign"):
        GroupRun(config_of(memory, tmp_path)).open()


def test_a_topic_that_is_not_there_is_named(memory: MemoryBroker, tmp_path: Path) -> None:
    memory.create("events", 3)
    with pytest.raises(BrokerError, match="labels"):
        GroupRun(config_of(memory, tmp_path)).open()


def test_a_folder_that_others_do_not_share_is_refused(memory: MemoryBroker, tmp_path: Path) -> None:
    topics(memory)
    fill(memory, range(EVENTS))
    one = Process(config_of(memory, tmp_path / "here"))
    one.until_idle()
    one.leave()
    elsewhere = Process(config_of(memory, tmp_path / "elsewhere"))
    with pytest.raises(UserError, match=r"partition-0: holds no checkpoint, but the group"):
        elsewhere.until_idle()


def test_folders_of_one_model_and_of_many_are_not_mixed(
    memory: MemoryBroker, tmp_path: Path
) -> None:
    topics(memory)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "checkpoint-0000000001.safetensors").touch()
    with pytest.raises(UserError, match="holds checkpoints of one model over all partitions"):
        GroupRun(config_of(memory, tmp_path / "one")).open()
    GroupRun(config_of(memory, tmp_path / "many")).open()
    with pytest.raises(UserError, match="holds lineages, a model for each partition"):
        refuse_lineages(tmp_path / "many")
    refuse_lineages(tmp_path / "one")


def test_a_folder_of_other_topics_is_refused(memory: MemoryBroker, tmp_path: Path) -> None:
    topics(memory)
    GroupRun(config_of(memory, tmp_path)).open()
    (tmp_path / "lineages.json").write_text('{"topics": ["clicks"], "partitions": 3}')
    with pytest.raises(UserError, match="holds lineages of clicks, not of events, labels"):
        GroupRun(config_of(memory, tmp_path)).open()
    (tmp_path / "lineages.json").write_text("{")
    with pytest.raises(UserError, match=r"lineages\.json: is damaged"):
        GroupRun(config_of(memory, tmp_path)).open()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"source": "events.csv", "labels": None}, "workers: must be lineages of topics"),
        ({"labels": "labels.csv"}, r"labels.source: must be topics .* got 'labels.csv'"),
        ({"checkpoint": None}, "checkpoint: must be there where each partition"),
        ({"engine": {"pace": 100.0}}, "engine.pace: is for one model"),
    ],
)
def test_what_does_not_fit_lineages_is_refused(
    memory: MemoryBroker, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    plain = config_of(memory, tmp_path).model_dump(by_alias=True, exclude_unset=True)
    plain["kafka"] |= {"mode": "assign", "client": "confluent"}
    with pytest.raises(UserError, match=message):
        GroupRun(check(plain | wrong), Part(0, 2))


def test_workers_have_fixed_shares(memory: MemoryBroker, tmp_path: Path, undisturbed: Left) -> None:
    topics(memory)
    fill(memory, range(EVENTS))
    config = config_of(memory, tmp_path, mode="assign")
    runs = [GroupRun(config, Part(i, 2)) for i in (0, 1)]
    for run in runs:
        lineages = run.open()
        lineages.membership.subscribe(["events"], lineages)
        for _ in range(60):
            lineages.step()
        lineages._finished()
    assert [sorted(run.jobs) for run in runs] == [[0, 2], [1]]
    assert left(memory, tmp_path) == undisturbed
    assert memory.group("fraud").committed["events", 1].offset == EVENTS
