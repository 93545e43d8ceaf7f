"""Adaptation against a plain loop that sees one event at a time and needs no snapshot."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import drift, tree

from streamlearn.block import LABELLED, LEARN, PREDICT, UNSCORED, Block, Features, Vocabulary
from streamlearn.operators import (
    ADWIN,
    Adaptive,
    AdaptiveClassifier,
    AdaptiveRegressor,
    ChampionClassifier,
    ExpertPoolClassifier,
    KalmanClassifier,
    KalmanRegressor,
    MajorityClassifier,
    Normalizer,
)
from streamlearn.pipeline import Pipeline
from streamlearn.testing import (
    Plan,
    Stream,
    assert_same_bits,
    assert_same_state,
    cut,
    run_in_cuts,
)


def drifting(n: int, seed: int, period: int) -> Block:
    """Two features, two classes; what tells them apart is turned round every `period` rows."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    turned = (np.arange(n) // period) % 2 == 1
    y = ((X[:, 0] > 0) ^ turned).astype(np.float64)
    mode = np.full(n, LABELLED, dtype=np.uint8)
    mode[rng.random(n) < 0.1] = UNSCORED
    mode[rng.random(n) < 0.05] = PREDICT
    mode[rng.random(n) < 0.05] = LEARN
    y[rng.random(n) < 0.05] = np.nan
    return Block(X, y, np.ones(n), mode, Features(["a", "b"]), Vocabulary([0, 1]))


class Naive:
    """Asks, compares, learns and adapts event by event; the wrapper without blocks."""

    def __init__(self, policy: str, delta: float) -> None:
        self.policy = policy
        self.model: Any = KalmanClassifier()
        self.detector, self.early = ADWIN(delta=delta), ADWIN(delta=min(10 * delta, 0.5))
        self.background: Any = None
        self.leads: list[float] = []

    def step(self, row: Block) -> tuple[float, int]:
        learns = bool(row.mode[0] & LEARN) and not np.isnan(row.y[0])
        answer = self.model.clone()
        answer.load(self.model.state())
        said = answer.run(row.replace(mode=np.array([PREDICT], np.uint8)))["prediction"][0]
        self.model.run(row)
        if self.background is not None:
            other = self.background.clone()
            other.load(self.background.state())
            then = other.run(row.replace(mode=np.array([PREDICT], np.uint8)))["prediction"][0]
            if learns and not np.isnan(said) and not np.isnan(then):
                self.leads.append(float(said != row.y[0]) - float(then != row.y[0]))
            self.background.run(row)
        alarm = self.adapt(float(said != row.y[0])) if learns and not np.isnan(said) else 0
        return (said if row.mode[0] & PREDICT else np.nan), alarm

    def adapt(self, error: float) -> int:
        alarm = self.detector.first_alarm(np.array([error])) >= 0 and self.detector.rose
        warning = self.early.first_alarm(np.array([error])) >= 0 and self.early.rose
        if self.policy == "inflate" and alarm:
            self.model.inflate(10.0)
        elif self.policy == "reset" and alarm:
            self.model, self.detector = KalmanClassifier(), ADWIN(delta=self.detector.delta)
        elif self.policy == "background" and alarm:
            lead = np.array(self.leads[-50:])
            if lead.sum() <= 2 * np.sqrt((lead != 0).sum()):
                self.background = None
            self.model, self.background = self.background or KalmanClassifier(), None
            self.leads = []
            self.detector, self.early = (
                ADWIN(delta=self.detector.delta),
                ADWIN(delta=self.early.delta),
            )
        elif self.policy == "background" and warning:
            self.background, self.leads = KalmanClassifier(), []
        return int(alarm)


@pytest.mark.jit
@pytest.mark.parametrize("policy", ["notify", "reset", "inflate", "background"])
def test_adapts_as_a_plain_loop_over_events_does(policy: str) -> None:
    block = drifting(1500, seed=1, period=400)
    twin = Naive(policy, delta=0.05)
    expected = [twin.step(block.rows(t, t + 1)) for t in range(block.n)]
    wrapper = AdaptiveClassifier(KalmanClassifier(), ADWIN(delta=0.05), policy)
    outputs = wrapper.run(block)
    np.testing.assert_array_equal(outputs["prediction"], [said for said, _ in expected])
    np.testing.assert_array_equal(outputs["alarm"], [alarm for _, alarm in expected])
    assert outputs["alarm"].sum() >= 2
    assert wrapper.n_alarms_ == outputs["alarm"].sum()
    ours, theirs = wrapper.model.state(), twin.model.state()
    for name in ours.arrays:
        np.testing.assert_array_equal(ours.arrays[name], theirs.arrays[name])


@pytest.mark.jit
@given(
    st.sampled_from(["notify", "reset", "inflate", "background"]),
    st.lists(st.integers(1, 799), max_size=12),
    st.integers(0, 4),
)
def test_no_cut_changes_a_bit(policy: str, cuts: list[int], seed: int) -> None:
    """Restore and rerun: an alarm in the middle of a block acts on the rows after it."""
    block = drifting(800, seed, period=200)
    one = AdaptiveClassifier(KalmanClassifier(), ADWIN(delta=0.1), policy)
    other = AdaptiveClassifier(KalmanClassifier(), ADWIN(delta=0.1), policy)
    assert_same_bits(one.run(block), run_in_cuts(other, cut(block, cuts)))
    assert_same_state(one.state(), other.state())


@pytest.mark.jit
def test_resetting_pays_on_a_stream_that_turns_round() -> None:
    block = drifting(4000, seed=3, period=1000)
    wrong = {}
    for policy in ("notify", "reset", "background", "inflate"):
        model = KalmanClassifier(lr_delta=0.0)
        said = AdaptiveClassifier(model, ADWIN(), policy).run(block)["prediction"]
        compared = ~np.isnan(said) & ~np.isnan(block.y)
        wrong[policy] = np.mean(said[compared] != block.y[compared])
    assert wrong["reset"] < 0.5 * wrong["notify"]
    assert wrong["background"] < 0.5 * wrong["notify"]
    assert wrong["inflate"] < wrong["notify"]


def test_a_regressor_watches_its_absolute_error() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 1))
    y = np.where(np.arange(900) < 500, 2.0, -2.0) * X[:, 0]
    block = Block(X, y, np.ones(900), np.full(900, LABELLED, np.uint8), Features(["a"]))
    alarm = AdaptiveRegressor(KalmanRegressor(lr_delta=0.0), ADWIN(), "reset").run(block)["alarm"]
    assert not alarm[:500].any()
    assert alarm[500:700].any()


def test_a_pipeline_and_river_stand_inside_as_well() -> None:
    """River's tree walks row by row with its detector; a pipeline is reset as a whole."""
    block = drifting(300, seed=5, period=150)
    block = block.replace(mode=np.full(300, LABELLED, np.uint8))
    ears = drift.ADWIN(delta=0.3)
    foreign = Adaptive(tree.HoeffdingTreeClassifier(), ears, "reset")
    other = foreign.clone()
    whole = foreign.run(block)
    parts = run_in_cuts(other, cut(block, [7, 100]))
    assert_same_bits(whole, parts)
    assert foreign.n_alarms_ > 0
    piped = Adaptive(Pipeline(Normalizer(), KalmanClassifier()), ADWIN(delta=0.3), "inflate")
    assert_same_bits(piped.run(block), run_in_cuts(piped.clone(), cut(block, [50, 51, 222])))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "retrain"}, r"^AdaptiveClassifier: policy must be one of notify, reset"),
        ({"factor": 1.0}, r"^AdaptiveClassifier: factor must be > 1, got 1\.0$"),
        ({"model": KalmanRegressor()}, r"model must do classification, got KalmanRegressor"),
        ({"detector": Normalizer()}, r"detector must be a drift detector, got Normalizer"),
        (
            {"model": MajorityClassifier(), "policy": "inflate"},
            r"policy inflate needs a covariance, MajorityClassifier keeps none",
        ),
        (
            {"detector": drift.KSWIN(), "policy": "background"},
            r"policy background needs a warning detector",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptiveClassifier(**({"model": KalmanClassifier(), "detector": ADWIN()} | arguments))


@pytest.mark.parametrize("delay", [None, 5])
@pytest.mark.parametrize(
    "around",
    [
        lambda model: AdaptiveClassifier(model, ADWIN(delta=1e-9)),
        lambda model: AdaptiveClassifier(model, ADWIN(delta=1e-9), "notify"),
        lambda model: ExpertPoolClassifier(model, ADWIN(delta=1e-9)),
        lambda model: ChampionClassifier(model, MajorityClassifier(), detector=ADWIN(delta=1e-9)),
    ],
)
def test_what_a_model_raises_is_told_by_whoever_stands_around_it(
    around: Any, delay: int | None
) -> None:
    """Alarm and finding on the row that raised it, which is a label's own where it came late."""
    turning = drifting(600, seed=0, period=150)
    stream = Stream.from_plan(Plan(rows=(600,), columns=(("normal", "normal"),), n_classes=2))
    stream = stream.changed(X=turning.X, y=turning.y)
    blocks = list((stream if delay is None else stream.late(delay)).blocks([100, 300]))
    model = AdaptiveClassifier(KalmanClassifier(), ADWIN(delta=0.01, clock=1))
    alone = np.flatnonzero(run_in_cuts(Pipeline(model.clone()), blocks)["alarm"])
    assert len(alone) > 0
    outputs = run_in_cuts(Pipeline(around(model)), blocks)
    told = {row: found for row, found in enumerate(outputs["why"]) if found is not None}
    np.testing.assert_array_equal(np.flatnonzero(outputs["alarm"]), list(told))
    resets = [row for row, found in told.items() if any(f["action"] == "reset" for f in found)]
    if delay is None:
        np.testing.assert_array_equal(resets, alone)
    assert len(resets) > 0


@pytest.mark.parametrize("policy", ["notify", "reset", "inflate", "background"])
def test_a_block_without_rows_has_all_columns(policy: str) -> None:
    block = drifting(4, seed=0, period=2)
    model = AdaptiveClassifier(KalmanClassifier(), ADWIN(), policy)
    assert sorted(model.run(block.rows(0, 0))) == sorted(model.run(block))
