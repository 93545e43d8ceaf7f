"""What the first rows suggest: a kind for every column, a task for the target, and why.

Rules, on the values of the sample that are not missing (text is judged by what it reads as, so that
CSV, JSON Lines, Parquet and dicts agree where their values do):

- no value at all, or none that can be read (bytes, durations): ignored. Lists, and tables of
  counts: words; a table of anything else, as in nested JSON, and lists of numbers that are not
  whole: ignored.
- booleans, or text of nothing but true and false: boolean. Numbers, or text of nothing but numbers
  (none with a leading zero, like a postal code): number. ISO times: time.
- whole numbers, all different, under a name like id, row, index or …_id: ignored: the row's name.
- of those that are ignored, one called id, event_id, uuid or guid whose values are all there and
  all different names the event: it is the id, where none is given.
- other text: of 4 words or more on average and mostly different, text; else, mostly different (more
  than 50 values and more than half of the rows), ignored; else category.
- the target: numbers (by that rule) are classes when they are whole with at most 2 values, or with
  at most 20 and written as integers; other numbers are a regression; all else are classes.
"""

import datetime
import decimal
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from streamlearn.errors import UserError
from streamlearn.schema import Feature, Schema, among
from streamlearn.schema_bags import bag
from streamlearn.schema_cells import (
    MISSING,
    Misfit,
    category,
    is_missing,
    number,
    reads_as_integer,
    reads_as_time,
    shown,
    whole_number,
)
from streamlearn.wording import counted

SAMPLE = 1000  # rows
FEW_CLASSES = 20
_ROW_NAME = re.compile(r"(id|idx|index|row|row_?id|row_?number|uuid|guid|.*_id|column_1)", re.I)
_EVENT_NAME = re.compile(r"id|event_?id|uuid|guid", re.I)
_TRUTH = {"true", "True", "TRUE", "false", "False", "FALSE"}


def infer_schema(
    sample: Mapping[str, Sequence[Any]],
    target: str | None,
    features: Sequence[str] | None,
    ignore: Sequence[str] | None,
    task: str | None,
    roles: Mapping[str, str | None],
) -> Schema:
    """A schema for columns of sample values; `Schema.infer` says what the arguments mean."""
    present = list(sample)
    named = {role: name for role, name in roles.items() if name is not None}
    _check_names(present, target, features, ignore, named)
    notes: dict[str, str] = {}
    kinds, left_out = _kinds(sample, _candidates(present, target, features, ignore, named), notes)
    if features is not None:
        kinds |= {name: _readable(sample[name]) for name in features if name in left_out}
        left_out = [name for name in left_out if name not in features]
    if not kinds:
        why = "".join(f"; {name!r}: {notes[name]}" for name in left_out[:5])
        raise UserError(f"schema: no column can serve as a feature; {among(present)}{why}")
    if "id" not in named:
        named |= _event_name(sample, left_out, notes)
    table: dict[str, Any] = dict(named) | {"features": dict(kinds)}
    unused = [name for name in left_out if name not in named.values()]
    table["ignore"] = _ignored(present, ignore, unused)
    if target is not None:
        table |= target_of(target, sample[target], task, notes)
    schema = Schema.from_config(table)
    schema.note(notes)
    return schema


def _check_names(
    present: Sequence[str],
    target: str | None,
    features: Sequence[str] | None,
    ignore: Sequence[str] | None,
    roles: Mapping[str, str],
) -> None:
    named = {"target": [target], "features": features, "ignore": ignore}
    named |= {role: [name] for role, name in roles.items()}
    for what, names in named.items():
        for name in names or ():
            if name is not None and not isinstance(name, str):
                raise UserError(f"{what}: must be a name as text, got {name!r}; {among(present)}")
            if name is not None and name not in present:
                close = get_close_matches(name, present, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise UserError(f"{what}: there is no column {name!r}; {hint}{among(present)}")


def _candidates(
    present: Sequence[str],
    target: str | None,
    features: Sequence[str] | None,
    ignore: Sequence[str] | None,
    roles: Mapping[str, str],
) -> list[str]:
    if features is not None:
        return list(features)
    spoken_for = [name for role, name in roles.items() if role != "group"]  # it may be a feature
    taken = {target, *(ignore or ()), *spoken_for}
    return [name for name in present if name not in taken]


def _ignored(
    present: Sequence[str], ignore: Sequence[str] | None, left_out: Sequence[str]
) -> list[str]:
    unwanted = {*(ignore or ()), *left_out}
    return [name for name in present if name in unwanted]


def _kinds(
    sample: Mapping[str, Sequence[Any]], names: Sequence[str], notes: dict[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Kinds of the columns that serve as features, and the names of those that do not."""
    kinds: dict[str, str] = {}
    left_out = []
    for name in names:
        kind, notes[name] = kind_of_column(name, sample[name])
        if kind is None:
            left_out.append(name)
        else:
            kinds[name] = kind
    return kinds, left_out


def _event_name(
    sample: Mapping[str, Sequence[Any]], left_out: Sequence[str], notes: dict[str, str]
) -> dict[str, str]:
    """The role id for the column that names the event, if one does."""
    for name in left_out:
        known = _known(sample[name])
        if _EVENT_NAME.fullmatch(name) and 1 < len(known) == len(sample[name]) == len(set(known)):
            notes[name] = "guessed: it names the event"
            return {"id": name}
    return {}


def _readable(values: Sequence[Any]) -> str:
    """The kind of a column that was asked for by name, though it looks unsuitable."""
    known = _known(values)
    return "number" if not known or all(_is_number(v) for v in known) else "category"


def _known(values: Sequence[Any]) -> list[Any]:
    plain = [v.item() if isinstance(v, np.generic) else v for v in values]
    return [
        v for v in plain if not is_missing(v) and not (isinstance(v, str) and v.strip() in MISSING)
    ]


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        try:
            number(value, MISSING)
        except Misfit as reason:
            return "finite" in str(reason)
        return not re.match(r"\s*[+-]?0\d", value)
    return isinstance(value, (int, float, decimal.Decimal))


def kind_of_column(name: str, values: Sequence[Any]) -> tuple[str | None, str]:
    """The kind for the values of a column, None to leave it out; and a remark."""
    known = _known(values)
    if not known:
        return None, f"ignored: no value in the first {len(values)} rows"
    bags = [v for v in known if isinstance(v, (list, tuple, dict, set))]
    if bags:
        return _kind_of_bags(bags)
    if all(isinstance(v, bool) or (isinstance(v, str) and v in _TRUTH) for v in known):
        return "boolean", _gaps(values, known)
    if all(_is_number(v) for v in known):
        if _names_the_row(name, known):
            return None, "ignored: it numbers the rows"
        return "number", _gaps(values, known)
    if all(_is_time(v) for v in known):
        return "time", "hour and weekday as sine and cosine"
    if not any(_is_readable(v) for v in known):
        return None, _unreadable(known[0])
    return _kind_of_text([str(v) for v in known], values)


def _is_readable(value: Any) -> bool:
    """False for bytes, durations and the like, which no kind takes."""
    try:
        category(value, MISSING)
    except Misfit:
        return False
    return True


def _kind_of_bags(values: Sequence[Any]) -> tuple[str | None, str]:
    odd = [value for value in values if not _is_bag(value)]
    if odd:
        return None, _unreadable(odd[0])
    tokens = (token for value in values if not isinstance(value, dict) for token in value)
    if any(isinstance(token, float) for token in tokens):
        return None, f"ignored: {shown(values[0])} is no list of words; give each number a column"
    return "words", "lists of tokens"


def _is_bag(value: Any) -> bool:
    """False for a table of other things than counts, as in nested JSON, and for a set."""
    try:
        bag(value, Feature(kind="words"), frozenset(MISSING))
    except Misfit:
        return False
    return True


def _unreadable(value: Any) -> str:
    return f"ignored: values such as {shown(value)} cannot be read"


def _is_time(value: Any) -> bool:
    if isinstance(value, str):
        return reads_as_time(value)
    return isinstance(value, (datetime.date, np.datetime64))


def _gaps(values: Sequence[Any], known: Sequence[Any]) -> str:
    gaps = len(values) - len(known)
    return f"{gaps} of the first {len(values)} missing" if gaps else ""


def _names_the_row(name: str, known: Sequence[Any]) -> bool:
    whole = all(float(v).is_integer() for v in known)
    return bool(
        whole and len(known) >= 20 and len(set(known)) == len(known) and _ROW_NAME.fullmatch(name)
    )


def _kind_of_text(texts: Sequence[str], values: Sequence[Any]) -> tuple[str | None, str]:
    distinct = len(set(texts))
    mostly_different = distinct > 50 and distinct > len(texts) / 2
    words = sum(len(text.split()) for text in texts) / len(texts)
    if words >= 4 and distinct > len(texts) / 2:
        return "text", f"{words:.0f} words on average"
    if mostly_different:
        return None, f"ignored: {distinct} different texts in {len(texts)} rows"
    return "category", f"{distinct} values, {_gaps(values, texts)}".rstrip(", ")


def target_of(
    name: str, values: Sequence[Any], task: str | None, notes: dict[str, str]
) -> dict[str, Any]:
    """Target, task and how classes are read, with the reason."""
    known = _known(values)
    if not known:
        raise UserError(f"target: {name!r} has no value in the first {len(values)} rows")
    if not any(_is_readable(v) for v in known):
        raise UserError(f"target: {name!r} must be text or numbers, got {shown(known[0])}")
    guessed, reason = guess_task(known)
    if task not in (None, "classification", "regression"):
        raise UserError(f"task: must be classification or regression, got {task!r}")
    if task == "regression" and not all(_is_number(v) for v in known):
        bad = next(v for v in known if not _is_number(v))
        raise UserError(f"task: regression needs numbers in {name!r}, got {bad!r}")
    notes[name] = f"guessed: {reason}" if task is None else "as asked"
    chosen = task or guessed
    table: dict[str, Any] = {"target": name, "task": chosen}
    if chosen == "classification":
        table["classes"] = _classes(known)
    return table


def guess_task(known: Sequence[Any]) -> tuple[str, str]:
    """The task for the values of a target, and the reason in words."""
    if not all(_is_number(v) for v in known) or all(isinstance(v, bool) for v in known):
        names = set(map(str, known))
        if len(names) == 1:
            return "classification", "1 class, which is not a number"
        return "classification", f"{len(names)} classes that are not numbers"
    numbers = {float(v) for v in known}
    whole = all(v.is_integer() for v in numbers)
    integers = all(
        isinstance(v, int) or (isinstance(v, str) and reads_as_integer(v)) for v in known
    )
    if whole and (len(numbers) <= 2 or (integers and len(numbers) <= FEW_CLASSES)):
        return "classification", counted(len(numbers), "whole value")
    return "regression", counted(len(numbers), "different number")


def _classes(known: Sequence[Any]) -> str:
    if all(isinstance(v, bool) or (isinstance(v, str) and v in _TRUTH) for v in known):
        return "boolean"
    if all(_reads_whole(v) for v in known):
        return "integer"
    return "text"


def _reads_whole(value: Any) -> bool:
    if isinstance(value, (bool, int)):
        return True
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, str) and _is_number(value) and whole_number(value.strip()) is not None
