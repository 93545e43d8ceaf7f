"""A spy that raises where it is taught an event that it was not asked about before, in all runners.

Of every event it also notes which one it was asked about last, so a label that comes too early or
too late is seen as well.
"""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from river import base

from streamlearn import Pipeline, Result, compare, replay, run, tune

N = 160
FIRST = 1000  # what the first event is called; rows invented for a rehearsal have smaller numbers
START = 1_700_000_000
Lesson = tuple[int, int]  # the event that was taught, the event that was asked about last


class Spy(base.Classifier):
    """Answers what it was taught last. `lessons` are those of all spies of this process."""

    lessons: ClassVar[list[Lesson]] = []

    def __init__(self, share: float = 0.5) -> None:
        self.share = share
        self.asked: set[int] = set()
        self.taught: set[int] = set()
        self.last, self.answer = -FIRST, "no"

    def predict_one(self, x: dict[Any, Any], **kwargs: Any) -> Any:
        """Note that this event was asked about."""
        number = int(x["n"]) - FIRST
        self.asked.add(number)
        self.last = max(self.last, number)
        return self.answer

    def learn_one(self, x: dict[Any, Any], y: Any, **kwargs: Any) -> None:
        """Raise if it was not, or is taught twice."""
        number = int(x["n"]) - FIRST
        if number not in self.asked or number in self.taught:
            raise AssertionError(f"learn({number}) came before predict({number}), or twice")
        self.taught.add(number)
        self.answer = y
        if number >= 0:
            self.lessons.append((number, self.last))

    @property
    def _multiclass(self) -> bool:
        return True


class Forward(Spy):
    """A spy that answers anything after a peek: it is taught before it is asked."""

    def predict_one(self, x: dict[Any, Any], **kwargs: Any) -> Any:
        """Be taught first."""
        self.learn_one(x, "yes")
        return super().predict_one(x)


@pytest.fixture(autouse=True)
def _nothing_learnt() -> None:
    Spy.lessons.clear()


def records(n: int = N) -> list[dict[str, Any]]:
    """One event a second; labels become known 5 seconds later, every tenth one never."""
    return [
        {"id": f"e{i}", "t": START + i, "n": float(FIRST + i), "y": "yes" if i % 3 else "no",
         "known": START + i + 5 if i % 10 else None}
        for i in range(n)
    ]  # fmt: skip


COLUMNS: dict[str, Any] = {"target": "y", "features": ["n"]}


def in_turn(delay: int, events: Any = range(N)) -> list[Lesson]:
    """Event i is taught after event i + delay was asked about; at the end, after the last."""
    return [(i, min(i + delay, N - 1)) for i in events]


def test_a_peek_is_noticed() -> None:
    """What the others show rests on this: the spy does raise."""
    with pytest.raises(AssertionError, match=r"learn\(\S+\) came before predict"):
        replay(Pipeline(Forward()), records(), **COLUMNS)


@pytest.mark.parametrize("delay", [None, 0, 1, 7, 100, 5000])
def test_replay(delay: int | None) -> None:
    spied = replay(Pipeline(Spy()), records(), delay=delay, **COLUMNS)
    assert Spy.lessons == in_turn(delay or 0)
    assert spied.scored + spied.unanswered == N


@pytest.mark.parametrize("delay", ["5s", "known"])
def test_replay_by_the_clock(delay: str) -> None:
    """What is due at a time comes after the events of that time."""
    replay(Pipeline(Spy()), records(), delay=delay, time="t", **COLUMNS)
    comes = range(N) if delay == "5s" else [i for i in range(N) if i % 10]
    assert Spy.lessons == in_turn(5, comes)


def files(folder: Path) -> tuple[Path, Path]:
    """Events without labels, and the labels."""
    rows = records()
    events, labels = folder / "events.jsonl", folder / "labels.jsonl"
    asked = [{name: row[name] for name in ("id", "t", "n")} for row in rows]
    told = [{"id": r["id"], "t": r["known"], "y": r["y"]} for r in rows if r["known"] is not None]
    for path, lines in ((events, asked), (labels, told)):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return events, labels


def test_replay_with_labels_of_their_own(tmp_path: Path) -> None:
    events, labels = files(tmp_path)
    replay(Pipeline(Spy()), events, labels=labels, id="id", time="t", **COLUMNS)
    assert Spy.lessons == in_turn(5, [i for i in range(N) if i % 10])


@pytest.mark.parametrize("rows", [1, 7, 4096])
def test_run(rows: int, tmp_path: Path) -> None:
    events, labels = files(tmp_path)
    config = tmp_path / "spy.yaml"
    config.write_text(
        f"""
source: {events}
schema: {{features: {{n: {{kind: number}}}}, id: id, time: t, target: y, task: classification}}
pipeline: [{{{__name__}.Spy: {{}}}}]
labels: {{source: {labels}, timeout: 20s}}
engine: {{block_rows: {rows}}}
"""
    )
    result: Result = run(config)
    assert Spy.lessons == in_turn(5, [i for i in range(N) if i % 10])
    assert result.scored + result.unanswered == len(Spy.lessons)


@pytest.mark.parametrize("delay", [None, 7])
def test_compare(delay: int | None) -> None:
    found = compare(records(), Pipeline(Spy()), Pipeline(Spy(0.1)), delay=delay, **COLUMNS)
    assert not found.errors
    assert sorted(Spy.lessons) == sorted(2 * in_turn(delay or 0))


@pytest.mark.parametrize("delay", [None, 7])
def test_tune(delay: int | None, tmp_path: Path) -> None:
    """All go over the first part; what goes on was never taught ahead."""
    config = tmp_path / "spy.yaml"
    config.write_text(f"pipeline: [{{{__name__}.Spy: {{share: 0.5}}}}]\n")
    ranges = ["pipeline[0].share=0.1,0.9"]
    found = tune(records(), config, ranges, first=120, delay=delay, **COLUMNS)
    assert not [trial.error for trial in found.trials if trial.error]
    assert set(Spy.lessons) == set(in_turn(delay or 0))
    assert Spy.lessons.count(in_turn(delay or 0)[0]) == 3


@pytest.mark.parametrize("delay", [None, 7])
@pytest.mark.parametrize("probes", [0, 3])
def test_drift_evaluation(delay: int | None, probes: int) -> None:
    """The reset reference is taught what it was asked itself, and nobody is taught a probe."""
    found = replay(
        Pipeline(Spy()), records(), delay=delay, drifts="40,100", probes=probes, **COLUMNS
    )
    held = {start + 10 * k + 9 for start in (0, 40, 100) for k in range(probes)}
    own = [i for i in range(N) if i not in held]
    lessons = in_turn(delay or 0, own)
    again = [(i, last) for i, last in lessons if i >= 100 or (i >= 40 and last < 100)]
    assert found.drift is not None
    assert sorted(set(Spy.lessons)) == lessons
    assert len(Spy.lessons) == len(lessons) + len(again)
