"""Connections over real sockets that hold the server up: halves of requests, answers not taken."""

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from streamlearn import patience, serving
from streamlearn.config_serving import ServedSection
from streamlearn.serving import Receive, Scope, Send, Server

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"


class Answers:
    """Reads a request whole; "/slow" is answered late, "/long" with more than a socket holds."""

    def __init__(self) -> None:
        self.ended = threading.Event()  # the long answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        while (await receive()).get("more_body", False):
            pass
        if scope["path"] == "/slow":
            await asyncio.sleep(1.5 * patience.SECONDS)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/long":
            for _ in range(200):
                await send({"type": "http.response.body", "body": bytes(100_000),
                            "more_body": True})  # fmt: skip
            self.ended.set()
        await send({"type": "http.response.body", "body": b"done"})


@contextlib.contextmanager
def served(seconds: float, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, Answers]]:
    monkeypatch.setattr(patience, "SECONDS", seconds)
    app = Answers()
    with Server("serve", ServedSection(port=0), app) as server:
        yield server, app


def connected(server: Server, *sent: bytes) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    for data in sent:
        one.sendall(data)
    return one


def ask(server: Server, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path)
    return connection.getresponse()


def left(one: socket.socket) -> bytes:
    """What comes before the other side ends the connection; an error where it does not."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := one.recv(65536):
            found += piece
    one.close()
    return found


def test_a_request_that_is_never_whole_is_not_waited_for_and_an_answer_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served(0.5, monkeypatch) as (server, _):
        halves = [connected(server), connected(server, HEAD[:20]), connected(server, HEAD, b"half")]
        second = connected(server, HEAD + b"123456789")
        assert second.recv(65536).startswith(b"HTTP/1.1 200")
        second.sendall(HEAD[:20])
        dripping = connected(server)
        with contextlib.suppress(OSError):  # a byte now and then buys no time
            for byte in HEAD:
                dripping.sendall(bytes([byte]))
                time.sleep(0.02)
        slow = ask(server, "/slow")
        assert (slow.status, slow.read()) == (200, b"done")
        assert [left(one) for one in halves] == [b"", b"", b""]
        assert b"HTTP" not in left(second) + left(dripping)


def test_an_answer_that_nobody_takes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(0.5, monkeypatch) as (server, app):
        one = connected(server, b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert app.ended.wait(10)  # else it would wait for good
        assert 0 < len(left(one)) < 20_000_000


def test_beyond_so_many_connections_a_new_one_is_closed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would use up the descriptors that the engine's files need."""
    monkeypatch.setattr(serving, "_CONNECTIONS", 2)
    with served(60.0, monkeypatch) as (server, _):
        open_ones: list[Any] = [connected(server) for _ in range(4)]
        assert left(connected(server)) == b""
        for one in open_ones:
            one.close()
        while ask(server, "/").status != 200:
            pass
