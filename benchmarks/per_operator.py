"""Nanoseconds an event of every exported operator, and the latency of a block of one event."""

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks import clock, streams
from streamlearn import operators
from streamlearn.block import Block
from streamlearn.operators._base import Operator, Regressor, Transformer

WIDTHS = (8, 54, 500)
ROWS = {8: 1000, 54: 1000, 500: 200}  # rows of a block


class Figure(NamedTuple):
    """One operator at one width: predict and learn, in blocks and alone."""

    operator: str
    d: int
    ns_per_event: float
    one_event_us_p50: float
    one_event_us_p99: float


def measure(seconds: float) -> Iterator[Figure]:
    """All operators at all widths, for about so many seconds each."""
    for name in operators.exported():
        for d in WIDTHS:
            yield figure(name, d, seconds)


def figure(name: str, d: int, seconds: float) -> Figure:
    """One operator, as the conformance suite builds it, on labelled rows of one concept."""
    operator, block = make(name), block_for(make(name), d)
    first = block.rows(0, 1)
    for piece in (first, block):  # kernels are loaded, and the operator is past its first events
        operator.run(piece)
    walks = clock.repeated(lambda: operator.run(block), seconds)
    alone = clock.repeated(lambda: operator.run(first), seconds / 2, at_least=100)
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
    """A block that the operator takes; a transformer of categories gets one column of them."""
    category = operator.takes_categories and isinstance(operator, Transformer)
    classes = not isinstance(operator, Regressor)
    return streams.block(ROWS[d], d, classes=classes, category=category)
