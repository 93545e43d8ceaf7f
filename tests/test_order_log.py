"""The order log: what was chosen comes back, whatever was torn, and one writer at a time."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn import order_log
from streamlearn.checkpoint import CheckpointStore
from streamlearn.errors import UserError
from streamlearn.order_log import OrderLog, first_offsets

NAMES = ["events", "labels"]
FRAME, RUN = 20, 14  # bytes of the head of a frame, and of a run


def written(path: Path, steps: list[list[int]]) -> None:
    log = OrderLog(path)
    log.open(NAMES, None)
    counts = [0] * len(NAMES)
    for step in steps:
        append(log, step, counts)
    log.close()


def append(log: OrderLog, step: list[int], counts: list[int], sync: bool = False) -> None:
    """Rows of these inputs; the offsets of input i are 1000 i and from there on."""
    offsets = []
    for i in step:
        offsets.append(1000 * i + counts[i])
        counts[i] += 1
    log.append(np.array(step, dtype=np.intp), np.array(offsets, dtype=np.int64), sync)


def rest(log: OrderLog, most: int = 3) -> list[int]:
    """What the log wants repeated, looked at in pieces, of which at most two rows are taken."""
    out: list[int] = []
    while (ahead := log.ahead(most)).order.shape[0]:
        assert ahead.order.shape[0] == ahead.first.shape[0] <= most
        n = min(ahead.order.shape[0], 2)
        out += ahead.order[:n].tolist()
        log.repeat(n)
    return out


@given(
    steps=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), max_size=6),
    after=st.integers(0, 60),
)
def test_what_was_chosen_after_a_row_is_repeated(
    steps: list[list[int]], after: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("log") / "order.log"
    written(path, steps)
    whole = [chosen for step in steps for chosen in step]
    after = min(after, len(whole))
    for log in (OrderLog(path), OrderLog(path, replay=True)):
        log.open(NAMES, after)
        assert rest(log) == whole[after:]
        log.close()


def test_it_goes_on_after_what_was_repeated(tmp_path: Path) -> None:
    path = tmp_path / "order.log"
    written(path, [[0, 0, 1], [1, 0]])
    log = OrderLog(path)
    log.open(NAMES, 2)
    assert rest(log) == [1, 1, 0]
    append(log, [1, 1, 1], [3, 2], sync=True)
    log.sync()
    log.close()
    log.open(NAMES, 0)
    assert rest(log) == [0, 0, 1, 1, 0, 1, 1, 1]
    log.close()
    log.close()


@given(lost=st.integers(1, 40), junk=st.binary(max_size=20))
def test_a_torn_end_is_cut_off(
    lost: int, junk: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Frames before it stay; the next append takes the place of what was torn."""
    path = tmp_path_factory.mktemp("log") / "order.log"
    written(path, [[0, 1], [1], [0, 0, 0, 1]])
    size = path.stat().st_size
    last = FRAME + 2 * RUN  # bytes of the last frame
    os.truncate(path, size - min(lost, last))
    with path.open("ab") as file:
        file.write(junk[: max(0, min(lost, last) - 1)])
    log = OrderLog(path)
    log.open(NAMES, 0)
    assert rest(log) == [0, 1, 1]
    append(log, [1, 0], [1, 2])
    log.close()
    log.open(NAMES, 1)
    assert rest(log) == [1, 1, 1, 0]
    log.close()


@pytest.mark.parametrize("byte", range(FRAME + 2 * RUN))
@pytest.mark.parametrize("replay", [False, True])
def test_damage_before_frames_that_are_whole_is_refused(
    byte: int, replay: bool, tmp_path: Path
) -> None:
    """Cut off there, choices that were made and acted upon would be made anew."""
    path = tmp_path / "order.log"
    written(path, [[0, 1], [1, 0, 0], [0, 0, 0, 1]])
    whole = path.read_bytes()
    at = whole.index(b"\n") + 1 + FRAME + 2 * RUN + byte  # in the second frame
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    with pytest.raises(UserError, match=r"is damaged after row 2, and goes on behind that"):
        OrderLog(path, replay=replay).open(NAMES, 0)
    assert path.stat().st_size == len(whole)


def test_a_torn_end_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "order.log"
    written(path, [[0, 1], [1]])
    os.truncate(path, path.stat().st_size - 1)
    log = OrderLog(path, replay=True)
    log.open(NAMES, None)
    assert rest(log) == [0, 1]
    log.close()
    assert "the last 33 bytes, after row 2, were not written to their end" in caplog.text


def test_a_log_shorter_than_the_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "order.log"
    written(path, [[0, 1]])
    with pytest.raises(
        UserError, match=r"ends at row 2, before the checkpoint \(row 3\); put back"
    ):
        OrderLog(path).open(NAMES, 3)


def test_a_run_without_a_checkpoint_begins_the_log_anew(tmp_path: Path) -> None:
    path = tmp_path / "order.log"
    written(path, [[0, 1]])
    log = OrderLog(path)
    log.open(NAMES, None)
    assert rest(log) == []
    log.close()
    log.open(NAMES, 0)
    assert rest(log) == []
    log.close()


def test_files_that_are_no_log_of_these_inputs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "order.log"
    with pytest.raises(UserError, match="there is no such order log; correct the path"):
        OrderLog(path, replay=True).open(NAMES, None)
    path.write_bytes(b"row,prediction\n1,2\n")
    with pytest.raises(UserError, match="is no order log of this version; name another file"):
        OrderLog(path, replay=True).open(NAMES, None)
    written(path, [[0]])
    with pytest.raises(
        UserError, match="is of the inputs events, labels, got events, clicks; give"
    ):
        OrderLog(path).open(["events", "clicks"], 0)
    with pytest.raises(UserError, match="there is no order log, and the checkpoint is at row 3"):
        OrderLog(tmp_path / "other.log").open(NAMES, 3)


def test_a_replay_never_writes(tmp_path: Path) -> None:
    path = tmp_path / "order.log"
    written(path, [[0, 1]])
    before = path.read_bytes()
    log = OrderLog(path, replay=True)
    log.open(NAMES, None)
    log.sync()
    assert rest(log) == [0, 1]
    log.close()
    assert path.read_bytes() == before


def test_a_writer_that_lost_the_folder_is_refused(tmp_path: Path) -> None:
    """The epoch of the checkpoint store is looked at before every append."""
    store = CheckpointStore(tmp_path)
    log = OrderLog(tmp_path / "order.log", store)
    with store:
        log.open(NAMES, None)
        append(log, [0, 1], [0, 0])
        (tmp_path / "lock").write_bytes(b"%019d\n" % 99)  # a later run came, on another machine
        with pytest.raises(UserError, match="another run took these checkpoints; this one stops"):
            append(log, [1], [1, 1])
        log.close()
    log = OrderLog(tmp_path / "order.log")
    log.open(NAMES, 0)
    assert rest(log) == [0, 1]
    log.close()


def test_the_first_offset_of_every_input_is_found(tmp_path: Path) -> None:
    """Whatever is torn at the end, and wherever the log was cut into files."""
    path = tmp_path / "order.log"
    log = OrderLog(path)
    log.open(NAMES, None)
    append(log, [1, 1], [7, 3])
    log._set_aside()
    append(log, [1, 0, 0], [7, 5])
    log.close()
    with path.open("ab") as file:
        file.write(b"torn")
    assert first_offsets(path) == {"labels": 1003, "events": 7}


def test_the_first_offset_of_every_run_is_kept(tmp_path: Path) -> None:
    log = OrderLog(tmp_path / "order.log")
    log.open(NAMES, None)
    log.append(np.array([0, 0, 1, 0, 0, 0]), np.array([10, 13, 7, 14, 20, 21]))
    log.append(np.array([0]), np.array([40]))
    log.close()
    log.open(NAMES, 1)  # in the middle of a run: where that goes on is not told
    assert log.ahead(9).first.tolist() == [-1, 7, 14, -1, -1, 40]
    assert log.ahead(3).first.tolist() == [-1, 7, 14]
    log.repeat(3)
    assert log.ahead(9).first.tolist() == [-1, -1, 40]
    log.close()


@pytest.mark.parametrize("full", [1 << 20, 60, 1])
def test_inputs_that_come_later_are_named_with_their_first_rows(
    full: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input keeps its number in the log, whatever its place among the inputs of a later run."""
    monkeypatch.setattr(order_log, "FULL", full)
    path = tmp_path / "order.log"
    written(path, [[0, 1, 1]])
    log = OrderLog(path)
    log.open(["events", "more", "labels"], 3)
    append(log, [1, 0, 2], [1, 0, 0])
    log.add("last")
    log.append(np.array([3, 0]), np.array([0, 2]))
    log.close()
    again = OrderLog(path)
    again.open(["last", "labels", "events", "more"], 0)
    assert rest(again) == [2, 1, 1, 3, 2, 1, 0, 2]
    again.close()
    with pytest.raises(UserError, match="is of the inputs events, labels, more, last, got events"):
        OrderLog(path).open(["events", "labels", "more"], 0)


@given(
    steps=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=20),
    after=st.integers(0, 60),
    full=st.sampled_from([1, 100, 200]),
)
def test_files_that_are_set_aside_go_on_from_one_to_the_next(
    steps: list[list[int]], after: int, full: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("log") / "order.log"
    whole = [chosen for step in steps for chosen in step]
    after = min(after, len(whole))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_log, "FULL", full)
        written(path, steps)
        for log in (OrderLog(path), OrderLog(path, replay=True)):
            log.open(NAMES, after)
            assert rest(log) == whole[after:]
            log.close()
    assert len(list(path.parent.iterdir())) == len(steps) or full > 1


def test_a_run_that_was_killed_while_a_file_was_set_aside_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_log, "FULL", 1)
    path = tmp_path / "order.log"
    written(path, [[0, 1], [1], [0]])
    aside = sorted(tmp_path.glob("order.log.*"))
    assert [file.name for file in aside] == ["order.log." + "0" * 20, f"order.log.{2:020d}"]
    path.rename(tmp_path / f"order.log.{3:020d}")  # and nothing in its place yet
    log = OrderLog(path)
    log.open(NAMES, 1)
    assert rest(log) == [1, 1, 0]
    append(log, [1], [0, 3])
    log.close()
    log.open(NAMES, 0)
    assert rest(log) == [0, 1, 1, 0, 1]
    log.close()
    damaged = aside[1].read_bytes()
    aside[1].write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
    log.open(NAMES, 0)
    with pytest.raises(UserError, match=r"0002: is damaged after row 2; put back a whole copy"):
        rest(log)


@pytest.mark.parametrize("keep_all", [True, False])
def test_what_no_checkpoint_needs_goes_where_it_may(
    keep_all: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoints, one more (its successor may not count yet), and the one being made."""
    monkeypatch.setattr(order_log, "FULL", 1)
    with CheckpointStore(tmp_path, keep=2) as store:
        path = tmp_path / "order.log"
        log = OrderLog(path, store, keep_all=keep_all)
        log.open(NAMES, None)
        for i in range(9):
            append(log, [0, 1], [i, i])
            log.sync()
        log.close()
        firsts = sorted(int(file.name[-20:]) for file in tmp_path.glob("order.log.*"))
        assert firsts == (list(range(0, 16, 2)) if keep_all else [12, 14])
        log.open(NAMES, 12)
        assert rest(log) == [0, 1] * 3
        log.close()
        if not keep_all:
            with pytest.raises(UserError, match="begins at row 12, row 4 is not kept; keep the"):
                OrderLog(path, replay=True).open(NAMES, 4)


def test_opening_reads_only_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files before the checkpoint are not looked at."""
    monkeypatch.setattr(order_log, "FULL", 1)
    path = tmp_path / "order.log"
    written(path, [[0], [1], [0], [1]])
    for file in sorted(tmp_path.glob("order.log.*"))[:2]:
        file.write_bytes(b"")
    log = OrderLog(path)
    log.open(NAMES, 2)
    assert rest(log) == [0, 1]
    log.close()
