"""Numbers and names in plain words, for reports: what a metric is called and how a value reads."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from streamlearn.contracts import Json

NONE, MINUS, TO = "\u2013", "\u2212", "\u2013"  # an en dash for what is undefined
SPACE = "\u00a0"  # no line is broken there


class Metric(NamedTuple):
    """How a metric reads. percent: shown in percent. up: larger is better, None: neither is.

    mean: an n-weighted mean of values over parts of a stream is the value over the whole.
    """

    title: str
    percent: bool
    up: bool | None
    mean: bool
    meaning: str


METRICS: dict[str, Metric] = {
    "accuracy": Metric("Accuracy", True, True, True, "share of events answered rightly"),
    "balanced_accuracy": Metric("Balanced accuracy", True, True, False, "mean recall of classes"),
    "kappa": Metric("Kappa", False, True, False, "agreement above that of independent draws"),
    "kappa_t": Metric("Kappa-T", False, True, False, "accuracy above repeating the last label"),
    "kappa_m": Metric("Kappa-M", False, True, False, "accuracy above the most frequent class"),
    "log_loss": Metric("Log loss", False, False, True, "surprise at the true class"),
    "brier": Metric("Brier score", False, False, True, "squared error of the probabilities"),
    "ece": Metric("Calibration error", True, False, False, "gap of confidence and accuracy"),
    "macro_f1": Metric("Macro F1", False, True, False, "mean F1 of the classes"),
    "roc_auc": Metric("ROC AUC", False, True, False, "pairs ranked in the right order"),
    "average_precision": Metric("Average precision", False, True, False, "area under precision"),
    "set_coverage": Metric("Set coverage", True, None, True, "classes within the set"),
    "set_size": Metric("Set size", False, False, True, "mean number of classes in the set"),
    "mae": Metric("Mean absolute error", False, False, True, "how far off on average"),
    "rmse": Metric("Root mean squared error", False, False, False, "large errors count more"),
    "r2": Metric("R²", False, True, False, "share of the variance explained"),
    "smape": Metric("sMAPE (%)", False, False, True, "symmetric error in percent"),
    "mase": Metric("MASE", False, False, False, "error over that of seasonal no-change"),
    "pinball": Metric("Pinball loss", False, False, True, "of both ends of the interval"),
    "coverage": Metric("Interval coverage", True, None, True, "targets within the interval"),
    "width": Metric("Interval width", False, False, True, "mean width of the interval"),
    "exact_match": Metric("Exact match", True, True, True, "all labels of an event right"),
    "hamming_loss": Metric("Hamming loss", False, False, True, "share of labels that are wrong"),
    "micro_f1": Metric("Micro F1", False, True, False, "F1 over all labels together"),
    "jaccard": Metric("Jaccard", False, True, True, "labels shared over labels named"),
}
BASELINES = {
    "no_change": "always repeating the last label",
    "majority": "always saying the most frequent class",
    "mean": "always saying the mean so far",
    "chance": "chance",
}
SHORT_BASELINES = {
    "no_change": "last label",
    "majority": "most frequent",
    "mean": "mean so far",
    "chance": "chance",
}
_VALUE_BASELINES = {"no_change": "always repeating the last value"}
_SHORT_VALUES = {"no_change": "last value"}


def metric(name: str) -> Metric:
    """How a metric reads; one that is not known goes by its name."""
    return METRICS.get(name) or Metric(name.replace("_", " "), False, None, False, "")


def baseline(name: str, task: str, short: bool = False) -> str:
    """What a baseline does, in words."""
    words, values = (SHORT_BASELINES, _SHORT_VALUES) if short else (BASELINES, _VALUE_BASELINES)
    found = (values.get(name) if task == "regression" else None) or words.get(name)
    return found or name.replace("_", " ")


def value(name: str, number: float | None) -> str:
    """A metric's value: `89.6 %`, `0.4123`, a dash for what is undefined."""
    if number is None or not math.isfinite(number):
        return NONE
    return percent(number) if metric(name).percent else plain(number)


def percent(share: float | None) -> str:
    """`89.6 %` (no line is broken within); more digits close to 0 and 100."""
    if share is None or not math.isfinite(share):
        return NONE
    digits = 2 if 0.0 < abs(share) < 0.005 or 0.995 < share < 1.0 else 1
    return f"{100.0 * share:.{digits}f}{SPACE}%"


def plain(number: float | None) -> str:
    """Four significant digits, thousands separated; a dash for what is undefined."""
    if number is None or not math.isfinite(number):
        return NONE
    size = abs(number)
    if number == 0.0:
        return "0"
    if size >= 1e9 or size < 1e-4:
        return f"{number:.3e}"
    digits = max(0, min(4, 3 - math.floor(math.log10(size))))
    return f"{number:,.{digits}f}"


def whole(count: float | None) -> str:
    """`45,312`; a dash for what is undefined."""
    return NONE if count is None else f"{count:,.0f}"


def counted(count: int, word: str) -> str:
    """`1 alarm`, `2 alarms`, `no alarms`."""
    return f"{'no' if count == 0 else whole(count)} {word}{'' if count == 1 else 's'}"


def swap_words(count: int) -> str:
    """How often another version of the model took over."""
    return f"{counted(count, 'change')} of the model that serves: promoted or rolled back"


def by_number(name: str) -> list[tuple[int, float, str]]:
    """A key that sorts names with numbers in them as people do: k2 before k10."""
    parts = re.split(r"(\d+)", name, maxsplit=20)
    return [(0, float(p), "") if p.isdecimal() else (1, 0.0, p) for p in parts if p]


def size(count: float) -> str:
    """Bytes in a unit that reads well."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def seconds(duration: float | None) -> str:
    """A duration in a unit that reads well."""
    if duration is None:
        return NONE
    units = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))
    for length, unit in units:
        if duration >= length:
            return f"{duration / length:,.1f} {unit}"
    return f"{duration * 1e6:,.1f} µs"


def model_name(text: str) -> str:
    """The predictor of a pipeline as text: its last stage but for drift detectors."""
    from streamlearn import operators  # compiled kernels: a report of numbers alone needs none
    from streamlearn.operators._base import Detector

    inner = re.sub(r"^Pipeline\((.*)\)$", r"\1", text.strip(), flags=re.DOTALL)
    while (flat := re.sub(r"\([^()]*\)", "", inner)) != inner:  # arguments, from within
        inner = flat
    known = operators.exported()
    names = re.findall(r"\w+", inner)
    names = [name for name in names if not issubclass(known.get(name, object), Detector)]
    return names[-1] if names else text


def headline(who: str, task: str, scored: int, metrics: Mapping[str, Json]) -> str:
    """How well someone did, as the beginning of a sentence."""
    name = next(iter(metrics), "")
    shown, events = value(name, metrics.get(name)), counted(scored, "event")
    if metrics.get(name) is None:
        return f"{who} was scored on {events}"
    told = {
        "accuracy": f"{who} was right on {shown} of {events}",
        "mae": f"{who} was off by {shown} on average over {events}",
        "exact_match": f"{who} had every label right on {shown} of {events}",
        "roc_auc": f"{who} ranked an anomaly above an ordinary event in {percent(metrics[name])}"
        f" of the pairs, over {events}",
    }
    return told.get(name, f"{who} reached {metric(name).title} {shown} over {events}")


def verdict(name: str, own: float | None, others: Sequence[float | None]) -> tuple[str, str]:
    """Whether a value beats those of the baselines: (good, bad or mixed; words)."""
    known = [other for other in others if other is not None]
    up = metric(name).up
    if own is None or not known or up is None:
        return "", ""
    beaten = sum(own > other if up else own < other for other in known)
    if beaten == len(known):
        return "good", "better than " + ("both baselines" if len(known) == 2 else "the baseline")
    if beaten:
        return "mixed", "better than one baseline only"
    return "bad", "not better than the baselines"


def rolled(values: Sequence[float | None], n: Sequence[float], least: float) -> list[float | None]:
    """n-weighted means over as many of the last bins as hold at least so many events."""
    out: list[float | None] = []
    first, total, count = 0, 0.0, 0.0
    weighted = [0.0 if v is None else v * k for v, k in zip(values, n, strict=True)]
    counts = [0.0 if v is None else float(k) for v, k in zip(values, n, strict=True)]
    for i in range(len(values)):
        while first < i and sum(counts[first + 1 : i + 1]) >= least:
            first += 1
        total, count = math.fsum(weighted[first : i + 1]), sum(counts[first : i + 1])
        out.append(total / count if count else None)
    return out


def extremes(
    rows: Sequence[int], values: Sequence[Any]
) -> tuple[tuple[int, float], tuple[int, float]] | None:
    """(row, value) of the least and of the largest value, None where there is none."""
    known = [(row, v) for row, v in zip(rows, values, strict=True) if v is not None]
    if not known:
        return None
    return min(known, key=lambda pair: pair[1]), max(known, key=lambda pair: pair[1])
