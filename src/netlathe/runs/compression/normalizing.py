"""How a model takes images: as was said, or as the known normalization that it clearly does best with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netlathe.runs.compression.settings import CompressSettings
from netlathe.words import percent_within

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netlathe.training import Compute, ImageData, ImageSplit, Normalization

CLEARLY = 0.8
"""Share of the best normalization's accuracy below which the one by default is clearly not the model's."""
STANDARD_ERRORS = 3.0
"""Difference of two accuracies on the same images from which on it is none of chance."""


@dataclass(frozen=True)
class Taken:
    """How the model takes images, and what it does with them so."""

    normalization: Normalization
    accuracy: float | None = None
    """Share of the images that it classifies right, 0..1; None where the classes are not its own."""
    note: str = ""
    """Words on a choice that nobody made."""
    warnings: tuple[str, ...] = ()


def find_normalization(network: nn.Module, settings: CompressSettings, few: ImageSplit, compute: Compute) -> Taken:
    """How a network takes the images of `few`, whose labels are its classes.

    What was said holds. Where nothing was, values from -1 to 1 do, unless the network classifies so less than CLEARLY
    of what it does right with another of NORMALIZATIONS. A warning tells of another one that does significantly better
    than the one that holds, by McNemar's test (Psychometrika 12, 1947) over the same images.
    """
    from netlathe.training.normalization import SYMMETRIC

    assert settings.data is not None
    said = settings.normalization
    right = _right_by(said or SYMMETRIC, network, settings.data, few, compute)
    accuracies = {one: float(answers.float().mean()) for one, answers in right.items()}
    best = max(accuracies, key=accuracies.__getitem__)
    held = said or (best if accuracies[SYMMETRIC] < CLEARLY * accuracies[best] else SYMMETRIC)
    told = f"{settings.original.name} classifies {_told(accuracies, best, len(few))} of the validation images right"
    note, warnings = "", []
    if held != (said or SYMMETRIC):
        note = f"{told}, so it gets images as {held}; --normalization says another"
    elif _is_better(right[best], right[held]):
        where = "--normalization says which it takes" if said is None else "is the normalization the model's?"
        warnings.append(f"{told}, and gets them as {held}; {where}")
    return Taken(held, accuracies[held], note, tuple(warnings))


def unjudged(settings: CompressSettings, accuracy: float | None = None) -> Taken:
    """How a network takes images where their labels tell nothing: as was said, or with values from -1 to 1."""
    from netlathe.training.normalization import SYMMETRIC

    return Taken(settings.normalization or SYMMETRIC, accuracy)


def _right_by(
    first: Normalization, network: nn.Module, data: ImageData, few: ImageSplit, compute: Compute
) -> Mapping[Normalization, Tensor]:
    """Whether each image is classified right, bool (N,), by each known normalization, that one first."""
    from netlathe.training.evaluation import right_answers
    from netlathe.training.images import NormalizedSplit
    from netlathe.training.normalization import NORMALIZATIONS

    channels = data.input_shape[2]
    known = dict.fromkeys((first, *(one for one in NORMALIZATIONS.values() if one.fits(channels))))
    return {one: right_answers(network, NormalizedSplit(few, one), batch_size=32, compute=compute) for one in known}


def _is_better(one: Tensor, other: Tensor) -> bool:
    """Whether answers to the same images are right more often, beyond chance."""
    wins, losses = int((one & ~other).sum()), int((other & ~one).sum())
    return wins - losses > STANDARD_ERRORS * math.sqrt(wins + losses)


def _told(accuracies: Mapping[Normalization, float], best: Normalization, images: int) -> str:
    """'71.2 % ± 2.8 as imagenet (-1..1 64.1 % ± 3.0, ...)'."""
    others = ", ".join(f"{one} {percent_within(share, images)}" for one, share in accuracies.items() if one != best)
    return f"{percent_within(accuracies[best], images)} as {best} ({others})"
