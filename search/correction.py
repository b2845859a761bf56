"""Correction of a table's costs by what judges of whole networks said: their level first, then single options."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices
from netlathe.search.costs import CostTable

OWN_SHARE = 0.05
"""Standard deviation of what a network's options cost beside the table, all together, in parts of its cost."""
LEVEL_SHARE = 0.05
"""Standard deviation of the level around the median of what judges said."""
NOISE_SHARE = 0.003
"""Standard deviation of a judge's answer, in parts of it."""


@dataclass
class Correction:
    """Judged cost = level * table's cost + what each chosen option costs beside it.

    A Bayesian linear model (Bishop, Pattern Recognition and Machine Learning, section 3.3, in its dual form): the level
    lies around the median of judged / cost, so that a single reading moves nothing else; options' own parts lie around
    nothing, and share what is left over by how often they, or options alike, are in the networks that were judged.
    `options` is the shape (decisions, most options) of the table.
    """

    options: tuple[int, int]
    likeness: NDArray[np.float64] | None = None
    """Correlation of the own parts of a decision's options (decisions, options, options); None for unlike ones."""
    readings: list[tuple[Choices, float, float]] = field(default_factory=list)
    """(network, cost by the table, judged cost)."""
    level: float = field(default=1.0, init=False)
    parts: NDArray[np.float64] = field(init=False)
    """Costs of options beside the level (decisions, options), in the table's unit."""

    def __post_init__(self) -> None:
        self.parts = np.zeros(self.options)

    def learn(self, choices: Choices, cost: float, judged: float) -> None:
        """Takes a reading in, all of them anew."""
        self.readings.append((choices, cost, judged))
        networks = np.array([one for one, _, _ in self.readings])
        costs, answers = (np.array([row[k] for row in self.readings]) for k in (1, 2))
        middle = statistics.median((answers / costs).tolist())
        usual = float(np.mean(answers))
        level_variance, part_variance = (LEVEL_SHARE * middle) ** 2, (OWN_SHARE * usual) ** 2 / max(1, self.options[0])
        shared = sum(self._likeness(d)[column[:, None], column] for d, column in enumerate(networks.T))
        covariance = level_variance * np.outer(costs, costs) + part_variance * shared
        weights = np.linalg.solve(covariance + np.diag((NOISE_SHARE * answers) ** 2), answers - middle * costs)
        self.level = middle + level_variance * float(costs @ weights)
        columns = [self._likeness(d)[:, column] @ weights for d, column in enumerate(networks.T)]
        self.parts = part_variance * np.array(columns).reshape(self.options)

    def _likeness(self, decision: int) -> NDArray[np.float64]:
        return np.eye(self.options[1]) if self.likeness is None else self.likeness[decision]

    def cost(self, choices: Sequence[int], cost: float) -> float:
        """Corrected cost of a network that has `cost` by the table."""
        return self.level * cost + float(self.parts[np.arange(len(choices)), list(choices)].sum())

    def table(self, table: CostTable) -> CostTable:
        """The corrected table."""
        values = self.level * table.values + self.parts
        least = np.nanmin(values, axis=1, keepdims=True) if values.size else np.zeros((0, 1))
        return replace(table, base=self.level * table.base + float(least.sum()), values=values - least)
