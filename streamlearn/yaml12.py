"""YAML 1.2 on PyYAML: `NO` and `on` stay words, `1e-3` is a number, a repeated key is an error.

PyYAML follows YAML 1.1, where `country: NO` is false, `1e-3` a string, `12:30` is 750 and a date
becomes an object. Here only true/false are booleans, only null, ~ and nothing are null, and what
looks like a number is one. Nothing in a file can name a Python type.
"""

import re
from collections.abc import Hashable
from typing import Any, NamedTuple

import yaml

from streamlearn.errors import UserError

_NULL = re.compile(r"^(?:null|Null|NULL|~|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


class Document(NamedTuple):
    """A parsed file: its values, and the tree that knows the line of each.

    assigned: paths of values that do not come from it, and what gave each.
    """

    value: Any
    root: yaml.Node | None
    where: str
    assigned: tuple[tuple[str, str], ...] = ()

    def place(self, path: str) -> str:
        """Where a value stands, in words: by what it was assigned, or file and line."""
        line, whole = self._nearest(path)
        for given, by in self.assigned:
            above = given.startswith((f"{path}.", f"{path}[")) and not whole
            if above or path == given or path.startswith((f"{given}.", f"{given}[")):
                return by
        return f"{self.where}, line {line}"

    def line(self, path: str) -> int | None:
        """Line (from 1) of the value at a path such as `pipeline[2].r`, or of its nearest parent.

        A mapping of one key is looked through, as in `{Normalizer: {…}}`.
        """
        return self._nearest(path)[0]

    def _nearest(self, path: str) -> tuple[int | None, bool]:
        """The line, and whether it is that of the value itself."""
        if self.root is None:
            return None, False
        node, line = self.root, self.root.start_mark.line + 1
        for step in re.findall(r"[^.\[\]]+", path):
            found = _child(node, step)
            if found is None:
                return line, False
            node, line = found
        return line, True


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's own attribute

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """A dict; a key that stands twice, or that is no scalar, is an error with its line."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a word or a number", key.start_mark
                )
            if key.value in seen:
                problem = f"the key {key.value!r} stands twice; remove one"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return {self.construct_object(k): self.construct_object(v, True) for k, v in node.value}


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(
        loader.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan")
    )


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would read as something else."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Lists are indented under their key."""
        super().increase_indent(flow, False)


for _tag, _pattern, _first in (
    ("null", _NULL, ["", "~", "n", "N"]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def parse(text: str, where: str) -> Document:
    """The one document of a text.

    Raises: UserError of one line, with the line of the mistake, for text that is no YAML.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return Document(None if root is None else loader.construct_document(root), root, where)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{where}{_at(error)}: {_problem(error)}") from None


def dump(value: Any) -> str:
    """Plain values as a text that `parse` reads back, keys in their order."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def _child(node: yaml.Node, step: str) -> tuple[yaml.Node, int] | None:
    """The node one step down a path, and its line."""
    if isinstance(node, yaml.SequenceNode):
        if not step.isdecimal() or int(step) >= len(node.value):
            return None
        item = node.value[int(step)]
        return item, item.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if key.value == step:
            return value, key.start_mark.line + 1
    return _child(node.value[0][1], step) if len(node.value) == 1 else None


def _at(error: BaseException) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f", line {mark.line + 1}"


def _problem(error: BaseException) -> str:
    problem = str(getattr(error, "problem", None) or str(error).partition("\n")[0])
    return problem if "; " in problem else f"{problem}; check indentation, quotes and colons there"
