"""Sources: the same rows whatever the format, whatever the cut, wherever a reader resumes."""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamlearn.connectors import as_source, open_source
from streamlearn.connectors._decode_lines import head_of
from streamlearn.connectors.compressed import GzipBytes, PlainBytes, open_bytes
from streamlearn.connectors.csv_files import sample_csv
from streamlearn.connectors.jsonl_files import open_pipe
from streamlearn.connectors.parquet_files import rows_at_once
from streamlearn.connectors.records import RecordSource
from streamlearn.contracts import Batch, Reject, Source
from streamlearn.errors import UserError
from streamlearn.schema import Schema

ROWS: list[dict[str, Any]] = [
    {
        "size": round(0.37 * i - 3, 2) if i % 7 else None,
        "open": i % 3 == 0,
        "city": ["Ulm", "Köln", 'a "b", c', "x"][i % 4],
        "at": f"2024-03-{1 + i % 28:02d} 0{i % 10}:30:00",
        "y": i % 3,
    }
    for i in range(60)
]
SCHEMA = {
    "target": "y",
    "task": "classification",
    "classes": "integer",
    "features": {"size": "number", "open": "boolean", "city": "category", "at": "time"},
}


def quoted(value: Any) -> str:
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return '"' + text.replace('"', '""') + '"' if set(text) & set('",\n') else text


def csv_text(rows: list[dict[str, Any]]) -> bytes:
    lines = [",".join(rows[0]), *(",".join(map(quoted, row.values())) for row in rows)]
    return "\n".join(lines).encode() + b"\n"


def json_text(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def parquet(folder: Path) -> Path:
    path = folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=17)
    return path


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


FORMS: dict[str, Callable[[Path], Any]] = {
    "csv": lambda f: written(f, "rows.csv", csv_text(ROWS)),
    "csv with BOM and CRLF": lambda f: written(
        f, "rows.csv", b"\xef\xbb\xbf" + csv_text(ROWS).replace(b"\n", b"\r\n")
    ),
    "csv.gz of two members": lambda f: written(
        f, "rows.csv.gz", gzip.compress(csv_text(ROWS)[:700]) + gzip.compress(csv_text(ROWS)[700:])
    ),
    "csv.zst of two frames": lambda f: written(
        f, "rows.csv.zst", zstd(csv_text(ROWS)[:700]) + zstd(csv_text(ROWS)[700:])
    ),
    "jsonl": lambda f: written(f, "rows.jsonl", json_text(ROWS)),
    "jsonl.gz": lambda f: written(f, "rows.jsonl.gz", gzip.compress(json_text(ROWS))),
    "no suffix": lambda f: written(f, "rows", json_text(ROWS)),
    "parquet": parquet,
    "dicts": lambda f: ROWS,
    "iterator of dicts": lambda f: iter(ROWS),
    "arrow": lambda f: pa.Table.from_pylist(ROWS),
    "pandas": lambda f: pd.DataFrame(ROWS),
    "polars": lambda f: pl.DataFrame(ROWS),
}


def drained(source: Source, max_events: int = 1000) -> list[Batch]:
    batches = []
    while not source.finished:
        batch = source.poll(max_events, 0.0)
        if batch is not None:
            batches.append(batch)
    return batches


def joined(batches: list[Batch]) -> dict[str, Any]:
    """All columns of all blocks, and the tables at the end."""
    blocks = [batch.block for batch in batches]
    whole = {
        name: np.concatenate([getattr(block, name) for block in blocks])
        for name in ("X", "y", "weight", "mode")
    }
    tables = blocks[-1].features.to_json()
    labels = None if blocks[-1].labels is None else blocks[-1].labels.values
    return whole | {"tables": tables, "labels": labels}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def expected() -> tuple[np.ndarray[Any, Any], list[float]]:
    """The dense columns by plain Python, from the definitions in the docstrings."""
    cities = list(dict.fromkeys(row["city"] for row in ROWS))
    X = []
    for row in ROWS:
        stamp = pd.Timestamp(row["at"])
        turns = [
            2 * np.pi * (stamp.hour * 60 + stamp.minute) / 1440,
            2 * np.pi * stamp.weekday() / 7,
        ]
        cyclic = [wave(turn) for turn in turns for wave in (np.sin, np.cos)]
        size = np.nan if row["size"] is None else row["size"]
        X.append([size, float(row["open"]), float(cities.index(row["city"])), *cyclic])
    return np.array(X), [float(row["y"]) for row in ROWS]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_rows_and_the_schema_of_the_definition(
    form: str, tmp_path: Path
) -> None:
    source, schema = as_source(FORMS[form](tmp_path), target="y")
    assert schema.to_config() == SCHEMA
    source.open({})
    got = joined(drained(source))
    X, y = expected()
    np.testing.assert_allclose(got["X"], X, rtol=0, atol=1e-15)
    assert got["y"].tolist() == y
    assert got["labels"] == [0, 1, 2]
    assert got["mode"].tolist() == [7] * 60


@pytest.mark.parametrize("form", [f for f in FORMS if f != "iterator of dicts"])
@pytest.mark.parametrize("max_events", [1, 7, 59])
def test_any_cut_and_any_resume_give_the_same_bits(
    form: str, max_events: int, tmp_path: Path
) -> None:
    data = FORMS[form](tmp_path)
    source = as_source(data, Schema.from_config(SCHEMA))[0]
    source.open({})
    whole = joined(drained(source))
    source = as_source(data, Schema.from_config(SCHEMA))[0]
    source.open({})
    assert_same(joined(drained(source, max_events)), whole)
    first, schema = as_source(data, Schema.from_config(SCHEMA))
    first.open({})
    begun = [batch for batch in [first.poll(max_events, 0.0)] if batch is not None]
    state = schema.state()
    first.close()
    fresh = Schema.from_config(SCHEMA)
    fresh.load(state)
    second = as_source(data, fresh)[0]
    second.open(json.loads(json.dumps(begun[-1].positions)))
    assert_same(joined(begun + drained(second)), whole)


def test_vocabularies_hold_what_was_handed_out_and_no_more(tmp_path: Path) -> None:
    source, schema = as_source(FORMS["csv"](tmp_path), Schema.from_config(SCHEMA))
    source.open({})
    source.poll(2, 0.0)
    assert schema.columns.categories["city"].values == ["Ulm", "Köln"]
    assert schema.labels is not None
    assert schema.labels.values == [0, 1]
    source.close()


BAD = {
    "csv": b"a,y\n1,0\n2\n3,1\nx,1\n\n4,0\ninf,9\n5,1\n",
    "jsonl": b'{"a":1,"y":0}\n{"a":2\n{"a":3,"y":1}\n{"a":"x","y":1}\n\n{"a":4,"y":0}\n'
    b'{"a":Infinity,"y":9}\n{"a":5,"y":1}\n',
}


@pytest.mark.parametrize("form", BAD)
@pytest.mark.parametrize("max_events", [1, 2, 100])
def test_bad_rows_go_to_the_rejects_in_their_place(
    form: str, max_events: int, tmp_path: Path
) -> None:
    path = written(tmp_path, f"bad.{form}", BAD[form])
    table = {"target": "y", "task": "classification", "classes": "integer"}
    schema = Schema.from_config(table | {"features": {"a": "number"}})
    source = open_source(path, schema)
    source.open({})
    batches = drained(source, max_events)
    assert joined(batches)["X"][:, 0].tolist() == [1.0, 3.0, 4.0, 5.0]
    assert joined(batches)["labels"] == [0, 1]
    rejects: list[Reject] = [r for batch in batches for r in batch.rejects]
    first = 3 if form == "csv" else 2
    assert [r.position for r in rejects] == [first, first + 2, first + 5]
    assert {r.partition for r in rejects} == {f"bad.{form}"}
    assert rejects[0].raw == BAD[form].split(b"\n")[first - 1]
    for cut in range(1, len(batches)):
        again = open_source(path, Schema.from_config(table | {"features": {"a": "number"}}))
        again.open(batches[cut - 1].positions)
        rest = [r for batch in drained(again) for r in batch.rejects]
        assert rest == [r for batch in batches[cut:] for r in batch.rejects]


@pytest.mark.parametrize(
    ("columns", "rows"), [(0, 65_536), (9, 65_536), (64, 16_384), (1_000, 8_192)]
)
def test_rows_decoded_at_a_time_stay_within_megabytes(columns: int, rows: int) -> None:
    assert rows_at_once(columns) == rows


def test_rejects_of_parquet_and_dicts_name_their_row(tmp_path: Path) -> None:
    table = pa.table({"a": [1.0, np.inf, 3.0], "y": [1.0, 2.0, None]})
    pq.write_table(table, tmp_path / "t.parquet")
    config = {"target": "y", "task": "regression", "features": {"a": "number"}}
    records = [{"a": 1.0, "y": 1.0}, {"a": np.inf, "y": 2.0}, {"a": 3.0, "y": None}]
    for data in (tmp_path / "t.parquet", records):
        source, _ = as_source(data, Schema.from_config(config))
        source.open({})
        (batch,) = drained(source)
        assert batch.block.mode.tolist() == [7, 5]
        assert [(r.position, r.reason) for r in batch.rejects] == [
            (1, "feature 'a' must be finite, got inf")
        ]


def test_what_is_no_dict_is_rejected() -> None:
    schema = Schema.from_config({"features": {"a": "number"}})
    source = RecordSource([{"a": 1}, 5, {"a": 2}], schema)  # type: ignore[list-item]
    source.open({})
    (batch,) = drained(source)
    assert batch.block.X[:, 0].tolist() == [1.0, 2.0]
    assert batch.rejects == [Reject("records", 1, "must be a dict, got int", b"5")]


def test_long_packed_and_plain_text_is_the_same_over_many_pieces(tmp_path: Path) -> None:
    lines = b"".join(b"%d.5,c%d\n" % (i, i % 5) for i in range(150_000))
    assert len(lines) > 1_500_000  # more than one piece
    config = {"target": "y", "task": "classification", "features": {"a": "number"}}
    totals = []
    for name, data in [
        ("a.csv", b"a,y\n" + lines),
        ("a.csv.gz", gzip.compress(b"a,y\n" + lines, 1)),
    ]:
        source = open_source(written(tmp_path, name, data), Schema.from_config(config))
        source.open({})
        batches = drained(source, 10**6)
        assert len(batches) > 1
        got = joined(batches)
        assert got["X"][:, 0].tolist() == [i + 0.5 for i in range(150_000)]
        totals.append((got, list(batches[-1].positions.values())))
    assert_same(totals[0][0], totals[1][0])
    assert totals[0][1] == totals[1][1] == [{"offset": 4 + len(lines), "line": 150_002}]


def test_a_row_far_inside_a_row_group_is_found_again(tmp_path: Path) -> None:
    n = 100_000  # several decoded pieces
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": np.arange(n)}), path, row_group_size=90_000)
    for row in (0, 70_001, 89_999, 90_000, n - 1, n):
        source = open_source(path, Schema.from_config({"features": {"a": "number"}}))
        source.open({"t.parquet": {"row": row}})
        values = [block.X[:, 0] for block, *_ in drained(source, n)]
        np.testing.assert_array_equal(np.concatenate([*values, []]), np.arange(row, n))


# -- folders, globs, pipes -------------------------------------------------------------------------


def test_a_folder_is_read_file_by_file_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "2024").mkdir()
    written(tmp_path, "b.csv", b"a\n3\n")
    written(tmp_path, "a.jsonl.gz", gzip.compress(b'{"a": 2}\n'))
    written(tmp_path / "2024", "z.csv", b"a\n1\n")
    written(tmp_path, "_SUCCESS", b"")
    written(tmp_path, "empty.csv", b"")
    schema = Schema.infer(tmp_path)
    source = open_source(tmp_path, schema)
    source.open({})
    batches = drained(source)
    assert joined(batches)["X"][:, 0].tolist() == [1.0, 2.0, 3.0]
    assert list(batches[-1].positions) == ["2024/z.csv", "a.jsonl.gz", "b.csv"]
    again = open_source(tmp_path, schema)
    again.open(batches[0].positions)
    assert joined(drained(again))["X"][:, 0].tolist() == [2.0, 3.0]


def test_a_glob_takes_what_it_names(tmp_path: Path) -> None:
    for name in ("a1.csv", "a2.csv", "b1.csv"):
        written(tmp_path, name, b"a\n%d\n" % ord(name[1]))
    source = open_source(f"{tmp_path}/a*.csv", Schema.from_config({"features": {"a": "number"}}))
    source.open({})
    batches = drained(source)
    assert list(batches[-1].positions) == ["a1.csv", "a2.csv"]


def test_a_pipe_gives_what_is_there_and_never_waits_longer() -> None:
    out, into = os.pipe()
    reader = open_pipe(out, Schema.from_config({"features": {"a": "number"}}), None)
    assert reader.read(0.0) is None
    assert not reader.finished
    os.write(into, b'{"a": 1}\n{"a"')
    chunk = reader.read(0.0)
    assert chunk is not None
    assert (chunk.decoded.n, chunk.end) == (1, {"offset": 9, "line": 2})
    os.write(into, b": 2}\n")
    os.close(into)
    rest = reader.read(0.0)
    assert rest is not None
    assert rest.decoded.X.tolist() == [[2.0]]
    while reader.read(0.0) is not None:
        pass
    assert reader.finished
    os.close(out)


def test_a_pipe_fed_again_is_resumed_by_dropping_what_was_read() -> None:
    out, into = os.pipe()
    os.write(into, b'{"a": 1}\n{"a": 2}\n')
    os.close(into)
    schema = Schema.from_config({"features": {"a": "number"}})
    chunk = open_pipe(out, schema, {"offset": 9, "line": 2}).read(0.0)
    os.close(out)
    assert chunk is not None
    assert chunk.decoded.X.tolist() == [[2.0]]


# -- what is broken --------------------------------------------------------------------------------


def read_all(data: Any, schema: Schema | None, **asked: Any) -> None:
    source, _ = as_source(data, schema, **asked)
    source.open({})
    drained(source)


def refused(data: Any, schema: Schema | None = None, **asked: Any) -> str:
    """The message of the UserError that reading raises, after the rows that could be read."""
    with pytest.raises(UserError) as caught:
        read_all(data, schema, **asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


A = Schema.from_config({"features": {"a": "number"}})


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("e.csv", b"", "is empty; a CSV file begins with a line of column names"),
        ("e.csv", b"a,b\n", "there are no rows; give data with at least one row"),
        ("e.csv", b"\n\na,b\n1,2\n", "line 1 is blank; a CSV file begins with a line of column"),
        ("e.csv", b"a,b\r1,2\r", "lines must end with LF or CRLF, got CR alone"),
        ("e.csv", "a,b\n1,2\n".encode("utf-16-le"), "line 1 must be UTF-8, got bytes of 0"),
        ("e.csv", b'a,"b\nc"\n1,2\n', "line 1: a quoted name must be closed on that line"),
        ("e.csv", b"1,2\n3,4\n", "line 1 must name the columns, got '1,2'; add a header"),
        ("e.csv", b"a,a\n1,2\n", "line 1 names 'a' twice"),
        ("e.csv", b"\xff\n1\n", "line 1 must be UTF-8"),
        ("e.csv", b"b,c\n1,2\n", "there is no feature column 'a'; the columns are b, c"),
        ("e.csv.bz2", bz2.compress(b"a\n1\n"), "is packed by bzip2; unpack it, or use gzip or"),
        ("e.jsonl", lzma.compress(b"a\n1\n"), "is packed by xz; unpack it, or use gzip or zstd"),
        ("e.xlsx", b"PK\x03\x04\x14\0\x06\0\x08\0", "is packed by zip, as Excel's files are"),
        ("e.jsonl", b"", "there are no rows"),
        ("e.jsonl", b'[{"a": 1}]', "must hold one JSON object a line, got an array"),
        ("e.json", b'{\n  "a": 1\n}\n', "must hold one JSON object a line; no line at its start"),
        ("e.jsonl", b'{"b": 1}\n', "there is no feature column 'a'; the columns are b"),
        ("e.parquet", b"a,b\n1,2\n", "is not a whole Parquet file"),
        ("e.parquet", b"", "is not a whole Parquet file"),
    ],
)
def test_files_that_cannot_be_read(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, name, data)
    text = refused(path, A)
    assert text.startswith(f"{path}: ")
    assert message in text


def test_a_parquet_file_cut_off_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    path.write_bytes(path.read_bytes()[:-50])
    assert "is not a whole Parquet file" in refused(path, target="y")


@pytest.mark.parametrize("packed", ["gz", "zst"])
def test_a_packed_file_cut_off_gives_its_whole_lines_first(packed: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    text = b"a\n" + b"".join(b"%r\n" % value for value in rng.random(40_000).tolist())
    whole = gzip.compress(text) if packed == "gz" else zstd(text)
    path = written(tmp_path, f"a.csv.{packed}", whole[: len(whole) * 3 // 4])
    source = open_source(path, A)
    source.open({})
    values: list[float] = []

    def read() -> None:
        while (batch := source.poll(1000, 0.0)) is not None:
            values.extend(batch.block.X[:, 0].tolist())

    with pytest.raises(UserError, match=r"data end too early.*; the rows before were read"):
        read()
    assert len(values) > 25_000
    assert values == [float(line) for line in text.split(b"\n")[1 : len(values) + 1]]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_file_that_is_shorter_than_at_the_checkpoint_is_refused(
    form: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{form}"

    def write(rows: int) -> None:
        column = [float(i) for i in range(rows)]
        if form == "csv":
            path.write_text("a\n" + "".join(f"{value}\n" for value in column))
        else:
            pq.write_table(pa.table({"a": column}), path)

    write(50)
    source = open_source(path, A)
    source.open({})
    batch = source.poll(40, 0.0)
    assert batch is not None
    source.close()
    write(30)
    again = open_source(path, A)

    def go_on() -> None:
        again.open(batch.positions)
        again.poll(40, 0.0)

    with pytest.raises(UserError, match="ends before the position of the checkpoint; give the fi"):
        go_on()
    again.close()


def test_a_damaged_page_is_found_where_the_file_has_check_sums(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"a": np.arange(1.0, 1001.0)})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    content = path.read_bytes()
    at = content.index(np.float64(700.0).tobytes())
    path.write_bytes(content[: at + 6] + b"\x01" + content[at + 7 :])
    assert "is damaged" in refused(path, A)


def test_gzip_of_nonsense_is_damaged(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv.gz", b"\x1f\x8bnonsense that is no gzip at all")
    stream = GzipBytes(path)
    with pytest.raises(UserError, match="gzip data are damaged"):
        stream.read(10, 0.0)
    stream.close()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere.csv", "nowhere.csv: there is no such file or folder; correct the path"),
        ("*.nothing", "*.nothing: there is no CSV, JSON Lines or Parquet file; correct the path"),
        ([], "data: there are no rows; give data with at least one row"),
        (7, "data: must be a path, an Arrow table, a frame or an iterable of dicts, got int"),
        ("river:Nope", "river:Nope: there is no such data set; choose one of AirlinePassengers"),
        ("river:SEA?n=0", "river:SEA: n must be a whole number >= 1, got '0'"),
        ("river:SEA?x=1", "river:SEA: SEA"),
        ("river:Higgs", "river:Higgs: River has to download it first"),
        ("drift:sudden", "drift:sudden: kind must be one of abrupt, gradual, recurring"),
        ("drift:abrupt?m=1", "drift:abrupt: there is no option 'm'; it takes n, at, width"),
        ("drift:abrupt?n=x", "drift:abrupt: n must be a number, got 'x'"),
        ("drift:abrupt?at=9,3", "drift:abrupt: at must be rising, got (9, 3)"),
    ],
)
def test_locations_that_are_not_there(data: Any, message: str) -> None:
    assert refused(data).startswith(message)


@pytest.mark.parametrize(
    "values", [[1, "x", 2.0], [1j, 2j], pd.arrays.SparseArray([0.0, 1.0])], ids=["mix", "1j", "gap"]
)
def test_a_frame_that_arrow_cannot_hold_says_what_to_do(values: Any) -> None:
    assert "give a column one type" in refused(pd.DataFrame({"a": values}))


def test_a_checkpoint_of_files_that_are_gone_is_refused(tmp_path: Path) -> None:
    source = open_source(written(tmp_path, "a.csv", b"a\n1\n"), A)
    with pytest.raises(UserError, match=r"the checkpoint has read 'b\.csv', which is not there"):
        source.open({"b.csv": {"offset": 2, "line": 2}})


def test_a_limit_ends_the_stream() -> None:
    source, _ = as_source(ROWS, target="y", limit=10)
    source.open({})
    assert joined(drained(source, 4))["X"].shape[0] == 10
    with pytest.raises(UserError, match="limit: must be >= 1, got 0"):
        as_source(ROWS, target="y", limit=0)


# -- River and generated streams -------------------------------------------------------------------


def test_a_bundled_river_set_is_what_river_iterates_over() -> None:
    from river import datasets

    source, schema = as_source("river:Phishing")
    source.open({})
    got = joined(drained(source))
    pairs = list(datasets.Phishing())
    names = list(pairs[0][0])
    assert list(schema.columns.names) == names
    assert got["X"].tolist() == [[float(x[name]) for name in names] for x, _ in pairs]
    assert [got["labels"][int(code)] for code in got["y"]] == [y for _, y in pairs]


def test_a_river_generator_takes_its_options() -> None:
    from river.datasets import synth

    source, schema = as_source("river:SEA?seed=3&variant=2&n=50")
    source.open({})
    got = joined(drained(source))
    pairs = list(synth.SEA(seed=3, variant=2).take(50))
    assert got["X"].tolist() == [list(x.values()) for x, _ in pairs]
    assert schema.columns.names == ("0", "1", "2")


def test_nothing_heavy_of_river_and_no_frames_at_start_up(tmp_path: Path) -> None:
    """Nor by reading a file: `to_numpy` and `Table.from_pylist` of Arrow would load pandas."""
    heavy = ["river.datasets", "polars", "pandas"]
    if pa.__version__.startswith("16."):
        heavy.remove("pandas")  # the oldest Arrow that is taken loads it whatever is called
    paths = [str(parquet(tmp_path)), str(written(tmp_path, "rows.csv", csv_text(ROWS)))]
    code = (
        "import sys, streamlearn.connectors, streamlearn.schema\n"
        "from streamlearn.rehearsal import _invented\n"
        f"schema = streamlearn.schema.Schema.from_config({SCHEMA!r})\n"
        f"for data in {paths!r} + [_invented(schema, 4)]:\n"
        "    source, _ = streamlearn.connectors.as_source(data, schema)\n"
        "    source.open({})\n"
        "    assert source.poll(100, 0.0).block.n in (4, 60)\n"
        "    source.close()\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


@pytest.mark.parametrize("bad", [0, 3])
def test_a_sample_is_of_the_first_rows_also_where_many_lines_are_bad(
    bad: int, tmp_path: Path
) -> None:
    """bad: lines of one field too many before each record."""
    lines = [line for i in range(300) for line in [*["1,2,3"] * bad, f"{i},x"]]
    path = written(tmp_path, "a.csv", "\n".join(["a,b", *lines]).encode())
    assert sample_csv(path, 100) == {"a": [str(i) for i in range(100)], "b": ["x"] * 100}
    assert len(sample_csv(path, 1000)["a"]) == 300


def test_a_first_line_that_names_no_columns_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, "e.csv", b"# written by hand\na,b\n1,2\n")
    rule = r"line 1 names: line 2 must have 1 fields, got 2; begin the file with the names of its"
    with pytest.raises(UserError, match=rule):
        Schema.infer(path)


GROWING = {
    "e.csv": (b"a\n1.5\n2", b"75\n3.5\n", b"75", 3),
    "e.jsonl": (b'{"a": 1.5}\n{"a": 2}', b', "a": 7}\n{"a": 3.5}\n', b', "a": 7}', 2),
}


@pytest.mark.parametrize("name", GROWING)
@pytest.mark.parametrize("packed", [False, True])
def test_the_rest_of_a_line_that_was_read_too_early_is_no_record(
    name: str, packed: bool, tmp_path: Path
) -> None:
    """A writer in the middle of its last line: 2 was read, and 75 is not the next value."""
    begun, added, rest, line = GROWING[name]
    pack = gzip.compress if packed else bytes
    path = written(tmp_path, name, pack(begun))
    source = open_source(path, A)
    source.open({})
    batches = drained(source)
    path.write_bytes(pack(begun) + pack(added))
    again = open_source(path, A)
    again.open(batches[-1].positions)
    more = drained(again)
    values = [x for batch in batches + more for x in batch.block.X[:, 0].tolist()]
    assert values == [1.5, 2.0, 3.5]
    (reject,) = [reject for batch in more for reject in batch.rejects]
    assert (reject.raw, reject.position) == (rest, line)
    assert reject.reason.startswith("must be a whole line, got the rest of one that was read ")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_last_line_that_gets_its_end_later_is_whole(end: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, "e.csv", b"a" + end + b"1.5")
    source = open_source(path, A)
    source.open({})
    (batch,) = drained(source)
    path.write_bytes(b"a" + end + b"1.5" + end + b"2.5" + end)
    again = open_source(path, A)
    again.open(batch.positions)
    (more,) = drained(again)
    assert more.block.X.tolist() == [[2.5]]
    assert not more.rejects


def test_a_mark_of_byte_order_on_a_pipe_is_passed_over() -> None:
    read, write = os.pipe()
    os.write(write, b'\xef\xbb\xbf{"a": 1.5}\n')
    os.close(write)
    reader = open_pipe(read, A, None)
    chunk = reader.read(1.0)
    reader.close()
    os.close(read)
    assert chunk is not None
    assert not chunk.rejects
    assert chunk.decoded.take(0, 1).X.tolist() == [[1.5]]


def test_parquet_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    column = pa.array([1.0])
    pq.write_table(pa.table([column, column], names=["a", "a"]), tmp_path / "e.parquet")
    with pytest.raises(UserError, match=r"e\.parquet: two columns are named 'a'; give every colum"):
        as_source(tmp_path / "e.parquet")


def not_utf8() -> pa.Array:
    """u, then bytes that are no text, under the type of text, as a careless writer leaves them."""
    raw = pa.array([b"u", b"\xff", b"v"])
    return pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])


@pytest.mark.parametrize("kind", ["category", "number", "boolean", "time", "text", "words"])
@pytest.mark.parametrize("coded", [False, True])
def test_text_of_parquet_that_is_no_utf8_costs_its_row(
    kind: str, coded: bool, tmp_path: Path
) -> None:
    column = not_utf8().dictionary_encode() if coded else not_utf8()
    pq.write_table(pa.table({"c": column, "a": [1.0, 2.0, 3.0]}), tmp_path / "e.parquet")
    schema = Schema.from_config({"features": {"a": "number", "c": kind}})
    source = open_source(tmp_path / "e.parquet", schema)
    source.open({})
    rejects = {r.position: r for batch in drained(source) for r in batch.rejects}
    assert "got b'\\xff'" in rejects[1].reason
    assert json.loads(rejects[1].raw) == {"c": "b'\\xff'", "a": 2.0}
    if kind in ("category", "text", "words"):
        assert set(rejects) == {1}


def test_a_schema_is_inferred_beside_text_that_is_no_utf8() -> None:
    table = pa.table({"c": not_utf8(), "a": [1.0, 2.0, 3.0]})
    _, schema = as_source(table)
    assert {name: f.kind for name, f in schema.features.items()} == {"c": "category", "a": "number"}


def test_a_later_file_of_a_folder_may_have_no_labels(tmp_path: Path) -> None:
    """As in the file before it, a key that is not there is missing; the first shows a mistake."""
    written(tmp_path, "a.jsonl", b'{"a": 1, "y": "up"}\n')
    written(tmp_path, "b.jsonl", b'{"a": 2}\n')
    source, schema = as_source(tmp_path, target="y")
    source.open({})
    blocks = [batch.block for batch in drained(source)]
    assert [block.mode.tolist() for block in blocks] == [[7], [5]]
    with pytest.raises(UserError, match=r"b\.jsonl: there is no target column 'y'"):
        open_source(tmp_path / "b.jsonl", schema).open({})


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_an_array_is_refused_by_its_beginning(
    mark: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be gigabytes on one line, of which no end comes."""
    path = written(tmp_path, "e.json", mark + b"[" + b'{"a": 1},' * 200_000 + b"{}]")
    read: list[int] = []

    def counted(self: PlainBytes, size: int, max_wait: float) -> bytes | None:
        read.append(size)
        return self._file.read(size)

    monkeypatch.setattr(PlainBytes, "read", counted)
    with pytest.raises(UserError, match=r"must hold one JSON object a line, got an array; unpack"):
        Schema.infer(path)
    assert len(read) == 1


@pytest.mark.parametrize("lines", [1, 3, 9])
def test_the_head_of_a_file_has_the_lines_or_is_all(
    lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamlearn.connectors._decode_lines.PIECE", 4)
    text = b"a,b\n1,2\n\n33,444444\n5,6"
    stream = open_bytes(written(tmp_path, "e.csv", text))
    head, whole = head_of(stream, lines, stream.read(2, 0.0) or b"")
    stream.close()
    assert text.startswith(head)
    assert head.count(b"\n") == min(lines, 4) if whole else head.count(b"\n") >= lines
    assert whole == (lines == 9)


@pytest.mark.parametrize("name", ["e.tsv", "e.TSV", "e.tsv.gz"])
def test_commas_in_the_names_of_a_tsv_delimit_nothing(name: str, tmp_path: Path) -> None:
    text = b"last, first\tage, years\n" + b"Doe, J\t3\nRoe, K\t4\n" * 3
    data = gzip.compress(text) if name.endswith("gz") else text
    schema = Schema.infer(written(tmp_path, name, data))
    assert list(schema.features) == ["last, first", "age, years"]
