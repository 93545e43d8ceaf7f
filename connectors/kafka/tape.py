"""Recordings of topics: a folder of Parquet parts, and the client that reads one as a broker.

A part holds records in the order in which a run took them, one row each: role (events, labels),
topic, partition, offset, timestamp (UTC, null without one), key, value, headers, and whether it
fits the schema, so that it is a row of the stream. `tape.json` names the parts that count and says
where each partition begins and ends; a part that was begun and not finished is not in it.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from streamlearn.block import I8, NO_TIME
from streamlearn.connectors.kafka.wire import (
    Admin,
    BrokerError,
    Committed,
    Connection,
    Consumer,
    Fetched,
    Headers,
    Membership,
    Partition,
    Producer,
)
from streamlearn.connectors.parquet_files import open_parquet_file
from streamlearn.contracts import Json
from streamlearn.durable import disk_errors, replacing, sync_folder, write_all
from streamlearn.errors import UserError

MANIFEST = "tape.json"
ROLES = ("events", "labels")
_VERSION = 1
_GROUP = 1 << 15  # records of a row group
_BATCH = 4096  # records read at a time
_FORM = pa.schema(
    [
        ("role", pa.dictionary(pa.int8(), pa.string())),
        ("topic", pa.dictionary(pa.int16(), pa.string())),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.timestamp("ns", "UTC")),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("headers", pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))),
        ("fits", pa.bool_()),
    ]
)


Place = tuple[str, str, int]  # role, topic, partition


class Taken(NamedTuple):
    """Records in the order in which a run took them, (n,) each.

    places: the partitions that `place` counts. values, keys, headers: as in `wire.Fetched`. fits:
    whether each was a row; tombstones and rejects are none.
    """

    places: Sequence[Place]
    place: NDArray[np.intp]
    offsets: I8
    times: I8
    values: Sequence[bytes | None]
    keys: Sequence[bytes | None]
    headers: Sequence[Headers]
    fits: NDArray[np.bool_]


class Extent(NamedTuple):
    """What a recording has of one partition: from the first offset, up to before the end."""

    role: str
    topic: str
    number: int
    first: int
    end: int


class Manifest(NamedTuple):
    """What a recording holds.

    parts: how many count. records, rows: of all partitions, and those of them that fit. extents:
    by partition. resume: what the recorder needs to go on.
    """

    parts: int = 0
    records: int = 0
    rows: int = 0
    extents: tuple[Extent, ...] = ()
    resume: Json = None

    def topics(self, role: str) -> list[str]:
        """The topics with a role, in their order."""
        return list(dict.fromkeys(e.topic for e in self.extents if e.role == role))


def is_tape(location: object) -> bool:
    """Whether a location is the folder of a recording."""
    return isinstance(location, (str, Path)) and (Path(location) / MANIFEST).is_file()


def manifest_of(folder: str | Path) -> Manifest:
    """What a recording holds.

    Raises: UserError for a folder that is none, or is of another version.
    """
    path = Path(folder) / MANIFEST
    try:
        table = json.loads(path.read_text("utf-8"))
        if table["version"] != _VERSION:
            raise UserError(
                f"{path}: is of version {table['version']}, this one reads {_VERSION}; "
                f"record it again"
            )
        extents = tuple(Extent(*extent) for extent in table["extents"])
        counts = table["parts"], table["records"], table["rows"]
        return Manifest(*counts, extents, table["resume"])
    except FileNotFoundError:
        raise UserError(f"{folder}: is no recording: it has no {MANIFEST}; correct the path"
                        ) from None  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; put back a whole copy") from None


def part_of(folder: str | Path, number: int) -> Path:
    """The file of a part."""
    return Path(folder) / f"part-{number:06d}.parquet"


# -- writing ---------------------------------------------------------------------------------------


class TapeWriter:
    """Appends records to a recording; they count once `commit` has returned.

    Args:
        folder: made if it is not there; a recording that is in it is gone on with.

    Raises: UserError for a folder that holds something else, or cannot be written.
    Cost: some 2 us a record; in memory 32,768 records and one part's columns, packed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        with disk_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            there = sorted(path.name for path in self.folder.iterdir())
        if MANIFEST not in there and any(not name.startswith(".") for name in there):
            raise UserError(
                f"{self.folder}: holds something that is no recording; give a folder of its own"
            )
        self.manifest = manifest_of(self.folder) if MANIFEST in there else Manifest()
        for name in there:  # of a recorder that was killed
            number = name.removeprefix("part-").removesuffix(".parquet")
            late = number.isdigit() and int(number) >= self.manifest.parts
            if late or name.endswith(".tmp"):
                (self.folder / name).unlink(missing_ok=True)
        self._extents = {extent[:3]: extent for extent in self.manifest.extents}
        self._records, self._rows = self.manifest.records, self.manifest.rows
        self._waiting: list[Taken] = []
        self._n_waiting = 0
        self._writer: Any = None
        self.bytes = 0  # of the part that is being written

    @property
    def records(self) -> int:
        """Records so far, those of the part that is being written included."""
        return self._records

    @property
    def positions(self) -> dict[Place, int]:
        """By role, topic and partition: the offset after the last record."""
        return {place: extent.end for place, extent in self._extents.items()}

    def begin(self, place: Place, first: int) -> None:
        """A partition from whose offset `first` on records will come; nothing if it is known."""
        self._extents.setdefault(place, Extent(*place, first, first))

    def write(self, taken: Taken) -> None:
        """Take records, which follow those before in the order of the run."""
        n = len(taken.values)
        for i in np.unique(taken.place).tolist():
            place, offsets = taken.places[i], taken.offsets[taken.place == i]
            self.begin(place, int(offsets[0]))
            self._extents[place] = self._extents[place]._replace(end=int(offsets[-1]) + 1)
        self._records, self._rows = self._records + n, self._rows + int(taken.fits.sum())
        self._waiting.append(taken)
        self._n_waiting += n
        self.bytes += sum(map(len, filter(None, taken.values)))
        if self._n_waiting >= _GROUP:
            self._drain()

    def commit(self, resume: Json) -> None:
        """Finish the part and make it count, with what the recorder needs to go on."""
        number = self.manifest.parts
        if self._n_waiting or self._writer is not None:
            self._drain()
            path = part_of(self.folder, number)
            with disk_errors(path):
                self._writer.close()
                self._writer = None
                with self._beside.open("rb+") as file:
                    os.fsync(file.fileno())
                os.replace(self._beside, path)
                sync_folder(self.folder)
            number += 1
        self.bytes = 0
        extents = tuple(sorted(self._extents.values()))
        self.manifest = Manifest(number, self._records, self._rows, extents, resume)
        table = {"version": _VERSION} | self.manifest._asdict()
        with replacing(self.folder / MANIFEST) as descriptor:
            write_all(descriptor, json.dumps(table).encode())

    @property
    def _beside(self) -> Path:
        return self.folder / f".part-{self.manifest.parts:06d}.parquet.tmp"

    def _drain(self) -> None:
        """Write what waits as a row group."""
        with disk_errors(self._beside):
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._beside, _FORM, compression="zstd")
            if self._waiting:
                self._writer.write_table(_table(self._waiting))
        self._waiting, self._n_waiting = [], 0

    def close(self) -> None:
        """Leave what was not committed; may be called twice."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._beside.unlink(missing_ok=True)


def _table(taken: Sequence[Taken]) -> Any:
    """Records as an Arrow table."""
    known = list(dict.fromkeys(place for one in taken for place in one.places))
    places = np.concatenate(
        [np.array([known.index(p) for p in one.places], np.int64)[one.place] for one in taken]
    )
    times = np.concatenate([one.times for one in taken])
    columns = [
        _named([role for role, _, _ in known], places, pa.int8()),
        _named([topic for _, topic, _ in known], places, pa.int16()),
        pa.array(np.array([number for _, _, number in known], np.int32)[places]),
        pa.array(np.concatenate([one.offsets for one in taken])),
        pa.array(times, pa.timestamp("ns", "UTC"), mask=times == NO_TIME),
        pa.array(list(chain.from_iterable(one.keys for one in taken)), pa.binary()),
        pa.array(list(chain.from_iterable(one.values for one in taken)), pa.binary()),
        _headers(list(chain.from_iterable(one.headers for one in taken))),
        pa.array(np.concatenate([one.fits for one in taken])),
    ]
    return pa.table(columns, schema=_FORM)


def _named(names: Sequence[str], places: NDArray[np.intp], kind: Any) -> Any:
    """The name of each record's partition, as a dictionary column."""
    distinct = list(dict.fromkeys(names))
    codes = np.array([distinct.index(name) for name in names])[places]
    return pa.DictionaryArray.from_arrays(pa.array(codes, kind), pa.array(distinct, pa.string()))


def _headers(listed: Sequence[Headers]) -> Any:
    """The column of headers; most records have none, which is quick."""
    form = _FORM.field("headers").type
    if not any(listed):
        nothing = pa.array(np.zeros(len(listed) + 1, np.int32))
        return pa.ListArray.from_arrays(nothing, pa.array([], form.value_type))
    pairs = [[{"name": name, "value": value} for name, value in headers] for headers in listed]
    return pa.array(pairs, form)


# -- reading ---------------------------------------------------------------------------------------


def batches(folder: str | Path, columns: Sequence[str]) -> Iterator[Any]:
    """The records of a recording in their order, as Arrow record batches of some columns.

    Raises: UserError for a part that is not there, or is damaged.
    """
    for number in range(manifest_of(folder).parts):
        path = part_of(folder, number)
        if not path.is_file():
            raise UserError(f"{path}: is not there, but {MANIFEST} names it; get a whole copy")
        file = open_parquet_file(path)
        try:
            yield from file.iter_batches(_BATCH, columns=list(columns), use_threads=False)
        except (OSError, pa.ArrowInvalid) as error:
            text = str(error).splitlines()[0]
            raise UserError(f"{path}: is damaged: {text}; get a whole copy") from None
        finally:
            file.close()


class TapeConsumer:
    """A recording as a `wire.Consumer`: the records of the topics that are assigned, in its order.

    What is asked of brokers is told by the manifest: the ends are those of the recording.
    """

    connected = True

    def __init__(self, folder: str | Path) -> None:
        self._folder, self._manifest = Path(folder), manifest_of(folder)
        self._extents = {(e.topic, e.number): e for e in self._manifest.extents}
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._held: dict[Partition, Fetched] = {}
        self._batches: Iterator[Any] = iter(())
        self._ended = True

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read these partitions, each from an offset, from the beginning of the recording on."""
        self._positions, self._paused, self._held = dict(positions), set(), {}
        names = [name for name in _FORM.names if name not in ("role", "fits")]
        self._batches, self._ended = batches(self._folder, names), False

    def fetch(self, most: int, max_wait: float) -> list[Fetched]:
        """The next records; those of a paused partition stand in the way of what follows them."""
        found = [self._held.pop(p) for p in list(self._held) if p not in self._paused]
        while not found and not self._held and not self._ended:
            batch = next(self._batches, None)
            if batch is None:
                self._ended = True
                break
            for records in self._split(batch):
                if records.partition in self._paused:
                    self._held[records.partition] = records
                else:
                    found.append(records)
        return found

    def _split(self, batch: Any) -> Iterator[Fetched]:
        """The records of a batch by partition, of those that are assigned."""
        topics = batch.column("topic")
        names = topics.dictionary.to_pylist()
        codes = topics.indices.to_numpy().astype(np.int64) << 32
        codes |= batch.column("partition").to_numpy()
        offsets = batch.column("offset").to_numpy()
        for code in np.unique(codes).tolist():
            place = (names[code >> 32], code & 0xFFFFFFFF)
            if place in self._positions:
                mine = (codes == code) & (offsets >= self._positions[place])
                rows = np.flatnonzero(mine)
                if rows.shape[0]:
                    yield _fetched(place, batch.take(pa.array(rows)))

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Give nothing of these until they are resumed."""
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Give these again."""
        self._paused.difference_update(partitions)

    def caught_up(self, partition: Partition) -> bool:
        """Whether all of the recording was given."""
        return self._ended and partition not in self._held

    def end(self, partition: Partition) -> int | None:
        """The offset after the last record."""
        extent = self._extents.get(partition)
        return 0 if extent is None else extent.end

    def partitions(self, topic: str, max_wait: float) -> int:
        """Number of the topic's partitions, as far as the recording knows."""
        numbers = [number for name, number in self._extents if name == topic]
        if not numbers:
            there = ", ".join(dict.fromkeys(name for name, _ in self._extents)) or "none"
            raise BrokerError(f"{self._folder}: has no topic {topic!r}; its topics are: {there}")
        return max(numbers) + 1

    def beginnings(self, partitions: Sequence[Partition], max_wait: float) -> dict[Partition, int]:
        """The first offset of each."""
        return {p: self._extents[p].first if p in self._extents else 0 for p in partitions}

    def ends(self, partitions: Sequence[Partition], max_wait: float) -> dict[Partition, int]:
        """The offset after the last record of each."""
        return {p: self._extents[p].end if p in self._extents else 0 for p in partitions}

    def at_time(
        self, partitions: Sequence[Partition], time: int, max_wait: float
    ) -> dict[Partition, int]:
        """The first offset of each at or after a time in ns; its end where none is."""
        found = self.ends(partitions, max_wait)
        left = set(partitions)
        for batch in batches(self._folder, ["topic", "partition", "offset", "timestamp"]):
            for place in list(left):
                named = np.array(batch.column("topic").to_pylist()) == place[0]
                mine = named & (batch.column("partition").to_numpy() == place[1])
                mine &= _nanoseconds(batch) >= time
                rows = np.flatnonzero(mine)
                if rows.shape[0]:
                    found[place] = int(batch.column("offset")[int(rows[0])].as_py())
                    left.discard(place)
        return found

    def committed(
        self, partitions: Sequence[Partition], max_wait: float
    ) -> dict[Partition, Committed]:
        """Nothing is committed to a recording."""
        return {}

    def commit(self, offsets: Mapping[Partition, int], metadata: str) -> None:
        """Nothing is committed to a recording."""

    def close(self) -> None:
        """Let go of the files."""
        self._batches, self._held, self._ended = iter(()), {}, True


def _nanoseconds(batch: Any) -> NDArray[np.int64]:
    """The timestamps, NO_TIME where there is none."""
    whole = batch.column("timestamp").cast(pa.int64()).fill_null(NO_TIME)
    out: NDArray[np.int64] = whole.to_numpy(zero_copy_only=False)
    return out


def _fetched(place: Partition, batch: Any) -> Fetched:
    column = batch.column("headers")
    headers: list[Headers] = [[] for _ in range(len(column))]
    if len(column.flatten()):
        for found, pairs in zip(headers, column.to_pylist(), strict=True):
            found += [(pair["name"], pair["value"]) for pair in pairs]
    return Fetched(
        place,
        batch.column("offset").to_numpy(),
        _nanoseconds(batch),
        batch.column("value").to_pylist(),
        batch.column("key").to_pylist(),
        headers,
    )


class TapeClient:
    """Recordings in the place of a broker; `Connection.bootstrap` names the folder."""

    def consumer(
        self, connection: Connection, *, group: str | None, keys: bool, headers: bool
    ) -> Consumer:
        """A reader of the recording."""
        return TapeConsumer(connection.bootstrap)

    def producer(
        self, connection: Connection, *, transactional_id: str | None, max_in_flight: int
    ) -> Producer:
        """Refused: a recording is read only."""
        raise _read_only(connection)

    def member(self, connection: Connection, group: str) -> Membership:
        """Refused: a recording has no groups."""
        raise _read_only(connection)

    def admin(self, connection: Connection) -> Admin:
        """Refused: a recording is read only."""
        raise _read_only(connection)


def _read_only(connection: Connection) -> UserError:
    return UserError(
        f"{connection.bootstrap}: is a recording, which is only read; write to a file, "
        f"or run on the topics"
    )


CLIENT = TapeClient()
