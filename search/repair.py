"""From what a table promises to what a judge finds: the most probable network that meets its limits in truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.costs import ROUNDING, Constraint, decode
from search.errors import TargetError
from search.parameters import Path

Judge = Callable[[Path], float]
"""The cost of the whole network along a path: the upper end of its predicted interval, or a stopwatch's answer."""


@dataclass(frozen=True)
class Repaired:
    """The network taken."""

    path: Path
    costs: tuple[float, ...]
    """By the tables."""
    judged: tuple[float, ...]
    """By the judges; a table's own cost where there is none."""
    is_met: bool
    """Whether `judged` keeps all limits."""
    judgements: int
    """How many networks were looked at."""


def repair(
    log_probabilities: NDArray[np.float64],
    constraints: Sequence[Constraint],
    judges: Sequence[Judge | None],
    *,
    attempts: int = 8,
) -> Repaired:
    """Decodes, asks the judges, and decodes again under limits scaled by what they found, in either direction, until
    the answer repeats; at most `attempts` networks are judged. Of those that keep all limits by table and judge, the
    most probable is taken; if none does, the one that breaks them least, with `is_met` false.

    Raises TargetError when already by the tables nothing fits.
    """
    decode(log_probabilities, constraints)
    found: dict[Path, Repaired] = {}
    scales = [1.0] * len(constraints)
    while len(found) < attempts:
        path = _decoded(log_probabilities, constraints, scales)
        if path in found:
            break
        costs = tuple(c.table.cost(path) for c in constraints)
        judged = tuple(judge(path) if judge else cost for judge, cost in zip(judges, costs, strict=True))
        is_met = _worst_excess(judged, constraints) <= ROUNDING and all(c.is_met(path) for c in constraints)
        found[path] = Repaired(path, costs, judged, is_met, 0)
        for index, (value, cost, constraint) in enumerate(zip(judged, costs, constraints, strict=True)):
            scale = value / cost if cost > 0 else 1.0
            # What is still too slow must not come again, however the judge's answers scatter.
            scales[index] = max(scale, 1.002 * scales[index]) if value > constraint.limit else scale
    met = [one for one in found.values() if one.is_met]
    if met:
        best = max(met, key=lambda one: _score(log_probabilities, one.path))
    else:
        best = min(found.values(), key=lambda one: _worst_excess(one.judged, constraints))
    return replace(best, judgements=len(found))


def _decoded(
    log_probabilities: NDArray[np.float64], constraints: Sequence[Constraint], scales: Sequence[float]
) -> Path:
    """Under limits divided by the scales, never above the limits themselves; what fits best where nothing does."""
    scaled = [replace(c, limit=c.limit / max(scale, 1.0)) for c, scale in zip(constraints, scales, strict=True)]
    try:
        return decode(log_probabilities, scaled)
    except TargetError:
        alive = np.isfinite(log_probabilities)
        weights = [np.where(alive, c.table.values / c.limit, np.inf) for c in constraints]
        return tuple(np.argmin(sum(weights), axis=1).tolist())


def _worst_excess(judged: Sequence[float], constraints: Sequence[Constraint]) -> float:
    return max((value / c.limit - 1 for value, c in zip(judged, constraints, strict=True)), default=0.0)


def _score(log_probabilities: NDArray[np.float64], path: Path) -> float:
    return float(log_probabilities[np.arange(len(path)), list(path)].sum())
