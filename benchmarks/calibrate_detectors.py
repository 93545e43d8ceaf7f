"""Limits of calibrated detectors: found by simulation, and checked on fresh seeds.

    python -m benchmarks.calibrate_detectors fit ADWIN     # writes operators/limits/ADWIN.json
    python -m benchmarks.calibrate_detectors check ADWIN   # into benchmarks/calibrated/
    python -m benchmarks.calibrate_detectors table         # what was measured, in Markdown

Fit. For each run length A, streams without drift are walked by the detector itself under the limits
so far. In each cell (age, share of ones) the alarms are counted, and the events at risk. Where the
alarms are more than events / A, the limit goes up by tau * log(alarms * A / events), where tau is
how far the limit moves when A grows by e; and again, with smaller and smaller steps. The shorter
run lengths come first: the longer ones start from where they point to.
Check. Hazard times A, by band of age, for known rates and distributions; 400 alarms a cell or more.
"""

import argparse
import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from streamlearn import operators
from streamlearn.block import F8, I8
from streamlearn.jit._compile import kernel
from streamlearn.jit.limits import BITS, ONES, RANKS, RATES, REGIME, UNIFORM
from streamlearn.operators import _calibrated

ROWS = 32
LENGTHS = (1_000, 3_000, 10_000, 30_000, 100_000)
STEPS = {
    1_000: (1.0,) * 7 + (0.8, 0.8, 0.6, 0.5, 0.4, 0.3),
    3_000: (1.0, 1.0, 0.8, 0.6, 0.4, 0.3),
    10_000: (1.0, 1.0, 0.7, 0.5, 0.4, 0.3),
    30_000: (1.0, 0.8, 0.6, 0.45, 0.35),
    100_000: (1.0, 0.7, 0.45, 0.35),
}
# jitter: on bits, on ranks
PLANS: dict[str, dict[str, Any]] = {
    "ADWIN": {"warm_up": 64, "jitter": [0.2, 0.0]},
    "DDM": {"warm_up": 64, "jitter": [0.1, 0.0]},
    "ECDD": {"warm_up": 64, "jitter": [0.3, 0.0]},
    "FHDDM": {"warm_up": 256, "jitter": [0.04, 0.0]},
    "HDDM_W": {"warm_up": 64, "jitter": [0.02, 0.0]},
    "PageHinkley": {"warm_up": 64, "jitter": [0.1, 0.0]},
    "STEPD": {"warm_up": 128, "jitter": [0.85, 0.0]},
}
BANDS = ((0.0, 0.1), (0.1, 1.0), (1.0, 3.0))
FOLDER = Path(_calibrated.__file__).parent / "limits"
EMPTY = {"warm_up": 0, "jitter": [0.0, 0.0], "limits": {"1": [[0.0]], "1000000": [[0.0]]}}
MEASURED = Path(__file__).parent / "calibrated"
LOG_RATES = np.log(RATES)

Source = Callable[[np.random.Generator, int], F8]


def bits_of(rate: float) -> Source:
    """Errors at a rate."""
    return lambda rng, n: (rng.random(n) < rate).astype(np.float64)


SOURCES: dict[str, Source] = {
    **{f"bits {rate}": bits_of(rate) for rate in (0.05, 0.1, 0.2, 0.3, 0.4)},
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.random(n),
    "lognormal": lambda rng, n: rng.lognormal(size=n),
}


@kernel
def counted(scores: F8, start: I8, alarm: int, warm_up: int, risk: F8, alarms: F8) -> None:
    """Add events at risk and the alarm, if any, to the four cells around age and rate.

    scores (n,) | start (3,): age, ones, regime before | alarm: index or -1 | risk, alarms (rows,
    15). Every eighth event stands for eight.
    """
    age, ones = start[0], start[1]
    last = risk.shape[1] - 1
    for t in range(scores.shape[0]):
        age += 1
        ones += scores[t] == 1.0
        if age < warm_up or (age % 8 != 0 and t != alarm):
            continue
        x = 2.0 * math.log2(age / 16.0)
        row = min(max(int(x), 0), risk.shape[0] - 2)
        x = min(max(x - row, 0.0), 1.0)
        k, width, y = last, 0, 0.0
        if start[2] == BITS:
            k, width = 0, 1
            rate = math.log((ones + 0.5) / (age + 1.0))
            while k < last - 2 and rate > LOG_RATES[k + 1]:
                k += 1
            y = min(max((rate - LOG_RATES[k]) / (LOG_RATES[k + 1] - LOG_RATES[k]), 0.0), 1.0)
        for i in range(2):
            for j in range(1 + width):
                weight = (x if i else 1.0 - x) * (y if j else 1.0 - y)
                if age % 8 == 0:
                    risk[row + i, k + j] += 8.0 * weight
                if t == alarm:
                    alarms[row + i, k + j] += weight


def walked(
    detector: Any,
    length: int,
    regime: int,
    draw: Callable[[int], F8],
    cap: int,
    seen: Callable[[F8, int, int, int], None],
) -> int:
    """One life of a detector: until its alarm or so many values; how many it was fed.

    `seen` is told of each piece: its values, age and ones before it, and the index of the alarm.
    """
    detector._restart()
    detector.tally_[REGIME] = regime
    age, chunk = 0, int(np.clip(length // 4, 256, 8192))
    while age < cap:
        values = draw(min(chunk, cap - age))
        ones = int(detector.tally_[ONES])
        at: int = detector.first_alarm(values)
        seen(values if at < 0 else values[: at + 1], age, ones, at)
        if at >= 0:
            return age + at + 1
        age += values.shape[0]
    return age


def one_round(
    detector: Any, length: int, bits: bool, alarms: int, rng: np.random.Generator
) -> tuple[F8, F8]:
    """Events at risk and alarms of each cell, from lives up to A / 30, A / 3 and 3 A long."""
    risk, rose = np.zeros((2, ROWS, RATES.shape[0] + 1))
    warm_up = detector._warm_up

    def seen(values: F8, age: int, ones: int, at: int) -> None:
        start = np.array([age, ones, BITS if bits else UNIFORM])
        counted(values, start, at, warm_up, risk, rose)

    for cap in (length // 30, length // 3, 3 * length):
        if cap < 2 * warm_up:
            continue
        fed, total = 0, alarms * length // 3
        while fed < total:
            if bits:
                low, high = (0.035, 0.5) if rng.random() < 0.8 else (0.008, 0.55)
                rate = math.exp(rng.uniform(math.log(low), math.log(high)))
                draw = functools.partial(bits_of(rate), rng)
            else:
                draw = functools.partial(SOURCES["uniform"], rng)
            fed += walked(detector, length, BITS if bits else UNIFORM, draw, cap, seen)
    return risk, rose


def smoothed(cells: F8, across: bool) -> F8:
    """Each cell with its neighbours in age and, less, in rate: neighbours may err in turn."""
    wide = np.pad(cells, ((1, 1), (0, 0)), mode="edge")
    out: F8 = 0.25 * wide[:-2] + 0.5 * wide[1:-1] + 0.25 * wide[2:]
    if across:
        wide = np.pad(out, ((0, 0), (1, 1)), mode="edge")
        out = 0.1 * wide[:, :-2] + 0.8 * wide[:, 1:-1] + 0.1 * wide[:, 2:]
    return out


def outward(limits: F8, first: int, last: int) -> F8:
    """Rows before the first that was visited as it is; after the last along its slope, never down.

    A limit that fell too far would never be corrected: no detector would live to see it.
    """
    out = limits.copy()
    out[:first] = out[first]
    slope = np.maximum((out[last] - out[last - 4]) / 4.0, 0.0)
    for row in range(last + 1, ROWS):
        out[row] = out[last] + slope * (row - last)
    return out


def first_guess(kind: Any, rng: np.random.Generator) -> tuple[F8, F8]:
    """Limits for a run length of 1,000, and tau: from the tail of the statistic, at any age."""
    tails = np.zeros((2, RATES.shape[0] + 1))
    for column in range(RATES.shape[0] + (0 if kind._bits_only else 1)):
        said = []
        for _ in range(60):
            values, out = rng.random(1500), np.empty(1500)
            if column < RATES.shape[0]:
                values = (values < RATES[column]).astype(np.float64)
            kind()._statistics(values, out)
            said.append(out[np.isfinite(out)])
        tails[:, column] = np.quantile(np.concatenate(said), (0.99, 0.9))
    for tail in tails:  # smooth along the rates
        tail[:-1] = np.polyval(np.polyfit(LOG_RATES, tail[:-1], 2), LOG_RATES)
    tau = np.maximum((tails[0] - tails[1]) / math.log(10.0), 1e-3)
    return np.tile(tails[0], (ROWS, 1)), np.tile(tau, (ROWS, 1))


def prepared(kind: Any, length: int) -> Any:
    """A calibrated detector that has no table yet."""
    detector = kind()
    detector.average_run_length = length
    detector._calibrate(length, 0, EMPTY)
    return detector


def corrected(
    kind: Any, plan: Any, length: int, limits: F8, tau: F8, bits: bool, rest: Any
) -> None:
    """All steps for one run length and one regime; limits (rows, 15) in/out.

    While steps are long, a cell whose error keeps its sign steps further the next time, one whose
    error turns less far. The last three tables are averaged.
    """
    alarms, rng, again = rest
    alarms *= {1_000: 4, 3_000: 2}.get(length, 1)
    tried: list[F8] = []
    at = slice(0, -1) if bits else slice(-1, None)
    reach, before = np.ones_like(limits[:, at]), np.zeros_like(limits[:, at])
    detector = prepared(kind, length)
    for gain in STEPS[length][-4:] if again else STEPS[length]:
        detector._take(plan | {"limits": {"1": limits, "1000000": limits}})
        risk, rose = one_round(detector, length, bits, int(alarms / (2.0 * gain)), rng)
        more = smoothed(rose[:, at], bits) + 1.5
        error = np.log(more / (smoothed(risk[:, at], bits) / length + 1.5))
        reach *= np.where(np.abs(error) < 0.15, 1.0, np.where(error * before >= 0.0, 1.3, 0.7))
        reach, before = np.clip(reach, 0.5, 4.0), error
        step = gain * (reach if gain > 0.6 else np.minimum(reach, 1.0))
        limits[:, at] += step * tau[:, at] * error
        tried.append(limits[:, at].copy())
        hazard = rose[:, at].sum() / risk[:, at].sum() * length
        print(kind.__name__, length, "bits" if bits else "ranks", gain, f"{hazard:.3f}", flush=True)
    limits[:, at] = np.mean(tried[-3:], axis=0)


def fitted(name: str, seed: int, alarms: int, longest: int, again: int) -> dict[str, Any]:
    """The table of a detector, up to a run length; again: what is shorter stays as it was."""
    plan = PLANS[name]
    kind = getattr(operators, name)
    rng = np.random.default_rng(seed)
    limits, tau = first_guess(kind, rng)
    found: dict[str, Any] = {"warm_up": plan["warm_up"], "jitter": plan["jitter"], "limits": {}}
    before = limits
    first = max(int(2.0 * math.log2(plan["warm_up"] / 16.0)), 0)
    old = json.loads((FOLDER / f"{name}.json").read_text())["limits"] if again else {}
    for k, length in enumerate(one for one in LENGTHS if one <= longest):
        last = min(math.ceil(2.0 * math.log2(3 * length / 16.0)), ROWS - 1)
        if k:
            limits = limits + tau * math.log(length / LENGTHS[k - 1])
        if again and str(length) in old:
            limits = np.array(old[str(length)])
        for bits in () if length < again else (True,) if kind._bits_only else (True, False):
            rest = (alarms if bits else alarms // 3, rng, length == again)
            corrected(kind, plan, length, limits, tau, bits, rest)
        limits = outward(limits, first, last)
        found["limits"][str(length)] = limits.copy()
        if k:
            step = (limits - before)[first : last + 1] / math.log(length / LENGTHS[k - 1])
            least = 0.3 * np.median(step, axis=0)
            tau[first : last + 1] = np.maximum(step, least)
            tau = np.maximum(outward(tau, first, last), least)
            tau[:, :-1], tau[:, -1:] = smoothed(tau[:, :-1], True), smoothed(tau[:, -1:], False)
        before = limits.copy()
    found["limits"] = {n: np.round(each, 4).tolist() for n, each in found["limits"].items()}
    return found


def measured(name: str, length: int, source: str, rng: np.random.Generator, least: int) -> Any:
    """Alarms, and hazard times A, of each band of age, for one source."""
    detector = getattr(operators, name)(average_run_length=length)
    edges = [max(int(low * length), detector._warm_up) for low, _ in BANDS] + [3 * length]
    risk, rose = np.zeros((2, len(BANDS)))
    regime = BITS if source.startswith("bits") else RANKS

    def seen(values: F8, age: int, ones: int, at: int) -> None:
        end = age + values.shape[0]
        for k in range(len(BANDS)):
            risk[k] += max(0, min(end, edges[k + 1]) - max(age, edges[k]))
            rose[k] += at >= 0 and edges[k] < end <= edges[k + 1]

    for k in (2, 1, 0):
        if edges[k + 1] <= edges[k]:
            continue
        while rose[k] < least and risk[k] < 4.0 * least * length:
            draw = functools.partial(SOURCES[source], rng)
            walked(detector, length, regime, draw, edges[k + 1], seen)
    return [[int(a), a / r * length if r else math.nan] for a, r in zip(rose, risk, strict=True)]


def checked(name: str, lengths: list[int], seed: int, least: int) -> None:
    """Measure each cell and print it."""
    kind = getattr(operators, name)
    path = MEASURED / f"{name}.json"
    rng = np.random.default_rng(seed)
    for length in lengths:
        for source in SOURCES:
            if kind._bits_only and not source.startswith("bits"):
                continue
            start = time.perf_counter()
            cells = measured(name, length, source, rng, least)
            text = "  ".join(f"{n:6d} {ratio:5.2f}" for n, ratio in cells)
            taken = time.perf_counter() - start
            bad = "  <-- " if any(abs(r - 1.0) > 0.2 for _, r in cells) else ""
            print(f"{name:12s} {length:7d} {source:10s} {text}  {taken:.0f} s{bad}", flush=True)
            held = json.loads(path.read_text()) if path.exists() else {}
            held.setdefault(str(length), {})[source] = [[n, round(r, 3)] for n, r in cells]
            path.write_text(json.dumps(held, indent=0, sort_keys=True) + "\n")


def table() -> str:
    """All that was measured, in Markdown: least and most over the sources of hazard times A."""
    lines = ["| detector | A | alarms | age below A / 10 | A / 10 to A | A to 3 A |"]
    lines.append("| --- | ---: | ---: | --- | --- | --- |")
    for path in sorted(MEASURED.glob("*.json")):
        for length, sources in sorted(
            json.loads(path.read_text()).items(), key=lambda x: int(x[0])
        ):
            cells = [
                [each[k] for each in sources.values() if each[k][0]] for k in range(len(BANDS))
            ]
            ratios = [[ratio for _, ratio in band] for band in cells]
            shown = [f"{min(r):.2f} to {max(r):.2f}" if r else "warm-up" for r in ratios]
            alarms = sum(n for band in cells for n, _ in band)
            lines.append(f"| {path.stem} | {int(length):,} | {alarms:,} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=["fit", "check", "table"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--alarms", type=int, default=4000)
    parser.add_argument("--longest", type=int, default=LENGTHS[-1])
    parser.add_argument("--again", type=int, default=0, help="go on from the table, at this length")
    parser.add_argument("--least", type=int, default=400)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    given = parser.parse_args()
    if given.what == "table":
        print(table())
    for name in given.names:
        if given.what == "fit":
            seed = 1 if given.seed is None else given.seed
            found = fitted(name, seed, given.alarms, given.longest, given.again)
            (FOLDER / f"{name}.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
        else:
            checked(name, given.lengths, 1001 if given.seed is None else given.seed, given.least)


if __name__ == "__main__":
    main()
