"""Avro and Protobuf messages, with and without a schema registry."""

import base64
import json
import math
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka.schema_registry import (
    Schema as Text,
)
from confluent_kafka.schema_registry import (
    SchemaReference,
    SchemaRegistryClient,
    SchemaRegistryError,
)
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from streamlearn import run
from streamlearn.config import check
from streamlearn.connectors import kafka
from streamlearn.connectors.kafka import registry as registry_module
from streamlearn.connectors.kafka import secrets
from streamlearn.connectors.kafka.avro import AvroReading
from streamlearn.connectors.kafka.avro import registered as avro_registered
from streamlearn.connectors.kafka.encode import Probabilities, Shared, Table
from streamlearn.connectors.kafka.encode_avro import PREDICTION, AvroRows, registered_rows
from streamlearn.connectors.kafka.location import Format, RegistryAddress, Topics
from streamlearn.connectors.kafka.protobuf import registered as protobuf_registered
from streamlearn.connectors.kafka.registry import Registry
from streamlearn.connectors.kafka.schemas import BadSchema, RegistryMessages, schema_decoder
from streamlearn.connectors.kafka.source import KafkaSource
from streamlearn.connectors.kafka.wire import Connection
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_columns import decode_columns
from tests.kafka.broker import Sent
from tests.kafka.doubles import MemoryBroker

PAYMENT = {
    "type": "record",
    "name": "bank.Payment",
    "fields": [
        {"name": "amount", "type": "double"},
        {"name": "card", "type": ["null", "string"]},
        {"name": "id", "type": "long"},
        {"name": "fraud", "type": ["null", "boolean"]},
    ],
}
SCHEMA = {
    "target": "fraud", "task": "classification", "classes": "boolean", "id": "id",
    "features": {"amount": "number", "card": "category"},
}  # fmt: skip


def zigzag(number: int) -> bytes:
    """A long as Avro writes it."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def payment(amount: float, card: str | None, number: int, fraud: bool | None) -> bytes:
    """A payment written by hand, after the specification."""
    text = b"\0" if card is None else b"\x02" + zigzag(len(card.encode())) + card.encode()
    label = b"\0" if fraud is None else b"\x02" + bytes([fraud])
    return struct.pack("<d", amount) + text + zigzag(number) + label


def schema(**table: Any) -> Schema:
    return Schema.from_config({**SCHEMA, **table})


def reading(text: object, **table: Any) -> AvroReading:
    return AvroReading(json.dumps(text), schema(**table))


def features(**kinds: Any) -> dict[str, Any]:
    return {"features": kinds, "target": None, "task": None, "id": None}


def written(text: Any, record: Mapping[str, Any]) -> bytes:
    out = BytesIO()
    schemaless_writer(out, parse_schema(text), record)
    return out.getvalue()


def record(*fields: tuple[str, Any]) -> dict[str, Any]:
    return {
        "type": "record", "name": "R", "fields": [{"name": n, "type": t} for n, t in fields]
    }  # fmt: skip


# -- Avro ------------------------------------------------------------------------------------------


def test_fields_become_columns() -> None:
    values = [payment(1.5, "visa", 7, True), payment(-2.0, None, -300, None)]
    columns, misfits = reading(PAYMENT).columns(values)
    assert misfits == {}
    assert columns == {
        "amount": [1.5, -2.0], "card": ["visa", None], "id": [7, -300], "fraud": [True, None]
    }  # fmt: skip


def test_a_block_of_them_is_what_the_schema_wants() -> None:
    asked = schema()
    columns, _ = reading(PAYMENT).columns(
        [payment(1.5, "visa", 7, True), payment(2.5, "amex", 8, None)]
    )
    decoded, misfits = decode_columns(asked, columns, 2)
    block = decoded.take(0, 2)
    assert misfits == {}
    assert block.X[:, 0].tolist() == [1.5, 2.5]
    assert asked.columns.categories["card"].values == ["visa", "amex"]
    assert list(block.ids) == [7, 8]  # type: ignore[arg-type]
    assert block.mode.tolist() == [7, 5]


MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
NANOS = {"type": "long", "logicalType": "timestamp-nanos"}
DATE = {"type": "int", "logicalType": "date"}


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (MILLIS, 1_700_000_000_123, 1_700_000_000_123_000_000),
        (MICROS, -5, -5000),
        (NANOS, 1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
        (DATE, 2, 172_800_000_000_000),
        (["null", MILLIS], 5, 5_000_000),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, 5, 5_000_000),
    ],
)
def test_times_are_read_by_their_logical_type(kind: Any, value: int, expected: int) -> None:
    asked = features(sent={"kind": "time", "parts": ["epoch"]}) | {"time": "sent"}
    branch = b"\x02" if isinstance(kind, list) else b""
    columns, misfits = reading(record(("sent", kind)), **asked).columns([branch + zigzag(value)])
    decoded, more = decode_columns(schema(**asked), columns, 1)
    assert (misfits, more) == ({}, {})
    assert decoded.times is not None
    assert decoded.times.tolist() == [expected]


def test_a_time_out_of_range_is_refused_alone() -> None:
    asked = features(sent="time")
    values = [zigzag(1), zigzag(2**62), zigzag(3)]
    columns, misfits = reading(record(("sent", MILLIS)), **asked).columns(values)
    assert misfits == {1: f"'sent' must lie between the years 1678 and 2261, got {2**62}"}
    assert columns["sent"].cast(pa.int64()).to_pylist() == [1_000_000, None, 3_000_000]


def test_a_time_beside_other_types_stays_one() -> None:
    asked = features(sent="time")
    read = reading(record(("sent", ["string", MILLIS])), **asked)
    columns, _ = read.columns([b"\x02" + zigzag(1500), b"\0" + zigzag(10) + b"2024-01-31"])
    decoded, misfits = decode_columns(
        schema(**features(sent={"kind": "time", "parts": ["epoch"]})), columns, 2
    )
    assert misfits == {}
    assert decoded.X[:, 0].tolist() == [1.5, 1_706_659_200.0]


def test_a_time_that_is_wanted_as_a_number_is_one() -> None:
    columns, _ = reading(record(("sent", MILLIS)), **features(sent="number")).columns([zigzag(9)])
    assert columns == {"sent": [9]}


def test_decimals_enums_uuids_bags_and_small_numbers() -> None:
    kinds = record(
        ("price", {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}),
        ("side", {"type": "enum", "name": "Side", "symbols": ["BUY", "SELL"]}),
        ("who", {"type": "string", "logicalType": "uuid"}),
        ("tags", {"type": "map", "values": "long"}),
        ("words", {"type": "array", "items": "string"}),
        ("small", "float"),
        ("whole", "int"),
    )
    uuid = "123e4567-e89b-12d3-a456-426614174000"
    value = b"".join(
        [
            b"\x04\x04\xd2",  # 1234 in two bytes, big-endian
            b"\x02",
            zigzag(36) + uuid.encode(),
            b"\x02\x02a\x06\0",  # one entry: a -> 3
            b"\x04\x02x\x02y\0",  # x, y
            struct.pack("<f", 0.5),
            zigzag(-9),
        ]
    )
    asked = features(
        price="number", side="category", who="category", tags="words", words="words",
        small="number", whole="number",
    )  # fmt: skip
    columns, misfits = reading(kinds, **asked).columns([value])
    decoded, more = decode_columns(schema(**asked), columns, 1)
    assert (misfits, more) == ({}, {})
    assert columns["who"] == [uuid]
    assert columns["side"] == ["SELL"]
    assert columns["tags"] == [{"a": 3}]
    assert decoded.X[0, [0, 3, 4]].tolist() == [12.34, 0.5, -9.0]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "it ends too early"),
        (payment(1.0, "a", 1, True)[:-1], "it ends too early"),
        (payment(1.0, "a", 1, True) + b"xy", "2 bytes are left over"),
        (b"\0" * 8 + b"\x08", "it has a branch or a symbol that is not there"),
        (b"\0" * 8 + b"\x02\x02\xff" + b"\0\0", "text must be UTF-8"),
        (b'{"amount": 1.0, "card": "a"}', "it has a branch or a symbol that is not there"),
    ],
)
def test_a_poisoned_message_is_refused_alone(value: bytes, reason: str) -> None:
    good = payment(1.5, "visa", 7, True)
    columns, misfits = reading(PAYMENT).columns([good, value, good])
    assert misfits == {1: f"must be Avro of its schema: {reason}"}
    assert columns["amount"] == [1.5, None, 1.5]
    assert columns["card"] == ["visa", None, "visa"]


def test_two_wrong_messages_that_make_two_right_ones_are_refused() -> None:
    """Decoding many at once must not read over the end of one into the next."""
    good = payment(1.5, "visa", 7, True)
    _, misfits = reading(PAYMENT).columns([good[:5], good[5:] + good])
    assert set(misfits) == {0, 1}


GOOD = [payment(1.5, "visa", 7, True), payment(-1.0, None, 1, None), payment(0.0, "é", 2, False)]


@given(
    st.lists(st.sampled_from(GOOD) | st.binary(max_size=30), max_size=12),
    st.lists(st.integers(0, 12), max_size=3),
)
def test_what_a_message_gives_depends_on_nothing_but_itself(
    values: list[bytes], cuts: list[int]
) -> None:
    def rows(parts: Sequence[Sequence[bytes]]) -> list[Any]:
        found = []
        for part in parts:
            columns, misfits = read.columns(part)
            cells = zip(*columns.values(), strict=True)
            found += [(misfits.get(i), repr(cell)) for i, cell in enumerate(cells)]
        return found

    read = reading(PAYMENT)
    ends = [0, *sorted(cuts), len(values)]
    parts = [values[a:b] for a, b in pairwise(ends)]
    alone = rows([[value] for value in values])
    assert rows(parts) == alone
    assert all((reason is None) for (reason, _), v in zip(alone, values, strict=True) if v in GOOD)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("double", "must be a record with the columns as its fields"),
        (record(("a", "Other")), "must define the type 'Other' that it uses"),
        (record(("a", {"type": "array", "items": "null"})), "must not have an array of what takes"),
        (
            record(("a", {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}})),
            "must not have an array of what takes no bytes",
        ),
        (record(("next", ["null", "R"])), "must not hold itself, as its type 'R' does"),
        ({"type": "record", "fields": []}, "must be an Avro schema"),
    ],
)
def test_a_schema_that_cannot_be_read_says_why(text: Any, message: str) -> None:
    with pytest.raises(BadSchema, match=message):
        reading(text)


def test_a_schema_that_is_nested_too_deeply_says_so() -> None:
    deep = json.dumps(record(("a", "@"))).replace('"@"', '[{"type":"array","items":' * 10**5)
    with pytest.raises(BadSchema, match="must be an Avro schema: maximum recursion depth"):
        AvroReading(deep, schema())


def test_a_type_may_be_used_twice() -> None:
    point = {"type": "record", "name": "P", "fields": [{"name": "x", "type": "double"}]}
    read = reading(record(("a", point), ("b", "P"), ("n", "int")), **features(n="number"))
    assert read.columns([struct.pack("<dd", 1.0, 2.0) + zigzag(3)]) == ({"n": [3]}, {})


def test_a_schema_file_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "payment.avsc"
    path.write_text(json.dumps(PAYMENT))
    decoder = schema_decoder(Format("avro", schema_file=str(path)), schema())
    assert decoder.ready([b"", b""]) == 2
    assert decoder.connected
    framed = b"\0\0\0\0\x09" + payment(1.5, "visa", 7, True)
    columns, misfits = decoder.columns([payment(1.5, "visa", 7, True), framed])
    assert columns["amount"] == [1.5, None]
    assert misfits[1].endswith("(or it is of a registry, where its schema is 9)")
    decoder.close()


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        (Format("avro"), None, "format: avro needs schema, an .avsc file, or kafka.registry"),
        (Format("avro", schema_file="x"), None, "x: cannot be read: No such file or directory"),
        (Format("avro", schema_file="x"), "{", "x: must be JSON: "),
        (Format("protobuf"), None, "format: protobuf needs descriptors and message, or kafka.r"),
        (Format("protobuf", message="A", descriptors="x"), None, "x: cannot be read"),
        (Format("protobuf", message="A", descriptors="x"), "abc", "x: must be a descriptor set"),
        (Format("protobuf", message="A", descriptors="x"), "", "x: there is no message 'A'"),
    ],
)
def test_a_format_that_lacks_something_says_what(
    form: Format, text: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("x").write_text(text)
    with pytest.raises(UserError, match=f"^{message}"):
        schema_decoder(form, schema())


# -- a registry ------------------------------------------------------------------------------------


class Client:
    """confluent-kafka's own double, with failures before its answers."""

    def __init__(self) -> None:
        self._mock = SchemaRegistryClient.new_client({"url": "mock://"})
        self.failures: list[Exception] = []
        self.asked: list[int] = []
        self.tried = threading.Event()

    def add(self, text: object, kind: str = "AVRO", references: Any = (), name: str = "t") -> int:
        schema_text = text if isinstance(text, str) else json.dumps(text)
        return int(self._mock.register_schema(name, Text(schema_text, kind, list(references))))

    def get_schema(self, number: int, fmt: str | None = None) -> Any:
        self.asked.append(number)
        self.tried.set()
        if self.failures:
            raise self.failures.pop(0)
        return self._mock.get_schema(number)

    def get_version(self, subject: str, version: int, deleted: bool, fmt: str | None) -> Any:
        return self._mock.get_version(subject, version, deleted)

    def register_schema(self, subject: str, text: Text) -> int:
        if self.failures:
            raise self.failures.pop(0)
        return int(self._mock.register_schema(subject, text))


def settle() -> None:
    """Wait until nothing is asked for."""
    for thread in threading.enumerate():
        if thread.name.startswith("registry"):
            thread.join(30)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(registry_module, "BACK_OFF", (0.001,))
    yield Client()
    settle()


def registry(client: Client) -> Registry:
    return Registry("mock://", patience=(0.001, 0.001), client=client)  # type: ignore[arg-type]


def avro_of(client: Client, **table: Any) -> RegistryMessages:
    asked = schema(**table)
    return RegistryMessages(registry(client), avro_registered(Format("avro"), asked))


def framed(number: int, body: bytes) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + body


def decoded(
    decoder: RegistryMessages, values: list[bytes]
) -> tuple[dict[str, Any], dict[int, str]]:
    decoder.ready(values)
    settle()
    assert decoder.ready(values) == len(values)
    return decoder.columns(values)


def test_messages_say_their_schema(client: Client) -> None:
    number = client.add(PAYMENT)
    values = [framed(number, payment(1.5, "visa", 7, True))] * 3
    columns, misfits = decoded(avro_of(client), values)
    assert misfits == {}
    assert columns["amount"] == [1.5] * 3
    assert client.asked == [number]


def test_the_schema_may_change_in_mid_stream(client: Client) -> None:
    """A field more, another one gone, an integer that became a fraction, text that became time."""
    old = record(("amount", "int"), ("card", "string"), ("sent", "string"))
    new = record(("amount", "double"), ("limit", "double"), ("sent", ["null", MILLIS]))
    first, second = client.add(old), client.add(new)
    text = b"1970-01-01T00:00:00.002"
    values = [
        framed(first, zigzag(3) + b"\x02a" + zigzag(len(text)) + text),
        framed(second, struct.pack("<dd", 0.5, 9.0) + b"\x02" + zigzag(5)),
        framed(first, zigzag(4) + b"\x02b" + zigzag(len(text)) + text),
        framed(second, struct.pack("<dd", 1.5, 8.0) + b"\0"),
    ]
    kinds = {
        "amount": "number", "limit": "number", "card": "category",
        "sent": {"kind": "time", "parts": ["epoch"]},
    }  # fmt: skip
    columns, misfits = decoded(avro_of(client, **features(**kinds)), values)
    found, more = decode_columns(schema(**features(**kinds)), columns, 4)
    assert (misfits, more) == ({}, {})
    assert columns["card"] == ["a", None, "b", None]
    np.testing.assert_array_equal(
        found.X[:, [0, 1, 3]],
        [[3, np.nan, 0.002], [0.5, 9.0, 0.005], [4, np.nan, 0.002], [1.5, 8.0, np.nan]],
    )


def test_a_schema_of_the_reader_finds_what_was_renamed(client: Client, tmp_path: Path) -> None:
    """By aliases; what a message lacks has the default; what does not fit is refused."""
    path = tmp_path / "reader.avsc"
    wanted = record(("amount", "double"), ("limit", "double"), ("sent", ["null", MILLIS]))
    wanted["fields"][0]["aliases"] = ["price"]
    wanted["fields"][1]["default"] = 7.0
    wanted["fields"][2]["default"] = None
    path.write_text(json.dumps(wanted))
    old = client.add(record(("price", "int"), ("sent", MILLIS)))
    new = client.add(record(("amount", "double"), ("limit", "double")))
    far = client.add(record(("other", "double")))
    off = client.add(record(("price", "int"), ("sent", MICROS)))
    kinds = {"amount": "number", "limit": "number", "sent": "time"}
    asked = schema(**features(**kinds))
    form = Format("avro", schema_file=str(path))
    decoder = RegistryMessages(registry(client), avro_registered(form, asked))
    values = [
        framed(old, zigzag(3) + zigzag(5)),
        framed(new, struct.pack("<dd", 0.5, 9.0)),
        framed(far, struct.pack("<d", 0.5)),
        framed(off, zigzag(3) + zigzag(5)),
    ]
    columns, misfits = decoded(decoder, values)
    assert misfits == {
        2: "must be Avro of its schema, read by another: No default value for field amount in R",
        3: f"schema {off} of the registry must count 'sent' in the units of the reader's schema",
    }
    assert columns["amount"] == [3.0, 0.5, None, None]
    assert columns["limit"] == [7.0, 9.0, None, None]
    assert columns["sent"][0] == np.datetime64(5, "ms")


def test_an_unknown_number_is_asked_for_three_times_and_then_refused(client: Client) -> None:
    number = client.add(PAYMENT)
    good = framed(number, payment(1.5, "visa", 7, True))
    decoder = avro_of(client)
    columns, misfits = decoded(decoder, [good, framed(77, b"abc"), good])
    assert misfits == {1: "schema 77 is not known to the registry"}
    assert columns["amount"] == [1.5, None, 1.5]
    assert sorted(client.asked) == [number, 77, 77, 77]
    assert decoder.ready([framed(77, b"")]) == 1  # not asked again
    assert sorted(client.asked) == [number, 77, 77, 77]


def test_a_number_that_comes_to_be_known_is_read(client: Client) -> None:
    """Registries copy each other with a delay."""
    client.failures = [SchemaRegistryError(404, 40403, "Schema not found")] * 2
    number = client.add(PAYMENT)
    _, misfits = decoded(avro_of(client), [framed(number, payment(1.5, "visa", 7, True))])
    assert misfits == {}
    assert client.asked == [number] * 3


@pytest.mark.parametrize("value", [b"", b"\0\0\0\1", b'{"amount": 1}'])
def test_what_says_no_schema_is_refused(client: Client, value: bytes) -> None:
    _, misfits = decoded(avro_of(client), [value])
    head = value[:5]
    assert misfits == {0: f"must begin with byte 0 and the number of a schema, got {head!r}"}
    assert client.asked == []


def test_schemas_of_another_kind_are_refused(client: Client) -> None:
    number = client.add("{}", "JSON")
    _, misfits = decoded(avro_of(client), [framed(number, b"{}")])
    assert misfits == {0: f"schema {number} of the registry must be AVRO, is JSON"}


def test_the_stream_waits_while_the_registry_is_away(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    number = client.add(PAYMENT)
    client.failures = [ConnectionRefusedError("refused"), SchemaRegistryError(503, 0, "busy")] * 3
    decoder = avro_of(client)
    good = framed(number, payment(1.5, "visa", 7, True))
    assert decoder.ready([good]) == 0
    settle()
    assert decoder.ready([good]) == 1
    assert decoder.connected
    assert decoder.columns([good])[1] == {}
    assert [r.message for r in caplog.records] == [
        "registry mock://: does not answer (refused); messages of schemas not known yet wait",
        "registry mock://: answers again",
    ]


def test_what_is_known_is_read_while_the_registry_is_away(client: Client) -> None:
    number = client.add(PAYMENT)
    decoder = avro_of(client)
    good = framed(number, payment(1.5, "visa", 7, True))
    decoded(decoder, [good])
    client.tried.clear()
    client.failures = [ConnectionRefusedError("refused")] * 10**6
    assert decoder.ready([good, good, framed(number + 1, b""), good]) == 2
    assert client.tried.wait(30)
    assert decoder.ready([good]) == 1
    decoder.close()
    settle()
    assert not decoder.connected


def test_a_registry_that_refuses_ends_the_run(client: Client) -> None:
    client.failures = [SchemaRegistryError(401, 40101, "Unauthorized")]
    decoder = avro_of(client)
    assert decoder.ready([framed(1, b"")]) == 0
    settle()
    with pytest.raises(UserError, match=r"^registry mock://: refuses to answer: Unauthorized"):
        decoder.ready([framed(1, b"")])


def test_types_of_other_subjects_are_found(client: Client) -> None:
    inner = {"type": "record", "name": "bank.Card", "fields": [{"name": "x", "type": "long"}]}
    middle = record(("card", "bank.Card")) | {"name": "bank.Pair"}
    client.add(inner, name="card")
    client.add(middle, references=[SchemaReference("bank.Card", "card", 1)], name="pair")
    number = client.add(
        record(("pair", "bank.Pair"), ("amount", "double")),
        references=[SchemaReference("bank.Pair", "pair", 1)],
    )
    values = [framed(number, zigzag(5) + struct.pack("<d", 2.5))]
    columns, misfits = decoded(avro_of(client), values)
    assert misfits == {}
    assert columns == {"amount": [2.5]}


def test_a_schema_is_registered(client: Client) -> None:
    client.failures = [ConnectionRefusedError("refused")]
    asked = registry(client)
    number = asked.register("predictions-value", json.dumps(PAYMENT))
    assert asked.register("predictions-value", json.dumps(PAYMENT)) == number
    client.failures = [SchemaRegistryError(409, 409, "incompatible")]
    with pytest.raises(UserError, match=r"must take the schema of p, but it answers: incompatible"):
        asked.register("p", "{}")
    client.failures = [ConnectionRefusedError("refused")] * 2
    with pytest.raises(UserError, match=r"but it does not answer: refused"):
        registry(client).register("p", "{}", tries=2)


@pytest.fixture
def served() -> Iterator[Callable[[int, dict[int, Any]], tuple[str, list[str | None]]]]:
    """A registry over HTTP that answers so many times with 503 first."""
    servers = []

    def start(busy: int, schemas: dict[int, Any]) -> tuple[str, list[str | None]]:
        left, seen = [busy], []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.headers.get("Authorization"))
                number = int(self.path.partition("?")[0].rpartition("/")[2])
                status = 503 if left[0] else 200 if number in schemas else 404
                left[0] -= status == 503
                answer = {503: {"error_code": 503, "message": "busy"},
                          404: {"error_code": 40403, "message": "Schema not found"},
                          200: {"schema": json.dumps(schemas.get(number))}}[status]  # fmt: skip
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_over_http_with_a_password(
    served: Callable[[int, dict[int, Any]], tuple[str, list[str | None]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry_module, "BACK_OFF", (0.001,))
    monkeypatch.setattr(registry_module, "PATIENCE", ())
    url, seen = served(2, {3: PAYMENT})
    monkeypatch.setenv("REGISTRY_LOGIN", "me:secret")
    options = {"basic.auth.user.info": "${env:REGISTRY_LOGIN}"}
    decoder = schema_decoder(Format("avro"), schema(), RegistryAddress(url, options))
    assert isinstance(decoder, RegistryMessages)
    columns, misfits = decoded(decoder, [framed(3, payment(1.5, "visa", 7, True))])
    assert (columns["amount"], misfits) == ([1.5], {})
    assert seen == ["Basic " + base64.b64encode(b"me:secret").decode()] * 3
    decoder.close()


def test_a_password_that_changes_in_its_file_is_read_again(
    served: Callable[[int, dict[int, Any]], tuple[str, list[str | None]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(secrets, "LOOK_SECONDS", 0.0)
    path = tmp_path / "login"
    path.write_text("me:old")
    url, seen = served(0, {3: PAYMENT, 4: PAYMENT})
    asked = Registry(url, {"basic.auth.user.info": f"${{file:{path}}}"})
    asked.known(3)
    settle()
    path.write_text("me:new")
    os.utime(path, ns=(1, 1))
    asked.known(4)
    settle()
    assert seen == ["Basic " + base64.b64encode(word).decode() for word in (b"me:old", b"me:new")]


@pytest.mark.parametrize("answer", [b"<html>busy</html>", b"[]", b"{}", b'"text"'])
def test_an_answer_that_is_none_is_asked_for_again(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy in between may say anything."""
    monkeypatch.setattr(registry_module, "BACK_OFF", (0.001,))
    answers = [answer, json.dumps({"schema": json.dumps(PAYMENT)}).encode()]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers.pop(0))

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    asked = Registry(f"http://127.0.0.1:{server.server_port}")
    asked.known(3)
    settle()
    found = asked.known(3)
    server.shutdown()
    server.server_close()
    assert not isinstance(found, str)
    assert found is not None
    assert json.loads(found.text) == PAYMENT


def test_a_package_that_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "streamlearn.connectors.kafka.avro")
    monkeypatch.setitem(sys.modules, "fastavro", None)
    with pytest.raises(
        UserError, match=r"avro needs the package 'fastavro'.*streamlearn\[formats\]"
    ):
        schema_decoder(Format("avro", schema_file="x"), schema())


def test_nothing_listens_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "BACK_OFF", (0.001,))
    decoder = schema_decoder(Format("avro"), schema(), RegistryAddress("http://127.0.0.1:9"))
    value = framed(3, b"")
    while decoder.ready([value]) == 0 and decoder.connected:
        pass
    assert not decoder.connected
    decoder.close()
    settle()


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("http://h", {"colour": "red"}, "registry: Unrecognized properties: colour"),
        ("ftp://h", {}, "registry: Invalid url ftp://h"),
    ],
)
def test_options_that_the_client_does_not_take(
    url: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Registry(url, options)


# -- Protobuf --------------------------------------------------------------------------------------

F = descriptor_pb2.FieldDescriptorProto


def field(name: str, number: int, kind: int, label: int = F.LABEL_OPTIONAL, **more: Any) -> Any:
    return F(name=name, number=number, type=kind, label=label, **more)


def payment_file() -> Any:
    """message Payment of a file payment.proto, proto3, with the kinds of fields that there are."""
    message = descriptor_pb2.DescriptorProto(name="Payment")
    message.field.extend(
        [
            field("amount", 1, F.TYPE_DOUBLE),
            field("card", 2, F.TYPE_STRING, proto3_optional=True, oneof_index=0),
            field("id", 3, F.TYPE_INT64),
            field("fraud", 4, F.TYPE_MESSAGE, type_name=".google.protobuf.BoolValue"),
            field("sent", 5, F.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp"),
            field("side", 6, F.TYPE_ENUM, type_name=".bank.Side"),
            field("words", 7, F.TYPE_STRING, F.LABEL_REPEATED),
            field("counts", 8, F.TYPE_MESSAGE, F.LABEL_REPEATED,
                  type_name=".bank.Payment.CountsEntry"),
            field("place", 9, F.TYPE_MESSAGE, type_name=".bank.Payment.Place"),
        ]
    )  # fmt: skip
    message.oneof_decl.add(name="_card")
    entry = message.nested_type.add(name="CountsEntry")
    entry.field.extend([field("key", 1, F.TYPE_STRING), field("value", 2, F.TYPE_INT32)])
    entry.options.map_entry = True
    message.nested_type.add(name="Place").field.extend([field("x", 1, F.TYPE_DOUBLE)])
    file = descriptor_pb2.FileDescriptorProto(
        name="payment.proto",
        package="bank",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto", "google/protobuf/timestamp.proto"],
    )
    file.message_type.add(name="Empty")
    file.message_type.append(message)
    side = file.enum_type.add(name="Side")
    side.value.add(name="BUY", number=0)
    side.value.add(name="SELL", number=1)
    return file


@pytest.fixture(scope="module")
def payments() -> Any:
    """The class of payments, made by protobuf alone."""
    from google.protobuf import timestamp_pb2, wrappers_pb2

    pool = descriptor_pool.DescriptorPool()
    for module in (timestamp_pb2, wrappers_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(payment_file().SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bank.Payment"))


KINDS = {
    "amount": "number", "card": "category", "side": "category", "words": "words",
    "counts": "words", "place": "number", "sent": {"kind": "time", "parts": ["epoch"]},
}  # fmt: skip


def full(payments: Any) -> Any:
    message = payments(amount=1.5, card="visa", id=-7, side=1, words=["a", "b"], counts={"c": 2})
    message.fraud.value = True
    message.sent.FromNanoseconds(1_700_000_000_123_456_789)
    return message


@pytest.fixture
def descriptors(tmp_path: Path) -> str:
    """A descriptor set as protoc writes it, without Google's own files."""
    path = tmp_path / "bank.desc"
    files = descriptor_pb2.FileDescriptorSet(file=[payment_file()])
    path.write_bytes(files.SerializeToString())
    return str(path)


def test_fields_of_a_message_become_columns(payments: Any, descriptors: str) -> None:
    form = Format("protobuf", message="bank.Payment", descriptors=descriptors)
    decoder = schema_decoder(form, schema(features=KINDS, time="sent"))
    values = [full(payments).SerializeToString(), payments(side=9).SerializeToString()]
    columns, misfits = decoder.columns(values)
    sent = columns.pop("sent").cast(pa.int64()).to_pylist()
    assert misfits == {}
    assert sent == [1_700_000_000_123_456_789, None]
    assert columns == {
        "amount": [1.5, 0.0],  # a plain field of proto3 always has a value
        "card": ["visa", None],
        "id": [-7, 0],
        "fraud": [True, None],
        "side": ["SELL", "9"],
        "words": [["a", "b"], []],
        "counts": [{"c": 2}, {}],
        "place": [None, None],
    }


def test_a_message_inside_is_no_number(payments: Any, descriptors: str) -> None:
    asked = schema(features={"place": "number"})
    decoder = schema_decoder(Format("protobuf", (), message="bank.Payment",
                                    descriptors=descriptors), asked)  # fmt: skip
    columns, _ = decoder.columns([payments(place={"x": 2.0}).SerializeToString()])
    _, misfits = decode_columns(asked, columns, 1)
    assert misfits == {0: "feature 'place' must be a number, got {'x': 2.0}"}


def test_a_poisoned_message_of_protobuf_is_refused_alone(payments: Any, descriptors: str) -> None:
    form = Format("protobuf", message="bank.Payment", descriptors=descriptors)
    decoder = schema_decoder(form, schema())
    good = full(payments).SerializeToString()
    columns, misfits = decoder.columns([good, b"\xff\xff", good])
    assert misfits == {1: "must be a Protobuf message bank.Payment"}
    assert columns["amount"] == [1.5, None, 1.5]


def serialized(file: Any) -> str:
    return base64.b64encode(file.SerializeToString()).decode()


def protobuf_of(client: Client) -> RegistryMessages:
    asked = schema()
    return RegistryMessages(registry(client), protobuf_registered(Format("protobuf"), asked))


def test_messages_of_a_registry_say_which_of_their_schema_they_are(
    client: Client, payments: Any
) -> None:
    number = client.add(serialized(payment_file()), "PROTOBUF")
    good = full(payments).SerializeToString()
    values = [
        framed(number, b"\x02\x02" + good),  # one index: 1
        framed(number, b"\0"),  # in short for index 0, the type Empty
        framed(number, b"\x02\x08" + good),  # there is no type 4
        framed(number, b"\xff\xff\xff\xff\xff\xff" + good),
        framed(number, b""),
        framed(number, b"\x02\x02" + good[:5]),
    ]
    columns, misfits = decoded(protobuf_of(client), values)
    which = "must say which message of its schema it is, by indexes after the number"
    assert misfits == {
        2: which, 3: which, 4: which, 5: "must be a Protobuf message bank.Payment"
    }  # fmt: skip
    assert columns["amount"] == [1.5, None, None, None, None, None]


def test_types_inside_types_and_files_that_are_imported(client: Client) -> None:
    client.add(serialized(payment_file()), "PROTOBUF", name="payment")
    file = descriptor_pb2.FileDescriptorProto(
        name="default", package="shop", syntax="proto3", dependency=["payment.proto"]
    )
    outer = file.message_type.add(name="Outer")
    inner = outer.nested_type.add(name="Inner")
    inner.field.extend(
        [
            field("paid", 1, F.TYPE_MESSAGE, type_name=".bank.Payment"),
            field("amount", 2, F.TYPE_DOUBLE),
        ]
    )
    number = client.add(
        serialized(file), "PROTOBUF", [SchemaReference("payment.proto", "payment", 1)]
    )
    value = framed(number, b"\x04\0\0" + b"\x11" + struct.pack("<d", 4.5))  # indexes 0, 0
    assert decoded(protobuf_of(client), [value]) == ({"amount": [4.5]}, {})


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ('syntax = "proto3";', "PROTOBUF", "must be given in serialized form; the registry gives"),
        ("{}", "AVRO", "must be PROTOBUF, is AVRO"),
        (
            serialized(descriptor_pb2.FileDescriptorProto(name="a", dependency=["b.proto"])),
            "PROTOBUF",
            "must be complete and in order",
        ),
    ],
)
def test_schemas_of_protobuf_that_cannot_be_read(
    client: Client, text: str, kind: str, reason: str
) -> None:
    number = client.add(text, kind)
    _, misfits = decoded(protobuf_of(client), [framed(number, b"\0")])
    assert misfits[0].startswith(f"schema {number} of the registry {reason}")


# -- answers in Avro -------------------------------------------------------------------------------


def read_back(data: bytes) -> dict[str, Any]:
    """A message as fastavro reads it, absent values left out, times as milliseconds."""
    stream = BytesIO(data)
    record: Any = schemaless_reader(stream, parse_schema(dict(PREDICTION)), None)
    assert stream.read() == b""
    return {name: value for name, value in record.items() if value is not None}


def test_answers_of_a_classifier_are_records() -> None:
    table = Table(
        3,
        {
            "event": [0, 63, 2**40],
            "id": ["a", 7, 2**70],
            "prediction": ["fraud", None, "ok"],
            "probabilities": Probabilities(
                ("ok", "fraud"), [[0.25, math.nan, 1.0], [0.75, math.nan, 0.0]]
            ),
            "model": Shared("abc"),
            "topic": Shared("payments"),
            "partition": [0, 1, 64],
            "offset": [0, -1, 2**62],
            "time": [1_700_000_000_123, None, 0],
        },
    )
    first, second, third = map(read_back, AvroRows().encode(table))
    when = datetime.fromtimestamp(1_700_000_000.123, UTC)
    about = {"model": "abc", "topic": "payments"}
    assert first == about | {
        "event": 0, "id": "a", "prediction": "fraud", "partition": 0, "offset": 0, "time": when,
        "probabilities": {"ok": 0.25, "fraud": 0.75},
    }  # fmt: skip
    assert second == about | {"event": 63, "id": 7, "partition": 1, "offset": -1}
    assert third["id"] == str(2**70)
    assert (third["event"], third["offset"], third["partition"]) == (2**40, 2**62, 64)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"prediction": [1.5, math.nan]}, [{"prediction": 1.5}, {}]),
        ({"prediction": [True, False]}, [{"prediction": True}, {"prediction": False}]),
        ({"prediction": [3, "x"]}, [{"prediction": 3}, {"prediction": "x"}]),
        ({"score": [0.5, math.nan]}, [{"score": 0.5}, {}]),
        (
            {"interval": [(1.0, 2.0), (math.nan, math.nan)]},
            [{"interval": {"low": 1.0, "high": 2.0}}, {}],
        ),
        ({"probabilities": Probabilities((), [])}, [{"probabilities": {}}] * 2),
        ({"set": [["a", 3], None]}, [{"set": ["a", "3"]}, {}]),
        ({"set": [[], ["é"]]}, [{"set": []}, {"set": ["é"]}]),
        ({"id": [None, -5]}, [{}, {"id": -5}]),
        ({"topic": ["a", "é"]}, [{"topic": "a"}, {"topic": "é"}]),
    ],
)
def test_answers_of_every_kind_have_one_schema(
    columns: dict[str, Any], expected: list[dict[str, Any]]
) -> None:
    messages = AvroRows().encode(Table(2, {"event": [8, 9], **columns}))
    found = [read_back(message) for message in messages]
    assert found == [{"event": event, **rest} for event, rest in zip([8, 9], expected, strict=True)]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_whole_numbers_are_those_of_the_specification(numbers: list[int]) -> None:
    messages = AvroRows().encode(Table(len(numbers), {"event": numbers}))
    assert messages == [zigzag(number) + b"\0" * 11 for number in numbers]


def test_no_rows_are_no_messages() -> None:
    assert AvroRows().encode(Table(0, {"event": [], "prediction": []})) == []


def test_answers_say_the_number_of_their_schema(
    monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    made = SchemaRegistryClient.new_client
    monkeypatch.setattr(SchemaRegistryClient, "new_client", lambda conf: client)
    number = client.add(PAYMENT, name="payments-value")
    rows = registered_rows(RegistryAddress("mock://"), "predictions")
    monkeypatch.setattr(SchemaRegistryClient, "new_client", made)
    (message,) = rows.encode(Table(1, {"event": [4]}))
    assert message[:5] == b"\0" + (number + 1).to_bytes(4, "big")
    assert read_back(message[5:]) == {"event": 4}
    assert json.loads(client.get_schema(number + 1).schema_str) == PREDICTION


def test_what_was_written_can_be_read_as_a_stream() -> None:
    """The readers of this package take the answers of another run."""
    read = AvroReading(json.dumps(PREDICTION), schema(**features(event="number", score="number")))
    messages = AvroRows().encode(Table(2, {"event": [4, 5], "score": [0.5, math.nan]}))
    assert read.columns(messages) == ({"event": [4, 5], "score": [0.5, None]}, {})


# -- topics ----------------------------------------------------------------------------------------


def test_a_topic_whose_registry_is_away_at_first(
    memory: MemoryBroker,
    served: Callable[[int, dict[int, Any]], tuple[str, list[str | None]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lane waits, is not caught up, and goes on; unknown schemas are dead letters."""
    monkeypatch.setattr(registry_module, "BACK_OFF", (0.001,))
    url, seen = served(5, {3: PAYMENT})
    memory.create("payments")
    good = [framed(3, payment(i / 2, "visa", i, True)) for i in range(4)]
    values = [*good[:2], framed(3, b"\1"), b"{}", *good[2:]]
    memory.produce("payments", [Sent(value, time=1000 + i) for i, value in enumerate(values)])
    form, address = Format("avro"), RegistryAddress(url)
    topics = Topics(
        Connection(memory.bootstrap, "memory"), ("payments",), format=form, registry=address
    )
    source = KafkaSource(topics, schema())
    source.open({})
    (lane,) = source.lanes
    source.wait(0.0)
    assert (lane.ready(), lane.caught_up) == (None, False)
    settle()
    ready = lane.ready()
    assert ready is not None
    batch = source.take(np.zeros(ready.n, np.intp))
    assert len(seen) == 6
    assert batch.block.X[:, 0].tolist() == [0.0, 0.5, 1.0, 1.5]
    assert [(reject.position, reject.raw) for reject in batch.rejects] == [
        (2, values[2]),
        (3, b"{}"),
    ]
    assert batch.positions == {"payments/0": 6}
    source.close()


def test_a_topic_of_protobuf_with_the_time_of_the_record(
    memory: MemoryBroker, payments: Any, descriptors: str
) -> None:
    memory.create("payments")
    value = full(payments).SerializeToString()
    memory.produce("payments", [Sent(value, b"card-1", 1_500, [("region", b"eu")])])
    form = Format("protobuf", message="bank.Payment", descriptors=descriptors)
    topics = Topics(Connection(memory.bootstrap, "memory"), ("payments",), format=form)
    kinds = {"amount": "number", "$header.region": "category"}
    asked = schema(features=kinds, key="$key", time="$timestamp")
    source = KafkaSource(topics, asked)
    source.open({})
    source.wait(0.0)
    block = source.take(np.zeros(1, np.intp)).block
    assert block.X[0, 0] == 1.5
    assert asked.columns.categories["$header.region"].values == ["eu"]
    assert list(block.keys) == ["card-1"]  # type: ignore[arg-type]
    assert list(block.times) == [1_500_000_000]  # type: ignore[arg-type]
    source.close()


@pytest.mark.jit
def test_answers_go_to_a_topic_in_avro(
    memory: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a configuration to messages that fastavro reads."""
    monkeypatch.setitem(kafka._CLIENTS, "kafka-python", kafka._CLIENTS["memory"])
    memory.create("payments", 2)
    memory.create("predictions", 2)
    values = [payment(i / 2, "visa", i, i % 2 == 0) for i in range(50)]
    records = [Sent(v, b"k%d" % i, 1000 + i, partition=i % 2) for i, v in enumerate(values)]
    memory.produce("payments", records)
    (tmp_path / "payment.avsc").write_text(json.dumps(PAYMENT))
    config = {
        "kafka": {"bootstrap": memory.bootstrap},
        "source": {
            "topics": ["payments"], "to": "end",
            "format": {"name": "avro", "schema": str(tmp_path / "payment.avsc")},
        },
        "schema": SCHEMA,
        "pipeline": ["Imputer", "OneHotEncoder", "Normalizer", "KalmanHead"],
        "sink": {"topic": "predictions", "format": "avro"},
        "checkpoint": {"path": str(tmp_path / "checkpoints")},
    }  # fmt: skip
    run(check(config))
    got = memory.consume("predictions")
    found = {read_back(message.value)["id"]: message for message in got if message.value}
    assert sorted(found) == list(range(50))
    for i, message in found.items():
        answer = read_back(message.value or b"")
        assert (answer["topic"], answer["partition"], answer["offset"]) == (
            "payments",
            i % 2,
            i // 2,
        )
        assert message.partition == i % 2
        assert message.key == b"k%d" % i
