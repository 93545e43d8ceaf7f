"""HTTP/1.1 as uvicorn speaks it, with an end to its patience: who holds a connection up loses it.

It needs the extra `serve`, and is imported where a server is entered.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 20.0  # in which a request must be whole, and what is written be taken
_CROWD = 2  # connections, in those that are served: beyond them a new one is closed at once


class Patient(H11Protocol):
    """One connection. uvicorn bounds no more of it than the time between two requests.

    A request must be whole within `SECONDS` of its first byte, the first one of the connection. An
    answer may take any time to make, but where so much of it waits to be taken that no more can be
    written, some of it must be taken within as long. Connections that are open use up descriptors,
    which the engine needs for its files; so there is an end to those beyond the ones served, too.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > _CROWD * (self.limit_concurrency or 1):
            transport.abort()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Some of a request came, or all of it."""
        super().data_received(data)
        self._watch()

    def pause_writing(self) -> None:
        """Too much waits to be taken."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Enough was taken."""
        super().resume_writing()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._rest()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Wait as long as it is the other side's turn."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY) and not self.flow.write_paused:
            self._rest()
        elif self._timer is None:
            self._timer = self.loop.call_later(SECONDS, self.transport.abort)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
