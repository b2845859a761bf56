"""Repair of a choice that was made by tables: the best network that meets its limits by judges of whole networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from netlathe.archspace.decisions import Choices
from netlathe.search.candidates import Candidates, Limited, Scores, candidates_of
from netlathe.search.costs import ROUNDING
from netlathe.search.errors import TargetError

Judge = Callable[[Choices], float]
"""Cost of a whole network, of which the limit is an upper bound: the upper end of its predicted interval, or of what a
stopwatch may show."""

ENOUGH = 0.99
"""Share of a limit from which on it counts as used."""
FURTHEST = 1.06
"""Most that a network is tried at, in parts of the limit by the corrected tables: they are about that uncertain."""
STEP = 0.004
"""Margin below the limits, in parts, after a first network that the corrected tables had within them is refused."""
BELOW = 1e-4
"""Step below the cost of a network that was refused, in parts of it."""
CLOSEST = 0.01
"""Width of the range between tried limits that were kept and broken at which the search between them ends."""


@dataclass(frozen=True)
class Repaired:
    """The network taken, with its costs and how many were judged for it."""

    choices: Choices
    costs: tuple[float, ...]
    """Costs by the tables, or those that it was evaluated with."""
    judged: tuple[float, ...]
    """Costs by the judges; those of `costs` where there is no judge."""
    is_met: bool
    """Whether all limits are kept by their judges, and by the tables where there is no judge."""
    judgements: int
    """How many networks were judged."""


def repair(
    scores: Scores,
    constraints: Sequence[Limited],
    judges: Sequence[Judge | None],
    *,
    attempts: int = 8,
) -> Repaired:
    """Takes the best network by the tables, asks the judges, corrects the tables by their answers (Correction), and
    takes again, until the tables lead to a network that the judges accepted. If that leaves some of a limit unused, the
    limits that are tried rise and sink between what was kept and what was broken. At most `attempts` networks are
    judged, each once. Of those that keep all limits, the one of the best score is taken; if none does, the one that
    breaks them least, with `is_met` false.

    Where networks were evaluated, their own costs stand in the tables' place. judges: one per constraint, or None.
    Raises TargetError when already by the tables nothing fits, SearchError where nothing was evaluated.
    """
    candidates = candidates_of(scores, constraints)
    case = _Repair(candidates, constraints, judges)
    choices: Choices | None = candidates.first([c.limit for c in constraints])
    while choices is not None and len(case.found) < attempts:
        case.judge(choices)
        choices = case.next()
    return replace(case.taken(), judgements=len(case.found))


class _Repair:
    """A repair under way: what was judged, what it taught, and how far beyond the limits is tried."""

    def __init__(self, candidates: Candidates, constraints: Sequence[Limited], judges: Sequence[Judge | None]) -> None:
        self.candidates, self.constraints, self.judges = candidates, constraints, judges
        self.found: dict[Choices, Repaired] = {}
        self.corrections = [candidates.correction() if judge else None for judge in judges]
        self.refused = 0
        """Networks since the last one accepted that the tables had within the limits, and the judges had not."""
        self.kept, self.broken = 1.0, FURTHEST
        """Parts of the limits, by corrected tables: tried in vain for anything new, and tried and refused."""

    def next(self) -> Choices | None:
        """The network to judge next; None where there is none that could be better than what was accepted."""
        if self._is_used_up:
            return None
        corrected = self.candidates.corrected(self.corrections)
        try:
            choices = self._best(corrected, 1 - self.margin)
        except TargetError:
            choices = corrected.nearest()
            return None if choices in self.found else choices
        if self._is_better(choices):
            return choices
        while self.broken - self.kept > CLOSEST:
            tried = (self.kept + self.broken) / 2
            choices = self._best(corrected, tried)
            if self._is_better(choices):
                return choices
            self.kept = tried
        return None

    @property
    def margin(self) -> float:
        """Part of the limits that is left, by corrected tables: more and more, until something is accepted."""
        return STEP * self.refused * (self.refused + 1) / 2

    @property
    def _is_met(self) -> bool:
        return any(one.is_met for one in self.found.values())

    def _is_better(self, choices: Choices) -> bool:
        """Whether a network is new, and none that was accepted has its score."""
        met = [self.candidates.score(one.choices) for one in self.found.values() if one.is_met]
        return choices not in self.found and self.candidates.score(choices) > max(met, default=-np.inf)

    def judge(self, choices: Choices) -> None:
        """Asks the judges of a network, and corrects the tables by what they say."""
        costs = self.candidates.costs(choices)
        expected = self.candidates.corrected(self.corrections).costs(choices)
        judged = tuple(judge(choices) if judge else cost for judge, cost in zip(self.judges, costs, strict=True))
        is_met = _worst_excess(judged, self.constraints) <= ROUNDING
        self.found[choices] = Repaired(choices, costs, judged, is_met, 0)
        tried = 1 + _worst_excess(expected, self.constraints)
        if is_met:
            self.kept = max(self.kept, min(tried, self.broken))
            self.refused = 0
        else:
            self.broken = min(self.broken, max(tried, 1 + _worst_excess(judged, self.constraints)))
            self.refused += tried <= 1
        for correction, cost, value in zip(self.corrections, costs, judged, strict=True):
            if correction:
                correction.learn(choices, cost, value)
        self.candidates = self.candidates.around(choices)

    def taken(self) -> Repaired:
        """The best network so far."""
        met = [one for one in self.found.values() if one.is_met]
        if met:
            return max(met, key=lambda one: self.candidates.score(one.choices))
        return min(self.found.values(), key=lambda one: _worst_excess(one.judged, self.constraints))

    @property
    def _is_used_up(self) -> bool:
        """Whether a network was accepted that leaves no more of a judged limit than is worth looking for."""
        if not self._is_met:
            return False
        taken = self.taken()
        judged = zip(taken.judged, self.constraints, self.judges, strict=True)
        shares = [value / c.limit for value, c, judge in judged if judge]
        return max(shares, default=1.0) >= ENOUGH

    def _best(self, corrected: Candidates, part: float) -> Choices:
        """The best network that was not refused, within the constraints' limits, times `part` where there is a judge to
        say whether they are kept. Raises TargetError where there is none."""
        limits = [c.limit * part if judge else c.limit for c, judge in zip(self.constraints, self.judges, strict=True)]
        while True:
            choices = corrected.best(limits)
            one = self.found.get(choices)
            if one is None or one.is_met:
                return choices
            # By the corrected tables it is within the limits yet: the one that it broke most goes below what it costs.
            worst = int(np.argmax([value / c.limit for value, c in zip(one.judged, self.constraints, strict=True)]))
            limits[worst] = min(limits[worst], corrected.costs(choices)[worst]) * (1 - BELOW)


def _worst_excess(judged: Sequence[float], constraints: Sequence[Limited]) -> float:
    return max((value / c.limit - 1 for value, c in zip(judged, constraints, strict=True)), default=0.0)
