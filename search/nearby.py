"""Candidates for a repair whose costs do not add up: networks around the one that was judged last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.search.correction import Correction
from netlathe.search.errors import TargetError
from netlathe.search.successive import CostLimit, solve, within

ALIKE = 0.25
"""Distance of two options, in parts of their number, at which what they cost beside the model is alike by 1 / e."""
LEAST_REACH, MOST_REACH = 0.0625, 0.5
"""How far a repair looks at once, in parts of the number of options."""


@dataclass(frozen=True)
class NearbyCandidates:
    """Networks near one, by scores that add up over decisions and costs that do not, each by its own model.

    scores (decisions, options), -inf where there is no option; options stand in an order in which near ones cost alike.
    The best network is found as `solve` does, around `origin`, the further the more of a limit it leaves or breaks; and
    where none there keeps the limits, around `fastest`, a network that costs little.
    """

    space: DecisionSpace
    scores: NDArray[np.float64]
    limits: Sequence[CostLimit]
    origin: Choices
    fastest: Choices | None = None

    def first(self, limits: Sequence[float]) -> Choices:
        return self.origin

    def best(self, limits: Sequence[float]) -> Choices:
        pairs = zip(self.limits, limits, strict=True)
        corrected = [replace(one, limit=limit) for one, limit in pairs]
        reach = self._reach(limits)
        reaches = [reach / 2**halved for halved in range(4) if reach / 2**halved >= LEAST_REACH]
        try:
            return solve(self.space, self.scores, corrected, self.origin, reaches=[*reaches, 0.0, 0.0]).choices
        except TargetError:
            if self.fastest is None:
                raise
            return solve(self.space, self.scores, corrected, self.fastest).choices

    def corrected(self, corrections: Sequence[Correction | None]) -> NearbyCandidates:
        pairs = zip(self.limits, corrections, strict=True)
        return replace(self, limits=[replace(one, correction=by) for one, by in pairs])

    def around(self, choices: Choices) -> NearbyCandidates:
        return replace(self, origin=choices)

    def correction(self) -> Correction:
        counts = np.array(self.space.option_counts)
        places = np.arange(self.scores.shape[1])
        distances = np.abs(places[:, None] - places) / (ALIKE * counts[:, None, None])
        return Correction(self.scores.shape, np.exp(-distances))

    def nearest(self) -> Choices:
        asked = within(self.scores, self.origin, self._reach([one.limit for one in self.limits]))
        tables = [one.constraint(self.space, self.origin, asked) for one in self.limits]
        shares = sum(np.where(asked, c.table.values / c.limit, np.inf) for c in tables)
        return tuple(np.argmin(shares, axis=1).tolist())

    def _reach(self, limits: Sequence[float]) -> float:
        """How far to look: as far as widths may have to change where costs grow in proportion."""
        ratio = max(cost / limit for cost, limit in zip(self.costs(self.origin), limits, strict=True))
        return min(MOST_REACH, max(LEAST_REACH, abs(float(np.log(ratio)))))

    def costs(self, choices: Choices) -> tuple[float, ...]:
        return tuple(one.cost(self.space, choices) for one in self.limits)

    def score(self, choices: Choices) -> float:
        return float(self.scores[np.arange(len(choices)), list(choices)].sum())
