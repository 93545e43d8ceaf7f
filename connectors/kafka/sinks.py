"""Answers as messages of a topic."""

import time
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamlearn.block import B1, NO_TIME, OBSERVE, PREDICT, Columns
from streamlearn.connectors.kafka.encode import (
    Encoder,
    Probabilities,
    Shared,
    Table,
    encoder_of,
    floats,
)
from streamlearn.connectors.kafka.outputs import Output, Outputs
from streamlearn.connectors.kafka.wire import Headers, Outgoing
from streamlearn.connectors.predictions import PredictionRows, Rows, class_runs, listed_sets
from streamlearn.contracts import Answers, Json, Origins

if TYPE_CHECKING:
    from streamlearn.connectors.sinks import Tables

POSITION, LATENCY = "streamlearn-position", "streamlearn-latency-us"


class PredictionSink:
    """One message for each event that was to be answered.

    Value: `event`, its number in the stream, from 0; `id`, where events have ids; `prediction`, and
    `probabilities` by class and `set`, the list of classes, where the model states sets; or
    `interval`, its two ends, where the model knows its variance; or `score`, of an anomaly; null
    for no answer. `model`; `topic`, `partition` and `offset` of the
    event, and `time` of its record, ms since 1970. The same bytes whatever the blocks; nothing in
    it is of the clock. A class has its probability from the first event after the one that taught
    it.

    Headers: `streamlearn-position`, topic/partition/offset of the event, by which a reader drops
    repeats; `streamlearn-latency-us`, from the record's time to when the answer was sent. The key
    is that of the event's record; so is the number of the partition where all topics of events have
    as many partitions as the output, else the key chooses.

    Args:
        outputs: of the lineage. topic: it must be there. format: json or avro. keyed: whether the
            message has the event's key. tables: of the schema: the classes known from the start.
        model: fingerprint of the pipeline. level: of the intervals that are made of a variance.
    Cost: 1 us a message, and the client's own.
    """

    guarantee = (
        "each answer at least once, in order by partition, with the position that it answers; "
        "with transactions each once for readers that are read_committed"
    )

    def __init__(
        self,
        outputs: Outputs,
        topic: str,
        *,
        format: str = "json",
        keyed: bool = True,
        tables: "Tables | None" = None,
        model: str = "",
        level: float = 0.9,
    ) -> None:
        self.outputs, self._output = outputs, Output(outputs, "predictions", topic)
        self._keyed, self._model = keyed, model
        self._table = None if tables is None else tables.labels
        self._z = NormalDist().inv_cdf((1 + level) / 2)
        self._format, self._topic = format, topic

    def open(self, position: Json) -> None:
        """Begin after what `commit` once returned; None means an empty output."""
        self._encoder: Encoder = encoder_of(self._format, self.outputs, self._topic)
        self._rows = PredictionRows(self._table)
        if position is not None:
            self._rows.classes = position["classes"]
        self._partitions = self._output.open(position)
        names = self.outputs.inputs[0].names if self.outputs.inputs else ()
        self._aligned = bool(names) and all(
            self.outputs.partitions(name) == self._partitions for name in names
        )

    def write(self, answers: Answers) -> None:
        """Take one block of outputs; acknowledged by the broker no later than `commit`."""
        rows = self._rows.take(answers)
        skip = self._output.there_already(len(rows.row))
        if skip == len(rows.row):
            return
        asked = (answers.block.mode & PREDICT) != 0
        about = _interval(answers.outputs, asked, self._z)
        places = None
        if answers.origins is not None:
            event = np.cumsum((answers.block.mode & (PREDICT | OBSERVE)) != 0) - 1
            places = _places(answers.origins, event[asked])
        sets = None if rows.sets is None else listed_sets(rows)
        values: list[bytes] = []
        for start, stop, classes in class_runs(rows):
            if stop > skip:
                part = slice(max(start, skip), stop)
                columns = self._columns(rows, part, classes, about)
                columns |= {} if sets is None else {"set": sets[part]}
                values += self._encoder.encode(self._placed(part, columns, places))
        self.outputs.send(self._outgoing(values, rows, skip, places))

    def _columns(self, rows: Rows, part: slice, classes: int, interval: Any) -> dict[str, Any]:
        """The answers of some rows, which know the same classes, as a message shows them."""
        columns: dict[str, Any] = {"event": rows.row[part].tolist()}
        if rows.ids is not None:
            columns["id"] = rows.ids[part].tolist()
        prediction = rows.prediction[part]
        if rows.labels is not None:
            columns["prediction"] = _named(prediction, rows.labels)
            columns["probabilities"] = Probabilities(
                tuple(rows.labels[:classes]),
                [floats(rows.proba[part, k]) for k in range(classes)],
            )
        elif interval is None:
            columns["prediction"] = floats(prediction)
        elif isinstance(interval, str):
            columns[interval] = floats(prediction)
        else:
            columns["prediction"] = floats(prediction)
            ends = (floats(end[part]) for end in interval)
            columns["interval"] = list(zip(*ends, strict=True))
        return columns

    def _placed(self, part: slice, columns: dict[str, Any], places: "_Places | None") -> Table:
        """Answers of some rows, with the model and where their events came from."""
        if self._model:
            columns["model"] = Shared(self._model)
        if places is not None:
            columns |= places.columns(part)
        return Table(len(columns["event"]), columns)

    def _outgoing(
        self, values: list[bytes], rows: Rows, skip: int, places: "_Places | None"
    ) -> Outgoing:
        topic = self._output.topic
        if places is None:
            events = [b"event/%d" % number for number in rows.row[skip:].tolist()]
            return Outgoing(topic, values, None, [[(POSITION, event)] for event in events], None)
        keys = places.keys[skip:] if self._keyed and places.keys is not None else None
        numbers = None
        if self._aligned:
            numbers = places.numbers[skip:]
            numbers = numbers if max(numbers) < self._partitions else None
        return Outgoing(topic, values, keys, places.headers(skip), numbers)

    def commit(self) -> Json:
        """Wait until all that was written is acknowledged; how to go on from here."""
        return self._output.commit() | {"classes": self._rows.classes}

    def close(self) -> None:
        """Release the connection; may be called twice."""
        self.outputs.close()


def _named(prediction: NDArray[Any], labels: Sequence[Any]) -> list[Any]:
    """The class of each code; None for NaN."""
    return [labels[int(code)] if code == code else None for code in prediction.tolist()]


def _interval(outputs: Columns, asked: B1, z: float) -> Any:
    """Both ends for the rows that are asked; "score" for scores; None where there is none."""
    if "prediction" not in outputs:
        return "score"
    if "lower" in outputs and "upper" in outputs:
        return outputs["lower"][asked], outputs["upper"][asked]
    if "variance" not in outputs:
        return None
    prediction = np.asarray(outputs["prediction"], np.float64)[asked]
    half = z * np.sqrt(outputs["variance"][asked])
    return prediction - half, prediction + half


class _Places(NamedTuple):
    """Where the rows of a block came from, as plain values. at: which of partitions each is of."""

    partitions: Sequence[tuple[str, int]]
    at: list[int]
    offsets: list[int]
    times: NDArray[np.int64]
    keys: list[bytes | None] | None

    @property
    def numbers(self) -> list[int]:
        """The partition's number of each row."""
        numbers = [number for _, number in self.partitions]
        return [numbers[k] for k in self.at]

    def columns(self, part: slice) -> dict[str, Any]:
        """Of some rows, for the value of a message."""
        topics = [topic for topic, _ in self.partitions]
        several = len(set(topics)) > 1
        return {
            "topic": [topics[k] for k in self.at[part]] if several else Shared(topics[0]),
            "partition": self.numbers[part],
            "offset": self.offsets[part],
            "time": _milliseconds(self.times[part]),
        }

    def headers(self, skip: int) -> list[Headers]:
        """Position and latency of the rows from `skip` on."""
        rows = slice(skip, None)
        times = self.times[rows]
        late = np.where(times == NO_TIME, 0, (time.time_ns() - times) // 1000)
        names = [f"{topic}/{number}/".encode() for topic, number in self.partitions]
        offsets = zip(self.at[rows], _digits(self.offsets[rows]), strict=True)
        places = [names[k] + offset for k, offset in offsets]
        return [
            [(POSITION, place), (LATENCY, us)]
            for place, us in zip(places, _digits(late.tolist()), strict=True)
        ]


def _digits(numbers: list[int]) -> list[bytes]:
    """Each as text; three times as fast as one by one."""
    return msgspec.json.encode(numbers)[1:-1].split(b",")


def _milliseconds(times: NDArray[np.int64]) -> list[int | None]:
    told: list[int | None] = (times // 1_000_000).tolist()
    if not (times == NO_TIME).any():
        return told
    return [t if there else None for t, there in zip(told, times != NO_TIME, strict=True)]


def _places(origins: Origins, event: NDArray[np.intp]) -> _Places:
    """The origins of some events."""
    partition, offset, times, keys = origins[1:]
    if len(event) < len(offset):
        partition, offset, times = partition[event], offset[event], times[event]
        keys = None if keys is None else [keys[k] for k in event.tolist()]
    keys = None if keys is None else list(keys)
    return _Places(origins.partitions, partition.tolist(), offset.tolist(), times, keys)
