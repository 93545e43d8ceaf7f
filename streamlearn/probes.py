"""Probes: rows of every concept that are held out, and asked again and again on the way."""

import math
from typing import Any, NamedTuple

import numpy as np

from streamlearn.block import B1, F8, I8, LEARN, PREDICT, U1, Block, Columns, Csr, concatenate
from streamlearn.contracts import Json, State, merged
from streamlearn.known_drifts import Drift, EventNumbers, events_of, known_drifts
from streamlearn.operators import _checks
from streamlearn.operators._base import CLASSIFICATION, REGRESSION

SHARE = 10  # one event in so many is held out, from where its concept holds on


def concept_starts(drifts: tuple[Drift, ...]) -> I8:
    """Event from which each concept holds alone: 0, and the ends of the drifts."""
    return np.array(sorted({0, *(end for _, end in drifts)}), dtype=np.int64)


def held_out(numbers: I8, starts: I8, probes: int) -> B1:
    """Which events (n,) are probes: of every concept each SHARE-th, until there are enough."""
    offset = numbers - starts[np.maximum(np.searchsorted(starts, numbers, side="right") - 1, 0)]
    rows: B1 = (numbers >= 0) & (offset % SHARE == SHARE - 1) & (offset < probes * SHARE)
    return rows


def masked(mode: U1, probe: B1) -> U1:
    """Modes with which probes are answered, but neither observed nor learnt, now or later."""
    return np.where(probe, mode & PREDICT, mode).astype(np.uint8)


class _Kept(NamedTuple):
    """One probe: its concept, its features, dense and sparse, and its label, NaN until it comes."""

    concept: int
    x: F8
    sparse: tuple[F8, I8]
    y: float


class ProbedPipeline:
    """A pipeline that is asked about held-out rows of every concept on the way.

    Stands in the place of the pipeline that it drives. Of each concept (from the end of one known
    drift to the start of the next) every 10th event is a probe until there are `probes`: it is
    answered like any event, but never observed or learnt, nor is its label when that comes late.
    After every `every` events all probes whose label is known are asked, with mode PREDICT, which
    changes nothing. Average anytime accuracy: the mean over these points of the mean over the
    concepts seen so far. Worst case (De Lange et al. 2023): with k concepts, accuracy on the
    present one / k + (1 - 1/k) * the mean over earlier concepts of the lowest since they ended.
    Regression: mean absolute error, and the highest, in their place. A probe to which a classifier
    has nothing to say is a miss.

    Block law: which rows are probes and when they are asked rests on the count of events alone.
    Probes carry features; keys, times and ids are not kept.

    Args:
        pipeline: with `run`, `state`, `load` and `task`; goes on learning.
        drifts: what `known_drifts` takes. width: of those given as one number.
        probes: of each concept, >= 1. every: events between two askings, >= 1.
    Cost: of one answer, (concepts so far * probes / every) times an event.
    Raises: ValueError for an argument out of range or another task.
    Reference: De Lange, van de Ven, Tuytelaars (2023), Continual evaluation for lifelong learning.
    """

    def __init__(
        self, pipeline: Any, drifts: Any, *, width: int = 0, probes: int = 200, every: int = 1000
    ) -> None:
        owner = type(self).__name__
        self.pipeline = pipeline
        tasks = (CLASSIFICATION, REGRESSION)
        self.task = _checks.choice(owner, "task of the pipeline", pipeline.task, tasks)
        self.drifts = known_drifts(drifts, width)
        self.probes = _checks.whole(owner, "probes", probes, least=1)
        self.every = _checks.whole(owner, "every", every, least=1)
        self._starts = concept_starts(self.drifts)
        self._numbers = EventNumbers(owner)
        self._kept: dict[int, _Kept] = {}  # by number of the event, in order
        self._lowest = np.full(len(self._starts), math.nan)  # of a concept that ended
        self._last = np.full(len(self._starts), math.nan)
        self._mean, self._points = 0.0, 0

    def __repr__(self) -> str:
        return f"ProbedPipeline({self.pipeline!r}, probes={self.probes}, every={self.every})"

    # -- running -----------------------------------------------------------------------------------

    def run(self, block: Block) -> Columns:
        """Run a block with its probes held out; ask all probes where it is time."""
        first = self._numbers.events
        about = self._numbers.of(block, self._is_probe)
        probe = self._is_probe(about)
        held = block.replace(mode=masked(block.mode, probe)) if probe.any() else block
        rows = np.flatnonzero(events_of(block))
        points = np.arange(-(first + 1) % self.every, len(rows), self.every)
        ends = [*(rows[points] + 1).tolist(), block.n]
        parts, lengths, at = [], [], 0
        for i, end in enumerate(ends):
            if at < end:
                piece = held.rows(at, end)
                parts.append(self.pipeline.run(piece))
                lengths.append(piece.n)
                self._gather(block.rows(at, end), about[at:end], probe[at:end])
                at = end
            if i < len(points):
                self._ask(block, int(first + points[i]))
        return concatenate(parts, lengths) if parts else self.pipeline.run(held)

    def _is_probe(self, numbers: I8) -> B1:
        return held_out(numbers, self._starts, self.probes)

    def _gather(self, block: Block, about: I8, probe: B1) -> None:
        """Keep the probes of a piece, and the labels that came for them."""
        own = events_of(block)
        for t in np.flatnonzero(probe).tolist():
            number = int(about[t])
            if own[t]:
                concept = int(np.searchsorted(self._starts, number, side="right")) - 1
                sparse = _sparse_row(block, t)
                self._kept[number] = _Kept(concept, block.X[t].copy(), sparse, math.nan)
            kept = self._kept.get(number)
            labelled = block.mode[t] & LEARN and np.isfinite(block.y[t])
            if kept is not None and labelled and math.isnan(kept.y):
                self._kept[number] = kept._replace(y=float(block.y[t]))

    def _ask(self, block: Block, number: int) -> None:
        """All probes with a label, after event `number`; block: for the features of now."""
        known = [kept for kept in self._kept.values() if not math.isnan(kept.y)]
        if not known:
            return
        answers = self.pipeline.run(_questions(known, block))["prediction"]
        y, concept = np.array([k.y for k in known]), np.array([k.concept for k in known])
        if self.task == CLASSIFICATION:
            values = (answers == y).astype(np.float64)
        else:
            values = np.where(np.isfinite(answers), np.abs(answers - y), np.nan)
        worse = np.fmin if self.task == CLASSIFICATION else np.fmax
        now = int(np.searchsorted(self._starts, number, side="right")) - 1
        for k in range(now + 1):
            own = values[(concept == k) & np.isfinite(values)]
            self._last[k] = own.sum() / len(own) if len(own) else math.nan
            if k < now:
                self._lowest[k] = worse(self._lowest[k], self._last[k])
        seen = self._last[: now + 1][np.isfinite(self._last[: now + 1])]
        if len(seen):
            self._points += 1
            self._mean += (float(seen.sum()) / len(seen) - self._mean) / self._points

    # -- reading -----------------------------------------------------------------------------------

    def result(self) -> dict[str, Json]:
        """Plain JSON; None for what is undefined.

        `average_anytime`, `worst_case` (at the last point), `points`, `concepts`: for each its
        `start`, number of labelled `probes`, `last` value and the `worst` since it ended.
        """
        seen = int(np.searchsorted(self._starts, self._numbers.events, side="left"))
        labelled = [kept.concept for kept in self._kept.values() if not math.isnan(kept.y)]
        concepts = [
            {
                "start": int(self._starts[k]),
                "probes": labelled.count(k),
                "last": _json(self._last[k]),
                "worst": _json(self._lowest[k]),
            }
            for k in range(seen)
        ]
        return {
            "average_anytime": self._mean if self._points else None,
            "worst_case": self._worst_case(),
            "points": self._points,
            "concepts": concepts,
        }

    def _worst_case(self) -> float | None:
        asked = np.flatnonzero(np.isfinite(self._last))
        if not len(asked):
            return None
        now = int(asked[-1])
        earlier = self._lowest[:now][np.isfinite(self._lowest[:now])]
        if not len(earlier):
            return float(self._last[now])
        k = 1 + len(earlier)
        return float(self._last[now] / k + (1.0 - 1.0 / k) * (earlier.sum() / len(earlier)))

    # -- state -------------------------------------------------------------------------------------

    @property
    def needs_pickle(self) -> bool:
        """Whether the state of the pipeline is a pickle."""
        return bool(getattr(self.pipeline, "needs_pickle", False))

    @property
    def state_bytes(self) -> int:
        """Bytes of the pipeline's arrays; those of the probes belong to the measuring."""
        return int(self.pipeline.state_bytes)

    def state(self) -> State:
        """The pipeline's state, the probes, and what was measured."""
        kept = self._kept.values()
        arrays = {
            "number": np.array(list(self._kept), dtype=np.int64),
            "y": np.array([k.y for k in kept], dtype=np.float64),
            "width": np.array([len(k.x) for k in kept], dtype=np.int64),
            "x": np.concatenate([np.zeros(0), *(k.x for k in kept)]),
            "filled": np.array([len(k.sparse[0]) for k in kept], dtype=np.int64),
            "values": np.concatenate([np.zeros(0), *(k.sparse[0] for k in kept)]),
            "columns": np.concatenate([np.zeros(0, dtype=np.int64), *(k.sparse[1] for k in kept)]),
            "lowest": self._lowest.copy(),
            "last": self._last.copy(),
        }
        table = {"points": self._points, "mean": self._mean, "numbers": self._numbers.table()}
        own = State(arrays, table | {"settings": self._settings()})
        return merged({"pipeline": self.pipeline.state(), "probes": own}, {})

    def _settings(self) -> dict[str, Json]:
        drifts = [list(drift) for drift in self.drifts]
        return {"drifts": drifts, "probes": self.probes, "every": self.every}

    def load(self, state: State) -> None:
        """Take over what `state` gave; drifts, probes and every must be the same.

        Raises: ValueError where they are not.
        """
        own = state.under("probes")
        _checks.unchanged("ProbedPipeline", own.table["settings"], self._settings())
        self.pipeline.load(state.under("pipeline"))
        arrays = own.arrays
        self._numbers.load(own.table["numbers"])
        self._points, self._mean = own.table["points"], own.table["mean"]
        self._lowest, self._last = np.array(arrays["lowest"]), np.array(arrays["last"])
        self._kept, at, place = {}, 0, 0
        shares = (arrays[name].tolist() for name in ("number", "y", "width", "filled"))
        for number, y, width, filled in zip(*shares, strict=True):
            concept = int(np.searchsorted(self._starts, number, side="right")) - 1
            inside = slice(place, place + filled)
            sparse = arrays["values"][inside].copy(), arrays["columns"][inside].copy()
            self._kept[number] = _Kept(concept, arrays["x"][at : at + width].copy(), sparse, y)
            at, place = at + width, place + filled


def _sparse_row(block: Block, t: int) -> tuple[F8, I8]:
    if block.sparse is None:
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    row = block.sparse.rows(t, t + 1)
    return row.values.copy(), row.columns.copy()


def _questions(probes: list[_Kept], block: Block) -> Block:
    """Probes as a block that only asks, with the features of another block."""
    n = len(probes)
    X = np.full((n, block.d), np.nan)
    for t, probe in enumerate(probes):
        X[t, : len(probe.x)] = probe.x
    sparse = None
    if block.sparse is not None:
        ends = np.cumsum([0, *(len(probe.sparse[0]) for probe in probes)], dtype=np.int64)
        values, columns = (np.concatenate([p.sparse[i] for p in probes]) for i in (0, 1))
        sparse = Csr(values, columns, ends, block.sparse.width)
    mode = np.full(n, PREDICT, dtype=np.uint8)
    return Block(
        X, np.full(n, np.nan), np.ones(n), mode, block.features, block.labels, sparse=sparse
    )


def _json(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
