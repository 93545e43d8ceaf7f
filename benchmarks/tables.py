"""Measurements as tables: Markdown, which also reads well on a terminal."""

import math
from collections.abc import Sequence
from pathlib import Path

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with padded columns: the first to the left, the others to the right."""
    if not rows:
        return ""
    widths = [max(len(line[j]) for line in (head, *rows)) for j in range(len(head))]
    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join(_line(line, widths) for line in (head, rule, *rows))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    others = [cell.rjust(w) for cell, w in zip(cells[1:], widths[1:], strict=True)]
    return f"| {' | '.join([first, *others])} |"


def number(value: float | None, form: str) -> str:
    """A number as asked, or nothing where it was not measured."""
    return "" if value is None or math.isnan(value) else format(value, form)


def put(path: Path, text: str) -> None:
    """Replace what stands between the two marks in a file.

    Raises: ValueError when the file or the marks are not there.
    """
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path}: must hold the lines {BEGIN} and {END}, for the tables")
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")
