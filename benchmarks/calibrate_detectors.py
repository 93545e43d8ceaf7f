"""Limits of calibrated detectors: found by simulation, and checked on fresh seeds.

    python -m benchmarks.calibrate_detectors fit ADWIN     # writes operators/limits/ADWIN.json
    python -m benchmarks.calibrate_detectors check ADWIN   # measures: benchmarks/calibrated.json

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
    1_000: (1.0, 1.0, 1.0, 0.8, 0.8, 0.6, 0.6, 0.5, 0.4, 0.3),
    3_000: (1.0, 0.8, 0.6, 0.4, 0.3),
    10_000: (1.0, 0.7, 0.5, 0.3),
    30_000: (1.0, 0.6, 0.4),
    100_000: (1.0, 0.6, 0.4),
}
PLANS: dict[str, dict[str, Any]] = {  # jitter: on bits, on ranks
    "ADWIN": {"warm_up": 64, "jitter": [0.2, 0.0]},
}
BANDS = ((0.0, 0.1), (0.1, 1.0), (1.0, 3.0))
FOLDER = Path(_calibrated.__file__).parent / "limits"
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
    9). Every eighth event stands for eight.
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
                rate = math.exp(rng.uniform(math.log(0.008), math.log(0.55)))
                draw = functools.partial(bits_of(rate), rng)
            else:
                draw = rng.random
            fed += walked(detector, length, BITS if bits else UNIFORM, draw, cap, seen)
    return risk, rose


def smoothed(cells: F8, across: bool) -> F8:
    """Each cell with its neighbours in age, and in rate."""
    wide = np.pad(cells, ((1, 1), (0, 0)))
    out: F8 = 0.25 * wide[:-2] + 0.5 * wide[1:-1] + 0.25 * wide[2:]
    if across:
        wide = np.pad(out, ((0, 0), (1, 1)))
        out = 0.25 * wide[:, :-2] + 0.5 * wide[:, 1:-1] + 0.25 * wide[:, 2:]
    return out


def outward(limits: F8, first: int, last: int) -> F8:
    """Rows before the first that was visited as it is; those after the last along its slope."""
    out = limits.copy()
    out[:first] = out[first]
    slope = np.repeat((out[last] - out[last - 4]) / 4.0, 1)
    slope[:-1] = slope[:-1].mean()
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


def fitted(name: str, seed: int, alarms: int) -> dict[str, Any]:
    """The table of a detector."""
    plan = PLANS[name]
    kind = getattr(operators, name)
    rng = np.random.default_rng(seed)
    regimes = [True] if kind._bits_only else [True, False]
    limits, tau = first_guess(kind, rng)
    found: dict[str, Any] = {"warm_up": plan["warm_up"], "jitter": plan["jitter"], "limits": {}}
    before = limits
    for k, length in enumerate(LENGTHS):
        if k:
            limits = limits + tau * math.log(length / LENGTHS[k - 1])
        last = min(int(2.0 * math.log2(3 * length / 16.0)), ROWS - 1)
        first = max(int(2.0 * math.log2(plan["warm_up"] / 16.0)), 0)
        for gain in STEPS[length]:
            detector = kind(average_run_length=length)
            for bits in regimes:
                at = slice(0, -1) if bits else slice(-1, None)
                detector._take(found | {"limits": {"1": limits, "1000000": limits}})
                risk, rose = one_round(detector, length, bits, alarms if bits else alarms // 3, rng)
                more = smoothed(rose[:, at], bits) + 4.0
                due = smoothed(risk[:, at], bits) / length + 4.0
                limits[:, at] += gain * (tau[:, at] * np.log(more / due))
                hazard = rose[:, at].sum() / risk[:, at].sum() * length
                print(name, length, "bits" if bits else "ranks", gain, f"{hazard:.3f}", flush=True)
            limits = outward(limits, first, last)
        found["limits"][str(length)] = limits.copy()
        if k:
            step = (limits - before)[first : last + 1] / math.log(length / LENGTHS[k - 1])
            tau[:] = np.maximum(np.median(step, axis=0), 0.2 * tau[0])
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
    path = Path(__file__).parent / "calibrated.json"
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
            held.setdefault(name, {}).setdefault(str(length), {})[source] = [
                [n, round(ratio, 3)] for n, ratio in cells
            ]
            path.write_text(json.dumps(held, indent=0, sort_keys=True) + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=["fit", "check"])
    parser.add_argument("names", nargs="+")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--alarms", type=int, default=4000)
    parser.add_argument("--least", type=int, default=400)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    given = parser.parse_args()
    for name in given.names:
        if given.what == "fit":
            found = fitted(name, 1 if given.seed is None else given.seed, given.alarms)
            (FOLDER / f"{name}.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
        else:
            checked(name, given.lengths, 1001 if given.seed is None else given.seed, given.least)


if __name__ == "__main__":
    main()
