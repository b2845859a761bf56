"""Phones on USB, through libusb. libusb starts with the first context, so nothing else here imports usb1."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from adb_shell.transport.base_transport import BaseTransport

from netlathe.profiler.adb.cable import explained
from netlathe.profiler.errors import ConnectionLostError, DeviceError

if TYPE_CHECKING:
    import usb1

ADB_INTERFACE = (0xFF, 0x42, 0x01)
"""Class, subclass and protocol of Android's debug bridge."""

PATIENCE_S = 0.2
"""Longest single call of libusb, which does not return on Ctrl-C."""

DRAIN_BYTES = 16 * 1024
"""A multiple of every packet size, so that no packet is larger than what is left of the buffer."""
QUIET_S = 0.05
"""Silence after which nothing of an earlier program is in the pipe any more."""

MOST_HALTS = 3
"""Halts in a row of one endpoint that are borne."""

T = TypeVar("T")


class UsbTransport(BaseTransport):  # type: ignore[misc]
    """A transport of adb-shell over the ADB interface of a USB device.

    A phone's adbd reads its endpoint in transfers of 16 KiB, each of which ends when it is full or at a packet that is
    not. So what is sent in full packets needs an empty one behind it, or adbd waits on and takes the next header for
    the rest of it. All times are in seconds. Raises TimeoutError, usb1.USBError.
    """

    def __init__(self, device: usb1.USBDevice, setting: usb1.USBInterfaceSetting) -> None:
        self._device, self._interface = device, setting.getNumber()
        sizes = {point.getAddress(): point.getMaxPacketSize() for point in setting.iterEndpoints()}
        self._in = next(address for address in sizes if address & 0x80)
        self._out = next(address for address in sizes if not address & 0x80)
        self._packet_bytes = sizes[self._out]
        self._handle: usb1.USBDeviceHandle | None = None

    @property
    def place(self) -> str:
        """Bus and ports that lead to the device."""
        return "-".join(map(str, (self._device.getBusNumber(), *self._device.getPortNumberList())))

    @property
    def serial_number(self) -> str:
        """Serial number of the device; its place where it has none. Reading it opens the device for a moment."""
        return self._device.getSerialNumber() or self.place

    def connect(self, transport_timeout_s: float | None) -> None:
        """Claims the interface, and throws away what is still in its pipe."""
        self._claim()
        try:
            self._drain(_deadline(transport_timeout_s))
        except BaseException:
            self.close()
            raise

    def _claim(self) -> None:
        """Away from a kernel driver if need be, but from no program."""
        import usb1

        self.close()
        self._handle = handle = self._device.open()
        try:
            with contextlib.suppress(usb1.USBErrorNotFound, usb1.USBErrorNotSupported):  # as on Windows and macOS
                if handle.kernelDriverActive(self._interface):
                    handle.detachKernelDriver(self._interface)
            handle.claimInterface(self._interface)
        except BaseException:
            self.close()
            raise

    def _drain(self, deadline: float) -> None:
        """A phone still delivers what it had to say to a program that was killed."""
        import usb1

        with contextlib.suppress(TimeoutError):
            while time.monotonic() < deadline:
                with contextlib.suppress(usb1.USBErrorOverflow):
                    self.bulk_read(DRAIN_BYTES, QUIET_S)

    def reset(self) -> None:
        """Resets the device, unless another program uses it."""
        self._claim()
        try:
            self._opened().resetDevice()
        finally:
            self.close()

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        """Receives at most `numbytes`, of one transfer of the phone; may be empty."""
        handle, endpoint = self._opened(), self._in
        data: bytearray = self._transfer(
            lambda limit_ms: handle.bulkRead(endpoint, numbytes, limit_ms),
            endpoint,
            _deadline(transport_timeout_s),
            lambda timeout: timeout.received,
        )
        return bytes(data)

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        """Sends all bytes, so that the phone sees where they end."""
        deadline = _deadline(transport_timeout_s)
        sent = 0
        while sent < len(data):
            sent += self._write(data[sent:], deadline)  # a call that its time limit ends stops between two packets
        if data and len(data) % self._packet_bytes == 0:
            self._write(b"", deadline)
        return len(data)

    def _write(self, data: bytes, deadline: float) -> int:
        handle, endpoint = self._opened(), self._out
        sent: int = self._transfer(
            lambda limit_ms: handle.bulkWrite(endpoint, data, limit_ms),
            endpoint,
            deadline,
            lambda timeout: timeout.transferred,
        )
        return sent

    def _transfer(
        self, call: Callable[[int], T], endpoint: int, deadline: float, part: Callable[[usb1.USBErrorTimeout], T]
    ) -> T:
        """Result of `call`, in calls of at most PATIENCE_S; `part` is what one that timed out has got done.

        An endpoint that the phone has halted is cleared: ADB's lengths and checksums show where anything got lost.
        """
        import usb1

        halts = 0
        while True:
            left_s = deadline - time.monotonic()
            try:
                return call(max(1, math.ceil(1e3 * min(PATIENCE_S, left_s))))  # 0 would be for ever
            except usb1.USBErrorTimeout as timeout:
                if done := part(timeout):
                    return done
            except usb1.USBErrorPipe:
                halts += 1
                if halts > MOST_HALTS:
                    raise
                self._opened().clearHalt(endpoint)
            if time.monotonic() >= deadline:
                raise TimeoutError("the phone is silent")

    def _opened(self) -> usb1.USBDeviceHandle:
        if self._handle is None:
            raise ConnectionResetError("not connected")
        return self._handle

    def close(self) -> None:
        import usb1

        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(usb1.USBError):  # one that is gone, or was never claimed
                handle.releaseInterface(self._interface)
            handle.close()


def _deadline(timeout_s: float | None) -> float:
    return math.inf if timeout_s is None else time.monotonic() + timeout_s


def _context() -> usb1.USBContext:
    """A fresh view of what is plugged in. One that is kept learns of changes through udev, which containers lack."""
    try:
        import usb1

        return usb1.USBContext().open()
    except Exception as error:  # no usb1, no libusb, or one that does not start: no common kind of exception
        raise DeviceError(
            f"USB does not work here ({error}); install libusb (pip install libusb1; Debian and Ubuntu: sudo apt "
            "install libusb-1.0-0), or reach the phone through an adb server (server:SERIAL)"
        ) from error


def usb_phones() -> Iterator[tuple[str, UsbTransport | DeviceError]]:
    """The USB devices with an ADB interface, by their places: serial number and transport, or why it cannot be used.
    Asks the phones nothing. Raises DeviceError without libusb."""
    devices = _context().getDeviceIterator(skip_on_error=True)
    for device in sorted(devices, key=lambda one: (one.getBusNumber(), *one.getPortNumberList())):
        setting = next((one for one in device.iterSettings() if _is_adb(one)), None)
        if setting is None:
            continue
        transport = UsbTransport(device, setting)
        try:
            yield transport.serial_number, transport
        except Exception as error:  # usb1.USBError: reading the serial number needs the right to open the device
            place = transport.place
            reason = explained(error, f"usb:{place}")
            yield place, reason if isinstance(reason, DeviceError) else ConnectionLostError(f"usb:{place}: {reason}")


def _is_adb(setting: usb1.USBInterfaceSetting) -> bool:
    kind = (setting.getClass(), setting.getSubClass(), setting.getProtocol())
    return kind == ADB_INTERFACE and len({point.getAddress() & 0x80 for point in setting.iterEndpoints()}) == 2


def usb_transport(serial: str | None) -> UsbTransport:
    """The USB transport to the phone with this serial number, None for the only one. Raises DeviceError."""
    phones = dict(usb_phones())
    if serial is None and len(phones) == 1:
        (serial,) = phones
    if serial is None and phones:
        raise DeviceError(f"several phones on USB; name one: {', '.join(f'usb:{name}' for name in phones)}")
    found = phones.get(serial or "")
    if isinstance(found, DeviceError):
        raise found
    if found is None:
        blocked = next((phone for phone in phones.values() if isinstance(phone, DeviceError)), None)
        wanted = f"phone {serial}" if serial else "phone"
        raise blocked or ConnectionLostError(
            f"no {wanted} on USB with USB debugging on; check the cable (one that carries data), turn on USB debugging "
            f"in the developer options, see `netlathe devices`{'; there is ' + ', '.join(phones) if phones else ''}"
        )
    return found
