"""NetAdapt's steps by hand: the smallest cut of each decision that does a step, the least loss among them, the end
within the limits; also where no decision alone lowers a cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices
from netlathe.search.strategies.netadapt import netadapt
from netlathe.search.successive import CostLimit, widened

FLOOR = (3, 3)


@dataclass(frozen=True)
class Pairs:
    """Networks of two decisions; a graph is the choices themselves."""

    name: str = "pairs"
    option_counts: tuple[int, ...] = (4, 4)
    reference: Choices = (0, 0)

    def network_name(self, choices: Sequence[int]) -> str:
        return "-".join(map(str, choices))

    def graph(self, choices: Sequence[int], batch: int = 1) -> Any:
        return tuple(choices)


@dataclass(frozen=True)
class Cost:
    """A cost of choices."""

    of: Callable[[Choices], float]

    def predict(self, items: Sequence[Any]) -> NDArray[np.float64]:
        return np.array([self.of(one) for one in items])


def limit(of: Callable[[Choices], float], most: float) -> CostLimit:
    return CostLimit("latency", "ms", Cost(of), most)


SUM = limit(lambda one: 8.0 - 2 * one[0] - one[1], 4.0)
"""From 8 ms down to 4: two steps of 2 ms, each an option of the first decision, or two of the second."""
SCORES = np.array([[0.0, -0.1, -0.2, -0.3], [0.0, -1.0, -2.0, -3.0]])


def test_each_step_takes_the_cut_of_the_least_loss() -> None:
    seen: list[Choices] = []

    def loss(choices: Choices) -> float:
        seen.append(choices)
        return 1.0 * choices[0] + 0.3 * choices[1]

    steps: list[tuple[int, int]] = []
    found = netadapt(
        Pairs(), SCORES, [SUM], FLOOR, loss=loss, looks=4, steps=2, on_step=lambda *told: steps.append(told)
    )
    assert found == (1, 2)  # 0.6 lost by the second decision's two options, then it has not enough left
    assert seen == [(1, 0), (0, 2)]
    assert steps == [(0, 2), (1, 2)]


def test_without_looks_scores_decide() -> None:
    assert netadapt(Pairs(), SCORES, [SUM], FLOOR, looks=4, steps=2) == (2, 0)
    assert netadapt(Pairs(), SCORES[::-1], [SUM], FLOOR, looks=4, steps=2) == (1, 2)


def test_looks_are_kept_to_and_then_scores_decide() -> None:
    seen: list[Choices] = []

    def loss(choices: Choices) -> float:
        seen.append(choices)
        return -float(choices[1])

    many = limit(lambda one: 8.0 - one[0] - one[1], 2.0)
    found = netadapt(Pairs(), SCORES, [many], FLOOR, loss=loss, looks=3, steps=6)
    assert len(seen) <= 3
    assert sum(found) >= 6


def test_every_limit_is_kept_and_the_original_stays_where_it_keeps_them() -> None:
    other = limit(lambda one: 4.0 - one[1], 3.0)
    found = netadapt(Pairs(), SCORES, [SUM, other], FLOOR, steps=4)
    assert 8 - 2 * found[0] - found[1] <= 4
    assert found[1] >= 1
    assert netadapt(Pairs(), SCORES, [limit(lambda one: 1.0, 2.0)], FLOOR) == (0, 0)


def test_where_no_decision_alone_lowers_a_peak_all_of_them_go_on() -> None:
    peak = limit(lambda one: max(8.0 - 2 * one[0], 8.0 - 2 * one[1]), 4.0)
    assert netadapt(Pairs(), SCORES, [peak], FLOOR) == (2, 2)


def test_where_no_decision_alone_reaches_a_step_the_closest_are_taken() -> None:
    found = netadapt(Pairs(), SCORES, [limit(lambda one: 8.0 - one[0] - one[1], 3.0)], FLOOR, steps=1)
    assert sum(found) >= 5


@pytest.mark.parametrize(("most", "wider"), [(4.0, (2, 0)), (5.0, (1, 1)), (6.0, (1, 0)), (9.0, (1, 0))])
def test_what_a_limit_leaves_goes_to_the_decisions_that_gain_most(most: float, wider: Choices) -> None:
    """From 4 ms: a further ms is the second decision's last option, two are the first one's."""
    found = (2, 0) if most == 4.0 else (2, 1)
    scores = np.array([[0.0, -1.0, -5.0, -6.0], [0.0, -0.5, -2.0, -3.0]])
    assert widened(Pairs(), scores, [limit(lambda one: 8.0 - 2 * one[0] - one[1], most)], found) == wider
