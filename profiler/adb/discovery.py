"""Connections by the address that a user writes, and the addresses of the phones that are found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from netlathe.profiler.adb.address import Address, parse_address
from netlathe.profiler.adb.connection import AdbConnection, PhoneStateError, State, unauthorized
from netlathe.profiler.adb.keys import default_key_path
from netlathe.profiler.adb.server import AdbServer, ListedPhone, ServerConnection, refusal, running_server
from netlathe.profiler.errors import ConnectionLostError, DeviceError

if TYPE_CHECKING:
    from netlathe.profiler.adb.usb import UsbTransport

PROPERTIES = ("ro.product.model", "ro.soc.model", "ro.board.platform", "ro.build.version.release")


@dataclass(frozen=True)
class PhoneRow:
    """One phone that may be used, or what keeps it from that. Unknown words are empty."""

    address: str
    state: State
    model: str = ""
    soc: str = ""
    android: str = ""
    hint: str = ""
    """Remedy when it is not ready."""


def open_connection(
    address: Address | str, *, on_authorize: Callable[[str], None] | None = None, auth_timeout_s: float = 60.0
) -> AdbConnection:
    """Connects. `on_authorize` gets a line for the user once the phone asks whether to trust this computer.

    Raises DeviceError.
    """
    place = parse_address(address) if isinstance(address, str) else address
    if place.kind == "server":
        server = running_server(place.host, place.port if place.host else 0)
        return ServerConnection(
            place.serial, server, on_authorize=on_authorize, auth_timeout_s=auth_timeout_s, way=place.way
        )
    return _direct(place, on_authorize=on_authorize, auth_timeout_s=auth_timeout_s)


def _direct(place: Address, **options: Any) -> AdbConnection:
    # Here, because adb-shell starts libusb while it is imported.
    from netlathe.profiler.adb.direct import DirectConnection
    from netlathe.profiler.adb.socket_transport import SocketTransport
    from netlathe.profiler.adb.usb import usb_transport

    if place.kind == "usb":
        reset = lambda: usb_transport(place.serial).reset()  # noqa: E731
        return DirectConnection(lambda: usb_transport(place.serial), str(place), reset=reset, **options)
    return DirectConnection(lambda: SocketTransport(place.host, place.port), str(place), **options)


def list_phones(*, timeout_s: float = 5.0) -> list[PhoneRow]:
    """The phones that a running adb server knows, then those on USB that it does not.

    Starts no server, opens no dialog. What goes wrong stands in the rows. `timeout_s` limits the whole.
    """
    deadline = time.monotonic() + timeout_s
    rows = list(_server_phones(deadline))
    known = {row.address.removeprefix("server:") for row in rows}
    return rows + list(_usb_phones(known, deadline))


def candidates(place: Address, *, timeout_s: float = 5.0) -> list[PhoneRow]:
    """The phones that an address without a serial number may mean, where there are several; otherwise none.

    Starts no server, opens no dialog. `timeout_s` limits the whole.
    """
    deadline = time.monotonic() + timeout_s
    if place.kind == "tcp" or place.serial is not None:
        return []
    try:
        if place.kind == "server":
            server = running_server(place.host, place.port if place.host else 0)
            listed = server.phones(timeout_s)
            return [_server_row(server, phone, deadline, place.way) for phone in listed] if len(listed) > 1 else []
        found = _found_on_usb()
    except DeviceError:
        return []  # opening the device will say it
    return list(_usb_rows(found, deadline)) if len(found) > 1 else []


def _found_on_usb() -> list[tuple[str, UsbTransport | DeviceError]]:
    # Here, because adb-shell starts libusb while it is imported.
    from netlathe.profiler.adb.usb import usb_phones

    return list(usb_phones())


def _server_phones(deadline: float) -> Iterator[PhoneRow]:
    try:
        server = running_server()
        phones = server.phones(_left_s(deadline))
    except DeviceError:
        return  # a computer without an adb server is nothing special
    for phone in phones:
        yield _server_row(server, phone, deadline)


def _server_row(server: AdbServer, phone: ListedPhone, deadline: float, way: str = "server") -> PhoneRow:
    row = PhoneRow(f"{way}:{phone.serial}", "ready", phone.model)
    if phone.state != "device":
        return _failed(row, refusal(phone.state, row.address))
    left_s = _left_s(deadline)

    def connect() -> AdbConnection:
        return ServerConnection(phone.serial, server, auth_timeout_s=0.0, connect_timeout_s=left_s, way=way)

    return _described(row, connect, left_s)


def _usb_phones(known: set[str], deadline: float) -> Iterator[PhoneRow]:
    try:
        phones = _found_on_usb()
    except DeviceError as error:
        yield PhoneRow("usb", "unavailable", hint=str(error))
        return
    yield from _usb_rows([(serial, transport) for serial, transport in phones if serial not in known], deadline)


def _usb_rows(phones: Iterable[tuple[str, UsbTransport | DeviceError]], deadline: float) -> Iterator[PhoneRow]:
    for serial, transport in phones:
        row = PhoneRow(f"usb:{serial}", "ready")
        if isinstance(transport, DeviceError):
            yield _failed(row, transport)
        elif not default_key_path().exists():  # looking makes none, and no phone can know one that is not there
            yield _failed(row, unauthorized(row.address))
        else:
            yield probe(Address("usb", serial), _left_s(deadline))


def probe(place: Address, timeout_s: float) -> PhoneRow:
    """Looks at a phone without opening its dialog: signs the phone's challenge, but does not offer the key."""
    row = PhoneRow(str(place), "ready")

    def decline(_: str) -> None:
        raise unauthorized(row.address)

    return _described(
        row,
        lambda: _direct(place, on_authorize=decline, connect_timeout_s=timeout_s),
        timeout_s,
    )


def _described(row: PhoneRow, connect: Callable[[], AdbConnection], timeout_s: float) -> PhoneRow:
    try:
        with closing(connect()) as phone:
            command = "; ".join(f"getprop {name}" for name in PROPERTIES)
            answer = phone.run(command, timeout_s=timeout_s)
    except DeviceError as error:
        return _failed(row, error)
    model, soc, platform, android = (answer.stdout.splitlines() + [""] * len(PROPERTIES))[: len(PROPERTIES)]
    return replace(row, model=model, soc=soc or platform, android=android)


def _left_s(deadline: float) -> float:
    # A phone that is there answers in milliseconds, so even the last one in a row gets a chance.
    return max(0.5, deadline - time.monotonic())


def _failed(row: PhoneRow, error: DeviceError) -> PhoneRow:
    state: State = "unavailable"
    if isinstance(error, PhoneStateError):
        state = error.state
    elif isinstance(error, ConnectionLostError):
        state = "offline"
    return replace(row, state=state, hint=str(error))
