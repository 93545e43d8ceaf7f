"""What a report says of forecasts: how good they were, where, and what comes next."""

import math
from html import escape
from pathlib import Path

from streamlearn import plots, wording
from streamlearn.display_forecast import facts, who
from streamlearn.durable import write_text
from streamlearn.forecasting import LAST, MODEL, Forecast
from streamlearn.report_page import Key, Page, bars, listing, paragraph, table
from streamlearn.report_page import facts as numbers
from streamlearn.wording import counted, percent, plain

_ROLES = {MODEL: "s0", LAST: "s1"}
_SEEN = 120  # rows before the end that the outlook shows


def write_report(path: str | Path, found: Forecast, title: str | None = None) -> None:
    """Write the report: one HTML file, which opens anywhere and fetches nothing."""
    write_text(path, report_html(found, title))


def report_html(found: Forecast, title: str | None = None) -> str:
    """The report as text; two calls give the same text."""
    page = Page()
    name = found.name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    shown = ", ".join(found.targets[:3]) + (" and others" if len(found.targets) > 3 else "")
    heading = title or f"Forecasting {shown}" + (f" in {name}" if name else "")
    page.section("summary", "At a glance", _summary(found))
    page.section("outlook", "What comes next", _outlook(page, found), _next_table(found))
    page.section("past", "Forecast and truth", _past(page, found))
    page.section("time", "Over time", _course(page, found))
    page.section("steps", "By step ahead", _steps(page, found))
    page.section("series", "By series", _series(found))
    page.section("setup", "How it was made", *map(paragraph, facts(found)), listing(found.model))
    return page.html(heading, _header(found, heading))


def _header(found: Forecast, heading: str) -> str:
    own, last = found.scores[MODEL]["mse"], found.scores[LAST]["mse"]
    better = ""
    if own is not None and last:
        less = 1.0 - own / last
        word = "less" if less >= 0 else "more"
        better = f"{percent(abs(less))} {word} squared error than repeating the last value."
    kicker = f"{len(found.targets)} series, "
    kicker += f"{counted(found.horizon, 'row')} ahead, {counted(found.windows, 'forecast')}"
    covered = f"{percent(found.coverage)} of the values fell within the {percent(found.level)} "
    return (
        paragraph(kicker, "kicker")
        + f"<h1>{escape(heading)}</h1>"
        + f'<p class="lead"><strong>{escape(better)}</strong> {escape(covered)}intervals.</p>'
    )


def _summary(found: Forecast) -> str:
    values = [(name, score["mse"]) for name, score in found.scores.items()]
    most = max((v for _, v in values if v is not None), default=1.0) or 1.0
    rows = [(who(name, found), plain(v), (v or 0.0) / most, name == MODEL) for name, v in values]
    text = (
        "Mean squared error over all series and steps, in squared standard deviations of the first "
        "rows; shorter is better. Every forecast was made before any of its rows had been learnt."
    )
    more = numbers(
        [
            ("mean absolute error", plain(found.scores[MODEL]["mae"])),
            ("within the intervals", percent(found.coverage)),
            ("mean width, deviations", plain(found.width)),
            ("rows", wording.whole(found.rows)),
        ]
    )
    return paragraph(text) + bars(rows) + more


def _outlook(page: Page, found: Forecast) -> str:
    """The last rows of the first series, and what is forecast after them."""
    name = found.targets[0]
    recorded = (found.recording or {}).get("row") or []
    seen = list(zip(recorded, (found.recording or {}).get("actual") or [], strict=True))[-_SEEN:]
    tail = (found.recording or {}).get("tail") or []
    rows = [row for row, _ in seen] + [row for row, _ in tail]
    values = [value for _, value in seen] + [value for _, value in tail]
    ahead = [found.rows - 1 + step["step"] for step in found.next]
    steps = [step[name] for step in found.next]
    if not rows or all(step["forecast"] is None for step in steps):
        return ""
    lines = [
        plots.Line("forecast", "s0", ahead, [s["forecast"] for s in steps], dots=len(steps) == 1),
        plots.Line(name, "quiet", rows, _gaps(values)),
    ]
    band = ahead, [s["lower"] for s in steps], [s["upper"] for s in steps]
    drawn = plots.with_band(lines, band, unit=name)
    caption = f"{name}: the last rows, and {counted(len(steps), 'row')} after them with "
    caption += f"{percent(found.level)} intervals."
    keys = [Key("forecast", "s0"), Key(name, "quiet")]
    return page.figure(drawn, caption, keys, always=True)


def _gaps(values: list[float]) -> list[float | None]:
    return [None if v is None or math.isnan(v) else v for v in values]


def _next_table(found: Forecast) -> str:
    steps = found.next if len(found.next) <= 6 else [*found.next[:3], *found.next[-3:]]
    rows = [
        [
            name,
            *(
                f"{plain(s[name]['forecast'])} ({plain(s[name]['lower'])} to "
                f"{plain(s[name]['upper'])})"
                for s in steps
            ),
        ]
        for name in found.targets
    ]
    head = ["", *(f"+{s['step']}" for s in steps)]
    return table(
        head, rows, f"Forecasts after the last row, with {percent(found.level)} intervals."
    )


def _past(page: Page, found: Forecast) -> str:
    kept = found.recording or {}
    if not kept.get("row"):
        return ""
    name, H, rows = found.targets[0], found.horizon, kept["row"]
    lines = [
        plots.Line("1 row ahead", "s0", rows, _gaps(kept["near"])),
        plots.Line(name, "quiet", rows, _gaps(kept["actual"])),
    ]
    keys = [Key("1 row ahead", "s0"), Key(name, "quiet")]
    if H > 1:
        far = [row + H - 1 for row in rows]
        lines.append(plots.Line(f"{H} rows ahead", "s1", far, _gaps(kept["far"]), "6 3", 1.6))
        keys.append(Key(f"{H} rows ahead", "s1", "dashed"))
    band = rows, _gaps(kept["low"]), _gaps(kept["high"])
    drawn = plots.with_band(lines, band, unit=name)
    caption = (
        f"{name} over the last {counted(len(rows), 'row')} that were scored, as it was forecast "
        f"one row before and {counted(H, 'row')} before; the band is the interval one row before."
    )
    return page.figure(drawn, caption, keys, always=True)


def _course(page: Page, found: Forecast) -> str:
    bins = (found.recording or {}).get("bins") or []
    if len(bins) < 3:
        return ""
    rows = [row for row, *_ in bins]
    errors = plots.Line("mean squared error", "s0", rows, [e for _, e, _ in bins])
    first = plots.over_time([errors], unit="MSE", events=found.rows, floor=0.0, form="0.0[00]")
    share = plots.Line("within", "s0", rows, [c for *_, c in bins])
    wanted = plots.Line("wanted", "quiet", [rows[0], rows[-1]], [found.level] * 2, "2 3", 1.4)
    second = plots.over_time(
        [wanted, share], unit="share within", events=found.rows, form="0%", height=220
    )
    text = "by the row after which the forecasts were made, in bins of about 1,000 rows."
    return page.figure(first, f"Mean squared error {text}") + page.figure(
        second, f"Share of values within the intervals {text}"
    )


def _steps(page: Page, found: Forecast) -> str:
    if found.horizon < 3:
        return ""
    ahead = [float(h) for h in range(1, found.horizon + 1)]
    lines = [
        plots.Line(who(name, found), _ROLES.get(name, "s2"), ahead, steps["mse"], dots=False)
        for name, steps in found.steps.items()
    ]
    drawn = plots.with_band(lines, (ahead, [None] * len(ahead), [None] * len(ahead)), unit="MSE")
    keys = [Key(line.name, line.role) for line in lines]
    return page.figure(drawn, "Mean squared error by rows ahead.", keys, always=True)


def _series(found: Forecast) -> str:
    others = [name for name in found.scores if name != MODEL]
    beside = [f"MSE, {who(name, found)}" for name in others]
    head = ["", "MSE", *beside, "MAE in its unit", "within"]
    rows = [
        [
            name,
            plain(channel["mse"][MODEL]),
            *(plain(channel["mse"][other]) for other in others),
            plain(channel["mae_raw"][MODEL]),
            percent(channel["coverage"]),
            plain(channel["width"]),
        ]
        for name, channel in found.channels.items()
    ]
    caption = "Errors and intervals of each series; widths in its unit."
    return table([*head, "width"], rows, caption)
