"""Pipelines against a plain per-event loop: flow, cuts, delayed labels, freezing, saving."""

import copy
import shutil
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import anomaly, base, drift

from streamlearn.block import (
    CATEGORY,
    EXPIRED,
    LABELLED,
    LEARN,
    PREDICT,
    SCORED,
    Block,
    Features,
    Vocabulary,
    concatenate,
)
from streamlearn.errors import UserError
from streamlearn.operators import (
    ADWIN,
    AdaptiveClassifier,
    Imputer,
    KalmanClassifier,
    KalmanRegressor,
    MajorityClassifier,
    Normalizer,
    OneHotEncoder,
)
from streamlearn.pipeline import Pipeline, load
from streamlearn.spill import Spill
from streamlearn.testing import (
    Plan,
    Stream,
    assert_same_bits,
    assert_same_state,
    cut,
    run_in_cuts,
    through_json,
)


def classified() -> Pipeline:
    return Pipeline(Imputer(), OneHotEncoder(), Normalizer(), KalmanClassifier(), ADWIN())


def stream(n: int, seed: int, mode: Any = LABELLED, ids: Any = None) -> Block:
    """Three numbers, a category, two classes that the first two numbers tell apart."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    X[:, 3] = rng.integers(0, 4, size=n)
    X[rng.random((n, 4)) < 0.05] = np.nan
    y = (np.nansum(X[:, :2], axis=1) > 0).astype(np.float64)
    table = Vocabulary(["red", "green", "blue", "grey"])
    features = Features(["a", "b", "c", "colour"], ["number"] * 3 + [CATEGORY], {"colour": table})
    modes = np.full(n, mode, dtype=np.uint8)
    labels = Vocabulary(["no", "yes"])
    return Block(X, y, np.ones(n), modes, features, labels, ids=ids)


def rows_of(block: Block, order: list[int], modes: list[int]) -> Block:
    """Rows of a block in another order, with modes; ids are the rows' own numbers."""
    index = np.array(order)
    mode = np.array(modes, dtype=np.uint8)
    X = block.X[index].copy()
    X[mode == LEARN] = np.nan  # a label stream carries no features
    y = block.y[index].copy()
    y[mode == SCORED] = np.nan  # a live event has no label yet
    return Block(X, y, np.ones(len(order)), mode, block.features, block.labels, ids=index)


def test_stages_run_in_order_and_each_row_is_answered_before_it_is_learnt() -> None:
    """The pipeline's answers equal those of its stages, chained by hand, event by event."""
    block = stream(60, seed=0)
    pipe = Pipeline(Imputer(), OneHotEncoder(), Normalizer(), KalmanClassifier())
    whole = pipe.run(block)
    imputer, encoder, normalizer, head = (
        Imputer(),
        OneHotEncoder(),
        Normalizer(),
        KalmanClassifier(),
    )
    for t in range(block.n):
        row = block.rows(t, t + 1)
        for stage in (imputer, encoder, normalizer):
            out = stage.run(row)
            row = row.replace(X=out["X"], features=stage.output_features(row.features))
        answer = head.run(row)
        np.testing.assert_array_equal(answer["prediction"][0], whole["prediction"][t])


@given(st.lists(st.integers(1, 119), max_size=8), st.integers(0, 5))
@pytest.mark.jit
def test_any_cut_gives_the_same_bits(cuts: list[int], seed: int) -> None:
    block = stream(120, seed)
    one, other = classified(), classified()
    assert_same_bits(one.run(block), run_in_cuts(other, cut(block, cuts)))
    assert_same_state(one.state(), other.state())


class Late:
    """A per-event twin of a pipeline with late labels: it keeps what the head saw, by hand."""

    def __init__(self) -> None:
        self.before = Imputer(), Normalizer()
        self.head, self.detector = KalmanClassifier(), ADWIN()
        self.seen: dict[int, tuple[Block, float]] = {}
        self.answers: list[float] = []
        self.alarms: list[int] = []

    def score(self, row: Block) -> None:
        ready = row
        for stage in self.before:
            ready = ready.replace(X=stage.run(ready)["X"])
        answer = float(self.head.run(ready)["prediction"][0])
        self.answers.append(answer)
        self.alarms.append(0)
        self.seen[int(row.ids[0])] = (ready, answer)  # type: ignore[index]

    def learn(self, row: Block) -> None:
        ready, answer = self.seen.pop(int(row.ids[0]))  # type: ignore[index]
        self.head.run(ready.replace(y=row.y, mode=row.mode))
        wrong = np.nan if np.isnan(answer) else float(answer != row.y[0])
        self.answers.append(np.nan)
        self.alarms.append(int(self.detector.first_alarm(np.array([wrong])) >= 0))


@given(st.integers(0, 40), st.lists(st.integers(1, 159), max_size=6), st.integers(0, 3))
@pytest.mark.jit
def test_a_late_label_teaches_on_the_features_and_the_answer_of_then(
    delay: int, cuts: list[int], seed: int
) -> None:
    block = stream(80, seed)
    block = block.replace(X=block.X[:, :3].copy(), features=Features(["a", "b", "c"]))
    events = sorted([(t, 0, t) for t in range(80)] + [(t + delay, 1, t) for t in range(80)])
    late = rows_of(block, [t for *_, t in events], [LEARN if k else SCORED for _, k, _ in events])
    twin = Late()
    for i in range(late.n):
        row = late.rows(i, i + 1)
        (twin.learn if row.mode[0] == LEARN else twin.score)(row)
    pipe = Pipeline(Imputer(), Normalizer(), KalmanClassifier(), ADWIN())
    outputs = run_in_cuts(pipe, cut(late, cuts))
    np.testing.assert_array_equal(outputs["prediction"], twin.answers)
    np.testing.assert_array_equal(outputs["alarm"], twin.alarms)
    assert_same_bits(pipe.stages[2].state().arrays, twin.head.state().arrays)
    assert pipe.pending == 0


def test_a_class_or_feature_unknown_at_scoring_stays_unknown_when_the_label_comes() -> None:
    """An event is scored, then a category opens a column; the label learns with the old width."""
    block = stream(30, seed=1)
    first = block.X[:, 3] == 0
    X = block.X.copy()
    X[:, 3] = 0
    X[-1, 3] = 1
    block = block.replace(X=X)
    pipe = Pipeline(OneHotEncoder(), Imputer(), KalmanClassifier())
    order = [*range(30), 5]
    pipe.run(rows_of(block, order, [SCORED] * 30 + [LEARN]))
    assert first.any()
    assert pipe.pending == 29
    weights = pipe.stages[2].state()
    assert weights.table["features"]["names"][-1] == "colour=green"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_gap_that_the_head_fills_stays_filled_as_it_was_at_scoring(wrapped: bool) -> None:
    """A head on its own learns late what it learns behind an imputer, which fills at scoring."""
    block = stream(60, seed=9)
    block = block.replace(X=block.X[:, :3].copy(), features=Features(["a", "b", "c"]))
    block.X[0] = 1.0
    late = rows_of(block, [*range(60), *range(60)], [SCORED] * 60 + [LEARN] * 60)
    head, behind = KalmanClassifier(), Pipeline(Imputer(), KalmanClassifier())
    alone = Pipeline(AdaptiveClassifier(head, ADWIN()) if wrapped else head)
    assert_same_bits(
        {"prediction": alone.run(late)["prediction"]},
        {"prediction": behind.run(late)["prediction"]},
    )
    expected = behind.stages[1].state().arrays["means_"]
    np.testing.assert_allclose(head.means_, expected, rtol=1e-12, atol=1e-13)
    assert np.isnan(block.X).any()


def test_a_predict_row_logs_nothing_and_changes_nothing() -> None:
    block = stream(40, seed=2)
    pipe = classified()
    pipe.run(block)
    before = pipe.state()
    pipe.run(block.replace(mode=np.full(40, PREDICT, np.uint8), ids=np.arange(40)))
    assert_same_state(before, pipe.state())
    assert pipe.pending == 0


def test_pending_events_survive_saving(tmp_path: Any) -> None:
    """Half of the labels come after the pipeline was written and read."""
    block = stream(50, seed=3)
    scored = rows_of(block, list(range(50)), [SCORED] * 50)
    labels = rows_of(block, list(range(50)), [LEARN] * 50)
    pipe = classified()
    pipe.run(stream(50, seed=4))
    pipe.run(scored)
    pipe.run(labels.rows(0, 20))
    pipe.save(tmp_path / "pipe.sl")
    other = load(tmp_path / "pipe.sl")
    assert other.pending == 30
    pipe.run(labels.rows(20, 50))
    other.run(labels.rows(20, 50))
    assert_same_state(pipe.state(), other.state())


def test_a_frozen_pipeline_answers_and_learns_nothing() -> None:
    pipe = classified()
    pipe.run(stream(80, seed=5))
    before = pipe.state()
    answers = pipe.freeze().run(stream(40, seed=6))
    assert_same_state(before, pipe.unfreeze().state())
    assert not np.isnan(answers["prediction"]).any()
    pipe.run(stream(40, seed=6))
    with pytest.raises(AssertionError, match="differs"):
        assert_same_state(before, pipe.state())


def numbered(n: int, seed: int, delay: Any, fate: Any = LEARN) -> Stream:
    """Numbers and a category with labels that come late, joined by the numbers of the events."""
    plan = Plan(rows=(n,), columns=(("normal", "missing", "category"),), n_classes=2, seed=seed)
    return Stream.from_plan(plan).late(delay, fate)


def test_labels_are_joined_by_number_where_events_have_one() -> None:
    """Ids may then be anything: here all events have the same."""
    late = numbered(80, 1, 7)
    one, other = classified(), classified()
    outputs = run_in_cuts(one, late.blocks())
    assert one.pending == 0
    assert late.events is not None
    again = late.changed(events=None, ids=late.events)
    assert_same_bits(outputs, run_in_cuts(other, again.blocks()))
    alike = late.changed(ids=np.zeros(late.n, dtype=np.int64))
    assert_same_bits(outputs, run_in_cuts(classified(), alike.blocks()))
    assert_same_state(one.state(), other.state())


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_an_event_whose_label_will_not_come_is_dropped(step: int) -> None:
    """By an expired row, or known from the start; a label that comes after all finds nothing."""
    fate = np.array([LEARN, EXPIRED, SCORED, LABELLED] * 10)
    late = numbered(40, 2, 5, fate)
    pipe = classified()
    run_in_cuts(pipe, late.blocks(range(0, late.n, step)))
    assert pipe.pending == 0
    half = classified()
    until = int(np.flatnonzero(late.mode == LEARN)[0])
    run_in_cuts(half, [b for b in late.blocks([until]) if b.n == until])
    assert half.pending == 4 - int(np.count_nonzero(late.mode[:until] == EXPIRED))
    head = pipe.stages[3]
    assert isinstance(head, KalmanClassifier)
    assert head.n_samples_ == 20  # ten late, ten at once


@pytest.mark.parametrize("cuts", [[], [1, 2], [57, 100, 130]])
def test_of_a_label_and_its_expiry_the_first_counts(cuts: list[int]) -> None:
    late = numbered(60, 3, 40)
    assert late.events is not None
    last = int(late.events.max())
    tell = np.flatnonzero((late.events == last) & (late.mode == LEARN))
    rows = np.concatenate([np.arange(late.n), tell])
    mode = np.concatenate([late.mode, [EXPIRED]]).astype(np.uint8)
    names = ("X", "y", "weight", "events")
    after = late.changed(mode=mode, **{name: getattr(late, name)[rows] for name in names})
    swapped = after.mode.copy()
    swapped[tell], swapped[-1] = EXPIRED, LEARN
    learnt = []
    for stream in (late, after, after.changed(mode=swapped)):
        pipe = classified()
        run_in_cuts(pipe, stream.blocks(cuts))
        assert pipe.pending == 0
        head = pipe.stages[3]
        assert isinstance(head, KalmanClassifier)
        learnt.append(head.n_samples_)
    assert learnt == [60, 60, 59]


def test_a_frozen_pipeline_logs_events_and_drops_labels() -> None:
    """What came while it was frozen is not learnt; what comes after is, with what was then."""
    late = numbered(60, 4, 10)
    blocks = list(late.blocks([40, 80]))
    assert [block.n for block in blocks] == [40, 40, 40]
    pipe, twin = classified(), classified()
    for model in (pipe, twin):
        run_in_cuts(model, blocks[:1])
    before = {name: state for name, state in pipe.state().arrays.items() if "pending" not in name}
    pending = pipe.pending
    pipe.freeze()
    outputs = run_in_cuts(pipe, blocks[1:2])
    frozen = {name: state for name, state in pipe.state().arrays.items() if "pending" not in name}
    assert_same_bits(before, frozen)
    asks = blocks[1].mode == SCORED
    assert not np.isnan(outputs["prediction"][asks]).any()
    scored, told = np.count_nonzero(asks), np.count_nonzero(blocks[1].mode == LEARN)
    assert pipe.pending == pending + scored - told
    head = pipe.unfreeze().stages[3]
    assert isinstance(head, KalmanClassifier)
    learnt = head.n_samples_
    run_in_cuts(pipe, blocks[2:])
    assert head.n_samples_ == learnt + np.count_nonzero(blocks[2].mode == LEARN)
    assert pipe.pending == 0


@pytest.mark.jit
@pytest.mark.parametrize("memory", [0, 200_000])
def test_a_pipeline_that_spills_says_and_learns_the_same(tmp_path: Any, memory: int) -> None:
    """In any cut, and after it was loaded from a state that names files."""
    late = numbered(5000, 5, 2500)
    plain = classified()
    outputs = run_in_cuts(plain, late.blocks())
    states = []
    for k, cuts in enumerate(([], range(0, late.n, 611), [3, 4, 4000, 4001, 6000])):
        pipe, spill = classified(), Spill(tmp_path / str(k))
        pipe.spill_to(spill, memory)
        head = list(late.blocks([*cuts, 4000]))
        rest: list[Block] = []
        while sum(block.n for block in head) > 4000:
            rest.insert(0, head.pop())
        first = run_in_cuts(pipe, head)
        states.append(pipe.state())
        assert states[-1].table["pending"]["files"]
        again = classified()
        again.spill_to(Spill(tmp_path / str(k)), memory)
        again.load(through_json(states[-1]))
        parts = [first, run_in_cuts(again, rest)]
        assert_same_bits(outputs, concatenate(parts, [4000, late.n - 4000]))
        assert_same_state(states[0], states[-1])
        assert_same_state(plain.state(), again.state())


def test_a_file_that_was_saved_holds_what_was_spilled(tmp_path: Any) -> None:
    late = numbered(2500, 6, 2400)
    pipe = Pipeline(Normalizer(), MajorityClassifier())
    blocks = [
        b.with_X(np.nan_to_num(b.X[:, :2]), Features(["a", "b"])) for b in late.blocks([2200])
    ]
    pipe.spill_to(Spill(tmp_path / "pending"), 0)
    pipe.run(blocks[0])
    assert pipe.state().table["pending"]["files"]
    pipe.save(tmp_path / "pipe.sl")
    shutil.rmtree(tmp_path / "pending")
    other = load(tmp_path / "pipe.sl")
    assert other.pending == 2200
    other.run(blocks[1])
    assert other.pending == 0


def test_a_stage_that_needs_no_label_is_not_shown_rows_that_only_tell_of_one() -> None:
    """They have no features: a River or scikit-learn estimator is not asked about nothing."""

    class Strict(base.Transformer):
        def learn_one(self, x: dict[Any, Any]) -> None:
            assert x

        def transform_one(self, x: dict[Any, Any]) -> dict[Any, Any]:
            assert x
            return x

    class Scorer(anomaly.HalfSpaceTrees):  # for its family
        def learn_one(self, x: dict[Any, Any]) -> None:
            assert x

        def score_one(self, x: dict[Any, Any]) -> float:
            assert x
            return float(len(x))

    late = numbered(30, 7, 4, np.array([LEARN, EXPIRED, LABELLED] * 10))
    pipe = Pipeline(Strict(), Scorer(), ADWIN())
    scores = run_in_cuts(pipe, late.blocks())["score"]
    np.testing.assert_array_equal(np.isnan(scores), (late.mode == LEARN) | (late.mode == EXPIRED))


def test_a_pipeline_on_dicts_learns_what_it_is_shown() -> None:
    pipe = Pipeline(Imputer(), OneHotEncoder(), Normalizer(), KalmanClassifier())
    assert pipe.predict_one({"a": 1.0}) is None
    for t in range(200):
        pipe.learn_one(
            {"a": float(t % 7), "shop": "x" if t % 2 else "y"}, "odd" if t % 2 else "even"
        )
    assert pipe.predict_one({"a": 3.0, "shop": "x"}) == "odd"
    assert pipe.predict_one({"a": 3.0, "shop": "y"}) == "even"
    assert pipe.predict_one({"a": 3.0, "shop": "never seen"}) in ("odd", "even")
    assert sum(pipe.predict_proba_one({"a": 3.0, "shop": "x"}).values()) == pytest.approx(1.0)


def test_a_nested_pipeline_inside_a_wrapper_keeps_the_outer_log() -> None:
    """Late labels go through Adaptive(Pipeline) as through the same stages without the wrapper."""
    block = stream(60, seed=7)
    events = list(range(60)) + list(range(60))
    late = rows_of(block, events, [SCORED] * 60 + [LEARN] * 60)
    stages = [Imputer(), OneHotEncoder(), Normalizer(), KalmanClassifier()]
    plain = Pipeline(*copy.deepcopy(stages))
    inner = Pipeline(*copy.deepcopy(stages))
    wrapped = Pipeline(AdaptiveClassifier(inner, ADWIN(), policy="reset"))
    plain.run(late)
    wrapped.run(late)
    assert wrapped.pending == 0
    assert_same_bits(plain.stages[3].state().arrays, inner.stages[3].state().arrays)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((), r"Pipeline: stages must be .* got nothing"),
        ((KalmanClassifier(), Normalizer()), r"Pipeline: stages must be transformers, then"),
        ((KalmanClassifier(), KalmanRegressor()), r"one predictor or none"),
        ((Normalizer(), ADWIN()), r"Pipeline: a detector needs a predictor before it"),
    ],
)
def test_stages_in_an_impossible_order_are_refused(stages: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pipeline(*stages)


def test_a_file_that_is_no_pipeline_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "pipe.sl"
    path.write_bytes(b"not a pipeline")
    with pytest.raises(UserError, match=r"pipe\.sl"):
        load(path)


def test_a_detector_watches_the_score_of_an_anomaly_scorer() -> None:
    """Rows that only ask are not watched: asking changes nothing."""
    block = stream(80, seed=10)
    block = block.replace(X=np.nan_to_num(block.X[:, :3]), features=Features(["a", "b", "c"]))
    block.mode[::3] = PREDICT
    pipe = Pipeline(Normalizer(), anomaly.HalfSpaceTrees(seed=1, window_size=10), ADWIN())
    outputs = pipe.run(block)
    scores = np.where(block.mode == PREDICT, np.nan, outputs["score"])
    np.testing.assert_array_equal(outputs["alarm"], ADWIN().watch(scores))
    detector = pipe.stages[2]
    assert isinstance(detector, ADWIN)
    assert detector.width == np.count_nonzero(block.mode != PREDICT)


def test_features_in_another_order_are_refused() -> None:
    pipe = Pipeline(Normalizer(), KalmanClassifier())
    pipe.run(stream(5, seed=0).replace(X=np.zeros((5, 2)), features=Features(["a", "b"])))
    other = stream(5, seed=0).replace(X=np.zeros((5, 2)), features=Features(["b", "a"]))
    with pytest.raises(ValueError, match=r"Pipeline: features must begin with those seen before"):
        pipe.run(other)


def test_where_no_labels_will_come_nothing_is_kept() -> None:
    block = stream(40, seed=8)
    pipe = classified()
    pipe.expects_labels = False
    answers = pipe.run(rows_of(block, list(range(40)), [SCORED] * 40))
    assert answers["prediction"].shape == (40,)
    assert pipe.pending == 0


def nested(policy: str, *before: Any) -> AdaptiveClassifier:
    """A pipeline with columns of its own in a wrapper that acts within a hundred rows."""
    model = Pipeline(OneHotEncoder(), *before, Imputer(), Normalizer(), KalmanClassifier())
    early, late = (
        ADWIN(delta=delta, clock=1, min_window_length=2, grace_period=2) for delta in (0.99, 0.9)
    )
    return AdaptiveClassifier(model, late, policy, warning=early)


def late_and_drifting(n: int, seed: int) -> Block:
    """Events and, up to 20 events later, their labels, some of them lost; classes turn round."""
    rng = np.random.default_rng(seed)
    block = stream(n, seed)
    turned = np.arange(n) >= n // 2
    block = block.replace(y=np.where(turned, 1.0 - block.y, block.y))
    delays = rng.integers(1, 20, size=n)
    lost = rng.random(n) < 0.1
    events = [(t, 0, t) for t in range(n)]
    events += [(t + int(delays[t]), 1, t) for t in range(n) if not lost[t]]
    order = sorted(events)
    return rows_of(block, [t for *_, t in order], [LEARN if k else SCORED for _, k, _ in order])


@given(
    st.sampled_from(["reset", "inflate", "background"]),
    st.booleans(),
    st.lists(st.integers(1, 100), max_size=6),
    st.integers(0, 30),
)
@pytest.mark.jit
def test_late_labels_keep_the_law_in_wrappers_that_act(
    policy: str, alone: bool, cuts: list[int], seed: int
) -> None:
    """Members are born and die between an event and its label; the cut does not show."""
    late = late_and_drifting(60, seed)
    make = nested if alone else lambda policy: Pipeline(nested(policy), ADWIN())
    one, other = make(policy), make(policy)
    assert_same_bits(one.run(late), run_in_cuts(other, cut(late, cuts)))
    assert_same_state(one.state(), other.state())


def test_a_member_born_after_scoring_learns_on_what_came_into_its_wrapper() -> None:
    """The model of then saw its own columns; they are nothing to the one that replaced it."""
    wrapper = nested("background")
    pipe = Pipeline(wrapper)
    block = stream(40, seed=2)
    pipe.run(rows_of(block, list(range(20)), [SCORED] * 20))
    wrapper._change(alarmed=False, warned=True)
    young = wrapper._background
    assert isinstance(young, Pipeline)
    pipe.run(rows_of(block, list(range(20, 40)), [SCORED] * 20))
    twin = copy.deepcopy(young)
    pipe.run(rows_of(block, [3], [LEARN]))
    twin.run(block.rows(3, 4).replace(mode=np.array([LEARN], np.uint8)))
    assert_same_bits(young.state().arrays, twin.state().arrays)
    wrapper._leads = np.ones(9)
    wrapper._change(alarmed=True, warned=False)
    assert wrapper.model is young
    pipe.run(rows_of(block, [4, 22], [LEARN] * 2))
    assert twin.stages[-1].n_samples_ == 1  # type: ignore[attr-defined]
    assert young.stages[-1].n_samples_ == 3  # type: ignore[attr-defined]


def test_a_wrapper_around_a_pipeline_is_saved_and_read(tmp_path: Any) -> None:
    late = late_and_drifting(60, seed=3)
    pipe = Pipeline(nested("background"), ADWIN())
    pipe.run(late.rows(0, 70))
    pipe.save(tmp_path / "pipe.sl")
    other = load(tmp_path / "pipe.sl")
    rest = late.rows(70, late.n)
    assert_same_bits(pipe.run(rest), other.run(rest))
    assert_same_state(pipe.state(), other.state())


def test_a_foreign_detector_in_a_wrapper_is_a_pickle_too(tmp_path: Any) -> None:
    pipe = Pipeline(AdaptiveClassifier(KalmanClassifier(), drift.PageHinkley()))
    pipe.learn_one({"a": 1.0}, "yes")
    with pytest.raises(UserError, match="allow_pickle"):
        pipe.save(tmp_path / "pipe.sl")
    pipe.save(tmp_path / "pipe.sl", allow_pickle=True)
    with pytest.raises(UserError, match="allow_pickle"):
        load(tmp_path / "pipe.sl")
    assert load(tmp_path / "pipe.sl", allow_pickle=True).predict_one({"a": 1.0}) == "yes"


def test_a_frozen_pipeline_of_transformers_stays_frozen_as_a_stage(tmp_path: Any) -> None:
    scaler = Pipeline(Normalizer())
    for value in (1.0, 2.0, 3.0):
        scaler.learn_one({"a": value})
    before = scaler.freeze().stages[0].state().arrays
    pipe = Pipeline(scaler, KalmanClassifier())
    pipe.learn_one({"a": 100.0}, "yes")
    assert_same_bits(before, scaler.stages[0].state().arrays)
    pipe.save(tmp_path / "pipe.sl")
    other = load(tmp_path / "pipe.sl")
    pipe.learn_one({"a": 50.0}, "no")
    other.learn_one({"a": 50.0}, "no")
    assert_same_state(pipe.state(), other.state())


@pytest.mark.parametrize(
    ("last", "method"),
    [(Normalizer, "predict_one"), (KalmanClassifier, "transform_one"),
     (KalmanRegressor, "predict_proba_one")],
)  # fmt: skip
def test_a_method_that_the_last_stage_has_no_answer_for_is_refused(last: Any, method: str) -> None:
    with pytest.raises(ValueError, match=rf"^Pipeline: the last stage must do \w.* for {method}"):
        getattr(Pipeline(last()), method)({"a": 1.0})


def test_features_whose_names_are_a_number_and_its_text_stay_apart(tmp_path: Any) -> None:
    pipe = Pipeline(OneHotEncoder(), KalmanClassifier())
    for number, label in (("u", "yes"), ("w", "no")):
        pipe.learn_one({1: number, "1": "v"}, label)
    pipe.save(tmp_path / "pipe.sl")
    other = load(tmp_path / "pipe.sl")
    assert other.predict_proba_one({1: "w"}) == pipe.predict_proba_one({1: "w"})


def test_a_block_with_other_modes_is_plain_no_more() -> None:
    """What was found out about a block is not said of its copy with other rows to learn."""
    block = stream(4, seed=0)
    assert block.plain
    assert block.replace(y=np.zeros(4)).plain
    asks = block.replace(mode=np.full(4, PREDICT, dtype=np.uint8))
    assert not asks.plain
    assert asks.replace(mode=block.mode).plain
