"""A campaign over USB whose cable is pulled at any byte: the phone leaves the bus and comes back; no record is lost.

The bus is a double of usb1's devices; tests/netlathe/test_usb_cli.py has the real libusb.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from loopback.phone import loopback_unavailable
from loopback.usb.double import UsbDevice
from phones import check_profile, leftovers, profile_phone

from netlathe.profiler.adb import usb
from netlathe.profiler.errors import DeviceError
from netlathe.profiler.phone import link

pytestmark = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))

PULLS, FAST_PULLS = 20, 2


@pytest.fixture
def device(daemon, monkeypatch):
    """The phone on USB."""
    monkeypatch.setattr(link, "RECONNECT_S", 10.0)
    plugged = UsbDevice("1A2B", daemon.port, is_plugged=lambda: daemon.is_plugged)
    devices = lambda skip_on_error: iter([plugged] if daemon.is_plugged else [])  # noqa: E731
    monkeypatch.setattr(usb, "_context", lambda: SimpleNamespace(getDeviceIterator=devices))
    return plugged


def pull_the_cable(phone, daemon, path, seed):
    rng = random.Random(seed)
    direction = rng.choice(["bytes_in", "bytes_out"])
    # About what a whole campaign carries.
    offset = rng.randrange(1, 64_000 if direction == "bytes_out" else 210_000)
    daemon.link.cut_after(**{direction: offset})
    for _ in range(2):  # the first may have been cut before it began, or as it was cleaned up
        try:
            profile_phone("usb", path)
            break
        except DeviceError:
            daemon.link.cut_after()
    daemon.link.cut_after()
    check_profile(path)
    if leftovers(phone):
        profile_phone("usb", path)
    assert leftovers(phone) == []


@pytest.mark.parametrize("seed", range(FAST_PULLS))
def test_a_pulled_usb_cable_at_any_byte_costs_nothing(phone, daemon, device, tmp_path, seed):
    pull_the_cable(phone, daemon, tmp_path / "p.sqlite", seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FAST_PULLS, PULLS))
def test_a_pulled_usb_cable_at_very_many_bytes_costs_nothing(phone, daemon, device, tmp_path, seed):
    pull_the_cable(phone, daemon, tmp_path / "p.sqlite", seed)


def test_a_campaign_over_usb_is_never_misread_by_the_phone(phone, daemon, device, tmp_path):
    profile_phone("usb", tmp_path / "p.sqlite")
    check_profile(tmp_path / "p.sqlite")
    assert leftovers(phone) == []
    assert (device.function.hang_ups, device.times_unplugged) == (0, 0)
