"""Rolling a run back by hand: at its row, in every replay, whatever was lost in between."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamlearn import config as configs
from streamlearn import runner, yaml12
from streamlearn.checkpoint import CheckpointStore, describe
from streamlearn.cli import main
from streamlearn.controls import FILE, roll_back, versions
from streamlearn.errors import UserError
from streamlearn.testing import assert_same_state

ROWS, STOP = 3000, 1300


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    """A configuration over a file: a challenger that is better is promoted in the first third."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS, 2))
    y = (x[:, 0] > 0).astype(int)
    lines = [f"{a},{b},{c}" for (a, b), c in zip(x, y, strict=True)]
    data = tmp_path / "data.csv"
    data.write_text("\n".join(["a,b,y", *lines]) + "\n")
    champion = {"champion": "MajorityClassifier", "challenger": "KalmanClassifier"}
    return {
        "source": str(data),
        "schema": {
            "features": {"a": "number", "b": "number"},
            "target": "y",
            "task": "classification",
        },
        "pipeline": [{"ChampionClassifier": champion}],
        "sink": str(tmp_path / "predictions.csv"),
        "checkpoint": {"path": str(tmp_path / "checkpoints"), "every_events": 500, "keep": 20},
    }


def last_state(folder: Path) -> Any:
    told = describe(folder)
    store = CheckpointStore(folder, fingerprint=str(told["fingerprint"]))
    return store.read(Path(told["path"])).pipeline


def rolled_back(job: dict[str, Any]) -> Path:
    """A run that stops, is rolled back, and goes on to its end; its checkpoints."""
    folder = Path(job["checkpoint"]["path"])
    runner.run(configs.check(job), limit=STOP)
    assert versions(folder).serving == 2
    done = roll_back(folder)
    assert (done.rows, done.events, done.version) == (STOP, STOP, 1)
    runner.run(configs.check(job))
    return folder


def test_the_version_alone_changes_and_the_run_goes_on(
    job: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "streamlearn.controls"):
        folder = rolled_back(job)
    assert caplog.messages.count("version 1 serves from here on, by hand") == 1
    found = versions(folder)
    assert [entry["how"] for entry in found.history[:3]] == ["start", "promote", "by hand"]
    assert describe(folder)["events"] == ROWS
    lines = Path(job["sink"]).read_text().splitlines()
    assert len(lines) == ROWS + 1  # each event once
    answers = [line.split(",")[1] for line in lines[1:]]
    after = answers[STOP : STOP + 20]  # what the majority says, always one class
    assert len(set(after)) == 1 < len(set(answers[STOP - 20 : STOP]))


def test_a_replay_along_the_order_repeats_it_to_the_same_bytes(
    job: dict[str, Any], tmp_path: Path
) -> None:
    folder = rolled_back(job)
    again = tmp_path / "again.csv"
    plain = {k: v for k, v in job.items() if k not in ("sink", "checkpoint")}
    path = tmp_path / "config.yaml"
    path.write_text(yaml12.dump(plain))
    kept = tmp_path / "replayed"
    runner.replay(data=path, order=folder, predictions=again, checkpoint=kept)
    assert again.read_bytes() == Path(job["sink"]).read_bytes()
    assert_same_state(last_state(folder), last_state(kept))
    runner.replay(data=path, predictions=tmp_path / "without.csv")
    assert (tmp_path / "without.csv").read_bytes() != again.read_bytes()


@pytest.mark.parametrize("inside", ["in a wrapper", "in a pipeline in a wrapper"])
def test_a_champion_within_another_model_is_rolled_back_too(
    job: dict[str, Any], tmp_path: Path, inside: str
) -> None:
    (champion,) = job["pipeline"]
    model = champion if inside == "in a wrapper" else ["Normalizer", champion]
    job["pipeline"] = [{"ConformalClassifier": {"model": model}}]
    folder = rolled_back(job)
    assert [entry["how"] for entry in versions(folder).history[:3]] == [
        "start", "promote", "by hand",
    ]  # fmt: skip
    answers = [line.split(",")[1] for line in Path(job["sink"]).read_text().splitlines()[1:]]
    assert len(set(answers[STOP : STOP + 20])) == 1 < len(set(answers[STOP - 20 : STOP]))
    again = tmp_path / "again.csv"
    path = tmp_path / "config.yaml"
    path.write_text(yaml12.dump({k: job[k] for k in ("source", "schema", "pipeline")}))
    runner.replay(data=path, order=folder, predictions=again)
    assert again.read_bytes() == Path(job["sink"]).read_bytes()


def test_a_run_that_falls_back_to_an_older_checkpoint_does_it_again_at_its_row(
    job: dict[str, Any],
) -> None:
    folder = rolled_back(job)
    expected, state = Path(job["sink"]).read_bytes(), last_state(folder)
    for path in sorted(folder.glob("checkpoint-*"))[1:]:
        path.write_bytes(b"damaged")
    runner.run(configs.check(job))
    assert Path(job["sink"]).read_bytes() == expected
    assert_same_state(state, last_state(folder))


def test_the_commands_say_what_is_there(
    job: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = job["checkpoint"]["path"]
    runner.run(configs.check(job), limit=STOP)
    for arguments, status, words in [
        (["versions", folder], 0, "version 2 serves; kept as they were when replaced: 1"),
        (["rollback", folder, "--to", "9"], 2, "--to: must be a version that is kept (1), got 9"),
        (["rollback", folder], 0, "version 1 serves from the next start on, after 1,300 events"),
        (["rollback", folder], 2, "start the run before the next one is chosen"),
        (["versions", folder], 0, "version 1 serves from the next start on, by hand"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        shown = capsys.readouterr()
        assert ended.value.code == status
        assert words in shown.out + shown.err


def test_what_cannot_be_rolled_back_is_refused(job: dict[str, Any], tmp_path: Path) -> None:
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(UserError, match="holds no checkpoint"):
        roll_back(tmp_path / "empty")
    folder = Path(job["checkpoint"]["path"])
    runner.run(configs.check(job), limit=5)
    with pytest.raises(UserError, match=r"kept \(none yet\)"):
        roll_back(folder)
    with (
        CheckpointStore(folder, fingerprint=str(describe(folder)["fingerprint"])),
        pytest.raises(UserError, match="another run is using these checkpoints"),
    ):
        roll_back(folder)
    (folder / FILE).write_text('{"rows": "many"}\n')
    with pytest.raises(UserError, match=r"controls\.jsonl, line 1: is no control"):
        runner.run(configs.check(job))


def test_a_model_without_versions_is_told(job: dict[str, Any]) -> None:
    runner.run(configs.check(job | {"pipeline": ["KalmanClassifier"]}), limit=100)
    with pytest.raises(UserError, match="has no versions; they are kept by ChampionClassifier"):
        versions(job["checkpoint"]["path"])
