"""Late labels one event at a time, with dicts and sorted lists: what the fast sources must equal.

Rows come out as tuples (what, number of the event, label or None, time it came or None); what is
"event", "both" (an event that comes with its label), "label" or "gone".
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = tuple[str, int, Any, int | None]
Record = Mapping[str, Any]


def delayed(records: Sequence[Record], kind: str, n: int = 0) -> list[Row]:
    """Rows of records with t (time), y (None: no label) and known (time or None)."""
    out: list[Row] = []
    waiting: list[tuple[int, int]] = []  # due, number
    clock = None
    for i, record in enumerate(records):
        clock = record["t"] if clock is None else max(clock, record["t"])
        if kind != "rows":
            _let_out(records, waiting, out, lambda due, now=clock: due < now)
        due = {"rows": i + n, "duration": record["t"] + n, "column": record["known"]}[kind]
        comes = record["y"] is not None and due is not None
        if comes and (due <= i if kind == "rows" else due < clock):
            out.append(("both", i, record["y"], record["t"]))
            continue
        out.append(("event", i if comes else -1, None, record["t"]))
        if comes:
            waiting.append((due, i))
        if kind == "rows":
            for _, k in [w for w in waiting if w[0] <= i]:
                out.append(("label", k, records[k]["y"], clock))
            waiting = [w for w in waiting if w[0] > i]
    if kind == "rows":
        out += [("label", k, records[k]["y"], clock) for _, k in waiting]
    else:
        _let_out(records, waiting, out, lambda due: True)
    return out


def _let_out(records: Sequence[Record], waiting: list[Any], out: list[Row], ripe: Any) -> None:
    for due, k in sorted(waiting):
        if ripe(due):
            out.append(("label", k, records[k]["y"], max(due, records[k]["t"])))
            waiting.remove((due, k))


def in_order(events: Sequence[Record], labels: Sequence[Record]) -> Iterable[tuple[str, Record]]:
    """Both streams by time (running maximum of each), events first; nothing is reordered within."""
    clocks = {"event": -math.inf, "label": -math.inf}
    keyed = []
    for what, records in (("event", events), ("label", labels)):
        for place, record in enumerate(records):
            clocks[what] = max(clocks[what], record["t"])
            keyed.append((clocks[what], what, place, record))
    keyed.sort(key=lambda k: k[:3])
    return [(what, record) for _, what, _, record in keyed]


class Join:
    """Labels joined to events by id; `rows`, `refused` (reason's first word, id) and `counts`."""

    def __init__(self, timeout: float = math.inf, assume: Any = None, most: int = 10**9) -> None:
        self.timeout, self.assume, self.most = timeout, assume, most
        self.rows: list[Row] = []
        self.refused: list[tuple[str, Any]] = []
        self.waiting: dict[Any, tuple[int, int]] = {}  # id -> number, time
        self.early: dict[Any, tuple[Any, int, int]] = {}  # id -> label, its time, waits since
        self.fate: dict[Any, str] = {}
        self.remembered: deque[Any] = deque()
        self.n = 0
        self.now = -(10**30)
        self.contradicted = 0

    def run(self, events: Sequence[Record], labels: Sequence[Record]) -> "Join":
        """Walk both streams."""
        left = len(events)
        if not left:
            self.no_more_events()
        for what, record in in_order(events, labels):
            if what == "event":
                self.event(record)
                left -= 1
                if not left:
                    self.no_more_events()
            else:
                self.label(record)
        return self

    def event(self, record: Record) -> None:
        id, t = record["id"], record["t"]
        self.advance(t)
        n, self.n = self.n, self.n + 1
        if id is None:
            self.rows.append(("event", -1, None, t))
            return
        if id in self.waiting:
            self.give_up(id, self.waiting.pop(id)[0], t, "late")
        self.forget(id)
        if id in self.early:
            y, _, _ = self.early.pop(id)
            self.rows.append(("both", n, y, t))
            self.remember(id, "labelled")
            return
        if len(self.waiting) >= self.most:
            oldest = min(self.waiting, key=lambda k: self.waiting[k][0])
            self.give_up(oldest, self.waiting.pop(oldest)[0], t, "evicted")
        self.waiting[id] = (n, t)
        self.rows.append(("event", n, None, t))

    def advance(self, t: int) -> None:
        """The clock is the latest time of any record; what has waited for longer is given up."""
        self.now = max(self.now, t)
        late = [(time + self.timeout, n, k) for k, (n, time) in self.waiting.items()]
        for deadline, n, k in sorted(late):
            if deadline < self.now:
                del self.waiting[k]
                self.give_up(k, n, int(deadline), "assumed" if self.assume is not None else "late")
        for k, (_, _, since) in list(self.early.items()):
            if since + self.timeout < self.now:
                del self.early[k]
                self.refused.append(("unknown", k))

    def give_up(self, id: Any, n: int, came: int, fate: str) -> None:
        if fate == "assumed":
            self.rows.append(("label", n, self.assume, came))
        else:
            self.rows.append(("gone", n, None, came))
        self.remember(id, fate)

    def label(self, record: Record) -> None:
        id, y, t = record["id"], record["y"], record["t"]
        self.advance(t)
        if id is None:
            self.refused.append(("unknown", id))
        elif y is None:
            self.refused.append(("empty", id))
        elif id in self.waiting:
            self.rows.append(("label", self.waiting.pop(id)[0], y, t))
            self.remember(id, "labelled")
        elif id in self.fate:
            fate = self.fate[id]
            self.contradicted += fate == "assumed" and y != self.assume
            self.refused.append(("duplicate" if fate == "labelled" else "late", id))
        elif id in self.early:
            self.refused.append(("duplicate", id))
        elif self.ended:
            self.refused.append(("unknown", id))
        else:
            self.early[id] = (y, t, self.now)
            if len(self.early) > self.most:
                first = next(iter(self.early))
                del self.early[first]
                self.refused.append(("unknown", first))

    ended = False

    def no_more_events(self) -> None:
        self.ended = True
        self.refused += [("unknown", id) for id in self.early]
        self.early.clear()

    def forget(self, id: Any) -> None:
        if id in self.fate:
            del self.fate[id]
            self.remembered.remove(id)

    def remember(self, id: Any, fate: str) -> None:
        if id not in self.fate:
            self.remembered.append(id)
        self.fate[id] = fate
        if len(self.remembered) > self.most:
            del self.fate[self.remembered.popleft()]


class Prequential:
    """Accuracy and log loss of answers booked when their labels come, one at a time."""

    def __init__(self, window: int) -> None:
        self.answers: dict[int, tuple[Any, dict[Any, float]]] = {}
        self.hits: list[bool] = []
        self.losses: list[float] = []
        self.window = window

    def scored(self, n: int, said: Any, proba: dict[Any, float]) -> None:
        self.answers[n] = (said, proba)

    def labelled(self, n: int, y: Any) -> None:
        said, proba = self.answers.pop(n)
        if said is None:  # nothing was answered: nothing to book
            return
        self.hits.append(said == y)
        self.losses.append(-math.log(min(1.0, max(proba.get(y, 0.0), 1e-15))))

    def accuracy(self, last: int | None = None) -> float:
        hits = self.hits if last is None else self.hits[-last:]
        return sum(hits) / len(hits)

    def log_loss(self) -> float:
        return math.fsum(self.losses) / len(self.losses)
