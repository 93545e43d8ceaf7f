"""Messages to rows: formats, the columns of a record, and the order in which tables grow."""

import json
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlearn import schema_text
from streamlearn.block import NO_TIME
from streamlearn.connectors.kafka.decode import MessageDecoder, MessageRows, Messages
from streamlearn.connectors.kafka.plain_formats import CsvMessages, FloatMessages, JsonMessages
from streamlearn.connectors.kafka.wire import Headers
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_columns import Part, decode_columns, interleaved
from streamlearn.schema_text import TextColumns

NOW = 1_700_000_000_000_000_000


def schema(features: dict[str, Any], **more: Any) -> Schema:
    return Schema.from_config({"features": features} | more)


def messages(
    values: Sequence[bytes],
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Headers] | None = None,
) -> Messages:
    n = len(values)
    times = NOW + np.arange(n) * 10**9
    return Messages("t", 3, np.arange(n) + 100, times, values, keys, headers)


def decoded(
    made: Schema, decoder: MessageDecoder, given_: Messages
) -> tuple[list[list[Any]], dict[int, str]]:
    """The rows of X, and the reasons."""
    found, misfits = MessageRows(made, decoder).decode(given_)
    return found.take(0, found.n).X.tolist(), misfits


# -- JSON ------------------------------------------------------------------------------------------

PLAIN = {"a": "number", "b": "boolean", "c": "category", "d": "number"}

ODD = {  # a value -> its row (a, b, d), or the reason against it
    b'{"a": 1, "b": true, "c": "u", "d": 2.5}': (1.0, 1.0, 2.5),
    b'{"d": null, "a": 2, "more": {"a": 7}}': (2.0, math.nan, math.nan),
    b"{}": (math.nan, math.nan, math.nan),
    b'{"a": "3.5", "b": "false"}': (3.5, 0.0, math.nan),
    b'{"a": true, "d": NaN}': (1.0, math.nan, math.nan),
    b'{"a": "x"}': "feature 'a' must be a number, got 'x'",
    b'{"a": Infinity}': "feature 'a' must be finite, got inf",
    b'{"a": 1e999}': "feature 'a' must be finite, got inf",
    b'{"a": [1]}': "feature 'a' must be a number, got [1]",
    b'{"b": 3}': "feature 'b' must be true or false, got 3",
    b"[1, 2]": "must be a JSON object, got list",
    b"3": "must be a JSON object, got int",
    b"": "must be JSON: Expecting value at character 1",
    b'{"a": 1': "must be JSON: Expecting ',' delimiter at character 8",
    b'{"a": "\xff"}': "must be UTF-8",
    b'{"a": 1}{"a": 2}': "must be JSON: Extra data at character 9",
    b"[" * 200_000: "must be JSON: nested too deeply, or a number too long",
    b'{"a": 1' + b"0" * 400 + b"}": "feature 'a' must be finite, got 1" + "0" * 56 + "...",
}


def expected(values: Sequence[bytes]) -> tuple[list[tuple[float, ...]], dict[int, str]]:
    rows = [ODD[value] for value in values if not isinstance(ODD[value], str)]
    reasons = {i: str(ODD[v]) for i, v in enumerate(values) if isinstance(ODD[v], str)}
    return rows, reasons  # type: ignore[return-value]  # what is no text is a row


@given(st.lists(st.sampled_from(sorted(ODD)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_what_a_json_message_gives_depends_on_no_other(values: list[bytes]) -> None:
    made = schema(PLAIN)
    rows, misfits = decoded(made, JsonMessages(made), messages(values))
    wanted, reasons = expected(values)
    assert misfits == reasons
    np.testing.assert_array_equal([[r[0], r[1], r[3]] for r in rows] or np.empty((0, 3)),
                                  wanted or np.empty((0, 3)))  # fmt: skip


def test_many_json_messages_are_those_that_python_reads() -> None:
    rng = np.random.default_rng(0)
    records = [
        {f"x{j}": None if rng.random() < 0.001 else rng.normal() for j in range(5)} | {"id": i}
        for i in range(1000)
    ]
    made = schema({f"x{j}": "number" for j in range(5)}, id="id")
    found, misfits = MessageRows(made, JsonMessages(made)).decode(
        messages([json.dumps(record).encode() for record in records])
    )
    block = found.take(0, 1000)
    wanted = [[math.nan if r[f"x{j}"] is None else r[f"x{j}"] for j in range(5)] for r in records]
    np.testing.assert_array_equal(block.X, wanted)
    assert block.ids is not None
    assert block.ids.tolist() == list(range(1000))
    assert misfits == {}


# -- kernels ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernels() -> Iterator[list[int]]:
    """Messages however few are tried by the kernels; the numbers of rows that these took."""
    took: list[int] = []
    real = TextColumns._table

    def noted(columns: TextColumns, *given_: Any) -> Any:
        found = real(columns, *given_)
        took.append(-1 if found is None else found.n)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema_text, "LEAST_BYTES", 0)
        patch.setattr(schema_text, "_AGAIN", 0)
        patch.setattr(TextColumns, "_table", noted)
        yield took


PLAIN_JSON = {  # a value -> its row (a, c, d)
    b'{"a": 1, "c": "u", "d": 2.5}': (1.0, 0.0, 2.5),
    b'{"d":-0.125,"a":1e3 , "more": "x"}': (1000.0, math.nan, -0.125),
    b'{"c": null, "d": null}\r': (math.nan, math.nan, math.nan),
    b'{"c": "u"}': (math.nan, 0.0, math.nan),
}
OTHER_JSON = {  # what is a message by itself and none on a line among others
    b'{"a": 1,\n "d": 2}': (1.0, math.nan, 2.0),
    b'{"a": 4}\n': (4.0, math.nan, math.nan),
    b'{"a": "3.5"}': (3.5, math.nan, math.nan),
    b"": "must be JSON: Expecting value at character 1",
    b"\r": "must be JSON: Expecting value at character 2",
    b'{"a": 1}\n{"a": 2}': "must be JSON: Extra data at character 10",
    b'{"a": "\xff"}': "must be UTF-8",
}


@pytest.mark.jit
@given(st.lists(st.sampled_from(sorted({**PLAIN_JSON, **OTHER_JSON})), max_size=9))
@settings(max_examples=60, deadline=None)
def test_json_messages_read_by_kernels_are_those_read_one_by_one(
    kernels: list[int], values: list[bytes]
) -> None:
    made = schema({"a": "number", "c": "category", "d": "number"})
    table: dict[bytes, Any] = {**PLAIN_JSON, **OTHER_JSON}
    kernels.clear()
    rows, misfits = decoded(made, JsonMessages(made), messages(values))
    wanted = [table[value] for value in values if not isinstance(table[value], str)]
    assert misfits == {i: table[v] for i, v in enumerate(values) if isinstance(table[v], str)}
    np.testing.assert_array_equal(rows or np.empty((0, 3)), wanted or np.empty((0, 3)))
    if values and all(value in PLAIN_JSON for value in values):
        assert kernels == [len(values)]


@pytest.mark.jit
def test_columns_of_the_record_stand_beside_what_kernels_read(kernels: list[int]) -> None:
    made = schema({"a": "number", "$partition": "number"}, id="$offset", time="$timestamp")
    kernels.clear()
    found, misfits = MessageRows(made, JsonMessages(made)).decode(
        messages([b'{"a": 1}', b'{"a": 2}'])
    )
    block = found.take(0, 2)
    assert kernels == [2]
    assert (block.X.tolist(), misfits) == ([[1.0, 3.0], [2.0, 3.0]], {})
    assert block.ids is not None
    assert block.ids.tolist() == [100, 101]


@pytest.mark.jit
@given(st.lists(st.sampled_from([b"1,u", b"2.5,v", b",u", b"3", b'4,"w"', b"", b"5,u\n", b"x,u"])))
@settings(max_examples=60, deadline=None)
def test_csv_messages_read_by_kernels_are_those_read_one_by_one(
    kernels: list[int], values: list[bytes]
) -> None:
    good = {b"1,u": (1.0, "u"), b"2.5,v": (2.5, "v"), b",u": (math.nan, "u"), b'4,"w"': (4.0, "w"),
            b"5,u\n": (5.0, "u")}  # fmt: skip
    bad = {b"3": "must have 2 fields, got 1", b"": "must have 2 fields, got 1",
           b"x,u": "feature 'a' must be a number, got 'x'"}  # fmt: skip
    made = schema({"a": "number", "c": "category"})
    kernels.clear()
    rows, misfits = decoded(made, CsvMessages(made, ["a", "c"]), messages(values))
    assert misfits == {i: bad[value] for i, value in enumerate(values) if value in bad}
    codes = made.columns.categories["c"].values
    wanted = [good[value] for value in values if value in good]
    np.testing.assert_array_equal([row[0] for row in rows], [a for a, _ in wanted])
    assert [codes[int(row[1])] for row in rows] == [c for _, c in wanted]
    if values and not any(value in bad or b"\n" in value for value in values):
        assert kernels == [len(values)]


# -- CSV and raw arrays ----------------------------------------------------------------------------


def test_csv_messages_are_single_records() -> None:
    made = schema({"a": "number", "c": "category"}, id="id")
    values = [b"1,u,7\n", b'2.5,"v,""w",8', b",,9\r\n", b"1,2", b"x,u,1", b"1,\xff,1", b'1,"u',
              b"1,u,2\n3,v,4"]  # fmt: skip
    found, misfits = MessageRows(made, CsvMessages(made, ["a", "c", "id"])).decode(messages(values))
    block = found.take(0, found.n)
    np.testing.assert_array_equal(block.X[:, 0], [1.0, 2.5, math.nan])
    assert block.features.categories["c"].values == ["u", 'v,"w']
    assert block.ids is not None
    assert block.ids.tolist() == [7, 8, 9]
    assert misfits[3] == "must have 3 fields, got 2"
    assert misfits[4] == "feature 'a' must be a number, got 'x'"
    assert misfits[5].startswith("column 'c' must be UTF-8")
    assert misfits[6].startswith("a quoted field must be closed")
    assert sorted(misfits) == [3, 4, 5, 6, 7]


@given(st.lists(st.sampled_from([b"1,u", b"2.5,v", b"inf,u", b",", b"3", b'4,"w"', b"", b"\n"])))
@settings(max_examples=60, deadline=None)
def test_what_a_csv_message_gives_depends_on_no_other(values: list[bytes]) -> None:
    made = schema({"a": "number", "c": "category"})
    decoder = CsvMessages(made, ["a", "c"])
    together = decoded(made, decoder, messages(values))
    alone = [decoded(schema({"a": "number", "c": "category"}), decoder, messages([v]))
             for v in values]  # fmt: skip
    rows = [row[0] for found, _ in alone for row in found]
    np.testing.assert_array_equal([row[0] for row in together[0]], rows)
    assert together[1] == {i: bad[0] for i, (_, bad) in enumerate(alone) if bad}


@pytest.mark.parametrize(("kind", "letter"), [("float32", "f"), ("float64", "d")])
def test_raw_arrays_are_numbers_in_the_order_of_the_schema(kind: str, letter: str) -> None:
    made = schema({"a": "number", "b": "boolean"}, target="y", task="regression")
    packed = struct.Struct(f"<3{letter}")
    values = [packed.pack(1.5, 1.0, -2.0), b"123", packed.pack(math.nan, 0.0, math.nan),
              packed.pack(math.inf, 0.0, 1.0)]  # fmt: skip
    found, misfits = MessageRows(made, FloatMessages(made, kind)).decode(messages(values))
    block = found.take(0, found.n)
    np.testing.assert_array_equal(block.X, [[1.5, 1.0], [math.nan, 0.0]])
    np.testing.assert_array_equal(block.y, [-2.0, math.nan])
    assert misfits == {
        1: f"must be {packed.size} bytes (3 numbers), got 3",
        3: "feature 'a' must be finite, got inf",
    }


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda made: FloatMessages(made, "float64"), struct.pack("<2d", 1.5, 1_700_000_000.0)),
        (JsonMessages, b'{"a": 1.5, "at": 1700000000}'),
        (lambda made: CsvMessages(made, ["a", "at"]), b"1.5,1700000000"),
    ],
)
def test_a_feature_may_be_the_time_as_well(make: Any, value: bytes) -> None:
    made = schema({"a": "number", "at": "number"}, time="at")
    found, misfits = MessageRows(made, make(made)).decode(messages([value]))
    block = found.take(0, 1)
    assert not misfits
    assert block.times is not None
    assert block.X.tolist() == [[1.5, 1_700_000_000.0]]
    assert block.times.tolist() == [1_700_000_000_000_000_000]


def test_formats_name_what_they_lack() -> None:
    made = schema({"a": "number", "b": "number"})
    with pytest.raises(UserError, match=r"^format: csv needs the names of its fields; give col"):
        CsvMessages(made, [])
    with pytest.raises(UserError, match=r"^format: columns must hold 'b' of the schema; the col"):
        FloatMessages(made, "float32", ["a", "c"])
    with pytest.raises(UserError, match=r"^format: columns must differ from each other, got a, b"):
        FloatMessages(made, "float32", ["a", "b", "a"])


# -- columns of the record -------------------------------------------------------------------------


def test_a_record_has_columns_of_its_own() -> None:
    made = schema(
        {"$header.shop": "category", "$topic": "category", "$partition": "number", "x": "number",
         "$timestamp": {"kind": "time", "parts": ["epoch"]}},
        id="$offset", key="$key", time="$timestamp",
    )  # fmt: skip
    given_ = messages(
        [b'{"x": 1, "$key": 5}', b"{}", b"{}", b"{}"],
        [b"12", None, b"\xff", b"k"],
        [[("shop", b"a"), ("shop", b"b")], [("shop", None)], [], [("shop", b"\xff")]],
    )
    found, misfits = MessageRows(made, JsonMessages(made)).decode(given_)
    block = found.take(0, found.n)
    np.testing.assert_array_equal(block.X[0], [0.0, 0.0, 3.0, 1.0, NOW / 1e9])
    np.testing.assert_array_equal(block.X[1], [math.nan, 0.0, 3.0, math.nan, NOW / 1e9 + 1])
    assert block.features.categories["$header.shop"].values == ["b"]
    assert block.features.categories["$topic"].values == ["t"]
    assert block.ids is not None
    assert block.keys is not None
    assert block.times is not None
    assert (block.ids.tolist(), block.keys.tolist()) == ([100, 101], [12, None])
    assert block.times.tolist() == [NOW, NOW + 10**9]
    assert misfits == {2: "key must be UTF-8", 3: "header 'shop' must be UTF-8"}


def test_a_timestamp_may_be_a_number_of_milliseconds() -> None:
    made = schema({"$timestamp": "number"})
    rows, _ = decoded(made, JsonMessages(made), messages([b"{}", b"{}"]))
    assert rows == [[NOW / 1e6], [NOW / 1e6 + 1000]]
    both = schema({"$timestamp": "number"}, time="$timestamp")
    with pytest.raises(UserError, match=r"^schema: feature '\$timestamp' is the time as well, so"):
        MessageRows(both, JsonMessages(both))


def test_a_record_without_a_timestamp_has_no_time() -> None:
    made = schema({"x": "number"}, time="$timestamp")
    given_ = messages([b"{}"])._replace(times=np.array([NO_TIME]))
    _, misfits = decoded(made, JsonMessages(made), given_)
    assert misfits == {0: "time '$timestamp' must be there, got no value"}


def test_another_name_with_a_dollar_is_refused() -> None:
    made = schema({"$value": "number"})
    with pytest.raises(UserError, match=r"^schema: there is no column '\$value' of a record; ther"):
        MessageRows(made, JsonMessages(made))


# -- rows of several partitions --------------------------------------------------------------------

CELLS = st.fixed_dictionaries(
    {
        "c": st.sampled_from(["u", "v", "w", "z", None]),
        "e": st.sampled_from([1, 2, "one", None]),
        "x": st.one_of(st.none(), st.integers(-3, 3)),
        "y": st.sampled_from(["yes", "no", "perhaps", None]),
        "id": st.integers(0, 99),
        "w": st.lists(st.sampled_from(["red", "green", "blue"]), max_size=3),
    }
)
WOVEN: dict[str, Any] = {
    "features": {"c": "category", "e": "category", "x": "number",
                 "w": {"kind": "words", "buckets": 8}},
    "target": "y", "task": "classification", "id": "id",
}  # fmt: skip


def columns_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in ("c", "e", "x", "y", "id", "w")}


@given(st.lists(st.lists(CELLS, max_size=8), min_size=1, max_size=4), st.data())
@settings(max_examples=80, deadline=None)
def test_rows_of_parts_are_as_if_decoded_in_their_order(
    lanes: list[list[dict[str, Any]]], data: st.DataObject
) -> None:
    """Cut anywhere: values, codes, classes and their tables, of the merged rows."""
    lane_of = data.draw(st.permutations([i for i, rows in enumerate(lanes) for _ in rows]))
    cuts = data.draw(st.lists(st.integers(0, len(lane_of)), max_size=3))
    woven, plain = Schema.from_config(WOVEN), Schema.from_config(WOVEN)
    at, merged = [0] * len(lanes), []
    for lane in lane_of:
        merged.append(lanes[lane][at[lane]])
        at[lane] += 1
    parts = [decode_columns(woven, columns_of(rows), len(rows))[0] for rows in lanes]
    wanted = decode_columns(plain, columns_of(merged), len(merged))[0]
    at = [0] * len(lanes)
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(merged)], strict=True):
        order = lane_of[start:stop]
        used = sorted(set(order)) or [0]
        chosen = [Part(parts[i], at[i], at[i] + order.count(i)) for i in used]
        block = interleaved(chosen, np.array([used.index(i) for i in order], dtype=np.intp))
        for i in used:
            at[i] += order.count(i)
        whole = wanted.take(start, stop)
        np.testing.assert_array_equal(block.X, whole.X)
        np.testing.assert_array_equal(block.y, whole.y)
        np.testing.assert_array_equal(block.mode, whole.mode)
        np.testing.assert_array_equal(block.ids, whole.ids)
        assert block.sparse is not None
        assert whole.sparse is not None
        np.testing.assert_array_equal(block.sparse.dense(), whole.sparse.dense())
    assert woven.state().table == plain.state().table
