"""Late labels inside the block of their event: uncut, cut where they meet, and row by row."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import anomaly, linear_model, multiclass, preprocessing

from streamlearn.block import (
    EXPIRED,
    I8,
    LABELLED,
    LEARN,
    PREDICT,
    SCORED,
    U1,
    Block,
    Columns,
    concatenate,
)
from streamlearn.contracts import State
from streamlearn.operators import (
    ADWIN,
    AdaptiveClassifier,
    BalancedNormalizer,
    Imputer,
    KalmanClassifier,
    KalmanRegressor,
    MajorityClassifier,
    MeanRegressor,
    NoChangeClassifier,
    Normalizer,
    OneHotEncoder,
)
from streamlearn.operators._base import Operator
from streamlearn.pipeline import Pipeline
from streamlearn.recall import Meetings, meetings
from streamlearn.spill import Spill
from streamlearn.testing import (
    KINDS,
    NUMBERS,
    Plan,
    Stream,
    assert_same_bits,
    assert_same_state,
    block_of,
    cut,
    run_in_cuts,
    through_json,
)

Walk = Callable[[Pipeline, Block], Columns]


def nervous() -> ADWIN:
    return ADWIN(delta=0.9, clock=1, min_window_length=2, grace_period=2)


class Strict(MeanRegressor):
    """Takes no NaN: what did not exist at scoring is 0 to it. Learns the first feature."""

    takes_nan = False

    def _run(self, block: Block) -> Columns:
        assert not np.isnan(block.X[block.mode == LEARN]).any()
        return super()._run(block.replace(y=np.where(np.isnan(block.y), block.y, block.X[:, 0])))


class Unlabelled(MeanRegressor):
    """Learns from no label, so that none is compared with what it said at scoring."""

    needs_label = False

    def _run(self, block: Block) -> Columns:
        return {"prediction": block.X[:, 0].copy()}


CLASSIFIERS: dict[str, Callable[[], Pipeline]] = {
    "head": lambda: Pipeline(KalmanClassifier()),
    "random features": lambda: Pipeline(Normalizer(), KalmanClassifier(random_features=5), ADWIN()),
    "imputed": lambda: Pipeline(Imputer(), Normalizer(), KalmanClassifier(), nervous()),
    "two that learn": lambda: Pipeline(
        Normalizer(), BalancedNormalizer(m=0.1, balance=0.5), KalmanClassifier(), nervous()
    ),
    "columns open after one that learns": lambda: Pipeline(
        BalancedNormalizer(), preprocessing.StandardScaler(), KalmanClassifier(), nervous()
    ),
    "majority": lambda: Pipeline(Normalizer(), MajorityClassifier(), nervous()),
    "no change": lambda: Pipeline(NoChangeClassifier(), nervous()),
    "transformers": lambda: Pipeline(Normalizer(), BalancedNormalizer(), Imputer()),
    "scorer": lambda: Pipeline(
        Imputer(), anomaly.HalfSpaceTrees(n_trees=2, height=2, window_size=5, seed=1), nervous()
    ),
}
REGRESSORS: dict[str, Callable[[], Pipeline]] = {
    "numbers": lambda: Pipeline(Normalizer(), KalmanRegressor(), nervous()),
    "strict": lambda: Pipeline(Strict(), nervous()),
    "unlabelled": lambda: Pipeline(Unlabelled(), nervous()),
}
WIDENING: dict[str, Callable[[], Pipeline]] = {
    "one-hot": lambda: Pipeline(OneHotEncoder(cap=3), Normalizer(), KalmanClassifier(), nervous()),
    "foreign": lambda: Pipeline(
        preprocessing.OneHotEncoder(), Imputer(), BalancedNormalizer(), KalmanClassifier()
    ),
}
MADE = CLASSIFIERS | REGRESSORS | WIDENING


def uncut(pipe: Pipeline, block: Block) -> Columns:
    return pipe.run(block)


def in_turn(pipe: Pipeline, block: Block) -> Columns:
    """The same pipeline, whose stages do not say that they recall their input alone."""
    said = [(stage, stage.recalls_input) for stage in pipe.stages]
    for stage in pipe.stages:
        stage.recalls_input = False
    outputs = pipe.run(block)
    for stage, told in said:
        stage.recalls_input = told
    return outputs


def by_row(pipe: Pipeline, block: Block) -> Columns:
    return run_in_cuts(pipe, cut(block, range(block.n)))


def walked(
    make: Callable[[], Pipeline], blocks: Sequence[Block], walks: Sequence[Walk]
) -> tuple[Columns, list[State]]:
    """Outputs over the blocks, each walked in the next way, and the state after each."""
    pipe = make()
    parts, states = [], []
    for k, block in enumerate(blocks):
        parts.append(walks[k % len(walks)](pipe, block))
        states.append(pipe.state())
    return concatenate(parts, [block.n for block in blocks]), states


WAYS: list[list[Walk]] = [[uncut], [in_turn], [uncut, in_turn], [in_turn, by_row, uncut]]


def assert_one_result(make: Callable[[], Pipeline], blocks: Callable[[], list[Block]]) -> None:
    """Whichever way each block is walked, bits of outputs and states are those of row by row."""
    expected, after = walked(make, blocks(), [by_row])
    for walks in WAYS:
        owner = ", ".join(walk.__name__ for walk in walks)
        outputs, states = walked(make, blocks(), walks)
        assert_same_bits(expected, outputs, owner)
        for first, second in zip(after, states, strict=True):
            assert_same_state(first, second, owner)


@st.composite
def late_plans(draw: st.DrawFn, name: str) -> Plan:
    """Hard streams with late labels; new columns on the way, categories for what takes them."""
    kinds = KINDS if name in WIDENING else NUMBERS
    columns = st.lists(st.sampled_from(kinds[::-1]), min_size=1, max_size=3).map(tuple)
    segments = draw(st.lists(st.tuples(st.integers(10, 60), columns), min_size=1, max_size=2))
    return Plan(
        "regression" if name in REGRESSORS else "classification",
        tuple(n for n, _ in segments),
        tuple(kinds for _, kinds in segments),
        "late",
        weighted=draw(st.booleans()),
        gaps=draw(st.booleans()),
        infinities=draw(st.booleans()),
        repeats=draw(st.booleans()),
        n_classes=draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@pytest.mark.jit
@pytest.mark.parametrize("name", MADE)
def test_uncut_in_turn_and_by_row_are_one(name: str) -> None:
    """Every label up to 100 rows late, at once, never or given up; the ways mixed in one stream."""

    @settings(max_examples=12)
    @given(late_plans(name), st.lists(st.integers(0, 240), max_size=4), st.booleans())
    def holds(plan: Plan, cuts: list[int], ids: bool) -> None:
        late = Stream.from_plan(plan)
        if ids:  # texts; -1, an event without a label, gets one that comes nowhere else
            assert late.events is not None
            texts = [f"{k}" if k >= 0 else f"none {t}" for t, k in enumerate(late.events.tolist())]
            late = late.changed(events=None, ids=np.array(texts, dtype=object))
        assert_one_result(MADE[name], lambda: list(late.blocks(cuts)))

    holds()


def used_again(rng: np.random.Generator) -> tuple[U1, I8]:
    """Modes and numbers of some rows: few numbers, so that most are used more than once."""
    n, most = int(rng.integers(2, 40)), int(rng.integers(1, 16))
    modes = [SCORED, SCORED, SCORED, LEARN, LEARN, EXPIRED, LABELLED, PREDICT, LEARN | PREDICT]
    return rng.choice(modes, n).astype(np.uint8), rng.integers(-1, most, n)


@pytest.mark.jit
@pytest.mark.parametrize("which", ["events", "ids", "texts"])
@pytest.mark.parametrize("seed", range(40))
def test_keys_that_are_used_again_are_taken_in_turn(seed: int, which: str) -> None:
    """Scored twice, settled twice, settled before, never: as row by row."""
    rng = np.random.default_rng(seed)
    mode, number = used_again(rng)
    cuts = rng.integers(0, mode.size, rng.integers(0, 3)).tolist()
    X = rng.normal(size=(mode.size, 2))
    X[rng.random(X.shape) < 0.1] = np.nan
    X[(mode == LEARN) | (mode == EXPIRED)] = np.nan
    y = rng.choice(["a", "b"], mode.size)
    block = block_of(X, y, task="classification", mode=mode)
    texts = np.array([f"{k}" for k in number], dtype=object)
    block = block.replace(
        events=number if which == "events" else None,
        ids={"ids": number, "texts": texts}.get(which),
    )
    assert_one_result(
        lambda: Pipeline(Normalizer(), KalmanClassifier(), nervous()), lambda: cut(block, cuts)
    )


def naive_meetings(block: Block) -> tuple[list[tuple[int, int]], bool]:
    """Pairs (settling row, scored row) by a walk over the rows, and whether all happens once."""
    assert block.events is not None
    seen: dict[int, int] = {}
    pairs, once = [], True
    for t, (mode, k) in enumerate(zip(block.mode.tolist(), block.events.tolist(), strict=True)):
        if mode == SCORED and k >= 0:
            once &= k not in seen
            seen[k] = t
        elif (mode & 6 == LEARN or (mode == EXPIRED and k >= 0)) and k in seen:
            pairs.append((t, seen[k]))
    return pairs, once and len({s for _, s in pairs}) == len(pairs)


@pytest.mark.parametrize("seed", range(200))
def test_meetings_are_those_of_a_walk(seed: int) -> None:
    mode, number = used_again(np.random.default_rng(seed))
    block = block_of(np.zeros((mode.size, 1)), mode=mode).replace(events=number)
    pairs, once = naive_meetings(block)
    found = meetings(block)
    if found is None:
        assert not pairs
        return
    assert found.once == once
    if once:
        met = [(t, s) for t, s in pairs if mode[t] != EXPIRED]
        assert list(zip(found.met.rows.tolist(), found.met.scored.tolist(), strict=True)) == met
        assert np.flatnonzero(found.settling).tolist() == sorted(t for t, _ in pairs)
        assert np.flatnonzero(found.settled).tolist() == sorted(s for _, s in pairs)


def numbered(n: int, delay: Any, seed: int = 0) -> Stream:
    plan = Plan(rows=(n,), columns=(("normal", "missing"),), n_classes=2, seed=seed)
    return Stream.from_plan(plan).late(delay)


def pieces_of(make: Callable[[], Pipeline], block: Block, monkeypatch: Any) -> int:
    """How often the predictor is asked to walk a piece of this block."""
    pipe, walks = make(), list[int]()
    predictor = type(pipe.stages[1])
    run = predictor.run

    def counted(stage: Operator, piece: Block) -> Columns:
        walks.append(piece.n)
        return run(stage, piece)

    monkeypatch.setattr(predictor, "run", counted)
    pipe.run(block)
    monkeypatch.undo()
    assert sum(walks) == block.n
    return len(walks)


def test_a_block_is_walked_once_where_every_stage_recalls_its_input(monkeypatch: Any) -> None:
    """Not so with a wrapper, or a foreign stage: they are taken in turn."""
    (block,) = numbered(200, 1).blocks()
    for name in ("majority", "random features", "two that learn"):
        assert pieces_of(CLASSIFIERS[name], block, monkeypatch) == 1
    adaptive = AdaptiveClassifier(KalmanClassifier(), ADWIN(), "notify")
    assert pieces_of(lambda: Pipeline(Normalizer(), adaptive), block, monkeypatch) == 101
    river = multiclass.OneVsRestClassifier(linear_model.LogisticRegression())
    assert pieces_of(lambda: Pipeline(Imputer(), river), block, monkeypatch) == 101


@pytest.mark.jit
@pytest.mark.parametrize("memory", [0, 30_000])
def test_what_is_spilled_does_not_depend_on_the_way(tmp_path: Path, memory: int) -> None:
    """Files, what they hold and what is in memory: labels are due at once, soon, and late."""
    rng = np.random.default_rng(3)
    late = numbered(4000, rng.choice([0, 1, 40, 700, 2500], 4000))
    ends = [1000, 1001, 4500, 5200]
    states: list[list[State]] = []
    results = []
    ways: list[list[Walk]] = [[by_row], *WAYS]
    for k, walks in enumerate(ways):
        pipe = Pipeline(Normalizer(), KalmanClassifier(), ADWIN())
        pipe.spill_to(Spill(tmp_path / str(k)), memory)
        blocks = list(late.blocks(ends))
        results.append(
            concatenate(
                [walks[i % len(walks)](pipe, block) for i, block in enumerate(blocks[:-1])],
                [block.n for block in blocks[:-1]],
            )
        )
        states.append([pipe.state()])
        again = Pipeline(Normalizer(), KalmanClassifier(), ADWIN())
        again.spill_to(Spill(tmp_path / str(k)), memory)
        again.load(through_json(pipe.state()))
        again.run(blocks[-1])
        states[-1].append(again.state())
        assert states[-1][0].table["pending"]["files"]
    for others, outputs in zip(states[1:], results[1:], strict=True):
        assert_same_bits(results[0], outputs)
        for first, second in zip(states[0], others, strict=True):
            assert_same_state(first, second)


def test_a_frozen_pipeline_does_what_it_does_row_by_row() -> None:
    late = numbered(60, 5)
    blocks = [list(late.blocks([40, 80])) for _ in range(2)]
    pipes = [CLASSIFIERS["two that learn"]() for _ in blocks]
    walks: list[Walk] = [uncut, by_row]
    for pipe, (first, second, third), walk in zip(pipes, blocks, walks, strict=True):
        walk(pipe, first)
        walk(pipe.freeze(), second)
        walk(pipe.unfreeze(), third)
    assert_same_state(pipes[0].state(), pipes[1].state())


def test_nothing_found_says_nothing() -> None:
    """No label, no event, no key, or each in another block."""
    (block,) = numbered(20, 40).blocks()
    scored = block.rows(0, 20)
    assert meetings(block) is not None
    assert meetings(scored) is None
    assert meetings(block.rows(20, 40)) is None
    assert meetings(block.replace(events=None)) is None
    ends = [0, 20, 40]
    assert all(meetings(block.rows(a, b)) is None for a, b in pairwise(ends))
    found = meetings(block)
    assert isinstance(found, Meetings)
    assert found.once
