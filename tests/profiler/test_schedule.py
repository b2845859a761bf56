from __future__ import annotations

import random

import pytest
from simulated import conv_items

from netlathe.archspace.records import Round
from netlathe.profiler.ledger import Ledger
from netlathe.profiler.protocol import Plan
from netlathe.profiler.schedule import CAUTION, Schedule

GRAPHS = {item.graph.key: item.graph for item in conv_items(6)}
ANCHOR, *KEYS = GRAPHS
PLAN = Plan(runs=1, warmups=0, anchor_visits=1, round_s=1e6)


def schedule(*, rounds=None, plan=PLAN):
    """Graphs of 1 ms each, with so many rounds made already."""
    stored = {key: [Round((1.0,), 1.0, float(at)) for at in range(count)] for key, count in (rounds or {}).items()}
    return Schedule(plan, Ledger(stored, [ANCHOR]), [ANCHOR], GRAPHS, random.Random(0))


def test_a_graph_that_never_ran_is_guessed_by_its_work_over_the_speed_of_those_that_did():
    found = schedule(rounds={ANCHOR: 1})
    small, large = (GRAPHS[key] for key in (ANCHOR, KEYS[-1]))
    works = [one.macs + one.bytes_read() + one.bytes_written() for one in (small, large)]
    assert found.latencies_ms(KEYS[-1:])[KEYS[-1]] == pytest.approx(CAUTION * works[1] / works[0])
    assert found.is_guessed(KEYS)
    assert not found.is_guessed([ANCHOR])


def test_a_wave_is_what_the_memory_holds_and_never_empty():
    def sizes(share):
        needed = sum(GRAPHS[key].bytes_read() + GRAPHS[key].bytes_written() for key in KEYS)
        plan = Plan(loaded_bytes=max(1.0, share * needed))
        return schedule(plan=plan).next_wave(KEYS)

    assert sizes(1.0) == KEYS
    assert 0 < len(sizes(0.5)) < len(KEYS)
    assert sizes(0.0) == KEYS[:1]


def test_time_for_three_rounds_of_two_graphs_goes_to_those_nearest_to_their_record():
    made = {ANCHOR: 3, **dict.fromkeys(KEYS[:3], 0), **dict.fromkeys(KEYS[3:], 2)}
    found = schedule(rounds={key: count for key, count in made.items() if count})
    latencies = dict.fromkeys(GRAPHS, 1.0)
    # two graphs lack a visit each, in one round with one of the anchor
    assert found.affordable(KEYS, latencies, left_ms=3.0) == KEYS[3:]
    assert found.affordable(KEYS, latencies, left_ms=2.0) == KEYS[3:4]
    assert found.affordable(KEYS, latencies, left_ms=1e6) == KEYS


def test_graphs_that_never_ran_come_in_as_many_rounds_as_were_made():
    plan = Plan(runs=1, warmups=0, round_s=1e-3)  # a graph a round
    latencies = dict.fromkeys(GRAPHS, 1.0)
    found = schedule(rounds={ANCHOR: 1, KEYS[0]: 1}, plan=plan)
    for made, rounds in ((0, 1), (1, 1), (3, 3), (9, 4)):
        planned = found.next_rounds(KEYS, latencies, made=made)
        assert len(planned) == rounds
        assert all(KEYS[0] not in keys for keys in planned)
    assert len(found.next_rounds(KEYS[:1], latencies, made=0)) == 1


def test_the_time_until_each_graph_has_a_record_counts_missing_visits_and_anchors():
    found = schedule(rounds={ANCHOR: 3, KEYS[0]: 1, KEYS[1]: 3})
    # two rounds of one graph and the anchor, 1 ms each
    assert found.time_to_record_ms(KEYS[:2]) == pytest.approx(4.0)
    assert found.time_to_record_ms([]) == 0.0
