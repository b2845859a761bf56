"""Phones as members of a pool, and which of them hang on one USB controller."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from netlathe.profiler.adb.address import parse_address
from netlathe.profiler.device import Device, Report
from netlathe.profiler.devices import DeviceOptions, open_device

NETWORK = "network"


@dataclass(frozen=True)
class PhoneMember:
    """A phone, or any other device that open_device knows by name."""

    name: str
    options: DeviceOptions

    def open(self, report: Report) -> AbstractContextManager[Device]:
        return open_device(self.name, self.options, report=report)


def controllers(addresses: Iterable[str]) -> dict[str, str]:
    """Name by address of what a phone shares with others: its USB controller, the adb server, or the network.

    Two root hubs of one controller, as of USB 2 and 3, are one. A phone on USB that is not there now is its own.
    """
    found: dict[str, str] = {}
    buses: dict[str, int] | None = None
    for address in addresses:
        place = parse_address(address)
        if place.kind == "tcp":
            found[address] = NETWORK
        elif place.kind == "server":
            found[address] = place.way
        else:
            buses = _buses() if buses is None else buses
            bus = buses.get(place.serial or "")
            found[address] = address if bus is None else controller_of(bus)
    return found


def _buses() -> dict[str, int]:
    """Number of the USB bus by serial number."""
    # Here, because adb-shell starts libusb while it is imported.
    from netlathe.profiler.adb.usb import UsbTransport, usb_phones

    return {
        serial: int(transport.place.partition("-")[0])
        for serial, transport in usb_phones()
        if isinstance(transport, UsbTransport)
    }


def controller_of(bus: int, devices: Path = Path("/sys/bus/usb/devices")) -> str:
    """The controller of a USB bus, as Linux names it; elsewhere the bus, which is one controller's."""
    hub = devices / f"usb{bus}"
    if sys.platform.startswith("linux") and hub.exists():
        return f"USB controller {hub.resolve().parent.name}"
    return f"USB bus {bus}"
