"""What the command line shows of forecasts: model and baselines, by series, what comes next."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamlearn.forecasting import LAST, MODEL, SEASONAL, Forecast
from streamlearn.wording import counted, percent, plain, size

_SHOWN = 20  # series


def print_forecast(found: Forecast, console: Console | None = None) -> None:
    """Errors over all series and by series, intervals, and the first steps of what comes next."""
    out = console or Console()
    out.print(Text(found.model, style="bold"), soft_wrap=True)
    out.print(_scores(found))
    out.print(_channels(found))
    out.print(_next(found))
    for line in facts(found):
        out.print(Text(line), soft_wrap=True)


def facts(found: Forecast) -> list[str]:
    """Lines below the tables."""
    windows = f"{counted(found.windows, 'window')} of {counted(found.horizon, 'row')}"
    lines = [
        f"{windows} from row {found.start:,} on; errors in deviations of the first {found.train:,}",
        f"intervals: {percent(found.coverage)} of the values within, wanted {percent(found.level)}",
        f"{found.rows_per_second:,.0f} rows/s, state {size(found.state_bytes)}",
    ]
    if found.season:
        how = "found in the first rows" if found.season_guessed else "as given"
        lines.append(f"season: {counted(found.season, 'row')}, {how}")
    else:
        lines.append("season: none, so there is no seasonal baseline (--season ROWS)")
    if found.filled:
        lines.append(f"{counted(found.filled, 'missing row')} between two times, taken as gaps")
    return lines


def who(name: str, found: Forecast) -> str:
    """The name of a row of the table."""
    if name == SEASONAL:
        return (
            f"{counted(found.season, 'row')} ago"
            if found.horizon <= found.season
            else "a season ago"
        )
    return name


def _scores(found: Forecast) -> Table:
    table = _empty("", ("MSE", "MAE", "MSE of the last value"))
    last = found.scores[LAST]["mse"]
    for name, score in found.scores.items():
        mse = score["mse"]
        share = percent(mse / last) if mse is not None and last else "-"
        table.add_row(who(name, found), _number(mse), _number(score["mae"]), share)
    return table


def _channels(found: Forecast) -> Table:
    beside = [name for name in found.scores if name != MODEL]
    head = ("MSE", *(f"MSE, {who(name, found)}" for name in beside), "MAE in its unit", "within")
    table = _empty("series", (*head, "interval width"))
    for name, channel in list(found.channels.items())[:_SHOWN]:
        table.add_row(
            Text(name),
            _number(channel["mse"][MODEL]),
            *(_number(channel["mse"][other]) for other in beside),
            plain(channel["mae_raw"][MODEL]),
            percent(channel["coverage"]),
            plain(channel["width"]),
        )
    if len(found.channels) > _SHOWN:
        table.add_row(Text(f"and {len(found.channels) - _SHOWN} more (--json)"))
    return table


def _next(found: Forecast) -> Table:
    """The first step ahead of the last row, the one in the middle, and the last."""
    H = found.horizon
    steps = [found.next[h - 1] for h in sorted({1, (H + 1) // 2, H})]
    table = _empty("next", [f"in {counted(step['step'], 'row')}" for step in steps])
    for name in found.targets[:_SHOWN]:
        cells = [_with_bounds(step[name]) for step in steps]
        table.add_row(Text(name), *cells)
    return table


def _with_bounds(step: Mapping[str, Any]) -> str:
    low, high = plain(step["lower"]), plain(step["upper"])
    return f"{plain(step['forecast'])} ({low} to {high})"


def _empty(first: str, others: Any) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
