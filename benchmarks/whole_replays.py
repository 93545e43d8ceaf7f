"""Whole replays, from file to metrics, beside River on the same events in the same run."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from river import drift, linear_model, metrics, preprocessing, tree

from benchmarks import clock, streams
from benchmarks.tables import markdown
from streamlearn import ADWIN, KalmanClassifier, Normalizer, Pipeline, Result, replay

TITLE = "Whole replays"
ABOUT = """\
From opening the file to the last metric, 8 numbers and a boolean target: events a second by the
clock, median, least and most of rounds by turns on one core. River gets its events as ready dicts,
without decoding; accuracy is on the rows that River saw."""
FULL, QUICK = (1_000_000, 300_000, 20_000, 3), (4_000, 1_000, 300, 1)  # as of `figures`

REFERENCE = "River: StandardScaler, LogisticRegression"

_untyped: Any = metrics  # River has no types there
_adwin: Any = drift.ADWIN

Event = tuple[dict[str, Any], bool]


class Contestant(NamedTuple):
    """One way to go through the stream. rate: events a second of one go; accuracy: on the head."""

    name: str
    rows: int
    rate: Callable[[], float]
    accuracy: Callable[[], float]


class Figure(NamedTuple):
    """Events a second of one contestant, and the accuracy on the first rows, the same for all."""

    name: str
    rows: int
    events_per_second: float
    least: float
    most: float
    times_river: float
    accuracy: float


def pipeline() -> Pipeline:
    """What is measured: normaliser, linear Kalman head, drift detector on its error."""
    return Pipeline(Normalizer(), KalmanClassifier(), ADWIN())


def measure(quick: bool) -> list[dict[str, Any]]:
    """Figures of a run in a folder of its own."""
    clock.pin()
    with tempfile.TemporaryDirectory() as folder:
        found = figures(Path(folder), *(QUICK if quick else FULL))
    return [figure._asdict() for figure in found]


def tables(found: list[dict[str, Any]]) -> list[str]:
    """One table."""
    head = ("replay", "rows", "events/s", "least", "most", "times River", "accuracy (head)")
    rows = [
        (
            f["name"],
            f"{f['rows']:,}",
            *(f"{f[k]:,.0f}" for k in ("events_per_second", "least", "most")),
            f"{f['times_river']:.1f}",
            f"{f['accuracy']:.3f}",
        )
        for f in found
    ]
    return [markdown(head, rows)]


def summary(found: list[dict[str, Any]]) -> list[str]:
    """For README.md."""
    return [ABOUT, *tables(found)]


def figures(folder: Path, n: int, n_text: int, n_river: int, rounds: int) -> list[Figure]:
    """n rows of Parquet, n_text of CSV and JSON Lines, n_river as dicts through River, by turns."""
    data = streams.table(n)
    paths = streams.write(data, folder, n_text)
    sizes = {name: n if name == "Parquet" else n_text for name in paths}
    entered = [_ours(name, path, sizes[name], n_river) for name, path in paths.items()]
    entered += [_default(paths["Parquet"], n, n_river), *_peers(data, n_river)]
    rates = clock.by_turns({one.name: one.rate for one in entered}, rounds)
    river = rates[REFERENCE][0]
    return [
        Figure(one.name, one.rows, *rates[one.name], rates[one.name][0] / river, one.accuracy())
        for one in entered
    ]


# -- ours ------------------------------------------------------------------------------------------


def _ours(name: str, path: Path, n: int, head: int) -> Contestant:
    def run(limit: int | None = None) -> Result:
        return replay(pipeline(), path, target="y", limit=limit)

    title = f"{name}: Normalizer, KalmanClassifier, ADWIN"
    return Contestant(title, n, lambda: run().events_per_second, lambda: _accuracy(run(head)))


def _default(path: Path, n: int, head: int) -> Contestant:
    def run(limit: int | None = None) -> Result:
        return replay(path, target="y", model="KalmanHead", limit=limit)

    title = "Parquet: the pipeline of --model KalmanHead"
    return Contestant(title, n, lambda: run().events_per_second, lambda: _accuracy(run(head)))


def _accuracy(result: Result) -> float:
    return result.metrics["accuracy"] or 0.0


# -- River -----------------------------------------------------------------------------------------


def _peers(data: pa.Table, n: int) -> list[Contestant]:
    """River's models, given the events as dicts, so that its time has no decoding in it."""
    rows = data.slice(0, n).to_pylist()
    events: list[Event] = [(x, x.pop("y")) for x in rows]
    return [
        _peer(REFERENCE, _scaled_logistic, events),
        _peer("River: HoeffdingTreeClassifier", tree.HoeffdingTreeClassifier, events),
    ]


def _scaled_logistic() -> Any:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def _peer(name: str, make: Callable[[], Any], events: list[Event]) -> Contestant:
    def rate() -> float:
        return len(events) / river_replay(make(), events)[0]

    return Contestant(name, len(events), rate, lambda: river_replay(make(), events)[1])


def river_replay(model: Any, events: list[Event]) -> tuple[float, float]:
    """Seconds and accuracy of a prequential pass with accuracy, log loss and ADWIN.

    The class is read off the probabilities, which is what River's predict_one would compute again.
    """
    accuracy, log_loss, adwin = _untyped.Accuracy(), _untyped.LogLoss(), _adwin()
    start = time.perf_counter()
    for x, y in events:
        proba = model.predict_proba_one(x)
        said = max(proba, key=proba.__getitem__) if proba else None
        if said is not None:
            accuracy.update(y, said)
            log_loss.update(y, proba)
        adwin.update(said != y)
        model.learn_one(x, y)
    return time.perf_counter() - start, accuracy.get()
