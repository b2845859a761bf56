"""Files to and from a phone: ADB's sync service. A stream of messages: four letters, a length (or a time), the data."""

from __future__ import annotations

import contextlib
import stat
import struct
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from netlathe.profiler.errors import ConnectionLostError

HEADER = struct.Struct("<4sI")
DATA_BYTES = 64 * 1024  # a phone refuses longer DATA messages
BLOCK_BYTES = 15 * DATA_BYTES
"""Sent at once, and acknowledged by one answer: with its headers, less than the packet of 1 MiB that phones take."""
SILENCE_S = 30.0
"""Flash that is busy with something else may take seconds to answer."""


class Pipe(Protocol):
    """Bytes to and from one service on the phone. Reads and writes raise TimeoutError, and ConnectionLostError."""

    def read(self, timeout_s: float) -> bytes:
        """The next bytes; none at the end."""

    def write(self, data: bytes, timeout_s: float) -> None:
        """Sends all of the data."""

    def has_input(self) -> bool:
        """Whether `read` returns at once."""

    def close(self) -> None:
        """Ends the service. Raises nothing."""


class RefusedError(Exception):
    """The phone's own reason for not taking or giving a file."""


class _Messages:
    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._held = bytearray()

    def take(self, count: int) -> bytes:
        while len(self._held) < count:
            data = self._pipe.read(SILENCE_S)
            if not data:
                raise ConnectionLostError("the phone ended a transfer halfway; try again")
            self._held += data
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def reply(self) -> tuple[bytes, bytes]:
        """The next message. Raises RefusedError if it says FAIL."""
        kind, length = HEADER.unpack(self.take(HEADER.size))
        content = self.take(length) if kind in (b"DATA", b"FAIL") else b""
        if kind == b"FAIL":
            raise RefusedError(content.decode(errors="replace"))
        if kind not in (b"DATA", b"DONE", b"OKAY"):
            raise RefusedError(f"unknown answer {kind!r}")
        return kind, content


def _message(kind: bytes, content: bytes) -> bytes:
    return HEADER.pack(kind, len(content)) + content


def _blocks(content: bytes, path: str, mode: int) -> Iterator[tuple[int, bytes]]:
    """(bytes of the content, what to send for them): few large blocks, as each may cost a round trip. A small file is
    one block."""
    block = _message(b"SEND", f"{path},{stat.S_IFREG | mode}".encode())
    count = 0
    for start in range(0, len(content), DATA_BYTES):
        if count >= BLOCK_BYTES:
            yield count, block
            block, count = b"", 0
        piece = content[start : start + DATA_BYTES]
        block += _message(b"DATA", piece)
        count += len(piece)
    yield count, block + HEADER.pack(b"DONE", int(time.time()))  # DONE carries the time of modification


def send(pipe: Pipe, content: bytes, path: str, mode: int, on_bytes: Callable[[int], None] | None = None) -> None:
    """Writes a file over a fresh sync service. Raises RefusedError with the phone's reason."""
    # A phone that refuses says so at once, while it is still being sent to, and then closes: the answer is what counts.
    with contextlib.suppress(ConnectionLostError):
        for count, block in _blocks(content, path, mode):
            if pipe.has_input():
                break
            pipe.write(block, SILENCE_S)
            if on_bytes is not None:
                on_bytes(count)
    kind, _ = _Messages(pipe).reply()
    if kind != b"OKAY":
        raise RefusedError(f"unexpected answer {kind!r}")


def receive(pipe: Pipe, path: str) -> bytes:
    """Reads a file over a fresh sync service. Raises RefusedError with the phone's reason."""
    pipe.write(_message(b"RECV", path.encode()), SILENCE_S)
    messages = _Messages(pipe)
    content = bytearray()
    while True:
        kind, piece = messages.reply()
        if kind == b"DONE":
            return bytes(content)
        content += piece
