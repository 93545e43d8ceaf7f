"""Events that wait for labels, in memory and in files: the same rows, the same state again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn import backlog, label_join
from streamlearn.archive import DamagedError
from streamlearn.block import LEARN
from streamlearn.connectors import as_source
from streamlearn.contracts import Batch
from streamlearn.errors import UserError
from streamlearn.label_join import JoinedLabels
from streamlearn.schema import LabelSchema, Schema
from streamlearn.spill import Spill
from streamlearn.testing import assert_same_state, through_json
from tests import naive_labels
from tests.test_label_join import counts, joined, kinds, labels_of, naive, repeated_ids
from tests.test_labels import polled, records_of, rows_of

CASES: list[dict[str, Any]] = [
    {}, {"timeout": "30s"}, {"timeout": "25s", "assume": "b"}, {"max_pending": 30},
    {"timeout": "40s", "max_pending": 20},
]  # fmt: skip


@contextmanager
def small_segments() -> Iterator[None]:
    """Segments of eight events, so that few of them are many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backlog, "SEGMENT", 8)
        patch.setattr(backlog, "_SHIFT", 3)
        patch.setattr(label_join, "SEGMENT", 8)
        yield


def streams(seed: int, lag: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """150 events, some with the id of another or none, and labels that come much later."""
    events = records_of(150, seed)
    for record in events:
        if record["known"] is not None:
            record["known"] += lag
    kinds_of_id: dict[int, Any] = {
        0: lambda i: i,
        1: lambda i: f"é{i}",
        2: lambda i: i if i % 3 else f"e{i}",
    }
    for i, record in enumerate(events):
        record["id"] = kinds_of_id[seed % 3](i)
    events = repeated_ids(events, seed)
    return events, labels_of(events, seed)


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    options=st.sampled_from(CASES),
    memory=st.sampled_from([0, 2_000, 5_000]),
    lag=st.integers(0, 80),
)
def test_what_waits_in_files_is_joined_as_what_waits_in_memory(
    seed: int, sizes: list[int], options: dict[str, Any], memory: int, lag: int
) -> None:
    events, labels = streams(seed, lag)
    with small_segments():
        source, reference = joined(events, labels, **options), naive(events, labels, **options)
        source.spill_to(Spill(), memory)
        batches = polled(source, sizes)
        assert rows_of(batches) == reference.rows
        rejects = [reject for batch in batches for reject in batch.rejects]
        assert kinds(rejects) == [why for why, _ in reference.refused]
        assert counts(source)["pending"] == len(reference.waiting)


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("at", [40, 97, 150])
def test_a_reader_goes_on_from_a_state_that_names_files(
    options: dict[str, Any], at: int, private: bool, tmp_path: Path
) -> None:
    """And the state does not depend on how the stream was cut."""
    events, labels = streams(7, 60)

    def source() -> JoinedLabels:
        found = joined(events, labels, **options)
        found.spill_to(Spill() if private else Spill(tmp_path / "spill"), 2_000)
        return found

    with small_segments():
        whole = source()
        batches = polled(whole, [150])
        states = []
        for sizes in ([1], [23, 5]):
            first = source()
            first.open({})
            head: list[Batch] = []
            while (left := at - first.report()["events"]) > 0:
                batch = first.poll(min(sizes[len(head) % len(sizes)], left), 0.0)
                assert batch is not None
                head.append(batch)
            states.append(through_json(first.state()))
            again = source()
            again.schema.load(through_json(first.schema.state()))
            again.load(states[-1])
            again.open(head[-1].positions)
            assert again.report()["pending"] == first.report()["pending"]
            assert_same_state(again.state(), states[-1])
            tail = []
            while not again.finished:
                if (batch := again.poll(17, 0.0)) is not None:
                    tail.append(batch)
            assert rows_of([*head, *tail]) == rows_of(batches)
            assert {**again.report(), "spilled": 0} == {**whole.report(), "spilled": 0}
        assert_same_state(states[0], states[1])


def test_spilled_events_take_no_memory_and_their_files_go(tmp_path: Path) -> None:
    with small_segments():
        records = [{"id": i, "t": i, "x": 0.0, "colour": "c", "group": "g"} for i in range(800)]
        labels = [{"id": i, "t": 1000 + i, "y": "a"} for i in range(800)]
        source = joined(records, labels)
        source.spill_to(Spill(tmp_path, keep=1), 4_000)
        source.open({})
        while source.report()["events"] < 800:
            source.poll(50, 0.0)
        told = source.report()
        assert told["pending"] == 800
        assert 780 <= told["spilled"] <= 800
        assert len(source._join.pending) == 800 - told["spilled"]
        assert len(list(tmp_path.iterdir())) > 5
        while not source.finished:
            source.poll(50, 0.0)
        assert source.report()["labelled"] == 800
        assert source.report()["spilled"] == 0
        assert source._join.backlog._segments == {}
        assert source._join.pending == {}


def test_a_file_that_is_damaged_is_told(tmp_path: Path) -> None:
    with small_segments():
        events, labels = streams(7, 60)
        first = joined(events, labels)
        first.spill_to(Spill(tmp_path), 0)
        first.open({})
        first.poll(100, 0.0)
        state = through_json(first.state())
        file = sorted(tmp_path.iterdir())[0]
        file.write_bytes(file.read_bytes()[:-1])
        again = joined(events, labels)
        again.spill_to(Spill(tmp_path), 0)
        with pytest.raises(DamagedError, match="pending labels are missing or damaged"):
            again.load(state)


def keyed(events: Any, labels: Any, **options: Any) -> JoinedLabels:
    x: dict[str, Any] = {"x": {"kind": "number"}}
    es = Schema(features=x, id="id", time="t", key="card")
    ls = LabelSchema(target="y", task="classification", id="card", time="t")
    return JoinedLabels(as_source(events, es)[0], as_source(labels, ls)[0], es, ls, by="key",
                        **options)  # fmt: skip


def test_labels_are_joined_by_key() -> None:
    """A label is for the latest event of its key; the ids stay those of the events."""
    events = [{"id": f"e{i}", "card": f"c{i % 3}", "t": 10 * i, "x": 1.0} for i in range(6)]
    labels = [{"card": "c1", "t": 15, "y": "a"}, {"card": "c0", "t": 55, "y": "b"},
              {"card": "c9", "t": 56, "y": "b"}]  # fmt: skip
    source = keyed(events, labels)
    batches = polled(source, [6])
    renamed = [dict(event, id=event["card"]) for event in events]
    told = [dict(label, id=label["card"]) for label in labels]
    assert rows_of(batches) == naive_labels.Join().run(renamed, told).rows
    found: list[Any] = []
    for block in (batch.block for batch in batches):
        assert block.ids is not None
        assert block.keys is not None
        learnt = np.flatnonzero(block.mode == LEARN)
        found += [(block.ids[t], block.keys[t]) for t in learnt]
    assert found == [("e1", "c1"), ("e3", "c0")]
    assert counts(source) | {"replaced": 2, "labelled": 2, "unknown": 1} == counts(source)


def test_a_join_by_key_needs_a_key() -> None:
    es = Schema(features={"x": {"kind": "number"}}, id="id", time="t")  # type: ignore[dict-item]
    ls = LabelSchema(target="y", task="classification", id="card", time="t")
    source = as_source([{}], es)[0]
    with pytest.raises(UserError, match=r"^by: key is for events with a key column; name it"):
        JoinedLabels(source, source, es, ls, by="key")
    with pytest.raises(UserError, match=r"^by: must be id or key, got 'name'$"):
        JoinedLabels(source, source, es, ls, by="name")
