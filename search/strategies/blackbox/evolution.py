"""Regularized evolution (Real et al., "Regularized evolution for image classifier architecture search", AAAI 2019)."""

from __future__ import annotations

import numpy as np

from netlathe.archspace.decisions import Choices
from netlathe.search.strategies.blackbox.feasible import FeasibleSet
from netlathe.search.strategies.blackbox.strategy import Strategy


class Evolution(Strategy):
    """Regularized evolution: the best of a random sample of the youngest networks gets a child, which differs from it
    in one decision, or in two along a limit. The oldest dies, however good it is.

    population: networks that are alive, the first of which are drawn at random. sample: how many of them compete.
    """

    def __init__(self, feasible: FeasibleSet, *, seed: int = 0, population: int = 20, sample: int = 20) -> None:
        super().__init__(feasible, seed=seed)
        self.population, self.sample = population, sample

    def propose(self, rng: np.random.Generator) -> Choices | None:
        alive = [(choices, score) for choices, score in self.told.items() if score is not None][-self.population :]
        if len(self.told) + len(self.pending) < self.population or not alive:
            return None
        rivals = rng.permutation(len(alive))[: self.sample]
        parent = alive[max(rivals, key=lambda i: alive[i][1])][0]
        children = [one for one in self.feasible.neighbours(parent) if not self.is_known(one)]
        return children[rng.integers(len(children))] if children else None
