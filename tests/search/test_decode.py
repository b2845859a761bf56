"""The decode under limits, against brute force and closed forms."""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from random_tables import random_scores, random_table
from scipy.optimize import milp

from netlathe.search.costs import Constraint, CostTable
from netlathe.search.decode import decode, dispensable
from netlathe.search.errors import TargetError


def brute_force(scores: NDArray[np.float64], constraints: Sequence[Constraint]) -> tuple[int, ...]:
    choices = [[k for k in range(4) if not np.isnan(row[k])] for row in constraints[0].table.values]
    feasible = [path for path in itertools.product(*choices) if all(c.is_met(path) for c in constraints)]
    return max(feasible, key=lambda path: scores[np.arange(6), list(path)].sum())


def between(table: CostTable, share: float) -> Constraint:
    return Constraint(table, table.base + share * (table.most_expensive - table.base))


@pytest.mark.parametrize("seed", range(8))
def test_decode_finds_what_brute_force_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = random_table(rng)
    scores = random_scores(rng, table)
    limit = between(table, rng.uniform(0.1, 0.9))
    assert decode(scores, [limit]) == brute_force(scores, [limit])


@pytest.mark.parametrize("seed", range(8))
def test_decode_under_three_limits_finds_what_brute_force_finds(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    limits = [between(random_table(rng), rng.uniform(0.4, 0.8)) for _ in range(3)]
    scores = random_scores(rng, limits[0].table)
    assert decode(scores, limits) == brute_force(scores, limits)


@pytest.mark.parametrize("scale", [1e-6, 1e3])
def test_the_unit_of_the_scores_does_not_matter(scale: float) -> None:
    rng = np.random.default_rng(11)
    for _ in range(10):
        table = random_table(rng)
        scores, limit = random_scores(rng, table), between(table, 0.4)
        assert decode(scale * scores, [limit]) == decode(scores, [limit]) == brute_force(scores, [limit])


def test_a_limit_is_never_broken_by_the_solvers_tolerance() -> None:
    rng = np.random.default_rng(7)
    table = random_table(rng)
    for _ in range(20):  # limits that are the cost of some network, where a tolerance would show
        path = tuple(int(rng.integers(3)) for _ in range(6))
        limit = Constraint(table, table.cost(path) * (1 - 1e-7))
        found = decode(random_scores(rng, table), [limit])
        assert table.cost(found) <= limit.limit * (1 + 1e-9)


def test_decode_with_room_for_everything_is_argmax() -> None:
    rng = np.random.default_rng(3)
    table = random_table(rng)
    scores = random_scores(rng, table)
    assert decode(scores, [Constraint(table, table.most_expensive)]) == tuple(scores.argmax(1).tolist())
    assert decode(scores, []) == tuple(scores.argmax(1).tolist())


def test_decode_at_the_very_limit_gives_the_cheapest_network() -> None:
    table = random_table(np.random.default_rng(4))
    path = decode(random_scores(np.random.default_rng(5), table), [Constraint(table, table.base)])
    assert path == table.cheapest
    assert table.cost(path) == table.base


def test_a_dropped_candidate_is_not_decoded() -> None:
    table = random_table(np.random.default_rng(4))
    scores = random_scores(np.random.default_rng(5), table)
    best = decode(scores, [])
    scores[2, best[2]] = -np.inf
    assert decode(scores, [])[2] != best[2]


def test_limits_that_cannot_be_met_together_are_all_named() -> None:
    first = CostTable("latency", "ms", 1.0, np.array([[0.0, 1.0]]))
    second = CostTable("MACs", "", 100.0, np.array([[50.0, 0.0]]))
    with pytest.raises(TargetError, match=r"all of these limits: 1.5 ms of latency, 120 of MACs"):
        decode(np.log(np.array([[0.5, 0.5]])), [Constraint(first, 1.5), Constraint(second, 120)])


def test_improbable_candidates_are_dispensable_unless_a_limit_needs_them() -> None:
    p = np.array([[0.90, 0.08, 0.02], [0.5, 0.48, 0.02]])
    table = CostTable("latency", "ms", 1.0, np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 2.0]]))
    assert dispensable(np.log(p), 0.05, [Constraint(table, 9.0)]) == [(0, 2), (1, 2)]
    assert dispensable(np.log(p), 0.1, [Constraint(table, 1.6)]) == [(0, 2), (1, 2)]  # (0, 1) alone keeps the limit
    assert dispensable(np.log(p), 0.05, [Constraint(table, 1.1)]) == [(1, 2)]


def test_the_last_candidate_of_a_position_is_never_dropped() -> None:
    assert dispensable(np.log(np.array([[0.5, 0.5], [0.5, 0.5]])), 0.9, []) == [(0, 0), (1, 0)]


def test_what_the_solver_prints_is_no_part_of_standard_output(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    libc = ctypes.CDLL(None)

    def talking(*given: Any, **named: Any) -> Any:
        libc.printf(b"a line of the solver\n")
        return milp(*given, **named)

    monkeypatch.setattr(sys.modules[decode.__module__], "milp", talking)
    libc.printf(b"before ")
    print("own", flush=True)
    assert decode(np.zeros((2, 3)), []) is not None
    libc.printf(b"after\n")
    libc.fflush(None)
    shown = capfd.readouterr()
    assert "a line of the solver" not in shown.out
    assert "a line of the solver" in shown.err
    assert "before" in shown.out
    assert "after" in shown.out
