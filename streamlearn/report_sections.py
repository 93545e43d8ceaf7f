"""What a report says of one pipeline: a function a section, each from a Result to HTML."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from streamlearn import plots, wording
from streamlearn.block import F8
from streamlearn.report_page import (
    Key,
    Page,
    bars,
    columns,
    facts,
    folded,
    heading,
    listing,
    paragraph,
    table,
)
from streamlearn.result import Result
from streamlearn.wording import counted, metric, percent, plain, swap_words, value, whole

_MOST_FEATURES = 20  # rows of the drift map
_LARGEST = 8e307  # of a residual that is drawn: the room between two such has a size
_LOOKS = 3  # fewer points are no course: their numbers are told, not drawn
_FULL = 30  # events a bin that are worth a line of their own
_BASELINE_LINES = {"no_change": ("s1", "6 3"), "chance": ("s1", "6 3")}
_OTHER_LINES = ("quiet", "2 3")


def title(result: Result) -> str:
    """What was predicted, and of what."""
    name = result.name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return f"Predicting {result.target}" + (f" in {name}" if name else "")


def fill(page: Page, result: Result, heading_text: str) -> str:
    """Add all sections of a result to a page; returns its header."""
    page.section("summary", "At a glance", summary(result))
    page.section("time", "Over time", course(page, result))
    page.section("metrics", "All metrics", metrics_table(result))
    page.section("drift", "Drift and alarms", drift(page, result))
    page.section("features", "Features", features(page, result))
    page.section("answers", "Answers", answers(page, result))
    page.section("calibration", "Calibration", calibration(page, result))
    page.section("groups", "By group", groups(result))
    page.section("delay", "Label delay", delay(page, result))
    page.section("speed", "Speed and size", speed(page, result))
    page.section("setup", "How it was made", setup(result))
    return header(result, heading_text)


def who(result: Result) -> str:
    """What a pipeline is called in a sentence."""
    predictor = getattr(result.pipeline, "predictor", None)
    return type(predictor).__name__ if predictor is not None else wording.model_name(result.model)


def main_metric(result: Result) -> str:
    """The metric that counts: the first of the task."""
    return next(iter(result.metrics), "accuracy")


# -- the top ---------------------------------------------------------------------------------------


def header(result: Result, heading_text: str) -> str:
    """Title, and how well it went in a sentence."""
    name = main_metric(result)
    said = wording.headline(who(result), result.task, result.scored, result.metrics)
    others = "".join(
        f"; {wording.baseline(b, result.task)}: {value(name, found.get(name))}"
        for b, found in result.baselines.items()
    )
    own, rivals = result.metrics.get(name), [b.get(name) for b in result.baselines.values()]
    tone, words = wording.verdict(name, own, rivals)
    judged = f' <span class="verdict {tone}">That is {escape(words)}.</span>' if words else ""
    source = f"{result.task} of {result.target}" + (f", {result.name}" if result.name else "")
    return (
        paragraph(source, "kicker")
        + f"<h1>{escape(heading_text)}</h1>"
        + f'<p class="lead"><strong>{escape(said)}</strong>{escape(others)}.{judged}</p>'
    )


def summary(result: Result) -> str:
    """The metric that counts beside the baselines, and the numbers that one asks for first."""
    name = main_metric(result)
    found = [(who(result), result.metrics.get(name), True)]
    found += [
        (wording.baseline(b, result.task), metrics.get(name), False)
        for b, metrics in result.baselines.items()
    ]
    known = [abs(v) for _, v, _ in found if v is not None]
    scale = 1.0 if metric(name).percent else max(known, default=1.0) or 1.0
    drawn = bars([(n, value(name, v), (v or 0.0) / scale, own) for n, v, own in found])
    better = {True: "longer is better", False: "shorter is better", None: ""}[metric(name).up]
    text = f"{metric(name).title}, {metric(name).meaning}, over the whole stream"
    pairs = [
        ("events", whole(result.events)),
        ("scored", whole(result.scored)),
        ("events a second", whole(result.events_per_second)),
        ("drift alarms", whole(result.n_alarms)),
        ("state in memory", wording.size(result.state_bytes)),
        ("took", wording.seconds(result.seconds)),
    ]
    if result.dead_letters:
        pairs.append(("did not fit (dead letters)", whole(result.dead_letters)))
    if result.unanswered:
        pairs.append(("labelled, no answer yet", whole(result.unanswered)))
    return paragraph(f"{text}; {better}." if better else f"{text}.") + drawn + facts(pairs)


# -- over time -------------------------------------------------------------------------------------


def course(page: Page, result: Result) -> str:
    """The metric that counts against the baselines, then others."""
    if not drawable(result):
        few = "Ranking is measured at every 1,000th event; there were fewer."
        none = "Nothing was scored, so there is nothing to draw."
        return paragraph(few if result.scored else none, "none")
    name = main_metric(result)
    parts = [metric_figure(page, result, name)]
    second = {"classification": ("log_loss", "set_coverage"), "regression": ("rmse", "coverage")}
    for other in second.get(result.task, ()):
        if any(v is not None for v in result.curve.get(other, [])):
            parts += [heading(f"{metric(other).title}: {metric(other).meaning}")]
            parts += [metric_figure(page, result, other, small=True)]
    return "".join(parts)


def drawable(result: Result) -> bool:
    """Whether the metric that counts has a curve: not where no label met an answer."""
    return main_metric(result) in result.curve


def marks_of(result: Result) -> plots.Marks:
    """Alarms and known drifts of a result."""
    return plots.Marks(list(result.alarms), [list(pair) for pair in result.known_drifts])


def smoothing(result: Result) -> float:
    """Events that a point of a curve is a mean over, at least."""
    return max(1000.0, result.events / 60) if result.events >= 10_000 else result.events / 20 + 1


def curve_line(curve: Mapping[str, Any], name: str, least: float) -> list[float | None]:
    """A metric over the bins of a curve, smoothed where means may be taken."""
    values: list[float | None] = curve[name]
    if name == "rmse":
        squares = [None if v is None else v * v for v in values]
        means = wording.rolled(squares, curve["n"], least)
        return [None if v is None else math.sqrt(v) for v in means]
    if name in ("roc_auc", "average_precision"):  # known at every 1,000th event, and holds on
        held: list[float | None] = []
        for value in values:
            held.append(held[-1] if value is None and held else value)
        return held
    return wording.rolled(values, curve["n"], least) if metric(name).mean else values


def _rival_lines(result: Result, name: str, least: float) -> list[plots.Line]:
    curve, out = result.curve, []
    for b, found in curve.get("baselines", {}).items():
        if (name, b) == ("log_loss", "no_change"):
            continue  # it is certain every time: off the scale of all others
        if name in found and any(v is not None for v in found[name]):
            role, dash = _BASELINE_LINES.get(b, _OTHER_LINES)
            values = curve_line({**found, "n": curve["n"]}, name, least)
            said = wording.baseline(b, result.task, short=True)
            out.append(plots.Line(said, role, curve["row"], values, dash, 1.8))
    return out


def metric_figure(page: Page, result: Result, name: str, small: bool = False) -> str:
    """One metric over the stream with alarms and known drifts."""
    curve, least = result.curve, smoothing(result)
    own = plots.Line(who(result), "s0", curve["row"], curve_line(curve, name, least), "solid", 2.6)
    raw = plots.Line("", "s0", curve["row"], curve[name], "solid", 1.0, 0.28, False)
    rivals = _rival_lines(result, name, least)
    full = float(np.median(curve["n"])) >= _FULL  # else a bin is mostly chance
    faint = [raw] if full and raw.values != own.values and len(curve["row"]) > 24 else []
    drawn = plots.over_time(
        [*faint, *rivals, own],
        unit=name.upper() if name == "rmse" else metric(name).title,  # too long for its height
        events=result.events,
        marks=marks_of(result),
        form="0%" if metric(name).percent else "0,0.[000]",
        height=240 if small else 380,
    )
    keys = [Key(who(result), "s0")]
    keys += [Key(x.name, x.role, "dashed" if x.role == "s1" else "dotted") for x in rivals]
    return page.figure(drawn, _course_caption(result, name, own.values), _marked(result, keys))


def _marked(result: Result, keys: list[Key]) -> list[Key]:
    if result.alarms:
        keys.append(Key("drift alarm", "alarm", "alarm"))
    if result.known_drifts:
        keys.append(Key("known drift", "drift", "drift"))
    return keys


def _course_caption(result: Result, name: str, values: Sequence[float | None]) -> str:
    """What one sees, with numbers."""
    rows, found = result.curve["row"], wording.extremes(result.curve["row"], values)
    if found is None:
        return f"{metric(name).title}: undefined throughout."
    (low_at, low), (high_at, high) = found
    width = wording.whole(max(smoothing(result), (rows[0] + 1) if rows else 1))
    how = (
        f"mean over the last {width} events"
        if metric(name).mean or name == "rmse"
        else "by bin of events"
    )
    text = (
        f"{metric(name).title} of {who(result)}, {how}: between {value(name, low)} (at event "
        f"{whole(low_at)}) and {value(name, high)} (at event {whole(high_at)}), "
        f"{value(name, result.metrics.get(name))} over all"
    )
    return f"{text}. {_mark_words(result)}"


def _mark_words(result: Result) -> str:
    words = []
    if result.n_alarms:
        shown = (
            "" if result.n_alarms == len(result.alarms) else f", the last {len(result.alarms):,}"
        )
        drawn = "Triangles" if len(result.alarms) <= 100 else "Strokes at the top"
        words.append(f"{drawn}: {counted(result.n_alarms, 'drift alarm')}{shown}.")
    if result.known_drifts:
        words.append(f"Dashed lines: {counted(len(result.known_drifts), 'known drift')}.")
    return " ".join(words)


# -- numbers ---------------------------------------------------------------------------------------


def metrics_table(result: Result) -> str:
    """Every metric, over the stream, of late, and of the baselines."""
    shown = [name for name, v in result.metrics.items() if _any_value(result, name, v)]
    who_else = [wording.baseline(b, result.task, short=True) for b in result.baselines]
    rows = [
        [
            f"{metric(name).title}\n{_with_direction(name)}",
            value(name, result.metrics.get(name)),
            value(name, result.windowed.get(name)),
            value(name, result.fading.get(name)),
            *(value(name, b.get(name)) for b in result.baselines.values()),
        ]
        for name in shown
    ]
    head = ["metric", "whole stream", "last events", "fading", *who_else]
    caption = f"{who(result)} over the whole stream, over the last events of it, and fading (newer "
    caption += "events count more); the baselines were measured on the same events."
    parts = [table(head, rows, caption), _per_class(result)]
    if result.river:
        extra = [[str(name), _shown(v)] for name, v in result.river.items()]
        parts.append(table(["River's metrics", "value"], extra, "As River computes them."))
    return "".join(parts)


def _any_value(result: Result, name: str, own: Any) -> bool:
    return own is not None or any(b.get(name) is not None for b in result.baselines.values())


def _with_direction(name: str) -> str:
    better = {True: "higher is better", False: "lower is better", None: ""}[metric(name).up]
    return "; ".join(part for part in (metric(name).meaning, better) if part)


def _per_class(result: Result) -> str:
    if not result.per_class:
        return ""
    wanted = ("recall", "precision", "f1")
    columns_ = [c for c in wanted if any(c in row for row in result.per_class.values())]
    total = sum(row.get("scored") or 0 for row in result.per_class.values()) or 1
    rows = [
        [name, whole(row.get("scored")), percent((row.get("scored") or 0) / total)]
        + [percent(row.get(c)) for c in columns_]
        for name, row in sorted(
            list(result.per_class.items())[:64], key=lambda pair: wording.by_number(pair[0])
        )
    ]
    caption = "By class: recall is the share of its events that was found, precision the share of "
    caption += "the answers that was right."
    return table(["class", "events", "share", *columns_], rows, caption)


def _shown(found: Any) -> str:
    return plain(found) if isinstance(found, int | float) else str(found)


# -- drift -----------------------------------------------------------------------------------------


def drift(page: Page, result: Result) -> str:
    """Alarms, how known drifts were met, and what the detector saw."""
    parts = [_alarm_words(result), _known_drifts(result), _detector(page, result)]
    return "".join(parts)


def _alarm_words(result: Result) -> str:
    changed = f" {swap_words(result.n_swaps)}." if result.n_swaps else ""
    if not result.n_alarms:
        return paragraph(f"No drift alarm was raised.{changed}", "none")
    last = ", ".join(whole(row) for row in result.alarms[-8:])
    which = "At event" if result.n_alarms == 1 else "At events"
    which = which if result.n_alarms <= 8 else "The last at events"
    count = counted(result.n_alarms, "drift alarm").capitalize()
    return paragraph(f"{count}. {which} {last}.{changed}")


def _known_drifts(result: Result) -> str:
    if not result.drift or not result.drift["drifts"]:  # or none that the stream came to
        return ""
    found, name = result.drift, result.drift["metric"]
    listens = found["alarms"] is not None
    rows = [_drift_row(i, d, name, listens) for i, d in enumerate(found["drifts"], 1)]
    head = ["drift", "at event", "before", "worst", "dip", "recovered after", "excess errors"]
    head += ["first alarm after", "alarms"]
    caption = (
        "Known drifts. Recovered: as good again as the same pipeline started anew at the drift, "
        f"over {found['span']:,} events; excess errors: those made beyond that pipeline's."
    )
    return _drift_words(found) + table(head, rows, caption) + _probe_words(found)


def _drift_row(i: int, d: Mapping[str, Any], name: str, listens: bool) -> list[str]:
    where = whole(d["start"]) + (f"{wording.TO}{whole(d['end'])}" if d["end"] > d["start"] else "")
    back = "not recovered" if d["recovery"] is None else whole(d["recovery"])
    late = "missed" if listens and d["delay"] is None else whole(d["delay"])
    sizes = [value(name, d["before"]), value(name, d["worst"]), value(name, d["depth"])]
    return [f"drift {i}", where, *sizes, back, plain(d["excess_errors"]), late, whole(d["alarms"])]


def _drift_words(found: Mapping[str, Any]) -> str:
    n, mean, alarms = len(found["drifts"]), found["mean"], found["alarms"]
    text = f"It recovered from {whole(mean['recovered'])} of {counted(n, 'known drift')}"
    if mean["recovery"] is not None:
        text += f", after {whole(mean['recovery'])} events on average"
    if alarms is None:
        return paragraph(f"{text}. There is no drift detector in the pipeline.")
    if not alarms["n"]:
        them = "it" if n == 1 else "all of them"
        return paragraph(f"{text}. The detector raised no alarm, so it missed {them}.")
    text += f". Of {counted(alarms['n'], 'alarm')}, {whole(alarms['false_alarms'])} "
    text += "was false; " if alarms["false_alarms"] == 1 else "were false; "
    text += f"{counted(alarms['misses'], 'drift')} missed"
    if alarms["mean_delay"] is not None:
        text += f"; the mean delay was {whole(alarms['mean_delay'])} events"
    return paragraph(f"{text}.")


def _probe_words(found: Mapping[str, Any]) -> str:
    probes, name = found.get("probes"), found["metric"]
    if not probes:
        return ""
    return paragraph(
        f"On events held out of each concept, never learnt: average anytime "
        f"{metric(name).title.lower()} "
        f"{value(name, probes['average_anytime'])}, worst case {value(name, probes['worst_case'])}."
    )


def _detector(page: Page, result: Result) -> str:
    looks = [x for x in (result.recording or {}).get("pipeline", []) if x.get("mean") is not None]
    if not looks:
        return ""
    rows = [x["row"] for x in looks]
    what = "error rate" if result.task == "classification" else "mean error"
    form = "0%" if result.task == "classification" else "0,0.[000]"
    name = "accuracy" if result.task == "classification" else "mae"
    means = plots.Line("detector's mean", "s0", rows, [x["mean"] for x in looks], dots=True)
    lines = [means]
    if result.curve and name in result.curve:
        smooth = curve_line(result.curve, name, smoothing(result))
        error = [None if v is None else 1.0 - v if name == "accuracy" else v for v in smooth]
        lines.insert(0, plots.Line("error", "s1", result.curve["row"], error, "6 3", 1.8))
    common: dict[str, Any] = {"events": result.events, "marks": marks_of(result), "height": 230}
    first = plots.over_time(lines, unit=what, form=form, floor=0.0, **common)
    wide = [x.get("width") for x in looks]
    out = heading("What the detector saw") + page.figure(
        first,
        f"The {what} that was made, and the mean of what the drift detector keeps in its window, "
        f"read {counted(len(looks), 'time')} (dots): {plain(looks[-1]['mean'])} at the end. "
        f"{_mark_words(result)}",
        _marked(result, [Key("detector's mean", "s0"), Key("error", "s1", "dashed")]),
    )
    if len(looks) < _LOOKS or all(w is None for w in wide):
        return out
    line = plots.Line("window", "s2", rows, wide, dots=True)
    most = max(w for w in wide if w is not None)
    caption = f"Events in the detector's window, {whole(most)} at most: an alarm cuts it off."
    second = plots.over_time([line], unit="events in window", form="0,0", floor=0.0, **common)
    return out + page.figure(second, caption, _marked(result, [Key("window", "s2")]))


# -- features and answers --------------------------------------------------------------------------


def features(page: Page, result: Result) -> str:
    """Which features moved, and when; what is missing."""
    found = result.recording or {}
    listed = found.get("features") or []
    if not listed:
        return ""
    order = sorted(listed, key=lambda f: -(f["size"] or 0.0))
    top = [f for f in order if f["size"]][:_MOST_FEATURES]
    parts = []
    if top:
        scale = max(1.0, float(np.quantile([_most(f) for f in top], 0.9)))
        named = [(f["name"], f["drift"]) for f in top]
        drawn = plots.feature_drift(found["row"], named, min(scale, 4.0))
        keys = [Key("above its mean, or another mix of categories", "s1", "block")]
        keys.append(Key("below its mean", "s0", "block"))
        parts.append(page.figure(drawn, _drift_caption(found, top), keys, always=True))
    parts.append(folded(f"All {len(listed)} features as a table", _feature_table(order, found)))
    return "".join(parts)


def _most(feature: Mapping[str, Any]) -> float:
    return max((abs(z) for z in feature["drift"] if z is not None), default=0.0)


def _drift_caption(found: Mapping[str, Any], top: Sequence[Mapping[str, Any]]) -> str:
    first = top[0]
    row, z = max(
        ((r, z) for r, z in zip(found["row"], first["drift"], strict=True) if z is not None),
        key=lambda pair: abs(pair[1]),
    )
    far = (
        f"{abs(z):.1f} standard deviations {'above' if z > 0 else 'below'} its mean"
        if first["kind"] == "number"
        else f"{percent(z)} of its events in other categories than usual"
    )
    return (
        f"How far each feature lies from its mean over the whole stream, by bin of "
        f"{whole(found['width'])} events; the {len(top)} that move most, of "
        f"{whole(found['n_features'])}. {first['name']} moves most: "
        f"around event {whole(row)}, {far}."
    )


def _feature_table(order: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> str:
    rows = []
    for f in order:
        mean, sd = f.get("overall") or (None, None)
        worst = max(
            ((abs(z), r) for z, r in zip(f["drift"], found["row"], strict=True) if z is not None),
            default=(None, None),
        )
        gone = percent(f["missing_overall"])
        rows.append([f["name"], f["kind"], plain(mean), plain(sd), gone, plain(f["size"])])
        rows[-1] += [plain(worst[0]), whole(worst[1])]
    caption = (
        "Drift of a number is in standard deviations from its mean, of a category the share that "
        f"moved; root mean square over bins, and most. From {whole(found['sampled'])} sampled "
        f"events."
    )
    head = ["feature", "kind", "mean", "sd", "missing", "drift", "most", "at event"]
    return table(head, rows, caption, text=(1,))


def answers(page: Page, result: Result) -> str:
    """What was answered: confusion, or residuals; and how the answers moved."""
    return _confusion(page, result) + _residuals(page, result) + _answered(page, result)


def _confusion(page: Page, result: Result) -> str:
    found = result.confusion
    if not found or not found["counts"]:
        return ""
    names, counts = [str(x) for x in found["labels"]], np.array(found["counts"], dtype=float)
    order = sorted(range(len(names)), key=lambda k: wording.by_number(names[k]))
    labels, counts = [names[k] for k in order], counts[np.ix_(order, order)]
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0.0)
    i, j = np.unravel_index(int(wrong.argmax()), wrong.shape)
    right = float(np.trace(counts))
    caption = (
        f"Rows are true classes, columns are answers; a cell is as dark as its share of its row. "
        f"{whole(right)} of {whole(float(counts.sum()))} events lie on the diagonal."
    )
    if wrong[i, j] > 0:
        caption += (
            f" The commonest mistake: {labels[j]} for {labels[i]}, {whole(wrong[i, j])} times."
        )
    drawn = page.figure(plots.confusion(labels, counts.tolist()), caption, narrow=len(labels) <= 8)
    rows = [[name, *map(whole, row)] for name, row in zip(labels, counts.tolist(), strict=True)]
    cells = table(["true / answered", *labels], rows, "Events by true class and answer.")
    return heading("Confusion") + drawn + folded("The same as a table", cells)


def _residuals(page: Page, result: Result) -> str:
    given = result.residuals or []
    found = [r for r in given if r is not None and math.isfinite(r)]
    if not found:
        return ""
    values = np.array(found)
    with np.errstate(over="ignore", invalid="ignore"):  # of residuals beyond 1e154: undefined
        spread, mean = float(values.std()), float(values.mean())
    low, high = _middle(values, 41)
    counts, edges = np.histogram(values[(values >= low) & (values <= high)], 41, (low, high))
    drawn = plots.histogram(
        edges.tolist(),
        counts.tolist(),
        unit="target minus answer",
        what="events",
        marks={"no error": 0.0} if low <= 0.0 <= high else None,
    )
    side = "too low" if mean > 0 else "too high" if mean < 0 else "right"
    caption = (
        f"Target minus answer on {whole(len(values))} of the last events: mean {plain(mean)} "
        f"(answers were {side} on average), median {plain(float(np.median(values)))}, standard "
        f"deviation {plain(spread)}. The outermost 1 % are left out of the picture."
    )
    return heading("Residuals") + page.figure(drawn, caption)


def _middle(values: F8, bins: int) -> tuple[float, float]:
    """Where all but the outermost 1 % lie, with room for so many bins."""
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (float(q) for q in np.quantile(values, [0.005, 0.995]))
    low, high = max(low, -_LARGEST), min(high, _LARGEST)
    size = max(-low, high)
    if high - low > 4 * bins * np.spacing(size):
        return low, high
    return low - max(0.5, 0.05 * size), high + max(0.5, 0.05 * size)  # as good as one value


def _answered(page: Page, result: Result) -> str:
    found = result.recording or {}
    answer = found.get("answer")
    if not answer:
        return ""
    if "shares" in answer:
        shares = {k: v for k, v in answer["shares"].items() if any(v)}
        if not shares:
            return ""
        drawn = plots.shares_over_time(found["row"], shares)
        keys = [Key(name, _role(k), "block") for k, name in enumerate(shares)]
        common = max(shares, key=lambda k: math.fsum(v or 0.0 for v in shares[k]))
        caption = f"How often each class was answered, by bin of {whole(found['width'])} events; "
        caption += f"most often {common}."
        figure = page.figure(drawn, caption, keys, always=True)
        return heading("Answers over time") + figure
    if all(v is None for v in answer["mean"]):
        return ""
    lines = [plots.Line("answers", "s0", found["row"], _whole_bins(found, answer["mean"]))]
    keys, over = [Key("answers", "s0")], f"answers {plain(answer['overall'][0])}"
    target = found["target"]
    if any(v is not None for v in target.get("mean", [])):
        targets = _whole_bins(found, target["mean"])
        lines.insert(0, plots.Line("targets", "s1", found["row"], targets, "6 3", 1.8))
        keys.append(Key("targets", "s1", "dashed"))
        over += f", targets {plain(target['overall'][0])}"
    drawn = plots.over_time(lines, unit="mean", events=result.events, form="0,0.[000]", height=240)
    caption = f"Means by bin of {whole(found['width'])} events; over all: {over}."
    return heading("Answers over time") + page.figure(drawn, caption, keys)


def _whole_bins(found: Mapping[str, Any], values: Sequence[float | None]) -> list[float | None]:
    """The values without a last bin that has hardly begun."""
    begun = len(values) > 8 and found["n"][-1] < found["width"] / 2
    return [*values[:-1], None] if begun else list(values)


def _role(k: int) -> str:
    return f"s{k}" if k < plots.N_SERIES else "quiet"


def calibration(page: Page, result: Result) -> str:
    """Whether the confidence of answers can be trusted."""
    found = result.calibration
    if not found or not any(found["n"]):
        return ""
    pairs = [
        (n, s, r)
        for n, s, r in zip(found["n"], found["confidence"], found["accuracy"], strict=True)
        if n and s is not None and r is not None
    ]
    n, sure, right = max(pairs, key=lambda p: p[0])
    gap = sum(n * (s - r) for n, s, r in pairs) / sum(n for n, _, _ in pairs)
    way = "surer than it was right" if gap > 0 else "less sure than it was right"
    caption = (
        f"How often an answer was right (up) by how sure it was (right); on the dashed diagonal "
        f"confidence can be taken at its word. The fullest bin has {whole(n)} answers: said "
        f"{percent(sure)}, right {percent(right)}. Over all it was {way}, by {percent(abs(gap))}; "
        f"expected calibration error {value('ece', result.metrics.get('ece'))}. Bars: how many."
    )
    return page.figure(plots.reliability(found), caption, narrow=True)


# -- groups, labels, speed -------------------------------------------------------------------------


def groups(result: Result) -> str:
    """Every group's metrics, largest first."""
    if not result.by_group:
        return ""
    name = main_metric(result)
    order = sorted(result.by_group.items(), key=lambda pair: -(pair[1].get("scored") or 0))
    shown = [m for m in result.metrics if any(g.get(m) is not None for _, g in order)][:6]
    rows = [
        [str(group), whole(g.get("scored")), *(value(m, g.get(m)) for m in shown)]
        for group, g in order
    ]
    known = [(g.get(name), str(k)) for k, g in order if g.get(name) is not None]
    text = ""
    if len(known) > 1:
        (low, low_at), (high, high_at) = min(known), max(known)
        text = f"{metric(name).title} lies between {value(name, low)} ({low_at}) and "
        text += f"{value(name, high)} ({high_at})."
    head = ["group", "scored", *(metric(m).title for m in shown)]
    return paragraph(text) + table(head, rows, f"{counted(len(rows), 'group')}, largest first.")


def delay(page: Page, result: Result) -> str:
    """How late labels came, what became of them, and what that does to the metric."""
    if not result.labels and not result.delayed:
        return ""
    return _delays(page, result.labels or {}) + _fates(result) + _bookings(page, result)


_FATE_WORDS = {
    "told": "their label came",
    "assumed": "a label was assumed",
    "expired": "no label came in time",
}


def _fates(result: Result) -> str:
    """How events whose labels came differ from the others; nothing where there are no others."""
    found = dict((result.delayed or {}).get("fates") or {})
    estimated = found.pop("estimated_accuracy", None)
    present = {fate: row for fate, row in found.items() if row["events"]}
    if not set(present) - {"told"}:
        return ""
    names = [name for name in next(iter(present.values())) if name != "events"]
    shares = result.task == "classification"
    rows = [
        [
            _FATE_WORDS[fate],
            whole(row["events"]),
            *((percent if shares else plain)(row[name]) for name in names),
        ]
        for fate, row in present.items()
    ]
    text = "Accuracy is known only where labels came. "
    if estimated is not None:
        text += f"If confidence misleads as much elsewhere, it is {percent(estimated)} over all."
    note = "Answered events, by what became of their label."
    return paragraph(text if shares else "") + table(["events", "number", *names], rows, note)


_LABEL_WORDS = {
    "labelled": "labels that came",
    "pending": "still to come",
    "unlabelled": "never get a label",
    "expired": "timed out",
    "assumed": "assumed after the time-out",
    "late": "came after the time-out",
    "contradicted": "contradicted what was assumed",
    "duplicates": "second label for an id",
    "unknown": "label for an unknown id",
    "early": "came before their event",
    "evicted": "dropped, too many pending",
}


def _delays(page: Page, found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    pairs = [("events", whole(found.get("events")))]
    pairs += [
        (w, whole(found[k])) for k, w in _LABEL_WORDS.items() if isinstance(found.get(k), int)
    ]
    rows, seconds = found.get("rows") or {}, found.get("seconds") or {}
    out = facts(pairs)
    bins = found.get("histogram") or {}
    if len(bins.get("rows", [])) > 1 and rows["max"] > 1.2 * rows["p50"]:
        edges = _edges(bins["rows"])
        drawn = plots.histogram(
            edges, _filled(bins["rows"], bins["labels"], edges), unit="delay in events",
            what="labels", log=True,
        )  # fmt: skip
        out += page.figure(drawn, _delay_words(rows, seconds))
    elif rows:
        out += paragraph(_delay_words(rows, seconds))
    return out


def _edges(low: Sequence[float]) -> list[float]:
    """Edges of some 40 bars, equal on a log scale."""
    first, last = max(0.9, min(low)), max(*low, 1.0) * 1.07
    return [float(x) for x in np.geomspace(first, max(last, first * 1.2), 41)]


def _filled(low: Sequence[float], counts: Sequence[float], edges: Sequence[float]) -> list[float]:
    found, _ = np.histogram(np.maximum(low, edges[0]), np.array(edges), weights=counts)
    return [float(n) for n in found]


def _count(events: float | None) -> str:
    return whole(events) if events is not None and events.is_integer() else plain(events)


def _delay_words(rows: Mapping[str, Any], seconds: Mapping[str, Any]) -> str:
    text = (
        f"Labels came {_count(rows.get('p50'))} events after their event (median); the mean is "
        f"{_count(rows.get('mean'))}, one in a hundred took {_count(rows.get('p99'))} or more, the "
        f"slowest {_count(rows.get('max'))}."
    )
    if seconds:
        text += f" In time: median {wording.seconds(seconds.get('p50'))}, mean "
        text += f"{wording.seconds(seconds.get('mean'))}, at most "
        text += f"{wording.seconds(seconds.get('max'))}."
    return text


def _bookings(page: Page, result: Result) -> str:
    name, found = main_metric(result), result.delayed
    if not found:
        return ""
    rows = [
        [
            words,
            value(name, found[k]["windowed"].get(name)),
            value(name, found[k]["fading"].get(name)),
        ]
        for k, words in (
            ("scoring_time", "by scoring time\nthe event's place in the stream"),
            ("label_time", "by label time\nwhen its label came"),
        )
    ]
    text = f"{metric(name).title} of the last events, booked in two ways."
    out = table([metric(name).title, "last events", "fading"], rows, text)
    if not result.label_curve or name not in result.label_curve or not drawable(result):
        return out
    least = smoothing(result)
    lines = [
        plots.Line("by label time", "s1", result.label_curve["row"],
                   curve_line(result.label_curve, name, least), "6 3", 1.8),
        plots.Line("by scoring time", "s0", result.curve["row"],
                   curve_line(result.curve, name, least)),
    ]  # fmt: skip
    form = "0%" if metric(name).percent else "0,0.[000]"
    drawn = plots.over_time(
        lines, unit=metric(name).title, events=result.events, marks=marks_of(result), form=form
    )
    caption = f"{metric(name).title} where the events stand in the stream, and where their labels "
    caption += "came: what a dashboard could have known at the time. The last events: "
    caption += " and ".join(f"{row[1]} {row[0].partition(chr(10))[0]}" for row in rows) + "."
    keys = [Key("by scoring time", "s0"), Key("by label time", "s1", "dashed")]
    return page.figure(drawn, caption, _marked(result, keys)) + out


def speed(page: Page, result: Result) -> str:
    """Events a second, and bytes of state, over the stream."""
    found = result.recording
    own = (
        f"{whole(result.events_per_second)} events a second over {wording.seconds(result.seconds)}"
    )
    if result.resumed_at:
        own += f", from event {whole(result.resumed_at)} on"
    text = f"{own}; the state takes {wording.size(result.state_bytes)}."
    if not found or not found["row"]:
        return paragraph(text)
    looks = [(x["row"], x["bytes"]) for x in found["pipeline"]]
    spent = math.fsum(found["seconds"])
    alone = whole(found["events"] / spent) if spent > 0 else wording.NONE
    caption = (
        f"Speed of the pipeline alone, without reading and measuring: {alone} events a second."
    )
    if len(looks) < _LOOKS:
        return paragraph(text) + paragraph(caption)
    pairs = zip(found["n"], found["seconds"], strict=True)
    rate = _whole_bins(found, [n / s if s > 0 else None for n, s in pairs])
    line = plots.Line("pipeline", "s0", found["row"], rate)
    first = plots.over_time(
        [line], unit="events a second", events=result.events, form="0,0", floor=0.0, height=220
    )
    kib = [b / 1024 for _, b in looks]
    size = plots.Line("state", "s2", [row for row, _ in looks], kib)
    second = plots.over_time(
        [size], unit="KiB of state", events=result.events, form="0,0.[0]", floor=0.0, height=220
    )
    grown = f"State of the pipeline: {wording.size(looks[0][1])} at first, "
    grown += f"{wording.size(max(b for _, b in looks))} at most, "
    grown += f"{wording.size(looks[-1][1])} when last looked at."
    return paragraph(text) + columns(page.figure(first, caption), page.figure(second, grown))


def _told(settings: Any) -> Any:
    """Settings without those that are not set."""
    if not isinstance(settings, Mapping):
        return settings
    return {k: _told(v) for k, v in settings.items() if v is not None and v != []}


def setup(result: Result) -> str:
    """Model, settings, columns and versions: what one needs to do it again."""
    stages = result.config.get("pipeline") if isinstance(result.config, Mapping) else None
    model = "\n".join(str(stage) for stage in stages) if stages else result.model
    rest = {k: v for k, v in result.config.items() if k != "pipeline"}
    parts = [heading("Pipeline"), listing(model)]
    if rest:
        parts += [heading("Settings"), listing(json.dumps(_told(rest), indent=2, default=str))]
    schema = json.dumps(result.schema, indent=2, default=str)
    parts += [heading("Columns"), folded("The schema as it was read", listing(schema))]
    rows = [[name, version] for name, version in result.versions.items()]
    parts += [heading("Versions"), table(["what", "version"], rows, "What ran.", text=(1,))]
    return "".join(parts)
