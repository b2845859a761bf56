"""One contract, kept by every black-box strategy: feasible networks only, none twice, the same by the same seed and
history, whatever was interrupted, failed or ran out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from netlathe.archspace.decisions import Choices
from netlathe.archspace.graph import Graph
from netlathe.search.costs import Constraint, CostTable
from netlathe.search.errors import SearchError, TargetError
from netlathe.search.strategies.blackbox.actor_critic import ActorCritic
from netlathe.search.strategies.blackbox.feasible import FeasibleSet, PriceLimit
from netlathe.search.strategies.blackbox.names import STRATEGIES, make_strategy
from netlathe.search.strategies.blackbox.strategy import Strategy
from netlathe.search.strategies.blackbox.uct import UCT


@dataclass(frozen=True)
class Grid:
    """A space of numbers; no graph is asked for."""

    option_counts: tuple[int, ...]
    name: str = "grid"

    @property
    def reference(self) -> Choices:
        return (0,) * len(self.option_counts)

    def network_name(self, choices: Sequence[int]) -> str:
        return "-".join(map(str, choices))

    def graph(self, choices: Sequence[int], batch: int = 1) -> Graph:
        raise AssertionError("strategies know no graphs")


def table_of(counts: tuple[int, ...], unit: str = "ms") -> CostTable:
    """Each option costs its number, times the decision's."""
    values = np.full((len(counts), max(counts)), np.nan)
    for decision, count in enumerate(counts):
        values[decision, :count] = np.arange(count) * (1 + decision % 3)
    return CostTable("cost", unit, 1.0, values)


def feasible_of(counts: tuple[int, ...], share: float = 0.4, prices: Sequence[PriceLimit] = ()) -> FeasibleSet:
    table = table_of(counts)
    limit = table.base + share * (table.most_expensive - table.base)
    return FeasibleSet(Grid(counts), [Constraint(table, limit)], prices)


def score(choices: Choices) -> float:
    """Better with each option, with some interaction of neighbours."""
    return sum(choices) + 0.7 * sum(a != b for a, b in itertools.pairwise(choices))


COUNTS, LARGE, TINY = (3, 4, 2, 5, 3, 4), (6,) * 12, (2, 3, 2)
NAMES = {
    **STRATEGIES,
    "actor-critic": lambda feasible, seed=0: ActorCritic(feasible, seed=seed, updates=1, batch=8, width=16),
    "uct, nothing shared": lambda feasible, seed=0: UCT(feasible, seed=seed, sharing="none"),
    "uct, states shared": lambda feasible, seed=0: UCT(feasible, seed=seed, sharing="states"),
}


def run(strategy: Strategy, looks: int, value: Callable[[Choices], float | None] = score) -> list[Choices]:
    """Networks in the order in which they were asked for."""
    seen = []
    for _ in range(looks):
        for choices in strategy.ask():
            seen.append(choices)
            strategy.tell(choices, value(choices))
    return seen


@pytest.mark.parametrize("name", NAMES)
class TestStrategyContract:
    def make(self, name: str, feasible: FeasibleSet, seed: int = 0) -> Strategy:
        return NAMES[name](feasible, seed=seed)

    def test_only_networks_within_the_limits_are_asked_for_and_none_twice(self, name: str) -> None:
        feasible = feasible_of(COUNTS)
        seen = run(self.make(name, feasible), 45)
        assert len(seen) == len(set(seen)) == 45
        assert all(feasible.constraints[0].is_met(one) for one in seen)

    def test_a_space_too_large_to_list_is_searched_within_the_limits(self, name: str) -> None:
        feasible = feasible_of(LARGE, share=0.15)
        assert feasible.listed is None
        seen = run(self.make(name, feasible), 25)
        assert len(seen) == len(set(seen))
        assert all(feasible.constraints[0].is_met(one) for one in seen)

    def test_several_at_once_differ_from_each_other_and_from_those_of_others(self, name: str) -> None:
        strategy = self.make(name, feasible_of(COUNTS))
        run(strategy, 22)
        others = [one for one in strategy.feasible.walk(np.random.default_rng(9)) if not strategy.is_known(one)][:3]
        for one in others:
            strategy.reserve(one)
        batch = strategy.ask(4)
        assert len(set(batch)) == 4
        assert not set(batch) & {*others, *strategy.told}
        for one in reversed([*batch, *others]):
            strategy.tell(one, score(one))
        assert not strategy.pending

    def test_equal_seeds_ask_alike_and_others_do_not(self, name: str) -> None:
        looks = 24
        one, same, other = (run(self.make(name, feasible_of(COUNTS), seed), looks) for seed in (3, 3, 4))
        assert one == same
        assert one != other

    def test_who_is_told_the_same_goes_on_alike(self, name: str) -> None:
        first = self.make(name, feasible_of(COUNTS), seed=5)
        run(first, 23, value=lambda choices: None if sum(choices) % 7 == 3 else score(choices))
        resumed = self.make(name, feasible_of(COUNTS), seed=5)
        for choices, value in first.told.items():
            resumed.tell(choices, value)
        looks = 8
        assert run(first, looks) == run(resumed, looks)

    def test_a_space_smaller_than_the_budget_is_looked_at_whole_and_then_there_is_nothing_more(self, name: str) -> None:
        feasible = feasible_of(TINY, share=0.6)
        every = set(feasible.walk(np.random.default_rng(0)))
        strategy = self.make(name, feasible)
        assert set(run(strategy, 20)) == every
        assert strategy.ask(2) == []
        assert 3 < len(every) < math.prod(TINY)

    def test_equal_scores_and_failures_end_no_search(self, name: str) -> None:
        looks = 24
        assert len(run(self.make(name, feasible_of(COUNTS)), looks, value=lambda choices: 1.0)) == looks
        assert len(run(self.make(name, feasible_of(COUNTS)), looks, value=lambda choices: None)) == looks

    def test_a_failed_look_up_is_no_number_and_is_not_looked_at_again(self, name: str) -> None:
        strategy = self.make(name, feasible_of(COUNTS))
        seen = run(strategy, 24, value=lambda choices: math.nan if choices[0] else score(choices))
        assert len(set(seen)) == 24
        assert {one for one, value in strategy.told.items() if value is None} == {one for one in seen if one[0]}
        assert [one.choices for one in strategy.evaluated()] == [one for one in seen if not one[0]]

    def test_a_price_of_whole_networks_is_kept_beside_a_table(self, name: str) -> None:
        def spread(networks: Sequence[Choices]) -> list[float]:
            return [0.5 + max(one) - min(one) for one in networks]

        feasible = feasible_of(COUNTS, share=0.6, prices=[PriceLimit("spread", spread, 2.5)])
        seen = run(self.make(name, feasible), 24)
        assert all(max(one) - min(one) <= 2 for one in seen)
        assert len(set(seen)) == 24

    def test_cheaper_scores_change_no_promise_and_the_best_by_them_is_looked_at_first(self, name: str) -> None:
        feasible = feasible_of(COUNTS)
        assert feasible.listed is not None
        within = [tuple(row) for row in feasible.listed[::9].tolist()]
        cheap: dict[Choices, float | None] = {one: score(one) for one in within}
        cheap |= {tuple(n - 1 for n in COUNTS): 99.0, within[3]: None}

        def informed() -> Strategy:
            strategy = self.make(name, feasible, seed=2)
            strategy.inform([cheap])
            return strategy

        seen = run(informed(), 16)
        assert len(set(seen)) == 16
        assert all(map(feasible.contains, seen))
        if informed().start or name == "random":
            assert seen[0] == max(within, key=lambda one: cheap[one] or 0.0)
        resumed = informed()
        for one in seen[:13]:
            resumed.tell(one, score(one))
        assert run(resumed, 3) == seen[13:]


@pytest.mark.parametrize(
    "name",
    [  # that the agent learns is shown at less cost in test_actor_critic.py
        pytest.param(name, marks=[pytest.mark.slow] if name == "actor-critic" else [])
        for name in STRATEGIES
        if name != "random"
    ],
)
def test_every_strategy_finds_better_networks_than_random_draws(name: str) -> None:
    """On a sum with interactions, 45 of 453 networks within the limit, means of four seeds."""
    looks = 45

    def found(which: str) -> float:
        best = [max(map(score, run(make_strategy(which, feasible_of(COUNTS), seed=s), looks))) for s in range(4)]
        return float(np.mean(best))

    assert found(name) > found("random")


def test_a_network_is_told_once_and_unknown_names_are_refused() -> None:
    strategy = make_strategy("random", feasible_of(COUNTS))
    (one,) = strategy.ask()
    strategy.tell(one, 1.0)
    with pytest.raises(SearchError, match="was told before"):
        strategy.tell(one, 2.0)
    with pytest.raises(SearchError, match="unknown strategy 'nas': known are ego, uct"):
        make_strategy("nas", feasible_of(COUNTS))


def test_listed_networks_are_those_within_the_limit() -> None:
    feasible = feasible_of(COUNTS)
    every = [one for one in itertools.product(*map(range, COUNTS)) if feasible.constraints[0].is_met(one)]
    assert feasible.listed is not None
    assert list(map(tuple, feasible.listed.tolist())) == every
    assert sorted(feasible.walk(np.random.default_rng(1))) == every


def test_a_repair_changes_as_few_decisions_as_possible() -> None:
    feasible, rng = feasible_of(COUNTS), np.random.default_rng(0)
    assert feasible.listed is not None
    for broken in itertools.islice((c for c in itertools.product(*map(range, COUNTS)) if not feasible.contains(c)), 40):
        mended = feasible.repaired(broken, rng)
        changed = sum(a != b for a, b in zip(broken, mended, strict=True))
        assert feasible.contains(mended)
        assert changed == (feasible.listed != np.array(broken)).sum(axis=1).min()
    within = next(feasible.walk(rng))
    assert feasible.repaired(within, rng) == within


def test_neighbours_are_single_changes_and_swaps_along_the_limit() -> None:
    feasible = feasible_of(COUNTS)
    assert feasible.listed is not None
    full = max(feasible.walk(np.random.default_rng(0)), key=lambda one: feasible.costs(one))
    near = feasible.neighbours(full)
    distances = {one: sum(a != b for a, b in zip(full, one, strict=True)) for one in near}
    assert set(distances.values()) == {1, 2}
    assert all(map(feasible.contains, near))
    within_one = (feasible.listed != np.array(full)).sum(axis=1) == 1
    assert {one for one, d in distances.items() if d == 1} == set(map(tuple, feasible.listed[within_one].tolist()))
    assert len(near) == len(set(near))


def test_limits_that_no_network_keeps_are_refused_with_what_to_do() -> None:
    table = table_of(COUNTS)
    with pytest.raises(TargetError, match="no network of space grid meets"):
        FeasibleSet(Grid(COUNTS), [Constraint(table, 0.5)])
    with pytest.raises(TargetError, match="must be a number above zero, got nan"):
        FeasibleSet(Grid(COUNTS), prices=[PriceLimit("latency", lambda networks: [1.0] * len(networks), math.nan)])
    never = FeasibleSet(Grid(COUNTS), prices=[PriceLimit("latency", lambda networks: [9.0] * len(networks), 2, "ms")])
    with pytest.raises(SearchError, match="within 2 ms of latency was found; raise the limit"):
        make_strategy("random", never).ask()


def test_a_network_without_a_price_is_beyond_the_limit() -> None:
    def price(networks: Sequence[Choices]) -> list[float]:
        return [math.nan if one[0] else 1.0 for one in networks]

    feasible = FeasibleSet(Grid(TINY), prices=[PriceLimit("latency", price, 2.0)])
    assert {one[0] for one in run(make_strategy("random", feasible), 12)} == {0}
