"""TCP for adb-shell, whose own transport waits 40 ms per message, loses what one send leaves over, and takes the end of
the stream for a pause."""

from __future__ import annotations

import socket

from adb_shell.transport.base_transport import BaseTransport


class SocketTransport(BaseTransport):  # type: ignore[misc]
    """All times are in seconds. Raises OSError: TimeoutError, or what the socket says."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._socket: socket.socket | None = None

    def connect(self, transport_timeout_s: float | None) -> None:
        self.close()
        self._socket = socket.create_connection(self._place, timeout=transport_timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _ready(self, timeout_s: float | None) -> socket.socket:
        if self._socket is None:
            raise ConnectionResetError("not connected")
        self._socket.settimeout(timeout_s)
        return self._socket

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        """Receives at least one byte, at most `numbytes`."""
        data = self._ready(transport_timeout_s).recv(numbytes)
        if not data:
            raise ConnectionResetError("the phone closed the connection")
        return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        """Sends all bytes."""
        self._ready(transport_timeout_s).sendall(data)
        return len(data)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
