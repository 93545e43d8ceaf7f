"""Metrics of real streams equal a plain Python loop over the predictions that were written."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from streamlearn import Result, replay

pytestmark = pytest.mark.jit
CLASSIFIED = {
    "electricity": "class",
    "covertype": "Cover_Type",
    "lobo_sine_abrupt": "class",
    "lobo_mixed_gradual": "class",
    "lobo_randomtree_abrupt": "class",
    "lobo_sea_gradual": "class",
    "lobo_stagger_abrupt": "class",
}


def replayed(
    path: Path, target: str, folder: Path, **options: Any
) -> tuple[Result, Any, list[Any]]:
    """The result, the rows of the predictions file, and the labels of the data."""
    out = folder / "predictions.parquet"
    result = replay(str(path), target=target, predictions=out, **options)
    return result, pq.read_table(out).to_pydict(), pq.read_table(path)[target].to_pylist()


def close(found: Any, expected: float) -> bool:
    return math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-12)


class ClassificationLoop:
    """Sums of a prequential loop, one row at a time, as a textbook has them."""

    def __init__(self) -> None:
        self.n = self.hits = self.changes = self.unusual = 0
        self.truths: Counter[Any] = Counter()
        self.said: Counter[Any] = Counter()
        self.right: Counter[Any] = Counter()
        self.losses: list[float] = []
        self.briers: list[float] = []
        self.bins: list[list[float]] = [[0.0, 0.0, 0.0] for _ in range(15)]

    def add(self, y: Any, said: Any, p: dict[Any, float], last: Any, majority: Any) -> None:
        self.n += 1
        self.hits += y == said
        self.changes += y != last
        self.unusual += y != majority
        self.truths[y] += 1
        self.said[said] += 1
        self.right[y] += y == said
        self.losses.append(-math.log(min(1.0, max(p.get(y, 0.0), 1e-15))))
        squares = [(q - (k == y)) ** 2 for k, q in p.items()]
        self.briers.append(0.5 * math.fsum(squares + ([] if y in p else [1.0])))
        sure = p[said]
        chosen = self.bins[min(14, int(sure * 15))]
        chosen[0] += 1
        chosen[1] += sure
        chosen[2] += y == said

    def metrics(self) -> dict[str, float]:
        n, accuracy = self.n, self.hits / self.n
        chance = sum(self.truths[k] * self.said[k] for k in self.truths) / n**2
        recalls = [self.right[k] / self.truths[k] for k in self.truths]
        ece = sum(abs(sure - hit) for _, sure, hit in self.bins) / n
        return {
            "accuracy": accuracy,
            "balanced_accuracy": math.fsum(recalls) / len(recalls),
            "kappa": (accuracy - chance) / (1 - chance),
            "kappa_t": 1 - (n - self.hits) / self.changes,
            "kappa_m": 1 - (n - self.hits) / self.unusual,
            "log_loss": math.fsum(self.losses) / n,
            "brier": math.fsum(self.briers) / n,
            "ece": ece,
        }


@pytest.mark.parametrize("name", CLASSIFIED)
def test_classification_metrics_equal_a_loop_over_the_predictions(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    path = shared_data / f"{name}.parquet"
    result, rows, labels = replayed(path, CLASSIFIED[name], tmp_path)
    loop, before, last = ClassificationLoop(), Counter[Any](), None
    order: dict[Any, int] = {}  # class codes, in order of appearance, break ties
    columns = {label: rows.get(f"p_{label}") for label in dict.fromkeys(labels)}
    for t, (y, said) in enumerate(zip(labels, rows["prediction"], strict=True)):
        if said is not None:
            p = {k: c[t] for k, c in columns.items() if c is not None and k in order}
            usual = max(before, key=lambda k: (before[k], -order[k])) if before else None
            loop.add(y, said, p, last, usual)
        order.setdefault(y, len(order))
        before[y] += 1
        last = y
    assert result.scored == loop.n
    assert result.unanswered == len(labels) - loop.n
    for metric, expected in loop.metrics().items():
        assert close(result.metrics[metric], expected), (metric, result.metrics[metric], expected)
    for label, found in result.per_class.items():
        k = next(k for k in order if str(k) == label)
        assert close(found["recall"], loop.right[k] / loop.truths[k])
        if loop.said[k]:
            assert close(found["precision"], loop.right[k] / loop.said[k])


def test_regression_metrics_equal_a_loop_over_the_predictions(
    shared_data: Path, tmp_path: Path
) -> None:
    path = shared_data / "toulouse_bikes.parquet"
    result, rows, labels = replayed(path, "bikes", tmp_path, task="regression")
    pairs = [
        (float(y), p) for y, p in zip(labels, rows["prediction"], strict=True) if p is not None
    ]
    errors = [y - p for y, p in pairs]
    mean = math.fsum(y for y, _ in pairs) / len(pairs)
    squares = math.fsum(e * e for e in errors)
    naive = [abs(a - b) for a, b in zip(labels[1:], labels, strict=False)]
    assert len(pairs) == len(labels), "a regressor answers from the first row on"
    expected = {
        "mae": math.fsum(map(abs, errors)) / len(errors),
        "rmse": math.sqrt(squares / len(errors)),
        "r2": 1 - squares / math.fsum((y - mean) ** 2 for y, _ in pairs),
        "smape": 100
        * math.fsum(2 * abs(y - p) / (abs(y) + abs(p)) if y or p else 0.0 for y, p in pairs)
        / len(pairs),
    }
    for metric, value in expected.items():
        assert close(result.metrics[metric], value), (metric, result.metrics[metric], value)
    no_change = result.baselines["no_change"]["mae"]
    assert close(no_change, math.fsum(naive) / len(naive))
    model_where_both = math.fsum(map(abs, errors[1:])) / len(naive)
    assert close(result.metrics["mase"], model_where_both / no_change)
