"""What the command line shows of a comparison, a ranking and a tuning."""

from typing import Protocol

from rich.console import Console
from rich.text import Text

from streamlearn.text_table import plain


class Shown(Protocol):
    """What has a table and lines below it: Comparison, Ranking, Tuning."""

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Column names, and the cells row by row."""

    def facts(self) -> list[str]:
        """Lines below the table."""


def print_comparison(found: Shown, console: Console | None = None) -> None:
    """The table, and what must not be overlooked below; lines are never folded or cut."""
    out = console or Console()
    header, *body = plain(*found.rows())
    out.print(Text(header, style="bold"), soft_wrap=True)
    for line in (*body, *found.facts()):
        out.print(Text(line), soft_wrap=True)


print_tuning = print_comparison  # the same shape: a table of trials, what was chosen below
