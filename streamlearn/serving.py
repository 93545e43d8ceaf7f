"""An HTTP server in a thread of its own, and who may ask it.

Starlette and uvicorn are the extra `serve`; they are imported where a server is entered, never by
a run without one. The thread reads finished values alone and never waits for the stream.
"""

import contextlib
import hashlib
import hmac
import logging
import os
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from streamlearn.config_serving import ServedSection
from streamlearn.errors import UserError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_log = logging.getLogger(__name__)
_CONNECTIONS = 256  # at once; the next one is answered 503
_PATIENCE = 5.0  # seconds in which the thread must have ended
_LOGIN_BYTES = 4096
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_ALWAYS: Headers = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # without any, a form has no origin either
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Guard:
    """Lets through what names one of our hosts, comes from no other site, and shows the token.

    A wrong Host is answered 421, another site's Origin 403, a missing or wrong token 401. The token
    is shown as `Authorization: Bearer TOKEN`; where `login` is given also once as `/?token=TOKEN`
    or in its form, for a cookie that says no more than that the token was known.

    Args:
        app: whom it guards.
        section: names by which the server is reached; whether by https.
        token: what must be shown, compared in constant time; None for nobody asks.
        login: the page that asks for it; called with whether one was wrong.
    """

    def __init__(
        self,
        app: App,
        section: ServedSection,
        token: str | None,
        login: Callable[[bool], str] | None = None,
    ) -> None:
        self._app, self._names, self._login = app, section.names, login
        self._token = None if token is None else token.encode()
        key = hashlib.sha256(b"streamlearn" + (self._token or b"")).digest()
        self._ticket = hmac.new(key, b"has shown the token", "sha256").hexdigest()
        # cookies know hosts, not ports
        self._cookie = f"{'__Host-' if section.secure else ''}streamlearn-{section.port}"
        self._flags = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if section.secure else "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket, which nobody here speaks
            await send({"type": "websocket.close", "code": 1008})
            return
        told = _with_headers(send)
        wrong = self._foreign(scope)
        if wrong is not None:
            await answer(told, *wrong)
        elif self._token is None or self._known(scope):
            await self._app(scope, receive, told)
        else:
            await self._ask(scope, receive, told)

    def _foreign(self, scope: Scope) -> tuple[int, str] | None:
        """What is wrong with where the request is sent to, or comes from."""
        hosts, origins = values(scope, b"host"), values(scope, b"origin")
        if len(hosts) != 1 or _name(f"//{hosts[0]}") not in self._names:
            return 421, "host: is none of the names of this server; name it under `hosts`\n"
        if origins and (len(origins) > 1 or urlsplit_netloc(origins[0]) != hosts[0].lower()):
            return 403, "origin: another site may not ask this server\n"
        return None

    def _known(self, scope: Scope) -> bool:
        """Whether the request shows the token, or that it was shown."""
        for text in values(scope, b"authorization"):
            kind, _, given = text.partition(" ")
            if kind.lower() == "bearer" and self._is_token(given.strip()):
                return True
        return self._login is not None and any(
            same(cookie, self._ticket.encode()) for cookie in _cookies(scope, self._cookie)
        )

    def _is_token(self, given: str) -> bool:
        return self._token is not None and same(given, self._token)

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the token from the address or the form; else ask for it."""
        if self._login is None:
            await answer(send, 401, "token: is missing or wrong\n", bearer=True)
            return
        given = None
        if scope["method"] == "POST" and scope["path"] == "/login":
            given = _field(await _body(receive), "token")
        elif scope["method"] == "GET" and scope["path"] == "/":
            given = _field(scope["query_string"], "token")
        if given is not None and self._is_token(given):
            cookie = f"{self._cookie}={self._ticket}{self._flags}".encode()
            headers = [(b"location", b"/"), (b"set-cookie", cookie)]
            await answer(send, 303, "", headers)
            return
        page = self._login(given is not None)
        await answer(send, 401, page, kind="text/html; charset=utf-8", bearer=True)


def same(given: str, expected: bytes) -> bool:
    """Whether both are the same, in a time that tells nothing of either."""
    digests = (hashlib.sha256(v).digest() for v in (given.encode("utf-8", "replace"), expected))
    return hmac.compare_digest(*digests)


def values(scope: Scope, name: bytes) -> list[str]:
    """All headers of that name."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _name(address: str) -> str | None:
    """The name in an address, without port, in small letters; None where there is none."""
    try:
        parts = urlsplit(address)
        if parts.username is not None or parts.path or parts.query or parts.fragment:
            return None
        _ = parts.port  # a number, if any
    except ValueError:
        return None
    return parts.hostname


def urlsplit_netloc(origin: str) -> str | None:
    """Name and port of an origin; None of one that is none, such as null."""
    scheme, _, rest = origin.lower().partition("://")
    return rest if scheme in ("http", "https") and _name(f"//{rest}") else None


def _cookies(scope: Scope, name: str) -> list[str]:
    found = []
    for text in values(scope, b"cookie"):
        with contextlib.suppress(CookieError):
            jar = SimpleCookie(text)
            found += [jar[name].value] if name in jar else []
    return found


def _field(encoded: bytes, name: str) -> str | None:
    """A field of a form or of an address."""
    try:
        found = parse_qs(encoded.decode("ascii"), max_num_fields=8).get(name)
    except ValueError:
        return None
    return found[0] if found else None


async def _body(receive: Receive) -> bytes:
    """The body of a request, as far as a form may be long."""
    body, more = b"", True
    while more and len(body) <= _LOGIN_BYTES:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body[:_LOGIN_BYTES]


def _with_headers(send: Send) -> Send:
    """Adds to every answer what keeps browsers from lending it to others."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append((b"cache-control", b"no-store"))
            message = {**message, "headers": headers + _ALWAYS}
        await send(message)

    return told


async def answer(
    send: Send,
    status: int,
    text: str,
    headers: Headers | None = None,
    *,
    kind: str = "text/plain; charset=utf-8",
    bearer: bool = False,
) -> None:
    """A short answer, whole."""
    body = text.encode()
    told = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    told += [(b"www-authenticate", b"Bearer")] if bearer else []
    await send({"type": "http.response.start", "status": status, "headers": told + (headers or [])})
    await send({"type": "http.response.body", "body": body})


class Server:
    """Serves an ASGI application in a thread while it is entered.

    Args:
        owner: the section of the configuration, for messages.
        section: where it listens, and its TLS files. app: what answers.
    Raises: UserError where the extra is missing, the address is taken or not ours, or the TLS files
        cannot be read.
    """

    def __init__(self, owner: str, section: ServedSection, app: App) -> None:
        self._owner, self._section, self._app = owner, section, app
        self.port = section.port
        self._server: Any = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        config = self._config()
        taken = listening(self._owner, self._section)
        self.port = int(taken.getsockname()[1])
        self._server = imported("uvicorn", self._owner).Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [taken]}, name=self._owner, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_PATIENCE)
            self._server = self._thread = None

    @property
    def address(self) -> str:
        """What to type into a browser on this machine, or by the first name it is given."""
        section = self._section
        host = section.hosts[0] if section.hosts else section.host
        if section.behind_proxy and section.hosts:
            return f"https://{host}/"
        shown = f"[{host}]" if ":" in host else host
        return f"http{'s' if section.tls_cert else ''}://{shown}:{self.port}/"

    def _config(self) -> Any:
        section = self._section
        uvicorn = imported("uvicorn", self._owner)
        from streamlearn.patience import Patient

        config = uvicorn.Config(
            self._app,
            loop="asyncio",
            http=Patient,
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
            ssl_certfile=section.tls_cert,
            ssl_keyfile=section.tls_key,
        )
        try:
            config.load()
        except OSError as error:  # ssl.SSLError is one
            files = f"{section.tls_cert}, {section.tls_key}"
            raise UserError(
                f"{self._owner}.tls_cert: cannot use {files}: {error.strerror or error}; "
                f"both must be PEM, and belong together"
            ) from None
        return config


def imported(name: str, owner: str) -> Any:
    """A module of the extra. Raises: UserError that says how to get it."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"{owner}: needs {name.partition('.')[0]}; pip install 'streamlearn[serve]'"
        ) from None


def listening(owner: str, section: ServedSection) -> socket.socket:
    """A socket that takes connections. Raises: UserError where the address is not to be had."""
    try:
        kind, _, _, _, address = socket.getaddrinfo(
            section.host or None, section.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.create_server(address[:2], family=kind, backlog=128)
        # connections inherit it; without, an answer in two pieces waits 40 ms for a late ACK
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return taken
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None)  # of what asyncio and socket say, the short form
        why = os.strerror(number) if number and not isinstance(error, socket.gaierror) else error
        raise UserError(
            f"{owner}: cannot listen on {section.host}:{section.port}: {why}; choose another port"
        ) from None
