"""Rounds that do not count are measured again; rounds that an interrupted campaign left behind are not."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from simulated import conv_items

from netlathe.archspace.profile_file import ProfileFile
from netlathe.profiler.campaign import run_campaign
from netlathe.profiler.device import RoundEnd, Timing, Waiting
from netlathe.profiler.errors import DeviceError, MeasurementError
from netlathe.profiler.protocol import ANCHORS, Plan
from netlathe.profiler.testing import EPOCH_S, SETUP, SimulatedDevice, true_ms

ITEMS = conv_items(8)
PLAN = Plan(min_rounds=4, max_rounds=4, redo_drift=0.05)


@pytest.fixture
def profile(tmp_path):
    with ProfileFile(tmp_path / "profile", create=True) as file:
        yield file


def run(device, profile, plan=PLAN, items=ITEMS, **options):
    return run_campaign(device, items, profile, plan, clock=device.clock, **options)


def errors(records):
    return [r.latency_ms / true_ms(r.graph) - 1 for r in records]


class Hot(SimulatedDevice):
    """Too hot in the rounds of these numbers, and 30 % slower."""

    def __init__(self, hot_rounds):
        super().__init__()
        self.hot_rounds, self.ended = hot_rounds, 0
        self.slowdown = lambda now: 1.3 if self.ended in self.hot_rounds else 1.0

    def time_rounds(self, rounds, *, after=0.0):
        for event in super().time_rounds(rounds, after=after):
            if isinstance(event, RoundEnd):
                if self.ended in self.hot_rounds:
                    event = dataclasses.replace(event, redo="thermal status 2")
                    yield Waiting("cooling: thermal status 2")
                self.ended += 1
            yield event


def test_a_hot_round_leaves_no_sample_and_is_measured_again(profile):
    device = Hot({1, 2})
    summary = run(device, profile)
    assert (summary.rounds, summary.redone) == (6, 2)
    assert [len(r.measurement.rounds) for r in summary.records] == [4] * 8
    assert errors(summary.records) == pytest.approx([0] * 8, abs=1e-12)
    assert [info.conditions.get("redone") for info in profile.round_log(SETUP)] == [
        None, "thermal status 2", "thermal status 2", None, None, None,
    ]  # fmt: skip
    assert summary.drift_range == (1.0, 1.0)


def test_what_a_device_waits_for_is_shown(profile):
    seen = []
    device = Hot({1})
    run_campaign(device, ITEMS, profile, PLAN, on_progress=seen.append, clock=iter(range(10**6)).__next__)
    assert any(p.current == "cooling for 0 s: thermal status 2" and p.is_waiting for p in seen)
    assert seen[-1].redone == 1


def test_while_a_device_waits_no_progress_is_made_and_its_wait_is_told(profile):
    class Cooling(SimulatedDevice):
        def time_rounds(self, rounds, *, after=0.0):
            if self.rounds:
                for waited_s in range(0, 60, 3):
                    yield Waiting("cooling: skin at 36.1 degC", waited_s, 600.0)
                    self.now += 3
            yield from super().time_rounds(rounds, after=after)

    seen = []
    run(Cooling(noise=0.3), profile, on_progress=seen.append, plan=Plan(min_rounds=4, max_rounds=20))
    waiting = [p for p in seen if p.is_waiting][:20]
    assert waiting[10].current == "cooling for 30 s of at most 10 min: skin at 36.1 degC"
    assert len({p.current for p in waiting}) == 20
    assert len({round(p.share, 9) for p in waiting}) == len({round(p.eta_s, 9) for p in waiting}) == 1
    assert waiting[0].eta_s > 0
    assert not seen[-1].is_waiting
    assert seen[-1].waited_s >= 60


def test_a_device_that_stays_hot_ends_the_campaign_and_keeps_what_is_measured(profile):
    with pytest.raises(DeviceError, match=r"had to be measured again \(now: thermal status 2\)"):
        run(Hot(range(2, 10**6)), profile)
    assert {len(rounds) for rounds in profile.rounds(SETUP).values()} == {2}
    assert len(run(SimulatedDevice(), profile).records) == 8


def test_a_round_off_the_usual_speed_is_measured_again_but_helps_to_tell_that_speed(profile):
    device = Hot(set())
    device.slowdown = lambda now: 1.2 if device.ended == 2 else 1.0
    summary = run(device, profile)
    assert (summary.rounds, summary.redone) == (5, 1)
    (redone,) = [info for info in profile.round_log(SETUP) if "redone" in info.conditions]
    assert redone.drift == pytest.approx(1.2)
    rounds = profile.rounds(SETUP)
    assert {len(rounds[item.graph.key]) for item in ITEMS} == {4}
    assert {len(rounds[block.graph().key]) for block in ANCHORS} == {5}


def test_a_later_campaign_on_a_steadily_faster_machine_redoes_nothing(profile):
    run(SimulatedDevice(), profile, items=ITEMS[:4])
    faster = SimulatedDevice(slowdown=lambda now: 0.9)
    summary = run(faster, profile)
    assert (summary.redone, summary.rounds) == (0, 4)
    assert errors(summary.records) == pytest.approx([errors(summary.records)[0]] * 8, abs=1e-9)


def test_a_machine_that_never_settles_is_corrected_once_enough_rounds_were_redone(profile):
    device = Hot(set())
    device.slowdown = lambda now: 1.0 + 0.2 * (device.ended % 2)
    summary = run(device, profile, Plan(min_rounds=8, max_rounds=12, redo_drift=0.05))
    assert 0 < summary.redone <= 3 + 0.25 * summary.rounds + 1
    assert errors(summary.records) == pytest.approx([errors(summary.records)[0]] * 8, abs=0.01)


def test_without_a_limit_no_round_is_redone_for_its_drift(profile):
    device = Hot(set())
    device.slowdown = lambda now: 1.0 + 0.2 * (device.ended % 2)
    assert run(device, profile, Plan(min_rounds=4, max_rounds=4)).redone == 0


def left_over(started_at, keys, complete=True):
    """Events of one round, as a device recovers them."""
    keys = [*keys, *(block.graph().key for block in ANCHORS if complete)]
    graphs = {item.graph.key: item.graph for item in ITEMS} | {block.graph().key: block.graph() for block in ANCHORS}
    return [*(Timing(key, [true_ms(graphs[key])]) for key in keys), RoundEnd(started_at, {})]


def test_rounds_that_an_interrupted_campaign_left_on_the_device_count(profile):
    device = SimulatedDevice()
    keys = [item.graph.key for item in ITEMS]
    device.left_over = [*left_over(EPOCH_S - 20, keys), *left_over(EPOCH_S - 10, keys[:3])]
    summary = run(device, profile)
    assert [len(r.measurement.rounds) for r in summary.records] == [4] * 8
    assert sorted(sum(visit.key == key for visit in device.visits) for key in keys) == [2, 2, 2, 3, 3, 3, 3, 3]


def test_a_left_over_round_that_is_stored_already_is_not_stored_twice(profile):
    first = SimulatedDevice()
    first.left_over = left_over(EPOCH_S - 20, [ITEMS[0].graph.key])
    run(first, profile, items=ITEMS[:4])
    before = profile.rounds(SETUP)
    second = SimulatedDevice()
    second.left_over = first.left_over
    run(second, profile)
    after = profile.rounds(SETUP)
    assert after[ITEMS[0].graph.key] == before[ITEMS[0].graph.key]
    assert sum(info.started_at == EPOCH_S - 20 for info in profile.round_log(SETUP)) == 1


def test_a_left_over_round_that_was_cut_off_before_its_anchors_ran_does_not_count(profile):
    device = SimulatedDevice()
    device.left_over = left_over(EPOCH_S - 20, [ITEMS[0].graph.key], complete=False)
    run(device, profile)
    assert all(info.started_at != EPOCH_S - 20 for info in profile.round_log(SETUP))


def test_left_over_failures_and_graphs_of_other_campaigns_are_dropped(profile):
    device = SimulatedDevice()
    device.left_over = [
        Timing(ITEMS[0].graph.key, MeasurementError("the cable was pulled")),
        Timing("of another profile", [1.0]),
        *left_over(EPOCH_S - 20, [ITEMS[1].graph.key]),
    ]
    summary = run(device, profile)
    assert len(summary.records) == 8
    assert summary.failed == ()


def test_what_the_runtime_tells_beside_the_time_stays_with_the_record(profile):
    summary = run(SimulatedDevice(), profile)
    assert {record.details for record in summary.records} == {(("init_ms", 0.5),)}


def test_the_noise_of_the_anchors_is_told_beside_that_of_all(profile):
    summary = run(SimulatedDevice(noise=0.02), profile, Plan(min_rounds=8, max_rounds=8))
    assert 0 < summary.anchor_noise < 0.1
    assert run(SimulatedDevice(), profile).anchor_noise is None


def test_several_devices_fill_one_profile_at_the_same_time(tmp_path):
    setups = [dataclasses.replace(SETUP, device=f"phone {i}") for i in range(4)]
    path = tmp_path / "profile"
    ProfileFile(path, create=True).close()
    failures = []

    def work(setup):
        try:
            with ProfileFile(path) as file:
                run(SimulatedDevice(setup=setup), file)
        except Exception as error:  # shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(setup,)) for setup in setups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    with ProfileFile(path) as file:
        assert sorted(setup.device for setup in file.setups()) == [setup.device for setup in setups]
        assert all(len(file.records(setup)) == 13 for setup in setups)
