"""Reader of what a phone's shell sends: standard output, standard error and the exit status.

A shell service's bytes arrive in pieces of any size: a packet is neither a line nor a message.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator
from typing import Protocol

from netlathe.profiler.adb.connection import quote
from netlathe.profiler.errors import DeviceError

STDOUT, STDERR, EXIT = 1, 2, 3
ShellPacket = tuple[int, bytes]
"""(STDOUT, bytes), (STDERR, bytes), and last (EXIT, one byte)."""

HEADER = struct.Struct("<BI")  # id, length of what follows


class ShellCommand(Protocol):
    """One command: the service to open for it, and the reader of what the service answers."""

    service: str

    def feed(self, data: bytes) -> Iterator[ShellPacket]:
        """Takes the next bytes; yields what is complete."""


class ShellV2:
    """Android 7 and newer: packets of id, length, data; the exit status is a packet of its own."""

    def __init__(self, command: str) -> None:
        self.service = f"shell,v2,raw:{command}"
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[ShellPacket]:
        self._held += data
        while len(self._held) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._held)
            if kind not in (STDOUT, STDERR, EXIT) or (kind == EXIT and length != 1):
                raise DeviceError(f"the phone's shell sent a packet of kind {kind} and {length} bytes: not shell v2")
            end = HEADER.size + length
            if len(self._held) < end:
                return
            content = bytes(self._held[HEADER.size : end])
            del self._held[:end]
            yield kind, content


class MarkedShell:
    """Older phones: the plain shell, which merges both outputs and has no exit status, so the status is printed behind
    a random marker. Such a phone's shell writes to a terminal, which ends lines with CR LF: the CR is dropped.
    """

    def __init__(self, command: str, token: str | None = None) -> None:
        marker = f"netlathe-{token or secrets.token_hex(8)}-rc="
        # eval in a subshell: neither `exit` nor a syntax error keeps the marker from being printed
        self.service = f'shell:(eval {quote(command)}) 2>&1; echo "{marker}$?"'
        self._marker = marker.encode()
        self._held = b""

    def feed(self, data: bytes) -> Iterator[ShellPacket]:
        self._held = (self._held + data).replace(b"\r\n", b"\n")
        output, found, status = self._held.partition(self._marker)
        if not found:
            keep = self._unclear(output)
            output, self._held = output[: len(output) - keep], output[len(output) - keep :]
        else:
            self._held = found + status
        if output:
            yield STDOUT, output
        code, complete, _ = status.partition(b"\n")
        if complete:
            yield EXIT, bytes([int(code)])

    def _unclear(self, output: bytes) -> int:
        """Number of bytes at the end that may turn out to be a marker's beginning, or half a line end."""
        if output.endswith(b"\r"):
            return 1
        fitting = (size for size in range(len(self._marker) - 1, 0, -1) if output.endswith(self._marker[:size]))
        return next(fitting, 0)
