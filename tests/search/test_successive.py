"""Integer programs around their own answers: costs that are products of choices, as a convolution's time is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import Conv2d
from netlathe.search.costs import CostTable
from netlathe.search.decode import decode
from netlathe.search.errors import TargetError
from netlathe.search.successive import CostLimit, solve, variants, within


@dataclass(frozen=True)
class Chain:
    """Convolutions in a row, the number of channels between each two of which is a decision; the widest first."""

    options: tuple[tuple[int, ...], ...]
    name: str = "chain"

    @property
    def option_counts(self) -> tuple[int, ...]:
        return tuple(map(len, self.options))

    @property
    def reference(self) -> Choices:
        return (0,) * len(self.options)

    def network_name(self, choices: Sequence[int]) -> str:
        return f"chain-{'-'.join(map(str, choices))}"

    def graph(self, choices: Sequence[int], batch: int = 1) -> Graph:
        builder = GraphBuilder((batch, 2, 2, 4))
        tensor = 0
        for number, (widths, choice) in enumerate(zip(self.options, choices, strict=True)):
            tensor = builder.add(f"c{number}", Conv2d(widths[choice]), tensor)
        return builder.build(builder.add("last", Conv2d(4), tensor))


class Macs:
    """MACs in thousands, and how many networks were priced."""

    def __init__(self) -> None:
        self.asked = 0

    def predict(self, items: Sequence[Graph]) -> NDArray[np.float64]:
        self.asked += len(items)
        return np.array([graph.macs / 1e3 for graph in items])


class Parameters:
    def predict(self, items: Sequence[Graph]) -> NDArray[np.float64]:
        return np.array([float(graph.parameters) for graph in items])


SPACE = Chain(tuple(tuple(range(widest, 3, -4)) for widest in (32, 48, 40)))
LEAST = tuple(count - 1 for count in SPACE.option_counts)


def scores_of(space: DecisionSpace, seed: int) -> NDArray[np.float64]:
    """Losses that grow towards the narrowest option, faster and faster, as importance does."""
    rng = np.random.default_rng(seed)
    scores = np.full((len(space.option_counts), max(space.option_counts)), -np.inf)
    for decision, count in enumerate(space.option_counts):
        scores[decision, :count] = -np.r_[0.0, np.cumsum(np.sort(rng.exponential(size=count - 1)))]
    return scores


def total(scores: NDArray[np.float64], choices: Choices) -> float:
    return sum(float(scores[place]) for place in enumerate(choices))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_answer_keeps_the_limit_and_is_near_the_best_of_all_networks(share: float) -> None:
    networks = list(itertools.product(*map(range, SPACE.option_counts)))
    costs = Macs().predict([SPACE.graph(one) for one in networks])
    limit = share * float(costs[0])
    losses = []
    for seed in range(3):
        scores = scores_of(SPACE, seed)
        found = solve(SPACE, scores, [CostLimit("work", "kMACs", Macs(), limit)], LEAST)
        assert found.costs == (float(costs[networks.index(found.choices)]),)
        assert found.costs[0] <= limit
        every = np.array([total(scores, one) for one in networks])
        best, worst = every[costs <= limit].max(), every.min()
        losses.append((best - total(scores, found.choices)) / (best - worst))
    assert min(losses) == 0
    assert max(losses) < 0.05


def test_several_limits_are_kept_together() -> None:
    scores = scores_of(SPACE, 0)
    whole = SPACE.graph(SPACE.reference)
    limits = [
        CostLimit("work", "kMACs", Macs(), 0.6 * whole.macs / 1e3),
        CostLimit("parameters", "", Parameters(), 0.4 * whole.parameters),
    ]
    found = solve(SPACE, scores, limits, LEAST)
    assert all(cost <= limit.limit for cost, limit in zip(found.costs, limits, strict=True))
    assert found.costs[1] > 0.9 * limits[1].limit


def test_a_cost_that_adds_up_is_solved_exactly() -> None:
    space = Chain(((32, 24, 16, 8),))
    limit = CostLimit("work", "kMACs", Macs(), 0.6 * space.graph((0,)).macs / 1e3)
    scores = np.array([[0.0, -1, -2, -3]])
    assert solve(space, scores, [limit], (3,)).choices == decode(scores, [limit.constraint(space, (0,))]) == (2,)


def test_a_start_above_a_limit_leads_to_a_network_that_keeps_it() -> None:
    limit = CostLimit("work", "kMACs", Macs(), 0.5 * SPACE.graph(SPACE.reference).macs / 1e3)
    from_above, from_below = (solve(SPACE, scores_of(SPACE, 0), [limit], one) for one in (SPACE.reference, LEAST))
    assert from_above.costs[0] <= limit.limit
    assert total(scores_of(SPACE, 0), from_above.choices) == total(scores_of(SPACE, 0), from_below.choices)


def test_a_limit_that_nothing_keeps_is_refused() -> None:
    with pytest.raises(TargetError, match=r"no network near chain-0-0-0 keeps the limits; .* \d+\.\d+ kMACs of work"):
        solve(SPACE, scores_of(SPACE, 0), [CostLimit("work", "kMACs", Macs(), 0.1)], SPACE.reference)


def test_rounds_are_told_and_options_far_away_are_not_priced() -> None:
    model, rounds = Macs(), []
    limit = CostLimit("work", "kMACs", model, 0.5 * SPACE.graph(SPACE.reference).macs / 1e3)
    solve(SPACE, scores_of(SPACE, 0), [limit], LEAST, on_round=lambda done, of: rounds.append((done, of)))
    assert rounds[:7] == [(number, 7) for number in range(7)]
    assert len(rounds) <= 11
    assert model.asked < len(rounds) * sum(SPACE.option_counts)


def test_near_options_are_those_within_reach_and_one_at_least() -> None:
    scores = np.array([[0.0, -1, -2, -3, -4], [0.0, -1, -np.inf, -np.inf, -np.inf]])
    assert within(scores, (2, 0), 0.0).tolist() == [[False, True, True, True, False], [True, True, False, False, False]]
    assert within(scores, (0, 1), 0.4).tolist() == [[True, True, True, False, False], [True, True, False, False, False]]


def test_a_table_of_some_options_has_their_prices_and_no_others() -> None:
    asked = within(np.where(np.arange(12) < np.array(SPACE.option_counts)[:, None], 0.0, -np.inf), (2, 3, 1), 0.1)
    whole, part = (
        CostTable.around((2, 3, 1), SPACE, Macs(), name="work", unit="kMACs", asked=some) for some in (None, asked)
    )
    assert np.isfinite(part.values).tolist() == asked.tolist()
    for choices in ((2, 3, 1), (3, 3, 1), (2, 2, 1), (2, 3, 2)):
        true = SPACE.graph(choices).macs / 1e3
        assert part.cost(choices) == pytest.approx(whole.cost(choices)) == pytest.approx(true)


def test_variants_are_other_networks_within_the_limits() -> None:
    scores = scores_of(SPACE, 0)
    limit = CostLimit("work", "kMACs", Macs(), 0.5 * SPACE.graph(SPACE.reference).macs / 1e3)
    found = solve(SPACE, scores, [limit], LEAST).choices
    rng = np.random.default_rng(0)
    others = variants(SPACE, [scores * np.exp(rng.normal(size=(3, 1))) for _ in range(6)], [limit], found)
    assert others
    assert found not in others
    assert len({*others}) == len(others)
    assert all(limit.cost(SPACE, one) <= limit.limit for one in others)
    assert variants(SPACE, [], [limit], found) == []
