"""Drift evaluation and probes as a plain Python loop over events, for tests.

Rows are shown one at a time; lists and dicts only. It follows the definitions in the issue, not the
code: no block, no cut, no window sums.
"""

import math
from typing import Any

import numpy as np

from streamlearn.block import EXPIRED, LEARN, OBSERVE, PREDICT, Block

Answer = float | None


def number_of(block: Block, t: int, counted: int, by_id: dict[Any, int]) -> int | None:
    """The event that row t is about, given how many have come before it."""
    if block.mode[t] & (PREDICT | OBSERVE):
        return counted
    if block.events is not None:
        return int(block.events[t])
    return None if block.ids is None else by_id.get(block.ids[t])


def rows_of(block: Block) -> list[tuple[Block, int | None, bool]]:
    """Each row as a block, the number of its event, and whether it is that event."""
    counted, found = 0, []
    by_id: dict[Any, int] = {}
    for t in range(block.n):
        own = bool(block.mode[t] & (PREDICT | OBSERVE))
        number = number_of(block, t, counted, by_id)
        if own:
            if block.ids is not None:
                by_id[block.ids[t]] = counted
            counted += 1
        found.append((block.rows(t, t + 1), number, own))
    return found


def with_mode(row: Block, mode: int) -> Block:
    return row.replace(mode=np.array([mode], dtype=np.uint8))


def is_probe(number: int | None, drifts: list[tuple[int, int]], probes: int) -> bool:
    """Each 10th event after the concept began to hold alone, the first `probes` of them."""
    if number is None:
        return False
    began = max([0, *(end for _, end in drifts if end <= number)])
    return number - began in [10 * i + 9 for i in range(probes)]


def answer(model: Any, row: Block) -> Answer:
    """What it says to a row, which it also learns as the row says."""
    said = model.run(row)["prediction"][0]
    return float(said) if row.mode[0] & PREDICT and math.isfinite(said) else None


def reference_answers(
    pipeline: Any, block: Block, start: int, until: int, drifts: list[tuple[int, int]], probes: int
) -> dict[int, Answer]:
    """Answers by event of a fresh clone that is shown the stream from event `start` on."""
    clone, began = pipeline.clone(), False
    said: dict[int, Answer] = {}
    for row, number, own in rows_of(block):
        began = began or (own and number == start)
        if own and number is not None and number >= until:
            break
        if not began:
            continue
        if not own and (number is None or number < start):
            continue  # a label from before the drift
        mode = int(row.mode[0])
        probe = is_probe(number, drifts, probes)
        said_now = answer(clone, with_mode(row, mode & PREDICT if probe else mode))
        if own and number is not None:
            said[number] = said_now
    return said


def labels_of(block: Block) -> dict[int, float]:
    """The first label of each event."""
    found: dict[int, float] = {}
    for row, number, _ in rows_of(block):
        y = float(row.y[0])
        if row.mode[0] & LEARN and number is not None and math.isfinite(y):
            found.setdefault(number, y)
    return found


def losses(said: dict[int, Answer], labels: dict[int, float], task: str) -> dict[int, Answer]:
    """By labelled event: 0 or 1, or the absolute error; None where nothing was said."""
    found: dict[int, Answer] = {}
    for number, value in said.items():
        if number in labels:
            y = labels[number]
            if value is None:
                found[number] = None
            else:
                found[number] = float(value != y) if task == "classification" else abs(y - value)
    return found


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def told(values: list[Answer]) -> list[float]:
    return [value for value in values if value is not None]


def shown(loss: Answer, task: str) -> Answer:
    return loss if loss is None or task == "regression" else 1 - loss


def recovery(
    model: dict[int, Answer], other: dict[int, Answer], rows: list[int], span: int, margin: float,
    task: str,
) -> int | None:  # fmt: skip
    for i in range(len(rows) - span + 1):
        mine, theirs = [], []
        for number in rows[i : i + span]:
            a, b = model[number], other[number]
            if a is not None and b is not None:
                mine.append(a)
                theirs.append(b)
        if not mine:
            continue
        a, b = sum(mine) / len(mine), sum(theirs) / len(theirs)
        limit = b + margin if task == "classification" else b * (1 + margin)
        if a <= limit + 1e-12:
            return i
    return None


def drift_result(
    pipeline: Any, block: Block, prediction: Any, drifts: list[tuple[int, int]], task: str,
    *, horizon: int, window: int, span: int, margin: float, probes: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Of each drift what `DriftEvaluation.result()["drifts"]` says, but for the alarms."""
    said, labels, events = {}, labels_of(block), 0
    for (row, number, own), value in zip(rows_of(block), prediction, strict=True):
        if own and number is not None:
            asked = row.mode[0] & PREDICT and math.isfinite(value)
            said[number] = float(value) if asked else None
            events += 1
    model = losses(said, labels, task)
    found = []
    for k, (start, end) in enumerate(drifts):
        if start >= events:
            continue
        until = min([events, end + horizon, *(s for s, _ in drifts if s > start)])
        behind = drifts[k - 1][1] if k else 0
        other = losses(reference_answers(pipeline, block, end, until, drifts, probes), labels, task)
        rows = [number for number in range(end, until) if number in model]
        before = [model[i] for i in range(max(start - window, behind), start) if i in model]
        usual = mean(told(before))
        dip = told([model[i] for i in range(start, min(end + window, until)) if i in model])
        lows = [sum(dip[i : i + span]) / span for i in range(len(dip) - span + 1)]
        both = [i for i in rows if model[i] is not None and other[i] is not None]
        mine, theirs = told([model[i] for i in both]), told([other[i] for i in both])
        first = recovery(model, other, rows, span, margin, task)
        found.append(
            {
                "start": start,
                "end": end,
                "rows": len(rows),
                "before": shown(usual, task),
                "worst": shown(max(lows) if lows else None, task),
                "depth": max(lows) - usual if lows and usual is not None else None,
                "recovery": None if first is None else rows[first] - end,
                "excess_errors": sum(mine) - sum(theirs) if both else None,
                "area": sum(v - usual for v in dip) if usual is not None and dip else None,
                "after": shown(mean(mine), task),
                "reference": shown(mean(theirs), task),
            }
        )
    return found


def judged(alarms: list[int], drifts: list[tuple[int, int]], tolerance: int) -> dict[str, Any]:
    """`judge_alarms`, alarm by alarm."""
    owners: list[list[int]] = [[] for _ in drifts]
    false = 0
    for alarm in sorted(alarms):
        started = [k for k, (start, _) in enumerate(drifts) if start <= alarm]
        if started and alarm <= drifts[started[-1]][1] + tolerance:
            owners[started[-1]].append(alarm)
        else:
            false += 1
    delays = [own[0] - start for own, (start, _) in zip(owners, drifts, strict=True) if own]
    return {
        "n": len(alarms),
        "false_alarms": false,
        "misses": sum(not own for own in owners),
        "mean_delay": mean([float(d) for d in delays]),
        "drifts": [
            {"start": s, "end": e, "delay": own[0] - s if own else None, "alarms": len(own)}
            for own, (s, e) in zip(owners, drifts, strict=True)
        ],
    }


def asked_again(
    pipeline: Any, row: Block, probes: list[tuple[Block, float]], task: str
) -> list[float]:
    """Hit or absolute error of each probe now, in the columns of this row."""
    values = []
    for kept, label in probes:
        wide = np.full((1, row.d), np.nan)
        wide[0, : kept.d] = kept.X[0]
        mute = kept.replace(X=wide, features=row.features, labels=row.labels)
        value = answer(pipeline, with_mode(mute, PREDICT))
        if task == "classification":
            values.append(float(value == label))
        elif value is not None:
            values.append(abs(value - label))
    return values


def worst_case(last: dict[int, float], lowest: dict[int, list[float]], worse: Any) -> float | None:
    """Of k concepts: the present one / k + (1 - 1/k) * the mean of the lowest of the earlier."""
    if not last:
        return None
    now = max(last)
    earlier = [worse(lowest[k]) for k in range(now) if lowest[k]]
    k = 1 + len(earlier)
    return last[now] / k + (1 - 1 / k) * (mean(earlier) or 0.0)


def probe_result(
    pipeline: Any, block: Block, drifts: list[tuple[int, int]], task: str, probes: int, every: int
) -> tuple[list[Answer], dict[str, Any]]:
    """Answers of a run with probes held out, row by row, and what the probes say."""
    starts = sorted({0, *(end for _, end in drifts)})
    kept: dict[int, Block] = {}
    labels: dict[int, float] = {}
    said: list[Answer] = []
    points: list[float] = []
    lowest: dict[int, list[float]] = {k: [] for k in range(len(starts))}
    last: dict[int, float | None] = {}
    events = 0
    for row, number, own in rows_of(block):
        probe = is_probe(number, drifts, probes)
        mode = int(row.mode[0])
        said.append(answer(pipeline, with_mode(row, mode & PREDICT if probe else mode)))
        if probe and number is not None:
            if own:
                kept[number] = row
            if mode & LEARN and math.isfinite(row.y[0]):
                labels.setdefault(number, float(row.y[0]))
        events += own
        if not own or events % every:
            continue
        now = max(k for k, start in enumerate(starts) if start <= events - 1)
        for k in range(now + 1):
            stop = starts[k + 1] if k + 1 < len(starts) else math.inf
            mine = [
                (x, labels[i]) for i, x in kept.items() if starts[k] <= i < stop and i in labels
            ]
            values = asked_again(pipeline, row, mine, task)
            last[k] = mean(values)
            if k < now and values:
                lowest[k].append(sum(values) / len(values))
        seen = [value for value in last.values() if value is not None]
        if seen:
            points.append(sum(seen) / len(seen))
    worse = min if task == "classification" else max
    worst = worst_case({k: v for k, v in last.items() if v is not None}, lowest, worse)
    labelled = [max(k for k, s in enumerate(starts) if s <= i) for i in labels]
    return said, {
        "average_anytime": mean(points),
        "worst_case": worst,
        "points": len(points),
        "concepts": [
            {
                "start": starts[k],
                "probes": labelled.count(k),
                "last": last.get(k),
                "worst": worse(lowest[k]) if lowest[k] else None,
            }
            for k in range(len(starts))
            if starts[k] < events
        ],
    }


def late(block: Block, delays: list[int | None], expired: bool = True, came: Any = None) -> Block:
    """A block of labelled rows as events whose labels come so many events later, or never.

    Event i is a row of mode 5 without y; its label a row of mode 2 without features right after
    event i + delay; a delay of None tells that it expires three events later, or where nothing is
    told of that, that no label will come, which the number -1 says. Labels between two
    events stand in the order of `came`, their times, where that is given.
    """
    n = block.n
    due: dict[int, list[int]] = {}
    for i, delay in enumerate(delays):
        if delay is not None or expired:
            due.setdefault(min(i + (3 if delay is None else delay), n - 1), []).append(i)
    rows: list[tuple[int, int]] = []
    for i in range(n):
        rows.append((i, PREDICT | OBSERVE))
        between = due.get(i, [])
        if came is not None:
            between.sort(key=lambda j: int(came[j]))
        rows += [(j, EXPIRED if delays[j] is None else LEARN) for j in between]
    source = np.array([i for i, _ in rows])
    mode = np.array([mode for _, mode in rows], dtype=np.uint8)
    X, y = block.X[source], block.y[source]
    X[mode & PREDICT == 0] = np.nan
    y[mode & LEARN == 0] = np.nan
    never = np.array([delay is None and not expired for delay in delays])
    events = np.where(never[source], -1, source)
    return Block(X, y, np.ones(len(rows)), mode, block.features, block.labels, events=events)
