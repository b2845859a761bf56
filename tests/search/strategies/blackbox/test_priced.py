"""Limits on prices of whole networks in spaces too large to price them all: estimates, draws, repairs, bounded actions,
and the contract of every strategy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from test_strategy_contract import NAMES, Grid, run

from netlathe.archspace.decisions import Choices
from netlathe.search.costs import ROUNDING
from netlathe.search.errors import TargetError
from netlathe.search.strategies.blackbox.actor_critic import ActorCritic
from netlathe.search.strategies.blackbox.coarse import CoarseSpace
from netlathe.search.strategies.blackbox.episodes import LayerEpisodes
from netlathe.search.strategies.blackbox.estimates import QuadraticCosts
from netlathe.search.strategies.blackbox.feasible import PriceLimit
from netlathe.search.strategies.blackbox.priced import PricedSet

COUNTS, SMALL = (6, 5, 8, 4, 7, 6, 8), (3, 4, 2, 3)
FIRST, LEAST = 1.0, 0.25


def widths(networks: NDArray[np.int64], counts: Sequence[int]) -> NDArray[np.float64]:
    """From the whole width to a quarter of it, evenly."""
    return np.asarray(FIRST - (FIRST - LEAST) * networks / (np.array(counts) - 1))


def chain_ms(networks: Sequence[Choices], counts: Sequence[int] = COUNTS) -> NDArray[np.float64]:
    """Layers in a chain, each of which costs the product of the widths that it reads and gives."""
    wide = widths(np.array(networks), counts)
    return np.asarray(0.1 + (wide[:, 1:] * wide[:, :-1]).sum(axis=1) + wide[:, 0])


def stepped_ms(networks: Sequence[Choices]) -> NDArray[np.float64]:
    """The same, with a kernel that is slow at every other width."""
    return np.asarray(chain_ms(networks) * (1 + 0.04 * (np.array(networks)[:, 2] % 2)))


def priced(
    price: Callable[[Sequence[Choices]], NDArray[np.float64]] = chain_ms, share: float = 0.5, seed: int = 0
) -> PricedSet:
    space, floor = Grid(COUNTS), tuple(count - 1 for count in COUNTS)
    limit = share * float(price([space.reference])[0])
    return PricedSet(space, [PriceLimit("latency", price, limit, "ms")], floor, seed=seed)


def score(choices: Choices) -> float:
    """Wide layers are worth more, each at another rate."""
    wide = widths(np.array([choices]), COUNTS)[0]
    return float((np.arange(1, len(wide) + 1) * np.log(wide)).sum())


def all_within(feasible: PricedSet, choices: Sequence[Choices]) -> bool:
    return bool((feasible.priced(np.array(choices)) <= feasible.limits * (1 + ROUNDING)).all())


def test_what_is_quadratic_is_estimated_to_rounding_and_errors_are_those_of_networks_left_out() -> None:
    rng = np.random.default_rng(0)
    seen, other = (rng.integers(COUNTS, size=(300, len(COUNTS))) for _ in range(2))
    exact = QuadraticCosts.fit(COUNTS, seen, chain_ms(seen.tolist()))
    assert exact(other) == pytest.approx(chain_ms(other.tolist()), rel=1e-3)
    assert exact.error < 1e-3
    rough = QuadraticCosts.fit(COUNTS, seen, stepped_ms(seen.tolist()))
    errors = np.abs(rough(other) / stepped_ms(other.tolist()) - 1)
    assert 0.005 < rough.error < 0.04
    assert 0.6 < (errors <= rough.error).mean() < 0.9


@pytest.mark.parametrize("price", [chain_ms, stepped_ms])
def test_draws_use_the_limit_up_and_never_break_it(price: Callable[[Sequence[Choices]], NDArray[np.float64]]) -> None:
    feasible = priced(price)
    assert feasible.listed is None
    drawn = feasible.draws(60, np.random.default_rng(1))
    assert all_within(feasible, drawn)
    shares = feasible.priced(np.array(drawn))[:, 0] / feasible.limits[0]
    assert np.median(shares) > 0.93
    assert len(set(drawn)) > 55


def test_repairs_and_neighbours_stay_near_and_repairs_keep_the_limit() -> None:
    feasible, rng = priced(stepped_ms), np.random.default_rng(2)
    for row in rng.integers(COUNTS, size=(20, len(COUNTS))):
        choices = tuple(row.tolist())
        mended = feasible.repaired(choices, rng)
        assert all_within(feasible, [mended])
        assert mended == choices or not feasible.contains(choices)
    full = feasible.draws(1, rng)[0]
    near = feasible.neighbours(full)
    assert {sum(a != b for a, b in zip(full, one, strict=True)) for one in near} == {1, 2}
    assert np.mean([feasible.contains(one) for one in near]) > 0.8
    slightly = next(
        one for one in feasible._singles(np.array(full)).tolist() if not feasible.contains(tuple(one)) and one != full
    )
    assert sum(a != b for a, b in zip(slightly, feasible.repaired(tuple(slightly), rng), strict=True)) <= 2


def test_bounded_actions_leave_the_limit_within_reach() -> None:
    """By AMC's bound: with all that follows as narrow as can be. What costs is exact here, so the bound is, too."""
    feasible, rng = priced(), np.random.default_rng(3)
    for _ in range(10):
        prefix: Choices = ()
        for decision in range(len(COUNTS)):
            options = feasible.open_options(prefix)
            kept = [
                option
                for option in range(COUNTS[decision])
                if feasible.contains((*prefix, option, *feasible.floor[decision + 1 :]))
            ]
            assert set(options) <= {*kept, feasible.floor[decision]}
            assert set(options) >= set(kept[1:])
            prefix = (*prefix, int(rng.choice(options)))
        assert feasible.contains(feasible.repaired(prefix, rng))


def test_the_best_sum_of_scores_is_near_the_best_of_all_networks() -> None:
    counts = COUNTS[:5]
    space, floor = Grid(counts), tuple(count - 1 for count in counts)
    limits = [PriceLimit("latency", lambda networks: chain_ms(networks, counts), 2.0)]
    feasible = PricedSet(space, limits, floor)
    every = np.array(list(itertools.product(*map(range, counts))))
    assert feasible.listed is None
    scores = np.full((len(counts), max(counts)), -np.inf)
    for decision, count in enumerate(counts):
        scores[decision, :count] = (decision + 1) * np.log(widths(np.arange(count), [count]))
    kept = every[chain_ms(every.tolist(), counts) <= 2.0]
    best = scores[np.arange(len(counts)), kept].sum(axis=1).max()
    found = feasible.best(scores)
    assert feasible.contains(found)
    assert scores[np.arange(len(counts)), list(found)].sum() >= best - 0.15


@pytest.mark.parametrize("name", NAMES)
class TestStrategiesOnPrices:
    def make(self, name: str, seed: int = 0) -> tuple[PricedSet, list[Choices]]:
        feasible = priced(stepped_ms, seed=seed)
        return feasible, run(NAMES[name](feasible, seed=seed), 24, score)

    def test_only_networks_within_the_limits_are_asked_for_and_none_twice(self, name: str) -> None:
        feasible, seen = self.make(name)
        assert len(set(seen)) == len(seen) == 24
        assert all_within(feasible, seen)

    def test_who_is_told_the_same_goes_on_alike_whatever_was_priced_before(self, name: str) -> None:
        _, seen = self.make(name, seed=1)
        feasible = priced(stepped_ms, seed=1)
        resumed = NAMES[name](feasible, seed=1)
        for one in seen[:21]:
            resumed.tell(one, score(one))
        assert run(resumed, 3, score) == seen[21:]

    def test_a_small_space_is_looked_at_whole(self, name: str) -> None:
        limit = PriceLimit("latency", lambda networks: chain_ms(networks, SMALL), 1.6)
        feasible = PricedSet(Grid(SMALL), [limit], tuple(count - 1 for count in SMALL))
        every = [one for one in itertools.product(*map(range, SMALL)) if feasible.contains(one)]
        strategy = NAMES[name](feasible, seed=0)
        assert set(run(strategy, 80)) == set(every)
        assert 5 < len(every) < 40


def test_states_are_those_of_amc() -> None:
    """By hand: three layers in a chain, of which two are decided on; the features of each, scaled; then shares of the
    original's time that the next layer can save, was saved, can be saved after it, and that the limit leaves."""
    counts = (3, 2)
    features = np.array([[3.0, 10.0], [1.0, 20.0]])

    def price(networks: Sequence[Choices]) -> NDArray[np.float64]:
        wide = np.array([[4.0, 2.0, 1.0], [2.0, 1.0, 0.0]])
        return np.array([wide[0, one[0]] + wide[1, one[1]] + 4.0 for one in networks])

    feasible = PricedSet(Grid(counts), [PriceLimit("latency", price, 8.0)], (2, 1), features=features)
    episodes = LayerEpisodes(feasible)
    whole, least = 10.0, 6.0
    assert episodes.state(()).tolist() == pytest.approx(
        [0, 1, 0.5, 3 / whole, 0, (whole - least) / whole, (8 - least) / whole, 1], abs=0.02
    )
    assert episodes.state((1,)).tolist() == pytest.approx([0.5, 1 / 3, 1, 0.1, 0.2, 0.1, 0.1, 0.5], abs=0.02)
    assert episodes.actions(0, [0, 1, 2]).tolist() == [2, 1, 0]
    assert episodes.actions_of((1, 0)) == [1, 1]
    assert isinstance(ActorCritic(feasible).episodes, LayerEpisodes)


def test_a_floor_beyond_a_limit_is_refused() -> None:
    limit = PriceLimit("latency", chain_ms, 0.2)
    with pytest.raises(TargetError, match="does not keep the limits that it is to be the floor of"):
        PricedSet(Grid(COUNTS), [limit], tuple(count - 1 for count in COUNTS))


def test_a_coarse_space_keeps_the_ends_the_reference_and_the_networks_named() -> None:
    space = Grid((20, 3, 2))
    asked = np.arange(20) < np.array([20, 3, 1])[:, None]  # the last decision's second option is none
    coarse = CoarseSpace.of(space, asked, (13, 2, 0), most=5)
    assert coarse.kept == ((0, 5, 10, 13, 14, 19), (0, 1, 2), (0,))
    assert coarse.option_counts == (6, 3, 1)
    assert coarse.chosen((3, 2, 0)) == (13, 2, 0)
    assert coarse.coarse((13, 2, 0)) == (3, 2, 0)
    assert coarse.network_name((5, 0, 0)) == "19-0-0"
    assert coarse.reference == (0, 0, 0)
