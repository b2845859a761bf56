"""The interface of all black-box strategies: networks are asked for, and their scores told."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices
from netlathe.search.candidates import Evaluated
from netlathe.search.errors import SearchError
from netlathe.search.strategies.blackbox.feasible import FeasibleSet

TRIES = 50
"""Random draws until another network is searched for one by one."""


class Strategy(ABC):
    """A way to look for the network of the highest score within limits.

    What it asks for follows from the seed and from what it was told, in that order, alone: told the same, another
    process goes on alike. It never asks for a network twice, nor for one beyond a limit. Subclasses say what to look at
    next (`propose`), and may learn as they are told (`learn`). start: networks drawn at random at first; where networks
    were scored at cheaper budgets (`inform`), every other one is the best by the dearest of these.
    """

    def __init__(self, feasible: FeasibleSet, *, seed: int = 0, start: int = 0) -> None:
        self.feasible, self.seed, self.start = feasible, seed, start
        self.told: dict[Choices, float | None] = {}
        """Scores in the order that they were told in; None where the look-up failed."""
        self.pending: dict[Choices, None] = {}
        """Networks that were asked for and not told yet, in order."""
        self.cheaper: list[dict[Choices, float]] = []
        """Scores at cheaper budgets, the cheapest first."""

    def ask(self, count: int = 1) -> list[Choices]:
        """Up to `count` networks to be looked at, which are pending from then on; fewer where the space has no more."""
        found = []
        for _ in range(count):
            rng = np.random.default_rng([self.seed, len(self.told), len(self.pending)])
            known = len(self.told) + len(self.pending)
            choices = self.propose(rng) if known >= self.start else None
            if known < self.start and known % 2 == 0:
                choices = self.promoted()
            if choices is not None:
                choices = self.feasible.repaired(choices, rng)
            if choices is None or self.is_known(choices):
                choices = self.unknown(rng)
            if choices is None:
                break
            self.reserve(choices)
            found.append(choices)
        return found

    def inform(self, cheaper: Sequence[Mapping[Choices, float | None]]) -> None:
        """Takes note of scores at cheaper budgets, the cheapest first, before anything is asked for. Networks beyond a
        limit and failed look-ups are left out."""
        self.cheaper = [
            {one: score for one, score in budget.items() if score is not None and self.feasible.contains(one)}
            for budget in cheaper
        ]

    def promoted(self) -> Choices | None:
        """The best network by the dearest of the cheaper budgets that is not known; None where there is none."""
        if not self.cheaper:
            return None
        by_score = sorted(self.cheaper[-1].items(), key=lambda pair: -pair[1])
        return next((one for one, _ in by_score if not self.is_known(one)), None)

    def reserve(self, choices: Choices) -> None:
        """Takes note that somebody else looks at this network."""
        if choices not in self.told:
            self.pending[choices] = None

    def tell(self, choices: Choices, score: float | None) -> None:
        """Takes note of a network's score, the higher, the better; None or no number for a look-up that failed, which
        counts as a network of unknown score. Raises SearchError for a network that was told before."""
        if choices in self.told:
            raise SearchError(f"the score of choices {choices} was told before, as {self.told[choices]}")
        self.pending.pop(choices, None)
        value = None if score is None or not math.isfinite(score) else float(score)
        self.told[choices] = value
        self.learn(choices, value)

    @abstractmethod
    def propose(self, rng: np.random.Generator) -> Choices | None:
        """The network to look at next. One beyond a limit is repaired; one that is known, or None, stands for any
        other."""

    def learn(self, choices: Choices, score: float | None) -> None:  # noqa: B027  # most learn when they propose
        """Hears of each network that was told, once; does nothing by default."""

    def is_known(self, choices: Choices) -> bool:
        """Whether a network was told, or is pending."""
        return choices in self.told or choices in self.pending

    def unknown(self, rng: np.random.Generator) -> Choices | None:
        """A random network within the limits that is not known; None where all are."""
        for _ in range(TRIES):
            choices = self.feasible.draw(rng)
            if not self.is_known(choices):
                return choices
        return next((one for one in self.feasible.walk(rng) if not self.is_known(one)), None)

    def scored(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Networks (networks, decisions) and scores (networks,) of the look-ups that did not fail, in order."""
        pairs = [(choices, score) for choices, score in self.told.items() if score is not None]
        networks = np.array([choices for choices, _ in pairs], dtype=np.int64)
        return networks.reshape(len(pairs), len(self.feasible.counts)), np.array([score for _, score in pairs])

    def best_first(self) -> list[Choices]:
        """Networks by score, the best first; equal ones in the order in which they were told."""
        pairs = [(choices, score) for choices, score in self.told.items() if score is not None]
        return [choices for choices, _ in sorted(pairs, key=lambda pair: -pair[1])]

    def evaluated(self) -> list[Evaluated]:
        """Networks with scores and costs, as repair and the final choice take them."""
        return [
            Evaluated(choices, score, self.feasible.costs(choices))
            for choices, score in self.told.items()
            if score is not None
        ]


class RandomDraws(Strategy):
    """Random networks within the limits: what every other strategy has to beat. Of those that were scored at a cheaper
    budget, the best, as successive halving has it (Jamieson & Talwalkar, AISTATS 2016)."""

    def propose(self, rng: np.random.Generator) -> Choices | None:
        return self.promoted()
