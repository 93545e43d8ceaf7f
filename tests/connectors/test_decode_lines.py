"""Whole pieces and single lines agree: on every value, every rejection and every position."""

import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn.block import Block
from streamlearn.connectors._decode_lines import LineDecoder, decode_piece
from streamlearn.connectors._partitions import Chunk
from streamlearn.connectors.csv_files import CsvDecoder, Unfinished, fields_of
from streamlearn.connectors.jsonl_files import JsonDecoder
from streamlearn.schema import Schema
from streamlearn.schema_cells import Misfit

NAMES = ["a", "b", "c", "t", "w", "y"]
TABLE = {
    "target": "y",
    "task": "classification",
    "classes": "integer",
    "weight": "w",
    "features": {
        "a": "number",
        "b": "boolean",
        "c": "category",
        "t": {"kind": "time", "parts": ["epoch", "hour"]},
    },
}


class OnlyLines:
    """A decoder whose column-wise way is closed."""

    def __init__(self, inner: LineDecoder) -> None:
        self.schema, self.split = inner.schema, inner.split

    def whole(self, data: bytes) -> None:
        return None


def csv_decoder(schema: Schema) -> LineDecoder:
    return CsvDecoder(schema, NAMES, ",")


def outcome(
    make: Callable[[Schema], LineDecoder], data: bytes, by_line: bool
) -> tuple[Chunk, Block, Any]:
    schema = Schema.from_config(TABLE)
    decoder = OnlyLines(make(schema)) if by_line else make(schema)
    chunk, used, line = decode_piece(decoder, "p", data, 100, 7, True)
    block = chunk.decoded.take(0, chunk.decoded.n)
    tables = (schema.state().table, used, line, chunk.end)
    return chunk, block, tables


def assert_same(make: Callable[[Schema], LineDecoder], data: bytes) -> Chunk:
    """Decode both ways and compare all there is; the chunk of the way that was taken."""
    chunk, block, tables = outcome(make, data, by_line=False)
    slow_chunk, slow_block, slow_tables = outcome(make, data, by_line=True)
    assert tables == slow_tables
    assert chunk.rejects == slow_chunk.rejects
    for name in ("X", "y", "weight", "mode"):
        np.testing.assert_array_equal(getattr(block, name), getattr(slow_block, name))
    for b in range(1, block.n):
        assert chunk.after(b) == slow_chunk.after(b)
    return chunk


NUMBERS = st.one_of(
    st.floats().map(repr),
    st.integers().map(str),
    st.sampled_from(
        ["", "NA", " 5 ", "\t5", "+5", "+-5", "1.", ".5", ".", "-", "1e5", "1e", "1e400", "1e-400",
         "1_0", "0x1", "007", "nan", "-NaN", "nan(x)", "inf", "+Infinity", "true", " ", " NA", "5d"]
    ),
    st.text("0123456789+-.eE naif_", max_size=6),
)  # fmt: skip
BOOLEANS = st.sampled_from(["true", "False", "TRUE", "1", "0", " 1", "1.0", "2", "", "yes", "tRue"])
WORDS = st.text(st.characters(exclude_characters='",\r\n', exclude_categories=["Cs"]), max_size=5)
TIMES = st.one_of(
    st.datetimes().map(str),
    st.sampled_from(["2020-01-01", "2020-02-30", "2020-01-01T05Z", "2020-01-01 05:06:07.5+01:00",
                     "2020-01-01T24:00", "17", "1.5", "", " 2020-01-01", "1500-01-01", "2020-1-1",
                     "2020-01-01T01:02:03+25:00", "2262-05-01", "1677-01-01", "x"]),
)  # fmt: skip
CLASSES = st.sampled_from(["0", "1", "1.0", "01", "up", "", "nan", "-1", '"2"', "NA", "1e400"])
LINES = st.tuples(NUMBERS, BOOLEANS, WORDS, TIMES, NUMBERS, CLASSES).map(",".join)
DATES = st.datetimes(
    datetime(1700, 1, 1),  # noqa: DTZ001  # naive on purpose
    datetime(2200, 1, 1),  # noqa: DTZ001
)
CLEAN = st.tuples(
    st.floats(allow_infinity=False).map(repr), st.sampled_from(["true", "0"]),
    st.text("xyz", max_size=2), DATES.map(str),
    st.floats(0, 9).map(repr), st.sampled_from("01"),
).map(",".join)  # fmt: skip


@given(st.lists(st.one_of(CLEAN, LINES), max_size=4), st.sampled_from(["\n", "\r\n"]))
def test_csv_pieces_and_lines_agree(lines: list[str], end: str) -> None:
    assert_same(csv_decoder, end.join(lines).encode())


@given(st.lists(st.one_of(CLEAN, st.just("")), max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_blank_lines_count_as_lines_and_not_as_rows(lines: list[str], end: str) -> None:
    chunk = assert_same(csv_decoder, (end.join(lines) + end).encode())
    assert chunk.decoded.n == sum(line != "" for line in lines)
    assert chunk.end == {"offset": 100 + sum(len(x + end) for x in lines or [""]),
                         "line": 7 + len(lines or [""])}  # fmt: skip


@given(st.lists(CLEAN, min_size=1, max_size=5))
def test_clean_csv_is_decoded_column_wise(lines: list[str]) -> None:
    schema = Schema.from_config(TABLE)
    assert CsvDecoder(schema, NAMES, ",").whole("\n".join(lines).encode()) is not None


@given(st.binary(max_size=60) | st.text('ab1,"\r\n ', max_size=40).map(str.encode))
def test_csv_pieces_and_lines_agree_on_any_bytes(data: bytes) -> None:
    def one_column(schema: Schema) -> LineDecoder:
        return CsvDecoder(schema, ["c", "y"], ",")

    table = {"target": "y", "task": "classification", "features": {"c": "category"}}
    whole = CsvDecoder(Schema.from_config(table), ["c", "y"], ",").whole(data)
    if whole is None:
        return
    split = CsvDecoder(Schema.from_config(table), ["c", "y"], ",").split(data, 1, True)
    assert not split.refused
    assert whole.n == len(split.places)
    texts = [None if v in whole.missing else v for v in split.columns["c"]]
    coded = whole.categories["c"]
    assert [None if i < 0 else coded.values[i] for i in coded.codes] == texts


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4),
    st.sampled_from(["3", " 3", "NaN", "2020-01-01", "true", "x", 10**400]),
    st.just([1]), st.just({"k": 1}),
)  # fmt: skip
OBJECTS = st.dictionaries(st.sampled_from([*NAMES, "extra"]), VALUES).map(json.dumps)
GOOD = st.fixed_dictionaries(
    {"a": st.floats(allow_nan=False, allow_infinity=False) | st.none()},
    optional={"b": st.booleans(), "c": st.text(max_size=3) | st.integers(), "y": st.integers(0, 3),
              "t": st.integers(0, 2**33)},
).map(json.dumps)  # fmt: skip
ODD = st.sampled_from(
    ["", " ", "[1]", "{", "1", '{"a":1} {"a":2}', '{"a":NaN}', '{"a":-Infinity}', '{"a":1,"a":2}',
     '{"a":1e999}', '{"c":"\\ud800"}', '{"a":"\\u0031"}', "[" * 9999, '{"a":1', "nan", "null"]
)  # fmt: skip


@given(st.lists(st.one_of(GOOD, OBJECTS, ODD), max_size=5))
def test_json_pieces_and_lines_agree(lines: list[str]) -> None:
    assert_same(JsonDecoder, "\n".join(lines).encode())


@given(st.lists(GOOD, max_size=5))
def test_clean_json_is_decoded_by_typed_records(lines: list[str]) -> None:
    assert JsonDecoder(Schema.from_config(TABLE)).whole("\n".join(lines).encode()) is not None


@given(st.lists(st.binary(max_size=30), max_size=4))
def test_json_pieces_and_lines_agree_on_any_bytes(lines: list[bytes]) -> None:
    assert_same(JsonDecoder, b"\n".join(b'{"c":"' + line + b'","a":1}' for line in lines))


def test_one_bad_line_costs_one_row_and_its_place_is_told() -> None:
    rows = [b"1,true,x,2020-01-01,1,0", b"1,true,x", b"2,maybe,new,2020-01-01,1,1",
            b"3,0,z,2020-01-01,-2,1", b"inf,0,z,2020-01-01,2,1",
            b"4,0,z,2020-01-02,2,1"]  # fmt: skip
    chunk, block, tables = outcome(csv_decoder, b"\n".join(rows) + b"\n", by_line=False)
    assert block.X[:, 0].tolist() == [1.0, 4.0]
    assert [(before, r.position, r.reason) for before, r in chunk.rejects] == [
        (1, 8, "must have 6 fields, got 3"),
        (1, 9, "feature 'b' must be true or false, got 'maybe'"),
        (1, 10, "weight 'w' must be >= 0, got -2.0"),
        (1, 11, "feature 'a' must be finite, got 'inf'"),
    ]
    assert [r.raw for _, r in chunk.rejects] == rows[1:5]
    assert tables[0]["columns"]["categories"] == [["x", "z"]]  # "new" never entered


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('a,"b ""c"" d",e', ["a", 'b "c" d', "e"]),
        ('"",x', ["", "x"]),
        ('a,b"c', ["a", 'b"c']),
        ('"x\ny",', ["x\ny", ""]),
        ("", [""]),
    ],
)
def test_fields(text: str, fields: list[str]) -> None:
    assert fields_of(text, ",") == fields


def test_an_open_quote_and_text_behind_a_quote_are_told_apart() -> None:
    with pytest.raises(Unfinished, match="must be closed within 64 lines"):
        fields_of('a,"b', ",")
    with pytest.raises(Misfit, match="must end before the delimiter"):
        fields_of('"a"b,c', ",")


def split_of(data: bytes, final: bool = True) -> Any:
    schema = Schema.from_config({"features": {"a": "number", "b": "category"}})
    return CsvDecoder(schema, ["a", "b"], ",").split(data, 2, final)


def test_a_quoted_line_end_belongs_to_its_record() -> None:
    split = split_of(b'1,"x\r\ny"\r\n2,z\n')
    assert split.columns == {"a": ["1", "2"], "b": ["x\r\ny", "z"]}
    assert [place.line for place in split.places] == [2, 4]


def test_an_unclosed_quote_costs_its_own_line() -> None:
    lines = [b'1,"open'] + [b"%d,v" % i for i in range(80)]
    split = split_of(b"\n".join(lines) + b"\n")
    assert [(place.line, reason) for place, reason in split.refused] == [
        (2, "a quoted field must be closed within 64 lines")
    ]
    assert split.columns["a"] == [str(i) for i in range(80)]


def test_a_record_still_open_at_the_end_of_a_piece_is_left_for_the_next() -> None:
    split = split_of(b'1,x\n2,"open\n', final=False)
    assert (split.columns["a"], split.consumed, split.next_line) == (["1"], 4, 3)


def test_nan_json_is_missing_and_infinity_is_rejected() -> None:
    chunk, block, _ = outcome(JsonDecoder, b'{"a": NaN}\n{"a": Infinity}\n', by_line=False)
    assert block.n == 1
    assert math.isnan(block.X[0, 0])
    assert chunk.rejects[0][1].reason == "feature 'a' must be finite, got inf"


TOKENS = st.one_of(
    *(st.tuples(st.just(name), values)
      for name, values in zip(NAMES, [NUMBERS, BOOLEANS, WORDS, TIMES, NUMBERS, CLASSES],
          strict=True))
)  # fmt: skip


@given(TOKENS)
def test_each_single_value_means_the_same_both_ways(pair: tuple[str, str]) -> None:
    """One odd cell in a line that is otherwise clean: the column-wise way takes it where it can."""
    name, text = pair
    cells = dict(zip(NAMES, ["1", "true", "x", "2020-01-01", "1", "0"], strict=True)) | {name: text}
    assert_same(csv_decoder, ",".join(cells.values()).encode() + b"\n1,0,y,2020-01-02,1,1\n")


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\t"])
def test_any_name_may_be_a_key(name: str) -> None:
    schema = Schema.from_config({"features": {name: "number", "b": "category"}})
    rows = [{name: 1.5, "b": "u"}, {"b": "v"}, {name: 2, "b": "u"}]
    data = "".join(json.dumps(row) + "\n" for row in rows) + "[]\n"
    chunk, _, _ = decode_piece(JsonDecoder(schema), "p", data.encode(), 0, 1, True)
    block = chunk.decoded.take(0, 3)
    np.testing.assert_array_equal(block.X, [[1.5, 0.0], [math.nan, 1.0], [2.0, 0.0]])
    assert [reject.position for _, reject in chunk.rejects] == [4]


TWICE = {
    "group": "a", "time": "t", "time_unit": "ns",
    "features": {"a": "number", "t": "number"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("make", "line", "bad"),
    [
        (lambda schema: CsvDecoder(schema, ["a", "t"], ","), "{},{}\n", "x,1\n"),
        (JsonDecoder, '{{"a": {}, "t": {}}}\n', "[]\n"),
    ],
)
def test_a_column_of_two_uses_means_the_same_whatever_stands_beside_it(
    make: Callable[[Schema], LineDecoder], line: str, bad: str
) -> None:
    """A bad line in a piece sends all of it the slow way; neither group nor time may notice."""
    rows = [("1.50", 2**60 + 1), ("1E+2", 2**60 + 3), ("3", 5)]
    good = "".join(line.format(*row) for row in rows)
    for data in (good, good + bad):
        decoder = make(Schema.from_config(TWICE))
        block = decode_piece(decoder, "p", data.encode(), 0, 1, True)[0].decoded.take(0, 3)
        assert block.groups is not None
        assert block.times is not None
        assert block.groups.tolist() == ["1.5", 100, 3]
        assert block.times.tolist() == [2**60 + 1, 2**60 + 3, 5]


@pytest.mark.parametrize("make", [csv_decoder, JsonDecoder])
def test_a_boolean_of_two_uses_too(make: Callable[[Schema], LineDecoder]) -> None:
    for bad in ("", "no record at all\n"):
        schema = Schema.from_config({"group": "b", "features": {"b": "boolean"}})
        lines = ["True", "0", ""] if make is csv_decoder else ['"True"', "0", "null"]
        form = "1,{},c,,1,y\n" if make is csv_decoder else '{{"b": {}}}\n'
        data = "".join(form.format(value) for value in lines) + bad
        block = decode_piece(make(schema), "p", data.encode(), 0, 1, True)[0].decoded.take(0, 3)
        assert block.groups is not None
        assert block.groups.tolist() == ["true", "false", None]
