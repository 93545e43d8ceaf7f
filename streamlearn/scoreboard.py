"""The scoreboard of drift detectors: delay, misses, false alarms, run length, time per update."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from streamlearn import drift_streams
from streamlearn.block import F8
from streamlearn.contestants import Contestant, of_frouros, of_river, ours
from streamlearn.contracts import Json
from streamlearn.drift_streams import FIRST, HORIZON, INPUTS, KINDS
from streamlearn.operators import _checks
from streamlearn.text_table import plain
from streamlearn.wording import counted

_SLOWER = 20  # slow detectors walk so many times fewer events
_ALIKE = 20_000  # events of the stream without drift for each run


@dataclass(frozen=True)
class Delay:
    """On one kind of drift: events from its start to the first alarm, over the drifts found."""

    mean: float | None  # None: none was found
    missed: int
    drifts: int


@dataclass(frozen=True)
class Score:
    """One detector on one kind of input.

    `false_alarms` before the first drift, in `false_events`; `alarms` without drift in `events`,
    whose quotient is the run length; `nanoseconds` an update, on the stream without drift.
    """

    name: str
    package: str
    setting: str
    watched: str
    delays: dict[str, Delay]
    false_alarms: int
    false_events: int
    alarms: int
    events: int
    nanoseconds: float

    @property
    def run_length(self) -> float | None:
        """Mean number of events between alarms without drift; None when there was no alarm."""
        return self.events / self.alarms if self.alarms else None


@dataclass(frozen=True)
class Scoreboard:
    """All scores, and with what they were taken."""

    scores: list[Score]
    runs: int
    seed: int
    left_out: list[str]

    def to_dict(self) -> dict[str, Json]:
        """As plain JSON; all but `nanoseconds` is the same in every run."""
        scores = [asdict(score) | {"run_length": score.run_length} for score in self.scores]
        streams = {
            "length": drift_streams.LENGTH, "first_drift": FIRST, "horizon": HORIZON,
            "apart": drift_streams.APART,
            "width": drift_streams.WIDTH, "stay": drift_streams.STAY,
            "rates": list(drift_streams.RATES), "means": list(drift_streams.MEANS),
        }  # fmt: skip
        return {
            "runs": self.runs, "seed": self.seed, "streams": streams, "scores": scores,
            "left_out": self.left_out,
        }  # fmt: skip

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def lines(self) -> list[str]:
        """A table for each kind of input, and what its columns mean."""
        found = []
        for watched in INPUTS:
            low, high = drift_streams.RATES if watched == "errors" else drift_streams.MEANS
            what = "bits, 1 with chance" if watched == "errors" else "normal with deviation 1, mean"
            found += [f"{watched}: {what} {low:g}, after a drift {high:g}", ""]
            found += plain(_HEADER, [_row(s) for s in self.scores if s.watched == watched])
            found += [""]
        return found + _legend(self)


_HEADER = ("", " ", "  ", *KINDS, "false/1,000", "run length", "ns")


def _row(score: Score) -> list[str]:
    delays = [_delay(score.delays[kind]) for kind in KINDS]
    length = score.run_length
    run_length = f"> {score.events:,}" if length is None else f"{length:,.0f}"
    false = 1000 * score.false_alarms / score.false_events
    ns = f"{score.nanoseconds:,.0f}"
    return [score.name, score.package, score.setting, *delays, f"{false:.2f}", run_length, ns]


def _delay(delay: Delay) -> str:
    mean = "-" if delay.mean is None else f"{delay.mean:.0f}"
    return f"{mean} ({delay.missed / delay.drifts:.0%})"


def _legend(board: Scoreboard) -> list[str]:
    runs, few = (counted(_fewer(board.runs, slow=slow), "stream") for slow in (False, True))
    return [
        "by kind of drift: events from its start to the first alarm; in brackets the share",
        f"  not found within {HORIZON:,}; {runs} a kind, for slow ones {few}",
        f"false/1,000: alarms in 1,000 events before the first drift, event {FIRST:,}",
        "run length: events between alarms where there is no drift",
        "ns: processor time an update, in nanoseconds; of streamlearn within a block",
        *board.left_out,
    ]


def scoreboard(
    runs: int = 20,
    seed: int = 0,
    average_run_length: int = 10_000,
    peers: bool = True,
    told: Callable[[str], None] | None = None,
) -> Scoreboard:
    """Measure all detectors on the same seeded streams, with abrupt, gradual, incremental and
    recurring drift and with none.

    Args:
        runs: streams of each kind, >= 1.
        seed: of the streams.
        average_run_length: of the calibrated detectors, 1,000 to 100,000 events; one that has no
            limits for it, as some above 10,000, stands there as published alone.
        peers: whether River's detectors run, and frouros's where it is installed.
        told: called with the name of each detector before it runs.
    Raises: ValueError for a number out of range.
    """
    _checks.whole("scoreboard", "runs", runs, 1)
    _checks.whole("scoreboard", "seed", seed, 0)
    scores, left_out = [], []
    for watched in INPUTS:
        for found in _all(watched, average_run_length, peers):
            if told is not None:
                told(f"{found.name} ({found.package}, {found.setting}) on {watched}")
            scores.append(_score(found, watched, _fewer(runs, slow=found.slow), seed))
    if not peers:
        left_out.append("River and frouros: left out, as asked")
    elif all(score.package != "frouros" for score in scores):
        left_out.append("frouros: not installed, left out (pip install --no-deps frouros tqdm)")
    else:
        left_out.append(
            "frouros: without BOCD (a matrix of events squared), without ADWIN on numbers"
        )
    return Scoreboard(scores, runs, seed, left_out)


def _fewer(runs: int, *, slow: bool) -> int:
    return max(1, runs // _SLOWER) if slow else runs


def _all(watched: str, average_run_length: int, peers: bool) -> Iterator[Contestant]:
    yield from ours(watched, average_run_length)
    if peers:
        yield from of_river(watched)
        yield from of_frouros(watched)


def _score(found: Contestant, watched: str, runs: int, seed: int) -> Score:
    """One detector on all kinds of streams of one input."""
    delays, false_alarms = {}, 0
    for kind in KINDS:
        waits: list[int | None] = []
        for run in range(runs):
            alarms = found.run(drift_streams.drifting(kind, watched, seed, run))
            false_alarms += sum(alarm < FIRST for alarm in alarms)
            waits += [wait(alarms, start) for start in drift_streams.starts(kind)]
        there = [one for one in waits if one is not None]
        mean = float(np.mean(there)) if there else None
        delays[kind] = Delay(mean, len(waits) - len(there), len(waits))
    events = _ALIKE * runs
    alarms_without, nanoseconds = _timed(found, drift_streams.still(watched, seed, events))
    return Score(
        found.name, found.package, found.setting, watched, delays, false_alarms,
        runs * len(KINDS) * FIRST, alarms_without, events, nanoseconds,
    )  # fmt: skip


def wait(alarms: list[int], start: int) -> int | None:
    """Events from a drift's start to the first alarm; None when it came too late or never."""
    for alarm in alarms:
        if start <= alarm < start + HORIZON:
            return alarm - start
    return None


def _timed(found: Contestant, values: F8) -> tuple[int, float]:
    """Alarms, and nanoseconds of the processor a value; what is compiled is so by now."""
    before = time.thread_time_ns()
    alarms = found.run(values)
    return len(alarms), (time.thread_time_ns() - before) / values.size
