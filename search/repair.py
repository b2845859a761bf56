"""From what a table promises to what a judge finds: the best network that meets its limits in truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices
from netlathe.search.costs import ROUNDING, Constraint
from netlathe.search.decode import decode
from netlathe.search.errors import TargetError

Judge = Callable[[Choices], float]
"""The cost of the whole network along a path: the upper end of its predicted interval, or a stopwatch's answer."""


@dataclass(frozen=True)
class Repaired:
    """The network taken."""

    path: Choices
    costs: tuple[float, ...]
    """By the tables."""
    judged: tuple[float, ...]
    """By the judges; a table's own cost where there is none."""
    is_met: bool
    """Whether `judged` keeps all limits."""
    judgements: int
    """How many networks were looked at."""


def repair(
    scores: NDArray[np.float64],
    constraints: Sequence[Constraint],
    judges: Sequence[Judge | None],
    *,
    attempts: int = 8,
) -> Repaired:
    """Decodes, asks the judges, and decodes again under other limits on the tables: lowered by what the judge found
    until it accepts, then between what it accepted and what it refused, until these are within 1 % of each other. At
    most `attempts` networks are judged, each once. Of those that keep all limits by table and judge, the one with the
    best sum of scores is taken; if none does, the one that breaks them least, with `is_met` false.

    Raises TargetError when already by the tables nothing fits.
    """
    decode(scores, constraints)
    found: dict[Choices, Repaired] = {}
    ranges = [_Range(c.limit) for c in constraints]
    for _ in range(4 * attempts):
        path, is_within = _decoded(scores, constraints, [r.tried for r in ranges])
        if path not in found:
            if len(found) == attempts:
                break
            costs = tuple(c.table.cost(path) for c in constraints)
            judged = tuple(judge(path) if judge else cost for judge, cost in zip(judges, costs, strict=True))
            is_met = _worst_excess(judged, constraints) <= ROUNDING and all(c.is_met(path) for c in constraints)
            found[path] = Repaired(path, costs, judged, is_met, 0)
        one = found[path]
        for limits, cost, value in zip(ranges, one.costs, one.judged, strict=True):
            limits.learn(cost, value, is_within=is_within)
        if one.is_met and all(r.is_narrow for r in ranges):
            break
    met = [one for one in found.values() if one.is_met]
    if met:
        best = max(met, key=lambda one: _score(scores, one.path))
    else:
        best = min(found.values(), key=lambda one: _worst_excess(one.judged, constraints))
    return replace(best, judgements=len(found))


@dataclass
class _Range:
    """Where between the limits on a table that a judge accepted and refused the best one lies."""

    limit: float
    """What the judge's answers must keep, and no table may exceed."""
    accepted: float = 0.0
    refused: float = math.inf
    tried: float = field(init=False)
    """The limit on the table to decode under next."""

    def __post_init__(self) -> None:
        self.tried = self.limit

    def learn(self, cost: float, judged: float, *, is_within: bool) -> None:
        """From a network that was decoded under `tried`, or, where none is within that, near it."""
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


def _decoded(
    scores: NDArray[np.float64], constraints: Sequence[Constraint], limits: Sequence[float]
) -> tuple[Choices, bool]:
    """Under these limits on the tables; what fits best where nothing does. And whether it is within them."""
    try:
        return decode(scores, [replace(c, limit=limit) for c, limit in zip(constraints, limits, strict=True)]), True
    except TargetError:
        alive = np.isfinite(scores)
        weights = [np.where(alive, c.table.values / c.limit, np.inf) for c in constraints]
        return tuple(np.argmin(sum(weights), axis=1).tolist()), False


def _worst_excess(judged: Sequence[float], constraints: Sequence[Constraint]) -> float:
    return max((value / c.limit - 1 for value, c in zip(judged, constraints, strict=True)), default=0.0)


def _score(scores: NDArray[np.float64], path: Choices) -> float:
    return float(scores[np.arange(len(path)), list(path)].sum())
