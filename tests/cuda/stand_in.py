"""Base classes in River's place, for a machine with a GPU and numpy, numba-cuda, pytest alone."""

import importlib.util
import inspect
import sys
import types
from typing import Any


class Base:
    """What our operators need of `river.base.Base`."""

    def clone(self, new_params: dict[str, Any] | None = None) -> Any:
        names = inspect.signature(type(self)).parameters
        given = {name: getattr(self, name) for name in names}
        return type(self)(**given | (new_params or {}))


def install() -> None:
    """Make `from river import base` work where River is not installed."""
    if importlib.util.find_spec("river") is not None:
        return
    kinds: dict[str, type] = {"Base": Base}

    def kind(name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return kinds.setdefault(name, type(name, (Base,), {}))

    river, base = types.ModuleType("river"), types.ModuleType("river.base")
    base.__getattr__ = kind  # type: ignore[method-assign]
    river.base = base  # type: ignore[attr-defined]
    sys.modules |= {"river": river, "river.base": base}
