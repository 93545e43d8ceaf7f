"""The partitions that lineages are made of: how many there are, which came later, whose they are.

A lineage is one number of all topics: the events of that partition, and the labels. So all topics
have the same number of partitions. Beside the folders of the lineages a small file says how many
there were in the beginning; one that came later is read from its beginning, wherever the
configuration says that a run begins.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from streamlearn.connectors.kafka.wire import BrokerError, Callbacks, Consumer, Partition
from streamlearn.durable import disk_errors, replacing, write_all
from streamlearn.errors import UserError

_START_WAIT = 10.0  # seconds for answers before anything runs
_LATER_WAIT = 1.0  # and while lineages wait for them
_RECOUNT = 60.0  # seconds between two looks for partitions that were added
_NAME = "lineages.json"


class Partitions:
    """The partitions of some topics, counted at the broker, and the record of them.

    Args:
        consumer: asks the broker; its group is the one that offsets are committed under.
        topics: of events, then of labels; the first gives the lineages their numbers.
        folder: of the checkpoints, shared by all who own lineages of these topics.
    """

    def __init__(self, consumer: Consumer, topics: Sequence[str], folder: Path) -> None:
        self.consumer, self.topics, self.folder = consumer, list(topics), folder
        self._first = 0  # partitions when the first of all runs began

    def open(self) -> int:
        """Count, compare, and take down what there is in the beginning; the number of partitions.

        Raises: UserError where counts differ, or the folder is of other lineages; BrokerError.
        """
        counts = {name: self.consumer.partitions(name, _START_WAIT) for name in self.topics}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise UserError(
                f"kafka: all topics must have as many partitions where each has its own model: "
                f"{found}; give them as many, or use mode: assign, one model for all"
            )
        self._first = self._recorded(counts[self.topics[0]])
        return self.count()

    def _recorded(self, count: int) -> int:
        """The record that is there already, or a new one."""
        path = self.folder / _NAME
        with disk_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(self.folder.glob("checkpoint-*.safetensors")):
                raise UserError(
                    f"{self.folder}: holds checkpoints of one model over all partitions; name "
                    f"another folder where each has its own"
                )
        if not path.exists():
            with replacing(path) as descriptor:
                text = json.dumps({"topics": self.topics, "partitions": count})
                write_all(descriptor, text.encode())
        return self._read(path)

    def _read(self, path: Path) -> int:
        with disk_errors(path):
            text = path.read_text(encoding="utf-8")
        try:
            record = json.loads(text)
            topics, first = record["topics"], int(record["partitions"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: is damaged; restore it from a copy of the folder") from None
        if topics != self.topics:
            raise UserError(
                f"{self.folder}: holds lineages of {', '.join(topics)}, not of "
                f"{', '.join(self.topics)}; name another folder"
            )
        return first

    def count(self, max_wait: float = _START_WAIT) -> int:
        """Partitions of the topic that gives the numbers. Raises: BrokerError."""
        return self.consumer.partitions(self.topics[0], max_wait)

    def added(self, number: int) -> bool:
        """Whether it was not there when the first of all runs began."""
        return number >= self._first

    def missing(self, number: int) -> str:
        """Why a lineage cannot begin yet; "" where it can."""
        for name in self.topics[1:] if self.added(number) else ():
            try:
                count = self.consumer.partitions(name, _LATER_WAIT)
            except BrokerError as error:
                return str(error)
            if count <= number:
                return f"{name} has {count} partitions, none for it; add partitions to {name}"
        return ""

    def check_store(self, number: int, folder: Path) -> None:
        """Refuse to begin anew where somebody has been at work on the partition already.

        Offsets are committed after a checkpoint: where they are and it is not, the folder is not
        the one that the others use. Raises: UserError.
        """
        if any(folder.glob("checkpoint-*.safetensors")):
            return
        partition = self.topics[0], number
        found = self.consumer.committed([partition], _START_WAIT).get(partition)
        if found is not None:
            raise UserError(
                f"{folder}: holds no checkpoint, but the group has committed offset "
                f"{found.offset} of {self.topics[0]}/{number}; name the folder that all members "
                f"share, or begin anew under another group"
            )

    def close(self) -> None:
        """Let go of the connection; may be called twice."""
        self.consumer.close()


def refuse_lineages(folder: Path) -> None:
    """Refuse to keep one model over all partitions where each has its own. Raises: UserError."""
    if (folder / _NAME).exists():
        raise UserError(
            f"{folder}: holds lineages, a model for each partition; name another folder for one "
            f"model over all partitions"
        )


class Share:
    """The fixed part of one worker of several: every so manieth partition. A `Membership`.

    Args:
        count: asks how many partitions there are now.
        topic: that the partitions are of.
        worker, workers: number of this worker, from 0, and how many there are.
        clock, sleep: exchangeable in tests.
    """

    def __init__(
        self,
        count: Callable[[], int],
        topic: str,
        worker: int,
        workers: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._count, self._topic = count, topic
        self._worker, self._workers = worker, workers
        self._clock, self._sleep = clock, sleep
        self._known, self._counted = 0, 0.0
        self._callbacks: Callbacks | None = None

    def subscribe(self, topics: Sequence[str], callbacks: Callbacks) -> None:
        """Begin; the next poll hands out what there is."""
        self._callbacks = callbacks

    def poll(self, max_wait: float) -> None:
        """Hand out partitions that were added; looks for them once a minute."""
        assert self._callbacks is not None
        if self._known and self._clock() - self._counted < _RECOUNT:
            self._sleep(max_wait)
            return
        self._counted = self._clock()
        try:
            count = self._count()
        except BrokerError:
            if not self._known:
                raise
            return  # the broker is away; later again
        ours = [p for p in range(self._known, count) if p % self._workers == self._worker]
        first, self._known = not self._known, max(count, self._known)
        if ours or first:
            self._callbacks.assigned([(self._topic, number) for number in ours])

    def commit(self, offsets: Mapping[Partition, int], metadata: str) -> None:
        """Nothing: each lineage commits its own, as nobody is a member of the group."""

    def close(self) -> None:
        """Nothing is held."""
