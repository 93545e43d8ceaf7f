"""Tuning: settings from the first part alone, a score from the rest alone, ranges of every form."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamlearn import Pipeline, UserError, replay, tune
from streamlearn.config import load_config
from streamlearn.display import print_tuning
from streamlearn.jit.counter import key_of, uniforms
from streamlearn.ranges import Range, drawn, parse_ranges
from tests.test_replay import records

N = 300
RANGES = ["sigma2=0.01,1,100"]


def numbers(n: int = N, seed: int = 2) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    y = 3 * X[:, 0] - X[:, 1] + rng.normal(size=n)
    return [{"a": float(a), "b": float(b), "y": float(t)} for (a, b), t in zip(X, y, strict=True)]


# -- ranges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("r=0.01..10:log", Range(low=0.01, high=10.0, log=True)),
        ("r=1e-3..1", Range(low=1e-3, high=1.0)),
        ("n=1..100", Range(low=1.0, high=100.0, whole=True)),
        ("n=1..1000:log", Range(low=1.0, high=1000.0, whole=True, log=True)),
        ("n=-5..5", Range(low=-5.0, high=5.0, whole=True)),
        ("n=1..2.0", Range(low=1.0, high=2.0)),
        ("a=x, y,z", Range(choices=("x", "y", "z"))),
        ("a=true,0.5,3", Range(choices=(True, 0.5, 3))),
        ("a=x", Range(choices=("x",))),
        ("pipeline[2].r=1,2", Range(choices=(1, 2))),
    ],
)
def test_ranges_are_read(text: str, expected: Range) -> None:
    name, _, body = text.partition("=")
    assert parse_ranges([text]) == {name: expected}
    assert parse_ranges({name: body}) == {name: expected}


def test_ranges_may_be_lists() -> None:
    assert parse_ranges({"a": [1, "x"]})["a"].choices == (1, "x")
    assert parse_ranges("a=1,2")["a"].choices == (1, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"^ranges: must name at least one argument, as in r=0\.01\.\.10:log"),
        (["r"], r"^ranges: must read like .*, got 'r'$"),
        (["=1..2"], r"^ranges: must read like .*, got '=1\.\.2'$"),
        (["r="], r"^ranges: r must list values between commas, got ''$"),
        (["r=1,,2"], r"^ranges: r must list values between commas"),
        (["r=1.."], r"^ranges: r must go from number to number, got '1\.\.'$"),
        (["r=a..b"], r"^ranges: r must go from number to number"),
        (["r=1..2..3"], r"^ranges: r must go from number to number"),
        (["r=10..1"], r"^ranges: r must go from a number to a larger one"),
        (["r=1..1"], r"^ranges: r must go from a number to a larger one"),
        (["r=0..inf"], r"^ranges: r must go from a number to a larger one"),
        (["r=0..1:log"], r"^ranges: r must begin above 0 for :log"),
        (["r=1..2:lin"], r"^ranges: r must end in :log or in nothing"),
        (["r=1,2", "r=3"], r"^ranges: r must be given once$"),
        ({"r": 3}, r"^ranges: r must be a text such as"),
        ({"r": []}, r"^ranges: r must be a text such as"),
    ],
)
def test_malformed_ranges_are_refused(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_ranges(given)


def test_values_stay_inside_and_spread_as_declared() -> None:
    """A share u of the range: linear, or linear in the logarithm; whole numbers evenly."""
    shares = (np.arange(1000) + 0.5) / 1000
    linear = [Range(low=-2.0, high=6.0).at(u) for u in shares]
    np.testing.assert_allclose(linear, -2 + 8 * shares, rtol=1e-5, atol=1e-5)
    decades = [Range(low=0.01, high=100.0, log=True).at(u) for u in shares]
    np.testing.assert_allclose(np.log10(decades), -2 + 4 * shares, atol=1e-5)
    whole = [Range(low=3.0, high=7.0, whole=True).at(u) for u in shares]
    assert np.unique(whole, return_counts=True)[1].tolist() == [200] * 5
    logs = [Range(low=1.0, high=7.0, whole=True, log=True).at(u) for u in shares]
    assert [logs.count(k) for k in (1, 2, 4)] == pytest.approx(
        [1000 * math.log((k + 1) / k) / math.log(8) for k in (1, 2, 4)], abs=2
    )
    words = [Range(choices=("x", "y")).at(u) for u in shares]
    assert words.count("x") == 500


def test_a_small_finite_search_is_a_grid() -> None:
    found = drawn(parse_ranges(["a=x,y", "n=1..3"]), 6, 0)
    assert found == [{"a": a, "n": n} for a in "xy" for n in (1, 2, 3)]
    assert len(drawn(parse_ranges(["a=x,y", "n=1..3"]), 5, 0)) <= 5


def test_draws_depend_on_seed_and_name_alone() -> None:
    ranges = parse_ranges(["r=0.01..10:log", "n=1..100"])
    found = drawn(ranges, 20, 7)
    assert drawn(dict(reversed(ranges.items())), 20, 7) == found
    assert drawn(ranges, 10, 7) == found[:10]
    assert drawn(ranges, 20, 8) != found
    u = uniforms(key_of(7, "tune n"), 20)
    assert [s["n"] for s in found] == [math.floor(1 + 100 * x) for x in u]


# -- the protocol ----------------------------------------------------------------------------------


def test_settings_come_from_the_first_part_and_the_score_from_the_rest() -> None:
    """The same as a replay of each setting over the first 120 rows, and of the best over all."""
    rows = records(N)
    found = tune(rows, "KalmanHead", RANGES, target="y", first=0.4)
    assert (found.first, found.rest) == (120, 180)
    alone = [
        replay(data=rows, target="y", model="KalmanHead", set=s, limit=120).metrics["accuracy"]
        for s in ({}, {"sigma2": 0.01}, {"sigma2": 1}, {"sigma2": 100})
    ]
    assert [t.metric for t in found.trials] == alone
    best = alone.index(max(m or 0.0 for m in alone))
    assert found.settings == [{}, {"sigma2": 0.01}, {"sigma2": 1}, {"sigma2": 100}][best]
    assert best != 0
    for name, chosen in (("tuned", found.settings), ("default", {})):
        whole = replay(data=rows, target="y", model="KalmanHead", set=chosen)
        part = replay(data=rows, target="y", model="KalmanHead", set=chosen, limit=120)
        hits = [r.scored * (r.metrics["accuracy"] or 0.0) for r in (whole, part)]
        result = found.comparison.results[name]
        assert result.events == result.scored == 180
        assert result.metrics["accuracy"] == pytest.approx((hits[0] - hits[1]) / 180)


def test_what_is_scored_is_never_looked_at() -> None:
    """Whatever stands in the rest, the choice is the same."""
    rows = records(N)
    other = [*rows[:120], *({**r, "a": -9 * r["a"], "y": "up"} for r in rows[120:])]
    one, two = (tune(d, "KalmanHead", RANGES, target="y", first=120) for d in (rows, other))
    assert one.settings == two.settings
    assert [t._replace(microseconds=0) for t in one.trials] == [
        t._replace(microseconds=0) for t in two.trials
    ]
    assert one.comparison.results["tuned"].metrics != two.comparison.results["tuned"].metrics


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_blocks_change_nothing(rows: int, tmp_path: Path) -> None:
    """The cut between the parts falls where it falls, inside a block or not."""
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records(N)))
    config = tmp_path / "d.yaml"
    config.write_text(f"source: {tmp_path}/d.jsonl\nengine: {{block_rows: {rows}}}\n")
    plain = tune(records(N), "KalmanHead", RANGES, target="y", first=130)
    found = tune(str(config), "KalmanHead", RANGES, target="y", first=130)
    assert found.settings == plain.settings
    assert found.comparison.differences == plain.comparison.differences
    tuned, other = (t.comparison.results["tuned"].metrics for t in (found, plain))
    assert tuned == other


def test_late_labels_of_the_first_part_are_not_scored_in_the_rest() -> None:
    found = tune(records(N), "KalmanHead", RANGES, target="y", first=150, delay=9)
    assert found.comparison.results["tuned"].events == 150
    assert found.comparison.results["tuned"].scored == 150
    assert found.comparison.differences[0].rows == 150


def test_regression_takes_the_smaller_error() -> None:
    found = tune(numbers(), "KalmanHead", ["sigma2=0.01,1,1e6"], target="y", first=0.5)
    errors = [t.metric or math.inf for t in found.trials]
    assert found.metric == "mae"
    assert found.trials[int(np.argmin(errors))].settings == found.settings


def test_when_nothing_is_better_than_the_default_it_stands_alone() -> None:
    found = tune(records(N), "KalmanHead", ["sigma2=0.1"], target="y", first=0.5)  # its own value
    assert found.trials[0].metric == found.trials[1].metric
    assert found.settings == {}
    assert list(found.comparison.results) == ["tuned"]
    assert "chosen: the default settings" in found.facts()


def test_a_setting_that_fails_is_a_trial_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = Pipeline.run

    def run(self: Pipeline, block: Any) -> Any:
        if "sigma2=100" in repr(self) and block.n > 5:
            raise RuntimeError("too much")
        return ran(self, block)

    monkeypatch.setattr(Pipeline, "run", run)
    found = tune(records(N), "KalmanHead", RANGES, target="y", first=0.5)
    assert [t.error for t in found.trials] == ["", "", "", "RuntimeError: too much"]
    assert found.settings != {"sigma2": 100}


# -- how much is first, and what is refused --------------------------------------------------------


def test_first_is_a_share_of_any_data_or_a_number(tmp_path: Path) -> None:
    rows = records(N)
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for data in (rows, str(path), path):
        assert tune(data, "KalmanHead", RANGES, target="y", first=0.5).first == 150
    assert tune(iter(rows), "KalmanHead", RANGES, target="y", first=140).first == 140
    assert tune(rows, "KalmanHead", RANGES, target="y", first=0.5, limit=240).first == 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first": 0.0}, r"^first: must be a share in \(0, 1\) or a number of events, got 0\.0$"),
        ({"first": 1.5}, r"^first: must be a share"),
        ({"first": "half"}, r"^first: must be a share"),
        ({"first": True}, r"^first: must be a share"),
        ({"first": 0.1}, r"^first: must hold at least 100 scored rows to choose by, got 29 in 30"),
        ({"first": 300}, r"^first: must leave events to score, got 300 of 300; take less$"),
        ({"first": 4000}, r"^first: must leave events to score, got 4,000 of 300"),
        ({"trials": 0}, r"^tune: trials must be a whole number >= 1, got 0$"),
        ({"alpha": 2}, r"^tune: alpha must be in \(0, 1\), got 2$"),
        ({"ranges": []}, r"^ranges: must name at least one argument"),
        ({"ranges": ["sigma=1..2"]}, r"^ranges: KalmanClassifier has no argument 'sigma'; did you"),
        ({"ranges": ["sigma2=-1,1"]}, r"^ranges: sigma2=-1: sigma2: must be > 0, got -1"),
        ({"model": "KalmanHed"}, r"'KalmanHed' is not the name of an operator; did you mean"),
        ({"data": None}, r"^data: must be given"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    given = {"data": records(N), "model": "KalmanHead", "ranges": RANGES, "target": "y"}
    with pytest.raises(UserError, match=message):
        tune(**{**given, **arguments})


def test_a_share_of_what_is_read_once_is_refused() -> None:
    with pytest.raises(UserError, match="must be a number of events for data that can be read"):
        tune(iter(records(N)), "KalmanHead", RANGES, target="y", first=0.5)


# -- what comes out --------------------------------------------------------------------------------


def test_the_configuration_replays_as_tuned(tmp_path: Path) -> None:
    rows = records(N)
    found = tune(rows, "KalmanHead", RANGES, target="y", first=0.5)
    path = tmp_path / "tuned.yaml"
    assert found.to_yaml(path) == path.read_text()
    again = replay(data=rows, target="y", model=str(path))
    direct = replay(data=rows, target="y", model="KalmanHead", set=found.settings)
    assert again.metrics == direct.metrics
    with pytest.raises(UserError, match="is there already; choose another name"):
        found.to_yaml(path)


def test_a_file_is_tuned_by_paths(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("pipeline: [Imputer, OneHotEncoder, KalmanHead]\n")
    found = tune(records(N), str(path), ["pipeline[2].sigma2=0.01,1"], target="y", first=0.5)
    best = found.settings.get("pipeline[2].sigma2")
    (tmp_path / "found.yaml").write_text(found.to_yaml())
    config = load_config(tmp_path / "found.yaml")
    expected = "KalmanHead" if best is None else {"KalmanHead": {"sigma2": best}}
    assert config.pipeline is not None
    assert config.pipeline[2] == expected
    with pytest.raises(UserError, match=r"^ranges: .*pipeline\[9\]\.r"):
        tune(records(N), str(path), ["pipeline[9].r=1,2"], target="y", first=0.5)


def test_json_and_text_say_what_was_chosen(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    found = tune(records(N), "KalmanHead", RANGES, target="y", first=0.5, json=path)
    table = json.loads(path.read_text())
    assert table["settings"] == found.settings
    assert [t["settings"] for t in table["trials"]][1:] == [{"sigma2": v} for v in (0.01, 1, 100)]
    assert set(table["comparison"]["results"]) == set(found.comparison.results)
    text = repr(found)
    for words in ("sigma2", "default", "chosen", "searched 4 settings on the first 150", "rest"):
        assert words in text


def test_the_command_line_shows_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    found = tune(records(N), "KalmanHead", RANGES, target="y", first=0.5)
    print_tuning(found)
    shown = capsys.readouterr().out
    assert "chosen" in shown
    assert all(line in shown for line in found.facts())
