"""One ADB connection as the daemon sees it: greeting, trust, streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from . import wire
from .link import Line
from .processes import Processes
from .shells import ShellHost, ShellRequest, serve_shell
from .streams import Stream
from .sync import serve_sync
from .trust import PublicKey, Trust, new_token
from .wire import Message, ProtocolError

# Only what this daemon implements: clients use whatever a phone offers.
FEATURES = "shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir,fixed_push_symlink_timestamp"
BANNER_PROPERTIES = ("ro.product.name", "ro.product.model", "ro.product.device")
AUTH_TOKEN, AUTH_SIGNATURE, AUTH_PUBLIC_KEY = 1, 2, 3

Service = Callable[[], Awaitable[None]]


class Phone(ShellHost, Protocol):
    """What the daemon needs of a phone."""

    @property
    def properties(self) -> Mapping[str, str]: ...
    def path(self, path: str) -> Path: ...
    def reboot(self) -> None: ...


class Connection:
    """Serves one client until it leaves, breaks the protocol, or the link is cut."""

    def __init__(self, line: Line, phone: Phone, trust: Trust | None, processes: Processes, reboot: Service) -> None:
        self._line = line
        self._phone = phone
        self._trust = trust
        self._processes = processes
        self._reboot = reboot
        self._online = False
        self._token = b""
        self._dialog: asyncio.Task[None] | None = None
        # Until the client has named its version, the oldest, which wants checksums.
        self._version = wire.VERSION_WITH_CHECKSUMS
        self._max_payload_bytes = 4096
        self._streams: dict[int, tuple[Stream, asyncio.Task[None]]] = {}
        self._next_id = 1

    async def run(self) -> None:
        handlers: dict[bytes, Callable[[Message], None]] = {
            b"CNXN": self._on_connect,
            b"AUTH": self._on_auth,
            b"OPEN": self._on_open,
            b"OKAY": self._on_okay,
            b"WRTE": self._on_write,
            b"CLSE": self._on_close,
        }
        try:
            while True:
                message = await wire.read_message(self._line.reader, with_checksum=self._wants_checksums)
                # Before the greeting is complete, all else is ignored.
                if self._online or message.command in (b"CNXN", b"AUTH"):
                    handlers[message.command](message)
        except (ProtocolError, asyncio.IncompleteReadError):
            return
        finally:
            await self._end_tasks()

    @property
    def _wants_checksums(self) -> bool:
        return self._version < wire.VERSION_WITHOUT_CHECKSUMS

    def _send(self, message: Message) -> None:
        with_checksum = self._wants_checksums or message.command in (b"CNXN", b"AUTH")
        self._line.write(wire.pack(message, with_checksum=with_checksum))

    async def _end_tasks(self) -> None:
        tasks = [task for _, task in self._streams.values()]
        if self._dialog:
            tasks.append(self._dialog)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # The greeting

    def _on_connect(self, message: Message) -> None:
        if self._online:
            raise ProtocolError("a second CNXN")
        self._version = min(message.arg0, wire.VERSION_WITHOUT_CHECKSUMS)
        self._max_payload_bytes = min(message.arg1, wire.MAX_PAYLOAD_BYTES)
        if self._trust:
            self._ask_for_signature()
        else:
            self._welcome()

    def _ask_for_signature(self) -> None:
        self._token = new_token()
        self._send(Message(b"AUTH", AUTH_TOKEN, 0, self._token))

    def _welcome(self) -> None:
        self._online = True
        words = [f"{key}={self._phone.properties.get(key, '')}" for key in BANNER_PROPERTIES]
        banner = "device::" + ";".join([*words, f"features={FEATURES}"])
        self._send(Message(b"CNXN", wire.VERSION_WITHOUT_CHECKSUMS, wire.MAX_PAYLOAD_BYTES, banner.encode()))

    def _on_auth(self, message: Message) -> None:
        if not self._trust or not self._token or self._online:
            raise ProtocolError("AUTH that nobody asked for")
        if message.arg0 == AUTH_SIGNATURE:
            if self._trust.knows(self._token, message.payload):
                self._welcome()
            else:
                self._ask_for_signature()
        elif message.arg0 == AUTH_PUBLIC_KEY:
            key = PublicKey.parse(message.payload.rstrip(b"\0").decode(errors="replace"))
            self._dialog = self._dialog or asyncio.create_task(self._ask_user(self._trust, key))
        else:
            raise ProtocolError(f"AUTH of type {message.arg0}")

    async def _ask_user(self, trust: Trust, key: PublicKey) -> None:
        trust.dialogs += 1
        if trust.answer_s is not None:
            await asyncio.sleep(trust.answer_s)
            trust.keys.add(key)
            self._welcome()

    # Streams

    def _on_open(self, message: Message) -> None:
        service = message.payload.rstrip(b"\0").decode(errors="surrogateescape")
        remote_id, local_id = message.arg0, self._next_id
        if remote_id == 0:
            raise ProtocolError("OPEN of stream 0")
        stream = Stream(self._send, local_id, remote_id, self._max_payload_bytes)
        serve = self._service(service, stream)
        if serve is None:
            self._send(Message(b"CLSE", 0, remote_id))
            return
        self._next_id += 1
        self._send(Message(b"OKAY", local_id, remote_id))
        task = asyncio.create_task(self._serve(stream, serve))
        self._streams[local_id] = stream, task
        task.add_done_callback(partial(self._end_stream, stream))

    def _service(self, name: str, stream: Stream) -> Service | None:
        if name.startswith(("shell:", "shell,", "exec:")):
            return partial(serve_shell, stream, self._phone, ShellRequest.parse(name), self._processes)
        if name.startswith("sync:"):
            return partial(serve_sync, stream, self._phone.path)
        if name.startswith("reboot:"):
            return self._reboot
        return None

    async def _serve(self, stream: Stream, serve: Service) -> None:
        await serve()
        await stream.flush()

    def _end_stream(self, stream: Stream, task: asyncio.Task[None]) -> None:
        """The service has ended, or the client closed the stream: the same answer for both."""
        del self._streams[stream.local_id]
        self._send(Message(b"CLSE", stream.local_id, stream.remote_id))
        if not task.cancelled() and (error := task.exception()):
            asyncio.get_running_loop().call_exception_handler({"message": "an ADB service failed", "exception": error})

    def _on_okay(self, message: Message) -> None:
        if message.arg1 in self._streams:
            self._streams[message.arg1][0].acknowledge()
        else:
            self._send(Message(b"CLSE", message.arg1, message.arg0))

    def _on_write(self, message: Message) -> None:
        # For a stream that has just ended: lost, as the client will see from the CLSE under way.
        if message.arg1 in self._streams:
            self._streams[message.arg1][0].deliver(message.payload)

    def _on_close(self, message: Message) -> None:
        if message.arg1 in self._streams:
            self._streams[message.arg1][1].cancel()
