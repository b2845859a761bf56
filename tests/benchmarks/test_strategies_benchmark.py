"""The arithmetic of the benchmark of strategies: tables as problems, regrets, what is reported."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.strategies.__main__ import run_strategy
from benchmarks.strategies.budgets import run_budgets
from benchmarks.strategies.cross import best_within, fastest_as_accurate, slowdowns
from benchmarks.strategies.tables import OPERATIONS, RESNET, Cells, Problem, cell_problems, choices_of, macro_problems
from benchmarks.strategies.workers import run_study
from netlathe.archspace.decisions import Choices
from netlathe.archspace.presets import nas_bench_macro
from netlathe.archspace.resources import data_path
from netlathe.search.costs import CostTable


@pytest.fixture(scope="module")
def macro() -> list[Problem]:
    macs = CostTable.of_blocks(nas_bench_macro(), lambda block: block.graph().macs, name="MACs")
    return macro_problems(Path(str(data_path("nas_bench_macro_cifar10.parquet"))), macs)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Problem]:
    """Cells whose accuracy grows with their 3x3 convolutions, and whose latency does, too."""
    folder = tmp_path_factory.mktemp("cells")
    every = list(np.ndindex(*Cells().option_counts))
    convolutions = np.array([sum(OPERATIONS[one] == "nor_conv_3x3" for one in cell) for cell in every], dtype=float)
    names = [Cells().network_name(cell) for cell in every]
    accuracy = {"cifar10_seed0": 80 + convolutions, "cifar10_seed1": 82 + convolutions, "cifar100_seed0": convolutions}
    pd.DataFrame({"arch_str": names, **accuracy}).to_parquet(folder / "accuracy.parquet")
    times = dict.fromkeys(("pixel3", "silver_4114", "1080ti_1"), 1 + convolutions)
    pd.DataFrame({"arch_str": names, **times}).to_parquet(folder / "latency.parquet")
    return cell_problems(folder / "accuracy.parquet", folder / "latency.parquet")


def test_a_cells_name_and_its_choices_tell_the_same() -> None:
    assert Cells().network_name(choices_of(RESNET)) == RESNET
    assert Cells().network_name(Cells().reference) == RESNET


def test_the_best_network_is_the_best_within_the_limit(cells: list[Problem], macro: list[Problem]) -> None:
    best = {problem.name: problem.best for problem in cells}
    assert best["cells cifar10"] == 87
    assert best["cells cifar100"] == 6
    assert best["cells pixel3"] == best["cells fastest"] == 84  # as many 3x3 as the ResNet cell has
    assert [problem.best for problem in macro] == sorted(problem.best for problem in macro)


def test_a_look_up_sees_one_training_or_the_mean_of_all(cells: list[Problem], macro: list[Problem]) -> None:
    cell = choices_of(RESNET)
    rng = cells[0].seed(0)
    assert {cells[0].look(cell, rng) for _ in range(20)} == {83, 85}
    network = (1,) * 8
    assert {macro[0].look(network, rng) for _ in range(3)} == {float(macro[0].mean[network])}


def test_regret_is_by_the_mean_and_falls_to_zero_where_all_is_seen(cells: list[Problem], macro: list[Problem]) -> None:
    row = run_strategy(macro[0], "local", 0, 50)
    assert list(row["regret"]) == ["25", "50"]
    assert 0 <= row["regret"]["50"] <= row["regret"]["25"]
    assert run_strategy(macro[0], "local", 0, 50)["chosen"] == row["chosen"]
    fastest = cells[-1]
    found = run_strategy(fastest, "ego", 0, 25)
    assert found["is_found"] == (float(fastest.mean[tuple(found["chosen"])]) >= 84)


def test_a_slowdown_is_over_the_devices_own_best_network() -> None:
    accuracies = np.array([90.0, 92.0, 91.0, 92.0])
    latencies = {"one": np.array([1.0, 4.0, 2.0, 3.0]), "other": np.array([5.0, 2.0, 8.0, 6.0])}
    within = slowdowns(accuracies, latencies, best_within(lambda own: 3.0))  # networks 3 and 1
    assert within.to_numpy().tolist() == [[1.0, 6 / 2], [4 / 3, 1.0]]
    as_accurate = slowdowns(accuracies, latencies, fastest_as_accurate((2,)))  # of 1, 2, 3: networks 2 and 1
    assert as_accurate.to_numpy().tolist() == [[1.0, 8 / 2], [4 / 2, 1.0]]
    equal = slowdowns(accuracies, {"one": np.ones(4), "other": np.arange(4.0) + 1}, fastest_as_accurate((2,)))
    assert equal.loc["one", "other"] == 1.0  # network 1, the most accurate of equal ones


def test_cheap_looks_are_paid_for_out_of_the_same_total_cost(cells: list[Problem]) -> None:
    problem, seen = cells[0], []

    def cheap(choices: Choices) -> float:
        seen.append(choices)
        return float(problem.mean[choices])

    informed = run_budgets(problem, "random", cheap, 0, 40, 0.3)["regret"]
    assert len(seen) == 40
    assert math.isnan(informed["10"])  # the cheap looks alone cost 12
    best = max(float(problem.mean[one]) for one in seen)
    assert informed["15"] == informed["40"] == problem.best - best  # the best by the cheap score is looked at first
    alone = run_budgets(problem, "random", None, 0, 40, 0.3)["regret"]
    assert 0 <= alone["40"] <= alone["20"] <= alone["10"]


@pytest.mark.slow
def test_a_study_of_several_workers_is_judged_by_its_look_ups(macro: list[Problem]) -> None:
    for workers in (1, 3):
        found = run_study(macro[0], "local", 0, workers, 25, 0.01)
        assert found["looks"] == 25
        assert 0 <= found["regret"]["25"] < 5
