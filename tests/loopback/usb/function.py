"""adbd's side of the USB interface: messages out of reads, each CNXN a new connection to the daemon."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from ..wire import HEADER
from .endpoints import InEndpoint, OutEndpoint

PIPE_BYTES = 1 << 18
"""So much lies in either direction before the sender has to wait."""


class AdbFunction:
    """Both endpoints, bridged to `port` on 127.0.0.1. Threads call in under `lock`; `on_change` tells the host's side
    that transfers may go on, `on_lost` that the daemon is gone: its cable was pulled, or the phone has rebooted.

    Real adbd demands that a header is one read, and the payload's reads add up to its length; where they do not, it
    hangs up and listens to nothing but a new CNXN.
    """

    def __init__(self, port: int, packet_bytes: int) -> None:
        self.port = port
        self.lock = threading.RLock()
        self.on_change: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self.inward = InEndpoint(packet_bytes)
        self.hang_ups = 0
        """How often adbd was sent what it does not understand."""
        self.sizes_to_phone: set[int] = set()
        """Of the payloads that adbd has understood, and those that it has sent, in bytes."""
        self.sizes_to_host: set[int] = set()
        self._outward = OutEndpoint(packet_bytes, self._read)
        self._changed = threading.Condition(self.lock)
        self._header = b""
        self._payload = bytearray()
        self._socket: socket.socket | None = None
        self._unsent = bytearray()

    @property
    def accepts(self) -> bool:
        """Whether adbd reads."""
        return len(self._unsent) < PIPE_BYTES

    def receive(self, data: bytes) -> None:
        """The packets of one transfer of the host."""
        self._outward.receive(data)

    def reset(self) -> None:
        """The bus was reset: adbd starts anew."""
        self._hang_up()
        self._outward.clear()
        self.inward.clear()

    def close(self) -> None:
        with self.lock:
            self._hang_up()

    def taken(self) -> None:
        """The host has fetched something."""
        self._changed.notify_all()

    # From the host to the daemon

    def _read(self, block: bytes) -> None:
        if not self._header:
            if len(block) != HEADER.size:
                self._misread()
                return
            self._header = block
        else:
            self._payload += block
        missing = HEADER.unpack(self._header)[3] - len(self._payload)
        if missing < 0:
            self._misread()
        elif not missing:
            message = self._header + bytes(self._payload)
            self.sizes_to_phone.add(len(self._payload))
            self._header = b""
            self._payload.clear()
            self._pass_on(message)

    def _misread(self) -> None:
        self.hang_ups += 1
        self._hang_up()

    def _pass_on(self, message: bytes) -> None:
        if message.startswith(b"CNXN"):
            self._hang_up()
            self._connect()
        if self._socket is not None:
            self._unsent += message
            self._changed.notify_all()

    def _connect(self) -> None:
        with contextlib.suppress(OSError):  # a daemon that is away does not answer
            self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=10)
            self._socket.settimeout(None)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for work in (self._write_to_daemon, self._read_from_daemon):
                threading.Thread(target=work, args=(self._socket,), daemon=True).start()

    def _hang_up(self) -> None:
        self._header = b""
        self._payload.clear()
        self._unsent.clear()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self._socket = None
        self._changed.notify_all()

    def _write_to_daemon(self, sock: socket.socket) -> None:
        while True:
            with self.lock:
                while self._socket is sock and not self._unsent:
                    self._changed.wait()
                if self._socket is not sock:
                    return
                data = bytes(self._unsent)
            try:
                sock.sendall(data)
            except OSError:
                return
            with self.lock:
                if self._socket is sock:
                    del self._unsent[: len(data)]
                    self.on_change()

    # From the daemon to the host

    def _read_from_daemon(self, sock: socket.socket) -> None:
        stream = sock.makefile("rb")
        with contextlib.suppress(OSError, ValueError):
            while len(header := stream.read(HEADER.size)) == HEADER.size:
                payload = stream.read(HEADER.unpack(header)[3])
                with self.lock:
                    while self._socket is sock and self.inward.waiting_bytes > PIPE_BYTES:
                        self._changed.wait()
                    if self._socket is not sock:
                        return
                    self.inward.send(header)
                    self.inward.send(payload)
                    self.sizes_to_host.add(len(payload))
                    self.on_change()
        with self.lock:
            is_lost = self._socket is sock
        if is_lost:
            self.on_lost()
