"""Steps per second of a search in one process and in several on this machine, taken in turns in the same run.

    python -m benchmarks.ranks                          # tiny at 32 pixels, batches of 64, 1 and 2 processes
    python -m benchmarks.ranks --processes 4 --batch-size 128

Each process computes on one thread, and the batch is the same whoever shares it; a step moves weights and architecture.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from statistics import median

from netlathe.archspace.presets import load_space
from netlathe.search.costs import Constraint, CostTable
from netlathe.search.strategies.binarized.loop import Searcher
from netlathe.search.strategies.binarized.settings import SearchConfig
from netlathe.training.compute import Compute
from netlathe.training.launch import is_one_of_several
from netlathe.training.ranks import Ranks, joined
from netlathe.training.sources import load_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--space", default="tiny")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps per round")
    options = parser.parse_args()
    if is_one_of_several():
        with joined() as ranks, Compute("cpu", threads=1).threaded():
            compare(options, ranks)
        return
    group = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(options.processes)]
    raise SystemExit(subprocess.call([sys.executable, *group, "-m", "benchmarks.ranks", *sys.argv[1:]]))


def compare(options: argparse.Namespace, ranks: Ranks) -> None:
    """Prints medians over the rounds; one process after the other forms, so that a slow minute slows all of them."""
    alone = Compute("cpu", threads=1)
    together = Compute("cpu", threads=1, ranks=ranks)
    searchers = {
        f"{ranks.count} processes, {statistics}": make_searcher(options, together, statistics)
        for statistics in ("synchronised", "per-rank")
    }
    if ranks.leads:
        searchers = {"1 process": make_searcher(options, alone, "synchronised"), **searchers}
    rates: dict[str, list[float]] = {name: [] for name in searchers}
    for _ in range(options.rounds + 1):  # the first warms up
        for name, searcher in searchers.items():
            rates[name].append(steps_per_s(searcher, options.steps))
    if ranks.leads:
        first = rates["1 process"][1:]
        for name, found in rates.items():
            ratios = [one / other for one, other in zip(found[1:], first, strict=True)]
            print(
                f"{name}: {median(found[1:]):.3g} steps/s, {median(ratios):.2f} ({min(ratios):.2f} to "
                f"{max(ratios):.2f}) times one process's"
            )


def make_searcher(options: argparse.Namespace, compute: Compute, statistics: str) -> Searcher:
    """A search whose every step moves weights and architecture."""
    space = load_space(options.space, resolution=options.resolution, classes=10)
    data = load_images("digits", (options.resolution, options.resolution))
    table = CostTable.of_blocks(space, lambda block: float(block.graph().macs), name="macs")
    config = SearchConfig(
        start_epochs=0, warmup_epochs=0, epochs=1000, batch_size=options.batch_size,
        batch_norm="per-rank" if statistics == "per-rank" else "synchronised",
    )  # fmt: skip
    return Searcher(space, data, [Constraint(table, table.most_expensive)], config, compute=compute)


def steps_per_s(searcher: Searcher, steps: int) -> float:
    with searcher.opened():
        begun = time.perf_counter()
        for _ in range(steps):
            searcher.advance()
        return steps / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
