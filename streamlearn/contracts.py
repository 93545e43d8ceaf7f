"""What the rooms promise each other: state, sources, sinks. Nothing here does any work."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import I8, Block, Columns

Json = Any  # what json.dumps takes: None, bool, int, float, str, list, dict with str keys
Positions = dict[str, Json]  # partition name -> what to read next


class State(NamedTuple):
    """All that is needed to go on bit-identically: named arrays and one JSON table."""

    arrays: dict[str, NDArray[Any]]
    table: dict[str, Json]

    def under(self, prefix: str) -> "State":
        """One member's share: its arrays by prefix, its table by key."""
        start = f"{prefix}/"
        arrays = {k[len(start) :]: v for k, v in self.arrays.items() if k.startswith(start)}
        return State(arrays, self.table[prefix])


def merged(members: Mapping[str, State], table: Mapping[str, Json]) -> State:
    """The states of several members as one; `State.under` takes it apart again."""
    arrays = {
        f"{k}/{name}": a for k, member in members.items() for name, a in member.arrays.items()
    }
    return State(arrays, dict(table) | {k: member.table for k, member in members.items()})


Finding = dict[str, Json]
"""Why an alarm was raised, and what was done: JSON, a function of the stream alone.

`detector`: the class that found it. `watches`: error, loss, prediction, score, features.
`statistic`: what was compared, and `limit`, with what, where one number says it. `features`: of
those that moved, most first, `{"name", "statistic", "from", "to"}` each (more may stand there).
`action`: what was done (reset, inflate, swap, reuse, promote, none). Any further keys.
"""


@runtime_checkable
class Shelf(Protocol):
    """Where a stage keeps columns that memory and checkpoints have no room for: immutable files.

    A file is named by its content and held by whoever wrote or opened it, until it is released. It
    then stays for as long as a checkpoint that is kept may name it. private: it does not outlive
    the process, so a state must hold the columns themselves.
    """

    private: bool

    def write(self, columns: Columns) -> tuple[str, Columns]:
        """Write columns of plain values; the name of the file, and the columns, read-only."""

    def open(self, name: str) -> tuple[str, Columns]:
        """The same of a file that a state names. Raises: DamagedError, a UserError."""

    def release(self, name: str) -> None:
        """Hold a file no longer."""


class Reject(NamedTuple):
    """A record that did not fit the schema, for the dead-letter sink."""

    partition: str
    position: Json  # line number (from 1), row number or offset of the record
    reason: str
    raw: bytes


class Origins(NamedTuple):
    """Where the events of a block came from: one entry an event, in their order.

    partitions: the names that `partition` counts, as (topic, number). partition, offset: (m,).
    times: (m,) nanoseconds since 1970 of the records, as the broker tells them. keys: (m,) the
    records' keys as they came, bytes or None; None where no output is keyed.
    """

    partitions: Sequence[tuple[str, int]]
    partition: NDArray[np.intp]
    offset: I8
    times: I8
    keys: Sequence[bytes | None] | None


class Batch(NamedTuple):
    """What one poll gives: a block, the records that did not fit, and where to go on after both.

    origins: of the events in it (rows that PREDICT or OBSERVE), where the source knows them; what a
    `LanedSource` gives has them of all rows.
    """

    block: Block
    rejects: list[Reject]
    positions: Positions
    origins: Origins | None = None


class Answers(NamedTuple):
    """What one block leaves behind; first_row counts the stream's events from 0.

    origins: as of `Batch`.
    """

    block: Block
    outputs: Columns
    first_row: int
    origins: Origins | None = None


@runtime_checkable
class Source(Protocol):
    """Where events come from. `guarantee`: in a line, what a resumed reader gets, what not."""

    guarantee: str

    def open(self, positions: Positions) -> None:
        """Go to these positions; an empty dict means the beginning."""

    def poll(self, max_events: int, max_wait: float) -> Batch | None:
        """At most max_events that are ready, within max_wait seconds; None when nothing came."""

    @property
    def finished(self) -> bool:
        """True when no event will come any more."""

    def close(self) -> None:
        """Release files and connections; may be called twice."""


@runtime_checkable
class Sink(Protocol):
    """Where outputs go. `guarantee` says in a line what a reader may rely on, and what not."""

    guarantee: str

    def open(self, position: Json) -> None:
        """Begin after what `commit` once returned; None means an empty output."""

    def write(self, answers: Answers) -> None:
        """Take one block of outputs; not durable before `commit`."""

    def commit(self) -> Json:
        """Make all that was written durable, and say how to come back to here."""

    def close(self) -> None:
        """Release files and connections without committing; may be called twice."""


class Lane(Protocol):
    """One partition of a source with several: in order by itself, merged with others by time."""

    name: str

    def ready(self) -> "Ready | None":
        """What is decoded and may be taken at once; None when nothing is. Never waits."""

    @property
    def caught_up(self) -> bool:
        """Everything up to the partition's end, as last heard, was taken: it holds no other."""

    @property
    def finished(self) -> bool:
        """True when nothing will come any more (a range that was asked for has been read)."""


class Ready(NamedTuple):
    """What a source or a lane holds decoded, and hands out without waiting.

    n: rows. times: (n,) int64 by which it is merged, None without times. rejects: how many of these
    rows stand before each record that did not fit. offsets: (n,) of each row in its partition; None
    where rows are numbered.
    """

    n: int
    times: I8 | None
    rejects: list[int]
    offsets: I8 | None = None


class LanedSource(Protocol):
    """A source over several partitions, which a merge takes rows from in an order of its choice."""

    guarantee: str

    @property
    def lanes(self) -> Sequence[Lane]:
        """Known after `open`; one that is found later is appended, by `wait`."""

    def open(self, positions: Positions) -> None:
        """Go to these positions; an empty dict means where the source was told to start."""

    def wait(self, max_wait: float) -> None:
        """Look for records of all lanes, at most so many seconds; 0 takes what is there."""

    def take(self, order: NDArray[np.intp]) -> Batch:
        """The next rows of the lanes, (m,) the lane of each; tables grow in this order.

        The rejects of a lane that stand before its last taken row come along; those behind it too
        where the lane has no further row ready. An empty order takes the rejects of lanes without
        rows.
        """

    @property
    def finished(self) -> bool:
        """True when all lanes are."""

    def close(self) -> None:
        """Release connections; may be called twice."""


class Delivery(Protocol):
    """What is told to a broker about checkpoints, or asked of it."""

    def begin(self) -> int | None:
        """Number of the checkpoint that the broker's offsets name; None: the newest one counts.

        Called before recovery, when the lock of the checkpoints is held. With transactions: fence
        an older writer, abort what it left open, read the committed offsets.
        """

    def saved(self, number: int, positions: Positions) -> None:
        """A checkpoint is durable: commit offsets (and with transactions the outputs before it)."""

    def close(self) -> None:
        """Release connections; a transaction that is open is aborted. May be called twice."""
