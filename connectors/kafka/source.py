"""Topics as a source: a lane for each partition, fetched under back-pressure, decoded in blocks.

The client is called by one thread alone; decoding alone has another, where there is a second core.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.block import I8, NO_TIME
from streamlearn.connectors._partitions import decode_thread, second_core
from streamlearn.connectors.kafka import client_named
from streamlearn.connectors.kafka.decode import MessageRows
from streamlearn.connectors.kafka.formats import decoder_of
from streamlearn.connectors.kafka.lanes import KafkaLane, Taken
from streamlearn.connectors.kafka.location import Point, Topics
from streamlearn.connectors.kafka.wire import BrokerError, Client, Consumer, Partition
from streamlearn.contracts import Batch, Origins, Positions
from streamlearn.errors import UserError
from streamlearn.schema import Schema
from streamlearn.schema_columns import interleaved

FETCH = 16_384  # records asked for at a time
LOOK = 60.0  # seconds after which added partitions are looked for
BRIEF = 0.2  # seconds that this may take
_log = logging.getLogger(__name__)


class Lag(NamedTuple):
    """How far a lane is behind: records to the high watermark, and seconds of event time.

    seconds: from the time of the last record taken until now; 0 at the end of the partition. None
    where the broker has not told, or no record was taken yet.
    """

    records: int | None
    seconds: float | None


class KafkaSource:
    """A `LanedSource` over topics.

    Args:
        topics: which, from where to where, in what format, how to reach the broker.
        schema: which columns messages have; also `$key`, `$timestamp`, `$header.NAME`, `$topic`,
            `$partition` and `$offset` of the record.
        keyed: whether keys are handed on in `Batch.origins`. client: in the place of the one that
            the topics' connection names.
        patience: seconds that the broker has to answer when the source is opened; later a broker
            that is away is waited for.
        clock: seconds that never go back, for looking after added partitions.
    Positions: `topic/number` -> offset of the next record.
    Memory: `topics.buffer_mb` shared by the partitions, and of each one fetch, the piece in hand
        and the one that is decoded ahead, whose bytes count as waiting; a partition that has its
        share waiting is paused, so that one that is held back cannot starve the others.
    Cost: 0.3 us a record of eight numbers beside the client and the bare decoding of its JSON, 0.15
        more with an id, 0.1 more where several partitions are woven together.
    """

    def __init__(
        self,
        topics: Topics,
        schema: Schema,
        *,
        keyed: bool = True,
        client: Client | None = None,
        patience: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.topics, self.schema = topics, schema
        self.guarantee = (
            f"{topics}: every record exactly once from any position, in the order of its "
            f"partition, as long as the topics keep it; aborted transactions are left out"
        )
        self.lanes: list[KafkaLane] = []
        self._keyed, self._client = keyed, client
        self._patience, self._clock = patience, clock
        self._rows: MessageRows | None = None
        self._thread: Executor | None = None
        self._consumer: Consumer | None = None
        self._lane_of: dict[Partition, KafkaLane] = {}
        self._looked = 0.0

    # -- opening and closing -----------------------------------------------------------------------

    def open(self, positions: Positions) -> None:
        """Go to these positions; an empty dict means where the topics were told to start.

        Raises: UserError where no broker answers in time, a topic or partition is not there, or an
        offset is not (any more).
        """
        self.close()
        rows = MessageRows(self.schema, decoder_of(self.topics, self.schema))
        self._rows = rows
        self._thread = decode_thread() if second_core() else None
        connection = self.topics.connection
        client = client_named(connection.client) if self._client is None else self._client
        self._consumer = consumer = client.consumer(
            connection,
            group=self.topics.group,
            keys=self._keyed or rows.keys,
            headers=rows.headers,
        )
        try:
            places = _Places(self.topics, consumer, self._patience)
            starts, stops = places.starts(positions), places.stops()
            self.lanes = [
                KafkaLane(partition, start, stops.get(partition), rows, consumer, self._thread)
                for partition, start in sorted(starts.items())
            ]
            self._assign()
        except UserError:
            self.close()
            raise

    def _assign(self) -> None:
        """Tell the consumer of the lanes as they are."""
        consumer = self._opened()
        self._lane_of = {lane.partition: lane for lane in self.lanes}
        consumer.assign({lane.partition: lane.fetched for lane in self.lanes})
        consumer.pause([lane.partition for lane in self.lanes if lane.paused])
        self._looked = self._clock()

    def _opened(self) -> Consumer:
        assert self._consumer is not None, "the source is not open"
        return self._consumer

    def close(self) -> None:
        """Release connections, after the piece that is being decoded; may be called twice."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        if self._consumer is not None:
            self._consumer.close()
        if self._rows is not None:
            self._rows.decoder.close()
        self._consumer, self._rows, self._thread = None, None, None
        self.lanes, self._lane_of = [], {}

    # -- what is there -----------------------------------------------------------------------------

    @property
    def positions(self) -> Positions:
        """The next record of every lane that was not taken."""
        return {lane.name: lane.position for lane in self.lanes}

    @property
    def finished(self) -> bool:
        """True when all lanes are."""
        return bool(self.lanes) and all(lane.finished for lane in self.lanes)

    @property
    def connected(self) -> bool:
        """Whether broker and registry answered of late."""
        consumer, rows = self._consumer, self._rows
        return (
            consumer is not None
            and rows is not None
            and consumer.connected
            and rows.decoder.connected
        )

    @property
    def assigned(self) -> bool:
        """Whether the source is open."""
        return bool(self.lanes)

    @property
    def tombstones(self) -> int:
        """Records without a value that were left out since the source was opened."""
        return sum(lane.tombstones for lane in self.lanes)

    def lag(self, now: float | None = None) -> dict[str, Lag]:
        """How far each lane is behind; now: seconds since 1970, the wall's clock by default."""
        now = time.time() if now is None else now
        return {lane.name: _lag(lane, now) for lane in self.lanes}

    # -- fetching ----------------------------------------------------------------------------------

    def wait(self, max_wait: float) -> None:
        """Look for records of all lanes, at most so many seconds; 0 takes what is there.

        Raises: UserError where a topic is gone, an offset is not there any more, or a right lacks.
        """
        consumer = self._opened()
        if self._clock() - self._looked >= LOOK and self._follows:
            self._look_for_more()
        self._balance()
        try:
            came = consumer.fetch(FETCH, max_wait)
        except BrokerError as error:
            self._refuse_gone()
            raise BrokerError(f"{error}") from None
        for fetched in came:
            lane = self._lane_of.get(fetched.partition)
            if lane is not None:
                lane.admit(fetched)

    def _balance(self) -> None:
        """Pause the partitions that have their share waiting; resume at half of it."""
        share = (self.topics.buffer_mb << 20) / max(1, len(self.lanes))
        full = [one for one in self.lanes if not one.paused and (one.size > share or one.read)]
        less = [one for one in self.lanes if one.paused and one.size <= share / 2 and not one.read]
        for lanes, paused in ((full, True), (less, False)):
            for lane in lanes:
                lane.paused = paused
        if full:
            self._opened().pause([lane.partition for lane in full])
        if less:
            self._opened().resume([lane.partition for lane in less])

    @property
    def _follows(self) -> bool:
        """Whether partitions that are added belong to the source."""
        return self.topics.partitions is None and self.topics.stop is None

    def _look_for_more(self) -> None:
        """Give each partition that was added a lane, from its first record on, loudly."""
        consumer = self._opened()
        self._looked = self._clock()
        if not consumer.connected:
            return
        try:
            there = {name: consumer.partitions(name, BRIEF) for name in self.topics.names}
            added = [(name, i) for name, n in there.items() for i in range(n)
                     if (name, i) not in self._lane_of]  # fmt: skip
            starts = consumer.beginnings(added, BRIEF) if added else {}
        except BrokerError:  # it does not answer now; what is wrong for good, `fetch` says
            return
        for partition in added:
            assert self._rows is not None
            start, rows = starts[partition], self._rows
            lane = KafkaLane(partition, start, None, rows, consumer, self._thread)
            self.lanes.append(lane)
            _log.warning("%s: was added to the topic; it is read from its beginning on", lane.name)
        if added:
            self._assign()

    def _refuse_gone(self) -> None:
        """Name what is gone, where records that were not read yet were deleted."""
        consumer = self._opened()
        partitions = [lane.partition for lane in self.lanes]
        try:
            first = consumer.beginnings(partitions, self._patience)
        except BrokerError:
            return
        for lane in self.lanes:
            if lane.fetched < first.get(lane.partition, 0):
                raise _gone(lane.name, lane.fetched, first[lane.partition])

    # -- taking ------------------------------------------------------------------------------------

    def take(self, order: NDArray[np.intp]) -> Batch:
        """As `LanedSource.take`; origins are of all rows, and `partition` is the lane."""
        counts = np.bincount(order, minlength=len(self.lanes)).tolist()
        if order.shape[0]:
            used = [i for i, n in enumerate(counts) if n]
        else:
            found = ((i, lane.ready()) for i, lane in enumerate(self.lanes))
            used = [i for i, ready in found if ready is not None and ready.n == 0]
        taken = [self.lanes[i].take(counts[i]) for i in used]
        place = np.zeros(len(self.lanes), dtype=np.intp)
        place[used] = np.arange(len(used))
        block = interleaved([one.part for one in taken], place[order])
        rejects = [reject for one in taken for reject in one.rejects]
        batch = Batch(block, rejects, self.positions, self._origins(order, used, taken))
        for i in used:
            self.lanes[i].begin_next()
        return batch

    def _origins(self, order: NDArray[np.intp], used: list[int], taken: list[Taken]) -> Origins:
        partitions = [lane.partition for lane in self.lanes]
        if len(taken) == 1:
            one = taken[0]
            return Origins(partitions, order, one.offsets, one.times, one.keys)
        rows = [np.flatnonzero(order == i) for i in used]
        offsets: I8 = np.empty(order.shape[0], dtype=np.int64)
        times: I8 = np.empty(order.shape[0], dtype=np.int64)
        keys = np.empty(order.shape[0], dtype=object)
        for at, one in zip(rows, taken, strict=True):
            offsets[at], times[at] = one.offsets, one.times
            if one.keys is not None:
                keys[at] = np.fromiter(one.keys, dtype=object, count=at.shape[0])
        return Origins(partitions, order, offsets, times, keys.tolist() if self._keyed else None)


def _lag(lane: KafkaLane, now: float) -> Lag:
    records = lane.lag
    if records == 0:
        return Lag(0, 0.0)
    if lane.last_time is None or lane.last_time == NO_TIME:
        return Lag(records, None)
    return Lag(records, max(0.0, now - lane.last_time / 1e9))


def _gone(name: str, offset: int, first: int) -> BrokerError:
    return BrokerError(
        f"{name}: offset {offset} is gone, the first one that is there is {first}: the topic has "
        f"deleted {first - offset} records that were not read; begin with a new checkpoint folder, "
        f"and give the topic a longer retention"
    )


class _Places:
    """Where a source begins and ends in each partition of its topics."""

    def __init__(self, topics: Topics, consumer: Consumer, patience: float) -> None:
        self._topics, self._consumer, self._patience = topics, consumer, patience
        self.partitions = [p for name in topics.names for p in self._partitions_of(name)]
        self.first = consumer.beginnings(self.partitions, patience)
        self.end = consumer.ends(self.partitions, patience)

    def _partitions_of(self, name: str) -> list[Partition]:
        n = self._consumer.partitions(name, self._patience)
        chosen = self._topics.partitions
        for number in chosen or ():
            if number >= n:
                raise UserError(f"{name}: has {n} partitions, from 0; there is no number {number}")
        return [(name, number) for number in (range(n) if chosen is None else chosen)]

    def starts(self, positions: Positions) -> dict[Partition, int]:
        """The first offset to read of each: by position, or else where the topics start."""
        known = {f"{topic}/{number}": (topic, number) for topic, number in self.partitions}
        for name in positions:
            if name not in known:
                raise UserError(
                    f"{self._topics}: the checkpoint has read {name!r}, which is not there now; "
                    f"name its topic again, or start with a new checkpoint folder"
                )
        if not positions:
            return self._fresh()
        found = {known[name]: int(offset) for name, offset in positions.items()}
        self._check(found, "the checkpoint goes on at")
        for partition in self.partitions:
            if partition not in found:
                text = "%s/%d: is not in the checkpoint; it is read from its beginning on"
                _log.warning(text, *partition)
                found[partition] = self.first[partition]
        return found

    def _fresh(self) -> dict[Partition, int]:
        start = self._topics.start
        if start.kind == "earliest":
            return dict(self.first)
        if start.kind == "offset":
            found = dict.fromkeys(self.partitions, start.value)
            self._check(found, "the source is to start at")
            return found
        return self._at(start)

    def stops(self) -> dict[Partition, int]:
        """The offset that ends each, where the source has an end; never behind what is there."""
        stop = self._topics.stop
        if stop is None:
            return {}
        if stop.kind == "offset":
            return {p: min(stop.value, self.end[p]) for p in self.partitions}
        return self._at(stop)

    def _at(self, point: Point) -> dict[Partition, int]:
        if point.kind == "latest":
            return dict(self.end)
        return self._consumer.at_time(self.partitions, point.value, self._patience)

    def _check(self, places: Mapping[Partition, int], what: str) -> None:
        """Refuse offsets before the first or behind the last record."""
        for partition, offset in places.items():
            name = f"{partition[0]}/{partition[1]}"
            if offset < self.first[partition]:
                raise _gone(name, offset, self.first[partition])
            if offset > self.end[partition]:
                raise UserError(
                    f"{name}: {what} offset {offset}, but the partition ends at "
                    f"{self.end[partition]}; the topic was made anew or has lost records: correct "
                    f"the address, or start with a new checkpoint folder"
                )
