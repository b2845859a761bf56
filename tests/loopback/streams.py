"""A stream within an ADB connection: what a service reads from and writes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .wire import Message


class Stream:
    """One stream; each side may have one unacknowledged WRTE under way.

    Data is acknowledged when the service takes it, so a slow service slows the client down. A stream whose client
    closes it, or whose connection is lost, ends by cancellation of its service's task.
    """

    def __init__(self, send: Callable[[Message], None], local_id: int, remote_id: int, max_payload_bytes: int) -> None:
        self.local_id = local_id
        self.remote_id = remote_id
        self._send = send
        self._max_payload_bytes = max_payload_bytes
        self._unread = bytearray()
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self._may_send = asyncio.Event()
        self._may_send.set()
        self._writing = asyncio.Lock()

    async def read(self) -> bytes:
        """Whatever has arrived, at least one byte; waits for it."""
        if not self._unread:
            self._unread += await self._arrived.get()
            self._send(Message(b"OKAY", self.local_id, self.remote_id))
        taken = bytes(self._unread)
        self._unread.clear()
        return taken

    async def read_exactly(self, count: int) -> bytes:
        while len(self._unread) < count:
            self._unread += await self._arrived.get()
            self._send(Message(b"OKAY", self.local_id, self.remote_id))
        with memoryview(self._unread) as view:
            taken = bytes(view[:count])
        del self._unread[:count]
        return taken

    async def write(self, data: bytes) -> None:
        """Sends the bytes, in order even when several tasks write; returns before they are acknowledged."""
        async with self._writing:
            for start in range(0, len(data), self._max_payload_bytes):
                await self._may_send.wait()
                self._may_send.clear()
                part = data[start : start + self._max_payload_bytes]
                self._send(Message(b"WRTE", self.local_id, self.remote_id, bytes(part)))

    async def flush(self) -> None:
        """Waits until the client has acknowledged everything."""
        await self._may_send.wait()

    def deliver(self, payload: bytes) -> None:
        """From the connection: the client's WRTE."""
        # Two in a row are let through, as adbd does: adb's server sends them when its client leaves during a push.
        if payload:
            self._arrived.put_nowait(payload)
        else:
            self._send(Message(b"OKAY", self.local_id, self.remote_id))

    def acknowledge(self) -> None:
        """From the connection: the client's OKAY."""
        self._may_send.set()
