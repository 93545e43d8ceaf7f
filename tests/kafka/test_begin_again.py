"""A transaction that is given up is no end of a run: it begins again from the last that counts."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from streamlearn import runner
from streamlearn.config import Config, check
from streamlearn.connectors.kafka.wire import AbortedError, FencedError
from tests.kafka.broker import Sent
from tests.kafka.doubles import MemoryBroker

T0 = 1_790_000_000_000


def config_of(memory: MemoryBroker, folder: Path) -> Config:
    found = check(
        {
            "source": "kafka:events?to=end",
            "kafka": {"bootstrap": memory.bootstrap, "delivery": "transactions"},
            "schema": {"target": "y", "task": "regression", "features": {"a": "number"}},
            "pipeline": ["KalmanHead"],
            "sink": "kafka:predictions",
            "checkpoint": {"path": str(folder / "checkpoints"), "every_events": 50},
        }
    )
    assert found.kafka is not None  # the double is no client that a configuration may name
    kafka = found.kafka.model_copy(update={"client": "memory"})
    return found.model_copy(update={"kafka": kafka})


@pytest.fixture
def filled(memory: MemoryBroker) -> MemoryBroker:
    for name in ("events", "predictions"):
        memory.create(name, 2)
    rows = [json.dumps({"a": i, "y": 2 * i}).encode() for i in range(200)]
    memory.produce("events", [Sent(row, b"k", T0 + i, (), i % 2) for i, row in enumerate(rows)])
    return memory


def test_a_run_begins_again_where_a_transaction_was_given_up(
    filled: MemoryBroker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("streamlearn.runner.clocks.sleep", pauses.append)
    real, left = runner._executed, [60, 120]

    def failing(job: Any, *rest: Any) -> Any:
        """Twice the broker gives a transaction up in mid-stream."""
        if left:
            broken = [left.pop(0)]
            poll = job.source.poll

            def polled(most: int, wait: float) -> Any:
                if broken and filled_events(job) >= broken[0]:
                    broken.clear()
                    filled.fail("commit", AbortedError("the broker gave the transaction up"))
                return poll(most, wait)

            job.source.poll = polled
        return real(job, *rest)

    def filled_events(job: Any) -> int:
        return sum(at for at in job.source.positions.values())

    monkeypatch.setattr(runner, "_executed", failing)
    result = runner.run(config_of(filled, tmp_path))
    assert result.events == 200
    assert pauses == [1.0, 2.0]
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert sum("going on from the last checkpoint that counts" in text for text in told) == 2
    answers = [json.loads(got.value or b"") for got in filled.consume("predictions")]
    assert sorted(answer["event"] for answer in answers) == list(range(200))


def test_a_run_that_another_has_taken_over_ends_with_one_line(
    filled: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.fail("commit", FencedError("events: another run has taken over"))
    with pytest.raises(FencedError, match="another run has taken over"):
        runner.run(config_of(filled, tmp_path))
