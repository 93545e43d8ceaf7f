"""Champion and challenger: who is promoted, when, and what is kept of those that were replaced."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from river import naive_bayes

from streamlearn.block import F8
from streamlearn.jit.champion import N_EVIDENCE, weigh
from streamlearn.operators import (
    ADWIN,
    AdaptiveClassifier,
    AnalyticRegressor,
    ChampionClassifier,
    ChampionRegressor,
    ConformalClassifier,
    ConformalRegressor,
    KalmanClassifier,
    KalmanRegressor,
    MajorityClassifier,
    MeanRegressor,
    NoChangeClassifier,
)
from streamlearn.pipeline import Pipeline
from streamlearn.testing import Plan, Stream, assert_same_state, labelled, run_in_cuts


def wealths(differences: F8, bet: float) -> tuple[list[float], list[float]]:
    """Wealths after each difference, by the definition."""
    better, worse = [1.0], [1.0]
    for s in differences:
        better.append(better[-1] * (1.0 + bet * s))
        worse.append(worse[-1] * (1.0 - bet * s))
    return better[1:], worse[1:]


def promoted_at(differences: F8, alpha: float, bet: float) -> int:
    """Flips until the kernel decides for the challenger; -1 where it does not, or for the other."""
    evidence = np.zeros(N_EVIDENCE)
    zero = np.zeros(len(differences))
    at = weigh(differences, zero, evidence, bet, math.log(1 / alpha), False)
    return at if at >= 0 and evidence[0] >= math.log(1 / alpha) else -1


def separable(n: int, seed: int, turns: tuple[int, ...] = ()) -> tuple[F8, F8]:
    """Two classes on either side of a line, which turns at some rows."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    sign = np.ones(n)
    for row in turns:
        sign[row:] *= -1.0
    return X, (sign * (X[:, 0] + 0.3 * X[:, 1]) > 0).astype(float)


def test_the_wealth_is_that_of_the_definition_and_the_first_crossing_ends_it() -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        differences = rng.choice([-1.0, 0.0, 1.0], 300, p=[0.2, 0.5, 0.3])
        better, worse = wealths(differences, 0.2)
        crossed = [t for t in range(300) if max(better[t], worse[t]) >= 20.0]
        evidence = np.zeros(N_EVIDENCE)
        at = weigh(differences, np.zeros(300), evidence, 0.2, math.log(20.0), False)
        assert at == (crossed[0] if crossed else -1)
        assert evidence[0] == pytest.approx(math.log(better[at]), abs=1e-12)
        assert evidence[1] == pytest.approx(math.log(worse[at]), abs=1e-12)


def test_losses_are_set_against_the_mean_loss_of_both_before_them() -> None:
    rng = np.random.default_rng(8)
    champion, challenger = rng.exponential(5.0, (2, 60)) ** 2
    champion[7] = np.nan
    before: list[float] = []
    differences = []
    for one, other in zip(champion, challenger, strict=True):
        if not np.isnan(one):
            scale = sum(before) / len(before) if before else np.inf
            differences.append(min(max((one - other) / scale, -1.0), 1.0))
            before.append((one + other) / 2.0)
    better, worse = wealths(np.array(differences), 0.2)
    evidence = np.zeros(N_EVIDENCE)
    assert weigh(champion, challenger, evidence, 0.2, np.inf, True) == -1
    assert evidence[0] == pytest.approx(math.log(better[-1]), abs=1e-12)
    assert evidence[1] == pytest.approx(math.log(worse[-1]), abs=1e-12)


@pytest.mark.jit
def test_a_challenger_that_is_no_better_is_promoted_in_at_most_alpha_of_the_streams() -> None:
    rng = np.random.default_rng(0)
    flips = rng.choice([-1.0, 1.0], (2000, 1000))
    promoted = sum(promoted_at(stream, 0.05, 0.2) >= 0 for stream in flips)
    assert promoted <= 2000 * 0.06


def test_sixty_to_forty_is_promoted_within_two_hundred_flips_in_half_of_the_streams() -> None:
    rng = np.random.default_rng(1)
    flips = rng.choice([-1.0, 1.0], (400, 500), p=[0.4, 0.6])
    at = [found if found >= 0 else 10**6 for found in (promoted_at(f, 0.05, 0.2) for f in flips)]
    assert np.median(at) < 200


def test_flips_are_the_difference_of_the_accuracies() -> None:
    X, y = separable(400, 3)
    model = ChampionClassifier(
        KalmanClassifier(), NoChangeClassifier(), alpha=1e-9, detector=ADWIN(delta=1e-9)
    )
    model.run(labelled(X, y, task="classification"))
    said = [
        m.run(labelled(X, y, task="classification"))["prediction"]
        for m in (KalmanClassifier(), NoChangeClassifier())
    ]
    y = labelled(X, y, task="classification").y  # codes, in the order of their appearance
    both = ~np.isnan(said[0]) & ~np.isnan(said[1])
    champion, challenger = (int(np.count_nonzero(both & (one == y))) for one in said)
    assert model.positive_flips - model.negative_flips == challenger - champion
    assert model.negative_flips == int(np.count_nonzero(both & (said[0] == y) & (said[1] != y)))


def test_a_better_challenger_is_promoted_and_its_answers_are_given_from_the_next_row_on() -> None:
    X, y = separable(600, 4)
    model = ChampionClassifier(MajorityClassifier(), KalmanClassifier())
    outputs = model.run(labelled(X, y, task="classification"))
    (at,) = np.flatnonzero(outputs["alarm"])
    (finding,) = outputs["why"][at]
    assert (finding["action"], finding["from"], finding["to"]) == ("promote", 1, 2)
    assert finding["statistic"] >= finding["limit"] == pytest.approx(math.log(20.0))
    alone = [
        m.run(labelled(X, y, task="classification"))["prediction"]
        for m in (MajorityClassifier(), KalmanClassifier())
    ]
    assert_array_equal(outputs["prediction"][: at + 1], alone[0][: at + 1])
    assert_array_equal(outputs["prediction"][at + 1 :], alone[1][at + 1 :])
    assert (model.version, model.n_promotions, model.n_rollbacks) == (2, 1, 0)
    assert [entry["how"] for entry in model.versions_] == ["start", "promote"]


def test_a_champion_that_regresses_is_rolled_back() -> None:
    rng = np.random.default_rng(9)
    runs = np.repeat(np.arange(20) % 2, 25)  # no-change is right but at the turns
    mostly = rng.random(1500) < 0.85  # the majority is right more often than no-change
    y = np.concatenate([runs, mostly]).astype(float)
    model = ChampionClassifier(
        MajorityClassifier(), NoChangeClassifier(), detector=ADWIN(delta=1e-12)
    )
    outputs = model.run(labelled(rng.normal(size=(2000, 1)), y, task="classification"))
    found = [finding for cell in outputs["why"] if cell is not None for finding in cell]
    assert [(f["action"], f["from"], f["to"]) for f in found] == [
        ("promote", 1, 2),
        ("rollback", 2, 1),
    ]
    assert (model.version, model.n_promotions, model.n_rollbacks) == (1, 1, 1)
    assert [entry["version"] for entry in model.versions_] == [1, 2, 1]


def test_rolling_back_by_hand_serves_the_version_as_it_was() -> None:
    X, y = separable(900, 6)
    model = ChampionClassifier(MajorityClassifier(), KalmanClassifier(), detector=ADWIN(1e-9))
    first = model.run(labelled(X[:600], y[:600], task="classification"))
    (at,) = np.flatnonzero(first["alarm"])
    with pytest.raises(ValueError, match=r"version must be one that is kept \(1\), got 7"):
        model.roll_back(7)
    assert model.roll_back() == 1
    then = MajorityClassifier()
    then.run(labelled(X[: at + 1], y[: at + 1], task="classification"))
    served = model.run(labelled(X[600:601], y[600:601], task="classification"))["prediction"]
    assert_array_equal(
        served, then.run(labelled(X[600:601], y[600:601], task="classification"))["prediction"]
    )
    assert (model.version, model.n_rollbacks, model.versions_[-1]["how"]) == (1, 1, "by hand")
    assert model.roll_back() == 2  # what served before is kept, too


def test_a_snapshot_from_before_a_promotion_is_restored() -> None:
    """As within a wrapper whose own detector fires: then nothing was kept, and it is kept again."""
    X, y = separable(600, 4)
    whole = labelled(X, y, task="classification")
    model = ChampionClassifier(MajorityClassifier(), KalmanClassifier())
    taken = model.snapshot()
    first = model.run(whole)
    after = model.state()
    model.restore(taken)
    assert not model._kept
    assert not model._frozen
    assert_array_equal(model.run(whole)["prediction"], first["prediction"])
    assert_same_state(model.state(), after)


def test_the_history_is_bounded_and_what_is_kept_can_still_be_rolled_back() -> None:
    X, y = separable(600, 4)
    model = ChampionClassifier(MajorityClassifier(), KalmanClassifier(), keep=2)
    model.run(labelled(X, y, task="classification"))
    for _ in range(150):  # to and fro
        assert model.roll_back() in (1, 2)
    assert len(model.versions_) == 102
    assert [model.versions_[-1][name] for name in ("version", "model", "how")] == [2, 1, "by hand"]
    again = model.clone()
    again.load(model.state())
    assert (again.roll_back(), model.roll_back()) == (1, 1)
    for k in range(3, 200):  # promotions, each of a new version
        model._versions[1 - model._serving] = 0
        model._promote(k, "promote")
    assert len(model.versions_) == 102
    assert model.roll_back(198) == 198


def test_the_columns_stay_the_same_whoever_serves() -> None:
    """Files and metrics could not follow columns that come and go, at rows that depend on cuts."""
    X, y = separable(600, 4)
    model = ChampionClassifier(MajorityClassifier(), ConformalClassifier(KalmanClassifier()))
    whole, columns = labelled(X, y, task="classification"), []
    for start in range(0, 600, 20):
        out = model.run(whole.rows(start, start + 20))
        columns.append(sorted(set(out) - {"why"}))
    assert model.n_promotions == 1
    assert columns == [["alarm", "prediction", "proba"]] * 30


def test_intervals_stay_where_both_have_them_and_versions_are_kept() -> None:
    X, _ = separable(600, 4)
    y = 3.0 * X[:, 0]
    model = ChampionRegressor(
        ConformalRegressor(MeanRegressor()), ConformalRegressor(KalmanRegressor())
    )
    model.run(labelled(X[:400], y[:400]))
    assert model.n_promotions == 1
    assert {"lower", "upper"} <= set(model.run(labelled(X[400:], y[400:])))  # while one is kept


def test_a_champion_that_raises_alarms_itself_is_heard() -> None:
    X, y = separable(3000, 12, (1500,))
    inner = AdaptiveClassifier(KalmanClassifier(), ADWIN(), policy="notify")
    alone = inner.clone().run(labelled(X, y, task="classification"))
    model = ChampionClassifier(inner, NoChangeClassifier(), detector=ADWIN(delta=1e-12))
    outputs = model.run(labelled(X, y, task="classification"))
    raised = np.flatnonzero(alone["alarm"])
    assert len(raised) > 0
    assert set(raised) <= set(np.flatnonzero(outputs["alarm"]))
    assert all(outputs["why"][at][0] == alone["why"][at][0] for at in raised)


def test_nothing_to_roll_back_to_is_said() -> None:
    model = ChampionClassifier(KalmanClassifier())
    with pytest.raises(ValueError, match=r"kept \(none yet\), got None"):
        model.roll_back()


def test_without_a_challenger_a_fresh_model_begins_at_each_alarm() -> None:
    X, y = separable(4000, 8, (2000,))
    model = ChampionClassifier(KalmanClassifier(), detector=ADWIN())
    outputs = model.run(labelled(X, y, task="classification"))
    at = int(np.flatnonzero(outputs["alarm"])[0])
    assert 2000 <= at < 2200
    assert outputs["why"][at][0]["action"] == "restart"
    assert model._numbers[1] >= 2  # no longer the model that began with the champion


def test_a_regressor_with_the_smaller_errors_is_promoted_whatever_the_units() -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(800, 2))
    y = X @ [2.0, -1.0] + 0.1 * rng.normal(size=800)
    versions = []
    for unit in (1.0, 1e6):
        model = ChampionRegressor(MeanRegressor(), AnalyticRegressor())
        outputs = model.run(labelled(X, unit * y, task="regression"))
        assert model.version == 2
        versions.append(np.flatnonzero(outputs["alarm"])[0])
    assert abs(int(versions[0]) - int(versions[1])) <= 1  # the ridge alone knows the unit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 1.0}, "ChampionClassifier: alpha must be < 1, got 1.0"),
        ({"bet": 0.0}, "ChampionClassifier: bet must be > 0, got 0.0"),
        ({"keep": 0}, "ChampionClassifier: keep must be a whole number >= 1, got 0"),
        (
            {"challenger": KalmanRegressor()},
            "challenger must do classification, got Kalman",
        ),
        ({"detector": KalmanClassifier()}, "detector must be a drift detector"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChampionClassifier(KalmanClassifier(), **arguments)


def test_the_champion_cannot_challenge_itself() -> None:
    model = KalmanClassifier()
    with pytest.raises(ValueError, match="challenger must be another model"):
        ChampionClassifier(model, model)


def test_sets_of_a_champion_stay_sets_where_labels_come_late() -> None:
    """They became numbers, and those of rows that bring a label the cast of a missing one."""
    stream = Stream.from_plan(Plan(rows=(20,), n_classes=2, modes="late"))
    pipe = Pipeline(ChampionClassifier(ConformalClassifier(KalmanClassifier())))
    said = run_in_cuts(pipe, stream.blocks([7]))
    assert said["set"].dtype == np.uint8
    answered = ~np.isnan(said["prediction"])
    assert said["set"][answered].any(axis=1).all()
    assert not said["set"][~answered].any()


def test_a_river_model_challenges() -> None:
    X, y = separable(300, 10)
    model = ChampionClassifier(MajorityClassifier(), naive_bayes.GaussianNB())
    whole = model.run(labelled(X, y, task="classification"))
    again = ChampionClassifier(MajorityClassifier(), naive_bayes.GaussianNB())
    parts = [
        again.run(labelled(X, y, task="classification").rows(a, b))["prediction"]
        for a, b in pairwise([0, 17, 40, 300])
    ]
    assert_array_equal(np.concatenate(parts), whole["prediction"])
    assert model.version == again.version == 2
