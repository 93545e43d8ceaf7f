"""What conformal intervals and sets cover, over any 5,000 events of the real streams.

`python -m benchmarks.conformal_coverage [STREAM ...]` prints two tables; without names it also
writes docs/coverage.md. Labels come at once, and 24, 200 and 1,000 events late.
"""

import itertools
import sys
from collections.abc import Iterator

import numpy as np

from benchmarks import pages, real, tables
from streamlearn.block import F8, I8, LEARN, SCORED, Block, Columns, concatenate
from streamlearn.connectors import as_source
from streamlearn.operators import (
    ConformalClassifier,
    ConformalRegressor,
    Imputer,
    KalmanClassifier,
    KalmanRegressor,
    MajorityClassifier,
    MeanRegressor,
    Normalizer,
    OneHotEncoder,
)
from streamlearn.operators._base import Operator
from streamlearn.pipeline import Pipeline

WINDOW = 5000
DEFAULT = {"regression": 1000, "classification": 50}  # make_up
MOST = 100_000  # rows of a stream
AT_ONCE = 4096  # rows of a block
REGRESSION = [
    real.Stream("fried", "target"),
    real.Stream("ETTh2", "OT"),
    real.Stream("ETTm2", "OT"),
    real.Stream("WTH", "WetBulbCelsius"),
    real.Stream("beijing_pm25", "pm2.5"),
    real.Stream("bikeshare_hourly", "bikers", "casual,registered"),
    real.Stream("toulouse_bikes", "bikes"),
]
CLASSIFICATION = [
    stream for stream in real.CLASSIFICATION if stream.name not in ("phishing", "digits")
]
HEAD = [
    "stream", "model", "late by", "make_up", "covered", "least", "most", "drifts", "{}",
    "without bound",
]  # fmt: skip


def whole(stream: real.Stream, task: str) -> Block:
    """The first rows of a stream as one block."""
    ignore = None if stream.ignore is None else stream.ignore.split(",")
    source, _ = as_source(stream.path, target=stream.target, ignore=ignore, task=task, limit=MOST)
    source.open({})
    blocks = []
    while not source.finished:
        batch = source.poll(MOST, 1.0)
        if batch is not None and batch.block.n:
            blocks.append(batch.block)
    source.close()
    last = blocks[-1]
    X, y = (np.concatenate([getattr(b, name) for b in blocks]) for name in ("X", "y"))
    n = y.shape[0]
    mode = np.concatenate([b.mode for b in blocks])
    return Block(X, y, np.ones(n), mode, last.features, last.labels)


def late(block: Block, delay: int) -> tuple[Block, I8]:
    """The same events with labels in rows of their own, and the rows of the events."""
    n = block.n
    order = np.argsort(np.concatenate([2 * np.arange(n), 2 * (np.arange(n) + delay) + 1]))
    event, brings = order % n, order >= n
    X = block.X[event]
    X[brings] = np.nan
    y = np.where(brings, block.y[event], np.nan)
    mode = np.where(brings, LEARN, SCORED).astype(np.uint8)
    rows = Block(X, y, np.ones(2 * n), mode, block.features, block.labels, events=event)
    return rows, np.flatnonzero(~brings)


def answers(model: Operator, block: Block, delay: int | None) -> Columns:
    """Outputs for the events, in their order."""
    rows, events = (block, np.arange(block.n)) if delay is None else late(block, delay)
    pipe = Pipeline(Imputer(), OneHotEncoder(), Normalizer(), model)
    parts, lengths = [], []
    for start in range(0, rows.n, AT_ONCE):
        part = rows.rows(start, start + AT_ONCE)
        parts.append(pipe.run(part))
        lengths.append(part.n)
    return {name: column[events] for name, column in concatenate(parts, lengths).items()}


def shares(inside: F8) -> list[str]:
    """Percent inside: of all, and the least and the most over any `WINDOW` events."""
    total = np.concatenate([[0.0], np.cumsum(inside)])
    size = min(WINDOW, inside.shape[0])
    windows = (total[size:] - total[:-size]) / size
    return [f"{100.0 * share:.2f}" for share in (inside.mean(), windows.min(), windows.max())]


def drifts(least: str, most: str, delay: int | None) -> str:
    """How many drifts in its window explain the worst one: of D / `WINDOW` each, beyond 90 +- 1."""
    missing = max(89.0 - float(least), float(most) - 91.0, 0.0)
    return "-" if delay is None else f"{missing * WINDOW / (100.0 * delay):.2f}"


def of_numbers(block: Block, conformal: ConformalRegressor, delay: int | None) -> list[str]:
    """One row of the table of intervals; events before the first bound are left out."""
    outputs = answers(conformal, block, delay)
    judged = ~np.isnan(block.y) & ~np.isnan(outputs["lower"])
    y, lower, upper = (a[judged] for a in (block.y, outputs["lower"], outputs["upper"]))
    inside = ((lower <= y) & (y <= upper)).astype(np.float64)
    without = 1.0 - judged.sum() / np.count_nonzero(~np.isnan(block.y))
    mean, least, most = shares(inside)
    return [
        mean,
        least,
        most,
        drifts(least, most, delay),
        f"{np.mean(upper - lower):.4g}",
        f"{100.0 * without:.2f}",
    ]


def of_classes(block: Block, conformal: ConformalClassifier, delay: int | None) -> list[str]:
    """One row of the table of sets; events before the first bound are left out."""
    sets = answers(conformal, block, delay)["set"]
    begun = 10 + (delay or 0)
    label = block.y.astype(np.int64)
    inside = np.where(
        label < sets.shape[1], sets[np.arange(block.n), np.minimum(label, sets.shape[1] - 1)], 0
    )
    without = float(conformal.boundless_[0])
    mean = sets[begun:].sum(axis=1).mean()
    row = shares(inside[begun:].astype(np.float64))
    return [*row, drifts(row[1], "0", delay), f"{mean:.3f}", f"{100.0 * without:.2f}"]


def rows_of(streams: list[real.Stream], task: str) -> Iterator[list[str]]:
    """Each stream, by each model, with labels late by each delay."""
    for stream in streams:
        block = whole(stream, task)
        models: list[Operator]
        if task == "regression":
            models = [KalmanRegressor(), MeanRegressor()]
        else:
            models = [KalmanClassifier(random_features=100), MajorityClassifier()]
        for model in models:
            name = type(model).__name__.removesuffix("Classifier").removesuffix("Regressor")
            cases = ((None, 50), (24, DEFAULT[task]), *itertools.product((200, 1000), (50, 1000)))
            for delay, made_up in cases if model is models[0] else cases[:1]:
                if task == "regression":
                    numbers = ConformalRegressor(model.clone(), make_up=made_up)
                    row = of_numbers(block, numbers, delay)
                else:
                    classes = ConformalClassifier(model.clone(), make_up=made_up)
                    row = of_classes(block, classes, delay)
                about = [str(delay), str(made_up)] if delay else ["-", "-"]
                yield [stream.name, name, *about, *row]


ABOUT = """\
`python -m benchmarks.conformal_coverage` writes this page. Asked for are 90 %, with the default
settings; `make_up` of 1,000 is the default of intervals, 50 of sets. *Covered*: percent of all
events whose label was inside, from the first bound on; *least* and *most*: over any 5,000 events in
a row. *Without bound*: percent of the events before there were enough labels. At most 100,000 rows
of a stream. Before the model stand `Imputer()`, `OneHotEncoder()` and `Normalizer()`; sets are of a
`KalmanClassifier(random_features=100)`.

Labels that come D events late cost up to D / 5,000 at each change of the errors' size, for nobody
knows of it before the first label: a season, a rush hour or a storm is such a change. *Drifts*: how
many such changes in its window explain what the worst window has less than 89 %, or more than 91 %
(of sets: less only). Where a model is right more often than 90 %, sets of one class cover more than
was asked."""


def main() -> None:
    """Run the streams that are named, or all; print, and write the page."""
    wanted = set(sys.argv[1:])
    if not real.there():
        sys.exit(f"no real streams in {real.DATA}; set STREAMLEARN_DATA to their folder")
    parts = []
    for task, streams, title, size in (
        ("regression", REGRESSION, "Intervals", "mean width"),
        ("classification", CLASSIFICATION, "Sets", "mean size"),
    ):
        chosen = [stream for stream in streams if not wanted or stream.name in wanted]
        head = [cell.format(size) for cell in HEAD]
        found = []
        for row in rows_of(chosen, task):
            print(*row, flush=True)
            found.append(row)
        parts.append(f"## {title}\n\n{tables.markdown(head, found)}")
    if not wanted:
        print(pages.write("coverage", "What intervals and sets cover", ABOUT, parts))


if __name__ == "__main__":
    main()
