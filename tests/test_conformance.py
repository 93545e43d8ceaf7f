"""Every law of the engine for every exported operator, and for pipelines of them.

Nothing here names an operator: what `streamlearn.operators` exports is found, built from its
`_unit_test_params`, and walked through hard streams that hypothesis makes and cuts.
"""

import hashlib
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import drift, linear_model, multiclass, preprocessing

from streamlearn import operators
from streamlearn.operators._base import Operator
from streamlearn.pipeline import Pipeline
from streamlearn.testing import (
    MODES,
    Law,
    Make,
    Plan,
    Stream,
    bits,
    check_block_law,
    check_reset,
    check_resume,
    check_snapshot,
    laws_of,
    plan_for,
    run_in_cuts,
)
from tests import strategies
from tests.conftest import SHARE


def _scaled(*factors: float) -> Callable[[Stream], Stream]:
    """Features times these; they begin after a quarter of the stream."""

    def change(stream: Stream) -> Stream:
        X = stream.X.copy()
        X[20:] *= factors
        return stream.changed(X=X)

    return change


EXTREMES: dict[str, Callable[[Stream], Stream]] = {
    "1e150": _scaled(1e150, 1.0, 1e150),
    "1e300": _scaled(1e300, 1.0, 1e-300),
    "denormal": _scaled(5e-322, 0.0, 1.0),
    "duplicates": lambda stream: stream.changed(X=np.tile(stream.X[:1], (stream.n, 1))),
    "nothing": lambda stream: stream.changed(X=np.full(stream.X.shape, np.nan)),
    "weights": lambda stream: stream.changed(weight=stream.weight * 1e12),
}


POLICIES: dict[str, Any] = {
    "notify": "notify",
    "reset": "reset",
    "inflate": "inflate",
    "background": "background",
    "all": {"background": None, "forget": {"memory": 5, "rows": 12}, "replay": {"rows": 15}},
}


def _make(found: Callable[..., Operator], k: int) -> Make:
    """Each call builds anew: members of wrappers are not shared between operators."""
    return lambda: found(**list(found._unit_test_params())[k])  # type: ignore[attr-defined]


def _subjects() -> dict[str, Make]:
    found: dict[str, Make] = {}
    for name, kind in operators.exported().items():
        for k in range(len(list(kind._unit_test_params()))):
            found[f"{name}[{k}]" if k else name] = _make(kind, k)
    return found


def _nervous(delta: float = 0.9) -> operators.ADWIN:
    """A detector that fires within a hundred rows."""
    return operators.ADWIN(delta=delta, clock=1, min_window_length=2, grace_period=2)


def _composed() -> dict[str, Make]:
    """Whole pipelines, and wrappers that do act on drift within the length of a test's stream."""

    def pipeline(*stages: Any) -> Pipeline:
        return Pipeline(operators.OneHotEncoder(), operators.Densifier(), *stages)

    kalman, scaler = operators.KalmanClassifier, operators.Normalizer
    made: dict[str, Make] = {
        "Pipeline": lambda: pipeline(operators.Imputer(), scaler(), kalman(), _nervous()),
        "Pipeline of River": lambda: pipeline(
            preprocessing.StandardScaler(),
            multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
            drift.PageHinkley(min_instances=5, threshold=1.0),
        ),
        "Pipeline of transformers": lambda: Pipeline(
            operators.HashEncoder(4), operators.Densifier(), scaler()
        ),
        "Pipeline of numbers": lambda: pipeline(operators.KalmanRegressor(), _nervous()),
        "Pipeline a key": lambda: pipeline(
            operators.KeyedClassifier(Pipeline(scaler(), kalman()), max_keys=3)
        ),
    }

    def acting(policy: Any) -> Make:
        return lambda: pipeline(
            scaler(),
            operators.AdaptiveClassifier(kalman(), _nervous(), policy, warning=_nervous(0.99)),
        )

    return made | {f"Adaptive {name}": acting(policy) for name, policy in POLICIES.items()}


def _examples(name: str, law: Law) -> int:
    """Fewer for a second set of parameters, and for laws that walk a stream many times."""
    most = SHARE * (3 if law.streams in ("late", "at once") else 8)
    return max(1, round(most / 3 if "[" in name else most))


SUBJECTS = _subjects() | _composed()
CASES = [
    pytest.param(
        make,
        law,
        _examples(name, law),
        id=f"{name}-{law.name}",
        marks=pytest.mark.jit,
    )
    for name, make in SUBJECTS.items()
    for law in laws_of(make())
]


HARD = {"hard": MODES[::-1], "late": ("late",), "at once": ("labelled",)}  # modes by streams


@pytest.mark.parametrize(("make", "law", "examples"), CASES)
def test_law(make: Make, law: Law, examples: int) -> None:
    if law.streams == "long":
        plan = plan_for(make(), "long", np.random.default_rng(7))
        law.check(make, Stream.from_plan(plan), [])
        return
    operator = make()
    plans = (
        strategies.hard_plans(operator, HARD[law.streams])
        if law.streams in HARD
        else strategies.tame_plans(operator, categories=law.streams == "tame")
    )

    @settings(max_examples=examples)
    @given(plans, st.data())
    def holds(plan: Plan, data: st.DataObject) -> None:
        stream = Stream.from_plan(plan)
        law.check(make, stream, data.draw(strategies.cuts(stream.n)))

    holds()


PREDICTORS = [
    pytest.param(make, id=name)
    for name, make in SUBJECTS.items()
    if make().task in ("classification", "regression") and "River" not in name
]


@pytest.mark.parametrize("make", [p for p in PREDICTORS if p.values[0]().task == "classification"])  # type: ignore[operator]
@pytest.mark.jit
def test_many_classes_leave_the_law_as_it_is(make: Make) -> None:
    """Room for classes that come later must not show: not in a sum, not in a tolerance."""
    plan = Plan(rows=(120,), columns=(("normal", "normal"),), n_classes=60, seed=4)
    check_block_law(make, Stream.from_plan(plan), [13, 40])


@pytest.mark.parametrize("make", PREDICTORS)
@pytest.mark.parametrize("what", EXTREMES)
@pytest.mark.jit
def test_extremes_leave_answers_and_state_sound(make: Make, what: str) -> None:
    """Probabilities add up, nothing is infinite, and no NaN stays in what was learnt."""
    operator = make()
    task = str(operator.task)
    stream = Stream.from_plan(
        Plan(task, (80,), (("normal", "normal", "normal"),), weighted=True, seed=8)
    )
    stream = EXTREMES[what](stream)
    outputs = run_in_cuts(operator, stream.blocks())
    check_block_law(make, stream, [31])
    said = ~np.isnan(outputs["prediction"])
    if task == "classification":
        np.testing.assert_allclose(outputs["proba"][said].sum(axis=1), 1.0, rtol=1e-9)
    for name, column in outputs.items():
        assert name == "why" or not np.isinf(column).any()
    for name, array in operator.state().arrays.items():
        missing = name.rpartition("/")[2] in ("buffer_", "ring_", "lessons_")  # rows as they came
        assert missing or array.dtype.kind != "f" or np.isfinite(array).all(), name


def _refusal(make: Make, stream: Stream) -> str:
    """What an operator says that does not take a stream, "" if it does."""
    try:
        run_in_cuts(make(), stream.blocks())
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("make", [p for p in PREDICTORS if p.values[0]().task == "regression"])  # type: ignore[operator]
@pytest.mark.jit
def test_two_targets_hold_the_laws(make: Make) -> None:
    """Whoever takes y (n, 2) keeps to the laws with it; who does not says so."""
    growing = Plan("regression", (30, 30), (("normal", "missing"), ("offset",)), "mixed", seed=6)
    steady = Plan("regression", (60,), (("normal", "missing", "offset"),), "mixed", seed=6)
    first, second = (
        stream.changed(y=np.column_stack([stream.y, 3.0 - 2.0 * stream.y]))
        for stream in map(Stream.from_plan, (growing, steady))
    )
    refusal = _refusal(make, first)
    if refusal:
        assert "y must be one target a row" in refusal
        return
    check_block_law(make, first, [17])
    check_resume(make, first, 40)
    check_snapshot(make, first, 12)
    check_reset(make, second)


@pytest.mark.parametrize("make", [p for p in PREDICTORS if p.values[0]().task == "classification"])  # type: ignore[operator]
@pytest.mark.jit
def test_labels_that_are_no_class_hold_the_block_law(make: Make) -> None:
    """They come before the first class, alone in their blocks, and among others."""
    stream = Stream.from_plan(Plan("classification", (40,), (("normal", "normal"),), seed=3))
    y = np.concatenate([[-1.0, -np.inf, np.inf, -7.0, -1.0], stream.y[:35]])
    y[[12, 20, 21, 30]] = [-1.0, 0.5, np.inf, 1.5]
    check_block_law(make, stream.changed(y=y), [3, 4, 20, 25])


def _waiting() -> dict[str, tuple[Make, Plan]]:
    """Members that are not asked for a while, and events that wait for their labels."""
    kalman, scaler = operators.KalmanClassifier, operators.Normalizer
    classes = Plan(rows=(60,), n_classes=5)
    columns = Plan(rows=(20, 40), columns=(("normal",), ("normal",)), n_classes=2)
    return {
        "experts, and new classes": (
            lambda: operators.ExpertPoolClassifier(kalman(), _nervous(), every=1),
            classes,
        ),
        "experts, and new features": (
            lambda: operators.ExpertPoolClassifier(
                Pipeline(scaler(), kalman()), _nervous(), every=1
            ),
            columns,
        ),
        "readings": (
            lambda: Pipeline(
                operators.ErrorMemoryClassifier(kalman(), arrays=2, bits=2, warm_up=0)
            ),
            classes._replace(modes="delayed"),
        ),
        "sets": (
            lambda: Pipeline(operators.UnitNorm(), operators.ConformalClassifier(kalman())),
            classes._replace(modes="delayed", seed=3),
        ),
    }


@pytest.mark.parametrize("what", _waiting())
@pytest.mark.jit
def test_what_waits_does_not_hang_on_the_ends_of_blocks(what: str) -> None:
    make, plan = _waiting()[what]
    check_block_law(make, Stream.from_plan(plan), [20, 33])


def test_the_operator_of_the_tutorial_says_that_it_takes_one_target() -> None:
    """The example is no exported operator: what the suite asks of those it is asked here."""
    example = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "own_operator.py"))
    test_two_targets_hold_the_laws(example["NLMSRegressor"])


def _two_ways() -> list[type[Operator]]:
    """Operators that the suite builds with other parameters of their own, not of members, too."""
    found = []
    for kind in operators.exported().values():
        built = [kind(**given)._plain_parameters() for given in list(kind._unit_test_params())[:2]]
        if len(built) == 2 and built[0] != built[1]:
            found.append(kind)
    return found


@pytest.mark.parametrize("kind", _two_ways(), ids=lambda kind: kind.__name__)
@pytest.mark.jit
def test_a_state_of_other_parameters_is_refused_and_nothing_is_lost(kind: type[Operator]) -> None:
    """Whichever parameter it is; a state that does not fit must not even empty the operator."""
    own, other = (_make(kind, k)() for k in (0, 1))
    stream = Stream.from_plan(plan_for(own, "tame", np.random.default_rng(1)))
    run_in_cuts(own, stream.blocks())
    run_in_cuts(other, stream.blocks())
    before = own.state()
    with pytest.raises(ValueError, match="as in the saved state, got"):
        own.load(other.state())
    after = own.state()
    assert after.table == before.table
    assert after.arrays.keys() == before.arrays.keys()
    for name, array in before.arrays.items():
        np.testing.assert_array_equal(after.arrays[name], array)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.jit
def test_wrappers_of_the_suite_do_act(policy: str) -> None:
    """The laws would say little about adaptation if no detector fired in a stream of the suite."""
    alarms = 0.0
    for seed in range(10):
        stream = Stream.from_plan(Plan(rows=(100,), columns=(("normal",),), seed=seed))
        alarms += run_in_cuts(SUBJECTS[f"Adaptive {policy}"](), stream.blocks())["alarm"].sum()
    assert alarms >= 5


@pytest.mark.jit
def test_another_process_makes_the_same_bits() -> None:
    """No result hangs on Python's salted hashes, on addresses or on anything else of a process."""
    first, second = (_digests(hash_seed) for hash_seed in ("1", "2"))
    assert first == second
    assert len(first) == len(SUBJECTS)


def _digests(hash_seed: str) -> list[str]:
    """Of outputs and state of every subject, computed by a Python with this hash seed."""
    program = "from tests.test_conformance import print_digests; print_digests()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines()


def print_digests() -> None:
    """One line a subject, for a process of its own."""
    for name, make in SUBJECTS.items():
        operator = make()
        stream = Stream.from_plan(plan_for(operator, "tame", np.random.default_rng(1)))
        outputs, state = run_in_cuts(operator, stream.blocks()), operator.state()
        digest = hashlib.sha256()
        for key, array in sorted((outputs | state.arrays).items()):
            if not key.endswith("pickle"):
                digest.update(key.encode() + bits(array))
        sys.stdout.write(f"{name} {digest.hexdigest()}\n")
