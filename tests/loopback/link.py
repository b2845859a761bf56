"""The cable between a client and the daemon: late, split, silent or cut where a test says so."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Awaitable, Callable, Iterator

RECEIVE_BYTES = 1 << 18


class _Cut(Exception):  # noqa: N818 - an event, not an error
    """The cable ends here."""


class Direction:
    """Counts the bytes that went one way over all connections, and says where the cable is cut."""

    def __init__(self) -> None:
        self.carried_bytes = 0
        self.cut_at_bytes: int | None = None

    def admit(self, data: bytes) -> bytes:
        """The part of `data` that comes before the cut."""
        if self.cut_at_bytes is not None:
            data = data[: max(0, self.cut_at_bytes - self.carried_bytes)]
        self.carried_bytes += len(data)
        return data

    def end_if_cut(self) -> None:
        if self.cut_at_bytes is not None and self.carried_bytes >= self.cut_at_bytes:
            # One cut per request: the next connection is whole again.
            self.cut_at_bytes = None
            raise _Cut


class Link:
    """What all connections of one daemon go through; `AdbDaemon.cut` and `unplug` end them.

    `cut_after`, `pause` and `resume` may be called from any thread, at any time. `latency_s` delays bytes each way
    without limiting the throughput. `max_chunk_bytes` breaks them into random pieces of at most that size. Both may be
    changed while connections are open.
    """

    def __init__(self, *, latency_s: float = 0.0, max_chunk_bytes: int | None = None, seed: int = 0) -> None:
        self.latency_s = latency_s
        self.max_chunk_bytes = max_chunk_bytes
        self.inward = Direction()
        self.outward = Direction()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._random = random.Random(seed)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._lines: set[Line] = set()

    def cut_after(self, *, bytes_in: int | None = None, bytes_out: int | None = None) -> None:
        """Ends the connection after exactly so many more bytes to the phone (`bytes_in`) or from it (`bytes_out`)."""

        def arm() -> None:
            for direction, count in ((self.inward, bytes_in), (self.outward, bytes_out)):
                direction.cut_at_bytes = None if count is None else direction.carried_bytes + count

        self._steer(arm)

    def pause(self) -> None:
        """Silence: connections stay open, nothing passes."""
        self._steer(self._flowing.clear)

    def resume(self) -> None:
        self._steer(self._flowing.set)

    def _steer(self, action: Callable[[], object]) -> None:
        """Runs `action` where the bytes pass, and returns when it has run."""
        if self.loop is None:
            action()
            return

        async def act() -> None:
            action()

        asyncio.run_coroutine_threadsafe(act(), self.loop).result()

    # For the daemon, on its loop

    def open(self, sock: socket.socket) -> Line:
        """A connection over this link, until it is closed."""
        line = Line(self, sock)
        self._lines.add(line)
        return line

    def forget(self, line: Line) -> None:
        self._lines.discard(line)

    def cut_lines(self) -> None:
        """Ends all connections."""
        for line in self._lines:
            line.cut()

    async def carry(self, data: bytes, direction: Direction, deliver: Callable[[bytes], Awaitable[None]]) -> None:
        for piece in self._pieces(data):
            await self._flowing.wait()
            direction.end_if_cut()
            await deliver(direction.admit(piece))
            direction.end_if_cut()

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        start = 0
        while start < len(data):
            size = self._random.randint(1, self.max_chunk_bytes) if self.max_chunk_bytes else len(data)
            yield data[start : start + size]
            start += size


class Line:
    """One connection over the link: `reader` has what arrived, `write` sends."""

    def __init__(self, link: Link, sock: socket.socket) -> None:
        self.reader = asyncio.StreamReader()
        self._link = link
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        # Delay lines of (time at which the bytes are due, bytes); no bytes: the other side closed.
        self._inward: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._outward: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._ending = asyncio.Event()
        self._running = asyncio.create_task(self._run())

    def write(self, data: bytes) -> None:
        self._outward.put_nowait((self._loop.time() + self._link.latency_s, data))

    def cut(self) -> None:
        self._ending.set()

    async def close(self) -> None:
        self.cut()
        await self._running
        self._link.forget(self)

    async def _run(self) -> None:
        """Until one side closes, or the link is cut."""
        receiving = asyncio.create_task(self._receive())
        ends = (
            asyncio.create_task(self._pump(self._inward, self._link.inward, self._feed)),
            asyncio.create_task(self._pump(self._outward, self._link.outward, self._transmit)),
            asyncio.create_task(self._ending.wait()),
        )
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in (receiving, *ends):
            task.cancel()
        await asyncio.gather(receiving, *ends, return_exceptions=True)
        self._sock.close()
        self.reader.feed_eof()

    async def _receive(self) -> None:
        data: bytes | None = None
        while data != b"":
            try:
                data = await self._loop.sock_recv(self._sock, RECEIVE_BYTES)
            except OSError:
                data = b""
            self._inward.put_nowait((self._loop.time() + self._link.latency_s, data))

    async def _pump(
        self,
        queue: asyncio.Queue[tuple[float, bytes]],
        direction: Direction,
        deliver: Callable[[bytes], Awaitable[None]],
    ) -> None:
        with contextlib.suppress(_Cut, OSError):
            while True:
                due, data = await queue.get()
                if (wait_s := due - self._loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                if not data:
                    return
                await self._link.carry(data, direction, deliver)

    async def _feed(self, data: bytes) -> None:
        self.reader.feed_data(data)
        # Lets the daemon look at this piece before the next one comes.
        await asyncio.sleep(0)

    async def _transmit(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)
