"""What a run consumed is recorded as it was, and replays to the same bits."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from streamlearn import cli, order_log, tape, topics
from streamlearn import config as configs
from streamlearn import job as jobs
from streamlearn.config import Config
from streamlearn.connectors.kafka import source as kafka_source
from streamlearn.connectors.kafka.tape import batches, manifest_of
from streamlearn.connectors.kafka.wire import Connection
from streamlearn.contracts import Answers, Json, Reject, State
from streamlearn.engine import Engine
from streamlearn.errors import UserError
from streamlearn.job import Job
from streamlearn.order_log import OrderLog
from streamlearn.runner import engine_of, replay
from streamlearn.tape import TapeOrder, order_of, record
from streamlearn.testing import assert_same_state, bits
from tests.kafka import doubles
from tests.kafka.broker import Broker, Sent
from tests.kafka.broker import produce as broker_produce
from tests.kafka.doubles import MemoryBroker

NOW = 1_700_000_000_000  # ms
N = 300  # events of a run
SCHEMA: dict[str, Any] = {
    "features": {"x": "number", "kind": "category"}, "target": "y", "task": "classification",
    "id": "id",
}  # fmt: skip
WITH_LABELS = SCHEMA | {"target": "kind", "features": {"x": "number"}}
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
        column = np.concatenate(found)
        if name == "why":  # there where something rose
            column = column[column != None]  # noqa: E711  # elementwise
        outputs[name] = bits(column)
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


Between = Callable[[int], None]


def nothing(k: int) -> None:
    """Between two lots."""


def run_through(
    memory: MemoryBroker, engine: Engine, seed: int, between: Between = nothing, start: int = 0
) -> None:
    """Produce lot after lot; some partitions are away for a while."""
    rng = np.random.default_rng(seed + 100)
    places = [(topic, number) for topic in "el" for number in (0, 1)]
    for k, lot in list(enumerate(stages(seed)))[start:]:
        produce(memory, lot)
        memory.held = {place for place in places if rng.random() < 0.2}
        for _ in range(int(rng.integers(1, 6))):
            engine.step(0.0)
        between(k)
    memory.held = set()
    for _ in range(50):
        engine.step(0.0)


def lived(
    memory: MemoryBroker, config: Config, seed: int, between: Between = nothing, **which: Any
) -> Seen:
    """A run of all lots, without an end but that."""
    for topic in "el":
        memory.create(topic, 2)
    job = jobs.lineage(config, **which)
    engine, kept = engine_for(job)
    engine.begin()
    run_through(memory, engine, seed, between)
    engine.end()
    return seen(engine, kept, job)


def repeated(read: Config, order: OrderLog, part: topics.Lineage = topics.ALL) -> Seen:
    """A replay, in other blocks."""
    engine_section = read.engine.model_copy(update={"block_rows": 7})
    read = read.model_copy(update={"checkpoint": None, "engine": engine_section})
    place = topics.place_of(read, read.source)
    asked = {"label_time": None}
    stream = jobs.stream_for(place, read.schema_, asked, read, lambda text: None, part)
    pipeline = jobs.pipeline_of(None, read, None, {}, stream.schema)
    evaluation = jobs.evaluation_of(read, stream.schema, task=pipeline.task)
    job = jobs.with_late_labels(stream.job(pipeline, evaluation), order)
    engine, kept = engine_for(job)
    engine.run()
    return seen(engine, kept, job)


def replayed(config: Config, folder: Path) -> Seen:
    """A replay of a recording."""
    return repeated(topics.taped(config, folder), TapeOrder(folder), topics.recorded(folder))


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


@pytest.mark.parametrize("seed", range(2))
def test_a_recorded_run_replays_to_the_same_bits(
    memory: MemoryBroker, tmp_path: Path, seed: int
) -> None:
    """Records that come late, do not fit, or have no value; labels before and without events."""
    config = config_of(memory, tmp_path / "run")
    live = lived(memory, config, seed)
    assert live.alarms > 0  # the detector has something to say
    assert live.rejects
    done = record(config, tmp_path / "tape")
    assert done.rows > len(live.origins)  # labels too
    assert_same(replayed(config, tmp_path / "tape"), live)


def test_the_topics_along_the_order_log_give_the_same_bits(
    memory: MemoryBroker, tmp_path: Path
) -> None:
    config = config_of(memory, tmp_path / "run")
    live = lived(memory, config, 5)
    for i in range(5):  # came after the run
        memory.produce("e", [event(5, N + i)])
    order = order_of("kafka:e", tmp_path / "run")
    assert order is not None
    assert_same(repeated(config, order), live)


def test_every_record_is_there_once_as_it_was(memory: MemoryBroker, tmp_path: Path) -> None:
    config = config_of(memory, tmp_path / "run")
    live = lived(memory, config, 3)
    record(config, tmp_path / "tape")
    rows = rows_of(tmp_path / "tape")
    for topic, role in (("e", "events"), ("l", "labels")):
        for number, log in enumerate(memory.topics[topic]):
            mine = [row for row in rows if (row["topic"], row["partition"]) == (topic, number)]
            kept = log.records[: len(mine)]
            assert all(r.value is None for r in log.records[len(mine) :])  # what no row follows
            assert [row["offset"] for row in mine] == list(range(len(mine)))
            assert [row["value"] for row in mine] == [r.value for r in kept]
            assert [row["key"] for row in mine] == [r.key for r in kept]
            assert [row["timestamp"].value for row in mine] == [r.time for r in kept]
            headers = [[(pair["name"], pair["value"]) for pair in row["headers"]] for row in mine]
            assert headers == [r.headers for r in kept]
            assert {row["role"] for row in mine} == {role}
    events = [row for row in rows if row["role"] == "events"]
    fit = [(row["topic"], row["partition"], row["offset"]) for row in events if row["fits"]]
    assert fit == live.origins
    odd = {(f"{row['topic']}/{row['partition']}", row["offset"]) for row in events
           if not row["fits"] and row["value"] is not None}  # fmt: skip
    assert odd == {(where, at) for where, at, _ in live.rejects if where.startswith("e/")}


def test_passes_beside_the_run_give_the_same_recording(
    memory: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small parts, order logs that are set aside, and passes that are killed."""
    monkeypatch.setattr(order_log, "FULL", 600)
    monkeypatch.setattr(tape, "PART", 1000)
    monkeypatch.setattr(tape, "_ROWS", 20)
    config = config_of(memory, tmp_path / "run")

    def killed(records: int) -> None:
        if records > so_far + 15:
            raise KeyboardInterrupt

    so_far = 0

    def between(k: int) -> None:
        nonlocal so_far
        memory.held = set()
        if k % 4 == 3:
            record(config, tmp_path / "many")
            so_far = manifest_of(tmp_path / "many").records
        elif k % 4 == 1:
            with suppress(KeyboardInterrupt):
                record(config, tmp_path / "many", progress=killed)

    live = lived(memory, config, 2, between)
    record(config, tmp_path / "many")
    record(config, tmp_path / "one")
    assert manifest_of(tmp_path / "many").parts > 5
    assert record(config, tmp_path / "many") == (0, 0)
    many, one = rows_of(tmp_path / "many"), rows_of(tmp_path / "one")
    assert [row for row in many if row["fits"]] == [row for row in one if row["fits"]]
    assert sorted(map(repr, many)) == sorted(map(repr, one))
    assert_same(replayed(config, tmp_path / "many"), live)


def test_a_run_that_saves_during_a_pass(memory: MemoryBroker, tmp_path: Path) -> None:
    """Its new checkpoint has passed rows that are not in this pass; the next one has them."""
    config = config_of(memory, tmp_path / "run")
    for topic in "el":
        memory.create(topic, 2)
    job = jobs.lineage(config)
    engine, kept = engine_for(job)
    engine.begin()

    class Half(Exception):
        pass

    def half(k: int) -> None:
        if k == 9:
            raise Half

    with pytest.raises(Half):
        run_through(memory, engine, 3, half)
    memory.held = set()
    went_on: list[int] = []

    def go_on(records: int) -> None:
        if not went_on:
            went_on.append(records)
            run_through(memory, engine, 3, start=10)
            engine.end()

    first = record(config, tmp_path / "tape", progress=go_on)
    assert went_on
    assert first.rows < record(config, tmp_path / "tape").rows + first.rows
    assert_same(replayed(config, tmp_path / "tape"), seen(engine, kept, job))


def test_a_run_that_was_killed_is_recorded_as_it_went_on(
    memory: MemoryBroker, tmp_path: Path
) -> None:
    """What a run repeats after a crash is one thing in its order, so it is one in the recording."""
    config = config_of(memory, tmp_path / "run")
    for topic in "el":
        memory.create(topic, 2)
    first, _ = engine_for(jobs.lineage(config))
    first.begin()

    class Killed(Exception):
        pass

    def kill(k: int) -> None:
        if k == 8:
            raise Killed

    with pytest.raises(Killed):
        run_through(memory, first, 4, kill)
    first.close()
    job = jobs.lineage(config)
    engine, kept = engine_for(job)
    engine.begin()
    assert engine.events > 0
    run_through(memory, engine, 4, start=9)
    engine.end()
    live = seen(engine, kept, job)
    record(config, tmp_path / "tape")
    again = replayed(config, tmp_path / "tape")
    assert again.origins[-len(live.origins) :] == live.origins
    assert len(again.origins) == engine.events
    for name in ("pipeline", "evaluation", "labels"):
        assert_same_state(getattr(again, name), getattr(live, name), name)


@pytest.mark.parametrize(
    "more",
    [
        {
            "labels": {"delay": 30},
            "schema": SCHEMA | {"target": "kind", "features": {"x": "number"}},
        },
        {"labels": None, "schema": SCHEMA | {"target": "kind", "features": {"x": "number"}}},
        {"source": "kafka:e?to=end", "labels": {"source": "kafka:l?to=end"}},
    ],
    ids=["delay", "with their events", "bounded"],
)
def test_other_runs_are_recorded_too(
    memory: MemoryBroker, tmp_path: Path, more: dict[str, Any]
) -> None:
    config = config_of(memory, tmp_path / "run", **more)
    if "source" in more:
        for topic in "el":
            memory.create(topic, 2)
        for lot in stages(1):
            produce(memory, lot)
        job = jobs.lineage(config)
        engine, kept = engine_for(job)
        engine.run()
        live = seen(engine, kept, job)
    else:
        live = lived(memory, config, 1)
    record(config, tmp_path / "tape")
    assert_same(replayed(config, tmp_path / "tape"), live)


def test_a_partition_that_is_added_is_recorded_from_its_first_record_on(
    memory: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_source, "LOOK", 0.0)
    config = config_of(memory, tmp_path / "run")

    def between(k: int) -> None:
        if k == 2:
            memory.held = set()
            record(config, tmp_path / "tape")
        if k == 4:
            admin = doubles.CLIENT.admin(Connection(memory.bootstrap, "memory"))
            admin.extend("e", 3)
        if k >= 4:
            memory.produce("e", [event(9, N + k)._replace(partition=2)])

    live = lived(memory, config, 9, between)
    assert any(number == 2 for _, number, _ in live.origins)
    record(config, tmp_path / "tape")
    assert_same(replayed(config, tmp_path / "tape"), live)


def test_a_run_from_the_latest_records_on(memory: MemoryBroker, tmp_path: Path) -> None:
    """What was there before it is not in the recording."""
    for topic in "el":
        memory.create(topic, 2)
    for lot in stages(6)[:4]:
        produce(memory, lot)
    more = {"source": "kafka:e?start=latest", "labels": {"source": "kafka:l?start=latest"}}
    config = config_of(memory, tmp_path / "run", **more)
    job = jobs.lineage(config)
    engine, kept = engine_for(job)
    engine.begin()
    begun = {place: len(log.records) for topic in "el" for place, log in
             (((topic, k), one) for k, one in enumerate(memory.topics[topic]))}  # fmt: skip
    run_through(memory, engine, 6, start=4)
    engine.end()
    record(config, tmp_path / "tape")
    rows = rows_of(tmp_path / "tape")
    for (topic, number), first in begun.items():
        mine = [r["offset"] for r in rows if (r["topic"], r["partition"]) == (topic, number)]
        fits = [r["offset"] for r in rows
                if (r["topic"], r["partition"]) == (topic, number) and r["fits"]]  # fmt: skip
        assert first <= mine[0] <= fits[0]
        assert mine == list(range(mine[0], mine[-1] + 1))
    again = replayed(config, tmp_path / "tape")
    live = seen(engine, kept, job)
    assert_same(again._replace(rejects=[]), live._replace(rejects=[]))


def test_one_lineage_of_several_is_recorded(memory: MemoryBroker, tmp_path: Path) -> None:
    config = config_of(memory, tmp_path / "run")
    live = lived(memory, config, 7, number=1)
    record(config, tmp_path / "tape", partition=1)
    assert {row["partition"] for row in rows_of(tmp_path / "tape")} == {1}
    assert_same(replayed(config, tmp_path / "tape"), live)


def test_a_recorder_that_follows_ends_when_it_is_told(
    memory: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(memory, tmp_path / "run")
    lived(memory, config, 0)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("streamlearn.config.load_config", lambda *_: config)
    arguments = ["record", "run.yaml", "-o", str(tmp_path / "tape"), "--follow", "--every", "7"]
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 130
    assert slept == [7.0, 7.0, 7.0]
    assert manifest_of(tmp_path / "tape").parts == 1


# -- what cannot be recorded -----------------------------------------------------------------------


def refused(config: Config, folder: Path, message: str, **more: Any) -> None:
    with pytest.raises(UserError, match=message) as told:
        record(config, folder / "tape", **more)
    assert "\n" not in str(told.value)


def test_what_has_no_order_is_refused(memory: MemoryBroker, tmp_path: Path) -> None:
    for topic in "el":
        memory.create(topic, 2)
    config = config_of(memory, tmp_path / "run")
    refused(config, tmp_path, "there is no such order log; record what a run on topics")
    alone = config.model_copy(update={"checkpoint": None})
    refused(alone, tmp_path, "^checkpoint: must be there to record a run")
    assert config.kafka is not None
    group = config.model_copy(update={"kafka": config.kafka.model_copy(update={"mode": "group"})})
    refused(group, tmp_path, "^partition: must be given where every partition has its own model")
    (tmp_path / "labels.csv").write_text("id,y,t\n1,a,1\n")
    labels = {"source": str(tmp_path / "labels.csv"), "time": "t"}
    file = config_of(memory, tmp_path / "run", labels=labels)
    refused(file, tmp_path, r"^labels\.source: must be topics to be recorded")


def test_records_that_the_topic_has_let_go_are_told(memory: MemoryBroker, tmp_path: Path) -> None:
    config = config_of(memory, tmp_path / "run")
    lived(memory, config, 0)
    memory.log(("e", 0)).begin = 20
    refused(config, tmp_path, "e/0: .*order log says 0")


def test_a_schema_that_is_not_that_of_the_run_is_told(memory: MemoryBroker, tmp_path: Path) -> None:
    lived(memory, config_of(memory, tmp_path / "run"), 0)
    other = SCHEMA | {"features": {"x": "category", "kind": "category"}}
    refused(config_of(memory, tmp_path / "run", schema=other), tmp_path, "has the offset")


def test_a_recording_is_replayed_with_the_configuration_of_its_run(
    memory: MemoryBroker, tmp_path: Path
) -> None:
    config = config_of(memory, tmp_path / "run")
    lived(memory, config, 0)
    record(config, tmp_path / "tape")
    with pytest.raises(UserError, match=r"is a recording; name the configuration of its run"):
        replay(tmp_path / "tape")
    with pytest.raises(UserError, match=r"^order: .* is a recording, which has its own"):
        replay(tmp_path / "tape", order=tmp_path / "run")
    text = "source: a.csv\nschema: {features: {x: number}, target: y, task: regression}\n"
    (tmp_path / "file.yaml").write_text(text)
    with pytest.raises(UserError, match=r"^source: must be the topics that .* is a recording of"):
        replay(tmp_path / "tape", model=str(tmp_path / "file.yaml"))
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(UserError, match=r"^order: is that of several inputs"):
        replay(tmp_path / "a.csv", target="y", order=tmp_path / "run")


# -- with a broker ---------------------------------------------------------------------------------


def test_a_run_on_a_broker_is_recorded_and_replayed_by_commands(
    broker: Broker,
    client: str,
    topic: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The answers that the run wrote to a file and those of both replays are the same bytes."""
    names = {"e": topic(2), "l": topic(2)}
    for which, name in names.items():
        broker_produce(broker, name, [sent for lot in stages(8) for to, sent in lot if to == which])
    path = tmp_path / "run.yaml"
    table = {
        "kafka": {"bootstrap": broker.bootstrap, "client": client},
        "source": f"kafka:{names['e']}?to=end",
        "labels": {"source": f"kafka:{names['l']}?to=end", "timeout": "90s"},
        "schema": SCHEMA,
        "pipeline": PIPELINE,
        "checkpoint": {"path": str(tmp_path / "run"), "every_events": 50},
        "sink": str(tmp_path / "live.jsonl"),
    }
    path.write_text(json.dumps(table))

    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert not ended.value.code, captured.err
        return captured.out

    call("run", path)
    assert "of them rows, to" in call("record", path, "--output", tmp_path / "tape")
    taped, along = tmp_path / "taped.jsonl", tmp_path / "along.jsonl"
    call("replay", tmp_path / "tape", "--model", path, "--predictions", taped)
    call("replay", path, "--order", tmp_path / "run", "--predictions", along)
    live = (tmp_path / "live.jsonl").read_bytes()
    assert live.count(b"\n") > N * 0.8
    assert taped.read_bytes() == live
    assert along.read_bytes() == live
