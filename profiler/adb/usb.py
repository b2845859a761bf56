"""Phones on USB, through libusb. adb-shell starts it while it is imported, so nothing else here imports this."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adb_shell.transport.base_transport import BaseTransport

from profiler.adb.cable import explained
from profiler.errors import ConnectionLostError, DeviceError


def _usb_transport() -> Any:
    try:
        from adb_shell.transport.usb_transport import UsbTransport
    except Exception as error:  # no usb1, no libusb, or one that does not start: no common kind of exception
        raise DeviceError(
            f"USB does not work here ({error}); install libusb (pip install libusb1; Debian and Ubuntu: sudo apt "
            "install libusb-1.0-0), or reach the phone through an adb server (server:SERIAL)"
        ) from error
    return UsbTransport


def usb_phones() -> Iterator[tuple[str, BaseTransport | DeviceError]]:
    """The USB devices with an ADB interface (class 255, subclass 66, protocol 1): serial number and transport, or why
    it cannot be used. Asks the phones nothing. Raises DeviceError without libusb."""
    for transport in _usb_transport().find_all_adb_devices():
        place = "-".join(map(str, transport.port_path))
        try:
            yield transport.serial_number or place, transport
        except Exception as error:  # usb1.USBError: reading the serial number needs the right to open the device
            reason = explained(error, f"usb:{place}")
            yield place, reason if isinstance(reason, DeviceError) else ConnectionLostError(f"usb:{place}: {reason}")


def usb_transport(serial: str | None) -> BaseTransport:
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
        raise blocked or ConnectionLostError(
            f"no phone {serial or ''} on USB with USB debugging on; check the cable (one that carries data), turn on "
            f"USB debugging in the developer options{'; there is ' + ', '.join(phones) if phones else ''}"
        )
    return found
