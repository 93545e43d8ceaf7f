"""Between the clients and noida-db, which answers a fetch without records at once.

Kafka holds such an answer back for `fetch.max.wait.ms`; without that a consumer that waits asks
40,000 times a second and keeps a core busy, as does its broker. Here an answer that says what the
connection has lately been told waits for `HOLD_SECONDS`. The rest passes unread, but for the
broker's address in the answers that name it: as long as that of the relay.

`python relay.py PORT`: from RELAY:PORT to BROKER:PORT.
"""

import asyncio
import sys

RELAY, BROKER = "127.0.0.1", "127.0.0.2"  # of the same length: it is replaced within messages
HOLD_SECONDS = 0.02
LONGEST = 4096  # bytes of an answer that may be without records
LATELY = 64  # answers of a connection; partitions are asked for in changing order
FETCH = 1
WITH_ADDRESSES = (3, 10, 60)  # Metadata, FindCoordinator, DescribeCluster
SIZE_BYTES = 4


async def _message(reader: asyncio.StreamReader) -> bytes:
    """The next message, without its size."""
    size = await reader.readexactly(SIZE_BYTES)
    return await reader.readexactly(int.from_bytes(size, "big"))


async def _send(writer: asyncio.StreamWriter, message: bytes) -> None:
    writer.write(len(message).to_bytes(SIZE_BYTES, "big") + message)
    await writer.drain()


class _Link:
    """One connection of a client and its connection to the broker."""

    def __init__(self) -> None:
        self._asked: dict[bytes, int] = {}  # kind of each request without an answer, by its number
        self._told: dict[bytes, None] = {}  # short answers to fetches, the latest last

    async def requests(self, client: asyncio.StreamReader, broker: asyncio.StreamWriter) -> None:
        while True:
            message = await _message(client)
            self._asked[message[4:8]] = int.from_bytes(message[:2], "big")
            await _send(broker, message)

    async def answers(self, broker: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while True:
            message = await _message(broker)
            kind = self._asked.pop(message[:4], None)
            if kind == FETCH and len(message) <= LONGEST and self._known(message[4:]):
                await asyncio.sleep(HOLD_SECONDS)
            if kind in WITH_ADDRESSES:
                message = message.replace(BROKER.encode(), RELAY.encode())
            await _send(client, message)

    def _known(self, answer: bytes) -> bool:
        known = answer in self._told
        self._told.pop(answer, None)
        self._told[answer] = None
        if len(self._told) > LATELY:
            del self._told[next(iter(self._told))]
        return known


async def _serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter, port: int) -> None:
    """Carry one connection until either side ends it."""
    writers = [to_client]
    try:
        broker, to_broker = await asyncio.open_connection(BROKER, port)
        writers.append(to_broker)
        link = _Link()
        ways = [
            asyncio.ensure_future(link.requests(client, to_broker)),
            asyncio.ensure_future(link.answers(broker, to_client)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    except OSError:
        pass  # the broker has just ended
    finally:
        for writer in writers:
            writer.close()


async def main(port: int) -> None:
    """Carry all connections until the process is ended."""
    server = await asyncio.start_server(lambda r, w: _serve(r, w, port), RELAY, port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
