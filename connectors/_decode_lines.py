"""Text to chunks: a whole piece column-wise or, where that is refused, line by line."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from streamlearn.connectors._partitions import Chunk
from streamlearn.connectors.compressed import Bytes
from streamlearn.contracts import Json, Reject
from streamlearn.schema import Schema
from streamlearn.schema_columns import Decoded, decode_columns

BOM = b"\xef\xbb\xbf"
PIECE = 1 << 19  # bytes decoded at a time; with twice as many an event costs a third more


class Place(NamedTuple):
    """Where a record stands in a piece: its first line, bytes [start, stop), the next line."""

    line: int
    start: int
    stop: int
    next_line: int


class Split(NamedTuple):
    """A piece taken apart: values by record, places, refused records, and how far it went."""

    columns: dict[str, list[Any]]
    places: list[Place]
    refused: list[tuple[Place, str]]
    consumed: int
    next_line: int


class LineDecoder(Protocol):
    """One format."""

    schema: Schema

    def whole(self, data: bytes) -> Decoded | None:
        """Every record of complete lines at once; None when anything in them is unusual."""

    def split(self, data: bytes, line: int, final: bool) -> Split:
        """The same line by line; not final: an unfinished record at the end may be left over."""


def decode_piece(
    decoder: LineDecoder, partition: str, data: bytes, offset: int, line: int, final: bool
) -> tuple[Chunk, int, int]:
    """The chunk of a piece of complete lines, the bytes used, and the number of the next line."""
    decoded = decoder.whole(data)
    if decoded is not None:
        end_line = line + int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == 10))
        after = _after_lines(data, offset, line)
        end = {"offset": offset + len(data), "line": end_line}
        return Chunk(decoded, [], after, end), len(data), end_line
    split = decoder.split(data, line, final)
    chunk = assemble(decoder.schema, partition, data, offset, split)
    return chunk, split.consumed, split.next_line


def _after_lines(data: bytes, offset: int, line: int) -> Callable[[int], Json]:
    """Positions after the b-th line that is not blank, computed when first asked for."""
    ends: list[Any] = []

    def after(b: int) -> Json:
        if not ends:
            ends.append(_line_ends(data))
        index, stop = ends[0]
        return {"offset": offset + int(stop[b - 1]) + 1, "line": line + int(index[b - 1]) + 1}

    return after


def _line_ends(data: bytes) -> tuple[Any, Any]:
    """Index and end of each line that is not blank."""
    raw = np.frombuffer(data, dtype=np.uint8)
    stop = np.flatnonzero(raw == 10)
    start = np.concatenate([[0], stop[:-1] + 1]) if len(stop) else stop
    length = stop - start
    blank = (length == 0) | ((length == 1) & (raw[start] == 13))
    index = np.flatnonzero(~blank)
    return index, stop[index]


def assemble(schema: Schema, partition: str, data: bytes, offset: int, split: Split) -> Chunk:
    """Decode what was split and put the refused records in their places between the rows."""
    decoded, misfits = decode_columns(schema, split.columns, len(split.places))
    refused = split.refused + [(split.places[i], reason) for i, reason in misfits.items()]
    accepted = [place for i, place in enumerate(split.places) if i not in misfits]
    starts = np.array([place.start for place in accepted], dtype=np.int64)
    rejects = [
        (
            int(np.searchsorted(starts, place.start)),
            Reject(partition, place.line, reason, data[place.start : place.stop].rstrip(b"\r\n")),
        )
        for place, reason in sorted(refused)
    ]

    def after(b: int) -> Json:
        place = accepted[b - 1]
        return {"offset": offset + place.stop, "line": place.next_line}

    end = {"offset": offset + split.consumed, "line": split.next_line}
    return Chunk(decoded, rejects, after, end)


class LineReader:
    """One text partition, from a position on; a line is used once it is complete.

    The last line of a file may have no end. Where it has grown since, its beginning was read as a
    record: its rest is rejected. A byte order mark at the beginning is passed over.
    """

    def __init__(
        self, stream: Bytes, decoder: LineDecoder, partition: str, offset: int, line: int
    ) -> None:
        self._stream, self._decoder, self._partition = stream, decoder, partition
        self._offset, self._line = offset, line
        self._rest = b""
        self._torn = _go_to(stream, offset)
        self.finished = False

    def read(self, max_wait: float) -> Chunk | None:
        """The records of the next complete lines; raises UserError where packed data break off."""
        while not self.finished:
            data = self._stream.read(PIECE, max_wait)
            if data is None:
                return None
            chunk = self._decode(self._rest + data, final=data == b"")
            if chunk is not None:
                return chunk
        return None

    def _decode(self, data: bytes, final: bool) -> Chunk | None:
        self.finished = final
        cut = len(data) if final else data.rfind(b"\n") + 1
        if cut == 0:
            self._rest = data
            return None
        rejects = self._rest_of_line(data) if self._torn else []
        begin = len(rejects[0].raw) if rejects else len(BOM) * self._is_marked(data)
        self._torn, self._offset = False, self._offset + begin
        chunk, used, self._line = decode_piece(
            self._decoder, self._partition, data[begin:cut], self._offset, self._line, final
        )
        chunk.rejects[:0] = [(0, reject) for reject in rejects]
        self._offset += used
        self._rest = data[begin + used :]
        return chunk if begin + used else None

    def _rest_of_line(self, data: bytes) -> list[Reject]:
        """What was added to a line after its beginning was read; nothing where that was all."""
        rest, _, _ = data.partition(b"\n")
        if not rest.strip(b"\r"):
            return []
        reason = "must be a whole line, got the rest of one that was read before it had its end"
        return [Reject(self._partition, self._line, reason, rest)]

    def _is_marked(self, data: bytes) -> bool:
        return self._offset == 0 and data.startswith(BOM)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def head_of(stream: Bytes, lines: int, begun: bytes = b"") -> tuple[bytes, bool]:
    """What stands from here on up to so many line ends, or a little more; whether that is all.

    begun: what was read before. Cost: that of reading, be a line as long as the file.
    """
    pieces, ends, final = [begun], begun.count(b"\n"), False
    while ends < lines and not final:
        more = stream.read(PIECE, 3600.0) or b""
        pieces.append(more)
        ends, final = ends + more.count(b"\n"), not more
    return b"".join(pieces), final


def _go_to(stream: Bytes, offset: int) -> bool:
    """Go to an offset; True where the byte before it ends no line."""
    if offset == 0:
        return False
    stream.seek(offset - 1)
    while (last := stream.read(1, 3600.0)) is None:
        pass
    if not last:
        stream.seek(offset)  # which says that there is no such place
    return last != b"\n"


def lines_of(data: bytes, line: int) -> Sequence[Place]:
    """The lines of a piece, blank ones left out."""
    places, start = [], 0
    for text in data.split(b"\n"):
        stop = min(start + len(text) + 1, len(data))
        if text not in (b"", b"\r"):
            places.append(Place(line, start, stop, line + 1))
        start, line = start + len(text) + 1, line + 1
    return places
