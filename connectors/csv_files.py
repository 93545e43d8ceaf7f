"""CSV: RFC 4180 with a header; kernels read plain pieces, pyarrow others, Python bad lines.

A comma, semicolon, tab or bar may delimit, whichever the header has most of; in .tsv a tab. Blank
lines are skipped, a line end may be CRLF, a quoted field may span lines (Python reads such pieces,
at about 10 us a row). A record with too few or too many fields, text behind a closing quote, or
bytes that are no UTF-8 in a wanted column is rejected with its line number.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from streamlearn.connectors._decode_lines import BOM, LineReader, Place, Split, head_of, lines_of
from streamlearn.connectors.compressed import Bytes, open_bytes
from streamlearn.contracts import Json
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_cells import BOOLEANS, Misfit
from streamlearn.schema_columns import Decoded, decode_columns
from streamlearn.schema_text import Table, TextColumns

DELIMITERS = (",", ";", "\t", "|")
MOST_LINES = 64  # a quoted field may span this many lines; else its first line is at fault
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_BROKEN = re.compile("[\udc80-\udcff]")


class Unfinished(Misfit):
    """A quoted field that is still open at the end of the text."""


def fields_of(text: str, delimiter: str) -> list[str]:
    """The fields of one record. A quote counts only as the first character of a field.

    Raises: Unfinished for an open quote; Misfit for text behind a closing quote.
    """
    if '"' not in text:
        return text.split(delimiter)
    fields, at = [], 0
    while True:
        if text.startswith('"', at):
            match = _QUOTED.match(text, at)
            if match is None:
                raise Unfinished(f"a quoted field must be closed within {MOST_LINES} lines")
            fields.append(match[1].replace('""', '"'))
            at = match.end()
            if at < len(text) and text[at] != delimiter:
                raise Misfit(f"a quoted field must end before the delimiter {delimiter!r}")
        else:
            stop = text.find(delimiter, at)
            stop = len(text) if stop < 0 else stop
            fields.append(text[at:stop])
            at = stop
        if at >= len(text):
            return fields
        at += 1


def _line(data: bytes, place: Place) -> str:
    """A line as text, without its end; bytes that are no UTF-8 stay visible as surrogates."""
    return data[place.start : place.stop].removesuffix(b"\n").decode("utf-8", "surrogateescape")


class CsvDecoder:
    """The records of one header: `whole` by pyarrow with declared types, `split` line by line."""

    def __init__(
        self,
        schema: Schema,
        names: Sequence[str],
        delimiter: str,
        wanted: Sequence[str] | None = None,
    ) -> None:
        self.schema, self.names, self.delimiter = schema, list(names), delimiter
        wanted = schema.wanted() if wanted is None else list(wanted)
        types = {name: _arrow_type(schema, name) for name in wanted}
        self._places = {name: self.names.index(name) for name in wanted}
        self._kernels = TextColumns(schema, wanted)
        self._parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=False)
        self._convert = csv.ConvertOptions(
            column_types=types, include_columns=wanted, null_values=list(schema.missing),
            true_values=[t for t, v in BOOLEANS.items() if v],
            false_values=[t for t, v in BOOLEANS.items() if not v],
            strings_can_be_null=True, quoted_strings_can_be_null=True,
        )  # fmt: skip

    # -- whole pieces ------------------------------------------------------------------------------

    def whole(self, data: bytes) -> Decoded | None:
        """All records at once; None for unusual quotes or line ends and for any misfit."""
        plain = self._kernels.csv(data, self.names, self.delimiter)
        if plain is not None:
            return plain
        table = self.table(data)
        if table is None:
            return None
        columns = {name: _joined(table.column(name)) for name in table.column_names}
        decoded, misfits = decode_columns(self.schema, columns, table.num_rows)
        return None if misfits else decoded

    def plain(self, data: bytes) -> Table | None:
        """All records by the kernels; None for what they do not take."""
        return self._kernels.csv_table(data, self.names, self.delimiter)

    def table(self, data: bytes) -> pa.Table | None:
        """All records by declared types; None where one is unusual or does not fit its type."""
        if not self._ordinary(data):
            return None
        read = csv.ReadOptions(column_names=self.names, use_threads=False, block_size=len(data) + 1)
        try:
            return csv.read_csv(
                pa.BufferReader(data), read_options=read, parse_options=self._parse,
                convert_options=self._convert,
            )  # fmt: skip
        except (pa.ArrowInvalid, pa.ArrowKeyError):
            return None

    def _ordinary(self, data: bytes) -> bool:
        """True when every line is a record: proper quotes, none of them around a line end."""
        if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
            return False
        return b'"' not in data or self._proper_quotes(data)

    def _proper_quotes(self, data: bytes) -> bool:
        raw = np.frombuffer(b"\n" + data + b"\n", dtype=np.uint8)
        quotes = np.flatnonzero(raw == 34)
        if len(quotes) % 2:
            return False
        openers, closers = quotes[::2], quotes[1::2]
        around = np.frombuffer(b'\r\n"' + self.delimiter.encode(), dtype=np.uint8)
        if not (
            np.isin(raw[openers - 1], around[1:]).all() and np.isin(raw[closers + 1], around).all()
        ):
            return False
        ends = np.flatnonzero(raw == 10)
        return bool((np.searchsorted(quotes, ends) % 2 == 0).all())

    # -- line by line ------------------------------------------------------------------------------

    def split(self, data: bytes, line: int, final: bool) -> Split:
        """The same records by a plain reading of each line."""
        lines = lines_of(data, line)
        rows: list[list[str]] = []
        places: list[Place] = []
        refused: list[tuple[Place, str]] = []
        i, used, next_line = 0, len(data), line + data.count(b"\n")
        while i < len(lines):
            try:
                fields, taken = self._record(data, lines, i)
                rows.append(fields)
                places.append(_merged(lines[i : i + taken]))
                i += taken
            except Misfit as reason:
                if isinstance(reason, Unfinished) and not final and len(lines) - i < MOST_LINES:
                    used, next_line = lines[i].start, lines[i].line
                    break
                refused.append((lines[i], str(reason)))
                i += 1
        columns = {name: [row[at] for row in rows] for name, at in self._places.items()}
        return Split(columns, places, refused, used, next_line)

    def _record(self, data: bytes, lines: Sequence[Place], i: int) -> tuple[list[str], int]:
        """Fields of the record that begins with line i, and how many lines it takes."""
        for taken in range(1, min(MOST_LINES, len(lines) - i) + 1):
            place = _merged(lines[i : i + taken])
            try:
                fields = fields_of(_line(data, place).removesuffix("\r"), self.delimiter)
            except Unfinished:
                continue
            self._check(fields, taken)
            return fields, taken
        raise Unfinished(f"a quoted field must be closed within {MOST_LINES} lines")

    def record(self, data: bytes) -> dict[str, str]:
        """The wanted fields of one record that is all there is; Misfit where it is none."""
        line = data.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")
        fields = fields_of(line, self.delimiter)
        self._check(fields, 1)
        return {name: fields[at] for name, at in self._places.items()}

    def _check(self, fields: Sequence[str], taken: int) -> None:
        if len(fields) != len(self.names):
            lines = f" over {taken} lines" if taken > 1 else ""
            raise Misfit(f"must have {len(self.names)} fields, got {len(fields)}{lines}")
        for name, at in self._places.items():
            if not fields[at].isascii() and _BROKEN.search(fields[at]):
                raise Misfit(f"column {name!r} must be UTF-8, got {fields[at]!r}")


def _merged(lines: Sequence[Place]) -> Place:
    return Place(lines[0].line, lines[0].start, lines[-1].stop, lines[-1].next_line)


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _arrow_type(schema: Schema, name: str) -> pa.DataType:
    """The type under which pyarrow reads a column; text where more than one use needs it."""
    kind = schema.features[name].kind if name in schema.features else None
    roles = {role for role, column in schema.roles().items() if column == name}
    if schema.is_number(name):
        return pa.float64()
    if kind == "boolean" and roles <= {"group"}:
        return pa.bool_()
    coded = kind == "category" or roles == {"target"}
    return pa.dictionary(pa.int32(), pa.string()) if coded else pa.string()


# -- the header and the file -----------------------------------------------------------------------


def read_header(stream: Bytes, where: str) -> tuple[list[str], str, int, bytes]:
    """Names, delimiter, bytes up to the first record, and what was read beyond them.

    Raises: UserError for an empty file, a header that names a column twice or has none.
    """
    head, _ = head_of(stream, 1)
    line, newline, rest = head.partition(b"\n")
    if not line.strip():
        what = "line 1 is blank" if head.strip() else "is empty"
        raise UserError(f"{where}: {what}; a CSV file begins with a line of column names")
    try:
        text = line.removeprefix(BOM).removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{where}: line 1 must be UTF-8; save the file as UTF-8") from None
    names, delimiter = _names(text, where)
    return names, delimiter, len(line) + len(newline), rest


def _names(text: str, where: str) -> tuple[list[str], str]:
    bare = _QUOTED.sub("", text)
    if "\0" in bare:
        raise UserError(f"{where}: line 1 must be UTF-8, got bytes of 0; save the file as UTF-8")
    if "\r" in bare:
        raise UserError(f"{where}: lines must end with LF or CRLF, got CR alone; convert the file")
    named = ".tsv" in Path(where.lower()).suffixes and "\t" in bare
    delimiter = "\t" if named else max(DELIMITERS, key=bare.count)  # of equals the comma
    try:
        fields = fields_of(text, delimiter)
    except Unfinished:
        raise UserError(f"{where}: line 1: a quoted name must be closed on that line") from None
    except Misfit as reason:
        raise UserError(f"{where}: line 1: {reason}") from None
    names = [name.strip() or f"column_{i + 1}" for i, name in enumerate(fields)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{where}: line 1 names {twice!r} twice; give every column its own name")
    if all(_looks_numeric(name) for name in names):
        raise UserError(f"{where}: line 1 must name the columns, got {text[:60]!r}; add a header")
    return names, delimiter


def _looks_numeric(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def open_csv(path: Path, partition: str, schema: Schema, position: Json) -> LineReader:
    """A reader of one CSV file from a position on; UserError where a wanted column is not there."""
    stream = open_bytes(path)
    try:
        names, delimiter, start, _ = read_header(stream, str(path))
        schema.check_present(names, str(path))
        at = position or {"offset": start, "line": 2}
        decoder = CsvDecoder(schema, names, delimiter)
        return LineReader(stream, decoder, partition, at["offset"], at["line"])
    except UserError:
        stream.close()
        raise


def sample_csv(path: Path, rows: int) -> dict[str, list[Any]]:
    """The first rows as text by column; lines that are no record are left out."""
    stream = open_bytes(path)
    try:
        names, delimiter, _, data = read_header(stream, str(path))
        data, final = head_of(stream, rows * 2, data)
    finally:
        stream.close()
    everything = Schema.from_config({"features": dict.fromkeys(names, "category")})
    decoder = CsvDecoder(everything, names, delimiter)
    for most in (rows + rows // 4, data.count(b"\n") + 1):  # if those are too few, all
        cut = _first_lines(data, most)
        whole = final and cut == len(data)
        cut = cut if whole else data.rfind(b"\n", 0, cut) + 1
        found = decoder.split(data[:cut], 2, whole)
        if cut == len(data) or len(found.places) >= rows:
            break
    if found.refused and not found.places:
        place, reason = found.refused[0]
        raise UserError(
            f"{path}: no line is a record of the columns that line 1 names: line {place.line} "
            f"{reason}; begin the file with the names of its columns"
        )
    return {name: values[:rows] for name, values in found.columns.items()}


def _first_lines(data: bytes, most: int) -> int:
    """Where the first lines end."""
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == 10)
    return int(ends[most - 1]) + 1 if len(ends) > most else len(data)
