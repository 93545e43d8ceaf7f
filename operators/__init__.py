"""Learners, feature maps, wrappers, drift detectors. Everything else reads `__all__`."""

import importlib
from typing import Any

# name -> file; a new operator adds one line here
_HOME = {
}  # fmt: skip

__all__ = sorted(_HOME)  # noqa: PLE0605  # read by the conformance suite, the command line and the docs


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(
            f"streamlearn.operators has no {name!r}; there are: {', '.join(__all__)}"
        )
    return getattr(importlib.import_module(f"streamlearn.operators.{_HOME[name]}"), name)
