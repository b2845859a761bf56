"""Choice of the widths with the device at hand: its level first, then networks are timed until one uses the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices
from netlathe.runs.compression.settings import CompressSettings
from netlathe.runs.folder import Workplace
from netlathe.runs.judges import Judged, StopwatchJudge, choose_network

if TYPE_CHECKING:
    from netlathe.search.successive import CostLimit


def levelled(
    settings: CompressSettings,
    place: Workplace,
    doubted: Sequence[CostLimit],
    predicted: Sequence[CostLimit],
    first: Choices,
    starts: Sequence[Choices],
) -> tuple[list[CostLimit], list[Choices]]:
    """The limits, the main target's at the level that the device shows for a `first` network, predicted to be about as
    fast as is asked; and those of `starts` that keep them.

    They are those `doubted`, other targets' by upper ends of intervals; where no start keeps these, those `predicted`,
    as a network far above a target is little of a beginning; and where none keeps these either, as the last start needs
    them. Without a device, the limits are what they were, and all of `starts` keep them.
    """
    space, main = settings.space, settings.goal.main
    if settings.device is None:
        return [*doubted], [*starts]
    with place.listener.working("timing a first network"), settings.device.open(main, place.listener) as watch:
        judged_ms = StopwatchJudge(space, main, watch)(first)
    for limits in (doubted, predicted):
        level = judged_ms / limits[0].cost(space, first)
        found = [replace(limits[0], limit=limits[0].limit / level), *limits[1:]]
        kept = [choices for choices in starts if all(one.cost(space, choices) <= one.limit for one in found)]
        if kept:
            return found, kept
    return [replace(one, limit=max(one.limit, one.cost(space, starts[-1]))) for one in found], [starts[-1]]


def repaired(
    settings: CompressSettings,
    place: Workplace,
    scores: NDArray[np.float64],
    found: Choices,
    predicted: Sequence[CostLimit],
    doubted: Sequence[CostLimit],
    *,
    fastest: Choices,
) -> tuple[Judged, list[str]]:
    """The best network, by scores (decisions, options), that the device's stopwatch accepts, and warnings. It is looked
    for from `found` on, or else from the `fastest` one. `predicted` are the limits by predictions, `doubted` the
    targets by upper ends of intervals."""
    from netlathe.search.nearby import NearbyCandidates

    assert settings.device is not None
    candidates = NearbyCandidates(settings.space, scores, predicted, found, fastest)
    return choose_network(
        settings.space, settings.goal, candidates, predicted, settings.device, place.listener, doubted
    )
