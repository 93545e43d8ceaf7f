"""What each family of operators brings to the benchmarks: one module a family, found by its name.

A module may define, all optional:
    CANDIDATES: class name -> argument -> values tried when its default was chosen (`defaults`).
    costs() -> Iterator[Cost]: the family at several sizes, beside plain numpy (`costs`).
    tables(data: Path) -> Iterator[Table]: its specification's tables, run again (`reproduce`).
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

from streamlearn.block import F8
from streamlearn.operators._base import Operator


class Cost(NamedTuple):
    """One operator at one size, and the same equations in plain numpy.

    plain(X, y): predicts and learns the rows (n, d), (n,) one by one, as `make()` does in `run`.
    wide: rows of the widest state matrix, which says what is asked of the ratio.
    classes: of a classifier. grows: what grows from one size to the next, if they are a series.
    many: components, experts, hyperplanes, nodes: what grows when neither of the others does.
    flops, bytes: of one event, answered and learnt, by count of the specification's equations: a
    symmetric matrix counts as one triangle, each number of the state that changes is read and
    written once, the others are read once; 0 where nobody has counted. spec: the same in letters.
    keys: of a model for each key, all equally frequent.
    period: rows after which what is done seldom has been done once.
    """

    operator: str
    size: str
    make: Callable[[], Operator]
    plain: Callable[[F8, F8], None] | None
    d: int
    wide: int
    classes: int = 2
    grows: str = ""  # "width", "classes", or what `many` is
    many: int = 0
    flops: float = 0.0
    bytes: float = 0.0
    spec: str = ""
    period: int = 1
    keys: int = 0

    @property
    def at(self) -> int:
        """Where it stands in its series."""
        return {"width": self.wide, "classes": self.classes, "keys": self.keys}.get(
            self.grows, self.many
        )


def triangle(D: int, K: int, heads: int = 1) -> dict[str, Any]:
    """Counts of heads that share nothing: P f (2 D^2), a triangle of P - u u' / s (D^2), and for
    each of K outputs m'f and m + k e (4 D)."""
    flops = heads * (3.0 * D * D + 4.0 * K * D)
    return {"flops": flops, "bytes": 8.0 * heads * D * (D + 1) + 16.0 * heads * K * D}


class Table(NamedTuple):
    """A table of a specification, run again: cells as text, published figures beside ours."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str


def modules() -> Iterator[ModuleType]:
    """The modules of this folder, by name."""
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        yield importlib.import_module(f"{__name__}.{found.name}")
