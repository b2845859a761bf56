"""The final choice by comparison, on losses whose best network is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from netlathe.archspace.decisions import Choices
from netlathe.search.costs import Constraint, CostTable
from netlathe.search.decode import decode
from netlathe.search.final_choice import FEWEST_TO_FIT, ROUND, candidate_scores, compare_networks
from netlathe.training.errors import TrainingError

RNG = np.random.default_rng(0)
COSTS = RNG.exponential(1.0, (6, 4))
TABLE = CostTable("latency", "ms", 3.0, COSTS - COSTS.min(axis=1, keepdims=True))
LIMITS = (Constraint(TABLE, 3.0 + 0.4 * (TABLE.most_expensive - 3.0)),)
PARTS = RNG.normal(0, 0.1, (6, 4))
UNIFORM = np.log(np.full((6, 4), 0.25))


def loss(path: Choices, part: int = 0) -> float:
    return 1.0 + float(PARTS[np.arange(6), list(path)].sum())


def best() -> Choices:
    feasible = [p for p in itertools.product(range(4), repeat=6) if LIMITS[0].is_met(p)]
    return min(feasible, key=loss)


def test_only_different_networks_within_the_limits_are_compared_and_each_once() -> None:
    seen: list[Choices] = []

    def judge(path: Choices, part: int) -> float:
        seen.append(path)
        return loss(path)

    found = compare_networks(UNIFORM, LIMITS, judge, finalists=40, rng=np.random.default_rng(1))
    assert len(seen) == len(set(seen)) == len(found.losses) == 40
    assert all(LIMITS[0].is_met(path) for path in seen)


def test_a_space_of_few_networks_is_compared_whole() -> None:
    found = compare_networks(UNIFORM[:2, :2], [], lambda path, part: 0.0, finalists=40, rng=np.random.default_rng(1))
    assert set(found.losses) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_the_scores_find_the_best_network_where_parts_add_up() -> None:
    found = compare_networks(UNIFORM, LIMITS, loss, finalists=60, rng=np.random.default_rng(1))
    assert decode(candidate_scores(UNIFORM, LIMITS, found), LIMITS) == best()


def test_the_scores_are_better_than_probabilities_that_learned_the_price_of_latency() -> None:
    """log p = -(loss + price * cost): at a price that is too high, the decode leaves room below the limit."""
    priced = -(PARTS + 0.4 * TABLE.values) / 0.05
    priced -= np.log(np.exp(priced).sum(axis=1, keepdims=True))
    rng = np.random.default_rng(2)
    found = compare_networks(
        priced, LIMITS, lambda path, part: loss(path) + 0.01 * rng.standard_normal(), finalists=80, rng=rng
    )
    chosen = decode(candidate_scores(priced, LIMITS, found), LIMITS)
    assert loss(decode(priced, LIMITS)) > loss(best()) + 0.1
    assert loss(chosen) < loss(best()) + 0.03


@pytest.mark.parametrize("finalists", [1, 2, 5, 8, 12])
def test_few_finalists_stay_near_what_the_search_found(finalists: int) -> None:
    """Nothing is known of most candidates then but their probabilities."""
    log_p = np.log(RNG.dirichlet(np.ones(4), 6))
    found = compare_networks(log_p, LIMITS, loss, finalists=finalists, rng=np.random.default_rng(3))
    scores = candidate_scores(log_p, LIMITS, found)
    assert np.isfinite(scores).all()
    assert LIMITS[0].is_met(decode(scores, LIMITS))
    if finalists < FEWEST_TO_FIT:
        assert (scores == log_p).all()


def test_a_network_without_a_cross_entropy_is_named() -> None:
    with pytest.raises(TrainingError, match=r"comparing networks, choices \d-\d-\d-\d-\d-\d"):
        compare_networks(UNIFORM, LIMITS, lambda path, part: float("nan"), finalists=4, rng=np.random.default_rng(1))


def test_a_dropped_candidate_is_neither_compared_nor_scored() -> None:
    dropped = UNIFORM.copy()
    dropped[2, 1] = -np.inf
    found = compare_networks(dropped, LIMITS, loss, finalists=50, rng=np.random.default_rng(1))
    assert all(path[2] != 1 for path in found.losses)
    assert candidate_scores(dropped, LIMITS, found)[2, 1] == -np.inf


def test_later_rounds_draw_what_the_first_taught_and_go_on_looking_all_over() -> None:
    seen: list[Choices] = []

    def judge(path: Choices, part: int) -> float:
        seen.append(path)
        return loss(path) + 0.02 * float(np.random.default_rng(path).standard_normal())

    compare_networks(UNIFORM, LIMITS, judge, finalists=4 * ROUND, rng=np.random.default_rng(1))
    assert len(seen) == len(set(seen)) == 4 * ROUND
    excess = np.array([loss(path) - loss(best()) for path in seen])
    first, later = excess[: 2 * ROUND], excess[2 * ROUND :]
    assert later.min() < 0.2 * first.min()
    assert np.median(later) > 0.5 * np.median(first)


def test_the_better_networks_are_seen_on_more_images_and_all_on_the_first() -> None:
    def judge(path: Choices, part: int) -> float:
        return loss(path) + 0.3 * part  # later parts are harder for all alike

    found = compare_networks(UNIFORM, LIMITS, judge, finalists=2 * ROUND, parts=4, rng=np.random.default_rng(1))
    assert sum(map(len, found.losses.values())) == 2 * len(found.losses)
    whole = [path for path, losses in found.losses.items() if len(losses) == 4]
    once = [path for path, losses in found.losses.items() if len(losses) == 1]
    assert len(whole) >= 8
    assert max(loss(path) for path in whole[:-1]) < min(loss(path) for path in once)
    means = found.means()
    assert [means[path] - loss(path) for path in means] == pytest.approx([0.45] * len(means))


def test_offered_networks_are_compared_on_all_images() -> None:
    offered = [(0, 0, 0, 0, 0, 0), TABLE.cheapest]
    found = compare_networks(
        UNIFORM, LIMITS, loss, finalists=ROUND, parts=3, offered=offered, rng=np.random.default_rng(1)
    )
    assert all(len(found.losses[path]) == 3 for path in offered)
    assert len(found.losses) == ROUND


def test_what_other_comparisons_saw_counts_but_not_their_level() -> None:
    """The other comparison's weights are worse by one for all networks."""
    rng = np.random.default_rng(4)
    networks = {tuple(rng.integers(0, 4, 6).tolist()) for _ in range(80)}
    earlier = {path: 1.0 + loss(path) for path in networks}
    few = compare_networks(UNIFORM, LIMITS, loss, finalists=FEWEST_TO_FIT, rng=np.random.default_rng(1))
    alone, with_others = (decode(candidate_scores(UNIFORM, LIMITS, few, x), LIMITS) for x in ([], [earlier]))
    assert loss(with_others) == loss(best()) < loss(alone)


def test_equal_seeds_compare_equal_networks() -> None:
    one, other = (
        compare_networks(UNIFORM, LIMITS, loss, finalists=64, parts=2, rng=np.random.default_rng(7)) for _ in range(2)
    )
    assert list(one.losses.items()) == list(other.losses.items())
