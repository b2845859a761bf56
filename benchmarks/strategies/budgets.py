"""Regret against total cost where networks have a cheap score beside the dear one, and where the cheap one is useless.

    python -m benchmarks.strategies.budgets --cells ACCURACY.parquet LATENCY.parquet --inherited INHERITED.csv

A dear look costs 1, a cheap one --price. `alone` has dear looks only; all others make --cheap-looks cheap ones first.
NAS-Bench-201, CIFAR-10, no limit; cheap scores: `cifar100`, one training on the other data set; `noisy`, the same with
normal noise of 10 points; `useless`, noise alone; `unrelated`, a random sum over the decisions. NAS-Bench-Macro
within 30 % of the range of latencies by the shipped predictor pixel4-cpu-networks; cheap scores: `inherit`, the
accuracy by the weights of a supernet (benchmarks.strategies.inherited); `useless`. regret: accuracy points below the
best network within the limit, of the network with the best dear score so far. What is finished is in --output: the same
command goes on.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: runs share the cores

import argparse
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.search_common import Clock, Results
from benchmarks.strategies.tables import Problem, cell_problems, macro_problems
from netlathe.archspace.decisions import Choices
from netlathe.archspace.presets import nas_bench_macro
from netlathe.archspace.resources import data_path
from netlathe.pricing import load_predictor
from netlathe.search.costs import CostTable
from netlathe.search.strategies.blackbox.names import make_strategy

COSTS = (10, 15, 20, 30, 40)
"""Total costs at which the network that would be chosen is judged."""
NOISE = 10.0
"""Standard deviation of the noise of `noisy`, in points."""
PREDICTOR = "pixel4-cpu-networks"

Cheap = Callable[[Choices], float]


def run_budgets(
    problem: Problem, strategy: str, cheap: Cheap | None, seed: int, cheap_looks: int, price: float
) -> dict[str, Any]:
    """Regrets at each of COSTS, nan where that does not pay for a dear look."""
    dear, rng, spent = make_strategy(strategy, problem.feasible(), seed=seed), problem.seed(seed), 0.0
    if cheap is not None:
        first = make_strategy(strategy, problem.feasible(), seed=seed)
        for _ in range(cheap_looks):
            for choices in first.ask():
                first.tell(choices, cheap(choices))
                spent += price
        dear.inform([first.told])
    regrets = dict.fromkeys(map(str, COSTS), float("nan"))
    while spent + 1 <= max(COSTS) and (asked := dear.ask()):
        dear.tell(asked[0], problem.look(asked[0], rng))
        spent += 1
        regret = problem.best - float(problem.mean[dear.best_first()[0]])
        regrets |= {str(cost): regret for cost in COSTS if cost >= spent}
    return {"regret": regrets}


class Scores:
    """Cheap scores by name, each drawn anew for every seed."""

    def __init__(self, cells: list[Problem], inherited: pd.DataFrame | None) -> None:
        self.other = next((one for one in cells if one.name == "cells cifar100"), None)
        self.inherited = None if inherited is None else dict(zip(inherited["arch"], inherited["accuracy"], strict=True))

    def names(self, problem: Problem) -> list[str]:
        if problem.name.startswith("cells"):
            return ["cifar100", "noisy", "useless", "unrelated"]
        return ["useless"] if self.inherited is None else ["inherit", "useless"]

    def make(self, name: str, problem: Problem, seed: int) -> Cheap | None:
        rng = np.random.default_rng([int(problem.seed(seed).integers(2**31)), 1])
        match name:
            case "alone":
                return None
            case "useless":
                return lambda choices: float(rng.normal())
            case "unrelated":
                weights = rng.normal(size=(len(problem.space.option_counts), max(problem.space.option_counts)))
                return lambda choices: float(weights[range(len(choices)), choices].sum())
            case "inherit":
                assert self.inherited is not None
                table = self.inherited
                return lambda choices: table["".join(map(str, choices))]
        assert self.other is not None
        other, noise = self.other, NOISE if name == "noisy" else 0.0
        return lambda choices: other.look(choices, rng) + noise * float(rng.normal())


_loaded: tuple[dict[str, Problem], Scores]


def _load(options: argparse.Namespace) -> None:
    """Tables of this process."""
    global _loaded
    cells = cell_problems(*options.cells) if options.cells else []
    problems = {one.name: one for one in cells if one.name == "cells cifar10"}
    inherited = pd.read_csv(options.inherited, dtype={"arch": str}) if options.inherited else None
    if inherited is not None:
        model = load_predictor(PREDICTOR, name=PREDICTOR, unknown="price")
        table = Path(str(data_path("nas_bench_macro_cifar10.parquet")))
        problems |= {one.name: one for one in macro_problems(table, CostTable.tabulate(nas_bench_macro(), model))[:1]}
    _loaded = problems, Scores(cells, inherited)


def _run(name: str, strategy: str, score: str, seed: int, cheap_looks: int, price: float) -> dict[str, Any]:
    problems, scores = _loaded
    cheap = scores.make(score, problems[name], seed)
    return run_budgets(problems[name], strategy, cheap, seed, cheap_looks, price)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.strategies.budgets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=Path, nargs=2, metavar=("ACCURACY", "LATENCY"), help="NAS-Bench-201's tables")
    parser.add_argument("--inherited", type=Path, help="accuracies of NAS-Bench-Macro's networks by a supernet")
    parser.add_argument("--strategies", default="ego")
    parser.add_argument("--cheap-looks", type=int, default=100)
    parser.add_argument("--price", type=float, default=0.05, help="of a cheap look, where a dear one costs 1")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, one thread each")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/budgets.json"))
    options = parser.parse_args()
    _load(options)
    problems, scores = _loaded
    settings = {"cheap_looks": options.cheap_looks, "price": options.price}
    results = Results(options.output, "budgets", settings)
    rows = [
        (name, strategy, score)
        for name, problem in problems.items()
        for strategy in options.strategies.split(",")
        for score in ("alone", *scores.names(problem))
    ]
    wanted = {"/".join((*row, str(seed))): (*row, seed) for seed in range(options.seeds) for row in rows}
    todo = {key: one for key, one in wanted.items() if key not in results}
    clock = Clock(len(todo))
    with ProcessPoolExecutor(options.jobs, initializer=_load, initargs=(options,)) as pool:
        running = {
            pool.submit(_run, *one, options.cheap_looks, options.price): key for key, one in todo.items()
        }  # fmt: skip
        for done in as_completed(running):
            results.put(running[done], done.result())
            clock.tell(1, running[done])
    for name in problems:
        _report(name, [row for row in rows if row[0] == name], results, options.seeds)


def _report(name: str, rows: list[tuple[str, str, str]], results: Results, seeds: int) -> None:
    """Prints mean (worst) regrets over the seeds by total cost."""
    table = Table(title=name, box=None, padding=(0, 2, 0, 0), header_style="dim", title_justify="left")
    for column in ("", "cheap score", *map(str, COSTS)):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        found = [results.content["/".join((*row, str(seed)))]["regret"] for seed in range(seeds)]
        cells = [[one[str(cost)] for one in found] for cost in COSTS]
        table.add_row(row[1], row[2], *(f"{statistics.mean(c):.2f} ({max(c):.2f})" for c in cells))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
