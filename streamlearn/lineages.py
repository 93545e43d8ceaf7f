"""Lineages side by side: an engine for each data partition that is ours, stepped in one loop.

Which partitions are ours is said by a membership: that of a consumer group, where it changes while
the stream goes on, or the fixed share of one worker. A partition that goes away is saved and let go
before another may have it; one that was lost is let go without a word; both are taken up by their
next owner from the last checkpoint, under its lock.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from streamlearn.checkpoint import BusyError
from streamlearn.connectors.kafka.wire import AbortedError, Membership, Partition
from streamlearn.engine import Engine, Summary, frozen_objects, stopped_by_signals

_log = logging.getLogger(__name__)
POLL_SECONDS = 0.1  # at most so long between two looks at the membership, a block excepted
_IDLE_WAIT = 0.002  # seconds for each of several lineages that have nothing to do
_SAY_AGAIN = 10.0  # seconds between two warnings about the same partition
_LONGEST_BACK_OFF = 30.0


class NotYetError(Exception):
    """A lineage cannot begin yet, and will be tried again: another owner still has its folder, or
    its label partition is not there."""


class Ended(NamedTuple):
    """What one lineage came to."""

    number: int
    summary: Summary


class _Lineage:
    """One partition that is ours; `engine` is None before it has begun, and after it has ended."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.engine: Engine | None = None
        self.ended: Ended | None = None
        self.again, self.failures = 0.0, 0  # when it may be begun again, how often in a row it fell
        self.waits_for, self.said = "", -_SAY_AGAIN


class Lineages:
    """All lineages of one process.

    Args:
        membership: says which partitions are ours.
        topic: the one topic of data that the membership is about; a number of its partitions is a
            lineage, whatever else belongs to it (partitions of that number of other topics).
        make: the engine of a number, not begun yet; called again whenever a lineage begins anew.
            Raises NotYetError where it must wait.
        max_wait: seconds to wait for events when there is but one lineage, so the reaction time to
            a signal. Of several idle ones each waits 2 ms in turn.
        beat: called in every round: a sign that the loop is moving.
        dropped: called with the number of a lineage that was let go, saved or not.
        fixed: whether the share is final, so that there is nothing to wait for without one.
        shutdown_timeout: seconds after a signal in which all must be saved; see the engine.
        clock: exchangeable in tests; it never touches a value or the state.

    The guarantee of each lineage is that of its engine: one writer at a time by the lock of its
    checkpoint folder, which a new owner waits for. Not guaranteed: that a partition is processed
    while a former owner hangs with the lock held (a stopped process); end that process.
    """

    def __init__(
        self,
        membership: Membership,
        topic: str,
        make: Callable[[int], Engine],
        *,
        max_wait: float = 0.1,
        beat: Callable[[], None] | None = None,
        dropped: Callable[[int], None] | None = None,
        fixed: bool = False,
        shutdown_timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.membership, self.topic, self.make = membership, topic, make
        self.max_wait, self.beat, self.dropped, self.fixed = max_wait, beat, dropped, fixed
        self.shutdown_timeout, self.clock = shutdown_timeout, clock
        self.owned: dict[int, _Lineage] = {}
        self.assigned_once = False
        self._stopped, self._polled, self._idle = "", -POLL_SECONDS, False

    def run(self) -> list[Ended]:
        """Step what is ours until all of it has ended, or `stop`; then save, and leave the group.

        SIGINT and SIGTERM finish the block, save all and return (main thread only). Any exception
        leaves every lineage at its last checkpoint.
        """
        with contextlib.ExitStack() as stack:
            stopped = stopped_by_signals(
                self.stop, lambda: bool(self._stopped), self.shutdown_timeout
            )
            stack.enter_context(stopped)
            stack.enter_context(frozen_objects())
            stack.callback(self.membership.close)
            stack.callback(self._drop_all)  # before the group is left: nothing is saved any more
            self.membership.subscribe([self.topic], self)
            while not self._stopped and not self._over():
                self.step()
            return self._finished()

    def stop(self, reason: str = "stop") -> None:
        """End the run after the block in hand; from any thread."""
        self._stopped = self._stopped or reason

    @property
    def stopped(self) -> str:
        """The signal that stopped it, or "stop"; "" before."""
        return self._stopped

    def step(self) -> None:
        """One round: what the membership has to say, then a block of every lineage."""
        if self.beat is not None:
            self.beat()
        working = [one for one in self.owned.values() if one.engine is not None]
        if self._idle or self.clock() - self._polled >= POLL_SECONDS:
            self.membership.poll(0.0 if working else self.max_wait)
            self._polled = self.clock()
        wait = 0.0
        if self._idle:
            wait = self.max_wait if len(working) == 1 else _IDLE_WAIT
        moved = [self._advance(one, wait) for one in list(self.owned.values())]
        self._idle = not any(moved)

    def _over(self) -> bool:
        """Whether all that is ours has ended; one who has nothing waits for his share."""
        all_ended = all(one.ended for one in self.owned.values())
        return all_ended and (bool(self.owned) or (self.fixed and self.assigned_once))

    def _finished(self) -> list[Ended]:
        """Save and let go of everything; then others may have it."""
        for one in self.owned.values():
            self._end(one)
        ended = [one.ended for one in self.owned.values() if one.ended is not None]
        self.owned.clear()
        return sorted(ended, key=lambda one: one.number)

    # -- what the membership says ------------------------------------------------------------------

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """These are ours from now on; they begin in the next round."""
        self.assigned_once = True
        for number in self._numbers(partitions):
            _log.info("partition %d: is ours", number)
            self.owned.setdefault(number, _Lineage(number))

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """These go to another owner: save and let go."""
        for number in self._numbers(partitions):
            one = self.owned.pop(number, None)
            if one is not None:
                self._end(one)
                _log.info("partition %d: is saved, another may have it", number)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """These are another's already: let go and write nothing."""
        for number in self._numbers(partitions):
            one = self.owned.pop(number, None)
            if one is not None:
                self._drop(one)
                _log.warning(
                    "partition %d: was lost to another member of the group, which goes on from the "
                    "last checkpoint",
                    number,
                )

    def _numbers(self, partitions: Sequence[Partition]) -> list[int]:
        return sorted(number for topic, number in partitions if topic == self.topic)

    # -- one lineage -------------------------------------------------------------------------------

    def _advance(self, one: _Lineage, wait: float) -> bool:
        """A block, or a beginning; whether anything came of it."""
        if self._stopped or one.ended is not None or self.clock() < one.again:
            return False
        try:
            if one.engine is None:
                return self._begin(one)
            if not one.engine.step(wait):
                self._end(one)
                return True
            if not one.engine.idle:
                one.failures = 0
                return True
        except AbortedError as error:
            self._begin_again(one, error)
        return False

    def _begin(self, one: _Lineage) -> bool:
        try:
            engine = self.make(one.number)
            engine.begin()
        except (NotYetError, BusyError) as reason:
            self._wait(one, str(reason))
            self._tell_dropped(one)
            return False
        one.engine, one.waits_for = engine, ""
        _log.info("partition %d: goes on after %d events", one.number, engine.events)
        return True

    def _wait(self, one: _Lineage, reason: str) -> None:
        """Try again soon; say so now and then."""
        one.waits_for, one.again = reason, self.clock() + POLL_SECONDS
        if self.clock() - one.said >= _SAY_AGAIN:
            one.said = self.clock()
            _log.warning("partition %d: waits: %s", one.number, reason)

    def _begin_again(self, one: _Lineage, error: AbortedError) -> None:
        """Go back to the last checkpoint that counts, later and later."""
        self._drop(one)
        pause = min(2.0**one.failures, _LONGEST_BACK_OFF)
        one.failures += 1
        one.again = self.clock() + pause
        _log.warning(
            "partition %d: %s; goes on from the last checkpoint in %.0f s", one.number, error, pause
        )

    def _end(self, one: _Lineage) -> None:
        """Save and let go, and keep what came of it."""
        engine = one.engine
        if engine is None:
            return
        try:
            summary = engine.end()
        except AbortedError as error:  # its next owner does again what was not committed
            _log.warning("partition %d: %s; stays at the last checkpoint", one.number, error)
            return
        finally:
            self._drop(one)
        one.ended = Ended(one.number, summary._replace(stopped=self._stopped))

    def _drop(self, one: _Lineage) -> None:
        if one.engine is not None:
            one.engine.close()
            one.engine = None
            self._tell_dropped(one)

    def _tell_dropped(self, one: _Lineage) -> None:
        if self.dropped is not None:
            self.dropped(one.number)

    def _drop_all(self) -> None:
        for one in self.owned.values():
            self._drop(one)
        self.owned.clear()
