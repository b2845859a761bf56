"""Costs of networks: tables that are differentiable in expectation, limits on them, and limits on memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netlathe.archspace.blocks import Block
from netlathe.archspace.decisions import Choices
from netlathe.archspace.graph import Graph
from netlathe.archspace.spaces import SearchSpace
from netlathe.search.errors import TargetError

ROUNDING = 1e-9
"""Relative excess of a limit that is only the order of a sum."""


class LatencyModel(Protocol):
    """Anything that prices networks: a predictor, a table, a stopwatch on the device."""

    def predict(self, items: Sequence[Graph], /) -> NDArray[np.float64]:
        """Latency in ms of each network graph."""
        ...


@dataclass(frozen=True)
class CostTable:
    """cost = base + sum over searchable positions of values[position, choice].

    values (positions, candidates) holds what a candidate costs more than the cheapest of its position, so base is the
    cheapest network; nan where there is no candidate.
    """

    name: str
    """As "latency on pixel4-cpu"; errors and reports say it."""
    unit: str
    """As "ms"; empty for counts."""
    base: float
    values: NDArray[np.float64]

    @classmethod
    def tabulate(
        cls, space: SearchSpace, model: LatencyModel, *, batch: int = 1, name: str = "predicted latency"
    ) -> CostTable:
        """Latency in ms: prices each candidate by the network that has it, everything else being equal, so whatever a
        model adds up to a network (overheads, slopes) is in the table. Raises TargetError where the model has no
        number above zero."""
        table = cls._around([0] * len(space.searchable), space, model, batch, name)
        if table.base <= 0 and table.values.size:
            # What candidates save beside the first network does not add up: ask beside about the fastest one.
            table = cls._around(list(table.cheapest_path), space, model, batch, name)
        if table.base <= 0:
            raise TargetError(
                f"by its own differences, the latency model prices the fastest network at {table.base:.3g} ms: it "
                "cannot steer a search; profile again on a quiet machine"
            )
        return table

    @classmethod
    def _around(
        cls, origin: Sequence[int], space: SearchSpace, model: LatencyModel, batch: int, name: str
    ) -> CostTable:
        """From the prices of this path and of those that differ from it in one position."""
        counts = [len(space.positions[i]) for i in space.searchable]
        paths = [[*origin[:p], k, *origin[p + 1 :]] for p, n in enumerate(counts) for k in range(n)]
        architectures = [space.architecture(path) for path in [origin, *paths]]
        prices = np.asarray(model.predict([a.graph(batch) for a in architectures]), dtype=np.float64)
        for architecture, price in zip(architectures, prices, strict=True):
            if not np.isfinite(price) or price <= 0:
                raise TargetError(
                    f"the latency model gives {price} ms for {architecture.name}: it cannot steer a search"
                )
        return cls._above_cheapest(name, "ms", float(prices[0]), counts, prices[1:] - prices[0])

    @classmethod
    def of_blocks(cls, space: SearchSpace, price: Callable[[Block], float], *, name: str, unit: str = "") -> CostTable:
        """A cost that adds up over blocks (MACs, parameters, measured energy): price(block) >= 0. Raises TargetError
        where a price is no such number; what price itself raises for a block that it does not know passes through."""
        fixed = sum(_checked(price, c[0], name) for c in space.positions if len(c) == 1)
        priced = [_checked(price, block, name) for i in space.searchable for block in space.positions[i]]
        counts = [len(space.positions[i]) for i in space.searchable]
        return cls._above_cheapest(name, unit, fixed, counts, np.array(priced))

    @classmethod
    def _above_cheapest(
        cls, name: str, unit: str, fixed: float, counts: Sequence[int], prices: NDArray[np.float64]
    ) -> CostTable:
        table = np.full((len(counts), max(counts, default=1)), np.nan)
        table[np.arange(table.shape[1]) < np.array(counts, dtype=int)[:, None]] = prices
        cheapest = np.nanmin(table, axis=1, keepdims=True) if counts else np.zeros((0, 1))
        return cls(name, unit, fixed + float(cheapest.sum()), table - cheapest)

    def cost(self, path: Sequence[int]) -> float:
        """Of the network along a path."""
        return self.base + float(self.values[np.arange(len(path)), list(path)].sum())

    @property
    def cheapest_path(self) -> Choices:
        return tuple(np.nanargmin(self.values, axis=1).tolist()) if self.values.size else ()

    @property
    def most_expensive(self) -> float:
        """Cost of the network that costs most."""
        return self.base + float(np.nanmax(self.values, axis=1).sum())

    def expected(self, probabilities: Tensor) -> Tensor:
        """base + sum p * values, differentiable in p (positions, candidates) (ProxylessNAS, section 3.3)."""
        values = torch.from_numpy(np.nan_to_num(self.values)).to(probabilities)
        return self.base + (probabilities * values).sum()

    def show(self, value: float) -> str:
        """1.234567 -> '1.23 ms'; three digits, never in powers of ten."""
        number = f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
        return f"{number} {self.unit}".rstrip()


def _checked(price: Callable[[Block], float], block: Block, name: str) -> float:
    value = float(price(block))
    if not math.isfinite(value) or value < 0:
        raise TargetError(f"the {name} of {block.name} is {value}: it must be a number of at least zero")
    return value


@dataclass(frozen=True)
class Constraint:
    """cost <= limit."""

    table: CostTable
    limit: float

    def excess(self, path: Sequence[int]) -> float:
        """log(cost / limit): above zero where the limit is broken, and free of the unit."""
        return math.log(max(self.table.cost(path), 1e-300) / self.limit)

    def is_met(self, path: Sequence[int]) -> bool:
        return self.table.cost(path) <= self.limit * (1 + ROUNDING)

    def check(self, space: SearchSpace) -> None:
        """Raises TargetError when the limit is no number above zero, or not even the cheapest network keeps it."""
        table = self.table
        counts = [len(space.positions[i]) for i in space.searchable]
        if np.isfinite(table.values).sum(axis=1).tolist() != counts:
            raise TargetError(f"the table of {table.name} is not of space {space.name}, which has {counts} candidates")
        if not (math.isfinite(self.limit) and self.limit > 0):
            raise TargetError(f"the limit of {table.name} must be a number above zero, got {self.limit}")
        if table.base > self.limit * (1 + ROUNDING):
            cheapest = space.architecture(table.cheapest_path)
            raise TargetError(
                f"no network of space {space.name} meets {table.show(self.limit)} of {table.name}: the least is "
                f"{table.show(table.base)}, of {cheapest.name}, and the most {table.show(table.most_expensive)}; "
                "raise the limit, or search a smaller space"
            )


def limit_memory(space: SearchSpace, limit_bytes: int, *, itemsize: int = 4) -> SearchSpace:
    """The space without the candidates whose own activations, of `itemsize` bytes a value and batch 1, need more memory
    at once: exactly the networks that fit remain, as a chain's peak is its worst block's. Raises TargetError where a
    position is left without any."""
    positions = []
    for index, candidates in enumerate(space.positions):
        peaks = {block: block.graph().peak_activation_bytes(itemsize) for block in candidates}
        fitting = tuple(block for block in candidates if peaks[block] <= limit_bytes)
        if not fitting:
            least = min(candidates, key=peaks.__getitem__)
            raise TargetError(
                f"no network of space {space.name} runs in {limit_bytes / 1024:.4g} KiB of activations: position "
                f"{index} needs {peaks[least] / 1024:.4g} KiB even with {least.name}; raise the limit, or lower the "
                "resolution"
            )
        positions.append(fitting)
    return SearchSpace(space.name, tuple(positions))
