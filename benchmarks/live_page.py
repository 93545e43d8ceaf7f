"""What the live page costs a stream: `python -m benchmarks.live_page`.

The same run in turns: alone, alone again (what differs is noise), and with browsers that stay open.
A browser is a client in another process that reads every message. Reported are the processor time
of the run's process by event, beside that of the run alone in the same round; and that of the
page's thread by second of the run, which is exact.
"""

import argparse
import contextlib
import math
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.tables import markdown
from streamlearn import runner
from streamlearn.config import check
from streamlearn.dashboard import OWNER

CLIENT = """
import sys, urllib.request
for _ in range(100):
    try:
        with urllib.request.urlopen(sys.argv[1] + "/events", timeout=30) as stream:
            for _ in stream:
                pass
        break
    except OSError:
        import time
        time.sleep(0.1)
"""
KINDS = {"alone": None, "alone again": None, "one browser": 1, "ten browsers": 10}


class Run(NamedTuple):
    """Seconds of a run: processor time of its process, wall, processor time of the page."""

    cpu: float
    wall: float
    page: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=6_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "events.parquet"
        written(data, asked.events)
        seen: dict[str, list[Run]] = {name: [] for name in KINDS}
        one(data, 1)  # kernels, imports, the files of the page
        for k in range(asked.rounds):
            order = list(KINDS.items())
            for name, browsers in order[k % len(order) :] + order[: k % len(order)]:
                seen[name].append(one(data, browsers))
    rows = []
    for name, found in seen.items():
        pairs = zip(found, seen["alone"], strict=True)
        more = sorted(with_it.cpu / alone.cpu - 1.0 for with_it, alone in pairs)
        low, high = ends_of_median(len(more))
        cpu = statistics.median(run.cpu for run in found)
        page = statistics.median(run.page / run.wall for run in found)
        rows.append(
            (
                name,
                f"{1e9 * cpu / asked.events:,.0f}",
                f"{100 * statistics.median(more):+.1f} %",
                f"{100 * more[low]:+.1f} to {100 * more[high]:+.1f} %",
                f"{1e3 * page:.1f}",
            )
        )
    head = (
        *("", "process, ns an event", "beside alone, median", "19 in 20"),
        "page's thread, ms a second",
    )
    print(markdown(head, rows))


def ends_of_median(n: int) -> tuple[int, int]:
    """Places of the ordered values between which the median is with chance 0.95, if it can be."""
    below, total, place = 0.0, 2.0**n, 0
    while (below + math.comb(n, place)) / total <= 0.025:
        below += math.comb(n, place)
        place += 1
    place = max(place - 1, 0)
    return place, n - 1 - place


def written(path: Path, n: int) -> None:
    """Four features and a class, as Parquet: fast to read, so that the page's share is large."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(1)
    X = rng.normal(size=(n, 4))
    table = {f"x{j}": X[:, j] for j in range(4)} | {"y": (X.sum(axis=1) > 0).astype(np.int64)}
    pq.write_table(pa.table(table), path)


def one(data: Path, browsers: int | None) -> Run:
    """One run. browsers: None without the page."""
    features = {f"x{j}": "number" for j in range(4)}
    config = {
        "source": str(data),
        "schema": {"target": "y", "task": "classification", "features": features},
        "pipeline": ["Normalizer", "KalmanClassifier", "ADWIN"],
    }
    clients: list[subprocess.Popen[bytes]] = []
    if browsers is not None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config["dashboard"] = {"port": port}
        address = f"http://127.0.0.1:{port}"
        clients = [
            subprocess.Popen([sys.executable, "-c", CLIENT, address]) for _ in range(browsers)
        ]
    ended = threading.Event()
    threads: list[float] = [0.0]
    looking = threading.Thread(target=_look, args=(threads, ended))
    looking.start()
    try:
        cpu, wall = time.process_time(), time.perf_counter()
        runner.run(check(config))
        return Run(time.process_time() - cpu, time.perf_counter() - wall, threads[0])
    finally:
        ended.set()
        looking.join()
        for client in clients:
            client.kill()
            client.wait()


def _look(found: list[float], ended: threading.Event) -> None:
    """The processor time of the page's thread, as of its last tenth of a second."""
    while not ended.wait(0.1):
        for thread in threading.enumerate():
            if thread.name == OWNER and thread.ident is not None:
                with contextlib.suppress(OSError):  # it has just ended
                    found[0] = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


if __name__ == "__main__":
    main()
