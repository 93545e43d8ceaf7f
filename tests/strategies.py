"""Hypothesis strategies: plans of hard streams that an operator takes, and ways to cut them."""

from hypothesis import strategies as st

from streamlearn.operators._base import Operator
from streamlearn.testing import MODES, Plan, classes_of, kinds_of, tasks_of


@st.composite
def hard_plans(draw: st.DrawFn, operator: Operator, modes: tuple[str, ...] = MODES[::-1]) -> Plan:
    """Up to three segments of up to 40 rows, each with new columns of any kind it takes.

    The simple end of every choice is a hard one: hypothesis visits it more often than the rest.
    """
    columns = st.lists(st.sampled_from(kinds_of(operator)[::-1]), min_size=1, max_size=3)
    segments = st.tuples(st.integers(10, 40), columns.map(tuple))
    rows, kinds = zip(*draw(st.lists(segments, min_size=1, max_size=3)), strict=True)
    most = classes_of(operator)
    return Plan(
        draw(st.sampled_from(tasks_of(operator))),
        rows,
        kinds,
        draw(st.sampled_from(modes)),
        weighted=draw(st.booleans()),
        gaps=draw(st.booleans()),
        infinities=draw(st.booleans()),
        repeats=draw(st.booleans()),
        sparse=operator.takes_sparse and draw(st.booleans()),
        n_classes=draw(st.sampled_from([min(3, most), most, *range(1, most)])),
        seed=draw(st.integers(0, 2**32 - 1)),
        keys=draw(st.sampled_from([4, 30, 0])) if operator.takes_keys else 0,
    )


@st.composite
def tame_plans(draw: st.DrawFn, operator: Operator, categories: bool = True) -> Plan:
    """One segment without missing values, of columns that are easy on rounding."""
    with_category = categories and operator.takes_categories
    kinds = (*(("category",) if with_category else ()), "normal", "boolean")
    columns = draw(st.lists(st.sampled_from(kinds), min_size=2, max_size=5))
    return Plan(
        draw(st.sampled_from(tasks_of(operator))),
        (draw(st.integers(20, 60)),),
        (tuple(columns),),
        weighted=draw(st.booleans()),
        n_classes=draw(st.integers(1, classes_of(operator))),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def cuts(n: int) -> st.SearchStrategy[list[int]]:
    """Where to cut n rows: any rows, in any order, at least one."""
    return st.lists(st.integers(0, n), min_size=1, max_size=8)
