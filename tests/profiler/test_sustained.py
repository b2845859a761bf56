"""Latency under a load that lasts, on a device whose heat follows a formula: closed forms, no clock."""

from __future__ import annotations

import math

import pytest

from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.sustained import SustainedPoint
from netlathe.profiler.campaign import WorkItem
from netlathe.profiler.errors import MeasurementError
from netlathe.profiler.sustained import run_sustained
from netlathe.profiler.testing import SimulatedDevice, ThermalModel, true_ms

BLOCKS = [ConvBlock(64, 100 + 10 * i, 56, 56) for i in range(4)]  # of 20 ms
ITEMS = [WorkItem(block.name, "network", block.graph()) for block in BLOCKS]
NAMES = {item.graph.key: item.name for item in ITEMS}
HEAT = ThermalModel()


def loaded(**options) -> SimulatedDevice:
    device = SimulatedDevice(**{"slowdown": HEAT.slowdown, "conditions": HEAT.conditions, **options})
    for item in ITEMS:
        device.load(item.graph.key, item.graph)
    return device


@pytest.fixture(scope="module")
def run():
    return run_sustained(loaded(), NAMES, 900.0)


def test_the_throttled_level_is_that_of_the_formula(run):
    assert run.window_s == 60
    assert len(run.minutes) == 15
    hot = HEAT.slowdown(870)
    assert run.level == pytest.approx(hot, rel=0.002)
    for network, item in zip(run.networks, ITEMS, strict=True):
        assert network.first_ms == pytest.approx(true_ms(item.graph), rel=0.01)
        assert network.last_ms == pytest.approx(hot * true_ms(item.graph), rel=0.002)


def test_each_minute_tells_speed_heat_clocks_and_power(run):
    for minute in run.minutes:
        middle = minute.at_s + 30
        assert minute.slower == pytest.approx(HEAT.slowdown(middle), rel=0.03)
        assert minute.temperature_c == pytest.approx(HEAT.temperature_c(middle), abs=1.0)
        assert minute.frequency_mhz == pytest.approx(2000 / HEAT.slowdown(middle), rel=0.03)
        assert minute.power_w == pytest.approx(4.0)


def test_it_has_settled_once_the_formula_is_within_two_percent(run):
    within_s = -HEAT.tau_s * math.log(0.02 * HEAT.slowdown(870) / (HEAT.slower_per_k * HEAT.rise_k))
    assert run.is_settled
    assert abs(run.settled_s - within_s) <= 60


def test_energy_is_power_times_latency(run):
    for network in run.networks:
        assert network.energy_mj == pytest.approx(4.0 * network.last_ms)


def test_a_cool_device_keeps_its_speed_and_its_ranking():
    run = run_sustained(loaded(slowdown=lambda now: 1.0, conditions=lambda now: {}), NAMES, 240.0)
    assert run.level == 1
    assert (run.settled_s, run.is_settled) == (0, True)
    assert run.rankings[0] == run.rankings[1] == [item.name for item in ITEMS]
    assert all(network.energy_mj is None for network in run.networks)
    assert all(one.temperature_c is one.frequency_mhz is one.power_w is None for one in run.minutes)


def test_networks_that_throttle_unlike_change_places():
    class Uneven(SimulatedDevice):
        def _run(self, key):
            self.slowdown = HEAT.slowdown if key == ITEMS[0].graph.key else lambda now: 1.0
            return super()._run(key)

    device = Uneven(conditions=HEAT.conditions)
    for item in ITEMS:
        device.load(item.graph.key, item.graph)
    first, last = run_sustained(device, NAMES, 600.0).rankings
    assert first[0] == ITEMS[0].name
    assert last[-1] == ITEMS[0].name


def test_every_network_is_visited_in_each_stretch_in_ever_new_order(run):
    orders = [tuple(one.key for one in run.points[i : i + 4]) for i in range(0, 40, 4)]
    assert all(set(order) == set(NAMES) for order in orders)
    assert len(set(orders)) > 5


def test_the_same_seed_gives_the_same_points():
    runs = [run_sustained(loaded(seed=3, noise=0.05), NAMES, 60.0, seed=1) for _ in range(2)]
    assert runs[0].points == runs[1].points


def test_too_short_a_load_and_failures_are_errors():
    slow = ConvBlock(64, 512, 56, 56).graph()  # 90 s a run
    device = SimulatedDevice(slowdown=lambda now: 1000.0)
    device.load("slow", slow)
    with pytest.raises(MeasurementError, match="too short for a visit of 1 networks"):
        run_sustained(device, {"slow": "slow"}, 60.0)
    with pytest.raises(MeasurementError, match="fails under load: segmentation fault"):
        run_sustained(loaded(broken=list(NAMES)), NAMES, 60.0)


def test_an_interrupt_leaves_what_there_is():
    def interrupt(at_s, conditions):
        if at_s > 100:
            raise KeyboardInterrupt

    run = run_sustained(loaded(), NAMES, 900.0, on_sustained=interrupt)
    assert run.is_interrupted
    assert 100 < run.duration_s < 110
    with pytest.raises(KeyboardInterrupt):
        run_sustained(loaded(), NAMES, 900.0, on_sustained=lambda at_s, conditions: interrupt(200, {}))


@pytest.mark.parametrize(
    ("conditions", "power_w"),
    [
        ({"powered": "none", "current_ua": -500000.0, "voltage_mv": 4000.0}, 2.0),
        ({"powered": "none", "current_ua": 500000.0, "voltage_mv": 4000.0}, 2.0),
        ({"powered": "none", "current_ua": -500.0, "voltage_mv": 4000.0}, 2.0),  # in mA
        ({"powered": "usb", "current_ua": -500000.0, "voltage_mv": 4000.0}, None),
        ({"powered": "none", "current_ua": 0.0, "voltage_mv": 4000.0}, None),
        ({"powered": "none", "voltage_mv": 4000.0}, None),
        ({}, None),
    ],
)
def test_power_is_of_a_battery_that_nothing_charges(conditions, power_w):
    assert SustainedPoint(0, "x", 1.0, conditions).power_w == power_w
