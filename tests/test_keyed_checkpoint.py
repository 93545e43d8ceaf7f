"""Checkpoints of a bank: only what changed is written, and it is the bank to the bit."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamlearn.block import LABELLED, LEARN, PREDICT
from streamlearn.contracts import State
from streamlearn.operators import (
    AdaptiveRegressor,
    KalmanRegressor,
    KeyedRegressor,
    Normalizer,
    _cold,
    _records,
)
from streamlearn.operators.adwin import ADWIN
from streamlearn.pipeline import Pipeline, load
from streamlearn.spill import Spill
from streamlearn.testing import Plan, Stream, assert_same_bits, assert_same_state, through_json

ROWS = 600


def _stream() -> Stream:
    plan = Plan("regression", (ROWS,), (("normal", "missing"),), "mixed", seed=5)
    stream = Stream.from_plan(plan)
    return stream.changed(keys=np.random.default_rng(1).zipf(1.3, ROWS) % 60, ids=None)


def _pipeline(folder: Path, **parameters: Any) -> tuple[Pipeline, Spill]:
    pipeline, spill = Pipeline(Normalizer(), KeyedRegressor(**parameters)), Spill(folder, keep=2)
    pipeline.spill_to(spill, 1 << 20)
    return pipeline, spill


def _wrapped(folder: Path | None, most: int) -> tuple[Pipeline, Spill | None]:
    """A bank in a pipeline in a wrapper, which has a further one in the background at times."""
    model = Pipeline(Normalizer(), KeyedRegressor(max_keys=most))
    pipeline = Pipeline(AdaptiveRegressor(model, ADWIN(1e-30), "background", ADWIN(0.5)))
    if folder is None:
        return pipeline, None
    spill = Spill(folder, keep=2)
    pipeline.spill_to(spill, 1 << 20)
    return pipeline, spill


@pytest.mark.usefixtures("often")
@pytest.mark.jit
def test_a_bank_in_a_wrapper_leaves_its_records_in_files_too(tmp_path: Path) -> None:
    """The same bits after a load; models that were replaced hold no files."""
    folder = tmp_path / "going"
    going, spill = _wrapped(folder, 20)
    plain, _ = _wrapped(None, 20)
    assert spill is not None
    stream = _stream()
    stream = stream.changed(y=stream.y + np.maximum(np.arange(ROWS) - 200.0, 0.0))
    for k, block in enumerate(stream.blocks(range(60, ROWS, 60))):
        state = going.state()
        resumed, _ = _wrapped(shutil.copytree(folder, tmp_path / str(k)), 20)
        resumed.load(through_json(state))
        assert_same_state(plain._state(whole=True), resumed._state(whole=True))
        spill.saved()
        assert_same_bits(plain.run(block), going.run(block))
    wrapper: Any = going.stages[0]
    assert wrapper._serving > 0, "a model that was born in the background serves"
    state = going.state()
    assert not [name for name in state.arrays if name.endswith("records_")]
    for _ in range(2):
        spill.saved()
    named = json.dumps(state.table)
    assert [path for path in folder.iterdir() if path.name not in named] == []
    going.save(tmp_path / "whole")
    assert_same_state(plain._state(whole=True), load(tmp_path / "whole")._state(whole=True))


def _names(state: State) -> dict[str, list[str]]:
    files: dict[str, list[str]] = state.table["1.KeyedRegressor"]["files"]
    return files


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at what is to be evicted every 32 events, and soon one at small files."""
    monkeypatch.setattr(_records, "EVERY", 32)
    monkeypatch.setattr(_cold, "_MANY", 2)
    monkeypatch.setattr(_cold, "_SMALL", 24)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("most", [None, 20])
@pytest.mark.jit
def test_whoever_loads_a_checkpoint_goes_on_to_the_same_bits(tmp_path: Path, most: Any) -> None:
    """Twenty checkpoints, keys evicted and back between them, files dropped that none names."""
    folder = tmp_path / "going"
    going, spill = _pipeline(folder, max_keys=most)
    plain = Pipeline(Normalizer(), KeyedRegressor(max_keys=most))
    cuts = list(range(30, ROWS, 30))
    for k, block in enumerate(_stream().blocks(cuts)):
        state = through_json(going.state())
        resumed, _ = _pipeline(shutil.copytree(folder, tmp_path / str(k)), max_keys=most)
        resumed.load(state)
        assert_same_state(plain._state(whole=True), resumed._state(whole=True))
        spill.saved()
        expected = plain.run(block)
        assert_same_bits(expected, going.run(block))
        assert_same_bits(expected, resumed.run(block))
    assert len(_names(going.state())["evicted"]) <= 5, "small files are written as one"
    held = {name for names in _names(going.state()).values() for name in names}
    for _ in range(2):
        spill.saved()
    assert {path.name for path in folder.iterdir()} == held
    going.save(tmp_path / "whole")
    assert_same_state(plain._state(whole=True), load(tmp_path / "whole")._state(whole=True))


@pytest.mark.usefixtures("often")
def test_a_checkpoint_knows_nothing_of_what_was_gone_back_from(tmp_path: Path) -> None:
    """Nor of what was undone a copy, which keeps no files, goes on from its own."""
    going, _ = _pipeline(tmp_path, max_keys=20)
    first, second = _stream().blocks([300])
    going.run(first)
    taken, expected = going.snapshot(), going._state(whole=True)
    going.run(second)
    going.restore(taken)
    for told in (going, copy.deepcopy(going)):
        resumed, _ = _pipeline(tmp_path, max_keys=20)
        resumed.load(through_json(told.state()))
        assert_same_state(expected, resumed._state(whole=True))


def test_only_changed_keys_are_written_and_no_more_than_twice_the_bank(tmp_path: Path) -> None:
    pipeline, _ = _pipeline(tmp_path)
    (block,) = _stream().blocks()
    block = block.replace(keys=np.arange(ROWS), mode=np.full(ROWS, LABELLED, np.uint8))
    pipeline.run(block)
    pipeline.state()
    sizes = []
    for k in range(1, 6):
        pipeline.run(block.rows(0, 140).replace(keys=np.arange(140) + k))
        names = _names(pipeline.state())["records"]
        sizes.append([len(Spill(tmp_path).open(name).columns["keys"]) for name in names])
    assert sizes[0] == [ROWS, 141], "those of the block, and the last one before it"
    assert len(sizes[3]) == 5
    assert sizes[4] == [ROWS], "with a sixth there would be more than twice the bank"


def test_a_moment_before_the_shelf_is_gone_back_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although keys that were known learnt on the shelf before the arrays had to grow."""
    monkeypatch.setattr(_records, "_ROOM", 8)
    pipeline = Pipeline(Normalizer(), KeyedRegressor(max_keys=None))
    (block,) = _stream().blocks()
    pipeline.run(block.rows(0, 60))
    taken, expected = pipeline.snapshot(), pipeline._state(whole=True)
    pipeline.spill_to(Spill(tmp_path, keep=2), 1 << 20)
    pipeline.run(block.rows(20, 60))
    pipeline.run(block.rows(60, 160).replace(keys=np.arange(100) + 1000))
    pipeline.restore(taken)
    assert_same_state(expected, pipeline._state(whole=True))


def test_a_bank_that_learnt_nothing_writes_nothing(tmp_path: Path) -> None:
    """Asking is no change; a late label is one, though it is no event of the bank."""
    pipeline, _ = _pipeline(tmp_path, max_keys=None)
    (block,) = _stream().blocks()
    block = block.rows(0, 40)
    pipeline.run(block)
    first = _names(pipeline.state())
    pipeline.run(block.replace(mode=np.full(40, PREDICT, np.uint8)))
    assert _names(pipeline.state()) == first
    told = np.full(40, 2.5)
    pipeline.run(block.replace(mode=np.full(40, LEARN, np.uint8), y=told))
    assert len(_names(pipeline.state())["records"]) == 1 + len(first["records"])
    taken = pipeline.snapshot()
    pipeline.state()
    pipeline.run(block)
    pipeline.restore(taken)
    expected = pipeline._state(whole=True)
    resumed, _ = _pipeline(tmp_path, max_keys=None)
    resumed.load(through_json(pipeline.state()))
    assert_same_state(expected, resumed._state(whole=True))
    assert _names(resumed.state()) == _names(resumed.state())


@pytest.mark.usefixtures("often")
@pytest.mark.jit
def test_moments_of_keys_are_kept_with_their_models(tmp_path: Path) -> None:
    """In files, and of keys that were evicted: as in a file of the whole pipeline."""
    folder = tmp_path / "going"
    model = Pipeline(Normalizer(), KalmanRegressor())
    going, spill = _pipeline(folder, model=model, max_keys=20)
    plain = Pipeline(Normalizer(), KeyedRegressor(model=model, max_keys=20))
    for k, block in enumerate(_stream().blocks([200, 400])):
        state = through_json(going.state())
        resumed, _ = _pipeline(shutil.copytree(folder, tmp_path / str(k)), model=model, max_keys=20)
        resumed.load(state)
        spill.saved()
        expected = plain.run(block)
        assert_same_bits(expected, going.run(block))
        assert_same_bits(expected, resumed.run(block))
    going.save(tmp_path / "whole")
    loaded = load(tmp_path / "whole")
    assert_same_state(plain._state(whole=True), loaded._state(whole=True))
    assert repr(loaded.stages[1]) == repr(going.stages[1])


def test_a_state_with_files_needs_their_folder(tmp_path: Path) -> None:
    pipeline, _ = _pipeline(tmp_path)
    pipeline.run(next(_stream().blocks()))
    with pytest.raises(ValueError, match="must be loaded with their folder, got none for"):
        Pipeline(Normalizer(), KeyedRegressor()).load(pipeline.state())
