"""Answers as messages of a topic."""

import time
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

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
from streamlearn.connectors.predictions import PredictionRows, Rows, class_runs
from streamlearn.contracts import Answers, Json, Origins

if TYPE_CHECKING:
    from streamlearn.connectors.sinks import Tables

POSITION, LATENCY = "streamlearn-position", "streamlearn-latency-us"


class PredictionSink:
    """One message for each event that was to be answered.

    Value: `event`, its number in the stream, from 0; `id`, where events have ids; `prediction`, and
    `probabilities` by class, or `interval`, its two ends, where the model knows its variance; or
    `score`, of an anomaly; null for no answer. `model`; `topic`, `partition` and `offset` of the
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
        self._encoder: Encoder = encoder_of(format, outputs, topic)

    def open(self, position: Json) -> None:
        """Begin after what `commit` once returned; None means an empty output."""
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
        values: list[bytes] = []
        for start, stop, classes in class_runs(rows):
            if stop > skip:
                part = slice(max(start, skip), stop)
                values += self._encoder.encode(self._columns(rows, part, classes, about, places))
        self.outputs.send(self._outgoing(values, rows, skip, places))

    def _columns(
        self, rows: Rows, part: slice, classes: int, interval: Any, places: "_Places | None"
    ) -> Table:
        """Some rows, which know the same classes, as a message shows them."""
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
        if self._model:
            columns["model"] = Shared(self._model)
        if places is not None:
            columns |= places.columns(part)
        return Table(len(prediction), columns)

    def _outgoing(
        self, values: list[bytes], rows: Rows, skip: int, places: "_Places | None"
    ) -> Outgoing:
        topic = self._output.topic
        if places is None:
            events = [b"event/%d" % number for number in rows.row[skip:].tolist()]
            return Outgoing(topic, values, None, [[(POSITION, event)] for event in events], None)
        keys = places.keys[skip:] if self._keyed and places.keys is not None else None
        numbers = None
        if self._aligned and max(places.numbers[skip:]) < self._partitions:
            numbers = places.numbers[skip:]
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
    """Where the rows of a block came from, as plain values."""

    topics: list[str]
    numbers: list[int]
    offsets: list[int]
    milliseconds: list[int | None]
    times: NDArray[np.int64]
    keys: list[bytes | None] | None

    def columns(self, part: slice) -> dict[str, Any]:
        """Of some rows, for the value of a message."""
        topics = self.topics[part]
        alike = topics.count(topics[0]) == len(topics)
        return {
            "topic": Shared(topics[0]) if alike else topics,
            "partition": self.numbers[part],
            "offset": self.offsets[part],
            "time": self.milliseconds[part],
        }

    def headers(self, skip: int) -> list[Headers]:
        """Position and latency of the rows from `skip` on."""
        rows = slice(skip, None)
        times = self.times[rows]
        late = np.where(times == NO_TIME, 0, (time.time_ns() - times) // 1000)
        places = zip(self.topics[rows], self.numbers[rows], self.offsets[rows], strict=True)
        return [
            [(POSITION, place.encode()), (LATENCY, b"%d" % us)]
            for place, us in zip(map(_PLACE, places), late.tolist(), strict=True)
        ]


_PLACE = "%s/%d/%d".__mod__


def _places(origins: Origins, event: NDArray[np.intp]) -> _Places:
    """The origins of some events."""
    whole = len(event) == len(origins.offset)
    partition, offset, times = origins.partition, origins.offset, origins.times
    if not whole:
        partition, offset, times = partition[event], offset[event], times[event]
    at = partition.tolist()
    topics, numbers = zip(*origins.partitions, strict=True) if origins.partitions else ((), ())
    milliseconds: list[int | None] = (times // 1_000_000).tolist()
    if (times == NO_TIME).any():
        told = times != NO_TIME
        milliseconds = [t if there else None for t, there in zip(milliseconds, told, strict=True)]
    keys = origins.keys
    if keys is not None:
        keys = list(keys) if whole else [keys[k] for k in event.tolist()]
    return _Places(
        [topics[k] for k in at],
        [numbers[k] for k in at],
        offset.tolist(),
        milliseconds,
        times,
        keys,
    )
