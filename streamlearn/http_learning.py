"""HTTP to ask and to learn by id: what a request says is durable before anybody is told so.

Requests that come while the disk is busy are written together, with one sync (group commit). An
answer to `/predict` is sent when the engine has given it; one to `/learn` when the label is kept.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from streamlearn.answers import AnswerBook, Asked, Waiting, digest_of
from streamlearn.config_serve import ServeSection
from streamlearn.errors import UserError
from streamlearn.health import Status, brief
from streamlearn.journal import Journal
from streamlearn.request_checks import Checks, Item, RefusedError, openapi
from streamlearn.requests import EVENT, LABEL, Requests, record
from streamlearn.serving import Headers, Receive, Scope, Send, values

_encode = msgspec.json.Encoder(enc_hook=str).encode
_JSON = b"application/json"
_AGAIN: Headers = [(b"retry-after", b"1")]


class Trouble(Exception):  # no error of the program: an answer with its status
    """An answer that is no success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Learning:
    """The application: `/predict`, `/learn`, health, metrics and their description.

    Args:
        section: bounds. checks: what bodies must be. journal: where requests are kept. requests:
            the engine's source of them. book: the answers. status: the health of the run.
            metrics: gives the body of `/metrics` and its type, in the form that a scraper accepts.
    """

    def __init__(
        self,
        section: ServeSection,
        checks: Checks,
        journal: Journal,
        requests: Requests,
        book: AnswerBook,
        status: Callable[[], Status],
        metrics: Callable[[str], tuple[bytes, str]],
    ) -> None:
        self._section, self._checks, self._journal = section, checks, journal
        self._requests, self._book, self._status, self._metrics = requests, book, status, metrics
        described = openapi(checks, section.max_body, section.token is not None)
        self._described = _encode(described)
        self._labels: OrderedDict[Any, Any] = OrderedDict()  # id -> the label that was taken
        self._group: list[tuple[list[bytes], list[Asked], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._in_hand = 0  # records that are not durable yet
        self._latest = 0  # when the last one came
        self._disk = ThreadPoolExecutor(1, "requests")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        book.tell = self._tell

    # -- stopping ----------------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether no more requests are taken."""
        return self._stopping

    @property
    def open(self) -> bool:
        """Whether requests are taken."""
        return not self._closed()

    def stop(self, reason: str = "stop") -> None:
        """Take no more requests; those that were taken are worked off. Signals may call it."""
        self._stopping = True
        if self._loop is None or self._loop.is_closed():
            self._requests.finish()
        else:
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        """Once nothing is being written."""
        if self._writing is not None and self._is_writing:
            self._writing.add_done_callback(lambda _: self._finish())
            return
        self._requests.finish()
        self._requests.put([])  # wakes the engine

    def close(self) -> None:
        """Nobody waits any more."""
        self._stopping = True
        self._book.abandon()
        self._disk.shutdown(wait=True)

    # -- one request -------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        self._loop = asyncio.get_running_loop()
        try:
            status, body, kind = await self._answered(scope, receive)
        except Trouble as trouble:
            status, body, kind = trouble.status, _encode({"error": str(trouble)}), _JSON
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        headers += _AGAIN if status == 503 else []
        if status == 413 and values(scope, b"expect"):  # what was not asked for may not come
            headers += [(b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answered(self, scope: Scope, receive: Receive) -> tuple[int, bytes, bytes]:
        path, method = scope["path"], scope["method"]
        posts = {"/predict": self._predict, "/learn": self._learn}
        if path in posts:
            if method != "POST":
                raise Trouble(405, f"{path} is asked by POST")
            self._check_open()
            body = await self._body(scope, receive)
            return 200, await posts[path](body), _JSON
        if method not in ("GET", "HEAD"):
            raise Trouble(404, f"there is no {path} to {method}")
        return self._told(path, ",".join(values(scope, b"accept")))

    def _told(self, path: str, accept: str) -> tuple[int, bytes, bytes]:
        if path == "/openapi.json":
            return 200, self._described, _JSON
        if path == "/metrics":
            try:
                body, kind = self._metrics(accept)
            except UserError as error:  # the extra is not installed
                raise Trouble(501, str(error)) from None
            return 200, body, kind.encode()
        what = path.removeprefix("/health/")
        if what not in ("live", "ready"):
            raise Trouble(404, f"there is no {path}; /openapi.json says what there is")
        told = brief(self._status())
        if why := self._closed():
            told |= {"ready": False, "why": [*told["why"], why]}
        return 200 if told[what] else 503, _encode(told), _JSON

    def _closed(self) -> str:
        """Why no requests are taken now; "" where they are."""
        if self._stopping:
            return "the server stops"
        return "" if self._requests.recovered else "the server starts"

    def _check_open(self) -> None:
        if why := self._closed():
            raise Trouble(503, f"{why}; ask again")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. Raises: Trouble where it is too long, before it is read.

        The rest is let go by as it comes: who sends all before reading would else see the
        connection break, and no answer.
        """
        most = self._section.max_body
        told = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        too_long = Trouble(413, f"body: must have at most {most} bytes; send smaller batches")
        if told.isdigit() and int(told) > most:
            raise too_long
        pieces, length, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Trouble(400, "the request broke off")
            pieces.append(message.get("body", b""))
            length, more = length + len(pieces[-1]), message.get("more_body", False)
            if length > most:
                raise too_long
        return b"".join(pieces)

    # -- events ------------------------------------------------------------------------------------

    async def _predict(self, body: bytes) -> bytes:
        items, listed = _checked(self._checks.predict, body)
        asked, fresh = self._known(items)
        if fresh:
            texts = [text for one, text in fresh]
            new = [one for one, _ in fresh]
            for one in new:
                self._book.ask(one)
            await self._kept([record(EVENT, self._came(), text) for text in texts], new)
        answers = await self._waited(asked)
        return _joined(answers, listed)

    def _known(self, items: Sequence[Item]) -> tuple[list[Asked], list[tuple[Asked, bytes]]]:
        """What was or will be asked of each, and those that are new."""
        here: dict[Any, Asked] = {}
        fresh = []
        asked = []
        for item in items:
            digest = digest_of(item.text)
            found = here.get(item.id) or self._book.find(item.id)
            if found is None:
                found = here[item.id] = Asked(item.id, digest)
                fresh.append((found, item.text))
            elif found.digest != digest:
                text = f"id {item.id!r}: was asked with other features; take another id"
                raise Trouble(409, text)
            asked.append(found)
        self._check_room(len(fresh))
        return asked, fresh

    async def _waited(self, asked: Sequence[Asked]) -> list[bytes]:
        """All answers. Raises: Trouble where one does not come."""
        left = [one for one in asked if one.is_open]
        if left:
            told = asyncio.Event()
            Waiting(left, told.set)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), self._section.wait)
        for one in asked:
            if one.wrong:
                raise Trouble(503, one.wrong)
        answers = [one.answer for one in asked if one.answer is not None]
        if len(answers) < len(asked):
            raise Trouble(503, "kept, but not answered yet; ask again with the same id")
        return answers

    def _tell(self, asked: list[Asked]) -> None:
        """Word from the engine's thread."""
        if asked and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(_told_of, asked)

    # -- labels ------------------------------------------------------------------------------------

    async def _learn(self, body: bytes) -> bytes:
        items, listed = _checked(self._checks.learn, body)
        here: dict[Any, Any] = {}
        told, fresh = [], []
        for item in items:
            label = here.get(item.id, self._labels.get(item.id))
            if label is not None and label != item.label:
                raise Trouble(409, f"id {item.id!r}: has the label {label!r} already; that counts")
            if label is None:
                here[item.id] = item.label
                fresh.append(item)
            told.append({"id": item.id, "status": "repeated" if label is not None else "accepted"})
        self._check_room(len(fresh))
        self._labels |= here
        if fresh or self._is_writing:  # what is repeated may not be durable yet
            try:
                await self._kept([record(LABEL, self._came(), item.text) for item in fresh], [])
            except Trouble:
                for id in here:
                    self._labels.pop(id, None)
                raise
        while len(self._labels) > self._section.remember:
            self._labels.popitem(last=False)
        return _joined([_encode(one) for one in told], listed)

    def _came(self) -> int:
        """When a request came: milliseconds since 1970. It is kept with it, and read from there.

        Never before one that was kept: where a clock is set back, all that came by it would be past
        its time-out for as long as the clock needs to catch up.
        """
        self._latest = max(self._latest, self._requests.came, _now())
        return self._latest

    # -- group commit ------------------------------------------------------------------------------

    def _check_room(self, n: int) -> None:
        if n and self._requests.waiting + self._in_hand + n > self._section.backlog:
            raise Trouble(503, "too many requests wait; ask again")

    @property
    def _is_writing(self) -> bool:
        """Whether something that was taken is not durable yet."""
        return self._writing is not None and not self._writing.done()

    async def _kept(self, records: list[bytes], asked: list[Asked]) -> None:
        """Return when these are durable and the engine has them."""
        self._check_open()
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._group.append((records, asked, durable))
        self._in_hand += len(records)
        if not self._is_writing:
            self._writing = asyncio.get_running_loop().create_task(self._write())
        await asyncio.shield(durable)

    async def _write(self) -> None:
        """Everything that waits, with one sync; then what came meanwhile."""
        while self._group:
            group, self._group = self._group, []
            records = [r for one, _, _ in group for r in one]
            try:
                first = await asyncio.get_running_loop().run_in_executor(
                    self._disk, self._journal.append, records
                )
            except UserError as error:
                self._broken(error, group)
            else:
                self._handed(first, records, group)
            self._in_hand -= len(records)

    def _handed(self, first: int, records: list[bytes], group: list[Any]) -> None:
        """To the engine, and word to who waits."""
        number = first
        for own, asked, _ in group:
            for one, at in zip(asked, range(number, number + len(asked)), strict=True):
                self._book.expect(at, one)
            number += len(own)
        self._requests.put(records)
        for _, _, durable in group:
            if not durable.done():
                durable.set_result(None)

    def _broken(self, error: UserError, group: list[Any]) -> None:
        """The disk takes no more: what it holds is not known before the next start."""
        self._stopping = True
        self._requests.fail(error)
        for _, asked, durable in group:
            for one in asked:
                self._book.forget(one, "the request could not be kept; ask again")
            if not durable.done():
                durable.set_exception(Trouble(503, "the request could not be kept; ask again"))
                durable.exception()


def _checked(check: Callable[[bytes], tuple[list[Item], bool]], body: bytes) -> Any:
    """The items of a body. Raises: Trouble with what is wrong."""
    try:
        return check(body)
    except RefusedError as error:
        raise Trouble(422, str(error)) from None


def _told_of(asked: list[Asked]) -> None:
    for one in asked:
        waiting, one.waiting = one.waiting, []
        for request in waiting:
            request.told()


def _joined(answers: list[bytes], listed: bool) -> bytes:
    return b"[" + b",".join(answers) + b"]" if listed else answers[0]


def _now() -> int:
    """What the clock says, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
