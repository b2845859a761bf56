"""An ADB daemon on 127.0.0.1, in a thread of its own, steered from the test's thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from typing import Any

from .connection import Connection, Phone
from .link import Line, Link
from .processes import Processes
from .trust import Trust


class AdbDaemon:
    """Serves `phone` to ADB clients over TCP, from the constructor until `close`.

    auth: whom it lets in; None: anybody, as an emulator does. link: the cable. Steering methods return when what
    they ask for has happened.
    """

    def __init__(self, phone: Phone, *, auth: Trust | None = None, link: Link | None = None) -> None:
        self.phone = phone
        self.auth = auth
        self.link = link or Link()
        self._processes = Processes()
        self._connections: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._rebooting: threading.Thread | None = None
        # Bound but not listening: keeps the port while the phone is unplugged, and connections to it are refused.
        self._reservation = _bind(0)
        self.port: int = self._reservation.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self.link.loop = self._loop
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"adbd {self.port}")
        self._thread.start()
        self.plug()

    @property
    def address(self) -> str:
        return f"tcp:127.0.0.1:{self.port}"

    @property
    def is_plugged(self) -> bool:
        """Whether clients can connect."""
        return self._listener is not None

    @property
    def bytes_in(self) -> int:
        """Bytes that reached the phone, over all connections."""
        return self.link.inward.carried_bytes

    @property
    def bytes_out(self) -> int:
        return self.link.outward.carried_bytes

    def cut(self) -> None:
        """Pulls the cable and puts it back: all connections end now, and what ran in them is hung up."""
        self._call(self._cut())

    def unplug(self) -> None:
        """Pulls the cable: like `cut`, and new connections are refused until `plug`."""
        self._call(self._unplug())

    def plug(self) -> None:
        self._call(self._plug())

    def reboot(self) -> None:
        """The phone restarts: connections end, its processes are gone, and it comes back."""
        self.unplug()
        self.phone.reboot()
        self.plug()

    def close(self) -> None:
        """Ends connections, the commands that they started, and the thread."""
        if self._rebooting:
            self._rebooting.join()
        if self._thread.is_alive():
            self.unplug()
            self._call(self._processes.kill_all())
            self.link.loop = None
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._reservation.close()

    def __enter__(self) -> AdbDaemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, action: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(action, self._loop).result()

    async def _plug(self) -> None:
        if self._listener is None:
            self._listener = _bind(self.port)
            self._listener.listen()
            self._loop.add_reader(self._listener, self._accept, self._listener)

    async def _unplug(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        await self._cut()

    async def _cut(self) -> None:
        # Only those of now: clients that come again at once are not waited for.
        ending = list(self._connections)
        self.link.cut_lines()
        await asyncio.gather(*ending)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            # The client has left already.
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._serve(self.link.open(sock)))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, line: Line) -> None:
        try:
            await Connection(line, self.phone, self.auth, self._processes, self._reboot_for_client).run()
        finally:
            await line.close()

    async def _reboot_for_client(self) -> None:
        if self._rebooting and self._rebooting.is_alive():
            return
        # In a thread of its own, as it waits for this loop, and ends the very task that asks for it.
        self._rebooting = threading.Thread(target=self.reboot, name=f"reboot {self.port}")
        self._rebooting.start()


def _bind(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.setblocking(False)
    return sock
