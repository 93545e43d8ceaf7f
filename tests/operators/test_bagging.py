"""Bagging against a plain loop over events, with weights drawn and members taught one by one."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from river import compose, linear_model, preprocessing

from streamlearn.block import F8, LABELLED, LEARN, PREDICT, SCORED, UNSCORED, Block
from streamlearn.jit.counter import bits, key_of, unit
from streamlearn.jit.ensemble import bag_weights, vote_classes
from streamlearn.operators import (
    ADWIN,
    ADWINBaggingClassifier,
    ADWINBaggingRegressor,
    KalmanClassifier,
    KalmanRegressor,
    MajorityClassifier,
    MeanRegressor,
    Normalizer,
    OnlineBaggingClassifier,
    OnlineBaggingRegressor,
)
from streamlearn.operators._ensemble import _stacked
from streamlearn.pipeline import Pipeline
from streamlearn.testing import (
    assert_same_bits,
    assert_same_state,
    cut,
    labelled,
    run_in_cuts,
    through_json,
)


def turning(n: int, seed: int, period: int) -> Block:
    """Two classes; what tells them apart is turned round every `period` rows."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    turned = (np.arange(n) // period) % 2 == 1
    return labelled(X, ((X[:, 0] > 0) ^ turned).astype(float), "classification")


def drawn(seed: int, member: int, event: int, lam: float) -> int:
    """The Poisson draw of an event by the product of the distribution's terms."""
    u = unit(bits(key_of(seed, f"member {member}"), event + 1))[event]
    k, term = 0, np.exp(-lam)
    total = term
    while u > total:
        k += 1
        term *= lam / k
        total += term
    return k


def asked(block: Block) -> Block:
    return block.replace(mode=np.full(block.n, PREDICT, np.uint8))


def answer_of(member: Any, row: Block) -> Any:
    """What a member would say, from a copy."""
    twin = member.clone()
    twin.load(member.state())
    return twin.run(asked(row))


def test_members_are_taught_as_a_plain_loop_teaches_them() -> None:
    """Rows of all kinds; only those that learn or are observed have a number."""
    block, rng = turning(200, 0, 80), np.random.default_rng(1)
    mode = rng.choice([LABELLED, UNSCORED, SCORED, LEARN, PREDICT], 200).astype(np.uint8)
    block = block.replace(mode=mode, weight=rng.choice([0.0, 0.5, 2.0], 200))
    bag = OnlineBaggingClassifier(KalmanClassifier(), n=3, lam=2.0, seed=5)
    members = [KalmanClassifier() for _ in range(3)]
    said = bag.run(block)
    event = 0
    for t in range(200):
        row = block.rows(t, t + 1)
        votes = [answer_of(member, row) for member in members]
        if row.mode[0] & PREDICT and not np.isnan(votes[0]["prediction"][0]):
            mean = np.mean([vote["proba"][0] for vote in votes], axis=0)
            assert_allclose(said["proba"][t, : mean.size], mean, rtol=1e-12)
        if row.mode[0] == PREDICT:
            continue
        for j, member in enumerate(members):
            member.run(row.replace(weight=row.weight * drawn(5, j, event, 2.0)))
        event += 1
    assert bag.n_events_ == event
    for mine, theirs in zip(bag.members_, members, strict=True):
        assert_same_state(mine.state(), theirs.state())


def correlation(a: F8, b: F8) -> float:
    return float(np.mean((a - a.mean()) * (b - b.mean())) / (a.std() * b.std()))


@pytest.mark.jit
@pytest.mark.parametrize("lam", [0.3, 1.0, 6.0, 100.0])
def test_draws_are_poisson(lam: float) -> None:
    """Mean and variance are lam; members and neighbours are uncorrelated."""
    bag = OnlineBaggingClassifier(MajorityClassifier(), n=2, lam=lam)
    ones = np.ones(200_000)
    draws = np.empty((2, 200_000))
    for j, out in enumerate(draws):
        bag_weights(bag._keys[j], np.arange(200_000), bag._cumulative, ones, out)
    assert_allclose(draws.mean(axis=1), lam, atol=5.0 * np.sqrt(lam / 200_000))
    assert_allclose(draws.var(axis=1), lam, rtol=0.03)
    assert abs(correlation(draws[0], draws[1])) < 0.012
    assert abs(correlation(draws[0, 1:], draws[0, :-1])) < 0.012
    few = np.array([-1, *range(50)])  # the first is no event, and has its weight
    out = np.empty(51)
    bag_weights(bag._keys[1], few, bag._cumulative, 2.0 * ones[:51], out)
    assert out.tolist() == [2.0, *(2.0 * draws[1, :50])]


class NaiveADWINBagging:
    """One event at a time, no snapshot: the wrapper without blocks."""

    def __init__(self, n: int, lam: float, delta: float) -> None:
        self.n, self.lam, self.delta = n, lam, delta
        self.members = [KalmanClassifier() for _ in range(n)]
        self.ears = [ADWIN(delta) for _ in range(n)]
        self.resets: list[tuple[int, int]] = []

    def step(self, t: int, row: Block) -> float:
        votes = [answer_of(member, row) for member in self.members]
        total = np.zeros(2)
        for vote in votes:
            proba = vote["proba"][0]
            total[: proba.size] += 0.0 if np.isnan(vote["prediction"][0]) else proba
        fired = False
        for j, member in enumerate(self.members):
            member.run(row.replace(weight=row.weight * drawn(0, j, t, self.lam)))
            vote = votes[j]["prediction"][0]
            if not np.isnan(vote):
                alarm = self.ears[j].first_alarm(np.array([float(vote != row.y[0])])) >= 0
                fired = fired or (alarm and self.ears[j].rose)
        if fired:
            worst = int(np.argmax([ear.estimation for ear in self.ears]))
            self.members[worst], self.ears[worst] = KalmanClassifier(), ADWIN(self.delta)
            self.resets.append((t, worst))
        return float(total.argmax()) if total.any() else np.nan


@pytest.mark.jit
def test_adwin_bagging_is_a_plain_loop_over_events() -> None:
    block = turning(700, seed=1, period=200)
    bag = ADWINBaggingClassifier(KalmanClassifier(lr_delta=1e-4), n=2, lam=1.0, delta=0.05)
    twin = NaiveADWINBagging(2, 1.0, 0.05)
    said = bag.run(block)["prediction"]
    expected = [twin.step(t, block.rows(t, t + 1)) for t in range(block.n)]
    np.testing.assert_array_equal(said, expected)
    assert bag.n_resets_ == len(twin.resets) >= 2
    for mine, theirs in zip(bag.members_, twin.members, strict=True):
        assert_same_state(mine.state(), theirs.state())


@pytest.mark.jit
@given(st.lists(st.integers(1, 599), max_size=8), st.integers(0, 3))
def test_no_cut_changes_a_bit(cuts: list[int], seed: int) -> None:
    """Restore and rerun: an alarm in the middle of a block acts on the rows after it."""
    block = turning(600, seed, period=150)

    def make() -> ADWINBaggingClassifier:
        return ADWINBaggingClassifier(KalmanClassifier(), n=3, lam=1.0, delta=0.1)

    one, other = make(), make()
    assert_same_bits(one.run(block), run_in_cuts(other, cut(block, cuts)))
    assert_same_state(one.state(), other.state())


@pytest.mark.jit
def test_replacing_the_worst_pays_on_a_stream_that_turns_round() -> None:
    block = turning(4000, seed=3, period=1000)
    slow = KalmanClassifier(lr_delta=0.0)
    plain = OnlineBaggingClassifier(slow, n=5).run(block)["prediction"]
    bag = ADWINBaggingClassifier(slow, n=5)
    renewed = bag.run(block)["prediction"]
    assert bag.n_resets_ >= 3
    assert np.mean(renewed != block.y) < 0.8 * np.mean(plain != block.y)


def test_a_replaced_member_is_not_handed_what_the_old_one_logged() -> None:
    """Labels 40 rows late, in cuts and by one, resumed in the middle."""
    block = turning(300, seed=2, period=60)
    rows = np.arange(300)
    mode = np.where(rows % 2 == 0, SCORED, LEARN).astype(np.uint8)
    late = rows % 2 == 1
    ids = np.where(late, np.maximum(rows - 41, 0), rows)
    X = np.where(late[:, None], np.nan, block.X)
    y = np.where(late, block.y[ids], np.nan)
    late_block = block.replace(X=X, y=y, mode=mode, ids=ids)

    def make() -> Pipeline:
        inner = Pipeline(Normalizer(), KalmanClassifier())
        return Pipeline(ADWINBaggingClassifier(inner, n=2, lam=1.0, delta=0.5))

    one, other, resumed = make(), make(), make()
    expected = one.run(late_block)
    assert_same_bits(expected, run_in_cuts(other, cut(late_block, [7, 8, 100, 201])))
    assert_same_state(one.state(), other.state())
    half = make()
    first = half.run(late_block.rows(0, 150))
    resumed.load(through_json(half.state()))
    rest = resumed.run(late_block.rows(150, 300))
    assert_same_bits({k: v[150:] for k, v in expected.items()}, rest)
    assert_same_bits({k: v[:150] for k, v in expected.items()}, first)


@pytest.mark.parametrize("silent", [0.0, 0.3, 1.0])
def test_a_vote_is_the_mean_of_those_that_answer(silent: float) -> None:
    """Members that answer every row, some or none; rows that do not ask get no answer."""
    rng = np.random.default_rng(11)
    P, said = rng.dirichlet(np.ones(3), size=(4, 50)), rng.integers(0, 3, (4, 50)).astype(float)
    none = rng.random((4, 50)) < silent
    none[0] = silent == 1.0  # the first answers every row, as long as one does
    P[none], said[none & (rng.random((4, 50)) < 0.5)] = np.nan, np.nan
    mode = rng.choice([PREDICT, LEARN], 50).astype(np.uint8)
    proba, best = np.full((50, 3), 7.0), np.full(50, 7.0)
    vote_classes(said, P, mode, proba, best)
    for t in range(50):
        answers = [P[j, t] for j in range(4) if not none[j, t]]
        if mode[t] & PREDICT and answers:
            assert_allclose(proba[t], np.mean(answers, axis=0), rtol=1e-14)
            assert best[t] == np.argmax(proba[t])
        else:
            assert np.isnan([*proba[t], best[t]]).all()


def test_answers_side_by_side_are_not_copied_and_all_others_are() -> None:
    wrote = np.random.default_rng(5).random((3, 6, 2))
    slices = list(wrote)
    assert np.shares_memory(_stacked(slices), wrote)
    np.testing.assert_array_equal(_stacked(slices), wrote)
    swapped, twice, fewer = [slices[j] for j in (1, 0, 2)], [slices[0]] * 3, slices[:2]
    backwards, mixed = [part[::-1] for part in slices], [slices[0].copy(), *slices[1:]]
    for others in (swapped, twice, fewer, backwards, mixed, [wrote[0, ::-1]]):
        stacked = _stacked(others)
        np.testing.assert_array_equal(stacked, np.stack(others))
        assert not np.shares_memory(stacked, wrote)


def test_a_regressor_gives_the_variance_of_the_mixture() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 2))
    block = labelled(X, X @ [1.0, -2.0] + rng.normal(size=100))
    bag = OnlineBaggingRegressor(KalmanRegressor(), n=4)
    bag.run(block)
    said = bag.run(asked(block))
    votes = [member.run(asked(block)) for member in bag.members_]
    means = np.array([vote["prediction"] for vote in votes])
    inside = np.mean([vote["variance"] for vote in votes], axis=0)
    assert_allclose(said["prediction"], means.mean(axis=0), rtol=1e-12)
    assert_allclose(said["variance"], inside + means.var(axis=0), rtol=1e-10)
    assert "variance" not in OnlineBaggingRegressor(MeanRegressor(), n=2).run(block)
    assert ADWINBaggingRegressor(MeanRegressor(), n=2).run(block)["prediction"].shape == (100,)


def test_several_targets() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), rng.normal(size=(60, 2))
    block = labelled(X, np.zeros(60)).replace(y=y)
    said = OnlineBaggingRegressor(KalmanRegressor(), n=3).run(block)
    assert said["prediction"].shape == said["variance"].shape == (60, 2)
    twin = OnlineBaggingRegressor(KalmanRegressor(), n=3)
    assert_same_bits(said, run_in_cuts(twin, cut(block, [1, 20])))


def test_river_inside() -> None:
    """A pipeline of River is copied, learns once or not at all, and comes back from a pickle."""
    model = compose.Pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
    block = turning(120, seed=4, period=500)
    bag = ADWINBaggingClassifier(model, n=2, delta=0.5)
    said = bag.run(block)
    twin = bag.clone()
    assert_same_bits(said, run_in_cuts(twin, cut(block, [11, 60])))
    loaded = bag.clone()
    loaded.load(bag.state())
    assert_same_bits(bag.run(asked(block)), loaded.run(asked(block)))
    assert np.mean(said["prediction"][60:] == block.y[60:]) > 0.8


def test_a_saved_bag_of_river_models_is_read_back(tmp_path: Any) -> None:
    from streamlearn.pipeline import load

    model = compose.Pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
    block = turning(60, seed=4, period=500)
    pipe = Pipeline(OnlineBaggingClassifier(model, n=2))
    pipe.run(block)
    pipe.save(tmp_path / "bag", allow_pickle=True)
    loaded = load(tmp_path / "bag", allow_pickle=True)
    assert_same_bits(pipe.run(block), loaded.run(block))
    again = loaded.clone()
    assert_same_bits(again.run(block), pipe.clone().run(block))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, r"^OnlineBaggingClassifier: n must be a whole number >= 1, got 0$"),
        ({"lam": 0.0}, r"^OnlineBaggingClassifier: lam must be > 0, got 0\.0$"),
        ({"lam": 101.0}, r"^OnlineBaggingClassifier: lam must be in \[0, 100\], got 101\.0$"),
        (
            {"model": KalmanRegressor()},
            r"^OnlineBaggingClassifier: model must do classification, got KalmanRegressor$",
        ),
    ],
)
def test_messages(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OnlineBaggingClassifier(**arguments)


def test_the_detectors_significance_is_checked() -> None:
    with pytest.raises(ValueError, match=r"delta must be < 1, got 1\.5$"):
        ADWINBaggingClassifier(delta=1.5)
