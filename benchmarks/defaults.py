"""How defaults are chosen: `python -m benchmarks.defaults CLASS [argument=value,value …]`.

Every candidate is replayed over the tuning streams, one argument at a time around the defaults. The
table shows the primary metric a stream (accuracy, or R2) and the mean rank; log loss decides where
ranks are equal. Without arguments on the command line, those of the family's CANDIDATES are tried.
"""

import argparse
import math
import statistics
from collections.abc import Iterator
from typing import Any

import yaml

import streamlearn
from benchmarks import families, tables, tuning_streams
from streamlearn import operators

Row = dict[str, tuple[float, float]]  # by stream: the metric, and the loss


def tried(kind: str, arguments: dict[str, list[Any]]) -> Iterator[tuple[str, Row]]:
    """Each candidate with what it scored."""
    task = "regression" if kind.endswith("Regressor") else "classification"
    found = getattr(operators, kind)
    streams = list(
        tuning_streams.classes() if task == "classification" else tuning_streams.numbers()
    )
    yield "defaults", {s.name: scored(kind, {}, task, s) for s in streams}
    for argument, values in arguments.items():
        for value in values:
            if value != getattr(found(), argument):
                row = {s.name: scored(kind, {argument: value}, task, s) for s in streams}
                yield f"{argument}={value}", row


def scored(
    kind: str, arguments: dict[str, Any], task: str, stream: tuning_streams.Tuning
) -> tuple[float, float]:
    """Accuracy and log loss, or R2 and MAE, of one candidate on one stream."""
    result = streamlearn.replay(model=kind, set=arguments, task=task, **stream.arguments)
    names = ("accuracy", "log_loss") if task == "classification" else ("r2", "mae")
    metric, loss = (result.metrics[name] for name in names)
    return (math.nan if metric is None else metric), (math.nan if loss is None else loss)


def ranked(rows: dict[str, Row]) -> list[tuple[str, ...]]:
    """Cells: candidate, metric and loss a stream, mean rank of the metric."""
    names = list(next(iter(rows.values())))
    ranks: dict[str, list[float]] = {candidate: [] for candidate in rows}
    for name in names:
        for candidate, row in rows.items():
            better = sum(other[name][0] > row[name][0] for other in rows.values())
            ranks[candidate].append(1 + better)
    return [
        (
            candidate,
            *(f"{row[name][0]:.4f} {row[name][1]:.3g}" for name in names),
            f"{statistics.mean(ranks[candidate]):.2f}",
        )
        for candidate, row in rows.items()
    ]


def main() -> None:
    """Try, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.defaults", description=__doc__)
    parser.add_argument("kind", help="class name of an operator")
    parser.add_argument("arguments", nargs="*", help="argument=value,value")
    given = parser.parse_args()
    arguments = {}
    for text in given.arguments:
        name, _, values = text.partition("=")
        arguments[name] = [yaml.safe_load(value) for value in values.split(",")]
    if not arguments:
        for module in families.modules():
            arguments |= getattr(module, "CANDIDATES", {}).get(given.kind, {})
    rows = dict(tried(given.kind, arguments))
    names = list(next(iter(rows.values())))
    print(tables.markdown(("candidate", *names, "mean rank"), ranked(rows)))


if __name__ == "__main__":
    main()
