"""Hypothesis strategies: plans of hard streams that an operator takes, and ways to cut them."""

from hypothesis import strategies as st

from streamlearn.operators._base import Operator
from streamlearn.testing import MODES, Plan, classes_of, kinds_of, tasks_of


@st.composite
def hard_plans(draw: st.DrawFn, operator: Operator, modes: tuple[str, ...] = MODES) -> Plan:
    """Up to three segments of up to 40 rows, each with new columns of any kind it takes."""
    columns = st.lists(st.sampled_from(kinds_of(operator)), min_size=1, max_size=3).map(tuple)
    segments = draw(st.lists(st.tuples(st.integers(1, 40), columns), min_size=1, max_size=3))
    return Plan(
        draw(st.sampled_from(tasks_of(operator))),
        tuple(rows for rows, _ in segments),
        tuple(kinds for _, kinds in segments),
        draw(st.sampled_from(modes)),
        weighted=draw(st.booleans()),
        gaps=draw(st.booleans()),
        infinities=draw(st.booleans()),
        repeats=draw(st.booleans()),
        n_classes=draw(st.integers(1, classes_of(operator))),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@st.composite
def tame_plans(draw: st.DrawFn, operator: Operator) -> Plan:
    """One segment without missing values, of columns that are easy on rounding."""
    kinds = ("normal", "boolean", *(("category",) if operator.takes_categories else ()))
    columns = draw(st.lists(st.sampled_from(kinds), min_size=2, max_size=5))
    return Plan(
        draw(st.sampled_from(tasks_of(operator))),
        (draw(st.integers(1, 60)),),
        (tuple(columns),),
        weighted=draw(st.booleans()),
        n_classes=draw(st.integers(1, classes_of(operator))),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def cuts(n: int) -> st.SearchStrategy[list[int]]:
    """Where to cut n rows: any rows, in any order, at least one."""
    return st.lists(st.integers(0, n), min_size=1, max_size=8)
