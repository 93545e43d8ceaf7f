"""From names, files and objects to pipelines with labels: what a comparison is made of."""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streamlearn import config as configs
from streamlearn import registry
from streamlearn.config import Config
from streamlearn.errors import UserError
from streamlearn.job import pipeline_of
from streamlearn.operators._base import Operator
from streamlearn.pipeline import Pipeline
from streamlearn.schema import Schema

_KINDS = (
    "an operator's name, a YAML file, {name: arguments}, a Pipeline, an operator or an estimator"
)


def lineup(specs: Sequence[Any], schema: Schema) -> dict[str, Pipeline]:
    """Pipelines by label, fit for a schema; what one alone has wrong is told with its label.

    Args:
        specs: names (`KalmanHead`, `river.tree.HoeffdingTreeClassifier`), with their arguments in
            brackets (`KalmanHead(r=0.1)`, `ErrorMemory(model=Analytic(lam=1))`), YAML files with a
            `pipeline`, {name: arguments}, Pipelines, operators, River or scikit-learn estimators.
            Names get imputation, encoding, scaling and a detector around them; objects are taken
            as they are, and learn.
        schema: of the data.
    Raises: UserError for no spec at all, one that is wrong, or an object that stands in two.
    """
    require(specs)
    built: dict[str, Pipeline] = {}
    for label, spec in zip(labels_of(specs), specs, strict=True):
        try:
            built[label] = pipeline_from(spec, schema)
        except UserError as error:
            raise UserError(f"{label}: {without_options(error)}") from None
    _refuse_shared(built)
    return built


def require(specs: Sequence[Any]) -> None:
    """Refuse an empty comparison. Raises: UserError."""
    if not specs:
        raise UserError(f"compare: must be given at least one pipeline: {_KINDS}")


def labels_of(specs: Sequence[Any]) -> list[str]:
    """A short name for each, unique: import paths by their last part, the same twice numbered."""
    short = [_short(spec) for spec in specs]
    long = [_long(spec) for spec in specs]
    alike = {
        name
        for name in short
        if len({o for s, o in zip(short, long, strict=True) if s == name}) > 1
    }
    chosen = [o if s in alike else s for s, o in zip(short, long, strict=True)]
    found: list[str] = []
    for i, name in enumerate(chosen):
        before = chosen[:i].count(name)
        found.append(f"{name} {before + 1}" if before else name)
    return found


def pipeline_from(spec: Any, schema: Schema) -> Pipeline:
    """One spec as a pipeline. Raises: UserError for what is wrong with it."""
    if isinstance(spec, (str, Path)) and str(spec).endswith((".yaml", ".yml")):
        config = configs.load_config(spec)
        if config.pipeline is None:
            raise UserError(f"{spec}: must have a `pipeline`")
        return pipeline_of(None, config, None, {}, schema)
    if isinstance(spec, (str, Path)):
        name, arguments = _called(str(spec))
        return pipeline_of(None, Config(), name, arguments, schema)
    if isinstance(spec, Mapping):
        if len(spec) != 1 or not isinstance(next(iter(spec.values())), Mapping | None):
            raise UserError(f"must be {{name: {{argument: value}}}}, got {dict(spec)!r}")
        ((name, arguments),) = spec.items()
        return pipeline_of(None, Config(), str(name), arguments or {}, schema)
    if isinstance(spec, type) or not _learns(spec):
        raise UserError(f"must be {_KINDS}, got {spec!r}")
    return pipeline_of(spec, Config(), None, {}, schema)


def without_options(error: UserError) -> str:
    """A message about a model without the options of another command."""
    return str(error).replace("--set ", "").removeprefix("--model: ").removeprefix("--set: ")


def anew(spec: Any) -> Any:
    """The spec for another data set: an object as an untrained clone."""
    return spec if isinstance(spec, (str, Path, Mapping)) else spec.clone()


def _called(text: str) -> tuple[str, dict[str, Any]]:
    """`Name(argument=value, …)` as name and arguments; a value may name operators in this way."""
    if "(" not in text:
        return text, {}
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call):
            raise ValueError
        ((name, arguments),) = _value(call).items()
    except (SyntaxError, ValueError):
        raise UserError(f"must read like Name(argument=value), got {text!r}") from None
    return name, arguments


def _value(node: ast.expr) -> Any:
    """A literal; a name as its text; `Name(argument=value)` as {name: arguments}; lists of these.

    Raises: ValueError for anything else.
    """
    if isinstance(node, (ast.Name, ast.Attribute)):
        return ast.unparse(node)
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(member) for member in node.elts]
    if isinstance(node, ast.Call):
        pairs = {keyword.arg: _value(keyword.value) for keyword in node.keywords}
        if node.args or None in pairs or not isinstance(node.func, (ast.Name, ast.Attribute)):
            raise ValueError
        return {ast.unparse(node.func): pairs}
    return ast.literal_eval(node)


def _learns(spec: Any) -> bool:
    return isinstance(spec, Operator) or hasattr(spec, "learn_one") or hasattr(spec, "partial_fit")


def _short(spec: Any) -> str:
    """What to call a spec in a table."""
    if isinstance(spec, (str, Path)):
        text = str(spec)
        if text.endswith((".yaml", ".yml")):
            return Path(text).stem
        return text if "(" in text else text.rpartition(".")[2]
    if isinstance(spec, Mapping):
        return _long(spec)
    if isinstance(spec, Pipeline):
        return _short(spec.predictor) if spec.predictor is not None else "Pipeline"
    estimator = (
        getattr(spec, "estimator", spec) if type(spec).__module__.endswith("foreign") else spec
    )
    return type(estimator).__name__


def _long(spec: Any) -> str:
    """The whole name of a spec."""
    if isinstance(spec, (str, Path)):
        return str(spec)
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, arguments),) = spec.items()
        given = arguments if isinstance(arguments, Mapping) else {}
        inside = ", ".join(f"{key}={value!r}" for key, value in given.items())
        return f"{name}({inside})" if inside else str(name)
    return _short(spec) if not isinstance(spec, Mapping) else str(dict(spec))


def _refuse_shared(built: Mapping[str, Pipeline]) -> None:
    """Two pipelines that learn in one object would teach each other."""
    owner: dict[int, str] = {}
    for label, pipeline in built.items():
        for part in (pipeline, *pipeline.stages):
            other = owner.setdefault(id(part), label)
            if other != label:
                raise UserError(
                    f"{label}: must not share {type(part).__name__} with {other}; "
                    "give one of them a clone()"
                )


def unknown_label(label: str, known: Sequence[str]) -> UserError:
    """The error for a label that is not in the comparison."""
    return UserError(f"against: {label!r} is none of the pipelines{registry.near(label, known)}")
