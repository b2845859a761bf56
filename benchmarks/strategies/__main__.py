"""How far strategies end from the best network within a limit, by how many look-ups: tables where all are trained.

    python -m benchmarks.strategies                            # NAS-Bench-Macro, latencies of this machine
    python -m benchmarks.strategies --predictor pixel4-cpu-networks
    python -m benchmarks.strategies --cells ACCURACY.parquet LATENCY.parquet    # and NAS-Bench-201
    python -m benchmarks.strategies --strategies ego,optuna-gp --seeds 3 --looks 100 --output runs/benchmarks/gp
    python -m benchmarks.strategies --part cross --cells ACCURACY.parquet LATENCY.parquet

NAS-Bench-Macro: targets at 30, 45, 60 and 75 % of the range of latencies; a look-up is the mean of three trainings.
NAS-Bench-201: columns `arch_str`, `cifar10_seed0`, ... and one column per device; a look-up sees the accuracy of one
training, drawn at random, and regret is by the mean. regret: accuracy points below the best network within the limit.
What is finished is in --output: the same command goes on. Limits are kept by every network that is asked for. This
machine's latencies are profiled once, and kept in that file's folder.
cross: the best network of each device on the other devices, NAS-Bench-201's and those of predictors that ship.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: runs share the cores

import argparse
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.search_common import Clock, Results, host_predictor
from benchmarks.strategies.cross import cross_cells, cross_macro
from benchmarks.strategies.tables import Problem, cell_problems, macro_problems
from netlathe.archspace.decisions import Choices
from netlathe.archspace.presets import nas_bench_macro
from netlathe.archspace.resources import data_path
from netlathe.cli.console import Terminal
from netlathe.predictor import LatencyPredictor
from netlathe.pricing import load_predictor
from netlathe.search.costs import CostTable
from netlathe.search.strategies.blackbox.by_optuna import BySampler
from netlathe.search.strategies.blackbox.feasible import FeasibleSet
from netlathe.search.strategies.blackbox.names import STRATEGIES
from netlathe.search.strategies.blackbox.strategy import Strategy
from netlathe.search.strategies.blackbox.uct import UCT

HOST = "nas-bench-macro.json"
"""This machine's predictor of NAS-Bench-Macro, in the folder of the results."""
SHIPPED = ("pixel1-cpu", "pixel4-cpu", "pixel4-gpu", "unnamed-phone-cpu")
"""Predictors of blocks that `cross` prices networks with."""
STEPS = (25, 50, 100, 200)
"""Look-ups at which the network that would be chosen is judged."""


def optuna_gp(feasible: FeasibleSet, *, seed: int = 0) -> Strategy:
    """Optuna's Gaussian process (Matérn kernel, a length scale per decision), which EGO is compared with."""
    from optuna.samplers import GPSampler

    return BySampler(feasible, lambda own: GPSampler(seed=own, n_startup_trials=0), seed=seed)


def uct_alone(feasible: FeasibleSet, *, seed: int = 0) -> Strategy:
    """Plain UCT, with the usual exploration of rewards that nothing shares."""
    return UCT(feasible, seed=seed, sharing="none", order="given", exploration=0.6)


def uct_states(feasible: FeasibleSet, *, seed: int = 0) -> Strategy:
    return UCT(feasible, seed=seed, sharing="states")


METHODS = {**STRATEGIES, "uct-alone": uct_alone, "uct-states": uct_states, "optuna-gp": optuna_gp}
DEFAULT = [name for name in METHODS if name != "optuna-gp"]


def run_strategy(problem: Problem, method: str, seed: int, looks: int) -> dict[str, Any]:
    """Regrets of the network that would be chosen after each of STEPS, and the strategy's own seconds."""
    strategy, rng = METHODS[method](problem.feasible(), seed=seed), problem.seed(seed)
    regrets: dict[str, float] = {}
    chosen: Choices = ()
    seconds, asked = 0.0, True
    for look in range(1, looks + 1):
        begun = time.perf_counter()
        asked = asked and bool(networks := strategy.ask())
        seconds += time.perf_counter() - begun
        if asked:
            score = problem.look(networks[0], rng)
            begun = time.perf_counter()
            strategy.tell(networks[0], score)
            seconds += time.perf_counter() - begun
        if look in STEPS:
            chosen = max(strategy.evaluated(), key=lambda one: one.score).choices
            regrets[str(look)] = problem.best - float(problem.mean[chosen])
    is_found = None if problem.aim is None else float(problem.mean[chosen]) >= problem.aim
    return {"regret": regrets, "seconds": seconds, "chosen": list(chosen), "is_found": is_found}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.strategies", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shipped = Path(str(data_path("nas_bench_macro_cifar10.parquet")))
    parser.add_argument("--part", choices=("looks", "cross"), default="looks")
    parser.add_argument("--table", type=Path, default=shipped, help="NAS-Bench-Macro's accuracies")
    parser.add_argument("--predictor", help="of NAS-Bench-Macro's latencies: a file or shipped name, or `macs`; "
                        "else this machine's, profiled where the folder of --output has none")  # fmt: skip
    parser.add_argument("--cells", type=Path, nargs=2, metavar=("ACCURACY", "LATENCY"), help="NAS-Bench-201's tables")
    parser.add_argument("--problems", default="", help="only those that begin so, as `macro,cells cifar10`")
    parser.add_argument("--strategies", default=",".join(DEFAULT))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--looks", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, one thread each")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/strategies.json"))
    parser.add_argument("--report", action="store_true", help="only print what is there")
    return parser.parse_args()


def main() -> None:
    options = _options()
    terminal = Terminal()
    if options.part == "cross":
        _cross(options, terminal)
        return
    problems = macro_problems(options.table, _cost(options, terminal))
    if options.cells:
        problems += cell_problems(*options.cells)
    results = Results(options.output, "strategies", {"best": {p.name: round(p.best, 4) for p in problems}})
    problems = [one for one in problems if one.name.startswith(tuple(options.problems.split(",")))]
    methods = options.strategies.split(",")
    if not options.report:
        _run(problems, methods, options, results)
    report(problems, methods, results, terminal)


def _cost(options: argparse.Namespace, terminal: Terminal) -> CostTable:
    space = nas_bench_macro()
    if options.predictor == "macs":
        return CostTable.of_blocks(space, lambda block: block.graph().macs, name="MACs")
    if options.predictor:
        return _priced_by(options.predictor)
    return CostTable.tabulate(space, host_predictor(space, options.output.parent / HOST, terminal=terminal))


def _priced_by(predictor: str) -> CostTable:
    model: LatencyPredictor = load_predictor(predictor, name=predictor, unknown="price")
    return CostTable.tabulate(nas_bench_macro(), model)


def _cross(options: argparse.Namespace, terminal: Terminal) -> None:
    own = options.predictor or "this machine"
    cross_macro(options.table, {own: _cost(options, terminal), **{one: _priced_by(one) for one in SHIPPED}}, terminal)
    if options.cells:
        accuracy, latency = options.cells
        cross_cells(accuracy, latency, terminal)


def _run(problems: list[Problem], methods: list[str], options: argparse.Namespace, results: Results) -> None:
    wanted = [
        (f"{problem.name}/{method}/{seed}/{options.looks}", problem, method, seed)
        for seed in range(options.seeds)
        for problem in problems
        for method in methods
    ]
    wanted = [one for one in wanted if one[0] not in results]
    clock = Clock(len(wanted))
    with ProcessPoolExecutor(options.jobs) as pool:
        running = {pool.submit(run_strategy, p, m, s, options.looks): key for key, p, m, s in wanted}
        for done in as_completed(running):
            results.put(running[done], done.result())
            clock.tell(1, running[done])


def report(problems: list[Problem], methods: list[str], results: Results, terminal: Terminal) -> None:
    """Prints regrets over the seeds per problem and strategy, mean, median (worst), and seconds of the strategy."""
    for problem in problems:
        rows = [(name, _rows(results, problem.name, name)) for name in methods]
        rows = [(name, own) for name, own in rows if own]
        if not rows:
            continue
        steps = sorted({int(step) for _, own in rows for one in own for step in one["regret"]})
        terminal.say(f"\n{problem.name}: the best network within the limit has {problem.best:.2f} %")
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("", "seeds", *(f"{s}: mean, median (worst)" for s in steps), "s", "found"):
            table.add_column(column, justify="left" if not column else "right", no_wrap=True)
        for name, own in rows:
            cells = [_cell([one["regret"][str(s)] for one in own if str(s) in one["regret"]]) for s in steps]
            seconds = statistics.median(one["seconds"] for one in own)
            found = "" if problem.aim is None else f"{sum(bool(one['is_found']) for one in own)} of {len(own)}"
            table.add_row(name, str(len(own)), *cells, f"{seconds:.1f}", found)
        Console(width=150).print(table)


def _rows(results: Results, problem: str, method: str) -> list[dict[str, Any]]:
    """Runs by seed, of each seed the longest."""
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    for key, value in results.content.items():
        own, name, seed, looks = key.split("/")
        if (own, name) == (problem, method) and int(looks) >= found.get(seed, (0, {}))[0]:
            found[seed] = (int(looks), value)
    return [value for _, value in found.values()]


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.mean(values):.2f}, {statistics.median(values):.2f} ({max(values):.2f})"


if __name__ == "__main__":
    main()
