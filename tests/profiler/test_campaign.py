from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter

import pytest
from simulated import conv_items

from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.graph import Graph
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Status
from netlathe.archspace.tables import read_records, write_table
from netlathe.profiler.campaign import WorkItem, run_campaign
from netlathe.profiler.errors import DeviceError, MeasurementError, ProfilerError, UnsupportedGraphError
from netlathe.profiler.ledger import Ledger
from netlathe.profiler.lock import exclusive
from netlathe.profiler.protocol import ANCHORS, REFERENCE_ROUNDS, Plan
from netlathe.profiler.testing import SETUP, SimulatedDevice, true_ms

ITEMS = conv_items(12)
KEYS = [item.graph.key for item in ITEMS]
EXACT = Plan(min_rounds=4, max_rounds=4)
ANCHORS_S = 3 * 7 * sum(true_ms(block.graph()) for block in ANCHORS) / 1e3  # in each round
ANCHOR_KEYS = [block.graph().key for block in ANCHORS]


@pytest.fixture
def profile(tmp_path):
    with ProfileFile(tmp_path / "profile", create=True) as file:
        yield file


def run(device, profile, items=ITEMS, plan=EXACT, **options):
    return run_campaign(device, items, profile, plan, clock=device.clock, **options)


def errors(records):
    """Relative error of each latency against the truth."""
    return [r.latency_ms / true_ms(r.graph) - 1 for r in records]


def test_a_noiseless_machine_gives_the_truth(profile):
    summary = run(SimulatedDevice(), profile)
    assert [r.name for r in summary.records] == [item.name for item in ITEMS]
    assert errors(summary.records) == pytest.approx([0] * 12, abs=1e-12)
    assert summary.noise_floor == 0
    assert summary.drift_range == (1.0, 1.0)
    assert (summary.failed, summary.unsupported, summary.unfinished, summary.warnings) == ((), (), (), ())
    assert (summary.rounds, summary.reused) == (4, 0)
    assert 0 < summary.inference_s < summary.wall_s


def test_noise_and_outliers_are_averaged_out(profile):
    summary = run(SimulatedDevice(noise=0.03, outliers=0.05), profile, plan=Plan(target_error=0.01, max_rounds=60))
    mean = sum(errors(summary.records)) / 12  # the lower quartile lies a little below the median
    assert -0.03 < mean < 0
    assert all(abs(error - mean) < 0.03 for error in errors(summary.records))
    assert all(r.measurement.is_stable for r in summary.records)


def test_each_round_is_one_transaction_and_only_the_first_ones_write_earlier_drifts_again(profile):
    statements = []
    profile._db.set_trace_callback(statements.append)
    summary = run(SimulatedDevice(noise=0.03), profile, plan=Plan(min_rounds=3 * REFERENCE_ROUNDS, max_rounds=200))
    inserts = [at for at, text in enumerate(statements) if text.startswith("INSERT OR IGNORE INTO rounds")]
    updates = [at for at, text in enumerate(statements) if text.startswith("UPDATE rounds")]
    assert len(inserts) == summary.rounds >= 3 * REFERENCE_ROUNDS
    assert 0 < len(updates) <= REFERENCE_ROUNDS * (REFERENCE_ROUNDS - 1) / 2
    assert max(updates) < inserts[REFERENCE_ROUNDS]
    between = statements[inserts[-2] : inserts[-1]]
    assert sum(text.startswith("COMMIT") for text in between) == 1
    ledger = Ledger(profile.rounds(SETUP), ANCHOR_KEYS)
    assert {info.started_at: info.drift for info in profile.round_log(SETUP)} == ledger.drifts


def test_latencies_hold_on_a_machine_that_becomes_slower_in_the_middle(profile):
    device = SimulatedDevice(noise=0.01)
    first = run(device, profile, ITEMS[:6], Plan(min_rounds=20, max_rounds=20))
    device.slowdown = lambda now: 1.5
    second = run(device, profile, ITEMS[6:], Plan(min_rounds=10, max_rounds=10))
    assert all(abs(error) < 0.015 for error in errors(first.records + second.records))  # 1 %, and the quartile's 0.5 %
    uncorrected = [r.latency_ms * one.drift / true_ms(r.graph) for r in second.records for one in r.measurement.rounds]
    assert all(1.45 < ratio < 1.55 for ratio in uncorrected)
    assert second.drift_range == pytest.approx((1.5, 1.5), rel=0.02)
    assert any("0.67 times its usual speed" in warning for warning in second.warnings)


def test_latencies_hold_on_a_machine_that_is_slower_every_other_second(profile):
    device = SimulatedDevice(noise=0.01, slowdown=lambda now: 1.6 if now % 2 > 1.2 else 1.0)
    summary = run(device, profile, plan=Plan(min_rounds=20, max_rounds=40))
    assert all(abs(error) < 0.015 for error in errors(summary.records))


def test_a_later_campaign_shifts_no_earlier_latency_while_the_usual_speed_stays(profile):
    before = run(SimulatedDevice(), profile, ITEMS[:6])
    run(SimulatedDevice(slowdown=lambda now: 1.3), profile, ITEMS[6:], Plan(min_rounds=3, max_rounds=3))
    after = {r.name: r.latency_ms for r in profile.records()}
    assert all(after[r.name] == pytest.approx(r.latency_ms) for r in before.records)
    assert errors(profile.records()) == pytest.approx([0] * len(after), abs=1e-9)


def test_a_profile_that_came_as_a_table_is_continued_with_the_same_reference(profile, tmp_path):
    run(SimulatedDevice(), profile, ITEMS[:6])
    write_table(profile.records(), tmp_path / "shared.csv")
    with ProfileFile(tmp_path / "copy", create=True) as copy:
        copy.add_records(read_records(tmp_path / "shared.csv"))
        slow = SimulatedDevice(slowdown=lambda now: 1.3)
        run(slow, copy, ITEMS, Plan(min_rounds=3, max_rounds=3))
        assert errors(copy.records()) == pytest.approx([0] * len(copy.records()), abs=1e-9)


def test_the_anchors_are_recorded_too(profile):
    run(SimulatedDevice(), profile)
    assert {r.graph.key for r in profile.records()} == {*KEYS, *ANCHOR_KEYS}


def test_the_same_campaign_again_measures_nothing(profile):
    first = run(SimulatedDevice(), profile)
    device = SimulatedDevice()
    again = run(device, profile)
    assert device.visits == []
    assert device.loads == []
    assert again.records == first.records
    assert (again.reused, again.rounds, again.drift_range) == (12, 0, None)


def test_new_items_are_measured_beside_finished_ones(profile):
    run(SimulatedDevice(), profile, ITEMS[:10])
    device = SimulatedDevice()
    summary = run(device, profile)
    assert {visit.key for visit in device.visits} == {*KEYS[10:], *ANCHOR_KEYS}
    assert (len(summary.records), summary.reused) == (12, 10)


def test_equal_graphs_are_measured_once(profile):
    twin = WorkItem("twin", "block", ITEMS[0].graph)
    device = SimulatedDevice()
    summary = run(device, profile, [ITEMS[0], twin, ITEMS[0]])
    assert [r.name for r in summary.records] == [ITEMS[0].name]
    assert Counter(visit.key for visit in device.visits)[KEYS[0]] == 4


def test_an_item_that_is_an_anchor_is_measured_as_one(profile):
    item = WorkItem("mine", "block", ANCHORS[2].graph())
    summary = run(SimulatedDevice(), profile, [item, *ITEMS])
    assert len(summary.records) == 13
    assert errors(summary.records) == pytest.approx([0] * 13, abs=1e-12)


def test_networks_and_blocks_stand_in_the_same_rounds(profile):
    network = WorkItem("net", "network", ConvBlock(3, 40, 32, 32).graph())
    device = SimulatedDevice()
    summary = run(device, profile, [*ITEMS, network])
    assert summary.records[-1].kind == "network"
    assert (
        Counter(visit.key for visit in device.visits)[network.graph.key]
        == Counter(visit.key for visit in device.visits)[KEYS[0]]
    )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.8, 0.99])
def test_after_a_pulled_cable_the_same_call_continues_and_repeats_no_round(tmp_path, share):
    whole = SimulatedDevice()
    with ProfileFile(tmp_path / "whole", create=True) as file:
        run(whole, file)
    with ProfileFile(tmp_path / "broken", create=True) as file:
        with pytest.raises(DeviceError, match="cable"):
            run(SimulatedDevice(breaks_at=share * whole.now), file)
        stored = file.rounds(SETUP)
        device = SimulatedDevice()
        summary = run(device, file)
        rounds = file.rounds(SETUP)
    assert len(summary.records) == 12
    assert all(len(r.measurement.rounds) == 4 for r in summary.records)
    assert all(rounds[key][: len(old)] == old for key, old in stored.items())
    done = {key: len(stored.get(key, ())) for key in KEYS}
    visits = Counter(visit.key for visit in device.visits)
    assert all(visits[key] == 4 - done[key] for key in KEYS)


def test_an_interrupt_from_the_keyboard_loses_no_stored_round(profile):
    def interrupt(progress):
        if progress.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_campaign(SimulatedDevice(), ITEMS, profile, EXACT, on_progress=interrupt, clock=iter(range(10**6)).__next__)
    assert {len(rounds) for rounds in profile.rounds(SETUP).values()} == {2}
    assert len(run(SimulatedDevice(), profile).records) == 12


def test_a_graph_that_fails_is_recorded_as_failed_and_the_others_go_on(profile):
    summary = run(SimulatedDevice(broken=KEYS[:1]), profile)
    assert [(r.name, r.status, r.message) for r in summary.failed] == [
        (ITEMS[0].name, Status.FAILED, "segmentation fault")
    ]
    assert len(summary.records) == 11
    assert any("tries them again" in warning for warning in summary.warnings)


def test_a_failed_graph_is_tried_again_and_may_succeed(profile):
    run(SimulatedDevice(broken=KEYS[:1]), profile)
    device = SimulatedDevice()
    summary = run(device, profile)
    assert {visit.key for visit in device.visits} == {KEYS[0], *ANCHOR_KEYS}
    assert len(summary.records) == 12
    assert summary.failed == ()


def test_an_unsupported_graph_stays_so_and_is_not_tried_again(profile):
    summary = run(SimulatedDevice(unsupported=KEYS[3:5]), profile)
    assert [r.message for r in summary.unsupported] == ["op 'conv' is not known here"] * 2
    assert len(summary.records) == 10
    device = SimulatedDevice()
    again = run(device, profile)
    assert device.loads == []
    assert len(again.unsupported) == 2
    assert any("another runtime" in warning for warning in again.warnings)


def test_a_device_may_find_out_only_while_running_that_a_graph_is_unsupported(profile):
    class Distant(SimulatedDevice):
        def _outcome(self, visit):
            error = UnsupportedGraphError("op 'conv' is not known here")
            return error if visit.key == KEYS[0] else super()._outcome(visit)

    summary = run(Distant(), profile)
    assert [r.name for r in summary.unsupported] == [ITEMS[0].name]
    assert len(summary.records) == 11


@pytest.mark.parametrize("times", [[], [0.0], [-1.0], [math.nan], [math.inf, 1.0]])
def test_impossible_times_from_a_device_are_a_failure_not_a_latency(profile, times):
    class Liar(SimulatedDevice):
        def _outcome(self, visit):
            return times if visit.key == KEYS[0] else super()._outcome(visit)

    summary = run(Liar(), profile)
    assert [r.name for r in summary.failed] == [ITEMS[0].name]
    assert "times above zero" in summary.failed[0].message


def test_an_anchor_that_does_not_run_is_done_without(profile):
    unsupported = run(SimulatedDevice(unsupported=ANCHOR_KEYS[:2]), profile, ITEMS[:6])
    broken = run(SimulatedDevice(broken=ANCHOR_KEYS[4:], unsupported=ANCHOR_KEYS[:2]), profile)
    assert errors(unsupported.records + broken.records) == pytest.approx([0] * 18, abs=1e-12)


def test_without_any_anchor_there_is_no_campaign(profile):
    with pytest.raises(DeviceError, match="none of the 5 anchor blocks"):
        run(SimulatedDevice(unsupported=ANCHOR_KEYS), profile)
    with pytest.raises(DeviceError, match="no anchor block runs on this device any more: segmentation fault"):
        run(SimulatedDevice(broken=ANCHOR_KEYS), profile)
    assert profile.rounds(SETUP) == {}


def test_an_item_without_ops_is_unsupported_because_there_is_nothing_to_time(profile):
    identity = WorkItem("identity", "block", Graph(ITEMS[0].graph.inputs, ()))
    summary = run(SimulatedDevice(), profile, [*ITEMS[:1], identity])
    assert [(r.name, r.status) for r in summary.unsupported] == [("identity", Status.UNSUPPORTED)]
    assert "nothing to time" in summary.unsupported[0].message


def test_a_graph_of_another_batch_is_refused_before_anything_is_measured(profile):
    block = ConvBlock(3, 8, 16, 16)
    device = SimulatedDevice()
    with pytest.raises(MeasurementError, match=r"graph\(batch=1\)"):
        run(device, profile, [*ITEMS, WorkItem(block.name, "block", block.graph(8))])
    assert device.loads == []


def test_when_the_budget_is_out_three_rounds_suffice_and_the_rest_stays_unfinished(profile):
    whole = SimulatedDevice(noise=0.2)
    plan = Plan(min_rounds=20, target_error=1e-6, budget_s=1.0)
    summary = run(whole, profile, plan=plan)
    assert whole.now < 1.0 + 0.02 + ANCHORS_S
    assert all(len(r.measurement.rounds) >= 3 for r in summary.records)
    assert len(summary.records) == 12


def test_a_hopeless_budget_leaves_items_unfinished_and_the_next_call_continues_them(profile):
    plan = Plan(min_rounds=5, max_rounds=5, budget_s=0.03, round_s=0.01)
    summary = run(SimulatedDevice(), profile, plan=plan)
    assert set(summary.unfinished) == {item.name for item in ITEMS}
    assert any("continues" in warning for warning in summary.warnings)
    stored = sum(len(profile.rounds(SETUP).get(key, ())) for key in KEYS)
    assert stored > 0
    device = SimulatedDevice()
    assert len(run(device, profile, plan=dataclasses.replace(plan, budget_s=None)).records) == 12
    assert sum(visit.key in KEYS for visit in device.visits) == 12 * 5 - stored


def test_a_slow_graph_does_not_eat_the_budget(profile):
    slow = WorkItem("slow", "network", ConvBlock(3, 512, 128, 128).graph())  # 23 ms, 400 times the others
    device = SimulatedDevice()
    run(device, profile, [*ITEMS, slow], Plan(min_rounds=5, max_rounds=5, visit_ms=10))
    visits = [visit for visit in device.visits if visit.key == slow.graph.key]
    assert [visit.runs for visit in visits] == [1] * 5  # it is guessed before the first


def test_rounds_are_no_longer_than_planned_from_the_first_one_on(profile):
    device = SimulatedDevice()
    run(device, profile, conv_items(100), Plan(min_rounds=5, max_rounds=5, round_s=0.02))
    assert len(device.rounds) > 10
    assert max(device.rounds) <= 0.02 + ANCHORS_S + 1e-9


LARGE = [WorkItem(f"large {i}", "block", ConvBlock(3, 200 + i, 64, 64).graph()) for i in range(40)]
"""0.5 s a sweep."""


@pytest.mark.parametrize(("slowness", "budget_s"), [(1.0, 1.0), (3.0, 2.0), (10.0, 5.0)])
def test_a_budget_for_less_than_three_sweeps_gives_the_first_items_their_record(profile, slowness, budget_s):
    device = SimulatedDevice(noise=0.01, slowdown=lambda now: slowness)
    plan = Plan(budget_s=10 * budget_s, visit_ms=10)
    whole = run(device, profile, LARGE, plan)
    assert len(whole.records) == 40
    with ProfileFile(profile.path.with_name("short"), create=True) as other:
        device = SimulatedDevice(noise=0.01, slowdown=lambda now: slowness)
        plan = dataclasses.replace(plan, budget_s=budget_s, round_s=0.5)
        short = run(device, other, LARGE, plan)
    names = [item.name for item in LARGE]
    assert 3 <= len(short.records) < 40
    assert {r.name for r in short.records} >= set(names[: len(short.records) // 2])
    assert device.now < budget_s + 0.5 + ANCHORS_S * slowness


def test_a_budget_for_nothing_says_about_how_much_is_needed(profile):
    plan = Plan(budget_s=0.2, visit_ms=10, round_s=0.5)
    (told,) = [w for w in run(SimulatedDevice(), profile, LARGE, plan).warnings if "budget" in w]
    needed_s = float(re.search("about ([0-9]+) s more", told)[1])
    more = dataclasses.replace(plan, budget_s=needed_s)
    assert run(SimulatedDevice(), profile, LARGE, more).unfinished == ()


def test_a_round_that_lasts_much_longer_than_it_should_is_given_up_when_the_budget_is_out(profile):
    device = SimulatedDevice(slowdown=lambda now: 1000.0)
    summary = run(device, profile, plan=Plan(budget_s=1.0, round_s=0.5))
    assert summary.records == ()
    assert device.now < 60  # a whole round takes hours


def test_progress_moves_within_the_first_round(profile):
    seen = []
    device = SimulatedDevice(slowdown=lambda now: 20.0)
    run(device, profile, LARGE, Plan(visit_ms=10), on_progress=seen.append)
    first = [p for p in seen if p.round == 0]
    assert len({p.share for p in first}) >= 5
    assert all(p.eta_s > 0 for p in first)
    assert [p.share for p in first] == sorted(p.share for p in first)
    assert first[-1].eta_s == pytest.approx(device.now, rel=0.7)


def test_only_as_many_graphs_are_loaded_at_once_as_the_memory_holds(profile):
    device = SimulatedDevice()
    graph = ITEMS[-1].graph
    plan = dataclasses.replace(EXACT, loaded_bytes=4.5 * (graph.bytes_read() + graph.bytes_written()))
    summary = run(device, profile, plan=plan)
    assert len(summary.records) == 12
    assert len(ANCHORS) + 4 <= device.most_loaded < len(ANCHORS) + 12
    assert set(device.loaded) == set(ANCHOR_KEYS)


def test_a_budget_is_shared_among_waves(profile):
    graph = ITEMS[-1].graph
    half = 5 * (graph.bytes_read() + graph.bytes_written())
    plan = Plan(min_rounds=3, max_rounds=1000, target_error=1e-9, budget_s=10.0, loaded_bytes=half)
    summary = run(SimulatedDevice(noise=0.1), profile, plan=plan)
    counts = [len(r.measurement.rounds) for r in summary.records]
    assert len(counts) == 12
    assert min(counts) > 0.3 * max(counts)


def test_once_the_budget_is_out_no_further_wave_is_loaded(profile):
    device = SimulatedDevice()
    summary = run(device, profile, plan=Plan(budget_s=1e-3, loaded_bytes=1.0))  # one graph a wave
    assert len(summary.unfinished) == 12
    assert len(device.loads) <= len(ANCHORS) + 1


def test_a_second_campaign_into_the_same_file_is_refused_while_the_first_runs(profile):
    device = SimulatedDevice()
    with exclusive(profile.path, SETUP.key, "held"), pytest.raises(ProfilerError, match="another campaign"):
        run(device, profile)
    assert device.loads == []
    assert len(run(device, profile).records) == 12


def test_setups_are_measured_separately_into_one_file(profile):
    run(SimulatedDevice(), profile)
    other = SimulatedDevice(setup=dataclasses.replace(SETUP, threads=4), slowdown=lambda now: 0.5)
    summary = run(other, profile)
    assert summary.reused == 0
    assert errors(summary.records) == pytest.approx([-0.5] * 12)
    assert errors(profile.records(SETUP)) == pytest.approx([0] * 17, abs=1e-12)


def test_progress_counts_up_to_the_total_and_tells_the_time_left(profile):
    seen = []
    device = SimulatedDevice(noise=0.02)
    run(device, profile, conv_items(100), Plan(max_rounds=20), on_progress=seen.append)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert (seen[-1].done, seen[-1].total) == (100, 100)
    assert seen[-1].elapsed_s == device.now
    assert all(p.eta_s is None or p.eta_s >= 0 for p in seen)
    halfway = next(p for p in seen if p.elapsed_s > device.now / 2)
    assert halfway.eta_s == pytest.approx(device.now / 2, rel=0.7)
    assert seen[-1].blocks_per_s == pytest.approx(100 / device.now)


def test_the_order_of_rounds_follows_from_the_seed(tmp_path):
    def order(seed, name):
        device = SimulatedDevice()
        with ProfileFile(tmp_path / name, create=True) as file:
            run(device, file, seed=seed)
        return [visit.key for visit in device.visits]

    assert order(1, "a") == order(1, "b") != order(2, "c")


def test_conditions_are_stored_with_each_round(profile):
    run(SimulatedDevice(), profile)
    assert [info.conditions for info in profile.round_log(SETUP)] == [{"load_1min": 0.25}] * 4


def test_other_programs_that_keep_the_machine_busy_are_worth_a_warning(profile):
    class Busy(SimulatedDevice):
        def _conditions(self):
            return {"other_cpus": 1.5}

    assert any("1.5 cores busy" in warning for warning in run(Busy(), profile).warnings)


def test_latencies_whose_rounds_disagree_are_called_unstable(profile):
    summary = run(SimulatedDevice(noise=0.5), profile)
    unstable = sum(not r.measurement.is_stable for r in summary.records)
    assert unstable > 0
    assert any(warning.startswith(f"{unstable} of 12 latencies are unstable") for warning in summary.warnings)
