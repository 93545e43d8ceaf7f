"""An operator's class and parameters as JSON, and back: a saved file says this, no pickle."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from streamlearn import operators
from streamlearn.contracts import Json
from streamlearn.errors import UserError
from streamlearn.operators import foreign
from streamlearn.operators._base import Operator

_OPERATOR, _FOREIGN, _MAPPING = "operator", "foreign", "mapping"


def specification(stage: Operator) -> Json:
    """{"operator": class name, "parameters": {...}}; members of wrappers are nested.

    "frozen" stands with a pipeline that only scores, which as a stage stays a pipeline of its own.
    A foreign stage is named alone: its parameters are part of its pickle.

    Raises: UserError for a parameter that JSON cannot hold.
    """
    if hasattr(stage, "blank"):
        return {_FOREIGN: type(stage).__name__}
    parameters = {name: _encoded(stage, name, value) for name, value in _parameters(stage).items()}
    frozen = {"frozen": True} if getattr(stage, "_frozen", None) is True else {}
    return {_OPERATOR: type(stage).__name__, "parameters": parameters} | frozen


def rebuilt(spec: Json, own: Sequence[type[Operator]] = ()) -> Operator:
    """The operator that `specification` described, untrained.

    own: classes outside `streamlearn.operators`. Raises: UserError for a class that is not known.
    """
    if _FOREIGN in spec:
        return _foreign(spec[_FOREIGN])
    classes: dict[str, Any] = operators.exported()
    classes |= {given.__name__: given for given in own}
    name = spec[_OPERATOR]
    if name not in classes:
        raise UserError(
            f"the saved file names the operator {name!r}; pass its class as operators=[…]"
        )
    parameters = {key: _decoded(value, own) for key, value in spec["parameters"].items()}
    members = parameters.pop("stages", ())
    operator: Operator = classes[name](*members, **parameters)
    return operator.freeze() if "frozen" in spec else operator  # type: ignore[attr-defined]  # a pipeline


def _foreign(name: str) -> Operator:
    """A foreign stage without its estimator, which comes with the state."""
    found = getattr(foreign, name, None)
    if not isinstance(found, type) or not hasattr(found, "blank"):
        raise UserError(
            f"the saved file names the stage {name!r}, which this version does not have"
        )
    untrained: Operator = found.blank()
    return untrained


def _parameters(stage: Operator) -> dict[str, Any]:
    """Constructor arguments by name, as the operator stores them."""
    return {name: getattr(stage, name) for name in inspect.signature(type(stage)).parameters}


def _encoded(stage: Operator, name: str, value: Any) -> Json:
    if isinstance(value, Operator):
        return specification(value)
    if isinstance(value, (list, tuple)):
        return [_encoded(stage, name, member) for member in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {_MAPPING: {key: _encoded(stage, name, member) for key, member in value.items()}}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UserError(f"{type(stage).__name__}: {name} must be plain to be saved, got {value!r}")


def _decoded(value: Json, own: Sequence[type[Operator]]) -> Any:
    if isinstance(value, dict) and _MAPPING in value:
        return {key: _decoded(member, own) for key, member in value[_MAPPING].items()}
    if isinstance(value, dict):
        return rebuilt(value, own)
    return [_decoded(member, own) for member in value] if isinstance(value, list) else value
