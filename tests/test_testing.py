"""The checks of `streamlearn.testing` pass a sound operator and catch one for each broken law."""

import os
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from streamlearn.block import (
    EXPIRED,
    F8,
    LABELLED,
    LEARN,
    PREDICT,
    SCORED,
    Block,
    Columns,
    Features,
)
from streamlearn.contracts import Source, State
from streamlearn.operators import ADWIN, ChampionClassifier, KalmanClassifier
from streamlearn.operators._base import Operator, Regressor
from streamlearn.testing import (
    LAWS,
    Aborted,
    ListSource,
    Mark,
    Plan,
    SettableClock,
    Stream,
    assert_same_bits,
    assert_same_state,
    block_of,
    check_future_labels,
    check_operator,
    labelled,
)


class Drifting(Regressor):
    """A sound operator, the mean of all targets in plain Python; the faults derive from it."""

    _arrays: ClassVar[tuple[str, ...]] = ("sum_",)
    _counters: ClassVar[tuple[str, ...]] = ("n_seen",)

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.sum_: F8 = np.zeros(1)
        self.n_seen = 0

    def _run(self, block: Block) -> Columns:
        out = np.full(block.n, np.nan)
        for t in range(block.n):
            if block.mode[t] & PREDICT:
                out[t] = self._answer_row(block, t)
            if block.mode[t] & LEARN and block.weight[t] > 0 and np.isfinite(block.y[t]):
                self._learn_row(block, t)
        return {"prediction": out}

    def _answer_row(self, block: Block, t: int) -> float:
        return float(self.sum_[0]) / max(self.n_seen, 1)

    def _learn_row(self, block: Block, t: int) -> None:
        self.sum_[0] += block.y[t]
        self.n_seen += 1


class LooksAtTheBlock(Drifting):
    """Its answers know how many rows the block has."""

    def _answer_row(self, block: Block, t: int) -> float:
        return super()._answer_row(block, t) + 1e-9 * block.n


class SumsByBlock(Drifting):
    """It adds up a block at once: the rounding differs."""

    def _run(self, block: Block) -> Columns:
        good = (block.mode & LEARN != 0) & (block.weight > 0) & np.isfinite(block.y)
        self.sum_ += np.sum(block.y[good] * np.pi)
        self.n_seen += int(good.sum())
        return {"prediction": np.where(block.mode & PREDICT != 0, 0.0, np.nan)}


class Forgets(Drifting):
    """A counter that matters is not in its state."""

    _counters: ClassVar[tuple[str, ...]] = ()


class Shares(Drifting):
    """Its state is no copy."""

    def state(self) -> State:
        return State({"sum_": self.sum_}, super().state().table)


class LearnsWhenAsked(Drifting):
    """Asking is counted."""

    def _answer_row(self, block: Block, t: int) -> float:
        self.n_seen += 1
        return super()._answer_row(block, t)


class HalfSnapshot(Drifting):
    """Its snapshot has no copy of the array."""

    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {"sum_": self.sum_}

    def restore(self, snapshot: dict[str, Any]) -> None:
        for name, value in snapshot.items():
            setattr(self, name, value)


_COMMON = np.zeros(1)


class SharesWithItsClone(Drifting):
    """All of a kind have one array."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.sum_ = _COMMON


class Random(Drifting):
    """Its answers are random, whatever the seed."""

    def _answer_row(self, block: Block, t: int) -> float:
        return float.fromhex(f"0x{os.urandom(6).hex()}")


class Writes(Drifting):
    """It works in its block."""

    def _learn_row(self, block: Block, t: int) -> None:
        super()._learn_row(block, t)
        block.X[t] = 0.0


class KeepsItself(Drifting):
    """Reset leaves the counter."""

    def reset(self) -> None:
        self.sum_ = np.zeros(1)


class FirstColumn(Drifting):
    """It learns from whatever comes first."""

    def _learn_row(self, block: Block, t: int) -> None:
        self.sum_[0] += np.nan_to_num(block.X[t, 0])
        self.n_seen += 1


class OtherDicts(Drifting):
    """Its dict method rounds."""

    def predict_one(self, x: dict[Any, Any], **_: Any) -> float:
        return float(np.float32(super().predict_one(x)))


class LogsItsBlock(Drifting):
    """What it logs of an event, and learns when the label comes, is how long the block was."""

    def _run(self, block: Block) -> Columns:
        if block.logged is not None and "n" in block.logged.columns:
            rows = block.logged.held["n"]
            self.sum_[0] += float(block.logged.columns["n"][rows].sum())
        log = {"log:n": np.full(block.n, float(block.n))} if block.log_wanted else {}
        return super()._run(block) | log


class LearnsLateLabelsHalf(Drifting):
    """A label that comes in a row of its own counts half."""

    def _learn_row(self, block: Block, t: int) -> None:
        self.sum_[0] += block.y[t] * (0.5 if block.mode[t] == LEARN else 1.0)
        self.n_seen += 1


class LooksAhead(Drifting):
    """Its answers know the last label of the block."""

    def _answer_row(self, block: Block, t: int) -> float:
        return super()._answer_row(block, t) + float(np.nan_to_num(block.y[-1]))


class Hoards(Drifting):
    """It keeps every target, outside its state."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.kept: list[float] = []

    def _learn_row(self, block: Block, t: int) -> None:
        super()._learn_row(block, t)
        self.kept.append(float(block.y[t]))


class Wide(Drifting):
    """Its state grows with the rows."""

    def _learn_row(self, block: Block, t: int) -> None:
        super()._learn_row(block, t)
        self.sum_ = np.append(self.sum_, block.y[t])


FAULTS: list[tuple[type[Operator], str]] = [
    (LooksAtTheBlock, "blocks"),
    (SumsByBlock, "blocks"),
    (Forgets, "resume"),
    (Shares, "resume"),
    (LearnsWhenAsked, "predict"),
    (HalfSnapshot, "snapshot"),
    (SharesWithItsClone, "clone"),
    (Random, "seed"),
    (Writes, "input"),
    (LogsItsBlock, "late"),
    (LearnsLateLabelsHalf, "delay zero"),
    (LooksAhead, "future"),
    (KeepsItself, "reset"),
    (FirstColumn, "order"),
    (OtherDicts, "dicts"),
    (Hoards, "memory"),
    (Wide, "memory"),
]


@pytest.mark.jit
def test_sound_operator_passes_every_law() -> None:
    passed = check_operator(Drifting, streams=5)
    assert passed == dict.fromkeys([law.name for law in LAWS], 5) | {"memory": 1}


@pytest.mark.jit
@pytest.mark.parametrize("seed", range(3))
def test_findings_of_rows_to_come_are_no_look_ahead(seed: int) -> None:
    """Outputs have a column of them only where there are some, which other labels may change."""
    nervous = ADWIN(delta=0.9, clock=1, min_window_length=1, grace_period=1)
    stream = Stream.from_plan(Plan(rows=(60,), n_classes=5, seed=seed))
    check_future_labels(
        lambda: ChampionClassifier(KalmanClassifier(), detector=nervous.clone()), stream, 5
    )


@pytest.mark.jit
@pytest.mark.parametrize(("faulty", "law"), FAULTS, ids=lambda p: getattr(p, "__name__", p))
def test_fault_is_caught_by_its_law(faulty: Callable[[], Operator], law: str) -> None:
    (check,) = [known.check for known in LAWS if known.name == law]
    rows = 1000 if law == "memory" else 60
    columns = ("normal", "normal") if law != "order" else ("normal", "offset")
    plan = Plan("regression", (rows,), (columns,), "labelled", seed=1)
    with pytest.raises(AssertionError, match=getattr(faulty, "__name__", "")):
        check(faulty, Stream.from_plan(plan), [7, 30, 31])


def test_every_law_has_a_fault() -> None:
    assert {law for _, law in FAULTS} == {law.name for law in LAWS}


def test_labelled_gives_codes_by_first_appearance() -> None:
    block = labelled([[1.0], [2.0], [3.0]], ["b", "a", "b"], task="classification")
    assert block.y.tolist() == [0.0, 1.0, 0.0]
    assert block.labels is not None
    assert block.labels.values == ["b", "a"]
    assert block.mode.tolist() == [7, 7, 7]
    assert block.features.names == ("x0",)


def test_block_of_fills_what_is_not_given() -> None:
    block = block_of([[1.0, 2.0]], mode=PREDICT, ids=[5])
    assert np.isnan(block.y).all()
    assert (block.mode.tolist(), block.weight.tolist()) == ([1], [1.0])
    assert block.ids is not None
    assert block.ids.tolist() == [5]


def test_stream_hands_out_its_tables_as_they_grow() -> None:
    """A block knows the classes and categories up to its last row, and the columns that exist."""
    plan = Plan("classification", (30, 30), (("category",), ("normal",)), n_classes=4, seed=2)
    stream = Stream.from_plan(plan)
    seen = []
    for block in stream.blocks(range(60)):
        assert block.labels is not None
        seen.append((len(block.features), len(block.labels), len(block.features.categories["x0"])))
    assert [widths for widths, _, _ in seen] == [1] * 30 + [2] * 30
    for t in range(60):
        assert seen[t][1] == 1 + np.nanmax(stream.y[: t + 1])
        assert seen[t][2] == 1 + np.nanmax(stream.X[: t + 1, 0])
    assert seen[-1][1] == 4


def test_same_bits_pads_classes_and_ignores_rows_without_an_answer() -> None:
    one = {"prediction": np.array([0.0, np.nan]), "proba": np.array([[1.0], [np.nan]])}
    other = {"prediction": np.array([0.0, np.nan]), "proba": np.array([[1.0, 0.0], [0.5, 0.5]])}
    assert_same_bits(one, other)
    other["proba"][0, 1] = 1e-300
    with pytest.raises(AssertionError, match=r"outputs: proba differs at row 0"):
        assert_same_bits(one, other)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (State({"a": np.zeros(2, np.float32)}, {}), "a is float64"),
        (State({"a": np.array([0.0, 5e-324])}, {}), "a differs in 1 of 2"),
        (State({"a": np.zeros(2)}, {"n": 1}), "tables differ"),
        (State({"b": np.zeros(2)}, {}), "other arrays"),
        (State({"a": np.zeros(2)}, {"n": np.int64(1)}), "must be plain JSON"),
    ],
)
def test_same_state_wants_every_bit(state: State, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_same_state(State({"a": np.zeros(2)}, {}), state)


def test_features_of_the_stream_keep_their_order() -> None:
    blocks = list(Stream.from_plan(Plan(rows=(5, 5), columns=(("normal",), ("normal",)))).blocks())
    assert [block.features.names for block in blocks] == [("x0",), ("x0", "x1")]
    assert isinstance(blocks[0].features, Features)


def test_late_labels_come_right_after_their_rows_and_the_rest_at_the_end() -> None:
    """Worked by hand: four events, delays 1, 0, 1 and 3; the third is given up, one comes whole."""
    X, y = np.arange(4.0)[:, None], np.array([5.0, 6.0, 7.0, 8.0])
    mode, first = np.full(4, 7, np.uint8), np.array([0])
    whole = Stream(X, y, np.ones(4), mode, ["number"], first, "regression")
    late = whole.late([1, 0, 1, 3], [LEARN, LEARN, EXPIRED, LEARN])
    assert late.events is not None
    assert late.events.tolist() == [0, 1, 0, 1, 2, 3, 2, 3]
    assert late.mode.tolist() == [5, 5, 2, 2, 5, 5, 0, 2]
    np.testing.assert_array_equal(late.y, [np.nan, np.nan, 5, 6, np.nan, np.nan, np.nan, 8])
    n = np.nan
    np.testing.assert_array_equal(late.X[:, 0], [0, 1, n, n, 2, 3, n, n])
    at_once = whole.late(2, [LABELLED, SCORED, LABELLED, SCORED])
    assert at_once.events is not None
    assert (at_once.mode.tolist(), at_once.events.tolist()) == ([7, 5, 7, 5], [0, -1, 2, -1])


def test_late_classes_get_their_codes_in_the_order_in_which_their_labels_come() -> None:
    X, y = np.zeros((3, 1)), np.array([0.0, 1.0, 2.0])
    mode, first = np.full(3, 7, np.uint8), np.array([0])
    late = Stream(X, y, np.ones(3), mode, ["number"], first, "classification").late([2, 1, 0])
    assert late.y[late.mode == LEARN].tolist() == [0.0, 1.0, 2.0]
    late = Stream(X, y, np.ones(3), mode, ["number"], first, "classification").late([5, 1, 0])
    assert late.y[late.mode == LEARN].tolist() == [0.0, 1.0, 2.0]
    assert late.events is not None
    assert late.events[late.mode == LEARN].tolist() == [1, 2, 0]
    blocks = [len(b.labels) for b in late.blocks(range(late.n)) if b.labels is not None]
    assert blocks == [0, 0, 0, 1, 2, 3]


def test_list_source_gives_every_row_once_across_pauses_and_a_crash() -> None:
    blocks = [
        labelled([[float(t)] for t in range(a, b)], np.zeros(b - a)) for a, b in [(0, 5), (5, 8)]
    ]
    clock = SettableClock()
    source = ListSource([Mark.PAUSE, blocks[0], Mark.ABORT, blocks[1]], clock)
    assert isinstance(source, Source)
    source.open({})
    assert source.poll(3, 0.25) is None
    assert clock() == 0.25
    got, positions = [], {}
    for _ in range(2):
        batch = source.poll(3, 0.25)
        assert batch is not None
        got += batch.block.X[:, 0].tolist()
        positions = batch.positions
    with pytest.raises(Aborted, match="at row 5"):
        source.poll(3, 0.25)
    assert not source.finished
    source.open(positions)
    batch = source.poll(3, 0.25)
    assert batch is not None
    assert got + batch.block.X[:, 0].tolist() == list(range(8))
    assert (batch.positions, source.finished) == ({"list": 8}, True)
    assert source.poll(3, 0.25) is None


def test_list_source_is_finished_at_eof_until_it_is_opened_again() -> None:
    source = ListSource([Mark.EOF, labelled([[1.0]], [2.0])])
    source.open({})
    assert source.poll(9, 0.0) is None
    assert source.finished
    source.open({"list": 0})
    assert not source.finished
    batch = source.poll(9, 0.0)
    assert batch is not None
    assert batch.block.n == 1
    source.close()
