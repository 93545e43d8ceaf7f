"""The journal: numbered, durable, whole up to where a crash cut it."""

import errno
import os
from pathlib import Path

import pytest

from streamlearn.errors import UserError
from streamlearn.journal import Journal


def opened(folder: Path, segment_bytes: int = 100) -> Journal:
    journal = Journal(folder, segment_bytes)
    journal.open()
    return journal


def filled(folder: Path, n: int, segment_bytes: int = 100) -> Journal:
    journal = opened(folder, segment_bytes)
    for i in range(n):
        assert journal.append([b"%d" % i * 5]) == i
    return journal


def contents(journal: Journal, start: int) -> list[tuple[int, bytes]]:
    return list(journal.read(start))


def expected(start: int, stop: int) -> list[tuple[int, bytes]]:
    return [(i, b"%d" % i * 5) for i in range(start, stop)]


def test_records_are_read_from_any_number(tmp_path: Path) -> None:
    filled(tmp_path, 40).close()
    journal = opened(tmp_path)
    assert journal.next == 40
    assert len(list(tmp_path.iterdir())) > 3
    for start in (0, 1, 7, 8, 39, 40):
        assert contents(journal, start) == expected(start, 40)
    assert journal.last() == b"39" * 5
    assert opened(tmp_path / "none").last() == b""


def test_what_a_crash_left_half_written_is_cut_off(tmp_path: Path) -> None:
    filled(tmp_path, 5, 10**6).close()
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for lost in range(1, 14):  # within the last record, and its header
        path.write_bytes(whole[:-lost])
        journal = opened(tmp_path, 10**6)
        assert contents(journal, 0) == expected(0, 4)
        assert journal.append([b"44444"]) == 4
        journal.close()
        assert path.read_bytes() == whole
    path.write_bytes(whole + b"\xff" * 100)
    assert opened(tmp_path).next == 5
    assert path.read_bytes() == whole


def test_after_a_write_that_failed_none_is_taken_before_it_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = filled(tmp_path, 5)
    real = os.write

    def half(descriptor: int, data: memoryview) -> int:
        if len(data) < 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[:10])

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", half)
        with pytest.raises(UserError, match="no space left"):
            journal.append([b"5" * 5])
    for _ in range(2):  # what stood behind the half record would be cut off with it
        with pytest.raises(UserError, match="a write failed before"):
            journal.append([b"6" * 5])
    journal.open()
    assert journal.append([b"55555"]) == 5
    assert contents(journal, 0) == expected(0, 6)


def test_damage_before_the_end_is_told(tmp_path: Path) -> None:
    filled(tmp_path, 40).close()
    path = sorted(tmp_path.iterdir())[1]
    data = bytearray(path.read_bytes())
    data[9] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="is damaged at record"):
        contents(opened(tmp_path), 0)


@pytest.mark.parametrize("number", [0, 1, 7, 8, 9, 39, 40])
def test_cut_and_written_again_is_the_same(tmp_path: Path, number: int) -> None:
    journal = filled(tmp_path, 40)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    journal.cut(number)
    assert contents(journal, 0) == expected(0, number)
    for i in range(number, 40):
        assert journal.append([b"%d" % i * 5]) == i
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_segments_that_nobody_needs_go(tmp_path: Path) -> None:
    journal = filled(tmp_path, 40)
    journal.drop(20)
    assert 0 < journal.first <= 20
    assert contents(journal, 20) == expected(20, 40)
    with pytest.raises(UserError, match="record 0 is wanted"):
        contents(journal, 0)
    journal.drop(10**9)
    assert contents(journal, journal.first)[-1] == expected(39, 40)[0]
    journal.cut(0)
    assert (journal.first, journal.next) == (0, 0)


def test_a_position_beyond_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="record 41 is wanted, there are 0 to 40"):
        contents(filled(tmp_path, 40), 41)
