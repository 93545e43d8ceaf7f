"""Pools of experts against a plain loop over events, the specification's streams, and the laws."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.block import F8, LABELLED, LEARN, OBSERVE, PREDICT, UNSCORED, Block
from streamlearn.drift_evaluation import DriftEvaluation
from streamlearn.operators import (
    AnalyticRegressor,
    ExpertPoolClassifier,
    ExpertPoolRegressor,
    KalmanClassifier,
    KalmanRegressor,
    Normalizer,
    PageHinkley,
)
from streamlearn.pipeline import Pipeline
from streamlearn.testing import assert_same_bits, assert_same_state, block_of, cut, run_in_cuts
from tests.operators.test_adaptive import drifting


def turning(seed: int, n: int = 4000, period: int = 1000, d: int = 8) -> Block:
    """R20: two linear concepts, A B A B, noise 0.1."""
    rng = np.random.default_rng(seed)
    W, X = rng.normal(size=(2, d)), rng.normal(size=(n, d))
    y = np.einsum("td,td->t", X, W[np.arange(n) // period % 2]) + 0.1 * rng.normal(size=n)
    return block_of(X, y)


def said(model: Any, row: Block) -> Any:
    """What a model answers to one row; to answer changes nothing, as the conformance suite sees."""
    return model.run(row.replace(mode=np.array([PREDICT], np.uint8)))


class Expert:
    """A model, its own losses as a list, and how many lessons it had."""

    def __init__(self, model: Any, number: int) -> None:
        self.model, self.number = model, number
        self.losses: list[float] = []
        self.lessons = self.used = 0
        self.taught: list[Block] = []  # the last rows that it learnt, 4 win at most

    def learn(self, row: Block, loss: float) -> None:
        """One lesson; the losses of the first 15 are not kept."""
        self.lessons += 1
        if self.lessons > 15 and not math.isnan(loss):
            self.losses.append(loss)

    def bound(self, z: float) -> float:
        """Mean plus z deviations."""
        sd = np.std(self.losses, ddof=1) if len(self.losses) > 1 else 0.0
        return float((np.mean(self.losses) if self.losses else 0.0) + z * sd)


class Naive:
    """The pool event by event: no blocks, no snapshots, everything in lists."""

    def __init__(self, model: Any, detector: Any = None, **given_: Any) -> None:
        self.make, self.detector = model.clone, detector
        self.z, self.warm, self.win = given_["z"], given_["warm"], given_["win"]
        self.every, self.size, self.merge = (given_[name] for name in ("every", "size", "merge"))
        self.experts = [Expert(self.make(), 0)]
        self.active, self.born, self.switches, self.merged = self.experts[0], 0, 0, 0
        self.aside: list[tuple[Block, float]] = []
        self.counter = self.lessons = 0
        self.copies: list[Any] = []
        self.copied = 0

    def loss(self, model: Any, row: Block) -> float:
        """Log loss of a class, squared error of a number; NaN without label or answer."""
        outputs = said(model, row)
        if np.isnan(row.y[0]) or np.isnan(outputs["prediction"][0]):
            return math.nan
        if "proba" not in outputs:
            return float((row.y[0] - outputs["prediction"][0]) ** 2)
        code, proba = int(row.y[0]), outputs["proba"][0]
        return -math.log(max(proba[code] if code < len(proba) else 0.0, 1e-15))

    def step(self, row: Block) -> str:
        """Take one event; what was done if there was a shift, else nothing."""
        if not row.mode[0] & LEARN or np.isnan(row.y[0]):
            self.active.model.run(row)
            return ""
        loss, before = self.loss(self.active.model, row), self.lessons
        done = self.by_score(row, loss) if self.detector is None else self.by_ear(row, loss)
        if self.lessons > before and self.lessons % self.merge == 0:
            while self.unite():
                self.merged += 1
        return done

    def by_score(self, row: Block, loss: float) -> str:
        """R20's own trigger."""
        expert = self.active
        wise = expert.lessons > self.warm and len(expert.losses) > 1
        if not wise or not loss > expert.bound(self.z):
            expert.model.run(row)
            expert.learn(row, loss)
            expert.taught = [*expert.taught, row][-4 * self.win :]
            self.lessons += 1
            self.counter = max(self.counter - 1, 0)
            self.aside = self.aside if self.counter else []
            return ""
        expert.model.run(row.replace(mode=row.mode & ~np.uint8(LEARN)))
        self.aside = [*self.aside, (row, loss)][-4 * self.win :]
        self.counter += 1
        return self.shift(self.aside) if self.counter == self.win else ""

    def by_ear(self, row: Block, loss: float) -> str:
        """A detector on the loss."""
        self.active.model.run(row)
        self.active.learn(row, loss)
        self.lessons += 1
        self.aside = [*self.aside, (row, loss)][-200:]
        done = ""
        heard = not math.isnan(loss) and self.detector.first_alarm(np.array([loss])) >= 0
        if heard and self.detector.rose:
            done = self.shift(self.aside[-max(self.since(), self.win) :])
            self.detector.reset()
            self.detector.watch(np.nan_to_num([loss for _, loss in self.aside]))
        if self.lessons == self.copied + self.every:
            copy = self.make()
            copy.load(self.active.model.state())
            self.copies, self.copied = [*self.copies[-1:], copy], self.lessons
        return done

    def since(self) -> int:
        """Rows after the split of the losses that leaves the least sum of squares."""
        losses = np.nan_to_num([loss for _, loss in self.aside])
        left = [
            ((losses[:k] - losses[:k].mean()) ** 2).sum()
            + ((losses[k:] - losses[k:].mean()) ** 2).sum()
            for k in range(1, len(losses))
        ]
        return len(losses) - 1 - int(np.argmin(left)) if left else len(losses)

    def shift(self, rows: list[tuple[Block, float]]) -> str:
        """Choose, teach."""
        old, ear = self.active, self.detector is not None
        before = self.copies[0] if ear and self.copies else old.model
        z = self.z / math.sqrt(len(rows)) if ear else self.z
        if ear and self.kept(before, rows, 2.0 * z):
            return ""
        fits: list[tuple[float, int]] = []
        for place, expert in enumerate(self.experts):
            if expert.lessons <= self.warm or expert is old:
                continue
            mean = float(np.nanmean([self.loss(expert.model, row) for row, _ in rows]))
            if mean <= expert.bound(z):
                fits.append((mean, place))
        self.switches += 1
        old.used, old.model = self.switches, before
        if ear:
            stayed = [row for row, _ in self.aside[: -len(rows)]]
            old.taught = [*old.taught, *stayed][-4 * self.win :]
        action = "reuse" if fits else "new"
        self.active = self.experts[min(fits)[1]] if fits else self.fresh()
        young = self.active.lessons == 0
        for row, _ in rows:
            self.active.model.run(
                row.replace(mode=np.array([UNSCORED if young else LEARN], np.uint8))
            )
        self.active.lessons += len(rows)
        self.active.taught = [*self.active.taught, *(row for row, _ in rows)][-4 * self.win :]
        self.copies, self.copied, self.counter, self.aside = [], self.lessons, 0, []
        return f"{action} {self.active.number}"

    def knows(self, one: Expert, other: Expert) -> bool:
        """Whether one's loss on what the other learnt last is as usual for the other."""
        ear = self.detector is not None
        rows = [r for r, _ in self.aside] if ear and other is self.active else other.taught
        rows = rows[-4 * self.win :]
        if len(rows) < self.win or min(one.lessons, other.lessons) <= self.warm:
            return False
        mean = float(np.nanmean([self.loss(one.model, row) for row in rows]))
        return mean <= other.bound(min(self.z / math.sqrt(len(rows)), 1.0) if ear else 1.0)

    def unite(self) -> bool:
        """Drop the newer of the first two experts that know the same; whether there are such."""
        for newer in sorted(self.experts, key=lambda e: e.number):
            for older in sorted(self.experts, key=lambda e: e.number):
                if older is newer:
                    break
                if self.knows(older, newer) and self.knows(newer, older):
                    older.lessons += newer.lessons
                    older.losses += newer.losses
                    older.taught = [*older.taught, *newer.taught][-4 * self.win :]
                    older.used = max(older.used, newer.used)
                    self.experts.remove(newer)
                    if newer is self.active:
                        self.active, self.copies, self.copied = older, [], self.lessons
                    return True
        return False

    def kept(self, model: Any, rows: list[tuple[Block, float]], z: float) -> bool:
        """Whether the active expert, as it was, is no worse than usual on the rows of an alarm."""
        mean = float(np.nanmean([self.loss(model, row) for row, _ in rows]))
        return self.active.lessons > self.warm and mean <= self.active.bound(z)

    def fresh(self) -> Expert:
        """A new expert, at the end or in place of the one not used for longest."""
        self.born += 1
        fresh = Expert(self.make(), self.born)
        if len(self.experts) < self.size:
            self.experts.append(fresh)
        else:
            place = min(range(self.size), key=lambda j: self.experts[j].used)
            self.experts[place] = fresh
        return fresh


def actions(outputs: Any) -> list[str]:
    """What was done at each row, "" for nothing."""
    why = outputs.get("why", [None] * len(outputs["alarm"]))
    return [f"{found[0]['action']} {found[0]['expert']}" if found else "" for found in why]


EAR = PageHinkley(min_instances=10, delta=0.05, threshold=5.0)
SCORE: dict[str, Any] = {"z": 2.0, "warm": 30, "win": 5, "every": 40, "size": 3, "merge": 50}
CASES = {
    "score": (ExpertPoolRegressor, KalmanRegressor(), None),
    "ear": (ExpertPoolClassifier, KalmanClassifier(), EAR),
}


def stream(case: str, n: int, seed: int) -> Block:
    """Events of all modes, some without a label; two concepts, taking turns."""
    block = drifting(n, seed, period=100)
    if case == "score":
        rng = np.random.default_rng(seed)
        slope = np.where(np.arange(n) // 100 % 2 == 1, 3.0, -3.0)
        lost = np.where(np.isnan(block.y), np.nan, 0.0)
        block = block.replace(y=slope * block.X[:, 0] + rng.normal(size=n) + lost, labels=None)
    return block


@pytest.mark.jit
@pytest.mark.parametrize("case", CASES)
def test_a_pool_does_as_a_plain_loop_over_events_does(case: str) -> None:
    block = stream(case, 700, seed=0 if case == "score" else 3)
    family, model, detector = CASES[case]
    twin = Naive(model, None if detector is None else detector.clone(), **SCORE)
    expected = [twin.step(block.rows(t, t + 1)) for t in range(block.n)]
    pool = family(model, detector, **SCORE)
    assert actions(pool.run(block)) == expected
    assert sum(map(bool, expected)) >= 3
    assert pool.active_ == twin.active.number
    assert pool.n_switches_ == twin.switches
    assert pool.n_merged_ == twin.merged >= 1
    for k, (ours, theirs) in enumerate(zip(pool._experts, twin.experts, strict=True)):
        losses = np.array(theirs.losses)
        kept: F8 = np.array([len(losses), losses.mean(), losses.var() * len(losses)])
        np.testing.assert_allclose(pool.stats_[k, 1:4], kept, rtol=1e-9)
        assert pool.stats_[k, 0] == theirs.lessons
        for name, array in theirs.model.state().arrays.items():
            np.testing.assert_array_equal(ours.state().arrays[name], array)


@pytest.mark.jit
@given(st.sampled_from(sorted(CASES)), st.lists(st.integers(1, 399), max_size=8), st.integers(0, 3))
def test_no_cut_and_no_crash_changes_a_bit(case: str, cuts: list[int], seed: int) -> None:
    """Saved and read at every cut: with rows put aside, copies, and experts of several ages."""
    block = stream(case, 400, seed)
    family, model, detector = CASES[case]

    def made() -> Any:
        return family(model.clone(), None if detector is None else detector.clone(), **SCORE)

    one, other, answers = made(), made(), []
    expected = one.run(block)
    for piece in cut(block, cuts):
        answers.append(other.run(piece)["prediction"])
        other, last = made(), other
        other.load(last.state())
    np.testing.assert_array_equal(np.concatenate(answers), expected["prediction"])
    assert_same_state(one.state(), other.state())


@pytest.mark.jit
@pytest.mark.parametrize("case", CASES)
def test_late_labels_keep_the_law(case: str) -> None:
    """Experts change between an event and its label, which comes 5 to 30 events later."""
    block = stream(case, 300, seed=1).replace(mode=np.full(300, LABELLED, np.uint8))
    family, model, detector = CASES[case]
    due = np.arange(300) + np.random.default_rng(0).integers(5, 30, 300)
    order = sorted([(t, 0, t) for t in range(300)] + [(int(due[t]), 1, t) for t in range(300)])
    rows = np.array([t for *_, t in order])
    brings = np.array([kind == 1 for _, kind, _ in order])
    late = Block(
        np.where(brings[:, None], np.nan, block.X[rows]),
        np.where(brings, block.y[rows], np.nan),
        np.ones(600),
        np.where(brings, LEARN, PREDICT | OBSERVE).astype(np.uint8),
        block.features,
        block.labels,
        events=rows,
    )
    made = [
        Pipeline(family(model.clone(), None if detector is None else detector.clone(), **SCORE))
        for _ in range(2)
    ]
    one, other = made
    outputs = one.run(late)
    assert sum(map(bool, actions(outputs))) >= 1
    assert_same_bits(outputs, run_in_cuts(other, cut(late, [7, 100, 250, 251, 444])))
    assert_same_state(one.state(), other.state())


@pytest.mark.jit
def test_two_concepts_that_take_turns() -> None:
    """R20: three switches, each within 15 rows; two experts; then the floor of the noise."""
    block = turning(seed=0)
    pool = ExpertPoolRegressor(AnalyticRegressor(lam=1.0))
    outputs = pool.run(block)
    done = [(t, found) for t, found in enumerate(actions(outputs)) if found]
    assert [found for _, found in done] == ["new 1", "reuse 0", "reuse 1"]
    assert all(0 <= t - start <= 15 for (t, _), start in zip(done, (1000, 2000, 3000), strict=True))
    assert pool.n_experts == 2
    error = (outputs["prediction"] - block.y)[done[-1][0] + 20 :]
    assert np.mean(error**2) == pytest.approx(0.01, rel=0.1)
    found = outputs["why"][done[0][0]][0]
    assert found["statistic"] > found["limit"] > 0.01
    assert (found["detector"], found["watches"]) == ("ExpertPoolRegressor", "loss")


@pytest.mark.jit
@pytest.mark.parametrize("heard", [False, True])
def test_experts_whose_concepts_have_met_are_one(heard: bool) -> None:
    """From row 1,000 on another concept, which turns slowly, until row 4,000, into the first.

    The second expert follows; the next look finds that both know the same, and the first goes on.
    """
    rng = np.random.default_rng(0)
    W, X, t = rng.normal(size=(2, 8)), rng.normal(size=(6000, 8)), np.arange(6000)
    share = np.where(t < 1000, 1.0, np.clip((t - 1000) / 3000, 0.0, 1.0))[:, None]
    w = share * W[0] + (1.0 - share) * W[1]
    y = np.einsum("td,td->t", X, w) + 0.1 * rng.normal(size=6000)
    ears = PageHinkley(min_instances=10, delta=0.05, threshold=20.0) if heard else None
    pool = ExpertPoolRegressor(AnalyticRegressor(lam=0.98), ears, merge=500)
    first = pool.run(block_of(X, y).rows(0, 3000))
    assert [found for found in actions(first) if found] == ["new 1"]
    assert (pool.n_experts, pool.active_, pool.n_merged_) == (2, 1, 0)
    last = pool.run(block_of(X, y).rows(3000, 6000))
    assert not any(actions(last))
    assert (pool.n_experts, pool.active_, pool.n_merged_) == (1, 0, 1)
    assert np.mean((last["prediction"] - y[3000:])[-1000:] ** 2) < 0.0125


@pytest.mark.jit
def test_an_expert_that_knows_more_than_the_other_stays() -> None:
    """What the first meets in the noise of the second is usual there, but not the other way."""
    rng = np.random.default_rng(0)
    X, late = rng.normal(size=(2000, 8)), np.arange(2000) >= 1000
    y = X.sum(axis=1) + late * 0.5 * X[:, 0] + np.where(late, 1.0, 0.1) * rng.normal(size=2000)
    pool = ExpertPoolRegressor(AnalyticRegressor(lam=1.0), merge=500)
    pool.run(block_of(X, y))
    assert (pool.n_switches_, pool.n_experts, pool.n_merged_) == (1, 2, 0)
    assert pool._knows(0, 1)
    assert not pool._knows(1, 0)


@pytest.mark.jit
@pytest.mark.parametrize("heard", [False, True])
def test_as_usual_is_within_a_deviation_or_z_standard_errors(heard: bool) -> None:
    pool = ExpertPoolRegressor(AnalyticRegressor(lam=1.0), PageHinkley() if heard else None)
    pool.run(turning(seed=0, n=1900))
    assert (pool.n_experts, pool.active_, len(pool._memories[0])) == (2, 1, 48)
    X, y, *_ = pool._memories[0].columns()
    loss = np.mean(
        (pool.run(block_of(X, y).replace(mode=np.ones(48, np.uint8)))["prediction"] - y) ** 2
    )
    within = 3.0 / math.sqrt(48.0) if heard else 1.0
    for share, known in ((0.99, True), (1.01, False)):
        pool.stats_[0, 1:4] = 1001.0, loss - share * within * 0.5, 0.25 * 1000.0
        assert pool._knows(1, 0) is known


@pytest.mark.jit
def test_outliers_are_no_shift_and_are_not_learnt() -> None:
    """R20: 1 % of rows are 100 standard deviations off, for 20,000 rows."""
    block = turning(seed=5, n=20_000, period=20_000)
    out = np.random.default_rng(1).random(block.n) < 0.01
    block = block.replace(y=block.y + np.where(out, 10.0, 0.0))
    pool = ExpertPoolRegressor(AnalyticRegressor(lam=1.0))
    error = (pool.run(block)["prediction"] - block.y)[~out][5000:]
    assert pool.n_switches_ == 0
    assert np.mean(error**2) < 0.0102


@pytest.mark.jit
def test_a_square_beyond_all_numbers_leaves_the_mean_loss_as_it_was() -> None:
    """It would never be a number again, and no expert would ever be called back."""
    block = turning(seed=0)
    block.y[500] = 1e200
    pool = ExpertPoolRegressor(AnalyticRegressor(lam=1.0), PageHinkley())
    pool.run(block.rows(0, 501))
    assert 0.0 < pool.stats_[0, 2] < 1.0
    assert np.isfinite(pool.stats_).all()


@pytest.mark.jit
def test_a_false_alarm_changes_no_expert() -> None:
    """A detector that fires on one concept is overruled: the active expert is as good as ever."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 2))
    block = block_of(X, ((X[:, 0] > 0) ^ (rng.random(3000) < 0.2)).astype(float))
    nervous = PageHinkley(min_instances=10, delta=0.0, threshold=5.0)
    pool = ExpertPoolClassifier(KalmanClassifier(), nervous)
    outputs = pool.run(block)
    assert pool.n_overruled_ >= 8
    assert pool.n_switches_ <= 1
    assert outputs["alarm"].sum() == pool.n_switches_


@pytest.mark.jit
@pytest.mark.parametrize(
    ("name", "reused"), [("mixed", {20_000: 0, 30_000: 1}), ("stagger", {30_000: 0})]
)
def test_a_concept_of_lobo_that_comes_back(
    shared_data: Path, name: str, reused: dict[int, int]
) -> None:
    """Recovery under 50 rows, by the expert that learnt it then."""
    table = pq.read_table(shared_data / f"lobo_{name}_abrupt.parquet")
    columns = [table[c].to_numpy() for c in table.column_names if c != "class"]
    block = block_of(
        np.column_stack(columns).astype(np.float64), table["class"].to_numpy().astype(np.float64)
    )

    def made() -> Pipeline:
        return Pipeline(Normalizer(), ExpertPoolClassifier(KalmanClassifier(random_features=100)))

    pipe = made()
    evaluation = DriftEvaluation(made(), [10_000, 20_000, 30_000], horizon=300)
    done: dict[int, str] = {}
    for start, piece in zip(
        range(0, 40_000, 4000), cut(block, range(0, 40_000, 4000)), strict=True
    ):
        outputs = pipe.run(piece)
        evaluation.update(piece, outputs)
        done |= {start + t: found for t, found in enumerate(actions(outputs)) if found}
    assert len(done) == 3
    recovery = {drift["start"]: drift["recovery"] for drift in evaluation.result()["drifts"]}
    for start, expert in reused.items():
        assert f"reuse {expert}" in {found for t, found in done.items() if 0 <= t - start < 50}
        assert recovery[start] < 50


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"model": KalmanRegressor()}, r"model must do classification, got KalmanRegressor$"),
        ({"detector": Normalizer()}, r"detector must be a drift detector, got Normalizer$"),
        ({"size": 0}, r"size must be a whole number >= 1, got 0$"),
        ({"z": 0.0}, r"z must be > 0, got 0\.0$"),
        ({"win": 0}, r"win must be a whole number >= 1, got 0$"),
        ({"merge": 0}, r"merge must be a whole number >= 1, got 0$"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^ExpertPoolClassifier: " + message):
        ExpertPoolClassifier(**({"model": KalmanClassifier()} | given_))
