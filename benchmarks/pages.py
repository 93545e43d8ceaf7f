"""Pages of the documentation that hold measurements: a heading, what was measured on, tables."""

from pathlib import Path
from typing import Any

from benchmarks import machine, suite, tables

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SHOWN = ("replays", "marginal", "peers", "latency", "starts")  # in README.md


def write(name: str, title: str, about: str, parts: list[str]) -> Path:
    """docs/<name>.md made anew; parts are paragraphs, headings and tables in Markdown."""
    path = DOCS / f"{name}.md"
    text = "\n\n".join([f"# {title}", about, _measured_on(), *parts])
    path.write_text(f"{text}\n", encoding="utf-8")
    return path


def _measured_on() -> str:
    about = machine.describe()
    versions = ", ".join(f"{k} {about[k]}" for k in ("python", "numpy", "numba", "river"))
    return f"Measured on {about['cpu']}, {about['system']}, {about['date']}; {versions}."


# -- the suite -------------------------------------------------------------------------------------


def write_all(found: dict[str, Any], docs: Path = DOCS, readme: Path | None = None) -> list[Path]:
    """The suite's pages, and what of them stands in README.md."""
    written = []
    for name, (title, about, parts) in suite.PAGES.items():
        path = docs / f"{name}.md"
        path.write_text(page(title, about, {p: found[p] for p in parts if p in found}), "utf-8")
        written.append(path)
    first = readme or ROOT / "README.md"
    tables.put(first, summary(found))
    return [*written, first]


def page(title: str, about: str, found: dict[str, Any]) -> str:
    """A page of some parts; what is the same of their machines is said once."""
    machines = {part: machine.line(one["machine"]) for part, one in found.items()}
    said = [f"# {title}", about]
    before = ""
    for part, one in found.items():
        module = suite.module(part)
        said += [f"## {module.TITLE}", module.ABOUT]
        bare = machines[part].partition("; one core")[0]
        said.append(machines[part] if bare != before else machines[part].partition("; ")[2])
        before = bare
        said += [text for text in module.tables(one["measured"]) if text]
    return "\n\n".join(said) + "\n"


def summary(found: dict[str, Any]) -> str:
    """What README.md shows: whole replays, one event, peers, starts."""
    parts = [part for part in SHOWN if part in found]
    if not parts:
        return "Nothing has been measured yet."
    said = [machine.line(found[parts[0]]["machine"])]
    for part in parts:
        said += suite.module(part).summary(found[part]["measured"])
    return "\n\n".join(said)
