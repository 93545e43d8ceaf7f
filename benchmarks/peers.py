"""Other packages beside ours on the same stream in the same run, each at its best documented path.

They live in an environment of their own (`make bench-peers` makes it): STREAMLEARN_PEERS names its
Python. What is missing there is skipped, and the table says so.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import clock, streams
from benchmarks.figures import Bars
from benchmarks.peers_worker import CONTESTANTS
from benchmarks.tables import markdown, number
from benchmarks.whole_replays import REFERENCE, pipeline
from streamlearn import LiteRVFLClassifier, Normalizer, Pipeline, replay

TITLE = "Beside other packages"
ABOUT = """\
A stream of 8 numbers and two classes that turns over in the middle, predicted and then learnt:
microseconds of an event by the clock, and of the processor with all threads, on one core, medians
of rounds by turns; least and most by the clock. Ours reads and decodes a file, normalises,
predicts, learns and measures. River gets ready dicts; scikit-learn ready arrays, `partial_fit` in
mini-batches, which learns from none of a batch before it has answered all, and row by row; Vowpal
Wabbit reads its own text by its own command (a run on nothing is taken off); CapyMOA is MOA's loop
in Java on an ARFF file, its second pass. Start-up is in none. Accuracy is on the first 5,000
rows."""
PYTHON = Path(__file__).resolve().parent.parent / ".venv-peers" / "bin" / "python"
HEAD = 5_000
ROWS = {"River": 20_000, "scikit-learn": 200_000, "Vowpal Wabbit": 300_000, "CapyMOA": 50_000}
A_ROW = 5_000  # of scikit-learn, a row at a time
OURS_ROWS = 300_000
ROUNDS = 2
SECONDS = 120  # at most of one pass

Found = dict[str, Any]


def measure(quick: bool) -> dict[str, Any]:
    """Rows of the table, and what was skipped, with the reason."""
    clock.pin()
    n = HEAD if quick else OURS_ROWS
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        paths = written(folder, n)
        entered: dict[str, Callable[[int], Found]] = {**_ours(paths), **_theirs(folder)}
        skipped: dict[str, str] = {}
        heads: dict[str, float | None] = {}
        for name, run in list(entered.items()):  # also warms kernels and files
            try:
                heads[name] = run(HEAD)["accuracy"]
            except (OSError, subprocess.SubprocessError) as error:
                skipped[name] = reason(error)
                del entered[name]
        given: dict[str, list[Found]] = {name: [] for name in entered}
        for _ in range(1 if quick else ROUNDS):
            for name, run in entered.items():
                given[name].append(run(min(n, _rows(name))))
    rows = [_row(name, found, heads[name]) for name, found in given.items()]
    return {"rows": rows, "skipped": skipped}


def tables(measured: dict[str, Any]) -> list[str]:
    """One table, and a line for each that is missing."""
    rows = measured["rows"]
    river = next((r["seconds"] for r in rows if r["name"] == REFERENCE), None)
    head = ("contestant", "version", "events", "us an event", "least", "most", "CPU us",
            "times River", "accuracy (head)")  # fmt: skip
    cells = [
        (
            r["name"],
            r["version"],
            f"{r['events']:,}",
            *(number(r[k], ".2f") for k in ("seconds", "least", "most", "cpu")),
            number(river / r["seconds"] if river else None, ".1f"),
            number(r["accuracy"], ".3f"),
        )
        for r in rows
    ]
    missing = [f"Skipped: {name}: {why}." for name, why in measured["skipped"].items()]
    return [markdown(head, cells), *missing]


def plots(measured: dict[str, Any]) -> list[Bars]:
    """Who took how long."""
    rows = [(r["name"], r["seconds"]) for r in measured["rows"] if r["seconds"] > 0.0]
    return [Bars("Microseconds an event, by the clock", rows, "On the same stream.")]


def summary(measured: dict[str, Any]) -> list[str]:
    """For README.md."""
    return [ABOUT, *tables(measured)]


def _row(name: str, found: list[Found], accuracy: float | None) -> dict[str, Any]:
    each = {
        key: sorted(1e6 * one[key] / one["events"] for one in found) for key in ("seconds", "cpu")
    }
    return {
        "name": name,
        "version": found[0]["version"],
        "events": found[0]["events"],
        "seconds": statistics.median(each["seconds"]),
        "least": each["seconds"][0],
        "most": each["seconds"][-1],
        "cpu": statistics.median(each["cpu"]),
        "accuracy": accuracy,
    }


def _rows(name: str) -> int:
    if name.endswith("a row at a time"):
        return A_ROW
    return ROWS.get(name.partition(":")[0], OURS_ROWS)


def written(folder: Path, n: int) -> dict[str, Path]:
    """The stream in all the forms that are read: ours, arrays, Vowpal Wabbit's, ARFF."""
    data = streams.table(n)
    X = np.column_stack([data[f"x{j}"].to_numpy() for j in range(streams.N_FEATURES)])
    y = data["y"].to_numpy(zero_copy_only=False).astype(np.int64)
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", y)
    arff = ["@relation stream", *(f"@attribute x{j} numeric" for j in range(X.shape[1]))]
    arff += ["@attribute y {0,1}", "@data"]
    with (folder / "stream.vw").open("w") as wabbit, (folder / "stream.arff").open("w") as moa:
        moa.write("\n".join(arff) + "\n")
        for x, c in zip(X.tolist(), y.tolist(), strict=True):
            values = [repr(v) for v in x]
            named = " ".join(f"x{j}:{v}" for j, v in enumerate(values))
            wabbit.write(f"{2 * c - 1} | {named}\n")
            moa.write(f"{','.join(values)},{c}\n")
    return streams.write(data, folder, n)


# -- contestants -----------------------------------------------------------------------------------


def _ours(paths: dict[str, Path]) -> dict[str, Callable[[int], Found]]:
    def of(path: Path, make: Callable[[], Pipeline]) -> Callable[[int], Found]:
        return lambda n: _replayed(path, make(), n)

    made = {f"ours: KalmanClassifier, {name}": of(path, pipeline) for name, path in paths.items()}
    made["ours: LiteRVFLClassifier, 100 nodes, Parquet"] = of(
        paths["Parquet"], lambda: Pipeline(Normalizer(), LiteRVFLClassifier())
    )
    return made


def _replayed(path: Path, pipe: Pipeline, n: int) -> Found:
    wall, cpu = time.perf_counter(), time.process_time()
    result = replay(pipe, path, target="y", limit=n)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    import streamlearn

    return {"version": streamlearn.__version__, "events": n, "seconds": wall, "cpu": cpu,
            "accuracy": result.metrics["accuracy"]}  # fmt: skip


def python() -> str:
    """The Python of their environment, which need not be there."""
    return os.environ.get("STREAMLEARN_PEERS") or str(PYTHON)


def _theirs(folder: Path) -> dict[str, Callable[[int], Found]]:
    def of(name: str) -> Callable[[int], Found]:
        return lambda n: _worked(python(), name, folder, n)

    return {name: of(name) for name in CONTESTANTS}


def _worked(interpreter: str, name: str, folder: Path, n: int) -> Found:
    worker = Path(__file__).with_name("peers_worker.py")
    done = subprocess.run(
        [interpreter, "-P", str(worker), name, str(folder), str(n)],
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    found: Found = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def reason(error: Exception) -> str:
    """One line that says what to do about it."""
    if isinstance(error, subprocess.CalledProcessError):
        last = (error.stderr or "").strip().splitlines() or [str(error)]
        return last[-1].rstrip(".")
    if isinstance(error, subprocess.TimeoutExpired):
        return f"took more than {SECONDS} s"
    return f"{error}; `make bench-peers` makes the environment"
