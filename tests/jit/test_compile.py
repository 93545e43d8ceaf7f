"""The kernel cache: which edits make a kernel anew."""

import ast
import gc
from pathlib import Path

import pytest

from streamlearn.jit import _compile

ROOM = Path(_compile.__file__).resolve().parent
FILES = sorted(path for path in ROOM.rglob("*.py") if path.name != "__init__.py")


def read_by_python(path: Path) -> set[Path]:
    """The files of the room that a file imports, by Python's own parser."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("streamlearn.jit"):
            tail = str(node.module).split(".")[2:]
            for parts in [tail] if tail else [[alias.name] for alias in node.names]:
                found.add(ROOM.joinpath(*parts).with_suffix(".py"))
        assert not (
            isinstance(node, ast.Import)
            and any(alias.name.startswith("streamlearn") for alias in node.names)
        ), f"{path}: import kernels with `from streamlearn.jit… import …`"
    return {file for file in found if file.is_file()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_kernel_depends_on_all_that_its_file_imports(path: Path) -> None:
    """A file left out would leave stale code in the cache."""
    found: set[Path] = set()
    ahead = {path, ROOM / "_compile.py"}
    while ahead:
        found |= ahead
        ahead = set().union(*(read_by_python(one) for one in ahead)) - found
    assert _compile.sources(path) == sorted(found)


def test_an_edit_reaches_those_that_import_the_file_and_no_others() -> None:
    """Kalman heads are built on the lift and its random features; ADWIN stands alone."""
    assert ROOM / "random_features.py" in _compile.sources(ROOM / "kalman.py")
    assert _compile.sources(ROOM / "adwin.py") == [ROOM / "_compile.py", ROOM / "adwin.py"]


@_compile.part
def _inner(x: float) -> float:
    return x + 1.0


@_compile.kernel
def _outer(x: float) -> float:
    return 2.0 * _inner(x)


@pytest.mark.jit
def test_the_garbage_collector_is_on_again_after_a_compile() -> None:
    """It rests meanwhile."""
    assert gc.isenabled()
    assert _outer(1.0) == 4.0
    assert gc.isenabled()
