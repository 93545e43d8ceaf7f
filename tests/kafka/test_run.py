"""Runs of whole configurations on topics: what comes out, once, and what is said when it cannot."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamlearn import runner, yaml12
from streamlearn.archive import read_archive
from streamlearn.cli import _status
from streamlearn.config import Config, check, load_config
from tests.kafka.broker import Broker, Sent, consume, produce

T0 = 1_790_000_000_000
Topic = Callable[..., str]


def events(n: int, partitions: int, seed: int = 1) -> tuple[list[Sent], list[Sent]]:
    """Events and their labels, one each millisecond; a label comes 20 events after its event."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    sent, labels = [], []
    for i, (a, b) in enumerate(X.tolist()):
        key, at = b"k%d" % (i % 7), T0 + i
        value = {"id": i, "a": a, "b": b}
        sent.append(Sent(json.dumps(value).encode(), key, at, (), i % partitions))
        label = {"id": i, "y": "up" if a + b > 0 else "down"}
        labels.append(Sent(json.dumps(label).encode(), key, at + 20, (), i % partitions))
    return sent, labels


class Setting:
    """Topics of events and labels, and a configuration over them."""

    def __init__(self, broker: Broker, topic: Topic, client: str, folder: Path) -> None:
        self.broker, self.client, self.folder = broker, client, folder
        self.events, self.labels = topic(2), topic(2)
        self.predictions, self.alerts, self.dead = topic(2), topic(1), topic(1)

    def config(self, **changed: Any) -> Config:
        data: dict[str, Any] = {
            "source": f"kafka:{self.events}?to=end",
            "labels": {"source": f"kafka:{self.labels}?to=end", "timeout": "1h"},
            "kafka": {"bootstrap": self.broker.bootstrap, "client": self.client},
            "schema": {
                "id": "id",
                "target": "y",
                "task": "classification",
                "features": {"a": "number", "b": "number"},
            },
            "pipeline": ["Imputer", "Normalizer", "KalmanHead", "ADWIN"],
            "sink": f"kafka:{self.predictions}",
            "alerts": f"kafka:{self.alerts}",
            "dead_letters": f"kafka:{self.dead}",
            "checkpoint": {"path": str(self.folder / "checkpoints"), "every_events": 250},
        }
        return check({k: v for k, v in (data | changed).items() if v is not None})

    def answers(self) -> list[dict[str, Any]]:
        """The values of the predictions, in the order of events."""
        found = [json.loads(got.value or b"") for got in consume(self.broker, self.predictions)]
        return sorted(found, key=lambda answer: answer["event"])


@pytest.fixture
def setting(broker: Broker, topic: Topic, client: str, tmp_path: Path) -> Setting:
    return Setting(broker, topic, client, tmp_path)


@pytest.mark.parametrize("delivery", ["at_least_once", "transactions"])
def test_every_event_of_a_topic_is_answered_once_and_its_label_learnt(
    setting: Setting, delivery: str
) -> None:
    sent, labels = events(1000, 2)
    produce(setting.broker, setting.events, sent)
    produce(setting.broker, setting.labels, labels)
    produce(setting.broker, setting.events, [Sent(b"no json", b"k", T0 + 5000, (), 0)])
    kafka = {"bootstrap": setting.broker.bootstrap, "client": setting.client, "delivery": delivery}
    result = runner.run(setting.config(kafka=kafka))
    assert result.events == 1000
    assert result.labels is not None
    assert result.labels["labelled"] == 1000
    assert (result.metrics["accuracy"] or 0.0) > 0.9
    answers = setting.answers()
    assert [answer["id"] for answer in answers] == list(range(1000))  # merged by time
    assert [answer["event"] for answer in answers] == list(range(1000))
    places = {(a["partition"], a["offset"]) for a in answers}
    assert places == {(p, o) for p in (0, 1) for o in range(500)}
    (dead,) = consume(setting.broker, setting.dead)
    assert b"no json" in (dead.value or b"")
    again = runner.run(setting.config(kafka=kafka))  # nothing new has come
    assert again.events == 1000
    assert len(setting.answers()) == 1000


# -- replays ---------------------------------------------------------------------------------------


def state_of(folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Pipeline, metrics and pending labels of the last checkpoint in a folder: bytes and table."""
    newest = sorted(folder.glob("checkpoint-*.safetensors"))[-1]
    arrays, table = read_archive(newest)
    kept = {k: a.tobytes() for k, a in arrays.items()}
    return kept, {k: table[k] for k in ("events", "pipeline", "evaluation", "schema", "labels")}


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_live_run_is_replayed_along_its_order_log_to_the_same_bits(
    setting: Setting, tmp_path: Path
) -> None:
    sent, labels = events(600, 2)
    produce(setting.broker, setting.events, sent[:50])
    live = setting.config(
        source=f"kafka:{setting.events}", labels={"source": f"kafka:{setting.labels}"}
    )
    turns = iter([(sent[50:400], labels[:200]), (sent[400:], labels[200:380]), ([], labels[380:])])
    job = runner.plan(live)
    assert job.labels is not None
    engine = runner.engine_of(job)
    seen = 0
    engine.begin()
    while engine.step() and seen < 1200:  # what comes in mid-stream comes when all was taken
        seen = engine.events + job.labels.report()["labelled"]
        if engine.idle and (turn := next(turns, None)) is not None:
            produce(setting.broker, setting.events, turn[0])
            produce(setting.broker, setting.labels, turn[1])
    engine.end()
    said = setting.answers()
    config = setting.folder / "c.yaml"
    config.write_text(yaml12.dump(live.model_dump(mode="json", by_alias=True, exclude_unset=True)))
    found = runner.replay(
        data=str(config),
        order=setting.folder / "checkpoints" / "order.log",
        predictions=tmp_path / "p.jsonl",
        checkpoint=tmp_path / "replayed",
    )
    assert found.events == 600
    rows = rows_of(tmp_path / "p.jsonl")
    assert [row["prediction"] for row in rows] == [answer["prediction"] for answer in said]
    assert [row["id"] for row in rows] == [answer["id"] for answer in said]
    live_state, live_table = state_of(setting.folder / "checkpoints")
    state, table = state_of(tmp_path / "replayed")
    assert live_state == state
    assert live_table == table


def test_a_range_of_a_topic_is_replayed_by_its_location_alone(
    setting: Setting, tmp_path: Path
) -> None:
    rows = [{"id": i, "a": float(i), "y": 2.0 * i} for i in range(100)]
    one = setting.alerts  # a topic of one partition
    produce(setting.broker, one, [Sent(json.dumps(row).encode(), b"k", T0 + i, (), 0)
                                  for i, row in enumerate(rows)])  # fmt: skip
    at = f"kafka:{one}?bootstrap={setting.broker.bootstrap}&client={setting.client}"
    found = runner.replay(data=f"{at}&from=10&to=60", target="y", features="a")
    assert (found.events, found.target) == (50, "y")
    from_time = "2026-09-21T14:13:20.090Z"  # T0 + 90
    found = runner.replay(data=f"{at}&from={from_time}", target="y", id="id")
    assert found.events == 10
    assert found.schema["time"] == "$timestamp"


# -- the command line ------------------------------------------------------------------------------


def test_a_topic_gives_a_configuration_which_is_valid_and_runs(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(setting.folder)
    rows = [{"id": i, "a": i % 5, "y": "up" if i % 5 > 2 else "down"} for i in range(200)]
    one = setting.alerts  # a topic of one partition
    produce(setting.broker, one, [Sent(json.dumps(row).encode(), b"k", T0 + i, (), 0)
                                  for i, row in enumerate(rows)])  # fmt: skip
    at = f"kafka:{one}?bootstrap={setting.broker.bootstrap}&client={setting.client}"
    assert _status(["init", at, "--target", "y"]) == 0
    config = load_config("streamlearn.yaml")
    assert config.kafka is not None
    assert config.kafka.bootstrap == setting.broker.bootstrap
    assert (config.schema_ and config.schema_.time) == "$timestamp"
    assert _status(["validate", "streamlearn.yaml"]) == 0
    assert _status(["validate", "streamlearn.yaml", "--connect", "--set", "sink=kafka:nowhere"])
    assert "nowhere" in capsys.readouterr().err
    assert _status(["run", "streamlearn.yaml", "--limit", "200", "--json", "r.json"]) == 0
    assert json.loads(Path("r.json").read_text())["metrics"]["accuracy"] > 0.8


def test_labels_of_another_topic_are_joined_in_a_replay_of_a_range(setting: Setting) -> None:
    sent, labels = events(200, 2)
    produce(setting.broker, setting.events, sent)
    produce(setting.broker, setting.labels, labels)
    found = runner.replay(
        data=f"kafka:{setting.events}?bootstrap={setting.broker.bootstrap}&client={setting.client}",
        labels=f"kafka:{setting.labels}",
        id="id",
        target="y",
    )
    assert found.events == 200
    assert found.labels is not None
    assert found.labels["labelled"] == 200


def test_a_run_that_began_at_the_end_is_replayed_from_there(setting: Setting) -> None:
    sent, labels = events(300, 2)
    produce(setting.broker, setting.events, sent[:100])
    produce(setting.broker, setting.labels, labels[:100])
    live = setting.config(
        source=f"kafka:{setting.events}?start=latest",
        labels={"source": f"kafka:{setting.labels}?start=latest"},
    )
    engine = runner.engine_of(runner.plan(live))
    engine.begin()
    produce(setting.broker, setting.events, sent[100:])
    produce(setting.broker, setting.labels, labels[100:])
    while engine.step() and engine.events < 200:
        pass
    engine.end()
    config = setting.folder / "c.yaml"
    config.write_text(yaml12.dump(live.model_dump(mode="json", by_alias=True, exclude_unset=True)))
    predictions = setting.folder / "p.jsonl"
    runner.replay(data=str(config), order=setting.folder / "checkpoints", predictions=predictions)
    said = [(answer["id"], answer["prediction"]) for answer in setting.answers()]
    assert [(row["id"], row["prediction"]) for row in rows_of(predictions)] == said
    assert len(said) == 200
