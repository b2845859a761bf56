"""Repair of a choice that was made by tables: the best network that meets its limits by judges of whole networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices
from netlathe.search.candidates import Candidates, Evaluated, candidates_of
from netlathe.search.costs import ROUNDING, Constraint
from netlathe.search.errors import TargetError

Judge = Callable[[Choices], float]
"""Cost of a whole network: the upper end of its predicted interval, or a stopwatch's answer."""


@dataclass(frozen=True)
class Repaired:
    """The network taken, with its costs and how many were judged for it."""

    choices: Choices
    costs: tuple[float, ...]
    """Costs by the tables, or those that it was evaluated with."""
    judged: tuple[float, ...]
    """Costs by the judges; those of `costs` where there is no judge."""
    is_met: bool
    """Whether `costs` and `judged` keep all limits."""
    judgements: int
    """How many networks were judged."""


def repair(
    scores: NDArray[np.float64] | Sequence[Evaluated],
    constraints: Sequence[Constraint],
    judges: Sequence[Judge | None],
    *,
    attempts: int = 8,
) -> Repaired:
    """Takes the best network by the tables, asks the judges, and takes again under other limits on the tables: lowered
    by what the judge found until it accepts, then between what it accepted and what it refused, until these are within
    1 % of each other. At most `attempts` networks are judged, each once. Of those that keep all limits by table and
    judge, the one of the best score is taken; if none does, the one that breaks them least, with `is_met` false.

    scores: of all networks, as additive scores (decisions, options), -inf where there is no option; or of those that a
    strategy has evaluated, whose own costs then stand in the tables' place. judges: one per constraint, or None.
    Raises TargetError when already by the tables nothing fits, SearchError where nothing was evaluated.
    """
    candidates = candidates_of(scores, constraints)
    candidates.best([c.limit for c in constraints])
    found: dict[Choices, Repaired] = {}
    ranges = [_Range(c.limit) for c in constraints]
    for _ in range(4 * attempts):
        choices, is_within = _taken(candidates, [r.tried for r in ranges])
        if choices not in found:
            if len(found) == attempts:
                break
            found[choices] = _judged(choices, candidates.costs(choices), constraints, judges)
        one = found[choices]
        for limits, cost, value in zip(ranges, one.costs, one.judged, strict=True):
            limits.learn(cost, value, is_within=is_within)
        if one.is_met and all(r.is_narrow for r in ranges):
            break
    met = [one for one in found.values() if one.is_met]
    if met:
        best = max(met, key=lambda one: candidates.score(one.choices))
    else:
        best = min(found.values(), key=lambda one: _worst_excess(one.judged, constraints))
    return replace(best, judgements=len(found))


def _judged(
    choices: Choices, costs: tuple[float, ...], constraints: Sequence[Constraint], judges: Sequence[Judge | None]
) -> Repaired:
    judged = tuple(judge(choices) if judge else cost for judge, cost in zip(judges, costs, strict=True))
    is_met = max(_worst_excess(judged, constraints), _worst_excess(costs, constraints)) <= ROUNDING
    return Repaired(choices, costs, judged, is_met, 0)


@dataclass
class _Range:
    """Limits on a table, between one that a judge accepted and one that it refused."""

    limit: float
    """The constraint's limit, which the judge's answers must keep, and no limit on the table may exceed."""
    accepted: float = 0.0
    refused: float = math.inf
    tried: float = field(init=False)
    """The limit on the table to decode under next."""

    def __post_init__(self) -> None:
        self.tried = self.limit

    def learn(self, cost: float, judged: float, *, is_within: bool) -> None:
        """Narrows the range by a network that was taken under `tried`, or, where none is within that, near it."""
        if judged > self.limit * (1 + ROUNDING):
            self.refused = min(self.refused, cost, self.tried)
        elif is_within:
            self.accepted = max(self.accepted, self.tried)
        if self.refused <= self.accepted:
            self.accepted = 0.0  # the judge contradicts itself, or another limit was in the way: begin from below
        if self.refused == math.inf:
            return
        if self.accepted:
            self.tried = (self.accepted + self.refused) / 2
        else:
            # What was too slow must not come again, however the judge's answers scatter.
            self.tried = min(self.tried, self.limit * cost / judged, 0.998 * self.refused)

    @property
    def is_narrow(self) -> bool:
        return self.refused == math.inf or self.refused - self.accepted <= 0.01 * self.limit


def _taken(candidates: Candidates, limits: Sequence[float]) -> tuple[Choices, bool]:
    """The best network under these limits on the tables, the nearest where there is none; and whether it is within."""
    try:
        return candidates.best(limits), True
    except TargetError:
        return candidates.nearest(), False


def _worst_excess(judged: Sequence[float], constraints: Sequence[Constraint]) -> float:
    return max((value / c.limit - 1 for value, c in zip(judged, constraints, strict=True)), default=0.0)
