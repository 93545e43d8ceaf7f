"""Recordings of runs on topics: made along the order log, and replayed to the same bits.

A recorder does what a recovery does: it reads the topics again, in the order that the log tells,
and writes down every record on its way, those that do not fit the schema included. It runs beside
the run or after it, and changes nothing in it.
"""

import contextlib
import dataclasses
import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from streamlearn import job as jobs
from streamlearn.block import I8
from streamlearn.checkpoint import describe
from streamlearn.config import Config
from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.location import LATEST, Topics
from streamlearn.connectors.kafka.source import KafkaSource
from streamlearn.connectors.kafka.tape import (
    MANIFEST,
    ROLES,
    Place,
    Taken,
    TapeWriter,
    batches,
    is_tape,
    manifest_of,
)
from streamlearn.connectors.kafka.wire import Connection, Fetched, Partition
from streamlearn.contracts import Origins, Positions, State
from streamlearn.controls import along
from streamlearn.durable import disk_errors
from streamlearn.errors import UserError
from streamlearn.merging import Merged, Step
from streamlearn.order_log import RUN, Frame, OrderLog, first_offsets
from streamlearn.schema import Schema
from streamlearn.topics import Lineage

PART = 256 << 20  # bytes of values in a part
_ROWS = 4096  # taken at a time
_WAIT = 0.1  # seconds
_SILENT = 100  # waits in which nothing came


class Read(NamedTuple):
    """Topics with a role in a run, and how their records are decoded."""

    topics: Topics
    schema: Schema


class Recorded(NamedTuple):
    """What a pass wrote: records, and those of them that were rows of the stream."""

    records: int
    rows: int


# -- recording -------------------------------------------------------------------------------------


def record(
    config: Config,
    output: str | Path,
    *,
    partition: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Recorded:
    """Write what a run consumed since the last pass, up to the end of its order log.

    Args:
        config: of the run, with its checkpoint folder. output: the folder of the recording; one
            that is there is gone on with.
        partition: of a run with a model for each, the number of the one that is recorded.
        progress: called with the records so far.

    Every record counts that stands before the last row of its partition in the log, and whatever
    the last checkpoint has passed; also those that do not fit, and tombstones. What was written
    when this is killed counts up to the last whole part.
    Raises: UserError where there is no order log, where it does not begin with the run (keep_order:
        needed), or where the topics do not keep the records any more.
    Cost: reading and decoding the topics, and some 3 us a record; twice `buffer_mb` of memory.
    """
    sources, folder = reads_of(config, partition)
    passed = _passed(folder, sources)  # before the log is copied, so that this tells of all of it
    writer = TapeWriter(output)
    before = writer.manifest
    try:
        with _snapshot(folder / "order.log", writer.folder / ".order") as log:
            _Pass(sources, passed, log, writer, progress or _quiet).run()
    finally:
        writer.close()
    after = writer.manifest
    return Recorded(after.records - before.records, after.rows - before.rows)


def reads_of(config: Config, partition: int | None = None) -> tuple[dict[str, Read], Path]:
    """What the run of a configuration reads, by role, and the folder of its checkpoints.

    Raises: UserError where it reads no topics, or has no checkpoints, and so no order log.
    """
    if config.checkpoint is None:
        raise UserError("checkpoint: must be there to record a run: its order stands beside them")
    if config.kafka is not None and config.kafka.mode == "group" and partition is None:
        raise UserError(
            "partition: must be given where every partition has its own model (kafka.mode: group)"
        )
    silent = dict.fromkeys(("checkpoint", "sink", "alerts", "webhook", "dead_letters"))
    job = jobs.lineage(config.model_copy(update=silent), partition)
    found = {}
    for role, source in zip(ROLES, getattr(job.source, "sources", [job.source]), strict=False):
        if not isinstance(source, KafkaSource):
            name = "source" if role == "events" else "labels.source"
            raise UserError(
                f"{name}: must be topics to be recorded; a recording holds nothing else"
            )
        found[role] = Read(source.topics, source.schema)
    return found, Path(Lineage(partition).folder(config.checkpoint.path))


def _passed(checkpoints: Path, roles: Collection[str]) -> Positions:
    """Positions of the last checkpoint of the run; none where there is none."""
    try:
        found: Positions = describe(checkpoints)["sources"]
    except (UserError, FileNotFoundError):
        return {}
    return {name: at for name, at in found.items() if name.partition("/")[0] in roles}


def _quiet(records: int) -> None:
    pass


@contextlib.contextmanager
def _snapshot(log: Path, beside: Path) -> Iterator[Path]:
    """The files of an order log as they are now, while a run goes on with it."""
    with disk_errors(beside):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
    try:
        _copy_log(log, beside)
        yield beside / log.name
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _copy_log(log: Path, beside: Path) -> None:
    """Copies (links, where they can be) of the file that is written and those before it."""
    for _ in range(100):  # it is absent for a moment when a full one is set aside
        with contextlib.suppress(FileNotFoundError):
            _copy(log, beside / log.name)
            break
    else:
        raise UserError(
            f"{log}: there is no such order log; record what a run on topics with checkpoints "
            f"consumed, and name its configuration"
        )
    mine = os.stat(beside / log.name)
    for path in log.parent.glob(f"{log.name}.*"):
        if path.name.removeprefix(f"{log.name}.").isdigit():
            with contextlib.suppress(FileNotFoundError):  # let go of meanwhile
                if not os.path.samestat(path.stat(), mine):  # set aside meanwhile
                    _copy(path, beside / path.name)


def _copy(path: Path, place: Path) -> None:
    try:
        os.link(path, place)
    except FileNotFoundError:
        raise
    except OSError:  # another file system
        shutil.copyfile(path, place)


class _Pass:
    """One reading of the topics along the log, from where the last one stood."""

    def __init__(
        self,
        sources: Mapping[str, Read],
        passed: Positions,
        log: Path,
        writer: TapeWriter,
        progress: Callable[[int], None],
    ) -> None:
        self._passed, self._log, self._writer = passed, log, writer
        self._progress, self._reads = progress, sources
        self._tees = {role: _Tee(read.topics.connection.client) for role, read in sources.items()}
        self._sources = {
            role: KafkaSource(_followed(read.topics), read.schema, client=self._tees[role])
            for role, read in sources.items()
        }
        inputs = cast("Mapping[str, Any]", self._sources)
        self._merged = Merged(inputs, idle=math.inf, order=OrderLog(log, replay=True))

    def run(self) -> None:
        """Up to the end of the log, and what the last checkpoint has passed behind it."""
        try:
            self._open()
            silent = 0
            while not self._merged.finished:
                step = self._merged.take(_ROWS, _WAIT)
                silent = silent + 1 if step is None else 0
                if silent >= _SILENT:
                    self._refuse_absent()
                    silent = 0
                if step is not None and step.order.shape[0]:
                    self._write(step)
                    self._progress(self._writer.records)
                    if self._writer.bytes >= PART:
                        self._commit()
            self._write_passed()
            self._commit()
        finally:
            self._merged.close()

    def _open(self) -> None:
        """Where the last pass stood; at first, where the run began."""
        resume = self._writer.manifest.resume
        if resume is not None:
            self._merged.load(State({}, resume["merged"]))
            positions = resume["positions"]
        else:
            positions = self._beginning()
        self._merged.open(positions)
        for role, source in self._sources.items():
            for name, offset in source.positions.items():
                self._writer.begin(_place(role, name), offset)

    def _beginning(self) -> Positions:
        """Where the run began, where its configuration does not say it: from `latest` on.

        A partition without a row began where the last checkpoint has it.
        """
        late = [role for role, read in self._reads.items() if read.topics.start == LATEST]
        if not late:
            return {}
        found = self._passed | first_offsets(self._log)
        return {name: offset for name, offset in found.items() if name.partition("/")[0] in late}

    # -- writing -----------------------------------------------------------------------------------

    def _write(self, step: Step) -> None:
        """The rows of a step, each behind what stands before it in its partition."""
        parts = []
        for i, (role, batch) in enumerate(zip(self._sources, step.batches, strict=True)):
            if batch is not None:
                assert batch.origins is not None
                rows = np.flatnonzero(step.order == i)
                parts += self._taken(role, batch.origins, rows)
        self._writer.write(_in_order(parts))

    def _taken(self, role: str, origins: Origins, rows: NDArray[np.intp]) -> list["_Rows"]:
        """The records of each partition up to its last row, and the row each stands at."""
        found = []
        for k in np.unique(origins.partition).tolist():
            partition, mine = origins.partitions[k], origins.partition == k
            offsets = origins.offset[mine]
            records = self._tees[role].taken(partition, int(offsets[-1]) + 1)
            at = np.searchsorted(offsets, records.offsets)
            fits = offsets[at] == records.offsets
            found.append(_Rows((role, *partition), records, rows[mine][at], fits))
        return found

    def _write_passed(self) -> None:
        """Behind the last rows: records that fit nothing, and that a checkpoint has passed."""
        for name, end in sorted(self._passed.items()):
            role, topic, number = _place(*name.split("/", 1))
            source, tee = self._sources[role], self._tees[role]
            partition = topic, number
            lane = next((lane for lane in source.lanes if lane.partition == partition), None)
            while lane is not None and tee.reached(partition) < end and not lane.paused:
                if tee.caught_up(partition):
                    break
                source.wait(_WAIT)
            records = tee.taken(partition, end)
            n = len(records.values)
            fits = np.zeros(n, bool)
            self._writer.write(_in_order([_Rows((role, *partition), records, fits * 0, fits)]))

    def _refuse_absent(self) -> None:
        """Do not wait for ever where the topics have nothing more."""
        lanes = [lane for source in self._sources.values() for lane in source.lanes]
        connected = all(source.connected for source in self._sources.values())
        if connected and all(lane.caught_up or lane.paused for lane in lanes):
            raise UserError(
                "record: the order log goes on behind the ends of the topics; give the topics that "
                "the run reads, with the schema that it reads them with"
            )

    def _commit(self) -> None:
        positions = {"/".join(map(str, p)): end for p, end in self._writer.positions.items()}
        self._writer.commit({"merged": self._merged.state().table, "positions": positions})


class _Rows(NamedTuple):
    """Records of one partition; row: of the step, that each stands at or before; fits: (n,)."""

    place: Place
    records: Fetched
    row: NDArray[np.intp]
    fits: NDArray[np.bool_]


def _in_order(parts: Sequence[_Rows]) -> Taken:
    """Records of several partitions as one, by the rows that they stand at."""
    order = np.argsort(np.concatenate([part.row for part in parts]), kind="stable")
    counts = [len(part.records.values) for part in parts]

    def sorted_list(columns: Iterator[Sequence[Any]]) -> list[Any]:
        listed = list(chain.from_iterable(columns))
        return listed if len(parts) == 1 else [listed[i] for i in order]

    empty: list[Any] = [[]] * max(counts)
    return Taken(
        [part.place for part in parts],
        np.repeat(np.arange(len(parts)), counts)[order],
        np.concatenate([part.records.offsets for part in parts])[order],
        np.concatenate([part.records.times for part in parts])[order],
        sorted_list(part.records.values for part in parts),
        sorted_list(part.records.keys or () for part in parts),
        sorted_list(part.records.headers or empty[: len(part.records.values)] for part in parts),
        np.concatenate([part.fits for part in parts])[order],
    )


def _place(role: str, name: str) -> Place:
    """A lane's name in its parts."""
    topic, _, number = name.rpartition("/")
    return role, topic, int(number)


def _followed(topics: Topics) -> Topics:
    """Topics without an end: the log says where it is."""
    return dataclasses.replace(topics, stop=None)


class _Tee:
    """A client that keeps what one consumer fetches, until it is taken."""

    def __init__(self, name: str) -> None:
        self._client = client_named(name)
        self._consumer: Any = None
        self._kept: dict[Partition, deque[Fetched]] = {}
        self._next: dict[Partition, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def consumer(
        self, connection: Connection, *, group: str | None, keys: bool, headers: bool
    ) -> Any:
        """This one: a consumer of whole records, in all else that of the client."""
        self._consumer = self._client.consumer(connection, group=group, keys=True, headers=True)
        return self

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read from these offsets; what was kept before them stays."""
        self._consumer.assign(positions)
        for partition, offset in positions.items():
            self._next.setdefault(partition, offset)

    def fetch(self, most: int, max_wait: float) -> list[Fetched]:
        """As the client does, keeping it."""
        found: list[Fetched] = self._consumer.fetch(most, max_wait)
        for records in found:
            start = int(np.searchsorted(records.offsets, self._next.get(records.partition, 0)))
            if start < len(records.values):
                kept = self._kept.setdefault(records.partition, deque())
                kept.append(records.between(start, len(records.values)))
                self._next[records.partition] = int(records.offsets[-1]) + 1
        return found

    def reached(self, partition: Partition) -> int:
        """The offset after the last record that was fetched."""
        return self._next.get(partition, 0)

    def taken(self, partition: Partition, before: int) -> Fetched:
        """What is kept of a partition before an offset; it is kept no more."""
        kept, parts = self._kept.get(partition, deque()), []
        while kept and int(kept[0].offsets[0]) < before:
            records = kept.popleft()
            stop = int(np.searchsorted(records.offsets, before))
            if stop < len(records.values):
                kept.appendleft(records.between(stop, len(records.values)))
            parts.append(records.between(0, stop))
        return _joined(partition, parts)


def _joined(partition: Partition, parts: Sequence[Fetched]) -> Fetched:
    none = np.zeros(0, np.int64)
    return Fetched(
        partition,
        np.concatenate([none, *(part.offsets for part in parts)]),
        np.concatenate([none, *(part.times for part in parts)]),
        list(chain.from_iterable(part.values for part in parts)),
        list(chain.from_iterable(part.keys or () for part in parts)),
        list(chain.from_iterable(part.headers or () for part in parts)),
    )


# -- replaying -------------------------------------------------------------------------------------


class TapeOrder(OrderLog):
    """The order of a recording, in the place of the order log of its run; to be repeated."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(Path(folder) / MANIFEST, replay=True)
        self.folder = Path(folder)

    def open(self, names: list[str], rows: int | None) -> None:
        """Go to a row; names: of the inputs, as of `OrderLog`."""
        self.close()
        manifest = manifest_of(self.folder)
        self._names = ["/".join(map(str, extent[:3])) for extent in manifest.extents]
        self._fit(names)
        self._rows = rows or 0
        if manifest.rows < self._rows:
            raise UserError(
                f"{self.folder}: ends at row {manifest.rows}, before the checkpoint (row "
                f"{self._rows}); record the rest, or begin with a new checkpoint folder"
            )
        self._frames = self._after_row(self._rows)
        self._waiting = []

    def _after_row(self, row: int) -> Iterator[Frame]:
        """A frame for each piece of the recording, without the rows before that."""
        done = 0
        for piece in batches(self.folder, ["role", "topic", "partition", "offset", "fits"]):
            rows = piece.filter(piece.column("fits"))
            skipped = min(rows.num_rows, row - done) if done < row else 0
            done += rows.num_rows
            if rows.num_rows > skipped:
                yield Frame(done, self._runs(rows.slice(skipped)), [])

    def _runs(self, rows: Any) -> NDArray[Any]:
        """Rows as runs of one partition each."""
        roles, named = rows.column("role"), rows.column("topic")
        codes = roles.indices.to_numpy().astype(np.int64) << 48
        codes |= named.indices.to_numpy().astype(np.int64) << 32
        codes |= rows.column("partition").to_numpy()
        distinct, place = np.unique(codes, return_inverse=True)
        known = {name: i for i, name in enumerate(self._names)}
        numbers = [
            known[
                f"{roles.dictionary[c >> 48]}/{named.dictionary[c >> 32 & 0xFFFF]}/{c % (1 << 32)}"
            ]
            for c in distinct.tolist()
        ]
        inputs = np.array(numbers, np.int64)[place]
        offsets: I8 = rows.column("offset").to_numpy()
        starts = np.flatnonzero(np.diff(inputs, prepend=-1))
        runs = np.empty(starts.shape[0], dtype=RUN)
        runs["input"], runs["first"] = inputs[starts], offsets[starts]
        runs["rows"] = np.diff(starts, append=rows.num_rows)
        return runs


def order_of(data: Any, order: str | Path | None) -> OrderLog | None:
    """The order that a replay repeats: that of a recording, or of an order log; None: its own.

    order: an order log, or the folder of checkpoints that it is in; one with nothing but what was
    done by hand has no order of its own.
    Raises: UserError where a recording and an order log are given.
    """
    if is_tape(data):
        if order is not None:
            raise UserError(f"order: {data} is a recording, which has its own; leave it out")
        return TapeOrder(data)
    if order is None:
        return None
    path = Path(order)
    file = path / "order.log" if path.is_dir() else path
    if not file.exists() and along(path) is not None:
        return None
    return OrderLog(file, replay=True)
