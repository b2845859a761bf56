"""Regret of one worker and of four on one study, at an equal number of looks.

    python -m benchmarks.strategies.workers --predictor pixel4-cpu-networks

NAS-Bench-Macro at 30, 45, 60 and 75 % of the range of latencies. Each search is a study in a journal, on which as many
processes work as there are workers; a look-up is a line of the table after a nap, longer than a strategy thinks, so
that four workers have up to three networks pending whenever they ask. `busy`: mean number of look-ups at once. What is
finished is in --output: the same command goes on.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: workers share the cores

import argparse
import statistics
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.search_common import Clock, Results
from benchmarks.strategies.tables import Problem, macro_problems
from netlathe.archspace.decisions import Choices
from netlathe.archspace.presets import nas_bench_macro
from netlathe.archspace.resources import data_path
from netlathe.pricing import load_predictor
from netlathe.search.costs import CostTable
from netlathe.search.strategies.blackbox.names import make_strategy
from netlathe.search.strategies.blackbox.study import Study

STEPS = (25, 50)
"""Look-ups, in the order in which they were asked for, after which the best network is judged."""


def _work(place: str, problem: Problem, strategy: str, seed: int, looks: int, nap_s: float) -> None:
    """One worker's process."""

    def look(choices: Choices) -> float:
        time.sleep(nap_s)
        return float(problem.mean[choices])

    study = Study(place, problem.space, {"strategy": strategy, "seed": seed})
    study.work(make_strategy(strategy, problem.feasible(), seed=seed), look, looks)


def run_study(problem: Problem, strategy: str, seed: int, workers: int, looks: int, nap_s: float) -> dict[str, Any]:
    """Regrets after STEPS, and how many look-ups were under way at once."""
    context = get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        place, begun = str(Path(folder) / "study.journal"), time.monotonic()
        told = (place, problem, strategy, seed, looks, nap_s)
        processes = [context.Process(target=_work, args=told) for _ in range(workers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        seconds = time.monotonic() - begun
        if any(process.exitcode for process in processes):
            raise RuntimeError(f"{problem.name}, {strategy}, seed {seed}: a worker has failed")
        ledger = Study(place, problem.space, {"strategy": strategy, "seed": seed}).ledger()
    scores = [ledger.finished[choices] or 0.0 for choices in ledger.ranks if choices in ledger.finished]
    regrets = {str(step): problem.best - max(scores[:step]) for step in STEPS if step <= len(scores)}
    return {"regret": regrets, "busy": ledger.seconds / seconds, "looks": len(scores)}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.strategies.workers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shipped = Path(str(data_path("nas_bench_macro_cifar10.parquet")))
    parser.add_argument("--table", type=Path, default=shipped, help="NAS-Bench-Macro's accuracies")
    parser.add_argument("--predictor", default="pixel4-cpu-networks", help="of its latencies: a file or shipped name")
    parser.add_argument("--strategies", default="ego,uct,evolution")
    parser.add_argument("--workers", default="1,4")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--looks", type=int, default=50)
    parser.add_argument("--nap", type=float, default=0.5, help="seconds of a look-up")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/workers.json"))
    options = parser.parse_args()
    model = load_predictor(options.predictor, name=options.predictor, unknown="price")
    problems = macro_problems(options.table, CostTable.tabulate(nas_bench_macro(), model))
    results = Results(options.output, "workers", {"looks": options.looks, "nap": options.nap})
    rows = [(name, int(count)) for name in options.strategies.split(",") for count in options.workers.split(",")]
    runs = [(p, name, seed, count) for seed in range(options.seeds) for p in problems for name, count in rows]
    todo = [run for run in runs if _key(*run) not in results]
    clock = Clock(len(todo))
    for problem, name, seed, count in todo:
        found = run_study(problem, name, seed, count, options.looks, options.nap)
        results.put(_key(problem, name, seed, count), found)
        clock.tell(1, _key(problem, name, seed, count))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("", "workers", "busy", *(f"{step}: mean, median (worst)" for step in STEPS)):
        table.add_column(column, justify="left" if not column else "right")
    for name, count in rows:
        own = [results.content[_key(p, name, seed, count)] for p in problems for seed in range(options.seeds)]
        cells = [[one["regret"][str(step)] for one in own if str(step) in one["regret"]] for step in STEPS]
        busy = statistics.mean(one["busy"] for one in own)
        table.add_row(name, str(count), f"{busy:.1f}", *map(_cell, cells))
    Console(width=120).print(table)


def _key(problem: Problem, name: str, seed: int, workers: int) -> str:
    return f"{problem.name}/{name}/{seed}/{workers}"


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.mean(values):.3f}, {statistics.median(values):.2f} ({max(values):.2f})"


if __name__ == "__main__":
    main()
