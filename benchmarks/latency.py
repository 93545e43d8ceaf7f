"""Blocks of one event: what a lone event takes through pipelines, with what measures it."""

from collections.abc import Callable
from typing import Any

from benchmarks import clock, streams
from benchmarks.tables import markdown
from benchmarks.whole_replays import pipeline
from streamlearn import KalmanRegressor, LiteRVFLClassifier, Normalizer, Pipeline
from streamlearn.block import Block
from streamlearn.config import default_pipeline
from streamlearn.engine import frozen_objects
from streamlearn.evaluation import Evaluation

TITLE = "One event"
ABOUT = """\
A block of one labelled event, answered and learnt, 8 features: microseconds of each of at least
20,000 calls, Python's cyclic collector frozen as it is in the loop of a run."""
SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def measure(quick: bool) -> list[dict[str, Any]]:
    """Percentiles by what is called."""
    clock.pin()
    return [{"what": name} | _percentiles(call, quick) for name, call in _calls().items()]


def tables(found: list[dict[str, Any]]) -> list[str]:
    """One table."""
    head = ("one event through", *(f"{label}, us" for label in SHARES), "calls")
    return [markdown(head, [
        (f["what"], *(f"{f[label]:.1f}" for label in SHARES), f"{f['calls']:,}") for f in found
    ])]  # fmt: skip


def summary(found: list[dict[str, Any]]) -> list[str]:
    """For README.md."""
    return [ABOUT, *tables(found)]


def _calls() -> dict[str, Callable[[], object]]:
    block = streams.block(1000, streams.N_FEATURES, classes=True, category=False)
    number = streams.block(1000, streams.N_FEATURES, classes=False, category=False)
    made = {
        "Normalizer, KalmanClassifier, ADWIN": (pipeline(), block),
        "the default pipeline (KalmanHead)": (default_pipeline(task="classification"), block),
        "Normalizer, KalmanRegressor": (Pipeline(Normalizer(), KalmanRegressor()), number),
        "Normalizer, LiteRVFLClassifier": (Pipeline(Normalizer(), LiteRVFLClassifier()), block),
    }
    calls: dict[str, Callable[[], object]] = {}
    for name, (pipe, rows) in made.items():
        pipe.run(rows)
        calls[name] = _alone(pipe, rows.rows(0, 1))
    pipe = default_pipeline(task="classification")
    measured = Evaluation("classification", block.labels)
    measured.update(block, pipe.run(block))
    event = block.rows(0, 1)
    calls["the default pipeline, and its metrics"] = lambda: measured.update(event, pipe.run(event))
    first = {f"x{j}": float(v) for j, v in enumerate(block.X[0])}
    asked = pipeline()
    asked.learn_one(first, True)
    calls["predict_one and learn_one on a dict"] = lambda: _both(asked, first)
    return calls


def _alone(pipe: Pipeline, event: Block) -> Callable[[], object]:
    return lambda: pipe.run(event)


def _both(pipe: Pipeline, event: dict[str, float]) -> None:
    pipe.predict_one(event)
    pipe.learn_one(event, True)


def _percentiles(call: Callable[[], object], quick: bool) -> dict[str, float]:
    for _ in range(1 if quick else 200):
        call()
    with frozen_objects():
        taken = clock.repeated(call, 0.0, at_least=10 if quick else clock.MOST_CALLS)
    found = {label: clock.percentile(taken, share) / 1e3 for label, share in SHARES.items()}
    return found | {"calls": len(taken)}
