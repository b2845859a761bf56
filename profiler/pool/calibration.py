"""Calibration of devices of one model against each other, by what all of them have measured. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

TOLERANCE = 0.05
"""Scatter of two units' ratios up to which one number tells their difference; as much as a stable record's rounds may
disagree."""

FEWEST_SHARED = 5
"""Graphs that two units must have in common to be compared."""

U = TypeVar("U", bound=Hashable)


@dataclass(frozen=True)
class UnitLevel:
    """Comparison of one unit with the others of its model."""

    level: float | None
    """How many times as long it takes as its pool, or as the pool's reference where it is apart; None where too little
    is shared to tell."""
    scatter: float | None
    """Scatter of the shared graphs' ratios around the level, relative (root mean square, the worst tenth left out)."""
    shared: int
    """Number of graphs that it shares with the pool's reference; of the reference, with the unit that shares most."""

    @property
    def is_known(self) -> bool:
        return self.level is not None

    @property
    def is_pooled(self) -> bool:
        """Whether one number tells how it differs, so that its latencies stand for the others'."""
        return self.scatter is not None and self.scatter <= TOLERANCE


def calibrate(latencies_ms: Mapping[U, Mapping[str, float]]) -> dict[U, UnitLevel]:
    """Levels of units by what they have measured, {unit: {graph: latency in ms}}.

    The reference is the unit that most others agree with; the level of the median unit of those is 1. Where there is a
    single unit, it is the pool.
    """
    if not latencies_ms:
        return {}
    pairs = {one: {other: _compare(own, theirs) for other, theirs in latencies_ms.items()}
             for one, own in latencies_ms.items()}  # fmt: skip
    reference = max(pairs, key=lambda one: (_agreeing(pairs[one].values()), len(latencies_ms[one])))
    found = {one: pairs[one][reference] for one in pairs}
    shared = [one[reference].shared for other, one in pairs.items() if other != reference]
    found[reference] = UnitLevel(1.0, 0.0, max(shared, default=len(latencies_ms[reference])))
    centre = math.exp(statistics.median(math.log(one.level) for one in found.values() if one.level and one.is_pooled))
    return {unit: UnitLevel(one.level and one.level / centre, one.scatter, one.shared) for unit, one in found.items()}


def _agreeing(levels: Iterable[UnitLevel]) -> int:
    return sum(one.is_pooled for one in levels)


def _compare(own: Mapping[str, float], reference: Mapping[str, float]) -> UnitLevel:
    """A unit against the reference."""
    shared = own.keys() & reference.keys()
    if len(shared) < FEWEST_SHARED:
        return UnitLevel(None, None, len(shared))
    logs = sorted(math.log(own[key] / reference[key]) for key in shared)
    middle = statistics.median(logs)
    squares = sorted((one - middle) ** 2 for one in logs)
    kept = squares[: len(squares) - max(1, len(squares) // 10)]
    return UnitLevel(math.exp(middle), math.sqrt(statistics.fmean(kept)), len(shared))
