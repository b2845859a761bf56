"""Which channels of real networks can be cut, and how soon a network of other widths is there.

    python -m benchmarks.coupled_channels --models FOLDER [--graphs 50]

For each .onnx file: groups of channels and residual blocks; multiply-accumulates that are left when every group has the
least multiple of 8 channels that is half of its own or more; the share of all layers' channels that cannot be cut, and
why, the network's output aside; the processor's milliseconds to find the groups, and for one graph of random widths
(median). The weights of each halved network are checked against its graph.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import netlathe as nl
from netlathe.archspace.forms.weights import check_weights, random_weights
from netlathe.archspace.graph import Graph
from netlathe.compress import CoupledChannels, WidthSpace, magnitudes, width_space

OUTPUT = "the network's output has them"


@dataclass(frozen=True)
class Row:
    """One network."""

    name: str
    groups: int
    blocks: int
    macs_left: float
    fixed_share: float
    reasons: Counter[str]
    find_ms: float
    graph_ms: float


def measure(path: Path, graphs: int) -> Row:
    """The row of one file."""
    graph = nl.read(path)
    start = time.process_time()
    space = width_space(graph, path.stem, least_share=0.5)
    find_ms = (time.process_time() - start) * 1e3
    halves = (*(len(widths) - 1 for widths in space.widths), *(0 for _ in space.blocks))
    weights = random_weights(graph)
    halved, left = space.pruned(halves, weights, magnitudes(space.coupled, weights))
    check_weights(halved, left)
    fixed = [found for found in space.coupled.fixed if found.reason != OUTPUT]
    reasons: Counter[str] = Counter()
    for found in fixed:
        reasons[found.reason] += found.channels
    share = sum(found.channels for found in fixed) / layer_channels(space.coupled)
    return Row(
        path.stem, len(space.coupled.groups), len(space.blocks), halved.macs / graph.macs, share, reasons, find_ms,
        graph_ms(space, graphs),
    )  # fmt: skip


def layer_channels(coupled: CoupledChannels) -> int:
    """Channels that all layers give."""
    given = (units.stored["kernel"][0] for units in coupled.nodes if "kernel" in units.stored)
    return sum(len(units) for units in given if units is not None)


def graph_ms(space: WidthSpace, count: int) -> float:
    """Median milliseconds for a graph of random choices."""
    rng = random.Random(0)
    times: list[float] = []
    for _ in range(count):
        choices = tuple(rng.randrange(options) for options in space.option_counts)
        start = time.process_time()
        found: Graph = space.graph(choices)
        times.append((time.process_time() - start) * 1e3)
        assert found.output_shapes == space.coupled.graph.output_shapes
    return statistics.median(times)


def show(rows: Sequence[Row]) -> None:
    """The table, what it comes to, and the reasons."""
    table = Table("network", "groups", "blocks", "MACs left", "fixed", "find, ms", "graph, ms", "reasons")
    for row in rows:
        reasons = "; ".join(f"{channels} {reason}" for reason, channels in row.reasons.most_common(2))
        table.add_row(
            row.name, str(row.groups), str(row.blocks), f"{row.macs_left:.0%}", f"{row.fixed_share:.0%}",
            f"{row.find_ms:.0f}", f"{row.graph_ms:.2f}", reasons,
        )  # fmt: skip
    console = Console(width=160)
    console.print(table)
    console.print(f"{len(rows)} networks, {sum(not row.groups for row in rows)} of them without a group")
    for what, values, unit in (
        ("MACs left", [row.macs_left * 100 for row in rows], "%"),
        ("channels that cannot be cut", [row.fixed_share * 100 for row in rows], "%"),
        ("to find the groups", [row.find_ms for row in rows], "ms"),
        ("for a graph", [row.graph_ms for row in rows], "ms"),
    ):
        console.print(f"{what}: median {statistics.median(values):.1f} {unit}, most {max(values):.1f} {unit}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of .onnx files")
    parser.add_argument("--graphs", type=int, default=50, help="graphs of random widths per network")
    options = parser.parse_args(arguments)
    paths = sorted(options.models.glob("*.onnx"))
    if not paths:
        parser.error(f"there are no .onnx files in {options.models}")
    show([measure(path, options.graphs) for path in paths])


if __name__ == "__main__":
    main()
