"""TCP proxies between the instances and what they talk to, so that connections can be cut and slowed.

Owns: an event loop in a thread, one listener per link. Invariant: bytes are passed on unchanged and in order, or the
connection is closed: what TCP itself allows. Must not: know Kafka or HTTP.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

CHUNK_BYTES = 65_536
CONNECT_WAIT_S = 5
START_WAIT_S = 10


@dataclass
class Link:
    """A listener and where it leads."""

    port: int
    target_port: int
    is_cut: bool = False
    # Of every piece, in each direction; 0: as fast as it goes.
    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)


class Proxies:
    """All links, and the switches that the faults turn."""

    def __init__(self, links: list[Link]) -> None:
        self.links = links
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="proxies", daemon=True)
        self.thread.start()
        for link in links:
            self._run(self._listen(link))

    def cut(self, links: list[Link]) -> None:
        """Close what is open and, until `mend`, what comes."""
        self._run(self._cut(links))

    def slow(self, links: list[Link], delay_s: float, bytes_per_s: float) -> None:
        for link in links:
            link.delay_s, link.bytes_per_s = delay_s, bytes_per_s

    def mend(self, links: list[Link]) -> None:
        for link in links:
            link.is_cut, link.delay_s, link.bytes_per_s = False, 0.0, 0.0

    def close(self) -> None:
        self.cut(self.links)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(START_WAIT_S)

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(START_WAIT_S)

    async def _listen(self, link: Link) -> None:
        await asyncio.start_server(
            lambda reader, writer: self._connected(link, reader, writer), "127.0.0.1", link.port)

    async def _cut(self, links: list[Link]) -> None:
        for link in links:
            link.is_cut = True
            for writer in list(link.writers):
                # A reset, as from a host that is gone; nothing that waits in a buffer is sent.
                writer.transport.abort()

    async def _connected(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if link.is_cut:
            writer.transport.abort()
            return
        try:
            there = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", link.target_port), CONNECT_WAIT_S)
        except (OSError, asyncio.TimeoutError):
            writer.transport.abort()
            return
        ends = {writer, there[1]}
        link.writers |= ends
        try:
            await asyncio.gather(_pass_on(link, reader, there[1]), _pass_on(link, there[0], writer))
        except OSError:
            pass
        finally:
            link.writers -= ends
            for end in ends:
                end.transport.abort()


async def _pass_on(link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, to its end. The end closes the other direction too: neither Kafka nor HTTP uses half of one."""
    while piece := await reader.read(CHUNK_BYTES):
        if link.delay_s or link.bytes_per_s:
            await asyncio.sleep(link.delay_s + (len(piece) / link.bytes_per_s if link.bytes_per_s else 0))
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        await writer.drain()
    raise ConnectionResetError
