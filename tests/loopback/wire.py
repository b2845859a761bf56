"""ADB's messages: a header of 24 bytes (little-endian) and a payload."""

from __future__ import annotations

import asyncio
import struct
from typing import NamedTuple

import numpy as np

VERSION_WITH_CHECKSUMS = 0x01000000
VERSION_WITHOUT_CHECKSUMS = 0x01000001
MAX_PAYLOAD_BYTES = 1 << 20

# Command, two arguments, length and checksum of the payload, command with all bits flipped.
HEADER = struct.Struct("<4s4I4s")
MAGIC = {
    command: bytes(byte ^ 0xFF for byte in command)
    for command in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE")
}


class ProtocolError(Exception):
    """The other side broke the protocol; the connection cannot go on."""


class Message(NamedTuple):
    command: bytes
    arg0: int
    arg1: int
    payload: bytes = b""


def checksum(payload: bytes) -> int:
    """The sum of all bytes, modulo 2^32 (the protocol's "data_crc32" is none)."""
    return int(np.frombuffer(payload, np.uint8).sum(dtype=np.uint32))


def pack(message: Message, *, with_checksum: bool) -> bytes:
    command, arg0, arg1, payload = message
    total = checksum(payload) if with_checksum else 0
    return HEADER.pack(command, arg0, arg1, len(payload), total, MAGIC[command]) + payload


async def read_message(reader: asyncio.StreamReader, *, with_checksum: bool) -> Message:
    """The next message; ProtocolError for a bad one, IncompleteReadError where the stream ends."""
    command, arg0, arg1, length, total, magic = HEADER.unpack(await reader.readexactly(HEADER.size))
    if MAGIC.get(command) != magic:
        raise ProtocolError(f"bad header: command {command!r}, magic {magic!r}")
    if length > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"payload of {length} bytes")
    payload = await reader.readexactly(length)
    if with_checksum and total != checksum(payload):
        raise ProtocolError(f"checksum {total:#x} of {command!r}, not {checksum(payload):#x}")
    return Message(command, arg0, arg1, payload)
