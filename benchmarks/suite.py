"""The parts of the suite: each is measured in a process of its own and kept in one JSON file.

A part is a module of this folder:
    TITLE, ABOUT: a heading, and a paragraph in Markdown that says what is measured.
    measure(quick) -> values that JSON can hold; quick: a smoke test of a second.
    tables(measured) -> paragraphs and tables in Markdown.
    plots(measured) -> figures of the page with plots; optional.
Each result carries the machine and its rates, measured in that part's process.
"""

import importlib
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine, rates

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / "docs" / "benchmarks.json"
DIGITS = 5

ABOUT = """\
`make bench` measures everything on this page but what needs an environment of other packages, which
is `make bench-peers`. What is compared runs by turns in one run, medians; on one core, but
for the marginal event and members in threads. What an
event costs by size is on [a page of its own](costs.md). Of the site, <a href="plots.html">all plots
are one page</a>; `make bench` writes it to `build/benchmarks.html`, too."""
ABOUT_COSTS = """\
`make bench` writes this page: what an event costs by size, how that grows, and how near it is to
what the machine can do. The same <a href="plots.html">as plots</a>, of the site and in
`build/benchmarks.html`."""
PAGES = {  # name: title, what it is about, parts in order
    "benchmarks": (
        "Benchmarks",
        ABOUT,
        ["replays", "marginal", "peers", "latency", "threads", "measuring", "starts", "operators"],
    ),
    "costs": ("Costs", ABOUT_COSTS, ["wide", "image_mixture", "banks", "costs", "allocations"]),
}
MODULES = {  # parts whose module has another name
    "replays": "whole_replays",
    "starts": "processes",
    "operators": "per_operator",
}
PARTS = tuple(name for _, _, parts in PAGES.values() for name in parts)
APART = ("peers",)  # measured only where asked for: they need an environment of their own


def module(part: str) -> Any:
    """The module of a part."""
    return importlib.import_module(f"benchmarks.{MODULES.get(part, part)}")


def measure(part: str, quick: bool) -> dict[str, Any]:
    """One part, here: its values, the machine, its rates, and the seconds that it took."""
    start = time.perf_counter()
    found = rates.measured(0.001 if quick else 0.08).to_json()
    values = module(part).measure(quick)
    took = time.perf_counter() - start
    about = machine.describe() | {"rates": found, "seconds": took, "quick": quick}
    kept: dict[str, Any] = rounded({"machine": about, "measured": values})
    return kept


def measure_apart(part: str, quick: bool) -> dict[str, Any] | None:
    """As `measure`, in a fresh process; None where that failed, which it has said itself."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.json"
        command = [sys.executable, "-m", "benchmarks", "--part", part, "--json", str(path)]
        done = subprocess.run(command + ["--quick"] * quick, cwd=ROOT, check=False)
        if done.returncode:
            return None
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found


def load(path: Path = STORE) -> dict[str, Any]:
    """What was measured last, by part; empty where nothing was."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return {part: found[part] for part in PARTS if part in found}


def keep(found: dict[str, Any], path: Path = STORE) -> None:
    """Write it, parts in their order."""
    ordered = {part: found[part] for part in PARTS if part in found}
    path.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """Floats with so many digits, tuples as lists, keys as text: as it comes back from JSON."""
    if isinstance(value, dict):
        return {str(k): rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
