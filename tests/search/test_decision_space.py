"""Tables, decode and repair on a decision space that is no chain: two branches whose widths and kernels are decided."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import Add, Conv2d, FullyConnected, GlobalAvgPool
from netlathe.search.candidates import Evaluated
from netlathe.search.costs import Constraint, CostTable
from netlathe.search.decode import check_limits, decode
from netlathe.search.errors import SearchError, TargetError
from netlathe.search.repair import repair


@dataclass(frozen=True)
class TwoBranches:
    """A stem of some width that feeds two convolutions of some kernels, whose results are added: what a kernel costs
    depends on the width, so no table of costs is exact."""

    name: str = "two branches"
    widths: tuple[int, ...] = (4, 8, 16)
    kernels: tuple[int, ...] = (1, 3, 5, 7)

    @property
    def option_counts(self) -> tuple[int, ...]:
        return len(self.widths), len(self.kernels), len(self.kernels)

    @property
    def reference(self) -> Choices:
        return 1, 1, 1

    def network_name(self, choices: Sequence[int]) -> str:
        width, *kernels = choices
        return f"w{self.widths[width]}-k{'-'.join(str(self.kernels[k]) for k in kernels)}"

    def graph(self, choices: Sequence[int], batch: int = 1) -> Graph:
        width, *kernels = choices
        builder = GraphBuilder((batch, 8, 8, 3))
        stem = builder.add("stem", Conv2d(self.widths[width]), 0)
        left, right = (
            builder.add(f"branch{i}", Conv2d(16, (self.kernels[k],) * 2), stem) for i, k in enumerate(kernels)
        )
        pooled = builder.add("pool", GlobalAvgPool(), builder.add("sum", Add(), left, right))
        builder.add("head", FullyConnected(10), pooled)
        return builder.build()


@dataclass(frozen=True)
class MacsModel:
    """An overhead, plus 1 ms per 100,000 MACs."""

    overhead_ms: float = 0.1

    def predict(self, items: Sequence[Graph], /) -> NDArray[np.float64]:
        return np.array([self.overhead_ms + graph.macs / 1e5 for graph in items])


SPACE: DecisionSpace = TwoBranches()
ALL = list(itertools.product(*map(range, SPACE.option_counts)))
TABLE = CostTable.tabulate(SPACE, MacsModel())


def latency_ms(choices: Choices) -> float:
    return float(MacsModel().predict([SPACE.graph(choices)])[0])


def quality(choices: Choices) -> float:
    """Better with every part, and best where the branches differ: no sum of scores."""
    width, left, right = choices
    return width + 0.8 * (left + right) + 0.9 * (left != right)


EVALUATED = [Evaluated(choices, quality(choices), (latency_ms(choices),)) for choices in ALL]


def test_a_table_is_exact_beside_the_reference_and_only_there() -> None:
    model = MacsModel(overhead_ms=20.0)
    table = CostTable.tabulate(SPACE, model)
    for decision, count in enumerate(SPACE.option_counts):
        for option in range(count):
            choices = list(SPACE.reference)
            choices[decision] = option
            assert table.cost(choices) == pytest.approx(model.predict([SPACE.graph(choices)])[0], rel=1e-12)
    assert table.cost((2, 3, 3)) < model.predict([SPACE.graph((2, 3, 3))])[0] - 1.0


def test_limits_name_the_networks_of_the_space() -> None:
    check_limits(SPACE, [Constraint(TABLE, TABLE.most_expensive)])
    with pytest.raises(TargetError, match=r"no network of space two branches .* of w4-k1-1, and the most"):
        check_limits(SPACE, [Constraint(TABLE, 0.9 * TABLE.base)])
    with pytest.raises(TargetError, match="is not of space two branches"):
        check_limits(SPACE, [Constraint(CostTable("MACs", "", 1.0, np.zeros((2, 4))), 2.0)])


def test_additive_scores_are_decoded_and_repaired_by_the_true_latency() -> None:
    scores = np.where(np.isnan(TABLE.values), -np.inf, np.arange(4.0))
    limit = Constraint(TABLE, 2.0)
    assert latency_ms(decode(scores, [limit])) > 2.0  # the table is wrong there
    found = repair(scores, [limit], [latency_ms], attempts=len(ALL))
    assert found.is_met
    assert latency_ms(found.choices) == found.judged[0] <= 2.0


@pytest.mark.parametrize("limit_ms", [0.5, 1.0, 2.0, 4.0, 8.0])
def test_evaluated_choices_without_a_judge_give_the_best_within_the_limit(limit_ms: float) -> None:
    found = repair(EVALUATED, [Constraint(TABLE, limit_ms)], [None])
    best = max((c for c in ALL if latency_ms(c) <= limit_ms), key=quality)
    assert quality(found.choices) == quality(best)
    assert found.costs == found.judged == (latency_ms(found.choices),)
    assert found.is_met
    assert found.judgements == 1


@pytest.mark.parametrize("factor", [0.8, 1.1, 1.4])
def test_evaluated_choices_are_repaired_by_a_judge_that_disagrees_with_their_costs(factor: float) -> None:
    asked: list[Choices] = []

    def judge(choices: Choices) -> float:
        asked.append(choices)
        return factor * latency_ms(choices)

    found = repair(EVALUATED, [Constraint(TABLE, 4.0)], [judge], attempts=len(ALL))
    best = max((c for c in ALL if factor * latency_ms(c) <= 4.0), key=quality)
    assert found.is_met
    assert quality(found.choices) == quality(best)
    assert len(asked) == len(set(asked)) == found.judgements < len(ALL)


def test_only_what_was_evaluated_is_chosen() -> None:
    few = EVALUATED[::5]
    found = repair(few, [Constraint(TABLE, 4.0)], [lambda choices: 1.3 * latency_ms(choices)])
    assert found.choices in {one.choices for one in few}


def test_evaluated_choices_of_several_limits_keep_each_by_its_own_judge() -> None:
    parameters = CostTable("parameters", "", 1.0, np.zeros_like(TABLE.values))
    both = [Evaluated(c, quality(c), (latency_ms(c), float(SPACE.graph(c).parameters))) for c in ALL]
    limits = [Constraint(TABLE, 4.0), Constraint(parameters, 5000.0)]
    found = repair(both, limits, [lambda choices: 1.2 * latency_ms(choices), None], attempts=len(ALL))
    fitting = [c for c in ALL if 1.2 * latency_ms(c) <= 4.0 and SPACE.graph(c).parameters <= 5000]
    assert quality(found.choices) == max(map(quality, fitting))


def test_where_no_evaluated_network_satisfies_the_judge_the_nearest_is_given_and_said_so() -> None:
    found = repair(EVALUATED, [Constraint(TABLE, 0.5)], [lambda choices: 20 * latency_ms(choices)], attempts=len(ALL))
    assert not found.is_met
    assert found.choices == (0, 0, 0)


def test_evaluated_networks_that_cannot_be_used_are_refused_with_what_is_wrong() -> None:
    limits = [Constraint(TABLE, 0.15)]
    with pytest.raises(TargetError, match=r"none of the 48 evaluated networks .* limits: 0.15 ms of predicted latency"):
        repair(EVALUATED, limits, [None])
    with pytest.raises(SearchError, match="no network was evaluated"):
        repair([], limits, [None])
    with pytest.raises(SearchError, match=r"choices \(0, 0, 0\) have 2 costs for 1 limits"):
        repair([Evaluated((0, 0, 0), 1.0, (1.0, 2.0))], limits, [None])
    with pytest.raises(SearchError, match="not all numbers"):
        Evaluated((0, 0, 0), float("nan"), (1.0,))
