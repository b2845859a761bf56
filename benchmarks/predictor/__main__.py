"""How right the predictor is, on public tables, beside the common ways to predict latency: one command, one table.

    python -m benchmarks.predictor --jobs 2             # everything, 5 seeds: about 20 minutes of one core
    python -m benchmarks.predictor --quick              # one seed, a few splits of each task: two minutes
    python -m benchmarks.predictor --tasks phones49,gpu --output table.md
    python -m benchmarks.predictor --data FOLDER        # tables with the names and columns of data/latency

Nothing is tuned to these tables: all choices are made by cross-validation inside the training items.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: times are those of one core
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks.predictor import cost, report
from benchmarks.predictor.runner import Row, run_task
from benchmarks.predictor.tasks import all_tasks
from scripts import latency_tables as tables

COST = "cost"
"""Name of the table of times and sizes for --tasks."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.predictor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tasks", default="", help="only those whose name holds one of these words, comma between; cost is one too"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed and at most 3 splits of each task")
    parser.add_argument("--data", type=Path, default=tables.SHIPPED, help="folder of tables like data/latency")
    parser.add_argument("--jobs", type=int, default=1, help="tasks that run at the same time")
    parser.add_argument("--output", type=Path, help="also write the table: a .md or .json file")
    return parser.parse_args()


def _run(options: argparse.Namespace, index: int) -> list[Row]:
    """One task, by its index, because a task itself cannot be sent to another process."""
    task = all_tasks(options.data)[index]
    start = time.process_time()
    rows = run_task(task, range(options.seeds), options.quick)
    results = "; ".join(report.result(row) for row in rows)
    print(f"{time.process_time() - start:5.0f} s  {task.name}: {results}", file=sys.stderr, flush=True)
    return rows


def _run_all(options: argparse.Namespace, indices: Sequence[int]) -> list[Row]:
    if options.jobs == 1:
        return [row for index in indices for row in _run(options, index)]
    with ProcessPoolExecutor(options.jobs) as pool:
        return [row for rows in pool.map(partial(_run, options), indices) for row in rows]


def _print(rows: Sequence[Row], costs: Sequence[cost.Cost], seeds: int) -> None:
    console = Console(highlight=False)
    console.width = max(console.width, report.WIDTH)
    if rows:
        report.print_table(console, report.HEADER, [report.cells(row) for row in rows], report.WORDS)
        console.print("\n".join([report.caption(seeds), *report.refusals(rows)]))
    if costs:
        report.print_table(console, cost.HEADER, [one.cells() for one in costs], cost.WORDS)


def _write(path: Path, rows: Sequence[Row], costs: Sequence[cost.Cost], seeds: int) -> None:
    if path.suffix == ".json":
        path.write_text(report.as_json(rows, [one._asdict() for one in costs]))
        return
    parts = []
    if rows:
        lines = [report.cells(row) for row in rows]
        parts += [report.markdown(report.HEADER, lines, report.WORDS), report.caption(seeds), *report.refusals(rows)]
    if costs:
        parts += [report.markdown(cost.HEADER, [one.cells() for one in costs], cost.WORDS)]
    path.write_text("\n\n".join(part.strip() for part in parts) + "\n")


def main() -> None:
    """Runs what is asked for and prints it."""
    options = _options()
    if options.output and options.output.suffix not in (".md", ".json"):
        sys.exit(f"--output {options.output}: the file's name must end in .md or .json")
    options.seeds = 1 if options.quick else options.seeds
    words = [word.strip().lower() for word in options.tasks.split(",")]
    names = [task.name for task in all_tasks(options.data)]
    chosen = [index for index, name in enumerate(names) if any(word in name.lower() for word in words)]
    with_cost = any(word in COST for word in words)
    if not chosen and not with_cost:
        message = f"no task on {options.data} has {options.tasks!r} in its name; there are:"
        sys.exit("\n  ".join([message, *names, COST]))
    rows = _run_all(options, chosen)
    _print(rows, [], options.seeds)
    costs = cost.measure_costs(options.data) if with_cost else []
    _print([], costs, options.seeds)
    if options.output:
        _write(options.output, rows, costs, options.seeds)


if __name__ == "__main__":
    main()
