"""Which blocks to measure next."""

from __future__ import annotations

import math

import numpy as np
import pytest
from synthetic_latency import block_records, head_and_stem_records, random_blocks, random_network, true_latency_ms

from netlathe.archspace.blocks import ConvBlock, MBConv, Skip
from netlathe.archspace.graph import Graph
from netlathe.predictor import LatencyPredictor
from netlathe.predictor.errors import PredictorError, UnknownOpError
from netlathe.predictor.features.item_features import work_terms
from netlathe.predictor.features.op_work import PLAIN_MOVES, op_classes_of
from netlathe.predictor.selection import choose
from netlathe.predictor.transfer.few_shot import covariance
from netlathe.predictor.transfer.prior import Prior
from netlathe.predictor.transfer.robust import NOISE


def graphs(n: int, seed: int = 0) -> list[Graph]:
    return [block.graph() for block in random_blocks(n, seed)]


def prior_of(items: list[Graph], devices: int = 3) -> Prior:
    """Devices whose speed depends differently on the size of the work."""
    truth = np.array([true_latency_ms(item) for item in items])
    return Prior.learn({f"d{d}": (items, truth ** (1 + 0.1 * d) * (1 + d)) for d in range(devices)})


def test_the_choice_is_distinct_repeatable_and_its_beginning_is_the_choice_of_fewer() -> None:
    pool = graphs(60)
    ten = choose(pool, 10)
    assert len(set(ten)) == 10
    assert choose(pool, 10) == ten
    assert choose(pool, 4) == ten[:4]


def test_more_than_there_are_gives_all_and_nothing_left_gives_none() -> None:
    pool = graphs(7)
    assert sorted(choose(pool, 100)) == list(range(7))
    assert choose(pool, 3, pending=pool) == []
    assert choose(pool, 3, measured=pool, latency_ms=[1.0] * 7) == []
    assert choose(pool, 0) == []
    assert choose([], 5) == []


def test_nothing_is_chosen_twice_and_nothing_that_does_nothing() -> None:
    block, other = graphs(2)
    skip = Skip(16, 16, 14, 14).graph()
    assert not skip.nodes
    assert sorted(choose([skip, block, block, other, skip], 5)) == [1, 3]
    assert choose([skip, block, other], 5, pending=[block, skip]) == [2]
    assert choose([skip, block, other], 5, measured=[block, skip], latency_ms=[1.0, 1.0]) == [2]


def test_an_op_that_only_one_block_has_is_measured_early() -> None:
    pool = graphs(60)
    pool.insert(37, ConvBlock(3, 16, 80, 80, 2).graph())
    first = choose(pool, 3)
    assert 37 in first
    assert op_classes_of(work_terms([pool[i] for i in first])) >= op_classes_of(work_terms(pool)) - set(PLAIN_MOVES)


def test_an_op_that_is_measured_already_needs_no_block_of_its_own() -> None:
    stem = ConvBlock(3, 32, 96, 96, 2).graph()
    pool = [*graphs(60), ConvBlock(3, 16, 80, 80, 2).graph()]
    assert 60 in choose(pool, 5)
    assert 60 not in choose(pool, 5, pending=[stem])
    assert 60 not in choose(pool, 5, measured=[stem], latency_ms=[0.1])


def test_what_is_measured_already_is_not_asked_for_again_under_another_size() -> None:
    """All blocks of one kind are known: the first pick is one of the other kind."""
    known = [MBConv(24, 24, side, side, kernel=3).graph() for side in (14, 20, 28, 40, 56)]
    pool = [MBConv(24, 24, side, side, kernel=k).graph() for k in (3, 5) for side in (12, 16, 24, 32, 48)]
    (first,) = choose(pool, 1, pending=known)
    assert first >= 5


@pytest.mark.parametrize("pending", [0, 3])
def test_each_pick_leaves_the_least_variance_over_the_rest(pending: int) -> None:
    """Against the posterior written out: K - K (K + noise)^-1 K, for every candidate in turn."""
    everything = graphs(12 + pending)
    prior = prior_of(everything)
    known = prior.on_known_devices(everything)
    k = covariance(prior, known, known)
    taken = list(range(pending))
    for place in choose(everything[pending:], 4, pending=everything[:pending], prior=prior):

        def left(candidate: int) -> float:
            rows = [*taken, candidate]
            solved = np.linalg.solve(k[np.ix_(rows, rows)] + NOISE**2 * np.eye(len(rows)), k[rows])
            return float(np.diag(k - k[:, rows] @ solved)[pending:].sum())

        best = min(left(candidate) for candidate in range(pending, len(everything)) if candidate not in taken)
        assert left(pending + place) == pytest.approx(best, rel=1e-9)
        taken.append(pending + place)


def test_whole_networks_in_pieces_are_chosen_as_well() -> None:
    networks = [tuple(random_network(seed).segments()) for seed in range(12)]
    ms = [sum(map(true_latency_ms, pieces)) for pieces in networks]
    prior = Prior.learn({"slow": (networks, ms), "fast": (networks, [x**0.9 for x in ms])})
    assert len(set(choose(networks, 5, prior=prior))) == 5
    assert choose([*networks, networks[0]], 20, pending=networks[:1], prior=prior)[-1] < 12


def test_the_unit_of_the_latencies_does_not_matter() -> None:
    pool, measured = graphs(40), graphs(10, seed=1)
    ms = [true_latency_ms(graph) for graph in measured]
    chosen = choose(pool, 8, measured=measured, latency_ms=ms)
    assert choose(pool, 8, measured=measured, latency_ms=[1000 * x for x in ms]) == chosen


def test_rates_as_measured_take_the_place_of_typical_ones() -> None:
    """On the synthetic device 7x7 depthwise convolutions take 40 times as long as usual."""
    pool, measured = graphs(90), graphs(12, seed=1)
    ms = [true_latency_ms(graph) for graph in measured]
    typical = choose(pool, 20, pending=measured)
    assert choose(pool, 20, measured=measured, latency_ms=ms) != typical


def test_a_model_learns_more_from_chosen_blocks_than_from_random_ones() -> None:
    records = [*block_records(random_blocks(150), noise=0.02), *head_and_stem_records()]
    items = [record.graph for record in records]
    truth = np.array([true_latency_ms(item) for item in items])

    def error(picks: list[int]) -> float:
        model = LatencyPredictor(residual="none").fit([records[i] for i in picks])
        known = model.knows(items)
        predicted = model.predict([item for item, is_known in zip(items, known, strict=True) if is_known])
        return float(np.mean(np.abs(predicted / truth[known] - 1)))

    chosen = choose(items, 12)
    random = [np.random.default_rng(seed).permutation(len(items))[:12].tolist() for seed in range(5)]
    assert LatencyPredictor(residual="none").fit([records[i] for i in chosen]).knows(items).all()
    assert error(chosen) < 0.7 * np.mean([error(picks) for picks in random])


def test_of_very_many_a_part_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netlathe.predictor.selection._MOST_REFERENCES", 20)
    pool = graphs(60)
    for seed in (0, 1):
        chosen = choose(pool, 6, seed=seed)
        assert len(set(chosen)) == 6
        assert choose(pool, 6, seed=seed) == chosen
    assert choose(pool, 6, seed=0) != choose(pool, 6, seed=1)


def test_what_cannot_be_chosen_from_is_one_clear_error() -> None:
    pool = graphs(4)
    with pytest.raises(PredictorError, match="must not be negative, got -1"):
        choose(pool, -1)
    with pytest.raises(PredictorError, match="1 measured items have 2 latencies"):
        choose(pool, 1, measured=pool[:1], latency_ms=[1.0, 2.0])
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(PredictorError, match="leave failed measurements out"):
            choose(pool, 1, measured=pool[:1], latency_ms=[bad])
    with pytest.raises(UnknownOpError):
        choose([ConvBlock(3, 16, 80, 80, 2).graph()], 1, prior=prior_of(pool))
