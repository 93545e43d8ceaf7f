"""River and scikit-learn estimators as stages, against the same estimators driven by hand."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from river import (
    anomaly,
    base,
    compose,
    drift,
    dummy,
    feature_selection,
    linear_model,
    multiclass,
    preprocessing,
    reco,
    stats,
    tree,
)
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from streamlearn.block import BOOLEAN, LABELLED, LEARN, PREDICT, Block, Features, Vocabulary
from streamlearn.operators._base import Operator
from streamlearn.operators.baselines import MeanRegressor
from streamlearn.operators.encode import Densifier, OneHotEncoder
from streamlearn.operators.foreign import (
    RiverClassifier,
    RiverDetector,
    RiverRegressor,
    RiverScorer,
    RiverTransformer,
    SklearnClassifier,
    SklearnRegressor,
    SklearnTransformer,
    as_stage,
)
from streamlearn.operators.scale import Normalizer
from streamlearn.pipeline import Pipeline
from streamlearn.testing import (
    LAWS,
    Law,
    Plan,
    Stream,
    block_of,
    check_operator,
    labelled,
    run_in_cuts,
    tasks_of,
)

COLOURS = ["red", "green", "blue"]


def rows(n: int = 80, d: int = 3, seed: int = 0) -> tuple[Any, Any]:
    """Features, and one of three colours that depends on them."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, [COLOURS[int(k)] for k in np.digitize(X[:, 0] + 0.3 * X[:, 1], [-0.5, 0.5])]


def as_dicts(X: Any) -> list[dict[Any, float]]:
    return [{f"x{j}": float(v) for j, v in enumerate(row) if v == v} for row in X]


def test_classifier_answers_as_river_does_by_hand() -> None:
    X, y = rows()
    X[::7, 1] = np.nan
    block = labelled(X, y, task="classification")
    outputs = RiverClassifier(tree.HoeffdingTreeClassifier(grace_period=5)).run(block)
    model = tree.HoeffdingTreeClassifier(grace_period=5)
    assert block.labels is not None
    for t, (x, label) in enumerate(zip(as_dicts(X), y, strict=True)):
        for k, p in model.predict_proba_one(x).items():
            assert outputs["proba"][t, block.labels.find(k)] == pytest.approx(p, rel=1e-12)
        if t:
            assert block.labels.values[int(outputs["prediction"][t])] == model.predict_one(x)
        model.learn_one(x, label)


def test_binary_estimator_sees_false_and_true() -> None:
    """River's binary classifiers want bools; the two labels of the data stand for them."""
    X, _ = rows()
    y = np.where(X[:, 0] > 0, "up", "down")
    block = labelled(X, y, task="classification")
    scaled = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    outputs = as_stage(scaled).run(block)
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    assert block.labels is not None
    seen: set[bool] = set()
    for t, x in enumerate(as_dicts(X)):
        told = bool(block.labels.find(str(y[t])))
        if len(seen) == 2:
            assert outputs["proba"][t, 1] == model.predict_proba_one(x)[True]
        model.learn_one(x, told)
        seen.add(told)


def test_binary_estimator_refuses_a_third_class() -> None:
    stage = as_stage(linear_model.LogisticRegression())
    with pytest.raises(ValueError, match=r"^RiverClassifier: LogisticRegression must have two"):
        stage.run(labelled(np.zeros((3, 1)), COLOURS, task="classification"))


def test_regressor_answers_as_river_does_by_hand() -> None:
    X, _ = rows()
    y = X @ [1.0, -2.0, 0.5]
    outputs = as_stage(linear_model.LinearRegression()).run(labelled(X, y))
    model = linear_model.LinearRegression()
    for t, x in enumerate(as_dicts(X)):
        assert outputs["prediction"][t] == model.predict_one(x)
        model.learn_one(x, float(y[t]))


def test_weight_reaches_an_estimator_that_takes_it() -> None:
    X, _ = rows(20)
    y, w = X[:, 0], np.where(np.arange(20) % 3 == 0, 0.0, 2.0)
    stage = RiverRegressor(preprocessing.StandardScaler() | linear_model.LinearRegression())
    stage.run(labelled(X, y, weight=w))
    model = preprocessing.StandardScaler() | linear_model.LinearRegression()
    for x, target, weight in zip(as_dicts(X), y.tolist(), w.tolist(), strict=True):
        if weight:
            model.learn_one(x, target, w=weight)
    x = {"x0": 1.0, "x1": 1.0, "x2": 1.0}
    assert stage.predict_one(x) == model.predict_one(x)


def test_categories_and_booleans_come_as_they_were() -> None:
    class Recorder(base.Transformer):
        seen: tuple[Any, ...] = ()

        def learn_one(self, x: dict[Any, Any]) -> None:
            self.seen = (*self.seen, dict(x))

        def transform_one(self, x: dict[Any, Any]) -> dict[Any, Any]:
            return x

    stage = RiverTransformer(Recorder())
    stage.learn_one({"colour": "red", "wet": True, "size": 2.0})
    stage.learn_one({"colour": None, "wet": False})
    assert stage.model_.seen == ({"colour": "red", "wet": True, "size": 2.0}, {"wet": False})
    assert stage.model_.seen[0]["wet"] is True


def test_transformer_makes_a_feature_from_its_row_on() -> None:
    stage = RiverTransformer(preprocessing.OneHotEncoder())
    block = block_of([[0.0], [0.0], [1.0]], names=["c"], kinds=["category"])
    block.features.categories["c"].code("red")
    block.features.categories["c"].code("blue")
    pieces = []
    for piece in stage.pieces(block):
        X = stage.run(piece)["X"]
        pieces.append((piece.n, X.tolist(), stage.output_features(piece.features).names))
    assert pieces == [
        (2, [[1.0], [1.0]], ("c_red",)),
        (1, [[0.0, 1.0]], ("c_red", "c_blue")),
    ]


def test_union_of_transformers_runs_whole_and_in_pieces_alike() -> None:
    union = preprocessing.StandardScaler() + compose.FuncTransformer(_first_only)
    X, _ = rows(10)
    whole, cut = as_stage(union), as_stage(union)
    expected = whole.run(labelled(X, X[:, 0]))["X"]
    np.testing.assert_array_equal(run_in_cuts(cut, [labelled(X, X[:, 0])])["X"], expected)


def _first_only(x: dict[Any, Any]) -> dict[Any, Any]:
    return {"twice": 2.0 * x["x0"]}


def test_scorer_scores_before_it_learns() -> None:
    X, _ = rows(30)
    outputs = as_stage(anomaly.HalfSpaceTrees(n_trees=3, height=3, window_size=5, seed=1)).run(
        labelled(X, np.zeros(30))
    )
    model = anomaly.HalfSpaceTrees(n_trees=3, height=3, window_size=5, seed=1)
    for t, x in enumerate(as_dicts(X)):
        assert outputs["score"][t] == model.score_one(x)
        model.learn_one(x)


def test_supervised_scorer_needs_the_target() -> None:
    y = np.array([0.0, 1.0, 9.0, math.nan])
    outputs = as_stage(anomaly.StandardAbsoluteDeviation()).run(labelled(np.zeros((4, 1)), y))
    model = anomaly.StandardAbsoluteDeviation()
    for t in range(3):
        assert outputs["score"][t] == model.score_one(None, y[t])
        model.learn_one(None, y[t])
    assert math.isnan(outputs["score"][3])


@pytest.mark.jit
def test_detector_alarms_where_river_does() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.random(300) < 0.1, rng.random(300) < 0.6]).astype(float)
    values[5] = np.nan
    alarms = RiverDetector(drift.ADWIN()).watch(values)
    model, expected = drift.ADWIN(), []
    for value in values.tolist():
        if value == value:
            model.update(value)
        expected.append(int(value == value and model.drift_detected))
    assert alarms.tolist() == expected
    assert sum(expected) > 0


def test_binary_detector_is_fed_truth_values() -> None:
    stage = RiverDetector(drift.binary.DDM(warm_start=1))
    assert stage.first_alarm(np.array([0.0, 1.0, 0.0])) == -1


def test_sklearn_classifier_answers_as_partial_fit_by_hand() -> None:
    X, y = rows()
    block = labelled(X, y, task="classification")
    given = SGDClassifier(loss="log_loss", random_state=0)
    outputs = SklearnClassifier(given, classes=COLOURS).run(block)
    model = SGDClassifier(loss="log_loss", random_state=0)
    seen: set[str] = set()
    assert block.labels is not None
    for t, label in enumerate(y):
        if len(seen) == 3:
            p = dict(zip(COLOURS, model.predict_proba(X[t : t + 1])[0], strict=True))
            got = {k: outputs["proba"][t, block.labels.find(k)] for k in COLOURS}
            assert got == pytest.approx(p, rel=1e-12)
        model.partial_fit(X[t : t + 1], [COLOURS.index(label)], classes=[0, 1, 2])
        seen.add(label)
    assert not hasattr(given, "coef_")


def test_sklearn_regressor_answers_as_partial_fit_by_hand() -> None:
    X, _ = rows(30)
    y = X @ [1.0, -2.0, 0.5]
    outputs = as_stage(SGDRegressor(random_state=0)).run(labelled(X, y))
    model = SGDRegressor(random_state=0)
    assert math.isnan(outputs["prediction"][0])
    for t in range(30):
        if t:
            assert outputs["prediction"][t] == model.predict(X[t : t + 1])[0]
        model.partial_fit(X[t : t + 1], [y[t]])


def test_sklearn_transformer_uses_statistics_from_before_the_row() -> None:
    X, _ = rows(20)
    outputs = as_stage(StandardScaler()).run(labelled(X, X[:, 0]))
    for t in range(1, 20):
        expected = StandardScaler().fit(X[:t]).transform(X[t : t + 1])[0]
        np.testing.assert_allclose(outputs["X"][t], expected, rtol=1e-9)


def test_sklearn_stage_counts_what_it_cannot_take() -> None:
    stage = SklearnRegressor(SGDRegressor())
    X = [[1.0], [math.nan], [math.inf], [2.0]]
    outputs = stage.run(labelled(X, np.ones(4)))
    assert (stage.n_learnt, stage.n_rejected) == (2, 2)
    assert np.isnan(outputs["prediction"]).tolist() == [True, True, True, False]


def test_sklearn_classes_must_be_declared() -> None:
    with pytest.raises(ValueError, match=r"classes must be declared.*SklearnClassifier\(SGDCla"):
        as_stage(SGDClassifier())
    stage = SklearnClassifier(SGDClassifier(), classes=["red", "blue"])
    with pytest.raises(ValueError, match=r"classes must hold every label, got 'green'"):
        stage.run(labelled(np.zeros((2, 1)), ["red", "green"], task="classification"))


def test_sklearn_refuses_new_features() -> None:
    stage = SklearnRegressor(SGDRegressor())
    stage.learn_one({"a": 1.0}, 1.0)
    with pytest.raises(ValueError, match=r"features must be those of the first row.*'b'"):
        stage.learn_one({"a": 1.0, "b": 2.0}, 1.0)


def test_given_estimator_is_left_as_it_was() -> None:
    given = dummy.StatisticRegressor(stats.Mean())
    stage = RiverRegressor(given)
    stage.learn_one({"a": 1.0}, 5.0)
    assert (given.statistic.get(), stage.predict_one({"a": 1.0})) == (0.0, 5.0)


def test_stage_says_that_it_runs_row_by_row() -> None:
    assert "row by row" in repr(as_stage(linear_model.LinearRegression()))
    for found in (RiverClassifier, RiverRegressor, RiverTransformer, RiverScorer):
        assert "row by row" in str(found.__doc__)


def test_state_asks_for_pickle_and_a_blank_stage_takes_it() -> None:
    stage = RiverRegressor(dummy.StatisticRegressor(stats.Mean()))
    stage.learn_one({"a": 1.0}, 5.0)
    state = stage.state()
    assert (stage.needs_pickle, state.table["needs_pickle"]) == (True, True)
    assert state.arrays["pickle"].dtype == np.uint8
    loaded = RiverRegressor.blank()
    loaded.load(state)
    loaded.run(block_of([[1.0]], [7.0], names=["a"], mode=LEARN))
    assert loaded.run(block_of([[1.0]], names=["a"], mode=PREDICT))["prediction"][0] == 6.0
    assert Pipeline(stage).needs_pickle


def test_as_stage_returns_operators_as_they_are() -> None:
    stage = MeanRegressor()
    assert as_stage(stage) is stage


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, r"^a stage must be an operator, a River classifier.*got int$"),
        (linear_model.LinearRegression, r"got the class LinearRegression; write LinearReg"),
        (reco.Baseline, r"got the class Baseline"),
        (PolynomialFeatures(), r"with partial_fit; got PolynomialFeatures$"),
        (multiclass, r"got module$"),
    ],
)
def test_as_stage_refuses_everything_else(given: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        as_stage(given)


def test_estimators_stand_in_a_pipeline() -> None:
    X, y = rows()
    pipeline = Pipeline(
        StandardScaler(), multiclass.OneVsRestClassifier(_logistic()), drift.ADWIN()
    )
    outputs = pipeline.run(labelled(X, y, task="classification"))
    assert sorted(outputs) == ["alarm", "prediction", "proba"]
    assert [type(stage) for stage in pipeline.stages] == [
        SklearnTransformer,
        RiverClassifier,
        RiverDetector,
    ]


def _logistic() -> Any:
    return linear_model.LogisticRegression()


def test_supervised_transformer_learns_from_labels() -> None:
    X, _ = rows(40)
    y = X[:, 2] * 3.0
    given = feature_selection.SelectKBest(similarity=stats.PearsonCorr(), k=1)
    stage = as_stage(given)
    assert stage.needs_label
    stage.run(labelled(X, y))
    assert list(stage.transform_one({"x0": 1.0, "x1": 1.0, "x2": 1.0})) == ["x2"]  # type: ignore[attr-defined]  # a transformer's


def _of_numbers(estimator: Any) -> Operator:
    return Pipeline(OneHotEncoder(), Densifier(), estimator)


def test_supervised_transformer_sees_labels_as_they_are() -> None:
    class Recorder(base.SupervisedTransformer):
        seen: tuple[Any, ...] = ()

        def learn_one(self, x: dict[Any, Any], y: Any) -> None:
            self.seen = (*self.seen, y)

        def transform_one(self, x: dict[Any, Any]) -> dict[Any, Any]:
            return x

    stage = RiverTransformer(Recorder())
    stage.learn_one({"a": 1.0}, "green")
    stage.run(labelled([[1.0]], [2.5]).replace(features=stage._features))
    assert stage.model_.seen == ("green", 2.5)


MAKERS: dict[str, Callable[[], Operator]] = {
    "classifier": lambda: _of_numbers(multiclass.OneVsRestClassifier(_logistic())),
    "regressor": lambda: _of_numbers(linear_model.LinearRegression()),
    "scorer": lambda: _of_numbers(anomaly.HalfSpaceTrees(n_trees=2, height=2, seed=1)),
    "one hot": lambda: RiverTransformer(preprocessing.OneHotEncoder()),
    "detector": lambda: RiverDetector(drift.PageHinkley(min_instances=5, threshold=1.0)),
}


@pytest.mark.jit
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_river_stages_obey_every_law(make: Callable[[], Operator]) -> None:
    assert check_operator(make, streams=4)["blocks"] == 4


SKLEARN: dict[str, Callable[[], Operator]] = {
    "classifier": lambda: SklearnClassifier(SGDClassifier(random_state=0), list("abcdefgh")),
    "regressor": lambda: SklearnRegressor(SGDRegressor(random_state=0)),
    "scaler": lambda: SklearnTransformer(StandardScaler()),
    "clusters": lambda: SklearnTransformer(MiniBatchKMeans(1, n_init=1, random_state=0)),
}


@pytest.mark.jit
@pytest.mark.parametrize(
    "law", [law for law in LAWS if law.name != "order"], ids=lambda law: law[0]
)
@pytest.mark.parametrize("make", SKLEARN.values(), ids=SKLEARN)
def test_sklearn_stages_obey_every_law(make: Callable[[], Operator], law: Law) -> None:
    """On streams without new features, which they refuse; their random numbers go by position."""
    stream = Stream.from_plan(Plan(tasks_of(make())[0], (40,), (("normal", "normal"),), "labelled"))
    law.check(make, stream, [13, 14, 30])


def test_what_an_estimator_raises_says_whose_it_is() -> None:
    """A KeyError of its own is no bug of ours, and the command line prints it in one line."""

    class Fussy(linear_model.LogisticRegression):
        def learn_one(self, x: dict[Any, Any], y: Any, w: float = 1.0) -> None:
            raise KeyError("price")

    stage = as_stage(Fussy())
    assert isinstance(stage, RiverClassifier)
    with pytest.raises(ValueError, match=r"^RiverClassifier: the estimator must take .*'price'"):
        stage.learn_one({"a": 1.0}, True)


def test_a_scaled_boolean_reaches_an_estimator_as_a_number() -> None:
    """Scaling makes a number of it: as a boolean, every value but 0 would be true."""
    seen: list[Any] = []

    class Spy(base.Classifier):
        def learn_one(self, x: Any, y: Any) -> None:
            seen.append(x["a"])

        def predict_one(self, x: Any, **kwargs: Any) -> Any:
            return None

        def predict_proba_one(self, x: Any, **kwargs: Any) -> dict[Any, float]:
            return {}

    features = Features(["a"], [BOOLEAN])
    X, y = np.array([[0.0], [1.0], [1.0], [0.0]]), np.zeros(4)
    mode = np.full(4, LABELLED, dtype=np.uint8)
    block = Block(X, y, np.ones(4), mode, features, Vocabulary(["no"]))
    Pipeline(Normalizer(), Spy()).run(block)
    assert all(type(value) is float for value in seen)
    assert len(set(seen)) > 2
