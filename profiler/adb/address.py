"""Names of phones, as a user writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from netlathe.profiler.errors import DeviceError

DEFAULT_PORT = 5555
"""Port at which a phone listens after `adb tcpip 5555`."""

FORMS = "usb, usb:SERIAL, tcp:HOST, tcp:HOST:PORT, server, server:SERIAL, server@HOST:SERIAL"

_REMOTE = re.compile(r"server@(?P<host>\[[^]\s]+\]|[^][\s:/]+)(?:/(?P<port>\d{1,5}))?(?::(?P<serial>\S+))?")
"""A server of another computer: server@HOST, server@HOST/PORT, each with :SERIAL or without."""


@dataclass(frozen=True)
class Address:
    """Address of a phone, and the way to it: its cable, the network, or an adb server on this or another computer.

    `serial` None is the only phone there; `host` and `port` belong to tcp, and to the server of another computer, whose
    port 0 is the one that adb would take.
    """

    kind: Literal["usb", "tcp", "server"]
    serial: str | None = None
    host: str = ""
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        if self.kind == "tcp":
            return f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"
        return self.way if self.serial is None else f"{self.way}:{self.serial}"

    @property
    def way(self) -> str:
        """Words before the serial number: usb, server, server@HOST, server@HOST/PORT."""
        if not (self.kind == "server" and self.host):
            return self.kind
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"server@{host}/{self.port}" if self.port else f"server@{host}"


def parse_address(text: str) -> Address:
    """Reads usb, usb:SERIAL, tcp:HOST, tcp:HOST:PORT, server, server:SERIAL, server@HOST:SERIAL, and
    server@HOST/PORT:SERIAL; an IPv6 HOST stands in brackets.

    Raises DeviceError.
    """
    if found := _REMOTE.fullmatch(text.strip()):
        port = int(found["port"] or 0)
        if port < 2**16:
            return Address("server", found["serial"], found["host"].strip("[]"), port)
    kind, colon, rest = text.strip().partition(":")
    if kind == "tcp" and rest:
        return _parse_tcp(text, rest)
    if kind in ("usb", "server") and bool(colon) == bool(rest) and not any(map(str.isspace, rest)):
        return Address("usb" if kind == "usb" else "server", rest or None)
    raise DeviceError(f"{text!r} is not the address of a phone; write one of {FORMS}")


def _parse_tcp(text: str, place: str) -> Address:
    if place.startswith("["):
        host, closed, port = place[1:].partition("]")
        fits = closed and (not port or port.startswith(":"))
        port = port[1:] if port else str(DEFAULT_PORT)
    else:
        host, _, port = place.partition(":")
        fits = ":" not in port
        port = port if ":" in place else str(DEFAULT_PORT)
    if not host or not fits or any(map(str.isspace, host)):
        raise DeviceError(
            f"{text!r} is not tcp:HOST or tcp:HOST:PORT; an IPv6 address stands in brackets: tcp:[::1]:5555"
        )
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise DeviceError(f"{text!r}: the port {port!r} is not a number from 1 to 65535")
    return Address("tcp", host=host, port=int(port))
