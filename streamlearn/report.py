"""The report: one HTML file about a stream, or several pipelines on one; it needs no network.

What it says is in report_sections.py and report_comparison.py, how it is drawn in plots.py.
"""

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from streamlearn import wording
from streamlearn.durable import disk_errors, write_text
from streamlearn.errors import UserError
from streamlearn.report_page import Page
from streamlearn.result import Result

_MISSING = 'a report is drawn by bokeh, which is not here; pip install "streamlearn[report]"'


def check_path(path: str | Path) -> None:
    """See that a report can be drawn, and written there, before a stream starts.

    Raises: UserError of one line; what is there is left as it is.
    """
    _require_bokeh()
    target = Path(path)
    if target.is_dir():
        raise UserError(f"report: {target} is a folder; name a file, such as report.html")
    if not target.parent.is_dir():
        raise UserError(f"report: {target}: there is no such folder; make it, or correct the path")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise UserError(f"report: {target}: cannot be written; check the path and its rights")
    there = target.exists()
    with disk_errors(f"report: {target}"):  # rights alone do not tell, least of all root's
        if not there or target.is_file():
            target.open("ab").close()
        if not there:
            target.unlink()


def write_report(
    path: str | Path,
    results: Result | Sequence[Result],
    title: str | None = None,
    comparison: Any = None,
) -> None:
    """Write a report: one HTML file, which opens anywhere and fetches nothing.

    Args:
        path: of the file; what is there is replaced. results: one, or several over the same
            stream, which are compared; their `name` is then that of the pipeline.
        title: as a heading; made of the target and the data if None.
        comparison: with `differences` (as of `streamlearn.comparison.Comparison`) and `errors`.
    Cost: about 1.4 MB, most of which is BokehJS; a second.
    Raises: UserError without bokeh, without a result, or where the file cannot be written.
    """
    write_text(path, report_html(results, title, comparison))


def report_html(
    results: Result | Sequence[Result], title: str | None = None, comparison: Any = None
) -> str:
    """The report as text; two calls give the same text.

    Raises: UserError without bokeh or without a result.
    """
    _require_bokeh()
    given = [results] if isinstance(results, Result) else list(results)
    if not given:
        raise UserError("report: needs a result at least, got none")
    from streamlearn import report_comparison, report_sections

    page = Page()
    if len(given) == 1 and comparison is None:
        heading = title or report_sections.title(given[0])
        header = report_sections.fill(page, given[0], heading)
    else:
        heading = title or report_comparison.title(given)
        header = report_comparison.fill(page, given, heading, comparison)
    return page.html(heading, header)


def notebook_html(
    results: Result | Sequence[Result], comparison: Any = None, height: int = 900
) -> str:
    """The report in a frame of its own, for a notebook; tables of metrics without bokeh."""
    try:
        text = report_html(results, comparison=comparison)
    except UserError:
        given = [results] if isinstance(results, Result) else results
        return "".join(map(_metrics_table, given))
    return (
        f'<iframe srcdoc="{escape(text)}" title="streamlearn report" '
        f'style="width:100%;height:{height}px;border:0" sandbox="allow-scripts"></iframe>'
    )


def _metrics_table(result: Result) -> str:
    """Metrics beside the baselines, in bare HTML."""
    names = "".join(
        f"<th>{escape(wording.baseline(name, result.task, short=True))}</th>"
        for name in result.baselines
    )
    rows = "".join(
        f"<tr><th>{escape(wording.metric(name).title)}</th><td>{wording.value(name, value)}</td>"
        + "".join(
            f"<td>{wording.value(name, metrics.get(name))}</td>"
            for metrics in result.baselines.values()
        )
        + "</tr>"
        for name, value in result.metrics.items()
    )
    return (
        f"<p>{escape(result.model)}: {result.events:,} events</p><table><thead><tr><th></th>"
        f"<th>value</th>{names}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _require_bokeh() -> None:
    try:
        import bokeh.util  # noqa: F401
    except ImportError as error:
        raise UserError(_MISSING) from error
