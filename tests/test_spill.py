"""Files of columns: what comes back, what is damaged, and how long a file stays."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.archive import DamagedError
from streamlearn.errors import UserError
from streamlearn.spill import Spill


def some_columns(seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "X": rng.normal(size=(7, 3)),
        "held/X": rng.random(7) < 0.5,
        "at": np.arange(7),
        "flag": np.array([1, 0, 1], dtype=np.uint8),
        "none": np.zeros((0, 4)),
        "narrow": np.zeros((5, 0)),
        "turned": np.asfortranarray(rng.normal(size=(3, 4))),
    }


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_columns_come_back_as_maps_that_cannot_be_written(tmp_path: Path) -> None:
    columns = some_columns()
    name, written = Spill(tmp_path).write(columns)
    _, read = Spill(tmp_path).open(name)
    for found in (written, read):
        assert sorted(found) == sorted(columns)
        for key, column in columns.items():
            assert found[key].dtype == column.dtype
            np.testing.assert_array_equal(found[key], column)
            assert not found[key].flags.writeable


def test_the_same_columns_make_the_same_file(tmp_path: Path) -> None:
    one, other = Spill(tmp_path / "a"), Spill(tmp_path / "b")
    first = one.write(some_columns()).name
    assert first == other.write(some_columns()).name
    assert first != other.write(some_columns(1)).name
    assert (tmp_path / "a" / first).read_bytes() == (tmp_path / "b" / first).read_bytes()
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / first).stat().st_mode & 0o777 == 0o600


def test_every_flipped_bit_is_found_and_a_new_write_repairs(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    name = spill.write(some_columns()).name
    path = tmp_path / name
    data = path.read_bytes()
    for at in (0, 9, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(DamagedError, match="missing or damaged"):
            spill.open(name)
    path.write_bytes(data[:-1])
    with pytest.raises(DamagedError, match="missing or damaged"):
        spill.open(name)
    assert spill.write(some_columns()).name == name
    assert path.read_bytes() == data


def test_a_file_stays_until_no_kept_checkpoint_names_it(tmp_path: Path) -> None:
    spill = Spill(tmp_path, keep=2)
    first, second = (spill.write(some_columns(seed)).name for seed in range(2))
    spill.saved()
    spill.release(first)
    spill.saved()
    assert names(tmp_path) == {first, second}  # the checkpoint before this one names it
    spill.saved()
    assert names(tmp_path) == {second}
    for _ in range(5):
        spill.saved()
    assert names(tmp_path) == {second}


def test_a_file_is_held_as_often_as_it_was_claimed(tmp_path: Path) -> None:
    spill = Spill(tmp_path, keep=1)
    name = spill.write(some_columns()).name
    spill.claim(name)
    spill.release(name)
    spill.saved()
    assert names(tmp_path) == {name}
    spill.release(name)
    spill.claim(name)  # a snapshot is restored
    spill.saved()
    assert names(tmp_path) == {name}
    spill.release(name)
    spill.saved()
    assert not names(tmp_path)


def test_files_of_a_run_that_was_killed_go_when_nobody_names_them(tmp_path: Path) -> None:
    before = Spill(tmp_path, keep=2)
    named, forgotten = (before.write(some_columns(seed)).name for seed in range(2))
    after = Spill(tmp_path, keep=2)
    after.open(named)
    (tmp_path / "other").write_text("not ours")
    after.saved()
    assert names(tmp_path) == {named, forgotten, "other"}
    after.saved()
    assert names(tmp_path) == {named, "other"}


def test_a_temporary_folder_goes_with_its_spill() -> None:
    spill = Spill()
    assert spill.private
    one, other = (spill.write(some_columns(seed)) for seed in range(2))
    folder = spill.folder
    spill.release(one.name)
    assert names(folder) == {other.name}
    np.testing.assert_array_equal(one.columns["at"], np.arange(7))  # the map lives on
    del spill
    gc.collect()
    assert not folder.exists()


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^Spill: keep must be >= 1, got 0$"):
        Spill(tmp_path, keep=0)
    with pytest.raises(TypeError, match="column 'x' must hold plain values"):
        Spill(tmp_path).write({"x": np.array(["a"], dtype=object)})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Spill(tmp_path / "file" / "below").write(some_columns())
