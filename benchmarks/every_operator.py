"""`make results`: every model with its defaults on every stream, into docs/results.md."""

import math
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import streamlearn
from benchmarks import pages, real, tables
from benchmarks.real import Stream
from streamlearn import operators
from streamlearn.errors import UserError
from streamlearn.operators._base import Classifier, Regressor, Scorer

ABOUT = """\
`make results` writes this page: every model that this package has, with its defaults, behind the
default pipeline (gaps filled, categories one-hot, numbers normalised), predict then learn, event by
event. Microseconds are the processor time of a whole replay divided by its events: reading,
transforming, scoring, learning and measuring. `NoChange` answers with the last label, `Majority`
and `Mean` with what was most frequent, or the mean, so far. A model whose accuracy is below
`NoChange` has not shown that it learnt."""
CLASSES = ("accuracy", "kappa", "log_loss")
NUMBERS = ("mae", "r2")
SCORES = ("roc_auc",)
Cells = tuple[str, ...]


def models(base: type[Any]) -> Iterator[str]:
    """Names of the exported models of one kind; `Adaptive` takes one, and is shown with it."""
    for name, kind in operators.exported().items():
        if issubclass(kind, base) and not name.startswith("Adaptive"):
            yield name


def replayed(name: str, stream: Stream, metrics: Sequence[str]) -> tuple[dict[str, float], float]:
    """Metrics of one model on one stream, and microseconds an event, kernels loaded before."""
    arguments: dict[str, Any] = {"data": str(stream.path), "target": stream.target}
    if stream.ignore:
        arguments["ignore"] = stream.ignore
    streamlearn.replay(model=name, limit=300, **arguments)
    start = time.process_time()
    result = streamlearn.replay(model=name, **arguments)
    seconds = time.process_time() - start
    found = {m: _number(result.metrics[m]) for m in metrics}
    return found, 1e6 * seconds / result.events


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def table(stream: Stream, base: type[Any], metrics: Sequence[str]) -> list[Cells]:
    """A row a model."""
    rows = []
    for name in models(base):
        try:
            found, us = replayed(name, stream, metrics)
        except (UserError, ValueError) as error:
            print(f"{stream.name}, {name}: {error}", file=sys.stderr)
            continue
        cells = (name, *(f"{found[m]:.4g}" if abs(found[m]) < 1e4 else f"{found[m]:.3g}"
                         for m in metrics), f"{us:.2f}")  # fmt: skip
        print(stream.name, *cells, flush=True)
        rows.append(cells)
    return rows


def matrix(found: dict[str, list[Cells]], head: str) -> str:
    """The first metric of all streams: a row a stream, a column a model."""
    names = sorted({row[0] for rows in found.values() for row in rows})
    lines = []
    for stream, rows in found.items():
        by_name = {row[0]: row[1] for row in rows}
        lines.append((stream, *(by_name.get(name, "") for name in names)))
    short = [name.removesuffix("Classifier").removesuffix("Regressor") for name in names]
    return tables.markdown((head, *short), lines)


def parts(
    title: str, kinds: Sequence[Stream], base: type[Any], metrics: Sequence[str]
) -> list[str]:
    """A section: the first metric at a glance, then a table a stream."""
    found = {stream.name: table(stream, base, metrics) for stream in kinds if stream.path.exists()}
    said = [f"## {title}", f"{metrics[0]}:", matrix(found, "stream")]
    for name, rows in found.items():
        said += [f"### {name}", tables.markdown(("model", *metrics, "us an event"), rows)]
    return said


def main() -> None:
    """Replay everything, write the page."""
    if not real.there():
        sys.exit(f"no real streams in {real.DATA}; set STREAMLEARN_DATA to their folder")
    said = [
        *parts("Classification", real.CLASSIFICATION, Classifier, CLASSES),
        *parts("Regression", real.REGRESSION, Regressor, NUMBERS),
        *parts("Anomalies", real.ANOMALIES, Scorer, SCORES),
    ]
    print(pages.write("results", "Results", ABOUT, said))


if __name__ == "__main__":
    main()
