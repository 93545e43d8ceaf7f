"""A run whose partitions have a model each: a member of a consumer group, or a worker's share.

From a configuration to lineages, which `lineages.py` steps, and from them to a result.
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from streamlearn.config import Config
from streamlearn.config_topics import KafkaSection, TopicsSection
from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.wire import Client, Membership
from streamlearn.contracts import Json
from streamlearn.engine import Engine
from streamlearn.errors import UserError
from streamlearn.health import NOT_LOADED, Status, Watch, told_of
from streamlearn.job import Job, lineage, result_of, user_errors
from streamlearn.lineages import Ended, Lineages, NotYetError
from streamlearn.partitions import Partitions, Share
from streamlearn.rehearsal import rehearse

if TYPE_CHECKING:
    from streamlearn.runner import Shown

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LineagesResult:
    """How a run of several lineages went: a `Result`, as plain values, for each partition.

    lineages: partition -> its result. seconds: of the run. stopped: the signal that stopped it, or
    "". What belongs to another owner by now is not in it.
    """

    lineages: Mapping[int, Mapping[str, Json]]
    seconds: float
    stopped: str = ""

    @property
    def events(self) -> int:
        """Of all lineages, those before a restart included."""
        return sum(one["events"] for one in self.lineages.values())

    def to_dict(self) -> dict[str, Json]:
        """Plain values."""
        by_number = {str(number): dict(one) for number, one in sorted(self.lineages.items())}
        about = {"events": self.events, "seconds": self.seconds, "stopped": self.stopped}
        return about | {"lineages": by_number}

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(self.to_dict(), indent=2)


class Part(NamedTuple):
    """The place of one process among those who share the partitions out beforehand."""

    worker: int
    workers: int


class GroupRun:
    """The lineages of one process, built from a configuration; nothing is opened yet.

    Args:
        config: with topics as source, and a checkpoint folder that all owners share.
        part: the share of one worker of several; None joins the consumer group.
        told: called in every round of the loop, after the health was looked at.

    Raises: UserError for what does not fit lineages.
    """

    def __init__(
        self, config: Config, part: Part | None = None, told: Callable[[], None] | None = None
    ) -> None:
        self.config, self.part, self.told = config, part, told
        self.kafka, self.topics = checked(config)
        assert config.checkpoint is not None
        self.folder = Path(config.checkpoint.path)
        self.jobs: dict[int, Job] = {}  # partition -> the last job that was built for it
        self.watch = Watch() if config.health is None else Watch(
            config.health.max_lag, config.health.stalled
        )  # fmt: skip
        self.lineages: Lineages | None = None
        self._partitions: Partitions | None = None

    def run(self) -> LineagesResult:
        """Load the kernels, take what is ours, and go on until all of it has ended, or a signal."""
        rehearse(lineage(self.config, 0))
        started = time.perf_counter()
        try:
            lineages = self.open()
            with user_errors("pipeline: "):
                ended = lineages.run()
        finally:
            self.close()
        if lineages.stopped:
            _log.warning("stopped by %s", lineages.stopped)
        results = {one.number: self._result(one) for one in ended}
        return LineagesResult(results, time.perf_counter() - started, lineages.stopped)

    def open(self) -> Lineages:
        """The lineages, none of which has begun. Raises: UserError, BrokerError."""
        connection, group = self.kafka.connection(), self.kafka.group
        client = client_named(connection.client)
        consumer = client.consumer(connection, group=group, keys=False, headers=False)
        self._partitions = partitions = Partitions(consumer, self.topics, self.folder)
        count = partitions.open()
        _log.info("%s: %d partitions, a model for each", ", ".join(self.topics), count)
        member: Membership
        if self.part is None:
            member = self.joined(client)
        else:
            member = Share(lambda: partitions.count(1.0), self.topics[0], *self.part)
        self.lineages = Lineages(
            member,
            self.topics[0],
            lambda number: self._made(number, member, partitions),
            beat=self._beat,
            dropped=lambda number: self.watch.remove(_name(number)),
            fixed=self.part is not None and self.bounded,
            shutdown_timeout=self.config.engine.shutdown_timeout,
        )
        return self.lineages

    def joined(self, client: Client) -> Membership:
        """A member of the group, which has not subscribed yet."""
        return client.member(self.kafka.connection(), self.kafka.group)

    @property
    def bounded(self) -> bool:
        """Whether the run ends by itself, so that partitions that come later are none of it."""
        source = self.config.source
        return isinstance(source, TopicsSection) and source.to is not None

    def _beat(self) -> None:
        self.watch.beat()
        if self.told is not None:
            self.told()

    def stop(self, reason: str) -> None:
        """End the run after the block in hand; from any thread."""
        if self.lineages is not None:
            self.lineages.stop(reason)

    def status(self) -> Status:
        """The health of all lineages, as JSON; from any thread.

        Not ready while one that is ours waits to begin; a member without a partition stands by, and
        is ready.
        """
        found, lineages = self.watch.status(), self.lineages
        if lineages is None:
            return found
        owned = list(lineages.owned.values())
        stands_by = lineages.assigned_once and not owned
        why = [why for why in found["why"] if why != NOT_LOADED or not stands_by]
        waiting = [one for one in owned if one.engine is None and one.ended is None]
        why += [f"{_name(one.number)}: {one.waits_for or NOT_LOADED}" for one in waiting]
        return found | {"why": why, "ready": not why}

    def close(self) -> None:
        """Let go of the connection that counts partitions; may be called twice."""
        if self._partitions is not None:
            self._partitions.close()

    def _result(self, ended: Ended) -> dict[str, Json]:
        found = result_of(self.jobs[ended.number], ended.summary)
        plain: dict[str, Json] = json.loads(found.to_json())
        return plain

    def _made(self, number: int, member: Membership, partitions: Partitions) -> Engine:
        """The engine of a partition. Raises: NotYetError while its label partition lacks."""
        from streamlearn.runner import engine_of, vitals_of

        if missing := partitions.missing(number):
            raise NotYetError(missing)
        commits = member if self.part is None else None
        added = partitions.added(number)
        job = lineage(self.config, number, commits, fresh_from_beginning=added)
        assert job.checkpoints is not None
        partitions.check_store(number, job.checkpoints.path)
        if added:
            _log.warning("partition %d: was added; begins with a fresh model", number)
        self.jobs[number] = job
        engine = engine_of(job, vitals=vitals_of(job))
        self.watch.add(_name(number), engine, job.outputs)
        return engine


def _name(number: int) -> str:
    return f"partition-{number}"


def run_lineages(config: Config, *, progress: "Shown | None" = None) -> LineagesResult:
    """Run a configuration as a member of its consumer group, with a model for each partition.

    Goes on from the last checkpoints; ends by a signal, or when the ranges of all that is ours have
    been read. progress: shows events, the mean rolling metric and alarms of all that is ours.

    Raises: UserError of one line for whatever is wrong with the configuration or the data.
    """
    run = GroupRun(config)
    run.told = None if progress is None else lambda: shown(progress, run.watch.lineages)
    with contextlib.ExitStack() as stack:
        if progress is not None:
            stack.enter_context(progress)
        stack.enter_context(told_of(config, run.status))
        return run.run()


def shown(progress: "Shown", lineages: Mapping[str, Status]) -> None:
    """Show how all lineages together go, where it is time."""
    if not progress.due:
        return
    told = list(lineages.values())
    rolling = [pair for one in told for pair in one["rolling"].items()]
    values = [value for _, value in rolling if value is not None]
    metric = rolling[0][0] if rolling else "metric"
    mean = sum(values) / len(values) if values else None
    progress.show(
        sum(one["events"] for one in told), metric, mean, sum(one["alarms"] for one in told)
    )


def checked(config: Config) -> tuple[KafkaSection, list[str]]:
    """The broker, and the topics of events and of labels, where a lineage a partition is possible.

    Raises: UserError with the path of what is in the way.
    """
    if config.kafka is None or not isinstance(config.source, TopicsSection):
        raise UserError(
            "workers: must be lineages of topics, one for each partition; name topics as the source"
        )
    topics = list(config.source.topics)
    labels = None if config.labels is None else config.labels.source
    if isinstance(labels, TopicsSection):
        topics += labels.topics
    elif labels is not None:
        raise UserError(
            f"labels.source: must be topics where each partition has its own model, got {labels!r}"
        )
    if config.checkpoint is None:
        raise UserError("checkpoint: must be there where each partition has its own model")
    if config.engine.pace is not None:
        raise UserError("engine.pace: is for one model; leave it out where each partition has one")
    return config.kafka, topics
