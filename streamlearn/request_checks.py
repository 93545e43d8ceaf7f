"""What bodies of requests must be: checked whole before anything of them is kept."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np

from streamlearn.contracts import Json
from streamlearn.errors import UserError
from streamlearn.schema import LabelSchema, Schema
from streamlearn.schema_cells import shown
from streamlearn.schema_columns import Decoded, decode_columns
from streamlearn.topics import TIMESTAMP

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="sorted").encode
_DEEP = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
ID, FEATURES, LABEL, TIME = "id", "features", "label", "time"
_READ_AS: dict[str, Any] = {"text": str, "integer": int, "boolean": bool}
_RULES = {"text": "a text", "integer": "a whole number", "boolean": "true or false"}


class RefusedError(UserError):
    """A request that is not taken; nothing of it enters the journal."""


class Item(NamedTuple):
    """One event or label of a request. id: as the schema reads it. text: its columns as JSON.

    label: as the schema reads it; None of an event.
    """

    id: Any
    text: bytes
    label: Any = None


class Checks:
    """The rules of one schema. No table grows by a check.

    Args:
        events, labels: schemas of both. most: items of a request.
    Cost: 40 us a request, and 5 us an item.
    """

    def __init__(self, events: Schema, labels: LabelSchema, most: int) -> None:
        self.events, self.labels = _twin(events), _twin(labels)
        self._most = most
        roles = [n for n in events.wanted() if n not in (events.id, TIMESTAMP)]
        self.names = roles
        self._names = frozenset(roles)
        self.timed = labels.time not in (None, TIMESTAMP)

    def predict(self, body: bytes) -> tuple[list[Item], bool]:
        """The events of `{"id", "features"}`, or of a list of these; and whether it was a list.

        Raises: RefusedError with what is wrong.
        """
        items, listed = self._items(body, (ID, FEATURES))
        records = [self._event(item, where) for item, where in items]
        ids = _ids(self._decoded(self.events, records, items, "event"))
        for record, id in zip(records, ids, strict=True):
            record[str(self.events.id)] = id  # 7 and "7" are one event
        return [Item(*one) for one in zip(ids, _texts(records), strict=True)], listed

    def learn(self, body: bytes) -> tuple[list[Item], bool]:
        """The labels of `{"id", "label"}`, or of a list of these; and whether it was a list.

        Where the schema names a time column there is a `time`, too.
        Raises: RefusedError with what is wrong.
        """
        fields = (ID, LABEL, TIME) if self.timed else (ID, LABEL)
        items, listed = self._items(body, fields)
        schema = self.labels
        names = {ID: schema.id, LABEL: schema.target, TIME: schema.time}
        records = [{str(names[k]): v for k, v in item.items()} for item, _ in items]
        decoded = self._decoded(schema, records, items, "label")
        values = _labels(decoded)
        for (_, where), value in zip(items, values, strict=True):
            self._check_label(value, where)
        texts = _texts(records)
        zipped = zip(_ids(decoded), texts, values, strict=True)
        return [Item(*one) for one in zipped], listed

    def _check_label(self, value: Any, where: str) -> None:
        """A label has a value, of the kind that the description says."""
        if value is None:
            raise RefusedError(f"{where}{LABEL}: must have a value")
        kind = self.labels.classes
        if self.labels.task == "classification" and not isinstance(value, _READ_AS[kind]):
            raise RefusedError(
                f"{where}{LABEL}: must be {_RULES[kind]}, as `classes: {kind}` of the schema says, "
                f"got {shown(value)}"
            )

    def _items(
        self, body: bytes, fields: tuple[str, ...]
    ) -> tuple[list[tuple[dict[str, Any], str]], bool]:
        """The objects of a body, and where each stands."""
        try:
            data = _decode(body)
        except _DEEP as error:
            raise RefusedError(f"body: must be JSON: {error}") from None
        listed = isinstance(data, list)
        given = data if listed else [data]
        if not 1 <= len(given) <= self._most:
            raise RefusedError(f"body: must have from 1 to {self._most} items, got {len(given)}")
        items = [(item, f"[{i}]." if listed else "") for i, item in enumerate(given)]
        for item, where in items:
            _check_fields(item, fields, where)
        return items, listed

    def _event(self, item: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The columns of an event."""
        features = item[FEATURES]
        if not isinstance(features, dict):
            raise RefusedError(f"{where}{FEATURES}: must be an object, got {shown(features)}")
        if not features.keys() <= self._names:
            name = min(features.keys() - self._names)
            names = ", ".join(self.names[:30])
            raise RefusedError(f"{where}{FEATURES}.{name}: is an unknown field; there are {names}")
        return {str(self.events.id): item[ID], **features}

    def _decoded(
        self, schema: Schema, records: list[dict[str, Any]], items: list[Any], what: str
    ) -> Decoded:
        """All rows, decoded; no table has grown."""
        names = [name for name in schema.wanted() if name != TIMESTAMP]
        columns: dict[str, Any] = {n: [r.get(n) for r in records] for n in names}
        if schema.time == TIMESTAMP:
            columns[TIMESTAMP] = [0] * len(records)
        decoded, misfits = decode_columns(schema, columns, len(records))
        if misfits:
            row = min(misfits)
            raise RefusedError(f"{items[row][1]}{what}: {misfits[row]}")
        for (item, where), id in zip(items, _ids(decoded), strict=True):
            if id is None:
                raise RefusedError(f"{where}{ID}: must name the event, got {shown(item[ID])}")
        return decoded


def _twin(schema: Any) -> Any:
    """A schema with tables of its own."""
    return type(schema).from_config(schema.to_config())


def _check_fields(item: Any, fields: tuple[str, ...], where: str) -> None:
    if not isinstance(item, dict):
        raise RefusedError(f"{where or 'body: '}must be an object, got {shown(item)}")
    for name in fields:
        if name not in item:
            raise RefusedError(f"{where}{name}: must be there")
    for name in item:
        if name not in fields:
            raise RefusedError(f"{where}{name}: is an unknown field; there are {', '.join(fields)}")
    if isinstance(item[ID], (bool, float)) or not isinstance(item[ID], (int, str)):
        raise RefusedError(f"{where}{ID}: must be a text or a whole number, got {shown(item[ID])}")


def _texts(records: list[dict[str, Any]]) -> list[bytes]:
    try:
        return [_encode(record) for record in records]
    except (OverflowError, *_DEEP) as error:
        raise RefusedError(f"body: must have numbers of 64 bits: {error}") from None


def _ids(decoded: Decoded) -> list[Any]:
    return [] if decoded.ids is None else decoded.ids.tolist()


def _labels(decoded: Decoded) -> list[Any]:
    """The labels as values; None where there is none."""
    y = decoded.y
    if not isinstance(y, np.ndarray):  # codes of the values in this request
        return [None if code < 0 else y.values[code] for code in y.codes.tolist()]
    return [None if value != value else value for value in y.tolist()]


# -- the description -------------------------------------------------------------------------------

_KINDS: dict[str, Json] = {
    "number": {"type": ["number", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "category": {"type": ["string", "number", "boolean", "null"]},
    "time": {"type": ["string", "number", "null"]},
    "text": {"type": ["string", "null"]},
    "words": {"type": ["array", "object", "null"]},
}
_MOMENT: Json = {"type": ["string", "number"]}  # a time that must be there
_CLASSES = {"text": "string", "integer": "integer", "boolean": "boolean"}


def openapi(checks: Checks, max_body: int, token: bool) -> dict[str, Json]:
    """The description of the service, OpenAPI 3.1, from its schemas."""
    schemas = _schemas(checks)
    paths: dict[str, Json] = {
        "/predict": {"post": _operation("Score events; each is known by its id from then on.",
                                        "Event", "Answer", max_body)},
        "/learn": {"post": _operation("Teach the labels of events, by id.",
                                      "Label", "Taken", max_body)},
    }  # fmt: skip
    plain = {"/metrics": "Metrics for Prometheus.", "/health/live": "Whether the loop moves.",
             "/health/ready": "Whether requests are taken.", "/openapi.json": "This."}  # fmt: skip
    for path, text in plain.items():
        answers = {"200": {"description": text}}
        if path.startswith("/health"):
            answers["503"] = {"description": "It is not so; the body says why."}
        paths[path] = {"get": {"summary": text, "responses": answers}}
    found: dict[str, Json] = {
        "openapi": "3.1.0",
        "info": {"title": "streamlearn", "version": "1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if token:
        scheme = {"type": "http", "scheme": "bearer"}
        found["components"]["securitySchemes"] = {"token": scheme}
        found["security"] = [{"token": []}]
    return found


def _schemas(checks: Checks) -> dict[str, Json]:
    events, labels = checks.events, checks.labels
    id = {"type": ["string", "integer"]}
    classes = labels.task == "classification"
    label = {"type": _CLASSES[labels.classes] if classes else "number"}
    features = {name: _KINDS[f.kind] for name, f in events.features.items()}
    others: dict[str, Json] = {name: {} for name in checks.names if name not in features}
    timed = () if events.time in (None, TIMESTAMP) else (str(events.time),)
    others |= dict.fromkeys(timed, _MOMENT)
    answer: dict[str, Json] = {"id": id, "event": {"type": "integer"},
                               "prediction": {"type": [label["type"], "null"]}}  # fmt: skip
    if classes:
        share = {"type": ["number", "null"]}
        answer["probabilities"] = {"type": "object", "additionalProperties": share}
        answer["set"] = {"type": ["array", "null"], "items": label}
    told = {"id": id, "label": label} | ({TIME: _MOMENT} if checks.timed else {})
    status = {"type": "string", "enum": ["accepted", "repeated"]}
    return {
        "Event": _object(
            {"id": id, "features": _object(features | others, timed)}, ("id", FEATURES)
        ),
        "Label": _object(told, tuple(told)),
        "Answer": _object(answer, ("id", "prediction"), more=True),
        "Taken": _object({"id": id, "status": status}, ("id", "status")),
        "Error": _object({"error": {"type": "string"}}, ("error",)),
    }


def _object(properties: Json, required: tuple[str, ...], more: bool = False) -> dict[str, Json]:
    found = {"type": "object", "properties": properties, "additionalProperties": more}
    return found | ({"required": list(required)} if required else {})


def _operation(summary: str, given: str, answer: str, max_body: int) -> dict[str, Json]:
    def one_or_many(name: str) -> Json:
        found = {"$ref": f"#/components/schemas/{name}"}
        return {
            "application/json": {"schema": {"oneOf": [found, {"type": "array", "items": found}]}}
        }

    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    refused = {
        "409": "The id stands for something else.",
        "413": f"The body has more than {max_body} bytes.",
        "422": "The body does not fit; nothing of it was kept.",
        "503": "Too many requests wait, or the server starts or stops; ask again.",
    }
    answers: dict[str, Json] = {code: {"description": text, "content": error}
                                for code, text in refused.items()}  # fmt: skip
    answers["200"] = {"description": "Kept durably, and done.", "content": one_or_many(answer)}
    body = {"required": True, "content": one_or_many(given)}
    return {"summary": summary, "requestBody": body, "responses": answers}
