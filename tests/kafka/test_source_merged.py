"""Partitions of topics as one stream: their order, a crash, partitions that come while it runs."""

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamlearn.connectors.kafka.location import Topics
from streamlearn.connectors.kafka.source import LOOK, KafkaSource
from streamlearn.connectors.kafka.wire import Connection
from streamlearn.contracts import Positions, State
from streamlearn.merging import MergedEvents
from streamlearn.order_log import OrderLog
from streamlearn.schema import Schema
from tests.kafka import doubles
from tests.kafka.broker import Sent
from tests.kafka.doubles import MemoryBroker

NOW = 1_700_000_000_000  # ms
TABLE: dict[str, Any] = {"features": {"c": "category"}, "id": "id", "time": "$timestamp"}


class Run:
    """A merged source, and what it gave: (id, code of the category, topic, number, offset)."""

    def __init__(self, memory: MemoryBroker, path: Path | None, *names: str) -> None:
        self.now = 0.0
        self.schema = Schema.from_config(TABLE)
        topics = Topics(Connection(memory.bootstrap, "memory"), names)
        self.source = KafkaSource(topics, self.schema, clock=lambda: self.now)
        log = None if path is None else OrderLog(path)
        self.merged = MergedEvents(self.source, self.schema, order_log=log)
        self.rows: list[tuple[Any, ...]] = []
        self.rejects: list[Any] = []

    def begin(self, saved: tuple[State, State, Positions] | None = None) -> "Run":
        if saved is not None:
            self.schema.load(saved[0])
            self.merged.load(saved[1])
        self.merged.open({} if saved is None else saved[2])
        return self

    def poll(self, most: int = 1000, times: int = 6) -> "Run":
        for _ in range(times):
            batch = self.merged.poll(most, 0.0)
            if batch is None:
                continue
            self.rejects += batch.rejects
            if batch.origins is None or batch.block.ids is None:
                continue
            origins = batch.origins
            places = [(*origins.partitions[p], int(o))
                      for p, o in zip(origins.partition, origins.offset, strict=True)]  # fmt: skip
            codes = batch.block.X[:, 0].tolist()
            self.rows += [(i, c, *place) for i, c, place in
                          zip(batch.block.ids, codes, places, strict=True)]  # fmt: skip
        return self

    def saved(self) -> tuple[State, State, Positions]:
        return self.schema.state(), self.merged.state(), self.merged.positions


def sent(i: int, at: int, partition: int, text: str = "u") -> Sent:
    return Sent(b'{"id": %d, "c": "%s"}' % (i, text.encode()), None, NOW + at, partition=partition)


def test_partitions_and_topics_go_by_time_then_by_name(memory: MemoryBroker) -> None:
    memory.create("b", 2)
    memory.create("a", 1)
    memory.produce("b", [sent(1, 30, 0), sent(2, 10, 0), sent(3, 40, 0), sent(4, 20, 1),
                         sent(5, 30, 1), sent(6, 50, 1)])  # fmt: skip
    memory.produce("a", [sent(7, 30, 0), sent(8, 60, 0)])
    run = Run(memory, None, "b", "a").begin().poll()
    assert [row[0] for row in run.rows] == [4, 7, 1, 2, 5, 3, 6, 8]  # 2 counts as 30, after 1


def test_categories_get_their_codes_in_merged_order(memory: MemoryBroker) -> None:
    memory.create("t", 2)
    memory.produce("t", [sent(0, 10, 0, "z"), sent(1, 40, 0, "y"), sent(2, 20, 1, "x"),
                         sent(3, 30, 1, "z"), sent(4, 50, 1, "w")])  # fmt: skip
    run = Run(memory, None, "t").begin().poll(most=2)
    assert [row[:2] for row in run.rows] == [(0, 0.0), (2, 1.0), (3, 0.0), (1, 2.0), (4, 3.0)]
    assert run.schema.columns.categories["c"].values == ["z", "x", "y", "w"]


def test_a_partition_that_is_added_has_its_place_after_a_crash(
    memory: MemoryBroker, tmp_path: Path
) -> None:
    """Two topics, so that the new lane stands elsewhere when the source is opened again."""
    memory.create("a", 1)
    memory.create("b", 1)
    path = tmp_path / "order.log"
    memory.produce("a", [sent(0, 10, 0)])
    memory.produce("b", [sent(1, 20, 0)])
    run = Run(memory, path, "a", "b").begin().poll()
    before = run.saved()
    doubles.CLIENT.admin(Connection(memory.bootstrap)).extend("a", 2)
    memory.produce("a", [sent(2, 5, 1), sent(3, 30, 0), sent(4, 40, 1)])
    memory.produce("b", [sent(5, 35, 0)])
    run.now = LOOK
    run.poll()
    assert sorted(row[0] for row in run.rows) == [0, 1, 2, 3, 4, 5]
    assert {row[0]: row[2:] for row in run.rows}[4] == ("a", 1, 1)
    after, seen = run.saved(), run.rows
    memory.produce("a", [sent(6, 50, 1)])
    run.merged.close()
    for saved, start in ((before, 2), (after, 6), (None, 0)):
        copy = tmp_path / f"{start}.log"
        copy.write_bytes(path.read_bytes())
        again = Run(memory, path if saved else copy, "a", "b")
        if saved is None:
            again.merged = MergedEvents(
                again.source, again.schema, order_log=OrderLog(copy, replay=True)
            )
        again.begin(saved).poll()
        assert again.rows[: 6 - start] == seen[start:]
        if saved is not None:
            assert [row[0] for row in again.rows[6 - start :]] == [6]
        again.merged.close()
        path.write_bytes(copy.read_bytes())


@given(st.data())
@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_whatever_comes_when_a_run_that_recovers_gives_the_same(
    memory: MemoryBroker, tmp_path: Path, data: st.DataObject
) -> None:
    """Records, poisoned ones too, arrive at will; the run is cut short and goes on elsewhere."""
    n, name = data.draw(st.integers(1, 3)), f"t{len(memory.topics)}"
    memory.create(name, n)
    path = tmp_path / f"{name}.log"
    run = Run(memory, path, name).begin()
    saved, kept = run.saved(), 0
    for i in range(data.draw(st.integers(1, 25))):
        at, number = data.draw(st.integers(0, 40)), data.draw(st.integers(0, n - 1))
        text = data.draw(st.sampled_from(["u", "v", "w"]))
        bad = data.draw(st.integers(0, 5)) == 0
        record = sent(i, at, number, text)
        memory.produce(name, [record._replace(value=b"?") if bad else record])
        memory.held = {(name, k) for k in range(n) if data.draw(st.integers(0, 4)) == 0}
        if data.draw(st.booleans()):
            run.poll(data.draw(st.integers(1, 5)), 1)
        if data.draw(st.integers(0, 5)) == 0:
            saved, kept = run.saved(), len(run.rows)
    run.merged.close()
    memory.held = set()
    again = Run(memory, path, name).begin(saved).poll(data.draw(st.integers(1, 5)), 80)
    assert again.rows[: len(run.rows) - kept] == run.rows[kept:]
    whole = Run(memory, None, name)
    whole.merged = MergedEvents(whole.source, whole.schema, order_log=OrderLog(path, replay=True))
    whole.begin().poll(1000, 80)
    assert whole.rows == run.rows[:kept] + again.rows
    assert whole.schema.state().table == again.schema.state().table
    offsets = sorted((row[3], row[4]) for row in whole.rows)
    refused = sorted((int(r.partition.split("/")[1]), r.position) for r in whole.rejects)
    wanted = [(k, i) for k, log in enumerate(memory.topics[name]) for i in range(len(log.records))]
    assert sorted(offsets + refused) == wanted
    again.merged.close()
    whole.merged.close()
