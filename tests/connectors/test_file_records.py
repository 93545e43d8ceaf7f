"""Files as JSON messages: what a reader of the topic gets is what stands in the file."""

import gzip
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamlearn.connectors.file_records import Records, json_records
from streamlearn.errors import UserError


def read(path: Path, **options: Any) -> Records:
    """All records of a file, put together."""
    values: list[bytes] = []
    keys: list[bytes | None] = []
    times: list[int] = []
    for piece in json_records(path, **options):
        values += piece.values
        keys += piece.keys or []
        times += [] if piece.times is None else piece.times.tolist()
    return Records(values, keys, pa.array(times, pa.int64()).to_numpy())


def objects(path: Path, **options: Any) -> list[Any]:
    return [json.loads(value) for value in read(path, **options).values]


def test_lines_are_handed_on_as_they_stand(tmp_path: Path) -> None:
    lines = [b'{"a": 1.50, "b":"x"}', b"no json", b'{"a":\t2}', b"\xff\xfe"]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + lines[0] + b"\r\n\n" + b"\n".join(lines[1:]))
    assert read(path).values == lines


def test_lines_longer_than_a_piece_are_whole(tmp_path: Path) -> None:
    lines = [json.dumps({"n": n, "text": "x" * 700_000}).encode() for n in range(4)]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines) + b"\n"))
    assert read(path).values == lines


def test_keys_and_times_come_from_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"t": "2026-11-01T00:00:00.5Z", "card": "ä7"}\n{"t": 12.25, "card": 7}\n{"t": 3}\n',
        "utf-8",
    )
    found = read(path, key="card", time="t")
    assert found.keys == ["ä7".encode(), b"7", None]
    whole = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) * 10**9
    assert found.times is not None
    assert found.times.tolist() == [whole + 500_000_000, 12_250_000_000, 3 * 10**9]


def test_numbers_of_times_count_the_unit(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("t,x\n1700000000123,1\n")
    found = read(path, time="t", unit="ms").times
    assert found is not None
    assert found.tolist() == [1_700_000_000_123 * 10**6]


def test_csv_cells_are_numbers_where_their_column_is_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('x,zip,note\n1.50,01234,"a ""b"", c"\n-2e3,99,NA\nNA,7,"two\nlines"\n')
    assert objects(path) == [
        {"x": 1.5, "zip": "01234", "note": 'a "b", c'},
        {"x": -2000.0, "zip": "99", "note": "NA"},
        {"x": None, "zip": "7", "note": "two\nlines"},
    ]
    assert read(path).values[0].startswith(b'{"x":1.50,')  # the digits as they stand


def test_a_late_cell_that_is_no_number_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x\n" + "1\n" * 1000 + "oops\n+5\n")
    assert objects(path)[1000:] == [{"x": "oops"}, {"x": "+5"}]


def test_a_line_that_is_no_record_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,2\n3\n4,5\n")
    assert objects(path) == [{"x": 1, "y": 2}, {"x": 4, "y": 5}]
    assert "line 3: must have 2 fields, got 1; left out" in caplog.text


def test_rows_of_parquet_keep_their_values(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    stamps = pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns", "UTC"))
    table = pa.table(
        {
            "x": pa.array([0.1, None]),
            "n": pa.array([2**53 + 1, 2]),
            "day": pa.array([date(2026, 1, 2), None]),
            "at": stamps,
            "list": pa.array([[1, 2], []]),
            "s": pa.array(["ä", ""]),
        }
    )
    pq.write_table(table, path)
    assert objects(path) == [
        {
            "x": 0.1,
            "n": 2**53 + 1,
            "day": "2026-01-02",
            "at": "2023-11-14T22:13:20.123456789Z",
            "list": [1, 2],
            "s": "ä",
        },
        {"x": None, "n": 2, "day": None, "at": None, "list": [], "s": ""},
    ]
    times = next(iter(json_records_of(path, 1))).times
    assert times is not None
    assert times.tolist() == [1_700_000_000_123_456_789]


def json_records_of(path: Path, rows: int) -> list[Records]:
    """The first rows alone, with their times."""
    short = path.with_name("short.parquet")
    pq.write_table(pq.read_table(path).slice(0, rows), short)
    return list(json_records(short, time="at"))


def test_a_folder_is_read_file_after_file(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("x\n2\n")
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n')
    assert objects(tmp_path) == [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("a.csv", "x\n1\n", {"time": "t"}, "there is no column 't'; the columns are x"),
        ("a.csv", "t\n1\n\n?\n", {"time": "t"}, "record 4: time 't' must be there, got no value"),
        (
            "a.jsonl",
            '{"t": 1}\n{"t": "soon"}\n',
            {"time": "t"},
            "record 2: time 't' must be a time",
        ),
        ("a.jsonl", "1\n", {"key": "k"}, "line 1 must be a JSON object, got int; correct it, or"),
    ],
)
def test_what_has_no_time_is_told(
    tmp_path: Path, name: str, text: str, options: dict[str, str], message: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError) as told:
        list(json_records(path, **options))
    assert message in str(told.value)
    assert str(told.value).startswith(str(path))


def test_a_damaged_parquet_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match="is not a whole Parquet file"):
        list(json_records(path))
