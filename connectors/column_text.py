"""Columns as text, a block at a time: numbers in the shortest form that reads back to their bits.

Arrow does the digits (70 ns a float64); a whole float keeps its `.0`: a column of floats stays one.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streamlearn.block import F8, I8

Text = Any  # an Arrow array of strings; null stands for a missing value
_CSV_SPECIAL = r'[",\r\n]|^$'
_JSON_SPECIAL = r'["\\\x00-\x1f]'


def float_text(values: F8) -> Text:
    """Floats as text; NaN is null."""
    values = np.ascontiguousarray(values)
    text = pa.array(values, from_pandas=True).cast(pa.string())
    if not (values == np.trunc(values)).any():
        return text
    whole = pc.match_substring_regex(text, r"^-?\d+$")
    return pc.if_else(whole, pc.binary_join_element_wise(text, "0", "."), text)


def whole_text(values: I8) -> Text:
    """Whole numbers as text."""
    return pa.array(values).cast(pa.string())


def csv_text(values: Sequence[Any] | NDArray[Any]) -> Text:
    """Values of any kind as CSV fields, quoted where they need it; None is null."""
    return _quoted(values, _CSV_SPECIAL, _csv_field, str)


def json_text(values: Sequence[Any] | NDArray[Any]) -> Text:
    """Values of any kind as JSON; None is null."""
    return _quoted(values, _JSON_SPECIAL, _json_value, _json_value, '"')


def joined(*pieces: Text | str, missing: str) -> memoryview:
    """The text of all rows: in each, all pieces one after the other; a str stands in every row."""
    rows = pc.binary_join_element_wise(
        *pieces, "", null_handling="replace", null_replacement=missing
    )
    if isinstance(rows, pa.ChunkedArray):
        rows = rows.combine_chunks()
    return memoryview(rows.buffers()[2])[: _end(rows)]


def _end(rows: Any) -> int:
    """Bytes of text in an array that starts at offset 0."""
    return int(np.frombuffer(rows.buffers()[1], np.int32)[len(rows)])


def _quoted(
    values: Sequence[Any] | NDArray[Any],
    special: str,
    careful: Callable[[Any], str],
    plain: Callable[[Any], str],
    mark: str = "",
) -> Text:
    """Strings with nothing special in them at once, everything else one by one."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return pa.array(values).cast(pa.string())
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if all(isinstance(value, str) and value.isascii() for value in listed):
        text = pa.array(listed, pa.string())
        if not pc.any(pc.match_substring_regex(text, special)).as_py():
            return pc.binary_join_element_wise(mark, text, mark, "") if mark else text
    return pa.array([_or_null(value, careful, plain) for value in listed], pa.string())


def _or_null(value: Any, careful: Callable[[Any], str], plain: Callable[[Any], str]) -> str | None:
    if value is None or value != value:
        return None
    return careful(value) if isinstance(value, str) else plain(value)


def _csv_field(value: str) -> str:
    value = value.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair is no text
    if value and not any(sign in value for sign in '",\r\n'):
        return value
    return '"' + value.replace('"', '""') + '"'


def _json_value(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    text = json.dumps(value, default=str, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=str)
    return text
