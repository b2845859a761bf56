"""Candidates for a repair: all networks of a space, by scores and costs that add up, or those that were evaluated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices
from netlathe.search.correction import Correction
from netlathe.search.costs import ROUNDING, Constraint, show_limits
from netlathe.search.decode import decode
from netlathe.search.errors import SearchError, TargetError
from netlathe.search.nearby import NearbyCandidates
from netlathe.search.successive import CostLimit


@dataclass(frozen=True)
class Evaluated:
    """Score and costs of a network that was evaluated as a whole, as black-box strategies do. Raises SearchError where
    one of them is no number."""

    choices: Choices
    score: float
    """Quality in any unit; the higher, the better."""
    costs: tuple[float, ...]
    """Costs, one per constraint, in its table's unit."""

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.score, *self.costs))):
            raise SearchError(f"choices {self.choices} have score {self.score} and costs {self.costs}: not all numbers")


class Candidates(Protocol):
    """Networks to choose from under varying limits; a limit is one number per constraint, in its table's unit."""

    def first(self, limits: Sequence[float]) -> Choices:
        """The network to judge first. Raises TargetError where none keeps the limits."""
        ...

    def best(self, limits: Sequence[float]) -> Choices:
        """The network of the best score whose costs keep the limits. Raises TargetError where there is none."""
        ...

    def corrected(self, corrections: Sequence[Correction | None]) -> Candidates:
        """The same networks by corrected costs, one correction per constraint."""
        ...

    def correction(self) -> Correction:
        """A correction of one of their costs that has learnt nothing yet."""
        ...

    def around(self, choices: Choices) -> Candidates:
        """The same networks, to be looked for from that one on."""
        ...

    def nearest(self) -> Choices:
        """A network whose costs are low in proportion to the constraints' limits, on their sum."""
        ...

    def costs(self, choices: Choices) -> tuple[float, ...]:
        """A network's cost per constraint."""
        ...

    def score(self, choices: Choices) -> float:
        """A network's score."""
        ...


@dataclass(frozen=True)
class AdditiveCandidates:
    """Every network, by scores (decisions, options; -inf where there is no option) and tables that add up."""

    scores: NDArray[np.float64]
    constraints: Sequence[Constraint]

    def first(self, limits: Sequence[float]) -> Choices:
        return self.best(limits)

    def best(self, limits: Sequence[float]) -> Choices:
        pairs = zip(self.constraints, limits, strict=True)
        return decode(self.scores, [replace(c, limit=limit) for c, limit in pairs])

    def corrected(self, corrections: Sequence[Correction | None]) -> AdditiveCandidates:
        pairs = zip(self.constraints, corrections, strict=True)
        return replace(self, constraints=[replace(c, table=by.table(c.table)) if by else c for c, by in pairs])

    def correction(self) -> Correction:
        return Correction(self.scores.shape)

    def around(self, choices: Choices) -> AdditiveCandidates:
        return self

    def nearest(self) -> Choices:
        alive = np.isfinite(self.scores)
        weights = [np.where(alive, c.table.values / c.limit, np.inf) for c in self.constraints]
        return tuple(np.argmin(sum(weights), axis=1).tolist())

    def costs(self, choices: Choices) -> tuple[float, ...]:
        return tuple(c.table.cost(choices) for c in self.constraints)

    def score(self, choices: Choices) -> float:
        return float(self.scores[np.arange(len(choices)), list(choices)].sum())


class EvaluatedCandidates:
    """The networks that were evaluated, by their own costs. Raises SearchError for none, or for costs that are not one
    per constraint."""

    def __init__(self, evaluated: Sequence[Evaluated], constraints: Sequence[Constraint]) -> None:
        if not evaluated:
            raise SearchError("no network was evaluated, so there is none to choose; let the strategy run longer")
        for one in evaluated:
            if len(one.costs) != len(constraints):
                raise SearchError(f"choices {one.choices} have {len(one.costs)} costs for {len(constraints)} limits")
        self.constraints = constraints
        self.known = {one.choices: one for one in evaluated}

    def first(self, limits: Sequence[float]) -> Choices:
        return self.best(limits)

    def best(self, limits: Sequence[float]) -> Choices:
        within = [
            one
            for one in self.known.values()
            if all(cost <= limit * (1 + ROUNDING) for cost, limit in zip(one.costs, limits, strict=True))
        ]
        if not within:
            told = show_limits([replace(c, limit=limit) for c, limit in zip(self.constraints, limits, strict=True)])
            raise TargetError(
                f"none of the {len(self.known)} evaluated networks meets all of these limits: {told}; raise one of "
                "them, or let the strategy run longer"
            )
        return max(within, key=lambda one: one.score).choices

    def corrected(self, corrections: Sequence[Correction | None]) -> EvaluatedCandidates:
        def costs(one: Evaluated) -> tuple[float, ...]:
            pairs = zip(one.costs, corrections, strict=True)
            return tuple(by.cost(one.choices, cost) if by else cost for cost, by in pairs)

        return EvaluatedCandidates([replace(one, costs=costs(one)) for one in self.known.values()], self.constraints)

    def correction(self) -> Correction:
        counts = np.array([*self.known]).max(axis=0) + 1
        return Correction((len(counts), int(counts.max())))

    def around(self, choices: Choices) -> EvaluatedCandidates:
        return self

    def nearest(self) -> Choices:
        def share(one: Evaluated) -> float:
            return sum(cost / c.limit for cost, c in zip(one.costs, self.constraints, strict=True))

        return min(self.known.values(), key=share).choices

    def costs(self, choices: Choices) -> tuple[float, ...]:
        return self.known[choices].costs

    def score(self, choices: Choices) -> float:
        return self.known[choices].score


Scores = NDArray[np.float64] | Sequence[Evaluated] | NearbyCandidates
"""Scores of all networks, as additive ones (decisions, options), -inf where there is no option; or of those that a
strategy has evaluated, with their own costs; or of networks whose costs do not add up."""
Limited = Constraint | CostLimit
"""A limit on a table of costs, or on the costs of whole networks."""


def candidates_of(scores: Scores, limits: Sequence[Limited]) -> Candidates:
    """The candidates that these scores are of, within these limits."""
    if isinstance(scores, NearbyCandidates):
        return replace(scores, limits=[one for one in limits if isinstance(one, CostLimit)])
    constraints = [one for one in limits if isinstance(one, Constraint)]
    if isinstance(scores, np.ndarray):
        return AdditiveCandidates(scores, constraints)
    return EvaluatedCandidates(scores, constraints)
