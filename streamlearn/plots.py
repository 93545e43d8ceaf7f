"""Figures of a report or of a live page: plain lists in, a bokeh figure out.

Nothing here knows a Result or HTML. Colours are *roles*: a model carries tags `property=role`, and
whoever shows it may repaint it by looking the role up in PALETTES (light or dark).
"""

import gc
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# What a report costs beyond the stream is mostly this import. Figures are put together of models:
# bokeh.plotting, embed and resources would load a server and a template language, and give every
# glyph four more for selections that there are none of. Half of the rest were rounds of the
# collector through thousands of new classes, none of which is garbage.
_collecting = gc.isenabled()
gc.disable()
try:
    import bokeh.models
    from bokeh.core.serialization import Serializer
finally:
    if _collecting:
        gc.enable()

models: Any = bokeh.models  # its types say less than it does, and other things by version
_serializer: Any = Serializer
Numbers = Sequence[float | None]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

# Okabe and Ito (2008), lighter on dark; distinguishable with every kind of colour blindness
PALETTES: dict[str, dict[str, str]] = {
    "light": {
        "ink": "#1c2430",
        "soft": "#5a6675",
        "grid": "#e4e8ed",
        "axis": "#aab4c0",
        "paper": "#ffffff",
        "s0": "#0067a6",
        "s1": "#c4500a",
        "s2": "#00805c",
        "s3": "#a0498a",
        "s4": "#8a6500",
        "s5": "#3b4252",
        "quiet": "#77808c",
        "alarm": "#b3123f",
        "drift": "#6b7785",
        "above": "#c4500a",
        "below": "#0067a6",
    },
    "dark": {
        "ink": "#e8edf3",
        "soft": "#a5b1c0",
        "grid": "#2a333f",
        "axis": "#566271",
        "paper": "#161c24",
        "s0": "#5bb8ff",
        "s1": "#ff9a57",
        "s2": "#3fd6a5",
        "s3": "#e69bd0",
        "s4": "#eac54f",
        "s5": "#c3cede",
        "quiet": "#93a0b0",
        "alarm": "#ff6b8f",
        "drift": "#8b98a8",
        "above": "#ff9a57",
        "below": "#5bb8ff",
    },
}
N_SERIES = 6


class Line(NamedTuple):
    """A line over the stream: name, colour role, events (x), values, and how it is drawn."""

    name: str
    role: str
    rows: Sequence[float]
    values: Numbers
    dash: str = "solid"
    width: float = 2.2
    alpha: float = 1.0
    labelled: bool = True
    dots: bool = False


class Marks(NamedTuple):
    """What is marked over the stream: events with an alarm, and (start, end) of known drifts."""

    alarms: Sequence[int] = ()
    drifts: Sequence[Sequence[int]] = ()


def over_time(
    lines: Sequence[Line],
    *,
    unit: str,
    events: int,
    marks: Marks = Marks(),  # noqa: B008  # immutable
    form: str = "0.0[00]",
    height: int = 320,
    floor: float | None = None,
) -> Any:
    """Values over the stream, each line named at its end.

    Args:
        lines: None is a gap. unit: what the y axis shows. events: length of the stream.
        marks: alarms along the upper edge (triangles; strokes where they are over 100), known
        drifts as dashed lines or bands.
        form: numeral.js format of the y axis. floor: where the axis begins at
        the latest, the least value if None.
    """
    low, high = _span([line.values for line in lines])
    low = low if floor is None else min(floor, low)
    pad = 0.06 * (high - low)
    bottom = low if floor is not None else low - pad
    top = high + (2.6 * pad if marks.alarms else pad)
    p = _plot(height, _range(0, max(1, events)), _range(bottom, top))
    _mark_drifts(p, marks.drifts, top)
    for line in lines:
        source = models.ColumnDataSource(
            {"x": list(line.rows), "y": _gaps(line.values), "name": [line.name] * len(line.rows)}
        )
        stroke = models.Line(
            x="x", y="y", line_width=line.width, line_dash=line.dash, line_alpha=line.alpha,
            line_join="round",
        )  # fmt: skip
        drawn = p.add_glyph(source, _paint(stroke, line_color=line.role))
        if line.dots:
            dot = models.Scatter(x="x", y="y", size=6)
            p.add_glyph(source, _paint(dot, fill_color=line.role, line_color=line.role))
        if line.labelled:
            _hover(p, drawn, [("", "@name"), ("event", "@x{0,0}"), (unit, "@y{0.0000}")])
    _mark_alarms(p, marks.alarms, top - 0.9 * pad)
    _axes(p, "events", unit, form)
    _name_ends(p, [line for line in lines if line.labelled], (bottom, top), height)
    return p


def live(lines: Sequence[Line], *, shaded: tuple[str, str] | None = None) -> Any:
    """Values over the seconds before now, in a figure that its page fills and goes on filling.

    Sources by name: `lines`, with columns `x` (seconds, <= 0), `ago` (as text) and one of each
    line's name; `alarms`, with `x`, `low` and `high`. The page also sets ranges, the ticks of the
    axis below, and the format of the axis named `form`.

    Args:
        lines: without values; the first that is labelled says what a finger points at. shaded: the
        columns of two lines between which the first one's colour is laid.
    """
    p = _plot(0, _range(-600.0, 0.0), _range(0.0, 1.0))
    p.update(sizing_mode="stretch_both", height=None, min_border_top=10)
    names = ["x", "ago", *(line.name for line in lines), *(shaded or ())]
    source = models.ColumnDataSource({name: [] for name in names}, name="lines")
    if shaded is not None:
        area = models.VArea(x="x", y1=shaded[0], y2=shaded[1], fill_alpha=0.10)
        p.add_glyph(source, _paint(area, fill_color=lines[0].role))
    rose = models.ColumnDataSource({"x": [], "low": [], "high": []}, name="alarms")
    stroke = models.Segment(x0="x", x1="x", y0="low", y1="high", line_alpha=0.45, line_width=1.5)
    p.add_glyph(rose, _paint(stroke, line_color="alarm"))
    for line in reversed(lines):
        glyph = models.Line(
            x="x", y=line.name, line_width=line.width, line_dash=line.dash, line_alpha=line.alpha,
            line_join="round",
        )  # fmt: skip
        drawn = p.add_glyph(source, _paint(glyph, line_color=line.role))
        if line.labelled:
            _hover(p, drawn, [("", "@ago"), *((o.name, f"@{{{o.name}}}") for o in lines)])
    mark = models.Scatter(x="x", y="high", marker="inverted_triangle", size=10, line_alpha=0.0)
    p.add_glyph(rose, _paint(mark, fill_color="alarm"))
    _axes(p, "", "", "0,0.[00]")
    across, up = p.xaxis[0], p.yaxis[0]
    across.update(axis_label=None, name="time", ticker=models.FixedTicker(ticks=[], name="ago"))
    up.axis_label, up.formatter.name = None, "form"
    return p


def with_band(
    lines: Sequence[Line], band: tuple[Sequence[float], Numbers, Numbers], *, unit: str,
    height: int = 320,
) -> Any:  # fmt: skip
    """Lines over a stretch of the stream, and a band (events, lower, upper) below the first."""
    low, high = _span([*(line.values for line in lines), band[1], band[2]])
    pad = 0.06 * (high - low)
    ends = [x for line in lines for x in line.rows]
    p = _plot(height, _range(min(ends), max(ends)), _range(low - pad, high + pad))
    source = models.ColumnDataSource(
        {"x": list(band[0]), "low": _gaps(band[1]), "high": _gaps(band[2])}
    )
    area = models.VArea(x="x", y1="low", y2="high", fill_alpha=0.18)
    p.add_glyph(source, _paint(area, fill_color=lines[0].role))
    for line in lines:
        drawn = models.ColumnDataSource(
            {"x": list(line.rows), "y": _gaps(line.values), "name": [line.name] * len(line.rows)}
        )
        stroke = models.Line(
            x="x", y="y", line_width=line.width, line_dash=line.dash, line_alpha=line.alpha,
            line_join="round",
        )  # fmt: skip
        shown = p.add_glyph(drawn, _paint(stroke, line_color=line.role))
        _hover(p, shown, [("", "@name"), ("row", "@x{0,0}"), (unit, "@y{0.0000}")])
    _axes(p, "row", unit, "0,0.[000]")
    return p


def shares_over_time(rows: Sequence[int], shares: Mapping[str, Numbers], height: int = 240) -> Any:
    """How often each of some classes came, by bin of events, stacked to 1."""
    p = _plot(height, _range(0, max(rows, default=1)), _range(0.0, 1.0))
    x = [edge for pair in zip([0, *list(rows)[:-1]], rows, strict=True) for edge in pair]
    below = [0.0] * len(x)
    for k, values in enumerate(shares.values()):
        twice = [v or 0.0 for v in values for _ in range(2)]
        upper = [b + v for b, v in zip(below, twice, strict=True)]
        area = models.VArea(x="x", y1="y1", y2="y2", fill_alpha=0.75 if k < N_SERIES else 0.3)
        source = models.ColumnDataSource({"x": x, "y1": below, "y2": upper})
        p.add_glyph(source, _paint(area, fill_color=_series(k)))
        below = upper
    _axes(p, "events", "share", "0%")
    return p


def feature_drift(rows: Sequence[int], features: Sequence[tuple[str, Numbers]], most: float) -> Any:
    """A row a feature, a column a bin of events: how far it lies from its mean over all.

    Args:
        rows: last event of each bin. features: name and drift by bin, the first drawn on top.
        most: drift drawn in full colour; above the mean in one colour, below in another.
    """
    names = [_short(name, 22) for name, _ in features]
    unique = [name if names.index(name) == i else f"{name} ({i})" for i, name in enumerate(names)]
    height = 64 + 21 * len(features)
    p = _plot(height, _range(0, max(rows, default=1)), _range(len(features) - 0.5, -0.5))
    left = [0, *list(rows)[:-1]]
    for role, sign in (("above", 1.0), ("below", -1.0)):
        cells: dict[str, list[Any]] = {k: [] for k in ("left", "right", "y", "alpha", "name", "z")}
        for i, (name, drift) in enumerate(features):
            for a, b, z in zip(left, rows, drift, strict=True):
                if z is not None and z * sign > 0.0:
                    alpha = min(1.0, abs(z) / most)
                    for key, value in zip(cells, (a, b, i, alpha, name, z), strict=True):
                        cells[key].append(value)
        bar = models.HBar(
            y="y", left="left", right="right", height=0.86, fill_alpha="alpha", line_color=None
        )
        drawn = p.add_glyph(models.ColumnDataSource(cells), _paint(bar, fill_color=role))
        said = [("", "@name"), ("events to", "@right{0,0}"), ("drift", "@z{0.00}")]
        _hover(p, drawn, said, "mouse")
    _axes(p, "events", "", "0")
    p.yaxis.ticker = models.FixedTicker(ticks=list(range(len(features))))
    p.yaxis.major_label_overrides = dict(enumerate(unique))
    p.ygrid.visible = False
    return p


def reliability(calibration: Mapping[str, Any], height: int = 320) -> Any:
    """How often the model was right, by how sure it was; a bar below says how many answers."""
    n, sure, right = calibration["n"], calibration["confidence"], calibration["accuracy"]
    p = _plot(height, _range(0.0, 1.0), _range(0.0, 1.0))
    diagonal = models.Line(x="x", y="y", line_dash="4 4", line_width=1.4)
    ends = models.ColumnDataSource({"x": [0, 1], "y": [0, 1]})
    p.add_glyph(ends, _paint(diagonal, line_color="quiet"))
    most, edges = max(n, default=0) or 1, calibration["edges"]
    bars = models.ColumnDataSource(
        {"left": edges[:-1], "right": edges[1:], "top": [0.22 * v / most for v in n], "n": n}
    )
    bar = models.Quad(left="left", right="right", bottom=0, top="top", fill_alpha=0.25)
    drawn = p.add_glyph(bars, _paint(bar, fill_color="s0", line_color="paper"))
    _hover(p, drawn, [("answers", "@n{0,0}")], "mouse")
    kept = [i for i, v in enumerate(n) if v and sure[i] is not None and right[i] is not None]
    size = [5 + 11 * math.sqrt(n[i] / most) for i in kept]
    points = models.ColumnDataSource(
        {"x": [sure[i] for i in kept], "y": [right[i] for i in kept], "n": [n[i] for i in kept],
         "size": size}
    )  # fmt: skip
    p.add_glyph(points, _paint(models.Line(x="x", y="y", line_width=2), line_color="s0"))
    dot = models.Scatter(x="x", y="y", size="size", line_width=1.5)
    dots = p.add_glyph(points, _paint(dot, fill_color="s0", line_color="paper"))
    said = [("said", "@x{0.0%}"), ("right", "@y{0.0%}"), ("answers", "@n{0,0}")]
    _hover(p, dots, said, "mouse")
    _axes(p, "confidence of the answer", "share that was right", "0%")
    p.xaxis.formatter = models.NumeralTickFormatter(format="0%")
    return p


def confusion(labels: Sequence[str], counts: Sequence[Sequence[float]]) -> Any:
    """True classes as rows, answers as columns; a cell is as dark as its share of the row."""
    k = len(labels)
    cell = max(14, min(46, 560 // max(1, k)))
    p = _plot(70 + cell * k, _range(-0.5, k - 0.5), _range(k - 0.5, -0.5))
    names = [_short(label, 14) for label in labels]
    cells: dict[str, list[Any]] = {key: [] for key in ("x", "y", "share", "n", "true", "said", "t")}
    for i, row in enumerate(counts):
        total = sum(row) or 1
        for j, n in enumerate(row):
            shown = f"{n:,.0f}" if k <= 12 else ""
            values = (j, i, 0.72 * n / total, n, labels[i], labels[j], shown)
            for key, value in zip(cells, values, strict=True):
                cells[key].append(value)
    source = models.ColumnDataSource(cells)
    box = models.Rect(x="x", y="y", width=0.96, height=0.96, fill_alpha="share", line_width=1)
    drawn = p.add_glyph(source, _paint(box, fill_color="s0", line_color="grid"))
    said = [("true", "@true"), ("answered", "@said"), ("events", "@n{0,0}")]
    _hover(p, drawn, said, "mouse")
    text = models.Text(x="x", y="y", text="t", text_align="center", text_baseline="middle",
                       text_font_size="12px", text_font={"value": FONT})  # fmt: skip
    p.add_glyph(source, _paint(text, text_color="ink"))
    _axes(p, "answered", "true class", "0")
    for axis in (p.xaxis, p.yaxis):
        axis.ticker = models.FixedTicker(ticks=list(range(k)))
        axis.major_label_overrides = dict(enumerate(names))
    p.grid.visible = False
    if k > 6:
        p.xaxis.major_label_orientation = 0.9
    return p


def histogram(
    edges: Sequence[float],
    counts: Sequence[float],
    *,
    unit: str,
    what: str,
    log: bool = False,
    marks: Mapping[str, float] | None = None,
    height: int = 240,
) -> Any:
    """Bars between edges (one more than counts); marks are dashed lines with a name."""
    ends = _range(edges[0], edges[-1]) if edges else _range(0, 1)
    p = _plot(height, ends, _range(0, 1.18 * max(counts, default=1) or 1), log=log)
    source = models.ColumnDataSource({"left": edges[:-1], "right": edges[1:], "n": list(counts)})
    bar = models.Quad(left="left", right="right", bottom=0, top="n", fill_alpha=0.75)
    drawn = p.add_glyph(source, _paint(bar, fill_color="s0", line_color="paper"))
    said = [(unit, "@left{0,0.[00]} to @right{0,0.[00]}"), (what, "@n{0,0}")]
    _hover(p, drawn, said, "mouse")
    for i, (name, x) in enumerate((marks or {}).items()):
        line = models.Span(location=x, dimension="height", line_dash="5 4", line_width=1.4)
        p.add_layout(_paint(line, line_color="s1"))
        text = models.Label(x=x, y=height - 74 - 15 * i, y_units="screen", text=name, x_offset=5,
                     text_font_size="12px", text_font=FONT)  # fmt: skip
        p.add_layout(_paint(text, text_color="s1"))
    _axes(p, unit, what, "0,0")
    p.xaxis.formatter = models.NumeralTickFormatter(format="0,0.[00]")
    return p


# -- parts of a figure -----------------------------------------------------------------------------


def _plot(height: int, x: Any, y: Any, log: bool = False) -> Any:
    """An empty figure: as wide as there is room, no tools that would catch a finger's scrolling."""
    p = models.Plot(
        height=height, sizing_mode="stretch_width", x_range=x, y_range=y, toolbar_location=None,
        x_scale=models.LogScale() if log else models.LinearScale(), y_scale=models.LinearScale(),
        min_border_left=8, min_border_right=14, min_border_top=6, background_fill_color=None,
        border_fill_color=None, outline_line_color=None,
    )  # fmt: skip
    axis = models.LogAxis() if log else models.LinearAxis()
    p.add_layout(axis, "below")
    p.add_layout(models.LinearAxis(), "left")
    p.add_layout(models.Grid(dimension=0, axis=axis, visible=False))
    p.add_layout(models.Grid(dimension=1, axis=p.yaxis[0]))
    return p


def plot_json(p: Any, target: str) -> dict[str, Any]:
    """A figure as `Bokeh.embed.embed_item` takes it, to be shown in the element `target`.

    As `bokeh.embed.json_item` makes it, which walks through all models three times more to look for
    mistakes that a fixed set of figures does not have.
    """
    root = _serializer(deferred=False).encode(p)
    document = {"version": bokeh.__version__, "title": "", "roots": [root]}
    return {"target_id": target, "root_id": root["id"], "doc": document,
            "version": bokeh.__version__}  # fmt: skip


def _range(start: float, end: float) -> Any:
    return models.Range1d(start=start, end=end)


def _axes(p: Any, x: str, y: str, form: str) -> None:
    p.xaxis.formatter = models.NumeralTickFormatter(format="0,0")
    p.yaxis.formatter = models.NumeralTickFormatter(format=form)
    p.xaxis.axis_label, p.yaxis.axis_label = x, y
    p.xaxis.ticker.update(desired_num_ticks=5, name="across")  # fewer on a phone
    p.yaxis.ticker.desired_num_ticks = 5
    for axis in (*p.xaxis, *p.yaxis):
        axis.update(
            axis_label_text_font=FONT, axis_label_text_font_size="12px",
            axis_label_text_font_style="normal", major_label_text_font=FONT,
            major_label_text_font_size="12px", minor_tick_line_color=None, major_tick_in=0,
            major_tick_out=4, axis_label_standoff=6,
        )  # fmt: skip
        _paint(axis, axis_line_color="axis", major_tick_line_color="axis")
        _paint(axis, major_label_text_color="soft", axis_label_text_color="soft")
    p.yaxis.axis_line_color = None
    for axis in p.yaxis:
        axis.tags = [tag for tag in axis.tags if not tag.startswith("axis_line_color")]
    for grid in p.grid:
        _paint(grid, grid_line_color="grid")


def _paint(model: Any, **roles: str) -> Any:
    """Give properties the light colours of roles, and remember the roles."""
    for name, role in roles.items():
        setattr(model, name, PALETTES["light"][role])
    model.tags = [*model.tags, *(f"{name}={role}" for name, role in roles.items())]
    return model


def _hover(p: Any, renderer: Any, said: list[tuple[str, str]], mode: str = "vline") -> None:
    nearest = {"mode": mode} | ({"line_policy": "nearest"} if mode == "vline" else {})
    p.add_tools(models.HoverTool(renderers=[renderer], tooltips=said, **nearest))


def _mark_drifts(p: Any, drifts: Sequence[Sequence[int]], top: float) -> None:
    for i, (start, end) in enumerate(drifts):
        if end > start:
            band = models.BoxAnnotation(left=start, right=end, fill_alpha=0.16, line_color=None)
            p.add_layout(_paint(band, fill_color="drift"))
        line = models.Span(location=start, dimension="height", line_dash="2 4", line_width=1.6)
        p.add_layout(_paint(line, line_color="drift"))
        if len(drifts) <= 12:
            name = models.Label(x=start, y=4, y_units="screen", x_offset=4, text=f"drift {i + 1}",
                         text_font_size="11px", text_font=FONT)  # fmt: skip
            p.add_layout(_paint(name, text_color="drift"))


def _mark_alarms(p: Any, alarms: Sequence[int], y: float) -> None:
    if not alarms:
        return
    source = models.ColumnDataSource({"x": list(alarms), "y": [y] * len(alarms)})
    if len(alarms) <= 100:
        mark = models.Scatter(x="x", y="y", marker="inverted_triangle", size=9, line_alpha=0.0)
        _paint(mark, fill_color="alarm")
    else:  # thin strokes, darker where there are more
        mark = models.Scatter(x="x", y="y", marker="dash", angle=math.pi / 2, size=12,
                              line_alpha=max(0.12, 40.0 / len(alarms)), line_width=1.5)  # fmt: skip
        _paint(mark, line_color="alarm")
    _hover(p, p.add_glyph(source, mark), [("alarm at event", "@x{0,0}")], "mouse")


def _name_ends(p: Any, lines: Sequence[Line], span: tuple[float, float], height: int) -> None:
    """Names beside the last values, moved apart where they would overlap."""
    ends = [(line, _last(line.values)) for line in lines]
    known = sorted(((v, line) for line, v in ends if v is not None), key=lambda pair: pair[0])
    if len(known) < 2:  # the axis says what a single line is
        return
    inner, gap = height - 60, 16.0
    wanted = [(v - span[0]) / (span[1] - span[0] or 1.0) * inner for v, _ in known]
    placed: list[float] = []
    for y in wanted:
        placed.append(max(y, placed[-1] + gap) if placed else max(y, 6.0))
    over = placed[-1] - (inner - 4)
    for i in range(len(placed) - 1, -1, -1):
        if over > 0:
            limit = placed[i + 1] - gap if i + 1 < len(placed) else inner - 4
            placed[i] = min(placed[i], limit)
    width = max(len(_short(line.name, 20)) * (8 if line.width > 2 else 7) for _, line in known)
    _room_for_names(p, 16 + width)
    for (value, line), y, want in zip(known, placed, wanted, strict=True):
        text = models.Label(
            x=max(line.rows), y=value, x_offset=8, y_offset=y - want, text=_short(line.name, 20),
            text_font_size="12px", text_font=FONT, text_baseline="middle",
            text_font_style="bold" if line.width > 2 else "normal",
        )  # fmt: skip
        text.tags = ["name"]
        p.add_layout(_paint(text, text_color=line.role))


def _room_for_names(p: Any, pixels: int) -> None:
    """Leave room on the right of the data; whoever shows it sets `end` by the tags and its width.

    Tags of the range: pixels that are wanted, and where the data end.
    """
    end = float(p.x_range.end)
    p.x_range.update(end=end * 780.0 / (780.0 - pixels), name="names", tags=[pixels, end])
    for axis in p.xaxis:
        axis.bounds = (0.0, end)
    for grid in p.ygrid:
        grid.cross_bounds = (0.0, end)


def _span(series: Sequence[Numbers]) -> tuple[float, float]:
    """Least and largest value; some room where all are the same."""
    found = [v for values in series for v in values if v is not None and math.isfinite(v)]
    if not found:
        return 0.0, 1.0
    low, high = min(found), max(found)
    room = 0.05 * abs(high) or 0.5
    return (low, high) if high > low else (low - room, high + room)


def _gaps(values: Numbers) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _last(values: Numbers) -> float | None:
    return next((v for v in reversed(values) if v is not None), None)


def _series(k: int) -> str:
    return f"s{k}" if k < N_SERIES else "quiet"


def _short(text: str, most: int) -> str:
    """At most so many characters; what is left out is left out of the middle."""
    tail = most // 2 - 1
    return text if len(text) <= most else f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"
