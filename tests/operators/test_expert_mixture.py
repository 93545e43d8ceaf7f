"""Mixtures of real members: exact under any cut, with late labels, silent and broken experts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from river import compose, linear_model, preprocessing

from streamlearn.block import LEARN, PREDICT, SCORED, Block, Csr
from streamlearn.operators import (
    ADWIN,
    AdaptiveClassifier,
    ConformalClassifier,
    Densifier,
    ExpertMixtureClassifier,
    ExpertMixtureRegressor,
    KalmanClassifier,
    KalmanRegressor,
    MajorityClassifier,
    MeanRegressor,
    NoChangeClassifier,
    Normalizer,
)
from streamlearn.pipeline import Pipeline, load
from streamlearn.testing import (
    assert_same_bits,
    assert_same_state,
    cut,
    labelled,
    run_in_cuts,
    through_json,
)
from tests.operators.test_expert_mixture_reference import Believes, Naive, Says


def turning(n: int, seed: int = 0, period: int = 100) -> Block:
    """Two features, two classes; what tells them apart is turned round every `period` rows."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    turned = (np.arange(n) // period) % 2 == 1
    return labelled(X, ((X[:, 0] > 0) ^ turned).astype(float), "classification")


def late(block: Block, delay: int) -> Block:
    """The label of event i in a row of its own, right after event i + delay; the last none."""
    told = [(i, i - delay) for i in range(block.n) if i >= delay]
    order = sorted([(i, 0, i) for i in range(block.n)] + [(i, 1, j) for i, j in told])
    event = np.array([j for *_, j in order])
    brings = np.array([kind == 1 for _, kind, _ in order])
    X = np.where(brings[:, None], np.nan, block.X[event])
    y = np.where(brings, block.y[event], np.nan)
    mode = np.where(brings, LEARN, SCORED).astype(np.uint8)
    return Block(X, y, np.ones(event.size), mode, block.features, block.labels, ids=event)


def members() -> list[Any]:
    return [KalmanClassifier(), NoChangeClassifier(), MajorityClassifier()]


def test_experts_do_not_see_the_ensemble() -> None:
    """Acceptance 7: each expert has the bits that it has alone."""
    block = turning(300)
    mixture = ExpertMixtureClassifier(members(), correction=True)
    mixture.run(block)
    for inside, alone in zip(mixture.members_, members(), strict=True):
        alone.run(block)
        assert_same_state(inside.state(), alone.state())


def test_late_labels_judge_the_answers_of_then() -> None:
    """The loss of the mean of all labels is that of the mean when the event was scored."""
    rng, delay, n = np.random.default_rng(0), 20, 150
    block = labelled(rng.normal(size=(n, 1)), 3.0 + rng.normal(size=n))
    experts: list[Any] = [MeanRegressor(), Says(0)]
    mixture = ExpertMixtureRegressor(experts)
    Pipeline(mixture).run(late(block, delay))
    twin = Naive(2, eta=0.5, share=0.01, mixing="eg", discount=1.0, scale_losses=True)
    y = block.y
    for i in range(n - delay):
        then = y[: i - delay].mean() if i > delay else np.nan
        loss = (np.array([then, block.X[i, 0]]) - y[i]) ** 2
        twin.step(loss, loss, 1.0, 1e-6 * y[: i + 1].var())
    assert_allclose(mixture.weights_[0], twin.u, rtol=1e-9)
    assert_allclose(mixture.losses_[0], twin.running, rtol=1e-9)


@pytest.mark.jit
@pytest.mark.parametrize("mixing", ["eg", "log_score"])
def test_save_and_load_in_the_middle_of_late_labels(mixing: str) -> None:
    """Acceptance 10: the same bits after a restart while labels pend, and in any cut."""

    def make() -> Pipeline:
        inner = AdaptiveClassifier(KalmanClassifier(), ADWIN(delta=0.5), "background")
        experts: list[Any] = [
            Pipeline(Normalizer(), KalmanClassifier()), inner, NoChangeClassifier()
        ]  # fmt: skip
        return Pipeline(ExpertMixtureClassifier(experts, mixing=mixing, correction=True))

    block = late(turning(300, seed=4), 25)
    one, other, half, resumed = make(), make(), make(), make()
    expected = one.run(block)
    assert_same_bits(expected, run_in_cuts(other, cut(block, [3, 4, 99, 350])))
    assert_same_state(one.state(), other.state())
    half.run(block.rows(0, 333))
    resumed.load(through_json(half.state()))
    rest = resumed.run(block.rows(333, block.n))
    assert_same_bits({k: v[333:] for k, v in expected.items()}, rest)
    assert_same_state(one.state(), resumed.state())


def test_a_unit_of_the_target_changes_nothing() -> None:
    """Acceptance 10: a target times c gives forecasts times c, to 1e-9; weights do not notice."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = X @ [1.0, 2.0, -1.0] + rng.normal(size=300)
    said, weights = [], []
    for c in (1.0, 1e3):
        experts: list[Any] = [MeanRegressor(), KalmanRegressor(delta0=0.01, lr_delta=0.0)]
        model = ExpertMixtureRegressor(experts, correction=True)
        said.append(model.run(labelled(X, c * y))["prediction"][1:] / c)
        weights.append(model.weights_)
    assert_allclose(said[0], said[1], rtol=1e-9, atol=1e-9)
    assert_allclose(weights[0], weights[1], rtol=1e-6)


def test_permuted_targets_have_permuted_answers() -> None:
    """Acceptance 9, the ensemble's part: channels share nothing but the rows."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(150, 3)), rng.normal(size=(150, 3)) * [1.0, 10.0, 0.1]
    order = [2, 0, 1]

    def made(targets: Any) -> Any:
        experts: list[Any] = [KalmanRegressor(), KalmanRegressor(delta0=0.05, lr_delta=0.0)]
        block = labelled(X, np.zeros(150)).replace(y=np.ascontiguousarray(targets))
        return ExpertMixtureRegressor(experts).run(block)["prediction"]

    assert_allclose(made(y)[:, order], made(y[:, order]), rtol=1e-9, atol=1e-12)


def test_wild_answers_and_targets_do_no_lasting_harm() -> None:
    """An expert that explodes, a target of 1e200, infinities: the other's answers, to the digit."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=300), np.full(300, 1e160)])
    X[::3, 1] = np.inf
    X[1::3, 1] = 1e80
    y = X[:, 0] + 0.1
    y[[50, 60, 70]] = 1e200, np.inf, -np.inf
    model = ExpertMixtureRegressor([Says(0), Says(1)])
    said = model.run(labelled(X, y))
    assert_allclose(said["prediction"], X[:, 0], rtol=1e-12)
    assert model.n_rejected == 3
    assert model.n_silent_[0, 1] > 150
    assert np.isfinite(model.weights_).all()
    assert model.weights_[0, 0] > 0.98


@pytest.mark.jit
def test_the_default_experts_balance_with_the_mixture() -> None:
    """One event in twenty is of the rare class, one standard deviation off in both features.

    Of these the best rule finds Phi((d - 2 log(19) / d) / 2) = 0.09, d = sqrt(2), and Phi(d / 2) =
    0.76 where both classes weigh alike.
    """
    rng = np.random.default_rng(0)
    y = (rng.random(1500) < 0.05).astype(float)
    y[0] = 0.0
    block = labelled(y[:, None] + rng.normal(size=(1500, 2)), y, "classification")
    rare = np.flatnonzero(block.y[300:] == 1.0) + 300
    found = []
    for balance in (False, True):
        model = ExpertMixtureClassifier(balance=balance)
        found.append((model.run(block)["prediction"][rare] == 1.0).mean())
        assert [getattr(e, "balance", balance) for e in model.members_] == [balance] * 7
    assert found[0] < 0.2
    assert found[1] > 0.6


def test_a_long_calm_does_not_blind() -> None:
    """Losses of 0 for thousands of rows, then a change: the weights move within 50 rows."""
    n = 400
    X = np.column_stack([np.zeros(n), np.ones(n)])
    y = np.where(np.arange(n) < 300, 0.0, 1.0)
    X[:300, 1] = 0.0
    model = ExpertMixtureRegressor([Says(0), Says(1)])
    said = model.run(labelled(X, y))["prediction"]
    assert said[349] > 0.95


def test_classes_that_come_late_are_open() -> None:
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.integers(0, 2, 60), rng.integers(0, 5, 60)]).astype(float)
    block = labelled(np.column_stack([y, rng.normal(size=120)]), y, "classification")
    model = ExpertMixtureClassifier(members())
    said = model.run(block)
    assert said["proba"].shape == (120, 5)
    assert (said["proba"][:60, 2:][~np.isnan(said["prediction"][:60])] == 0.0).all()
    assert_allclose(np.nansum(said["proba"][5:], axis=1), 1.0, rtol=1e-12)
    twin = ExpertMixtureClassifier(members())
    assert_same_bits(said, run_in_cuts(twin, cut(block, [1, 30, 61, 62])))


def test_balance_weighs_classes_alike() -> None:
    """An expert that knows the rare class, and one that knows the common one."""
    rng = np.random.default_rng(0)
    y = (rng.random(600) < 0.1).astype(float)
    y[:2] = 0.0, 1.0
    rare, common = np.tile([0.2, 0.8], (600, 1)), np.tile([0.8, 0.2], (600, 1))
    block = labelled(np.hstack([rare, common]), y, "classification")
    lean = {}
    for balance in (False, True):
        experts: list[Any] = [Believes(0, 2), Believes(1, 2)]
        model = ExpertMixtureClassifier(experts, balance=balance, eta=0.01)
        model.run(block)
        lean[balance] = model.weights_[0, 0]
    assert lean[False] < 0.1
    assert 0.2 < lean[True] < 0.8


def test_river_and_pipelines_inside(tmp_path: Any) -> None:
    """Any stage is an expert; a mixture with one of River's comes back from its file."""
    river = compose.Pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
    experts: list[Any] = [river, Pipeline(Normalizer(), KalmanClassifier()), MajorityClassifier()]
    block = turning(80, period=1000)
    pipe = Pipeline(ExpertMixtureClassifier(experts))
    pipe.run(block)
    pipe.save(tmp_path / "mixture", allow_pickle=True)
    loaded = load(tmp_path / "mixture", allow_pickle=True)
    assert_same_bits(pipe.run(block), loaded.run(block))
    assert_same_bits(loaded.clone().run(block), pipe.clone().run(block))
    assert np.mean(pipe.run(block)["prediction"] == block.y) > 0.8


def test_asking_an_untrained_mixture() -> None:
    assert ExpertMixtureClassifier(members()).predict_one({"a": 1.0}) is None
    assert ExpertMixtureClassifier(members()).predict_proba_one({"a": 1.0}) == {}
    assert ExpertMixtureRegressor([MeanRegressor()]).predict_one({"a": 1.0}) == 0.0
    block = turning(5).replace(mode=np.full(5, PREDICT, np.uint8))
    assert np.isnan(ExpertMixtureClassifier(members()).run(block)["prediction"]).all()


@pytest.mark.parametrize("around", [lambda model: model, ConformalClassifier, AdaptiveClassifier])
def test_a_clone_has_untrained_experts_of_its_own(around: Callable[[Any], Any]) -> None:
    """A clone of a wrapper, too: it was one of trained experts, and is what a reset begins with."""
    block = turning(50)
    trained, new = (around(ExpertMixtureClassifier(members())) for _ in range(2))
    trained.run(block)
    fresh = trained.clone()
    assert_same_state(fresh.state(), new.state())
    fresh.run(block)
    assert_same_state(fresh.state(), trained.state())


def test_sparse_features_go_to_those_that_take_them() -> None:
    block = turning(30)
    sparse = Csr(np.ones(30), np.zeros(30, dtype=np.int64), np.arange(31), 4)
    dense = Pipeline(Densifier(), KalmanClassifier())
    mixture = ExpertMixtureClassifier([dense, KalmanClassifier()])
    mixture.run(block.replace(sparse=sparse))
    assert mixture.members_[0].stages[1].means_.shape[1] == 1 + 2 + 4  # type: ignore[attr-defined]
    assert mixture.members_[1].means_.shape[1] == 1 + 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"experts": []},
            r"^ExpertMixtureRegressor: experts must be at least one model, got none$",
        ),
        (
            {"experts": KalmanRegressor()},
            r"^ExpertMixtureRegressor: experts must be a list of models, got KalmanRegressor\(\)$",
        ),
        ({"eta": -1.0}, r"^ExpertMixtureRegressor: eta must be >= 0, got -1\.0$"),
        ({"share": 1.5}, r"^ExpertMixtureRegressor: share must be in \[0, 1\], got 1\.5$"),
        ({"mixing": "mean"}, r"^ExpertMixtureRegressor: mixing must be one of eg, log_score, got"),
        (
            {"experts": [KalmanClassifier()]},
            r"^ExpertMixtureRegressor: experts\[0\] must do regression, got KalmanClassifier$",
        ),
    ],
)
def test_messages(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExpertMixtureRegressor(**arguments)


def test_the_number_of_targets_is_fixed_by_the_first_label() -> None:
    block = labelled(np.ones((5, 1)), np.ones(5))
    model = ExpertMixtureRegressor([MeanRegressor()])
    model.run(block)
    with pytest.raises(ValueError, match=r"^ExpertMixtureRegressor: y must have 1 columns, got 2$"):
        model.run(block.replace(y=np.ones((5, 2))))
