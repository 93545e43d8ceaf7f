"""Operators by name: what is found, what is built, and how a wrong name or argument is refused."""

import json
from typing import Any

import pytest
import river.preprocessing
import river.tree
import sklearn.linear_model

from streamlearn import operators, registry
from streamlearn.errors import UserError
from streamlearn.operators import (
    ADWIN,
    AdaptiveClassifier,
    KalmanClassifier,
    KalmanRegressor,
    Normalizer,
)
from streamlearn.pipeline import Pipeline
from streamlearn.specification import rebuilt, specification


@pytest.mark.parametrize("name", operators.exported())
def test_every_exported_class_is_found_under_its_own_name(name: str) -> None:
    assert registry.find(name) is getattr(operators, name)
    assert name in registry.names()


@pytest.mark.parametrize(
    ("name", "task", "found"),
    [
        ("Kalman", "classification", KalmanClassifier),
        ("Kalman", "regression", KalmanRegressor),
        ("KalmanHead", "classification", KalmanClassifier),
        ("KalmanHead", "regression", KalmanRegressor),
        ("KalmanRegressor", "classification", KalmanRegressor),  # the class said is the class given
        ("ADWIN", "regression", ADWIN),
        ("Normalizer", None, Normalizer),
        ("river.tree.HoeffdingTreeClassifier", None, river.tree.HoeffdingTreeClassifier),
        ("streamlearn.operators.KalmanClassifier", None, KalmanClassifier),
    ],
)
def test_names_families_and_import_paths(name: str, task: str | None, found: type) -> None:
    assert registry.find(name, task) is found


def test_a_further_name_exists_only_with_its_family() -> None:
    families = {name.removesuffix("Classifier") for name in operators.exported()}
    assert "KalmanHead" in registry.names()
    assert ("AnalyticHead" in registry.names()) == ("Analytic" in families)


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        (
            "KalmanHed",
            None,
            r"^'KalmanHed' is not the name of an operator; did you mean KalmanHead",
        ),
        ("normalizer", None, r"did you mean Normalizer"),
        ("Xyzzy", None, r"^'Xyzzy' is not the name of an operator; `streamlearn operators` lists"),
        ("Kalman", None, r"^'Kalman' needs a task to choose; write KalmanClassifier or KalmanRegr"),
        (
            "Majority",
            "regression",
            r"^'Majority' cannot do regression; there is MajorityClassifier",
        ),
        (
            "river.tree.HoeffdingTree",
            None,
            r"^river.tree has no class 'HoeffdingTree'; did you mean Hoeff",
        ),
        (
            "river.wood.Tree",
            None,
            r"^cannot import 'river.wood.Tree': No module named 'river.wood'",
        ),
        ("no_such_thing.Tree", None, r"^cannot import 'no_such_thing.Tree': No module"),
        ("os.getcwd", None, r"^'os.getcwd' must be a class with learn_one, update or partial_fit,"),
        (".Tree", None, r"^cannot import '.Tree'"),
    ],
)
def test_an_unknown_name_is_refused_with_what_is_near(
    name: str, task: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        registry.find(name, task)
    assert "\n" not in str(caught.value)


def test_build_gives_arguments_to_the_constructor() -> None:
    head = registry.build("KalmanHead", {"random_features": 20, "seed": 3}, "regression")
    assert isinstance(head, KalmanRegressor)
    assert (head.random_features, head.seed) == (20, 3)


def test_estimators_of_scikit_learn_are_found_by_their_paths() -> None:
    model = registry.build("sklearn.linear_model.SGDRegressor", {"alpha": 0.5})
    assert isinstance(model, sklearn.linear_model.SGDRegressor)
    assert model.alpha == 0.5
    assert registry.task_of(model) == "regression"
    assert registry.task_of(sklearn.linear_model.SGDClassifier) == "classification"
    with pytest.raises(UserError, match="must be a class with learn_one, update or partial_fit"):
        registry.find("sklearn.linear_model.Ridge")  # learns nothing from single events


def test_arguments_that_ask_for_more_memory_than_there_is() -> None:
    rule = r"^--set: needs more memory than there is: .*; choose a smaller size$"
    with pytest.raises(UserError, match=rule):
        registry.build("KalmanClassifier", {"random_features": 10**9}, path="--set")


def test_members_of_a_wrapper_are_built_from_their_names() -> None:
    spec = {"Adaptive": {"model": {"Kalman": {"seed": 7}}, "detector": "ADWIN", "policy": "reset"}}
    adaptive = registry.stage(spec, "classification")
    assert isinstance(adaptive, AdaptiveClassifier)
    assert isinstance(adaptive.model, KalmanClassifier)
    assert adaptive.model.seed == 7
    assert isinstance(adaptive.detector, ADWIN)


def test_several_members_are_a_list_and_a_list_as_one_member_is_a_pipeline() -> None:
    spec = {
        "ExpertMixture": {
            "experts": [
                "KalmanHead",
                {"KalmanHead": {"delta0": 0.01}},
                ["Normalizer", {"ErrorMemory": {"model": "MajorityClassifier"}}],
            ]
        }
    }
    first, second, third = registry.stage(spec, "classification").members_
    assert (first.delta0, second.delta0) == (0.0, 0.01)
    assert isinstance(third, Pipeline)
    memory: Any = third.predictor
    assert isinstance(memory.model, operators.MajorityClassifier)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"ExpertMixture": {"experts": "KalmanHead"}},
            r"^p\.experts: must be a list of operators, as in \[KalmanHead, .*got 'KalmanHead'$",
        ),
        ({"ExpertMixture": {"experts": ["KalmanHead", 5]}}, r"^p\.experts\[1\]: must be a name"),
        (
            {"ErrorMemory": {"model": ["KalmanHead", "Normalizer"]}},
            r"^p\.model: stages must be transformers, then one predictor",
        ),
        ({"ErrorMemory": {"model": []}}, r"^p\.model: stages must be .* got nothing$"),
        ({"KalmanBank": {"deltas": [0.1, "a"]}}, r"^p\.deltas\[1\]: must be a finite number"),
    ],
)
def test_wrong_members_are_refused_at_their_place(spec: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        registry.stage(spec, "classification", "p")


def test_members_of_a_river_wrapper_are_built_too() -> None:
    spec = {
        "river.ensemble.BaggingClassifier": {
            "model": {"river.tree.HoeffdingTreeClassifier": {"grace_period": 77}},
            "n_models": 2,
        }
    }
    bagging = registry.stage(spec)
    assert bagging.model.grace_period == 77
    assert bagging.n_models == 2


def test_an_operator_is_handed_through() -> None:
    head, scaler = KalmanClassifier(), river.preprocessing.StandardScaler()
    assert registry.stage(head) is head
    assert registry.stage(scaler) is scaler


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("KalmanHed", r"^pipeline\[2\]: 'KalmanHed' is not the name of an operator; did you mean"),
        (
            {"KalmanHead": {"seeed": 1}},
            r"^pipeline\[2\]\.seeed: KalmanClassifier has no argument 'seeed'; did you mean seed\?",
        ),
        (
            {"KalmanHead": {"random_features": -1}},
            r"^pipeline\[2\]\.random_features: must be a whole number >= 0, got -1$",
        ),
        ({"KalmanHead": {"random_features": "many"}}, r"^pipeline\[2\]\.random_features: must be "),
        ({"ADWIN": {"delta": 2}}, r"^pipeline\[2\]\.delta: must be "),
        (
            {"Adaptive": {"detector": "ADWIN"}},
            r"^pipeline\[2\]: AdaptiveClassifier needs the argumen",
        ),
        (
            {"Adaptive": {"model": {"Kalman": {"seed": -1}}, "detector": "ADWIN"}},
            r"^pipeline\[2\]\.model\.seed: must be ",
        ),
        (
            {"Adaptive": {"model": "Kalmn", "detector": "ADWIN"}},
            r"^pipeline\[2\]\.model: 'Kalmn' is not the name of an operator; did you mean Kalman",
        ),
        (
            {"Adaptive": {"model": "Kalman", "detector": "ADWIN", "policy": "hope"}},
            r"^pipeline\[2\]\.policy: must be one of .*, got 'hope'$",
        ),
        (
            {"Adaptive": {"model": "Kalman", "policy": ["reset", {"forget": {"rows": 0}}]}},
            r"^pipeline\[2\]\.policy\[1\]\.rows: must be a whole number >= 1, got 0$",
        ),
        (
            {"Adaptive": {"model": "Kalman", "policy": {"inflate": {"by": 3}}}},
            r"^pipeline\[2\]\.policy\[inflate\]: has no argument 'by'; there are: factor$",
        ),
        (
            {"Kalman": {}, "ADWIN": {}},
            r"^pipeline\[2\]: must have one key, the name of the operator",
        ),
        ({"Kalman": [1]}, r"^pipeline\[2\]: arguments of Kalman must be `argument: value` pairs"),
        (7, r"^pipeline\[2\]: must be a name or \{name: arguments\}, got 7$"),
        ({"river.tree.HoeffdingTreeClassifier": {"grace": 1}}, r"^pipeline\[2\]\.grace: Hoeffding"),
    ],
)
def test_every_refusal_begins_with_the_path(spec: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        registry.stage(spec, "classification", "pipeline[2]")
    assert "\n" not in str(caught.value)


def test_the_list_describes_every_operator() -> None:
    entries = {entry.name: entry for entry in registry.entries()}
    assert sorted(entries) == sorted(operators.exported())
    assert entries["KalmanClassifier"].kind == "classifier"
    assert entries["KalmanRegressor"].kind == "regressor"
    assert entries["Normalizer"].kind == "transformer"
    assert entries["ADWIN"].kind == "detector"
    assert entries["GaussianMixtureAnomalyScorer"].kind == "scorer"
    assert entries["KalmanClassifier"].family == ("Kalman", "KalmanHead")
    assert entries["Normalizer"].family == ()
    assert "random_features=" in entries["KalmanClassifier"].parameters
    assert all(entry.summary for entry in entries.values())


def test_tasks_of_classes_and_instances() -> None:
    assert registry.task_of(KalmanClassifier()) == "classification"
    assert registry.task_of(KalmanRegressor) == "regression"
    assert registry.task_of(river.tree.HoeffdingTreeRegressor()) == "regression"
    assert registry.task_of(operators.GaussianMixtureAnomalyScorer) == "anomaly"
    assert registry.task_of(ADWIN()) is None


@pytest.mark.parametrize("entry", registry.entries(), ids=lambda entry: entry.name)
def test_every_name_that_the_list_gives_leads_back(entry: registry.Entry) -> None:
    for name in entry.family:
        assert registry.find(name, registry.task_of(registry.find(entry.name))) is registry.find(
            entry.name
        )


def test_arguments_that_are_mappings_are_saved_and_rebuilt() -> None:
    pytest.importorskip("torch", reason="needs torch")
    found = registry.build("TorchKalmanClassifier", {"module_args": {"hidden": [8, 4]}})
    again: Any = rebuilt(json.loads(json.dumps(specification(found))))
    assert again.module_args == {"hidden": [8, 4]}
