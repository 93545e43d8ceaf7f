"""What only a fresh process shows: start-up times, and memory after few and many events."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from pyarrow import csv, parquet

from benchmarks import clock, streams
from benchmarks.tables import markdown

TITLE = "Start-up and memory"
ABOUT = """\
Wall seconds from starting Python to the end of the process; cold means that no kernel is in the
cache. *Imports alone* is what the first prediction imports, without predicting."""
IMPORTS = "from streamlearn import ADWIN, KalmanClassifier, Normalizer, Pipeline"
FIRST_PREDICTION = """
from streamlearn import ADWIN, KalmanClassifier, Normalizer, Pipeline
pipe = Pipeline(Normalizer(), KalmanClassifier(), ADWIN())
pipe.learn_one({"a": 1.0, "b": 2.0}, "yes")
assert pipe.predict_one({"a": 1.0, "b": 2.0}) == "yes"
"""

PEAK_MEMORY = """
import pathlib, resource, sys
from streamlearn import ADWIN, KalmanClassifier, Normalizer, Pipeline, replay
pipe = Pipeline(Normalizer(), KalmanClassifier(), ADWIN())
replay(pipe, sys.argv[1], target="y", limit=int(sys.argv[2]))
status = pathlib.Path("/proc/self/status")  # on Linux ru_maxrss counts the parent's peak as well
if status.exists():
    print(int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024)
else:
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


class Start(NamedTuple):
    """Wall seconds from starting Python to the end of the process; cold: no compiled kernels."""

    what: str
    seconds: float
    cold: bool


def measure(quick: bool) -> dict[str, Any]:
    """Starts, and peaks of replays of a stream of its own."""
    clock.pin()
    events = (1_000, 2_000) if quick else (100_000, 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        text, columns = Path(folder) / "stream.csv", Path(folder) / "stream.parquet"
        data = streams.table(max(events))
        csv.write_csv(data.slice(0, 1_000), text)
        parquet.write_table(data, columns)
        found = starts(text, 1 if quick else 3, not quick)
        peaks = peak_megabytes(columns, events)
    return {"starts": [start._asdict() for start in found], "peak_megabytes": peaks}


def tables(found: dict[str, Any]) -> list[str]:
    """Starts as a table, memory as a line."""
    rows = [
        (f["what"], "cold" if f["cold"] else "warm", f"{f['seconds']:.2f}") for f in found["starts"]
    ]
    peaks = found["peak_megabytes"].items()
    shown = "; ".join(f"{mb:.0f} MB after {int(n):,} events" for n, mb in peaks)
    memory = f"Peak memory of a Parquet replay, imports included: {shown}."
    return [markdown(("start-up", "kernels", "seconds"), rows), memory]


def summary(found: dict[str, Any]) -> list[str]:
    """For README.md."""
    return [ABOUT, *tables(found)]


def starts(stream: Path, rounds: int, cold: bool) -> list[Start]:
    """Medians over processes, kernels in the cache; and once with an empty cache where asked."""
    replay = ["-m", "streamlearn", "replay", str(stream), "--target", "y", "--limit", "10"]
    commands = {
        "streamlearn --help": ["-m", "streamlearn", "--help"],
        "imports alone": ["-c", IMPORTS],
        "first prediction in Python": ["-c", FIRST_PREDICTION],
        "replay of 10 events": replay,
    }
    found = []
    for what, command in commands.items():
        _python(command)  # fills the kernel cache and the disk's
        seconds = median(_seconds(command) for _ in range(rounds))
        found.append(Start(what, seconds, cold=False))
    if cold:
        found += [_cold(what, command) for what, command in list(commands.items())[2:]]
    return found


def peak_megabytes(stream: Path, events: tuple[int, ...]) -> dict[int, float]:
    """Peak resident memory of a replay of so many events, imports and all."""
    command = ["-c", PEAK_MEMORY, str(stream)]
    return {n: int(_python([*command, str(n)])) / 2**20 for n in events}


def _cold(what: str, command: list[str]) -> Start:
    with tempfile.TemporaryDirectory() as empty:
        return Start(what, _seconds(command, NUMBA_CACHE_DIR=empty), cold=True)


def _seconds(command: list[str], **environment: str) -> float:
    start = time.perf_counter()
    _python(command, **environment)
    return time.perf_counter() - start


def _python(arguments: list[str], **environment: str) -> str:
    """What a fresh interpreter prints; it sees the repository as this one does."""
    path = os.pathsep.join([str(Path(__file__).resolve().parent.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout
