"""Operators by name: a class, its family, a further name, or the dotted path of a River estimator.

`Kalman` is the family of `KalmanClassifier` and `KalmanRegressor`; the task picks. A dotted path
such as `river.tree.HoeffdingTreeClassifier` is imported. No list is kept here: `operators.exported`
has them all.
"""

import contextlib
import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from streamlearn.errors import UserError

if TYPE_CHECKING:
    from streamlearn.pipeline import Pipeline

CLASSIFICATION, REGRESSION, ANOMALY = "classification", "regression", "anomaly"
TASKS = (CLASSIFICATION, REGRESSION)
KINDS = ("classifier", "regressor", "scorer", "transformer", "detector", "operator")

_SUFFIX = {CLASSIFICATION: "Classifier", REGRESSION: "Regressor"}
_FURTHER = {"KalmanHead": "Kalman", "AnalyticHead": "Analytic"}
_ALL = "`streamlearn operators` lists them"
_MANY_ANNOTATION = re.compile(r"\b(Sequence|list|tuple)\[")
_OPERATOR_ANNOTATION = re.compile(
    r"\b(Operator|Stage|Model|Estimator|Classifier|Regressor|Transformer|\w*Detector)\b"
)


class Entry(NamedTuple):
    """What the command line shows of one operator."""

    name: str
    kind: str  # one of KINDS
    parameters: str  # "r=1.0, p0=1.0"
    summary: str  # first paragraph of the docstring
    family: tuple[str, ...] = ()  # names that mean it where the task is known: Kalman, KalmanHead


def names() -> list[str]:
    """Every name that `find` takes without an import path: classes, families, further names."""
    classes = _classes()
    families = {name: _family(name) for name in classes}
    further = {name for name, family in _FURTHER.items() if family in families.values()}
    return sorted({*classes, *families.values(), *further})


def find(name: str, task: str | None = None) -> type[Any]:
    """The class that a name stands for.

    Args:
        name: a class (`KalmanClassifier`), a family (`Kalman`), a further name (`KalmanHead`), or
            the dotted path of an importable operator or River estimator.
        task: "classification" or "regression"; picks the member of a family.

    Raises: UserError for an unknown name (with the nearest ones), a family that lacks the task, or
    a family of two without a task.
    """
    if "." in name:
        return _imported(name)
    classes = _classes()
    if name in classes:
        return classes[name]
    family = _FURTHER.get(name, name)
    members = {t: classes[family + s] for t, s in _SUFFIX.items() if family + s in classes}
    if not members:
        raise UserError(f"{name!r} is not the name of an operator{near(name, names(), lists=_ALL)}")
    return _member(name, members, task)


def members(name: str) -> list[type[Any]]:
    """All classes that a name may stand for, whatever the task.

    Raises: UserError as `find`.
    """
    tasks = {}
    for task in TASKS:
        with contextlib.suppress(UserError):
            tasks[task] = find(name, task)
    return list(dict.fromkeys(tasks.values())) or [find(name)]


def build(name: str, arguments: Mapping[str, Any], task: str | None = None, path: str = "") -> Any:
    """An operator from its name and its arguments.

    Args:
        name: as for `find`.
        arguments: constructor arguments; one that is an operator is a name, `{name: arguments}`, or
            a list of these, a pipeline; one that is several operators is a list.
        task: as for `find`; wrappers hand it on to the members they name.
        path: where this stands in the configuration (`pipeline[2]`); errors begin with it.

    Raises: UserError for unknown names, unknown arguments, and values that the constructor refuses.
    """
    try:
        found = find(name, task)
    except UserError as error:
        raise UserError(f"{_prefix(path)}{error}") from None
    parameters = parameters_of(found)
    if parameters is not None:
        _check_arguments(found, arguments, parameters, path)
    ready = {
        key: _argument(value, (parameters or {}).get(key), task, f"{path}.{key}".lstrip("."))
        for key, value in arguments.items()
    }
    try:
        return found(**ready)
    except (ValueError, TypeError, MemoryError) as error:
        raise UserError(_located(error, path, ready)) from None


def stage(spec: Any, task: str | None = None, path: str = "") -> Any:
    """An operator from its name or from `{name: arguments}`, a pipeline from a list of such.

    An operator is handed through. Raises: UserError as `build`, or when it is none of these.
    """
    if isinstance(spec, str):
        return build(spec, {}, task, path)
    if isinstance(spec, list):
        return assembled([stage(s, task, f"{path}[{i}]") for i, s in enumerate(spec)], path)
    if not isinstance(spec, Mapping):
        if hasattr(spec, "learn_one") or hasattr(spec, "run") or hasattr(spec, "update"):
            return spec
        raise UserError(f"{_prefix(path)}must be a name or {{name: arguments}}, got {spec!r}")
    if len(spec) != 1:
        raise UserError(
            f"{_prefix(path)}must have one key, the name of the operator, "
            f"got {sorted(map(str, spec))}; indent its arguments further"
        )
    ((name, arguments),) = spec.items()
    if not isinstance(name, str) or not isinstance(arguments, Mapping | None):
        raise UserError(
            f"{_prefix(path)}arguments of {name} must be `argument: value` pairs, got {arguments!r}"
        )
    return build(name, arguments or {}, task, path)


def assembled(stages: Sequence[Any], path: str) -> "Pipeline":
    """Stages as a pipeline; an order that cannot be is an error at `path`."""
    from streamlearn.pipeline import Pipeline  # brings numba, which --help must not wait for

    try:
        return Pipeline(*stages)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: {str(error).removeprefix('Pipeline: ')}") from None


def parameters_of(found: type[Any]) -> dict[str, inspect.Parameter] | None:
    """Constructor parameters by name; None where the constructor takes any keyword."""
    parameters = dict(inspect.signature(found).parameters)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return parameters


def describe(found: type[Any]) -> Entry:
    """One operator as a line of the list."""
    parameters = parameters_of(found) or {}
    shown = ", ".join(_shown(p) for p in parameters.values())
    summary = " ".join((inspect.getdoc(found) or "").partition("\n\n")[0].split())
    name = found.__name__
    family = _family(name)
    further = [word for word, meant in _FURTHER.items() if meant == family]
    called = () if family == name else (family, *further)
    return Entry(name, kind_of(found), shown, summary, called)


def entries() -> list[Entry]:
    """Every exported operator: models first, each kind by name."""
    found = [describe(operator) for _, operator in sorted(_classes().items())]
    return sorted(found, key=lambda entry: KINDS.index(entry.kind))


def task_of(model: Any) -> str | None:
    """The task of an operator or an estimator; None for transformers, detectors and forecasters."""
    found = model if isinstance(model, type) else type(model)
    bases = {base.__name__ for base in found.__mro__}
    if bases & {"Classifier", "ClassifierMixin"}:
        return CLASSIFICATION
    if bases & {"Regressor", "RegressorMixin"}:
        return REGRESSION
    return ANOMALY if bases & {"Scorer", "AnomalyDetector", "OutlierMixin"} else None


def kind_of(found: type[Any]) -> str:
    """What an operator is, one of KINDS; the last one is for what is none of the others."""
    bases = [base.__name__ for base in found.__mro__]
    return next((kind for kind in KINDS if kind.capitalize() in bases), KINDS[-1])


def near(name: str, known: Iterable[str], count: int = 3, lists: str = "") -> str:
    """The end of an "unknown name" message: the nearest known names, or all where none is near.

    lists: what shows all of them, where they are too many for a line.
    """
    options = list(known)
    by_lower = {option.lower(): option for option in options}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.6)
    if matches:
        return f"; did you mean {' or '.join(by_lower[m] for m in matches)}?"
    if lists:
        return f"; {lists}"
    return f"; there are: {', '.join(options)}" if options else "; there are none"


def _classes() -> dict[str, type[Any]]:
    """The exported operators; imported on first use, for they bring numba along."""
    classes: dict[str, type[Any]] = importlib.import_module("streamlearn.operators").exported()
    return classes


def _family(name: str) -> str:
    """A class name without its task."""
    for suffix in _SUFFIX.values():
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix)
    return name


def _member(name: str, members: Mapping[str, type[Any]], task: str | None) -> type[Any]:
    """The one of a family that fits the task."""
    if task is not None and task in members:
        return members[task]
    if task is None and len(members) == 1:
        return next(iter(members.values()))
    classes = " or ".join(found.__name__ for found in members.values())
    if task is None:
        raise UserError(f"{name!r} needs a task to choose; write {classes}")
    raise UserError(f"{name!r} cannot do {task}; there is {classes}")


def _imported(path: str) -> type[Any]:
    """The class at a dotted path: an operator, or an estimator of River or scikit-learn."""
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise UserError(f"cannot import {path!r}: {error}; check the path and install it") from None
    found = getattr(module, name, None)
    if found is None:
        raise UserError(f"{module_name} has no class {name!r}{near(name, _public_classes(module))}")
    if not isinstance(found, type) or not _is_operator(found):
        raise UserError(
            f"{path!r} must be a class with learn_one, update or partial_fit, got {found!r}"
        )
    return found


def _public_classes(module: ModuleType) -> list[str]:
    return [n for n, v in vars(module).items() if isinstance(v, type) and n[0] != "_"]


def _is_operator(found: type[Any]) -> bool:
    return any(hasattr(found, method) for method in ("learn_one", "update", "run", "partial_fit"))


def _check_arguments(
    found: type[Any], given: Mapping[str, Any], known: Mapping[str, inspect.Parameter], path: str
) -> None:
    """Every argument must exist, every one without a default must be there."""
    for key in given:
        if key not in known:
            what = f"{found.__name__} has no argument {key!r}"
            raise UserError(f"{_prefix(f'{path}.{key}'.lstrip('.'))}{what}{near(key, known)}")
    for key, parameter in known.items():
        missing = parameter.default is parameter.empty and key not in given
        if missing and parameter.kind is not parameter.VAR_POSITIONAL:
            raise UserError(f"{_prefix(path)}{found.__name__} needs the argument {key!r}")


def _argument(value: Any, parameter: inspect.Parameter | None, task: str | None, path: str) -> Any:
    """A value as the constructor wants it: operators, and lists of them, built from names."""
    annotation = "" if parameter is None else str(parameter.annotation)
    if not _OPERATOR_ANNOTATION.search(annotation) or value is None:
        return value
    if not _MANY_ANNOTATION.search(annotation):
        return stage(value, task, path)
    if not isinstance(value, (list, tuple)):
        rule = "must be a list of operators, as in [KalmanHead, KalmanBank]"
        raise UserError(f"{_prefix(path)}{rule}, got {value!r}")
    return [stage(member, task, f"{path}[{i}]") for i, member in enumerate(value)]


def _located(error: Exception, path: str, arguments: Mapping[str, Any]) -> str:
    """A constructor's `Owner: name rule, got value` as `path.name: rule, got value`."""
    if isinstance(error, MemoryError):
        return f"{_prefix(path)}needs more memory than there is: {error}; choose a smaller size"
    _, _, message = str(error).partition(": ")
    name, _, rule = message.partition(" ")
    if re.split(r"[\[.]", name)[0] in arguments:
        return f"{_prefix(f'{path}.{name}'.lstrip('.'))}{rule}"
    return f"{_prefix(path)}{error}"


def _prefix(path: str) -> str:
    return f"{path}: " if path else ""


def _shown(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return str(parameter.name)
    return f"{parameter.name}={parameter.default!r}"
