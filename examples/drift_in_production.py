"""Drift in production: what changed, what is done about it, and who hears of it.

26,000 payments, some of them fraud. From payment 12,000 on other hours of the day are risky: the
concept drifts, and labels tell. From payment 20,000 on amounts triple: a feature drifts, and no
label is needed to see it. A run watches both, adapts its model, sends each alarm to a webhook on
this machine, and shows its metrics to whoever asks.

Run it: python examples/drift_in_production.py
It needs the extra `metrics`.
"""

import csv
import json
import math
import random
import socket
import sys
import tempfile
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import streamlearn

PAYMENTS, CONCEPT, FEATURE = 26_000, 12_000, 20_000
CONFIG = """
source: payments.csv
schema:
  target: fraud
  task: classification
  classes: boolean
  id: id
  features: {amount: number, hour: number, country: category}
pipeline:
  - FeatureDrift: {reference: 10000, window: 100, every: 25} # needs no label
  - Imputer
  - OneHotEncoder
  - Normalizer
  - AdaptiveClassifier: # its detector hears of the errors of its model
      model: {KalmanHead: {lr_delta: 0}}
      detector: {ADWIN: {average_run_length: 50000}}
      policy: [reset, {replay: {rows: 200}}]
engine: {pace: 8000} # events a second: slow enough to be looked at
sink: answers.csv
checkpoint: {path: checkpoints}
"""


def payments(path: Path) -> None:
    """Write the stream."""
    rng = random.Random(7)  # nothing secret
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "amount", "hour", "country", "fraud"])
        for i in range(PAYMENTS):
            amount, hour = rng.lognormvariate(3, 1), rng.uniform(0, 24)
            if i >= FEATURE:
                amount *= 3
            fraud = (hour < 8) if i < CONCEPT else (hour > 16)
            fraud ^= rng.random() < 0.05
            country = rng.choice("ABC")
            writer.writerow([f"p{i}", round(amount, 2), round(hour, 2), country, fraud])


class Hook(BaseHTTPRequestHandler):
    """A service of ours that takes alarms; the first one makes it look at the metrics."""

    alarms: ClassVar[list[dict[str, Any]]] = []
    metrics = ""
    metrics_at = ""

    def do_POST(self) -> None:
        """Take an alarm."""
        alarm = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.alarms:
            with urllib.request.urlopen(self.metrics_at, timeout=5) as answer:
                Hook.metrics = answer.read().decode()
        self.alarms.append(alarm)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: the example prints what came."""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(folder: Path) -> streamlearn.Result:
    """The stream from its first event to its last, with a webhook and `/metrics` beside it."""
    payments(folder / "payments.csv")
    server, port = ThreadingHTTPServer(("127.0.0.1", 0), Hook), free_port()
    Hook.metrics_at = f"http://127.0.0.1:{port}/metrics"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (folder / "run.yaml").write_text(CONFIG, encoding="utf-8")
    places = {
        "source": str(folder / "payments.csv"),
        "sink": str(folder / "answers.csv"),
        "checkpoint.path": str(folder / "checkpoints"),
        "webhook": f"http://127.0.0.1:{server.server_port}/alarms",
        "health.port": port,
    }
    try:
        return streamlearn.run(streamlearn.load_config(folder / "run.yaml", places))
    finally:
        server.shutdown()
        server.server_close()


def accuracy(folder: Path, begin: int, end: int) -> float:
    """Of the answers to payments begin to end, the share that was right."""
    with (folder / "payments.csv").open(encoding="utf-8") as file:
        truth = {row["id"]: row["fraud"].lower() for row in csv.DictReader(file)}
    with (folder / "answers.csv").open(encoding="utf-8") as file:
        said = {row["id"]: row["prediction"].lower() for row in csv.DictReader(file)}
    ids = [f"p{i}" for i in range(begin, end)]
    return math.fsum(said[name] == truth[name] for name in ids) / len(ids)


def main() -> int:
    """Run, show what came out, and check that it is what the first lines promise."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(folder)
        before, dip, after = (
            accuracy(folder, at, at + 1_000) for at in (CONCEPT - 1_000, CONCEPT, CONCEPT + 1_000)
        )
    moved: list[str] = []
    acted: list[str] = []
    for alarm in Hook.alarms:
        for found in alarm["findings"]:
            print(f"alarm at payment {alarm['event']:,}: {json.dumps(found)}")
            if found["watches"] == "features" and alarm["event"] >= FEATURE:
                moved += [feature["name"] for feature in found["features"]]
            elif CONCEPT <= alarm["event"] < CONCEPT + 300:
                acted.append(found["action"])
    print(f"accuracy of 1,000 payments: before the concept drift {before:.3f}, ", end="")
    print(f"after it {dip:.3f}, then {after:.3f}")
    events = [line for line in Hook.metrics.splitlines() if line.startswith("streamlearn_events")]
    print("at the first alarm /metrics said", *events)
    kept = {
        "the feature that moved is named": moved[:1] == ["amount"],
        "the model began anew and replayed": acted == ["reset+replay"],
        "it recovered": after > before - 0.02 > 0.85,
        "metrics were read": bool(events),
    }
    for promise, true in kept.items():
        print("kept:" if true else "BROKEN:", promise)
    return 0 if all(kept.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
