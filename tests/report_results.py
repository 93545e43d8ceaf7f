"""Results to report on, made by hand: what is in them is known without running anything."""

from typing import Any, NamedTuple

import numpy as np

from streamlearn.paired import Difference
from streamlearn.result import Result

NASTY = "<img src=x onerror=alert(1)></script>"
BINS = 60
WIDTH = 200


def curve(level: float, **baselines: float) -> dict[str, Any]:
    """Accuracy that waves around a level, in 60 bins of 200 events."""
    wave = 0.05 * np.sin(np.arange(BINS) / 4.0)
    rows = [WIDTH * (i + 1) - 1 for i in range(BINS)]
    found: dict[str, Any] = {"row": rows, "n": [WIDTH] * BINS}
    found["accuracy"] = (level + wave).tolist()
    found["baselines"] = {
        name: {"accuracy": (value - wave).tolist()} for name, value in baselines.items()
    }
    return found


def recording() -> dict[str, Any]:
    """Two features, one of them a category; a detector that was read three times."""
    bins = 12
    rows = [1000 * (i + 1) - 1 for i in range(bins)]
    drift = [-1.0] * 6 + [1.0] * 6
    number: dict[str, Any] = {
        "name": "temperature",
        "kind": "number",
        "missing": [0.0] * bins,
        "drift": drift,
    }
    number |= {"mean": drift, "sd": [1.0] * bins, "overall": [0.0, 1.0], "size": 1.0}
    number |= {"missing_overall": 0.25}
    shares = {NASTY: [0.5] * bins, "plain": [0.5] * bins}
    category: dict[str, Any] = {
        "name": NASTY,
        "kind": "category",
        "missing": [0.0] * bins,
        "shares": shares,
    }
    category |= {"drift": [0.125] * bins, "size": 0.125, "missing_overall": 0.0}
    looks = [
        {"row": r, "bytes": 1024 * (i + 1), "mean": 0.1 * i, "width": 500.0 * i}
        for i, r in enumerate((999, 5999, 11999))
    ]
    return {
        "events": 12_000, "width": 1000, "row": rows, "n": [1000] * bins, "sampled": 12_000,
        "seconds": [0.001] * bins, "alarms": [0] * bins, "pipeline": looks, "n_features": 2,
        "features": [number, category], "answer": category | {"name": "prediction"},
        "target": category | {"name": "target"},
    }  # fmt: skip


def drift_result() -> dict[str, Any]:
    """Two known drifts: one that was recovered from and found, one neither."""
    first: dict[str, Any] = {
        "start": 4000,
        "end": 4000,
        "rows": 5000,
        "before": 0.9,
        "worst": 0.5,
        "depth": 0.4,
    }
    first |= {"recovery": 312, "excess_errors": 40.0, "area": 50.0, "after": 0.8, "reference": 0.85}
    first |= {"delay": 96, "alarms": 1}
    second = first | {"start": 9000, "end": 9500, "recovery": None, "delay": None, "alarms": 0}
    return {
        "task": "classification", "metric": "accuracy", "events": 12_000, "window": 1000,
        "span": 200, "tolerance": 2000, "drifts": [first, second],
        "mean": {"depth": 0.4, "recovery": 312.0, "recovered": 1, "excess_errors": 40.0},
        "alarms": {"n": 2, "false_alarms": 1, "misses": 1, "mean_delay": 96.0}, "probes": None,
    }  # fmt: skip


def classified(name: str = "data.csv", level: float = 0.896, **changes: Any) -> Result:
    """A classification of two classes, one of them with a name that is HTML."""
    metrics: dict[str, float | None] = {"accuracy": level, "log_loss": 0.25, "roc_auc": None}
    majority: dict[str, Any] = {"accuracy": 0.575, "log_loss": 0.68, "roc_auc": None}
    no_change = {"accuracy": 0.853, "log_loss": 5.0, "roc_auc": None}
    edges = np.linspace(0.0, 1.0, 16).tolist()
    empty: list[float | None] = [None] * 14
    given: dict[str, Any] = {
        "events": 12_000, "task": "classification", "target": "class", "metrics": metrics,
        "windowed": metrics, "fading": metrics,
        "baselines": {"no_change": no_change, "majority": majority}, "alarms": [4096, 9999],
        "n_alarms": 2, "seconds": 0.5, "events_per_second": 24_000.0, "state_bytes": 6554,
        "model": "Pipeline(Normalizer(), KalmanClassifier(), ADWIN())", "schema": {"x": NASTY},
        "dead_letters": 3, "scored": 11_999, "unanswered": 1,
        "per_class": {NASTY: {"scored": 5000, "recall": 0.9}, "plain": {"scored": 6999}},
        "name": name, "curve": curve(level, no_change=0.853, majority=0.575),
        "calibration": {"edges": edges, "n": [0] * 14 + [11_999],
                        "confidence": [*empty, 0.95], "accuracy": [*empty, 0.9]},
        "confusion": {"labels": [NASTY, "plain"], "counts": [[4500, 500], [300, 6699]]},
        "by_group": {NASTY: {"scored": 7000, "accuracy": 0.9}, "b": {"scored": 5, "accuracy": 0.2}},
        "known_drifts": [[4000, 4000], [9000, 9500]], "drift": drift_result(),
        "recording": recording(), "config": {"pipeline": ["KalmanClassifier()"], "note": NASTY},
        "versions": {"streamlearn": "0"},
    }  # fmt: skip
    return Result(**(given | changes))


def late(**changes: Any) -> Result:
    """A classification whose labels came late."""
    views = {"windowed": {"accuracy": 0.9}, "fading": {"accuracy": 0.91}}
    labels = {
        "delay": "100", "events": 12_000, "labelled": 11_900, "pending": 100, "unlabelled": 0,
        "rows": {"mean": 40.0, "p50": 30.0, "p99": 95.0, "max": 100.0},
        "seconds": {"mean": 7200.0, "p50": 3600.0, "p99": 86400.0, "max": 90000.0},
        "histogram": {"rows": [10.0, 30.0, 90.0], "labels": [1900, 8000, 2000]},
    }  # fmt: skip
    delayed = {"label_time": views, "scoring_time": views, "pending": 100}
    given = {"labels": labels, "delayed": delayed, "label_curve": curve(0.88)}
    return classified(**(given | changes))


def regressed(**changes: Any) -> Result:
    """A regression with residuals, without anything else."""
    metrics = {"mae": 4.894, "rmse": 6.786, "coverage": 0.68}
    rows = [WIDTH * (i + 1) - 1 for i in range(BINS)]
    values = {"mae": [5.0] * BINS, "rmse": [7.0] * BINS, "coverage": [0.7] * BINS}
    baselines = {"no_change": {"mae": 7.878}, "mean": {"mae": 7.259}}
    drawn = {"row": rows, "n": [WIDTH] * BINS, **values}
    drawn["baselines"] = {"no_change": {"mae": [8.0] * BINS}}
    given: dict[str, Any] = {
        "task": "regression", "target": "bikes", "metrics": metrics, "windowed": metrics,
        "fading": metrics, "baselines": baselines, "alarms": [], "n_alarms": 0, "per_class": {},
        "curve": drawn, "calibration": None, "confusion": None, "by_group": {}, "drift": None,
        "known_drifts": [], "recording": None, "model": "KalmanRegressor()",
        "residuals": [-1.0, 0.0, 3.0] * 50,
    }  # fmt: skip
    return classified(**(given | changes))


class Compared(NamedTuple):
    """A comparison: what the report reads of one."""

    differences: list[Difference]
    errors: dict[str, str]


def compared() -> tuple[list[Result], Compared]:
    """Two pipelines and one that failed."""
    course: dict[str, list[float | None]] = {
        "row": [100, 200, 300], "difference": [0.1, 0.07, 0.06], "low": [None, 0.02, 0.03],
        "high": [None, 0.12, 0.09],
    }  # fmt: skip
    back = {k: [None if v is None else -v for v in c] for k, c in course.items()} | {
        "row": course["row"]
    }
    one = Difference("fast", NASTY, 300, 0.06, 0.03, 0.09, "better", 20, 2, 1.0, -1.0, course)
    other = Difference(NASTY, "fast", 300, -0.06, -0.09, -0.03, "worse", 2, 20, -1.0, 1.0, back)
    results = [classified(NASTY, 0.836), classified("fast", 0.896)]
    return results, Compared([other, one], {"broken": f"ValueError: {NASTY}"})
