"""What measuring costs: evaluation by itself, and whole replays with all that may be asked for."""

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pyarrow import parquet

from benchmarks import clock, streams
from benchmarks.tables import markdown
from benchmarks.whole_replays import pipeline
from streamlearn import compare, replay
from streamlearn.block import LEARN, SCORED, Block, Columns
from streamlearn.evaluation import Evaluation

TITLE = "What measuring costs"
ABOUT = """\
On a binary stream with probabilities: CPU nanoseconds an event, median, least and most. Evaluation
by itself in blocks of 1,000 events; whole calls on a Parquet file (Normalizer, KalmanClassifier,
ADWIN) by turns, with opening the file, summing up and writing the report, which takes the same time
however long the stream is."""
FULL, QUICK = (300_000, 3, 0.1), (600, 1, 0.0)  # rows, rounds, seconds of each case
ROWS = 1000
DELAYS = (1, 100, 5000)
GROUPS = 4


class Case(NamedTuple):
    """Nanoseconds an event of what may be asked for: median, least, most; of CPU for replays."""

    what: str
    rows: int
    ns_per_event: float
    least: float
    most: float


def measure(quick: bool) -> list[dict[str, Any]]:
    """Cases of a run on a stream of its own."""
    clock.pin()
    n, rounds, seconds = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.parquet"
        parquet.write_table(streams.table(n), path)
        return [case._asdict() for case in cases(path, n, rounds, seconds)]


def tables(found: list[dict[str, Any]]) -> list[str]:
    """One table."""
    rows = [
        (c["what"], f"{c['rows']:,}", *(f"{c[k]:,.0f}" for k in ("ns_per_event", "least", "most")))
        for c in found
    ]
    return [markdown(("what", "events", "ns an event", "least", "most"), rows)]


def cases(stream: Path, n: int, rounds: int, seconds: float) -> Iterator[Case]:
    """All cases of evaluation, and by turns replays of n rows of a Parquet file."""
    for what, update in _evaluations():
        update()
        taken = clock.repeated(update, seconds)
        times = (clock.percentile(taken, 0.5), min(taken), max(taken))
        yield Case(what, ROWS, *(t / ROWS for t in times))
    found = clock.by_turns(_replays(stream, n), rounds)
    yield from (Case(what, n, *figures) for what, figures in found.items())


# -- evaluation alone ------------------------------------------------------------------------------


def _evaluations() -> Iterator[tuple[str, Callable[[], None]]]:
    """Each updates by a block of 1,000 events with probabilities of two classes."""
    block = streams.block(ROWS, streams.N_FEATURES, classes=True, category=False)
    grouped = block.replace(groups=np.array([f"g{t % GROUPS}" for t in range(ROWS)], dtype=object))
    for what, rows in (("evaluation", block), (f"evaluation, {GROUPS} groups", grouped)):
        yield what, _at_once(rows)
    for what, rows in (("both bookings", block), (f"both bookings, {GROUPS} groups", grouped)):
        yield f"evaluation, late labels, {what}", _late(rows)


def _at_once(block: Block) -> Callable[[], None]:
    """1,000 events with their labels."""
    measured, outputs = Evaluation("classification", block.labels), _answers(ROWS)
    return lambda: measured.update(block, outputs)


def _late(block: Block) -> Callable[[], None]:
    """1,000 events, then the labels of the 1,000 before."""
    measured, outputs = Evaluation("classification", block.labels, delayed=True), _answers(ROWS)
    events = block.replace(
        y=np.full(ROWS, np.nan), mode=np.full(ROWS, SCORED, np.uint8), events=np.arange(ROWS)
    )
    labels = block.replace(
        X=np.full(block.X.shape, np.nan), mode=np.full(ROWS, LEARN, np.uint8), events=events.events
    )
    measured.update(events, outputs)
    turn = count(1)

    def update() -> None:
        first = ROWS * next(turn)
        measured.update(events.replace(events=np.arange(first, first + ROWS)), outputs)
        measured.update(labels.replace(events=np.arange(first - ROWS, first)), outputs)

    return update


def _answers(n: int) -> Columns:
    sure = np.random.default_rng(0).random(n)
    return {
        "prediction": (sure > 0.5).astype(np.float64),
        "proba": np.column_stack([1.0 - sure, sure]),
    }


# -- whole replays ---------------------------------------------------------------------------------


def _replays(stream: Path, n: int) -> dict[str, Callable[[], float]]:
    """CPU nanoseconds an event of a whole call; all work of it, also that of other threads."""
    page = stream.with_name("report.html")

    def alone(delay: int | None = None, report: Path | None = None) -> Callable[[], float]:
        return lambda: _cpu(
            lambda: replay(pipeline(), stream, target="y", delay=delay, report=report), n
        )

    def together() -> float:
        three = [pipeline() for _ in range(3)]
        return _cpu(lambda: compare(stream, *three, target="y"), n)

    late = {f"replay, labels {delay:,} rows late": alone(delay) for delay in DELAYS}
    return {
        "replay": alone(),
        "replay, report": alone(report=page),
        **late,
        "comparison of three": together,
    }


def _cpu(call: Callable[[], object], n: int) -> float:
    start = time.process_time_ns()
    call()
    return (time.process_time_ns() - start) / n
