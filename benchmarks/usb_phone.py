"""Speed and robustness over USB: netlathe's transport beside adb-shell's own, on an emulated bus.

The bus (tests/loopback/usb) has the real libusb on the host's side, and on the phone's side an adbd that reads its
endpoint as a phone does: in transfers of 16 KiB that end when they are full, or at a packet that is not. Prints how
many payloads of each size arrive both ways, how many starts after `kill -9` succeed, how many commands survive a pulled
cable, and how fast files go over.

    python -m benchmarks.usb_phone [--every 1] [--kills 30] [--pulls 30]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.loopback.adbd import AdbDaemon
from tests.loopback.phone import LoopbackPhone
from tests.loopback.usb import Identity, UsbBus, UsbPhone
from tests.loopback.usb.clients import UsbClient

SIZES = {512: [*range(1, 1601), *range(15_864, 16_905)], 1024: [*range(1, 34_000, 31)], 64: [*range(1, 4200, 7)]}
"""Payloads in bytes by the size of packets, beside the multiples of that size."""

# Both stacks: a phone that is connected, and functions that send and fetch one payload.
OURS = """
import sys, time
from netlathe.profiler.adb import open_connection
connection = open_connection("usb")
def command(text): return connection.run(text, timeout_s=5).stdout
def send(size): connection.push(bytes(size), "/data/local/tmp/b")
def fetch(size): assert len(connection.pull("/data/local/tmp/b")) == size
"""
THEIRS = """
import io, sys, time
from adb_shell.adb_device import AdbDeviceUsb
connection = AdbDeviceUsb()
connection.connect(rsa_keys=[], read_timeout_s=5, transport_timeout_s=5)
def command(text): return connection.shell(text, read_timeout_s=5, transport_timeout_s=5)
def send(size): connection.push(io.BytesIO(bytes(size)), "/data/local/tmp/b", read_timeout_s=2, transport_timeout_s=2)
def fetch(size):
    target = io.BytesIO()
    connection.pull("/data/local/tmp/b", target, read_timeout_s=2, transport_timeout_s=2)
    assert target.tell() == size
"""
STACKS = {"netlathe": OURS, "adb-shell 0.4": THEIRS}
SWEEP = """
for size in map(int, sys.stdin.readline().split(",")):
    try:
        send(size)
        fetch(size)
    except Exception as error:
        print("lost", size, flush=True)
        break
    print("arrived", size, flush=True)
"""
TALK = """
print("open", flush=True)
while True: command("for i in 1 2 3 4 5 6 7 8 9; do echo " + "x" * 5000 + "; done")
"""
HELLO = """
assert command("echo hello").strip() == "hello"
print("hello")
"""
COPY = """
for _ in range(3):
    started = time.monotonic(); send(16 << 20); sent = time.monotonic(); fetch(16 << 20)
    print(16 / (sent - started), 16 / (time.monotonic() - sent), flush=True)
"""
PULLED = """
from netlathe.profiler.errors import ConnectionLostError
print("open", flush=True)
until = time.monotonic() + 3  # one that is pulled between two commands is not even noticed
try:
    while time.monotonic() < until: send(300_000); fetch(300_000)
except ConnectionLostError:
    connection.reconnect(60)
assert command("echo hello").strip() == "hello"
print("hello")
"""


def arrived(bus: UsbBus, home: Path, stack: str, sizes: Iterable[int]) -> tuple[int, list[int]]:
    """How many of these files arrive both ways, and the sizes of those that do not; each of those costs a new start."""
    lost: list[int] = []
    waiting, count = list(sizes), 0
    while waiting and len(lost) < 10:
        with UsbClient(bus, home, stack + SWEEP) as client:
            client.say(",".join(map(str, waiting)))
            while line := client.line():
                word, size = line.split()
                waiting = waiting[waiting.index(int(size)) + 1 :]
                count += word == "arrived"
                lost += [int(size)] if word == "lost" else []
    return count, lost


def starts_after_kills(bus: UsbBus, home: Path, stack: str, kills: int) -> int:
    """How many starts succeed, of one after each kill during output."""
    good = 0
    for number in range(kills):
        with UsbClient(bus, home, stack + TALK) as client:
            client.line()
            time.sleep(0.01 + 0.1 * number / kills)
            client.kill()
        with UsbClient(bus, home, stack + HELLO) as client:
            good += client.process.communicate(timeout=120)[0].strip() == "hello"
    return good


def survived_pulls(bus: UsbBus, home: Path, phone: UsbPhone, pulls: int) -> int:
    """How many transfers are followed by a command, after the cable was pulled and plugged in again."""
    good = 0
    for number in range(pulls):
        with UsbClient(bus, home, OURS + PULLED) as client:
            client.line()
            time.sleep(0.1 * number / pulls)
            phone.unplug()
            phone.plug()
            good += client.process.communicate(timeout=120)[0].strip() == "hello"
    return good


def speeds(bus: UsbBus, home: Path, stack: str) -> str:
    """Median of three, each way."""
    with UsbClient(bus, home, stack + COPY) as client:
        rows = [list(map(float, line.split())) for line in client.end().splitlines()]
    to_phone, to_host = (statistics.median(column) for column in zip(*rows, strict=True))
    return f"{to_phone:.0f} MB/s to the phone, {to_host:.0f} back"


def report(daemon: AdbDaemon, home: Path, every: int, kills: int, pulls: int) -> None:
    for packet_bytes, sizes in SIZES.items():
        swept = sorted({*sizes[::every], *range(packet_bytes, 34_000, packet_bytes * every)})
        for name, stack in STACKS.items():
            with UsbBus() as bus:
                bus.plug(daemon, Identity("1A2B", packet_bytes))
                count, lost = arrived(bus, home, stack, swept)
            lost_text = f", lost at {', '.join(map(str, lost))}" if lost else ""
            print(f"packets of {packet_bytes} bytes, {name}: {count} of {count + len(lost)} files arrive{lost_text}")
    for name, stack in STACKS.items():
        with UsbBus() as bus:
            bus.plug(daemon, Identity("1A2B"))
            print(f"{name}: {starts_after_kills(bus, home, stack, kills)} of {kills} starts after kill -9 succeed")
    with UsbBus() as bus:
        phone = bus.plug(daemon, Identity("1A2B"))
        print(f"netlathe: {survived_pulls(bus, home, phone, pulls)} of {pulls} transfers go on after a pulled cable")
    for name, stack in STACKS.items():
        with UsbBus() as bus:
            bus.plug(daemon, Identity("1A2B"))
            print(f"{name}: {speeds(bus, home, stack)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every nth size")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--pulls", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        home.mkdir()
        with LoopbackPhone(Path(folder, "phone")) as phone, AdbDaemon(phone) as daemon:
            report(daemon, home, options.every, options.kills, options.pulls)


if __name__ == "__main__":
    main()
