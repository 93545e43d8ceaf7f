"""Schemas: how records become X, y and the other columns of a block, once, where they enter."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, model_validator

from streamlearn.block import BOOLEAN, CATEGORY, NUMBER, Block, Features, Vocabulary
from streamlearn.contracts import Json, Reject, State
from streamlearn.errors import UserError
from streamlearn.schema_cells import MISSING

Kind = Literal["number", "category", "boolean", "time", "text", "words"]
Part = Literal[
    "epoch", "hour", "weekday", "day", "month", "hour_cyclic", "weekday_cyclic", "month_cyclic"
]
Unit = Literal["s", "ms", "us", "ns"]
Task = Literal["classification", "regression"]
PARTS: tuple[Part, ...] = ("hour_cyclic", "weekday_cyclic")
BUCKETS = 65_536
_ROLES = ("target", "weight", "id", "key", "time", "group", "label_time")


class Feature(BaseModel):
    """One feature of the records; in a config its kind alone, `age: number`, is enough.

    kind: number (NaN is missing); boolean (1, 0); category (codes in X, for an encoder stage);
        time (the numbers in `parts`); text (words, lower case, counted in `buckets` hashed sparse
        columns); words (a bag: a list of tokens or a table token -> count; a whole token below
        `buckets` is its own column, others are hashed; what is not there is 0).
    parts: for a time: epoch (seconds), hour, weekday (Monday 0), day, month (1 to 12), and as sine
        and cosine hour_cyclic (minute of the day), weekday_cyclic, month_cyclic.
    buckets: number of sparse columns of text and words.
    unit: of a time that comes as a number since 1970.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    parts: tuple[Part, ...] = PARTS
    buckets: int = BUCKETS
    unit: Unit = "s"

    @model_validator(mode="before")
    @classmethod
    def _from_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> "Feature":
        given = self.model_fields_set
        if self.kind != "time" and given & {"parts", "unit"}:
            raise ValueError(f"parts and unit are for the kind time, not {self.kind}")
        if self.kind not in ("text", "words") and "buckets" in given:
            raise ValueError(f"buckets is for the kinds text and words, not {self.kind}")
        if not 1 <= self.buckets <= 2**31:
            raise ValueError(f"buckets must be from 1 to 2147483648, got {self.buckets}")
        return self

    def columns(self, name: str) -> list[tuple[str, str]]:
        """Names and kinds of the columns of X that this feature fills."""
        if self.kind in ("text", "words"):
            return []
        if self.kind == "time":
            return [(column, NUMBER) for part in self.parts for column in _part_names(name, part)]
        return [(name, {"category": CATEGORY, "boolean": BOOLEAN}.get(self.kind, NUMBER))]

    def to_config(self) -> Json:
        """The kind alone where nothing else was declared, else a table."""
        table = self.model_dump(mode="json", exclude_unset=True)
        return self.kind if set(table) == {"kind"} else table


def _part_names(name: str, part: str) -> list[str]:
    if not part.endswith("_cyclic"):
        return [f"{name}_{part}"]
    stem = f"{name}_{part.removesuffix('_cyclic')}"
    return [f"{stem}_sin", f"{stem}_cos"]


class Schema(BaseModel):
    """Which columns of the records are features, target, weight, id, key and time, and their kinds.

    What is in no role and not among the features is not read. The schema also owns the tables that
    grow with the stream: `columns.categories` and `labels`, with codes in the order in which
    accepted rows first show a value; a rejected row never adds one.

    Args:
        target: column of the target; a row without a value there is scored and not learnt.
        task: classification or regression; needed with a target.
        classes: how class names are read: "text", "integer" or "boolean".
        features: name -> kind or `Feature`, in the order of the columns of X.
        id, key: columns that name the event and the entity; whole numbers in text become integers.
        time: column with the time of the record; a row without one is rejected. time_unit: as
            `Feature.unit`.
        weight: column with the sample weight, >= 0; missing means 1.
        group: column by whose values metrics are also shown; it may be a feature as well.
        label_time: column with the time at which the label became known, for a replay with labels
            as late as they were; a row without one never gets its label. Unit as of `time`.
        ignore: columns left out on purpose, kept here as a note.
        missing: text that means "no value", in every column.
    """

    model_config = ConfigDict(extra="forbid")

    target: str | None = None
    task: Task | None = None
    classes: Literal["text", "integer", "boolean"] = "text"
    features: dict[str, Feature]
    id: str | None = None
    key: str | None = None
    time: str | None = None
    time_unit: Unit = "s"
    weight: str | None = None
    group: str | None = None
    label_time: str | None = None
    ignore: tuple[str, ...] = ()
    missing: tuple[str, ...] = MISSING

    _columns: Features = PrivateAttr()
    _labels: Vocabulary | None = PrivateAttr(default=None)
    _notes: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> "Schema":
        if (self.target is None) != (self.task is None):
            raise ValueError("target and task must be given together")
        for role in ("target", "weight", "id", "key", "label_time"):
            if getattr(self, role) in self.features:
                raise ValueError(
                    f"{role} {getattr(self, role)!r} is among the features; a column has one role"
                )
        used = [column for role, column in self.roles().items() if role != "group"]
        for name in self.ignore:
            if name in self.features or name in used:
                raise ValueError(f"ignore: {name!r} is also used; take it out of one of the two")
        self._check_features()
        return self

    def _check_features(self) -> None:
        if not self.features:
            raise ValueError("features must name at least one column")

    def model_post_init(self, context: Any) -> None:
        """Make the columns of X and the class table, both without values yet."""
        pairs = [pair for name, f in self.features.items() for pair in f.columns(name)]
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            twice = max(names, key=names.count)
            raise ValueError(f"two features would fill a column {twice!r}; rename one of them")
        self._columns = Features(names, [kind for _, kind in pairs])
        self._labels = Vocabulary() if self.task == "classification" else None

    # -- what it says ------------------------------------------------------------------------------

    @property
    def columns(self) -> Features:
        """Names, kinds and category tables of the columns of X; `Block.features` of every block."""
        return self._columns

    @property
    def labels(self) -> Vocabulary | None:
        """The class table, with the classes as Python values; None without classes."""
        return self._labels

    @property
    def sparse_width(self) -> int:
        """Number of sparse columns: all buckets; 0 means that `Block.sparse` is None."""
        return sum(f.buckets for f in self.features.values() if f.kind in ("text", "words"))

    def roles(self) -> dict[str, str]:
        """The declared roles: target, weight, id, key, time, group, label_time -> column."""
        names = {r: getattr(self, r) for r in _ROLES}
        return {role: name for role, name in names.items() if name is not None}

    def is_number(self, name: str) -> bool:
        """Whether a column is read as numbers: to all that it is used for, it is one.

        The group of a number goes by its value; a time may be text, so it is read as it stands.
        """
        roles = {role for role, column in self.roles().items() if column == name}
        if name in self.features:
            return self.features[name].kind == "number" and roles <= {"group"}
        return roles == {"weight"} or (roles == {"target"} and self.task == "regression")

    def wanted(self) -> list[str]:
        """The columns that records must have, features first, each once."""
        return list(dict.fromkeys([*self.features, *self.roles().values()]))

    def check_present(self, present: Sequence[str], where: str) -> None:
        """Refuse data without one of the wanted columns: UserError with those that are there."""
        for name in self.wanted():
            if name not in present:
                role = next((r for r, n in self.roles().items() if n == name), "feature")
                raise UserError(f"{where}: there is no {role} column {name!r}; {among(present)}")

    def describe(self) -> str:
        """The schema as a plain table, one column of the records a line, with what was guessed."""
        rows: list[tuple[str, str, str]] = []
        rows += [(name, f.kind, self._notes.get(name, "")) for name, f in self.features.items()]
        rows += [(name, role, self._notes.get(name, "")) for role, name in self.roles().items()]
        rows += [(name, "ignored", self._notes.get(name, "")) for name in self.ignore]
        if self.target is not None:
            note = self._notes.get(self.target, "")
            rows = [r for r in rows if r[:2] != (self.target, "target")]
            rows.insert(0, (self.target, f"target: {self.task}", note))
        first, second = (max(len(str(r[i])) for r in rows) for i in (0, 1))
        return "\n".join(f"{a:<{first}}  {b:<{second}}  {c}".rstrip() for a, b, c in rows)

    # -- config ------------------------------------------------------------------------------------

    @classmethod
    def from_config(cls, table: Any, where: str = "schema") -> Self:
        """A schema from a table as YAML holds it; UserError with the path of the first mistake."""
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            raise UserError(_first_mistake(error, where)) from None
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None

    @classmethod
    def from_yaml(cls, text: str, where: str = "schema") -> "Schema":
        """The inverse of `to_yaml`."""
        return cls.from_config(yaml.safe_load(text), where)

    def to_config(self) -> dict[str, Json]:
        """The declared part as plain values, without what has its default."""
        table = self.model_dump(mode="json", exclude_defaults=True, exclude={"features"})
        return table | {"features": {name: f.to_config() for name, f in self.features.items()}}

    def to_yaml(self) -> str:
        """`to_config` as YAML, in the order of declaration."""
        return yaml.safe_dump(self.to_config(), sort_keys=False, allow_unicode=True)

    @classmethod
    def infer(
        cls,
        data: Any,
        target: str | None = None,
        features: Sequence[str] | None = None,
        ignore: Sequence[str] | None = None,
        task: str | None = None,
        **roles: str | None,
    ) -> "Schema":
        """The schema that the first 1,000 rows (or fewer, at the end of the data) suggest.

        data: a path, `river:Name`, `drift:…`, an Arrow table, a pandas or polars frame, or a list
        of dicts. roles: id, key, time, weight, group, label_time. The rules are those of
        `streamlearn.schema_infer`. What a message of a topic has beside its value, as `$key`, is
        read where it is named.
        Raises: UserError for a column that is not there, no rows, or nothing to learn from.
        """
        from streamlearn.connectors import sample_columns
        from streamlearn.schema_infer import infer_schema

        sample = sample_columns(data)
        if type(data).__name__ == "Topics" or (isinstance(data, str) and data[:6] == "kafka:"):
            asked = {target, *(features or ()), *(ignore or ()), *roles.values()}
            sample = {n: c for n, c in sample.items() if n[:1] != "$" or n in asked}
        return infer_schema(sample, target, features, ignore, task, roles)

    def note(self, notes: Mapping[str, str]) -> None:
        """Keep a remark per column for `describe`; not part of the config."""
        self._notes.update(notes)

    # -- tables that grow --------------------------------------------------------------------------

    def bind(self, features: Features | None, labels: Vocabulary | None) -> None:
        """Go on with the tables of a trained pipeline: its columns first, its codes, its classes.

        Columns new in this schema come after the trained ones. UserError where a trained column is
        absent or of another kind, or where one side has classes and the other a number as target.
        """
        if features is not None:
            self._columns = self._continued(features)
        if labels is not None:
            if self.target is not None and self.task != "classification":
                raise UserError(
                    "schema: task is regression, but the pipeline was trained on classes"
                )
            self._labels = labels

    def _continued(self, features: Features) -> Features:
        own = dict(zip(self._columns.names, self._columns.kinds, strict=True))
        for name, kind in zip(features.names, features.kinds, strict=True):
            if name not in own:
                raise UserError(
                    f"schema: the pipeline was trained with the column {name!r}; {among(list(own))}"
                )
            if own[name] != kind:
                raise UserError(
                    f"schema: {name!r} must be a {kind} as in training, got {own[name]}"
                )
        fresh = [name for name in self._columns.names if features.index(name) < 0]
        return features.plus(fresh, [own[name] for name in fresh]) if fresh else features

    def state(self) -> State:
        """The tables as JSON, for checkpoints; there are no arrays."""
        labels = None if self._labels is None else list(self._labels.values)
        return State({}, {"columns": self._columns.to_json(), "labels": labels})

    def load(self, state: State) -> None:
        """Take over tables that `state` gave, of a schema with the same declaration."""
        labels = state.table["labels"]
        self._columns = self._continued(Features.from_json(state.table["columns"]))
        self._labels = None if labels is None else Vocabulary(labels)

    # -- decoding ----------------------------------------------------------------------------------

    def decode(self, records: Iterable[Mapping[str, Any]]) -> tuple[Block, list[Reject]]:
        """Records as one block, and those that do not fit, by their place from 0."""
        from streamlearn.schema_columns import decode_columns, raw_record

        rows = list(records)
        columns = {name: [row.get(name) for row in rows] for name in self.wanted()}
        decoded, misfits = decode_columns(self, columns, len(rows))
        rejects = [Reject("records", i, misfits[i], raw_record(rows[i])) for i in sorted(misfits)]
        return decoded.take(0, decoded.n), rejects


class LabelSchema(Schema):
    """Which columns of a stream of labels name the event, the label and when it came.

    As `Schema`, but without features; id and target must be named.
    """

    features: dict[str, Feature] = {}

    def _check_features(self) -> None:
        for role in ("id", "target"):
            if getattr(self, role) is None:
                raise ValueError(f"{role} must name a column of the labels")


def among(present: Sequence[str]) -> str:
    """The columns that are there, for an error message; at most 30 of them."""
    listed = ", ".join(map(str, present[:30]))
    more = f" and {len(present) - 30} more" if len(present) > 30 else ""
    return f"the columns are {listed}{more}"


def _first_mistake(error: ValidationError, where: str) -> str:
    first = error.errors(include_url=False)[0]
    path = ".".join([where, *(str(part) for part in first["loc"])])
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{path}: there is no such key; take it out or correct its spelling"
    value = first.get("input")
    got = "" if isinstance(value, (dict, BaseModel)) else f", got {value!r}"
    return f"{path}: {text[:1].lower()}{text[1:]}{got}"
