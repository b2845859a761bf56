"""NetAdapt: from the original, one layer's cut after the other until the limits are kept (Yang et al., ECCV 2018,
arXiv:1804.03230)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.search.costs import ROUNDING
from netlathe.search.successive import CostLimit

STEPS = 30
"""Steps from the original to the limits, at the least."""

OnStep = Callable[[int, int], None]
"""Listener to steps: (done, of how many)."""


def netadapt(
    space: DecisionSpace,
    scores: NDArray[np.float64],
    limits: Sequence[CostLimit],
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
    each, left, choices = max(2, looks // steps), looks, tuple(space.reference)
    whole = excess = _excesses(space, limits, [choices])[0]
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
        excess = _excesses(space, limits, [choices])[0]
    return choices


def _proposals(
    space: DecisionSpace, limits: Sequence[CostLimit], origin: Choices, floor: Choices, excess: float, aim: float
) -> list[Choices]:
    """For each decision, the network of its nearest option on the way to the floor that reaches the aim; where none
    does, those of the floor's options that lower the excess. Costs are taken to fall along the way, so that it is
    halved again and again; what is found reaches the aim whether they do or not."""
    decisions = [decision for decision in range(len(origin)) if origin[decision] != floor[decision]]
    near, far = ({decision: one[decision] for decision in decisions} for one in (origin, floor))

    def changed(options: dict[int, int]) -> list[Choices]:
        return [(*origin[:decision], option, *origin[decision + 1 :]) for decision, option in options.items()]

    lowered = dict(zip(decisions, _excesses(space, limits, changed(far)), strict=True))
    reaching = [decision for decision in decisions if lowered[decision] <= aim + ROUNDING]
    if not reaching:
        return changed({decision: far[decision] for decision in decisions if lowered[decision] < excess - ROUNDING})
    while tried := {one: (near[one] + far[one]) // 2 for one in reaching if abs(near[one] - far[one]) > 1}:
        for (decision, option), left in zip(tried.items(), _excesses(space, limits, changed(tried)), strict=True):
            (far if left <= aim + ROUNDING else near)[decision] = option
    return changed({decision: far[decision] for decision in reaching})


def _excesses(space: DecisionSpace, limits: Sequence[CostLimit], networks: Sequence[Choices]) -> list[float]:
    """By how much the costs of networks are above the limits, as a share of each and over all."""
    if not networks:
        return []
    shares = np.stack([limit.costs(space, networks) / limit.limit for limit in limits])
    return np.maximum(shares - 1, 0).sum(axis=0).tolist()  # type: ignore[no-any-return]


def _nearer(choices: Choices, floor: Choices) -> Choices:
    return tuple(one + (one < end) - (one > end) for one, end in zip(choices, floor, strict=True))


def _score(scores: NDArray[np.float64], choices: Choices) -> float:
    return float(scores[np.arange(len(choices)), list(choices)].sum())
