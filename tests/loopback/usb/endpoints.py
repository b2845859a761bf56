"""The two bulk endpoints of a phone's ADB interface, packet by packet."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable

READ_BYTES = 16 * 1024
"""What adbd asks of its endpoint in one transfer."""


class OutEndpoint:
    """What comes from the host, as adbd's reads see it: each ends when it is full, or at a packet that is not."""

    def __init__(self, packet_bytes: int, deliver: Callable[[bytes], None]) -> None:
        self._packet_bytes, self._deliver = packet_bytes, deliver
        self._read = bytearray()

    def receive(self, data: bytes) -> None:
        """The packets of one transfer of the host."""
        self._read += data
        while len(self._read) >= READ_BYTES:
            self._end(READ_BYTES)
        if not data or len(data) % self._packet_bytes:
            self._end(len(self._read))

    def _end(self, count: int) -> None:
        block = bytes(self._read[:count])
        del self._read[:count]
        if block:  # adbd passes over empty reads
            self._deliver(block)

    def clear(self) -> None:
        self._read.clear()


class Transfer:
    """One transfer that the host has asked of the phone. It ends when it is full, or at a packet that is not."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.data = bytearray()
        self.status: int | None = None
        """0, or a negative errno; None while it goes on."""


class InEndpoint:
    """What goes to the host. Packets wait here until somebody fetches them, whoever they were for."""

    def __init__(self, packet_bytes: int) -> None:
        self._packet_bytes = packet_bytes
        self._packets: deque[bytes] = deque()

    @property
    def waiting_bytes(self) -> int:
        return sum(map(len, self._packets))

    def send(self, data: bytes) -> None:
        """One transfer of adbd, which sends no empty packets."""
        size = self._packet_bytes
        self._packets.extend(data[start : start + size] for start in range(0, len(data), size))

    def fill(self, transfer: Transfer) -> None:
        """Gives the transfer what there is. A packet that is larger than what is left of it ends it, and is lost."""
        while self._packets and transfer.status is None:
            packet = self._packets.popleft()
            if len(transfer.data) + len(packet) > transfer.length:
                transfer.status = -errno.EOVERFLOW
                return
            transfer.data += packet
            if len(packet) < self._packet_bytes or len(transfer.data) == transfer.length:
                transfer.status = 0

    def clear(self) -> None:
        self._packets.clear()
