"""Repair: from table to judge, with judges that disagree with the table in known ways."""

from __future__ import annotations

import numpy as np
import pytest

from netlathe.archspace.decisions import Choices
from netlathe.search.costs import Constraint, CostTable
from netlathe.search.errors import TargetError
from netlathe.search.repair import repair

TABLE = CostTable("latency", "ms", 10.0, np.array([[0.0, 1.0, 2.0, 3.0]] * 4))
SCORES = np.log(np.array([[0.1, 0.2, 0.3, 0.4]] * 4))  # the slower, the better


def test_without_a_judge_it_is_the_decode() -> None:
    found = repair(SCORES, [Constraint(TABLE, 17.0)], [None])
    assert found.costs == found.judged == (17.0,)
    assert found.is_met
    assert found.judgements == 1


@pytest.mark.parametrize("factor", [1.05, 1.2, 1.35])
def test_a_judge_that_finds_all_slower_gets_the_largest_network_that_it_accepts(factor: float) -> None:
    found = repair(SCORES, [Constraint(TABLE, 17.0)], [lambda path: factor * TABLE.cost(path)])
    assert found.is_met
    assert found.costs[0] == np.floor(17.0 / factor)


def test_what_the_judge_accepts_is_used_up_to_what_it_refuses() -> None:
    """A judge that jumps: what costs 15 or more takes 18. Lowering the limit by that ratio alone would end at 13."""
    found = repair(SCORES, [Constraint(TABLE, 16.0)], [lambda path: 18.0 if TABLE.cost(path) >= 15 else 13.0])
    assert found.is_met
    assert found.costs == (14.0,)


@pytest.mark.parametrize("factor", [0.6, 0.8, 0.95])
def test_a_judge_that_finds_all_faster_gets_the_largest_network_that_it_accepts(factor: float) -> None:
    found = repair(SCORES, [Constraint(TABLE, 17.0)], [lambda path: factor * TABLE.cost(path)])
    assert found.is_met
    assert found.costs[0] == min(np.floor(17.0 / factor), TABLE.most_expensive)
    assert found.judgements <= 3


@pytest.mark.parametrize("seed", range(10))
def test_a_judge_with_options_of_its_own_opinion_gets_its_limit_used(seed: int) -> None:
    """Options cost up to 10 % more or less than the table says, and all of them 0.7 to 1.3 times as much."""
    rng = np.random.default_rng(seed)
    table = CostTable("latency", "ms", 10.0, rng.uniform(0, 3, (16, 6)))
    table.values[:] -= table.values.min(axis=1, keepdims=True)
    truth = CostTable("truth", "ms", 10.0, table.values * rng.uniform(0.9, 1.1, (16, 6)))
    level = rng.uniform(0.7, 1.3)
    limit = level * (10.0 + rng.uniform(0.3, 0.7) * (truth.most_expensive - 10.0))
    scores = table.values + rng.normal(0, 0.3, (16, 6))
    found = repair(scores, [Constraint(table, limit)], [lambda path: level * truth.cost(path)])
    assert found.is_met
    assert 0.985 * limit <= found.judged[0] <= limit


def test_a_stopwatch_that_scatters_still_ends_in_a_network_that_it_accepted() -> None:
    rng = np.random.default_rng(0)
    seen: dict[Choices, float] = {}

    def stopwatch(path: Choices) -> float:
        seen[path] = TABLE.cost(path) * float(rng.normal(1.02, 0.03))
        return seen[path]

    for _ in range(20):
        seen.clear()
        found = repair(SCORES, [Constraint(TABLE, 17.0)], [stopwatch])
        assert found.is_met
        assert seen[found.choices] <= 17.0
        assert found.judgements <= 8


def test_each_network_is_judged_once() -> None:
    asked: list[Choices] = []

    def judge(path: Choices) -> float:
        asked.append(path)
        return 1.1 * TABLE.cost(path)

    found = repair(SCORES, [Constraint(TABLE, 17.0)], [judge])
    assert len(asked) == len(set(asked)) == found.judgements


def test_where_no_network_satisfies_the_judge_the_nearest_is_given_and_said_so() -> None:
    found = repair(SCORES, [Constraint(TABLE, 11.0)], [lambda path: 2 * TABLE.cost(path)])
    assert not found.is_met
    assert found.choices == (0, 0, 0, 0)
    assert found.judged == (20.0,)


def test_each_of_several_limits_is_repaired_by_its_own_judge() -> None:
    other = CostTable("MACs", "", 1.0, np.array([[0.0, 1.0, 2.0, 3.0]] * 4))
    limits = [Constraint(TABLE, 17.0), Constraint(other, 6.0)]
    found = repair(SCORES, limits, [lambda path: 1.2 * TABLE.cost(path), None])
    assert found.is_met
    assert found.costs == (14.0, 5.0)


@pytest.mark.parametrize("count", [2, 3])
def test_judges_of_several_limits_that_disagree_with_their_tables_end_in_a_network_that_all_accept(count: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        tables = [CostTable(f"cost {i}", "", 10.0, rng.exponential(1.0, (4, 4))) for i in range(count)]
        for table in tables:
            table.values[:] -= table.values.min(axis=1, keepdims=True)
        factors = rng.uniform(0.9, 1.1, count)
        middle = tuple(rng.integers(0, 4, 4).tolist())  # a network that meets all, so there is one
        limits = [Constraint(t, 1.02 * max(f, 1.0) * t.cost(middle)) for t, f in zip(tables, factors, strict=True)]
        judges = [lambda path, t=t, f=f: f * t.cost(path) for t, f in zip(tables, factors, strict=True)]
        found = repair(SCORES + rng.normal(0, 0.5, (4, 4)), limits, judges)
        assert found.is_met, (limits, factors)


def test_what_no_network_meets_by_the_table_is_refused() -> None:
    with pytest.raises(TargetError, match=r"no network meets all of these limits: 9 ms of latency"):
        repair(SCORES, [Constraint(TABLE, 9.0)], [None])
