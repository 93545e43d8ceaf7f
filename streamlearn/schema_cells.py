"""What one value means: the grammar of numbers, booleans, times, categories and classes.

Every decoder, column-wise or row by row, gives what these functions give. Text follows one grammar
wherever it comes from; a value that does not fit raises `Misfit`: the rule and the value.
"""

import datetime
import decimal
import math
import re
from collections.abc import Collection
from typing import Any

import numpy as np

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "?")  # the tokens a schema starts with
NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
BOOLEANS = {
    "true": True, "True": True, "TRUE": True, "1": True,
    "false": False, "False": False, "FALSE": False, "0": False,
}  # fmt: skip

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_NAN = re.compile(r"[+-]?nan(?:\([a-z0-9_]*\))?", re.ASCII | re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.ASCII | re.IGNORECASE)
_HALF = re.compile("[\ud800-\udfff]")
_INTEGER = re.compile(r"0|-?[1-9]\d{0,999}", re.ASCII)  # int() refuses 4,301 digits
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[ T](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?(Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
_DAY0 = datetime.date(1970, 1, 1).toordinal()
_LEAST, _MOST = -(2**63) + 1, 2**63 - 1


class Misfit(ValueError):
    """A value that does not fit its column; the message continues the column's name."""


def shown(value: Any) -> str:
    """A value as error messages show it, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def is_missing(value: Any) -> bool:
    """True for None, NaN, pandas' NA and NaT, numpy's NaT; text is not judged here."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, np.datetime64):
        return bool(np.isnat(value))
    return isinstance(value, (float, np.floating, decimal.Decimal)) and math.isnan(value)


def _plain(value: Any) -> Any:
    """A numpy scalar as the Python value it stands for."""
    return value.item() if isinstance(value, np.generic) and value.dtype.kind in "biufU" else value


def number(value: Any, missing: Collection[str]) -> float:
    """A finite number or NaN for missing.

    Numbers are taken as they are (integers beyond 2^53 are rounded to the nearest float64, booleans
    are 1 and 0). Text, blanks and tabs around it aside: decimal digits with an optional sign, point
    and exponent. No underscores, hexadecimals or thousands separators.
    """
    value = _plain(value)
    if is_missing(value):
        return math.nan
    if isinstance(value, str):
        return _text_number(value, missing)
    if not isinstance(value, (int, float, decimal.Decimal)):
        raise Misfit(f"must be a number, got {shown(value)}")
    return _finite(value)


def _finite(value: Any) -> float:
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if math.isinf(result):
        raise Misfit(f"must be finite, got {shown(value)}")
    return result


def _text_number(text: str, missing: Collection[str]) -> float:
    bare = text.strip(" \t")
    if text in missing or bare in missing or _NAN.fullmatch(bare):
        return math.nan
    if _INFINITE.fullmatch(bare):
        raise Misfit(f"must be finite, got {shown(text)}")
    if not _NUMBER.fullmatch(bare):
        raise Misfit(f"must be a number, got {shown(text)}")
    result = float(bare)
    if math.isinf(result):
        raise Misfit(f"must be finite, got {shown(text)}")
    return result


def boolean(value: Any, missing: Collection[str]) -> float:
    """1, 0, or NaN for missing: true, True, TRUE, 1; false, False, FALSE, 0; values or text."""
    bare = value.strip(" \t") if isinstance(value, str) else ""
    if bare in BOOLEANS and bare not in missing:
        return float(BOOLEANS[bare])
    try:
        result = number(value, missing)
    except Misfit:
        result = math.inf
    if result not in (0.0, 1.0) and not math.isnan(result):
        raise Misfit(f"must be true or false, got {shown(value)}")
    return result


def time(value: Any, missing: Collection[str], unit: str) -> int | None:
    """Nanoseconds since 1970, UTC, or None for missing.

    Text is ISO 8601 (2024-01-31, 2024-01-31T12:00:00.5Z, 2024-01-31 12:00+02:00; without a zone it
    is UTC) or a number; numbers count `unit`s since 1970. The years 1678 to 2261 fit.
    """
    value = _plain(value)
    if is_missing(value) or (isinstance(value, str) and value.strip(" \t") in missing):
        return None
    nanoseconds = _nanoseconds(value, unit)
    if not _LEAST <= nanoseconds <= _MOST:
        raise Misfit(f"must lie between the years 1678 and 2261, got {shown(value)}")
    return nanoseconds


def _nanoseconds(value: Any, unit: str) -> int:
    if isinstance(value, str):
        match = _TIME.fullmatch(value.strip(" \t"))
        if match:
            return _iso(match, value)
        try:
            bare = value.strip(" \t")
            value = int(bare) if _INTEGER.fullmatch(bare) else number(value, ())
        except ValueError:
            raise Misfit(f"must be a time like 2024-01-31T12:00:00, got {shown(value)}") from None
    if isinstance(value, np.datetime64):
        return int(value.astype("datetime64[ns]").astype(np.int64))
    if isinstance(value, datetime.datetime):
        return _of_datetime(value)
    if isinstance(value, datetime.date):
        return (value.toordinal() - _DAY0) * 86_400 * 10**9
    return _counted(value, unit)


def _counted(value: Any, unit: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Misfit(f"must be a time like 2024-01-31T12:00:00, got {shown(value)}")
    if isinstance(value, int):
        return value * NANOSECONDS[unit]
    if not abs(value) < 1e19:
        raise Misfit(f"must lie between the years 1678 and 2261, got {shown(value)}")
    return round(value * NANOSECONDS[unit])


def _of_datetime(value: datetime.datetime) -> int:
    if value.tzinfo is None:
        value = value.replace(tzinfo=datetime.UTC)
    since = value - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    whole = since.days * 86_400 + since.seconds
    return whole * 10**9 + since.microseconds * 1000 + int(getattr(value, "nanosecond", 0))


def _iso(match: re.Match[str], text: str) -> int:
    year, month, day, hour, minute, second = (int(g or 0) for g in match.groups()[:6])
    try:
        days = datetime.date(year, month, day).toordinal() - _DAY0
    except ValueError:
        raise Misfit(f"must be a day of the calendar, got {shown(text)}") from None
    if hour > 23 or minute > 59 or second > 59:
        raise Misfit(f"must be a time of the day, got {shown(text)}")
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second - _offset(match[8], text)
    return seconds * 10**9 + int((match[7] or "").ljust(9, "0"))


def _offset(zone: str | None, text: str) -> int:
    """Seconds east of UTC."""
    if zone is None or zone == "Z":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
    if hours > 23 or minutes > 59:
        raise Misfit(f"must have an offset below 24 hours, got {shown(text)}")
    return (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)


def category(value: Any, missing: Collection[str]) -> str | None:
    """A category by its text, or None for missing: 3 and 3.0 are "3", True is "true".

    Half of a surrogate pair, which JSON can spell, is no text: no file or page could hold it.
    """
    value = _plain(value)
    if isinstance(value, str):
        if not value.isascii() and _HALF.search(value):
            raise Misfit(f"must be text in Unicode, got half of a character in {shown(value)}")
        return None if value in missing else value
    if is_missing(value):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        _finite(value)
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, (int, decimal.Decimal, datetime.date)):
        return str(value)
    raise Misfit(f"must be text, a number or a boolean, got {shown(value)}")


def class_of(value: Any, missing: Collection[str], classes: str) -> Any:
    """A class as `classes` ("text", "integer", "boolean") reads it, or None for missing.

    What does not read as an integer or a boolean stays text: a class that appears late is a class.
    """
    text = category(value, missing)
    if text is None or classes == "text":
        return text
    if classes == "boolean":
        return BOOLEANS.get(text, text)
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    whole = whole_number(text)
    return text if whole is None else whole


def whole_number(text: str) -> int | None:
    """The integer that a number in text, like 3, 03 or 3.0, is equal to; else None."""
    if _INTEGER.fullmatch(text):
        return int(text)
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    return int(value) if value.is_integer() else None


def identity(value: Any, missing: Collection[str]) -> Any:
    """An id or key, or None for missing: text that reads as an integer is that integer."""
    text = category(value, missing)
    return None if text is None else text_identity(text, ())


def text_identity(text: str, missing: Collection[str]) -> Any:
    """The same for what is text."""
    if text in missing:
        return None
    return int(text) if _INTEGER.fullmatch(text) else text


def reads_as_integer(text: str) -> bool:
    """True for an integer as Python prints it: no sign before 0, no leading zero, no point."""
    return _INTEGER.fullmatch(text) is not None


def reads_as_time(text: str) -> bool:
    """True for a time in ISO 8601."""
    return _TIME.fullmatch(text.strip(" \t")) is not None
