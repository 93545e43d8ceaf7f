"""Text to columns by kernels: what is plain in CSV and JSON Lines, a piece at a time.

Numbers and codes alone, in plain text (see jit/text_cells.py): 8 numbers of a CSV record take
0.1 us, where Arrow takes 0.5. The kernels let go of the GIL. What they refuse goes the other ways,
which know everything; both give the same bits.
"""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamlearn.block import I8
from streamlearn.jit import text_cells
from streamlearn.schema_columns import Column, Decoded, Tokens, decode_columns

if TYPE_CHECKING:
    from streamlearn.schema import Schema

LEAST_BYTES = 1 << 18  # of a piece: for less it is not worth loading the kernels
FEW_BYTES = 1 << 14  # of a piece: for less the other ways are as fast, the kernels being loaded
_AGAIN = 16  # pieces after one that was refused until the next is tried
_MEMBERS = 256  # of an object, whose order is remembered


class Table(NamedTuple):
    """Columns by name, of n records."""

    columns: dict[str, Column]
    n: int


class TextColumns:
    """How pieces of text become the columns of a schema, where all of them are numbers or codes.

    Every method gives None for what it does not take. What a piece gives depends on that piece
    alone; what is remembered (the order of keys, what was refused) is about speed, so that two
    threads may read at the same time.
    """

    def __init__(self, schema: "Schema", names: Sequence[str]) -> None:
        self._schema = schema
        kinds = {name: _kind(schema, name) for name in names}
        self.numbers = [name for name in names if kinds[name] == "number"]
        self.coded = [name for name in names if kinds[name] == "coded"]
        self.able = len(self.numbers) + len(self.coded) == len(names) and bool(self.numbers)
        self._skip = 0
        self._powers: Any = None
        encoded = [name.encode("utf-8", "surrogatepass") for name in self.numbers + self.coded]
        self._names = _side_by_side(encoded)
        self._order: I8 = np.full(_MEMBERS, -1, dtype=np.int64)
        self._plain_names = not any(set(name) & ESCAPED for name in self.numbers + self.coded)
        like = [token for token in schema.missing if token.startswith(_BEGIN)]
        tokens = [*like, *(token for token in schema.missing if token not in like)]
        encoded = [token.encode() for token in tokens]
        self._missing = (*_side_by_side(encoded), len(like))

    def csv(self, data: bytes, fields: Sequence[str], delimiter: str) -> Decoded | None:
        """Records of these fields; None where one does not fit the schema, too."""
        return self._decoded(self.csv_table(data, fields, delimiter))

    def json(self, data: bytes) -> Decoded | None:
        """Objects, one a line; None where one does not fit the schema, too."""
        return self._decoded(self.json_table(data))

    def csv_table(self, data: bytes, fields: Sequence[str], delimiter: str) -> Table | None:
        """Records of these fields, as columns."""
        if not self._worth(data) or data.count(b"\r") != data.count(b"\r\n"):
            return None
        order = {name: j for j, name in enumerate(self.numbers)}
        order |= {name: -2 - j for j, name in enumerate(self.coded)}
        roles = np.array([order.get(name, -1) for name in fields], dtype=np.int64)
        text, out, words = self._room(data)
        n = text_cells.csv_cells(
            text, roles, ord(delimiter), self._missing, self._powers, words, out
        )
        return self._table(data, n, words, out, str)

    def json_table(self, data: bytes) -> Table | None:
        """Objects, one a line, as columns."""
        if not self._plain_names or not self._worth(data):
            return None
        text, out, words = self._room(data)
        out[0].fill(np.nan)
        out[1].fill(-1)
        names = (*self._names, self._order)
        n = text_cells.json_cells(text, names, self._powers, words, out)
        return self._table(data, n, words, out, json.loads)

    def _worth(self, data: bytes) -> bool:
        """Whether to try at all."""
        self._skip = max(self._skip - 1, 0)
        least = LEAST_BYTES if self._powers is None else min(FEW_BYTES, LEAST_BYTES)
        if not self.able or self._skip or len(data) < least:
            return False
        self._powers = self._powers or text_cells.powers()
        return True

    def _room(self, data: bytes) -> tuple[Any, Any, Any]:
        """The text with a line end at its end, and what the kernels write."""
        whole = data if data.endswith(b"\n") else data + b"\n"
        text = np.frombuffer(whole, dtype=np.uint8)
        n, m, k = int(np.count_nonzero(text == 10)), len(self.numbers), len(self.coded)
        slots = text_cells.SLOTS
        words = (
            np.zeros((k, slots), dtype=np.int64),
            np.empty((k, slots // 2), dtype=np.int64),
            np.empty((k, slots // 2), dtype=np.int64),
            np.zeros(k, dtype=np.int64),
        )
        table, codes = np.empty((n, m)), np.empty((n, k), dtype=np.int64)
        return text, (table, codes, np.zeros(m + k, dtype=np.int64)), words

    def _table(
        self, data: bytes, n: int, words: Any, out: Any, read: Callable[[str], Any]
    ) -> Table | None:
        """What the kernel gave, as the other ways would have given it; read: a coded value."""
        self._skip = _AGAIN if n < 0 else 0
        if n < 0:
            return None
        columns: dict[str, Column] = {name: out[0][:n, j] for j, name in enumerate(self.numbers)}
        try:
            for j, name in enumerate(self.coded):
                values = [read(text) for text in _texts(data, j, words)]
                columns[name] = Tokens(out[1][:n, j], values)
        except ValueError:  # bytes that are no UTF-8, or a control character
            return None
        return Table(columns, n)

    def _decoded(self, table: Table | None) -> Decoded | None:
        """The rows of a table, where all of them fit the schema."""
        if table is None:
            return None
        decoded, misfits = decode_columns(self._schema, table.columns, table.n)
        return None if misfits else decoded


_BEGIN = tuple("-0123456789")  # of what may be a number
ESCAPED = {'"', "\\", *map(chr, range(32))}  # what JSON does not spell as it is


def _texts(data: bytes, column: int, words: Any) -> list[str]:
    """The values of a text column, in order of their first appearance."""
    _, starts, lengths, counts = words
    k = int(counts[column])
    places = zip(starts[column, :k].tolist(), lengths[column, :k].tolist(), strict=True)
    return [data[start : start + length].decode("utf-8") for start, length in places]


def _kind(schema: "Schema", name: str) -> str:
    """What a column is to the kernels: number, coded, or "" for what they cannot give."""
    kind = schema.features[name].kind if name in schema.features else None
    roles = {role for role, column in schema.roles().items() if column == name}
    target = "coded" if schema.task == "classification" else "number"
    of_roles = {"weight": "number", "target": target}
    wanted = {of_roles.get(role, "") for role in roles}
    if kind is not None:
        wanted.add({"number": "number", "category": "coded"}.get(kind, ""))
    return wanted.pop() if len(wanted) == 1 else ""


def _side_by_side(parts: Sequence[bytes]) -> tuple[Any, I8]:
    """Bytes one after the other, and where each ends."""
    joined = np.frombuffer(b"".join(parts), dtype=np.uint8).copy()
    return joined, np.cumsum([len(part) for part in parts], dtype=np.int64)
