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
from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.archspace.graph import Graph
from netlathe.archspace.spaces import SearchSpace
from netlathe.search.errors import TargetError

ROUNDING = 1e-9
"""Relative tolerance of limits: a sum in another order may exceed one by so much."""


class LatencyModel(Protocol):
    """Anything that prices networks: a predictor, a table, a stopwatch on the device."""

    def predict(self, items: Sequence[Graph], /) -> NDArray[np.float64]:
        """Latency in ms of each network graph."""
        ...


@dataclass(frozen=True)
class CostTable:
    """Costs that add up over decisions: cost = base + sum of values[decision, choice].

    values (decisions, options) holds what an option costs more than the cheapest of its decision, so base is the
    cheapest network; nan where there is no option.
    """

    name: str
    """Name of the cost in errors and reports, as "latency on pixel4-cpu"."""
    unit: str
    """Unit, as "ms"; empty for counts."""
    base: float
    values: NDArray[np.float64]

    @classmethod
    def tabulate(
        cls, space: DecisionSpace, model: LatencyModel, *, batch: int = 1, name: str = "predicted latency"
    ) -> CostTable:
        """Table of latencies in ms: each option is priced by the space's reference network with it in place, so
        whatever a model adds up to a network (overheads, slopes) is in the table. Raises TargetError where the model
        has no number above zero."""
        table = cls.around(space.reference, space, model, batch=batch, name=name)
        if table.base <= 0 and table.values.size:
            # What options save beside the reference does not add up: ask beside about the fastest network.
            table = cls.around(table.cheapest, space, model, batch=batch, name=name)
        if table.base <= 0:
            raise TargetError(
                f"by its own differences, the latency model prices the fastest network at {table.base:.3g} ms: it "
                "cannot steer a search; profile again on a quiet machine"
            )
        return table

    @classmethod
    def around(
        cls,
        origin: Choices,
        space: DecisionSpace,
        model: LatencyModel,
        *,
        batch: int = 1,
        name: str = "predicted latency",
        unit: str = "ms",
        asked: NDArray[np.bool_] | None = None,
    ) -> CostTable:
        """Table from the prices of one network and of those that differ from it in one decision: exact for these, and a
        first-order model of all others, whose `base` may be below zero. Of the options `asked` (decisions, options)
        alone, if they are given; the origin's are among them. Raises TargetError where the model has no number above
        zero."""

        def price(networks: NDArray[np.int64]) -> NDArray[np.float64]:
            prices = model.predict([space.graph(row, batch) for row in networks.tolist()])
            for row, one in zip(networks.tolist(), prices, strict=True):
                if not np.isfinite(one) or one <= 0:
                    raise TargetError(
                        f"the {name} of {space.network_name(row)} is {one} {unit}".rstrip()
                        + ": its model cannot steer a search"
                    )
            return np.asarray(prices, dtype=np.float64)

        return cls.about(origin, space, price, name=name, unit=unit, asked=asked)

    @classmethod
    def about(
        cls,
        origin: Choices,
        space: DecisionSpace,
        price: Callable[[NDArray[np.int64]], NDArray[np.float64]],
        *,
        name: str,
        unit: str = "",
        asked: NDArray[np.bool_] | None = None,
    ) -> CostTable:
        """Table as `around` makes it, by a price of networks (n, decisions) -> (n,)."""
        asked = _options(space.option_counts) if asked is None else asked
        decisions, options = np.nonzero(asked)
        networks = np.tile(np.array(origin, dtype=np.int64), (1 + len(decisions), 1))
        networks[np.arange(1, len(networks)), decisions] = options
        prices = price(networks)
        return cls._above_cheapest(name, unit, float(prices[0]), asked, prices[1:] - prices[0])

    @classmethod
    def of_blocks(cls, space: SearchSpace, price: Callable[[Block], float], *, name: str, unit: str = "") -> CostTable:
        """Table of a cost that adds up over blocks (MACs, parameters, measured energy): price(block) >= 0. Raises
        TargetError where a price is no such number; what price itself raises for a block that it does not know passes
        through."""
        fixed = sum(_checked(price, c[0], name) for c in space.positions if len(c) == 1)
        priced = [_checked(price, block, name) for i in space.searchable for block in space.positions[i]]
        return cls._above_cheapest(name, unit, fixed, _options(space.option_counts), np.array(priced))

    @classmethod
    def _above_cheapest(
        cls, name: str, unit: str, fixed: float, is_option: NDArray[np.bool_], prices: NDArray[np.float64]
    ) -> CostTable:
        table = np.full(is_option.shape, np.nan)
        table[is_option] = prices
        cheapest = np.nanmin(table, axis=1, keepdims=True) if len(table) else np.zeros((0, 1))
        return cls(name, unit, fixed + float(cheapest.sum()), table - cheapest)

    def cost(self, choices: Sequence[int]) -> float:
        """Cost of a network."""
        return self.base + float(self.values[np.arange(len(choices)), list(choices)].sum())

    @property
    def cheapest(self) -> Choices:
        """The network that costs least."""
        return tuple(np.nanargmin(self.values, axis=1).tolist()) if self.values.size else ()

    @property
    def most_expensive(self) -> float:
        """Cost of the network that costs most."""
        return self.base + float(np.nanmax(self.values, axis=1).sum())

    def expected(self, probabilities: Tensor) -> Tensor:
        """base + sum p * values, differentiable in p (decisions, options) (ProxylessNAS, section 3.3)."""
        values = torch.from_numpy(np.nan_to_num(self.values)).to(probabilities)
        return self.base + (probabilities * values).sum()

    def show(self, value: float) -> str:
        """A cost in an error's words."""
        return show_cost(value, self.unit)


def show_cost(value: float, unit: str) -> str:
    """1.234567, 'ms' -> '1.23 ms'; three digits, never in powers of ten."""
    number = f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    return f"{number} {unit}".rstrip()


def _options(counts: Sequence[int]) -> NDArray[np.bool_]:
    """Whether there is an option (decisions, most options)."""
    return np.arange(max(counts, default=1)) < np.array(counts, dtype=int).reshape(-1, 1)


def _checked(price: Callable[[Block], float], block: Block, name: str) -> float:
    value = float(price(block))
    if not math.isfinite(value) or value < 0:
        raise TargetError(f"the {name} of {block.name} is {value}: it must be a number of at least zero")
    return value


@dataclass(frozen=True)
class Constraint:
    """Upper limit on a cost."""

    table: CostTable
    limit: float

    @property
    def name(self) -> str:
        """Name of the cost."""
        return self.table.name

    def show(self, value: float) -> str:
        """A cost in an error's words."""
        return self.table.show(value)

    def excess(self, choices: Sequence[int]) -> float:
        """log(cost / limit): above zero where the limit is broken, and free of the unit."""
        return math.log(max(self.table.cost(choices), 1e-300) / self.limit)

    def is_met(self, choices: Sequence[int]) -> bool:
        return self.table.cost(choices) <= self.limit * (1 + ROUNDING)

    def check(self, space: DecisionSpace) -> None:
        """Raises TargetError when the limit is no number above zero, or not even the cheapest network keeps it."""
        table = self.table
        counts = list(space.option_counts)
        if np.isfinite(table.values).sum(axis=1).tolist() != counts:
            raise TargetError(f"the table of {table.name} is not of space {space.name}, which has {counts} candidates")
        if not (math.isfinite(self.limit) and self.limit > 0):
            raise TargetError(f"the limit of {table.name} must be a number above zero, got {self.limit}")
        if table.base > self.limit * (1 + ROUNDING):
            cheapest = space.network_name(table.cheapest)
            raise TargetError(
                f"no network of space {space.name} meets {table.show(self.limit)} of {table.name}: the least is "
                f"{table.show(table.base)}, of {cheapest}, and the most {table.show(table.most_expensive)}; "
                "raise the limit, or search a smaller space"
            )


def idle_limits(constraints: Sequence[Constraint]) -> list[str]:
    """A warning for each limit that every network of the space keeps."""
    return [
        f"{c.table.show(c.limit)} of {c.table.name} rule nothing out: no network of the space takes more than "
        f"{c.table.show(c.table.most_expensive)}; lower the limit, or search a larger space"
        for c in constraints
        if c.table.most_expensive <= c.limit
    ]


def show_limits(constraints: Sequence[Constraint]) -> str:
    """The limits in an error's words: '3.5 ms of latency, 300 of MACs'."""
    return ", ".join(f"{c.table.show(c.limit)} of {c.table.name}" for c in constraints)


def limit_memory(space: SearchSpace, limit_bytes: int, *, itemsize: int = 4) -> SearchSpace:
    """Space without the candidates whose own activations, of `itemsize` bytes a value and batch 1, need more memory
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
