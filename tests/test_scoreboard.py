"""The scoreboard of detectors: streams, arithmetic on detectors that are known, the table."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamlearn import cli, contestants, drift_streams, scoreboard
from streamlearn.block import F8
from streamlearn.contestants import Contestant
from streamlearn.drift_streams import FIRST, HORIZON, INPUTS, KINDS, LENGTH, RATES


def test_a_stream_is_of_its_concepts_where_it_says() -> None:
    means = {kind: drift_streams.shares(kind) for kind in KINDS}
    for kind, share in means.items():
        assert share.shape == (LENGTH,)
        assert share[:FIRST].max() == 0.0
        first = drift_streams.starts(kind)
        assert all(share[start] > 0.0 == share[start - 1] for start in first)
        assert first[-1] + HORIZON <= LENGTH
    assert means["abrupt"][FIRST:].min() == 1.0
    assert means["gradual"][FIRST + 499] == pytest.approx(0.5)
    assert means["recurring"].sum() == 2 * drift_streams.STAY


@pytest.mark.parametrize("kind", KINDS)
def test_streams_are_seeded_and_have_the_rates(kind: str) -> None:
    runs = np.array([drift_streams.drifting(kind, "errors", 3, run) for run in range(40)])
    assert np.array_equal(runs[7], drift_streams.drifting(kind, "errors", 3, 7))
    assert not np.array_equal(runs[7], drift_streams.drifting(kind, "errors", 4, 7))
    assert set(np.unique(runs)) == {0.0, 1.0}
    share = drift_streams.shares(kind)
    for part in (share == 0.0, share == 1.0):
        expected = RATES[int(share[part][0])]
        assert runs[:, part].mean() == pytest.approx(expected, abs=0.01)
    numbers = drift_streams.drifting(kind, "numbers", 3, 0)
    assert numbers[:FIRST].mean() == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(
    ("alarms", "expected"),
    [
        ([], None),
        ([1999], None),
        ([2000], 0),
        ([5, 2100, 2200], 100),
        ([3499], 1499),
        ([3500], None),
    ],
)
def test_the_wait_is_that_for_the_first_alarm(alarms: list[int], expected: int | None) -> None:
    assert scoreboard.wait(alarms, 2000) == expected


def punctual(values: F8) -> list[int]:
    """Alarms 30 events after each drift, at event 10 of all, and every 4,000 without drift."""
    if values.size > LENGTH:
        return list(range(3999, values.size, 4000))
    return [10, FIRST + 30]


def test_the_scores_of_a_detector_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    only = Contestant("Punctual", "ours", "published", punctual)
    monkeypatch.setattr(scoreboard, "ours", lambda *_: iter([only]))
    board = scoreboard.scoreboard(runs=2, seed=1, peers=False)
    assert [score.watched for score in board.scores] == list(INPUTS)
    said = board.to_dict()["scores"][0]
    assert said["delays"]["abrupt"] == {"mean": 30.0, "missed": 0, "drifts": 2}
    assert said["delays"]["recurring"] == {"mean": 30.0, "missed": 2, "drifts": 4}
    assert (said["false_alarms"], said["false_events"]) == (8, 16_000)
    assert (said["alarms"], said["events"], said["run_length"]) == (10, 40_000, 4000.0)
    row = next(line for line in board.lines() if line.startswith("Punctual"))
    assert row.split()[3:-1] == [
        "30", "(0%)", "30", "(0%)", "30", "(0%)", "30", "(50%)", "0.50", "4,000",
    ]  # fmt: skip


def test_a_detector_without_alarms_has_no_run_length(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Contestant("Silent", "ours", "published", lambda values: [], slow=True)
    monkeypatch.setattr(scoreboard, "ours", lambda *_: iter([silent]))
    board = scoreboard.scoreboard(runs=20, peers=False)
    assert board.scores[0].run_length is None
    assert board.scores[0].delays["abrupt"] == scoreboard.Delay(None, 1, 1)
    assert any("- (100%)" in line and "> 20,000" in line for line in board.lines())


@pytest.mark.jit
@pytest.mark.parametrize("watched", INPUTS)
def test_ours_and_rivers_alarm_alike(watched: str) -> None:
    """What River's walker finds is what ours finds, where the constants are the same."""
    values = drift_streams.drifting("recurring", watched, 0, 0)
    found = {c.name: c.run(values) for c in contestants.ours(watched, 1000) if c.setting[0] == "p"}
    names = contestants.ON_ERRORS if watched == "errors" else contestants.ON_NUMBERS
    assert list(found) == list(names)
    for peer in contestants.of_river(watched):
        if peer.name != "KSWIN":  # draws older values at random
            assert found[peer.name] == peer.run(values), peer.name


class FrourosTwin:
    """A detector with the interface of frouros: an alarm at the third 1 since the last one."""

    def __init__(self) -> None:
        self.ones, self.drift = 0, False

    def update(self, value: int) -> None:
        """Feed one value."""
        self.ones += value
        self.drift = self.ones == 3

    def reset(self) -> None:
        """Start anew."""
        self.ones, self.drift = 0, False


def test_frouros_runs_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "frouros.detectors.concept_drift"
    monkeypatch.setitem(sys.modules, name, None)
    assert list(contestants.of_frouros("errors")) == []
    module: Any = types.ModuleType(name)
    for kind in contestants._FROUROS.values():
        setattr(module, kind, FrourosTwin)
    for parent in ("frouros", "frouros.detectors"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setitem(sys.modules, name, module)
    found = {c.name: c.run for c in contestants.of_frouros("errors")}
    assert found["DDM"](np.array([1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])) == [3, 6]
    assert found["STEPD"](np.array([0.0, 0.0, 1.0, 0.0])) == [3]  # takes 1 = right
    assert {c.name for c in contestants.of_frouros("numbers")} == {"PageHinkley", "CUSUM", "KSWIN"}


def test_the_command_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only = Contestant("Punctual", "ours", "published", punctual)
    monkeypatch.setattr(scoreboard, "ours", lambda *_: iter([only]))
    file = tmp_path / "board.json"
    with pytest.raises(SystemExit, match="0"):
        cli.main(["benchmark-detectors", "--runs", "1", "--no-peers", "--json", str(file)])
    out = capsys.readouterr().out
    assert out.count("Punctual") == 2
    assert "River and frouros: left out, as asked" in out
    written = json.loads(file.read_text())
    assert (written["runs"], written["seed"]) == (1, 0)
    assert [score["name"] for score in written["scores"]] == ["Punctual"] * 2
    with pytest.raises(SystemExit, match="2"):
        cli.main(["benchmark-detectors", "--json", str(tmp_path)])
    assert "is a folder" in capsys.readouterr().err
