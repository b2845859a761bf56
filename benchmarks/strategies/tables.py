"""Tables of trained networks as problems: what a look-up sees, what is true, and what is within the limit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.search_regret.truth import SHARES, Truth
from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.archspace.graph import Graph
from netlathe.archspace.presets import nas_bench_macro
from netlathe.search.costs import Constraint, CostTable
from netlathe.search.strategies.blackbox.feasible import FeasibleSet, PriceLimit

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""Options of each of the six edges of a NAS-Bench-201 cell (Dong & Yang, ICLR 2020)."""
RESNET = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
DEVICES = ("pixel3", "silver_4114", "1080ti_1")


@dataclass(frozen=True)
class Cells:
    """The 15,625 cells as a decision space; their graphs are not asked for."""

    name: str = "nas-bench-201"
    option_counts: tuple[int, ...] = (5,) * 6

    @property
    def reference(self) -> Choices:
        return choices_of(RESNET)

    def network_name(self, choices: Sequence[int]) -> str:
        ops = iter(OPERATIONS[choice] for choice in choices)
        return "+".join("|" + "|".join(f"{next(ops)}~{i}" for i in range(node)) + "|" for node in (1, 2, 3))

    def graph(self, choices: Sequence[int], batch: int = 1) -> Graph:
        raise NotImplementedError("the cells are known by their tables")


def choices_of(cell: str) -> Choices:
    """The choices of a cell's name."""
    return tuple(OPERATIONS.index(part.partition("~")[0]) for part in cell.replace("+", "").split("|") if part)


@dataclass(frozen=True)
class Problem:
    """A space, its limit, and the accuracies of all its networks in %."""

    name: str
    space: DecisionSpace
    accuracies: NDArray[np.float64]
    """(*option_counts, trainings); nan where a training is missing."""
    constraints: tuple[Constraint, ...] = ()
    prices: tuple[PriceLimit, ...] = ()
    is_noisy: bool = False
    """Whether a look-up sees one training, drawn at random, or the mean of all."""
    aim: float | None = None
    """Accuracy that a search has succeeded with."""

    def feasible(self) -> FeasibleSet:
        return FeasibleSet(self.space, self.constraints, self.prices)

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """Mean accuracies, (*option_counts,)."""
        return np.asarray(np.nanmean(self.accuracies, axis=-1))

    @cached_property
    def best(self) -> float:
        """Mean accuracy of the best network within the limit, over all of them."""
        listed = self.feasible().listed
        assert listed is not None
        return float(self.mean[tuple(listed.T)].max())

    def look(self, choices: Choices, rng: np.random.Generator) -> float:
        """Answer of a look-up."""
        seen = self.accuracies[choices]
        seen = seen[~np.isnan(seen)]
        return float(rng.choice(seen) if self.is_noisy else seen.mean())

    def seed(self, number: int) -> np.random.Generator:
        """A generator for the draws of a run, the same for every strategy."""
        digest = hashlib.sha256(f"{self.name} {number}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def macro_problems(table: Path, cost: CostTable) -> list[Problem]:
    """NAS-Bench-Macro at shares of the range of a cost."""
    space = nas_bench_macro()
    accuracy = Truth.read(table, cost).accuracy[..., None]
    found = []
    for share in SHARES:
        limit = cost.base + share * (cost.most_expensive - cost.base)
        found.append(Problem(f"macro {share:.0%}", space, accuracy, (Constraint(cost, limit),)))
    return found


@dataclass(frozen=True)
class CellTables:
    """NAS-Bench-201's tables: accuracies in % and latencies in ms of all cells, by their choices."""

    _accuracies: pd.DataFrame
    _latencies: pd.DataFrame

    @classmethod
    def read(cls, accuracy: Path, latency: Path) -> CellTables:
        """From two .parquet with the column `arch_str`: accuracies as `cifar10_seed0`, ..., and a column per device."""
        frame = pd.read_parquet(accuracy).set_index("arch_str")
        times = pd.read_parquet(latency).set_index("arch_str").loc[frame.index]
        return cls(frame, times.drop(columns="idx", errors="ignore"))

    @property
    def devices(self) -> list[str]:
        return [str(one) for one in self._latencies.columns]

    def accuracies(self, data: str) -> NDArray[np.float64]:
        """(*option_counts, trainings)."""
        return self._array(self._accuracies.filter(like=f"{data}_seed"))

    def latencies_ms(self, device: str) -> NDArray[np.float64]:
        """(*option_counts,)."""
        return self._array(self._latencies[[device]])[..., 0]

    def _array(self, columns: pd.DataFrame) -> NDArray[np.float64]:
        found = np.full((*Cells().option_counts, columns.shape[1]), np.nan)
        for cell, row in zip(columns.index, columns.to_numpy(), strict=True):
            found[choices_of(str(cell))] = row
        return found


def cell_problems(accuracy: Path, latency: Path) -> list[Problem]:
    """NAS-Bench-201: two data sets without a limit; CIFAR-10 under the ResNet cell's latency on three devices; and
    under that of the fastest cell on the first of them that is as accurate as the ResNet cell."""
    cells = CellTables.read(accuracy, latency)
    problems = [Problem(f"cells {d}", Cells(), cells.accuracies(d), is_noisy=True) for d in ("cifar10", "cifar100")]
    cifar10, reference = problems[0].accuracies, choices_of(RESNET)
    for device in DEVICES:
        table = cells.latencies_ms(device)
        price = _price(device, table, float(table[reference]))
        problems.append(Problem(f"cells {device}", Cells(), cifar10, prices=(price,), is_noisy=True))
    table, aim = cells.latencies_ms(DEVICES[0]), float(np.nanmean(cifar10[reference]))
    fastest = float(table[np.nanmean(cifar10, axis=-1) >= aim].min())
    price = _price(DEVICES[0], table, fastest)
    return [*problems, Problem("cells fastest", Cells(), cifar10, prices=(price,), is_noisy=True, aim=aim)]


def _price(device: str, table: NDArray[np.float64], limit: float) -> PriceLimit:
    return PriceLimit(f"latency on {device}", Lookup(table), limit, "ms")


@dataclass(frozen=True)
class Lookup:
    """Prices of networks, from a table of all."""

    table: NDArray[np.float64]

    def __call__(self, networks: Sequence[Choices]) -> list[float]:
        return [float(self.table[choices]) for choices in networks]
