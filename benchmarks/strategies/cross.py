"""Each device's best network on the other devices: what a search for the wrong device costs.

slowdown[i, j]: latency on device j of the network that is best for device i, over that of j's own best one. Within a
limit it may be below 1, where j's own best network uses more of its limit to be more accurate; among networks that are
at least as accurate as the reference it is at least 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.search_regret.truth import Truth
from benchmarks.strategies.tables import RESNET, CellTables, choices_of
from netlathe.archspace.decisions import Choices
from netlathe.cli.console import Terminal
from netlathe.search.costs import CostTable

SHARE = 0.45
"""Limit of NAS-Bench-Macro, as a share of the range of each device's latencies."""

Best = Callable[[NDArray[np.float64], NDArray[np.float64]], Choices]
"""Mean accuracies and latencies of all networks, (*option_counts,) each -> a device's best network."""


def best_within(limit: Callable[[NDArray[np.float64]], float]) -> Best:
    """The most accurate network within a limit that is read off the latencies; the fastest of several."""

    def best(accuracies: NDArray[np.float64], latencies_ms: NDArray[np.float64]) -> Choices:
        within = np.where(latencies_ms <= limit(latencies_ms) * (1 + 1e-9), accuracies, -np.inf)
        return _first(np.where(within == within.max(), latencies_ms, np.inf))

    return best


def fastest_as_accurate(reference: Choices) -> Best:
    """The fastest network that is at least as accurate as the reference; the most accurate of several."""

    def best(accuracies: NDArray[np.float64], latencies_ms: NDArray[np.float64]) -> Choices:
        own = np.where(accuracies >= accuracies[reference], latencies_ms, np.inf)
        return _first(np.where(own == own.min(), -accuracies, np.inf))

    return best


def _first(values: NDArray[np.float64]) -> Choices:
    """Where the least of these is."""
    return tuple(int(one) for one in np.unravel_index(values.argmin(), values.shape))


def slowdowns(
    accuracies: NDArray[np.float64], latencies_ms: Mapping[str, NDArray[np.float64]], best: Best
) -> pd.DataFrame:
    """Slowdown of each device's best network (rows) on each device (columns), over that device's own best."""
    found = {device: best(accuracies, own) for device, own in latencies_ms.items()}
    return pd.DataFrame(
        [[own[choices] / own[found[device]] for device, own in latencies_ms.items()] for choices in found.values()],
        index=list(found), columns=list(found),
    )  # fmt: skip


def cross_cells(accuracy: Path, latency: Path, terminal: Terminal) -> None:
    """Prints NAS-Bench-201's slowdowns, for all devices of the table of latencies."""
    cells, reference = CellTables.read(accuracy, latency), choices_of(RESNET)
    latencies = {device: cells.latencies_ms(device) for device in cells.devices}
    for data in ("cifar10", "cifar100"):
        mean = np.asarray(np.nanmean(cells.accuracies(data), axis=-1))
        within = slowdowns(mean, latencies, best_within(lambda own: float(own[reference])))
        show(f"{data}: most accurate cell within the ResNet cell's latency", within, terminal)
        as_accurate = slowdowns(mean, latencies, fastest_as_accurate(reference))
        show(f"{data}: fastest cell at least as accurate as the ResNet cell", as_accurate, terminal)


def cross_macro(table: Path, costs: Mapping[str, CostTable], terminal: Terminal) -> None:
    """Prints NAS-Bench-Macro's slowdowns, for predictors of several devices."""
    truths = {device: Truth.read(table, cost) for device, cost in costs.items()}
    accuracies = next(iter(truths.values())).accuracy
    best = best_within(lambda own: float(own.min() + SHARE * (own.max() - own.min())))
    latencies = {device: truth.latency_ms for device, truth in truths.items()}
    show(f"NAS-Bench-Macro at {SHARE:.0%} of the range", slowdowns(accuracies, latencies, best), terminal)


def show(title: str, found: pd.DataFrame, terminal: Terminal) -> None:
    """Prints slowdowns, and the greatest of each column; devices with the same best network share a row."""
    terminal.say(f"\n{title}: slowdown on")
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("best on", overflow="fold")
    for device in found.columns:
        table.add_column(str(device), justify="right", no_wrap=True)
    for values, alike in found.groupby(list(found.columns), sort=False):
        table.add_row(", ".join(map(str, alike.index)), *(f"{value:.2f}" for value in values))
    table.add_row("the greatest", *(f"{value:.2f}" for value in found.max()))
    Console(width=250).print(table)
