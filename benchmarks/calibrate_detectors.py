"""Limits of calibrated detectors: found by simulation, and checked on fresh seeds.

    python -m benchmarks.calibrate_detectors fit     # operators/limits/, half an hour
    python -m benchmarks.calibrate_detectors check   # into benchmarks/calibrated/
    python -m benchmarks.calibrate_detectors table   # what was measured, in Markdown

Fit: `benchmarks/detector_limits.py`. Check: the detectors themselves on streams that no fit has
seen. Hazard times A by band of age, for known rates and distributions; 400 alarms a cell or more.
With names after fit or check, these detectors alone; `fit --keep` adds the run lengths that a table
lacks, and leaves the others as they are; `correct --lengths` moves these alone.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detector_limits import ALARMS, PLANS, corrected, fitted
from streamlearn import operators
from streamlearn.block import F8
from streamlearn.jit.limits import BITS, GIVEN, RANKS, REGIME
from streamlearn.operators import _calibrated

LENGTHS = (1_000, 10_000, 30_000, 100_000)
BANDS = ((0.0, 0.1), (0.1, 1.0), (1.0, 3.0))
UNCLAIMED = ("EDDM", "bits 0.05")
BAND_WORDS = ("below A / 10", "from A / 10 to A", "beyond A")
FOLDER = Path(_calibrated.__file__).parent / "limits"
MEASURED = Path(__file__).parent / "calibrated"

Draw = Callable[[int], F8]  # so many values of one stream
Source = Callable[[np.random.Generator], Draw]  # a stream


def bits_of(rate: float) -> Source:
    """Errors at a rate."""
    return lambda rng: lambda n: (rng.random(n) < rate).astype(np.float64)


def own_model(rng: np.random.Generator) -> Draw:
    """What a Bayesian change point takes for granted: values around a mean that is drawn once."""
    mean = rng.normal()
    return lambda n: rng.normal(mean, 1.0, n)


BIT_SOURCES = {f"bits {rate}": bits_of(rate) for rate in (0.05, 0.1, 0.2, 0.3, 0.4)}
NUMBER_SOURCES: dict[str, Source] = {
    "normal": lambda rng: lambda n: rng.normal(size=n),
    "uniform": lambda rng: rng.random,
    "lognormal": lambda rng: lambda n: rng.lognormal(size=n),
}


def sources_of(name: str) -> dict[str, Source]:
    """What a detector is checked on."""
    kind = getattr(operators, name)
    if kind._takes == GIVEN:
        return {"its model": own_model}
    return BIT_SOURCES if kind._bits_only else BIT_SOURCES | NUMBER_SOURCES


def lengths_of(name: str) -> list[int]:
    """The run lengths that a detector is checked at."""
    return [length for length in LENGTHS if length <= _calibrated.longest(name)]


def walked(detector: Any, length: int, draw: Draw, cap: int) -> tuple[int, bool]:
    """One life of a detector, until its alarm or so many values: its length, and if by alarm."""
    detector._restart()
    age, chunk = 0, int(np.clip(length // 4, 256, 8192))
    while age < cap:
        values = draw(min(chunk, cap - age))
        at: int = detector.first_alarm(values)
        if at >= 0:
            return age + at + 1, True
        age += values.shape[0]
    return age, False


def measured(name: str, length: int, source: str, rng: np.random.Generator, least: int) -> Any:
    """Alarms, and hazard times A, of each band of age, for one source."""
    kind = getattr(operators, name)
    detector = kind(average_run_length=length)
    if kind._takes == BITS and not source.startswith("bits"):
        detector.tally_[REGIME] = RANKS
    edges = [max(int(low * length), detector._warm_up) for low, _ in BANDS] + [3 * length]
    risk, rose = np.zeros((2, len(BANDS)))
    for k in (2, 1, 0):
        if edges[k + 1] <= edges[k]:
            continue
        while rose[k] < least and risk[k] < 4.0 * least * length:
            draw = sources_of(name)[source](rng)
            age, alarmed = walked(detector, length, draw, edges[k + 1])
            for j in range(len(BANDS)):
                risk[j] += max(0, min(age, edges[j + 1]) - edges[j])
                rose[j] += alarmed and edges[j] < age <= edges[j + 1]
    return [[int(a), a / r * length if r else math.nan] for a, r in zip(rose, risk, strict=True)]


def checked(name: str, lengths: Sequence[int], seed: int, least: int) -> None:
    """Measure each cell, print it, and keep it."""
    path = MEASURED / f"{name}.json"
    for length in lengths:
        for k, source in enumerate(sources_of(name)):
            rng = np.random.default_rng([seed, length, k])
            start = time.process_time()
            cells = measured(name, length, source, rng, least)
            text = "  ".join(f"{n:6d} {ratio:5.2f}" for n, ratio in cells)
            taken = time.process_time() - start
            bad = "  <-- " if any(abs(r - 1.0) > 0.2 for _, r in cells) else ""
            print(f"{name:12s} {length:7d} {source:10s} {text}  {taken:.0f} s{bad}", flush=True)
            held = json.loads(path.read_text()) if path.exists() else {}
            held.setdefault(str(length), {})[source] = [[n, round(r, 3)] for n, r in cells]
            path.write_text(json.dumps(held, indent=0, sort_keys=True) + "\n")


def kept() -> dict[str, dict[int, dict[str, Any]]]:
    """What was measured: [alarms, hazard times A] of each band, by detector, A and source."""
    found = {}
    for path in sorted(MEASURED.glob("*.json")):
        held = json.loads(path.read_text(encoding="utf-8"))
        found[path.stem] = {length: held[str(length)] for length in sorted(map(int, held))}
    return found


def table(found: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    """All of it, in Markdown: least and most over the sources of hazard times A."""
    lines = ["| detector | A | alarms | age below A / 10 | A / 10 to A | A to 3 A |"]
    lines.append("| --- | ---: | ---: | --- | --- | --- |")
    for name, lengths in found.items():
        for length, sources in lengths.items():
            cells = [
                [each[k] for each in sources.values() if each[k][0]] for k in range(len(BANDS))
            ]
            ratios = [[ratio for _, ratio in band] for band in cells]
            shown = [f"{min(r):.2f} to {max(r):.2f}" if r else "warm-up" for r in ratios]
            alarms = sum(n for band in cells for n, _ in band)
            lines.append(f"| {name} | {length:,} | {alarms:,} | {' | '.join(shown)} |")
    return lines


def far_off(found: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    """Each cell of what is claimed that is more than 20 % off, in Markdown, and of how many."""
    lines, cells = [], 0
    for name, lengths in found.items():
        for length, sources in lengths.items():
            for source, bands in sources.items():
                for (alarms, ratio), words in zip(bands, BAND_WORDS, strict=True):
                    claimed = alarms > 0 and (name, source) != UNCLAIMED
                    cells += claimed
                    if claimed and abs(ratio - 1.0) > 0.2:
                        lines.append(f"- {name}, A = {length:,}, {source}, {words}: {ratio:.2f}")
    apart = "(those of EDDM at a rate of 0.05 apart)"
    return [f"Of {cells:,} cells {apart} {len(lines)} are more than 20 % off:", *lines]


def told(line: str) -> None:
    """Print what has been done, with the processor time it took in all."""
    print(f"{time.process_time():7.0f} s  {line}", flush=True)


def fit(name: str, seed: int, keep: bool) -> None:
    """Limits of a detector, into its file; `keep`: but those that it lacks."""
    path = FOLDER / f"{name}.json"
    held = json.loads(path.read_text(encoding="utf-8"))["limits"] if keep else {}
    lacking = [length for length in ALARMS if str(length) not in held]
    taus: dict[int, F8 | None] = {}
    for (found, tau), length in zip(fitted(name, seed, told, held), lacking, strict=False):
        path.write_text(json.dumps(found) + "\n", encoding="utf-8")
        taus[length] = tau
    correct(name, seed, taus)


def correct(name: str, seed: int, lengths: dict[int, F8 | None]) -> None:
    """Correct what the file of a detector has for these run lengths; tau of each, if known."""
    path = FOLDER / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    for better in corrected(name, found, seed, told, lengths):
        path.write_text(json.dumps(better) + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=["fit", "correct", "check", "table"])
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(PLANS)}")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--least", type=int, default=400, help="alarms in a cell that is checked")
    parser.add_argument("--lengths", type=int, nargs="+", help="to be corrected or checked")
    parser.add_argument("--keep", action="store_true", help="fit but what the table lacks")
    given = parser.parse_args()
    if given.what == "table":
        print("\n".join([*far_off(kept()), "", *table(kept())]))
        return
    for name in given.names or PLANS:
        seed = given.seed or 1
        if given.what == "fit":
            fit(name, seed, given.keep)
        elif given.what == "correct":
            correct(name, seed, dict.fromkeys(given.lengths or ALARMS))
        else:
            checked(name, given.lengths or lengths_of(name), given.seed or 1001, given.least)


if __name__ == "__main__":
    main()
