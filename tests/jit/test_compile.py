"""The kernel cache: which edits make a kernel anew."""

import ast
import gc
import os
import subprocess
import sys
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
    """Kalman heads are built on the lift and its random features; detectors' limits on nothing."""
    assert ROOM / "random_features.py" in _compile.sources(ROOM / "kalman.py")
    assert _compile.sources(ROOM / "limits.py") == [ROOM / "_compile.py", ROOM / "limits.py"]


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


@pytest.mark.jit
def test_processes_that_need_a_kernel_at_once_compile_it_once(tmp_path: Path) -> None:
    """Who comes second waits and finds it on disk."""
    code = (
        "import sys, numpy as np\n"
        "from streamlearn.jit.kalman import inflate_covariance as kernel\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "kernel(np.eye(2), 2.0, 1.0)\n"
        "print(*(sum(found.values()) for found in (kernel.stats.cache_misses,"
        " kernel.stats.cache_hits)))\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:  # both at once
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = sorted(process.communicate()[0] for process in both)
    assert said == ["0 1\n", "1 0\n"]
