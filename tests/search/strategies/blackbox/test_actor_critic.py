"""The agent that decides step by step: its states and actions, bounded by the limits, and what it learns."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_strategy_contract import COUNTS, LARGE, Grid, feasible_of, run, score

from netlathe.archspace.decisions import Choices
from netlathe.runs.settings import LookSettings
from netlathe.search.costs import Constraint, CostTable
from netlathe.search.errors import SearchError
from netlathe.search.strategies.blackbox import feasible as feasible_sets
from netlathe.search.strategies.blackbox.actor_critic import ActorCritic
from netlathe.search.strategies.blackbox.episodes import Episodes
from netlathe.search.strategies.blackbox.feasible import FeasibleSet
from netlathe.search.strategies.blackbox.names import make_strategy

AHEAD = 3.0
"""Points of the closed-form score by which the agent is ahead of random draws, at the least, mean over its seeds."""


def table(counts: Sequence[int], numbers: Sequence[float]) -> CostTable:
    """A cost of the given values above the cheapest options."""
    values = np.full((len(counts), max(counts)), np.nan)
    left = iter(numbers)
    for decision, count in enumerate(counts):
        row = np.array([next(left) for _ in range(count)])
        values[decision, :count] = row - row.min()
    return CostTable("cost", "", 1.0, values)


@st.composite
def limited(draw: st.DrawFn) -> FeasibleSet:
    """Up to five decisions under one to three tables, with limits that some network keeps."""
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    number = st.floats(0, 10, allow_nan=False)
    tables = [
        table(counts, draw(st.lists(number, min_size=sum(counts), max_size=sum(counts))))
        for _ in range(draw(st.integers(1, 3)))
    ]
    kept = [draw(st.integers(0, count - 1)) for count in counts]
    slack = draw(st.floats(1.0, 1.3))
    return FeasibleSet(Grid(tuple(counts)), [Constraint(one, one.cost(kept) * slack) for one in tables])


@settings(max_examples=30, deadline=None)
@given(limited(), st.integers(0, 2**31))
def test_bounded_actions_end_within_all_limits_and_can_reach_every_network_there(
    feasible: FeasibleSet, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(5):
        prefix: Choices = ()
        for _ in feasible.counts:
            prefix = (*prefix, int(rng.choice(feasible.open_options(prefix))))
        assert feasible.contains(prefix)
    every = [one for one in itertools.product(*map(range, feasible.counts)) if feasible.contains(one)]
    assert sorted(feasible.walk(rng)) == every
    for depth, count in enumerate(feasible.counts):
        for prefix in {one[:depth] for one in every}:
            assert feasible.open_options(prefix) == sorted({one[depth] for one in every if one[:depth] == prefix})
            assert count >= len(feasible.open_options(prefix)) > 0


def test_agents_propose_networks_within_several_limits_of_a_space_that_is_not_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feasible_sets, "MOST_LISTED", 0)
    rng = np.random.default_rng(0)
    tables = [table(LARGE[:6], rng.uniform(0, 10, 36).tolist()) for _ in range(2)]
    limits = [Constraint(one, one.base + 0.3 * (one.most_expensive - one.base)) for one in tables]
    agent = ActorCritic(FeasibleSet(Grid(LARGE[:6]), limits), start=0)
    for look in range(8):
        choices = agent.propose(np.random.default_rng(look))
        assert choices is not None
        assert all(one.is_met(choices) for one in limits)
        if not agent.is_known(choices):
            agent.tell(choices, score(choices))


def test_a_state_tells_what_was_chosen_and_what_it_leaves_of_the_limit() -> None:
    cost = table((2, 3), [0, 2, 6, 0, 3])  # the whole range is 2 + 6
    episodes = Episodes(FeasibleSet(Grid((2, 3)), [Constraint(cost, 1.0 + 6.0)]))
    assert episodes.actions_of((1, 0)) == [1, 2]  # by cost, the cheapest first: options 1, 2, 0
    assert episodes.actions(1, [0, 1, 2]).tolist() == [2, 0, 1]
    begun, ended = episodes.state((1,)), episodes.state((1, 2))
    assert begun.tolist() == [0, 1, *(0, 1, 0), *(0, 0, 0), 6 / 8, 2 / 8, 4 / 8, 6 / 8]
    assert ended.tolist() == [0, 0, *(0, 1, 0), *(0, 1, 0), 0, 5 / 8, 1 / 8, 0]
    assert episodes.state_size == len(episodes.state(())) == len(begun)


def test_a_separable_score_is_learned_within_60_look_ups() -> None:
    """The best of 4,096 networks has 36 points, a random one 18: a sum over six decisions of four options."""
    counts = (4,) * 6
    points = [np.random.default_rng(decision).permutation(4) * 2.0 for decision in range(6)]

    def total(choices: Choices) -> float:
        return float(sum(row[option] for row, option in zip(points, choices, strict=True)))

    def late(name: str, seed: int) -> float:
        """Mean score of the last 20 networks that were asked for."""
        seen = run(make_strategy(name, FeasibleSet(Grid(counts)), seed=seed), 60, total)
        return float(np.mean([total(one) for one in seen[-20:]]))

    ahead = [late("actor-critic", seed) - late("random", seed) for seed in range(3)]
    assert min(ahead) > 0
    assert np.mean(ahead) > AHEAD


def test_no_generator_but_its_own_is_drawn_from() -> None:
    def states() -> tuple[object, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index, union-attr]

    before = states()
    agent = ActorCritic(feasible_of(COUNTS), start=2)
    run(agent, 4)
    assert states() == before


def test_what_other_generators_do_changes_nothing() -> None:
    one = run(ActorCritic(feasible_of(COUNTS), start=2), 6)
    torch.manual_seed(77)
    np.random.seed(77)
    assert run(ActorCritic(feasible_of(COUNTS), start=2), 6) == one


@pytest.mark.parametrize("package", ["stable_baselines3", "gymnasium"])
def test_without_its_package_one_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    told = r'actor-critic needs the package stable-baselines3; pip install "netlathe\[rl\]"'
    with pytest.raises(SearchError, match=told):
        make_strategy("actor-critic", feasible_of(COUNTS))
    with pytest.raises(SearchError, match=told):
        LookSettings("actor-critic")
    LookSettings("ego")
