"""How users name phones."""

import pytest

from netlathe.profiler.adb import Address, parse_address
from netlathe.profiler.errors import DeviceError


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("usb", Address("usb"), "usb"),
        ("usb:1A2B", Address("usb", "1A2B"), "usb:1A2B"),
        ("server", Address("server"), "server"),
        ("server:192.168.1.5:5555", Address("server", "192.168.1.5:5555"), "server:192.168.1.5:5555"),
        (
            "server:adb-1A2B-x._adb-tls-connect._tcp",
            Address("server", "adb-1A2B-x._adb-tls-connect._tcp"),
            "server:adb-1A2B-x._adb-tls-connect._tcp",
        ),
        ("server@lab2:1A2B", Address("server", "1A2B", "lab2", 0), "server@lab2:1A2B"),
        ("server@lab2", Address("server", None, "lab2", 0), "server@lab2"),
        (
            "server@lab2/5038:10.0.0.9:5555",
            Address("server", "10.0.0.9:5555", "lab2", 5038),
            "server@lab2/5038:10.0.0.9:5555",
        ),
        ("server@[::1]:1A2B", Address("server", "1A2B", "::1", 0), "server@[::1]:1A2B"),
        ("tcp:phone.local", Address("tcp", host="phone.local", port=5555), "tcp:phone.local:5555"),
        ("tcp:10.0.0.7:37001", Address("tcp", host="10.0.0.7", port=37001), "tcp:10.0.0.7:37001"),
        ("tcp:[::1]", Address("tcp", host="::1", port=5555), "tcp:[::1]:5555"),
        ("tcp:[fe80::2]:7", Address("tcp", host="fe80::2", port=7), "tcp:[fe80::2]:7"),
    ],
)
def test_addresses_are_read_and_written(text: str, address: Address, written: str) -> None:
    assert parse_address(text) == address
    assert str(address) == written
    assert parse_address(written) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "usb:",
        "server:",
        "server@",
        "server@lab2:",
        "server@lab2/99999:1A2B",
        "server@lab2/x:1A2B",
        "usb@lab2:1A2B",
        "tcp",
        "tcp:",
        "phone",
        "USB",
        "tcp::5555",
        "usb:a b",
        "tcp:a b",
        "tcp:[]",
        "tcp:[::1",
        ":x",
    ],
)
def test_other_words_are_refused_with_the_possible_forms(text: str) -> None:
    with pytest.raises(DeviceError, match=r"tcp:HOST"):
        parse_address(text)


def test_an_address_with_bare_colons_asks_for_brackets() -> None:
    with pytest.raises(DeviceError, match="brackets"):
        parse_address("tcp:fe80::1:5555")


@pytest.mark.parametrize("port", ["0", "65536", "x", "", "-1", "٣"])
def test_ports_are_numbers(port: str) -> None:
    with pytest.raises(DeviceError, match="port"):
        parse_address(f"tcp:phone:{port}")
