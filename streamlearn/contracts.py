"""What the rooms promise each other: state, sources, sinks. Nothing here does any work."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from numpy.typing import NDArray

from streamlearn.block import Block, Columns

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


class Reject(NamedTuple):
    """A record that did not fit the schema, for the dead-letter sink."""

    partition: str
    position: Json  # line number (from 1), row number or offset of the record
    reason: str
    raw: bytes


class Batch(NamedTuple):
    """What one poll gives: a block, the records that did not fit, and where to go on after both."""

    block: Block
    rejects: list[Reject]
    positions: Positions


class Answers(NamedTuple):
    """What one block leaves behind; first_row counts the stream's events from 0."""

    block: Block
    outputs: Columns
    first_row: int


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
