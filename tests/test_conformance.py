"""Every law of the engine for every exported operator, and for pipelines of them.

Nothing here names an operator: what `streamlearn.operators` exports is found, built from its
`_unit_test_params`, and walked through hard streams that hypothesis makes and cuts.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import drift, linear_model, multiclass, preprocessing

from streamlearn import operators
from streamlearn.operators._base import Operator
from streamlearn.operators.adaptive import POLICIES
from streamlearn.pipeline import Pipeline
from streamlearn.testing import Law, Make, Plan, Stream, laws_of, plan_for
from tests import strategies


def _make(found: Callable[..., Operator], k: int) -> Make:
    """Each call builds anew: members of wrappers are not shared between operators."""
    return lambda: found(**list(found._unit_test_params())[k])  # type: ignore[attr-defined]


def _subjects() -> dict[str, Make]:
    found: dict[str, Make] = {}
    for name in operators.__all__:
        kind = getattr(operators, name)
        for k in range(len(list(kind._unit_test_params()))):
            found[f"{name}[{k}]" if k else name] = _make(kind, k)
    return found


def _nervous(delta: float = 0.5) -> operators.ADWIN:
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
    }
    for policy in POLICIES:
        made[f"Adaptive {policy}"] = lambda policy=policy: pipeline(
            scaler(),
            operators.AdaptiveClassifier(kalman(), _nervous(0.1), policy, warning=_nervous()),
        )
    return made


SUBJECTS = _subjects() | _composed()
CASES = [
    pytest.param(make, law, id=f"{name}-{law.name}", marks=pytest.mark.jit)
    for name, make in SUBJECTS.items()
    for law in laws_of(make())
]


@pytest.mark.parametrize(("make", "law"), CASES)
def test_law(make: Make, law: Law) -> None:
    if law.streams == "long":
        plan = plan_for(make(), "long", np.random.default_rng(7))
        law.check(make, Stream.from_plan(plan), [])
        return
    operator = make()
    plans = (
        strategies.hard_plans(operator)
        if law.streams == "hard"
        else strategies.tame_plans(operator, categories=law.streams == "tame")
    )

    @given(plans, st.data())
    def holds(plan: Plan, data: st.DataObject) -> None:
        stream = Stream.from_plan(plan)
        law.check(make, stream, data.draw(strategies.cuts(stream.n)))

    holds()
