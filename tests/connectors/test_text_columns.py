"""Plain text by kernels: the bits, codes and positions of the other ways, or nothing at all."""

import json
import math
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamlearn import schema_text
from streamlearn.connectors._decode_lines import LineDecoder, decode_piece
from streamlearn.connectors.csv_files import CsvDecoder
from streamlearn.connectors.jsonl_files import JsonDecoder
from streamlearn.jit import text_cells
from streamlearn.schema import Schema
from streamlearn.schema_text import TextColumns

NAMES = ["a", "skipped", "colour", "b", "y"]
TABLE = {
    "target": "y",
    "task": "classification",
    "features": {"a": "number", "b": "number", "colour": "category"},
}


@pytest.fixture(scope="module", autouse=True)
def small_pieces() -> Iterator[None]:
    """Any piece is worth a try."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema_text, "LEAST_BYTES", 0)
        patch.setattr(schema_text, "_AGAIN", 0)
        yield


def decoder(kind: str, schema: Schema) -> LineDecoder:
    return CsvDecoder(schema, NAMES, ",") if kind == "csv" else JsonDecoder(schema)


def outcome(kind: str, data: bytes, kernels: bool, **more: Any) -> tuple[Any, Any]:
    """Everything that a piece gives; whether the kernels took it."""
    schema = Schema.from_config(TABLE | more)
    made: Any = decoder(kind, schema)
    made._kernels.able = kernels
    taken: list[bool] = []
    real = made._kernels._decoded

    def noted(*arguments: Any) -> Any:
        found = real(*arguments)
        taken.append(found is not None)
        return found

    made._kernels._decoded = noted
    chunk, used, line = decode_piece(made, "p", data, 100, 7, True)
    n = chunk.decoded.n
    cuts = [chunk.decoded.take(0, n // 2), chunk.decoded.take(n // 2, n)]
    bits = [(block.X.tobytes(), block.y.tobytes(), block.mode.tobytes()) for block in cuts]
    after = [chunk.after(b) for b in range(1, n)]
    rejects = [(row, reject.position, reject.reason) for row, reject in chunk.rejects]
    return (bits, after, rejects, schema.state().table, used, line, chunk.end), any(taken)


def assert_same(kind: str, data: bytes, taken: bool | None = None, **more: Any) -> None:
    found, by_kernels = outcome(kind, data, True, **more)
    assert found == outcome(kind, data, False, **more)[0]
    if taken is not None:
        assert by_kernels == taken


# -- whole records ---------------------------------------------------------------------------------

CELLS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.sampled_from(
        ["", "NA", "-0", "007", "1.", ".5", "+1", "1e5", "1E-3", "nan", "x", "1 ", '"2"']
    ),
)
WORDS = st.sampled_from(
    ["up", "down", "", "NA", "ü", '"up"', '"a,b"', '"a""b"', "1", "true", 'a"b']
)
ROWS = st.lists(st.tuples(CELLS, WORDS, WORDS, CELLS, WORDS).map(",".join), max_size=6)
VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.sampled_from(["null", "true", '"up"', '"\\u0041"', '"ü"', "1.0", "01", "NaN", "[1]", '"a"']),
)
KEYS = st.sampled_from(['"a"', '"b"', '"colour"', '"y"', '"else"', '"\\u0061"'])
MEMBERS = st.lists(st.tuples(KEYS, VALUES).map(" : ".join), max_size=6)
OBJECTS = st.lists(MEMBERS.map(lambda members: "{" + ", ".join(members) + "}"), max_size=6)


@pytest.mark.jit
@settings(max_examples=100)
@given(rows=ROWS, end=st.sampled_from(["\n", "\r\n"]))
@example(rows=["1,x,red,2,up", "", "3,x,blue,4,up"], end="\r\n")
def test_any_csv_is_read_as_the_other_ways_read_it(rows: list[str], end: str) -> None:
    assert_same("csv", end.join(rows).encode())


@pytest.mark.jit
@settings(max_examples=100)
@given(rows=OBJECTS)
def test_any_json_is_read_as_the_other_ways_read_it(rows: list[str]) -> None:
    assert_same("json", "\n".join(rows).encode())


CSV = ["1,s,red,2.5,up", "NA,,blue,-0.125,down", '3,"s,s","red",1e3,up', "", "4,s,,5,"]
JSON = [
    '{"a": 1, "b": 2.5, "colour": "red", "y": "up", "else": {}}'.replace("{}", '"x"'),
    '{"y":"down","b":-0.125, "colour":"bl\\u00fce"}',
    "{}",
    "",
    '{"colour": null, "a": null, "y": 1, "b": 1e-7 }',
]


@pytest.mark.jit
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("kind", "lines"), [("csv", CSV), ("json", JSON)])
def test_plain_text_is_taken_by_the_kernels(kind: str, lines: list[str], end: str) -> None:
    for last in ("", end):
        assert_same(kind, (end.join(lines) + last).encode(), taken=True)


ODD = [
    ("csv", b"1,s,red,2,up,more\n"),  # a field too many
    ("csv", b"1,s,red,2\n"),
    ("csv", b'1,s,"re""d",2,up\n'),
    ("csv", b'1,s,"re\nd",2,up\n'),
    ("csv", b"1,s,re\rd,2,up\n"),
    ("csv", b"0.1234567890123456789,s,red,2,up\n"),  # 19 digits
    ("csv", b"1e400,s,red,2,up\n"),
    ("csv", b"1,s,\xff,2,up\n"),
    ("json", b'{"a": 1, "a": 2}\n'),
    ("json", b'{"a": 1} {"a": 2}\n'),
    ("json", b'{"a": "1"}\n'),
    ("json", b'{"colour": "\xff"}\n'),
    ("json", b'{"colour": {"deep": 1}}\n'),
    ("json", b'{"a": 1,}\n'),
    ("json", b'{"\\u0061": 1}\n'),
    ("json", b"[1]\n"),
]


@pytest.mark.jit
@pytest.mark.parametrize(("kind", "data"), ODD)
def test_what_is_not_plain_is_left_to_the_other_ways(kind: str, data: bytes) -> None:
    good = b"1,s,red,2,up\n" if kind == "csv" else b'{"a": 1}\n'
    assert_same(kind, good + data + good, taken=False)


@pytest.mark.jit
@pytest.mark.parametrize("text", ["-0", "-0.0", "-0e0"])
def test_minus_zero_has_the_sign_that_json_gives_it(text: str) -> None:
    """As an integer none, as Python reads it: so a row does not depend on what stands beside it."""
    taken, by_kernels = outcome("json", f'{{"a": {text}, "b": 1}}'.encode(), True)
    X = np.frombuffer(taken[0][1][0])
    assert by_kernels
    assert math.copysign(1.0, X[0]) == math.copysign(1.0, float(json.loads(text)))


def test_more_values_than_the_table_holds_are_left_to_the_other_ways() -> None:
    half = text_cells.SLOTS // 2
    for n in (half, half + 1):
        lines = "".join(f"1,s,c{i % n},2,up\n" for i in range(n + 5))
        assert_same("csv", lines.encode(), taken=n == half)


@pytest.mark.jit
def test_a_number_may_say_that_there_is_none() -> None:
    """As a whole cell alone, and as it is written."""
    lines = ["-999,s,-999,1,up", '-999.0,s,red,"-999",down', "-9990,s,red,7,up", "0,s,x,-99,-999"]
    missing = ["NA", "-999", "", "7"]
    assert_same("csv", "\n".join(lines).encode(), taken=True, missing=missing)


# -- when to try -----------------------------------------------------------------------------------


def test_only_numbers_and_codes_are_asked_for() -> None:
    columns = TextColumns(Schema.from_config(TABLE), ["a", "b", "colour", "y"])
    assert columns.able
    assert (columns.numbers, columns.coded) == (["a", "b"], ["colour", "y"])
    for kind in ("boolean", "time", "text"):
        config = TABLE | {"features": {"a": "number", "b": kind}}
        assert not TextColumns(Schema.from_config(config), ["a", "b", "y"]).able
    assert not TextColumns(Schema.from_config(TABLE | {"id": "n"}), ["a", "n", "y"]).able


def test_after_a_refusal_some_pieces_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_text, "_AGAIN", 3)
    asked: list[int] = []

    def refused(*_: Any) -> int:
        asked.append(1)
        return -1

    monkeypatch.setattr(text_cells, "csv_cells", refused)
    columns = TextColumns(Schema.from_config(TABLE), ["a", "y"])
    for _ in range(9):
        assert columns.csv(b"1,up\n", ["a", "y"], ",") is None
    assert len(asked) == 3


def test_kernels_that_are_loaded_take_smaller_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_text, "LEAST_BYTES", 60)
    monkeypatch.setattr(schema_text, "FEW_BYTES", 30)
    asked: list[int] = []

    def taken(text: Any, *_: Any) -> int:
        asked.append(len(text))
        return 0

    monkeypatch.setattr(text_cells, "csv_cells", taken)
    columns = TextColumns(Schema.from_config(TABLE), ["a", "y"])
    for n in (7, 11, 12, 6, 5):
        columns.csv(b"1,up\n" * n, ["a", "y"], ",")
    assert asked == [60, 30]


# -- numbers ---------------------------------------------------------------------------------------


def parsed(texts: list[str]) -> Any:
    """By the kernel, all as one column of CSV; NaN for what it refuses is told by the count."""
    by, none = text_cells.powers(), np.zeros(0, dtype=np.int64)
    text = np.frombuffer("".join(f"{t}\n" for t in texts).encode(), dtype=np.uint8)
    table, codes = np.empty((len(texts), 1)), np.empty((len(texts), 0), dtype=np.int64)
    words = (codes, codes, codes, none)
    roles = np.zeros(1, dtype=np.int64)
    missing = np.zeros(0, dtype=np.uint8), none, 0
    n = text_cells.csv_cells(text, roles, 44, missing, by, words, (table, codes, none))
    return table[:, 0] if n == len(texts) else None


def texts_of_numbers(seed: int, n: int) -> Iterator[str]:
    rng = random.Random(seed)
    kinds: list[Callable[[], str]] = [
        lambda: repr(rng.gauss(0.0, 1.0) * 10.0 ** rng.randint(-30, 30)),
        lambda: f"{rng.randint(0, 10**18 - 1)}e{rng.randint(-60, 60)}",
        lambda: f"{rng.gauss(0.0, 100.0):.{rng.randint(1, 12)}f}",
        lambda: repr(struct.unpack("d", struct.pack("Q", rng.getrandbits(61) | 1 << 60))[0]),
        lambda: f"{2**53 + rng.randint(-9, 9)}",  # halves between two floats
        lambda: f"{(2**54 + 4 * rng.randint(0, 10**6) + 2)}e{rng.randint(0, 4)}",
        lambda: f"000{rng.random():.9f}",
    ]
    for i in range(n):
        yield kinds[i % len(kinds)]()


@pytest.mark.jit
def test_numbers_have_the_bits_that_python_gives_them() -> None:
    texts = [*texts_of_numbers(1, 20_000), "-0", "0e9", "-0.0e-5", "1e270", "1e-290"]
    found = parsed(texts)
    assert found is not None
    wanted = np.array([float(text) for text in texts])
    assert texts[int(np.argmax(found.view(np.int64) != wanted.view(np.int64)))] == texts[0]
    assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    "text", ["1e271", "1e-291", "1234567890123456789", "1e", "-", "1.e", "0x1"]
)
def test_numbers_beyond_the_tables_are_refused(text: str) -> None:
    assert parsed(["1.5", text]) is None


def test_zeros_in_front_are_no_digits() -> None:
    assert parsed(["0.000000000000000000000123"]).tolist() == [1.23e-22]
    assert json.loads("0.000000000000000000000123") == 1.23e-22
