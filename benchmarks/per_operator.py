"""Nanoseconds an event of every exported operator, and the latency of a block of one event."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from benchmarks import clock, streams
from streamlearn import operators
from streamlearn.block import Block
from streamlearn.evaluation import Evaluation
from streamlearn.operators._base import Detector, Operator, Regressor, Transformer

WIDTHS = (8, 54, 500)
ROWS = {8: 1000, 54: 1000, 500: 200}  # rows of a block
ERROR_RATE = 0.2  # of the bits that a detector watches


class Figure(NamedTuple):
    """One operator at one width: predict and learn, in blocks and alone."""

    operator: str
    d: int
    ns_per_event: float
    one_event_us_p50: float
    one_event_us_p99: float


def measure(seconds: float) -> Iterator[Figure]:
    """All operators at all widths, for about so many seconds each."""
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
    return timed(name, operator.run, block, d, seconds)


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

    def update(rows: Block) -> None:
        measured.update(rows, {name: column[: rows.n] for name, column in outputs.items()})

    return timed("Evaluation, by group" if groups else "Evaluation", update, block, d, seconds)


def timed(
    name: str, run: Callable[[Block], object], block: Block, d: int, seconds: float
) -> Figure:
    """A walk over a block, and over its first row alone."""
    first = block.rows(0, 1)
    for piece in (first, block):  # kernels are loaded, and the operator is past its first events
        run(piece)
    walks = clock.repeated(lambda: run(block), seconds)
    alone = clock.repeated(lambda: run(first), seconds / 2, at_least=100)
    return Figure(
        operator=name,
        d=d,
        ns_per_event=clock.percentile(walks, 0.5) / block.n,
        one_event_us_p50=clock.percentile(alone, 0.5) / 1e3,
        one_event_us_p99=clock.percentile(alone, 0.99) / 1e3,
    )


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
