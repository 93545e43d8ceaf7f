"""Drift evaluation: how deep a known drift cuts, how soon it is mended, what it costs in errors."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import B1, F8, I8, LEARN, PREDICT, U1, Block, Columns
from streamlearn.connectors.alerts import of_drift
from streamlearn.contracts import Json, State, merged
from streamlearn.known_drifts import (
    AlarmTally,
    Drift,
    EventNumbers,
    events_of,
    judge_alarms,
    known_drifts,
    parse_drifts,
    strangers,
)
from streamlearn.operators import _checks
from streamlearn.operators._base import CLASSIFICATION, REGRESSION
from streamlearn.probes import ProbedPipeline, concept_starts, held_out, masked

__all__ = ["DriftEvaluation", "judge_alarms", "known_drifts", "parse_drifts"]

_WAITING, _JUDGED = 1, 2  # stages of an event: answered, and compared with its label


class DriftEvaluation:
    """Depth, recovery and excess errors at known drifts, and the alarms judged against them.

    It watches a stream from its first block on. From each known drift on (of a gradual one from
    its end, where the new concept holds alone) a fresh clone of the pipeline walks the same rows:
    the reset reference, what the same pipeline would do had it known of the drift and begun anew.
    It is shown no label of an event from before, and ends with the next drift or the horizon. Rows
    are judged when their label comes, under the number of their event, so late labels change when
    a number is known and not what it is about.

    For each drift, over the rows that were labelled, those left out to which nothing was answered:
    depth: accuracy over the `window` rows before it (not reaching back behind the drift before)
    minus the lowest over `span` consecutive rows from its start to `window` rows after its end.
    recovery: the first r such that accuracy over the `span` rows from row r after its end is at
    most `margin` below that of the reset reference over the same rows; None if not before the next
    drift or the horizon. excess_errors: errors minus those of the reset reference, over all rows
    after it; negative where what was learnt before still helps. area: errors from its start to
    `window` rows after its end beyond the rate before it (area of the dip; more-operators.md, M4).
    Regression: absolute errors in place of misses; recovery is within a factor of 1 + margin of the
    reference's mean absolute error.

    Block law: every number is bit-identical under any cut. A frozen pipeline is compared with one
    that learns. Weights are not used.

    Args:
        pipeline: what is evaluated; it is cloned and never touched.
        drifts: events from 0, or pairs (start, end), or both as text; see `known_drifts`.
        width: of drifts given as one number, >= 0.
        horizon: rows after the end of a drift that are looked at, >= span.
        window: rows before a drift, and after it for the dip, >= 1.
        span: rows of one measurement after a drift, >= 1. margin: see above, >= 0.
        tolerance: rows after the end of a drift in which an alarm is about it.
        probes: as of the `ProbedPipeline` that runs, whose probes the reference must not learn
            either; 0 without.
    Cost: the reference once more costs what the pipeline costs, on the rows from a drift to its
        horizon; beside that O(1) an event and 18 bytes for each of those rows and their window.
    Raises: ValueError for an argument out of range, drifts that overlap, or a pipeline that is
        neither classifier nor regressor.
    """

    def __init__(
        self,
        pipeline: Any,
        drifts: Any,
        *,
        width: int = 0,
        horizon: int = 10_000,
        window: int = 1000,
        span: int = 200,
        margin: float = 0.02,
        tolerance: int = 2000,
        probes: int = 0,
    ) -> None:
        owner = type(self).__name__
        tasks = (CLASSIFICATION, REGRESSION)
        self.task = _checks.choice(owner, "task of the pipeline", pipeline.task, tasks)
        self.pipeline = pipeline
        self.drifts = known_drifts(drifts, width)
        self.window = _checks.whole(owner, "window", window, least=1)
        self.span = _checks.whole(owner, "span", span, least=1)
        self.horizon = _checks.whole(owner, "horizon", horizon, least=self.span)
        self.margin = _checks.not_negative(owner, "margin", margin)
        self.tolerance = _checks.whole(owner, "tolerance", tolerance, least=0)
        self.probes = _checks.whole(owner, "probes", probes, least=0)
        self._until = _untils(self.drifts, self.horizon)
        self._places = _Places(self.drifts, self._until, self.window)
        self._concepts = concept_starts(self.drifts)
        self._numbers = EventNumbers(owner)
        self._tally = AlarmTally(self.drifts, self.tolerance)
        self._heard = False
        self._model, self._reference = _Losses(), _Losses()
        self._clone: Any = None
        self._now = 0  # the drift whose reference is running, or comes next

    # -- measuring ---------------------------------------------------------------------------------

    def update(self, block: Block, outputs: Columns) -> None:
        """Take the next block and its outputs: `prediction` (n,), and `alarm` (n,) if any.

        Raises: ValueError for outputs without a prediction, y that is not (n,), or event numbers
            that are not the count of the stream.
        """
        if "prediction" not in outputs:
            raise ValueError(
                f"DriftEvaluation: outputs must have a column 'prediction', got {list(outputs)!r}; "
                f"end the pipeline with a model"
            )
        if block.y.ndim != 1:
            raise ValueError(f"DriftEvaluation: y must have shape (n,), got {block.y.shape!r}")
        first = self._numbers.events
        about = self._numbers.of(block, lambda numbers: self._places.of(numbers) >= 0)
        own = events_of(block)
        if "alarm" in outputs:
            self._heard = True
            rows = np.flatnonzero(of_drift(outputs))
            self._tally.add(np.maximum(first + np.cumsum(own)[rows] - 1, 0))
        places = self._places.of(about)
        if len(places) and places.max() >= 0:
            self._model.answer(places[own], _answers(block, outputs)[own])
        self._walk(block, about, places, first)
        self._judge(block, places)

    def _judge(self, block: Block, places: I8) -> None:
        labelled = (places >= 0) & (block.mode & LEARN != 0) & np.isfinite(block.y)
        if labelled.any():
            for losses in (self._model, self._reference):
                losses.judge(places[labelled], block.y[labelled], self.task)

    def _walk(self, block: Block, about: I8, places: I8, first: int) -> None:
        """Let the reset references walk their rows of this block, one after the other."""
        last = self._numbers.events
        rows: I8 | None = None  # of the events
        while self._now < len(self.drifts) and (end := self.drifts[self._now][1]) < last:
            rows = np.flatnonzero(events_of(block)) if rows is None else rows
            until = self._until[self._now]
            a = int(rows[end - first]) if end >= first else 0
            b = int(rows[until - first]) if until < last else block.n
            if end >= first:
                self._clone = self._fresh()
            if a < b:
                self._ask(block.rows(a, b), about[a:b], places[a:b], end)
            if until >= last:
                return
            self._clone = None
            self._now += 1

    def _fresh(self) -> Any:
        clone = self.pipeline.clone()
        if hasattr(self.pipeline, "expects_labels"):
            clone.expects_labels = self.pipeline.expects_labels
        return clone

    def _ask(self, block: Block, about: I8, places: I8, end: int) -> None:
        """The reset reference over rows of its drift, but for labels from before and probes."""
        own = events_of(block)
        mode = np.where(strangers(block, about, end), 0, block.mode).astype(np.uint8)
        if self.probes:
            mode = masked(mode, held_out(about, self._concepts, self.probes))
        same = bool((mode == block.mode).all())
        outputs = self._clone.run(block if same else block.replace(mode=mode))
        self._reference.answer(places[own], _answers(block, outputs)[own])

    # -- reading -----------------------------------------------------------------------------------

    def result(self, probed: ProbedPipeline | None = None) -> dict[str, Json]:
        """Everything measured so far, as plain JSON; None for what is undefined.

        `drifts`: for each that was reached: `start`, `end`; `rows` judged after it; accuracy or
        mean absolute error (see `metric`) `before`, at its `worst`, `after` it (over all rows) and
        that of the `reference` on the same rows; `depth`, `recovery`, `excess_errors`, `area`;
        `delay` of its first alarm (None: missed) and number of `alarms`.
        `mean`: of `depth`, `excess_errors`, of `recovery` over the `recovered`. `alarms`: `n`,
        `false_alarms`, `misses`, `mean_delay`; None without a detector. `probes`: what the given
        ProbedPipeline measured.
        """
        used = self._places.used(self._numbers.events)
        self._model.make_room(used)
        self._reference.make_room(used)
        reached = sum(start < self._numbers.events for start, _ in self.drifts)
        found = [self._drift(k) for k in range(reached)]
        recoveries = [drift["recovery"] for drift in found if drift["recovery"] is not None]
        return {
            "task": self.task,
            "metric": "accuracy" if self.task == CLASSIFICATION else "mae",
            "events": self._numbers.events,
            **self._settings(),
            "drifts": found,
            "mean": {
                "depth": _mean([d["depth"] for d in found if d["depth"] is not None]),
                "recovery": _mean(recoveries),
                "recovered": len(recoveries),
                "excess_errors": _mean(
                    [d["excess_errors"] for d in found if d["excess_errors"] is not None]
                ),
            },
            "alarms": self._tally.result(reached) if self._heard else None,
            "probes": None if probed is None else probed.result(),
        }

    def _drift(self, k: int) -> dict[str, Json]:
        (start, end), events = self.drifts[k], self._numbers.events
        behind = self.drifts[k - 1][1] if k else 0
        until = min(self._until[k], events)
        usual = _mean(_told(self._model, self._places, max(start - self.window, behind), start))
        dip = _told(self._model, self._places, start, min(end + self.window, until))
        after = self._places.span(end, until)
        rows = np.flatnonzero(self._model.judged(after))
        model, reference = self._model.of(after)[rows], self._reference.of(after)[rows]
        worst = _worst(dip, self.span)
        both = np.isfinite(model) & np.isfinite(reference)
        return {
            "start": start,
            "end": end,
            "rows": len(rows),
            "before": self._shown(usual),
            "worst": self._shown(worst),
            "depth": None if usual is None or worst is None else worst - usual,
            "recovery": self._recovery(rows, model, reference, both),
            "excess_errors": _sum(model[both] - reference[both]),
            "area": None if usual is None else _sum(dip - usual),
            "after": self._shown(_mean(model[both])),
            "reference": self._shown(_mean(reference[both])),
            **self._tally.of(k),
        }

    def _recovery(self, rows: I8, model: F8, reference: F8, both: B1) -> int | None:
        """The first row after the drift from which it is as good as the reset reference."""
        mine = _window_sums(np.where(both, model, 0.0), self.span)
        other = _window_sums(np.where(both, reference, 0.0), self.span)
        n = _window_sums(both.astype(np.float64), self.span)
        slack = self.margin * (n if self.task == CLASSIFICATION else other)
        good = np.flatnonzero((n > 0) & (mine <= other + slack + 1e-9 * (1.0 + other)))
        return int(rows[good[0]]) if len(good) else None

    def _shown(self, loss: float | None) -> float | None:
        """A mean loss as the metric: accuracy of a classifier."""
        return loss if loss is None or self.task == REGRESSION else 1.0 - loss

    # -- state -------------------------------------------------------------------------------------

    @property
    def needs_pickle(self) -> bool:
        """Whether the state of the pipeline, and so of the reset reference, is a pickle."""
        return bool(getattr(self.pipeline, "needs_pickle", False))

    def _settings(self) -> dict[str, Json]:
        names = ("horizon", "window", "span", "margin", "tolerance")
        return {name: getattr(self, name) for name in names}

    def state(self) -> State:
        """Everything needed to go on bit-identically, the running reset reference included."""
        used = self._places.used(self._numbers.events)
        arrays = {"first": self._tally.first.copy(), "counts": self._tally.counts.copy()}
        for name, losses in (("model", self._model), ("reference", self._reference)):
            arrays |= {f"{name}_{k}": column for k, column in losses.columns(used).items()}
        table = {
            "settings": self._same(),
            "numbers": self._numbers.table(),
            "false_alarms": self._tally.false_alarms,
            "heard": self._heard,
            "now": self._now,
        }
        members = {} if self._clone is None else {"clone": self._clone.state()}
        return merged({"own": State(arrays, table)} | members, {})

    def _same(self) -> dict[str, Json]:
        drifts = [list(drift) for drift in self.drifts]
        return self._settings() | {"task": self.task, "drifts": drifts, "probes": self.probes}

    def load(self, state: State) -> None:
        """Take over what `state` gave; the arguments must be the same.

        Raises: ValueError for other drifts or settings.
        """
        own = state.under("own")
        _checks.unchanged("DriftEvaluation", own.table["settings"], self._same())
        self._numbers.load(own.table["numbers"])
        self._tally.first = np.array(own.arrays["first"])
        self._tally.counts = np.array(own.arrays["counts"])
        self._tally.false_alarms = own.table["false_alarms"]
        self._heard, self._now = own.table["heard"], own.table["now"]
        for name, losses in (("model", self._model), ("reference", self._reference)):
            losses.load({k: own.arrays[f"{name}_{k}"] for k in ("value", "stage")})
        self._clone = None
        if "clone" in state.table:
            self._clone = self._fresh()
            self._clone.load(state.under("clone"))


class _Places:
    """Where events near a drift are kept: `window` rows before each, up to its horizon after."""

    def __init__(self, drifts: Sequence[Drift], until: Sequence[int], window: int) -> None:
        starts: list[int] = []
        stops: list[int] = []
        for (start, _), stop in zip(drifts, until, strict=True):
            low = max(0, start - window)
            if stops and low <= stops[-1]:
                stops[-1] = stop
            else:
                starts.append(low)
                stops.append(stop)
        self._starts, self._stops = np.array(starts, np.int64), np.array(stops, np.int64)
        self._offsets = np.cumsum([0, *(self._stops - self._starts)], dtype=np.int64)

    def of(self, numbers: I8) -> I8:
        """(n,) places of events, -1 for one that is not kept."""
        if not len(self._starts):
            return np.full(len(numbers), -1, dtype=np.int64)
        k = np.searchsorted(self._starts, numbers, side="right") - 1
        inside = (k >= 0) & (numbers < self._stops[k])
        return np.where(inside, self._offsets[k] + numbers - self._starts[k], -1)

    def span(self, first: int, stop: int) -> slice:
        """The places of events first to stop, all of which are kept."""
        if first >= stop:
            return slice(0, 0)
        place = int(self.of(np.array([first]))[0])
        return slice(place, place + stop - first)

    def used(self, events: int) -> int:
        """How many places are taken after so many events of the stream."""
        return int(np.clip(events - self._starts, 0, self._stops - self._starts).sum())


class _Losses:
    """The answer to each kept event, and when its label has come the loss in its place.

    value: (m,) float64, NaN where nothing was answered. stage: (m,) uint8. Both grow by doubling.
    """

    def __init__(self) -> None:
        self.value: F8 = np.zeros(0)
        self.stage: U1 = np.zeros(0, dtype=np.uint8)

    def make_room(self, n: int) -> None:
        """Have at least n places."""
        m = len(self.stage)
        if n > m:
            more = max(n - m, m)
            self.value = np.concatenate([self.value, np.full(more, np.nan)])
            self.stage = np.concatenate([self.stage, np.zeros(more, dtype=np.uint8)])

    def answer(self, places: I8, answers: F8) -> None:
        """Events (n,) were answered; a place of -1 is left out."""
        kept = places >= 0
        if not kept.any():
            return
        places = places[kept]
        self.make_room(int(places.max()) + 1)
        self.value[places], self.stage[places] = answers[kept], _WAITING

    def judge(self, places: I8, y: F8, task: str) -> None:
        """Labels (n,) came; of several for one event the first counts."""
        self.make_room(int(places.max()) + 1)
        if (np.diff(places) <= 0).any():
            places, once = np.unique(places, return_index=True)
            y = y[once]
        waiting = self.stage[places] == _WAITING
        places, y = places[waiting], y[waiting]
        answers = self.value[places]
        if task == CLASSIFICATION:
            losses = np.where(np.isnan(answers), np.nan, answers != y)
        else:
            losses = np.abs(y - answers)
        self.value[places], self.stage[places] = losses, _JUDGED

    def judged(self, places: slice) -> B1:
        """Which of these places have their label."""
        rows: B1 = self.stage[places] == _JUDGED
        return rows

    def of(self, places: slice) -> F8:
        """Losses at these places, NaN where there is none."""
        return np.where(self.judged(places), self.value[places], np.nan)

    def columns(self, used: int) -> dict[str, NDArray[Any]]:
        """Copies of the first places."""
        self.make_room(used)
        return {"value": self.value[:used].copy(), "stage": self.stage[:used].copy()}

    def load(self, columns: dict[str, NDArray[Any]]) -> None:
        """Take over what `columns` gave."""
        self.value, self.stage = np.array(columns["value"]), np.array(columns["stage"])


def _untils(drifts: Sequence[Drift], horizon: int) -> list[int]:
    """The event at which looking at each drift ends: the next one, or the horizon."""
    ends = [end + horizon for _, end in drifts]
    starts = [start for start, _ in drifts[1:]]
    return [*map(min, ends, starts), *ends[-1:]]


def _answers(block: Block, outputs: Columns) -> F8:
    """Predictions of the rows that asked, NaN for the others and where nothing finite was said."""
    prediction: F8 = outputs["prediction"]
    return np.where((block.mode & PREDICT != 0) & np.isfinite(prediction), prediction, np.nan)


def _told(losses: _Losses, places: _Places, first: int, stop: int) -> F8:
    """Losses of events first to stop, without those that are not known or were not answered."""
    found = losses.of(places.span(first, stop))
    return found[np.isfinite(found)]


def _window_sums(values: F8, span: int) -> F8:
    """Sums over all windows of consecutive values; none where there are fewer."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return sums[span:] - sums[:-span] if len(values) >= span else np.zeros(0)


def _worst(losses: F8, span: int) -> float | None:
    """The highest mean loss over consecutive rows."""
    sums = _window_sums(losses, span)
    return float(sums.max() / span) if len(sums) else None


def _mean(values: Any) -> float | None:
    return float(math.fsum(values) / len(values)) if len(values) else None


def _sum(values: F8) -> float | None:
    return float(math.fsum(values)) if len(values) else None
