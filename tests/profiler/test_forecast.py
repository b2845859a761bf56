from __future__ import annotations

import dataclasses

import pytest
from simulated import conv_items

from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.profile_file import ProfileFile
from netlathe.profiler.campaign import WorkItem, run_campaign
from netlathe.profiler.errors import DeviceError, MeasurementError
from netlathe.profiler.forecast import dry_run
from netlathe.profiler.protocol import Plan
from netlathe.profiler.testing import SETUP, SimulatedDevice

ITEMS = conv_items(12)
NAMES = tuple(item.name for item in ITEMS)
PLAN = Plan(min_rounds=4, max_rounds=4)


@pytest.fixture
def profile(tmp_path):
    with ProfileFile(tmp_path / "profile", create=True) as file:
        yield file


def test_without_a_file_all_is_new(profile):
    forecast = dry_run([*ITEMS, ITEMS[0]], None, SETUP, PLAN)
    assert forecast == dry_run(ITEMS, profile, SETUP, PLAN)
    assert forecast.new == NAMES
    assert (forecast.continued, forecast.reused, forecast.unsupported) == ((), (), ())
    assert forecast.estimate_s > 0


def test_each_item_stands_where_the_campaign_will_put_it(profile):
    keys = [item.graph.key for item in ITEMS]
    with pytest.raises(DeviceError):
        run_campaign(SimulatedDevice(breaks_at=0.2), ITEMS[:3], profile, PLAN)
    run_campaign(SimulatedDevice(unsupported=keys[3:4], broken=keys[4:5]), ITEMS[3:8], profile, PLAN)
    forecast = dry_run(ITEMS, profile, SETUP, PLAN)
    assert set(forecast.continued) == {*NAMES[:3], NAMES[4]}
    assert forecast.unsupported == NAMES[3:4]
    assert forecast.reused == NAMES[5:8]
    assert forecast.new == NAMES[8:]
    device = SimulatedDevice()
    run_campaign(device, ITEMS, profile, PLAN)
    assert set(device.loads) & set(keys) == {*keys[:3], keys[4], *keys[8:]}


def test_the_estimate_learns_the_machines_speed_from_what_it_has_measured(profile):
    run_campaign(SimulatedDevice(), ITEMS[:6], profile, PLAN)
    device = SimulatedDevice()
    estimate_s = dry_run(ITEMS, profile, SETUP, PLAN).estimate_s
    run_campaign(device, ITEMS, profile, PLAN, clock=device.clock)
    assert device.now / 2 < estimate_s < device.now * 2


def test_the_estimate_stays_within_the_budget_and_is_zero_when_all_is_done(profile):
    plan = dataclasses.replace(PLAN, budget_s=0.001)
    assert dry_run(ITEMS, profile, SETUP, plan).estimate_s == 0.001
    run_campaign(SimulatedDevice(), ITEMS, profile, PLAN)
    assert dry_run(ITEMS, profile, SETUP, PLAN).estimate_s == 0


def test_another_setup_reuses_nothing(profile):
    run_campaign(SimulatedDevice(), ITEMS, profile, PLAN)
    assert dry_run(ITEMS, profile, dataclasses.replace(SETUP, threads=2), PLAN).new == NAMES


def test_a_graph_of_another_batch_is_refused(profile):
    item = WorkItem("x", "block", ConvBlock(3, 8, 8, 8).graph(4))
    with pytest.raises(MeasurementError, match="batch of 4"):
        dry_run([item], profile, SETUP)
