"""The live page of a run: once a second what `Watch` has gathered goes to every open browser.

The stream pays for a look at finished dicts and for one message a second, whatever the number of
browsers: those that are slow skip messages, and get everything anew. Nothing here looks into a
running engine, and nothing grows with the length of the run.
"""

import asyncio
import contextlib
import gzip
import hashlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from functools import cache
from typing import Any, Self

import msgspec

from streamlearn import dashboard_page
from streamlearn.config_serving import DashboardSection
from streamlearn.contracts import Json
from streamlearn.health import Status
from streamlearn.history import History
from streamlearn.logs import tell
from streamlearn.serving import Guard, Headers, Message, Receive, Scope, Send, Server, imported

_log = logging.getLogger(__name__)
OWNER = "dashboard"
PERIOD = 1.0  # seconds between two messages
MOST_LINEAGES = 128  # that are shown
MOST_BROWSERS = 64  # that are told
_FORGET = 60.0  # seconds after which a lineage that is gone leaves the page
_SPARK, _SPARK_TIER = 90, 1  # values of the small curves beside the names
_ALARMS = 50  # of each lineage
_COLUMNS = (
    *("events", "alarms", "dead_letters", "behind", "seconds_behind", "backlog"),
    *("metric", "baseline_0", "baseline_1"),
)
_FEATURES = 20  # of each finding
_BASELINES = 2  # that are drawn
_FOREVER = "private, max-age=31536000, immutable"
_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # of nginx
]
_encoder = msgspec.json.Encoder(enc_hook=str)


class Lineage:
    """What is known of one lineage, and its past.

    Args:
        name: of it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.history = History(_COLUMNS)
        self.now: Status = {}
        self.seen = -float("inf")
        self.alarms: deque[dict[str, Json]] = deque(maxlen=_ALARMS)
        self.alarmed = False  # since the look before
        self._newest = -1

    def take(self, told: Status, t: float) -> None:
        """The numbers of now."""
        fresh = self.seen < 0
        self.now, self.seen = told, t
        self.history.add(t, numbers(told))
        self.alarmed = False
        for record in told.get("last_alarms") or ():
            number = record.get("alert", -1)
            if number > self._newest:  # of those before the page was there no time is known
                findings = [_trimmed(found) for found in record.get("findings") or ()]
                seen = None if fresh else t
                self.alarms.append(record | {"findings": findings, "seen": seen})
                self._newest, self.alarmed = number, True

    def short(self) -> Status:
        """What the page shows of every lineage."""
        told = self.now
        about, standing = told.get("about") or {}, told.get("standing") or {}
        labels = told.get("labels") or {}
        return {
            "values": dict(zip(_COLUMNS, numbers(told), strict=True)),
            "metric": next(iter(told["rolling"]), ""),
            "baselines": baselines(told),
            "window": standing.get("window"),
            "model": about.get("model"),
            "stages": about.get("stages") or [],
            "task": about.get("task"),
            "version": told.get("version"),
            "state_bytes": told.get("state_bytes"),
            "checkpoint": told.get("checkpoint"),
            "delay": labels.get("seconds") or labels.get("rows"),
            "delay_unit": "s" if labels.get("seconds") else "events",
        }

    def long(self, whole: bool) -> Status:
        """What the page shows of one of them beyond that; alarms where there are new ones.

        whole: all of them.
        """
        told = self.now
        alarms = {"alarms": list(self.alarms)} if whole or self.alarmed else {}
        return alarms | {
            "lag": told.get("lag") or {},
            "drift": told.get("drift") or [],
            "letters": told.get("last_dead_letters") or [],
            "reasons": told.get("dead_letters_by_reason") or {},
        }

    def sparks(self) -> dict[str, list[float | None]]:
        """The small curves."""
        columns = ("t", "metric")
        tier = _SPARK_TIER if len(self.history.points(_SPARK_TIER)) > 6 else 0
        return {name: self.history.column(name, tier, _SPARK) for name in columns}


def _trimmed(found: dict[str, Json]) -> dict[str, Json]:
    """A finding with the features that moved most."""
    moved = found.get("features")
    return found | {"features": moved[:_FEATURES]} if isinstance(moved, list) else found


def numbers(told: Status) -> list[float | None]:
    """The columns of the history, of what `health.snapshot` tells."""
    lags = list(told["lag"].values())
    records = [lag["records"] for lag in lags]
    seconds = [lag["seconds"] for lag in lags if lag["seconds"] is not None]
    rivals = [*list(baselines(told).values())[:_BASELINES], *[None] * _BASELINES]
    return [
        told["events"],
        told["alarms"],
        told["dead_letters"],
        None if not lags or None in records else sum(records),
        max(seconds, default=None),
        (told.get("labels") or {}).get("pending"),
        next(iter(told["rolling"].values()), None),
        *rivals[:_BASELINES],
    ]


def baselines(told: Status) -> dict[str, float | None]:
    """What each baseline reaches of the rolling metric."""
    standing, metric = told.get("standing") or {}, next(iter(told["rolling"]), "")
    return {name: one.get(metric) for name, one in (standing.get("baselines") or {}).items()}


class Feed:
    """From statuses to messages; bounded, whatever the length of the run and however many ask.

    Args:
        status: gives the health of the run, with its lineages; called once a second.
        title: what the page is called. clock: of the wall, seconds.
    """

    def __init__(
        self, status: Callable[[], Status], title: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._status, self._title, self._clock = status, title, clock
        self.lineages: dict[str, Lineage] = {}
        self.number = 0
        self._health: Status = {}
        self._steps: dict[str, bytes] = {}

    def look(self) -> None:
        """Take what is known now; the next message is about it."""
        told, t = self._status(), self._clock()
        found = told["lineages"]
        for name, numbers in found.items():
            if name not in self.lineages and len(self.lineages) >= MOST_LINEAGES:
                continue
            self.lineages.setdefault(name, Lineage(name)).take(numbers, t)
        gone = [k for k, v in self.lineages.items() if abs(t - v.seen) > _FORGET]
        for name in gone:
            del self.lineages[name]
        self._health = {k: told[k] for k in ("live", "ready", "why", "connected")}
        self._health |= {"t": t, "left_out": max(0, len(found) - MOST_LINEAGES)}
        self.number += 1
        self._steps = {}

    def shown(self, wanted: str) -> str:
        """The lineage that is shown where that one is wanted."""
        return wanted if wanted in self.lineages else next(iter(self.lineages), "")

    def step(self, wanted: str) -> bytes:
        """What has changed since the last message; made once for all who look at the same."""
        name = self.shown(wanted)
        if name not in self._steps:
            self._steps[name] = _encoder.encode(self._now(name, whole=False))
        return self._steps[name]

    def whole(self, wanted: str) -> bytes:
        """All that a browser needs to begin."""
        name = self.shown(wanted)
        past = self.lineages[name].history.plain() if name else []
        sparks = {k: lineage.sparks() for k, lineage in self.lineages.items()}
        return _encoder.encode(self._now(name, whole=True) | {"history": past, "sparks": sparks})

    def _now(self, name: str, whole: bool) -> dict[str, Json]:
        return {
            "number": self.number,
            "build": build(),
            "title": self._title,
            "health": self._health,
            "lineages": {k: lineage.short() for k, lineage in self.lineages.items()},
            "shown": name,
            "detail": self.lineages[name].long(whole) if name else {},
        }


class Dashboard:
    """Serves the page while it is entered.

    Args:
        section: where it listens, and to whom. status, clock: as of `Feed`. title: of the page.
    Raises: UserError where the extra is missing, the address taken, or the token not to be had.
    """

    def __init__(
        self,
        section: DashboardSection,
        status: Callable[[], Status],
        title: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.feed, self._clock = Feed(status, title, clock), clock
        self.browsers = 0
        self._section, self._token = section, section.secret(OWNER)
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next = asyncio.Event()
        self._closing = False

    def __enter__(self) -> Self:
        imported("bokeh", OWNER)
        application = Guard(self._routes(), self._section, self._token, dashboard_page.login)
        self._server = Server(OWNER, self._section, application)
        self._server.__enter__()
        tell(_log, OWNER, address=self._server.address)
        return self

    def __exit__(self, *error: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._close)
        if self._server is not None:
            self._server.__exit__(*error)

    @property
    def address(self) -> str:
        """Where the page is; once it is served."""
        return "" if self._server is None else self._server.address

    def _routes(self) -> Any:
        """The application."""
        routing = imported("starlette.routing", OWNER)
        applications = imported("starlette.applications", OWNER)
        files = [
            routing.Route(f"/{name}", self._file, methods=["GET"]) for name in dashboard_page.FILES
        ]
        return applications.Starlette(
            routes=[
                routing.Route("/", self._page, methods=["GET"]),
                routing.Route("/events", self._events, methods=["GET"]),
                *files,
            ],
            lifespan=self._living,
        )

    @contextlib.asynccontextmanager
    async def _living(self, _: Any) -> AsyncIterator[None]:
        """Looks once a second, as long as the server lives."""
        self._loop = asyncio.get_running_loop()
        self.feed.look()
        beating = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            beating.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(PERIOD - self._clock() % PERIOD)
            self.feed.look()
            self._wake()

    def _wake(self) -> None:
        """All who wait for the next message have it."""
        self._next.set()
        self._next = asyncio.Event()

    def _close(self) -> None:
        """Streams end."""
        self._closing = True
        self._wake()

    # -- answers -----------------------------------------------------------------------------------

    async def _page(self, _: Any) -> Any:
        return _response(dashboard_page.page(build()).encode(), "text/html; charset=utf-8")

    async def _file(self, request: Any) -> Any:
        """A script or a style; a browser asks for it once a build."""
        name = request.url.path.removeprefix("/")
        body, kind = packed(name)
        headers = {"cache-control": _FOREVER, "content-encoding": "gzip", "vary": "accept-encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            body = gzip.decompress(body)
            del headers["content-encoding"]
        return _response(body, kind, headers=headers)

    async def _events(self, request: Any) -> Any:
        """Server-sent events: everything, then once a second what is new."""
        if self.browsers >= MOST_BROWSERS:
            return _response(b"as many browsers as there may be\n", "text/plain", 503)
        return _Stream(self, request.query_params.get("show", ""))

    async def tell(self, wanted: str, send: Send) -> None:
        """Messages to one browser, until the end; it gets all anew where it missed one."""
        begin = {"type": "http.response.start", "status": 200, "headers": _STREAM}
        await send(begin)
        last, name = -1, ""
        while not self._closing:
            feed, following = self.feed, self._next
            if feed.number != last:
                follows = feed.number == last + 1 and feed.shown(wanted) == name
                body = feed.step(wanted) if follows else feed.whole(wanted)
                last, name = feed.number, feed.shown(wanted)
                await send(_event("step" if follows else "whole", body))
            await following.wait()
        await send(_event("end", b"{}", more=False))


class _Stream:
    """An answer that goes on until the browser has gone; one that takes nothing loses its line."""

    def __init__(self, dashboard: Dashboard, wanted: str) -> None:
        self._dashboard, self._wanted = dashboard, wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write, and listen for the end."""
        self._dashboard.browsers += 1
        telling = asyncio.create_task(self._dashboard.tell(self._wanted, send))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({telling, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._dashboard.browsers -= 1
            for task in (telling, gone):
                task.cancel()
            await asyncio.gather(telling, gone, return_exceptions=True)


def _event(kind: str, data: bytes, more: bool = True) -> Message:
    """One server-sent event; data: a line."""
    text = b"event: %b\ndata: %b\n\n" % (kind.encode(), data)
    return {"type": "http.response.body", "body": text, "more_body": more}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _response(
    body: bytes, kind: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> Any:
    responses = imported("starlette.responses", OWNER)
    return responses.Response(body, status, dict(headers or {}), kind)


@cache
def packed(name: str) -> tuple[bytes, str]:
    """A file of the page, packed by gzip, and its kind."""
    body, kind = dashboard_page.file(name)
    return gzip.compress(body, 6, mtime=0), kind


@cache
def build() -> str:
    """A digest of the page's files: a browser with another one loads them anew."""
    digest = hashlib.blake2b(digest_size=6)
    for name in dashboard_page.FILES:
        digest.update(packed(name)[0])
    return digest.hexdigest()
