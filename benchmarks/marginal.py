"""Marginal processor time of an event: a stream many times in a row less half as often.

`python -m benchmarks --only marginal`; or with other numbers `python -m benchmarks.marginal
[--times 100] [--rounds 6] [--vw PYTHON]`, a Python that has Vowpal Wabbit.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import csv, parquet

from benchmarks import peers
from benchmarks.figures import Bars
from benchmarks.real import DATA, ROOT
from benchmarks.tables import markdown
from benchmarks.turns import Took, Worker, raced

TITLE = "The marginal event"
ABOUT = """\
Processor microseconds of one more event: electricity (45,312 rows, 8 features) written 100 times in
a row less 50 times, so that opening, inferring and summing up cancel; of the process with all its
threads, and of its main thread. The longer and the shorter stream of every contestant are processes
of their own, warm before they begin, and all of them run by turns of a tenth of a second: whatever
the machine's speed does in a round, it does to all. Median, least and most of six rounds; least
and most are a 97 % interval of the median. What is said beside another contestant is the median of
the quotients of each round. Ours is a whole replay with prediction, learning, normalisation and all
metrics: the parts that the peers have too, and the pipeline that the command line takes by itself
(imputer, encoder and a detector of drift included). River's scaler and logistic regression get
ready dicts, with accuracy and log loss, a tenth of the times; Vowpal Wabbit runs its own loop over
its own text, where `make bench-peers` has made its environment."""
FULL, QUICK = (100, 6), (2, 1)  # times, rounds
RIVER = "River, ready dicts: StandardScaler, LogisticRegression"
VW = "Vowpal Wabbit, its own text"
PARQUET_US, TIMES_RIVER = 0.4, 25.0  # marks
TARGET = "class"
_PLAIN = """
from streamlearn import KalmanClassifier, Normalizer, Pipeline, replay
def work(path):
    replay(Pipeline(Normalizer(), KalmanClassifier()), path, target="class")
"""
_DEFAULT = """
from streamlearn import replay
def work(path):
    replay(path, target="class", model="KalmanHead")
"""
_RIVER = """
import pyarrow.parquet as pq
from river import linear_model, metrics, preprocessing
rows = pq.read_table(sys.argv[1].rpartition(":")[0]).to_pylist()
events = [(x, x.pop("class") == "UP") for x in rows]
def work(path_and_times):
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    accuracy, loss = metrics.Accuracy(), metrics.LogLoss()
    for _ in range(int(path_and_times.rpartition(":")[2])):
        for x, y in events:
            proba = model.predict_proba_one(x)
            accuracy.update(y, max(proba, key=proba.__getitem__) if proba else False)
            loss.update(y, proba)
            model.learn_one(x, y)
"""
_VW = """
from vowpalwabbit import Workspace
def work(path):
    Workspace(arg_list=["-d", path, "--loss_function", "logistic", "--quiet"]).finish()
"""


class Marginal(NamedTuple):
    """Microseconds of processor an event, by rounds: of the process, of its main thread."""

    name: str
    process_us: list[float]
    thread_us: list[float]


class _Contestant(NamedTuple):
    """What runs, and how many events the longer stream has more than the shorter."""

    name: str
    python: str
    code: str
    warm: str
    longer: str
    shorter: str
    events: int

    def workers(self) -> list[Worker]:
        """Processes for the longer and the shorter stream, which are to end together."""
        own = None
        if self.python == sys.executable:
            own = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        return [
            Worker(self.python, self.code, self.warm, path, share, own)
            for path, share in ((self.longer, 2), (self.shorter, 1))
        ]


def measure(quick: bool) -> list[dict[str, Any]]:
    """All contestants; Vowpal Wabbit where there is an environment of the peers."""
    vw = peers.python()
    found = marginals(*(QUICK if quick else FULL), vw if Path(vw).exists() else None)
    return [one._asdict() for one in found]


def tables(found: list[dict[str, Any]]) -> list[str]:
    """What an event takes, and which marks hold."""
    head = ("contestant", "process, us", "least", "most", "main thread, us", "times River")
    rows = [
        (f["name"], *_spread(f["process_us"]), f"{median(f['thread_us']):.3f}",
         f"{median(_quotients(found, RIVER, f['name'])):.1f}")
        for f in found
    ]  # fmt: skip
    marks = ("mark", "median", "least", "most", "rounds that hold")
    return [markdown(head, rows), markdown(marks, [_judged(*mark) for mark in _marks(found)])]


def _spread(values: list[float]) -> tuple[str, str, str]:
    """Median, least, most."""
    return f"{median(values):.3f}", f"{min(values):.3f}", f"{max(values):.3f}"


def _quotients(found: list[dict[str, Any]], over: str, under: str) -> list[float]:
    """What one takes over what another takes, round by round."""
    by_name = {f["name"]: f["process_us"] for f in found}
    return [a / b for a, b in zip(by_name[over], by_name[under], strict=True)]


_Mark = tuple[str, list[float], Callable[[float], bool]]


def _marks(found: list[dict[str, Any]]) -> Iterator[_Mark]:
    """What ours are to reach: words, what was measured in each round, and the rule."""
    ours = [f for f in found if f["name"].startswith(tuple(_NAMES.values()))]
    for one in ours:
        name, kind = one["name"], one["name"].split(":")[0]
        if kind == _NAMES["parquet"]:
            yield f"{name}: at most {PARQUET_US} us", one["process_us"], lambda us: us <= PARQUET_US
            words = f"{name}: at least {TIMES_RIVER:g} times River"
            yield words, _quotients(found, RIVER, name), lambda times: times >= TIMES_RIVER
        if kind == _NAMES["csv"] and any(f["name"] == VW for f in found):
            words = f"{name}: over Vowpal Wabbit, at most 1"
            yield words, _quotients(found, name, VW), lambda quotient: quotient <= 1.0


def _judged(words: str, measured: list[float], holds: Callable[[float], bool]) -> Sequence[str]:
    """The row of a mark."""
    kept = sum(map(holds, measured))
    return words, *_spread(measured), f"{kept} of {len(measured)}"


def plots(found: list[dict[str, Any]]) -> list[Bars]:
    """Who took how long."""
    rows = [(f["name"], median(f["process_us"])) for f in found]
    shown = [(name, us) for name, us in rows if us > 0.0]
    return [Bars("Processor time of one more event", shown, "All threads of the process.")]


def summary(found: list[dict[str, Any]]) -> list[str]:
    """For README.md."""
    return [ABOUT, *tables(found)]


def marginals(
    times: int, rounds: int, vw: str | None, source: Path | None = None
) -> list[Marginal]:
    """All contestants, by turns. times: how often in a row, an even number."""
    data = parquet.read_table(DATA / "electricity.parquet" if source is None else source)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        entered = list(_entered(data, Path(folder), times, vw))
        workers = [stack.enter_context(w) for one in entered for w in one.workers()]
        for worker in workers:
            worker.answer()
        by_round = [_round(entered, raced(workers)) for _ in range(rounds)]
    return [
        Marginal(one.name, [took[i][0] for took in by_round], [took[i][1] for took in by_round])
        for i, one in enumerate(entered)
    ]


def _round(entered: list[_Contestant], took: list[Took]) -> list[Took]:
    """Microseconds an event by contestant; took: seconds of the longer and the shorter by turns."""
    return [
        (1e6 * (longer[0] - shorter[0]) / one.events, 1e6 * (longer[1] - shorter[1]) / one.events)
        for one, longer, shorter in zip(entered, took[::2], took[1::2], strict=True)
    ]


# -- who runs --------------------------------------------------------------------------------------


def _entered(data: pa.Table, folder: Path, times: int, vw: str | None) -> Iterator[_Contestant]:
    """Every contestant, with its files written."""
    few, events = times // 2, data.num_rows * (times - times // 2)

    def path_of(n: int, suffix: str) -> str:
        path = folder / f"{n}.{suffix}"
        if not path.exists():
            _FORMATS[suffix](data, n, path)
        return str(path)

    def paths(suffix: str) -> tuple[str, str, str]:
        return path_of(1, suffix), path_of(times, suffix), path_of(few, suffix)

    for suffix, name in _NAMES.items():
        for title, code in _CODES.items():
            if suffix != "jsonl" or code != _DEFAULT:
                yield _Contestant(f"{name}: {title}", sys.executable, code, *paths(suffix), events)
    turns = max(times // 10, 2)
    between = data.num_rows * (turns - turns // 2)
    once = path_of(1, "parquet")
    repeated = f"{once}:0", f"{once}:{turns}", f"{once}:{turns // 2}"
    yield _Contestant(RIVER, sys.executable, _RIVER, *repeated, between)
    if vw is not None:
        yield _Contestant(VW, vw, _VW, *paths("vw"), events)


def _write_parquet(data: pa.Table, times: int, path: Path) -> None:
    parquet.write_table(pa.concat_tables([data] * times).combine_chunks(), path)


def _write_csv(data: pa.Table, times: int, path: Path) -> None:
    at = data.column_names.index(TARGET)
    plain = data.set_column(at, TARGET, data.column(TARGET).cast(pa.string()))
    csv.write_csv(pa.concat_tables([plain] * times), path)


def _write_jsonl(data: pa.Table, times: int, path: Path) -> None:
    _write_lines(data, times, path, json.dumps)


def _write_vw(data: pa.Table, times: int, path: Path) -> None:
    def line(row: dict[str, Any]) -> str:
        y = 1 if row.pop(TARGET) == "UP" else -1
        return f"{y} | " + " ".join(f"{name}:{value!r}" for name, value in row.items())

    _write_lines(data, times, path, line)


def _write_lines(
    data: pa.Table, times: int, path: Path, line: Callable[[dict[str, Any]], str]
) -> None:
    text = "\n".join(map(line, data.to_pylist())) + "\n"
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(times):
            file.write(text)


_FORMATS: dict[str, Callable[[pa.Table, int, Path], object]] = {
    "parquet": _write_parquet,
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "vw": _write_vw,
}
_CODES = {"Normalizer, KalmanClassifier": _PLAIN, "KalmanHead": _DEFAULT}
_NAMES = {"parquet": "Parquet", "csv": "CSV", "jsonl": "JSON Lines"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.marginal", description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="how often in a row, even")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--vw", help="a Python that has vowpalwabbit")
    asked = parser.parse_args()
    found = marginals(asked.times, asked.rounds, asked.vw)
    print(*tables([one._asdict() for one in found]))


if __name__ == "__main__":
    main()
