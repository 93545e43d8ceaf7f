"""Health of a run over HTTP: whether its loop moves, and whether it keeps up; and its metrics.

`/health/live` answers 200 while the loop moves, or waits for a broker that is away: to start the
process again would not help. `/health/ready` answers 200 while partitions are assigned, the
checkpoint is loaded, the broker answers and the lag is under its limit. Both give the same JSON.
`/metrics` gives what Prometheus scrapes, see `metrics.py`.
Numbers are gathered within the loop, once a second; the threads that answer read a finished dict.
What a record or an id could be part of is for the live page alone.
"""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from streamlearn.contracts import Json
from streamlearn.engine import Engine
from streamlearn.errors import UserError
from streamlearn.logs import tell
from streamlearn.operators._members import keepers, within

if TYPE_CHECKING:
    from streamlearn.config import Config

_log = logging.getLogger(__name__)

_PERIOD = 1.0  # seconds between two looks at the lag
_SHARE = 100  # times what a look takes, to the next one
_MAX_DETECTORS = 20  # whose statistics are told
_MAX_FEATURES = 20  # of each
Status = dict[str, Json]
_HEALTH = frozenset(  # of a lineage, what health tells
    ("assigned", "events", "dead_letters", "alarms", "rolling", "in_flight", "lag")
)
NOT_LOADED = "the checkpoint is not loaded yet"


class Watch:
    """What is known of the engines of one loop; `beat` is called in the loop, `status` anywhere.

    Args:
        max_lag: records that all partitions together may be behind for the run to be ready; None
            for any number.
        stalled: seconds without a beat after which the loop does not live any more.
        clock: of beats.
    """

    def __init__(
        self,
        max_lag: int | None = None,
        stalled: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_lag, self._stalled, self._clock = max_lag, stalled, clock
        self._engines: dict[str, tuple[Engine, Any]] = {}
        self._beaten = clock()
        self._next = self._looked = self._beaten
        self._took = 0.0
        self._lineages: dict[str, Status] = {}

    def add(self, name: str, engine: Engine, outputs: Any = None) -> None:
        """Watch an engine from now on. outputs: what its outputs to topics share, if any."""
        self._engines = self._engines | {name: (engine, outputs)}

    def remove(self, name: str) -> None:
        """Watch it no more."""
        self._engines = {k: v for k, v in self._engines.items() if k != name}
        self._lineages = {k: v for k, v in self._lineages.items() if k != name}

    def beat(self) -> None:
        """The loop moves. Cost: a look at the clock, and once a second a look at all engines.

        Where that takes more than a hundredth of the time (many lineages, a large window of the
        metrics), twice in a row, it is taken less often.
        """
        self._beaten = now = self._clock()
        if now >= self._next:
            self.look()
            before, self._took = self._took, self._clock() - now
            self._next = now + max(_PERIOD, _SHARE * min(before, self._took))

    def look(self) -> None:
        """Gather the numbers of all engines; within their loop."""
        now, engines, found = self._clock(), self._engines.items(), {}
        for name, (engine, outputs) in engines:
            found[name] = told = snapshot(engine, outputs)
            before = self._lineages.get(name)
            if before is not None and now > self._looked:
                made = told["events"] - before["events"]
                told["events_per_second"] = made / (now - self._looked)
        self._lineages, self._looked = found, now

    @property
    def lineages(self) -> dict[str, Status]:
        """The numbers of each engine, as of the last look."""
        return self._lineages

    def status(self) -> Status:
        """live, ready, why (not), and the numbers of each lineage."""
        silent = self._clock() - self._beaten
        lineages = self._lineages
        connected = all(_connected(*watched) for watched in self._engines.values())
        why = []
        if silent > self._stalled:
            why.append(f"the loop has not moved for {silent:.0f} s")
        if not lineages:
            why.append(NOT_LOADED)
        if not connected:
            why.append("the broker does not answer")
        why += [f"{name}: no partition is assigned" for name, told in lineages.items()
                if not told["assigned"]]  # fmt: skip
        why += self._behind(lineages)
        return {
            "live": silent <= self._stalled or not connected,
            "ready": not why,
            "why": why,
            "connected": connected,
            "lineages": lineages,
        }

    def _behind(self, lineages: dict[str, Status]) -> list[str]:
        """What is behind by too much, or by nobody knows how much."""
        if self._max_lag is None:
            return []
        lags = [lag["records"] for told in lineages.values() for lag in told["lag"].values()]
        if None in lags:
            return ["how far it is behind is not known yet"]
        behind = sum(lags)
        return [f"{behind} records behind, more than {self._max_lag}"] * (behind > self._max_lag)


def _sources(engine: Engine) -> list[Any]:
    """What an engine reads of topics."""
    return [source for source in getattr(engine.source, "sources", ()) if hasattr(source, "lag")]


def _connected(engine: Engine, outputs: Any) -> bool:
    reached = [source.connected for source in _sources(engine)]
    return all(reached) and (outputs is None or outputs.connected)


def snapshot(engine: Engine, outputs: Any = None) -> Status:
    """The numbers of one engine, as plain values; within its loop.

    `assigned`, `events`, `dead_letters`, `alarms`, `rolling` (the first metric), `in_flight`, `lag`
    of each partition; `since_start`: `events`, `alarms` and `dead_letters` of this process alone;
    `events_per_second` since the look before; `standing` of the evaluation;
    `labels`, as the source reports them; `drift`: of each detector its `stage`, `detector`,
    `watches` and what it stands at; `webhook`: what waits, was sent and failed; `version` of
    the model, where it has several; `state_bytes`; and what `Vitals.told` says. None or empty for
    what the run does not have.
    """
    sources, evaluation = _sources(engine), engine.evaluation
    measured = getattr(evaluation, "rolling", None)
    lags = {name: lag for source in sources for name, lag in source.lag().items()}
    standing, report = getattr(evaluation, "standing", None), getattr(engine.source, "report", None)
    vitals, webhook = engine.vitals, engine.webhook
    return {
        "assigned": all(source.assigned for source in sources),
        "events": engine.events,
        "dead_letters": engine.rejects,
        "alarms": engine.alarms,
        "rolling": dict([measured]) if measured else {},
        "in_flight": 0 if outputs is None else outputs.in_flight,
        "lag": {name: {"records": lag.records, "seconds": lag.seconds}
                for name, lag in lags.items()},
        "since_start": {
            "events": engine.events - engine.resumed_at,
            "alarms": 0 if vitals is None else vitals.n_alarms,
            "dead_letters": 0 if vitals is None else vitals.n_rejects,
        },
        "events_per_second": None,
        "standing": None if standing is None else standing(),
        "labels": None if report is None else report(),
        "drift": [] if vitals is None else drift_of(engine.pipeline),
        "webhook": None if webhook is None else webhook.told(),
        "version": _version(engine.pipeline),
        "state_bytes": None if vitals is None else vitals.measured(engine.pipeline),
        **({} if vitals is None else vitals.told()),
    }  # fmt: skip


def drift_of(pipeline: Any) -> list[Status]:
    """What the detectors of a pipeline stand at: those among its stages, and within them."""
    found: list[Status] = []
    for stage in getattr(pipeline, "stages", ()):
        _gather(type(stage).__name__, stage, found)
    return found


def _gather(stage: str, operator: Any, found: list[Status]) -> None:
    standing = getattr(operator, "standing", None)
    if isinstance(standing, dict) and len(found) < _MAX_DETECTORS:
        told = {
            "stage": stage,
            "detector": type(operator).__name__,
            "watches": str(getattr(operator, "watches", "features")),
        }
        features = standing.get("features")
        told |= standing if features is None else standing | {"features": features[:_MAX_FEATURES]}
        found.append(told)
    for member in within(operator):
        _gather(stage, member, found)


def _version(pipeline: Any) -> int | None:
    """The number of the model that serves, of the first champion; None where there is none."""
    return next((champion.version for champion in keepers(pipeline)), None)


def brief(status: Status) -> Status:
    """A status with what health tells of its lineages, and no more."""
    lineages = {
        name: {key: value for key, value in told.items() if key in _HEALTH}
        for name, told in status.get("lineages", {}).items()
    }
    return status | ({"lineages": lineages} if lineages else {})


def together(statuses: Mapping[str, Status]) -> Status:
    """The status of several processes, by name, as one."""
    return {
        "live": all(told["live"] for told in statuses.values()),
        "ready": bool(statuses) and all(told["ready"] for told in statuses.values()),
        "why": [f"{name}: {why}" for name, told in statuses.items() for why in told["why"]],
        "connected": all(told["connected"] for told in statuses.values()),
        "lineages": {k: v for told in statuses.values() for k, v in told["lineages"].items()},
    }


@contextlib.contextmanager
def told_of(config: "Config", status: Callable[[], Status]) -> Iterator[None]:
    """A status over HTTP, to machines and to people, as far as the configuration says so."""
    with contextlib.ExitStack() as stack:
        if config.health is not None:
            server = HealthServer(config.health.host, config.health.port, status)
            stack.enter_context(server)
            tell(_log, "health", host=server.host, port=server.port)
        if config.telemetry is not None:
            from streamlearn.telemetry import exported

            stack.enter_context(exported(config.telemetry, status))
        if config.dashboard is not None:
            from streamlearn.dashboard import Dashboard

            title = config.dashboard.title or str(config.source).rpartition("/")[2]
            stack.enter_context(Dashboard(config.dashboard, status, title))
        yield


class HealthServer:
    """Answers `/health/live`, `/health/ready` and `/metrics` in threads of its own while entered.

    Args:
        host, port: where it listens; port 0 takes a free one, which `port` then says.
        status: gives the body, with `live` and `ready`; called in other threads.
    Raises: UserError where the address is taken or not ours.
    """

    def __init__(self, host: str, port: int, status: Callable[[], Status]) -> None:
        self.host, self.port, self._status = host, port, status
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        try:
            self._server = ThreadingHTTPServer((self.host, self.port), _handler(self._status))
        except OSError as error:
            raise UserError(
                f"health: cannot listen on {self.host}:{self.port}: {error.strerror}; "
                f"choose another port"
            ) from None
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _handler(status: Callable[[], Status]) -> type[BaseHTTPRequestHandler]:
    """Answers with a status."""

    class Handler(BaseHTTPRequestHandler):
        """GET and HEAD; nothing is logged, as probes come every few seconds."""

        timeout = 10.0

        def do_GET(self) -> None:
            """One answer."""
            path = self.path.partition("?")[0]
            what = path.removeprefix("/health/")
            if path == "/metrics":
                self._metrics()
            elif what in ("live", "ready"):
                found = brief(status())
                good = HTTPStatus.OK if found[what] else HTTPStatus.SERVICE_UNAVAILABLE
                self._say(good, json.dumps(found).encode(), "application/json")
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        do_HEAD = do_GET

        def _metrics(self) -> None:
            from streamlearn.metrics import exposition

            try:
                body, kind = exposition(status, self.headers.get("Accept", ""))
            except UserError as error:  # the library is not installed
                text = str(error).encode()
                self._say(HTTPStatus.NOT_IMPLEMENTED, text, "text/plain; charset=utf-8")
            else:
                self._say(HTTPStatus.OK, body, kind)

        def _say(self, code: HTTPStatus, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    return Handler
