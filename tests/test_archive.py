"""The one-file format: what goes in comes out, and no damage goes unseen."""

import hashlib
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from streamlearn import archive
from streamlearn.archive import DamagedError, NewerFormatError, read_archive, write_archive
from streamlearn.errors import UserError

ARRAYS = {
    "w": np.array([1.5, -0.0, np.nan, np.inf, 5e-324]),
    "scalar": np.array(2.0),
    "empty": np.zeros((0, 3)),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10)[::3],
    "bits": np.array([True, False]),
    "seen": np.array([1, 2], dtype=np.uint64),
    "swapped": np.array([1, 2], dtype=">i4"),
    "times": np.array(["2026-01-01", "NaT"], dtype="datetime64[ns]"),
    "names": np.array([["a", "long"]]),
    "complex": np.array([1 + 2j]),
}
TABLE = {"z": 1, "a": [None, True, "é\ud800", 2**70, 0.1], "nan": math.nan, "n": np.int64(3)}


def saved(path: Path) -> bytes:
    write_archive(path, ARRAYS, TABLE)
    return path.read_bytes()


def test_everything_comes_back_with_its_dtype_shape_bits_and_order(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    arrays, table = read_archive(tmp_path / "a")
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].shape == array.shape, name
        assert arrays[name].dtype == array.dtype, name
        assert arrays[name].tobytes() == array.tobytes(), name
        assert arrays[name].flags.writeable, name
    assert list(table) == ["z", "a", "nan", "n"]
    assert table["a"] == TABLE["a"]
    assert math.isnan(table["nan"])


@given(array=hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)))
def test_any_plain_array_comes_back(
    array: NDArray[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    write_archive(path, {"a": array}, {})
    back = read_archive(path).arrays["a"]
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_equal_content_gives_equal_bytes_whatever_the_order_of_arrays(tmp_path: Path) -> None:
    first = saved(tmp_path / "a")
    other = dict(reversed(ARRAYS.items()))
    write_archive(tmp_path / "b", other, TABLE)
    assert (tmp_path / "b").read_bytes() == first


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["a"]


def test_other_tools_can_read_the_arrays(tmp_path: Path) -> None:
    back = safetensors.numpy.load(saved(tmp_path / "a"))
    np.testing.assert_array_equal(back["array/w"], ARRAYS["w"])


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_archive(path, {"w": np.arange(3.0)}, {"k": 1})
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x01]) + whole[at + 1 :])
        with pytest.raises(DamagedError, match=r"a: is cut off, damaged, or no file that"):
            read_archive(path)


@pytest.mark.parametrize("kept", [0, 1, 8, 100, -1])
def test_a_file_that_is_cut_off_is_noticed(kept: int, tmp_path: Path) -> None:
    whole = saved(tmp_path / "a")
    (tmp_path / "a").write_bytes(whole[:kept])
    with pytest.raises(DamagedError, match="is cut off, damaged"):
        read_archive(tmp_path / "a")


@pytest.mark.parametrize("text", [b"a,b\n1,2\n" * 9, b"\x04" + b"\0" * 7 + b"[1] ", b"\x80\x04."])
def test_a_file_of_another_kind_is_refused(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(text)
    with pytest.raises(DamagedError, match="no file that streamlearn saved"):
        read_archive(tmp_path / "a")


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FORMAT", 7)
    saved(tmp_path / "a")
    monkeypatch.undo()
    with pytest.raises(
        NewerFormatError, match=r"a: has format 7, this version reads up to 1; inst"
    ):
        read_archive(tmp_path / "a")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing: cannot be read: No such file or directory; ch"):
        read_archive(tmp_path / "nothing")


@pytest.mark.parametrize("array", [np.array([None]), np.zeros(1, dtype=[("a", "f8")])])
def test_objects_and_records_are_refused(array: NDArray[Any], tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^write_archive: array 'a' must hold plain values, got"):
        write_archive(tmp_path / "a", {"a": array}, {})


def test_a_table_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^write_archive: table must hold what JSON can, got set$"):
        write_archive(tmp_path / "a", {}, {"k": {1}})


def test_a_failed_write_leaves_the_file_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = saved(tmp_path / "a")

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match=r"a: no space left on the disk .*; make room and start"):
        write_archive(tmp_path / "a", {}, {"other": 1})
    assert (tmp_path / "a").read_bytes() == whole
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone/a: cannot be written: No such file"):
        write_archive(tmp_path / "gone" / "a", {}, {})


def test_the_dtype_of_an_array_never_makes_objects(tmp_path: Path) -> None:
    """A file made by an attacker, with a right digest, must not turn bytes into pointers."""
    manifest = {"digest": archive._NO_DIGEST, "format": 1, "dtypes": {"a": ["|O", [1]]}}
    tensors = {"array/a": np.zeros(8, np.uint8), "table": np.frombuffer(b"{}", np.uint8)}
    packed = safetensors.numpy.save(tensors, metadata={"streamlearn": json.dumps(manifest)})
    digest = hashlib.blake2b(packed, digest_size=32).hexdigest()
    (tmp_path / "a").write_bytes(packed.replace(archive._NO_DIGEST.encode(), digest.encode()))
    with pytest.raises(ValueError, match="must be of plain values, got object"):
        read_archive(tmp_path / "a")
