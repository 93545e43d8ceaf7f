"""Runs a small real pipeline in forked processes and kills them; driven by test_crash.py.

A script of its own: it imports and loads the kernels once, so a hundred kills cost seconds. Each
line on standard input is a job as JSON; the answer is a line with the number of kills it took.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from streamlearn.checkpoint import CheckpointStore
from streamlearn.connectors import open_dead_letters, open_sink, open_source
from streamlearn.contracts import Source
from streamlearn.engine import Engine
from streamlearn.evaluation import Evaluation
from streamlearn.labels import DelayedLabels, JoinedLabels
from streamlearn.operators import ADWIN, Imputer, KalmanClassifier, Normalizer, OneHotEncoder
from streamlearn.order_log import OrderLog
from streamlearn.pipeline import Pipeline
from streamlearn.schema import LabelSchema, Schema
from streamlearn.spill import Spill

Run = Callable[[dict[str, Any], int, random.Random], int]
SPILL_ABOVE = 1 << 15  # bytes of pending events: little, so that some are in files


def pipeline() -> Pipeline:
    return Pipeline(Imputer(), OneHotEncoder(), Normalizer(), KalmanClassifier(), ADWIN(delta=0.2))


def engine(job: dict[str, Any], block_rows: int) -> Engine:
    """One run, with everything that a user would have."""
    folder = Path(job["folder"])
    schema = Schema.from_config(job["schema"])
    store = CheckpointStore(folder / "checkpoints")
    source: Any = open_source(job["data"], schema)
    late = job.get("late")
    if late is not None:
        source = late_source(source, schema, store, late)
    run, spill = pipeline(), Spill(folder / "checkpoints" / "pending", keep=store.keep)
    run.spill_to(spill, SPILL_ABOVE)
    return Engine(
        source,
        run,
        evaluation=Evaluation("classification", window=100, delayed=late is not None),
        sink=open_sink(folder / job["name"], source if late is not None else schema),
        dead_letters=open_dead_letters(folder / "dead.jsonl"),
        checkpoints=store,
        spill=spill,
        every_events=job["every_events"],
        block_rows=block_rows,
    )


def late_source(source: Source, schema: Schema, store: CheckpointStore, late: Any) -> Source:
    """The same events with labels that come late: delayed, or from a file of their own."""
    if "labels" not in late:
        return DelayedLabels(source, schema, late["delay"])
    table = LabelSchema.from_config(late["schema"])
    order = OrderLog(store.path / "order.log", store)
    labels = open_source(late["labels"], table)
    return JoinedLabels(source, labels, schema, table, order_log=order, **late["options"])


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(fault: str, count: int) -> None:
    """Die at the count-th passage of a point: before it, after it, or half way through a write."""
    when, _, name = fault.partition(" ")
    owner: Any = CheckpointStore if name == "save" else os
    real: Callable[..., Any] = getattr(owner, name)
    left = [count]

    def passing(*args: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and when == "before":
            kill()
        if left[0] == 0 and when == "half":
            real(args[0], args[1][: len(args[1]) // 2])
            kill()
        result = real(*args)
        if left[0] == 0:
            kill()
        return result

    setattr(owner, name, passing)


def run(job: dict[str, Any], attempt: int, rng: random.Random) -> int:
    """One forked run; its exit status, negative where it was killed."""
    block_rows = rng.choice([23, 61, 500])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if attempt == 0 and job.get("fault"):
                arm(job["fault"], job["count"])
            engine(job, block_rows).run()
            status = 0
        finally:
            os._exit(status)
    if attempt < job.get("kills", 0):
        time.sleep(rng.uniform(0.0, job["seconds"]))
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def serve(job: dict[str, Any], run: Run) -> dict[str, Any]:
    """Start again until a run ends by itself; `run` gives the exit status of one attempt."""
    rng = random.Random(job["seed"])
    started, killed = time.perf_counter(), 0
    for attempt in range(1000):
        status = run(job, attempt, rng)
        if status == 0:
            break
        if status != -signal.SIGKILL:
            raise SystemExit(f"the run failed with status {status}")
        killed += 1
    return {"killed": killed, "seconds": time.perf_counter() - started}


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    first = json.loads(sys.stdin.readline())
    schema = Schema.from_config(first["schema"])
    block, _ = schema.decode(first["records"])
    warm = Evaluation("classification", window=100)
    warm.update(block, pipeline().run(block))
    warm.result()
    say({"ready": bool(np.isfinite(block.y).any())})
    for line in sys.stdin:
        say(serve(json.loads(line), run))


if __name__ == "__main__":
    main()
