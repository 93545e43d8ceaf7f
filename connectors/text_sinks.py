"""Predictions and dead letters as text: CSV and JSON Lines, plain, gzip or zstd, or on stdout."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from streamlearn.block import Vocabulary
from streamlearn.connectors.append import AppendFile, changed
from streamlearn.connectors.column_text import csv_text, float_text, joined, json_text, whole_text
from streamlearn.connectors.predictions import (
    PredictionRows,
    RowBuffer,
    Rows,
    class_columns,
    class_runs,
    distinct_sets,
    id_column,
)
from streamlearn.contracts import Answers, Json, Reject
from streamlearn.durable import disk_errors

_ZERO = b",0.0"  # what a row says of a class that was unknown then


class _Labels:
    """Classes as text, made once for each size of the table."""

    def __init__(self, text: Any) -> None:
        self._text, self._made = text, text([])

    def of(self, rows: Rows) -> Any:
        """The predictions of rows as text; null where no answer was given."""
        import pyarrow as pa

        if rows.labels is None:
            return float_text(rows.prediction)
        if len(self._made) != len(rows.labels):
            self._made = self._text(list(rows.labels))
        missing = np.isnan(rows.prediction)
        codes = np.where(missing, 0, rows.prediction).astype(np.int64)
        return self._made.take(pa.array(codes, mask=missing))


def _set_text(rows: Rows) -> Any:
    """The sets of rows as JSON lists of labels; null where no answer was given."""
    import pyarrow as pa

    codes, which = distinct_sets(rows)
    inside = sorted({k for row in codes for k in row})
    names = dict(zip(inside, json_text([rows.labels[k] for k in inside]).to_pylist(), strict=True))  # type: ignore[index]  # a classifier has labels
    texts = pa.array(["[" + ",".join(names[k] or "null" for k in row) + "]" for row in codes])
    return texts.take(pa.array(np.maximum(which, 0), mask=which < 0))


class CsvSink:
    """Predictions as CSV: a header, then one record an answered event.

    A set of classes is a JSON list of labels in one field, empty where nothing was answered.
    A class that is first seen later gets a further column at the end: the file is rewritten beside
    and exchanged, with 0.0 in the records before. The bytes depend on the stream alone, not on
    blocks, crashes or restarts. A reader that follows a live file should follow JSON Lines instead.

    Args:
        path: the file. compression: None, "gzip" or "zstd" (one frame for each checkpoint).
        id_name: the column of ids, where events have ids. labels: classes known from the start.
        overwrite: empty a file that holds something, instead of refusing to begin.

    Cost: 0.3 us a record of two classes; 70 ns for each further one.
    """

    guarantee = (
        "each answer once, in order, in bytes that no crash changes; "
        "what was written since the last checkpoint may vanish until the run has caught up"
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        compression: str | None = None,
        *,
        id_name: str | None = None,
        labels: Vocabulary | None = None,
        overwrite: bool = False,
    ) -> None:
        self._file = AppendFile(path, compression, overwrite)
        self._id_name, self._table = id_column(id_name), labels
        self._labels = _Labels(csv_text)

    def open(self, position: Json) -> None:
        """Begin after what `commit` once returned; None means an empty output."""
        self._rows, self._buffer = PredictionRows(self._table), RowBuffer()
        self._names: Sequence[Any] = ()
        self._header: list[str] = []
        self._n = 0
        if position is not None:
            self._rows.classes, self._n = position["classes"], position["rows"]
            self._header = position["columns"]
            if self._header and self._has_further_columns():
                self._file.replace(self._narrowed(position["file"]["text"]))
        self._file.open(None if position is None else position["file"])

    def write(self, answers: Answers) -> None:
        """Take one block of outputs; not durable before `commit`."""
        rows = self._rows.take(answers)
        self._names = rows.labels or ()
        for ready in self._buffer.add(rows):
            self._put(ready)

    def _put(self, rows: Rows) -> None:
        classes = rows.proba.shape[1]
        if not self._header:
            named = ["row", *([self._id_name] if rows.ids is not None else []), "prediction"]
            named += [] if rows.sets is None else ["set"]
            self._header = named + class_columns(self._names, classes)
            self._file.write(_record(self._header))
        self._widen(classes)
        ids = [] if rows.ids is None else [",", csv_text(rows.ids)]
        pieces = [whole_text(rows.row), *ids, ",", self._labels.of(rows)]
        if rows.sets is not None:
            pieces += [",", csv_text(_set_text(rows).to_pylist())]
        for k in range(classes):
            pieces += [",", float_text(rows.proba[:, k])]
        self._file.write(joined(*pieces, "\n", missing=""))
        self._n += len(rows.row)

    def _widen(self, classes: int) -> None:
        """Give so many classes their column, in the records written before, too."""
        if classes <= self._n_classes:
            return
        fresh = class_columns(self._names, classes, self._n_classes)
        self._header = [*self._header, *fresh]
        self._file.flush()
        old = _records(self._file.chunks(self._file.text))
        self._file.replace(_appended(old, b"," + _record(fresh), _ZERO * len(fresh) + b"\n"))

    @property
    def _n_classes(self) -> int:
        """Probability columns of the file."""
        before = "set" if "set" in self._header else "prediction"  # no class or id is named so
        return len(self._header) - self._header.index(before) - 1

    def _has_further_columns(self) -> bool:
        """Whether the file was widened after the checkpoint that is gone back to."""
        header = _record(self._header)
        return b"".join(self._file.chunks(len(header))) not in (header, b"")

    def _narrowed(self, text: int) -> Iterator[bytes]:
        """The records of a checkpoint, without the columns that came after it."""
        header = _record(self._header)
        wide = next(_records(self._file.chunks(1 << 20, piece=1)), b"")
        tail = _ZERO * (_n_fields(wide) - len(self._header)) + b"\n"
        text += len(wide) - len(header) + self._n * (len(tail) - 1)
        records = _records(self._file.chunks(text))
        if not next(records, b"").startswith(header[:-1] + b","):
            raise changed(self._file.path, "has other columns")
        yield header
        for record in records:
            if not record.endswith(tail):
                raise changed(self._file.path, "has other records")
            yield record[: -len(tail)] + b"\n"

    def commit(self) -> Json:
        """Make all that was written durable, and say how to come back to here."""
        for ready in self._buffer.rest():
            self._put(ready)
        if self._header:
            self._widen(self._rows.classes)
        where = {"rows": self._n, "classes": self._rows.classes, "columns": self._header}
        return {"file": self._file.commit()} | where

    def close(self) -> None:
        """Release the file without committing; may be called twice."""
        self._file.close()


class JsonLinesSink:
    """Predictions as JSON Lines, one object an answered event.

    A class has its key from the first event after the one that taught it; until then its
    probability is 0. What was not answered is null. A set of classes is a list of labels.

    Args:
        path: the file. compression: None, "gzip" or "zstd" (one frame for each checkpoint).
        id_name: the key of ids, where events have ids. labels: classes known from the start.
        overwrite: empty a file that holds something, instead of refusing to begin.
    """

    guarantee = CsvSink.guarantee

    def __init__(
        self,
        path: str | os.PathLike[str],
        compression: str | None = None,
        *,
        id_name: str | None = None,
        labels: Vocabulary | None = None,
        overwrite: bool = False,
    ) -> None:
        self._file = AppendFile(path, compression, overwrite)
        self._lines = _JsonLines(id_name, labels)

    def open(self, position: Json) -> None:
        """Begin after what `commit` once returned; None means an empty output."""
        self._lines.begin(None if position is None else position["classes"])
        self._buffer = RowBuffer()
        self._file.open(None if position is None else position["file"])

    def write(self, answers: Answers) -> None:
        """Take one block of outputs; not durable before `commit`."""
        for ready in self._buffer.add(self._lines.take(answers)):
            self._put(ready)

    def _put(self, rows: Rows) -> None:
        for text in self._lines.of(rows):
            self._file.write(text)

    def commit(self) -> Json:
        """Make all that was written durable, and say how to come back to here."""
        for ready in self._buffer.rest():
            self._put(ready)
        return {"file": self._file.commit(), "classes": self._lines.classes}

    def close(self) -> None:
        """Release the file without committing; may be called twice."""
        self._file.close()


class StreamSink:
    """Predictions as JSON Lines on stdout, or any open binary stream; a block is flushed at once.

    Args:
        stream: where to write; stdout if None. It is not closed.
        id_name, labels: as for JsonLinesSink.
    """

    guarantee = (
        "each answer at least once: after a crash those since the last checkpoint come again"
    )

    def __init__(
        self,
        stream: BinaryIO | None = None,
        *,
        id_name: str | None = None,
        labels: Vocabulary | None = None,
    ) -> None:
        self._stream = sys.stdout.buffer if stream is None else stream
        self._lines = _JsonLines(id_name, labels)

    def open(self, position: Json) -> None:
        """Go on after a position; what was written since cannot be taken back."""
        self._lines.begin(None if position is None else position["classes"])

    def write(self, answers: Answers) -> None:
        """Write one block of outputs."""
        with disk_errors("stdout"):
            for text in self._lines.of(self._lines.take(answers)):
                self._stream.write(text)
            self._stream.flush()

    def commit(self) -> Json:
        """How to go on from here."""
        return {"classes": self._lines.classes}

    def close(self) -> None:
        """The stream stays open."""


class DeadLetterSink:
    """Records that did not fit, as JSON Lines: partition, position (line or row), reason, raw.

    Bytes of `raw` that are no UTF-8 are written as `\\xff`.

    Args:
        path: the file. compression: None, "gzip" or "zstd".
        overwrite: empty a file that holds something, instead of refusing to begin.
    """

    guarantee = CsvSink.guarantee

    def __init__(
        self,
        path: str | os.PathLike[str],
        compression: str | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        self._file = AppendFile(path, compression, overwrite)

    def open(self, position: Json) -> None:
        """Begin after what `commit` once returned; None means an empty output."""
        self._file.open(position)

    def write(self, rejects: list[Reject]) -> None:
        """Take some rejects; not durable before `commit`."""
        for reject in rejects:
            raw = reject.raw.decode("utf-8", "backslashreplace")
            line = json.dumps(reject._replace(raw=raw)._asdict())  # type: ignore[arg-type]  # text now
            self._file.write(line.encode() + b"\n")

    def commit(self) -> Json:
        """Make all that was written durable, and say how to come back to here."""
        return self._file.commit()

    def close(self) -> None:
        """Release the file without committing; may be called twice."""
        self._file.close()


# -- CSV -------------------------------------------------------------------------------------------


def _record(fields: Sequence[str]) -> bytes:
    """One record of text fields."""
    return ",".join(csv_text(fields).to_pylist()).encode() + b"\n"


def _n_fields(record: bytes) -> int:
    return len(next(csv.reader([record.decode()]), []))


def _records(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Whole records with their line ends; a line break within quotes belongs to its record."""
    rest = held = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            held += line + b"\n"
            if held.count(b'"') % 2 == 0:
                yield held
                held = b""


def _appended(records: Iterator[bytes], head: bytes, tail: bytes) -> Iterator[bytes]:
    """Records with other ends: head for the first one, tail for the others."""
    yield next(records)[:-1] + head
    for record in records:
        yield record[:-1] + tail


# -- JSON Lines ------------------------------------------------------------------------------------


class _JsonLines:
    """Answers as text, one object a line."""

    def __init__(self, id_name: str | None, labels: Vocabulary | None) -> None:
        self._id_name, self._table = id_column(id_name), labels
        self._labels = _Labels(json_text)

    def begin(self, classes: int | None) -> None:
        """Begin with so many known classes; None: at the beginning of the stream."""
        self._rows = PredictionRows(self._table)
        if classes is not None:
            self._rows.classes = classes

    @property
    def classes(self) -> int:
        return self._rows.classes

    def take(self, answers: Answers) -> Rows:
        """The rows of a block that were to be answered."""
        return self._rows.take(answers)

    def of(self, rows: Rows) -> Iterator[memoryview]:
        """Pieces of text; the classes known are the same within each."""
        for start, stop, classes in class_runs(rows):
            yield self._text(rows, start, stop, classes)

    def _text(self, rows: Rows, start: int, stop: int, classes: int) -> memoryview:
        prediction = rows.prediction[start:stop]
        finite = np.where(np.isfinite(prediction), prediction, np.nan)  # JSON has no infinity
        pieces: list[Any] = ['{"row":', whole_text(rows.row[start:stop])]
        if rows.ids is not None:
            pieces += [f",{json.dumps(self._id_name)}:", json_text(rows.ids[start:stop])]
        pieces += [',"prediction":', self._labels.of(rows._replace(prediction=finite))]
        if rows.sets is not None:
            part = rows._replace(row=rows.row[start:stop], prediction=prediction)
            pieces += [',"set":', _set_text(part._replace(sets=rows.sets[start:stop]))]
        for k, name in enumerate(class_columns(rows.labels or (), classes)):
            pieces += [f",{json.dumps(name)}:", float_text(rows.proba[start:stop, k])]
        return joined(*pieces, "}\n", missing="null")
