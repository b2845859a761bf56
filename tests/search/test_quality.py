"""The last choice by looking, on losses whose best network is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from netlathe.search.costs import Constraint, CostTable, decode
from netlathe.search.parameters import Path
from netlathe.search.quality import FEWEST, look, quality
from netlathe.training.errors import TrainingError

RNG = np.random.default_rng(0)
COSTS = RNG.exponential(1.0, (6, 4))
TABLE = CostTable("latency", "ms", 3.0, COSTS - COSTS.min(axis=1, keepdims=True))
LIMITS = (Constraint(TABLE, 3.0 + 0.4 * (TABLE.dearest - 3.0)),)
PARTS = RNG.normal(0, 0.1, (6, 4))
UNIFORM = np.log(np.full((6, 4), 0.25))


def loss(path: Path) -> float:
    return 1.0 + float(PARTS[np.arange(6), list(path)].sum())


def best() -> Path:
    feasible = [p for p in itertools.product(range(4), repeat=6) if LIMITS[0].is_met(p)]
    return min(feasible, key=loss)


def test_only_different_networks_within_the_limits_are_looked_at_and_each_once() -> None:
    seen: list[Path] = []

    def judge(path: Path) -> float:
        seen.append(path)
        return loss(path)

    found = look(UNIFORM, LIMITS, judge, looks=40, rng=np.random.default_rng(1))
    assert len(seen) == len(set(seen)) == len(found) == 40
    assert all(LIMITS[0].is_met(path) for path in seen)


def test_a_space_of_few_networks_is_looked_at_whole() -> None:
    found = look(UNIFORM[:2, :2], [], lambda path: 0.0, looks=40, rng=np.random.default_rng(1))
    assert set(found) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_quality_finds_the_best_network_where_parts_add_up() -> None:
    found = look(UNIFORM, LIMITS, loss, looks=60, rng=np.random.default_rng(1))
    assert decode(quality(UNIFORM, LIMITS, found), LIMITS) == best()


def test_quality_is_better_than_probabilities_that_learned_the_price_of_latency() -> None:
    """log p = -(loss + price * cost): at a price that is too high, the decode leaves room below the limit."""
    priced = -(PARTS + 0.4 * TABLE.values) / 0.05
    priced -= np.log(np.exp(priced).sum(axis=1, keepdims=True))
    rng = np.random.default_rng(2)
    found = look(priced, LIMITS, lambda path: loss(path) + 0.01 * rng.standard_normal(), looks=80, rng=rng)
    chosen = decode(quality(priced, LIMITS, found), LIMITS)
    assert loss(decode(priced, LIMITS)) > loss(best()) + 0.1
    assert loss(chosen) < loss(best()) + 0.03


@pytest.mark.parametrize("looks", [1, 2, 5, 8, 12])
def test_few_looks_stay_near_what_the_search_found(looks: int) -> None:
    """Nothing is known of most candidates then but their probabilities."""
    log_p = np.log(RNG.dirichlet(np.ones(4), 6))
    found = look(log_p, LIMITS, loss, looks=looks, rng=np.random.default_rng(3))
    scores = quality(log_p, LIMITS, found)
    assert np.isfinite(scores).all()
    assert LIMITS[0].is_met(decode(scores, LIMITS))
    if looks < FEWEST:
        assert (scores == log_p).all()


def test_a_network_without_a_cross_entropy_is_named() -> None:
    with pytest.raises(TrainingError, match=r"comparing networks, choices \d-\d-\d-\d-\d-\d"):
        look(UNIFORM, LIMITS, lambda path: float("nan"), looks=4, rng=np.random.default_rng(1))


def test_a_dropped_candidate_is_neither_looked_at_nor_scored() -> None:
    dropped = UNIFORM.copy()
    dropped[2, 1] = -np.inf
    found = look(dropped, LIMITS, loss, looks=50, rng=np.random.default_rng(1))
    assert all(path[2] != 1 for path in found)
    assert quality(dropped, LIMITS, found)[2, 1] == -np.inf
