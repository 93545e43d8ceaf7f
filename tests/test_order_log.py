"""The order log: what was chosen comes back, whatever was torn, and one writer at a time."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.checkpoint import CheckpointStore
from streamlearn.errors import UserError
from streamlearn.order_log import OrderLog

NAMES = ["events", "labels"]


def written(path: Path, steps: list[list[int]]) -> None:
    log = OrderLog(path)
    log.open(NAMES, None)
    for step in steps:
        log.append(np.array(step, dtype=np.intp))
    log.close()


def rest(log: OrderLog) -> list[int]:
    """What the log wants repeated, row by row, taken in pieces of at most two."""
    out: list[int] = []
    while (run := log.next_run) is not None:
        chosen, rows = run
        n = min(rows, 2)
        out += [chosen] * n
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
    log.append(np.array([1, 1, 1]), sync=True)
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
    last = 16 + 2 * 5  # bytes of the last frame
    os.truncate(path, size - min(lost, last))
    with path.open("ab") as file:
        file.write(junk[: max(0, min(lost, last) - 1)])
    log = OrderLog(path)
    log.open(NAMES, 0)
    assert rest(log) == [0, 1, 1]
    log.append(np.array([1, 0]))
    log.close()
    log.open(NAMES, 1)
    assert rest(log) == [1, 1, 1, 0]
    log.close()


@pytest.mark.parametrize("byte", range(16 + 2 * 5))
@pytest.mark.parametrize("replay", [False, True])
def test_damage_before_frames_that_are_whole_is_refused(
    byte: int, replay: bool, tmp_path: Path
) -> None:
    """Cut off there, choices that were made and acted upon would be made anew."""
    path = tmp_path / "order.log"
    written(path, [[0, 1], [1, 0, 0], [0, 0, 0, 1]])
    whole = path.read_bytes()
    at = whole.index(b"\n") + 1 + 16 + 2 * 5 + byte  # in the second frame
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
    assert "the last 20 bytes, after row 2, were not written to their end" in caplog.text


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
    assert log.next_run is None
    log.close()
    log.open(NAMES, 0)
    assert log.next_run is None
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
        log.append(np.array([0, 1]))
        (tmp_path / "lock").write_bytes(b"%019d\n" % 99)  # a later run came, on another machine
        with pytest.raises(UserError, match="another run took these checkpoints; this one stops"):
            log.append(np.array([1]))
        log.close()
    log = OrderLog(tmp_path / "order.log")
    log.open(NAMES, 0)
    assert rest(log) == [0, 1]
    log.close()
