"""Schemas: what a value means, what is inferred, what is refused, what is kept for later."""

import datetime
import math
import zlib
from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn import schema_cells as cells
from streamlearn.block import NO_TIME, Features, Vocabulary
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_cells import Misfit
from streamlearn.schema_columns import decode_columns

NO_TOKENS: tuple[str, ...] = ()


def one(kind: Any, *values: Any, **more: Any) -> Any:
    """The block of records with one feature "f" and these values."""
    schema = Schema.from_config({"features": {"f": kind}} | more)
    block, rejects = schema.decode([{"f": value} for value in values])
    assert rejects == []
    return block


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3.0), (-0.0, -0.0), (True, 1.0), (1e300, 1e300), (2**53 + 1, 9007199254740992.0),
        (2**70, 2.0**70), (Decimal("0.1"), 0.1), (np.float32(0.5), 0.5), (np.int8(-3), -3.0),
        ("1e300", 1e300), (" 1.5\t", 1.5), ("+2", 2.0), (".5", 0.5), ("5.", 5.0), ("007", 7.0),
        ("9007199254740993", 9007199254740992.0), ("1e-400", 0.0),
    ],
)  # fmt: skip
def test_numbers(value: Any, expected: float) -> None:
    assert cells.number(value, NO_TOKENS) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        math.nan,
        np.float32("nan"),
        pd.NA,
        pd.NaT,
        Decimal("NaN"),
        "",
        "?",
        " NA ",
        "-nan",
        "NULL",
    ],
)
def test_missing_numbers(value: Any) -> None:
    assert math.isnan(cells.number(value, cells.MISSING))


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("abc", "must be a number, got 'abc'"), ("1_0", "must be a number, got '1_0'"),
        ("0x1f", "must be a number"), ("1,5", "must be a number"), ("true", "must be a number"),
        ("٣", "must be a number"), ([1], r"must be a number, got \[1\]"),
        (math.inf, "must be finite, got inf"), ("-Infinity", "must be finite"),
        ("1e400", "must be finite"), (10**400, "must be finite"),
        (datetime.date(2020, 1, 1), "number"),
        ("x" * 100, r"got 'x{56}\.\.\."),
    ],
)  # fmt: skip
def test_misfits_among_numbers(value: Any, rule: str) -> None:
    with pytest.raises(Misfit, match=rule):
        cells.number(value, cells.MISSING)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_printed_float_comes_back_with_its_bits(value: float) -> None:
    assert cells.number(repr(value), NO_TOKENS).hex() == value.hex()


@given(st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)))  # noqa: DTZ001  # naive on purpose
def test_times_agree_with_pandas_in_every_form(moment: datetime.datetime) -> None:
    expected = pd.Timestamp(moment).as_unit("ns").value
    assert cells.time(moment, NO_TOKENS, "s") == expected
    assert cells.time(moment.isoformat(), NO_TOKENS, "s") == expected
    assert cells.time(np.datetime64(moment), NO_TOKENS, "s") == expected
    assert cells.time(f"{moment.isoformat(' ')}+02:30", NO_TOKENS, "s") == expected - 9000 * 10**9
    assert cells.time(expected // 1000, NO_TOKENS, "us") == expected


@pytest.mark.parametrize(
    "value", ["2020-02-30", "2020-01-01T25:00", "yesterday", True, "1500-01-01", 1e30]
)
def test_misfits_among_times(value: Any) -> None:
    with pytest.raises(Misfit):
        cells.time(value, NO_TOKENS, "s")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        ("3.0", "3.0"),
        (3, "3"),
        (3.0, "3"),
        (0.5, "0.5"),
        (True, "true"),
        (None, None),
        ("?", None),
    ],
)
def test_categories_by_their_text(value: Any, text: str | None) -> None:
    assert cells.category(value, cells.MISSING) == text


@pytest.mark.parametrize(
    ("value", "classes", "expected"),
    [
        ("1", "text", "1"), (1, "text", "1"), ("1", "integer", 1), ("1.0", "integer", 1),
        (1.0, "integer", 1), (True, "integer", 1), ("late", "integer", "late"),
        (2.5, "integer", "2.5"),
        ("True", "boolean", True), (0, "boolean", False), ("maybe", "boolean", "maybe"),
        (math.nan, "integer", None), ("NA", "text", None),
    ],
)  # fmt: skip
def test_classes_are_what_the_schema_reads(value: Any, classes: str, expected: Any) -> None:
    got = cells.class_of(value, cells.MISSING, classes)
    assert got == expected
    assert type(got) is type(expected)


def test_ids_that_read_as_integers_are_integers() -> None:
    schema = Schema.from_config({"id": "i", "key": "k", "features": {"a": "number"}})
    rows: list[dict[str, Any]] = [
        {"i": "17", "k": 1.0},
        {"i": 17, "k": "x"},
        {"i": "017", "k": None},
        {"i": "17", "k": "7"},
    ]
    block, _ = schema.decode(rows)
    assert block.ids is not None
    assert block.keys is not None
    assert block.ids.tolist() == [17, 17, "017", 17]  # duplicate ids are passed on
    assert block.keys.tolist() == [1, "x", None, 7]


# -- columns ---------------------------------------------------------------------------------------

ARROW = [
    pa.array([1, None, 2**60 + 1], pa.int64()), pa.array([1, 2**64 - 1], pa.uint64()),
    pa.array([1.5, None, math.nan, math.inf]), pa.array([0.1, None], pa.float32()),
    pa.array([True, None, False]), pa.array([None, None]), pa.array(["1", " 2", "x", None, "inf"]),
    pa.array(["a", None, "b", "a"]).dictionary_encode(), pa.array([Decimal("1.10"), None]),
    pa.array([datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), None]), pa.array([[1], None]),
    pa.array([datetime.date(2020, 1, 1), None]), pa.array([10**15, None], pa.timestamp("us")),
    pa.array(["2020-01-01", "2020-01-01T00:00Z"]), pa.array([b"bytes"]),
    *(
        pa.DictionaryArray.from_arrays(pa.array([5, 3, 0, 3, 1], pa.int8()), pa.array(values))[1:]
        for values in (["b", "never", "a", "?", "b", "cut"], [1.5, 2.0, 0.0, None, 7.0, 8.0],
                       ["b", *map(str, range(8))])
    ),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["number", "boolean", "category", "time", "text", "words"])
@pytest.mark.parametrize("column", ARROW, ids=lambda column: str(column.type))
def test_arrow_columns_mean_what_their_values_mean(kind: str, column: pa.Array) -> None:
    """The fast ways against the same values one by one, for every kind and every Arrow type."""
    table = {"features": {"f": kind}}
    decoded, misfits = decode_columns(Schema.from_config(table), {"f": column}, len(column))
    schema = Schema.from_config(table)
    block, rejects = schema.decode([{"f": value} for value in column.to_pylist()])
    got = decoded.take(0, decoded.n)
    np.testing.assert_array_equal(got.X, block.X)
    assert misfits == {reject.position: reject.reason for reject in rejects}
    assert got.features.to_json() == block.features.to_json()
    if got.sparse is not None:
        assert block.sparse is not None
        np.testing.assert_array_equal(got.sparse.dense(), block.sparse.dense())


def test_rejected_rows_leave_no_trace_in_the_tables() -> None:
    table = {"target": "y", "task": "classification", "features": {"a": "number", "c": "category"}}
    schema = Schema.from_config(table)
    rows: list[dict[str, Any]] = [
            {"a": "bad", "c": "never", "y": "no"}, {"a": 1, "c": "z", "y": "p"},
            {"a": math.inf, "c": "never", "y": "no"}, {"a": 2, "c": "b", "y": None},
            {"a": 3, "c": ["l"], "y": "q"}, {"a": 4, "c": "z", "y": math.inf}]  # fmt: skip
    block, rejects = schema.decode(rows)
    assert schema.columns.categories["c"].values == ["z", "b"]
    assert schema.labels is not None
    assert schema.labels.values == ["p"]
    assert block.X.tolist() == [[1.0, 0.0], [2.0, 1.0]]
    assert block.mode.tolist() == [7, 5]
    assert [(r.position, r.reason) for r in rejects] == [
        (0, "feature 'a' must be a number, got 'bad'"),
        (2, "feature 'a' must be finite, got inf"),
        (4, "feature 'c' must be text, a number or a boolean, got ['l']"),
        (5, "target 'y' must be finite, got inf"),
    ]
    assert rejects[0].raw == b'{"a": "bad", "c": "never", "y": "no"}'


def test_codes_follow_the_accepted_rows_alone() -> None:
    schema = Schema.from_config({"features": {"a": "number", "c": "category"}})
    rows: list[dict[str, Any]] = [{"a": "bad", "c": "p"}, {"a": 1, "c": "q"}, {"a": 2, "c": "p"}]
    block, _ = schema.decode(rows)
    assert schema.columns.categories["c"].values == ["q", "p"]
    assert block.X[:, 1].tolist() == [0.0, 1.0]


def test_the_parts_of_a_time() -> None:
    moment = datetime.datetime(2024, 2, 29, 18, 45, 30, tzinfo=datetime.UTC)  # a Thursday
    parts = [
        "epoch",
        "hour",
        "weekday",
        "day",
        "month",
        "hour_cyclic",
        "weekday_cyclic",
        "month_cyclic",
    ]
    block = one({"kind": "time", "parts": parts}, moment, None)
    turns = [(18 * 60 + 45) / 1440, 3 / 7, 1 / 12]
    cyclic = [f(2 * math.pi * turn) for turn in turns for f in (math.sin, math.cos)]
    np.testing.assert_allclose(
        block.X[0], [moment.timestamp(), 18, 3, 29, 2, *cyclic], rtol=1e-15, atol=1e-15
    )
    assert np.isnan(block.X[1]).all()
    assert block.features.names == (
        "f_epoch", "f_hour", "f_weekday", "f_day", "f_month", "f_hour_sin", "f_hour_cos",
        "f_weekday_sin", "f_weekday_cos", "f_month_sin", "f_month_cos",
    )  # fmt: skip


@given(st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)))  # noqa: DTZ001  # naive on purpose
def test_the_calendar_agrees_with_python(moment: datetime.datetime) -> None:
    block = one({"kind": "time", "parts": ["hour", "weekday", "day", "month"]}, moment)
    assert block.X[0].tolist() == [moment.hour, moment.weekday(), moment.day, moment.month]


def test_text_is_counted_in_hashed_buckets() -> None:
    text = "To be, or not to be: Ärger 42"
    block = one({"kind": "text", "buckets": 16}, text, None, "")
    words = ["to", "be", "or", "not", "to", "be", "ärger", "42"]
    expected = np.zeros((3, 16))
    for bucket, count in Counter(zlib.crc32(w.encode()) % 16 for w in words).items():
        expected[0, bucket] = count
    np.testing.assert_array_equal(block.sparse.dense(), expected)
    assert block.X.shape == (3, 0)


def test_bags_of_words_hold_0_for_what_is_not_there() -> None:
    bags = [[0, 3, 3], {"2": 1.5, "x": None}, None, "x y", {1: 2}]
    block = one({"kind": "words", "buckets": 5}, *bags)
    expected = np.zeros((5, 5))
    expected[0, [0, 3]] = 1, 2
    expected[1, zlib.crc32(b"2") % 5] = 1.5
    for word in (b"x", b"y"):
        expected[3, zlib.crc32(word) % 5] += 1
    expected[4, 1] = 2
    np.testing.assert_array_equal(block.sparse.dense(), expected)


def test_two_sparse_features_lie_side_by_side() -> None:
    features = {"s": {"kind": "words", "buckets": 3}, "t": {"kind": "words", "buckets": 4}}
    schema = Schema.from_config({"features": features})
    block, _ = schema.decode([{"s": [2], "t": [0, 3]}])
    assert block.sparse is not None
    assert block.sparse.columns.tolist() == [2, 3, 6]
    assert block.sparse.width == schema.sparse_width == 7


def test_weight_and_time_of_the_record() -> None:
    table = {"weight": "w", "time": "t", "time_unit": "ms", "features": {"a": "number"}}
    schema = Schema.from_config(table)
    rows: list[dict[str, Any]] = [
        {"w": 2, "t": 5000},
        {"t": 4000},
        {"w": -1, "t": 1},
        {"w": 1e999, "t": 1},
        {"w": 0, "t": None},
    ]
    block, rejects = schema.decode(rows)
    assert block.weight.tolist() == [2.0, 1.0]
    assert block.times is not None
    assert block.times.tolist() == [5 * 10**9, 4 * 10**9]  # running backwards is passed on
    assert [r.reason for r in rejects] == [
        "weight 'w' must be >= 0, got -1.0",
        "weight 'w' must be finite, got inf",
        "time 't' must be there, got no value",
    ]


# -- inference -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2.5, None], "number"), (["1", "2e3", ""], "number"), ([True, None], "boolean"),
        (["true", "false"], "boolean"), (["0", "1"], "number"), (["01234", "99999"], "category"),
        (["a", "b", "a"], "category"), (["2024-01-01", "2024-01-02 10:00"], "time"),
        ([datetime.date(2020, 1, 1)], "time"), ([[1], [2]], "words"), ([1, math.inf], "number"),
        ([f"a text of many words {i}" for i in range(9)], "text"), (["1", "x"], "category"),
    ],
)  # fmt: skip
def test_kinds_that_values_suggest(values: list[Any], kind: str) -> None:
    rows = [{"f": value, "other": 1} for value in values]
    assert Schema.infer(rows).features["f"].kind == kind


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("f", [None] * 30, "no value in the first 30 rows"),
        ("user", [f"u{i}" for i in range(99)], "99 different texts in 99 rows"),
        ("row_id", list(range(30)), "it numbers the rows"),
    ],
)
def test_unsuitable_columns_are_left_out_and_said(name: str, values: list[Any], why: str) -> None:
    schema = Schema.infer([{name: value, "a": 1} for value in values])
    assert schema.ignore == (name,)
    assert f"ignored: {why}" in schema.describe()
    kept = Schema.infer([{name: value, "a": 1} for value in values], features=[name])
    assert list(kept.features) == [name]


@pytest.mark.parametrize(
    "value", [b"x", datetime.timedelta(seconds=1), datetime.time(1), {"host": "a"}, {1, 2}]
)
def test_values_that_no_kind_takes_are_no_feature_and_no_target(value: Any) -> None:
    rows = [{"f": value, "a": 1}] * 5
    schema = Schema.infer(rows)
    assert schema.ignore == ("f",)
    assert f"ignored: values such as {value!r} cannot be read" in schema.describe()
    with pytest.raises(UserError, match=r"^target: 'f' must be text or numbers, got "):
        Schema.infer(rows, target="f")


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["up", "down"], "classification", "text"), ([True, False], "classification", "boolean"),
        (["0", "1"], "classification", "integer"), ([0.0, 1.0], "classification", "integer"),
        ([1, 2, 3], "classification", "integer"), ([1.0, 2.0, 3.0], "regression", "text"),
        (list(range(21)), "regression", "text"), ([0.5, 1.0], "regression", "text"),
    ],
)  # fmt: skip
def test_the_task_is_guessed_and_said(values: list[Any], task: str, classes: str) -> None:
    schema = Schema.infer([{"a": 1, "y": value} for value in values], target="y")
    assert (schema.task, schema.classes) == (task, classes)
    assert schema.describe().splitlines()[0].startswith(f"y  target: {task}")
    assert "guessed" in schema.describe()


def test_only_the_first_1000_rows_are_looked_at() -> None:
    rows: list[dict[str, Any]] = [{"a": i} for i in range(1000)] + [{"a": "x", "b": 1}]
    assert Schema.infer(rows).to_config() == {"features": {"a": "number"}}


def test_asking_for_what_is_not_there() -> None:
    rows, there = [{"price": 1, "city": "x"}], "the columns are price, city"
    for asked, text in [
        ({"target": "prize"}, f"target: there is no column 'prize'; did you mean 'price'? {there}"),
        ({"features": ["q"]}, "features: there is no column 'q'; " + there),
        ({"ignore": ["q"]}, "ignore: there is no column 'q'; " + there),
        ({"id": "q"}, "id: there is no column 'q'; " + there),
        ({"target": "city", "task": "regression"},
         "task: regression needs numbers in 'city', got 'x'"),
        ({"target": "city", "task": "x"}, "task: must be classification or regression, got 'x'"),
        ({"ignore": ["price", "city"]}, "schema: no column can serve as a feature; " + there),
    ]:  # fmt: skip
        with pytest.raises(UserError) as caught:
            Schema.infer(rows, **asked)  # type: ignore[arg-type]
        assert str(caught.value) == text


# -- config, tables, state -------------------------------------------------------------------------

FULL = {
    "target": "y", "task": "classification", "classes": "integer", "id": "i", "key": "k",
    "time": "t", "time_unit": "ms", "weight": "w", "ignore": ["z"], "missing": ["", "-"],
    "features": {"a": "number", "t": {"kind": "time", "parts": ["hour"], "unit": "ms"},
                 "s": {"kind": "text", "buckets": 8}, "c": "category", "b": "boolean"},
}  # fmt: skip


def test_yaml_and_config_come_back() -> None:
    schema = Schema.from_config(FULL)
    assert schema.to_config() == FULL
    assert Schema.from_yaml(schema.to_yaml()).to_config() == FULL
    assert schema.wanted() == ["a", "t", "s", "c", "b", "y", "w", "i", "k"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"features": {"a": "numbr"}},
            "schema.features.a.kind: input should be 'number', 'category'",
        ),
        ({"features": {"a": "number"}, "targt": "y"}, "schema.targt: there is no such key"),
        (
            {"features": {"a": {"kind": "number", "parts": ["hour"]}}},
            "schema.features.a: parts and unit",
        ),
        (
            {"features": {"a": {"kind": "text", "buckets": 0}}},
            "schema.features.a: buckets must be from 1",
        ),
        (
            {"features": {"a": {"kind": "number", "buckets": 3}}},
            "schema.features.a: buckets is for",
        ),
        (
            {"features": {"a": "number"}, "target": "y"},
            "schema: target and task must be given together",
        ),
        (
            {"features": {"a": "number"}, "target": "a", "task": "regression"},
            "schema: target 'a' is among",
        ),
        ({"features": {"a": "number"}, "ignore": ["a"]}, "schema: ignore: 'a' is also used"),
        ({"features": {}}, "schema: features must name at least one column"),
        (
            {"features": {"t": "time", "t_hour_sin": "number"}},
            "schema: two features would fill a column 't_hour_sin'",
        ),
        ([], "schema: input should be"),
    ],
)
def test_mistakes_in_a_schema_have_their_path(table: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        Schema.from_config(table)
    assert str(caught.value).lower().startswith(message.lower())
    assert "\n" not in str(caught.value)


def test_state_goes_on_with_the_same_codes() -> None:
    table = {"target": "y", "task": "classification", "features": {"c": "category"}}
    first = Schema.from_config(table)
    first.decode([{"c": "p", "y": "u"}, {"c": "q", "y": "v"}])
    second = Schema.from_config(table)
    second.load(first.state())
    block, _ = second.decode([{"c": "q", "y": "v"}, {"c": "r", "y": "w"}])
    assert block.X[:, 0].tolist() == [1.0, 2.0]
    assert block.y.tolist() == [1.0, 2.0]
    assert first.columns.categories["c"].values == ["p", "q"]


def test_bind_continues_a_trained_pipeline_with_its_columns_first() -> None:
    trained = Features(["b", "c"], ["number", "category"], {"c": Vocabulary(["x"])})
    classes = Vocabulary([1, 0])
    table = {"target": "y", "task": "classification", "classes": "integer"}
    schema = Schema.from_config(
        table | {"features": {"a": "number", "c": "category", "b": "number"}}
    )
    schema.bind(trained, classes)
    block, _ = schema.decode([{"a": 1, "b": 2, "c": "z", "y": 0}])
    assert block.features.names == ("b", "c", "a")
    assert block.X.tolist() == [[2.0, 1.0, 1.0]]
    assert block.y.tolist() == [1.0]
    assert block.labels is classes
    assert trained.categories["c"].values == ["x", "z"]  # the table is shared, not copied


def test_bind_refuses_what_does_not_fit() -> None:
    schema = Schema.from_config({"target": "y", "task": "regression", "features": {"a": "number"}})
    with pytest.raises(UserError, match=r"trained with the column 'b'; the columns are a"):
        schema.bind(Features(["b"]), None)
    with pytest.raises(UserError, match=r"'a' must be a category as in training, got number"):
        schema.bind(Features(["a"], ["category"]), None)
    with pytest.raises(
        UserError, match=r"task is regression, but the pipeline was trained on classes"
    ):
        schema.bind(None, Vocabulary([0]))


def test_a_column_that_names_the_event_is_its_id() -> None:
    """All there and all different, under such a name; a gap or a repeat makes it no name."""
    ids = list(range(100, 160))
    texts = [f"{i:x}-event" for i in ids]

    def rows(**columns: list[Any]) -> list[dict[str, Any]]:
        table: dict[str, list[Any]] = {"a": [i % 7 for i in ids], "y": ["yes", "no"] * 30}
        table |= columns
        return [{name: values[t] for name, values in table.items()} for t in range(60)]

    found = Schema.infer(rows(id=ids), target="y")
    assert found.id == "id"
    assert "names the event" in found.describe()
    assert Schema.infer(rows(uuid=texts, id=ids), target="y", id="id").ignore == ("uuid",)
    repeated = Schema.infer(rows(id=[*texts[:-1], texts[0]]), target="y")
    assert repeated.id is None
    assert repeated.ignore == ("id",)


def test_group_and_label_time_are_read_beside_the_features() -> None:
    schema = Schema.from_config(
        {
            "target": "y", "task": "regression", "time": "t", "group": "c", "label_time": "k",
            "features": {"a": "number", "c": "category"},
        }
    )  # fmt: skip
    rows = [
        {"a": 1.0, "c": "x", "y": 2.0, "t": 1, "k": 5},
        {"a": 2.0, "c": "z", "y": 3.0, "t": 2, "k": None},
    ]
    block, rejects = schema.decode(rows)
    assert not rejects
    assert block.groups is not None
    assert block.label_times is not None
    assert list(block.groups) == ["x", "z"]
    assert block.X[:, 1].tolist() == [0.0, 1.0]
    assert block.label_times.tolist() == [5_000_000_000, NO_TIME]
    part = block.rows(1, 2)
    assert part.groups is not None
    assert list(part.groups) == ["z"]


def test_a_group_may_be_a_column_that_no_model_sees() -> None:
    table = {
        "target": "y", "task": "regression", "group": "c", "ignore": ["c"],
        "features": {"a": "number"},
    }  # fmt: skip
    block, _ = Schema.from_config(table).decode([{"a": 1.0, "c": "x", "y": 2.0}])
    assert block.d == 1
    assert block.groups is not None
    assert list(block.groups) == ["x"]


def test_what_says_no_value_says_so_of_a_boolean_too() -> None:
    schema = Schema.from_config({"features": {"b": "boolean"}, "missing": ["0", "NA"]})
    block, rejects = schema.decode([{"b": "1"}, {"b": " 0"}, {"b": "0"}, {"b": "NA"}])
    assert not rejects
    np.testing.assert_array_equal(block.X[:, 0], [1.0, math.nan, math.nan, math.nan])


def test_nothing_to_learn_from_says_why() -> None:
    with pytest.raises(UserError, match=r"as a feature; the columns are v; 'v': ignored: values "):
        Schema.infer([{"v": {"host": "a"}}] * 3)


@pytest.mark.parametrize("role", ["c", "y", "i", "k", "g"])
def test_half_of_a_character_is_no_text(role: str) -> None:
    """JSON can spell it; a Parquet file, a report and a terminal cannot hold it."""
    table = {
        "target": "y", "task": "classification", "id": "i", "key": "k", "group": "g",
        "features": {"c": "category"},
    }  # fmt: skip
    rows = [dict.fromkeys("cyikg", text) for text in ("up", "ü", "😀", "u")]
    rows[3][role] = "u\ud800"
    block, rejects = Schema.from_config(table).decode(rows)
    assert block.n == 3
    assert [reject.position for reject in rejects] == [3]
    assert rejects[0].reason.endswith(
        f"{role!r} must be text in Unicode, got half of a character in 'u\\ud800'"
    )


def test_lists_of_numbers_are_no_words() -> None:
    """An embedding would be hashed by its digits; whole numbers may be tokens."""
    schema = Schema.infer([{"a": 1, "v": [0.25, 1.5], "w": [3, 4]}] * 3)
    assert schema.ignore == ("v",)
    assert schema.features["w"].kind == "words"
    assert (
        "v  ignored  ignored: [0.25, 1.5] is no list of words; give each num" in schema.describe()
    )


def test_a_column_with_a_dollar_is_one_as_any_other() -> None:
    """Of a topic `$key` stands beside the message; of a file it is a column."""
    schema = Schema.infer([{"$cash": 1.5, "$key": "u", "a": 1.0}] * 3)
    assert list(schema.features) == ["$cash", "$key", "a"]
