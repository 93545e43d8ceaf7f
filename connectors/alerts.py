"""Alarms of drift detectors, one record each, and the file that takes them."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from streamlearn.block import NO_TIME, OBSERVE, PREDICT, U1, Columns
from streamlearn.connectors.append import AppendFile
from streamlearn.contracts import Answers, Json

if TYPE_CHECKING:
    from streamlearn.connectors.sinks import Tables


_KINDS = {"promote": "promotion", "rollback": "rollback"}  # by the action of a finding


def of_drift(outputs: Columns) -> U1:
    """`alarm` (n,) without the rows on which a model was promoted or rolled back, and no more."""
    alarm, why = outputs["alarm"], outputs.get("why")
    if why is None:
        return alarm
    kept = alarm.copy()
    for row in np.flatnonzero(alarm != 0).tolist():  # of booleans: five times as fast
        actions = [found.get("action") for found in why[row] or ()]
        kept[row] = not actions or any(action not in _KINDS for action in actions)
    return kept


class Alert(NamedTuple):
    """One alarm. event: row among the events of the block; None where a label raised it."""

    record: dict[str, Any]
    event: int | None


class Alerts:
    """Makes records of alarms; counts them.

    A record: `alert`, its number, from 0; `kind`, drift, or promotion or rollback of a model;
    `event`, the number of the event in the stream, or of the last one before the label;
    `raised_by`, event or label; `id` of that event or of the label's, where events have ids; `time`
    of the row, ms since 1970, and of an event `topic`, `partition` and `offset`, where they are
    known; `model`; `findings`, a list of `contracts.Finding`: what was found, and what was done.
    """

    def __init__(self, tables: "Tables | None", model: str) -> None:
        self._with_ids = tables is not None and tables.id is not None
        self._model = model
        self.count = 0

    def take(self, answers: Answers) -> Iterator[Alert]:
        """The alarms of a block."""
        block = answers.block
        is_event = (block.mode & (PREDICT | OBSERVE)) != 0
        number = np.cumsum(is_event) - 1
        for row in np.flatnonzero(answers.outputs["alarm"]).tolist():
            event = int(number[row]) if is_event[row] else None
            yield Alert(self._record(answers, row, int(number[row]), event), event)

    def _record(self, answers: Answers, row: int, number: int, event: int | None) -> dict[str, Any]:
        why = answers.outputs.get("why")
        findings = [] if why is None or why[row] is None else list(why[row])
        actions = [found.get("action") for found in findings]
        record: dict[str, Any] = {
            "alert": self.count,
            "kind": next((_KINDS[action] for action in actions if action in _KINDS), "drift"),
            "event": answers.first_row + number,
            "raised_by": "label" if event is None else "event",
        }
        self.count += 1
        if self._with_ids and answers.block.ids is not None:
            record["id"] = answers.block.ids[row : row + 1].tolist()[0]
        if self._model:
            record["model"] = self._model
        times = answers.block.times
        if times is not None and int(times[row]) != NO_TIME:
            record["time"] = int(times[row]) // 1_000_000
        if event is not None and answers.origins is not None:
            origins = answers.origins
            topic, partition = origins.partitions[int(origins.partition[event])]
            record |= {"topic": topic, "partition": partition}
            record["offset"] = int(origins.offset[event])
            if int(origins.times[event]) != NO_TIME:
                record["time"] = int(origins.times[event]) // 1_000_000
        return record | {"findings": findings}


def _plain(value: Any) -> Any:
    """What JSON has no word for: numbers of NumPy as numbers, anything else as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


_encoder = msgspec.json.Encoder(enc_hook=_plain)


def alert_json(record: dict[str, Any]) -> bytes:
    """A record as JSON."""
    try:
        return _encoder.encode(record)
    except UnicodeEncodeError:  # half a surrogate pair in an id
        plain = str(record["id"]).encode("utf-8", "backslashreplace").decode()
        return _encoder.encode(record | {"id": plain})


class AlertFile:
    """Alarms as JSON Lines, one object each; see `Alerts`.

    Args:
        path: the file. compression: None, "gzip" or "zstd". tables: of the schema, whether events
            have ids. model: fingerprint of the pipeline. overwrite: empty a file that holds
            something, instead of refusing to begin.
    """

    guarantee = (
        "each alarm once, in order, in bytes that no crash changes; "
        "what was written since the last checkpoint may vanish until the run has caught up"
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        compression: str | None = None,
        *,
        tables: "Tables | None" = None,
        model: str = "",
        overwrite: bool = False,
    ) -> None:
        self._file = AppendFile(path, compression, overwrite)
        self._alerts = Alerts(tables, model)

    def open(self, position: Json) -> None:
        """Begin after what `commit` once returned; None means an empty output."""
        self._alerts.count = 0 if position is None else position["alerts"]
        self._file.open(None if position is None else position["file"])

    def write(self, answers: Answers) -> None:
        """Take the alarms of one block; not durable before `commit`."""
        for alert in self._alerts.take(answers):
            self._file.write(alert_json(alert.record) + b"\n")

    def commit(self) -> Json:
        """Make all that was written durable, and say how to come back to here."""
        return {"file": self._file.commit(), "alerts": self._alerts.count}

    def close(self) -> None:
        """Release the file without committing; may be called twice."""
        self._file.close()
