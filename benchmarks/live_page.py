"""What the live page costs a stream: `python -m benchmarks.live_page`, two minutes.

One run, in which the page is switched off and on. Off, the loop notes nothing for the page, and the
page's thread sleeps on a lock; on, there is all that a page costs: what the loop notes and gathers,
the page's thread, its messages to browsers that stay open (clients in other processes, which read
everything), and waiting for one another. Time on the page goes ten times as fast, and what is noted
by the block is noted ten times, so that the page costs ten times what it costs; told is a tenth.
`--faster 1` measures it as it is, with intervals ten times as wide.

A slice is one second of the page, with one message. Slices come in groups of four by drawn turns:
off, off again, off with a known load, on. Each is compared with the first of its own group, so what
makes the machine slow for longer cancels; off again must show nothing, and the load itself.
Reported are medians over the groups, with the intervals that hold them 19 times in 20 whatever the
spread.
"""

import argparse
import asyncio
import contextlib
import math
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from benchmarks.tables import markdown
from streamlearn import dashboard, runner
from streamlearn.config import Config, check
from streamlearn.engine import frozen_objects
from streamlearn.health import Watch
from streamlearn.observers import observers_of
from streamlearn.rehearsal import rehearse

OFF, AGAIN, LOAD, ON = KINDS = ("off", "off again", "a load of 3 %", "the page")
LOADED = 0.03  # of the stream's time, that the load takes: what the page may cost
_PATIENCE = 60.0  # seconds, for the page and its browsers to come
_ROWS, _LINKS = 2_000_000, 2000  # of the file, which the stream reads so many times
_ROW_GROUP = 65_536  # rows: small, as what is decoded at once is of one slice
_CLIENT = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1] + "events", timeout=60) as stream:
    for _ in stream:
        pass
"""


class Slice(NamedTuple):
    """What went through in one slice, and the seconds it took: of the wall, of all threads."""

    events: int
    wall: float
    cpu: float


class Group(NamedTuple):
    """One slice of each kind, in the order of KINDS."""

    off: Slice
    again: Slice
    load: Slice
    on: Slice


class Interval(NamedTuple):
    """A median, and between what it is 19 times in 20."""

    middle: float
    low: float
    high: float

    def told(self) -> str:
        """In per cent."""
        return f"{100 * self.middle:+.2f} % ({100 * self.low:+.2f} to {100 * self.high:+.2f})"


class Found(NamedTuple):
    """Of one number of browsers: all groups, messages, and the page's thread while it was on."""

    groups: list[Group]
    messages: int
    thread_seconds: float


# -- slices ----------------------------------------------------------------------------------------


def grouped(take: Callable[[str], Slice], groups: int, draw: random.Random) -> Iterator[Group]:
    """Groups of slices, each in an order of its own. take: runs one slice of a kind."""
    for _ in range(groups):
        found = {kind: take(kind) for kind in draw.sample(KINDS, len(KINDS))}
        yield Group(*(found[kind] for kind in KINDS))


def lost(with_it: Slice, without: Slice) -> float:
    """The share of the throughput without it that is not there with it."""
    return 1.0 - (with_it.events / with_it.wall) / (without.events / without.wall)


def spent(with_it: Slice, without: Slice) -> float:
    """The share of an event's processor time that is not there without it."""
    return 1.0 - (without.cpu / without.events) / (with_it.cpu / with_it.events)


def interval(values: list[float]) -> Interval:
    """The median of values, at least six, and its interval from their order alone."""
    ordered = sorted(values)
    low, high = ends_of_median(len(ordered))
    return Interval(statistics.median(ordered), ordered[low], ordered[high])


def ends_of_median(n: int) -> tuple[int, int]:
    """Places of the ordered values between which the median is with chance 0.95, if it can be."""
    below, place = 0, 0
    while (below + math.comb(n, place)) / 2**n <= 0.025:
        below += math.comb(n, place)
        place += 1
    place = max(place - 1, 0)
    return place, n - 1 - place


# -- a page that can be switched -------------------------------------------------------------------


class PageTime:
    """The page's clock: that of the machine, until the page is off for the first time.

    From then on it goes faster, and stands while the page is off; each slice is a second of it, and
    begins in the middle of one.

    Args:
        faster: seconds of the page in one.
    """

    def __init__(self, faster: float) -> None:
        self.faster, self._from, self._speed = faster, time.monotonic(), 1.0
        self._since: float | None = time.perf_counter()

    def __call__(self) -> float:
        """Seconds."""
        since = self._since
        gone = 0.0 if since is None else time.perf_counter() - since
        return self._from + self._speed * gone

    def go(self) -> None:
        """The page is on."""
        self._since, self._speed = time.perf_counter(), self.faster

    def stand(self) -> None:
        """The page is off."""
        self._from, self._since = math.floor(self()) + 0.5, None

    def rule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Whatever this loop does later, it does by this clock."""
        selector = loop._selector  # type: ignore[attr-defined]
        select = selector.select

        def sooner(timeout: float | None = None) -> Any:
            return select(timeout / self.faster if timeout else timeout)

        selector.select = sooner
        setattr(loop, "time", self)  # noqa: B010


class Stream:
    """A run whose page can be switched off.

    Args:
        config: with a page. faster: as of `PageTime`.
    """

    def __init__(self, config: Config, faster: float) -> None:
        self._seconds, self._clock = 1.0 / faster, PageTime(faster)
        watch, job = Watch(clock=self._clock), runner.plan(config)
        rehearse(job)
        self._vitals, times = runner.vitals_of(job), round(faster)
        self._beat = _repeated(watch.beat, times)
        setattr(self._vitals, "ran", _repeated(self._vitals.ran, times))  # noqa: B010
        self.engine = runner.engine_of(job, observers_of(job, None))
        watch.add(job.name, self.engine)
        section: Any = config.dashboard
        self.page = dashboard.Dashboard(section, watch.status, "page", self._clock)
        self._asleep, self._gate = threading.Event(), threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Begun, with the page served and off; what it began is ended."""
        with self.page, frozen_objects(), contextlib.closing(self.engine):
            self.engine.begin()
            self._off()
            self._clock.rule(self._loop)
            try:
                yield
            finally:
                self._gate.set()

    @contextlib.contextmanager
    def watched_by(self, browsers: int) -> Iterator[None]:
        """So many clients read every message."""
        command = [sys.executable, "-c", _CLIENT, self.page.address]
        clients = [subprocess.Popen(command) for _ in range(browsers)]
        try:
            until = time.monotonic() + _PATIENCE
            self._on()
            while self.page.browsers < browsers:
                self._run(self._seconds)
                if time.monotonic() > until:
                    raise RuntimeError(f"only {self.page.browsers} of {browsers} browsers came")
            self._off()
            yield
        finally:
            for client in clients:
                client.kill()
                client.wait()

    def take(self, kind: str) -> Slice:
        """Run for one slice."""
        begun = self._now()
        if kind == ON:
            self._on()
        self._run(self._seconds / 2)
        if kind == LOAD:
            _burn(LOADED * self._clock.faster * self._seconds)
        self._run(begun.wall + self._seconds - time.perf_counter())
        ended = self._now()
        if kind == ON:
            self._off()
        return Slice(ended.events - begun.events, ended.wall - begun.wall, ended.cpu - begun.cpu)

    def thread_seconds(self) -> float:
        """Processor time of the page's thread."""
        for thread in threading.enumerate():
            if thread.name == dashboard.OWNER and thread.ident is not None:
                return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        raise RuntimeError("the page has no thread")

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """Of the page's thread, once it turns."""
        until = time.monotonic() + _PATIENCE
        while (loop := self.page._loop) is None:
            if time.monotonic() > until:
                raise RuntimeError("the page is not served")
            time.sleep(0.01)
        return loop

    def _on(self) -> None:
        """The loop notes and gathers, the page's thread goes on."""
        self.engine.beat, self.engine.vitals = self._beat, self._vitals
        self._clock.go()
        self._gate.set()

    def _off(self) -> None:
        """Nothing is noted, the page's thread sleeps on a lock."""
        self.engine.beat = self.engine.vitals = None
        self._clock.stand()
        self._gate.clear()
        self._asleep.clear()
        self._loop.call_soon_threadsafe(self._sleep)
        self._asleep.wait()

    def _sleep(self) -> None:
        """In the page's thread: wait for the page to be on."""
        self._asleep.set()
        self._gate.wait()

    def _now(self) -> Slice:
        return Slice(self.engine.events, time.perf_counter(), time.process_time())

    def _run(self, seconds: float) -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            if not self.engine.step():
                raise RuntimeError("the stream has ended before the slices; take fewer groups")


def _repeated(call: Callable[..., None], times: int) -> Callable[..., None]:
    """The same, so many times."""

    def repeated(*given: Any) -> None:
        for _ in range(times):
            call(*given)

    return repeated


def _burn(seconds: float) -> None:
    """Keep the stream's thread busy with something else."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


# -- the command -----------------------------------------------------------------------------------


def measured(stream: Stream, browsers: int, groups: int, seed: int) -> Found:
    """Groups of slices while so many browsers look on."""
    with stream.watched_by(browsers):
        messages, thread = stream.page.feed.number, stream.thread_seconds()
        found = list(grouped(stream.take, groups, random.Random(seed)))
        more = stream.page.feed.number - messages
        return Found(found, more, stream.thread_seconds() - thread)


def written(folder: Path, rows: int, links: int) -> None:
    """Four features and a class, as Parquet: fast to read, so that the page's share is large."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(rows, 4))
    table = {f"x{j}": X[:, j] for j in range(4)} | {"y": (X.sum(axis=1) > 0).astype(np.int64)}
    first = folder / "0.parquet"
    parquet.write_table(pa.table(table), first, row_group_size=_ROW_GROUP)
    for k in range(1, links):
        (folder / f"{k}.parquet").hardlink_to(first)


def configured(folder: Path) -> Config:
    """A run over the folder, with a page on a free port."""
    features = {f"x{j}": "number" for j in range(4)}
    return check(
        {
            "source": str(folder),
            "schema": {"target": "y", "task": "classification", "features": features},
            "pipeline": ["Normalizer", "KalmanClassifier", "ADWIN"],
            "dashboard": {"port": 0},
        }
    )


def table(found: dict[int, Found], faster: float) -> str:
    """Beside the page off, by kind of slice and number of browsers; of a page as it is."""
    rows = []
    for browsers, one in found.items():
        n = len(one.groups)
        for kind, at in zip(KINDS[1:], ("again", "load", "on"), strict=True):
            pairs = [(getattr(group, at), group.off) for group in one.groups]
            shares = [[share(*pair) / faster for pair in pairs] for share in (lost, spent)]
            figures = [interval(values).told() for values in shares]
            more = (f"{one.messages / n:.2f}", f"{1e3 * one.thread_seconds / n:.2f}")
            name = f"{kind}, browsers: {browsers}"
            rows.append((name, *figures, *more) if kind == ON else (kind, *figures, "", ""))
    head = (
        *("beside the page off", "throughput lost", "of the processor time"),
        *("messages a second", "page's thread, ms a second"),
    )
    return markdown(head, rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=300, help="of four slices each, at least 6")
    parser.add_argument("--faster", type=float, default=10, help="time on the page, 1 to 20")
    parser.add_argument("--browsers", type=int, nargs="+", default=[1])
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), _ROWS, _LINKS)
        stream = Stream(configured(Path(folder)), asked.faster)
        with stream.running():
            found = {k: measured(stream, k, asked.groups, asked.seed) for k in asked.browsers}
    taken = [
        1e9 * group.off.cpu / group.off.events for one in found.values() for group in one.groups
    ]
    print(table(found, asked.faster))
    print(f"\nAn event takes {statistics.median(taken):,.0f} ns of the processor, median.")


if __name__ == "__main__":
    main()
