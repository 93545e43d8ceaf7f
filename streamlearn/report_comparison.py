"""What a report says of several pipelines over one stream."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from streamlearn import plots, report_sections, wording
from streamlearn.report_page import Key, Page, bars, heading, paragraph, table
from streamlearn.result import Result
from streamlearn.wording import counted, metric, plain, value, whole

_MOST_LINES = 6
_TABLE = 6  # metrics beside each other


def title(results: Sequence[Result]) -> str:
    """How many were compared, at what."""
    return f"{len(results)} pipelines predicting {results[0].target}"


def fill(page: Page, results: Sequence[Result], heading_text: str, comparison: Any) -> str:
    """Add all sections of a comparison to a page; returns its header."""
    ranked = _ranked(results)
    page.section("summary", "At a glance", _summary(ranked), _failures(comparison))
    page.section("time", "Over time", _course(page, ranked))
    page.section("metrics", "All metrics", _table(ranked))
    page.section("differences", "Differences", _differences(page, ranked[0], comparison))
    page.section("features", "Features", report_sections.features(page, ranked[0]))
    for i, result in enumerate(ranked, 1):
        page.section(f"pipeline-{i}", result.name or f"pipeline {i}", _details(page, result))
    return _header(ranked, heading_text, comparison)


def _name(result: Result) -> str:
    return result.name or report_sections.who(result)


def _ranked(results: Sequence[Result]) -> list[Result]:
    """Best first by the metric that counts; those without a value last."""
    name = report_sections.main_metric(results[0])
    sign = 1.0 if metric(name).up is False else -1.0

    def merit(result: Result) -> float:
        own = result.metrics.get(name)
        return float("inf") if own is None else sign * own

    return sorted(results, key=merit)


def _header(ranked: Sequence[Result], heading_text: str, comparison: Any) -> str:
    best, name = ranked[0], report_sections.main_metric(ranked[0])
    said = wording.headline(_name(best), best.task, best.scored, best.metrics)
    rest = "; ".join(f"{_name(r)}: {value(name, r.metrics.get(name))}" for r in ranked[1:4])
    more = f"; {rest}" if rest else ""
    more += f"; and {len(ranked) - 4} more" if len(ranked) > 4 else ""
    events = f"{best.task} of {best.target}, {counted(best.events, 'event')} in one pass"
    return (
        paragraph(events, "kicker")
        + f"<h1>{escape(heading_text)}</h1>"
        + f'<p class="lead"><strong>{escape(said)}</strong>{escape(more)}.'
        + f" {escape(_certainty(ranked, comparison))}</p>"
    )


def _certainty(ranked: Sequence[Result], comparison: Any) -> str:
    """Whether the best is told apart from the next."""
    if comparison is None or len(ranked) < 2:
        return ""
    first, second = ranked[0].name, ranked[1].name
    for d in comparison.differences:
        if {d.name, d.against} == {first, second}:
            if d.verdict.startswith("not"):
                return "The first two are not distinguishable on this stream."
            return "Its lead over the next one is beyond chance: see the interval below."
    return ""


def _summary(ranked: Sequence[Result]) -> str:
    name = report_sections.main_metric(ranked[0])
    found = [(_name(r), r.metrics.get(name), i == 0) for i, r in enumerate(ranked)]
    found += [
        (wording.baseline(b, ranked[0].task), metrics.get(name), False)
        for b, metrics in ranked[0].baselines.items()
    ]
    known = [abs(v) for _, v, _ in found if v is not None]
    scale = 1.0 if metric(name).percent else max(known, default=1.0) or 1.0
    better = {True: "longer is better", False: "shorter is better", None: ""}[metric(name).up]
    text = f"{metric(name).title}, {metric(name).meaning}, over the whole stream; {better}."
    return paragraph(text) + bars(
        [(who, value(name, v), (v or 0.0) / scale, own) for who, v, own in found]
    )


def _failures(comparison: Any) -> str:
    errors = getattr(comparison, "errors", None) or {}
    if not errors:
        return ""
    rows = [[name, str(error)] for name, error in errors.items()]
    return table(["failed", "why"], rows, "These pipelines failed; the others went on.", text=(1,))


def _course(page: Page, ranked: Sequence[Result]) -> str:
    first, name = ranked[0], report_sections.main_metric(ranked[0])
    drawn_of = [r for r in ranked if report_sections.drawable(r)][:_MOST_LINES]
    if not drawn_of:
        return paragraph("Nothing was scored, so there is nothing to draw.", "none")
    least = report_sections.smoothing(first)
    lines = [
        plots.Line(_name(r), f"s{i}", r.curve["row"],
                   report_sections.curve_line(r.curve, name, least), "solid",
                   2.0 if i else 2.6)
        for i, r in enumerate(drawn_of)
    ]  # fmt: skip
    rivals = [
        line._replace(role="quiet")
        for line in report_sections._rival_lines(drawn_of[0], name, least)
    ]
    marks = plots.Marks((), [list(pair) for pair in first.known_drifts])
    form = "0%" if metric(name).percent else "0,0.[000]"
    drawn = plots.over_time(
        [*rivals, *reversed(lines)], unit=metric(name).title, events=first.events, marks=marks,
        form=form, height=400,
    )  # fmt: skip
    keys = [Key(line.name, line.role) for line in lines]
    keys += [Key(line.name, line.role, "dashed") for line in rivals]
    ends = ", ".join(f"{_name(r)} {value(name, r.metrics.get(name))}" for r in drawn_of)
    caption = f"{metric(name).title}, mean over the last {whole(least)} events; over all: {ends}."
    if len(ranked) > len(drawn_of):
        caption += f" The best {len(drawn_of)} of {len(ranked)} are drawn."
    return page.figure(drawn, caption, keys)


def _table(ranked: Sequence[Result]) -> str:
    shown = [m for m in ranked[0].metrics if any(r.metrics.get(m) is not None for r in ranked)]
    shown = shown[:_TABLE]
    rows = [
        [
            f"{_name(r)}\n{report_sections.who(r)}",
            *(value(m, r.metrics.get(m)) for m in shown),
            f"{1e6 * r.seconds / r.events:.2f}" if r.events else wording.NONE,
            wording.size(r.state_bytes),
            whole(r.n_alarms),
        ]
        for r in ranked
    ]
    best = [(row, j) for j, m in enumerate(shown, 1) if (row := _best(ranked, m)) is not None]
    for b, metrics in ranked[0].baselines.items():
        said = wording.baseline(b, ranked[0].task)
        rows.append(
            [
                said,
                *(value(m, metrics.get(m)) for m in shown),
                wording.NONE,
                wording.NONE,
                wording.NONE,
            ]
        )
    head = ["", *(metric(m).title for m in shown), "µs an event", "state", "alarms"]
    return table(head, rows, "Best first; the best value of each column stands out.", best=best)


def _best(ranked: Sequence[Result], name: str) -> int | None:
    known = [(r.metrics.get(name), i) for i, r in enumerate(ranked)]
    values = [(v, -i) for v, i in known if v is not None]
    up = metric(name).up
    if not values or up is None:
        return None
    return -(max(values) if up else min((v, -i) for v, i in values))[1]


def _differences(page: Page, best: Result, comparison: Any) -> str:
    """Every pair with its interval, and how the difference to the best became certain."""
    found = _one_way(getattr(comparison, "differences", None) or [])
    if not found:
        return ""
    name = "accuracy" if best.task == "classification" else "mean absolute error"
    rows = [
        [
            f"{d.name} against {d.against}",
            _signed(d.difference, best.task),
            _interval(d, best.task),
            d.verdict,
            whole(d.wins),
            whole(d.defeats),
        ]
        for d in found
    ]
    head = ["pair", "difference", "interval", "verdict", "wins", "defeats"]
    caption = (
        f"Difference in {name}, with an interval that holds at every moment of the stream, however "
        f"often one looks; an interval with 0 in it means: not distinguishable."
    )
    parts = [table(head, rows, caption, text=(3,))]
    shown = [d for d in found if best.name in (d.name, d.against)][:3]
    parts += [_difference_figure(page, d, best.task, name) for d in shown]
    return "".join(parts)


def _difference_figure(page: Page, d: Any, task: str, name: str) -> str:
    course = d.course or {}
    if not course.get("row"):
        return ""
    course = _settled(course)
    rows = course["row"]
    low, high = (plots.Line("interval", "s0", rows, course[k], "4 3", 1.3) for k in ("low", "high"))
    zero = plots.Line("no difference", "quiet", [0, rows[-1]], [0.0, 0.0], "2 3", 1.2)
    own = plots.Line("difference", "s0", rows, course["difference"], "solid", 2.6)
    form = "0.0%" if task == "classification" else "0,0.[000]"
    drawn = plots.over_time(
        [zero, low, high._replace(labelled=False), own], unit=f"difference in {name}",
        events=rows[-1], form=form, height=240,
    )  # fmt: skip
    caption = (
        f"{d.name} minus {d.against} over {counted(d.rows, 'label')}: "
        f"{_signed(d.difference, task)} at the end, interval {_interval(d, task)}: {d.verdict}."
    )
    keys = [Key("difference", "s0"), Key("interval", "s0", "dashed")]
    return heading(f"{d.name} against {d.against}") + page.figure(drawn, caption, keys)


def _settled(course: Mapping[str, Any]) -> dict[str, Any]:
    """A course from where its interval is at most eight times as wide as at the end."""
    low, high = (np.array(course[k], dtype=float) for k in ("low", "high"))  # None becomes NaN
    width = high - low
    if not np.isfinite(width[-1]):
        return dict(course)
    first = int(np.argmax(width <= 8.0 * width[-1]))
    return {k: v[first:] for k, v in course.items()}


def _one_way(differences: Sequence[Any]) -> list[Any]:
    """Every pair once, with the better one first."""
    pairs: dict[frozenset[str], Any] = {}
    for d in differences:
        known = pairs.setdefault(frozenset((d.name, d.against)), d)
        if known.wins < known.defeats and (d.wins, d.defeats) == (known.defeats, known.wins):
            pairs[frozenset((d.name, d.against))] = d
    return list(pairs.values())


def _interval(d: Any, task: str) -> str:
    low, high = _signed(d.low, task), _signed(d.high, task)
    return f"{low.removesuffix(' points')} to {high}"


def _signed(number: float | None, task: str) -> str:
    if number is None:
        return wording.NONE
    shown = f"{100 * abs(number):.2f} points" if task == "classification" else plain(abs(number))
    return f"{wording.MINUS if number < 0 else '+'}{shown}"


def _details(page: Page, result: Result) -> str:
    """What concerns one pipeline alone."""
    name = report_sections.main_metric(result)
    said = wording.headline(report_sections.who(result), result.task, result.scored, result.metrics)
    parts = [paragraph(f"{said}; {wording.size(result.state_bytes)} of state.")]
    if report_sections.drawable(result):
        parts.append(report_sections.metric_figure(page, result, name, small=True))
    parts.append(report_sections.drift(page, result))
    if result.calibration:
        parts += [heading("Calibration"), report_sections.calibration(page, result)]
    parts += [report_sections._confusion(page, result), report_sections._residuals(page, result)]
    return "".join(parts) + report_sections.setup(result)
