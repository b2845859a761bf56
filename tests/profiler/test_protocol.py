from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlathe.archspace.records import Measurement, Round
from netlathe.profiler import ledger as ledger_module
from netlathe.profiler import protocol
from netlathe.profiler.errors import MeasurementError
from netlathe.profiler.ledger import Ledger
from netlathe.profiler.protocol import (
    ANCHORS,
    REFERENCE_ROUNDS,
    Plan,
    arrange,
    is_done,
    missing_rounds,
    round_drifts,
    split,
)

PLAN = Plan()
KEYS = [f"g{i}" for i in range(20)]
ANCHOR_KEYS = ["a0", "a1", "a2", "a3", "a4"]
LATENCIES = dict.fromkeys([*KEYS, *ANCHOR_KEYS], 1.0)


def rounds(*latencies_ms, drift=1.0):
    return [Round((ms * drift,), drift, float(at)) for at, ms in enumerate(latencies_ms)]


@pytest.mark.parametrize(
    "change",
    [
        {"runs": 0},
        {"warmups": -1},
        {"target_error": 0.0},
        {"budget_s": 0.0},
        {"budget_s": -1.0},
        {"anchor_visits": 0},
        {"visit_ms": 0.0},
        {"round_s": 0.0},
        {"loaded_bytes": 0.0},
        {"min_rounds": 2},
        {"min_rounds": 31},
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change):
    with pytest.raises(MeasurementError, match="plan"):
        Plan(**change)


def test_the_anchors_are_five_different_blocks_of_different_sizes():
    macs = [block.graph().macs for block in ANCHORS]
    assert len(set(ANCHORS)) == 5
    assert macs == sorted(macs)
    assert all(b > 1.5 * a for a, b in itertools.pairwise(macs))


@pytest.mark.parametrize(
    ("latency_ms", "runs", "warmups"),
    [(0.01, 5, 2), (10.0, 5, 2), (12.0, 4, 2), (30.0, 1, 1), (1e4, 1, 1)],
)
def test_a_visit_to_a_slow_graph_makes_fewer_runs_but_always_one(latency_ms, runs, warmups):
    visit = PLAN.visit("g", latency_ms)
    assert (visit.runs, visit.warmups) == (runs, warmups)
    assert PLAN.cost_ms(latency_ms) == pytest.approx((runs + warmups) * latency_ms)


@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=40), st.integers(0, 99))
def test_split_puts_every_graph_into_one_part_and_fills_parts_no_longer_than_a_round(latencies_ms, seed):
    latencies = {f"g{i}": ms for i, ms in enumerate(latencies_ms)}
    parts = split(list(latencies), latencies, PLAN, random.Random(seed))
    assert Counter(key for part in parts for key in part) == Counter(list(latencies))
    for part in parts:
        assert len(part) == 1 or sum(PLAN.cost_ms(latencies[key]) for key in part) <= 1e3 * PLAN.round_s


def test_orders_are_fresh_each_time_and_follow_from_the_seed():
    rng = random.Random(7)
    first, second = split(KEYS, LATENCIES, PLAN, rng), split(KEYS, LATENCIES, PLAN, rng)
    assert first != second
    assert split(KEYS, LATENCIES, PLAN, random.Random(7)) == first
    assert arrange(KEYS, ANCHOR_KEYS, LATENCIES, PLAN, rng) != arrange(KEYS, ANCHOR_KEYS, LATENCIES, PLAN, rng)


def test_a_round_visits_each_graph_once_and_each_anchor_once_in_each_third():
    order = [visit.key for visit in arrange(KEYS, ANCHOR_KEYS, LATENCIES, PLAN, random.Random(1))]
    assert Counter(order) == Counter(KEYS + 3 * ANCHOR_KEYS)
    counts = [len(KEYS[i::3]) + len(ANCHOR_KEYS) for i in range(3)]
    for start, count in zip((0, counts[0], counts[0] + counts[1]), counts, strict=True):
        assert set(ANCHOR_KEYS) <= set(order[start : start + count])


def test_an_anchor_that_is_itself_to_be_measured_is_visited_as_an_anchor_only():
    order = [visit.key for visit in arrange(["a0", "g0"], ANCHOR_KEYS, LATENCIES, PLAN, random.Random(1))]
    assert Counter(order)["a0"] == 3


def test_drift_of_a_steady_machine_is_one_and_of_a_round_of_double_times_two():
    steady = {"a": 1.0, "b": 10.0, "c": 3.0}
    slow = {key: 2 * ms for key, ms in steady.items()}
    assert round_drifts({0.0: steady, 1.0: steady}) == {0.0: 1.0, 1.0: 1.0}
    assert round_drifts({0.0: steady, 1.0: slow, 2.0: steady}) == {0.0: 1.0, 1.0: 2.0, 2.0: 1.0}


def test_the_first_rounds_set_the_level_for_good():
    steady = {"a": 1.0, "b": 10.0}
    slow = {key: 1.5 * ms for key, ms in steady.items()}
    log = {float(i): steady if i < REFERENCE_ROUNDS else slow for i in range(10 * REFERENCE_ROUNDS)}
    drifts = round_drifts(log)
    assert {drifts[i] for i in log if i < REFERENCE_ROUNDS} == {1.0}
    assert {drifts[i] for i in log if i >= REFERENCE_ROUNDS} == {1.5}


def test_one_disturbed_anchor_does_not_move_the_drift():
    steady = {"a": 1.0, "b": 10.0, "c": 3.0}
    assert round_drifts({0.0: steady, 1.0: {**steady, "a": 5.0}, 2.0: steady})[1.0] == 1.0


def test_a_round_that_lacks_an_anchor_is_judged_by_the_others_and_one_without_any_not_at_all():
    steady = {"a": 1.0, "b": 10.0}
    drifts = round_drifts({0.0: steady, 1.0: {"b": 15.0}, 2.0: steady, 3.0: {}})
    assert drifts == {0.0: 1.0, 1.0: 1.5, 2.0: 1.0}


def test_equal_rounds_are_done_at_min_rounds_and_not_before():
    assert not is_done(rounds(*[1.0] * (PLAN.min_rounds - 1)), PLAN)
    assert is_done(rounds(*[1.0] * PLAN.min_rounds), PLAN)


def test_rounds_that_disagree_go_on_until_max_rounds():
    noisy = [1.0, 1.5] * PLAN.max_rounds
    assert not is_done(rounds(*noisy[: PLAN.max_rounds - 1]), PLAN)
    assert is_done(rounds(*noisy[: PLAN.max_rounds]), PLAN)


def test_rounds_of_an_upset_machine_do_not_count_towards_min_rounds():
    calm, upset = rounds(*[1.0] * (PLAN.min_rounds - 1)), rounds(*[1.0] * 5, drift=1.5)
    assert not is_done(calm + upset, PLAN)
    assert is_done(calm + rounds(1.0) + upset, PLAN)


def test_missing_rounds_grow_with_the_square_of_the_error():
    plan = Plan(target_error=0.01, max_rounds=1000)
    few = rounds(*[1.0, 1.1] * 10)
    error = Measurement(tuple(few)).relative_error
    assert missing_rounds(few, plan) == pytest.approx(20 * (error / 0.01) ** 2 - 20)
    assert missing_rounds([], plan) == plan.min_rounds
    assert missing_rounds(rounds(*[1.0] * 10), plan) == 0


def test_the_ledger_corrects_each_round_by_its_anchors():
    ledger = Ledger({}, ["a"])
    for at, factor in enumerate((1.0, 1.5, 1.0)):
        ledger.add(float(at), {"a": [2.0 * factor], "g": [5.0 * factor, 6.0 * factor]})
    assert ledger.drifts == {0.0: 1.0, 1.0: 1.5, 2.0: 1.0}
    assert [r.latency_ms for r in ledger.rounds("g")] == pytest.approx([5.25] * 3)
    assert ledger.latency_ms("g") == 5.5
    assert ledger.latency_ms("unknown") is None


def test_only_the_first_rounds_move_earlier_drifts_and_the_ledger_tells_which():
    ledger, rng = Ledger({}, ["a", "b"]), random.Random(3)
    for at in range(2 * REFERENCE_ROUNDS):
        before = dict(ledger.drifts)
        previewed = ledger.preview(float(at), (times := {"a": [rng.random() + 1], "b": [rng.random() + 2]}))
        moved = ledger.add(float(at), times)
        assert {**before, **moved} == ledger.drifts == previewed
        assert ledger.drifts[at] == pytest.approx(previewed[at])
        assert at < REFERENCE_ROUNDS or set(moved) == {at}
    log = {at: {key: ledger.rounds(key)[at].samples_ms[0] for key in ("a", "b")} for at in range(2 * REFERENCE_ROUNDS)}
    assert ledger.drifts == round_drifts(log)


def test_a_late_round_costs_the_same_however_many_came_before(monkeypatch):
    counts = Counter()

    def count(name):
        real = getattr(protocol, name)
        for module in (protocol, ledger_module):
            monkeypatch.setattr(module, name, lambda *given: (counts.update([name]), real(*given))[1])

    count("drift_of")
    count("first_rounds")
    ledger, rng, spent = Ledger({}, ["a", "b"]), random.Random(4), []
    for at in range(5 * REFERENCE_ROUNDS):
        counts.clear()
        times = {"a": [rng.random() + 1], "b": [rng.random() + 2], "g": [1.0]}
        ledger.preview(float(at), times)
        ledger.add(float(at), times)
        spent.append((counts["drift_of"], counts["first_rounds"]))
    assert spent[REFERENCE_ROUNDS - 1] == (2 * REFERENCE_ROUNDS, 3)
    assert set(spent[REFERENCE_ROUNDS:]) == {(2, 0)}


def test_a_round_that_was_found_later_but_ran_among_the_first_moves_the_reference():
    steady, slow = {"a": [2.0]}, {"a": [4.0]}
    late, ordered = Ledger({}, ["a"]), Ledger({}, ["a"])
    times = [(float(at), slow if at < REFERENCE_ROUNDS // 2 else steady) for at in range(REFERENCE_ROUNDS + 1)]
    for at, samples in times:
        ordered.add(at, samples)
    for at, samples in times[1:]:
        late.add(at, samples)
    assert set(late.drifts.values()) == {1.0, 2.0}
    assert late.add(*times[0]) == {at: ordered.drifts[at] for at, _ in times}
    assert late.drifts == ordered.drifts
    assert ordered.drifts[0.0] == pytest.approx(4 / 3)


def test_the_ledger_goes_on_from_stored_rounds_with_one_reference_for_all():
    stored = {"a": [Round((2.0,), 1.0, 0.0), Round((2.0,), 1.0, 1.0)], "g": [Round((5.0,), 1.0, 0.0)]}
    ledger = Ledger(stored, ["a"])
    ledger.add(2.0, {"a": [3.0], "h": [15.0]})
    assert ledger.rounds("h")[0].latency_ms == pytest.approx(10.0)
    assert ledger.rounds("g")[0].latency_ms == 5.0


def test_stored_rounds_without_anchors_keep_the_drift_they_came_with():
    ledger = Ledger({"g": [Round((5.0,), 1.25, 0.0)]}, ["a"])
    ledger.add(1.0, {"a": [3.0], "g": [4.0]})
    assert [r.drift for r in ledger.rounds("g")] == [1.25, 1.0]


def test_a_round_in_which_no_anchor_ran_is_refused():
    with pytest.raises(MeasurementError, match="anchor"):
        Ledger({}, ["a"]).add(0.0, {"g": [1.0]})
