"""What an event costs by size, beside plain numpy; how that grows; how near it is to the machine.

`python -m benchmarks.costs FAMILY ...` prints the rows of some families alone.
"""

import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import clock, families, rates, streams
from benchmarks.families import Cost
from benchmarks.figures import COLOURS, Line, Plot
from benchmarks.tables import markdown, number
from streamlearn.block import LABELLED, PREDICT, UNSCORED, Block
from streamlearn.operators._base import Regressor

TITLE = "What an event costs"
ABOUT = """\
Processor microseconds of one labelled event in blocks of 200 rows (of 4,096 with keys, each key as
often as the others) on one core, after the first blocks: the answer alone, what is learnt alone,
and both in one walk; and of the same equations in plain numpy, row by row, in the same run, by
turns. Medians. *Width* is that of the widest state
matrix. *Flops* and *bytes* are by count of the specification's equations, event by event, not of
what a kernel does: a symmetric matrix counts as one triangle, a number of the state that changes is
read and written once. *Of dgemm* is the share of this machine's own matrix product, on one core,
that the flops make; *of copies* that of its copy of as much memory that the bytes make: over 100 %
where a kernel takes events in groups and does not move its matrix for each."""
SECONDS = 0.02  # of a measurement
ROUNDS = 3
KEYED_ROWS = 4_096  # of a block, where each row has its key
MODES = {"predict": PREDICT, "learn": UNSCORED, "both": LABELLED}
ABOVE = 128  # sizes from here on make an exponent, where a series has two of them
SERIES = """\
How costs grow: the exponent is the slope of log cost over log size by least squares, of sizes from
128 on where a series has at least two of them, else of all; beside it that of the count of the
specification's equations over the same sizes."""


def measure(quick: bool) -> dict[str, Any]:
    """Every size of every family; of each family the first where quick."""
    clock.pin()
    found = rates.measured(0.001 if quick else 0.15)
    rows = []
    for cost in chosen(set(), quick):
        rows.append(row(cost, found, 0.0 if quick else SECONDS))
        print(" | ".join(cells(rows[-1])), file=sys.stderr, flush=True)
    return {"rows": rows, "rates": found.to_json()}


def chosen(wanted: set[str], quick: bool = False) -> Iterator[Cost]:
    """Sizes of all families, or of those that are named."""
    for module in families.modules():
        name = module.__name__.rpartition(".")[2]
        if hasattr(module, "costs") and (not wanted or name in wanted):
            yield from itertools.islice(module.costs(), 1 if quick else None)


def row(cost: Cost, found: rates.Rates, seconds: float) -> dict[str, Any]:
    """Figures of one size: microseconds, counts, and what they are of what the machine can do."""
    us = timed(cost, seconds)
    ns = 1e3 * (us["both"] or math.nan)
    return {
        "operator": cost.operator,
        "size": cost.size,
        "width": cost.wide,
        "grows": cost.grows,
        "at": cost.at,
        "flops": cost.flops,
        "bytes": cost.bytes,
        "spec": cost.spec,
        "of_dgemm": cost.flops / ns / found.dgemm if cost.flops else None,
        "of_copy": cost.bytes / ns / found.bytes_a_second(cost.bytes) if cost.bytes else None,
        **us,
    }


def timed(cost: Cost, seconds: float) -> dict[str, float | None]:
    """Microseconds of one event by mode, and numpy's where the family has a twin."""
    operator = cost.make()
    blocks = walked(cost, classes=not isinstance(operator, Regressor))
    for block in blocks if cost.keys else blocks[:1] * 3:  # past kernels to load and first events
        operator.run(block)
    n = sum(block.n for block in blocks)
    contestants: dict[str, Callable[[], float]] = {}
    for name, bits in MODES.items():
        rows = [block.replace(mode=np.full(block.n, bits, np.uint8)) for block in blocks]
        contestants[name] = lambda rows=rows: per_event(  # type: ignore[misc]
            lambda: [operator.run(block) for block in rows], n, seconds
        )
    plain = cost.plain
    if plain is not None:
        few = max(5, min(200, 20_000 // cost.wide))
        X, y = (np.ascontiguousarray(column[:few]) for column in (blocks[0].X, blocks[0].y))
        contestants["numpy"] = lambda: per_event(lambda: plain(X, y), few, seconds)
    found = clock.by_turns(contestants, ROUNDS if seconds else 1)
    return {name: found[name][0] if name in found else None for name in (*MODES, "numpy")}


def walked(cost: Cost, classes: bool) -> list[Block]:
    """Blocks of one measurement: 200 rows, as often as what is seldom done asks; or all keys."""
    n = KEYED_ROWS if cost.keys else 200
    block = streams.block(n, cost.d, classes=classes, category=False, K=cost.classes)
    if not cost.keys:
        return [block] * math.ceil(cost.period / block.n)
    shuffled = np.random.default_rng(0).permutation(cost.keys)
    keys = np.resize(shuffled, math.ceil(cost.keys / n) * n).reshape(-1, n)
    return [block.replace(keys=np.ascontiguousarray(row)) for row in keys]


def per_event(call: Callable[[], object], n: int, seconds: float) -> float:
    """Microseconds of processor time, the median over calls; what else runs matters less to it."""
    taken: list[int] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        start = time.process_time_ns()
        call()
        taken.append(time.process_time_ns() - start)
    return statistics.median(taken) / n / 1e3


# -- what is shown ---------------------------------------------------------------------------------

HEAD = ("operator", "size", "width", "predict", "learn", "both, us", "numpy, us", "times numpy",
        "flops", "bytes", "of dgemm", "of copies")  # fmt: skip


def main_table(rows: list[dict[str, Any]]) -> str:
    """The main table."""
    return markdown(HEAD, [cells(r) for r in rows])


def cells(r: dict[str, Any]) -> tuple[str, ...]:
    """A row of it."""
    times = r["numpy"] / r["both"] if r["numpy"] else None
    counts = (f"{r['flops']:,.0f}", f"{r['bytes']:,.0f}") if r["flops"] else ("", "")
    return (
        r["operator"], r["size"], str(r["width"]),
        *(number(r[mode], ",.2f") for mode in MODES),
        number(r["numpy"], ",.1f"), number(times, ",.1f"), *counts,
        number(r["of_dgemm"], ".0%"), number(r["of_copy"], ".0%"),
    )  # fmt: skip


def series(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Rows of one operator of which one thing grows, by operator and what grows."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for r in rows:
        kind = "neighbours" if "neighbours" in r["size"] else ""
        if r["grows"]:
            name = f"{r['operator']}, {kind}" if kind else r["operator"]
            found.setdefault((name, r["grows"]), []).append(r)
    return {key: sorted(them, key=lambda r: float(r["at"])) for key, them in found.items()}


def growth(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Cells of each series: sizes, exponent, that of the count, how far apart."""
    out: list[tuple[str, ...]] = []
    for (name, grows), them in series(rows).items():
        large = [r for r in them if r["at"] >= ABOVE]
        used = large if len(large) > 1 else them
        if len(used) < 2:
            continue
        ours = rates.exponent([(r["at"], r["both"]) for r in used])
        counted = all(r["flops"] for r in used)
        spec = rates.exponent([(r["at"], r["flops"]) for r in used]) if counted else None
        sizes = f"{used[0]['at']:,} to {used[-1]['at']:,}"
        apart = "" if spec is None else f"{round(ours - spec, 2) + 0.0:+.2f}"
        shown = (f"{ours:.2f}", number(spec, ".2f"), apart)
        out.append((name, grows, sizes, used[0]["spec"], *shown))
    return out


def tables(measured: dict[str, Any]) -> list[str]:
    """Every size; then how costs grow."""
    head = ("operator", "what grows", "from, to", "flops by count", "exponent", "of the count",
            "apart")  # fmt: skip
    rows = measured["rows"]
    return [main_table(rows), SERIES, markdown(head, growth(rows))]


def plots(measured: dict[str, Any]) -> list[Plot]:
    """A figure for each kind of growth, and a roofline."""
    rows = measured["rows"]
    by_kind: dict[str, list[tuple[float, list[Line]]]] = {}
    for (name, grows), them in series(rows).items():
        points = [(float(r["at"]), float(r["both"])) for r in them]
        lines, steep = [Line(name, points)], 0.0
        if all(r["flops"] for r in them):  # as its count grows, through its largest size
            scale = them[-1]["both"] / them[-1]["flops"]
            count = [(float(r["at"]), scale * r["flops"]) for r in them]
            lines.append(Line(f"{name}: as its count", count, dashed=True))
            steep = rates.exponent(count)
        by_kind.setdefault(grows, []).append((steep, lines))
    drawn = []
    about = "Answered and learnt; dashed: as the count of flops grows, through the largest size."
    for kind, each in by_kind.items():
        ordered = [lines for _, lines in sorted(each, key=lambda one: -one[0])]
        for first in range(0, len(ordered), COLOURS):
            lines = [line for pair in ordered[first : first + COLOURS] for line in pair]
            more = "" if first == 0 else ", the less steep"
            drawn.append(Plot(f"Cost by {kind}{more}", kind, "us an event", lines, about))
    return [*drawn, _roofline(rows, rates.Rates.from_json(measured["rates"]))]


def _roofline(rows: list[dict[str, Any]], found: rates.Rates) -> Plot:
    """Gflop/s over flops a byte, below what dgemm and copies of two sizes allow."""
    each: dict[str, list[tuple[float, float]]] = {}
    for r in rows:
        if r["flops"]:
            point = (r["flops"] / r["bytes"], r["flops"] / r["both"] / 1e3)
            each.setdefault(r["operator"], []).append(point)
    lines = [Line(name, points, dots=True) for name, points in each.items()]
    xs = [x for points in each.values() for x, _ in points]
    ends = np.geomspace(min(xs) / 2.0, max(xs) * 8.0, 30).tolist()
    for kib in (min(found.copy), max(found.copy)):
        roof = [(x, min(found.dgemm, x * found.copy[kib])) for x in ends]
        lines.append(Line(f"dgemm, copies of {kib:,} KiB", roof, dashed=True))
    about = (
        "Each dot is an operator at one size, by count; dashed: what dgemm and copies allow, where "
        "each event moves its state."
    )
    return Plot("Roofline", "flops a byte, by count", "Gflop/s", lines, about)


def main() -> None:
    """Print the rows of the families that are named."""
    clock.pin()
    found = rates.measured()
    rows = [row(cost, found, SECONDS) for cost in chosen(set(sys.argv[1:]))]
    for text in tables({"rows": rows}):
        print(text, end="\n\n")


if __name__ == "__main__":
    main()
