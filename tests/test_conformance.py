"""Every law of the engine for every exported operator, and for pipelines of them.

Nothing here names an operator: what `streamlearn.operators` exports is found, built from its
`_unit_test_params`, and walked through hard streams that hypothesis makes and cuts.
"""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn import operators
from streamlearn.operators._base import Operator
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


SUBJECTS = _subjects()
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
    plans = strategies.hard_plans if law.streams == "hard" else strategies.tame_plans

    @given(plans(operator), st.data())
    def holds(plan: Plan, data: st.DataObject) -> None:
        stream = Stream.from_plan(plan)
        law.check(make, stream, data.draw(strategies.cuts(stream.n)))

    holds()
