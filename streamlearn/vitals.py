"""Vital signs of an engine: what it notes about itself, beside what it computes.

Nothing here is part of a value or of the state. Numbers begin with the process, but for those that
the engine counts itself.
"""

import logging
import math
import re
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from streamlearn.block import NO_TIME
from streamlearn.connectors.alerts import Alert, Alerts, alert_json
from streamlearn.contracts import Answers, Json, Origins, Reject
from streamlearn.logs import tell

if TYPE_CHECKING:
    from streamlearn.connectors.sinks import Tables

_log = logging.getLogger(__name__)
BLOCK_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
EVENT_SECONDS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
MAX_ALARMS = 50  # whose records are kept
MAX_REJECTS = 20  # that are kept
MAX_KINDS = 20  # classes of reasons, and detectors, that are told apart; beyond it OTHER
OTHER = "other"
MAX_NAMED = 200  # features of the schema whose drift has a metric of its own
_LOGGED = 10  # alarms a second at most that are log lines
_LINE = {"event": "event_number", "time": "event_time"}  # what a log line has of its own
_SHOWN = 200  # letters of a reason
_OWNED = re.compile(r"(?!event)\w+ '[^']*' must ")  # what a schema says of one of its columns
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")


class Histogram:
    """Values counted under upper bounds, the last bin without one.

    Cost: a bisection for one value, 5 ns each for many.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add_all(self, values: Any) -> None:
        """Count many, (n,) float64."""
        bins = np.searchsorted(self.bounds, values, side="left")
        found = np.bincount(bins, minlength=len(self.counts)).tolist()
        self.counts = [a + b for a, b in zip(self.counts, found, strict=True)]
        self.sum += float(values.sum())

    def told(self) -> dict[str, Json]:
        """`bounds`, upper ones; `counts`, one more; `sum` and `n` of all."""
        counts = list(self.counts)
        return {"bounds": list(self.bounds), "counts": counts, "sum": self.sum, "n": sum(counts)}


class Vitals:
    """What one engine notes; every method is called within its loop.

    Args:
        tables: of the schema, for the ids of alarms. model: fingerprint of the pipeline.
        about: what does not change, for who reads it. log: whether alarms are lines of the log, ten
            a second at most.
        clock: of ages. wall: seconds since 1970, for the latency of records that carry their time.
    """

    def __init__(
        self,
        tables: "Tables | None" = None,
        model: str = "",
        about: Mapping[str, Json] | None = None,
        *,
        log: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.about: dict[str, Json] = dict(about or {})
        self._alerts = Alerts(tables, model)
        self._log, self._clock, self._wall = log, clock, wall
        self.blocks, self.latency = Histogram(BLOCK_SECONDS), Histogram(EVENT_SECONDS)
        self.alarms: deque[dict[str, Json]] = deque(maxlen=MAX_ALARMS)
        self.by_detector: Counter[str] = Counter()
        self.rejects: deque[dict[str, Json]] = deque(maxlen=MAX_REJECTS)
        self.by_reason: Counter[str] = Counter()
        self.by_lane: Counter[str] = Counter()
        self.state_bytes: int | None = None
        self._measure_at = -math.inf
        self.n_alarms = self.n_rejects = 0
        self._saved: dict[str, Json] | None = None
        self._saved_at = 0.0
        self._logged_until, self._logged = 0.0, 0

    # -- noting ------------------------------------------------------------------------------------

    def ran(self, seconds: float, origins: Origins | None) -> None:
        """One block went through all parts, in so many seconds."""
        self.blocks.add(seconds)
        if origins is not None and origins.times.shape[0]:
            age = self._wall() - origins.times[origins.times != NO_TIME] * 1e-9
            self.latency.add_all(np.maximum(age, 0.0))
            names = origins.partitions
            for at, n in enumerate(np.bincount(origins.partition).tolist()):
                if n:
                    topic, number = names[at]
                    self.by_lane[f"{topic}/{number}"] += n

    def alarmed(self, answers: Answers, before: int) -> None:
        """Alarms rose in a block; before: how many had before it."""
        self._alerts.count = before
        self.n_alarms += int(np.count_nonzero(answers.outputs["alarm"]))
        for alert in self._alerts.take(answers):
            self._note(alert)

    def _note(self, alert: Alert) -> None:
        record: dict[str, Json] = msgspec.json.decode(alert_json(alert.record))  # no NaN is left
        for name in {str(found.get("detector", OTHER)) for found in record.get("findings", ())}:
            _count(self.by_detector, name)
        self.alarms.append(record)
        now = self._clock()
        if now >= self._logged_until:
            self._logged_until, self._logged = now + 1.0, 0
        self._logged += 1
        if self._log and self._logged <= _LOGGED:
            tell(_log, "alarm", **{_LINE.get(key, key): value for key, value in record.items()})

    def rejected(self, rejects: Sequence[Reject]) -> None:
        """Records that did not fit."""
        self.n_rejects += len(rejects)
        for reject in rejects:
            _count(self.by_reason, reason_class(reject.reason))
        for reject in rejects[-MAX_REJECTS:]:
            told = {"partition": reject.partition, "position": reject.position}
            self.rejects.append(told | {"reason": reject.reason[:_SHOWN]})

    def saved(self, number: int, seconds: float, file: Path) -> None:
        """A checkpoint was saved in so many seconds."""
        self._saved_at = self._clock()
        bytes = file.stat().st_size if file.exists() else 0  # another may have dropped it
        self._saved = {"number": number, "seconds": seconds, "bytes": bytes}

    def measured(self, pipeline: Any) -> int | None:
        """Bytes of the state, counted anew where that costs under a thousandth of the time."""
        now = self._clock()
        if now >= self._measure_at:
            self.state_bytes = getattr(pipeline, "state_bytes", None)
            after = self._clock()
            self._measure_at = after + 1000 * (after - now)
        return self.state_bytes

    # -- telling -----------------------------------------------------------------------------------

    def told(self) -> dict[str, Json]:
        """Everything, as plain values that no longer change."""
        saved = None
        if self._saved is not None:
            saved = self._saved | {"age": self._clock() - self._saved_at}
        return {
            "about": self.about,
            "blocks": self.blocks.told(),
            "latency": self.latency.told(),
            "checkpoint": saved,
            "alarms_by_detector": dict(self.by_detector),
            "last_alarms": list(self.alarms),
            "dead_letters_by_reason": dict(self.by_reason),
            "last_dead_letters": list(self.rejects),
            "events_by_partition": dict(self.by_lane),
        }


def reason_class(reason: str) -> str:
    """What a reason has in common with others: no value, id or number of a record is in it."""
    rule = reason.partition(", got ")[0]
    if not _OWNED.match(rule):
        rule = _VALUES.sub("…", rule)
    return rule[:_SHOWN]


def _count(counter: Counter[str], name: str) -> None:
    known = name in counter or len(counter) < MAX_KINDS
    counter[name if known else OTHER] += 1
