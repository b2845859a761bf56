"""A client that speaks ADB's protocol by hand, so that tests can also speak it wrong."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

TIMEOUT_S = 20.0
HEADER = struct.Struct("<4s5I")
VERSION, OLD_VERSION = 0x01000001, 0x01000000
MAX_DATA = 1 << 20


class Packet(NamedTuple):
    command: bytes
    arg0: int
    arg1: int
    checksum: int
    payload: bytes


def header(command: bytes, arg0: int, arg1: int, payload: bytes, *, checksum: int | None = None) -> bytes:
    total = sum(payload) if checksum is None else checksum
    return HEADER.pack(command, arg0, arg1, len(payload), total, int.from_bytes(command, "little") ^ 0xFFFFFFFF)


class RawClient:
    """One TCP connection to a daemon. EOFError where the daemon hangs up, TimeoutError where it says nothing."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received_bytes = 0
        self._unread = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, command: bytes, arg0: int, arg1: int, payload: bytes = b"") -> None:
        self.socket.sendall(header(command, arg0, arg1, payload) + payload)

    def receive(self, timeout_s: float = TIMEOUT_S) -> Packet:
        self.socket.settimeout(timeout_s)
        command, arg0, arg1, length, checksum, magic = HEADER.unpack(self._take(HEADER.size))
        assert magic == int.from_bytes(command, "little") ^ 0xFFFFFFFF
        return Packet(command, arg0, arg1, checksum, self._take(length))

    def _take(self, count: int) -> bytes:
        taken = bytearray()
        while len(taken) < count:
            try:
                data = self.socket.recv(count - len(taken))
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError(f"the daemon hung up after {self.received_bytes} bytes")
            self.received_bytes += len(data)
            taken += data
        return bytes(taken)

    def hangs_up(self) -> bool:
        """Whether the daemon ends the connection, whatever it says before."""
        try:
            while True:
                self.receive()
        except EOFError:
            return True
        except TimeoutError:
            return False

    def greet(self, *, version: int = VERSION, max_data: int = MAX_DATA) -> Packet:
        self.send(b"CNXN", version, max_data, b"host::\0")
        return self.receive()

    def open(self, service: str, local_id: int = 1) -> int:
        """Opens a service; returns the daemon's id of the stream."""
        self.send(b"OPEN", local_id, 0, service.encode() + b"\0")
        answer = self.receive()
        assert answer.command == b"OKAY", answer
        assert answer.arg1 == local_id
        return answer.arg0

    def write(self, data: bytes, remote_id: int, local_id: int = 1) -> None:
        """One WRTE, and its acknowledgement; data that comes before it is kept for the next read."""
        self.send(b"WRTE", local_id, remote_id, data)
        while (packet := self.receive()).command == b"WRTE":
            self._take_data(packet, remote_id, local_id)
        assert packet[:3] == (b"OKAY", remote_id, local_id), packet

    def read(self, remote_id: int, local_id: int = 1) -> bytes:
        """Data that has come or comes next."""
        if not self._unread:
            self._take_data(self.receive(), remote_id, local_id)
        data, self._unread = self._unread, b""
        return data

    def read_all(self, remote_id: int, local_id: int = 1) -> bytes:
        """All data until the daemon closes the stream."""
        while (packet := self.receive()).command == b"WRTE":
            self._take_data(packet, remote_id, local_id)
        assert packet[:3] == (b"CLSE", remote_id, local_id), packet
        data, self._unread = self._unread, b""
        return data

    def _take_data(self, packet: Packet, remote_id: int, local_id: int) -> None:
        assert packet[:3] == (b"WRTE", remote_id, local_id), packet
        self._unread += packet.payload
        self.send(b"OKAY", local_id, remote_id)

    def run(self, service: str, local_id: int = 1) -> bytes:
        """Opens a service and reads it to its end."""
        return self.read_all(self.open(service, local_id), local_id)


def packets(data: bytes) -> list[tuple[int, bytes]]:
    """The shell protocol's packets, joined while the id stays the same."""
    found: list[tuple[int, bytes]] = []
    while data:
        kind, length = struct.unpack_from("<BI", data)
        content, data = data[5 : 5 + length], data[5 + length :]
        assert len(content) == length
        if found and found[-1][0] == kind:
            found[-1] = kind, found[-1][1] + content
        else:
            found.append((kind, content))
    return found
