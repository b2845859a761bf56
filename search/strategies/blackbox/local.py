"""Local search (White et al., "Exploring the loss landscape in neural architecture search", UAI 2021)."""

from __future__ import annotations

import numpy as np

from netlathe.archspace.decisions import Choices
from netlathe.search.strategies.blackbox.feasible import FeasibleSet
from netlathe.search.strategies.blackbox.strategy import Strategy


class LocalSearch(Strategy):
    """Local search: a random neighbour of the best network, until one is better, which then takes its place. Where all
    neighbours of the best are known, it is a local optimum, and the next best has its turn.

    Neighbours differ in one decision, or in two of which one pays for the other's cost under a limit. start: networks
    drawn at random at first.
    """

    def __init__(self, feasible: FeasibleSet, *, seed: int = 0, start: int = 10) -> None:
        super().__init__(feasible, seed=seed, start=start)
        self._exhausted: set[Choices] = set()

    def propose(self, rng: np.random.Generator) -> Choices | None:
        for best in self.best_first():
            if best in self._exhausted:
                continue
            near = [one for one in self.feasible.neighbours(best) if not self.is_known(one)]
            if near:
                return near[rng.integers(len(near))]
            self._exhausted.add(best)
        return None
