"""The page with plots: one HTML file, drawn by bokeh from what the suite has kept."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine, suite

COLOURS = 6  # of lines; those after them start again with another shape of dot
OTHERS = ("River", "scikit-learn", "Vowpal Wabbit", "CapyMOA")  # the names of peers begin so
SHAPES = ("circle", "square", "triangle", "diamond", "inverted_triangle")


class Line(NamedTuple):
    """Points (x, y), both > 0, of one name; dashed: what is compared with; dots: not joined."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    dots: bool = False


class Plot(NamedTuple):
    """A figure with logarithmic axes. about: what one sees."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    about: str


class Bars(NamedTuple):
    """Who took how long, in microseconds an event, on a logarithmic scale."""

    title: str
    rows: Sequence[tuple[str, float]]
    about: str


def write(found: dict[str, Any], path: Path = suite.ROOT / "build" / "benchmarks.html") -> Path:
    """The page as a file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(html(found), encoding="utf-8")
    return path


def html(found: dict[str, Any]) -> str:
    """The page of all parts that have figures.

    Raises: ImportError without bokeh.
    """
    from streamlearn.report_page import Page, paragraph

    page = Page()
    for part, one in found.items():
        module = suite.module(part)
        if not hasattr(module, "plots"):
            continue
        drawn = [
            _bars(plot) if isinstance(plot, Bars) else _figure(page, plot)
            for plot in module.plots(one["measured"])
        ]
        about = paragraph(machine.line(one["machine"]))
        page.section(part, module.TITLE, about, *drawn)
    return page.html("streamlearn: benchmarks", "<h1>Benchmarks</h1>").replace(
        "Every event was scored before it was learnt, and every number is about that answer.",
        "Figures of <code>python -m benchmarks</code>.",
    )


def _bars(plot: Bars) -> str:
    from streamlearn.report_page import bars, heading, paragraph

    logs = [math.log(us) for _, us in plot.rows]
    low, high = min(logs) - 0.5, max(logs)
    rows = [
        (who, f"{us:,.2f} us", (log - low) / (high - low), not who.startswith(OTHERS))
        for (who, us), log in zip(plot.rows, logs, strict=True)
    ]
    return heading(plot.title) + bars(rows) + paragraph(f"{plot.about} The scale is logarithmic.")


def _figure(page: Any, plot: Plot) -> str:
    from streamlearn.report_page import Key, heading

    roles = _roles([line.name for line in plot.lines])
    keys = [Key(line.name, roles[line.name][0], "block") for line in plot.lines
            if not line.dashed or line.name.partition(":")[0] == line.name]  # fmt: skip
    return heading(plot.title) + str(
        page.figure(_drawn(plot, roles), plot.about, keys, always=True)
    )


def _roles(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and shape of each name; `name: …` has those of `name`."""
    found: dict[str, tuple[str, str]] = {}
    for name in names:
        own = name.partition(":")[0]
        k = len({other.partition(":")[0] for other in found})
        given = (f"s{k % COLOURS}", SHAPES[k // COLOURS % len(SHAPES)])
        found[name] = found.get(own, given)
    return found


def _drawn(plot: Plot, roles: dict[str, tuple[str, str]]) -> Any:
    from streamlearn.plots import models

    xs = [x for line in plot.lines for x, _ in line.points]
    ys = [y for line in plot.lines for _, y in line.points]
    p = models.Plot(
        height=380, sizing_mode="stretch_width", toolbar_location=None, outline_line_color=None,
        x_range=models.Range1d(start=min(xs) / 1.2, end=max(xs) * 1.2),
        y_range=models.Range1d(start=min(ys) / 1.5, end=max(ys) * 1.5),
        x_scale=models.LogScale(), y_scale=models.LogScale(), min_border_left=8,
        min_border_right=14, background_fill_color=None, border_fill_color=None,
    )  # fmt: skip
    for axis, label, place in (
        (models.LogAxis(), plot.x, "below"),
        (models.LogAxis(), plot.y, "left"),
    ):
        _axis(p, axis, label, place)
    for line in plot.lines:
        _line(p, line, *roles[line.name], (plot.x, plot.y))
    return p


def _axis(p: Any, axis: Any, label: str, place: str) -> None:
    from streamlearn.plots import FONT, _paint, models

    axis.update(
        axis_label=label, axis_label_text_font=FONT, axis_label_text_font_size="12px",
        axis_label_text_font_style="normal", major_label_text_font=FONT,
        major_label_text_font_size="12px",
        formatter=models.NumeralTickFormatter(format="0,0.[000]"),
    )  # fmt: skip
    _paint(axis, axis_line_color="axis", major_tick_line_color="axis", minor_tick_line_color="axis")
    _paint(axis, major_label_text_color="soft", axis_label_text_color="soft")
    p.add_layout(axis, place)
    grid = models.Grid(dimension=0 if place == "below" else 1, axis=axis)
    p.add_layout(_paint(grid, grid_line_color="grid"))


def _line(p: Any, line: Line, role: str, shape: str, units: tuple[str, str]) -> None:
    from streamlearn.plots import _hover, _paint, models

    x, y = zip(*line.points, strict=True)
    source = models.ColumnDataSource({"x": x, "y": y, "name": [line.name] * len(x)})
    if not line.dots:
        glyph = models.Line(x="x", y="y", line_width=1.4 if line.dashed else 2.2,
                            line_dash="4 4" if line.dashed else "solid")  # fmt: skip
        p.add_glyph(source, _paint(glyph, line_color=role))
    if not line.dashed:
        dot = models.Scatter(x="x", y="y", size=7, marker=shape)
        drawn = p.add_glyph(source, _paint(dot, fill_color=role, line_color=role))
        said = [("", "@name"), (units[0], "@x{0,0.[000]}"), (units[1], "@y{0,0.[000]}")]
        _hover(p, drawn, said, "mouse")
