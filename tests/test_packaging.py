"""What the build takes along, and that what is said about versions in two places agrees."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import streamlearn

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "streamlearn"
ROOMS = ("connectors", "jit", "operators")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]


def folders_with_code(folder: Path, name: str) -> set[str]:
    """Import names of a folder and of all below it that hold Python files, links followed."""
    found = {name} if any(folder.glob("*.py")) else set()
    for child in folder.iterdir():
        if child.is_dir() and child.name.isidentifier():
            found |= folders_with_code(child, f"{name}.{child.name}")
    return found


def floors(requirements: list[str]) -> dict[str, str]:
    """{"numpy": "2.0"} from ["numpy>=2.0"] or ["numpy==2.0.*"]."""
    pairs = [re.split("[=>]=", line.removesuffix(".*"), maxsplit=1) for line in requirements]
    return dict(pairs)


def test_the_build_lists_every_folder_with_code() -> None:
    """A folder that is not listed would be missing from the wheel without a word."""
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == folders_with_code(
        PACKAGE, "streamlearn"
    )


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_reached_through_a_relative_link(room: str) -> None:
    link = PACKAGE / room
    assert link.is_symlink(), f"{link} is no link; on Windows: git config core.symlinks true"
    assert link.readlink() == Path("..") / room


def test_ruff_bans_the_bare_name_of_every_room() -> None:
    banned = PYPROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert set(banned) == set(ROOMS)


def test_the_tested_floors_are_the_declared_ones() -> None:
    lines = (ROOT / ".ci" / "floors.txt").read_text("utf-8").splitlines()
    tested = floors([line for line in lines if line and not line.startswith("#")])
    assert tested == floors(PROJECT["dependencies"])


def test_the_build_takes_along_what_is_no_code() -> None:
    """Styles and scripts of the report, the mark that tells type checkers of types, limits."""
    found = {path.name for path in PACKAGE.iterdir() if path.is_file() and path.suffix != ".py"}
    assert "py.typed" in found
    listed = PYPROJECT["tool"]["setuptools"]["package-data"]
    assert set(listed) == {"streamlearn", "streamlearn.operators"}
    assert set(listed["streamlearn"]) == found
    (pattern,) = listed["streamlearn.operators"]
    data = {path for path in (PACKAGE / "operators").rglob("*.*") if path.suffix == ".json"}
    assert data == set((PACKAGE / "operators").glob(pattern)) != set()


def test_the_changelog_begins_with_what_is_not_released() -> None:
    """Then, once there is a release, with the version that is being built."""
    heads = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert heads[0] == "Unreleased"
    assert heads[1:2] in ([], [PROJECT["version"]])


def test_the_package_says_the_version_it_is_built_as() -> None:
    assert streamlearn.__version__ == PROJECT["version"]
