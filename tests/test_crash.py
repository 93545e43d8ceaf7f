"""kill -9 at any moment: outputs, metrics and state equal those of an uninterrupted run."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from streamlearn.archive import read_archive
from streamlearn.connectors import sinks
from streamlearn.schema import Schema

pytestmark = pytest.mark.jit
ROOT = Path(__file__).resolve().parent.parent
ROWS, EVERY = 1600, 160
LATE = ["rows", "column", "joined", "selective"]
NAMES = ["out.csv", "out.parquet", "out.csv.gz", "out.jsonl", "out.jsonl.zst"]
FAULTS = [
    "before save",  # the sinks are durable, the state is not
    "after save",
    "before replace",  # the checkpoint, or a widened CSV, is written but not in its place
    "after replace",
    "half write",
    "before ftruncate",  # while the output is cut back
    "before fsync",
]


def write_data(path: Path) -> None:
    """Drifting numbers, a category, gaps, bad rows, missing labels, a class that comes late.

    Labels become known some time later, some never, and stand in a file of their own as well, some
    twice and some for events that never were.
    """
    rng = np.random.default_rng(5)
    lines = ["id,a,b,colour,t,known,label"]
    labels: list[tuple[int, str]] = []
    for t in range(ROWS):
        a, b = rng.normal(size=2)
        label = "up" if (a > 0) != (t > ROWS / 2) else "down"
        label = "sideways" if b > 1.2 and t > ROWS * 0.7 else label
        label = "" if rng.random() < 0.05 else label
        colour = f"c{int(rng.integers(0, 2 + t // 700))}"
        known = t + int(rng.exponential(90.0))
        comes = rng.random() < 0.9
        cells = [f"e{t}", f"{a:.6f}", "" if rng.random() < 0.1 else f"{b:.6f}", colour]
        lines.append(",".join([*cells, str(t), str(known) if comes else "", label]))
        if comes:
            labels += [(known, f"e{t},{label}")] * (2 if rng.random() < 0.05 else 1)
        if rng.random() < 0.02:
            labels.append((t, f"nobody{t},up"))
        if rng.random() < 0.03 and t > 1000:  # the schema is inferred from the rows before
            lines.append(f"bad{t},not a number,1,c0,{t},{t},up" if t % 2 else f"short{t},1")
    path.write_text("\n".join(lines) + "\n")
    told = [f"{label},{known}" for known, label in sorted(labels)]
    path.with_name("labels.csv").write_text("\n".join(["id,label,t", *told]) + "\n")


def late_jobs(data: Path, schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The same data with labels that come late: what a job says beside the rest."""
    plain = {k: v for k, v in schema.items() if k != "ignore"}
    timed = plain | {"time": "t", "label_time": "known"}
    events = {k: v for k, v in plain.items() if k not in ("target", "task")} | {"time": "t"}
    labels = {"id": "id", "target": "label", "time": "t", "task": "classification"}
    joined = {"labels": str(data.with_name("labels.csv")), "schema": labels}
    selective = joined | {"options": {"timeout": "300s", "assume": "down"}}
    return {
        "rows": {"schema": plain, "late": {"delay": 700}},
        "column": {"schema": timed, "late": {"delay": "known"}},
        "joined": {"schema": events, "late": joined | {"options": {"timeout": "300s"}}},
        "selective": {"schema": events, "late": selective},
    }


class Server:
    """The process that forks and kills runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data.csv"
        write_data(self.data)
        unused = ["t", "known"]
        schema = Schema.infer(self.data, target="label", id="id", ignore=unused).to_config()
        script = str(ROOT / "tests" / "crash_server.py")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._schema = schema
        self.late = late_jobs(self.data, schema)
        keys = ("id", "a", "b", "colour", "label")
        rows = [("e", 0.5, 1.0, "c0", "up"), ("f", -0.5, None, "c1", "down")] * 10
        records = [dict(zip(keys, row, strict=True)) for row in rows]
        assert self._ask({"schema": schema, "records": records}) == {"ready": True}

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the crash server ended; see its error output above"
        return dict(json.loads(answer))

    def run(self, place: str, name: str, **job: Any) -> tuple[Path, dict[str, Any]]:
        """A run in a folder of its own, started again until it ends by itself."""
        folder = self.folder / place / name
        folder.mkdir(parents=True)
        base = {"folder": str(folder), "name": name, "data": str(self.data), "seed": 0}
        base |= {"schema": self._schema, "every_events": EVERY}
        return folder, self._ask(base | job)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(timeout=60) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()


class Quiet:
    """Uninterrupted runs, one for each kind of output or of labels, made when asked for."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._made: dict[str, tuple[Path, dict[str, Any]]] = {}

    def __getitem__(self, name: str) -> tuple[Path, dict[str, Any]]:
        if name not in self._made:
            self._made[name] = run_of(self._server, "quiet", name)
            assert self._made[name][1]["killed"] == 0
        return self._made[name]


def run_of(server: Server, place: str, name: str, **job: Any) -> tuple[Path, dict[str, Any]]:
    """A run with an output of this name; or with labels of this kind, answers as CSV."""
    late = server.late.get(name, {})
    place, name = (f"{place}-{name}", "out.csv") if late else (place, name)
    return server.run(place, name, **late, **job)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("crash"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def quiet(server: Server) -> Quiet:
    return Quiet(server)


def predictions(folder: Path, name: str) -> Any:
    """Bytes of text, rows of Parquet."""
    path = folder / name
    if name.endswith(".parquet"):
        return pq.read_table(path).to_pylist()
    if name.endswith(".gz"):
        return gzip.decompress(path.read_bytes())
    if name.endswith(".zst"):
        import pyarrow as pa

        return pa.input_stream(str(path)).read()
    return path.read_bytes()


def last_state(folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Arrays and table of the last checkpoint, but for the lengths of compressed files."""
    path = max((folder / "checkpoints").glob("checkpoint-*"))
    arrays, table = read_archive(path)
    del table["sinks"]
    return {name: array.tobytes() for name, array in arrays.items()}, table


def check(quiet: Path, other: Path, name: str) -> None:
    """Everything that a run leaves behind is equal."""
    assert predictions(other, name) == predictions(quiet, name)
    assert (other / "dead.jsonl").read_bytes() == (quiet / "dead.jsonl").read_bytes()
    arrays, table = last_state(other)
    expected, expected_table = last_state(quiet)
    assert table == expected_table
    assert arrays == expected


def test_the_quiet_run_does_what_the_others_are_compared_with(quiet: Quiet) -> None:
    """Every event answered or counted, the late class with a column, alarms, rejects, metrics."""
    folder, _ = quiet["out.csv"]
    lines = (folder / "out.csv").read_text().splitlines()
    assert lines[0] == "row,id,prediction,p_down,p_up,p_sideways"
    assert len(lines) == 1 + ROWS
    assert lines[1].startswith("0,e0,,")
    assert lines[-1].startswith(f"{ROWS - 1},e{ROWS - 1},")
    rejected = (folder / "dead.jsonl").read_text().splitlines()
    assert len(rejected) > 10
    _, table = last_state(folder)
    assert table["events"] == ROWS
    assert table["counters"]["rejects"] == len(rejected)
    assert table["counters"]["alarms"] > 0
    assert table["about"]["metrics"]["accuracy"] > 0.6


@pytest.mark.parametrize("name", LATE)
def test_late_labels_are_pending_spilled_and_learnt_in_the_quiet_run(
    name: str, quiet: Quiet
) -> None:
    """Most labels were learnt, those that cannot be joined were counted, events were spilled."""
    folder, _ = quiet[name]
    lines = (folder / "out.csv").read_text().splitlines()
    assert len(lines) == 1 + ROWS
    _, table = last_state(folder)
    assert table["events"] == ROWS
    assert table["about"]["metrics"]["accuracy"] > (0.35 if name == "rows" else 0.5)
    told = table["labels"] if name in ("rows", "column") else table["labels"]["join"]["counts"]
    assert told["labelled"] > 0.7 * ROWS
    if name in ("joined", "selective"):
        assert min(told["duplicates"], told["unknown"]) > 10
        assert told["assumed" if name == "selective" else "expired"] > 50
        assert (folder / "checkpoints" / "order.log").stat().st_size > 1000
    if name == "rows":
        assert list((folder / "checkpoints" / "pending").iterdir())


def killed_often(server: Server, quiet: Quiet, name: str, kills: int, place: str) -> None:
    """Kill runs at random moments until there were so many kills."""
    reference, told = quiet[name]
    seed = done = 0
    while done < kills:
        seed += 1
        job = {"kills": kills - done, "seconds": told["seconds"] / 3, "seed": seed}
        folder, answer = run_of(server, f"{place}{seed}", name, **job)
        done += answer["killed"]
        check(reference, folder, "out.csv" if name in LATE else name)


@pytest.mark.parametrize("name", [*NAMES, *LATE])
def test_kill_9_at_random_moments(name: str, server: Server, quiet: Quiet) -> None:
    killed_often(server, quiet, name, kills=6, place="few")


@pytest.mark.soak
@pytest.mark.parametrize("name", [*NAMES, *LATE])
def test_kill_9_at_fifty_random_moments(name: str, server: Server, quiet: Quiet) -> None:
    killed_often(server, quiet, name, kills=50, place="many")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("count", "name"), [(1, "out.parquet"), (5, "out.csv"), (9, "joined"), (8, "rows")]
)
def test_kill_9_at_the_worst_moments(
    fault: str, count: int, name: str, server: Server, quiet: Quiet
) -> None:
    """Die at the count-th passage of a point; a run comes by the first passage of each."""
    folder, answer = run_of(server, f"{fault}-{count}", name, fault=fault, count=count, seed=count)
    assert answer["killed"] == 1 or (fault == "before ftruncate" and count > 1)
    check(quiet[name][0], folder, "out.csv" if name in LATE else name)


def test_sinks_have_no_other_way_to_write() -> None:
    """Every file sink that a location can name is in the list above."""
    assert set(sinks._FORMATS.values()) == {"csv", "jsonl", "parquet"}
