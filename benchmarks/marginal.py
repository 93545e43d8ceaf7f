"""Marginal processor time of an event: a stream many times in a row less half as often.

`python -m benchmarks --only marginal`; or with other numbers `python -m benchmarks.marginal
[--times 100] [--rounds 3] [--vw PYTHON]`, a Python that has Vowpal Wabbit.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import csv, parquet

from benchmarks import peers
from benchmarks.figures import Bars
from benchmarks.real import DATA, ROOT
from benchmarks.tables import markdown

TITLE = "The marginal event"
ABOUT = """\
Processor microseconds of one more event: electricity (45,312 rows, 8 features) written 100 times in
a row less 50 times, so that start-up, imports, kernels, opening and summing up cancel; of the
process with all its threads (median, least, most) and of its main thread. Each contestant runs in
processes of its own, by turns. Ours is a whole replay with prediction, learning, normalisation and
all metrics: the parts that the peers have too, and the pipeline that the command line takes by
itself (a detector of drift included). River's scaler and logistic regression get ready dicts, with
accuracy and log loss, a tenth of the times; Vowpal Wabbit runs its own loop over its own text,
where `make bench-peers` has made its environment."""
FULL, QUICK = (100, 1), (2, 1)  # times, rounds
RIVER = "River, ready dicts: StandardScaler, LogisticRegression"
TARGET = "class"
_TOLD = "\nimport json, time\nprint(json.dumps([time.process_time(), time.thread_time()]))\n"
_PLAIN = """
import sys
from streamlearn import KalmanClassifier, Normalizer, Pipeline, replay
replay(Pipeline(Normalizer(), KalmanClassifier()), sys.argv[1], target="class")
"""
_DEFAULT = """
import sys
from streamlearn import replay
replay(sys.argv[1], target="class", model="KalmanHead")
"""
_RIVER = """
import sys
import pyarrow.parquet as pq
from river import linear_model, metrics, preprocessing
rows = pq.read_table(sys.argv[1]).to_pylist()
events = [(x, x.pop("class") == "UP") for x in rows]
model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
accuracy, loss = metrics.Accuracy(), metrics.LogLoss()
for _ in range(int(sys.argv[2])):
    for x, y in events:
        proba = model.predict_proba_one(x)
        accuracy.update(y, max(proba, key=proba.__getitem__) if proba else False)
        loss.update(y, proba)
        model.learn_one(x, y)
"""
_VW = """
import sys
from vowpalwabbit import Workspace
Workspace(arg_list=["-d", sys.argv[1], "--loss_function", "logistic", "--quiet"])
"""


class Marginal(NamedTuple):
    """Microseconds of processor an event: of the process (median, least, most), its main thread."""

    name: str
    process_us: float
    least: float
    most: float
    thread_us: float


Commands = tuple[list[str], list[str], list[str]]  # over a longer, a shorter, a short stream


class _Contestant(NamedTuple):
    """A name, its commands, and how many events the longer stream has more than the shorter."""

    name: str
    commands: Commands
    events: int


def measure(quick: bool) -> list[dict[str, Any]]:
    """All contestants; Vowpal Wabbit where there is an environment of the peers."""
    vw = peers.python()
    found = marginals(*(QUICK if quick else FULL), vw if Path(vw).exists() else None)
    return [one._asdict() for one in found]


def tables(found: list[dict[str, Any]]) -> list[str]:
    """One table."""
    river = next(f["process_us"] for f in found if f["name"] == RIVER)
    head = ("contestant", "process, us", "least", "most", "main thread, us", "times River")
    keys = ("process_us", "least", "most", "thread_us")
    return [markdown(head, [
        (f["name"], *(f"{f[k]:.3f}" for k in keys), f"{river / f['process_us']:.1f}") for f in found
    ])]  # fmt: skip


def plots(found: list[dict[str, Any]]) -> list[Bars]:
    """Who took how long."""
    rows = [(f["name"], f["process_us"]) for f in found if f["process_us"] > 0.0]
    return [Bars("Processor time of one more event", rows, "All threads of the process.")]


def summary(found: list[dict[str, Any]]) -> list[str]:
    """For README.md."""
    return [ABOUT, *tables(found)]


def marginals(
    times: int, rounds: int, vw: str | None, source: Path | None = None
) -> list[Marginal]:
    """All contestants, by turns. times: how often in a row, an even number."""
    data = parquet.read_table(DATA / "electricity.parquet" if source is None else source)
    with tempfile.TemporaryDirectory() as folder:
        entered = list(_entered(data, Path(folder), times, vw))
        for one in entered:
            _seconds(one.commands[2])  # fills the caches of kernels
        taken: dict[str, list[tuple[float, float]]] = {one.name: [] for one in entered}
        for _ in range(rounds):
            for one in entered:
                taken[one.name].append(_marginal(one))
    return [_figure(name, pairs) for name, pairs in taken.items()]


def _figure(name: str, pairs: list[tuple[float, float]]) -> Marginal:
    process, thread = zip(*pairs, strict=True)
    return Marginal(name, median(process), min(process), max(process), median(thread))


def _marginal(one: _Contestant) -> tuple[float, float]:
    """Microseconds an event of the process and of its main thread."""
    longer, shorter = (_seconds(command) for command in one.commands[:2])
    process, thread = (1e6 * (a - b) / one.events for a, b in zip(longer, shorter, strict=True))
    return process, thread


def _seconds(command: list[str]) -> tuple[float, float]:
    path = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path} if command[0] == sys.executable else None,
        check=True,
        capture_output=True,
        text=True,
    )
    process, thread = json.loads(done.stdout.splitlines()[-1])
    return process, thread


# -- who runs --------------------------------------------------------------------------------------


def _entered(data: pa.Table, folder: Path, times: int, vw: str | None) -> Iterator[_Contestant]:
    """Every contestant, with its files written."""
    few, events = times // 2, data.num_rows * (times - times // 2)

    def commands(code: list[str], suffix: str) -> Commands:
        made = []
        for n in (times, few, 1):
            path = folder / f"{n}.{suffix}"
            if not path.exists():
                _FORMATS[suffix](data, n, path)
            made.append([*code, str(path)])
        return made[0], made[1], made[2]

    for suffix, name in _NAMES.items():
        for title, code in _CODES.items():
            if suffix != "jsonl" or code != _DEFAULT:
                yield _Contestant(f"{name}: {title}", commands(_python(code), suffix), events)
    single = folder / "1.parquet"
    _write_parquet(data, 1, single)
    turns = max(times // 10, 2)
    longer, shorter, warming = (
        [*_python(_RIVER), str(single), str(n)] for n in (turns, turns // 2, 0)
    )
    between = data.num_rows * (turns - turns // 2)
    yield _Contestant(RIVER, (longer, shorter, warming), between)
    if vw is not None:
        own = [vw, "-c", _VW + _TOLD]
        yield _Contestant("Vowpal Wabbit, its own text", commands(own, "vw"), events)


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code + _TOLD]


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vw", help="a Python that has vowpalwabbit")
    asked = parser.parse_args()
    found = marginals(asked.times, asked.rounds, asked.vw)
    print(*tables([one._asdict() for one in found]))


if __name__ == "__main__":
    main()
