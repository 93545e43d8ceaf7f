"""What the documentation shows is run: docstrings, and the code blocks of the Markdown files."""

import doctest
import importlib
import pkgutil
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamlearn
from streamlearn import cli

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(streamlearn.__path__, "streamlearn.")
    if not module.name.endswith("__main__")
)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """Code blocks of one language, in the order of the page."""
    text = (ROOT / page).read_text("utf-8")
    return [code for found, code in FENCE.findall(text) if found == language]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name: str) -> None:
    failures, _ = doctest.testmod(importlib.import_module(name))
    assert failures == 0


def test_docstrings_hold_examples() -> None:
    """The walk above must find something: a renamed room would leave it empty."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [importlib.import_module(name) for name in MODULES]
    examples = [e for m in modules for test in finder.find(m) for e in test.examples]
    assert len(MODULES) > 20
    assert len(examples) > 20


@pytest.mark.parametrize("code", blocks("CONTRIBUTING.md", "python"))
def test_the_tutorial_shows_the_operator_that_runs(code: str) -> None:
    assert code in (ROOT / "examples" / "own_operator.py").read_text("utf-8")


def test_readme_shows_the_pipeline_of_the_examples() -> None:
    (shown,) = blocks("README.md", "yaml")
    assert shown == (ROOT / "examples" / "pipeline.yaml").read_text("utf-8")


@pytest.mark.jit
@pytest.mark.parametrize("code", blocks("README.md", "python"))
def test_python_in_the_readme_runs(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102  # our own page


def commands(page: str) -> Iterator[list[str]]:
    """Calls of the command line in the shell blocks of a page."""
    for line in "".join(blocks(page, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["streamlearn"]:
            yield words[1:]


@pytest.mark.jit
def test_commands_in_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other in one folder, beside the pipeline of the examples."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "examples" / "pipeline.yaml", tmp_path)
    ran = 0
    for arguments in commands("README.md"):
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 0, f"streamlearn {arguments}: {capsys.readouterr().err}"
        ran += 1
    assert ran >= 3


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_within_the_repository_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text("utf-8"))
    assert [target for target in targets if not (ROOT / target).exists()] == []
