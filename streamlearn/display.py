"""What the command line shows: the progress line, the table of results, the list of operators."""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from streamlearn.display_comparison import print_comparison as print_comparison
from streamlearn.display_comparison import print_tuning as print_tuning
from streamlearn.groups import OTHER
from streamlearn.wording import counted, seconds, size, swap_words

_REFRESH_SECONDS = 0.2
_SHOWN_GROUPS = 20
_ODD_LABELS = (
    "unlabelled", "expired", "assumed", "contradicted", "duplicates", "unknown", "late", "early",
    "evicted", "replaced", "empty", "stalls",
)  # fmt: skip
_LINE_SECONDS = 5.0  # where there is no terminal to redraw a line on


class Progress:
    """Events so far, events a second, the rolling metric and the alarms, on stderr.

    On a terminal one line is redrawn; elsewhere a line is printed every five seconds, so that a
    short replay into a log file prints none. Cost: a look at the clock a call.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live: Live | None = None
        self._start = self._next = time.perf_counter()
        self._period = _REFRESH_SECONDS if self._console.is_terminal else _LINE_SECONDS

    def __enter__(self) -> "Progress":
        self._start = time.perf_counter()
        self._next = self._start + self._period
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def due(self) -> bool:
        """Whether it is time for the next line; the caller need not gather numbers before."""
        return time.perf_counter() >= self._next

    def show(self, events: int, metric: str, value: float | None, alarms: int) -> None:
        """Draw the line."""
        now = time.perf_counter()
        self._next = now + self._period
        line = progress_line(events, events / max(now - self._start, 1e-9), metric, value, alarms)
        if self._live is not None:
            self._live.update(Text(line), refresh=True)
        else:
            self._console.print(line, highlight=False, soft_wrap=True)


def progress_line(events: int, rate: float, metric: str, value: float | None, alarms: int) -> str:
    """One line: `1,234,567 events  2,100,000/s  accuracy 0.8812 (last rows)  3 alarms`."""
    shown = "-" if value is None else f"{value:.4f}"
    ending = "" if alarms == 1 else "s"
    return f"{events:,} events  {rate:,.0f}/s  {metric} {shown} (last rows)  {alarms} alarm{ending}"


def print_result(
    result: Mapping[str, Any], console: Console | None = None, on_stderr: bool = False
) -> None:
    """The result of a run as a table, baselines beside, and what must not be overlooked below."""
    out = console or Console(stderr=on_stderr)
    out.print(Text(f"{result['model']}", style="bold"), soft_wrap=True)
    out.print(_metrics_table(result))
    if result.get("by_group"):
        out.print(_groups_table(result["by_group"], next(iter(result["metrics"]))))
    if result.get("drift"):
        out.print(_drift_table(result["drift"]))
    for line in _facts(result):
        out.print(Text(line), soft_wrap=True)


def print_operators(rows: Iterable[Any], console: Console | None = None) -> None:
    """Name, kind, names of the family, summary and parameters of every operator."""
    out = console or Console()
    for name, kind, parameters, summary, family in rows:
        also = f" (--model {' or '.join(family)})" if family else ""
        out.print(Text.assemble((name, "bold"), f"  {kind}{also}"))
        out.print(Padding(Text(summary), (0, 0, 0, 4)))
        if parameters:
            out.print(Padding(Text(parameters, style="dim"), (0, 0, 0, 4)))
    out.print("streamlearn operators NAME shows the whole documentation of one.")


def print_checkpoint(found: Mapping[str, Any], console: Console | None = None) -> None:
    """What a checkpoint says of itself, then its arrays."""
    out = console or Console()
    for key, value in found.items():
        if key != "arrays":
            out.print(Text.assemble((f"{key}: ", "bold"), _brief(value)), soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("array", overflow="fold")
    for name in ("dtype", "shape", "bytes"):
        table.add_column(name, justify="right")
    for array in found["arrays"]:
        shape = " x ".join(map(str, array["shape"])) or "scalar"
        table.add_row(Text(array["name"]), array["dtype"], shape, f"{array['bytes']:,}")
    out.print(table)


def say(text: str) -> None:
    """Lines on stderr."""
    print(text, file=sys.stderr)


def _brief(value: Any) -> str:
    """A mapping as `key value` pairs, anything else as it prints."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_brief(member)}" for key, member in value.items()) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _metrics_table(result: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric")
    baselines: Mapping[str, Any] = result["baselines"]
    for name in ("cumulative", "windowed", "fading", *baselines):
        table.add_column(name, justify="right")
    views = (result["metrics"], result["windowed"], result["fading"], *baselines.values())
    for metric in result["metrics"]:
        found = [view.get(metric) for view in views]
        if any(value is not None for value in found):  # else nothing states what it measures
            table.add_row(metric, *map(_number, found))
    return table


def _groups_table(groups: Mapping[str, Mapping[str, Any]], metric: str) -> Table:
    """The groups with most scored rows: the first metric, over all rows and the last ones."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("group", overflow="fold")
    for name in ("scored", metric, "windowed"):
        table.add_column(name, justify="right")
    most = sorted(groups.items(), key=lambda item: (item[0] == OTHER, -item[1]["scored"]))
    cut = most[:_SHOWN_GROUPS] + [item for item in most[_SHOWN_GROUPS:] if item[0] == OTHER]
    for name, found in cut:
        late = found.get("windowed", {}).get(metric)
        table.add_row(Text(name), f"{found['scored']:,}", _number(found.get(metric)), _number(late))
    if len(most) > len(cut):
        table.add_row(Text(f"and {len(most) - len(cut)} more (--json)"), "", "", "")
    return table


def _drift_table(drift: Mapping[str, Any]) -> Table:
    """What each known drift did, against the same pipeline reset where it drifts."""
    columns = {
        "before": "before", "worst": "worst", "depth": "depth", "recovery": "recovery",
        "excess_errors": "excess errors", "delay": "alarm after",
    }  # fmt: skip
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("known drift", *columns.values()):
        table.add_column(name, justify="right")
    for found in drift["drifts"]:
        start, end = found["start"], found["end"]
        where = f"{start:,}" if start == end else f"{start:,} to {end:,}"
        table.add_row(where, *(_brief_number(found.get(name)) for name in columns))
    return table


def _brief_number(value: float | None) -> str:
    return f"{value:,}" if isinstance(value, int) else _number(value)


def _label_facts(labels: Mapping[str, Any]) -> list[str]:
    """What became of the labels: how many came and how late, and what went wrong with others."""
    events = labels.get("events") or 0
    came = labels.get("labelled", 0)
    share = f" ({100 * came / events:.1f} % of the events)" if events else ""
    lines = [f"{came:,} labels came{share}, {labels.get('pending', 0):,} are waited for"]
    other = {name: labels[name] for name in _ODD_LABELS if labels.get(name)}
    if other:
        lines.append("labels: " + ", ".join(f"{n:,} {name}" for name, n in other.items()))
    for unit in ("rows", "seconds"):
        found = labels.get(unit) or {}
        if found.get("mean") is not None:
            form = _rows if unit == "rows" else seconds
            told = ", ".join(f"{k} {form(v)}" for k, v in found.items() if v is not None)
            lines.append(f"label delay in {'rows' if unit == 'rows' else 'time'}: {told}")
    return lines


def _fate_facts(fates: Mapping[str, Any]) -> list[str]:
    """How the events whose labels came differ from the others, where there are others."""
    fates = dict(fates)
    estimated = fates.pop("estimated_accuracy", None)
    if not any(found["events"] for fate, found in fates.items() if fate != "told"):
        return []
    lines = []
    for fate, found in fates.items():
        shown = [f"{k} {_number(v)}" for k, v in found.items() if k != "events" and v is not None]
        if found["events"]:
            events = counted(found["events"], "event")
            lines.append(", ".join([f"labels {fate}: {events}", *shown]))
    if estimated is not None:
        lines.append(f"accuracy over all of these events, estimated: {_number(estimated)}")
    return lines


def _facts(result: Mapping[str, Any]) -> list[str]:
    """Lines below the table."""
    speed = f"{result['seconds']:.2f} s: {result['events_per_second']:,.0f} events/s"
    events, before = counted(result["events"], "event"), result.get("resumed_at", 0)
    if before:
        events += f", {result['events'] - before:,} since the last start,"
    lines = [
        f"{events} in {speed}, state {size(result['state_bytes'])}",
        _alarms(result["alarms"], result.get("n_alarms", len(result["alarms"]))),
    ]
    if result.get("n_swaps"):
        lines.append(swap_words(result["n_swaps"]))
    if OTHER in result.get("by_group", {}):
        told = len(result["by_group"]) - 1
        lines.append(f"groups: the first {told:,} values are told apart, others are {OTHER}")
    if (result.get("drift") or {}).get("probes"):
        lines.append(_probe_facts(result["drift"]["probes"]))
    if result.get("labels"):
        lines += _label_facts(result["labels"])
        lines += _fate_facts(result["delayed"]["fates"] or {})
    if result.get("river"):
        shown = ", ".join(f"{name} {_number(value)}" for name, value in result["river"].items())
        lines.append(f"by River, row by row: {shown}")
    if result.get("unanswered"):
        lines.append(f"{result['unanswered']:,} with a label but no answer yet, not measured")
    if result["dead_letters"]:
        joined = (result.get("labels") or {}).get("unknown") is not None
        why = "did not fit or could not be joined" if joined else "did not fit"
        lines.append(f"{counted(result['dead_letters'], 'record')} {why}: dead letters")
    return lines


def _probe_facts(probes: Mapping[str, Any]) -> str:
    """What was measured on rows that were held out of every concept."""
    held = " + ".join(f"{found['probes']:,}" for found in probes["concepts"])
    means = [_number(probes[name]) for name in ("average_anytime", "worst_case")]
    times = counted(probes["points"], "time")
    return f"probes ({held} rows held out, asked {times}): average {means[0]}, worst {means[1]}"


def _rows(count: float) -> str:
    return f"{count:,.0f}" if float(count).is_integer() else f"{count:,.1f}"


def _alarms(rows: list[int], count: int) -> str:
    if not count:
        return "no drift alarms"
    shown = ", ".join(f"{row:,}" for row in rows[-8:])
    which = "at" if count <= 8 else "the last at"
    return f"{count:,} drift alarm{'' if count == 1 else 's'}, {which} row {shown}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4e}"
