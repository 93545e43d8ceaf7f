"""Docstrings of this project as reStructuredText: sections become fields, all else is plain prose.

A docstring here is prose with code in single backticks, sections (`Args:`, `State:`, `Cost:` …) at
the left margin and doctests. Letters such as `w_` and `|f|` mean something in reStructuredText,
so whatever is not code is escaped. Code that names something public becomes a link to it.
"""

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from sphinx.application import Sphinx

HEADS = ("Args", "Cost", "Keys", "Model", "Outputs", "Raises", "Reference", "Returns", "State")
_HEAD = re.compile(rf"((?:{'|'.join(HEADS)})(?:, [a-z]+)*): ?(.*)")
_ITEM = re.compile(r"([\w*]+(?:, [\w*]+)*): (.*)")
_CODE = re.compile(r"`([^`]+)`")
_SPECIAL = re.compile(r"([\\*_|<>`])")

links: dict[str, str] = {}  # code as it stands in a docstring -> the full name of what it means


def convert(lines: Iterable[str], names: Iterable[str] = ()) -> list[str]:
    """The lines of one docstring as reStructuredText.

    names: parameters of what it belongs to; one that begins a sentence begins an item of `Args`.
    """
    out: list[str] = []
    for head, body in _sections(lines):
        if head is None:
            out += _blocks(body)
        else:
            out += _field(head, body, set(names))
    return out


def _sections(lines: Iterable[str]) -> Iterator[tuple[str | None, list[str]]]:
    """The prose (None) and the sections in their order; a doctest ends a section."""
    head: str | None = None
    body: list[str] = []
    for line in lines:
        begins = _HEAD.fullmatch(line)
        ends = head is not None and (
            not line.strip() or line.startswith(">>>") or _goes_back(line, body)
        )
        if begins or ends:
            yield head, body
            head, body = (begins[1], [begins[2]]) if begins else (None, [line])
        else:
            body.append(line)
    yield head, body


def _goes_back(line: str, body: list[str]) -> bool:
    """Whether a line at the margin is prose again: after items, or after a full sentence."""
    said = body[-1].rstrip()
    return not line.startswith(" ") and (not body[0] or said.endswith("."))


def _field(head: str, body: list[str], names: set[str]) -> list[str]:
    """A section as a field; several items as a list."""
    if body[0]:
        text = " ".join(line.strip() for line in body)
        items = [(None, text)] if head != "Args" else list(_apart(text, names))
    else:
        items = [part for text in _items(body[1:]) for part in _apart(text, names)]
    shown = [_item(name, text) for name, text in items]
    if len(shown) == 1:
        return ["", f":{head}: {shown[0]}", ""]
    return ["", f":{head}:", *(f"    * {text}" for text in shown), ""]


def _items(lines: list[str]) -> Iterator[str]:
    """The items of a section, each as one line: what is indented further goes on."""
    margin = min((_indent(line) for line in lines if line.strip()), default=0)
    item: list[str] = []
    for line in lines:
        if _indent(line) == margin and item:
            yield " ".join(item)
            item = []
        item.append(line.strip())
    if item:
        yield " ".join(item)


def _apart(text: str, names: set[str]) -> Iterator[tuple[str | None, str]]:
    """`a: one. b, c: two.` as two items, where b and c are parameters."""
    starts = [
        m.start(1)
        for m in re.finditer(r"(?:^|\. )(\*{0,2}\w+(?:, \w+)*): ", text)
        if m.start() == 0 or {n.strip() for n in m[1].split(",")} <= names
    ]
    ends = [*starts[1:], len(text)]
    if not starts or starts[0] > 0:
        yield None, text
        return
    for start, end in zip(starts, ends, strict=True):
        found = _ITEM.fullmatch(text[start:end].strip())
        if found:
            yield found[1], found[2]


def _item(name: str | None, text: str) -> str:
    return prose(text) if name is None else f"**{_escaped(name)}**: {prose(text)}"


def _blocks(lines: list[str]) -> Iterator[str]:
    """Paragraphs, bullet lists and doctests."""
    block: list[str] = []
    for line in [*lines, ""]:
        starts = line.lstrip().startswith(("- ", ">>>")) and not _is_doctest(block)
        if line.strip() and not starts:
            block.append(line)
            continue
        yield from _block(block)
        block = [line] if line.strip() else []
    yield from _block(block)


def _block(block: list[str]) -> list[str]:
    if not block:
        return []
    if _is_doctest(block):
        margin = _indent(block[0])
        return ["", *(line[margin:] for line in block), ""]
    text = prose(" ".join(line.strip() for line in block).removeprefix("- "))
    return [f"* {text}"] if block[0].lstrip().startswith("- ") else ["", text, ""]


def _is_doctest(block: list[str]) -> bool:
    return bool(block) and block[0].lstrip().startswith(">>>")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def prose(text: str) -> str:
    """Text with code in backticks; nothing else in it means anything."""
    parts = _CODE.split(text)
    return "".join(_code(part) if i % 2 else _escaped(part) for i, part in enumerate(parts))


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def _code(text: str) -> str:
    """Code, as a link where it names something public."""
    name = text.removesuffix("()")
    if name in links:
        return f":py:obj:`{_escaped(text)} <{links[name]}>`\\ "
    return f"``{text}``\\ "


def _converted(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Sphinx asks for one docstring after the other."""
    try:
        names = inspect.signature(obj).parameters if callable(obj) else {}
    except (TypeError, ValueError):
        names = {}
    lines[:] = convert(list(lines), names)


def setup(app: Sphinx) -> dict[str, bool]:
    """Convert whatever autodoc shows."""
    app.connect("autodoc-process-docstring", _converted)
    return {"parallel_read_safe": True}
