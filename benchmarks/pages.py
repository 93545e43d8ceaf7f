"""Pages of the documentation that hold measurements: a heading, what was measured on, tables."""

from pathlib import Path

from benchmarks import machine

DOCS = Path(__file__).resolve().parent.parent / "docs"


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
