"""The command: `python -m benchmarks.http [--seconds S]`.

Requests a second and their latency over loopback, each request durable before its answer: a server
of its own process, clients in threads, one connection each, 8 features an event. Beside it the
machine's fsync, which bounds a lone client.
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine

FEATURES = [f"f{i}" for i in range(8)]
CASES = [(1, 1), (8, 1), (32, 1), (1, 100), (4, 1000)]  # clients, events a request


def config(folder: Path) -> dict[str, Any]:
    """What is served: the pipeline of the benchmark of topics."""
    schema = {"id": "id", "target": "y", "task": "classification"}
    return {
        "schema": schema | {"features": dict.fromkeys(FEATURES, "number")},
        "pipeline": ["Normalizer", "KalmanClassifier", "ADWIN"],
        "checkpoint": {"path": str(folder / "checkpoints")},
        "serve": {"port": 0},
    }


class Server:
    """`streamlearn serve` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        path = folder / "serve.yaml"
        path.write_text(json.dumps(config(folder)), encoding="utf-8")
        command = [sys.executable, "-m", "streamlearn", "serve", str(path)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.startswith("serving at "):
                self.port = int(line.strip().rstrip("/").rpartition(":")[2])
                return
        raise SystemExit("the server did not start")

    def close(self) -> None:
        """Stop it in good order."""
        self._process.terminate()
        self._process.communicate()


class Client(threading.Thread):
    """Asks, and teaches what it asked, until a time; `took` has the seconds of each `/predict`."""

    def __init__(self, port: int, name: str, size: int, until: float) -> None:
        super().__init__()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._name, self._size, self._until = name, size, until
        self.took: list[float] = []
        self.requests = 0

    def run(self) -> None:
        """One request after the other."""
        rng, k = np.random.default_rng(len(self._name)), 0
        while time.perf_counter() < self._until:
            X = rng.normal(size=(self._size, len(FEATURES)))
            ids = [f"{self._name}-{k}-{i}" for i in range(self._size)]
            events = [{"id": id, "features": dict(zip(FEATURES, x, strict=True))}
                      for id, x in zip(ids, X.tolist(), strict=True)]  # fmt: skip
            labels = [{"id": id, "label": str(x[0] > 0)} for id, x in zip(ids, X, strict=True)]
            start = time.perf_counter()
            self._post("/predict", events)
            self.took.append(time.perf_counter() - start)
            self._post("/learn", labels)
            k += 1
        self._connection.close()

    def _post(self, path: str, items: list[Any]) -> None:
        self._connection.request("POST", path, json.dumps(items if self._size > 1 else items[0]))
        response = self._connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise SystemExit(f"{path}: {response.status} {text!r}")
        self.requests += 1


def fsync_milliseconds(folder: Path, rounds: int = 50) -> float:
    """Median of one write of 200 bytes with its sync."""
    took = []
    with (folder / "fsync").open("wb") as file:
        for _ in range(rounds):
            start = time.perf_counter()
            file.write(bytes(200))
            file.flush()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - start)
    return float(np.median(took)) * 1e3


def measured(port: int, clients: int, size: int, seconds: float) -> str:
    """A line of the table."""
    start = time.perf_counter()
    threads = [Client(port, f"{clients}x{size}-{i}-{start}", size, start + seconds)
               for i in range(clients)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = time.perf_counter() - start
    took = np.concatenate([thread.took for thread in threads]) * 1e3
    requests = sum(thread.requests for thread in threads)
    p50, p99 = np.percentile(took, [50, 99])
    rates = f"{requests / passed:,.0f} | {took.shape[0] * size / passed:,.0f}"
    return f"| {clients} | {size:,} | {rates} | {p50:.1f} | {p99:.1f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each case")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        server = Server(folder)
        print(json.dumps(machine.describe()))
        print(f"one write with its sync: {fsync_milliseconds(folder):.2f} ms")
        print("| clients | events a request | requests/s | events/s | p50 ms | p99 ms |")
        print("| --: | --: | --: | --: | --: | --: |")
        measured(server.port, 1, 10, 1.0)  # warms up
        for clients, size in CASES:
            print(measured(server.port, clients, size, seconds))
        server.close()


if __name__ == "__main__":
    main()
