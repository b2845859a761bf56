"""Deadlines, errors and the greeting, between adb-shell and a transport. The USB errors are libusb's own."""

import itertools
import time
from collections.abc import Callable

import pytest
import usb1
from adb_shell.transport.base_transport import BaseTransport
from hypothesis import given
from hypothesis import strategies as st

from netlathe.profiler.adb.cable import MESSAGE, Cable
from netlathe.profiler.adb.connection import PhoneStateError
from netlathe.profiler.errors import CommandTimeoutError, ConnectionLostError, DeviceError


class Transport(BaseTransport):
    """Does what it is told to: fails with `error`, or gives these bytes."""

    def __init__(self, error: Exception | None = None, data: bytes = b"") -> None:
        self.error = error
        self.data = data
        self.timeouts_s: list[float | None] = []

    def connect(self, transport_timeout_s: float | None) -> None:
        pass

    def close(self) -> None:
        pass

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        self.timeouts_s.append(transport_timeout_s)
        if self.error is not None:
            raise self.error
        taken, self.data = self.data[:numbytes], self.data[numbytes:]
        return taken

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        self.timeouts_s.append(transport_timeout_s)
        if self.error is not None:
            raise self.error
        return len(data)


class Unopenable(Transport):
    """A device that libusb does not open."""

    def connect(self, transport_timeout_s: float | None) -> None:
        assert self.error is not None
        raise self.error


def plugged(transport: Transport) -> Cable:
    cable = Cable(transport, "usb:1A2B")
    cable.connect(1)
    return cable


READ: Callable[[Cable], object] = lambda cable: cable.bulk_read(24, None)  # noqa: E731
WRITE: Callable[[Cable], object] = lambda cable: cable.bulk_write(b"x", None)  # noqa: E731


@pytest.mark.parametrize("use", [READ, WRITE])
@pytest.mark.parametrize("kind", [usb1.USBErrorNoDevice, usb1.USBErrorIO, usb1.USBErrorPipe, usb1.USBErrorOverflow])
def test_a_usb_device_that_vanishes_is_a_lost_link(use: Callable[[Cable], object], kind: type[Exception]) -> None:
    cable = plugged(Transport(kind()))
    with pytest.raises(ConnectionLostError, match=r"lost usb:1A2B.*check the cable"):
        use(cable)
    assert cable.is_broken


@pytest.mark.parametrize("use", [READ, WRITE])
def test_usb_silence_is_a_timeout_as_on_tcp(use: Callable[[Cable], object]) -> None:
    with pytest.raises(TimeoutError):
        use(plugged(Transport(usb1.USBErrorTimeout())))
    with pytest.raises(TimeoutError):
        use(plugged(Transport(TimeoutError("timed out"))))


def test_a_busy_device_names_the_adb_server() -> None:
    with pytest.raises(PhoneStateError, match=r"adb kill-server.*--device server:SERIAL") as caught:
        plugged(Unopenable(usb1.USBErrorBusy()))
    assert caught.value.state == "busy"


def test_a_device_without_permission_names_the_udev_rule() -> None:
    with pytest.raises(PhoneStateError, match=r"udev.*plugdev") as caught:
        plugged(Unopenable(usb1.USBErrorAccess()))
    assert caught.value.state == "no permission"


def test_every_other_libusb_error_is_one_of_ours() -> None:
    kinds = [kind for kind in vars(usb1).values() if isinstance(kind, type) and issubclass(kind, usb1.USBError)]
    assert len(kinds) > 10
    for kind in kinds:
        with pytest.raises((DeviceError, TimeoutError)):
            plugged(Unopenable(kind()))


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), BrokenPipeError("pipe"), OSError(113, "No route")])
def test_socket_errors_are_lost_links(error: Exception) -> None:
    with pytest.raises(ConnectionLostError, match="lost usb:1A2B"):
        READ(plugged(Transport(error)))


def test_after_a_failure_nothing_passes_until_a_new_connection() -> None:
    transport = Transport(usb1.USBErrorIO())
    cable = plugged(transport)
    with pytest.raises(ConnectionLostError):
        READ(cable)
    transport.error = None
    with pytest.raises(ConnectionLostError, match="connect again"):
        WRITE(cable)
    cable.connect(1)
    assert cable.bulk_write(b"abc", None) == 3


def test_an_interruption_breaks_the_cable_but_stays_what_it_is() -> None:
    cable = plugged(Transport())
    cable._transport.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        READ(cable)
    assert cable.is_broken


def test_a_deadline_limits_whatever_adb_shell_asks_for() -> None:
    transport = Transport(data=b"x" * 10)
    cable = plugged(transport)
    cable.bulk_read(1, 7.0)
    cable.allow(3.0)
    cable.bulk_read(1, 1e6)
    cable.bulk_read(1, 0.25)
    cable.bulk_write(b"x", None)
    first, second, third, fourth = transport.timeouts_s
    assert (first, third) == (7.0, 0.25)
    assert 0 < second <= 3.0
    assert 0 < fourth <= second
    cable.allow(1e-9)
    time.sleep(0.001)
    with pytest.raises(TimeoutError):
        cable.bulk_read(1, None)
    assert not issubclass(CommandTimeoutError, TimeoutError)


def packet(command: bytes, content: bytes) -> bytes:
    return MESSAGE.pack(int.from_bytes(command, "little"), 0, 0, len(content), 0, 0) + content


@given(cuts=st.lists(st.integers(1, 60), min_size=1, max_size=10))
def test_the_features_are_found_in_the_greeting_however_it_is_read(cuts: list[int]) -> None:
    banner = b"device::ro.product.name=shiba;ro.product.model=Pixel 8;features=shell_v2,cmd,stat_v2\0"
    greeting = packet(b"AUTH", b"x" * 20) + packet(b"CNXN", banner)
    cable = plugged(Transport(data=greeting))
    for size in itertools.cycle(cuts):
        if not cable.bulk_read(size, None):
            break
    assert cable.features() == {"shell_v2", "cmd", "stat_v2"}


@pytest.mark.parametrize("banner", [b"device::ro.product.name=old;\0", b"device::\0", b""])
def test_an_old_phone_has_no_features(banner: bytes) -> None:
    cable = plugged(Transport(data=packet(b"CNXN", banner)))
    cable.bulk_read(1000, None)
    assert "shell_v2" not in cable.features()
