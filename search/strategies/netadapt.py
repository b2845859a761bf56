"""NetAdapt: from the original, one layer's cut after the other until the limits are kept (Yang et al., ECCV 2018,
arXiv:1804.03230)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.search.costs import ROUNDING
from netlathe.search.successive import NetworkLimit

STEPS = 20
"""Steps from the original to the limits, at the least."""

OnStep = Callable[[int, int], None]
"""Listener to steps: (done, of how many)."""


def netadapt(
    space: DecisionSpace,
    scores: NDArray[np.float64],
    limits: Sequence[NetworkLimit],
    floor: Choices,
    *,
    loss: Callable[[Choices], float] | None = None,
    looks: int = 100,
    steps: int = STEPS,
    on_step: OnStep | None = None,
) -> Choices:
    """The network within the limits that NetAdapt ends at.

    Each step takes one of `steps` equal parts of what the original is above the limits, as shares of these; of more
    where there are `looks` for them. For each decision, the proposal is the nearest option on the way to the `floor`,
    which keeps the limits, that does so alone; of the proposals, the one of the least `loss` is taken, without training
    in between. Where looks are too few for all proposals, those are looked at that lose the least by `scores`
    (decisions, options); without `loss`, these decide. Where no decision alone reaches a step, those that come closest
    are proposed; where none lowers the excess, as where two layers hold one peak of memory, all decisions go an option
    towards the floor.
    """
    steps = max(steps, looks // max(1, len(floor)))
    each, left, choices = max(1, looks // steps), looks, tuple(space.reference)
    whole = excess = _excess([limit.cost(space, choices) for limit in limits], limits)
    while excess > ROUNDING:
        if on_step:
            on_step(round(steps * (1 - excess / whole)), steps)
        proposals = _proposals(space, limits, choices, floor, excess, max(0.0, excess - whole / steps))
        ranked = sorted(proposals, key=lambda one: -_score(scores, one))[: min(each, left)]
        if loss and len(ranked) > 1:
            left -= len(ranked)
            choices = min(ranked, key=loss)
        elif proposals:
            choices = max(proposals, key=lambda one: _score(scores, one))
        else:
            choices = _nearer(choices, floor)
        excess = _excess([limit.cost(space, choices) for limit in limits], limits)
    return choices


def _proposals(
    space: DecisionSpace, limits: Sequence[NetworkLimit], origin: Choices, floor: Choices, excess: float, aim: float
) -> list[Choices]:
    """For each decision, the network of its nearest option on the way to the floor that reaches the aim; where none
    does, of the option that comes closest."""
    tables = [limit.constraint(space, origin, _between(space, origin, floor)).table for limit in limits]
    reached, closest = [], []
    for decision, (now, end) in enumerate(zip(origin, floor, strict=True)):
        options = range(now + 1, end + 1) if end > now else range(now - 1, end - 1, -1)
        changed = [(*origin[:decision], option, *origin[decision + 1 :]) for option in options]
        excesses = [_excess([table.cost(one) for table in tables], limits) for one in changed]
        enough = [one for one, left in zip(changed, excesses, strict=True) if left <= aim + ROUNDING]
        if enough:
            reached.append(enough[0])
        elif excesses and min(excesses) < excess - ROUNDING:
            closest.append(changed[int(np.argmin(excesses))])
    return reached or closest


def _between(space: DecisionSpace, origin: Choices, floor: Choices) -> NDArray[np.bool_]:
    """Which options (decisions, options) lie between those of two networks, these included."""
    options = np.arange(max(space.option_counts))
    low, high = np.minimum(origin, floor)[:, None], np.maximum(origin, floor)[:, None]
    return np.asarray((options >= low) & (options <= high))


def _excess(costs: Sequence[float], limits: Sequence[NetworkLimit]) -> float:
    """By how much costs are above the limits, as a share of each and over all."""
    return sum(max(0.0, cost / limit.limit - 1) for cost, limit in zip(costs, limits, strict=True))


def _nearer(choices: Choices, floor: Choices) -> Choices:
    return tuple(one + (one < end) - (one > end) for one, end in zip(choices, floor, strict=True))


def _score(scores: NDArray[np.float64], choices: Choices) -> float:
    return float(scores[np.arange(len(choices)), list(choices)].sum())
