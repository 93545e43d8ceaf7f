"""The command: `python -m benchmarks [--quick] [--json FILE] [--readme FILE]`."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import clock, machine, measuring, per_operator, processes, tables, whole_replays

ROOT = Path(__file__).resolve().parent.parent


class Size(NamedTuple):
    """How much is run: rows of each replay, rounds, seconds for each operator."""

    n: int
    n_text: int
    n_river: int
    rounds: int
    seconds: float
    cold: bool


FULL = Size(n=1_000_000, n_text=300_000, n_river=20_000, rounds=5, seconds=0.4, cold=True)
QUICK = Size(n=4_000, n_text=1_000, n_river=300, rounds=1, seconds=0.002, cold=False)


def measure(size: Size) -> dict[str, Any]:
    """Everything, as plain values that JSON can hold."""
    about = machine.describe()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        replays = whole_replays.measure(place, size.n, size.n_text, size.n_river, size.rounds)
        stream = place / "stream.parquet"
        cases = list(measuring.measure(stream, size.n, size.rounds, size.seconds))
        starts = processes.starts(place / "stream.csv", size.rounds, size.cold)
        peaks = processes.peak_megabytes(stream, (size.n // 10, size.n))
    return {
        "machine": about,
        "quick": size == QUICK,
        "rounds": size.rounds,
        "replays": [figure._asdict() for figure in replays],
        "one_event": whole_replays.one_event(size.seconds),
        "operators": [figure._asdict() for figure in per_operator.measure(size.seconds)],
        "measuring": [case._asdict() for case in cases],
        "starts": [start._asdict() for start in starts],
        "peak_megabytes": peaks,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test of some seconds")
    parser.add_argument("--json", type=Path, help="write the measurements here")
    parser.add_argument(
        "--readme",
        type=Path,
        help=f"put the tables between the marks in this file; {ROOT.name}/README.md if not quick",
    )
    asked = parser.parse_args()
    clock.pin()
    measured = measure(QUICK if asked.quick else FULL)
    text = tables.page(measured)
    print(text)
    if asked.json is not None:
        asked.json.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    readme = asked.readme or (None if asked.quick else ROOT / "README.md")
    if readme is not None:
        try:
            tables.put(readme, text)
        except ValueError as wrong:
            sys.exit(str(wrong))


if __name__ == "__main__":
    main()
