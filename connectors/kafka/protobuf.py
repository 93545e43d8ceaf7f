"""Protobuf messages, by Google's protobuf.

The fields of the message are columns under their own names. A field with presence (optional, oneof,
message) that is not set is missing; one without holds its default. An enum is the name of its
value, a wrapper its value, a timestamp a time; other messages inside do not fit a column.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    json_format,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from streamlearn.connectors.kafka.decode import value_names
from streamlearn.connectors.kafka.location import Format
from streamlearn.connectors.kafka.schemas import (
    BadSchema,
    Columns,
    Registered,
    grouped,
    stamps,
    timed,
)
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_columns import Misfits

Values = Callable[[Sequence[Any]], list[Any]]  # messages -> the values of one field
_GOOGLES = {  # files that others import and do not bring along; none of them imports another
    module.DESCRIPTOR.name: module.DESCRIPTOR.serialized_pb
    for module in (
        any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2,
        descriptor_pb2,
    )
}  # fmt: skip
_TIME = "google.protobuf.Timestamp"
_WRAPPERS = {
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}


class ProtobufReading:
    """Reads the messages of one class. Cost: 2 us a message of 10 fields."""

    def __init__(self, kind: type[Message], schema: Schema) -> None:
        self._kind = kind
        fields = kind.DESCRIPTOR.fields_by_name
        names = [name for name in value_names(schema.wanted()) if name in fields]
        self._times = {name for name in timed(schema) if name in names and _is_time(fields[name])}
        self._fields = {name: _values(fields[name], name in self._times) for name in names}

    def columns(self, bodies: Sequence[bytes]) -> tuple[Columns, Misfits]:
        """As `MessageDecoder.columns`."""
        misfits: Misfits = {}
        try:
            messages = list(map(self._kind.FromString, bodies))
        except DecodeError:
            messages = [self._message(body, row, misfits) for row, body in enumerate(bodies)]
        columns: Columns = {}
        for name, values in self._fields.items():
            found = values(messages)
            for row in misfits:  # an empty message stands there, with defaults
                found[row] = None
            if name in self._times:
                columns[name] = stamps(found, 1, name, misfits)
            else:
                columns[name] = found
        return columns, misfits

    def _message(self, body: bytes, row: int, misfits: Misfits) -> Message:
        try:
            return self._kind.FromString(body)
        except DecodeError:
            misfits[row] = f"must be a Protobuf message {self._kind.DESCRIPTOR.full_name}"
            return self._kind()


def _is_time(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and kind.full_name == _TIME and not _repeated(field)


def _repeated(field: FieldDescriptor) -> bool:
    """Whether a field holds many values; older versions have a label, newer ones a flag."""
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(field.label == FieldDescriptor.LABEL_REPEATED)


def _values(field: FieldDescriptor, as_time: bool) -> Values:
    """How the values of a field are taken out of many messages."""
    get = attrgetter(field.name)
    one = _converter(field, as_time)
    if _repeated(field):
        return _many(field, get, one)
    if field.has_presence:
        name = field.name
        if one is None:
            return lambda messages: [get(m) if m.HasField(name) else None for m in messages]
        return lambda messages: [one(get(m)) if m.HasField(name) else None for m in messages]
    if one is None:
        return lambda messages: list(map(get, messages))
    return lambda messages: [one(get(m)) for m in messages]


def _many(
    field: FieldDescriptor, get: Callable[[Any], Any], one: Callable[[Any], Any] | None
) -> Values:
    """Lists, and tables for maps."""
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        value = _converter(kind.fields_by_name["value"], False) or _same
        return lambda messages: [{k: value(v) for k, v in get(m).items()} for m in messages]
    convert = one or _same
    return lambda messages: [[convert(value) for value in get(m)] for m in messages]


def _same(value: Any) -> Any:
    return value


def _converter(field: FieldDescriptor, as_time: bool) -> Callable[[Any], Any] | None:
    """What makes one value of a field plain; None where it is."""
    kind = field.message_type
    if field.enum_type is not None:
        return _enum(field.enum_type)
    if kind is None:
        return None
    if kind.full_name == _TIME:
        return _nanoseconds if as_time else json_format.MessageToDict
    if kind.full_name in _WRAPPERS:
        return attrgetter("value")
    return _table


def _enum(kind: EnumDescriptor) -> Callable[[int], str]:
    names = {number: value.name for number, value in kind.values_by_number.items()}
    return lambda number: names.get(number) or str(number)


def _nanoseconds(value: Any) -> int:
    return int(value.seconds) * 10**9 + int(value.nanos)


def _table(value: Message) -> Any:
    return json_format.MessageToDict(value, preserving_proto_field_name=True)


# -- schemas ---------------------------------------------------------------------------------------


class _Indexed:
    """Messages of a registry's schema: each says by indexes which type of the file it has."""

    def __init__(self, types: Sequence[Descriptor], schema: Schema) -> None:
        self._types, self._schema = types, schema
        self._readings: dict[tuple[int, ...], ProtobufReading | None] = {}

    def columns(self, bodies: Sequence[bytes]) -> tuple[Columns, Misfits]:
        """As `MessageDecoder.columns`."""
        paths = [_path(body) for body in bodies]
        return grouped(
            [path for path, _ in paths],
            [body[start:] for body, (_, start) in zip(bodies, paths, strict=True)],
            self._read,
        )

    def _read(self, path: tuple[int, ...], bodies: Sequence[bytes]) -> tuple[Columns, Misfits]:
        if path not in self._readings:
            self._readings[path] = self._reading(path)
        reading = self._readings[path]
        if reading is None:
            reason = "must say which message of its schema it is, by indexes after the number"
            return {}, dict.fromkeys(range(len(bodies)), reason)
        return reading.columns(bodies)

    def _reading(self, path: tuple[int, ...]) -> ProtobufReading | None:
        types, found = self._types, None
        for index in path:
            if not 0 <= index < len(types):
                return None
            found = types[index]
            types = found.nested_types
        if found is None:
            return None
        return ProtobufReading(message_factory.GetMessageClass(found), self._schema)


def _path(body: bytes) -> tuple[tuple[int, ...], int]:
    """The indexes before a message, and where it begins; () where they cannot be read."""
    if body[:1] == b"\0":  # in place of [0], the first type
        return (0,), 1
    count, at = _zigzag(body, 0)
    if not 0 < count <= 100:
        return (), 0
    found = []
    for _ in range(count):
        index, at = _zigzag(body, at)
        found.append(index)
    return tuple(found), at


def _zigzag(body: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends; -1 where it does not within five bytes."""
    number = shift = 0
    for byte in body[at : at + 5]:
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return (number >> 1) ^ -(number & 1), at
    return -1, at


def _pool(files: Sequence[descriptor_pb2.FileDescriptorProto]) -> descriptor_pool.DescriptorPool:
    """Files, each after those it imports, with Google's own ones. Raises: BadSchema."""
    pool = descriptor_pool.DescriptorPool()
    present = {file.name for file in files}
    try:
        for file in files:
            for name in file.dependency:
                if name not in present and name in _GOOGLES:
                    pool.AddSerializedFile(_GOOGLES[name])
                    present.add(name)
            pool.AddSerializedFile(file.SerializeToString())
    except TypeError as error:
        raise BadSchema(f"must be complete and in order: {error}") from None
    return pool


def _file(name: str, text: str) -> descriptor_pb2.FileDescriptorProto:
    """A file of the registry in serialized form, base64."""
    try:
        file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except (DecodeError, binascii.Error, ValueError):
        raise BadSchema("must be given in serialized form; the registry gives text") from None
    file.name = name
    return file


def registered(form: Format, schema: Schema) -> Callable[[Registered], _Indexed]:
    """What makes a registry's schema a reading, or raises BadSchema."""

    def compiled(found: Registered) -> _Indexed:
        if found.kind != "PROTOBUF":
            raise BadSchema(f"must be PROTOBUF, is {found.kind}")
        main = _file("default", found.text)
        pool = _pool([*(_file(name, text) for name, text in found.references), main])
        return _Indexed([_type(pool, main, message.name) for message in main.message_type], schema)

    return compiled


def _type(
    pool: descriptor_pool.DescriptorPool, file: descriptor_pb2.FileDescriptorProto, name: str
) -> Descriptor:
    return pool.FindMessageTypeByName(f"{file.package}.{name}" if file.package else name)


def declared(form: Format, schema: Schema) -> ProtobufReading:
    """The reading of a message in a descriptor set, by its full name. Raises: UserError."""
    path = form.descriptors
    if path is None or form.message is None:
        raise UserError("format: protobuf needs descriptors and message, or kafka.registry")
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(path).read_bytes()).file
        kind = _pool(files).FindMessageTypeByName(form.message)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except DecodeError:
        how = "protoc --include_imports --descriptor_set_out=FILE"
        raise UserError(f"{path}: must be a descriptor set; make one by {how}") from None
    except BadSchema as reason:
        raise UserError(f"{path}: {reason}") from None
    except KeyError:
        raise UserError(f"{path}: there is no message {form.message!r}") from None
    return ProtobufReading(message_factory.GetMessageClass(kind), schema)
