"""Rounds without a profile: beside the anchors, corrected for drift, until they agree or the time is up."""

from __future__ import annotations

import pytest
from simulated import conv_items

from netlathe.archspace.records import Round
from netlathe.profiler.device import RoundEnd
from netlathe.profiler.errors import DeviceError, MeasurementError, UnsupportedGraphError
from netlathe.profiler.protocol import ANCHORS, Plan
from netlathe.profiler.testing import SETUP, SimulatedDevice, true_ms
from netlathe.profiler.timed_rounds import take_rounds

PLAN = Plan(min_rounds=8, max_rounds=20)
ITEMS = conv_items(4)
NAMES = {item.graph.key: item.name for item in ITEMS}
TRUE_MS = {item.graph.key: true_ms(item.graph) for item in ITEMS}


def loaded(device: SimulatedDevice) -> SimulatedDevice:
    for item in ITEMS:
        device.load(item.graph.key, item.graph)
    return device


def taken(device: SimulatedDevice, plan: Plan = PLAN, **options):
    return take_rounds(loaded(device), NAMES, plan, guesses_ms=TRUE_MS, clock=device.clock, **options)


def test_on_an_undisturbed_machine_the_times_are_the_true_ones():
    found = taken(SimulatedDevice())
    assert {key: one.latency_ms for key, one in found.measured.items()} == pytest.approx(TRUE_MS)
    assert (found.is_done, found.is_interrupted, found.errors, found.warnings) == (True, False, {}, [])
    assert {len(one.rounds) for one in found.measured.values()} == {8}


def test_a_machine_that_slows_down_on_its_way_is_corrected_by_the_anchors():
    device = SimulatedDevice()
    device.slowdown = lambda now: 1.2 if len(device.rounds) in (3, 4) else 1.0
    found = taken(device)
    assert {key: one.latency_ms for key, one in found.measured.items()} == pytest.approx(TRUE_MS, rel=0.01)
    assert max(one.drift for m in found.measured.values() for one in m.rounds) == pytest.approx(1.2, rel=0.01)


def test_with_a_profile_s_anchors_the_times_are_at_the_profile_s_speed():
    graphs = {block.graph().key: block.graph() for block in ANCHORS}
    stored = {key: tuple(Round((true_ms(g),), 1.0, float(at)) for at in range(1, 31)) for key, g in graphs.items()}
    found = taken(SimulatedDevice(slowdown=lambda now: 2.0), anchors=graphs, stored=stored)
    assert {key: one.latency_ms for key, one in found.measured.items()} == pytest.approx(TRUE_MS)
    assert all(one.drift == pytest.approx(2.0) for one in found.measured.values())


def test_an_anchor_that_is_timed_itself_has_its_time():
    graph = ANCHORS[0].graph()
    device = SimulatedDevice()
    found = take_rounds(device, {graph.key: "anchor"}, PLAN, clock=device.clock)
    assert found.measured[graph.key].latency_ms == pytest.approx(true_ms(graph))


def test_three_rounds_are_made_however_little_time_there_is():
    found = taken(SimulatedDevice(noise=0.1), Plan(min_rounds=8, max_rounds=20, budget_s=1e-9))
    assert {len(one.rounds) for one in found.measured.values()} == {3}
    assert not found.is_done


def test_what_fails_has_an_error_and_no_number_and_the_others_go_on():
    broken = next(iter(NAMES))
    found = taken(SimulatedDevice(broken=[broken]))
    assert isinstance(found.errors[broken], MeasurementError)
    assert found.measured.keys() == NAMES.keys() - {broken}


def test_without_an_anchor_there_is_no_time():
    anchors = [block.graph().key for block in ANCHORS]
    with pytest.raises(DeviceError, match="none of the 5 anchor blocks runs on this device: op 'conv' is not known"):
        taken(SimulatedDevice(unsupported=anchors))
    with pytest.raises(DeviceError, match="no anchor block runs on this device any more: segmentation fault"):
        taken(SimulatedDevice(broken=anchors))


def test_ctrl_c_keeps_the_rounds_so_far():
    class Interrupted(SimulatedDevice):
        def time_rounds(self, rounds, *, after=0.0):
            for event in super().time_rounds(rounds, after=after):
                if len(self.rounds) >= 5 and not isinstance(event, RoundEnd):
                    raise KeyboardInterrupt
                yield event

    found = taken(Interrupted())
    assert found.is_interrupted
    assert {len(one.rounds) for one in found.measured.values()} == {5}


def test_a_device_that_is_always_too_hot_ends_with_an_error():
    class Hot(SimulatedDevice):
        def time_rounds(self, rounds, *, after=0.0):
            for event in super().time_rounds(rounds, after=after):
                yield RoundEnd(event.started_at, {}, "thermal status 3") if isinstance(event, RoundEnd) else event

    with pytest.raises(DeviceError, match="had to be measured again"):
        taken(Hot())


def test_progress_names_what_is_timed_and_ends_at_all(monkeypatch):
    monkeypatch.setattr("netlathe.profiler.progress.TELL_EVERY_S", -1.0)
    told = []
    taken(SimulatedDevice(), on_round=lambda progress, so_far: told.append((progress, dict(so_far()))))
    assert {progress.current for progress, _ in told} >= {*NAMES.values(), "anchor blocks"}
    last, measured = told[-1]
    assert (last.done, last.total, last.share) == (4, 4, 1.0)
    assert measured.keys() == NAMES.keys()
    assert SETUP.batch == 1


def test_unsupported_at_its_first_run_is_not_tried_again():
    class Refusing(SimulatedDevice):
        def _outcome(self, visit):
            key = next(iter(NAMES))
            return UnsupportedGraphError("no such kernel") if visit.key == key else super()._outcome(visit)

    device = Refusing()
    found = taken(device)
    refused = next(iter(NAMES))
    assert str(found.errors[refused]) == "no such kernel"
    assert sum(visit.key == refused for visit in device.visits) == 1
