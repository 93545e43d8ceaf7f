"""Comparison: as separate replays, paired as a plain loop says, under any cut, with failures."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import river.linear_model
import river.naive_bayes
from rich.console import Console

from streamlearn import (
    Imputer,
    KalmanClassifier,
    MajorityClassifier,
    Normalizer,
    OneHotEncoder,
    Pipeline,
    Result,
    UserError,
    compare,
    compare_many,
    replay,
)
from streamlearn.block import F8, LEARN, SCORED, U1, Block, Columns, Features, Vocabulary
from streamlearn.comparison import Comparison, Ranking, compare_sets
from streamlearn.confidence import asymptotic_interval, bernstein_interval
from streamlearn.display import print_comparison
from streamlearn.event_log import EventLog
from streamlearn.lineup import lineup
from streamlearn.operators._base import Operator
from streamlearn.paired import PairedDifferences
from streamlearn.race import Race, entrants_of, paired_of, stream_of
from streamlearn.ranks import rank_test
from streamlearn.schema import Schema
from streamlearn.spill import Spill
from streamlearn.testing import assert_same_state
from tests.test_replay import classified, measured, records

N = 150
NAMES = ("KalmanHead", "NoChange", "Majority")


def numbers(n: int = N, seed: int = 2) -> list[dict[str, Any]]:
    """Two numbers and a target that is linear in them, with noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    y = 3 * X[:, 0] - X[:, 1] + rng.normal(size=n)
    return [{"a": float(a), "b": float(b), "y": float(t)} for (a, b), t in zip(X, y, strict=True)]


class Fragile(Operator):
    """A transformer that does what it is told to, until a row."""

    needs_label = False

    def __init__(self, at: int = 60, error: type[Exception] = RuntimeError) -> None:
        self.at, self.error = at, error
        self._seen = 0

    def _run(self, block: Block) -> Columns:
        self._seen += block.n
        if self._seen > self.at:
            raise self.error("no more")
        return {"X": block.X}


def fragile(at: int = 60, error: type[Exception] = RuntimeError) -> Pipeline:
    return Pipeline(Imputer(), OneHotEncoder(), Fragile(at, error), KalmanClassifier())


def own(result: Result) -> dict[str, Any]:
    """All but the clock, the label, and the size of a pickle, which shared texts change."""
    table = {k: v for k, v in measured(result).items() if k != "name"}
    return {k: v for k, v in table.items() if "River" not in table["model"] or k != "state_bytes"}


# -- as separate replays ---------------------------------------------------------------------------


@pytest.mark.parametrize("data", [records, numbers], ids=["classes", "numbers"])
def test_each_result_is_that_of_a_replay_of_its_own(data: Any) -> None:
    models = ("KalmanHead", "NoChange", "river.linear_model.PARegressor")
    if data is records:
        models = ("KalmanHead", "NoChange", "river.naive_bayes.GaussianNB")
    found = compare(data(), *models, target="y")
    assert found.events == N
    for label, model in zip(found.results, models, strict=True):
        alone = own(replay(data=data(), target="y", model=model))
        assert own(found.results[label]) == alone
        assert found.results[label].name == label


def test_the_data_are_read_once() -> None:
    """What can be read only once is enough for any number of pipelines."""
    rows = iter(records())
    found = compare((row for row in rows), *NAMES, target="y")
    assert [r.events for r in found.results.values()] == [N, N, N]
    assert next(rows, None) is None


def test_late_labels_are_as_late_as_in_a_replay() -> None:
    found = compare(records(), "KalmanHead", "NoChange", target="y", delay=7)
    for name, result in found.results.items():
        alone = replay(data=records(), target="y", model=name, delay=7)
        assert result.metrics == alone.metrics
        assert result.labels == alone.labels
    prompt = compare(records(), "KalmanHead", "NoChange", target="y", delay=0)
    plain = compare(records(), "KalmanHead", "NoChange", target="y")
    assert prompt.differences == plain.differences
    assert found.differences != plain.differences


def test_events_without_a_label_are_not_waited_for() -> None:
    """Where labels come with their events, what has none never gets one."""
    pipeline = classified()
    rows = [row | {"id": t} | ({"y": None} if t % 4 == 0 else {})
            for t, row in enumerate(records())]  # fmt: skip
    compare(rows, pipeline, "NoChange", schema=Schema.infer(rows, target="y", id="id"))
    assert pipeline.pending == 0


def test_every_log_keeps_to_the_memory_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pipelines and measures, not the first one's alone."""
    given: dict[int, int] = {}

    def told(log: EventLog, spill: Spill, memory: int) -> None:
        given[id(log)] = memory

    monkeypatch.setattr(EventLog, "spill_to", told)
    config = tmp_path / "c.yaml"
    lines = "".join(json.dumps(row) + "\n" for row in records())
    (tmp_path / "d.jsonl").write_text(lines)
    config.write_text(f"source: {tmp_path}/d.jsonl\nlabels: {{delay: 5, memory_mb: 3}}\n")
    stream = stream_of(str(config), None, {"target": "y"}, None, False)
    found = entrants_of(stream, {name: classified() for name in "abc"})
    assert len(found) == 3
    assert list(given.values()) == 6 * [3 << 20]
    paired_of(found, 0.05)
    found[0].measured_anew()  # as a search does when it goes on
    assert list(given.values()) == 8 * [3 << 20]


# -- paired differences ----------------------------------------------------------------------------


def answers(model: str, rows: list[dict[str, Any]], tmp_path: Path) -> list[Any]:
    """What a model said to each row in a replay of its own."""
    path = tmp_path / f"{model}.jsonl"
    replay(data=rows, target="y", model=model, predictions=path)
    return [json.loads(line)["prediction"] for line in path.read_text().splitlines()]


def naive(D: list[float]) -> tuple[int, float, float]:
    """Rows, mean, and the sum of squared distances from the mean before each row."""
    centres = [0.0, *(sum(D[:t]) / t for t in range(1, len(D)))]
    v = sum((d - c) ** 2 for d, c in zip(D, centres, strict=True))
    return len(D), sum(D) / len(D), v


def test_difference_of_accuracies_is_that_of_a_plain_loop(tmp_path: Path) -> None:
    rows = records()
    said = [answers(model, rows, tmp_path) for model in ("KalmanHead", "NoChange")]
    both = [(a, b, r["y"]) for a, b, r in zip(*said, rows, strict=True) if a and b]
    D = [float(a == y) - float(b == y) for a, b, y in both]
    n, mean, v = naive(D)
    found = compare(rows, "KalmanHead", "NoChange", target="y").difference("KalmanHead", "NoChange")
    low, high = bernstein_interval(n, mean, v, 0.05)
    assert found.rows == n
    assert found.difference == (D.count(1) - D.count(-1)) / n
    assert (found.wins, found.defeats) == (D.count(1), D.count(-1))
    assert [found.low, found.high] == pytest.approx([float(low), float(high)], rel=1e-12)


def test_difference_of_errors_is_that_of_a_plain_loop(tmp_path: Path) -> None:
    rows = numbers()
    said = [answers(model, rows, tmp_path) for model in ("KalmanHead", "NoChange")]
    both = [(a, b, r["y"]) for a, b, r in zip(*said, rows, strict=True) if None not in (a, b)]
    D = [abs(a - y) - abs(b - y) for a, b, y in both]
    n, mean, v = naive(D)
    differing = [t for t, d in enumerate(D) if d]
    scale = naive(D[: differing[99] + 1])[2]
    low, high = asymptotic_interval(n, mean, v, 0.05, scale)
    found = compare(rows, "KalmanHead", "NoChange", target="y").difference("KalmanHead", "NoChange")
    expected = pytest.approx([mean, float(low), float(high)], rel=1e-9)
    assert [found.difference, found.low, found.high] == expected
    assert found.verdict == "better"
    assert (found.wins, found.defeats) == (sum(d < 0 for d in D), sum(d > 0 for d in D))


def test_a_difference_seen_from_the_other_side_is_its_opposite() -> None:
    for rows in (records(), numbers()):
        found = compare(rows, "KalmanHead", "NoChange", target="y")
        one, other = found.difference("KalmanHead", "NoChange"), found.differences[1]
        assert (other.name, other.against) == ("NoChange", "KalmanHead")
        assert other.difference == -(one.difference or 0.0)
        assert (other.low, other.high) == (-(one.high or 0.0), -(one.low or 0.0))
        assert (other.wins, other.defeats) == (one.defeats, one.wins)
        assert (other.log_e_better, other.log_e_worse) == (one.log_e_worse, one.log_e_better)
        assert {one.verdict, other.verdict} == {"better", "worse"}


def test_the_same_pipeline_twice_cannot_be_told_apart() -> None:
    found = compare(records(), "KalmanHead", "KalmanHead", target="y")
    assert list(found.results) == ["KalmanHead", "KalmanHead 2"]
    pair = found.difference("KalmanHead 2")
    assert (pair.difference, pair.wins, pair.defeats) == (0.0, 0, 0)
    assert pair.verdict == "not distinguishable"
    assert "not distinguishable" in repr(found)


def test_a_reference_named_beforehand_gives_narrower_intervals() -> None:
    """Against the best all three pairs must hold together, against a named one two."""
    open_, named = (
        compare(records(), *NAMES, target="y", against=against) for against in (None, "KalmanHead")
    )
    one, other = (c.difference("NoChange", "KalmanHead") for c in (open_, named))
    assert one.difference == other.difference
    assert (one.low or 0.0) < (other.low or 0.0)
    assert (named.against, open_.best) == ("KalmanHead", "KalmanHead")


# -- the law ---------------------------------------------------------------------------------------


def late_stream(seed: int, task: str) -> tuple[Block, F8]:
    """60 events scored with answers of three, labels up to 9 rows late; some never, some expire."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=60) * 1.0 if task == "classification" else rng.normal(size=60)
    rows: list[tuple[float, int, int, float]] = [(i, 0, i, math.nan) for i in range(60)]
    for i in range(60):
        kind, lag = rng.random(), rng.integers(0, 10) + 0.5
        if kind < 0.8:
            rows.append((i + lag, 1, i, y[i]))
        elif kind < 0.9:
            rows.append((i + lag, 2, i, math.nan))
    rows.sort()
    events = np.array([r[2] for r in rows])
    kinds = np.array([r[1] for r in rows])
    mode: U1 = np.array([SCORED, LEARN, 0], dtype=np.uint8)[kinds]
    said = np.where(rng.random((len(rows), 3)) < 0.9, rng.integers(3, size=(len(rows), 3)), np.nan)
    X, weight = np.zeros((len(rows), 1)), np.ones(len(rows))
    labels = Vocabulary("abc") if task == "classification" else None
    target = np.array([r[3] for r in rows])
    return Block(X, target, weight, mode, Features(["a"]), labels, events=events), said


def fed(block: Block, said: F8, task: str, cut: int) -> PairedDifferences:
    found = PairedDifferences(task, 3, 0.05)
    for at in range(0, block.n, cut):
        part = said[at : at + cut]
        found.update(block.rows(at, min(at + cut, block.n)), [part[:, k] for k in range(3)])
    return found


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("seed", range(4))
def test_late_labels_are_paired_with_the_answers_of_then_under_any_cut(
    seed: int, task: str
) -> None:
    block, said = late_stream(seed, task)
    pending: dict[int, F8] = {}
    losses = []
    for t in range(block.n):  # one row at a time, with a dict
        event = int(block.events[t]) if block.events is not None else -1
        if block.mode[t] == SCORED:
            pending[event] = said[t]
        elif block.mode[t] == LEARN:
            then = pending.pop(event)
            off = np.abs(then - block.y[t])
            losses.append(np.where(np.isnan(then), np.nan, off != 0) if task[0] == "c" else off)
        else:
            del pending[event]
    names = ["x", "y", "z"]
    D = [a - b for a, b, _ in losses if not math.isnan(a - b)]
    n, mean, v = naive(D)
    whole = fed(block, said, task, block.n)
    found = whole.between(0, 1, names)
    assert found.rows == n
    assert found.difference == pytest.approx(-mean if task[0] == "c" else mean, rel=1e-12)
    for cut in (1, 2, 7, 50):
        parts = fed(block, said, task, cut)
        assert all(
            parts.between(i, j, names) == whole.between(i, j, names)
            for i in range(3)
            for j in range(3)
            if i != j
        )
    assert len(whole._log) == len(pending)
    if task == "classification":
        low, _ = bernstein_interval(n, -mean, v, 0.05 / 3)
        assert found.low == pytest.approx(max(float(low), -1.0), rel=1e-12)


def test_a_saved_state_goes_on_to_the_same_bits() -> None:
    block, said = late_stream(1, "regression")
    whole, half = fed(block, said, "regression", 1000), PairedDifferences("regression", 3, 0.05)
    half.update(block.rows(0, 40), [said[:40, k] for k in range(3)])
    other = PairedDifferences("regression", 3, 0.05)
    other.load(half.state())
    other.update(block.rows(40, block.n), [said[40:, k] for k in range(3)])
    names = ["x", "y", "z"]
    assert other.between(0, 2, names) == whole.between(0, 2, names)


def racing(rows: list[dict[str, Any]]) -> tuple[Any, Race]:
    stream = stream_of(rows, None, {"target": "y"}, None, False)
    entrants = entrants_of(stream, lineup(NAMES, stream.schema))
    return stream, Race(entrants, PairedDifferences("classification", 3, 0.05))


def test_a_race_that_is_saved_goes_on_to_the_same_bits() -> None:
    stream, race = racing(records())
    blocks = [stream.schema.decode(part)[0] for part in (records()[:70], records()[70:])]
    for block in blocks:
        race.run(block)
    _, first = racing(records())
    first.run(blocks[0])
    _, second = racing(records())
    second.load(first.state())
    second.run(blocks[1])
    assert second.events == race.events == N
    assert second.paired is not None
    assert race.paired is not None
    assert second.paired.between(0, 1, NAMES) == race.paired.between(0, 1, NAMES)
    for one, other in zip(race.entrants, second.entrants, strict=True):
        assert_same_state(one.pipeline.state(), other.pipeline.state())
        assert_same_state(one.observers.measure.state(), other.observers.measure.state())


def test_metrics_by_group_and_known_drifts_are_there_for_each() -> None:
    found = compare(records(), "KalmanHead", "NoChange", target="y", by="colour", drifts=[50])
    for name, result in found.results.items():
        alone = replay(data=records(), target="y", model=name, by="colour", drifts=[50])
        assert result.by_group == alone.by_group
        assert set(result.by_group) == {"red", "green", "blue"}
        assert result.drift == alone.drift
        assert result.known_drifts == [[50, 50]]


def test_the_course_ends_where_the_difference_does() -> None:
    found = compare(records(128), "KalmanHead", "NoChange", target="y").differences[0]
    assert found.course["row"] == list(range(1, 129))
    assert found.course["difference"][-1] == pytest.approx(found.difference)
    assert found.course["low"][-1] == pytest.approx(found.low)


# -- pipelines that fail ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, ValueError, ZeroDivisionError, KeyError])
def test_one_that_fails_in_the_middle_does_not_end_the_others(error: type[Exception]) -> None:
    rows = records(5000)[:N]
    found = compare(rows, "KalmanHead", fragile(60, error), "NoChange", target="y")
    assert list(found.results) == ["KalmanHead", "NoChange"]
    assert list(found.errors) == ["KalmanClassifier"]
    assert "no more" in found.errors["KalmanClassifier"]
    assert own(found.results["KalmanHead"]) == own(
        replay(data=rows, target="y", model="KalmanHead")
    )
    assert found.difference("NoChange").rows == N - 1
    header, body = found.rows()
    assert [row[0] for row in body if row[-1] == "failed"] == ["KalmanClassifier"]
    assert any("failed after 0 events" in line for line in found.facts())
    assert len(header) == len(body[0])


def test_when_all_fail_each_says_why() -> None:
    with pytest.raises(UserError) as caught:
        compare(records(), fragile(20), fragile(30, ValueError), target="y")
    lines = str(caught.value).splitlines()
    assert lines[0] == "every pipeline failed:"
    assert lines[1] == "KalmanClassifier: failed after 0 events: RuntimeError: no more"
    assert lines[2] == "KalmanClassifier 2: failed after 0 events: no more"


def test_a_named_reference_that_fails_is_replaced_by_the_best() -> None:
    found = compare(
        records(), fragile(), "KalmanHead", "NoChange", target="y", against="KalmanClassifier"
    )
    assert (found.against, found.best) == ("KalmanHead", "KalmanHead")


# -- what is refused -------------------------------------------------------------------------------


def test_an_empty_comparison_is_refused() -> None:
    with pytest.raises(UserError, match=r"^compare: must be given at least one pipeline: "):
        compare(records(), target="y")


def test_a_single_pipeline_has_the_baselines_alone() -> None:
    found = compare(records(), "KalmanHead", target="y")
    assert found.differences == []
    assert "one pipeline: there is nothing to compare it with but the baselines" in found.facts()
    assert [row[0] for row in found.rows()[1]] == ["KalmanHead", "(no_change)", "(majority)"]


class TestRefused:
    """Before an event is read, with the pipeline's label."""

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("KalmanHed", "^KalmanHed: .* did you mean KalmanHead"),
            ("river.tree.Nothing", "^Nothing: .* has no class"),
            ("KalmanHead(sigma=1)", r"^KalmanHead\(sigma=1\): .* has no argument 'sigma'"),
            ("KalmanHead(1)", "must read like Name"),
            ("KalmanHead(sigma2=open('x'))", "must read like Name"),
            ("nowhere.yaml", "nowhere.yaml"),
            ({"KalmanHead": 3}, "must be {name"),
            (KalmanClassifier, "must be an operator's name.*got <class"),
            (7, "^int: must be an operator's name"),
            ("ErrorMemory(model=KalmanHed)", r"^ErrorMemory.*: model: 'KalmanHed' is not the name"),
            ("ErrorMemory(model=Kalman(sigma2=0))", r": model\.sigma2: must be > 0, got 0$"),
            ("ErrorMemory(model=Kalman(0))", "must read like Name"),
            ("ADWIN", "^ADWIN: .* must be a classifier, a regressor or .*, got a detector"),
            (Pipeline(KalmanClassifier()), "^KalmanClassifier: .*OneHotEncoder"),
        ],
    )
    def test_a_wrong_pipeline(self, spec: Any, message: str) -> None:
        with pytest.raises(UserError, match=message):
            compare(records(), "NoChange", spec, target="y")

    def test_a_file_without_a_pipeline(self, tmp_path: Path) -> None:
        (tmp_path / "x.yaml").write_text("source: x.csv\n")
        with pytest.raises(UserError, match=r"^x: .*must have a `pipeline`"):
            compare(records(), str(tmp_path / "x.yaml"), target="y")

    def test_one_object_in_two_pipelines(self) -> None:
        shared = Normalizer()
        two = [Pipeline(Imputer(), OneHotEncoder(), shared, KalmanClassifier()) for _ in range(2)]
        with pytest.raises(UserError, match="must not share Normalizer with KalmanClassifier"):
            compare(records(), *two, target="y")

    @pytest.mark.parametrize("alpha", [0, 1, -0.1, "much"])
    def test_a_level_that_is_none(self, alpha: Any) -> None:
        with pytest.raises(UserError, match=r"^compare: alpha must be in \(0, 1\)"):
            compare(records(), "NoChange", target="y", alpha=alpha)

    def test_a_reference_that_is_not_there(self) -> None:
        with pytest.raises(UserError, match=r"^against: 'Kalman' is none of the pipelines"):
            compare(records(), "NoChange", target="y", against="Kalman")

    def test_no_data(self) -> None:
        with pytest.raises(UserError, match=r"^data: must be given"):
            compare(None, "NoChange")

    def test_json_into_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="there is no such folder"):
            compare(records(), "NoChange", target="y", json=tmp_path / "no" / "x.json")


# -- pipelines of every kind -----------------------------------------------------------------------


def test_pipelines_may_be_named_written_or_given(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("pipeline: [Imputer, OneHotEncoder, KalmanHead]\n")
    found = compare(
        records(),
        "KalmanHead(sigma2=0.5)",
        {"Kalman": {"sigma2": 0.5}},
        str(tmp_path / "mine.yaml"),
        classified(),
        MajorityClassifier(),
        river.naive_bayes.BernoulliNB(),
        "river.naive_bayes.BernoulliNB",
        target="y",
        features="a,b",
    )
    assert list(found.results) == [
        "KalmanHead(sigma2=0.5)",
        "Kalman(sigma2=0.5)",
        "mine",
        "KalmanClassifier",
        "MajorityClassifier",
        "BernoulliNB",
        "river.naive_bayes.BernoulliNB",
    ]
    first, second = (found.results[name].metrics for name in list(found.results)[:2])
    assert first == second


def test_members_of_a_named_model_are_named_alike() -> None:
    calls = [
        "ExpertMixture(experts=[Majority, KalmanHead(sigma2=0.5), river.naive_bayes.BernoulliNB])",
        "ErrorMemory(model=[Normalizer, Kalman], backend=neighbours, lam=None, eta=-1e-1 + 0.5)",
    ]
    with pytest.raises(UserError, match="must read like Name"):
        compare(records(), *calls, target="y", features="a,b")
    calls[1] = calls[1].replace("-1e-1 + 0.5", "0.4")
    results = compare(records(), *calls, target="y", features="a,b").results
    pipelines: list[Any] = [result.pipeline for result in results.values()]
    mixture, memory = (pipeline.predictor for pipeline in pipelines)
    names = [type(expert).__name__ for expert in mixture.members_]
    assert names == ["MajorityClassifier", "KalmanClassifier", "RiverClassifier"]
    assert mixture.members_[1].sigma2 == 0.5
    assert isinstance(memory.model, Pipeline)
    assert (memory.backend, memory.lam) == ("neighbours", None)


def test_a_given_pipeline_goes_on_learning() -> None:
    pipeline = classified()
    found = compare(records(), pipeline, "NoChange", target="y")
    assert found.results["KalmanClassifier"].pipeline is pipeline
    assert pipeline.predict_proba_one({"a": 3.0, "b": 3.0, "colour": "red"})["up"] > 0.5


# -- what it shows ---------------------------------------------------------------------------------


def test_json_holds_everything_but_the_pipelines(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    found = compare(records(), *NAMES, target="y", json=path)
    table = json.loads(path.read_text())
    assert table["best"] == "KalmanHead"
    assert table["results"]["NoChange"]["metrics"] == found.results["NoChange"].metrics
    assert len(table["differences"]) == 6
    assert set(table["microseconds"]) == set(NAMES)


def test_the_table_is_best_first_with_baselines_below() -> None:
    found = compare(records(), "NoChange", "Majority", "KalmanHead", target="y")
    _, body = found.rows()
    assert body[0][0] == "KalmanHead"
    assert [row[0] for row in body[3:]] == ["(no_change)", "(majority)"]
    console = Console(width=200, record=True, file=io.StringIO())
    print_comparison(found, console)
    shown = console.export_text()
    for words in ("KalmanHead", "us/event", "the best:", "worse", "in one pass", "95%"):
        assert words in shown
        assert words in repr(found)


def test_it_says_when_no_pipeline_beats_a_baseline() -> None:
    found = compare(records(), "NoChange", "Majority", target="y")
    value = found.results[found.best].baselines["majority"]["accuracy"]
    assert (
        f"no pipeline is better than the baseline majority: accuracy {value:.4f}" in found.facts()
    )
    better = compare(records(), "KalmanHead", target="y")
    assert not any(line.startswith("no pipeline") for line in better.facts())


# -- several data sets -----------------------------------------------------------------------------


def test_ranks_follow_from_the_scores_of_each_comparison() -> None:
    sets = {"one": records(seed=1), "two": records(seed=2), "three": numbers()}
    found = compare_many(sets, ["KalmanHead", "NoChange"], target="y")
    for name, scores in zip(sets, found.scores, strict=True):
        alone = compare(sets[name], "KalmanHead", "NoChange", target="y")
        metric = "mae" if name == "three" else "accuracy"
        assert scores.tolist() == [r.metrics[metric] for r in alone.results.values()]
    expected = rank_test(found.scores, [True, True, False])
    assert found.ranks is not None
    assert found.ranks.average.tolist() == expected.average.tolist() == [1.0, 2.0]
    assert found.critical_difference == expected.critical_difference
    text = repr(found)
    for words in ("KalmanHead", "three", "average rank", "critical difference", "Friedman"):
        assert words in text
    json.loads(found.to_json())


def test_a_pipeline_that_fails_on_a_data_set_comes_last_there() -> None:
    sets = {"one": records(), "two": records(seed=3)}
    found = compare_many(sets, [fragile(), "NoChange"], target={"one": "y", "two": "y"})
    assert found.ranks is not None
    assert found.ranks.ranks.tolist() == [[2.0, 1.0], [2.0, 1.0]]
    assert sum("no more" in line for line in found.facts()) == 2


def test_objects_start_untrained_on_every_data_set() -> None:
    given = classified()
    found = compare_many({"one": records(), "two": records()}, [given, "NoChange"], target="y")
    assert found.scores[0].tolist() == found.scores[1].tolist()
    assert given.features is None


def test_one_data_set_has_no_ranks_and_wrong_ones_are_named(tmp_path: Path) -> None:
    found = compare_many({"one": records()}, ["NoChange"], target="y")
    assert found.ranks is None
    assert "ranks need at least two" in repr(found)
    with pytest.raises(UserError, match=r"^two: .*there is no such file"):
        compare_many({"one": records(), "two": str(tmp_path / "no.csv")}, ["NoChange"], target="y")
    with pytest.raises(UserError, match="at least one data set"):
        compare_many([], ["NoChange"])


def test_each_data_set_has_a_report_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    sets = {"one": records(), "the other": numbers()}
    compare_many(sets, ["KalmanHead", "NoChange"], target="y", report=tmp_path / "r.html")
    for name, data in (("one", "accuracy"), ("the-other", "error")):
        text = (tmp_path / f"r-{name}.html").read_text()
        assert "KalmanHead" in text
        assert data in text.lower()


def test_a_report_nowhere_is_refused_before_the_stream(tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    rows = iter(records())
    with pytest.raises(UserError, match="no such folder"):
        compare((r for r in rows), "NoChange", target="y", report=tmp_path / "no" / "r.html")


def test_sets_are_one_comparison_or_a_ranking(tmp_path: Path) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "d.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in records()))
        paths.append(path)
    one = compare_sets(paths[:1], ["NoChange"], target="y")
    assert isinstance(one, Comparison)
    many = compare_sets(paths, ["NoChange", "Majority"], target="y")
    assert isinstance(many, Ranking)
    assert list(many.comparisons) == [str(path) for path in paths]  # files of one name
    assert set(many.results) == {f"{p}: {n}" for p in paths for n in ("NoChange", "Majority")}


def test_a_notebook_shows_the_report_of_all() -> None:
    shown = compare(numbers(), "KalmanHead", "Mean", target="y")._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "KalmanHead" in shown
    assert "Mean" in shown
