"""What was measured in a bad hour is measured again in place: nothing is lost, nothing is measured a third time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
from disturbed import disturb
from loopback.phone import loopback_unavailable
from phones import ITEMS as PHONE_ITEMS
from phones import PLAN as PHONE_PLAN
from phones import check_profile, leftovers, opened, profile_phone
from simulated import conv_items
from test_kill import wait_for_rounds

from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Measurement, Round, Status
from netlathe.profiler.again import best_rounds
from netlathe.profiler.campaign import WorkItem, run_campaign
from netlathe.profiler.devices.local import LocalDevice
from netlathe.profiler.errors import DeviceError, UnsupportedGraphError
from netlathe.profiler.forecast import dry_run
from netlathe.profiler.protocol import ANCHORS, Plan
from netlathe.profiler.testing import SETUP, SimulatedDevice, true_ms

ITEMS = conv_items(12)
KEYS = [item.graph.key for item in ITEMS]
ANCHOR_KEYS = {block.graph().key for block in ANCHORS}
BAD = KEYS[:4]
PLAN = Plan(min_rounds=8, max_rounds=8)


@pytest.fixture
def profile(tmp_path):
    """Twelve records of eight rounds, four of them of a bad hour."""
    with ProfileFile(tmp_path / "profile", create=True) as file:
        run(SimulatedDevice(), file)
        disturb(file.path, BAD)
        assert unstable(file) == set(BAD)
        yield file


def run(device, profile, items=ITEMS, plan=PLAN, **options):
    return run_campaign(device, items, profile, plan, clock=device.clock, **options)


def again(device, profile, which="unstable", **options):
    return run(device, profile, again=which, **options)


def unstable(profile):
    return {r.graph.key for r in profile.records() if r.measurement and not r.measurement.is_stable}


def records(profile):
    return {r.graph.key: r for r in profile.records()}


def visits(device):
    return Counter(visit.key for visit in device.visits if visit.key not in ANCHOR_KEYS)


def test_unstable_records_are_measured_again_and_nothing_else(profile):
    before, device = records(profile), SimulatedDevice()
    summary = again(device, profile)
    assert visits(device) == dict.fromkeys(BAD, 8)
    assert (len(summary.records), summary.reused, summary.unfinished) == (12, 8, ())
    assert set(summary.again) == {item.name for item in ITEMS[:4]}
    after = records(profile)
    assert all(after[key].measurement == before[key].measurement for key in KEYS[4:])
    assert [after[key].latency_ms for key in BAD] == pytest.approx([true_ms(item.graph) for item in ITEMS[:4]])
    assert unstable(profile) == set()
    assert summary.warnings == ()


def test_all_samples_of_a_bad_hour_are_kept_though_they_no_longer_count(profile):
    before = profile.rounds(SETUP)
    again(SimulatedDevice(), profile)
    after = profile.rounds(SETUP)
    assert all(after[key][: len(rounds)] == rounds for key, rounds in before.items())
    assert {len(after[key]) for key in BAD} == {16}
    assert {len(records(profile)[key].measurement.rounds) for key in BAD} == {8}


def test_without_unstable_records_nothing_is_measured_again(profile):
    device = SimulatedDevice()
    again(device, profile, items=ITEMS[4:])
    assert device.loads == []
    assert profile.again(SETUP) == {}


def test_what_is_new_is_measured_beside(profile):
    device = SimulatedDevice()
    summary = again(device, profile, items=conv_items(14))
    assert visits(device) == dict.fromkeys([*BAD, *(item.graph.key for item in conv_items(14)[12:])], 8)
    assert len(summary.again) == 4


def test_a_worse_hour_takes_nothing_from_a_record(profile):
    class Worse(SimulatedDevice):
        def _run(self, key):
            ms = super()._run(key)
            return ms * self._rng.choice([1, 9]) if key in BAD else ms

    before = {key: records(profile)[key].measurement.interval_ms for key in BAD}
    summary = again(Worse(), profile, plan=Plan(runs=1, warmups=0, min_rounds=8, max_rounds=8))
    for key, (low, high) in before.items():
        new_low, new_high = records(profile)[key].measurement.interval_ms
        assert new_high / new_low <= high / low
    assert any("--again unstable" in warning for warning in summary.warnings)


def test_the_rounds_of_a_graph_that_is_always_noisy_add_up():
    earlier, new = ([Round((1.0 + 0.1 * i,), 1.0, 10 * n + i) for i in range(6)] for n in (0, 1))
    assert len(best_rounds(earlier, new)) == 12


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_new_rounds_take_no_records_place(count):
    earlier = [Round((1.0 + i,), 1.0, float(i)) for i in range(5)]
    assert set(earlier) <= set(best_rounds(earlier, [Round((1.0,), 1.0, 10.0 + i) for i in range(count)]))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.8, 0.99])
def test_until_the_new_rounds_suffice_the_old_record_stays_and_the_same_call_continues(profile, tmp_path, share):
    with ProfileFile(tmp_path / "whole", create=True) as file:
        run(SimulatedDevice(), file)
        disturb(file.path, BAD)
        whole = SimulatedDevice()
        again(whole, file)
    before, first = records(profile), SimulatedDevice(breaks_at=share * whole.now)
    with pytest.raises(DeviceError, match="cable"):
        again(first, profile)
    done = {key for key, one in profile.again(SETUP).items() if one.is_done}
    assert all(records(profile)[key].measurement == before[key].measurement for key in set(KEYS) - done)
    stored = {key: len(profile.rounds(SETUP)[key]) - 8 for key in BAD}
    second = SimulatedDevice()
    summary = again(second, profile)
    assert {key: stored[key] + visits(second)[key] for key in BAD} == dict.fromkeys(BAD, 8)
    assert set(summary.again) == {item.name for item in ITEMS[:4]}
    assert unstable(profile) == set()


def test_what_is_unstable_again_is_measured_a_third_time_only_by_a_new_call(profile):
    stubborn = {"noise": 1.0, "seed": 1}
    again(SimulatedDevice(**stubborn), profile)
    left = unstable(profile) & set(BAD)
    assert left
    continued = SimulatedDevice(**stubborn)
    summary = again(continued, profile)  # as after a kill before the result was told
    assert continued.visits == []
    assert len(summary.again) == 4
    profile.forget_again(SETUP, "unstable")
    third = SimulatedDevice()
    again(third, profile)
    assert set(visits(third)) == left
    assert not left & unstable(profile)


def test_a_short_budget_measures_some_again_and_names_the_others(profile):
    before = records(profile)
    summary = again(SimulatedDevice(), profile, plan=Plan(budget_s=1e-3))
    assert set(summary.unfinished) == {item.name for item in ITEMS[:4]}
    assert summary.again == ()
    assert any("the same command continues" in warning for warning in summary.warnings)
    assert {key: r.measurement for key, r in records(profile).items() if key in KEYS} == {
        key: before[key].measurement for key in KEYS
    }
    device = SimulatedDevice()
    assert len(again(device, profile).again) == 4
    assert set(visits(device)) == set(BAD)


def test_a_graph_that_fails_now_keeps_its_record_and_the_reason_is_told(profile):
    before = records(profile)[BAD[0]]
    device = SimulatedDevice(broken=BAD[:1], unsupported=BAD[1:2])
    summary = again(device, profile)
    assert records(profile)[BAD[0]].measurement == before.measurement
    assert (summary.failed, summary.unsupported, len(summary.records)) == ((), (), 12)
    (told,) = [warning for warning in summary.warnings if "earlier records stay" in warning]
    assert told.startswith("2 could not be measured again")
    assert "segmentation fault" in told
    assert unstable(profile) == set(BAD[:2])


def test_a_graph_that_fails_after_some_rounds_keeps_its_record(profile):
    class Breaking(SimulatedDevice):
        def _outcome(self, visit):
            broken = visit.key == BAD[0] and visits(self)[visit.key] > 3
            return UnsupportedGraphError("the driver is gone") if broken else super()._outcome(visit)

    before = records(profile)[BAD[0]]
    again(Breaking(), profile)
    assert records(profile)[BAD[0]].measurement == before.measurement
    assert len(profile.rounds(SETUP)[BAD[0]]) == 11


def test_what_failed_or_was_unsupported_is_tried_again_once(tmp_path):
    with ProfileFile(tmp_path / "p", create=True) as profile:
        run(SimulatedDevice(unsupported=KEYS[:2], broken=KEYS[2:4]), profile)
        plain = SimulatedDevice(broken=KEYS[2:4])
        run(plain, profile)
        assert set(visits(plain)) == set(KEYS[2:4])  # as every call does
        summary = again(SimulatedDevice(unsupported=KEYS[:1], broken=KEYS[2:3]), profile, "failed")
        assert [r.name for r in (*summary.failed, *summary.unsupported)] == [ITEMS[2].name, ITEMS[0].name]
        assert len(summary.again) == 4
        continued = SimulatedDevice()
        again(continued, profile, "failed")
        assert continued.visits == []
        profile.forget_again(SETUP, "failed")
        again(SimulatedDevice(), profile, "failed")
        assert {r.status for r in profile.records()} == {Status.OK}


@pytest.mark.parametrize("finish", ["campaign", "import"])
def test_what_was_begun_again_may_be_finished_otherwise(tmp_path, finish):
    with ProfileFile(tmp_path / "p", create=True) as profile:
        run(SimulatedDevice(unsupported=KEYS[:1], broken=KEYS[1:2]), profile)
        plan = Plan(min_rounds=8, max_rounds=8, budget_s=1e-3)
        again(SimulatedDevice(), profile, "failed", plan=plan)
        assert len(profile.again(SETUP)) == 2
        with ProfileFile(tmp_path / "other", create=True) as other:
            device = SimulatedDevice()
            device.now = 1e4
            run(device, other)
            if finish == "import":
                profile.add_records(other.records())
            else:
                run(SimulatedDevice(), profile)
        assert records(profile)[KEYS[1]].latency_ms == pytest.approx(true_ms(ITEMS[1].graph))


def test_an_unstable_anchor_is_measured_again_and_still_tells_the_drift(tmp_path):
    anchor = WorkItem("mine", "block", ANCHORS[2].graph())
    with ProfileFile(tmp_path / "p", create=True) as profile:
        run(SimulatedDevice(), profile, [anchor, *ITEMS])
        disturb(profile.path, [anchor.graph.key])
        drifts = {info.started_at: info.drift for info in profile.round_log(SETUP)}
        summary = again(SimulatedDevice(), profile, items=[anchor, *ITEMS])
        assert summary.again == ("mine",)
        assert records(profile)[anchor.graph.key].latency_ms == pytest.approx(true_ms(anchor.graph))
        assert {info.drift for info in profile.round_log(SETUP)} == set(drifts.values()) == {1.0}


def test_a_dry_run_counts_what_would_be_measured_again(profile):
    forecast = dry_run(ITEMS, profile, SETUP, PLAN, "unstable")
    assert forecast.again == tuple(item.name for item in ITEMS[:4])
    assert (len(forecast.reused), forecast.new, forecast.continued) == (8, (), ())
    assert forecast.estimate_s > 0
    assert profile.again(SETUP) == {}
    with pytest.raises(DeviceError):
        again(SimulatedDevice(breaks_at=0.05), profile)
    assert dry_run(ITEMS, profile, SETUP, PLAN, "unstable").again == forecast.again
    again(SimulatedDevice(), profile)
    assert dry_run(ITEMS, profile, SETUP, PLAN, "unstable").again == ()
    assert dry_run(ITEMS, profile, SETUP, PLAN, "unstable").estimate_s == 0


LOCAL_ITEMS = conv_items(10)
ROUNDS = 30
LOCAL_PLAN = Plan(min_rounds=ROUNDS, max_rounds=ROUNDS)

CHILD = """
import sys, time
from test_again import LOCAL_ITEMS, LOCAL_PLAN, LocalDevice, ProfileFile, run_campaign

class Leisurely(LocalDevice):
    def _conditions(self):
        time.sleep(0.05)  # leaves the parent time to strike before the last round
        return super()._conditions()

with Leisurely() as device, ProfileFile(sys.argv[1]) as profile:
    run_campaign(device, LOCAL_ITEMS, profile, LOCAL_PLAN, again="unstable")
"""


def test_a_campaign_killed_twice_while_measuring_again_loses_nothing(tmp_path):
    path, keys = tmp_path / "profile", {item.graph.key for item in LOCAL_ITEMS[:5]}
    paths = [os.path.dirname(__file__), *sys.path]
    with LocalDevice() as device, ProfileFile(path, create=True) as profile:
        run_campaign(device, LOCAL_ITEMS, profile, Plan(min_rounds=3, max_rounds=3))
        disturb(path, keys)
        old = {r.graph.key: r.measurement for r in profile.records() if r.graph.key in keys}
        for strike in (6, 12):
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(path)], env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
            )
            try:
                wait_for_rounds(child, profile, device.setup, strike)
            finally:
                os.kill(child.pid, signal.SIGKILL)
                assert child.wait() == -signal.SIGKILL
            found = {r.graph.key: [s.samples_ms for s in r.measurement.rounds] for r in profile.records()}
            assert all(found[key] == [s.samples_ms for s in old[key].rounds] for key in keys)
        run_campaign(device, LOCAL_ITEMS, profile, LOCAL_PLAN, again="unstable")
        rounds = profile.rounds(device.setup)
        assert {len(rounds[key]) for key in keys} == {3 + ROUNDS}
        assert all(one.is_done for one in profile.again(device.setup).values())
        assert all(len(r.measurement.rounds) >= ROUNDS for r in profile.records() if r.graph.key in keys)


@pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))
@pytest.mark.parametrize("share", [0.5, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.2, 0.8))])
def test_on_a_phone_whose_cable_is_pulled_records_are_measured_again_once(phone, daemon, tmp_path, share):
    path, keys = tmp_path / "p.sqlite", {item.graph.key for item in PHONE_ITEMS[:3]}
    before = daemon.bytes_out
    profile_phone(daemon.address, path)
    disturb(path, keys)
    daemon.link.cut_after(bytes_out=int(share * (daemon.bytes_out - before)))
    with opened(daemon.address) as device, ProfileFile(path) as profile:
        shaky = unstable(profile)
        assert keys <= shaky
        summary = run_campaign(device, PHONE_ITEMS, profile, PHONE_PLAN, again="unstable")
        rounds = profile.rounds(device.setup)
        wanted = {item.graph.key for item in PHONE_ITEMS} & shaky
        assert len(summary.again) == len(wanted)
        assert {len(rounds[key]) for key in wanted} == {6}
        assert {len(rounds[item.graph.key]) for item in PHONE_ITEMS if item.graph.key not in wanted} <= {3}
    daemon.link.cut_after()
    check_profile(path)
    assert leftovers(phone) == []


def test_the_interval_of_a_record_is_never_wider_than_that_of_its_earlier_rounds():
    earlier = [Round((1.0 + 0.3 * (i % 3),), 1.0, float(i)) for i in range(8)]
    for factor in (0.0, 0.1, 0.5, 3.0):
        new = [Round((1.0 + factor * (i % 2),), 1.0, 10.0 + i) for i in range(8)]
        low, high = Measurement(tuple(best_rounds(earlier, new))).interval_ms
        old_low, old_high = Measurement(tuple(earlier)).interval_ms
        assert high / low <= old_high / old_low
