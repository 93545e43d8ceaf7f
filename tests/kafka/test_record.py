"""What a run consumed is recorded as it was, and replays to the same bits."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from streamlearn import config as configs
from streamlearn import job as jobs
from streamlearn import topics
from streamlearn.config import Config
from streamlearn.connectors.kafka.tape import batches
from streamlearn.contracts import Answers, Json, Reject, State
from streamlearn.engine import Engine
from streamlearn.job import Job
from streamlearn.order_log import OrderLog
from streamlearn.runner import engine_of
from streamlearn.tape import TapeOrder, record
from streamlearn.testing import assert_same_state
from tests.kafka.broker import Sent
from tests.kafka.doubles import MemoryBroker

NOW = 1_700_000_000_000  # ms
N = 400  # events of a run
SCHEMA: dict[str, Any] = {
    "features": {"x": "number", "kind": "category"}, "target": "y", "task": "classification",
    "id": "id",
}  # fmt: skip
PIPELINE = ["Imputer", "OneHotEncoder", "Normalizer", "KalmanClassifier", {"ADWIN": {"delta": 0.3}}]


class Kept:
    """A sink, and one of dead letters, that keeps what it is given."""

    guarantee = "none"

    def __init__(self) -> None:
        self.answers: list[Answers] = []
        self.rejects: list[Reject] = []

    def open(self, position: Json) -> None:
        pass

    def write(self, answers: Any) -> None:
        if isinstance(answers, Answers):
            self.answers.append(answers)
        else:
            self.rejects += answers

    def commit(self) -> Json:
        return None

    def close(self) -> None:
        pass


class Seen(NamedTuple):
    """All that a run left behind."""

    outputs: dict[str, bytes]
    origins: list[tuple[str, int, int]]
    rejects: list[tuple[str, int, str]]
    pipeline: State
    evaluation: State
    labels: State
    alarms: int


def config_of(memory: MemoryBroker, folder: Path, **more: Any) -> Config:
    table: dict[str, Any] = {
        "kafka": {"bootstrap": memory.bootstrap},
        "source": "kafka:e",
        "labels": {"source": "kafka:l", "timeout": "90s"},
        "schema": SCHEMA,
        "pipeline": PIPELINE,
        "checkpoint": {"path": str(folder), "every_events": 50},
    }
    config = configs.check({k: v for k, v in (table | more).items() if v is not None})
    assert config.kafka is not None
    return config.model_copy(update={"kafka": config.kafka.model_copy(update={"client": "memory"})})


def event(seed: int, i: int) -> Sent:
    """One in eleven does not fit; some have no value."""
    if i % 29 == 7:
        return Sent(None, b"gone", NOW + 1000 * i)
    rng = np.random.default_rng([seed, i])
    x: Any = "wild" if i % 11 == 4 else round(float(rng.normal()), 3)
    value = {"id": i, "x": x, "kind": f"k{int(rng.integers(0, 2 + i // 60))}"}
    return Sent(json.dumps(value).encode(), b"%d" % i, NOW + 1000 * i, [("h", b"%d" % i)])


def label(seed: int, i: int) -> Sent:
    """Of an event some seconds ago, by its x, until a drift; every 13th is of none."""
    of = 5000 + i if i % 13 == 5 else i
    x = json.loads(event(seed, i).value or b"{}").get("x", 0)
    y = "c" if i > 100 and i % 17 == 0 else "ab"[(x != "wild" and x > 0) != (i > N // 2)]
    time = NOW + 1000 * i + i * 7919 % 9000
    return Sent(json.dumps({"id": of, "y": y}).encode(), b"%d" % i, time)


def stages(seed: int) -> list[list[tuple[str, Sent]]]:
    """Events and labels of two partitions each, in lots that are produced one after the other."""
    out: list[list[tuple[str, Sent]]] = []
    for start in range(0, N, 20):
        lot = [("e", event(seed, i)._replace(partition=i % 2)) for i in range(start, start + 20)]
        lot += [("l", label(seed, i)._replace(partition=i % 3 % 2))
                for i in range(start - 10, start + 10) if i >= 0 and i % 7]  # fmt: skip
        out.append(lot)
    return out


def engine_for(job: Job) -> tuple[Engine, Kept]:
    kept = Kept()
    return engine_of(job._replace(sink=kept, dead_letters=kept)), kept


def seen(engine: Engine, kept: Kept, job: Job) -> Seen:
    names = dict.fromkeys(name for a in kept.answers for name in a.outputs)
    outputs: dict[str, bytes] = {}
    for name in names:
        found = [a.outputs[name] for a in kept.answers if name in a.outputs]
        width = max((one.shape[1] for one in found if one.ndim == 2), default=0)
        if width:  # a class that was unknown has probability 0
            found = [np.pad(one, [(0, 0), (0, width - one.shape[1])]) for one in found]
            found = [np.where(np.isnan(one[:, :1]), np.nan, one) for one in found]
        outputs[name] = np.concatenate(found).tobytes()
    origins = [
        (*a.origins.partitions[p], int(o))
        for a in kept.answers
        if a.origins is not None
        for p, o in zip(a.origins.partition.tolist(), a.origins.offset.tolist(), strict=True)
    ]
    rejects = sorted((r.partition, r.position, r.reason) for r in kept.rejects)
    late: Any = job.source
    return Seen(
        outputs,
        origins,
        rejects,
        job.pipeline.state(),
        job.evaluation.state(),
        late.state(),
        engine.alarms,
    )


def produce(memory: MemoryBroker, lot: list[tuple[str, Sent]]) -> None:
    for topic, sent in lot:
        memory.produce(topic, [sent])


def lived(
    memory: MemoryBroker,
    config: Config,
    seed: int,
    between: Callable[[int], None] = lambda k: None,
) -> Seen:
    """A run whose records come in lots, some of whose partitions are away for a while."""
    memory.create("e", 2)
    memory.create("l", 2)
    rng = np.random.default_rng(seed + 100)
    job = jobs.lineage(config)
    engine, kept = engine_for(job)
    engine.begin()
    places = [(topic, number) for topic in "el" for number in (0, 1)]
    for k, lot in enumerate(stages(seed)):
        produce(memory, lot)
        memory.held = {place for place in places if rng.random() < 0.2}
        for _ in range(int(rng.integers(1, 6))):
            engine.step(0.0)
        between(k)
    memory.held = set()
    for _ in range(50):
        engine.step(0.0)
    engine.end()
    return seen(engine, kept, job)


def replayed(config: Config, folder: Path, order: OrderLog | None = None) -> Seen:
    """A replay of a recording, in other blocks."""
    engine_section = config.engine.model_copy(update={"block_rows": 7})
    read = topics.taped(config, folder).model_copy(
        update={"checkpoint": None, "engine": engine_section}
    )
    place = topics.place_of(read, read.source)
    stream = jobs.stream_for(place, read.schema_, {"label_time": None}, read, lambda text: None)
    pipeline = jobs.pipeline_of(None, read, None, {}, stream.schema)
    evaluation = jobs.evaluation_of(read, stream.schema, task=pipeline.task)
    job = jobs.with_late_labels(stream.job(pipeline, evaluation), order or TapeOrder(folder))
    engine, kept = engine_for(job)
    engine.run()
    return seen(engine, kept, job)


def assert_same(one: Seen, other: Seen) -> None:
    assert one.origins == other.origins
    assert one.outputs == other.outputs
    assert one.alarms == other.alarms
    assert one.rejects == other.rejects
    for name in ("pipeline", "evaluation", "labels"):
        assert_same_state(getattr(one, name), getattr(other, name), name)


def rows_of(folder: Path) -> list[Mapping[str, Any]]:
    names = ["role", "topic", "partition", "offset", "key", "value", "headers", "fits", "timestamp"]
    return [row for batch in batches(folder, names) for row in batch.to_pylist()]


@pytest.mark.parametrize("seed", range(4))
def test_a_recorded_run_replays_to_the_same_bits(
    memory: MemoryBroker, tmp_path: Path, seed: int
) -> None:
    """Records that come late, do not fit, or have no value; labels before and without events."""
    config = config_of(memory, tmp_path / "run")
    live = lived(memory, config, seed)
    assert live.alarms > 0  # the detector has something to say
    assert live.rejects
    record(config, tmp_path / "tape")
    assert_same(replayed(config, tmp_path / "tape"), live)
