"""The page of a report: sections, tables and figures as HTML that needs no network.

Text that comes from data is escaped here: whatever takes text takes it plain, and what is HTML
already says so in its name (`body`).
"""

import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import Any, NamedTuple

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)  # a browser that keeps to it fetches nothing


class Key(NamedTuple):
    """An entry of a legend: text, colour role (s0, alarm, …), and shape."""

    text: str
    role: str
    shape: str = ""


class Page:
    """Sections in order, each with an entry in the table of contents."""

    def __init__(self) -> None:
        self._sections: list[tuple[str, str, str]] = []
        self._plots: list[dict[str, Any]] = []

    def section(self, name: str, title: str, *bodies: str) -> None:
        """Add a section; without a body there is none."""
        body = "\n".join(part for part in bodies if part)
        if body:
            self._sections.append((name, title, body))

    def figure(
        self,
        plot: Any,
        caption: str,
        keys: Sequence[Key] = (),
        *,
        always: bool = False,
        narrow: bool = False,
    ) -> str:
        """A bokeh figure with what one sees on it, as text below and for those who do not see it.

        keys: a legend, on a phone alone unless `always`. narrow: not as wide as the page.
        """
        from streamlearn.plots import plot_json

        target = f"plot-{len(self._plots)}"
        self._plots.append(plot_json(plot, target))
        style = f"height:{plot.height}px" if plot.height else ""
        return (
            f"<figure{_class('narrow' if narrow else '')}>{_legend(keys, always)}"
            f'<div class="plot" id="{target}" role="img" aria-label="{escape(caption)}" '
            f'style="{style}"></div>'
            f'<div class="paper" id="{target}-paper" aria-hidden="true"></div>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def html(self, title: str, header: str) -> str:
        """The whole document."""
        from streamlearn.plots import PALETTES

        contents = "".join(
            f'<li><a href="#{name}">{escape(text)}</a></li>' for name, text, _ in self._sections
        )
        sections = "\n".join(
            f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">'
            f"{escape(text)}</h2>\n{body}</section>"
            for name, text, body in self._sections
        )
        return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="streamlearn">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{file_text("report.css")}
</style>
</head>
<body>
<div class="page">
<header>
{header}
</header>
<div class="columns">
<nav aria-label="Contents"><p class="title">Contents</p><ol>{contents}</ol></nav>
<main>
{sections}
</main>
</div>
<footer>Every event was scored before it was learnt, and every number is about that answer.
One file, written by streamlearn; it fetches nothing.</footer>
</div>
<script type="application/json" id="palettes">{embedded(PALETTES)}</script>
<script type="application/json" id="plots">{_renumbered(embedded(self._plots))}</script>
{_bokeh()}
<script>
{file_text("figures.js")}
{file_text("report.js")}
</script>
</body>
</html>
"""


# -- pieces ----------------------------------------------------------------------------------------


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{_class(kind)}>{escape(text)}</p>" if text else ""


def heading(text: str) -> str:
    """A heading within a section."""
    return f"<h3>{escape(text)}</h3>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Numbers with what they are."""
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in pairs)
    return f'<dl class="facts">{rows}</dl>'


def bars(rows: Sequence[tuple[str, str, float, bool]]) -> str:
    """Bars under each other: who, value as text, length from 0 to 1, whether it is one's own."""
    drawn = "".join(
        f'<div class="score{" own" if own else ""}"><span class="who">{escape(who)}</span>'
        f'<span class="track"><span class="bar" style="display:block;width:'
        f'{100 * min(1.0, max(0.0, share)):.1f}%"></span></span>'
        f'<span class="number">{escape(shown)}</span></div>'
        for who, shown, share, own in rows
    )
    return f'<div class="scores">{drawn}</div>'


def _unbroken(name: str) -> str:
    """A heading that no line is broken in at a hyphen: Kappa-T."""
    return escape(name).replace("-", "\u2011")


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str,
    *,
    text: Sequence[int] = (),
    best: Iterable[tuple[int, int]] = (),
) -> str:
    """A table that scrolls by itself where it is too wide; the first column names the row.

    header, rows: plain text; "name\\nmore" in a first cell puts more in small letters below.
    text: columns that are read, not compared. best: (row, column) of cells to point out.
    """
    head = "".join(
        f'<th scope="col"{_class("text" if j in text else "")}>{_unbroken(name)}</th>'
        for j, name in enumerate(header)
    )
    pointed = set(best)
    body = "".join(
        f"<tr>{_row_name(row[0])}"
        + "".join(
            f"<td{_class('best' if (i, j) in pointed else 'text' if j in text else '')}>"
            f"{escape(cell)}</td>"
            for j, cell in enumerate(row[1:], 1)
        )
        + "</tr>"
        for i, row in enumerate(rows)
    )
    return (
        f'<p class="caption">{escape(caption)}</p>'
        f'<div class="table" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f'<table aria-label="{escape(caption)}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, body: str) -> str:
    """Something long that opens on a click, and in print."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def listing(text: str) -> str:
    """Text as it is."""
    return f"<pre>{escape(text)}</pre>"


def columns(*bodies: str) -> str:
    """Beside each other where there is room."""
    return f'<div class="pair">{"".join(f"<div>{body}</div>" for body in bodies if body)}</div>'


def _row_name(text: str) -> str:
    name, _, more = text.partition("\n")
    small = f"<small>{escape(more)}</small>" if more else ""
    return f'<th scope="row">{escape(name)}{small}</th>'


def _legend(keys: Sequence[Key], always: bool) -> str:
    if not keys:
        return ""
    entries = "".join(
        f'<li><i class="{key.shape}"{_swatch(key)} aria-hidden="true"></i>{escape(key.text)}</li>'
        for key in keys
    )
    return f'<ul class="key{" always" if always else ""}">{entries}</ul>'


def _swatch(key: Key) -> str:
    if key.shape in ("alarm", "drift"):
        return ""
    what = "background" if key.shape == "block" else "border-color"
    return f' style="{what}:var(--{key.role})"'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def embedded(value: Any) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(value, separators=(",", ":"), default=_plain)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _renumbered(text: str) -> str:
    """Bokeh's ids count what the process has drawn before; here they count from 1."""
    known: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        new = known.setdefault(found[2], f"p{len(known) + 1}")
        return f'"{found[1]}":"{new}"'

    return re.sub(r'"(id|root_id)":"(p\d+)"', number, text)


@cache
def file_text(name: str) -> str:
    """A style or a script of the package."""
    return resources.files("streamlearn").joinpath(name).read_text("utf-8").strip()


@cache
def _bokeh() -> str:
    """BokehJS without widgets, tables and the like; 1.3 MB."""
    code = resources.files("bokeh").joinpath("server/static/js/bokeh.min.js").read_text("utf-8")
    return f'<script>\n{code}\n</script>\n<script>\nBokeh.set_log_level("warn");\n</script>'
