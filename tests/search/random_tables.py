"""Tables of costs and of scores with known properties and random numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netlathe.search.costs import CostTable


def random_table(rng: np.random.Generator, positions: int = 6, candidates: int = 4) -> CostTable:
    ms = rng.exponential(1.0, (positions, candidates))
    ms[0, -1] = np.nan  # a position with fewer candidates
    return CostTable("latency", "ms", 2.0, ms - np.nanmin(ms, axis=1, keepdims=True))


def random_scores(rng: np.random.Generator, table: CostTable) -> NDArray[np.float64]:
    scores = np.log(rng.dirichlet(np.ones(table.values.shape[1]), len(table.values)))
    return np.where(np.isnan(table.values), -np.inf, scores)
