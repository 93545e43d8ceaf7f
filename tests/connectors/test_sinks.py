"""Sinks: the same bytes under any cut, any crash and any class that comes late; nothing twice."""

import csv
import errno
import gzip
import io
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.block import (
    LABELLED,
    LEARN,
    OBSERVE,
    PREDICT,
    Block,
    Features,
    Vocabulary,
)
from streamlearn.connectors import open_dead_letters, open_sink, parquet_sink, predictions
from streamlearn.connectors.sinks import MemorySink
from streamlearn.connectors.text_sinks import CsvSink, JsonLinesSink, StreamSink
from streamlearn.contracts import Answers, Reject, Sink
from streamlearn.errors import UserError

NAMES = ["calm", 'say "hi",\nthen', "", "late"]
TEXT = ["a.csv", "a.csv.gz", "a.csv.zst", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst"]


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Few rows fill a buffer and a row group. Nothing here pulls the plug, so fsync may rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(predictions, "_ENOUGH", 3)
        patch.setattr(parquet_sink, "_GROUP", 5)
        yield


class Tables:
    """What a sink is told of a schema."""

    def __init__(self, name: str | None = None, labels: Vocabulary | None = None) -> None:
        self.id, self.labels = name, labels


class Stream:
    """A classified stream whose model knows a class once it was taught: rows in plain Python.

    Of odd seeds the model states sets.
    """

    def __init__(self, n: int, seed: int, declared: int = 0, with_ids: bool = True) -> None:
        rng = np.random.default_rng(seed)
        births = np.sort(rng.integers(0, n, len(NAMES)))
        self.y = [
            int(rng.integers(0, max(1, int(np.searchsorted(births, t, "right"))))) for t in range(n)
        ]
        modes = [LABELLED, LABELLED, PREDICT | OBSERVE, LEARN, LEARN | OBSERVE]
        self.mode = [int(mode) for mode in rng.choice(modes, n)]
        self.proba, self.prediction, self.with_sets = [], [], seed % 2 == 1
        self.sets: list[list[int]] = []
        known = 0
        for t in range(n):
            p = [float(v) for v in rng.dirichlet(np.ones(known))] if known else []
            answered = bool(p) and rng.random() > 0.1 and self.mode[t] & PREDICT
            self.proba.append(p if answered else [math.nan] * known)
            self.prediction.append(float(np.argmax(p)) if answered else math.nan)
            self.sets.append([k for k in range(known) if p[k] > 0.3])
            if self.mode[t] & LEARN:
                known = max(known, self.y[t] + 1)
        self.ids = [f'id "{t}", é' if t % 3 else f"plain{t}" for t in range(n)]
        self.n, self.declared, self.with_ids = n, declared, with_ids

    def answers(self, start: int, stop: int, labels: Vocabulary) -> Answers:
        """A block; its probabilities are as wide as the model knows at its end."""
        for code in self.y[start:stop]:
            while len(labels) <= code:
                labels.code(NAMES[len(labels)])
        learnt = [y for y, m in zip(self.y[:stop], self.mode[:stop], strict=True) if m & LEARN]
        proba = np.zeros((stop - start, max(learnt, default=-1) + 1))
        for t in range(start, stop):
            proba[t - start, : len(self.proba[t])] = self.proba[t]
        y = np.array(self.y[start:stop], dtype=float)
        mode = np.array(self.mode[start:stop], dtype=np.uint8)
        ids = np.array(self.ids[start:stop], dtype=object) if self.with_ids else None
        block = Block(np.zeros((len(y), 1)), y, np.ones(len(y)), mode, Features(["a"]), labels, ids)
        outputs = {"prediction": np.array(self.prediction[start:stop]), "proba": proba}
        if self.with_sets:
            outputs["set"] = np.zeros(proba.shape, np.uint8)
            for t in range(start, stop):
                outputs["set"][t - start, self.sets[t]] = 1
        return Answers(block, outputs, self.events(start))

    def events(self, stop: int) -> int:
        """Events before a row; a row that only learns is none."""
        return sum(1 for mode in self.mode[:stop] if mode & (PREDICT | OBSERVE))

    def records(self, late: bool) -> list[dict[str, Any]]:
        """What a file must say; late: a class has its key only from where it is known."""
        out, known = [], self.declared
        for t in range(self.n):
            if self.mode[t] & PREDICT:
                code = self.prediction[t]
                answered = not math.isnan(code)
                row: dict[str, Any] = {"row": self.events(t)}
                row |= {"key": self.ids[t]} if self.with_ids else {}
                row["prediction"] = NAMES[int(code)] if answered else None
                if self.with_sets:
                    row["set"] = [NAMES[k] for k in self.sets[t]] if answered else None
                for k in range(known):
                    p = self.proba[t][k] if k < len(self.proba[t]) else 0.0
                    row[f"p_{NAMES[k]}"] = p if answered else None
                out.append(row)
            if self.mode[t] & LEARN:
                known = max(known, self.y[t] + 1)
        if not late:
            out = [{f"p_{NAMES[k]}": 0.0 for k in range(known)} | row for row in out]
        return out


def write(sink: Sink, stream: Stream, cuts: list[int], start: int = 0, stop: int = -1) -> list[Any]:
    """Write rows start to stop in blocks that end at cuts; a commit after each: their positions."""
    labels = Vocabulary(NAMES[: stream.declared])
    stop = stream.n if stop < 0 else stop
    inner = sorted({c for c in cuts if start < c < stop})
    positions = []
    stream.answers(0, start, labels) if start else None
    for a, b in zip([start, *inner], [*inner, stop], strict=True):
        if a < b:
            sink.write(stream.answers(a, b, labels))
        positions.append((b, json.loads(json.dumps(sink.commit()))))
    return positions


def tables(stream: Stream) -> Tables:
    return Tables("key", Vocabulary(NAMES[: stream.declared]))


def text_of(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return pa.input_stream(str(path)).read()  # type: ignore[no-any-return]
    return path.read_bytes()


def csv_records(text: bytes) -> list[dict[str, Any]]:
    """Records as the csv module reads them; numbers as Python reads them."""
    rows = []
    for row in csv.DictReader(io.StringIO(text.decode(), newline="")):
        out: dict[str, Any] = {}
        for name, cell in row.items():
            number = name == "row" or name.startswith("p_")
            out[name] = (float(cell) if cell else None) if number else cell
        if "set" in out:
            out["set"] = json.loads(out["set"]) if out["set"] else None
        rows.append(out)
    return rows


def parquet_records(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist())


streams = st.builds(
    Stream,
    n=st.integers(1, 18),
    seed=st.integers(0, 2**32 - 1),
    declared=st.integers(0, 2),
    with_ids=st.booleans(),
)
cut_lists = st.lists(st.integers(1, 17), max_size=6)


@given(stream=streams, cuts=cut_lists)
def test_csv_says_what_plain_python_says(
    stream: Stream, cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("sink") / "a.csv"
    sink = open_sink(path, tables(stream))
    sink.open(None)
    write(sink, stream, cuts)
    sink.close()
    expected = stream.records(late=False)
    for row in expected:  # CSV cannot tell a missing answer from an empty label
        row["prediction"] = row["prediction"] or ""
    assert csv_records(path.read_bytes()) == expected


@given(stream=streams, cuts=cut_lists)
def test_json_lines_say_what_plain_python_says(
    stream: Stream, cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("sink") / "a.jsonl"
    sink = open_sink(path, tables(stream))
    sink.open(None)
    write(sink, stream, cuts)
    sink.close()
    lines = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    assert lines == stream.records(late=True)
    memory = MemorySink(id_name="key", labels=tables(stream).labels)
    memory.open(None)
    write(memory, stream, cuts)
    nan_free = [{k: None if v != v else v for k, v in row.items()} for row in memory.rows]
    assert nan_free == lines


@given(stream=streams, cuts=cut_lists, recoverable=st.booleans())
def test_parquet_says_what_plain_python_says(
    stream: Stream, cuts: list[int], recoverable: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("sink") / "a.parquet"
    sink = open_sink(path, tables(stream), recoverable=recoverable)
    sink.open(None)
    if recoverable:
        write(sink, stream, cuts)
    else:
        write_in_blocks(sink, stream, cuts)
    sink.close()
    expected = stream.records(late=False)
    if expected:
        assert parquet_records(path) == expected
        assert {part.suffix for part in path.parent.iterdir()} == {".parquet"}


def write_in_blocks(sink: Sink, stream: Stream, cuts: list[int]) -> None:
    """One commit at the end."""
    labels = Vocabulary(NAMES[: stream.declared])
    ends = sorted({*(c for c in cuts if c < stream.n), stream.n})
    for a, b in zip([0, *ends], ends, strict=False):
        sink.write(stream.answers(a, b, labels))
    sink.commit()


@pytest.mark.parametrize("name", [*TEXT, "a.parquet"])
@given(data=st.data(), stream=streams, cuts=cut_lists, other=cut_lists)
def test_a_crash_anywhere_changes_nothing(
    name: str,
    data: st.DataObject,
    stream: Stream,
    cuts: list[int],
    other: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Write on past a checkpoint, die, go back to it or one before, write again in other blocks."""
    folder = tmp_path_factory.mktemp("sink")
    whole, broken = folder / f"whole-{name}", folder / f"broken-{name}"
    sink = open_sink(whole, tables(stream))
    sink.open(None)
    write(sink, stream, [])
    sink.close()
    sink = open_sink(broken, tables(stream))
    sink.open(None)
    positions = [(0, json.loads(json.dumps(sink.commit()))), *write(sink, stream, cuts)]
    for _ in range(2):
        row, position = data.draw(st.sampled_from(positions))
        sink.close()  # what was not committed is lost, as if killed
        sink = open_sink(broken, tables(stream))
        sink.open(position)
        positions = [p for p in positions if p[0] <= row]
        positions += write(sink, stream, other, row, data.draw(st.integers(row, stream.n)))
        row, position = positions[-1]
    write(sink, stream, other, row)
    sink.close()
    if name.endswith("parquet"):
        assert parquet_records(broken) == parquet_records(whole)
    else:
        assert text_of(broken) == text_of(whole)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_a_compressed_file_has_one_frame_for_each_checkpoint(name: str, tmp_path: Path) -> None:
    stream = Stream(12, seed=1, declared=4)
    sink = open_sink(tmp_path / name, tables(stream))
    sink.open(None)
    positions = write(sink, stream, [4, 8])
    sink.close()
    data = (tmp_path / name).read_bytes()
    ends = [position["file"]["length"] for _, position in positions]
    assert ends[-1] == len(data)
    for start, stop in zip([0, *ends], ends, strict=False):
        assert data[start : start + 3] == b"\x1f\x8b\x08"
        gzip.decompress(data[start:stop])


def regression(values: list[float]) -> Answers:
    n = len(values)
    block = Block(
        np.zeros((n, 1)), np.zeros(n), np.ones(n), np.full(n, 7, np.uint8), Features(["a"])
    )
    return Answers(block, {"prediction": np.array(values)}, 5)


def test_numbers_read_back_to_the_same_bits(tmp_path: Path) -> None:
    values = [0.1, -0.0, 3.0, 1e300, 5e-324, 1e16, 1.0000000000000002, 123456789.125, 1e-7]
    for name in ("a.csv", "a.jsonl"):
        sink = open_sink(tmp_path / name)
        sink.open(None)
        sink.write(regression([*values, math.nan, math.inf]))
        sink.commit()
        sink.close()
    lines = (tmp_path / "a.csv").read_text().splitlines()
    cells = [line.split(",")[1] for line in lines[1:]]
    assert lines[0] == "row,prediction"
    assert np.array(cells[:-2], float).tobytes() == np.array(values).tobytes()
    assert cells[1:3] == ["-0.0", "3.0"]
    assert cells[-2:] == ["", "inf"]
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows[:-2]] == values
    assert all(isinstance(row["prediction"], float) for row in rows[:-2])
    assert [row["prediction"] for row in rows[-2:]] == [None, None]
    assert [row["row"] for row in rows] == list(range(5, 16))


@pytest.mark.parametrize(
    ("labels", "csv_cell", "json_value", "arrow"),
    [
        ([0, 1], "1", 1, pa.int64()),
        ([False, True], "True", True, pa.bool_()),
        (["no", "yes"], "yes", "yes", pa.string()),
        ([0, "yes"], "yes", "yes", pa.string()),
    ],
)
def test_predictions_are_the_original_labels(
    labels: list[Any], csv_cell: str, json_value: Any, arrow: Any, tmp_path: Path
) -> None:
    block = Block(
        np.zeros((1, 1)), np.ones(1), np.ones(1), np.array([PREDICT], np.uint8), Features(["a"]),
        Vocabulary(labels), np.array([7]),
    )  # fmt: skip
    answers = Answers(block, {"prediction": np.ones(1), "proba": np.array([[0.25, 0.75]])}, 0)
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        sink = open_sink(tmp_path / name, recoverable=False)
        sink.open(None)
        sink.write(answers)
        sink.commit()
        sink.close()
    names = f"row,id,prediction,p_{labels[0]},p_{labels[1]}"
    assert (tmp_path / "a.csv").read_text() == f"{names}\n0,7,{csv_cell},0.25,0.75\n"
    row = json.loads((tmp_path / "a.jsonl").read_text())
    assert (row["id"], row["prediction"]) == (7, json_value)
    assert pq.read_schema(tmp_path / "a.parquet").field("prediction").type == arrow
    assert parquet_records(tmp_path / "a.parquet")[0]["prediction"] == json_value


def test_an_id_column_never_takes_the_name_of_another(tmp_path: Path) -> None:
    for name in ("row", "prediction", "set", "p_calm"):
        sink = open_sink(tmp_path / f"{name}.csv", Tables(name))
        sink.open(None)
        sink.write(
            regression([1.0])._replace(block=regression([1.0]).block.replace(ids=np.array([3])))
        )
        sink.commit()
        sink.close()
        assert (tmp_path / f"{name}.csv").read_text() == "row,id,prediction\n5,3,1.0\n"


@pytest.mark.parametrize("name", [*TEXT, "a.parquet"])
def test_a_file_that_holds_something_is_not_overwritten_unasked(name: str, tmp_path: Path) -> None:
    for attempt in range(2):
        sink = open_sink(tmp_path / name, overwrite=attempt == 1)
        sink.open(None)
        sink.write(regression([1.0]))
        sink.commit()
        sink.close()
        with pytest.raises(UserError, match="holds something, and there is no checkpoint to go on"):
            open_sink(tmp_path / name).open(None)
    rows = (
        parquet_records(tmp_path / name)
        if "parquet" in name
        else text_of(tmp_path / name).split(b"\n")
    )
    assert len(rows) == {"c": 3, "j": 2, "p": 1}[name[2]]


@pytest.mark.parametrize("name", TEXT)
def test_a_file_that_was_cut_by_someone_else_is_noticed(name: str, tmp_path: Path) -> None:
    stream = Stream(18, seed=3, declared=4)
    sink = open_sink(tmp_path / name, tables(stream))
    sink.open(None)
    (_, position), *_ = write(sink, stream, [])
    sink.close()
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="it was changed since the checkpoint; put it back"):
        open_sink(tmp_path / name, tables(stream)).open(position)


def test_a_csv_with_other_columns_is_noticed(tmp_path: Path) -> None:
    stream = Stream(18, seed=3, declared=4)
    sink = open_sink(tmp_path / "a.csv", tables(stream))
    sink.open(None)
    (_, position), *_ = write(sink, stream, [])
    sink.close()
    data = (tmp_path / "a.csv").read_bytes()
    (tmp_path / "a.csv").write_bytes(b"a,b\n" + data)
    with pytest.raises(UserError, match="has other columns: it was changed since the checkpoint"):
        open_sink(tmp_path / "a.csv", tables(stream)).open(position)


def test_missing_parts_are_noticed(tmp_path: Path) -> None:
    stream = Stream(18, seed=3, declared=4)
    sink = open_sink(tmp_path / "a.parquet", tables(stream))
    sink.open(None)
    *_, (_, position) = write(sink, stream, [9])
    sink.close()
    (tmp_path / "a.parquet" / "part-000000.parquet").unlink()
    with pytest.raises(
        UserError, match="parts of the last checkpoint are not there; put them back"
    ):
        open_sink(tmp_path / "a.parquet", tables(stream)).open(position)


def test_parts_after_the_checkpoint_go(tmp_path: Path) -> None:
    stream = Stream(18, seed=3, declared=4)
    sink = open_sink(tmp_path / "a.parquet", tables(stream))
    sink.open(None)
    positions = write(sink, stream, [3, 6, 9, 12, 15])
    sink.close()
    whole = parquet_records(tmp_path / "a.parquet")
    row, position = positions[0]
    sink = open_sink(tmp_path / "a.parquet", tables(stream))
    sink.open(position)
    write(sink, stream, [], row)
    sink.close()
    assert parquet_records(tmp_path / "a.parquet") == whole
    assert len(list((tmp_path / "a.parquet").iterdir())) == 2


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write fails as on a full disk, after half of the bytes."""
    real = os.write

    def half(descriptor: int, data: Any) -> int:
        if len(data) < 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)


@pytest.mark.parametrize("name", TEXT)
def test_a_full_disk_is_one_line_and_costs_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream(18, seed=3, declared=4)
    expected = open_sink(tmp_path / f"whole-{name}", tables(stream))
    expected.open(None)
    write(expected, stream, [])
    expected.close()
    sink = open_sink(tmp_path / name, tables(stream))
    sink.open(None)
    (row, position), *_ = write(sink, stream, [], stop=9)
    with monkeypatch.context() as patch:
        full_disk(patch)
        with pytest.raises(UserError, match=r"a\.\S+: no space left on the disk .*; make room"):
            write(sink, stream, [], row)
    sink.close()
    sink = open_sink(tmp_path / name, tables(stream))
    sink.open(position)
    write(sink, stream, [], row)
    sink.close()
    assert text_of(tmp_path / name) == text_of(tmp_path / f"whole-{name}")


def test_stdout_gets_each_block_at_once() -> None:
    stream = Stream(18, seed=4, declared=4)
    out = io.BytesIO()
    sink = StreamSink(out, id_name="key", labels=Vocabulary(NAMES))
    sink.open(None)
    sink.write(stream.answers(0, 9, Vocabulary(NAMES)))
    half = out.getvalue()
    sink.write(stream.answers(9, 18, Vocabulary(NAMES)))
    sink.close()
    lines = [json.loads(line) for line in out.getvalue().split(b"\n")[:-1]]
    assert 0 < len(half) < len(out.getvalue())
    assert lines == stream.records(late=True)


REJECTS = [
    Reject("a.csv", 3, "has 2 fields, 4 expected", b'1,"2'),
    Reject("a.csv", 7, "y: must be finite", b"\xff\n\xc3\xa9"),
]


def test_dead_letters_say_where_why_and_what(tmp_path: Path) -> None:
    sink = open_dead_letters(tmp_path / "dead.jsonl")
    sink.open(None)
    sink.write(REJECTS[:1])
    position = sink.commit()
    sink.write(REJECTS[1:])
    sink.commit()
    sink.close()
    expected = [
        {"partition": "a.csv", "position": 3, "reason": "has 2 fields, 4 expected", "raw": '1,"2'},
        {"partition": "a.csv", "position": 7, "reason": "y: must be finite", "raw": "\\xff\né"},
    ]
    assert [json.loads(x) for x in (tmp_path / "dead.jsonl").read_text().splitlines()] == expected
    again = open_dead_letters(tmp_path / "dead.jsonl")
    again.open(position)
    again.close()
    assert [json.loads(x) for x in (tmp_path / "dead.jsonl").read_text().splitlines()] == expected[
        :1
    ]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (
            "out",
            r"^out: must end in \.csv, \.jsonl or \.parquet \(text also \.gz or \.zst\), or have",
        ),
        ("a.parquet.gz", r"^a\.parquet\.gz: Parquet is compressed inside; leave out \.gz$"),
        (
            {"path": "a.csv", "mode": 1},
            r"^sink: has the unknown key 'mode'; keys are: path, format",
        ),
        ({"format": "csv"}, r"^sink: has no path; keys are: path, format, overwrite$"),
        ({"path": "a.csv", "format": "xls"}, r"^a\.csv: must end in"),
    ],
)
def test_a_wrong_location_is_one_line(location: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_sink(location)


def test_a_location_may_say_its_format(tmp_path: Path) -> None:
    assert isinstance(open_sink({"path": str(tmp_path / "out"), "format": "csv"}), CsvSink)
    assert isinstance(open_sink(tmp_path / "day.1.json.GZ"), JsonLinesSink)
    assert isinstance(open_sink("-"), StreamSink)


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"gone/a\.csv: cannot be written: No such file or directory"
    ):
        open_sink(tmp_path / "gone" / "a.csv").open(None)


def test_parts_do_not_go_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"a\.parquet: is a file; parts need a folder"):
        open_sink(tmp_path / "a.parquet").open(None)
