"""The merge of lanes: partitions that hold each other until they are caught up, and the log."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.contracts import Batch, Source
from streamlearn.errors import UserError
from streamlearn.label_join import JoinedLabels
from streamlearn.merging import MergedEvents
from streamlearn.order_log import OrderLog
from streamlearn.schema import LabelSchema, Schema
from streamlearn.testing import SettableClock, assert_same_state, through_json
from tests.lanes import MemoryLanes, Record

SCHEMA: dict[str, Any] = {"features": {"x": {"kind": "number"}}, "id": "id", "time": "t"}


def records(times: list[int], first: float, holes: bool = False) -> list[Record]:
    """Ids and values count from `first`; with holes, every third offset is one without a record."""
    return [
        Record(i + (i // 2 if holes else 0), t, first + i, int(first) + i)
        for i, t in enumerate(times)
    ]


def events_of(source: MemoryLanes, log: OrderLog | None = None, **options: Any) -> MergedEvents:
    return MergedEvents(source, Schema(**SCHEMA), order_log=log, **options)


def polled(source: Source, sizes: list[int], polls: int = 10_000) -> list[Batch]:
    out: list[Batch] = []
    for k in range(polls):
        if source.finished:
            break
        batch = source.poll(sizes[k % len(sizes)], 0.01)
        if batch is not None:
            out.append(batch)
    return out


def values(batches: list[Batch]) -> list[float]:
    return [x for batch in batches for x in batch.block.X[:, 0].tolist()]


def naive_order(lanes: dict[str, list[Record]]) -> list[float | None]:
    """By running maximum of time, topic, partition number, place."""
    keyed = []
    for name, some in lanes.items():
        topic, number = name.split("/")
        clock = -math.inf
        for place, record in enumerate(some):
            clock = max(clock, record.time)
            keyed.append((clock, topic, int(number), place, record.value))
    return [value for *_, value in sorted(keyed)]


TIMES = st.lists(st.integers(0, 12), max_size=20)
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def lanes_of(times: list[list[int]], topics: int = 2) -> dict[str, list[Record]]:
    """Partitions of some topics, in an order that is not theirs, with numbers of two digits."""
    names = [f"{'ba'[i % topics]}/{9 + i // topics}" for i in range(len(times))]
    return {name: records(some, 1000.0 * i, True)
            for i, (name, some) in enumerate(zip(names, times, strict=True))}  # fmt: skip


@given(st.lists(TIMES, min_size=1, max_size=5), SIZES)
def test_lanes_go_by_time_then_topic_then_number(times: list[list[int]], sizes: list[int]) -> None:
    lanes = lanes_of(times)
    source = events_of(MemoryLanes(lanes))
    source.open({})
    batches = polled(source, sizes)
    assert values(batches) == naive_order(lanes)
    where = [f"{o.partitions[p][0]}/{o.partitions[p][1]} {at}"
             for o in (batch.origins for batch in batches) if o is not None
             for p, at in zip(o.partition.tolist(), o.offset.tolist(), strict=True)]  # fmt: skip
    named = {r.value: f"{name} {r.offset}" for name, some in lanes.items() for r in some}
    assert where == [named[value] for value in values(batches)]


def arriving(rng: np.random.Generator, unheard: float) -> Any:
    """Some more of each lane comes at each look; now and then an end is not known yet."""

    def arrive(source: MemoryLanes) -> None:
        for lane in source.lanes:
            lane.heard = bool(rng.random() > unheard)
            if rng.random() < 0.5:
                lane.there = min(len(lane.records), lane.there + int(rng.integers(0, 4)))

    return arrive


@given(st.lists(TIMES, min_size=2, max_size=4), SIZES, st.integers(0, 2**32 - 1))
def test_a_lane_that_is_behind_holds_the_others(
    times: list[list[int]], sizes: list[int], seed: int
) -> None:
    """However the records come: as long as no end is reported, the order is that of the data."""
    lanes = lanes_of(times)
    source = events_of(MemoryLanes(lanes, arriving(np.random.default_rng(seed), 1.0)))
    source.open({})
    assert values(polled(source, sizes)) == naive_order(lanes)


@settings(max_examples=60)
@given(
    times=st.lists(TIMES, min_size=2, max_size=4), sizes=SIZES, others=SIZES,
    seed=st.integers(0, 2**32 - 1), at=st.integers(0, 30), bad=st.booleans(),
)  # fmt: skip
def test_the_log_of_any_schedule_gives_its_rows_again(
    times: list[list[int]], sizes: list[int], others: list[int], seed: int, at: int, bad: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    """Live, after a crash at any point, and as a replay; the state at the end is the same too."""
    lanes = lanes_of(times)
    if bad:
        lanes = {name: [r._replace(value=None) if r.offset % 5 == 3 else r for r in some]
                 for name, some in lanes.items()}  # fmt: skip
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("log") / "order.log"
    live = events_of(MemoryLanes(lanes, arriving(rng, 0.3)), OrderLog(path))
    live.open({})
    head = polled(live, sizes, polls=at)
    state, positions = through_json(live.state()), dict(head[-1].positions) if head else {}
    lost = polled(live, sizes, polls=10)
    live.close()
    again = events_of(MemoryLanes(lanes, arriving(rng, 0.5)), OrderLog(path))
    again.load(state)
    again.open(positions)
    tail = polled(again, others)
    again.close()
    assert values(tail)[: len(values(lost))] == values(lost)
    replay = events_of(MemoryLanes(lanes), OrderLog(path, replay=True))
    replay.open({})
    whole = polled(replay, others)
    assert values(whole) == values([*head, *tail])
    assert_same_state(replay.state(), again.state())
    expected = sorted(r.value for some in lanes.values() for r in some if r.value is not None)
    assert sorted(values(whole)) == expected


def rejected(batches: list[Batch]) -> list[tuple[str, int]]:
    return [(reject.partition, reject.position) for batch in batches for reject in batch.rejects]


def test_records_that_do_not_fit_stand_where_they_stood() -> None:
    lanes = {
        "t/0": [Record(0, 1, 0.0), Record(1, 2, None), Record(2, 5, 2.0), Record(3, 6, None)],
        "t/1": [Record(0, 3, 10.0), Record(1, 4, None), Record(2, 4, 12.0)],
        "t/2": [Record(0, 9, None)],
    }
    for sizes in ([1], [9]):
        source = events_of(MemoryLanes(lanes))
        source.open({})
        batches = polled(source, sizes)
        assert values(batches) == [0.0, 10.0, 12.0, 2.0]
        assert rejected(batches) == [("t/2", 0), ("t/1", 1), ("t/0", 1), ("t/0", 3)]


def test_a_lane_that_is_caught_up_holds_nobody() -> None:
    lanes = {"t/0": records([1, 2, 3, 4], 0.0), "t/1": records([2, 5], 100.0)}
    came: list[tuple[int, int]] = [(3, 1), (3, 1), (4, 1), (4, 1), (4, 2)]

    def arrive(source: MemoryLanes) -> None:
        now = came.pop(0) if came else (4, 2)
        for lane, n in zip(source.lanes, now, strict=True):
            lane.there = n

    memory = MemoryLanes(lanes, arrive, bounded=False)
    source = events_of(memory)
    source.open({})
    got = [None if (b := source.poll(9, 0.0)) is None else values([b]) for _ in range(6)]
    assert got == [[0.0, 1.0, 100.0], [2.0], [3.0], None, [101.0], None]
    assert not source.finished


def test_a_partition_that_is_added_is_taken_in_and_named_in_the_log(tmp_path: Path) -> None:
    """Its records go at once, however old they are; at equal times it goes by its number."""
    path = tmp_path / "order.log"
    lanes = {"t/0": records([1, 5, 6], 0.0), "t/2": records([5, 6], 200.0)}
    new = records([2, 3, 6], 100.0)
    there = [2, 0]

    def arrive(source: MemoryLanes) -> None:
        if len(source.waits) > 3 and len(source.lanes) == 2:
            source.add("t/1", new)
            there[:] = [3, 2, 3]
        for lane, n in zip(source.lanes, there, strict=True):
            lane.there = n

    live = events_of(MemoryLanes(lanes, arrive), OrderLog(path))
    live.open({})
    order = values(polled(live, [9]))
    live.close()
    assert order == [0.0, 1.0, 100.0, 101.0, 200.0, 2.0, 102.0, 201.0]
    for names in (["t/0", "t/2", "t/1"], ["t/0", "t/1", "t/2"]):
        memory = MemoryLanes({name: {**lanes, "t/1": new}[name] for name in names})
        again = events_of(memory, OrderLog(path, replay=True))
        again.open({})
        assert values(polled(again, [3])) == order
        again.close()


def test_other_records_than_those_of_the_log_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "order.log"
    live = events_of(MemoryLanes({"t/0": records([1, 2, 3], 0.0, True)}), OrderLog(path))
    live.open({})
    polled(live, [1])
    live.close()
    source = events_of(MemoryLanes({"t/0": records([1, 2, 3], 0.0)}), OrderLog(path, replay=True))
    source.open({})
    with pytest.raises(UserError, match=r"^events/t/0: row 2 has the offset 2, but the order log "
                       r"says 3; give the data and the schema of that run$"):  # fmt: skip
        polled(source, [9])
    source.close()


def test_lanes_of_a_log_that_are_gone_are_refused(tmp_path: Path) -> None:
    log = OrderLog(tmp_path / "order.log")
    live = events_of(MemoryLanes({"t/0": [], "t/1": []}), log)
    live.open({})
    live.close()
    other = events_of(MemoryLanes({"t/0": []}), OrderLog(tmp_path / "order.log", replay=True))
    with pytest.raises(UserError, match="is of the inputs events/t/0, events/t/1, got events/t/0"):
        other.open({})


def test_an_idle_limit_lets_go_of_a_lane_that_is_behind(caplog: pytest.LogCaptureFixture) -> None:
    """Without one it holds the others for ever: an outage does not change the order."""
    clock = SettableClock()

    def arrive(source: MemoryLanes) -> None:
        clock.sleep(source.waits[-1])
        source.lanes[0].there, source.lanes[1].heard = 2, False

    lanes = {"t/0": records([1, 2], 0.0), "t/1": records([1], 100.0)}
    for idle, rows in ((1.0, [0.0, 1.0]), (math.inf, [])):
        source = events_of(MemoryLanes(lanes, arrive), idle=idle, clock=clock)
        source.open({})
        assert values(polled(source, [9], polls=300)) == rows
    assert caplog.messages == [
        "events/t/1: nothing for 1 s; the others go on without it (told once)"
    ]


def joined(
    events: MemoryLanes, labels: MemoryLanes, log: OrderLog | None = None, **options: Any
) -> JoinedLabels:
    es = Schema(**SCHEMA)
    ls = LabelSchema(target="y", task="regression", id="id", time="t")
    return JoinedLabels(events, labels, es, ls, order_log=log, **options)


def two_topics(seed: int) -> tuple[dict[str, list[Record]], dict[str, list[Record]]]:
    """Events of two partitions and their labels on two others: some early, twice, of nobody."""
    rng = np.random.default_rng(seed)
    events: dict[str, list[Record]] = {"e/0": [], "e/1": []}
    labels: dict[str, list[Record]] = {"l/0": [], "l/1": []}
    told = []
    for i in range(60):
        name = f"e/{int(rng.integers(0, 2))}"
        events[name].append(Record(2 * len(events[name]), i, float(i), i))
        times = range(int(rng.choice([0, 1, 1, 1, 2])))
        told += [(i + int(rng.integers(-3, 15)), i if rng.random() < 0.95 else 1000 + i)
                 for _ in times]  # fmt: skip
    for t, i in sorted(told):
        name = f"l/{int(rng.integers(0, 2))}"
        labels[name].append(Record(3 * len(labels[name]), t, 0.0, i, 0.5 * i))
    return events, labels


def rows_of(batches: list[Batch]) -> list[Any]:
    """Mode, number of the event and label of each row."""
    out: list[Any] = []
    for batch in batches:
        block = batch.block
        assert block.events is not None
        y = [None if v != v else v for v in block.y.tolist()]
        out += zip(block.mode.tolist(), block.events.tolist(), y, strict=True)
    return out


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), sizes=SIZES, others=SIZES, at=st.integers(0, 40))
def test_labels_on_lanes_are_joined_and_replayed_to_the_same_rows(
    seed: int, sizes: list[int], others: list[int], at: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    events, labels = two_topics(seed % 20)
    path = tmp_path_factory.mktemp("log") / "order.log"
    rng = np.random.default_rng(seed)
    how: dict[str, Any] = {"timeout": "10s"} if seed % 3 else {}

    def source(log: OrderLog, live: bool) -> JoinedLabels:
        come = arriving(rng, 0.5) if live else None
        return joined(MemoryLanes(events, come), MemoryLanes(labels, come), log, **how)

    live = source(OrderLog(path), True)
    live.open({})
    head = polled(live, sizes, polls=at)
    state, positions = through_json(live.state()), dict(head[-1].positions) if head else {}
    polled(live, sizes, polls=5)
    live.close()
    again = source(OrderLog(path), True)
    again.load(state)
    again.open(positions)
    tail = polled(again, others)
    again.close()
    replay = source(OrderLog(path, replay=True), False)
    replay.open({})
    whole = polled(replay, others)
    assert rows_of(whole) == rows_of([*head, *tail])
    assert sorted(rejected(whole)) == sorted(rejected([*head, *tail]))
    assert {name[:2] for name, _ in rejected(whole)} <= {"l/"}
    assert again.report()["events"] == 60
    origins = [batch.origins for batch in whole if batch.origins is not None]
    assert sum(o.offset.shape[0] for o in origins) == 60
    ids = {(name, r.offset): r.id for name, some in events.items() for r in some}
    for batch in whole:
        if (o := batch.origins) is not None:
            names = [f"{o.partitions[p][0]}/{o.partitions[p][1]}" for p in o.partition]
            told = [ids[key] for key in zip(names, o.offset.tolist(), strict=True)]
            assert batch.block.ids is not None
            assert batch.block.ids[batch.block.mode & 5 > 0].tolist() == told


def test_in_catch_up_labels_are_learnt_between_the_events_that_surrounded_them() -> None:
    """Not after all events that are there."""
    events = {"e/0": [Record(i, 10 * i, float(i), i) for i in range(200)]}
    labels = {"l/0": [Record(i, 10 * i + 25, 0.0, i, 1.0) for i in range(200)]}
    source = joined(MemoryLanes(events), MemoryLanes(labels))
    source.open({})
    numbers = [number for _, number, _ in rows_of(polled(source, [64]))]
    assert numbers[:8] == [0, 1, 2, 0, 3, 1, 4, 2]
