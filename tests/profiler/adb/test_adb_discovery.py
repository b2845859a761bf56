"""From addresses to connections, and what is plugged in."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import usb1
from loopback.adbd import AdbDaemon
from loopback.phone import PIXEL_8
from loopback.private_adb import Adb
from loopback.trust import Trust
from loopback.usb.double import UsbDevice

from netlathe.profiler.adb import PhoneRow, list_phones, open_connection, parse_address, usb
from netlathe.profiler.adb.discovery import probe
from netlathe.profiler.errors import ConnectionLostError, DeviceError


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> list[UsbDevice]:
    """The devices on USB."""
    devices: list[UsbDevice] = []
    context = SimpleNamespace(getDeviceIterator=lambda skip_on_error: iter(devices))
    monkeypatch.setattr(usb, "_context", lambda: context)
    return devices


@pytest.fixture
def served(adb: Adb, daemon: AdbDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The loopback phone's name on a running adb server."""
    serial = f"127.0.0.1:{daemon.port}"
    adb("connect", serial)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(adb.server.port))
    yield serial
    adb("disconnect", serial)


def test_each_kind_of_address_leads_to_the_phone(served: str, daemon: AdbDaemon, bus: list[UsbDevice]) -> None:
    bus.append(UsbDevice("1A2B", daemon.port))
    for address in (f"tcp:127.0.0.1:{daemon.port}", "usb", "usb:1A2B", "server", f"server:{served}"):
        connection = open_connection(address)
        assert connection.run("getprop ro.product.model").stdout == "Pixel 8\n"
        assert connection.address.startswith(address)
        connection.close()


def test_a_ready_phone_is_listed_with_what_it_is(served: str, bus: list[UsbDevice]) -> None:
    assert list_phones(timeout_s=30) == [PhoneRow(f"server:{served}", "ready", "Pixel 8", "Tensor G3", "14")]


def test_a_phone_on_usb_that_the_server_knows_is_listed_once(
    served: str, daemon: AdbDaemon, bus: list[UsbDevice]
) -> None:
    bus += [UsbDevice(served, daemon.port), UsbDevice("1A2B", daemon.port)]
    rows = list_phones(timeout_s=30)
    assert [row.address for row in rows] == [f"server:{served}", "usb:1A2B"]
    assert rows[1] == PhoneRow("usb:1A2B", "ready", "Pixel 8", "Tensor G3", "14")


def test_phones_that_are_not_ready_are_listed_with_what_to_do(
    adb: Adb, daemon: AdbDaemon, served: str, bus: list[UsbDevice]
) -> None:
    with AdbDaemon(daemon.phone, auth=Trust(answer_s=None)) as stranger:
        other = f"127.0.0.1:{stranger.port}"
        try:
            adb("connect", other)
            daemon.unplug()
            rows = {row.address: row for row in list_phones(timeout_s=30)}
        finally:
            adb("disconnect", other)
            daemon.plug()
    assert rows[f"server:{other}"].state == "unauthorized"
    assert "tap Allow" in rows[f"server:{other}"].hint
    gone = rows.get(f"server:{served}")  # offline, or already forgotten
    assert gone is None or (gone.state, bool(gone.hint)) == ("offline", True)


def test_looking_at_a_phone_opens_no_dialog(daemon: AdbDaemon) -> None:
    trust = Trust()
    with AdbDaemon(daemon.phone, auth=trust) as stranger:
        place = parse_address(stranger.address)
        row = probe(place, timeout_s=20)
        assert (row.state, trust.dialogs) == ("unauthorized", 0)
        assert "tap Allow" in row.hint
        open_connection(place).close()  # the user allows it at once
        assert probe(place, timeout_s=20).state == "ready"
        assert trust.dialogs == 1
        stranger.unplug()
        assert probe(place, timeout_s=20).state == "offline"


def test_without_a_key_nothing_is_made_and_no_phone_can_be_ready(
    bus: list[UsbDevice], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    bus.append(UsbDevice("1A2B"))
    (row,) = list_phones(timeout_s=1)
    assert (row.address, row.state) == ("usb:1A2B", "unauthorized")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "state", "advice"),
    [
        (usb1.USBErrorAccess(), "no permission", "udev"),
        (usb1.USBErrorBusy(), "busy", "adb kill-server"),
        (usb1.USBErrorNoDevice(), "offline", "cable"),
        (usb1.USBErrorTimeout(), "offline", "1-4-2"),
    ],
)
def test_a_usb_device_that_cannot_be_opened_is_listed_by_its_place(
    bus: list[UsbDevice], error: Exception, state: str, advice: str
) -> None:
    bus.append(UsbDevice(error))
    (row,) = list_phones(timeout_s=1)
    assert (row.address, row.state) == ("usb:1-4-2", state)
    assert advice in row.hint
    with pytest.raises(DeviceError, match=advice):
        open_connection("usb")
    with pytest.raises(DeviceError, match=advice):
        open_connection("usb:1A2B")


def test_one_of_two_phones_on_usb_must_be_named(bus: list[UsbDevice]) -> None:
    bus += [UsbDevice("1A2B"), UsbDevice("3C4D")]
    with pytest.raises(DeviceError, match=r"several phones on USB; name one: usb:1A2B, usb:3C4D"):
        open_connection("usb")
    with pytest.raises(ConnectionLostError, match=r"no phone 5E6F on USB.*there is 1A2B, 3C4D"):
        open_connection("usb:5E6F")


def test_no_phone_on_usb(bus: list[UsbDevice]) -> None:
    assert list_phones(timeout_s=1) == []
    with pytest.raises(ConnectionLostError, match=r"no phone .*USB debugging"):
        open_connection("usb")


def test_no_libusb_is_one_hint_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "usb1", None)
    (row,) = list_phones(timeout_s=1)
    assert (row.address, row.state) == ("usb", "unavailable")
    assert "libusb" in row.hint
    with pytest.raises(DeviceError, match=r"libusb.*server:SERIAL"):
        open_connection("usb")


def test_the_real_libusb_can_be_asked() -> None:
    assert all(isinstance(name, str) for name, _ in usb.usb_phones())


def test_an_older_phone_is_described_by_its_platform(
    daemon: AdbDaemon, tmp_path_factory: pytest.TempPathFactory
) -> None:
    properties = {key: value for key, value in PIXEL_8.items() if key != "ro.soc.model"}
    with type(daemon.phone)(tmp_path_factory.mktemp("old"), properties=properties) as phone, AdbDaemon(phone) as other:
        row = probe(parse_address(other.address), timeout_s=20)
    assert (row.model, row.soc, row.android) == ("Pixel 8", "zuma", "14")
