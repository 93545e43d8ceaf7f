"""Alerts to a webhook: one POST each, from an outbox on the disk, by a thread of its own."""

import hashlib
import logging
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from streamlearn.connectors.alerts import Alerts, alert_json
from streamlearn.connectors.kafka.secrets import Secrets
from streamlearn.connectors.outbox import Outbox
from streamlearn.contracts import Answers, Json
from streamlearn.errors import UserError

if TYPE_CHECKING:
    from streamlearn.connectors.sinks import Tables

_log = logging.getLogger(__name__)
_REFUSED = frozenset((400, 413, 415, 422))  # about this alert: it will never be taken
_GRACE = 1.0  # seconds that the end of a run leaves for what waits, where the server answers
_QUIET = 60.0  # seconds between two lines of the log about a server that does not answer
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110
_VALUE = re.compile(r"[\x20-\x7e\xa0-\xff]*")
_URL = re.compile(r"[\x21-\x7e]+")
_READ = 1 << 16  # bytes of an answer that are looked at


class Webhook:
    """A sink of alarms: each is a POST of one JSON object, see `Alerts`.

    Alerts are sent in their order, each until it is answered with 2xx; between two attempts there
    is a pause that doubles. An answer that blames the alert (400, 413, 415, 422) is counted in
    `n_refused`, and the next one is sent. `Idempotency-Key` is the same whenever an alert is sent
    again. Redirects are not followed. The stream waits for nothing but the write to the outbox; a
    run that ends leaves in it what was not taken within a second, for the next one.

    Args:
        url, headers: texts may hold ${env:NAME} and ${file:PATH}; read when it is made, and files
            again when they change. folder: of the outbox. timeout: seconds of one attempt.
        max_bytes: of alerts that wait, beyond which new ones are dropped and counted.
        pauses: seconds, the first one between two attempts, and the longest.
        tables: of the schema, whether events have ids. model: fingerprint of the pipeline.
    Raises: UserError for a variable that is not set, a file that cannot be read, a URL that is
        none, a full disk.
    """

    guarantee = (
        "each alarm at least once, in order; `Idempotency-Key` says which one comes again after a "
        "crash or an answer that was lost"
    )

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        max_bytes: int = 64 << 20,
        pauses: tuple[float, float] = (1.0, 60.0),
        tables: "Tables | None" = None,
        model: str = "",
    ) -> None:
        self._given = {"url": url} | {f"headers.{k}": v for k, v in (headers or {}).items()}
        self._timeout, self._pauses = timeout, pauses
        self._read_secrets()
        self._alerts = Alerts(tables, model)
        self._outbox = Outbox(folder, max_bytes)
        self._opener = urllib.request.build_opener(_NoRedirects())
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.n_sent = self.n_failed = self.n_refused = 0
        self.trouble = ""  # of the last attempt; "" when it went well
        self._spoke = -_QUIET
        self._told_dropped = 0

    def _read_secrets(self) -> None:
        """Take over url and headers; of those that cannot be sent none."""
        secrets = Secrets(self._given, owner="webhook")
        options = {name: str(value) for name, value in secrets.options.items()}
        url = options.pop("url")
        _check_url(url)
        for name, value in options.items():
            if not _NAME.fullmatch(name.removeprefix("headers.")):
                raise UserError(f"webhook.{name}: must be the name of a header")
            if not _VALUE.fullmatch(value):
                raise UserError(f"webhook.{name}: must be one line of printable Latin-1 letters")
        fixed = {"Content-Type": "application/json", "User-Agent": "streamlearn"}
        self._headers = fixed | {k.removeprefix("headers."): v for k, v in options.items()}
        self._secrets, self._url = secrets, url

    # -- a sink ------------------------------------------------------------------------------------

    def open(self, position: Json) -> None:
        """Begin after what `commit` once returned; None means no alert yet. Starts the sender."""
        self._alerts.count = 0 if position is None else position["alerts"]
        self._outbox.open(self._alerts.count)
        self._thread = threading.Thread(target=self._send_all, name="webhook", daemon=True)
        self._thread.start()

    def write(self, answers: Answers) -> None:
        """Take the alarms of one block; not durable before `commit`."""
        lines = [(a.record["alert"], alert_json(a.record)) for a in self._alerts.take(answers)]
        self._outbox.put(lines)
        if self._outbox.n_dropped > self._told_dropped:
            if not self._told_dropped:
                _log.error("webhook: the outbox is full; new alerts are dropped until it is not")
            self._told_dropped = self._outbox.n_dropped
        self._wake.set()

    def commit(self) -> Json:
        """Make all that was written durable, and say how to come back to here."""
        self._outbox.commit()
        return {"alerts": self._alerts.count}

    def close(self) -> None:
        """Stop the sender, which has a second where the server answers; may be called twice."""
        if self._thread is not None:
            until = time.monotonic() + _GRACE
            while self._outbox.n_waiting and not self.trouble and time.monotonic() < until:
                self._stop.wait(0.01)
            self._stop.set()
            self._wake.set()
            if self._outbox.n_waiting:
                _log.warning("webhook: %d alerts wait for the next start", self._outbox.n_waiting)
            self._thread = None
        self._outbox.close()

    def told(self) -> dict[str, Json]:
        """Alerts `waiting`, `sent`, `refused`, `dropped`; attempts `failed`, the last `trouble`."""
        return {
            "waiting": self._outbox.n_waiting,
            "sent": self.n_sent,
            "failed": self.n_failed,
            "refused": self.n_refused,
            "dropped": self._outbox.n_dropped,
            "trouble": self.trouble,
        }

    # -- the thread that sends ---------------------------------------------------------------------

    def _send_all(self) -> None:
        pause = self._pauses[0]
        while not self._stop.is_set():
            try:
                line = self._outbox.first()
                if line is None:
                    self._wake.wait()
                    self._wake.clear()
                    continue
                self.trouble = self._attempt(line)
                if not self.trouble:
                    self._outbox.taken(line)
            except OSError as error:  # the sender outlives what its disk refuses
                self.trouble = f"the outbox: {error.strerror or error}"
            if not self.trouble:
                pause = self._pauses[0]
                continue
            self.n_failed += 1
            self._speak(pause)
            self._stop.wait(pause)
            pause = min(2 * pause, self._pauses[1])

    def _attempt(self, line: bytes) -> str:
        """Send one alert: "" where it is done with, or what went wrong."""
        try:
            if self._secrets.changed():
                self._read_secrets()
            key = hashlib.blake2b(line, digest_size=16).hexdigest()
            headers = self._headers | {"Idempotency-Key": key}
            asked = urllib.request.Request(self._url, line, headers, method="POST")
            with self._opener.open(asked, timeout=self._timeout) as answer:
                answer.read(_READ)
        except urllib.error.HTTPError as error:
            with error:
                return self._judged(error.code)
        except (OSError, HTTPException, UserError, ValueError) as error:
            if isinstance(error, HTTPException) and not isinstance(error, OSError):
                return f"the answer is no HTTP: {error!r}"  # what the server wrote stays quoted
            why = getattr(error, "reason", "") or error
            return str(getattr(why, "strerror", None) or why or type(error).__name__)
        self.n_sent += 1
        return ""

    def _judged(self, status: int) -> str:
        if status not in _REFUSED:
            return f"the server answered {status}"
        self.n_refused += 1
        _log.error("webhook: the server answered %d to an alert, which is not sent again", status)
        return ""

    def _speak(self, pause: float) -> None:
        """A line about a server that does not answer, once a minute."""
        if (now := time.monotonic()) - self._spoke >= _QUIET:
            self._spoke = now
            text = "webhook: %s; trying again in %g s; %d alerts wait"
            _log.warning(text, self.trouble, pause, self._outbox.n_waiting)


def _check_url(url: str) -> None:
    """Refuse a URL that nobody could be asked at; it is a secret, and not shown."""
    if not url.startswith(("http://", "https://")):
        raise UserError("webhook.url: must begin with https:// or http://")
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named or not _URL.fullmatch(url):
        raise UserError(
            "webhook.url: must have a host, and no blanks or letters beyond ASCII; write those as "
            "%20, and names of hosts as xn--…"
        )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other: a POST that was redirected would be a GET."""

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Nothing is asked instead."""
