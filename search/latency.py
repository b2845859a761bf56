"""The hardware cost inside the loop: a latency table, differentiable in expectation, exact in decoding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from archspace.graph import Graph
from archspace.spaces import SearchSpace
from search.errors import TargetError
from search.parameters import Path


class LatencyModel(Protocol):
    """Anything that prices networks: a predictor, a table, a stopwatch on the device."""

    def predict(self, items: Sequence[Graph], /) -> NDArray[np.float64]:
        """Latency in ms of each network graph."""
        ...


@dataclass(frozen=True)
class LatencyTable:
    """latency = base_ms + sum over searchable positions of ms[position, choice].

    ms (positions, candidates) holds what a candidate costs more than the fastest of its position, so base_ms is the
    fastest network; nan where there is no candidate.
    """

    base_ms: float
    ms: NDArray[np.float64]

    @classmethod
    def tabulate(cls, space: SearchSpace, model: LatencyModel, *, batch: int = 1) -> LatencyTable:
        """Prices each candidate by the network that has it, everything else being equal: whatever a model adds up to a
        network (overheads, slopes) is in the table. Raises TargetError where the model has no number above zero."""
        table = cls._around([0] * len(space.searchable), space, model, batch)
        if table.base_ms <= 0 and table.ms.size:
            # What candidates save beside the first network does not add up: ask beside about the fastest one.
            table = cls._around(np.nanargmin(table.ms, axis=1).tolist(), space, model, batch)
        if table.base_ms <= 0:
            raise TargetError(
                f"by its own differences, the latency model prices the fastest network at {table.base_ms:.3g} ms: it "
                "cannot steer a search; profile again on a quiet machine"
            )
        return table

    @classmethod
    def _around(cls, origin: Sequence[int], space: SearchSpace, model: LatencyModel, batch: int) -> LatencyTable:
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
        table = np.full((len(counts), max(counts, default=1)), np.nan)
        mask = np.arange(table.shape[1]) < np.array(counts)[:, None]
        table[mask] = prices[1:] - prices[0]
        fastest = np.nanmin(table, axis=1, keepdims=True) if counts else np.zeros((0, 1))
        return cls(float(prices[0] + fastest.sum()), table - fastest)

    def latency_ms(self, path: Sequence[int]) -> float:
        return self.base_ms + float(self.ms[np.arange(len(path)), list(path)].sum())

    @property
    def slowest_ms(self) -> float:
        return self.base_ms + float(np.nanmax(self.ms, axis=1).sum())

    def expected_ms(self, probabilities: Tensor) -> Tensor:
        """base + sum p * ms, differentiable in p (positions, candidates) (ProxylessNAS, section 3.3)."""
        costs = torch.from_numpy(np.nan_to_num(self.ms)).to(probabilities)
        return self.base_ms + (probabilities * costs).sum()

    def check_target(self, target_ms: float) -> None:
        """Raises TargetError when the target is no time, or not even the fastest network meets it."""
        if not (math.isfinite(target_ms) and target_ms > 0):
            raise TargetError(f"the target must be a number of ms above zero, got {target_ms}")
        if target_ms < self.base_ms:
            raise TargetError(
                f"no network of this space meets {target_ms:g} ms: the fastest is predicted at {self.base_ms:.4g} ms "
                f"and the slowest at {self.slowest_ms:.4g} ms; raise the target, or search a smaller space"
            )


def decode(log_probabilities: NDArray[np.float64], table: LatencyTable, target_ms: float) -> Path:
    """The most probable path whose latency is at most target_ms: max sum of log p under the limit.

    A multiple-choice knapsack, solved exactly: position by position, keep the partial paths that no other beats in both
    latency and probability. Raises TargetError when no path fits.
    """
    table.check_target(target_ms)
    budget = (target_ms - table.base_ms) * (1 + 1e-12)
    front: list[tuple[float, float, Path]] = [(0.0, 0.0, ())]
    for costs, scores in zip(table.ms, log_probabilities, strict=True):
        options = [(k, c, s) for k, (c, s) in enumerate(zip(costs, scores, strict=True)) if not np.isnan(c)]
        grown = [
            (ms + c, score + s, (*path, k)) for ms, score, path in front for k, c, s in options if ms + c <= budget
        ]
        grown.sort(key=lambda one: (one[0], -one[1]))
        front, best = [], -np.inf
        for one in grown:
            if one[1] > best:
                front.append(one)
                best = one[1]
    return front[-1][2]
