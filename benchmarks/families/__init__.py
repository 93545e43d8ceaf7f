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
from typing import NamedTuple

from streamlearn.block import F8
from streamlearn.operators._base import Operator


class Cost(NamedTuple):
    """One operator at one size, and the same equations in plain numpy.

    plain(X, y): predicts and learns the rows (n, d), (n,) one by one, as `make()` does in `run`.
    wide: rows of the widest state matrix, which says what is asked of the ratio.
    classes: of a classifier. grows: what grows from one size to the next, if they are a series.
    """

    operator: str
    size: str
    make: Callable[[], Operator]
    plain: Callable[[F8, F8], None] | None
    d: int
    wide: int
    classes: int = 2
    grows: str = ""  # "width" or "classes"


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
