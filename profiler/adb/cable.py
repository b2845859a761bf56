"""A transport of adb-shell, USB or TCP, that keeps deadlines, speaks in our errors, and remembers the greeting."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import TypeVar

from adb_shell.transport.base_transport import BaseTransport

from netlathe.profiler.adb.connection import PhoneStateError, no_permission
from netlathe.profiler.errors import ConnectionLostError, DeviceError

MESSAGE = struct.Struct("<6I")  # command, two arguments, length of the data, checksum, magic
CNXN = int.from_bytes(b"CNXN", "little")
GONE = ("USBErrorNoDevice", "USBErrorNotFound")

T = TypeVar("T")


class DisturbedError(ConnectionLostError):
    """A transfer that failed over a USB cable that is still there, as leftovers of another program make it fail."""


class Cable(BaseTransport):  # type: ignore[misc]
    """Wraps a transport. `is_broken` once anything failed: half a message may be lost, so that only a new one helps."""

    def __init__(self, transport: BaseTransport, address: str) -> None:
        self._transport = transport
        self._address = address
        self._deadline: float | None = None
        self._greeting: bytearray | None = None
        self.is_broken = True
        self.has_connected = False
        """Whether something took the connection at all, phone or not."""

    def allow(self, timeout_s: float) -> None:
        """All that is read and written until the next call has to be done in so many seconds, or TimeoutError."""
        self._deadline = time.monotonic() + timeout_s

    def connect(self, transport_timeout_s: float | None) -> None:
        """Starts to listen to the greeting."""
        self._deadline = None
        self._greeting = bytearray()
        self.is_broken = False
        self._watch(lambda _: self._transport.connect(transport_timeout_s), transport_timeout_s)
        self.has_connected = True

    def heard(self) -> bytes:
        """All of the greeting so far."""
        return bytes(self._greeting or b"")

    def features(self) -> frozenset[str]:
        """Features of the phone: the words behind features= in its greeting, to which this listens no more.

        adb-shell reads the greeting and throws it away, so it is taken from the bytes that pass by.
        """
        heard = self.heard()
        self._greeting = None
        while len(heard) >= MESSAGE.size:
            command, _, _, length, _, _ = MESSAGE.unpack_from(heard)
            content, heard = heard[MESSAGE.size :][:length], heard[MESSAGE.size + length :]
            if command == CNXN:
                properties = content.decode(errors="replace").strip("\0").rpartition("::")[2].split(";")
                words = [value.removeprefix("features=") for value in properties if value.startswith("features=")]
                return frozenset(",".join(words).split(","))
        return frozenset()

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        data: bytes = self._watch(lambda limit_s: self._transport.bulk_read(numbytes, limit_s), transport_timeout_s)
        if self._greeting is not None:
            self._greeting += data
        return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        size: int = self._watch(lambda limit_s: self._transport.bulk_write(data, limit_s), transport_timeout_s)
        return size

    def close(self) -> None:
        self.is_broken = True
        self._transport.close()

    def _watch(self, action: Callable[[float | None], T], timeout_s: float | None) -> T:
        if self.is_broken:
            raise ConnectionLostError(f"{self._address} is not connected any more; connect again")
        if self._deadline is not None:
            left_s = self._deadline - time.monotonic()
            timeout_s = left_s if timeout_s is None else min(timeout_s, left_s)
        try:
            if timeout_s is not None and timeout_s <= 0:
                raise TimeoutError("the time is up")
            return action(timeout_s)
        except BaseException as error:  # Ctrl-C in the middle of a message breaks the framing, too
            self.is_broken = True
            if isinstance(error, OSError) or _is_usb_error(error):
                raise explained(error, self._address) from error
            raise


def _is_usb_error(error: BaseException) -> bool:
    # by name, because usb1 is not there for those who only use TCP
    return any(base.__name__ == "USBError" for base in type(error).__mro__)


def explained(error: BaseException, address: str) -> DeviceError | TimeoutError:
    """A transport's exception as one of ours, with what to do; TimeoutError stays, for it may be a silent command."""
    name = type(error).__name__
    if isinstance(error, TimeoutError) or name == "USBErrorTimeout":
        return TimeoutError(str(error))
    if name == "USBErrorBusy":
        return PhoneStateError(
            "busy",
            f"{address} is in use by another program, most likely an adb server: stop it (adb kill-server), or go "
            "through it (--device server:SERIAL); it may be another netlathe, too",
        )
    if name == "USBErrorAccess":
        return no_permission(address)
    if isinstance(error, ConnectionRefusedError):
        return ConnectionLostError(
            f"nothing answers at {address}: is the phone on, in this network, and listening "
            "(adb tcpip 5555, once, over its cable)?"
        )
    kind = DisturbedError if name.startswith("USBError") and name not in GONE else ConnectionLostError
    return kind(f"lost {address}: {str(error) or name}; check the cable or network and connect again")
