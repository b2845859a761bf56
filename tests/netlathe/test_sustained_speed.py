"""Sustained speed: a load that lasts, then a setup of its own."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, LoopbackPhone, loopback_unavailable
from test_cli import answer, netlathe, refusal

import netlathe as nl
from netlathe.archspace.blocks import ConvBlock, LinearHead
from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.spaces import SearchSpace
from netlathe.profiler.device import is_sustained
from netlathe.profiler.devices import DeviceOptions, open_device
from netlathe.profiler.protocol import PHONE_PLAN
from netlathe.profiler.testing import SETUP, SimulatedDevice, ThermalModel
from netlathe.report.load_words import load_verdict
from netlathe.timing import options_of
from netlathe.words import duration, read_duration_s

CHOICES = tuple(ConvBlock(3, channels, 32, 32, kernel=kernel) for channels in (16, 24) for kernel in (3, 5, 7))
SPACE = SearchSpace("small", (CHOICES[:3], (LinearHead(16, 10, 32, 32),)))
HOT = dataclasses.replace(SETUP, details=(("speed", "sustained"),))
needs_a_phone = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1.5h", 5400), (" 2 min ", 120)])
def test_durations_are_read(text, seconds):
    assert read_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["15", "m", "0s", "25h", "-5m", "1d", ""])
def test_other_durations_are_refused(text):
    with pytest.raises(NetlatheError, match="write 90s, 15m or 1h"):
        read_duration_s(text)


def test_durations_are_written():
    assert [duration(seconds) for seconds in (900, 90, 60, 7.5)] == ["15 min", "90 s", "1 min", "7.5 s"]


def test_a_profile_of_sustained_speed_is_taken_hot_and_stands_apart(tmp_path):
    heat = ThermalModel(tau_s=1.0)
    device = SimulatedDevice(setup=HOT, slowdown=heat.slowdown, conditions=heat.conditions)
    report = nl.profile(tmp_path / "p.sqlite", space=SPACE, device=device, networks=2, sustained_s=8.0, rounds=3)
    (found,) = report.devices
    assert found.sustained.level == pytest.approx(heat.slowdown(7) / heat.slowdown(1), rel=0.05)
    assert found.to_json()["sustained"]["is_settled"]
    hot = heat.slowdown(100)
    for record in found.summary.records:
        assert record.latency_ms == pytest.approx(hot * (0.01 + record.graph.macs / 1e7), rel=0.02)
    again = nl.profile(tmp_path / "p.sqlite", space=SPACE, device=device, networks=2, sustained_s=8.0, rounds=3)
    assert again.devices[0].sustained is None, "heated for nothing"
    with ProfileFile(tmp_path / "p.sqlite") as file:
        (kept,) = file.loads(HOT)
    assert kept == found.sustained
    assert kept.to_json() == found.sustained.to_json()


def test_a_load_that_is_interrupted_is_kept_and_the_next_call_makes_another(tmp_path):
    heat, stops = ThermalModel(tau_s=1.0), [5.0]

    def conditions(now):
        if stops and now > stops[0]:
            stops.clear()
            raise KeyboardInterrupt
        return heat.conditions(now)

    def profile():
        nl.profile(tmp_path / "p.sqlite", space=SPACE, device=device, networks=2, sustained_s=8.0, rounds=3)

    device = SimulatedDevice(setup=HOT, slowdown=heat.slowdown, conditions=conditions)
    with pytest.raises(KeyboardInterrupt):
        profile()
    profile()
    with ProfileFile(tmp_path / "p.sqlite") as file:
        loads = file.loads(HOT)
    assert [one.is_interrupted for one in loads] == [True, False]
    assert loads[0].duration_s < loads[1].duration_s == 8.0
    page = nl.report(tmp_path / "p.sqlite").output.read_text()
    assert all(load_verdict(one) in page for one in loads)
    assert "(interrupted)" in page


@pytest.mark.parametrize(("setup", "sustained_s"), [(SETUP, 8.0), (HOT, None)])
def test_an_open_device_of_the_other_speed_is_refused(tmp_path, setup, sustained_s):
    with pytest.raises(NetlatheError, match="sustained speed is a setup of its own"):
        nl.profile(tmp_path / "p.sqlite", space=SPACE, device=SimulatedDevice(setup=setup), sustained_s=sustained_s)


def test_the_setup_says_so_and_a_predictor_opens_its_device_so():
    with open_device("local", DeviceOptions(sustained=True)) as device:
        assert is_sustained(device.setup)
        assert options_of(device.setup).sustained
    with open_device("local") as device:
        assert not is_sustained(device.setup)


def test_networks_are_timed_under_a_load_that_lasts(tmp_path):
    page = tmp_path / "times.html"
    found = answer("time", "mobilenet_v2_0.35_96", "mnasnet_b1", "--sustained", "6s", "--threads", 1, "--page", page)
    (load,) = found["sustained"].values()
    assert [one["name"] for one in load["networks"]] == ["mobilenet_v2_0.35_96", "mnasnet_b1"]
    assert load["ranking_first"] == load["ranking_last"] == ["mobilenet_v2_0.35_96", "mnasnet_b1"]
    assert {one["name"]: one["latency_ms"] for one in found["timed"]} == {
        one["name"]: one["last_ms"] for one in load["networks"]
    }
    assert len(load["minutes"]) == 4
    told = page.read_text()
    assert "Under load for 6 s" in told
    assert "minutes under load" in told
    assert "Latencies at the end of the load" in told
    assert "--profile tells how fast a cool device is" in refusal(
        "time", "mobilenet_v2_0.35_96", "--sustained", "2s", "--profile", tmp_path / "p.sqlite"
    )


@needs_a_phone
def test_a_phone_that_is_hot_and_capped_is_measured_all_the_same(tmp_path, monkeypatch):
    plan = dataclasses.replace(PHONE_PLAN, runs=2, warmups=1, anchor_visits=1, redo_drift=None)
    monkeypatch.setattr("netlathe.profiler.phone.device.PHONE_PLAN", plan)
    SPACE.save(tmp_path / "space.json")
    with LoopbackPhone(tmp_path / "phone") as phone, AdbDaemon(phone) as daemon:
        phone.set_thermal(2, {"SKIN": 44.0})
        phone.cap_frequency(0, 900_000)
        done = netlathe(
            "profile", "--device", daemon.address, "--benchmark-binary", BENCHMARK_MODEL, "--space",
            tmp_path / "space.json", "--networks", 1, "--rounds", 3, "--sustained", "6s", "--output",
            tmp_path / "p.sqlite", "--json",
        )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["records"] == len(SPACE.distinct_blocks()) + 1
    assert found["redone"] == 0
    assert found["setup"]["details"]["speed"] == "sustained"
    assert {one["temperature_c"] for one in found["sustained"]["minutes"]} == {44.0}
    with ProfileFile(tmp_path / "p.sqlite") as file:
        assert all(map(is_sustained, file.setups()))
        (load,) = [load for setup in file.setups() for load in file.loads(setup)]
    assert load.to_json() == found["sustained"]
    assert {one.conditions["skin_c"] for one in load.points} == {44.0}
    assert abs(load.started_at - time.time()) < 600, "by the phone's clock, seconds since the epoch"
    page = nl.report(tmp_path / "p.sqlite").output.read_text()
    assert "temperature, °C" in page
    assert all(one.name in page for one in load.networks)
