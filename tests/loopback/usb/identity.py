"""What a phone tells of itself on USB: descriptors and strings."""

from __future__ import annotations

import struct
from dataclasses import dataclass

IN_ENDPOINT, OUT_ENDPOINT = 0x81, 0x01
GET_DESCRIPTOR, STRING = 6, 3
ENGLISH = 0x0409

SPEEDS = {64: "12", 512: "480", 1024: "5000"}
"""Megabits per second, as sysfs says them, by the size of bulk packets."""


@dataclass(frozen=True)
class Identity:
    """A device with an ADB interface, which `kernel_driver` holds at first; `has_pictures`: behind one for pictures."""

    serial: str
    packet_bytes: int = 512
    has_pictures: bool = False
    kernel_driver: str = ""

    @property
    def adb_interface(self) -> int:
        return int(self.has_pictures)

    @property
    def interfaces(self) -> range:
        return range(self.adb_interface + 1)

    @property
    def descriptors(self) -> bytes:
        """The device's, then its configuration's, as sysfs has them."""
        version, packet0 = (0x300, 9) if self.packet_bytes == 1024 else (0x200, 64)
        device = struct.pack("<BBHBBBBHHHBBBB", 18, 1, version, 0, 0, 0, packet0, 0x18D1, 0x4EE7, 0x440, 1, 2, 3, 1)
        parts = b""
        if self.has_pictures:
            parts += struct.pack("<9B", 9, 4, 0, 0, 3, 6, 1, 1, 0)
            parts += self._endpoint(0x82, 2) + self._endpoint(0x02, 2) + self._endpoint(0x83, 3)
        parts += struct.pack("<9B", 9, 4, self.adb_interface, 0, 2, 0xFF, 0x42, 1, 0)
        parts += self._endpoint(IN_ENDPOINT, 2) + self._endpoint(OUT_ENDPOINT, 2)
        count = len(self.interfaces)
        return device + struct.pack("<BBHBBBBB", 9, 2, 9 + len(parts), count, 1, 0, 0x80, 250) + parts

    def _endpoint(self, address: int, kind: int) -> bytes:
        size = 28 if kind == 3 else self.packet_bytes
        companion = struct.pack("<BBBBH", 6, 0x30, 0, 0, 0) if self.packet_bytes == 1024 else b""
        return struct.pack("<BBBBHB", 7, 5, address, kind, size, 6 if kind == 3 else 0) + companion

    def answer(self, setup: bytes) -> bytes | None:
        """The data for a control request, None where it is refused."""
        _, request, value, _, length = struct.unpack("<BBHHH", setup)
        if request != GET_DESCRIPTOR or value >> 8 != STRING:
            return None
        texts = ["", "Google", "Pixel 8", self.serial]
        index = value & 0xFF
        if index >= len(texts):
            return None
        content = texts[index].encode("utf-16-le") if index else struct.pack("<H", ENGLISH)
        return (bytes((len(content) + 2, STRING)) + content)[:length]
