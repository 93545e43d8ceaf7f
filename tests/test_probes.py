"""Probes: by hand, against a plain loop, under any cut, resumed, and never learnt."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.block import LEARN, OBSERVE, PREDICT, Block, Columns, Csr, concatenate
from streamlearn.drift_evaluation import DriftEvaluation
from streamlearn.operators import KalmanClassifier, KalmanRegressor, Normalizer, OrdinalEncoder
from streamlearn.operators._base import Classifier
from streamlearn.pipeline import Pipeline
from streamlearn.probes import ProbedPipeline
from streamlearn.testing import (
    Plan,
    Stream,
    assert_same_bits,
    assert_same_state,
    block_of,
    cut,
    through_json,
)
from tests import naive_drift
from tests.test_drift_evaluation import DELAYS, MODELS, SMALL, delayed, observed, stream


class LastLabel(Classifier):
    """Says the last label that it has learnt, and notes what it was shown."""

    def __init__(self) -> None:
        self.last_ = float("nan")
        self.shown: list[tuple[float, int]] = []

    def _run(self, block: Block) -> Columns:
        said = np.full(block.n, np.nan)
        for t in range(block.n):
            self.shown.append((float(block.X[t, 0]), int(block.mode[t])))
            if block.mode[t] & PREDICT:
                said[t] = self.last_
            if block.mode[t] & LEARN:
                self.last_ = float(block.y[t])
        return {"prediction": said}


def answers(probed: ProbedPipeline, blocks: Iterable[Block]) -> Columns:
    """The outputs over consecutive blocks as those over one."""
    given_blocks = list(blocks)
    return concatenate([probed.run(block) for block in given_blocks], [b.n for b in given_blocks])


def numbered(y: Any) -> Block:
    """Labelled rows whose only feature is their number."""
    return block_of(np.arange(len(y), dtype=np.float64)[:, None], y)


def test_two_concepts_by_hand() -> None:
    """Events 9 and 19 are probes of the first concept, 29 and 39 of the second; asked every 10."""
    y = [1.0] * 20 + [0.0] * 20
    y[9], y[19], y[29], y[39] = 1.0, 0.0, 0.0, 1.0
    y[18], y[38] = 0.0, 0.0
    model = LastLabel()
    probed = ProbedPipeline(model, [20], probes=2, every=10)
    said = probed.run(numbered(y))["prediction"]
    # asked after 9: last label 1, probe 9 right -> 1; after 19: label 0, probes 9 wrong, 19 right;
    # after 29: label 0: first concept 1/2, second 1; after 39: 1/2, and 29 right, 39 wrong: 1/2
    assert probed.result() == {
        "average_anytime": (1.0 + 0.5 + 0.75 + 0.5) / 4,
        "worst_case": 0.5 / 2 + 0.5 / 2,
        "points": 4,
        "concepts": [
            {"start": 0, "probes": 2, "last": 0.5, "worst": 0.5},
            {"start": 20, "probes": 2, "last": 0.5, "worst": None},
        ],
    }
    assert said[9] == 1.0  # a probe is answered, as every event
    assert np.isnan(said[0])


def test_probes_are_never_observed_or_learnt() -> None:
    """A spy sees each probe asked alone, and no event learnt before it was asked."""
    model = LastLabel()
    probed = ProbedPipeline(model, [30], probes=2, every=25)
    probed.run(numbered(np.ones(80)))
    probes = {9.0, 19.0, 39.0, 49.0}
    modes = {x: {mode for shown, mode in model.shown if shown == x} for x, _ in model.shown}
    assert {x for x, found in modes.items() if found == {PREDICT}} == probes
    assert all(found == {7} for x, found in modes.items() if x not in probes)
    asked = set()
    for x, mode in model.shown:
        asked |= {x} if mode & PREDICT else set()
        assert not mode & (LEARN | OBSERVE) or x in asked


@pytest.mark.parametrize("how", DELAYS)
@pytest.mark.parametrize("name", MODELS)
def test_equals_a_plain_loop(name: str, how: str) -> None:
    make, task = MODELS[name]
    block = delayed(stream(task, 120, seed=3), how, seed=5)
    drifts = [(40, 40), (75, 85)]
    said, expected = naive_drift.probe_result(make(), block, drifts, task, probes=3, every=17)
    probed = ProbedPipeline(make(), drifts, probes=3, every=17)
    found = answers(probed, cut(block, [50, 51]))["prediction"]
    for one, other in zip(found, said, strict=True):
        assert one == other or (np.isnan(one) and other is None)
    measured = probed.result()
    assert measured["points"] == expected["points"] >= 6
    assert measured["average_anytime"] == pytest.approx(expected["average_anytime"], abs=1e-12)
    assert measured["worst_case"] == pytest.approx(expected["worst_case"], abs=1e-12)
    for mine, other in zip(measured["concepts"], expected["concepts"], strict=True):
        assert mine == pytest.approx(other, abs=1e-12)


def walked(blocks: Iterable[Block], make: Any, **settings: Any) -> tuple[ProbedPipeline, Columns]:
    probed = ProbedPipeline(make(), [20, 40], **settings)
    return probed, answers(probed, blocks)


@pytest.mark.parametrize("how", DELAYS)
@given(cuts=st.lists(st.integers(1, 119), max_size=6), every=st.integers(1, 30))
def test_any_cut_gives_the_same_bits(how: str, cuts: list[int], every: int) -> None:
    block = delayed(stream("classification", 60, seed=1), how, seed=2)
    make = MODELS["classifier"][0]
    whole, expected = walked([block], make, probes=2, every=every)
    pieces, found = walked(cut(block, cuts), make, probes=2, every=every)
    assert_same_bits(expected, found)
    assert whole.result() == pieces.result()
    assert_same_state(whole.state(), pieces.state())


@pytest.mark.parametrize("at", [0, 9, 10, 41, 50])
def test_goes_on_from_its_state(at: int) -> None:
    block = delayed(stream("classification", 60, seed=1), "rows", seed=2)
    make = MODELS["classifier"][0]
    first = ProbedPipeline(make(), [20, 40], probes=2, every=7)
    if at:
        first.run(block.rows(0, at))
    second = ProbedPipeline(make(), [20, 40], probes=2, every=7)
    second.load(through_json(first.state()))
    assert_same_state(first.state(), second.state())
    rest = block.rows(at, block.n)
    assert_same_bits(first.run(rest), second.run(rest))
    assert first.result() == second.result()
    assert_same_state(first.state(), second.state())


class Words(Classifier):
    """Answers whether the first sparse column is filled."""

    takes_sparse = True

    def _run(self, block: Block) -> Columns:
        assert block.sparse is not None
        return {"prediction": (block.sparse.dense()[:, 0] > 0).astype(np.float64)}


def test_sparse_features_are_kept_and_widened() -> None:
    rng = np.random.default_rng(0)
    dense = (rng.random((60, 3)) < 0.5).astype(np.float64)
    narrow, wide = dense[:30, :2], dense[30:]

    def csr(rows: Any) -> Csr:
        t, j = np.nonzero(rows)
        ends = np.concatenate([[0], np.cumsum(np.bincount(t, minlength=len(rows)))])
        return Csr(np.ones(len(t)), j.astype(np.int64), ends.astype(np.int64), rows.shape[1])

    blocks = [
        block_of(np.ones((30, i + 1)), part[:, 0]).replace(sparse=csr(part))
        for i, part in enumerate((narrow, wide))
    ]
    probed = ProbedPipeline(Words(), [], probes=6, every=10)
    for block in blocks:
        probed.run(block)
    assert probed.result()["concepts"] == [{"start": 0, "probes": 6, "last": 1.0, "worst": None}]
    again = ProbedPipeline(Words(), [], probes=6, every=10)
    again.load(through_json(probed.state()))
    assert again.run(blocks[1])["prediction"].tolist() == wide[:, 0].tolist()
    assert again.result() == probed.result() | {"points": 9}


def test_features_that_come_later_are_missing_in_old_probes() -> None:
    plan = Plan(rows=(40, 40), columns=(("normal",), ("missing", "category")), n_classes=2)
    made = Stream.from_plan(plan)
    make = MODELS["classifier"][0]

    def piped() -> Pipeline:
        return Pipeline(OrdinalEncoder(), *make().stages)

    whole = ProbedPipeline(piped(), [30], probes=3, every=11)
    rows = ProbedPipeline(piped(), [30], probes=3, every=11)
    expected = answers(whole, made.blocks())
    assert_same_bits(expected, answers(rows, made.blocks(range(80))))
    assert whole.result() == rows.result()
    assert whole.result()["points"] == 7


def test_the_reset_reference_leaves_out_the_same_probes() -> None:
    block = stream("classification", 120, seed=6)
    drifts = [(40, 40), (80, 80)]
    pipeline = MODELS["classifier"][0]()
    probed = ProbedPipeline(pipeline, drifts, probes=3, every=20)
    evaluation = DriftEvaluation(pipeline, drifts, probes=3, **SMALL)
    said = []
    for piece in cut(block, [33, 90]):
        outputs = probed.run(piece)
        evaluation.update(piece, outputs)
        said.append(outputs["prediction"])
    expected = naive_drift.drift_result(
        MODELS["classifier"][0](),
        block,
        np.concatenate(said),
        drifts,
        "classification",
        probes=3,
        **SMALL,
    )
    found = evaluation.result(probed)
    for mine, other in zip(found["drifts"], expected, strict=True):
        assert mine["reference"] == pytest.approx(other["reference"], abs=1e-12)
        assert mine["recovery"] == other["recovery"]
    assert found["probes"] == probed.result()
    json.dumps(found, allow_nan=False)
    without, _ = observed(MODELS["classifier"][0], [block], drifts, **SMALL)
    assert without.result()["probes"] is None


def test_what_cannot_be_probed_is_refused() -> None:
    with pytest.raises(ValueError, match="task of the pipeline must be"):
        ProbedPipeline(Pipeline(Normalizer()), [10])
    for name, value in (("probes", 0), ("every", 0)):
        with pytest.raises(ValueError, match=f"ProbedPipeline: {name} must be a whole number >= 1"):
            ProbedPipeline(Pipeline(KalmanClassifier()), [10], **{name: value})


def test_a_state_of_other_probes_is_refused() -> None:
    state = ProbedPipeline(Pipeline(KalmanClassifier()), [10]).state()
    other = ProbedPipeline(Pipeline(KalmanClassifier()), [10], every=5)
    with pytest.raises(ValueError, match="every must be 1000 as in the saved state, got 5"):
        other.load(state)


def test_it_stands_for_its_pipeline() -> None:
    pipeline = Pipeline(Normalizer(), KalmanRegressor())
    probed = ProbedPipeline(pipeline, [10], probes=5)
    probed.run(stream("regression", 30, seed=0))
    assert probed.state_bytes == pipeline.state_bytes > 0
    assert (probed.needs_pickle, probed.task) == (False, "regression")
    assert repr(probed) == f"ProbedPipeline({pipeline!r}, probes=5, every=1000)"
    assert probed.result()["worst_case"] is None
