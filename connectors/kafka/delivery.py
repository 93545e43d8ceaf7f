"""What the broker is told about checkpoints: offsets for lag monitors, or whole transactions."""

import logging
import re
from collections.abc import Mapping
from typing import Protocol

from streamlearn.connectors.kafka.outputs import WAIT, Outputs
from streamlearn.connectors.kafka.wire import Consumer, Partition
from streamlearn.contracts import Positions
from streamlearn.errors import UserError

_log = logging.getLogger("streamlearn.kafka")
_NUMBERED = re.compile(r"([a-z_]+)=(\d+)")
_MARK = "transaction"  # first word of the metadata that Transactions commits


class Commits(Protocol):
    """Who commits offsets: a consumer, or a member of a group."""

    def commit(self, offsets: Mapping[Partition, int], metadata: str) -> None:
        """Commit for lag monitors, without waiting."""


class OffsetCommits:
    """Delivery at least once: after each checkpoint its offsets are committed, for lag monitors.

    Nothing is ever read back: the newest checkpoint is what counts.
    """

    def __init__(self, outputs: Outputs, commits: Commits | None = None) -> None:
        self._outputs, self._commits = outputs, commits
        self._own: Consumer | None = None

    def begin(self) -> int | None:
        """None: the newest checkpoint counts."""
        return None

    def saved(self, number: int, positions: Positions) -> None:
        """Commit the offsets of a checkpoint, without waiting."""
        offsets = offsets_of(positions)
        if offsets:  # else the events are of files
            if self._commits is None:
                self._commits = self._own = _reader(self._outputs)
            self._commits.commit(offsets, f"checkpoint={number}")

    def close(self) -> None:
        """Release the connections; may be called twice."""
        own, self._own = self._own, None
        if own is not None:
            self._commits = None
            own.close()
        self._outputs.close()


class Transactions:
    """Delivery in transactions: the outputs since a checkpoint, and its offsets, or nothing.

    A checkpoint is written durably; then its offsets join the transaction, with its number and how
    many records of each output there are as the metadata; then it is committed. So the committed
    offsets always name a checkpoint, and a run that begins goes back to just that one. Where it is
    damaged, the one before is used, and records that were committed are not sent again.

    The broker forgets offsets of a group that is still for long (`offsets.retention.minutes`, a
    week): what the last checkpoint's transaction came to is not known then, and the newest
    checkpoint is used.
    """

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs

    def begin(self) -> int | None:
        """Fence older writers, abort what they left open; the checkpoint that offsets name."""
        self._outputs.begin()
        reader = _reader(self._outputs)
        try:
            found = reader.committed(self._outputs.read(), WAIT)
        finally:
            reader.close()
        told = [_numbers(one.metadata) for one in found.values()]
        last = max(told, key=lambda numbers: numbers.get("checkpoint", 0), default={})
        number = last.pop("checkpoint", None)
        if found and number is None:
            text = "group %s: its offsets are of no transaction; the newest checkpoint is used"
            _log.warning(text, self._outputs.group)
        self._outputs.written.clear()
        self._outputs.written.update(last)
        return number

    def saved(self, number: int, positions: Positions) -> None:
        """Commit the transaction with the offsets of a checkpoint that is durable."""
        outputs, offsets = self._outputs, offsets_of(positions)
        if not offsets:
            raise UserError("transactions: the source must say its offsets from the beginning")
        for name, sent in outputs.sent.items():
            outputs.written[name] = max(sent, outputs.written.get(name, 0))
        counts = "".join(f" {name}={n}" for name, n in sorted(outputs.written.items()))
        outputs.commit(offsets, f"{_MARK} checkpoint={number}{counts}")

    def close(self) -> None:
        """Abort the transaction that is open; may be called twice."""
        self._outputs.close()


def _reader(outputs: Outputs) -> Consumer:
    return outputs.client.consumer(
        outputs.connection, group=outputs.group, keys=False, headers=False
    )


def _numbers(metadata: str) -> dict[str, int]:
    """What the metadata of a commit say; {} where it was no transaction of ours."""
    if not metadata.startswith(f"{_MARK} "):
        return {}
    return {name: int(n) for name, n in _NUMBERED.findall(metadata)}


def offsets_of(positions: Positions) -> dict[Partition, int]:
    """The offsets among positions, whatever stands before `topic/number` in their names."""
    found = {}
    for name, position in positions.items():
        *_, topic, number = ["", *name.split("/")]
        if topic and number.isdecimal() and isinstance(position, int):
            found[topic, int(number)] = position
    return found
