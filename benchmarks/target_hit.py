"""How close a search comes to its target on this machine: 10 targets, predicted and measured.

    python -m benchmarks.target_hit                      # space tiny at 16 pixels on the built-in digits: 10 minutes

All targets share one warm supernet. Each network is taken twice: as decoded by the latency table, and repaired with
the stopwatch, which times the network and decodes again until it is in truth within the target. At the end all networks
are timed anew, in the same rounds. The targets run from a tenth above the fastest network to the one with the largest
expansion and 5x5 kernels everywhere, at equal ratios: beyond it are only 7x7 kernels, which cost 30 times as much on
XNNPACK.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.search_common import Clock, host_predictor, profile_of
from netlathe.archspace.decisions import Choices
from netlathe.archspace.presets import tiny
from netlathe.archspace.spaces import SearchSpace
from netlathe.cli.console import Terminal
from netlathe.profiler.devices.local import LocalDevice
from netlathe.search import Constraint, CostTable, SearchConfig, Searcher, repair
from netlathe.timing import PLAN, Stopwatch, stopwatch, time_networks
from netlathe.training import load_images


@dataclass(frozen=True)
class Hit:
    """Networks found for one target: as decoded, and as repaired."""

    target_ms: float
    decoded: Choices
    repaired: Choices
    judged: int
    is_met: bool


def hit(searcher: Searcher, watch: Stopwatch) -> Hit:
    """Decodes a finished search, and repairs it by the stopwatch."""
    result, (constraint,) = searcher.result(), searcher.constraints

    def judge(path: Choices) -> float:
        architecture = searcher.space.architecture(path)
        return watch.time({architecture.name: architecture.graph()})[architecture.name].latency_ms

    repaired = repair(result.scores, searcher.constraints, [judge])
    return Hit(constraint.limit, result.path, repaired.choices, repaired.judgements, repaired.is_met)


def search_targets(
    space: SearchSpace, table: CostTable, targets_ms: Sequence[float], options: argparse.Namespace, terminal: Terminal
) -> list[Hit]:
    """One warm supernet, then a short search and a repair per target."""
    data = load_images("digits", (options.resolution, options.resolution), seed=options.seed)
    config = SearchConfig(
        start_epochs=options.start_epochs, warmup_epochs=options.warmup_epochs, epochs=options.epochs,
        finalists=options.looks, seed=options.seed,
    )  # fmt: skip
    warm_work = config.start_epochs + config.warmup_epochs
    clock = Clock(warm_work + 2.5 * config.epochs * len(targets_ms))
    warm = Searcher(space, data, [Constraint(table, targets_ms[0])], config).run(until="warm")
    clock.tell(warm_work, "supernet is warm")
    hits = []
    for target_ms in targets_ms:
        searcher = warm.retarget([Constraint(table, target_ms)]).run()
        # The device is open while it times only: searching beside an open one would be no different, but slower.
        with (
            LocalDevice() as device,
            stopwatch(device, profile_of(options.latency), plan=PLAN, seed=options.seed, listener=terminal) as watch,
        ):
            hits.append(hit(searcher, watch))
        clock.tell(2.5 * config.epochs, f"{target_ms:.3f} ms: {hits[-1].judged} networks timed")
    return hits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=10)
    parser.add_argument("--resolution", type=int, default=16)
    parser.add_argument("--latency", type=Path, default=None, help="this host's predictor of the space")
    parser.add_argument("--start-epochs", type=int, default=3)
    parser.add_argument("--warmup-epochs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4, help="of each search from the warm supernet")
    parser.add_argument("--looks", type=int, default=64, help="networks judged on validation images, per search")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.latency = options.latency or Path(f"runs/benchmarks/tiny-{options.resolution}.json")
    terminal = Terminal()
    space = tiny(options.resolution)
    model = host_predictor(space, options.latency, terminal=terminal)
    table = CostTable.tabulate(space, model, name="latency on this host")
    targets_ms = np.geomspace(1.1 * table.base, table.cost(space.main_path), options.targets).tolist()
    hits = search_targets(space, table, targets_ms, options, terminal)
    paths = {f"{kind} {i}": getattr(one, kind) for i, one in enumerate(hits) for kind in ("decoded", "repaired")}
    graphs = {name: space.architecture(path).graph() for name, path in paths.items()}
    timed = time_networks(graphs, {}, profile_of(options.latency), seed=options.seed, listener=terminal)
    report(hits, table, {name: one.latency_ms for name, one in timed.items()}, terminal)


def report(hits: Sequence[Hit], table: CostTable, measured_ms: dict[str, float], terminal: Terminal) -> None:
    """A row per target, and what must hold below."""
    rows = []
    ratios: dict[str, list[float]] = {"decoded": [], "repaired": []}
    predicted = []
    for index, one in enumerate(hits):
        cells = [f"{one.target_ms:.3f}"]
        for kind in ratios:
            share = table.cost(getattr(one, kind)) / one.target_ms
            predicted.append(share)
            ratios[kind].append(measured_ms[f"{kind} {index}"] / one.target_ms)
            cells += [f"{share:.3f}", f"{ratios[kind][-1]:.3f}"]
        rows.append((*cells, str(one.judged), "yes" if one.is_met else "no"))
    columns = ("target ms", "decoded: predicted", "measured / target", "repaired: predicted", "measured / target")
    terminal.table((*columns, "timed", "met when timed"), rows)
    print(f"  Predicted over target: at most {max(predicted):.3f}")
    for kind, values in ratios.items():
        print(
            f"  Measured over target, {kind}: median {statistics.median(values):.3f}, {min(values):.3f} to "
            f"{max(values):.3f}; above 1.03 at {sum(v > 1.03 for v in values)} of {len(values)} targets, within 3 % at "
            f"{sum(abs(v - 1) <= 0.03 for v in values)}"
        )


if __name__ == "__main__":
    main()
