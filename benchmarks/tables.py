"""Measurements as tables: Markdown, which also reads well on a terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

Measured = dict[str, Any]

_WHOLE = """\
Whole replays, from opening the file to the last metric: events a second, median, least and most of
{rounds} rounds by turns on one core. River gets its events as ready dicts, without decoding;
accuracy is on the rows that River saw."""
_EACH = """\
Predict and learn, by operator and number of features: nanoseconds an event in blocks, and
microseconds of a block of one event at d = 8."""
_MEASURING = """\
What measuring costs, on a binary stream with probabilities: CPU nanoseconds an event, median, least
and most. Evaluation by itself in blocks of 1,000 events; whole calls of the pipeline above on the
Parquet file by turns, with opening the file, summing up and writing the report, which takes the
same time however long the stream is."""
_START = """\
From starting Python to the end of the process; cold means that no kernel is in the cache."""


def page(measured: Measured) -> str:
    """All tables of one run."""
    parts = [
        _heading(measured),
        _WHOLE.format(rounds=measured["rounds"]),
        _replays(measured["replays"]),
        _one_event(measured["one_event"]),
        _EACH,
        _operators(measured["operators"]),
        _MEASURING,
        _measuring(measured["measuring"]),
        _START,
        _starts(measured["starts"]),
        _memory(measured["peak_megabytes"]),
    ]
    return "\n\n".join(parts)


def _heading(measured: Measured) -> str:
    about = measured["machine"]
    versions = ", ".join(
        f"{k} {about[k]}" for k in ("python", "numpy", "numba", "pyarrow", "river")
    )
    quick = " A quick run: the figures mean nothing." if measured["quick"] else ""
    return f"{about['cpu']}, {about['system']}, {about['date']}; {versions}.{quick}"


def _replays(figures: Sequence[Measured]) -> str:
    head = ("replay", "rows", "events/s", "least", "most", "times River", "accuracy (head)")
    rows = [
        (
            f["name"],
            f"{f['rows']:,}",
            *(f"{f[k]:,.0f}" for k in ("events_per_second", "least", "most")),
            f"{f['times_river']:.1f}",
            f"{f['accuracy']:.3f}",
        )
        for f in figures
    ]
    return markdown(head, rows)


def _one_event(us: dict[str, float]) -> str:
    return (
        f"A block of one event through that pipeline: {us['pipeline_us_p50']:.1f} us (p50), "
        f"{us['pipeline_us_p99']:.1f} us (p99); with evaluation "
        f"{us['with_evaluation_us_p50']:.1f} and {us['with_evaluation_us_p99']:.1f} us."
    )


def _operators(figures: Sequence[Measured]) -> str:
    widths = list(dict.fromkeys(f["d"] for f in figures))
    by_name: dict[str, list[Measured]] = {}
    for f in figures:
        by_name.setdefault(f["operator"], []).append(f)
    head = ("operator", *(f"d = {d}, ns" for d in widths), "one event p50, us", "p99, us")
    rows = [
        (
            name,
            *(f"{f['ns_per_event']:,.0f}" for f in row),
            f"{row[0]['one_event_us_p50']:.1f}",
            f"{row[0]['one_event_us_p99']:.1f}",
        )
        for name, row in by_name.items()
    ]
    return markdown(head, rows)


def _measuring(cases: Sequence[Measured]) -> str:
    rows = [
        (c["what"], f"{c['rows']:,}", *(f"{c[k]:,.0f}" for k in ("ns_per_event", "least", "most")))
        for c in cases
    ]
    return markdown(("what", "events", "ns an event", "least", "most"), rows)


def _starts(figures: Sequence[Measured]) -> str:
    rows = [(f["what"], "cold" if f["cold"] else "warm", f"{f['seconds']:.2f}") for f in figures]
    return markdown(("start-up", "kernels", "seconds"), rows)


def _memory(peaks: dict[int, float]) -> str:
    shown = "; ".join(f"{mb:.0f} MB after {int(n):,} events" for n, mb in peaks.items())
    return f"Peak memory of a Parquet replay, imports included: {shown}."


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with padded columns: the first to the left, the others to the right."""
    widths = [max(len(line[j]) for line in (head, *rows)) for j in range(len(head))]
    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join(_line(line, widths) for line in (head, rule, *rows))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    others = [cell.rjust(w) for cell, w in zip(cells[1:], widths[1:], strict=True)]
    return f"| {' | '.join([first, *others])} |"


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
