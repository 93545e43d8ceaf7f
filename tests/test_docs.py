"""What the documentation shows is run: docstrings, and the code blocks of the Markdown files."""

import doctest
import importlib
import json
import pkgutil
import re
import runpy
import shlex
import shutil
import threading
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

import streamlearn
from streamlearn import cli, serve
from tests.kafka.broker import NOIDA, Broker, create, running

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


NEEDS = {
    "streamlearn.operators._torch": "torch",
    "streamlearn.operators.torch_forecast": "torch",
    "models/representation.md": "torch",
}


def needs(name: str) -> None:
    """Skip, visibly, what an extra is for that is not installed."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"needs {NEEDS[name]}")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name: str) -> None:
    needs(name)
    failures, _ = doctest.testmod(importlib.import_module(name))
    assert failures == 0


def test_docstrings_hold_examples() -> None:
    """The walk above must find something: a renamed room would leave it empty."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [importlib.import_module(name) for name in MODULES if name not in NEEDS]
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


SITE = sorted((ROOT / "docs").rglob("*.md"))
DIRECTIVE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})(?:\{(?P<directive>[\w-]+)\} *(?P<argument>\S*)|(?P<language>\w+))\n"
    r"(?P<body>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
OPTION = re.compile(r"^:([\w-]+): *(.*)\n", re.MULTILINE)
SHELL = (
    "make ",
    "pip install ",
    "git ",
    "docker ",
    "kubectl ",
    "curl ",
    "streamlearn serve ",
)  # shown, not run
BROKER = "localhost:9092"  # on pages, the broker that the test starts


class Shown(NamedTuple):
    """One code block of a page: its language, its file name if it is a file, its text."""

    language: str
    caption: str
    code: str


def shown_in(page: Path) -> Iterator[Shown]:
    """The code blocks of a page of the site, included files among them."""
    for found in DIRECTIVE.finditer(page.read_text("utf-8")):
        body, directive = found["body"], found["directive"]
        options = dict(OPTION.findall(body.partition("\n\n")[0] + "\n")) if directive else {}
        if directive == "literalinclude":
            code = (page.parent / found["argument"]).read_text("utf-8")
            yield Shown("include", options.get("caption", ""), code)
        elif directive == "code-block":
            code = body.partition("\n\n")[2] if options else body
            yield Shown(found["argument"], options.get("caption", ""), code)
        elif directive is None:
            yield Shown(found["language"], "", body)


class Reader:
    """Does what a reader of one page would do, in one folder and one Python session."""

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], broker: Broker | None = None
    ) -> None:
        self.folder, self.capsys, self.broker = folder, capsys, broker
        self.session: dict[str, object] = {"__name__": "__main__"}
        self.ran = 0

    def follow(self, shown: Shown) -> None:
        if self.broker is not None:
            shown = shown._replace(code=shown.code.replace(BROKER, self.broker.bootstrap))
        if shown.caption:
            (self.folder / shown.caption).write_text(shown.code, encoding="utf-8")
        elif shown.language in ("csv", "json", "text", "dockerfile"):
            raise AssertionError(f"needs a caption, the name of the file:\n{shown.code}")
        getattr(self, f"_{shown.language}", self._unknown)(shown)

    def _unknown(self, shown: Shown) -> None:
        raise AssertionError(f"nothing checks blocks of {shown.language}:\n{shown.code}")

    def _include(self, shown: Shown) -> None:
        """A file of the repository; its caption puts it into the folder."""

    _csv = _json = _text = _dockerfile = _include

    def _sh(self, shown: Shown) -> None:
        lines = [line for line in shown.code.splitlines() if line.strip()]
        assert all(line.startswith(SHELL) for line in lines), shown.code

    def _python(self, shown: Shown) -> None:
        exec(compile(shown.code, shown.caption or "page", "exec"), self.session)  # noqa: S102  # ours
        self.capsys.readouterr()
        self.ran += 1

    def _pycon(self, shown: Shown) -> None:
        test = doctest.DocTestParser().get_doctest(shown.code, self.session, "page", None, None)
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
        failures, _ = runner.run(test, clear_globs=False)
        self.session.update(test.globs)
        assert failures == 0, self.capsys.readouterr().out
        self.ran += 1

    def _yaml(self, shown: Shown) -> None:
        path = self.folder / (shown.caption or "unnamed.yaml")
        path.write_text(shown.code, encoding="utf-8")
        streamlearn.load_config(path)
        self.ran += 1

    def _console(self, shown: Shown) -> None:
        """`$ command` lines, each followed by what it prints; `...` stands for anything."""
        for part in re.split(r"^\$ ", shown.code, flags=re.MULTILINE)[1:]:
            command, _, expected = re.sub(r" \\\n\s*", " ", part).partition("\n")
            got = self._printed(shlex.split(command, comments=True))
            checker = doctest.OutputChecker()
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            fits = not expected.strip() or checker.check_output(expected, got, flags)
            assert fits, f"$ {command}\nshown:\n{expected}\ngot:\n{got}"
            self.ran += 1

    def _printed(self, words: list[str]) -> str:
        """What a command prints; its errors and the exit status where that is not 0."""
        self.capsys.readouterr()
        program, *arguments = words
        if program == "python":
            runpy.run_path(str(self.folder / arguments[0]), run_name="__main__")
            return self.capsys.readouterr().out
        if program == "head":
            text = (self.folder / arguments[-1]).read_text("utf-8")
            return "".join(text.splitlines(keepends=True)[: int(arguments[0].strip("-n"))])
        if program == "docker":
            self._make_topic(arguments)
            return ""
        assert program == "streamlearn", f"cannot run {program!r}"
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        captured = self.capsys.readouterr()
        if end.value.code == 0:
            return captured.out
        errors = [line for line in captured.err.splitlines() if line.startswith("error:")]
        return "\n".join([*errors, f"[exit status {end.value.code}]", ""])

    def _make_topic(self, words: list[str]) -> None:
        """What `kafka-topics.sh --create` does in the container."""
        asked = dict(pairwise(words))
        assert self.broker is not None
        create(self.broker, asked["--topic"], int(asked["--partitions"]))


@pytest.fixture
def page_broker(tmp_path_factory: pytest.TempPathFactory, page: Path) -> Iterator[Broker | None]:
    """A broker of its own for a page that names one."""
    if BROKER not in page.read_text("utf-8"):
        yield None
        return
    with running(tmp_path_factory.mktemp("broker"), NOIDA) as mine:
        yield mine


# kafka-python leaves sockets of connections that it has closed to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.jit
@pytest.mark.parametrize("page", SITE, ids=lambda p: p.relative_to(ROOT / "docs").as_posix())
def test_what_a_page_of_the_site_shows_works(
    page: Path,
    page_broker: Broker | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Files are written, configs loaded, commands and Python run, in the order of the page."""
    needs(page.relative_to(ROOT / "docs").as_posix())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    runpy.run_path(str(ROOT / "docs" / "parcels.py"), run_name="__main__")  # the data of all pages
    reader = Reader(tmp_path, capsys, page_broker)
    for shown in shown_in(page):
        reader.follow(shown)


@pytest.mark.jit
def test_requests_that_a_page_shows_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of drift in production: the configuration, an event, its label."""
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "how-to" / "drift-in-production.md"
    files = {shown.caption: shown.code for shown in shown_in(page) if shown.caption}
    (tmp_path / "served.yaml").write_text(files["served.yaml"], encoding="utf-8")
    plan = serve.planned(streamlearn.load_config("served.yaml", {"serve.port": 0}))
    with serve.opened(plan) as (engine, app, server):
        begun = threading.Event()
        loop = threading.Thread(
            target=serve.run, args=(engine, app, server.address, lambda _: begun.set())
        )
        loop.start()
        try:
            assert begun.wait(60)
            for path, code in (("predict", "predict.json"), ("learn", "learn.json")):
                url = f"http://127.0.0.1:{server.port}/{path}"
                with urllib.request.urlopen(url, files[code].encode(), timeout=20) as answer:
                    assert json.load(answer)["id"] == "p1"
        finally:
            app.stop()
            loop.join(20)


def test_the_site_has_pages_with_code() -> None:
    """The walk above must find something."""
    languages = [shown.language for page in SITE for shown in shown_in(page)]
    assert {"python", "console", "yaml"} <= set(languages)
    assert len(languages) > 30


def test_every_page_is_in_the_contents() -> None:
    """Sphinx says so too, as an error; here it takes no build."""
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    names = [page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in SITE]
    assert [n for n in names if n != "index" and not re.search(rf"^{n}$", index, re.M)] == []


def test_everything_public_has_a_place_in_the_reference() -> None:
    """Operators are found by themselves; the others are named on a page."""
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "reference").iterdir())
    operators = importlib.import_module("streamlearn.operators").exported()
    others = {name for name in vars(streamlearn)["_HOME"] if name not in operators}
    assert {n for n in others if not re.search(rf"streamlearn\.{n}\b", pages)} == set()


@pytest.mark.parametrize("page", SITE, ids=lambda p: p.relative_to(ROOT / "docs").as_posix())
def test_code_of_the_site_fits_a_screen(page: Path) -> None:
    """Beyond 88 columns a reader has to scroll sideways."""
    shown = [s for s in shown_in(page) if s.language != "include"]
    assert [line for s in shown for line in s.code.splitlines() if len(line) > 88] == []


DOCSTRING = """\
Learns w_ from |x|, as `replay` does; 2 * 3 is 6.

Args:
    r: noise, > 0;
        in units of y. k, j: others.
State: w_ (d,), weights.
After a full sentence prose goes on.
>>> 1 + 1
2
"""
CONVERTED = r"""
Learns w\_ from \|x\|, as :py:obj:`replay <streamlearn.replay>`\  does; 2 \* 3 is 6.

:Args:
    * **r**: noise, \> 0; in units of y.
    * **k, j**: others.

:State: w\_ (d,), weights.

After a full sentence prose goes on.

>>> 1 + 1
2
"""


def test_docstrings_become_fields_and_plain_prose(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Sphinx would take for a reference, emphasis or a substitution stays as it is."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    converter = importlib.import_module("docstrings")
    monkeypatch.setitem(converter.links, "replay", "streamlearn.replay")
    lines = converter.convert(DOCSTRING.splitlines(), ["r", "k", "j"])
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    assert text == CONVERTED.strip()
