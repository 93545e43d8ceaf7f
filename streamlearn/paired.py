"""Paired differences between pipelines on the same rows, with intervals that always hold."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from streamlearn.block import B1, F8, I8, PREDICT, Block, Logged
from streamlearn.confidence import START, asymptotic_interval, bernstein_interval, log_e_value
from streamlearn.contracts import Json, State, merged
from streamlearn.event_log import EventLog, cuts, keys_of, to_drop, to_log, to_recall
from streamlearn.jit import paired as jit
from streamlearn.spill import Spill

POINTS = 256  # of the course of the differences, at most
CLASSIFICATION = "classification"
BETTER, WORSE, UNCLEAR = "better", "worse", "not distinguishable"


class Difference(NamedTuple):
    """How one pipeline did against another on the rows on which both were scored.

    difference: in accuracy (classification) or mean absolute error, this one's minus the other's.
    low, high: the anytime-valid interval, None where there are too few rows. verdict: better,
    worse, or not distinguishable (the interval holds 0). rows: scored of both. wins, defeats: rows
    on which this one alone was right, or wrong (regression: was nearer, or farther). log_e_better,
    log_e_worse: log e-values (R24) of "wins more often than it loses", and of the opposite.
    course: by `row` (labels so far), `difference`, `low`, `high`, at most 256 points.
    """

    name: str
    against: str
    rows: int
    difference: float | None
    low: float | None
    high: float | None
    verdict: str
    wins: int
    defeats: int
    log_e_better: float
    log_e_worse: float
    course: dict[str, list[Any]]


class PairedDifferences:
    """Loss differences of every pair of K pipelines: 0/1 loss, or absolute error for numbers.

    A row counts for a pair when both answered it and its label came; with late labels it counts
    when the label comes. By the block law all numbers are the same bits however the stream is cut.

    Args:
        task: classification or regression.
        count: K >= 1.
        alpha: chance that any interval is ever wrong, in (0, 1).
        family: intervals that are to hold together (Bonferroni); all K (K - 1) / 2 pairs if None.
    Cost: about 5 ns a row and pair; 30 kB a pair.
    Reference: `streamlearn.confidence` names the papers.
    """

    def __init__(self, task: str, count: int, alpha: float, family: int | None = None) -> None:
        self.task, self.count = task, count
        self.alpha = alpha
        self.pairs = list(combinations(range(count), 2))
        self.level = alpha / max(family or len(self.pairs), 1)
        self._sums: F8 = np.zeros((len(self.pairs), jit.N_TERMS))
        self._course: F8 = np.zeros((POINTS, len(self.pairs), 3))
        self._counters: I8 = np.array([0, 0, 1], dtype=np.int64)
        self._log = EventLog()

    def spill_to(self, spill: Spill, memory: int) -> None:
        """Keep what waits for labels in this folder, above so many bytes."""
        self._log.spill_to(spill, memory)

    # -- measuring ---------------------------------------------------------------------------------

    def update(self, block: Block, answers: Sequence[F8 | None]) -> None:
        """Take a block and every pipeline's predictions (n,); None for one that gave none."""
        if not self.pairs:
            return
        told = np.full((block.n, self.count), math.nan)
        for k, column in enumerate(answers):
            if column is not None:
                told[:, k] = column
        if block.plain:
            self._judge(block.y, told)
            return
        start = 0
        for end in cuts(block):
            self._remember(block.rows(start, end), told[start:end])
            start = end

    def _remember(self, block: Block, told: F8) -> None:
        """A piece in which no label meets its own event: judge what has a label, log the rest."""
        keys, recalled, logged = keys_of(block), to_recall(block), to_log(block)
        at_once = (block.mode & PREDICT != 0) & ~np.isnan(block.y)
        if recalled.any() and keys is not None:
            told, recalled = self._recalled(self._log.take(keys, recalled), told)
        judged = at_once | recalled
        self._judge(block.y[judged], told[judged])
        logged &= ~at_once
        if logged.any() and keys is not None:
            self._log.put(keys, logged, {"answers": told})
        if keys is not None and (dropped := to_drop(block)).any():
            self._log.drop(keys, dropped)

    def _recalled(self, found: Logged, told: F8) -> tuple[F8, B1]:
        """Answers with those given at scoring in their place, and the rows that have one."""
        if "answers" not in found.columns:
            return told, np.zeros(len(told), dtype=np.bool_)
        logged, held = found.columns["answers"], found.held["answers"]
        told = told.copy()
        told[held] = math.nan  # at the end of a row it was not kept
        told[held, : logged.shape[1]] = logged[held]
        return told, held

    def _judge(self, y: F8, told: F8) -> None:
        """Losses of labelled rows, NaN where a pipeline said nothing, into every pair."""
        if self.task == CLASSIFICATION:
            losses = np.where(np.isfinite(told), (told != y[:, None]).astype(np.float64), np.nan)
        else:
            losses = np.abs(y[:, None] - told)
        losses[np.isnan(y)] = math.nan
        known = ~np.isnan(y)
        if not known.all():
            losses = losses[known]
        jit.paired_run(losses, self._sums, self._course, self._counters, START)

    # -- reading -----------------------------------------------------------------------------------

    def between(self, i: int, j: int, names: Sequence[str]) -> Difference:
        """How the i-th pipeline did against the j-th."""
        pair, sign = (self.pairs.index((min(i, j), max(i, j)))), (1.0 if i < j else -1.0)
        sums = self._sums[pair]
        # sums tell the loss of the first minus that of the second
        wins, defeats = (sums[jit.DEFEATS], sums[jit.WINS])[:: 1 if i < j else -1]
        better = -sign if self.task == CLASSIFICATION else sign  # accuracy is 1 - loss
        low, high = self._interval(sums[: jit.VARIATION + 1], sums[jit.SCALE], better)
        mean = better * sums[jit.MEAN]
        if self.task == CLASSIFICATION and sums[jit.ROWS]:
            mean = (wins - defeats) / sums[jit.ROWS]  # the difference of accuracies, exactly
        return Difference(
            names[i],
            names[j],
            int(sums[jit.ROWS]),
            _json(mean) if sums[jit.ROWS] else None,
            _json(low),
            _json(high),
            self._verdict(float(low), float(high)),
            int(wins),
            int(defeats),
            float(log_e_value(wins, defeats)),
            float(log_e_value(defeats, wins)),
            self._course_of(pair, better),
        )

    def _interval(self, sums: F8, scale: F8 | float, sign: float) -> tuple[F8, F8]:
        """Interval of sign * mean loss difference; sums (…, 3): rows, mean, variation."""
        n, mean, v = sums[..., jit.ROWS], sign * sums[..., jit.MEAN], sums[..., jit.VARIATION]
        if self.task == CLASSIFICATION:
            low, high = bernstein_interval(n, mean, v, self.level)
            return np.maximum(low, -1.0), np.minimum(high, 1.0)
        return asymptotic_interval(n, mean, v, self.level, scale)

    def _verdict(self, low: float, high: float) -> str:
        if low <= 0.0 <= high:
            return UNCLEAR
        more = BETTER if self.task == CLASSIFICATION else WORSE
        return more if low > 0.0 else {BETTER: WORSE, WORSE: BETTER}[more]

    def _course_of(self, pair: int, sign: float) -> dict[str, list[Any]]:
        """The interval over time."""
        kept, stride = int(self._counters[jit.POINTS]), int(self._counters[jit.STRIDE])
        sums = self._course[:kept, pair]
        scale = np.where(sums[:, jit.VARIATION] >= self._sums[pair, jit.SCALE], 1.0, 0.0)
        low, high = self._interval(sums, scale * self._sums[pair, jit.SCALE], sign)
        told = {"difference": sign * sums[:, jit.MEAN], "low": low, "high": high}
        rows = {"row": [stride * (k + 1) for k in range(kept)]}
        return rows | {name: [_json(x) for x in column] for name, column in told.items()}

    # -- state -------------------------------------------------------------------------------------

    def state(self) -> State:
        """Everything needed to go on bit-identically, as copies."""
        kept = int(self._counters[jit.POINTS])
        arrays = {"sums": self._sums, "course": self._course[:kept], "counters": self._counters}
        own = State({name: array.copy() for name, array in arrays.items()}, {})
        return merged({"log": self._log.state(), "paired": own}, {})

    def load(self, state: State) -> None:
        """Take over a state that `state` gave; task, count and alpha must be the same."""
        own = state.under("paired").arrays
        self._sums[:], self._counters[:] = own["sums"], own["counters"]
        self._course[:] = 0.0
        self._course[: len(own["course"])] = own["course"]
        self._log.load(state.under("log"))


def _json(value: Any) -> Json:
    return float(value) if math.isfinite(value) else None
