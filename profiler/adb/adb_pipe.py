"""One service on the phone as a pipe, over adb-shell.

The only place that uses what adb-shell 0.4.4 keeps to itself (the packet reader and the limit of a packet). In public
it offers neither exit statuses nor a way to end a command early; it waits for the whole timeout when the phone refuses
a service, and drops the reason that a phone gives for refusing a file while it is still being sent.
"""

from __future__ import annotations

import contextlib
from collections import deque
from itertools import count

from adb_shell import constants, exceptions
from adb_shell.adb_device import AdbDevice
from adb_shell.adb_message import AdbMessage
from adb_shell.hidden_helpers import _AdbTransactionInfo

from netlathe.profiler.adb.cable import Cable
from netlathe.profiler.errors import ConnectionLostError, DeviceError

GARBLED = (exceptions.InvalidCommandError, exceptions.InvalidChecksumError, exceptions.InvalidResponseError)
FOREVER_S = 1e6  # the cable keeps the time
GOODBYE_S = 2.0

_numbers = count(1)  # of streams: unique in this process, which is more than enough


class AdbPipe:
    """A service that runs on a connected phone. Raises DeviceError if the phone does not have it, TimeoutError."""

    def __init__(self, device: AdbDevice, cable: Cable, service: str, timeout_s: float) -> None:
        self._packets = device._io_manager
        self._cable = cable
        self._largest = device._maxdata
        self._info = _AdbTransactionInfo(next(_numbers) % 2**32, None, None, FOREVER_S)
        self._received: deque[bytes] = deque()
        self._is_over = False
        name = service.encode() + b"\0"
        if len(name) > self._largest:
            raise DeviceError(
                f"this phone takes commands of at most {self._largest:,} bytes, not {len(name):,}: "
                "push the command as a file and run `sh FILE`"
            )
        cable.allow(timeout_s)
        self._packets.send(AdbMessage(constants.OPEN, self._info.local_id, 0, name), self._info)
        answer, self._info.remote_id, _ = self._next([constants.OKAY, constants.CLSE])
        if answer == constants.CLSE:
            self._is_over = True
            raise DeviceError(f"the phone refuses the service {service[:40]!r}")

    def read(self, timeout_s: float) -> bytes:
        """The next packet's data; none at the end."""
        while not self._received and not self._is_over:
            self._receive(timeout_s)
        return self._received.popleft() if self._received else b""

    def write(self, data: bytes, timeout_s: float) -> None:
        """Sends all of the data, in packets that the phone acknowledges one by one. Nothing once the phone has ended
        the service."""
        for start in range(0, len(data), self._largest):
            if self._is_over:
                return
            self._send(constants.WRTE, timeout_s, data[start : start + self._largest])
            while not self._is_over and self._receive(timeout_s) != constants.OKAY:
                pass

    def has_input(self) -> bool:
        """Whether the phone has said something, or ended the service, while data was sent to it."""
        return bool(self._received) or self._is_over

    def close(self) -> None:
        """Tells the phone to end the service, which hangs up a command."""
        if self._is_over or self._cable.is_broken:
            return
        self._is_over = True
        with contextlib.suppress(DeviceError, TimeoutError):  # then the cable is broken, which ends the service as well
            self._send(constants.CLSE, GOODBYE_S)

    def _send(self, command: bytes, timeout_s: float, data: bytes = b"") -> None:
        self._cable.allow(timeout_s)
        self._packets.send(AdbMessage(command, self._info.local_id, self._info.remote_id, data), self._info)

    def _receive(self, timeout_s: float) -> bytes:
        self._cable.allow(timeout_s)
        # some phones close with a zero instead of the stream's number
        command, _, data = self._next([constants.OKAY, constants.WRTE, constants.CLSE], allow_zeros=True)
        if command == constants.WRTE:
            self._send(constants.OKAY, timeout_s)
            self._received.append(data)
        elif command == constants.CLSE:
            self._is_over = True
        return command

    def _next(self, expected: list[bytes], allow_zeros: bool = False) -> tuple[bytes, int, bytes]:
        try:
            command, remote_id, _, data = self._packets.read(expected, self._info, allow_zeros=allow_zeros)
        except GARBLED as error:
            self._cable.close()
            raise ConnectionLostError(
                f"the phone sent nonsense ({error}); check the cable and connect again"
            ) from error
        return command, remote_id, data
