"""Records in memory: iterables of dicts, and what turns data frames into Arrow tables."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import pyarrow as pa

from streamlearn.connectors._partitions import Chunk, Partition, PartitionedSource
from streamlearn.contracts import Json, Reject
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_columns import decode_columns, raw_record

ROWS = 1024  # records decoded at a time
PARTITION = "records"


class RecordReader:
    """Dicts from a row on; positions are row numbers from 0.

    They are not read ahead: what gives them is the caller's code, which need not bear another
    thread, and what makes columns of them is Python, beside which no other Python runs.
    """

    def __init__(self, records: Iterator[Any], schema: Schema, partition: str, row: int) -> None:
        self._records, self._schema = records, schema
        self._partition, self._row = partition, row
        self.finished = False

    def read(self, max_wait: float) -> Chunk | None:
        """The next records, decoded; what is no dict is rejected."""
        rows = list(islice(self._records, ROWS))
        if not rows:
            self.finished = True
            return None
        first, self._row = self._row, self._row + len(rows)
        columns = _columns(rows, self._schema.wanted())
        decoded, misfits = decode_columns(self._schema, columns, len(rows))
        odd = {i: f"must be a dict, got {type(row).__name__}"
               for i, row in enumerate(rows) if not isinstance(row, Mapping)}  # fmt: skip
        return self._chunk(rows, decoded, misfits, odd, first)

    def _chunk(
        self,
        rows: list[Any],
        decoded: Any,
        misfits: dict[int, str],
        odd: dict[int, str],
        first: int,
    ) -> Chunk:
        reasons = misfits | odd
        if set(odd) - set(misfits):  # decoded as a row of nothing but missing values: take it out
            decoded = decode_columns(
                self._schema,
                _columns(
                    [r for i, r in enumerate(rows) if i not in reasons], self._schema.wanted()
                ),
                len(rows) - len(reasons),
            )[0]
        accepted = [i for i in range(len(rows)) if i not in reasons]
        rejects = [
            (i - k, Reject(self._partition, first + i, reasons[i], _raw(rows[i])))
            for k, i in enumerate(sorted(reasons))
        ]
        return Chunk(
            decoded, rejects, lambda b: {"row": first + accepted[b - 1] + 1}, {"row": self._row}
        )

    def close(self) -> None:
        """Let go of the records."""
        self._records = iter(())


def _columns(rows: list[Any], names: list[str]) -> dict[str, list[Any]]:
    """The wanted columns; what is no mapping has no values."""
    plain = [row if isinstance(row, Mapping) else {} for row in rows]
    return {name: [row.get(name) for row in plain] for name in names}


def _raw(row: Any) -> bytes:
    return raw_record(row) if isinstance(row, Mapping) else repr(row).encode()


class RecordSource(PartitionedSource):
    """An in-memory source over an iterable of dicts, for tests and for Python callers.

    Resume: a list is read again from the row of the position; a one-shot iterator must be given
    anew, from its beginning, and the rows before the position are dropped.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]], schema: Schema) -> None:
        guarantee = (
            "in memory: exactly once within this process; after a restart give the same records"
        )
        partition = Partition(PARTITION, self._reader_at)
        super().__init__(schema, [partition], PARTITION, guarantee)
        self._records = records

    def _reader_at(self, position: Json) -> RecordReader:
        row = 0 if position is None else int(position["row"])
        return RecordReader(iter(islice(self._records, row, None)), self.schema, PARTITION, row)


def as_table(data: Any) -> pa.Table | None:
    """An Arrow table or batch, a pandas or polars frame as an Arrow table; None for anything else.

    Raises: UserError for a frame that Arrow cannot hold (a column of mixed types, of complex
    numbers, sparse), and for two columns of one name.
    """
    names = [str(name) for name in getattr(data, "columns", ())]
    if isinstance(data, (pa.Table, pa.RecordBatch)):
        names = data.schema.names
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise UserError(f"data: two columns are named {twice!r}; rename one of them")
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    module = type(data).__module__.partition(".")[0]
    try:
        if module == "pandas" and hasattr(data, "columns"):
            return pa.Table.from_pandas(data, preserve_index=False)
        if module == "polars" and hasattr(data, "to_arrow"):
            table = data.to_arrow()
            return table if isinstance(table, pa.Table) else None
    except (pa.ArrowException, TypeError) as error:
        raise UserError(
            f"data: {str(error).splitlines()[0]}; give a column one type that Arrow has, or pass "
            f"frame.to_dict('records')"
        ) from None
    return None
