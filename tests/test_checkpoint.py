"""The checkpoint store: one whole unit or the one before it, one writer, no code run."""

import errno
import logging
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamlearn import archive
from streamlearn.archive import DamagedError, NewerFormatError, write_archive
from streamlearn.checkpoint import Checkpoint, CheckpointStore, describe
from streamlearn.contracts import State
from streamlearn.errors import UserError


def unit(events: int, **more: Any) -> Checkpoint:
    """A checkpoint whose every part depends on the number of events."""
    rng = np.random.default_rng(events)
    fields: dict[str, Any] = {
        "events": events,
        "pipeline": State({"0.Model/w": rng.normal(size=3)}, {"0.Model": {"n": events}}),
        "sources": {"a.csv": {"line": events + 1}},
        "sinks": {"predictions": {"length": 10 * events}, "dead_letters": None},
        "evaluation": State({"sums": rng.normal(size=(2, 2))}, {"window": 10}),
        "schema": State({}, {"colour": ["red", "blue"]}),
        "counters": {"rejects": 1, "alarms": 2},
        "about": {"pipeline": "Pipeline(Model())", "metrics": {"accuracy": 0.5}},
    }
    return Checkpoint(**(fields | more))


def same(left: Checkpoint | None, right: Checkpoint) -> None:
    """All parts are equal, arrays bit for bit."""
    assert left is not None
    for name, value in right._asdict().items():
        other = getattr(left, name)
        if isinstance(value, State):
            assert other.table == value.table, name
            assert set(other.arrays) == set(value.arrays), name
            for key, array in value.arrays.items():
                assert other.arrays[key].tobytes() == array.tobytes(), key
        else:
            assert other == value, name


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "lock")


def test_every_part_comes_back(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path / "deep" / "c") as store:
        assert store.latest() is None
        store.save(unit(7))
    with CheckpointStore(tmp_path / "deep" / "c") as store:
        same(store.latest(), unit(7))


def test_a_run_without_evaluation_and_schema_comes_back(tmp_path: Path) -> None:
    bare = unit(7, evaluation=None, schema=None)
    with CheckpointStore(tmp_path) as store:
        store.save(bare)
        same(store.latest(), bare)


def test_equal_units_give_equal_bytes(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path) as store:
        first, second = (store.file_of(store.save(unit(7))) for _ in range(2))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_few_are_kept(keep: int, tmp_path: Path) -> None:
    with CheckpointStore(tmp_path, keep) as store:
        for events in range(6):
            store.save(unit(events))
        same(store.latest(), unit(5))
    kept = [f"checkpoint-{number:010d}.safetensors" for number in range(7 - keep, 7)]
    assert files(tmp_path) == kept


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path / "c") as store:
        path = store.file_of(store.save(unit(1)))
    modes = [
        stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "c", path, tmp_path / "c" / "lock")
    ]
    assert modes == [0o700, 0o600, 0o600]


def test_a_damaged_one_is_passed_over_loudly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with CheckpointStore(tmp_path) as store:
        store.save(unit(1))
        last = store.file_of(store.save(unit(2)))
        last.write_bytes(last.read_bytes()[:-7])
        with caplog.at_level(logging.WARNING):
            same(store.latest(), unit(1))
        (record,) = caplog.records
        assert "checkpoint-0000000002.safetensors: is cut off, damaged" in record.getMessage()
        assert record.getMessage().endswith("; going back to the checkpoint before it")
        store.save(unit(3))  # never takes the place of the damaged one
        same(store.latest(), unit(3))
        assert len(files(tmp_path)) == 3


def test_nothing_but_damage_is_an_error(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path) as store:
        store.file_of(store.save(unit(1))).write_bytes(b"")
        with pytest.raises(UserError, match=r": all 1 checkpoints are damaged; delete the folder"):
            store.latest()


def test_a_newer_format_is_refused_even_with_an_older_one_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CheckpointStore(tmp_path) as store:
        store.save(unit(1))
        monkeypatch.setattr(archive, "FORMAT", 2)
        store.save(unit(2))
        monkeypatch.undo()
        with pytest.raises(NewerFormatError, match=r"has format 2, this version reads up to 1"):
            store.latest()


def test_a_checkpoint_of_another_pipeline_is_refused(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path, fingerprint="aaaa") as store:
        store.save(unit(1))
    with (
        CheckpointStore(tmp_path, fingerprint="bbbb") as store,
        pytest.raises(UserError, match=r"belongs to another pipeline \(fingerprint 'aaaa', this o"),
    ):
        store.latest()


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path):
        other = CheckpointStore(tmp_path)
        with pytest.raises(UserError, match=r": another run is using these checkpoints; stop it"):
            other.__enter__()
    with CheckpointStore(tmp_path) as store:
        assert store.latest() is None


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from streamlearn.checkpoint import CheckpointStore; "
        "CheckpointStore(sys.argv[1]).__enter__(); "
        "open(sys.argv[1] + '/.checkpoint-x.tmp', 'w').close(); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False)
    assert done.returncode == -9
    with CheckpointStore(tmp_path) as store:
        assert store.latest() is None
        assert files(tmp_path) == []  # what it left half written is gone


@pytest.mark.parametrize("how", ["later epoch", "other file"])
def test_a_writer_that_lost_the_folder_is_refused(how: str, tmp_path: Path) -> None:
    """Where a lock does not hold (network file systems), the epoch does."""
    with CheckpointStore(tmp_path) as store:
        store.save(unit(1))
        lock = tmp_path / "lock"
        if how == "later epoch":
            lock.write_bytes(b"%019d\n" % (int(lock.read_bytes()) + 1))
        else:
            text = lock.read_bytes()
            lock.rename(tmp_path / "old")
            lock.write_bytes(text)
        with pytest.raises(
            UserError, match=r": another run took these checkpoints; this one stops"
        ):
            store.save(unit(2))
        same(store.latest(), unit(1))


@pytest.mark.parametrize("why", [errno.ENOENT, errno.EMFILE, errno.EIO])
def test_a_lock_that_cannot_be_looked_at_is_no_other_run(
    why: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> bytes:
        raise OSError(why, os.strerror(why))

    with CheckpointStore(tmp_path) as store:
        monkeypatch.setattr(Path, "read_bytes", refused)
        with pytest.raises(UserError, match=rf"lock: cannot be written: {os.strerror(why)}"):
            store.save(unit(1))


def test_the_epoch_grows_with_every_writer(tmp_path: Path) -> None:
    seen = []
    for _ in range(3):
        with CheckpointStore(tmp_path):
            seen.append(int((tmp_path / "lock").read_bytes()))
    assert seen == [1, 2, 3]


def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: Any) -> int:
        raise OSError(28, os.strerror(28))

    with CheckpointStore(tmp_path) as store:
        store.save(unit(1))
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(UserError, match=r"no space left on the disk .*; make room and start"):
            store.save(unit(2))
        same(store.latest(), unit(1))
        assert len(files(tmp_path)) == 1


class Trap:
    """Its pickle would leave a file behind if anybody loaded it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_pickles_are_written_and_read_only_where_allowed(tmp_path: Path) -> None:
    trap = np.frombuffer(pickle.dumps(Trap(str(tmp_path / "sprung"))), np.uint8)
    foreign = unit(1, pipeline=State({"0.River/pickle": trap}, {"0.River": {}}))
    with (
        CheckpointStore(tmp_path / "c") as store,
        pytest.raises(UserError, match="can only be saved as a pickle; set allow_pickle: true"),
    ):
        store.save(foreign)
    with CheckpointStore(tmp_path / "c", allow_pickle=True) as store:
        store.save(foreign)
        same(store.latest(), foreign)
    with (
        CheckpointStore(tmp_path / "c") as store,
        pytest.raises(
            UserError, match="holds the pickled state of a River stage; set allow_pickle"
        ),
    ):
        store.latest()
    describe(tmp_path / "c")
    assert not (tmp_path / "sprung").exists()


def test_a_store_must_be_entered(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^CheckpointStore: enter the store"):
        CheckpointStore(tmp_path).latest()
    with pytest.raises(UserError, match=r"^CheckpointStore: keep must be >= 1, got 0$"):
        CheckpointStore(tmp_path, keep=0)


def test_describe_says_what_is_in_it(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path, fingerprint="f") as store:
        store.save(unit(1))
        path = store.file_of(store.save(unit(2)))
    for place in (tmp_path, path):
        told = describe(place)
        assert told["path"] == str(path)
        assert told["bytes"] == path.stat().st_size
        assert (told["what"], told["fingerprint"], told["events"]) == ("checkpoint", "f", 2)
        assert told["sources"] == {"a.csv": {"line": 3}}
        assert told["about"]["metrics"] == {"accuracy": 0.5}
        assert told["arrays"] == [
            {"name": "evaluation/sums", "dtype": "float64", "shape": [2, 2], "bytes": 32},
            {"name": "pipeline/0.Model/w", "dtype": "float64", "shape": [3], "bytes": 24},
        ]


def test_describe_takes_a_saved_pipeline(tmp_path: Path) -> None:
    table = {"what": "pipeline", "stages": [{"class": "ADWIN"}], "state": {}}
    write_archive(tmp_path / "p", {}, table)
    told = describe(tmp_path / "p")
    assert (told["what"], told["stages"], told["arrays"]) == ("pipeline", [{"class": "ADWIN"}], [])


def test_describe_refuses_a_folder_without_any(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r": holds no checkpoint; give the checkpoint folder of a"):
        describe(tmp_path)


def test_the_last_checkpoint_that_can_be_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a checkpoint names may be damaged too: the one before it is tried, the reason told."""
    tried: list[int] = []

    def use(checkpoint: Checkpoint) -> None:
        tried.append(checkpoint.events)
        if checkpoint.events > good:
            raise DamagedError(f"pending events of {checkpoint.events} are gone")

    with CheckpointStore(tmp_path) as store:
        assert store.last(use) is None
        for events in (3, 5, 7):
            store.save(unit(events, labels=State({"y": np.arange(2.0)}, {"n": events})))
        good = 5
        same(store.last(use), unit(5, labels=State({"y": np.arange(2.0)}, {"n": 5})))
        assert tried == [7, 5]
        assert caplog.messages == [
            "pending events of 7 are gone; going back to the checkpoint before it"
        ]
        good = 0
        with pytest.raises(UserError, match="all 3 checkpoints are damaged"):
            store.last(use)


def test_whoever_writes_beside_the_checkpoints_asks_first(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path) as store:
        store.check()
        (tmp_path / "lock").write_bytes(b"%019d\n" % 7)
        with pytest.raises(UserError, match="another run took these checkpoints; this one stops"):
            store.check()
    with pytest.raises(RuntimeError, match="enter the store"):
        store.check()


def numbers(folder: Path) -> list[int]:
    """Which checkpoints lie in a folder."""
    return sorted(int(path.stem[-10:]) for path in folder.glob("checkpoint-*"))


def test_what_came_after_the_checkpoint_that_counts_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with CheckpointStore(tmp_path) as store:
        for events in (3, 5, 7):
            store.save(unit(events))
        same(store.last(lambda checkpoint: None, at=2), unit(5))
        assert numbers(tmp_path) == [1, 2]
        assert caplog.messages == [
            f"{store.file_of(3)}: the outputs before it were not committed; it is dropped"
        ]
        assert store.save(unit(9)) == 3


def test_the_pinned_one_outlives_the_last_few(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path, keep=1) as store:
        store.pin(store.save(unit(1)))
        for events, there in ((2, [1, 2]), (3, [1, 3])):
            store.save(unit(events))
            assert numbers(tmp_path) == there
        store.pin(3)
        assert store.save(unit(4)) == 4
        assert numbers(tmp_path) == [3, 4]
    with CheckpointStore(tmp_path, keep=1) as store:  # after a crash before the commit
        same(store.last(lambda checkpoint: None, at=3), unit(3))
        store.save(unit(5))
        assert numbers(tmp_path) == [3, 4]


def test_a_damaged_one_that_counts_sends_back_and_keeps_its_number(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path) as store:
        for events in (3, 5, 7):
            store.save(unit(events))
        store.file_of(2).write_bytes(b"")
        same(store.last(lambda checkpoint: None, at=2), unit(3))
        assert store.save(unit(4)) == 3
        store.file_of(3).unlink()
        store.file_of(2).unlink()
        same(store.last(lambda checkpoint: None, at=2), unit(3))
        assert store.save(unit(4)) == 3  # 2 is what the broker's offsets name: never another


def test_offsets_that_name_a_checkpoint_of_another_folder_are_refused(tmp_path: Path) -> None:
    with (
        CheckpointStore(tmp_path) as store,
        pytest.raises(UserError, match=r"checkpoint 4, which the broker's offsets name, is no"),
    ):
        store.last(lambda checkpoint: None, at=4)
