"""The same phone on USB where there is no preload library: in place of usb1's devices and handles, under netlathe's own
transport."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import usb1

from .endpoints import Transfer
from .function import AdbFunction
from .identity import IN_ENDPOINT, OUT_ENDPOINT

ERRORS = {errno.EOVERFLOW: usb1.USBErrorOverflow, errno.EPIPE: usb1.USBErrorPipe}


class UsbDevice:
    """A device with an ADB interface and nothing else, with what netlathe's transport asks of usb1's.

    `serial` may be the error that asking for it raises. Whenever the daemon hangs up, the device is gone; it can be
    opened anew while `is_plugged` says so.
    """

    def __init__(
        self,
        serial: str | Exception,
        port: int = 1,
        packet_bytes: int = 512,
        is_plugged: Callable[[], bool] = lambda: True,
    ) -> None:
        self.serial, self.is_plugged = serial, is_plugged
        self.function = AdbFunction(port, packet_bytes)
        self.function.on_lost = self.unplug
        self.times_unplugged = 0
        self.holder: Handle | None = None
        self.halted: set[int] = set()
        self.changed = threading.Condition(self.function.lock)
        self.function.on_change = self.changed.notify_all
        self._packet_bytes = packet_bytes

    def iterSettings(self) -> Iterator[SimpleNamespace]:
        endpoints = [
            SimpleNamespace(getAddress=lambda address=address: address, getMaxPacketSize=lambda: self._packet_bytes)
            for address in (IN_ENDPOINT, OUT_ENDPOINT)
        ]
        yield SimpleNamespace(
            getClass=lambda: 0xFF, getSubClass=lambda: 0x42, getProtocol=lambda: 1, getNumber=lambda: 0,
            iterEndpoints=lambda: iter(endpoints),
        )  # fmt: skip

    def getBusNumber(self) -> int:
        return 1

    def getPortNumberList(self) -> list[int]:
        return [4, 2]

    def getSerialNumber(self) -> str:
        if isinstance(self.serial, Exception):
            raise self.serial
        return self.serial

    def open(self) -> Handle:
        if not self.is_plugged():
            raise usb1.USBErrorNoDevice
        return Handle(self)

    def unplug(self) -> None:
        with self.changed:
            self.times_unplugged += 1
            self.holder = None
            self.function.reset()
            self.changed.notify_all()


class Handle:
    """An open device, as usb1.USBDeviceHandle."""

    def __init__(self, device: UsbDevice) -> None:
        self._device = device
        self._times_unplugged = device.times_unplugged

    def kernelDriverActive(self, interface: int) -> bool:
        return False

    def claimInterface(self, interface: int) -> None:
        if self._device.holder not in (None, self):
            raise usb1.USBErrorBusy
        self._device.holder = self

    def releaseInterface(self, interface: int) -> None:
        if self._device.holder is not self:
            raise usb1.USBErrorNotFound
        self._device.holder = None

    def close(self) -> None:
        if self._device.holder is self:
            self._device.holder = None

    def resetDevice(self) -> None:
        with self._device.changed:
            self._device.function.reset()

    def clearHalt(self, endpoint: int) -> None:
        self._device.halted.discard(endpoint)

    def bulkRead(self, endpoint: int, length: int, timeout_ms: int) -> bytearray:
        transfer = Transfer(length)

        def is_over() -> bool:
            self._device.function.inward.fill(transfer)
            self._device.function.taken()
            return transfer.status is not None

        if not self._wait(endpoint, is_over, timeout_ms):
            timeout = usb1.USBErrorTimeout()
            timeout.received = transfer.data
            raise timeout
        if transfer.status:
            raise ERRORS[-transfer.status]
        return transfer.data

    def bulkWrite(self, endpoint: int, data: bytes, timeout_ms: int) -> int:
        function = self._device.function
        if not self._wait(endpoint, lambda: function.accepts, timeout_ms):
            timeout = usb1.USBErrorTimeout()
            timeout.transferred = 0
            raise timeout
        with function.lock:
            function.receive(data)
        return len(data)

    def _wait(self, endpoint: int, condition, timeout_ms: int) -> bool:
        assert timeout_ms > 0, "zero would wait for ever"
        deadline = time.monotonic() + timeout_ms / 1e3
        with self._device.changed:
            while True:
                if self._device.times_unplugged > self._times_unplugged:
                    raise usb1.USBErrorNoDevice
                if endpoint in self._device.halted:
                    raise usb1.USBErrorPipe
                if condition():
                    return True
                if not self._device.changed.wait(max(0.0, deadline - time.monotonic())):
                    return False
