"""Recordings of topics: what was written is read back, as it was and in its order."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn.block import NO_TIME
from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.tape import (
    Taken,
    TapeConsumer,
    TapeWriter,
    batches,
    is_tape,
    manifest_of,
    part_of,
)
from streamlearn.connectors.kafka.wire import BrokerError, Connection, Headers
from streamlearn.errors import UserError

MS = 10**6


def taken(role: str, topic: str, number: int, offsets: Sequence[int], **more: Any) -> Taken:
    """Records with values that name them."""
    n = len(offsets)
    values = [f"{topic}/{number}/{offset}".encode() for offset in offsets]
    return Taken(
        [(role, topic, number)],
        np.zeros(n, np.intp),
        np.array(offsets, np.int64),
        np.array([1000 * MS * offset for offset in offsets], np.int64),
        more.get("values", values),
        more.get("keys", [None] * n),
        more.get("headers", [[] for _ in offsets]),
        np.array(more.get("fits", [True] * n)),
    )


def tape(folder: Path, *parts: Sequence[Taken]) -> Path:
    """A recording with these parts."""
    writer = TapeWriter(folder)
    for part in parts:
        for one in part:
            writer.write(one)
        writer.commit(None)
    writer.close()
    return folder


def everything(consumer: TapeConsumer) -> dict[tuple[str, int], list[int]]:
    """Offsets of all that comes, by partition."""
    found: dict[tuple[str, int], list[int]] = {}
    while records := consumer.fetch(100, 0.0):
        for one in records:
            found.setdefault(one.partition, []).extend(one.offsets.tolist())
    return found


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    headers: list[Headers] = [[("a", b"\xff"), ("a", None)], [], [("ä", b"")]]
    given = taken(
        "events", "e", 1, [7, 9, 12],
        keys=[b"\x00k", None, b""], values=[b"\xff{", None, b""], headers=headers,
        fits=[True, False, False],
    )  # fmt: skip
    given.times[1] = NO_TIME
    consumer = TapeConsumer(tape(tmp_path / "tape", [given]))
    consumer.assign({("e", 1): 0})
    (back,) = consumer.fetch(100, 0.0)
    assert back.partition == ("e", 1)
    assert back.offsets.tolist() == [7, 9, 12]
    assert back.times.tolist() == [7000 * MS, NO_TIME, 12_000 * MS]
    assert (back.values, back.keys, back.headers) == (
        [b"\xff{", None, b""],
        [b"\x00k", None, b""],
        headers,
    )
    fits = [row for batch in batches(tmp_path / "tape", ["fits"]) for row in batch[0].to_pylist()]
    assert fits == [True, False, False]


@settings(max_examples=40)
@given(
    runs=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5), st.booleans()), max_size=30),
    start=st.integers(0, 9),
)
def test_every_partition_comes_whole_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int, int, bool]], start: int
) -> None:
    """Runs of three partitions over several parts, read from some offset on."""
    writer = TapeWriter(tmp_path_factory.mktemp("tape") / "t")
    ends = [0, 0, 0]
    for number, n, cut in runs:
        writer.write(taken("events", "e", number, range(ends[number], ends[number] + n)))
        ends[number] += n
        if cut:
            writer.commit(None)
    writer.commit(None)
    consumer = TapeConsumer(writer.folder)
    consumer.assign({("e", number): start for number in range(3)})
    got = everything(consumer)
    assert got == {("e", k): list(range(start, end)) for k, end in enumerate(ends) if end > start}
    assert all(consumer.caught_up(("e", number)) for number in range(3))
    assert consumer.ends([("e", 0), ("e", 2)], 0.0) == {("e", 0): ends[0], ("e", 2): ends[2]}


def test_partitions_that_alternate_are_told_apart(tmp_path: Path) -> None:
    places = [("events", "e", 0), ("labels", "l", 4), ("events", "e", 2)]
    place, offsets = np.array([2, 0, 1, 2, 0]), np.array([5, 1, 9, 6, 3])
    values = [b"%d" % offset for offset in offsets]
    nothing: list[Headers] = [[]] * 5
    one = Taken(places, place, offsets, offsets * MS, values, values, nothing, np.ones(5, bool))
    folder = tape(tmp_path / "t", [one])
    read = [tuple(row.values()) for batch in batches(folder, ["role", "partition", "key"])
            for row in batch.to_pylist()]  # fmt: skip
    assert read == [("events", 2, b"5"), ("events", 0, b"1"), ("labels", 4, b"9"),
                    ("events", 2, b"6"), ("events", 0, b"3")]  # fmt: skip
    assert manifest_of(folder).extents == (
        ("events", "e", 0, 1, 4), ("events", "e", 2, 5, 7), ("labels", "l", 4, 9, 10),
    )  # fmt: skip


def test_the_order_is_that_of_writing_over_all_topics(tmp_path: Path) -> None:
    folder = tape(
        tmp_path / "t",
        [taken("events", "e", 0, [0, 1]), taken("labels", "l", 0, [5])],
        [taken("events", "e", 1, [3]), taken("events", "e", 0, [2])],
    )
    read = [
        (row["role"], row["topic"], row["partition"], row["offset"])
        for batch in batches(folder, ["role", "topic", "partition", "offset"])
        for row in batch.to_pylist()
    ]
    assert read == [
        ("events", "e", 0, 0), ("events", "e", 0, 1), ("labels", "l", 0, 5),
        ("events", "e", 1, 3), ("events", "e", 0, 2),
    ]  # fmt: skip
    assert manifest_of(folder).topics("labels") == ["l"]
    labels = TapeConsumer(folder)
    labels.assign({("l", 0): 0})
    assert everything(labels) == {("l", 0): [5]}


def test_a_paused_partition_waits_and_loses_nothing(tmp_path: Path) -> None:
    folder = tape(tmp_path / "t", [taken("events", "e", 0, [0, 1]), taken("events", "e", 1, [0])])
    consumer = TapeConsumer(folder)
    consumer.assign({("e", 0): 0, ("e", 1): 0})
    consumer.pause([("e", 0)])
    assert [one.partition for one in consumer.fetch(100, 0.0)] == [("e", 1)]
    assert consumer.fetch(100, 0.0) == []
    assert not consumer.caught_up(("e", 0))
    consumer.resume([("e", 0)])
    assert everything(consumer) == {("e", 0): [0, 1]}
    assert consumer.caught_up(("e", 0))


def test_row_groups_have_names_of_their_own(tmp_path: Path) -> None:
    """A topic that comes later has another place in the dictionary of its row group."""
    writer = TapeWriter(tmp_path / "t")
    writer.write(taken("events", "e", 0, [0, 1]))
    writer._drain()
    writer.write(taken("labels", "l", 0, [0]))
    writer.write(taken("events", "e", 0, [2]))
    writer.commit(None)
    consumer = TapeConsumer(tmp_path / "t")
    consumer.assign({("e", 0): 0, ("l", 0): 0})
    assert everything(consumer) == {("e", 0): [0, 1, 2], ("l", 0): [0]}


def test_a_time_is_found(tmp_path: Path) -> None:
    folder = tape(tmp_path / "t", [taken("events", "e", 0, range(10))])
    consumer = TapeConsumer(folder)
    for time, offset in ((0, 0), (4000 * MS, 4), (3999 * MS + 1, 4), (9001 * MS, 10)):
        assert consumer.at_time([("e", 0)], time, 0.0) == {("e", 0): offset}


def test_a_killed_writer_is_gone_on_with(tmp_path: Path) -> None:
    folder = tape(tmp_path / "t", [taken("events", "e", 0, [0, 1])])
    killed = TapeWriter(folder)
    killed.write(taken("events", "e", 0, [2]))
    killed._drain()  # as if 32,768 had come
    (folder / "part-000001.parquet").write_bytes(b"renamed, but not told of yet")
    writer = TapeWriter(folder)
    assert writer.positions == {("events", "e", 0): 2}
    assert sorted(path.name for path in folder.iterdir()) == ["part-000000.parquet", "tape.json"]
    writer.write(taken("events", "e", 0, [2, 3], fits=[True, False]))
    writer.commit({"note": 1})
    assert manifest_of(folder) == (2, 4, 3, (("events", "e", 0, 0, 4),), {"note": 1})
    consumer = TapeConsumer(folder)
    consumer.assign({("e", 0): 0})
    assert everything(consumer) == {("e", 0): [0, 1, 2, 3]}


def test_a_commit_without_records_makes_no_part(tmp_path: Path) -> None:
    writer = TapeWriter(tmp_path / "t")
    writer.begin(("events", "e", 3), 17)
    writer.commit("state")
    writer.commit("later")
    assert manifest_of(tmp_path / "t") == (0, 0, 0, (("events", "e", 3, 17, 17),), "later")
    consumer = TapeConsumer(tmp_path / "t")
    assert consumer.partitions("e", 0.0) == 4
    assert consumer.beginnings([("e", 3), ("e", 0)], 0.0) == {("e", 3): 17, ("e", 0): 0}


def test_parts_are_plain_parquet(tmp_path: Path) -> None:
    folder = tape(tmp_path / "t", [taken("labels", "l", 2, [4], headers=[[("h", b"1")]])])
    (row,) = pq.read_table(part_of(folder, 0)).to_pylist()
    assert row["timestamp"].isoformat() == "1970-01-01T00:00:04+00:00"
    assert row["headers"] == [{"name": "h", "value": b"1"}]
    assert (row["role"], row["partition"], row["value"]) == ("labels", 2, b"l/2/4")


def test_what_is_no_recording_is_told(tmp_path: Path) -> None:
    assert not is_tape(tmp_path)
    assert not is_tape(None)
    with pytest.raises(UserError, match=r"is no recording: it has no tape\.json; correct the path"):
        manifest_of(tmp_path)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="holds something that is no recording"):
        TapeWriter(tmp_path)
    (tmp_path / "mine.txt").unlink()
    (tmp_path / "tape.json").write_text("{")
    with pytest.raises(UserError, match=r"tape\.json: cannot be read: .*put back a whole copy"):
        manifest_of(tmp_path)
    (tmp_path / "tape.json").write_text(json.dumps({"version": 2}))
    with pytest.raises(UserError, match="is of version 2, this one reads 1; record it again"):
        manifest_of(tmp_path)


def test_a_part_that_is_not_whole_is_told(tmp_path: Path) -> None:
    folder = tape(tmp_path / "t", [taken("events", "e", 0, range(100))])
    part = part_of(folder, 0)
    data = part.read_bytes()
    part.write_bytes(data[: len(data) // 2])
    consumer = TapeConsumer(folder)
    consumer.assign({("e", 0): 0})
    with pytest.raises(UserError, match="is not a whole Parquet file"):
        consumer.fetch(1, 0.0)
    part.unlink()
    consumer.assign({("e", 0): 0})
    with pytest.raises(UserError, match=r"is not there, but tape\.json names it; get a whole copy"):
        consumer.fetch(1, 0.0)


def test_a_recording_is_read_only(tmp_path: Path) -> None:
    client = client_named("tape")
    connection = Connection(str(tape(tmp_path / "t", [taken("events", "e", 0, [0])])), "tape")
    with pytest.raises(UserError, match="is a recording, which is only read; write to a file"):
        client.producer(connection, transactional_id=None, max_in_flight=1)
    consumer = client.consumer(connection, group=None, keys=True, headers=True)
    with pytest.raises(BrokerError, match="has no topic 'x'; its topics are: e"):
        consumer.partitions("x", 0.0)
