"""What the command line shows of a comparison, a ranking and a tuning."""

from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Shown(Protocol):
    """What has a table and lines below it: Comparison, Ranking, Tuning."""

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Column names, and the cells row by row."""

    def facts(self) -> list[str]:
        """Lines below the table."""


def print_comparison(found: Shown, console: Console | None = None) -> None:
    """The table of a comparison or a ranking, and what must not be overlooked below."""
    out = console or Console()
    header, body = found.rows()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(header):
        first, last = i == 0, i == len(header) - 1
        words = first or (last and not _is_number(body, i))
        table.add_column(
            Text(name), justify="left" if words else "right", overflow="fold", no_wrap=not words
        )
    for row in body:
        table.add_row(*(Text(cell) for cell in row))
    out.print(table)
    for line in found.facts():
        out.print(line, highlight=False, soft_wrap=True, markup=False)


print_tuning = print_comparison  # the same shape: a table of trials, what was chosen below


def _is_number(body: list[list[str]], column: int) -> bool:
    """Whether a column holds numbers alone."""
    return all(
        row[column].replace(".", "").lstrip("+-").isdigit() or not row[column] for row in body
    )
