"""Moves that go together, priced as whole networks: the best plan of all, where borders cost much."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import Conv2d
from netlathe.archspace.precisions import BORDERS, Precision, is_mixed, precisions_of
from netlathe.compress import joint_space
from netlathe.search.exchanges import exchanged
from netlathe.search.successive import CostLimit, solve


def chain(count: int = 7) -> Graph:
    builder = GraphBuilder((1, 8, 8, 8))
    x = 0
    for number in range(count):
        x = builder.add(f"c{number}", Conv2d(8, (3, 3)), x, scope=f"b{number}")
    return builder.build(x)


class Law:
    """A ms per layer, in int8 0.4, and a border as much as most of what a layer saves."""

    def predict(self, graphs: Sequence[Graph], /) -> Any:
        return np.array([self.ms(graph) for graph in graphs])

    def ms(self, graph: Graph) -> float:
        if not is_mixed(graph):
            return float(len(graph.nodes))
        narrow = [one is Precision.INT8 for one in precisions_of(graph).values()]
        return sum(0.4 if one else 1.0 for one in narrow) + 0.45 * sum(isinstance(n.op, BORDERS) for n in graph.nodes)


SPACE = joint_space(chain(), precisions=("float32", "int8"), least_share=1.0)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("limit_ms", [4.2, 5.0, 6.0])
def test_no_plan_is_better_within_the_limit(seed: int, limit_ms: float) -> None:
    scores = np.stack([np.zeros(7), -np.random.default_rng(seed).lognormal(size=7)], axis=1)
    limit = CostLimit("latency", "ms", Law(), limit_ms)

    def score(choices: Sequence[int]) -> float:
        return float(scores[np.arange(7), list(choices)].sum())

    best = max(
        score(one) for one in itertools.product((0, 1), repeat=7) if limit.cost(SPACE, one) <= limit_ms
    )  # fmt: skip
    start = solve(SPACE, scores, [limit], SPACE.alike(1.0, 1)).choices
    found = exchanged(SPACE, scores, [limit], start, SPACE.neighbours)
    assert limit.cost(SPACE, found) <= limit_ms
    assert score(start) <= score(found)
    assert score(found) == pytest.approx(best)


def test_a_network_beyond_the_limit_is_not_left_for_another_one() -> None:
    scores = np.stack([np.zeros(7), -np.ones(7)], axis=1)
    limit = CostLimit("latency", "ms", Law(), 0.1)
    assert exchanged(SPACE, scores, [limit], SPACE.alike(1.0, 1), SPACE.neighbours) == SPACE.alike(1.0, 1)
