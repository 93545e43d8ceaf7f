"""Nanoseconds an event of every exported operator, the latency of a lone event, bytes of state."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import clock, streams
from benchmarks.tables import markdown, number
from streamlearn import operators
from streamlearn.block import LABELLED, PREDICT, UNSCORED, Block, Columns
from streamlearn.evaluation import Evaluation
from streamlearn.operators._base import Detector, Operator, Regressor, Transformer

TITLE = "Every operator"
ABOUT = """\
As the tests of conformance build it first, by number of features: nanoseconds an event in blocks of
1,000 rows (200 at d = 500), answers alone, learning alone, and both in one walk; microseconds of a
block of one event at d = 8; and what its state holds after two blocks at d = 500. A detector or a
stage has no other answer than what it learns from."""
WIDTHS = (8, 54, 500)
ROWS = {8: 1000, 54: 1000, 500: 200}  # rows of a block
ERROR_RATE = 0.2  # of the bits that a detector watches
MODES = {"predict": PREDICT, "learn": UNSCORED, "both": LABELLED}
LONE = 1000  # calls with one event, at least


class Figure(NamedTuple):
    """One operator at one width: nanoseconds in blocks by mode, a lone event, bytes of state."""

    operator: str
    d: int
    predict_ns: float
    learn_ns: float
    both_ns: float
    p50_us: float
    p99_us: float
    p999_us: float
    state_bytes: int


def measure(quick: bool) -> list[dict[str, Any]]:
    """All operators at all widths; a quick look at one."""
    clock.pin()
    if quick:
        return [figure("Normalizer", 8, 0.0)._asdict()]
    return [one._asdict() for one in figures(0.02)]


def tables(found: list[dict[str, Any]]) -> list[str]:
    """One table: a row an operator."""
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    for f in found:
        by_name.setdefault(f["operator"], {})[f["d"]] = f
    widths = list(dict.fromkeys(f["d"] for f in found))
    head = ("operator", *(f"d = {d}: {mode}" for d in widths for mode in MODES),
            "p50, us", "p99", "p99.9", "state, KB")  # fmt: skip
    rows = []
    for name, by_width in by_name.items():
        walks = [number(by_width[d][f"{mode}_ns"], ",.0f") for d in widths for mode in MODES]
        first, last = by_width[widths[0]], by_width[widths[-1]]
        lone = [number(first[key], ".1f") for key in ("p50_us", "p99_us", "p999_us")]
        rows.append((name, *walks, *lone, f"{last['state_bytes'] / 1e3:,.1f}"))
    return [markdown(head, rows)]


def figures(seconds: float) -> Iterator[Figure]:
    """All operators at all widths, for about so many seconds each mode."""
    for name in measurable():
        for d in WIDTHS:
            yield figure(name, d, seconds)
    for groups in (0, 4):
        for d in WIDTHS:
            yield evaluation_figure(groups, d, seconds)


def measurable() -> list[str]:
    """Operators that can be built here: those of an extra that is not installed cannot."""
    kinds = operators.exported().items()
    return [name for name, kind in kinds if next(kind._unit_test_params(), None) is not None]


def figure(name: str, d: int, seconds: float) -> Figure:
    """One operator, as the conformance suite builds it, on labelled rows of one concept."""
    operator, block = make(name), block_for(make(name), d)
    walks = {
        mode: clock.percentile(clock.repeated(partial(operator.run, rows), seconds, 1), 0.5)
        / block.n
        for mode, rows in prepared(operator, block).items()
    }
    lone = one_event(operator.run, block, seconds if d == WIDTHS[0] else None)
    arrays, _ = operator.state()
    held = sum(array.nbytes for array in arrays.values())
    predict, learn, both = (walks[mode] for mode in MODES)
    return Figure(name, d, predict, learn, both, *lone, held)


def prepared(operator: Operator, block: Block) -> dict[str, Block]:
    """The block in each mode; kernels are loaded, and the operator is past its first events."""
    rows = {
        mode: block.replace(mode=np.full(block.n, bits, np.uint8)) for mode, bits in MODES.items()
    }
    for piece in (block.rows(0, 1), block, rows["predict"], rows["learn"]):
        operator.run(piece)
    return rows


def one_event(
    run: Callable[[Block], object], block: Block, seconds: float | None
) -> tuple[float, float, float]:
    """Microseconds of a block of one event: p50, p99, p99.9; NaN where not asked for."""
    if seconds is None:
        return np.nan, np.nan, np.nan
    first = block.rows(0, 1)
    taken = clock.repeated(lambda: run(first), seconds, at_least=LONE if seconds else 10)
    p50, p99, p999 = (clock.percentile(taken, share) / 1e3 for share in (0.5, 0.99, 0.999))
    return p50, p99, p999


def evaluation_figure(groups: int, d: int, seconds: float) -> Figure:
    """All metrics of a binary stream with probabilities; with groups, by group as well."""
    block = streams.block(ROWS[d], d, classes=True, category=False)
    if groups:
        block.groups = np.array([f"group {t % groups}" for t in range(block.n)], dtype=object)
    confidence = np.random.default_rng(0).random(block.n)
    outputs = {
        "prediction": (confidence > 0.5).astype(np.float64),
        "proba": np.column_stack([1.0 - confidence, confidence]),
    }
    measured = Evaluation("classification", block.labels)
    walk = partial(update, measured, outputs)
    walk(block)
    taken = clock.repeated(lambda: walk(block), seconds)
    name = "Evaluation, by group" if groups else "Evaluation"
    both = clock.percentile(taken, 0.5) / block.n
    lone = one_event(walk, block, seconds if d == WIDTHS[0] else None)
    return Figure(name, d, np.nan, np.nan, both, *lone, 0)


def update(measured: Evaluation, outputs: Columns, rows: Block) -> None:
    """Measure a block, or its head."""
    measured.update(rows, {name: column[: rows.n] for name, column in outputs.items()})


def make(name: str) -> Operator:
    """A fresh operator with the first of its test parameters."""
    kind = getattr(operators, name)
    found: Operator = kind(**next(iter(kind._unit_test_params())))
    return found


def block_for(operator: Operator, d: int) -> Block:
    """A block that the operator takes: categories for transformers of them, bits for detectors."""
    category = operator.takes_categories and isinstance(operator, Transformer)
    classes = not isinstance(operator, Regressor)
    block = streams.block(ROWS[d], d, classes=classes, category=category)
    if isinstance(operator, Detector):
        block.X[:, 0] = np.random.default_rng(0).random(block.n) < ERROR_RATE
    return block
