"""The tree search: whatever unit scores are in, however few networks keep the limits, and what branches share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
from scipy.stats import f_oneway

from netlathe.archspace.decisions import Choices
from netlathe.search.strategies.blackbox.feasible import FeasibleSet, PriceLimit
from netlathe.search.strategies.blackbox.uct import UCT, Sharing, effect_of
from tests.search.strategies.blackbox.test_strategy_contract import (
    COUNTS,
    LARGE,
    Grid,
    feasible_of,
    run,
    score,
)


@pytest.mark.parametrize("sharing", get_args(Sharing))
def test_scores_in_another_unit_lead_to_the_same_networks(sharing: Sharing) -> None:
    def asked(scale: float, shift: float) -> list[Choices]:
        own = UCT(feasible_of(COUNTS), sharing=sharing, seed=1)
        return run(own, 30, value=lambda choices: scale * round(score(choices), 1) + shift)

    assert asked(1, 0) == asked(1000, 0) == asked(1, -5e4) == asked(1e-6, 3)


def weight(networks: Sequence[Choices]) -> list[float]:
    return [1.0 + sum(one) for one in networks]


@pytest.mark.parametrize("sharing", get_args(Sharing))
def test_a_limit_that_one_network_of_a_hundred_keeps_is_searched_as_well(sharing: Sharing) -> None:
    """A price of whole networks, which tells a descent nothing on its way down, in a space too large to list."""
    feasible = FeasibleSet(Grid(LARGE), prices=[PriceLimit("weight", weight, 16)])
    drawn = np.random.default_rng(0).integers(LARGE, size=(20_000, len(LARGE)))
    assert np.mean([price <= 16 for price in weight([tuple(row) for row in drawn.tolist()])]) < 0.01

    def value(choices: Choices) -> float:
        return sum((1 + decision % 3) * option for decision, option in enumerate(choices))

    found = run(UCT(feasible, sharing=sharing, seed=0), 60, value)
    assert len(set(found)) == 60
    assert all(map(feasible.contains, found))
    first, last = (float(np.mean([value(one) for one in part])) for part in (found[:10], found[-10:]))
    if sharing == "decisions":
        assert last > first + 3


def test_what_branches_share_finds_better_networks() -> None:
    """In a space too large for a tree alone: networks that are asked for last, by the sum of their options' numbers."""

    def mean(sharing: Sharing) -> float:
        found = run(UCT(feasible_of(LARGE, share=0.6), sharing=sharing, seed=0), 50, sum)
        return float(np.mean([sum(one) for one in found[-20:]]))

    assert mean("decisions") > mean("none") + 2


def test_the_effect_of_a_decision_is_the_f_statistic_of_its_options() -> None:
    chosen = np.array([0, 0, 2, 2, 2, 3, 3])
    rewards = np.array([0.1, 0.2, 0.9, 0.7, 0.8, 0.3, 0.35])
    groups = [rewards[chosen == option] for option in (0, 2, 3)]
    assert effect_of(chosen, rewards) == pytest.approx(f_oneway(*groups).statistic)
    assert effect_of(chosen, np.ones(7)) == 0
    assert effect_of(np.zeros(7, dtype=int), rewards) == 0


def test_options_are_open_by_what_was_chosen_before_or_after() -> None:
    feasible = feasible_of((3, 4, 2), share=0.4)  # costs 0 1 2, 0 2 4 6, 0 3: at most 4.4 above the base
    assert feasible.open_options(()) == [0, 1, 2]
    assert feasible.open_options((2,)) == [0, 1]
    assert feasible.open_options((-1, -1, 1), 0) == [0, 1]
    assert feasible.open_options((-1, 2, -1), 2) == [0]
