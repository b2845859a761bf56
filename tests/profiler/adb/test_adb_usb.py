"""The real libusb on an emulated bus: a phone whose adbd reads its endpoint as a phone does."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import PIXEL_8, LoopbackPhone
from loopback.trust import Trust
from loopback.usb import IN_ENDPOINT, OUT_ENDPOINT, Identity, UsbBus, UsbPhone, usb_unavailable
from loopback.usb.clients import UsbClient, run

pytestmark = pytest.mark.skipif(usb_unavailable() is not None, reason=str(usb_unavailable()))

PLACE = "/data/local/tmp/usb-test"


@pytest.fixture
def bus() -> Iterator[UsbBus]:
    with UsbBus() as bus:
        yield bus


@pytest.fixture
def phone_on_usb(bus: UsbBus, daemon: AdbDaemon) -> UsbPhone:
    return bus.plug(daemon, Identity("1A2B"))


HELLO = """
import sys
from netlathe.profiler.adb import open_connection
connection = open_connection(*sys.argv[1:] or ["usb"])
print(connection.run("echo hello").stdout.strip())
connection.close()
"""

# Commands for the smallest payloads, files for the others: both ways, payloads of every size.
SWEEP = """
import sys
from netlathe.profiler.adb import open_connection, sync

connection = open_connection("usb")
path, sizes = sys.argv[1], [int(size) for size in sys.argv[2].split(",")]
overhead = len(next(sync._blocks(b"x", path, 0o644))[1]) - 1  # of a pushed file; a fetched one has 16 bytes
sink = connection._open(f"exec:cat > /dev/null", 20)
for size in sizes:
    data = bytes(range(1, 252)) * (size // 251 + 1)
    if size <= overhead:
        sink.write(data[:size], 20)
        source = connection._open(f"exec:head -c {size} /dev/zero", 20)
        assert source.read(20) == bytes(size), size
        source.close()
        continue
    pushed = data[: size - overhead]
    connection.push(pushed, path)
    assert connection.pull(path) == pushed, size
    connection.push(data[: size - 16], path)
    assert connection.pull(path) == data[: size - 16], size
sink.close()
connection.run(f"rm -f {path}")
"""


def sweep(bus: UsbBus, home: Path, phone: UsbPhone, sizes: list[int]) -> None:
    """Payloads of these sizes go both ways, and the phone has never hung up."""
    run(bus, home, SWEEP, PLACE, ",".join(map(str, sizes)))
    assert set(sizes) <= phone.function.sizes_to_phone
    assert set(sizes) <= phone.function.sizes_to_host
    assert (phone.hang_ups, phone.function.hang_ups) == (0, 0)


@pytest.mark.parametrize("packet_bytes", [64, 512, 1024])
def test_payloads_around_full_packets_and_full_reads_arrive(
    packet_bytes: int, bus: UsbBus, home: Path, daemon: AdbDaemon
) -> None:
    phone = bus.plug(daemon, Identity("1A2B", packet_bytes))
    full = [packet_bytes * count for count in (1, 2, 3, 15, 16)] + [15_872, 16_384, 16_896, 32_768, 65_536]
    sweep(bus, home, phone, [size + more for size in full for more in (-1, 0, 1)])


@pytest.mark.parametrize("packet_bytes", [64, 512, 1024])
def test_a_phone_that_asks_whom_it_trusts_gets_a_key_and_then_signatures(
    packet_bytes: int, bus: UsbBus, home: Path, daemon: AdbDaemon
) -> None:
    trust = Trust()
    with AdbDaemon(daemon.phone, auth=trust) as stranger:
        bus.plug(stranger, Identity("1A2B", packet_bytes))
        for _ in range(2):
            assert run(bus, home, HELLO) == "hello\n"  # a signature has 256 bytes, four packets of the slowest phones
    assert trust.dialogs == 1


@pytest.mark.slow
def test_payloads_of_every_size_arrive_at_512(bus: UsbBus, home: Path, phone_on_usb: UsbPhone) -> None:
    sweep(bus, home, phone_on_usb, [*range(1, 1601), *range(15_864, 16_905)])


@pytest.mark.slow
@pytest.mark.parametrize("packet_bytes", [64, 1024])
def test_payloads_of_every_number_of_packets_arrive(
    packet_bytes: int, bus: UsbBus, home: Path, daemon: AdbDaemon
) -> None:
    phone = bus.plug(daemon, Identity("1A2B", packet_bytes))
    sizes = range(packet_bytes, 34_000, packet_bytes)
    sweep(bus, home, phone, [size + more for size in sizes for more in (-1, 0, 1)])


LIST = """
from netlathe.profiler.adb import list_phones
for row in list_phones():
    print(row.address, row.state, row.model or "-", row.hint, sep="|")
"""


def listed(bus: UsbBus, home: Path, **options: bool) -> list[list[str]]:
    return [line.split("|") for line in run(bus, home, LIST, **options).splitlines()]


def test_two_phones_are_listed_and_told_apart_by_serial(
    bus: UsbBus, home: Path, daemon: AdbDaemon, tmp_path: Path
) -> None:
    other = {**PIXEL_8, "ro.product.model": "Pixel 9"}
    with LoopbackPhone(tmp_path, properties=other) as phone, AdbDaemon(phone) as second:
        bus.plug(daemon, Identity("1A2B"))
        bus.plug(second, Identity("3C4D"), port=2)
        assert [row[:3] for row in listed(bus, home)] == [
            ["usb:1A2B", "ready", "Pixel 8"],
            ["usb:3C4D", "ready", "Pixel 9"],
        ]
        model = HELLO.replace("echo hello", "getprop ro.product.model")
        assert run(bus, home, model, "usb:3C4D") == "Pixel 9\n"
        with UsbClient(bus, home, HELLO, "usb") as client:
            stderr = client.process.communicate()[1]
        assert "several phones on USB; name one: usb:" in stderr


def test_an_adb_interface_behind_another_one_is_found(bus: UsbBus, home: Path, daemon: AdbDaemon) -> None:
    bus.plug(daemon, Identity("1A2B", has_pictures=True))
    assert run(bus, home, HELLO) == "hello\n"


def test_a_kernel_driver_is_detached(bus: UsbBus, home: Path, daemon: AdbDaemon) -> None:
    bus.plug(daemon, Identity("1A2B", kernel_driver="usb_serial"))
    assert run(bus, home, HELLO) == "hello\n"


HOLD = """
import sys
from netlathe.profiler.adb import open_connection
connection = open_connection("usb")
print("held", flush=True)
sys.stdin.readline()
connection.close()
"""


def test_a_phone_that_another_program_holds_is_busy(bus: UsbBus, home: Path, phone_on_usb: UsbPhone) -> None:
    with UsbClient(bus, home, HOLD) as holder:
        assert holder.line() == "held"
        ((address, state, _, hint),) = listed(bus, home)
        assert (address, state) == ("usb:1A2B", "busy")
        assert "adb kill-server" in hint
        holder.say()
        holder.end()
    assert run(bus, home, HELLO) == "hello\n"


def test_a_device_without_permission_says_what_to_do(bus: UsbBus, home: Path, daemon: AdbDaemon) -> None:
    bus.plug(daemon, Identity("1A2B"), is_readable=False)
    ((address, state, _, hint),) = listed(bus, home, is_privileged=False)
    assert (address, state) == ("usb:1-1", "no permission")
    assert "udev" in hint


@pytest.mark.parametrize("endpoint", [IN_ENDPOINT, OUT_ENDPOINT])
def test_a_halted_endpoint_is_cleared_and_the_command_goes_on(
    endpoint: int, bus: UsbBus, home: Path, phone_on_usb: UsbPhone
) -> None:
    commands = """
import sys
from netlathe.profiler.adb import open_connection
connection = open_connection("usb")
for _ in range(2):
    print(connection.run("echo hello").stdout.strip(), flush=True)
    sys.stdin.readline()
"""
    with UsbClient(bus, home, commands) as client:
        assert client.line() == "hello"
        phone_on_usb.halt(endpoint)
        client.say()
        assert client.line() == "hello"
        client.say()
        client.end()
    assert phone_on_usb.function.hang_ups == 0


CHATTER = """
import sys
from netlathe.profiler.adb import open_connection
connection = open_connection("usb")
print("open", flush=True)
for _ in connection.stream(f"while :; do echo {'x' * 500}; done", silence_s=20):
    pass
"""


def kills(count: int, bus: UsbBus, home: Path, phone: UsbPhone) -> None:
    """After each kill -9 during fast output, the next start succeeds, with all of its output and no other."""
    moments = random.Random(0)
    for _ in range(count):
        with UsbClient(bus, home, CHATTER) as client:
            assert client.line() == "open"
            time.sleep(moments.uniform(0.0, 0.1))
            client.kill()
        assert run(bus, home, HELLO) == "hello\n"
    assert phone.hang_ups == 0


def test_a_start_after_kill_9_during_fast_output(bus: UsbBus, home: Path, phone_on_usb: UsbPhone) -> None:
    kills(3, bus, home, phone_on_usb)


@pytest.mark.slow
def test_starts_after_30_kill_9_during_fast_output(bus: UsbBus, home: Path, phone_on_usb: UsbPhone) -> None:
    kills(30, bus, home, phone_on_usb)


def test_half_a_message_that_lies_in_the_pipe_is_thrown_away(bus: UsbBus, home: Path, phone_on_usb: UsbPhone) -> None:
    for size in (1, 24, 511, 512, 513, 5000, 60_000):
        with phone_on_usb.function.lock:
            phone_on_usb.function.inward.send(bytes([0xA5]) * size)
        assert run(bus, home, HELLO) == "hello\n"
    assert phone_on_usb.node is not None
    assert phone_on_usb.node.resets == 0


def test_a_phone_that_waits_for_the_rest_of_a_message_is_reset(bus: UsbBus, home: Path, phone_on_usb: UsbPhone) -> None:
    """A program that was killed while it sent a file has announced more than it sent."""
    header = b"WRTE" + (1).to_bytes(4, "little") * 2 + (60_000).to_bytes(4, "little") + bytes(8)
    with phone_on_usb.function.lock:
        phone_on_usb.function.receive(header)
        phone_on_usb.function.receive(bytes(1000))
    assert run(bus, home, HELLO) == "hello\n"
    assert phone_on_usb.node is not None
    assert phone_on_usb.node.resets == 1


FOREIGN = """
from adb_shell.adb_device import AdbDeviceUsb
device = AdbDeviceUsb()
device.connect(rsa_keys=[], read_timeout_s=20)
print("open", flush=True)
for _ in device.streaming_shell("cat /dev/zero", decode=False):
    pass
"""


def test_leftovers_of_another_adb_client_are_thrown_away(bus: UsbBus, home: Path, phone_on_usb: UsbPhone) -> None:
    with UsbClient(bus, home, FOREIGN) as client:
        assert client.line() == "open"
        time.sleep(0.05)
        client.kill()
    assert run(bus, home, HELLO) == "hello\n"


UNPLUGGED = {
    "idle": "sys.stdin.readline(); connection.run('true')",
    "a command that is silent": "connection.run('sleep 100', timeout_s=60)",
    "a command that talks": "[None for _ in connection.stream('while :; do echo xxxxxxxx; done', silence_s=20)]",
    "a push": "while True: connection.push(bytes(3_000_000), sys.argv[1])",
    "a pull": "while True: connection.pull(sys.argv[1])",
}
LOSE = """
import sys
from netlathe.profiler.adb import open_connection
from netlathe.profiler.errors import ConnectionLostError
connection = open_connection("usb")
connection.push(bytes(3_000_000), sys.argv[1])
print("open", flush=True)
try:
    ACTION
except ConnectionLostError as error:
    print(error, flush=True)
connection.reconnect(60)
print(connection.run("echo back").stdout.strip())
connection.run(f"rm -f {sys.argv[1]}")
"""


@pytest.mark.parametrize("phase", UNPLUGGED)
def test_a_phone_unplugged_in_any_phase_comes_back_under_another_number(
    phase: str, bus: UsbBus, home: Path, phone_on_usb: UsbPhone
) -> None:
    with UsbClient(bus, home, LOSE.replace("ACTION", UNPLUGGED[phase]), PLACE) as client:
        assert client.line() == "open"
        time.sleep(0.05)
        phone_on_usb.unplug()
        client.say()
        assert "usb" in client.line().lower()
        phone_on_usb.plug()
        assert client.end() == "back\n"


def test_ctrl_c_ends_a_wait_for_a_silent_phone(bus: UsbBus, home: Path, phone_on_usb: UsbPhone) -> None:
    program = """
from netlathe.profiler.adb import open_connection
connection = open_connection("usb")
print("open", flush=True)
try:
    connection.run("sleep 100", timeout_s=100)
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(connection.run("echo restored").stdout.strip())
"""
    with UsbClient(bus, home, program) as client:
        assert client.line() == "open"
        time.sleep(0.3)
        client.process.send_signal(2)
        assert client.end(timeout_s=20) == "interrupted\nrestored\n"


def test_a_bus_without_phones_is_searched_without_complaint(bus: UsbBus, home: Path) -> None:
    assert listed(bus, home) == []
