"""A phone on an emulated USB bus from the command line, with the real libusb: from the cable to a profile."""

from __future__ import annotations

import contextlib
import json
import signal
import time

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, LoopbackPhone, loopback_unavailable
from loopback.usb import Identity, UsbBus, usb_unavailable
from loopback.usb.clients import UsbClient

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv
from netlathe.archspace.errors import FormatError
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.spaces import SearchSpace
from netlathe.profiler.protocol import ANCHORS

MISSING = loopback_unavailable() or usb_unavailable()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

PROGRAM = """
import sys
from dataclasses import replace
from netlathe.cli import main
from netlathe.profiler.phone import device
# Short rounds, none of which is made again because this computer is busy.
device.PHONE_PLAN = replace(device.PHONE_PLAN, runs=2, warmups=1, anchor_visits=1, redo_drift=None)
sys.exit(main())
"""
BLOCKS = 8


@pytest.fixture
def phone(tmp_path):
    with LoopbackPhone(tmp_path / "phone") as phone:
        yield phone


@pytest.fixture
def daemon(phone):
    with AdbDaemon(phone) as daemon:
        yield daemon


@pytest.fixture
def bus():
    with UsbBus() as bus:
        yield bus


@pytest.fixture
def netlathe(bus, tmp_path):
    """Starts the command on the bus, in a home of its own."""
    from netlathe.profiler.adb.keys import load_or_create_key

    load_or_create_key(tmp_path / ".android" / "adbkey")
    return lambda *words: UsbClient(bus, tmp_path, PROGRAM, *words)


@pytest.fixture
def profile(tmp_path):
    """The words of a command that profiles eight blocks."""
    choices = tuple(MBConv(8, 8, 8, 8, kernel=kernel, expand=expand) for kernel in (3, 5) for expand in (1, 3, 6))
    SearchSpace("small", ((ConvBlock(3, 8, 16, 16, 2),), choices, (LinearHead(8, 10, 8, 8),))).save(tmp_path / "space")
    return (
        "profile", "--device", "usb", "--benchmark-binary", BENCHMARK_MODEL, "--space", tmp_path / "space",
        "--networks", 0, "--rounds", 8, "--output", tmp_path / "p.sqlite", "--json",
    )  # fmt: skip


def check(phone, tmp_path):
    """One whole record of each graph, and a phone on which nothing is left."""
    with ProfileFile(tmp_path / "p.sqlite") as file:
        (setup,) = file.setups()
        records = file.records(setup)
        rounds = file.rounds(setup)
    assert len({record.graph.key for record in records}) == len(records) == BLOCKS + len(ANCHORS)
    for record in records:
        starts = [one.started_at for one in rounds[record.graph.key]]
        assert starts == sorted(set(starts))
        assert len(starts) >= 3
    assert list(phone.path("/data/local/tmp").iterdir()) == []


def test_a_phone_on_usb_is_listed_profiled_and_left_clean(bus, phone, daemon, netlathe, profile, tmp_path):
    plugged = bus.plug(daemon, Identity("1A2B"))
    with netlathe("devices", "--json") as client:
        rows = {row["name"]: row for row in json.loads(client.end())["devices"]}
    assert (rows["usb:1A2B"]["state"], rows["usb:1A2B"]["model"]) == ("ready", "Pixel 8")
    with netlathe(*profile) as client:
        found = json.loads(client.end())
    assert (found["records"], found["failed"]) == (BLOCKS, 0)
    with netlathe("device", "clean", "--device", "usb:1A2B") as client:
        client.end()
    check(phone, tmp_path)
    assert plugged.hang_ups + plugged.function.hang_ups == 0


def wait_for_rounds(path, count, client):
    """Until the profile holds so many rounds."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert client.process.poll() is None, client.process.communicate()
        with contextlib.suppress(FormatError), ProfileFile(path) as file:  # it may be in the making
            if any(len(file.round_log(setup)) >= count for setup in file.setups()):
                return
        time.sleep(0.05)
    pytest.fail("no rounds within a minute")


def test_a_cable_pulled_while_profiling_costs_no_record(bus, phone, daemon, netlathe, profile, tmp_path):
    plugged = bus.plug(daemon, Identity("1A2B"))
    with netlathe(*profile) as client:
        wait_for_rounds(tmp_path / "p.sqlite", 1, client)
        plugged.unplug()
        time.sleep(0.5)
        plugged.plug()
        assert json.loads(client.end())["records"] == BLOCKS
    check(phone, tmp_path)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_the_same_command_goes_on_after_it_was_ended(how, bus, phone, daemon, netlathe, profile, tmp_path):
    bus.plug(daemon, Identity("1A2B"))
    with netlathe(*profile) as client:
        wait_for_rounds(tmp_path / "p.sqlite", 1, client)
        client.process.send_signal(how)
        assert client.process.wait(timeout=60) != 0
    with netlathe(*profile) as client:
        assert json.loads(client.end())["records"] == BLOCKS
    check(phone, tmp_path)  # the phone may have been left with half a message, and have had to hang up
