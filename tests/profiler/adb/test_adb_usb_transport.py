"""The transport to a phone on USB, over a double of usb1's handle; the phone's side reads its endpoint as adbd does."""

from __future__ import annotations

from pathlib import Path

import pytest
import usb1
from loopback.adbd import AdbDaemon
from loopback.usb.double import UsbDevice
from loopback.usb.identity import IN_ENDPOINT, OUT_ENDPOINT

from netlathe.profiler.adb import sync
from netlathe.profiler.adb.direct import DirectConnection
from netlathe.profiler.adb.usb import MOST_HALTS, UsbTransport
from netlathe.profiler.errors import DeviceError


def transport_to(device: UsbDevice) -> UsbTransport:
    return UsbTransport(device, next(device.iterSettings()))


def connected(device: UsbDevice) -> UsbTransport:
    transport = transport_to(device)
    transport.connect(1.0)
    return transport


def connection_to(device: UsbDevice, home: Path) -> DirectConnection:
    key = home / ".android" / "adbkey"
    reset = lambda: transport_to(device).reset()  # noqa: E731
    return DirectConnection(lambda: transport_to(device), "usb:1A2B", reset=reset, key_path=key, connect_timeout_s=2)


@pytest.mark.parametrize("packet_bytes", [64, 512, 1024])
def test_files_that_fill_packets_and_reads_arrive(packet_bytes: int, daemon: AdbDaemon, home: Path) -> None:
    path = "/data/local/tmp/full"
    device = UsbDevice("1A2B", daemon.port, packet_bytes)
    connection = connection_to(device, home)
    overhead = len(next(sync._blocks(b"x", path, 0o644))[1]) - 1
    for payload in [packet_bytes, 2 * packet_bytes, 15_872, 16_384, 16_896, 32_768, 65_536]:
        for size in range(max(0, payload - overhead - 1), payload - overhead + 2):
            content = bytes(range(251)) * 300
            connection.push(content[:size], path)
            assert connection.pull(path) == content[:size]
    connection.run(f"rm {path}")
    connection.close()
    assert device.function.hang_ups == 0


def test_what_an_earlier_program_left_is_thrown_away_and_what_comes_later_is_not() -> None:
    device = UsbDevice("1A2B")
    device.function.inward.send(b"x" * 20_000)
    transport = connected(device)
    device.function.inward.send(b"fresh")
    assert transport.bulk_read(24, 1.0) == b"fresh"


def test_a_packet_that_is_larger_than_what_was_asked_for_is_an_error() -> None:
    device = UsbDevice("1A2B")
    transport = connected(device)
    device.function.inward.send(b"x" * 100)
    with pytest.raises(usb1.USBErrorOverflow):
        transport.bulk_read(24, 1.0)


def test_silence_is_a_timeout_and_no_time_left_is_one_at_once() -> None:
    transport = connected(UsbDevice("1A2B"))
    for timeout_s in (0.3, 1e-9, 0.0, -1.0):
        with pytest.raises(TimeoutError, match="silent"):
            transport.bulk_read(24, timeout_s)


def test_what_has_arrived_when_a_call_ends_is_not_lost() -> None:
    device = UsbDevice("1A2B")
    transport = connected(device)
    device.function.inward.send(b"y" * 512)  # a full packet does not end a transfer
    assert transport.bulk_read(1024, 1.0) == b"y" * 512


def test_a_halt_that_does_not_go_away_is_an_error() -> None:
    device = UsbDevice("1A2B")
    transport = connected(device)
    cleared: list[int] = []
    assert transport._handle is not None
    transport._handle.clearHalt = cleared.append
    device.halted = {IN_ENDPOINT, OUT_ENDPOINT}
    with pytest.raises(usb1.USBErrorPipe):
        transport.bulk_read(24, 1.0)
    with pytest.raises(usb1.USBErrorPipe):
        transport.bulk_write(b"x", 1.0)
    assert cleared == [IN_ENDPOINT] * MOST_HALTS + [OUT_ENDPOINT] * MOST_HALTS


def test_a_phone_in_the_middle_of_a_message_is_reset(daemon: AdbDaemon, home: Path) -> None:
    device = UsbDevice("1A2B", daemon.port)
    with device.function.lock:
        device.function.receive(b"WRTE" + bytes(8) + (9000).to_bytes(4, "little") + bytes(8))
    connection = connection_to(device, home)
    assert connection.run("echo hello").stdout == "hello\n"
    connection.close()


def test_a_phone_that_another_program_uses_is_neither_claimed_nor_reset() -> None:
    device = UsbDevice("1A2B")
    holder = connected(device)
    device.function.inward.send(b"theirs")
    with pytest.raises(usb1.USBErrorBusy):
        connected(device)
    with pytest.raises(usb1.USBErrorBusy):
        transport_to(device).reset()
    assert holder.bulk_read(24, 1.0) == b"theirs"
    holder.close()
    connected(device).close()


def test_a_silent_phone_is_an_error_also_after_a_reset(home: Path) -> None:
    with pytest.raises(DeviceError, match="does not answer within 1 s"):
        connection_to(UsbDevice("1A2B"), home)  # nobody listens behind it


def test_a_transport_that_is_not_connected_says_so_and_closes_twice() -> None:
    transport = transport_to(UsbDevice("1A2B"))
    with pytest.raises(ConnectionError):
        transport.bulk_read(24, 1.0)
    transport.close()
    transport.close()
