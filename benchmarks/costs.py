"""`make costs`: what an event costs, by size, beside plain numpy; into docs/costs.md."""

import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import clock, families, pages, streams, tables
from benchmarks.families import Cost
from streamlearn.operators._base import Regressor

SECONDS = 0.5  # of a measurement
ROUNDS = 3
ABOUT = """\
`make costs` writes this page: processor microseconds of one event, predict and learn, in blocks of
200 rows on one core, after the first blocks; and of the same equations in plain numpy, row by row,
in the same run, by turns. Medians. *Width* is that of the widest state matrix.

The second table says how costs grow: between two sizes of a series, by which factor the size, by
which the microseconds, and the exponent that this makes: 1 is linear, 2 quadratic."""


def measured(cost: Cost) -> tuple[float, float | None]:
    """Microseconds of one event: ours, and numpy's where the family has a twin."""
    operator = cost.make()
    classes = not isinstance(operator, Regressor)
    block = streams.block(200, cost.d, classes=classes, category=False, K=cost.classes)
    for _ in range(3):  # past kernels to load and first events
        operator.run(block)
    few = max(5, min(200, 40_000 // cost.d))
    X, y = np.ascontiguousarray(block.X[:few]), np.ascontiguousarray(block.y[:few])
    contestants: dict[str, Callable[[], float]] = {
        "ours": lambda: _per_event(lambda: operator.run(block), block.n)
    }
    plain = cost.plain
    if plain is not None:
        contestants["numpy"] = lambda: _per_event(lambda: plain(X, y), few)
    found = clock.by_turns(contestants, ROUNDS)
    return found["ours"][0], found["numpy"][0] if plain is not None else None


def growth(series: Sequence[tuple[Cost, float]]) -> list[tuple[str, ...]]:
    """Cells of each step of a series: operator, what grows, from and to, both factors, exponent."""
    rows: list[tuple[str, ...]] = []
    for (a, was), (b, now) in itertools.pairwise(series):
        if (a.operator, a.grows) != (b.operator, b.grows) or not a.grows:
            continue
        sizes = (a.wide, b.wide) if a.grows == "width" else (a.classes, b.classes)
        more, dearer = sizes[1] / sizes[0], now / was
        steps = (f"{sizes[0]} to {sizes[1]}", f"{more:.1f}", f"{dearer:.1f}")
        rows.append((a.operator, a.grows, *steps, f"{math.log(dearer) / math.log(more):.2f}"))
    return rows


def _per_event(call: Callable[[], object], n: int) -> float:
    """Microseconds of processor time, the median over calls; what else runs matters less to it."""
    taken: list[int] = []
    end = time.perf_counter() + SECONDS
    while len(taken) < 3 or time.perf_counter() < end:
        start = time.process_time_ns()
        call()
        taken.append(time.process_time_ns() - start)
    return statistics.median(taken) / n / 1e3


def main() -> None:
    """Measure what there is, or only the families that are named; write the page."""
    wanted = set(sys.argv[1:])
    clock.pin()
    rows: list[tuple[str, ...]] = []
    series: list[tuple[Cost, float]] = []
    for module in families.modules():
        name = module.__name__.rpartition(".")[2]
        if not hasattr(module, "costs") or (wanted and name not in wanted):
            continue
        for cost in module.costs():
            ours, plain = measured(cost)
            series.append((cost, ours))
            beside = ("", "") if plain is None else (f"{plain:,.1f}", f"{plain / ours:.1f}")
            row = (cost.operator, cost.size, str(cost.wide), f"{ours:,.2f}", *beside)
            print(" | ".join(row), flush=True)
            rows.append(row)
    head = ("operator", "size", "width", "us an event", "numpy, us", "times numpy")
    more = ("operator", "what grows", "from, to", "times larger", "times dearer", "exponent")
    grown = tables.markdown(more, growth(series))
    print(grown)
    if not wanted:
        print(pages.write("costs", "Costs", ABOUT, [tables.markdown(head, rows), grown]))


if __name__ == "__main__":
    main()
